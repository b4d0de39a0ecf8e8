#!/usr/bin/python3
"""make run: a private PostgreSQL, pgtrickle in front of it, orders flowing in, dashboards changing in place.

Ctrl-C ends it and removes all of it.  DEMO_SECONDS=n ends it after n seconds.  Without a terminal a frame
is printed every two seconds.
"""

import contextlib
import math
import os
import random
import shutil
import sys
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, ROOT)
sys.dont_write_bytecode = True

import psycopg  # noqa: E402

from tests.support import pg  # noqa: E402

DATABASE = "shop"
REGIONS = ["north", "south", "east", "west"]
BOLD, DIM, GREEN, YELLOW, CYAN, RESET = "\x1b[1m", "\x1b[2m", "\x1b[32m", "\x1b[33m", "\x1b[36m", "\x1b[0m"


class Orders(threading.Thread):
    """What happens in a shop: orders, corrections, returns, customers that move up a tier."""

    def __init__(self, daemon):
        super().__init__(daemon=True)
        self.stopping = threading.Event()
        self.connection = daemon.connect(DATABASE, application_name="shop")
        self.written = 0
        self.slowest_ms = 0.0
        self.error = None

    def run(self):
        rng = random.Random(1)
        began = time.monotonic()
        try:
            while not self.stopping.is_set():
                started = time.perf_counter()
                self.event(rng)
                self.slowest_ms = max(self.slowest_ms * 0.99, (time.perf_counter() - started) * 1000)
                self.written += 1
                busy = 1 + math.sin((time.monotonic() - began) / 7)  # it has its hours
                self.stopping.wait(rng.expovariate(8 + 20 * busy))
        except psycopg.Error as e:
            self.error = e

    def event(self, rng):
        form = rng.random()
        customer, region = rng.randint(1, 60), rng.choices(REGIONS, (5, 3, 2, 4))[0]
        if form < 0.85:
            self.connection.execute(
                "INSERT INTO orders (customer_id, region, product_id, amount) VALUES (%s, %s, %s, %s)",
                (customer, region, rng.randint(0, 11), round(rng.lognormvariate(3.5, 0.8), 2)))
        elif form < 0.92:
            self.connection.execute("UPDATE orders SET amount = amount * 0.9, region = %s"
                                    " WHERE id = (SELECT max(id) FROM orders WHERE customer_id = %s)", (region, customer))
        elif form < 0.98:
            self.connection.execute("DELETE FROM orders WHERE id = (SELECT max(id) FROM orders WHERE customer_id = %s)",
                                    (customer,))
        else:
            self.connection.execute("UPDATE customers SET tier = %s, updated_at = now() WHERE customer_id = %s",
                                    (rng.choice(["standard", "silver", "gold"]), customer))


# ---- drawing --------------------------------------------------------------------------------------


def plain_length(text):
    n, inside = 0, False
    for c in text:
        if c == "\x1b":
            inside = True
        elif not inside:
            n += 1
        elif c == "m":
            inside = False
    return n


def pad(text, width):
    return text + " " * max(0, width - plain_length(text))


def table(title, header, rows, widths, note=""):
    lines = [f"{BOLD}{title}{RESET} {DIM}{note}{RESET}"]
    lines.append(DIM + " ".join(h.ljust(w) if i == 0 else h.rjust(w)
                                for i, (h, w) in enumerate(zip(header, widths))) + RESET)
    for row in rows:
        cells = [str(c) for c in row]
        lines.append(" ".join(c[:w].ljust(w) if i == 0 else c.rjust(w)
                              for i, (c, w) in enumerate(zip(cells, widths))))
    return lines


def beside(left, right, width=56):
    n = max(len(left), len(right))
    left, right = left + [""] * (n - len(left)), right + [""] * (n - len(right))
    return [pad(a, width) + b for a, b in zip(left, right)]


def bar(value, top, width=14):
    return "\u2588" * max(0, round(width * float(value) / float(top or 1)))


