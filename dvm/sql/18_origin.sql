-- What a stream table was made from, written down to be compared before each refresh: DDL on a source is noticed whoever does it and without
-- event triggers, which managed services forbid. A row's xmin tells of ENABLE and DISABLE, ATTACH and DETACH that were undone before we looked.

SET LOCAL client_min_messages = warning;

-- Changes when the server crashed: an unlogged table is empty after that, and so is this one.
CREATE UNLOGGED TABLE IF NOT EXISTS pgtrickle.pgt_boot (token uuid NOT NULL DEFAULT pg_catalog.gen_random_uuid());
GRANT SELECT ON pgtrickle.pgt_boot TO PUBLIC;

-- The database that the catalog's OIDs and snapshots belong to. A dump takes them into another, a template copies them.
CREATE OR REPLACE FUNCTION pgtrickle._identity() RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT format('%s/%s', (SELECT s.system_identifier FROM pg_control_system() AS s), d.oid) FROM pg_database d WHERE d.datname = current_database()
$body$;
CREATE TABLE IF NOT EXISTS pgtrickle.pgt_identity (one boolean PRIMARY KEY DEFAULT true CHECK (one), identity text NOT NULL);
GRANT SELECT ON pgtrickle.pgt_identity TO PUBLIC;
INSERT INTO pgtrickle.pgt_identity (identity) SELECT pgtrickle._identity() ON CONFLICT DO NOTHING;

CREATE OR REPLACE FUNCTION pgtrickle._is_at_home() RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT i.identity = pgtrickle._identity() FROM pgtrickle.pgt_identity i
$body$;

-- After a failover or a recovery to a point in time others than those that we saw may have committed.
CREATE OR REPLACE FUNCTION pgtrickle._timeline() RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT left(pg_walfile_name(pg_current_wal_insert_lsn()), 8)
$body$;

-- A relation and its partitions or heirs, with the version of the link to each.
CREATE OR REPLACE FUNCTION pgtrickle._tree(root oid) RETURNS TABLE (relid oid, link text)
LANGUAGE sql STABLE ROWS 1 SET search_path = pg_catalog, pg_temp AS $body$
    WITH RECURSIVE tree(relid, link) AS (
        SELECT $1, ''
        UNION ALL SELECT i.inhrelid, concat(i.inhparent, '>', i.xmin) FROM tree t JOIN pg_inherits i ON i.inhparent = t.relid)
    SELECT t.relid, string_agg(t.link, ' ' ORDER BY t.link) FROM tree t GROUP BY t.relid
$body$;
CREATE OR REPLACE FUNCTION pgtrickle._tree_state(root oid) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT md5(string_agg(concat(t.relid, ':', t.link), ',' ORDER BY t.relid)) FROM pgtrickle._tree(root) AS t
$body$;

-- As long as this is the same, the buffer of a source has seen every change of it.
CREATE OR REPLACE FUNCTION pgtrickle._capture_state(source oid) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT md5(string_agg(concat_ws(':', t.relid, t.link,
        (SELECT string_agg(concat(g.tgname, '/', g.tgenabled, '/', g.xmin), ',' ORDER BY g.tgname)
         FROM pg_trigger g WHERE g.tgrelid = t.relid AND g.tgname LIKE 'pgtrickle\_capture\_%'
           AND g.tgfoid IN (SELECT p.oid FROM pg_proc p WHERE p.pronamespace = 'pgtrickle_changes'::regnamespace
                            AND p.proname = ANY (ARRAY[format('c_%s_ins', source), format('c_%s_upd', source), format('c_%s_del', source), format('c_%s_trunc', source)]))),
        CASE WHEN c.relpersistence = 'u' THEN coalesce((SELECT string_agg(b.token::text, ',' ORDER BY b.token) FROM pgtrickle.pgt_boot b), 'none') END,
        CASE WHEN EXISTS (SELECT FROM pg_subscription_rel s WHERE s.srrelid = t.relid) THEN 'subscribed' END), ';' ORDER BY t.relid))
    FROM pgtrickle._tree(source) AS t JOIN pg_class c ON c.oid = t.relid
