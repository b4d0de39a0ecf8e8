/* Deadlines: one heap per worker, no sweeping.
 *
 * A struct timer is embedded in what it concerns. A zeroed timer is not set. Times are
 * microseconds of the worker's monotonic clock. timers_run fires what is due; a fired timer is
 * unset before its function runs, which may set it, or any other, again.
 */
#ifndef PGTRICKLE_PROXY_TIMERS_H
#define PGTRICKLE_PROXY_TIMERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct timer {
    uint64_t at_us;
    size_t slot; /* 1-based place in the heap; 0: not set */
    void (*fire)(struct timer *t);
};

struct timers {
    struct timer **heap;
    size_t count;
    size_t cap;
};

void timers_init(struct timers *ts);
void timers_free(struct timers *ts);

void timer_set(struct timers *ts, struct timer *t, uint64_t at_us, void (*fire)(struct timer *));
void timer_unset(struct timers *ts, struct timer *t);
static inline bool timer_is_set(const struct timer *t)
{
    return t->slot != 0;
}

/* Fires all that is due at now_us. */
void timers_run(struct timers *ts, uint64_t now_us);

/* When the next one is due; UINT64_MAX: never. */
uint64_t timers_next(const struct timers *ts);

#endif
