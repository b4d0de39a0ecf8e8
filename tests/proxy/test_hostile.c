/* Peers that mean harm: what one client or server does must end with itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/arena.h"
#include "protocol/auth.h"
#include "protocol/copy.h"
#include "protocol/notice.h"
#include "protocol/query_extended.h"
#include "protocol/query_simple.h"
#include "protocol/result.h"
#include "protocol/scram.h"
#include "protocol/status.h"
#include "tests/proxy/world.h"

#define USERS "\"ann\" \"secret\"\n"
#define TRANSACTION "auth_type = trust\npool_mode = transaction\ndefault_pool_size = 1\n"
#define BIG 100000 /* bytes: more than is kept of a message that is looked at */

/* Two clients of a pool with one server. */
struct two {
    struct world *w;
    struct peer *a;
    struct peer *b;
    struct peer *s;
};

static struct two two_clients(const char *ini)
{
    struct two t = { .w = world_new(ini, USERS) };

    t.a = world_login(t.w, "ann", "db");
    t.s = world_serve_login(t.w);
    assert_non_null(t.s);
    t.b = world_login(t.w, "ann", "db");
    peer_take(t.a);
    peer_take(t.b);
    peer_take(t.s);
    return t;
}

/* Messages with an empty body, and some with one that is always the same. */
static void server_says(struct peer *s, const char *tags)
{
    struct bytequeue q = { 0 };

    for (; *tags != '\0'; tags++) {
        if (*tags == 'C')
            wire_encode_command_complete(&q, STR("SELECT 1"));
        else if (*tags == 'G')
            wire_encode_copy_response(&q, BE_COPY_IN_RESPONSE, false, 1);
        else if (*tags == 'Z')
            wire_encode_ready(&q, STATUS_IDLE);
        else if (*tags == 'E')
            notice_encode_error(&q, "ERROR", "22P02", "no");
        else
            wire_put_empty(&q, *tags);
    }
    peer_send_queue(s, &q);
}

/* P B E H S with the unnamed statement, d c as in COPY, Q. */
static void put(struct bytequeue *q, const char *tags)
{
    for (; *tags != '\0'; tags++) {
        switch (*tags) {
        case 'P':
            wire_encode_parse(q, STR(""), STR("insert into t values (1)"), NULL, 0);
            break;
        case 'B':
            wire_encode_bind_text(q, STR(""), STR(""), NULL, 0);
            break;
        case 'E':
            wire_encode_execute(q, STR(""), 0);
            break;
        case 'H':
            wire_encode_flush(q);
            break;
        case 'S':
            wire_encode_sync(q);
            break;
        case 'd':
            wire_encode_copy_data(q, STR("x\n"));
            break;
        case 'c':
            wire_encode_copy_done(q);
            break;
        case 'Q':
            wire_encode_query(q, STR("copy t from stdin"));
            break;
        default:
            fail();
        }
    }
}

static void client_says(struct peer *c, const char *tags)
{
    struct bytequeue q = { 0 };

    put(&q, tags);
    peer_send_queue(c, &q);
}

/* The other client gets the server, and its own answer. */
static void assert_b_is_served(struct two *t)
{
    client_says_query(t->b, "select 1");
    assert_string_equal(peer_take(t->s), "Q");
    assert_string_equal(peer_take(t->b), "");
    server_says_done(t->s, "SELECT 1", STATUS_IDLE);
    assert_string_equal(peer_take(t->b), "CZ");
}

/* ---- clients ---------------------------------------------------------------------------- */

/* Without a Sync the server is still in the transaction that the Execute began: the next client
 * would commit it. */
static void test_unsynced_work_of_a_client_that_went_is_rolled_back(void **state)
{
    struct two t = two_clients(TRANSACTION);

    (void)state;
    client_says(t.a, "PBEH");
    assert_string_equal(peer_take(t.s), "PBEH");
    server_says(t.s, "12C");
    assert_string_equal(peer_take(t.a), "12C");
    client_says_query(t.b, "select 1");
    peer_hang_up(t.a);
    assert_string_equal(peer_take(t.s), "DS"); /* a Describe that fails */
    server_says(t.s, "EZ");
    assert_string_equal(peer_take(t.b), "");
    assert_string_equal(peer_take(t.s), "Q");
    server_says_done(t.s, "SELECT 1", STATUS_IDLE);
    assert_string_equal(peer_take(t.b), "CZ");
    world_free(t.w);
}

