/* Grouping, DISTINCT, DISTINCT ON below another operator: affected keys, new minus old.
 *
 *   dG(R) = G(R_new restricted to K) - G(R_old restricted to K),  K = keys of dR
 *
 * G needs rows, not weights: R_old restricted to K is R_new restricted to K minus dR, summed and
 * written out w times. At the root of a definition the stored rows are G(R_old), see plan.c.
 * Example: count(*) by region, R gains two rows of 'n': K = {n}; the new row (n, 5) comes with +1,
 * the old one (n, 3) with -1.
 */
#include <stdio.h>

#include "dvm/delta/delta.h"

void delta_put_summed(struct text *out, const struct op *op, const struct value_type *types,
                      const char *from)
{
    bool images = delta_rows_have_images(op);
    struct text group;

    text_init(&group);
    text_put(out, "SELECT ");
    for (int i = 0; i < op->n_columns; i++) {
        char value[32];

        if (!op->needed[i])
            continue;
        snprintf(value, sizeof(value), "u.c%d", i);
        text_printf(out, types[i].has_equality ? "u.c%d, " : "pgtrickle._any(u.c%d) AS c%d, ", i,
                    i);
        text_put(&group, group.len > 0 ? ", " : " GROUP BY ");
        (images ? put_image_key : put_comparable)(&group, &types[i], value);
    }
    text_printf(out, "pg_catalog.sum(u.w)::bigint AS w FROM %s u%s HAVING pg_catalog.sum(u.w) <> 0",
                from, group.len > 0 ? group.ptr : "");
    text_free(&group);
}

const char *delta_put_old_rows(struct delta *d, const struct op *op, const char *now)
{
    const struct op *child = op->left;
    const char *name = arena_printf(d->a, "o%d", op->id);
    const char *changes = delta_of(d, child);
    struct text both;

    text_init(&both);
    text_put(&both, "(SELECT ");
    put_needed(&both, child, "x", true);
    text_printf(&both, "1 AS w FROM %s x UNION ALL SELECT ", now);
    put_needed(&both, child, "x", true);
    text_printf(&both, "-x.w FROM %s x)", changes);
    delta_cte_begin(d, name, false);
    text_put(&d->with, "SELECT ");
    put_needed(&d->with, child, "v", false);
    text_put(&d->with, " FROM (");
    delta_put_summed(&d->with, child, op->input_types, both.ptr);
    text_put(&d->with, ") v CROSS JOIN LATERAL pg_catalog.generate_series(1, v.w)");
    delta_cte_end(d);
    text_free(&both);
    return name;
}

void delta_put_new_minus_old(struct delta *d, const struct op *op, delta_put_over *put,
                             struct text *out)
{
    const char *keys = delta_keys(d, op);
    const char *rows;
    struct text now;

    text_init(&now);
    text_put(&now, "(");
    delta_put_affected(&now, op, keys);
    text_put(&now, ")");
    rows = delta_put_old_rows(d, op, now.ptr);
    text_free(&now);

    text_put(out, "SELECT ");
    put_needed(out, op, "y", true);
    text_put(out, "1 AS w FROM (");
    delta_put_new(out, op, op, keys);
    text_put(out, ") y");
    if (op->n_exprs == 0)
        text_printf(out, " WHERE EXISTS (SELECT 1 FROM %s)", keys);
    text_put(out, " UNION ALL SELECT ");
    put_needed(out, op, "y", true);
    text_put(out, "-1 FROM (");
    put(out, op, rows);
    text_put(out, ") y");
    if (op->n_exprs == 0)
        text_printf(out, " WHERE EXISTS (SELECT 1 FROM %s)", keys);
}

/* The same row with +1 and -1: a group that changed in nothing that is needed above is no change.
 * Keys are compared as a group has them, values as they look. */
void delta_group(struct delta *d, const struct op *op, struct text *out)
{
    struct text both, by;
    char value[32];

    text_init(&both);
    text_init(&by);
    text_put(&both, "(");
    delta_put_new_minus_old(d, op, delta_put_group, &both);
    text_put(&both, ")");
    text_put(out, "SELECT ");
    for (int i = 0; i < op->n_columns; i++) {
        const struct value_type *t =
            i < op->n_exprs ? &op->key_types[i] : &op->aggregates[i - op->n_exprs].result;

        if (!op->needed[i])
            continue;
        snprintf(value, sizeof(value), "g.c%d", i);
        text_printf(out, t->has_equality ? "%s, " : "pgtrickle._any(%s) AS c%d, ", value, i);
        text_put(&by, by.len > 0 ? ", " : " GROUP BY ");
        (i < op->n_exprs ? put_comparable : put_image_key)(&by, t, value);
    }
    text_printf(out, "pg_catalog.sum(g.w)::bigint AS w FROM %s g%s HAVING pg_catalog.sum(g.w) <> 0",
                both.ptr, by.ptr);
    text_free(&both);
    text_free(&by);
}

void delta_distinct_on(struct delta *d, const struct op *op, struct text *out)
{
    delta_put_new_minus_old(d, op, delta_put_distinct_on, out);
}
