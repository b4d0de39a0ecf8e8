#include "proxy/server.h"

#include <assert.h>
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/arena.h"
#include "dvm/dvm.h"
#include "protocol/auth.h"
#include "protocol/notice.h"
#include "protocol/query_extended.h"
#include "protocol/query_simple.h"
#include "protocol/startup.h"
#include "protocol/status.h"
#include "proxy/batch.h"
#include "proxy/cancel.h"
#include "proxy/client.h"
#include "proxy/client_sql.h"
#include "proxy/dns.h"
#include "proxy/lending.h"
#include "proxy/listener.h"
#include "proxy/login.h"
#include "proxy/pool_common.h"
#include "proxy/server_host.h"
#include "proxy/server_internal.h"
#include "proxy/session_state.h"
#include "proxy/settings.h"

/* Messages that are looked into come whole up to this; what is longer only streams by. */
#define WHOLE_MAX 65536
#define WELCOME_MAX (1024 * 1024) /* bytes of ParameterStatus at a login */
#define DRAIN_TIMEOUT_US                                                                           \
    15000000 /* for the cancels of others, where clients that go end servers                       \
              */

static const struct conn_ops server_conn_ops;

static struct server *of_conn(struct conn *c)
{
    return (struct server *)(void *)c;
}

static struct proxy *proxy_of(const struct server *s)
{
    return s->conn.worker->proxy;
}

const char *server_state_name(const struct server *s)
{
    switch (s->state) {
    case SERVER_CONNECTING:
    case SERVER_LOGIN:
        return "new";
    case SERVER_IDLE:
        return s->cancels > 0 ? "being_canceled" : "idle";
    case SERVER_DRAINING:
        return "being_canceled";
    case SERVER_IN_USE:
    case SERVER_SYNCING:
        return "active";
    case SERVER_TESTING:
    case SERVER_RESETTING:
        return "tested";
    case SERVER_LISTENING:
        return "listening";
    case SERVER_CLOSED:
        break;
    }
    return "closed";
}

void server_log(struct server *s, enum log_level level, const char *fmt, ...)
{
    if (!log_wants(proxy_of(s)->log, level))
        return;
    va_list args;
    va_start(args, fmt);
    struct text t;
    text_init(&t);
    text_vprintf(&t, fmt, args);
    va_end(args);
    proxy_log_conn(proxy_of(s), level, 'S', s, s->pool->db->name, s->pool->user->name,
                   &s->conn.peer, "%s", t.ptr);
    text_free(&t);
}

/* ---- life ------------------------------------------------------------------------------- */

static struct list *list_of(struct server *s, enum server_state state)
{
    struct pool *p = s->pool;

    if (s->sent_to != NULL)
        return &p->departing;
    /* The pool must not count on it. */
    if (s->listener != NULL)
        return &p->listening;
    if (s->replication != REPLICATION_NONE)
        return &p->active;
    switch (state) {
    case SERVER_CONNECTING:
    case SERVER_LOGIN:
        return &p->opening;
    case SERVER_IDLE:
        return &p->idle;
    case SERVER_IN_USE:
    case SERVER_SYNCING:
        return &p->active;
    case SERVER_TESTING:
    case SERVER_DRAINING:
    case SERVER_RESETTING:
    case SERVER_LISTENING:
    case SERVER_CLOSED:
        break;
    }
    return &p->busy;
}

static void move(struct server *s, enum server_state state)
{
    struct list *from = list_of(s, s->state);
    struct list *to = list_of(s, state);

    s->pool->n_draining += (state == SERVER_DRAINING) - (s->state == SERVER_DRAINING);
    s->used_at_us = s->conn.worker->now_us;
    s->state = state;
    if (from == to && state != SERVER_CLOSED)
        return;
    list_remove(from, &s->pool_node);
    if (state != SERVER_CLOSED)
        list_append(to, &s->pool_node);
}

static struct server *of_timer(struct timer *t)
{
    return (struct server *)(void *)((char *)t - offsetof(struct server, timer));
}

static void login_failed(struct server *s, bool connected, struct str frame, struct str message)
{
    if (s->listener != NULL)
        listener_on_failed(s->listener, message);
    else
        pool_on_login_failed(s->pool, s, connected, frame, message);
}

/* Before anybody used it. Another host is tried at once; when there is none, the pool waits. */
static void host_failed(struct server *s, bool connected, const char *reason)
{
    if (server_host_failed(s) && s->listener == NULL)
        pool_on_host_failed(s->pool, s);
    else
        login_failed(s, connected, (struct str){ "", 0 }, str_from(reason));
    server_close(s, reason);
}

static void on_connect_timeout(struct timer *t)
{
    struct server *s = of_timer(t);

    host_failed(s, s->state == SERVER_LOGIN, "connect timeout");
}

static void on_test_timeout(struct timer *t)
{
    server_close(of_timer(t), "test query timeout");
}

static struct server *open_server(struct pool *p, bool from_reserve, struct client *for_client,
                                  struct listener *listener)
{
    struct worker *w = p->worker;
    struct proxy *proxy = w->proxy;
    struct server *s = mem_alloc(sizeof(*s));

    conn_init(&s->conn, w, &server_conn_ops);
    s->pool = p;
    s->id = proxy_next_id(proxy);
    s->from_reserve = from_reserve;
    s->listener = listener;
    s->opening = listener == NULL;
    s->tx_status = STATUS_IDLE;
    wire_reader_init(&s->reader, SENT_BY_BACKEND, WHOLE_MAX);
    server_statements_init(&s->statements);
    text_init(&s->welcome);
    s->state = SERVER_CONNECTING;
    s->used_at_us = s->connected_at_us = w->now_us;
    if (for_client != NULL) {
        pool_leave_queue(p, for_client);
        s->replication = for_client->replication;
        s->client = for_client;
        for_client->server = s;
    }
    list_append(list_of(s, s->state), &s->pool_node);
    list_append(&w->servers, &s->worker_node);

    struct address to = server_host_take(s);
    server_tls_init(&s->tls, to.host);
    if (proxy->config->server_connect_timeout_us > 0)
        timer_set(&w->timers, &s->timer,
                  w->now_us + (uint64_t)proxy->config->server_connect_timeout_us,
                  on_connect_timeout);
    conn_connect(&s->conn, &to);
    return s;
}

/* It was promised, and does not come. */
static void stay(struct server *s)
{
    if (s->sent_to == NULL)
        return;
    list_remove(&s->conn.worker->leaving, &s->leaver.node);
    pool_on_server_kept(s->sent_to);
    s->sent_to = NULL;
}

struct server *server_open(struct pool *p, bool from_reserve, struct client *for_client)
{
    return open_server(p, from_reserve, for_client, NULL);
}

struct server *server_open_listener(struct pool *p, struct listener *l)
{
    return open_server(p, false, NULL, l);
}

