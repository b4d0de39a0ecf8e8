/* Functions in FROM: l x f(l), linear in the left side.
 *
 *   dF(L) = dL x f(l)
 * Example: unnest(tags), a row gains a tag: its old tags come with -1 and its new ones with +1.
 */
#include "dvm/delta/delta.h"

/* The names of a column definition list mean something: jsonb_to_recordset looks for them. */
static void put_call(struct text *out, const struct op_function *f, const char *time)
{
    put_expr(out, f->call, "l", "l", 1 << 30, time);
    for (int c = 0; c < f->n_columns; c++) {
        text_put(out, c > 0 ? ", " : " AS (");
        text_put_ident(out, f->names[c]);
        text_printf(out, " %s", f->types[c]);
    }
    text_put(out, f->n_columns > 0 ? ")" : "");
}

/* "f(l.c1) WITH ORDINALITY AS r(c0, c1)" */
static void put_functions(struct text *out, const struct op *op, const char *time)
{
    bool rows_from = op->n_functions > 1 || op->functions[0].n_columns > 0;

    text_put(out, rows_from ? "ROWS FROM (" : "");
    for (int i = 0; i < op->n_functions; i++) {
        text_put(out, i > 0 ? ", " : "");
        put_call(out, &op->functions[i], time);
    }
    text_put(out, rows_from ? ")" : "");
    text_put(out, op->ordinality ? " WITH ORDINALITY AS r(" : " AS r(");
    for (int c = 0; c < op->n_columns - op->left->n_columns; c++)
        text_printf(out, "%sc%d", c > 0 ? ", " : "", c);
    text_put(out, ")");
}

static void put_expanded(struct text *out, const struct op *op, const char *from, const char *also,
                         const char *time)
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
    put_functions(out, op, time);
    if (!op->padded)
        return;
    text_put(out, " ON ");
    if (op->predicate != NULL)
        put_expr(out, op->predicate, "l", "r", nl, time);
    else
        text_put(out, "true");
}

void delta_put_function(struct text *out, const struct op *op, const char *from, const char *also)
{
    put_expanded(out, op, from, also, "pg_catalog.now()");
}

static void put_changes(struct text *out, const struct op *op)
{
    const char *separator = " WHERE (";

    for (int i = 0; i < op->n_functions; i++) {
        if (!op->functions[i].call->uses_time)
            continue;
        text_put(out, separator);
        put_time_changes(out, op->functions[i].call, "l");
        separator = " OR ";
    }
    text_put(out, ")");
}

/* dF(L) = dL x f_old(l) + L_new x f_new(l) - L_new x f_old(l), where time changed f. */
static void put_timed(struct delta *d, const struct op *op, struct text *out)
{
    const char *child = delta_of(d, op->left);
    struct text rows;

    text_init(&rows);
    text_put(&rows, "(");
    delta_put_new(&rows, op->left, NULL, NULL);
    text_put(&rows, ")");
    if (child != NULL) {
        put_expanded(out, op, child, "l.w", "$5");
        text_put(out, " UNION ALL ");
    }
    put_expanded(out, op, rows.ptr, "1 AS w", "pg_catalog.now()");
    put_changes(out, op);
    text_put(out, " UNION ALL ");
    put_expanded(out, op, rows.ptr, "-1 AS w", "$5");
    put_changes(out, op);
    text_free(&rows);
}

void delta_function(struct delta *d, const struct op *op, struct text *out)
{
    if (delta_uses_time(op))
        put_timed(d, op, out);
    else
        delta_put_function(out, op, delta_of(d, op->left), "l.w");
}
