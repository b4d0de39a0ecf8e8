/* A client: asks at random, knows what must come back, and goes away in every way. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/arena.h"
#include "protocol/copy.h"
#include "protocol/notice.h"
#include "protocol/query_extended.h"
#include "protocol/query_simple.h"
#include "protocol/result.h"
#include "protocol/startup.h"
#include "protocol/status.h"
#include "tests/sim/sim.h"

#define ASKS_MAX 4
#define NAMES 4
#define SLOW_WINDOW 2000

/* A request, and the tags that must answer it: 'D' stands for one or more rows, 'E' for an error
 * after which only ReadyForQuery comes. */
struct ask {
    unsigned number;
    char expect[16];
    unsigned at;
    bool has_row;
    bool failed;
    int sets_zone; /* -1: none */
    int names;     /* the statement that it prepares; -1: none */
};

struct asker {
    struct link link;
    unsigned token;
    unsigned next_number;
    bool stalls; /* stops in the middle of its startup packet */
    bool is_in;
    bool told;
    bool slow;
    char tx;
    char zone[64];
    struct ask asks[ASKS_MAX];
    unsigned n_asks;
    bool has_name[NAMES];
    int32_t pid;
    char key[64];
    unsigned key_len;
    bool sleeps;
    uint64_t next_at;
};

const char *const sim_zones[SIM_ZONES] = { "UTC", "Europe/Vienna", "Asia/Tokyo" };

struct link *asker_link(struct asker *a)
{
    return &a->link;
}

bool asker_is_over(const struct asker *a)
{
    return a->link.ended || a->link.hung_up;
}

bool asker_waits(const struct asker *a)
{
    return !asker_is_over(a) && (!a->is_in || a->n_asks > 0);
}

void asker_describe(const struct asker *a, char *out, size_t size)
{
    snprintf(out, size, "session %u (%s) waits for \"%s\" of request %u", a->token,
             a->is_in ? "logged in" : "logging in",
             a->n_asks > 0 ? a->asks[0].expect + a->asks[0].at : "",
             a->n_asks > 0 ? a->asks[0].number : 0);
}

uint64_t asker_wakes_at(const struct asker *a)
{
    return asker_is_over(a) || a->stalls ? UINT64_MAX : a->next_at;
}

bool sim_session_is_over(const struct sim *s, unsigned token)
{
    for (unsigned i = 0; i < SIM_ASKERS; i++)
        if (s->askers[i] != NULL && s->askers[i]->token == token)
            return s->askers[i]->link.peer->conn == NULL;
    return true;
}

void asker_leave(struct asker *a)
{
    link_hang_up(&a->link, false);
}

void asker_free(struct asker *a)
{
    link_free(&a->link);
    free(a);
}

struct asker *asker_new(struct sim *s)
{
    struct asker *a = mem_alloc(sizeof(*a));
    struct bytequeue q = { 0 };
    char application[32];
    unsigned zone = sim_roll(s, SIM_ZONES + 1);

    assert_true(s->next_token < SIM_TOKENS_MAX);
    a->token = s->next_token++;
    a->next_number = 1;
    a->link = (struct link){ .sim = s, .peer = world_accept(s->world) };
    a->tx = STATUS_IDLE;
    a->next_at = sim_now(s);
    a->stalls = !s->healed && sim_chance(s, 2);
    a->slow = sim_chance(s, 15);
    snprintf(a->zone, sizeof(a->zone), "%s", sim_zones[zone % SIM_ZONES]);
    snprintf(application, sizeof(application), "a%u", a->token);

