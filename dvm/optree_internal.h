/* What the files that build operators share. Functions that answer NULL or false have recorded a
 * refusal; everything lives in the compile arena. */
#ifndef PGTRICKLE_DVM_OPTREE_INTERNAL_H
#define PGTRICKLE_DVM_OPTREE_INTERNAL_H

#include "dvm/optree.h"

struct scope_column {
    const char *qualifier;
    const char *name;
    int column;
    bool merged_away; /* the other side of a USING column: not meant by its bare name */
};

/* What names mean: columns of one operator. */
struct scope {
    struct scope_column *columns;
    int n;
    const int *windows; /* where the query's window calls are */
    const int *args;    /* where a window call's arguments are */
};

struct open_recursion;

/* The row for which a subquery is evaluated: what its names may mean outside of it. */
struct frame {
    int id; /* of the operator to be */
    const struct scope *scope;
    struct expr *const *groups; /* not NULL: the row is a group with these keys */
    int n_groups;
    struct frame *outer;
};

/* A subquery in an expression whose value has become a column. */
struct sub_value {
    const struct qsublink *link;
    int column;
    struct sub_value *next;
};

struct builder {
    struct arena *a;
    const struct catalog *cat;
    struct refusal *refused;
    struct optree *tree;
    struct open_recursion *recursions; /* whose recursive arm is being built */
    struct frame *frames;              /* the innermost first */
    struct sub_value *sub_values;      /* the newest first */
};

/* Records the first refusal. NULL. */
void *build_refuse(struct builder *b, enum refusal_kind kind, const char *what);

struct op *build_new_op(struct builder *b, enum op_kind kind, int n_columns);
void build_set_key(struct builder *b, struct op *op, const int *key, int n);

void build_scope_add(struct builder *b, struct scope *s, const char *qualifier, const char *name,
                     int column);
const struct scope_column *build_look_up(const struct scope *s, const struct hole *h);
/* s = left's names, then right's, whose columns stand n_left places further. */
void build_scope_join(struct builder *b, struct scope *s, const struct scope *left,
                      const struct scope *right, int n_left);
/* The name of a FROM item's i-th column: its alias, or its own. */
const char *build_column_name(const struct from_item *item, int i, const char *own);

/* s: names of the input, NULL above a grouping. n_groups: where aggregates start. */
struct expr *build_resolve(struct builder *b, const struct qexpr *q, const struct scope *s,
                           int n_groups);
struct expr *build_column_expr(struct builder *b, int column);
/* (a) AND (b) AND …, flat however many: PostgreSQL's parser bounds nesting. NULL for none. */
struct expr *build_expr_all(struct builder *b, struct expr *const *parts, int n);
/* e over an input whose columns stand `by` places further. */
struct expr *build_shifted(struct builder *b, const struct expr *e, int by);
/* The conjuncts of q that have no subqueries, resolved; those that use time are set apart. */
bool build_split_conjuncts(struct builder *b, const struct qexpr *q, const struct scope *s,
                           int n_groups, struct expr ***plain, int *n_plain, struct expr ***timed,
                           int *n_timed);

/* child itself when there is no predicate. */
struct op *build_filter(struct builder *b, struct op *child, struct expr *predicate);
/* Named outputs, then the child's key where the named ones lack it. */
struct op *build_project(struct builder *b, struct op *child, struct expr **exprs,
                         const char **names, int n);
/* kind: OP_JOIN, OP_LEFT_JOIN. The conjuncts of ON are over the columns of both. */
struct op *build_join_op(struct builder *b, enum op_kind kind, struct op *l, struct op *r,
                         struct expr **conjuncts, int n);
/* "column = column": which ones. */
bool build_is_equality(const struct expr *e, int *x, int *y);
/* A tree of inner joins in the order that suits deltas (optree_joins.c); the columns of op. */
struct op *build_ordered_joins(struct builder *b, struct op *op);
/* names: of the keys, or NULL. */
struct op *build_group_op(struct builder *b, struct op *child, struct expr **keys,
                          const char **names, int n_keys, struct op_aggregate *aggregates,
                          int n_aggregates);
/* DISTINCT over the first n columns. */
struct op *build_distinct(struct builder *b, struct op *child, int n);
/* Only the first n columns, without those that carry keys. */
struct op *build_named_only(struct builder *b, struct op *child, int n);
/* The window calls of q above child, one operator for each PARTITION BY; windows of the scope is
 * filled. s: the names of child, with n 0 above a grouping. */
struct op *build_windows(struct builder *b, const struct query *q, struct op *child,
                         struct scope *s);
/* child with those of the expressions as columns that only a projection can hold (they use the time
 * or return sets); they are replaced by these columns. Child's own columns stay in place. */
struct op *build_computed(struct builder *b, struct op *child, struct expr ***places, int n);
/* Whether rows of op or below differ at each refresh; what is needed must be known. */
bool build_shows_time(const struct op *op);
/* left with the columns of a function in FROM; its arguments are over the names of left. padded: as
 * LEFT JOIN LATERAL … ON conjuncts. Adds the item's names to s, behind left's columns. */
