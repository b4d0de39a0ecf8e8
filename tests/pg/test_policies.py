"""What decides when and how stream tables are refreshed, and whether they are right: checks, units, gates, watermarks."""

import json
import time

import psycopg

from tests.support import pg
from tests.support.harness import only

BASE = """
CREATE TABLE orders (id serial PRIMARY KEY, region text, amount numeric(10,2), ratio float8);
INSERT INTO orders (region, amount, ratio) SELECT 'r' || i % 3, i, i / 7.0 FROM generate_series(1, 30) i;
"""
BY_REGION = "SELECT region, count(*) AS n, sum(amount) AS total FROM orders GROUP BY region"
MANUAL = "0 0 1 1 *"  # once a year: nothing happens unless asked for


def create(conn, name, query, **options):
    with_ = ", ".join(f"{k} = '{v}'" for k, v in options.items())
    conn.execute(f"CREATE STREAM TABLE {name} WITH ({with_}) AS {query}")


def check(conn, name):
    """verdict, missing, extra, differences"""
    row = pg.rows(conn, f"CHECK STREAM TABLE {name}")[0]
    return row[1], row[2], row[3], row[6]


def expect(found, expected, what):
    if found != expected:
        raise pg.Failure(f"{what}: {found!r} instead of {expected!r}")


def history(conn, name, columns="action", condition="true"):
    return pg.rows(conn, f"SELECT {columns} FROM pgtrickle.pgt_refresh_history h JOIN pgtrickle.pgt_stream_tables t USING (pgt_id) "
                         f"WHERE pgt_name = %s AND {condition} ORDER BY refresh_id", (name,))


def listen(conn):
    """The list to which alerts are appended whenever the connection does something."""
    found = []
    conn.add_notify_handler(lambda n: found.append(json.loads(n.payload)))
    conn.execute("LISTEN pg_trickle_alert")
    return found


def test_check_finds_what_differs_and_only_that(world):
    with world.database() as connect:
        conn = connect()
        conn.execute(BASE)
        kinds = {"by_region": BY_REGION, "copy": "SELECT id, region, amount FROM orders WHERE amount > 3", "bag": "SELECT region, amount > 10 AS big FROM orders",
                 "floats": "SELECT region, sum(ratio) AS s, avg(ratio) AS a FROM orders GROUP BY region"}
        for name, query in kinds.items():
            for mode in ("DIFFERENTIAL", "IMMEDIATE", "FULL"):
                st = f"{name}_{mode.lower()}"
                create(conn, st, query, refresh_mode=mode, **({} if mode == "IMMEDIATE" else {"schedule": MANUAL}))
                expect(check(conn, st)[:3], ("EQUAL", 0, 0), st)
        conn.execute("UPDATE orders SET amount = amount + 1, ratio = ratio * 3 WHERE id % 4 = 0; DELETE FROM orders WHERE id = 7; "
                     "INSERT INTO orders (region, amount, ratio) VALUES (NULL, 5, 'NaN'), ('r1', NULL, NULL)")
        for name in kinds:
            expect(check(conn, f"{name}_differential")[:3], ("EQUAL", 0, 0), f"{name} with changes that wait")
            expect(check(conn, f"{name}_immediate")[:3], ("EQUAL", 0, 0), f"{name}, IMMEDIATE")
            expect(check(conn, f"{name}_full")[0], "BEHIND", f"{name}, FULL")
        expect(pg.one(conn, "SELECT sum(n) FROM by_region_differential"), 30, "a check changes nothing")
        # What no refresh would touch: a row that is not there, one too many, one that is other.
        for mode in ("differential", "immediate"):
            conn.execute(f"DELETE FROM by_region_{mode} WHERE region = 'r0'; UPDATE by_region_{mode} SET total = total + 1 WHERE region = 'r2'; "
                         f"INSERT INTO copy_{mode} SELECT 1000, 'x', 1; DELETE FROM bag_{mode} WHERE ctid = (SELECT min(ctid) FROM bag_{mode})")
            verdict, missing, extra, differences = check(conn, f"by_region_{mode}")
            expect((verdict, missing, extra), ("MISMATCH", 2, 1), f"by_region_{mode}")
            expect(sorted(d["copies"] for d in differences), [-1, 1, 1], "its copies")
            expect(json.loads([d["row"] for d in differences if d["copies"] < 0][0])["region"], "r2", "its row")
            expect(check(conn, f"copy_{mode}")[:3], ("MISMATCH", 0, 1), f"copy_{mode}")
            expect(check(conn, f"bag_{mode}")[:3], ("MISMATCH", 1, 0), f"bag_{mode}")
            expect(check(conn, f"floats_{mode}")[:3], ("EQUAL", 0, 0), f"floats_{mode}")
        bad = pg.one(conn, "SELECT detail FROM pgtrickle.health_check() WHERE check_name = 'checks'")
        expect("by_region_differential" in bad and "floats" not in bad, True, f"health ({bad})")
        conn.execute("SELECT pgtrickle.repair_stream_table('by_region_differential')")
        expect(check(conn, "by_region_differential")[:3], ("EQUAL", 0, 0), "after a repair")


