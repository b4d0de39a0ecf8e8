/* Names that many hold and few differ: the hosts that clients come from.
 *
 * A name is kept once and counted. References may be taken and given back on any thread.
 */
#ifndef PGTRICKLE_PROXY_SHARED_NAMES_H
#define PGTRICKLE_PROXY_SHARED_NAMES_H

#include <pthread.h>

#include "base/map.h"

struct shared_names {
    pthread_mutex_t lock; /* no other is taken under it */
    struct map map;
};

void shared_names_init(struct shared_names *n);
void shared_names_fini(struct shared_names *n); /* nobody holds one any more */

/* The kept one that equals cstr, valid until it is given back. */
const char *shared_name_ref(struct shared_names *n, const char *cstr);
void shared_name_unref(struct shared_names *n, const char *name); /* takes NULL */

#endif
