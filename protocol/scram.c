#include "protocol/scram.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stringprep.h>

#include "base/arena.h"
#include "protocol/scram_internal.h"

/* ---- base64, strict: no blanks, padding only where it belongs ---- */

static void put_base64(struct text *out, const uint8_t *bytes, size_t len)
{
    char encoded[4 * ((SCRAM_SALT_MAX + 2) / 3) + 1]; /* the salt is the longest thing here */
    int n = EVP_EncodeBlock((uint8_t *)encoded, bytes, (int)len);
    text_put_bytes(out, encoded, (size_t)n);
}

static bool is_base64(struct str s)
{
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        bool is_digit = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
                        (c >= '0' && c <= '9') || c == '+' || c == '/';
        bool is_padding = c == '=' && i + 2 >= s.len && s.ptr[s.len - 1] == '=';
        if (!is_digit && !is_padding)
            return false;
    }
    return s.len > 0 && s.len % 4 == 0;
}

/* False when it isn't base64 or is longer than `max` bytes. */
static bool decode_base64(struct str s, uint8_t *bytes, size_t max, size_t *len)
{
    uint8_t decoded[SCRAM_SALT_MAX + 3];
    if (!is_base64(s) || s.len / 4 * 3 > sizeof(decoded))
        return false;
    int n = EVP_DecodeBlock(decoded, (const uint8_t *)s.ptr, (int)s.len);
    if (n < 0)
        return false;
    size_t padding = s.ptr[s.len - 1] != '=' ? 0 : s.ptr[s.len - 2] != '=' ? 1 : 2;
    *len = (size_t)n - padding;
    if (*len > max)
        return false;
    memcpy(bytes, decoded, *len);
    return true;
}

static bool decode_key(struct str s, uint8_t key[SCRAM_KEY_LEN])
{
    size_t len;
    return decode_base64(s, key, SCRAM_KEY_LEN, &len) && len == SCRAM_KEY_LEN;
}

/* ---- the primitives of RFC 5802, with SHA-256 ---- */

static bool hmac(const uint8_t key[SCRAM_KEY_LEN], struct str message, uint8_t out[SCRAM_KEY_LEN])
{
    unsigned len = 0;
    return HMAC(EVP_sha256(), key, SCRAM_KEY_LEN, (const uint8_t *)message.ptr, message.len, out,
                &len) != NULL &&
           len == SCRAM_KEY_LEN;
}

static bool hash_key(const uint8_t in[SCRAM_KEY_LEN], uint8_t out[SCRAM_KEY_LEN])
{
    unsigned len = 0;
    return EVP_Digest(in, SCRAM_KEY_LEN, out, &len, EVP_sha256(), NULL) == 1 &&
           len == SCRAM_KEY_LEN;
}

static void xor_key(uint8_t out[SCRAM_KEY_LEN], const uint8_t other[SCRAM_KEY_LEN])
{
    for (size_t i = 0; i < SCRAM_KEY_LEN; i++)
        out[i] ^= other[i];
}

static bool is_ascii(struct str s)
{
    for (size_t i = 0; i < s.len; i++) {
        if ((uint8_t)s.ptr[i] >= 0x80)
            return false;
    }
    return true;
}

/* The two characters that are prohibited, and that normalisation would replace: PostgreSQL looks
 * for prohibited characters before it normalises, libidn after. */
static bool has_tone_mark(struct str s)
{
    return str_find(s, STR("\xcd\x80")) >= 0 || str_find(s, STR("\xcd\x81")) >= 0;
}

/* SASLprep, and the bytes themselves where PostgreSQL takes those: for ASCII, for what isn't UTF-8
 * and for what has prohibited or unassigned characters. Malloced; *len without the NUL. */
static char *prepare_password(struct str password, size_t *len)
{
    size_t cap = password.len * 8 + 64; /* room for normalisation, which can lengthen */
    char *prepared = mem_alloc(cap);
    *len = password.len;
    if (password.len > 0)
        memcpy(prepared, password.ptr, password.len);
    prepared[password.len] = '\0';
    if (is_ascii(password) || has_tone_mark(password) ||
        memchr(password.ptr, '\0', password.len) != NULL)
        return prepared;

    if (stringprep(prepared, cap, STRINGPREP_NO_UNASSIGNED, stringprep_saslprep) == STRINGPREP_OK &&
        prepared[0] != '\0') {
        *len = strlen(prepared);
        return prepared;
    }
    memcpy(prepared, password.ptr, password.len);
    prepared[password.len] = '\0';
    return prepared;
}

