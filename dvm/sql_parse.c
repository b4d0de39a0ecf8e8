/* See sql_parse.h.
 *
 * libpg_query's protobuf tree is unpacked into the arena, so nodes can be shared,
 * replaced and forgotten. An expression becomes text in three steps: copy the
 * node, punch holes (columns, aggregates, group expressions and time functions become the token
 * __pgth<n>x), write the rest back as SQL. What is written is parsed again
 * and compared with what it came from, locations aside.
 */
#include "dvm/sql_parse.h"

#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "dvm/sql_parse_internal.h"

/* Longer text is not parsed: nesting costs at least six bytes a level in canonical text (two in a
 * user's), and the converter's recursion about two kilobytes of stack (compile.c gives 64 MB). */
#define CANONICAL_MAX ((size_t)128 * 1024)
#define USER_TEXT_MAX ((size_t)48 * 1024)
#define VIEW_DEPTH_MAX 32

/* ---- refusals ----------------------------------------------------------------------------- */

void *parse_refuse(struct parser *p, enum refusal_kind kind, const char *what, const char *name)
{
    if (p->refused->kind == REFUSAL_NONE)
        *p->refused = (struct refusal){ .kind = kind, .what = what, .name = name };
    return NULL;
}

/* ---- libpg_query's tree -------------------------------------------------------------------- */

static void *from_arena(void *a, size_t size)
{
    return arena_alloc(a, size);
}

static void keep(void *a, void *ptr)
{
    (void)a;
    (void)ptr;
}

static PgQuery__ParseResult *parse_text(struct parser *p, const char *sql)
{
    PgQueryProtobufParseResult r = pg_query_parse_protobuf(sql);
    PgQuery__ParseResult *tree = NULL;

    if (r.error == NULL)
        tree = pg_query__parse_result__unpack(&p->allocator, r.parse_tree.len,
                                              (const uint8_t *)r.parse_tree.data);
    pg_query_free_protobuf_parse_result(r);
    return tree;
}

