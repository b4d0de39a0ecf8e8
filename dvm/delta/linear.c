/* Operators that apply to a change row by row: scan, filter, projection, UNION ALL. */
#include <stdio.h>

#include "dvm/delta/delta.h"

/* The captured columns of one transition table or buffer, as c<i>, with their weight. */
static void put_captured(struct text *out, const struct op *op, const char *weight,
                         const char *from, bool by_attnum)
{
    text_put(out, "SELECT ");
    for (int i = 0; i < op->n_columns; i++) {
        if (!op->needed[i])
            continue;
        if (by_attnum) {
            text_printf(out, "b.a%d", op->table->columns[i].attnum);
        } else {
            text_put(out, "b.");
            text_put_ident(out, op->table->columns[i].name);
        }
        text_printf(out, " AS c%d, ", i);
    }
    text_printf(out, "%s AS w FROM %s b", weight, from);
}

/* What came and went between two refreshes is no change: SELECT c<i>.., sum(w) of the buffer's
 * rows. A value that the definition can't digest (a text that is no number) does no harm once it is
 * gone. */
static void put_net(struct text *out, const struct op *op, const char *captured)
{
    struct text group;

    text_init(&group);
    text_put(out, "SELECT ");
    for (int i = 0; i < op->n_columns; i++) {
        const struct cat_column *c = &op->table->columns[i];
        struct value_type type = { .has_equality = c->has_equality, .exact = c->exact };
        char value[32];

        if (!op->needed[i])
            continue;
        snprintf(value, sizeof(value), "x.c%d", i);
        if (type.has_equality)
            text_printf(out, "%s, ", value);
        else
            text_printf(out, "(pg_catalog.array_agg(%s))[1] AS c%d, ", value, i);
        text_put(&group, group.len > 0 ? ", " : " GROUP BY ");
        put_image_key(&group, &type, value);
    }
    text_printf(out,
                "pg_catalog.sum(x.w)::bigint AS w FROM (%s) x%s HAVING pg_catalog.sum(x.w) <> 0",
                captured, group.len > 0 ? group.ptr : "");
    text_free(&group);
}

void delta_scan(struct delta *d, const struct op *op, struct text *out)
{
    struct text from, captured;

    text_init(&from);
    switch (d->from) {
    case DELTA_FROM_BUFFER:
        text_printf(&from, "pgtrickle_changes.c_%u", op->table->oid);
        text_init(&captured);
        put_captured(&captured, op, "b.__pgt_w::integer", from.ptr, true);
        text_put(&captured, " WHERE ");
        put_frontier(&captured, "b.");
        put_net(out, op, captured.ptr);
        text_free(&captured);
        break;
    case DELTA_FROM_INSERT:
        put_captured(out, op, "1", "__pgt_new", false);
        break;
    case DELTA_FROM_DELETE:
        put_captured(out, op, "-1", "__pgt_old", false);
        break;
    case DELTA_FROM_UPDATE:
        put_captured(out, op, "-1", "__pgt_old", false);
        text_put(out, " UNION ALL ");
        put_captured(out, op, "1", "__pgt_new", false);
        break;
    case DELTA_FROM_PENDING:
        text_printf(&from, "pgtrickle_changes.p_%lld_%u", (long long)d->pgt_id, op->table->oid);
        put_captured(out, op, "b.__pgt_w::integer", from.ptr, true);
        text_put(out, " WHERE b.__pgt_xid = pg_catalog.pg_current_xact_id()");
        break;
    }
    text_free(&from);
}

/* f(old time) to f(new time), half open on the side where the operator is: the rows whose
 * comparison flips lie between the two. */
