-- The executor of plans: see docs/architecture.md, "The frontier" and "The plan".

SET LOCAL client_min_messages = warning;

-- The condition on a buffer row to be new to a frontier given as $1..$4. Written so that the index on __pgt_xid serves every arm.
CREATE OR REPLACE FUNCTION pgtrickle._is_new() RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $body$
    SELECT '(__pgt_xid >= $1 OR __pgt_xid = ANY ($2) OR __pgt_xid = $3) AND (__pgt_xid <> $3 OR __pgt_seq > $4)'::text
$body$;

-- What the sources have that the frontier has not. what: 'mask': which sources have new rows, and whether a marker is among these; 'marker':
-- only that; 'any': only mask; 'count': how many rows, counted up to ten million.
CREATE OR REPLACE FUNCTION pgtrickle._pending(st pgtrickle.pgt_stream_tables, what text, OUT mask bigint, OUT marker boolean, OUT rows bigint)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    is_new CONSTANT text := pgtrickle._is_new();
    look text;
BEGIN
    mask := 0;
    marker := false;
    rows := 0;
    SELECT string_agg(format('SELECT %s::bigint, %s, %s, %s', 1::bigint << s.bit,
        CASE WHEN what IN ('mask', 'any') THEN format('EXISTS (SELECT FROM pgtrickle_changes.c_%s WHERE %s)', s.relid, is_new) ELSE 'false' END,
        CASE WHEN what IN ('mask', 'marker') THEN format('EXISTS (SELECT FROM pgtrickle_changes.c_%s WHERE %s AND __pgt_w = 0)', s.relid, is_new) ELSE 'false' END,
        CASE WHEN what = 'count' THEN format('(SELECT count(*) FROM (SELECT FROM pgtrickle_changes.c_%s WHERE %s LIMIT 10000000) AS n)', s.relid, is_new) ELSE '0' END),
        ' UNION ALL ')
    INTO look
    FROM (SELECT x.relid, x.bit FROM jsonb_to_recordset(coalesce(st.plan->'sources', '[]')) AS x(relid oid, bit integer) WHERE st.refresh_mode = 'DIFFERENTIAL'
          UNION ALL SELECT d.source_relid, 0 FROM pgtrickle.pgt_dependencies d WHERE d.pgt_id = st.pgt_id AND d.captured AND st.refresh_mode <> 'DIFFERENTIAL') AS s
    JOIN pgtrickle.pgt_captures c ON c.source_relid = s.relid;
    IF look IS NOT NULL THEN
        EXECUTE format('SELECT coalesce(sum(bit) FILTER (WHERE has_new), 0), bool_or(mark), sum(n) FROM (%s) AS p(bit, has_new, mark, n)', look)
        INTO mask, marker, rows
        USING pg_snapshot_xmax(st.frontier_snapshot), ARRAY(SELECT pg_snapshot_xip(st.frontier_snapshot)), st.frontier_xid, st.frontier_seq;
    END IF;
END
$body$;

-- Counters of the writes of sources that have no buffer, their partitions and heirs included: {"<relid>": n}. They move some time after the
-- commit of what they count, up to ten seconds when the writer then falls silent.
CREATE OR REPLACE FUNCTION pgtrickle._source_activity(id bigint) RETURNS jsonb
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $body$
    WITH RECURSIVE part(source, relid) AS (
        SELECT d.source_relid, d.source_relid FROM pgtrickle.pgt_dependencies d WHERE d.pgt_id = id AND NOT d.captured AND d.source_type <> 'VIEW'
        UNION SELECT p.source, i.inhrelid FROM part p JOIN pg_inherits i ON i.inhparent = p.relid)
    SELECT coalesce(jsonb_object_agg(s.source, s.n), '{}')
    FROM (SELECT p.source, sum(pg_stat_get_tuples_inserted(p.relid) + pg_stat_get_tuples_updated(p.relid) + pg_stat_get_tuples_deleted(p.relid)
                               + coalesce(pg_relation_filenode(p.relid), 0)::bigint) AS n
          FROM part p GROUP BY p.source) AS s
