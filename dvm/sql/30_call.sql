-- The one door through which clients change the catalog: INSERT INTO pgtrickle._call (op, args) VALUES (...) RETURNING result.
--
-- caller cannot be inserted by anyone; its default is evaluated in the session of whoever inserts, before the SECURITY DEFINER trigger function
-- changes the role, so it is the role that really calls: under SET ROLE and inside other definer functions too. Nothing here runs SQL text
-- that a caller supplied, but for 'run', which runs a stream table's plan as its owner: see 35_runner.sql.

SET LOCAL client_min_messages = warning;

CREATE OR REPLACE VIEW pgtrickle._call AS SELECT NULL::text AS op, NULL::jsonb AS args, NULL::name AS caller, NULL::jsonb AS result WHERE false;
ALTER VIEW pgtrickle._call ALTER COLUMN caller SET DEFAULT current_user;
GRANT INSERT (op, args), SELECT (result) ON pgtrickle._call TO PUBLIC;

CREATE OR REPLACE FUNCTION pgtrickle._do(op text, args jsonb) RETURNS jsonb
LANGUAGE plpgsql AS $body$
DECLARE
    answer jsonb;
BEGIN
    INSERT INTO pgtrickle._call (op, args) VALUES ($1, $2) RETURNING result INTO answer;
    RETURN answer;
END
$body$;

-- Whether role may act as the owner of a relation: as PostgreSQL asks for DDL.
CREATE OR REPLACE FUNCTION pgtrickle._may_own(role name, relid oid) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT coalesce((SELECT pg_has_role(role, c.relowner, 'USAGE') FROM pg_class c WHERE c.oid = relid), false)
$body$;

CREATE OR REPLACE FUNCTION pgtrickle._ints(list jsonb) RETURNS integer[]
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT coalesce(array_agg(x::integer ORDER BY x::integer), '{}') FROM jsonb_array_elements_text(CASE jsonb_typeof(list) WHEN 'array' THEN list ELSE '[]' END) AS x
$body$;
CREATE OR REPLACE FUNCTION pgtrickle._texts(list jsonb) RETURNS text[]
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT array_agg(x ORDER BY i) FROM jsonb_array_elements_text(CASE jsonb_typeof(list) WHEN 'array' THEN list END) WITH ORDINALITY AS e(x, i)
$body$;

CREATE OR REPLACE FUNCTION pgtrickle._call_request(args jsonb, caller name) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    id bigint;
BEGIN
    -- Asked again: an earlier one that failed has had its time.
    DELETE FROM pgtrickle.pgt_requests r WHERE r.error IS NOT NULL AND r.caller = _call_request.caller
        AND r.args->>'schema' = _call_request.args->>'schema' AND r.args->>'name' = _call_request.args->>'name';
    INSERT INTO pgtrickle.pgt_requests (op, args, caller, search_path, settings)
    VALUES (args->>'op', args - '{op,search_path}'::text[], caller, coalesce(args->>'search_path', ''), pgtrickle._pinned_settings())
    RETURNING request_id INTO id;
    RETURN jsonb_build_object('request_id', id);
END
$body$;

-- Writes the rows of a stream table whose relation exists; makes the buffers of its sources. See docs/architecture.md for args.
CREATE OR REPLACE FUNCTION pgtrickle._call_register(args jsonb, caller name) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    request pgtrickle.pgt_requests;
    ask jsonb;
    old pgtrickle.pgt_stream_tables;
    id bigint := (args->>'pgt_id')::bigint;
    relid oid := (args->>'relid')::oid;
    mode text := upper(args->>'mode');
    owner name;
    source jsonb;
    src oid;
    attnums integer[];
    capture boolean;
    bad text;
    trigger_sql text[] := '{}';
    gone oid;
