#include "proxy/pool_common.h"

#include <stdlib.h>

#include "base/arena.h"
#include "proxy/config.h"

struct pool_common *pool_common_get(struct proxy *p, struct database *db, struct user *user,
                                    bool user_is_forced)
{
    LIST_FOREACH(&db->commons, n)
    {
        struct pool_common *c = LIST_ITEM(n, struct pool_common, database_node);
        if (c->user == user)
            return c;
    }
    struct pool_common *c = mem_alloc(sizeof(*c) + (size_t)p->n_workers * sizeof(struct pool_part));
    c->db = db;
    c->user = user;
    c->user_is_forced = user_is_forced;
    c->n_parts = p->n_workers;
    c->parallel = 1;
    text_init(&c->error);
    text_init(&c->welcome);
    list_append(&db->commons, &c->database_node);
    return c;
}

void pool_common_free(struct pool_common *c)
{
    list_remove(&c->db->commons, &c->database_node);
    params_clear(&c->parameters);
    text_free(&c->welcome);
    text_free(&c->error);
    free(c);
}

/* ---- places ----------------------------------------------------------------------------- */

static int pool_size(const struct proxy *p, const struct pool_common *c)
{
    return config_pool_size(p->config, c->db->entry, c->user->entry);
}

/* Clients of the part for which nothing is under way. */
static int need_of(const struct pool_part *part)
{
    return part->need - part->incoming - part->granted;
}

static struct pool_facts facts_of(struct proxy *p, struct pool_common *c,
                                  const struct pool_part *part, uint64_t now_us)
{
    const struct config *conf = p->config;
    const struct config_database *entry = c->db->entry;
    uint64_t since = part->since_us;

    return (struct pool_facts){
        .servers = c->servers,
        .opening = c->opening,
        .parallel = c->parallel,
        .waiting = need_of(part),
        .longest_wait_us = now_us > since ? (int64_t)(now_us - since) : 0,
        .pool_size = pool_size(p, c),
        .reserve_size = config_reserve_pool_size(conf, entry, c->user->entry),
        .reserve_timeout_us = conf->reserve_pool_timeout_us,
        .db_servers = c->db->n_servers,
        .db_limit = config_max_db_connections(conf, entry),
        .user_servers = c->user->n_servers,
        .user_limit = config_max_user_connections(conf, c->user->entry),
        .paused = proxy_is_paused(p, c->db),
        .rests = (c->connect_failed || c->login_failed) && now_us < c->retry_at_us,
    };
}

static void take(struct pool_common *c)
{
    c->servers++;
    c->opening++;
    c->db->n_servers++;
    c->user->n_servers++;
}

enum pool_open pool_common_take(struct proxy *p, struct pool_common *c, struct pool_part *part,
                                uint64_t now_us, enum pool_wants wants)
{
    enum pool_open how = POOL_OPEN_NOT;

    pthread_mutex_lock(&p->lock);
    struct pool_facts f = facts_of(p, c, part, now_us);
    if (wants == POOL_WANTS_MINIMUM) {
        f.waiting = c->servers < config_min_pool_size(p->config, c->db->entry);
        f.reserve_size = 0;
    } else if (part->granted > 0) {
        /* The place is taken already. */
        part->granted--;
        pthread_mutex_unlock(&p->lock);
        return POOL_OPEN;
    } else if (wants == POOL_WANTS_REPLICATION) {
        f.waiting = 1;
        f.opening = 0;
    }
    how = pool_policy_open(&f);
    if (how == POOL_OPEN || how == POOL_OPEN_RESERVE)
        take(c);
    pthread_mutex_unlock(&p->lock);
    return how;
}

void pool_common_add(struct proxy *p, struct pool_common *c)
{
    pthread_mutex_lock(&p->lock);
    take(c);
    c->opening--;
    pthread_mutex_unlock(&p->lock);
}

bool pool_common_drop_grant(struct proxy *p, struct pool_part *part)
{
    pthread_mutex_lock(&p->lock);
    bool had = part->granted > 0;
    if (had)
        part->granted--;
    pthread_mutex_unlock(&p->lock);
    return had;
}

void pool_common_end_opening(struct proxy *p, struct pool_common *c)
{
    pthread_mutex_lock(&p->lock);
    c->opening--;
    pthread_mutex_unlock(&p->lock);
}

/* What is done with each pool that may be held back by a limit of c's. */
struct walk {
    uint64_t now_us;
    struct pool_common *c;
    struct pool_common *found_common;
    struct pool_part *found;
    uint64_t found_us;
    bool of_db;
    bool of_user;
};

static void each_sibling(struct proxy *p, struct walk *k,
                         void (*look)(struct proxy *p, struct walk *k, struct pool_common *other))
{
    if (!k->of_user) {
        LIST_FOREACH(&k->c->db->commons, n)
        look(p, k, LIST_ITEM(n, struct pool_common, database_node));
        return;
    }
    LIST_FOREACH(&p->database_list, dn)
    {
        struct database *db = LIST_ITEM(dn, struct database, list_node);
        LIST_FOREACH(&db->commons, n)
        {
            struct pool_common *other = LIST_ITEM(n, struct pool_common, database_node);
            if (other->user == k->c->user || (k->of_db && db == k->c->db))
                look(p, k, other);
        }
    }
}

