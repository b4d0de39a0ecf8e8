"""pgtrickle -R: a new process takes over, and who is connected does not notice."""

import contextlib
import itertools
import os
import socket
import struct
import subprocess
import threading

import psycopg

from tests.pg.test_auth import SECRET, roles
from tests.pg.test_session_state import Ears
from tests.pg.test_tls import certificates
from tests.support import harness
from tests.support import pg
from tests.support.harness import only

_numbers = itertools.count()


@contextlib.contextmanager
def daemon(world, pool_mode="session", databases=None, users=None, **settings):
    # A name that needs no directory; the directories of a run may be too deep for a socket.
    settings = {"unix_socket_dir": f"@pgtrickle-takeover-{next(_numbers)}-{os.getpid()}", **settings}
    given = {} if users is None else {"users": users}
    with harness.daemon(world, pool_mode=pool_mode, settings=settings, databases=databases, **given) as d:
        yield d


def reboot(d):
    old = d.process
    d._spawn([pg.reachable(pg.daemon_program()), "-R", d.ini_path])
    pg.wait_until(lambda: old.poll() is not None, 20, lambda: "the old process ends\n" + d.log()[-3000:])
    if old.returncode != 0 or not d.is_running():
        raise pg.Failure(f"the old process ended with {old.returncode}:\n{d.log()[-3000:]}")


def load(d, mode, seconds, clients):
    argv = [pg.PGBENCH, "-h", "127.0.0.1", "-p", str(d.port), "-U", "postgres", "-n", "-S", "-M", mode,
            "-c", str(clients), "-j", "2", "-T", str(seconds), "postgres"]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@only(15)
