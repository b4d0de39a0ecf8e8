/* IMMEDIATE: the statement-level triggers that keep a stream table equal to its query
 * inside the writing transaction. See docs/architecture.md, "IMMEDIATE".
 */
#ifndef PGTRICKLE_DVM_IMMEDIATE_H
#define PGTRICKLE_DVM_IMMEDIATE_H

#include "dvm/plan.h"

/* Statements that create functions and triggers, to be run in order by the owner. */
void immediate_put_sql(struct planner *p, const char ***sql, int *n);

#endif
