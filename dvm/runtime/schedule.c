#include "dvm/runtime/schedule.h"

#include <stdlib.h>

#include "base/arena.h"

#define SECOND_US INT64_C(1000000)
/* A calculated stream table whose query reads the clock: as often as the shortest schedule. */
#define TIME_DEPENDENT_US SECOND_US

static int64_t unit_seconds(char unit)
{
    switch (unit) {
    case 's':
        return 1;
    case 'm':
        return 60;
    case 'h':
        return 3600;
    case 'd':
        return 86400;
    case 'w':
        return 604800;
    default:
        return 0;
    }
}

/* "1h30m" or "90". False when it is no duration or does not fit. */
static bool parse_duration(struct str s, int64_t *seconds)
{
    size_t i = 0;

    *seconds = 0;
    while (i < s.len) {
        int64_t n = 0, unit;
        size_t digits = 0;

        for (; i < s.len && s.ptr[i] >= '0' && s.ptr[i] <= '9'; i++, digits++)
            if (__builtin_mul_overflow(n, 10, &n) || __builtin_add_overflow(n, s.ptr[i] - '0', &n))
                return false;
        if (digits == 0)
            return false;
        if (i == s.len && digits == s.len)
            unit = 1;
        else if (i == s.len || (unit = unit_seconds(s.ptr[i++])) == 0)
            return false;
        if (__builtin_mul_overflow(n, unit, &n) || __builtin_add_overflow(*seconds, n, seconds))
            return false;
    }
    return s.len > 0;
}

bool schedule_parse(const char *text, struct schedule *s, const char **why)
{
    /* Ten years: the longest that keeps all arithmetic on microseconds far from overflow. */
    const int64_t longest = INT64_C(315360000);
    struct str t = str_trim(str_from(text));

    *s = (struct schedule){ .kind = SCHEDULE_CALCULATED };
    if (text == NULL || str_equal_nocase(t, STR("calculated")))
        return true;
    for (size_t i = 0; i < t.len; i++) {
        if (t.ptr[0] == '@' || t.ptr[i] == ' ' || t.ptr[i] == '\t' || t.ptr[i] == '\n') {
            s->kind = SCHEDULE_CRON;
            return cron_parse(t, &s->cron, why);
        }
    }
    s->kind = SCHEDULE_EVERY;
    if (!parse_duration(t, &s->seconds))
        *why = "not a duration";
    else if (s->seconds < 1)
        *why = "the shortest is 1s";
    else if (s->seconds > longest)
        *why = "the longest is ten years";
    else
        return true;
    return false;
}

enum schedule_tier schedule_tier_parse(const char *name)
{
    struct str s = str_from(name);

    if (str_equal_nocase(s, STR("warm")))
        return TIER_WARM;
    if (str_equal_nocase(s, STR("cold")))
        return TIER_COLD;
    if (str_equal_nocase(s, STR("frozen")))
        return TIER_FROZEN;
    return TIER_HOT;
}

static int64_t tier_factor(enum schedule_tier tier)
{
    switch (tier) {
    case TIER_HOT:
    case TIER_FROZEN:
        return 1;
    case TIER_WARM:
        return 2;
    case TIER_COLD:
        return 10;
    }
    return 1;
}

static int64_t floor_seconds(int64_t us)
{
    return us >= 0 ? us / SECOND_US : -((-us + SECOND_US - 1) / SECOND_US);
}

int64_t schedule_due_at(const struct schedule_table *t)
{
    int64_t at = INT64_MAX, fires;

    if (!t->runnable || t->tier == TIER_FROZEN)
        return INT64_MAX;
    if (!t->populated || t->needs_reinit || t->last_refresh_us == 0)
        return t->next_attempt_us;
    switch (t->schedule.kind) {
    case SCHEDULE_CALCULATED:
        if (t->has_changes)
            at = t->last_refresh_us;
        else if (t->time_dependent)
            at = t->last_refresh_us + TIME_DEPENDENT_US;
        break;
    case SCHEDULE_EVERY:
        at = t->last_refresh_us + t->schedule.seconds * SECOND_US * tier_factor(t->tier);
        break;
    case SCHEDULE_CRON:
        fires = cron_next(&t->schedule.cron, floor_seconds(t->last_refresh_us));
        if (fires != INT64_MAX)
            at = fires * SECOND_US;
        break;
    }
    return at > t->next_attempt_us ? at : t->next_attempt_us;
}

bool schedule_is_due(const struct schedule_table *t, int64_t now_us)
{
    return schedule_due_at(t) <= now_us;
}

/* ---- order ----------------------------------------------------------------------------------- */

struct by_id {
    int64_t pgt_id;
    int index;
};

static int compare_id(const void *a, const void *b)
{
    const struct by_id *x = a, *y = b;

    return (x->pgt_id > y->pgt_id) - (x->pgt_id < y->pgt_id);
}

struct walk {
    struct schedule_table *tables;
    struct by_id *ids;
    int n;
    char *seen;
};

static int index_of(const struct walk *w, int64_t pgt_id)
{
    struct by_id key = { .pgt_id = pgt_id };
    const struct by_id *found = bsearch(&key, w->ids, (size_t)w->n, sizeof(*w->ids), compare_id);

    return found != NULL ? found->index : -1;
}

/* Does t have to wait for something above it? seen stops at diamonds, and at circles, which the
 * catalog does not hold. stack has room for n. */
