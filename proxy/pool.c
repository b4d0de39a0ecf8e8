#include "proxy/pool.h"

#include <stdlib.h>

#include "base/arena.h"
#include "proxy/cancel.h"
#include "proxy/client.h"
#include "proxy/listener.h"
#include "proxy/pool_common.h"
#include "proxy/pool_policy.h"
#include "proxy/server.h"
#include "proxy/settings.h"

/* A waiter of another worker is served before one's own when it has waited longer by this: less
 * would send connections to and fro for nothing. */
#define ELDER_US 2000
/* Who waits on a worker whose own servers are at work is soon served by one of these: a connection
 * does not move for less, which costs two threads more than most transactions. */
#define PATIENCE_US 1000
/* The same between pools that share a limit, where it costs a login. */
#define SIBLING_US 250000

static const struct config *config_of(const struct pool *p)
{
    return p->worker->proxy->config;
}

static struct pool_part *part_of(const struct pool *p)
{
    return &p->common->parts[p->worker->index];
}

static void deliver_call(struct worker *w, struct letter *l);

struct pool *pool_get(struct worker *w, struct database *db, struct user *user, bool user_is_forced)
{
    struct proxy *proxy = w->proxy;

    pthread_mutex_lock(&proxy->lock);
    struct pool_common *common = pool_common_get(proxy, db, user, user_is_forced);
    struct pool_part *part = &common->parts[w->index];
    struct pool *p = part->pool;
    if (p == NULL) {
        p = mem_alloc(sizeof(*p));
        p->worker = w;
        p->db = db;
        p->user = user;
        p->user_is_forced = user_is_forced;
        p->common = common;
        list_init(&p->idle);
        list_init(&p->departing);
        list_init(&p->active);
        list_init(&p->busy);
        list_init(&p->listening);
        list_init(&p->listeners);
        list_init(&p->opening);
        list_init(&p->clients);
        list_init(&p->waiting);
        list_init(&p->login_waiting);
        list_init(&p->replications);
        list_init(&p->cancels);
        list_init(&p->cancels_queued);
        text_init(&p->welcome);
        list_append(&db->pools, &p->database_node);
        list_append(&w->pools, &p->worker_node);
        part->letter.deliver = deliver_call;
        part->pool = p;
    }
    pthread_mutex_unlock(&proxy->lock);
    return p;
}

void pool_free(struct pool *p)
{
    struct pool_common *common = p->common;
    bool last = true;

    timer_unset(&p->worker->timers, &p->retry_timer);
    listeners_end(p);
    pthread_mutex_lock(&p->worker->proxy->lock);
    list_remove(&p->db->pools, &p->database_node);
    stats_add(&p->db->past_stats, &p->stats);
    part_of(p)->pool = NULL;
    for (int i = 0; i < common->n_parts; i++)
        last = last && common->parts[i].pool == NULL;
    if (last)
        pool_common_free(common);
    pthread_mutex_unlock(&p->worker->proxy->lock);
    list_remove(&p->worker->pools, &p->worker_node);
    params_clear(&p->parameters);
    params_clear(&p->last_params);
    settings_unref(p->last_startup);
    settings_unref(p->last_settings);
    credentials_clear(&p->credentials);
    text_free(&p->welcome);
    free(p);
}

enum pool_mode pool_mode_of(const struct pool *p)
{
    if (p->db->entry == NULL)
        return config_of(p)->pool_mode;
    return config_pool_mode(config_of(p), p->db->entry, p->user->entry);
}

int pool_server_count(const struct pool *p)
{
    return p->common->servers;
}

bool pool_fails_fast(const struct pool *p, struct text *why)
{
    struct pool_common *c = p->common;

    if ((!c->login_failed && !c->connect_failed) || c->servers > 0 ||
        p->worker->now_us >= c->retry_at_us)
        return false;
    pthread_mutex_lock(&p->worker->proxy->lock);
    text_put_str(why, text_str(&c->error));
    pthread_mutex_unlock(&p->worker->proxy->lock);
    return why->len > 0;
}

