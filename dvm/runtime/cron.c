#include "dvm/runtime/cron.h"

#include <stddef.h>

#define DAY_S 86400
#define YEAR_MAX 9999

struct field {
    int low, high;
    const char *names; /* three letters each, in order, or NULL */
    int first_name;    /* the value of the first of them */
};

enum { SECOND, MINUTE, HOUR, DAY, MONTH, WEEKDAY, N_FIELDS };

static const struct field fields[N_FIELDS] = {
    [SECOND] = { 0, 59, NULL, 0 },
    [MINUTE] = { 0, 59, NULL, 0 },
    [HOUR] = { 0, 23, NULL, 0 },
    [DAY] = { 1, 31, NULL, 0 },
    [MONTH] = { 1, 12, "janfebmaraprmayjunjulaugsepoctnovdec", 1 },
    [WEEKDAY] = { 0, 7, "sunmontuewedthufrisat", 0 },
};

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool take(struct str *s, char c)
{
    if (s->len == 0 || s->ptr[0] != c)
        return false;
    s->ptr++;
    s->len--;
    return true;
}

static bool take_number(struct str *s, int *value)
{
    size_t digits = 0;

    *value = 0;
    while (s->len > 0 && is_digit(s->ptr[0])) {
        if (++digits > 4)
            return false;
        *value = *value * 10 + (s->ptr[0] - '0');
        s->ptr++;
        s->len--;
    }
    return digits > 0;
}

static bool take_value(const struct field *f, struct str *s, int *value)
{
    int n = f->first_name;

    if (s->len == 0)
        return false;
    if (is_digit(s->ptr[0]))
        return take_number(s, value) && *value >= f->low && *value <= f->high;
    if (f->names == NULL || s->len < 3)
        return false;
    for (const char *name = f->names; *name != '\0'; name += 3, n++) {
        if (lower(s->ptr[0]) == name[0] && lower(s->ptr[1]) == name[1] &&
            lower(s->ptr[2]) == name[2]) {
            s->ptr += 3;
            s->len -= 3;
            *value = n;
            return true;
        }
    }
    return false;
}

/* One of the comma-separated parts: star or value or range, perhaps with a step. */
static bool take_part(const struct field *f, struct str *s, uint64_t *mask)
{
    int low = f->low, high = f->high, step = 1;
    bool open = true; /* without a step, a single value is only itself */

    if (!take(s, '*')) {
        if (!take_value(f, s, &low))
            return false;
        open = false;
        if (take(s, '-')) {
            if (!take_value(f, s, &high))
                return false;
            /* fri-sun: Sunday is 0 and 7. */
            if (f == &fields[WEEKDAY] && high == 0 && low > 0)
                high = 7;
            open = true;
        }
    }
    if (take(s, '/')) {
        if (!take_number(s, &step) || step == 0)
            return false;
    } else if (!open) {
        high = low;
    }
    if (high < low)
        return false;
    for (int v = low; v <= high; v += step)
        *mask |= UINT64_C(1) << v;
    return true;
}

static bool parse_field(const struct field *f, struct str s, uint64_t *mask)
{
    *mask = 0;
    do {
        if (!take_part(f, &s, mask))
            return false;
    } while (take(&s, ','));
    return s.len == 0;
}

/* Days since 1970-01-01 of a proleptic Gregorian date, and back; counted in eras of 400 years that
 * start in March, so that the leap day comes last. */
static int64_t days_of_date(int64_t year, int month, int day)
{
    int64_t y = month <= 2 ? year - 1 : year;
    int64_t era = (y >= 0 ? y : y - 399) / 400;
    int64_t year_of_era = y - era * 400;
    int64_t day_of_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;

    return era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year -
           719468;
}

static void date_of_days(int64_t days, int64_t *year, int *month, int *day)
{
    int64_t z = days + 719468;
    int64_t era = (z >= 0 ? z : z - 146096) / 146097;
    int64_t day_of_era = z - era * 146097;
    int64_t year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int shifted = (int)((5 * day_of_year + 2) / 153);

    *day = (int)(day_of_year - (153 * shifted + 2) / 5) + 1;
    *month = shifted < 10 ? shifted + 3 : shifted - 9;
    *year = year_of_era + era * 400 + (*month <= 2);
}

/* The lowest set bit at or above from, or -1. */
static int bit_from(uint64_t mask, int from)
{
    if (from >= 64)
        return -1;
    mask = mask >> from << from;
    return mask != 0 ? __builtin_ctzll(mask) : -1;
}

static bool day_matches(const struct cron *c, int64_t days, int day)
{
    int weekday = (int)(((days % 7) + 11) % 7); /* 1970-01-01 was a Thursday */
    bool by_day = (c->days >> day & 1) != 0;
    bool by_weekday = (c->weekdays >> weekday & 1) != 0;

    if (c->any_day || c->any_weekday)
        return by_day && by_weekday;
    return by_day || by_weekday;
}

