"""Prepared statements in transaction mode look to each client as on a connection of its own.

Random sequences of protocol messages and of PREPARE, EXECUTE, DEALLOCATE go through the proxy, with
several clients on one or two server connections, and to a direct connection per client: each answer must
be the same, tag by tag, with its rows, error codes, messages and positions.
"""

import contextlib
import os
import random
import re
import subprocess
import threading
import time

import psycopg

from tests.support import pg, wire
from tests.support.wire import bind, close, describe, execute, parse, query, shown, FLUSH, SYNC

SETUP = "CREATE TABLE t (a int, b text); INSERT INTO t VALUES (1, 'one'), (2, 'two')"

INT4, TEXT = 23, 25
NAMES = ["s0", "s1", "s2", "S 3"]  # q0, q1: of SQL commands that were parsed under a name
PORTALS = ["", "", "", "c1"]

# What a Parse may hold: text, types, values to bind.
PARSED = [
    ("SELECT 1", (), ()),
    ("SELECT a, b FROM t ORDER BY a", (), ()),
    ("SELECT $1::int + 1", (), (4,)),
    ("SELECT $1 + 1", (INT4,), (41,)),
    ("SELECT $1 || 'x'", (TEXT,), ("y",)),
    ("SELECT 1 / $1::int", (), (0,)),
    ("SELECT b FROM t WHERE a = $1", (INT4,), (2,)),
    ("SELEC 1", (), ()),
    ("SELECT nope FROM t", (), ()),
    ("", (), ()),
    ("SHOW work_mem", (), ()),
]

# {n}: a statement's name, as SQL writes it; {m}: another's.
SQL = [
    "PREPARE {n} AS SELECT 1",
    "PREPARE {n} AS SELECT 1",
    "prepare {n} (int) as select $1 * 2",
    "PREPARE {n} (int, text) AS SELECT $1, $2, a FROM t ORDER BY a",
    "PREPARE {n} AS SELECT nope FROM t",
    "PREPARE {n} AS SELEC",
    "/* x */ PREPARE {n}(text) AS SELECT $1 || ';' -- y",
    "EXECUTE {n}",
    "EXECUTE {n}",
    "EXECUTE {n}(7)",
    "EXECUTE {n}(1, 'zwei')",
    "execute {n} ('ä')",
    "EXPLAIN (COSTS OFF) EXECUTE {n}",
    "DEALLOCATE {n}",
    "DEALLOCATE PREPARE {n}",
    "DEALLOCATE ALL",
    "DISCARD ALL",
    "SELECT 1",
]

STRINGS = [
    "PREPARE {n} AS SELECT 7; EXECUTE {n}; DEALLOCATE {n}",
    "SELECT 'ä', 1; EXECUTE {n}; SELECT 2",
    "DEALLOCATE {n}; PREPARE {n} AS SELECT 8",
    "PREPARE {n} AS SELECT 9; PREPARE {m} AS SELECT 9; EXECUTE {m}",
    "PREPARE {n} AS SELECT 10; SELECT 1/0; DEALLOCATE {n}",
    "DEALLOCATE ALL; PREPARE {n} AS SELECT 11; EXECUTE {n}; EXECUTE {m}",
    "BEGIN; EXECUTE {n}; COMMIT",
    "BEGIN; EXECUTE {n}; ROLLBACK; EXECUTE {m}",
    "BEGIN; CREATE TEMP TABLE x ON COMMIT DROP AS EXECUTE {n}; SELECT count(*) FROM x; COMMIT",
    "BEGIN; PREPARE {n} AS SELECT 12; ROLLBACK; EXECUTE {n}",
    "EXECUTE {n}; EXECUTE {m}; EXECUTE {n}(1)",
    "; ; EXECUTE {n};",
]


def quoted(name):
    return '"' + name + '"' if " " in name else name


ABORTED = "E(25P02 current transaction is aborted, commands ignored until end of transaction block @)"


