/* Prepared statements of clients that share servers, message by message. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "protocol/notice.h"
#include "protocol/query_extended.h"
#include "protocol/query_simple.h"
#include "protocol/result.h"
#include "protocol/status.h"
#include "proxy/pool.h"
#include "tests/proxy/world.h"

#define USERS "\"ann\" \"secret\"\n"
#define TRANSACTION "auth_type = trust\npool_mode = transaction\ndefault_pool_size = 1\n"

static void server_says(struct peer *s, const char *tags)
{
    struct bytequeue q = { 0 };

    for (; *tags != '\0'; tags++) {
        if (*tags == 'C')
            wire_encode_command_complete(&q, STR("SELECT 1"));
        else if (*tags == 'D')
            wire_encode_data_row(&q, NULL, 0);
        else if (*tags == 'Z' || *tags == 'T')
            wire_encode_ready(&q, *tags == 'Z' ? STATUS_IDLE : STATUS_IN_TRANSACTION);
        else
            wire_put_empty(&q, *tags);
    }
    peer_send_queue(s, &q);
}

/* fields: "R" and what routine, or "P" and what position. */
static void server_says_error(struct peer *s, const char *sqlstate, const char *message, char field,
                              const char *value, const char *then)
{
    struct bytequeue q = { 0 };
    struct wire_mark m = wire_begin(&q, BE_ERROR);

    wire_put_u8(&q, NOTICE_SEVERITY);
    wire_put_cstr(&q, STR("ERROR"));
    wire_put_u8(&q, NOTICE_SQLSTATE);
    wire_put_cstr(&q, str_from(sqlstate));
    wire_put_u8(&q, NOTICE_MESSAGE);
    wire_put_cstr(&q, str_from(message));
    wire_put_u8(&q, (uint8_t)field);
    wire_put_cstr(&q, str_from(value));
    wire_put_u8(&q, 0);
    wire_end(&q, m);
    peer_send_queue(s, &q);
    server_says(s, then);
}

static void server_says_stale(struct peer *s, const char *then)
{
    server_says_error(s, "0A000", "cached plan must not change result type", NOTICE_ROUTINE,
                      "RevalidateCachedQuery", then);
}

/* P/B/D/E/C/S/H for statement `name`; p: Describe of the portal. */
static void client_says(struct peer *c, const char *what, const char *name, const char *sql)
{
    struct bytequeue q = { 0 };

    for (; *what != '\0'; what++) {
        if (*what == 'P')
            wire_encode_parse(&q, str_from(name), str_from(sql), NULL, 0);
        else if (*what == 'B')
            wire_encode_bind_text(&q, STR(""), str_from(name), NULL, 0);
        else if (*what == 'D')
            wire_encode_describe(&q, TARGET_STATEMENT, str_from(name));
        else if (*what == 'p')
            wire_encode_describe(&q, TARGET_PORTAL, STR(""));
        else if (*what == 'E')
            wire_encode_execute(&q, STR(""), 0);
        else if (*what == 'C')
            wire_encode_close(&q, TARGET_STATEMENT, str_from(name));
        else if (*what == 'H')
            wire_encode_flush(&q);
        else
            wire_encode_sync(&q);
    }
    peer_send_queue(c, &q);
}

static struct peer *first_client(struct world *w, struct peer **server)
{
    struct peer *c = world_login(w, "ann", "db");

    *server = world_serve_login(w);
    assert_non_null(*server);
    peer_take(c);
    peer_take(*server);
    return c;
}

static struct peer *other_client(struct world *w)
{
    struct peer *c = world_login(w, "ann", "db");

    peer_take(c);
    return c;
}

/* The text of the only Query that the server got. */
static const char *query_at(struct peer *s)
{
    static char text[1024];
    struct bytequeue got = { 0 };

    assert_string_equal(peer_take_copy(s, &got), "Q");
    snprintf(text, sizeof(text), "%s", bytequeue_str(&got).ptr + 5);
    bytequeue_free(&got);
    return text;
}

