"""Who may enter, against real servers: secrets in both directions, auth_query, rules, PAM, LDAP."""

import contextlib
import getpass
import hashlib
import os
import re
import socketserver
import threading

import psycopg
import psycopg.sql

from tests.pg.test_tls import certificates
from tests.support import pg
from tests.support.harness import Skip, daemon, only

SECRET = "right password"


@contextlib.contextmanager
def server_rules(world, lines):
    """The server asks these users for a password, in front of its own rules."""
    path = os.path.join(world.cluster.directory, "pg_hba.conf")
    with open(path, encoding="utf-8") as f:
        before = f.read()

    def put(text):
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        with world.cluster.connect() as conn:
            conn.execute("SELECT pg_reload_conf()")

    put("\n".join(lines) + "\n" + before)
    try:
        yield
    finally:
        put(before)


def _write(path, text):
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    os.chmod(path, 0o644)


def refused(connect, why):
    try:
        connect().close()
    except psycopg.OperationalError as e:
        if why not in str(e):
            raise pg.Failure(f"expected {why!r}, got: {e}") from e
    else:
        raise pg.Failure(f"let in instead of: {why}")


def role(conn, name, options, secret=None, encryption="scram-sha-256"):
    conn.execute(f"DROP ROLE IF EXISTS {name}")
    conn.execute(f"SET password_encryption = '{encryption}'")
    conn.execute(f"CREATE ROLE {name} {options}" + (f" PASSWORD '{secret}'" if secret else ""))


@contextlib.contextmanager
def roles(world):
    """au_scram, au_md5: as they say. au_old: expired. au_mute: no password. au_group: no login."""
    with world.cluster.connect() as conn:
        role(conn, "au_scram", "LOGIN", SECRET)
        role(conn, "au_md5", "LOGIN", SECRET, "md5")
        role(conn, "au_old", "LOGIN VALID UNTIL 'yesterday'", SECRET)
        role(conn, "au_mute", "LOGIN")
        role(conn, "au_group", "NOLOGIN", SECRET)
        conn.execute("RESET password_encryption")
        with server_rules(world, ["host all au_scram 127.0.0.1/32 scram-sha-256",
                                  "host all au_md5 127.0.0.1/32 md5"]):
            yield conn
        for name in ("au_scram", "au_md5", "au_old", "au_mute", "au_group"):
            conn.execute(f"DROP ROLE {name}")


@only(15, 18)
def test_auth_query_serves_both_directions(world):
    settings = {"auth_type": "md5", "auth_user": "postgres"}
    with roles(world) as conn, \
            daemon(world, pool_mode="transaction", settings=settings, users={"postgres": ""}) as d:
        for user in ("au_scram", "au_md5"):
            for _ in range(2):
                with d.connect(user=user, password=SECRET) as c:
                    if pg.one(c, "SELECT current_user") != user:
                        raise pg.Failure("somebody else is logged in")
            refused(lambda u=user: d.connect(user=u, password="wrong"), "authentication failed")
        for user in ("au_old", "au_mute", "au_group", "au_nobody"):
            refused(lambda u=user: d.connect(user=u, password=SECRET), "authentication failed")
        # A changed password counts at the next login, for servers too.
        conn.execute("ALTER ROLE au_scram PASSWORD 'another'")
        with d.connect(user="au_scram", password="another") as c:
            c.execute("SELECT 1")
        refused(lambda: d.connect(user="au_scram", password=SECRET), "authentication failed")


