/* TLS by OpenSSL: the contexts of both sides, and an encrypted stream over a socket.
 *
 * A context holds what the configuration says of one side (certificate, key, authorities, versions,
 * ciphers). It is made at start and by each RELOAD, never changed, and lives as long as a stream
 * that was made from it. A stream reads and writes a descriptor that stays the caller's, blocking
 * or not as the descriptor is. Nothing in it belongs to a thread: it may move to another one as
 * long as one at a time uses it.
 */
#ifndef PGTRICKLE_PROXY_IO_TLS_H
#define PGTRICKLE_PROXY_IO_TLS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "proxy/config.h"
#include "proxy/conn.h"

/* What io_ops.tls_load does: new contexts for both sides, NULL for one whose sslmode is disable.
 * False and *e (ERR_CONFIG) when a file can't be used or a setting is wrong. */
bool tls_load(const struct config *c, struct tls_context **clients, struct tls_context **servers,
              struct err *e);
void tls_context_unref(struct tls_context *t); /* takes NULL */

struct tls_stream;

enum tls_status {
    TLS_OK,
    TLS_WANTS_READ, /* again when the descriptor is readable */
    TLS_WANTS_WRITE,
    TLS_END,    /* the peer has ended the stream */
    TLS_BROKEN, /* no further call but tls_stream_free */
};

/* The stream holds a reference of the context. how->first is copied. */
struct tls_stream *tls_stream_new(const struct tls_start *how, int fd);
/* Without a word to the peer: for that, tls_stream_end. */
void tls_stream_free(struct tls_stream *t); /* takes NULL */

/* To be called until it is TLS_OK, which sets *info (malloc), or TLS_BROKEN (TLS_END is none of its
 * answers), which sets *e to what a log should say: ERR_PEER. */
enum tls_status tls_handshake(struct tls_stream *t, struct tls_info **info, struct err *e);

/* TLS_OK: at least one byte. */
enum tls_status tls_read(struct tls_stream *t, void *to, size_t size, size_t *n);
/* TLS_OK: at least one byte was taken. After TLS_WANTS_... the next call must begin with the same
 * bytes, wherever they are then, and have no fewer. */
enum tls_status tls_write(struct tls_stream *t, const void *bytes, size_t size, size_t *n);
/* The next tls_read may have something without the descriptor being readable. */
bool tls_has_pending(const struct tls_stream *t);
/* After TLS_BROKEN: why, for a log. */
const char *tls_reason(const struct tls_stream *t);
/* Tells the peer that nothing follows, if it can be told at once. */
void tls_stream_end(struct tls_stream *t);

#endif
