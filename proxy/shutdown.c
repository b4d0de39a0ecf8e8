#include "proxy/shutdown.h"

#include <inttypes.h>
#include <signal.h>
#include <stddef.h>

#include "proxy/client.h"
#include "proxy/pool.h"
#include "proxy/server.h"

/* Between two looks whether all is flushed. */
#define SUSPEND_LOOK_US 5000

int shutdown_clients_left(const struct proxy *p)
{
    int n = 0;

    for (int i = 0; i < p->n_workers; i++)
        LIST_FOREACH(&p->workers[i]->clients, node)
        {
            const struct client *c = LIST_ITEM(node, struct client, worker_node);
            n += c->state != CLIENT_CONSOLE && !client_is_inner(c);
        }
    return n;
}

static bool has_servers(const struct proxy *p)
{
    for (int i = 0; i < p->n_workers; i++)
        if (!list_is_empty(&p->workers[i]->servers))
            return true;
    return false;
}

/* ---- the end ---------------------------------------------------------------------------- */

static void stop(struct proxy *p)
{
    struct worker *w = p->workers[0];

    if (p->ending)
        return;
    p->ending = true;
    w->ops->notify(w->io, "STOPPING=1");
    w->ops->stop(w->io);
}

static void fail_waiting(struct client *c, void *arg)
{
    (void)arg;
    if (c->state == CLIENT_WAITING || c->state == CLIENT_LOGIN_WAIT)
        client_fail(c, "57P01", "server shutting down");
}

static void retire_all(struct proxy *p, const char *reason)
{
    LIST_FOREACH(&p->database_list, dn)
    {
        struct database *db = LIST_ITEM(dn, struct database, list_node);
        LIST_FOREACH(&db->pools, pn)
        pool_retire_servers(LIST_ITEM(pn, struct pool, database_node), reason);
    }
}

void shutdown_begin(struct proxy *p, enum shutdown_mode mode)
{
    struct worker *w = p->workers[0];

    if (mode == SHUTDOWN_NOW || p->shutdown == SHUTDOWN_NOW) {
        p->shutdown = SHUTDOWN_NOW;
        stop(p);
        return;
    }
    p->shutdown = mode;
    proxy_update_watches(p);
    w->ops->notify(w->io, "STOPPING=1");
    w->ops->listen_stop(w->io, true, false);
    if (mode == SHUTDOWN_WAIT_FOR_SERVERS) {
        p->paused = true;
        proxy_each_client(p, fail_waiting, NULL);
        retire_all(p, "server shutting down");
    } else if (mode == SHUTDOWN_WAIT_FOR_TRANSACTIONS) {
        shutdown_drain(p);
    }
    proxy_on_gone(p);
}

void shutdown_look(struct proxy *p)
{
    if (p->suspended && p->n_admin_clients == 0) {
        log_line(p->log, LEVEL_LOG, "admin disappeared when suspended, doing RESUME");
        proxy_resume(p, NULL);
    }
    if ((p->shutdown == SHUTDOWN_WAIT_FOR_CLIENTS ||
         p->shutdown == SHUTDOWN_WAIT_FOR_TRANSACTIONS) &&
        shutdown_clients_left(p) == 0)
        stop(p);
    else if (p->shutdown == SHUTDOWN_WAIT_FOR_SERVERS && !has_servers(p))
        stop(p);
}

/* ---- sending clients away --------------------------------------------------------------- */

static void end_now(struct client *c, void *arg)
{
    (void)arg;
    if (c->state != CLIENT_CONSOLE && !client_is_inner(c))
        client_fail(c, "57P01", "terminating connection due to administrator command");
}

static void on_drain_timeout(struct timer *t)
{
    struct proxy *p = (struct proxy *)(void *)((char *)t - offsetof(struct proxy, drain_timer));

    proxy_halt_workers(p);
    log_line(p->log, LEVEL_WARNING, "drain_timeout: %d clients are left, closing them",
             shutdown_clients_left(p));
    proxy_each_client(p, end_now, NULL);
    proxy_on_gone(p);
    proxy_release_workers(p);
}

static void end_at_boundary(struct client *c, void *arg)
{
    (void)arg;
    client_end_at_boundary(c);
}

void shutdown_drain(struct proxy *p)
{
    struct worker *w = p->workers[0];

    p->draining = true;
    if (p->config->drain_timeout_us > 0)
        timer_set(&w->timers, &p->drain_timer, w->now_us + (uint64_t)p->config->drain_timeout_us,
                  on_drain_timeout);
    proxy_each_client(p, end_at_boundary, NULL);
}

/* ---- standing still --------------------------------------------------------------------- */

static void stop_client(struct client *c, void *arg)
{
    (void)arg;
    if (c->state != CLIENT_CONSOLE)
        conn_stop(&c->conn, true);
}

static void stop_server(struct server *s, void *arg)
{
    (void)arg;
    if (s->state != SERVER_CONNECTING && s->state != SERVER_LOGIN && !s->lent)
        conn_stop(&s->conn, true);
}

static void start_client(struct client *c, void *arg)
{
    (void)arg;
    conn_stop(&c->conn, false);
}

static void start_server(struct server *s, void *arg)
{
    (void)arg;
    conn_stop(&s->conn, false);
}

static bool client_is_still(const struct client *c)
{
    return c->state == CLIENT_CONSOLE || (bytequeue_len(&c->conn.out) == 0 && c->lend == NULL);
}

static bool server_is_still(const struct server *s)
{
    return s->state == SERVER_CONNECTING || s->state == SERVER_LOGIN ||
           (bytequeue_len(&s->conn.out) == 0 && !s->lent);
}

