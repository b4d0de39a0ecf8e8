/* How a connection starts: packets with a length and no tag, and the negotiation of the version.
 *
 * Manual: "Message Flow", Start-up, Canceling Requests in Progress, SSL Session Encryption;
 * "Message Formats", StartupMessage, CancelRequest, SSLRequest, GSSENCRequest,
 * NegotiateProtocolVersion. Slices borrow from the input.
 */
#ifndef PGTRICKLE_PROTOCOL_STARTUP_H
#define PGTRICKLE_PROTOCOL_STARTUP_H

#include <stdbool.h>
#include <stdint.h>

#include "protocol/reader.h"
#include "protocol/writer.h"

#define STARTUP_PACKET_MAX 10000 /* MAX_STARTUP_PACKET_LENGTH of the server */

enum startup_kind {
    STARTUP_MESSAGE, /* of any version: the receiver decides */
    STARTUP_CANCEL,
    STARTUP_SSL_REQUEST,
    STARTUP_GSSENC_REQUEST,
};

struct startup_packet {
    enum startup_kind kind;
    /* STARTUP_MESSAGE: */
    uint16_t major;
    uint16_t minor;
    struct str params; /* name NUL value NUL …, verified; see startup_next_param. Empty unless
                        * major is 3 */
    /* STARTUP_CANCEL: */
    int32_t cancel_pid;
    struct str cancel_key; /* 4 bytes up to 3.0, 4 to 256 from 3.2 on */
};

/* The packet at the front of `bytes`; *used is its length. */
enum wire_result startup_next(struct str bytes, struct startup_packet *p, size_t *used);

/* The peer starts TLS without asking (sslnegotiation=direct): a handshake record. */
bool startup_is_tls(struct str bytes);

/* Takes one pair off *params; false at the end. */
bool startup_next_param(struct str *params, struct str *name, struct str *value);
/* The value of the last parameter of this name (the server too lets the last one win); false when
 * there is none. */
bool startup_find_param(struct str params, const char *name, struct str *value);

void startup_encode_ssl_request(struct bytequeue *out);
void startup_encode_gssenc_request(struct bytequeue *out);
void startup_encode_cancel(struct bytequeue *out, int32_t pid, struct str key);

/* begin, any number of params, end. */
struct wire_mark startup_encode_begin(struct bytequeue *out, uint16_t major, uint16_t minor);
void startup_encode_param(struct bytequeue *out, struct str name, struct str value);
void startup_encode_end(struct bytequeue *out, struct wire_mark m);

/* NegotiateProtocolVersion: the newest version that the sender will speak, and the options
 * (parameters "_pq_.…") that it did not understand. The manual calls the number a minor version;
 * servers send, and libpq reads, the whole 32-bit version. Decoding takes both. */
struct negotiate_version {
    uint16_t major;
    uint16_t minor;
    uint32_t n_options;
    struct str options; /* NUL-terminated names, one after the other */
};

bool startup_decode_negotiate(struct str body, struct negotiate_version *n);
/* `params` of the packet: the options in it are those not understood. */
void startup_encode_negotiate(struct bytequeue *out, uint16_t major, uint16_t minor,
                              struct str params);
/* Any "_pq_." among them? Then a server that knows none must answer NegotiateProtocolVersion. */
bool startup_has_options(struct str params);

#endif
