/* One process takes over from another in the middle of everything, and nobody notices. */
#include "proxy/takeover.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "protocol/query_extended.h"
#include "protocol/query_simple.h"
#include "protocol/result.h"
#include "protocol/status.h"
#include "protocol/writer.h"
#include "proxy/record.h"
#include "proxy/settings.h"
#include "tests/proxy/world.h"

#define USERS "\"ann\" \"secret\"\n\"admin\" \"secret\"\n"
#define INI "auth_type = trust\nadmin_users = admin\ndefault_pool_size = 1\n"
#define TRANSACTION INI "pool_mode = transaction\n"
#define SESSION INI "pool_mode = session\n"

/* The console as the other process sees it. */
static struct peer *console(struct world *w)
{
    struct peer *p = world_startup(w, "admin", "pgbouncer", NULL, NULL);

    peer_take(p);
    peer_client(p)->conn.peer.is_unix = true;
    peer_client(p)->conn.peer.unix_uid = geteuid();
    return p;
}

/* Everything that the old one gives. */
static struct peer *take(struct world *old, struct bytequeue *answer)
{
    struct peer *c = console(old);

    client_says_query(c, "TAKEOVER");
    world_sleep(old, 0.1);
    peer_take_copy(c, answer);
    return c;
}

static void import(struct world *old, struct world *new, struct bytequeue *answer)
{
    struct str rest = bytequeue_str(answer);
    struct wire_frame f;
    size_t next = 0;

    while (wire_next_frame(SENT_BY_BACKEND, rest, &f) == WIRE_FRAME) {
        if (f.tag == BE_COPY_DATA) {
            size_t n = takeover_descriptors(f.body);
            takeover_import(new->proxy, f.body, old->enclosed + next, n);
            next += n;
        }
        rest = (struct str){ rest.ptr + f.bytes.len, rest.len - f.bytes.len };
    }
    assert_int_equal(next, old->n_enclosed);
    bytequeue_free(answer);
}

static struct world *take_over(struct world *old, const char *ini)
{
    struct world *new = world_new(ini, USERS);
    struct bytequeue answer = { 0 };
    struct peer *c = take(old, &answer);

    new->now_us = new->worker->now_us = old->now_us;
    import(old, new, &answer);
    client_says_query(c, "TAKEOVER DONE");
    assert_string_equal(peer_take(c), "CZ");
    assert_true(old->stopped);
    takeover_resume(new->proxy);
    world_settle(new);
    return new;
}

static void world_free_both(struct world *new, struct world *old)
{
    world_free(new);
    world_free(old);
}

static struct peer *first_client(struct world *w, struct peer **server)
{
    struct peer *a = world_login(w, "ann", "db");

    *server = world_serve_login(w);
    assert_non_null(*server);
    assert_string_equal(peer_take(a), "RSSSSSSSKZ");
    peer_take(*server);
    return a;
}

static void test_an_idle_client_goes_on(void **state)
{
    struct world *old = world_new(*state, USERS);
    struct peer *s;
    struct peer *a = first_client(old, &s);
    struct cancel_key key = client_cancel_key(peer_client(a));
    uint64_t id = peer_client(a)->id;

    struct world *new = take_over(old, *state);
    assert_ptr_equal(peer_client(a)->conn.worker, new->worker);
    struct cancel_key kept = client_cancel_key(peer_client(a));
    assert_int_equal(kept.len, key.len);
    assert_memory_equal(kept.bytes, key.bytes, key.len);
    assert_int_equal(id, peer_client(a)->id);
    assert_int_equal(new->proxy->n_clients, 1);
    client_says_query(a, "select 1");
    assert_string_equal(peer_take(s), "Q");
    server_says_done(s, "SELECT 1", 'I');
    assert_string_equal(peer_take(a), "CZ");
    /* A new client need not wait for a server to tell its parameters. */
    struct peer *b = world_login(new, "ann", "db");
    assert_string_equal(peer_take(b), "RSSSSSSSKZ");
    peer_hang_up(a);
    world_free_both(new, old);
}

