"""dvm/sql against real PostgreSQL, without the daemon: see tests/pg/sql/sqlside.py."""

import contextlib
import random
import threading
import time

import psycopg

from tests.pg.sql import sqlside
from tests.support import pg
from tests.support.pg import Failure, expect_error, one, rows

REGIONS = "CREATE TABLE {t} (id serial PRIMARY KEY, region text NOT NULL, amount numeric(10,2) NOT NULL, note text)"


def expect(got, wanted, what):
    if got != wanted:
        raise Failure(f"{what}: {got!r} instead of {wanted!r}")


@contextlib.contextmanager
def database(world):
    """A database whose SQL side belongs to role maint, who is no superuser; yields connect(user)."""
    # These tests refresh by hand: no daemon that an earlier suite left running may do it first.
    for daemon in world.daemons.values():
        daemon.stop()
    world.daemons.clear()
    name = f"sqlside{one_up(world)}"
    with world.cluster.connect() as admin:
        admin.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        admin.execute(f"GRANT CREATE ON DATABASE {name} TO maint")
        admin.execute("GRANT app TO maint")
    opened = []

    def connect(user="app", **options):
        conn = world.cluster.connect(name, user, **options)
        opened.append(conn)
        return conn

    try:
        sqlside.install(connect("maint"), times=2)
        connect("postgres").execute("CREATE SCHEMA app AUTHORIZATION app; GRANT USAGE ON SCHEMA app TO PUBLIC;"
                                    "ALTER ROLE app SET search_path = app")
        yield connect
    finally:
        for conn in opened:
            with contextlib.suppress(Exception):
                conn.close()
        with world.cluster.connect() as admin:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


def one_up(world):
    world.n_databases += 1
    return world.n_databases


def source(conn, table="orders", n=30):
    conn.execute(REGIONS.format(t=f"app.{table}"))
    conn.execute(f"INSERT INTO app.{table} (region, amount) SELECT 'r' || i % 5, i FROM generate_series(1, {n}) AS i")


def make(conn, st="st", table="orders", **options):
    plan = sqlside.sum_by_region(conn, f"app.{st}", f"app.{table}")
    return sqlside.create(conn, f"app.{st}", plan, **options), plan["query"]


def refresh(conn, pgt_id, wanted=None):
    action = one(conn, "SELECT pgtrickle._refresh(%s, 'SCHEDULER')", (pgt_id,))
    if wanted is not None:
        expect(action, wanted, "the action of a refresh")
    return action


def test_stranger_cannot_write_the_catalog(world):
    with database(world) as connect:
        app, stranger, maint = connect(), connect("stranger"), connect("maint")
        source(app)
        pgt_id, _ = make(app)
        for statement in ("UPDATE pgtrickle.pgt_stream_tables SET status = 'ERROR'", "DELETE FROM pgtrickle.pgt_requests",
                          "INSERT INTO pgtrickle._call (op, args, caller) VALUES ('unregister', '{}', 'app')",
                          f"SELECT pgtrickle._do('unregister', '{{\"pgt_id\": {pgt_id}}}')",
                          f"SELECT pgtrickle._do('alter', '{{\"pgt_id\": {pgt_id}, \"status\": \"ERROR\"}}')",
                          f"SELECT pgtrickle._call_unregister({pgt_id})", "SELECT pgtrickle._purge()",
                          "SELECT pgtrickle.drop_stream_table('app.st')", "SELECT pgtrickle.refresh_stream_table('app.st')",
                          "SELECT pgtrickle.alter_stream_table('app.st', tier => 'cold')",
                          f"SELECT * FROM pgtrickle_changes.c_{sqlside.oid(app, 'app.orders')}"):
            expect_error(stranger, statement, "42501")
        expect(one(maint, "SELECT status FROM pgtrickle.pgt_stream_tables"), "ACTIVE", "status after all that")


def test_caller_is_who_calls_under_set_role_and_in_definer_functions(world):
    with database(world) as connect:
        connect("postgres").execute("CREATE FUNCTION app.ask() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS"
                                    " $f$ BEGIN PERFORM pgtrickle.create_stream_table('app.b', 'SELECT 1'); END $f$;"
                                    "ALTER FUNCTION app.ask() OWNER TO app")
        stranger, boss = connect("stranger"), connect("postgres")
        stranger.execute("SELECT app.ask()")
        boss.execute("SET ROLE app")
        boss.execute("SELECT pgtrickle.create_stream_table('app.a', 'SELECT 1')")
        expect(rows(boss, "SELECT DISTINCT caller FROM pgtrickle.pgt_requests"), [("app",)], "callers")


def test_writer_needs_no_right_of_ours(world):
    with database(world) as connect:
        app, writer = connect(), connect("writer")
        source(app)
        pgt_id, query = make(app)
        app.execute("GRANT INSERT, UPDATE, DELETE, SELECT ON app.orders TO writer; GRANT USAGE ON SEQUENCE app.orders_id_seq TO writer")
        writer.execute("INSERT INTO app.orders (region, amount) VALUES ('w', 1); UPDATE app.orders SET region = 'v' WHERE id < 4")
        refresh(connect("maint"), pgt_id, "DIFFERENTIAL")
        pg.assert_equal(app, "app.st", query)


def test_reader_sees_only_its_columns_of_a_buffer(world):
    with database(world) as connect:
        app, postgres = connect(), connect("postgres")
        source(app)
        make(app)
        relid = sqlside.oid(app, "app.orders")
        postgres.execute(f"ALTER TABLE pgtrickle_changes.c_{relid} ADD COLUMN a4 text")
        app.execute(f"SELECT a2, a3 FROM pgtrickle_changes.c_{relid}")
        expect_error(app, f"SELECT a4 FROM pgtrickle_changes.c_{relid}", "42501")
        expect_error(app, f"INSERT INTO pgtrickle_changes.c_{relid} VALUES ('1', 1, 1)", "42501")