def same(got, expected):
    """In an aborted transaction a server that has to be taught the statement first says that it is
    aborted, and not what else is wrong."""
    if got == expected:
        return True
    parts = re.split(r"(E\(.*?\) Z)", got), re.split(r"(E\(.*?\) Z)", expected)
    return len(parts[0]) == len(parts[1]) and all(
        a == b or (a == ABORTED + " Z" and b.startswith("E(")) for a, b in zip(*parts))


class Player:
    """One client, through the proxy and directly."""

    def __init__(self, rng, port, direct_port, dbname):
        self.rng = rng
        self.proxied = wire.Wire(port, dbname)
        self.direct = wire.Wire(direct_port, dbname)
        self.values = {}
        self.unnamed = None  # values for what was parsed without being bound yet
        self.history = []

    def in_transaction(self):
        return self.direct.status != "I"

    def sql(self, texts):
        n, m = (quoted(self.rng.choice(NAMES)) for _ in "nm")
        return self.rng.choice(texts).format(n=n, m=m)

    def pipeline(self, extended_sql):
        """Messages up to a Sync."""
        rng = self.rng
        out = []
        for _ in range(rng.randint(1, 5)):
            name = rng.choice(NAMES)
            kind = rng.randint(0, 9)
            if kind <= 2:
                sql, types, values = rng.choice(PARSED)
                self.values[name] = values
                if rng.random() < 0.3:
                    out.append(close("S", name))
                out.append(parse(name, sql, types))
            if kind <= 5:
                portal = rng.choice(PORTALS)
                values = self.values.get(name, ()) if rng.random() < 0.9 else (1,)
                out.append(bind(portal, name, values))
                if rng.random() < 0.5:
                    out.append(describe("P", portal))
                out.append(execute(portal, rng.choice([0, 0, 1])))
            elif kind == 6:
                out.append(describe("S", name))
            elif kind == 7:
                out.append(close(rng.choice("SSP"), name))
            elif kind == 8:
                sql = self.sql(SQL) if extended_sql else "SELECT 5"
                prepared = rng.choice(["", "", "q0", "q1"])
                if prepared and rng.random() < 0.7:
                    out.append(close("S", prepared))
                out += [parse(prepared, sql), bind("", prepared)]
                if rng.random() < 0.7:
                    out.append(describe("P", ""))
                out.append(execute())
            elif rng.random() < 0.1:  # not for EXECUTE, which PostgreSQL does not survive
                out += [close("S", "q2"), parse("q2", "ROLLBACK"), bind("", "q2"), execute()]
            else:
                sql, types, values = rng.choice(PARSED)
                out += [parse("", sql, types), bind("", "", values), describe("P", ""), execute()]
            if rng.random() < 0.1:
                out.append(FLUSH)
        return out + [SYNC]

    def batch(self, may_begin):
        rng = self.rng
        if self.unnamed is not None:
            values, self.unnamed = self.unnamed, None
            return [bind("", "", values), describe("P", ""), execute(), SYNC]
        kind = rng.randint(0, 12)
        if kind == 12:
            sql, types, self.unnamed = rng.choice(PARSED)
            return [parse("", sql, types), describe("S", ""), SYNC]
        if kind <= 3:
            return self.pipeline(True)
        if kind <= 6:
            return [query(self.sql(SQL))]
        if kind == 7:
            return [query(self.sql(STRINGS))] if not self.in_transaction() else [query("SELECT 3")]
        if kind == 8 and not self.in_transaction():
            return self.pipeline(True) + [query(self.sql(SQL))] + self.pipeline(True)
        if kind == 9:
            return [query(self.sql(SQL)), query(self.sql(SQL)), query(self.sql(SQL))]
        if self.in_transaction():
            return [query(rng.choice(["COMMIT", "ROLLBACK"]))]
        return [query("BEGIN")] if may_begin else [query("SELECT 4")]

    def play(self, may_begin):
        batch = self.batch(may_begin)
        self.history = self.history[-12:] + [b"".join(batch)]
        self.direct.send(*batch)
        self.proxied.send(*batch)
        n = sum(m[:1] in (b"S", b"Q") for m in batch)
        expected = shown(self.direct.answers(n))
        try:
            got = shown(self.proxied.answers(n))
        except pg.Failure as e:
            raise pg.Failure(f"{e}\nexpected {expected}\nfor {batch}\nafter {self.history[:-1]}") from None
        if not same(got, expected):
            raise pg.Failure(f"got      {got}\nexpected {expected}\nfor {batch}\nafter "
                             + "\n      ".join(map(str, self.history[:-1])))

    def close(self):
        self.proxied.close()
        self.direct.close()