bool shutdown_suspend_is_done(const struct proxy *p)
{
    for (int i = 0; i < p->n_workers; i++) {
        LIST_FOREACH(&p->workers[i]->clients, n)
        if (!client_is_still(LIST_ITEM(n, struct client, worker_node)))
            return false;
        LIST_FOREACH(&p->workers[i]->servers, n)
        if (!server_is_still(LIST_ITEM(n, struct server, worker_node)))
            return false;
    }
    return true;
}

static void close_restless_client(struct client *c, void *arg)
{
    (void)arg;
    if (!client_is_still(c))
        client_close(c, "suspend_timeout");
}

static void close_restless_server(struct server *s, void *arg)
{
    (void)arg;
    if (!server_is_still(s) && s->client == NULL)
        server_close(s, "suspend_timeout");
    else if (!server_is_still(s))
        client_close(s->client, "suspend_timeout");
}

static void on_suspend_look(struct timer *t)
{
    struct proxy *p = (struct proxy *)(void *)((char *)t - offsetof(struct proxy, suspend_timer));
    struct worker *w = p->workers[0];

    proxy_halt_workers(p);
    if (p->config->suspend_timeout_us > 0 &&
        w->now_us - p->suspended_at_us >= (uint64_t)p->config->suspend_timeout_us) {
        proxy_each_client(p, close_restless_client, NULL);
        proxy_each_server(p, close_restless_server, NULL);
    }
    if (p->suspended && !shutdown_suspend_is_done(p))
        timer_set(&w->timers, t, w->now_us + SUSPEND_LOOK_US, on_suspend_look);
    proxy_on_gone(p);
    proxy_release_workers(p);
}

void shutdown_suspend(struct proxy *p)
{
    struct worker *w = p->workers[0];

    p->suspended = true;
    proxy_update_watches(p);
    p->suspended_at_us = w->now_us;
    w->ops->listen_pause(w->io, true);
    proxy_each_client(p, stop_client, NULL);
    proxy_each_server(p, stop_server, NULL);
    timer_set(&w->timers, &p->suspend_timer, w->now_us + SUSPEND_LOOK_US, on_suspend_look);
}

void shutdown_unsuspend(struct proxy *p)
{
    struct worker *w = p->workers[0];

    if (!p->suspended)
        return;
    p->suspended = false;
    proxy_update_watches(p);
    timer_unset(&w->timers, &p->suspend_timer);
    w->ops->listen_pause(w->io, false);
    proxy_each_client(p, start_client, NULL);
    proxy_each_server(p, start_server, NULL);
}

/* ---- signals ---------------------------------------------------------------------------- */

static void on_stop_signal(struct proxy *p, const char *name, enum shutdown_mode mode,
                           const char *what)
{
    if (p->shutdown != SHUTDOWN_NONE) {
        log_line(p->log, LEVEL_LOG, "got %s while shutting down, fast exit", name);
        mode = SHUTDOWN_NOW;
    } else {
        log_line(p->log, LEVEL_LOG, "got %s, %s", name, what);
    }
    shutdown_begin(p, mode);
}

static void on_term(struct proxy *p)
{
    static const char *const what[] = {
        [SHUTDOWN_NONE] = "",
        [SHUTDOWN_WAIT_FOR_CLIENTS] = "shutting down, waiting for all clients disconnect",
        [SHUTDOWN_WAIT_FOR_SERVERS] =
            "shutting down, waiting for all servers connections to be released",
        [SHUTDOWN_WAIT_FOR_TRANSACTIONS] = "shutting down, waiting for all transactions to end",
        [SHUTDOWN_NOW] = "fast exit",
    };
    enum shutdown_mode mode = p->config->shutdown_mode;

    on_stop_signal(p, "SIGTERM", mode, what[mode]);
}

void shutdown_on_signal(struct proxy *p, int sig)
{
    struct err e = { 0 };

    proxy_halt_workers(p);
    switch (sig) {
    case SIGHUP:
        log_line(p->log, LEVEL_LOG, "got SIGHUP, re-reading config");
        proxy_reload(p, &e);
        if (err_is_set(&e))
            log_line(p->log, LEVEL_ERROR, "%s", e.message);
        err_clear(&e);
        break;
    case SIGTERM:
        on_term(p);
        break;
    case SIGINT:
        on_stop_signal(p, "SIGINT", SHUTDOWN_WAIT_FOR_SERVERS,
                       "shutting down, waiting for all servers connections to be released");
        break;
    case SIGQUIT:
        log_line(p->log, LEVEL_LOG, "got SIGQUIT, fast exit");
        shutdown_begin(p, SHUTDOWN_NOW);
        break;
    case SIGUSR1:
        if (p->paused || p->suspended) {
            log_line(p->log, LEVEL_LOG, "got SIGUSR1, but already paused/suspended");
        } else {
            log_line(p->log, LEVEL_LOG, "got SIGUSR1, pausing all activity");
            proxy_pause(p, NULL);
        }
        break;
    case SIGUSR2:
        if (p->shutdown != SHUTDOWN_NONE) {
            log_line(p->log, LEVEL_LOG, "got SIGUSR2 while shutting down, ignoring");
        } else if (!p->paused && !p->suspended) {
            log_line(p->log, LEVEL_LOG, "got SIGUSR2, but not paused/suspended");
        } else {
            log_line(p->log, LEVEL_LOG, "got SIGUSR2, continuing from %s",
                     p->suspended ? "SUSPEND" : "PAUSE");
            proxy_resume(p, NULL);
        }
        break;
    default:
        break;
    }
    proxy_release_workers(p);
}