def test_revoked_right_stops_the_refresh(world):
    with database(world) as connect:
        app, boss, maint = connect(), connect("postgres"), connect("maint")
        source(app)
        pgt_id, _ = make(app)
        boss.execute("ALTER TABLE app.orders OWNER TO postgres; REVOKE ALL ON app.orders FROM app")
        expect_error(maint, f"SELECT pgtrickle._refresh({pgt_id}, 'SCHEDULER')", "42501", hint="GRANT SELECT")


def test_parameters_are_checked(world):
    create = "SELECT pgtrickle.create_stream_table('app.x', 'SELECT 1', {})"
    with database(world) as connect:
        app = connect()
        source(app)
        make(app)
        for given, state, hint in (
                ("schedule => NULL", "22004", "calculated"), ("schedule => ''", "22023", None), ("schedule => '5 s'", "22023", None),
                ("schedule => '1h30'", "22023", None), ("schedule => '0s'", "22023", "IMMEDIATE"), ("schedule => 'soon'", "22023", None),
                ("schedule => '@sometimes'", "22023", "hourly"), ("refresh_mode => 'LAZY'", "22023", "AUTO"),
                ("diamond_consistency => 'some'", "22023", None), ("diamond_consistency => 'none', diamond_schedule_policy => 'slowest'", "22023", None),
                ("cdc_mode => 'wal'", "0A000", "trigger"), ("cdc_mode => 'x'", "22023", None), ("partition_by => 'a'", "0A000", None),
                ("append_only => true, refresh_mode => 'FULL'", "22023", None), ("append_only => true, schedule => 'immediate'", "22023", None),
                ("max_delta_fraction => 1.5", "22023", None), ("max_differential_joins => -1", "22023", None)):
            expect_error(app, create.format(given), state, hint=hint)
        for name, state in (("app.st", "42P07"), ("app.orders", "42P07"), ("nowhere.x", "3F000"), ("pg_catalog.x", "3F000"),
                            ("", "42602"), ('"open', "42602"), ("x" * 64, "42622")):
            expect_error(app, "SELECT pgtrickle.create_stream_table(%s, 'SELECT 1')", state, params=(name,))
        expect_error(connect("stranger"), "SELECT pgtrickle.create_stream_table('app.x', 'SELECT 1')", "42501", hint="GRANT CREATE ON SCHEMA app")
        expect(one(app, "SELECT count(*) FROM pgtrickle.pgt_requests"), 0, "requests after errors")
        for given, wanted in (("schedule => '5s'", ("5s", "AUTO")), ("schedule => 'Calculated'", (None, "AUTO")), ("schedule => '*/5 * * * *'", ("*/5 * * * *", "AUTO")),
                              ("schedule => '@HOURLY'", ("@hourly", "AUTO")), ("schedule => 'IMMEDIATE', refresh_mode => 'DIFFERENTIAL'", (None, "IMMEDIATE")),
                              ("refresh_mode => 'full'", (None, "FULL"))):
            with app.transaction(force_rollback=True):
                app.execute(create.format(given))
                expect(rows(app, "SELECT args->>'schedule', args->>'refresh_mode' FROM pgtrickle.pgt_requests")[0], wanted, given)
        for text, seconds in (("5s", 5), ("1h30m", 5400), ("2w", 1209600), ("90", 90), ("1m1m", 120), ("", None), ("5", 5), ("5x", None), ("-5s", None)):
            expect(one(app, "SELECT pgtrickle.parse_duration_seconds(%s)", (text,)), seconds, f"seconds of {text!r}")


def test_request_is_announced_and_can_be_altered_and_withdrawn(world):
    with database(world) as connect:
        app, states = connect(), []
        app.add_notice_handler(lambda n: states.append(n.sqlstate))
        app.execute("SET client_min_messages = error")
        app.execute("SELECT pgtrickle.create_stream_table('Mixed', 'SELECT 1', '5s')")
        expect(states, ["PGT00"], "the notice, whatever client_min_messages says")
        app.execute("SELECT pgtrickle.alter_stream_table('app.Mixed', tier => 'COLD', schedule => '1m')")
        expect(rows(app, "SELECT args->>'tier', args->>'schedule', args->>'name', search_path FROM pgtrickle.pgt_requests"),
               [("cold", "1m", "Mixed", "app")], "the request")
        app.execute("SELECT pgtrickle.create_stream_table_if_not_exists('\"Mixed\"', 'SELECT 2')")
        expect_error(app, "SELECT pgtrickle.create_stream_table('Mixed', 'SELECT 1')", "42P07")
        expect_error(connect("stranger"), "SELECT pgtrickle.drop_stream_table('app.Mixed')", "42501")
        expect_error(app, "SELECT pgtrickle.refresh_stream_table('Mixed')", "55000")
        app.execute("SELECT pgtrickle.drop_stream_table('Mixed')")
        expect(one(app, "SELECT count(*) FROM pgtrickle.pgt_requests"), 0, "requests left")


def test_refresh_counts_each_row_once_within_a_transaction(world):
    with database(world) as connect:
        app = connect()
        source(app)
        pgt_id, query = make(app)
        for isolation in ("READ COMMITTED", "REPEATABLE READ"):
            with app.transaction():
                app.execute(f"SET TRANSACTION ISOLATION LEVEL {isolation}")
                for i in range(4):
                    app.execute(f"INSERT INTO app.orders (region, amount) VALUES ('t', {i}), ('r1', 1)")
                    if i == 2:
                        app.execute("SAVEPOINT s; DELETE FROM app.orders WHERE region = 't'")
                        refresh(app, pgt_id, "DIFFERENTIAL")
                        app.execute("ROLLBACK TO s")
                    refresh(app, pgt_id, "DIFFERENTIAL")
                    pg.assert_equal(app, "app.st", query, f"inside, step {i}, {isolation}")
                app.execute("UPDATE app.orders SET amount = amount + 1 WHERE region = 't'")
            refresh(app, pgt_id, "DIFFERENTIAL")
            pg.assert_equal(app, "app.st", query, isolation)
            refresh(app, pgt_id, "NO_DATA")


