/* Who may enter, and our own login to servers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "protocol/auth.h"
#include "protocol/scram.h"
#include "protocol/startup.h"
#include "protocol/status.h"
#include "tests/proxy/world.h"

/* SCRAM-SHA-256 of "secret", and md5 of "secret" for user bob. */
static char users[1024];

static const char *make_users(void)
{
    struct scram_secret s;
    struct auth_md5 md5;
    struct text t;

    text_init(&t);
    assert_true(scram_secret_from_password(STR("secret"), STR("0123456789abcdef"), 4096, &s));
    scram_secret_print(&s, &t);
    assert_true(auth_md5_secret(STR("bob"), STR("secret"), &md5));
    snprintf(users, sizeof(users),
             "\"ann\" \"secret\"\n\"bob\" \"%s\"\n\"eve\" \"%s\"\n\"nil\" \"\"\n", md5.text, t.ptr);
    text_free(&t);
    return users;
}

static void say_password(struct peer *c, const char *password)
{
    struct bytequeue q = { 0 };

    auth_encode_password(&q, str_from(password));
    peer_send_queue(c, &q);
}

static struct auth_request request_of(struct peer *p, struct bytequeue *copy)
{
    struct auth_request r;
    struct wire_frame f;

    bytequeue_free(copy);
    assert_string_equal(peer_take_copy(p, copy), "R");
    assert_int_equal(wire_next_frame(SENT_BY_BACKEND, bytequeue_str(copy), &f), WIRE_FRAME);
    assert_true(auth_decode_request(f.body, &r));
    return r;
}

static void answer_md5(struct peer *c, const char *user, const char *password)
{
    struct bytequeue copy = { 0 };
    struct auth_request r = request_of(c, &copy);
    struct auth_md5 secret, answer;

    assert_int_equal(r.kind, AUTH_REQUEST_MD5);
    assert_true(auth_md5_secret(str_from(user), str_from(password), &secret));
    assert_true(auth_md5_answer(str_from(secret.text), r.salt, &answer));
    say_password(c, answer.text);
    bytequeue_free(&copy);
}

/* Plays the client's part of SCRAM; true when the server took the proof. */
static bool answer_scram(struct peer *c, const char *password)
{
    struct bytequeue copy = { 0 }, q = { 0 };
    struct auth_request r = request_of(c, &copy);
    static const uint8_t nonce[SCRAM_NONCE_RAW_LEN] = "abcdefghijklmnopq";
    struct scram_client *sc = scram_client_new(str_from(password), nonce);
    struct text out;
    bool ok = false;

    assert_int_equal(r.kind, AUTH_REQUEST_SASL);
    assert_true(auth_offers_mechanism(&r, SCRAM_MECHANISM));
    text_init(&out);
    assert_int_equal(scram_client_step(sc, STR(""), &out), SCRAM_CONTINUE);
    auth_encode_sasl_initial(&q, STR(SCRAM_MECHANISM), text_str(&out));
    peer_send_queue(c, &q);
    r = request_of(c, &copy);
    assert_int_equal(r.kind, AUTH_REQUEST_SASL_CONTINUE);
    assert_int_equal(scram_client_step(sc, r.payload, &out), SCRAM_CONTINUE);
    auth_encode_sasl_response(&q, text_str(&out));
    peer_send_queue(c, &q);
    if (c->conn != NULL) {
        r = request_of(c, &copy);
        ok = r.kind == AUTH_REQUEST_SASL_FINAL &&
             scram_client_step(sc, r.payload, &out) == SCRAM_DONE;
    }
    text_free(&out);
    scram_client_free(sc);
    bytequeue_free(&copy);
    return ok;
}

static void assert_in(struct world *w, struct peer *c)
{
    assert_non_null(c->conn);
    assert_int_equal(peer_client(c)->state, CLIENT_LOGIN_WAIT);
    assert_non_null(world_serve_login(w));
    assert_string_equal(peer_take(c), "RSSSSSSSKZ");
}

static void test_md5_takes_plain_and_md5_secrets(void **state)
{
    static const char *const names[] = { "ann", "bob" };

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct world *w = world_new("auth_type = md5\n", make_users());
        struct peer *c = world_login(w, names[i], "db");
        answer_md5(c, names[i], "secret");
        assert_in(w, c);
        c = world_login(w, names[i], "db");
        answer_md5(c, names[i], "Secret");
        assert_string_equal(peer_take(c), "E(08P01)");
        assert_null(c->conn);
        world_free(w);
    }
}

static void test_md5_switches_to_scram_for_scram_secrets(void **state)
{
    struct world *w = world_new("auth_type = md5\n", make_users());

    (void)state;
    struct peer *c = world_login(w, "eve", "db");
    assert_true(answer_scram(c, "secret"));
    assert_in(w, c);
    world_free(w);
}

