/* Is this definition maintainable: what the catalog says (sources, functions). The
 * query's shape is judged where it is translated, in sql_parse.c and optree.c.
 */
#ifndef PGTRICKLE_DVM_SUPPORT_H
#define PGTRICKLE_DVM_SUPPORT_H

#include "base/arena.h"
#include "base/err.h"
#include "dvm/catalog.h"
#include "dvm/sql_parse.h"

/* What no stream table can have, whatever its mode. False and *refused. */
bool support_check_any(struct arena *a, const struct catalog *cat, struct refusal *refused);

/* What can't be maintained from changes; immediate: by the triggers alone. */
bool support_check_differential(struct arena *a, const struct catalog *cat, bool immediate,
                                struct refusal *refused);

/* The first volatile function, or NULL. */
const struct cat_function *support_find_volatile(const struct catalog *cat);

#endif
