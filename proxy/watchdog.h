/* Tells the service manager, before its deadline, that every event loop turns.
 *
 * Each tick of worker 0 sends a letter to every other worker; the next tick passes the keepalive on
 * only when all of them have been read. A loop that is stuck, worker 0's included, stops it.
 */
#ifndef PGTRICKLE_PROXY_WATCHDOG_H
#define PGTRICKLE_PROXY_WATCHDOG_H

#include <stdint.h>

#include "proxy/proxy.h"

struct watchdog;

/* interval_us: how often the manager wants to hear of us at the latest. Ticks begin at once. */
struct watchdog *watchdog_new(struct proxy *p, uint64_t interval_us);
/* After proxy_free. */
void watchdog_free(struct watchdog *d);

#endif