static bool derive_keys(struct str password, const uint8_t *salt, size_t salt_len, int iterations,
                        struct scram_keys *keys)
{
    uint8_t salted[SCRAM_KEY_LEN];
    size_t len;
    char *prepared = prepare_password(password, &len);
    bool ok = len <= INT_MAX &&
              PKCS5_PBKDF2_HMAC(prepared, (int)len, salt, (int)salt_len, iterations, EVP_sha256(),
                                SCRAM_KEY_LEN, salted) == 1 &&
              hmac(salted, STR("Client Key"), keys->client_key) &&
              hmac(salted, STR("Server Key"), keys->server_key);
    OPENSSL_cleanse(prepared, len);
    OPENSSL_cleanse(salted, sizeof(salted));
    free(prepared);
    return ok;
}

/* ---- attributes: "x=value", separated by commas ---- */

/* Takes attribute `name` off the front of *in, with the comma behind it. */
static bool take_attribute(struct str *in, char name, struct str *value)
{
    if (in->len < 2 || in->ptr[0] != name || in->ptr[1] != '=')
        return false;
    const char *start = in->ptr + 2;
    const char *end = in->ptr + in->len;
    const char *comma = memchr(start, ',', in->len - 2);
    const char *stop = comma != NULL ? comma : end;
    const char *next = comma != NULL ? comma + 1 : end;
    *value = (struct str){ start, (size_t)(stop - start) };
    *in = (struct str){ next, (size_t)(end - next) };
    /* a comma with nothing behind it promises an attribute that isn't there */
    return comma == NULL || in->len > 0;
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* Extensions that we don't know are ignored, if they look like attributes. */
static bool skip_attributes(struct str in)
{
    struct str value;
    while (in.len > 0) {
        if (!is_letter(in.ptr[0]) || !take_attribute(&in, in.ptr[0], &value))
            return false;
    }
    return true;
}

static bool is_nonce(struct str s)
{
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] < 0x21 || s.ptr[i] > 0x7e || s.ptr[i] == ',')
            return false;
    }
    return s.len > 0;
}

/* Digits only, 1..max. */
static bool parse_iterations(struct str s, int max, int *iterations)
{
    int64_t n = 0;
    if (s.len == 0 || s.len > 10)
        return false;
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] < '0' || s.ptr[i] > '9')
            return false;
        n = n * 10 + (s.ptr[i] - '0');
    }
    *iterations = (int)(n <= max ? n : 0);
    return n >= 1 && n <= max;
}

/* ---- secrets ---- */

/* What stands before `end`; both go from *in. */
static bool take_until(struct str *in, char end, struct str *part)
{
    const char *at = in->len > 0 ? memchr(in->ptr, end, in->len) : NULL;
    if (at == NULL)
        return false;
    *part = (struct str){ in->ptr, (size_t)(at - in->ptr) };
    in->len -= part->len + 1;
    in->ptr = at + 1;
    return true;
}

bool scram_secret_parse(struct str text, struct scram_secret *s)
{
    struct str scheme, iterations, salt, stored_key;
    *s = (struct scram_secret){ 0 };
    return take_until(&text, '$', &scheme) && str_equal(scheme, STR(SCRAM_MECHANISM)) &&
           take_until(&text, ':', &iterations) && take_until(&text, '$', &salt) &&
           take_until(&text, ':', &stored_key) &&
           parse_iterations(iterations, INT_MAX, &s->iterations) &&
           decode_base64(salt, s->salt, SCRAM_SALT_MAX, &s->salt_len) &&
           decode_key(stored_key, s->stored_key) && decode_key(text, s->server_key);
}

void scram_secret_print(const struct scram_secret *s, struct text *out)
{
    text_printf(out, SCRAM_MECHANISM "$%d:", s->iterations);
    put_base64(out, s->salt, s->salt_len);
    text_put_char(out, '$');
    put_base64(out, s->stored_key, SCRAM_KEY_LEN);
    text_put_char(out, ':');
    put_base64(out, s->server_key, SCRAM_KEY_LEN);
}

bool scram_secret_from_password(struct str password, struct str salt, int iterations,
                                struct scram_secret *s)
{
    if (salt.len == 0 || salt.len > SCRAM_SALT_MAX || iterations < 1 ||
        iterations > SCRAM_ITERATIONS_MAX)
        return false;
    *s = (struct scram_secret){ .iterations = iterations, .salt_len = salt.len };
    memcpy(s->salt, salt.ptr, salt.len);

