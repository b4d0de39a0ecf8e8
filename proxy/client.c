#include "proxy/client.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/arena.h"
#include "protocol/auth.h"
#include "protocol/notice.h"
#include "protocol/query_extended.h"
#include "protocol/query_simple.h"
#include "protocol/status.h"
#include "proxy/balance.h"
#include "proxy/batch.h"
#include "proxy/cancel.h"
#include "proxy/client_internal.h"
#include "proxy/client_sql.h"
#include "proxy/intercept.h"
#include "proxy/lending.h"
#include "proxy/login.h"
#include "proxy/server.h"
#include "proxy/session_scan.h"
#include "proxy/session_state.h"
#include "proxy/settings.h"
#include "proxy/takeover.h"
#include "proxy/waiting.h"

/* Messages whose text is looked at come whole up to this; of longer ones the beginning is seen. */
#define TEXT_MAX 65536
/* A Parse of a named statement in transaction pooling, and a stream-table statement, are kept
 * whole. */
#define KEPT_MAX (16 * 1024 * 1024)
#define CONSOLE_MESSAGE_MAX 65536

static const struct conn_ops client_conn_ops;
static const struct conn_ops inner_conn_ops;

static struct client *of_conn(struct conn *c)
{
    return (struct client *)(void *)c;
}

static struct proxy *proxy_of(const struct client *c)
{
    return c->conn.worker->proxy;
}

const char *replication_name(enum replication r)
{
    static const char *const names[] = {
        [REPLICATION_NONE] = "none",
        [REPLICATION_LOGICAL] = "logical",
        [REPLICATION_PHYSICAL] = "physical",
    };

    return names[r];
}

/* A replication connection has its server until its end. */
static enum pool_mode mode_of(const struct client *c)
{
    return c->replication != REPLICATION_NONE ? POOL_MODE_SESSION : pool_mode_of(c->pool);
}

/* Whether its statements are looked at for stream tables. */
static bool intercepts(const struct client *c)
{
    return proxy_of(c)->views != NULL && c->replication == REPLICATION_NONE;
}

const char *client_state_name(const struct client *c)
{
    switch (c->state) {
    case CLIENT_STARTUP:
    case CLIENT_AUTH:
        return "login";
    case CLIENT_LOGIN_WAIT:
    case CLIENT_WAITING:
        return "waiting";
    case CLIENT_IDLE:
        return "idle";
    case CLIENT_ACTIVE:
    case CLIENT_CONSOLE:
        return "active";
    case CLIENT_CANCELING:
        return cancel_is_under_way(c->rare->cancel) ? "active_cancel_req" : "waiting_cancel_req";
    case CLIENT_CLOSED:
        break;
    }
    return "closed";
}

void client_log(struct client *c, enum log_level level, const char *fmt, ...)
{
    if (!log_wants(proxy_of(c)->log, level))
        return;
    va_list args;
    va_start(args, fmt);
    struct text t;
    text_init(&t);
    text_vprintf(&t, fmt, args);
    va_end(args);
    proxy_log_conn(proxy_of(c), level, 'C', c, c->database_name, c->user_name, &c->conn.peer, "%s",
                   t.ptr);
    text_free(&t);
}

struct client *client_new(struct worker *w, const struct address *peer)
{
    struct client *c = mem_alloc(sizeof(*c));

    conn_init(&c->conn, w, &client_conn_ops);
    conn_set_peer(&c->conn, peer);
    c->id = proxy_next_id(w->proxy);
    c->connected_at_us = c->quiet_at_us = w->now_us;
    wire_reader_init(&c->reader, SENT_BY_FRONTEND, TEXT_MAX);
    map_init(&c->statements);
    list_append(&w->clients, &c->worker_node);
    w->load++;
    client_update_timer(c);
    balance_watch(w);
    return c;
}

const struct client_rare *client_has(const struct client *c)
{
    static const struct client_rare nothing = { 0 };

    return c->rare != NULL ? c->rare : &nothing;
}

struct client_rare *client_rare(struct client *c)
{
    if (c->rare == NULL) {
        c->rare = mem_alloc(sizeof(*c->rare));
        c->rare->client = c;
    }
    return c->rare;
}

void client_forget_rare(struct client *c)
{
    const struct client_rare *r = client_has(c);

    if (r->move != NULL || r->cancel != NULL || r->admin != NULL || r->ends_server != NULL ||
        r->install_error != NULL || list_node_is_linked(&r->install_node) ||
        r->lend_portals.count > 0)
        return;
    if (c->rare != NULL)
        map_free(&c->rare->lend_portals);
    free(c->rare);
    c->rare = NULL;
}

static void clear_lend_portals(struct client *c)
{
    if (c->rare != NULL)
        client_statements_clear(&c->rare->lend_portals, &proxy_of(c)->statements);
}

/* ---- inside of the process --------------------------------------------------------------- */

bool client_is_inner(const struct client *c)
{
    return c->conn.ops == &inner_conn_ops;
}

struct inner_client *inner_client_new(struct worker *w, struct pool *pool,
                                      void (*on_output)(struct inner_client *c, struct str bytes),
                                      void (*on_closed)(struct inner_client *c), void *owner)
{
    struct inner_client *inner = mem_alloc(sizeof(*inner));
    struct client *c = &inner->client;

    inner->on_output = on_output;
    inner->on_closed = on_closed;
    inner->owner = owner;
    conn_init(&c->conn, w, &inner_conn_ops);
    conn_set_peer(&c->conn, &(struct address){ .is_unix = true });
    wire_reader_init(&c->reader, SENT_BY_FRONTEND, TEXT_MAX);
    map_init(&c->statements);
    list_append(&w->clients, &c->worker_node);
    w->load++;
    c->connected_at_us = c->quiet_at_us = c->waiting_since_us = w->now_us;
    c->pool = pool;
    c->db = pool->db;
    c->user = pool->user;
    c->database_name = c->db->name;
    c->user_name = c->user->name;
    c->names_shared = true;
    c->state = CLIENT_LOGIN_WAIT;
    client_update_timer(c);
    pool_add_client(pool, c);
    pool_sync_parameters(pool);
    list_append(&pool->login_waiting, &c->wait_node);
    pool_serve(pool);
    return inner;
}

void inner_client_say(struct inner_client *c, struct str bytes)
{
    bytequeue_put(&c->client.conn.in, bytes.ptr, bytes.len);
    conn_wake(&c->client.conn);
}

static void on_inner_output(struct conn *conn, struct str bytes)
{
    struct inner_client *inner = (struct inner_client *)(void *)conn;

    inner->on_output(inner, bytes);
}

/* ---- the end ---------------------------------------------------------------------------- */

