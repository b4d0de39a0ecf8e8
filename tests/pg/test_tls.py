"""TLS on both sides of a running daemon: modes, certificates, channel binding, direct TLS, reload, bad peers."""

import contextlib
import hashlib
import os
import re
import shutil
import socket
import ssl
import struct
import subprocess
import threading

import psycopg

from tests.support import pg
from tests.support.harness import only

SSL_REQUEST = struct.pack("!ii", 8, 80877103)


# ---- certificates ---------------------------------------------------------------------------------


class Certificates:
    """Two authorities, and what they have signed, in a directory that the servers' account can read."""

    def __init__(self):
        self.directory = pg.new_directory("certificates")
        os.chmod(self.directory, 0o755)
        self.authority("ca")
        self.authority("other-ca")
        self.issue("server", "localhost", "DNS:localhost")
        self.issue("server2", "localhost", "DNS:localhost")
        self.issue("client", "alice", "DNS:alice")
        self.issue("stray", "alice", "DNS:alice", ca="other-ca")
        self.issue("expired", "alice", "DNS:alice", days=-1)

    def path(self, name):
        return os.path.join(self.directory, name)

    def _openssl(self, *argv):
        subprocess.run(["openssl", *argv], cwd=self.directory, check=True, capture_output=True)

    def _key(self, name):
        self._openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", name + ".key")
        os.chmod(self.path(name + ".key"), 0o600)
        pg._give(self.path(name + ".key"))

    def authority(self, name):
        self._key(name)
        self._openssl("req", "-x509", "-key", name + ".key", "-subj", f"/CN={name}", "-days", "30",
                      "-out", name + ".crt")

    def issue(self, name, common_name, alternative, ca="ca", days=30):
        self._key(name)
        self._openssl("req", "-new", "-key", name + ".key", "-subj", f"/CN={common_name}",
                      "-out", name + ".csr")
        with open(self.path(name + ".ext"), "w", encoding="utf-8") as f:
            f.write(f"subjectAltName={alternative}\n")
        self._openssl("x509", "-req", "-in", name + ".csr", "-CA", ca + ".crt", "-CAkey", ca + ".key",
                      "-CAcreateserial", "-days", str(days), "-extfile", name + ".ext",
                      "-out", name + ".crt")

    def pair(self, prefix, name):
        return {prefix + "_key_file": self.path(name + ".key"),
                prefix + "_cert_file": self.path(name + ".crt")}

    def of_client(self, name):
        """For libpq, which wants the key to be its own user's."""
        own = self.path(name + ".own.key")
        if not os.path.exists(own):
            shutil.copy2(self.path(name + ".key"), own)
            os.chmod(own, 0o600)
        return {"sslcert": self.path(name + ".crt"), "sslkey": own}


_made = {}


def certificates():
    if "certificates" not in _made:
        _made["certificates"] = Certificates()
    return _made["certificates"]


def tls_cluster(version):
    """Passwords by SCRAM over TLS, no other way in from TCP but for tests that say trust."""
    if version not in _made:
        c = certificates()
        cluster = pg.Cluster(version, settings={
            "ssl": "on", "ssl_cert_file": c.path("server.crt"), "ssl_key_file": c.path("server.key"),
            "ssl_ca_file": c.path("ca.crt")})
        with open(os.path.join(cluster.directory, "pg_hba.conf"), "w", encoding="utf-8") as f:
            f.write("hostssl all all 127.0.0.1/32 scram-sha-256\nlocal all all trust\n")
        _made[version] = cluster.start()
    return _made[version]


@contextlib.contextmanager
def daemon(cluster, server="require", host="localhost", port=None, **settings):
    c = certificates()
    settings = {"auth_type": "scram-sha-256", "client_tls_sslmode": "prefer",
                **c.pair("client_tls", "server"), "client_tls_ca_file": c.path("ca.crt"),
                "server_tls_sslmode": server, "server_tls_ca_file": c.path("ca.crt"), **settings}
    d = pg.Daemon(cluster, settings=settings,
                  databases={"*": f"host={host} port={port or cluster.port}"}).start()
    try:
        yield d
    except BaseException:
        d.kill()
        raise
    d.stop()


