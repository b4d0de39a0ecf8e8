/* GROUP BY with its grouping sets (PostgreSQL's manual, 7.2.4), and GROUPING(). */
#include <string.h>

#include "dvm/sql_parse_internal.h"

/* More are refused: each costs an evaluation of the change. */
#define SETS_MAX 128
#define KEYS_MAX 256

/* Grouping sets under construction. */
struct sets {
    bool **sets; /* per set, per key */
    int n;
};

int parse_add_group(struct parser *p, struct query *q, struct qgroup group)
{
    struct qgroup *more = arena_new_array(p->a, struct qgroup, (size_t)q->n_groups + 1);

    if (q->n_groups > 0)
        memcpy(more, q->groups, sizeof(*more) * (size_t)q->n_groups);
    more[q->n_groups] = group;
    q->groups = more;
    return q->n_groups++;
}

static int find_group(const struct query *q, const char *key)
{
    for (int i = 0; i < q->n_groups; i++)
        if (q->groups[i].key != NULL && strcmp(q->groups[i].key, key) == 0)
            return i;
    return -1;
}

/* The key that an expression of GROUP BY is; -1: refused. */
static int key_of(struct parser *p, struct query *q, Node *n)
{
    struct qexpr *expr = parse_expr(p, q, n, false);
    int found = expr != NULL ? find_group(q, expr->key) : -1;

    if (expr == NULL || found >= 0)
        return found;
    if (q->n_groups >= KEYS_MAX) {
        parse_refuse(p, REFUSAL_OTHER, "this many grouping keys", NULL);
        return -1;
    }
    return parse_add_group(p, q, (struct qgroup){ .expr = expr, .key = expr->key });
}

static bool *new_set(struct parser *p, const bool *x, const bool *y)
{
    bool *set = arena_new_array(p->a, bool, KEYS_MAX);

    for (int i = 0; i < KEYS_MAX; i++)
        set[i] = (x != NULL && x[i]) || (y != NULL && y[i]);
    return set;
}

static bool append(struct parser *p, struct sets *to, bool *set)
{
    if (to->sets == NULL)
        to->sets = arena_new_array(p->a, bool *, SETS_MAX);
    if (to->n == SETS_MAX)
        return parse_refuse(p, REFUSAL_GROUPING_SETS, "this many grouping sets", NULL) != NULL;
    to->sets[to->n++] = set;
    return true;
}

/* Every pair of a set of x and a set of y. */
static bool product(struct parser *p, const struct sets *x, const struct sets *y, struct sets *out)
{
    for (int i = 0; i < x->n; i++)
        for (int k = 0; k < y->n; k++)
            if (!append(p, out, new_set(p, x->sets[i], y->sets[k])))
                return false;
    return true;
}

/* The keys of an element: an expression or a list of them. */
static bool element(struct parser *p, struct query *q, Node *n, bool *set)
{
    Node **items = &n;
    size_t n_items = 1;

    if (n->node_case == PG_QUERY__NODE__NODE_ROW_EXPR &&
        n->row_expr->row_format == PG_QUERY__COERCION_FORM__COERCE_IMPLICIT_CAST) {
        items = n->row_expr->args;
        n_items = n->row_expr->n_args;
    }
    for (size_t i = 0; i < n_items; i++) {
        int key = key_of(p, q, items[i]);

        if (key < 0)
            return false;
        set[key] = true;
    }
    return true;
}

static bool add_sets(struct parser *p, struct query *q, Node *n, struct sets *out);

/* ROLLUP (a, b): (a, b), (a), (). CUBE (a, b): (a, b), (a), (b), (). */
static bool rollup_or_cube(struct parser *p, struct query *q, PgQuery__GroupingSet *g,
                           struct sets *out)
{
    bool cube = g->kind == PG_QUERY__GROUPING_SET_KIND__GROUPING_SET_CUBE;
    bool **elements = arena_new_array(p->a, bool *, g->n_content);

