-- Monitoring: pg_trickle's views and functions, with its columns. What has no counterpart here (slots, workers of an extension) answers with
-- what is true: nothing, or 'trigger'.

SET LOCAL client_min_messages = warning;

CREATE OR REPLACE FUNCTION pgtrickle.version() RETURNS text
LANGUAGE plpgsql STABLE AS $body$ BEGIN RETURN pgtrickle._version(); END $body$; -- which comes last, when all is installed

-- A scheduler of this database holds its advisory lock: see dvm_internal.h.
CREATE OR REPLACE FUNCTION pgtrickle._scheduler_is_running() RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT EXISTS (SELECT FROM pg_locks l WHERE l.locktype = 'advisory' AND l.granted AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                   AND l.classid = 1885828203 AND l.objid = 2 AND l.objsubid = 2)
$body$;

-- How old a stream table may get: its schedule by its tier; NULL for cron, calculated, frozen and IMMEDIATE.
CREATE OR REPLACE FUNCTION pgtrickle._allowed_age(st pgtrickle.pgt_stream_tables) RETURNS interval
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT CASE WHEN st.refresh_mode <> 'IMMEDIATE' AND st.refresh_tier <> 'frozen' THEN
        make_interval(secs => pgtrickle.parse_duration_seconds(st.schedule) * CASE st.refresh_tier WHEN 'warm' THEN 2 WHEN 'cold' THEN 10 ELSE 1 END) END
$body$;

CREATE OR REPLACE FUNCTION pgtrickle._staleness(st pgtrickle.pgt_stream_tables) RETURNS interval
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    -- An IMMEDIATE one is never behind.
    SELECT CASE WHEN st.refresh_mode = 'IMMEDIATE' AND st.is_populated AND NOT st.needs_reinit THEN interval '0' ELSE clock_timestamp() - st.last_refresh_at END
$body$;

-- Stale: older than its schedule allows, with one second and a tick's time for the refresh itself.
CREATE OR REPLACE FUNCTION pgtrickle._is_stale(st pgtrickle.pgt_stream_tables) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT CASE WHEN st.refresh_mode = 'IMMEDIATE' THEN st.needs_reinit
           ELSE pgtrickle._staleness(st) > pgtrickle._allowed_age(st) + interval '1 second' END
$body$;

CREATE OR REPLACE FUNCTION pgtrickle._stream_table_row(id bigint) RETURNS pgtrickle.pgt_stream_tables
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$ SELECT * FROM pgtrickle.pgt_stream_tables t WHERE t.pgt_id = id $body$;

CREATE OR REPLACE VIEW pgtrickle.stream_tables_info AS
SELECT t.*, pgtrickle._staleness(t) AS staleness, pgtrickle._is_stale(t) AS stale, t.topk_limit IS NOT NULL AS is_topk
FROM pgtrickle.pgt_stream_tables t;

CREATE OR REPLACE VIEW pgtrickle.pg_stat_stream_tables AS
SELECT t.pgt_id, t.pgt_schema, t.pgt_name, t.status, t.refresh_mode, t.is_populated, t.data_timestamp, t.schedule, pgtrickle._staleness(t) AS staleness,
    pgtrickle._is_stale(t) AS stale, t.consecutive_errors, t.needs_reinit, t.last_refresh_at, coalesce(h.total, 0) AS total_refreshes,
    coalesce(h.good, 0) AS successful_refreshes, coalesce(h.bad, 0) AS failed_refreshes, coalesce(h.ins, 0) AS total_rows_inserted,
    coalesce(h.del, 0) AS total_rows_deleted, h.ms AS avg_duration_ms, l.action AS last_action, l.status AS last_status,
    (SELECT array_agg(DISTINCT lower(d.cdc_mode)) FROM pgtrickle.pgt_dependencies d WHERE d.pgt_id = t.pgt_id AND d.captured) AS cdc_modes,
    t.scc_id, t.last_fixpoint_iterations, t.refresh_tier
FROM pgtrickle.pgt_stream_tables t
LEFT JOIN LATERAL (
    SELECT count(*) AS total, count(*) FILTER (WHERE r.status = 'COMPLETED') AS good, count(*) FILTER (WHERE r.status = 'FAILED') AS bad,
        sum(r.rows_inserted)::bigint AS ins, sum(r.rows_deleted)::bigint AS del, avg(r.duration_ms) FILTER (WHERE r.status = 'COMPLETED') AS ms
    FROM pgtrickle.pgt_refresh_history r WHERE r.pgt_id = t.pgt_id) AS h ON true
LEFT JOIN LATERAL (SELECT r.action, r.status FROM pgtrickle.pgt_refresh_history r WHERE r.pgt_id = t.pgt_id ORDER BY r.refresh_id DESC LIMIT 1) AS l ON true;

CREATE OR REPLACE VIEW pgtrickle.quick_health AS
SELECT q.total_stream_tables, q.error_tables, q.stale_tables, q.scheduler_running,
    CASE WHEN q.total_stream_tables = 0 THEN 'EMPTY' WHEN q.suspended > 0 THEN 'CRITICAL'
         WHEN q.error_tables > 0 OR q.stale_tables > 0 OR NOT q.scheduler_running THEN 'WARNING' ELSE 'OK' END AS status
FROM (SELECT count(*) AS total_stream_tables, count(*) FILTER (WHERE t.status IN ('ERROR', 'SUSPENDED') OR t.consecutive_errors > 0) AS error_tables,
          count(*) FILTER (WHERE pgtrickle._is_stale(t)) AS stale_tables, count(*) FILTER (WHERE t.status = 'SUSPENDED') AS suspended,
          pgtrickle._scheduler_is_running() AS scheduler_running
      FROM pgtrickle.pgt_stream_tables t) AS q;

CREATE OR REPLACE VIEW pgtrickle.pgt_cdc_status AS
SELECT c.source_relid, n.nspname::text AS source_schema, r.relname::text AS source_name, 'TRIGGER'::text AS cdc_mode,
    (SELECT array_agg(d.pgt_id ORDER BY d.pgt_id) FROM pgtrickle.pgt_dependencies d WHERE d.source_relid = c.source_relid AND d.captured) AS tracked_by_pgt_ids
