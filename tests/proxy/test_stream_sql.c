#include "proxy/stream_sql.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

/* What the first statement becomes, or "sqlstate position message". */
static void assert_becomes_in(const char *sql, bool conforming, const char *expected)
{
    struct sql_scanner s = { str_from(sql), 0, conforming };
    struct stream_statement st;
    struct sql_statement at;
    struct arena a;
    struct err e = { 0 };
    struct text got;

    arena_init(&a);
    text_init(&got);
    assert_true(sql_split_next(&s, &at));
    assert_true(stream_sql_begins((struct sql_scanner){ s.text, at.start, conforming }));
    if (stream_sql_parse(s.text, at, conforming, &a, &st, &e))
        stream_sql_put_sql(&st, &got);
    else
        text_printf(&got, "%s %d %s", e.sqlstate, e.position, e.message);
    assert_string_equal(got.ptr, expected);
    err_clear(&e);
    text_free(&got);
    arena_free(&a);
}

static void assert_becomes(const char *sql, const char *expected)
{
    assert_becomes_in(sql, true, expected);
}

#define DDL(json) "CALL pgtrickle._ddl('" json "'::pg_catalog.jsonb)"
#define NO_FLAGS "\"or_replace\":false,\"if_not_exists\":false,\"with_data\":true}"

static void test_create(void **state)
{
    (void)state;
    assert_becomes("CREATE STREAM TABLE t AS SELECT 1",
                   DDL("{\"op\":\"create\",\"schema\":null,\"name\":\"t\",\"columns\":null,"
                       "\"query\":\"SELECT 1\",\"options\":{}," NO_FLAGS));
    assert_becomes("create or replace stream table if not exists S.\"T x\" (a, \"B\") as\n"
                   " select 1, (select 2) -- end\n with no data ;",
                   DDL("{\"op\":\"create\",\"schema\":\"s\",\"name\":\"T x\",\"columns\":[\"a\","
                       "\"B\"],\"query\":\"select 1, (select 2)\",\"options\":{},"
                       "\"or_replace\":true,\"if_not_exists\":true,\"with_data\":false}"));
    assert_becomes("/*c*/ CREATE/**/STREAM --x\nTABLE if AS WITH q AS (SELECT 1) TABLE q WITH DATA",
                   DDL("{\"op\":\"create\",\"schema\":null,\"name\":\"if\",\"columns\":null,"
                       "\"query\":\"WITH q AS (SELECT 1) TABLE q\",\"options\":{}," NO_FLAGS));
}

static void test_a_with_data_inside_of_the_query_stays(void **state)
{
    (void)state;
    assert_becomes(
        "CREATE STREAM TABLE t AS SELECT data FROM (SELECT 1 with no data)",
        DDL("{\"op\":\"create\",\"schema\":null,\"name\":\"t\",\"columns\":null,"
            "\"query\":\"SELECT data FROM (SELECT 1 with no data)\",\"options\":{}," NO_FLAGS));
}

static void test_options(void **state)
{
    (void)state;
    assert_becomes("CREATE STREAM TABLE t WITH (schedule='5s', refresh_mode = DIFFERENTIAL, "
                   "append_only, n = -1.5, \"Q\" = on, d=$$a$$) AS SELECT 1",
                   DDL("{\"op\":\"create\",\"schema\":null,\"name\":\"t\",\"columns\":null,"
                       "\"query\":\"SELECT 1\",\"options\":{\"schedule\":\"5s\","
                       "\"refresh_mode\":\"DIFFERENTIAL\",\"append_only\":\"true\",\"n\":\"-1.5\","
                       "\"Q\":\"on\",\"d\":\"a\"}," NO_FLAGS));
    assert_becomes("CREATE STREAM TABLE t WITH (a=1, A=2) AS SELECT 1",
                   "42601 34 parameter \"a\" specified more than once");
    assert_becomes("CREATE STREAM TABLE t WITH () AS SELECT 1",
                   "42601 29 syntax error at or near \")\"");
    assert_becomes("CREATE STREAM TABLE t WITH (a = $1) AS SELECT 1",
                   "42601 33 syntax error at or near \"$1\"");
}

