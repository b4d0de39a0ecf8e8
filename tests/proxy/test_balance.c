/* Which worker serves whom: clients go where there is less to do, between two transactions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "protocol/startup.h"
#include "protocol/status.h"
#include "proxy/client.h"
#include "proxy/credentials.h"
#include "proxy/pool.h"
#include "proxy/pool_common.h"
#include "proxy/server.h"
#include "tests/proxy/world.h"

#define USERS "\"ann\" \"\"\n"
#define INI                                                                                        \
    "auth_type = trust\npool_mode = transaction\nworker_threads = 2\nworker_fill_percent = 80\n"   \
    "default_pool_size = 2\n"
enum { CLIENTS = 8, TICK_US = 100000 };

static int worker_of(struct peer *p)
{
    return p->conn->worker->index;
}

static void log_in(struct world *w, struct peer **clients, int n)
{
    for (int i = 0; i < n; i++)
        clients[i] = world_login(w, "ann", "db");
    while (world_serve_login(w) != NULL)
        ;
    for (int i = 0; i < n; i++)
        peer_take(clients[i]);
}

/* The server that has got a query. */
static struct peer *asked_as(struct world *w, const char *what)
{
    for (struct peer *p = w->peers; p != NULL; p = p->next)
        if (p->conn != NULL && p->to.port == 5432 && strcmp(peer_take(p), what) == 0)
            return p;
    return NULL;
}

static struct peer *asked(struct world *w)
{
    return asked_as(w, "Q");
}

static void transaction(struct world *w, struct peer *c)
{
    struct peer *s;

    client_says_query(c, "select 1");
    while ((s = asked(w)) == NULL)
        assert_non_null(world_serve_login(w));
    server_says_done(s, "SELECT 1", STATUS_IDLE);
    assert_string_equal(peer_take(c), "CZ");
}

/* All clients have a transaction each, and the workers are busy with them, in percent. */
static void tick(struct world *w, struct peer **clients, int busy0, int busy1)
{
    for (int i = 0; i < CLIENTS; i++)
        transaction(w, clients[i]);
    w->cpu_us[0] += (uint64_t)(busy0 * TICK_US / 100);
    w->cpu_us[1] += (uint64_t)(busy1 * TICK_US / 100);
    world_run_until(w, w->now_us + TICK_US);
}

static int count_on(struct peer **clients, int worker)
{
    int n = 0;

    for (int i = 0; i < CLIENTS; i++)
        n += worker_of(clients[i]) == worker;
    return n;
}

static void test_clients_stay_together_until_their_worker_is_busy(void **state)
{
    struct world *w = world_new(INI, USERS);
    struct peer *c[CLIENTS];

    (void)state;
    log_in(w, c, CLIENTS);
    for (int i = 0; i < 30; i++) {
        tick(w, c, 79, 0);
        assert_int_equal(count_on(c, 0), CLIENTS);
    }
    tick(w, c, 95, 0);
    assert_int_equal(count_on(c, 0), CLIENTS); /* told to, at their next transaction */
    struct peer *late = world_login(w, "ann", "db");
    assert_int_equal(worker_of(late), 1);
    for (int i = 0; i < 30; i++)
        tick(w, c, 60, 60);
    assert_int_equal(count_on(c, 1), CLIENTS / 2);
    world_free(w);
}

static void test_a_worker_that_is_not_needed_gives_its_clients_back(void **state)
{
    struct world *w = world_new(INI, USERS);
    struct peer *c[CLIENTS];

    (void)state;
    log_in(w, c, CLIENTS);
    tick(w, c, 95, 0);
    for (int i = 0; i < 5; i++)
        tick(w, c, 20, 20);
    assert_int_equal(count_on(c, 1), CLIENTS / 2); /* not at once */
    for (int i = 0; i < 8; i++)
        tick(w, c, 20, 20);
    assert_int_equal(count_on(c, 1), 0);
    assert_int_equal(w->proxy->workers[0]->load, CLIENTS);
    assert_int_equal(w->proxy->workers[1]->load, 0);
    world_free(w);
}

static void test_one_client_that_fills_a_worker_stays(void **state)
{
    struct world *w = world_new(INI, USERS);
    struct peer *c[CLIENTS];

    (void)state;
    log_in(w, c, CLIENTS);
    for (int i = 0; i < 5; i++) {
        world_run_until(w, w->now_us + 2 * TICK_US);
        transaction(w, c[0]);
        w->cpu_us[0] += TICK_US;
        world_run_until(w, w->now_us + TICK_US);
        transaction(w, c[0]);
        assert_int_equal(count_on(c, 0), CLIENTS);
    }
    world_free(w);
}

