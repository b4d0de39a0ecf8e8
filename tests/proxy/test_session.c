/* Clients and servers, message by message, in both pool modes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/arena.h"
#include "protocol/copy.h"
#include "protocol/notice.h"
#include "protocol/query_extended.h"
#include "protocol/query_simple.h"
#include "protocol/result.h"
#include "protocol/startup.h"
#include "protocol/status.h"
#include "tests/proxy/world.h"

#define USERS "\"ann\" \"secret\"\n\"bob\" \"secret\"\n"
#define TRANSACTION "auth_type = trust\npool_mode = transaction\ndefault_pool_size = 1\n"
#define SESSION "auth_type = trust\npool_mode = session\ndefault_pool_size = 1\n"

/* Says a batch of empty-bodied backend messages. */
static void server_says(struct peer *s, const char *tags)
{
    struct bytequeue q = { 0 };

    for (; *tags != '\0'; tags++) {
        if (*tags == 'C')
            wire_encode_command_complete(&q, STR("SELECT 1"));
        else if (*tags == 'D')
            wire_encode_data_row(&q, NULL, 0);
        else if (*tags == 'T')
            wire_encode_text_columns(&q, (const char *const[]){ "a" }, 1);
        else if (*tags == 'G')
            wire_encode_copy_response(&q, BE_COPY_IN_RESPONSE, false, 1);
        else if (*tags == 'Z')
            wire_encode_ready(&q, STATUS_IDLE);
        else
            wire_put_empty(&q, *tags);
    }
    peer_send_queue(s, &q);
}

static void server_says_error(struct peer *s, const char *sqlstate, char status)
{
    struct bytequeue q = { 0 };

    notice_encode_error(&q, "ERROR", sqlstate, "no");
    if (status != 0)
        wire_encode_ready(&q, (enum wire_status)status);
    peer_send_queue(s, &q);
}

/* P/B/D/E/C/S/H for statement `name` with text "select 1" (or `sql`). */
static void client_says(struct peer *c, const char *what, const char *name, const char *sql)
{
    struct bytequeue q = { 0 };

    for (; *what != '\0'; what++) {
        switch (*what) {
        case 'P':
            wire_encode_parse(&q, str_from(name), str_from(sql), NULL, 0);
            break;
        case 'B':
            wire_encode_bind_text(&q, STR(""), str_from(name), NULL, 0);
            break;
        case 'D':
            wire_encode_describe(&q, TARGET_STATEMENT, str_from(name));
            break;
        case 'E':
            wire_encode_execute(&q, STR(""), 0);
            break;
        case 'C':
            wire_encode_close(&q, TARGET_STATEMENT, str_from(name));
            break;
        case 'S':
            wire_encode_sync(&q);
            break;
        case 'H':
            wire_encode_flush(&q);
            break;
        default:
            fail();
        }
    }
    peer_send_queue(c, &q);
}

/* The first client of a pool, its login over, and its server. */
static struct peer *first_client(struct world *w, struct peer **server)
{
    struct peer *c = world_login(w, "ann", "db");

    assert_string_equal(peer_take(c), "");
    *server = world_serve_login(w);
    assert_non_null(*server);
    assert_string_equal(peer_take(c), "RSSSSSSSKZ");
    assert_string_equal(peer_take(*server), "");
    return c;
}

/* The statement name in a frame that the server got. */
static const char *name_in(struct bytequeue *frames, char tag, size_t which)
{
    struct str all = bytequeue_str(frames);
    struct wire_frame f;

    while (wire_next_frame(SENT_BY_FRONTEND, all, &f) == WIRE_FRAME) {
        if (f.tag == tag && which-- == 0)
            return tag == 'B' ? f.body.ptr + strlen(f.body.ptr) + 1 : f.body.ptr;
        all.ptr += f.bytes.len;
        all.len -= f.bytes.len;
    }
    fail_msg("no frame %c", tag);
    return NULL;
}

/* ---- startup ---------------------------------------------------------------------------- */

static void test_ssl_request_is_declined_and_bytes_behind_it_are_fatal(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);
    struct peer *c = world_accept(w);
    struct bytequeue q = { 0 };

    (void)state;
    startup_encode_ssl_request(&q);
    peer_send_queue(c, &q);
    assert_true(str_equal(bytequeue_str(&c->got), STR("N")));
    assert_non_null(c->conn);

    struct peer *evil = world_accept(w);
    startup_encode_ssl_request(&q);
    bytequeue_put(&q, "x", 1);
    peer_send_queue(evil, &q);
    assert_null(evil->conn);
    world_free(w);
}

static struct peer *start_with_version(struct world *w, uint16_t major, uint16_t minor,
                                       const char *option)
{
    struct peer *c = world_accept(w);
    struct bytequeue q = { 0 };
    struct wire_mark m = startup_encode_begin(&q, major, minor);

    startup_encode_param(&q, STR("user"), STR("ann"));
    startup_encode_param(&q, STR("database"), STR("db"));
    if (option != NULL)
        startup_encode_param(&q, str_from(option), STR("1"));
    startup_encode_end(&q, m);
    peer_send_queue(c, &q);
    return c;
}

/* What the proxy wants to speak instead: the version of its NegotiateProtocolVersion; 0: none. */
static unsigned negotiated(struct world *w, uint16_t minor, const char *option)
{
    struct peer *c = start_with_version(w, 3, minor, option);
    struct bytequeue seen = { 0 };
    struct negotiate_version n = { 0 };

    peer_take_copy(c, &seen);
    struct str got = bytequeue_str(&seen);
    if (got.len > 0) {
        assert_int_equal(got.ptr[0], BE_NEGOTIATE_PROTOCOL);
        assert_true(startup_decode_negotiate((struct str){ got.ptr + 5, got.len - 5 }, &n));
        assert_int_equal(n.n_options, option != NULL);
    }
    bytequeue_free(&seen);
    peer_hang_up(c);
    return n.major * 10u + n.minor;
}

