-- Compares a stream table with its query, and changes nothing: CHECK STREAM TABLE, check_stream_table, the background sample.
--
-- One statement compares, so both are seen in one snapshot, and neither readers nor writers wait. What a deferred stream table has not taken in
-- yet is no error: where rows differ and changes are pending (or time has passed), a refresh is made in a subtransaction, its outcome compared,
-- and all of it rolled back.

SET LOCAL client_min_messages = warning;

-- {"missing", "extra", "differences", "choice"} of the stream table as it is. choice: rows that differ from PostgreSQL's evaluation only
-- because the query leaves them open (ties in an order).
CREATE OR REPLACE FUNCTION pgtrickle._compare(id bigint) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    ran jsonb;
    open_rows bigint := 0;
BEGIN
    -- Twice, before it is believed: a TRUNCATE that commits during the statement empties a source for its snapshot too.
    FOR i IN 1 .. 2 LOOP
        ran := pgtrickle._do('run', jsonb_build_object('pgt_id', id, 'what', 'check'));
        EXIT WHEN (ran->>'inserted')::bigint = 0 AND (ran->>'deleted')::bigint = 0;
    END LOOP;
    IF (ran->>'inserted')::bigint > 0 OR (ran->>'deleted')::bigint > 0 THEN
        open_rows := (ran->>'inserted')::bigint + (ran->>'deleted')::bigint;
        ran := pgtrickle._do('run', jsonb_build_object('pgt_id', id, 'what', 'check_own'));
    END IF;
    RETURN jsonb_build_object('missing', (ran->>'inserted')::bigint, 'extra', (ran->>'deleted')::bigint, 'choice', open_rows,
        'differences', coalesce(nullif(current_setting('pgtrickle.differences', true), ''), '[]')::jsonb);
END
$body$;