static void test_the_query_survives_quoting(void **state)
{
    (void)state;
    /* JSON doubles the backslash, the literal doubles both again */
    assert_becomes("CREATE STREAM TABLE t AS SELECT 'a\\b''c' AS \"x\"",
                   "CALL pgtrickle._ddl( E'{\"op\":\"create\",\"schema\":null,\"name\":\"t\","
                   "\"columns\":null,\"query\":\"SELECT ''a\\\\\\\\b''''c'' AS \\\\\"x\\\\\"\","
                   "\"options\":{}," NO_FLAGS "'::pg_catalog.jsonb)");
    assert_becomes_in("CREATE STREAM TABLE t AS SELECT 'a\\'; b'; x", false,
                      "CALL pgtrickle._ddl( E'{\"op\":\"create\",\"schema\":null,\"name\":\"t\","
                      "\"columns\":null,\"query\":\"SELECT ''a\\\\\\\\''; b''\","
                      "\"options\":{}," NO_FLAGS "'::pg_catalog.jsonb)");
}

#define ALTER(action, rest)                                                                        \
    DDL("{\"op\":\"alter\",\"schema\":null,\"name\":\"t\",\"if_exists\":false,\"action\":"         \
        "\"" action "\",\"options\":" rest "}")

static void test_alter(void **state)
{
    (void)state;
    assert_becomes("ALTER STREAM TABLE t SET (schedule = '1m', tier=hot)",
                   ALTER("set", "{\"schedule\":\"1m\",\"tier\":\"hot\"}"));
    assert_becomes("ALTER STREAM TABLE t RESET (schedule, tier)",
                   ALTER("reset", "{\"schedule\":null,\"tier\":null}"));
    assert_becomes("ALTER STREAM TABLE t SUSPEND", ALTER("suspend", "{}"));
    assert_becomes("ALTER STREAM TABLE t RESUME", ALTER("resume", "{}"));
    assert_becomes("ALTER STREAM TABLE t AS SELECT 2;",
                   ALTER("query", "{},\"value\":\"SELECT 2\""));
    assert_becomes("ALTER STREAM TABLE t RENAME TO U", ALTER("rename", "{},\"value\":\"u\""));
    assert_becomes("ALTER STREAM TABLE t OWNER TO \"Bob\"", ALTER("owner", "{},\"value\":\"Bob\""));
    assert_becomes("ALTER STREAM TABLE t SET SCHEMA s", ALTER("set_schema", "{},\"value\":\"s\""));
    assert_becomes("ALTER STREAM TABLE IF EXISTS a.t SUSPEND",
                   DDL("{\"op\":\"alter\",\"schema\":\"a\",\"name\":\"t\",\"if_exists\":true,"
                       "\"action\":\"suspend\",\"options\":{}}"));
    assert_becomes("ALTER STREAM TABLE t OWNER TO CURRENT_USER",
                   "CALL pgtrickle._ddl('{\"op\":\"alter\",\"schema\":null,\"name\":\"t\","
                   "\"if_exists\":false,\"action\":\"owner\",\"options\":{}}'::pg_catalog.jsonb "
                   "OPERATOR(pg_catalog.||) pg_catalog.jsonb_build_object('value', "
                   "current_user::pg_catalog.text))");
}

static void test_drop_refresh_explain(void **state)
{
    (void)state;
    assert_becomes("DROP STREAM TABLE t",
                   DDL("{\"op\":\"drop\",\"names\":[{\"schema\":null,\"name\":\"t\"}],"
                       "\"if_exists\":false,\"cascade\":false}"));
    assert_becomes("DROP STREAM TABLE IF EXISTS a.b, c CASCADE",
                   DDL("{\"op\":\"drop\",\"names\":[{\"schema\":\"a\",\"name\":\"b\"},{\"schema\":"
                       "null,\"name\":\"c\"}],\"if_exists\":true,\"cascade\":true}"));
    assert_becomes("DROP STREAM TABLE t restrict",
                   DDL("{\"op\":\"drop\",\"names\":[{\"schema\":null,\"name\":\"t\"}],"
                       "\"if_exists\":false,\"cascade\":false}"));
    assert_becomes("REFRESH STREAM TABLE a.t",
                   DDL("{\"op\":\"refresh\",\"schema\":\"a\",\"name\":\"t\"}"));
    assert_becomes("EXPLAIN STREAM TABLE t", "SELECT * FROM pgtrickle._explain(NULL, 't')");
    assert_becomes("EXPLAIN STREAM TABLE \"a'\\\".t",
                   "SELECT * FROM pgtrickle._explain( E'a''\\\\', 't')");
    assert_becomes("EXPLAIN CREATE STREAM TABLE t AS SELECT 1",
                   "SELECT * FROM pgtrickle._explain_result()");
}