    struct scram_keys keys;
    bool ok = derive_keys(password, s->salt, s->salt_len, iterations, &keys) &&
              hash_key(keys.client_key, s->stored_key);
    memcpy(s->server_key, keys.server_key, SCRAM_KEY_LEN);
    OPENSSL_cleanse(&keys, sizeof(keys));
    return ok;
}

/* HMAC(key, label user) */
static bool mock_bytes(const uint8_t key[32], char label, struct str user,
                       uint8_t out[SCRAM_KEY_LEN])
{
    struct text message;
    text_init(&message);
    text_put_char(&message, label);
    text_put_str(&message, user);
    bool ok = hmac(key, text_str(&message), out);
    text_free(&message);
    return ok;
}

bool scram_secret_mock(struct str user, const uint8_t mock_key[32], int iterations,
                       struct scram_secret *s)
{
    uint8_t salt[SCRAM_KEY_LEN];
    *s = (struct scram_secret){ .iterations = iterations, .salt_len = SCRAM_SALT_DEFAULT_LEN };
    bool ok = mock_bytes(mock_key, 's', user, salt) &&
              mock_bytes(mock_key, 'c', user, s->stored_key) &&
              mock_bytes(mock_key, 'k', user, s->server_key);
    memcpy(s->salt, salt, SCRAM_SALT_DEFAULT_LEN);
    return ok;
}

bool scram_password_keys(const struct scram_secret *s, struct str password, struct scram_keys *keys)
{
    return derive_keys(password, s->salt, s->salt_len, s->iterations, keys) &&
           CRYPTO_memcmp(keys->server_key, s->server_key, SCRAM_KEY_LEN) == 0;
}

bool scram_password_matches(const struct scram_secret *s, struct str password)
{
    struct scram_keys keys;
    bool ok = scram_password_keys(s, password, &keys);

    OPENSSL_cleanse(&keys, sizeof(keys));
    return ok;
}

/* ---- the server's side ----
 *
 *   wants client-first --ok--> wants client-final --proof right--> done
 *            |                         |
 *            +------- malformed -------+--proof wrong--> over
 */

enum scram_state {
    WANTS_START, /* client only */
    WANTS_FIRST,
    WANTS_FINAL,
    DONE,
    OVER,
};

/* ---- channel binding ---- */

#define GS2_BOUND "p=tls-server-end-point,,"

struct binding {
    enum scram_binding is;
    size_t len;
    uint8_t end_point[SCRAM_END_POINT_MAX];
};

static struct binding make_binding(enum scram_binding is, struct str end_point)
{
    struct binding b = { .is = is };
    if (is == SCRAM_BOUND) {
        b.len = end_point.len < SCRAM_END_POINT_MAX ? end_point.len : SCRAM_END_POINT_MAX;
        memcpy(b.end_point, end_point.ptr, b.len);
    }
    return b;
}

/* The attribute "c" of a client-final-message: base64 of the header of the first message and, when
 * it binds, of the hash. */
static void put_binding(struct text *out, char gs2_flag, const struct binding *b)
{
    uint8_t bytes[sizeof(GS2_BOUND) + SCRAM_END_POINT_MAX];
    if (gs2_flag != 'p') {
        text_put(out, gs2_flag == 'n' ? "biws" : "eSws"); /* "n,,", "y,," */
        return;
    }
    memcpy(bytes, GS2_BOUND, sizeof(GS2_BOUND) - 1);
    memcpy(bytes + sizeof(GS2_BOUND) - 1, b->end_point, b->len);
    put_base64(out, bytes, sizeof(GS2_BOUND) - 1 + b->len);
}

struct scram_server {
    enum scram_state state;
    struct scram_secret secret;
    struct text nonce; /* our half */
    struct binding binding;
    char gs2_flag;      /* 'n', 'y' or 'p' */
    struct text nonces; /* the client's half, then ours */
    struct text auth;   /* AuthMessage, as far as it has come */
    uint8_t client_key[SCRAM_KEY_LEN];
};

static struct text nonce_text(const uint8_t raw[SCRAM_NONCE_RAW_LEN])
{
    struct text t;
    text_init(&t);
    put_base64(&t, raw, SCRAM_NONCE_RAW_LEN);
    return t;
}

