/* What a statement may do to the state of its session, decided from its text.
 *
 * In transaction pooling the server connection is another one for each transaction, so what a
 * statement leaves in the session matters to others. Nearly all text leaves nothing, which
 * session_scan_wants finds out from the first word and one pass over the bytes. Other text is cut
 * into tokens. What is found is a suspicion: whether something was really left is what the server
 * is asked (proxy/session_state.h), so it errs towards yes, for strings in a DO block too.
 * What functions leave is not seen but for PostgreSQL's own (set_config, advisory locks), nor is a
 * statement that a DO block puts together from pieces.
 */
#ifndef PGTRICKLE_PROXY_SESSION_SCAN_H
#define PGTRICKLE_PROXY_SESSION_SCAN_H

#include <stdbool.h>

#include "base/str.h"
#include "base/text.h"

/* Kinds of state. */
enum {
    SESSION_SETTINGS = 1 << 0,      /* settings whose names are known */
    SESSION_UNKNOWN_NAME = 1 << 1,  /* set_config with a name that is not in the text */
    SESSION_ADVISORY = 1 << 2,      /* advisory locks of the session */
    SESSION_TEMP = 1 << 3,          /* temporary tables and what else lies in pg_temp */
    SESSION_CURSOR = 1 << 4,        /* cursors WITH HOLD */
    SESSION_LOAD = 1 << 5,          /* LOAD: ends with the connection */
    SESSION_AUTHORIZATION = 1 << 6, /* SET SESSION AUTHORIZATION */
    SESSION_RESET_ALL = 1 << 7,
    SESSION_LISTEN = 1 << 8,
    SESSION_UNLISTEN = 1 << 9,
};

struct session_found {
    unsigned touches; /* may have been made */
    unsigned makes;   /* of these: will have been made when it succeeds */
    unsigned ends;    /* may have been ended */
    /* Each followed by NUL. Channels are as the server has them: folded, at most 63 bytes. */
    struct text names;     /* settings */
    struct text resets;    /* of these: those that were given back last; RESET ALL is a kind */
    struct text channels;  /* LISTEN */
    struct text unlistens; /* UNLISTEN; an empty one is UNLISTEN * */
};

/* Must the text be scanned? many: it may hold several statements (simple Query). */
bool session_scan_wants(struct str text, bool many);

/* *out need not be initialized; session_found_free is called for it in any case. */
void session_scan(struct str text, bool standard_conforming_strings, struct session_found *out);
void session_found_free(struct session_found *f);

#endif
