/* LISTEN in transaction pooling.
 *
 * A client that says LISTEN has no server connection of its own on which PostgreSQL could notify
 * it. A listener does: a server connection of the pool (one on each worker, and for each
 * client_encoding, for that is what names and payloads are in) that does nothing but LISTEN, to all
 * channels that some client of the pool wants, and whose notifications are passed on. It is opened
 * with the first LISTEN, closed with the last, and counts in no limit.
 *
 * The client's LISTEN is sent to its server as it is, but only after the listener listens to the
 * channel: so nothing that is committed later is missed. Whether it took effect (COMMIT, ROLLBACK,
 * savepoints, errors) the server says at the end of the transaction: proxy/session_state.c asks it
 * for its pg_listening_channels() and has it UNLISTEN. What arrived in between is kept back until
 * then (`early`); a notification that is committed while the transaction runs may be told too.
 * UNLISTEN takes effect when its transaction ends without an error or ROLLBACK.
 *
 * A client is told between transactions, never inside of one, as by PostgreSQL. When the listener's
 * connection is lost, it is opened again, and the clients are told that notifications may have been
 * missed (a NOTICE), or are closed (listen_lost_disconnect).
 */
#ifndef PGTRICKLE_PROXY_LISTENER_H
#define PGTRICKLE_PROXY_LISTENER_H

#include <stdbool.h>

#include "base/bytequeue.h"
#include "base/err.h"
#include "base/list.h"
#include "base/map.h"
#include "base/str.h"
#include "protocol/reader.h"

struct client;
struct listener;
struct pool;
struct server;

/* Bytes that wait for one client; one that does not read them is closed. */
#define LISTEN_QUEUE_MAX (4 * 1024 * 1024)
/* Channels of one client. */
#define LISTEN_CHANNELS_MAX 10000

/* A client's part, in its struct session. */
struct hearing {
    struct list subscriptions; /* struct subscription.hearing_node */
    struct map by_name;        /* the same; struct subscription.name_node */
    int tentative;             /* of these: LISTENs whose transaction is not over */
    bool unlistens;            /* some of these will end with their transaction */
    struct bytequeue early;    /* notifications for whom that matters, in order */
    struct bytequeue ready;    /* to be told at the next occasion */
};

void hearing_init(struct hearing *h);

enum listener_answer {
    LISTENER_LISTENS,
    LISTENER_WAITS,  /* conn_wake follows */
    LISTENER_FAILED, /* *e says why */
};

/* The client is about to send LISTEN: does its listener listen to the channel? */
enum listener_answer listener_listen(struct client *c, struct hearing *h, struct str channel,
                                     struct err *e);
void listener_unlisten(struct hearing *h, struct str channel);
/* An error, or a ROLLBACK. */
void listener_undo(struct hearing *h);
/* A new request: what was committed before it was sent is not for the LISTENs of before. */
void listener_new_request(struct hearing *h);
/* The transaction is over; channels: what its server listens to, each with NUL. */
void listener_settle(struct client *c, struct hearing *h, struct str channels);
/* DISCARD ALL, or the end of the client. */
void listener_forget(struct client *c, struct hearing *h);
/* Tells what is to be told, if this is the time. before_ready: a ReadyForQuery with the status
 * "idle" is about to be sent. */
void listener_tell(struct client *c, struct hearing *h, bool before_ready);

/* A listener, for SHOW LISTENERS. */
struct listener_view {
    const char *encoding;        /* NULL: the server's */
    const struct server *server; /* NULL: not connected */
    const char *state;           /* static: "listening", "login", "waiting" */
    size_t channels;
    size_t clients;
    size_t queued; /* bytes for clients that can't be told yet, or read slowly */
};
void listeners_each(const struct pool *p, void (*put)(void *arg, const struct listener_view *v),
                    void *arg);

/* From the pool: connects what is not, unless it is paused. */
void listeners_serve(struct pool *p);
void listeners_close(struct pool *p, const char *reason);
void listeners_end(struct pool *p); /* no client is left */

/* From the server's machine. */
const char *listener_encoding(const struct listener *l);
void listener_on_ready(struct listener *l);
void listener_on_failed(struct listener *l, struct str message);
void listener_on_piece(struct listener *l, const struct wire_piece *f);
void listener_on_closed(struct listener *l);

#endif