static void test_protocol_3_2_is_spoken_newer_ones_negotiated_down_and_2_0_refused(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);

    (void)state;
    assert_int_equal(negotiated(w, 0, NULL), 0);
    assert_int_equal(negotiated(w, 0, "_pq_.x"), 30);
    assert_int_equal(negotiated(w, 1, NULL), 30);
    assert_int_equal(negotiated(w, 2, NULL), 0);
    assert_int_equal(negotiated(w, 2, "_pq_.x"), 32);
    assert_int_equal(negotiated(w, 3, NULL), 32);
    assert_int_equal(negotiated(w, 9999, "_pq_.x"), 32);

    struct peer *old = start_with_version(w, 2, 0, NULL);
    assert_null(old->conn);
    world_free(w);
}

static void test_unknown_startup_parameter_is_refused_where_that_is_wanted(void **state)
{
    struct world *w = world_new(TRANSACTION "ignore_startup_parameters = extra_float_digits\n"
                                            "refuse_startup_parameters = 1\n",
                                USERS);

    (void)state;
    struct peer *c = world_startup(w, "ann", "db", "statement_timeout", "5");
    assert_string_equal(peer_take(c), "E(08P01)");
    assert_null(c->conn);
    assert_non_null(world_startup(w, "ann", "db", "extra_float_digits", "2")->conn);
    world_free(w);
}

static void test_options_set_followed_parameters(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);

    (void)state;
    struct peer *c =
        world_startup(w, "ann", "db", "options", "-c timezone=Asia/Tokyo --datestyle=a\\ b");
    assert_non_null(c->conn);
    assert_string_equal(params_get(&peer_client(c)->params, PARAM_TIMEZONE), "Asia/Tokyo");
    assert_string_equal(params_get(&peer_client(c)->params, PARAM_DATESTYLE), "a b");
    c = world_startup(w, "ann", "db", "options", "-d 5");
    assert_string_equal(peer_take(c), "E(08P01)");
    world_free(w);
}

static void test_later_clients_need_no_server_to_log_in(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);
    struct peer *s;

    (void)state;
    first_client(w, &s);
    struct peer *b = world_login(w, "ann", "db");
    assert_string_equal(peer_take(b), "RSSSSSSSKZ");
    assert_null(world_next_connect(w));
    world_free(w);
}

static void test_a_failed_server_login_fails_its_waiters_with_the_servers_words(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);

    (void)state;
    struct peer *c = world_login(w, "ann", "db");
    struct peer *s = world_next_connect(w);
    peer_connected(s);
    server_says_error(s, "28000", 0);
    assert_null(s->conn);
    assert_string_equal(peer_take(c), "E(28000)");
    assert_null(c->conn);
    /* Until server_login_retry new clients fail at once. */
    c = world_startup(w, "ann", "db", NULL, NULL);
    assert_string_equal(peer_take(c), "E(08P01)");
    world_sleep(w, 16);
    c = world_login(w, "ann", "db");
    assert_non_null(world_next_connect(w));
    world_free(w);
}

static void test_database_that_does_not_exist_is_told_after_login(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);

    (void)state;
    struct peer *c = world_startup(w, "ann", "nope", NULL, NULL);
    assert_string_equal(peer_take(c), "E(08P01)");
    world_free(w);
}

/* ---- pooling ---------------------------------------------------------------------------- */

static void test_transaction_mode_releases_at_idle_and_serves_the_first_waiter(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);
    struct peer *s;

    (void)state;
    struct peer *a = first_client(w, &s);
    struct peer *b = world_login(w, "ann", "db");
    struct peer *d = world_login(w, "ann", "db");
    peer_take(b);
    peer_take(d);
    client_says_query(a, "begin");
    assert_string_equal(peer_take(s), "Q");
    server_says_done(s, "BEGIN", STATUS_IN_TRANSACTION);
    client_says_query(b, "select 'b'");
    client_says_query(d, "select 'd'");
    assert_string_equal(peer_take(s), "");
    client_says_query(a, "commit");
    struct bytequeue seen = { 0 };
    assert_string_equal(peer_take_copy(s, &seen), "Q");
    server_says_done(s, "COMMIT", STATUS_IDLE);
    bytequeue_free(&seen);
    assert_string_equal(peer_take(a), "CZCZ");
    assert_string_equal(peer_take_copy(s, &seen), "Q");
    assert_string_equal(bytequeue_str(&seen).ptr + 5, "select 'b'");
    server_says_done(s, "SELECT 1", STATUS_IDLE);
    bytequeue_free(&seen);
    assert_string_equal(peer_take(b), "CZ");
    assert_string_equal(peer_take_copy(s, &seen), "Q");
    assert_string_equal(bytequeue_str(&seen).ptr + 5, "select 'd'");
    bytequeue_free(&seen);
    assert_string_equal(peer_take(d), "");
    world_free(w);
}

static void test_session_mode_keeps_the_server_and_resets_it_after(void **state)
{
    struct world *w = world_new(SESSION, USERS);
    struct peer *s;

    (void)state;
    struct peer *a = first_client(w, &s);
    client_says_query(a, "select 1");
    server_says_done(s, "SELECT 1", STATUS_IDLE);
    peer_take(s);
    struct peer *b = world_login(w, "ann", "db");
    client_says_query(b, "select 2");
    assert_string_equal(peer_take(s), "");
    peer_hang_up(a);
    struct bytequeue seen = { 0 };
    assert_string_equal(peer_take_copy(s, &seen), "Q");
    assert_string_equal(bytequeue_str(&seen).ptr + 5, "DISCARD ALL");
    bytequeue_free(&seen);
    server_says_done(s, "DISCARD ALL", STATUS_IDLE);
    assert_string_equal(peer_take(s), "Q");
    world_free(w);
}

static void test_statement_mode_refuses_transaction_blocks(void **state)
{
    struct world *w =
        world_new("auth_type = trust\npool_mode = statement\ndefault_pool_size = 1\n", USERS);
    struct peer *s;

    (void)state;
    struct peer *a = first_client(w, &s);
    client_says_query(a, "begin");
    server_says_done(s, "BEGIN", STATUS_IN_TRANSACTION);
    assert_string_equal(peer_take(a), "E(08P01)");
    assert_null(a->conn);
    assert_null(s->conn);
    world_free(w);
}

