"""What people who run PgBouncer are used to: limits, numbers, texts and commands, seen from outside."""

import contextlib
import re
import signal
import threading

import psycopg
from psycopg.rows import dict_row

from tests.support import pg
from tests.support.harness import daemon, only


def console(d):
    return d.connect("pgbouncer", row_factory=dict_row)


def show(d, what):
    with console(d) as conn:
        return conn.execute(f"SHOW {what}").fetchall()


def pool(d, database, user="postgres"):
    return next(r for r in show(d, "POOLS") if (r["database"], r["user"]) == (database, user))


class Sleepers:
    """Clients that hold a server each, or wait for one, until let go."""

    def __init__(self, d, n, database="postgres", user="postgres"):
        self.errors = []
        self.free = threading.Event()
        self.threads = [threading.Thread(target=self._run, args=(d, database, user)) for _ in range(n)]
        for t in self.threads:
            t.start()

    def _run(self, d, database, user):
        try:
            with d.connect(database, user) as conn:
                conn.execute("BEGIN")
                conn.execute("SELECT 1")
                self.free.wait(30)
                conn.execute("COMMIT")
        except psycopg.Error as e:
            self.errors.append(e)

    def end(self):
        self.free.set()
        for t in self.threads:
            t.join(30)
        if self.errors:
            raise pg.Failure(f"{self.errors[0]}")


@contextlib.contextmanager
def sleepers(d, n, database="postgres", user="postgres"):
    s = Sleepers(d, n, database, user)
    try:
        yield
    finally:
        s.free.set()
    s.end()


def expect_servers(d, database, user, servers, waiting):
    pg.wait_until(lambda: (pool(d, database, user)["sv_active"], pool(d, database, user)["cl_waiting"])
                  == (servers, waiting), what=lambda: f"{servers} servers and {waiting} waiting clients: "
                  f"{pool(d, database, user)}")


@only(15)
def test_the_limit_of_a_pool_is_its_users_then_its_databases(world):
    host = f"host=127.0.0.1 port={world.cluster.port}"
    databases = {"two": f"{host} dbname=postgres pool_size=2",
                 "forced": f"{host} dbname=postgres user=maint pool_size=3",
                 "postgres": host}
    with daemon(world, pool_mode="transaction", databases=databases,
                settings={"default_pool_size": 4}) as d:
        with open(d.ini_path, "a", encoding="utf-8") as f:
            f.write("[users]\napp = pool_size=1\nreader =\n")
        with console(d) as conn:
            conn.execute("RELOAD")
        for database, user, pool_user, size in (("postgres", "postgres", "postgres", 4),
                                                ("postgres", "app", "app", 1), ("two", "app", "app", 1),
                                                ("two", "writer", "writer", 2),
                                                ("forced", "app", "maint", 3)):
            with sleepers(d, 5, database, user):
                expect_servers(d, database, pool_user, size, 5 - size)
        users = {r["name"]: r for r in show(d, "USERS")}
        if (users["app"]["pool_size"].strip(), users["reader"]["pool_size"].strip()) != ("1", ""):
            raise pg.Failure(f"SHOW USERS: {users['app']}, {users['reader']}")


@only(15)
def test_limits_of_databases_and_users_hold_over_all_pools(world):
    host = f"host=127.0.0.1 port={world.cluster.port} dbname=postgres"
    databases = {"few": f"{host} max_db_connections=3", "a": host, "b": host}
    with daemon(world, pool_mode="transaction", databases=databases,
                settings={"max_user_connections": 2}) as d:
        for places, served in (([("few", "postgres"), ("few", "app"), ("few", "maint")], 3),
                               ([("a", "writer"), ("b", "writer")], 2)):
            groups = [Sleepers(d, 2, *place) for place in places]
            try:
                pg.wait_until(lambda: sum(r["sv_active"] for r in show(d, "POOLS")) == served
                              and sum(r["cl_waiting"] for r in show(d, "POOLS")) == 2 * len(places) - served,
                              what=lambda: f"{served} served: {show(d, 'POOLS')}")
            finally:
                for g in groups:
                    g.free.set()
            for g in groups:
                g.end()


@only(15)
def test_reserve_and_minimum(world):
    host = f"host=127.0.0.1 port={world.cluster.port} dbname=postgres"
    databases = {"kept": f"{host} user=postgres min_pool_size=2", "postgres": host}
    with daemon(world, pool_mode="transaction", databases=databases,
                settings={"default_pool_size": 2, "reserve_pool_size": 1, "reserve_pool_timeout": 0.5}) as d:
        pg.wait_until(lambda: [r["sv_idle"] for r in show(d, "POOLS") if r["database"] == "kept"] == [2],
                      what="min_pool_size without a client")
        with sleepers(d, 5):
            expect_servers(d, "postgres", "postgres", 3, 2)
        if d.log().count("taking connection from reserve_pool") != 1:
            raise pg.Failure("the log does not tell of the reserve")


