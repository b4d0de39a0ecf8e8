/* Which running values (states) the aggregates of the group at the root can be computed from. */
#include <string.h>

#include "dvm/plan_internal.h"

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

static bool is_one_of(const struct op_aggregate *g, const char *const *names)
{
    for (int i = 0; names[i] != NULL; i++)
        if (aggregate_is(g, names[i]))
            return true;
    return false;
}

static bool is_bool(const struct op_aggregate *g)
{
    static const char *const names[] = { "bool_and", "bool_or", "every", NULL };

    return is_one_of(g, names);
}

static bool is_variance(const struct op_aggregate *g)
{
    static const char *const names[] = { "variance",   "var_pop",     "var_samp", "stddev",
                                         "stddev_pop", "stddev_samp", NULL };

    return is_one_of(g, names);
}

static bool is_extremum(const struct op_aggregate *g)
{
    return aggregate_is(g, "min") || aggregate_is(g, "max");
}

bool plan_type_has_no_collation(const struct value_type *t)
{
    enum {
        OID_OID = 26,
        OID_FLOAT4 = 700,
        OID_FLOAT8 = 701,
        OID_MONEY = 790,
        OID_DATE = 1082,
        OID_TIME = 1083,
        OID_TIMESTAMP = 1114,
        OID_TIMESTAMPTZ = 1184,
        OID_INTERVAL = 1186,
        OID_TIMETZ = 1266
    };
    static const uint32_t known[] = { OID_INT8,     OID_INT2,   OID_INT4,      OID_NUMERIC,
                                      OID_OID,      OID_FLOAT4, OID_FLOAT8,    OID_MONEY,
                                      OID_DATE,     OID_TIME,   OID_TIMESTAMP, OID_TIMESTAMPTZ,
                                      OID_INTERVAL, OID_TIMETZ };

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (t->oid == known[i])
            return true;
    return false;
}

/* What can be added to and subtracted from; MIN and MAX as long as the extremum stays. A quotient
 * (AVG, the variances) of a numeric needs a fixed scale: its digits depend on the scale of the sum,
 * and the scale of rows that have gone would stay in it. */
static bool is_algebraic(const struct planner *p, int i)
{
    const struct op_aggregate *agg = &p->group->aggregates[i];
    const struct value_type *t = agg->arg_types;

    if (is_extremum(agg))
        return agg->result.has_equality && (plan_shown_as(p, p->group->n_exprs + i) >= 0 ||
                                            plan_type_has_no_collation(&agg->result));
    if (agg->distinct)
        return false;
    if (aggregate_is(agg, "count") || is_bool(agg))
        return true;
    if (aggregate_is(agg, "sum"))
        return is_integer(t) || t->oid == OID_NUMERIC;
    if (aggregate_is(agg, "avg") || is_variance(agg))
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

static bool is_never_null(const struct planner *p, const struct expr *e)
{
    int plain = expr_plain_column(e);

    return plain >= 0 && p->group->left->columns[plain].not_null;
}

static int add_state(struct planner *p, enum state_kind kind, const struct op_aggregate *g)
{
    const struct expr *arg = g != NULL && g->n_args > 0 ? g->args[0] : NULL;
    const struct expr *filter = g != NULL ? g->filter : NULL;
    struct state *s;

    if (kind == STATE_COUNT && arg != NULL && is_never_null(p, arg))
        arg = NULL;
    for (int i = 0; i < p->n_states; i++)
        if (p->states[i].kind == kind && same_expr(p->states[i].arg, arg) &&
            same_expr(p->states[i].filter, filter))
            return i;
    s = &p->states[p->n_states];
    *s = (struct state){ .kind = kind, .arg = arg, .filter = filter, .column = -1, .exact = true };
    s->facts = (struct value_type){ .has_equality = true, .has_hash = true };
    s->type = "bigint";
    switch (kind) {
    case STATE_COUNT:
    case STATE_TRUE:
        break;
    case STATE_SUM:
        s->exact = is_integer(g->arg_types);
        if (g->arg_types->oid != OID_INT2 && g->arg_types->oid != OID_INT4)
            s->type = "numeric";
        break;
    case STATE_SQUARES:
        s->exact = is_integer(g->arg_types);
        s->type = "numeric";
        break;
    case STATE_MIN:
    case STATE_MAX:
        s->type = NULL;
        s->facts = g->result;
        break;
    }
    return p->n_states++;
}

/* The states of the i-th aggregate. */
static void add_states(struct planner *p, int i)
{
    const struct op_aggregate *g = &p->group->aggregates[i];

    if (is_extremum(g)) {
        p->value_state[i] = add_state(p, aggregate_is(g, "min") ? STATE_MIN : STATE_MAX, g);
        return;
    }
    p->count_state[i] = add_state(p, STATE_COUNT, g);
    if (aggregate_is(g, "count"))
        return;
    if (is_bool(g)) {
        p->value_state[i] = add_state(p, STATE_TRUE, g);
        return;
    }
    p->sum_state[i] = add_state(p, STATE_SUM, g);
    p->states[p->sum_state[i]].count = p->count_state[i];
    if (is_variance(g))
        p->value_state[i] = add_state(p, STATE_SQUARES, g);
}

/* The state that is the i-th aggregate's value; -1: it is computed from several. */
static int shown_state(const struct planner *p, int i)
{
    const struct op_aggregate *g = &p->group->aggregates[i];

    if (is_extremum(g))
        return p->value_state[i];
    if (aggregate_is(g, "sum"))
        return p->sum_state[i];
    return aggregate_is(g, "count") ? p->count_state[i] : -1;
}

bool plan_choose_states(struct planner *p)
{
    const struct op *g = p->group;
    size_t n = (size_t)g->n_aggregates;

    for (int i = 0; i < g->n_aggregates; i++)
        if (g->needed[g->n_exprs + i] &&
            (!is_algebraic(p, i) || scale_is_shown(p->tree->root, g, i)))
            return false;
    p->states = arena_new_array(p->a, struct state, 3 * n + 1);
    p->count_state = arena_new_array(p->a, int, n);
    p->sum_state = arena_new_array(p->a, int, n);
    p->value_state = arena_new_array(p->a, int, n);
    add_state(p, STATE_COUNT, NULL);
    for (int i = 0; i < g->n_aggregates; i++) {
        p->count_state[i] = p->sum_state[i] = p->value_state[i] = -1;
        if (g->needed[g->n_exprs + i])
            add_states(p, i);
    }
    for (int i = 0; i < g->n_aggregates; i++) {
        int shown = plan_shown_as(p, g->n_exprs + i);
        struct state *s;

        if (shown < 0 || shown_state(p, i) < 0)
            continue;
        s = &p->states[shown_state(p, i)];
        if (s->column < 0) {
            s->column = shown;
            s->visible = true;
        }
    }
    return true;
}

const char *plan_state_name(struct planner *p, int i)
{
    switch (p->states[i].kind) {
    case STATE_COUNT:
        return i == 0 ? "__pgt_count" : arena_printf(p->a, "__pgt_c%d", i);
    case STATE_TRUE:
        return arena_printf(p->a, "__pgt_t%d", i);
    case STATE_SUM:
        return arena_printf(p->a, "__pgt_s%d", i);
    case STATE_SQUARES:
        return arena_printf(p->a, "__pgt_q%d", i);
    case STATE_MIN:
    case STATE_MAX:
        return arena_printf(p->a, "__pgt_m%d", i);
    }
    return NULL;
}
