/* Reads all that the compiler needs from the database, in the session's current
 * transaction: the server resolves names and types, we never do.
 *
 * The definition becomes a temporary view inside a savepoint; its canonical text,
 * dependencies, keys and function volatilities are read back; the savepoint is
 * rolled back. See docs/architecture.md and the manual's chapters "System Catalogs", "pg_depend".
 */
#ifndef PGTRICKLE_DVM_ANALYZE_H
#define PGTRICKLE_DVM_ANALYZE_H

#include "base/arena.h"
#include "base/err.h"
#include "dvm/catalog.h"
#include "dvm/dvm.h"

/* False and *e when the server rejects the definition (its own error, positions in d->query), when
 * it isn't one SELECT, has parameters, or has no columns. */
bool analyze(struct dvm_db *db, struct arena *a, const struct dvm_definition *d,
             struct catalog *cat, struct err *e);

/* What PostgreSQL can do with values of a type. */
struct type_facts {
    uint32_t oid;
    bool has_equality; /* a default btree operator class whose = is pg_catalog's */
    bool has_hash;     /* a default hash operator class with an extended hash function */
    bool exact;        /* equal values look alike: not so for 1.0 and 1.00 */
};

/* Fills facts[i] for each oid. */
bool analyze_types(struct dvm_db *db, struct arena *a, const uint32_t *oids, int n,
                   struct type_facts *facts, struct err *e);

#endif
