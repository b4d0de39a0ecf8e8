"""What the daemon does by itself: schedules, order, errors, alterations, upgrades, several daemons."""

from tests.support import pg

BASE = """
CREATE TABLE orders (id serial PRIMARY KEY, region text, amount numeric(10,2));
INSERT INTO orders (region, amount) SELECT 'r' || i % 3, i FROM generate_series(1, 30) i;
"""
BY_REGION = "SELECT region, count(*) AS n, sum(amount) AS total FROM orders GROUP BY region"
GRAND = "SELECT sum(total) AS total, count(*) AS n FROM by_region"


def create(conn, name, query, **options):
    with_ = ", ".join(f"{k} = '{v}'" for k, v in options.items())
    conn.execute(f"CREATE STREAM TABLE {name} WITH ({with_}) AS {query}")


def field(conn, name, column):
    return pg.one(conn, f"SELECT {column} FROM pgtrickle.pgt_stream_tables WHERE pgt_name = %s", (name,))


def refreshes(conn, name, condition="true"):
    return pg.one(conn, "SELECT count(*) FROM pgtrickle.pgt_refresh_history JOIN pgtrickle.pgt_stream_tables t "
                        f"USING (pgt_id) WHERE pgt_name = %s AND {condition}", (name,))


def expect(found, expected, what):
    if found != expected:
        raise pg.Failure(f"{what}: {found!r} instead of {expected!r}")


def test_shortest_schedule_is_kept(world):
    """With 1 s and a look every second, a stream table must not come only every other second."""
    with world.database() as connect:
        conn = connect()
        conn.execute(BASE)
        create(conn, "copy", "SELECT region, amount FROM orders", schedule="1s", refresh_mode="FULL")
        pg.wait_until(lambda: refreshes(conn, "copy") >= 6, 20, "six refreshes")
        longest = pg.one(conn, """
            SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM gap)) FROM (
                SELECT start_time - lag(start_time) OVER (ORDER BY refresh_id) AS gap FROM pgtrickle.pgt_refresh_history) AS g""")
        if longest > 1.6:
            raise pg.Failure(f"every {longest} s instead of every second")


def test_cron_with_seconds(world):
    with world.database() as connect:
        conn = connect()
        conn.execute(BASE)
        create(conn, "by_region", BY_REGION, schedule="*/2 * * * * *", refresh_mode="DIFFERENTIAL")
        conn.execute("INSERT INTO orders (region, amount) VALUES ('new', 1)")
        pg.wait_equal(conn, "by_region", BY_REGION)
        # NO_DATA moves last_refresh_at; it follows the even seconds.
        before = field(conn, "by_region", "last_refresh_at")
        pg.wait_until(lambda: field(conn, "by_region", "last_refresh_at") > before, 10, "the next firing")
        phase = pg.one(conn, "SELECT extract(epoch FROM last_refresh_at) % 2 FROM pgtrickle.pgt_stream_tables")
        if phase > 1.5:
            raise pg.Failure(f"fired {phase} s after an even second")


def test_calculated_follows_its_upstream(world):
    with world.database() as connect:
        conn = connect()
        conn.execute(BASE)
        create(conn, "by_region", BY_REGION, schedule="1s", refresh_mode="DIFFERENTIAL")
        create(conn, "grand", GRAND, refresh_mode="DIFFERENTIAL")
        for i in range(3):
            conn.execute("UPDATE orders SET amount = amount + 1 WHERE id = %s", (i + 1,))
            pg.wait_equal(conn, "grand", "SELECT sum(total) AS total, count(*) AS n "
                                         f"FROM ({BY_REGION}) AS by_region")
        n = refreshes(conn, "grand")
        before = field(conn, "by_region", "last_refresh_at")
        pg.wait_until(lambda: field(conn, "by_region", "last_refresh_at") > before, 10, "an idle refresh")
        expect(refreshes(conn, "grand"), n, "refreshes of a calculated stream table with nothing to do")


