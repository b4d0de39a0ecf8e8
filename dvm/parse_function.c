/* Functions in FROM (PostgreSQL's manual, 7.2.1.4): f(…) AS a(x), ROWS FROM (…), WITH ORDINALITY,
 * and column definition lists of functions that return records. */
#include <string.h>

#include "dvm/sql_parse_internal.h"

bool parse_is_set_returning(const struct parser *p, const PgQuery__FuncCall *f)
{
    const char *name = parse_node_string(f->funcname[f->n_funcname - 1]);

    for (int i = 0; name != NULL && i < p->cat->n_functions; i++)
        if (p->cat->functions[i].returns_set && strcmp(p->cat->functions[i].name, name) == 0)
            return true;
    return false;
}

/* A type as SQL: what NULL::type is written as, without the NULL. */
static const char *type_text(struct parser *p, PgQuery__TypeName *type)
{
    static const char null_cast[] = "NULL::";
    PgQuery__AConst *null = arena_new(p->a, PgQuery__AConst);
    PgQuery__TypeCast *cast = arena_new(p->a, PgQuery__TypeCast);
    Node *constant = arena_new(p->a, Node);
    Node *node = arena_new(p->a, Node);
    const char *text;

    pg_query__a__const__init(null);
    null->isnull = true;
    pg_query__node__init(constant);
    constant->node_case = PG_QUERY__NODE__NODE_A_CONST;
    constant->a_const = null;
    pg_query__type_cast__init(cast);
    cast->arg = constant;
    cast->type_name = type;
    pg_query__node__init(node);
    node->node_case = PG_QUERY__NODE__NODE_TYPE_CAST;
    node->type_cast = cast;
    text = parse_deparse(p, node);
    if (text == NULL || strncmp(text, null_cast, strlen(null_cast)) != 0)
        return parse_refuse(p, REFUSAL_FUNCTION_SOURCE, "this column definition", NULL);
    return text + strlen(null_cast);
}

static bool add_columns(struct parser *p, struct qfunction *f, Node **definitions, size_t n)
{
    if (n == 0)
        return true;
    f->n_columns = (int)n;
    f->names = arena_new_array(p->a, const char *, n);
    f->types = arena_new_array(p->a, const char *, n);
    for (size_t i = 0; i < n; i++) {
        PgQuery__ColumnDef *d = definitions[i]->column_def;

        if (d->coll_clause != NULL)
            return parse_refuse(p, REFUSAL_FUNCTION_SOURCE, "COLLATE in a column definition",
                                NULL) != NULL;
        f->names[i] = d->colname;
        f->types[i] = type_text(p, d->type_name);
        if (f->types[i] == NULL)
            return false;
    }
    return true;
}

/* One element of r->functions: a list of the call and its column definitions. */
static bool add_function(struct parser *p, struct query *q, struct qfunction *f, Node *element)
{
    PgQuery__List *parts = element->list;
    Node *call = parts->items[0];

    if (call->node_case == PG_QUERY__NODE__NODE_FUNC_CALL) {
        const char *name;

        if (parse_is_aggregate(p, call->func_call, &name) || call->func_call->over != NULL)
            return parse_refuse(p, REFUSAL_FUNCTION_SOURCE, "this function in FROM", NULL) != NULL;
        f->returns_set = parse_is_set_returning(p, call->func_call);
    }
    f->call = parse_expr(p, q, call, false);
    if (f->call == NULL)
        return false;
    if (parts->n_items < 2 || parts->items[1]->node_case != PG_QUERY__NODE__NODE_LIST)
        return true;
    return add_columns(p, f, parts->items[1]->list->items, parts->items[1]->list->n_items);
}

struct from_item *parse_range_function(struct parser *p, struct query *q, PgQuery__RangeFunction *r)
{
    struct from_item *item = arena_new(p->a, struct from_item);

    item->kind = FROM_FUNCTION;
    parse_set_alias(p, item, r->alias);
    item->ordinality = r->ordinality;
    item->n_functions = (int)r->n_functions;
    item->functions = arena_new_array(p->a, struct qfunction, r->n_functions);
    for (int i = 0; i < item->n_functions; i++)
        if (!add_function(p, q, &item->functions[i], r->functions[i]))
            return NULL;
    if (r->n_coldeflist > 0) {
        if (item->n_functions != 1 ||
            !add_columns(p, &item->functions[0], r->coldeflist, r->n_coldeflist))
            return NULL;
        item->column_aliases = item->functions[0].names;
        item->n_column_aliases = item->functions[0].n_columns;
    }
    /* Canonical text names every column. */
    if (item->n_column_aliases == 0)
        return parse_refuse(p, REFUSAL_FUNCTION_SOURCE, "this function in FROM", NULL);
    return item;
}
