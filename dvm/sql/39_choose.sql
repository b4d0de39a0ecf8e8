-- AUTO: whether a refresh goes by the changes or by the whole query, from what both have cost, and why.

SET LOCAL client_min_messages = warning;

ALTER TABLE pgtrickle.pgt_refresh_history ADD COLUMN IF NOT EXISTS pending_rows bigint; -- changes that waited, as AUTO counted them

-- What a differential refresh of so many changes would take: the median of the last five whose size was within a factor of eight, each scaled
-- to this size upwards. NULL: nothing like it was measured. samples: how many say so.
CREATE OR REPLACE FUNCTION pgtrickle._expected_delta_ms(id bigint, pending bigint, OUT ms double precision, OUT samples bigint)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET jit = off AS $body$
    SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY n.ms), count(*) FROM (
        SELECT h.duration_ms * greatest(1, pending::float8 / h.pending_rows) AS ms
        FROM (SELECT r.refresh_id, r.duration_ms, r.pending_rows FROM pgtrickle.pgt_refresh_history r
              WHERE r.pgt_id = id AND r.action = 'DIFFERENTIAL' AND r.status = 'COMPLETED' AND r.pending_rows > 0 ORDER BY r.refresh_id DESC LIMIT 100) AS h
        WHERE pending BETWEEN h.pending_rows / 8 AND h.pending_rows * 8
        ORDER BY h.refresh_id DESC LIMIT 5) AS n
$body$;

-- The median of the last full ones.
CREATE OR REPLACE FUNCTION pgtrickle._expected_full_ms(id bigint) RETURNS double precision
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET jit = off AS $body$
    SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY n.duration_ms) FROM (
        SELECT r.duration_ms FROM pgtrickle.pgt_refresh_history r
        WHERE r.pgt_id = id AND r.action IN ('FULL', 'REINITIALIZE') AND r.status = 'COMPLETED' AND r.duration_ms IS NOT NULL ORDER BY r.refresh_id DESC LIMIT 3) AS n
$body$;

-- For one that could go either way. pending: NULL when it was not counted.
CREATE OR REPLACE FUNCTION pgtrickle._choose(st pgtrickle.pgt_stream_tables, OUT is_full boolean, OUT reason text, OUT pending bigint)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    -- A full refresh is tried anew, or a differential one, after so many of the other kind: both costs change as tables grow.
    retry CONSTANT integer := 20;
    own_rows float8;
    source_rows float8;
    delta_ms float8;
    full_ms float8;
    same_way integer;
    measured bigint;
    ratio CONSTANT float8 := coalesce(st.auto_threshold, 0.5);
BEGIN
    is_full := false;
    IF st.max_differential_joins > 0 AND jsonb_array_length(st.plan->'sources') > st.max_differential_joins THEN
        is_full := true;
        reason := format('%s sources are joined, max_differential_joins is %s', jsonb_array_length(st.plan->'sources'), st.max_differential_joins);
        RETURN;
    ELSIF st.requested_mode <> 'AUTO' AND coalesce(st.max_delta_fraction, 0) = 0 THEN
        RETURN;
    END IF;
    SELECT p.rows INTO pending FROM pgtrickle._pending(st, 'count') AS p;
    SELECT greatest(c.reltuples, 0) INTO own_rows FROM pg_class c WHERE c.oid = st.pgt_relid;
    IF st.max_delta_fraction > 0 AND pending > own_rows * st.max_delta_fraction AND own_rows > 0 THEN
        is_full := true;
        reason := format('%s changes are more than %s of %s rows', pending, st.max_delta_fraction, own_rows);
        RETURN;
    ELSIF st.requested_mode <> 'AUTO' OR pending = 0 THEN
        RETURN;
    END IF;
    SELECT e.ms, e.samples INTO delta_ms, measured FROM pgtrickle._expected_delta_ms(st.pgt_id, pending) AS e;
    full_ms := pgtrickle._expected_full_ms(st.pgt_id);
    IF delta_ms IS NOT NULL AND full_ms IS NOT NULL THEN
        -- A little slower by the changes is still better: readers see fewer rows written anew.
        -- The first of a kind pay for what is cold.
        is_full := delta_ms > full_ms * CASE WHEN measured < 3 THEN 3 ELSE 1.1 END;
        reason := format('%s changes would take about %s ms, a full refresh about %s ms', pending, round(delta_ms::numeric, 1), round(full_ms::numeric, 1));
        SELECT count(*) INTO same_way FROM (
            SELECT r.action FROM pgtrickle.pgt_refresh_history r WHERE r.pgt_id = st.pgt_id AND r.status = 'COMPLETED' AND r.pending_rows IS NOT NULL
            ORDER BY r.refresh_id DESC LIMIT retry) AS h WHERE (h.action <> 'DIFFERENTIAL') = is_full;
        -- Not when the other way is known to be far worse.
        IF same_way = retry AND greatest(delta_ms, full_ms) < least(delta_ms, full_ms) * 3 THEN
            is_full := NOT is_full;
            reason := reason || format('; tried because the last %s went the other way', retry);
        END IF;
        RETURN;
    END IF;
    -- Nothing measured: by size. Below a thousand both ways take about as long as the bookkeeping.
    SELECT sum(greatest(c.reltuples, 0)) INTO source_rows
    FROM pgtrickle.pgt_dependencies d JOIN pg_class c ON c.oid = d.source_relid WHERE d.pgt_id = st.pgt_id AND d.captured;
    is_full := coalesce(pending >= 1000 AND source_rows > 0 AND pending > source_rows * ratio, false);
    reason := CASE WHEN is_full THEN format('%s changes are more than %s of the sources'' %s rows', pending, ratio, source_rows)
                   ELSE format('%s changes, and nothing like that was measured yet', pending) END;
END
$body$;
