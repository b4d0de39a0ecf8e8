"""Replication connections through the daemon: the server's own tools, and a logical subscriber."""

import contextlib
import os
import shutil
import signal
import subprocess

import psycopg

from tests.support import pg
from tests.support.harness import only

MODES = ("transaction", "session")


@contextlib.contextmanager
def publisher(world):
    """A server that can be replicated, and a daemon for each pool mode. With two connections to a
    pool, each that another one leaves idle is in the way of the next."""
    cluster = pg.Cluster(world.version, settings={"wal_level": "logical", "max_wal_senders": 10,
                                                  "max_replication_slots": 10,
                                                  "wal_retrieve_retry_interval": "100ms"}).start()
    daemons = {}
    try:
        with cluster.connect() as conn:
            conn.execute("CREATE ROLE app LOGIN")
        for mode in MODES:
            daemons[mode] = pg.Daemon(cluster, mode, settings={"default_pool_size": 2}).start()
        yield cluster, daemons
        for daemon in daemons.values():
            daemon.stop()
    finally:
        for daemon in daemons.values():
            daemon.kill() if daemon.is_running() else None
        cluster.stop()


def command(name, daemon, *args):
    return [os.path.join(pg.DEBIAN_BIN, name), "-h", "127.0.0.1", "-p", str(daemon.port),
            "-U", "postgres", "-w", *args]


def tool(name, daemon, *args):
    done = subprocess.run(command(name, daemon, *args), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=60, check=False)
    if done.returncode != 0:
        raise pg.Failure(f"{name} ended with {done.returncode}: {done.stdout}\n{daemon.log()[-2000:]}")
    return done.stdout


def shown(daemon, what):
    with daemon.connect("pgbouncer") as console:
        cur = console.execute(f"SHOW {what}")
        names = [c.name for c in cur.description]
        return [dict(zip(names, row)) for row in cur.fetchall()]


def replicating(daemon, kind):
    return [row for what in ("CLIENTS", "SERVERS") for row in shown(daemon, what)
            if row["replication"] == kind]


