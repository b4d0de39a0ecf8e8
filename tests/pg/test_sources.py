"""Sources that are more than a plain table."""

import random

from tests.support import pg
from tests.support.harness import only

QUERY = "SELECT region, count(*) AS n, sum(amount) AS total FROM orders GROUP BY region"


def partitioned(conn):
    conn.execute("CREATE TABLE orders (id int, region text, amount int, day date, PRIMARY KEY (id, day, region)) PARTITION BY RANGE (day)")
    conn.execute("CREATE TABLE orders_1 PARTITION OF orders FOR VALUES FROM ('2026-01-01') TO ('2026-02-01')")
    conn.execute("CREATE TABLE orders_2 PARTITION OF orders FOR VALUES FROM ('2026-02-01') TO ('2026-03-01') PARTITION BY LIST (region)")
    conn.execute("CREATE TABLE orders_2n PARTITION OF orders_2 FOR VALUES IN ('north')")
    conn.execute("CREATE TABLE orders_2r PARTITION OF orders_2 DEFAULT")
    conn.execute("INSERT INTO orders SELECT i, (ARRAY['north', 'south'])[1 + i % 2], i, DATE '2026-01-01' + i % 59 FROM generate_series(1, 300) AS i")


def create(conn, name, query):
    conn.execute(f"CREATE STREAM TABLE {name} WITH (schedule = '1d', refresh_mode = 'DIFFERENTIAL') AS {query}")


def test_partitions(world):
    """DML on the root, on what is between, on the leaves; rows that move between partitions; TRUNCATE of a leaf."""
    rng = random.Random(world.seed)
    with world.database() as connect:
        conn = connect()
        partitioned(conn)
        tables = {"grouped": QUERY, "plain": "SELECT id, day, region, amount FROM orders WHERE amount > 20"}
        for name, query in tables.items():
            create(conn, name, query)
        for n in range(40):
            i = rng.randint(1, 400)
            target = rng.choice(["orders", "orders_1", "orders_2", "orders_2n", "orders_2r"])
            statement = rng.choice([
                f"UPDATE {target} SET amount = amount + 1 WHERE id % 7 = {i % 7}",
                f"DELETE FROM {target} WHERE id = {i}",
                f"INSERT INTO orders VALUES ({1000 + n}, 'north', {i}, DATE '2026-01-05' + {i % 50})",
                f"INSERT INTO orders_1 VALUES ({2000 + n}, 'south', {i}, '2026-01-09')",
                f"INSERT INTO orders_2r VALUES ({3000 + n}, 'west', {i}, '2026-02-09')",
                f"UPDATE orders SET day = DATE '2026-01-01' + (id + {i}) % 59 WHERE id % 5 = {i % 5}",  # moves rows
                f"UPDATE orders_2 SET region = CASE region WHEN 'north' THEN 'south' ELSE 'north' END WHERE id % 3 = {i % 3}",
                "TRUNCATE orders_2n" if n % 5 == 0 else "DELETE FROM orders_2n WHERE id < 20"])
            conn.execute(statement)
            if n % 3 == 0:
                for name, query in tables.items():
                    conn.execute(f"REFRESH STREAM TABLE {name}")
                    pg.assert_equal(conn, name, query, f"(seed {world.seed}) {statement}")


