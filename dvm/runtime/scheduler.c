/* The scheduler's threads.
 *
 *   keeper (one)       learns the databases from the configuration; starts and ends their threads
 *   database (one each) holds one connection and the advisory lock that makes it the scheduler of
 *                      that database; looks at the catalog every interval, hands out jobs
 *   worker (max_workers) runs jobs: a refresh, the completion of requests, a purge
 *
 * A thread for each database, so that a server that does not answer holds up nobody
 * else. What is due is decided by schedule.c from the catalog's rows; a database's
 * thread only remembers what is running. Nothing here is needed for correctness:
 * killed at any point, the next scheduler finds everything in the catalog.
 *
 * One mutex guards all shared state; it is never held over a call to a database.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/text.h"
#include "dvm/dvm.h"
#include "dvm/runtime/db_libpq.h"
#include "dvm/runtime/dvm_internal.h"
#include "dvm/runtime/pulse.h"
#include "dvm/runtime/schedule.h"

#define MS INT64_C(1000000) /* nanoseconds */
#define LOOK_FOR_SCHEMA_MS 30000
#define LEARN_DATABASES_MS 5000
#define RECONNECT_MIN_MS 500
#define RECONNECT_MAX_MS 15000
#define RECONNECT_UNKNOWN_MAX_MS 60000 /* while nothing says that it has stream tables */
#define RELOOK_MIN_MS 10
#define LOOKS_PER_INTERVAL 10
#define PURGE_EVERY_MS 5000
#define IDLE_CONNECTION_MS 60000
#define LOCK_TIMEOUT_MS 2000
#define LOCK_RETRY_MS 5000
#define CONFLICT_RETRIES 5
#define LOOK_AT_ALL_MS 5000 /* what no pulse tells: a relation that was dropped or renamed */
#define GIVE_WAY_MS 6000    /* whoever wants the database to itself has given up by then */
#define CHECK_PAUSE_MS 1000 /* between two checks, which may read much */

enum job_kind { JOB_REFRESH, JOB_CHECK, JOB_REQUESTS, JOB_PURGE };

struct job_member {
    int64_t pgt_id;
    char *relation; /* quoted, with its schema */
    char *owner;    /* quoted */
};

struct job {
    struct job *next;
    enum job_kind kind;
    struct database *database;
    struct job_member
        *members; /* JOB_REFRESH: of a unit, in the order to refresh; JOB_CHECK: one */
    int n_members;
};

/* What is remembered about a stream table between two looks. */
struct memo {
    int64_t pgt_id;
    bool seen; /* in the last look */
    bool running;
    bool has_readers;
    uint64_t due_since;
    uint64_t done;
    int64_t not_before_ns; /* monotonic: after a lock that we could not get */
};

struct database {
    struct scheduler *scheduler;
    char *name;
    char *conninfo;
    pthread_t thread;
    pthread_cond_t changed; /* a job ended, a wake, the end */
    bool wanted;            /* still configured; used by the keeper */
    bool leaving;
    bool ended;
    int jobs; /* handed out and not finished */
    bool requests_running;
    bool check_running;
    int64_t check_not_before_ns; /* monotonic */
    bool purge_running;
    bool purge_wanted;
    bool relook;         /* a job ended for which others wait */
    bool woken;          /* the last wait ended for one of these, or a wake */
    bool gave_way;       /* someone wants the database to itself: keep no connection */
    bool by_statistics;  /* the last look saw one that is due by counters, which no pulse tells */
    int64_t next_due_ns; /* monotonic: the earliest that the last look foresaw */
    uint64_t wakes_seen;
    uint64_t look;
    struct memo *memos;
    int n_memos;
};

/* A worker's connection, kept for the next job on the same database. */
struct idle_connection {
    struct idle_connection *next;
    struct db_libpq *connection;
    char *conninfo;
    int64_t since_ns;
};

struct scheduler {
    struct dvm *dvm;
    int stop_fd;
    pthread_mutex_t mutex;
    pthread_cond_t work;   /* for workers */
    pthread_cond_t keeper; /* for the keeper */
    bool stopping;
    uint64_t wakes;
    struct database **databases;
    int n_databases;
    struct job *first_job, **last_job;
    struct idle_connection *idle; /* latest first */
    pthread_t keeper_thread;
    bool keeper_runs;
    pthread_t *workers;
    int n_workers;
};

static int64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 * MS + t.tv_nsec;
}

static void cond_init_monotonic(pthread_cond_t *cond)
{
    pthread_condattr_t attr;

    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(cond, &attr);
    pthread_condattr_destroy(&attr);
}

/* Call with the mutex held. */
static void wait_until(struct scheduler *s, pthread_cond_t *cond, int64_t deadline_ns)
{
    struct timespec t = { .tv_sec = deadline_ns / (1000 * MS),
                          .tv_nsec = deadline_ns % (1000 * MS) };

    pthread_cond_timedwait(cond, &s->mutex, &t);
}

/* A random part of the delay, so that daemons that lost a server don't return in step. */
static int64_t with_jitter(int64_t ms)
{
    int64_t spread = ms / 2;

    return spread > 0 ? ms - spread + now_ns() / 1000 % (2 * spread) : ms;
}

/* ---- jobs ------------------------------------------------------------------------------------ */

static void job_free(struct job *j)
{
    for (int i = 0; i < j->n_members; i++) {
        free(j->members[i].relation);
        free(j->members[i].owner);
    }
    free(j->members);
    free(j);
}

/* Call with the mutex held. Takes the strings. */
static void job_push(struct database *d, struct job job)
{
    struct scheduler *s = d->scheduler;
    struct job *j = mem_alloc(sizeof(*j));

    *j = job;
    if (s->stopping) { /* the workers are going home */
        job_free(j);
        return;
    }
    j->next = NULL;
    j->database = d;
    d->jobs++;
    *s->last_job = j;
    s->last_job = &j->next;
    pthread_cond_signal(&s->work);
}

static struct memo *memo_find(struct database *d, int64_t pgt_id)
{
    for (int i = 0; i < d->n_memos; i++)
        if (d->memos[i].pgt_id == pgt_id)
            return &d->memos[i];
    return NULL;
}

static struct memo *memo_get(struct database *d, int64_t pgt_id)
{
    struct memo *m = memo_find(d, pgt_id);

    if (m != NULL)
        return m;
    d->memos = mem_realloc(d->memos, (size_t)(d->n_memos + 1) * sizeof(*d->memos));
    m = &d->memos[d->n_memos++];
    *m = (struct memo){ .pgt_id = pgt_id };
    return m;
}

/* Takes the connection that was used last for this database, or NULL. */
static struct db_libpq *idle_take(struct scheduler *s, const char *conninfo)
{
    struct db_libpq *found = NULL;

    pthread_mutex_lock(&s->mutex);
    for (struct idle_connection **at = &s->idle; *at != NULL; at = &(*at)->next) {
        struct idle_connection *idle = *at;

        if (strcmp(idle->conninfo, conninfo) != 0)
            continue;
        *at = idle->next;
        found = idle->connection;
        free(idle->conninfo);
        free(idle);
        break;
    }
    pthread_mutex_unlock(&s->mutex);
    return found;
}

