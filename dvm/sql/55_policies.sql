-- Gates, watermarks, refresh groups, and what acts on many stream tables at once: pg_trickle's functions.

SET LOCAL client_min_messages = warning;

-- Who may write to a source may say when it is being loaded.
CREATE OR REPLACE FUNCTION pgtrickle._require_writer(relid oid, caller name) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    IF caller <> current_user AND NOT pgtrickle._may_own(caller, relid) AND NOT has_table_privilege(caller, relid, 'INSERT') THEN
        RAISE EXCEPTION 'permission denied for table %', relid::regclass
            USING ERRCODE = 'insufficient_privilege', HINT = 'It takes the right to INSERT into it.';
    END IF;
END
$body$;

CREATE OR REPLACE FUNCTION pgtrickle._require_creator(creator name, caller name, what text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    IF caller <> current_user AND NOT (SELECT pg_has_role(caller, r.oid, 'USAGE') FROM pg_roles r WHERE r.rolname = creator) IS TRUE THEN
        RAISE EXCEPTION 'must be owner of %', what USING ERRCODE = 'insufficient_privilege';
    END IF;
END
$body$;

-- The operations of _call that the policies add.
CREATE OR REPLACE FUNCTION pgtrickle._call_policy(op text, args jsonb, caller name) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    relid oid := (args->>'relid')::oid;
    gate boolean := op = 'gate';
    was timestamptz;
    at timestamptz := (args->>'at')::timestamptz;
    id bigint;
    gid integer;
    creator name;
    sources oid[];
BEGIN
    CASE op
    WHEN 'checked' THEN
        INSERT INTO pgtrickle.pgt_checks AS c (pgt_id, checked_at, verdict, missing, extra, detail, duration_ms)
        VALUES ((args->>'pgt_id')::bigint, clock_timestamp(), args->>'verdict', (args->>'missing')::bigint, (args->>'extra')::bigint, args->>'detail', (args->>'duration_ms')::float8)
        ON CONFLICT (pgt_id) DO UPDATE SET checked_at = EXCLUDED.checked_at, verdict = EXCLUDED.verdict, missing = EXCLUDED.missing, extra = EXCLUDED.extra,
            detail = EXCLUDED.detail, duration_ms = EXCLUDED.duration_ms;
    WHEN 'check_every' THEN
        PERFORM FROM pgtrickle.pgt_stream_tables t WHERE t.pgt_id = (args->>'pgt_id')::bigint AND (caller = current_user OR pgtrickle._may_own(caller, t.pgt_relid));
        IF NOT FOUND THEN
            RAISE EXCEPTION 'must be owner of the stream table' USING ERRCODE = 'insufficient_privilege';
        END IF;
        INSERT INTO pgtrickle.pgt_checks (pgt_id, check_interval) VALUES ((args->>'pgt_id')::bigint, (args->>'interval')::interval)
        ON CONFLICT (pgt_id) DO UPDATE SET check_interval = EXCLUDED.check_interval;
    WHEN 'gate', 'ungate' THEN
        PERFORM pgtrickle._require_writer(relid, caller);
        INSERT INTO pgtrickle.pgt_source_gates AS g (source_relid, gated, gated_at, ungated_at, gated_by)
        SELECT relid, gate, CASE WHEN gate THEN clock_timestamp() END, CASE WHEN NOT gate THEN clock_timestamp() END, caller
        ON CONFLICT (source_relid) DO UPDATE SET gated = gate, gated_at = coalesce(EXCLUDED.gated_at, g.gated_at),
            ungated_at = CASE WHEN gate THEN NULL ELSE EXCLUDED.ungated_at END, gated_by = caller
        WHERE g.gated <> gate;
        IF FOUND AND gate THEN
            INSERT INTO pgtrickle.pgt_refresh_history (pgt_id, start_time, end_time, action, status, initiated_by, reason)
            SELECT d.pgt_id, clock_timestamp(), clock_timestamp(), 'SKIP', 'SKIPPED', 'SCHEDULER', 'source gated' FROM pgtrickle.pgt_dependencies d WHERE d.source_relid = relid;
        END IF;
        PERFORM pg_notify('pgtrickle_source_gate', jsonb_build_object('event', op, 'source', relid::regclass::text)::text);
    WHEN 'watermark' THEN
        PERFORM pgtrickle._require_writer(relid, caller);
        SELECT w.watermark INTO was FROM pgtrickle.pgt_watermarks w WHERE w.source_relid = relid FOR UPDATE;
        IF at < was THEN
            RAISE EXCEPTION 'the watermark of % cannot go back from % to %', relid::regclass, was, at USING ERRCODE = 'invalid_parameter_value';
        ELSIF at = was THEN
            RETURN '{}';
        END IF;
        INSERT INTO pgtrickle.pgt_watermarks (source_relid, watermark, advanced_by) VALUES (relid, at, caller)
        ON CONFLICT (source_relid) DO UPDATE SET watermark = EXCLUDED.watermark, updated_at = now(), advanced_by = caller;
        PERFORM pg_notify('pgtrickle_watermark', jsonb_build_object('source', relid::regclass::text, 'watermark', at)::text);
    WHEN 'watermark_group' THEN
        sources := ARRAY(SELECT DISTINCT x::oid FROM jsonb_array_elements_text(args->'relids') AS x ORDER BY 1);
        FOREACH relid IN ARRAY sources LOOP
            PERFORM pgtrickle._require_writer(relid, caller);
        END LOOP;
        INSERT INTO pgtrickle.pgt_watermark_groups (group_name, source_relids, tolerance_secs, created_by)
        VALUES (args->>'name', sources, (args->>'tolerance')::float8, caller) RETURNING group_id INTO gid;
        RETURN jsonb_build_object('group_id', gid);
    WHEN 'drop_watermark_group' THEN
        SELECT g.created_by INTO creator FROM pgtrickle.pgt_watermark_groups g WHERE g.group_name = args->>'name';
        IF NOT FOUND THEN
            RAISE EXCEPTION 'watermark group "%" does not exist', args->>'name' USING ERRCODE = 'undefined_object';
        END IF;
        PERFORM pgtrickle._require_creator(creator, caller, format('watermark group "%s"', args->>'name'));
        DELETE FROM pgtrickle.pgt_watermark_groups g WHERE g.group_name = args->>'name';
    WHEN 'refresh_group' THEN
        FOR id IN SELECT x::bigint FROM jsonb_array_elements_text(args->'members') AS x LOOP
            PERFORM FROM pgtrickle.pgt_stream_tables t WHERE t.pgt_id = id AND (caller = current_user OR pgtrickle._may_own(caller, t.pgt_relid));
            IF NOT FOUND THEN
                RAISE EXCEPTION 'must be owner of every member of a refresh group' USING ERRCODE = 'insufficient_privilege';
            END IF;
        END LOOP;
        INSERT INTO pgtrickle.pgt_refresh_groups (group_name, isolation, created_by) VALUES (args->>'name', args->>'isolation', caller) RETURNING group_id INTO gid;
        INSERT INTO pgtrickle.pgt_refresh_group_members (pgt_id, group_id) SELECT x::bigint, gid FROM jsonb_array_elements_text(args->'members') AS x;
        RETURN jsonb_build_object('group_id', gid);
    WHEN 'drop_refresh_group' THEN
        SELECT g.created_by INTO creator FROM pgtrickle.pgt_refresh_groups g WHERE g.group_name = args->>'name';
        IF NOT FOUND THEN
            RAISE EXCEPTION 'refresh group "%" does not exist', args->>'name' USING ERRCODE = 'undefined_object';
        END IF;
        PERFORM pgtrickle._require_creator(creator, caller, format('refresh group "%s"', args->>'name'));
        DELETE FROM pgtrickle.pgt_refresh_group_members m USING pgtrickle.pgt_refresh_groups g WHERE g.group_id = m.group_id AND g.group_name = args->>'name';
        DELETE FROM pgtrickle.pgt_refresh_groups g WHERE g.group_name = args->>'name';
    ELSE
        RAISE EXCEPTION 'unknown operation %', quote_nullable(op) USING ERRCODE = 'invalid_parameter_value';
    END CASE;
    RETURN '{}';
END
$body$;

-- A source as the caller's search_path finds it.
CREATE OR REPLACE FUNCTION pgtrickle._source(name text) RETURNS oid
LANGUAGE plpgsql STABLE AS $body$
DECLARE
    relid oid := pg_catalog.to_regclass(name);
BEGIN
    IF relid IS NULL THEN
        RAISE EXCEPTION 'relation "%" does not exist', name USING ERRCODE = 'undefined_table';
    END IF;
    RETURN relid;
END
$body$;

-- ---- gates -------------------------------------------------------------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION pgtrickle.gate_source(source text) RETURNS void
LANGUAGE plpgsql AS $body$
BEGIN
    PERFORM pgtrickle._do('gate', pg_catalog.jsonb_build_object('relid', pgtrickle._source(source)));
END
$body$;
CREATE OR REPLACE FUNCTION pgtrickle.ungate_source(source text) RETURNS void
LANGUAGE plpgsql AS $body$
BEGIN
    PERFORM pgtrickle._do('ungate', pg_catalog.jsonb_build_object('relid', pgtrickle._source(source)));
END
$body$;

CREATE OR REPLACE FUNCTION pgtrickle.source_gates()
RETURNS TABLE (source_table text, schema_name text, gated boolean, gated_at timestamptz, ungated_at timestamptz, gated_by text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT c.relname::text, n.nspname::text, g.gated, g.gated_at, g.ungated_at, g.gated_by
    FROM pgtrickle.pgt_source_gates g JOIN pg_class c ON c.oid = g.source_relid JOIN pg_namespace n ON n.oid = c.relnamespace ORDER BY 2, 1
$body$;
CREATE OR REPLACE FUNCTION pgtrickle.bootstrap_gate_status()
RETURNS TABLE (source_table text, schema_name text, gated boolean, gated_at timestamptz, ungated_at timestamptz, gated_by text, gate_duration interval,
    affected_stream_tables text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT c.relname::text, n.nspname::text, g.gated, g.gated_at, g.ungated_at, g.gated_by,
        CASE WHEN g.gated THEN clock_timestamp() ELSE g.ungated_at END - g.gated_at,
        (SELECT string_agg(t.pgt_schema || '.' || t.pgt_name, ', ' ORDER BY t.pgt_schema, t.pgt_name)
         FROM pgtrickle.pgt_dependencies d JOIN pgtrickle.pgt_stream_tables t USING (pgt_id) WHERE d.source_relid = g.source_relid)
    FROM pgtrickle.pgt_source_gates g JOIN pg_class c ON c.oid = g.source_relid JOIN pg_namespace n ON n.oid = c.relnamespace ORDER BY 2, 1
$body$;

-- ---- watermarks --------------------------------------------------------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION pgtrickle.advance_watermark(source text, watermark timestamptz) RETURNS void
LANGUAGE plpgsql AS $body$
BEGIN
    IF watermark IS NULL THEN
        RAISE EXCEPTION 'watermark must not be NULL' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    PERFORM pgtrickle._do('watermark', pg_catalog.jsonb_build_object('relid', pgtrickle._source(source), 'at', watermark));
END
$body$;
CREATE OR REPLACE FUNCTION pgtrickle.create_watermark_group(group_name text, sources text[], tolerance_secs double precision DEFAULT 0) RETURNS integer
LANGUAGE plpgsql AS $body$
BEGIN
    IF pg_catalog.cardinality(sources) OPERATOR(pg_catalog.<) 2 OR sources IS NULL OR tolerance_secs OPERATOR(pg_catalog.<) 0::double precision THEN
        RAISE EXCEPTION 'a watermark group needs two sources or more, and a tolerance of 0 or more' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN pgtrickle._do('watermark_group', pg_catalog.jsonb_build_object('name', group_name, 'tolerance', tolerance_secs, 'relids',
        (SELECT pg_catalog.jsonb_agg(pgtrickle._source(s)) FROM pg_catalog.unnest(sources) AS s))) OPERATOR(pg_catalog.->>) 'group_id';
END
$body$;
CREATE OR REPLACE FUNCTION pgtrickle.drop_watermark_group(group_name text) RETURNS void
LANGUAGE plpgsql AS $body$
BEGIN
    PERFORM pgtrickle._do('drop_watermark_group', pg_catalog.jsonb_build_object('name', group_name));
END
$body$;
CREATE OR REPLACE FUNCTION pgtrickle.watermarks()
RETURNS TABLE (source_table text, schema_name text, watermark timestamptz, updated_at timestamptz, advanced_by text, wal_lsn text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT c.relname::text, n.nspname::text, w.watermark, w.updated_at, w.advanced_by, w.wal_lsn::text
    FROM pgtrickle.pgt_watermarks w JOIN pg_class c ON c.oid = w.source_relid JOIN pg_namespace n ON n.oid = c.relnamespace ORDER BY 2, 1
$body$;
CREATE OR REPLACE FUNCTION pgtrickle.watermark_groups() RETURNS TABLE (group_name text, source_count integer, tolerance_secs double precision, created_at timestamptz)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT g.group_name, cardinality(g.source_relids), g.tolerance_secs, g.created_at FROM pgtrickle.pgt_watermark_groups g ORDER BY 1
$body$;
CREATE OR REPLACE FUNCTION pgtrickle.watermark_status()
RETURNS TABLE (group_name text, min_watermark timestamptz, max_watermark timestamptz, lag_secs double precision, aligned boolean, sources_with_watermark integer,
    sources_total integer)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT g.group_name, min(w.watermark), max(w.watermark), extract(epoch FROM max(w.watermark) - min(w.watermark))::float8,
        count(w.watermark) < 2 OR extract(epoch FROM max(w.watermark) - min(w.watermark)) <= g.tolerance_secs, count(w.watermark)::integer, cardinality(g.source_relids)
    FROM pgtrickle.pgt_watermark_groups g LEFT JOIN pgtrickle.pgt_watermarks w ON w.source_relid = ANY (g.source_relids)
    GROUP BY g.group_id ORDER BY 1
$body$;

-- ---- refresh groups ----------------------------------------------------------------------------------------------------------------------------

-- isolation is kept for pg_trickle's users: every group is refreshed from one snapshot.
CREATE OR REPLACE FUNCTION pgtrickle.create_refresh_group(group_name text, members text[], isolation text DEFAULT 'read_committed') RETURNS integer
LANGUAGE plpgsql AS $body$
DECLARE
    path CONSTANT name[] := pg_catalog.current_schemas(false);
    ids bigint[] := ARRAY(SELECT DISTINCT (pgtrickle._get(m, path)).pgt_id FROM pg_catalog.unnest(members) AS m);
BEGIN
    IF pg_catalog.cardinality(ids) OPERATOR(pg_catalog.<) 2 THEN
        RAISE EXCEPTION 'a refresh group needs two members or more' USING ERRCODE = 'invalid_parameter_value';
    ELSIF isolation IS NULL OR isolation OPERATOR(pg_catalog.<>) ALL ('{read_committed,repeatable_read}'::text[]) THEN
        RAISE EXCEPTION 'invalid isolation: %', pg_catalog.quote_nullable(isolation)
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Known are read_committed and repeatable_read.';
    END IF;
    RETURN pgtrickle._do('refresh_group', pg_catalog.jsonb_build_object('name', group_name, 'members', ids, 'isolation', isolation)) OPERATOR(pg_catalog.->>) 'group_id';
END
$body$;
CREATE OR REPLACE FUNCTION pgtrickle.drop_refresh_group(group_name text) RETURNS void
LANGUAGE plpgsql AS $body$
BEGIN
    PERFORM pgtrickle._do('drop_refresh_group', pg_catalog.jsonb_build_object('name', group_name));
END
$body$;
CREATE OR REPLACE FUNCTION pgtrickle.refresh_groups() RETURNS TABLE (group_id integer, group_name text, member_count integer, isolation text, created_at timestamptz)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT g.group_id, g.group_name, (SELECT count(*)::integer FROM pgtrickle.pgt_refresh_group_members m WHERE m.group_id = g.group_id), g.isolation, g.created_at
    FROM pgtrickle.pgt_refresh_groups g ORDER BY 1
$body$;

-- ---- many at once ------------------------------------------------------------------------------------------------------------------------------

-- 'off', or a duration: how often the scheduler compares it with its query.
CREATE OR REPLACE FUNCTION pgtrickle.check_stream_table_every(name text, "interval" text) RETURNS void
LANGUAGE plpgsql AS $body$
DECLARE
    seconds CONSTANT bigint := pgtrickle.parse_duration_seconds("interval");
BEGIN
    IF seconds IS NULL AND "interval" IS DISTINCT FROM 'off' OR seconds OPERATOR(pg_catalog.<) 1::bigint THEN
        RAISE EXCEPTION 'invalid interval: %', pg_catalog.quote_nullable("interval")
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Write a duration (''10m'', ''1h30m'') or ''off''.';
    END IF;
    PERFORM pgtrickle._do('check_every', pg_catalog.jsonb_build_object('pgt_id', pgtrickle._id(name, pg_catalog.current_schemas(false)), 'interval', seconds OPERATOR(pg_catalog.||) ' s'::text));
END
$body$;

-- Refreshes it when it is older than that; whether it did.
CREATE OR REPLACE FUNCTION pgtrickle.refresh_if_stale(name text, max_age interval) RETURNS boolean
LANGUAGE plpgsql AS $body$
DECLARE
    age CONSTANT interval := pgtrickle._staleness(pgtrickle._get(name, pg_catalog.current_schemas(false)));
BEGIN
    IF age OPERATOR(pg_catalog.<=) max_age THEN
        RETURN false;
    END IF;
    PERFORM pgtrickle.refresh_stream_table(name);
    RETURN true;
END
$body$;

-- Runs a statement of the caller's, as the caller, then the refresh: reads see what was written.
CREATE OR REPLACE FUNCTION pgtrickle.write_and_refresh(sql text, name text) RETURNS void
LANGUAGE plpgsql AS $body$
BEGIN
    EXECUTE sql;
    PERFORM pgtrickle.refresh_stream_table(name);
END
$body$;

CREATE OR REPLACE FUNCTION pgtrickle._all_mine(wanted text) RETURNS SETOF pgtrickle.pgt_stream_tables
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT t.* FROM pgtrickle.pgt_stream_tables t WHERE t.status = wanted AND pgtrickle._may_own(current_user, t.pgt_relid) ORDER BY t.pgt_id
$body$;

-- Those that the caller owns; how many.
CREATE OR REPLACE FUNCTION pgtrickle.pause_all() RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    st pgtrickle.pgt_stream_tables;
    n integer := 0;
BEGIN
    FOR st IN SELECT * FROM pgtrickle._all_mine('ACTIVE') LOOP
        PERFORM pgtrickle._do('alter', jsonb_build_object('pgt_id', st.pgt_id, 'status', 'SUSPENDED'));
        n := n + 1;
    END LOOP;
    RETURN n;
END
$body$;
CREATE OR REPLACE FUNCTION pgtrickle.resume_all() RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    st pgtrickle.pgt_stream_tables;
    n integer := 0;
BEGIN
    FOR st IN SELECT * FROM pgtrickle._all_mine('SUSPENDED') LOOP
        PERFORM pgtrickle._resume(st);
        n := n + 1;
    END LOOP;
    RETURN n;
END
$body$;

-- As alter_stream_table with the same changes for each name; atomic. changes: {"tier": "cold", …}.
CREATE OR REPLACE FUNCTION pgtrickle.bulk_alter(names text[], changes jsonb) RETURNS integer
LANGUAGE plpgsql SET client_min_messages = notice AS $body$
BEGIN
    FOR i IN 1 .. pg_catalog.cardinality(names) LOOP
        PERFORM pgtrickle._alter_by_name(names[i], changes, pg_catalog.current_schemas(false), pg_catalog.current_setting('search_path'));
    END LOOP;
    RETURN pg_catalog.cardinality(names);
END
$body$;
CREATE OR REPLACE FUNCTION pgtrickle.bulk_drop(names text[], cascade boolean DEFAULT false) RETURNS integer
LANGUAGE plpgsql SET client_min_messages = notice AS $body$
BEGIN
    FOR i IN 1 .. pg_catalog.cardinality(names) LOOP
        PERFORM pgtrickle._drop_by_name(names[i], cascade, pg_catalog.current_schemas(false));
    END LOOP;
    RETURN pg_catalog.cardinality(names);
END
$body$;

REVOKE EXECUTE ON FUNCTION pgtrickle._call_policy(text, jsonb, name) FROM PUBLIC;