def test_pgbench_runs_across_takeovers(world):
    subprocess.run([pg.PGBENCH, "-h", "127.0.0.1", "-p", str(world.cluster.port), "-U", "postgres", "-i", "-q",
                    "postgres"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for pool_mode, mode in (("transaction", "extended"), ("session", "prepared")):
        with daemon(world, pool_mode=pool_mode, default_pool_size=8) as d:
            bench = load(d, mode, 2, 8)
            for _ in range(2):
                reboot(d)
            out, _ = bench.communicate(timeout=60)
            if bench.returncode != 0 or "error" in out.lower():
                raise pg.Failure(f"{pool_mode}, {mode}: {out}\n{d.log()[-3000:]}")


@only(15)
def test_sessions_go_on_where_they_were(world):
    for pool_mode in ("transaction", "session"):
        with daemon(world, pool_mode=pool_mode, default_pool_size=4) as d, \
                d.connect() as tx, d.connect() as copy, d.connect() as prep, d.connect() as slow:
            tx.execute("BEGIN")
            pid = pg.one(tx, "SELECT pg_backend_pid()")
            tx.execute("CREATE TEMP TABLE t (x int) ON COMMIT DROP")
            prep.execute("SET application_name = 'mine'")
            for _ in range(7):  # psycopg prepares it on the way
                prep.execute("SELECT %s::int", (1,))
            answer = []
            runner = threading.Thread(target=lambda: answer.append(pg.one(slow, "SELECT 7 FROM pg_sleep(0.7)")))
            runner.start()
            copy.autocommit = False
            copy.execute("CREATE TEMP TABLE c (x int) ON COMMIT DROP")
            cur = copy.cursor()
            with cur.copy("COPY c FROM STDIN") as rows:
                for i in range(1000):
                    rows.write_row((i,))
                reboot(d)
                for i in range(1000):
                    rows.write_row((i,))
            if pg.one(copy, "SELECT count(*) FROM c") != 2000:
                raise pg.Failure("rows of the COPY are lost")
            copy.rollback()
            tx.execute("INSERT INTO t VALUES (1)")
            if pg.one(tx, "SELECT pg_backend_pid()") != pid or pg.one(tx, "SELECT count(*) FROM t") != 1:
                raise pg.Failure("the transaction is on another server")
            tx.execute("COMMIT")
            runner.join(20)
            if answer != [7]:
                raise pg.Failure(f"the running query answered {answer}")
            if pg.one(prep, "SELECT %s::int", (5,)) != 5 or pg.one(prep, "SHOW application_name") != "mine":
                raise pg.Failure("the prepared statement or the setting is lost")


@only(15)
def test_who_waits_is_served_by_the_new_process(world):
    with daemon(world, pool_mode="transaction", default_pool_size=1) as d, d.connect() as holder, d.connect() as waiter:
        holder.execute("BEGIN")
        answer = []
        thread = threading.Thread(target=lambda: answer.append(pg.one(waiter, "SELECT 3")))
        with d.connect("pgbouncer") as console:
            thread.start()
            pg.wait_until(lambda: any(row[3] > 0 for row in console.execute("SHOW POOLS").fetchall()),
                          what="a waiting client")
        reboot(d)
        holder.execute("COMMIT")
        thread.join(20)
        if answer != [3]:
            raise pg.Failure(f"the waiting client got {answer}")
        with d.connect("pgbouncer") as console:
            console.execute("PAUSE")
            reboot(d)
        with d.connect("pgbouncer") as console:
            if dict(console.execute("SHOW STATE").fetchall())["paused"] != "yes":
                raise pg.Failure("the pause is lost")
            console.execute("RESUME")
        if pg.one(waiter, "SELECT 4") != 4:
            raise pg.Failure("nothing after RESUME")


@only(15)
def test_who_waits_for_a_new_connection_gets_one(world):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(20)
        d = pg.Daemon(world.cluster, databases={"db": f"host=127.0.0.1 port={silent.getsockname()[1]}"})
        d.settings["unix_socket_dir"] = f"@pgtrickle-{d.port}"
        d.write_ini()
        d.start()
        try:
            with socket.create_connection(("127.0.0.1", d.port)) as client:
                body = struct.pack("!i", 196608) + b"user\0postgres\0database\0db\0\0"
                client.sendall(struct.pack("!i", len(body) + 4) + body)
                first = silent.accept()[0]
                reboot(d)
                silent.accept()[0].close()  # the new process begins anew
                if not d.is_running():
                    raise pg.Failure("it ended:\n" + d.log()[-3000:])
                first.close()
            d.kill()
        except BaseException:
            d.kill()
            raise


@only(15)
def test_a_cancel_key_of_before_works(world):
    with daemon(world, pool_mode="transaction") as d, d.connect() as app:
        app.execute("SELECT 1")
        reboot(d)
        errors = []

        def sleep():
            try:
                app.execute("SELECT pg_sleep(30)")
            except psycopg.Error as e:
                errors.append(e.sqlstate)

        thread = threading.Thread(target=sleep)
        thread.start()
        with d.connect("pgbouncer") as console:
            pg.wait_until(lambda: any(row[4] == "active" and row[2] == "postgres"
                                      for row in console.execute("SHOW SERVERS").fetchall()), what="a running query")
        app.cancel()
        thread.join(20)
        if errors != ["57014"]:
            raise pg.Failure(f"the cancel was answered {errors}")


@only(15)
def test_secrets_go_along(world):
    """A SCRAM client's keys log in to servers that only the new process opens."""
    target = f"host=127.0.0.1 port={world.cluster.port} dbname=postgres"
    with roles(world) as admin:
        verifier = pg.one(admin, "SELECT rolpassword FROM pg_authid WHERE rolname = 'au_scram'")
        with daemon(world, "transaction", {"*": target}, {"au_scram": verifier, "postgres": pg.PASSWORD},
                    auth_type="scram-sha-256", server_lifetime=0) as d:
            with d.connect(user="au_scram", password=SECRET) as c:
                pid = pg.one(c, "SELECT pg_backend_pid()")
                reboot(d)
                for _ in range(2):
                    # server_lifetime = 0: a server is used once.
                    if pg.one(c, "SELECT pg_backend_pid()") == pid:
                        raise pg.Failure("the server of before")
                with d.connect(user="au_scram", password=SECRET) as other:
                    other.execute("SELECT 1")
                try:
                    d.connect(user="au_scram", password="wrong").close()
                    raise pg.Failure("let in with a wrong password")
                except psycopg.OperationalError as e:
                    if "SASL authentication failed" not in str(e):
                        raise


def ended(conn, sqlstate="57P01"):
    """The server's last word is in the connection; a statement may meet it or the end."""
    try:
        conn.execute("SELECT 1")
    except psycopg.OperationalError as e:
        if e.sqlstate not in (sqlstate, None):
            raise
        return
    raise pg.Failure("a client that can't be handed over was not sent away")


@only(15)
def test_who_cannot_go_along_ends_at_the_end_of_its_transaction(world):
    """TLS, and LISTEN in transaction mode: served by the old process, then 57P01; others don't notice."""
    c = certificates()
    with daemon(world, "transaction", default_pool_size=5, drain_timeout=20, client_tls_sslmode="allow",
                **c.pair("client_tls", "server")) as d:
        plain, idle, busy, ears, heard = (d.connect(sslmode=mode) for mode in
                                          ("disable", "require", "require", "disable", "disable"))
        plain.execute("SELECT 1")
        hears = Ears(ears)
        ears.execute("LISTEN news")
        heard.execute("NOTIFY news, 'before'")
        hears.heard(("news", "before"))
        busy.execute("BEGIN")
        pid = pg.one(busy, "SELECT pg_backend_pid()")
        old = d.process
        d._spawn([pg.reachable(pg.daemon_program()), "-R", d.ini_path])
        pg.wait_until(lambda: "took over" in d.log(), 20, "the new process")
        # The plain client is with the new process; the transaction goes on in the old one.
        if pg.one(plain, "SELECT 2") != 2 or pg.one(busy, "SELECT pg_backend_pid()") != pid:
            raise pg.Failure("the transaction is on another server")
        ended(idle)
        ended(ears)
        if old.poll() is not None:
            raise pg.Failure("the old process left a transaction")
        busy.execute("COMMIT")
        ended(busy)
        pg.wait_until(lambda: old.poll() is not None, 20, lambda: "the old process ends\n" + d.log()[-3000:])
        # They come back, and find what they had.
        with d.connect(sslmode="require") as again, d.connect() as listener:
            again.execute("SELECT 1")
            hears = Ears(listener)
            listener.execute("LISTEN news")
            plain.execute("NOTIFY news, 'after'")
            hears.heard(("news", "after"))
        for conn in (plain, idle, busy, ears, heard):
            conn.close()