$body$;

-- Whether a refresh would have something to do.
CREATE OR REPLACE FUNCTION pgtrickle._has_changes(pgt_id bigint) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
#variable_conflict use_variable
DECLARE
    st pgtrickle.pgt_stream_tables;
BEGIN
    SELECT * INTO st FROM pgtrickle.pgt_stream_tables t WHERE t.pgt_id = pgt_id;
    IF NOT FOUND THEN
        RETURN false;
    -- Each refresh asks this too; those without a schedule are asked every second time: it takes longer than all the rest here.
    ELSIF (pgt_id + extract(epoch FROM clock_timestamp())::bigint) % 2 = 0 AND pgtrickle._why_stale(pgt_id) IS NOT NULL THEN
        RETURN true;
    ELSIF st.refresh_mode = 'IMMEDIATE' AND st.is_populated AND NOT st.needs_reinit THEN
        RETURN st.frontier_timeline <> pgtrickle._timeline();
    ELSIF NOT st.is_populated OR st.needs_reinit THEN
        RETURN true;
    END IF;
    RETURN (SELECT p.mask <> 0 FROM pgtrickle._pending(st, 'any') AS p)
        OR st.refresh_mode = 'FULL' AND coalesce(st.source_activity, '{}') <> pgtrickle._source_activity(pgt_id);
END
$body$;

-- Removed after version 1 of this file: see 39_choose.sql.
DROP FUNCTION IF EXISTS pgtrickle._why_full(pgtrickle.pgt_stream_tables);

-- Brings one stream table up to now. Returns the action: NO_DATA, DIFFERENTIAL, FULL or REINITIALIZE; SKIP when its fuse blew.
-- Exact under READ COMMITTED (one statement has one snapshot) and under REPEATABLE READ (40001 when something moved beneath us).
CREATE OR REPLACE FUNCTION pgtrickle._refresh(pgt_id bigint, initiated_by text) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
#variable_conflict use_variable
DECLARE
    started timestamptz := clock_timestamp();
    evaluated timestamptz;
    st pgtrickle.pgt_stream_tables;
    relid oid;
    owner name;
    settings_before jsonb;
    read_committed boolean := current_setting('transaction_isolation') IN ('read committed', 'read uncommitted');
    pending record;
    action text;
    mode text;
    reason text;
    what text;
    mask text;
    ran jsonb;
    seq bigint;
    fused bigint;
    counted bigint;
    activity jsonb;
    ms float8;
    bad text;