BEGIN
    SELECT * INTO request FROM pgtrickle.pgt_requests r
    WHERE r.request_id = (_call_register.args->>'request_id')::bigint AND (r.caller = _call_register.caller OR _call_register.caller = current_user);
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no request % of role "%"', args->>'request_id', caller USING ERRCODE = 'undefined_object';
    END IF;
    ask := request.args;
    SELECT pg_get_userbyid(c.relowner) INTO owner FROM pg_class c WHERE c.oid = relid AND c.relkind IN ('r', 'p');
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no table with OID %', relid USING ERRCODE = 'undefined_table';
    END IF;
    SELECT * INTO old FROM pgtrickle.pgt_stream_tables t WHERE t.pgt_id = id FOR UPDATE;
    IF FOUND AND NOT (pgtrickle._may_own(caller, old.pgt_relid) OR NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = old.pgt_relid) AND pgtrickle._may_own(caller, relid)) THEN
        RAISE EXCEPTION 'must be owner of stream table "%.%"', old.pgt_schema, old.pgt_name USING ERRCODE = 'insufficient_privilege';
    END IF;

    -- Whatever a definer's role, its stream table sees no more than its owner.
    FOR source IN SELECT * FROM jsonb_array_elements(coalesce(args->'sources', '[]')) LOOP
        src := (source->>'relid')::oid;
        SELECT a.attname INTO bad
        FROM unnest(pgtrickle._ints(source->'attnums')) AS n JOIN pg_attribute a ON a.attrelid = src AND a.attnum = n
        WHERE NOT has_column_privilege(owner, src, n::int2, 'SELECT') LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION 'permission denied for table %', src::regclass
                USING ERRCODE = 'insufficient_privilege', HINT = format('GRANT SELECT ON %s TO %I;', src::regclass, owner);
        END IF;
        IF EXISTS (SELECT FROM pg_class c JOIN pg_roles r ON r.rolname = owner
                   WHERE c.oid = src AND c.relrowsecurity AND NOT r.rolsuper AND NOT r.rolbypassrls
                     AND (c.relforcerowsecurity OR NOT pg_has_role(owner, c.relowner, 'USAGE'))) THEN
            RAISE EXCEPTION 'row-level security of table % applies to the owner of the stream table', src::regclass
                USING ERRCODE = 'feature_not_supported', HINT = 'Let a role own the stream table that the policies do not apply to.';
        END IF;
    END LOOP;

    IF old.pgt_id IS NULL THEN
        INSERT INTO pgtrickle.pgt_stream_tables (pgt_id, pgt_relid, pgt_name, pgt_schema, defining_query, original_query, refresh_mode, plan, canonical_query,
            frontier_snapshot, frontier_xid, frontier_seq, frontier_time, requested_mode, settings, caller_search_path,
            schedule, diamond_consistency, diamond_schedule_policy, requested_cdc_mode, is_append_only, pooler_compatibility_mode, st_partition_key,
            max_differential_joins, max_delta_fraction, refresh_tier, fuse_mode, fuse_ceiling, fuse_sensitivity)
        SELECT id, relid, c.relname, n.nspname, ask->>'query', ask->>'query', mode, args->'plan', args->>'canonical_query',
            pg_current_snapshot(), pg_current_xact_id(), nextval('pgtrickle.change_seq'), now(), upper(coalesce(ask->>'refresh_mode', 'AUTO')),
            request.settings, request.search_path,
            CASE WHEN mode <> 'IMMEDIATE' THEN ask->>'schedule' END, coalesce(ask->>'diamond_consistency', 'atomic'),
            coalesce(ask->>'diamond_schedule_policy', 'fastest'), ask->>'cdc_mode', coalesce((ask->>'append_only')::boolean, false),
            coalesce((ask->>'pooler_compatibility_mode')::boolean, false), ask->>'partition_by', (ask->>'max_differential_joins')::integer,
            (ask->>'max_delta_fraction')::float8, coalesce(ask->>'tier', 'hot'), coalesce(ask->>'fuse', 'off'), (ask->>'fuse_ceiling')::bigint,
            (ask->>'fuse_sensitivity')::integer
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = relid;
    ELSE
        UPDATE pgtrickle.pgt_stream_tables t SET pgt_relid = relid, original_query = coalesce(ask->>'query', t.original_query), refresh_mode = mode,
            plan = args->'plan', canonical_query = args->>'canonical_query',
            -- An old query keeps its meaning.
            settings = CASE WHEN ask ? 'query' THEN request.settings ELSE t.settings END,
            caller_search_path = CASE WHEN ask ? 'query' THEN request.search_path ELSE t.caller_search_path END,
            requested_mode = upper(coalesce(ask->>'refresh_mode', t.requested_mode)),
            schedule = CASE WHEN mode = 'IMMEDIATE' THEN NULL WHEN ask ? 'schedule' THEN ask->>'schedule'
                            WHEN t.refresh_mode = 'IMMEDIATE' AND request.op = 'alter_mode' THEN '1m' ELSE t.schedule END,
            is_append_only = t.is_append_only AND mode = 'DIFFERENTIAL',
            needs_reinit = true, consecutive_errors = 0, next_attempt_at = NULL, last_error_message = NULL, last_error_at = NULL,
            status = CASE WHEN t.status = 'ERROR' THEN 'ACTIVE' ELSE t.status END, effective_refresh_mode = NULL, source_activity = NULL, updated_at = now()
        WHERE t.pgt_id = id;
        -- What reads it must look again: its rows may now be of another query.
        UPDATE pgtrickle.pgt_stream_tables t SET needs_reinit = true
        WHERE t.pgt_id <> id AND old.pgt_relid <> relid AND t.pgt_id IN (SELECT d.pgt_id FROM pgtrickle.pgt_dependencies d WHERE d.source_relid = old.pgt_relid);
    END IF;
    UPDATE pgtrickle.pgt_stream_tables t SET
        defining_query = coalesce(args->>'query', t.original_query), strategy = args->>'strategy', downgrade_reason = args->>'downgrade_reason',
        time_dependent = coalesce((args->>'time_dependent')::boolean, (args->'plan'->>'time')::boolean, false),
        key_columns = coalesce(pgtrickle._texts(args->'key_columns'), '{}'), hidden_columns = coalesce(pgtrickle._texts(args->'hidden_columns'), '{}'),
        column_names = pgtrickle._texts(args->'column_names'),
        column_list = CASE WHEN old.pgt_id IS NULL OR jsonb_typeof(ask->'columns') = 'array' THEN pgtrickle._texts(ask->'columns')
                           WHEN cardinality(t.column_list) = jsonb_array_length(args->'column_names') THEN t.column_list END,
        functions_used = (SELECT array_agg(f::oid::regprocedure::text ORDER BY f::bigint) FROM jsonb_array_elements_text(coalesce(args->'functions', '[]')) AS f),
        function_oids = ARRAY(SELECT f::oid FROM jsonb_array_elements_text(coalesce(args->'functions', '[]')) AS f ORDER BY f::bigint),
        function_hashes = pgtrickle._function_hashes(ARRAY(SELECT f::oid FROM jsonb_array_elements_text(coalesce(args->'functions', '[]')) AS f)),
        has_keyless_source = EXISTS (SELECT FROM jsonb_array_elements(coalesce(args->'sources', '[]')) AS s JOIN pg_class c ON c.oid = (s->>'relid')::oid
            WHERE c.relkind IN ('r', 'p') AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid))
    WHERE t.pgt_id = id;

    FOR gone IN DELETE FROM pgtrickle.pgt_dependencies d WHERE d.pgt_id = id RETURNING d.source_relid LOOP
        NULL; -- released below, when nothing took it up again
    END LOOP;
    FOR source IN SELECT * FROM jsonb_array_elements(coalesce(args->'sources', '[]')) ORDER BY (value->>'relid')::bigint LOOP
        src := (source->>'relid')::oid;
        attnums := pgtrickle._ints(source->'attnums');
        capture := mode = 'DIFFERENTIAL' AND attnums <> '{}';
        IF mode = 'FULL' AND (SELECT t.schedule IS NULL FROM pgtrickle.pgt_stream_tables t WHERE t.pgt_id = id) THEN
            -- Only to know when it is due: a row a statement, no columns. Else, and where triggers don't see all, statistics tell.
            capture := EXISTS (SELECT FROM pg_class c WHERE c.oid = src AND c.relkind = 'r' AND c.oid >= 16384) AND has_table_privilege(owner, src, 'TRIGGER')
                AND NOT EXISTS (SELECT FROM pg_inherits i WHERE src IN (i.inhrelid, i.inhparent));
            attnums := CASE WHEN capture THEN '{}' ELSE attnums END;
        END IF;
        INSERT INTO pgtrickle.pgt_dependencies (pgt_id, source_relid, source_type, columns_used, column_snapshot, attnums, captured, schema_fingerprint,
            unique_keys, rewrite_marks)
        SELECT id, src,
            CASE WHEN EXISTS (SELECT FROM pgtrickle.pgt_stream_tables t WHERE t.pgt_relid = src) THEN 'STREAM_TABLE'
                 ELSE CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATVIEW' WHEN 'f' THEN 'FOREIGN_TABLE' ELSE 'TABLE' END END,
            (SELECT array_agg(a.attname::text ORDER BY a.attnum) FROM pg_attribute a WHERE a.attrelid = src AND a.attnum = ANY (attnums)),
            pgtrickle._column_snapshot(src, attnums), attnums, capture, pgtrickle._source_fingerprint(src, attnums, owner),
            pgtrickle._unique_keys(src), pgtrickle._rewrite_marks(src, attnums)
        FROM pg_class c WHERE c.oid = src
        ON CONFLICT DO NOTHING;
        IF capture THEN
            -- Held until the end of this transaction: the fill that follows reads from a snapshot that _purge can't know of yet.
            PERFORM pgtrickle._hold_buffer(src);
            IF pgtrickle._capture_ensure(src, attnums) THEN
                trigger_sql := trigger_sql || pgtrickle._capture_trigger_sql(src);
            END IF;
            PERFORM pgtrickle._grant_buffer(src, attnums, owner);
        END IF;
    END LOOP;
    FOR gone IN SELECT c.source_relid FROM pgtrickle.pgt_captures c
                WHERE old.pgt_id IS NOT NULL AND NOT EXISTS (SELECT FROM pgtrickle.pgt_dependencies d WHERE d.source_relid = c.source_relid AND d.captured) LOOP
        PERFORM pgtrickle._capture_release(gone);
    END LOOP;
    IF mode = 'IMMEDIATE' THEN
        EXECUTE format('GRANT CREATE ON SCHEMA pgtrickle_changes TO %I', owner);
    END IF;
    RETURN jsonb_build_object('pgt_id', id, 'trigger_sql', to_jsonb(trigger_sql));