/* Unlinks what has been idle too long or is too many; the caller closes it without the mutex. */
static struct idle_connection *idle_expired(struct scheduler *s, int64_t now)
{
    struct idle_connection **at = &s->idle, *dead;

    for (int n = 0; *at != NULL; at = &(*at)->next, n++)
        if (n == s->n_workers || now - (*at)->since_ns >= IDLE_CONNECTION_MS * MS)
            break;
    dead = *at;
    *at = NULL;
    return dead;
}

/* Unlinks all of one database; the caller closes them. */
static struct idle_connection *idle_of(struct scheduler *s, const char *conninfo)
{
    struct idle_connection *found = NULL;

    pthread_mutex_lock(&s->mutex);
    for (struct idle_connection **at = &s->idle; *at != NULL;) {
        struct idle_connection *idle = *at;

        if (strcmp(idle->conninfo, conninfo) != 0) {
            at = &idle->next;
            continue;
        }
        *at = idle->next;
        idle->next = found;
        found = idle;
    }
    pthread_mutex_unlock(&s->mutex);
    return found;
}

static void idle_close(struct idle_connection *dead)
{
    while (dead != NULL) {
        struct idle_connection *next = dead->next;

        db_libpq_close(dead->connection);
        free(dead->conninfo);
        free(dead);
        dead = next;
    }
}

/* False: the connection must not be used again. */
static bool clean(struct db_libpq *c)
{
    struct err ignored = { 0 };
    bool ok = db_libpq_clean(c, &ignored);

    err_clear(&ignored);
    return ok;
}

static void idle_give(struct scheduler *s, struct db_libpq *c, const char *conninfo, bool keep)
{
    struct idle_connection *idle, *dead;

    if (!keep || !db_libpq_is_usable(c) || db_libpq_in_transaction(c) || !clean(c)) {
        db_libpq_close(c);
        return;
    }
    idle = mem_alloc(sizeof(*idle));
    idle->connection = c;
    idle->conninfo = mem_strdup(conninfo);
    idle->since_ns = now_ns();
    pthread_mutex_lock(&s->mutex);
    idle->next = s->idle;
    s->idle = idle;
    dead = idle_expired(s, idle->since_ns);
    pthread_mutex_unlock(&s->mutex);
    idle_close(dead);
}

static void rollback(struct db_libpq *c)
{
    struct err ignored = { 0 };

    if (db_libpq_is_usable(c) && db_libpq_in_transaction(c))
        db_exec(db_libpq_db(c), &ignored, "ROLLBACK");
    err_clear(&ignored);
}

/* Of a transaction in which code of users ran: none of it may be left to run at COMMIT, as us. See
 * dvm/sql/35_runner.sql. */
static bool commit(struct db_libpq *c, struct err *e)
{
    struct dvm_db *db = db_libpq_db(c);

    return db_exec(db, e, "SELECT pgtrickle._seal()") && db_exec(db, e, "CLOSE ALL") &&
           db_exec(db, e, "COMMIT");
}

static bool is_conflict(const struct err *e)
{
    return e->class == ERR_SERVER &&
           (strcmp(e->sqlstate, "40001") == 0 || strcmp(e->sqlstate, "40P01") == 0);
}

/* A role that can't act as another says so in the server's language and without a hint; only asking
 * tells. role: quoted; NULL leaves *e as it is, as any doubt does. */
static void explain_denial(struct db_libpq *c, const char *role, struct err *e)
{
    struct err ignored = { 0 };
    struct db_rows rows;
    struct text name;
    struct arena a;

    if (e->class != ERR_SERVER || strcmp(e->sqlstate, "42501") != 0 || role == NULL)
        return;
    arena_init(&a);
    text_init(&name);
    text_put_literal(&name, str_from(role));
    if (db_query(db_libpq_db(c), &a, &rows, &ignored,
                 "SELECT pg_catalog.quote_ident(current_user) "
                 "WHERE NOT pg_catalog.pg_has_role(pg_catalog.to_regrole(%s), 'MEMBER')",
                 name.ptr) &&
        rows.n_rows == 1)
        err_set(e, ERR_SERVER, "42501", "pgtrickle's role %s may not act as %s: GRANT %s TO %s;",
                db_cell(&rows, 0, 0), role, role, db_cell(&rows, 0, 0));
    text_free(&name);
    arena_free(&a);
    err_clear(&ignored);
}

/* ---- a refresh ------------------------------------------------------------------------------- */

/* The locks come before the transaction's snapshot: LOCK TABLE takes none, so the statement after
 * them sees all that the last holder did, also in REPEATABLE READ. By pgt_id, whatever the order of
 * the refreshes: two that lock several never lock each other out. */
static bool begin_locked(struct db_libpq *c, const struct job *j, struct err *e)
{
    int64_t last = INT64_MIN;
    struct text sql;
    bool ok;

    text_init(&sql);
    text_put(&sql, "BEGIN ISOLATION LEVEL REPEATABLE READ");
    for (int n = 0; n < j->n_members; n++) {
        const struct job_member *next = NULL;

        for (int i = 0; i < j->n_members; i++)
            if (j->members[i].pgt_id > last &&
                (next == NULL || j->members[i].pgt_id < next->pgt_id))
                next = &j->members[i];
        if (next == NULL)
            break;
        last = next->pgt_id;
        text_printf(&sql,
                    "; SET LOCAL ROLE %s; SET LOCAL lock_timeout = %d; "
                    "LOCK TABLE %s IN SHARE UPDATE EXCLUSIVE MODE",
                    next->owner, LOCK_TIMEOUT_MS, next->relation);
    }
    text_put(&sql, "; SET LOCAL lock_timeout = 0; SET LOCAL ROLE NONE");
    ok = db_libpq_script(c, sql.ptr, e);
    text_free(&sql);
    return ok;
}

/* What one refresh of a transaction did. */
struct outcome {
    const char *action;
    struct db_rows history; /* no rows: nothing was written */
    int64_t ns;
};

static bool refresh_member(struct dvm_db *db, const struct job_member *m, struct arena *a,
                           struct outcome *o, struct err *e)
{
    int64_t started = now_ns();
    struct db_rows rows;

    *o = (struct outcome){ 0 };
    /* A gate may have been closed since it was handed out. */
    if (!db_query(db, a, &rows, e,
                  "SELECT CASE WHEN NOT EXISTS (SELECT FROM pgtrickle._held() h "
                  "WHERE h.pgt_id = %" PRId64 ") "
                  "THEN pgtrickle._refresh(%" PRId64 ", 'SCHEDULER') END",
                  m->pgt_id, m->pgt_id))
        return false;
    o->action = rows.n_rows == 1 && db_cell(&rows, 0, 0) != NULL ? db_cell(&rows, 0, 0) : "NONE";
    o->ns = now_ns() - started;
    return strcmp(o->action, "NO_DATA") == 0 || strcmp(o->action, "NONE") == 0 ||
           db_query(db, a, &o->history, e,
                    "SELECT rows_inserted, rows_updated, rows_deleted, reason "
                    "FROM pgtrickle.pgt_refresh_history WHERE pgt_id = %" PRId64
                    " ORDER BY refresh_id DESC LIMIT 1",
                    m->pgt_id);
}

