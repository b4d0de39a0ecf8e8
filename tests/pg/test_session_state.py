"""What a client keeps in its session, in transaction mode, with one server connection for all clients: it
follows the client, or keeps the server, and the next client sees nothing of it."""

import contextlib
import socket
import struct

import psycopg

from tests.support import harness
from tests.support import pg
from tests.support import wire
from tests.support.harness import only, smoke


@contextlib.contextmanager
def pooler(world, **settings):
    """A daemon whose clients share one server connection."""
    settings = {"default_pool_size": 1, "query_wait_timeout": 5, **settings}
    settings = {"pool_mode": "transaction", **settings}
    with harness.daemon(world, settings=settings) as d:
        yield d


def show(conn, name):
    return conn.execute(f"SHOW {name}").fetchone()[0]


def expect(what, got, wanted):
    if got != wanted:
        raise pg.Failure(f"{what} is {got!r}, not {wanted!r}")


def pinned(d):
    """What pins servers, one for each client."""
    with d.connect("pgbouncer") as console:
        return [row[4] for row in console.execute("SHOW PINNED").fetchall()]


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


# ---- SET ----------------------------------------------------------------------------------------


def follow(a, b, name, value, default, change):
    """`change` by A; B sees the default, A its value, on the same server."""
    for statement in [change] if isinstance(change, str) else change:
        a.execute(statement)
    for _ in range(2):
        expect(f"B's {name} after {change}", b.execute("SELECT current_setting(%s, true)", (name,)).fetchone()[0]
               or "", default)
        expect(f"A's {name} after {change}", a.execute("SELECT current_setting(%s, true)", (name,)).fetchone()[0]
               or "", value)


@smoke
def test_what_is_set_follows_the_client(world):
    with pooler(world) as d, d.connect() as a, d.connect() as b:
        # psycopg prepares what it has seen five times: the state must be found in Binds too.
        follow(a, b, "timezone", "Asia/Tokyo", show(b, "timezone"), "SET TIME ZONE 'Asia/Tokyo'")
        follow(a, b, "statement_timeout", "11s", "0", "SET statement_timeout = '11s'")
        follow(a, b, "statement_timeout", "12s", "0", "SELECT set_config('statement_timeout', '12s', false)")
        follow(a, b, "statement_timeout", "12s", "0", "SELECT set_config('statement_timeout', '9s', true)")
        follow(a, b, "statement_timeout", "12s", "0", ("BEGIN", "SET LOCAL statement_timeout = 1000", "COMMIT"))
        follow(a, b, "statement_timeout", "12s", "0", ("BEGIN", "SET statement_timeout = 1000", "ROLLBACK"))
        follow(a, b, "statement_timeout", "13s", "0",
               ("BEGIN", "SET statement_timeout = '13s'", "SAVEPOINT s", "SET statement_timeout = '1s'",
                "ROLLBACK TO s", "COMMIT"))
        follow(a, b, "statement_timeout", "14s", "0",
               "DO $$ BEGIN SET statement_timeout = '14s'; PERFORM set_config('app.x', 'y', false); END $$")
        follow(a, b, "app.x", "y", "", "SELECT 1")
        follow(a, b, "search_path", '"Odd one", public', '"$user", public', 'SET search_path = "Odd one", public')
        follow(a, b, "default_transaction_isolation", "serializable", "read committed",
               "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE")
        a.execute("SET app.tenant = 'Ü''\\'")
        follow(a, b, "app.tenant", "Ü'\\", "", "SELECT 1")
        follow(a, b, "statement_timeout", "0", "0", "RESET statement_timeout")
        with a.transaction():
            pg.expect_error(a, "SELECT 1/0", "22012")
            with contextlib.suppress(psycopg.Error):
                a.execute("SET statement_timeout = 77")
            raise psycopg.Rollback
        follow(a, b, "statement_timeout", "0", "0", "SELECT 1")
        a.execute("SET work_mem = '9MB'")
        a.execute("RESET ALL")
        follow(a, b, "work_mem", show(b, "work_mem"), show(b, "work_mem"), "SELECT 1")


