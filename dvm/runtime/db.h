/* What dvm needs from a database: run SQL in one session, read rows.
 *
 * dvm declares this interface and does not care who carries it out.  There are two
 * implementations: a libpq connection of dvm's own (runtime/db_libpq.c; refresh
 * workers, scheduler, installation) and a client's server connection lent by the
 * proxy (proxy/wire_db.c; stream-table statements in the client's transaction).
 * Calls block.  A db is used by one thread at a time.
 *
 * All values travel as text; a NULL cell is a NULL pointer.  Every statement is a
 * single statement, sent by the extended protocol under a statement name of our
 * own, so that a client's unnamed statement survives.
 */
#ifndef PGTRICKLE_DVM_RUNTIME_DB_H
#define PGTRICKLE_DVM_RUNTIME_DB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"

struct db_column {
    const char *name;
    uint32_t type_oid;
    int32_t typmod;
};

/* Rows in the arena that was passed to the call. */
struct db_rows {
    int n_columns;
    int n_rows;
    struct db_column *columns;
    const char **cells; /* n_rows * n_columns; see db_cell */
};

struct dvm_db;

struct dvm_db_ops {
    /* Runs one statement.  rows may be NULL when the result is of no interest.  False and *e on
     * any failure; for an error of the server (ERR_SERVER) the session is as PostgreSQL leaves it:
     * its transaction is aborted. */
    bool (*query)(struct dvm_db *db, struct arena *a, const char *sql, struct db_rows *rows,
                  struct err *e);
    /* Parse + Describe without running: the result's columns, and how many parameters ($n) the
     * statement has. */
    bool (*describe)(struct dvm_db *db, struct arena *a, const char *sql, struct db_rows *columns,
                     int *n_params, struct err *e);
};

/* Embedded as the first member by each implementation. */
struct dvm_db {
    const struct dvm_db_ops *ops;
    int server_version; /* as libpq's PQserverVersion: 150020 */
};

static inline const char *db_cell(const struct db_rows *r, int row, int column)
{
    return r->cells[(size_t)row * (size_t)r->n_columns + (size_t)column];
}

/* Formats and runs.  As ops->query. */
bool db_query(struct dvm_db *db, struct arena *a, struct db_rows *rows, struct err *e,
              const char *fmt, ...) __attribute__((format(printf, 5, 6)));
bool db_exec(struct dvm_db *db, struct err *e, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
