#include "proxy/stats.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void test_averages_are_of_the_last_whole_period(void **state)
{
    (void)state;
    struct stats_window w;
    struct stats s = { .xacts = 100, .xact_us = 5000 };
    stats_window_init(&w, 1000000);
    assert_int_equal(stats_window_average(&w).xacts, 0);

    stats_window_roll(&w, &s, 11000000);
    assert_int_equal(stats_window_average(&w).xacts, 10);
    assert_int_equal(stats_window_average(&w).xact_us, 50);

    s.xacts += 20;
    s.xact_us += 20 * 70;
    /* Not yet: the period still runs. */
    assert_int_equal(stats_window_average(&w).xacts, 10);
    stats_window_roll(&w, &s, 21000000);
    assert_int_equal(stats_window_average(&w).xacts, 2);
    assert_int_equal(stats_window_average(&w).xact_us, 70);
}

static void test_each_average_has_its_divisor(void **state)
{
    (void)state;
    struct stats_window w;
    struct stats s = {
        .server_assignments = 8,
        .xacts = 4,
        .queries = 10,
        .client_bytes = 2000,
        .server_bytes = 4000,
        .xact_us = 400,
        .query_us = 500,
        .wait_us = 1600,
        .client_parses = 6,
        .server_parses = 2,
        .binds = 12,
        .client_logins = 14,
    };
    stats_window_init(&w, 0);
    stats_window_roll(&w, &s, 2000000);
    struct stats avg = stats_window_average(&w);
    assert_int_equal(avg.server_assignments, 4);
    assert_int_equal(avg.xacts, 2);
    assert_int_equal(avg.queries, 5);
    assert_int_equal(avg.client_bytes, 1000);
    assert_int_equal(avg.server_bytes, 2000);
    assert_int_equal(avg.xact_us, 100);
    assert_int_equal(avg.query_us, 50);
    assert_int_equal(avg.wait_us, 200);
    assert_int_equal(avg.client_parses, 3);
    assert_int_equal(avg.server_parses, 1);
    assert_int_equal(avg.binds, 6);
    assert_int_equal(avg.client_logins, 7);

    struct stats sum = s;
    stats_add(&sum, &s);
    assert_int_equal(sum.client_logins, 28);
    assert_int_equal(sum.server_assignments, 16);
    assert_int_equal(sum.wait_us, 3200);
}

static void test_huge_counters_do_not_overflow(void **state)
{
    (void)state;
    struct stats_window w;
    struct stats s = { .server_bytes = UINT64_C(1) << 50 };
    stats_window_init(&w, 0);
    stats_window_roll(&w, &s, 1000000);
    assert_true(stats_window_average(&w).server_bytes == UINT64_C(1) << 50);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_averages_are_of_the_last_whole_period),
        cmocka_unit_test(test_each_average_has_its_divisor),
        cmocka_unit_test(test_huge_counters_do_not_overflow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