    if (cube && g->n_content > 7)
        return parse_refuse(p, REFUSAL_GROUPING_SETS, "this many grouping sets", NULL) != NULL;
    for (size_t i = 0; i < g->n_content; i++) {
        elements[i] = new_set(p, NULL, NULL);
        if (!element(p, q, g->content[i], elements[i]))
            return false;
    }
    for (size_t i = 0; i < (cube ? (size_t)1 << g->n_content : g->n_content + 1); i++) {
        bool *set = new_set(p, NULL, NULL);

        for (size_t k = 0; k < g->n_content; k++)
            if (cube ? (i >> k & 1) == 0 : k + i < g->n_content)
                set = new_set(p, set, elements[k]);
        if (!append(p, out, set))
            return false;
    }
    return true;
}

static bool add_sets(struct parser *p, struct query *q, Node *n, struct sets *out)
{
    PgQuery__GroupingSet *g;
    bool *set = new_set(p, NULL, NULL);

    if (n->node_case != PG_QUERY__NODE__NODE_GROUPING_SET)
        return element(p, q, n, set) && append(p, out, set);
    g = n->grouping_set;
    switch ((int)g->kind) {
    case PG_QUERY__GROUPING_SET_KIND__GROUPING_SET_EMPTY:
        return append(p, out, set);
    case PG_QUERY__GROUPING_SET_KIND__GROUPING_SET_ROLLUP:
    case PG_QUERY__GROUPING_SET_KIND__GROUPING_SET_CUBE:
        return rollup_or_cube(p, q, g, out);
    case PG_QUERY__GROUPING_SET_KIND__GROUPING_SET_SETS:
        for (size_t i = 0; i < g->n_content; i++)
            if (!add_sets(p, q, g->content[i], out))
                return false;
        return true;
    default:
        return parse_refuse(p, REFUSAL_GROUPING_SETS, "these grouping sets", NULL) != NULL;
    }
}

static void drop_duplicates(struct sets *s)
{
    int kept = 0;

    for (int i = 0; i < s->n; i++) {
        bool seen = false;

        for (int k = 0; k < kept && !seen; k++)
            seen = memcmp(s->sets[k], s->sets[i], KEYS_MAX * sizeof(bool)) == 0;
        if (!seen)
            s->sets[kept++] = s->sets[i];
    }
    s->n = kept;
}

bool parse_groups(struct parser *p, struct query *q, PgQuery__SelectStmt *s)
{
    struct sets all = { 0 };
    bool grouping_sets = false;

    for (size_t i = 0; i < s->n_group_clause; i++)
        grouping_sets =
            grouping_sets || s->group_clause[i]->node_case == PG_QUERY__NODE__NODE_GROUPING_SET;
    if (!grouping_sets) {
        for (size_t i = 0; i < s->n_group_clause; i++)
            if (key_of(p, q, s->group_clause[i]) < 0)
                return false;
        return true;
    }
    if (!append(p, &all, new_set(p, NULL, NULL)))
        return false;
    for (size_t i = 0; i < s->n_group_clause; i++) {
        struct sets one = { 0 }, both = { 0 };

        if (!add_sets(p, q, s->group_clause[i], &one) || !product(p, &all, &one, &both))
            return false;
        all = both;
    }
    if (s->group_distinct)
        drop_duplicates(&all);
    q->sets = all.sets;
    q->n_sets = all.n;
    q->n_set_keys = q->n_groups;
    return true;
}

bool parse_grouping_call(struct punch *c, Node *node)
{
    PgQuery__GroupingFunc *f = node->grouping_func;
    struct qgroup call = { .kind = GROUP_CALL, .key = parse_deparse(c->p, node) };

    if (!c->grouped || call.key == NULL || f->n_args > 31 || c->query->n_sets == 0)
        return parse_refuse(c->p, REFUSAL_GROUPING_SETS, "this GROUPING()", NULL) != NULL;
    call.n_args = (int)f->n_args;
    call.args = arena_new_array(c->p->a, int, f->n_args);
    for (int i = 0; i < call.n_args; i++) {
        const char *key = parse_deparse(c->p, f->args[i]);

        call.args[i] = key != NULL ? find_group(c->query, key) : -1;
        if (call.args[i] < 0 || call.args[i] >= c->query->n_set_keys)
            return parse_refuse(c->p, REFUSAL_GROUPING_SETS, "this GROUPING()", NULL) != NULL;
    }
    parse_punch_hole(
        c, node,
        (struct hole){ .kind = HOLE_GROUP, .index = parse_add_group(c->p, c->query, call) });
    return true;
}
