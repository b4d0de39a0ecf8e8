#!/usr/bin/python3
"""Differential refreshes beside REFRESH MATERIALIZED VIEW and deltas written by hand.

Starts a private PostgreSQL and a pgtrickle and measures, each in one run and interleaved:

  classes   one query of each class over so many orders, so many percent of them changed: the CPU time of the backend
            that refreshes, for each way (a stream table in DIFFERENTIAL, FULL and AUTO, the delta by hand,
            REFRESH MATERIALIZED VIEW with and without CONCURRENTLY)
  tpch      TPC-H's 22 queries after changes of every table, against REFRESH MATERIALIZED VIEW
  growth    the same 1,000 changes as the table grows
  idle      a refresh with nothing to do
  visible   from the COMMIT of a write to the moment when a reader sees it in the stream table
  capture   what capture costs the writer, for one row, 100 rows and many

Times are CPU time of the backend in milliseconds unless said otherwise; cells are medians of the rounds. Everything is
compared with its query at the end. A short run:
  bench/refresh.py --rows 100000 --rounds 1 --ratios 1 --scale 0.01 --sizes 10000,100000
Without --plots DIRECTORY (or with an empty one) no plots are written.
"""

import argparse
import os
import statistics
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)
sys.dont_write_bytecode = True

from bench import svg  # noqa: E402
from tests.support import pg, tpch  # noqa: E402

SETTINGS = {"shared_buffers": "2GB", "work_mem": "256MB", "maintenance_work_mem": "512MB", "jit": "off",
            "max_parallel_workers_per_gather": 0, "autovacuum": "off", "max_wal_size": "16GB",
            "checkpoint_timeout": "1h", "deadlock_timeout": "1s"}

# ---- the classes ----------------------------------------------------------------------------------

QUERIES = {
    "aggregate, 8 groups": "SELECT region8, count(*) AS cnt, sum(amount) AS total FROM orders GROUP BY region8",
    "aggregate": "SELECT region, count(*) AS cnt, sum(amount) AS total FROM orders GROUP BY region",
    "join+aggregate": "SELECT c.city, count(*) AS cnt, sum(o.amount) AS total FROM orders o"
                      " JOIN customers c ON c.id = o.customer_id GROUP BY c.city",
    "filter": "SELECT id, region, amount * 1.1 AS v FROM orders WHERE amount > 50",
    "latest per key": "SELECT DISTINCT ON (customer_id) customer_id, id, order_date, amount FROM orders"
                      " ORDER BY customer_id, order_date DESC, id DESC",
    "min max": "SELECT region, min(amount) AS mn, max(amount) AS mx FROM orders GROUP BY region",
    "window": "SELECT id, customer_id, amount, row_number() OVER (PARTITION BY customer_id ORDER BY amount DESC, id) AS rn"
              " FROM orders",
}
KEYS = {"aggregate, 8 groups": "region8", "aggregate": "region", "join+aggregate": "city", "filter": "id",
        "latest per key": "customer_id", "min max": "region", "window": "id"}


def _aggregate(key, rows):
    return [f"CREATE TEMP TABLE d ON COMMIT DROP AS SELECT {key} AS k, sum(s) AS c, sum(s * amount) AS t FROM {rows}"
            " GROUP BY 1 HAVING sum(s) <> 0 OR sum(s * amount) <> 0", "ANALYZE d",
            "INSERT INTO {st} SELECT * FROM d ON CONFLICT (" + key.split(".")[-1] + ") DO UPDATE SET"
            " cnt = {st}.cnt + EXCLUDED.cnt, total = {st}.total + EXCLUDED.total",
            "DELETE FROM {st} WHERE cnt = 0"]


