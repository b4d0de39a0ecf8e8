/* What peers may not do, and what they may not make us keep. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/arena.h"
#include "protocol/copy.h"
#include "protocol/query_extended.h"
#include "protocol/query_simple.h"
#include "protocol/result.h"
#include "protocol/startup.h"
#include "protocol/status.h"
#include "tests/proxy/world.h"

#define USERS "\"ann\" \"secret\"\n\"bob\" \"secret\"\n"
#define TRANSACTION "auth_type = trust\npool_mode = transaction\ndefault_pool_size = 1\n"

static struct peer *first_client(struct world *w, struct peer **server)
{
    struct peer *c = world_login(w, "ann", "db");

    *server = world_serve_login(w);
    assert_non_null(*server);
    peer_take(*server);
    peer_take(c);
    return c;
}

static size_t held_by(const struct conn *c)
{
    return bytequeue_cap(&c->in) + bytequeue_cap(&c->out);
}

/* ---- sizes ------------------------------------------------------------------------------ */

static void test_a_message_beyond_max_packet_size_ends_the_session(void **state)
{
    struct world *w = world_new(TRANSACTION "max_packet_size = 1000\n", USERS);
    struct bytequeue q = { 0 };
    struct peer *s;
    char sql[1200];

    (void)state;
    struct peer *a = first_client(w, &s);
    memset(sql, ' ', sizeof(sql));
    wire_encode_query(&q, (struct str){ sql, 900 });
    peer_send_queue(a, &q);
    assert_string_equal(peer_take(s), "Q");
    server_says_done(s, "SELECT 1", 'I');
    assert_string_equal(peer_take(a), "CZ");
    /* The header is enough: nothing of it is kept or forwarded. */
    wire_put_header(&q, FE_BIND, 1000);
    peer_send_queue(a, &q);
    assert_string_equal(peer_take(a), "E(08P01)");
    assert_null(a->conn);
    assert_string_equal(peer_take(s), "");
    assert_non_null(s->conn);
    world_free(w);
}

static void test_startup_packets_have_bounds(void **state)
{
    static const unsigned char lengths[][4] = {
        { 0, 0, 0, 0 }, { 0, 0, 0, 7 }, { 0x7f, 0xff, 0xff, 0xff }, { 0xff, 0xff, 0xff, 0xff }
    };
    struct world *w = world_new(TRANSACTION, USERS);

    (void)state;
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        struct peer *p = world_accept(w);
        peer_send(p, lengths[i], 4);
        peer_send(p, "\0\3\0\0", 4);
        assert_null(p->conn);
    }
    world_free(w);
}

static void test_encryption_is_asked_for_once(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);
    struct bytequeue q = { 0 };

    (void)state;
    struct peer *p = world_accept(w);
    startup_encode_ssl_request(&q);
    peer_send_queue(p, &q);
    assert_int_equal(bytequeue_len(&p->got), 1);
    startup_encode_ssl_request(&q);
    peer_send_queue(p, &q);
    assert_null(p->conn);
    world_free(w);
}

/* ---- logins ----------------------------------------------------------------------------- */

static void test_logins_that_do_not_go_on_count_and_end(void **state)
{
    struct world *w =
        world_new("auth_type = md5\nmax_client_conn = 2\nclient_login_timeout = 5\n", USERS);

    (void)state;
    struct peer *a = world_startup(w, "ann", "db", NULL, NULL);
    struct peer *b = world_startup(w, "ann", "db", NULL, NULL);
    struct peer *silent = world_accept(w);
    assert_string_equal(peer_take(a), "R");
    assert_string_equal(peer_take(b), "R");
    struct peer *c = world_startup(w, "bob", "db", NULL, NULL);
    assert_string_equal(peer_take(c), "E(53300)");
    assert_null(c->conn);
    world_sleep(w, 6);
    assert_null(a->conn);
    assert_null(b->conn);
    assert_null(silent->conn);
    struct peer *d = world_startup(w, "bob", "db", NULL, NULL);
    assert_string_equal(peer_take(d), "R");
    world_free(w);
}

/* ---- what is kept ----------------------------------------------------------------------- */

static void test_an_idle_client_keeps_no_buffer(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);
    struct bytequeue q = { 0 };
    struct peer *s;
    size_t size = 200000;
    char *value = mem_alloc(size);

    (void)state;
    struct peer *a = first_client(w, &s);
    a->window = 1000;
    for (int i = 0; i < 3; i++) {
        memset(value, 'x', size);
        wire_encode_query(&q, (struct str){ value, size });
        while (bytequeue_len(&q) > 0) { /* in two halves, the first cut within the header */
            size_t n = bytequeue_len(&q) > size ? 3 : bytequeue_len(&q);
            peer_send(a, bytequeue_str(&q).ptr, n);
            bytequeue_consume(&q, n);
        }
        bytequeue_consume(&s->got, bytequeue_len(&s->got));
        struct str row = { value, size };
        wire_encode_data_row(&q, &row, 1);
        wire_encode_command_complete(&q, STR("SELECT 1"));
        wire_encode_ready(&q, STATUS_IDLE);
        peer_send_queue(s, &q);
        peer_open_window(a, SIZE_MAX);
        peer_take(a);
        a->window = 1000;
    }
    assert_int_equal(held_by(a->conn), 0);
    assert_int_equal(held_by(s->conn), 0);
    bytequeue_free(&q);
    free(value);
    world_free(w);
}

