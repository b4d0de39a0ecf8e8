/* Several workers: limits that hold for all, connections that move, who is served first. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "protocol/auth.h"
#include "protocol/notice.h"
#include "protocol/startup.h"
#include "protocol/status.h"
#include "proxy/pool.h"
#include "proxy/pool_common.h"
#include "tests/proxy/world.h"

#define USERS "\"ann\" \"\"\n\"bob\" \"\"\n"
#define TRANSACTION "auth_type = trust\npool_mode = transaction\n"

static int worker_of(struct peer *p)
{
    return p->conn->worker->index;
}

/* Clients that are logged in, one on each worker in turn. */
static void log_in(struct world *w, struct peer **clients, int n)
{
    for (int i = 0; i < n; i++)
        clients[i] = world_login(w, "ann", "db");
    while (world_serve_login(w) != NULL)
        ;
    for (int i = 0; i < n; i++) {
        assert_non_null(clients[i]->conn);
        peer_take(clients[i]);
    }
}

static struct pool_common *common_of(struct peer *client)
{
    return peer_client(client)->pool->common;
}

/* The server that has got a query to answer. */
static struct peer *asked(struct world *w)
{
    for (struct peer *p = w->peers; p != NULL; p = p->next)
        if (p->conn != NULL && p->to.port == 5432 && strcmp(peer_take(p), "Q") == 0)
            return p;
    return NULL;
}

static void test_clients_are_spread(void **state)
{
    struct world *w = world_new(TRANSACTION "worker_threads = 3\n", USERS);
    struct peer *c[6];

    (void)state;
    log_in(w, c, 6);
    for (int i = 0; i < 6; i++)
        assert_int_equal(worker_of(c[i]), i % 3);
    peer_hang_up(c[1]);
    assert_int_equal(worker_of(world_login(w, "ann", "db")), 1);
    world_free(w);
}

static void test_an_idle_server_moves_to_the_waiter(void **state)
{
    struct world *w = world_new(TRANSACTION "worker_threads = 2\n", USERS);
    struct peer *c[2];

    (void)state;
    c[0] = world_login(w, "ann", "db");
    struct peer *s = world_serve_login(w);
    c[1] = world_login(w, "ann", "db");
    assert_string_equal(peer_take(c[1]), "RSSSSSSSKZ"); /* what the server told worker 0 */
    for (int i = 0; i < 4; i++) {
        client_says_query(c[i % 2], "select 1");
        assert_null(world_next_connect(w));
        assert_int_equal(worker_of(s), i % 2);
        assert_string_equal(peer_take(s), "Q");
        server_says_done(s, "SELECT 1", STATUS_IDLE);
    }
    assert_int_equal(common_of(c[0])->servers, 1);
    world_free(w);
}

static void test_what_a_server_has_prepared_moves_along(void **state)
{
    struct world *w = world_new(TRANSACTION "worker_threads = 2\n", USERS);
    struct peer *c[2];
    static const char parse[] = "P\0\0\0\024s\0select 1234\0\0\0";
    static const char use[] = "D\0\0\0\007Ss\0S\0\0\0\4";

    (void)state;
    c[0] = world_login(w, "ann", "db");
    struct peer *s = world_serve_login(w);
    c[1] = world_login(w, "ann", "db");
    peer_take(c[0]);
    peer_take(c[1]);
    for (int i = 0; i < 2; i++) {
        peer_send(c[i], parse, sizeof(parse) - 1);
        peer_send(c[i], use, sizeof(use) - 1);
        assert_string_equal(peer_take(s), i == 0 ? "PDS" : "DS");
        peer_send(s, i == 0 ? "1\0\0\0\4n\0\0\0\4Z\0\0\0\5I" : "n\0\0\0\4Z\0\0\0\5I",
                  i == 0 ? 16 : 11);
        assert_string_equal(peer_take(c[i]), "1nZ");
    }
    world_free(w);
}

static void test_pool_size_holds_for_all_workers(void **state)
{
    struct world *w = world_new(TRANSACTION "worker_threads = 4\ndefault_pool_size = 3\n"
                                            "server_connect_parallel = 8\n",
                                USERS);
    struct peer *c[12];
    int served = 0;

    (void)state;
    log_in(w, c, 12);
    for (int i = 0; i < 12; i++)
        client_says_query(c[i], "select 1");
    for (int i = 0; i < 50; i++) {
        while (world_serve_login(w) != NULL)
            ;
        assert_true(common_of(c[0])->servers <= 3);
        struct peer *s = asked(w);
        if (s == NULL)
            break;
        server_says_done(s, "SELECT 1", STATUS_IDLE);
        served++;
    }
    assert_int_equal(served, 12);
    assert_int_equal(common_of(c[0])->servers, 3);
    for (int i = 0; i < 12; i++)
        assert_string_equal(peer_take(c[i]), "CZ");
    world_free(w);
}