END
$body$;

-- A reader sees the columns that it uses, not those that others made us capture.
CREATE OR REPLACE FUNCTION pgtrickle._grant_buffer(relid oid, attnums integer[], owner name) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    EXECUTE format('GRANT SELECT (__pgt_xid, __pgt_seq, __pgt_w%s) ON pgtrickle_changes.c_%s TO %I',
                   (SELECT string_agg(', a' || n, '') FROM unnest(attnums) AS n), relid, owner);
END
$body$;

CREATE OR REPLACE FUNCTION pgtrickle._call_unregister(id bigint) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    src oid;
    sources oid[];
BEGIN
    SELECT array_agg(d.source_relid ORDER BY d.source_relid) INTO sources FROM pgtrickle.pgt_dependencies d WHERE d.pgt_id = id AND d.captured;
    DELETE FROM pgtrickle.pgt_requests r WHERE (r.args->>'pgt_id')::bigint = id;
    DELETE FROM pgtrickle.pgt_stream_tables t WHERE t.pgt_id = id;
    PERFORM pgtrickle._drop_runner(id);
    FOREACH src IN ARRAY coalesce(sources, '{}') LOOP
        PERFORM pgtrickle._capture_release(src);
    END LOOP;
    RETURN '{}';
END
$body$;

CREATE OR REPLACE FUNCTION pgtrickle._call_refreshed(args jsonb) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    act text := args->>'action';
    at timestamptz := clock_timestamp();
    ms float8 := (args->>'ms')::float8;
    mode text := args->>'effective_refresh_mode';
    written boolean := coalesce((args->>'inserted')::bigint, 0) + coalesce((args->>'updated')::bigint, 0) + coalesce((args->>'deleted')::bigint, 0) > 0;
