"""Definitions for the differential tester: subqueries in expressions, LATERAL, joins of every kind.
See queries.py.
"""

CORPUS = {
    "exists": ("SELECT id, h FROM t1 WHERE EXISTS (SELECT 1 FROM t2 WHERE t2.t1_id = t1.id)", {"t1", "t2"}),
    "exists with more conditions": (
        "SELECT id, h FROM t1 WHERE g > 0 AND EXISTS (SELECT * FROM t2 JOIN dim USING (g)"
        " WHERE t2.t1_id = t1.id AND t2.v < t1.v AND dim.rate > 1)", {"t1", "t2", "dim"}),
    "not exists": ("SELECT id, g FROM t1 WHERE NOT EXISTS (SELECT FROM t2 WHERE t2.t1_id = t1.id)", {"t1", "t2"}),
    "exists over a bag": ("SELECT a, b FROM t3 WHERE EXISTS (SELECT 1 FROM t3 y WHERE y.c = t3.a AND y.b <> t3.b)",
                          {"t3"}),
    "exists with no correlation": ("SELECT id FROM t1 WHERE EXISTS (SELECT 1 FROM t2 WHERE v > 4)", {"t1", "t2"}),
    "exists of a group": ("SELECT id FROM t1 WHERE EXISTS (SELECT g FROM t2 WHERE t2.g = t1.g GROUP BY g, s"
                          " HAVING count(*) > 1)", {"t1", "t2"}),
    "exists and not exists": (
        "SELECT t1.id, t2.id AS i2 FROM t1 JOIN t2 ON t2.t1_id = t1.id WHERE EXISTS (SELECT 1 FROM t2 x"
        " WHERE x.t1_id = t1.id AND x.id <> t2.id) AND NOT EXISTS (SELECT 1 FROM t2 x WHERE x.t1_id = t1.id"
        " AND x.id <> t2.id AND x.v > t2.v)", {"t1", "t2"}),
    "exists under or": ("SELECT id, g FROM t1 WHERE v > 4 OR EXISTS (SELECT 1 FROM t2 WHERE t2.t1_id = t1.id)"
                        " OR EXISTS (SELECT 1 FROM t3 WHERE t3.a = t1.g)", {"t1", "t2", "t3"}),
    "exists over an inequality": ("SELECT id FROM t1 WHERE NOT EXISTS (SELECT 1 FROM t2 WHERE t2.v > t1.v)",
                                  {"t1", "t2"}),
    "in": ("SELECT id, v FROM t1 WHERE g IN (SELECT t2.g FROM t2 WHERE v > 1)", {"t1", "t2"}),
    "in a correlated query": ("SELECT id, v FROM t1 WHERE v IN (SELECT t2.v FROM t2 WHERE t2.g = t1.g)",
                              {"t1", "t2"}),
    "not in": ("SELECT id, v FROM t1 WHERE v NOT IN (SELECT t2.v FROM t2 WHERE g = 1)", {"t1", "t2"}),
    "not in, correlated": ("SELECT id, v FROM t1 WHERE v NOT IN (SELECT t2.v FROM t2 WHERE t2.g = t1.g)",
                           {"t1", "t2"}),
    "not in of what can't be null": ("SELECT id, v FROM t1 WHERE id NOT IN (SELECT id FROM t2)", {"t1", "t2"}),
    "in several columns": ("SELECT id FROM t1 WHERE (g, h) IN (SELECT g, s FROM t2)", {"t1", "t2"}),
    "not in several columns": ("SELECT id FROM t1 WHERE (g, h) NOT IN (SELECT g, s FROM t2 WHERE v > 2)",
                               {"t1", "t2"}),
    "in as a value": ("SELECT id, v IN (SELECT c FROM t3) AS a, v NOT IN (SELECT a FROM t3 WHERE b = 'a') AS b,"
                      " EXISTS (SELECT 1 FROM t2 WHERE t2.t1_id = t1.id) AS c FROM t1", {"t1", "t2", "t3"}),
    "in a group": ("SELECT id, g FROM t1 WHERE g IN (SELECT g FROM t2 GROUP BY g HAVING sum(v) > 3)", {"t1", "t2"}),
    "in over an aggregate": ("SELECT g, count(*) AS n FROM t1 GROUP BY g HAVING count(*) IN (SELECT v FROM t2)",
                             {"t1", "t2"}),
    "any and all": ("SELECT id FROM t1 WHERE v > ANY (SELECT v FROM t2 WHERE t2.g = t1.g) AND v <= ALL"
                    " (SELECT a FROM t3 WHERE b = 'a')", {"t1", "t2", "t3"}),
    "all as a value": ("SELECT id, v >= ALL (SELECT v FROM t2 WHERE t2.g = t1.g) AS top,"
                       " v < ANY (SELECT a FROM t3) AS lower FROM t1", {"t1", "t2", "t3"}),
    "all under a case": ("SELECT id, CASE WHEN v <> ALL (SELECT c FROM t3) THEN 'new' WHEN NOT EXISTS (SELECT 1 FROM t2"
                         " WHERE t2.g = t1.g) THEN 'alone' ELSE h END AS what FROM t1", {"t1", "t2", "t3"}),
    "scalar": ("SELECT id, v, (SELECT max(v) FROM t2) AS top FROM t1 WHERE g = 1", {"t1", "t2"}),
    "scalar in a condition": ("SELECT id, v FROM t1 WHERE v > (SELECT avg(v) FROM t1 x)", {"t1"}),
    "scalar, correlated": ("SELECT id, (SELECT count(*) FROM t2 WHERE t2.t1_id = t1.id) AS n, (SELECT sum(v) FROM t2"
                           " WHERE t2.t1_id = t1.id) AS s FROM t1", {"t1", "t2"}),
    "scalar by key": ("SELECT id, (SELECT name FROM dim WHERE dim.g = t1.g) AS name FROM t1", {"t1", "dim"}),
    "scalar, the latest": ("SELECT id, (SELECT s FROM t2 WHERE t2.t1_id = t1.id ORDER BY v DESC NULLS LAST, id LIMIT 1)"
                           " AS latest FROM t1", {"t1", "t2"}),
    "scalar, correlated, in a condition": (
        "SELECT t1.id, t2.id AS i2 FROM t1 JOIN t2 ON t2.g = t1.g WHERE t2.v < (SELECT 0.5 * avg(x.v) FROM t2 x"
        " WHERE x.g = t1.g)", {"t1", "t2"}),
    "scalar in a scalar": (
        "SELECT id, (SELECT sum(t2.v + (SELECT count(*) FROM t3 WHERE t3.a = t2.g AND t3.c = t1.v)) FROM t2"
        " WHERE t2.t1_id = t1.id) AS s FROM t1", {"t1", "t2", "t3"}),
    "two levels of correlation": (
        "SELECT id FROM t1 WHERE EXISTS (SELECT 1 FROM t2 WHERE t2.t1_id = t1.id AND NOT EXISTS (SELECT 1 FROM t3"
        " WHERE t3.a = t2.g AND t3.c = t1.v))", {"t1", "t2", "t3"}),
    "correlated below a grouping": (
        "SELECT id, (SELECT max(n) FROM (SELECT s, count(*) AS n FROM t2 WHERE t2.g = t1.g GROUP BY s) x) AS most"
        " FROM t1", {"t1", "t2"}),
    "correlated in having": (
        "SELECT id FROM t1 WHERE EXISTS (SELECT s FROM t2 WHERE t2.g = t1.g GROUP BY s HAVING count(*) > t1.v)",
        {"t1", "t2"}),
    "having over a subquery": ("SELECT g, sum(v) AS s FROM t1 GROUP BY g HAVING sum(v) > (SELECT avg(v) FROM t2)",
                               {"t1", "t2"}),
    "having over a correlated one": ("SELECT g, count(*) AS n FROM t1 GROUP BY g HAVING EXISTS (SELECT 1 FROM t2"
                                     " WHERE t2.g = t1.g AND t2.v > 2)", {"t1", "t2"}),
    "subquery over a group": ("SELECT g, count(*) AS n, (SELECT count(*) FROM t2 WHERE t2.g = t1.g) AS n2 FROM t1"
                              " GROUP BY g", {"t1", "t2"}),
    "subquery of a key's column": ("SELECT t1.id, (SELECT count(*) FROM t2 WHERE t2.g = t1.v) AS n2, count(t3.a) AS n"
                                   " FROM t1 LEFT JOIN t3 ON t3.a = t1.g GROUP BY t1.id", {"t1", "t2", "t3"}),
    "subquery over grouping sets": ("SELECT g, h, count(*) AS n, (SELECT count(*) FROM t2 WHERE t2.g = t1.g) AS n2"
                                    " FROM t1 GROUP BY GROUPING SETS ((g), (h), ())", {"t1", "t2"}),
    "group by a subquery": ("SELECT (SELECT name FROM dim WHERE dim.g = t1.g) AS name, count(*) AS n FROM t1"
                            " GROUP BY (SELECT name FROM dim WHERE dim.g = t1.g)", {"t1", "dim"}),
    "aggregate of a subquery": ("SELECT g, sum((SELECT count(*) FROM t2 WHERE t2.t1_id = t1.id)) AS n,"
                                " count(*) FILTER (WHERE EXISTS (SELECT 1 FROM t3 WHERE t3.a = t1.v)) AS m FROM t1"
                                " GROUP BY g", {"t1", "t2", "t3"}),
    "aggregate over exists": ("SELECT g, count(*) AS n, sum(v) AS s FROM t1 WHERE EXISTS (SELECT 1 FROM t2"
                              " WHERE t2.t1_id = t1.id) GROUP BY g", {"t1", "t2"}),
    "max over not in": ("SELECT g, max(v) AS top FROM t1 WHERE v NOT IN (SELECT c FROM t3 WHERE c IS NOT NULL)"
                        " GROUP BY g", {"t1", "t3"}),
    "distinct over a subquery": ("SELECT DISTINCT g, (SELECT max(v) FROM t2 WHERE t2.g = t1.g) AS top FROM t1",
                                 {"t1", "t2"}),
    "limit over a subquery": ("SELECT id, (SELECT count(*) FROM t2 WHERE t2.g = t1.g) AS n FROM t1"
                              " ORDER BY (SELECT count(*) FROM t2 WHERE t2.g = t1.g) DESC, id LIMIT 4", {"t1", "t2"}),
    "window over a subquery": ("SELECT id, rank() OVER (PARTITION BY g ORDER BY v) AS r, (SELECT max(v) FROM t2"
                               " WHERE t2.t1_id = t1.id) AS top FROM t1 WHERE EXISTS (SELECT 1 FROM t3 WHERE t3.a = t1.g)",
                               {"t1", "t2", "t3"}),
    "array of a subquery": ("SELECT id, ARRAY(SELECT s FROM t2 WHERE t2.g = t1.g ORDER BY v DESC, id) AS ss"
                            " FROM t1", {"t1", "t2"}),
    "subquery in on": ("SELECT t1.id, t2.id AS i2 FROM t1 JOIN t2 ON t2.g = t1.g AND t2.v > (SELECT avg(x.v) FROM t2 x"
                       " WHERE x.g = t1.g)", {"t1", "t2"}),
    "subquery in the on of a left join": (
        "SELECT t1.id, t2.id AS i2 FROM t1 LEFT JOIN t2 ON t2.g = t1.g AND EXISTS (SELECT 1 FROM t3"
        " WHERE t3.a = t2.v AND t3.c = t1.v)", {"t1", "t2", "t3"}),
    "row compared with a subquery": ("SELECT id FROM t1 WHERE (g, v) = (SELECT max(g), max(v) FROM t2"
                                     " WHERE t2.t1_id = t1.id)", {"t1", "t2"}),
    "subquery of a cte": ("WITH x AS (SELECT g, count(*) AS n FROM t2 GROUP BY g) SELECT id, (SELECT n FROM x"
                          " WHERE x.g = t1.g) AS n FROM t1 WHERE g IN (SELECT g FROM x WHERE n > 1)", {"t1", "t2"}),
    "subquery of a union": ("SELECT id FROM t1 WHERE g IN (SELECT g FROM t2 WHERE t2.v = t1.v UNION ALL SELECT a FROM t3"
                            " WHERE t3.c = t1.v)", {"t1", "t2", "t3"}),
    "subquery of an except": ("SELECT id FROM t1 WHERE EXISTS (SELECT v FROM t2 WHERE t2.g = t1.g EXCEPT SELECT c FROM t3"
                              " WHERE t3.a = t1.v)", {"t1", "t2", "t3"}),
    "subquery with a distinct on": (
        "SELECT id, (SELECT x.v FROM (SELECT DISTINCT ON (g) g, v FROM t2 ORDER BY g, v DESC NULLS LAST, id) x"
        " WHERE x.g = t1.g) AS latest FROM t1", {"t1", "t2"}),
    "subquery with a window": ("SELECT id FROM t1 WHERE id IN (SELECT x.id FROM (SELECT id, row_number() OVER"
                               " (PARTITION BY g ORDER BY v, id) AS n FROM t1 y) x WHERE x.n <= 2)", {"t1"}),
    "subquery that left joins": ("SELECT id, (SELECT count(dim.g) FROM t2 LEFT JOIN dim ON dim.g = t2.v"
                                 " WHERE t2.t1_id = t1.id) AS n FROM t1", {"t1", "t2", "dim"}),
    "subquery that left joins its outer row": (
        "SELECT id, (SELECT count(dim.g) FROM t2 LEFT JOIN dim ON dim.g = t2.v AND dim.rate > t1.w"
        " WHERE t2.t1_id = t1.id) AS n FROM t1", {"t1", "t2", "dim"}),
    "subqueries of a left join": ("SELECT t1.id, t2.id AS i2 FROM t1 LEFT JOIN t2 ON t2.t1_id = t1.id WHERE NOT EXISTS"
                                  " (SELECT 1 FROM t3 WHERE t3.a = t2.g)", {"t1", "t2", "t3"}),
    "lateral aggregate": ("SELECT t1.id, x.n, x.top FROM t1, LATERAL (SELECT count(*) AS n, max(v) AS top FROM t2"
                          " WHERE t2.t1_id = t1.id) x", {"t1", "t2"}),
    "lateral rows": ("SELECT t1.id, x.s, x.d FROM t1 CROSS JOIN LATERAL (SELECT s, t2.v - t1.v AS d FROM t2"
                     " WHERE t2.g = t1.g) x", {"t1", "t2"}),
    "lateral rows, padded": ("SELECT t1.id, x.s FROM t1 LEFT JOIN LATERAL (SELECT s FROM t2 WHERE t2.g = t1.g"
                             " AND t2.v > t1.v) x ON true", {"t1", "t2"}),
    "lateral with a condition": ("SELECT t1.id, x.n FROM t1 LEFT JOIN LATERAL (SELECT count(*) AS n FROM t2"
                                 " WHERE t2.t1_id = t1.id) x ON x.n > t1.v", {"t1", "t2"}),
    "lateral top": ("SELECT t1.id, x.id AS i2, x.v FROM t1 CROSS JOIN LATERAL (SELECT id, v FROM t2 WHERE t2.g = t1.g"
                    " ORDER BY v DESC, id LIMIT 2) x", {"t1", "t2"}),
    "lateral top, padded": ("SELECT t1.id, x.v FROM t1 LEFT JOIN LATERAL (SELECT v FROM t2 WHERE t2.g = t1.g AND v > 0"
                            " ORDER BY v LIMIT 2 OFFSET 1) x ON true", {"t1", "t2"}),
    "lateral latest": ("SELECT t1.id, x.id AS i2, x.v FROM t1 LEFT JOIN LATERAL (SELECT DISTINCT ON (s) id, s, v"
                       " FROM t2 WHERE t2.g = t1.g ORDER BY s, v DESC, id) x ON true", {"t1", "t2"}),
    "lateral groups": ("SELECT t1.id, x.s, x.n FROM t1, LATERAL (SELECT s, count(*) AS n FROM t2 WHERE t2.g = t1.g"
                       " GROUP BY s) x WHERE x.n > 1", {"t1", "t2"}),
    "lateral of a lateral": ("SELECT t1.id, x.v, y.n FROM t1, LATERAL (SELECT t2.v FROM t2 WHERE t2.t1_id = t1.id) x,"
                             " LATERAL (SELECT count(*) AS n FROM t3 WHERE t3.a = x.v AND t3.c >= t1.g) y",
                             {"t1", "t2", "t3"}),
    "lateral expression": ("SELECT t1.id, x.twice, y.more FROM t1, LATERAL (SELECT t1.v * 2 AS twice) x,"
                           " LATERAL (SELECT x.twice + 1 AS more WHERE x.twice > 2) y", {"t1"}),
    "lateral in a join": ("SELECT dim.name, x.n FROM dim JOIN t1 ON t1.g = dim.g JOIN LATERAL (SELECT count(*) AS n"
                          " FROM t2 WHERE t2.t1_id = t1.id AND t2.g = dim.g) x ON true", {"t1", "t2", "dim"}),
    "aggregate over a lateral": ("SELECT g, sum(x.s) AS s FROM t1 LEFT JOIN LATERAL (SELECT sum(t2.v) AS s FROM t2"
                                 " WHERE t2.t1_id = t1.id) x ON true GROUP BY g", {"t1", "t2"}),
    "lateral over a bag": ("SELECT t3.a, x.n FROM t3, LATERAL (SELECT count(*) AS n FROM t3 y WHERE y.a = t3.c) x",
                           {"t3"}),
    "cross join": ("SELECT t3.a, dim.name FROM t3 CROSS JOIN dim WHERE dim.rate > 2", {"t3", "dim"}),
    "natural join": ("SELECT * FROM (SELECT g, id FROM t1) x NATURAL JOIN (SELECT g, name FROM dim) y", {"t1", "dim"}),
    "non-equi join": ("SELECT a.id, b.id AS other FROM t1 a JOIN t2 b ON b.v > a.v AND b.g = 1", {"t1", "t2"}),
    "non-equi left join": ("SELECT a.id, b.g FROM t1 a LEFT JOIN dim b ON b.g > a.g", {"t1", "dim"}),
    "full join": ("SELECT t1.id, t2.id AS i2, t2.s FROM t1 FULL JOIN t2 ON t2.t1_id = t1.id", {"t1", "t2"}),
    "full join using": ("SELECT g, t1.id, name, t1.g AS g1, dim.g AS g2 FROM t1 FULL JOIN dim USING (g)", {"t1", "dim"}),
    "full joins in a row": ("SELECT g, t1.id, t2.id AS i2, name FROM t1 FULL JOIN t2 USING (g) FULL JOIN dim USING (g)",
                            {"t1", "t2", "dim"}),
    "natural full join": ("SELECT * FROM (SELECT g, h FROM t1) x NATURAL FULL JOIN (SELECT a AS g, b FROM t3) y",
                          {"t1", "t3"}),
    "aggregate over a full join": ("SELECT g, count(*) AS n, sum(t1.v) AS s, count(t2.id) AS n2, max(t2.v) AS top FROM t1"
                                   " FULL JOIN t2 USING (g) GROUP BY g", {"t1", "t2"}),
    "full join of bags": ("SELECT x.b, y.c FROM t3 x FULL JOIN t3 y ON x.a = y.c WHERE x.b IS NULL OR y.c > 0", {"t3"}),
    "full join of groups": ("SELECT x.g, x.n, y.g AS g2, y.n AS n2 FROM (SELECT g, count(*) AS n FROM t1 GROUP BY g) x"
                            " FULL JOIN (SELECT g, count(*) AS n FROM t2 GROUP BY g) y ON x.g = y.g", {"t1", "t2"}),
    "subquery that full joins": ("SELECT id FROM t1 WHERE v IN (SELECT COALESCE(t2.v, t3.c) FROM t2 FULL JOIN t3"
                                 " ON t3.a = t2.g)", {"t1", "t2", "t3"}),
    "self joins": ("SELECT a.id, b.id AS i2, c.id AS i3 FROM t1 a JOIN t1 b ON b.g = a.v JOIN t1 c ON c.g = b.v"
                   " LEFT JOIN t1 d ON d.id = c.v", {"t1"}),
}


