/* What the passing of time changes. The time is an input that changes with no DML: the refresh
 * before used $5, this one uses now(). An expression over a row changes only when one of its terms
 * does (dvm/parse_time.c); where a term is compared with a value, only for values between what it
 * was and what it is, which an index on the value finds. */
#include "dvm/delta/delta.h"

bool delta_uses_time(const struct op *op)
{
    if (op->kind == OP_FILTER)
        return op->predicate->uses_time;
    if (op->kind == OP_FUNCTION)
        for (int i = 0; i < op->n_functions; i++)
            if (op->functions[i].call->uses_time)
                return true;
    if (op->kind == OP_PROJECT)
        for (int i = 0; i < op->n_columns; i++)
            if (op->needed[i] && op->exprs[i]->uses_time)
                return true;
    return false;
}

static void put_at(struct text *out, const struct expr *e, const char *alias, bool before)
{
    put_expr(out, e, alias, alias, 1 << 30, before ? "$5" : "pg_catalog.now()");
}

/* lo and hi: what the term was or is, less the shift, with some room where PostgreSQL's own
 * arithmetic (days of 23 hours, months of 28 days) is not that of the shift. */
static void put_shift(struct text *out, const struct expr_term *t, const char *alias)
{
    switch (t->kind) {
    case TERM_ALONE:
    case TERM_COMPARED:
        return;
    case TERM_DAYS:
        text_put(out, " - (");
        put_at(out, t->shift, alias, false);
        text_put(out, ")");
        return;
    case TERM_SECONDS:
        text_put(out, " - pg_catalog.make_interval(secs => (");
        put_at(out, t->shift, alias, false);
        text_put(out, ")::double precision)");
        return;
    case TERM_INTERVAL:
        text_put(out, " - (");
        put_at(out, t->shift, alias, false);
        text_put(out, ")");
        return;
    }
}

static void put_room(struct text *out, const struct expr_term *t, const char *alias)
{
    struct text shift;

    if (t->kind == TERM_SECONDS)
        text_put(out, t->absolute ? "interval '1 second'" : "interval '3 hours'");
    if (t->kind != TERM_INTERVAL)
        return;
    text_init(&shift);
    put_at(&shift, t->shift, alias, false);
    text_printf(out,
                "(interval '4 days' * pg_catalog.abs(12 * pg_catalog.date_part('year', %s) + "
                "pg_catalog.date_part('month', %s)) + CASE WHEN %s AND pg_catalog.date_part('day', "
                "%s) = 0 THEN interval '1 second' ELSE interval '3 hours' END)",
                shift.ptr, shift.ptr, t->absolute ? "true" : "false", shift.ptr);
    text_free(&shift);
}

/* The value may compare otherwise now than it did. */
static void put_range(struct text *out, const struct expr_term *t, const char *alias)
{
    struct text before, after, value, shift, room;

    text_init(&before);
    text_init(&after);
    text_init(&value);
    text_init(&shift);
    text_init(&room);
    put_at(&before, t->time, alias, true);
    put_at(&after, t->time, alias, false);
    put_at(&value, t->value, alias, false);
    put_shift(&shift, t, alias);
    put_room(&room, t, alias);
    if (t->op != NULL && (t->op[0] == '=' || t->op[1] == '>')) {
        text_printf(out, "((%s) = (%s) OR (%s) = (%s))", value.ptr, before.ptr, value.ptr,
                    after.ptr);
    } else if (t->op != NULL) {
        bool low_open = t->op[0] == '>' ? t->op[1] == '\0' : t->op[1] == '=';

        text_printf(out, "(%s) %s LEAST(%s, %s) AND (%s) %s GREATEST(%s, %s)", value.ptr,
                    low_open ? ">" : ">=", before.ptr, after.ptr, value.ptr, low_open ? "<=" : "<",
                    before.ptr, after.ptr);
    } else {
        text_printf(out, "(%s) >= LEAST((%s)%s, (%s)%s)", value.ptr, before.ptr,
                    shift.len > 0 ? shift.ptr : "", after.ptr, shift.len > 0 ? shift.ptr : "");
        text_printf(out, "%s%s", room.len > 0 ? " - " : "", room.len > 0 ? room.ptr : "");
        text_printf(out, " AND (%s) <= GREATEST((%s)%s, (%s)%s)", value.ptr, before.ptr,
                    shift.len > 0 ? shift.ptr : "", after.ptr, shift.len > 0 ? shift.ptr : "");
        text_printf(out, "%s%s", room.len > 0 ? " + " : "", room.len > 0 ? room.ptr : "");
    }
    /* Nothing between them: a one-time filter, the scan is skipped. */
    text_printf(out, " AND (%s) <> (%s)", before.ptr, after.ptr);
    text_free(&before);
    text_free(&after);
    text_free(&value);
    text_free(&shift);
    text_free(&room);
}