@contextlib.contextmanager
def pooled(world, mode="transaction", **settings):
    """A database, and a daemon of its own in front of it."""
    with world.database() as connect:
        with connect.direct() as conn:
            conn.execute(SETUP)
        daemon = pg.Daemon(world.cluster, mode, settings).start()
        try:
            connect.pooled = daemon.port
            connect.pooled_log = daemon.log
            yield connect
        finally:
            daemon.stop()


def test_clients_see_their_own_statements(world):
    seconds = min(world.seconds, 4)
    deadline = time.monotonic() + seconds
    seed = world.seed
    while time.monotonic() < deadline:
        rng = random.Random(seed)
        servers = rng.randint(1, 2)
        # With several threads the servers move between them, and the clients' statements with those.
        with pooled(world, default_pool_size=servers, max_prepared_statements=rng.choice([2, 4, 100]),
                    worker_threads=rng.choice([1, 3])) as connect:
            daemon_log = connect.pooled_log
            until = min(deadline, time.monotonic() + max(2, seconds / 3))
            players = [Player(rng, connect.pooled, world.cluster.port, connect.name) for _ in range(4)]
            steps = 0
            try:
                while time.monotonic() < until:
                    busy = [p for p in players if p.in_transaction()]
                    p = rng.choice(busy if len(busy) == servers else players)
                    p.play(len(busy) < servers)
                    steps += 1
            except pg.Failure as e:
                raise pg.Failure(f"seed {seed}, step {steps}: {e}\n{daemon_log()}") from None
            finally:
                for p in players:
                    p.close()
        seed += 1


def tags(answers):
    """Their letters; of an error its code, of a RowDescription the number of columns."""
    out = ""
    for tag, body in answers:
        if tag == "E":
            out += f"E({wire.fields(body)['C']})"
        elif tag == "T":
            out += f"T{int.from_bytes(body[:2], 'big')}"
        elif tag not in "SA":
            out += tag
    return out


def check(client, expected, *messages):
    got = tags(client.ask(*messages))
    if got != expected:
        raise pg.Failure(f"got {got}, expected {expected}, for {messages}")


