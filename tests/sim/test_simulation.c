/* The whole proxy in a world of delays, cuts, resets and slow peers, in virtual time.
 *
 * After every step: a server has one holder; a reply reaches exactly its asker, in order, with the
 * asker's own settings; a transaction is touched by its session only; a cancel ends a statement of
 * the session that sent it; nobody is dropped without a word. When the faults are over, whoever
 * waits is served, timed out or told.
 *
 *     SEED=7 test_simulation        repeats one world
 *     SEEDS=1000 test_simulation    plays that many
 */
#include "tests/sim/sim.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/arena.h"
#include "proxy/pool.h"
#include "proxy/pool_common.h"

#define SEEDS 40
#define PLAY_US 40000000  /* of faults, per seed */
#define HEAL_US 600000000 /* in which all must have come to an end */

struct chunk {
    struct chunk *next;
    uint64_t at;
    bool ends; /* end of the stream */
    size_t len;
    char bytes[];
};

struct sim_cancel {
    struct sim_cancel *next;
    struct link *link;
};

uint64_t sim_now(const struct sim *s)
{
    return s->world->now_us;
}

unsigned sim_roll(struct sim *s, unsigned n)
{
    s->rng ^= s->rng << 13;
    s->rng ^= s->rng >> 7;
    s->rng ^= s->rng << 17;
    return (unsigned)((s->rng >> 11) % n);
}

bool sim_chance(struct sim *s, unsigned percent)
{
    return sim_roll(s, 100) < percent;
}

uint64_t sim_between(struct sim *s, uint64_t least_us, uint64_t most_us)
{
    return least_us + sim_roll(s, (unsigned)(most_us - least_us) + 1);
}

void sim_fail(const struct sim *s, const char *fmt, ...)
{
    char text[1024];
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    fail_msg("SEED=%" PRIu64 " at %" PRIu64 " us: %s", s->seed, sim_now(s), text);
    abort();
}

/* ---- links ------------------------------------------------------------------------------ */

static uint64_t latency(struct sim *s)
{
    if (s->healed || !sim_chance(s, 3))
        return sim_between(s, 0, 2000);
    return sim_between(s, 2000, sim_chance(s, 10) ? 3000000 : 200000);
}

static void append(struct chunk **at, struct chunk *c)
{
    uint64_t after = 0;

    for (; *at != NULL; at = &(*at)->next)
        after = (*at)->at;
    if (c->at < after)
        c->at = after;
    *at = c;
}

static struct chunk *chunk_new(struct sim *s, const void *bytes, size_t n)
{
    struct chunk *c = mem_alloc(sizeof(*c) + n);

    c->at = sim_now(s) + latency(s);
    c->len = n;
    if (n > 0)
        memcpy(c->bytes, bytes, n);
    return c;
}

static void drop_chunks(struct chunk **at)
{
    while (*at != NULL) {
        struct chunk *c = *at;
        *at = c->next;
        free(c);
    }
}

void link_send(struct link *l, struct bytequeue *q)
{
    while (bytequeue_len(q) > 0 && !l->hung_up) {
        struct str rest = bytequeue_str(q);
        size_t piece = sim_chance(l->sim, 70) ? rest.len : 1 + sim_roll(l->sim, 60);
        if (piece > rest.len)
            piece = rest.len;
        append(&l->to_core, chunk_new(l->sim, rest.ptr, piece));
        bytequeue_consume(q, piece);
    }
    bytequeue_free(q);
}

void link_hang_up(struct link *l, bool reset)
{
    if (l->hung_up)
        return;
    if (reset)
        drop_chunks(&l->to_core);
    struct chunk *c = chunk_new(l->sim, NULL, 0);
    c->ends = true;
    append(&l->to_core, c);
    l->hung_up = true;
}

void link_free(struct link *l)
{
    drop_chunks(&l->to_core);
    drop_chunks(&l->to_actor);
    bytequeue_free(&l->heard);
    if (l->peer->conn != NULL)
        peer_hang_up(l->peer);
}

/* Nothing is left to be delivered to the core. */
static bool link_is_over(const struct link *l)
{
    return l->peer->conn == NULL && (l->ended || l->hung_up);
}

