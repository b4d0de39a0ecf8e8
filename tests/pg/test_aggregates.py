"""Aggregates, limits and set operations where a comparison of rows alone would not tell right from wrong: digits,
orders that the definition leaves open, extrema that leave, numbers that have no inverse.
"""

import random

from tests.pg.test_compiler import BOTH, looks, make, settle, strategy
from tests.support import pg
from tests.support.harness import smoke
from tests.support.pg import Failure, rows


def check(conn, query, mode, after, columns="*"):
    settle(conn, mode)
    ours, theirs = looks(conn, f"SELECT {columns} FROM st"), looks(conn, query)
    if ours != theirs:
        raise Failure(f"{mode} {query}\nafter {after}: {ours}\ninstead of {theirs}")


@smoke
def test_digits(world):
    """Variances and means from running sums have the digits that PostgreSQL gives them, NaN included."""
    rng = random.Random(world.seed)
    query = ("SELECT k, var_pop(v) AS a, var_samp(v) AS b, stddev(v) AS c, stddev_pop(v) AS d, variance(w) AS e,"
             " stddev(w) AS f, stddev_pop(w) AS g, avg(w) AS h, var_pop(b) AS i, stddev(b) AS j, stddev(s) AS l FROM n GROUP BY k")
    with world.database() as connect:
        conn = connect(prepare_threshold=None)
        conn.execute("CREATE TABLE n (k int, v int, w numeric(12,3), b bigint, s smallint)")
        for mode in BOTH:
            conn.execute("TRUNCATE n")
            make(conn, query, mode)
            if strategy(conn) != "algebraic":
                raise Failure(f"by {strategy(conn)}")
            for _ in range(12):
                size = rng.choice([3, 1000, 10**9])
                values = ", ".join(
                    f"({rng.randint(1, 3)}, {rng.randint(-size, size)}, {rng.choice([f'{rng.randint(-size, size) / 1000:.3f}', 'NULL'])},"
                    f" {rng.randint(-size, size) * rng.choice([1, 10**9])}, {rng.randint(-9, 9)})" for _ in range(rng.randint(1, 5)))
                for statement in (f"INSERT INTO n VALUES {values}", f"DELETE FROM n WHERE v % {rng.randint(2, 4)} = 0",
                                  "UPDATE n SET w = w + 0.001, v = v / 2"):
                    conn.execute(statement)
                    check(conn, query, mode, statement)
            for statement in ("INSERT INTO n VALUES (1, 1, 'NaN', 1, 1)", "UPDATE n SET v = v + 1", "DELETE FROM n WHERE w = 'NaN'"):
                conn.execute(statement)
                check(conn, query, mode, statement)


@smoke
def test_open_orders(world):
    """Without ORDER BY the same rows give the same value, however they came to be there: the arguments are in order."""
    query = ("SELECT k, array_agg(v) AS vs, string_agg(t, ',') AS ts, jsonb_agg(t) AS js, array_agg(j) AS raw,"
             " array_agg(n) AS ns FROM o GROUP BY k")
    ordered = ("SELECT k, array_agg(v ORDER BY v) AS vs, string_agg(t, ',' ORDER BY t) AS ts, jsonb_agg(t ORDER BY t) AS js,"
               " array_agg(j ORDER BY j::text COLLATE \"C\") AS raw, array_agg(n ORDER BY n, n::text COLLATE \"C\") AS ns FROM o GROUP BY k")
    with world.database() as connect:
        conn = connect(prepare_threshold=None)
        conn.execute("CREATE TABLE o (id int PRIMARY KEY, k int, v int, t text, j json, n numeric)")
        for mode in BOTH:
            conn.execute("TRUNCATE o")
            make(conn, query, mode)
            for statement in ("INSERT INTO o SELECT i, i % 2, 9 - i, chr(105 - i), to_json(i), (10 - i)::numeric FROM generate_series(1, 6) AS i",
                              "UPDATE o SET v = 7, n = 2.00 WHERE id = 3", "DELETE FROM o WHERE id = 1", "UPDATE o SET n = 2.0 WHERE id = 5",
                              "UPDATE o SET id = id + 10"):
                conn.execute(statement)
                check(conn, ordered, mode, statement)


