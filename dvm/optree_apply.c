/* Subqueries that are evaluated for each row of what they stand in: in expressions, and LATERAL.
 *
 * The subquery is an ordinary tree on the right side of an operator, whose expressions may refer to
 * the left row (COLUMN_OUTER); PostgreSQL sees it as it was written. Three operators have one:
 * OP_SUBFILTER for a condition with one subquery, which keeps the left row or not; OP_SUBVALUE,
 * which adds the subquery's value as a column; OP_APPLY for rows.
 *
 * The rule for their change (delta/apply.c) asks which left rows a change on the right side may
 * affect. Its answer is prepared here: the largest parts of the right side that refer to nothing
 * outside (leaves), each with the conditions under which a row of it matters to a left row, which
 * are the WHERE clauses above it. EXISTS (SELECT FROM s WHERE s.x = l.x AND s.y > 0): the leaf is
 * Filter(s), the condition s.x = l.x.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "dvm/optree_internal.h"

/* ---- what is inside ------------------------------------------------------------------------ */

bool op_is_subquery(const struct op *op)
{
    return op->kind == OP_SUBFILTER || op->kind == OP_SUBVALUE || op->kind == OP_APPLY;
}

void op_each_expr(const struct op *op, void (*visit)(void *arg, const struct expr *e), void *arg)
{
    if (op->predicate != NULL)
        visit(arg, op->predicate);
    for (int i = 0; i < op->n_exprs; i++)
        visit(arg, op->exprs[i]);
    for (int i = 0; i < op->n_aggregates; i++) {
        const struct op_aggregate *g = &op->aggregates[i];

        for (int k = 0; k < g->n_args; k++)
            visit(arg, g->args[k]);
        for (int k = 0; k < g->n_sort; k++)
            visit(arg, g->sort[k]);
        if (g->filter != NULL)
            visit(arg, g->filter);
    }
    for (int i = 0; i < op->n_sort; i++)
        visit(arg, op->sort[i]);
    for (int i = 0; i < op->n_functions; i++)
        visit(arg, op->functions[i].call);
    for (int i = 0; i < op->n_windows; i++) {
        visit(arg, op->windows[i].call);
        for (int k = 0; k < op->windows[i].n_sort; k++)
            visit(arg, op->windows[i].sort[k]);
    }
    for (int i = 0; op->sub != NULL && i < op->sub->n_tests; i++)
        visit(arg, op->sub->tests[i]);
}

static bool defines(const struct op *op, int id)
{
    return op != NULL && ((op_is_subquery(op) && op->id == id) || defines(op->left, id) ||
                          defines(op->right, id));
}

struct outer_search {
    const struct op *top;
    int only;      /* an id; 0: any that top does not define */
    bool *columns; /* of only, to be marked; or NULL */
    bool found;
};

static void look_for_outer(void *arg, const struct expr *e)
{
    struct outer_search *s = arg;

    for (int i = 0; i < e->n_holes; i++) {
        const struct expr_hole *h = &e->holes[i];

        if (h->column != COLUMN_OUTER)
            continue;
        if (s->only == 0) {
            s->found = s->found || !defines(s->top, h->outer);
        } else if (h->outer == s->only) {
            s->found = true;
            if (s->columns != NULL)
                s->columns[h->outer_column] = true;
        }
    }
}

static bool holds(const struct op *op, const struct op *part)
{
    return op != NULL && (op == part || holds(op->left, part) || holds(op->right, part));
}

static void search_outer(const struct op *op, struct outer_search *s)
{
    if (op == NULL)
        return;
    /* A recursion's own rows are nowhere else. */
    if (op->kind == OP_SELF && s->only == 0 && !holds(s->top, op->of))
        s->found = true;
    op_each_expr(op, look_for_outer, s);
    search_outer(op->left, s);
    search_outer(op->right, s);
}

bool op_is_closed(const struct op *op)
{
    struct outer_search s = { .top = op };

    search_outer(op, &s);
    return !s.found;
}