static void test_timeouts_end_the_client_and_its_server(void **state)
{
    static const struct {
        const char *setting;
        bool answered;
    } cases[] = {
        { "query_timeout = 3\n", false },
        { "idle_transaction_timeout = 3\n", true },
        { "transaction_timeout = 3\n", true },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (int session = 0; session < 2; session++) {
            struct text ini;
            struct peer *s;
            text_init(&ini);
            text_printf(&ini, "auth_type = trust\npool_mode = %s\n%s",
                        session ? "session" : "transaction", cases[i].setting);
            struct world *w = world_new(ini.ptr, USERS);
            struct peer *a = first_client(w, &s);
            client_says_query(a, "begin");
            if (cases[i].answered) {
                server_says_done(s, "BEGIN", STATUS_IN_TRANSACTION);
                assert_string_equal(peer_take(a), "CZ");
            }
            world_sleep(w, 2.9);
            assert_non_null(a->conn);
            world_sleep(w, 0.2);
            assert_string_equal(peer_take(a), "E(08P01)");
            assert_null(a->conn);
            assert_null(s->conn);
            world_free(w);
            text_free(&ini);
        }
    }
}

static void test_a_waiter_is_told_when_its_time_is_up(void **state)
{
    struct world *w =
        world_new(TRANSACTION "query_wait_timeout = 7\nquery_wait_notify = 0\n", USERS);
    struct peer *s;

    (void)state;
    struct peer *a = first_client(w, &s);
    struct peer *b = world_login(w, "ann", "db");
    peer_take(b);
    client_says_query(a, "begin");
    server_says_done(s, "BEGIN", STATUS_IN_TRANSACTION);
    client_says_query(b, "select 1");
    world_sleep(w, 6.9);
    assert_string_equal(peer_take(b), "");
    world_sleep(w, 0.2);
    assert_string_equal(peer_take(b), "E(08P01)");
    assert_null(b->conn);
    assert_non_null(a->conn);
    world_free(w);
}

static void test_server_lifetime_closes_at_release_only(void **state)
{
    struct world *w = world_new(TRANSACTION "server_lifetime = 100\n", USERS);
    struct peer *s;

    (void)state;
    struct peer *a = first_client(w, &s);
    client_says_query(a, "begin");
    server_says_done(s, "BEGIN", STATUS_IN_TRANSACTION);
    world_sleep(w, 200);
    assert_non_null(s->conn);
    client_says_query(a, "commit");
    server_says_done(s, "COMMIT", STATUS_IDLE);
    assert_null(s->conn);
    assert_non_null(a->conn);
    world_free(w);
}

static void test_an_old_idle_server_is_probed_before_use(void **state)
{
    struct world *w = world_new(TRANSACTION "server_check_delay = 30\n", USERS);
    struct peer *s;

    (void)state;
    struct peer *a = first_client(w, &s);
    client_says_query(a, "select 1");
    server_says_done(s, "SELECT 1", STATUS_IDLE);
    peer_take(s);
    peer_take(a);
    world_sleep(w, 31);
    client_says_query(a, "select 2");
    struct bytequeue seen = { 0 };
    assert_string_equal(peer_take_copy(s, &seen), "Q");
    assert_string_equal(bytequeue_str(&seen).ptr + 5, "");
    bytequeue_free(&seen);
    server_says(s, "IZ");
    assert_string_equal(peer_take(a), "");
    assert_string_equal(peer_take_copy(s, &seen), "Q");
    assert_string_equal(bytequeue_str(&seen).ptr + 5, "select 2");
    bytequeue_free(&seen);
    world_free(w);
}

static void test_pause_closes_free_servers_and_holds_new_work(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);
    struct peer *s;

    (void)state;
    struct peer *a = first_client(w, &s);
    proxy_pause(w->proxy, NULL);
    world_settle(w);
    assert_null(s->conn);
    assert_true(proxy_is_pausing_done(w->proxy, NULL));
    client_says_query(a, "select 1");
    assert_null(world_next_connect(w));
    proxy_resume(w->proxy, NULL);
    world_settle(w);
    s = world_serve_login(w);
    assert_non_null(s);
    assert_string_equal(peer_take(s), "Q");
    world_free(w);
}

/* ---- a client that dies ----------------------------------------------------------------- */

/* A query that is cancelled for a client that is gone: the connect, and the end of it. */
static void serve_own_cancel(struct world *w)
{
    struct peer *cancel = world_next_connect(w);

    assert_non_null(cancel);
    assert_string_equal(cancel->to.host, "10.0.0.1");
    peer_connected(cancel);
    assert_memory_equal(bytequeue_str(&cancel->got).ptr, "\0\0\0\20\4\322\26\56\0\0\22\147\1\2\3\4",
                        16);
    peer_hang_up(cancel);
}

static void test_client_death_in_a_transaction_rolls_back(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);
    struct peer *s;

    (void)state;
    struct peer *a = first_client(w, &s);
    struct peer *b = world_login(w, "ann", "db");
    peer_take(b);
    client_says_query(a, "begin");
    server_says_done(s, "BEGIN", STATUS_IN_TRANSACTION);
    peer_take(s);
    peer_hang_up(a);
    assert_string_equal(peer_take(s), "Q");
    assert_null(world_next_connect(w)); /* nothing runs: nothing to cancel */
    client_says_query(b, "select 1");
    assert_string_equal(peer_take(s), "");
    server_says_done(s, "ROLLBACK", STATUS_IDLE);
    assert_string_equal(peer_take(b), "");
    assert_string_equal(peer_take(s), "Q");
    server_says_done(s, "SELECT 1", STATUS_IDLE);
    assert_string_equal(peer_take(b), "CZ");
    world_free(w);
}

