/* LIMIT at the root: the stored rows are the old ones, and the last of them is the boundary. A
 * change that lies behind it costs a comparison; any other has the first rows evaluated anew (from
 * an index on ORDER BY's expressions, where there is one) and compared with the stored ones.
 *
 *   hit  one row when the change may reach the first rows
 *   f    the rows to apply with their weights
 */
#include "dvm/plan_internal.h"

/* Whether the boundary can be found among the stored rows: all of ORDER BY is stored, in the
 * definition's own columns or in hidden ones of types that have no collation. */
static bool has_boundary(const struct planner *p)
{
    const struct op *limit = p->tree->root;

    if (limit->limit <= 0 || limit->n_sort == 0)
        return false;
    for (int i = 0; i < limit->n_sort; i++) {
        const struct st_column *c = &p->columns[expr_plain_column(limit->sort[i])];

        if (c->hidden && !plan_type_has_no_collation(&c->facts))
            return false;
    }
    return true;
}

static void put_sort_columns(const struct op *limit, struct text *out, const char *alias)
{
    for (int i = 0; i < limit->n_sort; i++)
        text_printf(out, "%s.c%d AS o%d, ", alias, expr_plain_column(limit->sort[i]), i);
}

/* The first of the changed rows and the boundary: a changed row when one lies before or beside it,
 * or when fewer rows are stored than LIMIT allows. */
static void put_hit(struct planner *p, struct text *out, const char *changes)
{
    const struct op *limit = p->tree->root;
    struct text order;

    if (!has_boundary(p)) {
        text_printf(out, "SELECT FROM %s LIMIT 1", changes);
        return;
    }
    text_init(&order);
    for (int i = 0; i < limit->n_sort; i++)
        text_printf(&order, "z.o%d%s, ", i, limit->sort_suffix[i]);
    text_put(out, "SELECT FROM (SELECT z.stored FROM (SELECT ");
    put_sort_columns(limit, out, "x");
    text_printf(out, "false AS stored FROM %s x UNION ALL SELECT b.* FROM (SELECT ", changes);
    for (int i = 0; i < limit->n_sort; i++) {
        plan_put_st(p, out, expr_plain_column(limit->sort[i]));
        text_printf(out, " AS o%d, ", i);
    }
    text_put(out, "true FROM ");
    plan_put_target(p, out);
    text_put(out, " st ORDER BY ");
    for (int i = 0; i < limit->n_sort; i++) {
        text_put(out, i > 0 ? ", " : "");
        plan_put_st(p, out, expr_plain_column(limit->sort[i]));
        text_put(out, limit->sort_suffix[i]);
    }
    text_printf(out, " OFFSET %lld LIMIT 1) b) z ORDER BY %sz.stored LIMIT 1) y WHERE NOT y.stored",
                limit->limit - 1, order.ptr);
    text_free(&order);
}

const char *plan_first_rows(struct planner *p, struct delta *d, const char *into)
{
    const char *changes = delta_of(d, p->tree->root->left);
    struct text *out = &d->with;
    struct text both;

    delta_cte_begin(d, "hit", true);
    put_hit(p, out, changes);
    delta_cte_end(d);
    delta_cte_begin(d, "q", true);
    text_put(out, "SELECT * FROM (");
    plan_put_rows(p, out);
    text_put(out, ") z WHERE EXISTS (SELECT FROM hit)");
    delta_cte_end(d);
    delta_cte_begin(d, "f", true);
    text_init(&both);
    plan_put_against_stored(p, &both, " WHERE EXISTS (SELECT FROM hit)");
    plan_put_summed(p, out, both.ptr, p->images);
    text_free(&both);
    delta_cte_end(d);
    plan_put_apply_rows(p, out, p->images, into);
    return plan_finish(p, out);
}
