/* Who may enter, and our own login to servers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "protocol/auth.h"
#include "protocol/notice.h"
#include "protocol/query_extended.h"
#include "protocol/result.h"
#include "protocol/scram.h"
#include "protocol/startup.h"
#include "protocol/status.h"
#include "proxy/hba.h"
#include "proxy/ident.h"
#include "proxy/outside.h"
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

/* ---- auth_query ------------------------------------------------------------------------- */

static const char query_ini[] = "auth_type = md5\nauth_user = postgres\n"
                                "auth_query = select a, b from users where a = $1\n";

/* The server that auth_user's pool has opened takes the lookup: what it was sent, by tags. */
static const char *lookup_arrives(struct peer *s, struct str *parameter)
{
    static char tags[64];
    struct str got = bytequeue_str(&s->got);
    struct wire_frame f;
    size_t n = 0;

    *parameter = (struct str){ 0 };
    while (wire_next_frame(SENT_BY_FRONTEND, got, &f) == WIRE_FRAME && n + 1 < sizeof(tags)) {
        struct msg_bind bind;
        bool is_null;
        tags[n++] = f.tag;
        if (f.tag == FE_BIND && wire_decode_bind(f.body, &bind) && bind.n_params == 1) {
            struct wire_cursor at = wire_cursor(bind.params);
            *parameter = wire_value(&at, &is_null);
        }
        got.ptr += f.bytes.len;
        got.len -= f.bytes.len;
    }
    tags[n] = '\0';
    return tags;
}

static void put_done(struct bytequeue *q)
{
    wire_put_empty(q, BE_PARSE_COMPLETE);
    wire_put_empty(q, BE_BIND_COMPLETE);
}

/* name NULL: no row; secret NULL: it is null. */
static void answer_lookup(struct peer *s, const char *name, const char *secret)
{
    struct bytequeue q = { 0 };
    struct str clean[2] = { STR("none"), STR("pg_catalog") };
    struct str row[2] = { str_from(name), str_from(secret) };

    put_done(&q);
    wire_encode_data_row(&q, clean, 2);
    wire_encode_command_complete(&q, STR("SELECT 1"));
    put_done(&q);
    if (name != NULL)
        wire_encode_data_row(&q, row, 2);
    if (name != NULL)
        wire_put_empty(&q, BE_PORTAL_SUSPENDED);
    else
        wire_encode_command_complete(&q, STR("SELECT 0"));
    wire_encode_ready(&q, STATUS_IDLE);
    bytequeue_consume(&s->got, bytequeue_len(&s->got));
    peer_send_queue(s, &q);
}

static void test_auth_query_finds_whom_auth_file_lacks(void **state)
{
    struct world *w = world_new(query_ini, "\"postgres\" \"pw\"\n");
    struct str parameter;

    (void)state;
    struct peer *c = world_login(w, "zoe", "db");
    assert_string_equal(peer_take(c), "");
    struct peer *s = world_serve_login(w);
    assert_non_null(s);
    assert_string_equal(lookup_arrives(s, &parameter), "PBEPBES");
    assert_true(str_equal(parameter, STR("zoe")));
    answer_lookup(s, "zoe", "secret");
    answer_md5(c, "zoe", "secret");
    assert_int_equal(peer_client(c)->state, CLIENT_LOGIN_WAIT);
    /* The secret that was found logs in to the server too. */
    struct bytequeue q = { 0 };
    struct peer *own = world_next_connect(w);
    peer_connected(own);
    bytequeue_consume(&own->got, bytequeue_len(&own->got));
    auth_encode_cleartext(&q);
    peer_send_queue(own, &q);
    assert_memory_equal(bytequeue_str(&own->got).ptr, "p\0\0\0\13secret", 12);
    world_free(w);
}

static void test_what_is_said_during_the_lookup_is_heard_after_it(void **state)
{
    struct world *w =
        world_new("auth_type = plain\nauth_user = postgres\n", "\"postgres\" \"pw\"\n");

    (void)state;
    struct peer *c = world_login(w, "zoe", "db");
    say_password(c, "secret"); /* nobody has asked yet */
    struct peer *s = world_serve_login(w);
    answer_lookup(s, "zoe", "secret");
    assert_int_equal(peer_client(c)->state, CLIENT_LOGIN_WAIT);
    world_free(w);
}

