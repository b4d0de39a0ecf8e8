"""The public interface, line by line: statements, functions, protocols, transactions, errors."""

import psycopg

from tests.support import pg
from tests.support.harness import smoke

BASE = """
CREATE TABLE orders (id serial PRIMARY KEY, region text, amount numeric(10,2), at timestamptz DEFAULT now());
INSERT INTO orders (region, amount) SELECT 'r' || i % 3, i FROM generate_series(1, 30) i;
"""
BY_REGION = "SELECT region, count(*) AS n, sum(amount) AS total FROM orders GROUP BY region"


def tag(conn, statement, params=None):
    return conn.execute(statement, params).statusmessage


def expect(found, expected, what):
    if found != expected:
        raise pg.Failure(f"{what}: {found!r} instead of {expected!r}")


def exists(conn, name):
    return pg.one(conn, "SELECT to_regclass(%s) IS NOT NULL", (name,))


def catalogued(conn, name):
    return pg.one(conn, "SELECT count(*) FROM pgtrickle.pgt_stream_tables WHERE pgt_name = %s", (name,)) == 1


def field(conn, name, column):
    return pg.one(conn, f"SELECT {column} FROM pgtrickle.pgt_stream_tables WHERE pgt_name = %s", (name,))


@smoke
def test_statements_and_tags(world):
    for mode in ("session", "transaction"):
        with world.database(mode) as connect:
            conn = connect()
            conn.execute(BASE)
            expect(tag(conn, "CREATE STREAM TABLE a WITH (schedule = '1d', refresh_mode = 'DIFFERENTIAL') AS "
                       + BY_REGION), "CREATE STREAM TABLE", "tag")
            pg.assert_equal(conn, "a", BY_REGION)
            expect(tag(conn, "CREATE STREAM TABLE IF NOT EXISTS a AS SELECT 1 AS x FROM orders"),
                   "CREATE STREAM TABLE", "tag of IF NOT EXISTS")
            pg.assert_equal(conn, "a", BY_REGION)
            expect(tag(conn, "CREATE OR REPLACE STREAM TABLE a WITH (schedule = '1d') AS"
                             " SELECT region, max(amount) AS top FROM orders GROUP BY region"),
                   "CREATE STREAM TABLE", "tag of OR REPLACE")
            pg.assert_equal(conn, "a", "SELECT region, max(amount) AS top FROM orders GROUP BY region")
            expect(tag(conn, "ALTER STREAM TABLE a AS " + BY_REGION), "ALTER STREAM TABLE", "tag of ALTER ... AS")
            pg.assert_equal(conn, "a", BY_REGION)
            expect(tag(conn, "ALTER STREAM TABLE a SET (schedule = '1h', tier = warm)"), "ALTER STREAM TABLE", "SET")
            expect((field(conn, "a", "schedule"), field(conn, "a", "refresh_tier")), ("1h", "warm"), "after SET")
            expect(tag(conn, "ALTER STREAM TABLE a RESET (tier)"), "ALTER STREAM TABLE", "RESET")
            expect(field(conn, "a", "refresh_tier"), "hot", "tier after RESET")
            conn.execute("ALTER STREAM TABLE a SUSPEND")
            expect(field(conn, "a", "status"), "SUSPENDED", "status")
            conn.execute("ALTER STREAM TABLE a RESUME")
            expect(field(conn, "a", "status"), "ACTIVE", "status")
            conn.execute("INSERT INTO orders (region, amount) VALUES ('new', 5), (NULL, NULL)")
            expect(tag(conn, "REFRESH STREAM TABLE a"), "REFRESH STREAM TABLE", "tag of REFRESH")
            pg.assert_equal(conn, "a", BY_REGION)
            conn.execute("ALTER STREAM TABLE a RENAME TO b")
            expect((exists(conn, "a"), catalogued(conn, "b")), (False, True), "RENAME TO")
            conn.execute("CREATE SCHEMA s")
            conn.execute("ALTER STREAM TABLE b SET SCHEMA s")
            conn.execute("UPDATE orders SET amount = 1 WHERE region = 'r1'")
            conn.execute("REFRESH STREAM TABLE s.b")
            pg.assert_equal(conn, "s.b", BY_REGION, "after RENAME and SET SCHEMA")
            conn.execute("GRANT USAGE, CREATE ON SCHEMA s TO maint; GRANT SELECT, TRIGGER ON orders TO maint")
            conn.execute("ALTER STREAM TABLE s.b OWNER TO maint")
            expect(pg.one(conn, "SELECT relowner::regrole::text FROM pg_class WHERE oid = 's.b'::regclass"), "maint",
                   "owner")
            conn.execute("ALTER STREAM TABLE IF EXISTS nothing SUSPEND")
            expect(tag(conn, "DROP STREAM TABLE s.b"), "DROP STREAM TABLE", "tag of DROP")
            expect((exists(conn, "s.b"), catalogued(conn, "b")), (False, False), "DROP")
            expect(tag(conn, "DROP STREAM TABLE IF EXISTS s.b, c"), "DROP STREAM TABLE", "DROP IF EXISTS")
            left = pg.rows(conn, "SELECT relname FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace"
                                 " WHERE nspname = 'pgtrickle_changes' AND relkind = 'r'")
            expect(left, [], "change buffers after the last DROP")
            expect(pg.one(conn, "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'orders'::regclass"), 0, "triggers")


