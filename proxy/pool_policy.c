#include "proxy/pool_policy.h"

enum pool_open pool_policy_open(const struct pool_facts *f)
{
    enum pool_open how = POOL_OPEN;

    if (f->paused || f->rests || f->waiting <= 0)
        return POOL_OPEN_NOT;
    /* A server that can't be reached is not asked by all at once. */
    if (f->opening > 0 && f->opening >= f->parallel)
        return POOL_OPEN_NOT;
    if (f->pool_size > 0 && f->servers >= f->pool_size) {
        if (f->servers >= f->pool_size + f->reserve_size ||
            f->longest_wait_us < f->reserve_timeout_us)
            return POOL_OPEN_NOT;
        how = POOL_OPEN_RESERVE;
    }
    if (f->db_limit > 0 && f->db_servers >= f->db_limit)
        return POOL_OPEN_EVICT_DB;
    if (f->user_limit > 0 && f->user_servers >= f->user_limit)
        return POOL_OPEN_EVICT_USER;
    return how;
}

bool pool_policy_lifetime_over(int64_t age_us, int64_t lifetime_us, int pool_size,
                               int64_t since_last_close_us)
{
    if (lifetime_us <= 0)
        return true;
    if (age_us < lifetime_us)
        return false;
    return pool_size <= 0 || since_last_close_us >= lifetime_us / pool_size;
}