static void test_client_death_during_a_query_cancels_it_and_keeps_the_server(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);
    struct peer *s;

    (void)state;
    struct peer *a = first_client(w, &s);
    struct peer *b = world_login(w, "ann", "db");
    peer_take(b);
    client_says_query(a, "begin");
    server_says_done(s, "BEGIN", STATUS_IN_TRANSACTION);
    client_says_query(a, "select pg_sleep(1000)");
    peer_take(s);
    peer_hang_up(a);
    client_says_query(b, "select 1");
    server_says_error(s, "57014", STATUS_FAILED);
    assert_string_equal(peer_take(s), ""); /* the cancel could hit it */
    serve_own_cancel(w);
    assert_string_equal(peer_take(s), "Q"); /* ROLLBACK */
    server_says_done(s, "ROLLBACK", STATUS_IDLE);
    assert_string_equal(peer_take(s), "Q");
    server_says_done(s, "SELECT 1", STATUS_IDLE);
    assert_string_equal(peer_take(b), "CZ");
    world_free(w);
}

static void test_client_death_in_a_pipeline_is_drained_up_to_a_sync(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);
    struct peer *s;

    (void)state;
    struct peer *a = first_client(w, &s);
    struct peer *b = world_login(w, "ann", "db");
    peer_take(b);
    client_says(a, "PBE", "s1", "select 1");
    assert_string_equal(peer_take(s), "PBE");
    server_says_error(s, "42601", 0); /* it now waits for a Sync */
    assert_string_equal(peer_take(a), "E(42601)");
    client_says_query(b, "select 1");
    peer_hang_up(a);
    assert_string_equal(peer_take(s), "S");
    server_says(s, "Z");
    assert_string_equal(peer_take(s), "Q");
    server_says_done(s, "SELECT 1", STATUS_IDLE);
    assert_string_equal(peer_take(b), "CZ");
    world_free(w);
}

static void test_a_server_that_does_not_come_clean_is_closed(void **state)
{
    struct world *w = world_new(TRANSACTION "server_cancel_timeout = 3\n", USERS);
    struct peer *s;

    (void)state;
    struct peer *a = first_client(w, &s);
    client_says_query(a, "select pg_sleep(1000)");
    peer_hang_up(a);
    serve_own_cancel(w);
    world_sleep(w, 2.9);
    assert_non_null(s->conn);
    world_sleep(w, 0.2);
    assert_null(s->conn);
    world_free(w);
}

static void test_draining_can_be_switched_off(void **state)
{
    struct world *w = world_new(TRANSACTION "server_cancel_timeout = 0\n", USERS);
    struct peer *s;

    (void)state;
    struct peer *a = first_client(w, &s);
    client_says_query(a, "select pg_sleep(1000)");
    peer_hang_up(a);
    assert_null(s->conn);
    serve_own_cancel(w);
    world_free(w);
}

static void test_server_death_ends_its_client_only(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);
    struct peer *s;

    (void)state;
    struct peer *a = first_client(w, &s);
    struct peer *b = world_login(w, "ann", "db");
    peer_take(b);
    client_says_query(a, "select 1");
    client_says_query(b, "select 2");
    peer_hang_up(s);
    assert_string_equal(peer_take(a), "E(08P01)");
    assert_null(a->conn);
    assert_non_null(b->conn);
    s = world_serve_login(w);
    assert_non_null(s);
    assert_string_equal(peer_take(s), "Q");
    world_free(w);
}

/* ---- cancel ----------------------------------------------------------------------------- */

static void say_key(struct world *w, const struct cancel_key *key, struct peer **out)
{
    struct bytequeue q = { 0 };
    struct peer *p = world_accept(w);

    startup_encode_cancel(&q, cancel_key_pid(key), cancel_key_secret(key));
    peer_send_queue(p, &q);
    *out = p;
}

static void say_cancel(struct world *w, const struct client *c, struct peer **out)
{
    struct cancel_key key = client_cancel_key(c);

    say_key(w, &key, out);
}

static void test_a_cancel_reaches_the_linked_server_and_blocks_its_reuse(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);
    struct peer *s, *canceller;

    (void)state;
    struct peer *a = first_client(w, &s);
    struct peer *b = world_login(w, "ann", "db");
    client_says_query(a, "select 1");
    peer_take(s);
    say_cancel(w, peer_client(a), &canceller);
    struct peer *to_server = world_next_connect(w);
    assert_non_null(to_server);
    server_says_done(s, "SELECT 1", STATUS_IDLE);
    client_says_query(b, "select 2");
    assert_string_equal(peer_take(s), ""); /* the cancel could hit b */
    peer_connected(to_server);
    peer_hang_up(to_server);
    assert_null(canceller->conn);
    assert_string_equal(peer_take(s), "Q");
    world_free(w);
}

static void test_a_cancel_of_a_waiting_client_answers_57014(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);
    struct peer *s, *canceller;

    (void)state;
    struct peer *a = first_client(w, &s);
    struct peer *b = world_login(w, "ann", "db");
    peer_take(b);
    client_says_query(a, "begin");
    server_says_done(s, "BEGIN", STATUS_IN_TRANSACTION);
    client_says_query(b, "select 2");
    say_cancel(w, peer_client(b), &canceller);
    assert_null(canceller->conn);
    assert_string_equal(peer_take(b), "E(57014)Z");
    client_says(b, "PBES", "", "select 2");
    say_cancel(w, peer_client(b), &canceller);
    assert_string_equal(peer_take(b), "E(57014)Z");
    assert_null(world_next_connect(w));
    world_free(w);
}

static void test_a_wrong_cancel_key_does_nothing(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);
    struct peer *s, *canceller;
    struct cancel_key other = { { 9, 9, 9, 9, 9, 9, 9, 9 }, CANCEL_KEY_SHORT };

    (void)state;
    struct peer *a = first_client(w, &s);
    client_says_query(a, "select 1");
    say_key(w, &other, &canceller);
    assert_null(canceller->conn);
    assert_null(world_next_connect(w));
    world_free(w);
}

/* ---- prepared statements ---------------------------------------------------------------- */

static void test_equal_statements_are_parsed_once(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);
    struct peer *s;
    struct bytequeue seen = { 0 };

    (void)state;
    struct peer *a = first_client(w, &s);
    struct peer *b = world_login(w, "ann", "db");
    peer_take(b);
    client_says(a, "PBES", "mine", "select 1");
    assert_string_equal(peer_take_copy(s, &seen), "PBES");
    assert_string_equal(name_in(&seen, 'P', 0), name_in(&seen, 'B', 0));
    assert_string_not_equal(name_in(&seen, 'P', 0), "mine");
    server_says(s, "12CZ");
    assert_string_equal(peer_take(a), "12CZ");
    client_says(b, "PBES", "yours", "select 1");
    assert_string_equal(peer_take_copy(s, &seen), "BES");
    assert_string_equal(name_in(&seen, 'B', 1), name_in(&seen, 'P', 0));
    server_says(s, "2CZ");
    assert_string_equal(peer_take(b), "12CZ");
    bytequeue_free(&seen);
    world_free(w);
}