/* A fuse blew: the unit waits as a whole. What was refreshed before goes back; that it blew stays.
 */
static bool skip_unit(struct db_libpq *c, const struct job *j, int blown, struct arena *a,
                      struct outcome *outcomes, struct err *e)
{
    const struct job alone = { .members = &j->members[blown], .n_members = 1 };

    for (int i = 0; i < j->n_members; i++)
        outcomes[i] = (struct outcome){ .action = "SKIP" };
    return db_exec(db_libpq_db(c), e, "ROLLBACK") && begin_locked(c, &alone, e) &&
           refresh_member(db_libpq_db(c), alone.members, a, &outcomes[blown], e) && commit(c, e);
}

/* *failed: the member at which it failed. */
static bool refresh_once(struct db_libpq *c, const struct job *j, struct arena *a,
                         struct outcome *outcomes, int *failed, struct err *e)
{
    *failed = 0;
    if (!begin_locked(c, j, e))
        return false;
    for (int i = 0; i < j->n_members; i++) {
        *failed = i;
        if (!refresh_member(db_libpq_db(c), &j->members[i], a, &outcomes[i], e))
            return false;
        if (strcmp(outcomes[i].action, "SKIP") == 0 && j->n_members > 1)
            return skip_unit(c, j, i, a, outcomes, e);
    }
    return commit(c, e);
}

static const char *or_zero(const char *cell)
{
    return cell != NULL ? cell : "0";
}

static bool changed_anything(const struct db_rows *history)
{
    for (int column = 0; column < 3; column++)
        if (strcmp(or_zero(db_cell(history, 0, column)), "0") != 0)
            return true;
    return db_cell(history, 0, 3) != NULL;
}

static void log_refresh(const struct job *j, const struct job_member *m, const struct outcome *o)
{
    const struct dvm *d = j->database->scheduler->dvm;
    const struct db_rows *history = &o->history;

    if (history->n_rows == 0 || !changed_anything(history))
        dvm_log(d, DVM_LOG_DEBUG, "refresh_done database=%s st=%s action=%s ms=%.1f",
                j->database->name, m->relation, o->action, (double)o->ns / (double)MS);
    else
        dvm_log(d, DVM_LOG_INFO,
                "refresh_done database=%s st=%s action=%s ms=%.1f ins=%s upd=%s del=%s",
                j->database->name, m->relation, o->action, (double)o->ns / (double)MS,
                or_zero(db_cell(history, 0, 0)), or_zero(db_cell(history, 0, 1)),
                or_zero(db_cell(history, 0, 2)));
}

/* In a transaction of its own, for the refresh's is gone. */
static void record_failure(struct db_libpq *c, const struct job *j, const struct job_member *m,
                           const struct err *why, int64_t started_ns)
{
    enum dvm_log_level level = DVM_LOG_ERROR;
    struct db_rows rows;
    struct arena a;
    const struct dvm *d = j->database->scheduler->dvm;
    struct text sql;
    struct err e = { 0 };

    text_init(&sql);
    text_printf(&sql, "SELECT pgtrickle._refresh_failed(%" PRId64 ", ", m->pgt_id);
    text_put_literal(&sql, str_from(why->sqlstate));
    text_put(&sql, ", ");
    text_put_literal(&sql, str_from(why->message));
    text_printf(&sql, ", pg_catalog.clock_timestamp() - interval '%.3f milliseconds')",
                (double)(now_ns() - started_ns) / (double)MS);
    arena_init(&a);
    if (!db_query(db_libpq_db(c), &a, &rows, &e, "%s", sql.ptr))
        dvm_log_err(d, DVM_LOG_ERROR, &e, "refresh_failure_not_recorded database=%s st=%s",
                    j->database->name, m->relation);
    else if (rows.n_rows == 1 && db_cell(&rows, 0, 0) == NULL)
        level = DVM_LOG_DEBUG; /* dropped meanwhile */
    dvm_log_err(d, level, why, "refresh_failed database=%s st=%s", j->database->name, m->relation);
    arena_free(&a);
    err_clear(&e);
    text_free(&sql);
}

static void run_refresh(struct db_libpq *c, const struct job *j, int64_t *not_before_ns)
{
    const struct dvm *d = j->database->scheduler->dvm;
    const struct job_member *m = &j->members[0];
    struct err e = { 0 };
    int64_t started = 0;
    bool ok = false;

    for (int attempt = 0; attempt <= CONFLICT_RETRIES; attempt++) {
        struct outcome *outcomes;
        struct arena a;
        int failed;

        started = now_ns();
        arena_init(&a);
        outcomes = arena_new_array(&a, struct outcome, (size_t)j->n_members);
        ok = refresh_once(c, j, &a, outcomes, &failed, &e);
        m = &j->members[failed];
        for (int i = 0; ok && i < j->n_members; i++)
            log_refresh(j, &j->members[i], &outcomes[i]);
        if (!ok)
            rollback(c);
        arena_free(&a);
        if (ok || !is_conflict(&e))
            break;
    }
    if (!ok && e.class == ERR_SERVER && strcmp(e.sqlstate, "55P03") == 0) {
        /* Someone is altering or refreshing it; that is no fault of the stream table's. */
        dvm_log_err(d, DVM_LOG_WARNING, &e, "refresh_waits database=%s st=%s", j->database->name,
                    m->relation);
        *not_before_ns = now_ns() + LOCK_RETRY_MS * MS;
    } else if (!ok && e.class == ERR_SERVER) {
        explain_denial(c, m->owner, &e);
        record_failure(c, j, m, &e, started);
        if (j->n_members > 1) /* what the others wait for, they wait for together */
            *not_before_ns = now_ns() + LOCK_RETRY_MS * MS;
    } else if (!ok) {
        /* The server went away, or we are stopping: nothing happened, and nobody is to blame. */
        dvm_log_err(d, e.class == ERR_RESOURCE ? DVM_LOG_DEBUG : DVM_LOG_WARNING, &e,
                    "refresh_interrupted database=%s st=%s", j->database->name, m->relation);
    }
    err_clear(&e);
}

/* The background's comparison of a stream table with its query. Nothing of it is kept but the
 * verdict: see dvm/sql/42_check.sql. */
static void run_check(struct db_libpq *c, const struct job *j)
{
    const struct dvm *d = j->database->scheduler->dvm;
    const struct job_member *m = &j->members[0];
    struct err e = { 0 };
    struct db_rows rows;
    struct arena a;

    arena_init(&a);
    if (begin_locked(c, j, &e) &&
        db_query(db_libpq_db(c), &a, &rows, &e,
                 "SELECT verdict, missing, extra, duration_ms FROM pgtrickle._check(%" PRId64 ")",
                 m->pgt_id) &&
        commit(c, &e)) {
        const char *verdict = db_cell(&rows, 0, 0);
        bool bad = verdict != NULL && strcmp(verdict, "MISMATCH") == 0;

        dvm_log(d, bad ? DVM_LOG_ERROR : DVM_LOG_DEBUG,
                "check_done database=%s st=%s verdict=%s missing=%s extra=%s ms=%s",
                j->database->name, m->relation, verdict != NULL ? verdict : "NONE",
                or_zero(db_cell(&rows, 0, 1)), or_zero(db_cell(&rows, 0, 2)),
                or_zero(db_cell(&rows, 0, 3)));
    } else {
        rollback(c);
        dvm_log_err(d, e.class == ERR_RESOURCE || is_conflict(&e) ? DVM_LOG_DEBUG : DVM_LOG_WARNING,
                    &e, "check_failed database=%s st=%s", j->database->name, m->relation);
    }
    arena_free(&a);
    err_clear(&e);
}

