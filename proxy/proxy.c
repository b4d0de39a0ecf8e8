#include "proxy/proxy.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/arena.h"
#include "proxy/auth_rules.h"
#include "proxy/cancel.h"
#include "proxy/client.h"
#include "proxy/console_view.h"
#include "proxy/dns.h"
#include "proxy/pool.h"
#include "proxy/pool_common.h"
#include "proxy/server.h"
#include "proxy/session_state.h"
#include "proxy/shutdown.h"
#include "proxy/takeover.h"
#include "proxy/verifiers.h"
#include "proxy/view_service.h"
#include "proxy/waiting.h"
#include "proxy/worker.h"

#define UPKEEP_US 333000
#define USERS_MIN 1000

/* A console command that waits. */
struct admin_wait {
    struct list_node node;
    struct admin_session *session;
    struct client *client;
    enum admin_verb verb;
    struct database *db; /* NULL: all */
};

/* ---- names ------------------------------------------------------------------------------ */

void address_print(const struct address *a, char *out, size_t size)
{
    if (a->is_unix)
        snprintf(out, size, "unix(%d):%d", a->unix_pid, a->port);
    else if (a->host == NULL)
        snprintf(out, size, "?:%d", a->port);
    else if (strchr(a->host, ':') != NULL)
        snprintf(out, size, "[%s]:%d", a->host, a->port);
    else
        snprintf(out, size, "%s:%d", a->host, a->port);
}

bool proxy_is_own_uid(const struct address *peer)
{
    return peer->is_unix && peer->unix_uid == geteuid();
}

void proxy_log_conn(struct proxy *p, enum log_level level, char kind, const void *self,
                    const char *db, const char *user, const struct address *peer, const char *fmt,
                    ...)
{
    struct text t;
    char addr[300];
    va_list args;

    if (!log_wants(p->log, level))
        return;
    address_print(peer, addr, sizeof(addr));
    text_init(&t);
    va_start(args, fmt);
    text_vprintf(&t, fmt, args);
    va_end(args);
    log_line(p->log, level, "%c-%p: %s/%s@%s %s", kind, self, db != NULL ? db : "(nodb)",
             user != NULL ? user : "(nouser)", addr, t.ptr);
    text_free(&t);
}

struct user *proxy_user(struct proxy *p, struct str name)
{
    uint64_t hash = str_hash(name);

    pthread_mutex_lock(&p->lock);
    for (struct map_node *n = map_first(&p->users, hash); n != NULL; n = map_next_same(n)) {
        struct user *u = MAP_ITEM(n, struct user, node);
        if (str_equal(str_from(u->name), name)) {
            pthread_mutex_unlock(&p->lock);
            return u;
        }
    }
    struct user *u = mem_alloc(sizeof(*u));
    u->name = mem_alloc(name.len + 1);
    memcpy(u->name, name.ptr, name.len);
    u->entry = config_find_user(p->config, name);
    map_insert(&p->users, &u->node, hash);
    pthread_mutex_unlock(&p->lock);
    return u;
}

static void user_free(struct user *u)
{
    free(u->name);
    free(u);
}

int proxy_count_user_clients(struct proxy *p, struct str name)
{
    int count = 0;

    pthread_mutex_lock(&p->lock);
    for (struct map_node *n = map_first(&p->users, str_hash(name)); n != NULL;
         n = map_next_same(n)) {
        const struct user *u = MAP_ITEM(n, struct user, node);
        if (str_equal(str_from(u->name), name))
            count = u->n_clients;
    }
    pthread_mutex_unlock(&p->lock);
    return count;
}

/* Under the lock. */
static struct database *find_database(struct proxy *p, struct str name)
{
    for (struct map_node *n = map_first(&p->databases, str_hash(name)); n != NULL;
         n = map_next_same(n)) {
        struct database *db = MAP_ITEM(n, struct database, node);
        if (str_equal(str_from(db->name), name))
            return db;
    }
    return NULL;
}

struct database *proxy_find_database(struct proxy *p, struct str name)
{
    pthread_mutex_lock(&p->lock);
    struct database *db = find_database(p, name);
    pthread_mutex_unlock(&p->lock);
    return db;
}

static void set_entry(struct database *db, const struct config_database *entry)
{
    struct str dbname = config_server_dbname(entry, str_from(db->name));

    /* Without an old entry, or with other hosts, nothing is known of them. */
    if (db->entry == NULL || !config_database_same_server(db->entry, entry)) {
        hosts_init(&db->hosts, entry->n_hosts);
        db->only_3_0 = false;
    }
    db->entry = entry;
    free(db->server_dbname);
    db->server_dbname = mem_alloc(dbname.len + 1);
    memcpy(db->server_dbname, dbname.ptr, dbname.len);
}

static struct database *database(struct proxy *p, struct str name)
{
    struct database *db = find_database(p, name);
    bool is_auto = false;