BEGIN
    IF pg_is_in_recovery() THEN
        RAISE EXCEPTION 'cannot refresh a stream table on a standby server' USING ERRCODE = 'read_only_sql_transaction';
    ELSIF NOT pgtrickle._is_at_home() THEN
        RAISE EXCEPTION 'the stream tables of this database come from another one'
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'SELECT pgtrickle.restore_stream_tables(); as the role that owns schema pgtrickle.';
    END IF;
    SELECT t.pgt_relid, pg_get_userbyid(c.relowner) INTO relid, owner
    FROM pgtrickle.pgt_stream_tables t JOIN pg_class c ON c.oid = t.pgt_relid WHERE t.pgt_id = pgt_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no stream table %', pgt_id USING ERRCODE = 'undefined_table';
    END IF;

    EXECUTE format('LOCK TABLE %s IN SHARE UPDATE EXCLUSIVE MODE', relid::regclass);
    PERFORM pgtrickle._hold_frontier(pgt_id);
    SELECT * INTO st FROM pgtrickle.pgt_stream_tables t WHERE t.pgt_id = pgt_id;
    IF NOT FOUND OR st.pgt_relid <> relid THEN
        RAISE EXCEPTION 'stream table % was changed by another session', pgt_id USING ERRCODE = 'serialization_failure';
    END IF;

    -- The query's meaning must not depend on who asks for the refresh.
    SELECT jsonb_object_agg(e.key, current_setting(e.key)) INTO settings_before
    FROM jsonb_each_text(st.settings) AS e WHERE current_setting(e.key, true) <> e.value
        AND e.key <> 'standard_conforming_strings'; -- that of the definition's text; plans are right under both
    PERFORM set_config(e.key, st.settings->>e.key, true) FROM jsonb_each_text(settings_before) AS e;

    -- Rights may have been revoked, columns altered, since the plan was made.
    SELECT d.source_relid::regclass::text INTO bad FROM pgtrickle.pgt_dependencies d
    WHERE d.pgt_id = pgt_id AND d.captured AND EXISTS (SELECT FROM unnest(d.attnums) AS n WHERE NOT has_column_privilege(owner, d.source_relid, n::int2, 'SELECT'));
    IF FOUND THEN
        RAISE EXCEPTION 'permission denied for table %', bad
            USING ERRCODE = 'insufficient_privilege', HINT = format('GRANT SELECT ON %s TO %I;', bad, owner);
    END IF;
    bad := pgtrickle._why_stale(pgt_id);
    IF bad IS NOT NULL THEN
        RAISE EXCEPTION '%', bad
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = format('SELECT pgtrickle.repair_stream_table(%L), or give it a new query.', format('%I.%I', st.pgt_schema, st.pgt_name));
    END IF;
    IF st.frontier_timeline <> pgtrickle._timeline() THEN
        st.needs_reinit := true;
    END IF;

    IF st.refresh_mode <> 'DIFFERENTIAL' THEN
        action := 'FULL';
        IF st.needs_reinit THEN
            action := 'REINITIALIZE';
        END IF;
    ELSIF NOT st.is_populated THEN
        action := 'FULL';
        reason := 'not populated yet';
    ELSIF st.needs_reinit THEN
        action := 'REINITIALIZE';
    ELSE
        SELECT * INTO pending FROM pgtrickle._pending(st, 'mask');
        IF pending.marker THEN
            action := 'FULL';
            reason := 'a source was truncated or altered';
        ELSIF st.time_dependent AND now() < st.frontier_time THEN
            -- An older transaction than the last refresh's: its now() lies before what is stored.
            action := 'FULL';
            reason := 'the transaction is older than the last refresh';
        ELSIF pending.mask = 0 AND NOT st.time_dependent THEN
            action := 'NO_DATA';
        ELSE
            SELECT CASE WHEN c.is_full THEN 'FULL' ELSE 'DIFFERENTIAL' END, c.reason, c.pending INTO action, reason, counted FROM pgtrickle._choose(st) AS c;
        END IF;
    END IF;

    IF action IN ('DIFFERENTIAL', 'FULL') AND initiated_by = 'SCHEDULER' AND st.fuse_mode <> 'off' AND st.fuse_ceiling IS NOT NULL AND st.is_populated THEN
        SELECT p.rows INTO fused FROM pgtrickle._pending(st, 'count') AS p;
        IF fused > st.fuse_ceiling THEN
            action := 'SKIP';
            reason := format('change buffer count (%s) exceeded ceiling (%s)', fused, st.fuse_ceiling);
        END IF;
    END IF;

    IF action NOT IN ('NO_DATA', 'SKIP') THEN
        activity := CASE WHEN st.refresh_mode = 'FULL' THEN pgtrickle._source_activity(pgt_id) END;
        IF action = 'DIFFERENTIAL' THEN
            -- Under READ COMMITTED another source may get rows between our look and the statement's snapshot.
            mask := CASE WHEN read_committed AND jsonb_array_length(st.plan->'sources') > 1 THEN 'all' ELSE pending.mask::text END;
            IF pgtrickle._delta(st.plan->'deltas', mask) IS NULL THEN
                action := 'FULL';
            END IF;
        END IF;
        what := CASE WHEN action = 'DIFFERENTIAL' THEN 'delta' WHEN NOT st.is_populated AND initiated_by = 'INITIAL' AND st.plan->>'fill' IS NOT NULL THEN 'fill' ELSE 'full' END;
        LOOP
            seq := nextval('pgtrickle.change_seq');
            evaluated := clock_timestamp();
            ran := pgtrickle._do('run', jsonb_build_object('pgt_id', pgt_id, 'what', what, 'mask', mask));
            ms := extract(epoch FROM clock_timestamp() - evaluated) * 1000;
            -- A TRUNCATE that committed after our look: its marker is visible now, its rows may be gone from what we read.
            EXIT WHEN action <> 'DIFFERENTIAL' OR NOT read_committed;
            SELECT * INTO pending FROM pgtrickle._pending(st, 'marker');
            EXIT WHEN NOT pending.marker;
            action := 'FULL';
            reason := 'a source was truncated or altered';
            what := 'full';
        END LOOP;
        -- TRUNCATE and rewriting ALTER TABLE don't respect snapshots: an old one sees an empty table. Functions look at the present, tables at our snapshot.
        IF NOT read_committed AND EXISTS (SELECT FROM pgtrickle.pgt_dependencies d CROSS JOIN LATERAL pgtrickle._tree(d.source_relid) AS x JOIN pg_class c ON c.oid = x.relid
                WHERE d.pgt_id = pgt_id AND c.relkind = 'r' AND pg_relation_filenode(c.oid) IS DISTINCT FROM c.relfilenode) THEN
            RAISE EXCEPTION 'a source of stream table "%.%" was truncated or rewritten meanwhile', st.pgt_schema, st.pgt_name
                USING ERRCODE = 'serialization_failure';
        END IF;
        mode := CASE action WHEN 'DIFFERENTIAL' THEN CASE WHEN st.is_append_only AND (ran->>'updated')::bigint + (ran->>'deleted')::bigint = 0 THEN 'APPEND_ONLY' ELSE 'DIFFERENTIAL' END ELSE 'FULL' END;
    END IF;

    PERFORM pgtrickle._do('refreshed', jsonb_build_object('pgt_id', pgt_id, 'action', action, 'initiated_by', initiated_by, 'reason', reason, 'start_time', started) ||
        CASE WHEN action IN ('NO_DATA', 'SKIP') THEN '{}'::jsonb ELSE ran || jsonb_build_object('xid', pg_current_xact_id()::text, 'seq', seq, 'time', now(),
            'ms', ms,
            'pending', counted, 'effective_refresh_mode', mode, 'fallback', action = 'FULL' AND st.refresh_mode = 'DIFFERENTIAL' AND st.is_populated, 'source_activity', activity,
            -- A fill from a snapshot older than the triggers may have missed what was written in between.
            'needs_reinit', initiated_by = 'INITIAL' AND NOT read_committed AND st.refresh_mode = 'DIFFERENTIAL') END);

    PERFORM set_config(e.key, e.value, true) FROM jsonb_each_text(settings_before) AS e;
    RETURN action;
