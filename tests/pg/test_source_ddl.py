"""Sources of every kind, and DDL on them that goes around the daemon: never a wrong row, never a writer that fails."""

import os
import subprocess

from tests.support import pg
from tests.support.harness import only

WITH = "WITH (schedule = '1s', refresh_mode = 'DIFFERENTIAL')"


def field(conn, name, column):
    return pg.one(conn, f"SELECT {column} FROM pgtrickle.pgt_stream_tables WHERE pgt_name = %s", (name,))


def check(conn, name, query, what):
    """Refreshed by the scheduler, or rebuilt by it."""
    def settled():
        if field(conn, name, "status") != "ACTIVE":
            raise pg.Failure(f"{what}: {name} is {field(conn, name, 'status')}: {field(conn, name, 'last_error_message')}")
        return not pg.difference(conn, name, query)

    pg.wait_until(settled, 30, f"{name} to equal its query: {what}")


PARTITIONED = """
CREATE TABLE sales (id int, region text, amount numeric(10,2), at date NOT NULL, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE sales_1 PARTITION OF sales FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
CREATE TABLE sales_2 (at date NOT NULL, junk int, amount numeric(10,2), region text, id int NOT NULL) PARTITION BY LIST (region);
ALTER TABLE sales_2 DROP COLUMN junk;
CREATE TABLE sales_2a PARTITION OF sales_2 FOR VALUES IN ('a');
CREATE TABLE sales_2x PARTITION OF sales_2 DEFAULT;
"""


@only(18)
def test_partitions_by_scheduler(world):
    query = "SELECT region, count(*) AS n, sum(amount) AS total FROM sales GROUP BY region"
    keyed = "SELECT id, at, amount FROM sales WHERE amount > 2"
    steps = [
        "INSERT INTO sales SELECT i, chr(97 + i % 3), i, date '2026-01-01' + i % 50 FROM generate_series(1, 200) i",
        "INSERT INTO sales_2a (id, region, amount, at) VALUES (1001, 'a', 5, '2026-02-03')",
        "UPDATE sales SET at = at + 20 WHERE at < '2026-01-20' AND id % 3 = 0",
        "UPDATE sales_2 SET region = 'c' WHERE region = 'a' AND id % 2 = 0",
        "DELETE FROM sales_2x WHERE id % 7 = 0; UPDATE sales_1 SET amount = amount * 2 WHERE id % 5 = 0",
        "TRUNCATE sales_2a",
    ]
    with world.database() as connect:
        conn, direct = connect(), connect.direct()
        direct.execute(PARTITIONED.replace("PRIMARY KEY (id, at)", "UNIQUE (id, at, region)"))
        direct.execute("ALTER TABLE sales ATTACH PARTITION sales_2 FOR VALUES FROM ('2026-02-01') TO ('2026-03-01')")
        conn.execute(f"CREATE STREAM TABLE totals {WITH} AS {query}")
        conn.execute(f"CREATE STREAM TABLE rows {WITH} AS {keyed}")
        for step in steps:
            direct.execute(step)
            check(direct, "totals", query, step)
            check(direct, "rows", keyed, step)
        if field(direct, "totals", "effective_refresh_mode") not in ("FULL", "DIFFERENTIAL"):
            raise pg.Failure("no refresh")
        # What comes and goes by DDL, also what was undone before anyone looked.
        for step in (
            "CREATE TABLE sales_3 PARTITION OF sales FOR VALUES FROM ('2026-03-01') TO ('2026-04-01'); "
            "INSERT INTO sales_3 VALUES (3001, 'z', 7, '2026-03-05')",
            "UPDATE sales_3 SET amount = 8; INSERT INTO sales VALUES (3002, 'z', 7, '2026-03-06')",
            "ALTER TABLE sales DETACH PARTITION sales_1; UPDATE sales_1 SET amount = amount + 1; "
            "ALTER TABLE sales ATTACH PARTITION sales_1 FOR VALUES FROM ('2026-01-01') TO ('2026-02-01')",
            "CREATE TABLE sales_4 PARTITION OF sales FOR VALUES FROM ('2026-04-01') TO ('2026-05-01'); "
            "UPDATE sales SET at = '2026-04-02' WHERE id = 3002; ALTER TABLE sales DETACH PARTITION sales_4",
            "DROP TABLE sales_3",
        ):
            direct.execute(step)
            check(direct, "totals", query, step)
            check(direct, "rows", keyed, step)
        direct.execute("INSERT INTO sales_1 VALUES (5001, 'q', 9, '2026-01-05')")
        check(direct, "totals", query, "captured again")
        last = pg.one(direct, "SELECT action FROM pgtrickle.pgt_refresh_history JOIN pgtrickle.pgt_stream_tables USING (pgt_id) "
                              "WHERE pgt_name = 'totals' ORDER BY refresh_id DESC LIMIT 1")
        if last != "DIFFERENTIAL":
            raise pg.Failure(f"a row written to a leaf was brought in by {last}")


