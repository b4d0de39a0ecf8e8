"""What the proxy runs statement by statement looks to a client as if the server had run it.

A query string whose text may call a function of ours is taken apart (proxy/lend.c). Here random strings,
which only mention such a function in a comment, go through the proxy and to the server directly: results,
SQLSTATEs, positions, notices, transaction status and what is left in the tables must be the same.
"""

import random
import time

from psycopg import pq

from tests.support import pg

MARK = "/* pgtrickle.create_stream_table( */"

SETUP = """
CREATE TABLE t (a int);
CREATE TABLE d (a int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED);
"""

STATEMENTS = [
    "INSERT INTO t VALUES ({n})",
    "INSERT INTO t VALUES ({n}) RETURNING a, 'äö;'",
    "SELECT count(*), sum(a) FROM t",
    "SELECT * FROM t ORDER BY a",
    "UPDATE t SET a = a + {n}",
    "DELETE FROM t WHERE a % 7 = 0",
    "SELECT 'ä', 1/({n} % 3)",
    "SELECT nope FROM t",
    "INSERT INTO d VALUES ({n}), ({n})",
    "INSERT INTO d VALUES ({n}) ON CONFLICT DO NOTHING",
    "DELETE FROM d",
    "BEGIN",
    "BEGIN ISOLATION LEVEL SERIALIZABLE",
    "START TRANSACTION READ ONLY",
    "COMMIT",
    "END",
    "ROLLBACK",
    "ABORT",
    "SAVEPOINT s",
    "ROLLBACK TO s",
    "ROLLBACK WORK TO SAVEPOINT s",
    "RELEASE s",
    "SET LOCAL work_mem = '{n}MB'",
    "SET work_mem = '{n}MB'",
    "SHOW work_mem",
    "SHOW transaction_isolation",
    "SET CONSTRAINTS ALL IMMEDIATE",
    "DO $$ BEGIN RAISE NOTICE 'a;b'; END $$",
    "DO $$ BEGIN RAISE WARNING SQLSTATE '01234'; END $$",
    "DECLARE c CURSOR FOR SELECT 1",
    "FETCH c",
    "COPY (SELECT generate_series(1, 3)) TO STDOUT",
    "VACUUM t",
    "CREATE TABLE x{n} (a int)",
    "DROP TABLE IF EXISTS x{n}",
    "TRUNCATE t",
    "SELECT repeat('x', 40000) FROM generate_series(1, 3)",
    "",
    "-- only this\n",
]

# In a pipeline the proxy's block is a real one: what tells the difference is left out.
PIPELINED = [s for s in STATEMENTS if s.split(" ")[0] in ("INSERT", "SELECT", "UPDATE", "DELETE", "DO", "SHOW")]


def result_of(conn, r):
    status = pq.ExecStatus(r.status)
    if status == pq.ExecStatus.COPY_OUT:
        lines = []
        while True:
            n, data = conn.get_copy_data(0)
            if n < 0:
                break
            lines.append(bytes(data))
        return (status.name, lines)
    if status == pq.ExecStatus.FATAL_ERROR:
        return (status.name, r.error_field(pq.DiagnosticField.SQLSTATE),
                r.error_field(pq.DiagnosticField.STATEMENT_POSITION))
    return (status.name, r.command_status,
            [[r.get_value(i, k) for k in range(r.nfields)] for i in range(r.ntuples)])


class Side:
    """One of the two connections, and what it has said."""

    def __init__(self, conn):
        self.conn = conn.pgconn
        self.conn.notice_handler = self.on_notice
        self.said = []
        self.notices = []  # apart: libpq hands out those between two results when they arrive

    def on_notice(self, r):
        self.notices.append((r.error_field(pq.DiagnosticField.SQLSTATE),
                             r.error_field(pq.DiagnosticField.STATEMENT_POSITION)))

    def drain(self):
        while (r := self.conn.get_result()) is not None:
            self.said.append(result_of(self.conn, r))

    def query(self, text):
        self.said, self.notices = [], []
        self.conn.send_query(text.encode())
        self.drain()
        self.said.append(pq.TransactionStatus(self.conn.transaction_status).name)
        return self.said, self.notices

    def pipeline(self, texts):
        """None in texts is a Sync."""
        self.said, self.notices = [], []
        self.conn.enter_pipeline_mode()
        for text in texts:
            if text is None:
                self.conn.pipeline_sync()
            else:
                self.conn.send_query_params(text.encode(), None)
        syncs = texts.count(None)
        while syncs > 0:
            r = self.conn.get_result()
            if r is None:
                continue
            if r.status == pq.ExecStatus.PIPELINE_SYNC:
                syncs -= 1
                self.said.append(pq.TransactionStatus(self.conn.transaction_status).name)
            else:
                self.said.append(result_of(self.conn, r))
        self.conn.exit_pipeline_mode()
        return self.said, self.notices


