/* A server: one session as PostgreSQL would keep it, and what can go wrong with it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/arena.h"
#include "protocol/auth.h"
#include "protocol/copy.h"
#include "protocol/notice.h"
#include "protocol/query_extended.h"
#include "protocol/result.h"
#include "protocol/startup.h"
#include "protocol/status.h"
#include "tests/sim/sim.h"

#define NAMES_MAX 64
#define VALUE_MAX 64
#define BIG_ROWS 60

struct name {
    char name[64];
    char sql[160];
};

struct backend {
    struct backend *next;
    struct link link;
    int pid;
    unsigned char key[4];
    bool started;
    bool silent; /* never answers */
    bool over;
    uint64_t busy_until; /* 0: free */
    bool busy_extended;
    char busy_sql[160];
    char tx;
    unsigned owner; /* token of who began the transaction */
    bool skips;
    bool copying;
    char zone[VALUE_MAX];
    char application[VALUE_MAX];
    char portal[160];
    struct name names[NAMES_MAX];
    unsigned n_names;
};

struct backend **backend_next(struct backend *b)
{
    return &b->next;
}

struct link *backend_link(struct backend *b)
{
    return &b->link;
}

bool backend_is_over(const struct backend *b)
{
    return b->over;
}

void backend_free(struct backend *b)
{
    link_free(&b->link);
    free(b);
}

uint64_t backend_wakes_at(const struct backend *b)
{
    return b->over || b->busy_until == 0 ? UINT64_MAX : b->busy_until;
}

void backend_crash(struct backend *b)
{
    struct bytequeue q = { 0 };
    bool politely = sim_chance(b->link.sim, 50);

    if (b->over)
        return;
    b->link.sim->n_faults++;
    if (politely) {
        notice_encode_error(&q, "FATAL", "57P01",
                            "terminating connection due to administrator command");
        link_send(&b->link, &q);
    }
    link_hang_up(&b->link, !politely);
    b->over = true;
}

static struct name *find(struct backend *b, struct str name)
{
    for (unsigned i = 0; i < b->n_names; i++)
        if (str_equal(str_from(b->names[i].name), name))
            return &b->names[i];
    return NULL;
}

static void define(struct backend *b, struct str name, struct str sql)
{
    struct name *n = find(b, name);

    if (n == NULL) {
        if (b->n_names == NAMES_MAX)
            sim_fail(b->link.sim, "a server is given more than %d statements", NAMES_MAX);
        n = &b->names[b->n_names++];
    }
    snprintf(n->name, sizeof(n->name), STR_FMT, STR_ARG(name));
    snprintf(n->sql, sizeof(n->sql), STR_FMT, STR_ARG(sql));
}

static bool begins(const char *sql, const char *with)
{
    return strncmp(sql, with, strlen(with)) == 0;
}

/* The session and the request of a statement; false: the proxy's own. */
static bool owner_of(const char *sql, unsigned *token, unsigned *number)
{
    const char *at = strstr(sql, " -- ");

    return at != NULL && sscanf(at, " -- %u %u", token, number) == 2;
}

static void fail_statement(struct backend *b, struct bytequeue *q, const char *sqlstate,
                           bool extended)
{
    notice_encode_error(q, "ERROR", sqlstate, "no");
    if (b->tx == STATUS_IN_TRANSACTION)
        b->tx = STATUS_FAILED;
    b->skips = extended;
}

static void report(struct bytequeue *q, const char *name, const char *value)
{
    wire_encode_parameter_status(q, str_from(name), str_from(value));
}