def test_error_stops_one_and_not_the_others(world):
    with world.database() as connect:
        conn = connect()
        conn.execute(BASE)
        create(conn, "sturdy", BY_REGION, schedule="1s", refresh_mode="DIFFERENTIAL")
        conn.execute("CREATE TABLE numbers (n int)")
        create(conn, "inverse", "SELECT n, 1 / n AS inverse FROM numbers", schedule="1s", refresh_mode="DIFFERENTIAL")
        conn.execute("INSERT INTO numbers VALUES (0)")
        conn.execute("INSERT INTO orders (region, amount) VALUES ('new', 7)")
        pg.wait_until(lambda: field(conn, "inverse", "status") == "ERROR", 20, "status ERROR")
        expect("division by zero" in field(conn, "inverse", "last_error_message"), True, "the message of the server")
        pg.wait_equal(conn, "sturdy", BY_REGION)
        conn.execute("DELETE FROM numbers")
        conn.execute("SELECT pgtrickle.resume_stream_table('inverse')")
        conn.execute("INSERT INTO numbers VALUES (2)")
        pg.wait_equal(conn, "inverse", "SELECT n, 1 / n AS inverse FROM numbers")


def test_alteration_keeps_relation_rights_and_indexes(world):
    with world.database() as connect:
        conn = connect()
        conn.execute(BASE)
        create(conn, "by_region", BY_REGION, schedule="1s", refresh_mode="DIFFERENTIAL")
        create(conn, "grand", GRAND, refresh_mode="DIFFERENTIAL")
        conn.execute("CREATE INDEX theirs ON by_region (total); GRANT SELECT ON by_region TO PUBLIC; "
                     "CREATE VIEW seen AS SELECT region, total FROM by_region")
        relid = field(conn, "by_region", "pgt_relid::oid")
        doubled = "SELECT region, count(*) AS n, sum(amount) * 2 AS total FROM orders GROUP BY region"
        # (a mode, a query): whatever columns of our own they need
        for mode, query in (("FULL", BY_REGION), ("DIFFERENTIAL", doubled), ("IMMEDIATE", doubled), ("AUTO", BY_REGION)):
            conn.execute(f"ALTER STREAM TABLE by_region SET (refresh_mode = '{mode}')")
            conn.execute(f"ALTER STREAM TABLE by_region AS {query}")
            pg.assert_equal(conn, "by_region", query, mode)
            conn.execute("UPDATE orders SET amount = amount + 1 WHERE id % 7 = 0")
            if mode == "IMMEDIATE":
                pg.assert_equal(conn, "by_region", query, mode)
            else:
                conn.execute("REFRESH STREAM TABLE by_region")
                pg.assert_equal(conn, "by_region", query, mode)
            pg.wait_equal(conn, "grand", GRAND)
        expect(field(conn, "by_region", "pgt_relid::oid"), relid, "OID")
        expect(pg.one(conn, "SELECT count(*) FROM pg_indexes WHERE indexname = 'theirs'"), 1, "the user's index")
        expect(pg.one(conn, "SELECT has_table_privilege('public', 'by_region', 'SELECT')"), True, "the grant")
        pg.expect_error(conn, "ALTER STREAM TABLE by_region AS SELECT region FROM orders", "2BP01", "grand")
        pg.expect_error(conn, "ALTER STREAM TABLE by_region AS SELECT 'x'::text AS region, n, total FROM grand", "42P17",
                        "read itself")


def test_alteration_by_another_keeps_the_owner(world):
    with world.database() as connect:
        conn = connect()
        conn.execute(BASE + "GRANT CREATE ON SCHEMA public TO app; GRANT SELECT, TRIGGER ON orders TO app")
        app = connect("app")
        create(app, "by_region", BY_REGION, schedule="1s", refresh_mode="DIFFERENTIAL")
        conn.execute("ALTER STREAM TABLE by_region AS SELECT region FROM orders")
        expect(pg.one(conn, "SELECT relowner::regrole::text FROM pg_class WHERE relname = 'by_region'"), "app", "owner")
        conn.execute("ALTER STREAM TABLE by_region SET (refresh_mode = 'IMMEDIATE')")
        expect(pg.one(conn, "SELECT count(*) FROM pg_proc WHERE pronamespace = 'pgtrickle_changes'::regnamespace "
                            "AND proname ~ '^i_' AND proowner <> 'app'::regrole"), 0, "functions of another owner")
        conn.execute("INSERT INTO orders (region, amount) VALUES ('new', 1)")
        pg.assert_equal(conn, "by_region", "SELECT region FROM orders")


