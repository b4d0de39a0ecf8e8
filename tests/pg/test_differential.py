"""Stream tables against their queries under random DML: a corpus of definitions that names every form,
and random definitions of the same class.

Each case makes a DIFFERENTIAL and an IMMEDIATE stream table of one definition on the same data, runs DML
(autocommit statements, transactions, savepoints, rollbacks), compares the IMMEDIATE one after every
statement and the DIFFERENTIAL one after each refresh.  A failing case is shrunk to few statements and
printed with the command that repeats it.
"""

import random
import time

import psycopg

from tests.support import pg, queries, workload
from tests.support.harness import smoke

SHRINK_SECONDS = 25


class Wrong(Exception):
    """The invariant does not hold, or a statement failed that must not."""


class Differs(Wrong):
    """A stream table is not its query."""


def in_short(e):
    """An error of the server, and the innermost place where it happened."""
    context = (e.diag.context or "").splitlines()
    return f"{e.sqlstate}: {e.diag.message_primary or e}" + (f"\n    {context[0]}" if context else "")


class Case:
    """One definition (or a chain of two), its data and its DML."""

    def __init__(self, title, seed, query, tables, over=None, modes=("DIFFERENTIAL", "IMMEDIATE"), n_groups=14):
        rng = random.Random(seed)
        self.title = title
        self.query = query
        self.over = over  # a second definition, with {st} for the first stream table
        self.modes = modes
        self.fill = workload.fill(rng)
        self.groups = [(g, rng.random() < 0.4) for g in workload.groups(rng, tables, n_groups)]
        self.refresh_forms = rng.random()

    def show(self, fill, groups):
        lines = [*fill]
        for group, refresh in groups:
            lines += [group[0]] if len(group) == 1 else ["BEGIN", *group]
            if refresh:
                lines.append("-- refresh")
        return ";\n".join(lines) + ";\n-- refresh"


