/* Delta rules: operator -> SQL.
 *
 * For every operator R there are two relations, each a SELECT over columns c<i>:
 *   new(R)    the rows as of now; plain SQL, no weights
 *   delta(R)  the change since the last refresh as a Z-set: rows with a weight w
 * The old state needs no rule: old(R) = new(R) - delta(R). Where a rule calls for
 * old rows the minus is distributed, L_old * dS = L_new * dS - dL * dS, so that base
 * tables are always probed through their indexes.
 *
 * Deltas become CTEs d<op>, affected keys k<op>, in the order in which they are
 * first asked for. A delta that is empty because nothing below changed is NULL and
 * its terms are left out.
 */
#ifndef PGTRICKLE_DVM_DELTA_DELTA_H
#define PGTRICKLE_DVM_DELTA_DELTA_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/text.h"
#include "dvm/optree.h"

enum delta_from {
    DELTA_FROM_BUFFER,  /* deferred: pgtrickle_changes.c_<relid> behind the frontier $1..$5 */
    DELTA_FROM_INSERT,  /* trigger: transition table __pgt_new */
    DELTA_FROM_DELETE,  /* trigger: __pgt_old */
    DELTA_FROM_UPDATE,  /* trigger: both */
    DELTA_FROM_PENDING, /* trigger: collected in pgtrickle_changes.p_<pgt_id>_<relid> */
};

struct delta {
    struct arena *a;
    const struct optree *tree;
    enum delta_from from;
    uint64_t changed; /* bit per source */
    int64_t pgt_id;
    bool as_captured;   /* what came and went may stay in a scan's delta: the rest sums it up */
    struct text with;   /* the CTEs so far: "WITH x AS (…),\n y AS (…)" */
    const char **names; /* per operator: its delta's CTE; NULL: not asked yet */
    bool *asked;
    const char **keys;      /* per operator: its affected keys' CTE */
    const char **old_scans; /* per scan: the CTE of its old rows */
};

void delta_init(struct delta *d, struct arena *a, const struct optree *tree, enum delta_from from,
                uint64_t changed, int64_t pgt_id);

/* The name of a relation with the needed columns of op and w; NULL when nothing can have
 * changed. */
const char *delta_of(struct delta *d, const struct op *op);

/* SELECT of the needed columns of op as of now. With restricted, that operator is evaluated only
 * for the keys in keys_cte (a scan: the rows with these keys). */
void delta_put_new(struct text *out, const struct op *op, const struct op *restricted,
                   const char *keys_cte);

/* The value of an OP_SUBFILTER's or OP_SUBVALUE's subquery for the row a<id>, as SQL. */
void delta_put_sub_value(struct text *out, const struct op *op);

/* Whether op's rows look the same whenever they are evaluated. Groups and DISTINCT ON show one of
 * several equal values (1.0 and 1.00), and not always the same one. */
bool delta_rows_have_images(const struct op *op);

/* op's GROUP BY over the relation `from`. */
void delta_put_group(struct text *out, const struct op *op, const char *from);

/* op's DISTINCT ON over the relation `from`. Ties of ORDER BY are broken by all columns, so that
 * the choice is the same each time. */
void delta_put_distinct_on(struct text *out, const struct op *op, const char *from);

/* op's window functions over the relation `from`, ties of ORDER BY broken likewise. */
void delta_put_window(struct text *out, const struct op *op, const char *from);
/* op's ORDER BY and LIMIT over the relation `from`: SELECT of the needed columns of rows (op or its
 * child). more: NULL, or the SQL of how many rows more than the definition's. Ties of ORDER BY are
 * broken by all columns. */
void delta_put_limit(struct text *out, const struct op *op, const struct op *rows, const char *from,
                     const char *more);

/* SELECT of the needed columns of op, each distinct row once, and the sum of its weights w, where
 * it isn't 0. types: of op's columns. */
void delta_put_summed(struct text *out, const struct op *op, const struct value_type *types,
                      const char *from);

/* The CTE o<op>: the rows that op's child had before the change, each as often as it was there, as
 * far as now (a relation) has those that it has. */
const char *delta_put_old_rows(struct delta *d, const struct op *op, const char *now);

/* l x f(l) over the relation `from`; also: a column of l's more, or "". */
void delta_put_function(struct text *out, const struct op *op, const char *from, const char *also);