    if (db != NULL)
        return db->entry != NULL ? db : NULL;
    const struct config_database *entry = config_route(p->config, name, &is_auto);
    if (entry == NULL)
        return NULL;
    db = mem_alloc(sizeof(*db));
    db->name = mem_alloc(name.len + 1);
    memcpy(db->name, name.ptr, name.len);
    db->is_auto = is_auto;
    list_init(&db->pools);
    list_init(&db->commons);
    stats_window_init(&db->window, (int64_t)p->stats_at_us);
    set_entry(db, entry);
    map_insert(&p->databases, &db->node, str_hash(name));
    list_append(&p->database_list, &db->list_node);
    if (is_auto)
        log_line(p->log, LEVEL_LOG, "registered new auto-database: %s", db->name);
    return db;
}

struct database *proxy_database(struct proxy *p, struct str name)
{
    pthread_mutex_lock(&p->lock);
    struct database *db = database(p, name);
    pthread_mutex_unlock(&p->lock);
    return db;
}

struct stats proxy_database_stats(const struct database *db)
{
    struct stats sum = db->past_stats;

    LIST_FOREACH(&db->pools, n)
    stats_add(&sum, &LIST_ITEM(n, struct pool, database_node)->stats);
    return sum;
}

static void database_free(struct proxy *p, struct database *db)
{
    struct list_node *n;

    while ((n = list_first(&db->pools)) != NULL)
        pool_free(LIST_ITEM(n, struct pool, database_node));
    map_remove(&p->databases, &db->node);
    list_remove(&p->database_list, &db->list_node);
    free(db->name);
    free(db->server_dbname);
    hosts_fini(&db->hosts);
    free(db);
}

void proxy_refresh_userlist(struct proxy *p)
{
    const char *path = p->config->auth_file;
    struct err e = { 0 };

    if (path[0] == '\0' || (p->userlist != NULL && !userlist_is_stale(p->userlist)))
        return;
    struct userlist *u = userlist_load(path, &e);
    if (u == NULL) {
        if (p->workers[0]->now_us - p->userlist_complained_us > 10000000 ||
            p->userlist_complained_us == 0)
            log_line(p->log, LEVEL_ERROR, "could not load auth_file: %s", e.message);
        p->userlist_complained_us = p->workers[0]->now_us;
        err_clear(&e);
        return;
    }
    proxy_halt_workers(p);
    userlist_unref(p->userlist);
    p->userlist = u;
    proxy_release_workers(p);
}

bool proxy_is_paused(const struct proxy *p, const struct database *db)
{
    return p->paused || db->paused;
}

/* ---- upkeep ----------------------------------------------------------------------------- */

/* What nobody uses. Its connections for cancel requests are looked at while workers are halted. */
static bool is_unused(const struct database *db)
{
    /* Those who wait for an auth_query are clients of a pool only. */
    LIST_FOREACH(&db->commons, n)
    if (LIST_ITEM(n, struct pool_common, database_node)->n_clients > 0)
        return false;
    return db->n_clients == 0 && db->n_servers == 0 && !db->paused && !db->disabled &&
           !db->views_installing;
}

static bool has_cancels(const struct database *db)
{
    LIST_FOREACH(&db->pools, n)
    {
        const struct pool *pool = LIST_ITEM(n, struct pool, database_node);
        if (!list_is_empty(&pool->cancels) || !list_is_empty(&pool->cancels_queued))
            return true;
    }
    return false;
}

static bool is_over(uint64_t *idle_since_us, bool unused, uint64_t now, int64_t timeout_us)
{
    if (!unused)
        *idle_since_us = 0;
    else if (*idle_since_us == 0)
        *idle_since_us = now;
    return unused && timeout_us >= 0 && now - *idle_since_us >= (uint64_t)timeout_us;
}

/* No server has let anybody into it, though it was tried. */
static bool was_never_reached(const struct database *db)
{
    LIST_FOREACH(&db->commons, n)
    if (LIST_ITEM(n, struct pool_common, database_node)->learned > 0)
        return false;
    return !list_is_empty(&db->commons);
}

/* How long it may be unused; -1: for ever. */
static int64_t database_timeout_us(const struct proxy *p, const struct database *db)
{
    if (db->entry == NULL)
        return 0;
    /* With auth_query in the client's own database anybody can name one, before he has proved who
     * he is: it is kept for as long as its failure is remembered. */
    if (db->is_auto && was_never_reached(db))
        return p->config->server_login_retry_us;
    return db->is_auto && p->config->autodb_idle_timeout_us > 0 ? p->config->autodb_idle_timeout_us
                                                                : -1;
}

static int64_t pool_timeout_us(const struct proxy *p)
{
    return p->config->pool_idle_timeout_us > 0 ? p->config->pool_idle_timeout_us : -1;
}

