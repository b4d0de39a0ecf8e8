/* Cancel keys and what becomes of a CancelRequest. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/arena.h"
#include "protocol/auth.h"
#include "protocol/startup.h"
#include "protocol/status.h"
#include "proxy/cancel_key.h"
#include "tests/proxy/world.h"

#define USERS "\"ann\" \"\"\n\"bob\" \"\"\n"
#define TRANSACTION "auth_type = trust\npool_mode = transaction\ndefault_pool_size = 1\n"

/* ---- keys ------------------------------------------------------------------------------- */

static struct cancel_key key_of(unsigned char fill, uint8_t len, int peer_id)
{
    struct cancel_key k;

    memset(k.bytes, fill, sizeof(k.bytes));
    cancel_key_finish(&k, len, peer_id);
    return k;
}

static void test_a_key_says_its_peer_where_pgbouncer_looks_for_it(void **state)
{
    struct cancel_key k = key_of(0xff, CANCEL_KEY_SHORT, 0x1234);

    (void)state;
    assert_memory_equal(k.bytes, "\x7f\x34\x12\xff\xff\xff\xff\xff", 8);
    assert_int_equal(cancel_key_peer(&k), 0x1234);
    k = key_of(0, CANCEL_KEY_SHORT, 3);
    assert_memory_equal(k.bytes, "\0\3\0\0\0\0\0\3", 8);
}

static void test_a_key_is_forwarded_three_times(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct cancel_key k = key_of(0xaa, i == 0 ? CANCEL_KEY_SHORT : CANCEL_KEY_LONG, 1);
        struct cancel_key original = k;
        for (int n = 0; n < 3; n++) {
            assert_true(cancel_key_forward(&k));
            assert_true(cancel_key_equal(&k, &original));
            assert_int_equal(cancel_key_hash(&k, 7), cancel_key_hash(&original, 7));
        }
        assert_false(cancel_key_forward(&k));
        assert_true(cancel_key_equal(&k, &original));
    }
}

static void test_keys_that_differ_in_one_bit_differ(void **state)
{
    (void)state;
    for (int i = 0; i < CANCEL_KEY_LONG * 8; i++) {
        struct cancel_key a = key_of(0x5a, CANCEL_KEY_LONG, 0);
        struct cancel_key b = a;
        b.bytes[i / 8] ^= (unsigned char)(1 << i % 8);
        bool counts_forwards = i / 8 == CANCEL_KEY_LONG - 1 && i % 8 < 2;
        assert_int_equal(cancel_key_equal(&a, &b), counts_forwards);
    }
    struct cancel_key a = key_of(1, CANCEL_KEY_LONG, 0);
    struct cancel_key b = key_of(1, CANCEL_KEY_SHORT, 0);
    assert_false(cancel_key_equal(&a, &b));
}

static void test_a_key_survives_the_wire(void **state)
{
    struct cancel_key k, back;

    (void)state;
    for (int i = 0; i < CANCEL_KEY_LONG; i++)
        k.bytes[i] = (unsigned char)(i * 37 + 200);
    cancel_key_finish(&k, CANCEL_KEY_LONG, 513);
    assert_true(cancel_key_from_wire(&back, cancel_key_pid(&k), cancel_key_secret(&k)));
    assert_memory_equal(&back, &k, sizeof(k));
    assert_false(cancel_key_from_wire(&back, 1, STR("")));
    assert_false(cancel_key_from_wire(&back, 1, STR("12345")));
    static const char longest[256];
    assert_false(cancel_key_from_wire(&back, 1, (struct str){ longest, sizeof(longest) }));
}

/* ---- what a client gets ----------------------------------------------------------------- */

/* The key in the login that p took. */
static struct cancel_key take_key(struct peer *p)
{
    struct bytequeue seen = { 0 };
    struct cancel_key k = { .len = 0 };
    struct wire_frame f;

    peer_take_copy(p, &seen);
    struct str rest = bytequeue_str(&seen);
    while (rest.len > 0 && wire_next_frame(SENT_BY_BACKEND, rest, &f) == WIRE_FRAME) {
        int32_t pid;
        struct str secret;
        if (f.tag == BE_BACKEND_KEY_DATA) {
            assert_true(wire_decode_backend_key(f.body, &pid, &secret));
            assert_true(cancel_key_from_wire(&k, pid, secret));
        }
        rest.ptr += f.bytes.len;
        rest.len -= f.bytes.len;
    }
    bytequeue_free(&seen);
    return k;
}

