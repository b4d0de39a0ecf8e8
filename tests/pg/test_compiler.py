"""What the compiler must see in a definition: values that are equal and look different, operators that are
not PostgreSQL's own, keys that aren't, and what it must refuse.
"""

import psycopg

from tests.support import pg
from tests.support.harness import smoke
from tests.support.pg import Failure, one, rows

BOTH = ("DIFFERENTIAL", "IMMEDIATE")


def make(conn, query, mode, name="st"):
    conn.execute(f"DROP STREAM TABLE IF EXISTS {name}")
    schedule = "" if mode == "IMMEDIATE" else "schedule = '1d', "
    conn.execute(f"CREATE STREAM TABLE {name} WITH ({schedule}refresh_mode = '{mode}') AS {query}")


def settle(conn, mode, name="st"):
    if mode != "IMMEDIATE":
        conn.execute(f"REFRESH STREAM TABLE {name}")


def refused(conn, query, mode="DIFFERENTIAL"):
    """The message with which a definition is refused; its AUTO form must be accepted, and hold its rows."""
    try:
        make(conn, query, mode)
    except psycopg.errors.FeatureNotSupported as e:
        make(conn, query, "AUTO")
        if looks(conn, "SELECT * FROM st") != looks(conn, query):
            raise Failure(f"under AUTO {query} gives {looks(conn, 'SELECT * FROM st')}")
        return e.diag.message_primary
    raise Failure(f"{mode} was accepted: {query}")


def strategy(conn):
    return one(conn, "SELECT strategy FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'st'")


def looks(conn, source):
    """The rows as they look."""
    columns = [c.name for c in conn.execute(f"SELECT * FROM ({source}) AS x LIMIT 0").description
               if not c.name.startswith("__pgt_")]
    return rows(conn, f"SELECT ROW({', '.join(f'x.{c}::text' for c in columns)})::text FROM ({source}) AS x ORDER BY 1")


@smoke
def test_looks(world):
    """1.0 and 1.00 are equal; who writes one for the other wants to see it."""
    with world.database() as connect:
        conn = connect(prepare_threshold=None)
        conn.execute("CREATE TABLE looks (id int PRIMARY KEY, n numeric, j jsonb, f float8, i interval);"
                     "CREATE TABLE bag (n numeric, j jsonb);"
                     "CREATE TABLE keyed (n numeric PRIMARY KEY, t text)")
        for mode in BOTH:
            for query in ("SELECT * FROM looks", "SELECT n, j, f, i FROM looks", "SELECT * FROM bag",
                          "SELECT n, t FROM keyed", "SELECT bag.j, looks.n FROM bag JOIN looks USING (n)",
                          "SELECT n::text AS n, count(*) AS k FROM bag GROUP BY n::text",
                          "SELECT k, n FROM (SELECT n::text AS n, count(*) AS k FROM bag GROUP BY n::text) AS x",
                          "SELECT sum(n) / 7 AS s FROM bag"):
                conn.execute("TRUNCATE looks, bag, keyed")
                make(conn, query, mode)
                for statement in (
                        "INSERT INTO looks VALUES (1, 1.0, '{\"a\": 1}', 0, '1 day')",
                        "INSERT INTO bag VALUES (1.0, '1.0'), (1.00, '1.0'), (2, NULL), (1.00, '1.0')",
                        "INSERT INTO keyed VALUES (1.0, 'a')",
                        "UPDATE looks SET n = 1.00, j = '{\"a\": 1.0}', f = '-0', i = '24 hours'",
                        "UPDATE bag SET n = 1.000 WHERE n::text = '1.0'", "UPDATE keyed SET n = 1.00",
                        "DELETE FROM bag WHERE n::text = '1.000'", "UPDATE bag SET j = '1.00' WHERE n = 1"):
                    conn.execute(statement)
                    settle(conn, mode)
                    if looks(conn, "SELECT * FROM st") != looks(conn, query):
                        raise Failure(f"{mode} {query}\nafter {statement}: {looks(conn, 'SELECT * FROM st')}"
                                      f" instead of {looks(conn, query)}")


