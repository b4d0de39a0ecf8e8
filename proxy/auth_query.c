#include "proxy/auth_query.h"

#include <stdlib.h>

#include "base/arena.h"
#include "protocol/message_types.h"
#include "protocol/notice.h"
#include "protocol/query_extended.h"
#include "protocol/result.h"
#include "proxy/client.h"
#include "proxy/login_internal.h"
#include "proxy/pool.h"

#define ANSWER_MAX (256 * 1024) /* of a message: two names and a secret are far shorter */
#define TEXT_OID 25

/* Names in here are qualified: the search_path that it finds is anybody's. */
static const char clean_session[] =
    "SELECT pg_catalog.set_config('role', 'none', true), pg_catalog.set_config('search_path', "
    "pg_catalog.concat('pg_catalog, ', s.reset_val, ', pg_temp'), true) "
    "FROM pg_catalog.pg_settings s WHERE s.name OPERATOR(pg_catalog.=) 'search_path'";

struct auth_lookup {
    struct list_node node; /* worker.auth_lookups */
    struct letter letter;  /* to its own worker: it is over */
    struct worker *worker;
    struct inner_client *asker; /* NULL: closed */
    struct list waiting;        /* struct auth_waiter.node */
    /* What is asked. */
    char *database;
    char *auth_user;
    char *query;
    char *user;
    /* What is answered. */
    struct bytequeue in;
    int n_statements; /* that are done */
    bool found;
    bool has_secret;
    struct text name;
    struct text secret;
    bool over; /* the letter is on its way */
    struct err error;
};

static void lookup_free(struct auth_lookup *l)
{
    list_remove(&l->worker->auth_lookups, &l->node);
    bytequeue_free(&l->in);
    text_free(&l->name);
    text_free(&l->secret);
    err_clear(&l->error);
    free(l->database);
    free(l->auth_user);
    free(l->query);
    free(l->user);
    free(l);
}

static void close_asker(struct auth_lookup *l, const char *reason)
{
    struct inner_client *asker = l->asker;

    if (asker == NULL)
        return;
    l->asker = NULL;
    asker->owner = NULL; /* it is freed later, and has nothing to tell then */
    client_close(&asker->client, reason);
}

static void on_over(struct worker *w, struct letter *letter)
{
    struct auth_lookup *l = LIST_ITEM(letter, struct auth_lookup, letter);
    struct list_node *n;

    (void)w;
    /* The connection is quiet: it goes back to its pool. */
    close_asker(l, "auth_query done");
    struct auth_answer answer = {
        .found = l->found,
        .name = text_str(&l->name),
        .has_secret = l->has_secret,
        .secret = text_str(&l->secret),
    };
    while ((n = list_pop(&l->waiting)) != NULL) {
        struct auth_waiter *waiter = LIST_ITEM(n, struct auth_waiter, node);
        waiter->lookup = NULL;
        if (err_is_set(&l->error))
            login_on_no_answer(waiter->owner, &l->error);
        else
            login_on_answer(waiter->owner, &answer);
    }
    lookup_free(l);
}

/* Nobody is told from here: this may be in the middle of anything. */
static void finish(struct auth_lookup *l)
{
    if (l->over)
        return;
    l->over = true;
    l->letter.deliver = on_over;
    worker_post(l->worker, &l->letter);
}

static void fail(struct auth_lookup *l, const char *message)
{
    if (!err_is_set(&l->error))
        err_set(&l->error, ERR_CONFIG, "08P01", "%s", message);
    finish(l);
}

/* ---- the answer ------------------------------------------------------------------------- */

/* What is wrong with the query is for the log. The answer goes on to its ReadyForQuery. */
static void blame_query(struct auth_lookup *l, const char *why)
{
    log_line(l->worker->proxy->log, LEVEL_ERROR, "S: error in auth_query: %s", why);
    if (!err_is_set(&l->error))
        err_set(&l->error, ERR_CONFIG, "08P01", "bouncer config error");
}

static void on_row(struct auth_lookup *l, struct str body)
{
    struct wire_cursor values;
    uint16_t n;
    bool name_is_null, secret_is_null;

    if (!wire_decode_data_row(body, &n, &values) || n != 2) {
        blame_query(l, "expected two columns, the user's name and its secret");
        return;
    }
    struct str name = wire_value(&values, &name_is_null);
    struct str secret = wire_value(&values, &secret_is_null);
    if (name_is_null) {
        blame_query(l, "the user's name is null");
        return;
    }
    l->found = true;
    l->has_secret = !secret_is_null;
    text_put_str(&l->name, name);
    if (l->has_secret)
        text_put_str(&l->secret, secret);
}

static void on_error(struct auth_lookup *l, struct str body)
{
    struct str severity = notice_get(body, NOTICE_SEVERITY_PLAIN);
    struct err e = { 0 };

    if (severity.len == 0)
        severity = notice_get(body, NOTICE_SEVERITY);
    notice_decode_err(body, &e);
    if (str_equal(severity, STR("ERROR"))) {
        struct text t;
        text_init(&t);
        text_printf(&t, "ERROR: %s", e.message);
        blame_query(l, t.ptr);
        text_free(&t);
    } else if (!err_is_set(&l->error)) {
        /* The connection's end follows: the server's words at its login, or ours about the wait. */
        err_move(&l->error, &e);
    }
    err_clear(&e);
}

