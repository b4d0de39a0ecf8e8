#include "tests/protocol/wire_test.h"

#include "protocol/auth.h"

static struct auth_request decoded(struct bytequeue *q)
{
    struct auth_request r;
    struct str body = only_body(q, SENT_BY_BACKEND, BE_AUTHENTICATION);
    assert_true(auth_decode_request(body, &r));
    return r;
}

static void test_requests_without_payload_round_trip(void **state)
{
    (void)state;
    static const uint8_t salt[4] = { 1, 2, 0xfe, 0xff };
    struct bytequeue q = { 0 };
    auth_encode_ok(&q);
    assert_int_equal(decoded(&q).kind, AUTH_REQUEST_OK);
    bytequeue_consume(&q, bytequeue_len(&q));
    auth_encode_cleartext(&q);
    assert_int_equal(decoded(&q).kind, AUTH_REQUEST_CLEARTEXT);
    bytequeue_consume(&q, bytequeue_len(&q));
    auth_encode_md5(&q, salt);
    struct auth_request r = decoded(&q);
    assert_int_equal(r.kind, AUTH_REQUEST_MD5);
    assert_memory_equal(r.salt, salt, 4);
    bytequeue_free(&q);
}

static void test_sasl_requests_round_trip(void **state)
{
    (void)state;
    static const char *const mechanisms[] = { "SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", NULL };
    struct bytequeue q = { 0 };
    auth_encode_sasl(&q, mechanisms);
    struct auth_request r = decoded(&q);
    assert_int_equal(r.kind, AUTH_REQUEST_SASL);
    assert_true(auth_offers_mechanism(&r, "SCRAM-SHA-256"));
    assert_true(auth_offers_mechanism(&r, "SCRAM-SHA-256-PLUS"));
    assert_false(auth_offers_mechanism(&r, "SCRAM-SHA"));
    assert_false(auth_offers_mechanism(&r, ""));
    bytequeue_consume(&q, bytequeue_len(&q));

    auth_encode_sasl_continue(&q, STR("r=1,s=2,i=3"));
    r = decoded(&q);
    assert_int_equal(r.kind, AUTH_REQUEST_SASL_CONTINUE);
    assert_str(r.payload, "r=1,s=2,i=3");
    bytequeue_consume(&q, bytequeue_len(&q));
    auth_encode_sasl_final(&q, STR("v=4"));
    r = decoded(&q);
    assert_int_equal(r.kind, AUTH_REQUEST_SASL_FINAL);
    assert_str(r.payload, "v=4");
    bytequeue_free(&q);
}

#define BODY(literal) literal, sizeof(literal) - 1

static void test_bad_requests_are_refused(void **state)
{
    static const struct {
        const char *ptr;
        size_t len;
    } cases[] = {
        { BODY("") },
        { BODY("\0\0\0") },
        { BODY("\0\0\0\0x") },
        { BODY("\0\0\0\x01") },
        { BODY("\0\0\0\x0d") },
        { BODY("\xff\xff\xff\xff") },
        { BODY("\0\0\0\x05"
               "abc") },
        { BODY("\0\0\0\x05"
               "abcde") },
        { BODY("\0\0\0\x0aSCRAM-SHA-256\0") },
        { BODY("\0\0\0\x0aSCRAM-SHA-256") },
        { BODY("\0\0\0\x0aSCRAM-SHA-256\0\0x") },
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct auth_request r;
        if (auth_decode_request((struct str){ cases[i].ptr, cases[i].len }, &r))
            fail_msg("case %zu accepted", i);
    }
}

static void test_responses_round_trip(void **state)
{
    (void)state;
    struct bytequeue q = { 0 };
    struct str password;
    struct sasl_initial s;
    auth_encode_password(&q, STR("p\xc3\xa4ss"));
    struct str body = only_body(&q, SENT_BY_FRONTEND, FE_PASSWORD);
    assert_true(auth_decode_password(body, &password));
    assert_str(password, "p\xc3\xa4ss");
    assert_false(auth_decode_password((struct str){ body.ptr, body.len - 1 }, &password));
    assert_false(auth_decode_password((struct str){ "a\0b", 4 }, &password));
    bytequeue_consume(&q, bytequeue_len(&q));

    auth_encode_sasl_initial(&q, STR("SCRAM-SHA-256"), STR("n,,n=,r=x"));
    body = only_body(&q, SENT_BY_FRONTEND, FE_PASSWORD);
    assert_true(auth_decode_sasl_initial(body, &s));
    assert_str(s.mechanism, "SCRAM-SHA-256");
    assert_true(s.has_response);
    assert_str(s.response, "n,,n=,r=x");
    for (size_t n = 0; n < body.len; n++)
        assert_false(auth_decode_sasl_initial((struct str){ body.ptr, n }, &s));
    bytequeue_consume(&q, bytequeue_len(&q));

    auth_encode_sasl_initial(&q, STR("SCRAM-SHA-256"), (struct str){ NULL, 0 });
    assert_true(auth_decode_sasl_initial(only_body(&q, SENT_BY_FRONTEND, FE_PASSWORD), &s));
    assert_false(s.has_response);
    bytequeue_consume(&q, bytequeue_len(&q));

    auth_encode_sasl_response(&q, STR("c=biws"));
    assert_str(only_body(&q, SENT_BY_FRONTEND, FE_PASSWORD), "c=biws");
    bytequeue_free(&q);
}

/* As PostgreSQL stores and as libpq answers; computed with another implementation of md5. */
static void test_md5_vectors(void **state)
{
    (void)state;
    static const uint8_t salt[4] = { 1, 2, 0xfe, 0xff };
    struct auth_md5 secret, answer;
    assert_true(auth_md5_secret(STR("bob"), STR("secret"), &secret));
    assert_string_equal(secret.text, "md521f3163f8f86fa10bdefbfbd502a8f06");
    assert_true(auth_md5_answer(str_from(secret.text), salt, &answer));
    assert_string_equal(answer.text, "md53dd9000be62fda5a723b52f0c6ac9797");
    assert_false(auth_md5_answer(STR("secret"), salt, &answer));
}

static void test_md5_secrets_are_recognised(void **state)
{
    (void)state;
    assert_true(auth_is_md5_secret(STR("md521f3163f8f86fa10bdefbfbd502a8f06")));
    assert_false(auth_is_md5_secret(STR("md521f3163f8f86fa10bdefbfbd502a8f0")));
    assert_false(auth_is_md5_secret(STR("md521f3163f8f86fa10bdefbfbd502a8f066")));
    assert_false(auth_is_md5_secret(STR("md521F3163F8F86FA10BDEFBFBD502A8F06")));
    assert_false(auth_is_md5_secret(STR("md421f3163f8f86fa10bdefbfbd502a8f06")));
    assert_false(auth_is_md5_secret(STR("")));
}

static void test_equal(void **state)
{
    (void)state;
    assert_true(auth_equal(STR("abc"), STR("abc")));
    assert_true(auth_equal(STR(""), STR("")));
    assert_false(auth_equal(STR("abc"), STR("abd")));
    assert_false(auth_equal(STR("abc"), STR("ab")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_requests_without_payload_round_trip),
        cmocka_unit_test(test_sasl_requests_round_trip),
        cmocka_unit_test(test_bad_requests_are_refused),
        cmocka_unit_test(test_responses_round_trip),
        cmocka_unit_test(test_md5_vectors),
        cmocka_unit_test(test_md5_secrets_are_recognised),
        cmocka_unit_test(test_equal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
