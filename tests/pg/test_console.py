"""The console and the configuration through a running daemon: what drivers, monitoring and admins do."""

import contextlib
import threading
from decimal import Decimal

import psycopg

from tests.support import pg
from tests.support.harness import daemon, only


def console(d, user="postgres", **options):
    return d.connect("pgbouncer", user=user, **options)


def shown(conn, key, what="CONFIG"):
    return dict((row[0], row[1]) for row in conn.execute(f"SHOW {what}").fetchall())[key]


@only(15)
def test_extended_protocol_and_binary_results(world):
    with daemon(world) as d, d.connect() as app, console(d) as conn:
        app.execute("SELECT 1")
        for binary in (False, True):
            cur = conn.cursor(binary=binary)
            for _ in range(7):  # psycopg prepares it on the way
                cur.execute("SHOW STATS_TOTALS")
            stats = {row[0]: row for row in cur.fetchall()}
            number = stats["postgres"][[c.name for c in cur.description].index("xact_count")]
            if not (isinstance(number, Decimal) and number == 1):
                raise pg.Failure(f"xact_count is {number!r}")
            cur.execute("SHOW POOLS")
            if not all(isinstance(row[2], int) for row in cur.fetchall()):
                raise pg.Failure("cl_active is no integer")
        with conn.pipeline():
            state = conn.execute("SHOW STATE")
            version = conn.execute("SHOW VERSION")
            if len(state.fetchall()) != 3 or not version.fetchone()[0].startswith("pgtrickle "):
                raise pg.Failure("a pipeline mixes up its answers")
        pg.expect_error(conn, "nonsense", "08P01", "invalid command 'nonsense', use SHOW HELP;")
        if conn.execute("SHOW STATE").fetchone() != ("active", "yes"):
            raise pg.Failure("the console is lost after an error")


@only(15)
def test_who_may_enter_the_console(world):
    settings = {"stats_users": "alice", "auth_type": "scram-sha-256"}
    users = {"postgres": pg.PASSWORD, "alice": pg.PASSWORD, "bob": pg.PASSWORD}
    with daemon(world, settings=settings, users=users) as d:
        with console(d, "alice") as conn:
            conn.execute("SHOW STATS").fetchall()
            pg.expect_error(conn, "PAUSE", "08P01", "admin access needed")
        for user, password, why in (("bob", pg.PASSWORD, "not allowed"), ("alice", "wrong", "")):
            try:
                console(d, user, password=password).close()
            except psycopg.OperationalError as e:
                if why not in str(e):
                    raise pg.Failure(f"{user}: {e}") from e
            else:
                raise pg.Failure(f"{user} is on the console")


@only(15)
def test_pause_waits_and_resume_lets_go_on(world):
    with daemon(world, pool_mode="transaction") as d, d.connect() as app, console(d) as conn, \
            console(d) as other:
        app.execute("BEGIN")
        app.execute("SELECT 1")
        paused = threading.Event()

        def pause():
            conn.execute("PAUSE")
            paused.set()

        pauser = threading.Thread(target=pause)
        pauser.start()
        pg.wait_until(lambda: shown(other, "paused", "STATE") == "yes", what="paused: yes")
        if paused.wait(0.3):
            raise pg.Failure("PAUSE did not wait for the transaction")
        app.execute("COMMIT")
        pauser.join(20)
        if not paused.is_set():
            raise pg.Failure("PAUSE did not end with the transaction")
        if other.execute("SHOW SERVERS").fetchall():
            raise pg.Failure("a server connection is left in a pause")

        answer = []
        waiter = threading.Thread(target=lambda: answer.append(pg.one(app, "SELECT 7")))
        waiter.start()
        pg.wait_until(lambda: any(row[3] > 0 for row in other.execute("SHOW POOLS").fetchall()),
                      what="a waiting client")
        other.execute("RESUME")
        waiter.join(20)
        if answer != [7]:
            raise pg.Failure("the client did not go on after RESUME")
        pg.expect_error(other, "RESUME", "08P01", "not paused")


@only(15)
def test_cancel_of_a_waiting_command_resumes(world):
    with daemon(world) as d, d.connect() as app, console(d) as conn, console(d) as other:
        app.execute("SELECT 1")
        errors = []

        def pause():
            try:
                conn.execute("PAUSE")
            except psycopg.Error as e:
                errors.append(e)

        pauser = threading.Thread(target=pause)
        pauser.start()
        pg.wait_until(lambda: shown(other, "paused", "STATE") == "yes", what="paused: yes")
        conn.cancel()
        pauser.join(20)
        if shown(other, "active", "STATE") != "yes" or len(errors) != 1:
            raise pg.Failure(f"still paused, {errors}")
        app.execute("SELECT 1")


