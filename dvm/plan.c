/* See plan.h. How a change is applied, in one statement:
 *
 *   f  the rows to apply with their weights, summed (linear, full)
 *   o  the affected groups as they must be, n = 0: gone (algebraic)
 *   n  the affected keys evaluated anew (recompute)
 *
 * then del and ups, which never touch the same row: PostgreSQL runs both on the same snapshot.
 */
#include "dvm/plan.h"

#include <stdio.h>
#include <string.h>

#include "dvm/plan_internal.h"

/* ---- decisions ----------------------------------------------------------------------------- */

static bool same_expr(const struct expr *x, const struct expr *y)
{
    if (x == NULL || y == NULL)
        return x == y;
    if (strcmp(x->text, y->text) != 0 || x->n_holes != y->n_holes)
        return false;
    for (int i = 0; i < x->n_holes; i++)
        if (x->holes[i].column != y->holes[i].column)
            return false;
    return true;
}

enum { OID_INT8 = 20, OID_INT2 = 21, OID_INT4 = 23, OID_NUMERIC = 1700 };

static bool is_integer(const struct value_type *t)
{
    return t->oid == OID_INT2 || t->oid == OID_INT4 || t->oid == OID_INT8;
}

/* COUNT, SUM and AVG that can be added to and subtracted from. AVG of a numeric needs a fixed
 * scale: the digits of the quotient depend on the scale of the sum, and the scale of
 * rows that have gone would stay in it. */
static bool is_algebraic(const struct op *g, int i)
{
    const struct op_aggregate *agg = &g->aggregates[i];
    const struct value_type *t = agg->arg_types;

    if (agg->distinct)
        return false;
    if (aggregate_is(agg, "count"))
        return true;
    if (aggregate_is(agg, "sum"))
        return is_integer(t) || t->oid == OID_NUMERIC;
    if (aggregate_is(agg, "avg"))
        return is_integer(t) || (t->oid == OID_NUMERIC && t->typmod >= 0);
    return false;
}

/* Whether an expression's value says nothing of the scale of the numerics in it: 3.10 / 3 has other
 * digits than 3.1 / 3. */
static bool hides_scale(const struct expr *e)
{
    static const char *const words[] = { "COALESCE", "NULLIF", "GREATEST", "LEAST",  "CASE",
                                         "WHEN",     "THEN",   "ELSE",     "END",    "AND",
                                         "OR",       "NOT",    "IS",       "NULL",   "numeric",
                                         "bigint",   "int",    "smallint", "double", "precision",
                                         "round",    "trunc",  "ceil",     "floor",  "abs",
                                         "sign",     NULL };

    for (const char *at = e->text; *at != '\0';) {
        size_t n = 0;
        bool known = false;

        if (strchr(" 0123456789().,:+-*<>=", *at) != NULL) {
            at++;
            continue;
        }
        while ((at[n] >= 'a' && at[n] <= 'z') || (at[n] >= 'A' && at[n] <= 'Z') || at[n] == '_' ||
               (n > 0 && at[n] >= '0' && at[n] <= '9'))
            n++;
        if (n > 6 && strncmp(at, "__pgth", 6) == 0)
            known = true;
        for (int i = 0; !known && words[i] != NULL; i++)
            known = strlen(words[i]) == n && strncmp(at, words[i], n) == 0;
        if (!known)
            return false;
        at += n;
    }
    return true;
}

enum scale { SCALE_ABSENT, SCALE_HIDDEN, SCALE_SHOWN };

/* What column i of op tells of the scale of the group's column c. */
static enum scale scale_of(const struct op *op, int i, const struct op *group, int c)
{
    enum scale most = SCALE_ABSENT;
    const struct expr *e;

    if (op == group)
        return i == c ? SCALE_HIDDEN : SCALE_ABSENT;
    if (op->kind != OP_PROJECT)
        return scale_of(op->left, i, group, c);
    e = op->exprs[i];
    for (int h = 0; h < e->n_holes; h++) {
        enum scale s = e->holes[h].column >= 0 ? scale_of(op->left, e->holes[h].column, group, c)
                                               : SCALE_ABSENT;

        most = s > most ? s : most;
    }
    return most == SCALE_HIDDEN && !hides_scale(e) ? SCALE_SHOWN : most;
}

/* A sum of numerics without a fixed scale keeps the zeros of rows that have gone. As a value it is
 * right; what is computed from it may not be. */
static bool scale_is_shown(const struct op *root, const struct op *group, int i)
{
    const struct value_type *t = group->aggregates[i].arg_types;

    if (!aggregate_is(&group->aggregates[i], "sum") || t->oid != OID_NUMERIC || t->typmod >= 0)
        return false;
    for (int k = 0; k < root->n_columns; k++)
        if (scale_of(root, k, group, group->n_exprs + i) == SCALE_SHOWN)
            return true;
    return false;
}

/* The grouping operator below projections (and filters, which rule out algebraic). With the time in
 * a filter above it there is none: rows then leave without any change below. */
static const struct op *find_group(const struct op *root, bool *filtered)
{
    const struct op *op = root;

    *filtered = false;
    while (op->kind == OP_PROJECT || op->kind == OP_FILTER) {
        if (op->expands || (op->kind == OP_FILTER && op->predicate->uses_time))
            return NULL;
        *filtered = *filtered || op->kind == OP_FILTER;
        op = op->left;
    }
    return op->kind == OP_GROUP || op->kind == OP_DISTINCT_ON || op->kind == OP_WINDOW ? op : NULL;
}

