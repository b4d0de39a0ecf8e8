#include "proxy/config.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static struct config *parse(const char *text)
{
    struct err e = { 0 };
    struct config *c = config_parse(str_from(text), "x.ini", &e);
    if (c == NULL)
        fail_msg("%s", e.message);
    return c;
}

static void assert_refused(const char *text, const char *message)
{
    struct err e = { 0 };
    struct config *c = config_parse(str_from(text), "x.ini", &e);
    assert_null(c);
    assert_int_equal(e.class, ERR_CONFIG);
    assert_string_equal(e.message, message);
    err_clear(&e);
}

static const char *shown(const struct config *c, const char *key, struct arena *a)
{
    for (size_t i = 0; i < config_key_count(); i++) {
        struct config_shown out;
        config_show(c, i, a, &out);
        if (strcmp(out.key, key) == 0)
            return out.value;
    }
    return NULL;
}

static void test_an_empty_file_has_the_defaults(void **state)
{
    (void)state;
    struct arena a;
    arena_init(&a);
    struct config *c = parse("");
    assert_int_equal(c->listen_port, 6432);
    assert_int_equal(c->auth_type, AUTH_TYPE_MD5);
    assert_int_equal(c->pool_mode, POOL_MODE_SESSION);
    assert_int_equal(c->default_pool_size, 20);
    assert_int_equal(c->max_client_conn, 100);
    assert_true(c->query_wait_timeout_us == 120 * INT64_C(1000000));
    assert_int_equal(c->server_tls_sslmode, SSLMODE_PREFER);
    assert_int_equal(c->unix_socket_mode, 0777);
    assert_int_equal(c->dvm_max_workers, 4);
    assert_int_equal(c->dvm_scheduler_interval_ms, 1000);
    assert_string_equal(c->dvm_user, "");
    assert_string_equal(c->server_check_query, "<empty>");
    assert_string_equal(c->conffile, "x.ini");
    assert_null(c->fallback_database);

    /* Every default, written into a file, is taken and means itself. */
    for (size_t i = 0; i < config_key_count(); i++) {
        struct config_shown out;
        config_show(c, i, &a, &out);
        if (strcmp(out.key, "conffile") == 0)
            continue;
        assert_string_equal(out.value, out.fallback);
        struct config *again =
            parse(arena_printf(&a, "[pgbouncer]\n%s = %s\n", out.key, out.fallback));
        assert_string_equal(shown(again, out.key, &a), out.fallback);
        config_unref(again);
    }
    config_unref(c);
    arena_free(&a);
}

static void test_keys_are_shown_in_order(void **state)
{
    (void)state;
    struct arena a;
    arena_init(&a);
    struct config *c = parse("");
    for (size_t i = 1; i < config_key_count(); i++) {
        struct config_shown one, two;
        config_show(c, i - 1, &a, &one);
        config_show(c, i, &a, &two);
        assert_true(strcmp(one.key, two.key) < 0);
    }
    config_unref(c);
    arena_free(&a);
}

static void test_both_names_of_the_main_section(void **state)
{
    (void)state;
    struct config *c = parse("[pgtrickle]\nlisten_port=1\n[pgbouncer]\nlisten_addr = *\n");
    assert_int_equal(c->listen_port, 1);
    assert_string_equal(c->listen_addr, "*");
    config_unref(c);
}

static void test_values_of_each_kind(void **state)
{
    (void)state;
    struct arena a;
    arena_init(&a);
    struct config *c = parse("[pgbouncer]\n"
                             "max_client_conn = 0x10\n"
                             "min_pool_size = 010\n"
                             "query_timeout = 1.5\n"
                             "auth_type = SCRAM-SHA-256\n"
                             "pool_mode = Transaction\n"
                             "log_stats = 0\n"
                             "unix_socket_mode = 0770\n"
                             "server_tls_sslmode = allow\n"
                             "client_tls_protocols = tlsv1.2,tlsv1.3\n"
                             "syslog_facility = LOCAL3\n"
                             "service_name = x\n"
                             "server_check_query =\n"
                             "admin_users = a, b\n");
    assert_int_equal(c->max_client_conn, 16);
    assert_int_equal(c->min_pool_size, 8);
    assert_true(c->query_timeout_us == 1500000);
    assert_string_equal(shown(c, "query_timeout", &a), "1.5");
    assert_int_equal(c->auth_type, AUTH_TYPE_SCRAM_SHA_256);
    assert_int_equal(c->pool_mode, POOL_MODE_TRANSACTION);
    assert_false(c->log_stats);
    assert_int_equal(c->unix_socket_mode, 0770);
    assert_string_equal(shown(c, "unix_socket_mode", &a), "0770");
    assert_int_equal(c->server_tls_sslmode, SSLMODE_ALLOW);
    assert_string_equal(c->job_name, "x");
    assert_string_equal(c->server_check_query, "");
    assert_true(config_list_has(c->admin_users, STR("a")));
    assert_true(config_list_has(c->admin_users, STR("b")));
    assert_false(config_list_has(c->admin_users, STR("A")));
    assert_false(config_list_has(c->admin_users, STR("")));
    assert_true(config_list_has_nocase(c->admin_users, STR("A")));
    config_unref(c);
    arena_free(&a);
}

