-- What the policies keep: checks, gates, watermarks, groups; and what is told to whoever LISTENs.
--
-- Tables of their own, for views over pgt_stream_tables show all of its columns.

SET LOCAL client_min_messages = warning;

-- The last comparison with the query, and how often one is made in the background (NULL: never).
CREATE TABLE IF NOT EXISTS pgtrickle.pgt_checks (
    pgt_id bigint PRIMARY KEY REFERENCES pgtrickle.pgt_stream_tables ON DELETE CASCADE,
    check_interval interval,
    checked_at timestamptz,
    verdict text CHECK (verdict IN ('EQUAL', 'MISMATCH', 'BEHIND', 'UNPOPULATED')),
    missing bigint,
    extra bigint,
    detail text,
    duration_ms double precision
);

CREATE TABLE IF NOT EXISTS pgtrickle.pgt_source_gates (
    source_relid oid PRIMARY KEY,
    gated boolean NOT NULL,
    gated_at timestamptz,
    ungated_at timestamptz,
    gated_by text
);

CREATE TABLE IF NOT EXISTS pgtrickle.pgt_watermarks (
    source_relid oid PRIMARY KEY,
    watermark timestamptz NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    advanced_by text NOT NULL,
    wal_lsn pg_lsn
);
CREATE TABLE IF NOT EXISTS pgtrickle.pgt_watermark_groups (
    group_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    group_name text NOT NULL UNIQUE,
    source_relids oid[] NOT NULL,
    tolerance_secs double precision NOT NULL DEFAULT 0 CHECK (tolerance_secs >= 0),
    created_by name NOT NULL,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now()
);

CREATE TABLE IF NOT EXISTS pgtrickle.pgt_refresh_groups (
    group_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    group_name text NOT NULL UNIQUE,
    isolation text NOT NULL CHECK (isolation IN ('read_committed', 'repeatable_read')),
    created_by name NOT NULL,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now()
);
CREATE TABLE IF NOT EXISTS pgtrickle.pgt_refresh_group_members (
    pgt_id bigint PRIMARY KEY REFERENCES pgtrickle.pgt_stream_tables ON DELETE CASCADE,
    group_id integer NOT NULL REFERENCES pgtrickle.pgt_refresh_groups ON DELETE CASCADE
);

-- What is refreshed in one transaction, all or nothing: diamonds and groups, united where they share a member. Written by _regroup.
CREATE TABLE IF NOT EXISTS pgtrickle.pgt_units (
    pgt_id bigint PRIMARY KEY REFERENCES pgtrickle.pgt_stream_tables ON DELETE CASCADE,
    unit_id bigint NOT NULL,
    slowest boolean NOT NULL
);

GRANT SELECT ON pgtrickle.pgt_checks, pgtrickle.pgt_source_gates, pgtrickle.pgt_watermarks, pgtrickle.pgt_watermark_groups, pgtrickle.pgt_refresh_groups,
    pgtrickle.pgt_refresh_group_members, pgtrickle.pgt_units TO PUBLIC;

-- ---- alerts ------------------------------------------------------------------------------------------------------------------------------------