const struct op *plan_find_scan(const struct op *root)
{
    const struct op *op = root;

    while (op->kind == OP_FILTER || (op->kind == OP_PROJECT && !op->expands))
        op = op->left;
    return op->kind == OP_SCAN ? op : NULL;
}

static bool scan_needs(const struct op *op, int source, int column)
{
    if (op == NULL)
        return false;
    if (op->kind == OP_SCAN && op->source == source)
        return op->needed[column];
    return scan_needs(op->left, source, column) || scan_needs(op->right, source, column);
}

bool plan_captures(const struct planner *p, int source, int column)
{
    return scan_needs(p->tree->root, source, column);
}

/* The column of the definition that shows column c of the group as it is; -1: none. */
int plan_shown_as(const struct planner *p, int c)
{
    for (int i = 0; i < p->tree->n_outputs; i++) {
        const struct op *op = p->tree->root;
        int at = i;

        while (at >= 0 && op->kind == OP_PROJECT) {
            at = expr_plain_column(op->exprs[at]);
            op = op->left;
        }
        if (op == p->group && at == c)
            return i;
    }
    return -1;
}

static bool is_never_null(const struct planner *p, const struct expr *e)
{
    int plain = expr_plain_column(e);

    return plain >= 0 && p->group->left->columns[plain].not_null;
}

static int add_state(struct planner *p, bool is_sum, const struct expr *arg,
                     const struct expr *filter, const struct value_type *t)
{
    struct state *s;

    if (!is_sum && arg != NULL && is_never_null(p, arg))
        arg = NULL;
    for (int i = 0; i < p->n_states; i++)
        if (p->states[i].is_sum == is_sum && same_expr(p->states[i].arg, arg) &&
            same_expr(p->states[i].filter, filter))
            return i;
    s = &p->states[p->n_states];
    *s = (struct state){ .is_sum = is_sum, .arg = arg, .filter = filter, .column = -1 };
    s->exact = !is_sum || is_integer(t);
    s->type = !is_sum || t->oid == OID_INT2 || t->oid == OID_INT4 ? "bigint" : "numeric";
    s->factor_type = s->type;
    return p->n_states++;
}

static void choose_states(struct planner *p)
{
    const struct op *g = p->group;
    size_t n = (size_t)g->n_aggregates;

    p->states = arena_new_array(p->a, struct state, 2 * n + 1);
    p->count_state = arena_new_array(p->a, int, n);
    p->sum_state = arena_new_array(p->a, int, n);
    add_state(p, false, NULL, NULL, NULL);
    for (int i = 0; i < g->n_aggregates; i++) {
        const struct op_aggregate *agg = &g->aggregates[i];
        const struct expr *arg = agg->n_args > 0 ? agg->args[0] : NULL;

        p->count_state[i] = p->sum_state[i] = -1;
        if (!g->needed[g->n_exprs + i])
            continue;
        p->count_state[i] = add_state(p, false, arg, agg->filter, agg->arg_types);
        if (aggregate_is(agg, "count"))
            continue;
        p->sum_state[i] = add_state(p, true, arg, agg->filter, agg->arg_types);
        p->states[p->sum_state[i]].count = p->count_state[i];
    }
    for (int i = 0; i < g->n_aggregates; i++) {
        int shown = plan_shown_as(p, g->n_exprs + i);
        struct state *s;

        if (shown < 0 || aggregate_is(&g->aggregates[i], "avg"))
            continue;
        s = &p->states[p->sum_state[i] >= 0 ? p->sum_state[i] : p->count_state[i]];
        if (s->column < 0) {
            s->column = shown;
            s->visible = true;
        }
    }
}

/* Whether a row's key is a value of the row itself: it may change its looks. */
static bool has_own_key(const struct planner *p)
{
    return p->strategy == STRATEGY_LINEAR || p->strategy == STRATEGY_PARTITION;
}

static void add_column(struct planner *p, const char *name, const char *type, bool hidden,
                       bool not_null, struct value_type facts)
{
    p->columns[p->n_columns++] = (struct st_column){
        .name = name, .type = type, .hidden = hidden, .not_null = not_null, .facts = facts
    };
}

