"""What one client does, and how it leaves, must end with itself: real servers, raw messages."""

from tests.support import pg
from tests.support.harness import daemon, only
from tests.support.wire import FLUSH, SYNC, Wire, bind, describe, execute, message, parse, query

COPY = "COPY hostile FROM STDIN"
DATA, BAD, DONE = message("d", b"1\n"), message("d", b"x\n"), message("c")


def tags(answers):
    return "".join(tag for tag, _ in answers)


def expect(what, got, wanted):
    if got != wanted:
        raise pg.Failure(f"{what}: {got!r}, not {wanted!r}")


def table(world):
    with world.cluster.connect() as conn:
        conn.execute("DROP TABLE IF EXISTS hostile")
        conn.execute("CREATE TABLE hostile (a int)")


def rows(world):
    with world.cluster.connect() as conn:
        return pg.one(conn, "SELECT count(*) FROM hostile")


def statement(sql):
    return parse("", sql) + bind("", "") + describe("P", "") + execute()


@only(15, 18)
def test_what_was_not_synced_is_never_committed(world):
    for mode in ("transaction", "session"):
        table(world)
        with daemon(world, pool_mode=mode, settings={"default_pool_size": 1}) as d:
            direct = Wire(world.cluster.port, "postgres")
            pooled = Wire(d.port, "postgres")
            for c in (direct, pooled):
                c.send(statement("INSERT INTO hostile VALUES (1)"), FLUSH)
                c.answers(until="C")
                c.close()
            with d.connect() as conn:
                expect("the next client", pg.one(conn, "SELECT 1"), 1)
                expect(f"rows in {mode} mode", rows(world), 0)


@only(15, 18)
def test_copy_answers_as_the_server_does(world):
    """Each exchange on a direct connection too; a Sync counts or not by when it is sent."""
    exchanges = {
        "simple": [query(COPY), "G", DATA + DONE, "Z"],
        "simple, a bad row": [query(COPY), "G", BAD + DONE, "Z"],
        "a Sync in it": [query(COPY), "G", DATA + SYNC + DATA + DONE, "Z"],
        "all at once": [query(COPY) + DATA + DONE + query("SELECT 1"), "Z", b"", "Z"],
        "with a Sync behind it": [query(COPY) + DATA + DONE + SYNC, "Z", b"", "Z"],
        "extended": [statement(COPY) + SYNC, "G", DATA + DONE + SYNC, "Z"],
        "extended, two Syncs at the end": [statement(COPY) + SYNC, "G", DATA + DONE + SYNC + SYNC, "Z", b"", "Z"],
        "extended, a bad row": [statement(COPY) + SYNC, "G", BAD + DONE + SYNC + SYNC, "Z", b"", "Z"],
        "extended, all at once": [statement(COPY) + SYNC + DATA + DONE + SYNC, "Z"],
        "extended, one Sync": [statement(COPY) + DATA + DONE + SYNC, "Z"],
        "two in a string": [query(f"{COPY}; {COPY}") + DATA + DONE + DATA + DONE, "Z"],
        "it fails at once": [query("COPY no_such_table FROM STDIN") + DATA + DONE, "Z"],
    }
    table(world)
    with daemon(world, pool_mode="transaction", settings={"default_pool_size": 1}) as d:
        direct, pooled = Wire(world.cluster.port, "postgres"), Wire(d.port, "postgres")
        for what, steps in exchanges.items():
            for send, until in zip(steps[::2], steps[1::2]):
                got = []
                for c in (direct, pooled):
                    c.send(send)
                    got.append(tags(c.answers(until=until)))
                expect(what, got[1], got[0])
            with d.connect() as other:
                expect(f"another client after {what}", pg.one(other, "SELECT 7"), 7)
        direct.close()
        pooled.close()


@only(15)
def test_a_copy_that_failed_does_not_answer_the_next_client(world):
    table(world)
    with daemon(world, pool_mode="transaction", settings={"default_pool_size": 1}) as d:
        with d.connect() as other:
            for _ in range(50):
                c = Wire(d.port, "postgres")
                c.send(query(COPY))
                c.answers(until="G")
                c.send(BAD, SYNC)
                for i in range(3):
                    expect("the other client", pg.one(other, f"SELECT {i}"), i)
                expect("the COPY", tags(c.answers(until="Z")), "EZ")
                c.close()


@only(15)
def test_the_limit_of_statements_may_change(world):
    def known(conn):
        return pg.one(conn, "SELECT count(*) FROM pg_prepared_statements WHERE from_sql = false")

    with daemon(world, pool_mode="transaction", settings={"default_pool_size": 1}) as d, \
            d.connect("pgbouncer") as console, d.connect() as c:
        c.prepare_threshold = 1000
        for limit, first, last, wanted in ((1, 0, 5, 1), (5, 5, 10, 5), (2, 10, 11, 2)):
            console.execute(f"SET max_prepared_statements = {limit}")
            for i in range(first, last):
                expect("a statement", c.execute(f"SELECT {i}", prepare=True).fetchone()[0], i)
            expect(f"statements on the server with a limit of {limit}", known(c), wanted)
