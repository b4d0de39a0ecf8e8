/* Window calls -> operators: one for each PARTITION BY, stacked. */
#include <string.h>

#include "dvm/optree_internal.h"

static bool same_expr_list(struct qexpr *const *x, int n_x, struct qexpr *const *y, int n_y)
{
    for (int i = 0; i < n_x; i++) {
        bool found = false;

        for (int k = 0; k < n_y && !found; k++)
            found = strcmp(x[i]->key, y[k]->key) == 0;
        if (!found)
            return false;
    }
    return true;
}

static bool same_partition(const struct qwindow *x, const struct qwindow *y)
{
    return same_expr_list(x->partition, x->n_partition, y->partition, y->n_partition) &&
           same_expr_list(y->partition, y->n_partition, x->partition, x->n_partition);
}

/* Functions whose answer for a row is the same whatever the order among its peers. */
static bool ignores_order_of_peers(const char *function)
{
    static const char *const known[] = { "rank",    "dense_rank", "percent_rank", "cume_dist",
                                         "count",   "bool_and",   "bool_or",      "every",
                                         "bit_and", "bit_or",     "bit_xor",      NULL };

    for (int i = 0; function != NULL && known[i] != NULL; i++)
        if (strcmp(known[i], function) == 0)
            return true;
    return false;
}

/* Functions that look at the order of rows and not at the frame. */
static bool ignores_frame(const char *function)
{
    static const char *const known[] = { "row_number", "ntile", "lag", "lead", NULL };

    for (int i = 0; function != NULL && known[i] != NULL; i++)
        if (strcmp(known[i], function) == 0)
            return true;
    return false;
}

/* Whether PARTITION BY and ORDER BY hold the key of the rows: no two rows are peers. */
static bool order_is_total(struct builder *b, const struct op *op, const struct op_window *w)
{
    int n = op->n_exprs + w->n_sort;
    struct expr **all = arena_new_array(b->a, struct expr *, (size_t)n);

    for (int i = 0; i < op->n_exprs; i++)
        all[i] = op->exprs[i];
    for (int i = 0; i < w->n_sort; i++)
        all[op->n_exprs + i] = w->sort[i];
    return build_covers_key(op->left, all, n);
}

static enum window_ties choose_ties(struct builder *b, const struct op *op,
                                    const struct op_window *w, const struct qwindow *q)
{
    if (ignores_frame(q->function))
        return order_is_total(b, op, w) ? TIES_NONE : TIES_IN;
    if (order_is_total(b, op, w))
        return TIES_NONE;
    if (ignores_order_of_peers(q->function) &&
        (q->peers || strcmp(q->function, "rank") == 0 || strcmp(q->function, "dense_rank") == 0 ||
         strcmp(q->function, "percent_rank") == 0 || strcmp(q->function, "cume_dist") == 0))
        return TIES_NONE;
    return q->peers ? TIES_BEFORE : TIES_IN;
}

/* What a call is resolved to before its operator is built. */
struct prepared {
    struct expr **sort;
    struct expr **args;
};

static bool fill_window(struct builder *b, const struct query *q, const struct qwindow *from,
                        const struct prepared *p, struct scope *s, struct op *op,
                        struct op_window *w)
{
    int *args = arena_new_array(b->a, int, (size_t)from->n_args);

    for (int i = 0; i < from->n_args; i++)
        args[i] = expr_plain_column(p->args[i]);
    s->args = args;
    w->call = build_resolve(b, from->call, s, q->n_groups);
    if (w->call == NULL)
        return false;
    w->name = from->function != NULL ? from->function : "window function";
    w->n_sort = from->n_sort;
    w->sort = p->sort;
    w->sort_suffix = arena_new_array(b->a, const char *, (size_t)from->n_sort);
    for (int i = 0; i < from->n_sort; i++)
        w->sort_suffix[i] = from->sort[i].suffix;
    w->frame = from->frame;
    w->ties = choose_ties(b, op, w, from);
    return true;
}

