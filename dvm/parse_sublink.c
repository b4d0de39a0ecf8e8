/* Subqueries in expressions.
 *
 * Each is taken out of its expression and kept with the query (struct qsublink); the expression
 * keeps a hole. What a subquery refers to outside of it stays a plain column hole: the builder
 * finds it in the scopes around.
 */
#include <stdio.h>
#include <string.h>

#include "dvm/sql_parse_internal.h"

#define SUBLINK_TOKEN "__pgths"

/* ---- whose column -------------------------------------------------------------------------- */

static bool item_has(const struct from_item *item, const char *qualifier, const char *name)
{
    if (qualifier != NULL && item->alias != NULL && strcmp(item->alias, qualifier) == 0)
        return true;
    if (item->kind != FROM_JOIN)
        return false;
    /* PostgreSQL writes only the merged columns of a USING without a qualifier. */
    for (int i = 0; qualifier == NULL && i < item->n_using; i++)
        if (strcmp(item->using_columns[i], name) == 0)
            return true;
    return item_has(item->left, qualifier, name) || item_has(item->right, qualifier, name);
}

static bool query_has(const struct query *q, const char *qualifier, const char *name)
{
    for (int i = 0; i < q->n_from; i++)
        if (item_has(q->from[i], qualifier, name))
            return true;
    return false;
}

bool parse_is_outer(const struct parser *p, const struct query *q, const struct hole *h)
{
    return p->sub_depth > 0 && !query_has(q, h->qualifier, h->name);
}

void parse_note_outer(struct parser *p, const struct hole *h)
{
    struct outer_column *c = arena_new(p->a, struct outer_column);

    *c = (struct outer_column){ h->qualifier, h->name, p->outer_columns };
    p->outer_columns = c;
}

struct column_search {
    const struct parser *p;
    const struct query *q;
    bool any, own;
};

static bool look_for_own(void *arg, Node *n)
{
    struct column_search *s = arg;

    if (n->node_case == PG_QUERY__NODE__NODE_COLUMN_REF) {
        PgQuery__ColumnRef *ref = n->column_ref;
        struct hole h = { .name = parse_node_string(ref->fields[ref->n_fields - 1]) };

        if (ref->n_fields > 1)
            h.qualifier = parse_node_string(ref->fields[ref->n_fields - 2]);
        s->any = true;
        s->own = s->own || h.name == NULL || !parse_is_outer(s->p, s->q, &h);
        return true;
    }
    return n->node_case == PG_QUERY__NODE__NODE__NOT_SET ||
           parse_each_child((ProtobufCMessage *)n->column_ref, look_for_own, s);
}

bool parse_aggregate_is_outer(struct parser *p, const struct query *q, PgQuery__FuncCall *f)
{
    struct column_search s = { .p = p, .q = q };

    for (size_t i = 0; i < f->n_args; i++)
        look_for_own(&s, f->args[i]);
    return p->sub_depth > 0 && s.any && !s.own;
}

/* ---- the subquery -------------------------------------------------------------------------- */