def test_other_version_is_upgraded(world):
    with world.database() as connect:
        conn = connect()
        conn.execute(BASE)
        create(conn, "by_region", BY_REGION, schedule="1s", refresh_mode="DIFFERENTIAL")
        version = pg.one(conn, "SELECT pgtrickle._version()")
        conn.execute("CREATE OR REPLACE FUNCTION pgtrickle._version() RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT ''old''::text'")
        # The scheduler of this database starts anew.
        conn.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                     "WHERE application_name = 'pgtrickle' AND datname = current_database()")
        pg.wait_until(lambda: pg.one(conn, "SELECT pgtrickle._version()") == version, 20, "the upgrade")
        conn.execute("INSERT INTO orders (region, amount) VALUES ('new', 1)")
        pg.wait_equal(conn, "by_region", BY_REGION)


def test_two_daemons_share_the_work_out(world):
    """One of them is the scheduler; when it goes the other takes over."""
    cluster = pg.Cluster(world.version)
    daemons = []
    cluster.start()
    try:
        daemons.append(pg.Daemon(cluster, "session").start())
        with cluster.connect() as direct:
            with daemons[0].connect() as conn:
                conn.execute(BASE)
                create(conn, "by_region", BY_REGION, schedule="1s", refresh_mode="DIFFERENTIAL")
            daemons.append(pg.Daemon(cluster, "session").start())
            pg.wait_equal(direct, "by_region", BY_REGION)
            holders = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = x'7067746b'::int::oid AND objid = 2"
            pg.wait_until(lambda: pg.one(direct, holders) == 1, 20, "one scheduler")
            daemons.pop(0).kill()
            direct.execute("INSERT INTO orders (region, amount) VALUES ('new', 1)")
            pg.wait_equal(direct, "by_region", BY_REGION)
            pg.wait_until(lambda: pg.one(direct, holders) == 1, 20, "one scheduler again")
    finally:
        for d in daemons:
            d.stop()
        cluster.stop()


