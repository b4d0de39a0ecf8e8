/* The process that we take over from: our side of proxy/takeover.h.
 *
 * Straight-line blocking code, before our loops run. Until predecessor_commit it can take
 * everything back, and does when we end.
 */
#ifndef PGTRICKLE_PROXY_IO_PREDECESSOR_H
#define PGTRICKLE_PROXY_IO_PREDECESSOR_H

#include <stdbool.h>

#include "base/err.h"
#include "proxy/config.h"
#include "proxy/io/listen.h"
#include "proxy/proxy.h"

struct predecessor;

/* Logs in to its console and gets everything that it gives; listeners go to l. NULL and *e: it
 * goes on as before. */
struct predecessor *predecessor_take(const struct config *c, struct listeners *l, struct err *e);
/* Rebuilds what came. */
void predecessor_import(struct predecessor *d, struct proxy *p);
/* It is ours: the other one lets go of it. False and *e: it has taken it back, we must end. */
bool predecessor_commit(struct predecessor *d, struct err *e);
void predecessor_free(struct predecessor *d);

#endif
