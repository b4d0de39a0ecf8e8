/* Aggregate calls (PostgreSQL's manual, 4.2.7): arguments, DISTINCT, ORDER BY, WITHIN GROUP,
 * FILTER. */
#include <string.h>

#include "dvm/sql_parse_internal.h"

/* Whether the catalog's function is the one that canonical text calls by schema and name. */
static bool is_called(const struct cat_function *f, const char *schema, const char *name)
{
    return strcmp(f->name, name) == 0 &&
           (schema == NULL ? f->builtin : strcmp(f->schema, schema) == 0);
}

static const char *function_schema(const PgQuery__FuncCall *f)
{
    return f->n_funcname > 1 ? parse_node_string(f->funcname[0]) : NULL;
}

bool parse_is_aggregate(const struct parser *p, const PgQuery__FuncCall *f, const char **name)
{
    *name = parse_node_string(f->funcname[f->n_funcname - 1]);
    for (int i = 0; i < p->cat->n_functions; i++)
        if (p->cat->functions[i].aggregate && *name != NULL &&
            is_called(&p->cat->functions[i], function_schema(f), *name))
            return true;
    return false;
}

struct aggregate_search {
    const struct parser *p;
    bool found;
};

static bool look_for_aggregate(void *arg, Node *n)
{
    struct aggregate_search *s = arg;
    const char *name;

    if (n->node_case == PG_QUERY__NODE__NODE_SUB_LINK)
        return true;
    if (n->node_case == PG_QUERY__NODE__NODE_FUNC_CALL && n->func_call->over == NULL &&
        parse_is_aggregate(s->p, n->func_call, &name)) {
        s->found = true;
        return true;
    }
    return n->node_case == PG_QUERY__NODE__NODE__NOT_SET ||
           parse_each_child((ProtobufCMessage *)n->column_ref, look_for_aggregate, s);
}

bool parse_has_aggregate(const struct parser *p, Node **nodes, size_t n)
{
    struct aggregate_search s = { .p = p };

    for (size_t i = 0; i < n; i++)
        look_for_aggregate(&s, nodes[i]);
    return s.found;
}

/* A plain function and an aggregate of one name (with other arguments) can't be told apart here. */
static bool is_ambiguous(const struct parser *p, const PgQuery__FuncCall *f, const char *name)
{
    for (int i = 0; i < p->cat->n_functions; i++)
        if (!p->cat->functions[i].aggregate &&
            is_called(&p->cat->functions[i], function_schema(f), name))
            return true;
    return false;
}

static bool add_parts(struct punch *c, const PgQuery__FuncCall *f, struct qagg *agg)
{
    struct parser *p = c->p;

    agg->n_args = (int)f->n_args;
    agg->args = arena_new_array(p->a, struct qexpr *, f->n_args);
    for (int i = 0; i < agg->n_args; i++)
        if ((agg->args[i] = parse_expr(p, c->query, f->args[i], false)) == NULL)
            return false;
    agg->n_sort = (int)f->n_agg_order;
    agg->sort = arena_new_array(p->a, struct qsort, f->n_agg_order);
    for (int i = 0; i < agg->n_sort; i++) {
        PgQuery__SortBy *by = f->agg_order[i]->sort_by;

        if (by->n_use_op > 0)
            return parse_refuse(p, REFUSAL_OTHER, "ORDER BY … USING", NULL) != NULL;
        agg->sort[i].suffix = parse_sort_suffix(by);
        if ((agg->sort[i].expr = parse_expr(p, c->query, by->node, false)) == NULL)
            return false;
    }
    return f->agg_filter == NULL ||
           (agg->filter = parse_expr(p, c->query, f->agg_filter, false)) != NULL;
}

bool parse_add_aggregate(struct punch *c, Node *node, const char *name)
{
    PgQuery__FuncCall *f = node->func_call;
    struct query *q = c->query;
    struct qagg *agg = arena_new(c->p->a, struct qagg);
    struct qagg **more;

    if (f->n_funcname > 2 || is_ambiguous(c->p, f, name))
        return parse_refuse(c->p, REFUSAL_AGGREGATE,
                            arena_printf(c->p->a, "the aggregate %s", name), name) != NULL;
    agg->key = parse_deparse(c->p, node);
    if (agg->key == NULL)
        return parse_refuse(c->p, REFUSAL_AGGREGATE, "this aggregate", name) != NULL;
    for (int i = 0; i < q->n_aggs; i++) {
        if (strcmp(q->aggs[i]->key, agg->key) == 0) {
            parse_punch_hole(c, node, (struct hole){ .kind = HOLE_AGG, .index = i });
            return true;
        }
    }
    agg->schema = function_schema(f);
    agg->function = name;
    agg->star = f->agg_star;
    agg->distinct = f->agg_distinct;
    agg->variadic = f->func_variadic;
    agg->within_group = f->agg_within_group;
    if (!add_parts(c, f, agg))
        return false;
    more = arena_new_array(c->p->a, struct qagg *, (size_t)q->n_aggs + 1);
    if (q->n_aggs > 0)
        memcpy(more, q->aggs, sizeof(*more) * (size_t)q->n_aggs);
    more[q->n_aggs] = agg;
    q->aggs = more;
    parse_punch_hole(c, node, (struct hole){ .kind = HOLE_AGG, .index = q->n_aggs++ });
    return true;
}