-- NOTIFY pg_trickle_alert, '{"event": …, "pgt_schema": …, "pgt_name": …, "st": …}'. One of pooler_compatibility_mode says nothing.
CREATE OR REPLACE FUNCTION pgtrickle._alert(event text, st pgtrickle.pgt_stream_tables, more jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    IF NOT st.pooler_compatibility_mode THEN
        -- NOTIFY takes less than 8000 bytes; texts that are cut are no JSON any more, so the long parts go first.
        PERFORM pg_notify('pg_trickle_alert', CASE WHEN octet_length(j.whole::text) < 7900 THEN j.whole ELSE j.head END::text)
        FROM (SELECT h.head, h.head || more AS whole
              FROM (SELECT jsonb_build_object('event', event, 'pgt_schema', st.pgt_schema, 'pgt_name', st.pgt_name, 'st', st.pgt_schema || '.' || st.pgt_name) AS head) AS h) AS j;
    END IF;
END
$body$;

CREATE OR REPLACE FUNCTION pgtrickle._alert_of_state() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    IF NEW.status = 'SUSPENDED' AND OLD.status <> 'SUSPENDED' AND NEW.consecutive_errors > 0 THEN
        PERFORM pgtrickle._alert('auto_suspended', NEW, jsonb_build_object('error', left(NEW.last_error_message, 2000), 'consecutive_errors', NEW.consecutive_errors));
    ELSIF NEW.status = 'ACTIVE' AND OLD.status IN ('SUSPENDED', 'ERROR') THEN
        PERFORM pgtrickle._alert('resumed', NEW, '{}');
    END IF;
    IF NEW.needs_reinit AND NOT OLD.needs_reinit THEN
        PERFORM pgtrickle._alert('reinitialize_needed', NEW, '{}');
    END IF;
    IF NEW.fuse_state = 'blown' AND OLD.fuse_state <> 'blown' THEN
        PERFORM pgtrickle._alert('fuse_blown', NEW, jsonb_build_object('stream_table', NEW.pgt_schema || '.' || NEW.pgt_name, 'reason', NEW.blow_reason, 'ceiling', NEW.fuse_ceiling));
    END IF;
    RETURN NULL;
END
$body$;
CREATE OR REPLACE TRIGGER alert AFTER UPDATE ON pgtrickle.pgt_stream_tables FOR EACH ROW
    WHEN (OLD.status IS DISTINCT FROM NEW.status OR OLD.fuse_state IS DISTINCT FROM NEW.fuse_state OR NEW.needs_reinit AND NOT OLD.needs_reinit)
    EXECUTE FUNCTION pgtrickle._alert_of_state();

CREATE OR REPLACE FUNCTION pgtrickle._alert_of_refresh() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    st pgtrickle.pgt_stream_tables;
BEGIN
    SELECT * INTO st FROM pgtrickle.pgt_stream_tables t WHERE t.pgt_id = NEW.pgt_id;
    IF NEW.status = 'COMPLETED' THEN
        PERFORM pgtrickle._alert('refresh_completed', st, jsonb_build_object('action', NEW.action, 'rows_inserted', NEW.rows_inserted, 'rows_updated', NEW.rows_updated,
            'rows_deleted', NEW.rows_deleted, 'duration_ms', NEW.duration_ms));
        IF NEW.action <> 'DIFFERENTIAL' AND NOT st.pooler_compatibility_mode THEN
            PERFORM pg_notify('pgtrickle_refresh', jsonb_build_object('st', st.pgt_schema || '.' || st.pgt_name, 'action', NEW.action)::text);
        END IF;
    ELSE
        PERFORM pgtrickle._alert('refresh_failed', st, jsonb_build_object('action', NEW.action, 'error', left(NEW.error_message, 2000), 'sqlstate', NEW.error_sqlstate));
    END IF;
    RETURN NULL;
END
$body$;
-- Only when something was written: who waits for rows to come wants no more.
CREATE OR REPLACE TRIGGER alert AFTER INSERT ON pgtrickle.pgt_refresh_history FOR EACH ROW
    WHEN (NEW.status = 'FAILED' OR NEW.status = 'COMPLETED' AND (NEW.rows_inserted > 0 OR NEW.rows_updated > 0 OR NEW.rows_deleted > 0))
    EXECUTE FUNCTION pgtrickle._alert_of_refresh();

CREATE OR REPLACE FUNCTION pgtrickle._alert_of_check() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    PERFORM pgtrickle._alert('check_mismatch', t, jsonb_build_object('missing', NEW.missing, 'extra', NEW.extra))
    FROM pgtrickle.pgt_stream_tables t WHERE t.pgt_id = NEW.pgt_id;
    RETURN NULL;
END
$body$;
CREATE OR REPLACE TRIGGER alert AFTER INSERT OR UPDATE ON pgtrickle.pgt_checks FOR EACH ROW
    WHEN (NEW.verdict = 'MISMATCH') EXECUTE FUNCTION pgtrickle._alert_of_check();

REVOKE EXECUTE ON FUNCTION pgtrickle._alert(text, pgtrickle.pgt_stream_tables, jsonb), pgtrickle._alert_of_state(), pgtrickle._alert_of_refresh(),
    pgtrickle._alert_of_check() FROM PUBLIC;