@only(18)
def test_inheritance_unlogged_and_views_of_views(world):
    with world.database() as connect:
        conn, direct = connect(), connect.direct()
        direct.execute("""
            CREATE TABLE city (id int PRIMARY KEY, name text, people int);
            CREATE TABLE capital (country text) INHERITS (city);
            CREATE UNLOGGED TABLE quick (id int, v int);
            CREATE VIEW big AS SELECT name, people FROM city WHERE people > 10;
            CREATE VIEW bigger AS SELECT name, people FROM big WHERE people > 20;
            INSERT INTO city SELECT i, 'c' || i, i FROM generate_series(1, 40) i;
            INSERT INTO capital SELECT i, 'k' || i, i, 'x' FROM generate_series(20, 30) i;""")
        definitions = {"cities": "SELECT id, name, people FROM city", "seen": "SELECT name, people FROM bigger",
                       "fast": "SELECT v, count(*) AS n FROM quick GROUP BY v"}
        for name, query in definitions.items():
            conn.execute(f"CREATE STREAM TABLE {name} {WITH} AS {query}")
        for step in (
            "INSERT INTO capital VALUES (25, 'dup', 50, 'y'); INSERT INTO quick SELECT i, i % 3 FROM generate_series(1, 9) i",
            "UPDATE city SET people = people + 5 WHERE id % 2 = 0; DELETE FROM ONLY city WHERE id < 5; UPDATE ONLY city SET name = 'only' WHERE id = 22",
            "DELETE FROM capital WHERE id > 28; UPDATE quick SET v = v + 1 WHERE id < 4",
            "CREATE OR REPLACE VIEW big AS SELECT name, people FROM city WHERE people > 15 AND name LIKE 'c%'",
            "INSERT INTO city VALUES (99, 'c99', 99); TRUNCATE quick",
            "CREATE TABLE village () INHERITS (city); INSERT INTO village VALUES (200, 'c200', 200)",
        ):
            direct.execute(step)
            for name, query in definitions.items():
                check(direct, name, query, step)