static struct peer *start(struct world *w, uint16_t minor)
{
    struct peer *c = world_accept(w);
    struct bytequeue q = { 0 };
    struct wire_mark m = startup_encode_begin(&q, 3, minor);

    startup_encode_param(&q, STR("user"), STR("ann"));
    startup_encode_param(&q, STR("database"), STR("db"));
    startup_encode_end(&q, m);
    peer_send_queue(c, &q);
    return c;
}

static struct peer *cancel_with(struct world *w, const struct cancel_key *k)
{
    struct bytequeue q = { 0 };
    struct peer *p = world_accept(w);

    startup_encode_cancel(&q, cancel_key_pid(k), cancel_key_secret(k));
    peer_send_queue(p, &q);
    return p;
}

static void test_clients_of_3_2_get_a_long_key_that_works(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);

    (void)state;
    struct peer *old = start(w, 0);
    struct peer *s = world_serve_login(w);
    struct peer *new = start(w, 2);
    assert_int_equal(take_key(old).len, CANCEL_KEY_SHORT);
    struct cancel_key k = take_key(new);
    assert_int_equal(k.len, CANCEL_KEY_LONG);
    client_says_query(new, "select 1");
    peer_take(s);
    struct peer *canceller = cancel_with(w, &k);
    struct peer *to_server = world_next_connect(w);
    assert_non_null(to_server);
    peer_connected(to_server);
    peer_hang_up(to_server);
    assert_null(canceller->conn);
    /* The first eight bytes alone are no key. */
    k.len = CANCEL_KEY_SHORT;
    assert_null(cancel_with(w, &k)->conn);
    assert_null(world_next_connect(w));
    world_free(w);
}

/* ---- bounds ----------------------------------------------------------------------------- */

static struct cancel_key key_of_client(struct peer *c)
{
    return client_cancel_key(peer_client(c));
}

static void test_cancels_and_servers_are_at_most_twice_the_pool(void **state)
{
    struct world *w = world_new(TRANSACTION "cancel_wait_timeout = 3\n", USERS);
    struct peer *cancellers[5];

    (void)state;
    struct peer *a = start(w, 0);
    struct peer *s = world_serve_login(w);
    client_says_query(a, "select pg_sleep(1)");
    struct cancel_key k = key_of_client(a);
    for (int i = 0; i < 5; i++)
        cancellers[i] = cancel_with(w, &k);
    struct peer *first = world_next_connect(w);
    assert_non_null(first);
    assert_null(world_next_connect(w)); /* one server and one cancel: two */
    assert_string_equal(client_state_name(peer_client(cancellers[0])), "active_cancel_req");
    assert_string_equal(client_state_name(peer_client(cancellers[1])), "waiting_cancel_req");

    /* One ends: the next begins. */
    peer_connected(first);
    peer_hang_up(first);
    assert_null(cancellers[0]->conn);
    struct peer *second = world_next_connect(w);
    assert_non_null(second);
    assert_null(world_next_connect(w));
    /* A canceller that goes gives its turn up. */
    peer_hang_up(cancellers[2]);
    /* The others are told nothing and wait no longer than they may. */
    world_sleep(w, 3.1);
    assert_non_null(cancellers[1]->conn);
    assert_null(cancellers[3]->conn);
    assert_null(cancellers[4]->conn);
    assert_non_null(s->conn);
    peer_connected(second);
    peer_hang_up(second);
    assert_null(world_next_connect(w));
    world_free(w);
}

static void test_waiting_cancels_are_dropped_when_the_query_is_over(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);

    (void)state;
    struct peer *a = start(w, 0);
    struct peer *s = world_serve_login(w);
    struct peer *b = world_login(w, "ann", "db");
    client_says_query(a, "select pg_sleep(1)");
    struct cancel_key k = key_of_client(a);
    struct peer *sent = cancel_with(w, &k);
    struct peer *queued = cancel_with(w, &k);
    struct peer *to_server = world_next_connect(w);
    client_says_query(b, "select 2");
    peer_take(s);
    server_says_done(s, "SELECT 1", STATUS_IDLE);
    assert_null(queued->conn);
    assert_non_null(sent->conn);
    assert_string_equal(peer_take(s), "");
    peer_connected(to_server);
    peer_hang_up(to_server);
    assert_string_equal(peer_take(s), "Q");
    assert_null(world_next_connect(w));
    world_free(w);
}

