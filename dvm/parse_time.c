/* The current time in expressions: which functions read it, and by which terms an expression
 * changes when it passes.
 *
 * A term is a part of an expression that has no columns and uses the time, as large as possible.
 * The expression's value can only change when a term's does; and where a term is compared with a
 * value, only if that value lies between what the term was and what it is: an index range. So ts >
 * now() - '1 hour'                   ts from then - '1 hour' to now - '1 hour' now() - ts < '1
 * hour'                   the same, a little wider (see the shifts below) CASE WHEN ts >
 * CURRENT_DATE THEN …      ts from that day to this now()::text whenever now() is another
 */
#include <string.h>

#include "dvm/sql_parse_internal.h"

/* ---- what reads the clock ------------------------------------------------------------------ */

const char *parse_time_function(const PgQuery__FuncCall *f)
{
    const char *name = parse_node_string(f->funcname[f->n_funcname - 1]);

    if (name == NULL || f->n_funcname != 1 || f->n_args != 0)
        return NULL;
    if (strcmp(name, "now") == 0 || strcmp(name, "transaction_timestamp") == 0 ||
        strcmp(name, "statement_timestamp") == 0)
        return "timestamptz";
    return NULL;
}

const char *parse_time_value(const PgQuery__SQLValueFunction *f)
{
    switch ((int)f->op) {
    case PG_QUERY__SQLVALUE_FUNCTION_OP__SVFOP_CURRENT_DATE:
        return "date";
    case PG_QUERY__SQLVALUE_FUNCTION_OP__SVFOP_CURRENT_TIME:
        return "timetz";
    case PG_QUERY__SQLVALUE_FUNCTION_OP__SVFOP_CURRENT_TIMESTAMP:
        return "timestamptz";
    case PG_QUERY__SQLVALUE_FUNCTION_OP__SVFOP_LOCALTIME:
        return "time";
    case PG_QUERY__SQLVALUE_FUNCTION_OP__SVFOP_LOCALTIMESTAMP:
        return "timestamp";
    default:
        return NULL;
    }
}

/* The bare name of a function of pg_catalog with n arguments. */
static bool is_call(const Node *n, const char *name, size_t n_args)
{
    const char *own;

    if (n->node_case != PG_QUERY__NODE__NODE_FUNC_CALL || n->func_call->over != NULL)
        return false;
    own = parse_node_string(n->func_call->funcname[n->func_call->n_funcname - 1]);
    return own != NULL && strcmp(own, name) == 0 && n->func_call->n_args == n_args;
}

static bool write_age(void *arg, Node *n)
{
    struct parser *p = arg;

    if (n->node_case == PG_QUERY__NODE__NODE__NOT_SET)
        return true;
    if (is_call(n, "age", 1) && n->func_call->n_funcname == 1) {
        PgQuery__SQLValueFunction *today = arena_new(p->a, PgQuery__SQLValueFunction);
        Node *first = arena_new(p->a, Node);
        Node **args = arena_new_array(p->a, Node *, 2);

        pg_query__sqlvalue_function__init(today);
        today->op = PG_QUERY__SQLVALUE_FUNCTION_OP__SVFOP_CURRENT_DATE;
        today->typmod = -1;
        pg_query__node__init(first);
        first->node_case = PG_QUERY__NODE__NODE_SQLVALUE_FUNCTION;
        first->sqlvalue_function = today;
        args[0] = first;
        args[1] = n->func_call->args[0];
        n->func_call->args = args;
        n->func_call->n_args = 2;
    }
    return parse_each_child((ProtobufCMessage *)n->column_ref, write_age, p);
}

void parse_write_age(struct parser *p, Node *n)
{
    write_age(p, n);
}

/* ---- searching ----------------------------------------------------------------------------- */

