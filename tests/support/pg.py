"""Private PostgreSQL servers and pgtrickle daemons for tests and the demo.

Everything listens on 127.0.0.1 at a free port, keeps its files in one directory of this run and dies
with the process that started it.  PostgreSQL refuses to run as root, so under root all of it runs as an
unprivileged account.  Nothing here waits by sleeping for "long enough": see wait_until.
"""

import atexit
import contextlib
import ctypes
import os
import pwd
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

import psycopg
from psycopg import sql

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(ROOT, "build")
DEBIAN_BIN = "/usr/lib/postgresql/15/bin"
PSQL = os.path.join(DEBIAN_BIN, "psql")
PGBENCH = os.path.join(DEBIAN_BIN, "pgbench")

# Known to every daemon started here, whatever roles a test creates in the server.
USERS = ("postgres", "app", "maint", "writer", "reader", "stranger")
PASSWORD = "pg-trickle, test"


class Failure(AssertionError):
    """What a test found wrong, in words."""


# ---- accounts and places --------------------------------------------------------------------------


def account():
    """The unprivileged account that servers run as, or None when we are not root."""
    if os.getuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise Failure("no unprivileged account to run PostgreSQL as")


def _as_account():
    a = account()
    if a is None:
        return {}
    return {"user": a.pw_uid, "group": a.pw_gid, "extra_groups": []}


_libc = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG = 1


def _dies_with_us(signum):
    parent = os.getpid()

    def in_child():
        _libc.prctl(PR_SET_PDEATHSIG, signum)
        if os.getppid() != parent:
            os._exit(127)

    return in_child


def _account_can(test, path):
    return subprocess.run(["test", test, path], cwd="/", check=False, **_as_account()).returncode == 0


_place = None


def place():
    """The directory of this run.  Under build/ when the account can get there, else under /var/tmp."""
    global _place
    if _place is None:
        base = os.path.join(BUILD, "run")
        os.makedirs(base, exist_ok=True)
        if not _account_can("-x", base):
            base = "/var/tmp"
        _place = tempfile.mkdtemp(prefix="pgtrickle-", dir=base)
        os.chmod(_place, 0o755)
        _give(_place)
        if os.environ.get("KEEP_FILES"):
            print(f"files are kept in {_place}")
        else:
            atexit.register(shutil.rmtree, _place, ignore_errors=True)
    return _place


def _give(path):
    a = account()
    if a is not None:
        os.chown(path, a.pw_uid, a.pw_gid)


def new_directory(name):
    path = os.path.join(place(), name)
    os.makedirs(path)
    os.chmod(path, 0o700)
    _give(path)
    return path


def reachable(path, directory=None):
    """path, or a copy of it (of the directory that it needs) where the account can run it."""
    if _account_can("-x", path):
        return path
    whole = directory or path
    copy = os.path.join(place(), "bin-" + re.sub(r"\W+", "-", os.path.relpath(whole, ROOT)))
    if not os.path.exists(copy):
        if os.path.isdir(whole):
            shutil.copytree(whole, copy, symlinks=True)
        else:
            shutil.copy2(whole, copy)
    return copy if directory is None else os.path.join(copy, os.path.relpath(path, directory))


def free_port():
    """Below the ports that connections get, and not the one that another run is offered."""
    while True:
        port = random.SystemRandom().randint(10000, 32000)
        with socket.socket() as s, contextlib.suppress(OSError):
            s.bind(("127.0.0.1", port))
            return port


# ---- waiting --------------------------------------------------------------------------------------


