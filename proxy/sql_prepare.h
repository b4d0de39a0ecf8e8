/* PREPARE, EXECUTE, DEALLOCATE and DISCARD ALL in a query string.
 *
 * Where they are and which name each of them means, so that the name can be replaced by splicing
 * text (manual: PREPARE, EXECUTE, DEALLOCATE, DISCARD; src/backend/parser/gram.y). EXECUTE is also
 * found in EXPLAIN and in CREATE TABLE ... AS. What is written inside of strings (DO blocks,
 * functions) is not looked at. It is no parser: a statement that the server refuses may be found
 * here, and goes to the server all the same.
 *
 * Pure; sql_prepare_may_matter allocates nothing and costs nanoseconds, for it is asked about all
 * texts.
 */
#ifndef PGTRICKLE_PROXY_SQL_PREPARE_H
#define PGTRICKLE_PROXY_SQL_PREPARE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/arena.h"
#include "base/str.h"
#include "proxy/sql_scan.h"

enum sql_prepare_verb {
    SQL_PREPARE,
    SQL_EXECUTE,
    SQL_DEALLOCATE,
    SQL_FORGET_ALL, /* DEALLOCATE ALL, DISCARD ALL */
};

struct sql_prepare_command {
    enum sql_prepare_verb verb;
    size_t statement;        /* the how manieth of the text, from 0 */
    struct sql_statement at; /* the whole statement */
    struct str name;         /* folded, cut, unquoted; in the arena; empty for SQL_FORGET_ALL */
    size_t name_start;       /* bytes of the text; also for the next */
    size_t name_end;
};

/* False: the text holds none of these commands. `alone`: it is one statement (a Parse). May say
 * true for no reason. The beginning of a longer text may be given. */
bool sql_prepare_may_matter(struct str text, bool alone);

/* The commands in their order, in the arena; returns how many. */
size_t sql_prepare_find(struct str text, bool standard_conforming_strings, struct arena *a,
                        struct sql_prepare_command **out);

#endif
