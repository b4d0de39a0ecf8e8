"""What tests/run and the test modules share: worlds, marks, the line per test.

A test is a function test_*(world) of tests/pg/test_*.py or tests/clients/test_*.py.  A world is a
cluster of one version and the daemons in front of it, shared by the tests of that version; each test
takes a database of its own from it.  Where only this test may use the server (it kills it), the test
starts a Cluster itself.
"""

import contextlib
import faulthandler
import json
import os
import threading
import time
import traceback

from tests.support import pg


class Skip(Exception):
    """Why a test cannot run on this machine."""


def smoke(function):
    """Marks a test that runs on the versions of --smoke as well."""
    function.smoke = True
    return function


def only(*versions):
    """Marks a test that has nothing to do with the version of the server: it runs on these."""
    def mark(function):
        function.versions = versions
        return function
    return mark


@contextlib.contextmanager
def daemon(world, **options):
    """A daemon of the test's own in front of the world's cluster."""
    d = pg.Daemon(world.cluster, **options).start()
    try:
        yield d
    except BaseException:
        d.kill()
        raise
    d.stop()


class World:
    """One PostgreSQL version."""

    def __init__(self, version, seconds, seed):
        self.version = version
        self.seconds = seconds  # how long a randomized test may look for trouble
        self.seed = seed
        self.cluster = None
        self.daemons = {}
        self.n_databases = 0
        self.marks = []

    def start(self):
        self.cluster = pg.Cluster(self.version)
        self.cluster.start()
        with self.cluster.connect() as conn:
            for role in pg.USERS:
                if role != "postgres":
                    conn.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{pg.PASSWORD}'")

    def daemon(self, pool_mode="session"):
        """The running daemon with this pool mode; a new one if it has died."""
        d = self.daemons.get(pool_mode)
        if d is None or not d.is_running():
            d = self.daemons[pool_mode] = pg.Daemon(self.cluster, pool_mode).start()
        return d

    @contextlib.contextmanager
    def database(self, pool_mode="session"):
        """A new database: yields connect(user=..., **options), which goes through the daemon.
        connect.direct() goes around it; connect.name, connect.port are for programs."""
        self.n_databases += 1
        name = f"t{self.n_databases}"
        daemon = self.daemon(pool_mode)
        with self.cluster.connect() as admin:
            admin.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        opened = []

        def connect(user="postgres", **options):
            conn = daemon.connect(name, user, **options)
            opened.append(conn)
            return conn

        def direct(user="postgres", **options):
            conn = self.cluster.connect(name, user, **options)
            opened.append(conn)
            return conn

        connect.direct = direct
        connect.name = name
        connect.port = daemon.port
        connect.daemon = daemon
        try:
            yield connect
        finally:
            for conn in opened:
                with contextlib.suppress(Exception):
                    conn.close()
            with self.cluster.connect() as admin:
                admin.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def mark_logs(self):
        processes = [self.cluster, *self.daemons.values()] if self.cluster else []
        self.marks = [(p, p.log_size()) for p in processes]

    def logs_since_mark(self, lines=25):
        known = dict(self.marks)
        text = ""
        for p in [self.cluster, *self.daemons.values()]:
            if p is not None:
                # What the end of the test's database does to what is still connected tells nothing.
                tail = [line for line in p.log(known.get(p, 0)).splitlines()
                        if "due to administrator command" not in line][-lines:]
                text += f"--- {type(p).__name__} {p.log_path}\n" + "\n".join(tail) + "\n"
        return text

    def dead(self):
        """Names and ends of the processes that should run and do not."""
        found = [f"pgtrickle ({mode}) ended with {d.process.returncode}"
                 for mode, d in self.daemons.items() if not d.is_running()]
        if self.cluster is not None and not self.cluster.is_running():
            found.append("PostgreSQL is down")
        return "; ".join(found)

    def stop(self):
        problems = []
        for d in self.daemons.values():
            try:
                d.stop()
            except pg.Failure as e:
                problems.append(str(e))
        if self.cluster is not None:
            self.cluster.stop()
        if problems:
            raise pg.Failure("\n".join(problems))


class Report:
    """Counts, and one line per test."""

    def __init__(self):
        self.counts = {"ok": 0, "FAIL": 0, "skip": 0}
        self.failures = []
        self.lock = threading.Lock()

    def ok(self, name, seconds=None):
        self.record("ok", name, seconds)

    def skip(self, name, why):
        self.record("skip", f"{name}: {why}")

    def fail(self, name, details, seconds=None):
        self.record("FAIL", name, seconds, details)

    def record(self, verdict, name, seconds=None, details=""):
        took = f"  ({seconds:.1f} s)" if seconds is not None and seconds >= 0.1 else ""
        lines = [f"{verdict:4} {name}{took}"] + ["    " + line for line in details.rstrip().splitlines()]
        with self.lock:
            self.counts[verdict] += 1
            if verdict == "FAIL":
                self.failures.append(name)
            print("\n".join(lines), flush=True)

    def total(self):
        if self.failures:
            print("failed: " + ", ".join(self.failures))
        print(f"{self.counts['ok']} passed, {self.counts['FAIL']} failed, {self.counts['skip']} skipped",
              flush=True)
        return 1 if self.failures else 0


class PipedReport(Report):
    """Hands its records to the run that started this one."""

    def __init__(self, fd):
        super().__init__()
        self.out = os.fdopen(fd, "w")

    def record(self, verdict, name, seconds=None, details=""):
        json.dump([verdict, name, seconds, details], self.out)
        self.out.write("\n")
        self.out.flush()

    def total(self):
        return 0


HANGS_SECONDS = 240


def run_test(report, name, function, world):
    world.mark_logs()
    started = time.monotonic()
    # Where it hangs is worth more than the tests behind it.
    faulthandler.dump_traceback_later(HANGS_SECONDS + world.seconds, exit=True)
    try:
        function(world)
        dead = world.dead()
        if dead:
            raise pg.Failure(dead)
    except Skip as e:
        report.skip(name, e)
    except Exception as e:
        details = str(e) if isinstance(e, pg.Failure) else ""
        report.fail(name, traceback.format_exc() + ("" if details else "\n") + world.logs_since_mark(),
                    time.monotonic() - started)
    else:
        report.ok(name, time.monotonic() - started)
    finally:
        faulthandler.cancel_dump_traceback_later()
