/* GROUP BY, aggregates, DISTINCT ON. */
#include <string.h>

#include "dvm/optree_internal.h"

static bool resolve_aggregate(struct builder *b, const struct qagg *q, const struct scope *s,
                              struct op_aggregate *g)
{
    *g = (struct op_aggregate){
        .schema = q->schema,
        .function = q->function,
        .star = q->star,
        .distinct = q->distinct,
        .variadic = q->variadic,
        .within_group = q->within_group,
        .n_args = q->n_args,
        .n_sort = q->n_sort,
    };
    g->args = arena_new_array(b->a, struct expr *, (size_t)q->n_args);
    g->sort = arena_new_array(b->a, struct expr *, (size_t)q->n_sort);
    g->sort_suffix = arena_new_array(b->a, const char *, (size_t)q->n_sort);
    g->arg_types = arena_new_array(b->a, struct value_type, (size_t)q->n_args);
    for (int i = 0; i < q->n_args; i++)
        if ((g->args[i] = build_resolve(b, q->args[i], s, 0)) == NULL)
            return false;
    for (int i = 0; i < q->n_sort; i++) {
        g->sort_suffix[i] = q->sort[i].suffix;
        if ((g->sort[i] = build_resolve(b, q->sort[i].expr, s, 0)) == NULL)
            return false;
    }
    return q->filter == NULL || (g->filter = build_resolve(b, q->filter, s, 0)) != NULL;
}

static struct expr *constant_expr(struct builder *b, const char *text)
{
    struct expr *e = arena_new(b->a, struct expr);

    e->text = text;
    return e;
}

/* e, or a NULL of its type. */
static struct expr *if_in_set(struct builder *b, const struct expr *e, bool in_set)
{
    struct expr *out = arena_new(b->a, struct expr);

    *out = *e;
    if (!in_set)
        out->text = arena_printf(b->a, "CASE WHEN false THEN (%s) END", e->text);
    return out;
}

static bool is_in_set(const struct query *q, int set, int key)
{
    return key >= q->n_set_keys || q->sets[set][key];
}

/* GROUPING(): a bit for each argument that is not in the set, the last one the lowest. */
static const char *grouping_value(struct builder *b, const struct qgroup *call, const bool *set)
{
    unsigned bits = 0;

    for (int i = 0; i < call->n_args; i++)
        bits = bits << 1 | !set[call->args[i]];
    return arena_printf(b->a, "%u", bits);
}

/* The rows of child as one grouping set sees them: child's columns, the keys, whether the row is
 * one of child's (is_real). */
static struct op *set_arm(struct builder *b, const struct query *q, struct op *child,
                          struct expr *const *keys, int set, bool is_real)
{
    int n = child->n_columns;
    size_t n_all = (size_t)(n + q->n_groups + 1);
    struct expr **exprs = arena_new_array(b->a, struct expr *, n_all);
    const char **names = arena_new_array(b->a, const char *, n_all);

    for (int i = 0; i < n; i++) {
        exprs[i] = build_column_expr(b, i);
        names[i] = child->columns[i].name;
    }
    for (int i = 0; i < q->n_groups; i++) {
        const struct qgroup *g = &q->groups[i];

        names[n + i] = "key";
        switch (g->kind) {
        case GROUP_EXPR:
            exprs[n + i] = if_in_set(b, keys[i], is_in_set(q, set, i));
            break;
        case GROUP_CALL:
            exprs[n + i] = constant_expr(b, grouping_value(b, g, q->sets[set]));
            break;
        case GROUP_SET:
            exprs[n + i] = constant_expr(b, arena_printf(b->a, "%d", set));
            break;
        }
    }
    exprs[n + q->n_groups] = constant_expr(b, is_real ? "true" : "false");
    names[n + q->n_groups] = "is_real";
    return build_named_only(b, build_project(b, child, exprs, names, (int)n_all), (int)n_all);
}

static bool set_is_empty(const struct query *q, int set)
{
    for (int i = 0; i < q->n_groups; i++)
        if (q->groups[i].kind == GROUP_EXPR && is_in_set(q, set, i))
            return false;
    return true;
}

static struct op *add_arm(struct builder *b, struct op *arms, struct op *arm)
{
    return arms == NULL ? arm : build_union_all(b, arms, arm);
}

/* Grouping sets: each row once for each set, with the keys outside it NULL, grouped by the keys and
 * the number of the set. The empty set has a row even over nothing: it gets one more, which no
 * aggregate counts (child padded by an outer join that never matches: NULLs of child's types). */
static struct op *build_grouping_sets(struct builder *b, const struct query *q, struct op *child,
                                      struct expr **keys, struct op_aggregate *aggs)
{
    int n = child->n_columns;
    struct expr **plain = arena_new_array(b->a, struct expr *, (size_t)q->n_groups);
    struct op *arms = NULL;
    bool padded = false;

    for (int set = 0; set < q->n_sets; set++) {
        arms = add_arm(b, arms, set_arm(b, q, child, keys, set, true));
        if (set_is_empty(q, set)) {
            struct expr *never = constant_expr(b, "false");
            struct op *nulls = build_join_op(b, OP_LEFT_JOIN, build_one_row(b), child, &never, 1);

            arms = add_arm(b, arms, set_arm(b, q, nulls, keys, set, false));
            padded = true;
        }
    }
    for (int i = 0; padded && i < q->n_aggs; i++) {
        struct expr *both[] = { build_column_expr(b, n + q->n_groups), aggs[i].filter };

        aggs[i].filter = build_expr_all(b, both, aggs[i].filter != NULL ? 2 : 1);
    }
    for (int i = 0; i < q->n_groups; i++)
        plain[i] = build_column_expr(b, n + i);
    return build_group_op(b, arms, plain, NULL, q->n_groups, aggs, q->n_aggs);
}