/* Takes the client out of everything. */
static void leave(struct client *c)
{
    struct proxy *p = proxy_of(c);
    struct worker *w = c->conn.worker;

    timer_unset(&w->timers, &c->timer);
    if (c->login != NULL)
        login_abandon(c->login);
    if (client_has(c)->cancel != NULL)
        cancel_abandon(c);
    if (list_node_is_linked(&client_has(c)->install_node))
        list_remove(&w->views_waiting, &c->rare->install_node);
    client_stay(c);
    session_state_leave(c);
    if (c->pool != NULL)
        pool_remove_client(c->pool, c);
    bool kept_by_job = c->lend != NULL && lending_abandon(c);
    if (c->server != NULL && !kept_by_job)
        server_unlink(c->server, true);
    c->server = NULL;
    if (c->cancel_key_len > 0) {
        pthread_mutex_lock(&p->lock);
        map_remove(&p->cancel_keys, &c->cancel_node);
        pthread_mutex_unlock(&p->lock);
        cancel_key_drop(&c->cancel_key, c->cancel_key_len);
        c->cancel_key_len = 0;
    }
    if (c->counted)
        p->n_clients--;
    if (c->counted_db)
        c->db->n_clients--;
    if (c->counted_user)
        c->user->n_clients--;
    if (client_has(c)->admin != NULL) {
        takeover_on_gone(p, c);
        proxy_drop_admin_wait(p, c->rare->admin);
        p->n_admin_clients--;
    }
    c->counted = c->counted_db = c->counted_user = false;
    c->state = CLIENT_CLOSED;
    list_remove(&w->clients, &c->worker_node);
    w->load--;
    conn_close(&c->conn);
    proxy_on_gone(p);
}

struct client *client_adopt(struct worker *w, const struct address *peer, int fd)
{
    struct client *c = client_new(w, peer);

    w->ops->adopt(w->io, &c->conn, fd);
    return c;
}

int client_surrender(struct client *c)
{
    struct worker *w = c->conn.worker;
    int fd = c->conn.tls == NULL ? w->ops->surrender(w->io, &c->conn) : -1;

    if (fd >= 0)
        leave(c);
    return fd;
}

void client_close(struct client *c, const char *reason)
{
    if (c->state == CLIENT_CLOSED)
        return;
    if (proxy_of(c)->config->log_disconnections && c->state != CLIENT_CANCELING &&
        !client_is_inner(c))
        client_log(c, LEVEL_LOG, "closing because: %s (age=%" PRIu64 "s)", reason,
                   (c->conn.worker->now_us - c->connected_at_us) / 1000000);
    leave(c);
}

/* The client has got the beginning of a message and will not get its end: whatever we said now
 * would be taken for the rest of it. */
static bool is_cut(const struct client *c)
{
    return c->cut || (c->server != NULL && !wire_reader_is_between(&c->server->reader));
}

/* message is the reason too. */
static void fail(struct client *c, const char *sqlstate, const char *message, const char *detail)
{
    struct err e = { 0 };

    if (proxy_of(c)->config->log_pooler_errors && !client_is_inner(c))
        client_log(c, LEVEL_WARNING, "pooler error: %s", message);
    err_set(&e, ERR_REFUSAL, sqlstate, "%s", message);
    if (detail != NULL) {
        err_detail(&e, "%s", detail);
        client_log(c, LEVEL_LOG, "waited in vain: %s", detail);
    }
    if (!is_cut(c))
        notice_encode_err(&c->conn.out, "FATAL", &e);
    err_clear(&e);
    client_close(c, message);
}

void client_fail(struct client *c, const char *sqlstate, const char *fmt, ...)
{
    struct text t;
    va_list args;

    if (c->state == CLIENT_CLOSED)
        return;
    text_init(&t);
    va_start(args, fmt);
    text_vprintf(&t, fmt, args);
    va_end(args);
    fail(c, sqlstate, t.ptr, NULL);
    text_free(&t);
}

/* It waited for a server, and is told what for. On worker 0, with the others halted, for whoever
 * holds the servers may be anywhere. */
struct wait_end {
    struct letter letter;
    struct worker *worker;
    uint64_t client_id;
    uint64_t waiting_since_us;
    const char *message;
};

static void end_wait(struct worker *w, struct letter *l)
{
    struct wait_end *end = (struct wait_end *)(void *)l;
    struct waiting why;
    struct text t;

    proxy_halt_workers(w->proxy);
    LIST_FOREACH(&end->worker->clients, n)
    {
        struct client *c = LIST_ITEM(n, struct client, worker_node);
        if (c->id != end->client_id || c->waiting_since_us != end->waiting_since_us ||
            (c->state != CLIENT_WAITING && c->state != CLIENT_LOGIN_WAIT))
            continue;
        text_init(&t);
        waiting_look(c, true, &why);
        waiting_describe(c, &why, &t);
        fail(c, "08P01", end->message, t.ptr);
        text_free(&t);
        break;
    }
    proxy_release_workers(w->proxy);
    free(end);
}

/* message is static. */
void client_fail_waiting(struct client *c, const char *message)
{
    struct wait_end *end = mem_alloc(sizeof(*end));

    end->letter.deliver = end_wait;
    end->worker = c->conn.worker;
    end->client_id = c->id;
    end->waiting_since_us = c->waiting_since_us;
    end->message = message;
    worker_post(proxy_of(c)->workers[0], &end->letter);
}

void client_fail_with(struct client *c, struct str frame, const char *reason)
{
    if (c->state == CLIENT_CLOSED)
        return;
    if (proxy_of(c)->config->log_pooler_errors)
        client_log(c, LEVEL_WARNING, "pooler error: %s", reason);
    if (!is_cut(c))
        conn_send(&c->conn, frame.ptr, frame.len);
    client_close(c, reason);
}

static void forget_install_error(struct client *c)
{
    if (client_has(c)->install_error == NULL)
        return;
    err_clear(c->rare->install_error);
    free(c->rare->install_error);
    c->rare->install_error = NULL;
}

void client_forget_names(struct client *c)
{
    if (!c->names_shared) {
        free((char *)c->database_name);
        free((char *)c->user_name);
    }
    c->database_name = c->user_name = NULL;
    c->names_shared = false;
}

void client_fail_both(struct client *c, const char *reason)
{
    client_rare(c)->ends_server = reason;
    client_fail(c, "08P01", "%s", reason);
}

static void client_free(struct conn *conn)
{
    struct client *c = of_conn(conn);

    client_statements_clear(&c->statements, &conn->worker->proxy->statements);
    clear_lend_portals(c);
    map_free(&c->statements);
    params_clear(&c->params);
    session_state_free(c);
    settings_unref(c->startup);
    settings_unref(c->settings);
    login_free(c->login);
    forget_install_error(c);
    if (c->rare != NULL) {
        admin_session_free(c->rare->admin);
        map_free(&c->rare->lend_portals);
        free(c->rare);
    }
    client_forget_names(c);
    if (client_is_inner(c)) {
        struct inner_client *inner = (struct inner_client *)(void *)c;
        inner->on_closed(inner);
    }
    free(c);
}