/* The first matching second of the day at or after from, or -1. */
static int second_of_day(const struct cron *c, int from)
{
    for (int hour = bit_from(c->hours, from / 3600); hour >= 0;
         hour = bit_from(c->hours, hour + 1)) {
        int rest = hour == from / 3600 ? from % 3600 : 0;

        for (int minute = bit_from(c->minutes, rest / 60); minute >= 0;
             minute = bit_from(c->minutes, minute + 1)) {
            int second = bit_from(c->seconds, minute == rest / 60 ? rest % 60 : 0);

            if (second >= 0)
                return hour * 3600 + minute * 60 + second;
        }
    }
    return -1;
}

int64_t cron_next(const struct cron *c, int64_t after)
{
    const int64_t first = days_of_date(1, 1, 1) * DAY_S;
    int64_t t, days;
    int from;

    if (after >= days_of_date(YEAR_MAX, 12, 31) * DAY_S + DAY_S - 1)
        return INT64_MAX;
    t = after < first ? first : after + 1;
    days = (t >= 0 ? t : t - (DAY_S - 1)) / DAY_S;
    from = (int)(t - days * DAY_S);
    for (;; days++, from = 0) {
        int64_t year;
        int month, day, second;

        date_of_days(days, &year, &month, &day);
        if (year > YEAR_MAX)
            return INT64_MAX;
        if ((c->months >> month & 1) == 0) {
            days =
                (month == 12 ? days_of_date(year + 1, 1, 1) : days_of_date(year, month + 1, 1)) - 1;
            continue;
        }
        if (!day_matches(c, days, day))
            continue;
        second = second_of_day(c, from);
        if (second >= 0)
            return days * DAY_S + second;
    }
}

static bool expand_alias(struct str *text)
{
    static const struct {
        struct str name, means;
    } aliases[] = {
        { { "@hourly", 7 }, { "0 * * * *", 9 } },   { { "@daily", 6 }, { "0 0 * * *", 9 } },
        { { "@midnight", 9 }, { "0 0 * * *", 9 } }, { { "@weekly", 7 }, { "0 0 * * 0", 9 } },
        { { "@monthly", 8 }, { "0 0 1 * *", 9 } },  { { "@yearly", 7 }, { "0 0 1 1 *", 9 } },
        { { "@annually", 9 }, { "0 0 1 1 *", 9 } },
    };

    for (size_t i = 0; i < sizeof(aliases) / sizeof(aliases[0]); i++) {
        if (str_equal_nocase(*text, aliases[i].name)) {
            *text = aliases[i].means;
            return true;
        }
    }
    return false;
}

static int split(struct str text, struct str words[N_FIELDS])
{
    int n = 0;

    while (text.len > 0) {
        struct str word = { text.ptr, 0 };

        if (n == N_FIELDS)
            return n + 1;
        while (text.len > 0 && !is_blank(text.ptr[0])) {
            text.ptr++;
            text.len--;
            word.len++;
        }
        words[n++] = word;
        while (text.len > 0 && is_blank(text.ptr[0])) {
            text.ptr++;
            text.len--;
        }
    }
    return n;
}

bool cron_parse(struct str text, struct cron *c, const char **why)
{
    static const char *const wrong[N_FIELDS] = {
        "the seconds are wrong",         "the minutes are wrong", "the hours are wrong",
        "the day of the month is wrong", "the month is wrong",    "the day of the week is wrong",
    };
    uint64_t masks[N_FIELDS];
    struct str words[N_FIELDS];
    int n;

    *c = (struct cron){ 0 };
    text = str_trim(text);
    if (text.len > 0 && text.ptr[0] == '@' && !expand_alias(&text)) {
        *why = "unknown @ name";
        return false;
    }
    n = split(text, words);
    if (n == N_FIELDS - 1) {
        memmove(words + 1, words, sizeof(words) - sizeof(words[0]));
        words[SECOND] = STR("0");
    } else if (n != N_FIELDS) {
        *why = "a cron expression has five fields, or six with seconds";
        return false;
    }
    for (int i = 0; i < N_FIELDS; i++) {
        if (!parse_field(&fields[i], words[i], &masks[i])) {
            *why = wrong[i];
            return false;
        }
    }
    c->seconds = masks[SECOND];
    c->minutes = masks[MINUTE];
    c->hours = (uint32_t)masks[HOUR];
    c->days = (uint32_t)masks[DAY];
    c->months = (uint16_t)masks[MONTH];
    c->weekdays = (uint8_t)((masks[WEEKDAY] | masks[WEEKDAY] >> 7) & 0x7f);
    c->any_day = words[DAY].ptr[0] == '*';
    c->any_weekday = words[WEEKDAY].ptr[0] == '*';
    /* Every pattern of days and weekdays that exists comes within 400 years; leap days on a given
     * weekday within 40. */
    if (cron_next(c, 0) == INT64_MAX) {
        *why = "there is no such day";
        return false;
    }
    return true;
}