static void test_the_longest_waiter_of_all_workers_is_next(void **state)
{
    struct world *w = world_new(TRANSACTION "worker_threads = 4\ndefault_pool_size = 1\n", USERS);
    struct peer *c[8], *s = NULL;
    static const int order[] = { 5, 2, 7, 0, 3, 6, 1, 4 };

    (void)state;
    log_in(w, c, 8);
    for (int i = 0; i < 8; i++) {
        client_says_query(c[order[i]], "select 1");
        world_sleep(w, 0.01);
    }
    for (int i = 0; i < 8; i++) {
        s = asked(w);
        assert_non_null(s);
        assert_ptr_equal(peer_server(s)->client, peer_client(c[order[i]]));
        server_says_done(s, "SELECT 1", STATUS_IDLE);
    }
    world_free(w);
}

/* A worker with much to do does not keep the only server from the others. */
static void test_nobody_starves(void **state)
{
    struct world *w = world_new(TRANSACTION "worker_threads = 2\ndefault_pool_size = 1\n", USERS);
    struct peer *c[6];
    int rounds = 0;

    (void)state;
    log_in(w, c, 6);
    for (int i = 0; i < 6; i += 2)
        client_says_query(c[i], "select 1"); /* of worker 0 */
    world_sleep(w, 0.005);
    client_says_query(c[1], "select 1"); /* of worker 1 */
    while (strcmp(peer_take(c[1]), "CZ") != 0) {
        struct peer *s = asked(w);
        assert_non_null(s);
        assert_true(++rounds < 6);
        world_sleep(w, 0.003);
        server_says_done(s, "SELECT 1", STATUS_IDLE);
        for (int i = 0; i < 6; i += 2)
            if (strcmp(peer_take(c[i]), "CZ") == 0)
                client_says_query(c[i], "select 1");
    }
    world_free(w);
}

/* ---- opening ---------------------------------------------------------------------------- */

static int count_connects(struct world *w)
{
    int n = 0;

    for (struct peer *p = w->peers; p != NULL; p = p->next)
        n += !p->taken && p->conn != NULL;
    return n;
}

static void test_a_storm_opens_more_while_it_goes_well(void **state)
{
    static const struct {
        const char *ini;
        int after[4]; /* connects under way after so many logins */
    } cases[] = {
        { TRANSACTION "worker_threads = 1\nserver_connect_parallel = 1\n", { 1, 1, 1, 1 } },
        { TRANSACTION "worker_threads = 1\nserver_connect_parallel = 4\n", { 1, 2, 4, 4 } },
        { TRANSACTION "worker_threads = 4\nserver_connect_parallel = 4\n", { 1, 2, 4, 4 } },
    };

    (void)state;
    for (size_t k = 0; k < sizeof(cases) / sizeof(cases[0]); k++) {
        struct world *w = world_new(cases[k].ini, USERS);
        struct peer *c[12];
        for (int i = 0; i < 12; i++)
            c[i] = world_login(w, "ann", "db");
        for (int i = 0; i < 4; i++) {
            assert_int_equal(count_connects(w), cases[k].after[i]);
            struct peer *s = world_next_connect(w);
            s->taken = false;
            world_serve_login(w);
            for (int n = 0; n < 12; n++)
                if (strcmp(peer_take(c[n]), "RSSSSSSSKZ") == 0)
                    client_says_query(c[n], "begin");
        }
        world_free(w);
    }
}

static void test_after_a_failure_one_is_tried_when_the_pause_is_over(void **state)
{
    struct world *w = world_new(TRANSACTION "worker_threads = 2\nserver_connect_parallel = 8\n"
                                            "server_login_retry = 10\n",
                                USERS);
    struct peer *c[6];

    (void)state;
    for (int i = 0; i < 6; i++)
        c[i] = world_login(w, "ann", "db");
    struct peer *s = world_next_connect(w);
    conn_on_gone(s->conn, "Connection refused");
    world_settle(w);
    world_sleep(w, 8);
    assert_int_equal(count_connects(w), 0);
    /* Who comes meanwhile is told. */
    struct peer *late = world_startup(w, "ann", "db", NULL, NULL);
    assert_string_equal(peer_take(late), "E(08P01)");
    world_sleep(w, 2);
    assert_int_equal(count_connects(w), 1);
    assert_non_null(c[0]->conn);
    world_free(w);
}

