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
 * padded row comes with weight -1.
 */
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

void delta_left_join(struct delta *d, const struct op *op, struct text *out)
{
    const char *l = delta_of(d, op->left);
    const char *r = delta_of(d, op->right);

    if (l != NULL)
        put_term(out, op, l, NULL, "LEFT JOIN", "l.w");
    if (r == NULL)
        return;
    put_term(out, op, NULL, r, "JOIN", "r.w");
    if (l != NULL)
        put_term(out, op, l, r, "JOIN", "-l.w * r.w");
    put_flips(out, op, NULL, r);
    if (l != NULL)
        put_flips(out, op, l, r);
}