# What a careful person writes. buf holds the changes with their weights s.
BY_HAND = {
    "aggregate, 8 groups": _aggregate("region8", "buf"),
    "aggregate": _aggregate("region", "buf"),
    "join+aggregate": _aggregate("c.city", "buf JOIN customers c ON c.id = buf.customer_id"),
    "filter": [
        "CREATE TEMP TABLE d ON COMMIT DROP AS SELECT id, bool_or(s > 0) AS live, max(region) FILTER (WHERE s > 0) AS region,"
        " max(amount * 1.1) FILTER (WHERE s > 0) AS v FROM (SELECT id, region, amount, sum(s) AS s FROM buf WHERE amount > 50"
        " GROUP BY 1, 2, 3 HAVING sum(s) <> 0) x GROUP BY id", "ANALYZE d",
        "DELETE FROM {st} USING d WHERE {st}.id = d.id AND NOT live",
        "INSERT INTO {st} SELECT id, region, v FROM d WHERE live ON CONFLICT (id) DO UPDATE SET region = EXCLUDED.region, v = EXCLUDED.v"],
    "latest per key": [
        "CREATE TEMP TABLE kk ON COMMIT DROP AS SELECT DISTINCT customer_id FROM buf", "ANALYZE kk",
        "CREATE TEMP TABLE d ON COMMIT DROP AS SELECT k.customer_id, l.id, l.order_date, l.amount FROM kk k LEFT JOIN LATERAL ("
        " SELECT id, order_date, amount FROM orders o WHERE o.customer_id = k.customer_id ORDER BY order_date DESC, id DESC LIMIT 1) l"
        " ON true", "ANALYZE d",
        "DELETE FROM {st} USING d WHERE {st}.customer_id = d.customer_id AND d.id IS NULL",
        "INSERT INTO {st} SELECT * FROM d WHERE id IS NOT NULL ON CONFLICT (customer_id) DO UPDATE SET id = EXCLUDED.id,"
        " order_date = EXCLUDED.order_date, amount = EXCLUDED.amount"
        " WHERE ({st}.id, {st}.order_date, {st}.amount) IS DISTINCT FROM (EXCLUDED.id, EXCLUDED.order_date, EXCLUDED.amount)"],
    "min max": [
        "CREATE TEMP TABLE dd ON COMMIT DROP AS SELECT region, min(amount) FILTER (WHERE s < 0) AS dmn, max(amount) FILTER (WHERE s < 0) AS dmx,"
        " min(amount) FILTER (WHERE s > 0) AS imn, max(amount) FILTER (WHERE s > 0) AS imx FROM buf GROUP BY 1", "ANALYZE dd",
        "CREATE TEMP TABLE kk ON COMMIT DROP AS SELECT dd.region FROM dd LEFT JOIN {st} st USING (region)"
        " WHERE st.region IS NULL OR dmn <= st.mn OR dmx >= st.mx", "ANALYZE kk",
        "CREATE TEMP TABLE d ON COMMIT DROP AS SELECT k.region, l.mn, l.mx FROM kk k LEFT JOIN (SELECT region, min(amount) AS mn, max(amount) AS mx"
        " FROM orders WHERE region IN (SELECT region FROM kk) GROUP BY 1) l USING (region) UNION ALL"
        " SELECT dd.region, least(st.mn, dd.imn), greatest(st.mx, dd.imx) FROM dd JOIN {st} st USING (region)"
        " WHERE dd.region NOT IN (SELECT region FROM kk) AND (imn < st.mn OR imx > st.mx)", "ANALYZE d",
        "DELETE FROM {st} USING d WHERE {st}.region = d.region AND d.mn IS NULL",
        "INSERT INTO {st} SELECT * FROM d WHERE mn IS NOT NULL ON CONFLICT (region) DO UPDATE SET mn = EXCLUDED.mn, mx = EXCLUDED.mx"
        " WHERE ({st}.mn, {st}.mx) IS DISTINCT FROM (EXCLUDED.mn, EXCLUDED.mx)"],
    "window": [
        "CREATE TEMP TABLE kk ON COMMIT DROP AS SELECT DISTINCT customer_id FROM buf", "ANALYZE kk",
        "CREATE TEMP TABLE d ON COMMIT DROP AS SELECT id, customer_id, amount, row_number() OVER (PARTITION BY customer_id"
        " ORDER BY amount DESC, id) AS rn FROM orders WHERE customer_id IN (SELECT customer_id FROM kk)", "ANALYZE d",
        "DELETE FROM {st} WHERE customer_id IN (SELECT customer_id FROM kk) AND NOT EXISTS (SELECT 1 FROM d WHERE d.id = {st}.id)",
        "INSERT INTO {st} SELECT * FROM d ON CONFLICT (id) DO UPDATE SET customer_id = EXCLUDED.customer_id, amount = EXCLUDED.amount,"
        " rn = EXCLUDED.rn WHERE ({st}.customer_id, {st}.amount, {st}.rn) IS DISTINCT FROM"
        " (EXCLUDED.customer_id, EXCLUDED.amount, EXCLUDED.rn)"],
}