def test_columns_are_the_query_s(world):
    queries = {
        "names and types": "SELECT id, region AS \"Region X\", amount * 2 AS twice, at::date AS d, 'k'::text AS k,"
                           " ARRAY[id, 1] AS list FROM orders",
        "aggregates": "SELECT region, count(*), sum(amount), avg(amount), max(at) FROM orders GROUP BY region",
    }
    with world.database() as connect:
        conn = connect()
        conn.execute(BASE)
        for n, (what, query) in enumerate(queries.items()):
            conn.execute(f"CREATE STREAM TABLE q{n} WITH (schedule = '1d') AS {query}")
            conn.execute(f"CREATE VIEW v{n} AS {query}")
            columns = ("SELECT attname, format_type(atttypid, atttypmod), attcollation FROM pg_attribute"
                       " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped AND attname !~ '^__pgt_'"
                       " ORDER BY attnum")
            expect(pg.rows(conn, columns, (f"q{n}",)), pg.rows(conn, columns, (f"v{n}",)), what)
            expect(pg.one(conn, "SELECT count(*) FROM pg_attribute WHERE attrelid = 'q1'::regclass AND attnum > 0"
                                " AND attname = '__pgt_count'") if n else 0, 0, "no hidden copy of a count that is shown")
        conn.execute("CREATE STREAM TABLE renamed (a, b, c) WITH (schedule = '1d') AS " + BY_REGION)
        expect(pg.visible_columns(conn, "renamed"), ["a", "b", "c"], "a column list")
        conn.execute("INSERT INTO orders (region, amount) VALUES ('x', 2)")
        conn.execute("REFRESH STREAM TABLE renamed")
        pg.assert_equal(conn, "renamed", BY_REGION)
        pg.expect_error(conn, "CREATE STREAM TABLE toomany (a, b, c, d) AS " + BY_REGION, "42601")