/* "SET name TO 'value'" and the proxy's "SET name='value';…", as often as they come. */
static void set_values(struct backend *b, struct bytequeue *q, const char *sql)
{
    const char *at = sql;

    while ((at = strstr(at, "SET ")) != NULL) {
        char name[VALUE_MAX] = "";
        const char *open = strchr(at, '\'');
        const char *close = open != NULL ? strchr(open + 1, '\'') : NULL;
        at += 4;
        if (sscanf(at, "\"%63[a-zA-Z_]\"", name) != 1)
            (void)sscanf(at, "%63[a-zA-Z_]", name);
        if (close == NULL)
            return;
        int len = (int)(close - open - 1);
        if (strcasecmp(name, "timezone") == 0) {
            snprintf(b->zone, sizeof(b->zone), "%.*s", len, open + 1);
            report(q, "TimeZone", b->zone);
        } else if (strcasecmp(name, "application_name") == 0) {
            snprintf(b->application, sizeof(b->application), "%.*s", len, open + 1);
            report(q, "application_name", b->application);
        }
        at = close;
    }
}

static void forget_session(struct backend *b, struct bytequeue *q)
{
    b->n_names = 0;
    snprintf(b->zone, sizeof(b->zone), "UTC");
    b->application[0] = '\0';
    report(q, "TimeZone", b->zone);
    report(q, "application_name", b->application);
}

static void put_rows(struct backend *b, struct bytequeue *q, const char *sql, unsigned rows)
{
    char text[256];
    unsigned token = 0, number = 0;

    owner_of(sql, &token, &number);
    int len = snprintf(text, sizeof(text), "%u %u %s %s", token, number, b->zone, b->application);
    struct str value = { text, (size_t)len };
    for (unsigned i = 0; i < rows; i++)
        wire_encode_data_row(q, &value, 1);
    char tag[32];
    snprintf(tag, sizeof(tag), "SELECT %u", rows);
    wire_encode_command_complete(q, str_from(tag));
}

/* Carries one statement out. False: it goes on for a while, or its data is awaited. */
static bool run(struct backend *b, struct bytequeue *q, const char *sql, bool extended)
{
    struct sim *s = b->link.sim;
    unsigned token = 0, number = 0;
    bool own = !owner_of(sql, &token, &number);

    if (own && begins(sql, "ROLLBACK")) {
        if (b->tx == STATUS_IDLE || !sim_session_is_over(s, b->owner))
            sim_fail(s, "the proxy rolls the transaction of %u back", b->owner);
        b->tx = STATUS_IDLE;
        wire_encode_command_complete(q, STR("ROLLBACK"));
        return true;
    }
    if (own) {
        if (b->tx != STATUS_IDLE)
            sim_fail(s, "the proxy says \"%s\" in the transaction of %u", sql, b->owner);
        if (sql[0] == '\0') {
            wire_put_empty(q, BE_EMPTY_QUERY);
        } else if (begins(sql, "DISCARD ALL")) {
            forget_session(b, q);
            wire_encode_command_complete(q, STR("DISCARD ALL"));
        } else {
            set_values(b, q, sql);
            wire_encode_command_complete(q, STR("SET"));
        }
        return true;
    }
    if (b->tx != STATUS_IDLE && b->owner != token)
        sim_fail(s, "\"%s\" meets the transaction of %u", sql, b->owner);
    if (begins(sql, "COMMIT") || begins(sql, "ROLLBACK")) {
        b->tx = STATUS_IDLE;
        wire_encode_command_complete(q, begins(sql, "COMMIT") ? STR("COMMIT") : STR("ROLLBACK"));
    } else if (b->tx == STATUS_FAILED) {
        fail_statement(b, q, "25P02", extended);
    } else if (begins(sql, "BEGIN")) {
        b->tx = STATUS_IN_TRANSACTION;
        b->owner = token;
        wire_encode_command_complete(q, STR("BEGIN"));
    } else if (begins(sql, "SELECT 1/0")) {
        fail_statement(b, q, "22012", extended);
    } else if (begins(sql, "SELECT pg_sleep")) {
        snprintf(b->busy_sql, sizeof(b->busy_sql), "%s", sql);
        b->busy_until = sim_now(s) + sim_between(s, 10000, 3000000);
        b->busy_extended = extended;
        return false;
    } else if (begins(sql, "SET")) {
        set_values(b, q, sql);
        wire_encode_command_complete(q, STR("SET"));
    } else if (begins(sql, "COPY")) {
        wire_encode_copy_response(q, BE_COPY_IN_RESPONSE, false, 1);
        b->copying = true;
        return false;
    } else {
        put_rows(b, q, sql, begins(sql, "SELECT many") ? BIG_ROWS : 1);
    }
    return true;
}