/* ARRAY(SELECT x ORDER BY y): what it is ordered by becomes outputs behind the value. */
static bool show_order(struct parser *p, struct qsublink *link, PgQuery__SelectStmt *s)
{
    Node **targets;

    if (s->n_sort_clause == 0)
        return true;
    if (s->op != PG_QUERY__SET_OPERATION__SETOP_NONE)
        return parse_refuse(p, REFUSAL_SUBLINK, "ARRAY(…) of an ordered set operation", NULL) !=
               NULL;
    targets = arena_new_array(p->a, Node *, s->n_target_list + s->n_sort_clause);
    memcpy(targets, s->target_list, sizeof(*targets) * s->n_target_list);
    link->n_sort = (int)s->n_sort_clause;
    link->sort_suffix = arena_new_array(p->a, const char *, s->n_sort_clause);
    for (size_t i = 0; i < s->n_sort_clause; i++) {
        PgQuery__SortBy *by = s->sort_clause[i]->sort_by;
        PgQuery__ResTarget *target = arena_new(p->a, PgQuery__ResTarget);
        Node *node = arena_new(p->a, Node);

        if (by->n_use_op > 0)
            return parse_refuse(p, REFUSAL_OTHER, "ORDER BY … USING", NULL) != NULL;
        pg_query__res_target__init(target);
        pg_query__node__init(node);
        target->name = arena_printf(p->a, "order%zu", i + 1);
        target->val = parse_node_copy(p, by->node);
        node->node_case = PG_QUERY__NODE__NODE_RES_TARGET;
        node->res_target = target;
        targets[s->n_target_list + i] = node;
        link->sort_suffix[i] = parse_sort_suffix(by);
    }
    s->target_list = targets;
    s->n_target_list += s->n_sort_clause;
    return true;
}

static bool add_tests(struct parser *p, struct query *q, struct qsublink *link,
                      PgQuery__SubLink *node)
{
    Node **tests = &node->testexpr;
    size_t n = 1;

    if (node->testexpr->node_case == PG_QUERY__NODE__NODE_ROW_EXPR) {
        tests = node->testexpr->row_expr->args;
        n = node->testexpr->row_expr->n_args;
    }
    link->op = "=";
    if (node->n_oper_name == 1 && parse_node_string(node->oper_name[0]) != NULL)
        link->op = parse_node_string(node->oper_name[0]);
    else if (node->n_oper_name == 2)
        link->op = arena_printf(p->a, "OPERATOR(%s.%s)",
                                parse_quoted(p, parse_node_string(node->oper_name[0])),
                                parse_node_string(node->oper_name[1]));
    link->tests = arena_new_array(p->a, struct qexpr *, n);
    link->n_tests = (int)n;
    for (size_t i = 0; i < n; i++) {
        link->tests[i] = parse_expr(p, q, tests[i], link->grouped);
        if (link->tests[i] == NULL)
            return false;
    }
    return true;
}

static struct qsublink *to_sublink(struct parser *p, struct query *q, PgQuery__SubLink *node,
                                   bool grouped)
{
    struct qsublink *link = arena_new(p->a, struct qsublink);
    PgQuery__SelectStmt *select;
    const struct outer_column *before = p->outer_columns;

    link->grouped = grouped;
    if (node->subselect->node_case != PG_QUERY__NODE__NODE_SELECT_STMT)
        return parse_refuse(p, REFUSAL_SUBLINK, "this kind of subquery", NULL);
    select = node->subselect->select_stmt;
    switch ((int)node->sub_link_type) {
    case PG_QUERY__SUB_LINK_TYPE__EXISTS_SUBLINK:
        link->kind = SUBLINK_EXISTS;
        break;
    case PG_QUERY__SUB_LINK_TYPE__ANY_SUBLINK:
        link->kind = SUBLINK_ANY;
        break;
    case PG_QUERY__SUB_LINK_TYPE__ALL_SUBLINK:
        link->kind = SUBLINK_ALL;
        break;
    case PG_QUERY__SUB_LINK_TYPE__EXPR_SUBLINK:
        link->kind = SUBLINK_SCALAR;
        break;
    case PG_QUERY__SUB_LINK_TYPE__ARRAY_SUBLINK:
        link->kind = SUBLINK_ARRAY;
        if (!show_order(p, link, select))
            return NULL;
        break;
    default:
        return parse_refuse(p, REFUSAL_SUBLINK, "this kind of subquery", NULL);
    }
    if (node->testexpr != NULL && !add_tests(p, q, link, node))
        return NULL;
    p->sub_depth++;
    link->query = parse_query(p, select, q->ctes);
    p->sub_depth--;
    if (link->query == NULL)
        return NULL;
    /* Above a grouping a subquery sees the groups' columns; those that their key determines become
     * part of it. */
    for (const struct outer_column *c = p->outer_columns; grouped && c != before; c = c->next)
        if (query_has(q, c->qualifier, c->name) && !parse_group_by(p, q, c->qualifier, c->name))
            return NULL;
    return link;
}

