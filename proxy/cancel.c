#include "proxy/cancel.h"

#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "protocol/startup.h"
#include "proxy/client.h"
#include "proxy/pool_common.h"
#include "proxy/server.h"

#define CONNECT_TIMEOUT_US 15000000 /* where none is configured */

enum request_state {
    REQUEST_QUEUED,
    REQUEST_CONNECTING,
    REQUEST_SENT, /* it may arrive at the server at any time until the stream has ended */
};

/* One connection that carries a cancel to a server or a peer, and ends. */
struct cancel_request {
    struct conn conn;      /* first */
    struct list_node node; /* pool.cancels, pool.cancels_queued, worker.peer_requests */
    enum request_state state;
    struct pool *pool;        /* NULL: to a peer */
    struct server *server;    /* NULL: to a peer, or closed meanwhile */
    struct peer *peer;        /* or NULL */
    struct client *canceller; /* NULL: gone, or a cancel of our own */
    struct timer timer;
    struct server_tls tls;
    int32_t pid;
    uint16_t key_len;
    unsigned char key[256];
};

/* The forwards to one peer, of all workers. Who finds no room counts itself as waiting and looks
 * again; who makes room looks for those who wait: one of the two sees the other. Lives as long as
 * the process. */
struct peer {
    struct list_node node; /* proxy.peers, under proxy.lock */
    int id;
    atomic_int under_way;
    atomic_int sent; /* of them */
    atomic_int waiting;
};

static const struct conn_ops cancel_conn_ops;
static void serve_peers(struct worker *w);
static void leave_peer(struct cancel_request *r);

static struct cancel_request *of_conn(struct conn *c)
{
    return (struct cancel_request *)(void *)c;
}

bool cancel_is_under_way(const struct cancel_request *r)
{
    return r->state != REQUEST_QUEUED;
}

static void finish(struct cancel_request *r, const char *reason)
{
    struct worker *w = r->conn.worker;
    struct pool *p = r->pool;
    struct server *s = r->state != REQUEST_QUEUED ? r->server : NULL;
    struct client *canceller = r->canceller;

    timer_unset(&w->timers, &r->timer);
    if (p == NULL) {
        leave_peer(r);
    } else if (r->state == REQUEST_QUEUED) {
        list_remove(&p->cancels_queued, &r->node);
    } else {
        list_remove(&p->cancels, &r->node);
        p->common->cancels--;
    }
    r->server = NULL;
    r->canceller = NULL;
    conn_close(&r->conn);
    if (canceller != NULL) {
        canceller->rare->cancel = NULL;
        client_close(canceller, reason);
    }
    if (s != NULL && --s->cancels == 0)
        server_on_canceled(s);
    if (p != NULL)
        cancel_serve(p);
}

/* It may still be on its way, and would hit the next client's statement: nobody gets this server.
 */
static void lost(struct cancel_request *r)
{
    if (r->state == REQUEST_SENT && r->server != NULL) {
        r->server->retire = true;
        r->server->retire_reason = "cancel request got lost";
    }
    finish(r, "cancel request got lost");
}

static void on_timeout(struct timer *t)
{
    lost((struct cancel_request *)(void *)((char *)t - offsetof(struct cancel_request, timer)));
}

static void send_cancel(struct cancel_request *r)
{
    startup_encode_cancel(&r->conn.out, r->pid, (struct str){ (char *)r->key, r->key_len });
    r->state = REQUEST_SENT;
    if (r->peer != NULL)
        r->peer->sent++;
    conn_flush(&r->conn);
}

static void go_on_with_tls(struct cancel_request *r, enum server_tls_next next, struct err *e)
{
    switch (next) {
    case SERVER_TLS_GO_ON:
        send_cancel(r);
        break;
    case SERVER_TLS_WAIT:
        break;
    case SERVER_TLS_REFUSED:
        log_line(r->conn.worker->proxy->log, LEVEL_WARNING, "cancel request: %s", e->message);
        lost(r);
        break;
    }
    err_clear(e);
}

static size_t on_bytes(struct conn *c, struct str bytes)
{
    struct cancel_request *r = of_conn(c);
    struct err e = { 0 };

    /* To the request itself a server answers nothing. */
    if (r->tls.state == SERVER_TLS_ASKED) {
        enum server_tls_next next = server_tls_on_bytes(&r->tls, c, bytes, &e);
        go_on_with_tls(r, next, &e);
    }
    return bytes.len;
}