class Screen:
    def __init__(self, connection, daemon, orders):
        self.connection = connection
        self.daemon = daemon
        self.orders = orders
        self.previous = {}
        self.definitions = pg.definitions(connection)
        self.behind = {}
        self.looked = 0.0
        self.began = time.monotonic()

    def rows(self, query):
        return self.connection.execute(query).fetchall()

    def changed(self, key, text):
        """Marks a value that is another than in the frame before."""
        old, self.previous[key] = self.previous.get(key, text), text
        return text if old == text else f"{YELLOW}{text}{RESET}"

    def count_differences(self):
        """How many rows differ from the query right now, in one snapshot: 0 at any moment for IMMEDIATE."""
        for name, query, _ in self.definitions:
            self.behind[name] = len(pg.difference(self.connection, name, query, limit=1000))

    def frame(self):
        if time.monotonic() - self.looked > 1:
            self.count_differences()
            self.looked = time.monotonic()
        n, total = self.rows("SELECT count(*), sum(amount) FROM orders")[0]
        seconds = time.monotonic() - self.began
        head = [
            f"{BOLD}{CYAN}pgtrickle{RESET}  stream tables in front of a plain PostgreSQL {self.connection.info.server_version // 10000}"
            f"   {DIM}{seconds:5.0f} s{RESET}",
            f"try it:  {BOLD}{pg.PSQL if not shutil.which('psql') else 'psql'} -h 127.0.0.1 -p {self.daemon.port}"
            f" -U postgres {DATABASE}{RESET}   {DIM}(Ctrl-C here ends everything){RESET}",
            f"orders {self.changed('n', str(n))}   written {self.orders.written}"
            f" ({self.orders.written / max(seconds, 1):.0f} statements/s, slowest of late {self.orders.slowest_ms:.1f} ms)"
            f"   turnover {total:,.2f}",
            "",
        ]
        live = self.rows("SELECT region, cnt, total FROM live_counter ORDER BY region")
        top = max((r[1] for r in live), default=1)
        live_panel = table("live_counter", ("region", "orders", "total", ""),
                           [(r, c, f"{t:,.2f}", bar(c, top)) for r, c, t in live], (8, 7, 13, 15),
                           "IMMEDIATE: in the writer's transaction")
        region_panel = table("by_region", ("region", "orders", "total"),
                             [(r, c, f"{t:,.2f}") for r, t, c in
                              self.rows("SELECT region, total, cnt FROM by_region ORDER BY region")], (8, 7, 13),
                             "every 5 s")
        daily_panel = table("daily_totals", ("day", "orders", "total"),
                            [(d, c, f"{t:,.2f}") for d, t, c in self.rows(
                                "SELECT order_date, daily_total, order_count FROM daily_totals ORDER BY 1 DESC LIMIT 4")],
                            (12, 7, 13), "every 5 s")
        monitor_panel = table("order_monitor", ("region", "today", "revenue"),
                              [(r, o, f"{v:,.2f}") for r, o, v in self.rows(
                                  "SELECT region, orders, revenue FROM order_monitor ORDER BY region")], (8, 7, 13),
                              "every second, today only")
        best_panel = table("customer_360", ("customer", "tier", "orders", "value"),
                           [(n, t, o, f"{v:,.2f}") for n, t, o, v in self.rows(
                               "SELECT name, tier, total_orders, lifetime_value FROM customer_360"
                               " ORDER BY lifetime_value DESC, customer_id LIMIT 5")], (14, 9, 7, 12),
                           "every 10 s; the best five")
        tier_panel = table("tier_totals", ("tier", "customers", "value"),
                           [(t, c, f"{v:,.2f}") for t, c, v in self.rows(
                               "SELECT tier, customers, value FROM tier_totals ORDER BY tier")], (9, 9, 14),
                           "over customer_360")
        return (head + beside(live_panel, region_panel) + [""] + beside(daily_panel, monitor_panel) + [""]
                + beside(best_panel, tier_panel) + [""] + self.status())

    def status(self):
        rows = []
        for name, mode, schedule, age, action, ms, changed, n in self.rows("""
                SELECT format('%I.%I', s.pgt_schema, s.pgt_name), s.refresh_mode, coalesce(s.schedule, 'calculated'),
                       extract(epoch FROM now() - s.last_refresh_at), h.action, h.duration_ms,
                       h.rows_inserted + h.rows_deleted + coalesce(h.rows_updated, 0),
                       (SELECT count(*) FROM pgtrickle.pgt_refresh_history c WHERE c.pgt_id = s.pgt_id
                        AND c.action <> 'NO_DATA')
                FROM pgtrickle.pgt_stream_tables AS s
                LEFT JOIN LATERAL (SELECT * FROM pgtrickle.pgt_refresh_history AS h
                                   WHERE h.pgt_id = s.pgt_id AND h.status = 'COMPLETED' AND h.action <> 'NO_DATA'
                                   ORDER BY h.refresh_id DESC LIMIT 1) AS h ON true
                ORDER BY s.pgt_id"""):
            behind = next((b for k, b in self.behind.items() if k.replace('"', "") == name), None)
            verdict = "in step" if behind == 0 else f"{behind} rows" if behind is not None else ""
            verdict = f"{GREEN if behind == 0 else YELLOW}{verdict:>9}{RESET}"
            immediate = mode == "IMMEDIATE"
            rows.append(" ".join([
                name.split(".", 1)[1].ljust(15), mode.ljust(13), ("-" if immediate else schedule).rjust(10),
                ("-" if immediate or age is None else f"{age:.1f} s").rjust(9),
                ("-" if immediate or ms is None else f"{ms:.1f} ms").rjust(10),
                ("-" if immediate or changed is None else str(changed)).rjust(8), str(n).rjust(9), verdict]))
        return [f"{BOLD}stream tables{RESET}", DIM + " ".join([
            "name".ljust(15), "mode".ljust(13), "schedule".rjust(10), "staleness".rjust(9), "refresh".rjust(10),
            "rows".rjust(8), "refreshes".rjust(9), "behind".rjust(9)]) + RESET, *rows]


