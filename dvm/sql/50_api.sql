-- What users call: pg_trickle's functions, with its names, parameters, order and defaults; and what the statement grammar calls.
--
-- Every outer function sees the caller's search_path and names objects in full; it hands the path on to inner ones that pin theirs. What needs
-- the compiler becomes a request and a NOTICE with SQLSTATE PGT00, which the daemon between us and the client takes as its cue.

SET LOCAL client_min_messages = warning;

CREATE OR REPLACE FUNCTION pgtrickle._require_owner(st pgtrickle.pgt_stream_tables) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    IF EXISTS (SELECT FROM pg_class c WHERE c.oid = st.pgt_relid) AND NOT pgtrickle._may_own(current_user, st.pgt_relid) THEN
        RAISE EXCEPTION 'must be owner of stream table "%.%"', st.pgt_schema, st.pgt_name USING ERRCODE = 'insufficient_privilege';
    END IF;
END
$body$;

-- Checks parameters, given by the names of create_stream_table and alter_stream_table, and brings them into the form in which they are stored.
-- Absent keys stay absent; SQL NULLs are absent too. refresh_mode is what 'schedule' => 'IMMEDIATE' makes of it.
CREATE OR REPLACE FUNCTION pgtrickle._check_options(options jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    o jsonb := options;
    k text;
    v text;
BEGIN
    IF o ? 'schedule' AND lower(btrim(o->>'schedule')) = 'immediate' THEN
        o := o - 'schedule' || '{"refresh_mode": "IMMEDIATE"}';
    END IF;
    FOR k, v IN SELECT * FROM jsonb_each_text(o) LOOP
        CASE k
        WHEN 'schedule' THEN
            o := jsonb_set(o, '{schedule}', coalesce(to_jsonb(pgtrickle._check_schedule(v)), 'null'));
        WHEN 'refresh_mode' THEN
            v := upper(btrim(v));
            v := CASE v WHEN 'INCREMENTAL' THEN 'DIFFERENTIAL' ELSE v END;
            IF v NOT IN ('AUTO', 'FULL', 'DIFFERENTIAL', 'IMMEDIATE') THEN
                RAISE EXCEPTION 'invalid refresh mode: %', quote_literal(options->>k)
                    USING ERRCODE = 'invalid_parameter_value', HINT = 'Known are AUTO, FULL, DIFFERENTIAL and IMMEDIATE.';
            END IF;
            o := jsonb_set(o, '{refresh_mode}', to_jsonb(v));
        WHEN 'tier', 'diamond_consistency', 'diamond_schedule_policy', 'cdc_mode', 'fuse', 'status' THEN
            v := CASE k WHEN 'status' THEN upper(btrim(v)) ELSE lower(btrim(v)) END;
            IF NOT (CASE k WHEN 'tier' THEN v IN ('hot', 'warm', 'cold', 'frozen') WHEN 'diamond_consistency' THEN v IN ('none', 'atomic')
                   WHEN 'diamond_schedule_policy' THEN v IN ('fastest', 'slowest') WHEN 'cdc_mode' THEN v IN ('auto', 'trigger', 'wal')
                   WHEN 'fuse' THEN v IN ('off', 'on', 'auto') ELSE v IN ('ACTIVE', 'SUSPENDED', 'ERROR') END) THEN
                RAISE EXCEPTION 'invalid % value: %', replace(k, '_', ' '), quote_literal(options->>k)
                    USING ERRCODE = 'invalid_parameter_value',
                          HINT = CASE k WHEN 'tier' THEN 'Known are hot, warm, cold and frozen.' WHEN 'diamond_consistency' THEN 'Known are none and atomic.'
                                 WHEN 'diamond_schedule_policy' THEN 'Known are fastest and slowest.' WHEN 'cdc_mode' THEN 'Known are auto and trigger.'
                                 WHEN 'fuse' THEN 'Known are off, on and auto.' ELSE 'Known are ACTIVE, SUSPENDED and ERROR.' END;
            END IF;
            o := jsonb_set(o, ARRAY[k], to_jsonb(v));
            IF k = 'cdc_mode' AND v = 'wal' THEN
                RAISE EXCEPTION 'cdc_mode ''wal'' is not supported' USING ERRCODE = 'feature_not_supported', HINT = 'Leave it out: changes are captured by triggers.';
            END IF;
        WHEN 'partition_by' THEN
            IF btrim(v) <> '' THEN
                RAISE EXCEPTION 'partition_by is not supported' USING ERRCODE = 'feature_not_supported', HINT = 'Leave it out: the stream table is a plain table.';
            END IF;
            o := o - 'partition_by';
        WHEN 'max_differential_joins', 'fuse_ceiling', 'fuse_sensitivity' THEN
            IF v::bigint < 0 OR v::bigint > 2147483647 AND k <> 'fuse_ceiling' OR k <> 'max_differential_joins' AND v::bigint = 0 THEN
                RAISE EXCEPTION '% is out of range: %', k, v USING ERRCODE = 'invalid_parameter_value';
            END IF;
            o := jsonb_set(o, ARRAY[k], CASE WHEN v::bigint = 0 THEN 'null'::jsonb ELSE to_jsonb(v::bigint) END);
        WHEN 'max_delta_fraction' THEN
            IF NOT v::float8 BETWEEN 0 AND 1 THEN
                RAISE EXCEPTION 'max_delta_fraction must be above 0 and at most 1: %', v USING ERRCODE = 'invalid_parameter_value';
            END IF;
            o := jsonb_set(o, ARRAY[k], CASE WHEN v::float8 = 0 THEN 'null'::jsonb ELSE to_jsonb(v::float8) END);
        WHEN 'initialize', 'append_only', 'pooler_compatibility_mode' THEN
            o := jsonb_set(o, ARRAY[k], to_jsonb(v::boolean));
        ELSE
            RAISE EXCEPTION 'unrecognized stream table parameter "%"', k USING ERRCODE = 'invalid_parameter_value';
        END CASE;
    END LOOP;
    IF o->>'diamond_schedule_policy' = 'slowest' AND o->>'diamond_consistency' = 'none' THEN
        RAISE EXCEPTION 'diamond_schedule_policy ''slowest'' needs diamond_consistency ''atomic''' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF (o->>'append_only')::boolean AND o->>'refresh_mode' IN ('FULL', 'IMMEDIATE') THEN
        RAISE EXCEPTION 'append_only does not go with refresh mode %', o->>'refresh_mode' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN o;
END
$body$;

CREATE OR REPLACE FUNCTION pgtrickle._announce(what text, done text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = notice AS $body$
BEGIN
    RAISE NOTICE 'stream table "%" will be % by the pgtrickle daemon at its next tick', what, done USING ERRCODE = 'PGT00';
END
$body$;

-- schema NULL: the first of path. options: as for _check_options. what: if_not_exists, or_replace, columns.
CREATE OR REPLACE FUNCTION pgtrickle._create(schema text, name text, query text, options jsonb, what jsonb, path name[], search_path text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = notice AS $body$
#variable_conflict use_variable
DECLARE
    o jsonb := pgtrickle._check_options(jsonb_strip_nulls(options));
    full_name text;
    st pgtrickle.pgt_stream_tables;
    is_same boolean;
BEGIN
    IF query IS NULL THEN
        RAISE EXCEPTION 'query must not be NULL' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    IF options ? 'schedule' AND options->'schedule' = 'null' THEN
        PERFORM pgtrickle._check_schedule(NULL);
    END IF;
    schema := coalesce(schema, path[1]);
    IF schema IS NULL THEN
        RAISE EXCEPTION 'no schema has been selected to create in' USING ERRCODE = 'invalid_schema_name';
    ELSIF to_regnamespace(quote_ident(schema)) IS NULL THEN
        RAISE EXCEPTION 'schema "%" does not exist', schema USING ERRCODE = 'invalid_schema_name';
    ELSIF schema LIKE 'pg\_%' OR schema IN ('information_schema', 'pgtrickle', 'pgtrickle_changes') THEN
        RAISE EXCEPTION 'cannot create a stream table in schema "%"', schema USING ERRCODE = 'invalid_schema_name';
    END IF;
    full_name := schema || '.' || name;

    SELECT * INTO st FROM pgtrickle.pgt_stream_tables t WHERE t.pgt_schema = schema AND t.pgt_name = name
        AND EXISTS (SELECT FROM pg_class c WHERE c.oid = t.pgt_relid);
    IF FOUND THEN
        IF (what->>'if_not_exists')::boolean THEN
            RAISE NOTICE 'stream table "%" already exists, skipping', full_name;
            RETURN;
        ELSIF NOT coalesce((what->>'or_replace')::boolean, false) THEN
            RAISE EXCEPTION 'stream table already exists: %', full_name USING ERRCODE = 'duplicate_table',
                HINT = 'CREATE OR REPLACE STREAM TABLE, or pgtrickle.create_or_replace_stream_table, gives it a new definition.';
        END IF;
        PERFORM pgtrickle._require_owner(st);
        -- Parameters that were not given have their defaults again; tier, fuse and status stay.
        o := '{"schedule": null, "refresh_mode": "AUTO", "diamond_consistency": "atomic", "diamond_schedule_policy": "fastest", "append_only": false, '
             '"pooler_compatibility_mode": false, "max_differential_joins": null, "max_delta_fraction": null}'::jsonb || (o - 'initialize');
        is_same := regexp_replace(btrim(query), '\s+', ' ', 'g') = regexp_replace(btrim(st.original_query), '\s+', ' ', 'g')
            AND (what->'columns' IS NULL OR what->'columns' = 'null' OR pgtrickle._texts(what->'columns') IS NOT DISTINCT FROM
                 (SELECT array_agg(c) FROM unnest(st.column_names) AS c WHERE NOT c = ANY (st.hidden_columns)));
        PERFORM pgtrickle._alter(st, o || CASE WHEN is_same THEN '{}' ELSE jsonb_build_object('query', query, 'columns',
            -- No list is a list of none here; ALTER keeps the one that there is.
            coalesce(nullif(what->'columns', 'null'), '[]')) END, search_path);
        IF is_same AND o->>'refresh_mode' = st.requested_mode THEN
            RAISE NOTICE 'stream table "%" has that definition already', full_name;
        END IF;
        RETURN;
    END IF;
    IF EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = to_regnamespace(quote_ident(schema)) AND c.relname = name) THEN
        RAISE EXCEPTION 'relation "%" already exists', full_name USING ERRCODE = 'duplicate_table';
    ELSIF EXISTS (SELECT FROM pgtrickle.pgt_requests r WHERE r.op = 'create' AND r.error IS NULL AND r.args->>'schema' = schema AND r.args->>'name' = name) THEN
        IF (what->>'if_not_exists')::boolean THEN
            RAISE NOTICE 'stream table "%" is already about to be created, skipping', full_name;
            RETURN;
        END IF;
        RAISE EXCEPTION 'stream table "%" is already about to be created', full_name USING ERRCODE = 'duplicate_table';
    ELSIF NOT has_schema_privilege(schema, 'CREATE') THEN
        RAISE EXCEPTION 'permission denied for schema %', schema
            USING ERRCODE = 'insufficient_privilege', HINT = format('GRANT CREATE ON SCHEMA %I TO %I;', schema, current_user);
    END IF;
    o := '{"schedule": null, "refresh_mode": "AUTO", "initialize": true}'::jsonb || o;
    PERFORM pgtrickle._do('request', o || jsonb_build_object('op', 'create', 'schema', schema, 'name', name, 'query', query, 'columns', what->'columns',
                                                             'search_path', search_path));
    PERFORM pgtrickle._announce(full_name, 'created');
END
$body$;

-- changes: as for _check_options and checked by it, and query, columns. Only what differs is done.
CREATE OR REPLACE FUNCTION pgtrickle._alter(st pgtrickle.pgt_stream_tables, changes jsonb, search_path text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = notice AS $body$
DECLARE
    full_name text := st.pgt_schema || '.' || st.pgt_name;
    mode text := coalesce(changes->>'refresh_mode', st.requested_mode);
    request jsonb;
BEGIN
    IF changes ? 'schedule' AND mode = 'IMMEDIATE' THEN
        IF changes->>'schedule' IS NOT NULL AND NOT changes ? 'refresh_mode' THEN
            RAISE EXCEPTION 'stream table "%" is maintained by each writing statement and has no schedule', full_name
                USING ERRCODE = 'invalid_parameter_value', HINT = 'Change refresh_mode too.';
        END IF;
        changes := changes - 'schedule';
    END IF;
    IF coalesce((changes->>'append_only')::boolean, false) AND (mode = 'IMMEDIATE' OR mode = 'FULL') THEN
        RAISE EXCEPTION 'append_only does not go with refresh mode %', mode USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF coalesce(changes->>'diamond_schedule_policy', st.diamond_schedule_policy) = 'slowest' AND coalesce(changes->>'diamond_consistency', st.diamond_consistency) = 'none' THEN
        RAISE EXCEPTION 'diamond_schedule_policy ''slowest'' needs diamond_consistency ''atomic''' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM pgtrickle._do('alter', changes - '{query,columns,refresh_mode,initialize}'::text[]
                          || jsonb_build_object('pgt_id', st.pgt_id, 'needs_reinit', st.needs_reinit));
    IF changes->>'tier' IN ('cold', 'frozen') AND st.refresh_tier IN ('hot', 'warm') THEN
        RAISE NOTICE 'stream table "%" is refreshed % now', full_name, CASE changes->>'tier' WHEN 'cold' THEN 'ten times less often' ELSE 'only by hand' END;
    END IF;
    IF changes->>'query' IS NOT NULL THEN
        request := jsonb_build_object('op', 'alter_query', 'query', changes->>'query', 'columns', changes->'columns');
    ELSIF mode <> st.requested_mode THEN
        request := jsonb_build_object('op', 'alter_mode');
    END IF;
    IF request IS NOT NULL THEN
        PERFORM pgtrickle._do('request', request || jsonb_build_object('pgt_id', st.pgt_id, 'schema', st.pgt_schema, 'name', st.pgt_name, 'refresh_mode', mode,
            'search_path', CASE WHEN changes ? 'query' THEN search_path ELSE st.caller_search_path END)
            || CASE WHEN changes ? 'schedule' THEN jsonb_build_object('schedule', changes->'schedule') ELSE '{}' END);
        PERFORM pgtrickle._announce(full_name, 'changed');
    END IF;
END
$body$;

-- A request to create that name which waits; NULL: none.
CREATE OR REPLACE FUNCTION pgtrickle._waiting(name text, path name[]) RETURNS bigint
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT r.request_id FROM pgtrickle._split_name($1) AS n JOIN pgtrickle.pgt_requests r ON r.op = 'create' AND r.args->>'name' = n.name
    WHERE r.args->>'schema' = n.schema OR n.schema IS NULL AND r.args->>'schema' = ANY ($2)
    ORDER BY array_position($2, (r.args->>'schema')::name) LIMIT 1
$body$;

CREATE OR REPLACE FUNCTION pgtrickle._alter_by_name(name text, changes jsonb, path name[], search_path text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = notice AS $body$
DECLARE
    st pgtrickle.pgt_stream_tables;
    query text := changes->>'query';
    waiting bigint;
BEGIN
    changes := pgtrickle._check_options(jsonb_strip_nulls(changes) - 'query');
    IF pgtrickle._find(name, path) IS NULL THEN
        waiting := pgtrickle._waiting(name, path);
        IF waiting IS NOT NULL THEN
            IF NOT (pgtrickle._do('request_change', jsonb_build_object('request_id', waiting, 'change',
                    changes || CASE WHEN query IS NULL THEN '{}' ELSE jsonb_build_object('query', query) END))->>'done')::boolean THEN
                RAISE EXCEPTION 'must be owner of stream table "%"', pgtrickle._plain_name(name) USING ERRCODE = 'insufficient_privilege';
            END IF;
            RETURN;
        END IF;
    END IF;
    st := pgtrickle._get(name, path);
    PERFORM pgtrickle._require_owner(st);
    PERFORM pgtrickle._alter(st, changes || CASE WHEN query IS NULL THEN '{}' ELSE jsonb_build_object('query', query) END, search_path);
END
$body$;

-- Drops one stream table; with cascade those that read it, and whatever else depends on it.
CREATE OR REPLACE FUNCTION pgtrickle._drop(st pgtrickle.pgt_stream_tables, is_cascade boolean) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = notice AS $body$
DECLARE
    reader pgtrickle.pgt_stream_tables;
    readers text;
    exists boolean := EXISTS (SELECT FROM pg_class c WHERE c.oid = st.pgt_relid);
BEGIN
    PERFORM pgtrickle._require_owner(st);
    SELECT string_agg(format('stream table %s.%s depends on stream table %s.%s', t.pgt_schema, t.pgt_name, st.pgt_schema, st.pgt_name), E'\n' ORDER BY t.pgt_id)
    INTO readers
    FROM pgtrickle.pgt_dependencies d JOIN pgtrickle.pgt_stream_tables t USING (pgt_id)
    WHERE d.source_relid = st.pgt_relid AND d.pgt_id <> st.pgt_id;
    IF readers IS NOT NULL THEN
        IF NOT is_cascade THEN
            RAISE EXCEPTION 'cannot drop stream table %.% because other stream tables depend on it', st.pgt_schema, st.pgt_name
                USING ERRCODE = 'dependent_objects_still_exist', DETAIL = readers, HINT = 'Use DROP STREAM TABLE ... CASCADE, or cascade => true, to drop them too.';
        END IF;
        LOOP
            SELECT t.* INTO reader FROM pgtrickle.pgt_dependencies d JOIN pgtrickle.pgt_stream_tables t USING (pgt_id)
            WHERE d.source_relid = st.pgt_relid AND d.pgt_id <> st.pgt_id ORDER BY t.pgt_id LIMIT 1;
            EXIT WHEN NOT FOUND;
            RAISE NOTICE 'drop cascades to stream table %.%', reader.pgt_schema, reader.pgt_name;
            PERFORM pgtrickle._drop(reader, true);
        END LOOP;
    END IF;
    -- Readers and writers of the stream table come in this order too: first the relation, then what belongs to it.
    IF exists THEN
        EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', st.pgt_relid::regclass);
        PERFORM pgtrickle._do('unregister', jsonb_build_object('pgt_id', st.pgt_id));
        PERFORM pgtrickle._drop_immediate(st.pgt_id);
        EXECUTE format('DROP TABLE %s %s', st.pgt_relid::regclass, CASE WHEN is_cascade THEN 'CASCADE' ELSE 'RESTRICT' END);
    ELSE
        RAISE EXCEPTION 'the table of stream table "%.%" is gone', st.pgt_schema, st.pgt_name
            USING ERRCODE = 'undefined_table', HINT = 'The pgtrickle daemon clears up what is left of it.';
    END IF;
END
$body$;

CREATE OR REPLACE FUNCTION pgtrickle._drop_by_name(name text, is_cascade boolean, path name[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = notice AS $body$
DECLARE
    waiting bigint;
BEGIN
    IF pgtrickle._find(name, path) IS NULL THEN
        waiting := pgtrickle._waiting(name, path);
        IF waiting IS NOT NULL THEN
            IF NOT (pgtrickle._do('request_done', jsonb_build_object('request_id', waiting))->>'done')::boolean THEN
                RAISE EXCEPTION 'must be owner of stream table "%"', pgtrickle._plain_name(name) USING ERRCODE = 'insufficient_privilege';
            END IF;
            RETURN;
        END IF;
    END IF;
    PERFORM pgtrickle._drop(pgtrickle._get(name, path), coalesce(is_cascade, false));
END
$body$;

CREATE OR REPLACE FUNCTION pgtrickle._resume(st pgtrickle.pgt_stream_tables) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    IF st.status NOT IN ('SUSPENDED', 'ERROR') THEN
        RAISE EXCEPTION 'stream table "%.%" is not suspended (status: %)', st.pgt_schema, st.pgt_name, st.status USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    PERFORM pgtrickle._require_owner(st);
    PERFORM pgtrickle._do('alter', jsonb_build_object('pgt_id', st.pgt_id, 'status', 'ACTIVE'));
END
$body$;

CREATE OR REPLACE FUNCTION pgtrickle._refresh_by_name(name text, path name[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    st pgtrickle.pgt_stream_tables := pgtrickle._get(name, path);
BEGIN
    PERFORM pgtrickle._require_owner(st);
    IF st.status IN ('SUSPENDED', 'ERROR') THEN
        RAISE EXCEPTION 'stream table "%.%" is in status %', st.pgt_schema, st.pgt_name, st.status
            USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = st.last_error_message,
                  HINT = format('SELECT pgtrickle.resume_stream_table(%L);', format('%I.%I', st.pgt_schema, st.pgt_name));
    END IF;
    IF pgtrickle._is_at_home() AND pgtrickle._why_stale(st.pgt_id) IS NOT NULL THEN
        PERFORM pgtrickle._repair(st);
    ELSE
        PERFORM pgtrickle._refresh(st.pgt_id, 'MANUAL');
    END IF;
END
$body$;

CREATE OR REPLACE FUNCTION pgtrickle._repair(st pgtrickle.pgt_stream_tables) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = notice AS $body$
BEGIN
    PERFORM pgtrickle._require_owner(st);
    PERFORM pgtrickle._do('request', jsonb_build_object('op', 'rebuild', 'pgt_id', st.pgt_id, 'schema', st.pgt_schema, 'name', st.pgt_name,
                                                        'refresh_mode', st.requested_mode, 'search_path', st.caller_search_path));
    PERFORM pgtrickle._announce(st.pgt_schema || '.' || st.pgt_name, 'rebuilt');
    RETURN format('stream table %s.%s: triggers, buffers and contents are made anew', st.pgt_schema, st.pgt_name);
END
$body$;

-- ---- the functions that users call ---------------------------------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION pgtrickle.create_stream_table(name text, query text, schedule text DEFAULT 'calculated', refresh_mode text DEFAULT 'AUTO',
    initialize boolean DEFAULT true, diamond_consistency text DEFAULT NULL, diamond_schedule_policy text DEFAULT NULL, cdc_mode text DEFAULT NULL,
    append_only boolean DEFAULT false, pooler_compatibility_mode boolean DEFAULT false, partition_by text DEFAULT NULL,
    max_differential_joins integer DEFAULT NULL, max_delta_fraction double precision DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SET client_min_messages = notice AS $body$
BEGIN
    PERFORM pgtrickle._create(n.schema, n.name, query, pg_catalog.jsonb_build_object('schedule', schedule, 'refresh_mode', refresh_mode,
        'initialize', initialize, 'diamond_consistency', diamond_consistency, 'diamond_schedule_policy', diamond_schedule_policy, 'cdc_mode', cdc_mode,
        'append_only', append_only, 'pooler_compatibility_mode', pooler_compatibility_mode, 'partition_by', partition_by,
        'max_differential_joins', max_differential_joins, 'max_delta_fraction', max_delta_fraction),
        '{}', pg_catalog.current_schemas(false), pg_catalog.current_setting('search_path'))
    FROM pgtrickle._split_name(create_stream_table.name) AS n;
END
$body$;

CREATE OR REPLACE FUNCTION pgtrickle.create_stream_table_if_not_exists(name text, query text, schedule text DEFAULT 'calculated', refresh_mode text DEFAULT 'AUTO',
    initialize boolean DEFAULT true, diamond_consistency text DEFAULT NULL, diamond_schedule_policy text DEFAULT NULL, cdc_mode text DEFAULT NULL,
    append_only boolean DEFAULT false, pooler_compatibility_mode boolean DEFAULT false, partition_by text DEFAULT NULL,
    max_differential_joins integer DEFAULT NULL, max_delta_fraction double precision DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SET client_min_messages = notice AS $body$
BEGIN
    PERFORM pgtrickle._create(n.schema, n.name, query, pg_catalog.jsonb_build_object('schedule', schedule, 'refresh_mode', refresh_mode,
        'initialize', initialize, 'diamond_consistency', diamond_consistency, 'diamond_schedule_policy', diamond_schedule_policy, 'cdc_mode', cdc_mode,
        'append_only', append_only, 'pooler_compatibility_mode', pooler_compatibility_mode, 'partition_by', partition_by,
        'max_differential_joins', max_differential_joins, 'max_delta_fraction', max_delta_fraction),
        '{"if_not_exists": true}', pg_catalog.current_schemas(false), pg_catalog.current_setting('search_path'))
    FROM pgtrickle._split_name(create_stream_table_if_not_exists.name) AS n;
END
$body$;

CREATE OR REPLACE FUNCTION pgtrickle.create_or_replace_stream_table(name text, query text, schedule text DEFAULT 'calculated', refresh_mode text DEFAULT 'AUTO',
    initialize boolean DEFAULT true, diamond_consistency text DEFAULT NULL, diamond_schedule_policy text DEFAULT NULL, cdc_mode text DEFAULT NULL,
    append_only boolean DEFAULT false, pooler_compatibility_mode boolean DEFAULT false, partition_by text DEFAULT NULL,
    max_differential_joins integer DEFAULT NULL, max_delta_fraction double precision DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SET client_min_messages = notice AS $body$
BEGIN
    PERFORM pgtrickle._create(n.schema, n.name, query, pg_catalog.jsonb_build_object('schedule', schedule, 'refresh_mode', refresh_mode,
        'initialize', initialize, 'diamond_consistency', diamond_consistency, 'diamond_schedule_policy', diamond_schedule_policy, 'cdc_mode', cdc_mode,
        'append_only', append_only, 'pooler_compatibility_mode', pooler_compatibility_mode, 'partition_by', partition_by,
        'max_differential_joins', max_differential_joins, 'max_delta_fraction', max_delta_fraction),
        '{"or_replace": true}', pg_catalog.current_schemas(false), pg_catalog.current_setting('search_path'))
    FROM pgtrickle._split_name(create_or_replace_stream_table.name) AS n;
END
$body$;

CREATE OR REPLACE FUNCTION pgtrickle._bulk_create(definitions jsonb, path name[], search_path text) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = notice AS $body$
DECLARE
    d jsonb;
    answer jsonb := '[]';
BEGIN
    IF jsonb_typeof(definitions) IS DISTINCT FROM 'array' THEN
        RAISE EXCEPTION 'definitions must be a JSON array of objects' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    FOR d IN SELECT * FROM jsonb_array_elements(definitions) LOOP
        IF jsonb_typeof(d) <> 'object' OR d->>'name' IS NULL THEN
            RAISE EXCEPTION 'each definition must be a JSON object with a name and a query' USING ERRCODE = 'invalid_parameter_value';
        END IF;
        PERFORM pgtrickle._create(n.schema, n.name, d->>'query', d - '{name,query}'::text[], '{}', path, search_path)
        FROM pgtrickle._split_name(d->>'name') AS n;
        answer := answer || jsonb_build_object('name', d->>'name', 'status', 'requested');
    END LOOP;
    RETURN answer;
END
$body$;

CREATE OR REPLACE FUNCTION pgtrickle.bulk_create(definitions jsonb) RETURNS jsonb
LANGUAGE plpgsql SET client_min_messages = notice AS $body$
BEGIN
    RETURN pgtrickle._bulk_create(definitions, pg_catalog.current_schemas(false), pg_catalog.current_setting('search_path'));
END
$body$;

CREATE OR REPLACE FUNCTION pgtrickle.alter_stream_table(name text, query text DEFAULT NULL, schedule text DEFAULT NULL, refresh_mode text DEFAULT NULL,
    status text DEFAULT NULL, diamond_consistency text DEFAULT NULL, diamond_schedule_policy text DEFAULT NULL, cdc_mode text DEFAULT NULL,
    append_only boolean DEFAULT NULL, pooler_compatibility_mode boolean DEFAULT NULL, tier text DEFAULT NULL, fuse text DEFAULT NULL,
    fuse_ceiling bigint DEFAULT NULL, fuse_sensitivity integer DEFAULT NULL, partition_by text DEFAULT NULL, max_differential_joins integer DEFAULT NULL,
    max_delta_fraction double precision DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SET client_min_messages = notice AS $body$
BEGIN
    PERFORM pgtrickle._alter_by_name(name, pg_catalog.jsonb_build_object('query', query, 'schedule', schedule, 'refresh_mode', refresh_mode, 'status', status,
        'diamond_consistency', diamond_consistency, 'diamond_schedule_policy', diamond_schedule_policy, 'cdc_mode', cdc_mode, 'append_only', append_only,
        'pooler_compatibility_mode', pooler_compatibility_mode, 'tier', tier, 'fuse', fuse, 'fuse_ceiling', fuse_ceiling,
        'fuse_sensitivity', fuse_sensitivity, 'partition_by', partition_by, 'max_differential_joins', max_differential_joins,
        'max_delta_fraction', max_delta_fraction), pg_catalog.current_schemas(false), pg_catalog.current_setting('search_path'));
END
$body$;

CREATE OR REPLACE FUNCTION pgtrickle.drop_stream_table(name text, cascade boolean DEFAULT false) RETURNS void
LANGUAGE plpgsql SET client_min_messages = notice AS $body$
BEGIN
    PERFORM pgtrickle._drop_by_name(name, cascade, pg_catalog.current_schemas(false));
END
$body$;

CREATE OR REPLACE FUNCTION pgtrickle.resume_stream_table(name text) RETURNS void
LANGUAGE plpgsql AS $body$
BEGIN
    PERFORM pgtrickle._resume(pgtrickle._get(name, pg_catalog.current_schemas(false)));
END
$body$;

CREATE OR REPLACE FUNCTION pgtrickle.refresh_stream_table(name text) RETURNS void
LANGUAGE plpgsql AS $body$
DECLARE
    path CONSTANT text := pg_catalog.current_setting('search_path');
BEGIN
    PERFORM pgtrickle._refresh_by_name(name, pg_catalog.current_schemas(false));
    PERFORM pgtrickle._restore_path(path);
END
$body$;

CREATE OR REPLACE FUNCTION pgtrickle._reset_fuse(st pgtrickle.pgt_stream_tables, action text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    PERFORM pgtrickle._require_owner(st);
    IF st.fuse_state <> 'blown' THEN
        RAISE EXCEPTION 'the fuse of stream table "%.%" is not blown', st.pgt_schema, st.pgt_name USING ERRCODE = 'object_not_in_prerequisite_state';
    ELSIF lower(action) = 'skip_changes' THEN
        RAISE EXCEPTION 'changes cannot be skipped: the stream table would not equal its query any more'
            USING ERRCODE = 'feature_not_supported', HINT = 'Use ''apply'' or ''reinitialize''.';
    ELSIF lower(action) NOT IN ('apply', 'reinitialize') OR action IS NULL THEN
        RAISE EXCEPTION 'invalid action: %', quote_nullable(action) USING ERRCODE = 'invalid_parameter_value', HINT = 'Known are apply and reinitialize.';
    END IF;
    PERFORM pgtrickle._do('alter', jsonb_build_object('pgt_id', st.pgt_id, 'fuse_state', 'armed', 'needs_reinit', st.needs_reinit OR lower(action) = 'reinitialize'));
    PERFORM pgtrickle._refresh(st.pgt_id, 'MANUAL');
END
$body$;
CREATE OR REPLACE FUNCTION pgtrickle.reset_fuse(name text, action text DEFAULT 'apply') RETURNS void
LANGUAGE plpgsql AS $body$
DECLARE
    path CONSTANT text := pg_catalog.current_setting('search_path');
BEGIN
    PERFORM pgtrickle._reset_fuse(pgtrickle._get(name, pg_catalog.current_schemas(false)), action);
    PERFORM pgtrickle._restore_path(path);
END
$body$;

CREATE OR REPLACE FUNCTION pgtrickle.repair_stream_table(name text) RETURNS text
LANGUAGE plpgsql SET client_min_messages = notice AS $body$
BEGIN
    RETURN pgtrickle._repair(pgtrickle._get(name, pg_catalog.current_schemas(false)));
END
$body$;

-- ---- the statement grammar -------------------------------------------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION pgtrickle._ddl_run(args jsonb, path name[], search_path text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = notice AS $body$
DECLARE
    name text := CASE WHEN args->>'schema' IS NULL THEN '' ELSE '"' || replace(args->>'schema', '"', '""') || '".' END || '"' || replace(args->>'name', '"', '""') || '"';
    options jsonb := coalesce(args->'options', '{}');
    item jsonb;
    st pgtrickle.pgt_stream_tables;
    value text := args->>'value';
BEGIN
    IF args->>'op' = 'create' THEN
        PERFORM pgtrickle._create(args->>'schema', args->>'name', args->>'query',
            options || CASE WHEN NOT coalesce((args->>'with_data')::boolean, true) THEN '{"initialize": false}' ELSE '{}'::jsonb END,
            jsonb_build_object('if_not_exists', args->'if_not_exists', 'or_replace', args->'or_replace', 'columns', args->'columns'), path, search_path);
    ELSIF args->>'op' = 'drop' THEN
        FOR item IN SELECT * FROM jsonb_array_elements(args->'names') LOOP
            name := CASE WHEN item->>'schema' IS NULL THEN '' ELSE '"' || replace(item->>'schema', '"', '""') || '".' END || '"' || replace(item->>'name', '"', '""') || '"';
            IF coalesce((args->>'if_exists')::boolean, false) AND pgtrickle._find(name, path) IS NULL AND pgtrickle._waiting(name, path) IS NULL THEN
                RAISE NOTICE 'stream table "%" does not exist, skipping', coalesce(item->>'schema' || '.', '') || (item->>'name');
                CONTINUE;
            END IF;
            PERFORM pgtrickle._drop_by_name(name, (args->>'cascade')::boolean, path);
        END LOOP;
    ELSIF args->>'op' = 'refresh' THEN
        PERFORM pgtrickle._refresh_by_name(name, path);
    ELSIF args->>'op' = 'alter' THEN
        IF coalesce((args->>'if_exists')::boolean, false) AND pgtrickle._find(name, path) IS NULL AND pgtrickle._waiting(name, path) IS NULL THEN
            RAISE NOTICE 'stream table "%" does not exist, skipping', coalesce(args->>'schema' || '.', '') || (args->>'name');
            RETURN;
        END IF;
        CASE args->>'action'
        WHEN 'set' THEN
            PERFORM pgtrickle._alter_by_name(name, options - 'query', path, search_path);
        WHEN 'reset' THEN
            -- RESET names parameters only; each goes back to its default.
            SELECT jsonb_object_agg(o.key, d.value) INTO options
            FROM jsonb_each(options) AS o LEFT JOIN jsonb_each('{"schedule": "calculated", "refresh_mode": "AUTO", "diamond_consistency": "atomic",
                "diamond_schedule_policy": "fastest", "cdc_mode": "auto", "append_only": false, "pooler_compatibility_mode": false, "partition_by": "",
                "max_differential_joins": 0, "max_delta_fraction": 0, "tier": "hot", "fuse": "off"}') AS d ON d.key = o.key;
            IF EXISTS (SELECT FROM jsonb_each(options) AS o WHERE o.value IS NULL OR o.value = 'null') THEN
                RAISE EXCEPTION 'unrecognized stream table parameter "%"', (SELECT o.key FROM jsonb_each(options) AS o WHERE o.value IS NULL OR o.value = 'null' LIMIT 1)
                    USING ERRCODE = 'invalid_parameter_value';
            END IF;
            PERFORM pgtrickle._alter_by_name(name, options, path, search_path);
        WHEN 'suspend' THEN
            PERFORM pgtrickle._alter_by_name(name, '{"status": "SUSPENDED"}', path, search_path);
        WHEN 'resume' THEN
            PERFORM pgtrickle._resume(pgtrickle._get(name, path));
        WHEN 'query' THEN
            PERFORM pgtrickle._alter_by_name(name, jsonb_build_object('query', value), path, search_path);
        WHEN 'rename', 'owner', 'set_schema' THEN
            st := pgtrickle._get(name, path);
            IF args->>'action' = 'rename' THEN
                EXECUTE format('ALTER TABLE %s RENAME TO %I', st.pgt_relid::regclass, value);
            ELSIF args->>'action' = 'set_schema' THEN
                EXECUTE format('ALTER TABLE %s SET SCHEMA %I', st.pgt_relid::regclass, value);
            ELSE
                EXECUTE format('ALTER TABLE %s OWNER TO %s', st.pgt_relid::regclass,
                    CASE WHEN value IN ('current_user', 'current_role', 'session_user') THEN value ELSE quote_ident(value) END);
            END IF;
            -- Plans name the relation; that of a rename goes by a rebuild, which also makes the buffers readable to a new owner.
            PERFORM pgtrickle._do('alter', jsonb_build_object('pgt_id', st.pgt_id, 'owner', args->>'action' = 'owner'));
            PERFORM pgtrickle._repair(t) FROM pgtrickle.pgt_stream_tables t WHERE t.pgt_id = st.pgt_id;
        ELSE
            RAISE EXCEPTION 'unknown action %', quote_nullable(args->>'action') USING ERRCODE = 'invalid_parameter_value';
        END CASE;
    ELSE
        RAISE EXCEPTION 'unknown operation %', quote_nullable(args->>'op') USING ERRCODE = 'invalid_parameter_value';
    END IF;
END
$body$;

CREATE OR REPLACE PROCEDURE pgtrickle._ddl(args jsonb)
LANGUAGE plpgsql AS $body$
DECLARE
    path CONSTANT text := pg_catalog.current_setting('search_path');
BEGIN
    PERFORM pgtrickle._ddl_run(args, pg_catalog.current_schemas(false), path);
    PERFORM pgtrickle._restore_path(path);
END
$body$;

CREATE OR REPLACE FUNCTION pgtrickle._explain_result() RETURNS TABLE ("STREAM TABLE PLAN" text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT x FROM string_to_table(rtrim(coalesce(current_setting('pgtrickle.explain', true), ''), E'\n'), E'\n') AS x
$body$;

CREATE OR REPLACE FUNCTION pgtrickle._explain_lines(st pgtrickle.pgt_stream_tables) RETURNS SETOF text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    d record;
BEGIN
    RETURN NEXT format('Stream Table: %I.%I  (mode: %s, strategy: %s, status: %s)', st.pgt_schema, st.pgt_name, st.refresh_mode, coalesce(st.strategy, '-'), st.status);
    IF st.downgrade_reason IS NOT NULL THEN
        RETURN NEXT '  Not maintained incrementally: ' || st.downgrade_reason;
    END IF;
    RETURN NEXT '  Key: ' || coalesce(nullif(array_to_string(st.key_columns, ', '), ''), 'none (a bag)');
    IF st.time_dependent THEN
        RETURN NEXT '  Depends on the time of the refresh';
    END IF;
    RETURN QUERY SELECT '  ' || x FROM string_to_table(rtrim(coalesce(st.plan->>'explain', ''), E'\n'), E'\n') AS x WHERE st.plan->>'explain' <> '';
    FOR d IN SELECT * FROM jsonb_each_text(coalesce(st.plan->'deltas', '{}')) AS e ORDER BY e.key = 'all', length(e.key), e.key LOOP
        RETURN NEXT CASE d.key WHEN 'all' THEN '  Delta, any sources changed:' ELSE '  Delta, sources ' || coalesce((
            SELECT string_agg(s.relid::regclass::text, ', ' ORDER BY s.bit) FROM jsonb_to_recordset(st.plan->'sources') AS s(relid oid, bit integer)
            WHERE (d.key::bigint >> s.bit) & 1 = 1), 'none, time passed') || ' changed:' END;
        RETURN QUERY SELECT '    ' || x FROM string_to_table(d.value, E'\n') AS x;
    END LOOP;
END
$body$;

CREATE OR REPLACE FUNCTION pgtrickle._explain(schema text, name text) RETURNS TABLE ("STREAM TABLE PLAN" text)
LANGUAGE plpgsql STABLE AS $body$
BEGIN
    RETURN QUERY SELECT x FROM pgtrickle._explain_lines(pgtrickle._get(
        pg_catalog.concat(CASE WHEN schema IS NOT NULL THEN pg_catalog.concat('"', pg_catalog.replace(schema, '"', '""'), '".') END, '"', pg_catalog.replace(name, '"', '""'), '"'),
        pg_catalog.current_schemas(false))) AS x;
END
$body$;