struct scram_server *scram_server_new_with_nonce(const struct scram_secret *secret,
                                                 struct str nonce)
{
    struct scram_server *s = mem_alloc(sizeof(*s));
    *s = (struct scram_server){ .state = WANTS_FIRST, .secret = *secret };
    text_init(&s->nonce);
    text_init(&s->nonces);
    text_init(&s->auth);
    text_put_str(&s->nonce, nonce);
    return s;
}

struct scram_server *scram_server_new(const struct scram_secret *secret,
                                      const uint8_t nonce_raw[SCRAM_NONCE_RAW_LEN])
{
    struct text nonce = nonce_text(nonce_raw);
    struct scram_server *s = scram_server_new_with_nonce(secret, text_str(&nonce));
    text_free(&nonce);
    return s;
}

void scram_server_bind(struct scram_server *s, enum scram_binding binding, struct str end_point)
{
    s->binding = make_binding(binding, end_point);
}

/* The header in front: the binding that the client wants. An authorization identity is not
 * supported. */
static enum scram_step take_gs2_header(struct scram_server *s, struct str *in)
{
    struct str header = s->binding.is == SCRAM_BOUND ? STR(GS2_BOUND) : STR("n,,");
    s->gs2_flag = s->binding.is == SCRAM_BOUND ? 'p' : 'n';
    if (s->binding.is != SCRAM_BOUND && in->len > 0 && in->ptr[0] == 'y') {
        if (s->binding.is == SCRAM_COULD_BIND)
            return SCRAM_DENIED;
        header = STR("y,,");
        s->gs2_flag = 'y';
    }
    if (!str_starts_with(*in, header))
        return SCRAM_MALFORMED;
    in->ptr += header.len;
    in->len -= header.len;
    return SCRAM_CONTINUE;
}

static enum scram_step server_first(struct scram_server *s, struct str in, struct text *out)
{
    struct str user, nonce;
    enum scram_step step = take_gs2_header(s, &in);
    if (step != SCRAM_CONTINUE)
        return step;

    struct str bare = in;
    if (!take_attribute(&in, 'n', &user) || !take_attribute(&in, 'r', &nonce) || !is_nonce(nonce) ||
        !skip_attributes(in))
        return SCRAM_MALFORMED;

    text_put_str(&s->nonces, nonce);
    text_put_str(&s->nonces, text_str(&s->nonce));
    text_printf(out, "r=%s,s=", s->nonces.ptr);
    put_base64(out, s->secret.salt, s->secret.salt_len);
    text_printf(out, ",i=%d", s->secret.iterations);

    text_put_str(&s->auth, bare);
    text_put_char(&s->auth, ',');
    text_put_str(&s->auth, text_str(out));
    text_put_char(&s->auth, ',');
    s->state = WANTS_FINAL;
    return SCRAM_CONTINUE;
}

/* Takes the proof, which is the last attribute, off the end of the client-final-message. */
static bool split_proof(struct str *message, uint8_t proof[SCRAM_KEY_LEN])
{
    const char *comma = message->len > 0 ? memrchr(message->ptr, ',', message->len) : NULL;
    struct str last, value;
    if (comma == NULL)
        return false;
    last = (struct str){ comma + 1, message->len - (size_t)(comma + 1 - message->ptr) };
    message->len = (size_t)(comma - message->ptr);
    return take_attribute(&last, 'p', &value) && decode_key(value, proof);
}

/* ClientKey = ClientProof XOR HMAC(StoredKey, AuthMessage); it must hash to StoredKey. */
static bool proof_is_right(struct scram_server *s, uint8_t proof[SCRAM_KEY_LEN])
{
    uint8_t signature[SCRAM_KEY_LEN], stored_key[SCRAM_KEY_LEN];
    if (!hmac(s->secret.stored_key, text_str(&s->auth), signature))
        return false;
    xor_key(proof, signature);
    if (!hash_key(proof, stored_key) ||
        CRYPTO_memcmp(stored_key, s->secret.stored_key, SCRAM_KEY_LEN) != 0)
        return false;
    memcpy(s->client_key, proof, SCRAM_KEY_LEN);
    return true;
}

static enum scram_step server_final(struct scram_server *s, struct str in, struct text *out)
{
    uint8_t proof[SCRAM_KEY_LEN], signature[SCRAM_KEY_LEN];
    struct str binding, nonce;
    if (!split_proof(&in, proof))
        return SCRAM_MALFORMED;
    text_put_str(&s->auth, in);
    if (!take_attribute(&in, 'c', &binding) || !take_attribute(&in, 'r', &nonce) ||
        !skip_attributes(in))
        return SCRAM_MALFORMED;
    struct text expected;
    text_init(&expected);
    put_binding(&expected, s->gs2_flag, &s->binding);
    bool is_bound = str_equal(binding, text_str(&expected));
    text_free(&expected);
    if (!str_equal(nonce, text_str(&s->nonces)))
        return SCRAM_MALFORMED;
    if (!is_bound) /* well-formed, and to another connection than this one */
        return s->gs2_flag == 'p' ? SCRAM_DENIED : SCRAM_MALFORMED;

