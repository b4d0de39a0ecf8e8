"""Roles without superuser, with exactly the grants that the README lists, and what happens without them."""

import os
import re

from tests.support import pg

QUERY = "SELECT region, count(*) AS n, sum(amount) AS total FROM orders GROUP BY region"


def readme_grants():
    """The SQL block of the README under the heading on grants, one statement each."""
    with open(os.path.join(pg.ROOT, "README.md"), encoding="utf-8") as f:
        text = f.read()
    m = re.search(r"^## What an admin grants$.*?^```sql\n(.*?)^```", text, re.S | re.M)
    if not m:
        raise pg.Failure("the README has no block of grants")
    statements = [re.sub(r"\s*--[^\n]*", "", s).strip() for s in m.group(1).split(";")]
    return [s for s in statements if s]


class Shop:
    """A database with a table of its owner, a daemon that maintains as `pgtrickle`, and no other superuser use."""

    def __init__(self, world, without=None, pool_mode="transaction"):
        self.cluster = world.cluster
        world.n_databases += 1
        self.name = f"shop{world.n_databases}"
        self.maint = f"pgtrickle{world.n_databases}"
        self.app = f"app{world.n_databases}"
        with self.cluster.connect() as admin:
            admin.execute(f"CREATE DATABASE {self.name}")
            admin.execute(f"CREATE ROLE {self.app} LOGIN PASSWORD '{pg.PASSWORD}'")
        self.admin = self.cluster.connect(self.name)
        self.admin.execute("CREATE TABLE orders (id serial PRIMARY KEY, region text, amount numeric)")
        self.admin.execute("INSERT INTO orders (region, amount) SELECT 'r' || i % 3, i FROM generate_series(1, 20) i")
        for statement in readme_grants():
            if without and re.search(without, statement):
                continue
            self.admin.execute(self.names(statement))
        with_password = f"ALTER ROLE {self.maint} PASSWORD '{pg.PASSWORD}'"
        if pg.one(self.admin, "SELECT count(*) FROM pg_roles WHERE rolname = %s", (self.maint,)):
            self.admin.execute(with_password)
        self.daemon = pg.Daemon(self.cluster, pool_mode,
                                {"dvm_user": self.maint, "dvm_password": f"{pg.PASSWORD}"},
                                users=[*pg.USERS, self.app, self.maint]).start()

    def names(self, statement):
        for name, own in (("shop", self.name), ("pgtrickle", self.maint), ("app", self.app)):
            statement = re.sub(rf"\b{name}\b", own, statement)
        return statement

    def connect(self, user=None):
        return self.daemon.connect(self.name, user or self.app)

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        self.daemon.stop()
        self.admin.close()
        with self.cluster.connect() as admin:
            admin.execute(f"DROP DATABASE {self.name} WITH (FORCE)")
            for role in (self.app, self.maint):
                admin.execute(f"DROP ROLE IF EXISTS {role}")


