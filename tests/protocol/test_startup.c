#include "tests/protocol/wire_test.h"

#include "protocol/startup.h"

static struct startup_packet only_packet(const struct bytequeue *q)
{
    struct startup_packet p;
    size_t used;
    struct str bytes = bytequeue_str(q);
    for (size_t n = 0; n < bytes.len; n++)
        assert_int_equal(startup_next((struct str){ bytes.ptr, n }, &p, &used), WIRE_NEED_MORE);
    assert_int_equal(startup_next(bytes, &p, &used), WIRE_FRAME);
    assert_int_equal(used, bytes.len);
    return p;
}

static void test_startup_message_round_trip(void **state)
{
    (void)state;
    struct bytequeue q = { 0 };
    struct str name, value;
    struct wire_mark m = startup_encode_begin(&q, 3, 2);
    startup_encode_param(&q, STR("user"), STR("alice"));
    startup_encode_param(&q, STR("database"), STR(""));
    startup_encode_param(&q, STR("user"), STR("bob"));
    startup_encode_end(&q, m);

    struct startup_packet p = only_packet(&q);
    assert_int_equal(p.kind, STARTUP_MESSAGE);
    assert_int_equal(p.major, 3);
    assert_int_equal(p.minor, 2);
    assert_true(startup_find_param(p.params, "user", &value));
    assert_str(value, "bob"); /* the last one wins */
    assert_true(startup_find_param(p.params, "database", &value));
    assert_str(value, "");
    assert_false(startup_find_param(p.params, "options", &value));

    struct str left = p.params;
    assert_true(startup_next_param(&left, &name, &value));
    assert_str(name, "user");
    assert_str(value, "alice");
    assert_true(startup_next_param(&left, &name, &value));
    assert_true(startup_next_param(&left, &name, &value));
    assert_false(startup_next_param(&left, &name, &value));
    bytequeue_free(&q);
}

static void test_requests_round_trip(void **state)
{
    (void)state;
    struct bytequeue q = { 0 };
    startup_encode_ssl_request(&q);
    assert_bytes(bytequeue_str(&q), ((struct str){ "\0\0\0\x08\x04\xd2\x16\x2f", 8 }));
    assert_int_equal(only_packet(&q).kind, STARTUP_SSL_REQUEST);
    bytequeue_free(&q);

    q = (struct bytequeue){ 0 };
    startup_encode_gssenc_request(&q);
    assert_bytes(bytequeue_str(&q), ((struct str){ "\0\0\0\x08\x04\xd2\x16\x30", 8 }));
    assert_int_equal(only_packet(&q).kind, STARTUP_GSSENC_REQUEST);
    bytequeue_free(&q);
}

static void test_cancel_keys_of_4_to_256_bytes(void **state)
{
    static const size_t lengths[] = { 4, 32, 256 };
    char key[256];
    (void)state;
    for (size_t i = 0; i < sizeof(key); i++)
        key[i] = (char)i;
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        struct bytequeue q = { 0 };
        startup_encode_cancel(&q, -7, (struct str){ key, lengths[i] });
        struct startup_packet p = only_packet(&q);
        assert_int_equal(p.kind, STARTUP_CANCEL);
        assert_int_equal(p.cancel_pid, -7);
        assert_bytes(p.cancel_key, ((struct str){ key, lengths[i] }));
        bytequeue_free(&q);
    }
}

#define BAD(why, bytes)                                                                            \
    {                                                                                              \
        why,                                                                                       \
        {                                                                                          \
            bytes, sizeof(bytes) - 1                                                               \
        }                                                                                          \
    }