static void finish(struct backend *b, struct bytequeue *q)
{
    wire_encode_ready(q, (enum wire_status)b->tx);
}

static void on_frame(struct backend *b, const struct wire_frame *f, struct bytequeue *q)
{
    struct sim *s = b->link.sim;
    struct msg_parse parse;
    struct msg_target target;
    struct msg_bind_names bind;
    struct name *n;

    if (b->skips && f->tag != FE_SYNC)
        return;
    switch (f->tag) {
    case FE_QUERY:
        if (run(b, q, f->body.ptr, false))
            finish(b, q);
        break;
    case FE_PARSE:
        assert_true(wire_decode_parse(f->body, &parse));
        if (parse.statement.len > 0 && find(b, parse.statement) != NULL)
            sim_fail(s, "statement %s is prepared twice", parse.statement.ptr);
        define(b, parse.statement, parse.query);
        wire_put_empty(q, BE_PARSE_COMPLETE);
        break;
    case FE_BIND:
        assert_int_equal(wire_decode_bind_names(f->body, &bind), WIRE_FRAME);
        n = find(b, bind.statement);
        if (n == NULL)
            sim_fail(s, "statement %s is bound and was not prepared", bind.statement.ptr);
        snprintf(b->portal, sizeof(b->portal), "%s", n->sql);
        /* The request's number comes with the portal's name: the text is shared by all. */
        if (bind.portal.len > 0)
            snprintf(b->portal, sizeof(b->portal), "SELECT -- " STR_FMT, STR_ARG(bind.portal));
        wire_put_empty(q, BE_BIND_COMPLETE);
        break;
    case FE_DESCRIBE:
        assert_true(wire_decode_target(f->body, &target));
        wire_put_empty(q, BE_NO_DATA);
        break;
    case FE_CLOSE:
        assert_true(wire_decode_target(f->body, &target));
        n = target.target == TARGET_STATEMENT ? find(b, target.name) : NULL;
        if (n != NULL)
            *n = b->names[--b->n_names];
        wire_put_empty(q, BE_CLOSE_COMPLETE);
        break;
    case FE_EXECUTE:
        run(b, q, b->portal, true);
        break;
    case FE_SYNC:
        b->skips = false;
        finish(b, q);
        break;
    case FE_COPY_DONE:
        if (b->copying) {
            b->copying = false;
            wire_encode_command_complete(q, STR("COPY 2"));
            finish(b, q);
        }
        break;
    case FE_COPY_FAIL:
        if (b->copying) {
            b->copying = false;
            fail_statement(b, q, "57014", false);
            finish(b, q);
        }
        break;
    case FE_TERMINATE:
        b->over = true;
        break;
    default:
        break;
    }
}

static void log_in(struct backend *b, const struct startup_packet *p)
{
    struct sim *s = b->link.sim;
    struct bytequeue q = { 0 };
    struct str params = p->params;
    struct str value;

    if (!s->healed && sim_chance(s, 6)) {
        s->n_faults++;
        switch (sim_roll(s, 3)) {
        case 0:
            notice_encode_error(&q, "FATAL", "57P03", "the database system is starting up");
            break;
        case 1:
            notice_encode_error(&q, "FATAL", "53300", "sorry, too many clients already");
            break;
        default:
            b->silent = true; /* until the proxy gives up */
            return;
        }
        link_send(&b->link, &q);
        link_hang_up(&b->link, false);
        b->over = true;
        return;
    }
    snprintf(b->zone, sizeof(b->zone), "UTC");
    while (startup_next_param(&params, &value, &value))
        ;
    if (startup_find_param(p->params, "application_name", &value))
        snprintf(b->application, sizeof(b->application), STR_FMT, STR_ARG(value));
    if (startup_find_param(p->params, "TimeZone", &value))
        snprintf(b->zone, sizeof(b->zone), STR_FMT, STR_ARG(value));
    b->started = true;
    b->tx = STATUS_IDLE;
    auth_encode_ok(&q);
    report(&q, "server_version", "15.4");
    report(&q, "client_encoding", "UTF8");
    report(&q, "DateStyle", "ISO, MDY");
    report(&q, "TimeZone", b->zone);
    report(&q, "standard_conforming_strings", "on");
    report(&q, "application_name", b->application);
    report(&q, "IntervalStyle", "postgres");
    wire_encode_backend_key(&q, b->pid, (struct str){ (char *)b->key, sizeof(b->key) });
    finish(b, &q);
    link_send(&b->link, &q);
}