/* ---- requests of sessions that went around the daemon ------------------------------------------
 */

static void log_notice(void *arg, const char *severity, const char *message)
{
    const struct job *j = arg;

    dvm_log(j->database->scheduler->dvm, DVM_LOG_INFO,
            "request_notice database=%s severity=%s message=\"%s\"", j->database->name, severity,
            message);
}

/* caller: quoted. */
static void complete_request(struct db_libpq *c, struct job *j, const char *id, const char *caller)
{
    struct dvm *d = j->database->scheduler->dvm;
    struct dvm_db *db = db_libpq_db(c);
    struct err e = { 0 }, later = { 0 };
    char where[64];

    snprintf(where, sizeof(where), "request_id = %s AND error IS NULL", id);
    if (db_exec(db, &e, "BEGIN") && request_complete_where(d, db, where, log_notice, j, &e) &&
        commit(c, &e)) {
        dvm_log(d, DVM_LOG_INFO, "request_done database=%s request=%s", j->database->name, id);
        return;
    }
    rollback(c);
    explain_denial(c, caller, &e);
    dvm_log_err(d, DVM_LOG_ERROR, &e, "request_failed database=%s request=%s", j->database->name,
                id);
    /* Written by the owner of the catalog; a conflict or a lost server is tried again. */
    if (!is_conflict(&e) && e.class != ERR_PEER && e.class != ERR_RESOURCE) {
        struct text sql;

        text_init(&sql);
        text_printf(&sql, "SELECT pgtrickle._request_failed(%s, ", id);
        text_put_literal(&sql, str_from(e.message));
        text_put(&sql, ")");
        if (!db_exec(db, &later, "%s", sql.ptr))
            dvm_log_err(d, DVM_LOG_ERROR, &later, "request_failure_not_recorded database=%s",
                        j->database->name);
        text_free(&sql);
    }
    err_clear(&later);
    err_clear(&e);
}

static void run_requests(struct db_libpq *c, struct job *j)
{
    const struct dvm *d = j->database->scheduler->dvm;
    struct err e = { 0 };
    struct db_rows rows;
    struct arena a;

    arena_init(&a);
    if (!db_query(db_libpq_db(c), &a, &rows, &e,
                  "SELECT request_id, pg_catalog.quote_ident(caller) FROM pgtrickle.pgt_requests "
                  "WHERE error IS NULL "
                  "ORDER BY request_id")) {
        dvm_log_err(d, DVM_LOG_ERROR, &e, "requests_not_read database=%s", j->database->name);
        rows.n_rows = 0;
    }
    for (int i = 0; i < rows.n_rows && db_libpq_is_usable(c) && clean(c); i++)
        complete_request(c, j, db_cell(&rows, i, 0), db_cell(&rows, i, 1));
    arena_free(&a);
    err_clear(&e);
}

static void run_purge(struct db_libpq *c, const struct job *j)
{
    struct err e = { 0 };

    if (!db_exec(db_libpq_db(c), &e, "SELECT pgtrickle._purge()"))
        dvm_log_err(j->database->scheduler->dvm,
                    e.class == ERR_RESOURCE || is_conflict(&e) ? DVM_LOG_DEBUG : DVM_LOG_WARNING,
                    &e, "purge_failed database=%s", j->database->name);
    err_clear(&e);
}

/* ---- workers --------------------------------------------------------------------------------- */

/* A kept connection may have died with its server since it was kept; an empty statement tells, for
 * less than 0.1 ms. */
static struct db_libpq *connection_for(struct scheduler *s, const struct database *d, struct err *e)
{
    struct db_libpq *c;

    while ((c = idle_take(s, d->conninfo)) != NULL) {
        struct err dead = { 0 };
        bool alive = db_libpq_script(c, "", &dead);

        err_clear(&dead);
        if (alive)
            return c;
        db_libpq_close(c);
    }
    return db_libpq_open(d->conninfo, s->stop_fd, e);
}

static void job_finish(struct job *j, int64_t not_before_ns)
{
    struct database *d = j->database;
    struct scheduler *s = d->scheduler;
    struct memo *m;

    pthread_mutex_lock(&s->mutex);
    switch (j->kind) {
    case JOB_REFRESH:
        for (int i = 0; i < j->n_members; i++) {
            m = memo_find(d, j->members[i].pgt_id);
            if (m == NULL)
                continue;
            m->running = false;
            m->due_since = 0;
            m->done = d->look;
            m->not_before_ns = not_before_ns;
            d->relook |= m->has_readers;
        }
        d->purge_wanted = true;
        break;
    case JOB_CHECK:
        d->check_running = false;
        d->check_not_before_ns = now_ns() + CHECK_PAUSE_MS * MS;
        break;
    case JOB_REQUESTS:
        d->requests_running = false;
        d->relook = true;
        break;
    case JOB_PURGE:
        d->purge_running = false;
        break;
    }
    d->jobs--;
    pthread_cond_broadcast(&d->changed);
    pthread_mutex_unlock(&s->mutex);
    job_free(j);
}

static void job_run(struct scheduler *s, struct job *j)
{
    struct err e = { 0 };
    struct db_libpq *c = connection_for(s, j->database, &e);
    int64_t not_before_ns = 0;
    bool keep;

    if (c == NULL) {
        dvm_log_err(s->dvm, DVM_LOG_WARNING, &e, "worker_cannot_connect database=%s",
                    j->database->name);
        not_before_ns = now_ns() + with_jitter(RECONNECT_MIN_MS * 2) * MS;
    } else {
        switch (j->kind) {
        case JOB_REFRESH:
            run_refresh(c, j, &not_before_ns);
            break;
        case JOB_CHECK:
            run_check(c, j);
            break;
        case JOB_REQUESTS:
            run_requests(c, j);
            break;
        case JOB_PURGE:
            run_purge(c, j);
            break;
        }
        pthread_mutex_lock(&s->mutex);
        keep = !j->database->gave_way;
        pthread_mutex_unlock(&s->mutex);
        idle_give(s, c, j->database->conninfo, keep);
    }
    err_clear(&e);
    job_finish(j, not_before_ns);
}

static void *worker_main(void *arg)
{
    struct scheduler *s = arg;

    pthread_mutex_lock(&s->mutex);
    while (!s->stopping) {
        struct job *j = s->first_job;
        struct idle_connection *dead;

        if (j != NULL) {
            s->first_job = j->next;
            if (s->first_job == NULL)
                s->last_job = &s->first_job;
            pthread_mutex_unlock(&s->mutex);
            job_run(s, j);
            pthread_mutex_lock(&s->mutex);
            continue;
        }
        dead = idle_expired(s, now_ns());
        if (dead != NULL) {
            pthread_mutex_unlock(&s->mutex);
            idle_close(dead);
            pthread_mutex_lock(&s->mutex);
            continue;
        }
        wait_until(s, &s->work, now_ns() + IDLE_CONNECTION_MS * MS);
    }
    pthread_mutex_unlock(&s->mutex);
    return NULL;
}

