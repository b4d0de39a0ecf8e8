/* What the files of the client's machine share: client.c, client_sql.c,
 * client_login.c, client_deadlines.c, client_move.c. */
#ifndef PGTRICKLE_PROXY_CLIENT_INTERNAL_H
#define PGTRICKLE_PROXY_CLIENT_INTERNAL_H

#include "proxy/client.h"
#include "proxy/server.h"

/* Gives the memory back if there is nothing in it. */
void client_forget_rare(struct client *c);
/* It was to go to another worker. */
void client_stay(struct client *c);
bool client_is_between_transactions(const struct client *c);

void client_set_state(struct client *c, enum client_state state);
/* runs: a request of its own is under way, or about to be sent. */
void client_set_timer(struct client *c, bool runs);
/* It has waited too long, and is told what for. message is static. */
void client_fail_waiting(struct client *c, const char *message);
const struct config_user *client_config_user(const struct client *c); /* NULL: has no entry */

bool client_standard_strings(const struct client *c);
/* Statements follow this client from server to server. */
bool client_tracks_statements(const struct client *c);

void client_forward(struct client *c, struct str bytes);
/* Sets the clocks of a request when it is the first of its batch. */
void client_request_begins(struct client *c);
/* The reply to what is sent next; valid until the next call. */
struct reply_owed *client_owe(struct client *c, enum reply_ends ends);
/* An error at this place of the pipeline: the server is made to fail, its words are replaced, and
 * messages up to the Sync are dropped. */
void client_fail_in_place(struct client *c, const struct err *e);
void client_send_parse(struct client *c, struct str name, struct str tail);
/* A Parse that is known whole. Takes over lend and sql (may be NULL). */
void client_parse_named(struct client *c, struct str name, struct str tail, struct lend_info *lend,
                        struct sql_command *sql);
/* Whether the name is taken is known only when the Parse that gave it is answered: the message in
 * front has to wait. */
bool client_name_in_doubt(struct client *c, struct str name);
/* An error for a Query, in its place of the pipeline. */
void client_refuse_query(struct client *c, const struct err *e);
/* What the text of a request in the extended protocol says may change the session
 * (proxy/session_state.h). False: the message is done with, *taken tells how. */
bool client_state_allows(struct client *c, struct str text, bool *taken);
/* The unnamed statement is gone. */
void client_forget_unnamed(struct client *c);

#endif