def test_spelling(world):
    """Comments, quoting, case, white space, and several statements in one string."""
    with world.database() as connect:
        conn = connect()
        conn.execute(BASE)
        conn.execute("-- a comment\n/* and /* nested */ one */ cReAtE\n\tStream /* here */ TABLE \"Odd Name\""
                     " (region, \"N\", total)\n WITH (\"schedule\" = '1d', refresh_mode = differential)"
                     " AS /* ; */ " + BY_REGION + " -- ; the end")
        expect(pg.visible_columns(conn, '"Odd Name"'), ["region", "N", "total"], "columns")
        pg.assert_equal(conn, '"Odd Name"', BY_REGION)
        conn.execute('DROP STREAM TABLE "Odd Name"')
        out = pg.psql(connect.port, connect.name, args=("-c", (
            "CREATE TABLE x (a int); INSERT INTO x VALUES (1), (2);"
            " CREATE STREAM TABLE sx WITH (refresh_mode = 'IMMEDIATE') AS SELECT sum(a) AS s FROM x;"
            " INSERT INTO x VALUES (4); SELECT 'sum', s FROM sx; DROP STREAM TABLE sx")))
        for line in ("CREATE TABLE", "INSERT 0 2", "CREATE STREAM TABLE", "INSERT 0 1", "sum", "DROP STREAM TABLE"):
            if line not in out:
                raise pg.Failure(f"{line!r} is not in the output of psql:\n{out}")
        if "7" not in out.split("sum", 1)[1]:
            raise pg.Failure(f"the sum is not 7:\n{out}")
        # One string is one transaction: the error in its end undoes its begin.
        conn.pgconn.exec_(b"CREATE STREAM TABLE gone AS SELECT id FROM orders; SELECT 1/0; SELECT 2")
        expect(exists(conn, "gone"), False, "a stream table made in a string that failed")
        # Text that only looks like a statement of ours.
        expect(pg.one(conn, "SELECT 'CREATE STREAM TABLE t AS SELECT 1' || $$DROP STREAM TABLE$$"),
               "CREATE STREAM TABLE t AS SELECT 1DROP STREAM TABLE", "a literal")
        pg.expect_error(conn, "CREATE STREAM", "42601")
        pg.expect_error(conn, "CREATE STREAM TABLE t AS", "42601")
        pg.expect_error(conn, "CREATE STREAM TABLE t WITH (nosuch = 1) AS SELECT id FROM orders", "22023")


def test_extended_protocol(world):
    for mode in ("session", "transaction"):
        with world.database(mode) as connect:
            connect().execute(BASE)
            conn = connect(prepare_threshold=0)  # everything by named prepared statements
            for n in range(3):
                expect(tag(conn, "CREATE STREAM TABLE a WITH (refresh_mode = 'IMMEDIATE') AS " + BY_REGION),
                       "CREATE STREAM TABLE", f"prepared, round {n}")
                conn.execute("INSERT INTO orders (region, amount) VALUES (%s, %s)", ("p", n))
                pg.assert_equal(conn, "a", BY_REGION)
                conn.execute("DROP STREAM TABLE a")
            # Bound parameters of a function call.
            conn.execute("SELECT pgtrickle.create_stream_table(%s, %s, schedule => %s, refresh_mode => %s)",
                         ("bound", BY_REGION, "1d", "DIFFERENTIAL"))
            pg.assert_equal(conn, "bound", BY_REGION)
            rows = conn.execute("EXPLAIN STREAM TABLE bound", prepare=True).fetchall()
            if not rows or not all(len(r) == 1 for r in rows):
                raise pg.Failure(f"EXPLAIN STREAM TABLE: {rows}")
            conn.execute("SELECT pgtrickle.drop_stream_table(%s)", ("bound",))
            with conn.pipeline():
                conn.execute("CREATE STREAM TABLE piped WITH (schedule = '1d') AS " + BY_REGION)
                cursor = conn.execute("SELECT count(*) FROM piped")
                conn.execute("DROP STREAM TABLE piped")
            if cursor.fetchone() != (pg.one(conn, "SELECT count(DISTINCT region) FROM orders"),):
                raise pg.Failure("a pipeline does not read what it created")
            try:
                with conn.pipeline():
                    conn.execute("CREATE STREAM TABLE undone WITH (schedule = '1d') AS " + BY_REGION)
                    conn.execute("SELECT 1/0")
            except psycopg.errors.DivisionByZero:
                pass
            expect(exists(conn, "undone"), False, "what a failed pipeline made")