@only(15)
def test_check_in_transactions_and_by_others(world):
    with world.database() as connect:
        conn = connect()
        conn.execute(BASE)
        create(conn, "by_region", BY_REGION, schedule=MANUAL)
        create(conn, "now_only", "SELECT id FROM orders WHERE now() - interval '1 second' * id < now() - interval '5 seconds'", schedule=MANUAL)
        conn.execute("CREATE STREAM TABLE empty WITH (schedule = '1 1 1 1 *') AS SELECT region FROM orders WITH NO DATA; SELECT pgtrickle.alter_stream_table('empty', status => 'SUSPENDED')")
        expect(check(conn, "empty")[0] in ("UNPOPULATED", "EQUAL"), True, "WITH NO DATA")
        for level in ("READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"):
            conn.execute(f"BEGIN ISOLATION LEVEL {level}; UPDATE orders SET amount = amount + 1 WHERE id = 3")
            expect(check(conn, "by_region")[0], "EQUAL", level)
            expect(check(conn, "now_only")[0], "EQUAL", f"time, {level}")
            conn.execute("COMMIT")
        conn.execute("BEGIN READ ONLY")
        pg.expect_error(conn, "CHECK STREAM TABLE by_region", "25006")
        conn.execute("ROLLBACK")
        conn.execute("GRANT SELECT ON by_region TO reader")
        pg.expect_error(connect("reader"), "CHECK STREAM TABLE by_region", "42501")
        pg.expect_error(conn, "CHECK STREAM TABLE nothing", "42P01")
        pg.expect_error(conn, "CHECK STREAM TABLE", "42601")
        expect(pg.one(conn, "SELECT verdict FROM pgtrickle.check_stream_table('public.by_region')"), "EQUAL", "the function")


def test_check_beside_writers(world):
    """The changes that come in during a check are no mismatch; readers and writers don't wait for it."""
    with world.database() as connect:
        conn, writer = connect(), connect()
        conn.execute(BASE)
        create(conn, "by_region", BY_REGION, schedule="1s", refresh_mode="DIFFERENTIAL")
        create(conn, "at_once", BY_REGION, refresh_mode="IMMEDIATE")
        conn.execute("SELECT pgtrickle.check_stream_table_every('by_region', '1s')")
        deadline = time.monotonic() + min(world.seconds, 5)
        seen = set()
        i = 0
        while time.monotonic() < deadline:
            i += 1
            writer.execute("UPDATE orders SET amount = amount + 1, region = 'r' || %s %% 3 WHERE id %% 7 = %s", (i, i % 7))
            for st in ("by_region", "at_once"):
                seen.add((st, check(conn, st)[0]))
        expect({v for _, v in seen} <= {"EQUAL", "BEHIND"}, True, f"verdicts {seen}")
        expect(("at_once", "EQUAL") in seen, True, f"verdicts of IMMEDIATE {seen}")
        pg.wait_until(lambda: pg.one(conn, "SELECT count(*) FROM pgtrickle.pgt_checks WHERE verdict = 'EQUAL' AND check_interval IS NOT NULL") == 1, 20, "a check in the background")
        listener = connect.direct()
        events = listen(listener)
        conn.execute("UPDATE by_region SET total = total + 1 WHERE region = 'r1'")
        pg.wait_until(lambda: pg.one(conn, "SELECT verdict FROM pgtrickle.pgt_checks WHERE check_interval IS NOT NULL") == "MISMATCH", 20, "a mismatch is found")
        pg.wait_until(lambda: listener.execute("SELECT 1") and "check_mismatch" in [e["event"] for e in events], 10, "an alert")