def test_with_the_grants_of_the_readme(world):
    with Shop(world) as shop:
        conn = shop.connect()
        conn.execute(f"CREATE STREAM TABLE deferred WITH (schedule = '1s', refresh_mode = 'DIFFERENTIAL') AS {QUERY}")
        conn.execute(f"CREATE STREAM TABLE at_once WITH (refresh_mode = 'IMMEDIATE') AS {QUERY}")
        conn.execute("CREATE TABLE own (a int)")
        conn.execute("CREATE STREAM TABLE mine WITH (refresh_mode = 'IMMEDIATE') AS SELECT sum(a) AS s FROM own")
        conn.execute("INSERT INTO own VALUES (1), (2)")
        pg.assert_equal(conn, "mine", "SELECT sum(a) AS s FROM own")
        # Who writes needs rights on the table only.
        shop.admin.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON orders TO writer")
        shop.admin.execute("GRANT USAGE ON SEQUENCE orders_id_seq TO writer")
        writer = shop.connect("writer")
        writer.execute("INSERT INTO orders (region, amount) VALUES ('w', 1)")
        writer.execute("UPDATE orders SET region = 'w' WHERE region = 'r0'")
        writer.execute("DELETE FROM orders WHERE region = 'r1'")
        pg.assert_equal(conn, "at_once", QUERY)
        pg.wait_equal(conn, "deferred", QUERY, 15)
        pg.expect_error(writer, "SELECT * FROM at_once", "42501")
        conn.execute("GRANT SELECT ON at_once TO reader")
        if not pg.rows(shop.connect("reader"), "SELECT * FROM at_once"):
            raise pg.Failure("the reader sees nothing")
        # Only the owner (and whoever has its role) may change, refresh or drop it.
        stranger = shop.connect("stranger")
        for statement in ("DROP STREAM TABLE deferred", "REFRESH STREAM TABLE deferred",
                          "ALTER STREAM TABLE deferred SET (schedule = '1h')",
                          "SELECT pgtrickle.drop_stream_table('deferred')",
                          "SELECT pgtrickle.alter_stream_table('deferred', status => 'SUSPENDED')"):
            pg.expect_error(stranger, statement, "42501")
        # The catalog can be read by all and written by nobody, nor can another's name be lent to a call.
        for conn_of in (stranger, conn):
            pg.rows(conn_of, "SELECT * FROM pgtrickle.pgt_stream_tables")
            pg.expect_error(conn_of, "UPDATE pgtrickle.pgt_stream_tables SET schedule = '9s'", "42501")
            pg.expect_error(conn_of, "DELETE FROM pgtrickle.pgt_refresh_history", "42501")
            pg.expect_error(conn_of, "INSERT INTO pgtrickle._call (op, args, caller)"
                                     " VALUES ('request', '{}', 'postgres')", "42501")
        buffers = pg.rows(shop.admin, "SELECT format('%I.%I', nspname, relname) FROM pg_class JOIN pg_namespace n"
                                      " ON n.oid = relnamespace WHERE nspname = 'pgtrickle_changes' AND relkind = 'r'")
        for (buffer,) in buffers:
            pg.expect_error(stranger, f"SELECT * FROM {buffer}", "42501")
            pg.expect_error(writer, f"DELETE FROM {buffer}", "42501")
        for name in ("deferred", "at_once", "mine"):
            conn.execute(f"DROP STREAM TABLE {name}")


def without(world, pattern, statement, hint, message=None):
    """Without this grant of the README the statement fails with 42501 and a HINT; with it, it works."""
    with Shop(world, without=pattern) as shop:
        conn = shop.connect()
        missing = [s for s in readme_grants() if re.search(pattern, s)]
        if not missing:
            raise pg.Failure(f"no grant of the README matches {pattern}")
        pg.expect_error(conn, statement, "42501", message, hint)
        for grant in missing:
            shop.admin.execute(shop.names(grant))
        conn.execute(statement)
        pg.assert_equal(conn, "st", QUERY)


def test_without_select(world):
    without(world, r"^GRANT SELECT, TRIGGER", f"CREATE STREAM TABLE st WITH (schedule = '1d') AS {QUERY}", "GRANT",
            "permission denied for table orders")


def test_without_trigger(world):
    with Shop(world, without=r"^GRANT SELECT, TRIGGER") as shop:
        conn = shop.connect()
        shop.admin.execute(shop.names("GRANT SELECT ON orders TO app"))
        for mode in ("DIFFERENTIAL", "IMMEDIATE"):
            pg.expect_error(conn, f"CREATE STREAM TABLE st WITH (refresh_mode = '{mode}') AS {QUERY}", "42501",
                            None, "GRANT.*TRIGGER.*orders")
        shop.admin.execute(shop.names("GRANT TRIGGER ON orders TO app"))
        conn.execute(f"CREATE STREAM TABLE st WITH (refresh_mode = 'IMMEDIATE') AS {QUERY}")
        pg.assert_equal(conn, "st", QUERY)


