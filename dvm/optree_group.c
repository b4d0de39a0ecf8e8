/* GROUP BY, aggregates, DISTINCT ON. */
#include <string.h>

#include "dvm/optree_internal.h"

/* e, resolved, with no time in it; NULL when refused. */
static struct expr *resolve_timeless(struct builder *b, const struct qexpr *q,
                                     const struct scope *s, int n_groups)
{
    struct expr *e = build_resolve(b, q, s, n_groups);

    if (e != NULL && e->uses_time)
        return build_refuse(b, REFUSAL_TIME, "the current time outside WHERE and HAVING");
    return e;
}

static bool resolve_aggregate(struct builder *b, const struct qagg *q, const struct scope *s,
                              struct op_aggregate *g)
{
    *g = (struct op_aggregate){
        .schema = q->schema,
        .function = q->function,
        .star = q->star,
        .distinct = q->distinct,
        .variadic = q->variadic,
        .within_group = q->within_group,
        .n_args = q->n_args,
        .n_sort = q->n_sort,
    };
    g->args = arena_new_array(b->a, struct expr *, (size_t)q->n_args);
    g->sort = arena_new_array(b->a, struct expr *, (size_t)q->n_sort);
    g->sort_suffix = arena_new_array(b->a, const char *, (size_t)q->n_sort);
    g->arg_types = arena_new_array(b->a, struct value_type, (size_t)q->n_args);
    for (int i = 0; i < q->n_args; i++)
        if ((g->args[i] = resolve_timeless(b, q->args[i], s, 0)) == NULL)
            return false;
    for (int i = 0; i < q->n_sort; i++) {
        g->sort_suffix[i] = q->sort[i].suffix;
        if ((g->sort[i] = resolve_timeless(b, q->sort[i].expr, s, 0)) == NULL)
            return false;
    }
    return q->filter == NULL || (g->filter = resolve_timeless(b, q->filter, s, 0)) != NULL;
}

struct op *build_grouping(struct builder *b, const struct query *q, struct op *child,
                          const struct scope *s)
{
    struct expr **keys = arena_new_array(b->a, struct expr *, (size_t)q->n_groups);
    struct op_aggregate *aggs = arena_new_array(b->a, struct op_aggregate, (size_t)q->n_aggs);

    for (int i = 0; i < q->n_groups; i++)
        if ((keys[i] = resolve_timeless(b, q->groups[i], s, 0)) == NULL)
            return NULL;
    for (int i = 0; i < q->n_aggs; i++)
        if (!resolve_aggregate(b, q->aggs[i], s, &aggs[i]))
            return NULL;
    return build_group_op(b, child, keys, NULL, q->n_groups, aggs, q->n_aggs);
}

struct op *build_distinct_on(struct builder *b, const struct query *q, struct op *child,
                             const struct scope *s)
{
    struct expr **keys = arena_new_array(b->a, struct expr *, (size_t)q->n_distinct_on);
    struct op *op;
    int *key;

    for (int i = 0; i < q->n_distinct_on; i++) {
        keys[i] = build_resolve(b, q->distinct_on[i], s, q->n_groups);
        if (keys[i] == NULL)
            return NULL;
        if (keys[i]->uses_time)
            return build_refuse(b, REFUSAL_TIME, "the current time outside WHERE and HAVING");
    }
    if (build_covers_key(child, keys, q->n_distinct_on))
        return child; /* one row a key already */
    /* The key expressions become columns, so that they can be the key. */
    {
        int n = child->n_columns;
        struct expr **all = arena_new_array(b->a, struct expr *, (size_t)(n + q->n_distinct_on));
        const char **names = arena_new_array(b->a, const char *, (size_t)(n + q->n_distinct_on));

        key = arena_new_array(b->a, int, (size_t)q->n_distinct_on);
        for (int i = 0; i < n; i++) {
            all[i] = build_column_expr(b, i);
            names[i] = child->columns[i].name;
        }
        for (int i = 0; i < q->n_distinct_on; i++) {
            key[i] = expr_plain_column(keys[i]);
            if (key[i] < 0) {
                key[i] = n;
                all[n] = keys[i];
                names[n++] = arena_printf(b->a, "key%d", i + 1);
            }
        }
        child = build_project(b, child, all, names, n);
    }
    op = build_new_op(b, OP_DISTINCT_ON, child->n_columns);
    op->left = child;
    memcpy(op->columns, child->columns, sizeof(*op->columns) * (size_t)child->n_columns);
    op->exprs = arena_new_array(b->a, struct expr *, (size_t)q->n_distinct_on);
    op->n_exprs = q->n_distinct_on;
    for (int i = 0; i < op->n_exprs; i++)
        op->exprs[i] = build_column_expr(b, key[i]);
    op->n_sort = q->n_sort;
    op->sort = arena_new_array(b->a, struct expr *, (size_t)q->n_sort);
    op->sort_suffix = arena_new_array(b->a, const char *, (size_t)q->n_sort);
    for (int i = 0; i < q->n_sort; i++) {
        /* A key that is an expression is a column by now. */
        for (int k = 0; op->sort[i] == NULL && k < op->n_exprs; k++)
            if (strcmp(q->sort[i].expr->key, q->distinct_on[k]->key) == 0)
                op->sort[i] = op->exprs[k];
        if (op->sort[i] == NULL)
            op->sort[i] = build_resolve(b, q->sort[i].expr, s, q->n_groups);
        op->sort_suffix[i] = q->sort[i].suffix;
        if (op->sort[i] == NULL)
            return NULL;
        if (op->sort[i]->uses_time)
            return build_refuse(b, REFUSAL_TIME, "the current time outside WHERE and HAVING");
    }
    build_set_key(b, op, key, op->n_exprs);
    return op;
}
