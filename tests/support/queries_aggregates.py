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
    "extrema among sums": ("SELECT g, min(v) AS lo, max(w) AS hi, count(*) AS n, sum(v) AS s, max(d) - min(d) AS days"
                           " FROM t1 GROUP BY g", {"t1"}),
    "extrema over a join": ("SELECT name, min(t1.v) AS lo, max(h) AS hi, max(f) FILTER (WHERE t1.v > 1) AS big"
                            " FROM t1 JOIN dim USING (g) GROUP BY name", {"t1", "dim"}),
    "extrema over an aggregate": ("SELECT n, max(s) AS hi, min(g) AS lo FROM (SELECT g, count(*) AS n, sum(v) AS s"
                                  " FROM t1 GROUP BY g) x GROUP BY n", {"t1"}),
    "extrema of a union": ("SELECT max(v) AS hi, min(v) AS lo FROM (SELECT v FROM t1 UNION ALL SELECT v FROM t2) x",
                           {"t1", "t2"}),
    "spread": ("SELECT g, h, max(v) - min(v) AS spread FROM t1 GROUP BY g, h", {"t1"}),
    "deviation and the rest": ("SELECT g, stddev(v) AS sd, avg(v) AS a, bool_or(v > 4) AS any_, max(v) AS hi FROM t1"
                               " WHERE h IS NOT NULL GROUP BY g", {"t1"}),
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
    "rollup": ("SELECT g, h, count(*) AS n, sum(v) AS s FROM t1 GROUP BY ROLLUP (g, h)", {"t1"}),
    "cube with grouping": ("SELECT g, h, grouping(g, h) AS k, grouping(h) AS kh, count(*) AS n, max(w) AS top FROM t1"
                           " GROUP BY CUBE (g, h) HAVING count(*) > 1", {"t1"}),
    "grouping sets": ("SELECT v % 2 AS odd, h, sum(w) AS s, avg(v) AS a FROM t1"
                      " GROUP BY GROUPING SETS ((v % 2), (h), (), (v % 2, h), ())", {"t1"}),
    "product of grouping sets": ("SELECT g, h, v, count(*) AS n, string_agg(h, '' ORDER BY id) AS hs FROM t1"
                                 " GROUP BY g, ROLLUP (h), CUBE (v)", {"t1"}),
    "rollup over a join": ("SELECT name, t1.h, sum(t1.v * rate) AS s, grouping(name) AS k FROM t1 JOIN dim USING (g)"
                           " GROUP BY ROLLUP (name, t1.h)", {"t1", "dim"}),
    "join with a rollup": ("SELECT dim.name, x.h, x.n FROM dim JOIN (SELECT g, h, count(*) AS n FROM t1"
                           " GROUP BY ROLLUP (g, h)) x ON x.g = dim.g OR x.g IS NULL", {"t1", "dim"}),
    "the empty grouping set": ("SELECT count(*) AS n, sum(v) AS s, min(h) AS lo FROM t1 GROUP BY GROUPING SETS (())",
                               {"t1"}),
    "rollup of a key": ("SELECT id, g, h, count(*) AS n FROM t1 GROUP BY GROUPING SETS ((id), (id, g))", {"t1"}),
    "intersect": ("SELECT g, h FROM t1 INTERSECT SELECT g, s FROM t2", {"t1", "t2"}),
    "intersect all": ("SELECT g FROM t1 INTERSECT ALL SELECT g FROM t2", {"t1", "t2"}),
    "except": ("SELECT g, v FROM t1 EXCEPT SELECT g, v FROM t2", {"t1", "t2"}),
    "except all": ("SELECT a FROM t3 EXCEPT ALL SELECT c FROM t3", {"t3"}),
    "except all of two": ("SELECT g, h FROM t1 EXCEPT ALL SELECT g, s FROM t2 WHERE v > 0", {"t1", "t2"}),
    "set operations nested": ("(SELECT g FROM t1 UNION SELECT v FROM t2) EXCEPT (SELECT a FROM t3 INTERSECT SELECT g"
                              " FROM dim)", {"t1", "t2", "t3", "dim"}),
    "set operations of types": ("SELECT v FROM t1 UNION SELECT w FROM t1 EXCEPT ALL SELECT f::numeric FROM t1", {"t1"}),
    "count of an intersection": ("SELECT count(*) AS n FROM (SELECT g FROM t1 INTERSECT ALL SELECT g FROM t2) x",
                                 {"t1", "t2"}),
    "join with an exception": ("SELECT t1.id, x.g FROM t1 LEFT JOIN (SELECT g FROM dim EXCEPT SELECT g FROM t2) x"
                               " ON x.g = t1.g", {"t1", "t2", "dim"}),
    "values": ("SELECT t1.id, x.label FROM t1 JOIN (VALUES (1, 'one'), (2, 'two'), (NULL, 'none')) x(g, label)"
               " ON x.g = t1.g", {"t1"}),
    "values left join": ("SELECT x.g, count(t1.id) AS n FROM (VALUES (1), (2), (9)) x(g) LEFT JOIN t1 ON t1.g = x.g"
                         " GROUP BY x.g", {"t1"}),
    "union with values": ("SELECT g, h FROM t1 UNION VALUES (1, 'a'), (7, NULL)", {"t1"}),
    "union with a constant": ("SELECT h, v FROM t1 UNION ALL SELECT 'total', 0", {"t1"}),
    "limit": ("SELECT id, v FROM t1 ORDER BY id LIMIT 3", {"t1"}),
    "limit with offset": ("SELECT h, w FROM t1 ORDER BY w DESC NULLS LAST, id LIMIT 4 OFFSET 2", {"t1"}),
    "limit by what is not shown": ("SELECT h FROM t1 ORDER BY v, id DESC LIMIT 3", {"t1"}),
    "limit with ties": ("SELECT id, v FROM t1 ORDER BY v FETCH FIRST 2 ROWS WITH TIES", {"t1"}),
    "offset alone": ("SELECT id FROM t1 ORDER BY id OFFSET 4", {"t1"}),
    "limit 0": ("SELECT id FROM t1 ORDER BY id LIMIT 0", {"t1"}),
    "limit of groups": ("SELECT g, count(*) AS n FROM t1 GROUP BY g ORDER BY count(*) DESC, g LIMIT 2", {"t1"}),
    "limit of distinct": ("SELECT DISTINCT v, h FROM t1 ORDER BY v DESC, h LIMIT 3", {"t1"}),
    "limit of a union": ("SELECT g, h FROM t1 UNION ALL SELECT g, s FROM t2 ORDER BY 1, 2 DESC LIMIT 5", {"t1", "t2"}),
    "limit of a distinct on": ("SELECT DISTINCT ON (g) g, id, v FROM t1 ORDER BY g, v DESC, id LIMIT 2", {"t1"}),
    "limit below": ("SELECT x.h, count(*) AS n, sum(x.v) AS s FROM (SELECT id, h, v FROM t1 ORDER BY v DESC, id LIMIT 5)"
                    " x GROUP BY x.h", {"t1"}),
    "limit with ties below": ("SELECT x.v, t2.id FROM (SELECT v FROM t1 ORDER BY v DESC FETCH FIRST 3 ROWS WITH TIES) x"
                              " JOIN t2 ON t2.v = x.v", {"t1", "t2"}),
    "limit of a bag": ("SELECT b FROM t3 ORDER BY b LIMIT 4", {"t3"}),
    "union of limits": ("(SELECT id, g FROM t1 ORDER BY g, id LIMIT 2) UNION ALL (SELECT id, g FROM t2 ORDER BY g DESC,"
                        " id LIMIT 2)", {"t1", "t2"}),
}