static bool pool_is_unused(const struct pool_common *c)
{
    return c->n_clients == 0 && c->servers == 0;
}

static void free_pools(struct proxy *p, struct database *db)
{
    LIST_FOREACH(&db->commons, n)
    {
        struct pool_common *c = LIST_ITEM(n, struct pool_common, database_node);
        if (!is_over(&c->idle_since_us, pool_is_unused(c), p->workers[0]->now_us,
                     pool_timeout_us(p)))
            continue;
        log_line(p->log, LEVEL_LOG, "cleaning up idle pool for user %s on db %s", c->user->name,
                 db->name);
        LIST_FOREACH(&db->pools, pn)
        {
            struct pool *pool = LIST_ITEM(pn, struct pool, database_node);
            if (pool->common == c)
                pool_free(pool);
        }
    }
}

/* Databases and pools that have not been used for long go, with all workers halted. */
static void upkeep(struct proxy *p)
{
    uint64_t now = p->workers[0]->now_us;
    bool any = false;

    pthread_mutex_lock(&p->lock);
    LIST_FOREACH(&p->database_list, dn)
    {
        struct database *db = LIST_ITEM(dn, struct database, list_node);
        if (is_over(&db->idle_since_us, is_unused(db), now, database_timeout_us(p, db)))
            any = true;
        LIST_FOREACH(&db->commons, cn)
        {
            struct pool_common *c = LIST_ITEM(cn, struct pool_common, database_node);
            if (is_over(&c->idle_since_us, pool_is_unused(c), now, pool_timeout_us(p)))
                any = true;
        }
    }
    pthread_mutex_unlock(&p->lock);
    if (!any)
        return;
    proxy_halt_workers(p);
    LIST_FOREACH(&p->database_list, dn)
    {
        struct database *db = LIST_ITEM(dn, struct database, list_node);
        if (has_cancels(db))
            continue;
        if (is_over(&db->idle_since_us, is_unused(db), now, database_timeout_us(p, db)))
            database_free(p, db);
        else
            free_pools(p, db);
    }
    proxy_release_workers(p);
}

static bool user_is_needed(const struct proxy *p, const struct user *u)
{
    if (u->n_clients > 0 || u->n_servers > 0 || u->entry != NULL)
        return true;
    LIST_FOREACH(&p->database_list, dn)
    {
        const struct database *db = LIST_ITEM(dn, struct database, list_node);
        LIST_FOREACH(&db->commons, cn)
        if (LIST_ITEM(cn, struct pool_common, database_node)->user == u)
            return true;
    }
    return false;
}

/* Under auth_type = any a client may call itself what it likes: names that nobody uses any more are
 * forgotten when there are twice as many as were left last time. */
static void forget_users(struct proxy *p)
{
    pthread_mutex_lock(&p->lock);
    bool many = p->users.count > 2 * p->users_kept + USERS_MIN;
    pthread_mutex_unlock(&p->lock);
    if (!many)
        return;
    proxy_halt_workers(p);
    for (size_t i = 0; i < p->users.n_buckets; i++) {
        struct map_node *next;
        for (struct map_node *n = p->users.buckets[i]; n != NULL; n = next) {
            struct user *u = MAP_ITEM(n, struct user, node);
            next = n->next;
            if (!user_is_needed(p, u)) {
                map_remove(&p->users, n);
                user_free(u);
            }
        }
    }
    p->users_kept = p->users.count;
    proxy_release_workers(p);
}

/* Each worker sees to its pools, worker 0 to the rest. */
static void on_upkeep(struct timer *t)
{
    struct worker *w = (struct worker *)(void *)((char *)t - offsetof(struct worker, upkeep_timer));

    LIST_FOREACH(&w->pools, n)
    pool_upkeep(LIST_ITEM(n, struct pool, worker_node));
    dns_upkeep(w);
    if (w->index == 0) {
        proxy_refresh_userlist(w->proxy);
        upkeep(w->proxy);
        forget_users(w->proxy);
    }
    timer_set(&w->timers, t, w->now_us + UPKEEP_US, on_upkeep);
}

/* For `systemctl status`. */
static void notify_status(struct proxy *p, const struct stats *average)
{
    struct worker *w = p->workers[0];
    char text[128];
    size_t servers = 0;

    for (int i = 0; i < p->n_workers; i++)
        servers += p->workers[i]->servers.count;
    snprintf(text, sizeof(text),
             "STATUS=%d clients, %zu server connections, %" PRIu64 " transactions/s",
             (int)p->n_clients, servers, average->xacts);
    w->ops->notify(w->io, text);
}