/* ---- one database ---------------------------------------------------------------------------- */

/* Call with the mutex held. */
static bool must_leave(const struct database *d)
{
    return d->leaving || d->scheduler->stopping;
}

/* Sleeps; ends early on a wake when told to, at once when leaving. */
static bool database_sleep(struct database *d, int64_t ms, bool until_wake)
{
    struct scheduler *s = d->scheduler;
    int64_t deadline = now_ns() + ms * MS;
    bool stay;

    pthread_mutex_lock(&s->mutex);
    while (!must_leave(d) && now_ns() < deadline && !(until_wake && d->wakes_seen != s->wakes))
        wait_until(s, &d->changed, deadline);
    stay = !must_leave(d);
    pthread_mutex_unlock(&s->mutex);
    return stay;
}

enum state_column {
    STATE_PGT_ID,
    STATE_RELATION,
    STATE_OWNER,
    STATE_SCHEDULE,
    STATE_TIER,
    STATE_RUNNABLE,
    STATE_POPULATED,
    STATE_NEEDS_REINIT,
    STATE_HAS_CHANGES,
    STATE_TIME_DEPENDENT,
    STATE_LAST_REFRESH,
    STATE_NEXT_ATTEMPT,
    STATE_UPSTREAM,
    STATE_UNIT,
    STATE_UNIT_SLOWEST,
    STATE_CHECK_DUE,
    STATE_BY_STATISTICS,
    STATE_NOW,
    STATE_REQUESTS,
};

static bool is_true(const char *cell)
{
    return cell != NULL && cell[0] == 't';
}

static int64_t number(const char *cell)
{
    return cell != NULL ? strtoll(cell, NULL, 10) : 0;
}

/* "{1,2,3}" of bigints. */
static const int64_t *parse_ids(struct arena *a, const char *array, int *n)
{
    int64_t *ids;
    int commas = 0;

    *n = 0;
    if (array == NULL || array[0] != '{' || array[1] == '}')
        return NULL;
    for (const char *p = array; *p != '\0'; p++)
        commas += *p == ',';
    ids = arena_new_array(a, int64_t, (size_t)commas + 1);
    for (const char *p = array + 1; *n <= commas; p++) {
        char *end;

        ids[(*n)++] = strtoll(p, &end, 10);
        p = end;
        if (*p != ',')
            break;
    }
    return ids;
}

static struct schedule_table table_of(struct arena *a, const struct db_rows *r, int row)
{
    struct schedule_table t = {
        .pgt_id = number(db_cell(r, row, STATE_PGT_ID)),
        .tier = schedule_tier_parse(db_cell(r, row, STATE_TIER)),
        .runnable = is_true(db_cell(r, row, STATE_RUNNABLE)),
        .populated = is_true(db_cell(r, row, STATE_POPULATED)),
        .needs_reinit = is_true(db_cell(r, row, STATE_NEEDS_REINIT)),
        .has_changes = is_true(db_cell(r, row, STATE_HAS_CHANGES)),
        .time_dependent = is_true(db_cell(r, row, STATE_TIME_DEPENDENT)),
        .last_refresh_us = number(db_cell(r, row, STATE_LAST_REFRESH)),
        .next_attempt_us = number(db_cell(r, row, STATE_NEXT_ATTEMPT)),
        .unit = number(db_cell(r, row, STATE_UNIT)),
        .unit_slowest = is_true(db_cell(r, row, STATE_UNIT_SLOWEST)),
    };
    const char *why;

    t.upstream = parse_ids(a, db_cell(r, row, STATE_UPSTREAM), &t.n_upstream);
    /* What an older version let through is better calculated than never refreshed. */
    if (!schedule_parse(db_cell(r, row, STATE_SCHEDULE), &t.schedule, &why))
        t.schedule = (struct schedule){ .kind = SCHEDULE_CALCULATED };
    return t;
}

/* Call with the mutex held. */
static void remember_looked_at(struct database *d, const struct schedule_table *tables, int n)
{
    int kept = 0;

    for (int i = 0; i < d->n_memos; i++) {
        d->memos[i].seen = false;
        d->memos[i].has_readers = false;
    }
    for (int i = 0; i < n; i++)
        memo_get(d, tables[i].pgt_id)->seen = true;
    for (int i = 0; i < n; i++) {
        for (int k = 0; k < tables[i].n_upstream; k++) {
            struct memo *up = memo_find(d, tables[i].upstream[k]);

            if (up != NULL)
                up->has_readers = true;
        }
    }
    for (int i = 0; i < d->n_memos; i++)
        if (d->memos[i].seen || d->memos[i].running)
            d->memos[kept++] = d->memos[i];
    d->n_memos = kept;
}

static struct job_member member_of(const struct db_rows *rows, int row)
{
    return (struct job_member){ .pgt_id = number(db_cell(rows, row, STATE_PGT_ID)),
                                .relation = mem_strdup(db_cell(rows, row, STATE_RELATION)),
                                .owner = mem_strdup(db_cell(rows, row, STATE_OWNER)) };
}

/* Call with the mutex held. */
static void hand_out(struct database *d, struct arena *a, const struct db_rows *rows)
{
    int n = rows->n_rows, n_ready;
    struct schedule_table *tables = arena_new_array(a, struct schedule_table, (size_t)n);
    int *row_of = arena_new_array(a, int, (size_t)n);
    int *ready = arena_new_array(a, int, (size_t)n);
    int *members = arena_new_array(a, int, (size_t)n);
    int64_t now = now_ns();
    int64_t now_us = n > 0 ? number(db_cell(rows, 0, STATE_NOW)) : 0;
    int n_tables = 0;

    d->next_due_ns = INT64_MAX;
    d->by_statistics = false;
    for (int i = 0; i < n; i++) {
        d->by_statistics |= is_true(db_cell(rows, i, STATE_BY_STATISTICS));
        /* A row without a stream table carries the count of requests only. */
        if (db_cell(rows, i, STATE_PGT_ID) == NULL)
            continue;
        /* Dropped as a table, behind our back: the purge cleans up after it. */
        if (db_cell(rows, i, STATE_RELATION) == NULL) {
            d->purge_wanted = true;
            continue;
        }
        row_of[n_tables] = i;
        tables[n_tables++] = table_of(a, rows, i);
    }
    d->look++;
    remember_looked_at(d, tables, n_tables);
    for (int i = 0; i < n_tables; i++) {
        const struct memo *m = memo_get(d, tables[i].pgt_id);

        tables[i].running = m->running;
        tables[i].due_since = m->due_since;
        tables[i].done = m->done;
        tables[i].runnable &= now >= m->not_before_ns;
    }
    n_ready = schedule_look(tables, n_tables, now_us, d->look, ready);
    for (int i = 0; i < n_tables; i++) {
        int64_t due_us = schedule_due_at(&tables[i]);

        memo_get(d, tables[i].pgt_id)->due_since = tables[i].due_since;
        /* What is farther away than this is for later looks, and need not fit. */
        if (due_us > now_us && due_us - now_us < INT64_C(3600000000) &&
            now + (due_us - now_us) * 1000 < d->next_due_ns)
            d->next_due_ns = now + (due_us - now_us) * 1000;
    }
    for (int i = 0; i < n_ready; i++) {
        int count = schedule_members(tables, n_tables, ready[i], members);
        struct job_member *job_members = mem_alloc((size_t)count * sizeof(*job_members));

        for (int k = 0; k < count; k++) {
            memo_get(d, tables[members[k]].pgt_id)->running = true;
            job_members[k] = member_of(rows, row_of[members[k]]);
        }
        job_push(d,
                 (struct job){ .kind = JOB_REFRESH, .members = job_members, .n_members = count });
    }
    for (int i = 0; i < n && !d->check_running && now >= d->check_not_before_ns; i++) {
        struct job_member *member;

        if (!is_true(db_cell(rows, i, STATE_CHECK_DUE)))
            continue;
        member = mem_alloc(sizeof(*member));
        *member = member_of(rows, i);
        d->check_running = true;
        job_push(d, (struct job){ .kind = JOB_CHECK, .members = member, .n_members = 1 });
    }
    if (n > 0 && number(db_cell(rows, 0, STATE_REQUESTS)) > 0 && !d->requests_running) {
        d->requests_running = true;
        job_push(d, (struct job){ .kind = JOB_REQUESTS });
    }
}