static void arrive(struct worker *w, struct letter *l)
{
    struct server *s = (struct server *)(void *)((char *)l - offsetof(struct server, letter));

    list_append(&s->pool->idle, &s->pool_node);
    list_append(&w->servers, &s->worker_node);
    conn_arrive(&s->conn, w);
    pool_on_server_arrived(s->pool, s);
}

static void depart(struct leaver *l)
{
    struct server *s = (struct server *)(void *)((char *)l - offsetof(struct server, leaver));
    struct worker *w = s->conn.worker;
    struct pool *to = s->sent_to;

    list_remove(&s->pool->departing, &s->pool_node);
    list_remove(&w->servers, &s->worker_node);
    conn_depart(&s->conn);
    s->pool = to;
    s->sent_to = NULL;
    s->letter.deliver = arrive;
    worker_post(to->worker, &s->letter);
}

void server_send(struct server *s, struct pool *to)
{
    list_remove(&s->pool->idle, &s->pool_node);
    list_append(&s->pool->departing, &s->pool_node);
    s->sent_to = to;
    s->leaver.depart = depart;
    list_append(&s->conn.worker->leaving, &s->leaver.node);
}

struct server *server_adopt(struct pool *p, struct client *c, const struct address *peer,
                            const char *host, int fd)
{
    struct worker *w = p->worker;
    struct server *s = mem_alloc(sizeof(*s));

    conn_init(&s->conn, w, &server_conn_ops);
    conn_set_peer(&s->conn, peer);
    s->pool = p;
    s->tx_status = STATUS_IDLE;
    wire_reader_init(&s->reader, SENT_BY_BACKEND, WHOLE_MAX);
    server_statements_init(&s->statements);
    server_tls_init(&s->tls, host);
    text_init(&s->welcome);
    s->state = c != NULL ? SERVER_IN_USE : SERVER_IDLE;
    s->client = c;
    if (c != NULL) {
        c->server = s;
        s->replication = c->replication;
    }
    list_append(list_of(s, s->state), &s->pool_node);
    list_append(&w->servers, &s->worker_node);
    pool_common_add(w->proxy, p->common);
    w->ops->adopt(w->io, &s->conn, fd);
    return s;
}

void server_resume(struct server *s)
{
    conn_wake(&s->conn);
    conn_flush(&s->conn);
    if (s->state == SERVER_IDLE)
        pool_on_server_ready(s->pool, s);
}

int server_surrender(struct server *s)
{
    struct worker *w = s->conn.worker;
    int fd = s->conn.tls == NULL ? w->ops->surrender(w->io, &s->conn) : -1;

    if (fd < 0)
        return -1;
    timer_unset(&w->timers, &s->timer);
    move(s, SERVER_CLOSED);
    list_remove(&w->servers, &s->worker_node);
    while (s->owed.count > 0)
        server_owed_pop(s);
    conn_close(&s->conn);
    pool_on_server_closed(s->pool, s->opening);
    return fd;
}

void server_close(struct server *s, const char *reason)
{
    struct pool *p = s->pool;
    struct worker *w = s->conn.worker;

    if (s->state == SERVER_CLOSED)
        return;
    if (s->lent) {
        /* A helper thread uses it: it is closed when the job returns. */
        s->retire = true;
        s->retire_reason = reason;
        w->ops->shutdown(w->io, &s->conn);
        return;
    }
    if (proxy_of(s)->config->log_disconnections)
        server_log(s, LEVEL_LOG, "closing because: %s (age=%" PRIu64 "s)", reason,
                   (w->now_us - s->connected_at_us) / 1000000);
    login_forget_server(s);
    timer_unset(&w->timers, &s->timer);
    if (s->state != SERVER_CONNECTING && s->state != SERVER_LOGIN && !s->lent &&
        bytequeue_len(&s->conn.out) == 0) {
        wire_put_empty(&s->conn.out, FE_TERMINATE);
    }
    move(s, SERVER_CLOSED);
    list_remove(&w->servers, &s->worker_node);
    stay(s);
    cancel_forget_server(p, s);
    while (s->owed.count > 0)
        server_owed_pop(s);
    s->client = NULL;
    conn_close(&s->conn);
    if (s->listener != NULL) {
        struct listener *l = s->listener;
        s->listener = NULL;
        listener_on_closed(l);
        proxy_on_gone(proxy_of(s));
        return;
    }
    pool_on_server_closed(p, s->opening);
}

static void server_free(struct conn *c)
{
    struct server *s = of_conn(c);

    free(s->owed.ring);
    bytequeue_free(&s->unnamed);
    bytequeue_free(&s->batch);
    server_statements_free(&s->statements, &c->worker->proxy->statements);
    reading_memo_free(&s->reading);
    params_clear(&s->params);
    settings_unref(s->settings);
    text_free(&s->welcome);
    login_forget_server(s);
    server_tls_fini(&s->tls);
    free(s->host_name);
    free(s);
}

/* Takes the client off, then closes. */
static void lose(struct server *s, const char *reason, struct str error_frame)
{
    struct client *c = s->client;

    s->client = NULL;
    if (c != NULL) {
        c->server = NULL;
        c->cut = s->state == SERVER_IN_USE && !wire_reader_is_between(&s->reader);
    }
    server_close(s, reason);
    if (c != NULL)
        client_on_server_lost(c, reason, error_frame);
}

void server_lose(struct server *s, const char *reason)
{
    lose(s, reason, (struct str){ "", 0 });
}

/* ---- login ------------------------------------------------------------------------------ */

/* What the client said, but for what we decide. */
static void put_replication_params(struct server *s)
{
    struct bytequeue *out = &s->conn.out;
    struct str params = login_startup_params(s->client), name, value;
    const char *application = params_get(&s->client->params, PARAM_APPLICATION_NAME);

    startup_encode_param(out, STR("replication"),
                         s->replication == REPLICATION_LOGICAL ? STR("database") : STR("true"));
    while (startup_next_param(&params, &name, &value))
        if (!str_equal(name, STR("user")) && !str_equal(name, STR("database")) &&
            !str_equal(name, STR("replication")) && !str_equal(name, STR("application_name")) &&
            !str_starts_with(name, STR("_pq_.")))
            startup_encode_param(out, name, value);
    if (application != NULL)
        startup_encode_param(out, STR("application_name"), str_from(application));
}

