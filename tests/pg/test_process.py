"""The process: command line, pidfile, log, service manager, signals."""

import contextlib
import grp
import os
import re
import signal
import socket
import stat
import subprocess

import psycopg

from tests.support import harness
from tests.support import pg
from tests.support.harness import Skip, only

# What log watchers expect; PgBouncer's own lines match it (facts: line format).
LOG_LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} \S+ \[\d+\] (FATAL|ERROR|WARNING|LOG|DEBUG|NOISE) \S")
SOCKET_LINE = re.compile(r"LOG [CS]-0x[0-9a-f]+: \S+/\S+@(\[?[0-9a-f.:]+\]?|unix\(\d+\)):\d+ ")


@contextlib.contextmanager
def daemon(world, **settings):
    with harness.daemon(world, settings=settings) as d:
        yield d


def run(*argv, **options):
    return subprocess.run([pg.reachable(pg.daemon_program()), *argv], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=20, check=False, cwd=pg.place(),
                          **pg._as_account(), **options)


@only(15)
def test_the_command_line_is_pgbouncers(world):
    del world
    for argv, code, words in ((["-V"], 0, "pgtrickle "), (["--help"], 0, "--reboot"),
                              ([], 1, "no configuration file specified"), (["--nonsense", "x"], 1, "--help"),
                              (["a.ini", "b.ini"], 1, "no configuration file specified"),
                              (["does-not-exist.ini"], 1, "does-not-exist.ini")):
        done = run(*argv)
        if done.returncode != code or words not in done.stdout + done.stderr:
            raise pg.Failure(f"{argv}: {done.returncode}, {done.stdout}{done.stderr}")


@only(15)
def test_one_process_a_socket_and_a_pidfile(world):
    d = pg.Daemon(world.cluster)
    pidfile = os.path.join(d.directory, "pid")
    d.settings.update(unix_socket_dir=f"@pgtrickle-{d.port}", pidfile=pidfile)
    d.write_ini()
    with open(pidfile, "w", encoding="ascii") as f:
        f.write("999999999\n")  # no process has this number
    os.chmod(pidfile, 0o666)
    d.start()
    try:
        with open(pidfile, encoding="ascii") as f:
            if int(f.read()) != d.process.pid:
                raise pg.Failure("the pidfile holds another number")
        done = run(d.ini_path)
        if done.returncode != 1 or "unix socket is in use" not in done.stderr:
            raise pg.Failure(f"a second process: {done.returncode} {done.stderr}")
        d.settings["unix_socket_dir"] = ""
        d.write_ini()
        done = run(d.ini_path)
        if done.returncode != 1 or "another instance running?" not in done.stderr:
            raise pg.Failure(f"a second process: {done.returncode} {done.stderr}")
    finally:
        d.stop()
    if os.path.exists(pidfile):
        raise pg.Failure("the pidfile is left")


@only(15)
def test_the_log_is_opened_anew_and_its_lines_have_the_form(world):
    d = pg.Daemon(world.cluster)
    logfile = os.path.join(d.directory, "daemon.log")
    d.settings["logfile"] = logfile
    d.write_ini()
    d.start()
    try:
        with d.connect() as app:
            app.execute("SELECT 1")
        os.rename(logfile, logfile + ".1")
        d.process.send_signal(signal.SIGHUP)
        pg.wait_until(lambda: os.path.exists(logfile), what="a new log file")
        with open(logfile + ".1", encoding="utf-8") as f:
            lines = f.read().splitlines()
    finally:
        d.stop()
    odd = [line for line in lines if not LOG_LINE.match(line)]
    if odd or sum(bool(SOCKET_LINE.search(line)) for line in lines) < 3:
        raise pg.Failure("\n".join(odd or lines))


