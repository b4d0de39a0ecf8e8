/* Which descriptors are ready, and when a deadline is over: libevent, used the way that the loop
 * needs it.
 *
 * Level triggered. A watch is embedded in what it belongs to, its struct event in it, so that a
 * socket is one allocation. What a watch wants changes at once; after poller_want(…, 0) its owner
 * may be freed, also from inside a callback of the same wait.
 *
 * The deadline is a timerfd that is set only when an earlier one comes than it is set to, not a
 * time-out of each wait: most deadlines are moved or dropped long before they are due, and setting
 * a timer of the kernel's for each wait costs more than the few times that this one goes off for
 * nothing.
 */
#ifndef PGTRICKLE_PROXY_IO_POLLER_H
#define PGTRICKLE_PROXY_IO_POLLER_H

#include <event2/event.h>
#include <event2/event_struct.h>
#include <stdbool.h>
#include <stdint.h>

enum {
    WATCH_READ = 1,
    WATCH_WRITE = 2,
};

struct poller;

struct watch {
    struct event event; /* the poller's */
    /* what: those of WATCH_* that are wanted, and the descriptor is ready for. A hang-up or an
     * error is told as whatever is wanted. */
    void (*ready)(struct watch *w, unsigned what);
    int fd;
    unsigned wants; /* WATCH_*; set by poller_want */
};

struct poller *poller_new(void); /* NULL and errno: no descriptor is left */
void poller_free(struct poller *p);

static inline void watch_init(struct watch *w, int fd, void (*ready)(struct watch *, unsigned))
{
    *w = (struct watch){ .ready = ready, .fd = fd };
}

/* 0: nothing; the descriptor may be closed then. False: the kernel watches no more descriptors. */
bool poller_want(struct poller *p, struct watch *w, unsigned wants);

/* Waits until a descriptor is ready or, by the monotonic clock, it is at_us (UINT64_MAX: as long as
 * it takes), and calls ready() of those that are; unless it blocks, of those that are already.
 * True: a deadline is over, this one or one of an earlier wait. */
bool poller_wait(struct poller *p, uint64_t at_us, bool blocks);

#endif