def test_equality_of_an_extension(world):
    """citext's = lies in another schema than our SQL looks into."""
    with world.database() as connect:
        conn = connect(prepare_threshold=None)
        admin = connect.direct()
        if not one(admin, "SELECT count(*) FROM pg_available_extensions WHERE name = 'citext'"):
            return
        admin.execute("CREATE EXTENSION citext SCHEMA public")
        conn.execute("CREATE TABLE people (id int PRIMARY KEY, name citext); CREATE TABLE named (name citext NOT NULL UNIQUE, v int);"
                     "INSERT INTO people VALUES (1, 'Bob'), (2, 'BOB'), (3, NULL); INSERT INTO named VALUES ('bob', 1)")
        for query in ("SELECT lower(name::text) AS l, n FROM (SELECT name, count(*) AS n FROM people GROUP BY name) AS x",):
            refused(conn, query)
        for query in ("SELECT id, nullif(name, 'bob') AS x FROM people",
                      "SELECT id, CASE name WHEN 'bob' THEN 1 END AS x FROM people",
                      "SELECT id FROM people WHERE name IS DISTINCT FROM 'bob'",
                      "SELECT id, v FROM people JOIN named USING (name)"):
            for mode in ("DIFFERENTIAL", "FULL", "AUTO"):
                conn.execute("DROP STREAM TABLE IF EXISTS st")
                pg.expect_error(conn, f"CREATE STREAM TABLE st WITH (schedule = '1d', refresh_mode = '{mode}') AS {query}", "0A000")
        for mode in BOTH:
            for query in ("SELECT name, v FROM named", "SELECT id, name FROM people", "SELECT name FROM people",
                          "SELECT id, v FROM people JOIN named ON people.name = named.name",
                          "SELECT id FROM people WHERE name IN ('bOb', 'x')"):
                make(conn, query, mode)
                for statement in ("UPDATE named SET name = 'BoB'", "UPDATE people SET name = 'boB' WHERE id = 1",
                                  "INSERT INTO people VALUES (4, 'bob')", "DELETE FROM people WHERE id = 4"):
                    conn.execute(statement)
                    settle(conn, mode)
                    if looks(conn, "SELECT * FROM st") != looks(conn, query):
                        raise Failure(f"{mode} {query}\nafter {statement}: {looks(conn, 'SELECT * FROM st')}")


@smoke
def test_refusals(world):
    with world.database() as connect:
        conn = connect(prepare_threshold=None)
        conn.execute("CREATE TABLE a (id int PRIMARY KEY, v int, t text, j json, at timestamptz); CREATE TABLE b (v int);"
                     "INSERT INTO a VALUES (1, 1, 'x', '{}', now())")
        for query, part in {
                "SELECT id FROM a WHERE at > ('now'::text)::timestamptz": "read as a date",
                "SELECT a.id, a.j, count(*) AS n FROM a JOIN b ON a.v = b.v GROUP BY a.id": "no =",
                "SELECT id, current_user AS u FROM a": "session",
                "SELECT id, xmin::text AS x FROM a": "xmin",
                "SELECT to_jsonb(a) AS j FROM a": "whole-row",
                "SELECT id FROM a ORDER BY id LIMIT 1 + (SELECT 1)": "LIMIT",
        }.items():
            message = refused(conn, query)
            if part not in message:
                raise Failure(f"{query}: {message}")


@smoke
def test_texts(world):
    """Comments, semicolons, quotes of every kind, long lists; nothing may end a text of ours early."""
    with world.database() as connect:
        conn = connect(prepare_threshold=None)
        conn.execute('CREATE TABLE q (id int PRIMARY KEY, "a b" text, "x""y" int, "select" int, new int, old int, found int, c0 int)')
        for mode in BOTH:
            for query, bare in [("SELECT id FROM q; -- that is all", "SELECT id FROM q"),
                                ("SELECT id /* ; */ FROM q ;; ", "SELECT id FROM q"),
                                ("/* a */ SELECT id FROM q -- b", "SELECT id FROM q")] + [(x, x) for x in (
                          "SELECT id, '$__pgt$' AS a, $$;$$ AS b, E'\\'' AS c FROM q",
                          'SELECT "a b", "x""y" AS "select", "select" AS "x""y", new, old, found, c0, count(*) AS n FROM q'
                          " GROUP BY 1, 2, 3, 4, 5, 6, 7",
                          'SELECT max(new) AS old, "a b" AS f FROM q GROUP BY "a b"',
                          "SELECT id FROM q WHERE " + " AND ".join(f"old IS DISTINCT FROM {i}" for i in range(1000)),
                          "SELECT id, " + " + ".join(["c0"] * 500) + " AS sum FROM q")]:
                conn.execute("TRUNCATE q")
                make(conn, query, mode)
                conn.execute("INSERT INTO q SELECT i, 'a' || i % 2, 2, 3, i, -1, 6, 7 FROM generate_series(1, 4) AS i")
                conn.execute("DELETE FROM q WHERE id = 2")
                settle(conn, mode)
                pg.assert_equal(conn, "st", bare, mode)
                if not one(conn, "SELECT count(*) FROM st"):
                    raise Failure(f"{mode}: nothing in {query}")


