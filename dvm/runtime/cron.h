/* Cron expressions: parse, and when do they fire next. Pure; UTC only.
 *
 * Five fields (minute hour day-of-month month day-of-week) or six, with seconds
 * first; '*', lists, ranges, steps, three-letter names of months and days, 7 for
 * Sunday; @hourly @daily @midnight @weekly @monthly @yearly @annually. As in
 * crontab(5): when both day fields are restricted (neither starts with '*'), a day
 * that matches either of them fires. "n/s" means "from n to the end, every s".
 */
#ifndef PGTRICKLE_DVM_RUNTIME_CRON_H
#define PGTRICKLE_DVM_RUNTIME_CRON_H

#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"

/* Bit n of a mask: value n matches. */
struct cron {
    uint64_t seconds; /* 1 << 0 with five fields */
    uint64_t minutes;
    uint32_t hours;
    uint32_t days;    /* bits 1..31 */
    uint16_t months;  /* bits 1..12 */
    uint8_t weekdays; /* bits 0 (Sunday)..6 */
    bool any_day;     /* the field starts with '*' */
    bool any_weekday;
};

/* False and *why (a static text) when it is no cron expression, or one that never fires ("0 0 30 2
 * *"). Letters of either case. */
bool cron_parse(struct str text, struct cron *c, const char **why);

/* The first time strictly after `after`, both in seconds since 1970 UTC; INT64_MAX when there is
 * none before the year 10000. */
int64_t cron_next(const struct cron *c, int64_t after);

#endif
