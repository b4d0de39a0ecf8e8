"""Writers at the same time: with rollbacks and savepoints against a refresh loop, and against IMMEDIATE
stream tables on one table and on both sides of joins.  Right at every look, not only at the end.
"""

import contextlib
import functools
import random
import threading
import time

import psycopg

from tests.support import pg

N_WRITERS = 16

DDL = """
CREATE TABLE sales (id bigserial PRIMARY KEY, g int, k int, v int, w numeric);
CREATE TABLE items (k int PRIMARY KEY, g int, price int);
CREATE TABLE logs (a int, b text);
INSERT INTO items SELECT i, i % 4, i FROM generate_series(1, 20) i;
INSERT INTO sales (g, k, v, w) SELECT i % 8, i % 25, i % 10, i / 4.0 FROM generate_series(1, 400) i;
INSERT INTO logs SELECT i % 5, 'x' FROM generate_series(1, 50) i;
"""

DEFERRED = {
    "by_g": "SELECT g, count(*) AS n, sum(v) AS s, avg(w) AS a, min(v) AS lo, max(v) AS hi FROM sales GROUP BY g",
    "joined": "SELECT s.id, s.v, i.price FROM sales s JOIN items i USING (k) WHERE s.v > 3",
    "outer_join": "SELECT i.k, i.price, count(s.id) AS n, sum(s.v) AS total FROM items i LEFT JOIN sales s"
                  " ON s.k = i.k GROUP BY i.k, i.price",
    "latest": "SELECT DISTINCT ON (g) g, id, v, w FROM sales ORDER BY g, v DESC, id",
    "bag": "SELECT b, a FROM logs WHERE a > 0",
    "names": "SELECT DISTINCT g, v FROM sales",
}

IMMEDIATE_ONE_TABLE = {
    "i_by_g": "SELECT g, count(*) AS n, sum(v) AS s, avg(w) AS a FROM sales GROUP BY g",
    "i_extremes": "SELECT g, min(v) AS lo, max(v) AS hi FROM sales GROUP BY g",
    "i_total": "SELECT count(*) AS n, sum(v) AS s FROM sales",
    "i_bag": "SELECT b, a FROM logs WHERE a > 0",
}

IMMEDIATE_JOINS = {
    "i_joined": "SELECT s.id, s.v, i.price FROM sales s JOIN items i USING (k) WHERE s.v > 3",
    "i_revenue": "SELECT i.g, count(*) AS n, sum(s.v * i.price) AS revenue FROM sales s JOIN items i USING (k)"
                 " GROUP BY i.g",
    "i_outer": "SELECT i.k, i.price, count(s.id) AS n FROM items i LEFT JOIN sales s ON s.k = i.k"
               " GROUP BY i.k, i.price",
}


def statement(rng):
    """One random write; the keys are few, so that writers meet."""
    return rng.choice([
        lambda: f"INSERT INTO sales (g, k, v, w) VALUES ({rng.randint(0, 7)}, {rng.randint(1, 25)},"
                f" {rng.randint(-3, 9)}, {rng.randint(0, 40) / 4})",
        lambda: f"INSERT INTO sales (g, k, v) SELECT {rng.randint(0, 7)}, i, {rng.randint(0, 9)}"
                f" FROM generate_series(1, {rng.randint(1, 5)}) i",
        lambda: f"UPDATE sales SET v = v + 1, g = {rng.randint(0, 7)} WHERE id % 97 = {rng.randint(0, 96)}",
        lambda: f"UPDATE sales SET k = {rng.randint(1, 25)} WHERE id % 89 = {rng.randint(0, 88)}",
        lambda: f"DELETE FROM sales WHERE id % 101 = {rng.randint(0, 100)}",
        lambda: f"UPDATE items SET price = price + 1 WHERE k = {rng.randint(1, 25)}",
        lambda: f"UPDATE items SET g = {rng.randint(0, 4)} WHERE k = {rng.randint(1, 25)}",
        lambda: f"DELETE FROM items WHERE k = {rng.randint(1, 25)}",
        lambda: f"INSERT INTO items VALUES ({rng.randint(1, 25)}, {rng.randint(0, 4)}, {rng.randint(1, 9)})"
                " ON CONFLICT (k) DO UPDATE SET price = excluded.price + items.price",
        lambda: f"INSERT INTO logs VALUES ({rng.randint(-1, 4)}, '{rng.choice('xyz')}')",
        lambda: f"DELETE FROM logs WHERE ctid IN (SELECT ctid FROM logs WHERE a = {rng.randint(0, 4)} LIMIT 1)",
    ])()


