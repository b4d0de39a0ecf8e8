/* Window functions: affected partitions, new minus old.
 *
 *   dW(R) = W(R_new restricted to K) - W(R_old restricted to K),  K = partitions of dR
 *
 * A window function numbers rows that ORDER BY holds equal as it likes. The old state is evaluated
 * anew, so it must come out as it did: such ties are broken by the rows' key, or by all columns
 * where there is none. Where ORDER BY itself can't go on, because the frame is made of peers, the
 * function gets its rows sorted so (no two windows share a sort, so PostgreSQL keeps that order).
 * Example: row_number() by region, R gains a row of 'n': K = {n}; all rows of 'n' come with their
 * new numbers and +1, and with their old ones and -1; what did not move cancels.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dvm/delta/delta.h"

static bool needs_window(const struct op *op, int i)
{
    return op->needed[op->left->n_columns + i];
}

static void put_sort(struct text *out, const struct op_window *w)
{
    for (int i = 0; i < w->n_sort; i++) {
        text_put(out, i > 0 ? ", " : "");
        put_expr_over(out, w->sort[i], "x");
        text_put(out, w->sort_suffix[i]);
    }
}

/* What tells rows apart: the key, or every column. */
static void put_ties(struct text *out, const struct op *op, bool first)
{
    const struct op *child = op->left;

    for (int i = 0; i < (child->has_key ? child->n_key : child->n_columns); i++) {
        int column = child->has_key ? child->key[i] : i;
        char value[32];

        if (!child->needed[column])
            continue;
        snprintf(value, sizeof(value), "x.c%d", column);
        text_put(out, first ? "" : ", ");
        if (child->has_key)
            put_comparable(out, &op->input_types[column], value);
        else
            put_image_key(out, &op->input_types[column], value);
        first = false;
    }
}

static void put_partition(struct text *out, const struct op *op)
{
    for (int i = 0; i < op->n_exprs; i++) {
        text_put(out, i > 0 ? ", " : "");
        put_expr_over(out, op->exprs[i], "x");
    }
}

static void put_call(struct text *out, const struct op *op, int i)
{
    const struct op_window *w = &op->windows[i];
    bool ordered = w->n_sort > 0;

    text_put(out, ", ");
    put_expr_over(out, w->call, "x");
    text_put(out, " OVER (");
    if (op->n_exprs > 0) {
        text_put(out, "PARTITION BY ");
        put_partition(out, op);
    }
    if (ordered) {
        text_put(out, " ORDER BY ");
        put_sort(out, w);
    }
    if (w->ties == TIES_IN) {
        struct text ties;

        text_init(&ties);
        put_ties(&ties, op, true);
        if (ties.len > 0)
            text_printf(out, "%s%s", ordered ? ", " : " ORDER BY ", ties.ptr);
        text_free(&ties);
    }
    text_printf(out, " %s) AS c%d", w->frame, op->left->n_columns + i);
}

static bool same_sort(const struct op_window *x, const struct op_window *y)
{
    if (x->n_sort != y->n_sort)
        return false;
    for (int i = 0; i < x->n_sort; i++) {
        if (strcmp(x->sort_suffix[i], y->sort_suffix[i]) != 0 ||
            strcmp(x->sort[i]->text, y->sort[i]->text) != 0 ||
            x->sort[i]->n_holes != y->sort[i]->n_holes)
            return false;
        for (int h = 0; h < x->sort[i]->n_holes; h++)
            if (x->sort[i]->holes[h].column != y->sort[i]->holes[h].column)
                return false;
    }
    return true;
}

/* The relation with the calls added that need their rows as i needs them. */
static void add_sorted_calls(struct text *from, const struct op *op, int i, bool *put)
{
    struct text out, order;
    bool first = op->n_exprs + op->windows[i].n_sort == 0;

    text_init(&out);
    text_put(&out, "(SELECT x.*");
    for (int k = i; k < op->n_windows; k++) {
        if (put[k] || op->windows[k].ties != TIES_BEFORE || !needs_window(op, k) ||
            !same_sort(&op->windows[i], &op->windows[k]))
            continue;
        put_call(&out, op, k);
        put[k] = true;
    }
    text_init(&order);
    put_partition(&order, op);
    text_put(&order, op->n_exprs > 0 && op->windows[i].n_sort > 0 ? ", " : "");
    put_sort(&order, &op->windows[i]);
    put_ties(&order, op, first);
    text_printf(&out, " FROM (SELECT x.* FROM %s x%s%s) x)", from->ptr,
                order.len > 0 ? " ORDER BY " : "", order.len > 0 ? order.ptr : "");
    text_free(&order);
    text_clear(from);
    text_put_str(from, text_str(&out));
    text_free(&out);
}

void delta_put_window(struct text *out, const struct op *op, const char *from)
{
    struct text relation, calls;
    bool *put = mem_alloc((size_t)op->n_windows + 1);

    text_init(&relation);
    text_init(&calls);
    text_put(&relation, from);
    for (int i = 0; i < op->n_windows; i++)
        if (op->windows[i].ties == TIES_BEFORE && needs_window(op, i) && !put[i])
            add_sorted_calls(&relation, op, i, put);
    text_put(out, "SELECT ");
    {
        bool first = true;

        for (int i = 0; i < op->n_columns; i++) {
            int call = i - op->left->n_columns;

            if (!op->needed[i])
                continue;
            if (call >= 0 && !put[call])
                continue;
            text_printf(out, "%sx.c%d", first ? "" : ", ", i);
            first = false;
        }
        for (int i = 0; i < op->n_windows; i++)
            if (needs_window(op, i) && !put[i])
                put_call(&calls, op, i);
        text_put(out, first && calls.len > 0 ? calls.ptr + 2 : calls.len > 0 ? calls.ptr : "");
    }
    text_printf(out, " FROM %s x", relation.ptr);
    text_free(&relation);
    text_free(&calls);
    free(put);
}

void delta_window(struct delta *d, const struct op *op, struct text *out)
{
    delta_put_new_minus_old(d, op, delta_put_window, out);
}