static void test_a_server_that_lacks_the_statement_is_taught_unseen(void **state)
{
    struct world *w = world_new("auth_type = trust\npool_mode = transaction\n", USERS);
    struct peer *s;

    (void)state;
    struct peer *a = first_client(w, &s);
    client_says(a, "PS", "mine", "select 1");
    server_says(s, "1Z");
    assert_string_equal(peer_take(a), "1Z");
    peer_take(s);
    struct peer *b = world_login(w, "ann", "db");
    peer_take(b);
    client_says_query(b, "begin");
    server_says_done(s, "BEGIN", STATUS_IN_TRANSACTION);
    client_says(a, "DBES", "mine", "");
    struct peer *s2 = world_serve_login(w);
    assert_non_null(s2);
    assert_string_equal(peer_take(s2), "PDBES");
    server_says(s2, "1n2CZ");
    assert_string_equal(peer_take(a), "n2CZ");
    world_free(w);
}

static void test_fakes_keep_their_place_in_the_stream(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);
    struct peer *s;

    (void)state;
    struct peer *a = first_client(w, &s);
    client_says(a, "PS", "one", "select 1");
    server_says(s, "1Z");
    peer_take(s);
    peer_take(a);
    client_says(a, "BE", "one", "");
    client_says(a, "P", "two", "select 1"); /* known: the server is not asked */
    client_says(a, "C", "one", "");
    client_says(a, "BES", "two", "");
    assert_string_equal(peer_take(s), "BEBES");
    assert_string_equal(peer_take(a), "");
    server_says(s, "2C");
    assert_string_equal(peer_take(a), "2C13");
    server_says(s, "2CZ");
    assert_string_equal(peer_take(a), "2CZ");
    world_free(w);
}

static void test_a_fake_behind_a_sync_is_answered_with_it(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);
    struct peer *s;

    (void)state;
    struct peer *a = first_client(w, &s);
    client_says(a, "PS", "one", "select 1");
    server_says(s, "1Z");
    peer_take(s);
    peer_take(a);
    client_says_query(a, "select 2");
    client_says(a, "PBES", "two", "select 1");
    assert_string_equal(peer_take(s), "QBES");
    server_says(s, "CZ");
    assert_string_equal(peer_take(a), "CZ1");
    server_says(s, "2CZ");
    assert_string_equal(peer_take(a), "2CZ");
    world_free(w);
}

static void test_a_failed_parse_leaves_the_name_unknown(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);
    struct peer *s;

    (void)state;
    struct peer *a = first_client(w, &s);
    client_says(a, "PBES", "x", "selec");
    peer_take(s);
    server_says_error(s, "42601", STATUS_IDLE);
    assert_string_equal(peer_take(a), "E(42601)Z");
    client_says(a, "PBES", "x", "select 1");
    assert_string_equal(peer_take(s), "PBES");
    server_says(s, "12CZ");
    assert_string_equal(peer_take(a), "12CZ");
    world_free(w);
}

static void test_an_error_drops_what_the_pipeline_still_owes(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);
    struct peer *s;

    (void)state;
    struct peer *a = first_client(w, &s);
    client_says(a, "PBE", "x", "select 1/0");
    client_says(a, "P", "y", "select 1");
    client_says(a, "BES", "y", "");
    client_says(a, "PBES", "z", "select 3");
    assert_string_equal(peer_take(s), "PBEPBESPBES");
    server_says(s, "12");
    server_says_error(s, "22012", STATUS_IDLE);
    assert_string_equal(peer_take(a), "12E(22012)Z");
    server_says(s, "12CZ");
    assert_string_equal(peer_take(a), "12CZ");
    assert_int_equal(peer_client(a)->state, CLIENT_IDLE);
    /* y never ran: it may be prepared again, and the server is asked. */
    client_says(a, "PS", "y", "select 1");
    assert_string_equal(peer_take(s), "PS");
    world_free(w);
}

static void test_messages_after_an_error_are_dropped_up_to_sync(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);
    struct peer *s;

    (void)state;
    struct peer *a = first_client(w, &s);
    client_says(a, "PBEH", "", "select 1/0");
    peer_take(s);
    server_says(s, "12");
    server_says_error(s, "22012", 0);
    client_says(a, "PBE", "k", "select 2");
    assert_string_equal(peer_take(s), "");
    client_says(a, "S", "", "");
    assert_string_equal(peer_take(s), "S");
    server_says(s, "Z");
    assert_string_equal(peer_take(a), "12E(22012)Z");
    assert_int_equal(peer_client(a)->state, CLIENT_IDLE);
    world_free(w);
}

static void test_a_name_in_use_fails_in_place_and_the_session_lives(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);
    struct peer *s;

    (void)state;
    struct peer *a = first_client(w, &s);
    client_says(a, "PS", "x", "select 1");
    server_says(s, "1Z");
    peer_take(s);
    peer_take(a);
    client_says(a, "PBES", "x", "select 2");
    assert_string_equal(peer_take(s), "PDS"); /* its text first, then what makes the server fail */
    server_says(s, "1");
    server_says_error(s, "26000", STATUS_IDLE);
    assert_string_equal(peer_take(a), "E(42P05)Z");
    client_says(a, "BES", "x", "");
    assert_string_equal(peer_take(s), "BES");
    world_free(w);
}

static void test_an_unknown_name_is_the_servers_to_refuse(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);
    struct peer *s;
    struct bytequeue seen = { 0 };

    (void)state;
    struct peer *a = first_client(w, &s);
    client_says(a, "BES", "nope", "");
    assert_string_equal(peer_take_copy(s, &seen), "BES");
    assert_string_equal(name_in(&seen, 'B', 0), "nope");
    bytequeue_free(&seen);
    server_says_error(s, "26000", STATUS_IDLE);
    assert_string_equal(peer_take(a), "E(26000)Z");
    world_free(w);
}