BEGIN
    IF act = 'NO_DATA' THEN
        -- effective_refresh_mode keeps saying how data was last brought in.
        UPDATE pgtrickle.pgt_stream_tables t SET last_refresh_at = at, consecutive_errors = 0, next_attempt_at = NULL, updated_at = at
        WHERE t.pgt_id = (args->>'pgt_id')::bigint;
        RETURN '{}';
    ELSIF act = 'SKIP' THEN
        -- The fuse: nothing was done, nothing is lost, until someone looks.
        UPDATE pgtrickle.pgt_stream_tables t SET fuse_state = 'blown', blown_at = at, blow_reason = args->>'reason', updated_at = at
        WHERE t.pgt_id = (args->>'pgt_id')::bigint;
        INSERT INTO pgtrickle.pgt_refresh_history (pgt_id, start_time, end_time, action, status, initiated_by, reason)
        VALUES ((args->>'pgt_id')::bigint, (args->>'start_time')::timestamptz, at, act, 'SKIPPED', args->>'initiated_by', args->>'reason');
        RETURN '{}';
    END IF;
    UPDATE pgtrickle.pgt_stream_tables t SET
        frontier_snapshot = (args->>'snapshot')::pg_snapshot, frontier_xid = (args->>'xid')::xid8, frontier_seq = (args->>'seq')::bigint,
        frontier_time = (args->>'time')::timestamptz,
        frontier = jsonb_build_object('snapshot', args->>'snapshot', 'xid', args->>'xid', 'seq', (args->>'seq')::bigint, 'time', args->>'time'),
        frontier_timeline = pgtrickle._timeline(), is_populated = true, status = CASE WHEN t.status = 'INITIALIZING' THEN 'ACTIVE' ELSE t.status END,
        needs_reinit = coalesce((args->>'needs_reinit')::boolean, false),
        data_timestamp = CASE WHEN written OR NOT t.is_populated OR act <> 'DIFFERENTIAL' THEN (args->>'time')::timestamptz ELSE t.data_timestamp END,
        last_refresh_at = at, consecutive_errors = 0, next_attempt_at = NULL, last_error_message = NULL, last_error_at = NULL,
        last_full_ms = CASE WHEN act <> 'DIFFERENTIAL' THEN ms ELSE t.last_full_ms END,
        effective_refresh_mode = mode, source_activity = args->'source_activity', updated_at = at
    WHERE t.pgt_id = (args->>'pgt_id')::bigint;
    INSERT INTO pgtrickle.pgt_refresh_history (pgt_id, data_timestamp, start_time, end_time, action, rows_inserted, rows_updated, rows_deleted, delta_row_count,
        merge_strategy_used, was_full_fallback, status, initiated_by, reason, duration_ms, pending_rows)
    SELECT t.pgt_id, (args->>'time')::timestamptz, (args->>'start_time')::timestamptz, at, act, (args->>'inserted')::bigint, (args->>'updated')::bigint,
        (args->>'deleted')::bigint, (args->>'delta_rows')::bigint, t.strategy, coalesce((args->>'fallback')::boolean, false),
        'COMPLETED', args->>'initiated_by', args->>'reason', ms, (args->>'pending')::bigint
    FROM pgtrickle.pgt_stream_tables t WHERE t.pgt_id = (args->>'pgt_id')::bigint;
    RETURN '{}';