void planner_init(struct planner *p, struct arena *a, const struct dvm_definition *def,
                  const struct catalog *cat, const struct optree *tree)
{
    static const struct value_type number = { .has_equality = true, .has_hash = true };
    bool filtered = false;
    bool algebraic;
    int n_hidden = tree != NULL ? tree->root->n_columns - tree->n_outputs : 0;

    *p = (struct planner){ .a = a, .def = def, .cat = cat, .tree = tree };
    if (tree != NULL) {
        p->group = find_group(tree->root, &filtered);
        p->scan = plan_find_scan(tree->root);
        p->strategy = STRATEGY_LINEAR;
    }
    /* A group is found by the stored key: all of it must be there. */
    if (p->group != NULL && p->group->kind != OP_WINDOW &&
        (!tree->root->has_key || tree->root->n_key != p->group->n_key))
        p->group = NULL;
    if (tree != NULL && p->group != NULL) {
        p->strategy = p->group->kind == OP_WINDOW ? STRATEGY_PARTITION : STRATEGY_RECOMPUTE;
        algebraic = p->group->kind == OP_GROUP && !filtered;
        for (int i = 0; algebraic && i < p->group->n_aggregates; i++)
            algebraic = !p->group->needed[p->group->n_exprs + i] ||
                        (is_algebraic(p->group, i) && !scale_is_shown(tree->root, p->group, i));
        if (algebraic) {
            p->strategy = STRATEGY_ALGEBRAIC;
            choose_states(p);
        }
    }
    p->columns =
        arena_new_array(a, struct st_column, (size_t)(cat->n_outputs + n_hidden + p->n_states));
    for (int i = 0; i < cat->n_outputs; i++)
        add_column(p, cat->outputs[i].name, cat->outputs[i].type, false,
                   tree != NULL && tree->root->columns[i].not_null,
                   tree != NULL ? tree->types[i] : (struct value_type){ 0 });
    for (int i = 0; i < n_hidden; i++)
        add_column(p, arena_printf(a, "__pgt_k%d", i + 1), NULL, true,
                   tree->root->columns[tree->n_outputs + i].not_null,
                   tree->types[tree->n_outputs + i]);
    for (int i = 0; i < p->n_states; i++) {
        if (p->states[i].column >= 0)
            continue;
        p->states[i].column = p->n_columns;
        add_column(p,
                   i == 0 ? "__pgt_count"
                          : arena_printf(a, p->states[i].is_sum ? "__pgt_s%d" : "__pgt_c%d", i),
                   p->states[i].type, true, true, number);
    }
    if (tree != NULL && tree->root->has_key) {
        p->key = tree->root->key;
        p->n_key = tree->root->n_key;
    }
    /* Keys that pg_catalog can't compare are of no use: a bag. */
    for (int i = 0; has_own_key(p) && i < p->n_key; i++)
        if (!p->columns[p->key[i]].facts.has_equality)
            p->n_key = 0;
    p->images = p->n_key > 0 || tree == NULL || delta_rows_have_images(tree->root);
}

/* ---- pieces -------------------------------------------------------------------------------- */

void plan_put_target(struct planner *p, struct text *out)
{
    text_put_ident(out, p->def->schema);
    text_put_char(out, '.');
    text_put_ident(out, p->def->name);
}

/* "alias.c0, alias.c1" with alias, else the columns' names. */
void plan_put_column_names(struct planner *p, struct text *out, const char *alias)
{
    for (int i = 0; i < p->n_columns; i++) {
        text_put(out, i > 0 ? ", " : "");
        if (alias != NULL)
            text_printf(out, "%s.c%d", alias, i);
        else
            text_put_ident(out, p->columns[i].name);
    }
}

void plan_put_st(struct planner *p, struct text *out, int column)
{
    text_put(out, "st.");
    text_put_ident(out, p->columns[column].name);
}

void plan_put_key_pair(struct planner *p, struct text *out, int key, const char *other)
{
    struct text st;

    text_init(&st);
    plan_put_st(p, &st, p->key[key]);
    /* An index can follow both arms of the OR; IS NOT DISTINCT FROM it can't. */
    if (p->columns[p->key[key]].not_null)
        text_printf(out, "%s = %s", st.ptr, other);
    else
        text_printf(out, "(%s = %s OR (%s IS NULL AND %s IS NULL))", st.ptr, other, st.ptr, other);
    text_free(&st);
}

void plan_put_key_match(struct planner *p, struct text *out, const char *alias, const char *prefix)
{
    for (int i = 0; i < p->n_key; i++) {
        const char *other = prefix[0] == 'k' ? arena_printf(p->a, "%s.k%d", alias, i)
                                             : arena_printf(p->a, "%s.c%d", alias, p->key[i]);

        text_put(out, i > 0 ? " AND " : "");
        plan_put_key_pair(p, out, i, other);
    }
    if (p->n_key == 0)
        text_put(out, "true");
}

bool plan_is_key(const struct planner *p, int column)
{
    for (int i = 0; i < p->n_key; i++)
        if (p->key[i] == column)
            return true;
    return false;
}

void plan_put_on_conflict(struct planner *p, struct text *out, bool only_changed)
{
    bool first = true;
    struct text st, excluded;

    text_init(&st);
    text_init(&excluded);
    text_put(out, " ON CONFLICT (");
    for (int i = 0; i < p->n_key; i++) {
        text_put(out, i > 0 ? ", " : "");
        text_put_ident(out, p->columns[p->key[i]].name);
    }
    text_put(out, ") DO ");
    for (int i = 0; i < p->n_columns; i++) {
        struct text value;

        /* A linear key is the row's own, and may change its looks. */
        if (plan_is_key(p, i) && (!has_own_key(p) || value_is_exact(&p->columns[i].facts)))
            continue;
        text_put(out, first ? "UPDATE SET " : ", ");
        text_put_ident(out, p->columns[i].name);
        text_put(out, " = EXCLUDED.");
        text_put_ident(out, p->columns[i].name);
        text_put(&st, first ? "" : ", ");
        text_put(&excluded, first ? "" : ", ");
        text_init(&value);
        plan_put_st(p, &value, i);
        put_image(&st, &p->columns[i].facts, value.ptr);
        text_clear(&value);
        text_put(&value, "EXCLUDED.");
        text_put_ident(&value, p->columns[i].name);
        put_image(&excluded, &p->columns[i].facts, value.ptr);
        text_free(&value);
        first = false;
    }
    if (first)
        text_put(out, "NOTHING");
    else if (only_changed)
        text_printf(out, " WHERE ROW(%s) IS DISTINCT FROM ROW(%s)", st.ptr, excluded.ptr);
    text_free(&st);
    text_free(&excluded);
}