bool build_refers_to(const struct op *op, const struct frame *f)
{
    struct outer_search s = { .only = f->id };

    search_outer(op, &s);
    return s.found;
}

/* ---- expressions --------------------------------------------------------------------------- */

bool build_resolve_outer(struct builder *b, const struct hole *h, struct expr_hole *out)
{
    for (const struct frame *f = b->frames; f != NULL; f = f->outer) {
        const struct scope_column *c = build_look_up(f->scope, h);
        int column = c != NULL ? c->column : -1;

        for (int i = 0; column >= 0 && f->groups != NULL && i <= f->n_groups; i++) {
            if (i == f->n_groups)
                return false;
            if (f->groups[i] != NULL && expr_plain_column(f->groups[i]) == column) {
                column = i;
                break;
            }
        }
        if (column < 0)
            continue;
        *out = (struct expr_hole){ .column = COLUMN_OUTER, .outer = f->id, .outer_column = column };
        return true;
    }
    return false;
}

bool build_is_correlated(const struct expr *e)
{
    for (int i = 0; i < e->n_holes; i++)
        if (e->holes[i].column == COLUMN_OUTER)
            return true;
    return false;
}

struct expr **build_take_correlated(struct builder *b, struct expr **exprs, int *n, int *n_taken)
{
    struct expr **taken = arena_new_array(b->a, struct expr *, (size_t)*n);
    int kept = 0;

    *n_taken = 0;
    for (int i = 0; i < *n; i++) {
        if (build_is_correlated(exprs[i]))
            taken[(*n_taken)++] = exprs[i];
        else
            exprs[kept++] = exprs[i];
    }
    *n = kept;
    return taken;
}

/* Appends e's text with its holes numbered from *n on, and its holes to holes[*n..]. */
static void put_renumbered(struct text *t, const struct expr *e, struct expr_hole *holes, int *n)
{
    for (const char *at = e->text; *at != '\0';) {
        char *end;

        if (strncmp(at, "__pgth", 6) != 0) {
            text_put_char(t, *at++);
            continue;
        }
        text_printf(t, "__pgth%ldx", strtol(at + 6, &end, 10) + *n);
        at = end + 1;
    }
    if (e->n_holes > 0)
        memcpy(holes + *n, e->holes, sizeof(*holes) * (size_t)e->n_holes);
    *n += e->n_holes;
}

/* before x[0] between x[1] between … after, each x in parentheses. */
static struct expr *compose(struct builder *b, const char *before, struct expr *const *x, int n,
                            const char *between, const char *after)
{
    struct expr *e = arena_new(b->a, struct expr);
    struct text t;
    int n_holes = 0;

    for (int i = 0; i < n; i++)
        n_holes += x[i]->n_holes;
    e->holes = arena_new_array(b->a, struct expr_hole, (size_t)n_holes);
    text_init(&t);
    text_put(&t, before);
    for (int i = 0; i < n; i++) {
        text_put(&t, i > 0 ? between : "");
        text_put_char(&t, '(');
        put_renumbered(&t, x[i], e->holes, &e->n_holes);
        text_put_char(&t, ')');
    }
    text_put(&t, after);
    e->text = arena_strdup(b->a, t.ptr);
    text_free(&t);
    return e;
}

/* e, which is over the left row, as seen from the right side. */
static struct expr *as_outer(struct builder *b, const struct expr *e, int id)
{
    struct expr *out = arena_new(b->a, struct expr);

    *out = *e;
    out->holes = arena_new_array(b->a, struct expr_hole, (size_t)e->n_holes);
    for (int i = 0; i < e->n_holes; i++) {
        out->holes[i] = e->holes[i];
        if (e->holes[i].column >= 0)
            out->holes[i] = (struct expr_hole){ .column = COLUMN_OUTER,
                                                .outer = id,
                                                .outer_column = e->holes[i].column };
    }
    return out;
}

/* e, which is over the outputs of a projection, over its input. */
static struct expr *substituted(struct builder *b, const struct expr *e, struct expr *const *by)
{
    struct expr *out = arena_new(b->a, struct expr);
    struct text t;
    int n_holes = 0;

