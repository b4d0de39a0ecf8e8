"""TPC-H: schema, a deterministic generator in SQL, the 22 queries, and what changes between refreshes.

The queries are those of the specification (revision 3.0.1, §2.4) with their validation parameters, in the words of
PostgreSQL; q15's view is a WITH.  At a small scale a few parameters would select nothing: see parameters().
"""

NATIONS = [("ALGERIA", 0), ("ARGENTINA", 1), ("BRAZIL", 1), ("CANADA", 1), ("EGYPT", 4), ("ETHIOPIA", 0),
           ("FRANCE", 3), ("GERMANY", 3), ("INDIA", 2), ("INDONESIA", 2), ("IRAN", 4), ("IRAQ", 4), ("JAPAN", 2),
           ("JORDAN", 4), ("KENYA", 0), ("MOROCCO", 0), ("MOZAMBIQUE", 0), ("PERU", 1), ("CHINA", 2),
           ("ROMANIA", 3), ("SAUDI ARABIA", 4), ("VIETNAM", 2), ("RUSSIA", 3), ("UNITED KINGDOM", 3),
           ("UNITED STATES", 1)]
REGIONS = ["AFRICA", "AMERICA", "ASIA", "EUROPE", "MIDDLE EAST"]

TABLES = ("region", "nation", "supplier", "part", "partsupp", "customer", "orders", "lineitem")

# Indexes as a careful DBA has them: primary keys, and the foreign keys.
SCHEMA = """
CREATE TABLE region (r_regionkey int PRIMARY KEY, r_name text NOT NULL, r_comment text);
CREATE TABLE nation (n_nationkey int PRIMARY KEY, n_name text NOT NULL, n_regionkey int NOT NULL, n_comment text);
CREATE TABLE supplier (s_suppkey int PRIMARY KEY, s_name text NOT NULL, s_address text NOT NULL, s_nationkey int NOT NULL,
    s_phone text NOT NULL, s_acctbal numeric(15,2) NOT NULL, s_comment text NOT NULL);
CREATE TABLE part (p_partkey int PRIMARY KEY, p_name text NOT NULL, p_mfgr text NOT NULL, p_brand text NOT NULL,
    p_type text NOT NULL, p_size int NOT NULL, p_container text NOT NULL, p_retailprice numeric(15,2) NOT NULL,
    p_comment text NOT NULL);
CREATE TABLE partsupp (ps_partkey int NOT NULL, ps_suppkey int NOT NULL, ps_availqty int NOT NULL,
    ps_supplycost numeric(15,2) NOT NULL, ps_comment text NOT NULL, PRIMARY KEY (ps_partkey, ps_suppkey));
CREATE TABLE customer (c_custkey int PRIMARY KEY, c_name text NOT NULL, c_address text NOT NULL, c_nationkey int NOT NULL,
    c_phone text NOT NULL, c_acctbal numeric(15,2) NOT NULL, c_mktsegment text NOT NULL, c_comment text NOT NULL);
CREATE TABLE orders (o_orderkey bigint PRIMARY KEY, o_custkey int NOT NULL, o_orderstatus char(1) NOT NULL,
    o_totalprice numeric(15,2) NOT NULL, o_orderdate date NOT NULL, o_orderpriority text NOT NULL, o_clerk text NOT NULL,
    o_shippriority int NOT NULL, o_comment text NOT NULL);
CREATE TABLE lineitem (l_orderkey bigint NOT NULL, l_partkey int NOT NULL, l_suppkey int NOT NULL, l_linenumber int NOT NULL,
    l_quantity numeric(15,2) NOT NULL, l_extendedprice numeric(15,2) NOT NULL, l_discount numeric(15,2) NOT NULL,
    l_tax numeric(15,2) NOT NULL, l_returnflag char(1) NOT NULL, l_linestatus char(1) NOT NULL, l_shipdate date NOT NULL,
    l_commitdate date NOT NULL, l_receiptdate date NOT NULL, l_shipinstruct text NOT NULL, l_shipmode text NOT NULL,
    l_comment text NOT NULL, PRIMARY KEY (l_orderkey, l_linenumber));
"""