def wait_until(condition, seconds=20.0, what="the condition", every=0.02):
    """Polls until condition() is true and returns its value; fails at the deadline, saying what."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            text = what() if callable(what) else what
            raise Failure(f"not within {seconds:g} s: {text}")
        time.sleep(every)


# ---- processes ------------------------------------------------------------------------------------


class _Process:
    """A server: started, stopped, killed; its output goes to one file."""

    log_path = None
    process = None
    port = None

    def _spawn(self, argv, death=signal.SIGKILL, env=None):
        # The kernel ties the child to the thread that makes it, not to the process.
        assert threading.current_thread() is threading.main_thread()
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd=place(),
                env=env, preexec_fn=_dies_with_us(death), start_new_session=True, **_as_account())
        atexit.register(self._reap)

    def _reap(self):
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def is_running(self):
        return self.process is not None and self.process.poll() is None

    def _signal(self, signum, seconds):
        if not self.is_running():
            return
        self.process.send_signal(signum)
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise Failure(f"{type(self).__name__} did not stop within {seconds} s of a signal "
                          f"{signum}") from None

    def log_size(self):
        try:
            return os.path.getsize(self.log_path)
        except OSError:
            return 0

    def log(self, since=0):
        try:
            with open(self.log_path, "rb") as f:
                f.seek(since)
                return f.read().decode("utf-8", "replace")
        except OSError:
            return ""


class Cluster(_Process):
    """One PostgreSQL server with a data directory of its own."""

    counter = 0

    def __init__(self, version=15, fsync=False, settings=None, auth="trust"):
        Cluster.counter += 1
        self.version = version
        self.auth = auth
        self.fsync = fsync
        self.settings = settings or {}
        self.directory = os.path.join(place(), f"pg{version}-{Cluster.counter}")
        self.log_path = self.directory + ".log"
        self.port = free_port()
        self.bin = self.binaries(version)
        self._init()

    @staticmethod
    def binaries(version):
        if version == 15:
            return DEBIAN_BIN
        native = os.path.join(BUILD, "npm", "node_modules", f"postgres-{version}", "native")
        if not os.path.exists(os.path.join(native, "bin", "postgres")):
            raise Failure(f"no PostgreSQL {version}: run make deps")
        return os.path.dirname(reachable(os.path.join(native, "bin", "postgres"), native))

    def _init(self):
        with tempfile.NamedTemporaryFile("w", dir=place(), delete=False) as f:
            f.write(PASSWORD)
        os.chmod(f.name, 0o644)
        argv = [os.path.join(self.bin, "initdb"), "-D", self.directory, "-U", "postgres",
                "-A", self.auth, "--pwfile", f.name, "-E", "UTF8", "--no-sync"]
        argv += ["--locale=C.UTF-8"] if self.version == 15 else ["--locale=C"]
        done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=place(),
                              check=False, **_as_account())
        os.unlink(f.name)
        if done.returncode != 0:
            raise Failure("initdb failed:\n" + done.stdout.decode("utf-8", "replace"))

    def start(self):
        sockets = place()
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": sockets if len(sockets) < 80 else "",
            "max_connections": 150,
            "max_locks_per_transaction": 256,
            "fsync": "on" if self.fsync else "off",
            "synchronous_commit": "on" if self.fsync else "off",
            "full_page_writes": "on" if self.fsync else "off",
            "shared_buffers": "64MB",
            "log_min_messages": "warning",
            "log_line_prefix": "%m [%p] %u@%d %a ",
            "max_wal_size": "512MB",
            "deadlock_timeout": "100ms",
        }
        settings.update(self.settings)
        argv = [os.path.join(self.bin, "postgres"), "-D", self.directory]
        for name, value in settings.items():
            argv += ["-c", f"{name}={value}"]
        self._spawn(argv, death=signal.SIGQUIT)
        wait_until(self._answers, 60, lambda: "PostgreSQL answers\n" + self.log()[-2000:])
        return self

    def _answers(self):
        if not self.is_running():
            raise Failure("PostgreSQL did not start:\n" + self.log()[-2000:])
        try:
            self.connect(connect_timeout=5).close()
            return True
        except psycopg.OperationalError:
            return False

    def stop(self):
        self._signal(signal.SIGINT, 60)

    def kill(self):
        """kill -9 of the postmaster and every backend, as a machine that goes down."""
        pid = self.process.pid
        children = _children(pid)
        self.process.kill()
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        self.process.wait()
        wait_until(lambda: not any(os.path.exists(f"/proc/{c}") for c in children), 20,
                   "the backends are gone")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self.directory, "postmaster.pid"))

    def connect(self, dbname="postgres", user="postgres", **options):
        return connect(self.port, dbname, user, **options)


def _children(pid):
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError, IndexError):
                with open(f"/proc/{entry}/stat", encoding="utf-8") as f:
                    if int(f.read().rsplit(")", 1)[1].split()[1]) == pid:
                        found.append(int(entry))
    return found


def daemon_program():
    return os.environ.get("PGTRICKLE", os.path.join(BUILD, "pgtrickle"))


class Daemon(_Process):
    """build/pgtrickle in front of one cluster."""

    counter = 0

    def __init__(self, cluster, pool_mode="session", settings=None, databases=None, users=USERS):
        Daemon.counter += 1
        self.cluster = cluster
        self.port = free_port()
        self.directory = new_directory(f"daemon-{Daemon.counter}")
        self.log_path = os.path.join(self.directory, "log")
        self.ini_path = os.path.join(self.directory, "pgtrickle.ini")
        self.settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": self.port,
            "unix_socket_dir": "",
            "auth_type": "trust",
            "auth_file": os.path.join(self.directory, "userlist.txt"),
            "admin_users": "postgres",
            "pool_mode": pool_mode,
            "max_client_conn": 300,
            "default_pool_size": 30,
            "dvm_scheduler_interval_ms": 100,
        }
        self.settings.update(settings or {})
        self.databases = databases or {"*": f"host=127.0.0.1 port={cluster.port}"}
        self.users = users if isinstance(users, dict) else {u: PASSWORD for u in users}
        self.write_ini()

    def write_ini(self):
        with open(self.settings["auth_file"], "w", encoding="utf-8") as f:
            for user, password in self.users.items():
                f.write(f'"{user}" "{password}"\n')
        with open(self.ini_path, "w", encoding="utf-8") as f:
            f.write("[databases]\n")
            for name, target in self.databases.items():
                f.write(f"{name} = {target}\n")
            f.write("\n[pgtrickle]\n")
            for name, value in self.settings.items():
                if value is not None:
                    f.write(f"{name} = {value}\n")
        for path in (self.ini_path, self.settings["auth_file"]):
            _give(path)

    def start(self):
        program = daemon_program()
        if not os.path.exists(program):
            raise Failure(f"{program} is not built")
        env = dict(os.environ)
        env.setdefault("ASAN_OPTIONS", "detect_leaks=1:abort_on_error=0:exitcode=99")
        self._spawn([reachable(program), self.ini_path], env=env)
        wait_until(self._answers, 30, lambda: "pgtrickle listens\n" + self.log()[-2000:])
        return self

    def _answers(self):
        if not self.is_running():
            raise Failure("pgtrickle did not start:\n" + self.log()[-2000:])
        try:
            socket.create_connection(("127.0.0.1", self.port), 2).close()
            return True
        except OSError:
            return False

    def stop(self):
        """As PgBouncer: one SIGINT waits for servers in use, the second ends it at once."""
        if self.is_running():
            self.process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
            self._signal(signal.SIGINT, 30)
        if self.process is not None and self.process.returncode != 0:
            raise Failure(f"pgtrickle ended with {self.process.returncode}:\n" + self.log()[-4000:])

    def kill(self):
        self.process.kill()
        self.process.wait()

    def connect(self, dbname="postgres", user="postgres", **options):
        return connect(self.port, dbname, user, **options)


# ---- connections ----------------------------------------------------------------------------------


def connect(port, dbname="postgres", user="postgres", autocommit=True, **options):
    options.setdefault("connect_timeout", 20)
    options.setdefault("password", PASSWORD)
    conn = psycopg.connect(host="127.0.0.1", port=port, dbname=dbname, user=user,
                           autocommit=autocommit, **options)
    conn.notices = []
    conn.add_notice_handler(conn.notices.append)
    return conn


def one(conn, query, params=None):
    """The single value of a query's single row."""
    rows = conn.execute(query, params).fetchall()
    if len(rows) != 1:
        raise Failure(f"{len(rows)} rows instead of one: {query}")
    return rows[0][0]


