#include "dvm/runtime/db_libpq.h"

#include <errno.h>
#include <libpq-fe.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/arena.h"
#include "base/text.h"

#define CONNECT_TIMEOUT_S 10
/* How long a cancelled statement may take to end before the connection is given up. */
#define CANCEL_GRACE_MS 3000

struct db_libpq {
    struct dvm_db db; /* first: the interface's pointer is ours */
    PGconn *conn;
    int stop_fd;
    bool broken;
    db_notice_fn *hook;
    void *hook_arg;
};

static int64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* libpq ends its own messages with a newline. */
static struct str first_line_trimmed(const char *message)
{
    return str_trim(str_from(message != NULL ? message : ""));
}

static bool peer_failed(struct db_libpq *c, struct err *e)
{
    struct str why = first_line_trimmed(PQerrorMessage(c->conn));

    c->broken = true;
    return err_set(e, ERR_PEER, "08006", STR_FMT, STR_ARG(why));
}

enum waited { WAITED_READY, WAITED_STOP, WAITED_TIMEOUT, WAITED_FAILED };

/* deadline_ms: monotonic, or negative for none. */
static enum waited wait_socket(struct db_libpq *c, short events, int64_t deadline_ms,
                               bool watch_stop)
{
    for (;;) {
        struct pollfd fds[2] = { { .fd = PQsocket(c->conn), .events = events },
                                 { .fd = watch_stop ? c->stop_fd : -1, .events = POLLIN } };
        int64_t left = deadline_ms < 0 ? -1 : deadline_ms - now_ms();
        int n;

        if (deadline_ms >= 0 && left <= 0)
            return WAITED_TIMEOUT;
        n = poll(fds, 2, (int)left);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return WAITED_FAILED;
        if (fds[1].revents != 0)
            return WAITED_STOP;
        if (fds[0].revents != 0)
            return WAITED_READY;
    }
}

static void cancel_statement(struct db_libpq *c)
{
    PGcancel *cancel = PQgetCancel(c->conn);
    char why[256];

    if (cancel != NULL)
        PQcancel(cancel, why, sizeof(why));
    PQfreeCancel(cancel);
}

/* Sends what is buffered and waits until a result can be had without blocking. */
static bool wait_result(struct db_libpq *c, struct err *e)
{
    int64_t deadline = -1;
    bool stopping = false;

    for (;;) {
        int unsent = PQflush(c->conn);
        enum waited w;

        if (unsent < 0)
            return peer_failed(c, e);
        if (unsent == 0 && !PQisBusy(c->conn))
            break;
        w = wait_socket(c, (short)(POLLIN | (unsent > 0 ? POLLOUT : 0)), deadline, !stopping);
        if (w == WAITED_STOP) {
            stopping = true;
            cancel_statement(c);
            deadline = now_ms() + CANCEL_GRACE_MS;
        } else if (w == WAITED_TIMEOUT) {
            break;
        } else if (w == WAITED_FAILED) {
            c->broken = true;
            return err_set(e, ERR_RESOURCE, "58000", "poll: %s", strerror(errno));
        } else if (PQconsumeInput(c->conn) == 0) {
            return peer_failed(c, e);
        }
    }
    if (stopping || PQisBusy(c->conn)) {
        /* What the server answered no longer matters: closing rolls back. */
        c->broken = true;
        return err_set(e, ERR_RESOURCE, "57P01", "pgtrickle is stopping");
    }
    return true;
}

static void copy_field(char **field, const PGresult *r, int code)
{
    const char *value = PQresultErrorField(r, code);

    free(*field);
    *field = value != NULL ? mem_strdup(value) : NULL;
}

static int number_field(const PGresult *r, int code)
{
    const char *value = PQresultErrorField(r, code);

    return value != NULL ? atoi(value) : 0;
}

static bool server_failed(struct db_libpq *c, const PGresult *r, struct err *e)
{
    const char *sqlstate = PQresultErrorField(r, PG_DIAG_SQLSTATE);
    const char *message = PQresultErrorField(r, PG_DIAG_MESSAGE_PRIMARY);

    if (sqlstate == NULL || message == NULL)
        return peer_failed(c, e);
    if (PQstatus(c->conn) == CONNECTION_BAD)
        c->broken = true;
    err_set(e, c->broken ? ERR_PEER : ERR_SERVER, sqlstate, "%s", message);
    copy_field(&e->detail, r, PG_DIAG_MESSAGE_DETAIL);
    copy_field(&e->hint, r, PG_DIAG_MESSAGE_HINT);
    copy_field(&e->context, r, PG_DIAG_CONTEXT);
    copy_field(&e->internal_query, r, PG_DIAG_INTERNAL_QUERY);
    e->position = number_field(r, PG_DIAG_STATEMENT_POSITION);
    e->internal_position = number_field(r, PG_DIAG_INTERNAL_POSITION);
    return false;
}

