#include "tests/protocol/wire_test.h"

#include "protocol/scram.h"
#include "protocol/scram_internal.h"

/* RFC 7677, section 3. */
#define RFC_CLIENT_NONCE "rOprNGfwEbeRWgbNEkqO"
#define RFC_SERVER_NONCE "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
#define RFC_SALT "\x5b\x6d\x99\x68\x9d\x12\x35\x8e\xec\xa0\x4b\x14\x12\x36\xfa\x81"
#define RFC_CLIENT_FIRST "n,,n=user,r=" RFC_CLIENT_NONCE
#define RFC_SERVER_FIRST "r=" RFC_CLIENT_NONCE RFC_SERVER_NONCE ",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
#define RFC_WITHOUT_PROOF "c=biws,r=" RFC_CLIENT_NONCE RFC_SERVER_NONCE
#define RFC_PROOF "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
#define RFC_CLIENT_FINAL RFC_WITHOUT_PROOF ",p=" RFC_PROOF
#define RFC_SERVER_FINAL "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="

static const uint8_t nonce_a[SCRAM_NONCE_RAW_LEN] = "client nonce 18 b";
static const uint8_t nonce_b[SCRAM_NONCE_RAW_LEN] = "server nonce 18 b";

static struct scram_secret secret_of(struct str password, int iterations)
{
    struct scram_secret s;
    assert_true(scram_secret_from_password(password, STR(RFC_SALT), iterations, &s));
    return s;
}

static void test_rfc7677_server(void **state)
{
    (void)state;
    struct scram_secret secret = secret_of(STR("pencil"), 4096);
    struct scram_server *s = scram_server_new_with_nonce(&secret, STR(RFC_SERVER_NONCE));
    struct text out;
    text_init(&out);
    assert_int_equal(scram_server_step(s, STR(RFC_CLIENT_FIRST), &out), SCRAM_CONTINUE);
    assert_str(text_str(&out), RFC_SERVER_FIRST);
    assert_int_equal(scram_server_step(s, STR(RFC_CLIENT_FINAL), &out), SCRAM_DONE);
    assert_str(text_str(&out), RFC_SERVER_FINAL);
    assert_int_equal(scram_server_step(s, STR(RFC_CLIENT_FINAL), &out), SCRAM_MALFORMED);
    scram_server_free(s);
    text_free(&out);
}

static void test_rfc7677_client(void **state)
{
    (void)state;
    struct scram_client *c =
        scram_client_new_with_nonce(STR("user"), STR("pencil"), STR(RFC_CLIENT_NONCE));
    struct text out;
    text_init(&out);
    assert_int_equal(scram_client_step(c, STR(""), &out), SCRAM_CONTINUE);
    assert_str(text_str(&out), RFC_CLIENT_FIRST);
    assert_int_equal(scram_client_step(c, STR(RFC_SERVER_FIRST), &out), SCRAM_CONTINUE);
    assert_str(text_str(&out), RFC_CLIENT_FINAL);
    assert_int_equal(scram_client_step(c, STR(RFC_SERVER_FINAL), &out), SCRAM_DONE);
    assert_int_equal(out.len, 0);
    assert_int_equal(scram_client_step(c, STR(RFC_SERVER_FINAL), &out), SCRAM_MALFORMED);
    scram_client_free(c);
    text_free(&out);
}

/* Both sides talk to each other. What each ends in goes to *client_end and *server_end; *keys gets
 * the server's knowledge when it is DONE. Frees the client. */
static void converse(const struct scram_secret *secret, struct scram_client *c,
                     enum scram_step *client_end, enum scram_step *server_end,
                     struct scram_keys *keys)
{
    struct scram_server *s = scram_server_new(secret, nonce_b);
    struct text to_server, to_client;
    text_init(&to_server);
    text_init(&to_client);
    *client_end = scram_client_step(c, STR(""), &to_server);
    do {
        *server_end = scram_server_step(s, text_str(&to_server), &to_client);
        if (*server_end != SCRAM_CONTINUE && *server_end != SCRAM_DONE)
            break;
        *client_end = scram_client_step(c, text_str(&to_client), &to_server);
    } while (*client_end == SCRAM_CONTINUE);
    assert_int_equal(scram_server_keys(s, keys), *server_end == SCRAM_DONE);
    scram_server_free(s);
    scram_client_free(c);
    text_free(&to_server);
    text_free(&to_client);
}

