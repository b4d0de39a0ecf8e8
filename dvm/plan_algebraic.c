/* Groups whose aggregates are computed from running values: the change of each group is added to
 * what is stored (the group's states, in columns of the definition or hidden ones).
 *
 * MIN and MAX are merged too: what came may only lower a minimum, and what went matters only when
 * it is the minimum and nothing as low came. Then the group is evaluated anew. Example: min = 3 is
 * stored; 5 goes: 3. 2 comes: 2. 3 goes: evaluated. 3 goes and 1 comes: 1.
 */
#include <string.h>

#include "dvm/plan_internal.h"

bool plan_has_inexact_state(const struct planner *p)
{
    for (int i = 0; i < p->n_states; i++)
        if (!p->states[i].exact)
            return true;
    return false;
}

static bool is_extremum(const struct state *s)
{
    return s->kind == STATE_MIN || s->kind == STATE_MAX;
}

bool plan_has_extremum(const struct planner *p)
{
    for (int i = 0; i < p->n_states; i++)
        if (is_extremum(&p->states[i]))
            return true;
    return false;
}

/* The sum of what a row adds, times its weight. */
static void put_change(struct text *out, const struct state *s)
{
    const char *separator = "CASE WHEN (";

    text_put(out, "COALESCE(pg_catalog.sum(");
    if (s->filter != NULL) {
        text_put(out, separator);
        put_expr_over(out, s->filter, "x");
        separator = ") AND (";
    }
    if (s->arg != NULL && (s->kind == STATE_COUNT || s->kind == STATE_TRUE)) {
        text_put(out, separator);
        put_expr_over(out, s->arg, "x");
        text_put(out, s->kind == STATE_COUNT ? ") IS NOT NULL" : "");
        separator = s->kind == STATE_COUNT ? "" : ")";
    } else if (s->filter != NULL) {
        separator = ")";
    } else {
        separator = NULL;
    }
    if (separator != NULL)
        text_printf(out, "%s THEN ", separator);
    text_put(out, "x.w");
    for (int i = 0; i < (s->kind == STATE_SUM ? 1 : s->kind == STATE_SQUARES ? 2 : 0); i++) {
        text_put(out, " * (");
        put_expr_over(out, s->arg, "x");
        text_printf(out, ")::%s", s->type);
    }
    text_put(out, separator != NULL ? " END" : "");
    text_printf(out, "), 0)::%s", s->type);
}

/* min(…) of the rows x that fulfil the condition. */
static void put_extremum(struct text *out, const struct state *s, const char *condition)
{
    text_printf(out, "pg_catalog.%s(", s->kind == STATE_MIN ? "min" : "max");
    put_expr_over(out, s->arg, "x");
    text_put(out, ")");
    if (condition == NULL && s->filter == NULL)
        return;
    text_put(out, " FILTER (WHERE ");
    text_put(out, condition != NULL ? condition : "");
    if (s->filter != NULL) {
        text_put(out, condition != NULL ? " AND (" : "(");
        put_expr_over(out, s->filter, "x");
        text_put(out, ")");
    }
    text_put(out, ")");
}

/* Whether a row that comes with a change is there afterwards, and one that goes was there before.
 * Where deltas are composed, or several statements collected, a row may both come and go. */
static bool is_net(const struct planner *p, const struct delta *d)
{
    return d->from != DELTA_FROM_PENDING && plan_find_scan(p->group->left) != NULL;
}

void plan_put_group_changes(struct planner *p, struct delta *d, struct text *out)
{
    const struct op *g = p->group;
    const char *changes = delta_of(d, g->left);
    const char *separator = " HAVING ";

    text_put(out, "SELECT ");
    for (int i = 0; i < g->n_exprs; i++) {
        put_expr_over(out, g->exprs[i], "x");
        text_printf(out, " AS k%d, ", i);
    }
    for (int i = 0; i < p->n_states; i++) {
        const struct state *s = &p->states[i];

        text_put(out, i > 0 ? ", " : "");
        if (is_extremum(s)) {
            put_extremum(out, s, "x.w < 0");
            text_printf(out, " AS x%d, ", i);
            put_extremum(out, s, "x.w > 0");
        } else {
            put_change(out, s);
        }
        text_printf(out, " AS s%d", i);
    }
    text_put(out, " FROM ");
    if (plan_has_extremum(p) && !is_net(p, d)) {
        text_put(out, "(");
        delta_put_summed(out, g->left, g->input_types, changes);
        text_put(out, ")");
    } else {
        text_put(out, changes);
    }
    text_put(out, " x");
    for (int i = 0; i < g->n_exprs; i++) {
        text_put(out, i > 0 ? ", " : " GROUP BY ");
        put_expr_over(out, g->exprs[i], "x");
    }
    for (int i = 0; i < p->n_states; i++) {
        const struct state *s = &p->states[i];

        text_put(out, separator);
        if (is_extremum(s)) {
            text_put(out, "pg_catalog.num_nonnulls(");
            put_extremum(out, s, "x.w < 0");
            text_put(out, ", ");
            put_extremum(out, s, "x.w > 0");
            text_put(out, ")");
        } else {
            put_change(out, s);
        }
        text_put(out, " <> 0");
        separator = " OR ";
    }
}