/* Calls visit on each message directly below m that is a Node, or inside one that is not. */
bool parse_each_child(ProtobufCMessage *m, bool (*visit)(void *arg, Node *child), void *arg)
{
    const ProtobufCMessageDescriptor *d = m->descriptor;

    for (unsigned i = 0; i < d->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &d->fields[i];
        char *at = (char *)m + f->offset;
        size_t n = 1;
        ProtobufCMessage **items = (ProtobufCMessage **)(void *)at;

        if (f->type != PROTOBUF_C_TYPE_MESSAGE)
            continue;
        if (f->label == PROTOBUF_C_LABEL_REPEATED) {
            n = *(size_t *)(void *)((char *)m + f->quantifier_offset);
            items = *(ProtobufCMessage ***)(void *)at;
        } else if ((f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0) {
            if (*(uint32_t *)(void *)((char *)m + f->quantifier_offset) != f->id)
                continue;
        }
        for (size_t j = 0; j < n; j++) {
            if (items[j] == NULL)
                continue;
            if (items[j]->descriptor == &pg_query__node__descriptor) {
                if (!visit(arg, (Node *)(void *)items[j]))
                    return false;
            } else if (!parse_each_child(items[j], visit, arg)) {
                return false;
            }
        }
    }
    return true;
}

static void clear_locations(ProtobufCMessage *m)
{
    const ProtobufCMessageDescriptor *d = m->descriptor;

    for (unsigned i = 0; i < d->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &d->fields[i];
        char *at = (char *)m + f->offset;

        if (f->type == PROTOBUF_C_TYPE_INT32 && strcmp(f->name, "location") == 0)
            *(int32_t *)(void *)at = 0;
        if (f->type != PROTOBUF_C_TYPE_MESSAGE)
            continue;
        if (f->label == PROTOBUF_C_LABEL_REPEATED) {
            size_t n = *(size_t *)(void *)((char *)m + f->quantifier_offset);
            ProtobufCMessage **items = *(ProtobufCMessage ***)(void *)at;

            for (size_t j = 0; j < n; j++)
                clear_locations(items[j]);
        } else {
            ProtobufCMessage *item = *(ProtobufCMessage **)(void *)at;

            if ((f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0 &&
                *(uint32_t *)(void *)((char *)m + f->quantifier_offset) != f->id)
                continue;
            if (item != NULL)
                clear_locations(item);
        }
    }
}

static struct str node_bytes(struct parser *p, Node *n)
{
    size_t len = pg_query__node__get_packed_size(n);
    uint8_t *bytes = arena_alloc(p->a, len + 1);

    pg_query__node__pack(n, bytes);
    return (struct str){ (const char *)bytes, len };
}

Node *parse_node_copy(struct parser *p, Node *n)
{
    struct str bytes = node_bytes(p, n);

    return pg_query__node__unpack(&p->allocator, bytes.len, (const uint8_t *)bytes.ptr);
}

const char *parse_node_string(const Node *n)
{
    return n != NULL && n->node_case == PG_QUERY__NODE__NODE_STRING ? n->string->sval : NULL;
}

/* The SQL of one expression; NULL when the deparser can't. */
const char *parse_deparse(struct parser *p, Node *expr)
{
    PgQuery__ResTarget target = PG_QUERY__RES_TARGET__INIT;
    PgQuery__SelectStmt select = PG_QUERY__SELECT_STMT__INIT;
    PgQuery__RawStmt raw = PG_QUERY__RAW_STMT__INIT;
    PgQuery__ParseResult result = PG_QUERY__PARSE_RESULT__INIT;
    Node target_node = PG_QUERY__NODE__INIT;
    Node select_node = PG_QUERY__NODE__INIT;
    Node *targets[] = { &target_node };
    PgQuery__RawStmt *stmts[] = { &raw };
    PgQueryProtobuf packed;
    PgQueryDeparseResult out;
    const char *text = NULL;

    target.val = expr;
    target_node.node_case = PG_QUERY__NODE__NODE_RES_TARGET;
    target_node.res_target = &target;
    select.n_target_list = 1;
    select.target_list = targets;
    select.limit_option = PG_QUERY__LIMIT_OPTION__LIMIT_OPTION_DEFAULT;
    select.op = PG_QUERY__SET_OPERATION__SETOP_NONE;
    select_node.node_case = PG_QUERY__NODE__NODE_SELECT_STMT;
    select_node.select_stmt = &select;
    raw.stmt = &select_node;
    result.n_stmts = 1;
    result.stmts = stmts;
    packed.len = pg_query__parse_result__get_packed_size(&result);
    packed.data = arena_alloc(p->a, packed.len + 1);
    pg_query__parse_result__pack(&result, (uint8_t *)packed.data);
    out = pg_query_deparse_protobuf(packed);
    if (out.error == NULL && strncmp(out.query, "SELECT ", 7) == 0)
        text = arena_strdup(p->a, out.query + 7);
    pg_query_free_deparse_result(out);
    return text;
}

/* Whether text, parsed, is the tree that it was written from. */
bool parse_is_faithful(struct parser *p, Node *expr, const char *text)
{
    PgQuery__ParseResult *again = parse_text(p, arena_printf(p->a, "SELECT %s", text));
    Node *stmt;
    Node *val;

    if (again == NULL || again->n_stmts != 1)
        return false;
    stmt = again->stmts[0]->stmt;
    if (stmt->node_case != PG_QUERY__NODE__NODE_SELECT_STMT ||
        stmt->select_stmt->n_target_list != 1 || stmt->select_stmt->n_from_clause != 0)
        return false;
    val = stmt->select_stmt->target_list[0]->res_target->val;
    if (stmt->select_stmt->target_list[0]->res_target->name != NULL &&
        stmt->select_stmt->target_list[0]->res_target->name[0] != '\0')
        return false;
    clear_locations(&val->base);
    clear_locations(&expr->base);
    return str_equal(node_bytes(p, val), node_bytes(p, expr));
}

/* ---- expressions --------------------------------------------------------------------------- */

PgQuery__ColumnRef *parse_column_ref(struct parser *p, const char *name)
{
    PgQuery__ColumnRef *ref = arena_new(p->a, PgQuery__ColumnRef);
    PgQuery__String *string = arena_new(p->a, PgQuery__String);
    Node *field = arena_new(p->a, Node);

    pg_query__string__init(string);
    pg_query__node__init(field);
    pg_query__column_ref__init(ref);
    string->sval = arena_strdup(p->a, name);
    field->node_case = PG_QUERY__NODE__NODE_STRING;
    field->string = string;
    ref->n_fields = 1;
    ref->fields = arena_new_array(p->a, Node *, 1);
    ref->fields[0] = field;
    return ref;
}

void parse_punch_hole(struct punch *c, Node *node, struct hole hole)
{
    PgQuery__ColumnRef *ref;

    if (c->out->n_holes == c->capacity) {
        struct hole *more = arena_new_array(c->p->a, struct hole, (size_t)c->capacity * 2 + 4);

        if (c->out->n_holes > 0)
            memcpy(more, c->out->holes, sizeof(hole) * (size_t)c->out->n_holes);
        c->out->holes = more;
        c->capacity = c->capacity * 2 + 4;
    }
    ref = parse_column_ref(c->p, arena_printf(c->p->a, "__pgth%dx", c->out->n_holes));
    node->node_case = PG_QUERY__NODE__NODE_COLUMN_REF;
    node->column_ref = ref;
    c->out->holes[c->out->n_holes++] = hole;
}

const char *parse_quoted(struct parser *p, const char *name)
{
    const char *quoted;
    struct text t;

    text_init(&t);
    text_put_ident(&t, name);
    quoted = arena_strdup(p->a, t.ptr);
    text_free(&t);
    return quoted;
}

bool parse_group_by(struct parser *p, struct query *q, const char *qualifier, const char *name)
{
    Node *node = arena_new(p->a, Node);
    struct qexpr *column;

    pg_query__node__init(node);
    node->node_case = PG_QUERY__NODE__NODE_COLUMN_REF;
    node->column_ref = parse_column_ref(p, name);
    if (qualifier != NULL) {
        Node **fields = arena_new_array(p->a, Node *, 2);

        fields[0] = parse_column_ref(p, qualifier)->fields[0];
        fields[1] = node->column_ref->fields[0];
        node->column_ref->fields = fields;
        node->column_ref->n_fields = 2;
    }
    column = parse_expr(p, q, node, false);
    for (int i = 0; column != NULL && i < q->n_groups; i++)
        if (q->groups[i].key != NULL && strcmp(q->groups[i].key, column->key) == 0)
            return true;
    if (column != NULL)
        parse_add_group(p, q, (struct qgroup){ .expr = column, .key = column->key });
    return column != NULL;
}

static bool punch_column(struct punch *c, Node *node)
{
    PgQuery__ColumnRef *ref = node->column_ref;
    struct hole hole = { .kind = HOLE_COLUMN };
    const char *parts[3] = { NULL, NULL, NULL };
    bool is_sublink, ok = parse_punch_sublink(c, node, &is_sublink);

    if (is_sublink)
        return ok;
    if (ref->n_fields < 1 || ref->n_fields > 3)
        return parse_refuse(c->p, REFUSAL_OTHER, "this column reference", NULL) != NULL;
    for (size_t i = 0; i < ref->n_fields; i++) {
        parts[3 - ref->n_fields + i] = parse_node_string(ref->fields[i]);
        if (parse_node_string(ref->fields[i]) == NULL)
            return parse_refuse(c->p, REFUSAL_OTHER, "whole-row references", NULL) != NULL;
    }
    hole.schema = parts[0];
    hole.qualifier = parts[1];
    hole.name = parts[2];
    if (parse_is_outer(c->p, c->query, &hole)) {
        parse_note_outer(c->p, &hole);
    } else if (c->grouped) {
        /* A column that GROUP BY's key determines (grouped by a primary key): adding it to the
         * key leaves the groups as they are. */
        Node *copy = parse_node_copy(c->p, node);
        struct qexpr *column = parse_expr(c->p, c->query, copy, false);

        if (column == NULL)
            return false;
        hole = (struct hole){ .kind = HOLE_GROUP,
                              .index = parse_add_group(
                                  c->p, c->query,
                                  (struct qgroup){ .expr = column, .key = column->key }) };
    }
    parse_punch_hole(c, node, hole);
    return true;
}

/* CASE x WHEN, NULLIF, IS DISTINCT FROM and USING don't say whose = they mean: canonical text read
 * with another search path would take another. */
static bool equality_is_certain(const struct catalog *cat)
{
    for (int i = 0; i < cat->n_functions; i++)
        if (cat->functions[i].is_operator && !cat->functions[i].builtin)
            return false;
    return true;
}

static bool means_equality(const Node *node)
{
    switch ((int)node->node_case) {
    case PG_QUERY__NODE__NODE_CASE_EXPR:
        return node->case_expr->arg != NULL;
    case PG_QUERY__NODE__NODE_A_EXPR:
        return node->a_expr->kind == PG_QUERY__A__EXPR__KIND__AEXPR_DISTINCT ||
               node->a_expr->kind == PG_QUERY__A__EXPR__KIND__AEXPR_NOT_DISTINCT ||
               node->a_expr->kind == PG_QUERY__A__EXPR__KIND__AEXPR_NULLIF;
    default:
        return false;
    }
}

static bool find_equality(void *arg, Node *node)
{
    bool *found = arg;

    if (node->node_case == PG_QUERY__NODE__NODE__NOT_SET)
        return true;
    *found =
        *found || means_equality(node) ||
        (node->node_case == PG_QUERY__NODE__NODE_JOIN_EXPR && node->join_expr->n_using_clause > 0);
    return *found || parse_each_child((ProtobufCMessage *)node->column_ref, find_equality, found);
}

#define UNCERTAIN_EQUALITY                                                                         \
    "CASE x WHEN, NULLIF, IS DISTINCT FROM or USING with operators of an extension"

static bool has_column(void *arg, Node *node)
{
    bool *found = arg;

    if (node->node_case == PG_QUERY__NODE__NODE_COLUMN_REF)
        *found = true;
    return *found || node->node_case == PG_QUERY__NODE__NODE__NOT_SET ||
           parse_each_child((ProtobufCMessage *)node->column_ref, has_column, found);
}

/* 'now'::text::date and its like: a constant in disguise, whose value is the time at which it is
 * evaluated. What the catalog calls a conversion by output and input has no function to judge. */
static bool reads_clock(const PgQuery__TypeCast *cast)
{
    static const char *const clocks[] = {
        "date", "time", "timetz", "timestamp", "timestamptz", NULL
    };
    const PgQuery__TypeName *type = cast->type_name;
    const char *name = type->n_names > 0 ? parse_node_string(type->names[type->n_names - 1]) : NULL;
    bool columns = false;

    if (name == NULL || cast->arg->node_case == PG_QUERY__NODE__NODE_A_CONST)
        return false;
    /* A time already, whose own cast is looked at by itself. */
    if (cast->arg->node_case == PG_QUERY__NODE__NODE_TYPE_CAST) {
        const PgQuery__TypeName *from = cast->arg->type_cast->type_name;
        const char *inner =
            from->n_names > 0 ? parse_node_string(from->names[from->n_names - 1]) : NULL;

        for (int i = 0; inner != NULL && clocks[i] != NULL; i++)
            if (strcmp(inner, clocks[i]) == 0)
                return false;
    }
    for (int i = 0; clocks[i] != NULL; i++) {
        if (strcmp(name, clocks[i]) != 0)
            continue;
        has_column(&columns, cast->arg);
        return !columns && !parse_is_moment(cast->arg);
    }
    return false;
}

/* regclass and its kin: as text they depend on what else the database has. */
static bool names_objects(const PgQuery__TypeCast *cast)
{
    const PgQuery__TypeName *type = cast->type_name;
    const char *name = type->n_names > 0 ? parse_node_string(type->names[type->n_names - 1]) : NULL;

    return name != NULL && strncmp(name, "reg", 3) == 0;
}

static bool punch_time(struct punch *c, Node *node, const char *type)
{
    c->out->uses_time = true;
    parse_punch_hole(c, node, (struct hole){ .kind = HOLE_TIME, .name = type });
    return true;
}

bool parse_punch_children(struct punch *c, Node *node)
{
    /* The union's members are all pointers to messages. */
    return parse_each_child((ProtobufCMessage *)node->column_ref, parse_punch_node, c);
}

bool parse_punch_node(void *arg, Node *node)
{
    struct punch *c = arg;
    const char *name;

    if (c->grouped && c->query->n_groups > 0 && node->node_case != PG_QUERY__NODE__NODE_A_CONST &&
        node->node_case != PG_QUERY__NODE__NODE_STRING) {
        const char *key = parse_deparse(c->p, node);

        for (int i = 0; key != NULL && i < c->query->n_groups; i++) {
            if (c->query->groups[i].key != NULL && strcmp(c->query->groups[i].key, key) == 0) {
                parse_punch_hole(c, node, (struct hole){ .kind = HOLE_GROUP, .index = i });
                return true;
            }
        }
    }
    if (means_equality(node) && !equality_is_certain(c->p->cat))
        return parse_refuse(c->p, REFUSAL_OTHER, UNCERTAIN_EQUALITY, NULL) != NULL;
    switch ((int)node->node_case) {
    case PG_QUERY__NODE__NODE_COLUMN_REF:
        return punch_column(c, node);
    case PG_QUERY__NODE__NODE_TYPE_CAST:
        if (reads_clock(node->type_cast))
            return parse_refuse(c->p, REFUSAL_OTHER, "a text that is read as a date or time",
                                NULL) != NULL;
        if (names_objects(node->type_cast))
            return parse_refuse(c->p, REFUSAL_OTHER, "names of database objects", NULL) != NULL;
        return parse_punch_children(c, node);
    case PG_QUERY__NODE__NODE_FUNC_CALL:
        if (node->func_call->over != NULL)
            return parse_window(c, node);
        if (parse_is_aggregate(c->p, node->func_call, &name)) {
            if (parse_aggregate_is_outer(c->p, c->query, node->func_call))
                return parse_refuse(c->p, REFUSAL_AGGREGATE,
                                    "an aggregate of the query around a subquery, inside of it",
                                    name) != NULL;
            if (!c->grouped)
                return parse_refuse(c->p, REFUSAL_AGGREGATE, "nested aggregates", name) != NULL;
            return parse_add_aggregate(c, node, name);
        }
        if (node->func_call->n_agg_order > 0 || node->func_call->agg_filter != NULL ||
            node->func_call->agg_within_group || node->func_call->agg_star)
            return parse_refuse(c->p, REFUSAL_AGGREGATE, "this aggregate", name) != NULL;
        c->out->returns_set = c->out->returns_set || parse_is_set_returning(c->p, node->func_call);
        if (parse_time_function(node->func_call) != NULL)
            return punch_time(c, node, parse_time_function(node->func_call));
        return parse_punch_children(c, node);
    case PG_QUERY__NODE__NODE_SQLVALUE_FUNCTION:
        if (parse_time_value(node->sqlvalue_function) == NULL)
            return parse_refuse(c->p, REFUSAL_FUNCTION, "an expression that depends on the session",
                                NULL) != NULL;
        return punch_time(c, node, parse_time_value(node->sqlvalue_function));
    case PG_QUERY__NODE__NODE_GROUPING_FUNC:
        return parse_grouping_call(c, node);
    case PG_QUERY__NODE__NODE_A_CONST:
    case PG_QUERY__NODE__NODE_STRING:
    case PG_QUERY__NODE__NODE_INTEGER:
        return true;
    case PG_QUERY__NODE__NODE_A_EXPR:
    case PG_QUERY__NODE__NODE_BOOL_EXPR:
    case PG_QUERY__NODE__NODE_NULL_TEST:
    case PG_QUERY__NODE__NODE_BOOLEAN_TEST:
    case PG_QUERY__NODE__NODE_TYPE_NAME:
    case PG_QUERY__NODE__NODE_CASE_EXPR:
    case PG_QUERY__NODE__NODE_CASE_WHEN:
    case PG_QUERY__NODE__NODE_COALESCE_EXPR:
    case PG_QUERY__NODE__NODE_MIN_MAX_EXPR:
    case PG_QUERY__NODE__NODE_A_ARRAY_EXPR:
    case PG_QUERY__NODE__NODE_ROW_EXPR:
    case PG_QUERY__NODE__NODE_COLLATE_CLAUSE:
    case PG_QUERY__NODE__NODE_A_INDIRECTION:
    case PG_QUERY__NODE__NODE_A_INDICES:
    case PG_QUERY__NODE__NODE_LIST:
    case PG_QUERY__NODE__NODE_NAMED_ARG_EXPR:
        return parse_punch_children(c, node);
    default:
        return parse_refuse(c->p, REFUSAL_OTHER, "this kind of expression", NULL) != NULL;
    }
}

/* The expression as text with holes; NULL when refused. node is left as it was. */
struct qexpr *parse_expr(struct parser *p, struct query *q, Node *node, bool grouped)
{
    Node *dated = parse_node_copy(p, node);
    Node *copy;
    struct punch c = { .p = p, .query = q, .grouped = grouped };

    parse_write_age(p, dated);
    copy = parse_node_copy(p, dated);
    c.out = arena_new(p->a, struct qexpr);
    if (!parse_lift_sublinks(p, q, copy, grouped))
        return NULL;
    c.out->key = parse_deparse(p, copy);
    if (c.out->key == NULL || !parse_is_faithful(p, copy, c.out->key))
        return parse_refuse(p, REFUSAL_OTHER,
                            "this expression (it can't be written back faithfully)", NULL);
    if (!parse_punch_node(&c, copy))
        return NULL;
    c.out->text = parse_deparse(p, copy);
    if (c.out->text == NULL || !parse_is_faithful(p, copy, c.out->text))
        return parse_refuse(p, REFUSAL_OTHER,
                            "this expression (it can't be written back faithfully)", NULL);
    if (node->node_case == PG_QUERY__NODE__NODE_BOOL_EXPR &&
        node->bool_expr->boolop == PG_QUERY__BOOL_EXPR_TYPE__AND_EXPR) {
        c.out->n_conjuncts = (int)node->bool_expr->n_args;
        c.out->conjuncts = arena_new_array(p->a, struct qexpr *, node->bool_expr->n_args);
        for (int i = 0; i < c.out->n_conjuncts; i++) {
            c.out->conjuncts[i] = parse_expr(p, q, node->bool_expr->args[i], grouped);
            if (c.out->conjuncts[i] == NULL)
                return NULL;
        }
    } else if (!parse_note_terms(p, q, dated, grouped, c.out)) {
        return NULL;
    }
    return c.out;
}

/* ---- FROM ---------------------------------------------------------------------------------- */

const char **parse_strings(struct parser *p, Node **nodes, size_t n)
{
    const char **out = arena_new_array(p->a, const char *, n);

    for (size_t i = 0; i < n; i++)
        out[i] = parse_node_string(nodes[i]);
    return out;
}

void parse_set_alias(struct parser *p, struct from_item *item, PgQuery__Alias *alias)
{
    if (alias == NULL)
        return;
    item->alias = alias->aliasname;
    item->n_column_aliases = (int)alias->n_colnames;
    item->column_aliases = parse_strings(p, alias->colnames, alias->n_colnames);
}

static const struct cat_table *find_table(const struct catalog *cat, const char *schema,
                                          const char *name)
{
    for (int i = 0; i < cat->n_tables; i++)
        if (strcmp(cat->tables[i].name, name) == 0 && schema != NULL &&
            strcmp(cat->tables[i].schema, schema) == 0)
            return &cat->tables[i];
    /* pg_catalog's names come without a schema */
    for (int i = 0; schema == NULL && i < cat->n_tables; i++)
        if (strcmp(cat->tables[i].name, name) == 0 && cat->tables[i].is_system)
            return &cat->tables[i];
    return NULL;
}

static struct query *parse_select(struct parser *p, const char *sql)
{
    PgQuery__ParseResult *tree;

    if (strlen(sql) > CANONICAL_MAX)
        return parse_refuse(p, REFUSAL_OTHER, "a definition of this length", NULL);
    if (strstr(sql, "__pgth") != NULL)
        return parse_refuse(p, REFUSAL_OTHER, "names that contain __pgth", NULL);
    tree = parse_text(p, sql);
    if (tree == NULL || tree->n_stmts != 1 ||
        tree->stmts[0]->stmt->node_case != PG_QUERY__NODE__NODE_SELECT_STMT)
        return parse_refuse(p, REFUSAL_SYNTAX, "syntax newer than PostgreSQL 15's", NULL);
    return parse_query(p, tree->stmts[0]->stmt->select_stmt, NULL);
}

static struct from_item *view_item(struct parser *p, const struct cat_table *view,
                                   PgQuery__Alias *alias)
{
    struct from_item *item = arena_new(p->a, struct from_item);
    const struct outer_column *outer_columns = p->outer_columns;
    struct query *q;
    int n_written, sub_depth = p->sub_depth;

    if (p->view_depth >= VIEW_DEPTH_MAX)
        return parse_refuse(p, REFUSAL_OTHER, "views nested this deep", NULL);
    p->view_depth++;
    p->sub_depth = 0; /* a view sees nothing of what is around it */
    q = parse_select(p, view->view_definition);
    p->view_depth--;
    p->sub_depth = sub_depth;
    p->outer_columns = outer_columns;
    if (q == NULL)
        return NULL;
    item->kind = FROM_SUBQUERY;
    item->subquery = q;
    item->alias = view->name;
    parse_set_alias(p, item, alias);
    /* The view's column names, then the written ones over them. */
    n_written = item->n_column_aliases;
    if (n_written < view->n_columns) {
        const char **names = arena_new_array(p->a, const char *, (size_t)view->n_columns);

        for (int i = 0; i < view->n_columns; i++)
            names[i] = i < n_written ? item->column_aliases[i] : view->columns[i].name;
        item->column_aliases = names;
        item->n_column_aliases = view->n_columns;
    }
    return item;
}

static struct from_item *range_var(struct parser *p, PgQuery__RangeVar *r, struct cte_scope *ctes)
{
    struct from_item *item;
    const struct cat_table *table;
    bool qualified = r->schemaname != NULL && r->schemaname[0] != '\0';

    for (struct cte_scope *c = ctes; !qualified && c != NULL; c = c->outer) {
        if (strcmp(c->name, r->relname) != 0)
            continue;
        if (c->cte->ctequery->node_case != PG_QUERY__NODE__NODE_SELECT_STMT)
            return parse_refuse(p, REFUSAL_OTHER, "a data-modifying WITH", NULL);
        item = arena_new(p->a, struct from_item);
        item->kind = FROM_SUBQUERY;
        item->alias = r->relname;
        item->n_column_aliases = (int)c->cte->n_aliascolnames;
        item->column_aliases = parse_strings(p, c->cte->aliascolnames, c->cte->n_aliascolnames);
        parse_set_alias(p, item, r->alias);
        if (r->alias != NULL && r->alias->n_colnames == 0 && c->cte->n_aliascolnames > 0) {
            item->n_column_aliases = (int)c->cte->n_aliascolnames;
            item->column_aliases = parse_strings(p, c->cte->aliascolnames, c->cte->n_aliascolnames);
        }
        if (c->recursion != NULL) {
            item->kind = FROM_SELF;
            item->subquery = c->recursion;
            return item;
        }
        item->subquery = c->may_recurse ? parse_recursive(p, c)
                                        : parse_query(p, c->cte->ctequery->select_stmt, c->outer);
        return item->subquery != NULL ? item : NULL;
    }
    table = find_table(p->cat, qualified ? r->schemaname : NULL, r->relname);
    if (table == NULL)
        return parse_refuse(p, REFUSAL_TABLE, arena_printf(p->a, "the source %s", r->relname),
                            r->relname);
    if (table->relkind == 'v')
        return view_item(p, table, r->alias);
    item = arena_new(p->a, struct from_item);
    item->kind = FROM_TABLE;
    item->only = !r->inh;
    item->schema = table->schema;
    item->name = table->name;
    item->alias = table->name;
    parse_set_alias(p, item, r->alias);
    return item;
}

static struct from_item *join_expr(struct parser *p, struct query *q, PgQuery__JoinExpr *j,
                                   struct cte_scope *ctes)
{
    struct from_item *item = arena_new(p->a, struct from_item);

    item->kind = FROM_JOIN;
    switch ((int)j->jointype) {
    case PG_QUERY__JOIN_TYPE__JOIN_INNER:
        item->join = JOIN_INNER;
        break;
    case PG_QUERY__JOIN_TYPE__JOIN_LEFT:
        item->join = JOIN_LEFT;
        break;
    case PG_QUERY__JOIN_TYPE__JOIN_RIGHT:
        item->join = JOIN_RIGHT;
        break;
    case PG_QUERY__JOIN_TYPE__JOIN_FULL:
        item->join = JOIN_FULL;
        break;
    default:
        return parse_refuse(p, REFUSAL_OTHER, "this kind of join", NULL);
    }
    if (j->alias != NULL || j->join_using_alias != NULL || j->is_natural)
        return parse_refuse(p, REFUSAL_OTHER, "a join with an alias of its own", NULL);
    item->left = parse_from(p, q, j->larg, ctes);
    item->right = item->left != NULL ? parse_from(p, q, j->rarg, ctes) : NULL;
    if (item->right == NULL)
        return NULL;
    item->n_using = (int)j->n_using_clause;
    if (item->n_using > 0 && !equality_is_certain(p->cat))
        return parse_refuse(p, REFUSAL_OTHER, UNCERTAIN_EQUALITY, NULL);
    item->using_columns = parse_strings(p, j->using_clause, j->n_using_clause);
    if (j->quals != NULL && (item->on = parse_expr(p, q, j->quals, false)) == NULL)
        return NULL;
    return item;
}

struct from_item *parse_from(struct parser *p, struct query *q, Node *n, struct cte_scope *ctes)
{
    struct from_item *item;
    PgQuery__RangeSubselect *sub;

    switch ((int)n->node_case) {
    case PG_QUERY__NODE__NODE_RANGE_VAR:
        return range_var(p, n->range_var, ctes);
    case PG_QUERY__NODE__NODE_RANGE_SUBSELECT:
        sub = n->range_subselect;
        item = arena_new(p->a, struct from_item);
        item->kind = FROM_SUBQUERY;
        parse_set_alias(p, item, sub->alias);
        item->lateral = sub->lateral;
        p->sub_depth += item->lateral;
        item->subquery = parse_query(p, sub->subquery->select_stmt, ctes);
        p->sub_depth -= item->lateral;
        return item->subquery != NULL ? item : NULL;
    case PG_QUERY__NODE__NODE_JOIN_EXPR:
        return join_expr(p, q, n->join_expr, ctes);
    case PG_QUERY__NODE__NODE_RANGE_FUNCTION:
        return parse_range_function(p, q, n->range_function);
    case PG_QUERY__NODE__NODE_RANGE_TABLE_FUNC:
        return parse_refuse(p, REFUSAL_FUNCTION_SOURCE, "XMLTABLE", NULL);
    case PG_QUERY__NODE__NODE_RANGE_TABLE_SAMPLE:
        return parse_refuse(p, REFUSAL_TABLESAMPLE, "TABLESAMPLE", NULL);
    default:
        return parse_refuse(p, REFUSAL_OTHER, "this kind of source", NULL);
    }
}

/* ---- SELECT -------------------------------------------------------------------------------- */

struct cte_scope *parse_push_ctes(struct parser *p, PgQuery__WithClause *with,
                                  struct cte_scope *outer)
{
    struct cte_scope *scope = outer;

    for (size_t i = 0; i < with->n_ctes; i++) {
        struct cte_scope *c = arena_new(p->a, struct cte_scope);

        c->cte = with->ctes[i]->common_table_expr;
        c->name = c->cte->ctename;
        c->may_recurse = with->recursive && parse_is_recursive(c->cte);
        c->outer = scope;
        scope = c;
    }
    return scope;
}

static bool add_distinct(struct parser *p, struct query *q, PgQuery__SelectStmt *s)
{
    if (s->n_distinct_clause == 0)
        return true;
    /* Plain DISTINCT is a list with one empty node. */
    if (s->n_distinct_clause == 1 &&
        s->distinct_clause[0]->node_case == PG_QUERY__NODE__NODE__NOT_SET) {
        q->distinct = DISTINCT_ROWS;
        return true;
    }
    q->distinct = DISTINCT_ON;
    q->n_distinct_on = (int)s->n_distinct_clause;
    q->distinct_on = arena_new_array(p->a, struct qexpr *, s->n_distinct_clause);
    for (int i = 0; i < q->n_distinct_on; i++) {
        q->distinct_on[i] = parse_expr(p, q, s->distinct_clause[i], q->grouped);
        if (q->distinct_on[i] == NULL)
            return false;
    }
    return true;
}

static bool add_targets(struct parser *p, struct query *q, PgQuery__SelectStmt *s)
{
    q->n_targets = (int)s->n_target_list;
    q->targets = arena_new_array(p->a, struct qtarget, s->n_target_list);
    for (int i = 0; i < q->n_targets; i++) {
        PgQuery__ResTarget *t = s->target_list[i]->res_target;
        struct qtarget *out = &q->targets[i];

        out->expr = parse_expr(p, q, t->val, q->grouped);
        if (out->expr == NULL)
            return false;
        if (t->name != NULL && t->name[0] != '\0')
            out->name = t->name;
        else if (t->val->node_case == PG_QUERY__NODE__NODE_COLUMN_REF)
            out->name =
                parse_node_string(t->val->column_ref->fields[t->val->column_ref->n_fields - 1]);
        else
            out->name = "?column?";
    }
    return true;
}

struct query *parse_query(struct parser *p, PgQuery__SelectStmt *s, struct cte_scope *ctes)
{
    struct query *q;

    if (s->with_clause != NULL)
        ctes = parse_push_ctes(p, s->with_clause, ctes);
    if (s->n_locking_clause > 0)
        return parse_refuse(p, REFUSAL_LOCKING, "FOR UPDATE and FOR SHARE", NULL);
    if (s->into_clause != NULL)
        return parse_refuse(p, REFUSAL_OTHER, "SELECT INTO", NULL);
    if (s->op != PG_QUERY__SET_OPERATION__SETOP_NONE) {
        q = parse_set_operation(p, s, ctes);
        return q != NULL && parse_order_and_limit(p, q, s) ? q : NULL;
    }
    if (s->n_values_lists > 0) {
        q = parse_values(p, s);
        return q != NULL && parse_order_and_limit(p, q, s) ? q : NULL;
    }
    if (!parse_name_windows(p, s))
        return NULL;
    q = arena_new(p->a, struct query);
    q->ctes = ctes;
    q->from = arena_new_array(p->a, struct from_item *, s->n_from_clause);
    for (size_t i = 0; i < s->n_from_clause; i++) {
        q->from[i] = parse_from(p, q, s->from_clause[i], ctes);
        if (q->from[i] == NULL)
            return NULL;
        q->n_from++;
    }
    if (s->where_clause != NULL && (q->where = parse_expr(p, q, s->where_clause, false)) == NULL)
        return NULL;
    q->grouped = s->n_group_clause > 0 || s->having_clause != NULL ||
                 parse_has_aggregate(p, s->target_list, s->n_target_list);
    if (!parse_groups(p, q, s) || !add_targets(p, q, s))
        return NULL;
    if (s->having_clause != NULL && (q->having = parse_expr(p, q, s->having_clause, true)) == NULL)
        return NULL;
    if (!add_distinct(p, q, s) || !parse_order_and_limit(p, q, s))
        return NULL;
    if (q->n_sets > 0)
        parse_add_group(p, q, (struct qgroup){ .kind = GROUP_SET });
    return q;
}

static void parser_init(struct parser *p, struct arena *a, const struct catalog *cat,
                        struct refusal *refused)
{
    *p = (struct parser){ .a = a, .cat = cat, .refused = refused };
    p->allocator = (ProtobufCAllocator){ from_arena, keep, a };
}

struct query *sql_parse(struct arena *a, const struct catalog *cat, const char *canonical,
                        struct refusal *refused)
{
    struct parser p;
    struct query *q;

    *refused = (struct refusal){ 0 };
    parser_init(&p, a, cat, refused);
    q = parse_select(&p, canonical);
    if (q == NULL)
        return NULL;
    /* analyze.c wrapped the definition: SELECT q.c1, … FROM (definition) q(c1, …). */
    if (q->kind != QUERY_SELECT || q->n_from != 1 || q->from[0]->kind != FROM_SUBQUERY)
        return parse_refuse(&p, REFUSAL_OTHER, "this query", NULL);
    return q->from[0]->subquery;
}

bool sql_equality_is_certain(struct arena *a, const struct catalog *cat, const char *canonical,
                             struct refusal *refused)
{
    struct parser p;
    PgQuery__ParseResult *tree;
    bool found = false;

    *refused = (struct refusal){ 0 };
    parser_init(&p, a, cat, refused);
    if (equality_is_certain(cat))
        return true;
    tree = strlen(canonical) <= CANONICAL_MAX ? parse_text(&p, canonical) : NULL;
    for (size_t i = 0; tree != NULL && i < tree->n_stmts; i++)
        find_equality(&found, tree->stmts[i]->stmt);
    if (tree != NULL && !found)
        return true;
    parse_refuse(&p, REFUSAL_OTHER, UNCERTAIN_EQUALITY, NULL);
    refused->hint = "Write x = y in its place, as in CASE WHEN x = y THEN … and JOIN … ON.";
    return false;
}

/* ---- the user's own text ------------------------------------------------------------------- */

struct locator {
    const struct refusal *refused;
    int at; /* bytes; -1: not found yet */
};

static void found(struct locator *l, int location)
{
    if (l->at < 0 && location >= 0)
        l->at = location;
}

static bool name_is(const Node *n, const char *name)
{
    return name == NULL ||
           (parse_node_string(n) != NULL && strcmp(parse_node_string(n), name) == 0);
}

static int any_location(Node *n);

static bool keep_first(void *arg, Node *n)
{
    int *at = arg;
    int here = any_location(n);

    if (here >= 0 && (*at < 0 || here < *at))
        *at = here;
    return true;
}

/* The leftmost location below n. */
static int any_location(Node *n)
{
    int at = -1;
    ProtobufCMessage *m = (ProtobufCMessage *)n->column_ref;

    if (n->node_case == PG_QUERY__NODE__NODE__NOT_SET)
        return -1;
    for (unsigned i = 0; i < m->descriptor->n_fields; i++)
        if (strcmp(m->descriptor->fields[i].name, "location") == 0)
            at = *(int32_t *)(void *)((char *)m + m->descriptor->fields[i].offset);
    parse_each_child(m, keep_first, &at);
    return at;
}

static void locate_in_select(struct locator *l, PgQuery__SelectStmt *s)
{
    enum refusal_kind kind = l->refused->kind;

    if (kind == REFUSAL_LIMIT && s->limit_count != NULL)
        found(l, any_location(s->limit_count));
    if (kind == REFUSAL_LIMIT && s->limit_offset != NULL)
        found(l, any_location(s->limit_offset));
    if (kind == REFUSAL_RECURSIVE && s->with_clause != NULL && s->with_clause->recursive)
        found(l, s->with_clause->location);
    if (kind == REFUSAL_SET_OPERATION && s->op != PG_QUERY__SET_OPERATION__SETOP_NONE &&
        s->op != PG_QUERY__SET_OPERATION__SETOP_UNION && s->rarg->n_target_list > 0)
        found(l, any_location(s->rarg->target_list[0]));
    if (kind == REFUSAL_VALUES && s->n_values_lists > 0)
        found(l, any_location(s->values_lists[0]));
}

static bool locate_node(void *arg, Node *n)
{
    struct locator *l = arg;
    const struct refusal *r = l->refused;

    switch ((int)n->node_case) {
    case PG_QUERY__NODE__NODE__NOT_SET:
        return true;
    case PG_QUERY__NODE__NODE_FUNC_CALL:
        if ((r->kind == REFUSAL_WINDOW && n->func_call->over != NULL) ||
            ((r->kind == REFUSAL_AGGREGATE || r->kind == REFUSAL_FUNCTION) && r->name != NULL &&
             name_is(n->func_call->funcname[n->func_call->n_funcname - 1], r->name)))
            found(l, n->func_call->location);
        if (r->kind == REFUSAL_TIME && parse_time_function(n->func_call) != NULL)
            found(l, n->func_call->location);
        break;
    case PG_QUERY__NODE__NODE_SQLVALUE_FUNCTION:
        if (r->kind == REFUSAL_TIME || (r->kind == REFUSAL_FUNCTION && r->name == NULL))
            found(l, n->sqlvalue_function->location);
        break;
    case PG_QUERY__NODE__NODE_SUB_LINK:
        if (r->kind == REFUSAL_SUBLINK)
            found(l, n->sub_link->location);
        break;
    case PG_QUERY__NODE__NODE_GROUPING_SET:
        if (r->kind == REFUSAL_GROUPING_SETS)
            found(l, n->grouping_set->location);
        break;
    case PG_QUERY__NODE__NODE_RANGE_VAR:
        if (r->kind == REFUSAL_TABLE && r->name != NULL &&
            strcmp(n->range_var->relname, r->name) == 0)
            found(l, n->range_var->location);
        break;
    case PG_QUERY__NODE__NODE_RANGE_TABLE_FUNC:
        if (r->kind == REFUSAL_FUNCTION_SOURCE)
            found(l, any_location(n));
        break;
    case PG_QUERY__NODE__NODE_RANGE_TABLE_SAMPLE:
        if (r->kind == REFUSAL_TABLESAMPLE)
            found(l, n->range_table_sample->location);
        break;
    case PG_QUERY__NODE__NODE_RANGE_SUBSELECT:
        if (r->kind == REFUSAL_LATERAL && n->range_subselect->lateral)
            found(l, any_location(n));
        break;
    case PG_QUERY__NODE__NODE_SELECT_STMT:
        locate_in_select(l, n->select_stmt);
        break;
    default:
        break;
    }
    return parse_each_child((ProtobufCMessage *)n->column_ref, locate_node, l);
}

int sql_locate(const char *user_query, const struct refusal *refused)
{
    struct arena a;
    struct parser p;
    struct refusal none = { 0 };
    struct locator l = { .refused = refused, .at = -1 };
    PgQuery__ParseResult *tree;
    int characters = 0;

    if (strlen(user_query) > USER_TEXT_MAX)
        return 0;
    arena_init(&a);
    parser_init(&p, &a, NULL, &none);
    tree = parse_text(&p, user_query);
    if (tree != NULL)
        for (size_t i = 0; i < tree->n_stmts; i++)
            locate_node(&l, tree->stmts[i]->stmt);
    arena_free(&a);
    if (l.at < 0)
        return 0;
    for (int i = 0; i < l.at && user_query[i] != '\0'; i++)
        characters += ((unsigned char)user_query[i] & 0xC0) != 0x80;
    return characters + 1;
}

bool sql_is_select(const char *user_query, bool *parsed)
{
    struct arena a;
    struct parser p;
    struct refusal none = { 0 };
    PgQuery__ParseResult *tree = NULL;
    bool is_select;

    arena_init(&a);
    parser_init(&p, &a, NULL, &none);
    if (strlen(user_query) <= USER_TEXT_MAX)
        tree = parse_text(&p, user_query);
    *parsed = tree != NULL;
    is_select = tree != NULL && tree->n_stmts == 1 &&
                tree->stmts[0]->stmt->node_case == PG_QUERY__NODE__NODE_SELECT_STMT &&
                tree->stmts[0]->stmt->select_stmt->into_clause == NULL;
    arena_free(&a);
    return is_select;
}

bool sql_statement_extent(const char *user_query, size_t *start, size_t *len)
{
    struct arena a;
    struct parser p;
    struct refusal none = { 0 };
    PgQuery__ParseResult *tree = NULL;
    size_t all = strlen(user_query);
    bool found_one;

    arena_init(&a);
    parser_init(&p, &a, NULL, &none);
    if (all <= USER_TEXT_MAX)
        tree = parse_text(&p, user_query);
    found_one = tree != NULL && tree->n_stmts > 0;
    if (found_one) {
        *start = (size_t)tree->stmts[0]->stmt_location;
        *len = (size_t)tree->stmts[0]->stmt_len;
        found_one = *start <= all && *len <= all - *start;
        if (found_one && *len == 0) /* no semicolon: all of it */
            *len = all - *start;
    }
    arena_free(&a);
    return found_one;
}
