/* Relational operators: the definition as a tree that the delta rules walk.
 *
 * Every operator yields a bag of rows with columns c0..c(n-1). An expression refers
 * to the columns of its operator's input by index: the child's columns, for a join
 * the left child's and then the right child's. Trees are immutable once optree_build
 * has returned, but for `needed`, which optree_build fills last.
 */
#ifndef PGTRICKLE_DVM_OPTREE_H
#define PGTRICKLE_DVM_OPTREE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/text.h"
#include "dvm/catalog.h"
#include "dvm/query.h"
#include "dvm/sql_parse.h"

/* What a hole stands for when it is no column of the operator's input. */
enum { COLUMN_TIME = -1, COLUMN_OUTER = -2, COLUMN_SUBQUERY = -3 };

struct expr_hole {
    int column;            /* of the input; or one of the above */
    const char *time_type; /* what the time is cast to */
    /* COLUMN_OUTER: a column of the left row of the operator with this id, which this expression's
     * operator stands on the right side of */
    int outer, outer_column;
};

struct expr {
    const char *text; /* with __pgth<n>x for holes[n] */
    struct expr_hole *holes;
    int n_holes;
    bool uses_time;
    bool returns_set;
    struct expr_term *terms; /* of one that uses the time */
    int n_terms;
};

/* See struct qterm. */
struct expr_term {
    enum term_kind kind;
    const char *op;
    struct expr *value, *time, *shift;
    bool coarse;
    bool absolute;
};

/* A type, and what can be done with its values. */
struct value_type {
    uint32_t oid;
    int32_t typmod;
    bool has_equality; /* by pg_catalog's =; otherwise values are compared as text */
    bool has_hash;
    bool exact; /* equal values look alike: not so for 1.0 and 1.00 */
};

enum op_kind {
    OP_SCAN,
    OP_FUNCTION,
    OP_RECURSIVE,
    OP_SELF,
    OP_FILTER,
    OP_PROJECT,
    OP_JOIN,
    OP_LEFT_JOIN,
    OP_UNION_ALL,
    OP_GROUP,
    OP_DISTINCT_ON,
    OP_WINDOW,
    OP_VALUES,
    OP_REPEAT,
    OP_LIMIT,
    OP_SUBFILTER,
    OP_SUBVALUE,
    OP_APPLY
};

struct op_column {
    const char *name; /* for people */
    bool not_null;    /* proved */
};

/* See struct qagg. */
struct op_aggregate {
    const char *schema; /* NULL: pg_catalog */
    const char *function;
    bool star;
    bool distinct;
    bool variadic;
    bool within_group;
    struct expr **args;
    int n_args;
    struct expr **sort;
    const char **sort_suffix;
    int n_sort;
    struct expr *filter;
    /* types.c; unknown when the column isn't needed */
    struct value_type *arg_types; /* per argument */
    struct value_type result;
};

/* What breaks the ties that ORDER BY leaves: rows must be numbered alike each time. */
enum window_ties {
    TIES_NONE,   /* ORDER BY leaves none, or they make no difference */
    TIES_IN,     /* ORDER BY goes on with all that tells rows apart */
    TIES_BEFORE, /* that would change the frame: the rows come sorted by it already */
};

struct op_window {
    struct expr *call;
    const char *name; /* for people */
    struct expr **sort;
    const char **sort_suffix;
    int n_sort;
    const char *frame;
    enum window_ties ties;
};

/* One function of OP_FUNCTION, over the columns of the left side. */
struct op_function {
    struct expr *call;
    const char **names, **types; /* of a column definition list */
    int n_columns;               /* of that list; 0: none */
};

/* A subquery in an expression: how its value comes from op->right's rows. */
struct op_sub {
    enum sublink_kind kind;
    struct expr **tests; /* ANY, ALL: over the left row */
    int n_tests;
    const char *op;
    bool null_is_false; /* nobody tells NULL from false */
    int n_outputs;      /* the right side's columns that count; EXISTS: none */
    /* ANY, ALL: rows of the right side, filtered. ANY is true and ALL is false when there is a
     * decisive one; NULL when there is none but an undecided one. */
    struct op *decisive;
    struct op *undecided[2];
    int n_undecided;
    struct value_type element; /* ARRAY: of its elements (types.c) */
    int n_sort;                /* ARRAY: the right side's columns behind the first that order it */
    const char **sort_suffix;
};

/* A part of the right side of a subquery operator that refers to nothing outside of itself. */
struct op_leaf {
    struct op *op;
    struct expr **conditions; /* over its rows and the left row: others do not matter */
    int n_conditions;
};

