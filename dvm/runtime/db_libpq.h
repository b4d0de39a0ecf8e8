/* struct dvm_db over a libpq connection of our own.
 *
 * For the scheduler, the refresh workers and the installation; never for a client's
 * session (proxy/wire_db.c lends that one).  Every wait also watches stop_fd, so
 * that a thread blocked in a long refresh can be told to go home: the statement is
 * cancelled on the server and the call fails with 57P01 / ERR_RESOURCE.
 *
 * A connection belongs to one thread.  After a failure of class ERR_PEER or
 * ERR_RESOURCE it is of no use any more: close it.
 *
 * Source: manual, "libpq: Asynchronous Command Processing", "Notice Processing".
 */
#ifndef PGTRICKLE_DVM_RUNTIME_DB_LIBPQ_H
#define PGTRICKLE_DVM_RUNTIME_DB_LIBPQ_H

#include <stdbool.h>

#include "base/err.h"
#include "dvm/runtime/db.h"

struct db_libpq;

/* A NOTICE or WARNING of the server, as it arrives; the strings live for the call. */
typedef void db_notice_fn(void *arg, const char *severity, const char *sqlstate,
                          const char *message);

/* Connects and prepares the session: UTF8, no timeouts, search_path pg_catalog.  conninfo may hold
 * anything libpq knows; connect_timeout and keepalives have defaults that it overrides.
 * stop_fd: readable when the process wants its threads back (an eventfd); -1: never.
 * NULL and *e on failure. */
struct db_libpq *db_libpq_open(const char *conninfo, int stop_fd, struct err *e);

/* Throws away whatever the code of users has left in the session, outside of a transaction:
 * settings, cursors, advisory locks, temporary tables. Plans stay: they are ours, and dear. */
bool db_libpq_clean(struct db_libpq *c, struct err *e);

void db_libpq_close(struct db_libpq *c); /* NULL is fine */

/* The interface; lives as long as c. */
struct dvm_db *db_libpq_db(struct db_libpq *c);

void db_libpq_on_notice(struct db_libpq *c, db_notice_fn *hook, void *arg);

/* The connection can run another statement. */
bool db_libpq_is_usable(const struct db_libpq *c);
/* Inside a transaction block, a failed one included. */
bool db_libpq_in_transaction(const struct db_libpq *c);

/* Runs a script of any number of statements by the simple protocol; stops at the first error.
 * Results are thrown away. */
bool db_libpq_script(struct db_libpq *c, const char *sql, struct err *e);

#endif