/* A cancel for the backend with this key ends what it runs, as PostgreSQL does, and must have been
 * asked for by the session whose statement that is, or come after its end. */
static void on_cancel(struct backend *from, const struct startup_packet *p)
{
    struct sim *s = from->link.sim;
    struct bytequeue q = { 0 };
    unsigned token = 0, number = 0;

    from->over = true;
    link_hang_up(&from->link, false);
    for (struct backend *b = s->backends; b != NULL; b = b->next) {
        if (!b->started || b->over || b->pid != p->cancel_pid ||
            !str_equal(p->cancel_key, (struct str){ (char *)b->key, sizeof(b->key) }) ||
            b->busy_until == 0)
            continue;
        if (!owner_of(b->busy_sql, &token, &number))
            return;
        if (!s->canceled[token] && !sim_session_is_over(s, token))
            sim_fail(s, "a cancel that session %u did not send ends its statement %u", token,
                     number);
        b->busy_until = 0;
        s->n_canceled++;
        fail_statement(b, &q, "57014", b->busy_extended);
        if (!b->busy_extended)
            finish(b, &q);
        link_send(&b->link, &q);
    }
}

static void on_startup(struct backend *b)
{
    struct startup_packet p;
    size_t used;

    if (startup_next(bytequeue_str(&b->link.heard), &p, &used) != WIRE_FRAME)
        return;
    struct bytequeue q = { 0 };
    switch (p.kind) {
    case STARTUP_CANCEL:
        on_cancel(b, &p);
        return;
    case STARTUP_SSL_REQUEST:
    case STARTUP_GSSENC_REQUEST:
        bytequeue_put(&q, "N", 1);
        link_send(&b->link, &q);
        break;
    case STARTUP_MESSAGE:
        log_in(b, &p);
        break;
    }
    bytequeue_consume(&b->link.heard, used);
}

void backend_turn(struct backend *b)
{
    struct sim *s = b->link.sim;
    struct bytequeue q = { 0 };
    struct wire_frame f;

    if (b->over)
        return;
    if (b->busy_until != 0 && b->busy_until <= sim_now(s)) {
        b->busy_until = 0;
        put_rows(b, &q, b->busy_sql, 1);
        if (!b->busy_extended)
            finish(b, &q);
    }
    if (!b->started && !b->silent)
        on_startup(b);
    while (b->started && !b->over && b->busy_until == 0 &&
           wire_next_frame(SENT_BY_FRONTEND, bytequeue_str(&b->link.heard), &f) == WIRE_FRAME) {
        on_frame(b, &f, &q);
        bytequeue_consume(&b->link.heard, f.bytes.len);
    }
    link_send(&b->link, &q);
    if (b->link.ended)
        b->over = true;
}

void backend_accept(struct sim *s, struct peer *p)
{
    struct backend *b = mem_alloc(sizeof(*b));

    b->link = (struct link){ .sim = s, .peer = p };
    b->pid = s->next_pid++;
    for (size_t i = 0; i < sizeof(b->key); i++)
        b->key[i] = (unsigned char)sim_roll(s, 256);
    b->next = s->backends;
    s->backends = b;
    if (!s->healed && sim_chance(s, 4)) {
        s->n_faults++;
        b->over = true;
        peer_hang_up(p); /* connection refused */
    } else {
        peer_connected(p);
    }
}