static void test_who_is_not_found_or_has_no_secret_fails_like_a_wrong_password(void **state)
{
    struct world *w = world_new(query_ini, "\"postgres\" \"pw\"\n");

    (void)state;
    struct peer *c = world_login(w, "zoe", "db");
    struct peer *s = world_serve_login(w);
    answer_lookup(s, NULL, NULL);
    answer_md5(c, "zoe", "");
    assert_string_equal(peer_take(c), "E(08P01)");
    s = NULL;
    world_free(w);

    w = world_new(query_ini, "\"postgres\" \"pw\"\n");
    c = world_login(w, "zoe", "db");
    s = world_serve_login(w);
    answer_lookup(s, "zoe", NULL);
    answer_md5(c, "zoe", "");
    assert_string_equal(peer_take(c), "E(08P01)");
    assert_null(c->conn);
    world_free(w);
}

static void test_logins_that_wait_share_a_lookup_and_later_ones_ask_again(void **state)
{
    struct world *w = world_new("auth_type = md5\nauth_user = postgres\ndefault_pool_size = 1\n",
                                "\"postgres\" \"pw\"\n");
    struct str parameter;

    (void)state;
    struct peer *a = world_login(w, "zoe", "db");
    struct peer *b = world_login(w, "zoe", "db");
    struct peer *s = world_serve_login(w);
    assert_string_equal(lookup_arrives(s, &parameter), "PBEPBES");
    /* The query is on its way: who comes now may know a newer password. */
    struct peer *c = world_login(w, "zoe", "db");
    answer_lookup(s, "zoe", "old");
    answer_md5(a, "zoe", "old");
    assert_int_equal(peer_client(a)->state, CLIENT_LOGIN_WAIT);
    answer_md5(b, "zoe", "old");
    assert_int_equal(peer_client(b)->state, CLIENT_LOGIN_WAIT);
    assert_string_equal(peer_take(c), "");
    /* Session mode: the connection is reset between. */
    server_says_done(s, "DISCARD ALL", STATUS_IDLE);
    assert_non_null(strstr(lookup_arrives(s, &parameter), "PBEPBES"));
    answer_lookup(s, "zoe", "new");
    answer_md5(c, "zoe", "new");
    assert_int_equal(peer_client(c)->state, CLIENT_LOGIN_WAIT);
    world_free(w);
}

static void test_a_query_that_fails_is_a_config_error(void **state)
{
    struct world *w = world_new(query_ini, "\"postgres\" \"pw\"\n");
    struct bytequeue q = { 0 };

    (void)state;
    struct peer *c = world_login(w, "zoe", "db");
    struct peer *s = world_serve_login(w);
    notice_encode_error(&q, "ERROR", "42P01", "relation \"users\" does not exist");
    wire_encode_ready(&q, STATUS_IDLE);
    peer_send_queue(s, &q);
    assert_string_equal(peer_take(c), "E(08P01)");
    assert_null(c->conn);
    assert_non_null(s->conn); /* the connection is as good as before */
    world_free(w);

    /* The login of auth_user fails: the server's own words. */
    w = world_new(query_ini, "\"postgres\" \"pw\"\n");
    c = world_login(w, "zoe", "db");
    s = world_next_connect(w);
    peer_connected(s);
    notice_encode_error(&q, "FATAL", "3D000", "database \"db\" does not exist");
    peer_send_queue(s, &q);
    assert_string_equal(peer_take(c), "E(3D000)");
    world_free(w);
}