static void find_waiter(struct proxy *p, struct walk *k, struct pool_common *other)
{
    if (other->db->entry == NULL)
        return;
    for (int i = 0; i < other->n_parts; i++) {
        struct pool_part *part = &other->parts[i];
        if (need_of(part) <= 0 || part->since_us >= k->found_us)
            continue;
        struct pool_facts f = facts_of(p, other, part, k->now_us);
        enum pool_open how = pool_policy_open(&f);
        if (how == POOL_OPEN || how == POOL_OPEN_RESERVE) {
            k->found_common = other;
            k->found = part;
            k->found_us = part->since_us;
        }
    }
}

struct pool_part *pool_common_give_back(struct proxy *p, struct pool_common *c, bool was_opening,
                                        uint64_t now_us, struct pool_common **to)
{
    const struct config_database *entry = c->db->entry;
    struct walk k = { .now_us = now_us, .c = c, .found_us = UINT64_MAX };

    pthread_mutex_lock(&p->lock);
    c->servers--;
    c->db->n_servers--;
    c->user->n_servers--;
    if (was_opening)
        c->opening--;
    k.of_db = entry != NULL && config_max_db_connections(p->config, entry) > 0;
    k.of_user = config_max_user_connections(p->config, c->user->entry) > 0;
    if (k.of_db || k.of_user)
        each_sibling(p, &k, find_waiter);
    else
        find_waiter(p, &k, c);
    if (k.found != NULL) {
        take(k.found_common);
        k.found->granted++;
    }
    pthread_mutex_unlock(&p->lock);
    *to = k.found_common;
    return k.found;
}

/* ---- between pools of one limit --------------------------------------------------------- */

static void find_idle(struct proxy *p, struct walk *k, struct pool_common *other)
{
    (void)p;
    if (other == k->c)
        return;
    for (int i = 0; i < other->n_parts; i++) {
        struct pool_part *part = &other->parts[i];
        if (part->idle > 0 && part->waiting == 0 && part->idle_since_us < k->found_us) {
            k->found_common = other;
            k->found = part;
            k->found_us = part->idle_since_us;
        }
    }
}

struct pool_part *pool_common_find_idle(struct proxy *p, struct pool_common *c, bool of_user,
                                        struct pool_common **of)
{
    struct walk k = { .c = c, .found_us = UINT64_MAX, .of_user = of_user };

    pthread_mutex_lock(&p->lock);
    each_sibling(p, &k, find_idle);
    pthread_mutex_unlock(&p->lock);
    *of = k.found_common;
    return k.found;
}

static void find_held_back(struct proxy *p, struct walk *k, struct pool_common *other)
{
    if (other == k->c || other->db->entry == NULL)
        return;
    for (int i = 0; i < other->n_parts; i++) {
        struct pool_part *part = &other->parts[i];
        if (need_of(part) <= 0 || part->since_us >= k->found_us)
            continue;
        struct pool_facts f = facts_of(p, other, part, k->now_us);
        enum pool_open how = pool_policy_open(&f);
        if (how == POOL_OPEN_EVICT_DB || how == POOL_OPEN_EVICT_USER)
            k->found_us = part->since_us;
    }
}

bool pool_common_is_full(struct proxy *p, const struct pool_common *c)
{
    int size = pool_size(p, c);

    return size > 0 && c->servers >= size;
}

bool pool_common_limit_reached(struct proxy *p, struct pool_common *c)
{
    int db_limit = c->db->entry != NULL ? config_max_db_connections(p->config, c->db->entry) : 0;
    int user_limit = config_max_user_connections(p->config, c->user->entry);

    return (db_limit > 0 && c->db->n_servers >= db_limit) ||
           (user_limit > 0 && c->user->n_servers >= user_limit);
}

uint64_t pool_common_longest_sibling(struct proxy *p, struct pool_common *c, uint64_t now_us)
{
    struct walk k = { .now_us = now_us, .c = c, .found_us = UINT64_MAX };
    int db_limit = config_max_db_connections(p->config, c->db->entry);
    int user_limit = config_max_user_connections(p->config, c->user->entry);

    pthread_mutex_lock(&p->lock);
    k.of_db = db_limit > 0 && c->db->n_servers >= db_limit;
    k.of_user = user_limit > 0 && c->user->n_servers >= user_limit;
    if (k.of_db || k.of_user)
        each_sibling(p, &k, find_held_back);
    pthread_mutex_unlock(&p->lock);
    return k.found_us;
}

bool pool_common_take_lifetime_turn(struct proxy *p, struct pool_common *c, uint64_t now_us,
                                    uint64_t age_us)
{
    bool due = true;

    pthread_mutex_lock(&p->lock);
    if (c->db->entry != NULL) {
        uint64_t last = c->last_lifetime_close_us;
        due = pool_policy_lifetime_over((int64_t)age_us,
                                        config_server_lifetime_us(p->config, c->db->entry),
                                        pool_size(p, c), (int64_t)(now_us - last));
        if (due)
            c->last_lifetime_close_us = now_us;
    }
    pthread_mutex_unlock(&p->lock);
    return due;
}