@only(15, 18)
def test_the_role_follows(world):
    with world.cluster.connect() as admin:
        admin.execute("DROP ROLE IF EXISTS session_role")
        admin.execute("CREATE ROLE session_role")
    with pooler(world) as d, d.connect() as a, d.connect() as b:
        a.execute("SET ROLE session_role")
        a.execute("SET work_mem = '5MB'")
        for _ in range(2):
            expect("B is", b.execute("SELECT current_user").fetchone()[0], "postgres")
            expect("A is", a.execute("SELECT current_user").fetchone()[0], "session_role")
        a.execute("RESET ROLE")
        expect("A is", a.execute("SELECT current_user").fetchone()[0], "postgres")
        # As somebody else altogether: the server is A's until it is itself again.
        a.execute("SET SESSION AUTHORIZATION session_role")
        pg.wait_until(lambda: pinned(d) == ["session authorization"], 10, "a pin")
        a.execute("RESET SESSION AUTHORIZATION")
        expect("B is", b.execute("SELECT session_user").fetchone()[0], "postgres")


@only(15, 18)
def test_discard_all_gives_back_what_the_startup_packet_asked_for(world):
    options = "-c statement_timeout=17s"
    for mode in ("transaction", "session"):
        with pooler(world, pool_mode=mode, default_pool_size=2) as d, \
                d.connect(options=options, application_name="me") as a:
            a.execute("SET statement_timeout = 5000")
            a.execute("SET application_name = 'other'")
            a.execute("SET app.x = 'y'")
            a.execute("DISCARD ALL")
            expect("the name that the driver knows", a.info.parameter_status("application_name"), "me")
            expect("the timeout", show(a, "statement_timeout"), "17s")
            expect("the name", show(a, "application_name"), "me")
            expect("app.x", a.execute("SELECT current_setting('app.x', true)").fetchone()[0] or "", "")


@smoke
def test_reset_gives_back_what_the_startup_packet_asked_for(world):
    """As PostgreSQL does it: a direct connection with the same startup packet is asked too."""
    options = "-c statement_timeout=17s -c app.tenant=5 -c DateStyle=German -c search_path=a,b"
    names = ("statement_timeout", "app.tenant", "DateStyle", "search_path", "work_mem", "application_name")
    steps = ("RESET statement_timeout", "SET statement_timeout = 5000", "RESET ALL",
             "SET statement_timeout = 6000; SET app.tenant = 'x'; SET DateStyle = 'SQL'; SET work_mem = '5MB'",
             "RESET statement_timeout; RESET app.tenant", "RESET DateStyle", "SET search_path = c",
             "SET search_path TO DEFAULT", "SET app.tenant = ''", "RESET work_mem",
             "SET statement_timeout = 7000", "SELECT 1/0; RESET ALL", "RESET ALL; SET statement_timeout = 8000",
             "BEGIN; RESET statement_timeout", "ROLLBACK", "BEGIN; RESET ALL", "COMMIT",
             "SET application_name = 'x'", "RESET application_name",
             "DO $$ BEGIN SET statement_timeout = 9000; RESET statement_timeout; END $$",
             "CREATE TEMP TABLE pins (a int); SET statement_timeout = 9000", "RESET ALL")
    for mode in ("transaction", "session"):
        with pooler(world, pool_mode=mode, default_pool_size=2) as d, \
                d.connect(options=options, application_name="me") as a, d.connect() as b, \
                world.cluster.connect(options=options, application_name="me") as direct:
            for step in steps:
                for conn in (a, direct):
                    with contextlib.suppress(psycopg.errors.DivisionByZero):
                        conn.execute(step)
                if "BEGIN" in step and "DO" not in step:
                    continue
                for name in names:
                    # In two transactions, and with another client between them.
                    wanted = show(direct, name)
                    expect(f"{name} after {step} ({mode})", show(a, name), wanted)
                    b.execute("SELECT 1")
                    expect(f"{name} after {step} ({mode})", show(a, name), wanted)
                # At login we know no more than what was asked for.
                told = [c.info.parameter_status("DateStyle").split(",")[0] for c in (a, direct)]
                expect(f"the DateStyle that the driver knows after {step} ({mode})", *told)