static void test_errors_say_where(void **state)
{
    (void)state;
    assert_becomes("CREATE STREAM TABLE", "42601 20 syntax error at end of input");
    assert_becomes("CREATE STREAM TABLE AS SELECT 1", "42601 21 syntax error at or near \"AS\"");
    assert_becomes("CREATE STREAM TABLE t SELECT 1", "42601 23 syntax error at or near \"SELECT\"");
    assert_becomes("CREATE STREAM TABLE t AS ; x", "42601 26 syntax error at or near \";\"");
    assert_becomes("CREATE STREAM TABLE t AS WITH DATA",
                   "42601 26 syntax error at or near \"WITH\"");
    assert_becomes("CREATE STREAM TABLE t AS WITH NO DATA",
                   "42601 26 syntax error at or near \"WITH\"");
    assert_becomes("CREATE STREAM TABLE \xc3\xa4 (1) AS SELECT 1",
                   "42601 24 syntax error at or near \"1\"");
    assert_becomes("CREATE STREAM TABLE t AS SELECT 'x",
                   "42601 33 unterminated quoted string at or near \"'x\"");
    assert_becomes("CREATE STREAM TABLE \"\" AS SELECT 1",
                   "42601 21 zero-length delimited identifier at or near \"\"\"\"");
    assert_becomes("ALTER STREAM TABLE t", "42601 21 syntax error at end of input");
    assert_becomes("ALTER STREAM TABLE t SUSPEND now", "42601 30 syntax error at or near \"now\"");
    assert_becomes("DROP STREAM TABLE a, ; y", "42601 22 syntax error at or near \";\"");
    assert_becomes("DROP STREAM TABLE a.b.c", "42601 22 syntax error at or near \".\"");
    assert_becomes("REFRESH STREAM TABLE t, u", "42601 23 syntax error at or near \",\"");
    assert_becomes("ALTER STREAM TABLE t SET (a = E'\\u12')",
                   "22025 31 invalid escape sequence at or near \"E'\\u12'\"");
}

static void test_positions_count_from_the_whole_text(void **state)
{
    static const char sql[] = "select 1; create stream table t as select f(x) ; z";
    struct sql_scanner s = { str_from(sql), 0, true };
    struct stream_statement st;
    struct sql_statement at;
    struct arena a;
    struct err e = { 0 };

    (void)state;
    arena_init(&a);
    assert_true(sql_split_next(&s, &at));
    assert_true(sql_split_next(&s, &at));
    assert_true(stream_sql_parse(s.text, at, true, &a, &st, &e));
    assert_true(str_equal(st.query, STR("select f(x)")));
    assert_int_equal(st.query_offset, strstr(sql, "select f") - sql);
    arena_free(&a);
}

static void test_ordinary_statements_do_not_begin_like_ours(void **state)
{
    static const char *const others[] = {
        "create table stream (a int)",
        "select 'create stream table'",
        "create streams table",
        "create \"stream\" table t",
        "explain select 1",
        "drop table stream, table_",
        "create or stream table",
        "",
        "refresh materialized view v",
        "table stream",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
        assert_false(stream_sql_begins((struct sql_scanner){ str_from(others[i]), 0, true }));
}

/* Every prefix of long statements: an error with a position in the text, or a statement. */
static void test_every_prefix_is_an_error_or_a_statement(void **state)
{
    static const char *const all[] = {
        "EXPLAIN CREATE OR REPLACE STREAM TABLE IF NOT EXISTS a.b (c, d) WITH (e = 'f', g = -1, h) "
        "AS SELECT (1) WITH NO DATA",
        "ALTER STREAM TABLE IF EXISTS a.b SET (c = U&'\\0061', d)",
        "DROP STREAM TABLE IF EXISTS a, \"b\".c CASCADE",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        for (size_t len = 1; len <= strlen(all[i]); len++) {
            struct str text = { all[i], len };
            struct stream_statement st;
            struct arena a;
            struct err e = { 0 };
            struct text sql;

            arena_init(&a);
            text_init(&sql);
            if (stream_sql_parse(text, (struct sql_statement){ 0, len }, true, &a, &st, &e)) {
                stream_sql_put_sql(&st, &sql);
                assert_true(sql.len > 0);
            } else {
                assert_int_equal(e.class, ERR_REFUSAL);
                assert_in_range(e.position, 1, len + 1);
            }
            text_free(&sql);
            err_clear(&e);
            arena_free(&a);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_create),
        cmocka_unit_test(test_a_with_data_inside_of_the_query_stays),
        cmocka_unit_test(test_options),
        cmocka_unit_test(test_the_query_survives_quoting),
        cmocka_unit_test(test_alter),
        cmocka_unit_test(test_drop_refresh_explain),
        cmocka_unit_test(test_errors_say_where),
        cmocka_unit_test(test_positions_count_from_the_whole_text),
        cmocka_unit_test(test_ordinary_statements_do_not_begin_like_ours),
        cmocka_unit_test(test_every_prefix_is_an_error_or_a_statement),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
