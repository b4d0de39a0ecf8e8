/* FULL JOIN is no operator of its own:
 *
 *   L FULL JOIN R ON p  =  L LEFT JOIN R ON p  UNION ALL  NULLs of L, the R without a match in L
 *
 * Example: l1 has a match r1, r2 has none: (l1, r1) comes from the left join, (NULL, r2) from the
 * second arm. The NULLs have L's types since they are L's, joined ON false.
 */
#include "dvm/optree_internal.h"

static struct op *without_match(struct builder *b, struct op *l, struct op *r, struct expr **on,
                                int n)
{
    int nl = l->n_columns, nr = r->n_columns;
    struct expr *never = arena_new(b->a, struct expr);
    struct expr **columns = arena_new_array(b->a, struct expr *, (size_t)(nl + nr));
    const char **names = arena_new_array(b->a, const char *, (size_t)(nl + nr));
    struct op *op = build_anti_join(b, r, l, on, n, nl);

    if (op == NULL)
        return NULL;
    never->text = "false";
    op = build_join_op(b, OP_LEFT_JOIN, op, l, &never, 1);
    for (int i = 0; i < nl + nr; i++) {
        columns[i] = build_column_expr(b, i < nl ? nr + i : i - nl);
        names[i] = i < nl ? l->columns[i].name : r->columns[i - nl].name;
    }
    return build_named_only(b, build_project(b, op, columns, names, nl + nr), nl + nr);
}

struct op *build_full_join(struct builder *b, struct op *l, struct op *r, struct expr **on, int n)
{
    struct op *matched = build_join_op(b, OP_LEFT_JOIN, l, r, on, n);
    struct op *rest = without_match(b, l, r, on, n);
    struct op *op;

    if (rest == NULL)
        return NULL;
    op = build_new_op(b, OP_UNION_ALL, matched->n_columns);
    op->left = matched;
    op->right = rest;
    for (int i = 0; i < op->n_columns; i++)
        op->columns[i].name = matched->columns[i].name;
    return op;
}

struct op *build_merged_columns(struct builder *b, const struct from_item *item, struct op *op,
                                const struct scope *left, const struct scope *right, int n_left,
                                struct scope *s)
{
    int n = op->n_columns;
    struct expr **columns = arena_new_array(b->a, struct expr *, (size_t)(n + item->n_using));
    const char **names = arena_new_array(b->a, const char *, (size_t)(n + item->n_using));

    for (int i = 0; i < n; i++) {
        columns[i] = build_column_expr(b, i);
        names[i] = op->columns[i].name;
    }
    for (int u = 0; u < item->n_using; u++) {
        struct hole bare = { .kind = HOLE_COLUMN, .name = item->using_columns[u] };
        int x = build_look_up(left, &bare)->column;
        int y = build_look_up(right, &bare)->column + n_left;
        struct expr *e = build_column_expr(b, x);

        e->text = "COALESCE(__pgth0x, __pgth1x)";
        e->n_holes = 2;
        e->holes = arena_new_array(b->a, struct expr_hole, 2);
        e->holes[0].column = x;
        e->holes[1].column = y;
        columns[n + u] = e;
        names[n + u] = item->using_columns[u];
        for (int i = 0; i < s->n; i++)
            if (s->columns[i].column == x || s->columns[i].column == y)
                s->columns[i].merged_away = true;
        build_scope_add(b, s, NULL, item->using_columns[u], n + u);
    }
    return build_project(b, op, columns, names, n + item->n_using);
}