static void test_scram_takes_plain_and_scram_secrets_not_md5(void **state)
{
    struct world *w = world_new("auth_type = scram-sha-256\n", make_users());

    (void)state;
    struct peer *c = world_login(w, "eve", "db");
    assert_true(answer_scram(c, "secret"));
    assert_in(w, c);
    c = world_login(w, "ann", "db");
    assert_true(answer_scram(c, "secret"));
    assert_int_equal(peer_client(c)->state, CLIENT_LOGIN_WAIT);
    c = world_login(w, "bob", "db");
    assert_false(answer_scram(c, "secret"));
    assert_string_equal(peer_take(c), "E(08P01)");
    world_free(w);
}

static void test_wrong_passwords_and_unknown_users_look_the_same(void **state)
{
    static const char *const types[] = { "plain", "md5", "scram-sha-256" };
    static const char *const names[] = { "ann", "nobody", "nil" };
    char ini[64];

    (void)state;
    for (size_t t = 0; t < 3; t++) {
        snprintf(ini, sizeof(ini), "auth_type = %s\n", types[t]);
        struct world *w = world_new(ini, make_users());
        for (size_t n = 0; n < 3; n++) {
            struct peer *c = world_login(w, names[n], "db");
            if (t == 2) {
                assert_false(answer_scram(c, "wrong"));
            } else if (t == 1) {
                answer_md5(c, names[n], "wrong");
            } else {
                assert_string_equal(peer_take(c), "R");
                say_password(c, "wrong");
            }
            assert_string_equal(peer_take(c), "E(08P01)");
            assert_null(c->conn);
        }
        world_free(w);
    }
}

static void test_plain_takes_every_kind_of_secret(void **state)
{
    static const char *const names[] = { "ann", "bob", "eve" };
    struct world *w = world_new("auth_type = plain\n", make_users());

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct peer *c = world_login(w, names[i], "db");
        assert_string_equal(peer_take(c), "R");
        say_password(c, "secret");
        assert_int_equal(peer_client(c)->state, CLIENT_LOGIN_WAIT);
    }
    world_free(w);
}

static void test_trust_needs_a_known_user_and_any_a_forced_one(void **state)
{
    struct world *w = world_new("auth_type = trust\n", make_users());

    (void)state;
    struct peer *c = world_startup(w, "nobody", "db", NULL, NULL);
    assert_string_equal(peer_take(c), "E(08P01)");
    world_free(w);
    w = world_new("auth_type = any\n", make_users());
    c = world_startup(w, "nobody", "db", NULL, NULL);
    assert_string_equal(peer_take(c), "E(08P01)");
    world_free(w);
    w = world_new("[databases]\ndb = host=10.0.0.1 user=ann\n[pgbouncer]\nauth_type = any\n",
                  make_users());
    c = world_login(w, "nobody", "db");
    assert_in(w, c);
    world_free(w);
}

static void test_a_missing_database_is_only_told_to_who_has_proved_himself(void **state)
{
    struct world *w = world_new("auth_type = plain\n", make_users());

    (void)state;
    struct peer *c = world_login(w, "ann", "nope");
    assert_string_equal(peer_take(c), "R");
    say_password(c, "wrong");
    assert_string_equal(peer_take(c), "E(08P01)");
    c = world_login(w, "ann", "nope");
    assert_string_equal(peer_take(c), "R");
    say_password(c, "secret");
    assert_string_equal(peer_take(c), "E(08P01)");
    world_free(w);
}

static void test_a_login_that_takes_too_long_is_closed(void **state)
{
    struct world *w = world_new("auth_type = md5\nclient_login_timeout = 5\n", make_users());

    (void)state;
    struct peer *silent = world_accept(w);
    struct peer *c = world_login(w, "ann", "db");
    world_sleep(w, 4.9);
    assert_non_null(silent->conn);
    world_sleep(w, 0.2);
    assert_null(silent->conn);
    assert_null(c->conn);
    world_free(w);
}

static void test_max_client_conn_refuses_the_next(void **state)
{
    struct world *w = world_new("auth_type = trust\nmax_client_conn = 2\n", make_users());

    (void)state;
    struct peer *a = world_login(w, "ann", "db");
    world_login(w, "ann", "db");
    struct peer *c = world_startup(w, "ann", "db", NULL, NULL);
    assert_string_equal(peer_take(c), "E(53300)");
    peer_hang_up(a);
    assert_non_null(world_login(w, "ann", "db")->conn);
    world_free(w);
}

/* ---- to servers ------------------------------------------------------------------------- */

static struct peer *server_asks(struct world *w, void (*encode)(struct bytequeue *q))
{
    struct peer *s = world_next_connect(w);
    struct bytequeue q = { 0 };

    assert_non_null(s);
    peer_connected(s);
    bytequeue_consume(&s->got, bytequeue_len(&s->got));
    encode(&q);
    peer_send_queue(s, &q);
    return s;
}

static void ask_md5(struct bytequeue *q)
{
    auth_encode_md5(q, (const uint8_t *)"salt");
}

static void ask_cleartext(struct bytequeue *q)
{
    auth_encode_cleartext(q);
}

static void ask_scram(struct bytequeue *q)
{
    auth_encode_sasl(q, (const char *const[]){ SCRAM_MECHANISM, NULL });
}

