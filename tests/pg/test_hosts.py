"""Host lists and names against a real server."""

from tests.support import pg
from tests.support.harness import only


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
