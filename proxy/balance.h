/* Which worker serves which client.
 *
 * A second thread makes a transaction dearer: fewer events come at a time, and server connections
 * change hands. So a worker gets clients until it is busy (worker_fill_percent of a processor),
 * then the next one does. Each measures itself ten times a second while there is something to do:
 *   - one that is too busy gives clients to the one with least to do, half of the difference;
 *   - one that would fit into another beside what is done there, for a second, gives all to it.
 * Clients go between two transactions, when they have just finished one: who does nothing costs
 * nothing where it is.
 */
#ifndef PGTRICKLE_PROXY_BALANCE_H
#define PGTRICKLE_PROXY_BALANCE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "proxy/timers.h"

struct client;
struct proxy;
struct worker;

/* Of a worker. */
struct balance {
    struct timer timer;          /* the next measurement; not set: nothing happened lately */
    uint64_t cpu_us;             /* at the last one, as the next */
    uint64_t at_us;              /* valid while the timer is set */
    atomic_int busy;             /* thousandths of a processor, between the last two; for others */
    atomic_uint_least64_t until; /* monotonic; what `busy` says is old then */
    int light;                   /* measurements in a row that another could do all this beside */
    unsigned give;               /* clients to give away before the next one */
    struct worker *give_to;      /* valid with give > 0 */
};

/* There is something to do on this worker: it is measured. */
void balance_watch(struct worker *w);
/* Who takes the next client; on worker 0. */
struct worker *balance_place(struct proxy *p);
/* The client has finished a transaction and let go of its server. */
void balance_on_idle(struct client *c);

#endif
