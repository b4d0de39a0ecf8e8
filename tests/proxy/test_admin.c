#include "proxy/admin.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include "base/text.h"
#include "protocol/message_types.h"
#include "protocol/notice.h"
#include "protocol/query_extended.h"
#include "protocol/query_simple.h"
#include "protocol/result.h"

/* A core with a few databases, pools and sockets, which notes the commands that it is given. */
struct fake_core {
    struct config *config;
    struct userlist *userlist;
    struct stats stats;
    struct stats_window window;
    struct text commands;
    enum admin_result answer;
};

static const struct config *fake_config(void *core)
{
    return ((struct fake_core *)core)->config;
}

static const struct userlist *fake_userlist(void *core)
{
    return ((struct fake_core *)core)->userlist;
}

/* In no order, as a hash map would give them. */
static void fake_databases(void *core, struct admin_sink *sink)
{
    struct fake_core *f = core;
    static const struct stats none;
    static const struct stats_window no_window;
    admin_put_database(sink, &(struct admin_database){ .name = ADMIN_DATABASE,
                                                       .client_connections = 1,
                                                       .stats = &none,
                                                       .window = &no_window });
    admin_put_database(sink, &(struct admin_database){ .name = "other",
                                                       .entry = f->config->fallback_database,
                                                       .paused = true,
                                                       .stats = &none,
                                                       .window = &no_window });
    admin_put_database(
        sink, &(struct admin_database){ .name = "app",
                                        .entry = config_find_database(f->config, STR("app")),
                                        .server_connections = 3,
                                        .client_connections = 5,
                                        .stats = &f->stats,
                                        .window = &f->window });
}

static void fake_pools(void *core, struct admin_sink *sink)
{
    struct fake_core *f = core;
    admin_put_pool(sink, &(struct admin_pool){
                             .database = ADMIN_DATABASE, .user = ADMIN_DATABASE, .cl_active = 1 });
    admin_put_pool(sink, &(struct admin_pool){ .database = "app",
                                               .user = "zoe",
                                               .entry = config_find_database(f->config, STR("app")),
                                               .cl_active = 2,
                                               .cl_waiting = 3,
                                               .sv_active = 4,
                                               .sv_idle = 5,
                                               .maxwait_us = 7000009,
                                               .sv_pinned = 1 });
    admin_put_pool(sink,
                   &(struct admin_pool){ .database = "app",
                                         .user = "bob",
                                         .entry = config_find_database(f->config, STR("app")) });
}

static void fake_clients(void *core, struct admin_sink *sink)
{
    (void)core;
    admin_put_socket(sink, &(struct admin_socket){ .user = "zoe",
                                                   .database = "app",
                                                   .state = "idle",
                                                   .addr = "127.0.0.1",
                                                   .port = 4000,
                                                   .local_addr = "127.0.0.1",
                                                   .local_port = 6432,
                                                   .connected_at_s = 1000000000,
                                                   .requested_at_s = 1000000001,
                                                   .wait_us = 2000003,
                                                   .self = core,
                                                   .application_name = "psql",
                                                   .prepared_statements = 2,
                                                   .id = 17 });
    admin_put_socket(sink, &(struct admin_socket){ .state = "login", .id = 18, .pkt_avail = 9 });
}

static void fake_servers(void *core, struct admin_sink *sink)
{
    (void)core;
    admin_put_socket(sink, &(struct admin_socket){ .is_server = true,
                                                   .user = "zoe",
                                                   .database = "app",
                                                   .state = "new",
                                                   .addr = "10.0.0.1",
                                                   .port = 5432,
                                                   .id = UINT64_C(1) << 40 });
}

static void fake_learned_users(void *core, struct admin_sink *sink)
{
    (void)core;
    admin_put_user(sink, "learned");
    admin_put_user(sink, "zoe");
}

static void fake_count_user(void *core, struct str user, int *servers, int *clients)
{
    (void)core;
    if (str_equal(user, STR("zoe"))) {
        *servers = 4;
        *clients = 5;
    }
}

static void fake_dns_hosts(void *core, struct admin_sink *sink)
{
    (void)core;
    admin_put_dns_host(sink, &(struct admin_dns_host){ "db1", 15, "10.0.0.1,10.0.0.2" });
}

static void fake_memory(void *core, struct admin_sink *sink)
{
    (void)core;
    admin_put_memory(sink, &(struct admin_memory){ "client", 100, 2, 1, 300 });
}

static struct admin_totals fake_totals(void *core)
{
    (void)core;
    return (struct admin_totals){ .active = true, .used_clients = 6, .dns_names = 1 };
}