/* ---- requests --------------------------------------------------------------------------- */

void client_forward(struct client *c, struct str bytes)
{
    c->discards = false;
    conn_send(&c->server->conn, bytes.ptr, bytes.len);
}

bool client_tracks_statements(const struct client *c)
{
    return mode_of(c) != POOL_MODE_SESSION && proxy_of(c)->config->max_prepared_statements > 0;
}

bool client_standard_strings(const struct client *c)
{
    const char *v = params_get(&c->params, PARAM_STANDARD_CONFORMING_STRINGS);

    return v == NULL || strcmp(v, "off") != 0;
}

void client_request_begins(struct client *c)
{
    struct server *s = c->server;

    if (s->owed.count == 0) {
        if (c->session != NULL)
            session_state_on_request(c);
        c->request_at_us = c->conn.worker->now_us;
        if (c->xact_at_us == 0)
            c->xact_at_us = c->request_at_us;
        if (c->has_deadlines)
            client_set_timer(c, true);
    }
}

struct reply_owed *client_owe(struct client *c, enum reply_ends ends)
{
    client_request_begins(c);
    return server_owe(c->server, ends, REPLY_FORWARDED);
}

/* An error at this place of the pipeline: the server is made to fail here (the portal does not
 * exist), so that its transaction fails as it should, and its words are replaced. */
void client_fail_in_place(struct client *c, const struct err *e)
{
    struct bytequeue frame = { 0 };
    struct reply_owed *o = client_owe(c, ENDS_DESCRIBE);

    notice_encode_err(&frame, "ERROR", e);
    o->audience = REPLY_SUBSTITUTED;
    o->error = bytequeue_take(&frame, &o->error_len);
    wire_encode_describe(&c->server->conn.out, TARGET_STATEMENT, STR("PGTRICKLE_none"));
    conn_flush(&c->server->conn);
    c->skips = true;
}

/* The database must have the SQL side before the message in front goes on. False: it waits. */
static bool views_ready(struct client *c, enum intercept_kind kind)
{
    if (c->db->views_installed || c->install_tried || proxy_of(c)->views == NULL)
        return true;
    /* Where it can't be installed, a query that only reads need not try each time. */
    if (kind == INTERCEPT_READS && c->conn.worker->now_us < c->db->views_retry_us)
        return true;
    c->install_wanted = true;
    lending_install(c);
    return false;
}

/* An error for a Query message, answered by ourselves. */
static void answer_query(struct client *c, const struct err *e)
{
    notice_encode_err(&c->conn.out, "ERROR", e);
    wire_encode_ready(&c->conn.out,
                      c->server != NULL ? (enum wire_status)c->server->tx_status : STATUS_IDLE);
    conn_flush(&c->conn);
}

static bool too_large(struct client *c, bool in_pipeline)
{
    struct err e = { 0 };

    err_set(&e, ERR_REFUSAL, "54000", "statement is too large");
    err_detail(&e,
               "Stream-table statements and prepared statements of transaction pooling may have "
               "up to %d bytes.",
               KEPT_MAX);
    if (in_pipeline) {
        client_fail_in_place(c, &e);
    } else {
        client_fail(c, "54000", "statement is too large");
    }
    err_clear(&e);
    return true;
}

void client_forget_unnamed(struct client *c)
{
    struct client_statement *cs = client_statement_find(&c->statements, STR(""));

    if (cs != NULL)
        client_statement_remove(&c->statements, cs, &proxy_of(c)->statements);
    c->unnamed_here = c->unnamed_unbound = false;
}

#define UNNAMED_KEPT_MAX 16384 /* bytes */

/* Drivers that ask for a statement's types first send Parse, Describe, Sync, and bind to the
 * unnamed statement in the next batch, which may meet another server. So what nothing was bound to
 * yet is kept, and follows the client as a named one does. */
static void note_unnamed(struct client *c, struct str tail)
{
    struct bytequeue *kept = &c->server->unnamed;

    c->unnamed_here = true;
    c->unnamed_unbound = tail.len > 0 && tail.len <= UNNAMED_KEPT_MAX;
    if (!c->unnamed_unbound)
        return;
    bytequeue_consume(kept, bytequeue_len(kept));
    bytequeue_put(kept, tail.ptr, tail.len);
}

/* The server goes to others. */
static void leave_unnamed(struct client *c)
{
    struct client_statement *cs = client_statement_find(&c->statements, STR(""));

    if (c->unnamed_unbound) {
        struct statement *st = statement_get(&proxy_of(c)->statements, reading_of(c),
                                             STATEMENT_PARSED, bytequeue_str(&c->server->unnamed));
        client_forget_unnamed(c);
        client_statement_add(&c->statements, ++c->next_serial, STR(""), st, NULL);
    } else if (cs != NULL && cs->statement == NULL) {
        client_forget_unnamed(c);
    }
    c->unnamed_here = c->unnamed_unbound = false;
}

/* Names that are not known: PgBouncer's way with them; and what the servers have for others is not
 * theirs to use. Other names are the server's to refuse. */
static bool fails_for_unknown(struct client *c, struct str name, const struct client_statement *cs)
{
    struct err e = { 0 };

    if (cs != NULL || name.len == 0 || !client_tracks_statements(c))
        return false;
    if (proxy_of(c)->config->prepared_errors_fatal) {
        client_fail(c, "08P01", "prepared statement did not exist");
        return true;
    }
    if (!str_starts_with(name, STR("PGTRICKLE_")))
        return false;
    err_set(&e, ERR_REFUSAL, "26000", "prepared statement \"" STR_FMT "\" does not exist",
            STR_ARG(name));
    client_fail_in_place(c, &e);
    err_clear(&e);
    return true;
}

/* The unnamed statement on the server is another client's. True: the message has failed. */
static bool lacks_unnamed(struct client *c, struct str name, const struct client_statement *cs)
{
    struct err e = { 0 };

    if (name.len > 0 || cs != NULL || !client_tracks_statements(c))
        return false;
    c->unnamed_unbound = false;
    if (c->unnamed_here)
        return false;
    err_set(&e, ERR_REFUSAL, "26000", "unnamed prepared statement does not exist");
    client_fail_in_place(c, &e);
    err_clear(&e);
    return true;
}

/* The same for a Query, with what else waits in front of it: the server fails instead. */
void client_refuse_query(struct client *c, const struct err *e)
{
    struct bytequeue frame = { 0 };
    struct reply_owed *o = client_owe(c, ENDS_QUERY);

    notice_encode_err(&frame, "ERROR", e);
    o->audience = REPLY_SUBSTITUTED;
    o->error = bytequeue_take(&frame, &o->error_len);
    wire_encode_query(&c->server->conn.out, STR("EXECUTE \"PGTRICKLE_none\""));
    conn_flush(&c->server->conn);
}