@only(15)
def test_ids_states_and_counts(world):
    with daemon(world, databases={"*": f"host=127.0.0.1 port={world.cluster.port} dbname=postgres"},
                settings={"server_lifetime": 0}) as d:
        with console(d) as conn:
            first = max(r["id"] for r in conn.execute("SHOW SOCKETS").fetchall())
            for i in range(1, 3):
                with d.connect("postgres") as app:
                    app.execute("SELECT 1")
                    found = {r["id"] for r in conn.execute("SHOW SOCKETS").fetchall()}
                    if found != {first, first + 2 * i - 1, first + 2 * i}:
                        raise pg.Failure(f"ids {found} after {first}")
                pg.wait_until(lambda: len(conn.execute("SHOW SOCKETS").fetchall()) == 1,
                              what="the server's end")
            app = d.connect("counted")
            app.execute("SELECT 1")
            with app.transaction():
                app.execute("SELECT 1")
                app.execute("SELECT 2")
            memory = {r["name"]: r for r in conn.execute("SHOW MEM").fetchall()}
            if memory["server_cache"]["used"] != 1 or memory["client_cache"]["memtotal"] <= 0:
                raise pg.Failure(f"SHOW MEM: {memory}")
            row = next(r for r in conn.execute("SHOW STATS").fetchall() if r["database"] == "counted")
            counts = [row[f"total_{k}_count"] for k in ("server_assignment", "client_login", "xact", "query")]
            app.close()
            if counts != [1, 1, 2, 5]:
                raise pg.Failure(f"assignments, logins, transactions, queries: {counts}")


@only(15)
def test_a_client_that_waits_is_told_once_a_wait(world):
    text = "No server connection available in postgres backend, client being queued"
    with daemon(world, pool_mode="transaction",
                settings={"default_pool_size": 1, "query_wait_notify": 0.2, "query_wait_timeout": 20}) as d:
        with d.connect() as app:
            told = []
            app.add_notice_handler(lambda n: told.append(n.message_primary))
            for waits in (1, 2):
                with sleepers(d, 1):
                    expect_servers(d, "postgres", "postgres", 1, 0)
                    t = threading.Thread(target=lambda: app.execute("SELECT 1"))
                    t.start()
                    pg.wait_until(lambda: len(told) >= waits, what="the notice")
                t.join(20)
                if told != [text] * waits:
                    raise pg.Failure(f"{told}")


@only(15)
def test_databases_come_change_and_go(world):
    host = f"host=127.0.0.1 port={world.cluster.port}"
    databases = {"kept": f"{host} dbname=postgres connect_query='SET enable_seqscan = off'",
                 "going": f"{host} dbname=postgres"}
    with daemon(world, pool_mode="transaction", databases=databases) as d:
        with d.connect("kept") as app, d.connect("going") as other:
            if pg.one(app, "SHOW enable_seqscan") != "off":
                raise pg.Failure("connect_query was not run")
            other.execute("SELECT 1")
            pid = pg.one(app, "SELECT pg_backend_pid()")
            del d.databases["going"]
            d.databases["kept"] = f"{host} dbname=template1"
            d.databases["*"] = host
            d.write_ini()
            with console(d) as conn:
                conn.execute("RELOAD")
            try:
                other.execute("SELECT 1")
            except psycopg.OperationalError as e:
                if "database removed" not in str(e):
                    raise
            else:
                raise pg.Failure("a database is gone and its client stays")
            if pg.one(app, "SELECT current_database()") != "template1":
                raise pg.Failure("the entry leads elsewhere and its server stays")
            if pg.one(app, "SELECT pg_backend_pid()") == pid:
                raise pg.Failure("the same server")
            with d.connect("postgres") as auto:
                auto.execute("SELECT 1")
        if "registered new auto-database" not in d.log():
            raise pg.Failure("the log does not tell of the new database")


@only(15)
def test_reconnect_wait_close_and_fast_close(world):
    with daemon(world) as d:
        with d.connect() as app, console(d) as conn:
            app.execute("SELECT 1")
            conn.execute("RECONNECT postgres")
            waited = threading.Event()

            def wait_close():
                with console(d) as other:
                    other.execute("WAIT_CLOSE postgres")
                waited.set()

            t = threading.Thread(target=wait_close)
            t.start()
            app.execute("SELECT 1")
            if waited.is_set():
                raise pg.Failure("WAIT_CLOSE did not wait")
            app.close()
            t.join(20)
            if not waited.is_set():
                raise pg.Failure("WAIT_CLOSE waits for ever")
        with d.connect() as app, console(d) as conn:
            app.execute("SELECT 1")
            conn.execute("SET server_fast_close = 1")
            conn.execute("RECONNECT postgres")
            pg.wait_until(lambda: "closing because: database configuration changed" in d.log(),
                          what="the server's end between two transactions")
            try:
                app.execute("SELECT 1")
            except psycopg.OperationalError:
                pass
            else:
                raise pg.Failure("the client keeps its closed server")


