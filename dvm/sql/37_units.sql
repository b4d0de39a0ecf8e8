-- Units: what is refreshed in one transaction from one snapshot, all or nothing. Gates and watermarks: what has to wait. The scheduler reads
-- both at each look; both are written rarely, so they are worked out when something changes.

SET LOCAL client_min_messages = warning;

-- Each stream table that two or more of those that it reads lead to one ancestor, with the stream tables in between. A stream table through
-- which all ways to its own ancestors lead (the waist above the diamond) is none of them: whoever reads it in one snapshot sees one state.
CREATE OR REPLACE FUNCTION pgtrickle._diamonds() RETURNS TABLE (convergence bigint, member bigint)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET jit = off AS $body$
    WITH RECURSIVE reads(pgt_id, upstream, relid) AS MATERIALIZED (
        SELECT d.pgt_id, u.pgt_id, d.source_relid FROM pgtrickle.pgt_dependencies d LEFT JOIN pgtrickle.pgt_stream_tables u ON u.pgt_relid = d.source_relid),
    wide AS (SELECT r.pgt_id FROM reads r WHERE r.upstream IS NOT NULL GROUP BY r.pgt_id HAVING count(DISTINCT r.upstream) > 1),
    -- via: the direct upstream through which the ancestor is reached
    up(id, via, node, relid) AS (
        SELECT r.pgt_id, r.upstream, r.upstream, r.relid FROM reads r JOIN wide USING (pgt_id) WHERE r.upstream IS NOT NULL
        UNION SELECT up.id, up.via, r.upstream, r.relid FROM up JOIN reads r ON r.pgt_id = up.node),
    meets AS (SELECT up.id, up.relid FROM up GROUP BY up.id, up.relid HAVING count(DISTINCT up.via) > 1),
    branches AS (SELECT DISTINCT up.id, up.via FROM up JOIN meets m ON m.id = up.id AND m.relid = up.relid),
    candidate AS (SELECT DISTINCT up.id, up.node, up.node = ANY (SELECT b.via FROM branches b WHERE b.id = up.id) AS direct,
                         EXISTS (SELECT FROM meets m WHERE m.id = up.id AND m.relid = up.relid) AS shared
                  FROM up JOIN branches b ON b.id = up.id AND b.via = up.via WHERE up.node IS NOT NULL)
    SELECT b.id, b.id FROM branches b
    UNION
    SELECT c.id, c.node FROM candidate c
    WHERE c.direct OR NOT c.shared OR EXISTS (
        WITH RECURSIVE around(node, relid) AS (
            SELECT r.upstream, r.relid FROM reads r WHERE r.pgt_id = c.id AND r.upstream IS DISTINCT FROM c.node
            UNION SELECT r.upstream, r.relid FROM around a JOIN reads r ON r.pgt_id = a.node WHERE r.upstream IS DISTINCT FROM c.node),
        above(node, relid) AS (
            SELECT r.upstream, r.relid FROM reads r WHERE r.pgt_id = c.node
            UNION SELECT r.upstream, r.relid FROM above a JOIN reads r ON r.pgt_id = a.node)
        SELECT FROM around JOIN above ON above.relid = around.relid)
$body$;

-- Sets that share a member become one. sets: [[[pgt_id, …], slowest], …]
CREATE OR REPLACE FUNCTION pgtrickle._unite(sets jsonb) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    one jsonb;
    other jsonb;
    ids bigint[];
    slow boolean;
    found jsonb := '[]';
    rest jsonb;
BEGIN
    FOR one IN SELECT * FROM jsonb_array_elements(sets) LOOP
        ids := pgtrickle._ints(one->0);
        slow := (one->>1)::boolean;
        rest := '[]';
        FOR other IN SELECT * FROM jsonb_array_elements(found) LOOP
            IF ids && pgtrickle._ints(other->0)::bigint[] THEN
                ids := ids || pgtrickle._ints(other->0)::bigint[];
                slow := slow OR (other->>1)::boolean;
            ELSE
                rest := rest || jsonb_build_array(other);
            END IF;
        END LOOP;
        found := rest || jsonb_build_array(jsonb_build_array(to_jsonb(ARRAY(SELECT DISTINCT x FROM unnest(ids) AS x ORDER BY x)), slow));
    END LOOP;
    RETURN found;