static void on_stats(struct timer *t)
{
    struct worker *w = (struct worker *)(void *)((char *)t - offsetof(struct worker, stats_timer));
    struct proxy *p = w->proxy;
    struct stats total = { 0 };
    int64_t now = (int64_t)w->now_us;

    proxy_halt_workers(p);
    p->stats_at_us = w->now_us;
    LIST_FOREACH(&p->database_list, n)
    {
        struct database *db = LIST_ITEM(n, struct database, list_node);
        struct stats sum = proxy_database_stats(db);
        stats_window_roll(&db->window, &sum, now);
        struct stats average = stats_window_average(&db->window);
        stats_add(&total, &average);
    }
    stats_window_roll(&p->admin_window, &p->admin_stats, now);
    notify_status(p, &total);
    proxy_release_workers(p);
    if (p->config->log_stats)
        log_line(p->log, LEVEL_LOG,
                 "stats: %" PRIu64 " xacts/s, %" PRIu64 " queries/s, %" PRIu64
                 " client parses/s, %" PRIu64 " server parses/s, %" PRIu64 " binds/s, in %" PRIu64
                 " B/s, out %" PRIu64 " B/s, xact %" PRIu64 " us, query %" PRIu64
                 " us, wait %" PRIu64 " us",
                 total.xacts, total.queries, total.client_parses, total.server_parses, total.binds,
                 total.client_bytes, total.server_bytes, total.xact_us, total.query_us,
                 total.wait_us);
    timer_set(&w->timers, t,
              w->now_us + (uint64_t)(p->config->stats_period_us > 0 ? p->config->stats_period_us
                                                                    : 60000000),
              on_stats);
}

/* ---- configuration ---------------------------------------------------------------------- */

bool proxy_configure_log(struct log *log, const struct config *config, bool quiet, int verbose,
                         struct err *e)
{
    struct log_options o = {
        .file = config->logfile,
        .to_stderr = !quiet,
        .to_syslog = config->syslog,
        .syslog_ident = config->syslog_ident,
        .syslog_facility = config->syslog_facility,
        .verbose = config->verbose > verbose ? config->verbose : verbose,
    };

    return log == NULL || log_configure(log, &o, e);
}

bool proxy_set_logging(struct proxy *p, struct err *e)
{
    return proxy_configure_log(p->log, p->config, p->quiet, p->verbose, e);
}

/* db NULL: of all databases but the console. */
static void remove_client(struct client *c, void *db)
{
    if (c->db != NULL && (db == NULL || c->db == db))
        client_fail(c, "08P01", "database removed");
}

static void remove_database(struct proxy *p, struct database *db)
{
    proxy_each_client(p, remove_client, db);
    LIST_FOREACH(&db->pools, pn)
    pool_retire_servers(LIST_ITEM(pn, struct pool, database_node), "database removed");
    db->entry = NULL;
}

/* The contexts that `config` asks for take the place of those in use. */
static bool replace_tls(struct proxy *p, const struct config *config, struct err *e)
{
    const struct io_ops *ops = p->workers[0]->ops;
    struct tls_context *clients, *servers;

    if (!ops->tls_load(config, &clients, &servers, e))
        return false;
    ops->tls_unref(p->client_tls);
    ops->tls_unref(p->server_tls);
    p->client_tls = clients;
    p->server_tls = servers;
    return true;
}

bool proxy_load_tls(struct proxy *p, struct err *e)
{
    return replace_tls(p, p->config, e);
}

void proxy_apply_config(struct proxy *p, struct config *config)
{
    struct config *old = p->config;
    bool same_tls = config_same_server_tls(old, config);

    p->config = config;
    for (size_t i = 0; i < p->users.n_buckets; i++)
        for (struct map_node *n = p->users.buckets[i]; n != NULL; n = n->next) {
            struct user *u = MAP_ITEM(n, struct user, node);
            u->entry = config_find_user(config, str_from(u->name));
        }
    LIST_FOREACH(&p->database_list, dn)
    {
        struct database *db = LIST_ITEM(dn, struct database, list_node);
        const struct config_database *before = db->entry;
        bool was_auto = db->is_auto;
        const struct config_database *entry =
            config_route(config, str_from(db->name), &db->is_auto);
        /* A name whose entry is gone may be served by "*" from now on; its clients were promised
         * another place. */
        if (before != NULL && (entry == NULL || (db->is_auto && !was_auto)))
            remove_database(p, db);
        if (entry == NULL)
            continue;
        set_entry(db, entry);
        if (before != NULL && !(same_tls && config_database_same_server(before, entry))) {
            db->views_installed = false;
            LIST_FOREACH(&db->pools, pn)
            pool_retire_servers(LIST_ITEM(pn, struct pool, database_node),
                                "database configuration changed");
        }
    }
    p->workers[0]->ops->configured(p->workers[0]->io);
    config_unref(old);
    EACH_WORKER(p, worker)
    LIST_FOREACH(&worker->clients, n)
    {
        struct client *c = LIST_ITEM(n, struct client, worker_node);
        if (c->state != CLIENT_CLOSED)
            client_update_timer(c);
    }
    if (p->views != NULL)
        view_service_configure(p->views, p->config, p->userlist);
}

