#include "proxy/listener.h"

#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/map.h"
#include "protocol/notice.h"
#include "protocol/query_simple.h"
#include "protocol/status.h"
#include "proxy/client.h"
#include "proxy/pool.h"
#include "proxy/server.h"
#include "proxy/session_state.h"

/* Channels that one query of ours names. */
enum { BATCH_MAX = 500 };

struct listener {
    struct list_node pool_node; /* pool.listeners */
    struct pool *pool;
    char *encoding;        /* client_encoding; NULL: the server's */
    struct server *server; /* NULL: not connected, nor on its way */
    bool ready;            /* logged in */
    bool busy;             /* a query is under way */
    bool ended;            /* nobody needs it any more */
    struct map channels;   /* struct channel.node */
    struct list list;      /* struct channel.list_node */
    struct timer retry;    /* of a connection that failed */
    struct timer upkeep;   /* somebody left: due at once, for he may have been told by us */
    struct text error;     /* of the last attempt, or of the query that is under way */
};

struct channel {
    struct map_node node;
    struct list_node list_node;
    struct listener *listener;
    struct list subscriptions; /* struct subscription.channel_node */
    bool listens;
    bool asked;  /* by the query that is under way */
    bool failed; /* the last attempt to listen to it */
    size_t len;
    char name[];
};

struct subscription {
    struct list_node channel_node;
    struct list_node hearing_node;
    struct map_node name_node;
    struct client *client;
    struct channel *channel;
    bool confirmed; /* its LISTEN is committed */
    bool unlistens; /* an UNLISTEN of it is not */
};

void hearing_init(struct hearing *h)
{
    list_init(&h->subscriptions);
    map_init(&h->by_name);
}

static struct proxy *proxy_of(const struct listener *l)
{
    return l->pool->worker->proxy;
}

static bool next_name(struct str *list, struct str *name)
{
    if (list->len == 0)
        return false;
    *name = (struct str){ list->ptr, strlen(list->ptr) };
    list->ptr += name->len + 1;
    list->len -= name->len + 1;
    return true;
}

/* ---- channels --------------------------------------------------------------------------- */

static struct channel *find_channel(struct listener *l, struct str name)
{
    for (struct map_node *n = map_first(&l->channels, str_hash(name)); n != NULL;
         n = map_next_same(n)) {
        struct channel *ch = MAP_ITEM(n, struct channel, node);
        if (str_equal((struct str){ ch->name, ch->len }, name))
            return ch;
    }
    return NULL;
}

static struct channel *get_channel(struct listener *l, struct str name)
{
    struct channel *ch = find_channel(l, name);

    if (ch != NULL)
        return ch;
    ch = mem_alloc(sizeof(*ch) + name.len + 1);
    ch->listener = l;
    ch->len = name.len;
    memcpy(ch->name, name.ptr, name.len);
    list_init(&ch->subscriptions);
    map_insert(&l->channels, &ch->node, str_hash(name));
    list_append(&l->list, &ch->list_node);
    return ch;
}

static struct listener *get_listener(struct client *c)
{
    const char *encoding = params_get(&c->params, PARAM_CLIENT_ENCODING);

    LIST_FOREACH(&c->pool->listeners, n)
    {
        struct listener *l = LIST_ITEM(n, struct listener, pool_node);
        if (!l->ended && (l->encoding == encoding || (l->encoding != NULL && encoding != NULL &&
                                                      strcmp(l->encoding, encoding) == 0)))
            return l;
    }
    struct listener *l = mem_alloc(sizeof(*l));
    l->pool = c->pool;
    l->encoding = encoding != NULL ? mem_strdup(encoding) : NULL;
    map_init(&l->channels);
    list_init(&l->list);
    text_init(&l->error);
    list_append(&c->pool->listeners, &l->pool_node);
    return l;
}

static void forget_channel(struct channel *ch)
{
    map_remove(&ch->listener->channels, &ch->node);
    list_remove(&ch->listener->list, &ch->list_node);
    free(ch);
}