static void send_startup(struct server *s)
{
    const struct config_database *entry = s->pool->db->entry;
    struct bytequeue *out = &s->conn.out;

    /* All that 3.2 brings is a longer cancel key. */
    s->asked_3_2 = !s->pool->db->only_3_0;
    struct wire_mark m = startup_encode_begin(out, 3, s->asked_3_2 ? 2 : 0);
    startup_encode_param(out, STR("user"), str_from(s->pool->user->name));
    startup_encode_param(out, STR("database"), str_from(s->pool->db->server_dbname));
    if (entry != NULL) {
        if (entry->client_encoding != NULL && s->listener == NULL)
            startup_encode_param(out, STR("client_encoding"), str_from(entry->client_encoding));
        if (entry->datestyle != NULL)
            startup_encode_param(out, STR("datestyle"), str_from(entry->datestyle));
        if (entry->timezone != NULL)
            startup_encode_param(out, STR("timezone"), str_from(entry->timezone));
        if (entry->application_name != NULL)
            startup_encode_param(out, STR("application_name"), str_from(entry->application_name));
    }
    if (s->replication != REPLICATION_NONE)
        put_replication_params(s);
    if (s->listener != NULL && listener_encoding(s->listener) != NULL)
        startup_encode_param(out, STR("client_encoding"), str_from(listener_encoding(s->listener)));
    startup_encode_end(out, m);
    conn_flush(&s->conn);
}

static void login_fail(struct server *s, struct str frame, const char *message)
{
    login_failed(s, true, frame, str_from(message));
    server_close(s, "login failed");
}

void server_login_failed(struct server *s, const char *message)
{
    server_log(s, LEVEL_WARNING, "server login failed: FATAL %s", message);
    login_fail(s, (struct str){ "", 0 }, message);
}

static void fail_tls(struct server *s, const char *reason)
{
    server_log(s, LEVEL_WARNING, "%s", reason);
    host_failed(s, true, reason);
}

static void go_on_with_tls(struct server *s, enum server_tls_next next, struct err *e)
{
    switch (next) {
    case SERVER_TLS_GO_ON:
        send_startup(s);
        break;
    case SERVER_TLS_WAIT:
        break;
    case SERVER_TLS_REFUSED:
        fail_tls(s, e->message);
        break;
    }
    err_clear(e);
}

static void on_connected(struct conn *conn)
{
    struct server *s = of_conn(conn);
    struct address own = conn_local(conn);
    char local[300];
    struct err e = { 0 };

    address_print(&own, local, sizeof(local));
    if (proxy_of(s)->config->log_connections)
        server_log(s, LEVEL_LOG, "new connection to server (from %s)", local);
    move(s, SERVER_LOGIN);
    enum server_tls_next next = server_tls_begin(&s->tls, conn, &e);
    go_on_with_tls(s, next, &e);
}

static void on_secured(struct conn *conn)
{
    struct server *s = of_conn(conn);
    char how[TLS_PRINT_MAX];

    s->tls.state = SERVER_TLS_DONE;
    tls_print(conn->tls, how);
    server_log(s, LEVEL_DEBUG, "SSL established: %s", how);
    send_startup(s);
}

static void on_parameter(struct server *s, struct str frame, struct str body)
{
    struct str name, value;

    if (!wire_decode_parameter_status(body, &name, &value))
        return;
    int i = params_find(&proxy_of(s)->params_names, name);
    if (i >= 0)
        params_set(&s->params, i, value);
    server_host_on_parameter(s, name, value);
    if (s->state != SERVER_LOGIN && server_host_refuses(s) != NULL &&
        !server_host_is_preference(s) && !s->retire) {
        s->retire = true;
        s->retire_reason = server_host_refuses(s);
    }
    if (s->state == SERVER_LOGIN && (i < 0 || s->replication != REPLICATION_NONE))
        text_put_str(&s->welcome, frame);
    if (s->state == SERVER_LOGIN && str_equal(name, STR("server_version"))) {
        int major = 0, minor = 0;
        sscanf(value.ptr, "%4d.%4d", &major, &minor); /* NUL follows */
        s->server_version = major * 10000 + minor;
    }
}

static void finish_login(struct server *s)
{
    const struct config_database *entry = s->pool->db->entry;

    const char *refused = s->connect_query_sent ? NULL : server_host_refuses(s);
    if (refused != NULL) {
        bool other = server_host_left_out(s);
        if (other || !server_host_is_preference(s)) {
            server_log(s, LEVEL_LOG, "not used: %s", refused);
            if (other && s->listener == NULL)
                pool_on_host_failed(s->pool, s);
            else
                login_failed(s, false, (struct str){ "", 0 }, str_from(refused));
            server_close(s, refused);
            return;
        }
    } else {
        server_host_worked(s);
    }
    /* Physical replication knows no SQL. */
    if (!s->connect_query_sent && entry != NULL && s->listener == NULL &&
        entry->connect_query != NULL && s->replication != REPLICATION_PHYSICAL) {
        s->connect_query_sent = true;
        wire_encode_query(&s->conn.out, str_from(entry->connect_query));
        conn_flush(&s->conn);
        return;
    }
    timer_unset(&s->conn.worker->timers, &s->timer);
    login_forget_server(s);
    if (s->listener != NULL) {
        text_free(&s->welcome);
        move(s, SERVER_LISTENING);
        listener_on_ready(s->listener);
        return;
    }
    s->opening = false;
    pool_on_login_over(s->pool);
    if (s->replication != REPLICATION_NONE) {
        move(s, SERVER_IN_USE);
        client_on_replication_ready(s->client);
        text_free(&s->welcome);
        return;
    }
    pool_learn_parameters(s->pool, s);
    s->tested = true;
    move(s, SERVER_IDLE);
    pool_on_server_ready(s->pool, s);
}

/* The first that the server says to 3.2 is an error, or it hangs up: some have never heard that a
 * version can be negotiated. Then it is 3.0 for this database, from now on and at once. */
static bool fall_back_to_3_0(struct server *s)
{
    struct database *db = s->pool->db;

    if (!s->asked_3_2 || s->answered || db->only_3_0 || s->listener != NULL)
        return false;
    db->only_3_0 = true;
    pool_on_host_failed(s->pool, s);
    server_close(s, "protocol 3.2 refused");
    return true;
}