def test_statements_are_prepared_anew_after_ddl(world):
    """What is stale or gone on a server is prepared anew, and the client whose batch it was sees nothing; but
    who was told the columns and does not ask again is told that they changed."""
    run = [bind("", "s"), describe("P", ""), execute(), SYNC]
    blind = [bind("", "s"), execute(), SYNC]
    with pooled(world, default_pool_size=1) as connect:
        ddl = connect.direct(autocommit=True)
        a, b = (wire.Wire(connect.pooled, connect.name) for _ in "ab")
        check(a, "12T2DDCZ", parse("s", "SELECT * FROM t"), *run)
        check(a, "2T2DDCZ", *run)
        ddl.execute("ALTER TABLE t ADD c int")
        check(a, "2T3DDCZ", *run)
        # Another client's statement, with the same text.
        ddl.execute("ALTER TABLE t DROP c")
        check(b, "12T2DDCZ", parse("s", "SELECT * FROM t"), *run)
        check(a, "2T2DDCZ", *run)
        ddl.execute("ALTER TABLE t ADD c int")
        check(b, "3Z", close("S", "s"), SYNC)
        check(b, "1tT3Z", parse("s", "SELECT * FROM t"), describe("S", "s"), SYNC)
        check(b, "2DDCZ", *blind)
        # b was told three columns.
        ddl.execute("ALTER TABLE t DROP c")
        check(b, "E(0A000)Z", *blind)
        check(b, "E(0A000)Z", *blind)
        check(b, "tT2Z", describe("S", "s"), SYNC)
        check(b, "2DDCZ", *blind)
        # Never told: sees nothing.
        c = wire.Wire(connect.pooled, connect.name)
        check(c, "12DDCZ", parse("s", "SELECT * FROM t"), *blind)
        ddl.execute("ALTER TABLE t ADD c int")
        check(c, "2DDCZ", *blind)
        # Sent in two pieces, with a Flush between.
        ddl.execute("ALTER TABLE t DROP c")
        c.send(bind("", "s"), FLUSH)
        if tags(c.answers(1, until="2")) != "2":
            raise pg.Failure("no BindComplete after a Flush")
        check(c, "DDCZ", execute(), SYNC)
        # In a transaction block it fails, once.
        ddl.execute("ALTER TABLE t ADD c int")
        check(a, "CZ", query("BEGIN"))
        check(a, "E(0A000)Z", *run)
        check(a, "CZ", query("ROLLBACK"))
        check(a, "2T3DDCZ", *run)
        # Deallocated where nobody looks.
        check(a, "CZ", query("DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$"))
        check(a, "2T3DDCZ", *run)
        # SQL's own.
        check(a, "CZ", query("PREPARE p AS SELECT * FROM t"))
        check(a, "T3DDCZ", query("EXECUTE p"))
        ddl.execute("ALTER TABLE t DROP c")
        check(a, "T2DDCZ", query("EXECUTE p"))
        check(a, "CZ", query("DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$"))
        check(a, "T2DDCZ", query("EXECUTE p"))
        check(a, "T2DDCZ", query("EXECUTE s"))
        for client in (a, b, c):
            client.close()


def test_ddl_that_passed_here_is_no_surprise_in_a_transaction(world):
    """Who prepares after it, or asks for the columns each time, meets nobody's older statement."""
    run = [bind("", "s"), describe("P", ""), execute(), SYNC]
    blind = [bind("", "s"), execute(), SYNC]
    with pooled(world, default_pool_size=2) as connect:
        a, b, c = (wire.Wire(connect.pooled, connect.name) for _ in "abc")
        for client in (a, b):
            check(client, "CZ", query("BEGIN"))
        for client in (a, b):
            check(client, "12T2DDCZ", parse("s", "SELECT * FROM t"), *run)
            check(client, "CZ", query("COMMIT"))
        check(a, "CZ", query("BEGIN"))
        check(b, "CZ", query("ALTER TABLE t ADD c int"))
        check(a, "2T3DDCZ", *run)
        check(a, "CZ", query("COMMIT"))
        # In its own transaction at once; for others not before it is committed.
        check(b, "CZ", query("BEGIN"))
        check(b, "CZ", query("ALTER TABLE t DROP c"))
        check(b, "2T2DDCZ", *run)
        check(b, "CZ", query("ROLLBACK"))
        check(a, "CZ", query("BEGIN"))
        check(a, "2T3DDCZ", *run)
        check(a, "T3DDCZ", query("EXECUTE s"))
        check(a, "CZ", query("COMMIT"))
        # Prepared after the DDL, in a transaction: the others' older ones are on both servers.
        check(b, "CZ", query("ALTER TABLE t DROP c"))
        for client in (c, a):
            check(client, "CZ", query("BEGIN"))
        check(c, "12DDCZ", parse("s", "SELECT * FROM t"), *blind)
        check(a, "3Z", close("S", "s"), SYNC)
        check(a, "1tT2Z", parse("s", "SELECT * FROM t"), describe("S", "s"), SYNC)
        check(a, "2DDCZ", *blind)
        for client in (c, a):
            check(client, "CZ", query("COMMIT"))
        # Who was told the columns is told that they changed, as by PostgreSQL.
        check(b, "CZ", query("ALTER TABLE t ADD c int"))
        check(a, "CZ", query("BEGIN"))
        check(a, "E(0A000)Z", *blind)
        check(a, "CZ", query("ROLLBACK"))
        for client in (a, b, c):
            client.close()


