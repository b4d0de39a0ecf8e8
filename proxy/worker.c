#include "proxy/worker.h"

#include <stdlib.h>

#include "base/arena.h"
#include "proxy/client.h"
#include "proxy/dns.h"
#include "proxy/server.h"

struct worker *worker_new(struct proxy *p, int index, const struct io_ops *ops, struct io *io,
                          uint64_t now_us, int64_t wall_us)
{
    struct worker *w = mem_alloc(sizeof(*w));

    w->proxy = p;
    w->index = index;
    w->ops = ops;
    w->io = io;
    w->now_us = now_us;
    w->wall_base_us = wall_us - (int64_t)now_us;
    pthread_mutex_init(&w->letters_lock, NULL);
    timers_init(&w->timers);
    list_init(&w->clients);
    list_init(&w->servers);
    list_init(&w->wakes);
    list_init(&w->sends);
    list_init(&w->dead);
    list_init(&w->views_waiting);
    list_init(&w->peer_requests);
    w->dns = dns_new(w);
    list_init(&w->leaving);
    list_init(&w->pools);
    list_init(&w->auth_lookups);
    for (int i = 0; i < LOGIN_LANES; i++)
        list_init(&w->login_lanes[i].waiting);
    return w;
}

void worker_free(struct worker *w)
{
    dns_free(w->dns);
    timers_free(&w->timers);
    bytequeue_free(&w->spare);
    pthread_mutex_destroy(&w->letters_lock);
    free(w);
}

uint64_t worker_next_timer(const struct worker *w)
{
    return timers_next(&w->timers);
}

void worker_run_timers(struct worker *w)
{
    timers_run(&w->timers, w->now_us);
}

/* ---- letters ---------------------------------------------------------------------------- */

void worker_post(struct worker *to, struct letter *l)
{
    l->next = NULL;
    pthread_mutex_lock(&to->letters_lock);
    bool first = to->letters_first == NULL;
    if (first)
        to->letters_first = l;
    else
        to->letters_last->next = l;
    to->letters_last = l;
    pthread_mutex_unlock(&to->letters_lock);
    if (first)
        to->ops->wake(to->io);
}

bool worker_run_letters(struct worker *w)
{
    pthread_mutex_lock(&w->letters_lock);
    struct letter *l = w->letters_first;
    w->letters_first = w->letters_last = NULL;
    pthread_mutex_unlock(&w->letters_lock);
    bool any = l != NULL;
    while (l != NULL) {
        struct letter *next = l->next;
        l->deliver(w, l);
        l = next;
    }
    return any;
}

/* ---- all of them ------------------------------------------------------------------------ */

/* Closing one may close another, so those that there were are noted first: what is closed stays
 * until worker_settle. */
void proxy_each_client(struct proxy *p, void (*what)(struct client *c, void *arg), void *arg)
{
    struct client **all;
    size_t n = 0;

    for (int i = 0; i < p->n_workers; i++)
        n += p->workers[i]->clients.count;
    all = mem_alloc((n + 1) * sizeof(struct client *));
    n = 0;
    for (int i = 0; i < p->n_workers; i++)
        LIST_FOREACH(&p->workers[i]->clients, node)
    all[n++] = LIST_ITEM(node, struct client, worker_node);
    for (size_t i = 0; i < n; i++)
        if (all[i]->state != CLIENT_CLOSED)
            what(all[i], arg);
    free(all);
}

void proxy_each_server(struct proxy *p, void (*what)(struct server *s, void *arg), void *arg)
{
    struct server **all;
    size_t n = 0;

    for (int i = 0; i < p->n_workers; i++)
        n += p->workers[i]->servers.count;
    all = mem_alloc((n + 1) * sizeof(struct server *));
    n = 0;
    for (int i = 0; i < p->n_workers; i++)
        LIST_FOREACH(&p->workers[i]->servers, node)
    all[n++] = LIST_ITEM(node, struct server, worker_node);
    for (size_t i = 0; i < n; i++)
        if (all[i]->state != SERVER_CLOSED)
            what(all[i], arg);
    free(all);
}

/* ---- the world stands still ------------------------------------------------------------- */

void proxy_deliver_letters(struct proxy *p)
{
    for (bool any = true; any;) {
        any = false;
        for (int i = 0; i < p->n_workers; i++) {
            p->workers[i]->now_us = p->workers[0]->now_us;
            any = worker_run_letters(p->workers[i]) || any;
        }
    }
}

void proxy_halt_workers(struct proxy *p)
{
    if (p->halted++ > 0 || p->n_workers == 1)
        return;
    p->workers[0]->ops->halt(p->workers[0]->io);
    /* What is under way between workers arrives now: nothing is in two places, or in none. */
    proxy_deliver_letters(p);
}

void proxy_release_workers(struct proxy *p)
{
    if (--p->halted == 0 && p->n_workers > 1)
        p->workers[0]->ops->release(p->workers[0]->io);
}