static void on_login_frame(struct server *s, const struct wire_piece *f)
{
    int32_t pid;
    struct str key;
    struct err e = { 0 };

    /* What is too long to be had whole is no part of a login. */
    if (!f->starts)
        return;
    if (f->tag != BE_ERROR)
        s->answered = true;
    if (!s->authenticated && (f->tag == BE_PARAMETER_STATUS || f->tag == BE_BACKEND_KEY_DATA ||
                              f->tag == BE_READY_FOR_QUERY)) {
        /* It has not proved who it is, where that is asked of it. */
        server_login_failed(s, "expected an authentication request from the server");
        return;
    }
    switch (f->tag) {
    case BE_AUTHENTICATION:
        if (!login_answer_server(s, f->body, &e)) {
            server_login_failed(s, e.message);
        }
        break;
    case BE_PARAMETER_STATUS:
        on_parameter(s, f->bytes, f->body);
        if (s->welcome.len > WELCOME_MAX)
            server_login_failed(s, "the server reports too many parameters");
        break;
    case BE_BACKEND_KEY_DATA:
        if (wire_decode_backend_key(f->body, &pid, &key)) {
            s->backend_pid = pid;
            s->backend_key_len = (unsigned)key.len;
            memcpy(s->backend_key, key.ptr, key.len);
        }
        break;
    case BE_ERROR:
        notice_decode_err(f->body, &e);
        if ((strcmp(e.sqlstate, "0A000") == 0 || strcmp(e.sqlstate, "08P01") == 0) &&
            fall_back_to_3_0(s)) {
            /* it is closed */
        } else if (s->connect_query_sent) {
            server_log(s, LEVEL_WARNING, "error in connect_query: %s", e.message);
        } else {
            if (s->replication != REPLICATION_NONE)
                server_log(s, LEVEL_ERROR, "S: login failed: FATAL: %s", e.message);
            else
                server_log(s, LEVEL_WARNING, "server login failed: FATAL %s", e.message);
            if (strcmp(e.sqlstate, "57P03") == 0 && s->listener == NULL && server_host_failed(s)) {
                pool_on_host_failed(s->pool, s);
                server_close(s, "login failed");
            } else {
                login_fail(s, f->ends ? f->bytes : (struct str){ "", 0 }, e.message);
            }
        }
        break;
    case BE_READY_FOR_QUERY:
        finish_login(s);
        break;
    default: /* notices, rows of connect_query */
        break;
    }
    err_clear(&e);
}

/* ---- in use ----------------------------------------------------------------------------- */

/* What goes to the client as it is; neighbours are sent as one. */
struct run {
    const char *ptr;
    size_t len;
};

static void run_end(struct server *s, struct run *r)
{
    if (r->len > 0 && s->client != NULL) {
        conn_send(&s->client->conn, r->ptr, r->len);
        s->pool->stats.server_bytes += r->len;
    }
    r->len = 0;
}

static void run_add(struct server *s, struct run *r, struct str bytes)
{
    if (r->len > 0 && r->ptr + r->len != bytes.ptr)
        run_end(s, r);
    if (r->len == 0)
        r->ptr = bytes.ptr;
    r->len += bytes.len;
}

/* A query string may fail for another reason than the one that we know already. */
static bool is_substituted(const struct reply_owed *o, struct str body)
{
    return o->ends != ENDS_QUERY || o->outcome == NULL || notice_has_sqlstate(body, "26000") ||
           notice_has_sqlstate(body, "25P02");
}

/* An error ends an extended batch: nothing up to its Sync is answered. */
static void on_error_in_use(struct server *s, const struct wire_piece *f, struct run *r)
{
    struct reply_owed *o = server_owed_first(s);
    struct client *c = s->client;

    bool sets = o != NULL && o->sets;

    if (sets || s->state == SERVER_TESTING || s->state == SERVER_RESETTING) {
        struct err e = { 0 };
        notice_decode_err(f->body, &e);
        server_log(s, LEVEL_WARNING, "%s failed: %s",
                   sets                         ? "setting of parameters"
                   : s->state == SERVER_TESTING ? "server_check_query"
                                                : "server_reset_query",
                   e.message);
        err_clear(&e);
        if (sets)
            lose(s, "invalid server parameter", f->ends ? f->bytes : (struct str){ "", 0 });
        else
            server_close(s,
                         s->state == SERVER_TESTING ? "test query failed" : "reset query failed");
        return;
    }
    s->copy_in = false;
    bool again = f->ends && batch_on_error(s, o, f->body);
    if (c != NULL && c->session != NULL && !again)
        session_state_on_error(c);
    if (c != NULL)
        c->unnamed_unbound = false;
    if (c == NULL || again) {
        /* Nobody is there to see it, or it is not shown. */
    } else if (o != NULL && o->audience == REPLY_SUBSTITUTED && is_substituted(o, f->body)) {
        run_end(s, r);
        conn_send(&c->conn, o->error, o->error_len);
    } else if (o != NULL && o->audience == REPLY_SWALLOWED && f->ends &&
               client_sql_takes_error(s, f->bytes)) {
        /* Shown when what needs it fails. */
    } else {
        struct bytequeue fixed = { 0 };
        if (f->ends && client_sql_fix_error(s, o, f->body, &fixed)) {
            run_end(s, r);
            conn_send(&c->conn, bytequeue_str(&fixed).ptr, bytequeue_len(&fixed));
            bytequeue_free(&fixed);
        } else {
            run_add(s, r, f->bytes);
        }
    }
    if (o != NULL && o->ends == ENDS_QUERY && again)
        o->audience = REPLY_SWALLOWED; /* its ReadyForQuery */
    if (o == NULL || o->ends == ENDS_QUERY)
        return;
    unsigned n = 0;
    while (n < s->owed.count && server_owed_at(s, n)->ends != ENDS_SYNC)
        n++;
    server_owed_drop(s, n);
    if (again) {
        if (s->owed.count == 0) {
            wire_encode_sync(&s->conn.out);
            conn_flush(&s->conn);
            server_owe(s, ENDS_SYNC, REPLY_SWALLOWED);
        }
        server_owed_first(s)->audience = REPLY_SWALLOWED;
        return;
    }
    if (s->owed.count == 0 && c != NULL) {
        c->skips = true;
        if (c->lend != NULL) {
            /* It was to follow what failed. */
            lending_abandon(c);
            conn_wake(&c->conn);
        }
    }
}

bool server_owes_name(struct server *s, uint32_t serial)
{
    for (unsigned i = 0; i < s->owed.count; i++)
        if (server_owed_at(s, i)->client_has && server_owed_at(s, i)->serial == serial)
            return true;
    return false;
}

/* All statements are gone but those that a pipeline has prepared behind the command. */
static void forget_statements(struct server *s)
{
    struct statement_table *table = &proxy_of(s)->statements;

    server_statements_clear(&s->statements, table);
    for (unsigned i = 0; i < s->owed.count; i++)
        if (server_owed_at(s, i)->server_has)
            server_learned(s, server_owed_at(s, i)->statement);
    if (s->client == NULL)
        return;
    struct map kept;
    map_init(&kept);
    for (struct map_node *n; (n = map_any(&s->client->statements)) != NULL;) {
        struct client_statement *cs = MAP_ITEM(n, struct client_statement, node);
        if (server_owes_name(s, cs->serial)) {
            map_remove(&s->client->statements, n);
            map_insert(&kept, n, n->hash);
        } else {
            client_statement_remove(&s->client->statements, cs, table);
        }
    }
    map_free(&s->client->statements);
    s->client->statements = kept;
}

/* The tag tells when the session forgot its statements, and when the client took over (BEGIN) or
 * ended (COMMIT) the block that a job opened around its pipeline. */
