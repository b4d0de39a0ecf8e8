/* query -> operators: names become column indexes, joins get their predicates, keys
 * and nullability are derived.
 *
 * Keys are carried upwards by force: a projection that would lose its input's key
 * gets it as extra columns behind the named ones. Extra columns are invisible to
 * names, cost nothing when nobody needs them (`needed` is false then), and at the
 * root they are the hidden key columns of the stream table.
 */
#include "dvm/optree.h"

#include <stdlib.h>
#include <string.h>

#include "dvm/optree_internal.h"

void *build_refuse(struct builder *b, enum refusal_kind kind, const char *what)
{
    if (b->refused->kind == REFUSAL_NONE)
        *b->refused = (struct refusal){ .kind = kind, .what = what };
    return NULL;
}

struct op *build_new_op(struct builder *b, enum op_kind kind, int n_columns)
{
    struct op *op = arena_new(b->a, struct op);

    op->kind = kind;
    op->id = b->tree->n_ops++;
    op->n_columns = n_columns;
    op->columns = arena_new_array(b->a, struct op_column, (size_t)n_columns);
    op->needed = arena_new_array(b->a, bool, (size_t)n_columns);
    return op;
}

void build_set_key(struct builder *b, struct op *op, const int *key, int n)
{
    op->has_key = true;
    op->n_key = n;
    op->key = arena_new_array(b->a, int, (size_t)n);
    if (n > 0)
        memcpy(op->key, key, sizeof(int) * (size_t)n);
}

/* ---- expressions --------------------------------------------------------------------------- */

const struct scope_column *build_look_up(const struct scope *s, const struct hole *h)
{
    const struct scope_column *found = NULL;

    for (int i = 0; i < s->n; i++) {
        const struct scope_column *c = &s->columns[i];

        if (strcmp(c->name, h->name) != 0)
            continue;
        if (h->qualifier != NULL) {
            if (c->qualifier != NULL && strcmp(c->qualifier, h->qualifier) == 0)
                return c;
        } else if (!c->merged_away && found == NULL) {
            found = c;
        }
    }
    return found;
}

/* s: names of the input, NULL above a grouping. n_groups: where aggregates start. */
struct expr *build_resolve(struct builder *b, const struct qexpr *q, const struct scope *s,
                           int n_groups)
{
    struct expr *e = arena_new(b->a, struct expr);

    e->text = q->text;
    e->uses_time = q->uses_time;
    e->returns_set = q->returns_set;
    e->n_holes = q->n_holes;
    e->holes = arena_new_array(b->a, struct expr_hole, (size_t)q->n_holes);
    if (q->uses_time)
        b->tree->time_dependent = true;
    for (int i = 0; i < q->n_holes; i++) {
        const struct hole *h = &q->holes[i];
        const struct scope_column *c;

        switch (h->kind) {
        case HOLE_COLUMN:
            c = s != NULL ? build_look_up(s, h) : NULL;
            if (c != NULL)
                e->holes[i].column = c->column;
            else if (!build_resolve_outer(b, h, &e->holes[i]))
                return build_refuse(b, REFUSAL_OTHER,
                                    arena_printf(b->a, "the column reference %s", h->name));
            break;
        case HOLE_GROUP:
            e->holes[i].column = h->index;
            break;
        case HOLE_AGG:
            e->holes[i].column = n_groups + h->index;
            break;
        case HOLE_WINDOW:
            e->holes[i].column = s->windows[h->index];
            break;
        case HOLE_ARG:
            e->holes[i].column = s->args[h->index];
            break;
        case HOLE_TIME:
            e->holes[i] = (struct expr_hole){ .column = COLUMN_TIME, .time_type = h->name };
            break;
        case HOLE_SUBLINK:
            e->holes[i].column = build_sub_column(b, h->sublink);
            if (e->holes[i].column == -1)
                return build_refuse(b, REFUSAL_SUBLINK, "a subquery in this place");
            break;
        }
    }
    if (e->uses_time && build_is_correlated(e))
        return build_refuse(b, REFUSAL_TIME,
                            "the current time compared with a column from outside of a subquery");
    e->n_terms = q->n_terms;
    e->terms = arena_new_array(b->a, struct expr_term, (size_t)q->n_terms);
    for (int i = 0; i < q->n_terms; i++) {
        const struct qterm *from = &q->terms[i];
        struct expr_term *t = &e->terms[i];

        *t = (struct expr_term){
            .kind = from->kind, .op = from->op, .coarse = from->coarse, .absolute = from->absolute
        };
        t->time = from->time == q ? e : build_resolve(b, from->time, s, n_groups);
        if (t->time == NULL)
            return NULL;
        if (from->value != NULL && (t->value = build_resolve(b, from->value, s, n_groups)) == NULL)
            return NULL;
        if (from->shift != NULL && (t->shift = build_resolve(b, from->shift, s, n_groups)) == NULL)
            return NULL;
    }
    return e;
}

bool aggregate_is(const struct op_aggregate *g, const char *function)
{
    return g->schema == NULL && strcmp(g->function, function) == 0 && g->n_args <= 1 &&
           g->n_sort == 0 && !g->variadic;
}

int expr_plain_column(const struct expr *e)
{
    return e->n_holes == 1 && e->holes[0].column >= 0 && strcmp(e->text, "__pgth0x") == 0
               ? e->holes[0].column
               : -1;
}

struct expr *build_column_expr(struct builder *b, int column)
{
    struct expr *e = arena_new(b->a, struct expr);

