-- The schemas and tables of the SQL side. Re-runnable; what a later version adds comes as ALTER TABLE ... ADD COLUMN IF NOT EXISTS below
-- the table that it belongs to.
--
-- Owned by the maintenance role. Clients may read the catalog, never write it: see 30_call.sql for the one door.

SET LOCAL client_min_messages = warning;

-- Who owns a schema can replace what is in it: one that another made before us is none of ours. A superuser's may be an earlier maintenance role's.
DO $body$
DECLARE
    n record;
BEGIN
    FOR n IN SELECT s.nspname, r.rolname FROM pg_catalog.pg_namespace s JOIN pg_catalog.pg_roles r ON r.oid = s.nspowner
             WHERE s.nspname IN ('pgtrickle', 'pgtrickle_changes', 'pgtrickle_run') AND r.rolname <> current_user AND NOT r.rolsuper LOOP
        RAISE EXCEPTION 'schema "%" belongs to role "%"', n.nspname, n.rolname
            USING ERRCODE = 'insufficient_privilege', HINT = 'Drop it, or let pgtrickle log in as that role (dvm_user in its configuration).';
    END LOOP;
END
$body$;

CREATE SCHEMA IF NOT EXISTS pgtrickle;
CREATE SCHEMA IF NOT EXISTS pgtrickle_changes;
GRANT USAGE ON SCHEMA pgtrickle, pgtrickle_changes TO PUBLIC;

CREATE SEQUENCE IF NOT EXISTS pgtrickle.pgt_id_seq;
-- Orders what one transaction does: one number a writing statement, one a refresh. Never cached: a session must see its own order.
CREATE SEQUENCE IF NOT EXISTS pgtrickle.change_seq;
GRANT USAGE ON SEQUENCE pgtrickle.pgt_id_seq, pgtrickle.change_seq TO PUBLIC;

CREATE TABLE IF NOT EXISTS pgtrickle.pgt_stream_tables (
    pgt_id bigint PRIMARY KEY DEFAULT pg_catalog.nextval('pgtrickle.pgt_id_seq'),
    pgt_relid oid NOT NULL UNIQUE,
    pgt_name text NOT NULL,
    pgt_schema text NOT NULL,
    defining_query text NOT NULL,
    original_query text NOT NULL,
    schedule text,                              -- NULL: calculated, or IMMEDIATE
    refresh_mode text NOT NULL CHECK (refresh_mode IN ('FULL', 'DIFFERENTIAL', 'IMMEDIATE')),
    status text NOT NULL DEFAULT 'INITIALIZING' CHECK (status IN ('INITIALIZING', 'ACTIVE', 'SUSPENDED', 'ERROR')),
    is_populated boolean NOT NULL DEFAULT false,
    data_timestamp timestamptz,
    frontier jsonb,
    last_refresh_at timestamptz,
    consecutive_errors integer NOT NULL DEFAULT 0,
    needs_reinit boolean NOT NULL DEFAULT false,
    auto_threshold double precision,
    last_full_ms double precision,
    functions_used text[],
    topk_limit integer,
    topk_order_by text,
    topk_offset integer,
    diamond_consistency text NOT NULL DEFAULT 'atomic' CHECK (diamond_consistency IN ('none', 'atomic')),
    diamond_schedule_policy text NOT NULL DEFAULT 'fastest' CHECK (diamond_schedule_policy IN ('fastest', 'slowest')),
    has_keyless_source boolean NOT NULL DEFAULT false,
    function_hashes text,
    requested_cdc_mode text CHECK (requested_cdc_mode IN ('auto', 'trigger', 'wal')),
    is_append_only boolean NOT NULL DEFAULT false,
    scc_id integer,
    last_fixpoint_iterations integer,
    max_differential_joins integer,
    max_delta_fraction double precision,
    pooler_compatibility_mode boolean NOT NULL DEFAULT false,
    refresh_tier text NOT NULL DEFAULT 'hot' CHECK (refresh_tier IN ('hot', 'warm', 'cold', 'frozen')),
    effective_refresh_mode text,
    fuse_mode text NOT NULL DEFAULT 'off' CHECK (fuse_mode IN ('off', 'on', 'auto')),
    fuse_state text NOT NULL DEFAULT 'armed' CHECK (fuse_state IN ('armed', 'blown', 'disabled')),
    fuse_ceiling bigint,
    fuse_sensitivity integer,
    blown_at timestamptz,
    blow_reason text,
    last_error_message text,
    last_error_at timestamptz,
    st_partition_key text,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    updated_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    -- from here on ours
    plan jsonb NOT NULL,
    strategy text,
    canonical_query text NOT NULL,
    settings jsonb NOT NULL DEFAULT '{}',       -- what the creating session had pinned
    caller_search_path text,
    frontier_snapshot pg_snapshot NOT NULL,     -- of an unpopulated one: only holds the buffers
    frontier_xid xid8 NOT NULL,
    frontier_seq bigint NOT NULL,
    frontier_time timestamptz NOT NULL,
    time_dependent boolean NOT NULL DEFAULT false,
    key_columns text[] NOT NULL DEFAULT '{}',
    hidden_columns text[] NOT NULL DEFAULT '{}',
    downgrade_reason text,
    requested_mode text NOT NULL CHECK (requested_mode IN ('AUTO', 'FULL', 'DIFFERENTIAL', 'IMMEDIATE')),
    next_attempt_at timestamptz,
    column_names text[],
    source_activity jsonb,                      -- FULL: statistics counters of the sources at the last refresh
    column_list text[],                         -- CREATE STREAM TABLE t (a, b): the names given; NULL: the query's own
    UNIQUE (pgt_schema, pgt_name)
);
ALTER TABLE pgtrickle.pgt_stream_tables ADD COLUMN IF NOT EXISTS function_oids oid[] NOT NULL DEFAULT '{}';    -- of users' functions in the definition
ALTER TABLE pgtrickle.pgt_stream_tables ADD COLUMN IF NOT EXISTS immediate_state text;
ALTER TABLE pgtrickle.pgt_stream_tables ADD COLUMN IF NOT EXISTS frontier_timeline text;

