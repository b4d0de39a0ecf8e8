/* Asks the server for the types in an operator tree: group keys, aggregate arguments,
 * what has equality and hashing, the columns of the root. One Describe an operator.
 */
#ifndef PGTRICKLE_DVM_TYPES_H
#define PGTRICKLE_DVM_TYPES_H

#include "base/arena.h"
#include "base/err.h"
#include "dvm/optree.h"
#include "dvm/runtime/db.h"

/* False with *refused when a key has a type that can't be one, else with *e. */
bool types_fill(struct dvm_db *db, struct arena *a, struct optree *tree, struct refusal *refused,
                struct err *e);

/* format_type of each. */
bool types_format(struct dvm_db *db, struct arena *a, const struct value_type *types, int n,
                  const char **out, struct err *e);

#endif
