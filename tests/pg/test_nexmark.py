"""Nexmark's queries Q0 to Q9 as stream tables: persons, auctions and bids of an auction site.

Windows over time are groups by a part of the time, as they are in batch SQL; Q5 slides by joining each bid with the
windows that it lies in.
"""

import random

from tests.support import pg
from tests.support.harness import only

SCHEMA = """
CREATE TABLE person (id int PRIMARY KEY, name text, city text, state text, at timestamp);
CREATE TABLE auction (id int PRIMARY KEY, seller int, category int, initial_bid int, reserve int, at timestamp,
                      expires timestamp);
CREATE TABLE bid (auction int, bidder int, price int, at timestamp);
CREATE INDEX ON bid (auction);
CREATE INDEX ON auction (seller);
"""

QUERIES = {
    "q0": "SELECT auction, bidder, price, at FROM bid",
    "q1": "SELECT auction, bidder, 0.908 * price AS price, at FROM bid",
    "q2": "SELECT auction, price FROM bid WHERE auction % 3 = 0",
    "q3": "SELECT p.name, p.city, p.state, a.id FROM auction a JOIN person p ON a.seller = p.id"
          " WHERE a.category = 2 AND p.state IN ('OR', 'ID', 'CA')",
    "q4": "SELECT category, avg(final) AS mean FROM (SELECT a.id, a.category, max(b.price) AS final FROM auction a"
          " JOIN bid b ON b.auction = a.id AND b.at BETWEEN a.at AND a.expires GROUP BY a.id, a.category) x GROUP BY category",
    "q5": "WITH counted AS (SELECT b.auction, w.start, count(*) AS n FROM bid b"
          " CROSS JOIN LATERAL generate_series(date_trunc('minute', b.at) - interval '4 minutes', date_trunc('minute', b.at),"
          " interval '2 minutes') AS w(start) GROUP BY b.auction, w.start)"
          " SELECT c.auction, c.start, c.n FROM counted c"
          " WHERE c.n >= (SELECT max(d.n) FROM counted d WHERE d.start = c.start)",
    "q6": "SELECT seller, ended, avg(final) OVER (PARTITION BY seller ORDER BY ended, id ROWS BETWEEN 9 PRECEDING AND CURRENT ROW)"
          " AS mean FROM (SELECT a.id, a.seller, max(b.at) AS ended, max(b.price) AS final FROM auction a JOIN bid b"
          " ON b.auction = a.id AND b.at BETWEEN a.at AND a.expires GROUP BY a.id, a.seller) x",
    "q7": "SELECT b.auction, b.price, b.bidder, b.at FROM bid b JOIN (SELECT date_trunc('minute', at) AS slot, max(price) AS top"
          " FROM bid GROUP BY 1) m ON date_trunc('minute', b.at) = m.slot AND b.price = m.top",
    "q8": "SELECT p.id, p.name, date_trunc('hour', p.at) AS slot FROM person p JOIN (SELECT DISTINCT seller,"
          " date_trunc('hour', at) AS slot FROM auction) a ON a.seller = p.id AND a.slot = date_trunc('hour', p.at)",
    "q9": "SELECT a.id, b.bidder, b.price, b.at FROM auction a CROSS JOIN LATERAL (SELECT bidder, price, at FROM bid"
          " WHERE bid.auction = a.id AND bid.at BETWEEN a.at AND a.expires ORDER BY price DESC, at, bidder LIMIT 1) b",
}


def events(rng, n):
    """n statements: what comes to pass on the site, and what is corrected later."""
    def at():
        return f"TIMESTAMP '2026-05-01 10:00' + {rng.randint(0, 7200)} * interval '1 second'"

    for _ in range(n):
        kind = rng.random()
        if kind < 0.1:
            i = rng.randint(1, 20)
            yield (f"INSERT INTO person VALUES ({i}, 'p{i}', 'city', '{rng.choice(['OR', 'ID', 'CA', 'NY'])}', {at()})"
                   " ON CONFLICT (id) DO UPDATE SET state = EXCLUDED.state, at = EXCLUDED.at")
        elif kind < 0.25:
            i = rng.randint(1, 15)
            yield (f"INSERT INTO auction SELECT {i}, {rng.randint(1, 20)}, {rng.randint(1, 3)}, 1, 5, t, t + interval '1 hour'"
                   f" FROM (SELECT {at()} AS t) x ON CONFLICT (id) DO UPDATE SET expires = EXCLUDED.expires, category = EXCLUDED.category")
        elif kind < 0.75:
            rows = ", ".join(f"({rng.randint(1, 15)}, {rng.randint(1, 20)}, {rng.randint(1, 30)}, {at()})"
                             for _ in range(rng.randint(1, 6)))
            yield f"INSERT INTO bid VALUES {rows}"
        elif kind < 0.9:
            yield f"DELETE FROM bid WHERE auction = {rng.randint(1, 15)} AND price > {rng.randint(10, 30)}"
        else:
            yield f"UPDATE bid SET price = price + 1 WHERE bidder = {rng.randint(1, 20)}"