def rows(conn, query, params=None):
    return conn.execute(query, params).fetchall()


def expect_error(conn, statement, sqlstate, message=None, hint=None, params=None):
    """Runs a statement that must fail with this SQLSTATE; returns the error."""
    try:
        conn.execute(statement, params)
    except psycopg.Error as e:
        if e.sqlstate != sqlstate:
            raise Failure(f"SQLSTATE {e.sqlstate} ({e}) instead of {sqlstate}: {statement}") from e
        for pattern, text, name in ((message, e.diag.message_primary, "message"),
                                    (hint, e.diag.message_hint, "hint")):
            if pattern is not None and not re.search(pattern, text or "", re.I | re.S):
                raise Failure(f"the {name} {text!r} does not match {pattern!r}: {statement}") from e
        return e
    raise Failure(f"no error, SQLSTATE {sqlstate} was expected: {statement}")


def psql(port, dbname="postgres", user="postgres", script=None, args=(), check=True, timeout=120):
    """Runs psql with a script on its standard input; returns its output (errors included)."""
    argv = [PSQL, "-X", "-h", "127.0.0.1", "-p", str(port), "-U", user, "-d", dbname,
            "-v", "ON_ERROR_STOP=1", *args]
    env = dict(os.environ, PGPASSWORD=PASSWORD, PGCONNECT_TIMEOUT="20")
    done = subprocess.run(argv, input=script, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, env=env, timeout=timeout, check=False)
    if check and done.returncode != 0:
        raise Failure(f"psql ended with {done.returncode}:\n{done.stdout}")
    return done.stdout