def test_functions(world):
    """Positional and named arguments, dollar quotes, DO blocks, functions of users, CALL."""
    with world.database("transaction") as connect:
        conn = connect()
        conn.execute(BASE)
        conn.execute(f"SELECT pgtrickle.create_stream_table('f1', '{BY_REGION}', '1d', 'DIFFERENTIAL')")
        conn.execute(f"SELECT pgtrickle.create_stream_table(name => 'f2', schedule => '1d', query => $q${BY_REGION}$q$)")
        conn.execute(f"DO $do$ BEGIN PERFORM pgtrickle.create_stream_table('f3', $q${BY_REGION}$q$, 'IMMEDIATE');"
                     " END $do$")
        conn.execute("CREATE FUNCTION make(n text) RETURNS void LANGUAGE plpgsql AS $f$ BEGIN"
                     f" PERFORM pgtrickle.create_stream_table(n, $q${BY_REGION}$q$, schedule => '1d'); END $f$")
        conn.execute("SELECT make('f4')")  # no word of ours in the text
        for name in ("f1", "f2", "f3", "f4"):
            pg.wait_until(lambda: exists(conn, name), 10, f"{name} exists")
            pg.assert_equal(conn, name, BY_REGION)
        expect(field(conn, "f3", "refresh_mode"), "IMMEDIATE", "schedule => 'IMMEDIATE'")
        conn.execute("DELETE FROM orders WHERE region = 'r0'")
        pg.assert_equal(conn, "f3", BY_REGION)
        for name in ("f1", "f2", "f4"):
            conn.execute(f"SELECT pgtrickle.refresh_stream_table('{name}')")
            pg.assert_equal(conn, name, BY_REGION)
        conn.execute("SELECT pgtrickle.alter_stream_table('f1', schedule => '2h', tier => 'cold')")
        expect((field(conn, "f1", "schedule"), field(conn, "f1", "refresh_tier")), ("2h", "cold"), "alter")
        conn.execute("SELECT pgtrickle.alter_stream_table('f1', refresh_mode => 'IMMEDIATE')")
        conn.execute("UPDATE orders SET amount = amount + 1")
        pg.assert_equal(conn, "f1", BY_REGION, "after the change to IMMEDIATE")
        conn.execute("SELECT pgtrickle.alter_stream_table('f1', refresh_mode => 'DIFFERENTIAL')")
        conn.execute("UPDATE orders SET amount = amount - 2")
        conn.execute("SELECT pgtrickle.refresh_stream_table('f1')")
        pg.assert_equal(conn, "f1", BY_REGION, "after the change back")
        for name in ("f1", "f2", "f3", "f4"):
            conn.execute(f"SELECT pgtrickle.drop_stream_table('{name}')")
        expect(pg.one(conn, "SELECT count(*) FROM pgtrickle.pgt_stream_tables"), 0, "stream tables left")
        expect(pg.one(conn, "SELECT count(*) FROM pgtrickle.pgt_requests"), 0, "requests left")


def test_transactional(world):
    with world.database("transaction") as connect:
        conn, other = connect(), connect()
        conn.execute(BASE)
        conn.execute("BEGIN")
        conn.execute("CREATE TABLE fresh (a int)")
        conn.execute("INSERT INTO fresh VALUES (1), (2)")
        conn.execute("CREATE STREAM TABLE st WITH (refresh_mode = 'IMMEDIATE') AS SELECT sum(a) AS s FROM fresh")
        expect(pg.one(conn, "SELECT s FROM st"), 3, "read in the creating transaction")
        conn.execute("INSERT INTO fresh VALUES (10)")
        expect(pg.one(conn, "SELECT s FROM st"), 13, "maintained in the creating transaction")
        expect(exists(other, "st"), False, "seen by others before the commit")
        conn.execute("SAVEPOINT s")
        conn.execute("DROP STREAM TABLE st")
        conn.execute("CREATE STREAM TABLE st2 WITH (schedule = '1d') AS SELECT a FROM fresh")
        conn.execute("ROLLBACK TO SAVEPOINT s")
        conn.execute("INSERT INTO fresh VALUES (100)")
        conn.execute("COMMIT")
        expect((pg.one(other, "SELECT s FROM st"), exists(other, "st2")), (113, False), "after the commit")
        conn.execute("BEGIN")
        conn.execute("CREATE STREAM TABLE undone WITH (schedule = '1d') AS " + BY_REGION)
        conn.execute("ALTER STREAM TABLE st SET (refresh_mode = 'FULL')")
        conn.execute("ROLLBACK")
        expect((exists(conn, "undone"), catalogued(conn, "undone"), field(conn, "st", "refresh_mode")),
               (False, False, "IMMEDIATE"), "after the rollback")
        expect(pg.one(conn, "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'orders'::regclass"), 0, "triggers")
        conn.execute("BEGIN")
        conn.execute("DROP STREAM TABLE st")
        conn.execute("ROLLBACK")
        conn.execute("INSERT INTO fresh VALUES (1000)")
        expect(pg.one(conn, "SELECT s FROM st"), 1113, "maintained after a DROP that was rolled back")
        # An error inside a block leaves the block failed, as any error of the server.
        conn.execute("BEGIN")
        pg.expect_error(conn, "CREATE STREAM TABLE st WITH (schedule = '1d') AS " + BY_REGION, "42P07")
        pg.expect_error(conn, "SELECT 1", "25P02")
        conn.execute("ROLLBACK")


