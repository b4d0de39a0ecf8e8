/* What is due, and who waits for whom. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dvm/runtime/schedule.h"

#define SECOND INT64_C(1000000)
#define NOW (INT64_C(1700000000) * SECOND)

/* ACTIVE, populated, refreshed just now. */
static struct schedule_table table(int64_t pgt_id, const char *schedule)
{
    struct schedule_table t = { .pgt_id = pgt_id,
                                .tier = TIER_HOT,
                                .runnable = true,
                                .populated = true,
                                .last_refresh_us = NOW };
    const char *why = "";

    if (!schedule_parse(schedule, &t.schedule, &why))
        fail_msg("\"%s\": %s", schedule, why);
    return t;
}

static void test_durations(void **state)
{
    static const struct {
        const char *text;
        int64_t seconds;
    } good[] = { { "5s", 5 },       { "2m", 120 },
                 { "1h30m", 5400 }, { "1d", 86400 },
                 { "2w", 1209600 }, { "90", 90 },
                 { "1s1s", 2 },     { " 7s ", 7 },
                 { "3600", 3600 },  { "315360000s", 315360000 } };
    static const char *const bad[] = { "",
                                       "s",
                                       "0",
                                       "0s",
                                       "5x",
                                       "1h30",
                                       "-5s",
                                       "1.5s",
                                       "5 s",
                                       "5S",
                                       "99999999999999999999s",
                                       "9223372036854775807w",
                                       "315360001s",
                                       "IMMEDIATE" };

    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        struct schedule_table t = table(1, good[i].text);

        assert_int_equal(t.schedule.kind, SCHEDULE_EVERY);
        assert_int_equal(t.schedule.seconds, good[i].seconds);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        const char *why = NULL;
        struct schedule s;

        if (schedule_parse(bad[i], &s, &why))
            fail_msg("\"%s\" was taken", bad[i]);
        assert_non_null(why);
    }
}

static void test_kinds(void **state)
{
    (void)state;
    assert_int_equal(table(1, NULL).schedule.kind, SCHEDULE_CALCULATED);
    assert_int_equal(table(1, "Calculated").schedule.kind, SCHEDULE_CALCULATED);
    assert_int_equal(table(1, "@hourly").schedule.kind, SCHEDULE_CRON);
    assert_int_equal(table(1, "*/5 * * * *").schedule.kind, SCHEDULE_CRON);
}

static void test_duration_times_tier(void **state)
{
    struct schedule_table t = table(1, "5s");

    (void)state;
    assert_false(schedule_is_due(&t, NOW + 5 * SECOND - 1));
    assert_true(schedule_is_due(&t, NOW + 5 * SECOND));
    t.tier = TIER_WARM;
    assert_false(schedule_is_due(&t, NOW + 10 * SECOND - 1));
    assert_true(schedule_is_due(&t, NOW + 10 * SECOND));
    t.tier = TIER_COLD;
    assert_false(schedule_is_due(&t, NOW + 50 * SECOND - 1));
    assert_true(schedule_is_due(&t, NOW + 50 * SECOND));
    t.tier = TIER_FROZEN;
    assert_false(schedule_is_due(&t, NOW + 50000 * SECOND));
    assert_int_equal(schedule_tier_parse("WARM"), TIER_WARM);
    assert_int_equal(schedule_tier_parse("frozen"), TIER_FROZEN);
    assert_int_equal(schedule_tier_parse(NULL), TIER_HOT);
}

static void test_cron_fires_once_for_each_time(void **state)
{
    struct schedule_table t = table(1, "@hourly");
    int64_t hour = INT64_C(1700002800) * SECOND; /* 23:00:00 */

    (void)state;
    t.last_refresh_us = hour - 10 * SECOND;
    assert_false(schedule_is_due(&t, hour - 1));
    assert_true(schedule_is_due(&t, hour));
    assert_true(schedule_is_due(&t, hour + 7200 * SECOND));
    t.last_refresh_us = hour + 1;
    assert_false(schedule_is_due(&t, hour + 3599 * SECOND));
    assert_true(schedule_is_due(&t, hour + 3600 * SECOND));
}

static void test_calculated_follows_changes_and_time(void **state)
{
    struct schedule_table t = table(1, NULL);

    (void)state;
    assert_false(schedule_is_due(&t, NOW + 1000 * SECOND));
    t.has_changes = true;
    assert_true(schedule_is_due(&t, NOW));
    t.has_changes = false;
    t.time_dependent = true;
    assert_false(schedule_is_due(&t, NOW + SECOND - 1));
    assert_true(schedule_is_due(&t, NOW + SECOND));
}

static void test_unfilled_is_due_unless_told_to_wait(void **state)
{
    struct schedule_table t = table(1, "1h");

    (void)state;
    t.populated = false;
    assert_true(schedule_is_due(&t, NOW));
    t.next_attempt_us = NOW + SECOND;
    assert_false(schedule_is_due(&t, NOW));
    assert_true(schedule_is_due(&t, NOW + SECOND));
    t.runnable = false;
    assert_false(schedule_is_due(&t, NOW + SECOND));
    t = table(1, "1h");
    t.needs_reinit = true;
    assert_true(schedule_is_due(&t, NOW));
}