static void put_flip_range(struct text *out, const struct expr *e)
{
    bool low_open = e->compare_op[0] == '>' ? e->compare_op[1] == '\0' : e->compare_op[1] == '=';
    struct text before, after;

    text_init(&before);
    text_init(&after);
    put_expr(&before, e->compare_time, "x", "x", 1 << 30, "$5");
    put_expr(&after, e->compare_time, "x", "x", 1 << 30, "pg_catalog.now()");
    text_put(out, " AND (");
    put_expr_over(out, e->compare_value, "x");
    text_printf(out, ") %s LEAST(%s, %s) AND (", low_open ? ">" : ">=", before.ptr, after.ptr);
    put_expr_over(out, e->compare_value, "x");
    text_printf(out, ") %s GREATEST(%s, %s)", low_open ? "<=" : "<", before.ptr, after.ptr);
    /* Nothing between them: a one-time filter, the scan is skipped. */
    text_printf(out, " AND (%s) <> (%s)", before.ptr, after.ptr);
    text_free(&before);
    text_free(&after);
}

static bool time_side_is_constant(const struct expr *e)
{
    for (int i = 0; i < e->n_holes; i++)
        if (e->holes[i].column >= 0)
            return false;
    return true;
}

/* x >= T flips for T_old <= x < T_new (or the other way round):
 *   (p(T_new) - p(T_old)) over R_old = R_new - dR.
 * Example: order_date >= CURRENT_DATE at midnight: yesterday's rows come with weight -1. */
static void put_flips(const struct op *op, const char *rows, const char *weight, struct text *out)
{
    const struct expr *p = op->predicate;

    text_put(out, " UNION ALL SELECT ");
    put_needed(out, op, "x", true);
    text_printf(out, "%s((", weight);
    put_expr_over(out, p, "x");
    text_put(out, ") IS TRUE)::integer - ");
    text_printf(out, "%s((", weight);
    put_expr(out, p, "x", "x", 1 << 30, "$5");
    text_printf(out, ") IS TRUE)::integer AS w FROM %s x WHERE ((", rows);
    put_expr_over(out, p, "x");
    text_put(out, ") IS TRUE) <> ((");
    put_expr(out, p, "x", "x", 1 << 30, "$5");
    text_put(out, ") IS TRUE)");
    if (p->compare_op != NULL && time_side_is_constant(p->compare_time))
        put_flip_range(out, p);
    else
        text_put(out, " AND $5 <> pg_catalog.now()");
}

void delta_filter(struct delta *d, const struct op *op, struct text *out)
{
    const char *child = delta_of(d, op->left);

    if (child != NULL) {
        text_put(out, "SELECT ");
        put_needed(out, op, "x", true);
        text_printf(out, "x.w FROM %s x WHERE ", child);
        put_expr_over(out, op->predicate, "x");
    } else {
        text_put(out, "SELECT ");
        put_needed(out, op, "x", true);
        text_put(out, "1 AS w FROM (");
        delta_put_new(out, op->left, NULL, NULL);
        text_put(out, ") x WHERE false");
    }
    if (op->predicate->uses_time) {
        struct text rows;

        text_init(&rows);
        text_put(&rows, "(");
        delta_put_new(&rows, op->left, NULL, NULL);
        text_put(&rows, ")");
        put_flips(op, rows.ptr, "", out);
        if (child != NULL)
            put_flips(op, child, "-x.w * ", out);
        text_free(&rows);
    }
}

void delta_project(struct delta *d, const struct op *op, struct text *out)
{
    const char *child = delta_of(d, op->left);

    text_put(out, "SELECT ");
    for (int i = 0; i < op->n_columns; i++) {
        if (!op->needed[i])
            continue;
        put_expr_over(out, op->exprs[i], "x");
        text_printf(out, " AS c%d, ", i);
    }
    text_printf(out, "x.w FROM %s x", child);
}

void delta_union_all(struct delta *d, const struct op *op, struct text *out)
{
    const char *arms[] = { delta_of(d, op->left), delta_of(d, op->right) };
    const struct op *sides[] = { op->left, op->right };

    /* An arm that did not change still gives its column types. */
    for (int i = 0; i < 2; i++) {
        text_put(out, i > 0 ? " UNION ALL SELECT " : "SELECT ");
        put_needed(out, op, "x", true);
        if (arms[i] != NULL) {
            text_printf(out, "x.w FROM %s x", arms[i]);
        } else {
            text_put(out, "0 AS w FROM (");
            delta_put_new(out, sides[i], NULL, NULL);
            text_put(out, ") x WHERE false");
        }
    }
}
