/* What a request is to us, decided from its text.
 *
 * Nearly all traffic is INTERCEPT_FORWARD, decided by one search of the bytes for
 * "pgtrickle" and "stream" (nanoseconds; bench/intercept_scan.c). Nothing here
 * allocates for forwarded text. Only text that says STREAM TABLE is cut into statements,
 * with PostgreSQL's lexical rules (proxy/sql_scan.h). Calls are looked for in strings
 * and comments too, since DO blocks are strings: it errs towards looking closer.
 */
#ifndef PGTRICKLE_PROXY_INTERCEPT_H
#define PGTRICKLE_PROXY_INTERCEPT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/str.h"

enum intercept_kind {
    INTERCEPT_FORWARD, /* send it as it is */
    INTERCEPT_READS,   /* names the pgtrickle schema but can't make a request (a monitoring query):
                        * make sure that the SQL side is installed, then forward */
    INTERCEPT_LEND,    /* holds a stream-table statement, or may call a function that makes a
                        * request: run as a lend_job */
};

/* text: the client's query string (Query or Parse). */
enum intercept_kind intercept_classify(struct str text, bool standard_conforming_strings);

/* A Parse whose statement is a stream-table statement: the text to send to the server in its place
 * and the tag to show for its completion. */
struct intercept_rewrite {
    struct str sql;           /* in the arena; the text itself when nothing was rewritten */
    const char *tag;          /* NULL: the server's own */
    size_t definition_offset; /* bytes of the client's text before the definition */
    bool has_rows;            /* EXPLAIN STREAM TABLE returns rows; DDL returns none */
};

/* False and *e (42601 with a position in the client's text) for a stream-table statement that does
 * not parse. */
bool intercept_rewrite(struct str text, bool standard_conforming_strings, struct arena *a,
                       struct intercept_rewrite *out, struct err *e);

#endif