static bool look_for_time(void *arg, Node *n)
{
    bool *found = arg;

    if (*found || n->node_case == PG_QUERY__NODE__NODE__NOT_SET)
        return true;
    if ((n->node_case == PG_QUERY__NODE__NODE_FUNC_CALL &&
         parse_time_function(n->func_call) != NULL) ||
        n->node_case == PG_QUERY__NODE__NODE_SQLVALUE_FUNCTION)
        *found = true;
    return n->node_case == PG_QUERY__NODE__NODE_SUB_LINK ||
           parse_each_child((ProtobufCMessage *)n->column_ref, look_for_time, found);
}

bool parse_has_time(Node *n)
{
    bool found = false;

    look_for_time(&found, n);
    return found;
}

struct row_search {
    const struct parser *p;
    bool found;
};

/* What differs from row to row: columns, subqueries, aggregates, window functions, sets. */
static bool look_for_row(void *arg, Node *n)
{
    struct row_search *s = arg;
    const char *name;

    if (s->found || n->node_case == PG_QUERY__NODE__NODE__NOT_SET)
        return true;
    if (n->node_case == PG_QUERY__NODE__NODE_COLUMN_REF ||
        n->node_case == PG_QUERY__NODE__NODE_SUB_LINK ||
        n->node_case == PG_QUERY__NODE__NODE_GROUPING_FUNC ||
        (n->node_case == PG_QUERY__NODE__NODE_FUNC_CALL &&
         (n->func_call->over != NULL || parse_is_aggregate(s->p, n->func_call, &name) ||
          parse_is_set_returning(s->p, n->func_call))))
        s->found = true;
    return parse_each_child((ProtobufCMessage *)n->column_ref, look_for_row, s);
}

static bool has_row(const struct parser *p, Node *n)
{
    struct row_search s = { .p = p };

    look_for_row(&s, n);
    return s.found;
}

static const char *type_name(const PgQuery__TypeCast *cast)
{
    const PgQuery__TypeName *t = cast->type_name;

    return t->n_names > 0 && t->n_array_bounds == 0 ? parse_node_string(t->names[t->n_names - 1])
                                                    : NULL;
}

static bool is_cast_to(const Node *n, const char *a, const char *b, const char *c)
{
    const char *name =
        n->node_case == PG_QUERY__NODE__NODE_TYPE_CAST ? type_name(n->type_cast) : NULL;

    return name != NULL && (strcmp(name, a) == 0 || strcmp(name, b) == 0 || strcmp(name, c) == 0);
}

static const char *operator_name(const Node *n)
{
    const PgQuery__AExpr *e = n->a_expr;

    return n->node_case == PG_QUERY__NODE__NODE_A_EXPR &&
                   e->kind == PG_QUERY__A__EXPR__KIND__AEXPR_OP && e->n_name == 1 &&
                   e->lexpr != NULL && e->rexpr != NULL
               ? parse_node_string(e->name[0])
               : NULL;
}

/* No NULL, too. */
static bool is_constant(const Node *n)
{
    const char *op = operator_name(n);

    if (op != NULL && op[0] != '\0' && op[1] == '\0' && strchr("+-*/", op[0]) != NULL)
        return is_constant(n->a_expr->lexpr) && is_constant(n->a_expr->rexpr);
    if (n->node_case == PG_QUERY__NODE__NODE_TYPE_CAST)
        return is_constant(n->type_cast->arg);
    return n->node_case == PG_QUERY__NODE__NODE_A_CONST && !n->a_const->isnull;
}

/* A date or a timestamp, never NULL: now(), CURRENT_DATE, with intervals added, cast, truncated. */
static bool is_moment(const Node *n)
{
    const char *op = operator_name(n);
    const char *value;

    if (op != NULL && (strcmp(op, "+") == 0 || strcmp(op, "-") == 0))
        return is_moment(n->a_expr->lexpr) && is_constant(n->a_expr->rexpr);
    if (is_cast_to(n, "date", "timestamp", "timestamptz"))
        return is_moment(n->type_cast->arg);
    if (is_call(n, "date_trunc", 2) || is_call(n, "timezone", 2))
        return is_constant(n->func_call->args[0]) && is_moment(n->func_call->args[1]);
    if (n->node_case == PG_QUERY__NODE__NODE_FUNC_CALL)
        return parse_time_function(n->func_call) != NULL;
    if (n->node_case != PG_QUERY__NODE__NODE_SQLVALUE_FUNCTION)
        return false;
    value = parse_time_value(n->sqlvalue_function);
    return value != NULL && (strcmp(value, "date") == 0 || strncmp(value, "timestamp", 9) == 0);
}

