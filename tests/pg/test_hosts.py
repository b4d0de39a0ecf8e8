"""Host lists and names against real servers."""

import contextlib
import os
import subprocess

import psycopg

from tests.support import pg
from tests.support.harness import daemon as started, only


@only(15)
def test_a_list_with_a_dead_host_and_a_name(world):
    port = world.cluster.port
    databases = {
        # Nobody listens on the first.
        "listed": f"host=127.0.0.9,127.0.0.1 port={port} dbname=postgres",
        "named": f"host=localhost port={port} dbname=postgres",
        "primary": f"host=127.0.0.1 port={port} dbname=postgres target_session_attrs=read-write",
        "standby": f"host=127.0.0.1 port={port} dbname=postgres target_session_attrs=standby",
        "unknown": f"host=no-such-host.invalid port={port} dbname=postgres",
    }
    settings = {"query_wait_timeout": 1, "client_login_timeout": 1, "server_lifetime": 0}
    daemon = pg.Daemon(world.cluster, "transaction", databases=databases, settings=settings).start()
    try:
        for name in ("listed", "named", "primary"):
            for _ in range(3):
                with daemon.connect(name) as conn:
                    if pg.one(conn, "SELECT 1") != 1:
                        raise pg.Failure(name)
        for name in ("standby", "unknown"):
            try:
                daemon.connect(name).close()
                raise pg.Failure(f"{name} is served")
            except pg.psycopg.OperationalError:
                pass
        with daemon.connect("pgbouncer") as console:
            shown = {row[0]: row[2] for row in console.execute("SHOW DNS_HOSTS").fetchall()}
            if "127.0.0.1" not in shown["localhost"] or shown["no-such-host.invalid"] != "":
                raise pg.Failure(f"SHOW DNS_HOSTS: {shown}")
            lists = dict(console.execute("SHOW LISTS").fetchall())
            if lists["dns_names"] != 2:
                raise pg.Failure(f"SHOW LISTS: {lists}")
    except BaseException:
        daemon.kill()
        raise
    daemon.stop()


class Standby(pg.Cluster):
    """Of a primary on 127.0.0.1: on the same port of 127.0.0.2, as a list of hosts needs it."""

    def __init__(self, primary):
        self.primary = primary
        super().__init__(primary.version, settings={"listen_addresses": "127.0.0.2", "port": primary.port,
                                                    "unix_socket_directories": ""})

    def _init(self):
        argv = [os.path.join(self.bin, "pg_basebackup"), "-h", "127.0.0.1", "-p", str(self.primary.port),
                "-U", "postgres", "-D", self.directory, "-R", "-c", "fast", "-X", "stream", "--no-sync"]
        done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=pg.place(),
                              check=False, **pg._as_account())
        if done.returncode != 0:
            raise pg.Failure(f"pg_basebackup: {done.stdout}")

    def connect(self, dbname="postgres", user="postgres", **options):
        return psycopg.connect(host="127.0.0.2", port=self.primary.port, dbname=dbname, user=user, autocommit=True,
                               **options)


@only(15)
def test_roles_of_a_primary_and_its_standby(world):
    """Who wants which gets it, and leaves the standby when that is promoted."""
    with contextlib.ExitStack() as stack:
        standby = Standby(world.cluster).start()
        stack.callback(standby.stop)
        wants = {"read-write": False, "primary": False, "standby": True, "read-only": True, "prefer-standby": True}
        target = f"host=127.0.0.2,127.0.0.1 port={world.cluster.port} dbname=postgres"
        databases = {name: f"{target} target_session_attrs={name}" for name in wants}
        d = stack.enter_context(started(world, pool_mode="transaction", databases=databases, settings={
            "server_login_retry": 0.2, "query_wait_timeout": 1}))
        conns = {name: stack.enter_context(d.connect(name)) for name in databases}

        def in_recovery(name):
            return pg.one(conns[name], "SELECT pg_is_in_recovery()")

        for _ in range(3):
            for name, wanted in wants.items():
                if in_recovery(name) is not wanted:
                    raise pg.Failure(f"{name} is on the wrong host")
        pg.expect_error(conns["standby"], "CREATE TABLE t (a int)", "25006")
        with standby.connect() as conn:
            conn.execute("SELECT pg_promote()")
        # The server says what it is now; its connections are left, and no standby is there any more.
        pg.wait_until(lambda: not in_recovery("prefer-standby"), 20, d.log)
        try:
            pg.wait_until(lambda: in_recovery("standby"), 20, "an answer")
            raise pg.Failure("a primary is taken for a standby")
        except psycopg.OperationalError as e:
            if "query_wait_timeout" not in str(e):
                raise
