"""Definitions for the differential tester: a corpus that names each form, and random ones of the same
class.  Each is (query, tables it reads).
"""

from tests.support import queries_aggregates, queries_subqueries, queries_windows, workload

# name -> (query, tables).  Every one of these must be accepted as DIFFERENTIAL and as IMMEDIATE.
CORPUS = {
    "filter": ("SELECT id, g, h FROM t1 WHERE v > 1 OR h = 'a'", {"t1"}),
    "projection without the key": ("SELECT g, upper(h) AS u, coalesce(v, 0) * 2 AS twice FROM t1", {"t1"}),
    "bag of a keyless table": ("SELECT a, b FROM t3 WHERE c IS DISTINCT FROM 1", {"t3"}),
    "star": ("SELECT * FROM t1", {"t1"}),
    "inner join": ("SELECT t1.id, t2.id AS id2, t1.v + t2.v AS s FROM t1 JOIN t2 ON t2.t1_id = t1.id",
                   {"t1", "t2"}),
    "comma join": ("SELECT t1.h, t2.s FROM t1, t2 WHERE t1.id = t2.t1_id AND t1.g = 1", {"t1", "t2"}),
    "join using": ("SELECT g, t1.id, name FROM t1 JOIN dim USING (g)", {"t1", "dim"}),
    "self join": ("SELECT a.id, b.id AS other FROM t1 a JOIN t1 b ON a.g = b.v", {"t1"}),
    "three tables": ("SELECT t1.id, t2.id AS i2, name FROM t1 JOIN t2 ON t2.t1_id = t1.id"
                     " JOIN dim ON dim.g = t2.g", {"t1", "t2", "dim"}),
    "join of bags": ("SELECT x.b, y.b AS other FROM t3 x JOIN t3 y ON x.a = y.c", {"t3"}),
    "left join": ("SELECT t1.id, t2.id AS i2, t2.s FROM t1 LEFT JOIN t2 ON t2.t1_id = t1.id", {"t1", "t2"}),
    "left join with a condition": ("SELECT t1.id, t2.v FROM t1 LEFT JOIN t2 ON t2.t1_id = t1.id AND t2.v > 1"
                                   " WHERE t1.g IS NOT NULL", {"t1", "t2"}),
    "left joins in a row": ("SELECT t1.id, t2.s, dim.name FROM t1 LEFT JOIN t2 ON t2.t1_id = t1.id"
                            " LEFT JOIN dim ON dim.g = t2.g", {"t1", "t2", "dim"}),
    "left join, what is not matched": ("SELECT t1.id FROM t1 LEFT JOIN t2 ON t2.t1_id = t1.id"
                                       " WHERE t2.id IS NULL", {"t1", "t2"}),
    "count": ("SELECT g, count(*) FROM t1 GROUP BY g", {"t1"}),
    "sum avg count": ("SELECT g, count(*) AS n, count(v) AS nv, sum(v) AS s, avg(w) AS a, sum(f) AS sf"
                      " FROM t1 GROUP BY g", {"t1"}),
    "min max": ("SELECT g, min(v) AS lo, max(w) AS hi, min(h) AS first, max(d) AS last FROM t1 GROUP BY g",
                {"t1"}),
    "filter clause": ("SELECT g, count(*) FILTER (WHERE v > 2) AS big, sum(v) FILTER (WHERE h = 'a') AS a"
                      " FROM t1 GROUP BY g", {"t1"}),
    "having": ("SELECT g, count(*) AS n, sum(v) AS s FROM t1 GROUP BY g HAVING count(*) > 2 AND sum(v) > 0",
               {"t1"}),
    "having not shown": ("SELECT g FROM t1 GROUP BY g HAVING min(v) < 0", {"t1"}),
    "group key not shown": ("SELECT count(*) AS n, sum(v) AS s FROM t1 GROUP BY g, h", {"t1"}),
    "group by expression": ("SELECT date_trunc('month', d) AS m, v % 2 AS odd, count(*) AS n FROM t1"
                            " GROUP BY 1, 2", {"t1"}),
    "expression over aggregates": ("SELECT g, coalesce(sum(w), 0) / (count(*) + 1) AS x FROM t1 GROUP BY g",
                                   {"t1"}),
    "divided by a count": ("SELECT g, 100 / count(*) AS share, sum(v) / count(*) AS mean FROM t1 GROUP BY g", {"t1"}),
    "division by a count": ("SELECT g, h, sum(v) / count(*) AS mean, 6 / count(*) AS share FROM t1 GROUP BY g, h",
                            {"t1"}),
    "global": ("SELECT count(*) AS n, sum(v) AS s, avg(v) AS a FROM t1", {"t1"}),
    "global min max": ("SELECT min(v) AS lo, max(h) AS hi FROM t1 WHERE g > 0", {"t1"}),
    "global with having": ("SELECT count(*) AS n FROM t3 HAVING count(*) > 3", {"t3"}),
    "aggregate over join": ("SELECT name, count(*) AS n, sum(t1.v * dim.rate) AS s FROM t1 JOIN dim USING (g)"
                            " GROUP BY name", {"t1", "dim"}),
    "aggregate over left join": ("SELECT t1.id, t1.h, count(t2.id) AS n, coalesce(sum(t2.v), 0) AS s"
                                 " FROM t1 LEFT JOIN t2 ON t2.t1_id = t1.id GROUP BY t1.id, t1.h",
                                 {"t1", "t2"}),
    "distinct": ("SELECT DISTINCT g, h FROM t1", {"t1"}),
    "distinct over join": ("SELECT DISTINCT t1.g, t2.s FROM t1 JOIN t2 ON t2.g = t1.g", {"t1", "t2"}),
    "distinct on": ("SELECT DISTINCT ON (g) g, id, v FROM t1 ORDER BY g, v DESC, id", {"t1"}),
    "distinct on the key": ("SELECT DISTINCT ON (id) id, g, v FROM t1 WHERE h IN ('a', 'b')", {"t1"}),
    "union all": ("SELECT id, g FROM t1 UNION ALL SELECT id, t1_id FROM t2 WHERE v > 0", {"t1", "t2"}),
    "union all of the same table": ("SELECT a, b FROM t3 UNION ALL SELECT c, b FROM t3", {"t3"}),
    "aggregate over union all": ("SELECT k, sum(n) AS s FROM (SELECT g AS k, v AS n FROM t1 UNION ALL"
                                 " SELECT g, v FROM t2) u GROUP BY k", {"t1", "t2"}),
    "join with an aggregated subquery": ("SELECT t1.id, x.n FROM t1 JOIN (SELECT t1_id, count(*) AS n FROM t2"
                                         " GROUP BY t1_id) x ON x.t1_id = t1.id", {"t1", "t2"}),
    "left join with an aggregated subquery": (
        "SELECT t1.id, t1.v, x.n, x.top FROM t1 LEFT JOIN (SELECT t1_id, count(*) AS n, max(v) AS top FROM t2"
        " GROUP BY t1_id) x ON x.t1_id = t1.id", {"t1", "t2"}),
    "aggregate of an aggregate": ("SELECT n, count(*) AS groups FROM (SELECT g, count(*) AS n FROM t1"
                                  " GROUP BY g) x GROUP BY n", {"t1"}),
    "cte": ("WITH big AS (SELECT id, g FROM t1 WHERE v > 1) SELECT g, count(*) AS n FROM big GROUP BY g",
            {"t1"}),
    "cte used twice": ("WITH x AS (SELECT g, count(*) AS n FROM t1 GROUP BY g)"
                       " SELECT a.g, b.g AS other, a.n FROM x a JOIN x b ON a.n = b.n", {"t1"}),
    "view": ("SELECT g, count(*) AS n, max(v) AS top FROM v1 GROUP BY g", {"t1"}),
    "view of a join": ("SELECT name, count(*) AS n FROM v2 GROUP BY name", {"t2", "dim"}),
    "cascades": ("SELECT parent.id, parent.g, count(child.id) AS n, sum(child.v) AS s FROM parent"
                 " LEFT JOIN child ON child.parent_id = parent.id GROUP BY parent.id, parent.g",
                 {"parent", "child"}),
    "join over a cascade": ("SELECT child.id, parent.g, child.v FROM child JOIN parent ON parent.id = parent_id",
                            {"parent", "child"}),
    "group by a condition": ("SELECT NOT (v > 1) AS small, max(v) AS top FROM t1 GROUP BY NOT (v > 1)", {"t1"}),
    "group by two conditions": ("SELECT v > 1 AS big, h IS NULL AS bare, min(w) AS lo FROM t1"
                                " GROUP BY v > 1, h IS NULL", {"t1"}),
    "distinct on expressions": ("SELECT DISTINCT ON (upper(h), v + 1) upper(h) AS u, v + 1 AS w, id FROM t1"
                                " ORDER BY v + 1, upper(h) DESC, id", {"t1"}),
    "concatenation": ("SELECT id, g || '/' || h AS path FROM t1", {"t1"}),
    "texts made of numbers": ("SELECT w::text AS w, count(*) AS n FROM t1 GROUP BY w::text", {"t1"}),
    "quotient of a sum": ("SELECT g, sum(v * w) / 3 AS third, round(sum(w), 1) AS r FROM t1 GROUP BY g", {"t1"}),
    "key of two columns": ("SELECT p.a, p.b, p.v, dim.name FROM pairs p JOIN dim ON dim.g = p.b",
                           {"pairs", "dim"}),
    "full row equality": ("SELECT v, w, f, d FROM t1 WHERE g = 1", {"t1"}),
}