static void on_connected(struct conn *c)
{
    struct cancel_request *r = of_conn(c);
    struct err e = { 0 };
    enum server_tls_next next = server_tls_begin(&r->tls, c, &e);

    go_on_with_tls(r, next, &e);
}

static void on_secured(struct conn *c)
{
    struct cancel_request *r = of_conn(c);

    r->tls.state = SERVER_TLS_DONE;
    send_cancel(r);
}

static void on_gone(struct conn *c, const char *reason)
{
    if (c->securing && reason != NULL)
        log_line(c->worker->proxy->log, LEVEL_WARNING, "cancel request: %s", reason);
    /* A server that has seen to it ends the stream. */
    if (reason != NULL)
        lost(of_conn(c));
    else
        finish(of_conn(c), "cancel request done");
}

static void free_request(struct conn *c)
{
    server_tls_fini(&of_conn(c)->tls);
    free(of_conn(c));
}

static const struct conn_ops cancel_conn_ops = {
    .on_bytes = on_bytes,
    .on_connected = on_connected,
    .on_secured = on_secured,
    .on_gone = on_gone,
    .free = free_request,
};

static struct cancel_request *request_new(struct worker *w, struct client *canceller)
{
    struct cancel_request *r = mem_alloc(sizeof(*r));

    conn_init(&r->conn, w, &cancel_conn_ops);
    r->canceller = canceller;
    if (canceller != NULL) {
        canceller->state = CLIENT_CANCELING;
        client_rare(canceller)->cancel = r;
    }
    return r;
}

static void begin(struct cancel_request *r, const struct address *to)
{
    struct worker *w = r->conn.worker;
    int64_t timeout = w->proxy->config->server_connect_timeout_us;

    r->state = REQUEST_CONNECTING;
    server_tls_init(&r->tls, r->server != NULL ? r->server->tls.host : to->host);
    timer_set(&w->timers, &r->timer,
              w->now_us + (uint64_t)(timeout > 0 ? timeout : CONNECT_TIMEOUT_US), on_timeout);
    if (r->canceller != NULL)
        client_update_timer(r->canceller);
    conn_connect(&r->conn, to);
}

/* ---- to a server ------------------------------------------------------------------------ */

static bool has_room(const struct pool *p)
{
    const struct config *conf = p->worker->proxy->config;
    int size = p->db->entry != NULL ? config_pool_size(conf, p->db->entry, p->user->entry) : 1;
    int cancels = p->common->cancels;

    /* One of each worker may always go. */
    return size == 0 || list_is_empty(&p->cancels) || pool_server_count(p) + cancels < 2 * size;
}

static bool is_running(const struct server *s)
{
    return s->owed.count > 0 || s->lent || (s->client != NULL && s->client->lend != NULL);
}

void cancel_serve(struct pool *p)
{
    LIST_FOREACH(&p->cancels_queued, n)
    {
        struct cancel_request *r = LIST_ITEM(n, struct cancel_request, node);
        struct server *s = r->server;
        if (!is_running(s)) {
            finish(r, "cancel request for idle client");
            return; /* which served the others */
        }
        if (!has_room(p))
            return;
        if (server_is_setting(s))
            continue;
        list_remove(&p->cancels_queued, &r->node);
        list_append(&p->cancels, &r->node);
        p->common->cancels++;
        s->cancels++;
        begin(r, &s->conn.peer);
    }
}

static void start(struct server *s, struct client *canceller)
{
    struct cancel_request *r = request_new(s->conn.worker, canceller);

    r->pool = s->pool;
    r->server = s;
    r->pid = s->backend_pid;
    r->key_len = (uint16_t)s->backend_key_len;
    memcpy(r->key, s->backend_key, s->backend_key_len);
    list_append(&s->pool->cancels_queued, &r->node);
    if (canceller != NULL)
        client_update_timer(canceller);
    cancel_serve(s->pool);
}

bool cancel_own_query(struct server *s)
{
    if (s->backend_key_len == 0)
        return false;
    start(s, NULL);
    return true;
}

static void drop_queued(struct pool *p, const struct server *s, const char *reason)
{
    LIST_FOREACH(&p->cancels_queued, n)
    {
        struct cancel_request *r = LIST_ITEM(n, struct cancel_request, node);
        if (r->server != s)
            continue;
        /* Taken out first: finish serves the queue. */
        struct client *canceller = r->canceller;
        list_remove(&p->cancels_queued, &r->node);
        conn_close(&r->conn);
        if (canceller != NULL) {
            canceller->rare->cancel = NULL;
            client_close(canceller, reason);
        }
    }
}

