/* Subqueries evaluated for each row of their left side: conditions, values, LATERAL.
 *
 * With S(l) for what the right side makes of a left row l:
 *
 *   d(L x S) = dL x S_new  +  (L_new - dL) x (S_new - S_old)
 *
 * S_new(l) = S_old(l) but for the rows that a change on the right side may affect: those for which
 * a row of a leaf's change fulfils the leaf's conditions (optree_apply.c). They are collected
 * first (c<id>: from L_new with weight 1, from dL with -w) and found through the conditions'
 * indexes on L; then S is evaluated for each of them as it is and as it was. S_old is S over old
 * leaves: a leaf's rows as of now minus its change, summed and written out. Its conditions stand in
 * both arms, so that the base tables are probed through their indexes.
 *
 * A condition's (S_new - S_old) is +1, 0 or -1. Example: l WHERE EXISTS (s WHERE s.x = l.x), s
 * gains (7): the left rows with x = 7 are looked at; true now, and before unless another s has 7.
 *
 * A subquery whose own result does not change affects nothing: leaves without conditions are
 * netted.
 */
#include <stdio.h>
#include <string.h>

#include "dvm/delta/delta.h"
#include "dvm/delta/new_internal.h"

/* ---- the right side ------------------------------------------------------------------------ */

/* SELECT v.c0.. of op's old rows. */
void put_old_closed(struct text *out, struct delta *d, const struct op *op,
                    const struct expr *filter)
{
    const char *changes = delta_of(d, op);
    bool images = delta_rows_have_images(op);
    struct text group, where;

    text_init(&group);
    text_init(&where);
    if (filter != NULL) {
        text_put(&where, " WHERE ");
        put_expr_over(&where, filter, "x");
    }
    if (changes == NULL) {
        text_put(out, "SELECT ");
        put_needed(out, op, "x", false);
        text_put(out, " FROM ");
        put_from(out, op, "x", NULL);
        text_put_str(out, text_str(&where));
        text_free(&group);
        text_free(&where);
        return;
    }
    text_put(out, "SELECT ");
    put_needed(out, op, "v", false);
    text_put(out, " FROM (SELECT ");
    for (int i = 0; i < op->n_columns; i++) {
        char value[32];

        if (!op->needed[i])
            continue;
        snprintf(value, sizeof(value), "u.c%d", i);
        text_printf(out,
                    op->column_types[i].has_equality ? "u.c%d, " : "pgtrickle._any(u.c%d) AS c%d, ",
                    i, i);
        text_put(&group, group.len > 0 ? ", " : "");
        (images ? put_image_key : put_comparable)(&group, &op->column_types[i], value);
    }
    text_put(out, "pg_catalog.sum(u.w)::bigint AS w FROM (SELECT ");
    put_needed(out, op, "x", true);
    text_put(out, "1 AS w FROM ");
    put_from(out, op, "x", NULL);
    text_put_str(out, text_str(&where));
    text_put(out, " UNION ALL SELECT ");
    put_needed(out, op, "x", true);
    text_printf(out, "-x.w FROM %s x", changes);
    text_put_str(out, text_str(&where));
    text_put(out, ") u");
    if (group.len > 0)
        text_printf(out, " GROUP BY %s", group.ptr);
    text_put(out, ") v CROSS JOIN LATERAL pg_catalog.generate_series(1, v.w)");
    text_free(&group);
    text_free(&where);
}

/* ---- a subquery's value -------------------------------------------------------------------- */

static void put_exists(struct text *out, const struct op *op, const struct restriction *r,
                       bool per_row)
{
    text_put(out, per_row ? "EXISTS (SELECT 1 FROM (" : "EXISTS (");
    put_new(out, op, r);
    /* OFFSET 0: evaluated for the row, never for all rows together */
    text_put(out, per_row ? ") x OFFSET 0)" : ")");
}

static void put_outputs(struct text *out, const struct op *op, int n, const struct restriction *r)
{
    text_put(out, "SELECT ");
    for (int i = 0; i < n; i++)
        text_printf(out, "%sh.c%d", i > 0 ? ", " : "", i);
    text_put(out, " FROM ");
    put_from(out, op->right, "h", r);
}