@only(15)
def test_reload_and_set(world):
    with daemon(world) as d, console(d) as conn:
        conn.execute("SET max_client_conn = 77")
        if shown(conn, "max_client_conn") != "77":
            raise pg.Failure("SET had no effect")
        conn.execute("SET listen_port = 1")  # read at start only: acknowledged, no effect
        if shown(conn, "listen_port") != str(d.port):
            raise pg.Failure("SET changed what is read at start")
        pg.expect_error(conn, "SET max_client_conn = many", "22023")

        d.settings["nonsense"] = 1
        d.write_ini()
        pg.expect_error(conn, "RELOAD", "F0000")
        if 'unknown parameter "nonsense"' not in d.log():
            raise pg.Failure("the log does not say why RELOAD failed")
        if shown(conn, "max_client_conn") != "77":
            raise pg.Failure("a RELOAD that failed changed something")
        del d.settings["nonsense"]
        d.settings["query_timeout"] = 33
        d.databases["renamed"] = f"host=127.0.0.1 port={world.cluster.port} dbname=postgres"
        d.write_ini()
        conn.execute("RELOAD")
        if (shown(conn, "max_client_conn"), shown(conn, "query_timeout")) != ("300", "33"):
            raise pg.Failure("RELOAD did not read the file")
        with d.connect("renamed") as app:
            if pg.one(app, "SELECT current_database()") != "postgres":
                raise pg.Failure("a new entry leads elsewhere")


@only(15)
def test_disable_kill_and_kill_client(world):
    with daemon(world) as d, console(d) as conn:
        app = d.connect()
        app.execute("SELECT 1")
        conn.execute("DISABLE postgres")
        try:
            d.connect()
        except psycopg.OperationalError as e:
            if 'database "postgres" is disabled' not in str(e):
                raise
        else:
            raise pg.Failure("a disabled database takes clients")
        app.execute("SELECT 1")
        conn.execute("ENABLE postgres")

        columns = [c.name for c in conn.execute("SHOW CLIENTS").description]
        clients = [dict(zip(columns, row)) for row in conn.execute("SHOW CLIENTS").fetchall()]
        [mine] = [c for c in clients if c["database"] == "postgres"]
        conn.execute(f"KILL_CLIENT {mine['id']}")
        with contextlib.suppress(psycopg.OperationalError):
            app.execute("SELECT 1")
            raise pg.Failure("the client lives")
        pg.expect_error(conn, "KILL_CLIENT 999999", "08P01", "client not found")

        app = d.connect()
        conn.execute("KILL postgres")
        with contextlib.suppress(psycopg.OperationalError):
            app.execute("SELECT 1")
            raise pg.Failure("the client lives")
        conn.execute("RESUME postgres")
        with d.connect() as again:
            again.execute("SELECT 1")


@only(15)
def test_every_shutdown_ends_cleanly(world):
    for mode in ("", " WAIT_FOR_SERVERS", " WAIT_FOR_CLIENTS"):
        with daemon(world) as d:
            with d.connect() as app:
                app.execute("SELECT 1")
            conn = console(d)
            with contextlib.suppress(psycopg.OperationalError):
                conn.execute("SHUTDOWN" + mode)
            conn.close()
            if d.process.wait(20) != 0:
                raise pg.Failure(f"SHUTDOWN{mode}: ended with {d.process.returncode}\n{d.log()[-2000:]}")


@only(15)
def test_what_it_cannot_do_it_refuses_to_start_with(world):
    for key, value, why in (("client_tls_sslmode", "require", "client_tls_key_file"),
                            ("auth_type", "cert", "auth_type=cert"), ("nonsense", "1", "nonsense"),
                            ("max_client_conn", "many", "max_client_conn")):
        with daemon_that_fails(world, {key: value}) as log:
            if why not in log:
                raise pg.Failure(f"{key} = {value}: {log}")


@contextlib.contextmanager
def daemon_that_fails(world, settings):
    d = pg.Daemon(world.cluster, settings=settings)
    try:
        d.start()
    except pg.Failure:
        yield d.log()
    else:
        d.kill()
        raise pg.Failure(f"started with {settings}")