static void test_right_password_is_done_on_both_sides(void **state)
{
    (void)state;
    enum scram_step client_end, server_end;
    struct scram_keys keys;
    struct scram_secret secret = secret_of(STR("p\xc3\xa4ss"), 1000);
    converse(&secret, scram_client_new(STR("p\xc3\xa4ss"), nonce_a), &client_end, &server_end,
             &keys);
    assert_int_equal(client_end, SCRAM_DONE);
    assert_int_equal(server_end, SCRAM_DONE);

    /* what the server learnt logs in elsewhere, where the secret is the same */
    converse(&secret, scram_client_new_with_keys(&keys, nonce_a), &client_end, &server_end, &keys);
    assert_int_equal(client_end, SCRAM_DONE);
    assert_int_equal(server_end, SCRAM_DONE);
}

/* What each side believes of the connection, and what comes of it. */
static void test_a_proof_is_good_for_its_connection_only(void **state)
{
    static const struct {
        enum scram_binding client;
        const char *client_end_point;
        enum scram_binding server;
        const char *server_end_point;
        enum scram_step first;
        enum scram_step final;
    } cases[] = {
        { SCRAM_BOUND, "hash of A", SCRAM_BOUND, "hash of A", SCRAM_CONTINUE, SCRAM_DONE },
        /* somebody in between has another certificate */
        { SCRAM_BOUND, "hash of B", SCRAM_BOUND, "hash of A", SCRAM_CONTINUE, SCRAM_DENIED },
        { SCRAM_BOUND, "hash of A+", SCRAM_BOUND, "hash of A", SCRAM_CONTINUE, SCRAM_DENIED },
        /* or hides that binding was offered */
        { SCRAM_COULD_BIND, "", SCRAM_COULD_BIND, "", SCRAM_DENIED, SCRAM_MALFORMED },
        { SCRAM_COULD_BIND, "", SCRAM_UNBOUND, "", SCRAM_CONTINUE, SCRAM_DONE },
        { SCRAM_UNBOUND, "", SCRAM_COULD_BIND, "", SCRAM_CONTINUE, SCRAM_DONE },
        /* not what the mechanism's name says */
        { SCRAM_UNBOUND, "", SCRAM_BOUND, "hash of A", SCRAM_MALFORMED, SCRAM_MALFORMED },
        { SCRAM_COULD_BIND, "", SCRAM_BOUND, "hash of A", SCRAM_MALFORMED, SCRAM_MALFORMED },
        { SCRAM_BOUND, "hash of A", SCRAM_UNBOUND, "", SCRAM_MALFORMED, SCRAM_MALFORMED },
        { SCRAM_BOUND, "hash of A", SCRAM_COULD_BIND, "", SCRAM_MALFORMED, SCRAM_MALFORMED },
    };
    (void)state;
    struct scram_secret secret = secret_of(STR("pencil"), 1);
    struct text from_client, from_server;
    text_init(&from_client);
    text_init(&from_server);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct scram_client *c = scram_client_new(STR("pencil"), nonce_a);
        struct scram_server *s = scram_server_new(&secret, nonce_b);
        scram_client_bind(c, cases[i].client, str_from(cases[i].client_end_point));
        scram_server_bind(s, cases[i].server, str_from(cases[i].server_end_point));
        scram_client_step(c, STR(""), &from_client);
        assert_int_equal(scram_server_step(s, text_str(&from_client), &from_server),
                         cases[i].first);
        if (cases[i].first == SCRAM_CONTINUE) {
            scram_client_step(c, text_str(&from_server), &from_client);
            assert_int_equal(scram_server_step(s, text_str(&from_client), &from_server),
                             cases[i].final);
        }
        if (cases[i].final == SCRAM_DONE)
            assert_int_equal(scram_client_step(c, text_str(&from_server), &from_client),
                             SCRAM_DONE);
        scram_client_free(c);
        scram_server_free(s);
    }
    text_free(&from_client);
    text_free(&from_server);
}

static void test_wrong_password_is_denied(void **state)
{
    (void)state;
    enum scram_step client_end, server_end;
    struct scram_keys keys;
    struct scram_secret secret = secret_of(STR("right"), 10);
    converse(&secret, scram_client_new(STR("wrong"), nonce_a), &client_end, &server_end, &keys);
    assert_int_equal(server_end, SCRAM_DENIED);
    converse(&secret, scram_client_new(STR(""), nonce_a), &client_end, &server_end, &keys);
    assert_int_equal(server_end, SCRAM_DENIED);
}

