/* An operator tree -> the SQL that keeps a stream table equal to it.
 *
 * The strategies, by what stands at the root below projections and filters:
 *   linear       no grouping: the delta's rows are what to apply, by key or as a bag
 *   partition    window functions: affected partitions are evaluated anew and compared, row by row
 *   first rows   LIMIT: evaluated anew when the change may reach them, and compared with the stored
 *                rows
 *   recompute    GROUP BY, DISTINCT ON: affected keys are evaluated anew and compared with the
 *                stored rows
 *   algebraic    GROUP BY with aggregates that have inverses, MIN and MAX while the extremum stays,
 *                DISTINCT: added to the stored rows; state that the definition does not show is
 * kept in hidden columns and "full" for a definition that is only ever run as a whole.
 */
#ifndef PGTRICKLE_DVM_PLAN_H
#define PGTRICKLE_DVM_PLAN_H

#include "base/arena.h"
#include "base/err.h"
#include "dvm/delta/delta.h"
#include "dvm/dvm.h"
#include "dvm/optree.h"

enum strategy {
    STRATEGY_FULL,
    STRATEGY_LINEAR,
    STRATEGY_PARTITION,
    STRATEGY_FIRST_ROWS,
    STRATEGY_RECOMPUTE,
    STRATEGY_ALGEBRAIC
};

enum state_kind {
    STATE_COUNT, /* of rows, or of values that are not NULL */
    STATE_TRUE,  /* of rows with a true value */
    STATE_SUM,
    STATE_SQUARES, /* the sum of the values' squares */
    STATE_MIN,     /* NULL for none */
    STATE_MAX
};

/* A running value that aggregates are computed from. */
struct state {
    enum state_kind kind;
    bool exact;                /* no NaN, no infinity: what was added can be subtracted */
    const struct expr *arg;    /* NULL: rows */
    const struct expr *filter; /* or NULL */
    const char *type;          /* NULL: that of facts */
    struct value_type facts;
    int column;   /* of the stream table where it is stored */
    int count;    /* STATE_SUM: the state that counts its values */
    bool visible; /* stored in a column of the definition: a sum there may be NULL */
};

struct st_column {
    const char *name;
    const char *type;
    struct value_type facts;
    bool hidden;
    bool not_null;
};

struct planner {
    struct arena *a;
    const struct dvm_definition *def;
    const struct catalog *cat;
    const struct optree *tree; /* NULL: full */
    enum strategy strategy;
    const struct op *group; /* the grouping (or window) operator at the root, or NULL */
    const struct op *scan;  /* the only scan, when all above it is linear; or NULL */
    struct st_column *columns;
    int n_columns;
    const int *key; /* columns of the stream table; n_key 0: a bag (or a single row) */
    int n_key;
    bool images;          /* what a delta takes out looks as it is stored */
    struct state *states; /* [0] is the count of rows */
    int n_states;
    /* per aggregate of group; -1: none. value_state: extremum, count of true values, squares */
    int *count_state, *sum_state, *value_state;
};

/* Decides; types of tree must be known (types.h). */
void planner_init(struct planner *p, struct arena *a, const struct dvm_definition *def,
                  const struct catalog *cat, const struct optree *tree);

/* Each gives one statement. into: NULL, or the PL/pgSQL variable that takes the refresh row. */
const char *plan_delta(struct planner *p, enum delta_from from, uint64_t changed, const char *into);
const char *plan_full(struct planner *p, const char *into);
const char *plan_fill(struct planner *p);

/* plan_check.c: compares and changes nothing. Answers a refresh row, inserted: copies of rows that
 * the query has and the stream table lacks, deleted: the other way round; and leaves some of them as
 * JSON in the local setting pgtrickle.differences. own_reading: with the rows of plan_put_rows, all
 * columns; else with the canonical text, those of the definition. */
const char *plan_check(struct planner *p, bool own_reading);

/* The rows that the stream table should hold, all columns, as c0.. */
void plan_put_rows(struct planner *p, struct text *out);

/* CREATE TABLE and its indexes. */
void plan_put_create(struct planner *p, const char ***sql, int *n);

/* Names of the target, quoted. */
void plan_put_target(struct planner *p, struct text *out);

/* ---- pieces that immediate.c uses too ------------------------------------------------------ */

/* "s0 IS NaN or infinite" over states that aren't exact; false when all are. */
bool plan_has_inexact_state(const struct planner *p);
/* Whether a state is a MIN or MAX. */
bool plan_has_extremum(const struct planner *p);
/* SELECT k0.., s0.. of the change of each group, from the change of the group's input. An
 * extremum's s is that of the rows that came, x that of those that went. */
void plan_put_group_changes(struct planner *p, struct delta *d, struct text *out);
/* SELECT c0.. (all columns of the stream table) and n from base, which has k0.., s0... When base is
 * a change and not a state, a column that stores a sum gets the sum's change, NULL only for none,
 * and what is computed from aggregates is NULL. */
void plan_put_outputs(struct planner *p, const char *base, bool is_change, struct text *out);
/* Whether the definition's column i is computed from aggregates; whether any is. */
bool plan_is_computed(const struct planner *p, int i);
bool plan_computes(const struct planner *p);
/* SELECT k0.., s0.. of whole groups; keys: the CTE of the affected ones, NULL for all. */
void plan_put_group_states(struct planner *p, struct text *out, const char *keys);
/* The value of the i-th aggregate, from alias.s<n>. */
void plan_put_value(struct planner *p, struct text *out, int i, const char *alias);
/* The column of the definition that shows column c of the group as it is; -1: none. */
int plan_shown_as(const struct planner *p, int c);
/* Whether any scan of the source needs its column. */
bool plan_captures(const struct planner *p, int source, int column);
/* The only scan below op when all between is projection and filter, else NULL. */
const struct op *plan_find_scan(const struct op *op);
/* alias.k0 = st.key AND …, NULLs equal; alias's key columns are named prefix<i>. */
void plan_put_key_match(struct planner *p, struct text *out, const char *alias, const char *prefix);
void plan_put_column_names(struct planner *p, struct text *out, const char *alias);
/* The upsert's tail: ON CONFLICT (key) DO UPDATE SET every other column = EXCLUDED's. */
void plan_put_on_conflict(struct planner *p, struct text *out, bool only_changed);

#endif