def show(lines, terminal):
    if terminal:
        sys.stdout.write("\x1b[H" + "".join(line + "\x1b[K\n" for line in lines) + "\x1b[J")
    else:
        plain = "\n".join(lines)
        for code in (BOLD, DIM, GREEN, YELLOW, CYAN, RESET):
            plain = plain.replace(code, "")
        sys.stdout.write(plain + "\n\n")
    sys.stdout.flush()


def main():
    seconds = float(os.environ.get("DEMO_SECONDS", "inf"))
    terminal = sys.stdout.isatty()
    cluster = daemon = orders = None
    print("starting PostgreSQL and pgtrickle ...", flush=True)
    try:
        cluster = pg.Cluster(15).start()
        with cluster.connect() as admin:
            admin.execute(f"CREATE DATABASE {DATABASE}")
        daemon = pg.Daemon(cluster, "transaction", {"dvm_scheduler_interval_ms": 200}).start()
        pg.psql(daemon.port, DATABASE, args=("-q", "-f", os.path.join(ROOT, "bench", "demo", "shop.sql")))
        orders = Orders(daemon)
        screen = Screen(daemon.connect(DATABASE, application_name="dashboard"), daemon, orders)
        orders.start()
        if terminal:
            sys.stdout.write("\x1b[?25l\x1b[2J")
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            show(screen.frame(), terminal)
            if orders.error:
                raise orders.error
            time.sleep(max(0, min(0.5 if terminal else 2, deadline - time.monotonic())))
        show(screen.frame(), terminal)
    except KeyboardInterrupt:
        pass
    finally:
        if terminal:
            sys.stdout.write("\x1b[?25h\n")
        if orders is not None:
            orders.stopping.set()
            orders.join(5)
        for process in (daemon, cluster):
            if process is not None:
                with contextlib.suppress(pg.Failure):
                    process.stop()
    print("stopped.")


if __name__ == "__main__":
    main()
