/* PostgreSQL's lexical structure, by hand.
 *
 * Cuts a query string into tokens and into statements, with the server's rules for
 * white space, nested comments, quoted identifiers, '...' (with standard_conforming_strings
 * on or off), E'', B'', X'', N'', U&'' and U&"", string continuation over a line break, and
 * dollar quotes (manual: 4.1 Lexical Structure; src/backend/parser/scan.l). It is no parser:
 * it knows where things begin and end, never what they mean, and accepts what the server
 * would refuse.
 *
 * Nothing here allocates but sql_token_value. A token borrows from the text. The text is in
 * the client's encoding; bytes of 0x80 and above are letters, as for the server, which holds
 * for every encoding whose multi-byte characters have no byte below 0x80 (UTF-8, LATIN*,
 * EUC*; not SJIS, BIG5, GBK, GB18030, UHC, JOHAB).
 */
#ifndef PGTRICKLE_PROXY_SQL_SCAN_H
#define PGTRICKLE_PROXY_SQL_SCAN_H

#include <stdbool.h>
#include <stddef.h>

#include "base/arena.h"
#include "base/str.h"

enum sql_token_kind {
    SQL_END,            /* no token left */
    SQL_WORD,           /* keyword or unquoted identifier */
    SQL_QUOTED_IDENT,   /* "..." */
    SQL_UNICODE_IDENT,  /* U&"..." */
    SQL_STRING,         /* '...' without backslash escapes */
    SQL_ESCAPE_STRING,  /* E'...', and '...' with standard_conforming_strings off */
    SQL_UNICODE_STRING, /* U&'...' */
    SQL_DOLLAR_STRING,  /* $tag$...$tag$ */
    SQL_BIT_STRING,     /* B'...', X'...' */
    SQL_NUMBER,
    SQL_PARAM,        /* $1 */
    SQL_SYMBOL,       /* one byte of punctuation or of an operator */
    SQL_UNTERMINATED, /* a quote or comment that is not closed; reaches to the end of the text */
};

struct sql_token {
    enum sql_token_kind kind;
    size_t start; /* bytes from the start of the text */
    size_t end;   /* first byte after it */
};

struct sql_scanner {
    struct str text;
    size_t pos;
    bool standard_conforming_strings;
};

struct sql_token sql_scan_next(struct sql_scanner *s);

/* Is the token this keyword? `word` in lower case. A quoted identifier never is. */
bool sql_token_is(struct str text, struct sql_token t, const char *word);

/* Is the token this one-byte symbol? */
bool sql_token_is_symbol(struct str text, struct sql_token t, char symbol);

/* The value of an identifier (an unquoted one folded to lower case; both cut to 63 bytes at a
 * character's boundary) or of a string of any kind but a bit string. NULL when an escape in it is
 * not valid. \u escapes become UTF-8. */
const char *sql_token_value(struct str text, struct sql_token t, struct arena *a);

/* One statement: from its first token to its last. */
struct sql_statement {
    size_t start;
    size_t end;
};

/* The next statement that is not empty, beginning at s->pos; false when there is none. Statements
 * end with a semicolon outside parentheses (CREATE RULE ... DO (a; b)) and outside the
 * BEGIN ATOMIC ... END of a function. */
bool sql_split_next(struct sql_scanner *s, struct sql_statement *out);

/* Positions as PostgreSQL counts them: the number, from 1, of the character at this byte. Counts
 * bytes when the text is not UTF-8. */
int sql_char_position(struct str text, size_t byte_offset);

#endif