@only(15)
def test_shutdowns_end_who_waits_and_let_work_end(world):
    d = pg.Daemon(world.cluster, pool_mode="transaction", settings={"default_pool_size": 1}).start()
    try:
        with d.connect() as holder, d.connect() as waiter, d.connect() as idle:
            holder.execute("BEGIN")
            holder.execute("SELECT 1")
            answers = []

            def wait():
                try:
                    waiter.execute("SELECT 1")
                except psycopg.OperationalError as e:
                    answers.append(str(e))

            t = threading.Thread(target=wait)
            t.start()
            expect_servers(d, "postgres", "postgres", 1, 1)
            with console(d) as conn, contextlib.suppress(psycopg.OperationalError):
                conn.execute("SHUTDOWN WAIT_FOR_SERVERS")
            t.join(20)
            if not answers or "server shutting down" not in answers[0]:
                raise pg.Failure(f"who waited was told {answers}")
            holder.execute("SELECT 1")
            with contextlib.suppress(psycopg.OperationalError):
                idle.execute("SELECT 1")
                raise pg.Failure("a new transaction in a shutdown")
            with contextlib.suppress(psycopg.OperationalError):
                d.connect()
                raise pg.Failure("a new client in a shutdown")
            holder.execute("COMMIT")
        if d.process.wait(20) != 0:
            raise pg.Failure(f"ended with {d.process.returncode}")
    finally:
        if d.is_running():
            d.kill()

    d = pg.Daemon(world.cluster).start()
    try:
        with d.connect() as app:
            app.execute("SELECT 1")
            d.process.send_signal(signal.SIGTERM)
            pg.wait_until(lambda: re.search("(?i)sigterm", d.log()), what="the signal in the log")
            app.execute("SELECT 1")  # one SIGTERM waits for the clients
            d.process.send_signal(signal.SIGTERM)
            if d.process.wait(20) != 0:
                raise pg.Failure(f"ended with {d.process.returncode}")
            with contextlib.suppress(psycopg.OperationalError):
                app.execute("SELECT 1")
                raise pg.Failure("the client lives")
    finally:
        if d.is_running():
            d.kill()


@only(15)
def test_options_at_startup(world):
    with daemon(world, pool_mode="transaction",
                settings={"ignore_startup_parameters": "extra_float_digits"}) as d:
        for options, what, value in (
                ("  -c    datestyle=German,\\ YMD", "datestyle", "German, YMD"),
                ("-c timezone=Europe/Lisbon  -cdatestyle=German,\\ YMD", "timezone", "Europe/Lisbon"),
                ("--timezone=Europe/Lisbon  --datestyle=German,\\ YMD", "datestyle", "German, YMD"),
                ("-c t\\imezone=\\E\\u\\r\\o\\pe/Lisbon", "timezone", "Europe/Lisbon"),
                ("-c extra_float_digits=2", "extra_float_digits", "1")):
            with d.connect(options=options) as conn:
                if pg.one(conn, f"SHOW {what}") != value:
                    raise pg.Failure(f"{options}: {what} is {pg.one(conn, f'SHOW {what}')}")
        for options in ("-d", "-c timezone"):
            try:
                d.connect(options=options).close()
            except psycopg.OperationalError as e:
                if "only '-c config=val' and '--config=val' are allowed" not in str(e):
                    raise
            else:
                raise pg.Failure(f"{options} is taken")
        for _ in range(2):
            with d.connect(application_name="") as conn:
                if pg.one(conn, "SHOW application_name") != "":
                    raise pg.Failure("somebody else's application_name")
                conn.execute("SET application_name = 'test'")
                if pg.one(conn, "SHOW application_name") != "test":
                    raise pg.Failure("application_name can't be set")


@only(15)
def test_why_a_client_waits(world):
    with daemon(world, pool_mode="transaction",
                settings={"default_pool_size": 1, "query_wait_timeout": 1}) as d:
        with d.connect(application_name="greedy") as holder, d.connect(application_name="poor") as waiter:
            holder.execute("BEGIN")
            pid = pg.one(holder, "SELECT pg_backend_pid()")
            errors = []

            def wait():
                try:
                    waiter.execute("SELECT 1")
                except psycopg.OperationalError as e:
                    errors.append(str(e))

            t = threading.Thread(target=wait)
            t.start()
            [row] = pg.wait_until(lambda: show(d, "WAITERS"), what="a row of SHOW WAITERS")
            expected = {"database": "postgres", "user": "postgres", "application_name": "poor",
                        "reason": "pool_size", "limit": 1, "used": 1, "ahead": 0,
                        "holder_application_name": "greedy", "holder_state": "idle in transaction",
                        "holder_remote_pid": pid}
            if {k: row[k] for k in expected} != expected:
                raise pg.Failure(f"{row}")
            t.join(20)
            if not errors or "query_wait_timeout" not in errors[0] \
                    or "uses 1 of 1 server connections (pool_size)" not in errors[0] \
                    or "greedy" not in errors[0]:
                raise pg.Failure(f"{errors}")