    e->text = "__pgth0x";
    e->n_holes = 1;
    e->holes = arena_new(b->a, struct expr_hole);
    e->holes[0].column = column;
    return e;
}

static void add_terms(struct builder *b, struct expr *e, const struct expr *part)
{
    int n = e->n_terms + part->n_terms;
    struct expr_term *all = arena_new_array(b->a, struct expr_term, (size_t)n);

    if (part->n_terms == 0)
        return;
    if (e->n_terms > 0)
        memcpy(all, e->terms, sizeof(*all) * (size_t)e->n_terms);
    memcpy(all + e->n_terms, part->terms, sizeof(*all) * (size_t)part->n_terms);
    e->terms = all;
    e->n_terms = n;
}

/* (a) AND (b) AND …, flat however many: PostgreSQL's parser bounds nesting. NULL for none. */
struct expr *build_expr_all(struct builder *b, struct expr *const *parts, int n)
{
    struct expr *e;
    struct text t;
    int n_holes = 0, before = 0;

    if (n <= 1)
        return n == 1 ? parts[0] : NULL;
    for (int i = 0; i < n; i++)
        n_holes += parts[i]->n_holes;
    e = arena_new(b->a, struct expr);
    e->n_holes = n_holes;
    e->holes = arena_new_array(b->a, struct expr_hole, (size_t)n_holes);
    text_init(&t);
    for (int i = 0; i < n; i++) {
        const struct expr *part = parts[i];

        e->uses_time = e->uses_time || part->uses_time;
        add_terms(b, e, part);
        if (part->n_holes > 0)
            memcpy(e->holes + before, part->holes, sizeof(*e->holes) * (size_t)part->n_holes);
        text_put(&t, i > 0 ? " AND (" : "(");
        for (const char *at = part->text; *at != '\0';) {
            char *end;

            if (strncmp(at, "__pgth", 6) != 0) {
                text_put_char(&t, *at++);
                continue;
            }
            text_printf(&t, "__pgth%ldx", strtol(at + 6, &end, 10) + before);
            at = end + 1;
        }
        text_put_char(&t, ')');
        before += part->n_holes;
    }
    e->text = arena_strdup(b->a, t.ptr);
    text_free(&t);
    return e;
}

bool build_is_equality(const struct expr *e, int *x, int *y)
{
    if (e->n_holes != 2 || e->uses_time || strcmp(e->text, "__pgth0x = __pgth1x") != 0)
        return false;
    *x = e->holes[0].column;
    *y = e->holes[1].column;
    return true;
}

/* ---- operators ----------------------------------------------------------------------------- */

struct op *build_filter(struct builder *b, struct op *child, struct expr *predicate)
{
    struct op *op;

    if (predicate == NULL || child == NULL)
        return child;
    op = build_new_op(b, OP_FILTER, child->n_columns);
    op->left = child;
    op->predicate = predicate;
    memcpy(op->columns, child->columns, sizeof(*op->columns) * (size_t)child->n_columns);
    op->carry = child->carry;
    op->n_carry = child->n_carry;
    if (child->has_key)
        build_set_key(b, op, child->key, child->n_key);
    return op;
}

/* Where exprs, n of them and more at the end when it must be, show the child's columns. */
static int *carry_columns(struct builder *b, const int *columns, int n_columns, struct expr **exprs,
                          int *n)
{
    int *at = arena_new_array(b->a, int, (size_t)n_columns);

    for (int k = 0; k < n_columns; k++) {
        at[k] = -1;
        for (int i = 0; i < *n && at[k] < 0; i++)
            if (expr_plain_column(exprs[i]) == columns[k])
                at[k] = i;
        if (at[k] < 0) {
            at[k] = *n;
            exprs[(*n)++] = build_column_expr(b, columns[k]);
        }
    }
    return at;
}

/* Named outputs, then the child's key and partition where the named ones lack them. */
struct op *build_project(struct builder *b, struct op *child, struct expr **exprs,
                         const char **names, int n)
{
    bool expands = false;
    int n_key, n_carry;
    struct expr **all =
        arena_new_array(b->a, struct expr *, (size_t)(n + child->n_key + child->n_carry));
    struct op *op;
    int n_all = n;
    int *key, *carry;

    for (int i = 0; i < n; i++)
        expands = expands || exprs[i]->returns_set;
    n_key = child->has_key && !expands ? child->n_key : 0;
    n_carry = expands ? 0 : child->n_carry;

    memcpy(all, exprs, sizeof(*all) * (size_t)n);
    key = carry_columns(b, child->key, n_key, all, &n_all);
    carry = carry_columns(b, child->carry, n_carry, all, &n_all);
    op = build_new_op(b, OP_PROJECT, n_all);
    op->carry = carry;
    op->n_carry = n_carry;
    op->expands = expands;
    op->left = child;
    op->exprs = all;
    op->n_exprs = n_all;
    for (int i = 0; i < n_all; i++) {
        int plain = expr_plain_column(all[i]);

        op->columns[i].name = i < n ? names[i] : child->columns[plain].name;
        op->columns[i].not_null = plain >= 0 && child->columns[plain].not_null;
    }
    if (child->has_key && !expands)
        build_set_key(b, op, key, n_key);
    return op;
}

