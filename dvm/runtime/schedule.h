/* What is due, and in which order. Pure: rows of the catalog and a clock in, a list out.
 *
 * Times are microseconds since 1970 by the database's clock, which also wrote
 * last_refresh_at; nothing compares it with ours.
 *
 * Order: a stream table waits for every one that it reads, directly or not, that is
 * running or due too, but only once: when the upstream has been refreshed since
 * the waiting one fell due, it waits no more. So an upstream that is always due
 * can't starve those that read it. "Calculated" ones fall due by what their
 * sources' buffers hold, so they follow their upstreams when the state is read
 * again after those have run.
 *
 * Stream tables of one unit start together: in one transaction, all or nothing.
 */
#ifndef PGTRICKLE_DVM_RUNTIME_SCHEDULE_H
#define PGTRICKLE_DVM_RUNTIME_SCHEDULE_H

#include <stdbool.h>
#include <stdint.h>

#include "dvm/runtime/cron.h"

enum schedule_kind { SCHEDULE_CALCULATED, SCHEDULE_EVERY, SCHEDULE_CRON };

struct schedule {
    enum schedule_kind kind;
    int64_t seconds;  /* SCHEDULE_EVERY */
    struct cron cron; /* SCHEDULE_CRON */
};

/* NULL or "calculated", "1h30m", "90" (seconds), a cron expression. False and *why (static). */
bool schedule_parse(const char *text, struct schedule *s, const char **why);

enum schedule_tier { TIER_HOT, TIER_WARM, TIER_COLD, TIER_FROZEN };
/* Unknown names are hot. */
enum schedule_tier schedule_tier_parse(const char *name);

struct schedule_table {
    int64_t pgt_id;
    struct schedule schedule;
    enum schedule_tier tier;
    bool runnable; /* ACTIVE or INITIALIZING, not IMMEDIATE with rows, no request pending */
    bool populated;
    bool needs_reinit;
    bool has_changes;        /* an upstream's buffer holds rows that it has not consumed */
    bool time_dependent;     /* its rows change with no DML */
    int64_t last_refresh_us; /* 0: never */
    int64_t next_attempt_us; /* 0: at once; after errors */
    const int64_t *upstream; /* pgt_ids that it reads directly */
    int n_upstream;
    int64_t unit;      /* 0: alone; else that of all that are refreshed with it */
    bool unit_slowest; /* due when all members with a clock of their own are; else when any is */

    /* Remembered by the caller from one look to the next; 0 in a new one. */
    bool running;
    uint64_t due_since; /* number of the look that found it due; 0: not due */
    uint64_t done;      /* number of the last look before its last refresh ended */
};

/* Due, whatever its upstreams do. */
bool schedule_is_due(const struct schedule_table *t, int64_t now_us);

/* When it falls due by the clock alone; INT64_MAX: not foreseeable. A time that has passed: it is
 * due, or kept by something else. */
int64_t schedule_due_at(const struct schedule_table *t);

/* The look number `look` (1, 2, ...): sets due_since, and writes the indices of those that may
 * start now to ready (room for n), longest due first; one for a unit. Answers how many. */
int schedule_look(struct schedule_table *tables, int n, int64_t now_us, uint64_t look, int *ready);

/* The indices of what is refreshed with tables[i], itself included, each behind those that it
 * reads; members has room for n. Answers how many: 1 when it is alone. */
int schedule_members(const struct schedule_table *tables, int n, int i, int *members);

#endif