static void deliver_to_core(struct link *l)
{
    while (l->to_core != NULL && l->to_core->at <= sim_now(l->sim)) {
        struct chunk *c = l->to_core;
        if (l->peer->conn != NULL && (!l->peer->reading || l->peer->away))
            return;
        l->to_core = c->next;
        if (l->peer->conn != NULL && c->ends)
            peer_hang_up(l->peer);
        else if (l->peer->conn != NULL)
            peer_send(l->peer, c->bytes, c->len);
        free(c);
    }
}

static void deliver_to_actor(struct link *l)
{
    struct str got = bytequeue_str(&l->peer->got);

    if (got.len > 0) {
        append(&l->to_actor, chunk_new(l->sim, got.ptr, got.len));
        bytequeue_consume(&l->peer->got, got.len);
    }
    while (l->to_actor != NULL && l->to_actor->at <= sim_now(l->sim)) {
        struct chunk *c = l->to_actor;
        l->to_actor = c->next;
        bytequeue_put(&l->heard, c->bytes, c->len);
        free(c);
    }
    if (l->peer->conn == NULL && l->to_actor == NULL)
        l->ended = true;
}

static void link_turn(struct link *l)
{
    deliver_to_core(l);
    deliver_to_actor(l);
}

static uint64_t link_wakes_at(const struct link *l)
{
    uint64_t at = UINT64_MAX;

    if (l->to_core != NULL && (l->peer->conn == NULL || (l->peer->reading && !l->peer->away)))
        at = l->to_core->at;
    if (l->to_actor != NULL && l->to_actor->at < at)
        at = l->to_actor->at;
    return at;
}

void sim_keep_cancel(struct sim *s, struct link *l)
{
    struct sim_cancel *c = mem_alloc(sizeof(*c));

    c->link = l;
    c->next = s->cancels;
    s->cancels = c;
}

/* ---- what must hold --------------------------------------------------------------------- */

static void check_server(struct sim *s, const struct worker *w, const struct server *sv)
{
    bool held = sv->state == SERVER_IN_USE || sv->state == SERVER_SYNCING;

    if (held != (sv->client != NULL) || (held && sv->client->server != sv))
        sim_fail(s, "a server's holder does not hold it");
    if (held && sv->cancels > 0 && sv->client->state == CLIENT_CLOSED)
        sim_fail(s, "a server is held by a client that is gone");
    if (sv->conn.worker != w || sv->pool->worker != w)
        sim_fail(s, "a server is not where it belongs");
    if (held && sv->client->conn.worker != w)
        sim_fail(s, "a server's client is another worker's");
}

static void check_client(struct sim *s, const struct client *c)
{
    if ((c->state == CLIENT_ACTIVE) != (c->server != NULL) && c->state != CLIENT_WAITING)
        sim_fail(s, "a client is %s and %s a server", client_state_name(c),
                 c->server != NULL ? "has" : "lacks");
    if (c->server != NULL && c->server->client != c)
        sim_fail(s, "a client's server serves another");
}

/* Connections of the core that a letter brings to another worker. */
static int count_away(const struct sim *s, bool servers)
{
    int n = 0;

    for (const struct peer *p = s->world->peers; p != NULL; p = p->next)
        n += p->away && p->conn != NULL && (p->to.host != NULL) == servers;
    return n;
}

/* The places that are taken, and no more than there are. What is promised or on its way is counted
 * too; where letters are read at once there is no such thing between two events. */