bool parse_is_moment(const Node *n)
{
    return is_moment(n);
}

/* A moment by itself, whatever the time zone. */
static bool is_absolute(const Node *n)
{
    if (operator_name(n) != NULL)
        return is_absolute(n->a_expr->lexpr);
    return (n->node_case == PG_QUERY__NODE__NODE_FUNC_CALL &&
            parse_time_function(n->func_call) != NULL) ||
           (n->node_case == PG_QUERY__NODE__NODE_SQLVALUE_FUNCTION &&
            parse_time_value(n->sqlvalue_function) != NULL &&
            strcmp(parse_time_value(n->sqlvalue_function), "timestamptz") == 0);
}

/* A moment that is a date. */
static bool is_day(const Node *n)
{
    const char *op = operator_name(n);

    if (op != NULL && is_moment(n))
        return is_day(n->a_expr->lexpr) &&
               n->a_expr->rexpr->node_case == PG_QUERY__NODE__NODE_A_CONST;
    return is_cast_to(n, "date", "date", "date") ||
           (n->node_case == PG_QUERY__NODE__NODE_SQLVALUE_FUNCTION &&
            parse_time_value(n->sqlvalue_function) != NULL &&
            strcmp(parse_time_value(n->sqlvalue_function), "date") == 0);
}

/* Whether the term stays the same for hours. */
static bool is_coarse(const Node *n)
{
    return is_moment(n) &&
           (is_day(n) || is_call(n, "date_trunc", 2) ||
            (n->node_case == PG_QUERY__NODE__NODE_TYPE_CAST && is_coarse(n->type_cast->arg)));
}

/* ---- terms --------------------------------------------------------------------------------- */

struct terms {
    struct parser *p;
    struct query *q;
    bool grouped;
    struct qexpr *out;
    bool failed;
};

static void add_term(struct terms *t, enum term_kind kind, const char *op, Node *value, Node *time,
                     Node *shift)
{
    struct qexpr *out = t->out;
    struct qterm *more = arena_new_array(t->p->a, struct qterm, (size_t)out->n_terms + 1);
    struct qterm *term = &more[out->n_terms];

    if (out->n_terms > 0)
        memcpy(more, out->terms, sizeof(*more) * (size_t)out->n_terms);
    term->kind = kind;
    term->op = op;
    term->coarse = is_coarse(time);
    term->absolute = is_absolute(time);
    term->time = parse_expr(t->p, t->q, time, t->grouped);
    t->failed = t->failed || term->time == NULL;
    if (value != NULL) {
        term->value = parse_expr(t->p, t->q, value, t->grouped);
        t->failed = t->failed || term->value == NULL;
    }
    if (shift != NULL) {
        term->shift = parse_expr(t->p, t->q, shift, t->grouped);
        t->failed = t->failed || term->shift == NULL;
    }
    out->terms = more;
    out->n_terms++;
}

/* The operator with its sides exchanged; NULL when it is no comparison. */
static const char *flipped(const char *op)
{
    static const char *const pairs[][2] = { { "<", ">" },   { "<=", ">=" }, { ">", "<" },
                                            { ">=", "<=" }, { "=", "=" },   { "<>", "<>" } };

    for (size_t i = 0; op != NULL && i < sizeof(pairs) / sizeof(pairs[0]); i++)
        if (strcmp(op, pairs[i][0]) == 0)
            return pairs[i][1];
    return NULL;
}

/* T - value, T a moment. */
static bool is_time_since(const struct parser *p, const Node *n)
{
    const char *op = operator_name(n);

    return op != NULL && strcmp(op, "-") == 0 && is_moment(n->a_expr->lexpr) &&
           parse_has_time(n->a_expr->lexpr) && !parse_has_time(n->a_expr->rexpr) &&
           has_row(p, n->a_expr->rexpr);
}