MEANINGS = (
    # What one client and the other ask for, and a text that means something else to them.
    ({"DateStyle": "ISO, MDY"}, {"DateStyle": "ISO, DMY"}, "SELECT extract(month FROM DATE '01/02/2020')"),
    ({"TimeZone": "UTC"}, {"TimeZone": "Asia/Tokyo"}, "SELECT extract(epoch FROM TIMESTAMPTZ '2020-01-01 00:00')"),
    ({"IntervalStyle": "postgres"}, {"IntervalStyle": "sql_standard"},
     "SELECT extract(epoch FROM INTERVAL '-1 2:00:00')"),
    ({"standard_conforming_strings": "on"},
     {"standard_conforming_strings": "off", "escape_string_warning": "off"}, r"SELECT length('a\\b')"),
    ({"client_encoding": "UTF8"}, {"client_encoding": "LATIN1"}, "SELECT length('ü')"),
    ({"search_path": "one"}, {"search_path": "two"}, "SELECT * FROM here"),
    ({"search_path": "one"}, {"search_path": "two"}, "SELECT $1 = k FROM here"),
    ({}, {"role": "prepared_role"}, "SELECT * FROM mine"),
    ({"transform_null_equals": "off"}, {"transform_null_equals": "on"}, "SELECT 1 WHERE NULL::int = NULL"),
)


def test_what_a_text_means_depends_on_its_clients_settings(world):
    """One server for both, a connection of his own for each: the same rows and errors, whoever comes first."""
    with pooled(world, default_pool_size=1) as connect:
        with connect.direct(autocommit=True) as admin:
            admin.execute("""CREATE SCHEMA one; CREATE TABLE one.here (k) AS SELECT 7; CREATE SCHEMA two;
                          CREATE TABLE two.here (k, l) AS SELECT '07', 8;
                          CREATE TABLE public.mine AS SELECT 'public';
                          DO $$ BEGIN CREATE ROLE prepared_role; EXCEPTION WHEN duplicate_object THEN END $$;
                          CREATE SCHEMA prepared_role; CREATE TABLE prepared_role.mine AS SELECT 'its own';
                          GRANT ALL ON SCHEMA prepared_role, public TO prepared_role;
                          GRANT ALL ON prepared_role.mine, public.mine TO prepared_role""")
        for one, two, sql in MEANINGS:
            values = ["07"] if "$1" in sql else []
            run = (bind("", "s", values), describe("P", ""), execute(), SYNC)
            for order in ((one, two), (two, one)):
                pairs = [[wire.Wire(port, connect.name, **settings)
                          for port in (connect.pooled, world.cluster.port)] for settings in order]
                for batches in ([(parse("s", sql), *run)], [run], [(query("BEGIN"),), run, (query("COMMIT"),)]):
                    for pair, settings in zip(pairs, order):
                        for batch in batches:
                            got, wanted = (wire.shown(w.ask(*batch)) for w in pair)
                            if got != wanted:
                                raise pg.Failure(f"{sql} with {settings}: {got}, not {wanted}")
                for w in (w for pair in pairs for w in pair):
                    w.close()