/* One query when nothing is due. */
static bool database_look(struct database *d, struct db_libpq *c, struct err *e)
{
    struct db_rows rows;
    struct arena a;
    bool ok;

    arena_init(&a);
    ok = db_query(db_libpq_db(c), &a, &rows, e,
                  "SELECT s.pgt_id, "
                  "pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname), "
                  "pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(c.relowner)), "
                  "s.schedule, CASE WHEN h.pgt_id IS NULL THEN s.tier ELSE 'frozen' END, "
                  "s.status IN ('ACTIVE', 'INITIALIZING') AND (s.refresh_mode <> 'IMMEDIATE' "
                  "OR s.needs_reinit OR NOT s.is_populated OR s.has_changes), "
                  "s.is_populated, s.needs_reinit, s.has_changes, s.time_dependent, "
                  "(EXTRACT(epoch FROM s.last_refresh_at) * 1000000)::bigint, "
                  "(EXTRACT(epoch FROM s.next_attempt_at) * 1000000)::bigint, s.upstream, "
                  "u.unit_id, u.slowest, k.pgt_id IS NOT NULL AND s.is_populated "
                  "AND s.status = 'ACTIVE' AND c.oid IS NOT NULL, "
                  "s.schedule IS NULL AND s.refresh_mode <> 'IMMEDIATE' AND EXISTS ("
                  "SELECT FROM pgtrickle.pgt_dependencies x WHERE x.pgt_id = s.pgt_id "
                  "AND NOT x.captured AND x.source_type <> 'VIEW'), "
                  "(EXTRACT(epoch FROM pg_catalog.clock_timestamp()) * 1000000)::bigint, r.pending "
                  "FROM (SELECT pg_catalog.count(*) AS pending FROM pgtrickle.pgt_requests "
                  "WHERE error IS NULL) r "
                  "LEFT JOIN (pgtrickle._schedule_state() s "
                  "JOIN pgtrickle.pgt_stream_tables t ON t.pgt_id = s.pgt_id "
                  "LEFT JOIN pg_catalog.pg_class c ON c.oid = t.pgt_relid "
                  "LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
                  "LEFT JOIN pgtrickle.pgt_units u ON u.pgt_id = s.pgt_id "
                  "LEFT JOIN (SELECT DISTINCT pgt_id FROM pgtrickle._held()) h "
                  "ON h.pgt_id = s.pgt_id "
                  "LEFT JOIN pgtrickle.pgt_checks k ON k.pgt_id = s.pgt_id "
                  "AND k.check_interval IS NOT NULL AND (k.checked_at IS NULL "
                  "OR k.checked_at + k.check_interval <= pg_catalog.clock_timestamp())) ON true");
    if (ok) {
        pthread_mutex_lock(&d->scheduler->mutex);
        hand_out(d, &a, &rows);
        pthread_mutex_unlock(&d->scheduler->mutex);
    }
    arena_free(&a);
    return ok;
}

/* Waits for the next tick, for the time that something falls due, or for the end of a job that
 * others wait for. False: leave. */
static bool database_wait(struct database *d, int64_t tick_ns, int64_t looked_ns)
{
    struct scheduler *s = d->scheduler;
    int64_t interval_ns = s->dvm->config.scheduler_interval_ms * MS;
    /* Many schedules with many phases are served together. */
    int64_t due_ns = d->next_due_ns > looked_ns + interval_ns / LOOKS_PER_INTERVAL
                         ? d->next_due_ns
                         : looked_ns + interval_ns / LOOKS_PER_INTERVAL;
    int64_t later_ns = tick_ns < due_ns ? tick_ns : due_ns;
    int64_t early_ns =
        looked_ns + RELOOK_MIN_MS * MS < later_ns ? looked_ns + RELOOK_MIN_MS * MS : later_ns;
    bool stay;

    pthread_mutex_lock(&s->mutex);
    for (;;) {
        bool early = d->relook || d->wakes_seen != s->wakes;
        int64_t until = early ? early_ns : later_ns;

        if (must_leave(d) || now_ns() >= until)
            break;
        wait_until(s, &d->changed, until);
    }
    d->woken |= d->relook || d->wakes_seen != s->wakes;
    d->relook = false;
    d->wakes_seen = s->wakes;
    stay = !must_leave(d);
    pthread_mutex_unlock(&s->mutex);
    return stay;
}

static void purge_if_wanted(struct database *d, int64_t *purged_ns)
{
    struct scheduler *s = d->scheduler;
    int64_t now = now_ns();

    pthread_mutex_lock(&s->mutex);
    if (d->purge_wanted && !d->purge_running && now - *purged_ns >= PURGE_EVERY_MS * MS) {
        *purged_ns = now;
        d->purge_wanted = false;
        d->purge_running = true;
        job_push(d, (struct job){ .kind = JOB_PURGE });
    }
    pthread_mutex_unlock(&s->mutex);
}

static void give_way(struct database *d)
{
    pthread_mutex_lock(&d->scheduler->mutex);
    d->gave_way = true;
    pthread_mutex_unlock(&d->scheduler->mutex);
}

/* Whether there is nothing that the last look, at looked_ns, does not know. */
static bool nothing_to_see(struct database *d, enum pulse_beat beat, int64_t looked_ns)
{
    struct scheduler *s = d->scheduler;
    int64_t now = now_ns();
    bool quiet;

    pthread_mutex_lock(&s->mutex);
    quiet = beat == PULSE_QUIET && !d->woken && !d->by_statistics && now < d->next_due_ns &&
            now - looked_ns < LOOK_AT_ALL_MS * MS;
    d->woken = false;
    pthread_mutex_unlock(&s->mutex);
    return quiet;
}

/* Looks, hands out, waits, until the connection fails or has to go (false) or it is time to leave
 * (true). */