static void test_a_lookup_that_finds_no_server_ends_with_query_wait_timeout(void **state)
{
    struct world *w = world_new("auth_type = md5\nauth_user = postgres\nquery_wait_timeout = 5\n"
                                "client_login_timeout = 8\n",
                                "\"postgres\" \"pw\"\n");

    (void)state;
    struct peer *c = world_login(w, "zoe", "db");
    struct peer *d = world_login(w, "zoe", "db");
    world_sleep(w, 0.1);
    peer_hang_up(d);
    world_sleep(w, 9);
    assert_null(c->conn);
    assert_true(list_is_empty(&w->worker->auth_lookups));
    world_free(w);
}

static void test_auth_dbname_is_told_apart_from_the_clients_database(void **state)
{
    struct world *w = world_new("[databases]\ndb = host=10.0.0.1\nad = host=10.0.0.2\n"
                                "x = host=10.0.0.1 auth_dbname=none\n[pgbouncer]\n"
                                "auth_type = md5\nauth_user = postgres\nauth_dbname = ad\n",
                                "\"postgres\" \"pw\"\n");

    (void)state;
    struct peer *c = world_login(w, "zoe", "db");
    struct peer *s = world_serve_login(w);
    assert_string_equal(s->to.host, "10.0.0.2");
    answer_lookup(s, "zoe", "secret");
    answer_md5(c, "zoe", "secret");
    assert_int_equal(peer_client(c)->state, CLIENT_LOGIN_WAIT);
    /* A database that is not there is told to who has proved himself, here too. */
    c = world_login(w, "zoe", "nope");
    server_says_done(s, "DISCARD ALL", STATUS_IDLE);
    answer_lookup(s, "zoe", "secret");
    answer_md5(c, "zoe", "secret");
    assert_string_equal(peer_take(c), "E(08P01)");
    c = world_startup(w, "zoe", "x", NULL, NULL);
    assert_string_equal(peer_take(c), "E(08P01)"); /* "none" is not configured */
    proxy_database(w->proxy, STR("ad"))->disabled = true;
    c = world_startup(w, "zoe", "db", NULL, NULL);
    assert_string_equal(peer_take(c), "E(08P01)");
    world_free(w);
}

static void test_the_client_that_leaves_takes_its_lookup_along(void **state)
{
    struct world *w = world_new(query_ini, "\"postgres\" \"pw\"\n");

    (void)state;
    struct peer *c = world_login(w, "zoe", "db");
    assert_non_null(world_serve_login(w));
    peer_hang_up(c); /* in the middle of the query */
    assert_true(list_is_empty(&w->worker->auth_lookups));
    c = world_login(w, "zoe", "db");
    proxy_kill(w->proxy, NULL);
    world_settle(w);
    assert_null(c->conn);
    assert_true(list_is_empty(&w->worker->auth_lookups));
    world_free(w);
}

/* ---- rules, and those who are asked outside ----------------------------------------------- */

static void hba(struct world *w, const char *rules)
{
    hba_unref(w->proxy->hba);
    w->proxy->hba = hba_parse(str_from(rules), "hba");
}

static void test_the_rule_that_matches_says_how(void **state)
{
    struct world *w = world_new("auth_type = hba\n", make_users());

    (void)state;
    struct peer *c = world_startup(w, "ann", "db", NULL, NULL);
    assert_string_equal(peer_take(c), "E(08P01)"); /* no rules */
    hba(w,
        "host db bob all reject\nhost db eve all scram-sha-256\n"
        "host db ann 10.9.9.9/32 password\nhost db nil all trust\nhost db,ghost ghost all trust\n"
        "hostssl db all all cert\n");
    c = world_startup(w, "bob", "db", NULL, NULL);
    assert_string_equal(peer_take(c), "E(08P01)");
    c = world_login(w, "ann", "db");
    assert_string_equal(peer_take(c), "R");
    say_password(c, "secret");
    assert_int_equal(peer_client(c)->state, CLIENT_LOGIN_WAIT);
    c = world_login(w, "eve", "db");
    assert_true(answer_scram(c, "secret"));
    c = world_login(w, "nil", "db");
    assert_int_equal(peer_client(c)->state, CLIENT_LOGIN_WAIT);
    c = world_startup(w, "ghost", "db", NULL, NULL);
    assert_string_equal(peer_take(c), "E(08P01)"); /* trusted, and not there */
    c = world_startup(w, "zoe", "db", NULL, NULL);
    assert_string_equal(peer_take(c), "E(08P01)"); /* no rule */
    world_free(w);
}

