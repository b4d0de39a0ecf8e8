/* When a stream is encrypted, and what is not obeyed before: both sides, with no cryptography. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "protocol/startup.h"
#include "tests/proxy/world.h"

#define FILES "auth_type = trust\nclient_tls_key_file = k\nclient_tls_cert_file = c\n"
#define USERS "\"ann\" \"secret\"\n"

static const char hello[] = { 0x16, 3, 1, 0, 5, 1, 2, 3, 4, 5 };

static void ask(struct peer *p)
{
    struct bytequeue q = { 0 };

    startup_encode_ssl_request(&q);
    peer_send_queue(p, &q);
}

static void start_up(struct peer *p)
{
    struct bytequeue q = { 0 };
    struct wire_mark m = startup_encode_begin(&q, 3, 0);

    startup_encode_param(&q, STR("user"), STR("ann"));
    startup_encode_param(&q, STR("database"), STR("db"));
    startup_encode_end(&q, m);
    peer_send_queue(p, &q);
}

static void expect_sent(struct peer *p, const char *bytes)
{
    struct str got = bytequeue_str(&p->got);

    assert_int_equal(got.len, strlen(bytes));
    assert_memory_equal(got.ptr, bytes, got.len);
    bytequeue_consume(&p->got, got.len);
}

/* ---- clients ---------------------------------------------------------------------------- */

static void test_a_client_that_asks_gets_a_handshake(void **state)
{
    struct world *w = world_new(FILES "client_tls_sslmode = require", USERS);

    (void)state;
    struct peer *p = world_accept(w);
    ask(p);
    expect_sent(p, "S");
    assert_true(p->securing && p->tls.accepts && !p->tls.is_direct);
    peer_secured(p, NULL);
    start_up(p);
    struct peer *s = world_serve_login(w);
    assert_non_null(s);
    assert_string_equal(conn_tls(p->conn)->version, "TLSv1.3");
    /* once is enough */
    struct peer *twice = world_accept(w);
    ask(twice);
    peer_secured(twice, NULL);
    ask(twice);
    assert_null(twice->conn);
    world_free(w);
}

static void test_require_refuses_clear_logins_and_takes_clear_cancels(void **state)
{
    struct world *w = world_new(FILES "client_tls_sslmode = require", USERS);
    struct bytequeue q = { 0 };

    (void)state;
    struct peer *p = world_accept(w);
    start_up(p);
    assert_null(p->conn);
    assert_string_equal(peer_take(p), "E(08P01)");
    assert_null(world_next_connect(w));
    p = world_accept(w);
    startup_encode_cancel(&q, 1, (struct str){ "\1\2\3\4", 4 });
    peer_send_queue(p, &q);
    assert_string_equal(peer_take(p), ""); /* unknown, and no word about encryption */
    world_free(w);
}

static void test_bytes_behind_a_request_are_not_obeyed(void **state)
{
    static const char *const modes[] = { "disable", "prefer", "require" };

    (void)state;
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        char ini[200];
        struct bytequeue q = { 0 };
        snprintf(ini, sizeof(ini), FILES "client_tls_sslmode = %s", modes[i]);
        struct world *w = world_new(ini, USERS);
        struct peer *p = world_accept(w);
        startup_encode_ssl_request(&q);
        struct wire_mark m = startup_encode_begin(&q, 3, 0);
        startup_encode_param(&q, STR("user"), STR("ann"));
        startup_encode_end(&q, m);
        peer_send_queue(p, &q);
        assert_null(p->conn);
        assert_false(p->securing);
        assert_string_equal(peer_take(p), "E(08P01)");
        assert_null(world_next_connect(w));
        world_free(w);
    }
}

static void test_direct_tls_hands_on_what_was_read(void **state)
{
    struct world *w = world_new(FILES "client_tls_sslmode = allow", USERS);

    (void)state;
    struct peer *p = world_accept(w);
    peer_send(p, hello, sizeof(hello));
    assert_true(p->securing && p->tls.accepts && p->tls.is_direct);
    assert_int_equal(bytequeue_len(&p->tls_first), sizeof(hello));
    assert_memory_equal(bytequeue_str(&p->tls_first).ptr, hello, sizeof(hello));
    expect_sent(p, "");
    /* Not after a request for it, nor inside of it, nor where there is none. */
    peer_secured(p, NULL);
    peer_send(p, hello, sizeof(hello));
    assert_null(p->conn);
    world_free(w);
    w = world_new("auth_type = trust", USERS);
    p = world_accept(w);
    peer_send(p, hello, sizeof(hello));
    assert_null(p->conn);
    assert_false(p->securing);
    world_free(w);
}

static void test_a_handshake_that_takes_too_long_ends(void **state)
{
    struct world *w =
        world_new(FILES "client_tls_sslmode = prefer\nclient_login_timeout = 5", USERS);

    (void)state;
    struct peer *p = world_accept(w);
    ask(p);
    assert_true(p->securing);
    world_sleep(w, 4);
    assert_non_null(p->conn);
    world_sleep(w, 2);
    assert_null(p->conn);
    world_free(w);
}

/* ---- servers ---------------------------------------------------------------------------- */

static struct peer *first_server(struct world *w, struct peer **client)
{
    *client = world_accept(w);
    start_up(*client);
    struct peer *s = world_next_connect(w);
    assert_non_null(s);
    peer_connected(s);
    return s;
}

