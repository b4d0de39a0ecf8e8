"""What clients may do to the daemon's memory: many of them, slow ones, huge messages, half a connection."""

import contextlib
import re
import resource
import socket
import struct

from tests.support import harness, pg

N_IDLE = 10000
BIG = 100_000_000


def rss(daemon):
    with open(f"/proc/{daemon.process.pid}/status", encoding="utf-8") as f:
        return int(re.search(r"VmRSS:\s+(\d+) kB", f.read()).group(1)) * 1024


def message(tag, body):
    return tag + struct.pack("!i", len(body) + 4) + body


def startup(daemon, database="postgres", user="postgres"):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
    s.settimeout(60)
    s.connect(("127.0.0.1", daemon.port))
    body = struct.pack("!i", 196608) + f"user\0{user}\0database\0{database}\0\0".encode()
    s.sendall(struct.pack("!i", len(body) + 4) + body)
    return s


def read_ready(s):
    """Up to the next ReadyForQuery of an idle session; returns the number of bytes and the last ones."""
    n, tail = 0, b""
    while not tail.endswith(b"Z\0\0\0\x05I"):
        more = s.recv(1 << 20)
        if not more:
            raise pg.Failure(f"the connection ended: {tail!r}")
        n += len(more)
        tail = (tail + more)[-100:]
    return n, tail


def login(daemon, **options):
    s = startup(daemon, **options)
    read_ready(s)
    return s


@contextlib.contextmanager
def started(world, **settings):
    daemon = pg.Daemon(world.cluster, "transaction", settings).start()
    try:
        yield daemon
    finally:
        daemon.stop()


def used_clients(conn):
    return dict(conn.execute("SHOW LISTS").fetchall())["used_clients"]


@harness.only(15)
def test_ten_thousand_idle_clients(world):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < N_IDLE + 1000:
        raise harness.Skip(f"{hard} open files are allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, N_IDLE + 1000), hard))
    with started(world, max_client_conn=N_IDLE + 100, log_connections=0,
                 log_disconnections=0) as daemon, contextlib.ExitStack() as stack:
        # psycopg waits with select(): its descriptors must be small.
        first, console = daemon.connect(), daemon.connect("pgbouncer")
        before = rss(daemon)
        for _ in range(N_IDLE):
            stack.callback(login(daemon).close)
        grown = rss(daemon) - before
        if grown > N_IDLE * 2000:
            raise pg.Failure(f"{grown / N_IDLE:.0f} bytes for each idle client")
        if pg.one(first, "SELECT 42") != 42:
            raise pg.Failure("a busy client is served among them")
        if used_clients(console) != N_IDLE + 2:
            raise pg.Failure(f"{used_clients(console)} clients are counted")
        stack.close()
        pg.wait_until(lambda: used_clients(console) == 2, 60, "they are gone")
        console.close()
        first.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@harness.only(15)
def test_a_slow_reader_costs_the_sender_its_speed_not_us_memory(world):
    with started(world, default_pool_size=2) as daemon:
        slow = login(daemon)
        before = rss(daemon)
        slow.sendall(message(b"Q", f"SELECT repeat('x', 1000) FROM generate_series(1, {BIG // 1000})"
                             .encode() + b"\0"))
        with world.cluster.connect() as direct, daemon.connect() as other:
            pg.wait_until(lambda: pg.one(direct, "SELECT count(*) FROM pg_stat_activity"
                                         " WHERE wait_event = 'ClientWrite'") == 1,
                          what="the server waits for the slow client")
            if pg.one(other, "SELECT 42") != 42:
                raise pg.Failure("another client is served meanwhile")
        grown = rss(daemon) - before
        if grown > 4_000_000:
            raise pg.Failure(f"{grown} bytes are kept for a client that does not read")
        n, _ = read_ready(slow)
        if n < BIG:
            raise pg.Failure(f"{n} bytes arrived")
        if rss(daemon) - before > 4_000_000:
            raise pg.Failure(f"{rss(daemon) - before} bytes were needed to pass {n}")
        slow.close()


@harness.only(15)
def test_a_huge_bind_passes_in_pieces(world):
    with started(world) as daemon:
        s = login(daemon)
        before = rss(daemon)
        s.sendall(message(b"P", b"\0SELECT length($1)\0" + struct.pack("!hi", 1, 25)))
        body = struct.pack("!bbhhi", 0, 0, 0, 1, BIG)
        s.sendall(b"B" + struct.pack("!i", len(body) + BIG + 2 + 4) + body)
        piece = b"x" * 1_000_000
        peak = 0
        for _ in range(BIG // len(piece)):
            s.sendall(piece)
            peak = max(peak, rss(daemon) - before)
        s.sendall(struct.pack("!h", 0) + message(b"D", b"P\0") + message(b"E", struct.pack("!bi", 0, 0))
                  + message(b"S", b""))
        _, tail = read_ready(s)
        if str(BIG).encode() not in tail:
            raise pg.Failure(f"the answer is {tail!r}")
        if peak > 4_000_000:
            raise pg.Failure(f"{peak} bytes were kept of a Bind")
        s.close()


@harness.only(15)
def test_half_a_connection_ends(world):
    """Who closes his side has gone, whatever state he left in; who says nothing goes when his time is up."""
    with started(world, client_login_timeout=1) as daemon, daemon.connect("pgbouncer") as console:
        silent = socket.create_connection(("127.0.0.1", daemon.port), 20)
        silent.sendall(b"\0\0")  # tcp_defer_accept waits for a byte
        dumb = startup(daemon, user="nobody-here")
        idle = login(daemon)
        querying = login(daemon)
        querying.sendall(message(b"Q", b"SELECT pg_sleep(600)\0"))
        in_message = login(daemon)
        in_message.sendall(b"Q\0\0\1\0SELECT")
        for s in (idle, querying, in_message):
            s.shutdown(socket.SHUT_WR)
        for s in (silent, dumb, idle, querying, in_message):
            with contextlib.suppress(ConnectionResetError):
                while s.recv(4096):
                    pass
            s.close()
        pg.wait_until(lambda: used_clients(console) == 1, what="only the console is left")
        with world.cluster.connect() as direct:
            pg.wait_until(lambda: pg.one(direct, "SELECT count(*) FROM pg_stat_activity"
                                         " WHERE query LIKE 'SELECT pg_sleep(600)%%'"
                                         " AND state = 'active'") == 0,
                          what="the query of the client that went is cancelled")