static void check_limits(struct sim *s, const struct database *db, int n_servers)
{
    const struct config *conf = s->world->proxy->config;
    int limit = config_max_db_connections(conf, db->entry);

    int away = count_away(s, true), all_incoming = 0, all_granted = 0;
    bool changed = conf != s->first_config; /* a limit may have been lowered */
    if (!changed && limit > 0 && n_servers > limit)
        sim_fail(s, "%d servers where %d may be", n_servers, limit);
    LIST_FOREACH(&db->commons, n)
    {
        const struct pool_common *c = LIST_ITEM(n, struct pool_common, database_node);
        int size = conf->default_pool_size + conf->reserve_pool_size;
        int opening = 0, incoming = 0, granted = 0;
        if (!changed && c->servers > size)
            sim_fail(s, "%d servers in a pool of %d", c->servers, size);
        for (int i = 0; i < c->n_parts; i++) {
            const struct pool *p = c->parts[i].pool;
            opening += p != NULL ? (int)p->opening.count : 0;
            incoming += c->parts[i].incoming;
            granted += c->parts[i].granted;
        }
        all_incoming += incoming;
        all_granted += granted;
        if (opening + granted != c->opening)
            sim_fail(s, "%d servers are on their way, %d places promised, %d of %d opening",
                     incoming, granted, opening, c->opening);
    }
    if (db->n_servers != n_servers + away + all_granted)
        sim_fail(s, "%d servers, %d on their way, %d promised and %d places", n_servers, away,
                 all_granted, db->n_servers);
    if (all_incoming != away || (s->world->letter_delay == NULL && away + all_granted > 0))
        sim_fail(s, "%d servers are expected, %d on their way, %d places promised", all_incoming,
                 away, all_granted);
}

static void check_core(struct sim *s)
{
    struct proxy *p = s->world->proxy;
    int n_servers = 0;

    for (int i = 0; i < p->n_workers; i++) {
        const struct worker *w = p->workers[i];
        LIST_FOREACH(&w->servers, n)
        check_server(s, w, LIST_ITEM(n, struct server, worker_node));
        LIST_FOREACH(&w->clients, n)
        check_client(s, LIST_ITEM(n, struct client, worker_node));
        n_servers += (int)w->servers.count;
    }
    struct list_node *db = list_first(&p->database_list);
    check_limits(s, LIST_ITEM(db, struct database, list_node), n_servers);
}

static unsigned clients_left(const struct sim *s)
{
    const struct proxy *p = s->world->proxy;
    unsigned n = 0;

    for (int i = 0; i < p->n_workers; i++)
        n += p->workers[i]->clients.count;
    return n + (unsigned)count_away(s, false);
}

/* ---- the world's turn ------------------------------------------------------------------- */

static void turn(struct sim *s)
{
    struct peer *p;

    while ((p = world_next_connect(s->world)) != NULL)
        backend_accept(s, p);
    for (struct backend **at = &s->backends; *at != NULL;) {
        struct backend *b = *at;
        link_turn(backend_link(b));
        backend_turn(b);
        if (backend_is_over(b) && link_is_over(backend_link(b))) {
            *at = *backend_next(b);
            backend_free(b);
        } else {
            at = backend_next(b);
        }
    }
    for (unsigned i = 0; i < SIM_ASKERS; i++) {
        struct asker *a = s->askers[i];
        if (a == NULL && !s->healed && sim_chance(s, 5))
            a = s->askers[i] = asker_new(s);
        if (a == NULL)
            continue;
        link_turn(asker_link(a));
        asker_turn(a);
        if (asker_is_over(a) && link_is_over(asker_link(a))) {
            asker_free(a);
            s->askers[i] = NULL;
        }
    }
    for (struct sim_cancel **at = &s->cancels; *at != NULL;) {
        struct sim_cancel *c = *at;
        link_turn(c->link);
        if (c->link->peer->conn == NULL) {
            *at = c->next;
            link_free(c->link);
            free(c->link);
            free(c);
        } else {
            at = &c->next;
        }
    }
    check_core(s);
}

static uint64_t next_event(const struct sim *s)
{
    uint64_t at = sim_now(s) + 100000;
    uint64_t when;

    for (struct backend *b = s->backends; b != NULL; b = *backend_next(b)) {
        when = link_wakes_at(backend_link(b));
        at = when < at ? when : at;
        when = backend_wakes_at(b);
        at = when < at ? when : at;
    }
    for (unsigned i = 0; i < SIM_ASKERS; i++) {
        if (s->askers[i] == NULL)
            continue;
        when = link_wakes_at(asker_link(s->askers[i]));
        at = when < at ? when : at;
        when = asker_wakes_at(s->askers[i]);
        at = when < at ? when : at;
    }
    for (struct sim_cancel *c = s->cancels; c != NULL; c = c->next) {
        when = link_wakes_at(c->link);
        at = when < at ? when : at;
    }
    return at > sim_now(s) ? at : sim_now(s) + 1;
}

