"""Base tables with small value domains, and random DML over them.

DML is drawn from a random.Random alone and never looks at the database, so that the same seed gives the
same statements, and any subset of them still makes sense (shrinking).  A statement may fail by a
constraint of the base tables; that is part of the play.
"""

# column -> kind: which literals fit, and what expressions may do with it.
TABLES = {
    "t1": {"id": "key", "g": "int", "h": "text", "v": "int", "w": "num", "f": "float", "d": "date"},
    "t2": {"id": "key", "t1_id": "int", "g": "int", "v": "int", "s": "text"},
    "t3": {"a": "int", "b": "text", "c": "int"},
    "dim": {"g": "key", "name": "text", "rate": "num"},
    "pairs": {"a": "key", "b": "key", "v": "int"},
    "parent": {"id": "key", "g": "int"},
    "child": {"id": "key", "parent_id": "int", "v": "int"},
}

DDL = """
CREATE TABLE t1 (id int PRIMARY KEY, g int, h text, v int, w numeric(10,2), f float8, d date);
CREATE TABLE t2 (id int PRIMARY KEY, t1_id int, g int, v int, s text);
CREATE TABLE t3 (a int, b text, c int);
CREATE TABLE dim (g int PRIMARY KEY, name text NOT NULL, rate numeric(6,2));
CREATE TABLE pairs (a int, b int, v int, PRIMARY KEY (a, b));
CREATE TABLE parent (id int PRIMARY KEY, g int);
CREATE TABLE child (id int PRIMARY KEY, v int,
                    parent_id int REFERENCES parent ON DELETE CASCADE ON UPDATE CASCADE);
CREATE INDEX ON t2 (t1_id);
CREATE VIEW v1 AS SELECT id, g, v, h FROM t1 WHERE v IS NOT NULL;
CREATE VIEW v2 AS SELECT t2.id, t2.s, dim.name, dim.rate FROM t2 JOIN dim USING (g);
"""

RESET = "TRUNCATE " + ", ".join(TABLES)

KEYS = {"t1": ["id"], "t2": ["id"], "dim": ["g"], "pairs": ["a", "b"], "parent": ["id"], "child": ["id"]}
KEY_RANGE = {"dim": 6, "pairs": 6, "parent": 8}
WORDS = ["a", "b", "ab", "B", "", "zz", "it''s"]


def literal(rng, kind, table="t1", nulls=True):
    if kind == "key":
        return str(rng.randint(1, KEY_RANGE.get(table, 30)))
    if nulls and rng.random() < 0.15:
        return "NULL"
    if kind == "int":
        return str(rng.randint(-2, 6))
    if kind == "text":
        return f"'{rng.choice(WORDS)}'"
    if kind == "num":
        return f"{rng.randint(-300, 900) / 100:.2f}"
    if kind == "float":  # sums of quarters are exact in any order
        return f"{rng.randint(-8, 20) / 4:.2f}"
    if kind == "date":
        return f"DATE '2026-03-0{rng.randint(1, 5)}'"
    raise AssertionError(kind)


def value(rng, table, column):
    kind = TABLES[table][column]
    return literal(rng, kind, table, nulls=(table, column) != ("dim", "name"))


def row(rng, table):
    if table == "child":  # never an unknown parent
        return (f"({value(rng, table, 'id')}, (SELECT min(id) FROM parent WHERE id >= "
                f"{rng.randint(1, 9)}), {value(rng, table, 'v')})")
    return "(" + ", ".join(value(rng, table, c) for c in TABLES[table]) + ")"


def predicate(rng, table):
    columns = list(TABLES[table])
    c = rng.choice(columns)
    kind = TABLES[table][c]
    form = rng.random()
    if form < 0.15:
        return f"{c} IS {'NOT ' if rng.random() < 0.5 else ''}NULL"
    if form < 0.35 and kind in ("key", "int"):
        return f"{c} % {rng.randint(2, 5)} = {rng.randint(0, 1)}"
    if form < 0.7:
        return f"{c} = {literal(rng, kind, table, nulls=False)}"
    return f"{c} {rng.choice(['<', '>', '<='])} {literal(rng, kind, table, nulls=False)}"


def assignment(rng, table, column):
    kind = TABLES[table][column]
    form = rng.random()
    if kind == "key" and form < 0.7:
        return f"{column} = {column} + {rng.choice([1, 30, 100])}"
    if kind in ("int", "num", "float") and form < 0.4 and (table, column) != ("child", "parent_id"):
        return f"{column} = {column} + 1"
    if (table, column) == ("child", "parent_id"):
        return f"parent_id = (SELECT max(id) FROM parent WHERE id <= {rng.randint(1, 9)})"
    return f"{column} = {value(rng, table, column)}"


def insert(rng, table):
    n = rng.choice([1, 1, 1, 2, 4])
    columns = ", ".join(TABLES[table])
    text = f"INSERT INTO {table} ({columns}) VALUES " + ", ".join(row(rng, table) for _ in range(n))
    if table in KEYS:
        form = rng.random()
        if form < 0.4:
            text += " ON CONFLICT DO NOTHING"
        elif form < 0.7 and n == 1:
            rest = [c for c in TABLES[table] if c not in KEYS[table]]
            c = rng.choice(rest)
            text += f" ON CONFLICT ({', '.join(KEYS[table])}) DO UPDATE SET {c} = excluded.{c}"
    return text


