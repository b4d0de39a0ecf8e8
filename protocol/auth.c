#include "protocol/auth.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>

/* name NUL name NUL … NUL */
static bool mechanisms_are_valid(struct wire_cursor *c, struct str *payload)
{
    const char *start = c->at;
    while (wire_ok(c)) {
        const char *at = c->at;
        if (wire_cstr(c).len == 0) {
            *payload = (struct str){ start, (size_t)(at - start) };
            return wire_at_end(c);
        }
    }
    return false;
}

bool auth_decode_request(struct str body, struct auth_request *r)
{
    struct wire_cursor c = wire_cursor(body);
    uint32_t code = wire_u32(&c);
    *r = (struct auth_request){ .payload = STR("") };
    if (!wire_ok(&c) || code > AUTH_REQUEST_SASL_FINAL)
        return false;
    r->kind = (enum auth_request_kind)code;
    switch (r->kind) {
    case AUTH_REQUEST_OK:
    case AUTH_REQUEST_KERBEROS_V5:
    case AUTH_REQUEST_CLEARTEXT:
    case AUTH_REQUEST_GSS:
    case AUTH_REQUEST_SSPI:
        return wire_at_end(&c);
    case AUTH_REQUEST_MD5:
        for (int i = 0; i < 4; i++)
            r->salt[i] = wire_u8(&c);
        return wire_at_end(&c);
    case AUTH_REQUEST_SASL:
        return mechanisms_are_valid(&c, &r->payload);
    case AUTH_REQUEST_GSS_CONTINUE:
    case AUTH_REQUEST_SASL_CONTINUE:
    case AUTH_REQUEST_SASL_FINAL:
        r->payload = wire_rest(&c);
        return true;
    }
    return false;
}

bool auth_offers_mechanism(const struct auth_request *r, const char *mechanism)
{
    struct wire_cursor c = wire_cursor(r->payload);
    while (wire_left(&c) > 0) {
        if (str_equal(wire_cstr(&c), str_from(mechanism)) && wire_ok(&c))
            return true;
    }
    return false;
}

static struct wire_mark begin_request(struct bytequeue *out, enum auth_request_kind kind)
{
    struct wire_mark m = wire_begin(out, BE_AUTHENTICATION);
    wire_put_u32(out, kind);
    return m;
}

static void encode_request(struct bytequeue *out, enum auth_request_kind kind, struct str payload)
{
    struct wire_mark m = begin_request(out, kind);
    wire_put_str(out, payload);
    wire_end(out, m);
}

void auth_encode_ok(struct bytequeue *out)
{
    encode_request(out, AUTH_REQUEST_OK, STR(""));
}

void auth_encode_cleartext(struct bytequeue *out)
{
    encode_request(out, AUTH_REQUEST_CLEARTEXT, STR(""));
}

void auth_encode_md5(struct bytequeue *out, const uint8_t salt[4])
{
    encode_request(out, AUTH_REQUEST_MD5, (struct str){ (const char *)salt, 4 });
}

void auth_encode_sasl(struct bytequeue *out, const char *const *mechanisms)
{
    struct wire_mark m = begin_request(out, AUTH_REQUEST_SASL);
    for (; *mechanisms != NULL; mechanisms++)
        wire_put_cstr(out, str_from(*mechanisms));
    wire_put_u8(out, 0);
    wire_end(out, m);
}

void auth_encode_sasl_continue(struct bytequeue *out, struct str message)
{
    encode_request(out, AUTH_REQUEST_SASL_CONTINUE, message);
}

void auth_encode_sasl_final(struct bytequeue *out, struct str message)
{
    encode_request(out, AUTH_REQUEST_SASL_FINAL, message);
}

bool auth_decode_password(struct str body, struct str *password)
{
    struct wire_cursor c = wire_cursor(body);
    *password = wire_cstr(&c);
    return wire_at_end(&c);
}

void auth_encode_password(struct bytequeue *out, struct str password)
{
    struct wire_mark m = wire_begin(out, FE_PASSWORD);
    wire_put_cstr(out, password);
    wire_end(out, m);
}

bool auth_decode_sasl_initial(struct str body, struct sasl_initial *s)
{
    struct wire_cursor c = wire_cursor(body);
    bool is_null;
    s->mechanism = wire_cstr(&c);
    s->response = wire_value(&c, &is_null);
    s->has_response = !is_null;
    return wire_at_end(&c);
}

void auth_encode_sasl_initial(struct bytequeue *out, struct str mechanism, struct str response)
{
    struct wire_mark m = wire_begin(out, FE_PASSWORD);
    wire_put_cstr(out, mechanism);
    wire_put_value(out, response);
    wire_end(out, m);
}

void auth_encode_sasl_response(struct bytequeue *out, struct str response)
{
    struct wire_mark m = wire_begin(out, FE_PASSWORD);
    wire_put_str(out, response);
    wire_end(out, m);
}

bool auth_is_md5_secret(struct str secret)
{
    if (secret.len != AUTH_MD5_LEN || !str_starts_with(secret, STR("md5")))
        return false;
    for (size_t i = 3; i < secret.len; i++) {
        char c = secret.ptr[i];
        if ((c < '0' || c > '9') && (c < 'a' || c > 'f'))
            return false;
    }
    return true;
}

/* md5(a b), as text. */
static bool md5_of_two(struct str a, struct str b, struct auth_md5 *out)
{
    static const char hex[] = "0123456789abcdef";
    uint8_t digest[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = ctx != NULL && EVP_DigestInit_ex(ctx, EVP_md5(), NULL) == 1 &&
              EVP_DigestUpdate(ctx, a.ptr, a.len) == 1 &&
              EVP_DigestUpdate(ctx, b.ptr, b.len) == 1 &&
              EVP_DigestFinal_ex(ctx, digest, &len) == 1 && len == 16;
    EVP_MD_CTX_free(ctx);
    if (!ok)
        return false;
    char *to = out->text;
    *to++ = 'm';
    *to++ = 'd';
    *to++ = '5';
    for (unsigned i = 0; i < len; i++) {
        *to++ = hex[digest[i] >> 4];
        *to++ = hex[digest[i] & 15];
    }
    *to = '\0';
    OPENSSL_cleanse(digest, sizeof(digest));
    return true;
}

bool auth_md5_secret(struct str user, struct str password, struct auth_md5 *secret)
{
    return md5_of_two(password, user, secret);
}

bool auth_md5_answer(struct str secret, const uint8_t salt[4], struct auth_md5 *answer)
{
    if (!auth_is_md5_secret(secret))
        return false;
    struct str digits = { secret.ptr + 3, secret.len - 3 };
    return md5_of_two(digits, (struct str){ (const char *)salt, 4 }, answer);
}

bool auth_equal(struct str a, struct str b)
{
    return a.len == b.len && CRYPTO_memcmp(a.ptr, b.ptr, a.len) == 0;
}