def test_long_refresh_holds_up_nobody_and_ends_with_the_daemon(world):
    cluster = pg.Cluster(world.version)
    cluster.start()
    try:
        daemon = pg.Daemon(cluster, "session").start()
        with cluster.connect() as direct:
            with daemon.connect() as conn:
                conn.execute(BASE + "CREATE TABLE n AS SELECT i FROM generate_series(1, 3000) i")
                conn.execute("CREATE STREAM TABLE slow WITH (schedule = '1s', refresh_mode = 'FULL') AS "
                             "SELECT count(*) AS n FROM n a, n b, n c WHERE a.i + b.i + c.i > 10 WITH NO DATA")
                create(conn, "by_region", BY_REGION, schedule="1s", refresh_mode="DIFFERENTIAL")
            running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%_refresh(%' AND pid <> pg_backend_pid()"
            pg.wait_until(lambda: pg.one(direct, running) == 1, 20, "the slow refresh")
            direct.execute("INSERT INTO orders (region, amount) VALUES ('new', 1)")
            pg.wait_equal(direct, "by_region", BY_REGION)
            daemon.stop()
            pg.wait_until(lambda: pg.one(direct, running) == 0, 10, "the end of the refresh")
            expect(field(direct, "slow", "consecutive_errors"), 0, "errors of a refresh that was interrupted")
    finally:
        cluster.stop()


def test_look_that_fails_stops_one_and_not_the_others(world):
    with world.database() as connect:
        conn = connect()
        conn.execute(BASE)
        create(conn, "sturdy", BY_REGION, refresh_mode="DIFFERENTIAL")
        conn.execute("CREATE TABLE numbers (n int)")
        create(conn, "broken", "SELECT n FROM numbers", refresh_mode="DIFFERENTIAL")
        relid = pg.one(conn, "SELECT 'numbers'::regclass::oid")
        conn.execute(f"ALTER TABLE pgtrickle_changes.c_{relid} RENAME TO elsewhere")
        pg.wait_until(lambda: field(conn, "broken", "status") == "ERROR", 20, "status ERROR")
        expect(f"c_{relid}" in field(conn, "broken", "last_error_message"), True, "the message of the server")
        conn.execute("INSERT INTO orders (region, amount) VALUES ('new', 7)")
        pg.wait_equal(conn, "sturdy", BY_REGION)
        expect(f"scheduler_lost database={connect.name} " in connect.daemon.log(), False, "the election is lost")


def test_drops_do_not_disturb_the_scheduler(world):
    with world.database() as connect:
        conn = connect()
        conn.execute(BASE)
        for _ in range(10):
            create(conn, "by_region", BY_REGION, refresh_mode="DIFFERENTIAL")
            create(conn, "often", BY_REGION, schedule="1s", refresh_mode="DIFFERENTIAL")
            conn.execute("INSERT INTO orders (region, amount) VALUES ('new', 7)")
            conn.execute("DROP STREAM TABLE by_region; DROP STREAM TABLE often")
        expect(f"scheduler_lost database={connect.name} " in connect.daemon.log(), False, "the election is lost")


def test_health_knows_the_running_scheduler(world):
    with world.database() as connect:
        conn = connect()
        conn.execute(BASE)
        create(conn, "by_region", BY_REGION, schedule="1s", refresh_mode="DIFFERENTIAL")
        pg.wait_until(lambda: refreshes(conn, "by_region", "initiated_by = 'INITIAL'") > 0, 20, "a refresh")
        pg.wait_until(lambda: pg.one(conn, "SELECT severity FROM pgtrickle.health_check() "
                                           "WHERE check_name = 'scheduler_running'") == "OK", 20, "scheduler_running OK")


def test_alteration_reads_the_query_as_it_was_given(world):
    with world.database() as connect:
        conn = connect()
        conn.execute(BASE)
        conn.execute("SET escape_string_warning = off; SET standard_conforming_strings = off")
        create(conn, "quoted", r"SELECT id, 'it\'s' AS what FROM orders", schedule="1d")
        conn.execute("SET standard_conforming_strings = on")
        conn.execute("ALTER STREAM TABLE quoted SET (refresh_mode = 'FULL')")
        conn.execute("SELECT pgtrickle.repair_stream_table('quoted')")
        expect(pg.one(conn, "SELECT DISTINCT what FROM quoted"), "it's", "the constant")
        expect(pg.one(conn, "SHOW standard_conforming_strings"), "on", "the session's setting")


def test_alteration_keeps_the_names_of_columns(world):
    with world.database() as connect:
        conn = connect()
        conn.execute(BASE)
        conn.execute(f"CREATE STREAM TABLE named (a, b, c) WITH (schedule = '1d') AS {BY_REGION}")
        for statement in ("ALTER STREAM TABLE named SET (refresh_mode = 'FULL')", "SELECT pgtrickle.repair_stream_table('named')",
                          "ALTER STREAM TABLE named AS SELECT region, count(*), min(amount) FROM orders GROUP BY region"):
            conn.execute(statement)
            expect(pg.visible_columns(conn, "named"), ["a", "b", "c"], statement)
        conn.execute(f"CREATE OR REPLACE STREAM TABLE named WITH (schedule = '1d') AS {BY_REGION}")
        expect(pg.visible_columns(conn, "named"), ["region", "n", "total"], "CREATE OR REPLACE without a list")


def test_names_in_messages_have_one_pair_of_quotes(world):
    with world.database() as connect:
        conn = connect()
        conn.execute(BASE)
        create(conn, "by_region", BY_REGION, schedule="1d")
        for statement in ("ALTER STREAM TABLE nope SUSPEND", "DROP STREAM TABLE nope", "REFRESH STREAM TABLE nope"):
            pg.expect_error(conn, statement, "42P01", '^stream table "nope" does not exist')