/* Whether predicates equate every column of side's key with the other side. */
static bool key_is_equated(struct op *side, int offset, int other_from, int other_to,
                           struct expr **conjuncts, int n)
{
    if (!side->has_key)
        return false;
    for (int k = 0; k < side->n_key; k++) {
        bool found = false;

        for (int i = 0; i < n && !found; i++) {
            int x, y;

            if (!build_is_equality(conjuncts[i], &x, &y))
                continue;
            found = (x == side->key[k] + offset && y >= other_from && y < other_to) ||
                    (y == side->key[k] + offset && x >= other_from && x < other_to);
        }
        if (!found)
            return false;
    }
    return true;
}

struct op *build_join_op(struct builder *b, enum op_kind kind, struct op *l, struct op *r,
                         struct expr **conjuncts, int n)
{
    struct op *op = build_new_op(b, kind, l->n_columns + r->n_columns);
    int nl = l->n_columns;
    bool right_single = key_is_equated(r, nl, 0, nl, conjuncts, n);
    bool left_single = kind == OP_JOIN && key_is_equated(l, 0, nl, nl + r->n_columns, conjuncts, n);
    int *key = arena_new_array(b->a, int, (size_t)(l->n_key + r->n_key));
    int n_key = 0;

    op->left = l;
    op->right = r;
    op->predicate = build_expr_all(b, conjuncts, n);
    op->conjuncts = arena_new_array(b->a, struct expr *, (size_t)n);
    if (n > 0)
        memcpy(op->conjuncts, conjuncts, sizeof(*conjuncts) * (size_t)n);
    op->n_conjuncts = n;
    memcpy(op->columns, l->columns, sizeof(*op->columns) * (size_t)nl);
    for (int i = 0; i < r->n_columns; i++) {
        op->columns[nl + i] = r->columns[i];
        if (kind == OP_LEFT_JOIN)
            op->columns[nl + i].not_null = false;
    }
    if (right_single && l->has_key) {
        build_set_key(b, op, l->key, l->n_key);
    } else if (l->has_key && r->has_key) {
        for (int i = 0; !left_single && i < l->n_key; i++)
            key[n_key++] = l->key[i];
        for (int i = 0; i < r->n_key; i++)
            key[n_key++] = r->key[i] + nl;
        build_set_key(b, op, key, n_key);
    }
    return op;
}

struct op *build_group_op(struct builder *b, struct op *child, struct expr **keys,
                          const char **names, int n_keys, struct op_aggregate *aggregates,
                          int n_aggregates)
{
    struct op *op = build_new_op(b, OP_GROUP, n_keys + n_aggregates);
    int *key = arena_new_array(b->a, int, (size_t)n_keys);

    op->left = child;
    op->exprs = keys;
    op->n_exprs = n_keys;
    op->aggregates = aggregates;
    op->n_aggregates = n_aggregates;
    for (int i = 0; i < n_keys; i++) {
        int plain = expr_plain_column(keys[i]);

        key[i] = i;
        op->columns[i].name = names != NULL ? names[i]
                              : plain >= 0  ? child->columns[plain].name
                                            : arena_printf(b->a, "key%d", i + 1);
        op->columns[i].not_null = plain >= 0 && child->columns[plain].not_null;
    }
    for (int i = 0; i < n_aggregates; i++) {
        op->columns[n_keys + i].name = aggregates[i].function;
        op->columns[n_keys + i].not_null = aggregate_is(&aggregates[i], "count");
    }
    build_set_key(b, op, key, n_keys);
    return op;
}

/* ---- FROM ---------------------------------------------------------------------------------- */

void build_scope_add(struct builder *b, struct scope *s, const char *qualifier, const char *name,
                     int column)
{
    struct scope_column *more = arena_new_array(b->a, struct scope_column, (size_t)s->n + 1);

    if (s->n > 0)
        memcpy(more, s->columns, sizeof(*more) * (size_t)s->n);
    more[s->n] = (struct scope_column){ qualifier, name, column, false };
    s->columns = more;
    s->n++;
}

const char *build_column_name(const struct from_item *item, int i, const char *own)
{
    return i < item->n_column_aliases ? item->column_aliases[i] : own;
}

static int source_index(struct builder *b, const struct cat_table *table)
{
    struct optree *t = b->tree;

    for (int i = 0; i < t->n_sources; i++) {
        if (t->sources[i] == table) {
            t->scans_of[i]++;
            return i;
        }
    }
    t->sources[t->n_sources] = table;
    t->scans_of[t->n_sources] = 1;
    return t->n_sources++;
}

static struct op *build_scan(struct builder *b, const struct from_item *item, struct scope *s)
{
    const struct cat_table *table = NULL;
    struct op *op;
    int named = 0;

    for (int i = 0; i < b->cat->n_tables; i++)
        if (strcmp(b->cat->tables[i].name, item->name) == 0 &&
            strcmp(b->cat->tables[i].schema, item->schema) == 0)
            table = &b->cat->tables[i];
    if (table == NULL)
        return build_refuse(b, REFUSAL_OTHER, "this source");
    if (item->only && table->has_children)
        return build_refuse(b, REFUSAL_OTHER, "ONLY");
    op = build_new_op(b, OP_SCAN, table->n_columns);
    op->table = table;
    op->source = source_index(b, table);
    for (int i = 0; i < table->n_columns; i++) {
        op->columns[i].name = table->columns[i].name;
        /* NOT NULL may be NO INHERIT. */
        op->columns[i].not_null =
            table->columns[i].not_null && (!table->has_children || table->relkind == 'p');
        if (table->is_stream_table && strncmp(table->columns[i].name, "__pgt_", 6) == 0)
            continue;
        build_scope_add(b, s, item->alias, build_column_name(item, named, table->columns[i].name),
                        i);
        named++;
    }
    /* A unique index of a parent says nothing of its heirs; that of a partitioned table does. */
    for (int k = 0;
         (!table->has_children || table->relkind == 'p') && k < table->n_keys && !op->has_key; k++)
        build_set_key(b, op, table->keys[k].columns, table->keys[k].n);
    return op;
}

