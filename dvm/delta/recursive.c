/* WITH RECURSIVE: evaluated anew, new minus old.
 *
 *   dX(R) = X(R_new) - X(R_old)
 * At the root of a definition the stored rows are X(R_old), see plan_partition.c. Both sides are
 * whole evaluations: how far a change reaches is only known by following it, and following a row
 * that goes needs to know that no other way leads to it. Only what differs is written.
 * R_old is R_new minus dR, for each source that changed.
 */
#include <stdio.h>

#include "dvm/delta/delta.h"

/* SELECT 1 FROM each change below op; false when there is none. */
static bool put_changes(struct delta *d, const struct op *op, struct text *out)
{
    const char *changes;
    bool left, right;

    if (op == NULL)
        return false;
    if (op->kind != OP_SCAN) {
        left = put_changes(d, op->left, out);
        right = put_changes(d, op->right, out);
        return left || right;
    }
    changes = delta_of(d, op);
    if (changes == NULL)
        return false;
    text_printf(out, "%sSELECT 1 FROM %s", out->len > 0 ? " UNION ALL " : "", changes);
    return true;
}

const char *delta_recursive_keys(struct delta *d, const struct op *op)
{
    struct text changes;

    if (d->keys[op->id] != NULL)
        return d->keys[op->id];
    text_init(&changes);
    if (put_changes(d, op, &changes)) {
        d->keys[op->id] = arena_printf(d->a, "k%d", op->id);
        delta_cte_begin(d, d->keys[op->id], true);
        text_printf(&d->with, "SELECT FROM (%s) x LIMIT 1", changes.ptr);
        delta_cte_end(d);
    }
    text_free(&changes);
    return d->keys[op->id];
}

const char *delta_old_scan(struct delta *d, const struct op *op)
{
    const char *changes = delta_of(d, op);
    const char *name = arena_printf(d->a, "os%d", op->id);
    struct text group;

    if (changes == NULL || d->old_scans[op->id] != NULL)
        return d->old_scans[op->id];
    d->old_scans[op->id] = name;
    text_init(&group);
    delta_cte_begin(d, name, true);
    text_put(&d->with, "SELECT ");
    put_needed(&d->with, op, "v", false);
    text_put(&d->with, " FROM (SELECT ");
    for (int i = 0; i < op->n_columns; i++) {
        const struct cat_column *c = &op->table->columns[i];
        struct value_type type = { .has_equality = c->has_equality, .exact = c->exact };
        char value[32];

        if (!op->needed[i])
            continue;
        snprintf(value, sizeof(value), "u.c%d", i);
        if (type.has_equality)
            text_printf(&d->with, "%s, ", value);
        else
            text_printf(&d->with, "pgtrickle._any(%s) AS c%d, ", value, i);
        text_put(&group, group.len > 0 ? ", " : " GROUP BY ");
        put_image_key(&group, &type, value);
    }
    text_put(&d->with, "pg_catalog.sum(u.w)::bigint AS w FROM (SELECT ");
    put_needed(&d->with, op, "x", true);
    text_put(&d->with, "1 AS w FROM (");
    delta_put_new(&d->with, op, NULL, NULL);
    text_put(&d->with, ") x UNION ALL SELECT ");
    put_needed(&d->with, op, "x", true);
    text_printf(&d->with,
                "-x.w FROM %s x) u%s) v CROSS JOIN LATERAL pg_catalog.generate_series(1, "
                "v.w)",
                changes, group.len > 0 ? group.ptr : "");
    delta_cte_end(d);
    text_free(&group);
    return name;
}

void delta_recursive(struct delta *d, const struct op *op, struct text *out)
{
    text_put(out, "SELECT ");
    put_needed(out, op, "y", true);
    text_put(out, "1 AS w FROM (");
    delta_put_new(out, op, op, delta_recursive_keys(d, op));
    text_put(out, ") y UNION ALL SELECT ");
    put_needed(out, op, "y", true);
    text_put(out, "-1 FROM (");
    delta_put_old(d, out, op);
    text_printf(out, ") y WHERE EXISTS (SELECT 1 FROM %s)", delta_recursive_keys(d, op));
}