$body$;

-- Every relation of the tree has its four triggers.
CREATE OR REPLACE FUNCTION pgtrickle._is_captured_whole(source oid) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT NOT EXISTS (SELECT FROM pgtrickle._tree(source) AS t WHERE 4 <> (
        SELECT count(*) FROM pg_trigger g WHERE g.tgrelid = t.relid AND g.tgname LIKE 'pgtrickle\_capture\_%' AND g.tgenabled <> 'D'
          AND g.tgfoid IN (SELECT p.oid FROM pg_proc p WHERE p.pronamespace = 'pgtrickle_changes'::regnamespace
                           AND p.proname = ANY (ARRAY[format('c_%s_ins', source), format('c_%s_upd', source), format('c_%s_del', source), format('c_%s_trunc', source)]))))
$body$;

-- What the captured columns are: {"<attnum>": "name type"}; compared at each refresh.
CREATE OR REPLACE FUNCTION pgtrickle._column_snapshot(relid oid, attnums integer[]) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT coalesce(jsonb_object_agg(a.attnum, quote_ident(a.attname) || ' ' || format_type(a.atttypid, a.atttypmod)), '{}')
    FROM pg_attribute a WHERE a.attrelid = relid AND a.attnum = ANY (attnums) AND NOT a.attisdropped
$body$;

-- What of a source the plan was made for. attnums: the columns that it reads.
CREATE OR REPLACE FUNCTION pgtrickle._source_fingerprint(source oid, attnums integer[], owner name) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT concat_ws('|', format('%I.%I', n.nspname, c.relname), c.relkind,
        CASE WHEN c.relkind = 'v' THEN (SELECT md5(concat(r.ev_action::text, c.reloptions::text)) FROM pg_rewrite r WHERE r.ev_class = c.oid AND r.rulename = '_RETURN') END,
        CASE WHEN EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid) THEN 'heir' END,
        (SELECT 'policies' FROM pg_roles r WHERE r.rolname = owner AND c.relrowsecurity AND NOT r.rolsuper AND NOT r.rolbypassrls
           AND (c.relforcerowsecurity OR NOT pg_has_role(owner, c.relowner, 'USAGE'))),
        (SELECT string_agg(concat_ws(' ', a.attnum, quote_ident(a.attname), format_type(a.atttypid, a.atttypmod), a.atttypid, a.attcollation, a.attnotnull, a.attgenerated,
                (SELECT md5(string_agg(concat(e.oid, e.enumlabel), ',' ORDER BY e.oid)) FROM pg_enum e WHERE e.enumtypid IN (y.oid, y.typelem, y.typbasetype)),
                (SELECT md5(string_agg(concat(f.attname, f.atttypid), ',' ORDER BY f.attnum)) FROM pg_attribute f
                 WHERE y.typtype = 'c' AND f.attrelid = y.typrelid AND f.attnum > 0 AND NOT f.attisdropped)), ',' ORDER BY a.attnum)
         FROM pg_attribute a JOIN pg_type y ON y.oid = a.atttypid WHERE a.attrelid = c.oid AND a.attnum = ANY (attnums) AND NOT a.attisdropped))
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = source
$body$;

