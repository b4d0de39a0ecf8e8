"""Window functions, set-returning functions, recursion: definitions for the differential tester (queries.py)."""

# name -> (query, tables), as CORPUS.  ORDER BY decides, or ties make no difference: PostgreSQL's choice among
# ties is not ours.
CORPUS = {
    "row_number": ("SELECT id, g, v, row_number() OVER (PARTITION BY g ORDER BY v DESC, id) AS rn FROM t1", {"t1"}),
    "partition not shown": ("SELECT id, rank() OVER (PARTITION BY g, h ORDER BY v) AS r FROM t1", {"t1"}),
    "ranks with ties": ("SELECT id, rank() OVER w, dense_rank() OVER w, percent_rank() OVER w, cume_dist() OVER w"
                        " FROM t1 WINDOW w AS (PARTITION BY g ORDER BY v)", {"t1"}),
    "one partition": ("SELECT id, ntile(3) OVER (ORDER BY v NULLS FIRST, id) AS t FROM t1", {"t1"}),
    "no order": ("SELECT id, count(*) OVER (PARTITION BY h) AS n, sum(w) OVER () AS s FROM t1", {"t1"}),
    "running sum over peers": ("SELECT id, sum(v) OVER (PARTITION BY g ORDER BY d) AS s FROM t1", {"t1"}),
    "rows frame": ("SELECT id, avg(w) OVER (PARTITION BY g ORDER BY id ROWS BETWEEN 2 PRECEDING AND 1 FOLLOWING)"
                   " AS a FROM t1", {"t1"}),
    "range frame": ("SELECT id, count(*) OVER (ORDER BY v RANGE BETWEEN 1 PRECEDING AND 2 FOLLOWING"
                    " EXCLUDE CURRENT ROW) AS n FROM t1", {"t1"}),
    "range frame of days": ("SELECT id, sum(v) OVER (PARTITION BY g ORDER BY d RANGE BETWEEN '1 day' PRECEDING AND"
                            " CURRENT ROW EXCLUDE TIES) AS s FROM t1", {"t1"}),
    "groups frame": ("SELECT id, array_agg(id) OVER (PARTITION BY h ORDER BY id DESC GROUPS BETWEEN UNBOUNDED"
                     " PRECEDING AND 1 FOLLOWING EXCLUDE GROUP) AS a FROM t1", {"t1"}),
    "lag and lead": ("SELECT id, lag(v) OVER w AS p, lead(v, 2, -1) OVER w AS nx, v - lag(v) OVER w AS diff FROM t1"
                     " WINDOW w AS (PARTITION BY g ORDER BY id)", {"t1"}),
    "first last nth": ("SELECT id, first_value(h) OVER w, last_value(v) OVER (w RANGE BETWEEN CURRENT ROW AND"
                       " UNBOUNDED FOLLOWING), nth_value(v, 2) OVER w FROM t1"
                       " WINDOW w AS (PARTITION BY g ORDER BY d, id)", {"t1"}),
    "several partitions": ("SELECT id, count(*) OVER (PARTITION BY g) AS a, max(v) OVER (PARTITION BY h) AS b,"
                           " row_number() OVER (ORDER BY id) AS c FROM t1", {"t1"}),
    "inside expressions": ("SELECT id, CASE WHEN rank() OVER (PARTITION BY g ORDER BY v) = 1 THEN 'top' ELSE h END"
                           " AS x, 100 * v / nullif(sum(v) OVER (PARTITION BY g), 0) AS share FROM t1", {"t1"}),
    "window filter clause": ("SELECT id, count(*) FILTER (WHERE v > 1) OVER (PARTITION BY g) AS n FROM t1", {"t1"}),
    "over aggregates": ("SELECT g, sum(v) AS s, rank() OVER (ORDER BY sum(v) DESC NULLS LAST) AS r,"
                        " sum(count(*)) OVER (ORDER BY g) AS running FROM t1 GROUP BY g", {"t1"}),
    "top of each group": ("SELECT id, g, v FROM (SELECT t1.*, row_number() OVER (PARTITION BY g ORDER BY v DESC, id)"
                          " AS rn FROM t1) x WHERE rn <= 2", {"t1"}),
    "window over a join": ("SELECT t1.id, t2.id AS i2, sum(t2.v) OVER (PARTITION BY t1.g ORDER BY t1.id, t2.id) AS s"
                           " FROM t1 JOIN t2 ON t2.t1_id = t1.id", {"t1", "t2"}),
    "window below a join": ("SELECT t2.id, x.rn FROM t2 JOIN (SELECT id, row_number() OVER (PARTITION BY g ORDER BY"
                            " v, id) AS rn FROM t1) x ON x.id = t2.t1_id", {"t1", "t2"}),
    "window below an aggregate": ("SELECT rn, count(*) AS n, sum(v) AS s FROM (SELECT v, dense_rank() OVER (PARTITION"
                                  " BY g ORDER BY v) AS rn FROM t1) x GROUP BY rn", {"t1"}),
    "window of a window": ("SELECT id, lag(rn) OVER (PARTITION BY h ORDER BY id) AS p FROM (SELECT id, h, row_number()"
                           " OVER (PARTITION BY g ORDER BY v, id) AS rn FROM t1) x", {"t1"}),
    "window over a bag": ("SELECT a, b, count(*) OVER (PARTITION BY a) AS n, rank() OVER (PARTITION BY a ORDER BY c)"
                          " AS r FROM t3", {"t3"}),
    "numbers of a bag": ("SELECT a, row_number() OVER (PARTITION BY a ORDER BY a) AS n FROM t3", {"t3"}),
    "distinct over a window": ("SELECT DISTINCT g, max(v) OVER (PARTITION BY g) AS top FROM t1", {"t1"}),
    "distinct on over a window": ("SELECT DISTINCT ON (g) g, id, count(*) OVER (PARTITION BY h) AS n FROM t1"
                                  " ORDER BY g, count(*) OVER (PARTITION BY h) DESC, id", {"t1"}),
    "window over an aggregate below": ("SELECT k, n, rank() OVER (PARTITION BY n % 2 ORDER BY n DESC) AS r FROM (SELECT"
                                       " g AS k, count(*) AS n FROM t1 GROUP BY g) x", {"t1"}),
    "window over the union": ("SELECT k, row_number() OVER (PARTITION BY k ORDER BY n) AS rn, n FROM (SELECT g AS k, id"
                              " AS n FROM t1 UNION ALL SELECT g, id + 1000 FROM t2) u", {"t1", "t2"}),
}

