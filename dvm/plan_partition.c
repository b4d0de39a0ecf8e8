/* A window at the root: affected partitions are evaluated anew and compared with their stored rows,
 * and only rows that differ are written.
 *
 *   k  the partitions that the change touches
 *   n  their rows as they must be
 *   s  their stored rows
 *   f  what n has and s has not (a bag: with weights, and what s has and n has not)
 */
#include "dvm/plan_internal.h"

static void put_stored_match(struct planner *p, struct text *out)
{
    const struct op *root = p->tree->root;

    for (int i = 0; i < root->n_carry; i++) {
        int column = root->carry[i];

        text_put(out, i > 0 ? " AND " : "");
        if (p->columns[column].not_null) {
            plan_put_st(p, out, column);
            text_printf(out, " = k.k%d", i);
            continue;
        }
        text_put(out, "(");
        plan_put_st(p, out, column);
        text_printf(out, " = k.k%d OR (", i);
        plan_put_st(p, out, column);
        text_printf(out, " IS NULL AND k.k%d IS NULL))", i);
    }
    if (root->n_carry == 0)
        text_put(out, "true");
}

static void put_stored_columns(struct planner *p, struct text *out, const char *also)
{
    text_put(out, "SELECT ");
    for (int i = 0; i < p->n_columns; i++) {
        plan_put_st(p, out, i);
        text_printf(out, " AS c%d, ", i);
    }
    text_printf(out, "%s FROM ", also);
    plan_put_target(p, out);
    text_put(out, " st");
}

/* "SELECT st.… AS c0, … FROM target st …": the stored rows of the partitions. */
static void put_stored(struct planner *p, struct text *out, const char *keys, const char *also)
{
    const struct op *root = p->tree->root;
    int first = root->n_carry > 0 ? root->carry[0] : -1;

    put_stored_columns(p, out, also);
    if (root->n_carry != 1 || p->columns[first].not_null) {
        text_printf(out, " JOIN %s k ON ", keys);
        put_stored_match(p, out);
        return;
    }
    /* Two branches, each with its own access path. */
    text_printf(out, " JOIN %s k ON ", keys);
    plan_put_st(p, out, first);
    text_put(out, " = k.k0 UNION ALL ");
    put_stored_columns(p, out, also);
    text_put(out, " WHERE ");
    plan_put_st(p, out, first);
    text_printf(out, " IS NULL AND EXISTS (SELECT 1 FROM %s k WHERE k.k0 IS NULL)", keys);
}

static void put_same_key(struct planner *p, struct text *out, const char *x, const char *y)
{
    for (int i = 0; i < p->n_key; i++)
        text_printf(out,
                    p->columns[p->key[i]].not_null ? "%s%s.c%d = %s.c%d"
                                                   : "%s%s.c%d IS NOT DISTINCT FROM %s.c%d",
                    i > 0 ? " AND " : "", x, p->key[i], y, p->key[i]);
}

static void put_images(struct planner *p, struct text *out, const char *alias)
{
    text_put(out, "ROW(");
    for (int i = 0; i < p->n_columns; i++) {
        struct text value;

        text_init(&value);
        text_printf(&value, "%s.c%d", alias, i);
        text_put(out, i > 0 ? ", " : "");
        put_image(out, &p->columns[i].facts, value.ptr);
        text_free(&value);
    }
    text_put(out, ")");
}

static void put_by_key(struct planner *p, struct delta *d, const char *keys)
{
    struct text *out = &d->with;

    delta_cte_begin(d, "s", true);
    put_stored(p, out, keys, "st.ctid AS place");
    delta_cte_end(d);
    delta_cte_begin(d, "f", true);
    text_put(out, "SELECT n.* FROM n WHERE NOT EXISTS (SELECT 1 FROM s WHERE ");
    put_same_key(p, out, "s", "n");
    text_put(out, " AND ");
    put_images(p, out, "s");
    text_put(out, " IS NOT DISTINCT FROM ");
    put_images(p, out, "n");
    text_put(out, ")");
    delta_cte_end(d);
    text_put(out, ",\ndel AS (DELETE FROM ");
    plan_put_target(p, out);
    text_put(out, " st WHERE st.ctid = ANY (ARRAY(SELECT s.place FROM s WHERE NOT EXISTS (SELECT 1 "
                  "FROM n WHERE ");
    put_same_key(p, out, "n", "s");
    text_put(out, "))) RETURNING 1),\nups AS (INSERT INTO ");
    plan_put_target(p, out);
    text_put(out, " AS st (");
    plan_put_column_names(p, out, NULL);
    text_put(out, ") SELECT ");
    plan_put_column_names(p, out, "f");
    text_put(out, " FROM f");
    plan_put_on_conflict(p, out, false);
    text_put(out, " RETURNING (st.xmax = 0) AS inserted)");
}

const char *plan_partition(struct planner *p, struct delta *d, const char *into)
{
    const char *keys = delta_keys(d, p->group);
    struct text *out = &d->with;

    delta_cte_begin(d, "n", true);
    delta_put_new(out, p->tree->root, p->group, keys);
    delta_cte_end(d);
    if (p->n_key > 0) {
        put_by_key(p, d, keys);
        plan_put_result(out, "f", into);
        return plan_finish(p, out);
    }
    delta_cte_begin(d, "f", true);
    {
        struct text both;

        text_init(&both);
        text_put(&both, "(SELECT ");
        plan_put_column_names(p, &both, "n");
        text_put(&both, ", 1 AS w FROM n UNION ALL ");
        put_stored(p, &both, keys, "-1");
        text_put(&both, ")");
        plan_put_summed(p, out, both.ptr, true);
        text_free(&both);
    }
    delta_cte_end(d);
    plan_put_apply_rows(p, out, true, into);
    return plan_finish(p, out);
}