class Manager:
    """A service manager's end of NOTIFY_SOCKET."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.name = f"@pgtrickle-notify-{os.getpid()}-{id(self)}"
        self.socket.bind("\0" + self.name[1:])
        self.socket.settimeout(0.02)
        self.said = []

    def heard(self, text):
        with contextlib.suppress(TimeoutError):
            while True:
                self.said += self.socket.recv(4096).decode().splitlines()
        return any(line.startswith(text) for line in self.said)

    def wait(self, text):
        pg.wait_until(lambda: self.heard(text), what=lambda: f"{text} (heard {self.said})")


@only(15)
def test_the_service_manager_is_told(world):
    manager = Manager()
    d = pg.Daemon(world.cluster, settings={"worker_threads": 2})
    env = dict(os.environ, NOTIFY_SOCKET=manager.name, WATCHDOG_USEC="400000")
    d._spawn([pg.reachable(pg.daemon_program()), d.ini_path], env=env)
    try:
        manager.wait("READY=1")
        manager.wait(f"MAINPID={d.process.pid}")
        manager.wait("WATCHDOG=1")
        manager.said.clear()
        d.process.send_signal(signal.SIGHUP)
        manager.wait("RELOADING=1")
        manager.wait("MONOTONIC_USEC=")
        manager.wait("READY=1")
    finally:
        d.stop()
    manager.wait("STOPPING=1")


@only(15)
def test_sockets_of_the_service_manager_are_used(world):
    d = pg.Daemon(world.cluster)
    d.settings["listen_addr"] = ""  # not looked at
    d.write_ini()
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", d.port))
        listening.listen()
        fd = os.dup2(listening.fileno(), 100)
        script = 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" "$1" 3<&100 100<&-'
        with open(d.log_path, "ab") as log:
            d.process = subprocess.Popen(
                ["bash", "-c", script, pg.reachable(pg.daemon_program()), d.ini_path], pass_fds=[fd],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=pg.place(), **pg._as_account())
        os.close(fd)
    try:
        with d.connect() as app:
            if pg.one(app, "SELECT 1") != 1:
                raise pg.Failure("no answer")
    finally:
        d.stop()


@only(15)
def test_two_processes_on_one_port(world):
    with daemon(world, so_reuseport=1, pool_mode="transaction", shutdown_mode="wait_for_transactions") as first:
        second = pg.Daemon(world.cluster, settings=first.settings)
        second.settings["listen_port"] = second.port = first.port
        second.settings["auth_file"] = first.settings["auth_file"]
        second.write_ini()
        kept = [first.connect() for _ in range(8)]
        for conn in kept:
            conn.execute("SELECT 1")
        kept[0].execute("BEGIN")
        second.start()
        # The port answered before it was up.
        pg.wait_until(lambda: "process up" in second.log(), what="process up")
        try:
            first.process.send_signal(signal.SIGTERM)
            ended = 0
            for conn in kept[1:]:
                try:
                    conn.execute("SELECT 1")
                except psycopg.OperationalError as e:
                    ended += "terminating connection due to administrator command" in str(e)
            kept[0].execute("SELECT 1")
            kept[0].execute("COMMIT")
            if ended != 7 or first.process.wait(20) != 0:
                raise pg.Failure(f"{ended} of 7 were sent away")
            for _ in range(20):
                with second.connect() as app:
                    app.execute("SELECT 1")
        finally:
            second.stop()


def tcp_timers(local, remote):
    """Of established connections from port to port (None: any): the kernel's timer and its seconds."""
    found = []
    with open("/proc/net/tcp", encoding="ascii") as f:
        for line in list(f)[1:]:
            fields = line.split()
            ports = [int(fields[i].split(":")[1], 16) for i in (1, 2)]
            if fields[3] == "01" and local in (None, ports[0]) and remote in (None, ports[1]):
                kind, when = (int(x, 16) for x in fields[5].split(":"))
                found.append((kind, when / os.sysconf("SC_CLK_TCK")))
    return found