/* Of a client that left, with no room for it: it must not wait for the next client's statement. */
static void test_our_own_waiting_cancel_goes_with_its_query(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);

    (void)state;
    struct peer *a = start(w, 0);
    struct peer *s = world_serve_login(w);
    struct peer *b = world_startup(w, "ann", "db", "application_name", "other");
    client_says_query(a, "select pg_sleep(1)");
    struct cancel_key k = key_of_client(a);
    cancel_with(w, &k);
    struct peer *to_server = world_next_connect(w);
    peer_connected(to_server);
    struct pool *pool = peer_client(b)->pool;
    client_says_query(b, "select 2");
    peer_hang_up(a);
    assert_int_equal(pool->cancels_queued.count, 1);
    peer_take(s);
    server_says_done(s, "SELECT 1", STATUS_IDLE);
    assert_int_equal(pool->cancels_queued.count, 0);
    peer_hang_up(to_server);
    assert_string_equal(peer_take(s), "Q"); /* b's settings */
    server_says_done(s, "SET", STATUS_IDLE);
    assert_string_equal(peer_take(s), "Q");
    assert_null(world_next_connect(w));
    world_free(w);
}

static void test_a_cancel_waits_until_parameters_are_set(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);
    struct bytequeue q = { 0 };

    (void)state;
    struct peer *a = world_accept(w);
    struct wire_mark m = startup_encode_begin(&q, 3, 0);
    startup_encode_param(&q, STR("user"), STR("ann"));
    startup_encode_param(&q, STR("database"), STR("db"));
    startup_encode_param(&q, STR("timezone"), STR("Asia/Tokyo"));
    startup_encode_end(&q, m);
    peer_send_queue(a, &q);
    struct peer *s = world_serve_login(w);
    client_says_query(a, "select pg_sleep(1)");
    struct cancel_key k = key_of_client(a);
    struct peer *canceller = cancel_with(w, &k);
    assert_null(world_next_connect(w)); /* it could hit our SET, and that would end the session */
    wire_encode_parameter_status(&q, STR("TimeZone"), STR("Asia/Tokyo"));
    peer_send_queue(s, &q);
    server_says_done(s, "SET", STATUS_IDLE);
    /* The query itself can be cancelled, or was before it began. */
    struct peer *to_server = world_next_connect(w);
    if (to_server != NULL) {
        peer_connected(to_server);
        peer_hang_up(to_server);
    }
    assert_null(canceller->conn);
    world_free(w);
}

static void test_a_server_without_a_key_is_not_cancelled(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);
    struct bytequeue q = { 0 };

    (void)state;
    struct peer *a = start(w, 0);
    struct peer *s = world_next_connect(w);
    peer_connected(s);
    auth_encode_ok(&q);
    wire_encode_parameter_status(&q, STR("server_version"), STR("15.4"));
    wire_encode_ready(&q, STATUS_IDLE);
    peer_send_queue(s, &q);
    struct cancel_key k = take_key(a);
    assert_int_equal(k.len, CANCEL_KEY_SHORT);
    client_says_query(a, "select pg_sleep(1)");
    assert_null(cancel_with(w, &k)->conn);
    assert_null(world_next_connect(w));
    peer_hang_up(a);
    assert_null(world_next_connect(w));
    assert_null(s->conn); /* it could not be made to end */
    world_free(w);
}

/* ---- peers ------------------------------------------------------------------------------ */

#define PEERS                                                                                      \
    "[databases]\ndb = host=10.0.0.1 port=5432\n"                                                  \
    "[peers]\n1 = host=10.0.0.11\n2 = host=10.0.0.12 port=6001 pool_size=2\n"                      \
    "3 = host=/tmp/peers port=7\n[pgbouncer]\npeer_id = 1\n" TRANSACTION

/* The request that went out on a connection of the core. */
static struct cancel_key sent_key(struct peer *p)
{
    struct startup_packet packet;
    struct cancel_key k = { .len = 0 };
    size_t used;

    assert_int_equal(startup_next(bytequeue_str(&p->got), &packet, &used), WIRE_FRAME);
    assert_int_equal(packet.kind, STARTUP_CANCEL);
    assert_true(cancel_key_from_wire(&k, packet.cancel_pid, packet.cancel_key));
    return k;
}

static void test_a_key_of_a_peer_is_forwarded(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct world *w = world_new(PEERS, USERS);
        struct cancel_key k = key_of(0x40, i == 0 ? CANCEL_KEY_SHORT : CANCEL_KEY_LONG, 2);
        struct peer *canceller = cancel_with(w, &k);
        struct peer *to_peer = world_next_connect(w);
        assert_non_null(to_peer);
        assert_string_equal(to_peer->to.host, "10.0.0.12");
        assert_int_equal(to_peer->to.port, 6001);
        peer_connected(to_peer);
        struct cancel_key sent = sent_key(to_peer);
        assert_int_equal(sent.bytes[sent.len - 1] & 3, 2);
        assert_true(cancel_key_equal(&sent, &k));
        assert_non_null(canceller->conn);
        peer_hang_up(to_peer);
        assert_null(canceller->conn);
        world_free(w);
    }
}