static bool database_schedule(struct database *d, struct db_libpq *c, bool *looked, struct err *e)
{
    const int64_t interval = d->scheduler->dvm->config.scheduler_interval_ms * MS;
    int64_t tick_ns = now_ns(), purged_ns = 0, all_seen_ns = 0;
    struct pulse pulse = { 0 };
    bool stay = true, ok = true;

    d->purge_wanted = true; /* whatever an earlier scheduler left */
    while (stay) {
        enum pulse_beat beat;
        int64_t looked_ns;

        ok = pulse_take(&pulse, db_libpq_db(c), &beat, e);
        if (!ok || beat == PULSE_GIVE_WAY) {
            if (ok)
                give_way(d);
            ok = false;
            break;
        }
        looked_ns = now_ns();
        if (!nothing_to_see(d, beat, all_seen_ns)) {
            ok = database_look(d, c, e);
            if (!ok)
                break;
            *looked = true;
            all_seen_ns = looked_ns = now_ns();
        }
        purge_if_wanted(d, &purged_ns);
        while (tick_ns <= looked_ns)
            tick_ns += interval;
        stay = database_wait(d, tick_ns, looked_ns);
    }
    pulse_fini(&pulse);
    return ok;
}

/* Tries to become the scheduler of this database. */
static bool elect(struct db_libpq *c, bool *won, struct err *e)
{
    struct db_rows rows;
    struct arena a;
    bool ok;

    arena_init(&a);
    ok = db_query(db_libpq_db(c), &a, &rows, e, "SELECT pg_catalog.pg_try_advisory_lock(%d, %d)",
                  DVM_LOCK_CLASS, DVM_LOCK_SCHEDULER);
    if (ok)
        *won = is_true(db_cell(&rows, 0, 0));
    arena_free(&a);
    return ok;
}

/* Installed and current? False: an error, or nothing to do here now (then *e is not set). */
static bool make_current(struct database *d, struct db_libpq *c, struct err *e)
{
    struct dvm *dvm = d->scheduler->dvm;
    enum install_state state;

    if (!install_look(dvm, c, &state, e))
        return false;
    if (state == INSTALL_ABSENT) {
        install_forget(dvm, d->conninfo);
        return false;
    }
    if (state == INSTALL_OTHER_VERSION && !install_run(dvm, c, d->name, e))
        return false;
    install_remember(dvm, d->conninfo);
    return true;
}

/* *looked: it went well for at least one look. */
static bool database_serve(struct database *d, struct db_libpq *c, bool *looked, struct err *e)
{
    struct dvm *dvm = d->scheduler->dvm;
    bool won = false, wanted = false;

    while (!won) {
        if (!elect(c, &won, e))
            return false;
        if (won)
            break;
        if (!pulse_gives_way(db_libpq_db(c), &wanted, e))
            return false;
        if (wanted) {
            give_way(d);
            return false;
        }
        if (!database_sleep(d, dvm->config.scheduler_interval_ms, false))
            return true;
    }
    if (!db_exec(db_libpq_db(c), e, "SELECT pgtrickle._mark_crashed()"))
        return false;
    dvm_log(dvm, DVM_LOG_INFO, "scheduler_elected database=%s", d->name);
    return database_schedule(d, c, looked, e);
}

/* The schema went (DROP SCHEMA, or another database under the name): not a failure to shout about.
 */
static bool is_schema_gone(const struct err *e)
{
    return e->class == ERR_SERVER &&
           (strcmp(e->sqlstate, "3F000") == 0 || strcmp(e->sqlstate, "42P01") == 0 ||
            strcmp(e->sqlstate, "42883") == 0);
}

/* Once for each failure: a database that is away for a night is one line, not a thousand. */
static void log_lost(struct database *d, const struct err *e, int64_t backoff_ms, uint64_t *told)
{
    uint64_t failure = str_hash(str_from(e->message));

    dvm_log_err(d->scheduler->dvm, failure != *told ? DVM_LOG_WARNING : DVM_LOG_DEBUG, e,
                "scheduler_lost database=%s retry_ms=%d", d->name, (int)backoff_ms);
    *told = failure;
}

static void *database_main(void *arg)
{
    struct database *d = arg;
    struct scheduler *s = d->scheduler;
    int64_t backoff_ms = RECONNECT_MIN_MS;
    uint64_t told = 0; /* the failure that the log knows */
    bool is_known = false;
    bool stay = true;

    while (stay) {
        struct err e = { 0 };
        struct db_libpq *c;
        bool served = false, looked = false;

        /* Before looking: a wake in the middle means another look. */
        pthread_mutex_lock(&s->mutex);
        d->wakes_seen = s->wakes;
        pthread_mutex_unlock(&s->mutex);
        c = db_libpq_open(d->conninfo, s->stop_fd, &e);
        if (c != NULL && make_current(d, c, &e))
            served = database_serve(d, c, &looked, &e);
        db_libpq_close(c);
        if (looked) {
            backoff_ms = RECONNECT_MIN_MS;
            told = 0;
            is_known = true;
        }
        if (is_schema_gone(&e))
            install_forget(s->dvm, d->conninfo);
        if (d->gave_way && !served) {
            dvm_log(s->dvm, DVM_LOG_INFO, "scheduler_gave_way database=%s", d->name);
            idle_close(idle_of(s, d->conninfo));
            stay = database_sleep(d, GIVE_WAY_MS, false);
            pthread_mutex_lock(&s->mutex);
            d->gave_way = false;
            pthread_mutex_unlock(&s->mutex);
        } else if (served) {
            stay = false;
        } else if (!err_is_set(&e)) {
            stay = database_sleep(d, RECONNECT_MIN_MS, false) &&
                   database_sleep(d, LOOK_FOR_SCHEMA_MS, true);
        } else {
            int64_t most_ms = is_known ? RECONNECT_MAX_MS : RECONNECT_UNKNOWN_MAX_MS;
            if (e.class != ERR_RESOURCE)
                log_lost(d, &e, backoff_ms, &told);
            /* A wake (a client has made a stream table there) ends the wait of an unknown one. */
            stay = database_sleep(d, with_jitter(backoff_ms), !is_known);
            backoff_ms = backoff_ms * 2 < most_ms ? backoff_ms * 2 : most_ms;
        }
        err_clear(&e);
    }
    pthread_mutex_lock(&s->mutex);
    /* Its jobs point to it. A stopping scheduler drops those that have not begun. */
    while (d->jobs > 0)
        pthread_cond_wait(&d->changed, &s->mutex);
    d->ended = true;
    pthread_cond_broadcast(&s->keeper);
    pthread_mutex_unlock(&s->mutex);
    return NULL;
}

static void database_free(struct database *d)
{
    pthread_cond_destroy(&d->changed);
    free(d->name);
    free(d->conninfo);
    free(d->memos);
    free(d);
}

/* ---- the keeper ------------------------------------------------------------------------------ */

struct learned {
    struct dvm_target *targets;
    int n;
};

static void learn_target(void *arg, const struct dvm_target *t)
{
    struct learned *l = arg;

    l->targets = mem_realloc(l->targets, (size_t)(l->n + 1) * sizeof(*l->targets));
    l->targets[l->n++] = (struct dvm_target){ mem_strdup(t->database), mem_strdup(t->conninfo) };
}

