"""LISTEN in transaction mode where it is hard: limits, other modes, PAUSE, failures. What it does on a good day is
in test_session_state.py."""

import threading

import psycopg

from tests.pg.test_session_state import Ears, expect, listening, pooler
from tests.pg.test_tls import certificates, daemon as tls_daemon, tls_cluster
from tests.support import pg
from tests.support import wire
from tests.support.harness import only


def listeners(d):
    with d.connect("pgbouncer") as console:
        cur = console.execute("SHOW LISTENERS")
        return [dict(zip([c.name for c in cur.description], row)) for row in cur.fetchall()]


def drained(ears):
    """How many it heard, after reading all that is there: one look takes a buffer."""
    while (n := len(ears.got)) < ears.look():
        pass
    return n


def resident(d):
    """Memory of the daemon in bytes."""
    with open(f"/proc/{d.process.pid}/status", encoding="utf-8") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith("VmRSS"))


@only(15)
def test_a_client_that_does_not_read_its_notifications_is_closed(world):
    with pooler(world) as d, world.cluster.connect() as direct, d.connect() as reader:
        deaf = wire.Wire(d.port, "postgres")
        deaf.ask(wire.query("LISTEN news"))
        hears = Ears(reader)
        reader.execute("LISTEN news")
        expect("clients", sum(r["clients"] for r in listeners(d)), 2)
        before, sent = resident(d), 0
        # What the kernel takes is not ours: notify until the daemon has enough.
        while not any("too many notifications" in line for line in d.log().splitlines()):
            direct.execute("SELECT pg_notify('news', i || repeat('x', 7900)) FROM generate_series(1, 500) i")
            sent += 500
            pg.wait_until(lambda: drained(hears) >= sent, 20, lambda: f"{sent} of {len(hears.got)}")
            if sent > 10000:
                raise pg.Failure("not closed after 80 MB")
        grown = resident(d) - before
        if grown > 16 << 20:
            raise pg.Failure(f"{grown >> 20} MB kept for {sent} notifications")
        deaf.close()
        direct.execute("NOTIFY news, 'end'")
        pg.wait_until(lambda: hears.look() > sent and hears.got[-1] == ("news", "end"), 10, "the last one")


@only(15)
def test_ten_thousand_channels(world):
    with pooler(world) as d, d.connect() as a, d.connect() as b, world.cluster.connect() as direct:
        hears = Ears(a)
        a.execute("BEGIN;" + ";".join(f"LISTEN c{i}" for i in range(5000)) + ";COMMIT")
        for i in range(5000, 10000, 500):
            a.execute(";".join(f"LISTEN c{n}" for n in range(i, i + 500)))
        [row] = listeners(d)
        expect("channels", (row["channels"], row["clients"], row["state"]), (10000, 1, "listening"))
        pg.expect_error(a, "LISTEN one_more", "54000")
        expect("the session after it", a.execute("SELECT 1").fetchone(), (1,))
        b.execute("LISTEN one_more")
        direct.execute("SELECT pg_notify('c' || i, '') FROM generate_series(0, 9999) i")
        hears.heard(*[(f"c{i}", "") for i in range(10000)])
        a.execute("UNLISTEN *; LISTEN c7")
        pg.wait_until(lambda: sum(r["channels"] for r in listeners(d)) == 2, 10, lambda: f"two of {listeners(d)}")
        direct.execute("NOTIFY c8")
        direct.execute("NOTIFY c7")
        hears.heard(("c7", ""))


@only(15)
def test_listen_in_statement_mode(world):
    with pooler(world, pool_mode="statement") as d, d.connect() as a, d.connect() as b:
        hears = Ears(a)
        a.execute("LISTEN news")
        b.execute("NOTIFY news, 'x'")
        hears.heard(("news", "x"))
        a.execute("UNLISTEN news")
        b.execute("NOTIFY news")
        hears.nothing_more(b)