/* What the text says may change the session. False: the message is done with, *taken tells how. */
bool client_state_allows(struct client *c, struct str text, bool *taken)
{
    struct err e = { 0 };
    enum session_next next = session_state_on_text(c, text, false, &e);

    *taken = next != SESSION_WAITS;
    if (next == SESSION_REFUSED)
        client_fail_in_place(c, &e);
    err_clear(&e);
    return next == SESSION_GO_ON;
}

/* False: the message is not taken yet. */
static bool on_query(struct client *c, const struct wire_piece *f)
{
    struct str text = { f->body.ptr, f->ends && f->body.len > 0 ? f->body.len - 1 : f->body.len };
    enum intercept_kind kind =
        intercepts(c) ? intercept_classify(text, client_standard_strings(c)) : INTERCEPT_FORWARD;

    if (proxy_of(c)->config->disable_pqexec) {
        client_fail(c, "08P01", "PQexec disallowed");
        return true;
    }
    if (kind != INTERCEPT_FORWARD && !views_ready(c, kind))
        return false;
    if (kind == INTERCEPT_LEND && c->server->copy_in)
        kind = INTERCEPT_FORWARD;
    if (kind == INTERCEPT_LEND) {
        if (!f->ends)
            return too_large(c, false);
        if (client_has(c)->install_error != NULL && c->server->owed.count == 0) {
            answer_query(c, c->rare->install_error);
            client_on_batch_done(c);
            return true;
        }
        client_request_begins(c);
        lending_query(c, text);
        return true;
    }
    struct err e = { 0 };
    switch (session_state_on_text(c, text, true, &e)) {
    case SESSION_WAITS:
        return false;
    case SESSION_REFUSED:
        client_refuse_query(c, &e);
        err_clear(&e);
        return true;
    case SESSION_GO_ON:
        break;
    }
    if (f->ends && !c->server->copy_in && client_sql_may_matter(c, text, false)) {
        enum client_sql_next next = client_sql_query(c, text);
        if (next != CLIENT_SQL_NOT_OURS)
            return next == CLIENT_SQL_DONE;
    }
    client_forget_unnamed(c);
    client_owe(c, ENDS_QUERY);
    client_forward(c, f->bytes);
    return true;
}

void client_send_parse(struct client *c, struct str name, struct str tail)
{
    wire_encode_parse_tail(&c->server->conn.out, name, tail);
    conn_flush(&c->server->conn);
}

void client_parse_named(struct client *c, struct str name, struct str tail, struct lend_info *lend,
                        struct sql_command *sql)
{
    struct server *s = c->server;
    struct statement *st;

    if (client_statement_find(&c->statements, name) != NULL) {
        struct err e = { 0 };
        /* What else is wrong with it comes first. */
        st = statement_get(&proxy_of(c)->statements, reading_of(c), STATEMENT_PARSED, tail);
        client_request_begins(c);
        if (s->tx_status == STATUS_FAILED)
            server_make_room(s, st);
        server_prepare(s, st);
        if (sql != NULL)
            client_sql_mark_parse(s, sql, st);
        statement_unref(&proxy_of(c)->statements, st);
        err_set(&e, ERR_REFUSAL, "42P05", "prepared statement \"" STR_FMT "\" already exists",
                STR_ARG(name));
        if (proxy_of(c)->config->prepared_errors_fatal)
            client_fail(c, "08P01", "prepared statement '" STR_FMT "' was already prepared",
                        STR_ARG(name));
        else
            client_fail_in_place(c, &e);
        err_clear(&e);
        lend_info_free(lend);
        sql_command_unref(sql, &proxy_of(c)->statements);
        return;
    }
    st = statement_get(&proxy_of(c)->statements, reading_of(c), STATEMENT_PARSED, tail);
    c->next_serial++;
    client_statement_add(&c->statements, c->next_serial, name, st, lend)->sql = sql;
    /* In a transaction that failed the server has to say so. */
    bool known = server_has_fresh(s, st) && s->tx_status != STATUS_FAILED;
    client_request_begins(c);
    if (!known)
        server_make_room(s, st);
    struct reply_owed *o = server_owe(s, ENDS_PARSE, known ? REPLY_FAKED : REPLY_FORWARDED);
    o->client_has = true;
    o->serial = c->next_serial;
    server_note_change(s, o);
    o->outcome = sql != NULL ? sql_outcome_of_parse(sql, tail.len) : NULL;
    if (known) {
        server_statements_touch(&s->statements, st);
        server_answer_fakes(s);
        return;
    }
    o->server_has = true;
    o->statement = statement_ref(st);
    server_learned(s, st);
    s->pool->stats.server_parses++;
    client_send_parse(c, str_from(st->name), tail);
}

/* What was noted in front of a Sync may be undone; what comes behind it must not build on that. */
static bool is_in_doubt(const struct client *c)
{
    return c->server->n_changes_synced > 0 && client_tracks_statements(c);
}

static bool use_in_doubt(const struct client *c, struct str name, const struct client_statement *cs)
{
    return is_in_doubt(c) && name.len > 0 && (cs == NULL || cs->serial <= c->synced_serial);
}

static bool parse_in_doubt(struct client *c, struct str name, struct str tail)
{
    if (!is_in_doubt(c))
        return false;
    if (client_statement_is_named(&c->statements, name) || !server_has_room(c->server))
        return true;
    struct statement *st =
        statement_find(&proxy_of(c)->statements, reading_of(c), STATEMENT_PARSED, tail);
    if (st == NULL)
        return false;
    bool had = server_statements_has(&c->server->statements, st);
    statement_unref(&proxy_of(c)->statements, st);
    return had;
}

/* Whether the name is taken is only known when the Parse that gave it is answered. */
bool client_name_in_doubt(struct client *c, struct str name)
{
    struct client_statement *cs = client_statement_find(&c->statements, name);

    if (cs == NULL || !server_owes_name(c->server, cs->serial))
        return false;
    wire_encode_flush(&c->server->conn.out);
    conn_flush(&c->server->conn);
    return true;
}