static void on_command_complete(struct server *s, struct str body)
{
    struct str tag = { body.ptr, body.len > 0 ? body.len - 1 : 0 };

    if (s->client != NULL && s->client->lend_block &&
        (str_equal(tag, STR("BEGIN")) || str_equal(tag, STR("START TRANSACTION")) ||
         str_equal(tag, STR("COMMIT"))))
        s->client->lend_block = false;

    if (str_equal(tag, STR("DISCARD ALL")) || str_equal(tag, STR("DEALLOCATE ALL")))
        forget_statements(s);
    if (str_equal(tag, STR("DISCARD ALL"))) {
        settings_unref(s->settings);
        s->settings = NULL;
        s->settings_doubt = false;
    } else if (s->state == SERVER_RESETTING && str_equal(tag, STR("RESET"))) {
        s->settings_doubt = s->settings != NULL;
    }
    if (s->state == SERVER_IN_USE && s->client != NULL &&
        !server_reply_is_own(server_owed_first(s))) {
        reading_on_tag(s, tag);
        session_state_on_tag(s->client, tag);
    }
}

/* What the client wants is set. The server's spelling of a value is the canonical one. */
static void on_settings_set(struct server *s)
{
    const struct params_names *names = &proxy_of(s)->params_names;
    struct client *c = s->client;

    s->pool->proven_settings[s->settings_hash % 8] = s->settings_hash;
    if (!list_is_empty(&s->pool->cancels_queued))
        cancel_serve(s->pool);
    if (c == NULL)
        return;
    for (int i = 0; i < names->count; i++) {
        if (!(s->params_changed & (1u << i)))
            continue;
        const char *asked = params_get(&c->params, i), *got = params_get(&s->params, i);
        if (strcmp(asked, got) != 0 && proxy_of(s)->verbose >= 2)
            client_log(c, LEVEL_DEBUG,
                       "varcache_set_canonical: setting %s to its canonical version %s -> %s",
                       names->name[i], asked, got);
        client_on_canonical(c, str_from(names->name[i]), asked, str_from(got));
        params_share(&c->params, &s->params, i);
    }
    params_unify(&c->params, &s->params);
    c->settings_proven = true;
}

/* A pipeline has begun behind the Sync that was answered. */
static bool has_extended_owed(struct server *s)
{
    return s->owed.count > 0 && server_owed_at(s, s->owed.count - 1)->ends != ENDS_SYNC &&
           server_owed_at(s, s->owed.count - 1)->ends != ENDS_QUERY;
}

static void drain(struct server *s);

static void on_ready(struct server *s, const struct wire_piece *f, struct run *r)
{
    enum wire_status status;
    struct reply_owed *o = server_owed_first(s);
    bool forwarded = o == NULL || o->audience != REPLY_SWALLOWED;
    bool sets = o != NULL && o->sets, looks = o != NULL && o->looks;
    struct client *c = s->client;

    if (!wire_decode_ready(f->body, &status)) {
        lose(s, "bad ReadyForQuery", (struct str){ "", 0 });
        return;
    }
    s->tx_status = (char)status;
    s->copy_in = false;
    if (s->ddl != SERVER_DDL_NONE)
        reading_on_ready(s);
    if (o != NULL) {
        unsigned n = 0;
        while (n + 1 < s->owed.count && server_owed_at(s, n)->ends != ENDS_SYNC &&
               server_owed_at(s, n)->ends != ENDS_QUERY)
            n++;
        server_owed_drop(s, n);
        server_owed_succeed(s);
    }
    s->in_pipeline = has_extended_owed(s);
    if (sets && c != NULL)
        on_settings_set(s);
    switch (s->state) {
    case SERVER_SYNCING:
        s->state = SERVER_IN_USE;
        client_on_linked(c);
        return;
    case SERVER_DRAINING:
        server_answer_fakes(s);
        drain(s);
        return;
    case SERVER_TESTING:
    case SERVER_RESETTING:
        if (s->owed.count > 0)
            return; /* the answer to what the client that is gone needed */
        timer_unset(&s->conn.worker->timers, &s->timer);
        if (status != STATUS_IDLE) {
            server_close(s, "unclean server");
        } else {
            s->tested = s->state == SERVER_TESTING;
            move(s, SERVER_IDLE);
            pool_on_server_ready(s->pool, s);
        }
        return;
    case SERVER_CONNECTING:
    case SERVER_LOGIN:
    case SERVER_IDLE:
    case SERVER_LISTENING:
    case SERVER_CLOSED:
    case SERVER_IN_USE:
        break;
    }
    if (looks) {
        run_end(s, r);
        client_on_session_known(c);
        if (s->client != c)
            return;
    }
    if (!forwarded) {
        if (s->owed.count > 0 && server_owed_first(s)->audience == REPLY_FAKED) {
            run_end(s, r);
            server_answer_fakes(s);
        }
        if (s->owed.count == 0 && c->lend != NULL) {
            run_end(s, r);
            client_on_quiet(c);
        }
        return;
    }
    assert(c != NULL); /* who it is in use by */
    s->retried = s->had_params = false;
    if (s->marked && s->owed.count == 0) {
        s->marked = false;
        if (status != STATUS_FAILED) {
            /* The job emits the ReadyForQuery. */
            run_end(s, r);
            client_on_request_mark(c);
            return;
        }
    }
    if (status != STATUS_IDLE && pool_mode_of(s->pool) == POOL_MODE_STATEMENT) {
        client_fail_both(c, "transaction blocks not allowed in statement pooling mode");
        return;
    }
    if (c->discarded && status == STATUS_IDLE) {
        run_end(s, r);
        client_tell_startup_parameters(c);
    }
    if (s->owed.count == 0 && !list_is_empty(&s->pool->cancels_queued))
        cancel_drop_queued(s);
    if (c->session != NULL && status == STATUS_IDLE) {
        run_end(s, r);
        session_state_tell(c, true);
    }
    run_add(s, r, f->bytes);
    if (s->owed.count == 0 || server_owed_first(s)->audience == REPLY_FAKED) {
        run_end(s, r);
        server_answer_fakes(s);
    }
    client_on_batch_done(c);
}

/* What a server may say without being asked. */
static bool is_asynchronous(char tag)
{
    return tag == BE_ERROR || tag == BE_NOTICE || tag == BE_NOTIFICATION ||
           tag == BE_PARAMETER_STATUS;
}

/* The answer to the question what the client left in the session. */
static void on_look(struct server *s, const struct wire_piece *f)
{
    struct client *c = s->client;

    if (f->tag == BE_DATA_ROW && f->starts)
        session_state_on_look_row(c, f->ends ? f->body : (struct str){ "", 0 });
    else if (f->tag == BE_COMMAND_COMPLETE)
        session_state_on_look_result(c);
    else if (f->tag == BE_ERROR)
        session_state_on_look_error(c, f->body);
}

