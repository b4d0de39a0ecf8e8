/* Our own query tree: what sql_parse makes of the canonical text of a definition.
 *
 * Immutable once built; lives in the compile arena. Expressions are kept as SQL text
 * with holes: PostgreSQL evaluates them, we only need to know which columns and
 * aggregates they use. A hole is the token __pgth<n>x, where n indexes holes[].
 */
#ifndef PGTRICKLE_DVM_QUERY_H
#define PGTRICKLE_DVM_QUERY_H

#include <stdbool.h>

enum hole_kind {
    HOLE_COLUMN, /* qualifier.name, qualifier may be NULL */
    HOLE_GROUP,  /* the n-th grouping key */
    HOLE_AGG,    /* the n-th aggregate of the query */
    HOLE_TIME,   /* the refresh's timestamptz */
    HOLE_WINDOW, /* the n-th window call of the query */
    HOLE_ARG,    /* the n-th argument of a window call that is evaluated before it */
    HOLE_SUBLINK /* the n-th subquery among the query's expressions */
};

struct qsublink;
struct cte_scope;

struct hole {
    enum hole_kind kind;
    const char *schema; /* of the qualifier; NULL when not written */
    const char *qualifier;
    const char *name;
    int index;                      /* HOLE_GROUP, HOLE_AGG, HOLE_WINDOW, HOLE_ARG, HOLE_SUBLINK */
    const struct qsublink *sublink; /* HOLE_SUBLINK */
};

struct qexpr {
    const char *text;
    struct hole *holes;
    int n_holes;
    bool uses_time;
    bool returns_set;         /* calls a set-returning function */
    const char *key;          /* text with the holes' names in it: equal keys, equal expressions */
    struct qexpr **conjuncts; /* WHERE a AND b: its parts; n_conjuncts 0 when not an AND */
    int n_conjuncts;
    struct qterm *terms; /* of an expression that uses the time: see parse_time.c */
    int n_terms;
};

enum term_kind {
    TERM_ALONE,    /* just the term */
    TERM_COMPARED, /* value op term */
    TERM_DAYS,     /* term - value compared with the shift, a number of days; term is a date */
    TERM_INTERVAL, /* term - value compared with the shift, an interval */
    TERM_SECONDS,  /* the same in seconds */
};

/* A part of an expression that changes when time passes, and for which values of a row. */
struct qterm {
    enum term_kind kind;
    const char *op; /* TERM_COMPARED */
    struct qexpr *value, *time, *shift;
    bool coarse;   /* stays the same for hours */
    bool absolute; /* does not depend on the time zone */
};

struct qsort {
    struct qexpr *expr; /* NULL: the output column */
    int column;
    const char *suffix; /* " DESC NULLS LAST" */
};

/* function([DISTINCT] args [ORDER BY sort]) [WITHIN GROUP (ORDER BY sort)] [FILTER (WHERE filter)]
 */
struct qagg {
    const char *schema; /* NULL: pg_catalog */
    const char *function;
    bool star;
    bool distinct;
    bool variadic;     /* the last argument is an array of arguments */
    bool within_group; /* args are the direct ones */
    struct qexpr **args;
    int n_args;
    struct qsort *sort;
    int n_sort;
    struct qexpr *filter; /* NULL when there is none */
    const char *key;      /* the whole call, written back: equal keys, equal aggregates */
};

enum sublink_kind {
    SUBLINK_EXISTS,
    SUBLINK_ANY, /* tests op ANY (query); IN is = ANY */
    SUBLINK_ALL,
    SUBLINK_SCALAR,
    SUBLINK_ARRAY
};

/* A subquery in an expression. */
struct qsublink {
    enum sublink_kind kind;
    bool grouped; /* stands above the grouping of the query around it */
    struct qexpr *
        *tests; /* ANY and ALL: what is compared with the outputs, over the query around */
    int n_tests;
    const char *op;
    struct query *query;
    /* ARRAY: how many of query's last outputs are what it is ordered by */
    int n_sort;
    const char **sort_suffix;
    const char *key; /* written back; NULL when that can't be done */
};

enum join_kind { JOIN_INNER, JOIN_LEFT, JOIN_RIGHT, JOIN_FULL };