def refused(connect, *needles):
    try:
        connect().close()
    except psycopg.OperationalError as e:
        if not any(n in str(e) for n in needles):
            raise pg.Failure(f"refused with {e!r} and not with {needles!r}") from None
        return
    raise pg.Failure(f"let in, and not refused with {needles!r}")


def asked(d, dbname):
    """A pool that knows its parameters lets a client in before it has a server."""
    conn = d.connect(dbname)
    try:
        conn.execute("SELECT 1")
    except BaseException:
        conn.close()
        raise
    return conn


def expect(found, wanted, what):
    if found != wanted:
        raise pg.Failure(f"{what}: {found!r}, not {wanted!r}")


def wait_for_log(d, text, since=0):
    pg.wait_until(lambda: text in d.log(since), 10, f"{text!r} in the log")


def backend_tls(conn):
    return pg.one(conn, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")


# ---- towards clients ------------------------------------------------------------------------------


@only(15)
def test_every_client_tls_sslmode(world):
    c = certificates()
    with daemon(world.cluster, server="disable", host="127.0.0.1") as d, \
            d.connect("pgbouncer", sslmode="require") as console:
        def mode(word):
            console.execute(f"SET client_tls_sslmode = '{word}'")

        for word in ("allow", "prefer"):
            mode(word)
            for client in ("disable", "require"):
                d.connect(sslmode=client).close()
        mode("disable")
        d.connect(sslmode="prefer").close()
        refused(lambda: d.connect(sslmode="require"), "server does not support SSL")
        mode("require")
        d.connect(sslmode="verify-ca", sslrootcert=c.path("ca.crt")).close()
        refused(lambda: d.connect(sslmode="disable"), "SSL required")
        for word in ("verify-ca", "verify-full"):
            mode(word)
            d.connect(sslmode="require", **c.of_client("client")).close()
            refused(lambda: d.connect(sslmode="require", sslcert="/none"), "certificate required")
            for bad, why in (("stray", "unknown ca"), ("expired", "certificate expired")):
                since = d.log_size()
                refused(lambda b=bad: d.connect(sslmode="require", **c.of_client(b)), why,
                        "reset by peer", "closed the connection")
                wait_for_log(d, "certificate verify failed", since)
        shown = console.execute("SHOW CLIENTS")
        tls = [row[[col.name for col in shown.description].index("tls")] for row in shown.fetchall()]
        if not re.fullmatch(r"TLSv1\.3/TLS_\w+", tls[0]):
            raise pg.Failure(f"SHOW CLIENTS has tls = {tls!r}")
        log = d.log()
        for text in ("tls=TLSv1.3/TLS_", "tls=no"):
            if text not in log:
                raise pg.Failure(f"no {text!r} in the log")


def tls_socket(port, alpn=("postgresql",), asked=False, version=None):
    context = ssl.create_default_context(cafile=certificates().path("ca.crt"))
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if version is not None:
        context.minimum_version = context.maximum_version = version
    s = socket.create_connection(("127.0.0.1", port), 10)
    if asked:
        s.sendall(SSL_REQUEST)
        expect(s.recv(1), b"S", "the answer to SSLRequest")
    return context.wrap_socket(s, server_hostname="localhost")


def startup(user="postgres", database="postgres"):
    body = struct.pack("!i", 196608)
    body += b"".join(w.encode() + b"\0" for w in ("user", user, "database", database)) + b"\0"
    return struct.pack("!i", len(body) + 4) + body


def ends(s):
    """The daemon closes the stream without another word."""
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        return s.recv(100) == b""
    return True


@only(15)
def test_direct_tls_and_its_protocol(world):
    with daemon(world.cluster, server="disable", host="127.0.0.1") as d:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            with tls_socket(d.port, version=version) as s:
                expect(s.selected_alpn_protocol(), "postgresql", "the application protocol")
                s.sendall(startup())
                answer = s.recv(100)
                if answer[:1] != b"R" or b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0" not in answer:
                    raise pg.Failure(f"answer to the startup packet: {answer!r}")
        # nobody asked, and it may be another protocol altogether
        with tls_socket(d.port, alpn=()) as s:
            if not ends(s):
                raise pg.Failure("direct TLS without ALPN goes on")
        for asked in (False, True):
            try:
                tls_socket(d.port, alpn=("http/1.1",), asked=asked).close()
                raise pg.Failure("another application protocol is let in")
            except (ssl.SSLError, ConnectionError):
                pass
        # one that was asked for needs none
        with tls_socket(d.port, alpn=(), asked=True) as s:
            s.sendall(startup())
            expect(s.recv(1), b"R", "the answer to the startup packet")
        # TLS 1.1 is not on
        try:
            tls_socket(d.port, version=ssl.TLSVersion.TLSv1_1).close()
            raise pg.Failure("TLS 1.1 is let in")
        except (ssl.SSLError, ConnectionError):
            pass


@only(15)
def test_bytes_in_clear_before_the_handshake_are_not_obeyed(world):
    with daemon(world.cluster, server="disable", host="127.0.0.1", auth_type="trust") as d:
        for behind in (startup(), b"x", SSL_REQUEST):
            since = d.log_size()
            with socket.create_connection(("127.0.0.1", d.port), 10) as s:
                s.sendall(SSL_REQUEST + behind)
                said = b""
                with contextlib.suppress(ConnectionError):
                    while part := s.recv(1000):
                        said += part
            if said[:1] != b"E" or b"received unencrypted data after encryption request" not in said:
                raise pg.Failure(f"answer to bytes behind an SSLRequest: {said!r}")
            if "login attempt" in d.log(since):
                raise pg.Failure("a startup packet behind an SSLRequest was obeyed")
        # after the S: taken for a handshake, which it is not
        with socket.create_connection(("127.0.0.1", d.port), 10) as s:
            s.sendall(SSL_REQUEST)
            expect(s.recv(1), b"S", "the answer to SSLRequest")
            s.sendall(startup())
            with contextlib.suppress(ConnectionError):
                if b"R" in s.recv(1000)[:1]:
                    raise pg.Failure("a startup packet in clear was obeyed behind the S")
        wait_for_log(d, "TLS handshake error: ")
        # an end of the stream without a word is no error
        since = d.log_size()
        s = tls_socket(d.port)
        s.sendall(startup())
        s.recv(1000)
        socket.socket(fileno=s.detach()).close()
        wait_for_log(d, "closing because", since)
        if "eof while reading" in d.log():
            raise pg.Failure("noise in the log about the end of a stream")


# ---- towards servers ------------------------------------------------------------------------------


@only(15, 18)
def test_every_server_tls_sslmode(world):
    c = certificates()
    cluster = tls_cluster(world.version)
    with daemon(cluster, server_login_retry=0) as d, \
            d.connect("pgbouncer", sslmode="require") as console:
        d.databases = {name: f"host={host} port={cluster.port} dbname=postgres"
                       for name, host in (("by_name", "localhost"), ("by_ip", "127.0.0.1"))}
        d.write_ini()
        console.execute("RELOAD")
        for word, name, authority, why in (
                ("allow", "by_name", "ca", None), ("prefer", "by_name", "other-ca", None),
                ("require", "by_ip", "other-ca", None), ("verify-ca", "by_ip", "ca", None),
                ("verify-ca", "by_name", "other-ca", "certificate verify failed"),
                ("verify-full", "by_name", "ca", None),
                ("verify-full", "by_ip", "ca", "certificate verify failed"),
                ("verify-full", "by_name", "other-ca", "certificate verify failed"),
                ("disable", "by_name", "ca", "no pg_hba.conf entry")):
            console.execute(f"SET server_tls_ca_file = '{c.path(authority + '.crt')}'")
            console.execute(f"SET server_tls_sslmode = '{word}'")
            since = d.log_size()
            if why is not None:
                refused(lambda n=name: asked(d, n), why)
                wait_for_log(d, why, since)
                continue
            with d.connect(name) as conn:
                expect(backend_tls(conn), True, f"TLS to the server under {word}")
    if world.version == 15:
        # a server that has none
        for word, why in (("prefer", None), ("require", "server refused SSL")):
            with daemon(world.cluster, server=word, host="127.0.0.1") as d:
                if why is not None:
                    refused(d.connect, why)
                else:
                    with d.connect() as conn:
                        expect(backend_tls(conn), False, "TLS to a server that has none")


@only(18)
def test_direct_tls_to_a_server(world):
    cluster = tls_cluster(18)
    with daemon(cluster, server="verify-full", server_tls_negotiation="direct") as d, \
            d.connect() as conn:
        expect(backend_tls(conn), True, "TLS to the server")


@contextlib.contextmanager
def server_that_says(answer):
    """Answers every first packet with these bytes, and keeps what follows."""
    got = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        def serve():
            with contextlib.suppress(OSError):
                while True:
                    s, _ = listener.accept()
                    with s:
                        s.settimeout(10)
                        said = s.recv(8)
                        s.sendall(answer)
                        with contextlib.suppress(OSError):
                            said += s.recv(1000)
                        got.append(said)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1], got
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)