static void test_a_waiting_client_is_read_ahead_a_little(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);
    struct peer *s;
    char row[1000];
    struct bytequeue q = { 0 };
    size_t sent = 0;

    (void)state;
    memset(row, 'x', sizeof(row));
    struct peer *a = first_client(w, &s);
    struct peer *b = world_login(w, "ann", "db");
    peer_take(b);
    client_says_query(a, "begin");
    while (b->reading && sent < 10000000) {
        wire_encode_query(&q, (struct str){ row, sizeof(row) });
        sent += bytequeue_len(&q);
        peer_send_queue(b, &q);
    }
    assert_false(b->reading);
    assert_in_range(held_by(b->conn), 1, 4 * CONN_HELD_MAX);
    bytequeue_free(&q);
    world_free(w);
}

/* ---- out of order ----------------------------------------------------------------------- */

static void test_disable_pqexec_leaves_the_extended_protocol(void **state)
{
    struct world *w = world_new(TRANSACTION "disable_pqexec = 1\n", USERS);
    struct bytequeue q = { 0 };
    struct peer *s;

    (void)state;
    struct peer *a = first_client(w, &s);
    wire_encode_parse(&q, STR(""), STR("select 1"), NULL, 0);
    wire_encode_sync(&q);
    peer_send_queue(a, &q);
    assert_string_equal(peer_take(s), "PS");
    wire_put_empty(&q, BE_PARSE_COMPLETE);
    wire_encode_ready(&q, STATUS_IDLE);
    peer_send_queue(s, &q);
    assert_string_equal(peer_take(a), "1Z");
    client_says_query(a, "select 1");
    assert_string_equal(peer_take(a), "E(08P01)");
    assert_null(a->conn);
    assert_string_equal(peer_take(s), "");
    world_free(w);
}

/* Each in a session of its own, idle and in a transaction. */
static void test_messages_that_no_client_sends_now_end_the_session_only(void **state)
{
    static const char *const never[] = { "p", "\1", "Z", "R", "T" };

    (void)state;
    for (size_t i = 0; i < sizeof(never) / sizeof(never[0]); i++) {
        for (int in_block = 0; in_block < 2; in_block++) {
            struct world *w = world_new(TRANSACTION, USERS);
            struct bytequeue q = { 0 };
            struct peer *s;
            struct peer *a = first_client(w, &s);
            if (in_block) {
                client_says_query(a, "begin");
                server_says_done(s, "BEGIN", 'T');
                peer_take(a);
            }
            wire_put_empty(&q, never[i][0]);
            peer_send_queue(a, &q);
            assert_string_equal(peer_take(a), "E(08P01)");
            assert_null(a->conn);
            struct peer *b = world_login(w, "ann", "db");
            assert_string_equal(peer_take(b), "RSSSSSSSKZ");
            client_says_query(b, "select 1");
            if (in_block)
                server_says_done(s, "ROLLBACK", 'I');
            assert_non_null(s);
            peer_take(s);
            server_says_done(s, "SELECT 1", 'I');
            assert_string_equal(peer_take(b), "CZ");
            bytequeue_free(&q);
            world_free(w);
        }
    }
}

/* What a server says behind its ReadyForQuery, in the same read, is nobody's: the next client, who
 * is linked in that moment, must not take it for an answer to what it has not even sent. */
static void test_a_reply_nobody_asked_for_reaches_nobody(void **state)
{
    static const char *const extra[] = { "D", "C", "T", "1", "2", "n", "I", "Z", "G", "c" };

    (void)state;
    for (size_t i = 0; i < sizeof(extra) / sizeof(extra[0]); i++) {
        struct world *w = world_new(TRANSACTION, USERS);
        struct bytequeue q = { 0 };
        struct peer *s;
        struct peer *a = first_client(w, &s);
        struct peer *b = world_login(w, "ann", "db");
        peer_take(b);
        client_says_query(a, "select 1");
        client_says_query(b, "select 2");
        wire_encode_command_complete(&q, STR("SELECT 1"));
        wire_encode_ready(&q, STATUS_IDLE);
        switch (extra[i][0]) {
        case 'D':
            wire_encode_data_row(&q, NULL, 0);
            break;
        case 'C':
            wire_encode_command_complete(&q, STR("SELECT 1"));
            break;
        case 'T':
            wire_encode_text_columns(&q, (const char *const[]){ "a" }, 1);
            break;
        case 'Z':
            wire_encode_ready(&q, STATUS_IDLE);
            break;
        case 'G':
            wire_encode_copy_response(&q, BE_COPY_IN_RESPONSE, false, 1);
            break;
        default:
            wire_put_empty(&q, extra[i][0]);
        }
        peer_send_queue(s, &q);
        assert_string_equal(peer_take(a), "CZ");
        assert_non_null(a->conn);
        assert_null(s->conn);
        const char *got = peer_take(b);
        if (strcmp(got, "") != 0)
            assert_string_equal(got, "E(08P01)");
        bytequeue_free(&q);
        world_free(w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_message_beyond_max_packet_size_ends_the_session),
        cmocka_unit_test(test_startup_packets_have_bounds),
        cmocka_unit_test(test_encryption_is_asked_for_once),
        cmocka_unit_test(test_logins_that_do_not_go_on_count_and_end),
        cmocka_unit_test(test_an_idle_client_keeps_no_buffer),
        cmocka_unit_test(test_a_waiting_client_is_read_ahead_a_little),
        cmocka_unit_test(test_disable_pqexec_leaves_the_extended_protocol),
        cmocka_unit_test(test_messages_that_no_client_sends_now_end_the_session_only),
        cmocka_unit_test(test_a_reply_nobody_asked_for_reaches_nobody),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
