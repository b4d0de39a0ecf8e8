"""Real clients through the port, in both pool modes: psql, pgbench, psycopg 3, node's pg."""

import os
import re
import socket
import subprocess
import threading

import psycopg

from tests.support import pg
from tests.support.harness import Skip, smoke

MODES = ("session", "transaction")


def pgbench(connect, *args):
    env = dict(os.environ, PGPASSWORD=pg.PASSWORD)
    done = subprocess.run([pg.PGBENCH, "-h", "127.0.0.1", "-p", str(connect.port), "-U", "postgres", *args,
                           connect.name], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env,
                          timeout=180, check=False)
    if done.returncode != 0:
        raise pg.Failure(f"pgbench {args} ended with {done.returncode}:\n{done.stdout[-3000:]}")
    return done.stdout


def test_pgbench(world):
    """TPC-B in the three protocols, with stream tables over pgbench_accounts."""
    views = {
        "branch_totals": ("SELECT bid, count(*) AS n, sum(abalance) AS total FROM pgbench_accounts GROUP BY bid",
                          "refresh_mode = 'IMMEDIATE'"),
        "rich": ("SELECT aid, abalance FROM pgbench_accounts WHERE abalance > 1000",
                 "schedule = '1s', refresh_mode = 'DIFFERENTIAL'"),
        "branch_of_rich": ("SELECT bid, max(abalance) AS top FROM pgbench_accounts GROUP BY bid",
                           "schedule = '1s', refresh_mode = 'DIFFERENTIAL'"),
    }
    for mode in MODES:
        with world.database(mode) as connect:
            pgbench(connect, "-i", "-q", "-s", "2")
            conn = connect()
            for name, (query, options) in views.items():
                conn.execute(f"CREATE STREAM TABLE {name} WITH ({options}) AS {query}")
            for protocol in ("simple", "extended", "prepared"):
                out = pgbench(connect, "-n", "-M", protocol, "-c", "8", "-j", "2", "-T", "2")
                failed = re.search(r"number of failed transactions: (\d+)", out)
                done = re.search(r"number of transactions actually processed: (\d+)", out)
                if not failed or failed.group(1) != "0" or int(done.group(1)) < 50:
                    raise pg.Failure(f"pgbench -M {protocol} ({mode}):\n{out}")
                pg.assert_equal(conn, "branch_totals", views["branch_totals"][0], f"after -M {protocol} ({mode})")
            for name, (query, _) in views.items():
                pg.wait_equal(conn, name, query, 20)


@smoke
def test_psql(world):
    script = r"""
\set ON_ERROR_STOP 1
CREATE TABLE t (a int PRIMARY KEY, b text);
\copy t from stdin
1	one
2	two
\.
CREATE STREAM TABLE st WITH (refresh_mode = 'IMMEDIATE') AS SELECT count(*) AS n FROM t;
\d st
\dt
INSERT INTO t VALUES (3, 'three') RETURNING *;
BEGIN;
DECLARE c CURSOR FOR SELECT * FROM t ORDER BY a;
FETCH 2 FROM c;
COMMIT;
\set FETCH_COUNT 1
SELECT * FROM t ORDER BY a;
\unset FETCH_COUNT
SELECT 'n=' || n FROM st;
\copy (SELECT * FROM t ORDER BY a) to stdout
SELECT repeat('x', 5000000) \g /dev/null
\echo done
"""
    for mode in MODES:
        with world.database(mode) as connect:
            out = pg.psql(connect.port, connect.name, script=script)
            for word in ("CREATE STREAM TABLE", "n=3", "COPY 2", "3\tthree", "done"):
                if word not in out:
                    raise pg.Failure(f"{word!r} is not in the output ({mode}):\n{out}")