def units(conn):
    return sorted(tuple(r[0]) for r in pg.rows(conn, "SELECT array_agg(t.pgt_name ORDER BY t.pgt_name) FROM pgtrickle.pgt_units u JOIN pgtrickle.pgt_stream_tables t USING (pgt_id) GROUP BY unit_id"))


def test_units_are_found(world):
    with world.database() as connect:
        conn = connect()
        conn.execute(BASE)

        def st(name, *sources, **options):
            create(conn, name, " UNION ALL ".join(f"SELECT region FROM {s}" for s in sources), **{"schedule": MANUAL, **options})

        st("base", "orders")
        st("a", "base")
        st("b", "base")
        expect(units(conn), [], "siblings without a convergence")
        st("c", "a", "b")
        expect(units(conn), [("a", "b", "c")], "a diamond below a waist")
        st("d", "c", "a", diamond_consistency="none")
        expect(units(conn), [("a", "b", "c")], "one that wants none")
        conn.execute("ALTER STREAM TABLE d SET (diamond_consistency = 'atomic')")
        expect(units(conn), [("a", "b", "c", "d")], "it wants it now")
        st("e", "orders")
        st("f", "e")
        st("g", "f", "base")
        expect(units(conn), [("a", "b", "c", "d"), ("base", "e", "f", "g")], "another diamond over the waist")
        conn.execute("SELECT pgtrickle.create_refresh_group('both', '{d,e}')")
        expect(units(conn), [("a", "b", "base", "c", "d", "e", "f", "g")], "a group unites them")
        conn.execute("SELECT pgtrickle.drop_refresh_group('both')")
        expect(units(conn), [("a", "b", "c", "d"), ("base", "e", "f", "g")], "without the group")
        expect(sorted(pg.rows(conn, "SELECT member_name, is_convergence FROM pgtrickle.diamond_groups()")),
               [("a", False), ("b", False), ("base", False), ("c", True), ("d", True), ("e", False), ("f", False), ("g", True)], "diamond_groups")
        conn.execute("DROP STREAM TABLE g; DROP STREAM TABLE d")
        expect(units(conn), [("a", "b", "c")], "after drops")
        conn.execute("ALTER STREAM TABLE c SET (refresh_mode = 'IMMEDIATE')")
        expect(units(conn), [], "IMMEDIATE needs none")
        # Two groups that would wait for each other are one.
        st("y1", "e")
        conn.execute("SELECT pgtrickle.create_refresh_group('x', '{a,y1}'); SELECT pgtrickle.create_refresh_group('y', '{e,b}')")
        st("z", "a")
        expect(units(conn), [("a", "y1"), ("b", "e")], "two groups, one after the other")