CREATE TABLE IF NOT EXISTS pgtrickle.pgt_dependencies (
    pgt_id bigint NOT NULL REFERENCES pgtrickle.pgt_stream_tables ON DELETE CASCADE,
    source_relid oid NOT NULL,
    source_type text NOT NULL CHECK (source_type IN ('TABLE', 'STREAM_TABLE', 'VIEW', 'MATVIEW', 'FOREIGN_TABLE')),
    columns_used text[],
    column_snapshot jsonb,
    schema_fingerprint text,
    cdc_mode text NOT NULL DEFAULT 'TRIGGER' CHECK (cdc_mode IN ('TRIGGER', 'TRANSITIONING', 'WAL')),
    slot_name text,
    decoder_confirmed_lsn pg_lsn,
    transition_started_at timestamptz,
    attnums integer[] NOT NULL DEFAULT '{}',    -- ours: read from the buffer; captured says whether there is one
    captured boolean NOT NULL DEFAULT false,
    PRIMARY KEY (pgt_id, source_relid)
);
-- What schema_fingerprint can't say: see 18_origin.sql.
ALTER TABLE pgtrickle.pgt_dependencies ADD COLUMN IF NOT EXISTS unique_keys text[] NOT NULL DEFAULT '{}';
ALTER TABLE pgtrickle.pgt_dependencies ADD COLUMN IF NOT EXISTS rewrite_marks text[];
CREATE INDEX IF NOT EXISTS pgt_dependencies_source ON pgtrickle.pgt_dependencies (source_relid);

-- One row a source that has a buffer.
CREATE TABLE IF NOT EXISTS pgtrickle.pgt_captures (
    source_relid oid PRIMARY KEY,
    attnums integer[] NOT NULL,                 -- ascending
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now()
);
ALTER TABLE pgtrickle.pgt_captures ADD COLUMN IF NOT EXISTS state text;     -- of the triggers when they were made; NULL: being made

CREATE TABLE IF NOT EXISTS pgtrickle.pgt_refresh_history (
    refresh_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    pgt_id bigint NOT NULL REFERENCES pgtrickle.pgt_stream_tables ON DELETE CASCADE,
    data_timestamp timestamptz,
    start_time timestamptz NOT NULL,
    end_time timestamptz,
    action text NOT NULL CHECK (action IN ('NO_DATA', 'FULL', 'DIFFERENTIAL', 'REINITIALIZE', 'SKIP')),
    rows_inserted bigint,
    rows_deleted bigint,
    delta_row_count bigint,
    merge_strategy_used text,
    was_full_fallback boolean NOT NULL DEFAULT false,
    error_message text,
    status text NOT NULL CHECK (status IN ('RUNNING', 'COMPLETED', 'FAILED', 'SKIPPED')),
    initiated_by text CHECK (initiated_by IN ('SCHEDULER', 'MANUAL', 'INITIAL')),
    freshness_deadline timestamptz,
    tick_watermark_lsn pg_lsn,
    fixpoint_iteration integer,
    rows_updated bigint,                        -- from here on ours
    reason text,
    error_sqlstate text,
    duration_ms double precision
);
CREATE INDEX IF NOT EXISTS pgt_refresh_history_of ON pgtrickle.pgt_refresh_history (pgt_id, refresh_id);