    for (int i = 0; i < e->n_holes; i++)
        n_holes += e->holes[i].column >= 0 ? by[e->holes[i].column]->n_holes : 1;
    /* A hole may be written more than once: its text then has holes of its own each time. */
    out->holes =
        arena_new_array(b->a, struct expr_hole, (size_t)n_holes * (strlen(e->text) / 8 + 1));
    text_init(&t);
    for (const char *at = e->text; *at != '\0';) {
        char *end;
        const struct expr_hole *h;

        if (strncmp(at, "__pgth", 6) != 0) {
            text_put_char(&t, *at++);
            continue;
        }
        h = &e->holes[strtol(at + 6, &end, 10)];
        at = end + 1;
        if (h->column >= 0) {
            text_put_char(&t, '(');
            put_renumbered(&t, by[h->column], out->holes, &out->n_holes);
            text_put_char(&t, ')');
        } else {
            text_printf(&t, "__pgth%dx", out->n_holes);
            out->holes[out->n_holes++] = *h;
        }
    }
    out->text = arena_strdup(b->a, t.ptr);
    text_free(&t);
    return out;
}

static bool within(const struct expr *e, int from, int to)
{
    for (int i = 0; i < e->n_holes; i++)
        if (e->holes[i].column >= 0 && (e->holes[i].column < from || e->holes[i].column >= to))
            return false;
    return true;
}

struct op *build_filter_all(struct builder *b, struct op *child, struct expr **parts, int n)
{
    struct op *op = build_filter(b, child, build_expr_all(b, parts, n));

    if (op != NULL && n > 0) {
        op->conjuncts = parts;
        op->n_conjuncts = n;
    }
    return op;
}

/* ---- leaves -------------------------------------------------------------------------------- */

struct conditions {
    struct expr *exprs[64];
    int n;
};

/* A condition helps when it is known for the leaf's row and the left row alone. */
static void add_condition(struct conditions *c, struct expr *e, int id)
{
    if (c->n == (int)(sizeof(c->exprs) / sizeof(c->exprs[0])))
        return; /* fewer conditions only mean more rows to look at */
    for (int i = 0; i < e->n_holes; i++)
        if (e->holes[i].column == COLUMN_TIME || e->holes[i].column == COLUMN_SUBQUERY ||
            (e->holes[i].column == COLUMN_OUTER && e->holes[i].outer != id))
            return;
    c->exprs[c->n++] = e;
}

static void add_leaf(struct builder *b, struct op *top, struct op *op, const struct conditions *c)
{
    struct op_leaf *more = arena_new_array(b->a, struct op_leaf, (size_t)top->n_leaves + 1);
    struct op_leaf *leaf = &more[top->n_leaves];

    if (top->n_leaves > 0)
        memcpy(more, top->leaves, sizeof(*more) * (size_t)top->n_leaves);
    leaf->op = op;
    leaf->n_conditions = c->n;
    leaf->conditions = arena_new_array(b->a, struct expr *, (size_t)c->n);
    if (c->n > 0)
        memcpy(leaf->conditions, c->exprs, sizeof(*c->exprs) * (size_t)c->n);
    top->leaves = more;
    top->n_leaves++;
}

static bool is_key_column(const struct op *op, int column)
{
    for (int i = 0; i < op->n_exprs; i++)
        if (expr_plain_column(op->exprs[i]) == column)
            return true;
    return false;
}

/* What holds for op's rows, as far as it holds for the rows of op's left child from which they
 * come. */