/* The conjuncts of q, resolved; those that use time are set apart. */
bool build_split_conjuncts(struct builder *b, const struct qexpr *q, const struct scope *s,
                           int n_groups, struct expr ***plain, int *n_plain, struct expr ***timed,
                           int *n_timed)
{
    int n = q == NULL ? 0 : q->n_conjuncts > 0 ? q->n_conjuncts : 1;

    *plain = arena_new_array(b->a, struct expr *, (size_t)n);
    *timed = arena_new_array(b->a, struct expr *, (size_t)n);
    *n_plain = *n_timed = 0;
    for (int i = 0; i < n; i++) {
        const struct qexpr *part = q->n_conjuncts > 0 ? q->conjuncts[i] : q;
        struct expr *e;

        if (build_has_sublink(part))
            continue;
        e = build_resolve(b, part, s, n_groups);
        if (e == NULL)
            return false;
        if (e->uses_time)
            (*timed)[(*n_timed)++] = e;
        else
            (*plain)[(*n_plain)++] = e;
    }
    return true;
}

static bool within(const struct expr *e, int from, int to)
{
    for (int i = 0; i < e->n_holes; i++)
        if (e->holes[i].column >= 0 && (e->holes[i].column < from || e->holes[i].column >= to))
            return false;
    return true;
}

/* l JOIN f(l.x) ON …, left or inner: the function sees what is to its left. */
static struct op *build_function_join(struct builder *b, const struct from_item *item,
                                      const struct from_item *function, struct op *l,
                                      struct scope *left, struct scope *s)
{
    struct expr **on, **timed;
    int n_on, n_timed;
    struct op *op;

    *s = *left;
    op = build_function(b, function, l, left, s);
    if (op == NULL || !build_split_conjuncts(b, item->on, s, 0, &on, &n_on, &timed, &n_timed))
        return NULL;
    if (item->join == JOIN_INNER) {
        op = build_filter(b, op, build_expr_all(b, on, n_on));
        for (int i = 0; i < n_timed; i++)
            op = build_filter(b, op, timed[i]);
        return op;
    }
    if (n_timed > 0)
        return build_refuse(b, REFUSAL_TIME, "the current time in the ON of an outer join");
    op->padded = true;
    op->predicate = build_expr_all(b, on, n_on);
    op->columns[op->n_columns - 1].not_null = false;
    return op;
}

void build_scope_join(struct builder *b, struct scope *s, const struct scope *left,
                      const struct scope *right, int n_left)
{
    for (int i = 0; i < left->n + right->n; i++) {
        const struct scope_column *c =
            i < left->n ? &left->columns[i] : &right->columns[i - left->n];

        build_scope_add(b, s, c->qualifier, c->name, c->column + (i < left->n ? 0 : n_left));
        s->columns[s->n - 1].merged_away = c->merged_away;
    }
}

static struct op *build_join(struct builder *b, const struct from_item *item, struct scope *s)
{
    bool swap = item->join == JOIN_RIGHT;
    bool sub_on = item->join == JOIN_LEFT && build_has_sublink(item->on);
    struct frame f = { 0 };
    struct scope left = { 0 }, right = { 0 };
    const struct from_item *second = swap ? item->left : item->right;
    struct op *l = build_from(b, swap ? item->right : item->left, &left);
    struct op *r;
    struct expr **on, **timed, **outer;
    struct op *op;
    int n_on, n_timed, n_outer;

    if (l == NULL)
        return NULL;
    if (second->kind == FROM_FUNCTION && item->n_using == 0)
        return build_function_join(b, item, second, l, &left, s);
    if (sub_on || build_has_lateral(item->right))
        build_frame_push(b, &f, &left);
    r = build_from(b, second, &right);
    if (f.id != 0)
        build_frame_pop(b);
    if (r == NULL)
        return NULL;
    if (f.id != 0 && (sub_on || build_refers_to(r, &f)))
        return build_join_per_row(b, item, &f, l, r, &right, s);
    if (item->join != JOIN_INNER && build_has_sublink(item->on))
        return build_refuse(b, REFUSAL_SUBLINK, "a subquery in the ON of this join");
    build_scope_join(b, s, &left, &right, l->n_columns);
    if (!build_split_conjuncts(b, item->on, s, 0, &on, &n_on, &timed, &n_timed))
        return NULL;
    if (item->n_using > 0)
        on = arena_new_array(b->a, struct expr *, (size_t)item->n_using);
    for (int u = 0; u < item->n_using; u++) {
        struct hole bare = { .kind = HOLE_COLUMN, .name = item->using_columns[u] };
        const struct scope_column *x = build_look_up(&left, &bare);
        const struct scope_column *y = build_look_up(&right, &bare);
        struct expr *e = arena_new(b->a, struct expr);

        if (x == NULL || y == NULL)
            return build_refuse(b, REFUSAL_OTHER, "this USING");
        e->text = "__pgth0x = __pgth1x";
        e->n_holes = 2;
        e->holes = arena_new_array(b->a, struct expr_hole, 2);
        e->holes[0].column = x->column;
        e->holes[1].column = y->column + l->n_columns;
        on[n_on++] = e;
        for (int i = 0; i < s->n; i++)
            if (s->columns[i].column == y->column + l->n_columns)
                s->columns[i].merged_away = true;
    }
    if (item->join == JOIN_FULL) {
        if (n_timed > 0)
            return build_refuse(b, REFUSAL_TIME, "the current time in the ON of a FULL JOIN");
        op = build_full_join(b, l, r, on, n_on);
        return op == NULL || item->n_using == 0
                   ? op
                   : build_merged_columns(b, item, op, &left, &right, l->n_columns, s);
    }
    /* What ON says of the rows to be matched alone says which they are. */
    for (int i = 0; item->join != JOIN_INNER && i < n_timed; i++) {
        if (!within(timed[i], l->n_columns, l->n_columns + r->n_columns))
            return build_refuse(b, REFUSAL_TIME, "the current time in the ON of an outer join");
        r = build_filter(b, r, build_shifted(b, timed[i], -l->n_columns));
    }
    n_timed = item->join != JOIN_INNER ? 0 : n_timed;
    outer = build_take_correlated(b, on, item->join == JOIN_INNER ? &n_on : &(int){ 0 }, &n_outer);
    op = build_join_op(b, item->join == JOIN_INNER ? OP_JOIN : OP_LEFT_JOIN, l, r, on, n_on);
    op = build_filter_all(b, op, outer, n_outer);
    for (int i = 0; i < n_timed; i++)
        op = build_filter(b, op, timed[i]);
    if (!build_sub_conjuncts(b, &op, item->on, &(struct stage){ .scope = s }))
        return NULL;
    return op;
}