/* Takes one piece. False: stop, s may be closed or lent. */
static bool on_piece(struct server *s, const struct wire_piece *f, struct run *r)
{
    struct client *c = s->client;
    struct reply_owed *o = server_owed_first(s);
    /* By the end of a long message something else may be owed: it goes where its beginning went. */
    bool swallowed =
        f->starts ? s->state != SERVER_IN_USE || (o != NULL && o->audience == REPLY_SWALLOWED)
                  : !s->rest_goes_on;

    if (o == NULL && f->starts && !is_asynchronous(f->tag)) {
        /* Behind a ReadyForQuery it would be taken for an answer to the next client. */
        run_end(s, r);
        lose(s, "bad packet from server", (struct str){ "", 0 });
        return false;
    }
    if (o != NULL && o->looks && s->state != SERVER_SYNCING && f->tag != BE_READY_FOR_QUERY &&
        f->tag != BE_PARAMETER_STATUS) {
        on_look(s, f);
        return true;
    }
    if (f->starts) {
        switch (f->tag) {
        case BE_DATA_ROW:
        case BE_COPY_DATA:
            break;
        case BE_ERROR:
            on_error_in_use(s, f, r);
            return s->state != SERVER_CLOSED;
        case BE_NOTICE:
            if (f->ends && notice_has_sqlstate(f->body, DVM_NOTICE_SQLSTATE)) {
                /* In autocommit the request is committed with the statement, and left to the
                 * scheduler: the client is told so. */
                s->marked = true;
                if (s->tx_status == STATUS_IDLE && s->state == SERVER_IN_USE)
                    run_add(s, r, f->bytes);
                return true;
            }
            if (s->state == SERVER_IN_USE && !server_reply_is_own(o))
                run_add(s, r, f->bytes);
            return true;
        case BE_NOTIFICATION:
            /* In transaction pooling they come by the listener. */
            if (s->state == SERVER_IN_USE && pool_mode_of(s->pool) == POOL_MODE_SESSION)
                run_add(s, r, f->bytes);
            return true;
        case BE_PARAMETER_STATUS:
            on_parameter(s, f->bytes, f->body);
            if (s->state == SERVER_IN_USE && !(o != NULL && o->sets)) {
                struct str name, value;
                int i;
                if (wire_decode_parameter_status(f->body, &name, &value) &&
                    (i = params_find(&proxy_of(s)->params_names, name)) >= 0)
                    params_share(&c->params, &s->params, i);
                run_add(s, r, f->bytes);
            }
            return true;
        case BE_READY_FOR_QUERY:
            on_ready(s, f, r);
            return s->state != SERVER_CLOSED && !s->lent;
        case BE_COPY_IN_RESPONSE:
            server_on_copy_in(s);
            break;
        default:
            break;
        }
    }
    if (f->tag == BE_PARAMETER_DESCRIPTION && s->had_params && (!swallowed || !f->starts)) {
        swallowed = true;
        s->had_params = !f->ends;
    }
    if (f->tag == BE_COMMAND_COMPLETE && o != NULL && o->outcome != NULL &&
        client_sql_on_completion(s, o->outcome))
        swallowed = true;
    if (!swallowed)
        run_add(s, r, f->bytes);
    if (!f->ends)
        return true;

    uint8_t ends;
    switch (f->tag) {
    case BE_PARSE_COMPLETE:
        ends = ENDS_PARSE;
        break;
    case BE_BIND_COMPLETE:
        ends = ENDS_BIND;
        break;
    case BE_CLOSE_COMPLETE:
        ends = ENDS_CLOSE;
        break;
    case BE_ROW_DESCRIPTION:
    case BE_NO_DATA:
        ends = ENDS_DESCRIBE;
        break;
    case BE_COMMAND_COMPLETE:
        on_command_complete(s, f->body);
        ends = ENDS_EXECUTE;
        break;
    case BE_EMPTY_QUERY:
    case BE_PORTAL_SUSPENDED:
        ends = ENDS_EXECUTE;
        break;
    default:
        return true;
    }
    if (o != NULL && o->ends == ends) {
        server_owed_succeed(s);
        o = server_owed_first(s);
        if (o != NULL && o->audience == REPLY_FAKED) {
            run_end(s, r);
            server_answer_fakes(s);
        }
        if (s->owed.count == 0 && c != NULL && c->lend != NULL) {
            run_end(s, r);
            client_on_quiet(c);
            return s->state != SERVER_CLOSED && !s->lent;
        }
    }
    return true;
}

static uint32_t whole_max(char tag)
{
    switch (tag) {
    case BE_DATA_ROW:
    case BE_COPY_DATA:
    case BE_ROW_DESCRIPTION:
    case BE_PARAMETER_DESCRIPTION:
    case BE_FUNCTION_CALL:
        return WIRE_HEADER_LEN;
    default:
        return WHOLE_MAX;
    }
}