# ---- what can't follow ----------------------------------------------------------------------------


KEPT = {
    "advisory locks": ("SELECT pg_advisory_lock(42)", "SELECT pg_advisory_unlock(42)"),
    "temporary tables": ("CREATE TEMP TABLE kept (a int)", "DROP TABLE kept"),
    "cursors WITH HOLD": ("DECLARE held CURSOR WITH HOLD FOR SELECT generate_series(1, 3)", "CLOSE held"),
}


@smoke
def test_state_that_cannot_follow_pins_the_server_while_it_lasts(world):
    with pooler(world) as d, d.connect() as a, d.connect() as b:
        for what, (make, end) in KEPT.items():
            b.execute("SELECT 1")
            a.execute(make)
            backend = a.execute("SELECT pg_backend_pid()").fetchone()
            state = pinned(d)
            if len(state) != 1 or what not in state[0]:
                raise pg.Failure(f"{what}: {state}")
            expect("A's server", a.execute("SELECT pg_backend_pid()").fetchone(), backend)
            a.execute(end)
            expect(f"B's after {end}", b.execute("SELECT pg_backend_pid()").fetchone(), backend)
            expect("pins", pinned(d), [])
            # Gone with its transaction: nothing is kept.
            a.execute("BEGIN")
            a.execute(make)
            a.execute("ROLLBACK" if what != "advisory locks" else "SELECT pg_advisory_unlock_all()")
            a.execute("COMMIT")
            b.execute("SELECT 1")
        a.execute("BEGIN")
        a.execute("CREATE TEMP TABLE t ON COMMIT DROP AS SELECT 1 AS x")
        a.execute("COMMIT")
        b.execute("SELECT 1")
        # With DISCARD ALL, and with the end of its client.
        for make, _ in KEPT.values():
            a.execute(make)
        a.execute("DISCARD ALL")
        backend = b.execute("SELECT pg_backend_pid()").fetchone()
        with d.connect() as c:
            for make, _ in KEPT.values():
                c.execute(make)
            c.execute("SET app.x = 'c'")
        expect("the server", b.execute("SELECT pg_backend_pid()").fetchone(), backend)
        left = b.execute("SELECT (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'),"
                         " (SELECT count(*) FROM pg_cursors WHERE is_holdable), to_regclass('kept'),"
                         " coalesce(current_setting('app.x', true), '')").fetchone()
        expect("what is left", left, (0, 0, None, ""))
        with d.connect() as c:
            c.execute("LOAD 'auto_explain'")
            expect("C's server", c.execute("SELECT pg_backend_pid()").fetchone(), backend)
        if b.execute("SELECT pg_backend_pid()").fetchone() == backend:
            raise pg.Failure("a server with a loaded library went to another client")


@only(15)
def test_state_that_cannot_follow_is_refused_or_ignored_where_that_is_wanted(world):
    databases = {"*": f"host=127.0.0.1 port={world.cluster.port}",
                 "silent": f"dbname=postgres host=127.0.0.1 port={world.cluster.port} session_state=ignore"}
    with pooler(world, session_state="error") as d:
        d.databases = databases
        d.write_ini()
        with d.connect("pgbouncer") as console:
            console.execute("RELOAD")
        with d.connect() as a, d.connect() as b:
            for make, _ in KEPT.values():
                pg.expect_error(a, make, "0A000", hint="")
                pg.expect_error(a, make + "; SELECT 1", "0A000", hint="")
                with contextlib.suppress(psycopg.errors.FeatureNotSupported), a.pipeline():
                    first = a.execute("SELECT 1")
                    a.execute(make)
                    a.execute("SELECT 2")
                expect("the statement before", first.fetchone(), (1,))
                with a.transaction(force_rollback=True):
                    pg.expect_error(a, make, "0A000")
                    pg.expect_error(a, "SELECT 1", "25P02")
                b.execute("SELECT 1")
            follow(a, b, "statement_timeout", "9s", "0", "SET statement_timeout = '9s'")
            with a.transaction():
                a.execute("CREATE TEMP TABLE t ON COMMIT DROP AS SELECT 1 AS x")
                a.execute("SELECT pg_advisory_xact_lock(1)")
        with d.connect("silent") as a, d.connect("silent") as b:
            a.execute("SET statement_timeout = '9s'")
            a.execute("CREATE TEMP TABLE seen (a int)")
            expect("B's timeout", show(b, "statement_timeout"), "9s")
            b.execute("SELECT * FROM seen")


