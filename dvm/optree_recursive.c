/* WITH RECURSIVE: the arms below one operator; a leaf for what the recursive arm reads of itself.
 */
#include <string.h>

#include "dvm/optree_internal.h"

struct open_recursion {
    const struct query *query;
    struct op *op;
    struct open_recursion *outer;
};

struct op *build_self(struct builder *b, const struct from_item *item, struct scope *s)
{
    struct op *recursion = NULL;
    struct op *op;

    for (struct open_recursion *r = b->recursions; r != NULL && recursion == NULL; r = r->outer)
        if (r->query == item->subquery)
            recursion = r->op;
    if (recursion == NULL)
        return build_refuse(b, REFUSAL_RECURSIVE, "this WITH RECURSIVE");
    op = build_new_op(b, OP_SELF, recursion->n_columns);
    op->of = recursion;
    for (int i = 0; i < op->n_columns; i++) {
        op->columns[i].name = recursion->columns[i].name;
        build_scope_add(b, s, item->alias,
                        build_column_name(item, i, item->subquery->targets[i].name), i);
    }
    return op;
}

struct op *build_recursive(struct builder *b, const struct query *q, int *n_named)
{
    struct open_recursion here = { .query = q, .outer = b->recursions };
    bool timed = b->tree->time_dependent;
    struct op *op = build_new_op(b, OP_RECURSIVE, q->n_targets);
    int n;

    *n_named = q->n_targets;
    b->tree->time_dependent = false;
    op->distinct = q->union_distinct;
    op->left = build_query(b, q->left, &n);
    if (op->left == NULL)
        return NULL;
    op->left = build_named_only(b, op->left, q->n_targets);
    for (int i = 0; i < q->n_targets; i++)
        op->columns[i].name = q->targets[i].name;
    here.op = op;
    b->recursions = &here;
    op->right = build_query(b, q->right, &n);
    b->recursions = here.outer;
    if (op->right == NULL)
        return NULL;
    op->right = build_named_only(b, op->right, q->n_targets);
    if (b->tree->time_dependent)
        return build_refuse(b, REFUSAL_TIME, "the current time inside WITH RECURSIVE");
    b->tree->time_dependent = timed;
    return op;
}