CORPUS.update(queries_aggregates.CORPUS)
CORPUS.update(queries_windows.CORPUS)
CORPUS.update(queries_subqueries.CORPUS)

# Many, or slow to plan: run with fewer statements.
SHORT = {*queries_windows.CORPUS, *queries_subqueries.CORPUS}

# Over a stream table st(…) whose query is the first; refreshed after it.
CHAINS = {
    "aggregate over a filter": ("SELECT id, g, v FROM t1 WHERE h IS NOT NULL",
                                "SELECT g, count(*) AS n, sum(v) AS s FROM {st} GROUP BY g", {"t1"}),
    "filter over an aggregate": ("SELECT g, count(*) AS n, sum(v) AS s FROM t1 GROUP BY g",
                                 "SELECT g, s FROM {st} WHERE n > 1", {"t1"}),
    "join of a stream table and a table": ("SELECT g, sum(v) AS s FROM t1 GROUP BY g",
                                           "SELECT t2.id, st.s FROM t2 JOIN {st} AS st ON st.g = t2.g",
                                           {"t1", "t2"}),
    "over a distinct on": ("SELECT DISTINCT ON (g) g, id, v, h FROM t1 ORDER BY g, v DESC, id",
                           "SELECT h, count(*) AS n, max(v) AS top FROM {st} GROUP BY h", {"t1"}),
    "over a bag": ("SELECT a, b FROM t3", "SELECT a, count(*) AS n FROM {st} GROUP BY a", {"t3"}),
}