/* Forgets what nobody wants; all of it when that is everything. True: it is gone. */
static bool end_if_unused(struct listener *l)
{
    bool used = false;

    LIST_FOREACH(&l->list, n)
    {
        struct channel *ch = LIST_ITEM(n, struct channel, list_node);
        if (!list_is_empty(&ch->subscriptions))
            used = true;
        else if (!ch->listens && !ch->asked)
            forget_channel(ch);
    }
    if (used)
        return false;
    l->ended = true;
    if (l->server != NULL) {
        server_close(l->server, "nobody listens any more"); /* listener_on_closed follows */
        return true;
    }
    /* The analyzer does not see that the visited node is taken out before it is freed. */
    /* NOLINTNEXTLINE(clang-analyzer-unix.Malloc) */
    LIST_FOREACH(&l->list, n)
    forget_channel(LIST_ITEM(n, struct channel, list_node));
    timer_unset(&l->pool->worker->timers, &l->retry);
    timer_unset(&l->pool->worker->timers, &l->upkeep);
    list_remove(&l->pool->listeners, &l->pool_node);
    map_free(&l->channels);
    text_free(&l->error);
    free(l->encoding);
    free(l);
    return true;
}

static void wake_subscribers(struct channel *ch)
{
    LIST_FOREACH(&ch->subscriptions, n)
    {
        struct subscription *sub = LIST_ITEM(n, struct subscription, channel_node);
        if (!sub->confirmed)
            conn_wake(&sub->client->conn);
    }
}

/* ---- the connection --------------------------------------------------------------------- */

static void connect_again(struct timer *t)
{
    struct listener *l = (struct listener *)(void *)((char *)t - offsetof(struct listener, retry));

    listeners_serve(l->pool);
}

static void connect_listener(struct listener *l)
{
    struct pool *p = l->pool;

    if (l->server != NULL || l->ended || timer_is_set(&l->retry) || p->db->entry == NULL ||
        proxy_is_paused(proxy_of(l), p->db))
        return;
    l->server = server_open_listener(p, l);
}

void listeners_serve(struct pool *p)
{
    LIST_FOREACH(&p->listeners, n)
    connect_listener(LIST_ITEM(n, struct listener, pool_node));
}

void listeners_close(struct pool *p, const char *reason)
{
    LIST_FOREACH(&p->listeners, n)
    {
        struct listener *l = LIST_ITEM(n, struct listener, pool_node);
        if (l->server != NULL)
            server_close(l->server, reason);
    }
}

void listeners_end(struct pool *p)
{
    LIST_FOREACH(&p->listeners, n)
    end_if_unused(LIST_ITEM(n, struct listener, pool_node));
}

const char *listener_encoding(const struct listener *l)
{
    return l->encoding;
}

/* Has the server LISTEN and UNLISTEN to what is wanted, in one query. */
static void go_on(struct listener *l)
{
    struct text sql;
    int n_asked = 0;

    if (!l->ready || l->busy)
        return;
    text_init(&sql);
    LIST_FOREACH(&l->list, n)
    {
        struct channel *ch = LIST_ITEM(n, struct channel, list_node);
        bool wanted = !list_is_empty(&ch->subscriptions);
        if (wanted == ch->listens || ch->failed || n_asked == BATCH_MAX)
            continue;
        text_put(&sql, wanted ? "LISTEN " : "UNLISTEN ");
        text_put_ident(&sql, ch->name);
        text_put(&sql, ";");
        ch->asked = true;
        n_asked++;
    }
    if (n_asked > 0) {
        l->busy = true;
        text_clear(&l->error);
        wire_encode_query(&l->server->conn.out, text_str(&sql));
        conn_flush(&l->server->conn);
    }
    text_free(&sql);
}

void listener_on_ready(struct listener *l)
{
    l->ready = true;
    go_on(l);
}

static void query_done(struct listener *l)
{
    bool failed = l->error.len > 0;

    l->busy = false;
    LIST_FOREACH(&l->list, n)
    {
        struct channel *ch = LIST_ITEM(n, struct channel, list_node);
        if (!ch->asked)
            continue;
        ch->asked = false;
        if (failed)
            ch->failed = true;
        else
            ch->listens = !ch->listens;
        wake_subscribers(ch);
        if (list_is_empty(&ch->subscriptions) && !ch->listens)
            forget_channel(ch);
    }
    go_on(l);
}

