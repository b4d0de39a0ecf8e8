/* The order of inner joins.
 *
 * The delta of a join is computed side by side, d(L*R) = dL*R + L*dR - dL*dR, and that of a chain
 * of joins from left to right: what stands first meets all others. PostgreSQL can't reorder it,
 * since each step's delta is used twice. Hence the order is chosen here:
 *   - first the relation from which most others are reached by their whole key (the facts: lines of
 *     orders, say), so that a delta on its way never grows;
 *   - then what is reached by its whole key before what only shares a value, those that have a
 *     filter first, so that a delta becomes small early;
 *   - a cross product last.
 * Conditions on one relation go below the joins. A projection puts the columns back where the
 * definition's names expect them.
 */
#include <string.h>

#include "dvm/optree_internal.h"

struct chain {
    struct builder *b;
    struct op **leaves;
    int *start; /* leaf -> its first column in the chain's input */
    int n_leaves;
    struct expr **conjuncts; /* over the columns of the chain's input */
    int n_conjuncts;
};

/* ---- flat ---------------------------------------------------------------------------------- */

static void count(const struct op *op, int *n_leaves, int *n_conjuncts)
{
    if (op->kind != OP_JOIN) {
        (*n_leaves)++;
        return;
    }
    *n_conjuncts += op->n_conjuncts;
    count(op->left, n_leaves, n_conjuncts);
    count(op->right, n_leaves, n_conjuncts);
}

static void flatten(struct chain *c, struct op *op, int offset)
{
    if (op->kind != OP_JOIN) {
        c->leaves[c->n_leaves] = op;
        c->start[c->n_leaves++] = offset;
        return;
    }
    flatten(c, op->left, offset);
    flatten(c, op->right, offset + op->left->n_columns);
    for (int i = 0; i < op->n_conjuncts; i++)
        c->conjuncts[c->n_conjuncts++] = build_shifted(c->b, op->conjuncts[i], offset);
}

static int leaf_of(const struct chain *c, int column)
{
    int leaf = 0;

    while (leaf + 1 < c->n_leaves && c->start[leaf + 1] <= column)
        leaf++;
    return leaf;
}

/* The leaf that all columns of e are of; -1: several, or none. */
static int only_leaf(const struct chain *c, const struct expr *e)
{
    int only = -1;

    for (int i = 0; i < e->n_holes; i++) {
        int leaf;

        if (e->holes[i].column < 0)
            continue;
        leaf = leaf_of(c, e->holes[i].column);
        if (only >= 0 && leaf != only)
            return -1;
        only = leaf;
    }
    return only;
}

static bool push_down(struct chain *c)
{
    int n = c->n_conjuncts;
    struct expr **own = arena_new_array(c->b->a, struct expr *, (size_t)c->n_conjuncts);

    for (int leaf = 0; leaf < c->n_leaves; leaf++) {
        int n_own = 0, n_left = 0;

        for (int i = 0; i < c->n_conjuncts; i++) {
            if (only_leaf(c, c->conjuncts[i]) == leaf)
                own[n_own++] = build_shifted(c->b, c->conjuncts[i], -c->start[leaf]);
            else
                c->conjuncts[n_left++] = c->conjuncts[i];
        }
        c->n_conjuncts = n_left;
        c->leaves[leaf] = build_filter(c->b, c->leaves[leaf], build_expr_all(c->b, own, n_own));
    }
    return c->n_conjuncts < n;
}

/* ---- the order ----------------------------------------------------------------------------- */

static bool is_within(const struct chain *c, const struct expr *e, const bool *joined, int leaf)
{
    for (int i = 0; i < e->n_holes; i++) {
        int at = e->holes[i].column < 0 ? leaf : leaf_of(c, e->holes[i].column);

        if (at != leaf && !joined[at])
            return false;
    }
    return true;
}

/* Whether column x of leaf is equated with one of the joined leaves. */
static bool is_equated(const struct chain *c, int leaf, int x, const bool *joined)
{
    for (int i = 0; i < c->n_conjuncts; i++) {
        int l, r;

        if (!build_is_equality(c->conjuncts[i], &l, &r))
            continue;
        if ((x < 0 ? leaf_of(c, l) == leaf : l == c->start[leaf] + x) && joined[leaf_of(c, r)])
            return true;
        if ((x < 0 ? leaf_of(c, r) == leaf : r == c->start[leaf] + x) && joined[leaf_of(c, l)])
            return true;
    }
    return false;
}

static bool key_is_reached(const struct chain *c, int leaf, const bool *joined)
{
    const struct op *op = c->leaves[leaf];

    if (!op->has_key)
        return false;
    for (int k = 0; k < op->n_key; k++)
        if (!is_equated(c, leaf, op->key[k], joined))
            return false;
    return true;
}

static bool is_filtered(const struct op *op)
{
    return op->kind == OP_FILTER;
}

