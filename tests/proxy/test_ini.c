#include "proxy/ini.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/text.h"

static bool note_section(void *arg, struct str name, struct err *e)
{
    if (str_equal(name, STR("bad")))
        return err_set(e, ERR_CONFIG, "F0000", "a bad section");
    text_printf(arg, "[" STR_FMT "]", STR_ARG(name));
    return true;
}

static bool note_key(void *arg, struct str key, struct str value, struct err *e)
{
    if (str_equal(key, STR("bad")))
        return err_set(e, ERR_CONFIG, "F0000", "a bad key");
    text_printf(arg, "<" STR_FMT "|" STR_FMT ">", STR_ARG(key), STR_ARG(value));
    return true;
}

static void assert_reads(const char *ini, const char *expected)
{
    struct text got;
    struct err e = { 0 };
    text_init(&got);
    text_put(&got, "");
    struct ini_handler handler = { note_section, note_key, &got };
    if (!ini_read_text(str_from(ini), "x.ini", &handler, &e))
        text_printf(&got, "!%s", e.message);
    assert_string_equal(got.ptr, expected);
    err_clear(&e);
    text_free(&got);
}

static void test_sections_and_keys(void **state)
{
    (void)state;
    assert_reads("", "");
    assert_reads("[a]\nx = 1\n[b]\ny=2", "[a]<x|1>[b]<y|2>");
    assert_reads("  [a]  \n\t x\t=\t1 2  3 \t\n", "[a]<x|1 2  3>");
    assert_reads("x=\n", "<x|>");
    assert_reads("x = a = b", "<x|a = b>");
    assert_reads("a.b-c_d* = 1", "<a.b-c_d*|1>");
    assert_reads("* = host=h", "<*|host=h>");
    assert_reads("[a] x=1", "[a]<x|1>");
    assert_reads("x=1\r\ny=2\r\n", "<x|1><y|2>");
}

static void test_a_comment_is_a_whole_line(void **state)
{
    (void)state;
    assert_reads("; one\n# two\n   ; three\nx = 1 ; 2 # 3\n", "<x|1 ; 2 # 3>");
}

static void test_names_may_be_quoted(void **state)
{
    (void)state;
    assert_reads("'a b' = 1", "<a b|1>");
    assert_reads("'it''s'=1", "<it's|1>");
    assert_reads("\"a b\" = 1", "<a b|1>");
    assert_reads("\"a\"\"b\" = 1", "<a\"b|1>");
    assert_reads("'open = 1", "!x.ini:1: the closing quote of a name is missing");
    assert_reads("'' = 1", "!x.ini:1: expected a name, a section or a comment");
}

static void test_an_error_names_file_and_line(void **state)
{
    (void)state;
    assert_reads("\n\nx", "!x.ini:3: expected \"=\" after \"x\"");
    assert_reads("x 1\n", "!x.ini:1: expected \"=\" after \"x\"");
    assert_reads("x=1\n[open\n", "<x|1>!x.ini:2: \"]\" is missing");
    assert_reads("\n= 1", "!x.ini:2: expected a name, a section or a comment");
    assert_reads("\n[bad]\n", "!x.ini:2: a bad section");
    assert_reads("[a]\n\nbad=1\nx=1", "[a]!x.ini:3: a bad key");
    assert_reads("%include y", "!x.ini:1: %include is not possible here");
}

static void put_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void test_include_reads_another_file(void **state)
{
    (void)state;
    char dir[] = "/tmp/pgtrickle-test-ini-XXXXXX";
    assert_non_null(mkdtemp(dir));
    char outer[128], inner[128], loop[128], text[512];
    snprintf(outer, sizeof(outer), "%s/outer.ini", dir);
    snprintf(inner, sizeof(inner), "%s/inner.ini", dir);
    snprintf(loop, sizeof(loop), "%s/loop.ini", dir);
    snprintf(text, sizeof(text), "[a]\n%%include %s\nz=3\n", inner);
    put_file(outer, text);
    put_file(inner, "y=2\n\nbad=1");
    snprintf(text, sizeof(text), "%%include %s", loop);
    put_file(loop, text);

    struct text got;
    struct err e = { 0 };
    text_init(&got);
    struct ini_handler handler = { note_section, note_key, &got };
    assert_false(ini_read_file(outer, &handler, &e));
    snprintf(text, sizeof(text), "%s:2: %s:3: a bad key", outer, inner);
    assert_string_equal(e.message, text);

    put_file(inner, "y=2");
    text_clear(&got);
    assert_true(ini_read_file(outer, &handler, &e));
    assert_string_equal(got.ptr, "[a]<y|2><z|3>");

    assert_false(ini_read_file(loop, &handler, &e));
    assert_non_null(strstr(e.message, "nested more than"));

    unlink(outer);
    assert_false(ini_read_file(outer, &handler, &e));
    assert_non_null(strstr(e.message, outer));
    assert_false(ini_read_file(dir, &handler, &e));

    unlink(inner);
    unlink(loop);
    rmdir(dir);
    err_clear(&e);
    text_free(&got);
}

static void assert_connstr(const char *text, const char *expected)
{
    struct text got;
    struct arena arena;
    struct err e = { 0 };
    text_init(&got);
    text_put(&got, "");
    arena_init(&arena);
    struct connstr c = { str_from(text) };
    struct str key;
    const char *value;
    enum connstr_next next;
    while ((next = connstr_next(&c, &arena, &key, &value, &e)) == CONNSTR_PAIR)
        text_printf(&got, "<" STR_FMT "|%s>", STR_ARG(key), value);
    if (next == CONNSTR_BAD)
        text_printf(&got, "!%s", e.message);
    assert_string_equal(got.ptr, expected);
    err_clear(&e);
    arena_free(&arena);
    text_free(&got);
}

static void test_connection_strings(void **state)
{
    (void)state;
    assert_connstr("", "");
    assert_connstr("  ", "");
    assert_connstr("host=h port=1", "<host|h><port|1>");
    assert_connstr(" host = h  port= 1 ", "<host|h><port|1>");
    assert_connstr("x='a b' y='it''s'", "<x|a b><y|it's>");
    assert_connstr("q='select ''x''=$1'", "<q|select 'x'=$1>");
    assert_connstr("x=", "!\"x\" has no value");
    assert_connstr("x=''", "!\"x\" has no value");
    assert_connstr("x='a", "!the closing quote of \"x\" is missing");
    assert_connstr("x", "!expected key=value in the connection string at \"x\"");
    assert_connstr("x y=1", "!expected key=value in the connection string at \"x\"");
    assert_connstr("=1", "!expected key=value in the connection string at \"\"");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sections_and_keys),
        cmocka_unit_test(test_a_comment_is_a_whole_line),
        cmocka_unit_test(test_names_may_be_quoted),
        cmocka_unit_test(test_an_error_names_file_and_line),
        cmocka_unit_test(test_include_reads_another_file),
        cmocka_unit_test(test_connection_strings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