static void says_completed(struct peer *s, const char *const *tags, char status)
{
    struct bytequeue q = { 0 };

    for (; *tags != NULL; tags++)
        wire_encode_command_complete(&q, str_from(*tags));
    wire_encode_ready(&q, (enum wire_status)status);
    peer_send_queue(s, &q);
}
#define COMPLETED(...)                                                                             \
    (const char *const[])                                                                          \
    {                                                                                              \
        __VA_ARGS__, NULL                                                                          \
    }

static void test_a_name_is_replaced_in_the_text(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);
    struct peer *s, *a = first_client(w, &s);

    (void)state;
    client_says_query(a, "prepare \"My P\" (int) as select $1");
    assert_string_equal(query_at(s), "prepare \"PGTRICKLE_1\" (int) as select $1");
    server_says_done(s, "PREPARE", STATUS_IDLE);
    assert_string_equal(peer_take(a), "CZ");
    client_says_query(a, "explain execute \"My P\"(4)");
    assert_string_equal(query_at(s), "explain execute \"PGTRICKLE_1\"(4)");
    server_says_done(s, "EXPLAIN", STATUS_IDLE);
    assert_string_equal(peer_take(a), "CZ");
    /* Not prepared by the client: left as it is. */
    client_says_query(a, "execute other");
    assert_string_equal(query_at(s), "execute other");
    world_free(w);
}

static void test_what_the_proxy_knows_needs_no_server(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);
    struct peer *s, *a = first_client(w, &s), *b = other_client(w);

    (void)state;
    client_says_query(a, "prepare p as select 1");
    server_says_done(s, "PREPARE", STATUS_IDLE);
    peer_take(a);
    peer_take(s);
    client_says_query(b, "prepare q as select 1");
    assert_string_equal(peer_take(b), "CZ");
    client_says_query(a, "deallocate p");
    assert_string_equal(peer_take(a), "CZ");
    assert_string_equal(peer_take(s), "");
    client_says_query(b, "execute q");
    assert_string_equal(query_at(s), "execute \"PGTRICKLE_1\"");
    server_says_done(s, "SELECT 1", STATUS_IDLE);
    /* It is forgotten, though the server has it. */
    client_says_query(a, "execute p");
    assert_string_equal(query_at(s), "execute p");
    world_free(w);
}

static void test_a_server_is_taught_in_front_of_the_execute(void **state)
{
    struct world *w = world_new("auth_type = trust\npool_mode = transaction\n", USERS);
    struct peer *s, *a = first_client(w, &s), *b = other_client(w);

    (void)state;
    client_says_query(a, "prepare p as select 1;");
    server_says_done(s, "PREPARE", STATUS_IDLE);
    peer_take(a);
    peer_take(s);
    client_says_query(b, "begin");
    server_says_done(s, "BEGIN", STATUS_IN_TRANSACTION);
    client_says_query(a, "select 2; execute p");
    struct peer *s2 = world_serve_login(w);
    assert_non_null(s2);
    assert_string_equal(query_at(s2),
                        "select 2; PREPARE \"PGTRICKLE_1\"  as select 1;execute \"PGTRICKLE_1\"");
    says_completed(s2, COMPLETED("SELECT 1", "PREPARE", "SELECT 1"), STATUS_IDLE);
    assert_string_equal(peer_take(a), "CCZ");
    /* Prepared by SQL, used by messages. */
    client_says(a, "BES", "p", "");
    assert_string_equal(peer_take(s2), "BES");
    world_free(w);
}

static void test_later_messages_wait_for_what_a_name_means(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);
    struct peer *s, *a = first_client(w, &s);

    (void)state;
    client_says_query(a, "prepare p as selec");
    client_says_query(a, "execute p");
    assert_string_equal(peer_take(s), "Q");
    server_says_error(s, "42601", "no", NOTICE_POSITION, "30", "Z");
    assert_string_equal(query_at(s), "execute p"); /* there is none */
    server_says_error(s, "26000", "no", NOTICE_LINE, "1", "Z");
    assert_string_equal(peer_take(a), "E(42601)ZE(26000)Z");
    world_free(w);
}

