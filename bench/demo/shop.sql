-- What the demo shows, as a user would write it: ordinary tables, and stream tables over them.
-- The queries are those of the patterns document (tests/pg/seed-patterns.txt).

CREATE TABLE customers (
    customer_id int PRIMARY KEY,
    name text NOT NULL,
    email text,
    tier text DEFAULT 'standard',
    updated_at timestamptz DEFAULT now()
);

CREATE TABLE orders (
    id serial PRIMARY KEY,
    customer_id int NOT NULL,
    region text NOT NULL,
    product_id int NOT NULL,
    amount numeric(10,2) NOT NULL,
    order_date date NOT NULL DEFAULT CURRENT_DATE
);
CREATE INDEX ON orders (customer_id);

INSERT INTO customers
SELECT i, (ARRAY['Ada','Grace','Edsger','Barbara','Donald','Tony','Radia','Alan','Frances','Niklaus'])[i % 10 + 1]
          || ' ' || chr(65 + i % 26) || '.', NULL,
       CASE WHEN i % 9 = 0 THEN 'gold' WHEN i % 4 = 0 THEN 'silver' ELSE 'standard' END
FROM generate_series(1, 60) AS i;

INSERT INTO orders (customer_id, region, product_id, amount, order_date)
SELECT 1 + (i * 7919) % 60, (ARRAY['north','south','east','west'])[i % 4 + 1], i % 12, 5 + (i * 37) % 200,
       CURRENT_DATE - i % 4
FROM generate_series(1, 800) AS i;

-- Maintained inside the transaction that writes: equal to its query at any moment, to anyone.
CREATE STREAM TABLE live_counter WITH (refresh_mode = 'IMMEDIATE') AS
    SELECT region, COUNT(*) AS cnt, SUM(amount) AS total FROM orders GROUP BY region;

-- Maintained on a schedule, from what has changed since the last time.
CREATE STREAM TABLE by_region WITH (schedule = '5s', refresh_mode = 'DIFFERENTIAL') AS
    SELECT region, SUM(amount) AS total, COUNT(*) AS cnt FROM orders GROUP BY region;

CREATE STREAM TABLE daily_totals WITH (schedule = '5s', refresh_mode = 'DIFFERENTIAL') AS
    SELECT order_date, SUM(amount) AS daily_total, COUNT(*) AS order_count FROM orders GROUP BY order_date;

-- At midnight yesterday's rows leave by themselves.
CREATE STREAM TABLE order_monitor WITH (schedule = '1s', refresh_mode = 'DIFFERENTIAL') AS
    SELECT date_trunc('minute', order_date) AS minute, region, COUNT(*) AS orders, SUM(amount) AS revenue
    FROM orders WHERE order_date >= CURRENT_DATE GROUP BY 1, 2;

-- A join with an aggregate.
CREATE STREAM TABLE customer_360 WITH (schedule = '10s', refresh_mode = 'DIFFERENTIAL') AS
    SELECT c.customer_id, c.name, c.email, c.tier, COUNT(o.id) AS total_orders,
           COALESCE(SUM(o.amount), 0) AS lifetime_value
    FROM customers c LEFT JOIN orders o ON o.customer_id = c.customer_id
    GROUP BY c.customer_id, c.name, c.email, c.tier;

-- Over another stream table, refreshed right after it.
CREATE STREAM TABLE tier_totals WITH (schedule = 'calculated', refresh_mode = 'DIFFERENTIAL') AS
    SELECT tier, COUNT(*) AS customers, SUM(lifetime_value) AS value FROM customer_360 GROUP BY tier;