@only(15)
def test_what_a_server_may_answer_in_clear(world):
    for answer, why in ((b"SX", "received unencrypted data after SSL response"),
                        (b"E\0\0\0\5\0", "server sent an error response during SSL exchange"),
                        (b"?", "bad sslreq answer"), (b"S", "TLS handshake error")):
        with server_that_says(answer) as (port, got), \
                daemon(world.cluster, server="prefer", host="127.0.0.1", port=port) as d:
            refused(lambda: d.connect(user="app"), why)
            wait_for_log(d, why)
            # The maintenance side's libpq is here too: it has another user, and names no protocol.
            for said in got:
                if b"app\0" in said or (answer != b"S" and b"\x0apostgresql" in said):
                    raise pg.Failure(f"went on after {answer!r}: {said!r}")
            if answer == b"S" and not any(b"\x0apostgresql" in said for said in got):
                raise pg.Failure(f"no handshake after the S: {got!r}")


# ---- both -----------------------------------------------------------------------------------------


@only(15)
def test_channel_binding_on_both_sides(world):
    cluster = tls_cluster(15)
    with daemon(cluster, server_tls_channel_binding="require") as d:
        for binding in ("require", "prefer", "disable"):
            with d.connect(sslmode="require", channel_binding=binding) as conn:
                expect(backend_tls(conn), True, "TLS to the server")
        with d.connect("pgbouncer", sslmode="require") as console:
            console.execute("SET client_tls_sslmode = 'require'")
            console.execute("SET client_tls_channel_binding = 'require'")
            d.connect(sslmode="require", channel_binding="require").close()
            refused(lambda: d.connect(sslmode="require", channel_binding="disable"),
                    "SASL", "authentication")
            console.execute("SET client_tls_channel_binding = 'disable'")
            refused(lambda: d.connect(sslmode="require", channel_binding="require"),
                    "channel binding is required")
    with daemon(world.cluster, server="prefer", host="127.0.0.1",
                server_tls_channel_binding="prefer") as d:
        d.connect().close()  # trust, in clear