static void test_mistakes_are_named(void **state)
{
    (void)state;
    assert_refused("[nonsense]", "x.ini:1: unknown section [nonsense]");
    assert_refused("a = 1", "x.ini:1: \"a\" stands before any section");
    assert_refused("[pgbouncer]\n\nmax_clients = 1", "x.ini:3: unknown parameter \"max_clients\"");
    assert_refused("[pgbouncer]\nmax_client_conn = many",
                   "x.ini:2: invalid value \"many\" for \"max_client_conn\": it is no number");
    assert_refused("[pgbouncer]\nmax_client_conn = 12x",
                   "x.ini:2: invalid value \"12x\" for \"max_client_conn\": it is no number");
    assert_refused("[pgbouncer]\nmax_client_conn =",
                   "x.ini:2: invalid value \"\" for \"max_client_conn\": it is no number");
    assert_refused("[pgbouncer]\nmax_client_conn = -1",
                   "x.ini:2: invalid value \"-1\" for \"max_client_conn\": it is out of range");
    assert_refused("[pgbouncer]\nlisten_port = 65536",
                   "x.ini:2: invalid value \"65536\" for \"listen_port\": it is out of range");
    assert_refused(
        "[pgbouncer]\nquery_timeout = nan",
        "x.ini:2: invalid value \"nan\" for \"query_timeout\": it is no number of seconds");
    assert_refused("[pgbouncer]\nquery_timeout = -1",
                   "x.ini:2: invalid value \"-1\" for \"query_timeout\": it is out of range");
    assert_refused(
        "[pgbouncer]\npool_mode = fast",
        "x.ini:2: invalid value \"fast\" for \"pool_mode\": it is not one of its values");
    assert_refused(
        "[pgbouncer]\nsyslog_facility = kitchen",
        "x.ini:2: invalid value \"kitchen\" for \"syslog_facility\": it is no syslog facility");
    assert_refused(
        "[pgbouncer]\nclient_tls_protocols = tlsv9",
        "x.ini:2: invalid value \"tlsv9\" for \"client_tls_protocols\": it is no list of "
        "TLS versions");
    assert_refused("[pgbouncer]\nlog_stats = yes",
                   "x.ini:2: invalid value \"yes\" for \"log_stats\": it is no number");
    assert_refused("[databases]\npgbouncer = host=h",
                   "x.ini:2: database name \"pgbouncer\" is reserved for the console");
    assert_refused("[databases]\na = hots=h",
                   "x.ini:2: unrecognized connection parameter \"hots\"");
    assert_refused("[databases]\na = host=h port=0",
                   "x.ini:2: invalid value \"0\" for \"port\": it is out of range");
    assert_refused("[databases]\na = host=,", "x.ini:2: host=\",\" names no host");
    assert_refused("[databases]\na = auth_dbname=pgbouncer",
                   "x.ini:2: cannot use the reserved \"pgbouncer\" database as an auth_dbname");
    assert_refused("[pgbouncer]\nauth_dbname=pgbouncer",
                   "x.ini: cannot use the reserved \"pgbouncer\" database as an auth_dbname");
    assert_refused("[users]\na = port=1", "x.ini:2: unrecognized connection parameter \"port\"");
    assert_refused("[peers]\n1 = port=1", "x.ini:2: peer 1 needs a host");
    assert_refused("[peers]\nx = host=h", "x.ini:2: invalid peer_id \"x\": it is no number");
    assert_refused("[peers]\n0 = host=h", "x.ini:2: invalid peer_id \"0\": it is out of range");
}

