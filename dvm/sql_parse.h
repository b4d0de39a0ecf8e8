/* SQL text -> query (dvm/query.h). The only file that sees libpg_query.
 *
 * Takes canonical text (pg_get_viewdef's: stars expanded, ordinals resolved, casts
 * explicit), translates the node kinds and fields that it knows, and refuses the
 * rest. Each expression is written back as SQL and parsed again; a difference is a
 * refusal, since the packaged deparser has faults.
 */
#ifndef PGTRICKLE_DVM_SQL_PARSE_H
#define PGTRICKLE_DVM_SQL_PARSE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/arena.h"
#include "dvm/catalog.h"
#include "dvm/query.h"

/* What a definition has that stops it from being maintained differentially; also how to find the
 * place in the user's own text. */
enum refusal_kind {
    REFUSAL_NONE,
    REFUSAL_OTHER,
    REFUSAL_SYNTAX,
    REFUSAL_WINDOW,
    REFUSAL_SUBLINK,
    REFUSAL_LIMIT,
    REFUSAL_SET_OPERATION,
    REFUSAL_GROUPING_SETS,
    REFUSAL_RECURSIVE,
    REFUSAL_LATERAL,
    REFUSAL_FUNCTION_SOURCE,
    REFUSAL_VALUES,
    REFUSAL_TABLESAMPLE,
    REFUSAL_LOCKING,
    REFUSAL_AGGREGATE, /* name */
    REFUSAL_FUNCTION,  /* name */
    REFUSAL_TIME,
    REFUSAL_TABLE, /* name */
    REFUSAL_NO_SOURCE,
};

struct refusal {
    enum refusal_kind kind;
    const char *what; /* "window functions", "the aggregate string_agg" */
    const char *name; /* to look for in the user's text; or NULL */
    const char *hint; /* or NULL */
};

/* NULL and *refused on refusal. cat: for the aggregates' names and views to be inlined. */
struct query *sql_parse(struct arena *a, const struct catalog *cat, const char *canonical,
                        struct refusal *refused);

/* False and *refused when the canonical text, read with another search path than the user's, would
 * take another = than the definition's: what a stream table of any mode reads it with. */
bool sql_equality_is_certain(struct arena *a, const struct catalog *cat, const char *canonical,
                             struct refusal *refused);

/* Where in the user's text the refused thing stands: 1-based characters, 0 when not found. */
int sql_locate(const char *user_query, const struct refusal *refused);

/* Whether the text is one SELECT that stores nothing; *parsed: whether this parser knows its
 * syntax. */
bool sql_is_select(const char *user_query, bool *parsed);

/* Where the text's first statement lies, up to its semicolon; false when it can't be parsed. */
bool sql_statement_extent(const char *user_query, size_t *start, size_t *len);

#endif