@only(15)
def test_keepalives_on_both_sides(world):
    keepalive = 2  # Documentation/networking/proc_net_tcp.rst
    for settings, wanted in (({"tcp_keepalive": 1, "tcp_keepidle": 333, "tcp_keepintvl": 7, "tcp_keepcnt": 3}, True),
                             ({"tcp_keepalive": 0}, False)):
        with daemon(world, **settings) as d, d.connect() as conn:
            conn.execute("SELECT 1")
            client = conn.pgconn.socket
            with socket.socket(fileno=os.dup(client)) as mine:
                port = mine.getsockname()[1]

            def right(timers):
                """A timer of unsent data may be in front of it for a moment."""
                alive = [t for t in timers if t[0] == keepalive and 300 < t[1] <= 333]
                return len(alive) == len(timers) > 0 if wanted else all(t[0] != keepalive for t in timers)

            pg.wait_until(lambda: right(tcp_timers(d.port, port)), 10, lambda: f"clients: {tcp_timers(d.port, port)}")
            if wanted:
                servers = tcp_timers(None, world.cluster.port)
                if not any(t[0] == keepalive and 300 < t[1] <= 333 for t in servers):
                    raise pg.Failure(f"to the server: {servers}")


@only(15)
def test_the_unix_socket_has_its_group_and_mode(world):
    directory = pg.new_directory("unix")
    if len(directory) > 80:
        raise Skip("the path is too long for a socket")
    group = grp.getgrgid(pg.account().pw_gid if pg.account() else os.getgid())
    for mode in ("0600", "0750"):
        with daemon(world, unix_socket_dir=directory, unix_socket_mode=mode, unix_socket_group=group.gr_name) as d:
            path = os.path.join(directory, f".s.PGSQL.{d.port}")
            # TCP answers first.
            pg.wait_until(lambda: os.path.exists(path) and stat.S_IMODE(os.stat(path).st_mode) != 0, 10,
                          f"{path} is there")
            seen = os.stat(path)
            if (stat.S_IMODE(seen.st_mode), seen.st_gid) != (int(mode, 8), group.gr_gid):
                raise pg.Failure(f"{oct(seen.st_mode)} of group {seen.st_gid}")
            if os.geteuid() in (0, seen.st_uid):
                with psycopg.connect(host=directory, port=d.port, user="postgres", dbname="postgres") as conn:
                    conn.execute("SELECT 1")
        if os.path.exists(path):
            raise pg.Failure("the socket is left")
    refused = pg.Daemon(world.cluster, settings={"unix_socket_dir": directory, "unix_socket_group": "no such group"})
    done = run(refused.ini_path)
    if done.returncode == 0 or "no such group" not in done.stderr:
        raise pg.Failure(f"{done.returncode} {done.stderr}")


@only(15)
def test_ipv6(world):
    try:
        with socket.socket(socket.AF_INET6) as s:
            s.bind(("::1", 0))
    except OSError as e:
        raise Skip(f"no IPv6 here: {e}") from None
    with daemon(world, listen_addr="127.0.0.1, ::1") as d, \
            psycopg.connect(host="::1", port=d.port, user="postgres", dbname="postgres", autocommit=True) as conn, \
            d.connect("pgbouncer") as console:
        conn.execute("SELECT 1")
        pg.wait_until(lambda: "postgres/postgres@[::1]:" in d.log(), 10, d.log)
        addresses = {row[5] for row in console.execute("SHOW CLIENTS").fetchall()}
        if addresses != {"::1", "127.0.0.1"}:
            raise pg.Failure(f"{addresses}")
        conn.cancel()
        conn.execute("SELECT 1")


@only(15)
def test_the_log_may_go_to_syslog(world):
    if os.path.exists("/dev/log") or os.geteuid() != 0:
        raise Skip("/dev/log is not ours")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as syslog:
        syslog.bind("/dev/log")
        try:
            os.chmod("/dev/log", 0o666)
            syslog.settimeout(10)
            with daemon(world, syslog=1, syslog_ident="my-pooler", syslog_facility="local3"):
                line = syslog.recv(4096).decode()
                # local3 is 19, LOG is info (6).
                if not re.match(rf"<{19 * 8 + 6}>.* my-pooler\[\d+\]: ", line):
                    raise pg.Failure(line)
        finally:
            os.unlink("/dev/log")
