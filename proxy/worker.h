/* The life of a worker, for proxy.c. What others do with one is in proxy/proxy.h. */
#ifndef PGTRICKLE_PROXY_WORKER_H
#define PGTRICKLE_PROXY_WORKER_H

#include "proxy/proxy.h"

/* Declares w, which therefore stands alone. */
/* NOLINTBEGIN(bugprone-macro-parentheses) */
#define EACH_WORKER(p, w)                                                                          \
    for (struct worker *const *w##_at = (p)->workers, *w;                                          \
         w##_at < (p)->workers + (p)->n_workers && (w = *w##_at, true); w##_at++)
/* NOLINTEND(bugprone-macro-parentheses) */

struct worker *worker_new(struct proxy *p, int index, const struct io_ops *ops, struct io *io,
                          uint64_t now_us, int64_t wall_us);
void worker_free(struct worker *w); /* no conn and no letter may be left */

/* All workers' letters, and those that these write, on the caller's thread: the others are halted
 * or their threads have ended. */
void proxy_deliver_letters(struct proxy *p);

#endif