static bool on_parse(struct client *c, const struct wire_piece *f)
{
    struct msg_parse m = { 0 };
    struct str text = { 0 };
    bool named;
    enum intercept_kind kind = INTERCEPT_FORWARD;

    if (f->ends) {
        if (!wire_decode_parse(f->body, &m)) {
            client_fail(c, "08P01", "invalid Parse message");
            return true;
        }
        text = m.query;
    } else if (wire_decode_parse_name(f->body, &m.statement) == WIRE_FRAME) {
        text.ptr = f->body.ptr + m.statement.len + 1;
        text.len = f->body.len - m.statement.len - 1;
    } else {
        return too_large(c, true);
    }
    named = m.statement.len > 0;
    if (intercepts(c))
        kind = intercept_classify(text, client_standard_strings(c));
    if (kind != INTERCEPT_FORWARD && !views_ready(c, kind))
        return false;
    if (!f->ends && (kind == INTERCEPT_LEND || (named && client_tracks_statements(c))))
        return too_large(c, true);
    if (named && client_tracks_statements(c) &&
        (parse_in_doubt(c, m.statement, m.tail) || client_name_in_doubt(c, m.statement)))
        return false;
    bool keeps_state = false, taken;
    if (kind != INTERCEPT_LEND && (mode_of(c) != POOL_MODE_SESSION || c->startup != NULL)) {
        if (named && client_tracks_statements(c))
            keeps_state = session_scan_wants(text, false);
        else if (!client_state_allows(c, text, &taken))
            return taken;
    }
    if (f->ends && kind != INTERCEPT_LEND && client_sql_may_matter(c, text, true)) {
        enum client_sql_next next = client_sql_parse(c, &m);
        if (next != CLIENT_SQL_NOT_OURS)
            return next == CLIENT_SQL_DONE;
    }
    c->pool->stats.client_parses++;

    struct lend_info *lend = NULL;
    struct arena arena;
    struct str tail = m.tail;
    arena_init(&arena);
    if (kind == INTERCEPT_LEND) {
        struct intercept_rewrite rw = { 0 };
        struct err e = { 0 };
        if (client_has(c)->install_error != NULL) {
            client_fail_in_place(c, c->rare->install_error);
            arena_free(&arena);
            return true;
        }
        if (!intercept_rewrite(text, client_standard_strings(c), &arena, &rw, &e)) {
            client_fail_in_place(c, &e);
            err_clear(&e);
            arena_free(&arena);
            return true;
        }
        lend = lend_info_new(text, rw.tag, rw.definition_offset, rw.has_rows);
        if (!str_equal(rw.sql, text)) {
            size_t types = m.tail.len - m.query.len;
            char *p = arena_alloc(&arena, rw.sql.len + types);
            memcpy(p, rw.sql.ptr, rw.sql.len);
            memcpy(p + rw.sql.len, m.tail.ptr + m.query.len, types);
            tail = (struct str){ p, rw.sql.len + types };
        }
    }
    if (named && client_tracks_statements(c)) {
        client_parse_named(c, m.statement, tail, lend, NULL);
        struct client_statement *cs = client_statement_find(&c->statements, m.statement);
        if (cs != NULL)
            cs->keeps_state = keeps_state;
    } else {
        struct client_statement *old = client_statement_find(&c->statements, m.statement);
        if (old != NULL)
            client_statement_remove(&c->statements, old, &proxy_of(c)->statements);
        if (lend != NULL)
            client_statement_add(&c->statements, ++c->next_serial, m.statement, NULL, lend);
        client_owe(c, ENDS_PARSE);
        if (m.statement.len == 0 && client_tracks_statements(c))
            note_unnamed(c, f->ends && lend == NULL ? tail : (struct str){ 0 });
        c->pool->stats.server_parses++;
        if (tail.ptr != m.tail.ptr)
            client_send_parse(c, m.statement, tail);
        else
            client_forward(c, f->bytes);
    }
    arena_free(&arena);
    return true;
}

static void forget_lend_portal(struct client *c, struct str portal)
{
    struct client_statement *p = client_statement_find(&client_has(c)->lend_portals, portal);

    if (p != NULL)
        client_statement_remove(&c->rare->lend_portals, p, &proxy_of(c)->statements);
}

/* What follows the Bind in hand is a Describe of its portal. 0: that has not come yet. */
static int describes_portal(const struct client *c, const struct wire_piece *f)
{
    struct str ahead = c->conn.worker->ahead;

    if (!f->ends)
        return -1;
    if (ahead.len <= WIRE_HEADER_LEN)
        return 0;
    return ahead.ptr[0] == FE_DESCRIBE && ahead.ptr[WIRE_HEADER_LEN] == TARGET_PORTAL ? 1 : -1;
}

static unsigned generation_of(const struct statement *st)
{
    return atomic_load_explicit(&st->generation, memory_order_relaxed);
}

/* The client believes that the statement's columns are what it was told before they changed. */
static bool believes_old(struct client_statement *cs)
{
    return cs->was_described && cs->generation != generation_of(cs->statement);
}

static void note_described(struct client_statement *cs)
{
    cs->was_described = true;
    cs->generation = generation_of(cs->statement);
}

/* Bind and Describe of a statement: the server must have it, under its own name. False: it waits
 * for what follows. */
static bool forward_renamed(struct client *c, const struct wire_piece *f,
                            struct client_statement *cs, enum reply_ends ends)
{
    if (cs != NULL && cs->sql != NULL)
        client_sql_renew(c, cs);
    if (cs == NULL || cs->statement == NULL) {
        client_owe(c, ends);
        client_forward(c, f->bytes);
        return true;
    }
    bool asks = ends == ENDS_DESCRIBE || describes_portal(c, f) > 0;
    if (cs->sql == NULL) {
        bool believes = believes_old(cs);
        reading_renew(c, &cs->statement, cs->was_described && !asks);
        if (!believes)
            cs->generation = generation_of(cs->statement);
    }
    if (asks) {
        note_described(cs);
    } else if (believes_old(cs)) {
        struct err e = { 0 };
        if (describes_portal(c, f) == 0)
            return false;
        err_set(&e, ERR_REFUSAL, "0A000", "cached plan must not change result type");
        client_fail_in_place(c, &e);
        err_clear(&e);
        return true;
    }
    bool is_new = batch_is_new(c->server);
    client_request_begins(c);
    server_prepare(c->server, cs->statement);
    if (cs->sql != NULL)
        client_sql_mark_parse(c->server, cs->sql, cs->statement);
    struct reply_owed *o = client_owe(c, ends);
    o->serial = cs->serial;
    if (is_new)
        batch_begin(c->server, o);
    if (!wire_rename_statement(&c->server->conn.out, f, str_from(cs->statement->name)))
        client_forward(c, f->bytes);
    c->discards = false;
    conn_flush(&c->server->conn);
    return true;
}

static bool on_bind(struct client *c, const struct wire_piece *f)
{
    struct msg_bind_names m;

    if (wire_decode_bind_names(f->body, &m) != WIRE_FRAME) {
        if (f->ends)
            client_fail(c, "08P01", "invalid Bind message");
        else
            client_fail(c, "54000", "names in Bind message are too long");
        return true;
    }
    struct client_statement *cs = client_statement_find(&c->statements, m.statement);
    if (use_in_doubt(c, m.statement, cs))
        return false;
    if (lacks_unnamed(c, m.statement, cs) || fails_for_unknown(c, m.statement, cs))
        return true;
    bool taken;
    if (cs != NULL && cs->keeps_state && cs->statement != NULL &&
        !client_state_allows(c, str_from(cs->statement->body), &taken))
        return taken;
    c->pool->stats.binds++;
    forget_lend_portal(c, m.portal);
    if (cs != NULL && cs->lend != NULL)
        client_statement_add(&client_rare(c)->lend_portals, ++c->next_serial, m.portal, NULL,
                             lend_info_copy(cs->lend));
    else if (cs != NULL && cs->sql != NULL)
        client_sql_bound(c, m.portal, cs);
    return forward_renamed(c, f, cs, ENDS_BIND);
}

