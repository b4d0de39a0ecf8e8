/* SCRAM-SHA-256, both roles, as machines: a message goes in, a message comes out.
 *
 * RFC 5802, RFC 7677; manual: "SASL Authentication". Randomness is passed in. Channel binding is
 * tls-server-end-point (RFC 5929), under the name SCRAM-SHA-256-PLUS: the hash that binds is passed
 * in too. As in PostgreSQL the user name inside the exchange is ignored, and a
 * password that SASLprep can't prepare is used as it is. Keys are wiped when a machine is freed.
 *
 * With iteration counts of a server's choice the client role computes for a while (4096: 2 ms);
 * it refuses more than SCRAM_ITERATIONS_MAX.
 */
#ifndef PGTRICKLE_PROTOCOL_SCRAM_H
#define PGTRICKLE_PROTOCOL_SCRAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"
#include "base/text.h"

#define SCRAM_MECHANISM "SCRAM-SHA-256"
#define SCRAM_MECHANISM_PLUS "SCRAM-SHA-256-PLUS"
#define SCRAM_KEY_LEN 32
#define SCRAM_SALT_MAX 128
#define SCRAM_ITERATIONS_MAX 1000000
#define SCRAM_ITERATIONS_DEFAULT 4096
#define SCRAM_SALT_DEFAULT_LEN 16
#define SCRAM_NONCE_RAW_LEN 18 /* random bytes for a nonce, as PostgreSQL */

/* What a server keeps. */
struct scram_secret {
    int iterations;
    size_t salt_len;
    uint8_t salt[SCRAM_SALT_MAX];
    uint8_t stored_key[SCRAM_KEY_LEN];
    uint8_t server_key[SCRAM_KEY_LEN];
};

/* What proves an identity without the password, for the secret it was made from. */
struct scram_keys {
    uint8_t client_key[SCRAM_KEY_LEN];
    uint8_t server_key[SCRAM_KEY_LEN];
};

/* "SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey"; false when it is not that. */
bool scram_secret_parse(struct str text, struct scram_secret *s);
void scram_secret_print(const struct scram_secret *s, struct text *out);
/* salt.len <= SCRAM_SALT_MAX, iterations in 1..SCRAM_ITERATIONS_MAX, else false. */
bool scram_secret_from_password(struct str password, struct str salt, int iterations,
                                struct scram_secret *s);
/* The same salt for the same user every time, and keys that no password has, so that an unknown
 * user looks like a known one with a wrong password. mock_key: random, kept for the process's
 * life. */
bool scram_secret_mock(struct str user, const uint8_t mock_key[32], int iterations,
                       struct scram_secret *s);
/* A cleartext password arrived: is it the one? */
bool scram_password_matches(const struct scram_secret *s, struct str password);
/* The same, and the keys when it is. */
bool scram_password_keys(const struct scram_secret *s, struct str password,
                         struct scram_keys *keys);

enum scram_step {
    SCRAM_CONTINUE,  /* send what came out, feed the answer */
    SCRAM_DONE,      /* proved; send what came out unless it is empty */
    SCRAM_DENIED,    /* well-formed, and the proof is wrong: 28P01 */
    SCRAM_MALFORMED, /* 08P01 */
};

/* How an exchange stands to the TLS connection that it runs through. */
enum scram_binding {
    SCRAM_UNBOUND,   /* no TLS, or no binding wanted. A server: the client was not offered it */
    SCRAM_BOUND,     /* the mechanism is SCRAM_MECHANISM_PLUS */
    SCRAM_COULD_BIND /* a server offered it and the client chose the other mechanism: one that says
                      * "y" (you do not offer it) was told so by somebody in between, and is denied.
                      * A client could, and was not offered it: says "y" */
};
#define SCRAM_END_POINT_MAX 64

struct scram_server;

/* nonce_raw: SCRAM_NONCE_RAW_LEN random bytes. The secret is copied. */
struct scram_server *scram_server_new(const struct scram_secret *secret,
                                      const uint8_t nonce_raw[SCRAM_NONCE_RAW_LEN]);
/* Before the first step, else SCRAM_UNBOUND. end_point: the hash of the server's certificate, 1 to
 * SCRAM_END_POINT_MAX bytes; copied; unused unless SCRAM_BOUND. */
void scram_server_bind(struct scram_server *s, enum scram_binding binding, struct str end_point);
/* First the client-first-message, then the client-final-message. `out` is replaced. */
enum scram_step scram_server_step(struct scram_server *s, struct str in, struct text *out);
/* After SCRAM_DONE, else false: the keys, with which to log in as the same user on a server that
 * has the same secret. */
bool scram_server_keys(const struct scram_server *s, struct scram_keys *keys);
void scram_server_free(struct scram_server *s);

struct scram_client;

struct scram_client *scram_client_new(struct str password,
                                      const uint8_t nonce_raw[SCRAM_NONCE_RAW_LEN]);
struct scram_client *scram_client_new_with_keys(const struct scram_keys *keys,
                                                const uint8_t nonce_raw[SCRAM_NONCE_RAW_LEN]);
void scram_client_bind(struct scram_client *c, enum scram_binding binding, struct str end_point);
/* First with an empty `in`: the client-first-message comes out. Then the server-first-message,
 * then the server-final-message: SCRAM_DONE when the server has proved itself. */
enum scram_step scram_client_step(struct scram_client *c, struct str in, struct text *out);
/* What a server-first-message asks to be computed: a caller that has the keys, or computes them
 * elsewhere, gives them to scram_client_set_keys before the message is fed. */
struct scram_challenge {
    int iterations;
    size_t salt_len;
    uint8_t salt[SCRAM_SALT_MAX];
};
/* False: the message is no answer to ours; feeding it will say so too. */
bool scram_client_challenge(const struct scram_client *c, struct str in,
                            struct scram_challenge *challenge);
bool scram_challenge_keys(const struct scram_challenge *challenge, struct str password,
                          struct scram_keys *keys);
void scram_client_set_keys(struct scram_client *c, const struct scram_keys *keys);
void scram_client_free(struct scram_client *c);

#endif
