/* Host lists, names with several addresses, and roles of servers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/arena.h"
#include "protocol/auth.h"
#include "protocol/notice.h"
#include "protocol/status.h"
#include "proxy/hosts.h"
#include "tests/proxy/world.h"

#define USERS "\"ann\" \"\"\n"
#define POOL                                                                                       \
    "[pgbouncer]\nauth_type = trust\npool_mode = session\nserver_login_retry = 10\n"               \
    "server_lifetime = 0\nclient_login_timeout = 0\nquery_wait_timeout = 0\n"                      \
    "server_idle_timeout = 0\n"

/* ---- numbers ---------------------------------------------------------------------------- */

static void test_hosts_take_turns(void **state)
{
    struct hosts h = { 0 };

    (void)state;
    hosts_init(&h, 3);
    for (int i = 0; i < 7; i++)
        assert_int_equal(hosts_take(&h, false, 5), i % 3);
    hosts_fini(&h);
}

static void test_a_sticky_host_is_left_when_it_fails_only(void **state)
{
    struct hosts h = { 0 };

    (void)state;
    hosts_init(&h, 3);
    assert_int_equal(hosts_take(&h, true, 5), 0);
    assert_int_equal(hosts_take(&h, true, 5), 0);
    hosts_failed(&h, 0, 5, 10000000, 0);
    assert_int_equal(hosts_take(&h, true, 5), 1);
    /* Where it works one stays, though the first is back. */
    assert_int_equal(hosts_take(&h, true, 60000000), 1);
    hosts_fini(&h);
}

static void test_a_host_that_fails_is_left_out_longer_each_time(void **state)
{
    struct hosts h = { 0 };

    (void)state;
    hosts_init(&h, 2);
    hosts_failed(&h, 0, 0, 10000000, 0);
    assert_true(hosts_has_other(&h, 0));
    for (int i = 0; i < 3; i++)
        assert_int_equal(hosts_take(&h, false, 9999999), 1);
    assert_int_equal(hosts_take(&h, false, 10000000), 0);
    hosts_failed(&h, 0, 10000000, 10000000, 0);
    assert_int_equal(hosts_take(&h, false, 29999999), 1);
    hosts_failed(&h, 1, 10000000, 10000000, 0);
    assert_false(hosts_has_other(&h, 19999999));
    assert_int_equal(hosts_take(&h, false, 10000000), 1); /* it will be back first */
    hosts_worked(&h, 0);
    assert_true(hosts_has_other(&h, 10000000));
    assert_int_equal(hosts_pause_us(100, 10000000, 0), 300000000);
    assert_int_equal(hosts_pause_us(1, 0, 0), 1000000);
    assert_int_equal(hosts_pause_us(1, 10000000, UINT16_MAX), 7500000);
    hosts_fini(&h);
}

/* ---- lists ------------------------------------------------------------------------------ */

/* The next server that is connected to must be this one; it logs in. */
static struct peer *serve(struct world *w, const char *host)
{
    struct peer *s = world_next_connect(w);
    struct bytequeue q = { 0 };

    assert_non_null(s);
    assert_string_equal(s->to.host, host);
    peer_connected(s);
    bytequeue_consume(&s->got, bytequeue_len(&s->got));
    auth_encode_ok(&q);
    wire_encode_parameter_status(&q, STR("server_version"), STR("15.4"));
    wire_encode_backend_key(&q, 4711, (struct str){ "\1\2\3\4", 4 });
    wire_encode_ready(&q, STATUS_IDLE);
    peer_send_queue(s, &q);
    return s;
}

static void refuse(struct world *w, const char *host)
{
    struct peer *s = world_next_connect(w);

    assert_non_null(s);
    assert_string_equal(s->to.host, host);
    peer_hang_up(s);
    assert_null(s->conn);
}

/* A client that takes a server. */
static struct peer *use(struct world *w)
{
    struct peer *c = world_login(w, "ann", "db");

    client_says_query(c, "select 1");
    return c;
}

static void test_the_servers_of_a_list_take_turns(void **state)
{
    struct world *w = world_new("[databases]\ndb = host=10.0.0.1,10.0.0.2\n" POOL, USERS);

    (void)state;
    use(w);
    serve(w, "10.0.0.1");
    use(w);
    serve(w, "10.0.0.2");
    use(w);
    serve(w, "10.0.0.1");
    world_free(w);
}

