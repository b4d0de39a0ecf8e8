/* What a statement may leave in its session. Each text is told as
 * "names…|-resets|@channels|~unlistens|kinds", where kinds that it surely makes are in capitals and
 * what it may end follows a '/'. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "proxy/session_scan.h"

static void put_list(char *out, size_t size, const char *mark, const struct text *list)
{
    for (size_t i = 0; i < list->len; i += strlen(list->ptr + i) + 1) {
        size_t n = strlen(out);
        snprintf(out + n, size - n, "%s%s%s", n > 0 ? " " : "", mark, list->ptr + i);
    }
}

static void put_kind(char *out, size_t size, char kind)
{
    size_t n = strlen(out);

    snprintf(out + n, size - n, "%c", kind);
}

static const char *scan(const char *sql, bool conforming)
{
    static const struct {
        unsigned kind;
        char letter;
    } letters[] = {
        { SESSION_UNKNOWN_NAME, 'u' }, { SESSION_ADVISORY, 'a' }, { SESSION_TEMP, 't' },
        { SESSION_CURSOR, 'c' },       { SESSION_LOAD, 'l' },     { SESSION_AUTHORIZATION, 's' },
        { SESSION_RESET_ALL, 'r' },
    };
    enum { N = sizeof(letters) / sizeof(letters[0]) };
    static char out[4096];
    struct session_found f;

    session_scan(str_from(sql), conforming, &f);
    out[0] = '\0';
    put_list(out, sizeof(out), "", &f.names);
    put_list(out, sizeof(out), "-", &f.resets);
    put_list(out, sizeof(out), "@", &f.channels);
    put_list(out, sizeof(out), "~", &f.unlistens);
    if ((f.touches & ~(unsigned)(SESSION_SETTINGS | SESSION_LISTEN | SESSION_UNLISTEN)) || f.ends)
        put_kind(out, sizeof(out), '|');
    for (int i = 0; i < N; i++)
        if (f.touches & letters[i].kind)
            put_kind(
                out, sizeof(out),
                (char)(f.makes & letters[i].kind ? letters[i].letter - 32 : letters[i].letter));
    if (f.ends != 0)
        put_kind(out, sizeof(out), '/');
    for (int i = 0; i < N; i++)
        if (f.ends & letters[i].kind)
            put_kind(out, sizeof(out), letters[i].letter);
    if (out[0] != '\0')
        assert_true(session_scan_wants(str_from(sql), true));
    session_found_free(&f);
    return out;
}

struct example {
    const char *sql;
    const char *found;
};

static void check(const struct example *e)
{
    for (; e->sql != NULL; e++)
        if (strcmp(scan(e->sql, true), e->found) != 0)
            fail_msg("%s: %s, not %s", e->sql, scan(e->sql, true), e->found);
}

static void test_every_form_of_set_names_its_parameter(void **state)
{
    static const struct example examples[] = {
        { "set a = 1", "a" },
        { "SET A TO 1, 2", "a" },
        { "set session a = 1", "a" },
        { "set local a = 1", "" },
        { "set \"A b\".c = 1", "A b.c" },
        { "set app.tenant = 'x'", "app.tenant" },
        { "set session.tenant = 'x'", "session.tenant" },
        { "set local.tenant = 'x'", "local.tenant" },
        { "set time.zone = 'x'", "time.zone" },
        { "set session = 1", "session" },
        { "set time zone 'UTC'", "timezone" },
        { "set session time zone 'UTC'", "timezone" },
        { "set names 'utf8'", "client_encoding" },
        { "set schema 's'", "search_path" },
        { "set xml option document", "xmloption" },
        { "set role r", "role" },
        { "set transaction read only", "" },
        { "set session transaction read only", "" },
        { "set constraints all deferred", "" },
        { "set seed = 0.5", "" },
        { "set session characteristics as transaction read only",
          "default_transaction_isolation default_transaction_read_only "
          "default_transaction_deferrable" },
        { "set session authorization x", "|S" },
        { "set session session authorization x", "|S" },
        { "set local session authorization x", "" },
        { "set session authorization default", "|/s" },
        { "reset session authorization", "|/s" },
        { "set session_authorization = x", "|S" },
        { "/* */ ; -- x\n(set a = 1)", "a" },
        { "set a = 1; select 1; set b = 2", "a b" },
        { "update pg_settings set setting = 1", "|U" },
        { "update only \"pg_catalog\".pg_settings set setting = 1", "|U" },
        { "update settings set a = 1", "" },
        { NULL, NULL },
    };

    (void)state;
    check(examples);
}

static void test_what_is_given_back_is_told_apart(void **state)
{
    static const struct example examples[] = {
        { "reset a", "a -a" },
        { "reset session.a", "session.a -session.a" },
        { "set a to default", "a -a" },
        { "set a = default", "a -a" },
        { "set time zone default", "timezone -timezone" },
        { "set time zone local", "timezone -timezone" },
        { "reset time zone", "timezone -timezone" },
        { "set names", "client_encoding -client_encoding" },
        { "reset a; set a = 1", "a a" },
        { "set a = 1; reset A", "a a -a" },
        { "reset a; select set_config('a', '1', false)", "a a" },
        { "reset all", "|r" },
        { "reset a; reset all", "a|r" },
        { "reset all; reset a", "a -a|r" },
        { NULL, NULL },
    };

    (void)state;
    check(examples);
}