static void put_compared(struct text *out, const struct op *op, const struct restriction *r)
{
    const struct op_sub *sub = op->sub;
    char alias[32];

    snprintf(alias, sizeof(alias), "a%d", op->id);
    text_put(out, sub->n_tests > 1 ? "ROW(" : "(");
    for (int i = 0; i < sub->n_tests; i++) {
        text_put(out, i > 0 ? ", " : "");
        put_expr_over(out, sub->tests[i], alias);
    }
    text_printf(out, ") %s %s (", sub->op, sub->kind == SUBLINK_ANY ? "ANY" : "ALL");
    put_outputs(out, op, sub->n_tests, r);
    text_put(out, ")");
}

/* As it is written, tests op ANY (query) is evaluated for all rows together; by its probes, for one
 * row. */
static void put_probed(struct text *out, const struct op *op, const struct restriction *r)
{
    const struct op_sub *sub = op->sub;
    bool any = sub->kind == SUBLINK_ANY;

    text_put(out, "CASE WHEN ");
    put_exists(out, sub->decisive, r, true);
    text_put(out, any ? " THEN true" : " THEN false");
    for (int i = 0; i < sub->n_undecided; i++) {
        text_put(out, i > 0 ? " OR " : " WHEN ");
        put_exists(out, sub->undecided[i], r, true);
    }
    text_put(out, sub->n_undecided > 0 ? " THEN NULL" : "");
    text_put(out, any ? " ELSE false END" : " ELSE true END");
}

static void put_array(struct text *out, const struct op *op, const struct restriction *r)
{
    const struct op_sub *sub = op->sub;

    text_put(out, "ARRAY(");
    put_outputs(out, op, 1, r);
    text_put(out, " ORDER BY ");
    for (int i = 0; i < sub->n_sort; i++)
        text_printf(out, "h.c%d%s, ", i + 1, sub->sort_suffix[i]);
    /* Ties always come in the same order. */
    put_image_key(out, &sub->element, "h.c0");
    text_put(out, ")");
}

static void put_value(struct text *out, const struct op *op, const struct restriction *r,
                      bool per_row)
{
    const struct op_sub *sub = op->sub;

    switch (sub->kind) {
    case SUBLINK_EXISTS:
        put_exists(out, op->right, r, per_row);
        return;
    case SUBLINK_ANY:
    case SUBLINK_ALL:
        (per_row ? put_probed : put_compared)(out, op, r);
        return;
    case SUBLINK_SCALAR:
        text_put(out, "(");
        put_outputs(out, op, sub->n_outputs, r);
        text_put(out, ")");
        return;
    case SUBLINK_ARRAY:
        put_array(out, op, r);
        return;
    }
}

void delta_put_sub_value(struct text *out, const struct op *op)
{
    put_value(out, op, NULL, false);
}

static void put_condition(struct text *out, const struct op *op, const struct restriction *r,
                          bool per_row)
{
    struct text value;
    char alias[32];

    text_init(&value);
    put_value(&value, op, r, per_row);
    snprintf(alias, sizeof(alias), "a%d", op->id);
    put_expr_with(out, op->predicate, alias, value.ptr);
    text_free(&value);
}

/* ---- rows as of now ------------------------------------------------------------------------ */

/* Those of op's columns that are left's: "a.c0, a.c2". */
static void put_left(struct text *out, const struct op *op, const char *alias, int id,
                     bool comma_last)
{
    bool first = true;

    for (int i = 0; i < op->left->n_columns; i++) {
        if (!op->needed[i])
            continue;
        text_put(out, first ? "" : ", ");
        if (id > 0)
            text_printf(out, "%s%d.c%d", alias, id, i);
        else
            text_printf(out, "%s.c%d", alias, i);
        first = false;
    }
    if (comma_last && !first)
        text_put(out, ", ");
}

void put_new_subfilter(struct text *out, const struct op *op, const struct restriction *r)
{
    char alias[32];

    snprintf(alias, sizeof(alias), "a%d", op->id);
    text_put(out, "SELECT ");
    put_left(out, op, "a", op->id, false);
    text_put(out, " FROM ");
    put_from(out, op->left, alias, r);
    text_put(out, " WHERE ");
    put_condition(out, op, r, false);
}

