/* "Why am I waiting?" What a client that waits for a server connection waits for: the pool, the
 * limit that is reached, who holds the servers and for how long.
 *
 * For SHOW WAITERS, and for the DETAIL of the errors that end a wait.
 */
#ifndef PGTRICKLE_PROXY_WAITING_H
#define PGTRICKLE_PROXY_WAITING_H

#include <stdbool.h>
#include <stdint.h>

#include "base/text.h"

struct client;
struct server;

enum waiting_for {
    WAITING_PAUSE,      /* PAUSE, SUSPEND or KILL, until RESUME */
    WAITING_RETRY,      /* the last attempt to log in to the server failed */
    WAITING_OPENING,    /* a server connection is being opened */
    WAITING_POOL_SIZE,  /* pool_size and the reserve are in use */
    WAITING_DB_LIMIT,   /* max_db_connections */
    WAITING_USER_LIMIT, /* max_user_connections */
    WAITING_TURN,       /* a server is free, or about to be */
};

struct waiting {
    enum waiting_for what;
    int limit; /* of the one that is reached; 0: none is */
    int used;  /* servers that count for it */
    int64_t waited_us;
    int ahead;                   /* clients of the pool that came before it */
    const struct server *holder; /* the one that has been held longest; NULL: nobody holds one */
    int64_t held_us;
    int64_t retry_us; /* WAITING_RETRY: until the next attempt */
};

/* c waits (CLIENT_WAITING, CLIENT_LOGIN_WAIT). everywhere: other workers are halted, and all of
 * them are looked at; else only c's own. *w borrows. */
void waiting_look(const struct client *c, bool everywhere, struct waiting *w);

/* "pool_size", "max_db_connections", "paused", … */
const char *waiting_name(enum waiting_for what);
/* "active", "idle in transaction", "idle": what the holder does with its server. */
const char *waiting_holder_state(const struct server *holder);

/* A sentence or two for a DETAIL. */
void waiting_describe(const struct client *c, const struct waiting *w, struct text *out);

#endif
