"""The patterns document, as its readers would run it: every SQL statement of tests/pg/seed-patterns.txt
through the port, in order, then changes to every source, and each stream table equals its query.
"""

import contextlib
import os
import re

from tests.support import pg
from tests.support.harness import only, smoke

N_STATEMENTS = 29
FIRST_WORDS = re.compile(r"^(CREATE TABLE|SELECT|INSERT INTO|UPDATE|DELETE FROM|ALTER|DROP|CALL)\b")

# What `...` stands for, and what the document takes for granted.
FILL_IN = {
    "live_metrics": "SELECT region, max(amount) AS largest, count(*) AS orders FROM orders GROUP BY region",
    "hourly_report": "SELECT date_trunc('hour', created_at) AS hour, count(*) AS events FROM events GROUP BY 1",
    "daily_analytics": "SELECT order_date, min(amount) AS least, avg(amount) AS mean FROM orders"
                       " GROUP BY order_date",
}
AUDIT_LOG_SUMMARY = "SELECT event_type, count(*) AS n FROM raw_events GROUP BY event_type"


def seed_statements():
    """The SQL of the document: a statement begins at a line that starts with one of its first words and ends
    at the next semicolon outside of quotes, dollar quotes, parentheses and comments."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "seed-patterns.txt")
    with open(path, encoding="utf-8") as f:
        lines = f.read().splitlines(keepends=True)
    found, i = [], 0
    while i < len(lines):
        if not FIRST_WORDS.match(lines[i]):
            i += 1
            continue
        text = "".join(lines[i:])
        end = end_of_statement(text)
        statement = text[:end]
        found.append(statement)
        i += statement.count("\n") + 1
    return found


def end_of_statement(text):
    token = re.compile(r"--[^\n]*|'(?:[^']|'')*'|\$(\w*)\$.*?\$\1\$|;", re.S)
    for m in token.finditer(text):
        if m.group() == ";":
            return m.end()
    raise pg.Failure("a statement of the document has no end: " + text[:80])


def name_of(statement):
    """What a statement makes: ('table' | 'stream', name), or None."""
    m = re.match(r"CREATE TABLE (\w+)", statement)
    if m:
        return "table", m.group(1)
    m = re.match(r"SELECT pgtrickle\.create_stream_table\(\s*'(\w+)'", statement)
    return ("stream", m.group(1)) if m else None


def script():
    """The statements in the order of the document; what a block assumes comes right before it."""
    statements = seed_statements()
    if len(statements) != N_STATEMENTS:
        raise pg.Failure(f"{len(statements)} statements in the document, not {N_STATEMENTS}")
    tables = {name_of(s)[1]: s for s in statements if (name_of(s) or ("",))[0] == "table"}
    made, done = [], set()
    for s in statements:
        kind, name = name_of(s) or ("", "")
        if s in done:
            continue
        for other, create in tables.items():  # customer_360 reads orders, which comes a pattern later
            if kind == "stream" and re.search(rf"\b(FROM|JOIN) {other}\b", s) and create not in done:
                made.append(create)
                done.add(create)
        if kind == "stream" and name in FILL_IN:
            s = s.replace("...", f"$${FILL_IN[name]}$$")
        if "'audit_log_summary'" in s:
            made.append(f"SELECT pgtrickle.create_stream_table('audit_log_summary', $${AUDIT_LOG_SUMMARY}$$,"
                        " schedule => '1s');")
        if s not in done:
            made.append(s)
            done.add(s)
    return made


def definition(statement):
    """(name, query) of a create_stream_table call of the script."""
    name = name_of(statement)[1]
    m = re.search(r"\$\$(.*?)\$\$", statement, re.S) or re.search(r",\s*'((?:[^']|'')*)'", statement)
    return name, m.group(1).replace("''", "'")


CHANGES = [
    # The first rows of everything.
    "INSERT INTO raw_events (user_id, event_type, payload) SELECT i % 5,"
    " (ARRAY['purchase','refund','subscription','login'])[i % 4 + 1],"
    " CASE WHEN i % 7 = 0 THEN NULL ELSE jsonb_build_object('amount', i * 1.5) END FROM generate_series(1, 60) i",
    "INSERT INTO events (aggregate_id, event_type, payload, created_at) SELECT"
    " ('00000000-0000-0000-0000-00000000000' || i % 6)::uuid, 'type' || i % 3, jsonb_build_object('n', i),"
    " timestamptz '2026-03-01 00:00Z' + i * interval '13 minutes' FROM generate_series(1, 80) i",
    "INSERT INTO customers (customer_id, name, email) SELECT i, 'customer ' || i, NULL FROM generate_series(1, 12) i",
    "INSERT INTO customer_history SELECT i % 5, 'name ' || i, 'standard', timestamptz '2026-01-01' + i * interval"
    " '1 day', CASE WHEN i > 5 THEN NULL ELSE timestamptz '2026-06-01' END FROM generate_series(1, 10) i",
    "INSERT INTO orders (customer_id, region, product_id, amount, order_date) SELECT i % 15, 'region ' || i % 4,"
    " i % 9, i * 1.25, CURRENT_DATE - (i % 3) FROM generate_series(1, 90) i",
    # Updates of what is grouped, joined, filtered and ordered by; of several tables.
    "UPDATE raw_events SET event_type = 'purchase', payload = '{\"amount\": \"7.5\"}' WHERE event_id % 9 = 1",
    "UPDATE raw_events SET event_type = 'login' WHERE event_id % 9 = 2",
    "UPDATE raw_events SET event_id = event_id + 1000, user_id = 77 WHERE event_id % 11 = 3",
    "UPDATE events SET created_at = created_at - interval '2 days', event_type = 'moved' WHERE event_id % 8 = 0",
    "UPDATE events SET aggregate_id = '00000000-0000-0000-0000-000000000009' WHERE event_id % 10 = 1",
    "UPDATE customers SET tier = 'gold', email = name || '@example.com' WHERE customer_id % 3 = 0",
    "UPDATE customers SET customer_id = customer_id + 100 WHERE customer_id = 4",
    "UPDATE customer_history SET valid_to = now() WHERE customer_id = 2 AND valid_to IS NULL",
    "UPDATE orders SET region = 'north', amount = amount + 1 WHERE id % 5 = 0",
    "UPDATE orders SET customer_id = 104, order_date = CURRENT_DATE, product_id = 1 WHERE id % 7 = 0",
    # Deletes; a group and a customer vanish.
    "DELETE FROM raw_events WHERE user_id = 3",
    "DELETE FROM events WHERE event_id IN (SELECT max(event_id) FROM events GROUP BY aggregate_id)",
    "DELETE FROM customers WHERE customer_id IN (5, 6)",
    "DELETE FROM customer_history WHERE customer_id = 1",
    "DELETE FROM orders WHERE region = 'region 2' OR id % 10 = 3",
]


def run_by_psql(connect, statements):
    pg.psql(connect.port, connect.name, script="\n".join(statements) + "\n")


def run_by_psycopg(connect, statements):
    conn = connect()
    for s in statements:
        conn.execute(s)


def run_as_one_string(connect, statements):
    """All in one Query message: one transaction."""
    conn = connect()
    conn.pgconn.exec_(b"SELECT 1")
    result = conn.pgconn.exec_("\n".join(statements).encode())
    if result.error_message:
        raise pg.Failure(result.error_message.decode())


def check_catalog(conn, names):
    """What the monitoring statements of the document say is true."""
    info = dict(pg.rows(conn, "SELECT pgt_name, status FROM pgtrickle.stream_tables_info"))
    if set(info) != set(names) or set(info.values()) != {"ACTIVE"}:
        raise pg.Failure(f"stream_tables_info: {info}")
    refreshes = dict(pg.rows(conn, "SELECT pgt_name, total_refreshes FROM pgtrickle.refresh_efficiency()"))
    for name in ("daily_totals", "by_region", "events_cleaned", "user_purchase_summary"):
        counted = pg.one(conn, "SELECT count(*) FROM pgtrickle.pgt_refresh_history h JOIN"
                               " pgtrickle.pgt_stream_tables s USING (pgt_id) WHERE pgt_name = %s"
                               " AND h.status = 'COMPLETED' AND h.action IN ('DIFFERENTIAL', 'FULL')", (name,))
        if not refreshes.get(name) or counted < 1:
            raise pg.Failure(f"{name}: {refreshes.get(name)} refreshes, {counted} in the history")
    modes = dict(pg.rows(conn, "SELECT pgt_name, refresh_mode FROM pgtrickle.pgt_stream_tables"))
    if modes["live_counter"] != "IMMEDIATE" or modes["daily_totals"] != "DIFFERENTIAL":
        raise pg.Failure(f"refresh modes: {modes}")
    tiers = dict(pg.rows(conn, "SELECT pgt_name, refresh_tier FROM pgtrickle.pgt_stream_tables"))
    expected = {"live_metrics": "hot", "hourly_report": "warm", "daily_analytics": "cold",
                "audit_log_summary": "frozen"}
    if {n: tiers[n] for n in expected} != expected:
        raise pg.Failure(f"tiers: {tiers}")
    recommended = pg.rows(conn, "SELECT pgt_name, current_mode, recommended_mode, confidence, reason"
                                " FROM pgtrickle.recommend_refresh_mode()")
    if {r[0] for r in recommended} != set(names) or not all(r[2] and r[4] for r in recommended):
        raise pg.Failure(f"recommend_refresh_mode: {recommended}")


def check_export(conn, name, query):
    """What export_definition says, fed back, makes the table anew."""
    columns = pg.visible_columns(conn, name)
    exported = pg.one(conn, "SELECT pgtrickle.export_definition(pgt_schema || '.' || pgt_name)"
                            " FROM pgtrickle.pgt_stream_tables WHERE pgt_name = %s", (name,))
    conn.execute("SELECT pgtrickle.drop_stream_table(%s)", (name,))
    if pg.one(conn, "SELECT to_regclass(%s) IS NOT NULL", (name,)):
        raise pg.Failure(f"{name} is still there after drop_stream_table")
    result = conn.pgconn.exec_(exported.encode())
    if result.error_message:
        raise pg.Failure(f"what export_definition said fails: {result.error_message.decode()}\n{exported}")
    if pg.visible_columns(conn, name) != columns:
        raise pg.Failure(f"{name} came back with other columns")
    pg.assert_equal(conn, name, query, "made from its exported definition")


@only(15)
def test_extraction(_world):
    """No statement of the document is lost, and the fillings are all used."""
    statements = script()
    text = "\n".join(statements)
    if "..." in text:
        raise pg.Failure("an ellipsis was not filled in")
    names = [definition(s)[0] for s in statements if (name_of(s) or ("",))[0] == "stream"]
    if len(names) != 16 or len(set(names)) != 16:
        raise pg.Failure(f"{len(names)} stream tables: {names}")
    if len(statements) != N_STATEMENTS + 1:
        raise pg.Failure(f"{len(statements)} statements in the script")


@smoke
def test_seed(world):
    statements = script()
    queries = dict(definition(s) for s in statements if (name_of(s) or ("",))[0] == "stream")
    seconds = {"customer_360": 50}
    manual = ("hourly_report", "daily_analytics", "audit_log_summary")
    ways = (("session", run_by_psql), ("transaction", run_by_psycopg), ("session", run_as_one_string))
    if world.version in (16, 17):
        ways = ways[:1]
    with contextlib.ExitStack() as databases:
        made = []
        for mode, run in ways:
            connect = databases.enter_context(world.database(mode))
            run(connect, statements)
            made.append((run.__name__, connect()))
        for how, conn in made:
            for name, query in queries.items():
                pg.assert_equal(conn, name, query, f"right after creation ({how})")
            for change in CHANGES:
                conn.execute(change)
                pg.assert_equal(conn, "live_counter", queries["live_counter"], f"after {change} ({how})")
        for how, conn in made:
            for name, query in queries.items():
                if name not in manual:
                    pg.wait_equal(conn, name, query, seconds.get(name, 30))
            if not pg.difference(conn, "audit_log_summary", queries["audit_log_summary"]):
                raise pg.Failure(f"a frozen stream table was refreshed ({how})")
            for name in manual:
                conn.execute("SELECT pgtrickle.refresh_stream_table(%s)", (name,))
                pg.assert_equal(conn, name, queries[name], f"refreshed by hand ({how})")
            check_catalog(conn, queries)
            for s in statements[-5:]:  # the monitoring statements again, now that there is something to see
                conn.execute(s)
            for name in ("by_product", "customers_current", "live_counter", "aggregate_state"):
                check_export(conn, name, queries[name])
            # The empty end: everything goes, and comes back.
            conn.execute("DELETE FROM orders")
            pg.assert_equal(conn, "live_counter", queries["live_counter"], f"empty ({how})")
            conn.execute("INSERT INTO orders (customer_id, region, product_id, amount) VALUES (1, 'north', 1, 1)")
            pg.assert_equal(conn, "live_counter", queries["live_counter"], f"refilled ({how})")
        for _, conn in made:
            for name in ("daily_totals", "by_region", "by_product", "order_monitor", "live_metrics"):
                pg.wait_equal(conn, name, queries[name], 30)