# One row makes many: linear in the row.
FUNCTIONS = {
    "series in the select list": ("SELECT id, generate_series(1, v) AS n FROM t1", {"t1"}),
    "series in lockstep": ("SELECT g, generate_series(1, v) AS n, regexp_split_to_table(h, '') AS c FROM t1", {"t1"}),
    "lateral series": ("SELECT t1.id, n FROM t1, generate_series(0, t1.v) AS n WHERE n <> 2", {"t1"}),
    "ordinality": ("SELECT t1.id, u.* FROM t1 CROSS JOIN LATERAL unnest(ARRAY[v, g, NULL, 3]) WITH ORDINALITY AS u(x, i)"
                   " WHERE x IS DISTINCT FROM 1", {"t1"}),
    "rows from": ("SELECT t3.a, r.* FROM t3, ROWS FROM (generate_series(1, t3.a), unnest(ARRAY[t3.b, 'x']))"
                  " WITH ORDINALITY AS r(n, w, i)", {"t3"}),
    "left join lateral": ("SELECT t1.id, n FROM t1 LEFT JOIN LATERAL generate_series(1, t1.v) AS n ON n > t1.g", {"t1"}),
    "jsonb_each": ("SELECT id, e.key, e.value FROM t1, jsonb_each(jsonb_build_object('g', g, 'h', h)) AS e"
                   " WHERE e.value <> 'null'", {"t1"}),
    "records": ("SELECT id, r.a, r.b FROM t1, jsonb_to_recordset(jsonb_build_array(jsonb_build_object('a', v, 'b', h),"
                " jsonb_build_object('a', g))) AS r(a int, b text)", {"t1"}),
    "aggregate over a function": ("SELECT c, count(*) AS n, sum(v) AS s FROM t1, regexp_split_to_table(h, '') AS c"
                                  " GROUP BY c", {"t1"}),
    "group by a set": ("SELECT unnest(ARRAY[g, v]) AS k, count(*) AS n FROM t1 GROUP BY 1", {"t1"}),
    "distinct of a set": ("SELECT DISTINCT unnest(ARRAY[g, v, 1]) AS k FROM t1", {"t1"}),
    "set over aggregates": ("SELECT g, generate_series(1, count(*)) AS n FROM t1 GROUP BY g", {"t1"}),
    "calendar": ("SELECT c.d::date AS d, count(t1.id) AS n FROM generate_series(DATE '2026-03-01', DATE '2026-03-06',"
                 " '1 day') AS c(d) LEFT JOIN t1 ON t1.d = c.d GROUP BY 1", {"t1"}),
    "function first": ("SELECT n, t1.id FROM generate_series(-1, 3) AS n JOIN t1 ON t1.v = n", {"t1"}),
    "join above a function": ("SELECT t2.id, n FROM t1 CROSS JOIN generate_series(1, t1.v) AS n JOIN t2 ON t2.t1_id ="
                              " t1.id AND t2.v = n", {"t1", "t2"}),
    "window over a function": ("SELECT id, n, count(*) OVER (PARTITION BY n) AS c FROM t1, generate_series(1, v) AS n",
                               {"t1"}),
    "constant branch": ("SELECT g, v FROM t1 UNION ALL SELECT 0, 0", {"t1"}),
}
CORPUS.update(FUNCTIONS)

