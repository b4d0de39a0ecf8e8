/* Decisions of a pool, deadlines, limits that pools share. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "protocol/status.h"
#include "proxy/pool_policy.h"
#include "proxy/timers.h"
#include "tests/proxy/world.h"

#define USERS "\"ann\" \"secret\"\n\"bob\" \"secret\"\n"

static void test_as_many_are_opened_at_a_time_as_may_be(void **state)
{
    struct pool_facts f = { .waiting = 5, .pool_size = 10 };

    (void)state;
    assert_int_equal(pool_policy_open(&f), POOL_OPEN);
    f.opening = f.servers = 1;
    assert_int_equal(pool_policy_open(&f), POOL_OPEN_NOT);
    f.parallel = 2;
    assert_int_equal(pool_policy_open(&f), POOL_OPEN);
    f.opening = f.servers = 2;
    assert_int_equal(pool_policy_open(&f), POOL_OPEN_NOT);
    f.waiting = 0;
    f.opening = f.servers = 0;
    assert_int_equal(pool_policy_open(&f), POOL_OPEN_NOT);
}

static void test_the_reserve_opens_for_old_waiters_only(void **state)
{
    struct pool_facts f = {
        .waiting = 1, .servers = 3, .pool_size = 3, .reserve_size = 1, .reserve_timeout_us = 500
    };

    (void)state;
    assert_int_equal(pool_policy_open(&f), POOL_OPEN_NOT);
    f.longest_wait_us = 500;
    assert_int_equal(pool_policy_open(&f), POOL_OPEN_RESERVE);
    f.servers = 4;
    assert_int_equal(pool_policy_open(&f), POOL_OPEN_NOT);
}

static void test_failure_pauses_attempts(void **state)
{
    struct pool_facts f = { .waiting = 1, .rests = true };

    (void)state;
    assert_int_equal(pool_policy_open(&f), POOL_OPEN_NOT);
    f.rests = false;
    assert_int_equal(pool_policy_open(&f), POOL_OPEN);
    f.paused = true;
    assert_int_equal(pool_policy_open(&f), POOL_OPEN_NOT);
}

static void test_limits_ask_for_eviction(void **state)
{
    struct pool_facts f = { .waiting = 1, .db_servers = 2, .db_limit = 2 };

    (void)state;
    assert_int_equal(pool_policy_open(&f), POOL_OPEN_EVICT_DB);
    f = (struct pool_facts){ .waiting = 1, .user_servers = 2, .user_limit = 2 };
    assert_int_equal(pool_policy_open(&f), POOL_OPEN_EVICT_USER);
}

static void test_lifetime_is_spread(void **state)
{
    (void)state;
    assert_true(pool_policy_lifetime_over(1, 0, 10, 0)); /* 0: use once */
    assert_false(pool_policy_lifetime_over(999, 1000, 10, 1000));
    assert_true(pool_policy_lifetime_over(1000, 1000, 10, 100));
    assert_false(pool_policy_lifetime_over(1000, 1000, 10, 99));
}

/* ---- timers ----------------------------------------------------------------------------- */

static unsigned fired;
static uint64_t last_at;

static void note(struct timer *t)
{
    assert_true(t->at_us >= last_at);
    last_at = t->at_us;
    fired++;
}

static void test_timers_fire_in_order_and_unset_ones_never(void **state)
{
    enum { N = 500 };
    static struct timer timers[N];
    struct timers ts;
    unsigned unset = 0;

    (void)state;
    timers_init(&ts);
    fired = 0;
    last_at = 0;
    for (unsigned i = 0; i < N; i++)
        timer_set(&ts, &timers[i], (i * 7919u) % 1009u, note);
    for (unsigned i = 0; i < N; i += 3) {
        timer_unset(&ts, &timers[i]);
        unset++;
    }
    for (unsigned i = 1; i < N; i += 3)
        timer_set(&ts, &timers[i], 2000 - i, note); /* moved */
    timers_run(&ts, 1009);
    assert_int_equal(fired, N - unset - (N + 1) / 3);
    timers_run(&ts, 5000);
    assert_int_equal(fired, N - unset);
    assert_true(timers_next(&ts) == UINT64_MAX);
    timers_free(&ts);
}

/* ---- between pools ---------------------------------------------------------------------- */