static void test_certificates_that_nobody_checks_are_no_login(void **state)
{
    (void)state;
    static const char *const refused[] = {
        "auth_type = cert",
        "auth_type = cert\nclient_tls_sslmode = require\nclient_tls_ca_file = ca\n"
        "client_tls_key_file = k\nclient_tls_cert_file = c",
        "auth_type = cert\nclient_tls_sslmode = verify-full\n"
        "client_tls_key_file = k\nclient_tls_cert_file = c",
    };
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        char text[256];
        struct err e = { 0 };
        snprintf(text, sizeof(text), "[pgbouncer]\n%s\n", refused[i]);
        assert_null(config_parse(str_from(text), "x.ini", &e));
        assert_string_equal(e.sqlstate, "F0000");
        err_clear(&e);
    }
}

static void test_databases(void **state)
{
    (void)state;
    struct config *c = parse("[databases]\n"
                             "b = host=h1,h2 port=5433 dbname='the b' user=u password='p w' "
                             "pool_size=3 reserve_pool=4 pool_mode=statement "
                             "connect_query='select ''1''' load_balance_hosts=disable "
                             "query_wait_timeout=0 dvm_user=d\n"
                             "a =\n"
                             "* = host=/run/x\n"
                             "'q d' = pool_size=-1\n");
    assert_int_equal(c->n_databases, 3);
    const struct config_database *b = config_find_database(c, STR("b"));
    assert_int_equal(b->n_hosts, 2);
    assert_string_equal(b->hosts[0], "h1");
    assert_string_equal(b->hosts[1], "h2");
    assert_int_equal(b->port, 5433);
    assert_string_equal(b->dbname, "the b");
    assert_string_equal(b->password, "p w");
    assert_int_equal(b->pool_size, 3);
    assert_int_equal(b->reserve_pool_size, 4);
    assert_int_equal(b->pool_mode, POOL_MODE_STATEMENT);
    assert_string_equal(b->connect_query, "select '1'");
    assert_int_equal(b->load_balance_hosts, LOAD_BALANCE_HOSTS_DISABLE);
    assert_true(b->query_wait_timeout_us == 0);

    const struct config_database *a = config_find_database(c, STR("a"));
    assert_null(a->host);
    assert_int_equal(a->n_hosts, 0);
    assert_int_equal(a->port, 5432);
    assert_int_equal(a->pool_size, -1);
    assert_true(a->server_lifetime_us == -1);
    assert_int_equal(a->pool_mode, POOL_MODE_UNSET);
    assert_int_equal(config_find_database(c, STR("q d"))->pool_size, -1);
    assert_null(config_find_database(c, STR("*")));

    bool is_auto;
    assert_ptr_equal(config_route(c, STR("a"), &is_auto), a);
    assert_false(is_auto);
    const struct config_database *other = config_route(c, STR("other"), &is_auto);
    assert_true(is_auto);
    assert_ptr_equal(other, c->fallback_database);
    assert_true(str_equal(config_server_dbname(other, STR("other")), STR("other")));
    assert_true(str_equal(config_server_dbname(b, STR("b")), STR("the b")));
    config_unref(c);

    c = parse("[databases]\na=\n");
    assert_null(config_route(c, STR("b"), &is_auto));
    assert_false(is_auto);
    config_unref(c);
}

static void test_the_last_entry_of_a_name_wins(void **state)
{
    (void)state;
    struct config *c =
        parse("[databases]\n"
              "x = port=1 pool_size=7\ny = port=2\nx = port=3\nz = port=4\nx = port=5\n"
              "* = port=6\n* = port=7\n"
              "[users]\nu = pool_size=1\nu = pool_size=2\n"
              "[peers]\n3 = host=a\n3 = host=b\n5 = host=own\n"
              "[pgbouncer]\nverbose=1\nverbose=2\npeer_id = 5\n");
    assert_int_equal(c->n_databases, 3);
    assert_string_equal(c->databases[0].name, "x");
    assert_int_equal(c->databases[0].port, 5);
    assert_int_equal(c->databases[0].pool_size, -1);
    assert_string_equal(c->databases[1].name, "y");
    assert_string_equal(c->databases[2].name, "z");
    assert_int_equal(c->fallback_database->port, 7);
    assert_int_equal(c->n_users, 1);
    assert_int_equal(config_find_user(c, STR("u"))->pool_size, 2);
    assert_int_equal(c->verbose, 2);
    assert_int_equal(c->n_peers, 1);
    assert_string_equal(config_find_peer(c, 3)->host, "b");
    assert_int_equal(config_find_peer(c, 3)->port, 6432);
    assert_null(config_find_peer(c, 5));
    config_unref(c);
}