/* The same in session mode, where DISCARD ALL would be sent. */
static void test_unsynced_work_is_rolled_back_before_the_reset(void **state)
{
    struct two t = two_clients("auth_type = trust\npool_mode = session\ndefault_pool_size = 1\n");

    (void)state;
    client_says(t.a, "PBEH");
    peer_take(t.s);
    server_says(t.s, "12C");
    peer_hang_up(t.a);
    assert_string_equal(peer_take(t.s), "DS");
    server_says(t.s, "EZ");
    assert_string_equal(peer_take(t.s), "Q");
    world_free(t.w);
}

static void test_a_drain_does_not_end_a_client_in_front_of_its_sync(void **state)
{
    struct two t = two_clients(TRANSACTION);

    (void)state;
    client_says(t.a, "PBEH");
    server_says(t.s, "12C");
    assert_string_equal(peer_take(t.a), "12C");
    client_end_at_boundary(peer_client(t.a));
    world_settle(t.w);
    assert_string_equal(peer_take(t.a), "");
    client_says(t.a, "S");
    server_says(t.s, "Z");
    assert_string_equal(peer_take(t.a), "Z");
    world_free(t.w);
}

/* A message of which only the beginning came, and is refused; its end looks like messages. */
static void refuse_in_pieces(const char *ini, char tag, const char *begins, size_t begin_len)
{
    struct two t = two_clients(ini);
    struct bytequeue forged = { 0 }, q = { 0 };

    wire_encode_query(&forged, STR("drop table t"));
    wire_encode_sync(&forged);
    size_t rest = bytequeue_len(&forged);
    struct wire_mark m = wire_begin(&q, (uint8_t)tag);
    wire_put_str(&q, (struct str){ begins, begin_len });
    for (size_t i = begin_len; i < BIG; i++)
        wire_put_u8(&q, ' ');
    wire_put_str(&q, bytequeue_str(&forged));
    wire_end(&q, m);
    peer_send(t.a, bytequeue_str(&q).ptr, bytequeue_len(&q) - rest);
    assert_string_equal(peer_take(t.s), "D"); /* fails in its place */
    peer_send(t.a, bytequeue_str(&forged).ptr, rest);
    assert_string_equal(peer_take(t.s), "");
    client_says(t.a, "S");
    assert_string_equal(peer_take(t.s), "S");
    server_says(t.s, "EZ");
    peer_take(t.a);
    assert_int_equal(peer_client(t.a)->state, CLIENT_IDLE);
    assert_b_is_served(&t);
    bytequeue_free(&forged);
    bytequeue_free(&q);
    world_free(t.w);
}

static void test_nothing_of_a_refused_bind_reaches_the_server(void **state)
{
    (void)state;
    refuse_in_pieces(TRANSACTION, 'B', "\0\0", 2); /* of an unnamed statement that is not there */
}

static void test_nothing_of_a_refused_parse_reaches_the_server(void **state)
{
    static const char begins[] = "\0create temp table t (a int) --";

    (void)state;
    refuse_in_pieces(TRANSACTION "session_state = error\n", 'P', begins, sizeof(begins) - 1);
}

/* In COPY the server does not answer a Sync, but the COPY may have failed meanwhile: then it does,
 * and that would be taken for the end of the next client's query. */
static void test_a_sync_in_the_middle_of_copy_is_not_sent(void **state)
{
    struct two t = two_clients(TRANSACTION);

    (void)state;
    client_says(t.a, "Q");
    server_says(t.s, "G");
    peer_take(t.s);
    client_says(t.a, "dS");
    assert_string_equal(peer_take(t.s), "d");
    server_says(t.s, "EZ");
    assert_string_equal(peer_take(t.a), "GE(22P02)Z");
    assert_b_is_served(&t);
    world_free(t.w);
}

