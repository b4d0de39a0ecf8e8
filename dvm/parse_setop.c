/* UNION, INTERSECT, EXCEPT; VALUES; ORDER BY … LIMIT … OFFSET. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dvm/sql_parse_internal.h"

struct query *parse_set_operation(struct parser *p, PgQuery__SelectStmt *s, struct cte_scope *ctes)
{
    struct query *q = arena_new(p->a, struct query);

    switch ((int)s->op) {
    case PG_QUERY__SET_OPERATION__SETOP_UNION:
        q->kind = QUERY_UNION_ALL;
        break;
    case PG_QUERY__SET_OPERATION__SETOP_INTERSECT:
        q->kind = QUERY_INTERSECT;
        break;
    case PG_QUERY__SET_OPERATION__SETOP_EXCEPT:
        q->kind = QUERY_EXCEPT;
        break;
    default:
        return parse_refuse(p, REFUSAL_SET_OPERATION, "this set operation", NULL);
    }
    q->union_distinct = !s->all;
    q->left = parse_query(p, s->larg, ctes);
    q->right = q->left != NULL ? parse_query(p, s->rarg, ctes) : NULL;
    if (q->right == NULL)
        return NULL;
    q->n_targets = q->left->n_targets;
    q->targets = q->left->targets;
    return q;
}

struct query *parse_values(struct parser *p, PgQuery__SelectStmt *s)
{
    struct query *q = arena_new(p->a, struct query);

    q->kind = QUERY_VALUES;
    q->n_rows = (int)s->n_values_lists;
    q->n_targets = (int)s->values_lists[0]->list->n_items;
    q->targets = arena_new_array(p->a, struct qtarget, (size_t)q->n_targets);
    q->values = arena_new_array(p->a, struct qexpr *, (size_t)q->n_targets * s->n_values_lists);
    for (int i = 0; i < q->n_targets; i++)
        q->targets[i].name = arena_printf(p->a, "column%d", i + 1);
    for (int r = 0; r < q->n_rows; r++) {
        PgQuery__List *row = s->values_lists[r]->list;

        for (int i = 0; i < q->n_targets && i < (int)row->n_items; i++) {
            struct qexpr *e = parse_expr(p, q, row->items[i], false);

            if (e == NULL)
                return NULL;
            q->values[r * q->n_targets + i] = e;
        }
    }
    return q;
}

const char *parse_sort_suffix(PgQuery__SortBy *s)
{
    bool desc = s->sortby_dir == PG_QUERY__SORT_BY_DIR__SORTBY_DESC;

    if (s->sortby_nulls == PG_QUERY__SORT_BY_NULLS__SORTBY_NULLS_FIRST)
        return desc ? " DESC NULLS FIRST" : " NULLS FIRST";
    if (s->sortby_nulls == PG_QUERY__SORT_BY_NULLS__SORTBY_NULLS_LAST)
        return desc ? " DESC NULLS LAST" : " NULLS LAST";
    return desc ? " DESC" : "";
}

/* The output column that ORDER BY 2 names; -1 for an expression. */
static int position(const struct query *q, const Node *n)
{
    if (q->kind == QUERY_SELECT || n->node_case != PG_QUERY__NODE__NODE_A_CONST ||
        n->a_const->val_case != PG_QUERY__A__CONST__VAL_IVAL || n->a_const->ival->ival < 1 ||
        n->a_const->ival->ival > q->n_targets)
        return -1;
    return n->a_const->ival->ival - 1;
}

/* The output column with this expression; DISTINCT sorts by what it shows. */
static int shown(const struct query *q, const struct qexpr *e)
{
    for (int i = 0; q->kind == QUERY_SELECT && i < q->n_targets; i++)
        if (strcmp(q->targets[i].expr->key, e->key) == 0)
            return i;
    return -1;
}

static bool add_sort(struct parser *p, struct query *q, PgQuery__SelectStmt *s)
{
    q->n_sort = (int)s->n_sort_clause;
    q->sort = arena_new_array(p->a, struct qsort, s->n_sort_clause);
    for (int i = 0; i < q->n_sort; i++) {
        PgQuery__SortBy *by = s->sort_clause[i]->sort_by;
        struct qsort *sort = &q->sort[i];

        if (by->n_use_op > 0)
            return parse_refuse(p, REFUSAL_OTHER, "ORDER BY … USING", NULL) != NULL;
        sort->suffix = parse_sort_suffix(by);
        sort->column = position(q, by->node);
        if (sort->column >= 0)
            continue;
        if (q->kind != QUERY_SELECT)
            return parse_refuse(p, REFUSAL_LIMIT, "this ORDER BY", NULL) != NULL;
        if ((sort->expr = parse_expr(p, q, by->node, q->grouped)) == NULL)
            return false;
        sort->column = shown(q, sort->expr);
        if (q->distinct != DISTINCT_ON && sort->column >= 0)
            sort->expr = NULL;
        if (q->distinct == DISTINCT_ROWS && sort->column < 0)
            return parse_refuse(p, REFUSAL_LIMIT, "this ORDER BY", NULL) != NULL;
    }
    return true;
}

/* LIMIT's number, -1 for NULL (ALL); false when it is none. */
static bool constant(const Node *n, long long *value)
{
    const PgQuery__AConst *c;
    char *end;

    while (n->node_case == PG_QUERY__NODE__NODE_TYPE_CAST)
        n = n->type_cast->arg;
    if (n->node_case != PG_QUERY__NODE__NODE_A_CONST)
        return false;
    c = n->a_const;
    *value = -1;
    if (c->isnull)
        return true;
    errno = 0;
    switch ((int)c->val_case) {
    case PG_QUERY__A__CONST__VAL_IVAL:
        *value = c->ival->ival;
        return *value >= 0;
    case PG_QUERY__A__CONST__VAL_FVAL:
        *value = strtoll(c->fval->fval, &end, 10);
        return *end == '\0' && errno == 0 && *value >= 0;
    case PG_QUERY__A__CONST__VAL_SVAL:
        *value = strtoll(c->sval->sval, &end, 10);
        return *c->sval->sval != '\0' && *end == '\0' && errno == 0 && *value >= 0;
    default:
        return false;
    }
}

bool parse_order_and_limit(struct parser *p, struct query *q, PgQuery__SelectStmt *s)
{
    long long limit = -1, offset = 0;

    if ((s->limit_count != NULL && !constant(s->limit_count, &limit)) ||
        (s->limit_offset != NULL && !constant(s->limit_offset, &offset)))
        return parse_refuse(p, REFUSAL_LIMIT, "LIMIT and OFFSET that are no constant numbers",
                            NULL) != NULL;
    if (offset < 0)
        offset = 0; /* OFFSET NULL */
    q->has_limit = limit >= 0 || offset > 0;
    q->limit = limit;
    q->offset = offset;
    q->with_ties = q->has_limit && limit >= 0 &&
                   s->limit_option == PG_QUERY__LIMIT_OPTION__LIMIT_OPTION_WITH_TIES;
    if (q->with_ties && offset > 0)
        return parse_refuse(p, REFUSAL_LIMIT, "OFFSET together with WITH TIES", NULL) != NULL;
    q->dropped_order = s->n_sort_clause > 0 && q->distinct != DISTINCT_ON && !q->has_limit;
    return q->dropped_order || add_sort(p, q, s);
}