-- The plan may rest on any of these; a new one does no harm.
CREATE OR REPLACE FUNCTION pgtrickle._unique_keys(source oid) RETURNS text[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT coalesce(array_agg(DISTINCT concat_ws('/', i.indkey::text, i.indnkeyatts, i.indclass::text, i.indcollation::text)), '{}')
    FROM pg_index i WHERE i.indrelid = source AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL
$body$;

-- ALTER TYPE ... USING writes other rows, with the same type perhaps, and fires no trigger: then both of these are new. Of CLUSTER and TRUNCATE only
-- the first is, of renaming only the second.
CREATE OR REPLACE FUNCTION pgtrickle._rewrite_marks(source oid, attnums integer[]) RETURNS text[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT ARRAY[
        (SELECT string_agg(c.relfilenode::text, ' ' ORDER BY c.oid) FROM pgtrickle._tree(source) AS t JOIN pg_class c ON c.oid = t.relid),
        (SELECT string_agg(a.xmin::text, ' ' ORDER BY a.attnum) FROM pg_attribute a WHERE a.attrelid = source AND a.attnum = ANY (attnums))]
$body$;

CREATE OR REPLACE FUNCTION pgtrickle._function_hashes(functions oid[]) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT coalesce(string_agg(concat(f, ':', p.xmin), ' ' ORDER BY f), '') FROM unnest(functions) AS f LEFT JOIN pg_proc p ON p.oid = f
$body$;

-- The triggers of an IMMEDIATE stream table; '' of another.
CREATE OR REPLACE FUNCTION pgtrickle._immediate_state(id bigint) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT coalesce(md5(string_agg(concat_ws(':', t.relid, t.link, g.tgname, g.tgenabled, g.xmin), ';' ORDER BY t.relid, g.tgname)), '')
    FROM pgtrickle.pgt_stream_tables s JOIN pgtrickle.pgt_dependencies d USING (pgt_id) CROSS JOIN LATERAL pgtrickle._tree(d.source_relid) AS t
    LEFT JOIN pg_trigger g ON g.tgrelid = t.relid AND g.tgname LIKE 'pgtrickle\_i\_' || id || '\_%'
    WHERE s.pgt_id = id AND s.refresh_mode = 'IMMEDIATE'
$body$;

-- For the caller to run: triggers of ours on tables that role owns fire for writers with session_replication_role = replica too. Others' tables
-- are not ours to alter.
CREATE OR REPLACE FUNCTION pgtrickle._always_sql(id bigint, role name) RETURNS text[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT coalesce(array_agg(x.command ORDER BY x.relid), '{}')
    FROM (SELECT c.oid AS relid, format('ALTER TABLE %I.%I ', n.nspname, c.relname) || string_agg(DISTINCT format('ENABLE ALWAYS TRIGGER %I', g.tgname), ', ') AS command
          FROM pgtrickle.pgt_dependencies d CROSS JOIN LATERAL pgtrickle._tree(d.source_relid) AS t JOIN pg_class c ON c.oid = t.relid
          JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_trigger g ON g.tgrelid = c.oid JOIN pg_proc p ON p.oid = g.tgfoid
          WHERE d.pgt_id = id AND g.tgenabled = 'O' AND p.pronamespace = 'pgtrickle_changes'::regnamespace AND pg_has_role(role, c.relowner, 'USAGE')
            AND (g.tgname LIKE 'pgtrickle\_capture\_%' AND p.proname LIKE 'c\_' || d.source_relid || '\_%' OR g.tgname LIKE 'pgtrickle\_i\_' || id || '\_%')
          GROUP BY c.oid, n.nspname, c.relname) AS x
$body$;

-- After the triggers are there: what they are is what they should be.
CREATE OR REPLACE FUNCTION pgtrickle._call_captured(id bigint) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    src oid;
BEGIN
    INSERT INTO pgtrickle.pgt_boot SELECT WHERE NOT EXISTS (SELECT FROM pgtrickle.pgt_boot);
    FOR src IN SELECT c.source_relid FROM pgtrickle.pgt_captures c JOIN pgtrickle.pgt_dependencies d USING (source_relid)
               WHERE d.pgt_id = id AND d.captured AND c.state IS NULL ORDER BY c.source_relid LOOP
        -- A partition that came between the list of triggers and their locks.
        IF NOT pgtrickle._is_captured_whole(src) THEN
            RAISE EXCEPTION 'table % was altered meanwhile', src::regclass USING ERRCODE = 'serialization_failure';
        END IF;
        UPDATE pgtrickle.pgt_captures c SET state = pgtrickle._capture_state(src) WHERE c.source_relid = src;
    END LOOP;
    UPDATE pgtrickle.pgt_stream_tables t SET immediate_state = pgtrickle._immediate_state(id) WHERE t.pgt_id = id;
    RETURN '{}';
END
$body$;

-- Why the plan and the capture of a stream table have to be made anew; NULL: they are good.
CREATE OR REPLACE FUNCTION pgtrickle._why_stale(id bigint) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT coalesce(
        (SELECT CASE WHEN c.oid IS NULL THEN format('source %s was dropped', d.source_relid)
                     WHEN d.captured AND d.column_snapshot <> pgtrickle._column_snapshot(d.source_relid, d.attnums)
                     THEN format('columns of table %s that stream table "%s.%s" reads were altered', d.source_relid::regclass, t.pgt_schema, t.pgt_name)
                     WHEN d.captured AND p.state <> pgtrickle._capture_state(d.source_relid)
                     THEN format('table %s was written or altered without its triggers', d.source_relid::regclass)
                     ELSE format('%s was altered', d.source_relid::regclass) END
         FROM pgtrickle.pgt_dependencies d LEFT JOIN pg_class c ON c.oid = d.source_relid LEFT JOIN pgtrickle.pgt_captures p ON p.source_relid = d.source_relid
         WHERE d.pgt_id = id AND (c.oid IS NULL
            OR d.schema_fingerprint <> pgtrickle._source_fingerprint(d.source_relid, d.attnums, o.rolname)
            OR NOT d.unique_keys <@ pgtrickle._unique_keys(d.source_relid)
            OR d.captured AND d.column_snapshot <> pgtrickle._column_snapshot(d.source_relid, d.attnums)
            OR d.captured AND p.state <> pgtrickle._capture_state(d.source_relid)
            OR d.attnums <> '{}' AND d.rewrite_marks[1] <> (pgtrickle._rewrite_marks(d.source_relid, d.attnums))[1]
                AND d.rewrite_marks[2] <> (pgtrickle._rewrite_marks(d.source_relid, d.attnums))[2])
         ORDER BY d.source_relid LIMIT 1),
        CASE WHEN t.function_hashes <> pgtrickle._function_hashes(t.function_oids) THEN 'a function of the definition was replaced or dropped'
             WHEN t.refresh_mode = 'IMMEDIATE' AND t.immediate_state <> pgtrickle._immediate_state(id) THEN 'the triggers of a source were altered' END)
    FROM pgtrickle.pgt_stream_tables t LEFT JOIN pg_class r ON r.oid = t.pgt_relid LEFT JOIN pg_roles o ON o.oid = r.relowner
    WHERE t.pgt_id = id
$body$;

-- Has the daemon make a stream table anew, as its owner, when it looks next.
CREATE OR REPLACE FUNCTION pgtrickle._request_rebuild(id bigint) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $body$
    INSERT INTO pgtrickle.pgt_requests (op, args, caller, search_path, settings)
    SELECT 'rebuild', jsonb_build_object('pgt_id', t.pgt_id, 'schema', t.pgt_schema, 'name', t.pgt_name, 'refresh_mode', t.requested_mode),
        pg_get_userbyid(c.relowner), coalesce(t.caller_search_path, ''), t.settings
    FROM pgtrickle.pgt_stream_tables t JOIN pg_class c ON c.oid = t.pgt_relid
    WHERE t.pgt_id = id AND NOT EXISTS (SELECT FROM pgtrickle.pgt_requests r WHERE r.op = 'rebuild' AND r.error IS NULL AND (r.args->>'pgt_id')::bigint = id)
$body$;

-- A request that could not be completed: a rebuild's stream table waits for a person.
CREATE OR REPLACE FUNCTION pgtrickle._request_failed(request bigint, message text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    UPDATE pgtrickle.pgt_stream_tables t SET status = 'ERROR', last_error_message = format('cannot be rebuilt: %s', message), last_error_at = now(), needs_reinit = true,
        updated_at = now()
    FROM pgtrickle.pgt_requests r WHERE r.request_id = request AND r.op = 'rebuild' AND t.pgt_id = (r.args->>'pgt_id')::bigint;
    UPDATE pgtrickle.pgt_requests r SET error = message WHERE r.request_id = request;
END
$body$;

-- The one step after pg_restore, or in a copy of a database: finds the stream tables by their names, drops what captured in the database that they
-- come from, and has all of them made anew. Returns how many there are. Does nothing at home.
CREATE OR REPLACE FUNCTION pgtrickle._relink() RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = warning AS $body$
DECLARE
    st record;
    thing record;
    n bigint := 0;
BEGIN
    LOCK TABLE pgtrickle.pgt_identity IN SHARE ROW EXCLUSIVE MODE;
    IF pgtrickle._is_at_home() THEN
        RETURN 0;
    END IF;
    FOR thing IN SELECT p.oid::regprocedure::text AS name FROM pg_proc p WHERE p.pronamespace = 'pgtrickle_changes'::regnamespace LOOP
        EXECUTE format('DROP FUNCTION %s CASCADE', thing.name);
    END LOOP;
    FOR thing IN SELECT c.oid::regclass::text AS name FROM pg_class c WHERE c.relnamespace = 'pgtrickle_changes'::regnamespace AND c.relkind = 'r' LOOP
        EXECUTE format('DROP TABLE %s CASCADE', thing.name);
    END LOOP;
    DELETE FROM pgtrickle.pgt_dependencies;
    DELETE FROM pgtrickle.pgt_captures;
    DELETE FROM pgtrickle.pgt_requests;
    -- Two steps: the OIDs of here may be those of others there. No table of a user's has one below 16384.
    DELETE FROM pgtrickle.pgt_stream_tables t WHERE coalesce((SELECT c.relkind FROM pg_class c WHERE c.oid = to_regclass(format('%I.%I', t.pgt_schema, t.pgt_name))), '') NOT IN ('r', 'p');
    UPDATE pgtrickle.pgt_stream_tables t SET pgt_relid = x.n::integer::oid
    FROM (SELECT y.pgt_id, row_number() OVER () AS n FROM pgtrickle.pgt_stream_tables y WHERE y.pgt_relid >= 16384) AS x WHERE x.pgt_id = t.pgt_id AND x.n < 16384;
    FOR st IN SELECT t.pgt_id, to_regclass(format('%I.%I', t.pgt_schema, t.pgt_name)) AS relid FROM pgtrickle.pgt_stream_tables t ORDER BY t.pgt_id LOOP
        UPDATE pgtrickle.pgt_stream_tables t SET pgt_relid = st.relid, needs_reinit = true, source_activity = NULL, function_hashes = NULL, function_oids = '{}',
            immediate_state = NULL, frontier_snapshot = pg_current_snapshot(), frontier_xid = pg_current_xact_id(), frontier_seq = nextval('pgtrickle.change_seq'),
            frontier = NULL, updated_at = now()
        WHERE t.pgt_id = st.pgt_id;
        PERFORM pgtrickle._drop_runner(st.pgt_id);
        PERFORM pgtrickle._request_rebuild(st.pgt_id);
        n := n + 1;
    END LOOP;
    UPDATE pgtrickle.pgt_identity i SET identity = pgtrickle._identity();
    RETURN n;
END
$body$;
CREATE OR REPLACE FUNCTION pgtrickle.restore_stream_tables() RETURNS bigint
LANGUAGE sql AS $body$
    SELECT pgtrickle._relink()
$body$;

REVOKE EXECUTE ON FUNCTION pgtrickle._call_captured(bigint), pgtrickle._request_rebuild(bigint), pgtrickle._request_failed(bigint, text), pgtrickle._relink(),
    pgtrickle.restore_stream_tables() FROM PUBLIC;