def test_transaction_that_commits_after_a_refresh_is_not_lost(world):
    with database(world) as connect:
        app, slow, maint = connect(), connect(autocommit=False), connect("maint")
        source(app)
        pgt_id, query = make(app)
        slow.execute("INSERT INTO app.orders (region, amount) VALUES ('slow', 1)")
        for i in range(3):
            app.execute("INSERT INTO app.orders (region, amount) VALUES ('fast', 1)")
            refresh(maint, pgt_id, "DIFFERENTIAL")
            maint.execute("SELECT pgtrickle._purge()")
        slow.commit()
        refresh(maint, pgt_id, "DIFFERENTIAL")
        pg.assert_equal(app, "app.st", query)


def test_truncate_and_chain(world):
    with database(world) as connect:
        app, maint = connect(), connect("maint")
        source(app)
        first, query = make(app)
        # A filter over the first: its plan reads the first one's buffer.
        app.execute("CREATE VIEW app.shape AS SELECT region, total AS amount FROM app.st")
        relid = sqlside.oid(app, "app.st")
        region, total = sqlside.attnums(app, "app.st", ("region", "total"))
        plan = sqlside.sum_by_region(app, "app.orders2", "app.orders")
        text = "SELECT region, count(*) AS n, sum(total) AS total FROM app.st GROUP BY region"
        everything = sqlside.full("app.top", text, "region", ("n", "total"))
        delta = (plan["plan"]["deltas"]["all"].replace("app.orders2", "app.top")
                 .replace(f"c_{sqlside.oid(app, 'app.orders')}", f"c_{relid}")
                 .replace(f"a{plan['sources'][0]['attnums'][0]} AS region", f"a{region} AS region")
                 .replace(f"a{plan['sources'][0]['attnums'][1]})", f"a{total})"))
        top = {"query": text, "create": "CREATE TABLE app.top (region text PRIMARY KEY, n bigint, total numeric)",
               "sources": [{"relid": relid, "attnums": [region, total]}],
               "plan": {"strategy": "algebraic", "time": False, "sources": [{"relid": relid, "bit": 0}],
                        "deltas": {"1": delta, "all": delta}, "full": everything, "fill": everything, "explain": ""}}
        second = sqlside.create(app, "app.top", top)
        expect(one(maint, "SELECT upstream FROM pgtrickle._schedule_state() WHERE pgt_id = %s", (second,)), [first], "upstream")
        for step in range(3):
            with app.transaction():
                app.execute(f"INSERT INTO app.orders (region, amount) VALUES ('c{step}', 1), ('r1', 5)")
                for _ in range(2):
                    app.execute("DELETE FROM app.orders WHERE id IN (SELECT id FROM app.orders ORDER BY id LIMIT 2)")
                    refresh(app, first, "DIFFERENTIAL")
                    refresh(app, second, "DIFFERENTIAL")
                    pg.assert_equal(app, "app.st", query, "first of the chain")
                    pg.assert_equal(app, "app.top", text, "second of the chain")
            expect(one(maint, "SELECT pgtrickle._has_changes(%s)", (second,)), False, "changes left")
        app.execute("TRUNCATE app.orders; INSERT INTO app.orders (region, amount) VALUES ('new', 1)")
        refresh(maint, first, "FULL")
        refresh(maint, second, "DIFFERENTIAL")
        pg.assert_equal(app, "app.top", text, "after TRUNCATE")
        expect_error(app, "SELECT pgtrickle.drop_stream_table('st')", "2BP01", hint="CASCADE")
        app.execute("DROP VIEW app.shape")
        app.execute("CALL pgtrickle._ddl('{\"op\": \"drop\", \"names\": [{\"schema\": \"app\", \"name\": \"st\"}], \"cascade\": true}')")
        expect(one(maint, "SELECT count(*) FROM pgtrickle.pgt_stream_tables"), 0, "stream tables left")
        expect(rows(app, "SELECT relname FROM pg_class WHERE relnamespace = 'pgtrickle_changes'::regnamespace"), [], "buffers left")
        expect(rows(app, "SELECT tgname FROM pg_trigger WHERE tgname LIKE 'pgtrickle%'"), [], "triggers left")


def test_purge_keeps_what_a_reader_needs(world):
    with database(world) as connect:
        app, maint, other = connect(), connect("maint"), connect()
        source(app)
        first, query = make(app)
        second, _ = make(app, "st2")
        buffer = f"SELECT count(*) FROM pgtrickle_changes.c_{sqlside.oid(app, 'app.orders')}"
        app.execute("INSERT INTO app.orders (region, amount) VALUES ('a', 1)")
        refresh(maint, first, "DIFFERENTIAL")
        maint.execute("SELECT pgtrickle._purge()")
        expect(one(maint, buffer), 1, "rows that the second has not read")
        refresh(maint, second, "DIFFERENTIAL")
        maint.execute("SELECT pgtrickle._purge()")
        expect(one(maint, buffer), 0, "rows that all have read")
        # A third is being made: what comes after its snapshot must stay though it is in no committed catalog.
        with other.transaction():
            third = sqlside.create(other, "app.st3", sqlside.sum_by_region(other, "app.st3", "app.orders"))
            app.execute("INSERT INTO app.orders (region, amount) VALUES ('b', 1)")
            refresh(maint, first, "DIFFERENTIAL")
            refresh(maint, second, "DIFFERENTIAL")
            maint.execute("SELECT pgtrickle._purge()")
        refresh(maint, third, "DIFFERENTIAL")
        pg.assert_equal(app, "app.st3", query, "made while others refreshed")
        # Dropped behind our back.
        app.execute("DROP TABLE app.st2")
        maint.execute("SELECT pgtrickle._purge()")
        expect(one(maint, "SELECT count(*) FROM pgtrickle.pgt_stream_tables"), 2, "stream tables left")
        app.execute("DROP TABLE app.orders")
        maint.execute("SELECT pgtrickle._purge()")
        expect(one(maint, "SELECT count(*) FROM pgtrickle.pgt_captures"), 0, "captures left")
        expect(one(maint, "SELECT bool_and(source_missing) FROM pgtrickle._schedule_state()"), True, "source_missing")


