/* The grammar of the stream-table statements, and the SQL that carries them out.
 *
 *   CREATE [OR REPLACE] STREAM TABLE [IF NOT EXISTS] name [(column, ...)]
 *       [WITH (option [= value], ...)] AS query [WITH [NO] DATA]
 *   ALTER STREAM TABLE [IF EXISTS] name
 *       {SET (option [= value], ...) | RESET (option, ...) | SUSPEND | RESUME | AS query |
 *        RENAME TO name | OWNER TO role | SET SCHEMA schema}
 *   DROP STREAM TABLE [IF EXISTS] name [, ...] [CASCADE | RESTRICT]
 *   REFRESH STREAM TABLE name
 *   CHECK STREAM TABLE name
 *   EXPLAIN STREAM TABLE name
 *   EXPLAIN CREATE [OR REPLACE] STREAM TABLE ...
 *
 * Lexical rules are the server's (proxy/sql_scan.h). Options are passed on as they are: the SQL
 * side knows their names and values. The query is a slice of the client's text, never reprinted.
 * No valid statement of PostgreSQL begins like one of these.
 */
#ifndef PGTRICKLE_PROXY_STREAM_SQL_H
#define PGTRICKLE_PROXY_STREAM_SQL_H

#include <stdbool.h>
#include <stddef.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/str.h"
#include "base/text.h"
#include "proxy/sql_scan.h"

enum stream_verb {
    STREAM_CREATE,
    STREAM_ALTER,
    STREAM_DROP,
    STREAM_REFRESH,
    STREAM_EXPLAIN,        /* of one that exists */
    STREAM_EXPLAIN_CREATE, /* fields as for STREAM_CREATE */
    STREAM_CHECK,
};

enum stream_alter {
    STREAM_SET,
    STREAM_RESET,
    STREAM_SUSPEND,
    STREAM_RESUME,
    STREAM_QUERY,
    STREAM_RENAME,
    STREAM_OWNER,
    STREAM_SET_SCHEMA,
};

/* Folded and unquoted. */
struct stream_name {
    const char *schema; /* NULL: by the search path */
    const char *name;
};

struct stream_option {
    const char *name;
    const char *value; /* strings without their quotes, words as written; "true" when absent */
};

/* Lives in the arena passed to stream_sql_parse; query borrows from the text. */
struct stream_statement {
    enum stream_verb verb;
    enum stream_alter alter; /* STREAM_ALTER */
    bool or_replace;
    bool if_not_exists;
    bool if_exists;
    bool cascade;
    bool with_data;
    struct stream_name *names; /* one, but for STREAM_DROP */
    int n_names;
    const char **columns; /* NULL: the query's */
    int n_columns;
    struct stream_option *options; /* STREAM_RESET: without values */
    int n_options;
    const char *value;     /* STREAM_RENAME, _OWNER, _SET_SCHEMA: the new one */
    bool value_is_keyword; /* OWNER TO CURRENT_USER and its like: value is an expression */
    struct str query;      /* len 0: none */
    size_t query_offset;   /* bytes from the start of the text */
};

/* Does a stream-table statement begin here? s is before a statement's first token; it is a copy, so
 * the caller's does not move. */
bool stream_sql_begins(struct sql_scanner s);

/* Parses the statement that begins at `start` (stream_sql_begins said yes) and ends before `end`.
 * False and *e: ERR_REFUSAL with PostgreSQL's words and a position in the whole text. */
bool stream_sql_parse(struct str text, struct sql_statement at, bool standard_conforming_strings,
                      struct arena *a, struct stream_statement *out, struct err *e);

/* Appends the SQL to send in its place; right under every standard_conforming_strings and
 * search_path. Of STREAM_EXPLAIN_CREATE: what reads the result that the compiler has left. */
void stream_sql_put_sql(const struct stream_statement *st, struct text *out);

/* The completion tag, e.g. "CREATE STREAM TABLE". */
const char *stream_sql_tag(enum stream_verb verb);

/* The value of an option, the last part of whose name may differ in case; NULL when not given. */
const char *stream_sql_option(const struct stream_statement *st, const char *name);

#endif
