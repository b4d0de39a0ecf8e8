/* Cancel keys: what a client gets in BackendKeyData and sends back in a CancelRequest.
 *
 * A key is the four bytes that the wire calls process id, then the secret: 4 bytes up to protocol
 * 3.0, 32 from 3.2 on (the server's own choice for 3.2; the manual allows 256). All of it is random
 * but for what lets a group of peers route it, at the places that PgBouncer (1.19 and later) gives
 * them, so that both can be peers of each other:
 *
 *   byte 0      top bit 0, for drivers that print the process id
 *   bytes 1, 2  peer id, little endian, when there is one
 *   last byte   its lowest two bits: how many more times the request may be forwarded
 *
 * Manual: "Message Formats", BackendKeyData, CancelRequest.
 */
#ifndef PGTRICKLE_PROXY_CANCEL_KEY_H
#define PGTRICKLE_PROXY_CANCEL_KEY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"

#define CANCEL_KEY_SHORT 8 /* bytes with the process id */
#define CANCEL_KEY_LONG 36
#define CANCEL_KEY_TTL 3 /* what a fresh key may be forwarded */

struct cancel_key {
    unsigned char bytes[CANCEL_KEY_LONG];
    uint8_t len; /* CANCEL_KEY_SHORT, CANCEL_KEY_LONG; 0: none */
};

/* A key of which the length is known, kept in little room: nearly all are short. */
union cancel_key_kept {
    unsigned char bytes[CANCEL_KEY_SHORT];
    unsigned char *longer; /* CANCEL_KEY_LONG bytes, malloc */
};

void cancel_key_keep(union cancel_key_kept *to, const struct cancel_key *k);
struct cancel_key cancel_key_look(const union cancel_key_kept *from, uint8_t len);
void cancel_key_drop(union cancel_key_kept *k, uint8_t len); /* len 0: nothing is kept */

/* bytes[0..len-1] are random already; peer_id 0: none. */
void cancel_key_finish(struct cancel_key *k, uint8_t len, int peer_id);

/* As it came in a CancelRequest. False: no key of ours has this length. */
bool cancel_key_from_wire(struct cancel_key *k, int32_t pid, struct str secret);
int32_t cancel_key_pid(const struct cancel_key *k);
struct str cancel_key_secret(const struct cancel_key *k); /* borrows from k */

int cancel_key_peer(const struct cancel_key *k);
/* One forward less; false: it may not be forwarded any more. */
bool cancel_key_forward(struct cancel_key *k);

/* For a map: the same for keys that differ only in how often they may be forwarded. Mixed with a
 * secret of the process, so that the time of a look-up tells nothing about keys that exist. */
uint64_t cancel_key_hash(const struct cancel_key *k, uint64_t secret);
/* All bytes are compared whatever they are; how often they may be forwarded does not count. */
bool cancel_key_equal(const struct cancel_key *a, const struct cancel_key *b);

#endif
