/* Installs and upgrades the SQL side: one transaction under an advisory lock.
 *
 * The version is a hash of the embedded text, recorded as the body of
 * pgtrickle._version(); every file of dvm/sql is written to be run again over an
 * older version of itself.
 */
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "dvm/dvm.h"
#include "dvm/runtime/db_libpq.h"
#include "dvm/runtime/dvm_internal.h"
#include "dvm/sql/embedded.h"

void install_remember(struct dvm *d, const char *conninfo)
{
    pthread_mutex_lock(&d->mutex);
    for (int i = 0; i < d->n_current; i++)
        if (strcmp(d->current[i], conninfo) == 0)
            goto out;
    d->current = mem_realloc(d->current, (size_t)(d->n_current + 1) * sizeof(*d->current));
    d->current[d->n_current++] = mem_strdup(conninfo);
out:
    pthread_mutex_unlock(&d->mutex);
}

void install_forget(struct dvm *d, const char *conninfo)
{
    pthread_mutex_lock(&d->mutex);
    for (int i = 0; i < d->n_current; i++) {
        if (strcmp(d->current[i], conninfo) != 0)
            continue;
        free(d->current[i]);
        d->current[i] = d->current[--d->n_current];
        break;
    }
    pthread_mutex_unlock(&d->mutex);
}

static bool is_remembered(struct dvm *d, const char *conninfo)
{
    bool found = false;

    pthread_mutex_lock(&d->mutex);
    for (int i = 0; i < d->n_current && !found; i++)
        found = strcmp(d->current[i], conninfo) == 0;
    pthread_mutex_unlock(&d->mutex);
    return found;
}

bool install_look(const struct dvm *d, struct db_libpq *c, enum install_state *state, struct err *e)
{
    struct dvm_db *db = db_libpq_db(c);
    struct db_rows rows;
    struct arena a;
    bool ok;

    arena_init(&a);
    ok = db_query(db, &a, &rows, e,
                  "SELECT pg_catalog.to_regnamespace('pgtrickle') IS NOT NULL, "
                  "pg_catalog.to_regprocedure('pgtrickle._version()') IS NOT NULL");
    if (!ok)
        goto out;
    *state = db_cell(&rows, 0, 0)[0] == 't' ? INSTALL_OTHER_VERSION : INSTALL_ABSENT;
    if (db_cell(&rows, 0, 1)[0] != 't')
        goto out;
    ok = db_query(db, &a, &rows, e, "SELECT pgtrickle._version()::text");
    if (ok && rows.n_rows == 1 && db_cell(&rows, 0, 0) != NULL &&
        strcmp(db_cell(&rows, 0, 0), d->version) == 0)
        *state = INSTALL_CURRENT;
out:
    arena_free(&a);
    return ok;
}

/* Asks for the rights before using them, so that the refusal can name the GRANT. */
static bool may_install(struct dvm_db *db, struct err *e)
{
    struct db_rows rows;
    struct arena a;
    bool ok;

    arena_init(&a);
    ok = db_query(db, &a, &rows, e,
                  "SELECT pg_catalog.current_database(), current_user, "
                  "pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE'), "
                  "pg_catalog.pg_is_in_recovery(), "
                  "pg_catalog.quote_ident(pg_catalog.current_database()), "
                  "pg_catalog.quote_ident(current_user), "
                  "(SELECT pg_catalog.pg_get_userbyid(n.nspowner) FROM pg_catalog.pg_namespace n "
                  "WHERE n.nspname IN ('pgtrickle', 'pgtrickle_changes') "
                  "AND NOT pg_catalog.pg_has_role(n.nspowner, 'USAGE') LIMIT 1)");
    if (!ok)
        goto out;
    if (db_cell(&rows, 0, 3)[0] == 't') {
        ok = err_set(e, ERR_REFUSAL, "25006",
                     "cannot install pgtrickle in database \"%s\": the server is a standby",
                     db_cell(&rows, 0, 0));
    } else if (db_cell(&rows, 0, 6) != NULL) {
        ok = err_set(e, ERR_REFUSAL, "42501",
                     "the pgtrickle schemas in database \"%s\" belong to role \"%s\", and \"%s\" "
                     "may not upgrade them",
                     db_cell(&rows, 0, 0), db_cell(&rows, 0, 6), db_cell(&rows, 0, 1));
        err_hint(e, "Let pgtrickle log in as \"%s\" (dvm_user in its configuration).",
                 db_cell(&rows, 0, 6));
    } else if (db_cell(&rows, 0, 2)[0] != 't') {
        ok = err_set(e, ERR_REFUSAL, "42501",
                     "role \"%s\" may not install pgtrickle in database \"%s\"",
                     db_cell(&rows, 0, 1), db_cell(&rows, 0, 0));
        err_hint(e, "GRANT CREATE ON DATABASE %s TO %s;", db_cell(&rows, 0, 4),
                 db_cell(&rows, 0, 5));
    }
out:
    arena_free(&a);
    return ok;
}