/* What the last attempt came to: those who wait for it are told. */
static void fail_channels(struct listener *l)
{
    LIST_FOREACH(&l->list, n)
    {
        struct channel *ch = LIST_ITEM(n, struct channel, list_node);
        ch->failed = !ch->listens;
        wake_subscribers(ch);
    }
}

void listener_on_failed(struct listener *l, struct str message)
{
    struct worker *w = l->pool->worker;

    text_clear(&l->error);
    text_put_str(&l->error, message);
    if (!timer_is_set(&l->retry))
        timer_set(&w->timers, &l->retry,
                  w->now_us + (uint64_t)w->proxy->config->server_login_retry_us, connect_again);
}

/* ---- notifications ---------------------------------------------------------------------- */

static bool may_be_told(const struct client *c)
{
    switch (c->state) {
    case CLIENT_IDLE:
    case CLIENT_WAITING:
        return true;
    case CLIENT_ACTIVE:
        return c->server != NULL && c->lend == NULL && !c->lend_block && server_is_clean(c->server);
    case CLIENT_STARTUP:
    case CLIENT_AUTH:
    case CLIENT_LOGIN_WAIT:
    case CLIENT_CONSOLE:
    case CLIENT_CANCELING:
    case CLIENT_CLOSED:
        break;
    }
    return false;
}

void listener_tell(struct client *c, struct hearing *h, bool before_ready)
{
    struct str ready = bytequeue_str(&h->ready);

    if (ready.len == 0 || (!before_ready && !may_be_told(c)))
        return;
    conn_send(&c->conn, ready.ptr, ready.len);
    conn_flush(&c->conn);
    bytequeue_free(&h->ready);
}

/* The client may be closed by it. */
static void hear(struct client *c, struct str frame)
{
    struct hearing *h = session_state_hearing(c);
    struct bytequeue *to = h->tentative > 0 || bytequeue_len(&h->early) > 0 ? &h->early : &h->ready;

    if (bytequeue_len(&c->conn.out) + bytequeue_len(&h->early) + bytequeue_len(&h->ready) +
            frame.len >
        LISTEN_QUEUE_MAX) {
        client_fail(c, "53400", "too many notifications wait for the client");
        return;
    }
    bytequeue_put(to, frame.ptr, frame.len);
    listener_tell(c, h, false);
}

void listener_on_piece(struct listener *l, const struct wire_piece *f)
{
    struct err e = { 0 };
    struct str channel, payload;
    int32_t pid;

    switch (f->tag) {
    case BE_NOTIFICATION:
        if (!f->starts || !f->ends || !wire_decode_notification(f->body, &pid, &channel, &payload))
            return;
        struct channel *ch = find_channel(l, channel);
        if (ch == NULL)
            return;
        LIST_FOREACH(&ch->subscriptions, n)
        hear(LIST_ITEM(n, struct subscription, channel_node)->client, f->bytes);
        return;
    case BE_ERROR:
        notice_decode_err(f->body, &e);
        server_log(l->server, LEVEL_WARNING, "LISTEN failed: %s", e.message);
        text_clear(&l->error);
        text_put(&l->error, e.message);
        err_clear(&e);
        return;
    case BE_READY_FOR_QUERY:
        if (l->busy)
            query_done(l);
        return;
    default:
        return;
    }
}

/* Notifications may have been missed: each client that listened is told once. */
static void tell_of_loss(struct listener *l)
{
    bool disconnect = proxy_of(l)->config->listen_lost_disconnect;

    LIST_FOREACH(&l->list, n)
    {
        struct channel *ch = LIST_ITEM(n, struct channel, list_node);
        LIST_FOREACH(&ch->subscriptions, sn)
        {
            struct subscription *sub = LIST_ITEM(sn, struct subscription, channel_node);
            struct client *c = sub->client;
            struct hearing *h = session_state_hearing(c);
            /* Once: by its first confirmed subscription. */
            struct subscription *first = NULL;
            LIST_FOREACH(&h->subscriptions, hn)
            {
                struct subscription *s = LIST_ITEM(hn, struct subscription, hearing_node);
                if (first == NULL && s->confirmed && s->channel->listener == l)
                    first = s;
            }
            if (first != sub)
                continue;
            if (disconnect) {
                client_fail(c, "08006",
                            "notifications may have been missed: the server connection that "
                            "listens was lost");
                continue;
            }
            notice_encode_notice(&h->ready, "WARNING", "01000",
                                 "notifications may have been missed: the server connection that "
                                 "listens was lost and is opened again");
            listener_tell(c, h, false);
        }
    }
}