struct op *build_from(struct builder *b, const struct from_item *item, struct scope *s)
{
    struct op *op;
    int n_named;

    switch (item->kind) {
    case FROM_TABLE:
        return build_scan(b, item, s);
    case FROM_JOIN:
        return build_join(b, item, s);
    case FROM_SELF:
        return build_self(b, item, s);
    case FROM_FUNCTION:
        return build_function(b, item, build_one_row(b), &(struct scope){ 0 }, s);
    case FROM_SUBQUERY:
        op = build_query(b, item->subquery, &n_named);
        for (int i = 0; op != NULL && i < n_named; i++)
            build_scope_add(b, s, item->alias,
                            build_column_name(item, i, item->subquery->targets[i].name), i);
        return op;
    }
    return NULL;
}

struct expr *build_shifted(struct builder *b, const struct expr *e, int by)
{
    struct expr *s = arena_new(b->a, struct expr);

    *s = *e;
    s->holes = arena_new_array(b->a, struct expr_hole, (size_t)e->n_holes);
    for (int i = 0; i < e->n_holes; i++) {
        s->holes[i] = e->holes[i];
        if (s->holes[i].column >= 0)
            s->holes[i].column += by;
    }
    s->terms = arena_new_array(b->a, struct expr_term, (size_t)e->n_terms);
    for (int i = 0; i < e->n_terms; i++) {
        s->terms[i] = e->terms[i];
        if (e->terms[i].value != NULL)
            s->terms[i].value = build_shifted(b, e->terms[i].value, by);
    }
    return s;
}

/* FROM a, b, c WHERE …: each conjunct goes to the first place where its columns are together, so
 * that a delta never becomes a cross product. */
struct op *build_from_where(struct builder *b, const struct query *q, struct scope *s)
{
    struct op **items = arena_new_array(b->a, struct op *, (size_t)q->n_from);
    int *start = arena_new_array(b->a, int, (size_t)q->n_from + 1);
    struct frame **frames = arena_new_array(b->a, struct frame *, (size_t)q->n_from);
    struct expr **plain, **timed, **outer;
    struct op *op = NULL;
    int n_plain, n_timed, n_outer;

    for (int i = 0; i < q->n_from; i++) {
        const struct from_item *item = q->from[i];
        struct scope own = { 0 }, before = *s;

        /* A function is built where all to its left is there. */
        if (i > 0 && item->kind == FROM_FUNCTION) {
            for (int c = 0; c < item->n_column_aliases; c++)
                build_scope_add(b, s, item->alias, item->column_aliases[c], start[i] + c);
            start[i + 1] = start[i] + item->n_column_aliases;
            continue;
        }
        if (i > 0 && build_has_lateral(item)) {
            frames[i] = arena_new(b->a, struct frame);
            build_frame_push(b, frames[i], &before);
        }
        items[i] = build_from(b, item, &own);
        if (frames[i] != NULL)
            build_frame_pop(b);
        if (items[i] == NULL)
            return NULL;
        *s = (struct scope){ 0 };
        build_scope_join(b, s, &before, &own, start[i]);
        start[i + 1] = start[i] + items[i]->n_columns;
    }
    if (!build_split_conjuncts(b, q->where, s, 0, &plain, &n_plain, &timed, &n_timed))
        return NULL;
    outer = build_take_correlated(b, plain, &n_plain, &n_outer);
    if (q->n_from == 0)
        op = build_filter(b, build_one_row(b), build_expr_all(b, plain, n_plain));
    for (int i = 0; i < q->n_from; i++) {
        struct expr **here = arena_new_array(b->a, struct expr *, (size_t)n_plain);
        struct expr **own = arena_new_array(b->a, struct expr *, (size_t)n_plain);
        int n_here = 0, n_own = 0;
        bool per_row = frames[i] != NULL && build_refers_to(items[i], frames[i]);

        for (int c = 0; c < n_plain; c++) {
            if (plain[c] == NULL)
                continue;
            if (items[i] != NULL && !per_row && within(plain[c], start[i], start[i + 1]))
                own[n_own++] = build_shifted(b, plain[c], -start[i]);
            else if (i > 0 && within(plain[c], 0, start[i + 1]))
                here[n_here++] = plain[c];
            else
                continue;
            plain[c] = NULL;
        }
        if (items[i] == NULL) {
            struct scope known = { 0 };

            op = build_function(b, q->from[i], build_ordered_joins(b, op), s, &known);
            if (op == NULL)
                return NULL;
            op = build_filter(b, op, build_expr_all(b, here, n_here));
            continue;
        }
        items[i] = build_filter(b, items[i], build_expr_all(b, own, n_own));
        if (per_row) {
            op = build_apply(b, frames[i], build_ordered_joins(b, op), items[i], false);
            if (op == NULL)
                return NULL;
            op = build_filter_all(b, op, here, n_here);
        } else {
            op = op == NULL ? items[i] : build_join_op(b, OP_JOIN, op, items[i], here, n_here);
        }
    }
    op = build_filter_all(b, build_ordered_joins(b, op), outer, n_outer);
    for (int i = 0; i < n_timed; i++)
        op = build_filter(b, op, timed[i]);
    return build_sub_conjuncts(b, &op, q->where, &(struct stage){ .scope = s }) ? op : NULL;
}