static void test_the_least_recently_used_statement_is_closed(void **state)
{
    struct world *w = world_new(TRANSACTION "max_prepared_statements = 2\n", USERS);
    struct peer *s;

    (void)state;
    struct peer *a = first_client(w, &s);
    client_says(a, "PS", "a", "select 1");
    server_says(s, "1Z");
    client_says(a, "PS", "b", "select 2");
    server_says(s, "1Z");
    client_says(a, "BES", "a", "");
    server_says(s, "2CZ");
    peer_take(s);
    peer_take(a);
    client_says(a, "PS", "c", "select 3");
    assert_string_equal(peer_take(s), "CPS");
    server_says(s, "31Z");
    assert_string_equal(peer_take(a), "1Z");
    client_says(a, "BES", "a", "");
    assert_string_equal(peer_take(s), "BES"); /* still there: b went */
    server_says(s, "2CZ");
    peer_take(a);
    client_says(a, "BES", "b", "");
    assert_string_equal(peer_take(s), "CPBES");
    world_free(w);
}

static void test_discard_all_forgets_statements(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);
    struct peer *s;

    (void)state;
    struct peer *a = first_client(w, &s);
    client_says(a, "PS", "x", "select 1");
    server_says(s, "1Z");
    client_says_query(a, "deallocate all");
    server_says_done(s, "DEALLOCATE ALL", STATUS_IDLE);
    peer_take(s);
    peer_take(a);
    client_says(a, "PS", "x", "select 1");
    assert_string_equal(peer_take(s), "PS");
    world_free(w);
}

/* ---- parameters ------------------------------------------------------------------------- */

static void test_parameters_are_set_once_and_take_the_servers_spelling(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);
    struct peer *s;
    struct bytequeue seen = { 0 }, q = { 0 };

    (void)state;
    first_client(w, &s);
    struct peer *b = world_startup(w, "ann", "db", "DateStyle", "German");
    peer_take(b);
    client_says_query(b, "select 1");
    assert_string_equal(peer_take_copy(s, &seen), "Q");
    assert_string_equal(bytequeue_str(&seen).ptr + 5, "SET \"DateStyle\"='German';");
    bytequeue_free(&seen);
    wire_encode_command_complete(&q, STR("SET"));
    wire_encode_parameter_status(&q, STR("DateStyle"), STR("German, DMY"));
    wire_encode_ready(&q, STATUS_IDLE);
    peer_send_queue(s, &q);
    assert_string_equal(peer_take(b), "");
    assert_string_equal(peer_take(s), "Q");
    server_says_done(s, "SELECT 1", STATUS_IDLE);
    assert_string_equal(peer_take(b), "CZ");
    client_says_query(b, "select 2");
    assert_string_equal(peer_take_copy(s, &seen), "Q");
    assert_string_equal(bytequeue_str(&seen).ptr + 5, "select 2");
    bytequeue_free(&seen);
    world_free(w);
}

static void test_a_set_of_one_client_does_not_reach_the_next(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);
    struct peer *s;
    struct bytequeue seen = { 0 }, q = { 0 };

    (void)state;
    struct peer *a = first_client(w, &s);
    struct peer *b = world_login(w, "ann", "db");
    peer_take(b);
    client_says_query(a, "set timezone = 'Asia/Tokyo'");
    wire_encode_command_complete(&q, STR("SET"));
    wire_encode_parameter_status(&q, STR("TimeZone"), STR("Asia/Tokyo"));
    wire_encode_ready(&q, STATUS_IDLE);
    peer_send_queue(s, &q);
    assert_string_equal(peer_take(a), "CSZ");
    peer_take(s);
    client_says_query(b, "select 1");
    assert_string_equal(peer_take_copy(s, &seen), "Q");
    assert_string_equal(bytequeue_str(&seen).ptr + 5, "SET \"TimeZone\"='UTC';");
    bytequeue_free(&seen);
    world_free(w);
}

/* ---- COPY ------------------------------------------------------------------------------- */

static void test_copy_in_keeps_the_server_until_it_is_over(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);
    struct peer *s;
    struct bytequeue q = { 0 };

    (void)state;
    struct peer *a = first_client(w, &s);
    client_says_query(a, "copy t from stdin");
    server_says(s, "G");
    assert_string_equal(peer_take(a), "G");
    wire_encode_copy_data(&q, STR("1\n"));
    wire_encode_copy_done(&q);
    peer_send_queue(a, &q);
    assert_string_equal(peer_take(s), "Qdc");
    assert_int_equal(peer_client(a)->state, CLIENT_ACTIVE);
    server_says(s, "CZ");
    assert_string_equal(peer_take(a), "CZ");
    assert_int_equal(peer_client(a)->state, CLIENT_IDLE);
    world_free(w);
}

static void test_copy_data_after_a_failed_copy_goes_nowhere(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);
    struct peer *s;
    struct bytequeue q = { 0 };

    (void)state;
    struct peer *a = first_client(w, &s);
    client_says_query(a, "copy t from stdin");
    server_says(s, "G");
    server_says_error(s, "22P02", STATUS_IDLE);
    assert_string_equal(peer_take(a), "GE(22P02)Z");
    peer_take(s);
    wire_encode_copy_data(&q, STR("1\n"));
    wire_encode_copy_done(&q);
    peer_send_queue(a, &q);
    assert_string_equal(peer_take(s), "");
    client_says_query(a, "select 1");
    assert_string_equal(peer_take(s), "Q");
    world_free(w);
}

/* libpq sends the Sync with the Execute, and another after CopyDone; the server ignores the first.
 */
static void test_extended_copy_answers_one_sync(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);
    struct peer *s;
    struct bytequeue q = { 0 };

    (void)state;
    struct peer *a = first_client(w, &s);
    client_says(a, "PBES", "", "copy t from stdin");
    server_says(s, "12G");
    wire_encode_copy_data(&q, STR("1\n"));
    wire_encode_copy_done(&q);
    wire_encode_sync(&q);
    peer_send_queue(a, &q);
    server_says(s, "CZ");
    assert_string_equal(peer_take(a), "12GCZ");
    assert_int_equal(peer_client(a)->state, CLIENT_IDLE);
    world_free(w);
}

