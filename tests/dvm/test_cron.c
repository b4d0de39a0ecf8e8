/* Cron expressions: examples, and brute force over every second of a while. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <cmocka.h>

#include "dvm/runtime/cron.h"

static struct cron parsed(const char *text)
{
    struct cron c;
    const char *why = "";

    if (!cron_parse(str_from(text), &c, &why))
        fail_msg("\"%s\": %s", text, why);
    return c;
}

static int64_t at(int year, int month, int day, int hour, int minute, int second)
{
    struct tm t = { .tm_year = year - 1900,
                    .tm_mon = month - 1,
                    .tm_mday = day,
                    .tm_hour = hour,
                    .tm_min = minute,
                    .tm_sec = second };

    return (int64_t)timegm(&t);
}

static void expect_next(const char *text, int64_t after, int64_t next)
{
    struct cron c = parsed(text);

    assert_int_equal(cron_next(&c, after), next);
}

static void test_next_is_strictly_after(void **state)
{
    (void)state;
    expect_next("*/5 * * * *", at(2024, 3, 1, 12, 5, 0), at(2024, 3, 1, 12, 10, 0));
    expect_next("*/5 * * * *", at(2024, 3, 1, 12, 4, 59), at(2024, 3, 1, 12, 5, 0));
    expect_next("* * * * * *", at(2024, 12, 31, 23, 59, 59), at(2025, 1, 1, 0, 0, 0));
}

static void test_leap_day_is_found_years_ahead(void **state)
{
    (void)state;
    expect_next("0 0 29 2 *", at(2024, 2, 29, 0, 0, 0), at(2028, 2, 29, 0, 0, 0));
    expect_next("0 0 29 2 *", at(2096, 3, 1, 0, 0, 0), at(2104, 2, 29, 0, 0, 0));
}

static void test_both_day_fields_restricted_means_either(void **state)
{
    (void)state;
    /* 2024-03-01 is a Friday. */
    expect_next("0 0 15 * mon", at(2024, 3, 1, 0, 0, 0), at(2024, 3, 4, 0, 0, 0));
    expect_next("0 0 2 * mon", at(2024, 3, 1, 0, 0, 0), at(2024, 3, 2, 0, 0, 0));
    /* A field that starts with a star restricts as well as the other: both. */
    expect_next("0 0 */2 * mon", at(2024, 3, 1, 0, 0, 0), at(2024, 3, 11, 0, 0, 0));
}

static void test_names_lists_ranges_steps(void **state)
{
    (void)state;
    expect_next("0 9-17/4 * JAN,Jul mon-FRI", at(2024, 2, 1, 0, 0, 0), at(2024, 7, 1, 9, 0, 0));
    expect_next("10/20 * * * *", at(2024, 2, 1, 0, 30, 0), at(2024, 2, 1, 0, 50, 0));
    expect_next("0 0 * * 7", at(2024, 3, 1, 0, 0, 0), at(2024, 3, 3, 0, 0, 0));
    expect_next("0 0 * * fri-sun", at(2024, 3, 2, 1, 0, 0), at(2024, 3, 3, 0, 0, 0));
    expect_next("15,45 30 4 1 1 *", at(2024, 1, 1, 4, 30, 15), at(2024, 1, 1, 4, 30, 45));
}

static void test_aliases(void **state)
{
    (void)state;
    expect_next("@hourly", at(2024, 3, 1, 0, 0, 0), at(2024, 3, 1, 1, 0, 0));
    expect_next("@Daily", at(2024, 3, 1, 0, 0, 0), at(2024, 3, 2, 0, 0, 0));
    expect_next("@weekly", at(2024, 3, 1, 0, 0, 0), at(2024, 3, 3, 0, 0, 0));
    expect_next("@monthly", at(2024, 3, 1, 0, 0, 0), at(2024, 4, 1, 0, 0, 0));
    expect_next("@yearly", at(2024, 3, 1, 0, 0, 0), at(2025, 1, 1, 0, 0, 0));
    expect_next("@annually", at(2024, 3, 1, 0, 0, 0), at(2025, 1, 1, 0, 0, 0));
}

static void test_nonsense_is_refused_with_a_reason(void **state)
{
    static const char *const wrong[] = {
        "",
        "*",
        "* * * *",
        "* * * * * * *",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * 32 * *",
        "* * * 13 *",
        "* * * 0 *",
        "* * * * 8",
        "5-1 * * * *",
        "*/0 * * * *",
        "1,,2 * * * *",
        ", * * * *",
        "1- * * * *",
        "a * * * *",
        "* * * foo *",
        "@fortnightly",
        "0 0 30 2 *",
        "0 0 31 4,6,9,11 *",
        "1.5 * * * *",
        "-1 * * * *",
        "99999999999 * * * *",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        const char *why = NULL;
        struct cron c;

        if (cron_parse(str_from(wrong[i]), &c, &why))
            fail_msg("\"%s\" was taken", wrong[i]);
        assert_non_null(why);
    }
}

/* The definition, second by second, with the C library's calendar. */
static bool fires(const struct cron *c, int64_t t)
{
    time_t when = (time_t)t;
    struct tm tm;
    bool day, weekday;

    gmtime_r(&when, &tm);
    day = (c->days >> tm.tm_mday & 1) != 0;
    weekday = (c->weekdays >> tm.tm_wday & 1) != 0;
    return (c->seconds >> tm.tm_sec & 1) != 0 && (c->minutes >> tm.tm_min & 1) != 0 &&
           (c->hours >> tm.tm_hour & 1) != 0 && (c->months >> (tm.tm_mon + 1) & 1) != 0 &&
           (c->any_day || c->any_weekday ? day && weekday : day || weekday);
}

static void test_every_firing_of_a_while_is_found(void **state)
{
    static const char *const texts[] = { "*/7 3-5 * * *", "0 0 1 * *", "30 12 * * sat",
                                         "0 6,18 13 * fri", "59 23 28-31 2,12 *" };

    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct cron c = parsed(texts[i]);
        int64_t start = at(2023, 12, 20, 0, 0, 0), end = at(2024, 3, 5, 0, 0, 0);
        int64_t next = cron_next(&c, start - 60);

        for (int64_t t = start; t < end; t += 60) {
            if (t == next)
                next = cron_next(&c, t);
            else
                assert_false(fires(&c, t));
        }
        assert_true(next >= end);
    }
}

static void test_ends_of_time(void **state)
{
    struct cron c = parsed("@daily");

    (void)state;
    assert_int_equal(cron_next(&c, INT64_MAX), INT64_MAX);
    assert_int_equal(cron_next(&c, at(9999, 12, 31, 12, 0, 0)), INT64_MAX);
    assert_int_equal(cron_next(&c, at(1969, 12, 31, 12, 0, 0)), 0);
    assert_true(cron_next(&c, INT64_MIN) < 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_next_is_strictly_after),
        cmocka_unit_test(test_leap_day_is_found_years_ahead),
        cmocka_unit_test(test_both_day_fields_restricted_means_either),
        cmocka_unit_test(test_names_lists_ranges_steps),
        cmocka_unit_test(test_aliases),
        cmocka_unit_test(test_nonsense_is_refused_with_a_reason),
        cmocka_unit_test(test_every_firing_of_a_while_is_found),
        cmocka_unit_test(test_ends_of_time),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