static enum admin_result fake_perform(void *core, struct admin_session *session,
                                      const struct admin_command *c, struct err *e)
{
    struct fake_core *f = core;
    static const char *const names[] = {
        [ADMIN_PAUSE] = "pause",
        [ADMIN_RESUME] = "resume",
        [ADMIN_RECONNECT] = "reconnect",
        [ADMIN_KILL] = "kill",
        [ADMIN_WAIT_CLOSE] = "wait_close",
        [ADMIN_DISABLE] = "disable",
        [ADMIN_ENABLE] = "enable",
        [ADMIN_SUSPEND] = "suspend",
        [ADMIN_KILL_CLIENT] = "kill_client",
        [ADMIN_RELOAD] = "reload",
        [ADMIN_SHUTDOWN] = "shutdown",
        [ADMIN_SHUTDOWN_WAIT_FOR_SERVERS] = "shutdown_servers",
        [ADMIN_SHUTDOWN_WAIT_FOR_CLIENTS] = "shutdown_clients",
        [ADMIN_SHUTDOWN_WAIT_FOR_TRANSACTIONS] = "shutdown_transactions",
        [ADMIN_TAKEOVER] = "takeover",
        [ADMIN_TAKEOVER_DONE] = "takeover_done",
        [ADMIN_SET] = "set",
    };
    assert_non_null(session);
    text_printf(&f->commands, "%s(", names[c->verb]);
    if (c->database.ptr != NULL)
        text_printf(&f->commands, STR_FMT, STR_ARG(c->database));
    if (c->verb == ADMIN_KILL_CLIENT)
        text_printf(&f->commands, "%" PRIu64, c->id);
    if (c->verb == ADMIN_SET)
        text_printf(&f->commands, STR_FMT "=" STR_FMT, STR_ARG(c->key), STR_ARG(c->value));
    text_put(&f->commands, ")");
    if (f->answer == ADMIN_FAILED)
        err_set(e, ERR_REFUSAL, "08P01", "no such database: " STR_FMT, STR_ARG(c->database));
    return f->answer;
}

struct world {
    struct fake_core core;
    struct admin_view view;
    struct admin_session *session;
    struct bytequeue out;
    struct bytequeue in;
};

static int set_up(void **state)
{
    struct err e = { 0 };
    struct world *w = calloc(1, sizeof(*w));
    w->core.config =
        config_parse(STR("[databases]\n"
                         "app = host=h1,h2 port=5433 dbname=prod pool_size=7 user=forced\n"
                         "* = host=h3\n"
                         "[users]\nzoe = pool_size=3 pool_mode=transaction max_user_connections=9\n"
                         "[peers]\n2 = host=peer2\n"
                         "[pgtrickle]\nadmin_users = adm\nstats_users = watcher, other\n"),
                     "x.ini", &e);
    w->core.userlist = userlist_parse(STR("\"bob\" \"x\"\n\"zoe\" \"y\"\n"), "users", &e);
    assert_non_null(w->core.config);
    assert_non_null(w->core.userlist);
    w->core.stats = (struct stats){ 100, 200, 300, 400, 500, 600, 700, 800, 9, 10, 11, 12 };
    stats_window_init(&w->core.window, 0);
    stats_window_roll(&w->core.window, &w->core.stats, 10000000);
    text_init(&w->core.commands);
    text_put(&w->core.commands, "");
    w->core.answer = ADMIN_DONE;
    w->view = (struct admin_view){
        .core = &w->core,
        .version = "9.8.7",
        .config = fake_config,
        .userlist = fake_userlist,
        .databases = fake_databases,
        .pools = fake_pools,
        .clients = fake_clients,
        .servers = fake_servers,
        .learned_users = fake_learned_users,
        .count_user = fake_count_user,
        .memory = fake_memory,
        .dns_hosts = fake_dns_hosts,
        .totals = fake_totals,
        .perform = fake_perform,
    };
    w->session = admin_session_new(&w->view, ADMIN_RIGHTS_ADMIN, STR("adm"));
    *state = w;
    return 0;
}

static int tear_down(void **state)
{
    struct world *w = *state;
    admin_session_free(w->session);
    config_unref(w->core.config);
    userlist_unref(w->core.userlist);
    text_free(&w->core.commands);
    bytequeue_free(&w->out);
    bytequeue_free(&w->in);
    free(w);
    return 0;
}

/* ---- messages as text ---- */