/* The answer is cut at every byte, and the process changes there. */
static void test_an_answer_arrives_whole_wherever_it_is_cut(void **state)
{
    struct bytequeue reply = { 0 };

    wire_encode_text_columns(&reply, (const char *const[]){ "a" }, 1);
    struct str value = STR("a value that is long enough to be cut somewhere");
    wire_encode_data_row(&reply, &value, 1);
    wire_encode_data_row(&reply, &value, 1);
    wire_encode_command_complete(&reply, STR("SELECT 2"));
    wire_encode_ready(&reply, STATUS_IN_TRANSACTION);
    struct str all = bytequeue_str(&reply);
    for (size_t cut = 0; cut <= all.len; cut++) {
        struct world *old = world_new(*state, USERS);
        struct bytequeue got = { 0 };
        struct peer *s;
        struct peer *a = first_client(old, &s);
        client_says_query(a, "select a");
        peer_take(s);
        peer_send(s, all.ptr, cut);
        struct world *new = take_over(old, *state);
        peer_send(s, all.ptr + cut, all.len - cut);
        assert_string_equal(peer_take_copy(a, &got), "TDDCZ");
        assert_int_equal(bytequeue_len(&got), all.len);
        assert_memory_equal(bytequeue_str(&got).ptr, all.ptr, all.len);
        bytequeue_free(&got);
        client_says_query(a, "commit");
        assert_string_equal(peer_take(s), "Q");
        server_says_done(s, "COMMIT", 'I');
        assert_string_equal(peer_take(a), "CZ");
        world_free_both(new, old);
    }
    bytequeue_free(&reply);
}

/* What the client sends, cut likewise. */
static void test_a_request_arrives_whole_wherever_it_is_cut(void **state)
{
    struct bytequeue q = { 0 };

    wire_encode_query(&q, STR("select 'a text of some length'"));
    struct str all = bytequeue_str(&q);
    for (size_t cut = 0; cut <= all.len; cut++) {
        struct world *old = world_new(*state, USERS);
        struct bytequeue got = { 0 };
        struct peer *s;
        struct peer *a = first_client(old, &s);
        peer_send(a, all.ptr, cut);
        struct world *new = take_over(old, *state);
        peer_send(a, all.ptr + cut, all.len - cut);
        assert_string_equal(peer_take_copy(s, &got), "Q");
        assert_memory_equal(bytequeue_str(&got).ptr, all.ptr, all.len);
        bytequeue_free(&got);
        server_says_done(s, "SELECT 1", 'I');
        assert_string_equal(peer_take(a), "CZ");
        world_free_both(new, old);
    }
    bytequeue_free(&q);
}

static void test_bytes_that_a_slow_client_did_not_take_follow(void **state)
{
    struct world *old = world_new(TRANSACTION, USERS);
    struct peer *s;
    struct peer *a = first_client(old, &s);

    (void)state;
    a->window = 3;
    client_says_query(a, "select 1");
    server_says_done(s, "SELECT 1", 'I');
    struct world *new = take_over(old, TRANSACTION);
    peer_open_window(a, SIZE_MAX);
    assert_string_equal(peer_take(a), "CZ");
    world_free_both(new, old);
}

static void says(struct peer *c, const char *what, const char *name)
{
    struct bytequeue q = { 0 };

    for (; *what != '\0'; what++) {
        if (*what == 'P')
            wire_encode_parse(&q, str_from(name), STR("select 1"), NULL, 0);
        else if (*what == 'B')
            wire_encode_bind_text(&q, STR(""), str_from(name), NULL, 0);
        else if (*what == 'E')
            wire_encode_execute(&q, STR(""), 0);
        else
            wire_put_empty(&q, *what);
    }
    peer_send_queue(c, &q);
}

static void server_says(struct peer *s, const char *tags)
{
    struct bytequeue q = { 0 };

    for (; *tags != '\0'; tags++) {
        if (*tags == 'C')
            wire_encode_command_complete(&q, STR("SELECT 1"));
        else if (*tags == 'Z')
            wire_encode_ready(&q, STATUS_IDLE);
        else
            wire_put_empty(&q, *tags);
    }
    peer_send_queue(s, &q);
}

static void test_prepared_statements_follow(void **state)
{
    struct world *old = world_new(TRANSACTION, USERS);
    struct peer *s;
    struct peer *a = first_client(old, &s);

    (void)state;
    says(a, "PBES", "mine");
    assert_string_equal(peer_take(s), "PBES");
    server_says(s, "12CZ");
    assert_string_equal(peer_take(a), "12CZ");
    struct world *new = take_over(old, TRANSACTION);
    /* The server has it: nothing is parsed again, for this client or the next. */
    says(a, "BES", "mine");
    assert_string_equal(peer_take(s), "BES");
    server_says(s, "2CZ");
    assert_string_equal(peer_take(a), "2CZ");
    struct peer *b = world_login(new, "ann", "db");
    peer_take(b);
    says(b, "PBES", "another");
    assert_string_equal(peer_take(s), "BES");
    server_says(s, "2CZ");
    assert_string_equal(peer_take(b), "12CZ");
    world_free_both(new, old);
}