def fingerprint(port):
    context = ssl._create_unverified_context()
    context.set_alpn_protocols(["postgresql"])
    with socket.create_connection(("127.0.0.1", port), 10) as s, context.wrap_socket(s) as t:
        return hashlib.sha256(t.getpeercert(True)).hexdigest()


@only(15)
def test_reload_reads_the_files_anew_or_keeps_them(world):
    c = certificates()
    for end in ("key", "crt"):
        shutil.copy2(c.path("server." + end), c.path("live." + end))
        pg._give(c.path("live." + end))
    with daemon(tls_cluster(15), **c.pair("client_tls", "live")) as d, \
            d.connect(sslmode="require") as client, \
            d.connect("pgbouncer", sslmode="require") as console:
        client.execute("SELECT 1")
        first = fingerprint(d.port)
        for end in ("key", "crt"):
            shutil.copyfile(c.path("server2." + end), c.path("live." + end))
        expect(fingerprint(d.port), first, "the certificate before RELOAD")
        console.execute("RELOAD")
        second = fingerprint(d.port)
        if second == first:
            raise pg.Failure("RELOAD does not read the certificate anew")
        with open(c.path("live.crt"), "w", encoding="utf-8") as f:
            f.write("nonsense\n")
        pg.expect_error(console, "RELOAD", "F0000",
                        "RELOAD failed, see logs for additional details")
        wait_for_log(d, "keeping old configuration")
        expect(fingerprint(d.port), second, "the certificate after a RELOAD that failed")
        pg.expect_error(console, "SET client_tls_ca_file = '/no/such/file'", "F0000")
        pg.expect_error(console, "SET client_tls_key_file = ''", "22023")
        # who is there stays
        client.execute("SELECT 1")
    d = pg.Daemon(world.cluster, settings={
        "client_tls_sslmode": "require", **c.pair("client_tls", "live")})
    d._spawn([pg.reachable(pg.daemon_program()), d.ini_path])
    d.process.wait(20)
    expect(d.process.returncode, 1, "the exit status with a bad certificate")
    if "TLS setup failed" not in d.log():
        raise pg.Failure("a bad certificate is not named at start:\n" + d.log())