static void test_errors_speak_of_the_clients_text(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);
    struct peer *s, *a = first_client(w, &s);
    struct bytequeue got = { 0 };

    (void)state;
    client_says_query(a, "prepare p as select nope"); /* nope: 21; sent: 33 */
    assert_string_equal(query_at(s), "prepare \"PGTRICKLE_1\" as select nope");
    server_says_error(s, "42703", "no", NOTICE_POSITION, "33", "Z");
    assert_string_equal(peer_take_copy(a, &got), "E(42703)Z");
    struct str body = { bytequeue_str(&got).ptr + 5, bytequeue_len(&got) - 11 };
    assert_true(str_equal(notice_get(body, NOTICE_POSITION), STR("21")));
    bytequeue_free(&got);
    client_says_query(a, "prepare p as select 1");
    server_says_done(s, "PREPARE", STATUS_IDLE);
    client_says_query(a, "execute p(1)");
    peer_take(a);
    server_says_error(s, "42601", "wrong number for prepared statement \"PGTRICKLE_2\"",
                      NOTICE_LINE, "1", "Z");
    assert_string_equal(peer_take_copy(a, &got), "E(42601)Z");
    body = (struct str){ bytequeue_str(&got).ptr + 5, bytequeue_len(&got) - 11 };
    assert_true(str_equal(notice_get(body, NOTICE_MESSAGE),
                          STR("wrong number for prepared statement \"p\"")));
    bytequeue_free(&got);
    world_free(w);
}

static void test_a_stale_statement_is_prepared_anew_unseen(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);
    struct peer *s, *a = first_client(w, &s), *b = other_client(w);

    (void)state;
    client_says(a, "PBEpS", "mine", "select * from t");
    server_says(s, "12nCZ");
    peer_take(a);
    peer_take(s);
    client_says(b, "PBpES", "yours", "select * from t");
    assert_string_equal(peer_take(b), "1");
    assert_string_equal(peer_take(s), "BDES");
    server_says_stale(s, "");
    assert_string_equal(peer_take(s), "CPBDES");
    server_says(s, "Z312nCZ");
    assert_string_equal(peer_take(b), "2nCZ");
    /* Again at once: it is shown, there is no end otherwise. */
    client_says(b, "BpES", "yours", "");
    server_says_stale(s, "");
    peer_take(s);
    server_says(s, "Z31");
    server_says_stale(s, "Z");
    assert_string_equal(peer_take(b), "E(0A000)Z");
    /* What was sent twice is counted once: as the client sent it. */
    const struct stats *stats = &peer_client(b)->pool->stats;
    assert_int_equal(stats->client_parses, 2);
    assert_int_equal(stats->binds, 3);
    assert_int_equal(stats->server_parses, 3);
    world_free(w);
}

static void test_who_believes_old_columns_is_told(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);
    struct peer *s, *a = first_client(w, &s);

    (void)state;
    client_says(a, "PDS", "x", "select * from t");
    server_says(s, "1nZ");
    peer_take(a);
    client_says(a, "BES", "x", "");
    peer_take(s);
    server_says_stale(s, "Z");
    assert_string_equal(peer_take(a), "E(0A000)Z");
    client_says(a, "BES", "x", "");
    assert_string_equal(peer_take(s), "DS"); /* what makes the server fail */
    server_says_error(s, "26000", "no", NOTICE_LINE, "1", "Z");
    assert_string_equal(peer_take(a), "E(0A000)Z");
    /* It asks, and is content. */
    client_says(a, "DS", "x", "");
    assert_string_equal(peer_take(s), "CPDS");
    server_says(s, "31nZ");
    assert_string_equal(peer_take(a), "nZ");
    client_says(a, "BES", "x", "");
    assert_string_equal(peer_take(s), "BES");
    world_free(w);
}

static void test_in_a_transaction_the_error_is_shown_once(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);
    struct peer *s, *a = first_client(w, &s);

    (void)state;
    client_says(a, "PS", "x", "select * from t");
    server_says(s, "1Z");
    client_says_query(a, "begin");
    server_says_done(s, "BEGIN", STATUS_IN_TRANSACTION);
    peer_take(a);
    client_says(a, "BpES", "x", "");
    peer_take(s);
    server_says_stale(s, "");
    client_says_query(a, "rollback");
    struct bytequeue q = { 0 };
    wire_encode_ready(&q, STATUS_FAILED);
    peer_send_queue(s, &q);
    server_says_done(s, "ROLLBACK", STATUS_IDLE);
    assert_string_equal(peer_take(a), "E(0A000)ZCZ");
    peer_take(s);
    client_says(a, "BpES", "x", "");
    assert_string_equal(peer_take(s), "CPBDES");
    world_free(w);
}

