/* Cancel keys and what becomes of a CancelRequest. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/arena.h"
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_key_says_its_peer_where_pgbouncer_looks_for_it),
        cmocka_unit_test(test_a_key_is_forwarded_three_times),
        cmocka_unit_test(test_keys_that_differ_in_one_bit_differ),
        cmocka_unit_test(test_a_key_survives_the_wire),
        cmocka_unit_test(test_clients_of_3_2_get_a_long_key_that_works),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