struct op *build_function(struct builder *b, const struct from_item *item, struct op *left,
                          const struct scope *arguments, struct scope *s);
/* WITH RECURSIVE, and what its recursive arm reads of itself. */
struct op *build_recursive(struct builder *b, const struct query *q, int *n_named);
struct op *build_self(struct builder *b, const struct from_item *item, struct scope *s);
/* Whether the expressions hold every column of child's key as it is. */
bool build_covers_key(const struct op *child, struct expr **exprs, int n);

/* GROUP BY and the aggregates of q. */
struct op *build_grouping(struct builder *b, const struct query *q, struct op *child,
                          const struct scope *s);
struct op *build_distinct_on(struct builder *b, const struct query *q, struct op *child,
                             const struct scope *s);

/* The rows of VALUES; n_columns 0: the one row of a SELECT without FROM. */
struct op *build_values(struct builder *b, const struct query *q);
struct op *build_one_row(struct builder *b);
/* l and r have the same number of columns. */
struct op *build_union_all(struct builder *b, struct op *l, struct op *r);
/* UNION, INTERSECT, EXCEPT, VALUES: the named columns alone. */
struct op *build_set_operation(struct builder *b, const struct query *q);
/* ORDER BY, LIMIT and OFFSET over the first columns of child, which are q's. sort: columns. */
struct op *build_limit(struct builder *b, const struct query *q, struct op *child, const int *sort);

/* Adds the item's names to s. */
struct op *build_from(struct builder *b, const struct from_item *item, struct scope *s);
/* *n_named: how many of the columns the query shows; the others carry keys. */
struct op *build_query(struct builder *b, const struct query *q, int *n_named);

/* FROM and WHERE alone. */
struct op *build_from_where(struct builder *b, const struct query *q, struct scope *s);
/* Marks what op's columns `wanted` need below. */
void build_need(struct op *op, const bool *wanted);

/* ---- optree_full_join.c -------------------------------------------------------------------- */

struct op *build_full_join(struct builder *b, struct op *l, struct op *r, struct expr **on, int n);
/* Adds the merged columns of USING behind op's, and to s, which has the names of both sides. */
struct op *build_merged_columns(struct builder *b, const struct from_item *item, struct op *op,
                                const struct scope *left, const struct scope *right, int n_left,
                                struct scope *s);

/* ---- optree_apply.c ------------------------------------------------------------------------ */

/* What a column that the query itself lacks means; false when nothing. */
bool build_resolve_outer(struct builder *b, const struct hole *h, struct expr_hole *out);
/* The column that a subquery's value is; -1: none. */
int build_sub_column(struct builder *b, const struct qsublink *link);
bool build_has_sublink(const struct qexpr *q);
/* Whether e refers to a row outside; takes such expressions out of the list and answers them. */
bool build_is_correlated(const struct expr *e);
struct expr **build_take_correlated(struct builder *b, struct expr **exprs, int *n, int *n_taken);
/* A filter that remembers its parts. */
struct op *build_filter_all(struct builder *b, struct op *child, struct expr **parts, int n);

/* Where a SELECT's expressions stand: before its grouping, or (groups not NULL) above it. */
struct stage {
    const struct scope *scope;
    struct expr *const *groups;
    int n_groups;
};

/* Sets the stage above q's grouping, from the one before. */
bool build_stage_groups(struct builder *b, const struct query *q, struct stage *at);

/* The conjuncts of q that have subqueries, as operators above *op. */
bool build_sub_conjuncts(struct builder *b, struct op **op, const struct qexpr *q,
                         const struct stage *at);
/* Values of the subqueries in q become columns of *op, behind its own. */
bool build_sub_values(struct builder *b, struct op **op, const struct qexpr *q,
                      const struct stage *at);

/* The same for all expressions of q at one stage but for WHERE and HAVING. */
bool build_select_values(struct builder *b, struct op **op, const struct query *q,
                         const struct stage *at);

/* Whether item has a LATERAL subquery somewhere. */
bool build_has_lateral(const struct from_item *item);
void build_frame_push(struct builder *b, struct frame *f, const struct scope *s);
void build_frame_pop(struct builder *b);
/* Whether op refers to the row of f. */
bool build_refers_to(const struct op *op, const struct frame *f);
/* r for each row of l; f: the frame in which r was built. */
struct op *build_apply(struct builder *b, const struct frame *f, struct op *l, struct op *r,
                       bool pads);
/* A join whose right side was built in the frame f and refers to it, or whose ON has subqueries. */
struct op *build_join_per_row(struct builder *b, const struct from_item *item, struct frame *f,
                              struct op *l, struct op *r, const struct scope *right,
                              struct scope *s);
/* The rows of l without a match in r. on: over r's columns, n_right of them, and then l's. */
struct op *build_anti_join(struct builder *b, struct op *l, struct op *r, struct expr **on, int n,
                           int n_right);
/* What a subquery operator needs of its left side is added to left; marks its right side. */
void build_need_sub(struct op *op, bool *left);

#endif