static struct outside_question asked;
static char asked_password[64];

static void authority(struct outside_question *q)
{
    asked = *q;
    snprintf(asked_password, sizeof(asked_password), "%s", q->password != NULL ? q->password : "");
    q->yes = q->kind == OUTSIDE_USER_NAME || strcmp(q->password, "right") == 0;
    snprintf(q->name, sizeof(q->name), "sys");
    snprintf(q->why, sizeof(q->why), "no");
}

static void test_pam_and_ldap_are_asked_and_the_password_serves_the_server(void **state)
{
    static const char *const types[] = {
        "auth_type = pam\n",
        "auth_type = ldap\nauth_ldap_options = ldapserver=h ldapprefix=cn=\n",
    };

    (void)state;
    for (size_t t = 0; t < 2; t++) {
        struct world *w = world_new(types[t], NULL);
        w->outside = authority;
        struct peer *c = world_login(w, "zoe", "db");
        assert_string_equal(peer_take(c), "R");
        say_password(c, "wrong");
        assert_string_equal(peer_take(c), "E(08P01)");
        c = world_login(w, "zoe", "db");
        assert_string_equal(peer_take(c), "R");
        asked_password[0] = '\0';
        say_password(c, "");
        assert_string_equal(peer_take(c), "E(08P01)");
        assert_string_equal(asked_password, "");
        c = world_login(w, "zoe", "db");
        assert_string_equal(peer_take(c), "R");
        say_password(c, "right");
        assert_int_equal(peer_client(c)->state, CLIENT_LOGIN_WAIT);
        assert_int_equal(asked.kind, t == 0 ? OUTSIDE_PAM : OUTSIDE_LDAP);
        struct bytequeue q = { 0 };
        struct peer *s = world_next_connect(w);
        peer_connected(s);
        bytequeue_consume(&s->got, bytequeue_len(&s->got));
        auth_encode_cleartext(&q);
        peer_send_queue(s, &q);
        assert_memory_equal(bytequeue_str(&s->got).ptr, "p\0\0\0\12right", 11);
        world_free(w);
    }
}

static void test_peer_is_the_systems_name_or_what_the_map_makes_of_it(void **state)
{
    struct world *w = world_new("auth_type = hba\n", "\"sys\" \"\"\n\"ann\" \"\"\n\"bob\" \"\"\n");

    (void)state;
    w->outside = authority;
    hba(w, "local db ann all\nlocal db ann peer map=m\nlocal all all peer\n");
    w->proxy->ident = ident_parse(STR("m sys ann\n"), "ident");
    struct peer *c = world_accept(w);
    static const struct {
        const char *user;
        bool in;
    } cases[] = { { "sys", true }, { "ann", true }, { "bob", false }, { "nobody", false } };
    peer_hang_up(c);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct address a = { .is_unix = true, .unix_uid = 4711 };
        struct bytequeue q = { 0 };
        c = world_accept(w);
        conn_set_peer(c->conn, &a);
        struct wire_mark m = startup_encode_begin(&q, 3, 0);
        startup_encode_param(&q, STR("user"), str_from(cases[i].user));
        startup_encode_param(&q, STR("database"), STR("db"));
        startup_encode_end(&q, m);
        peer_send_queue(c, &q);
        if (cases[i].in)
            assert_int_equal(peer_client(c)->state, CLIENT_LOGIN_WAIT);
        else
            assert_string_equal(peer_take(c), "E(08P01)");
    }
    world_free(w);
}

