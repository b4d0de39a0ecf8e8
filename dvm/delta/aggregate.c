/* Aggregate calls as SQL. */
#include <string.h>

#include "dvm/delta/delta.h"

/* Whether PostgreSQL's aggregate gives the same whatever the order of its input (a sum of floats
 * but for its last digits). */
static bool ignores_order(const struct op_aggregate *g)
{
    static const char *const known[] = {
        "count",
        "sum",
        "avg",
        "min",
        "max",
        "bool_and",
        "bool_or",
        "every",
        "bit_and",
        "bit_or",
        "bit_xor",
        "stddev",
        "variance",
        "stddev_pop",
        "stddev_samp",
        "var_pop",
        "var_samp",
        "corr",
        "covar_pop",
        "covar_samp",
        "regr_avgx",
        "regr_avgy",
        "regr_count",
        "regr_intercept",
        "regr_r2",
        "regr_slope",
        "regr_sxx",
        "regr_sxy",
        "regr_syy",
        "range_agg",
        "range_intersect_agg",
        NULL,
    };

    for (int i = 0; g->schema == NULL && known[i] != NULL; i++)
        if (strcmp(known[i], g->function) == 0)
            return true;
    return false;
}

/* The definition's ORDER BY, and behind it the arguments: rows that still tie are alike to the
 * aggregate. DISTINCT sorts by the arguments itself. */
static void put_order(struct text *out, const struct op_aggregate *g, const char *alias)
{
    const char *separator = " ORDER BY ";

    for (int i = 0; i < g->n_sort; i++) {
        text_put(out, separator);
        put_expr_over(out, g->sort[i], alias);
        text_put(out, g->sort_suffix[i]);
        separator = ", ";
    }
    if (g->within_group || g->distinct || ignores_order(g))
        return;
    for (int i = 0; i < g->n_args; i++) {
        struct text value;

        if (g->args[i]->n_holes == 0)
            continue;
        text_init(&value);
        text_put(&value, "(");
        put_expr_over(&value, g->args[i], alias);
        text_put(&value, ")");
        text_put(out, separator);
        put_image_key(out, &g->arg_types[i], value.ptr);
        text_free(&value);
        separator = ", ";
    }
}

void put_aggregate(struct text *out, const struct op_aggregate *g, const char *alias)
{
    text_put_ident(out, g->schema != NULL ? g->schema : "pg_catalog");
    text_put_char(out, '.');
    text_put_ident(out, g->function);
    text_put(out, g->distinct ? "(DISTINCT " : "(");
    text_put(out, g->star ? "*" : "");
    for (int i = 0; i < g->n_args; i++) {
        text_put(out, i > 0 ? ", " : "");
        text_put(out, g->variadic && i == g->n_args - 1 ? "VARIADIC " : "");
        put_expr_over(out, g->args[i], alias);
    }
    if (g->within_group)
        text_put(out, ") WITHIN GROUP (");
    put_order(out, g, alias);
    text_put_char(out, ')');
    if (g->filter != NULL) {
        text_put(out, " FILTER (WHERE ");
        put_expr_over(out, g->filter, alias);
        text_put_char(out, ')');
    }
}