void pool_add_client(struct pool *p, struct client *c)
{
    list_append(&p->clients, &c->pool_node);
    p->common->n_clients++;
}

/* ---- the parts of the others ------------------------------------------------------------ */

/* That worker is to look at its pool again. */
static void call(struct pool_part *part)
{
    struct pool *pool = part->pool;

    if (pool != NULL && !atomic_exchange(&part->called, true))
        worker_post(pool->worker, &part->letter);
}

/* The others who need a server may be able to open one now. */
static void call_needy(struct pool *p)
{
    struct pool_common *c = p->common;

    for (int i = 0; i < c->n_parts; i++)
        if (i != p->worker->index && c->parts[i].need > 0)
            call(&c->parts[i]);
}

/* What the worker's own pools need is looked at here, that of others by them. */
static void serve_part(struct pool *p, struct pool_part *part)
{
    struct pool *pool = part->pool;

    if (pool != NULL && pool->worker == p->worker)
        pool_serve(pool);
    else
        call(part);
}

static void set(struct pool *p, atomic_int *at, int value)
{
    if (atomic_load_explicit(at, memory_order_relaxed) != value)
        atomic_store_explicit(at, value,
                              p->common->n_parts > 1 ? memory_order_seq_cst : memory_order_relaxed);
}

static struct client *first_of(const struct list *l)
{
    struct list_node *n = list_first(l);

    return n == NULL ? NULL : LIST_ITEM(n, struct client, wait_node);
}

static struct client *first_waiting(struct pool *p)
{
    return first_of(&p->waiting);
}

static struct client *first_login_waiting(struct pool *p)
{
    return first_of(&p->login_waiting);
}

static struct client *older(struct client *a, struct client *b)
{
    return a == NULL || (b != NULL && b->waiting_since_us < a->waiting_since_us) ? b : a;
}

/* Who has waited longest for a server that others may have too. */
static struct client *first_sharing(struct pool *p)
{
    return older(first_waiting(p), first_login_waiting(p));
}

/* How many of those have nothing under way: a probe or a reset will serve one. */
static int sharing_need(const struct pool *p)
{
    return (int)(p->waiting.count + p->login_waiting.count - p->opening.count) -
           ((int)p->busy.count - p->n_draining);
}

/* An idle server that may be used, by the configured end of the list. NULL: none. */
static struct server *take_idle(struct pool *p)
{
    bool oldest_first = config_of(p)->server_round_robin;
    struct list_node *n = oldest_first ? p->idle.head.next : p->idle.head.prev;

    for (; n != &p->idle.head; n = oldest_first ? n->next : n->prev) {
        struct server *s = LIST_ITEM(n, struct server, pool_node);
        if (s->cancels == 0)
            return s;
    }
    return NULL;
}

static struct server *longest_idle(struct pool *p)
{
    LIST_FOREACH(&p->idle, n)
    {
        struct server *s = LIST_ITEM(n, struct server, pool_node);
        if (s->cancels == 0)
            return s;
    }
    return NULL;
}

/* Tells the others what this pool has and needs. What they have is to be looked at afterwards. */
static void publish(struct pool *p)
{
    struct pool_part *part = part_of(p);
    struct client *first = older(first_sharing(p), first_of(&p->replications));
    struct server *oldest = longest_idle(p);
    int waiting = (int)p->waiting.count;
    int more = waiting - atomic_load_explicit(&part->waiting, memory_order_relaxed);

    if (first != NULL)
        atomic_store_explicit(&part->since_us, first->waiting_since_us, memory_order_relaxed);
    if (oldest != NULL)
        atomic_store_explicit(&part->idle_since_us, oldest->used_at_us, memory_order_relaxed);
    atomic_store_explicit(&part->busy, p->active.count > 0, memory_order_relaxed);
    set(p, &part->need, sharing_need(p) + (int)p->replications.count);
    set(p, &part->waiting, waiting);
    if (more != 0)
        atomic_fetch_add(&p->common->waiting, more);
    set(p, &part->idle, oldest != NULL ? (int)p->idle.count : 0);
}