def test_suspended_reader_gives_up_a_buffer_that_outgrows_the_source(world):
    with database(world) as connect:
        app, maint = connect(), connect("maint")
        source(app)
        pgt_id, query = make(app)
        app.execute("SELECT pgtrickle.alter_stream_table('st', status => 'SUSPENDED')")
        app.execute("ALTER TABLE app.orders ADD COLUMN filler text")
        relid = sqlside.oid(app, "app.orders")
        for _ in range(8):
            app.execute("INSERT INTO app.orders (region, amount) SELECT 'x', 1 FROM generate_series(1, 50000)")
        app.execute("DELETE FROM app.orders WHERE region = 'x'")
        app.execute("VACUUM app.orders")
        if one(maint, "SELECT pg_relation_size(%s)", (f"pgtrickle_changes.c_{relid}",)) <= 16777216:
            raise Failure("the buffer is too small for this test")
        maint.execute("SELECT pgtrickle._purge()")
        expect(one(maint, f"SELECT count(*) FROM pgtrickle_changes.c_{relid}"), 0, "buffer rows")
        app.execute("SELECT pgtrickle.resume_stream_table('st')")
        refresh(maint, pgt_id, "REINITIALIZE")
        pg.assert_equal(app, "app.st", query)


def test_altered_source_fails_the_refresh_and_no_writer(world):
    with database(world) as connect:
        app, maint = connect(), connect("maint")
        source(app)
        pgt_id, query = make(app)
        app.execute("ALTER TABLE app.orders DROP COLUMN note; ALTER TABLE app.orders ADD COLUMN later int")
        app.execute("INSERT INTO app.orders (region, amount, later) VALUES ('a', 1, 2)")
        refresh(maint, pgt_id, "DIFFERENTIAL")
        pg.assert_equal(app, "app.st", query, "after columns of no interest changed")
        app.execute("ALTER TABLE app.orders RENAME COLUMN amount TO price")
        for statement in ("INSERT INTO app.orders (region, price) VALUES ('b', 1)", "UPDATE app.orders SET price = 2", "DELETE FROM app.orders WHERE id = 1"):
            app.execute(statement)
        expect_error(maint, f"SELECT pgtrickle._refresh({pgt_id}, 'SCHEDULER')", "55000", message="orders", hint="repair_stream_table")
        expect(one(app, "SELECT alert FROM pgtrickle.check_cdc_health()"), "source_altered", "alert")
        app.execute("ALTER TABLE app.orders RENAME COLUMN price TO amount")
        refresh(maint, pgt_id, "FULL")
        pg.assert_equal(app, "app.st", query, "after it was put back")
        app.execute("INSERT INTO app.orders (region, amount) VALUES ('c', 1)")
        refresh(maint, pgt_id, "DIFFERENTIAL")
        pg.assert_equal(app, "app.st", query)


def test_second_reader_widens_the_buffer(world):
    with database(world) as connect:
        app, maint = connect(), connect("maint")
        source(app)
        first, query = make(app)
        plan = sqlside.sum_by_region(app, "app.wide", "app.orders")
        plan["sources"][0]["attnums"] = [1, 2, 3, 4]
        app.execute("INSERT INTO app.orders (region, amount, note) VALUES ('before', 1, 'n')")
        second = sqlside.create(app, "app.wide", plan)
        app.execute("INSERT INTO app.orders (region, amount, note) VALUES ('after', 1, 'n')")
        for pgt_id, st in ((first, "app.st"), (second, "app.wide")):
            refresh(maint, pgt_id, "DIFFERENTIAL")
            pg.assert_equal(app, st, query)
        relid = sqlside.oid(app, "app.orders")
        expect(rows(app, f"SELECT a1 IS NULL, a2, a4 FROM pgtrickle_changes.c_{relid} ORDER BY __pgt_seq"),
               [(True, "before", None), (False, "after", "n")], "the buffer")
        app.execute("SELECT pgtrickle.drop_stream_table('wide')")
        app.execute("INSERT INTO app.orders (region, amount) VALUES ('more', 1)")
        refresh(maint, first, "DIFFERENTIAL")
        pg.assert_equal(app, "app.st", query)


def test_names_that_need_quotes_and_hold_anything(world):
    with database(world) as connect:
        app, maint = connect(), connect("maint")
        app.execute('CREATE TABLE app.odd (id int PRIMARY KEY, region text NOT NULL, amount numeric NOT NULL, "w" int, "$capture$; x\'y" text, "Select" text COLLATE "C")')
        plan = sqlside.sum_by_region(app, "app.st", "app.odd")
        plan["sources"][0]["attnums"] = [1, 2, 3, 4, 5, 6]
        pgt_id = sqlside.create(app, "app.st", plan)
        app.execute("INSERT INTO app.odd VALUES (1, 'a', 1, 1, 'x', 'y'), (2, 'b', 2, 2, NULL, NULL)")
        app.execute("UPDATE app.odd SET w = 5, region = 'b' WHERE id = 1")
        expect(rows(app, f"SELECT __pgt_w, a1, a2, a4, a5, a6 FROM pgtrickle_changes.c_{sqlside.oid(app, 'app.odd')} ORDER BY __pgt_seq, __pgt_w, a1"),
               [(1, 1, "a", 1, "x", "y"), (1, 2, "b", 2, None, None), (-1, 1, "a", 1, "x", "y"), (1, 1, "b", 5, "x", "y")], "the buffer")
        refresh(maint, pgt_id, "DIFFERENTIAL")
        pg.assert_equal(app, "app.st", plan["query"])