CREATE TABLE IF NOT EXISTS pgtrickle.pgt_requests (
    request_id bigserial PRIMARY KEY,
    op text NOT NULL CHECK (op IN ('create', 'alter_query', 'alter_mode', 'rebuild')),
    args jsonb NOT NULL,
    caller name NOT NULL,
    xid xid8 NOT NULL DEFAULT pg_catalog.pg_current_xact_id(),
    search_path text NOT NULL,
    settings jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    error text
);

GRANT SELECT ON pgtrickle.pgt_stream_tables, pgtrickle.pgt_dependencies, pgtrickle.pgt_captures, pgtrickle.pgt_refresh_history,
    pgtrickle.pgt_requests TO PUBLIC;

-- ---- names, schedules, settings ------------------------------------------------------------------------------------------------------

-- 'schema.table' or 'table'; a part may be in double quotes, an unquoted one is taken as it stands (pg_trickle folds nothing). schema is
-- NULL when there is none. 42602 on anything else.
CREATE OR REPLACE FUNCTION pgtrickle._split_name(qualified text, OUT schema text, OUT name text)
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    part CONSTANT text := '("(?:[^"]|"")+"|[^".]+)';
    m text[];
BEGIN
    m := regexp_match(btrim(qualified), '^(?:' || part || '\s*\.\s*)?("(?:[^"]|"")+"|[^"]+)$');
    IF m IS NULL THEN
        RAISE EXCEPTION 'invalid stream table name: %', coalesce(quote_literal(qualified), 'NULL')
            USING ERRCODE = 'invalid_name', HINT = 'Write ''table'', ''schema.table'' or ''"Schema"."Table"''.';
    END IF;
    schema := CASE WHEN m[1] LIKE '"%' THEN replace(substr(m[1], 2, length(m[1]) - 2), '""', '"') ELSE btrim(m[1]) END;
    name := CASE WHEN m[2] LIKE '"%' THEN replace(substr(m[2], 2, length(m[2]) - 2), '""', '"') ELSE btrim(m[2]) END;
    IF octet_length(name) > 63 OR octet_length(schema) > 63 THEN
        RAISE EXCEPTION 'identifier too long: %', quote_literal(qualified) USING ERRCODE = 'name_too_long';
    END IF;
END
$body$;