def test_without_create_on_the_schema(world):
    without(world, r"^GRANT CREATE ON SCHEMA", f"CREATE STREAM TABLE st WITH (schedule = '1d') AS {QUERY}", None,
            "permission denied for schema public")


def test_without_create_on_the_database(world):
    """The maintenance role cannot install the SQL side: the client is told what to grant, and to whom."""
    without(world, r"^GRANT CREATE ON DATABASE", f"CREATE STREAM TABLE st WITH (schedule = '1d') AS {QUERY}",
            "GRANT.*CREATE")


# Each way to more rights that a role could try; what fails is caught, so that the refresh goes on.
EVIL = """
CREATE TABLE tried (what text);
CREATE FUNCTION try(what text) RETURNS void LANGUAGE plpgsql AS $f$
BEGIN
    EXECUTE what;
EXCEPTION WHEN OTHERS THEN
    NULL;
END $f$;
CREATE FUNCTION try_all(place text) RETURNS void LANGUAGE plpgsql AS $f$
DECLARE
    role name;
BEGIN
    PERFORM public.try('ALTER ROLE %(evil)s SUPERUSER');
    FOREACH role IN ARRAY '{none,postgres}'::name[] LOOP
        PERFORM public.try(format('SET ROLE %%s', role));
        PERFORM public.try('ALTER ROLE %(evil)s SUPERUSER');
    END LOOP;
    PERFORM public.try('SELECT set_config(''role'', ''postgres'', true)');
    PERFORM public.try('RESET ROLE');
    PERFORM public.try('SET SESSION AUTHORIZATION postgres');
    PERFORM public.try('RESET SESSION AUTHORIZATION');
    PERFORM public.try('ALTER ROLE %(evil)s SUPERUSER');
    INSERT INTO public.tried VALUES (place);
END $f$;
-- What a search path and a cursor that are left behind would lead to.
CREATE FUNCTION equal(a bigint, b integer) RETURNS boolean LANGUAGE plpgsql AS $f$
BEGIN
    PERFORM public.try_all('operator');
    RETURN a OPERATOR(pg_catalog.=) b;
END $f$;
CREATE OPERATOR public.= (FUNCTION = public.equal, LEFTARG = bigint, RIGHTARG = integer);
CREATE FUNCTION held() RETURNS integer LANGUAGE plpgsql AS $f$
BEGIN
    PERFORM public.try_all('cursor');
    RETURN 1;
END $f$;
CREATE FUNCTION harmless(i integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS $f$
BEGIN
    PERFORM public.leave(i);
    RETURN i;
END $f$;
CREATE FUNCTION leave(i integer) RETURNS void LANGUAGE plpgsql AS $f$
BEGIN
    PERFORM public.try_all('function');
    PERFORM public.try('DECLARE later CURSOR WITH HOLD FOR SELECT public.held()');
    PERFORM set_config('search_path', 'public, pg_catalog', false);
    PERFORM set_config('standard_conforming_strings', 'off', false);
END $f$;
CREATE FUNCTION on_change() RETURNS trigger LANGUAGE plpgsql AS $f$
BEGIN
    PERFORM public.try_all('trigger');
    -- Once more, at COMMIT.
    IF (SELECT value FROM public.once_more) THEN
        SET CONSTRAINTS ALL DEFERRED;
        INSERT INTO public.again VALUES (1);
    END IF;
    RETURN NULL;
END $f$;
CREATE TABLE again (n integer);
CREATE TABLE once_more AS SELECT true AS value;
CREATE CONSTRAINT TRIGGER later AFTER INSERT ON again DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION on_change();
CREATE TABLE src (id integer PRIMARY KEY);
"""


def is_superuser(admin, role):
    return pg.one(admin, "SELECT rolsuper FROM pg_roles WHERE rolname = %s", (role,))