/* SELECT of the needed columns of op as of the last refresh, evaluated from the old rows of its
 * scans. Nothing below op may use the time. */
void delta_put_old(struct delta *d, struct text *out, const struct op *op);
/* The CTE of the rows that a scan had; NULL when they are those that it has. */
const char *delta_old_scan(struct delta *d, const struct op *scan);
/* The CTE with one row when anything below a recursion changed; NULL when nothing can have. */
const char *delta_recursive_keys(struct delta *d, const struct op *op);

/* SELECT of the needed columns of op's input, now, for the affected keys only. */
void delta_put_affected(struct text *out, const struct op *op, const char *keys_cte);

/* The CTE of the distinct keys k0.. of op (OP_GROUP, OP_DISTINCT_ON, OP_WINDOW; a scan with a key)
 * that the change touches; NULL as delta_of. */
const char *delta_keys(struct delta *d, const struct op *op);

/* Adds "name AS [MATERIALIZED] (" to the CTEs; the caller writes the body to d->with, then
 * delta_cte_end. */
void delta_cte_begin(struct delta *d, const char *name, bool materialized);
void delta_cte_end(struct delta *d);

/* ---- writing SQL --------------------------------------------------------------------------- */

/* An expression over the input. Columns below split are left.c<n>, the others right.c<n-split>. */
void put_expr(struct text *out, const struct expr *e, const char *left, const char *right,
              int split, const char *time);
/* An expression over one relation, with the SQL of its subquery (OP_SUBFILTER). */
void put_expr_with(struct text *out, const struct expr *e, const char *alias, const char *subquery);
/* An expression over one relation. The refresh's time is now(). */
void put_expr_over(struct text *out, const struct expr *e, const char *alias);
/* "alias.c0, alias.c2": the needed columns, each followed by ", " when comma_last. */
void put_needed(struct text *out, const struct op *op, const char *alias, bool comma_last);
/* One aggregate call over alias. Where the definition leaves the order of its input open and the
 * result shows it, the arguments decide: the same rows give the same result. */
void put_aggregate(struct text *out, const struct op_aggregate *g, const char *alias);
/* A value in a form that can be compared: itself, or its text. */
void put_comparable(struct text *out, const struct value_type *t, const char *value);

/* Whether equal values of the type look alike. A numeric with a fixed scale does. */
bool value_is_exact(const struct value_type *t);
/* A value in a form that tells 1.0 from 1.00. */
void put_image(struct text *out, const struct value_type *t, const char *value);
/* For GROUP BY: a value as it looks, hashed or sorted by itself first. */
void put_image_key(struct text *out, const struct value_type *t, const char *value);

/* How the frontier is compared: the condition for a new buffer row; prefix is "b." or "". */
void put_frontier(struct text *out, const char *prefix);

/* ---- time ---------------------------------------------------------------------------------- */

/* Whether op itself evaluates something that uses the time. */
bool delta_uses_time(const struct op *op);
/* Whether e may be another than at the last refresh, over alias: a condition, never NULL where it
 * matters. */
void put_time_changes(struct text *out, const struct expr *e, const char *alias);
/* " UNION ALL SELECT …": what the passing of time flips in a filter. */
void delta_put_filter_flips(struct delta *d, const struct op *op, struct text *out);
/* The delta of a projection that uses the time. */
void delta_put_timed_project(struct delta *d, const struct op *op, struct text *out);

/* Whether no value can make e fail: columns and constants, compared. */
bool expr_is_total(const struct expr *e);

/* ---- rules, one an operator ---------------------------------------------------------------- */

typedef void delta_rule(struct delta *d, const struct op *op, struct text *out);

delta_rule delta_scan, delta_filter, delta_project, delta_union_all, delta_join, delta_left_join,
    delta_group, delta_distinct_on, delta_window, delta_values, delta_repeat, delta_limit,
    delta_function, delta_recursive, delta_subfilter, delta_subvalue, delta_apply;

/* Writes an operator over the relation `from`, the rows of its input. */
typedef void delta_put_over(struct text *out, const struct op *op, const char *from);
/* The delta of an operator that is evaluated by key (op->exprs): affected keys, new minus old. */
void delta_put_new_minus_old(struct delta *d, const struct op *op, delta_put_over *put,
                             struct text *out);

#endif