void listener_on_closed(struct listener *l)
{
    bool listened = false, was_ready = l->ready;

    l->server = NULL;
    l->ready = l->busy = false;
    LIST_FOREACH(&l->list, n)
    {
        struct channel *ch = LIST_ITEM(n, struct channel, list_node);
        listened = listened || ch->listens;
        ch->listens = ch->asked = false;
    }
    if (l->ended) {
        end_if_unused(l);
        return;
    }
    if (!was_ready)
        fail_channels(l);
    if (listened)
        tell_of_loss(l);
    if (!end_if_unused(l))
        connect_listener(l);
}

/* ---- subscriptions ---------------------------------------------------------------------- */

static struct subscription *find_subscription(const struct hearing *h, struct str channel)
{
    for (struct map_node *n = map_first(&h->by_name, str_hash(channel)); n != NULL;
         n = map_next_same(n)) {
        struct subscription *sub = MAP_ITEM(n, struct subscription, name_node);
        if (str_equal((struct str){ sub->channel->name, sub->channel->len }, channel))
            return sub;
    }
    return NULL;
}

static struct subscription *subscribe(struct client *c, struct hearing *h, struct str channel)
{
    struct subscription *sub = mem_alloc(sizeof(*sub));

    sub->client = c;
    sub->channel = get_channel(get_listener(c), channel);
    list_append(&sub->channel->subscriptions, &sub->channel_node);
    list_append(&h->subscriptions, &sub->hearing_node);
    map_insert(&h->by_name, &sub->name_node, str_hash(channel));
    h->tentative++;
    return sub;
}

static void confirm(struct hearing *h, struct subscription *sub)
{
    if (!sub->confirmed)
        h->tentative--;
    sub->confirmed = true;
}

static void on_upkeep(struct timer *t)
{
    struct listener *l = (struct listener *)(void *)((char *)t - offsetof(struct listener, upkeep));

    if (!end_if_unused(l))
        go_on(l);
}

static void unsubscribe(struct hearing *h, struct subscription *sub)
{
    struct listener *l = sub->channel->listener;
    struct worker *w = l->pool->worker;

    if (!sub->confirmed)
        h->tentative--;
    list_remove(&sub->channel->subscriptions, &sub->channel_node);
    list_remove(&h->subscriptions, &sub->hearing_node);
    map_remove(&h->by_name, &sub->name_node);
    if (list_is_empty(&h->subscriptions))
        map_free(&h->by_name);
    free(sub);
    timer_set(&w->timers, &l->upkeep, w->now_us, on_upkeep);
}

enum listener_answer listener_listen(struct client *c, struct hearing *h, struct str channel,
                                     struct err *e)
{
    struct subscription *sub = find_subscription(h, channel);

    if (sub == NULL && h->subscriptions.count >= LISTEN_CHANNELS_MAX) {
        err_set(e, ERR_RESOURCE, "54000", "a client may listen to %d channels",
                LISTEN_CHANNELS_MAX);
        return LISTENER_FAILED;
    }
    if (sub == NULL)
        sub = subscribe(c, h, channel);
    struct listener *l = sub->channel->listener;
    if (sub->channel->listens || sub->confirmed)
        return LISTENER_LISTENS;
    if (sub->channel->failed || (l->server == NULL && timer_is_set(&l->retry))) {
        err_set(e, ERR_SERVER, "08006", "cannot listen: " STR_FMT, STR_ARG(text_str(&l->error)));
        sub->channel->failed = false;
        unsubscribe(h, sub);
        return LISTENER_FAILED;
    }
    connect_listener(l);
    go_on(l);
    return LISTENER_WAITS;
}

