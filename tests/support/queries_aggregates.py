"""Definitions for the differential tester: aggregates, set operations, grouping sets, limits, VALUES.
See queries.py.
"""

CORPUS = {
    "string agg in order": ("SELECT g, string_agg(h, ',' ORDER BY h DESC, id) AS hs FROM t1 GROUP BY g", {"t1"}),
    "array agg in order": ("SELECT g, array_agg(v ORDER BY v NULLS FIRST) AS vs, array_agg(DISTINCT h) AS hs"
                           " FROM t1 GROUP BY g", {"t1"}),
    "json aggs": ("SELECT g, jsonb_agg(v ORDER BY id) AS vs, jsonb_object_agg(id, h ORDER BY id) AS hs"
                  " FROM t1 GROUP BY g", {"t1"}),
    "global string agg": ("SELECT string_agg(b, '/' ORDER BY b) AS bs FROM t3 WHERE a > 0", {"t3"}),
    "ordered sets": ("SELECT g, percentile_cont(0.5) WITHIN GROUP (ORDER BY v) AS median,"
                     " percentile_disc(ARRAY[0.1, 0.9]) WITHIN GROUP (ORDER BY w) AS ends,"
                     " mode() WITHIN GROUP (ORDER BY h) AS most FROM t1 GROUP BY g", {"t1"}),
    "hypothetical sets": ("SELECT g, rank(2) WITHIN GROUP (ORDER BY v) AS r,"
                          " cume_dist(2, 'a') WITHIN GROUP (ORDER BY v DESC, h) AS c FROM t1 GROUP BY g", {"t1"}),
    "bits and bools": ("SELECT g, bit_and(v) AS ba, bit_or(v) AS bo, bit_xor(v) AS bx, bool_and(v > 0) AS all_,"
                       " bool_or(v > 3) AS any_, every(h IS NULL) AS no_h FROM t1 GROUP BY g", {"t1"}),
    "bools alone": ("SELECT g, bool_and(v > 0) AS a, bool_or(v > 3) FILTER (WHERE h <> 'a') AS o, every(w > 1) AS e"
                    " FROM t1 GROUP BY g", {"t1"}),
    "variances": ("SELECT g, var_pop(v) AS vp, var_samp(v) AS vs, variance(w) AS vw, stddev(v) AS sd,"
                  " stddev_pop(w) AS sp, stddev_samp(w) AS ss FROM t1 GROUP BY g", {"t1"}),
    "global variance": ("SELECT variance(v) AS vv, stddev_pop(w) AS sw, count(*) AS n FROM t1", {"t1"}),
    "regressions": ("SELECT g, regr_count(f, v) AS n, regr_sxx(f, v) AS sxx, covar_pop(f, v) AS c"
                    " FROM t1 WHERE v BETWEEN 0 AND 1 GROUP BY g", {"t1"}),
    "ranges": ("SELECT g, range_agg(int4range(v, v + 2)) AS r FROM t1 GROUP BY g", {"t1"}),
    "distinct inside": ("SELECT g, count(DISTINCT v) AS n, sum(DISTINCT w) AS s, string_agg(DISTINCT h, '|') AS hs"
                        " FROM t1 GROUP BY g", {"t1"}),
    "filtered string agg": ("SELECT g, string_agg(h, ',' ORDER BY id) FILTER (WHERE v > 1) AS hs, count(*) AS n"
                            " FROM t1 GROUP BY g HAVING string_agg(h, ',' ORDER BY id) IS NOT NULL", {"t1"}),
    "string agg over a join": ("SELECT name, string_agg(h, ',' ORDER BY t1.id) AS hs FROM t1 JOIN dim USING (g)"
                               " GROUP BY name", {"t1", "dim"}),
    "string agg below a join": ("SELECT dim.name, x.hs FROM dim LEFT JOIN (SELECT g, string_agg(h, ',' ORDER BY id)"
                                " AS hs FROM t1 GROUP BY g) x ON x.g = dim.g", {"t1", "dim"}),
}