static bool on_target(struct client *c, const struct wire_piece *f)
{
    struct msg_target m;
    bool closes = f->tag == FE_CLOSE;

    if (!wire_decode_target(f->body, &m)) {
        client_fail(c, "08P01", "invalid %s message", closes ? "Close" : "Describe");
        return true;
    }
    if (m.target == TARGET_PORTAL) {
        if (closes)
            forget_lend_portal(c, m.name);
        client_owe(c, closes ? ENDS_CLOSE : ENDS_DESCRIBE);
        client_forward(c, f->bytes);
        return true;
    }
    struct client_statement *cs = client_statement_find(&c->statements, m.name);
    if (use_in_doubt(c, m.name, cs))
        return false;
    if (!closes) {
        bool unbound = c->unnamed_unbound;
        if (lacks_unnamed(c, m.name, cs) || fails_for_unknown(c, m.name, cs))
            return true;
        c->unnamed_unbound = unbound;
        return forward_renamed(c, f, cs, ENDS_DESCRIBE);
    } else if (m.name.len > 0 && client_tracks_statements(c)) {
        /* The server keeps it for others. */
        client_request_begins(c);
        struct reply_owed *o = server_owe(c->server, ENDS_CLOSE, REPLY_FAKED);
        if (cs != NULL) {
            cs->closing = true;
            o->client_lacks = true;
            o->serial = cs->serial;
            server_note_change(c->server, o);
        }
        server_answer_fakes(c->server);
    } else {
        if (cs != NULL)
            client_statement_remove(&c->statements, cs, &proxy_of(c)->statements);
        client_owe(c, ENDS_CLOSE);
        client_forward(c, f->bytes);
    }
    return true;
}

static bool on_execute(struct client *c, const struct wire_piece *f)
{
    struct msg_execute m;

    if (client_has(c)->lend_portals.count > 0 && wire_decode_execute(f->body, &m)) {
        struct client_statement *p = client_statement_find(&c->rare->lend_portals, m.portal);
        if (p != NULL && p->sql != NULL)
            return client_sql_execute(c, p, f->bytes);
        if (p != NULL) {
            client_request_begins(c);
            lending_execute(c, f->bytes, p->lend);
            return true;
        }
    }
    client_owe(c, ENDS_EXECUTE);
    client_forward(c, f->bytes);
    return true;
}

static bool on_sync(struct client *c, const struct wire_piece *f)
{
    /* The server ignores it, unless the COPY has failed meanwhile: what it answers then is nothing
     * that anybody waits for. */
    if (c->server->copy_in)
        return true;
    c->skips = false;
    c->synced_serial = c->next_serial;
    clear_lend_portals(c);
    if (c->lend_block) {
        lending_end_block(c);
        return true;
    }
    client_owe(c, ENDS_SYNC);
    client_forward(c, f->bytes);
    return true;
}

/* The first piece of a message, or all of it. False: it stays in front, the client waits. */
static bool on_request(struct client *c, const struct wire_piece *f)
{
    if (c->skips && f->tag != FE_SYNC)
        return true;
    switch ((enum wire_frontend_tag)f->tag) {
    case FE_QUERY:
        return on_query(c, f);
    case FE_PARSE:
        return on_parse(c, f);
    case FE_BIND:
        return on_bind(c, f);
    case FE_DESCRIBE:
    case FE_CLOSE:
        return on_target(c, f);
    case FE_EXECUTE:
        return on_execute(c, f);
    case FE_SYNC:
        return on_sync(c, f);
    case FE_FUNCTION_CALL:
        client_owe(c, ENDS_QUERY);
        client_forward(c, f->bytes);
        return true;
    case FE_COPY_DONE:
    case FE_COPY_FAIL:
        server_note_copy_end(c->server);
        client_forward(c, f->bytes);
        return true;
    case FE_COPY_DATA:
    case FE_FLUSH:
        client_forward(c, f->bytes);
        return true;
    case FE_PASSWORD:
    case FE_TERMINATE:
        break;
    }
    client_fail(c, "08P01", "unexpected message '%c'", f->tag);
    return true;
}

/* A message of a client that is not linked. True: it needs no server and is done with. */
static bool on_idle_request(struct client *c, const struct wire_piece *f)
{
    switch ((enum wire_frontend_tag)f->tag) {
    case FE_COPY_DATA:
    case FE_COPY_DONE:
    case FE_COPY_FAIL:
        /* What follows a COPY that failed. */
        return true;
    case FE_FLUSH:
        return true;
    case FE_SYNC:
        c->skips = false;
        wire_encode_ready(&c->conn.out, STATUS_IDLE);
        conn_flush(&c->conn);
        return true;
    case FE_QUERY:
    case FE_PARSE:
    case FE_BIND:
    case FE_DESCRIBE:
    case FE_CLOSE:
    case FE_EXECUTE:
    case FE_FUNCTION_CALL:
    case FE_PASSWORD:
    case FE_TERMINATE:
        break;
    }
    if (c->skips)
        return true;
    if (c->canceled) {
        struct err e = { 0 };
        err_set(&e, ERR_SERVER, "57014", "canceling statement due to user request");
        c->canceled = false;
        if (f->tag == FE_QUERY || f->tag == FE_FUNCTION_CALL) {
            answer_query(c, &e);
        } else {
            notice_encode_err(&c->conn.out, "ERROR", &e);
            conn_flush(&c->conn);
            c->skips = true;
        }
        err_clear(&e);
        return true;
    }
    return false;
}

static uint32_t whole_max(struct client *c, const struct wire_header *h, struct str rest)
{
    switch (h->tag) {
    case FE_COPY_DATA:
    case FE_COPY_FAIL:
        return WIRE_HEADER_LEN;
    case FE_PARSE:
        if (rest.len > WIRE_HEADER_LEN && rest.ptr[WIRE_HEADER_LEN] != '\0' &&
            client_tracks_statements(c) && h->body_len <= KEPT_MAX - WIRE_HEADER_LEN)
            return KEPT_MAX;
        break;
    default:
        break;
    }
    return TEXT_MAX;
}

/* A stream-table statement, or one with a prepared statement's name in it, is wanted whole when it
 * is longer than TEXT_MAX. */