END
$body$;

-- Fields present in args are changed, a JSON null to SQL NULL where the column takes it. The relation's present name is taken over too.
CREATE OR REPLACE FUNCTION pgtrickle._call_alter(args jsonb, caller name) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    st pgtrickle.pgt_stream_tables;
    d pgtrickle.pgt_dependencies;
BEGIN
    UPDATE pgtrickle.pgt_stream_tables t SET
        pgt_name = c.relname, pgt_schema = n.nspname,
        schedule = CASE WHEN args ? 'schedule' THEN args->>'schedule' ELSE t.schedule END,
        refresh_tier = coalesce(args->>'tier', t.refresh_tier),
        status = coalesce(args->>'status', t.status),
        consecutive_errors = CASE WHEN args->>'status' = 'ACTIVE' THEN 0 ELSE t.consecutive_errors END,
        next_attempt_at = CASE WHEN args->>'status' = 'ACTIVE' THEN NULL ELSE t.next_attempt_at END,
        last_error_message = CASE WHEN args->>'status' = 'ACTIVE' THEN NULL ELSE t.last_error_message END,
        last_error_at = CASE WHEN args->>'status' = 'ACTIVE' THEN NULL ELSE t.last_error_at END,
        needs_reinit = coalesce((args->>'needs_reinit')::boolean, t.needs_reinit),
        diamond_consistency = coalesce(args->>'diamond_consistency', t.diamond_consistency),
        diamond_schedule_policy = coalesce(args->>'diamond_schedule_policy', t.diamond_schedule_policy),
        requested_cdc_mode = coalesce(args->>'cdc_mode', t.requested_cdc_mode),
        is_append_only = coalesce((args->>'append_only')::boolean, t.is_append_only),
        pooler_compatibility_mode = coalesce((args->>'pooler_compatibility_mode')::boolean, t.pooler_compatibility_mode),
        fuse_mode = coalesce(args->>'fuse', t.fuse_mode),
        fuse_state = CASE WHEN args->>'fuse' = 'off' OR args->>'fuse_state' = 'armed' THEN 'armed' ELSE t.fuse_state END,
        blown_at = CASE WHEN args->>'fuse' = 'off' OR args->>'fuse_state' = 'armed' THEN NULL ELSE t.blown_at END,
        blow_reason = CASE WHEN args->>'fuse' = 'off' OR args->>'fuse_state' = 'armed' THEN NULL ELSE t.blow_reason END,
        fuse_ceiling = CASE WHEN args ? 'fuse_ceiling' THEN (args->>'fuse_ceiling')::bigint ELSE t.fuse_ceiling END,
        fuse_sensitivity = CASE WHEN args ? 'fuse_sensitivity' THEN (args->>'fuse_sensitivity')::integer ELSE t.fuse_sensitivity END,
        max_differential_joins = CASE WHEN args ? 'max_differential_joins' THEN (args->>'max_differential_joins')::integer ELSE t.max_differential_joins END,
        max_delta_fraction = CASE WHEN args ? 'max_delta_fraction' THEN (args->>'max_delta_fraction')::float8 ELSE t.max_delta_fraction END,
        updated_at = now()
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE t.pgt_id = (args->>'pgt_id')::bigint AND c.oid = t.pgt_relid
    RETURNING t.* INTO st;
    -- After ALTER TABLE ... OWNER the new owner reads the buffers: if it may read the sources.
    IF coalesce((args->>'owner')::boolean, false) THEN
        FOR d IN SELECT * FROM pgtrickle.pgt_dependencies x WHERE x.pgt_id = st.pgt_id AND x.captured LOOP
            PERFORM pgtrickle._grant_buffer(d.source_relid, d.attnums, pg_get_userbyid(c.relowner)) FROM pg_class c
            WHERE c.oid = st.pgt_relid
              AND NOT EXISTS (SELECT FROM unnest(d.attnums) AS n WHERE NOT has_column_privilege(c.relowner, d.source_relid, n::int2, 'SELECT'));
        END LOOP;
    END IF;
    RETURN '{}';
