/* What the pools of one (database entry, server-side user) have in common: there is one struct pool
 * on each worker whose clients use it, and one struct pool_common for all of them.
 *
 * Limits hold for the process, so a server connection has a place that is taken before it is opened
 * (pool_common_take) and given back after it is closed. Places are counted under proxy.lock. One
 * that comes free goes to whoever has waited longest, on any worker and in any pool that the same
 * limit held back: it is reserved for that pool there and then, so that nobody who comes later can
 * take it (`granted`).
 *
 * A pool tells the others in its pool_part what it has and what it needs. The parts are atomic;
 * whoever changes his own (pool.c: publish) looks at the others' afterwards, in this order, so that
 * of a worker with an idle server and one with a waiter at least one sees the other.
 *
 * Lifetime: as struct pool: freed while all workers are halted, when no pool is left.
 */
#ifndef PGTRICKLE_PROXY_POOL_COMMON_H
#define PGTRICKLE_PROXY_POOL_COMMON_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "base/text.h"
#include "proxy/params.h"
#include "proxy/pool_policy.h"
#include "proxy/proxy.h"

/* Of one worker. All but `pool` is written by that worker, or under the rule that is given. */
struct pool_part {
    _Atomic(struct pool *) pool;    /* NULL: the worker has none */
    atomic_int idle;                /* servers that a client could have now */
    atomic_int waiting;             /* clients that a server would serve */
    atomic_int need;                /* for how many of those, and of logins, nothing is under way */
    atomic_uint_least64_t since_us; /* the longest wait among these began; valid with any of them */
    atomic_uint_least64_t idle_since_us; /* of the longest idle server; valid with idle > 0 */
    atomic_bool busy;                    /* servers of its own are at work */
    atomic_int incoming;                 /* servers on their way to it; the sender adds */
    atomic_int granted;                  /* places reserved for it; under proxy.lock */
    atomic_bool asked;                   /* another worker wants an idle server */
    atomic_bool evict;                   /* another pool wants the place of one */
    atomic_bool called;                  /* `letter` is on its way */
    struct letter letter;
    char padding[64]; /* parts are on cache lines of their own */
};

struct pool_common {
    struct list_node database_node; /* database.commons, under proxy.lock */
    struct database *db;
    struct user *user;
    bool user_is_forced;
    int n_parts;
    atomic_int n_clients;
    atomic_uint_least64_t logins; /* that brought credentials */
    atomic_int waiting;           /* sum of the parts' */
    atomic_int cancels;           /* connections for cancel requests, over the servers */
    /* Written under proxy.lock. */
    atomic_int servers; /* places taken */
    atomic_int opening; /* of these, not logged in yet */
    int parallel;       /* how many may be opened at the same time */
    atomic_bool connect_failed;
    atomic_bool login_failed;
    atomic_uint_least64_t retry_at_us; /* after a failure */
    struct text error;                 /* of that failure; under proxy.lock */
    atomic_uint_least64_t last_lifetime_close_us;
    /* What a server said at login; under proxy.lock, but for the first. */
    atomic_uint learned; /* how often; 0: nothing yet */
    struct params parameters;
    struct text welcome;
    int server_version;
    uint64_t idle_since_us; /* worker 0's: nothing uses it since; 0: in use */
    struct pool_part parts[];
};

/* The one of (db, user), made when it is new. Under proxy.lock. */
struct pool_common *pool_common_get(struct proxy *p, struct database *db, struct user *user,
                                    bool user_is_forced);
/* No pool is left. Under proxy.lock. */
void pool_common_free(struct pool_common *c);

enum pool_wants {
    POOL_WANTS_SERVER,
    POOL_WANTS_REPLICATION, /* a connection for one client: those under way are of no use to it */
    POOL_WANTS_MINIMUM,     /* nobody waits: min_pool_size */
};

/* How a place may be had for the longest waiter of `part`. POOL_OPEN and POOL_OPEN_RESERVE: it is
 * taken. */
enum pool_open pool_common_take(struct proxy *p, struct pool_common *c, struct pool_part *part,
                                uint64_t now_us, enum pool_wants wants);
/* A server that another process opened has a place whatever the limits say. */
void pool_common_add(struct proxy *p, struct pool_common *c);
/* Takes a grant off the part, whose place is to be given back then. False: there is none. */
bool pool_common_drop_grant(struct proxy *p, struct pool_part *part);
/* A server with a place is logged in. */
void pool_common_end_opening(struct proxy *p, struct pool_common *c);
/* Gives a place back: to whoever waits for it longest. Returns the part that it was given to (its
 * worker must be called), or NULL. */
struct pool_part *pool_common_give_back(struct proxy *p, struct pool_common *c, bool was_opening,
                                        uint64_t now_us, struct pool_common **to);

/* The part with the longest idle server among the pools that share a limit with c and have nobody
 * waiting; NULL: none. */
struct pool_part *pool_common_find_idle(struct proxy *p, struct pool_common *c, bool of_user,
                                        struct pool_common **of);
/* Since when the longest waiter among the other pools of a limit that is reached has waited;
 * UINT64_MAX: nobody waits for that. */
uint64_t pool_common_longest_sibling(struct proxy *p, struct pool_common *c, uint64_t now_us);
/* pool_size is reached. */
bool pool_common_is_full(struct proxy *p, const struct pool_common *c);
/* Some limit that c shares with others is reached, as far as can be seen without the lock. */
bool pool_common_limit_reached(struct proxy *p, struct pool_common *c);

/* When a server's age is over: whether this one may be closed for it now (one per
 * lifetime/pool_size); takes the turn. */
bool pool_common_take_lifetime_turn(struct proxy *p, struct pool_common *c, uint64_t now_us,
                                    uint64_t age_us);

#endif