static bool run_files(const struct dvm *d, struct db_libpq *c, struct err *e)
{
    /* Functions may name others that come later. */
    if (!db_exec(db_libpq_db(c), e, "SET LOCAL check_function_bodies = off"))
        return false;
    for (const struct dvm_embedded_sql *f = dvm_embedded_sql; f->name != NULL; f++) {
        if (!db_libpq_script(c, f->text, e)) {
            err_prefix(e, "installing pgtrickle (%s)", f->name);
            return false;
        }
    }
    return db_exec(db_libpq_db(c), e,
                   "CREATE OR REPLACE FUNCTION pgtrickle._version() RETURNS text "
                   "LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT ''%s''::text'",
                   d->version);
}

bool install_run(struct dvm *d, struct db_libpq *c, const char *database, struct err *e)
{
    struct dvm_db *db = db_libpq_db(c);
    enum install_state state;

    if (!db_exec(db, e, "BEGIN") ||
        !db_exec(db, e, "SELECT pg_catalog.pg_advisory_xact_lock(%d, %d)", DVM_LOCK_CLASS,
                 DVM_LOCK_INSTALL))
        goto fail;
    /* Someone else may have installed it while we waited for the lock. */
    if (!install_look(d, c, &state, e))
        goto fail;
    if (state != INSTALL_CURRENT && (!may_install(db, e) || !run_files(d, c, e)))
        goto fail;
    if (!db_exec(db, e, "COMMIT"))
        goto fail;
    if (state != INSTALL_CURRENT)
        dvm_log(d, DVM_LOG_INFO, "installed database=%s version=%s upgrade=%s", database,
                d->version, state == INSTALL_ABSENT ? "no" : "yes");
    return true;
fail:
    if (db_libpq_is_usable(c) && db_libpq_in_transaction(c)) {
        struct err ignored = { 0 };

        db_exec(db, &ignored, "ROLLBACK");
        err_clear(&ignored);
    }
    return false;
}

bool dvm_install(struct dvm *d, const struct dvm_target *t, struct err *e)
{
    struct db_libpq *c;
    enum install_state state;
    bool ok;

    if (is_remembered(d, t->conninfo))
        return true;
    c = db_libpq_open(t->conninfo, -1, e);
    if (c == NULL) {
        err_prefix(e, "the maintenance side of pgtrickle cannot log in");
        return false;
    }
    ok = install_look(d, c, &state, e);
    if (ok && state != INSTALL_CURRENT)
        ok = install_run(d, c, t->database, e);
    if (ok)
        install_remember(d, t->conninfo);
    db_libpq_close(c);
    return ok;
}

bool dvm_list_databases(const char *conninfo, struct arena *a, const char ***names, int *n,
                        struct err *e)
{
    struct db_libpq *c = db_libpq_open(conninfo, -1, e);
    struct db_rows rows;
    bool ok;

    *names = NULL;
    *n = 0;
    if (c == NULL)
        return false;
    ok = db_query(db_libpq_db(c), a, &rows, e,
                  "SELECT datname FROM pg_catalog.pg_database "
                  "WHERE datallowconn AND NOT datistemplate "
                  "AND pg_catalog.has_database_privilege(oid, 'CONNECT') ORDER BY datname");
    if (ok) {
        *n = rows.n_rows;
        *names = rows.cells; /* one column: the cells are the names */
    }
    db_libpq_close(c);
    return ok;
}