def update(rng, table):
    columns = list(TABLES[table])
    # Keys less often than other columns: most of these end in a conflict.
    chosen = [c for c in columns if rng.random() < (0.12 if TABLES[table][c] == "key" else 0.4)]
    chosen = chosen or [rng.choice(columns)]
    return (f"UPDATE {table} SET " + ", ".join(assignment(rng, table, c) for c in chosen)
            + f" WHERE {predicate(rng, table)}")


def delete(rng, table):
    return f"DELETE FROM {table} WHERE {predicate(rng, table)}"


def special(rng, tables):
    """Statements that change several tables at once, or in unusual ways."""
    forms = []
    if "t1" in tables and "t2" in tables:
        forms += [
            f"WITH x AS (DELETE FROM t1 WHERE {predicate(rng, 't1')} RETURNING id, v)"
            " UPDATE t2 SET v = x.v FROM x WHERE t2.t1_id = x.id",
            f"WITH x AS (INSERT INTO t1 (id, g, v) VALUES ({rng.randint(31, 60)}, 1, 2)"
            " ON CONFLICT DO NOTHING RETURNING id)"
            f" INSERT INTO t2 (id, t1_id, g, v) SELECT {rng.randint(31, 60)}, id, 1, 3 FROM x"
            " ON CONFLICT DO NOTHING",
            "UPDATE t1 SET g = t2.g FROM t2 WHERE t2.id = t1.id",
        ]
    if "t1" in tables:
        forms += [
            f"MERGE INTO t1 USING (VALUES ({rng.randint(1, 40)}, {rng.randint(0, 4)}),"
            f" ({rng.randint(41, 60)}, 2)) AS s(id, g) ON t1.id = s.id"
            f" WHEN MATCHED AND t1.v > 2 THEN DELETE"
            f" WHEN MATCHED THEN UPDATE SET g = s.g, v = coalesce(t1.v, 0) + 1"
            f" WHEN NOT MATCHED THEN INSERT (id, g, v) VALUES (s.id, s.g, 0)",
            f"INSERT INTO t1 (id, g, h, v, w, f, d) SELECT id + 200, g, h, v, w, f, d FROM t1"
            f" WHERE {predicate(rng, 't1')} ON CONFLICT DO NOTHING",
        ]
    if "t3" in tables:
        forms += [f"INSERT INTO t3 SELECT * FROM t3 WHERE {predicate(rng, 't3')}",
                  "DELETE FROM t3 WHERE ctid IN (SELECT min(ctid) FROM t3 GROUP BY a)"]
    if "parent" in tables or "child" in tables:
        forms += [f"DELETE FROM parent WHERE id = {rng.randint(1, 8)}",
                  f"UPDATE parent SET id = id + 10, g = {literal(rng, 'int')} WHERE {predicate(rng, 'parent')}",
                  f"INSERT INTO parent VALUES {row(rng, 'parent')} ON CONFLICT DO NOTHING"]
    if not forms:
        return update(rng, rng.choice(sorted(tables)))
    return rng.choice(forms)


def statement(rng, tables):
    table = rng.choice(sorted(tables))
    form = rng.random()
    if form < 0.36:
        return insert(rng, table)
    if form < 0.68:
        return update(rng, table)
    if form < 0.86:
        return delete(rng, table)
    if form < 0.98:
        return special(rng, tables)
    if table == "parent":
        return "TRUNCATE parent, child"
    return f"TRUNCATE {table}" if rng.random() < 0.6 else f"DELETE FROM {table}"


def fill(rng):
    """The data to begin with: statements that cannot fail."""
    statements = []
    for table in TABLES:
        n = rng.choice([0, 5, 15])
        if n:
            columns = ", ".join(TABLES[table])
            statements.append(f"INSERT INTO {table} ({columns}) VALUES "
                              + ", ".join(row(rng, table) for _ in range(n)) + " ON CONFLICT DO NOTHING")
    return statements


def groups(rng, tables, n):
    """n groups: a list of one statement is autocommit; a longer one is a transaction, its last element
    COMMIT or ROLLBACK."""
    made = []
    for _ in range(n):
        if rng.random() < 0.55:
            made.append([statement(rng, tables)])
            continue
        body = []
        for i in range(rng.randint(1, 4)):
            if rng.random() < 0.25:
                body.append(f"SAVEPOINT s{i}")
                body += [statement(rng, tables) for _ in range(rng.randint(1, 2))]
                body.append(f"ROLLBACK TO SAVEPOINT s{i}" if rng.random() < 0.6 else f"RELEASE SAVEPOINT s{i}")
            body.append(statement(rng, tables))
        body.append("COMMIT" if rng.random() < 0.75 else "ROLLBACK")
        made.append(body)
    return made
