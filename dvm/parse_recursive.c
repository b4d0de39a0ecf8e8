/* WITH RECURSIVE (PostgreSQL's manual, 7.8.2): a query of its own kind, whose right arm reads what
 * the round before has added. */
#include <string.h>

#include "dvm/sql_parse_internal.h"

struct name_search {
    const char *name;
    bool found;
};

static bool look_for_name(void *arg, Node *n)
{
    struct name_search *s = arg;

    if (s->found || n->node_case == PG_QUERY__NODE__NODE__NOT_SET)
        return true;
    if (n->node_case == PG_QUERY__NODE__NODE_RANGE_VAR &&
        (n->range_var->schemaname == NULL || n->range_var->schemaname[0] == '\0') &&
        strcmp(n->range_var->relname, s->name) == 0)
        s->found = true;
    return parse_each_child((ProtobufCMessage *)n->column_ref, look_for_name, s);
}

bool parse_is_recursive(const PgQuery__CommonTableExpr *cte)
{
    struct name_search s = { .name = cte->ctename };

    look_for_name(&s, cte->ctequery);
    return s.found;
}

struct query *parse_recursive(struct parser *p, struct cte_scope *c)
{
    PgQuery__SelectStmt *s = c->cte->ctequery->select_stmt;
    struct cte_scope *scope = c->outer;
    struct cte_scope *self = arena_new(p->a, struct cte_scope);
    struct query *q = arena_new(p->a, struct query);

    if (c->cte->search_clause != NULL || c->cte->cycle_clause != NULL)
        return parse_refuse(p, REFUSAL_RECURSIVE, "WITH RECURSIVE with SEARCH or CYCLE", NULL);
    if (s->op != PG_QUERY__SET_OPERATION__SETOP_UNION || s->n_sort_clause > 0 ||
        s->limit_count != NULL || s->limit_offset != NULL || s->n_locking_clause > 0)
        return parse_refuse(p, REFUSAL_RECURSIVE, "this WITH RECURSIVE", NULL);
    if (s->with_clause != NULL)
        scope = parse_push_ctes(p, s->with_clause, scope);
    q->kind = QUERY_RECURSIVE;
    q->union_distinct = !s->all;
    q->left = parse_query(p, s->larg, scope);
    if (q->left == NULL)
        return NULL;
    q->n_targets = q->left->n_targets;
    q->targets = q->left->targets;
    self->name = c->name;
    self->cte = c->cte;
    self->recursion = q;
    self->outer = scope;
    q->right = parse_query(p, s->rarg, self);
    return q->right != NULL ? q : NULL;
}
