#include "proxy/cancel.h"

#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "protocol/startup.h"
#include "proxy/client.h"
#include "proxy/server.h"

/* One connection that carries a cancel to a server, and ends. */
struct cancel_request {
    struct conn conn; /* first */
    struct list_node pool_node;
    struct pool *pool;
    struct server *server;    /* NULL: closed meanwhile */
    struct client *canceller; /* NULL: gone, or a cancel of our own */
    struct timer timer;
    bool sent; /* it may arrive at the server at any time until the stream has ended */
    int32_t pid;
    size_t key_len;
    char key[256];
};

static const struct conn_ops cancel_conn_ops;

static struct cancel_request *of_conn(struct conn *c)
{
    return (struct cancel_request *)(void *)c;
}

static void finish(struct cancel_request *r)
{
    struct server *s = r->server;
    struct client *canceller = r->canceller;

    timer_unset(&r->conn.worker->timers, &r->timer);
    list_remove(&r->pool->cancels, &r->pool_node);
    r->server = NULL;
    r->canceller = NULL;
    conn_close(&r->conn);
    if (canceller != NULL) {
        canceller->cancel = NULL;
        client_close(canceller, "cancel request done");
    }
    if (s != NULL && --s->cancels == 0 && s->state == SERVER_IDLE)
        pool_on_server_ready(s->pool, s);
}

/* It may still be on its way, and would hit the next client's statement: nobody gets this server.
 */
static void lost(struct cancel_request *r)
{
    if (r->sent && r->server != NULL) {
        r->server->retire = true;
        r->server->retire_reason = "cancel request got lost";
    }
    finish(r);
}

static void on_timeout(struct timer *t)
{
    lost((struct cancel_request *)(void *)((char *)t - offsetof(struct cancel_request, timer)));
}

static size_t on_bytes(struct conn *c, struct str bytes)
{
    (void)c;
    return bytes.len; /* a server answers nothing */
}

static void on_connected(struct conn *c)
{
    struct cancel_request *r = of_conn(c);

    startup_encode_cancel(&c->out, r->pid, (struct str){ r->key, r->key_len });
    r->sent = true;
    conn_flush(c);
}

static void on_gone(struct conn *c, const char *reason)
{
    /* A server that has seen to it ends the stream. */
    if (reason != NULL)
        lost(of_conn(c));
    else
        finish(of_conn(c));
}

static void free_request(struct conn *c)
{
    free(of_conn(c));
}

static const struct conn_ops cancel_conn_ops = {
    .on_bytes = on_bytes,
    .on_connected = on_connected,
    .on_gone = on_gone,
    .free = free_request,
};

static struct cancel_request *start(struct server *s, struct client *canceller)
{
    struct worker *w = s->conn.worker;
    struct cancel_request *r = mem_alloc(sizeof(*r));
    struct address to = s->conn.peer;
    int64_t timeout = w->proxy->config->server_connect_timeout_us;

    conn_init(&r->conn, w, &cancel_conn_ops);
    r->pool = s->pool;
    r->server = s;
    r->canceller = canceller;
    r->pid = s->backend_pid;
    r->key_len = s->backend_key_len;
    memcpy(r->key, s->backend_key, s->backend_key_len);
    s->cancels++;
    list_append(&s->pool->cancels, &r->pool_node);
    timer_set(&w->timers, &r->timer, w->now_us + (uint64_t)(timeout > 0 ? timeout : 15000000),
              on_timeout);
    conn_connect(&r->conn, &to);
    return r;
}

/* The client of a key; under the lock. */
static struct client *find_target(struct proxy *p, const struct cancel_key *wanted)
{
    struct client *target = NULL;

    for (struct map_node *n = map_first(&p->cancel_keys, cancel_key_hash(wanted, p->cancel_secret));
         n != NULL; n = map_next_same(n)) {
        struct client *c = MAP_ITEM(n, struct client, cancel_node);
        if (cancel_key_equal(&c->cancel_key, wanted))
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
    if (target != NULL)
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
    if (target != NULL && target->conn.worker != w)
        target = NULL; /* another one's, since: the one that was meant is gone */
    pthread_mutex_unlock(&p->lock);
    if (target == NULL) {
        client_close(canceller, "failed cancel request");
    } else if (target->state == CLIENT_CONSOLE) {
        proxy_cancel_admin_wait(p, target->admin);
        client_close(canceller, "cancel request for console client");
    } else if (target->state == CLIENT_WAITING) {
        client_on_cancel_while_waiting(target);
        client_close(canceller, "cancel request for waiting client");
    } else if (target->state != CLIENT_ACTIVE || target->server == NULL ||
               (target->server->owed.count == 0 && target->lend == NULL)) {
        client_close(canceller, "cancel request for idle client");
    } else {
        canceller->state = CLIENT_CANCELING;
        canceller->cancel = start(target->server, canceller);
        client_update_timer(canceller);
    }
}

void cancel_own_query(struct server *s)
{
    if (s->backend_pid != 0)
        start(s, NULL);
}

void cancel_forget_server(struct pool *p, struct server *s)
{
    LIST_FOREACH(&p->cancels, n)
    {
        struct cancel_request *r = LIST_ITEM(n, struct cancel_request, pool_node);
        if (r->server == s) {
            r->server = NULL;
            s->cancels--;
        }
    }
}

void cancel_close_all(struct pool *p)
{
    struct list_node *n;

    while ((n = list_first(&p->cancels)) != NULL)
        finish(LIST_ITEM(n, struct cancel_request, pool_node));
}

void cancel_abandon(struct client *canceller)
{
    canceller->cancel->canceller = NULL;
    canceller->cancel = NULL;
}