# t1.v points to t1.id, parent and child hang together by ids, t3 by a and c: trees, graphs with cycles, forests.
RECURSION = {
    "reachable": ("WITH RECURSIVE r(x) AS (SELECT id FROM t1 WHERE g = 1 UNION SELECT t1.v FROM r JOIN t1 ON t1.id = r.x)"
                  " SELECT x FROM r", {"t1"}),
    "closure": ("WITH RECURSIVE r(a, c) AS (SELECT a, c FROM t3 UNION SELECT r.a, t3.c FROM r JOIN t3 ON t3.a = r.c)"
                " SELECT a, c FROM r", {"t3"}),
    "levels": ("WITH RECURSIVE r(id, depth) AS (SELECT id, 0 FROM t1 WHERE v IS NULL OR v < 1 UNION ALL SELECT t1.id,"
               " r.depth + 1 FROM t1 JOIN r ON t1.v = r.id WHERE r.depth < 4) SELECT depth, count(*) AS n FROM r"
               " GROUP BY depth", {"t1"}),
    "path": ("WITH RECURSIVE r(a, path) AS (SELECT a, ARRAY[a] FROM t3 WHERE b = 'a' UNION ALL SELECT t3.c, r.path || t3.c"
             " FROM r JOIN t3 ON t3.a = r.a WHERE t3.c <> ALL (r.path)) SELECT a, path FROM r", {"t3"}),
    "recursion below a join": ("WITH RECURSIVE r(x) AS (SELECT g FROM t2 WHERE v > 1 UNION SELECT t1.v FROM r JOIN t1 ON"
                               " t1.g = r.x) SELECT t2.id, r.x FROM t2 LEFT JOIN r ON r.x = t2.g", {"t1", "t2"}),
    "recursion over an aggregate": ("WITH RECURSIVE n(g, c) AS (SELECT g, count(*) FROM t1 GROUP BY g), r(g, c) AS (SELECT"
                                    " g, c FROM n WHERE g < 2 UNION SELECT n.g, n.c FROM r JOIN n ON n.g = r.c)"
                                    " SELECT g, c FROM r", {"t1"}),
    "recursion of numbers": ("WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 4) SELECT t1.id, n"
                             " FROM t1 JOIN r ON r.n = t1.g", {"t1"}),
    "two recursions": ("WITH RECURSIVE a(x) AS (SELECT id FROM t1 WHERE g = 1 UNION SELECT t1.v FROM a JOIN t1 ON t1.id ="
                       " a.x), b(x) AS (SELECT x FROM a WHERE x > 2 UNION SELECT t2.v FROM b JOIN t2 ON t2.id = b.x)"
                       " SELECT x FROM b", {"t1", "t2"}),
    "window over a recursion": ("WITH RECURSIVE r(x) AS (SELECT id FROM t1 WHERE g = 1 UNION SELECT t1.v FROM r JOIN t1 ON"
                                " t1.id = r.x) SELECT x, rank() OVER (ORDER BY x) AS k FROM r", {"t1"}),
}
CORPUS.update(RECURSION)


