#include "proxy/conn.h"

#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "proxy/dns.h"
#include "proxy/proxy.h"

#define SPARE_MAX 16384

void conn_init(struct conn *c, struct worker *w, const struct conn_ops *ops)
{
    *c = (struct conn){ .ops = ops, .worker = w };
}

void conn_set_peer(struct conn *c, const struct address *peer)
{
    struct shared_names *names = &c->worker->proxy->peer_hosts;
    const char *host = peer->host != NULL ? shared_name_ref(names, peer->host) : NULL;

    shared_name_unref(names, c->peer.host);
    c->peer = *peer;
    c->peer.host = host;
}

struct address conn_local(const struct conn *c)
{
    if (c->socket == NULL)
        return (struct address){ .host = "", .is_unix = c->peer.is_unix };
    return c->worker->ops->local(c->worker->io, c);
}

static void update_reading(struct conn *c)
{
    bool want = !c->closed && !c->paused && !c->stopped && c->socket != NULL &&
                (!c->held || bytequeue_len(&c->in) < CONN_HELD_MAX);

    if (want != c->reading) {
        c->reading = want;
        if (c->socket != NULL)
            c->worker->ops->read(c->worker->io, c, want);
    }
}

void conn_connect(struct conn *c, const struct address *to)
{
    conn_set_peer(c, to);
    if (dns_is_name(to))
        dns_connect(c);
    else
        c->worker->ops->connect(c->worker->io, c, &c->peer);
}

void conn_flush(struct conn *c)
{
    if (!c->closed && !list_node_is_linked(&c->send_node))
        list_append(&c->worker->sends, &c->send_node);
}

void conn_send(struct conn *c, const void *bytes, size_t n)
{
    struct worker *w = c->worker;

    if (c->closed)
        return;
    if (c->out.block == NULL) {
        c->out = w->spare;
        w->spare = (struct bytequeue){ 0 };
    }
    bytequeue_put(&c->out, bytes, n);
    conn_flush(c);
}

void conn_wake(struct conn *c)
{
    if (!c->closed && !list_node_is_linked(&c->wake_node))
        list_append(&c->worker->wakes, &c->wake_node);
}

void conn_pause(struct conn *c, bool paused)
{
    if (c->paused == paused)
        return;
    c->paused = paused;
    if (!paused)
        conn_wake(c);
    update_reading(c);
}

void conn_stop(struct conn *c, bool stopped)
{
    if (c->stopped == stopped)
        return;
    c->stopped = stopped;
    if (!stopped)
        conn_wake(c);
    update_reading(c);
}

static void forget(struct conn *c)
{
    c->closed = true;
    c->reading = false;
    if (list_node_is_linked(&c->wake_node))
        list_remove(&c->worker->wakes, &c->wake_node);
    if (list_node_is_linked(&c->send_node))
        list_remove(&c->worker->sends, &c->send_node);
    list_append(&c->worker->dead, &c->wake_node);
}

void conn_close(struct conn *c)
{
    if (c->closed)
        return;
    dns_forget(c);
    struct str left = bytequeue_str(&c->out);
    if (c->ops->on_output != NULL && left.len > 0)
        c->ops->on_output(c, left);
    if (c->socket != NULL) {
        if (left.len > 0)
            c->worker->ops->send(c->worker->io, c, left.ptr, left.len);
        c->worker->ops->close(c->worker->io, c);
    }
    forget(c);
}

void conn_depart(struct conn *c)
{
    if (list_node_is_linked(&c->wake_node))
        list_remove(&c->worker->wakes, &c->wake_node);
    if (list_node_is_linked(&c->send_node))
        list_remove(&c->worker->sends, &c->send_node);
    c->worker->ops->detach(c->worker->io, c);
    c->worker = NULL;
}

void conn_arrive(struct conn *c, struct worker *w)
{
    c->worker = w;
    w->ops->attach(w->io, c);
    if (bytequeue_len(&c->in) > 0)
        conn_wake(c);
    if (bytequeue_len(&c->out) > 0)
        conn_flush(c);
}

