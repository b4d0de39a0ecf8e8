/* The table of rules, and the CTEs that they fill. */
#include "dvm/delta/delta.h"

#include <stdio.h>
#include <string.h>

static delta_rule *const delta_rules[] = {
    [OP_SCAN] = delta_scan,               /* the rows captured, by weight                        */
    [OP_RECURSIVE] = delta_recursive,     /* new minus old                                       */
    [OP_SELF] = NULL,                     /* inside of a recursion only                          */
    [OP_FUNCTION] = delta_function,       /* dF(L) = dL x f(l)                                   */
    [OP_FILTER] = delta_filter,           /* dF(R) = F(dR), and what the passing of time flips   */
    [OP_PROJECT] = delta_project,         /* dP(R) = P(dR)                                       */
    [OP_JOIN] = delta_join,               /* d(R*S) = dR*S + R*dS - dR*dS                        */
    [OP_LEFT_JOIN] = delta_left_join,     /* inner part, and the rows whose having a match flips */
    [OP_UNION_ALL] = delta_union_all,     /* d(R+S) = dR + dS                                    */
    [OP_GROUP] = delta_group,             /* affected groups, new minus old                      */
    [OP_DISTINCT_ON] = delta_distinct_on, /* affected keys, new minus old                      */
    [OP_WINDOW] = delta_window,           /* affected partitions, new minus old                */
    [OP_VALUES] = delta_values,           /* nothing                                             */
    [OP_REPEAT] = delta_repeat,           /* dR, its weight times the number of copies           */
    [OP_LIMIT] = delta_limit,             /* the first rows, new minus old                       */
    [OP_SUBFILTER] = delta_subfilter,     /* rows of the change, and those whose condition flips */
    [OP_SUBVALUE] = delta_subvalue,       /* rows of the change, and those whose value changes   */
    [OP_APPLY] = delta_apply,             /* rows of the change, and those with other right rows */
};

void delta_init(struct delta *d, struct arena *a, const struct optree *tree, enum delta_from from,
                uint64_t changed, int64_t pgt_id)
{
    *d = (struct delta){ .a = a, .tree = tree, .from = from, .changed = changed, .pgt_id = pgt_id };
    d->names = arena_new_array(a, const char *, (size_t)tree->n_ops);
    d->keys = arena_new_array(a, const char *, (size_t)tree->n_ops);
    d->old_scans = arena_new_array(a, const char *, (size_t)tree->n_ops);
    d->asked = arena_new_array(a, bool, (size_t)tree->n_ops);
    text_init(&d->with);
}

static bool may_have_changed(const struct delta *d, const struct op *op)
{
    if (op == NULL)
        return false;
    if (op->kind == OP_SCAN)
        return (d->changed >> op->source & 1) != 0;
    if (delta_uses_time(op))
        return true;
    return may_have_changed(d, op->left) || may_have_changed(d, op->right);
}

bool delta_rows_have_images(const struct op *op)
{
    if (op != NULL && op->kind == OP_SUBFILTER)
        return delta_rows_have_images(op->left);
    return op == NULL || (op->kind != OP_GROUP && op->kind != OP_DISTINCT_ON &&
                          delta_rows_have_images(op->left) && delta_rows_have_images(op->right));
}

void delta_cte_begin(struct delta *d, const char *name, bool materialized)
{
    text_printf(&d->with, "%s %s AS %s(", d->with.len == 0 ? "WITH" : ",\n", name,
                materialized ? "MATERIALIZED " : "");
}

void delta_cte_end(struct delta *d)
{
    text_put(&d->with, ")");
}

const char *delta_of(struct delta *d, const struct op *op)
{
    struct text body;

    if (d->asked[op->id])
        return d->names[op->id];
    d->asked[op->id] = true;
    if (!may_have_changed(d, op))
        return NULL;
    text_init(&body);
    delta_rules[op->kind](d, op, &body); /* asks for the children's CTEs first */
    d->names[op->id] = arena_printf(d->a, "d%d", op->id);
    delta_cte_begin(d, d->names[op->id], false);
    text_put_str(&d->with, text_str(&body));
    delta_cte_end(d);
    text_free(&body);
    return d->names[op->id];
}

static bool keys_need_hash(const struct op *op)
{
    bool nullable = false;

    for (int i = 0; i < op->n_exprs; i++) {
        int plain = expr_plain_column(op->exprs[i]);

        nullable = nullable || plain < 0 || !op->left->columns[plain].not_null;
        if (!op->key_types[i].has_hash)
            return false;
    }
    return nullable && op->n_exprs > 1;
}

const char *delta_keys(struct delta *d, const struct op *op)
{
    bool is_scan = op->kind == OP_SCAN;
    int n = is_scan ? op->n_key : op->n_exprs;
    const char *changes;
    struct text list;

    if (op->kind == OP_RECURSIVE)
        return delta_recursive_keys(d, op);
    if (d->keys[op->id] != NULL)
        return d->keys[op->id];
    changes = delta_of(d, is_scan ? op : op->left);
    if (changes == NULL)
        return NULL;
    text_init(&list);
    for (int i = 0; i < n; i++) {
        text_put(&list, i > 0 ? ", " : "");
        if (is_scan)
            text_printf(&list, "x.c%d", op->key[i]);
        else
            put_expr_over(&list, op->exprs[i], "x");
        text_printf(&list, " AS k%d", i);
    }
    d->keys[op->id] = arena_printf(d->a, "k%d", op->id);
    delta_cte_begin(d, d->keys[op->id], true);
    if (!is_scan && keys_need_hash(op)) {
        text_put(&d->with, "SELECT y.*, pg_catalog.hash_record_extended(ROW(");
        for (int i = 0; i < n; i++)
            text_printf(&d->with, "%sy.k%d", i > 0 ? ", " : "", i);
        text_printf(&d->with, "), 0) AS h FROM (SELECT DISTINCT %s FROM %s x) y", list.ptr,
                    changes);
    } else if (n == 0) {
        text_printf(&d->with, "SELECT FROM %s LIMIT 1", changes);
    } else {
        text_printf(&d->with, "SELECT DISTINCT %s FROM %s x", list.ptr, changes);
    }
    delta_cte_end(d);
    text_free(&list);
    return d->keys[op->id];
}