static size_t on_bytes(struct conn *conn, struct str bytes)
{
    struct server *s = of_conn(conn);
    size_t used = 0;
    struct run r = { 0 };
    bool go_on = true;

    if (s->tls.state == SERVER_TLS_ASKED) {
        struct err e = { 0 };
        enum server_tls_next next = server_tls_on_bytes(&s->tls, conn, bytes, &e);
        go_on_with_tls(s, next, &e);
        return bytes.len;
    }

    while (go_on && used < bytes.len) {
        struct str rest = { bytes.ptr + used, bytes.len - used };
        struct wire_header h;
        struct wire_piece f;
        enum wire_result result;

        if (s->lent) {
            conn->held = true;
            break;
        }
        if (!wire_reader_is_between(&s->reader)) {
            result = wire_reader_next(&s->reader, rest, &f);
        } else if ((result = wire_peek_header(SENT_BY_BACKEND, rest, &h)) == WIRE_FRAME) {
            s->reader.whole_max =
                s->owed.count > 0 && server_owed_first(s)->looks ? WHOLE_MAX : whole_max(h.tag);
            result = wire_reader_take(&s->reader, &h, rest, &f);
        }
        if (result == WIRE_NEED_MORE)
            break;
        if (result != WIRE_FRAME) {
            run_end(s, &r);
            if (s->state == SERVER_LOGIN)
                login_failed(s, true, (struct str){ "", 0 },
                             STR("the server does not speak the protocol"));
            lose(s, "bad packet from server", (struct str){ "", 0 });
            return used;
        }
        used += f.bytes.len;
        switch (s->state) {
        case SERVER_LOGIN:
            on_login_frame(s, &f);
            go_on = s->state != SERVER_CLOSED;
            break;
        case SERVER_IDLE:
            /* A ParameterStatus (configuration reload) is fine, all else is a farewell or worse. */
            if (f.tag == BE_PARAMETER_STATUS) {
                on_parameter(s, f.bytes, f.body);
                if (s->retire) {
                    server_close(s, s->retire_reason);
                    go_on = false;
                }
            } else if (f.tag == BE_ERROR && f.ends) {
                struct err e = { 0 };
                notice_decode_err(f.body, &e);
                server_log(s, LEVEL_WARNING, "got packet 'E' from server when not linked: %s",
                           e.message);
                err_clear(&e);
                server_close(s, "server conn crashed?");
                go_on = false;
            } else if (f.tag != BE_NOTICE && f.tag != BE_NOTIFICATION) {
                server_close(s, "got packet from server when not linked");
                go_on = false;
            }
            break;
        case SERVER_IN_USE:
        case SERVER_SYNCING:
        case SERVER_TESTING:
        case SERVER_DRAINING:
        case SERVER_RESETTING:
            go_on = on_piece(s, &f, &r);
            if (f.starts && !f.ends)
                s->rest_goes_on = r.len > 0 && r.ptr + r.len == f.bytes.ptr + f.bytes.len;
            break;
        case SERVER_LISTENING:
            if (f.tag == BE_PARAMETER_STATUS && f.ends)
                on_parameter(s, f.bytes, f.body);
            else
                listener_on_piece(s->listener, &f);
            go_on = s->state != SERVER_CLOSED;
            break;
        case SERVER_CONNECTING:
        case SERVER_CLOSED:
            go_on = false;
            break;
        }
    }
    if (s->state != SERVER_CLOSED) {
        run_end(s, &r);
        if (s->client != NULL && conn_is_full(&s->client->conn))
            conn_pause(conn, true);
        if (s->client != NULL && s->owed.count < REPLIES_OWED_MAX / 2 && !conn_is_full(&s->conn))
            conn_pause(&s->client->conn, false);
        if (s->client != NULL && s->client->conn.held &&
            (s->owed.count == 0 || s->n_changes_synced == 0))
            conn_wake(&s->client->conn);
    }
    return used;
}

static void on_gone(struct conn *conn, const char *reason)
{
    struct server *s = of_conn(conn);

    if (s->state == SERVER_CONNECTING) {
        struct text t;
        text_init(&t);
        text_printf(&t, "%s", reason != NULL ? reason : "connection closed");
        server_log(s, LEVEL_WARNING, "connect failed: %s", t.ptr);
        text_free(&t);
        host_failed(s, false,
                    reason != NULL && strcmp(reason, DNS_FAILED) == 0 ? DNS_FAILED
                                                                      : "connect failed");
    } else if (conn->securing && reason != NULL) {
        fail_tls(s, reason);
    } else if (s->state == SERVER_LOGIN) {
        if (!fall_back_to_3_0(s))
            host_failed(s, true, "server conn crashed?");
    } else {
        lose(s, "server conn crashed?", (struct str){ "", 0 });
    }
}

static void on_room(struct conn *conn)
{
    struct server *s = of_conn(conn);

    if (s->client != NULL)
        conn_pause(&s->client->conn, false);
}

static const struct conn_ops server_conn_ops = {
    .on_bytes = on_bytes,
    .on_connected = on_connected,
    .on_secured = on_secured,
    .on_gone = on_gone,
    .on_room = on_room,
    .free = server_free,
};

/* ---- link and unlink -------------------------------------------------------------------- */

/* Sets what the client wants and the server has not. True: the client's requests may follow at
 * once, since a server has taken these values before and nobody's rights depend on them. Else they
 * wait until it is seen to have worked: a statement must not run with the wrong search_path. */
static bool send_settings(struct server *s)
{
    struct client *c = s->client;
    struct text sql;
    bool at_once = true;

    text_init(&sql);
    if (!params_differences(&proxy_of(s)->params_names, &c->params, &s->params, &sql,
                            &s->params_changed))
        params_unify(&s->params, &c->params);
    settings_differences(c->settings, s->settings, s->settings_doubt, &sql);
    if (sql.len > 0) {
        s->settings_hash = str_hash(text_str(&sql));
        at_once = !settings_have_role(c->settings) && !settings_have_role(s->settings) &&
                  (c->settings_proven ||
                   s->pool->proven_settings[s->settings_hash % 8] == s->settings_hash);
        if (proxy_of(s)->verbose >= 2)
            client_log(c, LEVEL_DEBUG, "varcache_apply: " STR_FMT, STR_ARG(text_str(&sql)));
        wire_encode_query(&s->conn.out, text_str(&sql));
        conn_flush(&s->conn);
        server_owe(s, ENDS_QUERY, REPLY_SWALLOWED)->sets = true;
    }
    settings_unref(s->settings);
    s->settings = settings_ref(c->settings);
    s->settings_doubt = false;
    text_free(&sql);
    return at_once;
}

void server_set_again(struct server *s)
{
    send_settings(s);
}

void server_link(struct server *s, struct client *c)
{
    bool waits = false;

    s->retried = s->had_params = false;
    c->unnamed_here = c->unnamed_unbound = false;
    batch_forget(s);
    s->client = c;
    c->server = s;
    s->tested = false;
    s->used = true;
    s->pool->stats.server_assignments++;
    if (c->params.set != s->params.set || c->settings != s->settings || s->settings_doubt)
        waits = !send_settings(s);
    move(s, waits ? SERVER_SYNCING : SERVER_IN_USE);
    if (!waits)
        client_on_linked(c);
}

static void send_own_query(struct server *s, const char *sql, enum server_state state)
{
    move(s, state);
    wire_encode_query(&s->conn.out, str_from(sql));
    conn_flush(&s->conn);
    server_owe(s, ENDS_QUERY, REPLY_SWALLOWED);
    timer_set(&s->conn.worker->timers, &s->timer,
              s->conn.worker->now_us +
                  (uint64_t)(proxy_of(s)->config->server_connect_timeout_us > 0
                                 ? proxy_of(s)->config->server_connect_timeout_us
                                 : 15000000),
              on_test_timeout);
}

void server_test(struct server *s)
{
    const char *query = proxy_of(s)->config->server_check_query;

    send_own_query(s, strcmp(query, "<empty>") == 0 ? "" : query, SERVER_TESTING);
}

/* Back to the pool. */
static void release(struct server *s)
{
    struct proxy *proxy = proxy_of(s);
    bool reset =
        pool_mode_of(s->pool) == POOL_MODE_SESSION || proxy->config->server_reset_query_always;

    if (reset && !s->retire && proxy->config->server_reset_query[0] != '\0') {
        send_own_query(s, proxy->config->server_reset_query, SERVER_RESETTING);
        return;
    }
    move(s, SERVER_IDLE);
    pool_on_server_ready(s->pool, s);
}

static void on_drain_timeout(struct timer *t)
{
    server_close(of_timer(t), "client disconnect while server was not ready");
}