static void test_a_statement_deallocated_elsewhere_is_prepared_anew_unseen(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);
    struct peer *s, *a = first_client(w, &s);

    (void)state;
    client_says(a, "PS", "x", "select 1");
    server_says(s, "1Z");
    peer_take(a);
    peer_take(s);
    client_says(a, "BE", "x", ""); /* the Sync is still to come */
    client_says(a, "H", "x", "");
    server_says_error(s, "26000", "prepared statement \"PGTRICKLE_1\" does not exist", NOTICE_LINE,
                      "1", "");
    assert_string_equal(peer_take(s), "BEHSPBEH");
    server_says(s, "Z12");
    client_says(a, "S", "", "");
    server_says(s, "CZ");
    assert_string_equal(peer_take(a), "2CZ");
    world_free(w);
}

static void test_an_error_is_undone_from_its_end(void **state)
{
    struct world *w = world_new(TRANSACTION "max_prepared_statements = 1\n", USERS);
    struct peer *s, *a = first_client(w, &s);

    (void)state;
    client_says(a, "P", "x", "selec");
    client_says(a, "PS", "y", "select 1"); /* takes x's place */
    assert_string_equal(peer_take(s), "PCPS");
    server_says_error(s, "42601", "no", NOTICE_LINE, "1", "Z");
    assert_string_equal(peer_take(a), "E(42601)Z");
    /* The server has neither. */
    client_says(a, "PS", "x", "selec");
    assert_string_equal(peer_take(s), "PS");
    world_free(w);
}

static void test_nothing_is_built_on_what_may_be_undone(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);
    struct peer *s, *a = first_client(w, &s);

    (void)state;
    client_says(a, "PS", "x", "selec");
    client_says(a, "PS", "y", "selec"); /* equal: is it there? */
    assert_string_equal(peer_take(s), "PS");
    server_says_error(s, "42601", "no", NOTICE_LINE, "1", "Z");
    assert_string_equal(peer_take(s), "PS");
    server_says_error(s, "42601", "no", NOTICE_LINE, "1", "Z");
    assert_string_equal(peer_take(a), "E(42601)ZE(42601)Z");
    world_free(w);
}

static void test_the_unnamed_statement_follows_until_it_is_bound(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);
    struct peer *s, *a = first_client(w, &s), *b = other_client(w);

    (void)state;
    client_says(a, "PDS", "", "select 1");
    server_says(s, "1nZ");
    assert_string_equal(peer_take(a), "1nZ");
    peer_take(s);
    client_says(b, "BES", "", ""); /* not b's */
    assert_string_equal(peer_take(s), "DS");
    server_says_error(s, "26000", "no", NOTICE_LINE, "1", "Z");
    assert_string_equal(peer_take(b), "E(26000)Z");
    client_says(a, "BES", "", "");
    assert_string_equal(peer_take(s), "PBES");
    server_says(s, "12CZ");
    assert_string_equal(peer_take(a), "2CZ");
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_name_is_replaced_in_the_text),
        cmocka_unit_test(test_what_the_proxy_knows_needs_no_server),
        cmocka_unit_test(test_a_server_is_taught_in_front_of_the_execute),
        cmocka_unit_test(test_later_messages_wait_for_what_a_name_means),
        cmocka_unit_test(test_errors_speak_of_the_clients_text),
        cmocka_unit_test(test_a_stale_statement_is_prepared_anew_unseen),
        cmocka_unit_test(test_who_believes_old_columns_is_told),
        cmocka_unit_test(test_in_a_transaction_the_error_is_shown_once),
        cmocka_unit_test(test_a_statement_deallocated_elsewhere_is_prepared_anew_unseen),
        cmocka_unit_test(test_an_error_is_undone_from_its_end),
        cmocka_unit_test(test_nothing_is_built_on_what_may_be_undone),
        cmocka_unit_test(test_the_unnamed_statement_follows_until_it_is_bound),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