def test_nexmark(world):
    rng = random.Random(world.seed)
    with world.database() as connect:
        conn = connect()
        for statement in filter(str.strip, SCHEMA.split(";\n")):
            conn.execute(statement)
        for statement in events(rng, 40):
            conn.execute(statement)
        for name, query in QUERIES.items():
            conn.execute(f"CREATE STREAM TABLE {name} WITH (schedule = '1d', refresh_mode = 'DIFFERENTIAL') AS {query}")
            conn.execute(f"CREATE STREAM TABLE {name}_now WITH (refresh_mode = 'IMMEDIATE') AS {query}")
        for n in range(6):
            for statement in events(rng, 3):
                conn.execute(statement)
                for name, query in QUERIES.items():
                    pg.assert_equal(conn, name + "_now", query, f"(seed {world.seed}, {statement})")
            for name, query in QUERIES.items():
                conn.execute(f"REFRESH STREAM TABLE {name}")
                pg.assert_equal(conn, name, query, f"(seed {world.seed}, cycle {n})")


@only(18)
def test_shapes(world):
    """A chain of five, fifty readers of one source, and a diamond: each level is right after one refresh in order."""
    with world.database() as connect:
        conn = connect()
        conn.execute("CREATE TABLE sales (id int PRIMARY KEY, k int, v int)")
        conn.execute("INSERT INTO sales SELECT i, i % 20, i FROM generate_series(1, 400) AS i")
        queries = {
            "c1": "SELECT id, k, v * 2 AS v FROM sales WHERE v % 3 <> 0",
            "c2": "SELECT k, count(*) AS n, sum(v) AS s FROM c1 GROUP BY k",
            "c3": "SELECT k % 5 AS m, sum(s) AS s, max(n) AS n FROM c2 GROUP BY 1",
            "c4": "SELECT m, s, rank() OVER (ORDER BY s DESC) AS place FROM c3",
            "c5": "SELECT count(*) AS n, sum(s) FILTER (WHERE place <= 2) AS top FROM c4",
            "left_arm": "SELECT k, sum(v) AS plus FROM sales WHERE v % 2 = 0 GROUP BY k",
            "right_arm": "SELECT k, sum(v) AS minus FROM sales WHERE v % 2 = 1 GROUP BY k",
            "tip": "SELECT l.k, l.plus - r.minus AS balance FROM left_arm l JOIN right_arm r USING (k)",
        }
        queries |= {f"f{i}": f"SELECT k, count(*) AS n FROM sales WHERE v % {i} = 0 GROUP BY k" for i in range(1, 51)}
        for name, query in queries.items():
            conn.execute(f"CREATE STREAM TABLE {name} WITH (schedule = '1d', refresh_mode = 'DIFFERENTIAL') AS {query}")
        # In terms of the base table: a level that is wrong below must not look right above.
        whole = {}
        for name, query in queries.items():
            below = ", ".join(f"{w} AS ({whole[w]})" for w in queries if w in query.replace("(", " ").split() and w in whole)
            whole[name] = f"WITH {below} {query}" if below else query
        for changes in (("UPDATE sales SET v = v + 1 WHERE k = 3", "DELETE FROM sales WHERE id % 7 = 0"),
                        ("INSERT INTO sales SELECT i, i % 20, i FROM generate_series(401, 450) AS i",
                         "UPDATE sales SET k = (k + 1) % 20 WHERE id % 11 = 0")):
            for change in changes:
                conn.execute(change)
            for name in queries:
                conn.execute(f"REFRESH STREAM TABLE {name}")
            for name, query in whole.items():
                pg.assert_equal(conn, name, query, str(changes))