INDEXES = """
CREATE INDEX ON nation (n_regionkey);
CREATE INDEX ON supplier (s_nationkey);
CREATE INDEX ON partsupp (ps_suppkey);
CREATE INDEX ON customer (c_nationkey);
CREATE INDEX ON orders (o_custkey);
CREATE INDEX ON lineitem (l_partkey, l_suppkey);
CREATE INDEX ON lineitem (l_suppkey);
"""

# r(i, k, n): a number in 0..n-1 that depends on i and on k, and always the same one.
FUNCTIONS = """
CREATE FUNCTION r(i bigint, k bigint, n bigint) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
    'SELECT (hashint8extended(i, k) & 9223372036854775807) % n';
CREATE FUNCTION pick(i bigint, k bigint, words text[]) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
    'SELECT words[1 + (hashint8extended(i, k) & 9223372036854775807) % cardinality(words)]';
CREATE FUNCTION make_order(key bigint, customers bigint, OUT custkey int, OUT orderdate date, OUT n_lines int)
    LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    -- a third of the customers never orders
    SELECT (3 * r(key, 1, greatest(customers / 3, 1)) + 1 + r(key, 2, 2))::int, DATE '1992-01-01' + r(key, 3, 2406)::int,
           1 + r(key, 4, 7)::int $$;
CREATE FUNCTION add_orders(first bigint, n bigint, customers bigint, parts bigint, suppliers bigint) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO lineitem
    SELECT k, p, s, l, q, q * (90000 + (p / 10) % 20001 + 100 * (p % 1000)) / 100, r(k * 8 + l, 14, 11) / 100.0,
           r(k * 8 + l, 15, 9) / 100.0, CASE WHEN received <= DATE '1995-06-17' THEN pick(k * 8 + l, 16, '{R,A}') ELSE 'N' END,
           CASE WHEN shipped > DATE '1995-06-17' THEN 'O' ELSE 'F' END, shipped, d + 30 + r(k * 8 + l, 18, 61)::int, received,
           pick(k * 8 + l, 20, '{DELIVER IN PERSON,COLLECT COD,NONE,TAKE BACK RETURN}'),
           pick(k * 8 + l, 21, '{REG AIR,AIR,RAIL,SHIP,TRUCK,MAIL,FOB}'), 'line ' || l
    FROM (SELECT k, l, d, part AS p, 1 + (part + r(k * 8 + l, 12, 4) * (suppliers / 4 + (part - 1) / suppliers)) % suppliers AS s,
                 (1 + r(k * 8 + l, 13, 50))::numeric AS q, shipped, shipped + 1 + r(k * 8 + l, 19, 30)::int AS received
          FROM (SELECT k, l, d, 1 + r(k * 8 + l, 11, parts) AS part, d + 1 + r(k * 8 + l, 17, 121)::int AS shipped
                FROM (SELECT k, (make_order(k, customers)).orderdate AS d, (make_order(k, customers)).n_lines AS n_lines
                      FROM generate_series(first, first + n - 1) AS k) AS o, generate_series(1, o.n_lines) AS l) AS a) AS b;
    INSERT INTO orders
    SELECT k, (make_order(k, customers)).custkey, 'O', 0, (make_order(k, customers)).orderdate,
           pick(k, 5, '{1-URGENT,2-HIGH,3-MEDIUM,4-NOT SPECIFIED,5-LOW}'), 'Clerk#' || lpad((1 + r(k, 6, 1000))::text, 9, '0'), 0,
           CASE WHEN r(k, 7, 20) = 0 THEN 'special packages, pending requests' ELSE 'quiet deposits ' || r(k, 8, 100) END
    FROM generate_series(first, first + n - 1) AS k;
    UPDATE orders SET o_totalprice = l.total,
        o_orderstatus = CASE WHEN l.shipped = l.n THEN 'F' WHEN l.shipped = 0 THEN 'O' ELSE 'P' END
    FROM (SELECT l_orderkey, sum(l_extendedprice * (1 + l_tax) * (1 - l_discount)) AS total, count(*) AS n,
                 count(*) FILTER (WHERE l_linestatus = 'F') AS shipped
          FROM lineitem WHERE l_orderkey BETWEEN first AND first + n - 1 GROUP BY l_orderkey) AS l
    WHERE o_orderkey = l.l_orderkey $$;
"""