static void start_draining(struct server *s, bool to_discard)
{
    struct worker *w = s->conn.worker;
    int64_t timeout = proxy_of(s)->config->server_cancel_timeout_us;

    s->rolled_back = false;
    s->to_discard = to_discard;
    move(s, SERVER_DRAINING);
    timer_set(&w->timers, &s->timer,
              w->now_us + (uint64_t)(timeout > 0 ? timeout : DRAIN_TIMEOUT_US), on_drain_timeout);
}

/* The next step, when the last one is over. A cancel that is under way could hit what we send. */
static void drain(struct server *s)
{
    if (s->owed.count > 0)
        return;
    /* What they were to cancel is over; what comes next is another client's. */
    cancel_drop_queued(s);
    if (s->cancels > 0)
        return;
    if (s->tx_status != STATUS_IDLE && s->rolled_back) {
        server_close(s, "unclean server");
    } else if (s->tx_status != STATUS_IDLE) {
        s->rolled_back = true;
        wire_encode_query(&s->conn.out, STR("ROLLBACK"));
        conn_flush(&s->conn);
        server_owe(s, ENDS_QUERY, REPLY_SWALLOWED);
    } else {
        timer_unset(&s->conn.worker->timers, &s->timer);
        s->marked = false;
        if (s->to_discard && !s->retire)
            send_own_query(s, "DISCARD ALL", SERVER_RESETTING);
        else
            release(s);
    }
}

void server_retire(struct server *s, const char *reason)
{
    s->retire = true;
    s->retire_reason = reason;
    if (s->state == SERVER_IDLE || s->state == SERVER_DRAINING || s->state == SERVER_LISTENING)
        server_close(s, reason);
    else if (s->replication != REPLICATION_NONE)
        server_lose(s, reason); /* it would never be given back */
    else if (s->client != NULL)
        client_on_server_retired(s->client);
}

void server_on_addresses(struct worker *w, const char *host_name)
{
    struct server **found = mem_alloc((w->servers.count + 1) * sizeof(struct server *));
    unsigned n = 0;

    /* Closing one may change the list; what is closed is not freed before settling. */
    LIST_FOREACH(&w->servers, node)
    {
        struct server *s = LIST_ITEM(node, struct server, worker_node);
        if (s->host_name != NULL && strcmp(s->host_name, host_name) == 0 &&
            strcmp(s->conn.peer.host, host_name) != 0 && !dns_has(w, host_name, s->conn.peer.host))
            found[n++] = s;
    }
    for (unsigned i = 0; i < n; i++)
        if (found[i]->state != SERVER_CLOSED && !found[i]->retire)
            server_retire(found[i], "obsolete connection");
    free(found);
}

void server_on_canceled(struct server *s)
{
    if (s->state == SERVER_IDLE)
        pool_on_server_ready(s->pool, s);
    else if (s->state == SERVER_DRAINING)
        drain(s);
}

/* What the client left behind can be ended without closing: its messages are whole. */
static bool can_drain(const struct server *s, const struct client *c)
{
    return proxy_of(s)->config->server_cancel_timeout_us > 0 &&
           proxy_of(s)->shutdown == SHUTDOWN_NONE && s->state == SERVER_IN_USE && !s->copy_in &&
           !s->retire && c != NULL && client_has(c)->ends_server == NULL &&
           wire_reader_is_between(&c->reader) && (s->owed.count == 0 || s->backend_key_len > 0);
}

void server_unlink(struct server *s, bool client_is_gone)
{
    struct client *c = s->client;
    /* After an error in a pipeline the server takes nothing before a Sync. */
    bool skips = c != NULL && c->skips;
    bool clean = server_is_clean(s) && s->state == SERVER_IN_USE && !skips &&
                 bytequeue_len(&s->conn.out) == 0;

    if (c != NULL)
        c->server = NULL;
    s->client = NULL;
    conn_pause(&s->conn, false);
    cancel_drop_queued(s);
    if (s->replication != REPLICATION_NONE) {
        server_close(s, "client close request");
        return;
    }
    enum session_left left =
        !client_is_gone || c == NULL ? SESSION_LEFT_NOTHING : session_state_left(c);
    if (left == SESSION_LEFT_MORE) {
        if (s->owed.count > 0)
            cancel_own_query(s);
        server_close(s, "state of its client that can't be discarded");
    } else if (client_is_gone && !clean) {
        /* What we asked ourselves needs no cancel. */
        bool running = false;
        for (unsigned i = 0; i < s->owed.count; i++)
            running = running || !server_reply_is_own(server_owed_at(s, i));
        uint8_t last = s->owed.count > 0 ? server_owed_at(s, s->owed.count - 1)->ends : ENDS_SYNC;
        bool open = s->owed.count > 0 ? last != ENDS_SYNC && last != ENDS_QUERY : s->in_pipeline;
        if (!can_drain(s, c)) {
            if (running)
                cancel_own_query(s);
            server_close(s, c != NULL && client_has(c)->ends_server != NULL
                                ? c->rare->ends_server
                                : "client disconnect while server was not ready");
            return;
        }
        start_draining(s, left == SESSION_LEFT_STATE || (s->owed.count > 0 && !running));
        if (open && !skips) {
            /* What was executed is not to be committed by our Sync. */
            wire_encode_describe(&s->conn.out, TARGET_STATEMENT, STR("PGTRICKLE_none"));
            server_owe(s, ENDS_DESCRIBE, REPLY_SWALLOWED);
        }
        if (skips || open) {
            wire_put_empty(&s->conn.out, FE_SYNC);
            conn_flush(&s->conn);
            server_owe(s, ENDS_SYNC, REPLY_SWALLOWED);
        }
        server_answer_fakes(s);
        if (running)
            cancel_own_query(s);
        drain(s);
    } else if (s->cancels > 0) {
        /* Nothing is to be sent to it before the cancel has come to nothing. */
        start_draining(s, left == SESSION_LEFT_STATE);
    } else if (left == SESSION_LEFT_STATE && !s->retire) {
        send_own_query(s, "DISCARD ALL", SERVER_RESETTING);
    } else {
        release(s);
    }
}

void server_take_back(struct server *s, char tx_status, struct str frames)
{
    struct wire_frame f;

    s->lent = false;
    s->tx_status = tx_status;
    while (wire_next_frame(SENT_BY_BACKEND, frames, &f) == WIRE_FRAME) {
        struct str name, value;
        int i;
        on_parameter(s, f.bytes, f.body);
        if (s->client != NULL && wire_decode_parameter_status(f.body, &name, &value) &&
            (i = params_find(&proxy_of(s)->params_names, name)) >= 0)
            params_share(&s->client->params, &s->params, i);
        frames.ptr += f.bytes.len;
        frames.len -= f.bytes.len;
    }
}
