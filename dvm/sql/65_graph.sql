-- The dependency graph for other tools' eyes, and what a fill is doing.

SET LOCAL client_min_messages = warning;

-- Who reads what: stream tables and their sources.
CREATE OR REPLACE FUNCTION pgtrickle._graph() RETURNS TABLE (source text, reader text, source_is_stream_table boolean, reader_status text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT coalesce(n.nspname || '.' || c.relname, d.source_relid::text), t.pgt_schema || '.' || t.pgt_name,
        EXISTS (SELECT FROM pgtrickle.pgt_stream_tables u WHERE u.pgt_relid = d.source_relid), t.status
    FROM pgtrickle.pgt_dependencies d JOIN pgtrickle.pgt_stream_tables t USING (pgt_id)
    LEFT JOIN pg_class c ON c.oid = d.source_relid LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
    ORDER BY 2, 1
$body$;

-- For Graphviz: dot -Tsvg. Stream tables are boxes, red when they are in error or suspended; sources are ellipses.
CREATE OR REPLACE FUNCTION pgtrickle.dependency_dot() RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    WITH node AS (
        SELECT DISTINCT g.source AS name, NULL::text AS status FROM pgtrickle._graph() g WHERE NOT g.source_is_stream_table
        UNION ALL SELECT t.pgt_schema || '.' || t.pgt_name, t.status FROM pgtrickle.pgt_stream_tables t),
    line AS (
        SELECT 1 AS part, n.name AS first, '' AS second,
            format('    "%s" [shape=%s%s];', replace(replace(n.name, '\', '\\'), '"', '\"'), CASE WHEN n.status IS NULL THEN 'ellipse' ELSE 'box' END,
                   CASE WHEN n.status IN ('ERROR', 'SUSPENDED') THEN ', color=red' ELSE '' END) AS text FROM node n
        UNION ALL SELECT 2, g.reader, g.source, format('    "%s" -> "%s";', replace(replace(g.source, '\', '\\'), '"', '\"'), replace(replace(g.reader, '\', '\\'), '"', '\"'))
        FROM pgtrickle._graph() g)
    SELECT E'digraph pgtrickle {\n    rankdir=LR;\n' || coalesce(string_agg(l.text, E'\n' ORDER BY l.part, l.first, l.second) || E'\n', '') || '}' FROM line l
$body$;

-- For Markdown. Names of nodes are numbers, for Mermaid's own can hold little.
CREATE OR REPLACE FUNCTION pgtrickle.dependency_mermaid() RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    WITH node AS (
        SELECT x.name, x.is_st, row_number() OVER (ORDER BY x.is_st, x.name) AS n FROM (
            SELECT DISTINCT g.source AS name, false AS is_st FROM pgtrickle._graph() g WHERE NOT g.source_is_stream_table
            UNION ALL SELECT t.pgt_schema || '.' || t.pgt_name, true FROM pgtrickle.pgt_stream_tables t) AS x),
    line AS (
        SELECT 1 AS part, n.n AS first, 0::bigint AS second,
            format(CASE WHEN n.is_st THEN '    n%s["%s"]' ELSE '    n%s(["%s"])' END, n.n, replace(n.name, '"', '#quot;')) AS text FROM node n
        UNION ALL SELECT 2, r.n, s.n, format('    n%s --> n%s', s.n, r.n)
        FROM pgtrickle._graph() g JOIN node s ON s.name = g.source AND s.is_st = g.source_is_stream_table JOIN node r ON r.name = g.reader AND r.is_st)
    SELECT E'flowchart LR' || coalesce(E'\n' || string_agg(l.text, E'\n' ORDER BY l.part, l.first, l.second), '') FROM line l
$body$;

-- The last comparison of each stream table with its query.
CREATE OR REPLACE FUNCTION pgtrickle.check_status()
RETURNS TABLE (stream_table text, check_interval interval, checked_at timestamptz, verdict text, missing bigint, extra bigint, detail text, duration_ms double precision)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT t.pgt_schema || '.' || t.pgt_name, k.check_interval, k.checked_at, k.verdict, k.missing, k.extra, k.detail, k.duration_ms
    FROM pgtrickle.pgt_stream_tables t LEFT JOIN pgtrickle.pgt_checks k USING (pgt_id) ORDER BY 1
$body$;