class Runner:
    """Runs cases over one connection through the daemon."""

    def __init__(self, conn, sabotage=None):
        self.conn = conn
        self.sabotage = sabotage  # called after creation: the negative control
        self.n_compared = 0

    def execute(self, statement):
        return self.conn.execute(statement)

    def recover(self):
        """Whatever state a failure left: no transaction, no stream tables."""
        if self.conn.closed or self.conn.broken:
            raise Wrong("the connection was lost")
        if self.conn.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
            self.execute("ROLLBACK")
        for name in ("s2", "s1", "i1"):
            self.execute(f"DROP STREAM TABLE IF EXISTS {name}")

    def create(self, case):
        """The stream tables of a case: [(name, query)]; None for each mode that was refused."""
        made = []
        if "DIFFERENTIAL" in case.modes:
            self.execute("CREATE STREAM TABLE s1 WITH (schedule = '1d', refresh_mode = 'DIFFERENTIAL') AS "
                         + case.query)
            made.append(("s1", case.query))
            if case.over:
                over = case.over.format(st="s1")
                self.execute("CREATE STREAM TABLE s2 WITH (schedule = '1d', refresh_mode = 'DIFFERENTIAL') AS "
                             + over)
                # In terms of base tables: a chain that is wrong below must not look right above.
                made.append(("s2", case.over.format(st=f"({case.query})" if " AS st" in case.over
                                                    else f"({case.query}) AS base")))
        if "IMMEDIATE" in case.modes:
            self.execute("CREATE STREAM TABLE i1 WITH (refresh_mode = 'IMMEDIATE') AS " + case.query)
            made.append(("i1", case.query))
        if self.sabotage:
            self.sabotage()
        return made

    def compare(self, st, query, after):
        self.n_compared += 1
        rest = pg.difference(self.conn, st, query)
        if rest:
            mode = "IMMEDIATE" if st == "i1" else "DIFFERENTIAL"
            raise Differs(f"{mode} {st} differs after: {after}\n"
                        + "\n".join(f"    {side:8}{row}" for side, row in rest))

    def refresh(self, made, form):
        for st, query in made:
            if st != "i1":
                if form < 0.5:
                    self.execute(f"REFRESH STREAM TABLE {st}")
                else:
                    self.execute(f"SELECT pgtrickle.refresh_stream_table('{st}')")
                self.compare(st, query, "refresh")

    def run_statement(self, statement, made):
        """False when a constraint of the base tables refused it."""
        try:
            self.execute(statement)
        except psycopg.Error as e:
            if e.diag.sqlstate in ("23505", "23503", "23502") and e.diag.table_name in workload.TABLES:
                return False
            raise Wrong(f"{in_short(e)}\n    in: {statement}") from e
        for st, query in made:
            if st == "i1":
                self.compare(st, query, statement)
        return True

    def run(self, case, fill=None, groups=None):
        fill = case.fill if fill is None else fill
        groups = case.groups if groups is None else groups
        self.recover()
        self.execute(workload.RESET)
        for statement in fill:
            self.execute(statement)
        made = self.create(case)
        for st, query in made:
            self.compare(st, query, "creation")
        for group, refresh in groups:
            if len(group) == 1:
                self.run_statement(group[0], made)
            else:
                self.execute("BEGIN")
                for statement in group:
                    if not self.run_statement(statement, made):
                        self.execute("ROLLBACK")
                        break
            for st, query in made:
                if st == "i1":
                    self.compare(st, query, f"the end of {group}")
            if refresh:
                self.refresh(made, case.refresh_forms)
        self.refresh(made, case.refresh_forms)

    def fails(self, case, fill, groups):
        """(what kind of failure, its text), or None."""
        try:
            self.run(case, fill, groups)
        except Wrong as e:
            cause = e.__cause__
            return (cause.sqlstate if isinstance(cause, psycopg.Error) else type(e).__name__), str(e)
        except psycopg.Error as e:
            return e.sqlstate, in_short(e)
        return None

    def shrink(self, case):
        """(fill, groups, error) that still fail, with as little as the time allows to find."""
        deadline = time.monotonic() + SHRINK_SECONDS
        fill, groups = list(case.fill), list(case.groups)
        first = self.fails(case, fill, groups)
        if first is None:
            return fill, groups, "(it did not fail again)"
        kind, error = first

        def reduced(items, build):
            nonlocal error
            size = max(1, len(items) // 2)
            while size >= 1:
                i = 0
                while i < len(items) and time.monotonic() < deadline:
                    candidate = items[:i] + items[i + size:]
                    found = self.fails(case, *build(candidate))
                    if found and found[0] == kind:
                        items, error = candidate, found[1]
                    else:
                        i += size
                size //= 2
            return items

        groups = reduced(groups, lambda c: (fill, c))
        fill = reduced(fill, lambda c: (c, groups))
        for n, (group, refresh) in enumerate(groups):
            if len(group) > 1:
                body = reduced(group[:-1], lambda c: (fill, groups[:n] + [(c + group[-1:], refresh)]
                                                      + groups[n + 1:]))
                groups[n] = (body + group[-1:], refresh)
        return fill, groups, error

    def explain(self, case, world, replay):
        """The text of a failure."""
        fill, groups, error = self.shrink(case)
        definition = case.query if not case.over else f"{case.query}\n-- and over it (s2):\n{case.over}"
        try:
            self.recover()
        except (Wrong, psycopg.Error) as e:
            error += f"\n(and afterwards: {e})"
        return (f"{case.title} on PostgreSQL {world.version}: {error}\n-- s1, i1:\n{definition}\n"
                f"-- statements:\n{case.show(fill, groups)}\nreplay: {replay}")


def prepare(connect):
    conn = connect()
    conn.execute(workload.DDL)
    return conn


def check(runner, case, world, replay):
    try:
        runner.run(case)
    except (Wrong, psycopg.Error):
        raise pg.Failure(runner.explain(case, world, replay)) from None


def test_corpus(world):
    """Every form, in both modes, must be accepted and stay right: as many as the time allows, others with
    another seed and on another version."""
    wrong = []
    names = sorted(queries.CORPUS)
    random.Random(world.seed).shuffle(names)
    half = len(names) // 2 if world.version % 2 == 0 else 0
    names = names[half:] + names[:half]
    deadline = time.monotonic() + 3 * world.seconds
    n = 0
    with world.database() as connect:
        runner = Runner(prepare(connect))
        for name in names:
            if n >= 20 and time.monotonic() > deadline:
                break
            n += 1
            query, tables = queries.CORPUS[name]
            case = Case(name, f"{world.seed}/{name}", query, tables,
                        n_groups=4 if name in queries.SHORT else 14)
            try:
                check(runner, case, world, f"SEED={world.seed} tests/run --pg={world.version}"
                                           " --only=differential.corpus")
            except pg.Failure as e:
                wrong.append(str(e))
                if runner.conn.closed or runner.conn.broken:
                    runner.conn = connect()
    print(f"     {n} of {len(names)} definitions from seed {world.seed}, {runner.n_compared} comparisons")
    if wrong:
        raise pg.Failure(f"{len(wrong)} of {n} definitions\n" + "\n\n".join(wrong))


@smoke
def test_chains(world):
    with world.database() as connect:
        runner = Runner(prepare(connect))
        for name, (query, over, tables) in queries.CHAINS.items():
            case = Case(name, f"{world.seed}/{name}", query, tables, over=over, modes=("DIFFERENTIAL",))
            check(runner, case, world, f"SEED={world.seed} tests/run --pg={world.version}"
                                       " --only=differential.chains")


def test_random(world):
    """Random definitions of the class, in both pool modes, as long as the time lasts."""
    deadline = time.monotonic() + world.seconds
    first = world.seed
    n, refused = 0, {}
    with world.database("session") as sessions, world.database("transaction") as transactions:
        runners = [Runner(prepare(sessions)), Runner(prepare(transactions))]
        while time.monotonic() < deadline or n < 20:
            seed = first + n
            runner = runners[n % 2]
            n += 1
            rng = random.Random(seed)
            query, tables = queries.random_definition(rng)
            case = Case(f"random definition {seed}", seed, query, tables, n_groups=10)
            try:
                runner.run(case)
            except psycopg.errors.FeatureNotSupported as e:
                # Refusing is always right; refusing much is not (below).
                refused.setdefault(e.diag.message_primary, []).append(query)
            except (Wrong, psycopg.Error):
                raise pg.Failure(runner.explain(
                    case, world, f"SEED={seed} tests/run --pg={world.version} --only=differential.random"
                                 " --seconds=0")) from None
    compared = sum(r.n_compared for r in runners)
    n_refused = sum(len(v) for v in refused.values())
    print(f"     {n} random definitions from seed {first}, {compared} comparisons, {n_refused} refused")
    if n_refused * 5 > n:
        listed = "\n".join(f"  {len(v)}x {k}\n      {v[0]}" for k, v in refused.items())
        raise pg.Failure(f"{n_refused} of {n} definitions of the supported class were refused\n{listed}")


def test_negative_control(world):
    """A delta that is wrong on purpose is found: the tester can fail."""
    caught = []
    with world.database() as connect:
        conn = prepare(connect)
        admin = connect.direct()

        def sabotage():
            # What leaves counts as if it came.  Only the deltas: creation stays right.
            changed = admin.execute(
                "UPDATE pgtrickle.pgt_stream_tables SET plan = jsonb_set(plan, '{deltas}', regexp_replace("
                r"(plan->'deltas')::text, '(\m\w+\.)?__pgt_w\M', 'abs(\&)', 'g')::jsonb)"
                " WHERE (plan->'deltas')::text LIKE '%__pgt_w%'").rowcount
            if not changed:
                raise pg.Failure("no delta plan to spoil")

        runner = Runner(conn, sabotage)
        for name in ("count", "union all of the same table", "bag of a keyless table"):
            query, tables = queries.CORPUS[name]
            case = Case(name, f"control/{name}", query, tables, modes=("DIFFERENTIAL",), n_groups=20)
            try:
                runner.run(case)
            except Differs:
                caught.append(name)
        runner.recover()
    if len(caught) != 3:
        raise pg.Failure(f"deltas with wrong signs were noticed only for {caught}")


def test_time_passes(world):
    """Predicates on the clock flip with no DML: rows leave, and rows enter."""
    query = ("SELECT k, count(*) AS n FROM clocked WHERE at > now() - interval '1500 milliseconds'"
             " AND at <= now() + interval '1 second' GROUP BY k")
    rows = "SELECT id, at FROM clocked WHERE at > now() - interval '1500 milliseconds'"
    with world.database() as connect:
        conn = connect()
        conn.execute("CREATE TABLE clocked (id serial PRIMARY KEY, k int, at timestamptz)")
        conn.execute("INSERT INTO clocked (k, at) SELECT i % 3, now() + (i - 20) * interval '100 milliseconds'"
                     " FROM generate_series(1, 60) i")
        for name, definition in (("recent", query), ("recent_rows", rows)):
            conn.execute(f"CREATE STREAM TABLE {name} WITH (schedule = '1d', refresh_mode = 'DIFFERENTIAL') AS"
                         f" {definition}")
        seen = set()
        deadline = time.monotonic() + 4
        n = 0
        while time.monotonic() < deadline:
            n += 1
            with conn.transaction():  # one now() for the refresh and the comparison
                for name, definition in (("recent", query), ("recent_rows", rows)):
                    conn.execute(f"REFRESH STREAM TABLE {name}")
                    pg.assert_equal(conn, name, definition, f"refresh {n}")
                seen.add(pg.one(conn, "SELECT coalesce(sum(n), 0) FROM recent"))
            if n % 5 == 0:
                conn.execute("INSERT INTO clocked (k, at) VALUES (1, now() + interval '700 milliseconds')")
                conn.execute("UPDATE clocked SET k = k + 1 WHERE id % 7 = 0")
        if len(seen) < 5:
            raise pg.Failure(f"the clock moved nothing: {seen}")


def test_midnight(world):
    """Yesterday's rows leave at midnight.  The midnight is that of a time zone of our own, at the coming minute."""
    with world.database() as connect:
        conn = connect()
        # A POSIX zone, where the coming minute (of UTC; not one that comes too soon) is midnight.  What it
        # says is what is added to local time to get UTC.
        minute = pg.one(conn, "SELECT extract(epoch FROM date_trunc('minute', now() + interval '4 seconds'))"
                              "::bigint / 60 % 1440 + 1")
        behind = minute if minute < 720 else minute - 1440
        zone = f"<here>{'-' if behind < 0 else ''}{abs(behind) // 60}:{abs(behind) % 60:02}"
        conn.execute("SELECT set_config('TimeZone', %s, false)", (zone,))
        query = ("SELECT date_trunc('minute', order_date) AS minute, region, count(*) AS orders,"
                 " sum(amount) AS revenue FROM orders WHERE order_date >= CURRENT_DATE GROUP BY 1, 2")
        conn.execute("CREATE TABLE orders (id serial PRIMARY KEY, region text, amount numeric, order_date date)")
        conn.execute("INSERT INTO orders (region, amount, order_date) SELECT 'r' || i % 3, i,"
                     " CURRENT_DATE + (i % 3) - 1 FROM generate_series(1, 30) i")
        before = pg.one(conn, "SELECT CURRENT_DATE")
        conn.execute("CREATE STREAM TABLE order_monitor WITH (schedule = '1s', refresh_mode = 'DIFFERENTIAL') AS "
                     + query)
        pg.assert_equal(conn, "order_monitor", query, "before midnight")
        if pg.one(conn, "SELECT CURRENT_DATE") != before:
            raise pg.Failure("midnight came too early for this test")
        n = pg.one(conn, "SELECT sum(orders) FROM order_monitor")
        pg.wait_until(lambda: pg.one(conn, "SELECT CURRENT_DATE") > before, 70, "midnight")
        pg.wait_equal(conn, "order_monitor", query, 10)
        if not pg.one(conn, "SELECT sum(orders) FROM order_monitor") < n:
            raise pg.Failure("no order left at midnight")
