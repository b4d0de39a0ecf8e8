#!/usr/bin/python3
"""pgtrickle beside PgBouncer: what a transaction through each costs, and what an idle client does.

Starts a private PostgreSQL, a PgBouncer and a pgtrickle with the same configuration (trust, transaction
mode, a pool of 8) and lets `pgbench -S` run against each in turn; direct is the floor.  Rounds are
interleaved, so that a busy minute of the machine hits all alike; throughput and latencies are medians,
CPU time is that of the round that was disturbed least.  A few stream tables are kept in the database all
the while.

  mode        pgbench's -M; connect: simple, with a connection for each transaction (-C)
  tps         transactions per second
  p50, p99    latency of a transaction in milliseconds, from pgbench's log
  cpu us      CPU time of the proxy for a transaction, user and system, all threads
  rss         resident bytes that an idle client adds, at 1,000 and 10,000 clients
  bulk        CPU milliseconds of the proxy for a big result or COPY through psql

PGBOUNCER=PROGRAM is compared with (default: the one in the PATH or of Debian); PGTRICKLE=PROGRAM is
measured (default: build/pgtrickle).  A short run:
  bench/pooler.py --seconds 1 --rounds 1 --clients 16 --modes simple --idle 1000
"""

import argparse
import contextlib
import glob
import os
import re
import resource
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)
sys.dont_write_bytecode = True

from tests.support import pg  # noqa: E402

DATABASE = "bench"
POOL_SIZE = 8
NOTHING = "no transaction within the time"
MODES = ("simple", "extended", "prepared", "connect")
BULK = {
    "COPY TO, rows of 1 kB": "COPY (SELECT repeat('x', 1000) FROM generate_series(1, 200000)) TO STDOUT",
    "SELECT, rows of 100 bytes": "SELECT repeat('x', 100) FROM generate_series(1, 500000)",
    "COPY FROM, rows of 1 kB": "COPY bulk FROM STDIN",
}
STREAM_TABLES = {
    "by_branch": "SELECT bid, count(*) AS n, sum(abalance) AS balance FROM pgbench_accounts GROUP BY bid",
    "overdrawn": "SELECT aid, abalance FROM pgbench_accounts WHERE abalance < 0",
    "tellers": "SELECT t.tid, b.bid, t.tbalance + b.bbalance AS both"
               " FROM pgbench_tellers t JOIN pgbench_branches b USING (bid)",
}


def find_pgbouncer():
    for program in (os.environ.get("PGBOUNCER"), shutil.which("pgbouncer"), "/usr/sbin/pgbouncer"):
        if program and os.path.exists(program):
            return program
    raise SystemExit("no PgBouncer to compare with: apt-get install pgbouncer, or PGBOUNCER=PROGRAM")


class Bouncer(pg.Daemon):
    """PgBouncer behind the same interface."""

    def __init__(self, cluster, program, settings):
        self.program = program
        version = subprocess.run([program, "--version"], stdout=subprocess.PIPE, text=True, check=True,
                                 cwd="/").stdout
        self.version = tuple(int(n) for n in re.search(r"(\d+)\.(\d+)", version).groups())
        if self.version >= (1, 21):
            settings = {**settings, "max_prepared_statements": 200}
        super().__init__(cluster, "transaction", {**settings, "dvm_scheduler_interval_ms": None})
        with open(self.ini_path, encoding="utf-8") as f:
            text = f.read()
        with open(self.ini_path, "w", encoding="utf-8") as f:
            f.write(text.replace("[pgtrickle]", "[pgbouncer]"))

    def start(self):
        self._spawn([self.program, self.ini_path])
        pg.wait_until(self._answers, 30, lambda: "PgBouncer listens\n" + self.log()[-2000:])
        return self


class Target:
    """A port to run pgbench against, and the process whose CPU time and memory are looked at."""

    def __init__(self, name, port, process=None, tracks_statements=True):
        self.name = name
        self.port = port
        self.process = process
        self.tracks_statements = tracks_statements

    def cpu_seconds(self):
        """Of all threads; to the nanosecond, where /proc/PID/stat counts in ticks of 10 ms."""
        if self.process is None:
            return 0.0
        used = 0
        for path in glob.glob(f"/proc/{self.process.pid}/task/*/schedstat"):
            with contextlib.suppress(FileNotFoundError):
                with open(path, encoding="utf-8") as f:
                    used += int(f.read().split()[0])
        return used / 1e9

    def rss(self):
        with open(f"/proc/{self.process.pid}/status", encoding="utf-8") as f:
            return int(re.search(r"VmRSS:\s+(\d+) kB", f.read()).group(1)) * 1024


def settings_of(options):
    return {
        "max_client_conn": options.idle[-1] + 1000 if options.idle else 1000,
        "default_pool_size": POOL_SIZE,
        "log_connections": 0,
        "log_disconnections": 0,
        "server_idle_timeout": 3600,
        "dvm_scheduler_interval_ms": None,
    }