static void test_bad_packets_are_malformed(void **state)
{
    static const struct {
        const char *why;
        struct str bytes;
    } cases[] = {
        BAD("length 0", "\0\0\0\0"),
        BAD("length 7", "\0\0\0\x07"),
        BAD("length 10001", "\0\0\x27\x11"),
        BAD("negative length", "\xff\xff\xff\xff"),
        BAD("a TLS handshake", "\x16\x03\x01\x02"),
        BAD("parameters without terminator", "\0\0\0\x0c\0\x03\0\0a\0b\0"),
        BAD("name without value", "\0\0\0\x0b\0\x03\0\0a\0\0"),
        BAD("no terminator at all", "\0\0\0\x08\0\x03\0\0"),
        BAD("bytes after the terminator", "\0\0\0\x0a\0\x03\0\0\0x"),
        BAD("unterminated value", "\0\0\0\x0b\0\x03\0\0a\0b"),
        BAD("SSLRequest with a body", "\0\0\0\x09\x04\xd2\x16\x2fx"),
        BAD("cancel without key", "\0\0\0\x0c\x04\xd2\x16\x2e\0\0\0\x01"),
        BAD("cancel with 3 bytes of key", "\0\0\0\x0f\x04\xd2\x16\x2e\0\0\0\x01"
                                          "abc"),
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct startup_packet p;
        size_t used;
        if (startup_next(cases[i].bytes, &p, &used) != WIRE_MALFORMED)
            fail_msg("accepted: %s", cases[i].why);
    }

    char key[257] = { 0 };
    struct bytequeue q = { 0 };
    struct startup_packet p;
    size_t used;
    startup_encode_cancel(&q, 1, (struct str){ key, sizeof(key) });
    assert_int_equal(startup_next(bytequeue_str(&q), &p, &used), WIRE_MALFORMED);
    bytequeue_free(&q);
}

static void test_other_versions_are_left_to_the_receiver(void **state)
{
    (void)state;
    struct startup_packet p;
    size_t used;
    struct str v2 = { "\0\0\0\x0a\0\x02\0\0xy", 10 };
    assert_int_equal(startup_next(v2, &p, &used), WIRE_FRAME);
    assert_int_equal(p.kind, STARTUP_MESSAGE);
    assert_int_equal(p.major, 2);
    assert_int_equal(p.params.len, 0);
    assert_int_equal(used, 10);
}

static void test_tls_is_seen_by_its_first_byte(void **state)
{
    (void)state;
    assert_true(startup_is_tls(STR("\x16\x03\x01")));
    assert_false(startup_is_tls(STR("")));
    assert_false(startup_is_tls((struct str){ "\0\0\0\x08", 4 }));
}

static void test_negotiation_names_unknown_options(void **state)
{
    (void)state;
    struct bytequeue packet = { 0 }, q = { 0 };
    struct wire_mark m = startup_encode_begin(&packet, 3, 9);
    startup_encode_param(&packet, STR("user"), STR("alice"));
    startup_encode_param(&packet, STR("_pq_.one"), STR("1"));
    startup_encode_param(&packet, STR("_pq_.two"), STR("2"));
    startup_encode_end(&packet, m);
    struct startup_packet p = only_packet(&packet);
    assert_true(startup_has_options(p.params));

    struct negotiate_version n;
    startup_encode_negotiate(&q, 3, 0, p.params);
    struct str body = only_body(&q, SENT_BY_BACKEND, BE_NEGOTIATE_PROTOCOL);
    assert_true(startup_decode_negotiate(body, &n));
    assert_int_equal(n.major, 3);
    assert_int_equal(n.minor, 0);
    assert_int_equal(n.n_options, 2);
    assert_bytes(n.options, ((struct str){ "_pq_.one\0_pq_.two", 18 }));
    for (size_t len = 0; len < body.len; len++)
        assert_false(startup_decode_negotiate((struct str){ body.ptr, len }, &n));
    bytequeue_free(&packet);
    bytequeue_free(&q);

    /* the number as the manual describes it, and a count that lies */
    assert_true(startup_decode_negotiate((struct str){ "\0\0\0\x02\0\0\0\0", 8 }, &n));
    assert_int_equal(n.major, 3);
    assert_int_equal(n.minor, 2);
    assert_false(startup_decode_negotiate((struct str){ "\0\x03\0\0\xff\xff\xff\xff", 8 }, &n));
    assert_false(startup_has_options(STR("")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_startup_message_round_trip),
        cmocka_unit_test(test_requests_round_trip),
        cmocka_unit_test(test_cancel_keys_of_4_to_256_bytes),
        cmocka_unit_test(test_bad_packets_are_malformed),
        cmocka_unit_test(test_other_versions_are_left_to_the_receiver),
        cmocka_unit_test(test_tls_is_seen_by_its_first_byte),
        cmocka_unit_test(test_negotiation_names_unknown_options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