    struct wire_mark m = startup_encode_begin(&q, 3, 0);
    startup_encode_param(&q, STR("user"), sim_chance(s, 50) ? STR("ann") : STR("bob"));
    startup_encode_param(&q, STR("database"), STR("db"));
    startup_encode_param(&q, STR("application_name"), str_from(application));
    if (zone < SIM_ZONES)
        startup_encode_param(&q, STR("TimeZone"), str_from(a->zone));
    startup_encode_end(&q, m);
    if (a->stalls) {
        struct bytequeue half = { 0 };
        bytequeue_put(&half, bytequeue_str(&q).ptr, 9);
        link_send(&a->link, &half);
        bytequeue_free(&q);
    }
    link_send(&a->link, &q);
    if (a->slow)
        peer_open_window(a->link.peer, SLOW_WINDOW);
    return a;
}

/* ---- asking ----------------------------------------------------------------------------- */

static struct ask *ask_new(struct asker *a, const char *expect)
{
    struct ask *k = &a->asks[a->n_asks++];

    *k = (struct ask){ .number = a->next_number++, .sets_zone = -1, .names = -1 };
    snprintf(k->expect, sizeof(k->expect), "%s", expect);
    return k;
}

static struct ask *query(struct asker *a, struct bytequeue *q, const char *expect, const char *verb)
{
    struct ask *k = ask_new(a, a->tx == STATUS_FAILED && expect[0] != 'C' ? "EZ" : expect);
    char sql[160];

    snprintf(sql, sizeof(sql), "%s -- %u %u", verb, a->token, k->number);
    wire_encode_query(q, str_from(sql));
    return k;
}

/* A statement of the same text for everybody; whose question it answers says the portal's name. */
static void pipeline(struct asker *a, struct bytequeue *q)
{
    struct sim *s = a->link.sim;
    int which = (int)sim_roll(s, NAMES);
    char name[16], sql[32], portal[32];
    bool has = a->has_name[which];
    struct ask *k = ask_new(a, has ? "2DC2DCZ" : "12DC2DCZ");

    k->names = which;
    snprintf(name, sizeof(name), "s%d", which);
    snprintf(sql, sizeof(sql), "SELECT row %d", which);
    snprintf(portal, sizeof(portal), "%u %u", a->token, k->number);
    if (!has)
        wire_encode_parse(q, str_from(name), str_from(sql), NULL, 0);
    for (int i = 0; i < 2; i++) {
        wire_encode_bind_text(q, str_from(portal), str_from(name), NULL, 0);
        wire_encode_execute(q, str_from(portal), 0);
    }
    wire_encode_sync(q);
}

static void cancel(struct asker *a)
{
    struct sim *s = a->link.sim;
    struct link l = { .sim = s, .peer = world_accept(s->world) };
    struct bytequeue q = { 0 };
    bool wrong = sim_chance(s, 20);
    char key[64];

    memcpy(key, a->key, sizeof(key));
    if (wrong)
        key[0] = (char)(key[0] + 1);
    else
        s->canceled[a->token] = true;
    startup_encode_cancel(&q, a->pid, (struct str){ key, a->key_len });
    struct link *keep = mem_alloc(sizeof(*keep));
    *keep = l;
    link_send(keep, &q);
    if (sim_chance(s, 20))
        link_hang_up(keep, sim_chance(s, 50));
    sim_keep_cancel(s, keep);
}

static void ask_in_transaction(struct asker *a, struct bytequeue *q)
{
    struct sim *s = a->link.sim;

    switch (sim_roll(s, 8)) {
    case 0:
    case 1:
        query(a, q, "CZ", sim_chance(s, 50) ? "COMMIT" : "ROLLBACK");
        break;
    case 2:
        query(a, q, "EZ", "SELECT 1/0");
        break;
    case 3:
        if (a->tx != STATUS_FAILED) {
            query(a, q, "DCZ", "SELECT pg_sleep");
            a->sleeps = true;
        }
        break;
    case 4:
        if (a->tx != STATUS_FAILED)
            pipeline(a, q);
        break;
    default:
        query(a, q, "DCZ", "SELECT");
        break;
    }
}