/* The variance from count, sum and squares, with the digits that PostgreSQL gives it
 * (numeric_stddev_internal): (n * q - s * s) / (n * (n - 1)), or / (n * n) for the population's. */
static void put_variance(struct planner *p, struct text *out, int i, const char *alias)
{
    const struct op_aggregate *g = &p->group->aggregates[i];
    bool population = strstr(g->function, "pop") != NULL;
    const char *n = arena_printf(p->a, "%s.s%d::numeric", alias, p->count_state[i]);
    const char *s = arena_printf(p->a, "%s.s%d::numeric", alias, p->sum_state[i]);
    const char *q = arena_printf(p->a, "%s.s%d", alias, p->value_state[i]);
    const char *over = arena_printf(p->a, "(%s * %s - %s * %s)", n, q, s, s);
    const char *value = arena_printf(p->a, "%s / (%s * (%s - %d))", over, n, n, !population);

    text_printf(out, "CASE WHEN %s > %d THEN CASE WHEN %s <= 0 THEN 0::numeric ELSE ", n,
                !population, over);
    if (strncmp(g->function, "stddev", 6) == 0)
        /* the root is rounded once, to as many digits as the variance has: sqrt() would give more
         * or fewer */
        text_printf(out,
                    "pg_catalog.round(pg_catalog.sqrt(pg_catalog.round(%s, "
                    "COALESCE(pg_catalog.scale(%s), 0) + 20)), "
                    "COALESCE(pg_catalog.scale(%s), 0))",
                    value, value, value);
    else
        text_put(out, value);
    text_put(out, " END END");
}

