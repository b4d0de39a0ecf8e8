"""What a client keeps in its session, in transaction mode, with one server connection for all clients: it
follows the client, or keeps the server, and the next client sees nothing of it."""

import contextlib
import socket
import struct

import psycopg

from tests.support import pg
from tests.support.harness import only, smoke


@contextlib.contextmanager
def pooler(world, **settings):
    """A daemon whose clients share one server connection."""
    settings = {"default_pool_size": 1, "query_wait_timeout": 5, **settings}
    d = pg.Daemon(world.cluster, pool_mode="transaction", settings=settings).start()
    try:
        yield d
    except BaseException:
        d.kill()
        raise
    d.stop()


def show(conn, name):
    return conn.execute(f"SHOW {name}").fetchone()[0]


def expect(what, got, wanted):
    if got != wanted:
        raise pg.Failure(f"{what} is {got!r}, not {wanted!r}")


# ---- parameters ---------------------------------------------------------------------------------


@smoke
def test_startup_parameters_follow_and_are_not_seen_by_others(world):
    options = "-c statement_timeout=17s --search-path=a,b -c app.tenant=5 -c DateStyle=German"
    with pooler(world) as d, d.connect(options=options) as a, d.connect() as b:
        backend = a.execute("SELECT pg_backend_pid()").fetchone()
        for _ in range(2):
            expect("A's timeout", show(a, "statement_timeout"), "17s")
            expect("A's path", show(a, "search_path"), "a,b")
            expect("A's tenant", show(a, "app.tenant"), "5")
            expect("A's dates", show(a, "datestyle"), "German, DMY")
            expect("B's timeout", show(b, "statement_timeout"), "0")
            expect("B's path", show(b, "search_path"), '"$user", public')
            expect("B's dates", show(b, "datestyle"), "ISO, MDY")
            tenant = b.execute("SELECT current_setting('app.tenant', true)").fetchone()[0]
            expect("B's tenant", tenant or None, None)
        expect("the server", b.execute("SELECT pg_backend_pid()").fetchone(), backend)


def startup(d, **parameters):
    """A raw connection up to its first ReadyForQuery: the tags and the ParameterStatus."""
    s = socket.create_connection(("127.0.0.1", d.port), 10)
    body = b"".join(k.encode() + b"\0" + v.encode() + b"\0" for k, v in parameters.items())
    s.sendall(struct.pack("!II", len(body) + 9, 196608) + body + b"\0")
    return s, dict(p for t, p in messages(s) if t == "S")


def query(s, sql):
    s.sendall(b"Q" + struct.pack("!I", len(sql) + 5) + sql.encode() + b"\0")
    return list(messages(s))


def read(s, n):
    got = b""
    while len(got) < n:
        piece = s.recv(n - len(got))
        if not piece:
            return None
        got += piece
    return got


def messages(s):
    """Up to ReadyForQuery or the end."""
    while header := read(s, 5):
        tag, length = struct.unpack("!cI", header)
        body, tag = read(s, length - 4), tag.decode()
        if tag == "S":
            yield tag, tuple(x.decode() for x in body.split(b"\0")[:2])
        else:
            yield tag, body
        if tag == "Z":
            return


@only(15)
def test_drivers_startup_packets(world):
    with pooler(world) as d:
        # pgjdbc, and what Npgsql sends.
        jdbc, told = startup(d, user="postgres", database="postgres", client_encoding="UTF8", DateStyle="ISO",
                             TimeZone="Asia/Tokyo", extra_float_digits="3", application_name="app")
        expect("JDBC's zone", told["TimeZone"], "Asia/Tokyo")
        npgsql, _ = startup(d, user="postgres", database="postgres", client_encoding="UTF8",
                            search_path="pg_catalog")
        for _ in range(2):
            got = query(jdbc, "SELECT current_setting('extra_float_digits')")
            expect("JDBC's digits", [b[6:] for t, b in got if t == "D"], [b"3"])
            got = query(npgsql, "SELECT current_setting('extra_float_digits'), current_setting('search_path')")
            expect("Npgsql's", [b[6:7] + b[11:] for t, b in got if t == "D"], [b"1pg_catalog"])
        jdbc.close()
        npgsql.close()
        # What the server does not take ends the client at its first statement.
        bad, _ = startup(d, user="postgres", database="postgres", no_such_parameter="1")
        got = query(bad, "SELECT 1")
        if [t for t, _ in got] != ["E"] or b"no_such_parameter" not in got[0][1]:
            raise pg.Failure(f"an unknown parameter: {got}")
    with pooler(world, refuse_startup_parameters=1, ignore_startup_parameters="options") as d:
        try:
            d.connect(client_encoding="UTF8", options="-c geqo=off").close()
            startup(d, user="postgres", database="postgres", geqo="off")[0].close()
        except (pg.Failure, psycopg.OperationalError) as e:
            raise pg.Failure(f"not ignored: {e}") from e