# ---- LISTEN -------------------------------------------------------------------------------------


class Ears:
    """All that a connection hears: while it executes, and by looking at its socket."""

    def __init__(self, conn):
        self.conn = conn
        self.got = []
        conn.add_notify_handler(lambda n: self.got.append((n.channel, n.payload)))

    def heard(self, *wanted):
        pg.wait_until(lambda: self.look() >= len(wanted), 10, lambda: f"{len(wanted)} of {self.got}")
        expect("what was heard", self.got[:len(wanted)], list(wanted))
        del self.got[:len(wanted)]

    def look(self):
        self.conn.pgconn.consume_input()
        while n := self.conn.pgconn.notifies():
            encoding = self.conn.info.encoding
            self.got.append((n.relname.decode(encoding), n.extra.decode(encoding)))
        return len(self.got)

    def nothing_more(self, other):
        """All that was notified before has been delivered, and it was nothing."""
        self.conn.execute("LISTEN fence")
        other.execute("NOTIFY fence")
        self.heard(("fence", ""))
        self.conn.execute("UNLISTEN fence")


def listening(world):
    """Server connections that listen for clients."""
    with world.cluster.connect() as c:
        return c.execute("""SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN "%'
                         OR query LIKE 'UNLISTEN "%'""").fetchone()[0]


@smoke
def test_listen_and_notify(world):
    with pooler(world) as d, d.connect() as a, d.connect() as b, world.cluster.connect() as direct:
        hears, hears_b = Ears(a), Ears(b)
        a.execute("LISTEN news")
        b.execute("NOTIFY news, 'one'")
        a.execute("NOTIFY news, 'own'")
        direct.execute("NOTIFY news, 'direct'")
        direct.execute("NOTIFY other, 'not for us'")
        hears.heard(("news", "one"), ("news", "own"), ("news", "direct"))
        # Folded, quoted, cut at 63 bytes; several at once; prepared.
        long = "n" * 70
        a.execute(f'LISTEN Mixed; LISTEN "Mixed"; LISTEN {long}')
        for channel in ("MIXED", '"Mixed"', long):
            direct.execute(f"NOTIFY {channel}")
        hears.heard(("mixed", ""), ("Mixed", ""), ("n" * 63, ""))
        a.execute('UNLISTEN "Mixed"', prepare=True)
        direct.execute('NOTIFY "Mixed"')
        direct.execute("NOTIFY mixed")
        hears.heard(("mixed", ""))
        hears.nothing_more(direct)
        # Effective with the transaction, undone with it.
        with a.transaction(force_rollback=True):
            a.execute("LISTEN undone")
        with a.transaction():
            a.execute("LISTEN kept")
            with a.transaction(force_rollback=True):
                a.execute("LISTEN undone_too")
            direct.execute("NOTIFY news, 'in between'")
        with a.transaction(force_rollback=True):
            a.execute("UNLISTEN *")
        with a.transaction():
            a.execute("UNLISTEN news")
            a.execute("LISTEN news")
        for channel in ("undone", "undone_too", "kept", "news"):
            direct.execute(f"NOTIFY {channel}, 'x'")
        hears.heard(("news", "in between"), ("kept", "x"), ("news", "x"))
        hears.nothing_more(direct)
        # All told once, in order, whatever else runs.
        b.execute("LISTEN news")
        for i in range(200):
            direct.execute("SELECT pg_notify('news', %s)", (str(i),))
            a.execute("SELECT 1")
        wanted = [("news", str(i)) for i in range(200)]
        hears.heard(*wanted)
        hears_b.heard(*wanted)
        if not 1 <= listening(world) <= 2:
            raise pg.Failure(f"{listening(world)} listeners for two clients")
        a.execute("DISCARD ALL")
        direct.execute("NOTIFY news, 'z'")
        hears_b.heard(("news", "z"))
        hears.nothing_more(direct)
        b.execute("UNLISTEN *")
        pg.wait_until(lambda: listening(world) == 0, 10, "the listener's end")


