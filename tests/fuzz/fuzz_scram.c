/* Messages of a SCRAM peer, and secrets and passwords. First byte: which; the rest is up to three
 * lines. Nobody gets in who doesn't know the password. */
#include "tests/fuzz/fuzz_wire.h"

#include "protocol/scram.h"
#include "protocol/scram_internal.h"

#define SERVER_NONCE "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"

static struct str take_line(struct str *in)
{
    const char *nl = in->len > 0 ? memchr(in->ptr, '\n', in->len) : NULL;
    struct str line = *in;
    if (nl != NULL)
        line.len = (size_t)(nl - in->ptr);
    size_t taken = line.len + (nl != NULL);
    in->ptr += taken;
    in->len -= taken;
    return line;
}

/* The secret's password is not in reach of the fuzzer: its StoredKey is no hash of anything. */
static void check_server(struct str in, bool bound)
{
    static const uint8_t mock_key[32] = "nobody knows";
    struct scram_secret secret;
    struct text out;
    MUST(scram_secret_mock(STR("user"), mock_key, 1, &secret));
    struct scram_server *s = scram_server_new_with_nonce(&secret, STR(SERVER_NONCE));
    if (bound)
        scram_server_bind(s, SCRAM_BOUND, STR("hash of a certificate"));
    text_init(&out);
    for (int i = 0; i < 3; i++)
        MUST(scram_server_step(s, take_line(&in), &out) != SCRAM_DONE);
    scram_server_free(s);
    text_free(&out);
}

/* An unbounded iteration count would show as a timeout. */
static void check_client(struct str in)
{
    struct scram_keys keys = { .client_key = "known to us", .server_key = "and to the server" };
    uint8_t raw[SCRAM_NONCE_RAW_LEN] = "nonce";
    struct scram_client *c = scram_client_new_with_keys(&keys, raw);
    struct text out;
    text_init(&out);
    MUST(scram_client_step(c, STR(""), &out) == SCRAM_CONTINUE);
    for (int i = 0; i < 3; i++)
        MUST(scram_client_step(c, take_line(&in), &out) != SCRAM_DONE);
    scram_client_free(c);
    text_free(&out);
}

static void check_secret(struct str in)
{
    struct scram_secret secret, back;
    struct text printed;
    if (!scram_secret_parse(in, &secret))
        return;
    text_init(&printed);
    scram_secret_print(&secret, &printed);
    MUST(scram_secret_parse(text_str(&printed), &back));
    MUST(secret.iterations == back.iterations && secret.salt_len == back.salt_len);
    MUST(memcmp(secret.salt, back.salt, sizeof(back.salt)) == 0);
    MUST(memcmp(secret.stored_key, back.stored_key, SCRAM_KEY_LEN) == 0);
    MUST(memcmp(secret.server_key, back.server_key, SCRAM_KEY_LEN) == 0);
    text_free(&printed);
}

/* Whatever the password: who knows it gets in, on both sides. */
static void check_password(struct str password)
{
    static const uint8_t raw_a[SCRAM_NONCE_RAW_LEN] = "a", raw_b[SCRAM_NONCE_RAW_LEN] = "b";
    struct scram_secret secret;
    struct text a, b;
    MUST(scram_secret_from_password(password, STR("salt"), 1, &secret));
    MUST(scram_password_matches(&secret, password));
    struct scram_client *c = scram_client_new(password, raw_a);
    struct scram_server *s = scram_server_new(&secret, raw_b);
    text_init(&a);
    text_init(&b);
    MUST(scram_client_step(c, STR(""), &a) == SCRAM_CONTINUE);
    MUST(scram_server_step(s, text_str(&a), &b) == SCRAM_CONTINUE);
    MUST(scram_client_step(c, text_str(&b), &a) == SCRAM_CONTINUE);
    MUST(scram_server_step(s, text_str(&a), &b) == SCRAM_DONE);
    MUST(scram_client_step(c, text_str(&b), &a) == SCRAM_DONE);
    scram_client_free(c);
    scram_server_free(s);
    text_free(&a);
    text_free(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    if (len == 0)
        return 0;
    struct str in = { (const char *)bytes + 1, len - 1 };
    switch (bytes[0] & 3) {
    case 0:
        check_server(in, (bytes[0] & 4) != 0);
        break;
    case 1:
        check_client(in);
        break;
    case 2:
        check_secret(in);
        break;
    default:
        check_password(in);
        break;
    }
    return 0;
}