/* ---- size ------------------------------------------------------------------------------- */

#define BIG (64u * 1024 * 1024)
#define BOUND (CONN_OUT_HIGH + 2 * CONN_READ_SIZE)

static void test_a_64_mb_row_streams_through_bounded_memory(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);
    struct peer *s;
    struct bytequeue q = { 0 };
    char *piece = mem_alloc(CONN_READ_SIZE);
    size_t sent = 0, received = 0, peak = 0, stalls = 0;

    (void)state;
    struct peer *a = first_client(w, &s);
    client_says_query(a, "select big");
    a->window = 0; /* it does not read */
    wire_put_header(&q, BE_DATA_ROW, BIG);
    peer_send_queue(s, &q);
    while (sent < BIG) {
        if (!s->reading) {
            stalls++;
            peer_open_window(a, 1024 * 1024);
            continue;
        }
        size_t n = BIG - sent < CONN_READ_SIZE ? BIG - sent : CONN_READ_SIZE;
        peer_send(s, piece, n);
        sent += n;
        size_t held = bytequeue_cap(&a->conn->out) + bytequeue_cap(&s->conn->in) +
                      bytequeue_cap(&a->conn->in) + bytequeue_cap(&s->conn->out);
        if (held > peak)
            peak = held;
        assert_true(bytequeue_len(&a->conn->out) <= BOUND);
        received += bytequeue_len(&a->got);
        bytequeue_consume(&a->got, bytequeue_len(&a->got));
    }
    assert_true(stalls > 0);
    assert_true(peak <= 4 * BOUND);
    peer_open_window(a, SIZE_MAX);
    received += bytequeue_len(&a->got);
    assert_int_equal(received, (size_t)BIG + 5);
    bytequeue_consume(&a->got, bytequeue_len(&a->got));
    server_says(s, "CZ");
    assert_string_equal(peer_take(a), "CZ");
    free(piece);
    world_free(w);
}

static void test_a_64_mb_query_streams_and_a_slow_server_pauses_its_client(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);
    struct peer *s;
    struct bytequeue q = { 0 };
    char *piece = mem_alloc(CONN_READ_SIZE);
    size_t sent = 0, arrived = 0;
    bool paused = false;

    (void)state;
    struct peer *a = first_client(w, &s);
    memset(piece, ' ', CONN_READ_SIZE);
    wire_put_header(&q, FE_QUERY, BIG);
    peer_send_queue(a, &q);
    s->window = 0;
    while (sent < BIG) {
        if (!a->reading) {
            paused = true;
            peer_open_window(s, 512 * 1024);
            arrived += bytequeue_len(&s->got);
            bytequeue_consume(&s->got, bytequeue_len(&s->got));
            continue;
        }
        size_t n = BIG - sent < CONN_READ_SIZE ? BIG - sent : CONN_READ_SIZE;
        if (sent + n == BIG)
            piece[n - 1] = '\0';
        peer_send(a, piece, n);
        sent += n;
        assert_true(bytequeue_len(&s->conn->out) + bytequeue_len(&a->conn->in) <=
                    BOUND + CONN_OUT_HIGH);
    }
    assert_true(paused);
    peer_open_window(s, SIZE_MAX);
    arrived += bytequeue_len(&s->got);
    assert_int_equal(arrived, (size_t)BIG + 5);
    bytequeue_consume(&s->got, bytequeue_len(&s->got));
    server_says(s, "CZ");
    assert_string_equal(peer_take(a), "CZ");
    free(piece);
    world_free(w);
}

static void test_a_named_statement_too_large_to_keep_fails_in_place(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);
    struct peer *s;
    struct bytequeue q = { 0 };
    const size_t size = 20u * 1024 * 1024;
    char *piece = mem_alloc(CONN_READ_SIZE);

    (void)state;
    struct peer *a = first_client(w, &s);
    memset(piece, ' ', CONN_READ_SIZE);
    wire_put_header(&q, FE_PARSE, (uint32_t)size);
    bytequeue_put(&q, "name", 5);
    peer_send_queue(a, &q);
    for (size_t sent = 5; sent < size; sent += CONN_READ_SIZE)
        peer_send(a, piece, size - sent < CONN_READ_SIZE ? size - sent : CONN_READ_SIZE);
    client_says(a, "BES", "name", "");
    assert_string_equal(peer_take(s), "DS");
    server_says_error(s, "26000", STATUS_IDLE);
    assert_string_equal(peer_take(a), "E(54000)Z");
    client_says_query(a, "select 1");
    assert_string_equal(peer_take(s), "Q");
    free(piece);
    world_free(w);
}

/* ---- cutting the stream must not matter --------------------------------------------------- */

static void session_by_pieces(size_t piece, struct bytequeue *to_server,
                              struct bytequeue *to_client)
{
    struct world *w = world_new(TRANSACTION, USERS);
    struct peer *s;
    struct bytequeue q = { 0 };
    struct peer *a = first_client(w, &s);