static void test_a_pipeline_under_way_is_answered(void **state)
{
    struct world *old = world_new(TRANSACTION, USERS);
    struct peer *s;
    struct peer *a = first_client(old, &s);

    (void)state;
    says(a, "PBES", "one");
    server_says(s, "1");
    struct world *new = take_over(old, TRANSACTION);
    server_says(s, "2CZ");
    assert_string_equal(peer_take(a), "12CZ");
    says(a, "BES", "one");
    server_says(s, "2CZ");
    assert_string_equal(peer_take(a), "2CZ");
    world_free_both(new, old);
}

static void test_copy_in_goes_on(void **state)
{
    struct world *old = world_new(*state, USERS);
    struct peer *s;
    struct peer *a = first_client(old, &s);
    struct bytequeue q = { 0 };

    client_says_query(a, "copy t from stdin");
    wire_put_header(&q, BE_COPY_IN_RESPONSE, 3);
    wire_put_u8(&q, 0);
    wire_put_u16(&q, 0);
    peer_send_queue(s, &q);
    assert_string_equal(peer_take(a), "G");
    peer_take(s);
    wire_put_header(&q, FE_COPY_DATA, 4);
    wire_put_str(&q, STR("ab"));
    peer_send_queue(a, &q); /* the half of a message */
    struct world *new = take_over(old, *state);
    wire_put_str(&q, STR("c\n"));
    wire_put_empty(&q, FE_COPY_DONE);
    peer_send_queue(a, &q);
    assert_string_equal(peer_take(s), "dc");
    server_says_done(s, "COPY 1", 'I');
    assert_string_equal(peer_take(a), "CZ");
    world_free_both(new, old);
}

static void test_who_waits_is_served_in_turn(void **state)
{
    struct world *old = world_new(TRANSACTION, USERS);
    struct peer *s;
    struct peer *a = first_client(old, &s);
    struct peer *b = world_login(old, "ann", "db");
    struct peer *c = world_login(old, "ann", "db");

    (void)state;
    peer_take(b);
    peer_take(c);
    client_says_query(a, "begin");
    server_says_done(s, "BEGIN", 'T');
    peer_take(a);
    peer_take(s);
    client_says_query(c, "select 'c'");
    world_sleep(old, 0.1);
    client_says_query(b, "select 'b'");
    struct world *new = take_over(old, TRANSACTION);
    assert_null(world_next_connect(new));
    client_says_query(a, "commit");
    server_says_done(s, "COMMIT", 'I');
    assert_string_equal(peer_take(a), "CZ");
    server_says_done(s, "SELECT 1", 'I');
    assert_string_equal(peer_take(c), "CZ");
    assert_string_equal(peer_take(b), "");
    server_says_done(s, "SELECT 1", 'I');
    assert_string_equal(peer_take(b), "CZ");
    world_free_both(new, old);
}

static void test_settings_follow(void **state)
{
    struct world *old = world_new(TRANSACTION, USERS);
    struct peer *a = world_startup(old, "ann", "db", "application_name", "mine");
    struct peer *s = world_serve_login(old);

    (void)state;
    peer_take(a);
    peer_take(s);
    struct world *new = take_over(old, TRANSACTION);
    struct client *c = peer_client(a);
    assert_string_equal(params_get(&c->params, PARAM_APPLICATION_NAME), "mine");
    assert_string_equal(settings_get(c->startup, STR("application_name")), "mine");
    world_free_both(new, old);
}

static void test_a_takeover_that_fails_leaves_all_as_it_was(void **state)
{
    struct world *old = world_new(*state, USERS);
    struct world *new = world_new(*state, USERS);
    struct bytequeue answer = { 0 };
    struct peer *s;
    struct peer *a = first_client(old, &s);

    says(a, "PBES", "mine");
    server_says(s, "12CZ");
    peer_take(a);
    client_says_query(a, "begin");
    server_says_done(s, "BEGIN", 'T');
    peer_take(a);
    peer_take(s);
    struct peer *console_of_new = take(old, &answer);
    assert_null(a->conn);
    peer_hang_up(console_of_new);
    assert_ptr_equal(peer_client(a)->conn.worker, old->worker);
    assert_true(old->accepts);
    says(a, "BES", "mine");
    assert_string_equal(peer_take(s), "BES");
    server_says(s, "2C");
    assert_string_equal(peer_take(a), "2C");
    bytequeue_free(&answer);
    world_free_both(new, old);
}

