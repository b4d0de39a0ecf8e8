/* Replication connections: a server of their own, from the startup packet to the end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/arena.h"
#include "protocol/auth.h"
#include "protocol/copy.h"
#include "protocol/notice.h"
#include "protocol/startup.h"
#include "protocol/status.h"
#include "tests/proxy/world.h"

#define USERS "\"ann\" \"\"\n"
#define TRANSACTION                                                                                \
    "auth_type = trust\npool_mode = transaction\ndefault_pool_size = 1\nquery_timeout = 5\n"

static struct peer *start(struct world *w, const char *replication)
{
    struct peer *c = world_accept(w);
    struct bytequeue q = { 0 };
    struct wire_mark m = startup_encode_begin(&q, 3, 0);

    startup_encode_param(&q, STR("user"), STR("ann"));
    startup_encode_param(&q, STR("database"), STR("db"));
    startup_encode_param(&q, STR("options"), STR("-c geqo=off -c x.y=z"));
    startup_encode_param(&q, STR("replication"), str_from(replication));
    startup_encode_param(&q, STR("application_name"), STR("walreceiver"));
    startup_encode_param(&q, STR("no.such.setting"), STR("1"));
    startup_encode_end(&q, m);
    peer_send_queue(c, &q);
    return c;
}

/* The startup packet that the server got. */
static struct startup_packet packet_of(struct peer *s)
{
    struct startup_packet packet;
    size_t used;

    assert_int_equal(startup_next(bytequeue_str(&s->got), &packet, &used), WIRE_FRAME);
    assert_int_equal(packet.kind, STARTUP_MESSAGE);
    return packet;
}

static void assert_param(const struct startup_packet *packet, const char *name, const char *value)
{
    struct str got;

    assert_true(startup_find_param(packet->params, name, &got));
    assert_true(str_equal(got, str_from(value)));
}

static void let_in(struct peer *s)
{
    struct bytequeue q = { 0 };

    bytequeue_consume(&s->got, bytequeue_len(&s->got));
    auth_encode_ok(&q);
    wire_encode_parameter_status(&q, STR("server_version"), STR("15.4"));
    wire_encode_parameter_status(&q, STR("TimeZone"), STR("UTC"));
    wire_encode_backend_key(&q, 4711, (struct str){ "\1\2\3\4", 4 });
    wire_encode_ready(&q, STATUS_IDLE);
    peer_send_queue(s, &q);
}

static void test_what_the_client_said_goes_to_its_server(void **state)
{
    static const char *const words[][2] = { { "database", "database" }, { "on", "true" } };

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct world *w = world_new(TRANSACTION, USERS);
        struct peer *c = start(w, words[i][0]);
        struct peer *s = world_next_connect(w);
        assert_non_null(s);
        peer_connected(s);
        struct startup_packet packet = packet_of(s);
        assert_param(&packet, "user", "ann");
        assert_param(&packet, "database", "db");
        assert_param(&packet, "replication", words[i][1]);
        assert_param(&packet, "options", "-c geqo=off -c x.y=z");
        assert_param(&packet, "no.such.setting", "1");
        assert_param(&packet, "application_name", "walreceiver");
        assert_string_equal(peer_take(c), "");
        let_in(s);
        assert_string_equal(peer_take(c), "RSSKZ");
        assert_string_equal(replication_name(peer_client(c)->replication),
                            i == 0 ? "logical" : "physical");
        world_free(w);
    }
}

static void test_words_that_mean_nothing(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);

    (void)state;
    struct peer *c = start(w, "maybe");
    assert_string_equal(peer_take(c), "E(22023)");
    assert_null(c->conn);
    world_free(w);
}

