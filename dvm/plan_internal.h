/* What the files that write refresh statements share. */
#ifndef PGTRICKLE_DVM_PLAN_INTERNAL_H
#define PGTRICKLE_DVM_PLAN_INTERNAL_H

#include "dvm/plan.h"

/* st.<the name of a column of the stream table> */
void plan_put_st(struct planner *p, struct text *out, int column);
/* The key-th key column of the stream table = other, NULLs equal. */
void plan_put_key_pair(struct planner *p, struct text *out, int key, const char *other);
bool plan_is_key(const struct planner *p, int column);

/* What a row is told apart by in one column, for GROUP BY: how it looks when images, else by
 * equality. */
void plan_put_row_identity(struct planner *p, struct text *out, int column, const char *value,
                           bool images);
/* SELECT c0.., sum(w) AS w FROM rows x GROUP BY c0.. HAVING sum(w) <> 0. With images 1.0 and 1.00
 * are two rows; but not as a group's key, which may show either. */
void plan_put_summed(struct planner *p, struct text *out, const char *rows, bool images);
/* The CTEs del and ups, and the answer, from the CTE f: all columns and w, one row for each
 * distinct row. */
void plan_put_apply_rows(struct planner *p, struct text *out, bool images, const char *into);
/* The refresh row of CTEs ups (inserted), del; rows: what is counted as the delta. */
void plan_put_result(struct text *out, const char *rows, const char *into);
/* The statement of STRATEGY_PARTITION. */
const char *plan_partition(struct planner *p, struct delta *d, const char *into);
/* t's text in the arena; t is freed. */
const char *plan_finish(struct planner *p, struct text *t);

/* The statement of STRATEGY_FIRST_ROWS. */
const char *plan_first_rows(struct planner *p, struct delta *d, const char *into);
/* (SELECT c0.., w of the CTE q, and of the stored rows with weight -1): what a full evaluation
 * changes. where: for the stored rows. */
void plan_put_against_stored(struct planner *p, struct text *out, const char *where);
/* A hidden column takes the type's own collation, which may not be that of the definition's values:
 * false but for types that have none. */
bool plan_type_has_no_collation(const struct value_type *t);

/* ---- algebraic ---------------------------------------------------------------------------- */

/* False when the aggregates of p->group have no states. */
bool plan_choose_states(struct planner *p);
/* The hidden column's. */
const char *plan_state_name(struct planner *p, int i);
const char *plan_algebraic(struct planner *p, struct delta *d, const char *into);

#endif
