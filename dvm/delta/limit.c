/* ORDER BY … LIMIT … OFFSET, and how often rows are repeated.
 *
 *   dL(R) = L(R_new) - L(R_old)
 *
 * Ties of ORDER BY are broken by all columns, so that L is a function of its input. R_old is not
 * read: with p rows come (dR's positive weights), the first k rows of R_old are among the first k +
 * p of R_new and those that went, since at most p of the k + p were not there before. Example:
 * LIMIT 1 by v, R had 3 and 5, gains 2, loses 5. p = 1; the first two of R_new are 2, 3; minus the
 * change 3 and 5 are left of before, 3 is the old first: 2 comes with +1, 3 with -1.
 */
#include <stdio.h>

#include "dvm/delta/delta.h"

static void put_count(struct text *out, long long rows, const char *more)
{
    if (more == NULL)
        text_printf(out, "%lld", rows);
    else
        text_printf(out, "(%lld + %s)", rows, more);
}

void delta_put_limit(struct text *out, const struct op *op, const struct op *rows, const char *from,
                     const char *more)
{
    const char *separator = " ORDER BY ";

    text_put(out, "SELECT ");
    put_needed(out, rows, "x", false);
    text_printf(out, " FROM %s x", from);
    for (int i = 0; i < op->n_sort; i++) {
        text_put(out, separator);
        put_expr_over(out, op->sort[i], "x");
        text_put(out, op->sort_suffix[i]);
        separator = ", ";
    }
    for (int i = 0; !op->with_ties && i < op->left->n_columns; i++) {
        char value[32];

        if (!op->left->needed[i])
            continue;
        snprintf(value, sizeof(value), "x.c%d", i);
        text_put(out, separator);
        put_image_key(out, &op->input_types[i], value);
        separator = ", ";
    }
    if (op->limit >= 0) {
        text_put(out, op->with_ties ? " FETCH FIRST " : " LIMIT ");
        put_count(out, op->limit + (more != NULL ? op->offset : 0), more);
        text_put(out, op->with_ties ? " ROWS WITH TIES" : "");
    }
    if (op->offset > 0 && more == NULL)
        text_printf(out, " OFFSET %lld", op->offset);
}

void delta_limit(struct delta *d, const struct op *op, struct text *out)
{
    const char *changes = delta_of(d, op->left);
    const char *more = arena_printf(
        d->a, "(SELECT COALESCE(pg_catalog.sum(p.w), 0)::bigint FROM %s p WHERE p.w > 0)", changes);
    const char *rows;
    struct text now, first;

    text_init(&now);
    text_put(&now, "(");
    delta_put_new(&now, op->left, NULL, NULL);
    text_put(&now, ")");
    text_init(&first);
    text_put(&first, "(");
    delta_put_limit(&first, op, op->left, now.ptr, more);
    text_put(&first, ")");
    rows = delta_put_old_rows(d, op, first.ptr);
    text_free(&first);
    text_put(out, "SELECT ");
    put_needed(out, op, "y", true);
    text_put(out, "1 AS w FROM (");
    delta_put_limit(out, op, op, now.ptr, NULL);
    text_put(out, ") y UNION ALL SELECT ");
    put_needed(out, op, "y", true);
    text_put(out, "-1 FROM (");
    delta_put_limit(out, op, op, rows, NULL);
    text_put(out, ") y");
    text_free(&now);
}

void delta_repeat(struct delta *d, const struct op *op, struct text *out)
{
    text_put(out, "SELECT ");
    put_needed(out, op, "x", true);
    text_put(out, "x.w * GREATEST(");
    put_expr_over(out, op->exprs[0], "x");
    text_printf(out, ", 0) AS w FROM %s x", delta_of(d, op->left));
}

/* Never asked for: nothing below can have changed. */
void delta_values(struct delta *d, const struct op *op, struct text *out)
{
    (void)d;
    delta_put_new(out, op, NULL, NULL);
}