/* Its next request came with the last one: it is served where it is, and goes when it can. */
static void test_who_has_more_to_say_goes_later(void **state)
{
    struct world *w = world_new(INI, USERS);
    struct peer *c[CLIENTS], *s;
    static const char two[] = "Q\0\0\0\15select 1\0Q\0\0\0\15select 2\0";

    (void)state;
    log_in(w, c, CLIENTS);
    tick(w, c, 95, 0);
    peer_send(c[0], two, sizeof(two) - 1);
    assert_non_null(s = asked_as(w, "QQ"));
    for (int i = 0; i < 2; i++) {
        assert_int_equal(worker_of(c[0]), 0);
        server_says_done(s, "SELECT 1", STATUS_IDLE);
    }
    assert_string_equal(peer_take(c[0]), "CZCZ");
    assert_int_equal(worker_of(c[0]), 1);
    transaction(w, c[0]);
    world_free(w);
}

/* It leaves in the middle: nothing of it is left anywhere. */
static void test_who_hangs_up_on_another_worker_is_gone(void **state)
{
    struct world *w = world_new(INI, USERS);
    struct peer *c[CLIENTS];

    (void)state;
    log_in(w, c, CLIENTS);
    tick(w, c, 95, 0);
    tick(w, c, 95, 5);
    struct pool_common *common = peer_client(c[0])->pool->common;
    for (int i = 0; i < CLIENTS; i++)
        peer_hang_up(c[i]);
    assert_int_equal(common->n_clients, 0);
    assert_int_equal(w->proxy->n_clients, 0);
    assert_int_equal(w->proxy->workers[0]->load + w->proxy->workers[1]->load, 0);
    assert_int_equal(w->proxy->cancel_keys.count, 0);
    world_free(w);
}

static void test_statements_and_settings_go_along(void **state)
{
    struct world *w = world_new(INI, USERS);
    struct peer *c[CLIENTS], *s;
    static const char parse[] = "P\0\0\0\024s\0select 1234\0\0\0S\0\0\0\4";
    static const char use[] = "D\0\0\0\007Ss\0S\0\0\0\4";

    (void)state;
    log_in(w, c, CLIENTS);
    tick(w, c, 95, 0);
    peer_send(c[0], parse, sizeof(parse) - 1);
    for (s = w->peers; s != NULL; s = s->next)
        if (s->conn != NULL && s->to.port == 5432 && strcmp(peer_take(s), "PS") == 0)
            break;
    assert_non_null(s);
    peer_send(s, "1\0\0\0\4Z\0\0\0\5I", 11);
    assert_string_equal(peer_take(c[0]), "1Z");
    assert_int_equal(worker_of(c[0]), 1);
    assert_int_equal(peer_client(c[0])->statements.count, 1);
    peer_send(c[0], use, sizeof(use) - 1);
    for (s = w->peers; s != NULL; s = s->next) {
        const char *got = s->conn != NULL && s->to.port == 5432 ? peer_take(s) : "";
        if (strcmp(got, "DS") == 0 || strcmp(got, "PDS") == 0)
            break;
    }
    assert_non_null(s);
    world_free(w);
}

/* A cancel request finds it, and the memory of the move is gone. */
static void test_a_cancel_finds_who_has_moved(void **state)
{
    struct world *w = world_new(INI, USERS);
    struct peer *c[CLIENTS];
    struct bytequeue q = { 0 };

    (void)state;
    log_in(w, c, CLIENTS);
    tick(w, c, 95, 0);
    transaction(w, c[0]);
    assert_int_equal(worker_of(c[0]), 1);
    assert_null(peer_client(c[0])->rare);
    client_says_query(c[0], "select pg_sleep(9)");
    struct cancel_key k = client_cancel_key(peer_client(c[0]));
    struct peer *canceller = world_accept(w);
    startup_encode_cancel(&q, cancel_key_pid(&k), cancel_key_secret(&k));
    peer_send_queue(canceller, &q);
    assert_non_null(world_next_connect(w));
    world_free(w);
}

static void test_the_later_login_s_credentials_win(void **state)
{
    struct credentials a = { .serial = 2 }, b = { .serial = 1 };

    (void)state;
    credentials_set_secret(&a, "new");
    credentials_set_secret(&b, "old");
    credentials_take_newer(&a, &b);
    assert_string_equal(a.secret, "new");
    credentials_take_newer(&b, &a);
    assert_string_equal(b.secret, "new");
    assert_int_equal(b.serial, 2);
    credentials_clear(&a);
    credentials_clear(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_clients_stay_together_until_their_worker_is_busy),
        cmocka_unit_test(test_a_worker_that_is_not_needed_gives_its_clients_back),
        cmocka_unit_test(test_one_client_that_fills_a_worker_stays),
        cmocka_unit_test(test_who_has_more_to_say_goes_later),
        cmocka_unit_test(test_who_hangs_up_on_another_worker_is_gone),
        cmocka_unit_test(test_statements_and_settings_go_along),
        cmocka_unit_test(test_a_cancel_finds_who_has_moved),
        cmocka_unit_test(test_the_later_login_s_credentials_win),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