static void pass_down(struct builder *b, const struct op *top, const struct op *op,
                      const struct conditions *c, struct conditions *left)
{
    left->n = 0;
    for (int i = 0; i < c->n; i++) {
        struct expr *e = c->exprs[i];
        bool passes = true;

        if (op->kind == OP_PROJECT && op->expands) {
            passes = false;
        } else if (op->kind == OP_PROJECT) {
            e = substituted(b, e, op->exprs);
        } else if (op->kind == OP_GROUP) {
            passes = within(e, 0, op->n_exprs);
            e = passes ? substituted(b, e, op->exprs) : e;
        } else if (op->kind == OP_DISTINCT_ON || op->kind == OP_WINDOW) {
            for (int h = 0; h < e->n_holes && passes; h++)
                passes = e->holes[h].column < 0 || is_key_column(op, e->holes[h].column);
        } else if (op->kind == OP_JOIN || op->kind == OP_LEFT_JOIN || op->kind == OP_SUBVALUE ||
                   op->kind == OP_APPLY) {
            passes = within(e, 0, op->left->n_columns);
        } else {
            passes = op->kind == OP_FILTER || op->kind == OP_SUBFILTER || op->kind == OP_UNION_ALL;
        }
        if (passes)
            add_condition(left, e, top->id);
    }
    for (int i = 0; op->kind == OP_FILTER && i < op->n_conjuncts; i++)
        add_condition(left, op->conjuncts[i], top->id);
    if (op->kind == OP_FILTER && op->n_conjuncts == 0)
        add_condition(left, op->predicate, top->id);
}

static void look_for_time(void *arg, const struct expr *e)
{
    bool *found = arg;

    *found = *found || e->uses_time;
}

static void find_leaves(struct builder *b, struct op *top, struct op *op,
                        const struct conditions *c)
{
    struct conditions below = { .n = 0 };
    bool uses_time = false;

    if (op_is_closed(op)) {
        add_leaf(b, top, op, c);
        return;
    }
    /* What it was is computed from old leaves, but by the clock of now. */
    op_each_expr(op, look_for_time, &uses_time);
    if (uses_time)
        build_refuse(b, REFUSAL_TIME, "the current time in a subquery, above what is correlated");
    if (op->kind == OP_RECURSIVE || op->kind == OP_SELF)
        build_refuse(b, REFUSAL_RECURSIVE, "a recursive query that refers to a row outside of it");
    pass_down(b, top, op, c, &below);
    if (op->left != NULL)
        find_leaves(b, top, op->left, &below);
    if (op->right == NULL)
        return;
    below.n = 0;
    for (int i = 0; op->kind == OP_JOIN && i < c->n; i++)
        if (within(c->exprs[i], op->left->n_columns, op->n_columns))
            add_condition(&below, build_shifted(b, c->exprs[i], -op->left->n_columns), top->id);
    if (op->kind == OP_UNION_ALL)
        below = *c;
    find_leaves(b, top, op->right, &below);
}

static bool set_leaves(struct builder *b, struct op *op)
{
    const struct op_sub *sub = op->sub;
    struct conditions none = { .n = 0 };

    if (sub == NULL || sub->decisive == NULL) {
        find_leaves(b, op, op->right, &none);
        return b->refused->kind == REFUSAL_NONE;
    }
    find_leaves(b, op, sub->decisive, &none);
    for (int i = 0; i < sub->n_undecided; i++)
        find_leaves(b, op, sub->undecided[i], &none);
    return b->refused->kind == REFUSAL_NONE;
}

/* ---- subqueries in expressions ------------------------------------------------------------- */

void build_frame_push(struct builder *b, struct frame *f, const struct scope *s)
{
    *f = (struct frame){ .id = b->tree->n_ops++, .scope = s, .outer = b->frames };
    b->frames = f;
}

void build_frame_pop(struct builder *b)
{
    b->frames = b->frames->outer;
}

int build_sub_column(struct builder *b, const struct qsublink *link)
{
    for (const struct sub_value *v = b->sub_values; v != NULL; v = v->next)
        if (v->link == link)
            return v->column;
    return -1;
}

static int n_sublinks(const struct qexpr *q)
{
    int n = 0;

    for (int i = 0; q != NULL && i < q->n_holes; i++)
        n += q->holes[i].kind == HOLE_SUBLINK;
    return n;
}

bool build_has_sublink(const struct qexpr *q)
{
    return n_sublinks(q) > 0;
}

/* EXISTS asks for no outputs: without them the condition stands where PostgreSQL looks for a semi
 * join. */