static void test_due_time_is_foreseen(void **state)
{
    struct schedule_table t = table(1, "5s");

    (void)state;
    assert_int_equal(schedule_due_at(&t), NOW + 5 * SECOND);
    t.next_attempt_us = NOW + 7 * SECOND;
    assert_int_equal(schedule_due_at(&t), NOW + 7 * SECOND);
    t = table(1, NULL);
    assert_int_equal(schedule_due_at(&t), INT64_MAX);
    t = table(1, "@hourly");
    assert_int_equal(schedule_due_at(&t), INT64_C(1700002800) * SECOND);
    t.tier = TIER_FROZEN;
    assert_int_equal(schedule_due_at(&t), INT64_MAX);
}

static void test_downstream_waits_for_its_upstreams(void **state)
{
    static const int64_t reads_1[] = { 1 }, reads_2[] = { 2 };
    struct schedule_table t[3] = { table(3, "1s"), table(2, NULL), table(1, "1s") };
    int64_t now = NOW + 2 * SECOND;
    int ready[3];

    (void)state;
    t[0].upstream = reads_2; /* 3 reads 2 reads 1 */
    t[0].n_upstream = 1;
    t[1].upstream = reads_1;
    t[1].n_upstream = 1;

    /* 2 is not due yet, and still 3 waits for 1 through it. */
    assert_int_equal(schedule_look(t, 3, now, 1, ready), 1);
    assert_int_equal(t[ready[0]].pgt_id, 1);

    t[2].running = true;
    assert_int_equal(schedule_look(t, 3, now, 2, ready), 0);

    /* 1 ran and changed: now 2 is due, and 3 waits for it. */
    t[2].running = false;
    t[2].due_since = 0;
    t[2].done = 2;
    t[2].last_refresh_us = now;
    t[1].has_changes = true;
    assert_int_equal(schedule_look(t, 3, now, 3, ready), 1);
    assert_int_equal(t[ready[0]].pgt_id, 2);

    t[1].done = 3;
    t[1].has_changes = false;
    t[1].last_refresh_us = now;
    assert_int_equal(schedule_look(t, 3, now, 4, ready), 1);
    assert_int_equal(t[ready[0]].pgt_id, 3);
}

static void test_busy_upstream_starves_nobody(void **state)
{
    static const int64_t reads_1[] = { 1 };
    struct schedule_table t[2] = { table(1, "1s"), table(2, "1s") };
    int64_t now = NOW + 2 * SECOND;
    int ready[2];

    (void)state;
    t[1].upstream = reads_1;
    t[1].n_upstream = 1;
    assert_int_equal(schedule_look(t, 2, now, 1, ready), 1);
    assert_int_equal(t[ready[0]].pgt_id, 1);

    /* It took so long that it is due again at once; the other has waited and goes first. */
    t[0].due_since = 0;
    t[0].done = 1;
    t[0].last_refresh_us = now;
    now += 2 * SECOND;
    assert_int_equal(schedule_look(t, 2, now, 2, ready), 2);
    assert_int_equal(t[ready[0]].pgt_id, 2);
    assert_int_equal(t[ready[1]].pgt_id, 1);
}

static void test_circle_in_a_damaged_catalog_ends(void **state)
{
    static const int64_t reads_1[] = { 1 }, reads_2[] = { 2, 1, 99 };
    struct schedule_table t[2] = { table(1, "1s"), table(2, "1h") };
    int ready[2];

    (void)state;
    t[0].upstream = reads_2;
    t[0].n_upstream = 3;
    t[1].upstream = reads_1;
    t[1].n_upstream = 1;
    assert_int_equal(schedule_look(t, 2, NOW + 2 * SECOND, 1, ready), 1);
    assert_int_equal(t[ready[0]].pgt_id, 1);
}

static void test_running_is_not_started_again(void **state)
{
    struct schedule_table t = table(1, "1s");
    int ready[1];

    (void)state;
    t.running = true;
    assert_int_equal(schedule_look(&t, 1, NOW + 9 * SECOND, 1, ready), 0);
    assert_int_equal(schedule_look(NULL, 0, NOW, 1, ready), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_durations),
        cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_duration_times_tier),
        cmocka_unit_test(test_cron_fires_once_for_each_time),
        cmocka_unit_test(test_calculated_follows_changes_and_time),
        cmocka_unit_test(test_unfilled_is_due_unless_told_to_wait),
        cmocka_unit_test(test_due_time_is_foreseen),
        cmocka_unit_test(test_downstream_waits_for_its_upstreams),
        cmocka_unit_test(test_busy_upstream_starves_nobody),
        cmocka_unit_test(test_circle_in_a_damaged_catalog_ends),
        cmocka_unit_test(test_running_is_not_started_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