static void test_a_full_database_evicts_the_idle_server_of_another_user(void **state)
{
    struct world *w =
        world_new("auth_type = trust\npool_mode = transaction\nmax_db_connections = 1\n", USERS);

    (void)state;
    struct peer *a = world_login(w, "ann", "db");
    struct peer *s = world_serve_login(w);
    peer_take(a);
    struct peer *b = world_login(w, "bob", "db");
    assert_null(s->conn); /* ann's was idle */
    struct peer *s2 = world_serve_login(w);
    assert_non_null(s2);
    assert_string_equal(peer_take(b), "RSSSSSSSKZ");
    /* A busy one is not taken away: ann waits until bob is done. */
    client_says_query(b, "begin");
    server_says_done(s2, "BEGIN", STATUS_IN_TRANSACTION);
    client_says_query(a, "select 1");
    assert_null(world_next_connect(w));
    client_says_query(b, "commit");
    server_says_done(s2, "COMMIT", STATUS_IDLE);
    assert_null(s2->conn);
    struct peer *s3 = world_serve_login(w);
    assert_non_null(s3);
    assert_string_equal(peer_take(s3), "Q");
    world_free(w);
}

static void test_the_reserve_serves_who_waited_long(void **state)
{
    struct world *w =
        world_new("auth_type = trust\npool_mode = transaction\ndefault_pool_size = 1\n"
                  "reserve_pool_size = 1\nreserve_pool_timeout = 3\n",
                  USERS);

    (void)state;
    struct peer *a = world_login(w, "ann", "db");
    struct peer *s = world_serve_login(w);
    struct peer *b = world_login(w, "ann", "db");
    client_says_query(a, "begin");
    server_says_done(s, "BEGIN", STATUS_IN_TRANSACTION);
    client_says_query(b, "select 1");
    world_sleep(w, 2.9);
    assert_null(world_next_connect(w));
    world_sleep(w, 0.2);
    struct peer *s2 = world_serve_login(w);
    assert_non_null(s2);
    assert_string_equal(peer_take(s2), "Q");
    world_free(w);
}

static void test_min_pool_size_is_kept_and_the_rest_goes_when_idle(void **state)
{
    struct world *w = world_new("auth_type = trust\npool_mode = transaction\nmin_pool_size = 2\n"
                                "server_idle_timeout = 10\n",
                                USERS);

    (void)state;
    struct peer *a = world_login(w, "ann", "db");
    world_serve_login(w);
    world_sleep(w, 1);
    assert_non_null(world_serve_login(w));
    world_sleep(w, 1);
    assert_null(world_next_connect(w)); /* two are enough */
    struct pool *p = peer_client(a)->pool;
    world_sleep(w, 30);
    assert_int_equal(pool_server_count(p), 2);
    world_free(w);
}

static void test_round_robin_takes_the_longest_idle(void **state)
{
    static const char *const inis[] = {
        "auth_type = trust\npool_mode = transaction\nmin_pool_size = 2\n",
        "auth_type = trust\npool_mode = transaction\nmin_pool_size = 2\nserver_round_robin = 1\n",
    };

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct world *w = world_new(inis[i], USERS);
        struct peer *a = world_login(w, "ann", "db");
        struct peer *older = world_serve_login(w);
        world_sleep(w, 1);
        struct peer *newer = world_serve_login(w);
        assert_non_null(newer);
        client_says_query(a, "select 1");
        assert_string_equal(peer_take(i == 1 ? older : newer), "Q");
        world_free(w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_as_many_are_opened_at_a_time_as_may_be),
        cmocka_unit_test(test_the_reserve_opens_for_old_waiters_only),
        cmocka_unit_test(test_failure_pauses_attempts),
        cmocka_unit_test(test_limits_ask_for_eviction),
        cmocka_unit_test(test_lifetime_is_spread),
        cmocka_unit_test(test_timers_fire_in_order_and_unset_ones_never),
        cmocka_unit_test(test_a_full_database_evicts_the_idle_server_of_another_user),
        cmocka_unit_test(test_the_reserve_serves_who_waited_long),
        cmocka_unit_test(test_min_pool_size_is_kept_and_the_rest_goes_when_idle),
        cmocka_unit_test(test_round_robin_takes_the_longest_idle),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