END
$body$;

-- Records a refresh that failed and was rolled back. What may go better next time is tried again, a little later each time; all else waits
-- for a person. Returns the status.
CREATE OR REPLACE FUNCTION pgtrickle._refresh_failed(pgt_id bigint, sqlstate text, message text, start_time timestamptz) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
#variable_conflict use_variable
DECLARE
    -- 55000 is _refresh's own when something was altered: another stream table's rebuild may have healed the source meanwhile.
    retryable boolean := coalesce(left(sqlstate, 2) IN ('40', '57', '08', '53') OR sqlstate IN ('55P03', '55000'), true);
    answer text;
    at timestamptz := clock_timestamp();
BEGIN
    -- Not its fault, and to be healed: see _request_failed for when it can't be.
    IF pgtrickle._is_at_home() AND pgtrickle._why_stale(pgt_id) IS NOT NULL THEN
        PERFORM pgtrickle._request_rebuild(pgt_id);
        UPDATE pgtrickle.pgt_stream_tables t SET next_attempt_at = at + interval '1 second' WHERE t.pgt_id = pgt_id RETURNING t.status INTO answer;
        RETURN answer;
    END IF;
    UPDATE pgtrickle.pgt_stream_tables t SET
        consecutive_errors = t.consecutive_errors + 1,
        next_attempt_at = at + least(interval '1 second' * 2 ^ t.consecutive_errors, interval '60 seconds') * (0.75 + random() / 2),
        status = CASE WHEN NOT retryable THEN 'ERROR' WHEN t.consecutive_errors + 1 >= 3 THEN 'SUSPENDED' ELSE t.status END,
        last_error_message = message, last_error_at = at, updated_at = at
    WHERE t.pgt_id = pgt_id RETURNING t.status INTO answer;
    IF FOUND THEN
        INSERT INTO pgtrickle.pgt_refresh_history (pgt_id, start_time, end_time, action, status, initiated_by, error_message, error_sqlstate, duration_ms)
        SELECT pgt_id, start_time, at, CASE WHEN t.refresh_mode = 'DIFFERENTIAL' AND t.is_populated AND NOT t.needs_reinit THEN 'DIFFERENTIAL' ELSE 'FULL' END,
               'FAILED', 'SCHEDULER', message, sqlstate, extract(epoch FROM at - start_time) * 1000
        FROM pgtrickle.pgt_stream_tables t WHERE t.pgt_id = pgt_id;
        -- The rows that it stumbled over are still in the buffer when the source has lost them: start anew.
        UPDATE pgtrickle.pgt_stream_tables t SET needs_reinit = true WHERE t.pgt_id = pgt_id AND NOT retryable;
    END IF;
    RETURN answer;