void plan_put_result(struct text *out, const char *rows, const char *into)
{
    text_put(out, "\nSELECT (SELECT pg_catalog.count(*) FROM ups WHERE ups.inserted), "
                  "(SELECT pg_catalog.count(*) FROM ups WHERE NOT ups.inserted), "
                  "(SELECT pg_catalog.count(*) FROM del), ");
    text_printf(out, "(SELECT pg_catalog.count(*) FROM %s), pg_catalog.pg_current_snapshot()",
                rows);
    if (into != NULL)
        text_printf(out, " INTO %s", into);
}

const char *plan_finish(struct planner *p, struct text *t)
{
    const char *sql = arena_strdup(p->a, t->ptr);

    text_free(t);
    return sql;
}

/* ---- rows by weight: linear and full ------------------------------------------------------- */

/* hash_record_extended(ROW(…)) over the hashable columns: the index of a bag. */
static bool put_row_hash(struct planner *p, struct text *out, const char *alias, bool by_number)
{
    bool first = true;

    for (int i = 0; i < p->n_columns; i++) {
        if (!p->columns[i].facts.has_hash)
            continue;
        text_put(out, first ? "pg_catalog.hash_record_extended(ROW(" : ", ");
        if (alias != NULL)
            text_printf(out, "%s.", alias);
        if (by_number)
            text_printf(out, "c%d", i);
        else
            text_put_ident(out, p->columns[i].name);
        first = false;
    }
    if (!first)
        text_put(out, "), 0)");
    return !first;
}

/* n copies out: the first n rows that are equal. */
static void put_bag_delete(struct planner *p, struct text *out, bool images)
{
    struct text hash;

    text_init(&hash);
    text_put(out, ",\ndel AS (DELETE FROM ");
    plan_put_target(p, out);
    text_put(out, " WHERE ctid = ANY (ARRAY(SELECT x.ctid FROM (SELECT st.ctid, g.w, "
                  "pg_catalog.row_number() OVER (PARTITION BY g.number) AS copy FROM (SELECT f.*, "
                  "pg_catalog.row_number() OVER () AS number FROM f WHERE f.w < 0) g JOIN ");
    plan_put_target(p, out);
    text_put(out, " st ON ");
    if (put_row_hash(p, &hash, "st", false)) {
        text_printf(out, "%s = ", hash.ptr);
        put_row_hash(p, out, "g", true);
        text_put(out, " AND ");
    }
    for (int i = 0; i < p->n_columns; i++) {
        char other[32];
        struct text st;

        text_init(&st);
        plan_put_st(p, &st, i);
        snprintf(other, sizeof(other), "g.c%d", i);
        text_put(out, i > 0 ? " AND " : "");
        (images ? put_image : put_comparable)(out, &p->columns[i].facts, st.ptr);
        text_put(out, " IS NOT DISTINCT FROM ");
        (images ? put_image : put_comparable)(out, &p->columns[i].facts, other);
        text_free(&st);
    }
    text_put(out, ") x WHERE x.copy <= -x.w)) RETURNING 1)");
    text_free(&hash);
}

/* f is a CTE with all columns and w, one row for each distinct row. */
void plan_put_apply_rows(struct planner *p, struct text *out, bool images, const char *into)
{
    if (p->n_key > 0) {
        text_put(out, ",\ndel AS (DELETE FROM ");
        plan_put_target(p, out);
        text_put(out, " st USING f WHERE f.w < 0 AND ");
        plan_put_key_match(p, out, "f", "c");
        text_put(out, " AND NOT EXISTS (SELECT 1 FROM f g WHERE g.w > 0");
        for (int i = 0; i < p->n_key; i++)
            text_printf(out,
                        p->columns[p->key[i]].not_null ? " AND g.c%d = f.c%d"
                                                       : " AND g.c%d IS NOT DISTINCT FROM f.c%d",
                        p->key[i], p->key[i]);
        text_put(out, ") RETURNING 1),\nups AS (INSERT INTO ");
        plan_put_target(p, out);
        text_put(out, " AS st (");
        plan_put_column_names(p, out, NULL);
        text_put(out, ") SELECT ");
        plan_put_column_names(p, out, "f");
        text_put(out, " FROM f WHERE f.w > 0");
        plan_put_on_conflict(p, out, false);
        text_put(out, " RETURNING (st.xmax = 0) AS inserted)");
    } else {
        put_bag_delete(p, out, images);
        text_put(out, ",\nups AS (INSERT INTO ");
        plan_put_target(p, out);
        text_put(out, " AS st (");
        plan_put_column_names(p, out, NULL);
        text_put(out, ") SELECT ");
        plan_put_column_names(p, out, "f");
        text_put(out, " FROM f CROSS JOIN LATERAL pg_catalog.generate_series(1, f.w) WHERE f.w > 0 "
                      "RETURNING true AS inserted)");
    }
    plan_put_result(out, "f", into);
}

/* SELECT c0.., sum(w) AS w FROM rows x GROUP BY c0.. HAVING sum(w) <> 0. With images 1.0 and 1.00
 * are two rows; but not as a group's key, which may show either. */
void plan_put_summed(struct planner *p, struct text *out, const char *rows, bool images)
{
    text_put(out, "SELECT ");
    for (int i = 0; i < p->n_columns; i++)
        text_printf(out,
                    p->columns[i].facts.has_equality ? "x.c%d, "
                                                     : "(pg_catalog.array_agg(x.c%d))[1] AS c%d, ",
                    i, i);
    text_printf(out, "pg_catalog.sum(x.w)::bigint AS w FROM %s x", rows);
    for (int i = 0; i < p->n_columns; i++) {
        char value[32];

        snprintf(value, sizeof(value), "x.c%d", i);
        text_put(out, i > 0 ? ", " : " GROUP BY ");
        if (images && (has_own_key(p) || !plan_is_key(p, i)))
            put_image_key(out, &p->columns[i].facts, value);
        else
            put_comparable(out, &p->columns[i].facts, value);
    }
    text_put(out, " HAVING pg_catalog.sum(x.w) <> 0");
}

