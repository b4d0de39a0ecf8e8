"""Cancels through the daemon: by the client, by the death of the client, through peers."""

import contextlib
import socket
import struct
import threading

import psycopg

from tests.support import pg
from tests.support.harness import only


@contextlib.contextmanager
def daemons(world, *all_settings, peers=""):
    running = []
    try:
        for settings in all_settings:
            d = pg.Daemon(world.cluster, "transaction", settings=settings)
            with open(d.ini_path, "a", encoding="utf-8") as f:
                f.write(peers)
            d.port = settings.get("listen_port", d.port)
            running.append(d.start())
            pg.wait_until(lambda: "process up" in running[-1].log(), 20, "it is this one")
        yield running
        for d in running:
            d.stop()
    finally:
        for d in running:
            if d.is_running():
                d.kill()


def run(conn, query, results):
    try:
        conn.execute(query)
        results.append(None)
    except psycopg.Error as e:
        results.append(e.sqlstate)


def in_thread(conn, query):
    results = []
    thread = threading.Thread(target=run, args=(conn, query, results))
    thread.start()
    return thread, results


def running(world, text):
    with world.cluster.connect() as conn:
        return pg.one(conn, "SELECT count(*) FROM pg_stat_activity WHERE state = 'active'"
                      " AND query LIKE %s AND pid <> pg_backend_pid()", (text + "%",))


def canceled(world, conn, text):
    """Whether a query of conn ends by a cancel from a connection of its own."""
    thread, results = in_thread(conn, f"{text} pg_sleep(60)")
    pg.wait_until(lambda: running(world, text) == 1, 20, "the query runs")
    conn.cancel()
    thread.join(20)
    if results != ["57014"]:
        raise pg.Failure(f"cancelled, and it ended with {results}")
    if pg.one(conn, "SELECT 1") != 1:
        raise pg.Failure("the connection is lost")


@only(15)
def test_peers_behind_one_port(world):
    port = pg.free_port()
    ports = [pg.new_directory(f"peer-{i}") for i in (1, 2, 3)]
    peers = "\n[peers]\n" + "".join(f"{i + 1} = host={d} port={port}\n"
                                    for i, d in enumerate(ports))
    settings = [{"listen_port": port, "so_reuseport": 1, "unix_socket_dir": d, "peer_id": i + 1}
                for i, d in enumerate(ports)]
    with daemons(world, *settings, peers=peers) as all_daemons:
        conns = [pg.connect(port) for _ in range(9)]
        for i, conn in enumerate(conns):
            canceled(world, conn, f"SELECT {i},")
        for conn in conns:
            conn.close()
        shown = []
        for d, i in zip(all_daemons, (1, 2, 3)):
            with psycopg.connect(host=ports[i - 1], port=port, dbname="pgbouncer", user="postgres",
                                 autocommit=True) as console:
                shown.append([row[0] for row in console.execute("SHOW PEERS").fetchall()])
                if not console.execute("SHOW PEER_POOLS").fetchall():
                    raise pg.Failure("no pools of peers")
            if "peer_id, " in d.log():
                raise pg.Failure("the log says that peers have no effect")
        if shown != [[2, 3], [1, 3], [1, 2]]:
            raise pg.Failure(f"SHOW PEERS: {shown}")


@only(15)
def test_the_query_of_a_client_that_is_gone(world):
    with daemons(world, {"default_pool_size": 1}) as (d,):
        with d.connect() as conn:
            pid = pg.one(conn, "SELECT pg_backend_pid()")
        gone = d.connect()
        gone.execute("BEGIN")
        gone.execute("CREATE TABLE left_behind (a int)")
        gone.pgconn.send_query(b"SELECT 'gone', pg_sleep(60)")
        gone.pgconn.flush()
        pg.wait_until(lambda: running(world, "SELECT 'gone'") == 1, 20, "the query runs")
        with d.connect() as queued:
            # ^C while it is queued, then it is served by the server that the other left.
            thread, results = in_thread(queued, "SELECT 1")
            with d.connect("pgbouncer") as console:
                pg.wait_until(lambda: any(row[3] for row in console.execute("SHOW POOLS")
                                          .fetchall()), 20, "it is queued")
            queued.cancel()
            thread.join(20)
            if results != ["57014"]:
                raise pg.Failure(f"cancelled in the queue, and it ended with {results}")
            gone.pgconn.finish()
            if pg.one(queued, "SELECT pg_backend_pid()") != pid:
                raise pg.Failure("the server connection was not kept")
            if pg.one(queued, "SELECT to_regclass('left_behind') IS NOT NULL"):
                raise pg.Failure("the transaction was not rolled back")
        pg.wait_until(lambda: running(world, "SELECT 'gone'") == 0, 20, "its query has ended")


def recv_exactly(s, n):
    data = b""
    while len(data) < n:
        piece = s.recv(n - len(data))
        if not piece:
            raise pg.Failure("the connection ended")
        data += piece
    return data


def messages(s, until):
    found = []
    while True:
        tag, size = struct.unpack("!cI", recv_exactly(s, 5))
        found.append((tag, recv_exactly(s, size - 4)))
        if tag == until:
            return found


def packet(body):
    return struct.pack("!I", len(body) + 4) + body


@only(15, 18)
def test_protocol_3_2(world):
    with daemons(world, {"default_pool_size": 1}) as (d,):
        with contextlib.closing(socket.create_connection(("127.0.0.1", d.port), 20)) as s:
            s.sendall(packet(struct.pack("!HH", 3, 2) + b"user\0postgres\0database\0postgres\0\0"))
            login = dict(messages(s, b"Z"))
            if b"v" in login or len(login[b"K"]) != 36:
                raise pg.Failure(f"3.2 is answered by {sorted(login)}")
            s.sendall(b"Q" + packet(b"SELECT 32, pg_sleep(60)\0"))
            pg.wait_until(lambda: running(world, "SELECT 32") == 1, 20, "the query runs")
            with contextlib.closing(socket.create_connection(("127.0.0.1", d.port), 20)) as c:
                c.sendall(packet(struct.pack("!I", 80877102) + login[b"K"]))
                if c.recv(1):
                    raise pg.Failure("a cancel request is answered")
            answer = dict(messages(s, b"Z"))
            if b"57014" not in answer.get(b"E", b""):
                raise pg.Failure(f"not cancelled: {answer}")