def test_psycopg(world):
    """Pipelines, server-side cursors, COPY, large values, errors, cancel, parameters per client."""
    for mode in MODES:
        with world.database(mode) as connect:
            conn = connect(prepare_threshold=2)
            conn.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
            conn.execute("CREATE STREAM TABLE st WITH (refresh_mode = 'IMMEDIATE') AS"
                         " SELECT v, count(*) AS n FROM t GROUP BY v")
            with conn.pipeline() as pipeline:
                cursors = [conn.execute("INSERT INTO t VALUES (%s, %s) RETURNING id", (i, f"v{i % 7}"))
                           for i in range(200)]
                pipeline.sync()
                counted = conn.execute("SELECT sum(n) FROM st")
            if [c.fetchone()[0] for c in cursors] != list(range(200)) or counted.fetchone()[0] != 200:
                raise pg.Failure("a pipeline's answers are not its questions'")
            # An error in the middle of a pipeline: what follows is skipped, and after the sync all is well.
            try:
                with conn.pipeline():
                    conn.execute("INSERT INTO t VALUES (1000, 'a')")
                    conn.execute("INSERT INTO t VALUES (1, 'again')")
                    conn.execute("INSERT INTO t VALUES (1001, 'b')")
                raise pg.Failure("no error from the pipeline")
            except psycopg.errors.UniqueViolation:
                pass
            pg.assert_equal(conn, "st", "SELECT v, count(*) AS n FROM t GROUP BY v", "after a failed pipeline")
            with conn.transaction():
                with conn.cursor(name="server_side") as c:
                    c.itersize = 17
                    c.execute("SELECT id FROM t ORDER BY id")
                    if len(list(c)) < 200:
                        raise pg.Failure("rows are missing from a server-side cursor")
            with conn.cursor() as c:
                with c.copy("COPY t FROM STDIN (FORMAT BINARY)") as copy:
                    copy.set_types(["int4", "text"])
                    for i in range(5000):
                        copy.write_row((10000 + i, "x" * (i % 300)))
                with c.copy("COPY t TO STDOUT") as copy:
                    n = sum(1 for _ in copy.rows())
            if n != pg.one(conn, "SELECT count(*) FROM t"):
                raise pg.Failure(f"{n} rows came out of COPY")
            try:
                with conn.cursor().copy("COPY t FROM STDIN") as copy:
                    copy.write_row((1, "exists"))
                raise pg.Failure("no error from COPY")
            except psycopg.errors.UniqueViolation:
                pass
            big = "y" * 20_000_000
            if pg.one(conn, "SELECT %s::text", (big,)) != big:
                raise pg.Failure("a large value came back changed")
            pg.assert_equal(conn, "st", "SELECT v, count(*) AS n FROM t GROUP BY v", mode)
            # What one client sets, the next does not see.
            other = connect()
            conn.execute("SET application_name = 'first'")
            conn.execute("SET TimeZone = 'Asia/Tokyo'")
            other.execute("SET application_name = 'second'")
            for c, name in ((conn, "first"), (other, "second"), (conn, "first")):
                if pg.one(c, "SHOW application_name") != name:
                    raise pg.Failure(f"application_name of {name} is another's ({mode})")
            if pg.one(conn, "SHOW TimeZone") != "Asia/Tokyo" or pg.one(other, "SHOW TimeZone") == "Asia/Tokyo":
                raise pg.Failure(f"TimeZone is not the client's own ({mode})")


def test_cancel(world):
    for mode in MODES:
        with world.database(mode) as connect:
            conn, watcher = connect(), connect()
            failed = []

            def sleep():
                try:
                    conn.execute("SELECT pg_sleep(60)")
                    failed.append("it was not cancelled")
                except psycopg.errors.QueryCanceled:
                    pass
                except Exception as e:
                    failed.append(e)

            thread = threading.Thread(target=sleep)
            thread.start()
            pg.wait_until(lambda: pg.one(watcher, "SELECT count(*) FROM pg_stat_activity WHERE query ="
                                                  " 'SELECT pg_sleep(60)' AND state = 'active'"), 20, "it sleeps")
            conn.cancel()
            thread.join(20)
            if thread.is_alive() or failed:
                raise pg.Failure(f"cancel ({mode}): {failed or 'hangs'}")
            if pg.one(conn, "SELECT 1") != 1:
                raise pg.Failure("the connection is of no use after a cancel")


