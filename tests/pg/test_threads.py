"""Several event loops in one process: one pool, one console, whatever thread a client is on."""

import contextlib
import random
import socket
import struct
import threading
import time

import psycopg

from tests.support import harness
from tests.support import pg
from tests.support.harness import only

# Clients on all of them from the beginning.
THREADS = {"worker_threads": 4, "worker_fill_percent": 0, "log_connections": 0, "log_disconnections": 0}


@contextlib.contextmanager
def daemon(world, **settings):
    with harness.daemon(world, pool_mode="transaction", settings={**THREADS, **settings}) as d:
        yield d


def table(console, what):
    cursor = console.execute(f"SHOW {what}")
    names = [column.name for column in cursor.description]
    return [dict(zip(names, row)) for row in cursor.fetchall()]


def together(functions):
    """Runs them at the same time; the first failure is raised."""
    failures = []

    def run(function):
        try:
            function()
        except BaseException as e:  # pylint: disable=broad-except
            failures.append(e)

    threads = [threading.Thread(target=run, args=(f,), daemon=True) for f in functions]
    for t in threads:
        t.start()
    for t in threads:
        t.join(90)
        if t.is_alive():
            raise pg.Failure("a session hangs")
    if failures:
        raise failures[0]


@only(15)
def test_pool_size_is_the_process_s(world):
    with daemon(world, default_pool_size=3) as d, d.connect("pgbouncer") as console:
        pids, lock = set(), threading.Lock()

        def ask():
            with d.connect() as conn:
                for _ in range(20):
                    with conn.transaction():
                        pid = pg.one(conn, "SELECT pg_backend_pid()")
                        if pg.one(conn, "SELECT pg_backend_pid()") != pid:
                            raise pg.Failure("a transaction changed its server")
                    with lock:
                        pids.add(pid)

        together([ask] * 16)
        servers = table(console, "SERVERS")
        if len(pids) > 3 or len(servers) > 3:
            raise pg.Failure(f"{len(pids)} servers answered, {len(servers)} are there")


@only(15)
def test_an_idle_server_goes_where_it_is_wanted(world):
    with daemon(world) as d, contextlib.ExitStack() as stack:
        conns = [stack.enter_context(d.connect(prepare_threshold=0)) for _ in range(8)]
        pids = {pg.one(c, "SELECT pg_backend_pid()") for _ in range(3) for c in conns}
        if len(pids) != 1:
            raise pg.Failure(f"{len(pids)} servers for clients that ask in turn")


@only(15)
def test_the_console_shows_everything_once(world):
    with daemon(world) as d, contextlib.ExitStack() as stack:
        users = ("postgres", "app", "maint")
        conns = [stack.enter_context(d.connect(user=users[i % 3])) for i in range(12)]
        console = stack.enter_context(d.connect("pgbouncer"))
        for i, conn in enumerate(conns):
            conn.execute("BEGIN" if i % 2 else "SELECT 1")
        clients, servers = table(console, "CLIENTS"), table(console, "SERVERS")
        ids = [row["id"] for row in clients + servers]
        if len(set(ids)) != len(ids) or len(clients) != 13:
            raise pg.Failure(f"{len(clients)} clients, ids {sorted(ids)}")
        pools = [row for row in table(console, "POOLS") if row["database"] == "postgres"]
        if sorted(row["user"] for row in pools) != sorted(users):
            raise pg.Failure(f"pools of {[row['user'] for row in pools]}")
        if sum(row["cl_active"] for row in pools) != 12 or sum(r["sv_active"] for r in pools) != 6:
            raise pg.Failure(f"{pools}")
        stats = {row["database"]: row for row in table(console, "STATS_TOTALS")}
        if stats["postgres"]["query_count"] != 12 or stats["postgres"]["xact_count"] != 6:
            raise pg.Failure(f"{stats['postgres']}")
        for conn in conns[1::2]:
            conn.execute("COMMIT")


@only(15)
def test_pause_waits_for_all_threads(world):
    with daemon(world) as d, contextlib.ExitStack() as stack:
        conns = [stack.enter_context(d.connect()) for _ in range(4)]
        console = stack.enter_context(d.connect("pgbouncer"))
        watch = stack.enter_context(d.connect("pgbouncer"))
        for conn in conns:
            conn.execute("BEGIN")
        over = threading.Event()

        def pause():
            console.execute("PAUSE")
            over.set()

        waits = threading.Thread(target=pause, daemon=True)
        waits.start()
        pg.wait_until(lambda: table(watch, "STATE")[1]["value"] == "yes", what="PAUSE is seen")
        for conn in conns:
            if over.is_set():
                raise pg.Failure("PAUSE is over while a transaction runs")
            conn.execute("COMMIT")
        waits.join(20)
        if not over.is_set() or table(watch, "SERVERS"):
            raise pg.Failure("PAUSE does not end")
        watch.execute("RESUME")
        for conn in conns:
            conn.execute("SELECT 1")


@only(15)
def test_a_cancel_finds_its_client_on_any_thread(world):
    with daemon(world) as d, contextlib.ExitStack() as stack:
        conns = [stack.enter_context(d.connect()) for _ in range(8)]

        def sleep(conn):
            def run():
                timer = threading.Timer(0.2, conn.cancel)
                timer.start()
                pg.expect_error(conn, "SELECT pg_sleep(30)", "57014")
                timer.join()
                conn.execute("SELECT 1")
            return run

        together([sleep(conn) for conn in conns])


