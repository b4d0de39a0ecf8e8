// node's pg through the port: simple and prepared statements, parameters, errors, a transaction, a stream table.
// Usage: node node_client.js PORT DATABASE; prints "ok" or throws.
'use strict';
const assert = require('assert');
const { Client, Pool } = require('pg');

const target = {
    host: '127.0.0.1', port: Number(process.argv[2]), database: process.argv[3], user: 'postgres',
    password: process.env.PGPASSWORD,
};

async function main() {
    const client = new Client(target);
    await client.connect();
    await client.query('CREATE TABLE node_orders (id serial PRIMARY KEY, region text, amount int)');
    const made = await client.query("CREATE STREAM TABLE node_totals WITH (refresh_mode = 'IMMEDIATE') AS "
        + 'SELECT region, sum(amount) AS total FROM node_orders GROUP BY region');
    assert.strictEqual(made.command, 'CREATE');
    for (let i = 0; i < 20; i++) {
        await client.query('INSERT INTO node_orders (region, amount) VALUES ($1, $2)', ['r' + i % 3, i]);
        await client.query({ name: 'add', text: 'INSERT INTO node_orders (region, amount) VALUES ($1, $2)',
            values: ['named', 1] });
    }
    const total = "SELECT total::int FROM node_totals WHERE region = $1";
    assert.strictEqual((await client.query(total, ['named'])).rows[0].total, 20);
    await assert.rejects(client.query('SELECT nothing FROM node_orders'), { code: '42703' });
    await client.query('BEGIN');
    await client.query("DELETE FROM node_orders WHERE region = 'named'");
    assert.strictEqual((await client.query(total, ['named'])).rows.length, 0);
    await client.query('ROLLBACK');
    assert.strictEqual((await client.query(total, ['named'])).rows[0].total, 20);
    const several = await client.query("SELECT 1 AS a; INSERT INTO node_orders (region, amount) VALUES ('s', 5);"
        + " SELECT total::int FROM node_totals WHERE region = 's'");
    assert.strictEqual(several[2].rows[0].total, 5);
    const big = 'x'.repeat(3 * 1024 * 1024);
    assert.strictEqual((await client.query('SELECT length($1::text) AS n', [big])).rows[0].n, big.length);

    const pool = new Pool({ ...target, max: 8 });
    await Promise.all(Array.from({ length: 200 }, (_, i) =>
        pool.query({ name: 'pooled', text: 'INSERT INTO node_orders (region, amount) VALUES ($1, $2)',
            values: ['pool', i] })));
    assert.strictEqual((await pool.query(total, ['pool'])).rows[0].total, 199 * 200 / 2);
    await pool.end();
    await client.query('DROP STREAM TABLE node_totals');
    await client.end();
    console.log('ok');
}

main().catch((e) => { console.error(e); process.exit(1); });