static void test_the_next_host_is_tried_at_once(void **state)
{
    struct world *w = world_new("[databases]\ndb = host=10.0.0.1,10.0.0.2,10.0.0.3\n" POOL, USERS);

    (void)state;
    struct peer *c = use(w);
    refuse(w, "10.0.0.1");
    refuse(w, "10.0.0.2");
    serve(w, "10.0.0.3");
    assert_string_equal(peer_take(c), "RSKZ");
    /* They are left out while the third works. */
    use(w);
    serve(w, "10.0.0.3");
    world_sleep(w, 11);
    use(w);
    serve(w, "10.0.0.1");
    world_free(w);
}

static void test_when_all_hosts_fail_the_pool_waits(void **state)
{
    struct world *w = world_new("[databases]\ndb = host=10.0.0.1,10.0.0.2\n" POOL, USERS);

    (void)state;
    struct peer *c = use(w);
    refuse(w, "10.0.0.1");
    refuse(w, "10.0.0.2");
    assert_null(world_next_connect(w));
    assert_non_null(c->conn);
    world_sleep(w, 10.1);
    struct peer *s = world_next_connect(w);
    assert_non_null(s);
    world_free(w);
}

static void test_a_host_that_starts_up_is_passed_over(void **state)
{
    struct world *w = world_new("[databases]\ndb = host=10.0.0.1,10.0.0.2\n" POOL, USERS);
    struct bytequeue q = { 0 };

    (void)state;
    struct peer *c = use(w);
    struct peer *s = world_next_connect(w);
    peer_connected(s);
    notice_encode_error(&q, "FATAL", "57P03", "the database system is starting up");
    peer_send_queue(s, &q);
    assert_null(s->conn);
    serve(w, "10.0.0.2");
    assert_string_equal(peer_take(c), "RSKZ");
    world_free(w);
}

static void test_a_sticky_list(void **state)
{
    struct world *w = world_new(
        "[databases]\ndb = host=10.0.0.1,10.0.0.2 load_balance_hosts=disable\n" POOL, USERS);

    (void)state;
    use(w);
    serve(w, "10.0.0.1");
    use(w);
    serve(w, "10.0.0.1");
    use(w);
    refuse(w, "10.0.0.1");
    serve(w, "10.0.0.2");
    use(w);
    serve(w, "10.0.0.2");
    world_free(w);
}

/* ---- roles ------------------------------------------------------------------------------ */

static struct peer *serve_as(struct world *w, const char *host, const char *standby)
{
    struct peer *s = world_next_connect(w);
    struct bytequeue q = { 0 };

    assert_non_null(s);
    assert_string_equal(s->to.host, host);
    peer_connected(s);
    auth_encode_ok(&q);
    wire_encode_parameter_status(&q, STR("server_version"), STR("15.4"));
    wire_encode_parameter_status(&q, STR("in_hot_standby"), str_from(standby));
    wire_encode_backend_key(&q, 4711, (struct str){ "\1\2\3\4", 4 });
    wire_encode_ready(&q, STATUS_IDLE);
    peer_send_queue(s, &q);
    return s;
}

static void test_the_primary_is_found(void **state)
{
    struct world *w = world_new(
        "[databases]\ndb = host=10.0.0.1,10.0.0.2 target_session_attrs=primary\n" POOL, USERS);
    struct bytequeue q = { 0 };

    (void)state;
    struct peer *c = use(w);
    assert_null(serve_as(w, "10.0.0.1", "on")->conn);
    struct peer *primary = serve_as(w, "10.0.0.2", "off");
    assert_non_null(primary->conn);
    assert_string_equal(peer_take(c), "RSSKZ");
    /* Its next message would tell a server that became a standby: it is given up when free. */
    wire_encode_parameter_status(&q, STR("in_hot_standby"), STR("on"));
    peer_send_queue(primary, &q);
    server_says_done(primary, "SELECT 1", STATUS_IDLE);
    peer_hang_up(c);
    assert_null(primary->conn);
    world_free(w);
}

static void test_without_a_primary_clients_wait(void **state)
{
    struct world *w = world_new(
        "[databases]\ndb = host=10.0.0.1,10.0.0.2 target_session_attrs=read-write\n" POOL, USERS);

    (void)state;
    struct peer *c = use(w);
    assert_null(serve_as(w, "10.0.0.1", "on")->conn);
    assert_null(serve_as(w, "10.0.0.2", "on")->conn);
    assert_null(world_next_connect(w));
    assert_non_null(c->conn);
    world_sleep(w, 10.1);
    struct peer *s = world_next_connect(w);
    assert_non_null(s);
    world_free(w);
}