class Sizes:
    """Rows at a scale factor; at least enough for every query to say something."""

    def __init__(self, scale):
        self.suppliers = max(int(10_000 * scale), 100)
        self.parts = max(int(200_000 * scale), 400)
        self.customers = max(int(150_000 * scale), 300)
        self.orders = max(int(1_500_000 * scale), 3000)


def fill(scale):
    """The statements that make and fill the tables."""
    n = Sizes(scale)
    yield from (s for s in SCHEMA.split(";\n") if s.strip())
    yield from _functions()
    yield "INSERT INTO region VALUES " + ", ".join(f"({i}, '{name}', '')" for i, name in enumerate(REGIONS))
    yield "INSERT INTO nation VALUES " + ", ".join(
        f"({i}, '{name}', {region}, '')" for i, (name, region) in enumerate(NATIONS))
    yield f"""INSERT INTO supplier SELECT i, 'Supplier#' || lpad(i::text, 9, '0'), 'street ' || r(i, 31, 1000), r(i, 32, 25),
        (10 + r(i, 32, 25)) || '-' || lpad(r(i, 33, 1000)::text, 3, '0'), (r(i, 34, 1099999) - 99999) / 100.0,
        CASE r(i, 35, 20) WHEN 0 THEN 'the Customer has Complaints' WHEN 1 THEN 'Customer Recommends' ELSE 'fine' END
        FROM generate_series(1, {n.suppliers}) AS i"""
    yield f"""INSERT INTO part SELECT i, pick(i, 41, {COLORS}) || ' ' || pick(i, 42, {COLORS}) || ' ' || pick(i, 43, {COLORS}),
        'Manufacturer#' || 1 + r(i, 44, 5), 'Brand#' || 1 + r(i, 44, 5) || 1 + r(i, 45, 5),
        pick(i, 46, '{{STANDARD,SMALL,MEDIUM,LARGE,ECONOMY,PROMO}}') || ' '
        || pick(i, 47, '{{ANODIZED,BURNISHED,PLATED,POLISHED,BRUSHED}}') || ' ' || pick(i, 48, '{{TIN,NICKEL,BRASS,STEEL,COPPER}}'),
        1 + r(i, 49, 50), pick(i, 50, '{{SM,LG,MED,JUMBO,WRAP}}') || ' ' || pick(i, 51, '{{CASE,BOX,BAG,JAR,PKG,PACK,CAN,DRUM}}'),
        (90000 + (i / 10) % 20001 + 100 * (i % 1000)) / 100.0, 'part'
        FROM generate_series(1, {n.parts}) AS i"""
    yield f"""INSERT INTO partsupp SELECT p, 1 + (p + j * ({n.suppliers} / 4 + (p - 1) / {n.suppliers})) % {n.suppliers},
        1 + r(p * 4 + j, 61, 9999), (100 + r(p * 4 + j, 62, 99901)) / 100.0, 'offer'
        FROM generate_series(1, {n.parts}) AS p, generate_series(0, 3) AS j"""
    yield f"""INSERT INTO customer SELECT i, 'Customer#' || lpad(i::text, 9, '0'), 'road ' || r(i, 71, 1000), r(i, 72, 25),
        (10 + r(i, 72, 25)) || '-' || lpad(r(i, 73, 1000)::text, 3, '0'), (r(i, 74, 1099999) - 99999) / 100.0,
        pick(i, 75, '{{AUTOMOBILE,BUILDING,FURNITURE,MACHINERY,HOUSEHOLD}}'), 'customer ' || r(i, 76, 50)
        FROM generate_series(1, {n.customers}) AS i"""
    yield add_orders(scale, 1, n.orders)
    yield from (s for s in INDEXES.split(";\n") if s.strip())
    yield "ANALYZE"


COLORS = ("'{almond,antique,azure,black,blue,brown,chocolate,coral,cream,cyan,dark,dim,drab,forest,ghost,gold,green,grey,"
          "honeydew,hot,indian,ivory,khaki,lace,lavender,lemon,linen,magenta,maroon,medium}'")


def _functions():
    """FUNCTIONS as statements: bodies hold semicolons."""
    for part in FUNCTIONS.split("\nCREATE FUNCTION "):
        text = part.strip()
        if text:
            yield text if text.startswith("CREATE") else "CREATE FUNCTION " + text


def add_orders(scale, first, n):
    s = Sizes(scale)
    return f"SELECT add_orders({first}, {n}, {s.customers}, {s.parts}, {s.suppliers})"