END
$body$;

-- The sets with all that both reads a member and is read by one, through others as may be: refreshed apart, each would wait for the other.
CREATE OR REPLACE FUNCTION pgtrickle._close_units(sets jsonb) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET jit = off AS $body$
    WITH RECURSIVE member(id, label, slow) AS MATERIALIZED (
        SELECT x::bigint, (s->0->>0)::bigint, (s->>1)::boolean FROM jsonb_array_elements(sets) AS s, jsonb_array_elements_text(s->0) AS x),
    edge(src, dst) AS MATERIALIZED (
        SELECT DISTINCT coalesce(mu.label, u.pgt_id), coalesce(md.label, d.pgt_id)
        FROM pgtrickle.pgt_dependencies d JOIN pgtrickle.pgt_stream_tables u ON u.pgt_relid = d.source_relid
        LEFT JOIN member mu ON mu.id = u.pgt_id LEFT JOIN member md ON md.id = d.pgt_id
        WHERE coalesce(mu.label, u.pgt_id) <> coalesce(md.label, d.pgt_id)),
    down(unit, node) AS (
        SELECT DISTINCT e.src, e.dst FROM edge e JOIN member m ON m.label = e.src
        UNION SELECT w.unit, e.dst FROM down w JOIN edge e ON e.src = w.node),
    up(unit, node) AS (
        SELECT DISTINCT e.dst, e.src FROM edge e JOIN member m ON m.label = e.dst
        UNION SELECT w.unit, e.src FROM up w JOIN edge e ON e.dst = w.node)
    SELECT jsonb_agg(jsonb_build_array(g.ids, g.slow) ORDER BY g.label) FROM (
        SELECT m.label, bool_or(m.slow) AS slow, to_jsonb(array_agg(m.id ORDER BY m.id) || ARRAY(
            SELECT coalesce(o.id, d.node) FROM down d JOIN up u ON u.unit = d.unit AND u.node = d.node LEFT JOIN member o ON o.label = d.node
            WHERE d.unit = m.label AND d.node <> m.label ORDER BY 1)) AS ids
        FROM member m GROUP BY m.label) AS g
$body$;

-- Works out pgt_units anew. One that is IMMEDIATE is never behind, and in no unit.
CREATE OR REPLACE FUNCTION pgtrickle._regroup() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET jit = off AS $body$
DECLARE
    sets jsonb;
    closed jsonb;
BEGIN
    SELECT jsonb_agg(jsonb_build_array(to_jsonb(s.ids), s.slow)) INTO sets FROM (
        SELECT array_agg(d.member ORDER BY d.member), bool_or(c.diamond_schedule_policy = 'slowest')
        FROM pgtrickle._diamonds() d JOIN pgtrickle.pgt_stream_tables c ON c.pgt_id = d.convergence JOIN pgtrickle.pgt_stream_tables m ON m.pgt_id = d.member
        WHERE c.diamond_consistency = 'atomic' AND c.refresh_mode <> 'IMMEDIATE' AND m.refresh_mode <> 'IMMEDIATE' GROUP BY d.convergence HAVING count(*) > 1
        UNION ALL
        SELECT array_agg(g.pgt_id ORDER BY g.pgt_id), false FROM pgtrickle.pgt_refresh_group_members g JOIN pgtrickle.pgt_stream_tables m USING (pgt_id)
        WHERE m.refresh_mode <> 'IMMEDIATE' GROUP BY g.group_id HAVING count(*) > 1) AS s(ids, slow);
    WHILE sets IS NOT NULL LOOP
        sets := pgtrickle._unite(sets);
        closed := pgtrickle._close_units(sets);
        EXIT WHEN jsonb_array_length(closed) = jsonb_array_length(sets)
            AND (SELECT sum(jsonb_array_length(s->0)) FROM jsonb_array_elements(closed) AS s) = (SELECT sum(jsonb_array_length(s->0)) FROM jsonb_array_elements(sets) AS s);
        sets := closed;
    END LOOP;
    DELETE FROM pgtrickle.pgt_units u
    WHERE NOT EXISTS (SELECT FROM jsonb_array_elements(sets) AS s, jsonb_array_elements_text(s->0) AS x WHERE x::bigint = u.pgt_id);
    INSERT INTO pgtrickle.pgt_units AS u (pgt_id, unit_id, slowest)
    SELECT x::bigint, (s->0->>0)::bigint, (s->>1)::boolean FROM jsonb_array_elements(sets) AS s, jsonb_array_elements_text(s->0) AS x
    ON CONFLICT (pgt_id) DO UPDATE SET unit_id = EXCLUDED.unit_id, slowest = EXCLUDED.slowest
    WHERE (u.unit_id, u.slowest) IS DISTINCT FROM (EXCLUDED.unit_id, EXCLUDED.slowest);
