/* What the parser's files share: libpg_query's tree in the arena, and the way from its nodes to
 * dvm/query.h. Functions that answer NULL or false have recorded a refusal. */
#ifndef PGTRICKLE_DVM_SQL_PARSE_INTERNAL_H
#define PGTRICKLE_DVM_SQL_PARSE_INTERNAL_H

#include <pg_query.h>
#include <pg_query/pg_query.pb-c.h>

#include "dvm/sql_parse.h"

typedef PgQuery__Node Node; /* a name of libpg_query's, shortened */

struct cte_scope {
    const char *name;
    PgQuery__CommonTableExpr *cte;
    bool may_recurse;        /* WITH RECURSIVE */
    struct query *recursion; /* inside of it: itself */
    struct cte_scope *outer; /* what the CTE itself may see */
};

/* A column that a subquery does not have itself. */
struct outer_column {
    const char *qualifier, *name;
    const struct outer_column *next;
};

struct parser {
    struct arena *a;
    const struct catalog *cat;
    struct refusal *refused;
    ProtobufCAllocator allocator;
    int view_depth;
    int sub_depth; /* subqueries in expressions and LATERAL ones around, since the view began */
    const struct outer_column *outer_columns; /* noted so far, the last first */
};

/* An expression on its way to text with holes. */
struct punch {
    struct parser *p;
    struct query *query; /* where aggregates and groups are collected */
    bool grouped;        /* columns must be group expressions, aggregates are allowed */
    struct qexpr *out;
    int capacity;
};

/* Records the first refusal. NULL, whatever the caller answers with. */
void *parse_refuse(struct parser *p, enum refusal_kind kind, const char *what, const char *name);

/* Calls visit on each message directly below m that is a Node, or inside one that is not. */
bool parse_each_child(ProtobufCMessage *m, bool (*visit)(void *arg, Node *child), void *arg);
/* The text of a String node, else NULL. */
const char *parse_node_string(const Node *n);
const char **parse_strings(struct parser *p, Node **nodes, size_t n);
Node *parse_node_copy(struct parser *p, Node *n);
/* The SQL of one expression; NULL when the deparser can't. */
const char *parse_deparse(struct parser *p, Node *expr);
/* Whether text, parsed, is the tree that it was written from. */
bool parse_is_faithful(struct parser *p, Node *expr, const char *text);

/* The expression as text with holes; NULL when refused. node is left as it was. */
struct qexpr *parse_expr(struct parser *p, struct query *q, Node *node, bool grouped);
/* node becomes the token of a new hole. */
void parse_punch_hole(struct punch *c, Node *node, struct hole hole);
bool parse_punch_node(void *arg, Node *node);
bool parse_punch_children(struct punch *c, Node *node);

/* *name: the function's, without its schema. */
bool parse_is_aggregate(const struct parser *p, const PgQuery__FuncCall *f, const char **name);
/* Adds the call to c->query's aggregates, and makes node its hole. */
bool parse_add_aggregate(struct punch *c, Node *node, const char *name);
/* Whether an aggregate call that is no window call stands below any of the nodes. */
bool parse_has_aggregate(const struct parser *p, Node **nodes, size_t n);
const char *parse_sort_suffix(PgQuery__SortBy *s);

/* Whether a set-returning function of that name is used anywhere in the definition. */
bool parse_is_set_returning(const struct parser *p, const PgQuery__FuncCall *f);
/* Functions in FROM. */
struct from_item *parse_range_function(struct parser *p, struct query *q,
                                       PgQuery__RangeFunction *r);

/* The type that now() and its kin have, without arguments; NULL when it is none of these. */
const char *parse_time_function(const PgQuery__FuncCall *f);
const char *parse_time_value(const PgQuery__SQLValueFunction *f);
/* age(x) becomes age(CURRENT_DATE, x), which it is. */
void parse_write_age(struct parser *p, Node *n);
/* A date or timestamp made of the current time and constants; never NULL. */
bool parse_is_moment(const Node *n);
bool parse_has_time(Node *n);
/* Fills out->terms of node's expression, when it uses the time. */
bool parse_note_terms(struct parser *p, struct query *q, Node *node, bool grouped,
                      struct qexpr *out);

/* Whether a WITH RECURSIVE's query names itself. */
bool parse_is_recursive(const PgQuery__CommonTableExpr *cte);
struct query *parse_recursive(struct parser *p, struct cte_scope *c);
struct cte_scope *parse_push_ctes(struct parser *p, PgQuery__WithClause *with,
                                  struct cte_scope *outer);

/* Writes the SELECT's named windows out at their calls. */
bool parse_name_windows(struct parser *p, PgQuery__SelectStmt *s);
/* A call with OVER: node becomes its hole. */
bool parse_window(struct punch *c, Node *node);

/* The index of the new key. */
int parse_add_group(struct parser *p, struct query *q, struct qgroup group);
/* q's GROUP BY. */
bool parse_groups(struct parser *p, struct query *q, PgQuery__SelectStmt *s);
/* GROUPING(…) becomes a key of its own. */
bool parse_grouping_call(struct punch *c, Node *node);

/* UNION, INTERSECT, EXCEPT; VALUES: without what follows them. */
struct query *parse_set_operation(struct parser *p, PgQuery__SelectStmt *s, struct cte_scope *ctes);
struct query *parse_values(struct parser *p, PgQuery__SelectStmt *s);
/* ORDER BY where it means something, LIMIT, OFFSET. q's targets must be known. */
bool parse_order_and_limit(struct parser *p, struct query *q, PgQuery__SelectStmt *s);

struct query *parse_query(struct parser *p, PgQuery__SelectStmt *s, struct cte_scope *ctes);
/* q: the SELECT whose FROM it is. */
struct from_item *parse_from(struct parser *p, struct query *q, Node *n, struct cte_scope *ctes);
void parse_set_alias(struct parser *p, struct from_item *item, PgQuery__Alias *alias);

/* A column reference of one name. */
PgQuery__ColumnRef *parse_column_ref(struct parser *p, const char *name);
/* The column becomes part of q's GROUP BY key, unless it is already. */
bool parse_group_by(struct parser *p, struct query *q, const char *qualifier, const char *name);
const char *parse_quoted(struct parser *p, const char *name);

/* ---- parse_sublink.c ----------------------------------------------------------------------- */

/* Takes the subqueries out of the expression and leaves tokens of one name. */
bool parse_lift_sublinks(struct parser *p, struct query *q, Node *node, bool grouped);
/* Makes a hole of such a token; *is_one: whether node was one. */
bool parse_punch_sublink(struct punch *c, Node *node, bool *is_one);
/* Whether the column is none of q's, but of a query around it. */
bool parse_is_outer(const struct parser *p, const struct query *q, const struct hole *h);
void parse_note_outer(struct parser *p, const struct hole *h);
/* Whether an aggregate call in q has arguments only of queries around it: it belongs to one of
 * those. */
bool parse_aggregate_is_outer(struct parser *p, const struct query *q, PgQuery__FuncCall *f);

#endif