@only(15)
def test_work_over_tls_on_both_sides(world):
    cluster = tls_cluster(15)
    with daemon(cluster, server="verify-full", pool_mode="transaction") as d, \
            d.connect(sslmode="require") as conn, conn.cursor() as cur:
        expect(backend_tls(conn), True, "TLS to the server")
        # some MB both ways
        cur.execute("CREATE TABLE copied (a text, b int)")
        data = b"".join(b"%s\t%d\n" % (b"x" * 90, i) for i in range(60000))
        with cur.copy("COPY copied FROM STDIN") as copy:
            copy.write(data)
        with cur.copy("COPY (SELECT * FROM copied ORDER BY b) TO STDOUT") as copy:
            back = b"".join(bytes(part) for part in copy)
        if back != data:
            raise pg.Failure("COPY does not give back what it was given")
        expect(len(pg.one(conn, "SELECT repeat('y', 5000000)")), 5000000, "a long value")
        # a statement on a lent connection, and the maintenance side's own
        conn.execute("CREATE STREAM TABLE counted WITH (schedule = '1s') AS "
                     "SELECT b % 7 AS k, count(*) AS n FROM copied GROUP BY 1")
        expect(pg.one(conn, "SELECT sum(n)::int FROM counted"), 60000, "the stream table")
        conn.execute("INSERT INTO copied VALUES ('z', 0)")
        pg.wait_until(lambda: pg.one(conn, "SELECT sum(n)::int FROM counted") == 60001, 20,
                      "the scheduler refreshes over TLS")
        conn.execute("DROP STREAM TABLE counted")
        # a cancel goes to the server over TLS
        failed = []

        def sleep():
            try:
                conn.execute("SELECT pg_sleep(30)")
            except psycopg.errors.QueryCanceled as e:
                failed.append(e)

        thread = threading.Thread(target=sleep)
        thread.start()
        with d.connect(sslmode="require") as other:
            pg.wait_until(lambda: pg.one(
                other, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'"),
                10, "the statement runs")
        conn.cancel()
        thread.join(20)
        if not failed:
            raise pg.Failure("the cancel request did not arrive")
