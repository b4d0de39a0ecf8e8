/* Which statements of a text prepare, execute or forget, and by which name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "proxy/sql_prepare.h"

/* "P0:p E1:x D2:y A3", the verb, the statement's number and the name. */
static const char *found(const char *sql)
{
    static char out[4096];
    struct arena a;
    struct sql_prepare_command *c;
    struct str text = str_from(sql);
    size_t at = 0;

    arena_init(&a);
    size_t n = sql_prepare_find(text, true, &a, &c);
    out[0] = '\0';
    for (size_t i = 0; i < n; i++) {
        at += (size_t)snprintf(out + at, sizeof(out) - at, "%s%c%zu", i > 0 ? " " : "",
                               "PEDA"[c[i].verb], c[i].statement);
        if (c[i].verb != SQL_FORGET_ALL)
            at += (size_t)snprintf(out + at, sizeof(out) - at, ":" STR_FMT, STR_ARG(c[i].name));
        assert_true(c[i].name_start <= c[i].name_end && c[i].name_end <= c[i].at.end);
    }
    if (n > 0)
        assert_true(sql_prepare_may_matter(text, false));
    if (n > 0 && c[0].statement == 0)
        assert_true(sql_prepare_may_matter(text, true));
    arena_free(&a);
    return out;
}

static void test_each_command_is_found(void **state)
{
    (void)state;
    assert_string_equal(found("prepare p as select 1"), "P0:p");
    assert_string_equal(found("PREPARE \"My P\" (int, numeric(3,1)) AS SELECT $1"), "P0:My P");
    assert_string_equal(found("Execute P"), "E0:p");
    assert_string_equal(found("/* x */ execute p(1, 'a;b')"), "E0:p");
    assert_string_equal(found("-- y\nexecute p(1);"), "E0:p");
    assert_string_equal(found("deallocate p"), "D0:p");
    assert_string_equal(found("deallocate prepare p"), "D0:p");
    assert_string_equal(found("deallocate prepare"), "D0:prepare");
    assert_string_equal(found("deallocate all"), "A0");
    assert_string_equal(found("deallocate prepare all"), "A0");
    assert_string_equal(found("deallocate \"all\""), "D0:all");
    assert_string_equal(found("discard all"), "A0");
    assert_string_equal(found("discard plans"), "");
    assert_string_equal(found("execute u&\"\\0070x\""), "E0:px");
    assert_string_equal(found("execute u&\"!0070x\" uescape '!'"), "");
}

static void test_execute_is_found_inside(void **state)
{
    (void)state;
    assert_string_equal(found("explain execute p(1)"), "E0:p");
    assert_string_equal(found("explain (analyze, costs off) execute p"), "E0:p");
    assert_string_equal(found("explain analyze verbose execute p"), "E0:p");
    assert_string_equal(found("create table t as execute p(2)"), "E0:p");
    assert_string_equal(found("create temp table if not exists t (a, b) with (fillfactor=10) on "
                              "commit drop as execute p with no data"),
                        "E0:p");
    assert_string_equal(found("explain create unlogged table t as execute p"), "E0:p");
    assert_string_equal(found("create table t as select 1 as execute"), "");
    assert_string_equal(found("create trigger x after insert on t execute function f()"), "");
    assert_string_equal(found("create function f() returns int as 'execute p'"), "");
    assert_string_equal(found("grant execute on function f() to x"), "");
    assert_string_equal(found("explain prepare p as select 1"), "");
}

static void test_two_phase_commit_is_another_thing(void **state)
{
    (void)state;
    assert_string_equal(found("prepare transaction 'x'"), "");
    assert_string_equal(found("prepare transaction as select 1"), "P0:transaction");
    assert_string_equal(found("prepare transaction (int) as select 1"), "P0:transaction");
}

static void test_several_statements_are_counted(void **state)
{
    (void)state;
    assert_string_equal(found("begin; ;prepare p as select ';'; execute p; select 1;deallocate p"),
                        "P1:p E2:p D4:p");
    assert_string_equal(found("select 1; select 'execute p'"), "");
    assert_string_equal(found("do $$ begin execute 'x'; end $$; execute p"), "E1:p");
}

static void test_names_are_cut_as_the_server_does(void **state)
{
    char sql[200] = "execute ";
    const char *out;

    (void)state;
    memset(sql + 8, 'a', 70);
    sql[78] = '\0';
    out = found(sql);
    assert_int_equal(strlen(out), 3 + 63);
}

static void test_common_statements_cost_no_closer_look(void **state)
{
    static const char *const common[] = {
        "select 1",
        "  UPDATE t SET a = 1;",
        "insert into t values (1, 'prepare')",
        "begin",
        "commit",
        "delete from t",
        "create table t (a int)",
        "explain select 1",
        "",
        "select 'a;b'",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(common) / sizeof(common[0]); i++)
        assert_false(sql_prepare_may_matter(str_from(common[i]), false));
    assert_false(sql_prepare_may_matter(STR("select 1; execute p"), true));
}

static void test_texts_that_are_not_sql_are_survived(void **state)
{
    static const char *const broken[] = {
        "prepare",
        "execute",
        "deallocate",
        "explain",
        "explain (",
        "create table t as",
        "create",
        "prepare 'x",
        "execute \"p",
        "deallocate prepare 5",
        "execute /* x",
        "explain (((",
        "create table t ((((",
        "execute u&\"\\00\"",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(broken) / sizeof(broken[0]); i++)
        found(broken[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_command_is_found),
        cmocka_unit_test(test_execute_is_found_inside),
        cmocka_unit_test(test_two_phase_commit_is_another_thing),
        cmocka_unit_test(test_several_statements_are_counted),
        cmocka_unit_test(test_names_are_cut_as_the_server_does),
        cmocka_unit_test(test_common_statements_cost_no_closer_look),
        cmocka_unit_test(test_texts_that_are_not_sql_are_survived),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