/* sd_notify(3): a reload that is told of must also say when it began. */
static void notify_reloading(struct proxy *p)
{
    struct worker *w = p->workers[0];
    char text[64];

    snprintf(text, sizeof(text), "RELOADING=1\nMONOTONIC_USEC=%" PRIu64, w->now_us);
    w->ops->notify(w->io, text);
}

void proxy_reload(struct proxy *p, struct err *e)
{
    struct worker *w = p->workers[0];
    struct err log_error = { 0 };

    notify_reloading(p);
    struct config *fresh = config_reload(p->config, e);
    if (fresh != NULL && !replace_tls(p, fresh, e)) {
        log_line(p->log, LEVEL_ERROR,
                 "TLS configuration could not be reloaded, keeping old configuration");
        config_unref(fresh);
        fresh = NULL;
    }
    if (fresh != NULL) {
        log_line(p->log, LEVEL_LOG, "RELOAD: %s", fresh->path);
        proxy_refresh_userlist(p);
        proxy_apply_config(p, fresh);
        proxy_halt_workers(p);
        auth_rules_load(p, e);
        proxy_release_workers(p);
    }
    /* A log that was rotated is opened anew whatever the file says. */
    if (!proxy_set_logging(p, &log_error) && !err_is_set(e))
        err_move(e, &log_error);
    err_clear(&log_error);
    if (fresh != NULL) {
        config_warn(p->config, p->log);
        proxy_refresh_userlist(p);
    }
    w->ops->notify(w->io, "READY=1");
}

/* ---- commands --------------------------------------------------------------------------- */

static void each_pool(struct proxy *p, struct database *only,
                      void (*what)(struct pool *pool, const char *reason), const char *reason)
{
    LIST_FOREACH(&p->database_list, dn)
    {
        struct database *db = LIST_ITEM(dn, struct database, list_node);
        if (only != NULL && db != only)
            continue;
        LIST_FOREACH(&db->pools, pn)
        what(LIST_ITEM(pn, struct pool, database_node), reason);
    }
}

static void serve(struct pool *pool, const char *reason)
{
    (void)reason;
    pool_serve(pool);
}

void proxy_pause(struct proxy *p, struct database *db)
{
    if (db != NULL)
        db->paused = true;
    else
        p->paused = true;
    each_pool(p, db, pool_retire_servers, "server pause");
    proxy_on_gone(p);
}

void proxy_resume(struct proxy *p, struct database *db)
{
    if (db != NULL) {
        db->paused = false;
    } else {
        p->paused = false;
        shutdown_unsuspend(p);
    }
    each_pool(p, db, serve, NULL);
    EACH_WORKER(p, worker)
    LIST_FOREACH(&worker->clients, n)
    {
        struct client *c = LIST_ITEM(n, struct client, worker_node);
        conn_wake(&c->conn);
    }
}

void proxy_reconnect(struct proxy *p, struct database *db)
{
    each_pool(p, db, pool_retire_servers, "database configuration changed");
}

void proxy_kill(struct proxy *p, struct database *db)
{
    if (db != NULL)
        db->paused = true;
    else
        p->paused = true;
    proxy_each_client(p, remove_client, db);
    each_pool(p, db, pool_retire_servers, "database removed");
}

bool proxy_is_pausing_done(const struct proxy *p, const struct database *db)
{
    EACH_WORKER(p, worker)
    LIST_FOREACH(&worker->servers, n)
    {
        const struct server *s = LIST_ITEM(n, struct server, worker_node);
        if (db == NULL || s->pool->db == db)
            return false;
    }
    return true;
}

bool proxy_is_close_done(const struct proxy *p, const struct database *db)
{
    EACH_WORKER(p, worker)
    LIST_FOREACH(&worker->servers, n)
    {
        const struct server *s = LIST_ITEM(n, struct server, worker_node);
        if (s->retire && (db == NULL || s->pool->db == db))
            return false;
    }
    return true;
}

void proxy_update_watches(struct proxy *p)
{
    p->watches = p->shutdown != SHUTDOWN_NONE || p->suspended || !list_is_empty(&p->admin_waits);
}

int proxy_count_clients(const struct proxy *p)
{
    int n = 0;

    EACH_WORKER(p, w)
    n += (int)w->clients.count;
    return n;
}

int proxy_count_servers(const struct proxy *p)
{
    int n = 0;

    EACH_WORKER(p, w)
    n += (int)w->servers.count;
    return n;
}