/* ---- SELECT -------------------------------------------------------------------------------- */

bool build_covers_key(const struct op *child, struct expr **exprs, int n)
{
    if (!child->has_key)
        return false;
    for (int k = 0; k < child->n_key; k++) {
        bool found = false;

        for (int i = 0; i < n && !found; i++)
            found = expr_plain_column(exprs[i]) == child->key[k];
        if (!found)
            return false;
    }
    return true;
}

/* DISTINCT over the first n columns. */
struct op *build_distinct(struct builder *b, struct op *child, int n)
{
    struct expr **keys = arena_new_array(b->a, struct expr *, (size_t)n);
    const char **names = arena_new_array(b->a, const char *, (size_t)n);

    for (int i = 0; i < n; i++) {
        keys[i] = build_column_expr(b, i);
        names[i] = child->columns[i].name;
    }
    if (build_covers_key(child, keys, n))
        return child;
    return build_group_op(b, child, keys, names, n, NULL, 0);
}

static struct op *build_select(struct builder *b, const struct query *q)
{
    struct scope s = { 0 };
    const struct scope *names = &s;
    struct op *op = build_from_where(b, q, &s);
    size_t n_most = (size_t)(q->n_targets + q->n_sort);
    struct expr **outputs = arena_new_array(b->a, struct expr *, n_most);
    const char **output_names = arena_new_array(b->a, const char *, n_most);
    int *sort = arena_new_array(b->a, int, (size_t)q->n_sort);
    int n = q->n_targets;

    struct scope before; /* of the grouping */
    struct stage at = { .scope = &before };

    before = s;
    if (op == NULL || !build_select_values(b, &op, q, &at))
        return NULL;
    if (q->grouped) {
        struct expr **plain, **timed;
        int n_plain, n_timed;

        op = build_grouping(b, q, op, &s);
        if (op == NULL)
            return NULL;
        names = NULL;
        if (!build_stage_groups(b, q, &at))
            return NULL;
        if (!build_split_conjuncts(b, q->having, NULL, q->n_groups, &plain, &n_plain, &timed,
                                   &n_timed))
            return NULL;
        op = build_filter(b, op, build_expr_all(b, plain, n_plain));
        for (int i = 0; i < n_timed; i++)
            op = build_filter(b, op, timed[i]);
        if (!build_sub_conjuncts(b, &op, q->having, &at) || !build_select_values(b, &op, q, &at))
            return NULL;
    }
    if (q->n_windows > 0) {
        if (q->grouped)
            s = (struct scope){ 0 };
        names = &s;
        if ((op = build_windows(b, q, op, &s)) == NULL)
            return NULL;
    }
    if (q->distinct == DISTINCT_ON && (op = build_distinct_on(b, q, op, names)) == NULL)
        return NULL;
    for (int i = 0; i < q->n_targets; i++) {
        outputs[i] = build_resolve(b, q->targets[i].expr, names, q->n_groups);
        output_names[i] = q->targets[i].name;
    }
    for (int i = 0; q->has_limit && i < q->n_sort; i++) {
        sort[i] = q->sort[i].column;
        if (sort[i] >= 0)
            continue;
        sort[i] = n;
        output_names[n] = "sort";
        outputs[n++] = build_resolve(b, q->sort[i].expr, names, q->n_groups);
    }
    for (int i = 0; i < n; i++)
        if (outputs[i] == NULL)
            return NULL;
    op = build_project(b, op, outputs, output_names, n);
    if (op->expands && q->distinct == DISTINCT_ON)
        return build_refuse(b, REFUSAL_FUNCTION, "DISTINCT ON with a set-returning function");
    if (q->distinct == DISTINCT_ROWS)
        op = build_distinct(b, op, q->n_targets);
    return q->has_limit ? build_limit(b, q, op, sort) : op;
}

/* Only the named columns, without those that carry keys. */
struct op *build_named_only(struct builder *b, struct op *child, int n)
{
    struct op *op;
    bool keeps_key = child->has_key;