def knows_worker_threads():
    done = subprocess.run(["grep", "-c", "worker_threads", os.path.join(ROOT, "proxy", "config_keys.h")],
                          stdout=subprocess.PIPE, text=True, check=False)
    return done.returncode == 0


# ---- transactions ---------------------------------------------------------------------------------


def pgbench(target, mode, clients, seconds):
    """(tps, latencies in ms, CPU microseconds a transaction), or why not."""
    place = pg.new_directory(f"log-{target.name}-{mode}-{clients}".replace(" ", "-"))
    prefix = os.path.join(place, "log")
    argv = [pg.PGBENCH, "-n", "-S", "-h", "127.0.0.1", "-p", str(target.port), "-U", "postgres",
            *(("-M", "simple", "-C") if mode == "connect" else ("-M", mode)), "-c", str(clients), "-j", "1", "-T", str(seconds), "-l",
            "--log-prefix", prefix, "--sampling-rate", "0.1", DATABASE]
    before = target.cpu_seconds()
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               **pg._as_account())
    try:
        output, _ = process.communicate(timeout=seconds + 20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return "hangs"
    used = target.cpu_seconds() - before
    try:
        if process.returncode != 0:
            return "fails: " + (re.search(r"error: .*", output) or re.search(r".*", output)).group(0)
        count = int(re.search(r"transactions actually processed: (\d+)", output).group(1))
        if count == 0:
            return NOTHING
        tps = float(re.search(r"tps = ([\d.]+)", output).group(1))
        latencies = []
        for path in glob.glob(prefix + "*"):
            with open(path, encoding="utf-8") as f:
                latencies += [int(line.split()[2]) / 1000 for line in f]
        return tps, sorted(latencies), used / count * 1e6
    finally:
        shutil.rmtree(place, ignore_errors=True)


def percentile(values, p):
    return values[min(len(values) - 1, int(len(values) * p))] if values else float("nan")


def measure(targets, mode, clients, options):
    """A row for each target: medians over the rounds."""
    runs = {t: [] for t in targets}
    failed = {}
    for _ in range(options.rounds):
        for t in targets:
            if t in failed:
                continue
            if mode == "prepared" and not t.tracks_statements:
                failed[t] = "no prepared statements in transaction mode"
                continue
            if t.process is None and clients > 100:
                failed[t] = "more clients than the server takes"
                continue
            result = pgbench(t, mode, clients, options.seconds)
            if result == NOTHING:
                continue  # a busy machine: other rounds tell
            if isinstance(result, str):
                failed[t] = result
            else:
                runs[t].append(result)
    for t in targets:
        if t not in failed and not runs[t]:
            failed[t] = NOTHING
    base = next((t for t in targets if t.name.startswith("pgbouncer") and t not in failed), None)
    base_cpu = min(r[2] for r in runs[base]) if base else None
    base_tps = statistics.median(r[0] for r in runs[base]) if base else None
    for t in targets:
        cells = [mode, str(clients), t.name]
        if t in failed:
            print_row([*cells, failed[t], "", "", "", "", ""])
            continue
        tps = statistics.median(r[0] for r in runs[t])
        cpu = min(r[2] for r in runs[t])
        cells += [f"{tps:.0f}", f"{statistics.median(percentile(r[1], 0.50) for r in runs[t]):.2f}",
                  f"{statistics.median(percentile(r[1], 0.99) for r in runs[t]):.2f}"]
        if t.process is None:
            cells += ["", "", ""]
        else:
            cells += [f"{cpu:.1f}", f"{cpu / base_cpu:.2f}" if base else "",
                      f"{tps / base_tps:.2f}" if base else ""]
        print_row(cells)


def print_row(cells):
    print("| " + " | ".join(cells) + " |", flush=True)


# ---- big results -----------------------------------------------------------------------------------


def bulk(targets, options):
    rows = os.path.join(pg.place(), "rows")
    with open(rows, "w", encoding="utf-8") as f:
        f.writelines(["x" * 1000 + "\n"] * 200000)
    print_row(["", *(t.name for t in targets)])
    print_row(["---", *("--:" for _ in targets)])
    for name, statement in BULK.items():
        used = {t: [] for t in targets}  # as above, the least of the rounds is shown
        for _ in range(options.rounds):
            for t in targets:
                with pg.connect(t.port, DATABASE) as conn:
                    conn.execute("TRUNCATE bulk")
                before = t.cpu_seconds()
                with open(rows, "rb") as f:
                    subprocess.run([pg.PSQL, "-X", "-q", "-At", "-h", "127.0.0.1", "-p", str(t.port), "-U",
                                    "postgres", "-d", DATABASE, "-c", statement], stdin=f,
                                   stdout=subprocess.DEVNULL, check=True)
                used[t].append(t.cpu_seconds() - before)
        print_row([name, *(f"{min(used[t]) * 1000:.0f}" for t in targets)])


# ---- idle clients ---------------------------------------------------------------------------------


def connect_idle(port):
    s = socket.create_connection(("127.0.0.1", port), 20)
    body = struct.pack("!i", 196608) + b"user\0postgres\0database\0" + DATABASE.encode() + b"\0\0"
    s.sendall(struct.pack("!i", len(body) + 4) + body)
    received = b""
    while not (len(received) >= 6 and received[-6:-1] == b"Z\0\0\0\x05"):
        more = s.recv(4096)
        if not more:
            raise pg.Failure(f"the login of an idle client failed: {received!r}")
        received += more
    return s


def idle_clients(start, counts):
    """Resident bytes for each idle client, in a process of its own that has served a few already."""
    target = start()
    with contextlib.ExitStack() as stack:
        warm = [connect_idle(target.port) for _ in range(10)]
        for s in warm:
            s.close()
        empty = target.rss()
        cells = [target.name, f"{empty / 1e6:.1f}"]
        n = 0
        for count in counts:
            while n < count:
                stack.callback(connect_idle(target.port).close)
                n += 1
            cells.append(f"{(target.rss() - empty) / count:.0f}")
        print_row(cells)
    target.process.send_signal(signal.SIGQUIT)
    target.process.wait()


# ---- all of it ------------------------------------------------------------------------------------


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=4, help="of each run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", default="1,16,64,256")
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--idle", default="1000,10000", help="idle clients to measure memory at; 0 or empty: not")
    parser.add_argument("--no-bulk", action="store_true")
    parser.add_argument("--no-direct", action="store_true")
    options = parser.parse_args()
    options.clients = [int(n) for n in options.clients.split(",") if n]
    options.modes = [m for m in options.modes.split(",") if m]
    options.idle = sorted(n for n in map(int, filter(None, options.idle.split(","))) if n > 0)

    needed = (options.idle[-1] if options.idle else 0) + 1500
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise SystemExit(f"{needed} open files are needed, {hard} are allowed (ulimit -n)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))

    program = find_pgbouncer()
    settings = settings_of(options)
    threads = (1, 2) if knows_worker_threads() else (None,)
    cluster = pg.Cluster(settings={"max_connections": 200, "shared_buffers": "256MB"}).start()
    with cluster.connect() as admin:
        admin.execute(f"CREATE DATABASE {DATABASE} TEMPLATE template0")
    subprocess.run([pg.PGBENCH, "-i", "-q", "-s", "5", "-h", "127.0.0.1", "-p", str(cluster.port), "-U",
                    "postgres", DATABASE], check=True, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL, **pg._as_account())

    def start_bouncer():
        b = Bouncer(cluster, program, settings).start()
        version = ".".join(map(str, b.version))
        return Target(f"pgbouncer {version}", b.port, b.process, b.version >= (1, 21))

    def start_pgtrickle(n):
        more = {} if n is None else {"worker_threads": n}
        d = pg.Daemon(cluster, "transaction", {**settings, **more}).start()
        return Target("pgtrickle" if n is None else f"pgtrickle, {n} thread" + "s" * (n > 1), d.port,
                      d.process)

    targets = [] if options.no_direct else [Target("direct", cluster.port)]
    targets += [start_bouncer()] + [start_pgtrickle(n) for n in threads]
    with pg.connect(targets[-1].port, DATABASE) as conn:
        for name, query in STREAM_TABLES.items():
            conn.execute(f"CREATE STREAM TABLE {name} AS {query}")
        conn.execute("CREATE UNLOGGED TABLE bulk (line text)")

    if options.modes and options.clients:
        print(f"pgbench -S, pool of {POOL_SIZE}, transaction mode, {options.rounds} rounds of "
              f"{options.seconds} s\n")
        print_row(["mode", "clients", "through", "tps", "p50 ms", "p99 ms", "cpu us", "cpu ratio",
                   "tps ratio"])
        print_row(["---", "--:", "---", "--:", "--:", "--:", "--:", "--:", "--:"])
        for mode in options.modes:
            for clients in options.clients:
                measure(targets, mode, clients, options)
    if not options.no_bulk:
        print("\nCPU milliseconds for 200 MB, 50 MB, 200 MB\n")
        bulk([t for t in targets if t.process is not None], options)
    if options.idle:
        print("\nresident memory\n")
        print_row(["", "no client (MB)", *(f"bytes for each of {n}" for n in options.idle)])
        print_row(["---", *("--:" for _ in range(1 + len(options.idle)))])
        for start in (start_bouncer, *(lambda n=n: start_pgtrickle(n) for n in threads)):
            idle_clients(start, options.idle)


if __name__ == "__main__":
    main()