def test_errors(world):
    """Each is clear, and points into the user's own text."""
    with world.database() as connect:
        conn = connect()
        conn.execute(BASE)
        conn.execute("CREATE TEMP TABLE temporary (a int)")
        conn.execute("CREATE TABLE taken (a int)")
        conn.execute("CREATE FUNCTION roll(int) RETURNS int LANGUAGE sql VOLATILE AS 'SELECT $1'")
        create = "CREATE STREAM TABLE e WITH (refresh_mode = 'DIFFERENTIAL') AS "
        cases = [
            ("SELECT nothing FROM orders", "42703", "nothing"),
            ("SELECT id FROM nowhere", "42P01", "nowhere"),
            ("SELECT id, FROM orders", "42601", "FROM"),
            ("SELECT region, count(*) FROM orders", "42803", "region"),
            ("SELECT id + 'x' FROM orders", "22P02", "'x'"),
        ]
        for query, sqlstate, at in cases:
            e = pg.expect_error(conn, create + query, sqlstate)
            expect(e.diag.statement_position, str((create + query).index(at, len(create)) + 1),
                   f"position of {e.diag.message_primary!r} in {query!r}")
        # Characters, not bytes.
        text = "CREATE STREAM TABLE \"\u00fcber\u00e4ll\" /* \u20ac */ AS SELECT nothing FROM orders"
        e = pg.expect_error(conn, text, "42703")
        expect(e.diag.statement_position, str(text.index("nothing") + 1), "position after characters of several bytes")
        pg.expect_error(conn, "CREATE STREAM TABLE taken AS SELECT id FROM orders", "42P07")
        pg.expect_error(conn, create + "SELECT id FROM orders WHERE amount > random()", "0A000", "volatile|random")
        pg.expect_error(conn, create + "SELECT roll(id) AS r FROM orders", "0A000", "volatile|roll")
        pg.expect_error(conn, create + "SELECT a FROM temporary", "0A000", "temporary")
        pg.expect_error(conn, create + "SELECT id FROM orders WHERE id = $1", "42P02")
        pg.expect_error(conn, "SELECT pgtrickle.create_stream_table('e', 'SELECT 1 AS a; SELECT 2')", "42601")
        pg.expect_error(conn, "SELECT pgtrickle.create_stream_table('e', 'SELECT id FROM orders', schedule => 'soon')",
                        "22023")
        pg.expect_error(conn, "SELECT pgtrickle.create_stream_table('e', 'SELECT id FROM orders',"
                              " refresh_mode => 'SOMETIMES')", "22023")
        pg.expect_error(conn, "SELECT pgtrickle.drop_stream_table('nothing')", "42P01")
        pg.expect_error(conn, "REFRESH STREAM TABLE nothing", "42P01")
        pg.expect_error(conn, "DROP STREAM TABLE nothing", "42P01")
        expect(exists(conn, "orders"), True, "orders")
        expect(pg.one(conn, "SELECT count(*) FROM pgtrickle.pgt_stream_tables"), 0, "stream tables after errors")
        expect(pg.one(conn, "SELECT count(*) FROM pgtrickle.pgt_requests"), 0, "requests after errors")