static bool wait_is_over(const struct proxy *p, const struct admin_wait *wait)
{
    switch (wait->verb) {
    case ADMIN_PAUSE:
        return proxy_is_pausing_done(p, wait->db);
    case ADMIN_WAIT_CLOSE:
        return proxy_is_close_done(p, wait->db);
    case ADMIN_TAKEOVER:
        return takeover_is_packed(p);
    case ADMIN_SUSPEND:
        return !p->suspended || shutdown_suspend_is_done(p);
    case ADMIN_RESUME:
    case ADMIN_RECONNECT:
    case ADMIN_KILL:
    case ADMIN_DISABLE:
    case ADMIN_ENABLE:
    case ADMIN_KILL_CLIENT:
    case ADMIN_RELOAD:
    case ADMIN_SHUTDOWN:
    case ADMIN_SHUTDOWN_WAIT_FOR_SERVERS:
    case ADMIN_SHUTDOWN_WAIT_FOR_CLIENTS:
    case ADMIN_SHUTDOWN_WAIT_FOR_TRANSACTIONS:
    case ADMIN_TAKEOVER_DONE:
    case ADMIN_SET:
        break;
    }
    return true;
}

static void complete_wait(struct proxy *p, struct admin_wait *wait, const struct err *e)
{
    list_remove(&p->admin_waits, &wait->node);
    proxy_update_watches(p);
    admin_complete(wait->session, e, &wait->client->conn.out);
    conn_flush(&wait->client->conn);
    conn_wake(&wait->client->conn);
    free(wait);
}

/* What waited until something is gone. On worker 0. */
static void on_gone(struct worker *w0, struct letter *l)
{
    struct proxy *p = w0->proxy;

    (void)l;
    p->gone_posted = false;
    proxy_halt_workers(p);
    LIST_FOREACH(&p->admin_waits, n)
    {
        struct admin_wait *wait = LIST_ITEM(n, struct admin_wait, node);
        if (!wait_is_over(p, wait))
            continue;
        if (wait->verb == ADMIN_TAKEOVER)
            takeover_answer(p);
        complete_wait(p, wait, NULL);
    }
    shutdown_look(p);
    proxy_release_workers(p);
}

void proxy_on_gone(struct proxy *p)
{
    if (p->watches && !atomic_exchange(&p->gone_posted, true))
        worker_post(p->workers[0], &p->gone_letter);
}

static struct admin_wait *find_wait(struct proxy *p, const struct admin_session *s)
{
    LIST_FOREACH(&p->admin_waits, n)
    {
        struct admin_wait *wait = LIST_ITEM(n, struct admin_wait, node);
        if (wait->session == s)
            return wait;
    }
    return NULL;
}

void proxy_drop_admin_wait(struct proxy *p, const struct admin_session *s)
{
    struct admin_wait *wait = find_wait(p, s);

    if (wait != NULL) {
        list_remove(&p->admin_waits, &wait->node);
        proxy_update_watches(p);
        free(wait);
    }
}

void proxy_cancel_admin_wait(struct proxy *p, const struct admin_session *s)
{
    struct err e = { 0 };

    proxy_halt_workers(p);
    struct admin_wait *wait = find_wait(p, s);
    if (wait != NULL) {
        if (wait->verb == ADMIN_TAKEOVER)
            takeover_on_gone(p, wait->client);
        if (wait->verb == ADMIN_PAUSE || wait->verb == ADMIN_SUSPEND)
            proxy_resume(p, wait->db);
        err_set(&e, ERR_SERVER, "57014", "canceling statement due to user request");
        complete_wait(p, wait, &e);
        err_clear(&e);
    }
    proxy_release_workers(p);
}

/* ---- what the console asks for ---------------------------------------------------------- */

static struct client *client_of_session(struct proxy *p, const struct admin_session *s)
{
    EACH_WORKER(p, worker)
    LIST_FOREACH(&worker->clients, n)
    {
        struct client *c = LIST_ITEM(n, struct client, worker_node);
        if (client_has(c)->admin == s)
            return c;
    }
    return NULL;
}

static enum admin_result wait_for(struct proxy *p, struct admin_session *session,
                                  enum admin_verb verb, struct database *db)
{
    struct admin_wait probe = { .verb = verb, .db = db };

    if (wait_is_over(p, &probe))
        return ADMIN_DONE;
    struct admin_wait *wait = mem_alloc(sizeof(*wait));
    wait->session = session;
    wait->client = client_of_session(p, session);
    wait->verb = verb;
    wait->db = db;
    list_append(&p->admin_waits, &wait->node);
    proxy_update_watches(p);
    return ADMIN_WAITS;
}

/* Neither paused nor suspended as a whole. */
static bool is_undisturbed(const struct proxy *p, struct err *e)
{
    return (!p->paused && !p->suspended) ||
           err_set(e, ERR_REFUSAL, "08P01", "already suspended/paused");
}