def compare(world, text, proxied, direct):
    if proxied != direct:
        raise pg.Failure(f"SEED={world.seed} {text!r}\nproxied {proxied}\ndirect  {direct}")


def compare_tables(world, text, a, b):
    for side in (a, b):
        side.query("ROLLBACK")
    for table in ("t", "d"):
        query = f"SELECT * FROM {table} ORDER BY a"
        compare(world, text, a.query(query), b.query(query))


def run(world, one_round):
    """The proxied side works on one database, the direct one on another with the same content."""
    with world.database("transaction") as connect, world.database("transaction") as other:
        proxied, straight = connect(), other.direct()
        for conn in (proxied, straight):
            conn.execute(SETUP)
        a, b = Side(proxied), Side(straight)
        rng = random.Random(world.seed)
        rounds, end = 0, time.monotonic() + min(world.seconds, 20)
        while time.monotonic() < end or rounds < 50:
            one_round(a, b, rng)
            rounds += 1


def test_query_strings(world):
    def one_round(a, b, rng):
        texts = []
        for _ in range(rng.randint(1, 3)):
            parts = [rng.choice(STATEMENTS).format(n=rng.randint(1, 9)) for _ in range(rng.choice([1, 1, 2, 3, 5]))]
            at = rng.randrange(len(parts))
            if not parts[at].startswith("--"):
                parts[at] = MARK + " " + parts[at]
            texts.append(rng.choice([";", " ; "]).join(parts))
            compare(world, texts, a.query(texts[-1]), b.query(texts[-1]))
        compare_tables(world, texts, a, b)
    run(world, one_round)


def test_pipelines(world):
    def one_round(a, b, rng):
        texts = []
        for _ in range(rng.randint(1, 8)):
            text = rng.choice(PIPELINED).format(n=rng.randint(1, 9))
            texts.append(f"{MARK} {text}" if rng.random() < 0.4 else text)
            if rng.random() < 0.2:
                texts.append(None)
        texts.append(None)
        compare(world, texts, a.pipeline(texts), b.pipeline(texts))
        compare_tables(world, texts, a, b)
    run(world, one_round)


def test_a_failed_transaction_stays_failed(world):
    with world.database("transaction") as connect:
        a = Side(connect())
        a.query("BEGIN")
        a.query("SELECT 1/0")
        for text in ("CREATE STREAM TABLE x AS SELECT 1", "SELECT 2; DROP STREAM TABLE x",
                     "SELECT pgtrickle.create_stream_table('x', 'SELECT 1')"):
            said, _ = a.query(text)
            if said != [("FATAL_ERROR", b"25P02", None), "INERROR"]:
                raise pg.Failure(f"{text}: {said}")
        if a.query("ROLLBACK")[0] != [("COMMAND_OK", b"ROLLBACK", []), "IDLE"]:
            raise pg.Failure("ROLLBACK")


def test_a_client_s_begin_takes_the_block_over(world):
    """BEGIN, COMMIT behind a statement that we opened a block for: what follows is as without us."""
    pipelines = [
        [f"{MARK} INSERT INTO t VALUES (1)", "BEGIN", "INSERT INTO t VALUES (2)", None],
        [f"{MARK} INSERT INTO t VALUES (3)", "START TRANSACTION", None, "INSERT INTO t VALUES (4)", None],
        [f"{MARK} INSERT INTO t VALUES (5)", "COMMIT", "INSERT INTO t VALUES (6)", None],
        [f"{MARK} INSERT INTO t VALUES (7)", "COMMIT", "SELECT 1/0", None],
        [f"{MARK} INSERT INTO t VALUES (8)", None, "BEGIN", None],
    ]
    with world.database("transaction") as connect, world.database("transaction") as other:
        proxied, straight = connect(), other.direct()
        for conn in (proxied, straight):
            conn.execute(SETUP)
        a, b = Side(proxied), Side(straight)
        for texts in pipelines:
            compare(world, texts, a.pipeline(texts)[0], b.pipeline(texts)[0])
            compare_tables(world, texts, a, b)