class Writers:
    """N_WRITERS threads of random transactions, until stop()."""

    def __init__(self, connects, seed, isolations=("READ COMMITTED",)):
        self.stopping = threading.Event()
        self.committed = self.rolled_back = self.retried = 0
        self.lock = threading.Lock()
        self.errors = []
        self.threads = []
        for n in range(N_WRITERS):
            connect = connects[n % len(connects)]
            isolation = isolations[n // 2 % len(isolations)]
            self.threads.append(threading.Thread(target=self._run, args=(connect, isolation, f"{seed}/{n}")))

    def _run(self, connect, isolation, seed):
        rng = random.Random(seed)
        try:
            with connect() as conn:
                while not self.stopping.is_set():
                    self._transaction(conn, isolation, rng)
        except Exception as e:
            self.errors.append(f"writer {seed}: {type(e).__name__}: {e}")

    def _transaction(self, conn, isolation, rng):
        try:
            if rng.random() < 0.4:
                conn.execute(statement(rng))
            else:
                conn.execute(f"BEGIN ISOLATION LEVEL {isolation}")
                for i in range(rng.randint(1, 4)):
                    if rng.random() < 0.3:
                        conn.execute(f"SAVEPOINT s{i}")
                        conn.execute(statement(rng))
                        conn.execute(f"{rng.choice(['ROLLBACK TO', 'RELEASE'])} SAVEPOINT s{i}")
                    conn.execute(statement(rng))
                if rng.random() < 0.25:
                    conn.execute("ROLLBACK")
                    with self.lock:
                        self.rolled_back += 1
                    return
                conn.execute("COMMIT")
            with self.lock:
                self.committed += 1
        except (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected):
            if conn.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                conn.execute("ROLLBACK")
            with self.lock:
                self.retried += 1

    def __enter__(self):
        for t in self.threads:
            t.start()
        return self

    def __exit__(self, *failure):
        self.stopping.set()
        for t in self.threads:
            t.join(60)
        if any(t.is_alive() for t in self.threads):
            raise pg.Failure("a writer hangs")
        if failure == (None, None, None):
            if self.errors:
                raise pg.Failure("\n".join(self.errors[:5]))
            if self.committed < N_WRITERS or self.rolled_back == 0:
                raise pg.Failure(f"too little was written: {self.summary()}")

    def summary(self):
        return f"{self.committed} commits, {self.rolled_back} rollbacks, {self.retried} retries"


def create(conn, definitions, mode):
    for name, query in definitions.items():
        conn.execute(f"CREATE STREAM TABLE {name} WITH (schedule = '1d', refresh_mode = '{mode}') AS {query}"
                     if mode == "DIFFERENTIAL" else
                     f"CREATE STREAM TABLE {name} WITH (refresh_mode = '{mode}') AS {query}")


@contextlib.contextmanager
def snapshot(conn):
    """A REPEATABLE READ transaction."""
    conn.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    try:
        yield
        conn.execute("COMMIT")
    except BaseException:
        if not conn.closed:
            conn.execute("ROLLBACK")
        raise


def test_writers_against_refreshes(world):
    """At every refresh each stream table is its query in the refresher's own snapshot."""
    n = 0
    with world.database() as connect:
        conn = connect()
        conn.execute(DDL)
        create(conn, DEFERRED, "DIFFERENTIAL")
        pooled = functools.partial(world.daemon("transaction").connect, connect.name)
        deadline = time.monotonic() + max(8, world.seconds / 4)
        with Writers([connect, pooled], world.seed) as writers:
            while time.monotonic() < deadline and not writers.errors:
                name, query = list(DEFERRED.items())[n % len(DEFERRED)]
                with snapshot(conn):
                    conn.execute(f"REFRESH STREAM TABLE {name}")
                    pg.assert_equal(conn, name, query, f"refresh {n}")
                n += 1
        for name, query in DEFERRED.items():
            conn.execute(f"REFRESH STREAM TABLE {name}")
            pg.assert_equal(conn, name, query, "at the end")
        left = pg.one(conn, "SELECT count(*) FROM pgtrickle.pgt_refresh_history WHERE status = 'FAILED'")
        if left:
            raise pg.Failure(f"{left} refreshes failed")
    print(f"     {n} refreshes against {writers.summary()}")
    if n < 3 * len(DEFERRED):
        raise pg.Failure(f"only {n} refreshes")


def test_scheduler_against_writers(world):
    """The same under the scheduler's own workers, a chain and a diamond among the stream tables."""
    chain = {"d1": "SELECT g, count(*) AS n, sum(v) AS s FROM sales GROUP BY g",
             "d2": "SELECT k, sum(v) AS s FROM sales GROUP BY k",
             "d3": "SELECT count(*) AS groups, sum(n) AS n FROM d1",
             "d4": "SELECT d1.g, d1.s, d2.s AS other FROM d1 JOIN d2 ON d2.k = d1.g"}
    with world.database() as connect:
        conn = connect()
        conn.execute(DDL)
        for name, query in chain.items():
            schedule = "1s" if name in ("d1", "d2") else "calculated"
            conn.execute(f"CREATE STREAM TABLE {name} WITH (schedule = '{schedule}',"
                         f" refresh_mode = 'DIFFERENTIAL') AS {query}")
        with Writers([connect], world.seed) as writers:
            refreshed = "SELECT count(*) FROM pgtrickle.pgt_refresh_history WHERE action = 'DIFFERENTIAL'"
            pg.wait_until(lambda: pg.one(conn, refreshed) >= 12 or writers.errors, 60, "12 refreshes")
        for name, query in chain.items():
            pg.wait_equal(conn, name, query, 20)


def immediate(world, definitions, isolations, share):
    n = 0
    with world.database() as connect:
        conn = connect()
        conn.execute(DDL)
        create(conn, definitions, "IMMEDIATE")
        pooled = functools.partial(world.daemon("transaction").connect, connect.name)
        deadline = time.monotonic() + max(4, world.seconds * share)
        with Writers([connect, pooled], world.seed, isolations) as writers:
            while time.monotonic() < deadline and not writers.errors:
                with snapshot(conn):
                    for name, query in definitions.items():
                        pg.assert_equal(conn, name, query, f"look {n}, {writers.summary()}")
                n += 1
        for name, query in definitions.items():
            pg.assert_equal(conn, name, query, "at the end")
    print(f"     {n} looks, {writers.summary()}")


def test_immediate_on_one_table(world):
    immediate(world, IMMEDIATE_ONE_TABLE, ["READ COMMITTED"], 0.12)


def test_immediate_on_both_sides_of_joins(world):
    immediate(world, IMMEDIATE_JOINS, ["READ COMMITTED"], 0.12)


def test_immediate_repeatable_read(world):
    """Mixed isolation levels: who loses gets 40001 or 40P01 and tries again; nobody writes a wrong row."""
    immediate(world, {**IMMEDIATE_ONE_TABLE, **IMMEDIATE_JOINS},
              ["REPEATABLE READ", "READ COMMITTED", "SERIALIZABLE"], 0.12)


def test_two_sides_by_hand(world):
    """The races of a join that no luck hits often: both writers hold their transaction open."""
    query = "SELECT i.g, count(*) AS n, sum(s.v * i.price) AS revenue FROM sales s JOIN items i USING (k) GROUP BY i.g"
    pairs = [
        ("INSERT INTO sales (g, k, v) VALUES (1, 3, 5)", "UPDATE items SET price = price + 100 WHERE k = 3"),
        ("INSERT INTO sales (g, k, v) VALUES (1, 77, 5)", "INSERT INTO items VALUES (77, 1, 9)"),
        ("DELETE FROM sales WHERE k = 4", "DELETE FROM items WHERE k = 4"),
        ("UPDATE sales SET k = 6 WHERE k = 5", "UPDATE items SET g = 0 WHERE k IN (5, 6)"),
    ]
    for isolation in ("READ COMMITTED", "REPEATABLE READ"):
        with world.database() as connect:
            setup, a, b = connect(), connect(), connect()
            setup.execute(DDL)
            setup.execute("CREATE STREAM TABLE st WITH (refresh_mode = 'IMMEDIATE') AS " + query)
            for first, second in pairs + [(y, x) for x, y in pairs]:
                setup.execute("DELETE FROM items WHERE k = 77")
                # Whoever comes second may wait for the first, so it runs in a thread.
                failed = []

                def run_second(text=second):
                    try:
                        b.execute(f"BEGIN ISOLATION LEVEL {isolation}")
                        b.execute("SELECT 1")
                        b.execute(text)
                        b.execute("COMMIT")
                    except (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected):
                        b.execute("ROLLBACK")
                    except Exception as e:
                        failed.append(e)

                a.execute(f"BEGIN ISOLATION LEVEL {isolation}")
                a.execute(first)
                thread = threading.Thread(target=run_second)
                thread.start()
                pg.wait_until(lambda: not thread.is_alive() or pg.one(
                    setup, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                           " AND wait_event_type = 'Lock'") > 0, 20, "the second writer ends or waits")
                a.execute("COMMIT")
                thread.join(20)
                if thread.is_alive() or failed:
                    raise pg.Failure(f"{second}: {failed or 'hangs'}")
                pg.assert_equal(setup, "st", query, f"{isolation}: {first} | {second}")
