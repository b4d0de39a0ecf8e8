/* Joins.
 *
 * Inner: d(L*R) = dL*R_new + L_old*dR, and L_old = L_new - dL, hence
 *        d(L*R) = dL*R_new + L_new*dR - dL*dR.
 * Example: L gains l1, R gains r1 that matches it. The pair is counted by the first
 * term (R_new has r1), by the second (L_new has l1) and taken back once by the third.
 *
 * Left: L outer R = L*R + pad(L without a match).
 *        dL outer R_new                       the change of L, padded or not
 *      + L_new*dR - dL*dR                     pairs from the change of R
 *      + pad(L_old) * (had a match - has one) rows whose having a match flips.
 * The matches that a row had are those that it has minus the weights of dR that it
 * matches. Example: l1 had no match, R gains r1 and r2 that match: 2 now, 2 - 2 = 0 before, the
 * padded row comes with weight -1. When the condition is columns of L = columns of R, and what asks
 * of R alone, flips are a matter of these columns' values, and are computed once for each (f<id>).
 */
#include <string.h>

#include "dvm/delta/delta.h"

static void put_predicate(struct text *out, const struct op *op)
{
    if (op->predicate == NULL)
        text_put(out, "true");
    else
        put_expr(out, op->predicate, "l", "r", op->left->n_columns, "pg_catalog.now()");
}

/* "l.c0 AS c0, r.c1 AS c4, " */
static void put_columns(struct text *out, const struct op *op)
{
    int nl = op->left->n_columns;

    for (int i = 0; i < op->n_columns; i++)
        if (op->needed[i])
            text_printf(out, "%s.c%d AS c%d, ", i < nl ? "l" : "r", i < nl ? i : i - nl, i);
}

static void put_relation(struct text *out, const struct op *op, const char *delta)
{
    if (delta != NULL) {
        text_put(out, delta);
        return;
    }
    text_put(out, "(");
    delta_put_new(out, op, NULL, NULL);
    text_put(out, ")");
}

/* One term. A side is a delta's CTE, or NULL for its new state. */
static void put_term(struct text *out, const struct op *op, const char *l, const char *r,
                     const char *join, const char *weight)
{
    text_put(out, out->len > 0 ? " UNION ALL SELECT " : "SELECT ");
    put_columns(out, op);
    text_printf(out, "%s AS w FROM ", weight);
    put_relation(out, op->left, l);
    text_printf(out, " l %s ", join);
    put_relation(out, op->right, r);
    text_put(out, " r ON ");
    put_predicate(out, op);
}

void delta_join(struct delta *d, const struct op *op, struct text *out)
{
    const char *l = delta_of(d, op->left);
    const char *r = delta_of(d, op->right);

    if (l != NULL)
        put_term(out, op, l, NULL, "JOIN", "l.w");
    if (r != NULL)
        put_term(out, op, NULL, r, "JOIN", "r.w");
    if (l != NULL && r != NULL)
        put_term(out, op, l, r, "JOIN", "-l.w * r.w");
}

/* Padded rows of L_old whose having a match flips; l is NULL for L_new, else L's delta, which is
 * subtracted. */
static void put_flips(struct text *out, const struct op *op, const char *l, const char *r)
{
    const char *weight = l != NULL ? "-l.w * " : "";

    text_put(out, " UNION ALL SELECT ");
    put_columns(out, op);
    text_printf(out, "%s((m.now - b.gained > 0)::integer - (m.now > 0)::integer) AS w FROM ",
                weight);
    put_relation(out, op->left, l);
    text_put(out, " l CROSS JOIN LATERAL (SELECT pg_catalog.count(*) AS now FROM ");
    put_relation(out, op->right, NULL);
    text_put(out, " r WHERE ");
    put_predicate(out, op);
    text_printf(out,
                ") m CROSS JOIN LATERAL (SELECT COALESCE(pg_catalog.sum(r.w), 0) AS gained "
                "FROM %s r WHERE ",
                r);
    put_predicate(out, op);
    text_put(out, ") b LEFT JOIN (SELECT ");
    put_needed(out, op->right, "n", false);
    text_put(out, " FROM ");
    put_relation(out, op->right, NULL);
    text_printf(out, " n WHERE false) r ON true WHERE EXISTS (SELECT 1 FROM %s r WHERE ", r);
    put_predicate(out, op);
    text_put(out, ") AND (m.now > 0) <> (m.now - b.gained > 0)");
}

/* Whether values of column c can be grouped: known for what a table holds and for what was grouped
 * before. */
static bool can_be_grouped(const struct op *op, int c)
{
    int nl = op->left != NULL ? op->left->n_columns : 0;

    if (op->kind == OP_SCAN)
        return op->table->columns[c].has_equality;
    if (op->kind == OP_GROUP)
        return c < op->n_exprs;
    if (op->kind == OP_FILTER)
        return can_be_grouped(op->left, c);
    if (op->kind == OP_PROJECT)
        return expr_plain_column(op->exprs[c]) >= 0 &&
               can_be_grouped(op->left, expr_plain_column(op->exprs[c]));
    if (op->kind == OP_JOIN || op->kind == OP_LEFT_JOIN)
        return c < nl ? can_be_grouped(op->left, c) : can_be_grouped(op->right, c - nl);
    return false;
}

static bool asks_of_left(const struct op *op, const struct expr *e)
{
    for (int i = 0; i < e->n_holes; i++)
        if (e->holes[i].column < op->left->n_columns)
            return true; /* the time, too */
    return false;
}

