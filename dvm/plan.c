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

/* Whether affected parts of it are evaluated anew and compared row by row. */
static bool is_partitioned(const struct op *op)
{
    return op->kind == OP_WINDOW || op->kind == OP_RECURSIVE;
}

/* The grouping operator below projections (and filters, which rule out algebraic). With the time in
 * a filter above it there is none: rows then leave without any change below. */
static const struct op *find_group(const struct op *root, bool *filtered)
{
    const struct op *op = root;

    *filtered = false;
    while (op->kind == OP_PROJECT || op->kind == OP_FILTER) {
        if (op->expands || delta_uses_time(op))
            return NULL;
        *filtered = *filtered || op->kind == OP_FILTER;
        op = op->left;
    }
    return op->kind == OP_GROUP || op->kind == OP_DISTINCT_ON || is_partitioned(op) ? op : NULL;
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

static bool has_own_key(const struct planner *p)
{
    return p->strategy == STRATEGY_LINEAR || p->strategy == STRATEGY_PARTITION ||
           p->strategy == STRATEGY_FIRST_ROWS;
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
    bool filtered = false;
    int n_hidden = tree != NULL ? tree->root->n_columns - tree->n_outputs : 0;

    *p = (struct planner){ .a = a, .def = def, .cat = cat, .tree = tree };
    if (tree != NULL) {
        p->group = find_group(tree->root, &filtered);
        p->scan = plan_find_scan(tree->root);
        p->strategy = tree->root->kind == OP_LIMIT ? STRATEGY_FIRST_ROWS : STRATEGY_LINEAR;
    }
    /* A group is found by the stored key: all of it must be there. */
    if (p->group != NULL && !is_partitioned(p->group) &&
        (!tree->root->has_key || tree->root->n_key != p->group->n_key))
        p->group = NULL;
    if (p->group != NULL) {
        p->strategy = is_partitioned(p->group) ? STRATEGY_PARTITION : STRATEGY_RECOMPUTE;
        if (p->group->kind == OP_GROUP && !filtered && plan_choose_states(p))
            p->strategy = STRATEGY_ALGEBRAIC;
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
        add_column(p, plan_state_name(p, i), p->states[i].type, true, p->states[i].type != NULL,
                   p->states[i].facts);
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
        /* EXCEPT knows NULLs, and never compares each with each, however few rows are expected. */
        for (int side = 0; side < 2; side++) {
            text_put(out, side == 0 ? " st USING (SELECT " : " EXCEPT SELECT ");
            for (int i = 0; i < p->n_key; i++)
                text_printf(out, "%sf.c%d", i > 0 ? ", " : "", p->key[i]);
            text_printf(out, " FROM f WHERE f.w %s 0", side == 0 ? "<" : ">");
        }
        text_put(out, ") f WHERE ");
        plan_put_key_match(p, out, "f", "c");
        text_put(out, " RETURNING 1),\nups AS (INSERT INTO ");
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

void plan_put_row_identity(struct planner *p, struct text *out, int column, const char *value,
                           bool images)
{
    if (images && (has_own_key(p) || !plan_is_key(p, column)))
        put_image_key(out, &p->columns[column].facts, value);
    else
        put_comparable(out, &p->columns[column].facts, value);
}

/* SELECT c0.., sum(w) AS w FROM rows x GROUP BY c0.. HAVING sum(w) <> 0. With images 1.0 and 1.00
 * are two rows; but not as a group's key, which may show either. */
void plan_put_summed(struct planner *p, struct text *out, const char *rows, bool images)
{
    text_put(out, "SELECT ");
    for (int i = 0; i < p->n_columns; i++)
        text_printf(out,
                    p->columns[i].facts.has_equality ? "x.c%d, " : "pgtrickle._any(x.c%d) AS c%d, ",
                    i, i);
    text_printf(out, "pg_catalog.sum(x.w)::bigint AS w FROM %s x", rows);
    for (int i = 0; i < p->n_columns; i++) {
        char value[32];

        snprintf(value, sizeof(value), "x.c%d", i);
        text_put(out, i > 0 ? ", " : " GROUP BY ");
        plan_put_row_identity(p, out, i, value, images);
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
        text_put(out, " st USING (SELECT ");
        for (int i = 0; i < p->n_key; i++)
            text_printf(out, "%sk.k%d", i > 0 ? ", " : "", i);
        text_printf(out, " FROM %s k EXCEPT SELECT ", keys);
        for (int i = 0; i < p->n_key; i++)
            text_printf(out, "%sn.c%d", i > 0 ? ", " : "", p->key[i]);
        text_put(out, " FROM n) k WHERE ");
        plan_put_key_match(p, out, "k", "k");
        text_put(out, " RETURNING 1)");
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

/* ---- statements ---------------------------------------------------------------------------- */

static bool all_total(struct expr *const *exprs, int n)
{
    for (int i = 0; i < n; i++)
        if (exprs[i] != NULL && !expr_is_total(exprs[i]))
            return false;
    return true;
}

/* Whether rows of op that cancel each other do no harm on their way from the scan. */
static bool lets_pairs_pass(const struct op *op)
{
    for (; op->kind == OP_FILTER || op->kind == OP_PROJECT; op = op->left)
        if (op->kind == OP_FILTER ? op->predicate->uses_time || !expr_is_total(op->predicate)
                                  : !all_total(op->exprs, op->n_exprs))
            return false;
    return op->kind == OP_SCAN;
}

/* Sums and rows by weight cancel what came and went themselves: to do so before, too, would cost as
 * much again. Not for extrema, which would be looked for anew, nor where a value that is gone
 * could still make an expression fail. */
static bool sums_up(const struct planner *p)
{
    const struct op *g = p->group;

    if (p->strategy == STRATEGY_LINEAR)
        return lets_pairs_pass(p->tree->root);
    if (p->strategy != STRATEGY_ALGEBRAIC || !lets_pairs_pass(g->left) ||
        !all_total(g->exprs, g->n_exprs))
        return false;
    for (int i = 0; i < g->n_aggregates; i++) {
        const struct op_aggregate *agg = &g->aggregates[i];

        if (!aggregate_is(agg, "count") && !aggregate_is(agg, "sum") && !aggregate_is(agg, "avg"))
            return false;
        if (!all_total(agg->args, agg->n_args) || !all_total(&agg->filter, 1))
            return false;
    }
    return true;
}

const char *plan_delta(struct planner *p, enum delta_from from, uint64_t changed, const char *into)
{
    const struct op *root = p->tree->root;
    const struct op *changing = p->group != NULL                     ? p->group->left
                                : p->strategy == STRATEGY_FIRST_ROWS ? root->left
                                                                     : root;
    struct delta d;

    delta_init(&d, p->a, p->tree, from, changed, p->def->pgt_id);
    d.as_captured = sums_up(p);
    /* Nothing below the root may have changed: no statement for this mask. */
    if ((p->group != NULL && p->group->kind == OP_RECURSIVE ? delta_keys(&d, p->group)
                                                            : delta_of(&d, changing)) == NULL) {
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
    case STRATEGY_FIRST_ROWS:
        return plan_first_rows(p, &d, into);
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

void plan_put_against_stored(struct planner *p, struct text *out, const char *where)
{
    text_put(out, "(SELECT ");
    plan_put_column_names(p, out, "q");
    text_put(out, ", 1 AS w FROM q UNION ALL SELECT ");
    for (int i = 0; i < p->n_columns; i++) {
        plan_put_st(p, out, i);
        text_put(out, ", ");
    }
    text_put(out, "-1 FROM ");
    plan_put_target(p, out);
    text_printf(out, " st%s)", where);
}

const char *plan_full(struct planner *p, const char *into)
{
    struct text out, both;

    text_init(&out);
    text_put(&out, "WITH q AS MATERIALIZED (");
    plan_put_rows(p, &out);
    text_put(&out, "),\nf AS MATERIALIZED (");
    text_init(&both);
    plan_put_against_stored(p, &both, "");
    plan_put_summed(p, &out, both.ptr, true);
    text_free(&both);
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