def test_diamond_is_refreshed_all_or_nothing(world):
    with world.database() as connect:
        conn = connect()
        conn.execute(BASE)
        create(conn, "l", BY_REGION, schedule="1s", refresh_mode="DIFFERENTIAL")
        create(conn, "r", "SELECT region, max(id) AS newest, min(100 / (amount + 1000)) AS worst FROM orders GROUP BY region", schedule=MANUAL, refresh_mode="DIFFERENTIAL")
        create(conn, "j", "SELECT l.region, l.n, l.total, r.newest FROM l JOIN r ON l.region = r.region", refresh_mode="DIFFERENTIAL")
        joined = f"SELECT l.region, l.n, l.total, r.newest FROM ({BY_REGION}) l JOIN (SELECT region, max(id) AS newest FROM orders GROUP BY region) r ON l.region = r.region"
        last = 0
        for i in range(40):
            conn.execute(f"INSERT INTO orders (region, amount) VALUES ('r{i % 3}', {i}); UPDATE orders SET amount = amount + 1 WHERE id = {i + 1}")
            # n of l and newest of r agree at every moment: ids are dense.
            n, newest = pg.rows(conn, "SELECT (SELECT sum(n) FROM l), (SELECT max(newest) FROM r)")[0]
            expect(n, newest, "both sides in one snapshot")
            last = n
        pg.wait_equal(conn, "j", joined)
        expect(len(pg.rows(conn, "SELECT DISTINCT frontier_snapshot::text FROM pgtrickle.pgt_stream_tables")), 1, "snapshots")
        before = pg.one(conn, "SELECT max(frontier_seq) FROM pgtrickle.pgt_stream_tables")
        conn.execute("INSERT INTO orders (region, amount) VALUES ('r0', -1000)")  # r divides by zero
        pg.wait_until(lambda: pg.one(conn, "SELECT status FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'r'") == "ERROR", 20, "the error of r")
        expect(pg.rows(conn, "SELECT pgt_name, status FROM pgtrickle.pgt_stream_tables ORDER BY 1"), [("j", "ACTIVE"), ("l", "ACTIVE"), ("r", "ERROR")], "whose error")
        expect(pg.one(conn, "SELECT max(frontier_seq) FROM pgtrickle.pgt_stream_tables"), before, "frontiers after the failure")
        conn.execute("DELETE FROM orders WHERE amount = -1000; INSERT INTO orders (region, amount) VALUES ('r0', 1); SELECT pgtrickle.resume_stream_table('r')")
        pg.wait_equal(conn, "j", joined)
        pg.wait_equal(conn, "l", BY_REGION)


@only(18)
def test_gates_and_watermarks(world):
    with world.database() as connect:
        conn = connect()
        conn.execute(BASE)
        conn.execute("CREATE TABLE other (region text); INSERT INTO other VALUES ('r0'); GRANT SELECT ON orders TO reader")
        create(conn, "by_region", BY_REGION, schedule="1s", refresh_mode="DIFFERENTIAL")
        create(conn, "free", "SELECT count(*) AS n FROM other", schedule="1s", refresh_mode="DIFFERENTIAL")
        pg.expect_error(connect("reader"), "SELECT pgtrickle.gate_source('orders')", "42501")
        pg.expect_error(conn, "SELECT pgtrickle.gate_source('nothing')", "42P01")
        conn.execute("SELECT pgtrickle.gate_source('orders')")
        expect(pg.rows(conn, "SELECT source_table, schema_name, gated, gated_by FROM pgtrickle.source_gates()"), [("orders", "public", True, "postgres")], "gates")
        expect(history(conn, "by_region", "action, h.status, reason")[-1], ("SKIP", "SKIPPED", "source gated"), "history")
        conn.execute("INSERT INTO orders (region, amount) VALUES ('new', 1); INSERT INTO other VALUES ('x')")
        pg.wait_equal(conn, "free", "SELECT count(*) AS n FROM other")
        before = pg.one(conn, "SELECT last_refresh_at FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'free'")
        pg.wait_until(lambda: pg.one(conn, "SELECT last_refresh_at FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'free'") > before, 20, "another round")
        expect(pg.one(conn, "SELECT count(*) FROM by_region WHERE region = 'new'"), 0, "rows behind a gate")
        conn.execute("SELECT pgtrickle.ungate_source('public.orders')")
        pg.wait_equal(conn, "by_region", BY_REGION)
        expect(pg.one(conn, "SELECT affected_stream_tables FROM pgtrickle.bootstrap_gate_status()"), "public.by_region", "who waited")

        conn.execute("SELECT pgtrickle.create_watermark_group('pair', '{orders,other}', 10)")
        conn.execute("SELECT pgtrickle.advance_watermark('orders', '2026-01-01 00:00:00+00')")
        expect(pg.rows(conn, "SELECT aligned, sources_with_watermark, sources_total FROM pgtrickle.watermark_status()"), [(True, 1, 2)], "one watermark")
        conn.execute("SELECT pgtrickle.advance_watermark('other', '2026-01-01 00:01:00+00')")
        expect(pg.rows(conn, "SELECT lag_secs, aligned FROM pgtrickle.watermark_status()"), [(60.0, False)], "a minute apart")
        conn.execute("INSERT INTO orders (region, amount) VALUES ('newer', 1)")
        pg.expect_error(conn, "SELECT pgtrickle.advance_watermark('orders', '2025-01-01')", "22023")
        create(conn, "loner", "SELECT count(*) AS n FROM orders o JOIN other USING (region)", schedule=MANUAL)
        expect(pg.one(conn, "SELECT count(*) FROM pgtrickle._held()"), 3, "all that read one of them wait")
        conn.execute("SELECT pgtrickle.advance_watermark('orders', '2026-01-01 00:00:55+00')")
        pg.wait_equal(conn, "by_region", BY_REGION)
        conn.execute("SELECT pgtrickle.drop_watermark_group('pair')")
        pg.expect_error(conn, "SELECT pgtrickle.drop_watermark_group('pair')", "42704")


