/* CancelRequests: from a client's key to the server that runs its query.
 *
 * A key is ours (eight random bytes per client); the server's own key is sent on a fresh connection
 * to the very server. A server with a cancel in flight is not given to another client: the cancel
 * could hit that one's query.
 */
#ifndef PGTRICKLE_PROXY_CANCEL_H
#define PGTRICKLE_PROXY_CANCEL_H

#include <stdint.h>

#include "base/str.h"

struct client;
struct pool;
struct server;
struct worker;

/* Where the client of this key is; unknown ones are seen to where the canceller is. */
struct worker *cancel_worker(struct client *canceller, int32_t pid, struct str key);
/* The canceller's packet arrived, on that worker. The canceller is closed, now or when its request
 * was passed on.
 */
void cancel_request(struct client *canceller, int32_t pid, struct str key);
/* The query of a client that is gone. */
void cancel_own_query(struct server *s);
/* The server is closed; requests for it come to nothing. */
void cancel_forget_server(struct pool *p, struct server *s);
/* All requests of a pool are given up. */
void cancel_close_all(struct pool *p);
/* The canceller hung up. */
void cancel_abandon(struct client *canceller);

#endif
