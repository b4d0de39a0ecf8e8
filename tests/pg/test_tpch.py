"""TPC-H's 22 queries as stream tables: equal to their queries after every cycle of changes."""

from tests.support import pg, tpch
from tests.support.harness import only

SCALE = 0.002


def start(connect):
    conn = connect()
    for statement in tpch.fill(SCALE):
        conn.execute(statement)
    return conn


def create(conn, mode):
    refused = []
    for name, query in tpch.queries(SCALE).items():
        try:
            conn.execute(f"CREATE STREAM TABLE {name}_{mode[:3].lower()} WITH (schedule = '1d',"
                         f" refresh_mode = '{mode}') AS {query}")
        except Exception as e:
            refused.append(f"{name}: {e}")
    if refused:
        raise pg.Failure(f"{len(refused)} of 22 are refused as {mode}\n" + "\n".join(refused))


def compare(conn, mode, after):
    for name, query in tpch.queries(SCALE).items():
        pg.assert_equal(conn, f"{name}_{mode[:3].lower()}", query, after)


def refresh(conn):
    for name in tpch.QUERIES:
        conn.execute(f"REFRESH STREAM TABLE {name}_dif")
    full = conn.execute("SELECT t.pgt_name, h.action, h.reason FROM pgtrickle.pgt_refresh_history h"
                        " JOIN pgtrickle.pgt_stream_tables t USING (pgt_id)"
                        " WHERE h.action NOT IN ('DIFFERENTIAL', 'NO_DATA') AND h.initiated_by <> 'INITIAL'").fetchall()
    if full:
        raise pg.Failure(f"not differential: {full}")


def changes(cycle, n):
    yield from tpch.refresh_functions(SCALE, cycle, n)
    yield from tpch.updates(SCALE, cycle, n)


def test_differential(world):
    """RF1, RF2 and changes of every table: first refreshed after each transaction, then once for all of a cycle."""
    with world.database() as connect:
        conn = start(connect)
        create(conn, "DIFFERENTIAL")
        compare(conn, "DIFFERENTIAL", "creation")
        for cycle in range(2):
            for group in changes(cycle, 8):
                with conn.transaction():
                    for statement in group:
                        conn.execute(statement)
                if cycle == 0:
                    refresh(conn)
                    compare(conn, "DIFFERENTIAL", f"refresh of {group}")
            refresh(conn)
            compare(conn, "DIFFERENTIAL", f"cycle {cycle}")


@only(15)
def test_immediate(world):
    """All 22 of them inside the writing transactions."""
    with world.database() as connect:
        conn = start(connect)
        create(conn, "IMMEDIATE")
        for group in changes(0, 3):
            with conn.transaction():
                for statement in group:
                    conn.execute(statement)
                compare(conn, "IMMEDIATE", f"{group}, before the commit")