static void test_impostor_server_is_denied(void **state)
{
    (void)state;
    enum scram_step client_end, server_end;
    struct scram_keys keys;
    struct scram_secret secret = secret_of(STR("right"), 10);
    secret.server_key[0] ^= 1; /* knows StoredKey, not ServerKey */
    converse(&secret, scram_client_new(STR("right"), nonce_a), &client_end, &server_end, &keys);
    assert_int_equal(server_end, SCRAM_DONE);
    assert_int_equal(client_end, SCRAM_DENIED);
}

static void test_unknown_user_looks_like_a_wrong_password(void **state)
{
    (void)state;
    static const uint8_t mock_key[32] = "kept for the life of the process";
    static const uint8_t other_key[32] = "another";
    enum scram_step client_end, server_end;
    struct scram_keys keys;
    struct scram_secret a, again, b, c;
    assert_true(scram_secret_mock(STR("alice"), mock_key, 4096, &a));
    assert_true(scram_secret_mock(STR("alice"), mock_key, 4096, &again));
    assert_true(scram_secret_mock(STR("bob"), mock_key, 4096, &b));
    assert_true(scram_secret_mock(STR("alice"), other_key, 4096, &c));
    assert_int_equal(a.salt_len, SCRAM_SALT_DEFAULT_LEN);
    assert_int_equal(a.iterations, 4096);
    assert_memory_equal(a.salt, again.salt, a.salt_len);
    assert_memory_not_equal(a.salt, b.salt, a.salt_len);
    assert_memory_not_equal(a.salt, c.salt, a.salt_len);
    converse(&a, scram_client_new(STR("guess"), nonce_a), &client_end, &server_end, &keys);
    assert_int_equal(server_end, SCRAM_DENIED);
}

static void test_secret_round_trip(void **state)
{
    (void)state;
    struct scram_secret secret = secret_of(STR("pencil"), 4096), back;
    struct text t;
    text_init(&t);
    scram_secret_print(&secret, &t);
    assert_str(text_str(&t), "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"
                             "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:"
                             "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=");
    assert_true(scram_secret_parse(text_str(&t), &back));
    assert_memory_equal(&back, &secret, sizeof(back));
    for (size_t n = 0; n < t.len; n++)
        assert_false(scram_secret_parse((struct str){ t.ptr, n }, &back));
    text_free(&t);
}

static void test_bad_secrets_are_refused(void **state)
{
#define KEY_A "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY="
#define KEY_B "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    static const char *const cases[] = {
        "",
        "md5d41d8cd98f00b204e9800998ecf8427e",
        "SCRAM-SHA-1$4096:c2FsdA==$" KEY_A ":" KEY_B,
        "SCRAM-SHA-256$0:c2FsdA==$" KEY_A ":" KEY_B,
        "SCRAM-SHA-256$-1:c2FsdA==$" KEY_A ":" KEY_B,
        "SCRAM-SHA-256$4096x:c2FsdA==$" KEY_A ":" KEY_B,
        "SCRAM-SHA-256$99999999999:c2FsdA==$" KEY_A ":" KEY_B,
        "SCRAM-SHA-256$4096:$" KEY_A ":" KEY_B,
        "SCRAM-SHA-256$4096:c2FsdA=$" KEY_A ":" KEY_B,
        "SCRAM-SHA-256$4096:c2F dA==$" KEY_A ":" KEY_B,
        "SCRAM-SHA-256$4096:c=FsdA==$" KEY_A ":" KEY_B,
        "SCRAM-SHA-256$4096:c2FsdA==$c2FsdA==:" KEY_B,
        "SCRAM-SHA-256$4096:c2FsdA==$" KEY_A ":" KEY_B "AAAA",
        "SCRAM-SHA-256$4096:c2FsdA==$" KEY_A,
    };
    (void)state;
    struct scram_secret s;
    assert_true(scram_secret_parse(STR("SCRAM-SHA-256$4096:c2FsdA==$" KEY_A ":" KEY_B), &s));
    assert_int_equal(s.salt_len, 4);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        if (scram_secret_parse(str_from(cases[i]), &s))
            fail_msg("accepted: %s", cases[i]);
    }
    assert_false(scram_secret_from_password(STR("x"), STR(""), 4096, &s));
    assert_false(scram_secret_from_password(STR("x"), STR("salt"), 0, &s));
    assert_false(scram_secret_from_password(STR("x"), STR("salt"), SCRAM_ITERATIONS_MAX + 1, &s));
}

