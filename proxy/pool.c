#include "proxy/pool.h"

#include <stdlib.h>

#include "base/arena.h"
#include "proxy/cancel.h"
#include "proxy/client.h"
#include "proxy/pool_policy.h"
#include "proxy/server.h"
#include "proxy/settings.h"

static const struct config *config_of(const struct pool *p)
{
    return p->worker->proxy->config;
}

struct pool *pool_get(struct worker *w, struct database *db, struct user *user, bool user_is_forced)
{
    pthread_mutex_lock(&w->proxy->lock);
    LIST_FOREACH(&db->pools, n)
    {
        struct pool *p = LIST_ITEM(n, struct pool, database_node);
        if (p->worker == w && p->user == user) {
            pthread_mutex_unlock(&w->proxy->lock);
            return p;
        }
    }
    struct pool *p = mem_alloc(sizeof(*p));
    p->worker = w;
    p->db = db;
    p->user = user;
    p->user_is_forced = user_is_forced;
    list_init(&p->idle);
    list_init(&p->active);
    list_init(&p->busy);
    list_init(&p->opening);
    list_init(&p->clients);
    list_init(&p->waiting);
    list_init(&p->login_waiting);
    list_init(&p->replications);
    list_init(&p->cancels);
    text_init(&p->welcome);
    text_init(&p->login_error_message);
    list_append(&db->pools, &p->database_node);
    pthread_mutex_unlock(&w->proxy->lock);
    return p;
}

void pool_free(struct pool *p)
{
    timer_unset(&p->worker->timers, &p->retry_timer);
    pthread_mutex_lock(&p->worker->proxy->lock);
    list_remove(&p->db->pools, &p->database_node);
    stats_add(&p->db->past_stats, &p->stats);
    pthread_mutex_unlock(&p->worker->proxy->lock);
    params_clear(&p->parameters);
    settings_unref(p->last_startup);
    settings_unref(p->last_settings);
    text_free(&p->welcome);
    text_free(&p->login_error_message);
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
    return (int)(p->idle.count + p->active.count + p->busy.count + p->opening.count);
}

bool pool_fails_fast(const struct pool *p)
{
    return (p->last_login_failed || p->last_connect_failed) && p->login_error_message.len > 0 &&
           pool_server_count(p) == 0 &&
           p->worker->now_us - p->failed_at_us < (uint64_t)config_of(p)->server_login_retry_us;
}

void pool_learn_parameters(struct pool *p, struct server *s)
{
    p->last_login_failed = p->last_connect_failed = false;
    text_clear(&p->login_error_message);
    p->server_version = s->server_version;
    text_clear(&p->welcome);
    text_put_str(&p->welcome, text_str(&s->welcome));
    text_free(&s->welcome);
    params_unify(&s->params, &p->parameters);
    params_copy(&p->parameters, &s->params);
    p->has_parameters = true;
}

/* ---- the queue -------------------------------------------------------------------------- */

void pool_leave_queue(struct pool *p, struct client *c)
{
    if (list_node_is_linked(&c->wait_node))
        list_remove(c->replication != REPLICATION_NONE ? &p->replications
                    : c->state == CLIENT_LOGIN_WAIT    ? &p->login_waiting
                                                       : &p->waiting,
                    &c->wait_node);
}

