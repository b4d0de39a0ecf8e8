/* Any text as a cron expression, from any time: the next firing matches the expression by the C
 * library's calendar, and stepping there finds none before it. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/text.h"
#include "dvm/runtime/cron.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define STEPS_MAX 20000

static void must(bool ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "fuzz_cron: %s\n", what);
    abort();
}

static bool day_fires(const struct cron *c, const struct tm *tm)
{
    bool day = (c->days >> tm->tm_mday & 1) != 0;
    bool weekday = (c->weekdays >> tm->tm_wday & 1) != 0;

    return c->any_day || c->any_weekday ? day && weekday : day || weekday;
}

static bool minute_fires(const struct cron *c, int64_t t)
{
    time_t when = (time_t)t;
    struct tm tm;

    gmtime_r(&when, &tm);
    return (c->minutes >> tm.tm_min & 1) != 0 && (c->hours >> tm.tm_hour & 1) != 0 &&
           (c->months >> (tm.tm_mon + 1) & 1) != 0 && day_fires(c, &tm);
}

static bool fires(const struct cron *c, int64_t t)
{
    int64_t second = ((t % 60) + 60) % 60;

    return (c->seconds >> second & 1) != 0 && minute_fires(c, t - second);
}

static void put_mask(struct text *t, uint64_t mask)
{
    const char *comma = "";

    for (int i = 0; i < 64; i++) {
        if ((mask >> i & 1) == 0)
            continue;
        text_printf(t, "%s%d", comma, i);
        comma = ",";
    }
    text_put_char(t, ' ');
}

/* Written out as lists, the same expression. */
static void check_lists(const struct cron *c)
{
    struct cron again;
    struct text t;
    const char *why = "";

    text_init(&t);
    put_mask(&t, c->seconds);
    put_mask(&t, c->minutes);
    put_mask(&t, c->hours);
    put_mask(&t, c->days);
    put_mask(&t, c->months);
    put_mask(&t, c->weekdays);
    must(cron_parse(text_str(&t), &again, &why), t.ptr);
    must(again.seconds == c->seconds && again.minutes == c->minutes && again.hours == c->hours &&
             again.days == c->days && again.months == c->months && again.weekdays == c->weekdays,
         "lists mean something else");
    text_free(&t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cron c;
    const char *why = NULL;
    int64_t after, next, from;
    uint32_t minutes;

    if (size < sizeof(minutes))
        return 0;
    memcpy(&minutes, data, sizeof(minutes));
    after = (int64_t)minutes * 60 - INT64_C(60) * 1000000000 + size % 60;
    if (!cron_parse((struct str){ (const char *)data + sizeof(minutes), size - sizeof(minutes) },
                    &c, &why)) {
        must(why != NULL, "refused without a reason");
        return 0;
    }
    must(c.seconds != 0 && c.minutes != 0 && c.hours != 0 && c.days != 0 && c.months != 0 &&
             c.weekdays != 0,
         "a field that matches nothing");
    check_lists(&c);
    next = cron_next(&c, after);
    if (next == INT64_MAX)
        return 0;
    must(next > after && fires(&c, next), "fires at another time");
    /* The rest of the first minute by seconds, then whole minutes up to that of next, which fires
     * at no second before. */
    for (from = after + 1; from < next && from % 60 != 0; from++)
        must(!fires(&c, from), "missed in the first minute");
    for (int i = 0; i < STEPS_MAX && from + 60 <= next; i++, from += 60)
        must(!minute_fires(&c, from), "missed a minute");
    if (from <= next && next - from < 60)
        for (; from < next; from++)
            must(!fires(&c, from), "missed in the last minute");
    return 0;
}