def test_keys_are_keys(world):
    """An index that is unique by another equality than the column's makes no key."""
    with world.database() as connect:
        conn = connect(prepare_threshold=None)
        conn.execute("CREATE COLLATION caseless (provider = icu, locale = 'und-u-ks-level2', deterministic = false);"
                     "CREATE TABLE u (t text COLLATE caseless NOT NULL, v int); CREATE UNIQUE INDEX ON u (t COLLATE \"C\");"
                     "INSERT INTO u VALUES ('a', 1), ('A', 2)")
        for mode in BOTH:
            make(conn, "SELECT t, v FROM u", mode)
            conn.execute("INSERT INTO u VALUES ('b', 3), ('B', 4)")
            conn.execute("DELETE FROM u WHERE v IN (1, 3)")
            settle(conn, mode)
            pg.assert_equal(conn, "st", "SELECT t, v FROM u", mode)
            conn.execute("TRUNCATE u")
            conn.execute("INSERT INTO u VALUES ('a', 1), ('A', 2)")


def test_sum_of_any_scale(world):
    """Sums of numerics are added to, unless what is computed from them would show lost zeros."""
    with world.database() as connect:
        conn = connect(prepare_threshold=None)
        conn.execute("CREATE TABLE n (k int, x numeric)")
        for query, wanted in (("SELECT k, sum(x) AS s, coalesce(sum(x), 0) + 1 AS t, round(sum(x), 2) AS r FROM n GROUP BY k", "algebraic"),
                              ("SELECT k, sum(x) / 3 AS s FROM n GROUP BY k", "recompute"),
                              ("SELECT k, sum(x)::text AS s FROM n GROUP BY k", "recompute")):
            for mode in BOTH:
                conn.execute("TRUNCATE n")
                make(conn, query, mode)
                if strategy(conn) != wanted:
                    raise Failure(f"{query} by {strategy(conn)}")
                for statement in ("INSERT INTO n VALUES (1, 1.5), (1, 2.00000000000000000000000001), (2, 1)",
                                  "DELETE FROM n WHERE x > 2", "UPDATE n SET k = 1"):
                    conn.execute(statement)
                    settle(conn, mode)
                    pg.assert_equal(conn, "st", query, f"after {statement}")


def test_hidden_keys_of_user_types(world):
    """A key that is not shown has a type that the search path of our SQL does not know."""
    with world.database() as connect:
        conn = connect(prepare_threshold=None)
        conn.execute("CREATE TYPE mood AS ENUM ('sad', 'happy'); CREATE DOMAIN odd AS int CHECK (VALUE % 2 = 1);"
                     "CREATE TABLE m (k mood, o odd, v int)")
        for mode in BOTH:
            conn.execute("TRUNCATE m")
            make(conn, "SELECT sum(v) AS s, count(*) AS n FROM m GROUP BY k, o", mode)
            conn.execute("INSERT INTO m VALUES ('sad', 1, 1), ('sad', 1, 2), ('happy', 3, 4), (NULL, NULL, 5)")
            conn.execute("UPDATE m SET k = 'happy' WHERE v = 2")
            conn.execute("DELETE FROM m WHERE v = 4")
            settle(conn, mode)
            pg.assert_equal(conn, "st", "SELECT sum(v) AS s, count(*) AS n FROM m GROUP BY k, o", mode)


