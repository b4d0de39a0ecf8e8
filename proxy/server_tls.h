/* Before the first message to a server: is the stream to be encrypted, and how.
 *
 *   CLEAR (server_tls_sslmode = disable, a unix socket)
 *   ASKED --'S'--> HANDSHAKE --> DONE        HANDSHAKE at once with server_tls_negotiation = direct
 *     |'N': CLEAR under allow and prefer (which both ask, as PgBouncer's do), else refused
 *
 * For whoever connects to a server: proxy/server.c, proxy/cancel.c. Manual: "SSL Session
 * Encryption".
 */
#ifndef PGTRICKLE_PROXY_SERVER_TLS_H
#define PGTRICKLE_PROXY_SERVER_TLS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/str.h"

struct conn;

enum server_tls_state {
    SERVER_TLS_CLEAR,
    SERVER_TLS_ASKED,
    SERVER_TLS_HANDSHAKE,
    SERVER_TLS_DONE,
};

struct server_tls {
    enum server_tls_state state;
    char *host; /* as the configuration calls the server; malloc, freed by server_tls_fini */
};

/* host: what is connected to, before any name was looked up. */
void server_tls_init(struct server_tls *t, const char *host);
void server_tls_fini(struct server_tls *t);

enum server_tls_next {
    SERVER_TLS_GO_ON,  /* the startup packet or the cancel request may be sent */
    SERVER_TLS_WAIT,   /* for bytes, or for on_secured, after which to go on */
    SERVER_TLS_REFUSED /* *e says why: close it */
};

/* It is connected. */
enum server_tls_next server_tls_begin(struct server_tls *t, struct conn *c, struct err *e);
/* Bytes came while SERVER_TLS_WAIT; they are used up. */
enum server_tls_next server_tls_on_bytes(struct server_tls *t, struct conn *c, struct str bytes,
                                         struct err *e);

#endif