static struct op *build_exists(struct builder *b, const struct query *q)
{
    struct scope s = { 0 };
    int n_named;

    if (q->kind == QUERY_SELECT && !q->grouped && q->distinct != DISTINCT_ON && !q->has_limit)
        return build_from_where(b, q, &s);
    return build_query(b, q, &n_named);
}

/* Rows of r for which "tests op columns" is what before and after make of it. */
static struct op *build_probe(struct builder *b, struct op *r, const struct op_sub *sub, int id,
                              const char *before, const char *after)
{
    struct expr *sides[2];
    struct expr **columns = arena_new_array(b->a, struct expr *, (size_t)sub->n_tests);
    struct expr **tests = arena_new_array(b->a, struct expr *, (size_t)sub->n_tests);
    struct expr *compared;

    for (int i = 0; i < sub->n_tests; i++) {
        columns[i] = build_column_expr(b, i);
        tests[i] = as_outer(b, sub->tests[i], id);
    }
    sides[0] = sub->n_tests == 1 ? tests[0] : compose(b, "ROW(", tests, sub->n_tests, ", ", ")");
    sides[1] =
        sub->n_tests == 1 ? columns[0] : compose(b, "ROW(", columns, sub->n_tests, ", ", ")");
    compared = compose(b, "", sides, 2, arena_printf(b->a, " %s ", sub->op), "");
    if (before[0] != '\0' || after[0] != '\0')
        compared = compose(b, before, &compared, 1, "", after);
    return build_filter(b, r, compared);
}

static bool may_be_null(const struct op *op, const struct expr *e)
{
    int plain = expr_plain_column(e);

    return plain < 0 || !op->columns[plain].not_null;
}

static void build_probes(struct builder *b, struct op *l, struct op *r, struct op_sub *sub, int id)
{
    bool left_null = false, right_null = false;

    for (int i = 0; i < sub->n_tests; i++) {
        left_null = left_null || may_be_null(l, sub->tests[i]);
        right_null = right_null || !r->columns[i].not_null;
    }
    sub->decisive = build_probe(b, r, sub, id, sub->kind == SUBLINK_ALL ? "NOT " : "", "");
    if (sub->null_is_false && sub->kind == SUBLINK_ANY)
        return;
    if (sub->n_tests == 1 && strcmp(sub->op, "=") == 0) {
        struct expr *test = as_outer(b, sub->tests[0], id);
        struct expr *column = build_column_expr(b, 0);

        if (left_null)
            sub->undecided[sub->n_undecided++] =
                build_filter(b, r, compose(b, "", &test, 1, "", " IS NULL"));
        if (right_null)
            sub->undecided[sub->n_undecided++] =
                build_filter(b, r, compose(b, "", &column, 1, "", " IS NULL"));
    } else if (left_null || right_null || strcmp(sub->op, "=") != 0) {
        sub->undecided[sub->n_undecided++] = build_probe(b, r, sub, id, "", " IS NULL");
    }
}

/* The right side, and how its value is made; *id: of the operator to be. */
static struct op *build_sub(struct builder *b, struct op *l, const struct qsublink *link,
                            const struct stage *at, bool null_is_false, struct op_sub *sub, int *id)
{
    struct frame f;
    struct op *r;
    int n_named;

    *sub = (struct op_sub){ .kind = link->kind,
                            .n_tests = link->n_tests,
                            .op = link->op,
                            .null_is_false = null_is_false,
                            .n_outputs = link->kind == SUBLINK_EXISTS ? 0 : link->query->n_targets,
                            .n_sort = link->n_sort,
                            .sort_suffix = link->sort_suffix };
    sub->tests = arena_new_array(b->a, struct expr *, (size_t)link->n_tests);
    for (int i = 0; i < link->n_tests; i++) {
        if (build_has_sublink(link->tests[i]))
            return build_refuse(b, REFUSAL_SUBLINK, "a subquery compared with a subquery");
        sub->tests[i] =
            build_resolve(b, link->tests[i], at->groups != NULL ? NULL : at->scope, at->n_groups);
        if (sub->tests[i] == NULL)
            return NULL;
        if (sub->tests[i]->uses_time)
            return build_refuse(b, REFUSAL_TIME, "the current time compared with a subquery");
    }
    build_frame_push(b, &f, at->scope);
    f.groups = at->groups;
    f.n_groups = at->n_groups;
    *id = f.id;
    r = link->kind == SUBLINK_EXISTS ? build_exists(b, link->query)
                                     : build_query(b, link->query, &n_named);
    build_frame_pop(b);
    if (r != NULL && (link->kind == SUBLINK_ANY || link->kind == SUBLINK_ALL))
        build_probes(b, l, r, sub, *id);
    return r;
}

