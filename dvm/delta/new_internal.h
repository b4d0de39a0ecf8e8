/* How the rows of a tree are asked for: what new.c and apply.c share. */
#ifndef PGTRICKLE_DVM_DELTA_NEW_INTERNAL_H
#define PGTRICKLE_DVM_DELTA_NEW_INTERNAL_H

#include "dvm/delta/delta.h"

struct restriction {
    const struct op *at; /* evaluated for the keys in keys_cte only; NULL: nothing is */
    const char *keys_cte;
    struct delta *old;          /* scans give the rows of the last refresh; NULL: of now */
    const struct op *recursion; /* whose recursive arm this is */
    const struct restriction *outer;
    struct delta *before; /* not NULL: closed parts as they were before its changes */
};

void put_new(struct text *out, const struct op *op, const struct restriction *r);
/* "(rows) alias" */
void put_from(struct text *out, const struct op *child, const char *alias,
              const struct restriction *r);

/* A closed part as it was; filter: a predicate on it, or NULL. */
void put_old_closed(struct text *out, struct delta *d, const struct op *op,
                    const struct expr *filter);
void put_new_subfilter(struct text *out, const struct op *op, const struct restriction *r);
void put_new_subvalue(struct text *out, const struct op *op, const struct restriction *r);
void put_new_apply(struct text *out, const struct op *op, const struct restriction *r);

#endif