    if (child->n_columns == n)
        return child;
    op = build_new_op(b, OP_PROJECT, n);
    op->left = child;
    op->n_exprs = n;
    op->exprs = arena_new_array(b->a, struct expr *, (size_t)n);
    for (int i = 0; i < n; i++) {
        op->exprs[i] = build_column_expr(b, i);
        op->columns[i] = child->columns[i];
    }
    for (int k = 0; k < child->n_key; k++)
        keeps_key = keeps_key && child->key[k] < n;
    if (keeps_key)
        build_set_key(b, op, child->key, child->n_key);
    return op;
}

struct op *build_query(struct builder *b, const struct query *q, int *n_named)
{
    *n_named = q->n_targets;
    if (q->kind == QUERY_RECURSIVE)
        return build_recursive(b, q, n_named);
    return q->kind == QUERY_SELECT ? build_select(b, q) : build_set_operation(b, q);
}

/* ---- what is needed ------------------------------------------------------------------------ */

static void need_expr(const struct expr *e, bool *wanted)
{
    for (int i = 0; e != NULL && i < e->n_holes; i++)
        if (e->holes[i].column >= 0)
            wanted[e->holes[i].column] = true;
}

static void need_aggregate(const struct op_aggregate *g, bool *wanted)
{
    for (int i = 0; i < g->n_args; i++)
        need_expr(g->args[i], wanted);
    for (int i = 0; i < g->n_sort; i++)
        need_expr(g->sort[i], wanted);
    need_expr(g->filter, wanted);
}

static void need_window(struct op *op, bool *wanted)
{
    const struct op *child = op->left;
    bool ties = false;

    for (int i = 0; i < op->n_exprs; i++)
        op->needed[expr_plain_column(op->exprs[i])] = true;
    for (int i = 0; i < op->n_windows; i++) {
        const struct op_window *w = &op->windows[i];

        if (!op->needed[child->n_columns + i])
            continue;
        ties = ties || w->ties != TIES_NONE;
        need_expr(w->call, wanted);
        for (int k = 0; k < w->n_sort; k++)
            need_expr(w->sort[k], wanted);
    }
    for (int i = 0; i < child->n_columns; i++)
        wanted[i] = wanted[i] || op->needed[i];
    for (int i = 0; ties && child->has_key && i < child->n_key; i++)
        wanted[child->key[i]] = true;
}

static void need_children(struct op *op, bool *wanted)
{
    switch (op->kind) {
    case OP_SCAN:
    case OP_VALUES:
    case OP_SELF:
        break;
    case OP_JOIN:
    case OP_LEFT_JOIN:
        build_need(op->left, wanted);
        build_need(op->right, wanted + op->left->n_columns);
        break;
    case OP_UNION_ALL:
    case OP_RECURSIVE:
        build_need(op->left, wanted);
        build_need(op->right, wanted);
        break;
    case OP_SUBFILTER:
    case OP_SUBVALUE:
    case OP_APPLY:
        build_need_sub(op, wanted);
        build_need(op->left, wanted);
        break;
    case OP_FUNCTION:
    case OP_FILTER:
    case OP_PROJECT:
    case OP_GROUP:
    case OP_DISTINCT_ON:
    case OP_WINDOW:
    case OP_REPEAT:
    case OP_LIMIT:
        build_need(op->left, wanted);
        break;
    }
}

void build_need(struct op *op, const bool *wanted)
{
    size_t n_input = 1;
    bool *input;

    if (op == NULL)
        return;
    n_input += (size_t)op->n_columns; /* a function's ON knows its own columns too */
    n_input += (size_t)(op->left != NULL ? op->left->n_columns : 0);
    n_input += (size_t)(op->right != NULL ? op->right->n_columns : 0);
    input = mem_alloc(n_input * sizeof(bool));
    for (int i = 0; i < op->n_columns; i++) {
        op->needed[i] = op->needed[i] || wanted[i];
        /* DISTINCT: all columns are the key */
        if (op->kind == OP_GROUP && i < op->n_exprs)
            op->needed[i] = true;
        /* how many rows it makes is seen in every column */
        if (op->expands && op->exprs[i]->returns_set)
            op->needed[i] = true;
        /* the rounds of a recursion depend on whole rows */
        if (op->kind == OP_RECURSIVE || op->kind == OP_SELF)
            op->needed[i] = true;
    }
    need_expr(op->predicate, input);
    switch (op->kind) {
    case OP_SCAN:
    case OP_VALUES:
    case OP_SELF:
        break;
    case OP_RECURSIVE:
        for (int i = 0; i < op->n_columns; i++)
            input[i] = true;
        break;
    case OP_REPEAT:
        for (int i = 0; i < op->n_columns; i++)
            input[i] = op->needed[i];
        need_expr(op->exprs[0], input);
        break;
    case OP_FUNCTION:
        for (int i = 0; i < op->left->n_columns; i++)
            input[i] = input[i] || op->needed[i];
        for (int i = 0; i < op->n_functions; i++)
            need_expr(op->functions[i].call, input);
        break;
    case OP_FILTER:
    case OP_JOIN:
    case OP_LEFT_JOIN:
    case OP_UNION_ALL:
    case OP_DISTINCT_ON:
    case OP_LIMIT:
    case OP_SUBFILTER:
        for (int i = 0; i < op->n_columns; i++)
            input[i] = input[i] || op->needed[i];
        for (int i = 0; i < op->n_exprs; i++) {
            need_expr(op->exprs[i], input);
            op->needed[expr_plain_column(op->exprs[i])] = true;
        }
        for (int i = 0; i < op->n_sort; i++)
            need_expr(op->sort[i], input);
        break;
    case OP_WINDOW:
        need_window(op, input);
        break;
    case OP_SUBVALUE:
    case OP_APPLY:
        for (int i = 0; i < op->left->n_columns; i++)
            input[i] = op->needed[i];
        break;
    case OP_PROJECT:
        for (int i = 0; i < op->n_columns; i++)
            if (op->needed[i])
                need_expr(op->exprs[i], input);
        break;
    case OP_GROUP:
        for (int i = 0; i < op->n_exprs; i++)
            need_expr(op->exprs[i], input);
        for (int i = 0; i < op->n_aggregates; i++) {
            if (!op->needed[op->n_exprs + i])
                continue;
            need_aggregate(&op->aggregates[i], input);
        }
        break;
    }
    need_children(op, input);
    free(input);
}

