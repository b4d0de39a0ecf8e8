#include "proxy/timers.h"

#include <stdlib.h>

#include "base/arena.h"

void timers_init(struct timers *ts)
{
    *ts = (struct timers){ 0 };
}

void timers_free(struct timers *ts)
{
    free(ts->heap);
    *ts = (struct timers){ 0 };
}

static void put(struct timers *ts, size_t i, struct timer *t)
{
    ts->heap[i] = t;
    t->slot = i + 1;
}

static void settle(struct timers *ts, size_t i, struct timer *t)
{
    while (i > 0 && ts->heap[(i - 1) / 2]->at_us > t->at_us) {
        put(ts, i, ts->heap[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    for (;;) {
        size_t child = 2 * i + 1;
        if (child + 1 < ts->count && ts->heap[child + 1]->at_us < ts->heap[child]->at_us)
            child++;
        if (child >= ts->count || ts->heap[child]->at_us >= t->at_us)
            break;
        put(ts, i, ts->heap[child]);
        i = child;
    }
    put(ts, i, t);
}

void timer_set(struct timers *ts, struct timer *t, uint64_t at_us, void (*fire)(struct timer *))
{
    t->at_us = at_us;
    t->fire = fire;
    if (t->slot == 0) {
        if (ts->count == ts->cap) {
            ts->cap = ts->cap == 0 ? 64 : ts->cap * 2;
            ts->heap = mem_realloc(ts->heap, ts->cap * sizeof(*ts->heap));
        }
        settle(ts, ts->count++, t);
    } else {
        settle(ts, t->slot - 1, t);
    }
}

void timer_unset(struct timers *ts, struct timer *t)
{
    if (t->slot == 0)
        return;
    size_t i = t->slot - 1;
    struct timer *last = ts->heap[--ts->count];
    t->slot = 0;
    if (last != t)
        settle(ts, i, last);
}

void timers_run(struct timers *ts, uint64_t now_us)
{
    while (ts->count > 0 && ts->heap[0]->at_us <= now_us) {
        struct timer *t = ts->heap[0];
        timer_unset(ts, t);
        t->fire(t);
    }
}

uint64_t timers_next(const struct timers *ts)
{
    return ts->count > 0 ? ts->heap[0]->at_us : UINT64_MAX;
}