static void test_a_failed_login_is_told_to_the_waiters_of_all_workers(void **state)
{
    struct world *w = world_new(TRANSACTION "worker_threads = 3\n", USERS);
    struct bytequeue q = { 0 };
    struct peer *c[6];

    (void)state;
    for (int i = 0; i < 6; i++)
        c[i] = world_login(w, "ann", "db");
    struct peer *s = world_next_connect(w);
    peer_connected(s);
    notice_encode_error(&q, "FATAL", "3D000", "database \"db\" does not exist");
    peer_send_queue(s, &q);
    for (int i = 0; i < 6; i++) {
        assert_string_equal(peer_take(c[i]), "E(3D000)");
        assert_null(c[i]->conn);
    }
    world_free(w);
}

/* ---- limits that pools share ------------------------------------------------------------ */

static void test_a_place_goes_to_the_pool_that_waited_longest(void **state)
{
    for (int n = 1; n <= 2; n++) {
        char ini[200];
        snprintf(ini, sizeof(ini),
                 "[databases]\na = host=10.0.0.1\nb = host=10.0.0.1\nc = "
                 "host=10.0.0.1\n[pgbouncer]\n" TRANSACTION
                 "worker_threads = %d\nmax_user_connections = 1\n",
                 n);
        struct world *w = world_new(ini, USERS);
        struct peer *a = world_login(w, "ann", "a");
        struct peer *s = world_serve_login(w);
        peer_take(a);
        client_says_query(a, "begin");
        server_says_done(s, "BEGIN", STATUS_IN_TRANSACTION);
        /* b comes before c in every list, and later. */
        struct peer *c = world_login(w, "ann", "c");
        world_sleep(w, 1);
        struct peer *b = world_login(w, "ann", "b");
        assert_null(world_next_connect(w));
        client_says_query(a, "commit");
        server_says_done(s, "COMMIT", STATUS_IDLE);
        assert_null(s->conn); /* evicted */
        assert_non_null(world_serve_login(w));
        assert_string_equal(peer_take(c), "RSSSSSSSKZ");
        assert_non_null(world_serve_login(w)); /* c's was idle */
        assert_string_equal(peer_take(b), "RSSSSSSSKZ");
        world_free(w);
    }
    (void)state;
}

/* A pool whose server is never idle gives it up to one that has waited much longer. */
static void test_a_busy_pool_does_not_keep_its_siblings_out(void **state)
{
    struct world *w =
        world_new("[databases]\na = host=10.0.0.1\nb = host=10.0.0.1\n[pgbouncer]\n" TRANSACTION
                  "worker_threads = 2\nmax_user_connections = 1\n",
                  USERS);
    struct peer *a[2];
    int rounds = 0;

    (void)state;
    a[0] = world_login(w, "ann", "a");
    struct peer *s = world_serve_login(w);
    a[1] = world_login(w, "ann", "a");
    client_says_query(a[0], "select 1");
    client_says_query(a[1], "select 1");
    struct peer *b = world_login(w, "ann", "b");
    while (s->conn != NULL) {
        assert_true(++rounds < 100);
        world_sleep(w, 0.01);
        server_says_done(s, "SELECT 1", STATUS_IDLE);
        for (int i = 0; i < 2; i++) {
            const char *got = peer_take(a[i]);
            if (strlen(got) >= 2 && strcmp(got + strlen(got) - 2, "CZ") == 0)
                client_says_query(a[i], "select 1");
        }
    }
    assert_non_null(world_serve_login(w));
    assert_string_equal(peer_take(b), "RSSSSSSSKZ");
    world_free(w);
}

static void test_an_unused_pool_is_forgotten(void **state)
{
    struct world *w = world_new(TRANSACTION "worker_threads = 2\npool_idle_timeout = 20\n"
                                            "server_idle_timeout = 5\n",
                                USERS);
    struct peer *c[4];

    (void)state;
    log_in(w, c, 4);
    struct database *db = peer_client(c[0])->db;
    for (int i = 0; i < 4; i++)
        peer_hang_up(c[i]);
    assert_int_equal(db->pools.count, 2);
    world_sleep(w, 15);
    assert_int_equal(db->pools.count, 2);
    uint64_t logins = proxy_database_stats(db).client_logins;
    world_sleep(w, 20);
    assert_int_equal(db->pools.count, 0);
    assert_int_equal(db->commons.count, 0);
    assert_int_equal(proxy_database_stats(db).client_logins, logins); /* are not */
    c[0] = world_login(w, "ann", "db");
    assert_non_null(world_serve_login(w));
    assert_int_equal(db->pools.count, 1);
    world_free(w);
}

/* ---- clients that move ------------------------------------------------------------------ */