static void test_a_stream_flows_both_ways_and_has_no_end(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);
    struct bytequeue q = { 0 };

    (void)state;
    struct peer *c = start(w, "true");
    struct peer *s = world_next_connect(w);
    peer_connected(s);
    let_in(s);
    peer_take(c);
    client_says_query(c, "START_REPLICATION 0/1");
    assert_string_equal(peer_take(s), "Q");
    wire_encode_copy_response(&q, BE_COPY_BOTH_RESPONSE, false, 0);
    peer_send_queue(s, &q);
    assert_string_equal(peer_take(c), "W");
    for (int i = 0; i < 3; i++) {
        wire_encode_copy_data(&q, STR("wal"));
        peer_send_queue(s, &q);
        assert_string_equal(peer_take(c), "d");
        wire_encode_copy_data(&q, STR("reply"));
        peer_send_queue(c, &q);
        assert_string_equal(peer_take(s), "d");
        world_sleep(w, 100);
    }
    wire_put_empty(&q, FE_COPY_DONE);
    peer_send_queue(c, &q);
    wire_put_empty(&q, BE_COPY_DONE);
    peer_send_queue(s, &q);
    server_says_done(s, "COPY 0", STATUS_IDLE);
    assert_string_equal(peer_take(c), "cCZ");
    /* Idle, it is nobody else's. */
    struct peer *other = world_login(w, "ann", "db");
    assert_string_equal(peer_take(other), "");
    assert_null(world_next_connect(w));
    peer_hang_up(c);
    assert_null(s->conn);
    assert_non_null(world_serve_login(w));
    assert_string_equal(peer_take(other), "RSSSSSSSKZ");
    world_free(w);
}

static void test_a_reader_that_is_slow_stops_the_sender(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);
    struct bytequeue q = { 0 };
    static char big[30000];

    (void)state;
    struct peer *c = start(w, "true");
    struct peer *s = world_next_connect(w);
    peer_connected(s);
    let_in(s);
    peer_take(c);
    client_says_query(c, "START_REPLICATION 0/1");
    wire_encode_copy_response(&q, BE_COPY_BOTH_RESPONSE, false, 0);
    peer_send_queue(s, &q);
    peer_open_window(c, 0);
    for (int i = 0; i < 20 && s->reading; i++) {
        wire_encode_copy_data(&q, (struct str){ big, sizeof(big) });
        peer_send_queue(s, &q);
    }
    assert_false(s->reading);
    assert_true(c->reading); /* its replies still go through */
    peer_open_window(c, SIZE_MAX);
    assert_true(s->reading);
    world_free(w);
}

static void test_an_idle_server_makes_room(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);

    (void)state;
    struct peer *a = world_login(w, "ann", "db");
    struct peer *idle = world_serve_login(w);
    peer_take(a);
    struct peer *c = start(w, "database");
    assert_null(idle->conn);
    struct peer *s = world_next_connect(w);
    assert_non_null(s);
    peer_connected(s);
    let_in(s);
    assert_string_equal(peer_take(c), "RSSKZ");
    world_free(w);
}

static void test_a_refused_login_is_told_to_this_client_only(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);
    struct bytequeue q = { 0 };

    (void)state;
    struct peer *c = start(w, "database");
    struct peer *a = world_login(w, "ann", "db");
    struct peer *s = world_next_connect(w);
    peer_connected(s);
    notice_encode_error(&q, "FATAL", "42501", "must be a replication role");
    peer_send_queue(s, &q);
    assert_string_equal(peer_take(c), "E(42501)");
    assert_null(c->conn);
    assert_non_null(world_serve_login(w));
    assert_string_equal(peer_take(a), "RSSSSSSSKZ");
    world_free(w);
}

static void test_a_server_that_can_t_be_reached_is_waited_for(void **state)
{
    struct world *w = world_new(TRANSACTION "server_login_retry = 3\n", USERS);

    (void)state;
    struct peer *c = start(w, "true");
    struct peer *s = world_next_connect(w);
    peer_hang_up(s);
    assert_non_null(c->conn);
    world_sleep(w, 3.1);
    s = world_next_connect(w);
    assert_non_null(s);
    peer_connected(s);
    let_in(s);
    assert_string_equal(peer_take(c), "RSSKZ");
    /* RECONNECT: it would never be given back. */
    proxy_reconnect(w->proxy, NULL);
    world_settle(w);
    assert_null(s->conn);
    assert_null(c->conn);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_the_client_said_goes_to_its_server),
        cmocka_unit_test(test_words_that_mean_nothing),
        cmocka_unit_test(test_a_stream_flows_both_ways_and_has_no_end),
        cmocka_unit_test(test_a_reader_that_is_slow_stops_the_sender),
        cmocka_unit_test(test_an_idle_server_makes_room),
        cmocka_unit_test(test_a_refused_login_is_told_to_this_client_only),
        cmocka_unit_test(test_a_server_that_can_t_be_reached_is_waited_for),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