/* child with the PARTITION BY as columns; keys: which. The columns that child has stay in place. */
static struct op *with_partition(struct builder *b, const struct query *q, const struct qwindow *w,
                                 const struct scope *s, struct op *child, int *keys)
{
    int n = child->n_columns;
    struct expr **all = arena_new_array(b->a, struct expr *, (size_t)(n + w->n_partition));
    const char **names = arena_new_array(b->a, const char *, (size_t)(n + w->n_partition));

    for (int i = 0; i < n; i++) {
        all[i] = build_column_expr(b, i);
        names[i] = child->columns[i].name;
    }
    for (int i = 0; i < w->n_partition; i++) {
        struct expr *e = build_resolve(b, w->partition[i], s, q->n_groups);

        if (e == NULL)
            return NULL;
        keys[i] = expr_plain_column(e);
        if (keys[i] < 0) {
            keys[i] = n;
            all[n] = e;
            names[n++] = arena_printf(b->a, "partition%d", i + 1);
        }
    }
    return n == child->n_columns ? child : build_project(b, child, all, names, n);
}

/* The operator for the calls that share the PARTITION BY of q's first-th. */
static struct op *build_partition(struct builder *b, const struct query *q, int first,
                                  const struct prepared *prepared, struct op *child,
                                  struct scope *s, int *columns)
{
    const struct qwindow *by = q->windows[first];
    int *keys = arena_new_array(b->a, int, (size_t)by->n_partition);
    struct op *op;
    int n = 0;

    child = with_partition(b, q, by, s, child, keys);
    if (child == NULL)
        return NULL;
    for (int i = first; i < q->n_windows; i++)
        n += same_partition(q->windows[i], by);
    op = build_new_op(b, OP_WINDOW, child->n_columns + n);
    op->left = child;
    memcpy(op->columns, child->columns, sizeof(*op->columns) * (size_t)child->n_columns);
    if (child->has_key)
        build_set_key(b, op, child->key, child->n_key);
    op->carry = keys;
    op->n_carry = by->n_partition;
    op->n_exprs = by->n_partition;
    op->exprs = arena_new_array(b->a, struct expr *, (size_t)by->n_partition);
    for (int i = 0; i < by->n_partition; i++)
        op->exprs[i] = build_column_expr(b, keys[i]);
    op->windows = arena_new_array(b->a, struct op_window, (size_t)n);
    for (int i = first; i < q->n_windows; i++) {
        struct op_window *w = &op->windows[op->n_windows];

        if (!same_partition(q->windows[i], by))
            continue;
        if (!fill_window(b, q, q->windows[i], &prepared[i], s, op, w))
            return NULL;
        columns[i] = child->n_columns + op->n_windows++;
        op->columns[columns[i]].name = w->name;
    }
    return op;
}

/* ORDER BY and arguments, over child; what uses the time becomes a column of the answer. */
static struct op *prepare(struct builder *b, const struct query *q, struct op *child,
                          const struct scope *s, struct prepared *prepared)
{
    struct expr ***places;
    int n = 0;

    for (int i = 0; i < q->n_windows; i++)
        n += q->windows[i]->n_sort + q->windows[i]->n_args;
    places = arena_new_array(b->a, struct expr **, (size_t)n);
    n = 0;
    for (int i = 0; i < q->n_windows; i++) {
        const struct qwindow *w = q->windows[i];

        prepared[i].sort = arena_new_array(b->a, struct expr *, (size_t)w->n_sort);
        prepared[i].args = arena_new_array(b->a, struct expr *, (size_t)w->n_args);
        for (int k = 0; k < w->n_sort; k++) {
            prepared[i].sort[k] = build_resolve(b, w->sort[k].expr, s, q->n_groups);
            places[n++] = &prepared[i].sort[k];
            if (prepared[i].sort[k] == NULL)
                return NULL;
        }
        for (int k = 0; k < w->n_args; k++) {
            prepared[i].args[k] = build_resolve(b, w->args[k], s, q->n_groups);
            places[n++] = &prepared[i].args[k];
            if (prepared[i].args[k] == NULL)
                return NULL;
        }
    }
    return build_computed(b, child, places, n);
}

struct op *build_windows(struct builder *b, const struct query *q, struct op *child,
                         struct scope *s)
{
    int *columns = arena_new_array(b->a, int, (size_t)q->n_windows);
    struct prepared *prepared = arena_new_array(b->a, struct prepared, (size_t)q->n_windows);

    child = prepare(b, q, child, s, prepared);
    for (int i = 0; i < q->n_windows; i++)
        columns[i] = -1;
    for (int i = 0; child != NULL && i < q->n_windows; i++)
        if (columns[i] < 0)
            child = build_partition(b, q, i, prepared, child, s, columns);
    s->windows = columns;
    return child;
}