/* The data was sent before the server asked for it: the COPY is over when it begins, and the Sync
 * behind it counts. */
static void test_a_sync_behind_data_that_came_early_is_answered(void **state)
{
    struct two t = two_clients(TRANSACTION);

    (void)state;
    client_says(t.a, "QdcS");
    assert_string_equal(peer_take(t.s), "QdcS");
    server_says(t.s, "GCZ");
    assert_string_equal(peer_take(t.a), "GCZ");
    assert_int_equal(peer_client(t.a)->state, CLIENT_ACTIVE);
    server_says(t.s, "Z");
    assert_string_equal(peer_take(t.a), "Z");
    assert_b_is_served(&t);

    client_says(t.a, "Qdc");
    server_says(t.s, "G");
    client_says(t.a, "S");
    assert_string_equal(peer_take(t.s), "QdcS");
    server_says(t.s, "CZ");
    assert_string_equal(peer_take(t.a), "GCZ");
    assert_int_equal(peer_client(t.a)->state, CLIENT_ACTIVE);
    server_says(t.s, "Z");
    assert_string_equal(peer_take(t.a), "Z");
    assert_b_is_served(&t);
    world_free(t.w);
}

static void test_extended_copy_with_early_data_ends_with_its_second_sync(void **state)
{
    struct two t = two_clients(TRANSACTION);

    (void)state;
    client_says(t.a, "PBESdcS");
    assert_string_equal(peer_take(t.s), "PBESdcS");
    server_says(t.s, "12GCZ");
    assert_string_equal(peer_take(t.a), "12GCZ");
    assert_int_equal(peer_client(t.a)->state, CLIENT_IDLE);
    assert_b_is_served(&t);
    world_free(t.w);
}

/* The name that the server has it by can be guessed. */
static void test_a_statement_of_another_client_is_not_there(void **state)
{
    struct two t = two_clients(TRANSACTION);
    struct bytequeue q = { 0 }, sent = { 0 };
    struct wire_frame f;

    (void)state;
    wire_encode_parse(&q, STR("s1"), STR("select 'mine'"), NULL, 0);
    wire_encode_sync(&q);
    peer_send_queue(t.a, &q);
    assert_string_equal(peer_take_copy(t.s, &sent), "PS");
    assert_int_equal(wire_next_frame(SENT_BY_FRONTEND, bytequeue_str(&sent), &f), WIRE_FRAME);
    server_says(t.s, "1Z");
    wire_encode_bind_text(&q, STR(""), str_from(f.body.ptr), NULL, 0);
    wire_encode_execute(&q, STR(""), 0);
    wire_encode_sync(&q);
    peer_send_queue(t.b, &q);
    assert_string_equal(peer_take(t.s), "DS");
    server_says(t.s, "EZ");
    assert_string_equal(peer_take(t.b), "E(26000)Z");
    bytequeue_free(&sent);
    world_free(t.w);
}

/* ---- servers ---------------------------------------------------------------------------- */

static struct peer *server_connects(struct world *w)
{
    struct peer *s = world_next_connect(w);

    assert_non_null(s);
    peer_connected(s);
    bytequeue_consume(&s->got, bytequeue_len(&s->got));
    return s;
}

static void put_welcome(struct bytequeue *q)
{
    wire_encode_parameter_status(q, STR("server_version"), STR("15.4"));
    wire_encode_backend_key(q, 4711, (struct str){ "\1\2\3\4", 4 });
    wire_encode_ready(q, STATUS_IDLE);
}

/* server_tls_channel_binding = require is looked at when the server says that we are in: it must
 * not get round that by saying nothing. */
static void test_a_server_that_asks_for_nothing_is_not_believed(void **state)
{
    struct world *w = world_new("auth_type = trust\n", USERS);
    struct bytequeue q = { 0 };

    (void)state;
    struct peer *a = world_login(w, "ann", "db");
    struct peer *s = server_connects(w);
    put_welcome(&q);
    peer_send_queue(s, &q);
    assert_null(s->conn);
    assert_string_equal(peer_take(a), "E(08P01)");
    world_free(w);
}