def test_own_aggregates(world):
    """Users' aggregates, of several arguments, variadic, polymorphic; a volatile one is refused."""
    with world.database() as connect:
        conn = connect(prepare_threshold=None)
        conn.execute("""
            CREATE SCHEMA other;
            CREATE TABLE u (id int PRIMARY KEY, k int, v int, w int);
            CREATE FUNCTION other.add(s bigint, a int, b int) RETURNS bigint IMMUTABLE LANGUAGE sql AS 'SELECT s + coalesce(a * b, 0)';
            CREATE AGGREGATE other.dot(int, int) (SFUNC = other.add, STYPE = bigint, INITCOND = '0');
            CREATE FUNCTION other.keep(s anyelement, a anyelement) RETURNS anyelement IMMUTABLE LANGUAGE sql AS 'SELECT coalesce(s, a)';
            CREATE AGGREGATE other.sum(anyelement) (SFUNC = other.keep, STYPE = anyelement);
            CREATE FUNCTION other.step(s int, VARIADIC a int[]) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT max(x) FROM unnest(a || s) AS x';
            CREATE AGGREGATE other.most(VARIADIC int[]) (SFUNC = other.step, STYPE = int);
            CREATE FUNCTION other.dice(s int, a int) RETURNS int VOLATILE LANGUAGE sql AS 'SELECT a';
            CREATE AGGREGATE other.dice(int) (SFUNC = other.dice, STYPE = int)""")
        query = ("SELECT k, other.dot(v, w) AS d, other.sum(v ORDER BY v) AS first, other.most(v, w) AS most,"
                 " other.most(VARIADIC ARRAY[v, w]) AS same, sum(v) AS s FROM u GROUP BY k")
        for mode in BOTH:
            conn.execute("TRUNCATE u")
            make(conn, query, mode)
            for statement in ("INSERT INTO u SELECT i, i % 3, i, 7 - i FROM generate_series(1, 9) AS i", "UPDATE u SET k = 1 WHERE id < 4",
                              "DELETE FROM u WHERE id = 5"):
                conn.execute(statement)
                check(conn, query, mode, statement)
            pg.expect_error(conn, f"CREATE STREAM TABLE no WITH (schedule = '1d', refresh_mode = '{mode}') AS"
                                  " SELECT other.dice(v) AS d FROM u", "0A000")


def test_extrema_are_kept(world):
    """A group is read again only when its extremum goes and nothing as good comes."""
    with world.database() as connect:
        conn = connect(prepare_threshold=None)
        conn.execute("CREATE TABLE e (id int PRIMARY KEY, k int, v int, f float8);"
                     "INSERT INTO e SELECT i, i % 5, i, i FROM generate_series(1, 100) AS i")
        query = "SELECT k, min(v) AS lo, max(v) AS hi, max(f) AS top, count(*) AS n FROM e GROUP BY k"
        for mode in BOTH:
            make(conn, query, mode)
            if strategy(conn) != "algebraic":
                raise Failure(f"by {strategy(conn)}")
            # What the stored rows say is believed as long as no extremum goes: a wrong one stays.
            if mode == "DIFFERENTIAL":
                admin = connect.direct()
                admin.execute("SET session_replication_role = replica; UPDATE st SET lo = -1000 WHERE k = 1")
                conn.execute("UPDATE e SET v = v WHERE k = 1; DELETE FROM e WHERE id = 51; INSERT INTO e VALUES (351, 1, 5, 5)")
                settle(conn, mode)
                if rows(conn, "SELECT lo FROM st WHERE k = 1") != [(-1000,)]:
                    raise Failure("a group was read again although its extrema stayed")
                admin.execute("UPDATE st SET lo = 1 WHERE k = 1")
            for statement in ("DELETE FROM e WHERE id IN (1, 100)", "UPDATE e SET v = 1000 WHERE id = 50", "INSERT INTO e VALUES (201, 2, -5, 'NaN')",
                              "UPDATE e SET v = v + 1", "DELETE FROM e WHERE v < 0", "DELETE FROM e WHERE f = 'NaN'", "DELETE FROM e WHERE k = 3",
                              "INSERT INTO e VALUES (202, 3, 7, NULL)", "UPDATE e SET k = 3 WHERE k = 4",
                              "UPDATE e SET v = NULL, f = NULL WHERE k = 3", "TRUNCATE e",
                              "INSERT INTO e SELECT i, i % 5, i, i FROM generate_series(1, 100) AS i"):
                conn.execute(statement)
                check(conn, query, mode, statement)


@smoke
def test_limits_are_answers(world):
    """Where ORDER BY leaves ties open, the rows are one of the right answers: as many, none behind one left out, and
    always the same for the same rows."""
    rng = random.Random(world.seed)
    with world.database() as connect:
        conn = connect(prepare_threshold=None)
        conn.execute("CREATE TABLE l (id int PRIMARY KEY, v int, t text)")
        for mode in BOTH:
            conn.execute("TRUNCATE l")
            make(conn, "SELECT id, v, t FROM l ORDER BY v DESC NULLS LAST LIMIT 4", mode)
            for n in range(25):
                statement = rng.choice([f"INSERT INTO l VALUES ({n}, {rng.choice(['NULL', '1', '2', '3'])}, 'x')",
                                        f"DELETE FROM l WHERE v = {rng.randint(1, 3)} AND id % 2 = 0", f"UPDATE l SET v = {rng.randint(1, 3)} WHERE id % 3 = 0"])
                conn.execute(statement)
                settle(conn, mode)
                pg.assert_equal(conn, "st", "SELECT id, v, t FROM l ORDER BY v DESC NULLS LAST, id, t LIMIT 4", f"after {statement}")