static bool wants_whole(struct client *c, const struct wire_header *h, struct str rest)
{
    struct str text = { rest.ptr + WIRE_HEADER_LEN, rest.len - WIRE_HEADER_LEN };

    if (rest.len < TEXT_MAX || h->body_len > KEPT_MAX - WIRE_HEADER_LEN)
        return false;
    if (h->tag == FE_PARSE) {
        struct str name;
        if (wire_decode_parse_name(text, &name) != WIRE_FRAME)
            return false;
        text.ptr += name.len + 1;
        text.len -= name.len + 1;
    } else if (h->tag != FE_QUERY) {
        return false;
    }
    if (text.len > TEXT_MAX - 1024)
        text.len = TEXT_MAX - 1024;
    if (client_sql_may_matter(c, text, h->tag == FE_PARSE))
        return true;
    return intercepts(c) && intercept_classify(text, client_standard_strings(c)) == INTERCEPT_LEND;
}

static bool waits_for_answers(struct client *c)
{
    if (!c->waits_for_answers)
        return false;
    c->waits_for_answers = c->server != NULL && c->server->owed.count > 0;
    return c->waits_for_answers && !c->server->copy_in; /* in COPY the server waits for us */
}

static void keep_batch(struct client *c, const struct wire_piece *f)
{
    if (f->ends)
        batch_add(c->server, f->bytes, f->tag == FE_SYNC || f->tag == FE_QUERY);
    else
        batch_forget(c->server);
}

static bool let_go(struct client *c);

static size_t take_requests(struct client *c, struct str bytes)
{
    size_t used = 0;

    while (used < bytes.len && (c->state == CLIENT_IDLE || c->state == CLIENT_ACTIVE)) {
        struct str rest = { bytes.ptr + used, bytes.len - used };
        struct wire_reader before = c->reader;
        struct wire_header h;
        struct wire_piece f;
        enum wire_result result;

        if (c->lend != NULL || c->install_wanted || waits_for_answers(c)) {
            c->conn.held = true;
            break;
        }
        if (!wire_reader_is_between(&c->reader)) {
            result = wire_reader_next(&c->reader, rest, &f);
        } else if ((result = wire_peek_header(SENT_BY_FRONTEND, rest, &h)) == WIRE_FRAME) {
            if (h.body_len >= (uint32_t)proxy_of(c)->config->max_packet_size) {
                client_fail(c, "08P01", "packet is too large (max_packet_size)");
                return used;
            }
            c->reader.whole_max = whole_max(c, &h, rest);
            if (h.body_len + WIRE_HEADER_LEN > c->reader.whole_max && wants_whole(c, &h, rest))
                c->reader.whole_max = KEPT_MAX;
            result = wire_reader_take(&c->reader, &h, rest, &f);
        }
        if (result == WIRE_NEED_MORE)
            break;
        if (result != WIRE_FRAME) {
            client_fail(c, "08P01", "bad packet");
            return used;
        }
        if (f.tag == FE_TERMINATE) {
            client_close(c, "client close request");
            return used + f.bytes.len;
        }
        /* Of a message whose beginning is not forwarded nothing is: its end could be made to look
         * like messages. */
        if (f.starts)
            c->discards = true;
        if (!f.starts) {
            if (!c->discards)
                client_forward(c, f.bytes);
            else if (f.ends && c->state == CLIENT_ACTIVE)
                let_go(c); /* it was refused, and that was answered before it ended */
        } else if (c->state == CLIENT_IDLE && on_idle_request(c, &f)) {
            /* done */
        } else {
            if (c->state == CLIENT_IDLE) {
                if (proxy_of(c)->shutdown == SHUTDOWN_WAIT_FOR_SERVERS) {
                    client_fail(c, "57P01", "server shutting down");
                    return used;
                }
                c->waiting_since_us = c->conn.worker->now_us;
                balance_watch(c->conn.worker);
                pool_checkout(c->pool, c);
                /* Most get one at once: how long it may wait is of no interest before. */
                if (c->state == CLIENT_WAITING)
                    client_update_timer(c);
            }
            c->conn.worker->ahead = (struct str){ rest.ptr + f.bytes.len, rest.len - f.bytes.len };
            if (c->state != CLIENT_ACTIVE || !on_request(c, &f)) {
                c->reader = before;
                if (c->state != CLIENT_CLOSED)
                    c->conn.held = true;
                break;
            }
            c->install_tried = false;
            forget_install_error(c);
            if (c->server != NULL && c->server->batch_grows)
                keep_batch(c, &f);
        }
        used += f.bytes.len;
        if (c->server != NULL &&
            (conn_is_full(&c->server->conn) || c->server->owed.count > REPLIES_OWED_MAX)) {
            conn_pause(&c->conn, true);
            c->conn.held = true;
            break;
        }
    }
    c->pool->stats.client_bytes += used;
    return used;
}

static size_t take_console(struct client *c, struct str bytes)
{
    size_t used = 0;

    while (used < bytes.len && c->state == CLIENT_CONSOLE) {
        struct str rest = { bytes.ptr + used, bytes.len - used };
        struct wire_header h;
        struct wire_frame f;

        if (admin_session_is_waiting(c->rare->admin)) {
            c->conn.held = true;
            break;
        }
        enum wire_result result = wire_peek_header(SENT_BY_FRONTEND, rest, &h);
        if (result == WIRE_FRAME)
            result = h.body_len > CONSOLE_MESSAGE_MAX ? WIRE_MALFORMED
                                                      : wire_next_frame(SENT_BY_FRONTEND, rest, &f);
        if (result == WIRE_NEED_MORE)
            break;
        if (result != WIRE_FRAME) {
            client_fail(c, "08P01", "bad packet");
            return used;
        }
        used += f.bytes.len;
        if (f.tag == FE_TERMINATE) {
            client_close(c, "client close request");
            return used;
        }
        size_t before = bytequeue_len(&c->conn.out);
        proxy_halt_workers(proxy_of(c));
        enum admin_next next = admin_on_message(c->rare->admin, f.tag, f.body, &c->conn.out);
        proxy_release_workers(proxy_of(c));
        proxy_of(c)->admin_stats.client_bytes += f.bytes.len;
        proxy_of(c)->admin_stats.server_bytes += bytequeue_len(&c->conn.out) - before;
        if (f.tag == FE_QUERY || f.tag == FE_SYNC) {
            proxy_of(c)->admin_stats.queries++;
            proxy_of(c)->admin_stats.xacts++;
        }
        conn_flush(&c->conn);
        if (next == ADMIN_HANGUP)
            client_close(c, "console closed");
    }
    return used;
}