def random_aggregate(g, scope):
    """One that the generator's own list has not, or None: (SQL, type)."""
    ints, texts, numbers = (g.of(scope, kinds) for kinds in ({"int"}, {"text"}, {"int", "num"}))
    forms = [(f"bool_and({g.predicate(scope)})::int", "int"), (f"bool_or({g.predicate(scope)})::int", "int")]
    if texts:
        h = g.rng.choice(texts)
        by = g.rng.choice(scope)[0]
        forms += [(f"string_agg({h}, '/' ORDER BY {by}, {h})", "text"), (f"string_agg(DISTINCT {h}, '/')", "text"),
                  (f"mode() WITHIN GROUP (ORDER BY {h})", "text")]
    if ints:
        v = g.rng.choice(ints)
        forms += [(f"percentile_disc(0.5) WITHIN GROUP (ORDER BY {v} DESC)", "int"), (f"bit_or({v})", "int"),
                  (f"rank(1) WITHIN GROUP (ORDER BY {v})", "int"), (f"count(DISTINCT {v})", "int")]
    if numbers:
        n = g.rng.choice(numbers)
        forms += [(f"{f}({n})", "num") for f in ("stddev", "var_pop", "variance", "stddev_pop")]
    return g.rng.choice(forms)


def random_form(g, depth):
    """A set operation, LIMIT, grouping sets or VALUES: (query, [(name, type)]), or None."""
    form = g.rng.random()
    if form < 0.3:
        left, columns = g.select(depth - 1)
        right, other = g.select(depth - 1)
        n = min(len(columns), len(other), 2)
        if any(columns[i][1] != other[i][1] for i in range(n)):
            return None
        op = g.rng.choice(["UNION", "INTERSECT", "EXCEPT"]) + g.rng.choice(["", " ALL"])
        a, b = (", ".join(name for name, _ in c[:n]) for c in (columns, other))
        return (f"SELECT {a} FROM ({left}) AS {g.alias()} {op} SELECT {b} FROM ({right}) AS {g.alias()}", columns[:n])
    if form < 0.6:
        inner, columns = g.select(depth - 1)
        names = [name for name, _ in columns]
        # By all columns: which rows are the first is certain.
        order = ", ".join(n + g.rng.choice(["", " DESC", " NULLS FIRST"]) for n in g.rng.sample(names, len(names)))
        if g.chance(0.2):
            rest = f"{names[0]} FETCH FIRST {g.rng.randint(1, 4)} ROWS WITH TIES"
        else:
            rest = order + f" LIMIT {g.rng.randint(0, 6)}" + g.rng.choice(["", "", " OFFSET 1"])
        return f"SELECT {', '.join(names)} FROM ({inner}) AS {g.alias()} ORDER BY {rest}", columns
    if form < 0.85:
        text, scope = g.from_clause(depth - 1)
        keys = [g.scalar(scope) for _ in range(2)]
        if keys[0][0] == keys[1][0]:
            return None
        a, b = (k for k, _ in keys)
        sets = g.rng.choice([f"ROLLUP ({a}, {b})", f"CUBE ({a}, {b})", f"GROUPING SETS (({a}), ({b}), ())",
                             f"{a}, ROLLUP ({b})"])
        listed, out = g.outputs([*keys, g.aggregate(scope), g.aggregate(scope), (f"grouping({b}, {a})", "int")])
        return f"SELECT {listed} FROM {text}{g.where(scope)} GROUP BY {sets}", out
    text, scope = g.from_clause(depth - 1)
    ints = g.of(scope, {"int"})
    if not ints:
        return None
    alias = g.alias()
    scope = scope + [(f"{alias}.n", "int"), (f"{alias}.label", "text")]
    listed, out = g.outputs([g.scalar(scope) for _ in range(3)])
    return (f"SELECT {listed} FROM {text} {g.rng.choice(['JOIN', 'LEFT JOIN'])}"
            f" (VALUES (1, 'one'), (2, 'two'), (2, NULL)) AS {alias}(n, label) ON {alias}.n = {g.rng.choice(ints)}", out)