static void forget_targets(struct learned *l)
{
    for (int i = 0; i < l->n; i++) {
        free((char *)l->targets[i].database);
        free((char *)l->targets[i].conninfo);
    }
    free(l->targets);
}

/* Call with the mutex held. */
static void database_start(struct scheduler *s, const struct dvm_target *t)
{
    struct database *d = mem_alloc(sizeof(*d));

    d->scheduler = s;
    d->name = mem_strdup(t->database);
    d->conninfo = mem_strdup(t->conninfo);
    d->wanted = true;
    cond_init_monotonic(&d->changed);
    if (pthread_create(&d->thread, NULL, database_main, d) != 0) {
        dvm_log(s->dvm, DVM_LOG_ERROR, "scheduler_thread_failed database=%s", d->name);
        database_free(d);
        return;
    }
    s->databases = mem_realloc(s->databases, (size_t)(s->n_databases + 1) * sizeof(*s->databases));
    s->databases[s->n_databases++] = d;
}

/* Call with the mutex held. Several names for one database are one target: conninfo decides. */
static void adopt_targets(struct scheduler *s, const struct learned *l)
{
    for (int i = 0; i < s->n_databases; i++)
        s->databases[i]->wanted = false;
    for (int i = 0; i < l->n; i++) {
        bool known = false;

        for (int k = 0; k < s->n_databases; k++) {
            struct database *d = s->databases[k];

            if (!d->leaving && strcmp(d->conninfo, l->targets[i].conninfo) == 0)
                known = d->wanted = true;
        }
        if (!known)
            database_start(s, &l->targets[i]);
    }
    for (int i = 0; i < s->n_databases; i++) {
        struct database *d = s->databases[i];

        if (!d->wanted && !d->leaving) {
            d->leaving = true;
            pthread_cond_broadcast(&d->changed);
        }
    }
}

/* Call with the mutex held; releases it while joining, so it looks again from the start: who ended
 * meanwhile has told a keeper that did not wait. */
static void reap(struct scheduler *s)
{
    for (int i = 0; i < s->n_databases;) {
        struct database *d = s->databases[i];

        if (!d->ended) {
            i++;
            continue;
        }
        s->databases[i] = s->databases[--s->n_databases];
        pthread_mutex_unlock(&s->mutex);
        pthread_join(d->thread, NULL);
        database_free(d);
        pthread_mutex_lock(&s->mutex);
        i = 0;
    }
}

static void *keeper_main(void *arg)
{
    struct scheduler *s = arg;
    const struct dvm_config *config = &s->dvm->config;

    pthread_mutex_lock(&s->mutex);
    while (!s->stopping) {
        struct learned l = { 0 };

        pthread_mutex_unlock(&s->mutex);
        config->targets(config->targets_arg, learn_target, &l);
        pthread_mutex_lock(&s->mutex);
        if (!s->stopping)
            adopt_targets(s, &l);
        forget_targets(&l);
        reap(s);
        if (!s->stopping)
            wait_until(s, &s->keeper, now_ns() + LEARN_DATABASES_MS * MS);
    }
    while (s->n_databases > 0) {
        reap(s);
        if (s->n_databases > 0)
            pthread_cond_wait(&s->keeper, &s->mutex);
    }
    pthread_mutex_unlock(&s->mutex);
    return NULL;
}

/* ---- start and stop ---------------------------------------------------------------------------
 */

/* Call with the mutex held. */
static void drop_jobs(struct scheduler *s)
{
    while (s->first_job != NULL) {
        struct job *j = s->first_job;

        s->first_job = j->next;
        j->database->jobs--;
        job_free(j);
    }
    s->last_job = &s->first_job;
}

static void scheduler_stop(struct scheduler *s)
{
    uint64_t one = 1;

    pthread_mutex_lock(&s->mutex);
    s->stopping = true;
    drop_jobs(s);
    /* Readable for good: whoever waits for a server, now or later, goes home. */
    if (write(s->stop_fd, &one, sizeof(one)) != (ssize_t)sizeof(one))
        dvm_log(s->dvm, DVM_LOG_ERROR, "scheduler_stop_signal_failed");
    for (int i = 0; i < s->n_databases; i++)
        pthread_cond_broadcast(&s->databases[i]->changed);
    pthread_cond_broadcast(&s->work);
    pthread_cond_broadcast(&s->keeper);
    pthread_mutex_unlock(&s->mutex);

    for (int i = 0; i < s->n_workers; i++)
        pthread_join(s->workers[i], NULL);
    if (s->keeper_runs)
        pthread_join(s->keeper_thread, NULL);
    idle_close(s->idle);
    pthread_cond_destroy(&s->work);
    pthread_cond_destroy(&s->keeper);
    pthread_mutex_destroy(&s->mutex);
    close(s->stop_fd);
    free(s->databases);
    free(s->workers);
    free(s);
}

bool dvm_scheduler_start(struct dvm *d, struct err *e)
{
    int n_workers = d->config.max_workers > 0 ? d->config.max_workers : 1;
    struct scheduler *s;
    int fd;

    if (d->scheduler != NULL || d->config.targets == NULL)
        return true;
    fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0)
        return err_set(e, ERR_RESOURCE, "53000", "eventfd: %s", strerror(errno));
    s = mem_alloc(sizeof(*s));
    s->dvm = d;
    s->stop_fd = fd;
    s->last_job = &s->first_job;
    pthread_mutex_init(&s->mutex, NULL);
    cond_init_monotonic(&s->work);
    cond_init_monotonic(&s->keeper);
    s->workers = mem_alloc((size_t)n_workers * sizeof(*s->workers));
    for (; s->n_workers < n_workers; s->n_workers++)
        if (pthread_create(&s->workers[s->n_workers], NULL, worker_main, s) != 0)
            break;
    s->keeper_runs =
        s->n_workers == n_workers && pthread_create(&s->keeper_thread, NULL, keeper_main, s) == 0;
    if (!s->keeper_runs) {
        scheduler_stop(s);
        return err_set(e, ERR_RESOURCE, "53000", "the scheduler's threads cannot be started");
    }
    pthread_mutex_lock(&d->mutex);
    d->scheduler = s;
    pthread_mutex_unlock(&d->mutex);
    return true;
}

void dvm_scheduler_stop(struct dvm *d)
{
    struct scheduler *s;

    pthread_mutex_lock(&d->mutex);
    s = d->scheduler;
    d->scheduler = NULL;
    pthread_mutex_unlock(&d->mutex);
    if (s != NULL)
        scheduler_stop(s);
}

void dvm_scheduler_wake(struct dvm *d)
{
    struct scheduler *s;

    pthread_mutex_lock(&d->mutex);
    s = d->scheduler;
    if (s != NULL) {
        pthread_mutex_lock(&s->mutex);
        s->wakes++;
        for (int i = 0; i < s->n_databases; i++)
            pthread_cond_broadcast(&s->databases[i]->changed);
        pthread_cond_broadcast(&s->keeper);
        pthread_mutex_unlock(&s->mutex);
    }
    pthread_mutex_unlock(&d->mutex);
}