@only(15)
def test_the_query_means_pg_catalog_whatever_was_left_behind(world):
    settings = {"auth_type": "md5", "auth_user": "postgres", "default_pool_size": 1,
                "dvm_user": "maint", "auth_query": "SELECT rolname, rolpassword FROM pg_authid WHERE "
                "rolname = $1 AND lower(rolname) = $1 AND rolcanlogin"}
    fake = "md5" + hashlib.md5(b"evilau_md5").hexdigest()
    with roles(world) as conn, world.cluster.connect("template1") as admin:
        admin.execute("DROP DATABASE IF EXISTS au_db")
        admin.execute("CREATE DATABASE au_db")
        admin.execute("ALTER DATABASE au_db SET search_path = evil, pg_catalog")
        with world.cluster.connect("au_db") as evil:
            evil.execute("CREATE SCHEMA evil")
            evil.execute("CREATE TABLE evil.pg_authid AS SELECT 'au_md5'::name AS rolname, "
                         f"'{fake}'::text AS rolpassword, true AS rolcanlogin")
            evil.execute("CREATE FUNCTION evil.lower(text) RETURNS text LANGUAGE sql AS "
                         "$$SELECT 'x'::text$$")
        with daemon(world, pool_mode="transaction", settings=settings,
                    users={"postgres": pg.PASSWORD}) as d:
            for _ in range(2):
                refused(lambda: d.connect("au_db", "au_md5", password="evil"),
                        "authentication failed")
                with d.connect("au_db", "au_md5", password=SECRET) as c:
                    c.execute("SELECT 1")
                # auth_user's own clients use the very connection that lookups use.
                with d.connect("au_db", "postgres", password=pg.PASSWORD) as c:
                    if pg.one(c, "SHOW search_path") != "evil, pg_catalog":
                        raise pg.Failure("the lookup's search_path stayed behind")
                    c.execute("SET search_path = evil")
                    c.execute("SET ROLE au_mute")
        # A function of the user's own is found where it always was.
        with world.cluster.connect("au_db") as own:
            own.execute("ALTER DATABASE au_db RESET search_path")
            own.execute("CREATE FUNCTION public.user_lookup(text, OUT name, OUT text) LANGUAGE sql AS "
                        "'SELECT usename, passwd FROM pg_catalog.pg_shadow WHERE usename = $1'")
        settings["auth_query"] = "SELECT * FROM user_lookup($1)"
        with daemon(world, settings=settings, users={"postgres": ""}) as d:
            with d.connect("au_db", "au_md5", password=SECRET) as c:
                c.execute("SELECT 1")
        admin.execute("DROP DATABASE au_db WITH (FORCE)")


