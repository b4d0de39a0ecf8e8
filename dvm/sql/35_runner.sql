-- Runs what users wrote (definitions, with the functions in them; triggers on stream tables) so that it has the rights of the stream table's
-- owner and no way to others, whoever's session it is: mostly the maintenance role's, which may be a superuser.
--
-- SET ROLE does not do: what it calls may RESET ROLE. Each stream table has a runner instead, a SECURITY DEFINER function of its owner's, inside of
-- which the server refuses to change the role. Nobody but the maintenance role can name what is in pgtrickle_run, so owners can't alter theirs.
-- What a statement leaves behind for later (deferred triggers) runs inside too, and search_path is put back: see _seal for the rest.

SET LOCAL client_min_messages = warning;

CREATE SCHEMA IF NOT EXISTS pgtrickle_run;
REVOKE ALL ON SCHEMA pgtrickle_run FROM PUBLIC;

-- Makes the runner, or makes it anew when the stream table has another owner now.
CREATE OR REPLACE FUNCTION pgtrickle._ensure_runner(pgt_id bigint, owner name) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = warning AS $body$
DECLARE
    signature CONSTANT text := format('pgtrickle_run.x_%s(text, xid8, xid8[], xid8, bigint, timestamptz, boolean)', pgt_id);
    body CONSTANT text := $x$
BEGIN
    IF statement IS NOT NULL THEN
        EXECUTE statement INTO inserted, updated, deleted, delta_rows, snapshot USING xmax, xip, xid, seq, at;
    END IF;
    -- What ran may have set another path: commands without a name to look up.
    IF settle THEN
        SET CONSTRAINTS ALL IMMEDIATE;
        SET search_path = pg_catalog, pg_temp;
    ELSE
        SET LOCAL search_path = pg_catalog, pg_temp;
    END IF;
END
$x$;
    is_good boolean;
BEGIN
    SELECT p.prosecdef AND p.prosrc = body AND pg_get_userbyid(p.proowner) = owner AND p.proconfig = '{"search_path=pg_catalog, pg_temp",jit=off}' INTO is_good
    FROM pg_proc p WHERE p.oid = to_regprocedure(signature);
    IF is_good THEN
        RETURN;
    ELSIF NOT pg_has_role(current_user, owner, 'USAGE') THEN
        RAISE EXCEPTION 'pgtrickle''s role % may not act as %', quote_ident(current_user), quote_ident(owner)
            USING ERRCODE = 'insufficient_privilege', HINT = format('GRANT %I TO %I;', owner, current_user);
    END IF;
    -- Of two that change the schema's grants at once one would fail.
    PERFORM pg_advisory_xact_lock(hashtextextended('pgtrickle runner', 0));
    EXECUTE format('DROP FUNCTION IF EXISTS %s', signature);
    -- Our statements have hundreds of expressions that are evaluated for few rows: compiling them takes seconds.
    EXECUTE format('CREATE FUNCTION pgtrickle_run.x_%s(statement text, xmax xid8, xip xid8[], xid xid8, seq bigint, at timestamptz, settle boolean, '
        'OUT inserted bigint, OUT updated bigint, OUT deleted bigint, OUT delta_rows bigint, OUT snapshot pg_snapshot) '
        'LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS %L', pgt_id, body);
    EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', signature);
    IF owner <> current_user THEN
        -- Only a superuser gives to one who may not create there. Nobody sees the grant before it is gone again.
        IF NOT (SELECT r.rolsuper FROM pg_roles r WHERE r.rolname = current_user) THEN
            EXECUTE format('GRANT CREATE ON SCHEMA pgtrickle_run TO %I', owner);
        END IF;
        EXECUTE format('ALTER FUNCTION %s OWNER TO %I', signature, owner);
        IF NOT (SELECT r.rolsuper FROM pg_roles r WHERE r.rolname = current_user) THEN
            EXECUTE format('REVOKE CREATE ON SCHEMA pgtrickle_run FROM %I', owner);
        END IF;
    END IF;
END
$body$;

