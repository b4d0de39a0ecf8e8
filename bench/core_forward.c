/* What a transaction costs in the core, without sockets: CPU nanoseconds and instructions from the
 * bytes of the client to the answer in its hands, in transaction pooling, statements being watched.
 *
 * The world is that of the tests (tests/proxy/world.h): byte queues, a clock that stands. What is
 * left of a transaction's CPU time in bench/pooler.py are system calls.
 */
#include <linux/perf_event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "protocol/query_extended.h"
#include "protocol/query_simple.h"
#include "protocol/result.h"
#include "protocol/status.h"
#include "tests/proxy/world.h"

#define ROUNDS 5
#define TRANSACTIONS 100000
#define SQL "SELECT abalance FROM pgbench_accounts WHERE aid = 4711;"

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* -1: the kernel does not let us count. */
static int open_counter(void)
{
    struct perf_event_attr a = { .type = PERF_TYPE_HARDWARE,
                                 .size = sizeof(a),
                                 .config = PERF_COUNT_HW_INSTRUCTIONS,
                                 .exclude_kernel = 1,
                                 .exclude_hv = 1 };
    return (int)syscall(SYS_perf_event_open, &a, 0, -1, -1, 0);
}

static void put_rows(struct bytequeue *q)
{
    struct str value = STR("4711");
    wire_encode_data_row(q, &value, 1);
    wire_encode_command_complete(q, STR("SELECT 1"));
    wire_encode_ready(q, STATUS_IDLE);
}

static void simple(struct bytequeue *ask, struct bytequeue *answer)
{
    wire_encode_query(ask, STR(SQL));
    wire_encode_text_columns(answer, (const char *const[]){ "abalance" }, 1);
    put_rows(answer);
}

static void put_bound(struct bytequeue *ask, struct bytequeue *answer, struct str name)
{
    struct str value = STR("4711");
    wire_encode_bind_text(ask, STR(""), name, &value, 1);
    wire_encode_describe(ask, TARGET_PORTAL, STR(""));
    wire_encode_execute(ask, STR(""), 0);
    wire_encode_sync(ask);
    wire_put_empty(answer, BE_BIND_COMPLETE);
    wire_encode_text_columns(answer, (const char *const[]){ "abalance" }, 1);
    put_rows(answer);
}

static void extended(struct bytequeue *ask, struct bytequeue *answer)
{
    wire_encode_parse(ask, STR(""), STR(SQL), NULL, 0);
    wire_put_empty(answer, BE_PARSE_COMPLETE);
    put_bound(ask, answer, STR(""));
}

static void prepared(struct bytequeue *ask, struct bytequeue *answer)
{
    put_bound(ask, answer, STR("P_0"));
}

static void forget(struct peer *p)
{
    bytequeue_consume(&p->got, bytequeue_len(&p->got));
}

static bool measure(const char *name, void (*put)(struct bytequeue *, struct bytequeue *),
                    int counter)
{
    struct world *w = world_new("auth_type = trust\npool_mode = transaction\n", "\"ann\" \"\"\n");
    struct bytequeue ask = { 0 }, answer = { 0 };
    double best = 0;
    long long least = 0;

    /* Watched: its functions are called for statements that name stream tables, of which none is.
     */
    w->proxy->views = (struct view_service *)(void *)w;
    struct peer *c = world_login(w, "ann", "db");
    struct peer *s = world_serve_login(w);
    wire_encode_parse(&ask, STR("P_0"), STR(SQL), NULL, 0);
    wire_encode_sync(&ask);
    wire_put_empty(&answer, BE_PARSE_COMPLETE);
    wire_encode_ready(&answer, STATUS_IDLE);
    peer_send_queue(c, &ask);
    peer_send_queue(s, &answer);
    put(&ask, &answer);
    for (int round = 0; round < ROUNDS; round++) {
        if (counter >= 0) {
            ioctl(counter, PERF_EVENT_IOC_RESET, 0);
            ioctl(counter, PERF_EVENT_IOC_ENABLE, 0);
        }
        double start = now_s();
        for (int i = 0; i < TRANSACTIONS; i++) {
            peer_send(c, ask.ptr, bytequeue_len(&ask));
            forget(s);
            peer_send(s, answer.ptr, bytequeue_len(&answer));
            if (i + 1 < TRANSACTIONS)
                forget(c);
        }
        double took = (now_s() - start) / TRANSACTIONS;
        long long instructions = 0;
        if (counter >= 0) {
            ioctl(counter, PERF_EVENT_IOC_DISABLE, 0);
            if (read(counter, &instructions, sizeof(instructions)) != sizeof(instructions))
                instructions = 0;
        }
        if (best == 0 || took < best)
            best = took;
        if (least == 0 || instructions < least)
            least = instructions;
    }
    bool ok = bytequeue_len(&c->got) > 0 && c->conn != NULL && s->conn != NULL;
    if (ok && least > 0)
        printf("%-10s %8.0f ns %8lld instructions\n", name, best * 1e9, least / TRANSACTIONS);
    else if (ok)
        printf("%-10s %8.0f ns\n", name, best * 1e9);
    else
        fprintf(stderr, "%s: the answer did not arrive\n", name);
    bytequeue_free(&ask);
    bytequeue_free(&answer);
    w->proxy->views = NULL;
    world_free(w);
    return ok;
}

int main(void)
{
    int counter = open_counter();
    bool ok = measure("simple", simple, counter);
    ok &= measure("extended", extended, counter);
    ok &= measure("prepared", prepared, counter);
    return ok ? 0 : 1;
}