void listener_unlisten(struct hearing *h, struct str channel)
{
    struct subscription *one = channel.len > 0 ? find_subscription(h, channel) : NULL;

    if (one != NULL)
        one->unlistens = h->unlistens = true;
    if (channel.len > 0)
        return;
    LIST_FOREACH(&h->subscriptions, n)
    LIST_ITEM(n, struct subscription, hearing_node)->unlistens = h->unlistens = true;
}

void listener_undo(struct hearing *h)
{
    if (!h->unlistens)
        return;
    h->unlistens = false;
    LIST_FOREACH(&h->subscriptions, n)
    LIST_ITEM(n, struct subscription, hearing_node)->unlistens = false;
}

/* Keeps of `early` what is for channels that the client listens to by a transaction that is over;
 * then all of it is. */
static void sift_early(struct hearing *h)
{
    struct str early = bytequeue_str(&h->early);
    struct bytequeue kept = { 0 };
    struct wire_frame f;

    while (wire_next_frame(SENT_BY_BACKEND, early, &f) == WIRE_FRAME) {
        struct str channel, payload;
        int32_t pid;
        struct subscription *sub = NULL;
        if (wire_decode_notification(f.body, &pid, &channel, &payload))
            sub = find_subscription(h, channel);
        if (sub != NULL && sub->confirmed)
            bytequeue_put(&kept, f.bytes.ptr, f.bytes.len);
        early.ptr += f.bytes.len;
        early.len -= f.bytes.len;
    }
    bytequeue_free(&h->early);
    h->early = kept;
}

void listener_new_request(struct hearing *h)
{
    if (h->tentative > 0)
        sift_early(h);
}

void listener_settle(struct client *c, struct hearing *h, struct str channels)
{
    struct str name;

    while (next_name(&channels, &name)) {
        struct subscription *sub = find_subscription(h, name);
        /* A LISTEN that was not seen in the text, in a function. */
        if (sub == NULL) {
            sub = subscribe(c, h, name);
            connect_listener(sub->channel->listener);
            go_on(sub->channel->listener);
        }
        /* A LISTEN may have come behind an UNLISTEN: then the server listens. */
        sub->unlistens = false;
        confirm(h, sub);
    }
    LIST_FOREACH(&h->subscriptions, n)
    {
        struct subscription *sub = LIST_ITEM(n, struct subscription, hearing_node);
        if (!sub->confirmed || sub->unlistens)
            unsubscribe(h, sub);
    }
    h->unlistens = false;
    sift_early(h);
    struct str early = bytequeue_str(&h->early);
    bytequeue_put(&h->ready, early.ptr, early.len);
    bytequeue_free(&h->early);
    listener_tell(c, h, false);
}

void listener_forget(struct client *c, struct hearing *h)
{
    (void)c;
    LIST_FOREACH(&h->subscriptions, n)
    unsubscribe(h, LIST_ITEM(n, struct subscription, hearing_node));
    h->unlistens = false;
    bytequeue_free(&h->early);
    bytequeue_free(&h->ready);
}

/* ---- SHOW LISTENERS --------------------------------------------------------------------- */

void listeners_each(const struct pool *p, void (*put)(void *arg, const struct listener_view *v),
                    void *arg)
{
    LIST_FOREACH(&p->listeners, ln)
    {
        const struct listener *l = LIST_ITEM(ln, struct listener, pool_node);
        struct listener_view v = {
            .encoding = l->encoding,
            .server = l->server,
            .state = l->ready            ? "listening"
                     : l->server != NULL ? "login"
                                         : "waiting",
            .channels = l->list.count,
        };
        LIST_FOREACH(&l->list, cn)
        {
            const struct channel *ch = LIST_ITEM(cn, struct channel, list_node);
            LIST_FOREACH(&ch->subscriptions, sn)
            {
                const struct subscription *sub = LIST_ITEM(sn, struct subscription, channel_node);
                const struct hearing *h = session_state_hearing(sub->client);
                /* Once: by the first of its subscriptions. */
                if (list_first(&h->subscriptions) != &sub->hearing_node)
                    continue;
                v.clients++;
                v.queued += bytequeue_len(&h->early) + bytequeue_len(&h->ready) +
                            bytequeue_len(&sub->client->conn.out);
            }
        }
        put(arg, &v);
    }
}
