/* Window calls. A call becomes a hole of the expression that it stands in, and a struct qwindow of
 * its query: the call without its OVER, and the window written out. */
#include <string.h>

#include "base/text.h"
#include "dvm/sql_parse_internal.h"

/* PostgreSQL's frameOptions (nodes/parsenodes.h). */
enum {
    FRAME_NONDEFAULT = 0x1,
    FRAME_RANGE = 0x2,
    FRAME_ROWS = 0x4,
    FRAME_GROUPS = 0x8,
    FRAME_START_UNBOUNDED_PRECEDING = 0x20,
    FRAME_END_UNBOUNDED_FOLLOWING = 0x100,
    FRAME_START_CURRENT_ROW = 0x200,
    FRAME_END_CURRENT_ROW = 0x400,
    FRAME_START_OFFSET_PRECEDING = 0x800,
    FRAME_END_OFFSET_PRECEDING = 0x1000,
    FRAME_START_OFFSET_FOLLOWING = 0x2000,
    FRAME_END_OFFSET_FOLLOWING = 0x4000,
    FRAME_EXCLUDE_CURRENT_ROW = 0x8000,
    FRAME_EXCLUDE_GROUP = 0x10000,
    FRAME_EXCLUDE_TIES = 0x20000,
};

/* ---- named windows ------------------------------------------------------------------------- */

struct naming {
    struct parser *p;
    PgQuery__SelectStmt *select;
};

static bool is_set(const char *name)
{
    return name != NULL && name[0] != '\0';
}

static PgQuery__WindowDef *find_window(const struct naming *n, const char *name)
{
    for (size_t i = 0; i < n->select->n_window_clause; i++) {
        PgQuery__WindowDef *w = n->select->window_clause[i]->window_def;

        if (is_set(w->name) && strcmp(w->name, name) == 0)
            return w;
    }
    return NULL;
}

/* A window made from another takes its PARTITION BY, and its ORDER BY when it has none itself; the
 * frame is its own. (Each name stands behind those that it uses: no cycles.) */
static bool complete_window(struct naming *n, PgQuery__WindowDef *w)
{
    const PgQuery__WindowDef *base;

    if (!is_set(w->refname))
        return true;
    base = find_window(n, w->refname);
    if (base == NULL || base == w || is_set(base->refname))
        return parse_refuse(n->p, REFUSAL_WINDOW, "this named window", NULL) != NULL;
    w->partition_clause = base->partition_clause;
    w->n_partition_clause = base->n_partition_clause;
    if (w->n_order_clause == 0) {
        w->order_clause = base->order_clause;
        w->n_order_clause = base->n_order_clause;
    }
    w->refname = NULL;
    return true;
}

static bool name_node(void *arg, Node *node)
{
    struct naming *n = arg;

    /* A subquery has names of its own. */
    if (node->node_case == PG_QUERY__NODE__NODE__NOT_SET ||
        node->node_case == PG_QUERY__NODE__NODE_SELECT_STMT)
        return true;
    if (node->node_case == PG_QUERY__NODE__NODE_FUNC_CALL && node->func_call->over != NULL) {
        PgQuery__FuncCall *f = node->func_call;

        if (is_set(f->over->name)) {
            const PgQuery__WindowDef *named = find_window(n, f->over->name);

            if (named == NULL)
                return parse_refuse(n->p, REFUSAL_WINDOW, "this named window", NULL) != NULL;
            f->over = arena_new(n->p->a, PgQuery__WindowDef);
            *f->over = *named;
            f->over->name = NULL;
        } else if (!complete_window(n, f->over)) {
            return false;
        }
    }
    return parse_each_child((ProtobufCMessage *)node->column_ref, name_node, n);
}