END
$body$;

-- At the start of a scheduler: what was running when the last one died is not running any more.
CREATE OR REPLACE FUNCTION pgtrickle._mark_crashed() RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    n integer;
BEGIN
    UPDATE pgtrickle.pgt_refresh_history h SET status = 'FAILED', end_time = now(), error_message = 'interrupted by a crash' WHERE h.status = 'RUNNING';
    GET DIAGNOSTICS n = ROW_COUNT;
    RETURN n;
END
$body$;

-- _has_changes for the scheduler: one that can't be looked at is in error, and holds up no other. Dropped since the caller's snapshot: no changes.
CREATE OR REPLACE FUNCTION pgtrickle._look(pgt_id bigint) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
#variable_conflict use_variable
DECLARE
    started timestamptz := clock_timestamp();
BEGIN
    RETURN pgtrickle._has_changes(pgt_id);
EXCEPTION WHEN OTHERS THEN
    IF left(SQLSTATE, 2) NOT IN ('40', '57', '53', '08') AND SQLSTATE <> '55P03' AND has_table_privilege('pgtrickle.pgt_stream_tables', 'UPDATE') THEN
        PERFORM pgtrickle._refresh_failed(pgt_id, SQLSTATE, SQLERRM, started);
    END IF;
    RETURN false;
END
$body$;