static void test_cert_is_the_certificates_name_or_what_the_map_makes_of_it(void **state)
{
    struct world *w = world_new("auth_type = hba\n", "\"ann\" \"\"\n\"bob\" \"\"\n");
    static const struct {
        const char *user;
        const char *certificate; /* NULL: none */
        bool in;
    } cases[] = {
        { "ann", "ann", true }, { "ann", "bob", false }, { "ann", NULL, false },
        { "bob", "sys", true }, { "bob", "bob", false }, { "nobody", "nobody", false },
    };

    (void)state;
    hba(w, "hostssl all bob all cert map=m\nhostssl all all all cert\n");
    w->proxy->ident = ident_parse(STR("m sys bob\n"), "ident");
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct bytequeue q = { 0 };
        struct peer *c = world_accept(w);
        struct tls_info *tls = calloc(1, sizeof(*tls));
        tls->version = tls->cipher = "";
        if (cases[i].certificate != NULL) {
            tls->peer_name = malloc(strlen(cases[i].certificate) + 1);
            strcpy(tls->peer_name, cases[i].certificate);
        }
        c->conn->tls = tls;
        struct wire_mark m = startup_encode_begin(&q, 3, 0);
        startup_encode_param(&q, STR("user"), str_from(cases[i].user));
        startup_encode_param(&q, STR("database"), STR("db"));
        startup_encode_end(&q, m);
        peer_send_queue(c, &q);
        if (cases[i].in)
            assert_int_equal(peer_client(c)->state, CLIENT_LOGIN_WAIT);
        else
            assert_string_equal(peer_take(c), "E(08P01)");
    }
    world_free(w);
}

static void test_jobs_wait_in_line_and_their_clients_may_leave(void **state)
{
    struct world *w = world_new("auth_type = pam\nmax_client_conn = 1000\n", NULL);
    struct peer *c[40];

    (void)state;
    w->outside = authority;
    w->jobs_wait = true;
    for (size_t i = 0; i < 40; i++) {
        c[i] = world_login(w, "zoe", "db");
        assert_string_equal(peer_take(c[i]), "R");
        say_password(c[i], "right");
    }
    assert_int_equal(w->worker->login_lanes[LOGIN_LANE_ASK].running, 16);
    assert_int_equal(w->worker->login_lanes[LOGIN_LANE_ASK].waiting.count, 24);
    for (size_t i = 0; i < 40; i += 2)
        peer_hang_up(c[i]);
    assert_int_equal(w->worker->login_lanes[LOGIN_LANE_ASK].waiting.count, 12);
    while (world_run_jobs(w))
        ;
    for (size_t i = 1; i < 40; i += 2)
        assert_int_equal(peer_client(c[i])->state, CLIENT_LOGIN_WAIT);
    assert_int_equal(w->worker->login_lanes[LOGIN_LANE_ASK].running, 0);
    world_free(w);
}

/* ---- what must not tell, or grow ---------------------------------------------------------- */

/* The salt and the iterations that a user is shown. */
static void shown_salt(struct world *w, const char *user, char *out, size_t size)
{
    struct bytequeue copy = { 0 }, q = { 0 };
    struct peer *c = world_login(w, user, "db");

    request_of(c, &copy);
    auth_encode_sasl_initial(&q, STR(SCRAM_MECHANISM), STR("n,,n=,r=abcdef"));
    peer_send_queue(c, &q);
    struct auth_request r = request_of(c, &copy);
    ptrdiff_t at = str_find(r.payload, STR(",s="));
    assert_true(at > 0);
    snprintf(out, size, STR_FMT, (int)(r.payload.len - (size_t)at), r.payload.ptr + at);
    bytequeue_free(&copy);
    peer_hang_up(c);
}

static void test_salt_and_iterations_do_not_tell_who_exists(void **state)
{
    struct world *w =
        world_new("auth_type = scram-sha-256\nscram_iterations = 5000\n", make_users());
    char ann[128], again[128], nobody[128], other[128];

    (void)state;
    shown_salt(w, "ann", ann, sizeof(ann));
    shown_salt(w, "ann", again, sizeof(again));
    assert_string_equal(ann, again);
    shown_salt(w, "nobody", nobody, sizeof(nobody));
    shown_salt(w, "nobody", again, sizeof(again));
    assert_string_equal(nobody, again);
    shown_salt(w, "other", other, sizeof(other));
    assert_string_not_equal(nobody, other);
    assert_int_equal(strlen(ann), strlen(nobody));
    assert_non_null(strstr(nobody, ",i=5000"));
    assert_non_null(strstr(ann, ",i=5000"));
    world_free(w);
}