static void test_the_console_is_on_worker_0(void **state)
{
    struct world *w = world_new(TRANSACTION "worker_threads = 3\nadmin_users = ann\n", USERS);
    struct peer *c[2];

    (void)state;
    log_in(w, c, 2);
    struct peer *console = world_startup(w, "ann", "pgbouncer", NULL, NULL);
    assert_int_equal(worker_of(console), 0);
    assert_int_equal(peer_client(console)->state, CLIENT_CONSOLE);
    assert_int_equal(w->proxy->workers[2]->clients.count, 0);
    assert_int_equal(w->proxy->workers[2]->load, 0);
    world_free(w);
}

static void test_a_cancel_goes_where_its_client_is(void **state)
{
    struct world *w = world_new(TRANSACTION "worker_threads = 2\ndefault_pool_size = 1\n", USERS);
    struct peer *c[2];
    struct bytequeue q = { 0 };

    (void)state;
    log_in(w, c, 2);
    struct cancel_key k = client_cancel_key(peer_client(c[1]));
    client_says_query(c[1], "select pg_sleep(9)");
    assert_int_equal(worker_of(c[1]), 1);
    struct peer *canceller = world_accept(w);
    assert_int_equal(worker_of(canceller), 0);
    startup_encode_cancel(&q, cancel_key_pid(&k), cancel_key_secret(&k));
    peer_send_queue(canceller, &q);
    struct peer *s = world_next_connect(w);
    assert_non_null(s);
    assert_int_equal(worker_of(s), 1);
    assert_int_equal(worker_of(canceller), 1);
    world_free(w);
}

static void test_a_client_that_dies_on_its_way_is_gone(void **state)
{
    struct world *w = world_new(TRANSACTION "worker_threads = 2\nadmin_users = ann\n", USERS);
    struct peer *c[1];
    struct bytequeue q = { 0 };

    (void)state;
    log_in(w, c, 1);
    struct peer *p = world_accept(w);
    struct wire_mark m = startup_encode_begin(&q, 3, 0);
    startup_encode_param(&q, STR("user"), STR("ann"));
    startup_encode_param(&q, STR("database"), STR("pgbouncer"));
    startup_encode_end(&q, m);
    assert_int_equal(worker_of(p), 1);
    conn_on_bytes(p->conn, bytequeue_str(&q).ptr, bytequeue_len(&q));
    conn_on_gone(p->conn, NULL); /* in the same event */
    world_settle(w);
    assert_null(p->conn);
    bytequeue_free(&q);
    assert_int_equal(w->proxy->workers[0]->load, 1);
    assert_int_equal(w->proxy->workers[1]->load, 0);
    world_free(w);
}

static void test_a_pause_ends_when_no_worker_has_a_server(void **state)
{
    struct world *w = world_new(
        TRANSACTION "worker_threads = 4\nadmin_users = ann\ndefault_pool_size = 4\n", USERS);
    struct peer *c[4];
    struct peer *s[4];

    (void)state;
    log_in(w, c, 4);
    for (int i = 0; i < 4; i++) {
        client_says_query(c[i], "begin");
        while (world_serve_login(w) != NULL)
            ;
        s[i] = asked(w);
        assert_non_null(s[i]);
        server_says_done(s[i], "BEGIN", STATUS_IN_TRANSACTION);
    }
    struct peer *console = world_startup(w, "ann", "pgbouncer", NULL, NULL);
    peer_take(console);
    client_says_query(console, "PAUSE");
    for (int i = 0; i < 4; i++) {
        assert_string_equal(peer_take(console), "");
        client_says_query(c[i], "commit");
        server_says_done(s[i], "COMMIT", STATUS_IDLE);
        assert_null(s[i]->conn);
    }
    assert_string_equal(peer_take(console), "CZ");
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_clients_are_spread),
        cmocka_unit_test(test_an_idle_server_moves_to_the_waiter),
        cmocka_unit_test(test_what_a_server_has_prepared_moves_along),
        cmocka_unit_test(test_pool_size_holds_for_all_workers),
        cmocka_unit_test(test_the_longest_waiter_of_all_workers_is_next),
        cmocka_unit_test(test_nobody_starves),
        cmocka_unit_test(test_a_storm_opens_more_while_it_goes_well),
        cmocka_unit_test(test_after_a_failure_one_is_tried_when_the_pause_is_over),
        cmocka_unit_test(test_a_failed_login_is_told_to_the_waiters_of_all_workers),
        cmocka_unit_test(test_a_place_goes_to_the_pool_that_waited_longest),
        cmocka_unit_test(test_a_busy_pool_does_not_keep_its_siblings_out),
        cmocka_unit_test(test_an_unused_pool_is_forgotten),
        cmocka_unit_test(test_the_console_is_on_worker_0),
        cmocka_unit_test(test_a_cancel_goes_where_its_client_is),
        cmocka_unit_test(test_a_client_that_dies_on_its_way_is_gone),
        cmocka_unit_test(test_a_pause_ends_when_no_worker_has_a_server),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
