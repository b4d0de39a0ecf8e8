/* CancelRequests: from a client's key to the server that runs its query, or to the peer whose
 * client it is.
 *
 * A key is ours (proxy/cancel_key.h); the server's own key is sent on a fresh connection to the
 * very server. A server with a cancel in flight is not given to another client: the cancel could
 * hit that one's query. Servers and cancels of a pool together are at most twice its size: more
 * requests wait, and those for a server that is done with its query meanwhile are dropped.
 */
#ifndef PGTRICKLE_PROXY_CANCEL_H
#define PGTRICKLE_PROXY_CANCEL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"

struct cancel_request;
struct client;
struct peer;
struct pool;
struct proxy;
struct server;
struct worker;

/* Where the client of this key is; unknown ones are seen to where the canceller is. */
struct worker *cancel_worker(struct client *canceller, int32_t pid, struct str key);
/* The canceller's packet arrived, on that worker. The canceller is closed, now or when its request
 * was passed on.
 */
void cancel_request(struct client *canceller, int32_t pid, struct str key);
/* The query of a client that is gone. False: the server gave no key to cancel it with. */
bool cancel_own_query(struct server *s);
/* Begins with those that can go. */
void cancel_serve(struct pool *p);
/* The server's query is over: requests for it that still wait come to nothing. */
void cancel_drop_queued(struct server *s);
/* The server is closed; requests for it come to nothing. */
void cancel_forget_server(struct pool *p, struct server *s);
/* All requests of a pool, or those to peers, are given up. */
void cancel_close_all(struct pool *p);
void cancel_close_peers(struct worker *w);
/* The canceller hung up. */
void cancel_abandon(struct client *canceller);
/* It was sent, or is about to be; else it waits for a connection. */
bool cancel_is_under_way(const struct cancel_request *r);

struct cancel_counts {
    int waiting;    /* for their turn, or for the connection */
    int sent;       /* the end is waited for */
    int connecting; /* of the waiting ones */
};
struct cancel_counts cancel_count(const struct pool *p);

/* ---- requests to peers: [peers] ---- */

/* All other workers stand still. NULL: nothing was ever forwarded to it. */
const struct peer *cancel_find_peer(const struct proxy *p, int id);
struct cancel_counts cancel_count_peer(const struct peer *peer);
void cancel_free_peers(struct proxy *p);

#endif