@smoke
def test_types_without_equality(world):
    """What can't be grouped by is picked out of its equals whole: arrays too."""
    with world.database() as connect:
        conn = connect(prepare_threshold=None)
        conn.execute("CREATE TABLE x (id int PRIMARY KEY, k int, j json[], p point[], e int[]); CREATE TABLE bag (j json[], e int[])")
        for mode in BOTH:
            for query in ("SELECT * FROM x", "SELECT j, p FROM x", "SELECT j, e FROM bag", "SELECT x.id, bag.j FROM x JOIN bag ON x.e = bag.e",
                          "SELECT k, raw FROM (SELECT k, array_agg(j[1] ORDER BY id) AS raw FROM x GROUP BY k) AS y WHERE k > 0"):
                conn.execute("TRUNCATE x, bag")
                make(conn, query, mode)
                for statement in ("INSERT INTO x VALUES (1, 1, ARRAY['1','{}']::json[], ARRAY[point(1,2)], '{}'), (2, 1, '{}', NULL, '{{1,2},{3,4}}'),"
                                  " (3, 2, NULL, '{}', '{5}')",
                                  "INSERT INTO bag VALUES ('{1,2,3}', '{}'), ('{1,2,3}', '{}'), ('{}', '{5}'), (NULL, '{{1,2},{3,4}}')",
                                  "UPDATE x SET j = j || '7'::json, k = 2 WHERE id < 3", "DELETE FROM bag WHERE e = '{}'"):
                    conn.execute(statement)
                    settle(conn, mode)
                    if looks(conn, "SELECT * FROM st") != looks(conn, query):
                        raise Failure(f"{mode} {query}\nafter {statement}: {looks(conn, 'SELECT * FROM st')} instead of {looks(conn, query)}")
                if one(conn, "SELECT verdict FROM pgtrickle.check_stream_table('st')") != "EQUAL":
                    raise Failure(f"checking {query}")


def test_full_finds_nothing_to_do(world):
    """A group shows one of several equal keys; showing another is no change."""
    with world.database() as connect:
        conn = connect(prepare_threshold=None)
        conn.execute("CREATE TABLE g (n numeric, i interval, v int)")
        make(conn, "SELECT n, i, count(*) AS k, max(v) AS top FROM g GROUP BY n, i", "DIFFERENTIAL")
        conn.execute("INSERT INTO g VALUES (1.0, '30 days', 1), (2, '1 day', 1)")
        settle(conn, "DIFFERENTIAL")
        conn.execute("INSERT INTO g VALUES (1.00, '1 mon', 2), (2.0, '24 hours', 0);"
                     "DELETE FROM g WHERE v = 1")
        settle(conn, "DIFFERENTIAL")
        full = one(conn, "SELECT plan->>'full' FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'st'")
        admin = connect.direct()
        admin.execute("SET search_path = pg_catalog")
        for _ in range(2):
            changed = admin.execute(full.encode()).fetchone()[:3]
            if any(changed):
                raise Failure(f"a FULL refresh changed {changed}")
        pg.assert_equal(conn, "st", "SELECT n, i, count(*) AS k, max(v) AS top FROM g GROUP BY n, i")


def test_window_ties(world):
    """What ORDER BY leaves open comes out alike each time: the rows that a change does not touch stay as they are."""
    calls = ["row_number() OVER (PARTITION BY g ORDER BY v) AS a", "string_agg(id::text, ',') OVER (PARTITION BY g) AS a",
             "array_agg(id) OVER (PARTITION BY g ORDER BY v GROUPS BETWEEN 1 PRECEDING AND CURRENT ROW) AS a",
             "ntile(3) OVER (ORDER BY v) AS a, nth_value(id, 2) OVER (PARTITION BY v) AS b"]
    with world.database() as connect:
        conn = connect(prepare_threshold=None)
        conn.execute("CREATE TABLE r (id int PRIMARY KEY, g int, v int, x int);"
                     "INSERT INTO r SELECT i, i % 3, i % 2, 0 FROM generate_series(1, 60) i")
        for call in calls:
            conn.execute("DROP STREAM TABLE IF EXISTS above; DROP STREAM TABLE IF EXISTS ties")
            conn.execute(f"CREATE STREAM TABLE ties WITH (refresh_mode = 'DIFFERENTIAL') AS SELECT id, {call} FROM r")
            conn.execute("CREATE STREAM TABLE above WITH (refresh_mode = 'DIFFERENTIAL') AS SELECT a::text AS a, count(*)"
                         f" AS n FROM (SELECT id, {call} FROM r) q GROUP BY 1")
            before = looks(conn, "SELECT * FROM ties")
            # Other places in the table, other plans, the same values.
            conn.execute("UPDATE r SET x = x + 1; INSERT INTO r SELECT i, i % 3, i % 2, 0 FROM generate_series(61, 90) i")
            for name in ("ties", "above"):
                conn.execute(f"REFRESH STREAM TABLE {name}")
            conn.execute("DELETE FROM r WHERE id > 60; ANALYZE r")
            for name in ("ties", "above"):
                conn.execute(f"REFRESH STREAM TABLE {name}")
            if looks(conn, "SELECT * FROM ties") != before:
                raise Failure(f"{call}: another choice among ties")
            rest = looks(conn, "SELECT a::text, count(*) FROM ties GROUP BY 1 EXCEPT SELECT a, n FROM above")
            if rest:
                raise Failure(f"{call}: {rest}")