SCHEMA = """
CREATE TABLE customers (id int PRIMARY KEY, name text, city text);
CREATE TABLE orders (id int PRIMARY KEY, customer_id int, region text, region8 text, amount numeric(10,2), order_date date);
CREATE FUNCTION make_orders(first int, last int, seed int, customers int, regions int) RETURNS SETOF orders LANGUAGE sql AS $$
    SELECT i, 1 + (hashint4(i + seed) & 2147483647) % customers, 'region ' || (hashint4(i * 3 + seed) & 2147483647) % regions,
           'r' || (hashint4(i * 5 + seed) & 2147483647) % 8, ((hashint4(i * 7 + seed) & 2147483647) % 10000) / 100.0,
           DATE '2025-01-01' + (hashint4(i * 11 + seed) & 2147483647) % 365 FROM generate_series(first, last) AS i $$;
CREATE TABLE buf (s int, id int, customer_id int, region text, region8 text, amount numeric(10,2), order_date date);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF TG_OP <> 'INSERT' THEN INSERT INTO buf SELECT -1, * FROM o; END IF;
    IF TG_OP <> 'DELETE' THEN INSERT INTO buf SELECT 1, * FROM n; END IF;
    RETURN NULL; END $$
"""
AFTER = """
CREATE INDEX ON orders (customer_id, order_date DESC, id DESC);
CREATE INDEX ON orders (region, amount);
CREATE TRIGGER note_i AFTER INSERT ON orders REFERENCING NEW TABLE AS n FOR EACH STATEMENT EXECUTE FUNCTION note();
CREATE TRIGGER note_d AFTER DELETE ON orders REFERENCING OLD TABLE AS o FOR EACH STATEMENT EXECUTE FUNCTION note();
CREATE TRIGGER note_u AFTER UPDATE ON orders REFERENCING OLD TABLE AS o NEW TABLE AS n FOR EACH STATEMENT EXECUTE FUNCTION note()
"""


def run_all(conn, script):
    for statement in script.split(";\n"):
        if statement.strip():
            conn.execute(statement)


def cpu_ms(conn):
    with open(f"/proc/{conn.info.backend_pid}/schedstat", encoding="ascii") as f:
        return int(f.read().split()[0]) / 1e6


def timed(conn, statements, together=True):
    """CPU milliseconds of the backend for the statements, in one transaction when together."""
    before = cpu_ms(conn)
    if together and "MATERIALIZED" not in statements[0]:
        conn.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")  # as the scheduler does
        for s in statements:
            conn.execute(s)
        conn.execute("COMMIT")
    else:
        for s in statements:
            conn.execute(s)
    return cpu_ms(conn) - before