static void test_names_that_nobody_uses_are_forgotten(void **state)
{
    struct world *w = world_new("[databases]\ndb = host=10.0.0.1 user=ann\n[pgbouncer]\n"
                                "auth_type = any\nserver_login_retry = 0\n",
                                make_users());

    (void)state;
    for (int i = 0; i < 3000; i++) {
        char name[32];
        snprintf(name, sizeof(name), "stranger%d", i);
        peer_hang_up(world_login(w, name, "db"));
    }
    assert_true(w->proxy->users.count > 2000);
    world_sleep(w, 1);
    assert_true(w->proxy->users.count < 10);
    world_free(w);
}

static void test_databases_that_a_stranger_named_are_forgotten(void **state)
{
    struct world *w = world_new("[databases]\n* = host=10.0.0.1\n[pgbouncer]\n"
                                "auth_type = md5\nauth_user = postgres\n",
                                "\"postgres\" \"pw\"\n");

    (void)state;
    for (int i = 0; i < 20; i++) {
        char name[32];
        struct bytequeue q = { 0 };
        snprintf(name, sizeof(name), "guess%d", i);
        struct peer *c = world_login(w, "zoe", name);
        struct peer *s = world_next_connect(w);
        peer_connected(s);
        notice_encode_error(&q, "FATAL", "3D000", "database does not exist");
        peer_send_queue(s, &q);
        assert_string_equal(peer_take(c), "E(3D000)");
    }
    assert_int_equal(w->proxy->databases.count, 20);
    world_sleep(w, 20); /* server_login_retry is 15 s */
    assert_int_equal(w->proxy->databases.count, 0);
    world_free(w);
}

static void test_a_password_of_64_kb_is_a_password(void **state)
{
    size_t len = 65530;
    char *users_text = malloc(len + 64), *password = malloc(len + 1);

    (void)state;
    memset(password, 'x', len);
    password[len] = '\0';
    snprintf(users_text, len + 64, "\"ann\" \"%s\"\n", password);
    static const char *const types[] = { "plain", "md5", "scram-sha-256" };
    for (size_t t = 0; t < 3; t++) {
        char ini[64];
        snprintf(ini, sizeof(ini), "auth_type = %s\n", types[t]);
        struct world *w = world_new(ini, users_text);
        struct peer *c = world_login(w, "ann", "db");
        if (t == 0) {
            assert_string_equal(peer_take(c), "R");
            say_password(c, password);
        } else if (t == 1) {
            answer_md5(c, "ann", password);
        } else {
            assert_true(answer_scram(c, password));
        }
        assert_int_equal(peer_client(c)->state, CLIENT_LOGIN_WAIT);
        world_free(w);
    }
    free(users_text);
    free(password);
}

static void test_keys_for_the_servers_salt_are_computed_once(void **state)
{
    struct world *w = world_new("auth_type = trust\nserver_lifetime = 0\n", make_users());
    static const uint8_t nonce[SCRAM_NONCE_RAW_LEN] = "ABCDEFGHIJKLMNOPQ";
    struct scram_secret secret;

    (void)state;
    assert_true(scram_secret_from_password(STR("secret"), STR("0123456789abcdef"), 4096, &secret));
    for (int round = 0; round < 2; round++) {
        struct bytequeue q = { 0 };
        struct wire_frame f;
        struct sasl_initial initial;
        struct text out;
        struct peer *c = world_login(w, "ann", "db");
        struct peer *s = server_asks(w, ask_scram);
        struct scram_server *ss = scram_server_new(&secret, nonce);
        text_init(&out);
        assert_int_equal(wire_next_frame(SENT_BY_FRONTEND, bytequeue_str(&s->got), &f), WIRE_FRAME);
        assert_true(auth_decode_sasl_initial(f.body, &initial));
        assert_int_equal(scram_server_step(ss, initial.response, &out), SCRAM_CONTINUE);
        bytequeue_consume(&s->got, bytequeue_len(&s->got));
        auth_encode_sasl_continue(&q, text_str(&out));
        w->jobs_wait = true;
        peer_send_queue(s, &q);
        assert_int_equal(w->jobs != NULL, round == 0);
        w->jobs_wait = false;
        world_run_jobs(w);
        assert_int_equal(wire_next_frame(SENT_BY_FRONTEND, bytequeue_str(&s->got), &f), WIRE_FRAME);
        assert_int_equal(scram_server_step(ss, f.body, &out), SCRAM_DONE);
        text_free(&out);
        scram_server_free(ss);
        peer_hang_up(s);
        if (c->conn != NULL)
            peer_hang_up(c);
        world_sleep(w, 20);
    }
    world_free(w);
}