# ---- all at once ----------------------------------------------------------------------------------


class Load:
    """Sessions that check what they are told, sessions that die, and an operator."""

    def __init__(self, d, databases, seconds, seed):
        self.d = d
        self.databases = databases
        self.end = time.monotonic() + seconds
        self.seed = seed

    def over(self):
        return time.monotonic() > self.end

    def session(self, n):
        rng = random.Random(self.seed + n)
        app = f"app{n % 3}"

        def ask(conn, user, database):
            kind = rng.random()
            if kind < 0.6:
                token = rng.randrange(1 << 30)
                query = ("SELECT %s::int, current_user::text, current_database()::text, "
                         "current_setting('application_name')")
                got = conn.execute(query, (token,)).fetchone()
                if got != (token, user, database, app):
                    raise pg.Failure(f"{got} for {(token, user, database, app)}")
            elif kind < 0.75:
                with conn.transaction():
                    a = pg.one(conn, "SELECT pg_backend_pid()")
                    if pg.one(conn, "SELECT pg_backend_pid()") != a:
                        raise pg.Failure("a transaction changed its server")
            elif kind < 0.8:
                timer = threading.Timer(0.02, conn.cancel)
                timer.start()
                with contextlib.suppress(psycopg.errors.QueryCanceled):
                    conn.execute("SELECT pg_sleep(0.1)")
                timer.join()
            else:
                n_rows = rng.randrange(2000)
                if len(conn.execute("SELECT generate_series(1, %s)", (n_rows,)).fetchall()) != n_rows:
                    raise pg.Failure("rows are lost")

        def run():
            while not self.over():
                database, user = rng.choice(self.databases), rng.choice(("postgres", "app"))
                # A KILL_CLIENT, a RECONNECT or a late cancel may end it at any time.
                with contextlib.suppress(psycopg.OperationalError):
                    with self.d.connect(database, user, application_name=app,
                                        prepare_threshold=rng.choice((0, 5, None))) as conn:
                        for _ in range(rng.randrange(1, 40)):
                            if self.over():
                                break
                            ask(conn, user, database)
        return run

    def dying(self, n):
        rng = random.Random(self.seed + 1000 + n)

        def run():
            while not self.over():
                with socket.create_connection(("127.0.0.1", self.d.port), 20) as s:
                    body = struct.pack("!i", 196608) + b"user\0app\0database\0postgres\0\0"
                    s.sendall(struct.pack("!i", len(body) + 4) + body)
                    if rng.random() < 0.8:
                        s.recv(100)
                        query = b"SELECT pg_sleep(0.05)\0"
                        s.sendall(b"Q" + struct.pack("!i", len(query) + 4) + query)
                    time.sleep(rng.random() * 0.03)
        return run

    def operator(self):
        rng = random.Random(self.seed + 2000)
        commands = ["SHOW POOLS", "SHOW CLIENTS", "SHOW SERVERS", "SHOW STATS", "SHOW DATABASES",
                    "SHOW USERS", "SHOW LISTS", "RELOAD", "RECONNECT", "PAUSE", "KILL_CLIENT"]
        with self.d.connect("pgbouncer") as conn, self.d.connect("pgbouncer") as other:
            while not self.over():
                command = rng.choice(commands)
                if command == "PAUSE":
                    timer = threading.Timer(0.1, conn.cancel)
                    timer.start()
                    with contextlib.suppress(psycopg.errors.QueryCanceled):
                        conn.execute("PAUSE")
                    timer.cancel()
                    timer.join()
                    if table(other, "STATE")[1]["value"] == "yes":
                        other.execute("RESUME")
                elif command == "KILL_CLIENT":
                    victims = [r for r in table(conn, "CLIENTS") if r["database"] != "pgbouncer"]
                    ids = [r["id"] for r in victims]
                    if len(ids) != len(set(ids)):
                        raise pg.Failure(f"ids are not unique: {sorted(ids)}")
                    if ids:  # it may have gone by itself
                        with contextlib.suppress(psycopg.Error):
                            conn.execute(f"KILL_CLIENT {rng.choice(ids)}")
                else:
                    conn.execute(command)
                time.sleep(0.01)


def everything(world, **more):
    with pg.connect(world.cluster.port) as conn:
        conn.execute("DROP DATABASE IF EXISTS second")
        conn.execute("CREATE DATABASE second")
    settings = {"default_pool_size": 3, "max_db_connections": 5, "server_login_retry": 1,
                "max_user_connections": 8, "dvm_scheduler_interval_ms": 3600000, **more}
    with daemon(world, **settings) as d:
        load = Load(d, ("postgres", "second"), min(world.seconds, 30) / 3, world.seed)
        together([load.session(n) for n in range(16)] + [load.dying(n) for n in range(2)]
                 + [load.operator])
        with d.connect("pgbouncer") as console:
            pg.wait_until(lambda: len(table(console, "CLIENTS")) == 1, what="all clients have gone")
            for row in table(console, "DATABASES"):
                if row["current_connections"] > 5:
                    raise pg.Failure(f"max_db_connections does not hold: {row}")


@only(15)
def test_everything_at_once(world):
    everything(world)


@only(15)
def test_everything_at_once_while_clients_change_threads(world):
    everything(world, worker_fill_percent=1)