    bool ok = proof_is_right(s, proof) && hmac(s->secret.server_key, text_str(&s->auth), signature);
    OPENSSL_cleanse(proof, sizeof(proof));
    if (!ok)
        return SCRAM_DENIED;
    text_put(out, "v=");
    put_base64(out, signature, SCRAM_KEY_LEN);
    s->state = DONE;
    return SCRAM_DONE;
}

enum scram_step scram_server_step(struct scram_server *s, struct str in, struct text *out)
{
    enum scram_state was = s->state;
    text_clear(out);
    s->state = OVER; /* unless the step moves on */
    switch (was) {
    case WANTS_FIRST:
        return server_first(s, in, out);
    case WANTS_FINAL:
        return server_final(s, in, out);
    case WANTS_START:
    case DONE:
    case OVER:
        break;
    }
    return SCRAM_MALFORMED;
}

bool scram_server_keys(const struct scram_server *s, struct scram_keys *keys)
{
    *keys = (struct scram_keys){ 0 };
    if (s->state != DONE)
        return false;
    memcpy(keys->client_key, s->client_key, SCRAM_KEY_LEN);
    memcpy(keys->server_key, s->secret.server_key, SCRAM_KEY_LEN);
    return true;
}

void scram_server_free(struct scram_server *s)
{
    if (s == NULL)
        return;
    text_free(&s->nonce);
    text_free(&s->nonces);
    text_free(&s->auth);
    OPENSSL_cleanse(s, sizeof(*s));
    free(s);
}

/* ---- the client's side ---- */

struct scram_client {
    enum scram_state state;
    bool has_keys; /* given, or derived already */
    struct scram_keys keys;
    char *password; /* NULL when the keys were given */
    size_t password_len;
    struct binding binding;
    struct text user;  /* in the client-first-message */
    struct text nonce; /* our half */
    struct text auth;  /* AuthMessage, as far as it has come */
};

static struct scram_client *client_new(struct str user, struct str nonce)
{
    struct scram_client *c = mem_alloc(sizeof(*c));
    *c = (struct scram_client){ .state = WANTS_START };
    text_init(&c->user);
    text_init(&c->nonce);
    text_init(&c->auth);
    text_put_str(&c->user, user);
    text_put_str(&c->nonce, nonce);
    return c;
}

struct scram_client *scram_client_new_with_nonce(struct str user, struct str password,
                                                 struct str nonce)
{
    struct scram_client *c = client_new(user, nonce);
    c->password = mem_alloc(password.len + 1);
    if (password.len > 0)
        memcpy(c->password, password.ptr, password.len);
    c->password[password.len] = '\0';
    c->password_len = password.len;
    return c;
}

/* The server knows the user from the startup packet: the name here stays empty, as libpq's. */
struct scram_client *scram_client_new(struct str password,
                                      const uint8_t nonce_raw[SCRAM_NONCE_RAW_LEN])
{
    struct text nonce = nonce_text(nonce_raw);
    struct scram_client *c = scram_client_new_with_nonce(STR(""), password, text_str(&nonce));
    text_free(&nonce);
    return c;
}

struct scram_client *scram_client_new_with_keys(const struct scram_keys *keys,
                                                const uint8_t nonce_raw[SCRAM_NONCE_RAW_LEN])
{
    struct text nonce = nonce_text(nonce_raw);
    struct scram_client *c = client_new(STR(""), text_str(&nonce));
    text_free(&nonce);
    c->keys = *keys;
    c->has_keys = true;
    return c;
}

void scram_client_bind(struct scram_client *c, enum scram_binding binding, struct str end_point)
{
    c->binding = make_binding(binding, end_point);
}

static char gs2_flag_of(const struct scram_client *c)
{
    return c->binding.is == SCRAM_BOUND ? 'p' : c->binding.is == SCRAM_COULD_BIND ? 'y' : 'n';
}

