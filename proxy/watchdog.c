#include "proxy/watchdog.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>

#include "base/arena.h"

struct beat {
    struct letter letter; /* first */
    atomic_bool under_way;
};

struct watchdog {
    struct proxy *proxy;
    uint64_t tick_us;
    struct timer timer; /* of worker 0 */
    struct beat beats[WORKERS_MAX];
};

static void beat_arrives(struct worker *w, struct letter *l)
{
    struct beat *b = (struct beat *)(void *)l;

    (void)w;
    atomic_store(&b->under_way, false);
}

static void on_tick(struct timer *t)
{
    struct watchdog *d = (struct watchdog *)(void *)((char *)t - offsetof(struct watchdog, timer));
    struct proxy *p = d->proxy;
    struct worker *w = p->workers[0];
    bool all = true;

    for (int i = 1; i < p->n_workers; i++) {
        struct beat *b = &d->beats[i];
        if (atomic_load(&b->under_way)) {
            all = false;
        } else {
            atomic_store(&b->under_way, true);
            worker_post(p->workers[i], &b->letter);
        }
    }
    if (all)
        w->ops->notify(w->io, "WATCHDOG=1");
    timer_set(&w->timers, t, w->now_us + d->tick_us, on_tick);
}

struct watchdog *watchdog_new(struct proxy *p, uint64_t interval_us)
{
    struct watchdog *d = mem_alloc(sizeof(*d));
    struct worker *w = p->workers[0];

    d->proxy = p;
    /* A tick may find that the letters of the one before were not read yet: three fit in. */
    d->tick_us = interval_us / 4 > 0 ? interval_us / 4 : 1;
    for (int i = 0; i < WORKERS_MAX; i++)
        d->beats[i].letter.deliver = beat_arrives;
    timer_set(&w->timers, &d->timer, w->now_us, on_tick);
    return d;
}

void watchdog_free(struct watchdog *d)
{
    free(d);
}