/* The part whose waiter is to be served before c (NULL: before nobody). NULL: c it is. */
static struct pool_part *elder(struct pool *p, const struct client *c)
{
    struct pool_common *common = p->common;
    struct pool_part *found = NULL;
    uint64_t found_us = UINT64_MAX;

    if (common->n_parts == 1 ||
        common->waiting <= atomic_load_explicit(&part_of(p)->waiting, memory_order_relaxed))
        return NULL;
    for (int i = 0; i < common->n_parts; i++) {
        struct pool_part *part = &common->parts[i];
        int incoming = part->incoming;
        uint64_t since = part->since_us;
        if (i == p->worker->index || part->waiting <= incoming || since >= found_us)
            continue;
        if (part->busy && since + PATIENCE_US > p->worker->now_us)
            continue;
        /* With one on its way, its next waiter is younger than `since` tells. */
        if (c != NULL && (incoming > 0 || since + ELDER_US >= c->waiting_since_us))
            continue;
        found = part;
        found_us = since;
    }
    return found;
}

/* The part with most idle servers. */
static struct pool_part *richest(struct pool *p)
{
    struct pool_common *common = p->common;
    struct pool_part *found = NULL;
    int most = 0;

    for (int i = 0; i < common->n_parts; i++) {
        struct pool_part *part = &common->parts[i];
        int idle = part->idle;
        if (i != p->worker->index && idle > most) {
            found = part;
            most = idle;
        }
    }
    return found;
}

/* ---- the queue -------------------------------------------------------------------------- */

void pool_leave_queue(struct pool *p, struct client *c)
{
    if (!list_node_is_linked(&c->wait_node))
        return;
    list_remove(c->replication != REPLICATION_NONE ? &p->replications
                : c->state == CLIENT_LOGIN_WAIT    ? &p->login_waiting
                                                   : &p->waiting,
                &c->wait_node);
    if (!p->serving)
        publish(p);
}

void pool_remove_client(struct pool *p, struct client *c)
{
    pool_leave_queue(p, c);
    if (list_node_is_linked(&c->pool_node)) {
        list_remove(&p->clients, &c->pool_node);
        p->common->n_clients--;
    }
}

void pool_checkout(struct pool *p, struct client *c)
{
    client_on_queued(c);
    list_append(&p->waiting, &c->wait_node);
    pool_serve(p);
}

static bool needs_test(const struct pool *p, const struct server *s)
{
    const struct config *conf = config_of(p);

    return conf->server_check_query[0] != '\0' &&
           p->worker->now_us - s->used_at_us >= (uint64_t)conf->server_check_delay_us && !s->tested;
}

static void on_retry(struct timer *t)
{
    pool_serve((struct pool *)(void *)((char *)t - offsetof(struct pool, retry_timer)));
}

static void serve_later(struct pool *p, uint64_t at_us)
{
    if (!timer_is_set(&p->retry_timer) || p->retry_timer.at_us > at_us)
        timer_set(&p->worker->timers, &p->retry_timer, at_us, on_retry);
}

/* ---- opening ---------------------------------------------------------------------------- */

static void give_back(struct pool *p, bool was_opening)
{
    struct pool_common *to;
    struct pool_part *part =
        pool_common_give_back(p->worker->proxy, p->common, was_opening, p->worker->now_us, &to);

    if (part != NULL)
        serve_part(p, part);
}

