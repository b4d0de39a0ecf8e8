/* The ways to stop, SUSPEND, and what a service manager hears of it. */
#include "proxy/shutdown.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "protocol/query_simple.h"
#include "proxy/watchdog.h"
#include "tests/proxy/world.h"

#define USERS "\"ann\" \"secret\"\n\"admin\" \"secret\"\n"
#define INI "auth_type = trust\nadmin_users = admin\ndefault_pool_size = 1\n"
#define TRANSACTION INI "pool_mode = transaction\n"
#define SESSION INI "pool_mode = session\n"
#define END "E(57P01)"

static struct peer *console(struct world *w)
{
    struct peer *p = world_startup(w, "admin", "pgbouncer", NULL, NULL);

    peer_take(p);
    return p;
}

static const char *says(struct peer *p, const char *sql)
{
    client_says_query(p, sql);
    return peer_take(p);
}

static bool is_gone(const struct peer *p)
{
    return p->conn == NULL;
}

static struct peer *logged_in(struct world *w)
{
    struct peer *a = world_login(w, "ann", "db");

    assert_non_null(world_serve_login(w));
    assert_string_equal(peer_take(a), "RSSSSSSSKZ");
    return a;
}

/* A client in a transaction, and the server that it has. */
static struct peer *in_transaction(struct world *w, struct peer **server)
{
    struct peer *a = world_login(w, "ann", "db");

    *server = world_serve_login(w);
    assert_non_null(*server);
    client_says_query(a, "begin");
    server_says_done(*server, "BEGIN", 'T');
    peer_take(a);
    peer_take(*server);
    return a;
}

static void test_a_drain_sends_idle_clients_away_at_once(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);
    struct peer *a = logged_in(w);
    struct peer *admin = console(w);

    (void)state;
    peer_take(a);
    shutdown_begin(w->proxy, SHUTDOWN_WAIT_FOR_TRANSACTIONS);
    world_settle(w);
    assert_string_equal(peer_take(a), END);
    assert_true(is_gone(a));
    assert_false(is_gone(admin));
    assert_true(w->stopped);
    assert_string_equal(text_str(&w->notified).ptr, "STOPPING=1\nSTOPPING=1\n");
    world_free(w);
}

static void test_a_drain_lets_a_transaction_end(void **state)
{
    struct world *w = world_new(*state, USERS);
    struct peer *server = NULL;
    struct peer *a = in_transaction(w, &server);

    shutdown_begin(w->proxy, SHUTDOWN_WAIT_FOR_TRANSACTIONS);
    world_settle(w);
    assert_string_equal(peer_take(a), "");
    assert_false(w->stopped);
    client_says_query(a, "select 1");
    server_says_done(server, "SELECT 1", 'T');
    assert_string_equal(peer_take(a), "CZ");
    client_says_query(a, "commit");
    server_says_done(server, "COMMIT", 'I');
    assert_string_equal(peer_take(a), "CZ" END);
    assert_true(is_gone(a));
    assert_true(w->stopped);
    world_free(w);
}

static void test_a_drain_has_a_deadline(void **state)
{
    struct world *w = world_new(TRANSACTION "drain_timeout = 3\n", USERS);
    struct peer *server = NULL;
    struct peer *a = in_transaction(w, &server);

    (void)state;
    shutdown_begin(w->proxy, SHUTDOWN_WAIT_FOR_TRANSACTIONS);
    world_sleep(w, 2.9);
    assert_false(is_gone(a));
    world_sleep(w, 0.2);
    assert_string_equal(peer_take(a), END);
    assert_true(is_gone(server)); /* its transaction is not for others */
    assert_true(w->stopped);
    world_free(w);
}

static void test_a_new_client_in_a_shutdown_is_told(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);
    struct peer *server = NULL;
    struct peer *a = in_transaction(w, &server);

    (void)state;
    shutdown_begin(w->proxy, SHUTDOWN_WAIT_FOR_CLIENTS);
    world_settle(w);
    struct peer *b = world_startup(w, "ann", "db", NULL, NULL);
    assert_string_equal(peer_take(b), "E(08P01)");
    assert_string_equal(says(a, "select 1"), "");
    server_says_done(server, "SELECT 1", 'T');
    assert_string_equal(peer_take(a), "CZ");
    struct peer *admin = console(w);
    assert_string_equal(says(admin, "RESUME"), "E(08P01)Z");
    peer_hang_up(a);
    assert_true(w->stopped);
    world_free(w);
}

static void test_waiting_for_servers_fails_who_waits(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);
    struct peer *server = NULL;
    struct peer *a = in_transaction(w, &server);
    struct peer *b = world_login(w, "ann", "db");

    (void)state;
    peer_take(b);
    client_says_query(b, "select 1");
    shutdown_begin(w->proxy, SHUTDOWN_WAIT_FOR_SERVERS);
    world_settle(w);
    assert_string_equal(peer_take(b), END);
    client_says_query(a, "commit");
    server_says_done(server, "COMMIT", 'I');
    assert_string_equal(peer_take(a), "CZ");
    assert_true(is_gone(server));
    assert_true(w->stopped);
    world_free(w);
}

static void test_a_second_signal_ends_it_at_once(void **state)
{
    static const int signals[] = { SIGTERM, SIGINT };

    (void)state;
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
        struct world *w = world_new(TRANSACTION, USERS);
        struct peer *server = NULL;
        in_transaction(w, &server);
        shutdown_on_signal(w->proxy, signals[i]);
        world_settle(w);
        assert_false(w->stopped);
        shutdown_on_signal(w->proxy, SIGUSR2); /* ignored */
        assert_int_equal(w->proxy->paused, signals[i] == SIGINT);
        shutdown_on_signal(w->proxy, signals[i]);
        assert_true(w->stopped);
        world_free(w);
    }
    struct world *w = world_new(TRANSACTION, USERS);
    shutdown_on_signal(w->proxy, SIGQUIT);
    assert_true(w->stopped);
    world_free(w);
}

