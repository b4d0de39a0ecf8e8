"""kill -9 of the daemon, and of PostgreSQL with all its backends, in the middle of refreshes and of
IMMEDIATE writes.  After the restart every stream table comes to its query with no operator action.
"""

import contextlib
import random
import threading

import psycopg

from tests.support import pg

DDL = """
CREATE TABLE facts (id bigserial PRIMARY KEY, g int, k int, v int);
CREATE TABLE names (k int PRIMARY KEY, name text);
INSERT INTO names SELECT i, 'n' || i FROM generate_series(1, 50) i;
INSERT INTO facts (g, k, v) SELECT i % 20, i % 60, i FROM generate_series(1, 20000) i;
"""

DEFINITIONS = {
    "c_by_g": ("SELECT g, count(*) AS n, sum(v) AS s, max(v) AS hi FROM facts GROUP BY g", "1s", "DIFFERENTIAL"),
    "c_joined": ("SELECT f.id, f.v, n.name FROM facts f JOIN names n USING (k)", "1s", "DIFFERENTIAL"),
    "c_over": ("SELECT count(*) AS groups, sum(n) AS n FROM c_by_g", "calculated", "DIFFERENTIAL"),
    "c_full": ("SELECT k, max(v) - min(v) AS spread FROM facts GROUP BY k", "1s", "FULL"),
    "c_now": ("SELECT g, count(*) AS n, sum(v) AS s FROM facts GROUP BY g", None, "IMMEDIATE"),
    "c_now_joined": ("SELECT n.name, count(*) AS n FROM facts f JOIN names n USING (k) GROUP BY n.name",
                     None, "IMMEDIATE"),
}

DATABASE = "crash"


def create(conn):
    conn.execute(DDL)
    for name, (query, schedule, mode) in DEFINITIONS.items():
        clock = f"schedule = '{schedule}', " if schedule else ""
        conn.execute(f"CREATE STREAM TABLE {name} WITH ({clock}refresh_mode = '{mode}') AS {query}")


def write_until(stop, daemon, seed, counts):
    """Writes through the daemon; connects again whenever it is thrown out."""
    rng = random.Random(seed)
    conn = None
    while not stop.is_set():
        try:
            if conn is None:
                conn = daemon.connect(DATABASE, connect_timeout=5)
            conn.execute("BEGIN")
            for _ in range(3):
                conn.execute(rng.choice([
                    f"INSERT INTO facts (g, k, v) SELECT i % 20, i % 60, i FROM generate_series(1, {rng.randint(1, 200)}) i",
                    f"UPDATE facts SET v = v + 1, g = {rng.randint(0, 19)} WHERE id % 500 = {rng.randint(0, 499)}",
                    f"DELETE FROM facts WHERE id % 700 = {rng.randint(0, 699)}",
                    f"UPDATE names SET name = name || '.' WHERE k = {rng.randint(1, 50)}",
                ]))
            conn.execute("COMMIT")
            counts[0] += 1
        except psycopg.Error as e:
            if isinstance(e, psycopg.errors.DeadlockDetected):
                with contextlib.suppress(psycopg.Error):
                    conn.close()  # a rollback, and a connection that may be gone by now
            elif e.sqlstate and e.sqlstate[:2] not in ("08", "57", "53", "25"):
                counts.append(f"{type(e).__name__}: {e}")
                return
            conn = None
            stop.wait(0.05)  # between attempts while the server is down


def settle(cluster, daemon, what):
    """Everything equals its query, and the maintained tables were not simply never touched again."""
    with pg.wait_until(lambda: try_connect(daemon), 60, "the port answers again") as conn:
        for name, (query, _, mode) in DEFINITIONS.items():
            if mode == "IMMEDIATE":
                pg.assert_equal(conn, name, query, f"{what}: at once, being IMMEDIATE")
        for name, (query, _, _) in DEFINITIONS.items():
            pg.wait_equal(conn, name, query, 60)
        conn.execute("INSERT INTO facts (g, k, v) VALUES (99, 1, 12345)")
        for name, (query, _, _) in DEFINITIONS.items():
            pg.wait_equal(conn, name, query, 30)
        bad = pg.rows(conn, "SELECT pgt_name, status, last_error_message FROM pgtrickle.pgt_stream_tables"
                            " WHERE status <> 'ACTIVE'")
        if bad:
            raise pg.Failure(f"{what}: {bad}")


def try_connect(daemon):
    try:
        return daemon.connect(DATABASE, connect_timeout=5)
    except psycopg.OperationalError:
        return None


def crash_rounds(world, rounds, crash, what):
    cluster = pg.Cluster(world.version, fsync=True, settings={"synchronous_commit": "on"}).start()
    daemon = pg.Daemon(cluster, "transaction", {"server_login_retry": 1}).start()
    stop = threading.Event()
    counts = [0]
    try:
        with cluster.connect() as admin:
            admin.execute(f"CREATE DATABASE {DATABASE}")
        with daemon.connect(DATABASE) as conn:
            create(conn)
        rng = random.Random(world.seed)
        for n in range(rounds):
            stop.clear()
            writers = [threading.Thread(target=write_until, args=(stop, daemon, f"{world.seed}/{n}/{i}", counts))
                       for i in range(4)]
            before = counts[0]
            for w in writers:
                w.start()
            try:
                # In the middle of work: a few commits and part of a refresh in.
                pg.wait_until(lambda: counts[0] >= before + 5 or len(counts) > 1, 60, "five commits")
                stop.wait(rng.random())
                crash(cluster, daemon)
            finally:
                stop.set()
                for w in writers:
                    w.join(60)
            if any(w.is_alive() for w in writers):
                raise pg.Failure("a writer hangs after the crash")
            if len(counts) > 1:
                raise pg.Failure(f"{what}: {counts[1]}")
            settle(cluster, daemon, f"{what}, round {n}")
    except Exception as e:
        raise pg.Failure(f"{e}\n--- daemon\n{daemon.log()[-3000:]}\n--- PostgreSQL\n{cluster.log()[-3000:]}") from e
    finally:
        stop.set()
        if daemon.is_running():
            daemon.kill()
        cluster.stop()


def test_daemon_is_killed(world):
    def crash(cluster, daemon):
        daemon.kill()
        # The server notices on its own time that the daemon's connections are gone; the new daemon comes first.
        daemon.start()

    crash_rounds(world, 2, crash, "the daemon was killed")


def test_server_is_killed(world):
    def crash(cluster, daemon):
        cluster.kill()
        cluster.start()

    crash_rounds(world, 2, crash, "PostgreSQL was killed")


def test_both_are_killed(world):
    def crash(cluster, daemon):
        cluster.kill()
        daemon.kill()
        daemon.start()  # with no server yet
        cluster.start()

    crash_rounds(world, 1, crash, "both were killed")


def test_one_backend_is_terminated(world):
    """The maintenance side's connections are ended under it, again and again."""
    def crash(cluster, daemon):
        with cluster.connect() as admin:
            for _ in range(5):
                admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (DATABASE,))

    crash_rounds(world, 1, crash, "connections were terminated")
