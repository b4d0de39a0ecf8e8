#include "dvm/runtime/pulse.h"

#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/text.h"

/* More would be dear to compare: then everything is looked at until fewer run. */
#define RUNNING_BYTES_MAX 65536

#define LEAVE_WANTED                                                                               \
    "EXISTS (SELECT FROM pg_catalog.pg_locks l WHERE l.locktype = 'object' AND l.database = 0 "    \
    "AND l.classid = 'pg_catalog.pg_database'::pg_catalog.regclass AND l.granted "                 \
    "AND l.mode IN ('AccessExclusiveLock', 'ShareLock') "                                          \
    "AND l.objid = (SELECT d.oid FROM pg_catalog.pg_database d "                                   \
    "WHERE d.datname = pg_catalog.current_database()))"

static bool is_true(const char *cell)
{
    return cell != NULL && cell[0] == 't';
}

static const char *or_empty(const char *array)
{
    return array != NULL ? array : "{}";
}

/* A target list is evaluated from left to right: the number is read before the locks are. */
bool pulse_take(struct pulse *p, struct dvm_db *db, enum pulse_beat *beat, struct err *e)
{
    const char *number, *running;
    struct db_rows rows;
    struct text known;
    struct arena a;
    bool ok;

    arena_init(&a);
    text_init(&known);
    text_put_literal(&known, str_from(or_empty(p->running)));
    ok = db_query(db, &a, &rows, e,
                  "SELECT (SELECT last_value FROM pgtrickle.change_seq), "
                  "ARRAY(SELECT l.transactionid::pg_catalog.text FROM pg_catalog.pg_locks l "
                  "WHERE l.locktype = 'transactionid' AND l.mode = 'ExclusiveLock'), "
                  "%s <> '{}' AND EXISTS (SELECT FROM pg_catalog.pg_locks l "
                  "WHERE l.locktype = 'transactionid' AND l.mode = 'ExclusiveLock' "
                  "AND l.transactionid::pg_catalog.text = ANY (%s)), " LEAVE_WANTED,
                  known.ptr, known.ptr);
    text_free(&known);
    if (!ok || rows.n_rows != 1) {
        arena_free(&a);
        return ok ? err_set(e, ERR_BUG, "XX000", "a pulse without a row") : false;
    }
    number = or_empty(db_cell(&rows, 0, 0));
    running = or_empty(db_cell(&rows, 0, 1));
    if (is_true(db_cell(&rows, 0, 3))) {
        *beat = PULSE_GIVE_WAY;
    } else if (p->number == NULL || strcmp(p->number, number) != 0 || p->running == NULL) {
        free(p->number);
        free(p->running);
        p->number = mem_strdup(number);
        p->running = strlen(running) <= RUNNING_BYTES_MAX ? mem_strdup(running) : NULL;
        p->settled = strcmp(running, "{}") == 0;
        *beat = PULSE_NEWS;
    } else if (!p->settled) {
        p->settled = !is_true(db_cell(&rows, 0, 2));
        *beat = PULSE_NEWS;
    } else {
        *beat = PULSE_QUIET;
    }
    arena_free(&a);
    return true;
}

bool pulse_gives_way(struct dvm_db *db, bool *give_way, struct err *e)
{
    struct db_rows rows;
    struct arena a;
    bool ok;

    arena_init(&a);
    ok = db_query(db, &a, &rows, e, "SELECT " LEAVE_WANTED);
    *give_way = ok && is_true(db_cell(&rows, 0, 0));
    arena_free(&a);
    return ok;
}

void pulse_fini(struct pulse *p)
{
    free(p->number);
    free(p->running);
}