void put_new_subvalue(struct text *out, const struct op *op, const struct restriction *r)
{
    int n = op->left->n_columns;
    char alias[32];

    snprintf(alias, sizeof(alias), "a%d", op->id);
    text_put(out, "SELECT ");
    put_left(out, op, "a", op->id, op->needed[n]);
    if (op->needed[n]) {
        put_value(out, op, r, false);
        text_printf(out, " AS c%d", n);
    }
    text_put(out, " FROM ");
    put_from(out, op->left, alias, r);
}

/* "h.c0 AS c4, " */
static void put_right(struct text *out, const struct op *op, bool comma_last)
{
    int nl = op->left->n_columns;
    bool first = true;

    for (int i = nl; i < op->n_columns; i++) {
        if (!op->needed[i])
            continue;
        text_printf(out, "%sh.c%d AS c%d", first ? "" : ", ", i - nl, i);
        first = false;
    }
    if (comma_last && !first)
        text_put(out, ", ");
}

static bool needs_right(const struct op *op)
{
    for (int i = op->left->n_columns; i < op->n_columns; i++)
        if (op->needed[i])
            return true;
    return false;
}

static void put_lateral(struct text *out, const struct op *op, const struct restriction *r)
{
    text_printf(out, " %s JOIN LATERAL ", op->padded ? "LEFT" : "CROSS");
    put_from(out, op->right, "h", r);
    text_put(out, op->padded ? " ON true" : "");
}

void put_new_apply(struct text *out, const struct op *op, const struct restriction *r)
{
    char alias[32];

    snprintf(alias, sizeof(alias), "a%d", op->id);
    text_put(out, "SELECT ");
    put_left(out, op, "a", op->id, needs_right(op));
    put_right(out, op, false);
    text_put(out, " FROM ");
    put_from(out, op->left, alias, r);
    put_lateral(out, op, r);
}

/* ---- which left rows a change on the right affects ----------------------------------------- */

static void put_leaf_touches(struct text *out, const struct op_leaf *leaf, const char *changes)
{
    bool images = delta_rows_have_images(leaf->op);
    bool first = true;

    text_printf(out, "EXISTS (SELECT 1 FROM %s x", changes);
    for (int i = 0; i < leaf->n_conditions; i++) {
        text_put(out, i > 0 ? " AND (" : " WHERE (");
        put_expr_over(out, leaf->conditions[i], "x");
        text_put(out, ")");
    }
    for (int i = 0; leaf->n_conditions == 0 && i < leaf->op->n_columns; i++) {
        char value[32];

        if (!leaf->op->needed[i])
            continue;
        snprintf(value, sizeof(value), "x.c%d", i);
        text_put(out, first ? " GROUP BY " : ", ");
        (images ? put_image_key : put_comparable)(out, &leaf->op->column_types[i], value);
        first = false;
    }
    text_put(out, leaf->n_conditions == 0 ? " HAVING pg_catalog.sum(x.w) <> 0)" : ")");
}

static void put_candidates_from(struct delta *d, const struct op *op, int which,
                                const char *left_changes, struct text *out)
{
    char alias[32];

    snprintf(alias, sizeof(alias), "a%d", op->id);
    text_put(out, out->len > 0 ? " UNION ALL SELECT " : "SELECT ");
    put_needed(out, op->left, alias, true);
    if (left_changes != NULL) {
        text_printf(out, "-%s.w AS w FROM %s %s", alias, left_changes, alias);
    } else {
        text_put(out, "1 AS w FROM ");
        put_from(out, op->left, alias, NULL);
    }
    text_put(out, " WHERE ");
    put_leaf_touches(out, &op->leaves[which], delta_of(d, op->leaves[which].op));
    for (int i = 0; i < which; i++) {
        const char *changes = delta_of(d, op->leaves[i].op);

        if (changes == NULL)
            continue;
        text_put(out, " AND NOT ");
        put_leaf_touches(out, &op->leaves[i], changes);
    }
}

/* The CTE of the left rows to look at, each once for each leaf's change that touches it first; NULL
 * when nothing changed on the right. */
static const char *put_candidates(struct delta *d, const struct op *op)
{
    const char *left_changes = delta_of(d, op->left);
    const char *name = arena_printf(d->a, "c%d", op->id);
    struct text body;

    for (int i = 0; i < op->n_leaves; i++)
        delta_of(d, op->leaves[i].op); /* their CTEs first */
    text_init(&body);
    for (int i = 0; i < op->n_leaves; i++) {
        if (delta_of(d, op->leaves[i].op) == NULL)
            continue;
        put_candidates_from(d, op, i, NULL, &body);
        if (left_changes != NULL)
            put_candidates_from(d, op, i, left_changes, &body);
    }
    if (body.len == 0) {
        text_free(&body);
        return NULL;
    }
    delta_cte_begin(d, name, true);
    text_put_str(&d->with, text_str(&body));
    delta_cte_end(d);
    text_free(&body);
    return name;
}