static const char *plan_linear(struct planner *p, struct delta *d, const char *into)
{
    const char *changes = delta_of(d, p->tree->root);
    struct text *out = &d->with;

    delta_cte_begin(d, "f", true);
    plan_put_summed(p, out, changes, p->images);
    delta_cte_end(d);
    plan_put_apply_rows(p, out, p->images, into);
    return plan_finish(p, out);
}

/* ---- recompute ----------------------------------------------------------------------------- */

static const char *put_recompute(struct planner *p, struct delta *d, const struct op *keyed,
                                 const char *into)
{
    const char *keys = delta_keys(d, keyed);
    struct text *out = &d->with;

    delta_cte_begin(d, "n", true);
    delta_put_new(out, p->tree->root, keyed, keys);
    delta_cte_end(d);
    text_put(out, ",\ndel AS (DELETE FROM ");
    plan_put_target(p, out);
    if (p->n_key == 0) {
        text_printf(out, " st WHERE EXISTS (SELECT 1 FROM %s) RETURNING 1)", keys);
    } else {
        text_printf(out, " st USING %s k WHERE ", keys);
        plan_put_key_match(p, out, "k", "k");
        text_put(out, " AND NOT EXISTS (SELECT 1 FROM n WHERE ");
        for (int i = 0; i < p->n_key; i++)
            text_printf(out,
                        p->columns[p->key[i]].not_null ? "%sn.c%d = k.k%d"
                                                       : "%sn.c%d IS NOT DISTINCT FROM k.k%d",
                        i > 0 ? " AND " : "", p->key[i], i);
        text_put(out, ") RETURNING 1)");
    }
    text_put(out, ",\nups AS (INSERT INTO ");
    plan_put_target(p, out);
    text_put(out, " AS st (");
    plan_put_column_names(p, out, NULL);
    text_put(out, ") SELECT ");
    plan_put_column_names(p, out, "n");
    text_put(out, " FROM n");
    if (p->n_key == 0) {
        text_printf(out, " WHERE EXISTS (SELECT 1 FROM %s) RETURNING true AS inserted)", keys);
    } else {
        plan_put_on_conflict(p, out, true);
        text_put(out, " RETURNING (st.xmax = 0) AS inserted)");
    }
    plan_put_result(out, keys, into);
    return plan_finish(p, out);
}

/* ---- algebraic ----------------------------------------------------------------------------- */

bool plan_has_inexact_state(const struct planner *p)
{
    for (int i = 0; i < p->n_states; i++)
        if (!p->states[i].exact)
            return true;
    return false;
}

static void put_change(struct text *out, const struct state *s)
{
    bool conditional = s->filter != NULL || (!s->is_sum && s->arg != NULL);

    text_put(out, "COALESCE(pg_catalog.sum(");
    if (conditional) {
        text_put(out, "CASE WHEN ");
        if (s->filter != NULL) {
            text_put(out, "(");
            put_expr_over(out, s->filter, "x");
            text_put(out, ")");
        }
        if (!s->is_sum && s->arg != NULL) {
            text_put(out, s->filter != NULL ? " AND (" : "(");
            put_expr_over(out, s->arg, "x");
            text_put(out, ") IS NOT NULL");
        }
        text_put(out, " THEN ");
    }
    text_put(out, "x.w");
    if (s->is_sum) {
        text_put(out, " * (");
        put_expr_over(out, s->arg, "x");
        text_printf(out, ")::%s", s->factor_type);
    }
    if (conditional)
        text_put(out, " END");
    text_printf(out, "), 0)::%s", s->type);
}

void plan_put_group_changes(struct planner *p, struct delta *d, struct text *out)
{
    const struct op *g = p->group;
    const char *changes = delta_of(d, g->left);

    text_put(out, "SELECT ");
    for (int i = 0; i < g->n_exprs; i++) {
        put_expr_over(out, g->exprs[i], "x");
        text_printf(out, " AS k%d, ", i);
    }
    for (int i = 0; i < p->n_states; i++) {
        text_put(out, i > 0 ? ", " : "");
        put_change(out, &p->states[i]);
        text_printf(out, " AS s%d", i);
    }
    text_printf(out, " FROM %s x", changes);
    for (int i = 0; i < g->n_exprs; i++) {
        text_put(out, i > 0 ? ", " : " GROUP BY ");
        put_expr_over(out, g->exprs[i], "x");
    }
    for (int i = 0; i < p->n_states; i++) {
        text_put(out, i > 0 ? " OR " : " HAVING ");
        put_change(out, &p->states[i]);
        text_put(out, " <> 0");
    }
}

/* The value of an aggregate from its states. */
void plan_put_value(struct planner *p, struct text *out, int i, const char *alias)
{
    int count = p->count_state[i], sum = p->sum_state[i];

    if (count < 0)
        text_put(out, "NULL");
    else if (sum < 0)
        text_printf(out, "%s.s%d", alias, count);
    else if (aggregate_is(&p->group->aggregates[i], "sum"))
        text_printf(out, "CASE WHEN %s.s%d <> 0 THEN %s.s%d END", alias, count, alias, sum);
    else
        text_printf(out, "CASE WHEN %s.s%d <> 0 THEN %s.s%d::numeric / %s.s%d::numeric END", alias,
                    count, alias, sum, alias, count);
}