/* A function in FROM: its call, and the column definitions of one that returns records. */
struct qfunction {
    struct qexpr *call;
    bool returns_set;
    const char **names, **types;
    int n_columns; /* 0: it has none */
};

enum from_kind { FROM_TABLE, FROM_SUBQUERY, FROM_JOIN, FROM_FUNCTION, FROM_SELF };

struct from_item {
    enum from_kind kind;
    const char *alias; /* how columns are qualified; NULL for a join without alias */
    const char **column_aliases;
    int n_column_aliases;
    const char *schema, *name; /* FROM_TABLE */
    bool only;                 /* without the tables that inherit from it */
    struct query *subquery;    /* FROM_SUBQUERY; FROM_SELF: the recursive query that it stands in */
    bool lateral;              /* FROM_SUBQUERY: may refer to the items before it */
    struct qfunction *functions; /* FROM_FUNCTION; ROWS FROM (…) when there are several */
    int n_functions;
    bool ordinality;
    enum join_kind join; /* FROM_JOIN */
    struct from_item *left, *right;
    struct qexpr *on; /* NULL: cross join */
    const char **using_columns;
    int n_using;
};

struct qtarget {
    const char *name;
    struct qexpr *expr;
};

/* One call with OVER. */
struct qwindow {
    struct qexpr *call;   /* without OVER */
    const char *function; /* bare name of a function of pg_catalog; else NULL */
    struct qexpr **args;  /* those that use the time: HOLE_ARG of the call */
    int n_args;
    struct qexpr **partition;
    int n_partition;
    struct qsort *sort;
    int n_sort;
    const char *frame; /* "ROWS BETWEEN … EXCLUDE TIES"; "" for the default */
    bool peers;        /* the frame's bounds are groups of peers, so ORDER BY must stay as it is */
    const char *key;   /* the whole call, written back: equal keys, equal calls */
};

/* A key of a grouping: an expression, a call of GROUPING(), or the number of the grouping set. */
enum group_kind { GROUP_EXPR, GROUP_CALL, GROUP_SET };

struct qgroup {
    enum group_kind kind;
    struct qexpr *expr; /* GROUP_EXPR */
    const char *key;    /* GROUP_EXPR, GROUP_CALL: as it is written */
    int *args;          /* GROUP_CALL: of the keys */
    int n_args;
};

enum query_kind {
    QUERY_SELECT,
    QUERY_UNION_ALL,
    QUERY_INTERSECT,
    QUERY_EXCEPT,
    QUERY_VALUES,
    QUERY_RECURSIVE
};
enum distinct_kind { DISTINCT_NONE, DISTINCT_ROWS, DISTINCT_ON };

struct query {
    enum query_kind kind;
    /* QUERY_UNION_ALL, QUERY_INTERSECT, QUERY_EXCEPT */
    struct query *left, *right;
    bool union_distinct; /* without ALL */
    /* QUERY_VALUES: row by row; targets are named column1… */
    struct qexpr **values;
    int n_rows;
    /* QUERY_SELECT */
    struct from_item **from;
    int n_from;
    struct qexpr *where;
    bool grouped; /* GROUP BY or an aggregate */
    struct qgroup *groups;
    int n_groups;
    /* GROUPING SETS: per set and key, whether the key is in it. A GROUP_SET is then among the keys.
     */
    bool **sets;
    int n_sets;
    int n_set_keys; /* keys behind these, but for calls, are in every set */
    struct qagg **aggs;
    int n_aggs;
    struct qexpr *having;
    struct qwindow **windows;
    int n_windows;
    enum distinct_kind distinct;
    struct qexpr **distinct_on;
    int n_distinct_on;
    struct qsort *sort; /* for DISTINCT ON and LIMIT */
    int n_sort;
    bool has_limit;
    long long limit; /* -1: none */
    long long offset;
    bool with_ties;
    struct qtarget *targets;
    int n_targets;
    struct qsublink **sublinks; /* in its own expressions, each once */
    int n_sublinks;
    struct cte_scope *ctes; /* the parser's: what its subqueries may name */
    bool dropped_order;     /* ORDER BY without LIMIT at the top: means nothing for a table */
};

#endif