/* Makes room under a limit that pools share. */
static void evict(struct pool *p, bool of_user)
{
    struct pool_common *of;
    struct pool_part *part = pool_common_find_idle(p->worker->proxy, p->common, of_user, &of);
    struct pool *pool = part != NULL ? part->pool : NULL;

    if (pool == NULL)
        return;
    if (pool->worker != p->worker) {
        part->evict = true;
        call(part);
        return;
    }
    struct server *s = longest_idle(pool);
    if (s != NULL)
        server_close(s, "evicted");
}

/* Why not now, if time alone will change it. */
static void try_later(struct pool *p)
{
    const struct config *conf = config_of(p);
    struct pool_common *c = p->common;
    struct pool_part *part = part_of(p);
    int size = config_pool_size(conf, p->db->entry, p->user->entry);
    int reserve = config_reserve_pool_size(conf, p->db->entry, p->user->entry);

    if ((c->login_failed || c->connect_failed) && p->worker->now_us < c->retry_at_us)
        serve_later(p, c->retry_at_us);
    else if (size > 0 && c->servers >= size && c->servers < size + reserve &&
             part->since_us + (uint64_t)conf->reserve_pool_timeout_us > p->worker->now_us)
        serve_later(p, part->since_us + (uint64_t)conf->reserve_pool_timeout_us);
}

static void open_one(struct pool *p, enum pool_open how, struct client *replication)
{
    struct client *c = replication != NULL ? replication : first_sharing(p);

    if (how == POOL_OPEN_RESERVE && c != NULL)
        client_log(c, LEVEL_LOG, "taking connection from reserve_pool");
    server_open(p, how == POOL_OPEN_RESERVE, replication);
    publish(p);
}

/* The pool is full, and what is idle in it is of no use to a replication connection. */
static void evict_own(struct pool *p)
{
    struct server *s = longest_idle(p);
    struct pool_part *rich = s == NULL ? richest(p) : NULL;

    if (s != NULL) {
        server_close(s, "evicted");
    } else if (rich != NULL) {
        rich->evict = true;
        call(rich);
    }
}

static void return_grants(struct pool *p)
{
    struct pool_part *part = part_of(p);

    while (part->granted > 0 &&
           (part->need <= 0 || p->db->entry == NULL || proxy_is_paused(p->worker->proxy, p->db)) &&
           pool_common_drop_grant(p->worker->proxy, part))
        give_back(p, true);
}

/* The longest waiter here may yet have one of the worker's own servers: then the pool looks again
 * when its patience is over. */
static bool be_patient(struct pool *p)
{
    struct client *c = first_waiting(p);

    if (p->common->n_parts == 1 || c == NULL || list_is_empty(&p->active) ||
        c->waiting_since_us + PATIENCE_US <= p->worker->now_us)
        return false;
    serve_later(p, c->waiting_since_us + PATIENCE_US);
    return true;
}

static void open_more(struct pool *p)
{
    struct proxy *proxy = p->worker->proxy;
    struct pool_part *part = part_of(p);

    return_grants(p);
    while (p->db->entry != NULL && !proxy->giving_away) {
        bool shares = sharing_need(p) - part->incoming > 0;
        struct client *replication = first_of(&p->replications);
        if (!shares && replication == NULL)
            return;
        if (shares && replication != NULL && older(replication, first_sharing(p)) != replication)
            replication = NULL;
        struct pool_part *rich =
            replication == NULL && p->waiting.count > 0 && part->granted == 0 ? richest(p) : NULL;
        if (rich != NULL) {
            if (be_patient(p))
                return;
            rich->asked = true;
            call(rich);
            return;
        }
        enum pool_open how =
            pool_common_take(proxy, p->common, part, p->worker->now_us,
                             replication != NULL ? POOL_WANTS_REPLICATION : POOL_WANTS_SERVER);
        switch (how) {
        case POOL_OPEN_NOT:
            try_later(p);
            be_patient(p);
            if (replication != NULL && !proxy_is_paused(proxy, p->db) &&
                pool_common_is_full(proxy, p->common))
                evict_own(p);
            return;
        case POOL_OPEN_EVICT_DB:
        case POOL_OPEN_EVICT_USER:
            evict(p, how == POOL_OPEN_EVICT_USER);
            return;
        case POOL_OPEN:
        case POOL_OPEN_RESERVE:
            open_one(p, how, replication);
            break;
        }
    }
}