@only(15)
def test_a_listener_that_is_lost_comes_back_and_its_clients_know(world):
    kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN \"%'"
    with pooler(world, server_login_retry=1) as d, d.connect() as a, world.cluster.connect() as direct:
        hears, notices = Ears(a), []
        a.add_notice_handler(lambda n: notices.append(n.message_primary))
        a.execute("LISTEN news")
        direct.execute(kill)
        pg.wait_until(lambda: a.execute("SELECT 1") and notices, 10, "a notice")
        if "may have been missed" not in notices[0]:
            raise pg.Failure(f"{notices}")
        pg.wait_until(lambda: listening(world) == 1, 10, "another listener")
        direct.execute("NOTIFY news, 'again'")
        hears.heard(("news", "again"))
        with d.connect("pgbouncer") as console:
            console.execute("SET listen_lost_disconnect = 1")
        direct.execute(kill)
        with contextlib.suppress(psycopg.OperationalError):
            pg.wait_until(hears.look, 10, "the end of the connection")
            raise pg.Failure("not told")


@only(15)
def test_a_listener_in_another_encoding(world):
    with pooler(world) as d, d.connect(client_encoding="LATIN1") as a, d.connect() as b, \
            world.cluster.connect() as direct:
        hears, hears_b = Ears(a), Ears(b)
        a.execute('LISTEN "Töpfe"')
        b.execute('LISTEN "Töpfe"')
        direct.execute("SELECT pg_notify('Töpfe', 'für alle')")
        hears.heard(("Töpfe", "für alle"))
        hears_b.heard(("Töpfe", "für alle"))
        expect("listeners", listening(world), 2)


@only(15)
def test_what_waits_behind_a_look_is_not_looked_for_again(world):
    """Messages that follow at once, which must wait until nothing is owed, and touch the session too."""
    with pooler(world) as d:
        for text in ("CREATE TEMP TABLE u AS EXECUTE p", "DEALLOCATE p; CREATE TEMP TABLE u (a int)",
                     "DEALLOCATE ALL; CREATE TEMP TABLE u (a int)", "DISCARD ALL; SELECT 2",
                     "PREPARE q AS SELECT 1; CREATE TEMP TABLE u (a int)"):
            w = wire.Wire(d.port, "postgres")
            w.send(wire.query("PREPARE p AS SELECT 1"), wire.query("CREATE TEMP TABLE t (a int)"),
                   wire.query(text), wire.query("SELECT 3"))
            answers = w.answers(4)
            if not [body for tag, body in answers if tag == "D"][-1].endswith(b"3"):
                raise pg.Failure(f"{text}: {wire.shown(answers)}")
            w.close()


@only(15)
def test_what_stands_before_a_statement_hides_nothing(world):
    with pooler(world) as d, d.connect() as a, d.connect() as b:
        for before, setting, value, prepare in (("\f", "statement_timeout", "7s", False),
                                                (" ;/* */ ;", "lock_timeout", "7s", True),
                                                ("\f;\n", "work_mem", "7MB", True)):
            mine, others = show(a, setting), show(b, setting)
            a.execute(f"{before}SET {setting} = '{value}'", prepare=prepare)
            expect(f"{setting} of another", show(b, setting), others)
            if show(a, setting) == mine:
                raise pg.Failure(f"{setting} did not follow its client")