-- The same for messages, which put the quotes themselves.
CREATE OR REPLACE FUNCTION pgtrickle._plain_name(qualified text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT concat(n.schema || '.', n.name) FROM pgtrickle._split_name(qualified) AS n
$body$;

-- Seconds of '5s', '1h30m', '2w', '90'; NULL when it is no duration.
CREATE OR REPLACE FUNCTION pgtrickle.parse_duration_seconds(duration text) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $body$
    SELECT CASE
        WHEN $1 OPERATOR(pg_catalog.~) '^[0-9]{1,12}$' THEN $1::bigint
        WHEN $1 OPERATOR(pg_catalog.~) '^([0-9]{1,9}[smhdw])+$' THEN
            (SELECT pg_catalog.sum(m[1]::bigint OPERATOR(pg_catalog.*) CASE m[2] WHEN 's' THEN 1 WHEN 'm' THEN 60 WHEN 'h' THEN 3600 WHEN 'd' THEN 86400 ELSE 604800 END)::bigint
             FROM pg_catalog.regexp_matches($1, '([0-9]+)([smhdw])', 'g') AS m)
    END
$body$;

-- What is stored for a schedule: NULL for 'calculated'. A cron expression is only roughly checked here; the daemon's parser has the last word.
CREATE OR REPLACE FUNCTION pgtrickle._check_schedule(schedule text) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    s text := btrim(schedule);
    seconds bigint;
BEGIN
    IF schedule IS NULL THEN
        RAISE EXCEPTION 'schedule must not be NULL'
            USING ERRCODE = 'null_value_not_allowed', HINT = 'Write schedule => ''calculated'' to refresh when an upstream has changed.';
    ELSIF lower(s) = 'calculated' THEN
        RETURN NULL;
    ELSIF s LIKE '@%' THEN
        IF lower(s) NOT IN ('@hourly', '@daily', '@midnight', '@weekly', '@monthly', '@yearly', '@annually') THEN
            RAISE EXCEPTION 'invalid schedule: %', quote_literal(schedule)
                USING ERRCODE = 'invalid_parameter_value', HINT = 'Known are @hourly, @daily, @weekly, @monthly and @yearly.';
        END IF;
        RETURN lower(s);
    ELSIF s ~ '\s' THEN
        IF s !~ '^[-0-9A-Za-z*/,?]+(\s+[-0-9A-Za-z*/,?]+){4,5}$' THEN
            RAISE EXCEPTION 'invalid cron expression: %', quote_literal(schedule)
                USING ERRCODE = 'invalid_parameter_value',
                      HINT = 'Five fields, or six with leading seconds: ''*/5 * * * *''. A duration has no blanks: ''1h30m''.';
        END IF;
        RETURN s;
    END IF;
    seconds := pgtrickle.parse_duration_seconds(s);
    IF seconds IS NULL THEN
        RAISE EXCEPTION 'invalid schedule: %', quote_literal(schedule)
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'Write a duration (''5s'', ''1h30m''), a cron expression, ''calculated'' or ''IMMEDIATE''.';
    ELSIF seconds < 1 THEN
        RAISE EXCEPTION 'schedule is too short: %', quote_literal(schedule)
            USING ERRCODE = 'invalid_parameter_value', HINT = 'The shortest is 1s. For no delay at all use schedule => ''IMMEDIATE''.';
    ELSIF seconds > 315360000 THEN
        RAISE EXCEPTION 'schedule is too long: %', quote_literal(schedule)
            USING ERRCODE = 'invalid_parameter_value', HINT = 'The longest is ten years.';
    END IF;
    RETURN s;
END
$body$;

-- The settings on which a query's result may depend, as the session has them.
CREATE OR REPLACE FUNCTION pgtrickle._pinned_settings() RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT jsonb_object_agg(s, current_setting(s))
    FROM unnest('{TimeZone,DateStyle,IntervalStyle,extra_float_digits,bytea_output,lc_monetary,lc_numeric,lc_time,xmlbinary,xmloption,array_nulls,transform_null_equals,default_text_search_config,standard_conforming_strings}'::text[]) AS s
$body$;

-- The stream table that a caller's name means: in the schema given, else along the path given (schemas in order). No row: none.
CREATE OR REPLACE FUNCTION pgtrickle._find(name text, path name[]) RETURNS bigint
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT st.pgt_id
    FROM pgtrickle._split_name($1) AS n
    JOIN pgtrickle.pgt_stream_tables st ON st.pgt_name = n.name
    LEFT JOIN pg_class c ON c.oid = st.pgt_relid
    LEFT JOIN unnest($2) WITH ORDINALITY AS p(schema, place) ON p.schema = st.pgt_schema
    WHERE CASE WHEN n.schema IS NULL THEN p.place IS NOT NULL ELSE st.pgt_schema = n.schema END
    ORDER BY p.place LIMIT 1
$body$;

-- As above; 42P01 when there is none.
CREATE OR REPLACE FUNCTION pgtrickle._get(name text, path name[]) RETURNS pgtrickle.pgt_stream_tables
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    st pgtrickle.pgt_stream_tables;
BEGIN
    SELECT * INTO st FROM pgtrickle.pgt_stream_tables t WHERE t.pgt_id = pgtrickle._find(name, path);
    IF NOT FOUND THEN
        IF EXISTS (SELECT FROM pgtrickle.pgt_requests r, pgtrickle._split_name(_get.name) AS n WHERE r.op = 'create' AND r.args->>'name' = n.name
                   AND (r.args->>'schema' = n.schema OR n.schema IS NULL AND r.args->>'schema' = ANY (path))) THEN
            RAISE EXCEPTION 'stream table "%" has not been created yet', pgtrickle._plain_name(name)
                USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'The pgtrickle daemon creates it at its next tick.';
        END IF;
        RAISE EXCEPTION 'stream table "%" does not exist', pgtrickle._plain_name(name) USING ERRCODE = 'undefined_table';
    END IF;
    RETURN st;
END
$body$;