/* The connection goes to another worker as it is. */
static void give(struct pool *p, struct server *s, struct pool_part *to)
{
    struct pool *pool = to->pool;

    to->incoming++;
    server_send(s, pool);
    (void)p;
}

void pool_serve(struct pool *p)
{
    struct client *c;
    struct server *s;
    struct pool_part *part;
    bool open = !proxy_is_paused(p->worker->proxy, p->db);

    /* Opening, linking and closing come back here: the outermost call does the work. */
    if (p->serving) {
        p->serve_again = true;
        return;
    }
    p->serving = true;
    do {
        p->serve_again = false;
        pool_sync_parameters(p);
        while (open && p->has_parameters && (c = first_login_waiting(p)) != NULL)
            client_on_parameters(c);
        while (open && p->has_parameters && (s = take_idle(p)) != NULL) {
            c = first_waiting(p);
            if ((part = elder(p, c)) != NULL) {
                give(p, s, part);
            } else if (c == NULL) {
                break;
            } else if (needs_test(p, s)) {
                server_test(s);
            } else {
                pool_leave_queue(p, c);
                server_link(s, c);
            }
        }
        publish(p);
        /* Somebody may have begun to wait before he could see that this one is idle. */
        if (open && p->has_parameters && take_idle(p) != NULL && elder(p, first_waiting(p)) != NULL)
            p->serve_again = true;
        else
            open_more(p);
    } while (p->serve_again);
    p->serving = false;
    if (open)
        listeners_serve(p);
}

static void deliver_call(struct worker *w, struct letter *l)
{
    struct pool_part *part =
        (struct pool_part *)(void *)((char *)l - offsetof(struct pool_part, letter));
    struct pool *p = part->pool;

    part->called = false;
    bool asked = atomic_exchange(&part->asked, false);
    bool evicts = atomic_exchange(&part->evict, false);
    struct server *s = evicts ? longest_idle(p) : NULL;
    (void)w;
    if (s != NULL && list_is_empty(&p->waiting))
        server_close(s, "evicted");
    pool_serve(p);
    /* Who asked for an idle server that is gone opens one. */
    if (asked && part->idle == 0)
        call_needy(p);
}

void pool_on_server_arrived(struct pool *p, struct server *s)
{
    part_of(p)->incoming--;
    pool_on_server_ready(p, s);
}

void pool_on_server_kept(struct pool *p)
{
    struct pool_part *part = part_of(p);

    part->incoming--;
    call(part);
}

/* ---- from the server -------------------------------------------------------------------- */

void pool_sync_parameters(struct pool *p)
{
    struct pool_common *c = p->common;

    if (c->learned == p->learned)
        return;
    pthread_mutex_lock(&p->worker->proxy->lock);
    p->learned = c->learned;
    p->server_version = c->server_version;
    text_clear(&p->welcome);
    text_put_str(&p->welcome, text_str(&c->welcome));
    params_copy(&p->parameters, &c->parameters);
    pthread_mutex_unlock(&p->worker->proxy->lock);
    p->has_parameters = true;
}

void pool_learn_parameters(struct pool *p, struct server *s)
{
    struct proxy *proxy = p->worker->proxy;
    struct pool_common *c = p->common;
    int most = proxy->config->server_connect_parallel;

    pthread_mutex_lock(&proxy->lock);
    c->login_failed = c->connect_failed = false;
    text_clear(&c->error);
    c->parallel = c->parallel * 2 < most ? c->parallel * 2 : most;
    c->server_version = s->server_version;
    text_clear(&c->welcome);
    text_put_str(&c->welcome, text_str(&s->welcome));
    params_unify(&s->params, &c->parameters);
    params_copy(&c->parameters, &s->params);
    c->learned++;
    pthread_mutex_unlock(&proxy->lock);
    text_free(&s->welcome);
    pool_sync_parameters(p);
}