def test_refusals(world):
    """What cannot be maintained: refused with a reason, or FULL under AUTO, with a NOTICE."""
    unsupported = [
        "SELECT id FROM orders TABLESAMPLE SYSTEM (50)",
    ]
    with world.database() as connect:
        conn = connect()
        conn.execute(BASE)
        for n, query in enumerate(unsupported):
            for mode in ("DIFFERENTIAL", "IMMEDIATE"):
                text = f"CREATE STREAM TABLE u WITH (refresh_mode = '{mode}') AS {query}"
                e = pg.expect_error(conn, text, "0A000")
                if not e.diag.message_hint or not e.diag.statement_position:
                    raise pg.Failure(f"no hint or position: {e.diag.message_primary} for {query}")
            conn.notices.clear()
            conn.execute(f"CREATE STREAM TABLE u{n} WITH (schedule = '1d') AS {query}")
            if not conn.notices:
                raise pg.Failure(f"AUTO took FULL without a NOTICE: {query}")
            expect(field(conn, f"u{n}", "refresh_mode"), "FULL", "mode")
            conn.execute("INSERT INTO orders (region, amount) VALUES ('more', 1)")
            conn.execute(f"REFRESH STREAM TABLE u{n}")
            if "TABLESAMPLE" not in query:
                pg.assert_equal(conn, f"u{n}", query)


def test_explain(world):
    with world.database() as connect:
        conn = connect()
        conn.execute(BASE)
        text = "\n".join(r[0] for r in conn.execute(
            "EXPLAIN CREATE STREAM TABLE x WITH (refresh_mode = 'DIFFERENTIAL') AS " + BY_REGION))
        for word in ("orders", "DIFFERENTIAL", "__pgt_w"):
            if word.lower() not in text.lower():
                raise pg.Failure(f"{word!r} is not in EXPLAIN CREATE STREAM TABLE:\n{text}")
        expect(exists(conn, "x"), False, "EXPLAIN CREATE created it")
        conn.execute("CREATE STREAM TABLE x WITH (schedule = '1d') AS " + BY_REGION)
        text = "\n".join(r[0] for r in conn.execute("EXPLAIN STREAM TABLE x"))
        if "orders" not in text:
            raise pg.Failure(f"EXPLAIN STREAM TABLE:\n{text}")
        text = "\n".join(r[0] for r in conn.execute(
            "EXPLAIN CREATE STREAM TABLE y AS SELECT id FROM orders TABLESAMPLE BERNOULLI (50) REPEATABLE (1)"))
        if "FULL" not in text.upper():
            raise pg.Failure(f"EXPLAIN of what is not differential:\n{text}")
        pg.expect_error(conn, "EXPLAIN STREAM TABLE nothing", "42P01")


@smoke
def test_bypass(world):
    """Around the proxy, a function registers its request, says so, and the daemon completes it."""
    with world.database() as connect:
        conn = connect()
        conn.execute(BASE)
        conn.execute("CREATE STREAM TABLE first WITH (schedule = '1d') AS SELECT id FROM orders")  # installs
        direct = connect.direct()
        direct.execute("SELECT pgtrickle.create_stream_table('beside', %s, '1s', 'DIFFERENTIAL')", (BY_REGION,))
        if not direct.notices:
            raise pg.Failure("no NOTICE on a connection that bypasses the proxy")
        pg.wait_until(lambda: exists(direct, "beside"), 15, "the daemon completes the request")
        direct.execute("INSERT INTO orders (region, amount) VALUES ('direct', 9)")
        pg.wait_equal(direct, "beside", BY_REGION, 15)
        direct.execute("CREATE TABLE plain (a int)")
        conn.execute("CREATE STREAM TABLE now WITH (refresh_mode = 'IMMEDIATE') AS SELECT sum(a) AS s FROM plain")
        direct.execute("INSERT INTO plain VALUES (5)")
        expect(pg.one(direct, "SELECT s FROM now"), 5, "IMMEDIATE around the proxy")