static bool has_to_wait(struct walk *w, const struct schedule_table *t, int *stack)
{
    int depth = 0;
    const struct schedule_table *at = t;

    memset(w->seen, 0, (size_t)w->n);
    w->seen[t - w->tables] = 1;
    for (;;) {
        for (int i = 0; i < at->n_upstream; i++) {
            int up = index_of(w, at->upstream[i]);
            const struct schedule_table *u;

            if (up < 0 || w->seen[up])
                continue;
            w->seen[up] = 1;
            u = &w->tables[up];
            if ((u->unit == 0 || u->unit != t->unit) && (u->running || u->due_since != 0) &&
                u->done < t->due_since)
                return true;
            stack[depth++] = up;
        }
        if (depth == 0)
            return false;
        at = &w->tables[stack[--depth]];
    }
}

/* ---- units ----------------------------------------------------------------------------------- */

static int compare_unit(const void *a, const void *b)
{
    const struct by_id *x = a, *y = b;
    int order = compare_id(a, b);

    return order != 0 ? order : (x->index > y->index) - (x->index < y->index);
}

/* All or none of the n tables whose indices are in members falls due. */
static void settle_unit(struct schedule_table *tables, const struct by_id *members, int n,
                        int64_t now_us, uint64_t look)
{
    bool can_start = true, any_due = false, any_clock = false, all_clocks_due = true;
    uint64_t since = look;

    for (int i = 0; i < n; i++) {
        const struct schedule_table *t = &tables[members[i].index];
        bool clock = t->schedule.kind != SCHEDULE_CALCULATED;

        can_start &= !t->running && t->runnable && t->tier != TIER_FROZEN;
        any_due |= t->due_since != 0;
        any_clock |= clock;
        all_clocks_due &= !clock || schedule_is_due(t, now_us);
        if (t->due_since != 0 && t->due_since < since)
            since = t->due_since;
    }
    if (tables[members[0].index].unit_slowest && any_clock)
        any_due = all_clocks_due;
    for (int i = 0; i < n; i++)
        tables[members[i].index].due_since = can_start && any_due ? since : 0;
}

static void settle_units(struct schedule_table *tables, int n, int64_t now_us, uint64_t look)
{
    struct by_id *members = mem_alloc((size_t)n * sizeof(*members));
    int n_members = 0;

    for (int i = 0; i < n; i++)
        if (tables[i].unit != 0)
            members[n_members++] = (struct by_id){ tables[i].unit, i };
    qsort(members, (size_t)n_members, sizeof(*members), compare_unit);
    for (int i = 0, k; i < n_members; i = k) {
        for (k = i + 1; k < n_members && members[k].pgt_id == members[i].pgt_id; k++)
            ;
        settle_unit(tables, members + i, k - i, now_us, look);
    }
    free(members);
}

static bool reads(const struct schedule_table *t, int64_t pgt_id)
{
    for (int i = 0; i < t->n_upstream; i++)
        if (t->upstream[i] == pgt_id)
            return true;
    return false;
}

int schedule_members(const struct schedule_table *tables, int n, int i, int *members)
{
    int count = 0, placed = 0;

    if (tables[i].unit == 0) {
        members[0] = i;
        return 1;
    }
    for (int k = 0; k < n; k++)
        if (tables[k].unit == tables[i].unit)
            members[count++] = k;
    /* The first of those left that reads none of those left; in a circle, which the catalog does
     * not hold, the first. */
    for (; placed < count; placed++) {
        int next = placed, moved;

        for (int k = placed; k < count; k++) {
            bool waits = false;

            for (int l = placed; l < count && !waits; l++)
                waits = l != k && reads(&tables[members[k]], tables[members[l]].pgt_id);
            if (!waits) {
                next = k;
                break;
            }
        }
        moved = members[next];
        for (int k = next; k > placed; k--)
            members[k] = members[k - 1];
        members[placed] = moved;
    }
    return count;
}

/* Does it wait for something above it, or for what another member of its unit waits for? Of a unit
 * only the member with the lowest index starts, for all. */
static bool is_held_up(struct walk *w, int i, int *stack)
{
    const struct schedule_table *t = &w->tables[i];

    if (t->unit == 0)
        return has_to_wait(w, t, stack);
    for (int k = 0; k < w->n; k++) {
        if (w->tables[k].unit == t->unit && (k < i || has_to_wait(w, &w->tables[k], stack)))
            return true;
    }
    return false;
}

int schedule_look(struct schedule_table *tables, int n, int64_t now_us, uint64_t look, int *ready)
{
    struct walk w = { .tables = tables, .n = n };
    int *stack = mem_alloc((size_t)n * sizeof(*stack));
    int n_ready = 0;

    w.ids = mem_alloc((size_t)n * sizeof(*w.ids));
    w.seen = mem_alloc((size_t)n);
    for (int i = 0; i < n; i++) {
        w.ids[i] = (struct by_id){ tables[i].pgt_id, i };
        if (tables[i].running || !schedule_is_due(&tables[i], now_us))
            tables[i].due_since = 0;
        else if (tables[i].due_since == 0)
            tables[i].due_since = look;
    }
    settle_units(tables, n, now_us, look);
    qsort(w.ids, (size_t)n, sizeof(*w.ids), compare_id);
    for (int i = 0; i < n; i++) {
        int at = n_ready;

        if (tables[i].due_since == 0 || is_held_up(&w, i, stack))
            continue;
        for (; at > 0 && tables[ready[at - 1]].due_since > tables[i].due_since; at--)
            ready[at] = ready[at - 1];
        ready[at] = i;
        n_ready++;
    }
    free(w.seen);
    free(w.ids);
    free(stack);
    return n_ready;
}