# ---- random ones, for queries.Generator: g ------------------------------------------------------------

def correlated(g, scope):
    """(FROM, WHERE, the columns) of a subquery over a base table that has to do with a row of scope."""
    text, columns = g.base()
    pairs = [(a, b) for a, ka in columns for b, kb in scope if ka == kb]
    where = []
    if pairs and g.chance(0.8):
        a, b = g.rng.choice(pairs)
        where.append(f"{a} {g.rng.choice(['=', '=', '=', '>', '<>'])} {b}")
    if g.chance(0.4):
        where.append(g.predicate(columns, 0))
    return text, " WHERE " + " AND ".join(where) if where else "", columns


def condition(g, scope):
    """A condition with a subquery, sometimes among others."""
    text, where, columns = correlated(g, scope)
    form = g.rng.random()
    same = [(a, b) for a, ka in columns for b, kb in scope if ka == kb]
    if form < 0.35 or not same:
        found = f"EXISTS (SELECT 1 FROM {text}{where})"
    elif form < 0.7:
        a, b = g.rng.choice(same)
        found = f"{b} IN (SELECT {a} FROM {text}{where})"
    elif form < 0.85:
        a, b = g.rng.choice(same)
        found = f"{b} {g.rng.choice(['>', '<=', '<>'])} {g.rng.choice(['ANY', 'ALL'])} (SELECT {a} FROM {text}{where})"
    else:
        a, b = g.rng.choice(same)
        found = f"{b} {g.rng.choice(['>=', '<', '='])} (SELECT {g.rng.choice(['min', 'max'])}({a}) FROM {text}{where})"
    if g.chance(0.3):
        found = f"NOT ({found})"
    if g.chance(0.3):
        found = f"({found} {g.rng.choice(['AND', 'OR'])} {g.predicate(scope, 0)})"
    return found


def value(g, scope):
    """A scalar subquery: (SQL, type)."""
    text, where, columns = correlated(g, scope)
    if g.chance(0.4):
        return f"(SELECT count(*) FROM {text}{where})", "int"
    c, kind = g.rng.choice(columns)
    return f"(SELECT {g.rng.choice(['min', 'max'])}({c}) FROM {text}{where})", "int" if kind == "key" else kind


def lateral(g, scope):
    """A subquery for LATERAL: (query, [(name, type)])."""
    text, where, columns = correlated(g, scope)
    if g.chance(0.5):
        listed, out = g.outputs([g.aggregate(columns) for _ in range(2)])
        return f"SELECT {listed} FROM {text}{where}", out
    chosen = [g.rng.choice(columns) for _ in range(2)]
    listed, out = g.outputs(chosen)
    if g.chance(0.5):
        return f"SELECT {listed} FROM {text}{where}", out
    order = ", ".join(c for c, _ in columns)
    return f"SELECT {listed} FROM {text}{where} ORDER BY {order} LIMIT {g.rng.randint(1, 3)}", out
