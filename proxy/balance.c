#include "proxy/balance.h"

#include <limits.h>
#include <stddef.h>

#include "proxy/client.h"
#include "proxy/proxy.h"

#define TICK_US 100000
#define MEASURED_TICKS 3 /* a measurement is believed for so long */
#define QUIET 10         /* thousandths: not worth another measurement */
/* A worker is not needed when it was so for so many measurements in a row: what it does and what
 * another does are together 5/8 of what fills one, far from where clients would be given away. */
#define LIGHT_TICKS 10
#define LIGHT_NUM 5
#define LIGHT_DEN 8

/* Thousandths of a processor; 0: clients are spread evenly. */
static int full(const struct proxy *p)
{
    return p->config->worker_fill_percent * 10;
}

static bool is_on(const struct worker *w)
{
    return w->proxy->n_workers > 1 && full(w->proxy) > 0 && w->ops->cpu_us != NULL;
}

static int busy_of(struct worker *w, uint64_t now_us)
{
    return now_us < w->balance.until ? w->balance.busy : 0;
}

/* Who takes part in what there is to do. */
static unsigned count_active(const struct worker *w, uint64_t since_us)
{
    unsigned n = 0;

    LIST_FOREACH(&w->clients, node)
    {
        const struct client *c = LIST_ITEM(node, struct client, worker_node);
        n += c->state == CLIENT_ACTIVE || c->state == CLIENT_WAITING || c->quiet_at_us >= since_us;
    }
    return n;
}

static void share(struct worker *w, int busy, uint64_t since_us)
{
    struct proxy *p = w->proxy;
    struct worker *least = NULL;
    int least_busy = busy - full(p) / 4; /* less of a difference is not evened out */

    for (int i = 0; i < p->n_workers; i++) {
        int other = busy_of(p->workers[i], w->now_us);
        if (p->workers[i] == w || other >= least_busy)
            continue;
        least = p->workers[i];
        least_busy = other;
    }
    if (least == NULL)
        return;
    unsigned active = count_active(w, since_us);
    if (active < 2)
        return; /* one client has one thread at most */
    unsigned n = active * (unsigned)(busy - least_busy) / 2 / (unsigned)busy;
    w->balance.give = n > 0 ? n : 1;
    w->balance.give_to = least;
}

/* The first of those before it that could do this beside its own; so the last ones empty. */
static struct worker *room_elsewhere(struct worker *w, int busy)
{
    struct proxy *p = w->proxy;

    for (int i = 0; i < w->index; i++)
        if (busy_of(p->workers[i], w->now_us) + busy <= full(p) * LIGHT_NUM / LIGHT_DEN)
            return p->workers[i];
    return NULL;
}

static void on_tick(struct timer *t)
{
    struct balance *b = (struct balance *)(void *)((char *)t - offsetof(struct balance, timer));
    struct worker *w = (struct worker *)(void *)((char *)b - offsetof(struct worker, balance));
    uint64_t cpu = w->ops->cpu_us(w), since = b->at_us;
    int busy = (int)((cpu - b->cpu_us) * 1000 / (w->now_us - since));
    struct worker *room;

    b->cpu_us = cpu;
    b->at_us = w->now_us;
    b->busy = busy;
    b->until = w->now_us + MEASURED_TICKS * TICK_US;
    b->give = 0;
    if (!is_on(w) || busy < QUIET) {
        b->light = 0;
        return;
    }
    timer_set(&w->timers, t, w->now_us + TICK_US, on_tick);
    if (busy > full(w->proxy)) {
        b->light = 0;
        share(w, busy, since);
    } else if ((room = room_elsewhere(w, busy)) == NULL) {
        b->light = 0;
    } else if (++b->light >= LIGHT_TICKS) {
        b->give = UINT_MAX;
        b->give_to = room;
    }
}

void balance_watch(struct worker *w)
{
    struct balance *b = &w->balance;

    if (timer_is_set(&b->timer) || !is_on(w))
        return;
    b->cpu_us = w->ops->cpu_us(w);
    b->at_us = w->now_us;
    timer_set(&w->timers, &b->timer, w->now_us + TICK_US, on_tick);
}

struct worker *balance_place(struct proxy *p)
{
    struct worker *least = p->workers[0];

    for (int i = 0; i < p->n_workers; i++) {
        struct worker *w = p->workers[i];
        if (is_on(w) && busy_of(w, p->workers[0]->now_us) <= full(p))
            return w;
        if (w->load < least->load)
            least = w;
    }
    return least;
}

void balance_on_idle(struct client *c)
{
    struct balance *b = &c->conn.worker->balance;

    if (b->give > 0 && client_migrate(c, b->give_to))
        b->give--;
}