static uint32_t be32(const char *at)
{
    const unsigned char *b = (const unsigned char *)at;
    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

static void print_columns(struct str body, struct text *t)
{
    uint16_t n;
    struct wire_cursor columns;
    struct row_column c;
    assert_true(wire_decode_row_description(body, &n, &columns));
    for (uint16_t i = 0; i < n; i++) {
        wire_next_row_column(&columns, &c);
        const char *type = c.type_oid == 25     ? ""
                           : c.type_oid == 23   ? ":i"
                           : c.type_oid == 20   ? ":q"
                           : c.type_oid == 1700 ? ":n"
                           : c.type_oid == 17   ? ":b"
                                                : ":?";
        text_printf(t, "%s" STR_FMT "%s%s", i > 0 ? " " : "", STR_ARG(c.name), type,
                    c.format ? "/b" : "");
    }
    assert_true(wire_ok(&columns));
}

static void print_values(struct str body, struct text *t)
{
    uint16_t n;
    struct wire_cursor values;
    assert_true(wire_decode_data_row(body, &n, &values));
    for (uint16_t i = 0; i < n; i++) {
        bool is_null;
        struct str v = wire_value(&values, &is_null);
        text_put(t, i > 0 ? "|" : "");
        if (is_null)
            text_put(t, "NULL");
        for (size_t j = 0; !is_null && j < v.len; j++) {
            if (v.ptr[j] >= ' ')
                text_put_char(t, v.ptr[j]);
            else
                text_printf(t, "\\%02x", (unsigned char)v.ptr[j]);
        }
    }
}

/* Everything in w->out, one message a line; takes it. */
static char *took(struct world *w)
{
    struct text t;
    text_init(&t);
    text_put(&t, "");
    while (bytequeue_len(&w->out) > 0) {
        struct str bytes = bytequeue_str(&w->out);
        assert_true(bytes.len >= 5);
        char tag = bytes.ptr[0];
        size_t len = 1 + be32(bytes.ptr + 1);
        assert_true(len <= bytes.len);
        struct str body = { bytes.ptr + 5, len - 5 };
        struct err e = { 0 };
        text_put_char(&t, tag);
        switch (tag) {
        case BE_ROW_DESCRIPTION:
            text_put(&t, " ");
            print_columns(body, &t);
            break;
        case BE_DATA_ROW:
            text_put(&t, " ");
            print_values(body, &t);
            break;
        case BE_COMMAND_COMPLETE:
            text_printf(&t, " %s", body.ptr);
            break;
        case BE_PARAMETER_STATUS:
            text_printf(&t, " %s=%s", body.ptr, body.ptr + strlen(body.ptr) + 1);
            break;
        case BE_ERROR:
        case BE_NOTICE:
            notice_decode_err(body, &e);
            text_printf(&t, " %s %s", e.sqlstate, e.message);
            err_clear(&e);
            break;
        default:
            break;
        }
        text_put(&t, "\n");
        bytequeue_consume(&w->out, len);
    }
    return t.ptr;
}

static enum admin_next query(struct world *w, const char *sql)
{
    return admin_on_message(w->session, 'Q', (struct str){ sql, strlen(sql) + 1 }, &w->out);
}

/* Sends the one message in w->in. */
static enum admin_next send_message(struct world *w)
{
    struct str bytes = bytequeue_str(&w->in);
    enum admin_next next = admin_on_message(w->session, bytes.ptr[0],
                                            (struct str){ bytes.ptr + 5, bytes.len - 5 }, &w->out);
    bytequeue_consume(&w->in, bytes.len);
    return next;
}

static void assert_took(struct world *w, const char *expected)
{
    char *got = took(w);
    assert_string_equal(got, expected);
    free(got);
}

static void assert_answer(struct world *w, const char *sql, const char *expected)
{
    assert_int_equal(query(w, sql), ADMIN_READY);
    assert_took(w, expected);
}

/* The first row whose first column is this. */
static void assert_row(struct world *w, const char *sql, const char *columns, const char *row)
{
    assert_int_equal(query(w, sql), ADMIN_READY);
    char *got = took(w);
    char line[1024];
    snprintf(line, sizeof(line), "T %s\n", columns);
    if (strncmp(got, line, strlen(line)) != 0)
        fail_msg("%s: expected\n%s, got\n%s", sql, line, got);
    snprintf(line, sizeof(line), "\nD %s\n", row);
    if (strstr(got, line) == NULL)
        fail_msg("%s: expected%s, got\n%s", sql, line, got);
    assert_string_equal(got + strlen(got) - strlen("C SHOW\nZ\n"), "C SHOW\nZ\n");
    free(got);
}

/* ---- who may enter ---- */

static void test_who_may_enter(void **state)
{
    struct world *w = *state;
    const struct config *c = w->core.config;
    assert_int_equal(admin_rights_of(c, STR("adm"), false), ADMIN_RIGHTS_ADMIN);
    assert_int_equal(admin_rights_of(c, STR("watcher"), false), ADMIN_RIGHTS_STATS);
    assert_int_equal(admin_rights_of(c, STR("other"), false), ADMIN_RIGHTS_STATS);
    assert_int_equal(admin_rights_of(c, STR("zoe"), false), ADMIN_RIGHTS_NONE);
    assert_int_equal(admin_rights_of(c, STR("pgbouncer"), false), ADMIN_RIGHTS_NONE);
    assert_int_equal(admin_rights_of(c, STR("pgbouncer"), true), ADMIN_RIGHTS_ADMIN);
    assert_int_equal(admin_rights_of(c, STR("zoe"), true), ADMIN_RIGHTS_NONE);
    assert_int_equal(admin_rights_of(c, STR(""), false), ADMIN_RIGHTS_NONE);
}

static void test_statistics_users_may_only_look(void **state)
{
    struct world *w = *state;
    static const char *const commands[] = { "PAUSE",      "RESUME",   "SHUTDOWN",
                                            "RELOAD",     "KILL app", "KILL_CLIENT 1",
                                            "SHOW FDS",   "SUSPEND",  "SET max_client_conn = 1",
                                            "DISABLE app" };
    admin_session_free(w->session);
    w->session = admin_session_new(&w->view, ADMIN_RIGHTS_STATS, STR("watcher"));
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
        assert_answer(w, commands[i], "E 08P01 admin access needed\nZ\n");
    assert_string_equal(w->core.commands.ptr, "");
    assert_answer(w, "SHOW VERSION", "T version\nD pgtrickle 9.8.7\nC SHOW\nZ\n");
}

static void test_login_parameters(void **state)
{
    struct world *w = *state;
    admin_put_login_parameters(&w->view, &w->out);
    assert_took(w, "S server_version=9.8.7/bouncer\nS client_encoding=UTF8\n"
                   "S server_encoding=UTF8\nS DateStyle=ISO\nS TimeZone=GMT\n"
                   "S standard_conforming_strings=on\nS is_superuser=on\n");
}

/* ---- what SHOW answers ---- */

static void test_show_small_things(void **state)
{
    struct world *w = *state;
    assert_answer(w, "show version;", "T version\nD pgtrickle 9.8.7\nC SHOW\nZ\n");
    assert_answer(w, "SELECT VERSION", "T version\nD pgtrickle 9.8.7\nC SHOW\nZ\n");
    assert_answer(w, "SHOW STATE",
                  "T key value\nD active|yes\nD paused|no\nD suspended|no\nC SHOW\nZ\n");
    assert_answer(w, "SHOW HELP", "N 00000 Console usage\nC SHOW\nZ\n");
    assert_answer(w, "SHOW PEERS",
                  "T peer_id:i host port:i pool_size:i\nD 2|peer2|6432|20\nC SHOW\nZ\n");
    assert_answer(w, "SHOW PEER_POOLS",
                  "T peer_id:i cl_active_cancel_req:i cl_waiting_cancel_req:i "
                  "sv_active_cancel:i sv_login:i\nC SHOW\nZ\n");
    assert_answer(w, "SHOW DNS_HOSTS",
                  "T hostname ttl:q addrs\nD db1|15|10.0.0.1,10.0.0.2\nC SHOW\nZ\n");
    assert_answer(w, "SHOW DNS_ZONES", "T zonename serial:q count:i\nC SHOW\nZ\n");
    assert_answer(w, "SHOW MEM",
                  "T name size:i used:i free:i memtotal:i\nD client|100|2|1|300\nC SHOW\nZ\n");
    assert_answer(
        w, "SHOW FDS",
        "T fd:i task user database addr port:i cancel:q link:i client_encoding std_strings "
        "datestyle timezone password scram_client_key:b scram_server_key:b\nC SHOW\nZ\n");
    assert_row(w, "SHOW CONFIG", "key value default changeable",
               "admin_users|adm||yes\nD application_name_add_host|0|0|yes");
    assert_row(w, "SHOW CONFIG", "key value default changeable", "listen_port|6432|6432|no");
}

static void test_show_databases(void **state)
{
    struct world *w = *state;
    assert_answer(
        w, "SHOW DATABASES",
        "T name host port:i database force_user pool_size:i min_pool_size:i "
        "reserve_pool_size:i server_lifetime:i pool_mode load_balance_hosts "
        "max_connections:i current_connections:i max_client_connections:i "
        "current_client_connections:i paused:i disabled:i\n"
        "D app|h1,h2|5433|prod|forced|7|0|0|3600|NULL|round-robin|0|3|0|5|0|0\n"
        "D other|h3|5432|other|NULL|20|0|0|3600|NULL|NULL|0|0|0|0|1|0\n"
        "D pgbouncer|NULL|6432|pgbouncer|pgbouncer|2|0|0|3600|statement|NULL|0|0|0|1|0|0\n"
        "C SHOW\nZ\n");
}

static void test_show_users(void **state)
{
    struct world *w = *state;
    assert_answer(w, "SHOW USERS",
                  "T name pool_size reserve_pool_size pool_mode max_user_connections:i "
                  "current_connections:i max_user_client_connections:i "
                  "current_client_connections:i\n"
                  "D bob|||NULL|0|0|0|0\nD forced|||NULL|0|0|0|0\nD learned|||NULL|0|0|0|0\n"
                  "D pgbouncer|||NULL|0|0|0|0\nD zoe|3||transaction|9|4|0|5\nC SHOW\nZ\n");
}

static void test_show_pools(void **state)
{
    struct world *w = *state;
    assert_answer(w, "SHOW POOLS",
                  "T database user cl_active:i cl_waiting:i cl_active_cancel_req:i "
                  "cl_waiting_cancel_req:i sv_active:i sv_active_cancel:i sv_being_canceled:i "
                  "sv_idle:i sv_used:i sv_tested:i sv_login:i maxwait:i maxwait_us:i pool_mode "
                  "load_balance_hosts sv_pinned:i\n"
                  "D app|bob|0|0|0|0|0|0|0|0|0|0|0|0|0|session|round-robin|0\n"
                  "D app|zoe|2|3|0|0|4|0|0|5|0|0|0|7|9|transaction|round-robin|1\n"
                  "D pgbouncer|pgbouncer|1|0|0|0|0|0|0|0|0|0|0|0|0|statement|NULL|0\n"
                  "C SHOW\nZ\n");
}

#define SOCKET_COLUMNS                                                                             \
    "type user database replication state addr port:i local_addr local_port:i connect_time "       \
    "request_time wait:i wait_us:i close_needed:i ptr link remote_pid:i tls application_name "     \
    "prepared_statements:i id:i"

static void test_show_sockets(void **state)
{
    struct world *w = *state;
    char row[512];
    setenv("TZ", "UTC", 1);
    tzset();
    snprintf(row, sizeof(row),
             "C|zoe|app|none|idle|127.0.0.1|4000|127.0.0.1|6432|2001-09-09 01:46:40 UTC|"
             "2001-09-09 01:46:41 UTC|2|3|0|%p||0||psql|2|17",
             (void *)&w->core);
    assert_row(w, "SHOW CLIENTS", SOCKET_COLUMNS, row);
    assert_row(w, "SHOW SERVERS", SOCKET_COLUMNS,
               "S|zoe|app|none|new|10.0.0.1|5432||0|||0|0|0|(nil)||0|||0|2147483647");
#define BUFFER_COLUMNS                                                                             \
    SOCKET_COLUMNS " recv_pos:i pkt_pos:i pkt_remain:i send_pos:i send_remain:i pkt_avail:i "      \
                   "send_avail:i"
    assert_row(w, "SHOW SOCKETS", BUFFER_COLUMNS,
               "S|zoe|app|none|sv_login|10.0.0.1|5432||0|||0|0|0|(nil)||0|||0|2147483647|0|0|0|0|"
               "0|0|0");
    assert_answer(w, "SHOW ACTIVE_SOCKETS",
                  "T " BUFFER_COLUMNS "\n"
                  "D C|(nouser)|(nodb)|none|cl_login||0||0|||0|0|0|(nil)||0|||0|18|0|0|0|0|0|9|0\n"
                  "C SHOW\nZ\n");
}

static void test_show_lists(void **state)
{
    struct world *w = *state;
    assert_answer(w, "SHOW LISTS",
                  "T list items:i\nD databases|3\nD users|5\nD peers|1\nD pools|3\n"
                  "D peer_pools|1\nD free_clients|0\nD used_clients|6\nD login_clients|0\n"
                  "D free_servers|0\nD used_servers|0\nD dns_names|1\nD dns_zones|0\n"
                  "D dns_queries|0\nD dns_pending|0\nC SHOW\nZ\n");
}

static void test_show_stats(void **state)
{
    struct world *w = *state;
    assert_row(w, "SHOW STATS",
               "database total_server_assignment_count:n total_xact_count:n total_query_count:n "
               "total_received:n total_sent:n total_xact_time:n total_query_time:n "
               "total_wait_time:n total_client_parse_count:n total_server_parse_count:n "
               "total_bind_count:n total_client_login_count:n avg_server_assignment_count:n "
               "avg_xact_count:n avg_query_count:n avg_recv:n avg_sent:n avg_xact_time:n "
               "avg_query_time:n avg_wait_time:n avg_client_parse_count:n "
               "avg_server_parse_count:n avg_bind_count:n avg_client_login_count:n",
               "app|100|200|300|400|500|600|700|800|9|10|11|12|10|20|30|40|50|3|2|8|0|1|1|1");
    assert_row(w, "SHOW STATS_TOTALS",
               "database server_assignment_count:n xact_count:n query_count:n bytes_received:n "
               "bytes_sent:n xact_time:n query_time:n wait_time:n client_parse_count:n "
               "server_parse_count:n bind_count:n client_login_count:n",
               "app|100|200|300|400|500|600|700|800|9|10|11|12");
    assert_row(w, "SHOW STATS_AVERAGES",
               "database server_assignment_count:n xact_count:n query_count:n bytes_received:n "
               "bytes_sent:n xact_time:n query_time:n wait_time:n avg_client_parse_count:n "
               "avg_server_parse_count:n avg_bind_count:n avg_client_login_count:n",
               "app|10|20|30|40|50|3|2|8|0|1|1|1");
    assert_row(w, "SHOW TOTALS", "name value:n",
               "total_client_bytes|400\nD total_server_bytes|500");
    assert_row(w, "SHOW TOTALS", "name value:n", "avg_xact_count|20");
    assert_row(w, "SHOW TOTALS", "name value:n", "total_ps_bind_count|11");
}

static void test_what_drivers_poke_is_answered(void **state)
{
    struct world *w = *state;
    assert_answer(w, "SHOW client_encoding", "T client_encoding\nD UTF-8\nC SHOW\nZ\n");
    assert_answer(w, "show DateStyle", "T datestyle\nD ISO\nC SHOW\nZ\n");
    assert_answer(w, "SET client_encoding = 'UTF8'", "N 00000 SET ignored\nC SET\nZ\n");
    assert_answer(w, "set timezone to UTC;", "N 00000 SET ignored\nC SET\nZ\n");
    assert_answer(w, "SET extra_float_digits = 3", "N 00000 SET ignored\nC SET\nZ\n");
    assert_string_equal(w->core.commands.ptr, "");
    assert_answer(w, "", "I\nZ\n");
    assert_answer(w, " ; ", "I\nZ\n");
}

/* ---- commands ---- */

static void assert_command(struct world *w, const char *sql, const char *command, const char *tag)
{
    char expected[256];
    text_clear(&w->core.commands);
    text_put(&w->core.commands, "");
    assert_int_equal(query(w, sql), ADMIN_READY);
    assert_string_equal(w->core.commands.ptr, command);
    snprintf(expected, sizeof(expected), "C %s\nZ\n", tag);
    assert_took(w, expected);
}

static void test_commands_reach_the_core(void **state)
{
    struct world *w = *state;
    assert_command(w, "PAUSE", "pause()", "PAUSE");
    assert_command(w, "pause app;", "pause(app)", "PAUSE");
    assert_command(w, "PAUSE \"My \"\"DB\"", "pause(My \"DB)", "PAUSE");
    assert_command(w, " Resume\n", "resume()", "RESUME");
    assert_command(w, "RECONNECT app", "reconnect(app)", "RECONNECT");
    assert_command(w, "KILL", "kill()", "KILL");
    assert_command(w, "KILL app", "kill(app)", "KILL");
    assert_command(w, "WAIT_CLOSE", "wait_close()", "WAIT_CLOSE");
    assert_command(w, "DISABLE app", "disable(app)", "DISABLE");
    assert_command(w, "ENABLE app", "enable(app)", "ENABLE");
    assert_command(w, "SUSPEND;", "suspend()", "SUSPEND");
    assert_command(w, "RELOAD", "reload()", "RELOAD");
    assert_command(w, "KILL_CLIENT 123456789012", "kill_client(123456789012)", "KILL_CLIENT");
    assert_command(w, "SHUTDOWN WAIT_FOR_SERVERS", "shutdown_servers()", "SHUTDOWN");
    assert_command(w, "shutdown wait_for_clients;", "shutdown_clients()", "SHUTDOWN");
    assert_command(w, "shutdown wait_for_transactions", "shutdown_transactions()", "SHUTDOWN");
    assert_command(w, "SET max_client_conn = 5", "set(max_client_conn=5)", "SET max_client_conn=5");
    assert_command(w, "SET max_client_conn=5;", "set(max_client_conn=5)", "SET max_client_conn=5");
    assert_command(w, "set query_timeout to '1.5';", "set(query_timeout=1.5)",
                   "SET query_timeout=1.5");
    assert_command(w, "SET server_reset_query = 'select ''x;'''",
                   "set(server_reset_query=select 'x;')", "SET server_reset_query=select 'x;'");
    assert_command(w, "SET auth_file=''", "set(auth_file=)", "SET auth_file=");
}

static void test_what_is_no_command_is_refused(void **state)
{
    struct world *w = *state;
    static const char *const wrong[] = {
        "foo",
        "SHOW",
        "SHOW nothing",
        "PAUSE a b",
        "PAUSE \"a",
        "RELOAD now",
        "SUSPEND app",
        "SET x",
        "SET x 1",
        "SET = 1",
        "SET x = 'a",
        "SHUTDOWN soon",
        "KILL_CLIENT",
        "PAUSE; PAUSE",
        "PAUSE 'a'",
        "BEGIN",
        "SELECT 1",
        "SHOW POOLS POOLS",
        "KILL_CLIENT 1 2",
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        char expected[256];
        snprintf(expected, sizeof(expected), "E 08P01 invalid command '%s', use SHOW HELP;\nZ\n",
                 wrong[i]);
        assert_answer(w, wrong[i], expected);
    }
    assert_answer(w, "DISABLE", "E 08P01 a database is required\nZ\n");
    assert_answer(w, "KILL_CLIENT 0x12", "E 08P01 invalid client pointer supplied\nZ\n");
    assert_answer(w, "KILL_CLIENT 9999999999999999999",
                  "E 08P01 invalid client pointer supplied\nZ\n");
    assert_string_equal(w->core.commands.ptr, "");
}

static void test_a_failed_command_tells_why(void **state)
{
    struct world *w = *state;
    w->core.answer = ADMIN_FAILED;
    assert_answer(w, "PAUSE nope", "E 08P01 no such database: nope\nZ\n");
    w->core.answer = ADMIN_DONE;
    assert_answer(w, "PAUSE", "C PAUSE\nZ\n");
}

static void test_a_waiting_command_answers_later(void **state)
{
    struct world *w = *state;
    w->core.answer = ADMIN_WAITS;
    assert_int_equal(query(w, "PAUSE app"), ADMIN_WAITING);
    assert_true(admin_session_is_waiting(w->session));
    assert_took(w, "");
    admin_complete(w->session, NULL, &w->out);
    assert_false(admin_session_is_waiting(w->session));
    assert_took(w, "C PAUSE\nZ\n");

    assert_int_equal(query(w, "WAIT_CLOSE"), ADMIN_WAITING);
    struct err e = { 0 };
    err_set(&e, ERR_REFUSAL, "57014", "canceled");
    admin_complete(w->session, &e, &w->out);
    err_clear(&e);
    assert_took(w, "E 57014 canceled\nZ\n");
}

static void test_shutdown_closes_with_no_answer(void **state)
{
    struct world *w = *state;
    w->core.answer = ADMIN_CLOSES;
    assert_int_equal(query(w, "SHUTDOWN"), ADMIN_HANGUP);
    assert_took(w, "");
    assert_string_equal(w->core.commands.ptr, "shutdown()");
    assert_int_equal(admin_on_message(w->session, 'X', STR(""), &w->out), ADMIN_HANGUP);
}

/* ---- the extended protocol ---- */

static void parse_as(struct world *w, const char *name, const char *sql)
{
    wire_encode_parse(&w->in, str_from(name), str_from(sql), NULL, 0);
    assert_int_equal(send_message(w), ADMIN_READY);
}

static void bind_text(struct world *w, const char *portal, const char *statement)
{
    wire_encode_bind_text(&w->in, str_from(portal), str_from(statement), NULL, 0);
    assert_int_equal(send_message(w), ADMIN_READY);
}

static void bind_binary(struct world *w, const char *portal, const char *statement)
{
    struct msg_bind m = { .portal = str_from(portal),
                          .statement = str_from(statement),
                          .n_result_formats = 1,
                          .result_formats = { "\0\1", 2 } };
    wire_encode_bind(&w->in, &m);
    assert_int_equal(send_message(w), ADMIN_READY);
}

static enum admin_next execute(struct world *w, const char *portal, int max_rows)
{
    wire_encode_execute(&w->in, str_from(portal), max_rows);
    return send_message(w);
}

static void sync_now(struct world *w)
{
    assert_int_equal(admin_on_message(w->session, 'S', STR(""), &w->out), ADMIN_READY);
}

static void test_extended_protocol(void **state)
{
    struct world *w = *state;
    parse_as(w, "", "SHOW STATE");
    bind_text(w, "", "");
    wire_encode_describe(&w->in, TARGET_PORTAL, STR(""));
    send_message(w);
    execute(w, "", 0);
    sync_now(w);
    assert_took(w, "1\n2\nT key value\nD active|yes\nD paused|no\nD suspended|no\nC SHOW\nZ\n");

    parse_as(w, "p", "PAUSE app");
    wire_encode_describe(&w->in, TARGET_STATEMENT, STR("p"));
    send_message(w);
    bind_text(w, "", "p");
    execute(w, "", 0);
    wire_encode_close(&w->in, TARGET_STATEMENT, STR("p"));
    send_message(w);
    sync_now(w);
    assert_took(w, "1\nt\nn\n2\nC PAUSE\n3\nZ\n");
    assert_string_equal(w->core.commands.ptr, "pause(app)");
}

static void test_rows_come_in_portions(void **state)
{
    struct world *w = *state;
    parse_as(w, "", "SHOW STATE");
    bind_text(w, "", "");
    execute(w, "", 2);
    execute(w, "", 2);
    sync_now(w);
    assert_took(w, "1\n2\nD active|yes\nD paused|no\ns\nD suspended|no\nC SHOW\nZ\n");
}

static void test_numbers_in_binary(void **state)
{
    struct world *w = *state;
    parse_as(w, "", "SHOW PEERS");
    bind_binary(w, "", "");
    wire_encode_describe(&w->in, TARGET_PORTAL, STR(""));
    send_message(w);
    execute(w, "", 0);
    sync_now(w);
    assert_took(w, "1\n2\nT peer_id:i/b host/b port:i/b pool_size:i/b\n"
                   "D \\00\\00\\00\\02|peer2|\\00\\00\\19 |\\00\\00\\00\\14\nC SHOW\nZ\n");

    /* numeric 1234567: digits 123 and 4567, weight 1, sign and scale 0. */
    w->core.stats = (struct stats){ .server_assignments = 1234567 };
    parse_as(w, "", "SHOW TOTALS");
    bind_binary(w, "", "");
    execute(w, "", 2);
    sync_now(w);
    char *got = took(w);
    assert_non_null(strstr(got, "D total_server_assignment_count|"
                                "\\00\\02\\00\\01\\00\\00\\00\\00\\00{\\11\\d7\n"));
    /* 0 has no digits. */
    assert_non_null(strstr(got, "D total_xact_count|\\00\\00\\00\\00\\00\\00\\00\\00\n"));
    free(got);
}

static void test_an_error_skips_to_sync(void **state)
{
    struct world *w = *state;
    parse_as(w, "", "nonsense");
    bind_text(w, "", "");
    execute(w, "", 0);
    sync_now(w);
    assert_took(w, "E 08P01 invalid command 'nonsense', use SHOW HELP;\nZ\n");

    bind_text(w, "", "unknown");
    sync_now(w);
    assert_took(w, "E 26000 prepared statement \"unknown\" does not exist\nZ\n");

    execute(w, "gone", 0);
    sync_now(w);
    assert_took(w, "E 34000 portal \"gone\" does not exist\nZ\n");

    parse_as(w, "s", "SHOW STATE");
    parse_as(w, "s", "SHOW STATE");
    sync_now(w);
    assert_took(w, "1\nE 42P05 prepared statement \"s\" already exists\nZ\n");

    struct str one = STR("1");
    wire_encode_bind_text(&w->in, STR(""), STR("s"), &one, 1);
    send_message(w);
    sync_now(w);
    assert_took(w, "E 08P01 bind message supplies 1 parameters, but prepared statement \"s\" "
                   "requires 0\nZ\n");
}

static void test_portals_end_at_sync(void **state)
{
    struct world *w = *state;
    parse_as(w, "s", "SHOW STATE");
    bind_text(w, "c", "s");
    sync_now(w);
    execute(w, "c", 0);
    sync_now(w);
    assert_took(w, "1\n2\nZ\nE 34000 portal \"c\" does not exist\nZ\n");
}

static void test_a_waiting_command_in_the_extended_protocol(void **state)
{
    struct world *w = *state;
    w->core.answer = ADMIN_WAITS;
    parse_as(w, "", "PAUSE");
    bind_text(w, "", "");
    assert_int_equal(execute(w, "", 0), ADMIN_WAITING);
    assert_took(w, "1\n2\n");
    admin_complete(w->session, NULL, &w->out);
    sync_now(w);
    assert_took(w, "C PAUSE\nZ\n");
}

static void test_what_a_session_keeps_is_bounded(void **state)
{
    struct world *w = *state;
    char name[32];
    int refused = 0;
    for (int i = 0; i < 1000 && refused == 0; i++) {
        snprintf(name, sizeof(name), "s%d", i);
        parse_as(w, name, "SHOW STATE");
        char *got = took(w);
        refused = strncmp(got, "E 54000", 7) == 0;
        free(got);
    }
    assert_int_equal(refused, 1);
    sync_now(w);
    char *got = took(w);
    free(got);

    char *lots = malloc(100001);
    memset(lots, ' ', 100000);
    lots[100000] = '\0';
    assert_answer(w, lots, "E 54000 the command is longer than 8192 bytes\nZ\n");
    free(lots);
}

/* Any bytes, also such as no client sends: an answer or a hang-up, and frames that are whole. */
static void test_any_bytes_are_survived(void **state)
{
    struct world *w = *state;
    uint64_t seed = 42;
    static const char tags[] = "QPBDECHSXFdcfp?";
    static const char *const starts[] = {
        "", "SHOW ", "SET ", "PAUSE ", "\0s\0\0", "S", "P", "\""
    };
    for (int round = 0; round < 20000; round++) {
        char body[64];
        size_t len = 0;
        seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;
        const char *start = starts[(seed >> 40) % 8];
        size_t start_len = strlen(start);
        memcpy(body, start, start_len);
        len = start_len;
        for (size_t n = (seed >> 33) % 40; n > 0 && len < sizeof(body); n--) {
            seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;
            body[len++] =
                (char)((seed >> 50) % 7 == 0 ? 0 : " ;='\"aSHOW\x80\1"[(seed >> 33) % 12]);
        }
        char tag = tags[(seed >> 45) % (sizeof(tags) - 1)];
        /* An exact copy, so that a sanitizer sees a read behind its end. */
        char *exact = malloc(len > 0 ? len : 1);
        memcpy(exact, body, len);
        admin_on_message(w->session, tag, (struct str){ exact, len }, &w->out);
        free(exact);
        free(took(w));
    }
    sync_now(w);
    free(took(w));
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(test_who_may_enter),
        T(test_statistics_users_may_only_look),
        T(test_login_parameters),
        T(test_show_small_things),
        T(test_show_databases),
        T(test_show_users),
        T(test_show_pools),
        T(test_show_sockets),
        T(test_show_lists),
        T(test_show_stats),
        T(test_what_drivers_poke_is_answered),
        T(test_commands_reach_the_core),
        T(test_what_is_no_command_is_refused),
        T(test_a_failed_command_tells_why),
        T(test_a_waiting_command_answers_later),
        T(test_shutdown_closes_with_no_answer),
        T(test_extended_protocol),
        T(test_rows_come_in_portions),
        T(test_numbers_in_binary),
        T(test_an_error_skips_to_sync),
        T(test_portals_end_at_sync),
        T(test_a_waiting_command_in_the_extended_protocol),
        T(test_what_a_session_keeps_is_bounded),
        T(test_any_bytes_are_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