bool parse_name_windows(struct parser *p, PgQuery__SelectStmt *s)
{
    struct naming n = { p, s };

    for (size_t i = 0; i < s->n_window_clause; i++)
        if (!complete_window(&n, s->window_clause[i]->window_def))
            return false;
    for (size_t i = 0; i < s->n_target_list; i++)
        if (!name_node(&n, s->target_list[i]))
            return false;
    for (size_t i = 0; i < s->n_distinct_clause; i++)
        if (!name_node(&n, s->distinct_clause[i]))
            return false;
    for (size_t i = 0; i < s->n_sort_clause; i++)
        if (!name_node(&n, s->sort_clause[i]))
            return false;
    return true;
}

/* ---- one call ------------------------------------------------------------------------------ */

/* An offset of a frame: an expression without columns. */
static bool put_offset(struct parser *p, struct query *q, struct text *out, Node *node,
                       const char *direction)
{
    struct qexpr *e = node != NULL ? parse_expr(p, q, node, false) : NULL;

    if (e == NULL)
        return false;
    if (e->n_holes > 0)
        return parse_refuse(p, REFUSAL_WINDOW, "this offset of a window's frame", NULL) != NULL;
    text_printf(out, "(%s) %s", e->text, direction);
    return true;
}

static bool put_bounds(struct parser *p, struct query *q, struct text *out,
                       const PgQuery__WindowDef *w)
{
    int options = w->frame_options;

    text_put(out, (options & FRAME_ROWS) != 0     ? "ROWS BETWEEN "
                  : (options & FRAME_GROUPS) != 0 ? "GROUPS BETWEEN "
                                                  : "RANGE BETWEEN ");
    if ((options & FRAME_START_UNBOUNDED_PRECEDING) != 0)
        text_put(out, "UNBOUNDED PRECEDING");
    else if ((options & FRAME_START_CURRENT_ROW) != 0)
        text_put(out, "CURRENT ROW");
    else if (!put_offset(p, q, out, w->start_offset,
                         (options & FRAME_START_OFFSET_PRECEDING) != 0 ? "PRECEDING" : "FOLLOWING"))
        return false;
    text_put(out, " AND ");
    if ((options & FRAME_END_UNBOUNDED_FOLLOWING) != 0)
        text_put(out, "UNBOUNDED FOLLOWING");
    else if ((options & FRAME_END_CURRENT_ROW) != 0)
        text_put(out, "CURRENT ROW");
    else if (!put_offset(p, q, out, w->end_offset,
                         (options & FRAME_END_OFFSET_PRECEDING) != 0 ? "PRECEDING" : "FOLLOWING"))
        return false;
    if ((options & FRAME_EXCLUDE_CURRENT_ROW) != 0)
        text_put(out, " EXCLUDE CURRENT ROW");
    else if ((options & FRAME_EXCLUDE_GROUP) != 0)
        text_put(out, " EXCLUDE GROUP");
    else if ((options & FRAME_EXCLUDE_TIES) != 0)
        text_put(out, " EXCLUDE TIES");
    return true;
}

static bool add_frame(struct parser *p, struct query *q, struct qwindow *out,
                      const PgQuery__WindowDef *w)
{
    struct text t;
    bool ok;

    out->frame = "";
    out->peers = true;
    if ((w->frame_options & FRAME_NONDEFAULT) == 0)
        return true;
    out->peers = (w->frame_options & FRAME_ROWS) == 0 ||
                 (w->frame_options & (FRAME_EXCLUDE_GROUP | FRAME_EXCLUDE_TIES)) != 0;
    text_init(&t);
    ok = put_bounds(p, q, &t, w);
    if (ok)
        out->frame = arena_strdup(p->a, t.ptr);
    text_free(&t);
    return ok;
}

struct call_punch {
    struct punch *inner;
    struct qwindow *window;
};

/* An argument that uses the time is evaluated before the window. */
static bool punch_argument(void *arg, Node *node)
{
    struct call_punch *c = arg;
    struct parser *p = c->inner->p;
    struct qwindow *w = c->window;
    struct qexpr **more;

    if (!parse_has_time(node))
        return parse_punch_node(c->inner, node);
    more = arena_new_array(p->a, struct qexpr *, (size_t)w->n_args + 1);
    if (w->n_args > 0)
        memcpy(more, w->args, sizeof(*more) * (size_t)w->n_args);
    more[w->n_args] = parse_expr(p, c->inner->query, node, c->inner->grouped);
    if (more[w->n_args] == NULL)
        return false;
    w->args = more;
    parse_punch_hole(c->inner, node, (struct hole){ .kind = HOLE_ARG, .index = w->n_args++ });
    return true;
}