/* Whether column i of op is computed from aggregates. */
static bool is_computed(const struct planner *p, const struct op *op, int i, bool computed)
{
    if (op == p->group)
        return computed && i >= op->n_exprs;
    computed = computed || expr_plain_column(op->exprs[i]) < 0;
    for (int h = 0; h < op->exprs[i]->n_holes; h++)
        if (is_computed(p, op->left, op->exprs[i]->holes[h].column, computed))
            return true;
    return false;
}

bool plan_is_computed(const struct planner *p, int i)
{
    return is_computed(p, p->tree->root, i, false);
}

bool plan_computes(const struct planner *p)
{
    for (int i = 0; i < p->tree->n_outputs; i++)
        if (plan_is_computed(p, i))
            return true;
    return false;
}

/* What is computed from aggregates may fail where there are no rows (100 / count(*)), or where the
 * numbers are only a change. */
static void put_projections(struct planner *p, struct text *out, const struct op *op,
                            const char *base, bool is_change)
{
    bool first = true, guarded;

    if (op == p->group) {
        text_put(out, "SELECT ");
        for (int i = 0; i < op->n_columns; i++) {
            if (!op->needed[i])
                continue;
            if (i < op->n_exprs)
                text_printf(out, "m.k%d", i);
            else
                plan_put_value(p, out, i - op->n_exprs, "m");
            text_printf(out, " AS c%d, ", i);
        }
        for (int i = 0; i < p->n_states; i++)
            text_printf(out, "%sm.s%d", i > 0 ? ", " : "", i);
        text_printf(out, " FROM %s m", base);
        return;
    }
    text_put(out, "SELECT ");
    for (int i = 0; i < op->n_columns; i++) {
        if (!op->needed[i])
            continue;
        guarded = (is_change || p->n_key > 0) && expr_plain_column(op->exprs[i]) < 0 &&
                  is_computed(p, op, i, false);
        text_put(out, first ? "" : ", ");
        if (guarded)
            text_printf(out, "CASE WHEN %s THEN (", is_change ? "false" : "x.s0 <> 0");
        put_expr_over(out, op->exprs[i], "x");
        text_printf(out, "%s AS c%d", guarded ? ") END" : "", i);
        first = false;
    }
    for (int i = 0; i < p->n_states; i++)
        text_printf(out, "%sx.s%d", first && i == 0 ? "" : ", ", i);
    text_put(out, " FROM (");
    put_projections(p, out, op->left, base, is_change);
    text_put(out, ") x");
}

static const struct state *sum_stored_in(const struct planner *p, int column)
{
    for (int i = 0; i < p->n_states; i++)
        if (p->states[i].is_sum && p->states[i].column == column)
            return &p->states[i];
    return NULL;
}

void plan_put_outputs(struct planner *p, const char *base, bool is_change, struct text *out)
{
    int n = p->tree->root->n_columns;

    text_put(out, "SELECT ");
    for (int i = 0; i < n; i++) {
        const struct state *sum = is_change ? sum_stored_in(p, i) : NULL;

        if (sum != NULL)
            text_printf(out, "CASE WHEN y.s%d <> 0 OR y.s%d <> 0 THEN y.s%d END AS c%d, ",
                        sum->count, (int)(sum - p->states), (int)(sum - p->states), i);
        else
            text_printf(out, "y.c%d, ", i);
    }
    for (int i = 0; i < p->n_states; i++)
        if (p->states[i].column >= n)
            text_printf(out, "y.s%d AS c%d, ", i, p->states[i].column);
    text_put(out, "y.s0 AS n FROM (");
    put_projections(p, out, p->tree->root, base, is_change);
    text_put(out, ") y");
}

/* SELECT k0.., s0.. of whole groups, evaluated from the rows of the group's input. */
void plan_put_group_states(struct planner *p, struct text *out, const char *keys)
{
    const struct op *g = p->group;

    text_put(out, "SELECT ");
    for (int i = 0; i < g->n_exprs; i++) {
        put_expr_over(out, g->exprs[i], "x");
        text_printf(out, " AS k%d, ", i);
    }
    for (int i = 0; i < p->n_states; i++) {
        const struct state *s = &p->states[i];

        text_printf(out, "%sCOALESCE(pg_catalog.%s(", i > 0 ? ", " : "",
                    s->is_sum ? "sum" : "count");
        if (s->arg != NULL)
            put_expr_over(out, s->arg, "x");
        else
            text_put(out, "*");
        text_put(out, ")");
        if (s->filter != NULL) {
            text_put(out, " FILTER (WHERE ");
            put_expr_over(out, s->filter, "x");
            text_put(out, ")");
        }
        text_printf(out, ", 0)::%s AS s%d", s->type, i);
    }
    text_put(out, " FROM (");
    if (keys != NULL)
        delta_put_affected(out, g, keys);
    else
        delta_put_new(out, g->left, NULL, NULL);
    text_put(out, ") x");
    for (int i = 0; i < g->n_exprs; i++) {
        text_put(out, i > 0 ? ", " : " GROUP BY ");
        put_expr_over(out, g->exprs[i], "x");
    }
}

static void put_stored(struct planner *p, struct text *out, const struct state *s)
{
    text_put(out, "COALESCE(");
    plan_put_st(p, out, s->column);
    text_put(out, ", 0)");
}