static enum admin_result view_perform(void *core, struct admin_session *session,
                                      const struct admin_command *command, struct err *e)
{
    struct proxy *p = core;
    struct database *db = NULL;

    if (command->database.ptr != NULL) {
        /* A name that only "*" would serve exists when it was used. */
        db = proxy_find_database(p, command->database);
        if (db == NULL && config_find_database(p->config, command->database) != NULL)
            db = proxy_database(p, command->database);
        if (db == NULL) {
            err_set(e, ERR_REFUSAL, "08P01", "no such database: " STR_FMT,
                    STR_ARG(command->database));
            return ADMIN_FAILED;
        }
    }
    switch (command->verb) {
    case ADMIN_PAUSE:
        if (!is_undisturbed(p, e))
            return ADMIN_FAILED;
        proxy_pause(p, db);
        return wait_for(p, session, ADMIN_PAUSE, db);
    case ADMIN_RESUME:
        if (p->shutdown != SHUTDOWN_NONE)
            err_set(e, ERR_REFUSAL, "08P01", "pooler is shutting down");
        else if (db != NULL && !db->paused)
            err_set(e, ERR_REFUSAL, "08P01", "database %s is not paused", db->name);
        else if (db == NULL && !p->paused && !p->suspended)
            err_set(e, ERR_REFUSAL, "08P01", "pooler is not paused/suspended");
        if (err_is_set(e))
            return ADMIN_FAILED;
        proxy_resume(p, db);
        return ADMIN_DONE;
    case ADMIN_RECONNECT:
        proxy_reconnect(p, db);
        return ADMIN_DONE;
    case ADMIN_KILL:
        if (!is_undisturbed(p, e))
            return ADMIN_FAILED;
        proxy_kill(p, db);
        return ADMIN_DONE;
    case ADMIN_WAIT_CLOSE:
        return wait_for(p, session, ADMIN_WAIT_CLOSE, db);
    case ADMIN_DISABLE:
        assert(db != NULL); /* the grammar of the command has it */
        db->disabled = true;
        return ADMIN_DONE;
    case ADMIN_ENABLE:
        assert(db != NULL);
        db->disabled = false;
        return ADMIN_DONE;
    case ADMIN_SUSPEND:
        if (!is_undisturbed(p, e))
            return ADMIN_FAILED;
        LIST_FOREACH(&p->database_list, n)
        if (LIST_ITEM(n, struct database, list_node)->paused)
            err_set(e, ERR_REFUSAL, "08P01", "cannot suspend with paused databases");
        if (err_is_set(e))
            return ADMIN_FAILED;
        shutdown_suspend(p);
        return wait_for(p, session, ADMIN_SUSPEND, NULL);
    case ADMIN_KILL_CLIENT: {
        EACH_WORKER(p, worker)
        LIST_FOREACH(&worker->clients, n)
        {
            struct client *c = LIST_ITEM(n, struct client, worker_node);
            if (c->id == command->id) {
                client_fail(c, "57P01", "admin forced disconnect");
                return ADMIN_DONE;
            }
        }
        err_set(e, ERR_REFUSAL, "08P01", "client not found");
        return ADMIN_FAILED;
    }
    case ADMIN_RELOAD: {
        struct err why = { 0 };
        proxy_reload(p, &why);
        if (!err_is_set(&why))
            return ADMIN_DONE;
        log_line(p->log, LEVEL_ERROR, "RELOAD failed: %s", why.message);
        err_set(e, ERR_CONFIG, "F0000", "RELOAD failed, see logs for additional details");
        err_clear(&why);
        return ADMIN_FAILED;
    }
    case ADMIN_TAKEOVER:
        if (!takeover_begin(p, client_of_session(p, session), e))
            return ADMIN_FAILED;
        return wait_for(p, session, ADMIN_TAKEOVER, NULL);
    case ADMIN_TAKEOVER_DONE:
        return takeover_commit(p, client_of_session(p, session), e) ? ADMIN_DONE : ADMIN_FAILED;
    case ADMIN_SHUTDOWN:
        shutdown_begin(p, SHUTDOWN_NOW);
        return ADMIN_CLOSES;
    case ADMIN_SHUTDOWN_WAIT_FOR_SERVERS:
        shutdown_begin(p, SHUTDOWN_WAIT_FOR_SERVERS);
        return ADMIN_DONE;
    case ADMIN_SHUTDOWN_WAIT_FOR_CLIENTS:
        shutdown_begin(p, SHUTDOWN_WAIT_FOR_CLIENTS);
        return ADMIN_DONE;
    case ADMIN_SHUTDOWN_WAIT_FOR_TRANSACTIONS:
        shutdown_begin(p, SHUTDOWN_WAIT_FOR_TRANSACTIONS);
        return ADMIN_DONE;
    case ADMIN_SET: {
        struct config *fresh = config_set(p->config, command->key, command->value, e);
        if (fresh == NULL)
            return ADMIN_FAILED;
        if (str_find(command->key, STR("_tls")) >= 0 && !replace_tls(p, fresh, e)) {
            err_prefix(e, "TLS settings could not be applied, still using old configuration");
            config_unref(fresh);
            return ADMIN_FAILED;
        }
        bool other_rules = strcmp(p->config->auth_hba_file, fresh->auth_hba_file) != 0 ||
                           strcmp(p->config->auth_ident_file, fresh->auth_ident_file) != 0;
        proxy_apply_config(p, fresh);
        if (other_rules && !auth_rules_load(p, e))
            return ADMIN_FAILED;
        return proxy_set_logging(p, e) ? ADMIN_DONE : ADMIN_FAILED;
    }
    }
    return ADMIN_DONE;
}