static void test_which_setting_wins(void **state)
{
    (void)state;
    struct config *c = parse("[databases]\n"
                             "plain =\n"
                             "own = pool_size=0 pool_mode=transaction min_pool_size=2 "
                             "reserve_pool_size=3 max_db_connections=4 server_lifetime=60 "
                             "query_wait_timeout=7 max_db_client_connections=5\n"
                             "zero = max_db_connections=0 server_lifetime=0 query_wait_timeout=0\n"
                             "[users]\n"
                             "u = pool_size=9 pool_mode=statement max_user_connections=8 "
                             "query_timeout=3 query_wait_timeout=2\n"
                             "none = query_timeout=0 query_wait_timeout=0\n"
                             "[pgbouncer]\n"
                             "default_pool_size=11\nmax_db_connections=12\nserver_lifetime=100\n"
                             "query_timeout=13\nmax_user_connections=14\nquery_wait_timeout=15\n"
                             "max_db_client_connections=16\nmax_user_client_connections=17\n"
                             "transaction_timeout=18\n");
    const struct config_database *plain = config_find_database(c, STR("plain"));
    const struct config_database *own = config_find_database(c, STR("own"));
    const struct config_database *zero = config_find_database(c, STR("zero"));
    const struct config_user *u = config_find_user(c, STR("u"));
    const struct config_user *none = config_find_user(c, STR("none"));

    assert_int_equal(config_pool_size(c, plain, NULL), 11);
    assert_int_equal(config_pool_size(c, own, NULL), 0);
    assert_int_equal(config_pool_size(c, own, u), 9);
    assert_int_equal(config_pool_size(c, own, none), 0);
    assert_int_equal(config_pool_mode(c, plain, NULL), POOL_MODE_SESSION);
    assert_int_equal(config_pool_mode(c, own, none), POOL_MODE_TRANSACTION);
    assert_int_equal(config_pool_mode(c, own, u), POOL_MODE_STATEMENT);
    assert_int_equal(config_reserve_pool_size(c, own, u), 3);
    assert_int_equal(config_min_pool_size(c, own), 2);
    assert_int_equal(config_min_pool_size(c, plain), 0);
    assert_int_equal(config_max_db_connections(c, own), 4);
    assert_int_equal(config_max_db_connections(c, zero), 12);
    assert_int_equal(config_max_db_client_connections(c, own), 5);
    assert_int_equal(config_max_db_client_connections(c, plain), 16);
    assert_true(config_server_lifetime_us(c, own) == 60000000);
    assert_true(config_server_lifetime_us(c, zero) == 100000000);
    assert_int_equal(config_max_user_connections(c, u), 8);
    assert_int_equal(config_max_user_connections(c, NULL), 14);
    assert_int_equal(config_max_user_client_connections(c, u), 17);
    assert_true(config_query_timeout_us(c, u) == 3000000);
    assert_true(config_query_timeout_us(c, none) == 13000000);
    assert_true(config_transaction_timeout_us(c, u) == 18000000);
    assert_true(config_query_wait_timeout_us(c, plain, NULL) == 15000000);
    assert_true(config_query_wait_timeout_us(c, own, NULL) == 7000000);
    assert_true(config_query_wait_timeout_us(c, own, u) == 2000000);
    assert_true(config_query_wait_timeout_us(c, zero, NULL) == 0);
    assert_true(config_query_wait_timeout_us(c, own, none) == 0);
    config_unref(c);
}

