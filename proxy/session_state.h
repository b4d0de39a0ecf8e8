/* State of a session beyond parameters, in transaction and statement pooling.
 *
 * A statement whose text may change the session (proxy/session_scan.h) is noted. When its
 * transaction is over, and before anybody else gets the server, the server is asked what was really
 * left, in one query that the client does not see ("look"): settings by their names, which then
 * follow the client (proxy/settings.h), whatever ROLLBACK, savepoints or functions did to them; and
 * whether there are advisory locks, temporary tables, cursors WITH HOLD. While such state remains
 * the server is pinned: it stays with this client. So what `BEGIN; CREATE TEMP TABLE … ON COMMIT
 * DROP; …; COMMIT` or an advisory lock that was given back leave behind is nothing, and pins
 * nothing. Looks cost only those who run such statements.
 *
 * session_state = error refuses what is certain to leave something; ignore is PgBouncer's silence.
 */
#ifndef PGTRICKLE_PROXY_SESSION_STATE_H
#define PGTRICKLE_PROXY_SESSION_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"
#include "base/text.h"

struct client;
struct hearing;
struct session; /* of a client that had use for one; struct client.session */

enum session_next {
    SESSION_GO_ON,
    SESSION_WAITS,   /* the message stays in front; conn_wake when it can go on */
    SESSION_REFUSED, /* *e says why */
};

/* The client, which is linked, sends this text (Query, Parse; Bind of a named statement). many: it
 * may hold several statements. Only the beginning of a long text is looked at. */
enum session_next session_state_on_text(struct client *c, struct str text, bool many,
                                        struct err *e);

/* The server is clean (server_is_clean): may it go to others now? When false and nothing is
 * pinned, a look was sent and client_on_session_known follows. */
bool session_state_may_let_go(struct client *c);

/* The answer to a look. c is NULL when the client is gone. */
void session_state_on_look_row(struct client *c, struct str body);
void session_state_on_look_result(struct client *c); /* one of its statements is done */
void session_state_on_look_error(struct client *c, struct str body);
void session_state_on_look_done(struct client *c);

/* The server stays with the client until it disconnects or says DISCARD ALL. reason: what the
 * client keeps there ("prepared statements"); static. */
void session_state_pin(struct client *c, const char *reason);

/* A statement of the client's is done; tag without its NUL. */
void session_state_on_tag(struct client *c, struct str tag);

/* The client is gone and the server idle: what must be done before others get the server. */
enum session_left {
    SESSION_LEFT_NOTHING,
    SESSION_LEFT_STATE, /* DISCARD ALL */
    SESSION_LEFT_MORE,  /* what DISCARD ALL does not end: close it */
};
enum session_left session_state_left(const struct client *c);

/* What pins the server, as a list for people; NULL: nothing. *since_us: monotonic. static storage
 * or the text's. */
const char *session_state_pinned_by(const struct client *c, struct text *t, uint64_t *since_us);

/* It has temporary tables, or its transaction may have. c may be NULL. */
bool session_state_has_temporary(const struct client *c);
bool session_state_is_pinned(const struct client *c);

/* What it hears of LISTEN; the client has a session. */
struct hearing *session_state_hearing(struct client *c);
/* A request is sent and no reply is owed. */
void session_state_on_request(struct client *c);
/* An error was sent to the client. */
void session_state_on_error(struct client *c);
/* Notifications that wait are told, where this is the time; see listener_tell. */
void session_state_tell(struct client *c, bool before_ready);

/* The client is closed. */
void session_state_leave(struct client *c);
/* A listener hears something for it, or may. */
bool session_state_hears(const struct client *c);

struct bytequeue;
/* For another process (proxy/takeover.h); no look is under way. */
void session_state_pack(const struct client *c, struct bytequeue *record);
void session_state_unpack(struct client *c, struct str record);

void session_state_free(struct client *c);

#endif
