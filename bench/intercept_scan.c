/* What it costs to look at every statement: intercept_classify on texts of several sizes.
 *
 * ns/call: best of several rounds. Nothing here needs a server. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/arena.h"
#include "base/text.h"
#include "proxy/intercept.h"

static double now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void measure(const char *name, struct str text)
{
    size_t calls = 1 + (size_t)20e6 / (text.len + 20);
    double best = 1e30;
    volatile int sink = 0;

    for (int round = 0; round < 7; round++) {
        double start = now_ns();

        for (size_t i = 0; i < calls; i++)
            sink = sink + (int)intercept_classify(text, true);
        double each = (now_ns() - start) / (double)calls;
        if (each < best)
            best = each;
    }
    printf("%-34s %9zu bytes %12.1f ns %8.3f ns/byte  kind %d\n", name, text.len, best,
           best / (double)text.len, (int)intercept_classify(text, true));
}

static void measure_repeated(const char *name, const char *piece, size_t len)
{
    struct text t;

    text_init(&t);
    text_put(&t, "INSERT INTO t VALUES (");
    while (t.len < len)
        text_put(&t, piece);
    measure(name, text_str(&t));
    text_free(&t);
}

int main(void)
{
    static const char *const texts[] = {
        "BEGIN",
        "SELECT 1",
        "SELECT abalance FROM pgbench_accounts WHERE aid = 4711;",
        "UPDATE pgbench_accounts SET abalance = abalance + -42 WHERE aid = 4711;",
        "/* app:web */ SELECT u.id, u.name, o.total FROM users u JOIN orders o ON o.user_id = u.id "
        "WHERE o.created_at > now() - interval '1 day' AND u.active ORDER BY o.total DESC LIMIT 50",
        "SELECT pgtrickle.pgt_status()",
        "SELECT pgtrickle.create_stream_table('t', $$SELECT 1$$)",
        "CREATE STREAM TABLE t WITH (schedule = '5s') AS SELECT a, count(*) FROM x GROUP BY a",
    };

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        char name[34];

        snprintf(name, sizeof(name), "%.32s", texts[i]);
        measure(name, str_from(texts[i]));
    }
    measure_repeated("1 MB of numbers", "(12345, 67890), ", 1 << 20);
    measure_repeated("1 MB of prose", "(1, 'The quick brown fox jumps over the lazy dog'), ",
                     1 << 20);
    measure_repeated("1 MB that says stream", "('a stream of strings, upstream'), ", 1 << 20);
    measure_repeated("1 MB that says stream table", "('create stream table'), ", 1 << 20);
    return 0;
}