# ---- the invariant --------------------------------------------------------------------------------


def visible_columns(conn, st):
    """The columns of a stream table (a name as SQL writes it) that its query has."""
    return [r[0] for r in conn.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0"
        " AND NOT attisdropped AND attname !~ '^__pgt_' ORDER BY attnum", (st,))]


def difference(conn, st, query, columns=None, limit=10):
    """Rows that the stream table has and its query has not ('extra'), and the other way round
    ('missing'), as bags, in one snapshot."""
    names = columns or visible_columns(conn, st)
    ours = sql.SQL(", ").join(sql.SQL("st.") + sql.Identifier(c) for c in names)
    theirs = sql.SQL(", ").join(sql.Identifier(f"c{i}") for i in range(len(names)))
    statement = sql.SQL(
        "WITH q AS MATERIALIZED (SELECT * FROM ({query}) AS q({theirs})),"
        " s AS MATERIALIZED (SELECT {ours} FROM {st} AS st)"
        " SELECT 'extra' AS side, d::text FROM (SELECT * FROM s EXCEPT ALL SELECT * FROM q) AS d"
        " UNION ALL"
        " SELECT 'missing', d::text FROM (SELECT * FROM q EXCEPT ALL SELECT * FROM s) AS d"
        " LIMIT {limit}").format(
            query=sql.SQL(query), ours=ours, theirs=theirs, st=sql.SQL(st), limit=sql.Literal(limit))
    return conn.execute(statement).fetchall()


def assert_equal(conn, st, query, where=""):
    rest = difference(conn, st, query)
    if rest:
        listed = "\n".join(f"    {side:8}{row}" for side, row in rest)
        raise Failure(f"{st} is not its query{' ' + where if where else ''}:\n{listed}")


def definitions(conn):
    """(schema-qualified name, query, mode) of every stream table of the database."""
    return [(f'"{s}"."{n}"', q, m) for s, n, q, m in conn.execute(
        "SELECT pgt_schema, pgt_name, defining_query, refresh_mode FROM pgtrickle.pgt_stream_tables"
        " ORDER BY pgt_id")]


def wait_equal(conn, st, query, seconds=20.0):
    """Until the scheduler has brought the stream table to its query."""
    last = []

    def settled():
        last[:] = difference(conn, st, query)
        return not last

    wait_until(settled, seconds, lambda: f"{st} equals its query: {last}", every=0.05)