def test_a_client_dies(world):
    """A client that is gone in a transaction leaves nothing to the next one."""
    for mode in MODES:
        with world.database(mode) as connect:
            setup = connect()
            setup.execute("CREATE TABLE t (a int)")
            setup.execute("CREATE STREAM TABLE st WITH (refresh_mode = 'IMMEDIATE') AS SELECT count(*) AS n FROM t")
            for n in range(6):
                dying = connect()
                dying.execute("BEGIN")
                dying.execute("INSERT INTO t VALUES (1)")
                dying.execute("CREATE TEMP TABLE left_behind (a int)")
                if n % 2:  # without a Terminate message: the socket just ends
                    with socket.socket(fileno=os.dup(dying.fileno())) as s:
                        s.shutdown(socket.SHUT_RDWR)
                dying.pgconn.finish()
            after = connect()
            pg.wait_until(lambda: pg.one(after, "SELECT count(*) FROM pg_stat_activity WHERE datname ="
                                                " current_database() AND state LIKE 'idle in transaction%%'") == 0,
                          20, "no transaction is left open")
            if pg.one(after, "SELECT n FROM st") != 0 or pg.one(after, "SELECT count(*) FROM t") != 0:
                raise pg.Failure("rows of a transaction that was never committed")


def test_node(world):
    modules = os.path.join(pg.BUILD, "npm", "node_modules")
    if not os.path.exists(os.path.join(modules, "pg")):
        raise Skip("node's pg is not installed: make deps")
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "node_client.js")
    env = dict(os.environ, NODE_PATH=modules, PGPASSWORD=pg.PASSWORD)
    for mode in MODES:
        with world.database(mode) as connect:
            done = subprocess.run(["node", script, str(connect.port), connect.name], env=env, timeout=120,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
            if done.returncode != 0 or "ok" not in done.stdout:
                raise pg.Failure(f"node ({mode}):\n{done.stdout}")


def test_login(world):
    """Clients prove who they are by SCRAM, md5 and cleartext; so does the daemon to the server."""
    cluster = pg.Cluster(world.version, auth="scram-sha-256").start()
    try:
        for auth_type in ("scram-sha-256", "md5", "plain"):
            daemon = pg.Daemon(cluster, "transaction", {"auth_type": auth_type, "dvm_user": "postgres",
                                                        "dvm_password": pg.PASSWORD},
                               users={"postgres": pg.PASSWORD}).start()
            try:
                with daemon.connect() as conn:
                    conn.execute("CREATE TABLE IF NOT EXISTS t (a int)")
                    conn.execute(f"CREATE STREAM TABLE st_{auth_type[:3]} WITH (schedule = '1d') AS SELECT a FROM t")
                for wrong in ({"password": "wrong"}, {"user": "nobody"}):
                    try:
                        daemon.connect(**wrong).close()
                    except psycopg.OperationalError:
                        continue
                    raise pg.Failure(f"{auth_type}: {wrong} was let in")
            finally:
                daemon.stop()
    finally:
        cluster.stop()


def test_console(world):
    with world.database() as connect:
        connect().execute("SELECT 1")
        with world.daemon("session").connect("pgbouncer", prepare_threshold=None,
                                             cursor_factory=psycopg.ClientCursor) as console:
            for show in ("VERSION", "POOLS", "CLIENTS", "SERVERS", "DATABASES", "STATS", "CONFIG"):
                if not console.execute(f"SHOW {show}").fetchall():
                    raise pg.Failure(f"SHOW {show} shows nothing")