static void set_something(struct sim *s)
{
    static const struct {
        const char *key, *value;
    } changes[] = {
        { "default_pool_size", "1" },       { "default_pool_size", "4" },
        { "max_prepared_statements", "1" }, { "max_prepared_statements", "9" },
        { "server_lifetime", "1" },         { "server_round_robin", "1" },
        { "max_db_connections", "2" },      { "server_check_delay", "0" },
    };
    unsigned i = sim_roll(s, sizeof(changes) / sizeof(changes[0]));
    struct proxy *p = s->world->proxy;
    struct err e = { 0 };
    struct config *fresh =
        config_set(p->config, str_from(changes[i].key), str_from(changes[i].value), &e);

    if (fresh == NULL)
        sim_fail(s, "%s", e.message);
    proxy_apply_config(p, fresh);
}

/* What an operator does, and what the machine does to the servers. */
static void disturb(struct sim *s)
{
    struct proxy *p = s->world->proxy;
    unsigned n = 0;

    if (!sim_chance(s, 1))
        return;
    proxy_halt_workers(p); /* as for a command */
    switch (sim_roll(s, 10)) {
    case 0:
        proxy_pause(p, NULL);
        break;
    case 1:
    case 2:
        if (p->paused)
            proxy_resume(p, NULL);
        break;
    case 3:
        proxy_reconnect(p, NULL);
        break;
    case 4:
        set_something(s);
        break;
    case 5:
        if (sim_chance(s, 30)) {
            proxy_kill(p, NULL);
            proxy_resume(p, NULL);
        }
        break;
    default:
        for (struct backend *b = s->backends; b != NULL; b = *backend_next(b))
            n++;
        if (n == 0)
            break;
        n = sim_roll(s, n);
        for (struct backend *b = s->backends; b != NULL; b = *backend_next(b))
            if (n-- == 0)
                backend_crash(b);
        break;
    }
    proxy_release_workers(p);
    world_settle(s->world);
}

/* Threads are busy for a while: clients change them. */
static void compute(struct sim *s, uint64_t us)
{
    struct world *w = s->world;

    for (int i = 0; i < w->proxy->n_workers; i++) {
        if (sim_chance(s, 2))
            s->computes[i] = !s->computes[i];
        w->cpu_us[i] += s->computes[i] ? us : 0;
    }
}

static bool all_quiet(const struct sim *s)
{
    for (unsigned i = 0; i < SIM_ASKERS; i++)
        if (s->askers[i] != NULL && asker_waits(s->askers[i]))
            return false;
    return s->cancels == NULL;
}

/* Everybody has left: nothing may be counted, and no server held. */
static void check_empty(struct sim *s)
{
    struct proxy *p = s->world->proxy;

    if (clients_left(s) > 0 || p->n_clients != 0)
        sim_fail(s, "all have left and %d clients are counted", p->n_clients);
    LIST_FOREACH(&p->database_list, n)
    {
        const struct database *db = LIST_ITEM(n, struct database, list_node);
        if (db->n_clients != 0)
            sim_fail(s, "all have left and the database counts %d clients", db->n_clients);
    }
    for (int i = 0; i < p->n_workers; i++)
        LIST_FOREACH(&p->workers[i]->servers, n)
    if (LIST_ITEM(n, struct server, worker_node)->client != NULL)
        sim_fail(s, "all have left and a server is held");
}

/* A thread reads its letters at once, or after what it is at, or when it is let run again. */
static uint64_t letter_delay(void *arg)
{
    struct sim *s = arg;

    switch (sim_roll(s, 8)) {
    case 0:
    case 1:
        return 0;
    case 2:
        return sim_between(s, 0, 400000);
    default:
        return sim_between(s, 0, 3000);
    }
}