static struct op *new_sub_op(struct builder *b, enum op_kind kind, int id, struct op *l,
                             struct op *r, int n_columns)
{
    struct op *op = build_new_op(b, kind, n_columns);

    op->id = id;
    op->left = l;
    op->right = r;
    memcpy(op->columns, l->columns, sizeof(*op->columns) * (size_t)l->n_columns);
    if (l->has_key)
        build_set_key(b, op, l->key, l->n_key);
    return op;
}

static bool add_value(struct builder *b, struct op **op, const struct qsublink *link,
                      const struct stage *at)
{
    struct op_sub *sub = arena_new(b->a, struct op_sub);
    struct sub_value *value = arena_new(b->a, struct sub_value);
    int id, n = (*op)->n_columns;
    struct op *r = build_sub(b, *op, link, at, false, sub, &id);

    if (r == NULL)
        return false;
    if (link->kind == SUBLINK_SCALAR && link->query->n_targets != 1)
        return build_refuse(b, REFUSAL_SUBLINK, "a subquery of several columns as a value") != NULL;
    *op = new_sub_op(b, OP_SUBVALUE, id, *op, r, n + 1);
    (*op)->sub = sub;
    (*op)->columns[n].name = "subquery";
    (*op)->columns[n].not_null = link->kind == SUBLINK_EXISTS || link->kind == SUBLINK_ARRAY;
    if (!set_leaves(b, *op))
        return false;
    *value = (struct sub_value){ link, n, b->sub_values };
    b->sub_values = value;
    return true;
}

bool build_sub_values(struct builder *b, struct op **op, const struct qexpr *q,
                      const struct stage *at)
{
    for (int i = 0; q != NULL && i < q->n_holes; i++)
        if (q->holes[i].kind == HOLE_SUBLINK && build_sub_column(b, q->holes[i].sublink) < 0 &&
            !add_value(b, op, q->holes[i].sublink, at))
            return false;
    return true;
}

static bool is_bare(const struct qexpr *q)
{
    return q->n_holes == 1 && strcmp(q->text, "__pgth0x") == 0;
}

/* A condition with one subquery. */
static bool add_sub_filter(struct builder *b, struct op **op, const struct qexpr *q,
                           const struct qsublink *link, const struct stage *at)
{
    struct op_sub *sub = arena_new(b->a, struct op_sub);
    int id;
    struct op *r = build_sub(b, *op, link, at, is_bare(q), sub, &id);
    struct sub_value *value = arena_new(b->a, struct sub_value);
    struct expr *predicate;

    if (r == NULL)
        return false;
    *value = (struct sub_value){ link, COLUMN_SUBQUERY, b->sub_values };
    b->sub_values = value;
    predicate = build_resolve(b, q, at->groups != NULL ? NULL : at->scope, at->n_groups);
    b->sub_values = value->next;
    if (predicate == NULL)
        return false;
    if (predicate->uses_time)
        return build_refuse(b, REFUSAL_TIME, "the current time next to a subquery") != NULL;
    *op = new_sub_op(b, OP_SUBFILTER, id, *op, r, (*op)->n_columns);
    (*op)->sub = sub;
    (*op)->predicate = predicate;
    return set_leaves(b, *op);
}