/* A comparison of how long ago a value was with a constant. */
static bool add_since(struct terms *t, Node *since, Node *length)
{
    Node *difference = since;
    bool seconds = is_call(since, "extract", 2) || is_call(since, "date_part", 2);

    if (!is_constant(length))
        return false;
    if (seconds) {
        const Node *field = since->func_call->args[0];
        const Node *word =
            field->node_case == PG_QUERY__NODE__NODE_TYPE_CAST ? field->type_cast->arg : field;

        difference = since->func_call->args[1];
        if (word->node_case != PG_QUERY__NODE__NODE_A_CONST ||
            word->a_const->val_case != PG_QUERY__A__CONST__VAL_SVAL ||
            strcmp(word->a_const->sval->sval, "epoch") != 0)
            return false;
    }
    if (!is_time_since(t->p, difference))
        return false;
    if (seconds)
        add_term(t, TERM_SECONDS, NULL, difference->a_expr->rexpr, difference->a_expr->lexpr,
                 length);
    else if (is_cast_to(length, "interval", "interval", "interval"))
        add_term(t, TERM_INTERVAL, NULL, difference->a_expr->rexpr, difference->a_expr->lexpr,
                 length);
    else if (is_day(difference->a_expr->lexpr) && length->node_case == PG_QUERY__NODE__NODE_A_CONST)
        add_term(t, TERM_DAYS, NULL, difference->a_expr->rexpr, difference->a_expr->lexpr, length);
    else
        return false;
    return true;
}

/* What is evaluated elsewhere, and is a column here. */
static bool is_column(const struct terms *t, Node *n)
{
    const char *name, *key;

    if (n->node_case == PG_QUERY__NODE__NODE_FUNC_CALL &&
        (n->func_call->over != NULL || parse_is_aggregate(t->p, n->func_call, &name)))
        return true;
    if (!t->grouped || t->q->n_groups == 0)
        return false;
    key = parse_deparse(t->p, n);
    for (int i = 0; key != NULL && i < t->q->n_groups; i++)
        if (t->q->groups[i].kind == GROUP_EXPR && strcmp(t->q->groups[i].expr->key, key) == 0)
            return true;
    return false;
}

static bool find_terms(void *arg, Node *n)
{
    struct terms *t = arg;
    const char *op;

    if (n->node_case == PG_QUERY__NODE__NODE__NOT_SET || !parse_has_time(n) || is_column(t, n))
        return true;
    if (!has_row(t->p, n)) {
        add_term(t, TERM_ALONE, NULL, NULL, n, NULL);
        return true;
    }
    op = flipped(operator_name(n));
    if (op != NULL) {
        Node *l = n->a_expr->lexpr, *r = n->a_expr->rexpr;

        if (is_moment(r) && parse_has_time(r) && !parse_has_time(l)) {
            add_term(t, TERM_COMPARED, flipped(op), l, r, NULL);
            return true;
        }
        if (is_moment(l) && parse_has_time(l) && !parse_has_time(r)) {
            add_term(t, TERM_COMPARED, op, r, l, NULL);
            return true;
        }
        if (add_since(t, l, r) || add_since(t, r, l))
            return true;
    }
    return parse_each_child((ProtobufCMessage *)n->column_ref, find_terms, t);
}

bool parse_note_terms(struct parser *p, struct query *q, Node *node, bool grouped,
                      struct qexpr *out)
{
    struct terms t = { .p = p, .q = q, .grouped = grouped, .out = out };

    /* A term of its own: nothing to find in it. */
    if (!out->uses_time || !has_row(p, node)) {
        if (out->uses_time) {
            out->terms = arena_new(p->a, struct qterm);
            out->n_terms = 1;
            out->terms[0] = (struct qterm){ .kind = TERM_ALONE, .time = out };
            out->terms[0].coarse = is_coarse(node);
        }
        return true;
    }
    find_terms(&t, node);
    return !t.failed;
}