def test_nothing_of_a_users_runs_as_the_maintenance_role(world):
    with database(world) as connect:
        app, maint, boss = connect(), connect("maint"), connect("postgres")
        app.execute("CREATE TABLE app.seen (who name);"
                    "CREATE FUNCTION app.spy(t text) RETURNS boolean LANGUAGE plpgsql AS $f$ BEGIN INSERT INTO app.seen VALUES (current_user); RETURN true; END $f$;"
                    "GRANT INSERT ON app.seen TO PUBLIC;"
                    "CREATE DOMAIN app.strict AS varchar(20) NOT NULL CHECK (app.spy(VALUE));"
                    "CREATE TABLE app.odd (id int PRIMARY KEY, region app.strict, amount numeric NOT NULL)")
        relid = sqlside.oid(app, "app.odd")
        boss.execute("GRANT CREATE ON SCHEMA pgtrickle_changes TO stranger")
        stranger = connect("stranger")
        stranger.execute(f"CREATE TABLE pgtrickle_changes.c_{relid} (a int);"
                         f"CREATE FUNCTION pgtrickle_changes.c_{relid}_ins() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN RETURN NULL; END $f$")
        plan = sqlside.sum_by_region(app, "app.st", "app.odd")
        plan["sources"][0]["attnums"] = [1, 2, 3]
        pgt_id = sqlside.create(app, "app.st", plan)
        expect(rows(app, "SELECT DISTINCT pg_get_userbyid(proowner) FROM pg_proc WHERE pronamespace = 'pgtrickle_changes'::regnamespace UNION"
                         " SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relnamespace = 'pgtrickle_changes'::regnamespace"), [("maint",)], "owners")
        app.execute("INSERT INTO app.odd VALUES (1, 'a', 1), (2, 'b', 1); UPDATE app.odd SET region = 'b' WHERE id = 1")
        refresh(maint, pgt_id, "DIFFERENTIAL")
        app.execute("TRUNCATE app.odd")
        refresh(maint, pgt_id, "FULL")
        expect(rows(app, "SELECT DISTINCT who FROM app.seen"), [("app",)], "roles that the domain's check ran as")
        expect_error(stranger, "CREATE VIEW pgtrickle_changes.v AS SELECT * FROM pgtrickle._call; INSERT INTO pgtrickle_changes.v (op, args, caller)"
                               " VALUES ('unregister', '{\"pgt_id\": 1}', 'app')", "42501")
        stranger.execute("CREATE TABLE pgtrickle_changes.fake (op text, args jsonb, caller name, result jsonb)")
        stranger.execute("CREATE TRIGGER t BEFORE INSERT ON pgtrickle_changes.fake FOR EACH ROW EXECUTE FUNCTION pgtrickle._call_insert()")
        expect_error(stranger, "INSERT INTO pgtrickle_changes.fake (op, args, caller) VALUES ('unregister', '{\"pgt_id\": 1}', 'app')", "42501")


def test_failures_are_classed_by_sqlstate(world):
    with database(world) as connect:
        app, maint = connect(), connect("maint")
        source(app)
        pgt_id, _ = make(app)
        failed = "SELECT pgtrickle._refresh_failed(%s, %s, 'went wrong', now())"
        for status in ("ACTIVE", "ACTIVE", "SUSPENDED"):
            expect(one(maint, failed, (pgt_id, "40P01")), status, "status after a deadlock")
        expect(one(maint, "SELECT next_attempt_at > now() FROM pgtrickle.pgt_stream_tables"), True, "backed off")
        expect_error(app, "SELECT pgtrickle.refresh_stream_table('st')", "55000", hint="resume_stream_table")
        app.execute("SELECT pgtrickle.resume_stream_table('st')")
        expect(rows(app, "SELECT status, consecutive_errors, last_error_message FROM pgtrickle.pgt_stream_tables"), [("ACTIVE", 0, None)], "resumed")
        expect_error(app, "SELECT pgtrickle.resume_stream_table('st')", "55000")
        expect(one(maint, failed, (pgt_id, "22012")), "ERROR", "status after a division by zero")
        expect(rows(app, "SELECT pgt_name, status, last_error_message FROM pgtrickle.stream_tables_info WHERE status IN ('ERROR', 'SUSPENDED')"),
               [("st", "ERROR", "went wrong")], "what the seed asks")
        expect(one(app, "SELECT count(*) FROM pgtrickle.diagnose_errors('st')"), 4, "diagnoses")


def test_auto_takes_full_for_what_was_measured(world):
    with database(world) as connect:
        app, maint = connect(), connect("maint")
        source(app, n=2000)
        plan = sqlside.sum_by_region(app, "app.st", "app.orders")
        pgt_id = sqlside.create(app, "app.st", plan, mode="DIFFERENTIAL")
        maint.execute("UPDATE pgtrickle.pgt_stream_tables SET requested_mode = 'AUTO'")
        app.execute("ANALYZE app.orders")
        app.execute("UPDATE app.orders SET amount = amount + 1 WHERE id <= 100")
        refresh(maint, pgt_id, "DIFFERENTIAL")
        app.execute("UPDATE app.orders SET amount = amount + 1")
        refresh(maint, pgt_id, "FULL")
        reason = one(app, "SELECT reason FROM pgtrickle.get_refresh_history('st', 1) JOIN pgtrickle.pgt_refresh_history USING (refresh_id)")
        if "4000 changes" not in reason:
            raise Failure(f"the reason is {reason!r}")
        pg.assert_equal(app, "app.st", plan["query"])
        app.execute("SELECT pgtrickle.alter_stream_table('st', max_delta_fraction => 0.5)")
        app.execute("ANALYZE app.st; UPDATE app.orders SET amount = amount + 1 WHERE id <= 50")
        refresh(maint, pgt_id, "FULL")