/* The less the sooner. */
static int rank(const struct chain *c, int leaf, const bool *joined)
{
    if (key_is_reached(c, leaf, joined))
        return is_filtered(c->leaves[leaf]) ? 0 : 1;
    if (is_equated(c, leaf, -1, joined))
        return is_filtered(c->leaves[leaf]) ? 2 : 3;
    for (int i = 0; i < c->n_conjuncts; i++)
        if (only_leaf(c, c->conjuncts[i]) < 0 && is_within(c, c->conjuncts[i], joined, leaf) &&
            !is_within(c, c->conjuncts[i], joined, -1))
            return 4;
    return 5;
}

/* How many leaves are reached from the first by their whole keys. */
static int n_reached(const struct chain *c, int first, bool *joined)
{
    int n = 0;
    bool more = true;

    memset(joined, 0, (size_t)c->n_leaves);
    joined[first] = true;
    while (more) {
        more = false;
        for (int leaf = 0; leaf < c->n_leaves; leaf++) {
            if (joined[leaf] || !key_is_reached(c, leaf, joined))
                continue;
            joined[leaf] = more = true;
            n++;
        }
    }
    return n;
}

static void choose_order(const struct chain *c, int *order)
{
    bool *joined = arena_new_array(c->b->a, bool, (size_t)c->n_leaves);
    int most = -1;

    for (int leaf = 0; leaf < c->n_leaves; leaf++) {
        int n = n_reached(c, leaf, joined);

        if (n > most) {
            most = n;
            order[0] = leaf;
        }
    }
    memset(joined, 0, (size_t)c->n_leaves);
    joined[order[0]] = true;
    for (int i = 1; i < c->n_leaves; i++) {
        int best = -1, best_rank = 0;

        for (int leaf = 0; leaf < c->n_leaves; leaf++) {
            int r = joined[leaf] ? 0 : rank(c, leaf, joined);

            if (!joined[leaf] && (best < 0 || r < best_rank)) {
                best = leaf;
                best_rank = r;
            }
        }
        order[i] = best;
        joined[best] = true;
    }
}

/* ---- joined again -------------------------------------------------------------------------- */

/* e over new places of the columns. */
static struct expr *moved(struct builder *b, const struct expr *e, const int *place)
{
    struct expr *m = build_shifted(b, e, 0);

    for (int i = 0; i < m->n_holes; i++)
        if (m->holes[i].column >= 0)
            m->holes[i].column = place[m->holes[i].column];
    return m;
}

static struct op *join_in_order(struct chain *c, const int *order, int *place)
{
    struct expr **here = arena_new_array(c->b->a, struct expr *, (size_t)c->n_conjuncts);
    bool *joined = arena_new_array(c->b->a, bool, (size_t)c->n_leaves);
    bool *placed = arena_new_array(c->b->a, bool, (size_t)c->n_conjuncts);
    struct op *op = NULL;
    int n_columns = 0;

    for (int i = 0; i < c->n_leaves; i++) {
        struct op *leaf = c->leaves[order[i]];
        int n_here = 0;

        for (int k = 0; k < leaf->n_columns; k++)
            place[c->start[order[i]] + k] = n_columns + k;
        n_columns += leaf->n_columns;
        for (int k = 0; i > 0 && k < c->n_conjuncts; k++) {
            if (placed[k] || !is_within(c, c->conjuncts[k], joined, order[i]))
                continue;
            placed[k] = true;
            here[n_here++] = moved(c->b, c->conjuncts[k], place);
        }
        joined[order[i]] = true;
        op = op == NULL ? leaf : build_join_op(c->b, OP_JOIN, op, leaf, here, n_here);
    }
    return op;
}

static bool is_in_place(const int *order, int n)
{
    for (int i = 0; i < n; i++)
        if (order[i] != i)
            return false;
    return true;
}

struct op *build_ordered_joins(struct builder *b, struct op *op)
{
    struct chain c = { .b = b };
    int n_leaves = 0, n_conjuncts = 0;
    struct op *joined, *project;
    const char **names;
    struct expr **exprs;
    int *order, *place;
    bool pushed;

    if (op->kind != OP_JOIN)
        return op;
    count(op, &n_leaves, &n_conjuncts);
    c.leaves = arena_new_array(b->a, struct op *, (size_t)n_leaves);
    c.start = arena_new_array(b->a, int, (size_t)n_leaves);
    c.conjuncts = arena_new_array(b->a, struct expr *, (size_t)n_conjuncts);
    flatten(&c, op, 0);
    pushed = push_down(&c);
    order = arena_new_array(b->a, int, (size_t)n_leaves);
    if (n_leaves > 2)
        choose_order(&c, order);
    else
        order[1] = 1;
    if (!pushed && is_in_place(order, n_leaves))
        return op;
    place = arena_new_array(b->a, int, (size_t)op->n_columns);
    joined = join_in_order(&c, order, place);
    if (is_in_place(order, n_leaves))
        return joined;
    exprs = arena_new_array(b->a, struct expr *, (size_t)op->n_columns);
    names = arena_new_array(b->a, const char *, (size_t)op->n_columns);
    for (int i = 0; i < op->n_columns; i++) {
        exprs[i] = build_column_expr(b, place[i]);
        names[i] = op->columns[i].name;
    }
    project = build_project(b, joined, exprs, names, op->n_columns);
    project->has_key = op->has_key;
    project->key = op->key;
    project->n_key = op->n_key;
    return project;
}