def test_no_way_to_the_rights_of_the_maintenance_role(world):
    """Maintained by a superuser: neither definitions nor deferred triggers get more than their owner has."""
    with world.database() as connect:
        admin = connect.direct()
        name = pg.one(admin, "SELECT current_database()")
        evil = "evil_" + name
        admin.execute(f"CREATE ROLE {evil} LOGIN; GRANT CREATE ON SCHEMA public TO {evil}")
        own = world.cluster.connect(name, evil)
        try:
            own.execute(EVIL % {"evil": evil})
            definition = "SELECT harmless(id) AS id FROM src"
            conn = connect()
            conn.execute("SELECT 1")
            pg.wait_until(lambda: installed(admin, conn), 20, "the SQL side")
            # Around the daemon: the scheduler fills.
            own.execute(f"SELECT pgtrickle.create_stream_table('st', '{definition}', '1s', 'DIFFERENTIAL')")
            pg.wait_until(lambda: pg.one(admin, "SELECT to_regclass('st') IS NOT NULL"), 20, "the stream table")
            own.execute("CREATE CONSTRAINT TRIGGER later AFTER INSERT OR UPDATE OR DELETE ON st DEFERRABLE INITIALLY DEFERRED"
                        " FOR EACH ROW EXECUTE FUNCTION on_change()")
            own.execute("INSERT INTO src VALUES (1), (2)")
            # The trigger defers itself again and again: refused at the end of the refresh, not run after it.
            pg.wait_until(lambda: pg.one(admin, "SELECT status FROM pgtrickle.pgt_stream_tables") == "ERROR", 20, "the refusal")
            found(admin, evil, "a trigger that defers itself again")
            own.execute("UPDATE once_more SET value = false; SELECT pgtrickle.resume_stream_table('st')")
            pg.wait_until(lambda: pg.one(admin, "SELECT count(*) FROM st") == 2, 20, "a refresh")
            found(admin, evil, "a scheduled refresh")
            own.execute("INSERT INTO src VALUES (3)")
            conn.execute("REFRESH STREAM TABLE st")
            found(admin, evil, "a refresh by a superuser")
            own.execute("SELECT pgtrickle.repair_stream_table('st')")
            pg.wait_until(lambda: pg.one(admin, "SELECT count(*) FROM pgtrickle.pgt_requests WHERE error IS NULL") == 0, 20,
                          "the rebuild")
            found(admin, evil, "a rebuild")
            # Another connection of the daemon's than that of the first job: whatever was left in it is used again.
            own.execute("INSERT INTO src VALUES (4)")
            pg.wait_until(lambda: pg.one(admin, "SELECT count(*) FROM st") == 4, 20, "another refresh")
            found(admin, evil, "a refresh after all that")
            tried = {row[0] for row in pg.rows(admin, "SELECT DISTINCT what FROM tried")}
            if not {"function", "trigger"} <= tried:
                raise pg.Failure(f"only {tried} ran: nothing was tested")
            pg.expect_error(own, "ALTER FUNCTION pgtrickle_run.x_1(text, xid8, xid8[], xid8, bigint, timestamptz, boolean)"
                                 " SECURITY INVOKER", "42501")
            conn.execute("DROP STREAM TABLE st")
            if pg.one(admin, "SELECT count(*) FROM pg_proc WHERE pronamespace = 'pgtrickle_run'::regnamespace") != 0:
                raise pg.Failure("the runner is left")
        finally:
            own.close()
            admin.execute(f"ALTER ROLE {evil} NOSUPERUSER; DROP OWNED BY {evil} CASCADE; DROP ROLE {evil}")


def found(admin, evil, after):
    if is_superuser(admin, evil):
        raise pg.Failure(f"{evil} is a superuser after {after}")


def installed(admin, conn):
    if not pg.one(admin, "SELECT to_regnamespace('pgtrickle') IS NOT NULL"):
        conn.execute("CREATE TABLE first (a integer)")
        conn.execute("CREATE STREAM TABLE none WITH (schedule = '1d') AS SELECT a FROM first")
        conn.execute("DROP STREAM TABLE none")
    return True