def test_session_is_as_it_was_after_a_refresh(world):
    with database(world) as connect:
        app = connect()
        source(app)
        app.execute("SET TimeZone = 'Asia/Tokyo'")
        pgt_id, _ = make(app)
        boss = connect("postgres")
        boss.execute("SET TimeZone = 'America/Lima'")
        with boss.transaction():
            boss.execute("INSERT INTO app.orders (region, amount) VALUES ('a', 1)")
            refresh(boss, pgt_id, "DIFFERENTIAL")
            expect(rows(boss, "SELECT current_user, current_setting('TimeZone'), current_setting('role')"), [("postgres", "America/Lima", "none")], "the session")
        with app.transaction():
            app.execute("SET LOCAL ROLE app; INSERT INTO app.orders (region, amount) VALUES ('a', 1)")
            refresh(app, pgt_id, "DIFFERENTIAL")
            expect(rows(app, "SELECT current_user, current_setting('role')"), [("app", "app")], "the role")


def test_monitoring_is_true(world):
    with database(world) as connect:
        app, maint = connect(), connect("maint")
        source(app)
        pgt_id, _ = make(app, schedule="1m")
        for i in range(3):
            app.execute(f"INSERT INTO app.orders (region, amount) VALUES ('m{i}', 1), ('r1', 2)")
            refresh(maint, pgt_id)
        app.execute("INSERT INTO app.orders (region, amount) VALUES ('r1', 2), ('r2', 2)")
        expect(rows(app, "SELECT total_refreshes, diff_count, full_count, diff_speedup ~ '^[0-9.]+x$' FROM pgtrickle.refresh_efficiency()"), [(4, 3, 1, True)], "efficiency")
        expect(rows(app, "SELECT pending_rows FROM pgtrickle.change_buffer_sizes()"), [(2,)], "pending")
        expect(rows(app, "SELECT consumer_count, consumers, columns_tracked, buffer_rows FROM pgtrickle.shared_buffer_stats()"), [(1, "app.st", 2, 8)], "shared buffer")
        expect(rows(app, "SELECT recommended_mode, reason IS NOT NULL, confidence IN ('high', 'medium', 'low') FROM pgtrickle.recommend_refresh_mode('st')"),
               [("KEEP", True, True)], "recommendation")
        expect(rows(app, "SELECT status, scheduler_running FROM pgtrickle.quick_health"), [("WARNING", False)], "health without a scheduler")
        maint.execute("SELECT pg_advisory_lock(1885828203, 2)")
        expect(rows(app, "SELECT status, scheduler_running FROM pgtrickle.quick_health"), [("OK", True)], "health with a scheduler")
        expect([r[0] for r in rows(app, "SELECT tree_line FROM pgtrickle.dependency_tree()")], ["app.st", "└── app.orders [src]"], "tree")
        expect(rows(app, "SELECT total_refreshes, successful_refreshes, total_rows_inserted, last_action, cdc_modes FROM pgtrickle.pg_stat_stream_tables"),
               [(4, 4, 8, "DIFFERENTIAL", ["trigger"])], "statistics")
        for call in ("pgt_status()", "st_refresh_stats()", "get_refresh_history('st')", "refresh_timeline()", "explain_st('st')", "explain_refresh_mode('app.st')",
                     "list_sources('st')", "trigger_inventory()", "health_check()", "_explain(NULL, 'st')", "pgt_cdc_status"):
            if not rows(connect("stranger"), f"SELECT * FROM pgtrickle.{call}".replace("'st'", "'app.st'").replace("NULL, 'app.st'", "'app', 'st'")):
                raise Failure(f"{call} is empty")
        for call in ("list_auxiliary_columns('st')", "diagnose_errors('st')", "diamond_groups()", "check_cdc_health()", "slot_health()"):
            rows(app, f"SELECT * FROM pgtrickle.{call}")


def test_export_makes_the_same_request_again(world):
    with database(world) as connect:
        app, other = connect(), connect("postgres")
        source(app)
        plan = sqlside.sum_by_region(app, "app.st", "app.orders")
        plan["query"] = plan["query"].replace("app.orders", "orders") + " -- $pgt$ it's"
        sqlside.create(app, "app.st", plan, schedule="1h30m", append_only=True, diamond_consistency="none")
        app.execute("SELECT pgtrickle.alter_stream_table('st', tier => 'warm')")
        text = one(app, "SELECT pgtrickle.export_definition('st')")
        app.execute("SELECT pgtrickle.drop_stream_table('st')")
        other.execute(text)
        expect(rows(other, "SELECT args->>'query', args->>'schedule', args->>'tier', args->>'append_only', args->>'diamond_consistency', search_path"
                           " FROM pgtrickle.pgt_requests"), [(plan["query"], "1h30m", "warm", "true", "none", "app")], "the request")