static void test_what_was_imported_in_vain_is_dropped_unharmed(void **state)
{
    struct world *old = world_new(*state, USERS);
    struct world *new = world_new(*state, USERS);
    struct bytequeue answer = { 0 };
    struct peer *s;
    struct peer *a = first_client(old, &s);

    client_says_query(a, "begin");
    server_says_done(s, "BEGIN", 'T');
    take(old, &answer);
    import(old, new, &answer);
    takeover_drop(new->proxy);
    world_settle(new);
    assert_int_equal(new->worker->clients.count + new->worker->servers.count, 0);
    assert_string_equal(peer_take(a), "CZ");
    world_free_both(new, old);
}

static void test_only_the_same_user_takes_over(void **state)
{
    struct world *w = world_new(TRANSACTION, USERS);
    struct peer *p = world_startup(w, "admin", "pgbouncer", NULL, NULL);

    (void)state;
    peer_take(p);
    client_says_query(p, "TAKEOVER");
    assert_string_equal(peer_take(p), "E(42501)Z");
    client_says_query(p, "TAKEOVER DONE");
    assert_string_equal(peer_take(p), "E(55000)Z");
    world_free(w);
}

static void test_records_read_as_they_were_written(void **state)
{
    struct bytequeue q = { 0 };
    struct str value, name, rest;
    int n = 0;

    (void)state;
    record_put(&q, "a", STR("x"));
    record_put_number(&q, "b", UINT64_MAX);
    record_put_number(&q, "none", 0);
    record_put(&q, "a", (struct str){ "y\0z", 3 });
    assert_true(record_get(bytequeue_str(&q), "a", &value));
    assert_true(str_equal(value, STR("x")));
    assert_true(record_number(bytequeue_str(&q), "b") == UINT64_MAX);
    assert_false(record_get(bytequeue_str(&q), "none", &value));
    for (rest = bytequeue_str(&q); record_next(&rest, &name, &value);)
        n++;
    assert_int_equal(n, 3);
    assert_int_equal(rest.len, 0);
    for (size_t cut = 0; cut < bytequeue_len(&q); cut++)
        for (rest = (struct str){ bytequeue_str(&q).ptr, cut }; record_next(&rest, &name, &value);)
            assert_true(value.ptr + value.len <= bytequeue_str(&q).ptr + cut);
    bytequeue_free(&q);
}

#define WITH(test, ini)                                                                            \
    {                                                                                              \
#test " (" #ini ")", test, NULL, NULL, (void *)(uintptr_t)(ini)                            \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH(test_an_idle_client_goes_on, TRANSACTION),
        WITH(test_an_idle_client_goes_on, SESSION),
        WITH(test_an_answer_arrives_whole_wherever_it_is_cut, TRANSACTION),
        WITH(test_an_answer_arrives_whole_wherever_it_is_cut, SESSION),
        WITH(test_a_request_arrives_whole_wherever_it_is_cut, TRANSACTION),
        WITH(test_a_request_arrives_whole_wherever_it_is_cut, SESSION),
        cmocka_unit_test(test_bytes_that_a_slow_client_did_not_take_follow),
        cmocka_unit_test(test_prepared_statements_follow),
        cmocka_unit_test(test_a_pipeline_under_way_is_answered),
        WITH(test_copy_in_goes_on, TRANSACTION),
        WITH(test_copy_in_goes_on, SESSION),
        cmocka_unit_test(test_who_waits_is_served_in_turn),
        cmocka_unit_test(test_settings_follow),
        WITH(test_a_takeover_that_fails_leaves_all_as_it_was, TRANSACTION),
        WITH(test_a_takeover_that_fails_leaves_all_as_it_was, SESSION),
        WITH(test_what_was_imported_in_vain_is_dropped_unharmed, TRANSACTION),
        cmocka_unit_test(test_only_the_same_user_takes_over),
        cmocka_unit_test(test_records_read_as_they_were_written),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