/* RFC 4013, section 3, and what PostgreSQL does where it fails. */
static void test_passwords_are_prepared(void **state)
{
    static const struct {
        const char *given;
        const char *same_as;
        bool same;
    } cases[] = {
        { "I\xc2\xadX", "IX", true },   /* soft hyphen: mapped to nothing */
        { "\xc2\xaa", "a", true },      /* feminine ordinal: NFKC */
        { "\xe2\x85\xa8", "IX", true }, /* Roman numeral nine */
        { "a\xc2\xa0z", "a z", true },  /* no-break space: a space */
        { "USER", "user", false },      /* case counts */
        { "\x01\xc2\xaa",
          "\x01"
          "a",
          false }, /* a control: taken as it is */
        { "\xff\xc2\xaa",
          "\xff"
          "a",
          false },                         /* not UTF-8: taken as it is */
        { "\xcd\x80", "\xcc\x80", false }, /* prohibited, whatever it normalises to */
        { "\xff\xc2\xaa", "\xff\xc2\xaa", true },
        { "\xc2\xad", "", false }, /* nothing left: taken as it is */
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct scram_secret secret = secret_of(str_from(cases[i].given), 1);
        if (scram_password_matches(&secret, str_from(cases[i].same_as)) != cases[i].same)
            fail_msg("case %zu", i);
        assert_true(scram_password_matches(&secret, str_from(cases[i].given)));
    }
}

static void test_bad_first_messages_are_malformed(void **state)
{
    static const char *const cases[] = {
        "",
        "n",
        "n,,",
        "n,,n=user",
        "n,,n=user,r=",
        "n,,n=user,r=abc,",
        "n,,n=user,r=a b",
        "n,,n=user,r=a\xc3\xa4",
        "n,,n=user,r=abc,1=x",
        "n,,n=user,r=abc,xyz",
        "n,,r=abc",
        "n,,m=ext,n=user,r=abc",
        "n,a=other,n=user,r=abc",
        "p=tls-server-end-point,,n=user,r=abc",
        "x,,n=user,r=abc",
        "n=user,r=abc",
    };
    (void)state;
    struct scram_secret secret = secret_of(STR("pencil"), 1);
    struct text out;
    text_init(&out);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct scram_server *s = scram_server_new(&secret, nonce_b);
        if (scram_server_step(s, str_from(cases[i]), &out) != SCRAM_MALFORMED)
            fail_msg("accepted: %s", cases[i]);
        /* and a broken exchange does not come back to life */
        assert_int_equal(scram_server_step(s, STR(RFC_CLIENT_FIRST), &out), SCRAM_MALFORMED);
        scram_server_free(s);
    }
    static const char *const good[] = { "n,,n=,r=abc", "y,,n=,r=abc", "n,,n=u,r=abc,x=ext,y=" };
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        struct scram_server *s = scram_server_new(&secret, nonce_b);
        assert_int_equal(scram_server_step(s, str_from(good[i]), &out), SCRAM_CONTINUE);
        scram_server_free(s);
    }
    text_free(&out);
}

static void test_bad_final_messages_prove_nothing(void **state)
{
    static const struct {
        const char *message;
        enum scram_step expected;
    } cases[] = {
        { "", SCRAM_MALFORMED },
        { RFC_WITHOUT_PROOF, SCRAM_MALFORMED },
        { RFC_WITHOUT_PROOF ",p=", SCRAM_MALFORMED },
        { RFC_WITHOUT_PROOF ",p=AAAA", SCRAM_MALFORMED },
        { RFC_CLIENT_FINAL ",x=y", SCRAM_MALFORMED },
        { RFC_CLIENT_FINAL "AAAA", SCRAM_MALFORMED },
        { "r=" RFC_CLIENT_NONCE RFC_SERVER_NONCE ",p=" RFC_PROOF, SCRAM_MALFORMED },
        { "c=eSws,r=" RFC_CLIENT_NONCE RFC_SERVER_NONCE ",p=" RFC_PROOF, SCRAM_MALFORMED },
        { "c=biws,r=" RFC_CLIENT_NONCE ",p=" RFC_PROOF, SCRAM_MALFORMED },
        { "c=biws,r=" RFC_CLIENT_NONCE RFC_SERVER_NONCE "x,p=" RFC_PROOF, SCRAM_MALFORMED },
        { RFC_WITHOUT_PROOF ",p=eHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=", SCRAM_DENIED },
        { RFC_WITHOUT_PROOF ",x=y,p=" RFC_PROOF, SCRAM_DENIED },
        { RFC_CLIENT_FINAL, SCRAM_DONE },
    };
    (void)state;
    struct scram_secret secret = secret_of(STR("pencil"), 4096);
    struct text out;
    text_init(&out);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct scram_server *s = scram_server_new_with_nonce(&secret, STR(RFC_SERVER_NONCE));
        scram_server_step(s, STR(RFC_CLIENT_FIRST), &out);
        enum scram_step got = scram_server_step(s, str_from(cases[i].message), &out);
        if (got != cases[i].expected)
            fail_msg("%d for %s", got, cases[i].message);
        assert_int_equal(out.len > 0, got == SCRAM_DONE);
        scram_server_free(s);
    }
    text_free(&out);
}