@only(15)
def test_tools_of_the_server(world):
    with publisher(world) as (cluster, daemons):
        for mode, how in zip(MODES, ("plain", "tar")):
            daemon = daemons[mode]
            with daemon.connect() as conn:
                conn.execute(f"CREATE TABLE t_{mode} AS SELECT generate_series(1, 1000) AS a")
            to = os.path.join(pg.new_directory(f"backup-{mode}"), "data")
            tool("pg_basebackup", daemon, "-D", to, "-F" + how[0], "-X", "stream", "-c", "fast")
            expected = "PG_VERSION" if how == "plain" else "base.tar"
            if not os.path.exists(os.path.join(to, expected)):
                raise pg.Failure(f"no {expected} in {os.listdir(to)}")
            shutil.rmtree(to)

            wal = pg.new_directory(f"wal-{mode}")
            with cluster.connect() as conn:  # a segment that has just begun would not be sent
                conn.execute("SELECT pg_logical_emit_message(false, 'x', 'x')")
            receiver = subprocess.Popen(command("pg_receivewal", daemon, "-D", wal, "--no-loop"),
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            try:
                pg.wait_until(lambda d=wal: os.listdir(d), 20, "pg_receivewal receives")
                with cluster.connect() as conn:
                    conn.execute("SELECT pg_logical_emit_message(false, 'x', repeat('x', 100000))")
                    conn.execute("SELECT pg_switch_wal()")
                pg.wait_until(lambda d=wal: any("." not in name for name in os.listdir(d)), 20,
                              "a segment is complete")
                receiver.send_signal(signal.SIGINT)
                output = receiver.communicate(timeout=20)[0]
            finally:
                receiver.kill()
            if receiver.returncode != 0:
                raise pg.Failure(f"pg_receivewal ended with {receiver.returncode}: {output}")

            slot = f"slot_{mode}"
            log = os.path.join(pg.new_directory(f"logical-{mode}"), "out")
            tool("pg_recvlogical", daemon, "-d", "postgres", "--slot", slot, "--create-slot",
                 "-P", "test_decoding")
            with daemon.connect() as conn:
                conn.execute(f"INSERT INTO t_{mode} VALUES (4711)")
                end = pg.one(conn, "SELECT pg_current_wal_insert_lsn()")
                conn.execute("CHECKPOINT")
            tool("pg_recvlogical", daemon, "-d", "postgres", "--slot", slot, "--start",
                 "--endpos", end, "--no-loop", "-f", log)
            with open(log, encoding="utf-8") as f:
                if "4711" not in f.read():
                    raise pg.Failure("the insert is not in the stream")
            tool("pg_recvlogical", daemon, "-d", "postgres", "--slot", slot, "--drop-slot")
            pg.wait_until(lambda d=daemon: not replicating(d, "physical") +
                          replicating(d, "logical"), 20, "nothing is left of it")

        # What the server says to a login that it refuses.
        daemon = daemons["transaction"]
        try:
            psycopg.connect(host="127.0.0.1", port=daemon.port, user="app", dbname="postgres",
                            replication="database").close()
            raise pg.Failure("app may replicate")
        except psycopg.OperationalError as e:
            if "walsender" not in str(e) and "replication" not in str(e):
                raise pg.Failure(f"not the server's words: {e}") from e
        if "S: login failed: FATAL: " not in daemon.log():
            raise pg.Failure("the refused login is not in the log")
        # It hinders nobody else.
        with daemon.connect(user="app") as conn:
            conn.execute("SELECT 1")


@only(15, 18)
def test_a_logical_subscriber(world):
    with publisher(world) as (cluster, daemons):
        with cluster.connect() as conn:
            for mode in MODES:
                conn.execute(f"CREATE DATABASE from_{mode}")
                conn.execute(f"CREATE DATABASE to_{mode}")
        for mode in MODES:
            daemon = daemons[mode]
            with cluster.connect(f"from_{mode}") as source, cluster.connect(f"to_{mode}") as target:
                source.execute("CREATE TABLE t (a int PRIMARY KEY, b text)")
                source.execute("INSERT INTO t SELECT i, 'old' FROM generate_series(1, 100) i")
                source.execute("CREATE PUBLICATION p FOR TABLE t")
                source.execute(
                    f"SELECT pg_create_logical_replication_slot('s_{mode}', 'pgoutput')")
                target.execute("CREATE TABLE t (a int PRIMARY KEY, b text)")
                target.execute(
                    f"CREATE SUBSCRIPTION s_{mode} CONNECTION 'host=127.0.0.1 port={daemon.port}"
                    f" user=postgres dbname=from_{mode} options=''-c statement_timeout=0'''"
                    f" PUBLICATION p WITH (create_slot = false)")
                pg.wait_until(lambda: pg.one(target, "SELECT count(*) FROM t") == 100, 30,
                              lambda d=daemon: "the table is copied\n" + cluster.log()[-2000:] +
                              d.log()[-2000:])
                # Larger than all that is buffered on the way.
                source.execute("INSERT INTO t SELECT 1000 + i, repeat(md5(i::text), 30000)"
                               " FROM generate_series(1, 10) i")
                source.execute("UPDATE t SET b = 'new' WHERE a <= 100")
                pg.wait_until(lambda: pg.one(
                    target, "SELECT count(*) FROM t WHERE b = 'new' OR length(b) = 960000") == 110,
                    30, "the changes are there")
                for row in replicating(daemon, "logical"):
                    if row["type"] == "C" and row["state"] != "active":
                        raise pg.Failure(f"a stream is shown as {row}")
                if len(replicating(daemon, "logical")) != 2:
                    raise pg.Failure(f"shown: {replicating(daemon, 'logical')}")

                # A server that must go takes its stream along; the subscriber comes again.
                before = {row["id"] for row in replicating(daemon, "logical")}
                with daemon.connect("pgbouncer") as console:
                    console.execute("RECONNECT")
                source.execute("INSERT INTO t VALUES (5000, 'again')")
                pg.wait_until(lambda: pg.one(target, "SELECT count(*) FROM t WHERE a = 5000") == 1,
                              30, "the subscriber is back")
                if before & {row["id"] for row in replicating(daemon, "logical")}:
                    raise pg.Failure("RECONNECT left the stream where it was")
                target.execute(f"ALTER SUBSCRIPTION s_{mode} DISABLE")
                target.execute(f"ALTER SUBSCRIPTION s_{mode} SET (slot_name = NONE)")
                target.execute(f"DROP SUBSCRIPTION s_{mode}")
                pg.wait_until(lambda d=daemon: not replicating(d, "logical"), 20,
                              "the stream has ended")
