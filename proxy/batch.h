/* A batch that fails because of a prepared statement that is not what we think is sent again.
 *
 * A statement that a server was taught for one client fails for another one after its result type
 * changed ("cached plan must not change result type", 0A000), and does not exist (26000) when
 * somebody deallocated it where we don't look (in a DO block). That is no fault of this client.
 * When its first request of a batch fails so, outside of a transaction block, nothing has been done
 * and nothing was answered: the statement is forgotten, and the batch, whose bytes were kept, is
 * taken from the client's input once more, which prepares it anew. Otherwise the client sees the
 * error, as it would without us, and the statement is prepared anew for the next.
 *
 * A client that was told the columns of the statement before, and does not ask again in this batch,
 * believes that they still are what they were: it sees the error too.
 */
#ifndef PGTRICKLE_PROXY_BATCH_H
#define PGTRICKLE_PROXY_BATCH_H

#include <stdbool.h>

#include "base/str.h"

struct server;
struct client_statement;
struct reply_owed;

#define BATCH_KEPT_MAX 16384 /* bytes; of a longer one the client sees the error */

/* Before messages of our own or the client's are sent: would the next request be the first of a
 * batch that may be sent again? */
bool batch_is_new(struct server *s);
/* Its reply is `o`, which was just owed: what is kept begins with the message in hand. */
void batch_begin(struct server *s, struct reply_owed *o);
/* A message of the client was sent; is_last: it ends the batch. */
void batch_add(struct server *s, struct str message, bool is_last);
/* Nothing is kept any more. */
void batch_forget(struct server *s);

/* The reply to `o`, the first that is owed, is this error: statements that it tells to be gone or
 * stale are forgotten. True: the batch is sent again, and the error not shown. */
bool batch_on_error(struct server *s, struct reply_owed *o, struct str body);

#endif