static void test_a_standby_is_preferred(void **state)
{
    struct world *w = world_new(
        "[databases]\ndb = host=10.0.0.1,10.0.0.2 target_session_attrs=prefer-standby\n" POOL,
        USERS);

    (void)state;
    use(w);
    assert_null(serve_as(w, "10.0.0.1", "off")->conn);
    assert_non_null(serve_as(w, "10.0.0.2", "on")->conn);
    world_free(w);

    w = world_new(
        "[databases]\ndb = host=10.0.0.1,10.0.0.2 target_session_attrs=prefer-standby\n" POOL,
        USERS);
    struct peer *c = use(w);
    assert_null(serve_as(w, "10.0.0.1", "off")->conn);
    assert_non_null(serve_as(w, "10.0.0.2", "off")->conn);
    assert_string_equal(peer_take(c), "RSSKZ");
    world_free(w);
}

/* ---- versions --------------------------------------------------------------------------- */

/* The version that the core asks for. */
static int asked(struct world *w, struct peer **s)
{
    *s = world_next_connect(w);
    assert_non_null(*s);
    peer_connected(*s);
    struct str got = bytequeue_str(&(*s)->got);
    assert_true(got.len > 8);
    return got.ptr[5] * 10 + got.ptr[7];
}

static void test_servers_that_know_3_0_only(void **state)
{
    struct bytequeue q = { 0 };
    struct peer *s;

    (void)state;
    for (int how = 0; how < 3; how++) {
        struct world *w = world_new("[databases]\ndb = host=10.0.0.1\n" POOL, USERS);
        struct peer *c = use(w);
        assert_int_equal(asked(w, &s), 32);
        if (how == 2) {
            peer_hang_up(s);
        } else {
            notice_encode_error(&q, "FATAL", how == 0 ? "0A000" : "08P01", "unsupported protocol");
            peer_send_queue(s, &q);
        }
        assert_null(s->conn);
        assert_int_equal(asked(w, &s), 30);
        auth_encode_ok(&q);
        wire_encode_ready(&q, STATUS_IDLE);
        peer_send_queue(s, &q);
        assert_string_equal(peer_take(c), "RKZ");
        use(w);
        assert_int_equal(asked(w, &s), 30);
        world_free(w);
    }
    /* An error that has to do with something else, and one that comes twice. */
    struct world *w = world_new("[databases]\ndb = host=10.0.0.1\n" POOL, USERS);
    struct peer *c = use(w);
    assert_int_equal(asked(w, &s), 32);
    notice_encode_error(&q, "FATAL", "28000", "no");
    peer_send_queue(s, &q);
    assert_string_equal(peer_take(c), "E(28000)");
    world_sleep(w, 10.1);
    c = use(w);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(asked(w, &s), i == 0 ? 32 : 30);
        notice_encode_error(&q, "FATAL", "08P01", "no such database");
        peer_send_queue(s, &q);
    }
    assert_string_equal(peer_take(c), "E(08P01)");
    world_free(w);
}

/* ---- names ------------------------------------------------------------------------------ */

#define NAMED "[databases]\ndb = host=pg.example port=6000\n" POOL

static void test_a_name_is_looked_up_once_and_its_addresses_take_turns(void **state)
{
    struct world *w = world_new(NAMED "dns_max_ttl = 5\n", USERS);

    (void)state;
    use(w);
    use(w);
    assert_int_equal(w->n_lookups, 1);
    world_answer(w, "pg.example", "10.0.0.1,10.0.0.2");
    struct peer *s = serve(w, "10.0.0.1");
    assert_int_equal(s->to.port, 6000);
    serve(w, "10.0.0.2");
    use(w);
    serve(w, "10.0.0.1");
    assert_int_equal(w->n_lookups, 0);
    world_sleep(w, 5.1);
    use(w);
    world_answer(w, "pg.example", "10.0.0.2,10.0.0.1");
    world_free(w);
}

static void test_another_order_closes_nothing_and_a_lost_address_its_servers(void **state)
{
    struct world *w = world_new(NAMED "dns_max_ttl = 5\n", USERS);

    (void)state;
    struct peer *c = use(w);
    world_answer(w, "pg.example", "10.0.0.1,10.0.0.2");
    struct peer *one = serve(w, "10.0.0.1");
    struct peer *d = use(w);
    struct peer *two = serve(w, "10.0.0.2");
    world_sleep(w, 5.1);
    use(w);
    world_answer(w, "pg.example", "10.0.0.2,10.0.0.1");
    assert_non_null(world_next_connect(w));
    assert_false(peer_server(one)->retire);
    assert_false(peer_server(two)->retire);
    world_sleep(w, 5.1);
    use(w);
    world_answer(w, "pg.example", "10.0.0.2,10.0.0.3");
    assert_true(peer_server(one)->retire);
    assert_false(peer_server(two)->retire);
    server_says_done(one, "SELECT 1", STATUS_IDLE);
    peer_hang_up(c);
    assert_null(one->conn);
    assert_non_null(d->conn);
    world_free(w);
}