void put_time_changes(struct text *out, const struct expr *e, const char *alias)
{
    text_put(out, "(");
    for (int i = 0; i < e->n_terms; i++) {
        const struct expr_term *t = &e->terms[i];

        text_put(out, i > 0 ? " OR (" : "(");
        if (t->kind == TERM_ALONE) {
            text_put(out, "(");
            put_at(out, t->time, alias, false);
            text_put(out, ")::pg_catalog.text IS DISTINCT FROM (");
            put_at(out, t->time, alias, true);
            text_put(out, ")::pg_catalog.text");
        } else {
            put_range(out, t, alias);
        }
        text_put(out, ")");
    }
    text_put(out, e->n_terms == 0 ? "false)" : ")");
}

/* ---- filters ------------------------------------------------------------------------------- */

/* x >= T flips for T_old <= x < T_new (or the other way round):
 *   (p(T_new) - p(T_old)) over R_old = R_new - dR.
 * Example: order_date >= CURRENT_DATE at midnight: yesterday's rows come with weight -1. */
static void put_flips(const struct op *op, const char *rows, const char *weight, struct text *out)
{
    const struct expr *p = op->predicate;

    text_put(out, " UNION ALL SELECT ");
    put_needed(out, op, "x", true);
    text_printf(out, "%s((", weight);
    put_at(out, p, "x", false);
    text_printf(out, ") IS TRUE)::integer - %s((", weight);
    put_at(out, p, "x", true);
    text_printf(out, ") IS TRUE)::integer AS w FROM %s x WHERE ((", rows);
    put_at(out, p, "x", false);
    text_put(out, ") IS TRUE) <> ((");
    put_at(out, p, "x", true);
    text_put(out, ") IS TRUE) AND ");
    put_time_changes(out, p, "x");
}

void delta_put_filter_flips(struct delta *d, const struct op *op, struct text *out)
{
    const char *child = delta_of(d, op->left);
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

/* ---- projections --------------------------------------------------------------------------- */

static void put_outputs(struct text *out, const struct op *op, bool before)
{
    for (int i = 0; i < op->n_columns; i++) {
        if (!op->needed[i])
            continue;
        put_at(out, op->exprs[i], "x", before);
        text_printf(out, " AS c%d, ", i);
    }
}

/* Rows of which a column is not what it was. */
static void put_row_changes(struct text *out, const struct op *op)
{
    const char *separator = "";

    text_put(out, "(");
    for (int i = 0; i < op->n_columns; i++) {
        const struct expr *e = op->exprs[i];

        if (!op->needed[i] || !e->uses_time)
            continue;
        text_put(out, separator);
        put_time_changes(out, e, "x");
        if (!e->returns_set) {
            text_put(out, " AND (");
            put_at(out, e, "x", false);
            text_put(out, ")::pg_catalog.text IS DISTINCT FROM (");
            put_at(out, e, "x", true);
            text_put(out, ")::pg_catalog.text");
        }
        separator = " OR ";
    }
    text_put(out, ")");
}

/* P at the time t:  dP(R) = P_old(dR) + (P_new - P_old)(R_new), rows that don't change left out.
 * Example: now()::date - d, at midnight: each row comes once with -1 and once with +1. */
void delta_put_timed_project(struct delta *d, const struct op *op, struct text *out)
{
    const char *child = delta_of(d, op->left);
    struct text rows;

    text_init(&rows);
    text_put(&rows, "(");
    delta_put_new(&rows, op->left, NULL, NULL);
    text_put(&rows, ")");
    if (child != NULL) {
        text_put(out, "SELECT ");
        put_outputs(out, op, true);
        text_printf(out, "x.w FROM %s x UNION ALL ", child);
    }
    for (int before = 0; before < 2; before++) {
        text_put(out, before ? " UNION ALL SELECT " : "SELECT ");
        put_outputs(out, op, before != 0);
        text_printf(out, "%d AS w FROM %s x WHERE ", before ? -1 : 1, rows.ptr);
        put_row_changes(out, op);
    }
    text_free(&rows);
}