def test_found_again(world):
    """A daemon that starts anew finds the databases that have stream tables, with no client there."""
    with world.database() as connect:
        conn = connect()
        conn.execute(BASE)
        conn.execute("CREATE STREAM TABLE a WITH (schedule = '1s', refresh_mode = 'DIFFERENTIAL') AS " + BY_REGION)
        conn.close()
        daemon = world.daemon("session")
        daemon.stop()
        direct = connect.direct()
        direct.execute("INSERT INTO orders (region, amount) VALUES ('while it was away', 9)")
        daemon.start()
        pg.wait_equal(direct, "a", BY_REGION, 20)


def test_immediate_however_written(world):
    """COPY, functions, triggers, cascades, rules of other tables, ON CONFLICT, MERGE, TRUNCATE."""
    query = "SELECT k, count(*) AS n, sum(v) AS s FROM w GROUP BY k"
    joined = "SELECT p.id, p.name, count(w.id) AS n FROM p LEFT JOIN w ON w.k = p.id GROUP BY p.id, p.name"
    with world.database("transaction") as connect:
        conn = connect()
        conn.execute("CREATE TABLE p (id int PRIMARY KEY, name text)")
        conn.execute("CREATE TABLE w (id serial PRIMARY KEY, k int REFERENCES p ON DELETE CASCADE, v int)")
        conn.execute("INSERT INTO p SELECT i, 'p' || i FROM generate_series(1, 5) i")
        conn.execute(f"CREATE STREAM TABLE st WITH (refresh_mode = 'IMMEDIATE') AS {query}")
        conn.execute(f"CREATE STREAM TABLE stj WITH (refresh_mode = 'IMMEDIATE') AS {joined}")
        conn.execute("CREATE FUNCTION add(int) RETURNS void LANGUAGE sql AS"
                     " 'INSERT INTO w (k, v) VALUES (1, $1), (2, $1)'")
        conn.execute("CREATE TABLE src (k int, v int)")
        conn.execute("CREATE FUNCTION forward() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
                     " INSERT INTO w (k, v) VALUES (new.k, new.v); UPDATE w SET v = v + 1 WHERE k = new.k;"
                     " RETURN new; END $$")
        conn.execute("CREATE TRIGGER forward AFTER INSERT ON src FOR EACH ROW EXECUTE FUNCTION forward()")

        def both(what):
            pg.assert_equal(conn, "st", query, what)
            pg.assert_equal(conn, "stj", joined, what)

        with conn.cursor().copy("COPY w (k, v) FROM STDIN") as copy:
            for i in range(50):
                copy.write_row((i % 5 + 1, i))
        both("COPY")
        for statement in [
            "SELECT add(7)",
            "INSERT INTO src VALUES (3, 3), (4, 4)",
            "INSERT INTO w (id, k, v) VALUES (1, 2, 2), (9999, 2, 3) ON CONFLICT (id) DO UPDATE SET v = excluded.v, k = 5",
            "MERGE INTO w USING (VALUES (2, 100), (7777, 1)) s(id, v) ON w.id = s.id WHEN MATCHED THEN UPDATE SET v = s.v"
            " WHEN NOT MATCHED THEN INSERT (id, k, v) VALUES (s.id, 1, s.v)",
            "WITH d AS (DELETE FROM w WHERE k = 3 RETURNING *) INSERT INTO w (k, v) SELECT 4, v FROM d",
            "DELETE FROM p WHERE id = 4",
            "WITH x AS (UPDATE p SET name = name || '!' RETURNING id) UPDATE w SET v = 0 WHERE k IN (SELECT id FROM x)",
            "DO $$ BEGIN FOR i IN 1..3 LOOP INSERT INTO w (k, v) VALUES (1, i);"
            " UPDATE w SET v = v * 2 WHERE k = 1; END LOOP; END $$",
            "TRUNCATE w",
            "INSERT INTO w (k, v) SELECT 1, i FROM generate_series(1, 3) i",
            "TRUNCATE p, w",
        ]:
            conn.execute(statement)
            both(statement)


