"""The current time in any expression: what flips when it passes, found again by each refresh.  Every definition is
refreshed and compared inside of one transaction, so both see one now()."""

import random
import time

from tests.support import pg

TABLES = """
CREATE TABLE ev (id serial PRIMARY KEY, k int, at timestamptz, ts timestamp, d date, x int);
CREATE INDEX ON ev (at);
CREATE TABLE who (k int PRIMARY KEY, name text);
INSERT INTO who VALUES (0, 'a'), (1, 'b'), (2, NULL), (5, 'e');
INSERT INTO ev (k, at, ts, d, x) SELECT i % 4, now() + (i - 10) * interval '0.7 s', localtimestamp + (i - 9) * interval
    '0.8 s', CURRENT_DATE + i % 4 - 2, i FROM generate_series(1, 18) i;
"""

DEFINITIONS = [
    "SELECT id, now() AS t FROM ev",
    "SELECT id, now()::date - d AS days, d = CURRENT_DATE AS today FROM ev",
    "SELECT id, CASE WHEN at > now() - interval '3 s' THEN 'new' ELSE 'old' END AS s, age(ts) AS a FROM ev",
    "SELECT id FROM ev WHERE k = 1 OR at > now() - interval '3 s' OR ts < localtimestamp - interval '5 s'",
    "SELECT k, count(*) AS n FROM ev WHERE at BETWEEN now() - interval '4 s' AND now() - interval '2 s' GROUP BY k",
    "SELECT id, k FROM ev WHERE now() - at < interval '3 s' AND now()::date - d < 2",
    "SELECT k, sum(x) AS s FROM ev WHERE extract(epoch FROM now() - at) < 3 GROUP BY k",
    "SELECT id FROM ev WHERE interval '2.5 s' >= localtimestamp - ts",
    "SELECT k, count(*) FILTER (WHERE at > now() - interval '3 s') AS recent, sum(CASE WHEN at > now() THEN x END) AS s"
    " FROM ev GROUP BY k",
    "SELECT at > now() AS future, count(*) AS n FROM ev GROUP BY 1",
    "SELECT k, max(at) < now() AS gone FROM ev GROUP BY k HAVING max(at) > now() - interval '5 s'",
    "SELECT e.id, w.name FROM ev e JOIN who w ON w.k = e.k AND e.at > now() - interval '3 s'",
    "SELECT w.name, count(e.id) AS n FROM who w LEFT JOIN ev e ON w.k = e.k AND e.at > now() - interval '3 s'"
    " GROUP BY w.name",
    "SELECT id, count(*) OVER (PARTITION BY k, at > now() - interval '2 s') AS n, sum(CASE WHEN at > now() THEN 1 END)"
    " OVER (PARTITION BY k) AS f, row_number() OVER (ORDER BY at > now(), id) AS r FROM ev",
    "SELECT c.t, count(e.id) AS n FROM generate_series(date_trunc('second', now()) - interval '3 s',"
    " date_trunc('second', now()), interval '1 s') AS c(t) LEFT JOIN ev e ON date_trunc('second', e.at) = c.t GROUP BY 1",
    "SELECT DISTINCT k, at > now() AS f FROM ev",
    "SELECT id, generate_series(1, CASE WHEN at > now() THEN 2 ELSE 1 END) AS n FROM ev",
]


def change(rng):
    form = rng.random()
    k, by = rng.randint(0, 4), f"interval '{rng.uniform(-6, 6):.3f} s'"
    if form < 0.5:
        return (f"INSERT INTO ev (k, at, ts, d, x) VALUES ({k}, now() + {by}, localtimestamp + {by},"
                f" CURRENT_DATE + {rng.randint(-3, 3)}, {rng.randint(0, 9)})")
    if form < 0.75:
        return f"UPDATE ev SET at = at + {by}, k = {k} WHERE id % 7 = {rng.randint(0, 6)}"
    if form < 0.9:
        return f"DELETE FROM ev WHERE id % 9 = {rng.randint(0, 8)}"
    return f"UPDATE who SET name = 'n{k}' WHERE k = {rng.randint(0, 2)}"


def test_expressions(world):
    rng = random.Random(world.seed)
    with world.database() as connect:
        conn = connect()
        conn.execute(TABLES)
        for i, query in enumerate(DEFINITIONS):
            conn.execute(f"CREATE STREAM TABLE s{i} WITH (schedule = '1d', refresh_mode = 'DIFFERENTIAL') AS {query}")
        deadline = time.monotonic() + 4
        while time.monotonic() < deadline:
            for _ in range(rng.randint(0, 2)):
                conn.execute(change(rng))
            for i, query in enumerate(DEFINITIONS):
                with conn.transaction():
                    conn.execute(f"REFRESH STREAM TABLE s{i}")
                    pg.assert_equal(conn, f"s{i}", query, f"SEED={world.seed}")


def test_years_later(world):
    """The clock moves by months: the frontier's time is set back on contents that were right then."""
    definitions = ["SELECT id FROM old WHERE age(d) > interval '1 year 2 months'",
                   "SELECT id FROM old WHERE now() - d::timestamptz < interval '14 months'",
                   "SELECT id FROM old WHERE CURRENT_DATE - d > 300",
                   "SELECT y, count(*) AS n FROM (SELECT extract(year FROM age(d)) AS y FROM old) q GROUP BY y"]
    with world.database() as connect:
        conn = connect()
        admin = connect.direct()
        conn.execute("CREATE TABLE old (id int PRIMARY KEY, d date); CREATE INDEX ON old (d);"
                     "INSERT INTO old SELECT i, CURRENT_DATE - i FROM generate_series(1, 900) i")
        for i, query in enumerate(definitions):
            conn.execute(f"CREATE STREAM TABLE s{i} WITH (schedule = '1d', refresh_mode = 'DIFFERENTIAL') AS {query}")
            for back in ("40 days", "5 months", "1 year", "31 days"):
                then = f"(now() - interval '{back}')"
                text = query.replace("age(d)", "age(CURRENT_DATE::timestamptz, d)").replace("now()", then)
                text = text.replace("CURRENT_DATE", f"{then}::date")
                with admin.transaction():
                    admin.execute(f"DELETE FROM s{i}; INSERT INTO s{i} {text}")
                    admin.execute("UPDATE pgtrickle.pgt_stream_tables SET frontier_time = " + then
                                  + f" WHERE pgt_name = 's{i}'")
                pg.assert_equal(conn, f"s{i}", text, "the past")
                conn.execute(f"REFRESH STREAM TABLE s{i}")
                pg.assert_equal(conn, f"s{i}", query, f"{back} later")