static void test_a_server_that_agrees_gets_a_handshake_before_all_else(void **state)
{
    struct world *w = world_new("auth_type = trust\nserver_tls_sslmode = verify-full", USERS);
    struct peer *c;

    (void)state;
    struct peer *s = first_server(w, &c);
    assert_int_equal(bytequeue_len(&s->got), 8);
    bytequeue_consume(&s->got, 8);
    peer_send(s, "S", 1);
    assert_true(s->securing && !s->tls.accepts && !s->tls.is_direct && s->tls.checks_host);
    assert_string_equal(s->tls_host, "10.0.0.1");
    assert_int_equal(bytequeue_len(&s->got), 0);
    peer_secured(s, NULL);
    assert_true(bytequeue_len(&s->got) > 8);
    assert_memory_equal(bytequeue_str(&s->got).ptr + 4, "\0\3", 2);
    world_free(w);
}

static void test_a_server_that_refuses(void **state)
{
    struct peer *c;

    (void)state;
    struct world *w = world_new("auth_type = trust\nserver_tls_sslmode = prefer", USERS);
    struct peer *s = first_server(w, &c);
    bytequeue_consume(&s->got, 8);
    peer_send(s, "N", 1);
    assert_true(bytequeue_len(&s->got) > 8);
    assert_memory_equal(bytequeue_str(&s->got).ptr + 4, "\0\3", 2);
    world_free(w);

    w = world_new("auth_type = trust\nserver_tls_sslmode = require", USERS);
    s = first_server(w, &c);
    bytequeue_consume(&s->got, 8);
    peer_send(s, "N", 1);
    assert_null(s->conn);
    assert_int_equal(bytequeue_len(&s->got), 0);
    world_free(w);
}

static void test_what_a_server_says_in_clear_is_not_obeyed(void **state)
{
    const struct str answers[] = {
        STR("SR\0\0\0\10\0\0\0\0"),
        STR("NR\0\0\0\10\0\0\0\0"),
        STR("E\0\0\0\5\0"),
        STR("R"),
    };

    (void)state;
    for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
        struct world *w = world_new("auth_type = trust\nserver_tls_sslmode = prefer", USERS);
        struct peer *c;
        struct peer *s = first_server(w, &c);
        bytequeue_consume(&s->got, 8);
        peer_send(s, answers[i].ptr, answers[i].len);
        assert_null(s->conn);
        assert_false(s->securing);
        assert_int_equal(bytequeue_len(&s->got), 0);
        /* who waited for it is told */
        assert_null(c->conn);
        world_free(w);
    }
}

static void test_a_handshake_that_fails_is_told_to_who_waits(void **state)
{
    struct world *w = world_new("auth_type = trust\nserver_tls_sslmode = require\n"
                                "server_tls_negotiation = direct",
                                USERS);
    struct peer *c;

    (void)state;
    struct peer *s = first_server(w, &c);
    assert_int_equal(bytequeue_len(&s->got), 0);
    assert_true(s->securing && s->tls.is_direct && !s->tls.checks_host);
    peer_fail(s, "TLS handshake error: certificate verify failed: it is not for \"x\"");
    assert_null(s->conn);
    assert_null(c->conn);
    world_free(w);
}

/* ---- new settings ----------------------------------------------------------------------- */

static void test_settings_that_cannot_be_used_change_nothing(void **state)
{
    struct world *w = world_new(FILES "client_tls_sslmode = prefer", USERS);
    struct err e = { 0 };

    (void)state;
    struct tls_context *before = w->proxy->client_tls;
    struct config *bad =
        config_set(w->proxy->config, STR("client_tls_cert_file"), STR("/no/such"), &e);
    assert_non_null(bad);
    struct config *in_use = w->proxy->config;
    w->proxy->config = bad;
    assert_false(proxy_load_tls(w->proxy, &e));
    assert_ptr_equal(w->proxy->client_tls, before);
    w->proxy->config = in_use;
    config_unref(bad);
    err_clear(&e);
    world_free(w);
}

static void test_changed_server_settings_retire_servers(void **state)
{
    struct world *w = world_new("auth_type = trust", USERS);
    struct err e = { 0 };

    (void)state;
    struct peer *c = world_login(w, "ann", "db");
    struct peer *s = world_serve_login(w);
    assert_non_null(c->conn);
    assert_non_null(s->conn);
    struct config *same = config_set(w->proxy->config, STR("client_tls_ciphers"), STR("all"), &e);
    proxy_apply_config(w->proxy, same);
    world_settle(w);
    assert_non_null(s->conn);
    struct config *other =
        config_set(w->proxy->config, STR("server_tls_ca_file"), STR("/other"), &e);
    proxy_apply_config(w->proxy, other);
    world_settle(w);
    assert_null(s->conn);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_client_that_asks_gets_a_handshake),
        cmocka_unit_test(test_require_refuses_clear_logins_and_takes_clear_cancels),
        cmocka_unit_test(test_bytes_behind_a_request_are_not_obeyed),
        cmocka_unit_test(test_direct_tls_hands_on_what_was_read),
        cmocka_unit_test(test_a_handshake_that_takes_too_long_ends),
        cmocka_unit_test(test_a_server_that_agrees_gets_a_handshake_before_all_else),
        cmocka_unit_test(test_a_server_that_refuses),
        cmocka_unit_test(test_what_a_server_says_in_clear_is_not_obeyed),
        cmocka_unit_test(test_a_handshake_that_fails_is_told_to_who_waits),
        cmocka_unit_test(test_settings_that_cannot_be_used_change_nothing),
        cmocka_unit_test(test_changed_server_settings_retire_servers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