@only(15)
def test_ddl_on_sources_behind_our_back(world):
    query = "SELECT id, label(kind) AS kind, amount FROM orders"
    with world.database() as connect:
        conn, direct = connect(), connect.direct()
        direct.execute("""
            CREATE FUNCTION label(k text) RETURNS text LANGUAGE sql IMMUTABLE AS $$SELECT '<' || k || '>'$$;
            CREATE TABLE orders (id int PRIMARY KEY, kind text, amount numeric(10,2), other int);
            INSERT INTO orders SELECT i, 'k' || i % 4, i, i FROM generate_series(1, 50) i;""")
        conn.execute(f"CREATE STREAM TABLE st {WITH} AS {query}")
        conn.execute("CREATE STREAM TABLE now_too WITH (refresh_mode = 'IMMEDIATE') AS "
                     "SELECT kind, count(*) AS n FROM orders GROUP BY kind")
        for step, is_seen in (
            ("ALTER TABLE orders ADD COLUMN more int; ALTER TABLE orders DROP COLUMN other; GRANT SELECT ON orders TO reader; "
             "CREATE INDEX ON orders (kind); CREATE UNIQUE INDEX orders_u ON orders (id, kind)", False),
            ("CLUSTER orders USING orders_pkey", False),
            ("VACUUM FULL orders", False),
            ("CREATE OR REPLACE FUNCTION label(k text) RETURNS text LANGUAGE sql IMMUTABLE AS $$SELECT '[' || k || ']'$$", True),
            ("ALTER TABLE orders DISABLE TRIGGER ALL; UPDATE orders SET amount = 7, kind = 'x' WHERE id < 5; ALTER TABLE orders ENABLE TRIGGER ALL", True),
            ("ALTER TABLE orders ALTER amount TYPE numeric(10,2) USING amount * 2", True),
            ("ALTER TABLE orders DROP CONSTRAINT orders_pkey; INSERT INTO orders (id, kind, amount) VALUES (1, 'again', 1)", True),
            ("ALTER TABLE orders RENAME TO elsewhere; ALTER TABLE elsewhere RENAME TO orders", False),
            ("ALTER TABLE orders SET UNLOGGED; ALTER TABLE orders SET LOGGED", None),
        ):
            before = pg.one(direct, "SELECT coalesce(max(refresh_id), 0) FROM pgtrickle.pgt_refresh_history")
            direct.execute(step)
            direct.execute("INSERT INTO orders (id, kind, amount) SELECT max(id) + 1, 'w', 1 FROM orders")
            check(direct, "st", query, step)
            check(direct, "now_too", "SELECT kind, count(*) AS n FROM orders GROUP BY kind", step)
            whole = pg.one(direct, "SELECT count(*) FROM pgtrickle.pgt_refresh_history JOIN pgtrickle.pgt_stream_tables USING (pgt_id) "
                                   "WHERE pgt_name = 'st' AND refresh_id > %s AND action <> 'DIFFERENTIAL' AND action <> 'NO_DATA'", (before,))
            if is_seen is not None and (whole > 0) != is_seen:
                raise pg.Failure(f"{step}: {whole} full refreshes")
        # What the definition's text does not fit any more waits for a person; writers go on.
        direct.execute("ALTER TABLE orders RENAME COLUMN amount TO price")
        direct.execute("INSERT INTO orders (id, kind, price) VALUES (900, 'w', 1)")
        pg.wait_until(lambda: field(direct, "st", "status") == "ERROR", 30, "an error")
        if "amount" not in field(direct, "st", "last_error_message"):
            raise pg.Failure(field(direct, "st", "last_error_message"))
        direct.execute("ALTER TABLE orders RENAME COLUMN price TO amount")
        direct.execute("SELECT pgtrickle.resume_stream_table('st')")
        check(direct, "st", query, "renamed back and resumed")


def test_writers_in_the_role_of_a_replica_are_captured(world):
    """session_replication_role = replica writes without triggers and leaves no trace in the catalog: ours are ALWAYS ones."""
    query = "SELECT id, v FROM t"
    with world.database() as connect:
        conn, direct = connect(), connect.direct()
        direct.execute("CREATE TABLE t (id int PRIMARY KEY, v int)")
        conn.execute(f"CREATE STREAM TABLE st {WITH} AS {query}")
        direct.execute("SET session_replication_role = replica; INSERT INTO t VALUES (1, 1); UPDATE t SET v = 2; RESET session_replication_role")
        check(direct, "st", query, "written as a replica")
        direct.execute("INSERT INTO t VALUES (2, 2)")
        check(direct, "st", query, "written as ever")