def test_statement_grammar_in_sql(world):
    with database(world) as connect:
        app = connect()
        source(app)
        pgt_id, _ = make(app)
        def ddl(text, conn=app):
            conn.execute("CALL pgtrickle._ddl(%s::jsonb)", (text,))
        ddl('{"op": "alter", "schema": null, "name": "st", "action": "set", "options": {"schedule": "5m", "tier": "warm"}}')
        expect(rows(app, "SELECT schedule, refresh_tier FROM pgtrickle.pgt_stream_tables"), [("5m", "warm")], "SET")
        ddl('{"op": "alter", "schema": null, "name": "st", "action": "reset", "options": {"schedule": null, "tier": null}}')
        expect(rows(app, "SELECT schedule, refresh_tier FROM pgtrickle.pgt_stream_tables"), [(None, "hot")], "RESET")
        ddl('{"op": "alter", "schema": "app", "name": "st", "action": "suspend"}')
        ddl('{"op": "alter", "schema": "app", "name": "st", "action": "resume"}')
        app.execute("INSERT INTO app.orders (region, amount) VALUES ('a', 1)")
        ddl('{"op": "refresh", "schema": null, "name": "st"}')
        ddl('{"op": "alter", "schema": "app", "name": "st", "action": "rename", "value": "renamed"}')
        expect(rows(app, "SELECT pgt_name FROM pgtrickle.pgt_stream_tables"), [("renamed",)], "RENAME")
        expect(rows(app, "SELECT op, args->>'name' FROM pgtrickle.pgt_requests"), [("rebuild", "renamed")], "its plan is to be made anew")
        ddl('{"op": "alter", "schema": "app", "name": "absent", "if_exists": true, "action": "suspend"}')
        ddl('{"op": "drop", "names": [{"schema": null, "name": "absent"}], "if_exists": true}')
        expect_error(app, "CALL pgtrickle._ddl('{\"op\": \"drop\", \"names\": [{\"schema\": null, \"name\": \"absent\"}]}')", "42P01")
        expect_error(app, "CALL pgtrickle._ddl('{\"op\": \"alter\", \"name\": \"renamed\", \"action\": \"set\", \"options\": {\"colour\": \"red\"}}')", "22023", "colour")
        with app.transaction(force_rollback=True):
            ddl('{"op": "create", "schema": null, "name": "new", "columns": ["a"], "query": "SELECT 1", "options": {"schedule": "5s", "append_only": "on"}, "with_data": false}')
            expect(rows(app, "SELECT args->>'initialize', args->>'append_only', args->'columns' FROM pgtrickle.pgt_requests WHERE op = 'create'"),
                   [("false", "true", ["a"])], "CREATE")


def test_replace_changes_only_what_differs(world):
    with database(world) as connect:
        app = connect()
        source(app)
        _, query = make(app)
        replace = "SELECT pgtrickle.create_or_replace_stream_table('st', %s, {})"
        app.execute(replace.format("refresh_mode => 'DIFFERENTIAL', schedule => '7s'"), (query,))
        expect(one(app, "SELECT schedule FROM pgtrickle.pgt_stream_tables"), "7s", "schedule")
        expect(one(app, "SELECT count(*) FROM pgtrickle.pgt_requests"), 0, "requests for a schedule")
        app.execute(replace.format("refresh_mode => 'DIFFERENTIAL'"), (query + " HAVING true",))
        expect(rows(app, "SELECT op, args->>'query', args->>'refresh_mode' FROM pgtrickle.pgt_requests"), [("alter_query", query + " HAVING true", "DIFFERENTIAL")], "request")


def test_immediate_functions_and_tables_go_with_the_stream_table(world):
    with database(world) as connect:
        app = connect()
        source(app)
        plan = sqlside.sum_by_region(app, "app.st", "app.orders")
        with app.transaction():
            app.execute("SELECT pgtrickle.create_stream_table('st', %s, 'IMMEDIATE')", (plan["query"],))
            pgt_id = sqlside.complete(app, "app.st", plan, "IMMEDIATE", fill=False)
            relid = sqlside.oid(app, "app.orders")
            app.execute(f"CREATE FUNCTION pgtrickle_changes.i_{pgt_id}_{relid}_ins() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN RETURN NULL; END $f$;"
                        f"CREATE TRIGGER x AFTER INSERT ON app.orders EXECUTE FUNCTION pgtrickle_changes.i_{pgt_id}_{relid}_ins();"
                        f"CREATE TABLE pgtrickle_changes.p_{pgt_id}_{relid} (a int)")
        refresh(app, pgt_id, "FULL")
        pg.assert_equal(app, "app.st", plan["query"])
        expect(one(app, "SELECT count(*) FROM pgtrickle.pgt_captures"), 0, "deferred captures of an IMMEDIATE one")
        app.execute("SELECT pgtrickle.drop_stream_table('st')")
        expect(rows(app, "SELECT proname FROM pg_proc WHERE pronamespace = 'pgtrickle_changes'::regnamespace UNION ALL"
                         " SELECT relname FROM pg_class WHERE relnamespace = 'pgtrickle_changes'::regnamespace UNION ALL"
                         " SELECT tgname FROM pg_trigger WHERE tgrelid = 'app.orders'::regclass"), [], "objects left")


def test_calculated_full_one_is_due_after_writes(world):
    with database(world) as connect:
        app, maint = connect(), connect("maint")
        source(app)
        plan = sqlside.sum_by_region(app, "app.st", "app.orders")
        plan["sources"][0]["attnums"] = []
        pgt_id = sqlside.create(app, "app.st", plan, mode="FULL")

        def due():
            return one(maint, "SELECT has_changes FROM pgtrickle._schedule_state()")

        expect(due(), False, "due when nothing happened")
        for statement in ("INSERT INTO app.orders (region, amount) SELECT 'late', 1 FROM generate_series(1, 9)", "UPDATE app.orders SET amount = amount + 1",
                          "DELETE FROM app.orders WHERE region = 'late'", "TRUNCATE app.orders"):
            app.execute(statement)
            expect(due(), True, f"due after {statement}")
            refresh(maint, pgt_id, "FULL")
            pg.assert_equal(app, "app.st", plan["query"], statement)
            expect(due(), False, "due after the refresh")
        expect(one(maint, f"SELECT count(*) FROM pgtrickle_changes.c_{sqlside.oid(app, 'app.orders')}"), 4, "buffer rows: one a statement")


