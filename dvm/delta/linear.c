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
            text_printf(out, "pgtrickle._any(%s) AS c%d, ", value, i);
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
        if (d->as_captured)
            text_put_str(out, text_str(&captured));
        else
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
    if (op->predicate->uses_time)
        delta_put_filter_flips(d, op, out);
}

void delta_project(struct delta *d, const struct op *op, struct text *out)
{
    const char *child = delta_of(d, op->left);

    if (delta_uses_time(op)) {
        delta_put_timed_project(d, op, out);
        return;
    }
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