@only(18)
def test_alerts_are_sent(world):
    with world.database() as connect:
        conn, listener = connect(), connect.direct()
        conn.execute(BASE)
        seen = listen(listener)
        create(conn, "by_region", BY_REGION, schedule=MANUAL, refresh_mode="DIFFERENTIAL")
        create(conn, "quiet", BY_REGION, schedule=MANUAL, refresh_mode="DIFFERENTIAL", pooler_compatibility_mode="true")
        conn.execute("INSERT INTO orders (region, amount) VALUES ('new', 1); REFRESH STREAM TABLE by_region; REFRESH STREAM TABLE quiet; REFRESH STREAM TABLE by_region")
        conn.execute("ALTER STREAM TABLE by_region SUSPEND; ALTER STREAM TABLE by_region RESUME")
        pg.wait_until(lambda: listener.execute("SELECT 1") and len(seen) >= 3, 10, lambda: f"three alerts: {seen}")
        expect([(e["event"], e["pgt_name"]) for e in seen], [("refresh_completed", "by_region"), ("refresh_completed", "by_region"), ("resumed", "by_region")], "alerts")
        expect((seen[1]["action"], seen[1]["rows_inserted"]), ("DIFFERENTIAL", 1), "what it did")


@only(15)
def test_database_can_be_dropped_beside_the_scheduler(world):
    with world.database() as connect:
        conn = connect()
        name = f"{connect.name}_drop"
        conn.execute(f"CREATE DATABASE {name}")
        victim = connect.daemon.connect(name, "postgres")
        victim.execute(BASE)
        create(victim, "by_region", BY_REGION, schedule="1s", refresh_mode="DIFFERENTIAL")
        victim.execute("INSERT INTO orders (region, amount) VALUES ('new', 1)")
        pg.wait_equal(victim, "by_region", BY_REGION)
        victim.close()
        # Sessions of clients are the pool's; the scheduler leaves by itself while the server waits for it.
        pg.wait_until(lambda: _drop(conn, name), 40, "DROP DATABASE")


def _drop(conn, name):
    conn.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND application_name NOT LIKE 'pgtrickle%%'", (name,))
    try:
        conn.execute(f"DROP DATABASE {name}")
        return True
    except psycopg.errors.ObjectInUse:
        return False