static void put_is_inexact(struct text *out, const char *value)
{
    text_printf(out, "%s IN ('NaN'::numeric, 'Infinity'::numeric, '-Infinity'::numeric)", value);
}

/* m: stored + change. A sum that holds NaN or an infinity has no inverse: the group is summed
 * anew. */
static void put_merged(struct planner *p, struct delta *d)
{
    const struct op *g = p->group;
    struct text *out = &d->with;
    bool inexact = plan_has_inexact_state(p);
    bool first = true;

    delta_cte_begin(d, inexact ? "m0" : "m", true);
    text_put(out, "SELECT ");
    for (int i = 0; i < g->n_exprs; i++)
        text_printf(out, "a.k%d, ", i);
    for (int i = 0; i < p->n_states; i++) {
        text_put(out, i > 0 ? ", " : "");
        put_stored(p, out, &p->states[i]);
        text_printf(out, " + a.s%d AS s%d", i, i);
    }
    text_put(out, " FROM a LEFT JOIN ");
    plan_put_target(p, out);
    text_put(out, " st ON ");
    plan_put_key_match(p, out, "a", "k");
    delta_cte_end(d);
    if (!inexact)
        return;
    delta_cte_begin(d, "bad", true);
    text_put(out, "SELECT ");
    for (int i = 0; i < g->n_exprs; i++)
        text_printf(out, "%sm0.k%d", i > 0 ? ", " : "", i);
    if (g->n_exprs > 1) {
        bool hash = true;

        for (int i = 0; i < g->n_exprs; i++)
            hash = hash && g->key_types[i].has_hash;
        for (int i = 0; hash && i < g->n_exprs; i++)
            text_printf(out, "%sm0.k%d", i > 0 ? ", " : ", pg_catalog.hash_record_extended(ROW(",
                        i);
        text_put(out, hash ? "), 0) AS h" : "");
    }
    text_put(out, " FROM m0 WHERE ");
    for (int i = 0; i < p->n_states; i++) {
        char value[32];

        if (p->states[i].exact)
            continue;
        snprintf(value, sizeof(value), "m0.s%d", i);
        text_put(out, first ? "" : " OR ");
        put_is_inexact(out, value);
        first = false;
    }
    delta_cte_end(d);
    delta_cte_begin(d, "r", false);
    plan_put_group_states(p, out, "bad");
    delta_cte_end(d);
    delta_cte_begin(d, "m", true);
    text_put(out, "SELECT m0.* FROM m0 WHERE NOT EXISTS (SELECT 1 FROM bad b");
    for (int i = 0; i < g->n_exprs; i++)
        text_printf(out, "%sb.k%d IS NOT DISTINCT FROM m0.k%d", i > 0 ? " AND " : " WHERE ", i, i);
    text_put(out, ") UNION ALL SELECT ");
    for (int i = 0; i < g->n_exprs; i++)
        text_printf(out, "b.k%d, ", i);
    for (int i = 0; i < p->n_states; i++)
        text_printf(out, "%sCOALESCE(r.s%d, 0)", i > 0 ? ", " : "", i);
    text_put(out, " FROM bad b LEFT JOIN r ON ");
    for (int i = 0; i < g->n_exprs; i++)
        text_printf(out, "%sr.k%d IS NOT DISTINCT FROM b.k%d", i > 0 ? " AND " : "", i, i);
    text_put(out, g->n_exprs == 0 ? "true" : "");
    delta_cte_end(d);
}

static const char *plan_algebraic(struct planner *p, struct delta *d, const char *into)
{
    struct text body;
    struct text *out = &d->with;

    text_init(&body);
    plan_put_group_changes(p, d, &body);
    delta_cte_begin(d, "a", true);
    text_put_str(out, text_str(&body));
    delta_cte_end(d);
    text_free(&body);
    put_merged(p, d);
    delta_cte_begin(d, "o", true);
    plan_put_outputs(p, "m", false, out);
    delta_cte_end(d);
    if (p->n_key == 0) {
        text_put(out, ",\ndel AS (SELECT 1 WHERE false),\nups AS (UPDATE ");
        plan_put_target(p, out);
        text_put(out, " st SET ");
        for (int i = 0; i < p->n_columns; i++) {
            text_put(out, i > 0 ? ", " : "");
            text_put_ident(out, p->columns[i].name);
            text_printf(out, " = o.c%d", i);
        }
        text_put(out, " FROM o RETURNING false AS inserted)");
    } else {
        text_put(out, ",\ndel AS (DELETE FROM ");
        plan_put_target(p, out);
        text_put(out, " st USING o WHERE o.n = 0 AND ");
        plan_put_key_match(p, out, "o", "c");
        text_put(out, " RETURNING 1),\nups AS (INSERT INTO ");
        plan_put_target(p, out);
        text_put(out, " AS st (");
        plan_put_column_names(p, out, NULL);
        text_put(out, ") SELECT ");
        plan_put_column_names(p, out, "o");
        text_put(out, " FROM o WHERE o.n <> 0");
        plan_put_on_conflict(p, out, false);
        text_put(out, " RETURNING (st.xmax = 0) AS inserted)");
    }
    plan_put_result(out, "o", into);
    return plan_finish(p, out);
}

/* ---- statements ---------------------------------------------------------------------------- */

