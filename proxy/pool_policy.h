/* Pure decisions of a pool: numbers in, yes or no out. */
#ifndef PGTRICKLE_PROXY_POOL_POLICY_H
#define PGTRICKLE_PROXY_POOL_POLICY_H

#include <stdbool.h>
#include <stdint.h>

struct pool_facts {
    int servers; /* in all states, opening ones too */
    int opening;
    int parallel; /* how many may be opened at the same time; 0 is 1 */
    int waiting;  /* clients that need a server for which nothing is under way */
    int64_t longest_wait_us;
    int pool_size; /* 0: no limit */
    int reserve_size;
    int64_t reserve_timeout_us;
    int db_servers; /* of the database entry */
    int db_limit;   /* 0: no limit, as the next */
    int user_servers;
    int user_limit;
    bool paused;
    bool rests; /* the last attempt failed, and server_login_retry is not over */
};

enum pool_open {
    POOL_OPEN_NOT, /* not now */
    POOL_OPEN,
    POOL_OPEN_RESERVE,  /* one from the reserve */
    POOL_OPEN_EVICT_DB, /* close the longest idle server of another pool of the database first */
    POOL_OPEN_EVICT_USER,
};

/* May, and should, another server be opened for the waiters? */
enum pool_open pool_policy_open(const struct pool_facts *f);

/* Is a server due to be closed for its age? One per lifetime/pool_size, so that a pool that was
 * opened at once does not close at once. lifetime 0: after its first use. */
bool pool_policy_lifetime_over(int64_t age_us, int64_t lifetime_us, int pool_size,
                               int64_t since_last_close_us);

#endif