static void test_server_login_by_cleartext_and_md5(void **state)
{
    struct auth_md5 secret, answer;

    (void)state;
    struct world *w = world_new("auth_type = trust\n", make_users());
    world_login(w, "ann", "db");
    struct peer *s = server_asks(w, ask_cleartext);
    assert_memory_equal(bytequeue_str(&s->got).ptr, "p\0\0\0\13secret", 12);
    world_free(w);

    w = world_new("auth_type = trust\n", make_users());
    world_login(w, "bob", "db");
    s = server_asks(w, ask_md5);
    assert_true(auth_md5_secret(STR("bob"), STR("secret"), &secret));
    assert_true(auth_md5_answer(str_from(secret.text), (const uint8_t *)"salt", &answer));
    assert_memory_equal(bytequeue_str(&s->got).ptr + 5, answer.text, AUTH_MD5_LEN + 1);
    world_free(w);
}

static void test_a_secret_of_the_wrong_kind_fails_the_login(void **state)
{
    struct world *w = world_new("auth_type = trust\n", make_users());

    (void)state;
    struct peer *c = world_login(w, "eve", "db");
    struct peer *s = server_asks(w, ask_scram); /* eve's keys are not known */
    assert_null(s->conn);
    assert_string_equal(peer_take(c), "E(08P01)");
    world_free(w);
}

/* The server's part, with the secret that the auth file has too. */
static void test_keys_of_the_clients_scram_login_log_in_to_the_server(void **state)
{
    struct world *w = world_new("auth_type = scram-sha-256\n", make_users());
    static const uint8_t nonce[SCRAM_NONCE_RAW_LEN] = "ABCDEFGHIJKLMNOPQ";
    struct scram_secret secret;
    struct bytequeue q = { 0 };
    struct wire_frame f;
    struct sasl_initial initial;
    struct text out;

    (void)state;
    struct peer *c = world_login(w, "eve", "db");
    assert_true(answer_scram(c, "secret"));
    struct peer *s = server_asks(w, ask_scram);
    assert_non_null(s->conn);
    assert_true(scram_secret_from_password(STR("secret"), STR("0123456789abcdef"), 4096, &secret));
    struct scram_server *ss = scram_server_new(&secret, nonce);
    text_init(&out);
    assert_int_equal(wire_next_frame(SENT_BY_FRONTEND, bytequeue_str(&s->got), &f), WIRE_FRAME);
    assert_true(auth_decode_sasl_initial(f.body, &initial));
    assert_int_equal(scram_server_step(ss, initial.response, &out), SCRAM_CONTINUE);
    bytequeue_consume(&s->got, bytequeue_len(&s->got));
    auth_encode_sasl_continue(&q, text_str(&out));
    peer_send_queue(s, &q);
    assert_int_equal(wire_next_frame(SENT_BY_FRONTEND, bytequeue_str(&s->got), &f), WIRE_FRAME);
    assert_int_equal(scram_server_step(ss, f.body, &out), SCRAM_DONE);
    auth_encode_sasl_final(&q, text_str(&out));
    auth_encode_ok(&q);
    wire_encode_ready(&q, STATUS_IDLE);
    peer_send_queue(s, &q);
    assert_string_equal(peer_take(c), "RKZ");
    text_free(&out);
    scram_server_free(ss);
    world_free(w);
}

static void test_a_server_that_can_not_prove_itself_is_left(void **state)
{
    struct world *w = world_new("auth_type = trust\n", make_users());
    struct bytequeue q = { 0 };

    (void)state;
    struct peer *c = world_login(w, "ann", "db");
    struct peer *s = server_asks(w, ask_scram);
    auth_encode_sasl_continue(&q, STR("r=evil,s=AAAA,i=4096"));
    peer_send_queue(s, &q);
    assert_null(s->conn);
    assert_string_equal(peer_take(c), "E(08P01)");
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_md5_takes_plain_and_md5_secrets),
        cmocka_unit_test(test_md5_switches_to_scram_for_scram_secrets),
        cmocka_unit_test(test_scram_takes_plain_and_scram_secrets_not_md5),
        cmocka_unit_test(test_wrong_passwords_and_unknown_users_look_the_same),
        cmocka_unit_test(test_plain_takes_every_kind_of_secret),
        cmocka_unit_test(test_trust_needs_a_known_user_and_any_a_forced_one),
        cmocka_unit_test(test_a_missing_database_is_only_told_to_who_has_proved_himself),
        cmocka_unit_test(test_a_login_that_takes_too_long_is_closed),
        cmocka_unit_test(test_max_client_conn_refuses_the_next),
        cmocka_unit_test(test_server_login_by_cleartext_and_md5),
        cmocka_unit_test(test_a_secret_of_the_wrong_kind_fails_the_login),
        cmocka_unit_test(test_keys_of_the_clients_scram_login_log_in_to_the_server),
        cmocka_unit_test(test_a_server_that_can_not_prove_itself_is_left),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