void pool_checkout(struct pool *p, struct client *c)
{
    client_on_queued(c);
    list_append(&p->waiting, &c->wait_node);
    pool_serve(p);
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

static bool needs_test(const struct pool *p, const struct server *s)
{
    const struct config *conf = config_of(p);

    return conf->server_check_query[0] != '\0' &&
           p->worker->now_us - s->used_at_us >= (uint64_t)conf->server_check_delay_us && !s->tested;
}

static struct client *first_waiting(struct pool *p)
{
    struct list_node *n = list_first(&p->waiting);

    return n == NULL ? NULL : LIST_ITEM(n, struct client, wait_node);
}

static struct client *first_login_waiting(struct pool *p)
{
    struct list_node *n = list_first(&p->login_waiting);

    return n == NULL ? NULL : LIST_ITEM(n, struct client, wait_node);
}

static struct client *first_replication(struct pool *p)
{
    struct list_node *n = list_first(&p->replications);

    return n == NULL ? NULL : LIST_ITEM(n, struct client, wait_node);
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

/* The longest idle server of another pool of the database (of the user, over all databases). */
static struct server *find_evictable(struct pool *p, bool of_user)
{
    struct server *found = NULL;

    LIST_FOREACH(&p->worker->proxy->database_list, dn)
    {
        struct database *db = LIST_ITEM(dn, struct database, list_node);
        if (!of_user && db != p->db)
            continue;
        LIST_FOREACH(&db->pools, pn)
        {
            struct pool *other = LIST_ITEM(pn, struct pool, database_node);
            if (other == p || (of_user && other->user != p->user) ||
                !list_is_empty(&other->waiting))
                continue;
            LIST_FOREACH(&other->idle, sn)
            {
                struct server *s = LIST_ITEM(sn, struct server, pool_node);
                if (found == NULL || s->used_at_us < found->used_at_us)
                    found = s;
            }
        }
    }
    return found;
}

static void open_more(struct pool *p)
{
    const struct config *conf = config_of(p);
    struct client *first = first_waiting(p);
    uint64_t now = p->worker->now_us;

    if (p->db->entry == NULL)
        return;
    if (first == NULL)
        first = first_login_waiting(p);
    int waiting = (int)(p->waiting.count + p->login_waiting.count);
    /* A probe or a reset that is under way will serve one. */
    struct pool_facts f = {
        .servers = pool_server_count(p),
        .opening = (int)p->opening.count,
        .waiting = waiting - (int)p->busy.count,
        .longest_wait_us = first != NULL ? (int64_t)(now - first->waiting_since_us) : 0,
        .pool_size = config_pool_size(conf, p->db->entry, p->user->entry),
        .reserve_size = config_reserve_pool_size(conf, p->db->entry, p->user->entry),
        .reserve_timeout_us = conf->reserve_pool_timeout_us,
        .db_servers = p->db->n_servers,
        .db_limit = config_max_db_connections(conf, p->db->entry),
        .user_servers = p->user->n_servers,
        .user_limit = config_max_user_connections(conf, p->user->entry),
        .paused = proxy_is_paused(p->worker->proxy, p->db),
        .failed = p->last_login_failed || p->last_connect_failed,
        .since_failure_us = (int64_t)(now - p->failed_at_us),
        .login_retry_us = conf->server_login_retry_us,
    };
    /* No server that is there, or on its way, is of use to a replication connection. */
    struct client *own = first_replication(p);
    if (own != NULL && (first == NULL || own->waiting_since_us < first->waiting_since_us)) {
        first = own;
        f.longest_wait_us = (int64_t)(now - own->waiting_since_us);
        f.waiting = 1;
        f.opening = 0;
    } else {
        own = NULL;
    }
    if (first == NULL) {
        if (f.servers >= config_min_pool_size(conf, p->db->entry) ||
            (list_is_empty(&p->clients) && !p->user_is_forced))
            return;
        f.waiting = f.opening + 1;
        f.reserve_size = 0;
    }
    enum pool_open how = pool_policy_open(&f);
    struct server *victim = NULL;

    switch (how) {
    case POOL_OPEN_NOT:
        if (f.failed && f.waiting > 0 && f.since_failure_us < f.login_retry_us)
            serve_later(p, p->failed_at_us + (uint64_t)f.login_retry_us);
        else if (first != NULL && f.pool_size > 0 && f.servers >= f.pool_size &&
                 f.servers < f.pool_size + f.reserve_size &&
                 f.longest_wait_us < f.reserve_timeout_us)
            serve_later(p, first->waiting_since_us + (uint64_t)f.reserve_timeout_us);
        if (own == NULL || f.paused || f.pool_size == 0 || f.servers < f.pool_size ||
            list_is_empty(&p->idle))
            return;
        server_close(LIST_ITEM(list_first(&p->idle), struct server, pool_node), "evicted");
        return; /* closing serves again */
    case POOL_OPEN_EVICT_DB:
    case POOL_OPEN_EVICT_USER:
        victim = find_evictable(p, how == POOL_OPEN_EVICT_USER);
        if (victim == NULL)
            return;
        server_close(victim, "evicted");
        break;
    case POOL_OPEN:
    case POOL_OPEN_RESERVE:
        break;
    }
    if (how == POOL_OPEN_RESERVE)
        proxy_log_conn(p->worker->proxy, LEVEL_LOG, 'C', first, p->db->name, p->user->name,
                       &first->conn.peer, "taking connection from reserve_pool");
    server_open(p, how == POOL_OPEN_RESERVE, own);
    if (own != NULL)
        p->serve_again = true; /* others may wait for one they can share */
}

void pool_serve(struct pool *p)
{
    struct client *c;
    struct server *s;
    bool paused = proxy_is_paused(p->worker->proxy, p->db);

    /* Opening, linking and closing come back here: the outermost call does the work. */
    if (p->serving) {
        p->serve_again = true;
        return;
    }
    p->serving = true;
    do {
        p->serve_again = false;
        if (!paused && p->has_parameters) {
            while ((c = first_login_waiting(p)) != NULL)
                client_on_parameters(c);
            while ((c = first_waiting(p)) != NULL && (s = take_idle(p)) != NULL) {
                if (needs_test(p, s)) {
                    server_test(s);
                    continue;
                }
                pool_leave_queue(p, c);
                server_link(s, c);
            }
        }
        open_more(p);
    } while (p->serve_again);
    p->serving = false;
}

/* ---- from the server -------------------------------------------------------------------- */

static bool lifetime_over(struct pool *p, const struct server *s)
{
    const struct config *conf = config_of(p);

    if (p->db->entry == NULL)
        return true;
    return pool_policy_lifetime_over((int64_t)(p->worker->now_us - s->connected_at_us),
                                     config_server_lifetime_us(conf, p->db->entry),
                                     config_pool_size(conf, p->db->entry, p->user->entry),
                                     (int64_t)(p->worker->now_us - p->last_lifetime_close_us));
}

/* A free server, or room for one, under a limit that pools share is of use to the others too. */
static void serve_siblings(struct pool *p)
{
    bool of_db = p->db->entry != NULL && config_max_db_connections(config_of(p), p->db->entry) > 0;
    bool of_user = config_max_user_connections(config_of(p), p->user->entry) > 0;

    if (!of_db && !of_user)
        return;
    LIST_FOREACH(&p->worker->proxy->database_list, dn)
    {
        struct database *db = LIST_ITEM(dn, struct database, list_node);
        LIST_FOREACH(&db->pools, n)
        {
            struct pool *other = LIST_ITEM(n, struct pool, database_node);
            if (other != p && ((of_db && db == p->db) || (of_user && other->user == p->user)) &&
                (!list_is_empty(&other->waiting) || !list_is_empty(&other->login_waiting)))
                pool_serve(other);
        }
    }
}

void pool_on_server_ready(struct pool *p, struct server *s)
{
    if (s->retire) {
        server_close(s, s->retire_reason);
        return;
    }
    if (proxy_is_paused(p->worker->proxy, p->db) ||
        p->worker->proxy->shutdown == SHUTDOWN_WAIT_FOR_SERVERS) {
        server_close(s, "server pause");
        return;
    }
    if (s->used && s->cancels == 0 && lifetime_over(p, s)) {
        p->last_lifetime_close_us = p->worker->now_us;
        server_close(s, "server lifetime over");
        return;
    }
    pool_serve(p);
    if (!list_is_empty(&p->idle))
        serve_siblings(p);
}

void pool_on_login_failed(struct pool *p, struct server *s, bool connected, struct str frame,
                          struct str message)
{
    struct client *c = s->client;

    if (s->replication != REPLICATION_NONE && connected) {
        /* What keeps a replication connection out need not keep others out. */
        s->client = NULL;
        c->server = NULL;
        client_on_server_lost(c, message.ptr, frame);
        return;
    }
    if (s->replication != REPLICATION_NONE) {
        s->client = NULL;
        c->server = NULL;
        list_prepend(&p->replications, &c->wait_node);
    }
    p->last_connect_failed = !connected;
    p->last_login_failed = connected;
    p->failed_at_us = p->worker->now_us;
    text_clear(&p->login_error_message);
    text_put_str(&p->login_error_message, message);
    /* A server that is starting up will come; those who wait may wait. */
    if (frame.len > 0 && str_find(frame, (struct str){ "C57P03", 7 }) >= 0)
        return;
    if (frame.len == 0 && !connected)
        return;
    while ((c = first_login_waiting(p)) != NULL) {
        pool_leave_queue(p, c);
        client_on_server_lost(c, message.ptr, frame);
    }
    if (pool_server_count(p) > 1)
        return;
    while ((c = first_waiting(p)) != NULL) {
        pool_leave_queue(p, c);
        client_on_server_lost(c, message.ptr, frame);
    }
}

void pool_on_server_closed(struct pool *p)
{
    pool_serve(p);
    serve_siblings(p);
    proxy_on_gone(p->worker->proxy);
}

void pool_retire_servers(struct pool *p, const char *reason)
{
    struct list *lists[] = { &p->active, &p->busy, &p->opening };
    struct list_node *n;

    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
        LIST_FOREACH(lists[i], ln)
        {
            struct server *s = LIST_ITEM(ln, struct server, pool_node);
            s->retire = true;
            s->retire_reason = reason;
            /* It would never be given back. */
            if (s->replication != REPLICATION_NONE)
                server_lose(s, reason);
        }
    }
    while ((n = list_first(&p->idle)) != NULL)
        server_close(LIST_ITEM(n, struct server, pool_node), reason);
}

void pool_upkeep(struct pool *p)
{
    const struct config *conf = config_of(p);
    uint64_t now = p->worker->now_us;
    int keep = p->db->entry != NULL && (!list_is_empty(&p->clients) || p->user_is_forced)
                   ? config_min_pool_size(conf, p->db->entry)
                   : 0;

    LIST_FOREACH(&p->idle, n)
    {
        struct server *s = LIST_ITEM(n, struct server, pool_node);
        if (s->cancels > 0)
            continue;
        bool old = p->db->entry != NULL && lifetime_over(p, s) &&
                   config_server_lifetime_us(conf, p->db->entry) > 0;
        bool idle = conf->server_idle_timeout_us > 0 &&
                    now - s->used_at_us >= (uint64_t)conf->server_idle_timeout_us &&
                    pool_server_count(p) > keep;
        if (old)
            p->last_lifetime_close_us = now;
        if (old || idle) {
            /* Closing may serve others and change this list. */
            server_close(s, old ? "server lifetime over" : "server idle timeout");
            break;
        }
    }
    pool_serve(p);
    if (!list_is_empty(&p->clients) || !list_is_empty(&p->cancels) || pool_server_count(p) > 0) {
        p->idle_since_us = 0;
    } else if (p->idle_since_us == 0) {
        p->idle_since_us = now;
    } else if (conf->pool_idle_timeout_us > 0 &&
               now - p->idle_since_us >= (uint64_t)conf->pool_idle_timeout_us) {
        log_line(p->worker->proxy->log, LEVEL_LOG, "cleaning up idle pool for user %s on db %s",
                 p->user->name, p->db->name);
        pool_free(p);
    }
}