def window_call(g, scope, keys, of_peers=False):
    """A window call that PostgreSQL's choice among ties does not show in; keys make ORDER BY total, but for equal
    rows.  of_peers: equal rows get equal answers."""
    rng = g.rng
    parts = [rng.choice(scope)[0] for _ in range(rng.choice([0, 1, 1, 1, 2]))]
    partition = f"PARTITION BY {', '.join(parts)} " if parts else ""
    order = ", ".join(rng.choice(scope)[0] + rng.choice(["", " DESC", " NULLS FIRST"]) for _ in range(rng.randint(1, 2)))
    total = f"{order}, {', '.join(keys)}"
    c, kind = rng.choice(scope)
    numbers = g.of(scope, {"int", "num"})
    form = rng.random()
    if form < 0.2 or of_peers:
        call = rng.choice(["rank()", "dense_rank()", "count(*)"])
        return f"{call} OVER ({partition}ORDER BY {order})", "int"
    if form < 0.4:
        return f"row_number() OVER ({partition}ORDER BY {total})", "int"
    if form < 0.55:
        call = rng.choice([f"lag({c})", f"lead({c}, 2)", f"first_value({c})", f"last_value({c})", f"nth_value({c}, 2)"])
        return f"{call} OVER ({partition}ORDER BY {total})", kind
    frame = rng.choice(["", "ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING", "ROWS UNBOUNDED PRECEDING",
                        "GROUPS BETWEEN 1 PRECEDING AND CURRENT ROW EXCLUDE TIES", "RANGE BETWEEN CURRENT ROW AND"
                        " UNBOUNDED FOLLOWING", "ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING EXCLUDE CURRENT ROW"])
    call = f"sum({rng.choice(numbers)})" if numbers and rng.random() < 0.6 else f"count({c})"
    if rng.random() < 0.2:
        call += f" FILTER (WHERE {g.predicate(scope)})"
    if not frame and rng.random() < 0.5:
        return f"{call} OVER ({partition.rstrip()})", "num"
    return f"{call} OVER ({partition}ORDER BY {total} {frame})", "num"


def windows(g, depth):
    inner, columns = g.select(depth - 1)
    alias = g.alias()
    scope = [(f"{alias}.{c}", k) for c, k in columns]
    # One numbering of equal rows at most: which goes with which would be PostgreSQL's choice.
    calls = [window_call(g, scope, [c for c, _ in scope], of_peers=i > 0) for i in range(g.rng.randint(1, 2))]
    listed, out = g.outputs([g.rng.choice(scope) for _ in range(g.rng.randint(1, 2))] + calls)
    return f"SELECT {listed} FROM ({inner}) AS {alias}{g.where(scope)}", out


def functions(g, depth):
    text, scope = g.from_clause(depth - 1)
    numbers = g.of(scope, {"int"})
    if not numbers:
        return None
    name, n = g.alias(), g.rng.choice(numbers)
    form = g.rng.random()
    if form < 0.3:
        listed, out = g.outputs([g.rng.choice(scope), (f"generate_series(1, {n})", "int")])
        return f"SELECT {listed} FROM {text}{g.where(scope)}", out
    if form < 0.6:
        text += f" CROSS JOIN LATERAL generate_series(0, least({n}, 4)) AS {name}(n)"
    elif form < 0.8:
        text += f" LEFT JOIN LATERAL unnest(ARRAY[{n}, 2, NULL]) AS {name}(n) ON n > {g.rng.randint(-1, 3)}"
    else:
        text += f" CROSS JOIN LATERAL unnest(ARRAY[{n}, 1]) WITH ORDINALITY AS {name}(n, i)"
    scope = scope + [(f"{name}.n", "int")]
    if g.chance(0.4):
        key = g.rng.choice(scope)
        listed, out = g.outputs([key, g.aggregate(scope, True)])
        return f"SELECT {listed} FROM {text}{g.where(scope)} GROUP BY {key[0]}", out
    listed, out = g.outputs([g.scalar(scope), (f"{name}.n", "int")])
    return f"SELECT {listed} FROM {text}{g.where(scope)}", out


def recursion(g, depth):
    """Of sets of small numbers: it ends whatever the rows are."""
    starts, columns = g.select(depth - 1)
    start = [c for c, k in columns if k == "int"]
    text, scope = g.from_clause(0)
    numbers = g.of(scope, {"int"})
    if not start or len(numbers) < 2:
        return None
    name, alias = g.alias(), g.alias()
    a, b = g.rng.choice(numbers), g.rng.choice(numbers)
    return (f"WITH RECURSIVE {name}(c0) AS (SELECT {start[0]}::int FROM ({starts}) AS {alias} UNION SELECT {b} FROM {text}"
            f" JOIN {name} ON {name}.c0 = {a}) SELECT c0 FROM {name}", [("c0", "int")])


def random_form(g, depth):
    """(query, columns); None when there is nothing to build it of."""
    form = g.rng.random()
    return (windows if form < 0.5 else functions if form < 0.85 else recursion)(g, depth)