static size_t on_bytes(struct conn *conn, struct str bytes)
{
    struct client *c = of_conn(conn);
    size_t used = 0;

    if (c->state == CLIENT_STARTUP || c->state == CLIENT_AUTH)
        used = login_on_bytes(c, bytes);
    struct str rest = { bytes.ptr + used, bytes.len - used };
    switch (c->state) {
    case CLIENT_STARTUP:
    case CLIENT_AUTH:
    case CLIENT_CLOSED:
        return used;
    case CLIENT_LOGIN_WAIT:
    case CLIENT_WAITING:
        conn->held = true;
        return used;
    case CLIENT_IDLE:
    case CLIENT_ACTIVE:
        return used + take_requests(c, rest);
    case CLIENT_CONSOLE:
        return used + take_console(c, rest);
    case CLIENT_CANCELING:
        break;
    }
    return bytes.len;
}

static void on_gone(struct conn *conn, const char *reason)
{
    struct client *c = of_conn(conn);

    if (conn->securing && reason != NULL)
        client_log(c, LEVEL_WARNING, "%s", reason);
    client_close(c, reason != NULL               ? reason
                    : c->state == CLIENT_STARTUP ? "client closed before login"
                                                 : "client unexpected eof");
}

static void on_room(struct conn *conn)
{
    struct client *c = of_conn(conn);

    if (c->lend != NULL)
        lending_on_room(c);
    if (c->server != NULL && !c->server->lent)
        conn_pause(&c->server->conn, false);
}

static const struct conn_ops client_conn_ops = {
    .on_bytes = on_bytes,
    .on_gone = on_gone,
    .on_room = on_room,
    .free = client_free,
};

static const struct conn_ops inner_conn_ops = {
    .on_bytes = on_bytes,
    .on_gone = on_gone,
    .on_room = on_room,
    .free = client_free,
    .on_output = on_inner_output,
};

/* ---- from the pool and the server ------------------------------------------------------- */

void client_on_queued(struct client *c)
{
    c->wait_notified = false;
    c->state = CLIENT_WAITING;
}

void client_on_linked(struct client *c)
{
    c->pool->stats.wait_us += c->conn.worker->now_us - c->waiting_since_us;
    conn_wake(&c->conn);
    if (c->canceled) {
        client_set_state(c, CLIENT_IDLE);
        server_unlink(c->server, false);
    } else {
        client_set_state(c, CLIENT_ACTIVE);
    }
}

void client_on_server_lost(struct client *c, const char *reason, struct str error_frame)
{
    if (error_frame.len > 0)
        client_fail_with(c, error_frame, reason);
    else
        client_fail(c, "08P01", "%s", reason);
}

/* True: the server went back to the pool. */
static bool let_go(struct client *c)
{
    struct server *s = c->server;

    if (c->lend != NULL || c->lend_block || !server_is_clean(s) ||
        !wire_reader_is_between(&c->reader))
        return false;
    bool nothing_left = session_state_may_let_go(c);
    if (mode_of(c) == POOL_MODE_SESSION || !nothing_left) {
        if (c->discarded && s->owed.count == 0) {
            c->discarded = false;
            server_set_again(s);
        }
        return false;
    }
    c->discarded = false;
    clear_lend_portals(c);
    leave_unnamed(c);
    client_set_state(c, CLIENT_IDLE);
    if (c->conn.held)
        conn_wake(&c->conn);
    server_unlink(s, false);
    return true;
}

void client_on_session_known(struct client *c)
{
    session_state_on_look_done(c);
    let_go(c);
    session_state_tell(c, false);
}

void client_on_batch_done(struct client *c)
{
    struct server *s = c->server;
    struct stats *stats = &c->pool->stats;
    uint64_t now = c->conn.worker->now_us;

    stats->queries++;
    stats->query_us += now - c->request_at_us;
    c->request_at_us = now;
    c->quiet_at_us = now;
    if (s->tx_status == STATUS_IDLE && s->owed.count == 0) {
        stats->xacts++;
        stats->xact_us += now - c->xact_at_us;
        c->xact_at_us = 0;
    }
    if (!let_go(c)) {
        if (c->has_deadlines)
            client_update_timer(c);
        if (c->lend != NULL && s->owed.count == 0)
            lending_on_quiet(c);
        else if (s->retire)
            client_on_server_retired(c);
    }
    if (proxy_of(c)->draining)
        client_end_at_boundary(c);
    balance_on_idle(c);
}

/* Between two transactions, with nothing of the client's own under way. */
static bool is_at_boundary(const struct client *c)
{
    const struct server *s = c->server;

    switch (c->state) {
    case CLIENT_IDLE:
    case CLIENT_WAITING:
    case CLIENT_LOGIN_WAIT:
        return true;
    case CLIENT_ACTIVE:
        return s->state == SERVER_IN_USE && server_is_clean(s) &&
               bytequeue_len(&s->conn.out) == 0 && c->lend == NULL && !c->lend_block &&
               wire_reader_is_between(&c->reader);
    case CLIENT_STARTUP: /* told so when it has proved who it is */
    case CLIENT_AUTH:
    case CLIENT_CONSOLE:
    case CLIENT_CANCELING:
    case CLIENT_CLOSED:
        break;
    }
    return false;
}

void client_end_at_boundary(struct client *c)
{
    if (is_at_boundary(c) && !client_is_inner(c))
        client_fail(c, "57P01", "terminating connection due to administrator command");
}

void client_on_server_retired(struct client *c)
{
    struct server *s = c->server;

    if (proxy_of(c)->config->server_fast_close && mode_of(c) == POOL_MODE_SESSION &&
        c->state == CLIENT_ACTIVE && c->lend == NULL && s->owed.count == 0 &&
        s->tx_status == STATUS_IDLE && wire_reader_is_between(&c->reader))
        client_fail_both(c, s->retire_reason);
}

void client_on_quiet(struct client *c)
{
    lending_on_quiet(c);
}

void client_on_request_mark(struct client *c)
{
    lending_complete(c);
}

void client_on_lend_done(struct client *c)
{
    if (c->session != NULL)
        session_state_tell(c, false);
    conn_wake(&c->conn);
    if (proxy_of(c)->draining)
        client_end_at_boundary(c);
}

void client_on_installed(struct client *c, const struct err *e)
{
    c->install_wanted = false;
    c->install_tried = true;
    forget_install_error(c);
    if (e != NULL) {
        struct err *copy = mem_alloc(sizeof(*copy));
        err_set(copy, e->class, e->sqlstate, "%s", e->message);
        if (e->detail != NULL)
            err_detail(copy, "%s", e->detail);
        if (e->hint != NULL)
            err_hint(copy, "%s", e->hint);
        client_rare(c)->install_error = copy;
    }
    conn_wake(&c->conn);
}

void client_on_cancel_while_waiting(struct client *c)
{
    /* While a server is being set up for it nothing of its own runs there yet, and the setting up
     * is not to be disturbed: the server is given back when that is over. */
    c->canceled = true;
    if (c->server != NULL)
        return;
    pool_leave_queue(c->pool, c);
    client_set_state(c, CLIENT_IDLE);
    conn_wake(&c->conn);
}