-- Everything that the scheduler decides from, one row a stream table.
CREATE OR REPLACE FUNCTION pgtrickle._schedule_state()
RETURNS TABLE (pgt_id bigint, pgt_schema text, pgt_name text, owner text, schedule text, schedule_seconds bigint, tier text, status text, refresh_mode text,
    is_populated boolean, needs_reinit boolean, time_dependent boolean, last_refresh_at timestamptz, next_attempt_at timestamptz, consecutive_errors integer,
    diamond_consistency text, diamond_schedule_policy text, upstream bigint[], has_changes boolean, relation_missing boolean, source_missing boolean)
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $body$
    SELECT t.pgt_id, t.pgt_schema, t.pgt_name, pg_get_userbyid(c.relowner)::text, t.schedule, pgtrickle.parse_duration_seconds(t.schedule),
        CASE t.fuse_state WHEN 'blown' THEN 'frozen' ELSE t.refresh_tier END, t.status,
        t.refresh_mode, t.is_populated, t.needs_reinit, t.time_dependent, t.last_refresh_at, t.next_attempt_at, t.consecutive_errors, t.diamond_consistency,
        t.diamond_schedule_policy, d.upstream,
        c.oid IS NOT NULL AND t.schedule IS NULL AND t.status IN ('ACTIVE', 'INITIALIZING') AND NOT d.missing AND pgtrickle._look(t.pgt_id),
        c.oid IS NULL, d.missing
    FROM pgtrickle.pgt_stream_tables t
    LEFT JOIN pg_class c ON c.oid = t.pgt_relid
    CROSS JOIN LATERAL (
        SELECT coalesce(array_agg(u.pgt_id ORDER BY u.pgt_id) FILTER (WHERE u.pgt_id IS NOT NULL), '{}') AS upstream,
               coalesce(bool_or(s.oid IS NULL), false) AS missing
        FROM pgtrickle.pgt_dependencies x
        LEFT JOIN pgtrickle.pgt_stream_tables u ON u.pgt_relid = x.source_relid
        LEFT JOIN pg_class s ON s.oid = x.source_relid
        WHERE x.pgt_id = t.pgt_id) AS d
    WHERE pgtrickle._is_at_home()
    ORDER BY t.pgt_id
$body$;

-- Housekeeping, by the maintenance role in a transaction of its own: buffer rows that every reader has consumed, stream tables whose relation
-- was dropped behind our back, captures of sources that are gone, old history. Returns how many buffer rows went.
CREATE OR REPLACE FUNCTION pgtrickle._purge() RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
#variable_conflict use_column
DECLARE
    st record;
    c record;
    upto xid8;
    n bigint;
    total bigint := 0;