struct optree *optree_build(struct arena *a, const struct catalog *cat, const struct query *q,
                            struct refusal *refused)
{
    struct builder b = { .a = a, .cat = cat, .refused = refused };
    struct optree *t = arena_new(a, struct optree);
    bool *all;

    *refused = (struct refusal){ 0 };
    t->sources = arena_new_array(a, const struct cat_table *, (size_t)cat->n_tables);
    t->scans_of = arena_new_array(a, int, (size_t)cat->n_tables);
    b.tree = t;
    t->root = build_query(&b, q, &t->n_outputs);
    if (t->root == NULL)
        return NULL;
    all = arena_new_array(a, bool, (size_t)t->root->n_columns);
    memset(all, true, (size_t)t->root->n_columns);
    build_need(t->root, all);
    t->shows_time = build_shows_time(t->root);
    return t;
}

/* ---- for people ---------------------------------------------------------------------------- */

const char *op_kind_name(enum op_kind kind)
{
    switch (kind) {
    case OP_SCAN:
        return "Scan";
    case OP_FUNCTION:
        return "Function";
    case OP_RECURSIVE:
        return "Recursive Union (evaluated as a whole)";
    case OP_SELF:
        return "Recursion";
    case OP_FILTER:
        return "Filter";
    case OP_PROJECT:
        return "Project";
    case OP_JOIN:
        return "Inner Join";
    case OP_LEFT_JOIN:
        return "Left Join";
    case OP_UNION_ALL:
        return "Union All";
    case OP_GROUP:
        return "Aggregate";
    case OP_DISTINCT_ON:
        return "Distinct On";
    case OP_WINDOW:
        return "Window";
    case OP_VALUES:
        return "Values";
    case OP_REPEAT:
        return "Repeat";
    case OP_LIMIT:
        return "Limit";
    case OP_SUBFILTER:
        return "Subquery Filter";
    case OP_SUBVALUE:
        return "Subquery Value";
    case OP_APPLY:
        return "Lateral";
    }
    return "?";
}

static const char *input_name(const struct op *op, int column)
{
    int nl = op->left->n_columns;

    if (op->right == NULL && column >= nl)
        return op->columns[column].name; /* a function's ON */
    return column < nl ? op->left->columns[column].name : op->right->columns[column - nl].name;
}

static void dump_expr(const struct op *op, const struct expr *e, struct text *out)
{
    const char *at = e->text;

    while (*at != '\0') {
        char *end;
        long n;

        if (strncmp(at, "__pgth", 6) != 0) {
            text_put_char(out, *at++);
            continue;
        }
        n = strtol(at + 6, &end, 10);
        if (e->holes[n].column == COLUMN_OUTER)
            text_printf(out, "<outer column %d>", e->holes[n].outer_column + 1);
        else if (e->holes[n].column == COLUMN_SUBQUERY)
            text_put(out, "<subquery>");
        else if (e->holes[n].column < 0)
            text_printf(out, "<time of the refresh>::%s", e->holes[n].time_type);
        else
            text_put(out, input_name(op, e->holes[n].column));
        at = end + 1;
    }
}

static void dump(const struct op *op, int depth, struct text *out)
{
    text_printf(out, "%*s%s%s", depth * 2, "", depth > 0 ? "-> " : "",
                op->kind == OP_GROUP && op->n_aggregates == 0 ? "Distinct"
                                                              : op_kind_name(op->kind));
    if (op->kind == OP_SCAN)
        text_printf(out, " on %s.%s", op->table->schema, op->table->name);
    if (op->predicate != NULL) {
        text_put(out, " (");
        dump_expr(op, op->predicate, out);
        text_put(out, ")");
    }
    if (op->kind == OP_GROUP || op->kind == OP_DISTINCT_ON || op->kind == OP_WINDOW) {
        text_put(out, " by (");
        for (int i = 0; i < op->n_exprs; i++) {
            text_put(out, i > 0 ? ", " : "");
            dump_expr(op, op->exprs[i], out);
        }
        text_put(out, ")");
        for (int i = 0; i < op->n_aggregates; i++)
            text_printf(out, "%s%s", i > 0 ? ", " : ": ", op->aggregates[i].function);
        for (int i = 0; i < op->n_windows; i++)
            text_printf(out, "%s%s", i > 0 ? ", " : ": ", op->windows[i].name);
    }
    if (op->kind == OP_LIMIT && op->limit >= 0)
        text_printf(out, " %lld%s", op->limit, op->with_ties ? " with ties" : "");
    if (op->kind == OP_LIMIT && op->offset > 0)
        text_printf(out, " offset %lld", op->offset);
    text_put(out, "\n");
    if (op->left != NULL)
        dump(op->left, depth + 1, out);
    if (op->right != NULL)
        dump(op->right, depth + 1, out);
}

void optree_dump(const struct optree *t, struct text *out)
{
    dump(t->root, 0, out);
}
