/* Authentication requests and responses, and password hashes by md5.
 *
 * Manual: "Message Flow", Start-up; "Message Formats", Authentication*, PasswordMessage,
 * SASLInitialResponse, SASLResponse; "Password Authentication". The SASL exchange itself is in
 * protocol/scram.h. Slices borrow from the input.
 */
#ifndef PGTRICKLE_PROTOCOL_AUTH_H
#define PGTRICKLE_PROTOCOL_AUTH_H

#include <stdbool.h>
#include <stdint.h>

#include "protocol/reader.h"
#include "protocol/writer.h"

/* As numbered on the wire. */
enum auth_request_kind {
    AUTH_REQUEST_OK = 0,
    AUTH_REQUEST_KERBEROS_V5 = 2,
    AUTH_REQUEST_CLEARTEXT = 3,
    AUTH_REQUEST_MD5 = 5,
    AUTH_REQUEST_GSS = 7,
    AUTH_REQUEST_GSS_CONTINUE = 8,
    AUTH_REQUEST_SSPI = 9,
    AUTH_REQUEST_SASL = 10,
    AUTH_REQUEST_SASL_CONTINUE = 11,
    AUTH_REQUEST_SASL_FINAL = 12,
};

struct auth_request {
    enum auth_request_kind kind;
    uint8_t salt[4];    /* AUTH_REQUEST_MD5 */
    struct str payload; /* SASL: the mechanisms, NUL-terminated each; SASL_CONTINUE, SASL_FINAL and
                         * GSS_CONTINUE: the mechanism's own message */
};

/* False when malformed or of a kind not in the enumeration. */
bool auth_decode_request(struct str body, struct auth_request *r);
/* The mechanism is in the payload of a SASL request. */
bool auth_offers_mechanism(const struct auth_request *r, const char *mechanism);

void auth_encode_ok(struct bytequeue *out);
void auth_encode_cleartext(struct bytequeue *out);
void auth_encode_md5(struct bytequeue *out, const uint8_t salt[4]);
/* mechanisms: NULL-terminated array. */
void auth_encode_sasl(struct bytequeue *out, const char *const *mechanisms);
void auth_encode_sasl_continue(struct bytequeue *out, struct str message);
void auth_encode_sasl_final(struct bytequeue *out, struct str message);

/* What tag 'p' holds is known from what was asked for. */
bool auth_decode_password(struct str body, struct str *password);
void auth_encode_password(struct bytequeue *out, struct str password);

struct sasl_initial {
    struct str mechanism;
    bool has_response;
    struct str response;
};
bool auth_decode_sasl_initial(struct str body, struct sasl_initial *s);
void auth_encode_sasl_initial(struct bytequeue *out, struct str mechanism, struct str response);
/* A SASLResponse is its body. */
void auth_encode_sasl_response(struct bytequeue *out, struct str response);

/* "md5" and 32 hexadecimal digits, NUL-terminated. */
#define AUTH_MD5_LEN 35
struct auth_md5 {
    char text[AUTH_MD5_LEN + 1];
};

/* A secret of this form, as stored in an auth file or in pg_authid. */
bool auth_is_md5_secret(struct str secret);
/* The secret: md5(password user). False when the library refuses md5 (FIPS). */
bool auth_md5_secret(struct str user, struct str password, struct auth_md5 *secret);
/* The answer to a salt: md5(digits of the secret, salt). `secret` passes auth_is_md5_secret. */
bool auth_md5_answer(struct str secret, const uint8_t salt[4], struct auth_md5 *answer);

/* In a time that depends on the lengths only. */
bool auth_equal(struct str a, struct str b);

#endif