@only(15)
def test_partitions_come_and_go(world):
    """The scheduler notices what was attached, detached, created and dropped, with no writes to tell it."""
    with world.database() as connect:
        conn = connect()
        partitioned(conn)
        conn.execute(f"CREATE STREAM TABLE st WITH (schedule = '1s', refresh_mode = 'DIFFERENTIAL') AS {QUERY}")
        conn.execute("CREATE TABLE ready (LIKE orders)")
        conn.execute("INSERT INTO ready SELECT 5000 + i, 'east', 1, '2026-03-05' FROM generate_series(1, 10) AS i")
        conn.execute("ALTER TABLE orders ATTACH PARTITION ready FOR VALUES FROM ('2026-03-01') TO ('2026-04-01')")
        pg.wait_equal(conn, "st", QUERY, 30)
        conn.execute("INSERT INTO ready VALUES (6000, 'east', 100, '2026-03-06')")
        pg.wait_equal(conn, "st", QUERY, 30)
        conn.execute("ALTER TABLE orders DETACH PARTITION orders_1")
        conn.execute("INSERT INTO orders_1 VALUES (7000, 'north', 7, '2026-01-06')")  # not a row of orders
        pg.wait_equal(conn, "st", QUERY, 30)
        conn.execute("CREATE TABLE orders_4 PARTITION OF orders FOR VALUES FROM ('2026-04-01') TO ('2026-05-01')")
        conn.execute("INSERT INTO orders_4 VALUES (8000, 'north', 8, '2026-04-06')")
        pg.wait_equal(conn, "st", QUERY, 30)
        conn.execute("DROP TABLE orders_2n")
        pg.wait_equal(conn, "st", QUERY, 30)
        conn.execute("INSERT INTO orders_1 VALUES (7001, 'north', 7, '2026-01-06')")  # its triggers are gone
        if pg.one(conn, "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'orders_1'::regclass AND NOT tgisinternal"):
            raise pg.Failure("what was detached still has triggers")


def test_heirs(world):
    """Inheritance: a parent's rows are those of its heirs, too; a key of the parent's is none of theirs."""
    with world.database() as connect:
        conn = connect()
        conn.execute("CREATE TABLE orders (id int PRIMARY KEY, region text, amount int)")
        conn.execute("CREATE TABLE heir (note text) INHERITS (orders)")
        conn.execute("INSERT INTO orders SELECT i, 'north', i FROM generate_series(1, 20) AS i")
        conn.execute("INSERT INTO heir SELECT i, 'south', i, 'x' FROM generate_series(1, 20) AS i")
        tables = {"grouped": QUERY, "bag": "SELECT id, amount FROM orders"}
        for name, query in tables.items():
            create(conn, name, query)
        for statement in ("UPDATE orders SET amount = amount + 1 WHERE id < 5", "INSERT INTO heir VALUES (3, 'west', 3, 'y')",
                          "DELETE FROM ONLY orders WHERE id = 7", "DELETE FROM heir WHERE id = 8", "TRUNCATE heir"):
            conn.execute(statement)
            for name, query in tables.items():
                conn.execute(f"REFRESH STREAM TABLE {name}")
                pg.assert_equal(conn, name, query, statement)
        for query, what in (("SELECT id FROM ONLY orders", "ONLY"), ("SELECT id FROM heir", "heir")):
            try:
                create(conn, "refused", query)
            except Exception as e:
                if what not in str(e):
                    raise
            else:
                raise pg.Failure(f"not refused: {query}")


def test_columns_altered_heal(world):
    """A captured column that is renamed or gets another type does not stop the stream table: it is rebuilt."""
    with world.database() as connect:
        conn = connect()
        conn.execute("CREATE TABLE orders (id int PRIMARY KEY, region text, amount int)")
        conn.execute("INSERT INTO orders SELECT i, 'r' || i % 3, i FROM generate_series(1, 50) AS i")
        conn.execute(f"CREATE STREAM TABLE st WITH (schedule = '1s', refresh_mode = 'DIFFERENTIAL') AS {QUERY}")
        conn.execute("ALTER TABLE orders ALTER COLUMN amount TYPE bigint")
        conn.execute("UPDATE orders SET amount = 3000000000 WHERE id = 1")
        pg.wait_equal(conn, "st", "SELECT region, n, total FROM (" + QUERY + ") AS q", 30)
        conn.execute("INSERT INTO orders VALUES (51, 'r1', 5)")
        pg.wait_equal(conn, "st", QUERY, 30)