static bool add_conjunct(struct builder *b, struct op **op, const struct qexpr *q,
                         const struct stage *at)
{
    struct expr *e;

    if (n_sublinks(q) == 0)
        return true;
    for (int i = 0; i < q->n_holes && n_sublinks(q) == 1; i++)
        if (q->holes[i].kind == HOLE_SUBLINK)
            return add_sub_filter(b, op, q, q->holes[i].sublink, at);
    if (!build_sub_values(b, op, q, at))
        return false;
    e = build_resolve(b, q, at->groups != NULL ? NULL : at->scope, at->n_groups);
    if (e == NULL)
        return false;
    if (e->uses_time)
        return build_refuse(b, REFUSAL_TIME, "the current time next to a subquery") != NULL;
    *op = build_filter(b, *op, e);
    return true;
}

bool build_sub_conjuncts(struct builder *b, struct op **op, const struct qexpr *q,
                         const struct stage *at)
{
    if (q == NULL || n_sublinks(q) == 0)
        return true;
    if (q->n_conjuncts == 0)
        return add_conjunct(b, op, q, at);
    for (int i = 0; i < q->n_conjuncts; i++)
        if (!add_conjunct(b, op, q->conjuncts[i], at))
            return false;
    return true;
}

bool build_stage_groups(struct builder *b, const struct query *q, struct stage *at)
{
    struct expr **keys = arena_new_array(b->a, struct expr *, (size_t)q->n_groups + 1);

    for (int i = 0; i < q->n_groups; i++)
        if (q->groups[i].kind == GROUP_EXPR &&
            (keys[i] = build_resolve(b, q->groups[i].expr, at->scope, 0)) == NULL)
            return false;
    at->groups = keys;
    at->n_groups = q->n_groups;
    return true;
}

bool build_select_values(struct builder *b, struct op **op, const struct query *q,
                         const struct stage *at)
{
    bool above = q->grouped && at->groups != NULL;

    for (int i = 0; !above && i < q->n_groups; i++)
        if (!build_sub_values(b, op, q->groups[i].expr, at))
            return false;
    for (int i = 0; !above && i < q->n_aggs; i++) {
        const struct qagg *g = q->aggs[i];

        for (int k = 0; k < g->n_args; k++)
            if (!build_sub_values(b, op, g->args[k], at))
                return false;
        for (int k = 0; k < g->n_sort; k++)
            if (!build_sub_values(b, op, g->sort[k].expr, at))
                return false;
        if (!build_sub_values(b, op, g->filter, at))
            return false;
    }
    if (q->grouped != above)
        return true;
    for (int i = 0; i < q->n_targets; i++)
        if (!build_sub_values(b, op, q->targets[i].expr, at))
            return false;
    for (int i = 0; i < q->n_distinct_on; i++)
        if (!build_sub_values(b, op, q->distinct_on[i], at))
            return false;
    for (int i = 0; i < q->n_sort; i++)
        if (!build_sub_values(b, op, q->sort[i].expr, at))
            return false;
    return true;
}

/* ---- LATERAL ------------------------------------------------------------------------------- */

bool build_has_lateral(const struct from_item *item)
{
    if (item->kind == FROM_JOIN)
        return build_has_lateral(item->left) || build_has_lateral(item->right);
    return item->lateral;
}

struct op *build_apply(struct builder *b, const struct frame *f, struct op *l, struct op *r,
                       bool pads)
{
    int nl = l->n_columns;
    struct op *op = new_sub_op(b, OP_APPLY, f->id, l, r, nl + r->n_columns);
    int *key = arena_new_array(b->a, int, (size_t)(l->n_key + r->n_key));

    op->padded = pads;
    for (int i = 0; i < r->n_columns; i++) {
        op->columns[nl + i] = r->columns[i];
        op->columns[nl + i].not_null = !pads && r->columns[i].not_null;
    }
    op->has_key = false;
    if (l->has_key && r->has_key) {
        for (int i = 0; i < l->n_key; i++)
            key[i] = l->key[i];
        for (int i = 0; i < r->n_key; i++)
            key[l->n_key + i] = nl + r->key[i];
        build_set_key(b, op, key, l->n_key + r->n_key);
    }
    return set_leaves(b, op) ? op : NULL;
}