static void test_bad_server_first_messages_are_malformed(void **state)
{
    static const char *const cases[] = {
        "",
        "r=" RFC_CLIENT_NONCE ",s=c2FsdA==,i=1",       /* nothing of the server's */
        "r=other" RFC_CLIENT_NONCE "x,s=c2FsdA==,i=1", /* not our nonce */
        "r=" RFC_CLIENT_NONCE "x,s=,i=1",
        "r=" RFC_CLIENT_NONCE "x,s=c2FsdA,i=1",
        "r=" RFC_CLIENT_NONCE "x,s=c2FsdA==,i=0",
        "r=" RFC_CLIENT_NONCE "x,s=c2FsdA==,i=-1",
        "r=" RFC_CLIENT_NONCE "x,s=c2FsdA==,i=",
        "r=" RFC_CLIENT_NONCE "x,s=c2FsdA==,i=2000000000", /* hours of work */
        "r=" RFC_CLIENT_NONCE "x,s=c2FsdA==,i=1,x=y",
        "m=ext,r=" RFC_CLIENT_NONCE "x,s=c2FsdA==,i=1",
        "s=c2FsdA==,i=1",
    };
    (void)state;
    struct text out;
    text_init(&out);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct scram_client *c =
            scram_client_new_with_nonce(STR("user"), STR("pencil"), STR(RFC_CLIENT_NONCE));
        scram_client_step(c, STR(""), &out);
        if (scram_client_step(c, str_from(cases[i]), &out) != SCRAM_MALFORMED)
            fail_msg("accepted: %s", cases[i]);
        scram_client_free(c);
    }
    text_free(&out);
}

static void test_bad_server_final_messages_are_not_done(void **state)
{
    static const struct {
        const char *message;
        enum scram_step expected;
    } cases[] = {
        { "", SCRAM_MALFORMED },
        { "v=", SCRAM_MALFORMED },
        { "v=AAAA", SCRAM_MALFORMED },
        { RFC_SERVER_FINAL ",x=y", SCRAM_MALFORMED },
        { "e=invalid-proof", SCRAM_DENIED },
        { "v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=", SCRAM_DENIED },
    };
    (void)state;
    struct text out;
    text_init(&out);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct scram_client *c =
            scram_client_new_with_nonce(STR("user"), STR("pencil"), STR(RFC_CLIENT_NONCE));
        scram_client_step(c, STR(""), &out);
        scram_client_step(c, STR(RFC_SERVER_FIRST), &out);
        assert_int_equal(scram_client_step(c, str_from(cases[i].message), &out), cases[i].expected);
        scram_client_free(c);
    }
    text_free(&out);
}

static void test_free_takes_null(void **state)
{
    (void)state;
    scram_server_free(NULL);
    scram_client_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rfc7677_server),
        cmocka_unit_test(test_rfc7677_client),
        cmocka_unit_test(test_right_password_is_done_on_both_sides),
        cmocka_unit_test(test_a_proof_is_good_for_its_connection_only),
        cmocka_unit_test(test_wrong_password_is_denied),
        cmocka_unit_test(test_impostor_server_is_denied),
        cmocka_unit_test(test_unknown_user_looks_like_a_wrong_password),
        cmocka_unit_test(test_secret_round_trip),
        cmocka_unit_test(test_bad_secrets_are_refused),
        cmocka_unit_test(test_passwords_are_prepared),
        cmocka_unit_test(test_bad_first_messages_are_malformed),
        cmocka_unit_test(test_bad_final_messages_prove_nothing),
        cmocka_unit_test(test_bad_server_first_messages_are_malformed),
        cmocka_unit_test(test_bad_server_final_messages_are_not_done),
        cmocka_unit_test(test_free_takes_null),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