static void test_sigterm_does_what_shutdown_mode_says(void **state)
{
    struct world *w = world_new(TRANSACTION "shutdown_mode = wait_for_transactions\n", USERS);
    struct peer *a = logged_in(w);

    (void)state;
    shutdown_on_signal(w->proxy, SIGTERM);
    world_settle(w);
    assert_string_equal(peer_take(a), END);
    assert_true(w->stopped);
    world_free(w);
}

static void test_usr1_and_usr2_are_pause_and_resume(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);
    struct peer *admin = console(w);

    (void)state;
    shutdown_on_signal(w->proxy, SIGUSR1);
    assert_true(w->proxy->paused);
    assert_string_equal(says(admin, "PAUSE"), "E(08P01)Z");
    assert_string_equal(says(admin, "SUSPEND"), "E(08P01)Z");
    assert_string_equal(says(admin, "KILL"), "E(08P01)Z");
    shutdown_on_signal(w->proxy, SIGUSR2);
    assert_false(w->proxy->paused);
    world_free(w);
}

static void test_suspend_answers_when_all_is_sent(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);
    struct peer *server = NULL;
    struct peer *a = in_transaction(w, &server);
    struct peer *admin = console(w);

    (void)state;
    a->window = 0;
    client_says_query(a, "select 1");
    server_says_done(server, "SELECT 1", 'T');
    assert_string_equal(says(admin, "SUSPEND"), "");
    assert_false(a->reading || server->reading || w->accepts);
    world_sleep(w, 1);
    assert_string_equal(peer_take(admin), "");
    peer_open_window(a, SIZE_MAX);
    world_sleep(w, 1);
    assert_string_equal(peer_take(a), "CZ");
    assert_string_equal(peer_take(admin), "CZ");
    assert_string_equal(says(admin, "RESUME"), "CZ");
    assert_true(a->reading && server->reading && w->accepts);
    client_says_query(a, "commit");
    server_says_done(server, "COMMIT", 'I');
    assert_string_equal(peer_take(a), "CZ");
    world_free(w);
}

static void test_suspend_timeout_closes_who_does_not_take_his_bytes(void **state)
{
    struct world *w = world_new(TRANSACTION "suspend_timeout = 2\n", USERS);
    struct peer *server = NULL;
    struct peer *a = in_transaction(w, &server);
    struct peer *admin = console(w);

    (void)state;
    a->window = 0;
    client_says_query(a, "select 1");
    server_says_done(server, "SELECT 1", 'T');
    assert_string_equal(says(admin, "SUSPEND"), "");
    world_sleep(w, 1.9);
    assert_false(is_gone(a));
    world_sleep(w, 0.2);
    assert_true(is_gone(a));
    assert_string_equal(peer_take(admin), "CZ");
    world_free(w);
}

static void test_a_suspend_ends_with_the_last_console(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);
    struct peer *a = logged_in(w);
    struct peer *admin = console(w), *other = console(w);

    (void)state;
    assert_string_equal(says(admin, "SUSPEND"), "CZ");
    assert_false(a->reading || w->accepts);
    peer_hang_up(admin);
    assert_true(w->proxy->suspended);
    peer_hang_up(other);
    assert_false(w->proxy->suspended);
    assert_true(a->reading && w->accepts);
    world_free(w);
}

static void test_a_suspend_needs_running_databases(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);
    struct peer *admin = console(w);

    (void)state;
    assert_string_equal(says(admin, "PAUSE db"), "CZ");
    assert_string_equal(says(admin, "SUSPEND"), "E(08P01)Z");
    assert_string_equal(says(admin, "RESUME db"), "CZ");
    assert_string_equal(says(admin, "RESUME"), "E(08P01)Z");
    world_free(w);
}

static int count(const char *in, const char *what)
{
    int n = 0;

    while ((in = strstr(in, what)) != NULL) {
        n++;
        in += strlen(what);
    }
    return n;
}

static void test_the_watchdog_hears_of_us_in_time(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);
    struct watchdog *d = watchdog_new(w->proxy, 4000000);

    (void)state;
    world_sleep(w, 8);
    assert_in_range(count(text_str(&w->notified).ptr, "WATCHDOG=1"), 8, 9);
    world_free(w);
    watchdog_free(d);
}

#define WITH(test, ini)                                                                            \
    {                                                                                              \
#test " (" #ini ")", test, NULL, NULL, (void *)(uintptr_t)(ini)                            \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_drain_sends_idle_clients_away_at_once),
        WITH(test_a_drain_lets_a_transaction_end, TRANSACTION),
        WITH(test_a_drain_lets_a_transaction_end, SESSION),
        cmocka_unit_test(test_a_drain_has_a_deadline),
        cmocka_unit_test(test_a_new_client_in_a_shutdown_is_told),
        cmocka_unit_test(test_waiting_for_servers_fails_who_waits),
        cmocka_unit_test(test_a_second_signal_ends_it_at_once),
        cmocka_unit_test(test_sigterm_does_what_shutdown_mode_says),
        cmocka_unit_test(test_usr1_and_usr2_are_pause_and_resume),
        cmocka_unit_test(test_suspend_answers_when_all_is_sent),
        cmocka_unit_test(test_suspend_timeout_closes_who_does_not_take_his_bytes),
        cmocka_unit_test(test_a_suspend_ends_with_the_last_console),
        cmocka_unit_test(test_a_suspend_needs_running_databases),
        cmocka_unit_test(test_the_watchdog_hears_of_us_in_time),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
