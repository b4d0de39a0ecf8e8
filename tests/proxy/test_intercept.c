#include "proxy/intercept.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/text.h"

static void assert_kind(const char *sql, enum intercept_kind kind)
{
    size_t len = strlen(sql);
    char *exact = mem_alloc(len + 1); /* not NUL-terminated where the text ends */

    memcpy(exact, sql, len);
    if (intercept_classify((struct str){ exact, len }, true) != kind)
        fail_msg("not %d: %s", kind, sql);
    free(exact);
}

static void test_ordinary_traffic_is_forwarded(void **state)
{
    static const char *const sql[] = {
        "",
        "select 1",
        "BEGIN",
        "INSERT INTO stream VALUES ('create stream, table')",
        "select 'CREATE STREAM TABLE t AS SELECT 1'",
        "-- create stream table t as select 1\nselect 1",
        "create table upstream (table_id int)",
        "select * from pgtrickle",
        "select pgtrickle_changes.x from pgtrickle_changes",
        "select mypgtrickle.create_stream_table()",
        "select * from stream table t",
        "select pgtrickl.e, p.gtrickle",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(sql) / sizeof(sql[0]); i++)
        assert_kind(sql[i], INTERCEPT_FORWARD);
}

static void test_stream_statements_are_lent(void **state)
{
    static const char *const sql[] = {
        "CREATE STREAM TABLE t AS SELECT 1",
        "  /* x */ create -- y\n or replace stream\ttable t",
        "select 1; alter Stream table t suspend",
        "BEGIN;DROP STREAM TABLE t;COMMIT",
        "refresh stream table t",
        "explain stream table t",
        "explain create stream table t as select 1",
        "create stream table", /* and will be told that it ends too early */
        "select 'it''s'; create stream table t as select 1",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(sql) / sizeof(sql[0]); i++)
        assert_kind(sql[i], INTERCEPT_LEND);
}

static void test_calls_that_make_requests_are_lent(void **state)
{
    static const char *const sql[] = {
        "select pgtrickle.create_stream_table('a', $$select 1$$)",
        "SELECT PgTrickle . Create_Stream_Table ('a')",
        "select \"pgtrickle\".\"create_stream_table\"('a')",
        "select pgtrickle/*x*/./*y*/create_or_replace_stream_table('a')",
        "do $$ begin perform pgtrickle.alter_stream_table('a'); end $$",
        "call pgtrickle.drop_stream_table('a')",
        "select pgtrickle.pgt_status(), pgtrickle.refresh_stream_table('a')",
        "select pgtrickle.bulk_create('[]')",
        "select pgtrickle.resume_stream_table('a')",
        "select pgtrickle.repair_stream_table('a')",
        "call pgtrickle._ddl('{}')",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(sql) / sizeof(sql[0]); i++)
        assert_kind(sql[i], INTERCEPT_LEND);
}

static void test_other_uses_of_the_schema_read(void **state)
{
    static const char *const sql[] = {
        "select * from pgtrickle.pgt_stream_tables",
        "select * from \"pgtrickle\".stream_tables_info",
        "select pgtrickle.recommend_refresh_mode()",
        "select pgtrickle.",
        "select format('pgtrickle.%I', x)",
        "select pgtrickle.\"",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(sql) / sizeof(sql[0]); i++)
        assert_kind(sql[i], INTERCEPT_READS);
}

static void test_standard_conforming_strings_matter(void **state)
{
    struct str text = STR("select 'a\\'; create stream table t as select '1");

    (void)state;
    assert_int_equal(intercept_classify(text, true), INTERCEPT_LEND);
    assert_int_equal(intercept_classify(text, false), INTERCEPT_FORWARD);
}

/* The search goes by blocks: what it looks for may lie across any boundary, and at the very end. */
static void test_found_at_every_offset(void **state)
{
    (void)state;
    for (int pad = 0; pad < 200; pad++) {
        for (int behind = 0; behind < 70; behind += 23) {
            struct text sql;

            text_init(&sql);
            text_printf(&sql, "%*sselect pgtrickle.x%*s", pad, "", behind, "");
            assert_kind(sql.ptr, INTERCEPT_READS);
            text_clear(&sql);
            text_printf(&sql, "%*screate stream table%*s", pad, "", behind, "");
            assert_kind(sql.ptr, INTERCEPT_LEND);
            text_clear(&sql);
            text_printf(&sql, "%*sselect pgtrickl%*s", pad, "", behind, "");
            assert_kind(sql.ptr, INTERCEPT_FORWARD);
            text_free(&sql);
        }
    }
}

static void test_hidden_far_off_counts_as_ours(void **state)
{
    struct text sql;

    (void)state;
    text_init(&sql);
    text_printf(&sql, "select pgtrickle%*s.x()", 2000, "");
    assert_kind(sql.ptr, INTERCEPT_LEND);
    text_clear(&sql);
    text_printf(&sql, "create stream /*%*s*/ table t as select 1", 2000, "");
    assert_kind(sql.ptr, INTERCEPT_LEND);
    text_free(&sql);
}

static void test_rewrite(void **state)
{
    struct intercept_rewrite r;
    struct arena a;
    struct err e = { 0 };

    (void)state;
    arena_init(&a);
    assert_true(intercept_rewrite(STR("select 1; select 2"), true, &a, &r, &e));
    assert_true(str_equal(r.sql, STR("select 1; select 2")));
    assert_null(r.tag);

    assert_true(intercept_rewrite(STR("REFRESH STREAM TABLE t;"), true, &a, &r, &e));
    assert_true(str_starts_with(r.sql, STR("CALL pgtrickle._ddl(")));
    assert_string_equal(r.tag, "REFRESH STREAM TABLE");
    assert_false(r.has_rows);

    assert_true(intercept_rewrite(STR("explain stream table t"), true, &a, &r, &e));
    assert_string_equal(r.tag, "EXPLAIN");
    assert_true(r.has_rows);

    assert_true(intercept_rewrite(STR("create stream table t as select 1"), true, &a, &r, &e));
    assert_int_equal(r.definition_offset, strlen("create stream table t as "));

    assert_false(intercept_rewrite(STR("create stream table t"), true, &a, &r, &e));
    assert_string_equal(e.sqlstate, "42601");
    assert_int_equal(e.position, 22);
    assert_false(intercept_rewrite(STR("refresh stream table t; select 1"), true, &a, &r, &e));
    assert_string_equal(e.sqlstate, "42601");
    err_clear(&e);
    arena_free(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ordinary_traffic_is_forwarded),
        cmocka_unit_test(test_stream_statements_are_lent),
        cmocka_unit_test(test_calls_that_make_requests_are_lent),
        cmocka_unit_test(test_other_uses_of_the_schema_read),
        cmocka_unit_test(test_standard_conforming_strings_matter),
        cmocka_unit_test(test_found_at_every_offset),
        cmocka_unit_test(test_hidden_far_off_counts_as_ours),
        cmocka_unit_test(test_rewrite),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