static void on_frame(struct auth_lookup *l, const struct wire_frame *f)
{
    switch (f->tag) {
    case BE_DATA_ROW:
        if (l->n_statements == 1 && !l->found)
            on_row(l, f->body);
        break;
    case BE_COMMAND_COMPLETE:
    case BE_PORTAL_SUSPENDED:
        l->n_statements++;
        break;
    case BE_ERROR:
        on_error(l, f->body);
        break;
    case BE_READY_FOR_QUERY:
        finish(l);
        break;
    default:
        break;
    }
}

static void on_output(struct inner_client *asker, struct str bytes)
{
    struct auth_lookup *l = asker->owner;
    struct wire_frame f;

    if (l == NULL || l->over)
        return;
    bytequeue_put(&l->in, bytes.ptr, bytes.len);
    for (;;) {
        struct str rest = bytequeue_str(&l->in);
        enum wire_result result = wire_next_frame(SENT_BY_BACKEND, rest, &f);
        if (result == WIRE_NEED_MORE) {
            if (rest.len > ANSWER_MAX)
                fail(l, "bouncer config error");
            return;
        }
        if (result != WIRE_FRAME) {
            fail(l, "bouncer config error");
            return;
        }
        on_frame(l, &f);
        bytequeue_consume(&l->in, f.bytes.len);
    }
}

static void on_closed(struct inner_client *asker)
{
    struct auth_lookup *l = asker->owner;

    if (l == NULL)
        return;
    l->asker = NULL;
    fail(l, "server conn crashed?");
}

/* ---- the question ----------------------------------------------------------------------- */

static void put_statement(struct bytequeue *q, struct str sql, const char *parameter)
{
    static const uint32_t text_oid[] = { TEXT_OID };
    struct str value = str_from(parameter);

    wire_encode_parse(q, STR(""), sql, text_oid, parameter != NULL);
    wire_encode_bind_text(q, STR(""), STR(""), &value, parameter != NULL);
    wire_encode_execute(q, STR(""), parameter != NULL ? 1 : 0);
}

static bool is_same(const struct auth_lookup *l, const char *database, const char *auth_user,
                    const char *query, const char *user)
{
    return strcmp(l->user, user) == 0 && strcmp(l->database, database) == 0 &&
           strcmp(l->auth_user, auth_user) == 0 && strcmp(l->query, query) == 0;
}

void auth_query_start(struct worker *w, struct auth_waiter *waiter, struct database *db,
                      const char *auth_user, const char *query, const char *user)
{
    LIST_FOREACH(&w->auth_lookups, n)
    {
        struct auth_lookup *l = LIST_ITEM(n, struct auth_lookup, node);
        /* What it has to say is not taken yet, so not sent. */
        if (!l->over && l->asker != NULL && bytequeue_len(&l->asker->client.conn.in) > 0 &&
            is_same(l, db->name, auth_user, query, user)) {
            waiter->lookup = l;
            list_append(&l->waiting, &waiter->node);
            return;
        }
    }
    struct auth_lookup *l = mem_alloc(sizeof(*l));
    l->worker = w;
    list_init(&l->waiting);
    l->database = mem_strdup(db->name);
    l->auth_user = mem_strdup(auth_user);
    l->query = mem_strdup(query);
    l->user = mem_strdup(user);
    text_init(&l->name);
    text_init(&l->secret);
    list_append(&w->auth_lookups, &l->node);
    waiter->lookup = l;
    list_append(&l->waiting, &waiter->node);

    struct pool *pool = pool_get(w, db, proxy_user(w->proxy, str_from(auth_user)), false);
    struct text why;
    text_init(&why);
    pool_sync_parameters(pool);
    if (pool_fails_fast(pool, &why)) {
        err_set(&l->error, ERR_PEER, "08P01",
                "server login has been failing, cached error: %s (server_login_retry)", why.ptr);
        finish(l);
    }
    text_free(&why);
    if (l->over)
        return;
    struct bytequeue q = { 0 };
    put_statement(&q, str_from(clean_session), NULL);
    put_statement(&q, str_from(query), user);
    wire_encode_sync(&q);
    l->asker = inner_client_new(w, pool, on_output, on_closed, l);
    inner_client_say(l->asker, bytequeue_str(&q));
    bytequeue_free(&q);
}

void auth_query_abandon(struct auth_waiter *waiter)
{
    struct auth_lookup *l = waiter->lookup;

    if (l == NULL)
        return;
    waiter->lookup = NULL;
    list_remove(&l->waiting, &waiter->node);
    if (!list_is_empty(&l->waiting) || l->over)
        return;
    /* Nobody wants to know any more. */
    close_asker(l, "auth_query abandoned");
    lookup_free(l);
}