static int add_sublink(struct query *q, struct arena *a, struct qsublink *link)
{
    struct qsublink **more = arena_new_array(a, struct qsublink *, (size_t)q->n_sublinks + 1);

    if (q->n_sublinks > 0)
        memcpy(more, q->sublinks, sizeof(*more) * (size_t)q->n_sublinks);
    more[q->n_sublinks] = link;
    q->sublinks = more;
    return q->n_sublinks++;
}

/* ---- taking it out ------------------------------------------------------------------------- */

struct lift {
    struct parser *p;
    struct query *q;
    bool grouped;
};

/* GROUP BY (SELECT …): above the grouping it is a key, and no subquery any more. */
static bool is_grouped_by(const struct query *q, int sublink)
{
    char token[32];

    snprintf(token, sizeof(token), SUBLINK_TOKEN "%dx", sublink);
    for (int i = 0; i < q->n_groups; i++)
        if (q->groups[i].key != NULL && strstr(q->groups[i].key, token) != NULL)
            return true;
    return false;
}

static bool lift_node(void *arg, Node *node)
{
    struct lift *l = arg;
    PgQuery__ColumnRef *ref;
    struct qsublink *link;
    const char *name, *key;
    int at = -1;

    if (node->node_case == PG_QUERY__NODE__NODE__NOT_SET)
        return true;
    if (node->node_case != PG_QUERY__NODE__NODE_SUB_LINK) {
        /* An aggregate's argument is no expression over groups: it comes later. */
        if (l->grouped && node->node_case == PG_QUERY__NODE__NODE_FUNC_CALL &&
            parse_is_aggregate(l->p, node->func_call, &name))
            return true;
        return parse_each_child((ProtobufCMessage *)node->column_ref, lift_node, l);
    }
    key = parse_deparse(l->p, node);
    for (int i = 0; key != NULL && i < l->q->n_sublinks && at < 0; i++)
        if (l->q->sublinks[i]->key != NULL && strcmp(l->q->sublinks[i]->key, key) == 0 &&
            (l->q->sublinks[i]->grouped == l->grouped || is_grouped_by(l->q, i)))
            at = i;
    if (at < 0) {
        link = to_sublink(l->p, l->q, node->sub_link, l->grouped);
        if (link == NULL)
            return false;
        link->key = key;
        at = add_sublink(l->q, l->p->a, link);
    }
    ref = parse_column_ref(l->p, arena_printf(l->p->a, SUBLINK_TOKEN "%dx", at));
    node->node_case = PG_QUERY__NODE__NODE_COLUMN_REF;
    node->column_ref = ref;
    return true;
}

bool parse_lift_sublinks(struct parser *p, struct query *q, Node *node, bool grouped)
{
    struct lift l = { p, q, grouped };

    return lift_node(&l, node);
}

bool parse_punch_sublink(struct punch *c, Node *node, bool *is_one)
{
    PgQuery__ColumnRef *ref = node->column_ref;
    const char *name = ref->n_fields == 1 ? parse_node_string(ref->fields[0]) : NULL;
    int at;

    *is_one = name != NULL && sscanf(name, SUBLINK_TOKEN "%dx", &at) == 1;
    if (!*is_one)
        return true;
    if (c->grouped && !c->query->sublinks[at]->grouped)
        return parse_refuse(c->p, REFUSAL_SUBLINK, "a subquery that is part of a GROUP BY key",
                            NULL) != NULL;
    parse_punch_hole(
        c, node,
        (struct hole){ .kind = HOLE_SUBLINK, .index = at, .sublink = c->query->sublinks[at] });
    return true;
}