const char *plan_delta(struct planner *p, enum delta_from from, uint64_t changed, const char *into)
{
    struct delta d;

    delta_init(&d, p->a, p->tree, from, changed, p->def->pgt_id);
    /* Nothing below the root may have changed: no statement for this mask. */
    if (delta_of(&d, p->strategy == STRATEGY_LINEAR ? p->tree->root : p->group->left) == NULL) {
        text_free(&d.with);
        return NULL;
    }
    switch (p->strategy) {
    case STRATEGY_FULL:
        break;
    case STRATEGY_LINEAR:
        /* In a trigger, a row's delete and insert may come in either order: what is there now
         * decides. */
        if (from != DELTA_FROM_BUFFER && p->scan != NULL && p->n_key > 0)
            return put_recompute(p, &d, p->scan, into);
        return plan_linear(p, &d, into);
    case STRATEGY_PARTITION:
        return plan_partition(p, &d, into);
    case STRATEGY_RECOMPUTE:
        return put_recompute(p, &d, p->group, into);
    case STRATEGY_ALGEBRAIC:
        return plan_algebraic(p, &d, into);
    }
    text_free(&d.with);
    return NULL;
}

void plan_put_rows(struct planner *p, struct text *out)
{
    if (p->strategy == STRATEGY_FULL) {
        text_printf(out, "SELECT * FROM (%s\n) AS q(", p->cat->canonical);
        for (int i = 0; i < p->n_columns; i++)
            text_printf(out, "%sc%d", i > 0 ? ", " : "", i);
        text_put(out, ")");
    } else if (p->strategy == STRATEGY_ALGEBRAIC) {
        struct text base;

        text_init(&base);
        text_put(&base, "(");
        plan_put_group_states(p, &base, NULL);
        text_put(&base, ")");
        plan_put_outputs(p, base.ptr, false, out);
        text_free(&base);
    } else {
        delta_put_new(out, p->tree->root, NULL, NULL);
    }
}

const char *plan_full(struct planner *p, const char *into)
{
    struct text out;

    text_init(&out);
    text_put(&out, "WITH q AS MATERIALIZED (");
    plan_put_rows(p, &out);
    text_put(&out, "),\nf AS MATERIALIZED (");
    {
        struct text both;

        text_init(&both);
        text_put(&both, "(SELECT ");
        plan_put_column_names(p, &both, "q");
        text_put(&both, ", 1 AS w FROM q UNION ALL SELECT ");
        for (int i = 0; i < p->n_columns; i++) {
            plan_put_st(p, &both, i);
            text_put(&both, ", ");
        }
        text_put(&both, "-1 FROM ");
        plan_put_target(p, &both);
        text_put(&both, " st)");
        plan_put_summed(p, &out, both.ptr, true);
        text_free(&both);
    }
    text_put(&out, ")");
    plan_put_apply_rows(p, &out, true, into);
    return plan_finish(p, &out);
}

const char *plan_fill(struct planner *p)
{
    struct text out;

    text_init(&out);
    text_put(&out, "WITH q AS (");
    plan_put_rows(p, &out);
    text_put(&out, "), i AS (INSERT INTO ");
    plan_put_target(p, &out);
    text_put(&out, " (");
    plan_put_column_names(p, &out, NULL);
    text_put(&out, ") SELECT ");
    plan_put_column_names(p, &out, "q");
    text_put(&out, " FROM q RETURNING 1) SELECT pg_catalog.count(*), 0::bigint, 0::bigint, "
                   "pg_catalog.count(*), pg_catalog.pg_current_snapshot() FROM i");
    return plan_finish(p, &out);
}

void plan_put_create(struct planner *p, const char ***sql, int *n)
{
    struct text out, hash;

    *sql = arena_new_array(p->a, const char *, 3);
    *n = 0;
    text_init(&out);
    text_put(&out, "CREATE TABLE ");
    plan_put_target(p, &out);
    text_put(&out, " (");
    for (int i = 0; i < p->n_columns; i++) {
        text_put(&out, i > 0 ? ", " : "");
        text_put_ident(&out, p->columns[i].name);
        text_printf(&out, " %s", p->columns[i].type);
    }
    text_put(&out, ")");
    (*sql)[(*n)++] = plan_finish(p, &out);
    text_init(&out);
    text_init(&hash);
    if (p->n_key > 0) {
        text_put(&out, "CREATE UNIQUE INDEX ON ");
        plan_put_target(p, &out);
        text_put(&out, " (");
        for (int i = 0; i < p->n_key; i++) {
            text_put(&out, i > 0 ? ", " : "");
            text_put_ident(&out, p->columns[p->key[i]].name);
        }
        text_put(&out, ") NULLS NOT DISTINCT");
        (*sql)[(*n)++] = plan_finish(p, &out);
    } else if ((p->group == NULL || p->strategy == STRATEGY_PARTITION) &&
               put_row_hash(p, &hash, NULL, false)) {
        text_put(&out, "CREATE INDEX ON ");
        plan_put_target(p, &out);
        text_printf(&out, " (%s)", hash.ptr);
        (*sql)[(*n)++] = plan_finish(p, &out);
    } else {
        text_free(&out);
    }
    text_free(&hash);
    if (p->strategy == STRATEGY_PARTITION && p->tree->root->n_carry > 0) {
        text_init(&out);
        text_put(&out, "CREATE INDEX ON ");
        plan_put_target(p, &out);
        text_put(&out, " (");
        for (int i = 0; i < p->tree->root->n_carry; i++) {
            text_put(&out, i > 0 ? ", " : "");
            text_put_ident(&out, p->columns[p->tree->root->carry[i]].name);
        }
        text_put(&out, ")");
        (*sql)[(*n)++] = plan_finish(p, &out);
    }
}