/* The value of an aggregate from its states. */
void plan_put_value(struct planner *p, struct text *out, int i, const char *alias)
{
    const struct op_aggregate *g = &p->group->aggregates[i];
    int count = p->count_state[i], sum = p->sum_state[i], value = p->value_state[i];

    if (count < 0 && value < 0)
        text_put(out, "NULL"); /* not needed */
    else if (count < 0)
        text_printf(out, "%s.s%d", alias, value);
    else if (sum >= 0 && value >= 0)
        put_variance(p, out, i, alias);
    else if (value >= 0)
        text_printf(out, "CASE WHEN %s.s%d <> 0 THEN %s.s%d %s END", alias, count, alias, value,
                    aggregate_is(g, "bool_or") ? "<> 0"
                                               : arena_printf(p->a, "= %s.s%d", alias, count));
    else if (sum < 0)
        text_printf(out, "%s.s%d", alias, count);
    else if (aggregate_is(g, "sum"))
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
        if (p->states[i].kind == STATE_SUM && p->states[i].column == column)
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

static void put_state(struct text *out, const struct state *s)
{
    const char *separator = " FILTER (WHERE (";
    bool additive = s->kind == STATE_SUM || s->kind == STATE_SQUARES;

    if (is_extremum(s)) {
        put_extremum(out, s, NULL);
        return;
    }
    text_printf(out, "COALESCE(pg_catalog.%s(%s", additive ? "sum" : "count",
                s->kind == STATE_SQUARES ? "(" : "");
    if (s->arg == NULL || s->kind == STATE_TRUE)
        text_put(out, "*");
    else
        put_expr_over(out, s->arg, "x");
    if (s->kind == STATE_SQUARES) {
        text_put(out, ")::numeric * (");
        put_expr_over(out, s->arg, "x");
        text_put(out, ")::numeric");
    }
    text_put(out, ")");
    if (s->kind == STATE_TRUE) {
        text_put(out, separator);
        put_expr_over(out, s->arg, "x");
        separator = ") AND (";
    }
    if (s->filter != NULL) {
        text_put(out, separator);
        put_expr_over(out, s->filter, "x");
    }
    if (s->kind == STATE_TRUE || s->filter != NULL)
        text_put(out, "))");
    text_printf(out, ", 0)::%s", s->type);
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

        text_put(out, i > 0 ? ", " : "");
        put_state(out, s);
        text_printf(out, " AS s%d", i);
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

/* Whether the i-th state can't be merged from what is stored (st) and the change (a). An extremum
 * went, and none as good came: what is left is unknown. */
static void put_is_unmerged(struct planner *p, struct text *out, int i)
{
    const struct state *s = &p->states[i];
    const char *op = s->kind == STATE_MIN ? "<=" : ">=";

    if (is_extremum(s)) {
        text_printf(out, "(a.x%d %s ", i, op);
        plan_put_st(p, out, s->column);
        text_printf(out, " AND (a.s%d %s ", i, op);
        plan_put_st(p, out, s->column);
        text_put(out, ") IS NOT TRUE)");
        return;
    }
    text_put(out, "(");
    put_stored(p, out, s);
    text_printf(out, " + a.s%d IN ('NaN'::numeric, 'Infinity'::numeric, '-Infinity'::numeric))", i);
}

static void put_merged_state(struct planner *p, struct text *out, int i)
{
    const struct state *s = &p->states[i];

    if (is_extremum(s)) {
        text_put(out, s->kind == STATE_MIN ? "LEAST(" : "GREATEST(");
        plan_put_st(p, out, s->column);
        text_printf(out, ", a.s%d) AS s%d", i, i);
        return;
    }
    put_stored(p, out, s);
    text_printf(out, " + a.s%d AS s%d", i, i);
}

static bool may_be_unmerged(const struct state *s)
{
    return !s->exact || is_extremum(s);
}

/* The keys of the groups of m0 that have to be evaluated anew. */
static void put_bad(struct planner *p, struct delta *d)
{
    const struct op *g = p->group;
    struct text *out = &d->with;
    bool hash = g->n_exprs > 1;

    delta_cte_begin(d, "bad", true);
    text_put(out, "SELECT ");
    for (int i = 0; i < g->n_exprs; i++)
        text_printf(out, "%sm0.k%d", i > 0 ? ", " : "", i);
    for (int i = 0; i < g->n_exprs; i++)
        hash = hash && g->key_types[i].has_hash;
    for (int i = 0; hash && i < g->n_exprs; i++)
        text_printf(out, "%sm0.k%d", i > 0 ? ", " : ", pg_catalog.hash_record_extended(ROW(", i);
    text_put(out, hash ? "), 0) AS h" : "");
    text_put(out, " FROM m0 WHERE m0.bad");
    text_put(out, g->n_exprs > 0 ? " AND m0.s0 <> 0" : ""); /* one that is gone has no rows */
    delta_cte_end(d);
}

/* m: stored + change. A sum that holds NaN or an infinity has no inverse, an extremum that went no
 * successor that is known: such a group is evaluated anew. */
static void put_merged(struct planner *p, struct delta *d)
{
    const struct op *g = p->group;
    struct text *out = &d->with;
    bool unmerged = plan_has_inexact_state(p) || plan_has_extremum(p);
    bool first = true;

    delta_cte_begin(d, unmerged ? "m0" : "m", true);
    text_put(out, "SELECT ");
    for (int i = 0; i < g->n_exprs; i++)
        text_printf(out, "a.k%d, ", i);
    for (int i = 0; i < p->n_states; i++) {
        text_put(out, i > 0 ? ", " : "");
        put_merged_state(p, out, i);
    }
    for (int i = 0; i < p->n_states; i++) {
        if (!may_be_unmerged(&p->states[i]))
            continue;
        text_put(out, first ? ", (" : " OR ");
        put_is_unmerged(p, out, i);
        first = false;
    }
    text_put(out, first ? "" : ") IS TRUE AS bad");
    text_put(out, " FROM a LEFT JOIN ");
    plan_put_target(p, out);
    text_put(out, " st ON ");
    plan_put_key_match(p, out, "a", "k");
    delta_cte_end(d);
    if (!unmerged)
        return;
    put_bad(p, d);
    delta_cte_begin(d, "r", false);
    plan_put_group_states(p, out, "bad");
    delta_cte_end(d);
    delta_cte_begin(d, "m", true);
    text_put(out, "SELECT m0.* FROM m0 WHERE NOT m0.bad");
    text_put(out, g->n_exprs > 0 ? " OR m0.s0 = 0" : "");
    /* All of the bad groups have rows; that of no key has them or not. */
    text_put(out, " UNION ALL SELECT r.*, true FROM r");
    text_put(out, g->n_exprs == 0 ? ", bad" : "");
    delta_cte_end(d);
}

const char *plan_algebraic(struct planner *p, struct delta *d, const char *into)
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
        plan_put_on_conflict(p, out, plan_has_extremum(p)); /* most leave it as it is */
        text_put(out, " RETURNING (st.xmax = 0) AS inserted)");
    }
    plan_put_result(out, "o", into);
    return plan_finish(p, out);
}