static enum scram_step client_start(struct scram_client *c, struct text *out)
{
    char flag = gs2_flag_of(c);
    text_printf(&c->auth, "n=%s,r=%s", c->user.ptr, c->nonce.ptr);
    text_put(out, flag == 'p' ? GS2_BOUND : flag == 'y' ? "y,," : "n,,");
    text_put_str(out, text_str(&c->auth));
    text_put_char(&c->auth, ',');
    c->state = WANTS_FIRST;
    return SCRAM_CONTINUE;
}

/* server-first-message: r=nonces,s=salt,i=iterations */
static bool read_challenge(const struct scram_client *c, struct str in, struct str *nonce,
                           struct scram_challenge *challenge)
{
    struct str salt, iterations;

    return take_attribute(&in, 'r', nonce) && take_attribute(&in, 's', &salt) &&
           take_attribute(&in, 'i', &iterations) && in.len == 0 && is_nonce(*nonce) &&
           nonce->len > c->nonce.len && str_starts_with(*nonce, text_str(&c->nonce)) &&
           decode_base64(salt, challenge->salt, sizeof(challenge->salt), &challenge->salt_len) &&
           parse_iterations(iterations, SCRAM_ITERATIONS_MAX, &challenge->iterations);
}

bool scram_client_challenge(const struct scram_client *c, struct str in,
                            struct scram_challenge *challenge)
{
    struct str nonce;

    return c->state == WANTS_FIRST && read_challenge(c, in, &nonce, challenge);
}

bool scram_challenge_keys(const struct scram_challenge *challenge, struct str password,
                          struct scram_keys *keys)
{
    return derive_keys(password, challenge->salt, challenge->salt_len, challenge->iterations, keys);
}

void scram_client_set_keys(struct scram_client *c, const struct scram_keys *keys)
{
    c->keys = *keys;
    c->has_keys = true;
}

static enum scram_step client_answer(struct scram_client *c, struct str in, struct text *out)
{
    struct scram_challenge challenge;
    struct str nonce;

    if (!read_challenge(c, in, &nonce, &challenge))
        return SCRAM_MALFORMED;

    text_put(out, "c=");
    put_binding(out, gs2_flag_of(c), &c->binding);
    text_put(out, ",r=");
    text_put_str(out, nonce);
    text_put_str(&c->auth, in);
    text_put_char(&c->auth, ',');
    text_put_str(&c->auth, text_str(out));

    struct str password = { c->password, c->password_len };
    if (!c->has_keys && !scram_challenge_keys(&challenge, password, &c->keys))
        return SCRAM_DENIED;
    c->has_keys = true;

    uint8_t stored_key[SCRAM_KEY_LEN], proof[SCRAM_KEY_LEN];
    if (!hash_key(c->keys.client_key, stored_key) || !hmac(stored_key, text_str(&c->auth), proof))
        return SCRAM_DENIED;
    xor_key(proof, c->keys.client_key);
    text_put(out, ",p=");
    put_base64(out, proof, SCRAM_KEY_LEN);
    c->state = WANTS_FINAL;
    return SCRAM_CONTINUE;
}

static enum scram_step client_verify(struct scram_client *c, struct str in)
{
    struct str value;
    uint8_t claimed[SCRAM_KEY_LEN], expected[SCRAM_KEY_LEN];
    if (take_attribute(&in, 'e', &value))
        return SCRAM_DENIED;
    if (!take_attribute(&in, 'v', &value) || in.len > 0 || !decode_key(value, claimed))
        return SCRAM_MALFORMED;
    if (!hmac(c->keys.server_key, text_str(&c->auth), expected) ||
        CRYPTO_memcmp(claimed, expected, SCRAM_KEY_LEN) != 0)
        return SCRAM_DENIED;
    c->state = DONE;
    return SCRAM_DONE;
}

enum scram_step scram_client_step(struct scram_client *c, struct str in, struct text *out)
{
    enum scram_state was = c->state;
    text_clear(out);
    c->state = OVER; /* unless the step moves on */
    switch (was) {
    case WANTS_START:
        return client_start(c, out);
    case WANTS_FIRST:
        return client_answer(c, in, out);
    case WANTS_FINAL:
        return client_verify(c, in);
    case DONE:
    case OVER:
        break;
    }
    return SCRAM_MALFORMED;
}

void scram_client_free(struct scram_client *c)
{
    if (c == NULL)
        return;
    if (c->password != NULL)
        OPENSSL_cleanse(c->password, c->password_len);
    free(c->password);
    text_free(&c->user);
    text_free(&c->nonce);
    text_free(&c->auth);
    OPENSSL_cleanse(c, sizeof(*c));
    free(c);
}