static void ask_outside(struct asker *a, struct bytequeue *q)
{
    struct sim *s = a->link.sim;
    unsigned choice = sim_roll(s, 20);
    char sql[64];

    switch (choice) {
    case 0:
    case 1:
    case 2:
        if (s->transactions)
            query(a, q, "CZ", "BEGIN");
        break;
    case 3:
        query(a, q, "EZ", "SELECT 1/0");
        break;
    case 4:
    case 5: {
        int zone = (int)sim_roll(s, SIM_ZONES);
        snprintf(sql, sizeof(sql), "SET TimeZone TO '%s'", sim_zones[zone]);
        query(a, q, "CZ", sql)->sets_zone = zone;
        break;
    }
    case 6:
    case 7:
        query(a, q, "DCZ", "SELECT pg_sleep");
        a->sleeps = true;
        break;
    case 8:
        query(a, q, "GCZ", "COPY t FROM STDIN");
        break;
    case 9:
        query(a, q, "DCZ", "SELECT many");
        break;
    case 10:
    case 11:
    case 12:
        pipeline(a, q);
        break;
    case 13:
        for (unsigned i = 0; i < ASKS_MAX - 1; i++)
            query(a, q, "DCZ", "SELECT");
        break;
    default:
        query(a, q, "DCZ", "SELECT");
        break;
    }
}

static void act(struct asker *a)
{
    struct sim *s = a->link.sim;
    struct bytequeue q = { 0 };

    if (s->healed && a->tx != STATUS_IDLE) {
        query(a, &q, "CZ", "ROLLBACK");
    } else if (!s->healed && sim_chance(s, 2)) {
        if (sim_chance(s, 50))
            wire_encode_terminate(&q);
        link_send(&a->link, &q);
        link_hang_up(&a->link, sim_chance(s, 30));
        return;
    } else if (a->tx != STATUS_IDLE) {
        ask_in_transaction(a, &q);
    } else if (!s->healed) {
        ask_outside(a, &q);
    }
    link_send(&a->link, &q);
}

/* ---- hearing ---------------------------------------------------------------------------- */

static void check_row(struct asker *a, const struct ask *k, const struct wire_frame *f)
{
    struct sim *s = a->link.sim;
    struct wire_cursor values;
    uint16_t n;
    bool is_null;
    char want[200];

    assert_true(wire_decode_data_row(f->body, &n, &values));
    struct str got = wire_value(&values, &is_null);
    snprintf(want, sizeof(want), "%u %u %s a%u", a->token, k->number, a->zone, a->token);
    if (!str_equal(got, str_from(want)))
        sim_fail(s, "session %u asked for \"%s\" and got \"" STR_FMT "\"", a->token, want,
                 STR_ARG(got));
    s->n_rows++;
}

static void on_error(struct asker *a, struct ask *k, const struct wire_frame *f)
{
    struct sim *s = a->link.sim;
    struct str severity = notice_get(f->body, NOTICE_SEVERITY_PLAIN);
    struct str state = notice_get(f->body, NOTICE_SQLSTATE);
    struct str message = notice_get(f->body, NOTICE_MESSAGE);

    if (severity.ptr == NULL)
        severity = notice_get(f->body, NOTICE_SEVERITY);
    if (str_equal(severity, STR("FATAL"))) {
        a->told = true;
        s->n_told++;
        return;
    }
    if (k == NULL)
        sim_fail(s, "session %u is told \"" STR_FMT "\" and asked nothing", a->token,
                 STR_ARG(message));
    bool expected = k->expect[k->at] == 'E';
    bool canceled = str_equal(state, STR("57014")) && s->canceled[a->token];
    if (!expected && !canceled)
        sim_fail(s, "session %u: request %u fails: " STR_FMT " " STR_FMT, a->token, k->number,
                 STR_ARG(state), STR_ARG(message));
    k->failed = true;
}

