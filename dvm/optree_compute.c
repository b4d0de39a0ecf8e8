/* Expressions that depend on the time, or make one row many, are evaluated by projections alone:
 * grouping, windows and the like get them as columns. */
#include "dvm/optree_internal.h"

static bool must_be_computed(const struct expr *e)
{
    return e != NULL && (e->uses_time || e->returns_set);
}

/* Whether e differs at each refresh: not only from day to day, nor where a comparison flips. */
static bool always_changes(const struct expr *e)
{
    for (int i = 0; i < e->n_terms; i++)
        if (e->terms[i].kind == TERM_ALONE && !e->terms[i].coarse)
            return true;
    return false;
}

bool build_shows_time(const struct op *op)
{
    if (op == NULL)
        return false;
    for (int i = 0; op->kind == OP_PROJECT && i < op->n_columns; i++)
        if (op->needed[i] && always_changes(op->exprs[i]))
            return true;
    for (int i = 0; op->kind == OP_FUNCTION && i < op->n_functions; i++)
        if (always_changes(op->functions[i].call))
            return true;
    return build_shows_time(op->left) || build_shows_time(op->right);
}

struct op *build_computed(struct builder *b, struct op *child, struct expr ***places, int n)
{
    int n_all = child->n_columns, n_more = 0;
    struct expr **all;
    const char **names;

    for (int i = 0; i < n; i++)
        n_more += must_be_computed(*places[i]);
    if (n_more == 0)
        return child;
    all = arena_new_array(b->a, struct expr *, (size_t)(n_all + n_more));
    names = arena_new_array(b->a, const char *, (size_t)(n_all + n_more));
    for (int i = 0; i < n_all; i++) {
        all[i] = build_column_expr(b, i);
        names[i] = child->columns[i].name;
    }
    for (int i = 0; i < n; i++) {
        if (!must_be_computed(*places[i]))
            continue;
        all[n_all] = *places[i];
        names[n_all] = arena_printf(b->a, "computed%d", n_all);
        *places[i] = build_column_expr(b, n_all++);
    }
    return build_project(b, child, all, names, n_all);
}