-- The statement with the fewest sources that has all those in the mask.
CREATE OR REPLACE FUNCTION pgtrickle._delta(deltas jsonb, mask text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT coalesce(deltas->>mask,
        (SELECT deltas->>k FROM jsonb_object_keys(deltas) AS k
         WHERE mask <> 'all' AND k <> 'all' AND CASE WHEN k <> 'all' AND mask <> 'all' THEN k::bigint & mask::bigint = mask::bigint END
         ORDER BY length(replace(k::bigint::bit(64)::text, '0', '')) LIMIT 1),
        deltas->>'all')
$body$;

-- Runs one of a stream table's statements and answers its refresh row. what: 'delta' (with mask), 'full', 'fill', 'empty', 'check', 'check_own'.
CREATE OR REPLACE FUNCTION pgtrickle._call_run(st pgtrickle.pgt_stream_tables, what text, mask text) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    owner name;
    statement text;
    r record;
    held text;
    page_cost CONSTANT float8 := current_setting('random_page_cost');
    held_before CONSTANT text[] := ARRAY(SELECT c.name || c.creation_time FROM pg_cursors c WHERE c.is_holdable);
BEGIN
    SELECT pg_get_userbyid(c.relowner) INTO owner FROM pg_class c WHERE c.oid = st.pgt_relid;
    statement := CASE what
        WHEN 'delta' THEN pgtrickle._delta(st.plan->'deltas', mask)
        WHEN 'full' THEN st.plan->>'full'
        WHEN 'fill' THEN st.plan->>'fill'
        WHEN 'check' THEN st.plan->>'check'
        WHEN 'check_own' THEN st.plan->>'check_own'
        WHEN 'empty' THEN format('WITH d AS (DELETE FROM %s RETURNING 1) SELECT 0, 0, count(*), count(*), pg_current_snapshot() FROM d', st.pgt_relid::regclass)
    END;
    IF statement IS NULL OR owner IS NULL THEN
        RAISE EXCEPTION 'stream table "%.%" has nothing to run for %', st.pgt_schema, st.pgt_name, quote_nullable(what) USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM pgtrickle._ensure_runner(st.pgt_id, owner);
    -- A delta looks up what its few rows join with, and what was just written is in memory.
    IF what = 'delta' AND page_cost > 1.1 THEN
        PERFORM set_config('random_page_cost', '1.1', true);
    END IF;
    -- In the owner's own session deferred triggers wait for COMMIT as ever: they run as the owner there.
    EXECUTE format('SELECT * FROM pgtrickle_run.x_%s($1, $2, $3, $4, $5, $6, $7)', st.pgt_id) INTO r
    USING statement, pg_snapshot_xmax(st.frontier_snapshot), ARRAY(SELECT pg_snapshot_xip(st.frontier_snapshot)), st.frontier_xid, st.frontier_seq,
        st.frontier_time, session_user <> owner;
    IF what = 'delta' AND page_cost > 1.1 THEN
        PERFORM set_config('random_page_cost', page_cost::text, true);
    END IF;
    -- They would be run at COMMIT.
    IF session_user <> owner THEN
        FOR held IN SELECT c.name FROM pg_cursors c WHERE c.is_holdable AND c.name || c.creation_time <> ALL (held_before) LOOP
            EXECUTE format('CLOSE %I', held);
        END LOOP;
    END IF;
    RETURN jsonb_build_object('inserted', r.inserted, 'updated', r.updated, 'deleted', r.deleted, 'delta_rows', r.delta_rows, 'snapshot', r.snapshot::text);
END
$body$;

-- The last thing before COMMIT in the maintenance role's transactions. A trigger may have deferred itself again; in what is a read-only transaction
-- from here on, for good, it can't queue another event: but for temporary tables, so these must have no triggers. The session then closes its
-- cursors (WITH HOLD ones would be run at COMMIT), and after COMMIT throws away what else may have been set.
CREATE OR REPLACE FUNCTION pgtrickle._seal() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    runner text;
BEGIN
    IF EXISTS (SELECT FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid WHERE c.relnamespace = pg_my_temp_schema()) THEN
        RAISE EXCEPTION 'a temporary table with triggers was made during a refresh' USING ERRCODE = 'feature_not_supported';
    END IF;
    PERFORM set_config('transaction_read_only', 'on', true);
    FOR runner IN SELECT p.oid::regproc::text FROM pgtrickle.pgt_stream_tables t
                  JOIN pg_proc p ON p.pronamespace = 'pgtrickle_run'::regnamespace AND p.proname = 'x_' || t.pgt_id
                  WHERE t.frontier_xid = pg_current_xact_id_if_assigned() LOOP
        EXECUTE format('SELECT %s(NULL, NULL, NULL, NULL, NULL, NULL, true)', runner);
    END LOOP;
END
$body$;

-- What the functions that clients call do at their end: the runner leaves its own path behind.
CREATE OR REPLACE FUNCTION pgtrickle._restore_path(path text) RETURNS void
LANGUAGE plpgsql AS $body$
BEGIN
    IF pg_catalog.current_setting('search_path') OPERATOR(pg_catalog.<>) path THEN
        PERFORM pg_catalog.set_config('search_path', path, false);
    END IF;
END
$body$;

CREATE OR REPLACE FUNCTION pgtrickle._drop_runner(pgt_id bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = warning AS $body$
BEGIN
    EXECUTE format('DROP FUNCTION IF EXISTS pgtrickle_run.x_%s(text, xid8, xid8[], xid8, bigint, timestamptz, boolean)', pgt_id);
END
$body$;

REVOKE EXECUTE ON FUNCTION pgtrickle._ensure_runner(bigint, name), pgtrickle._call_run(pgtrickle.pgt_stream_tables, text, text), pgtrickle._seal(),
    pgtrickle._drop_runner(bigint) FROM PUBLIC;