static void test_the_next_address_is_tried_at_once(void **state)
{
    struct world *w = world_new(NAMED, USERS);

    (void)state;
    use(w);
    world_answer(w, "pg.example", "::1,10.0.0.1");
    refuse(w, "::1");
    serve(w, "10.0.0.1");
    use(w);
    serve(w, "10.0.0.1");
    world_free(w);
}

static void test_an_unknown_name_fails_and_is_remembered(void **state)
{
    struct world *w = world_new(NAMED "dns_nxdomain_ttl = 30\n", USERS);

    (void)state;
    struct peer *c = use(w);
    world_answer(w, "pg.example", "");
    assert_non_null(c->conn); /* it waits, as for any server that is away */
    world_sleep(w, 10.1);
    assert_int_equal(w->n_lookups, 0);
    world_sleep(w, 30);
    assert_int_equal(w->n_lookups, 1);
    world_answer(w, "pg.example", "10.0.0.1");
    serve(w, "10.0.0.1");
    assert_string_equal(peer_take(c), "RSKZ");
    world_free(w);
}

static void test_without_an_answer_the_last_one_counts(void **state)
{
    struct world *w = world_new(NAMED "dns_max_ttl = 1\n", USERS);

    (void)state;
    use(w);
    world_answer(w, "pg.example", "10.0.0.1");
    struct peer *s = serve(w, "10.0.0.1");
    world_sleep(w, 2);
    use(w);
    world_answer(w, "pg.example", NULL);
    serve(w, "10.0.0.1");
    assert_false(peer_server(s)->retire);
    world_free(w);
}

static void test_names_are_watched_while_they_are_in_use(void **state)
{
    struct world *w = world_new(NAMED "dns_zone_check_period = 2\n", USERS);

    (void)state;
    struct peer *c = use(w);
    world_answer(w, "pg.example", "10.0.0.1");
    struct peer *s = serve(w, "10.0.0.1");
    world_sleep(w, 2.5);
    assert_int_equal(w->n_lookups, 1);
    world_answer(w, "pg.example", "10.0.0.9");
    assert_true(peer_server(s)->retire);
    server_says_done(s, "SELECT 1", STATUS_IDLE);
    peer_hang_up(c);
    assert_null(s->conn);
    world_sleep(w, 5);
    assert_int_equal(w->n_lookups, 0);
    world_free(w);
}

static void test_a_server_closed_during_the_lookup_is_forgotten(void **state)
{
    struct world *w = world_new(NAMED "server_connect_timeout = 3\n", USERS);

    (void)state;
    struct peer *c = use(w);
    world_sleep(w, 3.1);
    assert_non_null(c->conn);
    world_answer(w, "pg.example", "10.0.0.1");
    assert_null(world_next_connect(w));
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hosts_take_turns),
        cmocka_unit_test(test_a_sticky_host_is_left_when_it_fails_only),
        cmocka_unit_test(test_a_host_that_fails_is_left_out_longer_each_time),
        cmocka_unit_test(test_the_servers_of_a_list_take_turns),
        cmocka_unit_test(test_the_next_host_is_tried_at_once),
        cmocka_unit_test(test_when_all_hosts_fail_the_pool_waits),
        cmocka_unit_test(test_a_host_that_starts_up_is_passed_over),
        cmocka_unit_test(test_a_sticky_list),
        cmocka_unit_test(test_the_primary_is_found),
        cmocka_unit_test(test_without_a_primary_clients_wait),
        cmocka_unit_test(test_a_standby_is_preferred),
        cmocka_unit_test(test_servers_that_know_3_0_only),
        cmocka_unit_test(test_a_name_is_looked_up_once_and_its_addresses_take_turns),
        cmocka_unit_test(test_another_order_closes_nothing_and_a_lost_address_its_servers),
        cmocka_unit_test(test_the_next_address_is_tried_at_once),
        cmocka_unit_test(test_an_unknown_name_fails_and_is_remembered),
        cmocka_unit_test(test_without_an_answer_the_last_one_counts),
        cmocka_unit_test(test_names_are_watched_while_they_are_in_use),
        cmocka_unit_test(test_a_server_closed_during_the_lookup_is_forgotten),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