def test_calculated_full_one_over_partitions_goes_by_statistics(world):
    with database(world) as connect:
        app, maint = connect(), connect("maint")
        app.execute("CREATE TABLE app.orders (id int, region text NOT NULL, amount numeric NOT NULL) PARTITION BY RANGE (id);"
                    "CREATE TABLE app.p1 PARTITION OF app.orders FOR VALUES FROM (0) TO (100)")
        plan = sqlside.sum_by_region(app, "app.st", "app.orders")
        plan["sources"][0]["attnums"] = []
        pgt_id = sqlside.create(app, "app.st", plan, mode="FULL")
        expect(one(maint, "SELECT count(*) FROM pgtrickle.pgt_captures"), 0, "captures")
        app.execute("INSERT INTO app.p1 VALUES (1, 'late', 1)")
        app.execute("SELECT pg_stat_force_next_flush()")
        pg.wait_until(lambda: one(maint, "SELECT has_changes FROM pgtrickle._schedule_state()"), 20, "the write is noticed")
        refresh(maint, pgt_id, "FULL")
        pg.assert_equal(app, "app.st", plan["query"])
        expect(one(maint, "SELECT has_changes FROM pgtrickle._schedule_state()"), False, "due after the refresh")


def test_truncate_beneath_an_old_snapshot_is_a_conflict(world):
    with database(world) as connect:
        app, maint = connect(), connect("maint")
        source(app)
        pgt_id, query = make(app)
        app.execute("INSERT INTO app.orders (region, amount) VALUES ('a', 1)")
        with maint.transaction(force_rollback=True):
            maint.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            maint.execute("SELECT 1 FROM pgtrickle.pgt_stream_tables")
            app.execute("TRUNCATE app.orders")
            expect_error(maint, f"SELECT pgtrickle._refresh({pgt_id}, 'SCHEDULER')", "40001")
        refresh(maint, pgt_id, "FULL")
        pg.assert_equal(app, "app.st", query)


def test_fuse_blows_and_is_reset(world):
    with database(world) as connect:
        app, maint = connect(), connect("maint")
        source(app)
        pgt_id, query = make(app)
        app.execute("SELECT pgtrickle.alter_stream_table('st', fuse => 'on', fuse_ceiling => 10)")
        app.execute("INSERT INTO app.orders (region, amount) SELECT 'a', 1 FROM generate_series(1, 10)")
        refresh(maint, pgt_id, "DIFFERENTIAL")
        app.execute("INSERT INTO app.orders (region, amount) SELECT 'b', 1 FROM generate_series(1, 11)")
        refresh(maint, pgt_id, "SKIP")
        expect(rows(app, "SELECT fuse_state, blow_reason FROM pgtrickle.fuse_status()"), [("blown", "change buffer count (11) exceeded ceiling (10)")], "fuse")
        expect(one(maint, "SELECT tier FROM pgtrickle._schedule_state()"), "frozen", "what the scheduler sees")
        expect_error(app, "SELECT pgtrickle.reset_fuse('st', 'skip_changes')", "0A000")
        app.execute("SELECT pgtrickle.reset_fuse('st')")
        pg.assert_equal(app, "app.st", query)
        expect(one(app, "SELECT fuse_state FROM pgtrickle.fuse_status()"), "armed", "fuse")
        expect_error(app, "SELECT pgtrickle.reset_fuse('st')", "55000")


def test_concurrent_writers_are_counted_exactly_once(world):
    seconds = min(8.0, world.seconds)
    with database(world) as connect:
        app, maint, rival = connect(), connect("maint"), connect("maint")
        source(app, n=200)
        pgt_id, query = make(app)
        stop = threading.Event()
        trouble = []

        def write(conn, seed):
            r = random.Random(seed)
            while not stop.is_set():
                try:
                    with conn.transaction(force_rollback=r.random() < 0.2):
                        for _ in range(r.randint(1, 4)):
                            with conn.transaction(force_rollback=r.random() < 0.2):
                                kind = r.random()
                                key = r.randint(1, 400)
                                if kind < 0.5:
                                    conn.execute("INSERT INTO app.orders (region, amount) SELECT 'r' || %s, 1 FROM generate_series(1, %s)", (r.randint(0, 20), r.randint(0, 5)))
                                elif kind < 0.8:
                                    conn.execute("UPDATE app.orders SET amount = amount + 1, region = 'r' || %s WHERE id = %s", (r.randint(0, 20), key))
                                else:
                                    conn.execute("DELETE FROM app.orders WHERE id = %s", (key,))
                except psycopg.errors.DeadlockDetected:
                    pass
                except Exception as e:  # noqa: BLE001
                    trouble.append(e)
                    return

        def refresh_too():
            while not stop.is_set():
                try:
                    rival.execute("SELECT pgtrickle._refresh(%s, 'SCHEDULER')", (pgt_id,))
                    rival.execute("SELECT pgtrickle._purge()")
                except (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected):
                    pass
                except Exception as e:  # noqa: BLE001
                    trouble.append(e)
                    return

        threads = [threading.Thread(target=write, args=(connect(), f"{world.seed} {i}")) for i in range(8)]
        threads.append(threading.Thread(target=refresh_too))
        for t in threads:
            t.start()
        done = conflicts = 0
        until = time.monotonic() + seconds
        try:
            while time.monotonic() < until and not trouble:
                try:
                    with maint.transaction():
                        maint.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                        maint.execute("SET LOCAL ROLE app")
                        maint.execute("LOCK TABLE app.st IN SHARE UPDATE EXCLUSIVE MODE")
                        refresh(maint, pgt_id)
                        pg.assert_equal(maint, "app.st", query, f"after {done} refreshes")
                        done += 1
                except psycopg.errors.SerializationFailure:
                    conflicts += 1
        finally:
            stop.set()
            for t in threads:
                t.join()
        if trouble:
            raise trouble[0]
        refresh(maint, pgt_id)
        pg.assert_equal(app, "app.st", query, "in the end")
        by = dict(rows(app, "SELECT action, count(*) FROM pgtrickle.pgt_refresh_history GROUP BY 1"))
        if done < 10 or by.get("DIFFERENTIAL", 0) < 20 or by.get("FULL", 0) != 1:
            raise Failure(f"{done} compared, {conflicts} conflicts, history {by}: too few or of another kind")