KIND_TYPES = {"key": "int", "int": "int", "text": "text", "num": "num", "float": "float", "date": "date"}


class Generator:
    """Random definitions of the class above."""

    def __init__(self, rng):
        self.rng = rng
        self.n_aliases = 0
        self.tables = set()

    def chance(self, p):
        return self.rng.random() < p

    def alias(self):
        self.n_aliases += 1
        return f"q{self.n_aliases}"

    # A scope is a list of (SQL, type).

    def base(self):
        table = self.rng.choice(["t1", "t1", "t2", "t2", "t3", "dim", "pairs", "parent", "child"])
        self.tables.add(table)
        alias = self.alias()
        return (f"{table} AS {alias}",
                [(f"{alias}.{c}", KIND_TYPES[k]) for c, k in workload.TABLES[table].items()])

    def from_item(self, depth):
        if depth > 0 and self.chance(0.25):
            query, columns = self.select(depth - 1)
            alias = self.alias()
            return f"({query}) AS {alias}", [(f"{alias}.{name}", kind) for name, kind in columns]
        return self.base()

    def from_clause(self, depth):
        text, scope = self.from_item(depth)
        for _ in range(self.rng.choice([0, 0, 0, 1, 1, 2])):
            right, columns = self.from_item(depth - 1)
            pairs = [(a, b) for a, ka in scope for b, kb in columns if ka == kb]
            if not pairs:
                continue
            ints = [p for p in pairs if (p[0], "int") in scope]
            a, b = self.rng.choice(ints or pairs)
            on = f"{a} = {b}"
            if self.chance(0.2):
                on += f" AND {self.predicate(columns)}"
            kinds = ["JOIN", "JOIN", "LEFT JOIN"]
            if on == f"{a} = {b}" and self.chance(0.3):  # PostgreSQL's own full joins can't do more
                kinds = ["FULL JOIN"]
            text += f" {self.rng.choice(kinds)} {right} ON {on}"
            scope = scope + columns
        if self.chance(0.08):
            inner, columns = queries_subqueries.lateral(self, scope)
            alias = self.alias()
            text += f" {self.rng.choice(['CROSS JOIN LATERAL', 'LEFT JOIN LATERAL'])} ({inner}) AS {alias}"
            text += " ON true" if " LEFT JOIN LATERAL (" + inner in text else ""
            scope = scope + [(f"{alias}.{name}", kind) for name, kind in columns]
        return text, scope

    def of(self, scope, kinds):
        return [c for c, k in scope if k in kinds]

    def scalar(self, scope, kind=None):
        """(SQL, type)"""
        c, k = self.rng.choice([s for s in scope if kind is None or s[1] == kind] or scope)
        if self.chance(0.7):
            return c, k
        if self.chance(0.15):
            return queries_subqueries.value(self, scope)
        if k == "int":
            return self.rng.choice([f"coalesce({c}, 0)", f"({c} * 2 - 1)", f"abs({c})", f"({c} % 3)",
                                    f"CASE WHEN {self.predicate(scope)} THEN {c} ELSE 0 END"]), k
        if k == "text":
            return self.rng.choice([f"upper({c})", f"({c} || '!')", f"coalesce({c}, '?')",
                                    f"nullif({c}, 'a')"]), k
        if k in ("num", "float"):
            return self.rng.choice([f"coalesce({c}, 0)", f"({c} * 2)", f"abs({c})"]), k
        return self.rng.choice([f"({c} + 1)", f"coalesce({c}, DATE '2026-01-01')"]), k

    def predicate(self, scope, depth=1):
        if depth > 0 and self.chance(0.25):
            joined = f" {self.rng.choice(['AND', 'OR'])} "
            return "(" + joined.join(self.predicate(scope, depth - 1) for _ in range(2)) + ")"
        c, k = self.rng.choice(scope)
        form = self.rng.random()
        if form < 0.15:
            return f"{c} IS {self.rng.choice(['', 'NOT '])}NULL"
        if form < 0.25:
            return f"NOT ({c} = {workload.literal(self.rng, k, nulls=False)})"
        if form < 0.4:
            values = ", ".join(workload.literal(self.rng, k, nulls=False) for _ in range(3))
            return f"{c} IN ({values})"
        if form < 0.5:
            return f"{c} IS DISTINCT FROM {workload.literal(self.rng, k, nulls=False)}"
        others = [o for o in self.of(scope, {k}) if o != c]
        if form < 0.6 and others:
            return f"{c} {self.rng.choice(['<', '>=', '<>'])} {self.rng.choice(others)}"
        return f"{c} {self.rng.choice(['<', '>', '>=', '<>'])} {workload.literal(self.rng, k, nulls=False)}"

    def where(self, scope):
        if self.chance(0.2):
            return f" WHERE {queries_subqueries.condition(self, scope)}"
        return f" WHERE {self.predicate(scope)}" if self.chance(0.4) else ""

    def outputs(self, expressions):
        """The select list under names of our own: (text, [(name, type)])."""
        named = [(f"c{i}", text, kind) for i, (text, kind) in enumerate(expressions)]
        return (", ".join(f"{text} AS {name}" for name, text, _ in named),
                [(name, kind) for name, _, kind in named])

    def aggregate(self, scope, grouped=False):
        numeric = self.of(scope, {"int", "num", "float"})
        if grouped and numeric and self.chance(0.1):  # a group has rows: no division by zero
            return f"(coalesce(sum({self.rng.choice(numeric)}), 0) / count(*))", "num"
        if self.chance(0.2):
            return queries_aggregates.random_aggregate(self, scope)
        form = self.rng.random()
        if form < 0.25 or not numeric:
            text, kind = "count(*)", "int"
        elif form < 0.35:
            text, kind = f"count({self.rng.choice(scope)[0]})", "int"
        elif form < 0.65:
            text, kind = f"sum({self.rng.choice(numeric)})", "num"
        elif form < 0.75:
            text, kind = f"avg({self.rng.choice(self.of(scope, {'int', 'num'}) or numeric)})", "num"
        else:
            c, kind = self.rng.choice(scope)
            text = f"{self.rng.choice(['min', 'max'])}({c})"
        if self.chance(0.2):
            text += f" FILTER (WHERE {self.predicate(scope)})"
        # sum and avg of floats stay exact (quarters) but are another type than numeric.
        return text, kind

    def select(self, depth):
        """(query, [(name, type)])"""
        made = queries_aggregates.random_form(self, depth) if depth > 0 and self.chance(0.15) else None
        if not made and depth > 0 and self.chance(0.2):
            made = queries_windows.random_form(self, depth)
        if made:
            return made
        form = self.rng.random()
        if depth > 0 and form < 0.08:
            left, columns = self.select(depth - 1)
            right, other = self.select(depth - 1)
            n = min(len(columns), len(other))
            if all(columns[i][1] == other[i][1] for i in range(n)):
                a, b = self.alias(), self.alias()
                pick = ", ".join(name for name, _ in columns[:n])
                pick_other = ", ".join(name for name, _ in other[:n])
                return (f"SELECT {pick} FROM ({left}) AS {a} UNION ALL SELECT {pick_other} FROM ({right}) AS {b}",
                        columns[:n])
        if depth > 0 and form < 0.16:
            inner, columns = self.select(depth - 1)
            name = self.alias()
            scope = [(f"{name}.{c}", k) for c, k in columns]
            listed, out = self.outputs([self.scalar(scope) for _ in range(min(2, len(scope)))])
            return f"WITH {name} AS ({inner}) SELECT {listed} FROM {name}{self.where(scope)}", out
        text, scope = self.from_clause(depth)
        where = self.where(scope)
        form = self.rng.random()
        if form < 0.3:
            listed, out = self.outputs([self.scalar(scope) for _ in range(self.rng.randint(1, 4))])
            distinct = "DISTINCT " if self.chance(0.25) else ""
            return f"SELECT {distinct}{listed} FROM {text}{where}", out
        if form < 0.4:
            keys = [self.rng.choice(scope) for _ in range(self.rng.randint(1, 2))]
            rest = [self.rng.choice(scope) for _ in range(self.rng.randint(1, 2))]
            listed, out = self.outputs(keys + rest)
            on = ", ".join(k for k, _ in keys)
            order = ", ".join([k for k, _ in keys]
                              + [c + self.rng.choice(["", " DESC", " NULLS FIRST"]) for c, _ in rest])
            return f"SELECT DISTINCT ON ({on}) {listed} FROM {text}{where} ORDER BY {order}", out
        grouped = form >= 0.5
        aggregates = [self.aggregate(scope, grouped) for _ in range(self.rng.randint(1, 3))]
        having = ""
        if self.chance(0.25):
            having = f" HAVING {self.rng.choice(['count(*) > 1', 'count(*) % 2 = 0'])}"
        if not grouped:
            listed, out = self.outputs(aggregates)
            return f"SELECT {listed} FROM {text}{where}{having}", out
        keys = [self.scalar(scope) for _ in range(self.rng.choice([1, 1, 2]))]
        shown = keys if self.chance(0.9) else keys[1:]
        listed, out = self.outputs(shown + aggregates)
        by = ", ".join(k for k, _ in keys)
        return f"SELECT {listed} FROM {text}{where} GROUP BY {by}{having}", out


def random_definition(rng):
    g = Generator(rng)
    query, _ = g.select(rng.choice([0, 1, 1, 2]))
    return query, g.tables