static void send_copy(struct asker *a)
{
    struct bytequeue q = { 0 };

    wire_encode_copy_data(&q, STR("1\n"));
    wire_encode_copy_data(&q, STR("2\n"));
    wire_encode_copy_done(&q);
    link_send(&a->link, &q);
}

static void on_ready(struct asker *a, struct ask *k, const struct wire_frame *f)
{
    enum wire_status status;

    assert_true(wire_decode_ready(f->body, &status));
    a->tx = (char)status;
    a->sleeps = false;
    a->next_at = sim_now(a->link.sim) + sim_between(a->link.sim, 0, 30000);
    if (k == NULL) {
        a->is_in = true;
        return;
    }
    if (!k->failed && k->sets_zone >= 0)
        snprintf(a->zone, sizeof(a->zone), "%s", sim_zones[k->sets_zone]);
    if (!k->failed && k->names >= 0)
        a->has_name[k->names] = true;
    memmove(&a->asks[0], &a->asks[1], (ASKS_MAX - 1) * sizeof(a->asks[0]));
    a->n_asks--;
}

static void on_frame(struct asker *a, const struct wire_frame *f)
{
    struct sim *s = a->link.sim;
    struct ask *k = a->n_asks > 0 ? &a->asks[0] : NULL;
    struct str key;

    switch (f->tag) {
    case BE_NOTICE:
    case BE_PARAMETER_STATUS:
        return;
    case BE_ERROR:
        on_error(a, k, f);
        return;
    default:
        break;
    }
    if (!a->is_in) {
        if (f->tag == BE_BACKEND_KEY_DATA) {
            assert_true(wire_decode_backend_key(f->body, &a->pid, &key));
            a->key_len = (unsigned)key.len;
            memcpy(a->key, key.ptr, key.len);
        } else if (f->tag == BE_READY_FOR_QUERY) {
            on_ready(a, NULL, f);
        }
        return;
    }
    if (k == NULL || k->failed) {
        if (k == NULL || f->tag != BE_READY_FOR_QUERY)
            sim_fail(s, "session %u gets '%c' that it did not ask for", a->token, f->tag);
        on_ready(a, k, f);
        return;
    }
    if (f->tag == BE_DATA_ROW && k->expect[k->at] == 'D') {
        check_row(a, k, f);
        k->has_row = true;
        return;
    }
    if (k->has_row && k->expect[k->at] == 'D')
        k->at++;
    if (k->expect[k->at] != f->tag)
        sim_fail(s, "session %u: request %u is to be answered by '%c' and gets '%c'", a->token,
                 k->number, k->expect[k->at], f->tag);
    k->at++;
    k->has_row = false;
    if (f->tag == BE_COPY_IN_RESPONSE)
        send_copy(a);
    if (f->tag == BE_READY_FOR_QUERY)
        on_ready(a, k, f);
}

void asker_turn(struct asker *a)
{
    struct sim *s = a->link.sim;
    struct wire_frame f;

    while (!a->link.hung_up &&
           wire_next_frame(SENT_BY_BACKEND, bytequeue_str(&a->link.heard), &f) == WIRE_FRAME) {
        on_frame(a, &f);
        bytequeue_consume(&a->link.heard, f.bytes.len);
    }
    /* In the middle of a message nothing can be said. */
    if (a->link.ended && !a->link.hung_up && !a->told && !a->stalls &&
        bytequeue_len(&a->link.heard) == 0)
        sim_fail(s, "session %u is ended without a word", a->token);
    if (asker_is_over(a) || a->stalls || a->next_at > sim_now(s))
        return;
    a->next_at = sim_now(s) + sim_between(s, 1000, 100000);
    if (a->slow && a->link.peer->conn != NULL)
        peer_open_window(a->link.peer, s->healed ? SIZE_MAX : SLOW_WINDOW);
    if (a->is_in && a->n_asks == 0)
        act(a);
    else if (a->is_in && a->sleeps && sim_chance(s, 15))
        cancel(a);
}