END
$body$;

CREATE OR REPLACE FUNCTION pgtrickle._call_insert() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    a jsonb := coalesce(NEW.args, '{}');
    st pgtrickle.pgt_stream_tables;
    owner text;
BEGIN
    IF TG_RELID <> 'pgtrickle._call'::regclass OR NEW.caller IS NULL THEN
        RAISE EXCEPTION 'not callable' USING ERRCODE = 'insufficient_privilege';
    END IF;
    -- For a stream table that exists: its owner or the maintenance role.
    IF NEW.op IN ('unregister', 'refreshed', 'alter', 'run', 'checked', 'captured') OR NEW.op = 'request' AND a ? 'pgt_id' THEN
        SELECT * INTO st FROM pgtrickle.pgt_stream_tables t WHERE t.pgt_id = (a->>'pgt_id')::bigint;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'there is no stream table %', a->>'pgt_id' USING ERRCODE = 'undefined_table';
        END IF;
        IF NEW.caller <> current_user AND NOT pgtrickle._may_own(NEW.caller, st.pgt_relid) THEN
            RAISE EXCEPTION 'must be owner of stream table "%.%"', st.pgt_schema, st.pgt_name USING ERRCODE = 'insufficient_privilege';
        END IF;
    ELSIF NEW.op = 'register' THEN
        IF NEW.caller <> current_user AND NOT pgtrickle._may_own(NEW.caller, (a->>'relid')::oid) THEN
            RAISE EXCEPTION 'must be owner of table %', (a->>'relid')::oid::regclass USING ERRCODE = 'insufficient_privilege';
        END IF;
    END IF;

    CASE NEW.op
    WHEN 'request' THEN
        NEW.result := pgtrickle._call_request(a, NEW.caller);
    WHEN 'request_done' THEN
        DELETE FROM pgtrickle.pgt_requests r WHERE r.request_id = (a->>'request_id')::bigint AND (r.caller = NEW.caller OR NEW.caller = current_user);
        NEW.result := jsonb_build_object('done', FOUND);
    WHEN 'request_change' THEN
        -- ALTER of what has not been created yet.
        UPDATE pgtrickle.pgt_requests r SET args = r.args || (a->'change'), error = NULL
        WHERE r.request_id = (a->>'request_id')::bigint AND r.op = 'create' AND (r.caller = NEW.caller OR NEW.caller = current_user);
        NEW.result := jsonb_build_object('done', FOUND);
    WHEN 'register' THEN
        NEW.result := pgtrickle._call_register(a, NEW.caller);
    WHEN 'unregister' THEN
        NEW.result := pgtrickle._call_unregister(st.pgt_id);
    WHEN 'run' THEN
        NEW.result := pgtrickle._call_run(st, a->>'what', a->>'mask');
    WHEN 'captured' THEN
        NEW.result := pgtrickle._call_captured(st.pgt_id);
    WHEN 'refreshed' THEN
        NEW.result := pgtrickle._call_refreshed(a);
    WHEN 'alter' THEN
        NEW.result := pgtrickle._call_alter(a, NEW.caller);
    ELSE
        NEW.result := pgtrickle._call_policy(NEW.op, a, NEW.caller);
    END CASE;
    RETURN NEW;
END
$body$;
CREATE OR REPLACE TRIGGER call INSTEAD OF INSERT ON pgtrickle._call FOR EACH ROW EXECUTE FUNCTION pgtrickle._call_insert();

REVOKE EXECUTE ON FUNCTION pgtrickle._call_request(jsonb, name), pgtrickle._call_register(jsonb, name), pgtrickle._call_unregister(bigint),
    pgtrickle._call_refreshed(jsonb), pgtrickle._call_alter(jsonb, name), pgtrickle._grant_buffer(oid, integer[], name) FROM PUBLIC;
