/* dvm: differential view maintenance, the backend module.
 *
 * The only header of dvm/ that the daemon includes (with runtime/db.h, whose
 * interface the daemon implements for lent connections).  Two halves: a compiler
 * (a definition in, SQL out; pure but for reading the catalog through a struct
 * dvm_db) and a runtime (installing the SQL side, completing requests, refreshing
 * on schedule).
 */
#ifndef PGTRICKLE_DVM_H
#define PGTRICKLE_DVM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"
#include "dvm/runtime/db.h"

/* ---- the compiler ------------------------------------------------------------------------ */

enum dvm_mode { DVM_AUTO, DVM_FULL, DVM_DIFFERENTIAL, DVM_IMMEDIATE };

struct dvm_definition {
    const char *query;  /* the user's text of the SELECT */
    const char *schema; /* of the stream table */
    const char *name;
    const char *const *column_names; /* CREATE STREAM TABLE t (a, b): or NULL */
    int n_column_names;
    enum dvm_mode mode; /* what was asked */
    int64_t pgt_id;     /* already drawn from its sequence; names generated objects */
    bool append_only;
};

struct dvm_plan_column {
    const char *name;
    const char *type; /* format_type() with typmod, and COLLATE when not the type's own */
    bool hidden;      /* __pgt_* */
    bool not_null;    /* proved */
};

struct dvm_plan_source {
    uint32_t relid;
    const char *schema;
    const char *name;
    bool is_stream_table;
    bool is_view;              /* inlined: a dependency, but nothing is captured on it */
    const char **columns;      /* captured columns, in attribute order; n_columns 0 for FULL */
    const int *attnums;        /* their attribute numbers: column a<attnum> of the buffer */
    const char **column_types; /* format_type with COLLATE */
    int n_columns;
};

/* All that creating and maintaining one stream table takes; lives in the arena passed in. */
struct dvm_plan {
    enum dvm_mode mode;           /* never AUTO */
    const char *strategy;         /* "full", "linear", "recompute", "algebraic" */
    const char *downgrade_reason; /* AUTO took FULL: why; else NULL */
    const char *canonical_query;
    struct dvm_plan_column *columns;
    int n_columns;
    const char **key_columns; /* unique key of the stream table; n_key_columns 0: a bag */
    int n_key_columns;
    struct dvm_plan_source *sources;
    int n_sources;
    const uint32_t *functions; /* OIDs of those that are not PostgreSQL's own */
    int n_functions;
    bool time_dependent;
    const char **warnings; /* NOTICEs for the user */
    int n_warnings;
    const char **create_sql; /* run in order as the owner: CREATE TABLE, indexes */
    int n_create_sql;
    const char *fill_sql;       /* fills the empty table; answers a refresh row, no parameters */
    const char **immediate_sql; /* IMMEDIATE: functions and triggers, run in order as the owner */
    int n_immediate_sql;
    const char *plan_json; /* stored in pgt_stream_tables.plan; see docs/architecture.md */
    const char *explain;   /* hidden columns, the operator tree, sources, line by line */
};

/* Analyses the definition in the session's current transaction and compiles it.  What can't be
 * maintained is refused (0A000, position, HINT) for DIFFERENTIAL and IMMEDIATE, and becomes FULL
 * with downgrade_reason for AUTO.  Positions in *e are characters in d->query.  Leaves nothing in
 * the database (a rolled-back savepoint). */
bool dvm_compile(struct dvm_db *db, struct arena *a, const struct dvm_definition *d,
                 struct dvm_plan *plan, struct err *e);

/* ---- the runtime ------------------------------------------------------------------------- */

/* The SQLSTATE of the NOTICE by which an SQL function tells the proxy that a request waits to be
 * completed in this transaction. */
#define DVM_NOTICE_SQLSTATE "PGT00"

/* How the maintenance side logs in to one database: conninfo for libpq. */
struct dvm_target {
    const char *database; /* as clients name it, for log lines */
    const char *conninfo;
};

enum dvm_log_level { DVM_LOG_ERROR, DVM_LOG_WARNING, DVM_LOG_INFO, DVM_LOG_DEBUG };

struct dvm_config {
    int max_workers;
    int scheduler_interval_ms;
    void *log_arg;
    /* Called from any thread. */
    void (*log)(void *arg, enum dvm_log_level level, const char *line);
    /* Called by the scheduler's thread to learn which databases to look after; the targets are
     * copied by add(). With "* = host=..." the daemon lists the databases of that host itself
     * with dvm_list_databases. */
    void *targets_arg;
    void (*targets)(void *arg, void (*add)(void *add_arg, const struct dvm_target *t),
                    void *add_arg);
};

struct dvm;

struct dvm *dvm_new(const struct dvm_config *config);
void dvm_free(struct dvm *d); /* stops the scheduler first */

/* Installs or upgrades schemas pgtrickle and pgtrickle_changes in the target, unless this process
 * knows them to be current there. Blocks; call from a helper thread. */
bool dvm_install(struct dvm *d, const struct dvm_target *t, struct err *e);

/* Completes every request that the session's current transaction has registered and not yet
 * completed, in order, as the session's own role. The session must be inside a transaction block.
 * On failure the transaction is aborted on the server too, by the very error in *e.
 * NOTICEs for the client are handed to notice() (severity NOTICE or WARNING). */
bool dvm_complete_requests(struct dvm *d, struct dvm_db *db,
                           void (*notice)(void *arg, const char *severity, const char *message),
                           void *notice_arg, struct err *e);

/* The scheduler: one thread and max_workers connections of its own. */
bool dvm_scheduler_start(struct dvm *d, struct err *e);
void dvm_scheduler_stop(struct dvm *d);
/* Something was committed that may make work due sooner than the next tick. */
void dvm_scheduler_wake(struct dvm *d);

/* Lists the databases that accept connections, by asking the one that conninfo names. */
bool dvm_list_databases(const char *conninfo, struct arena *a, const char ***names, int *n,
                        struct err *e);

#endif