/* A direct argument of WITHIN GROUP is evaluated for a group, and would see the key's own value. */
static bool direct_argument_reads_input(const struct op_aggregate *aggs, int n)
{
    for (int i = 0; i < n; i++)
        for (int k = 0; aggs[i].within_group && k < aggs[i].n_args; k++)
            if (aggs[i].args[k]->n_holes > 0)
                return true;
    return false;
}

struct op *build_grouping(struct builder *b, const struct query *q, struct op *child,
                          const struct scope *s)
{
    struct expr **keys = arena_new_array(b->a, struct expr *, (size_t)q->n_groups);
    struct op_aggregate *aggs = arena_new_array(b->a, struct op_aggregate, (size_t)q->n_aggs);
    struct expr ***places;
    int n_places = 0;

    for (int i = 0; i < q->n_groups; i++) {
        if (q->groups[i].kind != GROUP_EXPR)
            continue;
        if ((keys[i] = build_resolve(b, q->groups[i].expr, s, 0)) == NULL)
            return NULL;
        n_places++;
    }
    for (int i = 0; i < q->n_aggs; i++) {
        if (!resolve_aggregate(b, q->aggs[i], s, &aggs[i]))
            return NULL;
        n_places += aggs[i].n_args + aggs[i].n_sort + 1;
    }
    places = arena_new_array(b->a, struct expr **, (size_t)n_places);
    n_places = 0;
    for (int i = 0; i < q->n_groups; i++)
        if (q->groups[i].kind == GROUP_EXPR)
            places[n_places++] = &keys[i];
    for (int i = 0; i < q->n_aggs; i++) {
        for (int k = 0; k < aggs[i].n_args; k++)
            places[n_places++] = &aggs[i].args[k];
        for (int k = 0; k < aggs[i].n_sort; k++)
            places[n_places++] = &aggs[i].sort[k];
        places[n_places++] = &aggs[i].filter;
    }
    child = build_computed(b, child, places, n_places);
    if (q->n_sets == 0)
        return build_group_op(b, child, keys, NULL, q->n_groups, aggs, q->n_aggs);
    if (direct_argument_reads_input(aggs, q->n_aggs))
        return build_refuse(b, REFUSAL_GROUPING_SETS,
                            "WITHIN GROUP with columns as direct arguments over grouping sets");
    return build_grouping_sets(b, q, child, keys, aggs);
}

struct op *build_distinct_on(struct builder *b, const struct query *q, struct op *child,
                             const struct scope *s)
{
    struct expr **keys = arena_new_array(b->a, struct expr *, (size_t)q->n_distinct_on);
    struct op *op;
    int *key;

    for (int i = 0; i < q->n_distinct_on; i++) {
        keys[i] = build_resolve(b, q->distinct_on[i], s, q->n_groups);
        if (keys[i] == NULL)
            return NULL;
    }
    if (build_covers_key(child, keys, q->n_distinct_on))
        return child; /* one row a key already */
    /* The key expressions become columns, so that they can be the key. */
    {
        int n = child->n_columns;
        struct expr **all = arena_new_array(b->a, struct expr *, (size_t)(n + q->n_distinct_on));
        const char **names = arena_new_array(b->a, const char *, (size_t)(n + q->n_distinct_on));

        key = arena_new_array(b->a, int, (size_t)q->n_distinct_on);
        for (int i = 0; i < n; i++) {
            all[i] = build_column_expr(b, i);
            names[i] = child->columns[i].name;
        }
        for (int i = 0; i < q->n_distinct_on; i++) {
            key[i] = expr_plain_column(keys[i]);
            if (key[i] < 0) {
                key[i] = n;
                all[n] = keys[i];
                names[n++] = arena_printf(b->a, "key%d", i + 1);
            }
        }
        child = build_project(b, child, all, names, n);
    }
    op = build_new_op(b, OP_DISTINCT_ON, child->n_columns);
    op->left = child;
    memcpy(op->columns, child->columns, sizeof(*op->columns) * (size_t)child->n_columns);
    op->exprs = arena_new_array(b->a, struct expr *, (size_t)q->n_distinct_on);
    op->n_exprs = q->n_distinct_on;
    for (int i = 0; i < op->n_exprs; i++)
        op->exprs[i] = build_column_expr(b, key[i]);
    op->n_sort = q->n_sort;
    op->sort = arena_new_array(b->a, struct expr *, (size_t)q->n_sort);
    op->sort_suffix = arena_new_array(b->a, const char *, (size_t)q->n_sort);
    for (int i = 0; i < q->n_sort; i++) {
        /* A key that is an expression is a column by now. */
        for (int k = 0; op->sort[i] == NULL && k < op->n_exprs; k++)
            if (strcmp(q->sort[i].expr->key, q->distinct_on[k]->key) == 0)
                op->sort[i] = op->exprs[k];
        if (op->sort[i] == NULL)
            op->sort[i] = build_resolve(b, q->sort[i].expr, s, q->n_groups);
        op->sort_suffix[i] = q->sort[i].suffix;
        if (op->sort[i] == NULL)
            return NULL;
        if (op->sort[i]->uses_time)
            return build_refuse(b, REFUSAL_TIME, "the current time in the ORDER BY of DISTINCT ON");
    }
    build_set_key(b, op, key, op->n_exprs);
    return op;
}