static void test_how_the_maintenance_side_logs_in(void **state)
{
    (void)state;
    struct config *c = parse("[databases]\n"
                             "plain =\n"
                             "forced = user=f password=fp\n"
                             "own = user=f password=fp dvm_user=d dvm_password=dp\n");
    const struct config_database *plain = config_find_database(c, STR("plain"));
    const struct config_database *forced = config_find_database(c, STR("forced"));
    const struct config_database *own = config_find_database(c, STR("own"));
    assert_string_equal(config_dvm_user(c, plain), "postgres");
    assert_string_equal(config_dvm_password(c, plain), "");
    assert_string_equal(config_dvm_user(c, forced), "f");
    assert_string_equal(config_dvm_password(c, forced), "fp");
    assert_string_equal(config_dvm_user(c, own), "d");
    assert_string_equal(config_dvm_password(c, own), "dp");
    config_unref(c);

    c = parse("[databases]\nforced = user=f password=fp\nown = dvm_user=d\n"
              "[pgtrickle]\ndvm_user = g\ndvm_password = gp\n");
    assert_string_equal(config_dvm_user(c, config_find_database(c, STR("forced"))), "g");
    assert_string_equal(config_dvm_password(c, config_find_database(c, STR("forced"))), "gp");
    assert_string_equal(config_dvm_user(c, config_find_database(c, STR("own"))), "d");
    config_unref(c);
}

static void test_a_password_is_not_shown(void **state)
{
    (void)state;
    struct arena a;
    arena_init(&a);
    struct config *c = parse("[pgtrickle]\ndvm_password = hush\n");
    assert_string_equal(shown(c, "dvm_password", &a), "********");
    assert_string_equal(c->dvm_password, "hush");
    config_unref(c);
    arena_free(&a);
}

static void test_what_has_no_effect_is_listed(void **state)
{
    (void)state;
    struct arena a;
    arena_init(&a);
    struct config *c = parse("[pgbouncer]\nmax_client_conn = 5\n");
    assert_string_equal(config_without_effect(c, &a), "");
    config_unref(c);
    c = parse("[pgbouncer]\nsbuf_loopcnt = 7\npkt_buf = 4096\nresolv_conf = x\n"
              "[peers]\n1 = host=h\n");
    assert_string_equal(config_without_effect(c, &a), "resolv_conf, sbuf_loopcnt");
    config_unref(c);
    arena_free(&a);
}

static void test_set_makes_a_changed_copy(void **state)
{
    (void)state;
    struct err e = { 0 };
    struct config *c = parse("[databases]\na = host=h1,h2 port=5 user=u\n* =\n"
                             "[users]\nu = pool_size=4\n[peers]\n2 = host=p\n"
                             "[pgbouncer]\nmax_client_conn=7\nadmin_users=x\n");
    struct config *d = config_set(c, STR("max_client_conn"), STR("8"), &e);
    assert_non_null(d);
    config_unref(c);

    assert_int_equal(d->max_client_conn, 8);
    assert_string_equal(d->admin_users, "x");
    const struct config_database *a = config_find_database(d, STR("a"));
    assert_int_equal(a->n_hosts, 2);
    assert_string_equal(a->hosts[1], "h2");
    assert_string_equal(a->user, "u");
    assert_non_null(d->fallback_database);
    assert_int_equal(config_find_user(d, STR("u"))->pool_size, 4);
    assert_string_equal(config_find_peer(d, 2)->host, "p");

    /* Read at start only: acknowledged, without effect; a bad value is still bad. */
    struct config *f = config_set(d, STR("listen_port"), STR("1"), &e);
    assert_non_null(f);
    assert_int_equal(f->listen_port, 6432);
    config_unref(f);
    assert_null(config_set(d, STR("listen_port"), STR("x"), &e));
    assert_null(config_set(d, STR("no_such"), STR("1"), &e));
    assert_string_equal(e.message, "unknown parameter \"no_such\"");
    assert_null(config_set(d, STR("max_client_conn"), STR("x"), &e));
    assert_null(config_set(d, STR("client_tls_sslmode"), STR("require"), &e));
    assert_null(config_set(d, STR("admin_users"), (struct str){ "a\0b", 3 }, &e));
    err_clear(&e);
    config_unref(d);
}