def test_a_new_query_changes_only_the_rows_that_differ(world):
    """Nobody sees the table empty, or waits for it; what reads it gets the difference only."""
    with world.database() as connect:
        conn, reader = connect(), connect()
        conn.execute(BASE)
        other = "SELECT region, count(*) AS n, sum(CASE WHEN region = 'r2' THEN amount * 2 ELSE amount END) AS total FROM orders GROUP BY region"
        for mode in ("DIFFERENTIAL", "IMMEDIATE", "FULL"):
            st = f"st_{mode.lower()}"
            create(conn, st, BY_REGION, refresh_mode=mode, **({} if mode == "IMMEDIATE" else {"schedule": MANUAL}))
            before = pg.rows(conn, f"SELECT region, xmin::text FROM {st} ORDER BY region")
            conn.execute(f"BEGIN; ALTER STREAM TABLE {st} AS {other}")
            reader.execute("SET statement_timeout = '5s'")
            expect(pg.one(reader, f"SELECT count(*) FROM {st}"), 3, "rows seen meanwhile")
            conn.execute("COMMIT")
            after = pg.rows(conn, f"SELECT region, xmin::text FROM {st} ORDER BY region")
            expect(after[:2], before[:2], "rows that are the same")
            expect(after[2] != before[2], True, "the row that is not")
            expect(history(conn, st, "rows_inserted, rows_updated, rows_deleted")[-1], (1, 0, 1) if mode == "FULL" else (0, 1, 0), "history")
            conn.execute("UPDATE orders SET amount = amount + 1 WHERE id % 5 = 0")
            if mode != "IMMEDIATE":
                conn.execute(f"REFRESH STREAM TABLE {st}")
            pg.assert_equal(conn, st, other, mode)
            # Another key, the same columns: all is made anew, and still nobody sees it empty.
            rows_of = "SELECT id::text AS region, 1::bigint AS n, amount AS total FROM orders"
            conn.execute(f"ALTER STREAM TABLE {st} AS {rows_of}")
            pg.assert_equal(conn, st, rows_of, mode)


@only(18)
def test_auto_says_why_and_takes_the_faster_way(world):
    with world.database() as connect:
        conn = connect()
        conn.execute(BASE)
        conn.execute("INSERT INTO orders (region, amount) SELECT 'r' || i % 500, i FROM generate_series(1, 20000) i; ANALYZE orders")
        create(conn, "st", BY_REGION, schedule=MANUAL, refresh_mode="AUTO")
        direct = connect.direct()
        for n in (10, 10, 20000):  # small, small, all
            # What a way took is not this test's to say: a change a millisecond, all a second.
            direct.execute("UPDATE pgtrickle.pgt_refresh_history SET duration_ms = CASE action WHEN 'DIFFERENTIAL' THEN 1 ELSE 1000 END")
            conn.execute(f"UPDATE orders SET amount = amount + 1 WHERE id <= {n}; REFRESH STREAM TABLE st")
        ways = history(conn, "st", "action, reason, pending_rows", "initiated_by = 'MANUAL'")
        expect([w[0] for w in ways], ["DIFFERENTIAL", "DIFFERENTIAL", "FULL"], f"ways {ways}")
        expect([w[2] for w in ways], [20, 20, 40000], "changes counted")
        expect("20 changes would take about" in ways[1][1] and "of the sources'" in ways[2][1], True, f"reasons {ways}")
        expect("40000 changes" in pg.rows(conn, "SELECT * FROM pgtrickle.explain_refresh_mode('st')")[0][2], True, "explain_refresh_mode")
        # What was measured counts: had the small ones been dear, the next would be a full one.
        direct.execute("UPDATE pgtrickle.pgt_refresh_history SET duration_ms = 60000 WHERE action = 'DIFFERENTIAL'")
        conn.execute("UPDATE orders SET amount = amount + 1 WHERE id <= 10; REFRESH STREAM TABLE st")
        expect(history(conn, "st")[-1], ("FULL",), "after dear differential ones")
        pg.assert_equal(conn, "st", BY_REGION)