def test_names_that_are_wrong(world):
    """An error in its place, or PgBouncer's way: the connection ends."""
    with pooled(world, default_pool_size=1) as connect:
        a, b = (wire.Wire(connect.pooled, connect.name) for _ in "ab")
        check(a, "12DCE(26000)Z", parse("s", "SELECT 1"), bind("", "s"), execute(), bind("", "nope"), SYNC)
        check(a, "E(42P05)Z", parse("s", "SELECT 2"), SYNC)
        # The unnamed statement is nobody else's.
        check(a, "1Z", parse("", "SELECT 'a''s'"), SYNC)
        check(b, "E(26000)Z", bind("", ""), execute(), SYNC)
        check(b, "E(26000)Z", describe("S", ""), SYNC)
        check(a, "2DCZ", bind("", ""), execute(), SYNC)
        check(a, "2DCZ", bind("", ""), execute(), SYNC)
        # So many in one string that splicing them would keep the others waiting.
        check(b, "E(54000)Z", query("EXECUTE p;" * 5000))
        check(b, "E(26000)Z", query("EXECUTE p;" * 1000))
        # A statement that another client has under this internal name.
        check(b, "E(26000)Z", query('EXECUTE "PGTRICKLE_1"'))
        a.close()
        b.close()
    with pooled(world, default_pool_size=1, prepared_errors_fatal=1) as connect:
        for first, words in ((bind("", "nope"), "prepared statement did not exist"),
                             (describe("S", "nope"), "prepared statement did not exist"),
                             (parse("s", "SELECT 2"), "prepared statement 's' was already prepared")):
            a = wire.Wire(connect.pooled, connect.name)
            check(a, "1Z", parse("s", "SELECT 1"), SYNC)
            a.send(first, SYNC)
            found = wire.fields(a.answers(1, until="E")[-1][1])
            if (found["S"], found["M"]) != ("FATAL", words):
                raise pg.Failure(f"{found} instead of {words}")
            pg.wait_until(lambda w=words: f"closing because: {w}" in connect.pooled_log(), 10, words)
            a.close()


def test_what_is_executed_by_name_may_keep_state(world):
    with pooled(world, default_pool_size=2) as connect:
        a, b = (wire.Wire(connect.pooled, connect.name) for _ in "ab")
        check(a, "CZ", query("PREPARE p AS SELECT pg_advisory_lock(7)"))
        check(a, "T1DCZ", query("EXECUTE p"))

        def free():
            return shown(b.ask(query("SELECT pg_try_advisory_lock(7), pg_advisory_unlock(7)"))).count("\\x01t") > 0

        if free():
            raise pg.Failure("the lock of a client is on a server that others get")
        a.close()
        pg.wait_until(free, 10, "the lock goes with its client")
        b.close()


def test_drivers(world):
    """psycopg prepares at once and deallocates by SQL, with and without pipelines; pgbench -M prepared."""
    with pooled(world, default_pool_size=2, max_prepared_statements=5) as connect:
        failed = []

        def work(number):
            try:
                with psycopg.connect(host="127.0.0.1", port=connect.pooled, dbname=connect.name, user="postgres",
                                     autocommit=True, prepare_threshold=number % 2) as conn:
                    conn.prepared_max = 3
                    for i in range(60):
                        if conn.execute(f"SELECT %s::int + {i % 7}", (number,)).fetchone()[0] != number + i % 7:
                            failed.append("another's answer")
                    with conn.pipeline():
                        found = [conn.execute(f"SELECT %s::int * {i % 7}", (number,)) for i in range(60)]
                    if [c.fetchone()[0] for c in found] != [number * (i % 7) for i in range(60)]:
                        failed.append("another's answer in a pipeline")
                    with conn.transaction():
                        conn.execute("SELECT count(*) FROM t WHERE a = %s", (1,))
            except Exception as e:
                failed.append(repr(e))

        threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
        for t in threads:
            t.start()
        for t in threads:
            t.join(60)
        if failed:
            raise pg.Failure("\n".join(failed[:5]))
        # A thread for each: pgbench waits for its PQprepare, with a transaction of another client's open.
        env = dict(os.environ, PGHOST="127.0.0.1", PGPORT=str(connect.pooled), PGUSER="postgres")
        for args in (["-i", "-q", "-s", "1"], ["-n", "-M", "prepared", "-c", "6", "-j", "6", "-t", "40"],
                     ["-n", "-M", "extended", "-c", "6", "-j", "6", "-t", "20"]):
            done = subprocess.run([pg.PGBENCH, *args, connect.name], stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, text=True, env=env, timeout=120, check=False)
            if done.returncode != 0 or ("-i" not in args and "failed transactions: 0 " not in done.stdout):
                raise pg.Failure(f"pgbench {args}:\n{done.stdout}")
