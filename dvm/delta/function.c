/* Functions in FROM: l x f(l), linear in the left side.
 *
 *   dF(L) = dL x f(l)
 * Example: unnest(tags), a row gains a tag: its old tags come with -1 and its new ones with +1.
 */
#include "dvm/delta/delta.h"

/* The names of a column definition list mean something: jsonb_to_recordset looks for them. */
static void put_call(struct text *out, const struct op_function *f)
{
    put_expr_over(out, f->call, "l");
    for (int c = 0; c < f->n_columns; c++) {
        text_put(out, c > 0 ? ", " : " AS (");
        text_put_ident(out, f->names[c]);
        text_printf(out, " %s", f->types[c]);
    }
    text_put(out, f->n_columns > 0 ? ")" : "");
}

/* "f(l.c1) WITH ORDINALITY AS r(c0, c1)" */
static void put_functions(struct text *out, const struct op *op)
{
    bool rows_from = op->n_functions > 1 || op->functions[0].n_columns > 0;

    text_put(out, rows_from ? "ROWS FROM (" : "");
    for (int i = 0; i < op->n_functions; i++) {
        text_put(out, i > 0 ? ", " : "");
        put_call(out, &op->functions[i]);
    }
    text_put(out, rows_from ? ")" : "");
    text_put(out, op->ordinality ? " WITH ORDINALITY AS r(" : " AS r(");
    for (int c = 0; c < op->n_columns - op->left->n_columns; c++)
        text_printf(out, "%sc%d", c > 0 ? ", " : "", c);
    text_put(out, ")");
}

void delta_put_function(struct text *out, const struct op *op, const char *from, const char *also)
{
    int nl = op->left->n_columns;
    bool first = true;

    text_put(out, "SELECT ");
    for (int i = 0; i < op->n_columns; i++) {
        if (!op->needed[i])
            continue;
        text_printf(out, "%s%s.c%d AS c%d", first ? "" : ", ", i < nl ? "l" : "r",
                    i < nl ? i : i - nl, i);
        first = false;
    }
    text_put(out, first || also[0] == '\0' ? "" : ", ");
    text_printf(out, "%s FROM %s l %s JOIN LATERAL ", also, from, op->padded ? "LEFT" : "CROSS");
    put_functions(out, op);
    if (!op->padded)
        return;
    text_put(out, " ON ");
    if (op->predicate != NULL)
        put_expr(out, op->predicate, "l", "r", nl, "pg_catalog.now()");
    else
        text_put(out, "true");
}

void delta_function(struct delta *d, const struct op *op, struct text *out)
{
    delta_put_function(out, op, delta_of(d, op->left), "l.w");
}