CREATE OR REPLACE FUNCTION pgtrickle._is_equal(compared jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $body$ SELECT (compared->>'missing')::bigint = 0 AND (compared->>'extra')::bigint = 0 $body$;

-- Whether the comparison just made can be relied upon: nothing was pending then. before: the row as it was.
CREATE OR REPLACE FUNCTION pgtrickle._nothing_was_pending(id bigint, before pgtrickle.pgt_stream_tables) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    st pgtrickle.pgt_stream_tables;
BEGIN
    SELECT * INTO st FROM pgtrickle.pgt_stream_tables t WHERE t.pgt_id = id;
    -- Since the frontier has not moved, what was pending then would be so now.
    RETURN st.frontier_xid IS NOT DISTINCT FROM before.frontier_xid AND st.frontier_seq IS NOT DISTINCT FROM before.frontier_seq AND NOT st.needs_reinit
        AND (st.refresh_mode = 'IMMEDIATE' OR st.refresh_mode = 'DIFFERENTIAL' AND (NOT st.time_dependent OR st.frontier_time = now())
             AND (SELECT p.mask = 0 FROM pgtrickle._pending(st, 'any') AS p));
END
$body$;

-- A refresh, compared and rolled back: {"action", "certain", …} as _compare's, or NULL when it could not be made for lack of a lock.
CREATE OR REPLACE FUNCTION pgtrickle._compare_refreshed(id bigint) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    st pgtrickle.pgt_stream_tables;
    action text;
    answer text;
BEGIN
    BEGIN
        action := pgtrickle._refresh(id, 'MANUAL');
        SELECT * INTO st FROM pgtrickle.pgt_stream_tables t WHERE t.pgt_id = id;
        RAISE EXCEPTION USING ERRCODE = 'PGT01', MESSAGE = (CASE WHEN action IN ('DIFFERENTIAL', 'NO_DATA') THEN pgtrickle._compare(id) ELSE '{}' END
            || jsonb_build_object('action', action, 'certain', pgtrickle._nothing_was_pending(id, st)))::text;
    EXCEPTION WHEN SQLSTATE 'PGT01' THEN
        answer := SQLERRM;
    END;
    RETURN answer::jsonb;
END
$body$;

-- verdict: EQUAL; MISMATCH: rows differ that should not; BEHIND: it can't be told before changes that wait are taken in (detail says why);
-- UNPOPULATED. differences: up to 20 rows, [{"copies": n, "row": text}], copies below 0: the stream table has them and the query has not.
CREATE OR REPLACE FUNCTION pgtrickle._check(id bigint)
RETURNS TABLE (stream_table text, verdict text, missing bigint, extra bigint, detail text, duration_ms double precision, differences jsonb)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    started CONSTANT timestamptz := clock_timestamp();
    st pgtrickle.pgt_stream_tables;
    settings_before jsonb;
    compared jsonb;
    certain boolean := false;
BEGIN
    IF pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on' THEN
        RAISE EXCEPTION 'cannot check a stream table in a read-only transaction' USING ERRCODE = 'read_only_sql_transaction';
    END IF;
    SELECT * INTO st FROM pgtrickle.pgt_stream_tables t WHERE t.pgt_id = id;
    PERFORM pgtrickle._require_owner(st);
    stream_table := st.pgt_schema || '.' || st.pgt_name;
    IF NOT st.is_populated THEN
        verdict := 'UNPOPULATED';
    ELSIF st.plan->>'check' IS NULL THEN
        RAISE EXCEPTION 'stream table "%" was planned by an earlier version and cannot be checked', stream_table
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = format('SELECT pgtrickle.repair_stream_table(%L);', format('%I.%I', st.pgt_schema, st.pgt_name));
    ELSE
        SELECT jsonb_object_agg(e.key, current_setting(e.key)) INTO settings_before
        FROM jsonb_each_text(st.settings) AS e WHERE current_setting(e.key, true) <> e.value AND e.key <> 'standard_conforming_strings';
        PERFORM set_config(e.key, st.settings->>e.key, true) FROM jsonb_each_text(settings_before) AS e;
        FOR attempt IN 1 .. 3 LOOP
            SELECT * INTO st FROM pgtrickle.pgt_stream_tables t WHERE t.pgt_id = id;
            compared := pgtrickle._compare(id);
            certain := pgtrickle._is_equal(compared) OR pgtrickle._nothing_was_pending(id, st);
            EXIT WHEN certain OR st.refresh_mode <> 'IMMEDIATE';
        END LOOP;
        IF st.refresh_mode = 'FULL' AND NOT certain THEN
            detail := 'it is refreshed as a whole: the next refresh makes it equal';
        ELSIF st.needs_reinit AND NOT certain THEN
            detail := 'the next refresh is a full one';
        ELSE
            FOR attempt IN 1 .. 5 LOOP
                EXIT WHEN certain;
                compared := pgtrickle._compare_refreshed(id);
                IF compared->>'action' NOT IN ('DIFFERENTIAL', 'NO_DATA') THEN
                    detail := 'the next refresh is a full one';
                    EXIT;
                END IF;
                certain := (compared->>'certain')::boolean OR pgtrickle._is_equal(compared);
            END LOOP;
            IF NOT certain AND detail IS NULL THEN
                detail := 'changes keep coming in: check it in a REPEATABLE READ transaction';
            END IF;
        END IF;
        -- These don't respect snapshots.
        IF certain AND NOT pgtrickle._is_equal(compared) AND EXISTS (SELECT FROM pgtrickle.pgt_dependencies d JOIN pg_class c ON c.oid = d.source_relid
                WHERE d.pgt_id = id AND c.relkind = 'r' AND pg_relation_filenode(c.oid) IS DISTINCT FROM c.relfilenode) THEN
            RAISE EXCEPTION 'a source of stream table "%" was truncated or rewritten meanwhile', stream_table USING ERRCODE = 'serialization_failure';
        END IF;
        PERFORM set_config(e.key, e.value, true) FROM jsonb_each_text(settings_before) AS e;
        verdict := CASE WHEN NOT certain THEN 'BEHIND' WHEN pgtrickle._is_equal(compared) THEN 'EQUAL' ELSE 'MISMATCH' END;
        IF certain THEN
            missing := (compared->>'missing')::bigint;
            extra := (compared->>'extra')::bigint;
            differences := CASE WHEN verdict = 'MISMATCH' THEN compared->'differences' END;
            IF verdict = 'EQUAL' AND (compared->>'choice')::bigint > 0 THEN
                detail := format('%s rows are other than PostgreSQL would choose now: the query leaves that open', compared->>'choice');
            END IF;
        END IF;
    END IF;
    duration_ms := extract(epoch FROM clock_timestamp() - started) * 1000;
    PERFORM pgtrickle._do('checked', jsonb_build_object('pgt_id', id, 'verdict', verdict, 'missing', missing, 'extra', extra, 'detail', detail, 'duration_ms', duration_ms));
    RETURN NEXT;
END
$body$;

CREATE OR REPLACE FUNCTION pgtrickle.check_stream_table(name text)
RETURNS TABLE (stream_table text, verdict text, missing bigint, extra bigint, detail text, duration_ms double precision, differences jsonb)
LANGUAGE plpgsql AS $body$
DECLARE
    path CONSTANT text := pg_catalog.current_setting('search_path');
BEGIN
    RETURN QUERY SELECT c.* FROM pgtrickle._check((pgtrickle._get(name, pg_catalog.current_schemas(false))).pgt_id) AS c;
    PERFORM pgtrickle._restore_path(path);
END
$body$;

-- CHECK STREAM TABLE.
CREATE OR REPLACE FUNCTION pgtrickle._check_named(schema text, name text)
RETURNS TABLE (stream_table text, verdict text, missing bigint, extra bigint, detail text, duration_ms double precision, differences jsonb)
LANGUAGE plpgsql AS $body$
BEGIN
    RETURN QUERY SELECT c.* FROM pgtrickle.check_stream_table(
        pg_catalog.concat(CASE WHEN schema IS NOT NULL THEN pg_catalog.concat('"', pg_catalog.replace(schema, '"', '""'), '".') END, '"', pg_catalog.replace(name, '"', '""'), '"')) AS c;
END
$body$;