@only(15)
def test_refreshes_that_are_broken_off_heal(world):
    """Cancelled, locked out, out of space, dropped in the middle: what was there stays, and the next one is right."""
    with world.database() as connect:
        conn, direct = connect(), connect.direct()
        conn.execute(BASE)
        conn.execute("CREATE TABLE trouble (kind text); CREATE FUNCTION stumble() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN "
                     "IF EXISTS (SELECT FROM public.trouble WHERE kind = 'full') THEN RAISE EXCEPTION 'no space left' USING ERRCODE = 'disk_full'; END IF; "
                     "IF EXISTS (SELECT FROM public.trouble WHERE kind = 'slow') THEN PERFORM pg_sleep(60); END IF; RETURN NULL; END $f$")
        create(conn, "by_region", BY_REGION, schedule="1s", refresh_mode="DIFFERENTIAL")
        conn.execute("CREATE TRIGGER stumble AFTER INSERT OR UPDATE OR DELETE ON by_region FOR EACH STATEMENT EXECUTE FUNCTION stumble()")

        def failed(state):
            return history(conn, "by_region", "1", f"error_sqlstate = '{state}'")

        conn.execute("INSERT INTO trouble VALUES ('full'); INSERT INTO orders (region, amount) VALUES ('a', 1)")
        pg.wait_until(lambda: failed("53100"), 20, "a full disk")
        expect(pg.one(conn, "SELECT count(*) FROM by_region WHERE region = 'a'"), 0, "rows of a refresh that failed")
        conn.execute("DELETE FROM trouble")
        pg.wait_until(lambda: pg.one(conn, "SELECT status FROM pgtrickle.pgt_stream_tables") == "SUSPENDED" and
                      conn.execute("SELECT pgtrickle.resume_stream_table('by_region')") or not pg.difference(conn, "by_region", BY_REGION), 30, "it heals")

        conn.execute("INSERT INTO trouble VALUES ('slow'); INSERT INTO orders (region, amount) VALUES ('b', 1)")
        running = "FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"
        pg.wait_until(lambda: pg.one(direct, f"SELECT count(*) {running}") == 1, 20, "a slow refresh")
        conn.execute("DELETE FROM trouble")
        direct.execute(f"SELECT pg_cancel_backend(pid) {running}")
        pg.wait_until(lambda: failed("57014"), 20, "a cancelled one")
        pg.wait_equal(conn, "by_region", BY_REGION)

        direct.execute("BEGIN; LOCK TABLE by_region IN SHARE ROW EXCLUSIVE MODE")
        conn.execute("INSERT INTO orders (region, amount) VALUES ('c', 1)")
        pg.wait_until(lambda: "refresh_waits" in connect.daemon.log(0), 20, "a refresh that waits for a lock")
        direct.execute("COMMIT")
        pg.wait_equal(conn, "by_region", BY_REGION)
        expect(pg.one(conn, "SELECT status FROM pgtrickle.pgt_stream_tables"), "ACTIVE", "status after a lock")

        conn.execute("INSERT INTO trouble VALUES ('slow'); INSERT INTO orders (region, amount) VALUES ('d', 1)")
        pg.wait_until(lambda: pg.one(direct, f"SELECT count(*) {running}") == 1, 20, "another slow refresh")
        conn.execute("SET lock_timeout = '100ms'")
        pg.expect_error(conn, "DROP STREAM TABLE by_region", "55P03")
        conn.execute("RESET lock_timeout; DELETE FROM trouble")
        direct.execute(f"SELECT pg_terminate_backend(pid) {running}")
        pg.wait_equal(conn, "by_region", BY_REGION)
        conn.execute("DROP STREAM TABLE by_region")
        expect(pg.one(conn, "SELECT count(*) FROM pg_class WHERE relnamespace = 'pgtrickle_changes'::regnamespace AND relname ~ '^c_[0-9]+$'"), 0, "buffers left")


@only(18)
def test_graph_is_drawn(world):
    with world.database() as connect:
        conn = connect()
        conn.execute(BASE)
        create(conn, "by_region", BY_REGION, schedule=MANUAL)
        create(conn, '"odd ""name\\"', "SELECT sum(n) AS n FROM by_region", schedule=MANUAL)
        dot = pg.one(conn, "SELECT pgtrickle.dependency_dot()")
        for line in ('"public.orders" [shape=ellipse];', '"public.orders" -> "public.by_region";', '"public.by_region" -> "public.odd \\"name\\\\";'):
            expect(line in dot, True, f"{line} in\n{dot}")
        mermaid = pg.one(conn, "SELECT pgtrickle.dependency_mermaid()")
        expect(mermaid.splitlines(), ["flowchart LR", '    n1(["public.orders"])', '    n2["public.by_region"]', '    n3["public.odd #quot;name\\"]', "    n1 --> n2", "    n2 --> n3"], "Mermaid")
        expect(pg.rows(conn, "SELECT stream_table, verdict FROM pgtrickle.check_status() LIMIT 1"), [("public.by_region", None)], "check_status")
