"""The SQL side without a compiler: plans by hand, in the format of docs/architecture.md.

What the daemon does between a request and its completion, complete() does here, in the same order and
with the same rights.
"""

import glob
import json
import os

from psycopg import sql

from tests.support import pg

SQL = os.path.join(pg.ROOT, "dvm", "sql")

# New to the frontier in $1..$4.
NEW = "(__pgt_xid >= $1 OR __pgt_xid = ANY ($2) OR __pgt_xid = $3) AND (__pgt_xid <> $3 OR __pgt_seq > $4)"


def install(conn, times=1):
    for _ in range(times):
        with conn.transaction():
            for path in sorted(glob.glob(os.path.join(SQL, "[0-9]*.sql"))):
                with open(path, encoding="utf-8") as f:
                    conn.execute(f.read())


def attnums(conn, table, columns):
    return [pg.one(conn, "SELECT attnum FROM pg_attribute WHERE attrelid = %s::regclass AND attname = %s", (table, c))
            for c in columns]


def oid(conn, table):
    return pg.one(conn, "SELECT %s::regclass::oid", (table,))


FULL = """WITH q AS ({query}),
gone AS (DELETE FROM {st} AS st WHERE NOT EXISTS (SELECT FROM q WHERE {same_row}) RETURNING 1),
put AS (INSERT INTO {st} AS st SELECT * FROM q ON CONFLICT ({key}) DO UPDATE SET {sets} WHERE ({old}) IS DISTINCT FROM ({new}) RETURNING (xmax = 0) AS fresh)
SELECT (SELECT count(*) FROM put WHERE fresh), (SELECT count(*) FROM put WHERE NOT fresh), (SELECT count(*) FROM gone), 0::bigint, pg_current_snapshot()"""


def full(st, query, key, values):
    """Brings a keyed table to the query, whatever it holds."""
    return FULL.format(query=query, st=st, key=key, same_row=f"q.{key} IS NOT DISTINCT FROM st.{key}",
                       sets=", ".join(f"{v} = excluded.{v}" for v in values),
                       old=", ".join(f"st.{v}" for v in values), new=", ".join(f"excluded.{v}" for v in values))


def sum_by_region(conn, st, source, where="true"):
    """The plan of SELECT region, count(*) AS n, sum(amount) AS total FROM source [WHERE ...] GROUP BY region,
    both columns NOT NULL."""
    relid = oid(conn, source)
    region, amount = attnums(conn, source, ("region", "amount"))
    query = f"SELECT region, count(*) AS n, sum(amount) AS total FROM {source} WHERE {where} GROUP BY region"
    # Two steps as a Z-set: MERGE has no RETURNING before 17.
    delta = f"""WITH d AS (SELECT a{region} AS region, sum(__pgt_w)::bigint AS n, sum(__pgt_w * a{amount}) AS total, count(*) AS rows
  FROM pgtrickle_changes.c_{relid} WHERE {NEW} GROUP BY 1),
gone AS (DELETE FROM {st} AS st USING d WHERE st.region = d.region AND st.n + d.n = 0 RETURNING 1),
kept AS (UPDATE {st} AS st SET n = st.n + d.n, total = st.total + d.total FROM d WHERE st.region = d.region AND st.n + d.n <> 0 RETURNING 1),
born AS (INSERT INTO {st} SELECT d.region, d.n, d.total FROM d WHERE d.n <> 0 AND NOT EXISTS (SELECT FROM {st} AS st WHERE st.region = d.region) RETURNING 1)
SELECT (SELECT count(*) FROM born), (SELECT count(*) FROM kept), (SELECT count(*) FROM gone), (SELECT coalesce(sum(rows), 0)::bigint FROM d), pg_current_snapshot()"""
    everything = full(st, query, "region", ("n", "total"))
    return {"query": query, "create": f"CREATE TABLE {st} (region text PRIMARY KEY, n bigint, total numeric)",
            "sources": [{"relid": relid, "attnums": sorted((region, amount))}],
            "plan": {"strategy": "algebraic", "time": False, "sources": [{"relid": relid, "bit": 0}],
                     "deltas": {"1": delta, "all": delta}, "full": everything, "fill": everything, "explain": "Aggregate\n  Scan"}}


def complete(conn, name, plan, mode="DIFFERENTIAL", fill=True):
    """What the daemon does with the request for this name, in the caller's transaction."""
    request = pg.one(conn, "SELECT request_id FROM pgtrickle.pgt_requests WHERE args->>'name' = %s", (name.split(".")[-1],))
    pgt_id = pg.one(conn, "SELECT nextval('pgtrickle.pgt_id_seq')")
    conn.execute(plan["create"])
    args = {"request_id": request, "pgt_id": pgt_id, "relid": oid(conn, name), "mode": mode, "strategy": "algebraic",
            "canonical_query": plan["query"], "time_dependent": plan["plan"]["time"], "key_columns": ["region"], "hidden_columns": [],
            "column_names": ["region", "n", "total"], "sources": plan["sources"], "plan": plan["plan"]}
    result = pg.one(conn, "SELECT pgtrickle._do('register', %s::jsonb)", (json.dumps(args),))
    for statement in result["trigger_sql"]:
        conn.execute(sql.SQL(statement))
    if fill:
        conn.execute("SELECT pgtrickle._refresh(%s, 'INITIAL')", (pgt_id,))
    conn.execute("SELECT pgtrickle._do('request_done', %s::jsonb)", (json.dumps({"request_id": request}),))
    return pgt_id


def create(conn, name, plan, mode="DIFFERENTIAL", schedule="calculated", fill=True, **options):
    """create_stream_table and its completion, in one transaction."""
    named = "".join(f", {k} => %s" for k in options)
    with conn.transaction():
        conn.execute(f"SELECT pgtrickle.create_stream_table(%s, %s, schedule => %s, refresh_mode => %s, initialize => %s{named})",
                     (name, plan["query"], schedule, mode, fill, *options.values()))
        return complete(conn, name, plan, mode, fill)