static void put_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void test_reload_keeps_what_is_read_at_start(void **state)
{
    (void)state;
    struct err e = { 0 };
    char path[] = "/tmp/pgtrickle-test-config-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    put_file(path, "[pgbouncer]\nlisten_port=1\nmax_client_conn=1\nverbose=1\n[databases]\na=\n");
    struct config *c = config_load(path, &e);
    assert_non_null(c);

    put_file(path, "[pgbouncer]\nlisten_port=2\nmax_client_conn=2\n[databases]\nb=\n");
    struct config *d = config_reload(c, &e);
    assert_non_null(d);
    assert_int_equal(d->listen_port, 1);
    assert_int_equal(d->max_client_conn, 2);
    assert_int_equal(d->verbose, 0);
    assert_null(config_find_database(d, STR("a")));
    assert_non_null(config_find_database(d, STR("b")));
    assert_non_null(config_find_database(c, STR("a")));

    put_file(path, "[pgbouncer]\nmax_client_conn=3\nnonsense=1\n");
    assert_null(config_reload(d, &e));
    assert_non_null(strstr(e.message, ":3: unknown parameter \"nonsense\""));
    assert_int_equal(d->max_client_conn, 2);
    unlink(path);
    assert_null(config_reload(d, &e));
    err_clear(&e);
    config_unref(c);
    config_unref(d);
}

static void test_which_changes_need_new_server_connections(void **state)
{
    (void)state;
    static const char *const dirty[] = { "dbname=z",        "host=z",
                                         "port=9",          "user=z",
                                         "connect_query=z", "auth_dbname=z",
                                         "auth_query=z",    "load_balance_hosts=disable" };
    struct config *c = parse("[databases]\na = pool_size=1\nb = pool_size=2 pool_mode=statement\n");
    const struct config_database *a = config_find_database(c, STR("a"));
    assert_true(config_database_same_server(a, config_find_database(c, STR("b"))));
    for (size_t i = 0; i < sizeof(dirty) / sizeof(dirty[0]); i++) {
        char text[128];
        snprintf(text, sizeof(text), "[databases]\na = %s\n", dirty[i]);
        struct config *d = parse(text);
        assert_false(config_database_same_server(a, config_find_database(d, STR("a"))));
        config_unref(d);
    }
    config_unref(c);
}

static void test_many_databases_are_found(void **state)
{
    (void)state;
    struct arena a;
    arena_init(&a);
    char *text = malloc(1 << 20);
    size_t len = (size_t)sprintf(text, "[databases]\n");
    for (int i = 0; i < 5000; i++)
        len += (size_t)sprintf(text + len, "db%d = port=%d\n", (i * 7919) % 5000,
                               (i * 7919) % 5000 + 1);
    struct config *c = parse(text);
    assert_int_equal(c->n_databases, 5000);
    for (int i = 0; i < 5000; i++)
        assert_int_equal(config_find_database(c, str_from(arena_printf(&a, "db%d", i)))->port,
                         i + 1);
    config_unref(c);
    free(text);
    arena_free(&a);
}

/* The examples work as they are, and the minimal one is short. */
static void test_every_file_in_conf_loads(void **state)
{
    (void)state;
    DIR *dir = opendir("conf");
    assert_non_null(dir);
    int n = 0;
    struct dirent *entry;
    while ((entry = readdir(dir)) != NULL) {
        const char *dot = strrchr(entry->d_name, '.');
        if (dot == NULL || strcmp(dot, ".ini") != 0)
            continue;
        char path[512];
        struct err e = { 0 };
        snprintf(path, sizeof(path), "conf/%s", entry->d_name);
        struct config *c = config_load(path, &e);
        if (c == NULL)
            fail_msg("%s", e.message);
        assert_true(c->n_databases > 0 || c->fallback_database != NULL);
        config_unref(c);
        n++;
    }
    closedir(dir);
    assert_true(n >= 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_empty_file_has_the_defaults),
        cmocka_unit_test(test_keys_are_shown_in_order),
        cmocka_unit_test(test_both_names_of_the_main_section),
        cmocka_unit_test(test_values_of_each_kind),
        cmocka_unit_test(test_mistakes_are_named),
        cmocka_unit_test(test_certificates_that_nobody_checks_are_no_login),
        cmocka_unit_test(test_databases),
        cmocka_unit_test(test_the_last_entry_of_a_name_wins),
        cmocka_unit_test(test_which_setting_wins),
        cmocka_unit_test(test_how_the_maintenance_side_logs_in),
        cmocka_unit_test(test_a_password_is_not_shown),
        cmocka_unit_test(test_what_has_no_effect_is_listed),
        cmocka_unit_test(test_set_makes_a_changed_copy),
        cmocka_unit_test(test_reload_keeps_what_is_read_at_start),
        cmocka_unit_test(test_which_changes_need_new_server_connections),
        cmocka_unit_test(test_many_databases_are_found),
        cmocka_unit_test(test_every_file_in_conf_loads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