static void play(uint64_t seed, struct sim *total)
{
    static const char *const modes[] = { "transaction", "session", "statement", "transaction" };
    struct sim *s = mem_alloc(sizeof(*s));
    char ini[1024], what[200];
    unsigned mode = (unsigned)(seed % 4);

    s->seed = seed;
    s->rng = seed * 2654435761u + 88172645463325252u;
    s->next_pid = 100;
    s->transactions = mode != 2;
    snprintf(ini, sizeof(ini),
             "auth_type = trust\npool_mode = %s\ndefault_pool_size = %u\n"
             "reserve_pool_size = %u\nreserve_pool_timeout = 1\n"
             "max_db_connections = %u\nmax_prepared_statements = %u\n"
             "query_wait_timeout = %u\nserver_lifetime = %u\nserver_idle_timeout = 3\n"
             "server_connect_timeout = 4\nserver_login_retry = 1\nserver_check_delay = %u\n"
             "server_round_robin = %u\nidle_transaction_timeout = %u\ncancel_wait_timeout = 5\n"
             "client_login_timeout = 20\nlog_connections = 0\nworker_threads = %u\n"
             "server_connect_parallel = %u\nworker_fill_percent = %u\n",
             modes[mode], 1 + sim_roll(s, 3), sim_roll(s, 2), sim_roll(s, 2) * 3,
             1 + sim_roll(s, 3), 10 + sim_roll(s, 60), sim_roll(s, 2) * 20, sim_roll(s, 2) * 2,
             sim_roll(s, 2), sim_roll(s, 2) * 5, 1 + sim_roll(s, 4), 1 + sim_roll(s, 4),
             sim_roll(s, 2) * 30);
    s->world = world_new(ini, "\"ann\" \"\"\n\"bob\" \"\"\n");
    if (sim_chance(s, 75)) {
        s->world->letter_delay = letter_delay;
        s->world->letter_arg = s;
    }
    s->first_config = config_ref(s->world->proxy->config);

    uint64_t until = sim_now(s) + PLAY_US;
    while (sim_now(s) < until) {
        disturb(s);
        turn(s);
        uint64_t at = sim_now(s);
        world_run_until(s->world, next_event(s));
        compute(s, sim_now(s) - at);
    }
    s->healed = true;
    proxy_resume(s->world->proxy, NULL);
    world_settle(s->world);
    until = sim_now(s) + HEAL_US;
    while (sim_now(s) < until && !all_quiet(s)) {
        turn(s);
        world_run_until(s->world, next_event(s));
    }
    for (unsigned i = 0; i < SIM_ASKERS; i++) {
        if (s->askers[i] != NULL && asker_waits(s->askers[i])) {
            asker_describe(s->askers[i], what, sizeof(what));
            sim_fail(s, "for ever: %s", what);
        }
    }
    for (unsigned i = 0; i < SIM_ASKERS; i++)
        if (s->askers[i] != NULL)
            asker_leave(s->askers[i]);
    until = sim_now(s) + HEAL_US;
    while (sim_now(s) < until && clients_left(s) > 0) {
        turn(s);
        world_run_until(s->world, next_event(s));
    }
    check_empty(s);
    total->n_rows += s->n_rows;
    total->n_canceled += s->n_canceled;
    total->n_told += s->n_told;
    total->n_faults += s->n_faults;

    s->world->letter_delay = NULL;
    world_settle(s->world);
    for (unsigned i = 0; i < SIM_ASKERS; i++)
        if (s->askers[i] != NULL)
            asker_free(s->askers[i]);
    while (s->cancels != NULL) {
        struct sim_cancel *c = s->cancels;
        s->cancels = c->next;
        link_free(c->link);
        free(c->link);
        free(c);
    }
    while (s->backends != NULL) {
        struct backend *b = s->backends;
        s->backends = *backend_next(b);
        backend_free(b);
    }
    world_free(s->world);
    config_unref(s->first_config);
    free(s);
}

static void test_every_asker_is_served_timed_out_or_told(void **state)
{
    const char *seed = getenv("SEED");
    const char *seeds = getenv("SEEDS");
    uint64_t n = seeds != NULL ? strtoull(seeds, NULL, 10) : SEEDS;
    struct sim total = { 0 };

    (void)state;
    if (seed != NULL) {
        play(strtoull(seed, NULL, 10), &total);
        return;
    }
    for (uint64_t i = 1; i <= n; i++)
        play(i, &total);
    print_message("%u rows, %u faults, %u statements canceled, %u sessions told\n", total.n_rows,
                  total.n_faults, total.n_canceled, total.n_told);
    /* A world in which nothing happens proves nothing. */
    assert_true(total.n_rows > n * 100 && total.n_faults > n && total.n_canceled > n / 2 &&
                total.n_told > n / 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_asker_is_served_timed_out_or_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