@only(15)
def test_listen_over_tls(world):
    with tls_daemon(tls_cluster(world.version), pool_mode="transaction", default_pool_size=1) as d:
        options = {"sslmode": "verify-ca", "sslrootcert": certificates().path("ca.crt")}
        with d.connect(**options) as a, d.connect(**options) as b:
            hears = Ears(a)
            a.execute("LISTEN news")
            for i in range(50):
                b.execute("SELECT pg_notify('news', %s)", (str(i) + "x" * 5000,))
            hears.heard(*[("news", str(i) + "x" * 5000) for i in range(50)])


@only(15)
def test_listen_while_the_database_is_paused_and_reconnected(world):
    with pooler(world) as d, d.connect() as a, d.connect() as b, d.connect("pgbouncer") as console, \
            world.cluster.connect() as direct:
        hears, hears_b, told = Ears(a), Ears(b), []
        a.add_notice_handler(lambda n: told.append(n.message_primary))
        b.execute("SELECT 1")
        console.execute("PAUSE")
        late = threading.Thread(target=lambda: a.execute("LISTEN news"))
        late.start()
        pg.wait_until(lambda: console.execute("SHOW WAITERS").fetchall(), 10, "the LISTEN to wait")
        console.execute("RESUME")
        late.join(20)
        direct.execute("NOTIFY news, 'after the pause'")
        hears.heard(("news", "after the pause"))
        # PAUSE leaves no server connection; who listened is told that something may have been missed.
        console.execute("PAUSE")
        expect("listeners", [(r["state"], r["channels"]) for r in listeners(d)], [("waiting", 1)])
        console.execute("RESUME")
        pg.wait_until(lambda: listeners(d)[0]["state"] == "listening", 10, "the listener")
        b.execute("LISTEN news")
        pg.wait_until(lambda: a.execute("SELECT 1") and any("may have been missed" in n for n in told), 10, "a notice")
        console.execute("RECONNECT")
        a.execute("SELECT 1")
        pg.wait_until(lambda: listening(world) >= 1 and all(r["state"] == "listening" for r in listeners(d)), 10,
                      "listeners")
        direct.execute("NOTIFY news, 'reconnected'")
        for ears in (hears, hears_b):
            pg.wait_until(lambda ears=ears: ears.look() and ears.got[-1] == ("news", "reconnected"), 10, "it")


@only(15, 18)
def test_unlisten_in_a_transaction_that_fails(world):
    with pooler(world) as d, d.connect() as a, d.connect() as b:
        hears = Ears(a)
        a.execute("LISTEN news; LISTEN others")
        for failing in (("BEGIN", "UNLISTEN news", "SELECT 1/0"), ("BEGIN", "UNLISTEN *", "SELECT 1/0"),
                        ("BEGIN; UNLISTEN *; SELECT 1/0",), ("BEGIN", "UNLISTEN *", "ROLLBACK")):
            for statement in failing:
                try:
                    a.execute(statement)
                except psycopg.errors.DivisionByZero:
                    a.execute("ROLLBACK")
            b.execute("NOTIFY news, 'still'")
            hears.heard(("news", "still"))
        # With the protocol's own batches: the error undoes what was before it.
        w = wire.Wire(d.port, "postgres")
        w.ask(wire.query("LISTEN news"))
        w.send(wire.parse("", "UNLISTEN news"), wire.bind("", ""), wire.execute(), wire.parse("", "SELECT 1/0"),
               wire.bind("", ""), wire.execute(), wire.message("S"))
        w.answers(1)
        b.execute("NOTIFY news, 'wire'")
        got = w.answers(1, until="A")
        if not got[-1][1].endswith(b"news\0wire\0"):
            raise pg.Failure(f"{got}")
        w.close()
        hears.heard(("news", "wire"))
        a.execute("BEGIN; UNLISTEN news; COMMIT")
        b.execute("NOTIFY news, 'no more'")
        b.execute("NOTIFY others")
        hears.heard(("others", ""))
