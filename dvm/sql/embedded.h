/* The SQL side, embedded at build time from dvm/sql/NN_*.sql, in name order; ends with a NULL name.
 */
#ifndef PGTRICKLE_DVM_SQL_EMBEDDED_H
#define PGTRICKLE_DVM_SQL_EMBEDDED_H

struct dvm_embedded_sql {
    const char *name;
    const char *text;
};

extern const struct dvm_embedded_sql dvm_embedded_sql[];

#endif