@only(15)
def test_logins_of_a_storm_all_get_in(world):
    settings = {"auth_type": "scram-sha-256", "auth_user": "postgres", "default_pool_size": 2}
    failures = []

    def login(d):
        try:
            with d.connect(user="au_scram", password=SECRET) as c:
                c.execute("SELECT 1")
        except psycopg.Error as e:
            failures.append(str(e))

    with roles(world), daemon(world, pool_mode="transaction", settings=settings,
                              users={"postgres": ""}) as d:
        threads = [threading.Thread(target=login, args=(d,)) for _ in range(60)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        if failures:
            raise pg.Failure(f"{len(failures)} of 60 failed: {failures[0]}")


@only(15)
def test_secrets_of_auth_file_serve_both_directions(world):
    methods = {"au_plain": "password", "au_hash": "md5", "au_sasl": "scram-sha-256"}
    target = f"host=127.0.0.1 port={world.cluster.port} dbname=postgres"
    hba = os.path.join(pg.new_directory("au_both"), "hba")
    _write(hba, "".join(f"host {db} all all {method}\n" for db, method in methods.items()) +
           "host au_open all all trust\n")
    settings = {"auth_type": "hba", "auth_hba_file": hba}
    databases = dict.fromkeys([*methods, "au_open"], target)
    with roles(world) as conn:
        verifiers = dict(conn.execute("SELECT rolname, rolpassword FROM pg_authid").fetchall())
        users = {"au_scram": verifiers["au_scram"], "au_md5": verifiers["au_md5"]}
        for secrets in (users, dict.fromkeys(users, SECRET)):
            with daemon(world, settings=settings, databases=databases, users=secrets) as d:
                for user in users:
                    if secrets is users and user == "au_scram":
                        # Of a verifier alone nobody can log in.
                        refused(lambda: d.connect("au_open", "au_scram"), "wrong password type")
                    for db in methods:
                        if (db, user) == ("au_sasl", "au_md5") and secrets is users:
                            refused(lambda: d.connect("au_sasl", "au_md5", password=SECRET),
                                    "authentication failed")
                            continue
                        with d.connect(db, user, password=SECRET) as c:
                            c.execute("SELECT 1")


@only(15)
def test_rules_of_auth_hba_file(world):
    socket_dir = pg.new_directory("au_sock")
    hba = os.path.join(socket_dir, "hba")
    ident = os.path.join(socket_dir, "ident")
    me = pg.account().pw_name if pg.account() else getpass.getuser()

    _write(hba, "local all app peer map=m\nlocal all all reject\nhost all writer all md5\n"
                "host all reader 127.0.0.0/8 reject\nhost all nonsense all magic\n"
                "host sameuser all all trust\n")
    _write(ident, f"m {me} app\n")
    settings = {"auth_type": "hba", "auth_hba_file": hba, "auth_ident_file": ident,
                "unix_socket_dir": socket_dir if len(socket_dir) < 80 else ""}
    with daemon(world, settings=settings) as d:
        with d.connect(user="writer", password=pg.PASSWORD) as c:
            c.execute("SELECT 1")
        if f"{hba}:5: " not in d.log():
            raise pg.Failure("the bad line is not in the log")
        refused(lambda: d.connect(user="writer", password="no"), "password authentication failed")
        refused(lambda: d.connect(user="reader"), "login rejected")
        refused(lambda: d.connect(user="app"), "no authentication method is found")
        # RELOAD reads them anew; a file that is gone leaves the rules as they were.
        _write(hba, "host all app all trust\nhost all postgres all trust\n")
        d.process.send_signal(1)
        pg.wait_until(lambda: _can(d, "app"), what="the new rules")
        os.rename(hba, hba + ".gone")
        with d.connect("pgbouncer", user="postgres") as console:
            pg.expect_error(console, "RELOAD", "F0000", "RELOAD failed, see logs for additional details")
        if not _can(d, "app"):
            raise pg.Failure("rules that could not be read took the old ones along")


def _can(d, user):
    try:
        d.connect(user=user).close()
        return True
    except psycopg.OperationalError:
        return False


@only(15, 18)
def test_the_server_takes_the_same_lines_for_bad(world):
    lines = """local all all trust
local all all
host all all all md5
host all all 10.0.0.0/8 md5
host all all 10.0.0.0 md5
host all all 10.0.0.0 255.0.0.0 scram-sha-256
host all all 10.0.0.0/33 md5
host all all ::1/128 md5
host all all ::1 ffff:: md5
host all all ::1 255.0.0.0 md5
host "all",x,"y z" a,b , c samenet md5
host all all samehost password
host db1,db2 u1,u2 127.0.0.1/32 reject
hostssl all all all cert
host all all all cert
host all all all peer
local all all peer map=m
local all all md5 map=m
host all all all magic
host all,all, all all md5
host all all all ldap ldapserver=h ldapprefix="cn=" ldapsuffix=",dc=x"
host all all all ldap ldapserver=h
host all all all ldap ldapprefix=x
host all all all ldap ldapserver=h ldapprefix=a ldapbasedn=b
host all all all ldap ldapserver=h ldapbasedn=b ldapsearchattribute=a ldapsearchfilter=b
host all all all ldap ldapserver=h ldapbasedn=b nonsense=1
host all all all ldap ldapurl="ldap://h/dc=x?uid?sub"
host all all all ldap ldapurl="http://h/dc=x?uid?sub"
host all all all pam pamservice=x
host replication all 0.0.0.0/0 trust # comment
hostnossl all all all md5
nonsense all all all md5
host all all all md5 nonsense
host
host all
host all all
host all all all""".splitlines()
    directory = pg.new_directory(f"au_oracle-{world.version}")
    ours = os.path.join(directory, "hba")
    with open(ours, "w", encoding="utf-8") as f:
        f.write("\n".join(lines) + "\n")
    os.chmod(ours, 0o644)
    theirs = os.path.join(world.cluster.directory, "pg_hba.conf")
    with world.cluster.connect() as conn:
        with open(theirs, encoding="utf-8") as f:
            before = f.read()
        try:
            with open(theirs, "w", encoding="utf-8") as f:
                f.write("\n".join(lines) + "\n")
            bad = {r[0]: r[1] for r in conn.execute(
                "SELECT line_number, error FROM pg_hba_file_rules WHERE error IS NOT NULL")}
        finally:
            with open(theirs, "w", encoding="utf-8") as f:
                f.write(before)
    with daemon(world, settings={"auth_type": "hba", "auth_hba_file": ours}) as d:
        _can(d, "app")  # once it answers the rules have been read
        found = dict(re.findall(re.escape(ours) + r":(\d+): (.*): the line is ignored", d.log()))
    for i, line in enumerate(lines, 1):
        # What this server was built or set up without says nothing about the line.
        if re.search("SSL is disabled|not supported by this build", bad.get(i) or ""):
            continue
        if (i in bad) != (str(i) in found):
            raise pg.Failure(f"{line!r}: the server says {bad.get(i)}, we say {found.get(str(i))}")


# ---- LDAP: a responder that knows bind and search ---------------------------------------------------


def _ber(tag, body):
    assert len(body) < 128
    return bytes([tag, len(body)]) + body


def _parse(data):
    """(tag, body, rest) of the first element; None: more is needed."""
    if len(data) < 2:
        return None
    n, at = data[1], 2
    if n & 0x80:
        at += n & 0x7F
        if len(data) < at:
            return None
        n = int.from_bytes(data[2:at], "big")
    return (data[0], data[at:at + n], data[at + n:]) if len(data) >= at + n else None


class Directory(socketserver.BaseRequestHandler):
    """cn=<user>,dc=x with password SECRET for zoe; a search for (uid=zoe) finds her."""

    def handle(self):
        data = b""
        while True:
            got = self.request.recv(4096)
            if not got:
                return
            data += got
            while (whole := _parse(data)) is not None:
                data = whole[2]
                _, message_id, rest = _parse(whole[1])
                tag, body, _ = _parse(rest)
                if tag == 0x42:  # unbind
                    return
                for answer in self.answer(tag, body):
                    self.request.sendall(_ber(0x30, _ber(2, message_id) + answer))

    @staticmethod
    def answer(tag, body):
        def result(code):
            return _ber(10, bytes([code])) + _ber(4, b"") + _ber(4, b"")

        if tag == 0x60:
            _, _, rest = _parse(body)
            _, dn, rest = _parse(rest)
            _, password, _ = _parse(rest)
            right = (dn == b"cn=zoe,dc=x" and password == SECRET.encode()) or \
                (dn == b"cn=reader,dc=x" and password == b"r") or (dn == b"" and password == b"")
            return [_ber(0x61, result(0 if right else 49))]
        found = []
        if b"uid" in body and b"zoe" in body and body.startswith(b"\x04\x04dc=x"):
            found = [_ber(0x64, _ber(4, b"cn=zoe,dc=x") + _ber(0x30, b""))]
        return found + [_ber(0x65, result(0))]


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


@only(15)
def test_ldap_by_bind_and_by_search(world):
    with world.cluster.connect() as conn:
        role(conn, "zoe", "LOGIN", SECRET)
        role(conn, "yan", "LOGIN", SECRET)
    server = Server(("127.0.0.1", 0), Directory)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    where = f"ldapserver=127.0.0.1 ldapport={server.server_address[1]}"
    try:
        rules = {"au_bind": f'{where} ldapprefix="cn=" ldapsuffix=",dc=x"',
                 "au_find": f"{where} ldapbasedn=\"dc=x\"",
                 "au_ask": f'{where} ldapbasedn="dc=x" ldapbinddn="cn=reader,dc=x" ldapbindpasswd=r '
                           'ldapsearchfilter="(uid=$username)"'}
        hba = os.path.join(pg.new_directory("au_ldap"), "hba")
        _write(hba, "".join(f"host {db} all all ldap {words}\n" for db, words in rules.items()))
        target = f"host=127.0.0.1 port={world.cluster.port} dbname=postgres"
        # The password that LDAP took logs in to the server.
        with server_rules(world, ["host all zoe 127.0.0.1/32 scram-sha-256"]), \
                daemon(world, settings={"auth_type": "hba", "auth_hba_file": hba}, users={},
                       databases=dict.fromkeys(rules, target)) as d:
            for db in rules:
                with d.connect(db, "zoe", password=SECRET) as c:
                    c.execute("SELECT 1")
                for user, password in (("zoe", "wrong"), ("yan", SECRET), ("zoe*", SECRET)):
                    refused(lambda d_=db, u=user, p=password: d.connect(d_, u, password=p),
                            "password authentication failed")
    finally:
        server.shutdown()
        server.server_close()
        with world.cluster.connect() as conn:
            conn.execute("DROP ROLE zoe, yan")


@only(15)
def test_pam_by_a_service_of_its_own(world):
    service = f"pgtrickle-test-{os.getpid()}"
    directory = pg.new_directory("au_pam")
    script = os.path.join(directory, "check")
    hba = os.path.join(directory, "hba")
    for path, text in ((script, f"#!/bin/sh\n[ \"$(tr -d '\\0')\" = '{SECRET}' ]\n"),
                       (hba, f"host all all all pam pamservice={service}\n")):
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        os.chmod(path, 0o755)
    try:
        with open(f"/etc/pam.d/{service}", "w", encoding="utf-8") as f:
            f.write(f"auth required pam_exec.so expose_authtok quiet {script}\n"
                    "account required pam_permit.so\n")
    except OSError as e:
        raise Skip(f"no service file can be made: {e}") from e
    try:
        with daemon(world, settings={"auth_type": "hba", "auth_hba_file": hba}, users={}) as d:
            with d.connect(user="app", password=SECRET) as c:
                c.execute("SELECT 1")
            refused(lambda: d.connect(user="app", password="wrong"),
                    "password authentication failed")
    finally:
        os.unlink(f"/etc/pam.d/{service}")


@only(15)
def test_five_thousand_users_are_a_few_megabytes(world):
    def resident(d):
        with open(f"/proc/{d.process.pid}/smaps_rollup", encoding="utf-8") as f:
            return int(re.search(r"^Rss:\s+(\d+)", f.read(), re.M).group(1))

    sizes = []
    for n in (20, 5000):
        users = {f"user{i}": f"secret of {i}" for i in range(n)}
        users["postgres"] = pg.PASSWORD
        with daemon(world, settings={"auth_type": "plain"}, users=users) as d:
            with d.connect(password=pg.PASSWORD) as c:
                c.execute("SELECT 1")
            sizes.append(resident(d))
    if sizes[1] - sizes[0] > 8192:
        raise pg.Failure(f"{sizes[0]} kB with 20 users, {sizes[1]} kB with 5,000")


@only(15)
def test_client_certificates_log_in(world):
    """auth_type cert, and a rule of auth_hba_file with a map: the name is the certificate's."""
    c = certificates()
    directory = pg.new_directory("au_cert")
    hba, ident = os.path.join(directory, "hba"), os.path.join(directory, "ident")
    _write(hba, "hostssl all app all cert map=m\nhostssl all all all cert\n")
    _write(ident, "m alice app\nm /^(.*)\\.example$ \\1\n")
    tls = {"client_tls_sslmode": "verify-ca", **c.pair("client_tls", "server"), "client_tls_ca_file": c.path("ca.crt")}
    users = {"alice": "", "app": "", "postgres": pg.PASSWORD}
    target = {"*": f"host=127.0.0.1 port={world.cluster.port} dbname=postgres user=postgres"}
    mine = {"sslmode": "require", **c.of_client("client")}
    for rules in ({"auth_type": "cert", "client_tls_sslmode": "verify-full"},
                  {"auth_type": "hba", "auth_hba_file": hba, "auth_ident_file": ident}):
        with daemon(world, settings={**tls, **rules}, databases=target, users=users) as d:
            with d.connect(user="alice", **mine) as conn:
                conn.execute("SELECT 1")
            refused(lambda: d.connect(user="postgres", **mine), "TLS certificate name mismatch")
            refused(lambda: d.connect(user="alice", sslmode="require", **c.of_client("stray")), "")
            refused(lambda: d.connect(user="alice", sslmode="require"), "")
            refused(lambda: d.connect(user="alice", sslmode="disable"), "")
            if rules["auth_type"] == "hba":
                with d.connect(user="app", **mine) as conn:
                    conn.execute("SELECT 1")
            else:
                refused(lambda: d.connect(user="app", **mine), "")


@only(15)
def test_peers_of_the_unix_socket(world):
    directory = pg.new_directory("au_peer")
    if len(directory) > 80:
        raise Skip("the path is too long for a socket")
    hba, ident = os.path.join(directory, "hba"), os.path.join(directory, "ident")
    me = getpass.getuser()
    _write(hba, "local mapped all peer map=m\nlocal all all peer\nhost all all all trust\n")
    _write(ident, f"m {me} app\nm nobody_at_all reader\n")
    users = {me: "", "app": "", "reader": "", "postgres": pg.PASSWORD}
    target = {"*": f"host=127.0.0.1 port={world.cluster.port} dbname=postgres user=postgres"}
    settings = {"auth_type": "hba", "auth_hba_file": hba, "auth_ident_file": ident, "unix_socket_dir": directory}
    with daemon(world, settings=settings, databases=target, users=users) as d:
        def enter(dbname, user):
            return psycopg.connect(host=directory, port=d.port, dbname=dbname, user=user)

        pg.wait_until(lambda: f"{directory}/.s.PGSQL.{d.port}" in d.log(), 10, d.log)
        for dbname, user in (("any", me), ("mapped", "app")):
            with enter(dbname, user) as conn:
                conn.execute("SELECT 1")
        for dbname, user in (("any", "app"), ("mapped", me), ("mapped", "reader")):
            refused(lambda dbname=dbname, user=user: enter(dbname, user), "unix socket login rejected")


# RFC 4013, 3: examples of its table, and what they come to; some that SASLprep has to leave as they are.
PREPARED = ("I\u00adX", "IX", "\u2168", "user", "USER", "\u00aa", "a", "x\u0007", "\u0627\u0031", "\u0031\u0627",
            "a\u00a0b", "a b", "\u1e9b\u0323", "\u1e69", "e\u0301", "\u00e9")


def enters(connect):
    try:
        connect().close()
        return True
    except psycopg.OperationalError as e:
        if "authentication failed" not in str(e):
            raise
        return False


@only(15)
def test_passwords_are_prepared_as_by_postgresql(world):
    """As the stored one and as the given one, in both directions: who gets in at PostgreSQL gets in here."""
    n = len(PREPARED)
    target = f"host=127.0.0.1 port={world.cluster.port} dbname=postgres"
    databases = {"postgres": target, "open": target + " user=postgres"}
    names = [f"au_prep{i}" for i in range(n)]
    trusting = os.path.join(pg.new_directory("au_prep"), "hba")
    _write(trusting, "host postgres all all trust\nhost open all all scram-sha-256\n")
    with world.cluster.connect() as admin:
        admin.execute("SET password_encryption = 'scram-sha-256'")
        for name, password in zip(names, PREPARED):
            admin.execute(f"DROP ROLE IF EXISTS {name}")
            admin.execute(psycopg.sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(
                psycopg.sql.Identifier(name), password))
        with server_rules(world, [f"host all {name} all scram-sha-256" for name in names]):
            for shift in (1, n - 1):
                given = {names[i]: PREPARED[(i + shift) % n] for i in range(n)}
                # In our file is what the role is not told, and the other way round.
                with daemon(world, settings={"auth_type": "hba", "auth_hba_file": trusting}, databases=databases,
                            users={**given, "postgres": pg.PASSWORD}) as d:
                    for i, name in enumerate(names):
                        wanted = enters(lambda: world.cluster.connect(user=name, password=given[name]))
                        server = enters(lambda: d.connect("postgres", name))
                        client = enters(lambda: d.connect("open", name, password=PREPARED[i]))
                        if (server, client) != (wanted, wanted):
                            raise pg.Failure(f"{PREPARED[i]!r} and {given[name]!r}: {wanted}, here {server}, {client}")
        for name in names:
            admin.execute(f"DROP ROLE {name}")