    wire_encode_parse(&q, STR("x"), STR("select 1"), NULL, 0);
    wire_encode_describe(&q, TARGET_STATEMENT, STR("x"));
    wire_encode_bind_text(&q, STR(""), STR("x"), NULL, 0);
    wire_encode_execute(&q, STR(""), 0);
    wire_encode_close(&q, TARGET_STATEMENT, STR("x"));
    wire_encode_sync(&q);
    wire_encode_query(&q, STR("select 2"));
    while (bytequeue_len(&q) > 0) {
        size_t n = bytequeue_len(&q) < piece ? bytequeue_len(&q) : piece;
        peer_send(a, bytequeue_str(&q).ptr, n);
        bytequeue_consume(&q, n);
    }
    bytequeue_free(&q);
    wire_put_empty(&q, BE_PARSE_COMPLETE);
    wire_encode_param_description(&q, NULL, 0);
    wire_encode_text_columns(&q, (const char *const[]){ "a" }, 1);
    wire_put_empty(&q, BE_BIND_COMPLETE);
    wire_encode_data_row(&q, (const struct str[]){ STR("1") }, 1);
    wire_encode_command_complete(&q, STR("SELECT 1"));
    wire_encode_ready(&q, STATUS_IDLE);
    wire_encode_command_complete(&q, STR("SELECT 2"));
    wire_encode_ready(&q, STATUS_IDLE);
    while (bytequeue_len(&q) > 0) {
        size_t n = bytequeue_len(&q) < piece ? bytequeue_len(&q) : piece;
        peer_send(s, bytequeue_str(&q).ptr, n);
        bytequeue_consume(&q, n);
    }
    bytequeue_free(&q);
    peer_take_copy(s, to_server);
    assert_string_equal(peer_take_copy(a, to_client), "1tT2DC3ZCZ");
    assert_int_equal(peer_client(a)->state, CLIENT_IDLE);
    world_free(w);
}

static void test_cuts_do_not_matter(void **state)
{
    struct bytequeue server_whole = { 0 }, client_whole = { 0 };

    (void)state;
    session_by_pieces(100000, &server_whole, &client_whole);
    for (size_t piece = 1; piece < 64; piece++) {
        struct bytequeue server = { 0 }, client = { 0 };
        session_by_pieces(piece, &server, &client);
        assert_true(str_equal(bytequeue_str(&server), bytequeue_str(&server_whole)));
        assert_true(str_equal(bytequeue_str(&client), bytequeue_str(&client_whole)));
        bytequeue_free(&server);
        bytequeue_free(&client);
    }
    bytequeue_free(&server_whole);
    bytequeue_free(&client_whole);
}

/* ---- nonsense --------------------------------------------------------------------------- */

static void test_nonsense_from_either_side_ends_that_side(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);
    struct peer *s;

    (void)state;
    struct peer *a = first_client(w, &s);
    struct peer *b = world_login(w, "ann", "db");
    peer_take(b);
    peer_send(b, "\377\377\377\377\377\377", 6);
    assert_null(b->conn);
    client_says_query(a, "select 1");
    peer_send(s, "!!!!!!!!", 8);
    assert_null(s->conn);
    assert_string_equal(peer_take(a), "E(08P01)");
    assert_null(a->conn);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ssl_request_is_declined_and_bytes_behind_it_are_fatal),
        cmocka_unit_test(test_protocol_3_2_is_spoken_newer_ones_negotiated_down_and_2_0_refused),
        cmocka_unit_test(test_unknown_startup_parameter_is_refused_where_that_is_wanted),
        cmocka_unit_test(test_options_set_followed_parameters),
        cmocka_unit_test(test_later_clients_need_no_server_to_log_in),
        cmocka_unit_test(test_a_failed_server_login_fails_its_waiters_with_the_servers_words),
        cmocka_unit_test(test_database_that_does_not_exist_is_told_after_login),
        cmocka_unit_test(test_transaction_mode_releases_at_idle_and_serves_the_first_waiter),
        cmocka_unit_test(test_session_mode_keeps_the_server_and_resets_it_after),
        cmocka_unit_test(test_statement_mode_refuses_transaction_blocks),
        cmocka_unit_test(test_timeouts_end_the_client_and_its_server),
        cmocka_unit_test(test_a_waiter_is_told_when_its_time_is_up),
        cmocka_unit_test(test_server_lifetime_closes_at_release_only),
        cmocka_unit_test(test_an_old_idle_server_is_probed_before_use),
        cmocka_unit_test(test_pause_closes_free_servers_and_holds_new_work),
        cmocka_unit_test(test_client_death_in_a_transaction_rolls_back),
        cmocka_unit_test(test_client_death_during_a_query_cancels_it_and_keeps_the_server),
        cmocka_unit_test(test_client_death_in_a_pipeline_is_drained_up_to_a_sync),
        cmocka_unit_test(test_a_server_that_does_not_come_clean_is_closed),
        cmocka_unit_test(test_draining_can_be_switched_off),
        cmocka_unit_test(test_server_death_ends_its_client_only),
        cmocka_unit_test(test_a_cancel_reaches_the_linked_server_and_blocks_its_reuse),
        cmocka_unit_test(test_a_cancel_of_a_waiting_client_answers_57014),
        cmocka_unit_test(test_a_wrong_cancel_key_does_nothing),
        cmocka_unit_test(test_equal_statements_are_parsed_once),
        cmocka_unit_test(test_a_server_that_lacks_the_statement_is_taught_unseen),
        cmocka_unit_test(test_fakes_keep_their_place_in_the_stream),
        cmocka_unit_test(test_a_fake_behind_a_sync_is_answered_with_it),
        cmocka_unit_test(test_a_failed_parse_leaves_the_name_unknown),
        cmocka_unit_test(test_an_error_drops_what_the_pipeline_still_owes),
        cmocka_unit_test(test_messages_after_an_error_are_dropped_up_to_sync),
        cmocka_unit_test(test_a_name_in_use_fails_in_place_and_the_session_lives),
        cmocka_unit_test(test_an_unknown_name_is_the_servers_to_refuse),
        cmocka_unit_test(test_the_least_recently_used_statement_is_closed),
        cmocka_unit_test(test_discard_all_forgets_statements),
        cmocka_unit_test(test_parameters_are_set_once_and_take_the_servers_spelling),
        cmocka_unit_test(test_a_set_of_one_client_does_not_reach_the_next),
        cmocka_unit_test(test_copy_in_keeps_the_server_until_it_is_over),
        cmocka_unit_test(test_copy_data_after_a_failed_copy_goes_nowhere),
        cmocka_unit_test(test_extended_copy_answers_one_sync),
        cmocka_unit_test(test_a_64_mb_row_streams_through_bounded_memory),
        cmocka_unit_test(test_a_64_mb_query_streams_and_a_slow_server_pauses_its_client),
        cmocka_unit_test(test_a_named_statement_too_large_to_keep_fails_in_place),
        cmocka_unit_test(test_cuts_do_not_matter),
        cmocka_unit_test(test_nonsense_from_either_side_ends_that_side),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