void pool_on_login_over(struct pool *p)
{
    pool_common_end_opening(p->worker->proxy, p->common);
    call_needy(p);
}

static uint64_t lifetime_age(const struct pool *p, const struct server *s)
{
    return p->worker->now_us - s->connected_at_us;
}

/* Its age is over and it is its turn. */
static bool lifetime_over(struct pool *p, const struct server *s)
{
    uint64_t age = lifetime_age(p, s);

    if (p->db->entry != NULL) {
        int64_t lifetime = config_server_lifetime_us(config_of(p), p->db->entry);
        if (lifetime > 0 && age < (uint64_t)lifetime)
            return false;
    }
    return pool_common_take_lifetime_turn(p->worker->proxy, p->common, p->worker->now_us, age);
}

/* A free server under a limit that pools share may be worth more to another pool. */
static bool sibling_comes_first(struct pool *p)
{
    struct pool_common *c = p->common;
    uint64_t own = UINT64_MAX;

    if (p->db->entry == NULL || !pool_common_limit_reached(p->worker->proxy, c))
        return false;
    publish(p);
    for (int i = 0; i < c->n_parts; i++)
        if (c->parts[i].waiting > 0 && c->parts[i].since_us < own)
            own = c->parts[i].since_us;
    uint64_t sibling = pool_common_longest_sibling(p->worker->proxy, c, p->worker->now_us);
    return sibling != UINT64_MAX && (own == UINT64_MAX || sibling + SIBLING_US < own);
}

void pool_on_server_ready(struct pool *p, struct server *s)
{
    struct proxy *proxy = p->worker->proxy;

    if (s->retire)
        server_close(s, s->retire_reason);
    else if (proxy_is_paused(proxy, p->db) || proxy->shutdown == SHUTDOWN_WAIT_FOR_SERVERS)
        server_close(s, "server pause");
    else if (s->used && s->cancels == 0 && lifetime_over(p, s))
        server_close(s, "server lifetime over");
    else if (s->cancels == 0 && sibling_comes_first(p))
        server_close(s, "evicted");
    else
        pool_serve(p);
}

/* ---- a failed login --------------------------------------------------------------------- */

struct failure_letter {
    struct letter letter; /* first */
    struct pool_part *part;
    bool all; /* who wait for a server too, not only for a login */
    struct text message;
    struct text frame;
};

static void fail_waiting(struct pool *p, bool all, struct str frame, const char *message)
{
    struct client *c;

    while ((c = first_login_waiting(p)) != NULL) {
        pool_leave_queue(p, c);
        client_on_server_lost(c, message, frame);
    }
    while (all && (c = first_waiting(p)) != NULL) {
        pool_leave_queue(p, c);
        client_on_server_lost(c, message, frame);
    }
}

static void deliver_failure(struct worker *w, struct letter *l)
{
    struct failure_letter *f = (struct failure_letter *)(void *)l;

    (void)w;
    fail_waiting(f->part->pool, f->all, text_str(&f->frame), text_str(&f->message).ptr);
    text_free(&f->frame);
    text_free(&f->message);
    free(f);
}

/* The next attempts of many pools that failed together do not come together. */
static uint64_t retry_after_us(struct pool *p)
{
    uint64_t retry = (uint64_t)config_of(p)->server_login_retry_us;
    uint16_t random;

    p->worker->ops->random(p->worker->io, &random, sizeof(random));
    return retry - retry / 10 * random / UINT16_MAX;
}

void pool_on_host_failed(struct pool *p, struct server *s)
{
    struct client *c = s->client;

    if (c == NULL)
        return;
    s->client = NULL;
    c->server = NULL;
    list_prepend(&p->replications, &c->wait_node);
}

