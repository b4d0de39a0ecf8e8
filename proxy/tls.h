/* TLS as the core sees it: what is known of an encrypted connection. No OpenSSL here.
 *
 * The cryptography is the world's (proxy/io/tls.h). The core decides when a handshake begins
 * (conn_start_tls in proxy/conn.h), as which side, and what the outcome means; a struct tls_info
 * is what the world tells it then. It lives as long as the conn.
 */
#ifndef PGTRICKLE_PROXY_TLS_H
#define PGTRICKLE_PROXY_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

struct conn;

/* The certificates, keys and rules of one side, as loaded from the configuration: the world's.
 * Immutable; references are counted atomically. */
struct tls_context;

#define TLS_END_POINT_MAX 64

struct tls_info {
    const char *version; /* "TLSv1.3"; static */
    const char *cipher;  /* "TLS_AES_256_GCM_SHA384"; static */
    char *peer_name; /* common name of the peer's verified certificate, malloc; NULL: it has none,
                      * or no certificate was asked for */
    /* RFC 5929 tls-server-end-point: the hash of the server's certificate, ours or the peer's. Its
     * length is 0 when there is none for that certificate's algorithm. */
    uint8_t end_point[TLS_END_POINT_MAX];
    size_t end_point_len;
};

void tls_info_free(struct tls_info *t); /* takes NULL */
#define TLS_PRINT_MAX 128
/* "TLSv1.3/TLS_AES_256_GCM_SHA384"; t NULL: "". */
void tls_print(const struct tls_info *t, char out[TLS_PRINT_MAX]);

/* NULL: the stream is in clear. */
const struct tls_info *conn_tls(const struct conn *c);
/* The common name of the certificate by which the peer proved itself; NULL: there is none. A client
 * is asked for one, and it is verified, under client_tls_sslmode verify-ca and verify-full only. */
const char *conn_certificate_name(const struct conn *c);

#endif