struct op {
    enum op_kind kind;
    int id; /* names CTEs */
    struct op_column *columns;
    int n_columns;
    bool *needed; /* per column: does anything above use it */
    bool has_key; /* rows are unique by the columns in key (none: at most one row) */
    int *key;
    int n_key;
    int *carry; /* OP_WINDOW, and what is linear above: its PARTITION BY's columns */
    int n_carry;
    struct op *left, *right; /* left is the only child of unary operators */
    /* OP_SCAN */
    const struct cat_table *table;
    int source; /* index among the plan's captured sources */
    /* OP_FUNCTION: columns are the left side's, then the functions' (LATERAL) */
    struct op_function *functions;
    int n_functions;
    bool ordinality;
    bool padded; /* LEFT JOIN: rows for which there are none; OP_APPLY too */
    /* OP_RECURSIVE: left UNION [ALL] right; OP_SELF: in its right arm, what came last */
    bool distinct;
    const struct op *of;
    /* OP_PROJECT: a set-returning function makes one row many */
    bool expands;
    /* OP_FILTER, OP_JOIN, OP_LEFT_JOIN, OP_FUNCTION when padded: NULL is true */
    struct expr *predicate;
    /* OP_JOIN, OP_LEFT_JOIN: the predicate's parts; OP_FILTER: when they were noted */
    struct expr **conjuncts;
    int n_conjuncts;
    /* OP_SUBFILTER, OP_SUBVALUE, OP_APPLY: right is evaluated for each row of left. Columns are
     * left's; then the value (OP_SUBVALUE) or right's (OP_APPLY). In the predicate of an
     * OP_SUBFILTER the subquery is COLUMN_SUBQUERY. */
    struct op_sub *sub;
    struct op_leaf *leaves;
    int n_leaves;
    /* of its columns that are needed, when a rule asks (types.c) */
    struct value_type *column_types;
    /* OP_PROJECT: outputs; OP_GROUP, OP_DISTINCT_ON, OP_WINDOW (PARTITION BY): key expressions over
     * the child; OP_VALUES: row by row; OP_REPEAT: how often each row comes (one expression) */
    struct expr **exprs;
    int n_exprs;
    /* OP_GROUP: columns are the keys, then these. OP_GROUP without aggregates is DISTINCT */
    struct op_aggregate *aggregates;
    int n_aggregates;
    int n_rows; /* OP_VALUES */
    /* OP_LIMIT: columns are the child's */
    long long limit; /* -1: none */
    long long offset;
    bool with_ties;
    /* OP_DISTINCT_ON, OP_LIMIT: columns are the child's; then ORDER BY decides */
    struct expr **sort;
    const char **sort_suffix;
    int n_sort;
    /* OP_WINDOW: columns are the child's, then these */
    struct op_window *windows;
    int n_windows;
    /* OP_GROUP, OP_DISTINCT_ON, OP_WINDOW, OP_LIMIT: what PostgreSQL says of the types (types.c) */
    struct value_type *key_types;   /* per expression */
    struct value_type *input_types; /* per column of the child that is needed */
};

struct optree {
    struct op *root; /* columns: the definition's, then hidden key columns */
    int n_outputs;   /* the definition's */
    int n_ops;
    const struct cat_table **sources; /* captured tables, each once */
    int n_sources;
    int *scans_of; /* per source: how often it is scanned */
    bool time_dependent;
    bool shows_time;          /* rows change whenever time passes */
    struct value_type *types; /* of the root's columns */
};

/* NULL and *refused when the query is outside what can be maintained. */
struct optree *optree_build(struct arena *a, const struct catalog *cat, const struct query *q,
                            struct refusal *refused);

/* Whether it is this aggregate of PostgreSQL's, of at most one argument and with no order. */
bool aggregate_is(const struct op_aggregate *g, const char *function);

/* Calls visit for each expression of op itself. */
void op_each_expr(const struct op *op, void (*visit)(void *arg, const struct expr *e), void *arg);

/* Whether op refers to nothing outside of itself: its rows don't depend on where it stands. */
bool op_is_closed(const struct op *op);

/* Whether op is evaluated for each row of its left side. */
bool op_is_subquery(const struct op *op);

/* The plain column that an expression is, or -1. */
int expr_plain_column(const struct expr *e);

/* One line an operator, indented. */
void optree_dump(const struct optree *t, struct text *out);

const char *op_kind_name(enum op_kind kind);

#endif