def test_immediate_under_prepared_statements(world):
    """Writers that prepared their statements before the stream table came, and keep them after it goes."""
    query = "SELECT region, count(*) AS n FROM orders GROUP BY region"
    for mode in ("session", "transaction"):
        with world.database(mode) as connect:
            conn, writer = connect(), connect(prepare_threshold=0)
            conn.execute(BASE)
            write = "INSERT INTO orders (region, amount) VALUES (%s, %s)"
            writer.execute(write, ("a", 1))
            conn.execute(f"CREATE STREAM TABLE st WITH (refresh_mode = 'IMMEDIATE') AS {query}")
            writer.execute(write, ("a", 2))
            pg.assert_equal(conn, "st", query)
            conn.execute("DROP STREAM TABLE st")
            writer.execute(write, ("a", 3))
            conn.execute(f"CREATE STREAM TABLE st WITH (refresh_mode = 'IMMEDIATE') AS {query}")
            writer.execute(write, ("b", 4))
            pg.assert_equal(conn, "st", query)


def test_append_only_is_a_hint(world):
    """append_only on a table that is updated all the same: still right."""
    with world.database() as connect:
        conn = connect()
        conn.execute(BASE)
        conn.execute("CREATE STREAM TABLE a WITH (schedule = '1d', refresh_mode = 'DIFFERENTIAL',"
                     " append_only = true) AS " + BY_REGION)
        for statement in ("INSERT INTO orders (region, amount) VALUES ('x', 1)",
                          "UPDATE orders SET region = 'r0' WHERE region = 'r1'", "DELETE FROM orders WHERE id < 5"):
            conn.execute(statement)
            conn.execute("REFRESH STREAM TABLE a")
            pg.assert_equal(conn, "a", BY_REGION, statement)


def test_with_no_data(world):
    with world.database() as connect:
        conn = connect()
        conn.execute(BASE)
        conn.execute("CREATE STREAM TABLE a WITH (schedule = '1s', refresh_mode = 'DIFFERENTIAL') AS "
                     + BY_REGION + " WITH NO DATA")
        expect(pg.visible_columns(conn, "a"), ["region", "n", "total"], "columns")
        pg.wait_equal(conn, "a", BY_REGION, 15)
        expect(field(conn, "a", "is_populated"), True, "is_populated")


def test_full_never_shows_an_empty_table(world):
    """A reader in a loop against FULL refreshes of a table that always has rows."""
    with world.database() as connect:
        conn, reader = connect(), connect()
        conn.execute(BASE)
        conn.execute("CREATE STREAM TABLE a WITH (schedule = '1d', refresh_mode = 'FULL') AS " + BY_REGION)
        reader.execute("SET lock_timeout = '2s'")
        for n in range(5):
            conn.execute("BEGIN")
            conn.execute("UPDATE orders SET amount = amount + 1")
            conn.execute("REFRESH STREAM TABLE a")
            # Neither blocked by the refresh that is not committed, nor shown its inside.
            expect(pg.one(reader, "SELECT count(*) FROM a"), 3, "rows while a FULL refresh is open")
            conn.execute("COMMIT")
            pg.assert_equal(reader, "a", BY_REGION)


def test_dropped_by_drop_table(world):
    """DROP TABLE of a stream table or of its source: the rest goes on."""
    with world.database() as connect:
        conn = connect()
        conn.execute(BASE)
        conn.execute("CREATE STREAM TABLE a WITH (schedule = '1s') AS " + BY_REGION)
        conn.execute("CREATE STREAM TABLE b WITH (schedule = '1s') AS SELECT id, amount FROM orders")
        conn.execute("DROP TABLE a")
        conn.execute("INSERT INTO orders (region, amount) VALUES ('after', 1)")
        pg.wait_equal(conn, "b", "SELECT id, amount FROM orders", 15)
        pg.wait_until(lambda: not catalogued(conn, "a"), 15, "the catalog forgets a")
        conn.execute("CREATE STREAM TABLE a WITH (schedule = '1s') AS " + BY_REGION)
        pg.assert_equal(conn, "a", BY_REGION)