static void test_set_config_is_seen_wherever_it_is_called(void **state)
{
    static const struct example examples[] = {
        { "select set_config('a', 'b', false)", "a" },
        { "select set_config('a', 'b', true)", "" },
        { "select set_config('a', 'b', not true)", "a" },
        { "select set_config('a', 'b', $1)", "a" },
        { "select pg_catalog.\"set_config\" ('a', 'b', 1 = 2 and true)", "a" },
        { "select set_config('a'::text, 'b', false)", "a" },
        { "select set_config('a' || 'b', 'c', false)", "|U" },
        { "select set_config($1, $2, true)", "" },
        { "select set_config($1, $2, $3)", "|u" },
        { "select set_config(is_local => true, setting_name => 'a', new_value => 'b')", "|u" },
        { "select set_config('a', set_config('b', 'c', false), true)", "b" },
        { "with x as (select set_config('a', '1', false)) insert into t select * from x", "a" },
        { "declare c cursor for select set_config('a', '1', false)", "a" },
        { "create temp table x as select set_config('a', '1', false)", "a|T" },
        { NULL, NULL },
    };

    (void)state;
    check(examples);
}

static void test_what_stays_on_the_server_is_seen(void **state)
{
    static const struct example examples[] = {
        { "create temp table t (a int)", "|T" },
        { "create or replace local temporary view v as select 1", "|T" },
        { "create temp table t (a int) on commit drop", "|t" },
        { "create table pg_temp.t (a int)", "|t" },
        { "create table pg_temp_3.t (a int)", "|t" },
        { "create table temp (a int)", "" },
        { "select 1 into temp table t", "|T" },
        { "select 1 into temp from t", "|t" },
        { "insert into temp values (1)", "" },
        { "explain (analyze, costs off) create temp table t as select 1", "|T" },
        { "explain analyze verbose create temp table t as select 1", "|T" },
        { "explain create temp table t as select 1", "" },
        { "drop table t", "|/t" },
        { "discard temp", "|/t" },
        { "select pg_advisory_lock(1)", "|A" },
        { "select pg_try_advisory_lock_shared(1)", "|A" },
        { "select pg_advisory_xact_lock(1), pg_try_advisory_xact_lock(1)", "" },
        { "select pg_advisory_unlock_all()", "|/a" },
        { "select 'pg_advisory_lock'", "" },
        { "declare c cursor with hold for select 1", "|C" },
        { "declare c cursor without hold for select 1 with hold", "" },
        { "close c", "|/c" },
        { "load 'x'", "|L" },
        { "load data", "" },
        { NULL, NULL },
    };

    (void)state;
    check(examples);
}

static void test_channels_are_as_the_server_has_them(void **state)
{
    static const struct example examples[] = {
        { "listen A", "@a" },
        { "listen \"A b\"; listen c", "@A b @c" },
        { "unlisten a", "~a" },
        { "unlisten *", "~" },
        { "notify a, 'listen b'", "" },
        { "listen", "" },
        { NULL, NULL },
    };
    char sql[100] = "listen ", wanted[100] = "@";

    (void)state;
    check(examples);
    memset(sql + 7, 'a', 70);
    memset(wanted + 1, 'a', 63);
    assert_string_equal(scan(sql, true), wanted);
}

static void test_a_block_and_its_strings_are_looked_into(void **state)
{
    static const struct example examples[] = {
        { "do $$ begin set a = 1; perform pg_advisory_lock(1); end $$", "a|A" },
        { "do 'begin listen x; end'", "@x" },
        { "do $$ begin if true then execute 'set a = 1'; end if; end $$", "a" },
        { "do $$ begin execute $x$ do 'begin execute ''reset b''; end' $x$; end $$", "b -b" },
        { "select 'set a = 1'", "" },
        { "create function f() returns int language sql as 'set a = 1'", "" },
        { NULL, NULL },
    };

    (void)state;
    check(examples);
}

static void test_strings_end_where_the_server_thinks(void **state)
{
    const char *sql = "select 'a\\'; set b = 1; --'";

    (void)state;
    assert_string_equal(scan(sql, true), "b");
    assert_string_equal(scan(sql, false), "");
}

static void test_common_statements_are_not_scanned(void **state)
{
    static const char *const common[] = {
        "select 1",
        "select * from template, attempts where temperature = 5",
        "update t set a = 1",
        "update pg_class set relname = 'x'",
        "insert into t values ('x')",
        "delete from t",
        "begin",
        "commit",
        "savepoint s",
        "",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(common) / sizeof(common[0]); i++)
        assert_false(session_scan_wants(str_from(common[i]), false));
    assert_false(session_scan_wants(STR("select 1; \n"), true));
    assert_true(session_scan_wants(STR("select 1; set a = 1"), true));
    assert_true(session_scan_wants(STR("\f;/* x */set a = 1"), false));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_form_of_set_names_its_parameter),
        cmocka_unit_test(test_what_is_given_back_is_told_apart),
        cmocka_unit_test(test_set_config_is_seen_wherever_it_is_called),
        cmocka_unit_test(test_what_stays_on_the_server_is_seen),
        cmocka_unit_test(test_channels_are_as_the_server_has_them),
        cmocka_unit_test(test_a_block_and_its_strings_are_looked_into),
        cmocka_unit_test(test_strings_end_where_the_server_thinks),
        cmocka_unit_test(test_common_statements_are_not_scanned),
    };

    return cmocka_run_group_tests_name("session_scan", tests, NULL, NULL);
}