BEGIN
    IF NOT pgtrickle._is_at_home() THEN
        RETURN 0;
    END IF;
    FOR st IN SELECT t.pgt_id FROM pgtrickle.pgt_stream_tables t WHERE NOT EXISTS (SELECT FROM pg_class r WHERE r.oid = t.pgt_relid) LOOP
        PERFORM pgtrickle._drop_immediate(st.pgt_id);
        PERFORM pgtrickle._call_unregister(st.pgt_id);
    END LOOP;
    FOR c IN SELECT p.source_relid FROM pgtrickle.pgt_captures p WHERE NOT EXISTS (SELECT FROM pg_class r WHERE r.oid = p.source_relid) LOOP
        UPDATE pgtrickle.pgt_dependencies d SET captured = false WHERE d.source_relid = c.source_relid;
        PERFORM pgtrickle._capture_release(c.source_relid);
    END LOOP;

    -- One that is not being refreshed holds what it will need, but not more than a full refresh would have to read.
    FOR c IN SELECT p.source_relid, pg_relation_size(b.buffer) AS held FROM pgtrickle.pgt_captures p, to_regclass(format('pgtrickle_changes.c_%s', p.source_relid)) AS b(buffer)
             WHERE pg_relation_size(b.buffer) > greatest(pg_relation_size(p.source_relid), 16777216) LOOP
        FOR st IN SELECT t.pgt_id FROM pgtrickle.pgt_stream_tables t JOIN pgtrickle.pgt_dependencies d USING (pgt_id)
                  WHERE d.source_relid = c.source_relid AND d.captured AND (t.status IN ('SUSPENDED', 'ERROR') OR t.refresh_tier = 'frozen') LOOP
            IF pg_try_advisory_xact_lock(hashtextextended('pgtrickle frontier', st.pgt_id)) THEN
                UPDATE pgtrickle.pgt_stream_tables t SET needs_reinit = true, frontier_snapshot = pg_current_snapshot(), frontier_xid = pg_current_xact_id(),
                    frontier_seq = nextval('pgtrickle.change_seq')
                WHERE t.pgt_id = st.pgt_id AND (t.status IN ('SUSPENDED', 'ERROR') OR t.refresh_tier = 'frozen');
            END IF;
        END LOOP;
    END LOOP;

    FOR c IN SELECT p.source_relid FROM pgtrickle.pgt_captures p ORDER BY p.source_relid LOOP
        -- Held by a transaction that is about to read from a snapshot that is in no committed row yet.
        IF to_regclass(format('pgtrickle_changes.c_%s', c.source_relid)) IS NULL
           OR NOT pg_try_advisory_xact_lock(hashtextextended('pgtrickle buffer', c.source_relid::bigint)) THEN
            CONTINUE;
        END IF;
        SELECT pg_snapshot_xmin(t.frontier_snapshot) INTO upto
        FROM pgtrickle.pgt_dependencies d JOIN pgtrickle.pgt_stream_tables t USING (pgt_id)
        WHERE d.source_relid = c.source_relid AND d.captured
        ORDER BY 1 LIMIT 1;
        IF upto IS NOT NULL THEN
            EXECUTE format('DELETE FROM pgtrickle_changes.c_%s WHERE __pgt_xid < $1', c.source_relid) USING upto;
            GET DIAGNOSTICS n = ROW_COUNT;
            total := total + n;
        END IF;
    END LOOP;

    DELETE FROM pgtrickle.pgt_requests r WHERE r.error IS NOT NULL AND r.created_at < now() - interval '7 days';
    DELETE FROM pgtrickle.pgt_refresh_history h
    WHERE h.start_time < now() - interval '7 days'
      AND h.refresh_id < (SELECT max(x.refresh_id) - 100 FROM pgtrickle.pgt_refresh_history x WHERE x.pgt_id = h.pgt_id);
    DELETE FROM pgtrickle.pgt_refresh_history h
    USING (SELECT x.pgt_id, min(x.refresh_id) AS keep FROM (
               SELECT y.pgt_id, y.refresh_id, row_number() OVER (PARTITION BY y.pgt_id ORDER BY y.refresh_id DESC) AS i FROM pgtrickle.pgt_refresh_history y) AS x
           WHERE x.i <= 2000 GROUP BY x.pgt_id) AS k
    WHERE h.pgt_id = k.pgt_id AND h.refresh_id < k.keep;
    RETURN total;
END
$body$;

-- The IMMEDIATE functions and tables of a stream table; their triggers go with the functions.
CREATE OR REPLACE FUNCTION pgtrickle._drop_immediate(pgt_id bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = warning AS $body$
#variable_conflict use_variable
DECLARE
    what text;
BEGIN
    FOR what IN SELECT p.oid::regprocedure::text FROM pg_proc p WHERE p.pronamespace = 'pgtrickle_changes'::regnamespace AND p.proname LIKE 'i\_' || pgt_id || '\_%' LOOP
        EXECUTE format('DROP FUNCTION %s CASCADE', what);
    END LOOP;
    FOR what IN SELECT r.oid::regclass::text FROM pg_class r WHERE r.relnamespace = 'pgtrickle_changes'::regnamespace AND r.relkind = 'r' AND (r.relname LIKE 'p\_' || pgt_id || '\_%' OR r.relname = 'l_' || pgt_id) LOOP
        EXECUTE format('DROP TABLE IF EXISTS %s CASCADE', what);
    END LOOP;
END
$body$;

REVOKE EXECUTE ON FUNCTION pgtrickle._refresh_failed(bigint, text, text, timestamptz), pgtrickle._mark_crashed(), pgtrickle._purge() FROM PUBLIC;