static bool is_success(ExecStatusType status)
{
    return status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK || status == PGRES_EMPTY_QUERY;
}

/* Reads results to the end of the command; keeps the last good one in *out (caller clears). */
static bool read_results(struct db_libpq *c, PGresult **out, struct err *e)
{
    bool ok = true;
    PGresult *r;

    *out = NULL;
    for (;;) {
        struct err later = { 0 };

        if (!wait_result(c, &later)) {
            if (ok)
                err_move(e, &later);
            err_clear(&later);
            ok = false;
            break;
        }
        r = PQgetResult(c->conn);
        if (r == NULL)
            break;
        if (!is_success(PQresultStatus(r))) {
            ExecStatusType status = PQresultStatus(r);

            /* COPY has no place here; leaving it open would hang the next statement. */
            if (status == PGRES_COPY_IN || status == PGRES_COPY_OUT || status == PGRES_COPY_BOTH) {
                c->broken = true;
                ok = err_set(e, ERR_BUG, "XX000", "COPY in a statement of pgtrickle's own");
                PQclear(r);
                break;
            }
            if (ok)
                ok = server_failed(c, r, e);
            PQclear(r);
            continue;
        }
        PQclear(*out);
        *out = r;
    }
    if (!ok) {
        PQclear(*out);
        *out = NULL;
    }
    return ok;
}

static void copy_columns(const PGresult *r, struct arena *a, struct db_rows *rows)
{
    rows->n_columns = PQnfields(r);
    rows->columns = arena_new_array(a, struct db_column, (size_t)rows->n_columns);
    for (int i = 0; i < rows->n_columns; i++) {
        rows->columns[i].name = arena_strdup(a, PQfname(r, i));
        rows->columns[i].type_oid = PQftype(r, i);
        rows->columns[i].typmod = PQfmod(r, i);
    }
}

static void copy_rows(const PGresult *r, struct arena *a, struct db_rows *rows)
{
    size_t at = 0;

    copy_columns(r, a, rows);
    rows->n_rows = PQntuples(r);
    rows->cells = arena_new_array(a, const char *, (size_t)rows->n_rows *(size_t)rows->n_columns);
    for (int row = 0; row < rows->n_rows; row++)
        for (int i = 0; i < rows->n_columns; i++, at++)
            if (!PQgetisnull(r, row, i))
                rows->cells[at] =
                    arena_strndup(a, PQgetvalue(r, row, i), (size_t)PQgetlength(r, row, i));
}

static bool unusable(struct err *e)
{
    return err_set(e, ERR_PEER, "08003", "the connection to the server is lost");
}

static bool libpq_query(struct dvm_db *db, struct arena *a, const char *sql, struct db_rows *rows,
                        struct err *e)
{
    struct db_libpq *c = (struct db_libpq *)db;
    PGresult *r;

    if (rows != NULL)
        *rows = (struct db_rows){ 0 };
    if (c->broken)
        return unusable(e);
    if (PQsendQueryParams(c->conn, sql, 0, NULL, NULL, NULL, NULL, 0) == 0)
        return peer_failed(c, e);
    if (!read_results(c, &r, e))
        return false;
    if (rows != NULL && r != NULL)
        copy_rows(r, a, rows);
    PQclear(r);
    return true;
}

static bool libpq_describe(struct dvm_db *db, struct arena *a, const char *sql,
                           struct db_rows *columns, int *n_params, struct err *e)
{
    struct db_libpq *c = (struct db_libpq *)db;
    PGresult *r;

    *columns = (struct db_rows){ 0 };
    *n_params = 0;
    if (c->broken)
        return unusable(e);
    if (PQsendPrepare(c->conn, "", sql, 0, NULL) == 0)
        return peer_failed(c, e);
    if (!read_results(c, &r, e))
        return false;
    PQclear(r);
    if (PQsendDescribePrepared(c->conn, "") == 0)
        return peer_failed(c, e);
    if (!read_results(c, &r, e))
        return false;
    if (r != NULL) {
        copy_columns(r, a, columns);
        *n_params = PQnparams(r);
    }
    PQclear(r);
    return true;
}

static const struct dvm_db_ops libpq_ops = { libpq_query, libpq_describe };

static void receive_notice(void *arg, const PGresult *r)
{
    struct db_libpq *c = arg;
    const char *severity = PQresultErrorField(r, PG_DIAG_SEVERITY_NONLOCALIZED);
    const char *sqlstate = PQresultErrorField(r, PG_DIAG_SQLSTATE);
    const char *message = PQresultErrorField(r, PG_DIAG_MESSAGE_PRIMARY);

    if (c->hook != NULL && severity != NULL && sqlstate != NULL && message != NULL)
        c->hook(c->hook_arg, severity, sqlstate, message);
}