struct op *build_join_per_row(struct builder *b, const struct from_item *item, struct frame *f,
                              struct op *l, struct op *r, const struct scope *right,
                              struct scope *s)
{
    bool pads = item->join == JOIN_LEFT;
    struct expr **on, **timed;
    struct scope both = *right;
    struct op *op = r;
    int n_on, n_timed;

    if (item->n_using > 0)
        return build_refuse(b, REFUSAL_LATERAL, "USING with a LATERAL subquery");
    build_scope_join(b, s, f->scope, right, l->n_columns);
    /* Padding comes after ON: its conditions are the subquery's own. */
    if (pads) {
        f->outer = b->frames;
        b->frames = f;
    } else {
        op = build_apply(b, f, l, r, false);
        both = *s;
    }
    if (!build_split_conjuncts(b, item->on, &both, 0, &on, &n_on, &timed, &n_timed))
        return NULL;
    if (n_timed > 0 && pads)
        return build_refuse(b, REFUSAL_TIME, "the current time in the ON of an outer join");
    op = build_filter_all(b, op, on, n_on);
    for (int i = 0; i < n_timed; i++)
        op = build_filter(b, op, timed[i]);
    if (!build_sub_conjuncts(b, &op, item->on, &(struct stage){ .scope = &both }))
        return NULL;
    if (!pads)
        return op;
    build_frame_pop(b);
    return build_apply(b, f, l, op, true);
}

/* ---- FULL JOIN ----------------------------------------------------------------------------- */

struct op *build_anti_join(struct builder *b, struct op *l, struct op *r, struct expr **on, int n,
                           int n_right)
{
    struct op_sub *sub = arena_new(b->a, struct op_sub);
    struct expr **parts = arena_new_array(b->a, struct expr *, (size_t)n);
    struct expr *none = arena_new(b->a, struct expr);
    struct op *op;
    int id = b->tree->n_ops++;

    for (int i = 0; i < n; i++) {
        parts[i] = build_shifted(b, on[i], 0);
        for (int h = 0; h < parts[i]->n_holes; h++) {
            struct expr_hole *hole = &parts[i]->holes[h];

            if (hole->column >= n_right)
                *hole = (struct expr_hole){ .column = COLUMN_OUTER,
                                            .outer = id,
                                            .outer_column = hole->column - n_right };
        }
    }
    op = new_sub_op(b, OP_SUBFILTER, id, l, build_filter_all(b, r, parts, n), l->n_columns);
    sub->kind = SUBLINK_EXISTS;
    none->text = "NOT __pgth0x";
    none->n_holes = 1;
    none->holes = arena_new(b->a, struct expr_hole);
    none->holes[0].column = COLUMN_SUBQUERY;
    op->sub = sub;
    op->predicate = none;
    return set_leaves(b, op) ? op : NULL;
}

/* ---- what is needed ------------------------------------------------------------------------ */

void build_need_sub(struct op *op, bool *left)
{
    struct outer_search s = { .only = op->id, .columns = left };
    const struct op_sub *sub = op->sub;
    int nl = op->left->n_columns;
    bool *right = mem_alloc(((size_t)op->right->n_columns + 1) * sizeof(bool));

    search_outer(op->right, &s);
    if (sub == NULL) {
        for (int i = 0; i < op->right->n_columns; i++)
            right[i] = op->needed[nl + i];
    } else {
        for (int i = 0; i < sub->n_outputs; i++)
            right[i] = true;
        for (int i = 0; i < sub->n_tests; i++)
            for (int h = 0; h < sub->tests[i]->n_holes; h++)
                if (sub->tests[i]->holes[h].column >= 0)
                    left[sub->tests[i]->holes[h].column] = true;
        if (sub->decisive != NULL)
            build_need(sub->decisive, right);
        for (int i = 0; i < sub->n_undecided; i++)
            build_need(sub->undecided[i], right);
    }
    build_need(op->right, right);
    free(right);
}
