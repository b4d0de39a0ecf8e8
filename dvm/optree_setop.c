/* UNION, INTERSECT, EXCEPT; VALUES; LIMIT.
 *
 * INTERSECT and EXCEPT count each distinct row's copies on either side (l, r) and keep it
 *   INTERSECT        where l > 0 and r > 0      INTERSECT ALL   least(l, r) times
 *   EXCEPT           where l > 0 and r = 0      EXCEPT ALL      l - r times
 * so that nothing but a grouping has to be maintained. NULLs are equal to one another, as a
 * grouping has it.
 */
#include <string.h>

#include "dvm/optree_internal.h"

struct op *build_union_all(struct builder *b, struct op *l, struct op *r)
{
    struct op *op = build_new_op(b, OP_UNION_ALL, l->n_columns);

    op->left = l;
    op->right = r;
    for (int i = 0; i < op->n_columns; i++) {
        op->columns[i].name = l->columns[i].name;
        op->columns[i].not_null = l->columns[i].not_null && r->columns[i].not_null;
    }
    return op;
}

static struct expr *text_expr(struct builder *b, const char *text, int n_holes, int first)
{
    struct expr *e = arena_new(b->a, struct expr);

    e->text = text;
    e->n_holes = n_holes;
    e->holes = arena_new_array(b->a, struct expr_hole, (size_t)n_holes);
    for (int i = 0; i < n_holes; i++)
        e->holes[i].column = first + i;
    return e;
}

/* child's columns and, behind them, which side of the operation it is. */
static struct op *tagged(struct builder *b, struct op *child, bool is_left)
{
    int n = child->n_columns;
    struct expr **exprs = arena_new_array(b->a, struct expr *, (size_t)n + 1);
    const char **names = arena_new_array(b->a, const char *, (size_t)n + 1);

    for (int i = 0; i < n; i++) {
        exprs[i] = build_column_expr(b, i);
        names[i] = child->columns[i].name;
    }
    exprs[n] = text_expr(b, is_left ? "true" : "false", 0, 0);
    names[n] = "is_left";
    return build_project(b, child, exprs, names, n + 1);
}

/* The distinct rows of both sides with the number of copies on either. */
static struct op *counted(struct builder *b, struct op *l, struct op *r)
{
    int n = l->n_columns;
    struct op_aggregate *counts = arena_new_array(b->a, struct op_aggregate, 2);
    struct expr **keys = arena_new_array(b->a, struct expr *, (size_t)n);
    const char **names = arena_new_array(b->a, const char *, (size_t)n);

    for (int i = 0; i < n; i++) {
        keys[i] = build_column_expr(b, i);
        names[i] = l->columns[i].name;
    }
    for (int side = 0; side < 2; side++)
        counts[side] = (struct op_aggregate){
            .function = "count",
            .star = true,
            .filter = text_expr(b, side == 0 ? "__pgth0x" : "NOT __pgth0x", 1, n),
        };
    return build_group_op(b, build_union_all(b, tagged(b, l, true), tagged(b, r, false)), keys,
                          names, n, counts, 2);
}

static struct op *build_repeat(struct builder *b, struct op *child, struct expr *times, int n)
{
    struct op *op = build_new_op(b, OP_REPEAT, n);

    op->left = child;
    op->exprs = arena_new_array(b->a, struct expr *, 1);
    op->exprs[0] = times;
    op->n_exprs = 1;
    memcpy(op->columns, child->columns, sizeof(*op->columns) * (size_t)n);
    return op;
}

static struct op *build_difference(struct builder *b, const struct query *q, struct op *l,
                                   struct op *r)
{
    int n = q->n_targets;
    bool except = q->kind == QUERY_EXCEPT;
    struct op *both = counted(b, l, r);
    struct op *op;

    if (!q->union_distinct)
        return build_repeat(
            b, both,
            text_expr(b, except ? "__pgth0x - __pgth1x" : "LEAST(__pgth0x, __pgth1x)", 2, n), n);
    op = build_filter(
        b, both,
        text_expr(b, except ? "__pgth0x > 0 AND __pgth1x = 0" : "__pgth0x > 0 AND __pgth1x > 0", 2,
                  n));
    return build_named_only(b, op, n);
}

struct op *build_values(struct builder *b, const struct query *q)
{
    struct op *op = build_new_op(b, OP_VALUES, q->n_targets);

    op->n_rows = q->n_rows;
    op->n_exprs = q->n_rows * q->n_targets;
    op->exprs = arena_new_array(b->a, struct expr *, (size_t)op->n_exprs);
    for (int i = 0; i < op->n_exprs; i++) {
        if ((op->exprs[i] = build_resolve(b, q->values[i], NULL, 0)) == NULL)
            return NULL;
        if (op->exprs[i]->uses_time)
            return build_refuse(b, REFUSAL_TIME, "the current time in VALUES");
    }
    for (int i = 0; i < q->n_targets; i++)
        op->columns[i].name = q->targets[i].name;
    if (op->n_rows == 1)
        build_set_key(b, op, NULL, 0);
    return op;
}

struct op *build_one_row(struct builder *b)
{
    struct op *op = build_new_op(b, OP_VALUES, 0);

    op->n_rows = 1;
    build_set_key(b, op, NULL, 0);
    return op;
}

struct op *build_limit(struct builder *b, const struct query *q, struct op *child, const int *sort)
{
    struct op *op = build_new_op(b, OP_LIMIT, child->n_columns);

    op->left = child;
    op->limit = q->limit;
    op->offset = q->offset;
    op->with_ties = q->with_ties;
    memcpy(op->columns, child->columns, sizeof(*op->columns) * (size_t)child->n_columns);
    op->n_sort = q->n_sort;
    op->sort = arena_new_array(b->a, struct expr *, (size_t)q->n_sort);
    op->sort_suffix = arena_new_array(b->a, const char *, (size_t)q->n_sort);
    for (int i = 0; i < q->n_sort; i++) {
        op->sort[i] = build_column_expr(b, sort[i]);
        op->sort_suffix[i] = q->sort[i].suffix;
    }
    if (child->has_key)
        build_set_key(b, op, child->key, child->n_key);
    return op;
}

struct op *build_set_operation(struct builder *b, const struct query *q)
{
    struct op *l, *r, *op;
    int *sort, n_named;

    if (q->kind == QUERY_VALUES) {
        op = build_values(b, q);
    } else {
        l = build_query(b, q->left, &n_named);
        r = l != NULL ? build_query(b, q->right, &n_named) : NULL;
        if (r == NULL)
            return NULL;
        l = build_named_only(b, l, q->n_targets);
        r = build_named_only(b, r, q->n_targets);
        if (q->kind != QUERY_UNION_ALL) {
            op = build_difference(b, q, l, r);
        } else {
            op = build_union_all(b, l, r);
            op = q->union_distinct ? build_distinct(b, op, q->n_targets) : op;
        }
    }
    if (op == NULL || !q->has_limit)
        return op;
    sort = arena_new_array(b->a, int, (size_t)q->n_sort);
    for (int i = 0; i < q->n_sort; i++)
        sort[i] = q->sort[i].column;
    return build_limit(b, q, op, sort);
}