FROM pgtrickle.pgt_captures c LEFT JOIN pg_catalog.pg_class r ON r.oid = c.source_relid LEFT JOIN pg_catalog.pg_namespace n ON n.oid = r.relnamespace;

GRANT SELECT ON pgtrickle.stream_tables_info, pgtrickle.pg_stat_stream_tables, pgtrickle.quick_health, pgtrickle.pgt_cdc_status TO PUBLIC;

CREATE OR REPLACE FUNCTION pgtrickle.pgt_status()
RETURNS TABLE (name text, status text, refresh_mode text, is_populated boolean, consecutive_errors integer, schedule text, data_timestamp timestamptz,
    staleness interval, scc_id integer)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT t.pgt_schema || '.' || t.pgt_name, t.status, t.refresh_mode, t.is_populated, t.consecutive_errors,
        CASE WHEN t.refresh_mode = 'IMMEDIATE' THEN 'IMMEDIATE' ELSE coalesce(t.schedule, 'calculated') END, t.data_timestamp, pgtrickle._staleness(t), t.scc_id
    FROM pgtrickle.pgt_stream_tables t ORDER BY 1
$body$;

CREATE OR REPLACE FUNCTION pgtrickle.st_refresh_stats()
RETURNS TABLE (pgt_name text, pgt_schema text, status text, refresh_mode text, is_populated boolean, total_refreshes bigint, successful_refreshes bigint,
    failed_refreshes bigint, total_rows_inserted bigint, total_rows_deleted bigint, avg_duration_ms float8, last_refresh_action text, last_refresh_status text,
    last_refresh_at timestamptz, staleness_secs float8, stale boolean, consecutive_errors integer, schedule text, refresh_tier text, last_error_message text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT v.pgt_name, v.pgt_schema, v.status, v.refresh_mode, v.is_populated, v.total_refreshes, v.successful_refreshes, v.failed_refreshes,
        v.total_rows_inserted, v.total_rows_deleted, v.avg_duration_ms, v.last_action, v.last_status, v.last_refresh_at,
        extract(epoch FROM v.staleness)::float8, v.stale, v.consecutive_errors, v.schedule, v.refresh_tier, t.last_error_message
    FROM pgtrickle.pg_stat_stream_tables v JOIN pgtrickle.pgt_stream_tables t USING (pgt_id) ORDER BY v.pgt_schema, v.pgt_name
$body$;

CREATE OR REPLACE FUNCTION pgtrickle._history(id bigint, max_rows integer)
RETURNS TABLE (refresh_id bigint, data_timestamp timestamptz, start_time timestamptz, end_time timestamptz, action text, status text, rows_inserted bigint,
    rows_deleted bigint, duration_ms float8, error_message text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT h.refresh_id, h.data_timestamp, h.start_time, h.end_time, h.action, h.status, h.rows_inserted, h.rows_deleted,
        coalesce(h.duration_ms, extract(epoch FROM h.end_time - h.start_time)::float8 * 1000), h.error_message
    FROM pgtrickle.pgt_refresh_history h WHERE h.pgt_id = id ORDER BY h.refresh_id DESC LIMIT max_rows
$body$;

-- The functions that take a name: the outer one sees the caller's search_path and finds the stream table.
CREATE OR REPLACE FUNCTION pgtrickle._id(name text, path name[]) RETURNS bigint
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$ SELECT (pgtrickle._get(name, path)).pgt_id $body$;

CREATE OR REPLACE FUNCTION pgtrickle.get_refresh_history(name text, max_rows integer DEFAULT 20)
RETURNS TABLE (refresh_id bigint, data_timestamp timestamptz, start_time timestamptz, end_time timestamptz, action text, status text, rows_inserted bigint,
    rows_deleted bigint, duration_ms float8, error_message text)
LANGUAGE sql STABLE AS $body$ SELECT * FROM pgtrickle._history(pgtrickle._id($1, pg_catalog.current_schemas(false)), $2) $body$;

CREATE OR REPLACE FUNCTION pgtrickle.refresh_timeline(max_rows integer DEFAULT 50)
RETURNS TABLE (start_time timestamptz, stream_table text, action text, status text, rows_inserted bigint, rows_deleted bigint, duration_ms float8, error_message text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT h.start_time, t.pgt_schema || '.' || t.pgt_name, h.action, h.status, h.rows_inserted, h.rows_deleted, h.duration_ms, h.error_message
    FROM pgtrickle.pgt_refresh_history h JOIN pgtrickle.pgt_stream_tables t USING (pgt_id) ORDER BY h.refresh_id DESC LIMIT max_rows
$body$;

CREATE OR REPLACE FUNCTION pgtrickle.get_staleness(name text) RETURNS double precision
LANGUAGE sql STABLE AS $body$
    SELECT pg_catalog.date_part('epoch', pgtrickle._staleness(pgtrickle._get($1, pg_catalog.current_schemas(false))))
$body$;

CREATE OR REPLACE FUNCTION pgtrickle.st_auto_threshold(name text) RETURNS double precision
LANGUAGE sql STABLE AS $body$ SELECT coalesce((pgtrickle._get($1, pg_catalog.current_schemas(false))).auto_threshold, 0.5) $body$;

CREATE OR REPLACE FUNCTION pgtrickle._explain_st(st pgtrickle.pgt_stream_tables) RETURNS TABLE (property text, value text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    RETURN QUERY VALUES ('pgt_name', st.pgt_schema || '.' || st.pgt_name), ('defining_query', st.original_query), ('refresh_mode', st.refresh_mode),
        ('requested_mode', st.requested_mode), ('strategy', st.strategy), ('downgrade_reason', st.downgrade_reason), ('status', st.status),
        ('is_populated', st.is_populated::text), ('dvm_supported', (st.plan ? 'deltas' AND st.plan->'deltas' <> '{}' OR st.refresh_mode = 'IMMEDIATE')::text),
        ('operator_tree', st.plan->>'explain'), ('output_columns', array_to_string(st.column_names, ', ')), ('hidden_columns', nullif(array_to_string(st.hidden_columns, ', '), '')),
        ('key_columns', nullif(array_to_string(st.key_columns, ', '), '')), ('time_dependent', st.time_dependent::text),
        ('source_oids', (SELECT string_agg(d.source_relid::text, ', ' ORDER BY d.source_relid) FROM pgtrickle.pgt_dependencies d WHERE d.pgt_id = st.pgt_id)),
        ('delta_query', st.plan->'deltas'->>'all'), ('canonical_query', st.canonical_query), ('frontier', st.frontier::text);
END
$body$;
CREATE OR REPLACE FUNCTION pgtrickle.explain_st(name text) RETURNS TABLE (property text, value text)
LANGUAGE sql STABLE AS $body$ SELECT * FROM pgtrickle._explain_st(pgtrickle._get($1, pg_catalog.current_schemas(false))) $body$;

CREATE OR REPLACE FUNCTION pgtrickle.explain_refresh_mode(name text) RETURNS TABLE (configured_mode text, effective_mode text, downgrade_reason text)
LANGUAGE plpgsql STABLE AS $body$
DECLARE
    st pgtrickle.pgt_stream_tables := pgtrickle._get(name, pg_catalog.current_schemas(false));
BEGIN
    RETURN QUERY SELECT st.requested_mode, coalesce(st.effective_refresh_mode, st.refresh_mode), coalesce(st.downgrade_reason,
        (SELECT h.reason FROM pgtrickle.pgt_refresh_history h WHERE h.pgt_id OPERATOR(pg_catalog.=) st.pgt_id ORDER BY h.refresh_id DESC LIMIT 1));
END
$body$;

-- Sources and stream tables from the roots down.
CREATE OR REPLACE FUNCTION pgtrickle.dependency_tree()
RETURNS TABLE (tree_line text, node text, node_type text, depth integer, status text, refresh_mode text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    roots bigint[];
BEGIN
    -- Roots read no other stream table; a stream table's children are those that read it, then the plain sources that it reads.
    SELECT array_agg(t.pgt_id ORDER BY t.pgt_schema, t.pgt_name) INTO roots FROM pgtrickle.pgt_stream_tables t
    WHERE NOT EXISTS (SELECT FROM pgtrickle.pgt_dependencies d JOIN pgtrickle.pgt_stream_tables u ON u.pgt_relid = d.source_relid WHERE d.pgt_id = t.pgt_id);
    FOR i IN 1 .. coalesce(cardinality(roots), 0) LOOP
        RETURN QUERY SELECT * FROM pgtrickle._tree_below(roots[i], 0,
            CASE WHEN cardinality(roots) = 1 THEN '' WHEN i = cardinality(roots) THEN '└── ' ELSE '├── ' END,
            CASE WHEN cardinality(roots) = 1 THEN '' WHEN i = cardinality(roots) THEN '    ' ELSE '│   ' END);
    END LOOP;
END
$body$;
CREATE OR REPLACE FUNCTION pgtrickle._tree_below(id bigint, level integer, head text, indent text)
RETURNS TABLE (tree_line text, node text, node_type text, depth integer, status text, refresh_mode text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    st pgtrickle.pgt_stream_tables;
    kid record;
    last boolean;
BEGIN
    SELECT * INTO st FROM pgtrickle.pgt_stream_tables t WHERE t.pgt_id = id;
    RETURN QUERY SELECT head || st.pgt_schema || '.' || st.pgt_name, st.pgt_schema || '.' || st.pgt_name, 'stream_table', level, st.status, st.refresh_mode;
    FOR kid IN
        SELECT k.*, row_number() OVER w = count(*) OVER () AS is_last FROM (
            SELECT 0 AS kind, t.pgt_id, t.pgt_schema || '.' || t.pgt_name AS label
            FROM pgtrickle.pgt_dependencies d JOIN pgtrickle.pgt_stream_tables t USING (pgt_id) WHERE d.source_relid = st.pgt_relid
            UNION ALL
            SELECT 1, NULL, coalesce(n.nspname || '.' || c.relname, d.source_relid::text)
            FROM pgtrickle.pgt_dependencies d LEFT JOIN pg_class c ON c.oid = d.source_relid LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE d.pgt_id = id AND NOT EXISTS (SELECT FROM pgtrickle.pgt_stream_tables u WHERE u.pgt_relid = d.source_relid)) AS k
        WINDOW w AS (ORDER BY k.kind, k.label) ORDER BY k.kind, k.label
    LOOP
        IF kid.kind = 0 THEN
            RETURN QUERY SELECT * FROM pgtrickle._tree_below(kid.pgt_id, level + 1, indent || CASE WHEN kid.is_last THEN '└── ' ELSE '├── ' END,
                                                             indent || CASE WHEN kid.is_last THEN '    ' ELSE '│   ' END);
        ELSE
            RETURN QUERY SELECT indent || CASE WHEN kid.is_last THEN '└── ' ELSE '├── ' END || kid.label || ' [src]', kid.label, 'source_table', level + 1,
                NULL::text, NULL::text;
        END IF;
    END LOOP;
END
$body$;

CREATE OR REPLACE FUNCTION pgtrickle._list_sources(id bigint)
RETURNS TABLE (source_table text, source_oid bigint, source_type text, cdc_mode text, columns_used text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT coalesce(n.nspname || '.' || c.relname, d.source_relid::text), d.source_relid::bigint, d.source_type, CASE WHEN d.captured THEN d.cdc_mode END,
        array_to_string(d.columns_used, ', ')
    FROM pgtrickle.pgt_dependencies d LEFT JOIN pg_class c ON c.oid = d.source_relid LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE d.pgt_id = id ORDER BY 1
$body$;
CREATE OR REPLACE FUNCTION pgtrickle.list_sources(name text)
RETURNS TABLE (source_table text, source_oid bigint, source_type text, cdc_mode text, columns_used text)
LANGUAGE sql STABLE AS $body$ SELECT * FROM pgtrickle._list_sources(pgtrickle._id($1, pg_catalog.current_schemas(false))) $body$;

CREATE OR REPLACE FUNCTION pgtrickle._list_auxiliary_columns(st pgtrickle.pgt_stream_tables) RETURNS TABLE (column_name text, data_type text, purpose text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT a.attname::text, format_type(a.atttypid, a.atttypmod),
        CASE WHEN a.attname = ANY (st.key_columns) THEN 'part of the key' WHEN a.attname ~ 'count|cnt|_n$|_c' THEN 'how many source rows make up the row' ELSE 'state for incremental maintenance' END
    FROM pg_attribute a WHERE a.attrelid = st.pgt_relid AND a.attnum > 0 AND NOT a.attisdropped AND a.attname LIKE '\_\_pgt\_%' ORDER BY a.attnum
$body$;
CREATE OR REPLACE FUNCTION pgtrickle.list_auxiliary_columns(name text) RETURNS TABLE (column_name text, data_type text, purpose text)
LANGUAGE sql STABLE AS $body$ SELECT * FROM pgtrickle._list_auxiliary_columns(pgtrickle._get($1, pg_catalog.current_schemas(false))) $body$;

-- New rows of one source for one reader, exactly; needs no right on the buffer itself, hence SECURITY DEFINER: a number gives nothing away.
CREATE OR REPLACE FUNCTION pgtrickle._pending_rows(id bigint, relid oid) RETURNS bigint
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    st pgtrickle.pgt_stream_tables;
    n bigint;
BEGIN
    SELECT * INTO st FROM pgtrickle.pgt_stream_tables t WHERE t.pgt_id = id;
    IF NOT FOUND OR to_regclass(format('pgtrickle_changes.c_%s', relid)) IS NULL
       OR NOT EXISTS (SELECT FROM pgtrickle.pgt_captures c WHERE c.source_relid = relid) THEN
        RETURN 0;
    END IF;
    EXECUTE format('SELECT count(*) FROM pgtrickle_changes.c_%s WHERE %s', relid, pgtrickle._is_new()) INTO n
    USING pg_snapshot_xmax(st.frontier_snapshot), ARRAY(SELECT pg_snapshot_xip(st.frontier_snapshot)), st.frontier_xid, st.frontier_seq;
    RETURN n;
END
$body$;
CREATE OR REPLACE FUNCTION pgtrickle._buffer_rows(relid oid) RETURNS bigint
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    n bigint := 0;
BEGIN
    IF to_regclass(format('pgtrickle_changes.c_%s', relid)) IS NOT NULL AND EXISTS (SELECT FROM pgtrickle.pgt_captures c WHERE c.source_relid = relid) THEN
        EXECUTE format('SELECT count(*) FROM pgtrickle_changes.c_%s', relid) INTO n;
    END IF;
    RETURN n;
END
$body$;

CREATE OR REPLACE FUNCTION pgtrickle.change_buffer_sizes()
RETURNS TABLE (stream_table text, source_table text, source_oid bigint, cdc_mode text, pending_rows bigint, buffer_bytes bigint)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT t.pgt_schema || '.' || t.pgt_name, coalesce(n.nspname || '.' || c.relname, d.source_relid::text), d.source_relid::bigint, lower(d.cdc_mode),
        pgtrickle._pending_rows(t.pgt_id, d.source_relid), pg_total_relation_size(to_regclass(format('pgtrickle_changes.c_%s', d.source_relid)))
    FROM pgtrickle.pgt_dependencies d JOIN pgtrickle.pgt_stream_tables t USING (pgt_id)
    LEFT JOIN pg_class c ON c.oid = d.source_relid LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE d.captured ORDER BY 1, 2
$body$;

CREATE OR REPLACE FUNCTION pgtrickle.shared_buffer_stats()
RETURNS TABLE (source_oid bigint, source_table text, consumer_count integer, consumers text, columns_tracked integer, safe_frontier_lsn text, buffer_rows bigint,
    is_partitioned boolean)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    -- What takes the place of an LSN here: rows of transactions before this one have been consumed by all.
    SELECT p.source_relid::bigint, coalesce(n.nspname || '.' || c.relname, p.source_relid::text), count(t.pgt_id)::integer,
        string_agg(t.pgt_schema || '.' || t.pgt_name, ', ' ORDER BY t.pgt_id), cardinality(p.attnums),
        (min(pg_snapshot_xmin(t.frontier_snapshot)::text::numeric))::text, pgtrickle._buffer_rows(p.source_relid), false
    FROM pgtrickle.pgt_captures p LEFT JOIN pgtrickle.pgt_dependencies d ON d.source_relid = p.source_relid AND d.captured
    LEFT JOIN pgtrickle.pgt_stream_tables t USING (pgt_id)
    LEFT JOIN pg_class c ON c.oid = p.source_relid LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
    GROUP BY p.source_relid, p.attnums, n.nspname, c.relname ORDER BY 2
$body$;

CREATE OR REPLACE FUNCTION pgtrickle.trigger_inventory()
RETURNS TABLE (source_table text, source_oid bigint, trigger_name text, trigger_type text, present boolean, enabled boolean)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT coalesce(n.nspname || '.' || c.relname, p.source_relid::text), p.source_relid::bigint, 'pgtrickle_capture_' || e.short,
        CASE e.short WHEN 'trunc' THEN 'TRUNCATE' ELSE 'DML' END, t.oid IS NOT NULL, coalesce(t.tgenabled IN ('O', 'A'), false)
    FROM pgtrickle.pgt_captures p CROSS JOIN unnest('{ins,upd,del,trunc}'::text[]) WITH ORDINALITY AS e(short, place)
    LEFT JOIN pg_class c ON c.oid = p.source_relid LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_trigger t ON t.tgrelid = p.source_relid AND t.tgname = 'pgtrickle_capture_' || e.short
    ORDER BY 1, e.place
$body$;

CREATE OR REPLACE FUNCTION pgtrickle.check_cdc_health()
RETURNS TABLE (source_relid bigint, source_table text, cdc_mode text, slot_name text, lag_bytes bigint, confirmed_lsn text, alert text, selective_capture boolean)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT p.source_relid::bigint, coalesce(n.nspname || '.' || c.relname, p.source_relid::text), 'TRIGGER', NULL::text, NULL::bigint, NULL::text,
        CASE WHEN c.oid IS NULL THEN 'source_missing'
             WHEN EXISTS (SELECT FROM pgtrickle.trigger_inventory() i WHERE i.source_oid = p.source_relid::bigint AND NOT i.present) THEN 'trigger_missing'
             WHEN EXISTS (SELECT FROM pgtrickle.trigger_inventory() i WHERE i.source_oid = p.source_relid::bigint AND NOT i.enabled) THEN 'trigger_disabled'
             WHEN pgtrickle._capture_is_stale(p.source_relid) THEN 'source_altered' END,
        cardinality(p.attnums) < (SELECT count(*) FROM pg_attribute a WHERE a.attrelid = p.source_relid AND a.attnum > 0 AND NOT a.attisdropped)
    FROM pgtrickle.pgt_captures p LEFT JOIN pg_class c ON c.oid = p.source_relid LEFT JOIN pg_namespace n ON n.oid = c.relnamespace ORDER BY 2
$body$;

CREATE OR REPLACE FUNCTION pgtrickle.slot_health()
RETURNS TABLE (slot_name text, source_relid bigint, active boolean, retained_wal_bytes bigint, wal_status text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT NULL::text, p.source_relid::bigint, NULL::boolean, NULL::bigint, 'trigger' FROM pgtrickle.pgt_captures p ORDER BY 2
$body$;

CREATE OR REPLACE FUNCTION pgtrickle.fuse_status()
RETURNS TABLE (stream_table text, fuse_mode text, fuse_state text, fuse_ceiling bigint, effective_ceiling bigint, fuse_sensitivity integer, blown_at timestamptz,
    blow_reason text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT t.pgt_schema || '.' || t.pgt_name, t.fuse_mode, t.fuse_state, t.fuse_ceiling, CASE WHEN t.fuse_mode <> 'off' THEN t.fuse_ceiling END, t.fuse_sensitivity,
        t.blown_at, t.blow_reason
    FROM pgtrickle.pgt_stream_tables t ORDER BY 1
$body$;

CREATE OR REPLACE FUNCTION pgtrickle.health_check() RETURNS TABLE (check_name text, severity text, detail text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    WITH names AS (
        SELECT t.pgt_schema || '.' || t.pgt_name AS name, t.status IN ('ERROR', 'SUSPENDED') AS failed, coalesce(pgtrickle._is_stale(t), false) AS stale,
            t.needs_reinit, t.consecutive_errors > 0 AS errors FROM pgtrickle.pgt_stream_tables t),
    c AS (
        SELECT 1 AS place, 'scheduler_running' AS check_name, 'ERROR' AS severity, CASE WHEN NOT pgtrickle._scheduler_is_running() THEN 'no scheduler is connected to this database' END AS bad
        UNION ALL SELECT 2, 'error_tables', 'ERROR', (SELECT string_agg(name, ', ' ORDER BY name) FROM names WHERE failed)
        UNION ALL SELECT 3, 'stale_tables', 'WARN', (SELECT string_agg(name, ', ' ORDER BY name) FROM names WHERE stale)
        UNION ALL SELECT 4, 'needs_reinit', 'WARN', (SELECT string_agg(name, ', ' ORDER BY name) FROM names WHERE needs_reinit)
        UNION ALL SELECT 5, 'consecutive_errors', 'WARN', (SELECT string_agg(name, ', ' ORDER BY name) FROM names WHERE errors)
        UNION ALL SELECT 6, 'buffer_growth', 'WARN', (SELECT string_agg(format('%s of %s for %s', b.pending_rows, b.source_table, b.stream_table), ', ' ORDER BY b.stream_table)
                                                      FROM pgtrickle.change_buffer_sizes() b WHERE b.pending_rows > 10000)
        UNION ALL SELECT 7, 'capture', 'ERROR', (SELECT string_agg(h.source_table || ': ' || h.alert, ', ' ORDER BY h.source_table) FROM pgtrickle.check_cdc_health() h WHERE h.alert IS NOT NULL)
        UNION ALL SELECT 8, 'requests', 'WARN', (SELECT string_agg(format('%s %s: %s', r.op, r.args->>'name', coalesce(r.error, 'waiting')), ', ' ORDER BY r.request_id) FROM pgtrickle.pgt_requests r)
        UNION ALL SELECT 9, 'checks', 'ERROR', (SELECT string_agg(format('%s.%s (%s rows missing, %s too many)', t.pgt_schema, t.pgt_name, k.missing, k.extra), ', ' ORDER BY t.pgt_schema, t.pgt_name)
                                                FROM pgtrickle.pgt_checks k JOIN pgtrickle.pgt_stream_tables t USING (pgt_id) WHERE k.verdict = 'MISMATCH')
        UNION ALL SELECT 10, 'held', 'WARN', (SELECT string_agg(format('%s.%s: %s', t.pgt_schema, t.pgt_name, h.why), ', ' ORDER BY t.pgt_schema, t.pgt_name)
                                              FROM pgtrickle._held() h JOIN pgtrickle.pgt_stream_tables t USING (pgt_id))
        UNION ALL SELECT 11, 'units', 'WARN', (SELECT string_agg(format('%s.%s keeps all of its group from being refreshed', t.pgt_schema, t.pgt_name), ', ' ORDER BY t.pgt_schema, t.pgt_name)
                                               FROM pgtrickle.pgt_units u JOIN pgtrickle.pgt_stream_tables t USING (pgt_id)
                                               WHERE t.status IN ('ERROR', 'SUSPENDED') OR t.refresh_tier = 'frozen' OR t.fuse_state = 'blown'))
    SELECT c.check_name, CASE WHEN c.bad IS NULL THEN 'OK' ELSE c.severity END, coalesce(c.bad, 'ok') FROM c ORDER BY c.place
$body$;

CREATE OR REPLACE FUNCTION pgtrickle._diagnose_errors(id bigint) RETURNS TABLE (event_time timestamptz, error_type text, error_message text, remediation text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT h.end_time, k.kind, h.error_message,
        CASE k.kind WHEN 'schema' THEN 'A source or the definition has changed: give the stream table a new query, or run pgtrickle.repair_stream_table().'
             WHEN 'infrastructure' THEN 'It is tried again by itself; after three failures in a row run pgtrickle.resume_stream_table().'
             WHEN 'performance' THEN 'It competed with other sessions: a longer schedule, or refreshes at quieter times, help.'
             WHEN 'correctness' THEN 'The contents were not as expected: run pgtrickle.repair_stream_table().'
             ELSE 'Correct the data or the definition, then run pgtrickle.resume_stream_table().' END
    FROM pgtrickle.pgt_refresh_history h
    CROSS JOIN LATERAL (SELECT CASE WHEN left(h.error_sqlstate, 2) IN ('42', '0A', '55', '2B') AND h.error_sqlstate <> '55P03' THEN 'schema' WHEN left(h.error_sqlstate, 2) = '40' OR h.error_sqlstate = '55P03' THEN 'performance'
        WHEN left(h.error_sqlstate, 2) IN ('08', '53', '57', '58') THEN 'infrastructure' WHEN left(h.error_sqlstate, 2) IN ('23', 'XX') THEN 'correctness' ELSE 'user' END AS kind) AS k
    WHERE h.pgt_id = id AND h.status = 'FAILED' ORDER BY h.refresh_id DESC LIMIT 5
$body$;
CREATE OR REPLACE FUNCTION pgtrickle.diagnose_errors(name text) RETURNS TABLE (event_time timestamptz, error_type text, error_message text, remediation text)
LANGUAGE sql STABLE AS $body$ SELECT * FROM pgtrickle._diagnose_errors(pgtrickle._id($1, pg_catalog.current_schemas(false))) $body$;

-- The units that hold an atomic diamond, each with all that is refreshed in its transaction. epoch: grows with each refresh of a member.
CREATE OR REPLACE FUNCTION pgtrickle.diamond_groups()
RETURNS TABLE (group_id integer, member_name text, member_schema text, is_convergence boolean, epoch bigint, schedule_policy text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET jit = off AS $body$
    WITH top AS MATERIALIZED (SELECT DISTINCT d.convergence FROM pgtrickle._diamonds() d JOIN pgtrickle.pgt_stream_tables t ON t.pgt_id = d.convergence
                              WHERE t.diamond_consistency = 'atomic')
    SELECT dense_rank() OVER (ORDER BY u.unit_id)::integer, t.pgt_name, t.pgt_schema, t.pgt_id IN (SELECT convergence FROM top),
        max(coalesce((SELECT max(h.refresh_id) FROM pgtrickle.pgt_refresh_history h WHERE h.pgt_id = u.pgt_id), 0)) OVER (PARTITION BY u.unit_id),
        CASE WHEN u.slowest THEN 'slowest' ELSE 'fastest' END
    FROM pgtrickle.pgt_units u JOIN pgtrickle.pgt_stream_tables t USING (pgt_id)
    WHERE u.unit_id IN (SELECT v.unit_id FROM pgtrickle.pgt_units v JOIN top ON top.convergence = v.pgt_id) ORDER BY 1, t.pgt_id
$body$;

-- ---- advice ------------------------------------------------------------------------------------------------------------------------------------

-- How many rows the sources have, as last counted by (auto)vacuum or analyze; by their size when never.
CREATE OR REPLACE FUNCTION pgtrickle._source_rows(id bigint) RETURNS float8
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT sum(CASE WHEN c.reltuples >= 0 THEN c.reltuples ELSE pg_relation_size(c.oid) / 100 END)::float8
    FROM pgtrickle.pgt_dependencies d JOIN pg_class c ON c.oid = d.source_relid WHERE d.pgt_id = id AND c.relkind IN ('r', 'p', 'm')
$body$;

CREATE OR REPLACE FUNCTION pgtrickle.refresh_efficiency()
RETURNS TABLE (pgt_schema text, pgt_name text, refresh_mode text, total_refreshes bigint, diff_count bigint, full_count bigint, avg_diff_ms float8,
    avg_full_ms float8, avg_change_ratio float8, diff_speedup text, last_refresh_at text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT t.pgt_schema, t.pgt_name, t.refresh_mode, h.total, h.diffs, h.fulls, h.diff_ms, h.full_ms, h.ratio,
        CASE WHEN h.diff_ms > 0 AND h.full_ms IS NOT NULL THEN round((h.full_ms / h.diff_ms)::numeric, 1) || 'x' END, t.last_refresh_at::text
    FROM pgtrickle.pgt_stream_tables t
    CROSS JOIN LATERAL (
        SELECT count(*) AS total, count(*) FILTER (WHERE r.action = 'DIFFERENTIAL') AS diffs, count(*) FILTER (WHERE r.action <> 'DIFFERENTIAL') AS fulls,
            avg(r.duration_ms) FILTER (WHERE r.action = 'DIFFERENTIAL') AS diff_ms, avg(r.duration_ms) FILTER (WHERE r.action <> 'DIFFERENTIAL') AS full_ms,
            avg(r.delta_row_count) FILTER (WHERE r.action = 'DIFFERENTIAL') / nullif(pgtrickle._source_rows(t.pgt_id), 0) AS ratio
        FROM (SELECT * FROM pgtrickle.pgt_refresh_history x WHERE x.pgt_id = t.pgt_id AND x.status = 'COMPLETED' AND x.action IN ('DIFFERENTIAL', 'FULL', 'REINITIALIZE')
              ORDER BY x.refresh_id DESC LIMIT 100) AS r) AS h
    ORDER BY 1, 2
$body$;

CREATE OR REPLACE FUNCTION pgtrickle._ratio_score(ratio float8) RETURNS float8
LANGUAGE sql IMMUTABLE AS $body$
    SELECT CASE WHEN ratio OPERATOR(pg_catalog.<) 0.05 THEN 1 WHEN ratio OPERATOR(pg_catalog.<) 0.15 THEN 0.5 WHEN ratio OPERATOR(pg_catalog.<) 0.30 THEN -0.3
                WHEN ratio OPERATOR(pg_catalog.<) 0.50 THEN -0.7 WHEN ratio IS NOT NULL THEN -1 END::float8
$body$;

CREATE OR REPLACE FUNCTION pgtrickle._recommend(only_id bigint)
RETURNS TABLE (pgt_schema text, pgt_name text, current_mode text, effective_mode text, recommended_mode text, confidence text, reason text, signals jsonb)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    WITH measured AS (
        SELECT t.pgt_id, t.pgt_schema, t.pgt_name, t.requested_mode, t.refresh_mode, t.effective_refresh_mode, t.plan ? 'deltas' AND t.plan->'deltas' <> '{}' AS maintainable,
            t.downgrade_reason, h.*, pgtrickle._source_rows(t.pgt_id) AS source_rows,
            (SELECT sum(pgtrickle._pending_rows(t.pgt_id, d.source_relid)) FROM pgtrickle.pgt_dependencies d WHERE d.pgt_id = t.pgt_id AND d.captured)::float8 AS pending,
            pg_total_relation_size(t.pgt_relid)::float8 AS bytes,
            greatest((SELECT count(*) FROM pgtrickle.pgt_dependencies d WHERE d.pgt_id = t.pgt_id AND d.source_type <> 'VIEW') - 1, 0)
                + (SELECT count(*) FROM regexp_matches(t.canonical_query, '\m(group by|over \(|select distinct)|\(\s*select\M', 'gi')) AS complexity,
            EXISTS (SELECT FROM pg_index i WHERE i.indrelid = t.pgt_relid AND i.indisunique) AS keyed
        FROM pgtrickle.pgt_stream_tables t
        CROSS JOIN LATERAL (
            SELECT count(*) AS total, count(*) FILTER (WHERE r.action = 'DIFFERENTIAL') AS diffs, count(*) FILTER (WHERE r.action <> 'DIFFERENTIAL') AS fulls,
                avg(r.duration_ms) FILTER (WHERE r.action = 'DIFFERENTIAL') AS diff_ms, avg(r.duration_ms) FILTER (WHERE r.action <> 'DIFFERENTIAL') AS full_ms,
                avg(r.delta_row_count) FILTER (WHERE r.action = 'DIFFERENTIAL')::float8 AS avg_delta,
                percentile_cont(0.95) WITHIN GROUP (ORDER BY r.duration_ms) FILTER (WHERE r.action = 'DIFFERENTIAL') AS p95,
                percentile_cont(0.5) WITHIN GROUP (ORDER BY r.duration_ms) FILTER (WHERE r.action = 'DIFFERENTIAL') AS p50
            FROM (SELECT * FROM pgtrickle.pgt_refresh_history x WHERE x.pgt_id = t.pgt_id AND x.status = 'COMPLETED' AND x.action IN ('DIFFERENTIAL', 'FULL', 'REINITIALIZE')
                  ORDER BY x.refresh_id DESC LIMIT 100) AS r) AS h
        WHERE only_id IS NULL OR t.pgt_id = only_id),
    signal AS (
        SELECT m.pgt_id, s.name, s.label, s.value, s.score, s.weight
        FROM measured m CROSS JOIN LATERAL (VALUES
            ('change_ratio_current', 'pending changes are %s of the source rows', m.pending / nullif(m.source_rows, 0), pgtrickle._ratio_score(m.pending / nullif(m.source_rows, 0)), 0.25::float8),
            ('change_ratio_history', 'changes per refresh were %s of the source rows', m.avg_delta / nullif(m.source_rows, 0), pgtrickle._ratio_score(m.avg_delta / nullif(m.source_rows, 0)),
                CASE WHEN m.total < 10 THEN 0.10 ELSE 0.30 END),
            ('diff_over_full', 'a differential refresh takes %s of the time of a full one', CASE WHEN m.diffs >= 5 AND m.fulls >= 5 THEN m.diff_ms / nullif(m.full_ms, 0) END,
                CASE WHEN m.diffs >= 5 AND m.fulls >= 5 AND m.full_ms > 0 THEN CASE WHEN m.diff_ms / m.full_ms < 0.3 THEN 1 WHEN m.diff_ms / m.full_ms < 0.7 THEN 0.5
                     WHEN m.diff_ms / m.full_ms < 1 THEN 0.2 WHEN m.diff_ms / m.full_ms < 1.5 THEN -0.5 ELSE -1 END END, 0.35),
            ('query_complexity', 'the query has %s joins, aggregates, subqueries and windows', m.complexity::float8,
                CASE WHEN m.complexity = 0 THEN 0.3 WHEN m.complexity <= 2 THEN 0.1 WHEN m.complexity <= 4 THEN -0.2 ELSE -0.5 END, 0.10),
            ('target_size', 'the stream table has %s bytes', m.bytes, CASE WHEN m.bytes < 1048576 THEN -0.3 WHEN m.bytes < 104857600 THEN 0.1 WHEN m.bytes < 1073741824 THEN 0.5 ELSE 0.8 END, 0.10),
            ('key_index', 'rows are found by a unique index: %s', m.keyed::integer::float8, CASE WHEN m.keyed THEN 0.2 ELSE -0.2 END, 0.05),
            ('latency_spread', 'the 95th percentile of differential refreshes is %s of the median', CASE WHEN m.diffs >= 20 THEN m.p95 / nullif(m.p50, 0) END,
                CASE WHEN m.diffs >= 20 AND m.p50 > 0 THEN CASE WHEN m.p95 / m.p50 < 2 THEN 0.2 WHEN m.p95 / m.p50 < 5 THEN 0 ELSE -0.3 END END, 0.05)
        ) AS s(name, label, value, score, weight)),
    composite AS (
        SELECT s.pgt_id, sum(s.score * s.weight) / nullif(sum(s.weight) FILTER (WHERE s.score IS NOT NULL), 0) AS total,
            sum(s.weight) FILTER (WHERE s.score IS NOT NULL) / sum(s.weight) AS known, coalesce(bool_or(s.weight >= 0.25 AND abs(s.score) >= 0.8), false) AS strong,
            jsonb_object_agg(s.name, jsonb_build_object('value', s.value, 'score', s.score, 'weight', s.weight)) AS signals,
            (SELECT string_agg(x.words, '; ' ORDER BY x.importance DESC) FROM (
                SELECT format(y.label, round(y.value::numeric, CASE WHEN y.value >= 10 THEN 0 ELSE 3 END)) AS words, abs(y.score * y.weight) AS importance FROM signal y
                WHERE y.pgt_id = s.pgt_id AND y.score IS NOT NULL ORDER BY 2 DESC LIMIT 2) AS x) AS reason
        FROM signal s GROUP BY s.pgt_id)
    SELECT m.pgt_schema, m.pgt_name, m.refresh_mode, coalesce(m.effective_refresh_mode, m.refresh_mode), a.advice,
        CASE WHEN c.known >= 0.8 THEN 'high' WHEN c.known >= 0.5 OR c.strong THEN 'medium' ELSE 'low' END,
        CASE WHEN m.refresh_mode = 'IMMEDIATE' THEN 'it is maintained by each writing statement'
             WHEN a.advice = 'KEEP' AND m.refresh_mode = 'FULL' AND NOT coalesce(m.maintainable, false) THEN 'it cannot be maintained incrementally' || coalesce(': ' || m.downgrade_reason, '')
             ELSE c.reason END,
        c.signals || jsonb_build_object('composite', c.total)
    FROM measured m JOIN composite c USING (pgt_id)
    CROSS JOIN LATERAL (SELECT CASE
        WHEN m.refresh_mode = 'IMMEDIATE' OR m.refresh_mode = 'FULL' AND m.requested_mode = 'AUTO' THEN 'KEEP'
        WHEN c.total > 0.15 AND m.refresh_mode <> 'DIFFERENTIAL' THEN 'DIFFERENTIAL'
        WHEN c.total < -0.15 AND m.refresh_mode <> 'FULL' THEN 'FULL' ELSE 'KEEP' END AS advice) AS a
    ORDER BY 1, 2
$body$;
CREATE OR REPLACE FUNCTION pgtrickle.recommend_refresh_mode(st_name text DEFAULT NULL)
RETURNS TABLE (pgt_schema text, pgt_name text, current_mode text, effective_mode text, recommended_mode text, confidence text, reason text, signals jsonb)
LANGUAGE sql STABLE AS $body$
    SELECT * FROM pgtrickle._recommend(CASE WHEN $1 IS NOT NULL THEN pgtrickle._id($1, pg_catalog.current_schemas(false)) END)
$body$;

-- ---- export ------------------------------------------------------------------------------------------------------------------------------------

-- Statements that make the stream table anew, wherever they are run: under the search_path that gives its query its meaning.
-- original_query, for what the user wrote is what he wants back.
CREATE OR REPLACE FUNCTION pgtrickle._export(st pgtrickle.pgt_stream_tables) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    tag text := 'pgt';
    name text := format('%I.%I', st.pgt_schema, st.pgt_name);
    args text;
    query text := st.original_query;
BEGIN
    IF st.column_list IS NOT NULL THEN
        query := format(E'SELECT * FROM (\n%s\n) AS q(%s)', regexp_replace(query, '[\s;]+$', ''),
                        (SELECT string_agg(quote_ident(c), ', ' ORDER BY i) FROM unnest(st.column_list) WITH ORDINALITY AS l(c, i)));
    END IF;
    -- A dollar tag that the query does not hold.
    WHILE position('$' || tag IN query) > 0 LOOP
        tag := tag || '_';
    END LOOP;
    SELECT string_agg(format(E',\n    %s => %s', p.k, p.v), '') INTO args FROM (VALUES
        ('schedule', quote_literal(CASE WHEN st.refresh_mode = 'IMMEDIATE' THEN 'IMMEDIATE' ELSE coalesce(st.schedule, 'calculated') END)),
        ('refresh_mode', quote_literal(st.requested_mode)),
        ('diamond_consistency', CASE WHEN st.diamond_consistency <> 'atomic' THEN quote_literal(st.diamond_consistency) END),
        ('diamond_schedule_policy', CASE WHEN st.diamond_schedule_policy <> 'fastest' THEN quote_literal(st.diamond_schedule_policy) END),
        ('cdc_mode', quote_literal(st.requested_cdc_mode)),
        ('append_only', CASE WHEN st.is_append_only THEN 'true' END),
        ('pooler_compatibility_mode', CASE WHEN st.pooler_compatibility_mode THEN 'true' END),
        ('max_differential_joins', st.max_differential_joins::text),
        ('max_delta_fraction', st.max_delta_fraction::text)) AS p(k, v) WHERE p.v IS NOT NULL;
    -- The path is set in the statement itself, for its transaction only.
    RETURN format(E'SELECT pgtrickle.create_stream_table(\n    %1$L,\n    $%2$s$%3$s$%2$s$%4$s)\n'
                  'FROM (SELECT pg_catalog.set_config(''search_path'', %5$L, true) OFFSET 0) AS path;\n', name, tag, query, args, st.caller_search_path)
        || CASE WHEN st.refresh_tier <> 'hot' THEN format(E'SELECT pgtrickle.alter_stream_table(%L, tier => %L);\n', name, st.refresh_tier) ELSE '' END
        || CASE WHEN st.fuse_mode <> 'off' THEN format(E'SELECT pgtrickle.alter_stream_table(%L, fuse => %L%s%s);\n', name, st.fuse_mode,
               ', fuse_ceiling => ' || st.fuse_ceiling, ', fuse_sensitivity => ' || st.fuse_sensitivity) ELSE '' END
        || CASE WHEN st.status = 'SUSPENDED' AND st.last_error_message IS NULL THEN format(E'SELECT pgtrickle.alter_stream_table(%L, status => ''SUSPENDED'');\n', name) ELSE '' END;
END
$body$;
CREATE OR REPLACE FUNCTION pgtrickle.export_definition(st_name text) RETURNS text
LANGUAGE sql STABLE AS $body$ SELECT pgtrickle._export(pgtrickle._get($1, pg_catalog.current_schemas(false))) $body$;