void pool_on_login_failed(struct pool *p, struct server *s, bool connected, struct str frame,
                          struct str message)
{
    struct proxy *proxy = p->worker->proxy;
    struct pool_common *c = p->common;
    struct client *own = s->client;

    if (s->replication != REPLICATION_NONE && connected) {
        /* What keeps a replication connection out need not keep others out. */
        s->client = NULL;
        own->server = NULL;
        client_on_server_lost(own, message.ptr, frame);
        return;
    }
    pool_on_host_failed(p, s);
    pthread_mutex_lock(&proxy->lock);
    c->connect_failed = !connected;
    c->login_failed = connected;
    c->retry_at_us = p->worker->now_us + retry_after_us(p);
    c->parallel = 1;
    text_clear(&c->error);
    text_put_str(&c->error, message);
    bool all = c->servers <= 1;
    pthread_mutex_unlock(&proxy->lock);
    /* A server that is starting up will come; those who wait may wait. */
    if (frame.len > 0 && str_find(frame, (struct str){ "C57P03", 7 }) >= 0)
        return;
    if (frame.len == 0 && !connected)
        return;
    for (int i = 0; i < c->n_parts; i++) {
        struct pool_part *part = &c->parts[i];
        struct pool *pool = part->pool;
        if (pool == NULL || pool == p)
            continue;
        struct failure_letter *f = mem_alloc(sizeof(*f));
        f->letter.deliver = deliver_failure;
        f->part = part;
        f->all = all;
        text_init(&f->message);
        text_put_str(&f->message, message);
        text_init(&f->frame);
        text_put_str(&f->frame, frame);
        worker_post(pool->worker, &f->letter);
    }
    fail_waiting(p, all, frame, message.ptr);
}

void pool_on_server_closed(struct pool *p, bool was_opening)
{
    give_back(p, was_opening);
    pool_serve(p);
    proxy_on_gone(p->worker->proxy);
}

void pool_retire_servers(struct pool *p, const char *reason)
{
    struct list *lists[] = { &p->active, &p->busy, &p->opening, &p->departing };
    struct list_node *n;

    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
        LIST_FOREACH(lists[i], ln)
        {
            server_retire(LIST_ITEM(ln, struct server, pool_node), reason);
        }
    }
    while ((n = list_first(&p->idle)) != NULL)
        server_close(LIST_ITEM(n, struct server, pool_node), reason);
    listeners_close(p, reason);
}

/* ---- upkeep ----------------------------------------------------------------------------- */

static int servers_to_keep(const struct pool *p)
{
    return p->db->entry != NULL && (p->common->n_clients > 0 || p->user_is_forced)
               ? config_min_pool_size(config_of(p), p->db->entry)
               : 0;
}

void pool_upkeep(struct pool *p)
{
    const struct config *conf = config_of(p);
    uint64_t now = p->worker->now_us;
    int keep = servers_to_keep(p);

    LIST_FOREACH(&p->idle, n)
    {
        struct server *s = LIST_ITEM(n, struct server, pool_node);
        if (s->cancels > 0)
            continue;
        bool idle = conf->server_idle_timeout_us > 0 &&
                    now - s->used_at_us >= (uint64_t)conf->server_idle_timeout_us &&
                    p->common->servers > keep;
        bool old = !idle && p->db->entry != NULL &&
                   config_server_lifetime_us(conf, p->db->entry) > 0 && lifetime_over(p, s);
        if (old || idle) {
            /* Closing may serve others and change this list. */
            server_close(s, old ? "server lifetime over" : "server idle timeout");
            break;
        }
    }
    pool_serve(p);
    if (p->common->servers < keep) {
        enum pool_open how =
            pool_common_take(p->worker->proxy, p->common, part_of(p), now, POOL_WANTS_MINIMUM);
        if (how == POOL_OPEN)
            open_one(p, how, NULL);
    }
}