void conn_run(struct conn *c)
{
    if (c->closed || c->paused || c->stopped)
        return;
    struct str bytes = bytequeue_str(&c->in);
    c->held = false;
    size_t used = c->ops->on_bytes(c, bytes);
    if (c->closed)
        return;
    bytequeue_consume(&c->in, used);
    bytequeue_trim(&c->in);
    update_reading(c);
}

void conn_on_bytes(struct conn *c, const char *bytes, size_t n)
{
    if (bytequeue_len(&c->in) > 0 || c->paused || c->stopped) {
        bytequeue_put(&c->in, bytes, n);
        if (!list_node_is_linked(&c->wake_node))
            conn_run(c);
        return;
    }
    c->held = false;
    size_t used = c->ops->on_bytes(c, (struct str){ bytes, n });
    if (c->closed)
        return;
    bytequeue_put(&c->in, bytes + used, n - used);
    update_reading(c);
}

void conn_on_connected(struct conn *c)
{
    c->ops->on_connected(c);
    if (!c->closed)
        update_reading(c);
}

void conn_on_secured(struct conn *c, struct tls_info *info)
{
    if (c->closed) {
        tls_info_free(info);
        return;
    }
    c->tls = info;
    c->securing = false;
    if (c->ops->on_secured != NULL)
        c->ops->on_secured(c);
    if (!c->closed)
        update_reading(c);
}

void conn_on_gone(struct conn *c, const char *reason)
{
    if (!c->closed)
        c->ops->on_gone(c, reason);
}

static void send_queued(struct conn *c)
{
    struct str left = bytequeue_str(&c->out);

    if ((c->socket == NULL && c->ops->on_output == NULL) || left.len == 0)
        return;
    size_t n = left.len;
    if (c->ops->on_output != NULL)
        c->ops->on_output(c, left);
    else
        n = c->worker->ops->send(c->worker->io, c, left.ptr, left.len);
    bytequeue_consume(&c->out, n);
    if (n == left.len && c->worker->spare.block == NULL && bytequeue_cap(&c->out) <= SPARE_MAX) {
        c->worker->spare = c->out;
        c->out = (struct bytequeue){ 0 };
    } else {
        bytequeue_trim(&c->out);
    }
    if (c->was_full && bytequeue_len(&c->out) < CONN_OUT_LOW) {
        c->was_full = false;
        if (c->ops->on_room != NULL)
            c->ops->on_room(c);
    }
}

bool conn_start_tls(struct conn *c, const struct tls_start *how)
{
    send_queued(c);
    if (bytequeue_len(&c->out) > 0)
        return false;
    c->securing = true;
    c->worker->ops->tls_start(c->worker->io, c, how);
    return true;
}

void conn_on_writable(struct conn *c)
{
    conn_flush(c);
}

static void leave(struct list_node *n)
{
    struct leaver *l = LIST_ITEM(n, struct leaver, node);

    l->depart(l);
}

void worker_settle(struct worker *w)
{
    struct list_node *n;

    if (w->settling)
        return;
    w->settling = true;
    for (;;) {
        if ((n = list_pop(&w->wakes)) != NULL)
            conn_run(LIST_ITEM(n, struct conn, wake_node));
        else if ((n = list_pop(&w->sends)) != NULL)
            send_queued(LIST_ITEM(n, struct conn, send_node));
        else if ((n = list_pop(&w->leaving)) != NULL)
            leave(n);
        else
            break;
    }
    while ((n = list_pop(&w->dead)) != NULL) {
        struct conn *c = LIST_ITEM(n, struct conn, wake_node);
        bytequeue_free(&c->in);
        bytequeue_free(&c->out);
        shared_name_unref(&w->proxy->peer_hosts, c->peer.host);
        tls_info_free(c->tls);
        c->ops->free(c);
    }
    w->settling = false;
}