void cancel_drop_queued(struct server *s)
{
    drop_queued(s->pool, s, "cancel request for idle client");
}

void cancel_forget_server(struct pool *p, struct server *s)
{
    drop_queued(p, s, "cancel request for closed server");
    LIST_FOREACH(&p->cancels, n)
    {
        struct cancel_request *r = LIST_ITEM(n, struct cancel_request, node);
        if (r->server == s) {
            r->server = NULL;
            s->cancels--;
        }
    }
}

void cancel_close_all(struct pool *p)
{
    struct list_node *n;

    while ((n = list_first(&p->cancels_queued)) != NULL || (n = list_first(&p->cancels)) != NULL)
        finish(LIST_ITEM(n, struct cancel_request, node), "pooler is shutting down");
}

struct cancel_counts cancel_count(const struct pool *p)
{
    struct cancel_counts counts = { .waiting = (int)p->cancels_queued.count };

    LIST_FOREACH(&p->cancels, n)
    {
        bool sent = LIST_ITEM(n, struct cancel_request, node)->state == REQUEST_SENT;
        counts.sent += sent;
        counts.connecting += !sent;
    }
    counts.waiting += counts.connecting;
    return counts;
}

/* ---- to a peer -------------------------------------------------------------------------- */

const struct peer *cancel_find_peer(const struct proxy *p, int id)
{
    LIST_FOREACH(&p->peers, n)
    {
        const struct peer *peer = LIST_ITEM(n, struct peer, node);
        if (peer->id == id)
            return peer;
    }
    return NULL;
}

static struct peer *get_peer(struct proxy *p, int id)
{
    pthread_mutex_lock(&p->lock);
    struct peer *peer = (struct peer *)cancel_find_peer(p, id);
    if (peer == NULL) {
        peer = mem_alloc(sizeof(*peer));
        peer->id = id;
        list_append(&p->peers, &peer->node);
    }
    pthread_mutex_unlock(&p->lock);
    return peer;
}

void cancel_free_peers(struct proxy *p)
{
    struct list_node *n;

    while ((n = list_pop(&p->peers)) != NULL)
        free(LIST_ITEM(n, struct peer, node));
}

static bool take_room(struct peer *peer, const struct config *conf, const struct config_peer *entry)
{
    int size = entry->pool_size >= 0 ? entry->pool_size : conf->default_pool_size;

    if (atomic_fetch_add(&peer->under_way, 1) < size || size == 0)
        return true;
    atomic_fetch_sub(&peer->under_way, 1);
    return false;
}

static void on_kick(struct worker *w, struct letter *l)
{
    (void)l;
    atomic_store(&w->peers_kicked, false);
    serve_peers(w);
}

static void leave_peer(struct cancel_request *r)
{
    struct worker *w = r->conn.worker;
    struct peer *peer = r->peer;

    list_remove(&w->peer_requests, &r->node);
    if (r->state == REQUEST_QUEUED) {
        peer->waiting--;
        return;
    }
    if (r->state == REQUEST_SENT)
        peer->sent--;
    peer->under_way--;
    if (peer->waiting == 0)
        return;
    for (int i = 0; i < w->proxy->n_workers; i++) {
        struct worker *to = w->proxy->workers[i];
        if (!atomic_exchange(&to->peers_kicked, true)) {
            to->peers_kick.deliver = on_kick;
            worker_post(to, &to->peers_kick);
        }
    }
}

static void serve_peers(struct worker *w)
{
    const struct config *conf = w->proxy->config;

    LIST_FOREACH(&w->peer_requests, n)
    {
        struct cancel_request *r = LIST_ITEM(n, struct cancel_request, node);
        if (r->state != REQUEST_QUEUED)
            continue;
        const struct config_peer *entry = config_find_peer(conf, r->peer->id);
        if (entry == NULL) {
            finish(r, "failed cancel request, unknown peer");
            continue;
        }
        if (!take_room(r->peer, conf, entry))
            continue;
        r->peer->waiting--;
        struct address to = {
            .host = entry->host,
            .port = entry->port,
            .is_unix = entry->host[0] == '/' || entry->host[0] == '@',
        };
        begin(r, &to);
    }
}