/* The columns that the join equates, n pairs; false when its condition asks for more of L. */
static bool equated_columns(struct delta *d, const struct op *op, int **lefts, int **rights, int *n)
{
    int nl = op->left->n_columns;

    *lefts = arena_new_array(d->a, int, (size_t)op->n_conjuncts);
    *rights = arena_new_array(d->a, int, (size_t)op->n_conjuncts);
    *n = 0;
    for (int i = 0; i < op->n_conjuncts; i++) {
        const struct expr *e = op->conjuncts[i];
        int x, y;

        if (!asks_of_left(op, e))
            continue;
        if (e->n_holes != 2 || e->uses_time || strcmp(e->text, "__pgth0x = __pgth1x") != 0)
            return false;
        x = e->holes[0].column < nl ? e->holes[0].column : e->holes[1].column;
        y = e->holes[0].column < nl ? e->holes[1].column : e->holes[0].column;
        if (x >= nl || y < nl || !can_be_grouped(op->right, y - nl))
            return false;
        (*lefts)[*n] = x;
        (*rights)[(*n)++] = y - nl;
    }
    return *n > 0;
}

/* The conjuncts that ask of R alone, each behind AND. */
static void put_right_only(struct text *out, const struct op *op)
{
    for (int i = 0; i < op->n_conjuncts; i++) {
        if (asks_of_left(op, op->conjuncts[i]))
            continue;
        text_put(out, " AND (");
        put_expr(out, op->conjuncts[i], "l", "r", op->left->n_columns, "pg_catalog.now()");
        text_put(out, ")");
    }
}

static void put_list(struct text *out, const char *prefix, const int *columns, int n)
{
    for (int i = 0; i < n; i++)
        text_printf(out, "%s%s%d", i > 0 ? ", " : "", prefix, columns != NULL ? columns[i] : i);
}

/* f<id>: the values whose having a match flips, and the weight of rows padded for them. */
static const char *put_flipped_values(struct delta *d, const struct op *op, const char *r,
                                      const int *rights, int n)
{
    const char *name = arena_printf(d->a, "f%d", op->id);
    struct text *out = &d->with;

    delta_cte_begin(d, name, true);
    text_put(out, "SELECT ");
    put_list(out, "g.k", NULL, n);
    text_printf(out,
                ", (pg_catalog.count(r.c%d) - g.gained > 0)::integer - (pg_catalog.count(r.c%d) > "
                "0)::integer AS w FROM (SELECT ",
                rights[0], rights[0]);
    for (int i = 0; i < n; i++)
        text_printf(out, "r.c%d AS k%d, ", rights[i], i);
    text_printf(out, "pg_catalog.sum(r.w) AS gained FROM %s r WHERE true", r);
    put_right_only(out, op);
    text_put(out, " GROUP BY ");
    put_list(out, "r.c", rights, n);
    text_put(out, " HAVING pg_catalog.sum(r.w) <> 0) g LEFT JOIN ");
    put_relation(out, op->right, NULL);
    text_put(out, " r ON true");
    for (int i = 0; i < n; i++)
        text_printf(out, " AND r.c%d = g.k%d", rights[i], i);
    put_right_only(out, op);
    text_put(out, " GROUP BY ");
    put_list(out, "g.k", NULL, n);
    text_printf(out,
                ", g.gained HAVING (pg_catalog.count(r.c%d) > 0) <> (pg_catalog.count(r.c%d) - "
                "g.gained > 0)",
                rights[0], rights[0]);
    delta_cte_end(d);
    return name;
}

/* As put_flips, by values. */
static void put_flips_by_value(struct text *out, const struct op *op, const char *l,
                               const char *flipped, const int *lefts, int n)
{
    text_put(out, " UNION ALL SELECT ");
    put_columns(out, op);
    text_printf(out, "%sf.w AS w FROM %s f JOIN ", l != NULL ? "-l.w * " : "", flipped);
    put_relation(out, op->left, l);
    text_put(out, " l ON ");
    for (int i = 0; i < n; i++)
        text_printf(out, "%sl.c%d = f.k%d", i > 0 ? " AND " : "", lefts[i], i);
    text_put(out, " LEFT JOIN (SELECT ");
    put_needed(out, op->right, "n", false);
    text_put(out, " FROM ");
    put_relation(out, op->right, NULL);
    text_put(out, " n WHERE false) r ON true");
}

void delta_left_join(struct delta *d, const struct op *op, struct text *out)
{
    const char *l = delta_of(d, op->left);
    const char *r = delta_of(d, op->right);
    int *lefts, *rights;
    int n;

    if (l != NULL)
        put_term(out, op, l, NULL, "LEFT JOIN", "l.w");
    if (r == NULL)
        return;
    put_term(out, op, NULL, r, "JOIN", "r.w");
    if (l != NULL)
        put_term(out, op, l, r, "JOIN", "-l.w * r.w");
    if (equated_columns(d, op, &lefts, &rights, &n)) {
        const char *flipped = put_flipped_values(d, op, r, rights, n);

        put_flips_by_value(out, op, NULL, flipped, lefts, n);
        if (l != NULL)
            put_flips_by_value(out, op, l, flipped, lefts, n);
        return;
    }
    put_flips(out, op, NULL, r);
    if (l != NULL)
        put_flips(out, op, l, r);
}