/* ---- life ------------------------------------------------------------------------------- */

struct proxy *proxy_new(struct config *config, struct userlist *userlist, struct log *log,
                        struct view_service *views, const struct io_ops *ops, struct io *const *ios,
                        int n_workers, uint64_t now_us, int64_t wall_us)
{
    struct proxy *p = mem_alloc(sizeof(*p));

    p->config = config;
    p->userlist = userlist;
    p->log = log;
    p->views = views;
    pthread_mutex_init(&p->lock, NULL);
    p->stats_at_us = now_us;
    statement_table_init(&p->statements);
    params_names_init(&p->params_names, config->track_extra_parameters);
    map_init(&p->databases);
    list_init(&p->database_list);
    map_init(&p->users);
    map_init(&p->cancel_keys);
    shared_names_init(&p->peer_hosts);
    list_init(&p->admin_waits);
    p->gone_letter.deliver = on_gone;
    list_init(&p->peers);
    console_view_fill(&p->admin_view, p);
    p->admin_view.perform = view_perform;
    for (int i = 0; i < n_workers; i++)
        p->workers[i] = worker_new(p, i, ops, ios[i], now_us, wall_us);
    p->n_workers = n_workers;
    struct worker *w = p->workers[0];
    stats_window_init(&p->admin_window, (int64_t)now_us);
    ops->random(w->io, p->mock_key, sizeof(p->mock_key));
    ops->random(w->io, &p->cancel_secret, sizeof(p->cancel_secret));
    p->verifiers = verifiers_new(p->mock_key);
    EACH_WORKER(p, worker)
    timer_set(&worker->timers, &worker->upkeep_timer, now_us + UPKEEP_US, on_upkeep);
    timer_set(&w->timers, &w->stats_timer,
              now_us + (uint64_t)(config->stats_period_us > 0 ? config->stats_period_us : 60000000),
              on_stats);
    /* Entries with a forced user keep min_pool_size from the start. */
    for (size_t i = 0; i < config->n_databases; i++) {
        struct database *db = proxy_database(p, str_from(config->databases[i].name));
        if (db != NULL && db->entry->user != NULL && config_min_pool_size(config, db->entry) > 0)
            pool_get(w, db, proxy_user(p, str_from(db->entry->user)), true);
    }
    return p;
}

void proxy_close_all(struct proxy *p)
{
    struct list_node *n;

    p->paused = true;
    p->ending = true;
    proxy_deliver_letters(p);
    EACH_WORKER(p, w)
    {
        while ((n = list_first(&w->clients)) != NULL)
            client_close(LIST_ITEM(n, struct client, worker_node), "pooler is shutting down");
        LIST_FOREACH(&w->servers, sn)
        {
            struct server *s = LIST_ITEM(sn, struct server, worker_node);
            server_close(s, "server shutting down");
        }
    }
    LIST_FOREACH(&p->database_list, dn)
    {
        struct database *db = LIST_ITEM(dn, struct database, list_node);
        LIST_FOREACH(&db->pools, pn)
        cancel_close_all(LIST_ITEM(pn, struct pool, database_node));
    }
    EACH_WORKER(p, w)
    cancel_close_peers(w);
    proxy_deliver_letters(p);
    EACH_WORKER(p, w)
    worker_settle(w);
}

void proxy_free(struct proxy *p)
{
    struct list_node *n;
    struct map_node *m;

    proxy_close_all(p);
    while ((n = list_first(&p->database_list)) != NULL)
        database_free(p, LIST_ITEM(n, struct database, list_node));
    while ((m = map_any(&p->users)) != NULL) {
        map_remove(&p->users, m);
        user_free(MAP_ITEM(m, struct user, node));
    }
    map_free(&p->users);
    map_free(&p->databases);
    map_free(&p->cancel_keys);
    shared_names_fini(&p->peer_hosts);
    cancel_free_peers(p);
    takeover_free(p);
    params_names_free(&p->params_names);
    p->workers[0]->ops->tls_unref(p->client_tls);
    p->workers[0]->ops->tls_unref(p->server_tls);
    for (int i = 0; i < p->n_workers; i++)
        worker_free(p->workers[i]);
    statement_table_free(&p->statements);
    config_unref(p->config);
    userlist_unref(p->userlist);
    auth_rules_free(p);
    verifiers_free(p->verifiers);
    pthread_mutex_destroy(&p->lock);
    free(p);
}