def refresh_functions(scale, cycle, n):
    """RF1: n new orders with their lines.  RF2: n old ones go.  Each in one transaction."""
    first_new = Sizes(scale).orders + cycle * n + 1
    first_old = cycle * n + 1
    old = f"BETWEEN {first_old} AND {first_old + n - 1}"
    yield [add_orders(scale, first_new, n)]
    yield [f"DELETE FROM lineitem WHERE l_orderkey {old}", f"DELETE FROM orders WHERE o_orderkey {old}"]


def updates(scale, cycle, n):
    """Changes of every table: values, foreign keys, keys, and rows that come and go.  n: how many of the large ones."""
    yield from large_updates(scale, cycle, n)
    yield [f"UPDATE nation SET n_regionkey = (n_regionkey + 1) % 5 WHERE n_nationkey = {cycle} % 25",
           "UPDATE nation SET n_name = n_name || '' WHERE n_nationkey < 3"]
    yield [f"UPDATE region SET r_name = CASE r_name WHEN 'ASIA' THEN 'EUROPE' WHEN 'EUROPE' THEN 'ASIA' ELSE r_name END"
           f" WHERE {cycle} % 2 = 1"]


def large_updates(scale, cycle, n):
    """Those of all tables but nation and region, a row of which stands for a good part of everything."""
    s = Sizes(scale)
    c = cycle
    few = max(n // 10, 2)

    def some(key, of, k, count):
        return f"{key} IN (SELECT 1 + r(i, {1000 * c + k}, {of}) FROM generate_series(1, {count}) AS i)"

    yield [f"UPDATE lineitem SET l_quantity = 1 + r(l_orderkey, {c}, 50), l_extendedprice = l_extendedprice * 1.1,"
           f" l_discount = r(l_orderkey, {c} + 1, 11) / 100.0 WHERE {some('l_orderkey', s.orders, 1, n)}",
           f"UPDATE lineitem SET l_shipdate = l_shipdate + 40, l_receiptdate = l_receiptdate + 30, l_shipmode = 'MAIL'"
           f" WHERE {some('l_orderkey', s.orders, 2, n)}",
           f"UPDATE lineitem SET l_partkey = 1 + l_partkey % {s.parts}, l_suppkey = 1 + l_suppkey % {s.suppliers}"
           f" WHERE {some('l_orderkey', s.orders, 3, few)}"]
    yield [f"UPDATE orders SET o_orderpriority = '1-URGENT', o_orderdate = o_orderdate + 17 WHERE {some('o_orderkey', s.orders, 4, n)}",
           f"UPDATE orders SET o_custkey = 1 + o_custkey % {s.customers} WHERE {some('o_orderkey', s.orders, 5, few)}",
           f"UPDATE orders SET o_comment = 'special requests' WHERE {some('o_orderkey', s.orders, 6, few)}"]
    yield [f"UPDATE customer SET c_acctbal = -c_acctbal, c_nationkey = (c_nationkey + 1) % 25,"
           f" c_phone = (10 + (c_nationkey + 1) % 25) || substr(c_phone, 3) WHERE {some('c_custkey', s.customers, 7, few)}",
           f"UPDATE customer SET c_mktsegment = 'BUILDING' WHERE {some('c_custkey', s.customers, 8, few)}",
           f"INSERT INTO customer SELECT {s.customers} + 10 * {c} + i, 'Customer#new', 'road', i, (10 + i) || '-000', 9000 + i, 'BUILDING', ''"
           f" FROM generate_series(1, 10) AS i",
           f"DELETE FROM customer WHERE {some('c_custkey', s.customers, 9, 2)}"]
    yield [f"UPDATE part SET p_size = 15, p_type = 'LARGE POLISHED BRASS' WHERE {some('p_partkey', s.parts, 10, few)}",
           f"UPDATE part SET p_brand = 'Brand#23', p_container = 'MED BOX' WHERE {some('p_partkey', s.parts, 11, few)}",
           f"UPDATE part SET p_name = 'forest green ' || p_name, p_type = 'PROMO ' || p_type WHERE {some('p_partkey', s.parts, 12, few)}",
           f"INSERT INTO part SELECT {s.parts} + {c} + 1, 'forest', 'Manufacturer#1', 'Brand#12', 'SMALL PLATED BRASS', 15, 'SM BOX', 901, ''"]
    yield [f"UPDATE part SET p_brand = 'Brand#12', p_container = 'SM BOX', p_size = 3 WHERE {some('p_partkey', s.parts, 17, few)}",
           f"UPDATE lineitem SET l_shipmode = 'AIR', l_shipinstruct = 'DELIVER IN PERSON', l_quantity = 5"
           f" WHERE {some('l_partkey', s.parts, 17, few)}"]
    yield [f"UPDATE partsupp SET ps_supplycost = ps_supplycost / 2, ps_availqty = ps_availqty + 7 WHERE {some('ps_partkey', s.parts, 13, few)}",
           f"DELETE FROM partsupp WHERE {some('ps_partkey', s.parts, 14, 2)}"]
    yield [f"UPDATE supplier SET s_acctbal = s_acctbal + 100, s_nationkey = (s_nationkey + 3) % 25 WHERE {some('s_suppkey', s.suppliers, 15, 3)}",
           f"UPDATE supplier SET s_comment = 'Customer Complaints' WHERE {some('s_suppkey', s.suppliers, 16, 1)}",
           f"INSERT INTO supplier VALUES ({s.suppliers} + {c} + 1, 'Supplier#new', 'street', 3, '13-000', 9999, 'fine')"]


def parameters(scale):
    """What the specification lets vary, where its own value selects nothing at a small scale."""
    small = scale < 0.05
    return {"q11_fraction": 0.01 if small else 0.0001 / scale, "q18_quantity": 250 if small else 300}


def queries(scale):
    """{name: query}"""
    p = parameters(scale)
    return {name: text.strip().format(**p) for name, text in QUERIES.items()}


QUERIES = {
    "q01": """
SELECT l_returnflag, l_linestatus, sum(l_quantity) AS sum_qty, sum(l_extendedprice) AS sum_base_price,
    sum(l_extendedprice * (1 - l_discount)) AS sum_disc_price,
    sum(l_extendedprice * (1 - l_discount) * (1 + l_tax)) AS sum_charge,
    avg(l_quantity) AS avg_qty, avg(l_extendedprice) AS avg_price, avg(l_discount) AS avg_disc, count(*) AS count_order
FROM lineitem
WHERE l_shipdate <= DATE '1998-12-01' - INTERVAL '90' DAY
GROUP BY l_returnflag, l_linestatus
ORDER BY l_returnflag, l_linestatus""",
    "q02": """
SELECT s_acctbal, s_name, n_name, p_partkey, p_mfgr, s_address, s_phone, s_comment
FROM part, supplier, partsupp, nation, region
WHERE p_partkey = ps_partkey AND s_suppkey = ps_suppkey AND p_size = 15 AND p_type LIKE '%BRASS'
    AND s_nationkey = n_nationkey AND n_regionkey = r_regionkey AND r_name = 'EUROPE'
    AND ps_supplycost = (
        SELECT min(ps_supplycost) FROM partsupp, supplier, nation, region
        WHERE p_partkey = ps_partkey AND s_suppkey = ps_suppkey AND s_nationkey = n_nationkey
            AND n_regionkey = r_regionkey AND r_name = 'EUROPE')
ORDER BY s_acctbal DESC, n_name, s_name, p_partkey
LIMIT 100""",
    "q03": """
SELECT l_orderkey, sum(l_extendedprice * (1 - l_discount)) AS revenue, o_orderdate, o_shippriority
FROM customer, orders, lineitem
WHERE c_mktsegment = 'BUILDING' AND c_custkey = o_custkey AND l_orderkey = o_orderkey
    AND o_orderdate < DATE '1995-03-15' AND l_shipdate > DATE '1995-03-15'
GROUP BY l_orderkey, o_orderdate, o_shippriority
ORDER BY revenue DESC, o_orderdate, l_orderkey
LIMIT 10""",
    "q04": """
SELECT o_orderpriority, count(*) AS order_count
FROM orders
WHERE o_orderdate >= DATE '1993-07-01' AND o_orderdate < DATE '1993-07-01' + INTERVAL '3' MONTH
    AND EXISTS (SELECT * FROM lineitem WHERE l_orderkey = o_orderkey AND l_commitdate < l_receiptdate)
GROUP BY o_orderpriority
ORDER BY o_orderpriority""",
    "q05": """
SELECT n_name, sum(l_extendedprice * (1 - l_discount)) AS revenue
FROM customer, orders, lineitem, supplier, nation, region
WHERE c_custkey = o_custkey AND l_orderkey = o_orderkey AND l_suppkey = s_suppkey AND c_nationkey = s_nationkey
    AND s_nationkey = n_nationkey AND n_regionkey = r_regionkey AND r_name = 'ASIA'
    AND o_orderdate >= DATE '1994-01-01' AND o_orderdate < DATE '1994-01-01' + INTERVAL '1' YEAR
GROUP BY n_name
ORDER BY revenue DESC""",
    "q06": """
SELECT sum(l_extendedprice * l_discount) AS revenue
FROM lineitem
WHERE l_shipdate >= DATE '1994-01-01' AND l_shipdate < DATE '1994-01-01' + INTERVAL '1' YEAR
    AND l_discount BETWEEN 0.06 - 0.01 AND 0.06 + 0.01 AND l_quantity < 24""",
    "q07": """
SELECT supp_nation, cust_nation, l_year, sum(volume) AS revenue
FROM (SELECT n1.n_name AS supp_nation, n2.n_name AS cust_nation, extract(year FROM l_shipdate) AS l_year,
        l_extendedprice * (1 - l_discount) AS volume
    FROM supplier, lineitem, orders, customer, nation n1, nation n2
    WHERE s_suppkey = l_suppkey AND o_orderkey = l_orderkey AND c_custkey = o_custkey
        AND s_nationkey = n1.n_nationkey AND c_nationkey = n2.n_nationkey
        AND ((n1.n_name = 'FRANCE' AND n2.n_name = 'GERMANY') OR (n1.n_name = 'GERMANY' AND n2.n_name = 'FRANCE'))
        AND l_shipdate BETWEEN DATE '1995-01-01' AND DATE '1996-12-31') AS shipping
GROUP BY supp_nation, cust_nation, l_year
ORDER BY supp_nation, cust_nation, l_year""",
    "q08": """
SELECT o_year, sum(CASE WHEN nation = 'BRAZIL' THEN volume ELSE 0 END) / sum(volume) AS mkt_share
FROM (SELECT extract(year FROM o_orderdate) AS o_year, l_extendedprice * (1 - l_discount) AS volume, n2.n_name AS nation
    FROM part, supplier, lineitem, orders, customer, nation n1, nation n2, region
    WHERE p_partkey = l_partkey AND s_suppkey = l_suppkey AND l_orderkey = o_orderkey AND o_custkey = c_custkey
        AND c_nationkey = n1.n_nationkey AND n1.n_regionkey = r_regionkey AND r_name = 'AMERICA'
        AND s_nationkey = n2.n_nationkey AND o_orderdate BETWEEN DATE '1995-01-01' AND DATE '1996-12-31'
        AND p_type = 'ECONOMY ANODIZED STEEL') AS all_nations
GROUP BY o_year
ORDER BY o_year""",
    "q09": """
SELECT nation, o_year, sum(amount) AS sum_profit
FROM (SELECT n_name AS nation, extract(year FROM o_orderdate) AS o_year,
        l_extendedprice * (1 - l_discount) - ps_supplycost * l_quantity AS amount
    FROM part, supplier, lineitem, partsupp, orders, nation
    WHERE s_suppkey = l_suppkey AND ps_suppkey = l_suppkey AND ps_partkey = l_partkey AND p_partkey = l_partkey
        AND o_orderkey = l_orderkey AND s_nationkey = n_nationkey AND p_name LIKE '%green%') AS profit
GROUP BY nation, o_year
ORDER BY nation, o_year DESC""",
    "q10": """
SELECT c_custkey, c_name, sum(l_extendedprice * (1 - l_discount)) AS revenue, c_acctbal, n_name, c_address, c_phone, c_comment
FROM customer, orders, lineitem, nation
WHERE c_custkey = o_custkey AND l_orderkey = o_orderkey AND o_orderdate >= DATE '1993-10-01'
    AND o_orderdate < DATE '1993-10-01' + INTERVAL '3' MONTH AND l_returnflag = 'R' AND c_nationkey = n_nationkey
GROUP BY c_custkey, c_name, c_acctbal, c_phone, n_name, c_address, c_comment
ORDER BY revenue DESC, c_custkey
LIMIT 20""",
    "q11": """
SELECT ps_partkey, sum(ps_supplycost * ps_availqty) AS value
FROM partsupp, supplier, nation
WHERE ps_suppkey = s_suppkey AND s_nationkey = n_nationkey AND n_name = 'GERMANY'
GROUP BY ps_partkey
HAVING sum(ps_supplycost * ps_availqty) > (
    SELECT sum(ps_supplycost * ps_availqty) * {q11_fraction} FROM partsupp, supplier, nation
    WHERE ps_suppkey = s_suppkey AND s_nationkey = n_nationkey AND n_name = 'GERMANY')
ORDER BY value DESC""",
    "q12": """
SELECT l_shipmode,
    sum(CASE WHEN o_orderpriority = '1-URGENT' OR o_orderpriority = '2-HIGH' THEN 1 ELSE 0 END) AS high_line_count,
    sum(CASE WHEN o_orderpriority <> '1-URGENT' AND o_orderpriority <> '2-HIGH' THEN 1 ELSE 0 END) AS low_line_count
FROM orders, lineitem
WHERE o_orderkey = l_orderkey AND l_shipmode IN ('MAIL', 'SHIP') AND l_commitdate < l_receiptdate
    AND l_shipdate < l_commitdate AND l_receiptdate >= DATE '1994-01-01'
    AND l_receiptdate < DATE '1994-01-01' + INTERVAL '1' YEAR
GROUP BY l_shipmode
ORDER BY l_shipmode""",
    "q13": """
SELECT c_count, count(*) AS custdist
FROM (SELECT c_custkey, count(o_orderkey)
    FROM customer LEFT OUTER JOIN orders ON c_custkey = o_custkey AND o_comment NOT LIKE '%special%requests%'
    GROUP BY c_custkey) AS c_orders (c_custkey, c_count)
GROUP BY c_count
ORDER BY custdist DESC, c_count DESC""",
    "q14": """
SELECT 100.00 * sum(CASE WHEN p_type LIKE 'PROMO%' THEN l_extendedprice * (1 - l_discount) ELSE 0 END)
    / sum(l_extendedprice * (1 - l_discount)) AS promo_revenue
FROM lineitem, part
WHERE l_partkey = p_partkey AND l_shipdate >= DATE '1995-09-01' AND l_shipdate < DATE '1995-09-01' + INTERVAL '1' MONTH""",
    "q15": """
WITH revenue (supplier_no, total_revenue) AS (
    SELECT l_suppkey, sum(l_extendedprice * (1 - l_discount)) FROM lineitem
    WHERE l_shipdate >= DATE '1996-01-01' AND l_shipdate < DATE '1996-01-01' + INTERVAL '3' MONTH
    GROUP BY l_suppkey)
SELECT s_suppkey, s_name, s_address, s_phone, total_revenue
FROM supplier, revenue
WHERE s_suppkey = supplier_no AND total_revenue = (SELECT max(total_revenue) FROM revenue)
ORDER BY s_suppkey""",
    "q16": """
SELECT p_brand, p_type, p_size, count(DISTINCT ps_suppkey) AS supplier_cnt
FROM partsupp, part
WHERE p_partkey = ps_partkey AND p_brand <> 'Brand#45' AND p_type NOT LIKE 'MEDIUM POLISHED%'
    AND p_size IN (49, 14, 23, 45, 19, 3, 36, 9)
    AND ps_suppkey NOT IN (SELECT s_suppkey FROM supplier WHERE s_comment LIKE '%Customer%Complaints%')
GROUP BY p_brand, p_type, p_size
ORDER BY supplier_cnt DESC, p_brand, p_type, p_size""",
    "q17": """
SELECT sum(l_extendedprice) / 7.0 AS avg_yearly
FROM lineitem, part
WHERE p_partkey = l_partkey AND p_brand = 'Brand#23' AND p_container = 'MED BOX'
    AND l_quantity < (SELECT 0.2 * avg(l_quantity) FROM lineitem WHERE l_partkey = p_partkey)""",
    "q18": """
SELECT c_name, c_custkey, o_orderkey, o_orderdate, o_totalprice, sum(l_quantity) AS sum_quantity
FROM customer, orders, lineitem
WHERE o_orderkey IN (SELECT l_orderkey FROM lineitem GROUP BY l_orderkey HAVING sum(l_quantity) > {q18_quantity})
    AND c_custkey = o_custkey AND o_orderkey = l_orderkey
GROUP BY c_name, c_custkey, o_orderkey, o_orderdate, o_totalprice
ORDER BY o_totalprice DESC, o_orderdate, o_orderkey
LIMIT 100""",
    "q19": """
SELECT sum(l_extendedprice * (1 - l_discount)) AS revenue
FROM lineitem, part
WHERE (p_partkey = l_partkey AND p_brand = 'Brand#12' AND p_container IN ('SM CASE', 'SM BOX', 'SM PACK', 'SM PKG')
        AND l_quantity >= 1 AND l_quantity <= 1 + 10 AND p_size BETWEEN 1 AND 5
        AND l_shipmode IN ('AIR', 'AIR REG') AND l_shipinstruct = 'DELIVER IN PERSON')
    OR (p_partkey = l_partkey AND p_brand = 'Brand#23' AND p_container IN ('MED BAG', 'MED BOX', 'MED PKG', 'MED PACK')
        AND l_quantity >= 10 AND l_quantity <= 10 + 10 AND p_size BETWEEN 1 AND 10
        AND l_shipmode IN ('AIR', 'AIR REG') AND l_shipinstruct = 'DELIVER IN PERSON')
    OR (p_partkey = l_partkey AND p_brand = 'Brand#34' AND p_container IN ('LG CASE', 'LG BOX', 'LG PACK', 'LG PKG')
        AND l_quantity >= 20 AND l_quantity <= 20 + 10 AND p_size BETWEEN 1 AND 15
        AND l_shipmode IN ('AIR', 'AIR REG') AND l_shipinstruct = 'DELIVER IN PERSON')""",
    "q20": """
SELECT s_name, s_address
FROM supplier, nation
WHERE s_suppkey IN (
        SELECT ps_suppkey FROM partsupp
        WHERE ps_partkey IN (SELECT p_partkey FROM part WHERE p_name LIKE 'forest%')
            AND ps_availqty > (
                SELECT 0.5 * sum(l_quantity) FROM lineitem
                WHERE l_partkey = ps_partkey AND l_suppkey = ps_suppkey AND l_shipdate >= DATE '1994-01-01'
                    AND l_shipdate < DATE '1994-01-01' + INTERVAL '1' YEAR))
    AND s_nationkey = n_nationkey AND n_name = 'CANADA'
ORDER BY s_name""",
    "q21": """
SELECT s_name, count(*) AS numwait
FROM supplier, lineitem l1, orders, nation
WHERE s_suppkey = l1.l_suppkey AND o_orderkey = l1.l_orderkey AND o_orderstatus = 'F' AND l1.l_receiptdate > l1.l_commitdate
    AND EXISTS (SELECT * FROM lineitem l2 WHERE l2.l_orderkey = l1.l_orderkey AND l2.l_suppkey <> l1.l_suppkey)
    AND NOT EXISTS (SELECT * FROM lineitem l3 WHERE l3.l_orderkey = l1.l_orderkey AND l3.l_suppkey <> l1.l_suppkey
        AND l3.l_receiptdate > l3.l_commitdate)
    AND s_nationkey = n_nationkey AND n_name = 'SAUDI ARABIA'
GROUP BY s_name
ORDER BY numwait DESC, s_name
LIMIT 100""",
    "q22": """
SELECT cntrycode, count(*) AS numcust, sum(c_acctbal) AS totacctbal
FROM (SELECT substring(c_phone FROM 1 FOR 2) AS cntrycode, c_acctbal FROM customer
    WHERE substring(c_phone FROM 1 FOR 2) IN ('13', '31', '23', '29', '30', '18', '17')
        AND c_acctbal > (SELECT avg(c_acctbal) FROM customer WHERE c_acctbal > 0.00
            AND substring(c_phone FROM 1 FOR 2) IN ('13', '31', '23', '29', '30', '18', '17'))
        AND NOT EXISTS (SELECT * FROM orders WHERE o_custkey = c_custkey)) AS custsale
GROUP BY cntrycode
ORDER BY cntrycode""",
}
