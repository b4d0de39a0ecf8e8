/* Which descriptors are ready: libevent, used the way that the loop needs it.
 *
 * Level triggered. A watch is embedded in what it belongs to, its struct event in it, so that a
 * socket is one allocation. What a watch wants changes at once; after poller_want(…, 0) its owner
 * may be freed, also from inside a callback of the same wait.
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
    /* what: one of WATCH_*, and wanted. A hang-up or an error is told as whatever is wanted. */
    void (*ready)(struct watch *w, unsigned what);
    int fd;
    unsigned wants; /* WATCH_*; set by poller_want */
    /* Of the poller: */
    struct poller *poller;
    struct watch *next_raised;
    bool raised;
    struct event event;
};

struct poller *poller_new(void); /* NULL and errno: no descriptor is left */
void poller_free(struct poller *p);

static inline void watch_init(struct watch *w, int fd, void (*ready)(struct watch *, unsigned))
{
    *w = (struct watch){ .ready = ready, .fd = fd };
}

/* 0: nothing; the descriptor may be closed then. False: the kernel watches no more descriptors. */
bool poller_want(struct poller *p, struct watch *w, unsigned wants);

/* The next wait tells WATCH_READ whatever the kernel says, if it is wanted then: bytes are left
 * that the descriptor does not know of. */
void poller_raise(struct poller *p, struct watch *w);

/* Waits and calls ready() of those that are. timeout_us < 0: as long as it takes. */
void poller_wait(struct poller *p, int64_t timeout_us);

#endif