void db_libpq_on_notice(struct db_libpq *c, db_notice_fn *hook, void *arg)
{
    c->hook = hook;
    c->hook_arg = arg;
}

static bool connect_polling(struct db_libpq *c, struct err *e)
{
    int64_t deadline = now_ms() + CONNECT_TIMEOUT_S * 1000;

    for (;;) {
        PostgresPollingStatusType next = PQconnectPoll(c->conn);
        enum waited w;

        if (next == PGRES_POLLING_OK)
            return true;
        if (next == PGRES_POLLING_FAILED)
            return peer_failed(c, e);
        w = wait_socket(c, next == PGRES_POLLING_READING ? POLLIN : POLLOUT, deadline, true);
        if (w == WAITED_STOP)
            return err_set(e, ERR_RESOURCE, "57P01", "pgtrickle is stopping");
        if (w == WAITED_TIMEOUT)
            return err_set(e, ERR_PEER, "08001", "connection attempt timed out after %d s",
                           CONNECT_TIMEOUT_S);
        if (w == WAITED_FAILED)
            return err_set(e, ERR_PEER, "08001", "poll: %s", strerror(errno));
    }
}

/* By SET and not as start-up options: a pooler between us and the server refuses those. */
#define SESSION_SETUP                                                                              \
    "SET application_name = 'pgtrickle'; SET statement_timeout = 0; SET lock_timeout = 0; "        \
    "SET idle_in_transaction_session_timeout = 0; SET search_path = pg_catalog, pg_temp; "         \
    "SET standard_conforming_strings = on; SET client_min_messages = notice; "                     \
    "SET default_transaction_isolation = 'read committed'; "                                       \
    "SET default_transaction_read_only = off; SET default_transaction_deferrable = off"

struct db_libpq *db_libpq_open(const char *conninfo, int stop_fd, struct err *e)
{
    /* Before dbname: defaults, which conninfo overrides. After it: ours, whatever it says. */
    const char *keywords[] = { "tcp_user_timeout",
                               "keepalives_idle",
                               "keepalives_interval",
                               "keepalives_count",
                               "dbname",
                               "client_encoding",
                               NULL };
    const char *values[] = { "60000", "30", "10", "3", conninfo, "UTF8", NULL };
    struct db_libpq *c = mem_alloc(sizeof(*c));

    c->db.ops = &libpq_ops;
    c->stop_fd = stop_fd;
    c->conn = PQconnectStartParams(keywords, values, 1);
    if (c->conn == NULL) {
        err_set(e, ERR_RESOURCE, "53200", "out of memory");
        goto fail;
    }
    if (PQstatus(c->conn) == CONNECTION_BAD) {
        peer_failed(c, e);
        goto fail;
    }
    if (!connect_polling(c, e))
        goto fail;
    PQsetNoticeReceiver(c->conn, receive_notice, c);
    if (PQsetnonblocking(c->conn, 1) != 0) {
        peer_failed(c, e);
        goto fail;
    }
    c->db.server_version = PQserverVersion(c->conn);
    if (!db_libpq_script(c, SESSION_SETUP, e))
        goto fail;
    return c;
fail:
    db_libpq_close(c);
    return NULL;
}

bool db_libpq_clean(struct db_libpq *c, struct err *e)
{
    return db_libpq_script(c,
                           "RESET ALL; RESET SESSION AUTHORIZATION; CLOSE ALL; UNLISTEN *; "
                           "DEALLOCATE ALL; SELECT pg_catalog.pg_advisory_unlock_all(); "
                           "DISCARD TEMP; " SESSION_SETUP,
                           e);
}

void db_libpq_close(struct db_libpq *c)
{
    if (c == NULL)
        return;
    PQfinish(c->conn);
    free(c);
}

struct dvm_db *db_libpq_db(struct db_libpq *c)
{
    return &c->db;
}

bool db_libpq_is_usable(const struct db_libpq *c)
{
    return !c->broken && PQstatus(c->conn) == CONNECTION_OK;
}

bool db_libpq_in_transaction(const struct db_libpq *c)
{
    PGTransactionStatusType status = PQtransactionStatus(c->conn);

    return status == PQTRANS_INTRANS || status == PQTRANS_INERROR;
}

bool db_libpq_script(struct db_libpq *c, const char *sql, struct err *e)
{
    PGresult *r;
    bool ok;

    if (c->broken)
        return unusable(e);
    if (PQsendQuery(c->conn, sql) == 0)
        return peer_failed(c, e);
    ok = read_results(c, &r, e);
    PQclear(r);
    return ok;
}
