/* A lent server connection as a database: struct dvm_db by the wire protocol.
 *
 * Blocking calls on the socket of a server that has logged in. Statements of ours go by the
 * extended protocol under names of our own ("__pgt_..."), text in and out, so that the client's
 * unnamed statement and its portals survive; each ends with a Sync, hence in a transaction block
 * only (outside of one a Sync would commit what the client's pipeline did before).
 *
 * The messages that a server may send at any time (NoticeResponse, ParameterStatus,
 * NotificationResponse) go to the listener, except the NOTICE that announces a request: that sets
 * has_request. Bytes from the server are checked as any peer's; after a failure of class ERR_PEER
 * the connection is broken and every call fails.
 */
#ifndef PGTRICKLE_PROXY_WIRE_DB_H
#define PGTRICKLE_PROXY_WIRE_DB_H

#include <stdbool.h>

#include "base/bytequeue.h"
#include "base/err.h"
#include "base/str.h"
#include "dvm/runtime/db.h"
#include "protocol/reader.h"
#include "proxy/conn.h"

struct wire_db_listener {
    void *arg;
    /* A whole frame with its header, borrowed. */
    void (*aside)(void *arg, char tag, struct str frame);
    /* About to wait for the server: time to send on what was collected. */
    void (*before_wait)(void *arg);
};

struct wire_db {
    struct dvm_db base;
    struct lent_stream stream;
    struct wire_db_listener listener;
    struct bytequeue in;
    struct bytequeue out; /* to be sent by wire_db_send */
    struct wire_reader reader;
    size_t taken;        /* bytes of `in` that the last piece borrowed */
    char status;         /* of the last ReadyForQuery: I, T, E */
    bool has_request;    /* a NOTICE announced one; reset by the reader of this field */
    bool shows_requests; /* hand such NOTICEs to the listener too */
    bool names_in_use;   /* until the next ReadyForQuery */
    bool left_names;     /* names of ours may have outlived an error */
    bool broken;
};

/* The stream blocks and stays the caller's. status: the transaction status of the session. */
void wire_db_init(struct wire_db *w, const struct lent_stream *stream, int server_version,
                  char status, const struct wire_db_listener *listener);
void wire_db_fini(struct wire_db *w);

/* ---- messages, for proxy/lend.c ---------------------------------------------------------- */

/* Sends what is in w->out. */
bool wire_db_send(struct wire_db *w, struct err *e);

/* The next message, or piece of a long DataRow, CopyData or RowDescription, that is not an aside;
 * borrowed until the next call. ReadyForQuery sets w->status. */
bool wire_db_receive(struct wire_db *w, struct wire_piece *p, struct err *e);

/* Appends a statement of ours to w->out, from Parse to Sync; read the answer with
 * wire_db_receive up to ReadyForQuery. */
void wire_db_put_statement(struct wire_db *w, const char *sql);

/* The peer broke the protocol: sets *e and w->broken, returns false. */
bool wire_db_malformed(struct wire_db *w, char tag, struct err *e);

/* At the end: takes names of ours off the server (not in a failed pipeline), and hands what the
 * server sent behind the last answer to the listener. */
bool wire_db_finish(struct wire_db *w, struct err *e);

#endif