def change(conn, rows, n, seed):
    """A third of n each: changed in every column, gone, new."""
    third = max(n // 3, 1)
    some = f"id IN (SELECT 1 + (hashint4(i + {seed}) & 2147483647) % {rows} FROM generate_series(1, {{}}) AS i)"
    conn.execute(f"UPDATE orders SET amount = amount + 1, region = 'region ' || (hashint4(id + {seed}) & 2147483647) % 10000"
                 f" WHERE {some.format(third)}")
    conn.execute(f"DELETE FROM orders WHERE {some.format(2 * third)} AND id % 2 = {seed % 2}")
    first = conn.execute("SELECT max(id) + 1 FROM orders").fetchone()[0]
    conn.execute(f"INSERT INTO orders SELECT * FROM make_orders({first}, {first + third - 1}, {seed},"
                 f" {max(rows // 10, 100)}, {min(rows // 100 + 1, 10000)})")


class Orders:
    """The base tables, and of each class a table for each way."""

    WAYS = ("differential", "by hand", "auto", "full", "matview", "concurrently")

    def __init__(self, server, name, rows, classes, ways=WAYS):
        self.rows, self.ways, self.classes = rows, ways, list(classes)
        with server.cluster.connect() as admin:
            admin.execute(f"CREATE DATABASE {name}")
        self.conn = server.daemon.connect(name)
        conn = self.conn
        for statement in SCHEMA.split(";\nCREATE "):
            conn.execute(statement if statement.strip().startswith("CREATE") else "CREATE " + statement)
        conn.execute(f"INSERT INTO customers SELECT i, 'customer ' || i, 'city ' || i % 1000 FROM generate_series(1, {max(rows // 10, 100)}) AS i")
        conn.execute(f"INSERT INTO orders SELECT * FROM make_orders(1, {rows}, 0, {max(rows // 10, 100)}, {min(rows // 100 + 1, 10000)})")
        run_all(conn, AFTER)
        conn.execute("ANALYZE")
        for i, c in enumerate(self.classes):
            for way, mode in (("differential", "DIFFERENTIAL"), ("auto", "AUTO"), ("full", "FULL")):
                if way in ways:
                    conn.execute(f"CREATE STREAM TABLE {way}{i} WITH (schedule = '1d', refresh_mode = '{mode}') AS {QUERIES[c]}")
            if "by hand" in ways:
                conn.execute(f"CREATE TABLE hand{i} AS {QUERIES[c]}")
                conn.execute(f"CREATE UNIQUE INDEX ON hand{i} ({KEYS[c]})")
                if c == "window":
                    conn.execute(f"CREATE INDEX ON hand{i} (customer_id)")
            for way in ("matview", "concurrently"):
                if way in ways:
                    conn.execute(f"CREATE MATERIALIZED VIEW {way}{i} AS {QUERIES[c]}")
                    conn.execute(f"CREATE UNIQUE INDEX ON {way}{i} ({KEYS[c]})")
        conn.execute("VACUUM ANALYZE")
        # The stream tables' backend is the scheduler's in life; here it is this one, so that its time can be told.
        self.backend = server.cluster.connect(name)

    def statements(self, i, way):
        if way in ("differential", "auto", "full"):
            return [f"SELECT pgtrickle.refresh_stream_table('{way}{i}')"]
        if way == "by hand":
            return [s.replace("{st}", f"hand{i}") for s in BY_HAND[self.classes[i]]]
        return [f"REFRESH MATERIALIZED VIEW {'CONCURRENTLY ' if way == 'concurrently' else ''}{way}{i}"]

    def measure(self, n, rounds, seed):
        """{class: {way: [ms]}} of n changed rows."""
        taken = {c: {w: [] for w in self.ways} for c in self.classes}
        for r in range(rounds):
            self.conn.execute("TRUNCATE buf")
            change(self.conn, self.rows, n, seed + r)
            self.conn.execute("ANALYZE buf")
            for i, c in enumerate(self.classes):
                ways = self.ways[r % len(self.ways):] + self.ways[:r % len(self.ways)]
                for way in ways:
                    taken[c][way].append(timed(self.backend, self.statements(i, way)))
        self.conn.execute("VACUUM ANALYZE orders")
        return taken

    def check(self):
        for i, c in enumerate(self.classes):
            for way in self.ways:
                table = f"{'hand' if way == 'by hand' else way}{i}"
                pg.assert_equal(self.conn, table, QUERIES[c], f"in the end ({way})")

    def close(self):
        self.conn.close()
        self.backend.close()


class Server:
    def __init__(self, version):
        self.cluster = pg.Cluster(version, settings=SETTINGS).start()
        self.daemon = pg.Daemon(self.cluster, "session", {"query_timeout": 0}).start()

    def stop(self):
        self.daemon.stop()
        self.cluster.stop()


def median(values):
    return statistics.median(values) if values else float("nan")


def table(header, rows):
    print("| " + " | ".join(header) + " |")
    print("| --- |" + " --: |" * (len(header) - 1))
    for row in rows:
        print("| " + " | ".join(str(v) for v in row) + " |")
    print(flush=True)


def ms(value):
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


# ---- what is measured -----------------------------------------------------------------------------


def classes(server, options):
    print(f"## Classes, {options.rows} orders\n")
    orders = Orders(server, "classes", options.rows, QUERIES)
    orders.measure(options.rows // 1000, 1, 5)  # plans, pages
    rows, plots = [], {}
    for n_ratio, ratio in enumerate(options.ratios):
        taken = orders.measure(max(int(options.rows * ratio / 100), 1), options.rounds, 1000 * (n_ratio + 1))
        for c, ways in taken.items():
            m = {w: median(v) for w, v in ways.items()}
            plots.setdefault(c, {}).setdefault(ratio, m)
            rows.append([c, f"{ratio:g} %", *(ms(m[w]) for w in orders.ways), f"{m['differential'] / m['by hand']:.2f}",
                         f"{m['auto'] / min(m['differential'], m['full']):.2f}", f"{m['matview'] / m['differential']:.1f}"])
    table(["class", "changed", *(f"{w} ms" for w in orders.ways), "differential / by hand", "auto / better way", "matview / differential"], rows)
    orders.check()
    orders.close()
    if options.plots:
        for c, ratios in plots.items():
            svg.lines(os.path.join(options.plots, f"class-{c.replace(', ', '-').replace('+', '-').replace(' ', '-')}.svg"),
                      f"{c}: {options.rows} rows", "changed rows, percent", "CPU ms of a refresh",
                      {w: [(r, max(m[w], 0.01)) for r, m in ratios.items()] for w in orders.ways})


def growth(server, options):
    print("## The same 1,000 changes as the table grows\n")
    rows, series = [], {}
    for size in options.sizes:
        orders = Orders(server, f"growth_{size}", size, QUERIES, ("differential",))
        orders.measure(1000, 1, 5)
        taken = orders.measure(1000, max(options.rounds, 3), 77)
        for c in QUERIES:
            series.setdefault(c, []).append((size, median(taken[c]["differential"])))
        orders.check()
        orders.close()
    for c, points in series.items():
        rows.append([c, *(ms(v) for _, v in points), f"{points[-1][1] / points[0][1]:.2f}"])
    table(["class", *(f"{s} rows, ms" for s in options.sizes), "last / first"], rows)
    if options.plots:
        svg.lines(os.path.join(options.plots, "growth.svg"), "1,000 changes", "rows", "CPU ms of a refresh", series)


def tpc_h(server, options):
    print(f"## TPC-H, scale {options.scale:g}, {options.tpch_percent:g} % of the orders and lines changed\n")
    with server.cluster.connect() as admin:
        admin.execute("CREATE DATABASE tpch")
    conn = server.daemon.connect("tpch")
    for statement in tpch.fill(options.scale):
        conn.execute(statement)
    conn.execute("VACUUM ANALYZE")
    queries = tpch.queries(options.scale)
    refused = {}
    for name, query in queries.items():
        try:
            conn.execute(f"CREATE STREAM TABLE {name} WITH (schedule = '1d', refresh_mode = 'DIFFERENTIAL') AS {query}")
        except Exception as e:
            refused[name] = str(e).splitlines()[0]
        conn.execute(f"CREATE MATERIALIZED VIEW {name}_mv AS {query}")
    backend = server.cluster.connect("tpch")
    n = max(int(tpch.Sizes(options.scale).orders * options.tpch_percent / 100 / 4), 1)
    taken = {name: ([], []) for name in queries if name not in refused}
    for cycle in range(options.rounds + 1):
        for group in [*tpch.refresh_functions(options.scale, cycle, n), *tpch.large_updates(options.scale, cycle, n)]:
            with conn.transaction():
                for statement in group:
                    conn.execute(statement)
        conn.execute("ANALYZE")
        for name, (ours, theirs) in taken.items():
            a = timed(backend, [f"SELECT pgtrickle.refresh_stream_table('{name}')"])
            b = timed(backend, [f"REFRESH MATERIALIZED VIEW {name}_mv"])
            if cycle > 0:  # the first one plans and warms
                ours.append(a)
                theirs.append(b)
    for name in taken:
        pg.assert_equal(conn, name, queries[name], "in the end")
    rows, faster = [], {}
    for name, (ours, theirs) in taken.items():
        faster[name] = median(theirs) / median(ours)
        rows.append([name, ms(median(ours)), ms(median(theirs)), f"{faster[name]:.2f}"])
    table(["query", "differential ms", "REFRESH MATERIALIZED VIEW ms", "times faster"], rows)
    print(f"{sum(v > 1 for v in faster.values())} of {len(queries)} faster than the full query, "
          f"the slowest at {1 / min(faster.values()):.2f} of its time; refused: {refused or 'none'}\n", flush=True)
    backend.close()
    conn.close()
    if options.plots:
        svg.bars(os.path.join(options.plots, "tpch.svg"), f"TPC-H, scale {options.scale:g}, {options.tpch_percent:g} % changed",
                 "times faster than REFRESH MATERIALIZED VIEW", faster, 1)


def idle(server, options):
    print("## A refresh with nothing to do\n")
    orders = Orders(server, "idle", min(options.rows, 100000), ["aggregate", "join+aggregate", "filter"], ("differential",))
    rows = []
    for i, c in enumerate(orders.classes):
        wall = []
        for _ in range(200):
            started = time.perf_counter()
            orders.backend.execute(orders.statements(i, "differential")[0])
            wall.append(1000 * (time.perf_counter() - started))
        rows.append([c, f"{median(wall):.2f}", f"{sorted(wall)[197]:.2f}"])
    table(["class", "ms (wall clock), median", "p99"], rows)
    orders.close()


def visible(server, options):
    print("## From COMMIT to visible\n")
    with server.cluster.connect() as admin:
        admin.execute("CREATE DATABASE visible")
    conn = server.daemon.connect("visible")
    conn.execute("CREATE TABLE events (id serial PRIMARY KEY, kind int)")
    rows = []
    for label, settings in (("IMMEDIATE", "refresh_mode = 'IMMEDIATE'"), ("schedule 1s", "schedule = '1s', refresh_mode = 'DIFFERENTIAL'")):
        conn.execute(f"CREATE STREAM TABLE seen WITH ({settings}) AS SELECT count(*) AS n FROM events")
        delays = []
        for _ in range(options.rounds * 5):
            n = pg.one(conn, "SELECT n FROM seen")
            conn.execute("INSERT INTO events (kind) VALUES (1)")
            started = time.perf_counter()
            while pg.one(conn, "SELECT n FROM seen") == n:
                pass
            delays.append(1000 * (time.perf_counter() - started))
        conn.execute("DROP STREAM TABLE seen")
        rows.append([label, ms(median(delays)), ms(max(delays))])
    table(["mode", "ms (wall clock), median", "most"], rows)
    conn.close()


def capture(server, options):
    print("## What capture costs the writer\n")
    with server.cluster.connect() as admin:
        admin.execute("CREATE DATABASE capture")
    conn = server.daemon.connect("capture")
    for t in ("plain", "captured"):
        conn.execute(f"CREATE TABLE {t} (id int PRIMARY KEY, k int, v numeric, note text)")
    conn.execute("CREATE STREAM TABLE st WITH (schedule = '1d', refresh_mode = 'DIFFERENTIAL') AS SELECT k, count(*) AS n, sum(v) AS s"
                 " FROM captured GROUP BY k")
    backend = server.cluster.connect("capture")
    rows = []
    first = 0
    for n, times in ((1, 2000), (100, 100), (options.rows // 10, 1)):
        taken = {"plain": [], "captured": []}
        for _ in range(max(options.rounds, 3)):
            for t in taken:
                statements = [f"INSERT INTO {t} SELECT i, i % 100, i, 'note' FROM generate_series({first + k * n}, {first + (k + 1) * n - 1}) AS i"
                              for k in range(times)]
                taken[t].append(timed(backend, statements, together=False) * 1000 / (n * times))
            first += n * times
            pg.one(backend, "SELECT pgtrickle.refresh_stream_table('st')")
        plain, captured = (median(taken[t]) for t in ("plain", "captured"))
        rows.append([f"{n} rows a statement", f"{plain:.2f}", f"{captured:.2f}", f"{captured / plain:.2f}"])
    table(["INSERT", "plain, us a row", "captured, us a row", "ratio"], rows)
    backend.close()
    conn.close()


PARTS = {"classes": classes, "tpch": tpc_h, "growth": growth, "idle": idle, "visible": visible, "capture": capture}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=lambda s: s.split(","), default=list(PARTS))
    parser.add_argument("--pg", type=int, default=15)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ratios", type=lambda s: [float(r) for r in s.split(",")], default=[0.01, 0.1, 1, 10, 50])
    parser.add_argument("--scale", type=float, default=0.1)
    parser.add_argument("--tpch-percent", type=float, default=1)
    parser.add_argument("--sizes", type=lambda s: [int(n) for n in s.split(",")], default=[100_000, 1_000_000])
    parser.add_argument("--plots", default="")
    options = parser.parse_args()
    server = Server(options.pg)
    with server.cluster.connect() as conn:
        print(f"PostgreSQL {conn.info.server_version // 10000}, {os.cpu_count()} cores, medians of {options.rounds} rounds\n")
    for part in options.parts:
        PARTS[part](server, options)
    server.stop()


if __name__ == "__main__":
    main()