static void test_what_is_not_forwarded(void **state)
{
    struct world *w = world_new(PEERS, USERS);

    (void)state;
    struct cancel_key own = key_of(0x40, CANCEL_KEY_SHORT, 1);
    struct cancel_key unknown = key_of(0x40, CANCEL_KEY_SHORT, 9);
    struct cancel_key tired = key_of(0x40, CANCEL_KEY_SHORT, 2);
    tired.bytes[7] &= 0xfc;
    assert_null(cancel_with(w, &own)->conn);
    assert_null(cancel_with(w, &unknown)->conn);
    assert_null(cancel_with(w, &tired)->conn);
    assert_null(world_next_connect(w));
    world_free(w);
    /* Without an id of our own, keys are all random. */
    w = world_new(TRANSACTION "[databases]\ndb = host=10.0.0.1\n[peers]\n2 = host=10.0.0.12\n",
                  USERS);
    struct cancel_key k = key_of(0x40, CANCEL_KEY_SHORT, 2);
    assert_null(cancel_with(w, &k)->conn);
    assert_null(world_next_connect(w));
    world_free(w);
}

static void test_keys_carry_the_own_id_and_come_back_with_fewer_forwards(void **state)
{
    struct world *w = world_new(PEERS, USERS);

    (void)state;
    struct peer *a = start(w, 2);
    struct peer *s = world_serve_login(w);
    assert_non_null(s);
    struct cancel_key k = take_key(a);
    assert_int_equal(cancel_key_peer(&k), 1);
    client_says_query(a, "select pg_sleep(1)");
    assert_true(cancel_key_forward(&k));
    cancel_with(w, &k);
    struct peer *to_server = world_next_connect(w);
    assert_non_null(to_server);
    assert_string_equal(to_server->to.host, "10.0.0.1");
    world_free(w);
}

static void test_forwards_to_a_peer_are_bounded(void **state)
{
    struct world *w = world_new(PEERS, USERS);
    struct cancel_key k = key_of(0x40, CANCEL_KEY_SHORT, 2);
    struct cancel_key other = key_of(0x40, CANCEL_KEY_SHORT, 3);
    struct peer *cancellers[4], *to_peer[3];

    (void)state;
    for (int i = 0; i < 4; i++)
        cancellers[i] = cancel_with(w, &k);
    for (int i = 0; i < 2; i++)
        assert_non_null(to_peer[i] = world_next_connect(w));
    assert_null(world_next_connect(w));
    /* Another peer has room of its own. */
    cancel_with(w, &other);
    to_peer[2] = world_next_connect(w);
    assert_non_null(to_peer[2]);
    assert_true(to_peer[2]->to.is_unix);

    peer_connected(to_peer[0]);
    peer_hang_up(to_peer[0]);
    world_settle(w);
    assert_null(cancellers[0]->conn);
    assert_non_null(to_peer[0] = world_next_connect(w));
    /* A peer that can't be reached holds nobody up. */
    peer_hang_up(to_peer[0]);
    world_settle(w);
    assert_null(cancellers[2]->conn);
    assert_non_null(world_next_connect(w));
    peer_hang_up(cancellers[3]);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_key_says_its_peer_where_pgbouncer_looks_for_it),
        cmocka_unit_test(test_a_key_is_forwarded_three_times),
        cmocka_unit_test(test_keys_that_differ_in_one_bit_differ),
        cmocka_unit_test(test_a_key_survives_the_wire),
        cmocka_unit_test(test_clients_of_3_2_get_a_long_key_that_works),
        cmocka_unit_test(test_cancels_and_servers_are_at_most_twice_the_pool),
        cmocka_unit_test(test_waiting_cancels_are_dropped_when_the_query_is_over),
        cmocka_unit_test(test_our_own_waiting_cancel_goes_with_its_query),
        cmocka_unit_test(test_a_cancel_waits_until_parameters_are_set),
        cmocka_unit_test(test_a_server_without_a_key_is_not_cancelled),
        cmocka_unit_test(test_a_key_of_a_peer_is_forwarded),
        cmocka_unit_test(test_what_is_not_forwarded),
        cmocka_unit_test(test_keys_carry_the_own_id_and_come_back_with_fewer_forwards),
        cmocka_unit_test(test_forwards_to_a_peer_are_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