static void test_another_verifier_than_the_servers_is_told(void **state)
{
    struct world *w = world_new("auth_type = scram-sha-256\n", make_users());
    struct bytequeue q = { 0 };

    (void)state;
    struct peer *c = world_login(w, "eve", "db");
    assert_true(answer_scram(c, "secret"));
    struct peer *s = server_asks(w, ask_scram);
    struct wire_frame f;
    struct sasl_initial initial;
    static const uint8_t nonce[SCRAM_NONCE_RAW_LEN] = "ABCDEFGHIJKLMNOPQ";
    struct scram_secret secret;
    struct text out;
    text_init(&out);
    assert_true(scram_secret_from_password(STR("secret"), STR("another salt !!!"), 4096, &secret));
    struct scram_server *ss = scram_server_new(&secret, nonce);
    assert_int_equal(wire_next_frame(SENT_BY_FRONTEND, bytequeue_str(&s->got), &f), WIRE_FRAME);
    assert_true(auth_decode_sasl_initial(f.body, &initial));
    assert_int_equal(scram_server_step(ss, initial.response, &out), SCRAM_CONTINUE);
    auth_encode_sasl_continue(&q, text_str(&out));
    peer_send_queue(s, &q);
    assert_null(s->conn);
    struct bytequeue copy = { 0 };
    assert_string_equal(peer_take_copy(c, &copy), "E(08P01)");
    assert_true(str_find(bytequeue_str(&copy), STR("wrong password type")) > 0);
    bytequeue_free(&copy);
    text_free(&out);
    scram_server_free(ss);
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
        cmocka_unit_test(test_auth_query_finds_whom_auth_file_lacks),
        cmocka_unit_test(test_what_is_said_during_the_lookup_is_heard_after_it),
        cmocka_unit_test(test_who_is_not_found_or_has_no_secret_fails_like_a_wrong_password),
        cmocka_unit_test(test_logins_that_wait_share_a_lookup_and_later_ones_ask_again),
        cmocka_unit_test(test_a_query_that_fails_is_a_config_error),
        cmocka_unit_test(test_a_lookup_that_finds_no_server_ends_with_query_wait_timeout),
        cmocka_unit_test(test_auth_dbname_is_told_apart_from_the_clients_database),
        cmocka_unit_test(test_the_client_that_leaves_takes_its_lookup_along),
        cmocka_unit_test(test_the_rule_that_matches_says_how),
        cmocka_unit_test(test_pam_and_ldap_are_asked_and_the_password_serves_the_server),
        cmocka_unit_test(test_peer_is_the_systems_name_or_what_the_map_makes_of_it),
        cmocka_unit_test(test_cert_is_the_certificates_name_or_what_the_map_makes_of_it),
        cmocka_unit_test(test_jobs_wait_in_line_and_their_clients_may_leave),
        cmocka_unit_test(test_salt_and_iterations_do_not_tell_who_exists),
        cmocka_unit_test(test_names_that_nobody_uses_are_forgotten),
        cmocka_unit_test(test_databases_that_a_stranger_named_are_forgotten),
        cmocka_unit_test(test_a_password_of_64_kb_is_a_password),
        cmocka_unit_test(test_keys_for_the_servers_salt_are_computed_once),
        cmocka_unit_test(test_another_verifier_than_the_servers_is_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