END
$body$;

CREATE OR REPLACE FUNCTION pgtrickle._regroup_after() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    PERFORM pgtrickle._regroup();
    RETURN NULL;
END
$body$;
CREATE OR REPLACE TRIGGER regroup AFTER INSERT OR DELETE ON pgtrickle.pgt_dependencies FOR EACH STATEMENT EXECUTE FUNCTION pgtrickle._regroup_after();
CREATE OR REPLACE TRIGGER regroup AFTER INSERT OR DELETE ON pgtrickle.pgt_refresh_group_members FOR EACH STATEMENT EXECUTE FUNCTION pgtrickle._regroup_after();
CREATE OR REPLACE TRIGGER regroup AFTER UPDATE ON pgtrickle.pgt_stream_tables FOR EACH ROW
    WHEN (OLD.diamond_consistency <> NEW.diamond_consistency OR OLD.diamond_schedule_policy <> NEW.diamond_schedule_policy OR OLD.refresh_mode <> NEW.refresh_mode
          OR OLD.pgt_relid <> NEW.pgt_relid)
    EXECUTE FUNCTION pgtrickle._regroup_after();

-- The stream tables that wait: one of their sources is gated, or the watermarks of their sources are too far apart.
CREATE OR REPLACE FUNCTION pgtrickle._held() RETURNS TABLE (pgt_id bigint, why text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT d.pgt_id, 'source gated' FROM pgtrickle.pgt_source_gates g JOIN pgtrickle.pgt_dependencies d USING (source_relid) WHERE g.gated
    UNION
    SELECT d.pgt_id, 'watermarks not aligned' FROM pgtrickle.pgt_watermark_groups g
    JOIN pgtrickle.pgt_dependencies d ON d.source_relid = ANY (g.source_relids)
    WHERE (SELECT count(*) > 1 AND extract(epoch FROM max(w.watermark) - min(w.watermark)) > g.tolerance_secs
           FROM pgtrickle.pgt_watermarks w WHERE w.source_relid = ANY (g.source_relids))
$body$;

-- ---- what has changed --------------------------------------------------------------------------------------------------------------------------

-- Whatever may make something due draws from change_seq, as writers of sources do: a scheduler that finds the number that it knows, and none of
-- the transactions still running that ran when it came, has nothing new to read.
CREATE OR REPLACE FUNCTION pgtrickle._stir() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    PERFORM nextval('pgtrickle.change_seq');
    RETURN NULL;
END
$body$;
DO $body$
DECLARE
    t text;
BEGIN
    FOREACH t IN ARRAY '{pgt_stream_tables,pgt_dependencies,pgt_requests,pgt_units,pgt_checks,pgt_source_gates,pgt_watermarks,pgt_watermark_groups}'::text[] LOOP
        EXECUTE pg_catalog.format('CREATE OR REPLACE TRIGGER stir AFTER INSERT OR UPDATE OR DELETE ON pgtrickle.%I FOR EACH STATEMENT EXECUTE FUNCTION pgtrickle._stir()', t);
    END LOOP;
END
$body$;

REVOKE EXECUTE ON FUNCTION pgtrickle._regroup(), pgtrickle._unite(jsonb), pgtrickle._close_units(jsonb), pgtrickle._regroup_after(), pgtrickle._stir() FROM PUBLIC;