/* The key is of another process. */
static void forward(struct client *canceller, struct cancel_key *k)
{
    struct worker *w = canceller->conn.worker;
    const struct config *conf = w->proxy->config;
    int id = cancel_key_peer(k);

    if (conf->peer_id == 0 || id == conf->peer_id || config_find_peer(conf, id) == NULL) {
        client_close(canceller, "failed cancel request");
        return;
    }
    if (!cancel_key_forward(k)) {
        client_close(canceller, "failed cancel request, it was forwarded too often");
        return;
    }
    struct cancel_request *r = request_new(w, canceller);
    struct str secret = cancel_key_secret(k);
    r->peer = get_peer(w->proxy, id);
    r->pid = cancel_key_pid(k);
    r->key_len = (uint16_t)secret.len;
    memcpy(r->key, secret.ptr, secret.len);
    list_append(&w->peer_requests, &r->node);
    r->peer->waiting++;
    client_update_timer(canceller);
    serve_peers(w);
}

void cancel_close_peers(struct worker *w)
{
    struct list_node *n;

    while ((n = list_first(&w->peer_requests)) != NULL)
        finish(LIST_ITEM(n, struct cancel_request, node), "pooler is shutting down");
}

struct cancel_counts cancel_count_peer(const struct peer *peer)
{
    struct cancel_counts counts = { .sent = peer->sent };

    counts.connecting = peer->under_way - peer->sent;
    counts.waiting = peer->waiting + counts.connecting;
    return counts;
}

/* ---- requests --------------------------------------------------------------------------- */

/* The client of a key; under the lock. */
static struct client *find_target(struct proxy *p, const struct cancel_key *wanted)
{
    struct client *target = NULL;

    for (struct map_node *n = map_first(&p->cancel_keys, cancel_key_hash(wanted, p->cancel_secret));
         n != NULL; n = map_next_same(n)) {
        struct client *c = MAP_ITEM(n, struct client, cancel_node);
        struct cancel_key key = client_cancel_key(c);
        if (cancel_key_equal(&key, wanted))
            target = c;
    }
    return target;
}

struct worker *cancel_worker(struct client *canceller, int32_t pid, struct str key)
{
    struct worker *w = canceller->conn.worker;
    struct cancel_key wanted;

    if (!cancel_key_from_wire(&wanted, pid, key))
        return w;
    pthread_mutex_lock(&w->proxy->lock);
    struct client *target = find_target(w->proxy, &wanted);
    /* On its way between workers it has nothing to be cancelled. */
    if (target != NULL && target->conn.worker != NULL)
        w = target->conn.worker;
    pthread_mutex_unlock(&canceller->conn.worker->proxy->lock);
    return w;
}

void cancel_request(struct client *canceller, int32_t pid, struct str key)
{
    struct worker *w = canceller->conn.worker;
    struct proxy *p = w->proxy;
    struct cancel_key wanted;

    if (!cancel_key_from_wire(&wanted, pid, key)) {
        client_close(canceller, "bad cancel request");
        return;
    }
    pthread_mutex_lock(&p->lock);
    struct client *target = find_target(p, &wanted);
    /* Another one's, since: the one that was meant is gone. */
    bool is_gone = target != NULL && target->conn.worker != w;
    pthread_mutex_unlock(&p->lock);
    if (is_gone) {
        client_close(canceller, "failed cancel request");
    } else if (target == NULL) {
        forward(canceller, &wanted);
    } else if (target->state == CLIENT_CONSOLE) {
        proxy_cancel_admin_wait(p, target->rare->admin);
        client_close(canceller, "cancel request for console client");
    } else if (target->state == CLIENT_WAITING) {
        client_on_cancel_while_waiting(target);
        client_close(canceller, "cancel request for waiting client");
    } else if (target->state != CLIENT_ACTIVE || target->server == NULL ||
               !is_running(target->server)) {
        client_close(canceller, "cancel request for idle client");
    } else if (target->server->backend_key_len == 0) {
        client_close(canceller, "cancel request for a server that knows no cancel");
    } else {
        start(target->server, canceller);
    }
}

void cancel_abandon(struct client *canceller)
{
    struct cancel_request *r = canceller->rare->cancel;

    r->canceller = NULL;
    canceller->rare->cancel = NULL;
    if (r->state == REQUEST_QUEUED)
        finish(r, "");
}