static void test_a_server_has_to_end_the_exchange_that_it_began(void **state)
{
    struct world *w = world_new("auth_type = trust\n", USERS);
    struct bytequeue q = { 0 };

    (void)state;
    struct peer *a = world_login(w, "ann", "db");
    struct peer *s = server_connects(w);
    auth_encode_sasl(&q, (const char *const[]){ SCRAM_MECHANISM, NULL });
    peer_send_queue(s, &q);
    assert_string_equal(peer_take(s), "p");
    auth_encode_ok(&q);
    put_welcome(&q);
    peer_send_queue(s, &q);
    assert_null(s->conn);
    assert_string_equal(peer_take(a), "E(08P01)");
    world_free(w);
}

static void test_a_server_that_never_ends_its_parameters_is_left(void **state)
{
    struct world *w = world_new("auth_type = trust\n", USERS);
    struct bytequeue q = { 0 };
    static char value[60000];

    (void)state;
    memset(value, 'x', sizeof(value) - 1);
    world_login(w, "ann", "db");
    struct peer *s = server_connects(w);
    auth_encode_ok(&q);
    peer_send_queue(s, &q);
    for (int i = 0; i < 20 && s->conn != NULL; i++) {
        wire_encode_parameter_status(&q, STR("unheard_of"), str_from(value));
        peer_send_queue(s, &q);
    }
    assert_null(s->conn);
    world_free(w);
}

/* The NOTICE comes while a Parse is owed that the client does not see, and its end behind that. */
static void test_a_long_notice_stays_in_one_piece(void **state)
{
    struct two t = two_clients(TRANSACTION "max_prepared_statements = 1\n");
    struct bytequeue q = { 0 };
    char *text = malloc(BIG + 1);

    (void)state;
    memset(text, 'x', BIG);
    text[BIG] = '\0';
    wire_encode_parse(&q, STR("s1"), STR("select 1"), NULL, 0);
    wire_encode_parse(&q, STR("s2"), STR("select 2"), NULL, 0);
    wire_encode_sync(&q);
    peer_send_queue(t.a, &q);
    assert_string_equal(peer_take(t.s), "PCPS");
    server_says(t.s, "131Z");
    assert_string_equal(peer_take(t.a), "11Z");
    wire_encode_bind_text(&q, STR(""), STR("s1"), NULL, 0);
    wire_encode_execute(&q, STR(""), 0);
    wire_encode_sync(&q);
    peer_send_queue(t.a, &q);
    assert_string_equal(peer_take(t.s), "CPBES");
    notice_encode_notice(&q, "NOTICE", "00000", "%s", text);
    server_says(t.s, "3");
    peer_send(t.s, bytequeue_str(&q).ptr, BIG - 1000);
    bytequeue_consume(&q, BIG - 1000);
    peer_send_queue(t.s, &q);
    server_says(t.s, "12CZ");
    assert_string_equal(peer_take(t.a), "N2CZ");
    assert_b_is_served(&t);
    free(text);
    world_free(t.w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unsynced_work_of_a_client_that_went_is_rolled_back),
        cmocka_unit_test(test_unsynced_work_is_rolled_back_before_the_reset),
        cmocka_unit_test(test_a_drain_does_not_end_a_client_in_front_of_its_sync),
        cmocka_unit_test(test_nothing_of_a_refused_bind_reaches_the_server),
        cmocka_unit_test(test_nothing_of_a_refused_parse_reaches_the_server),
        cmocka_unit_test(test_a_sync_in_the_middle_of_copy_is_not_sent),
        cmocka_unit_test(test_a_sync_behind_data_that_came_early_is_answered),
        cmocka_unit_test(test_extended_copy_with_early_data_ends_with_its_second_sync),
        cmocka_unit_test(test_a_statement_of_another_client_is_not_there),
        cmocka_unit_test(test_a_server_that_asks_for_nothing_is_not_believed),
        cmocka_unit_test(test_a_server_has_to_end_the_exchange_that_it_began),
        cmocka_unit_test(test_a_server_that_never_ends_its_parameters_is_left),
        cmocka_unit_test(test_a_long_notice_stays_in_one_piece),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