/* ---- rules --------------------------------------------------------------------------------- */

void delta_subfilter(struct delta *d, const struct op *op, struct text *out)
{
    const char *l = delta_of(d, op->left);
    const char *candidates = put_candidates(d, op);
    struct restriction old = { .before = d };
    char alias[32];

    snprintf(alias, sizeof(alias), "a%d", op->id);
    if (l != NULL) {
        text_put(out, "SELECT ");
        put_left(out, op, "a", op->id, true);
        text_printf(out, "%s.w FROM %s %s WHERE ", alias, l, alias);
        put_condition(out, op, NULL, true);
    }
    if (candidates == NULL)
        return;
    text_put(out, l != NULL ? " UNION ALL SELECT " : "SELECT ");
    put_left(out, op, "v", 0, true);
    text_put(out, "v.w FROM (SELECT ");
    put_left(out, op, "a", op->id, true);
    text_printf(out, "%s.w * (((", alias);
    put_condition(out, op, NULL, true);
    text_put(out, ") IS TRUE)::integer - ((");
    put_condition(out, op, &old, true);
    text_printf(out, ") IS TRUE)::integer) AS w FROM %s %s OFFSET 0) v WHERE v.w <> 0", candidates,
                alias);
}

void delta_subvalue(struct delta *d, const struct op *op, struct text *out)
{
    int n = op->left->n_columns;
    const char *l = delta_of(d, op->left);
    const char *candidates = op->needed[n] ? put_candidates(d, op) : NULL;
    struct restriction old = { .before = d };
    char alias[32];

    snprintf(alias, sizeof(alias), "a%d", op->id);
    if (l != NULL || candidates == NULL) {
        text_put(out, "SELECT ");
        put_left(out, op, "a", op->id, true);
        if (op->needed[n]) {
            put_value(out, op, NULL, true);
            text_printf(out, " AS c%d, ", n);
        }
        if (l != NULL) {
            text_printf(out, "%s.w FROM %s %s", alias, l, alias);
        } else {
            text_put(out, "0 AS w FROM ");
            put_from(out, op->left, alias, NULL);
            text_put(out, " WHERE false");
        }
    }
    if (candidates == NULL)
        return;
    text_put(out, l != NULL ? " UNION ALL SELECT " : "SELECT ");
    put_left(out, op, "v", 0, true);
    text_printf(out, "z.value AS c%d, v.w * z.sign AS w FROM (SELECT ", n);
    put_left(out, op, "a", op->id, true);
    put_value(out, op, NULL, true);
    text_put(out, " AS vn, ");
    put_value(out, op, &old, true);
    text_printf(out, " AS vo, %s.w FROM %s %s OFFSET 0) v CROSS JOIN LATERAL (VALUES (v.vn, 1), ",
                alias, candidates, alias);
    text_put(out, "(v.vo, -1)) z(value, sign) WHERE ");
    put_image(out, &op->column_types[n], "v.vn");
    text_put(out, " IS DISTINCT FROM ");
    put_image(out, &op->column_types[n], "v.vo");
}

static void put_apply_term(struct text *out, const struct op *op, const char *from,
                           const struct restriction *r)
{
    text_put(out, out->len > 0 ? " UNION ALL SELECT " : "SELECT ");
    put_left(out, op, "a", op->id, true);
    put_right(out, op, true);
    text_printf(out, "%sa%d.w AS w FROM %s a%d", r != NULL ? "-" : "", op->id, from, op->id);
    put_lateral(out, op, r);
}

void delta_apply(struct delta *d, const struct op *op, struct text *out)
{
    const char *l = delta_of(d, op->left);
    const char *candidates = put_candidates(d, op);
    struct restriction old = { .before = d };

    if (l != NULL)
        put_apply_term(out, op, l, NULL);
    if (candidates == NULL)
        return;
    put_apply_term(out, op, candidates, NULL);
    put_apply_term(out, op, candidates, &old);
}
