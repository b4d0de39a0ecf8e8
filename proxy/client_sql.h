/* PREPARE, EXECUTE and DEALLOCATE of a client whose server changes.
 *
 * The client's name is replaced by the internal one of the statement (proxy/prepared.h) in the
 * text, by splicing. Where the server lacks the statement it is taught before: in a query string by
 * a PREPARE in front of the EXECUTE, whose completion is hidden; in the extended protocol by
 * messages of our own. DEALLOCATE only makes the client forget; what the server deallocates is a
 * stand-in, so that it answers, or fails, as it would. Names that the client did not prepare are
 * left as they are.
 *
 * What a command changes is known when its completion arrives (struct sql_outcome); until then the
 * client's next messages wait, so that nothing has to be undone.
 */
#ifndef PGTRICKLE_PROXY_CLIENT_SQL_H
#define PGTRICKLE_PROXY_CLIENT_SQL_H

#include <stdbool.h>
#include <stddef.h>

#include "base/bytequeue.h"
#include "base/str.h"
#include "protocol/query_extended.h"
#include "protocol/reader.h"

struct client;
struct server;
struct client_statement;
struct reply_owed;
struct sql_outcome;
struct statement;
struct sql_command;

enum client_sql_next {
    CLIENT_SQL_NOT_OURS, /* go on as with any text */
    CLIENT_SQL_DONE,
    CLIENT_SQL_WAITS, /* the message stays in front until the server has answered */
};

/* Worth a call of the functions below? */
bool client_sql_may_matter(const struct client *c, struct str text, bool alone);

/* A whole Query message of a linked client. */
enum client_sql_next client_sql_query(struct client *c, struct str text);
/* A Parse; its name is free. */
enum client_sql_next client_sql_parse(struct client *c, const struct msg_parse *m);
/* Before a Bind or Describe of such a statement: the server is made to have it as it has to be now.
 * For the unnamed one a Parse is sent when what it means has changed. */
void client_sql_renew(struct client *c, struct client_statement *cs);
/* A portal was bound to it. */
void client_sql_bound(struct client *c, struct str portal, struct client_statement *cs);
/* An Execute of such a portal. False: it waits. */
bool client_sql_execute(struct client *c, struct client_statement *portal, struct str frame);

/* From the server. A CommandComplete for a request that has an outcome; true: hidden. */
bool client_sql_on_completion(struct server *s, struct sql_outcome *o);
/* Writes the ErrorResponse with the client's names and positions; false: it is right as it is. */
bool client_sql_fix_error(struct server *s, const struct reply_owed *owed, struct str body,
                          struct bytequeue *out);
/* The statements that it names are no longer what they were, or gone. */
void client_sql_distrust(struct server *s, const struct sql_outcome *o, bool is_gone);
/* An error of a statement that was taught in front of a query string; it is shown when the string
 * fails for want of it. */
bool client_sql_takes_error(struct server *s, struct str frame);
/* For a Parse whose text is `sent_len` bytes of tail now: positions in its errors. */
struct sql_outcome *sql_outcome_of_parse(const struct sql_command *cmd, size_t sent_len);
/* The same, when a Parse of the statement has just been owed. */
void client_sql_mark_parse(struct server *s, const struct sql_command *cmd,
                           const struct statement *st);
void sql_outcome_free(struct sql_outcome *o, struct server *s);

#endif