/* The call without OVER, its arguments punched. */
static struct qexpr *to_call(struct punch *c, const Node *node, struct qwindow *w)
{
    struct parser *p = c->p;
    struct punch inner = { .p = p, .query = c->query, .grouped = c->grouped };
    PgQuery__FuncCall *f = arena_new(p->a, PgQuery__FuncCall);
    Node *bare = arena_new(p->a, Node);

    *f = *node->func_call;
    f->over = NULL;
    *bare = *node;
    bare->func_call = f;
    bare = parse_node_copy(p, bare);
    inner.out = arena_new(p->a, struct qexpr);
    inner.out->key = parse_deparse(p, bare);
    if (inner.out->key == NULL || !parse_is_faithful(p, bare, inner.out->key))
        return parse_refuse(p, REFUSAL_WINDOW, "this window function", NULL);
    if (!parse_each_child((ProtobufCMessage *)bare->func_call, punch_argument,
                          &(struct call_punch){ &inner, w }))
        return NULL;
    inner.out->text = parse_deparse(p, bare);
    if (inner.out->text == NULL || !parse_is_faithful(p, bare, inner.out->text))
        return parse_refuse(p, REFUSAL_WINDOW, "this window function", NULL);
    return inner.out;
}

static bool add_order(struct punch *c, struct qwindow *out, const PgQuery__WindowDef *w)
{
    struct parser *p = c->p;

    out->n_partition = (int)w->n_partition_clause;
    out->partition = arena_new_array(p->a, struct qexpr *, w->n_partition_clause);
    for (int i = 0; i < out->n_partition; i++) {
        out->partition[i] = parse_expr(p, c->query, w->partition_clause[i], c->grouped);
        if (out->partition[i] == NULL)
            return false;
    }
    out->n_sort = (int)w->n_order_clause;
    out->sort = arena_new_array(p->a, struct qsort, w->n_order_clause);
    for (int i = 0; i < out->n_sort; i++) {
        PgQuery__SortBy *by = w->order_clause[i]->sort_by;

        if (by->n_use_op > 0)
            return parse_refuse(p, REFUSAL_OTHER, "ORDER BY … USING", NULL) != NULL;
        out->sort[i].expr = parse_expr(p, c->query, by->node, c->grouped);
        out->sort[i].suffix = parse_sort_suffix(by);
        if (out->sort[i].expr == NULL)
            return false;
    }
    return true;
}

bool parse_window(struct punch *c, Node *node)
{
    struct parser *p = c->p;
    struct query *q = c->query;
    const PgQuery__FuncCall *f = node->func_call;
    struct qwindow *w = arena_new(p->a, struct qwindow);
    struct qwindow **more;

    w->key = parse_deparse(p, node);
    for (int i = 0; w->key != NULL && i < q->n_windows; i++) {
        if (q->windows[i]->key != NULL && strcmp(q->windows[i]->key, w->key) == 0) {
            parse_punch_hole(c, node, (struct hole){ .kind = HOLE_WINDOW, .index = i });
            return true;
        }
    }
    w->function = f->n_funcname == 1 ? parse_node_string(f->funcname[0]) : NULL;
    w->call = to_call(c, node, w);
    if (w->call == NULL || !add_order(c, w, f->over) || !add_frame(p, q, w, f->over))
        return false;
    more = arena_new_array(p->a, struct qwindow *, (size_t)q->n_windows + 1);
    if (q->n_windows > 0)
        memcpy(more, q->windows, sizeof(*more) * (size_t)q->n_windows);
    more[q->n_windows] = w;
    q->windows = more;
    parse_punch_hole(c, node, (struct hole){ .kind = HOLE_WINDOW, .index = q->n_windows++ });
    return true;
}