@only(15)
def test_dump_and_restore_and_template_copies(world):
    queries = {"totals": "SELECT kind, sum(v) AS v FROM src GROUP BY kind", "above": "SELECT count(*) AS n, sum(v) AS v FROM totals",
               "at_once": "SELECT kind, count(*) AS n FROM src GROUP BY kind"}
    with world.database() as connect:
        conn, direct = connect(), connect.direct()
        direct.execute("CREATE TABLE src (id int PRIMARY KEY, kind text, v int); INSERT INTO src SELECT i, 'k' || i % 3, i FROM generate_series(1, 30) i")
        for name in ("totals", "above"):
            conn.execute(f"CREATE STREAM TABLE {name} {WITH} AS {queries[name]}")
        conn.execute(f"CREATE STREAM TABLE at_once WITH (refresh_mode = 'IMMEDIATE') AS {queries['at_once']}")
        check(direct, "above", queries["above"], "before the dump")
        name, port = direct.info.dbname, direct.info.port
        bin_ = os.path.dirname(pg.PSQL)
        version = direct.info.server_version // 10000
        if version > 15:
            bin_ = pg.Cluster.binaries(version)
            if not os.path.exists(os.path.join(bin_, "pg_dump")):
                return
        base = ["-h", "127.0.0.1", "-p", str(port), "-U", "postgres"]
        admin = pg.connect(port)
        # One way a run: each takes as long as the whole of the rest.
        for how in (("plain", "custom", "parts", "template")[world.seed % 4],):
            copy = f"{name}_{how}"
            try:
                if how == "template":
                    conn.close()
                    direct.close()
                    pg.wait_until(lambda: _copied(admin, copy, name), 60, "nobody to be connected to the template")
                else:
                    admin.execute(f'CREATE DATABASE "{copy}" ALLOW_CONNECTIONS true')
                    _restore(bin_, base, name, copy, how)
                there = pg.connect(port, dbname=copy)
                there.execute("INSERT INTO src VALUES (1000, 'new', 5)")  # no writer fails
                pg.expect_error(there, "SELECT pgtrickle.refresh_stream_table('totals')", "55000", hint="restore_stream_tables")
                if pg.one(there, "SELECT pgtrickle.restore_stream_tables()") != 3:
                    raise pg.Failure(f"{how}: not three stream tables")
                for st in ("totals", "above", "at_once"):
                    pg.wait_until(lambda st=st: pg.one(there, "SELECT count(*) FROM pgtrickle.pgt_requests WHERE error IS NULL") == 0, 60, f"{how}: {st} rebuilt")
                    check(there, st, queries[st], f"{how}: after the step")
                there.execute("UPDATE src SET v = v + 1, kind = 'z' WHERE id < 7")
                for st in ("at_once", "totals", "above"):
                    check(there, st, queries[st], f"{how}: maintained again")
                there.close()
            finally:
                admin.execute(f'DROP DATABASE IF EXISTS "{copy}" WITH (FORCE)')


def _copied(admin, copy, name):
    admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
    try:
        admin.execute(f'CREATE DATABASE "{copy}" TEMPLATE "{name}"')
    except Exception:  # someone connected again
        return False
    return True


def _restore(bin_, base, name, copy, how):
    def run(program, *args, stdin=None):
        return subprocess.run([os.path.join(bin_, program), *base, *args], input=stdin, check=True, capture_output=True, timeout=60).stdout

    if how == "plain":
        run("psql", "-q", "-X", "-v", "ON_ERROR_STOP=1", "-d", copy, stdin=run("pg_dump", "-d", name))
    elif how == "custom":
        run("pg_restore", "-d", copy, "--exit-on-error", stdin=run("pg_dump", "-Fc", "-d", name))
    else:
        run("psql", "-q", "-X", "-v", "ON_ERROR_STOP=1", "-d", copy, stdin=run("pg_dump", "--schema-only", "-d", name))
        run("psql", "-q", "-X", "-v", "ON_ERROR_STOP=1", "-d", copy, stdin=run("pg_dump", "--data-only", "--disable-triggers", "-d", name))
