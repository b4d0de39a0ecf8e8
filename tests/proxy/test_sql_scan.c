#include "proxy/sql_scan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/text.h"

static const char *kind_name(enum sql_token_kind kind)
{
    static const char *const names[] = {
        [SQL_END] = "end",
        [SQL_WORD] = "word",
        [SQL_QUOTED_IDENT] = "qi",
        [SQL_UNICODE_IDENT] = "ui",
        [SQL_STRING] = "str",
        [SQL_ESCAPE_STRING] = "estr",
        [SQL_UNICODE_STRING] = "ustr",
        [SQL_DOLLAR_STRING] = "dollar",
        [SQL_BIT_STRING] = "bits",
        [SQL_NUMBER] = "num",
        [SQL_PARAM] = "param",
        [SQL_SYMBOL] = "sym",
        [SQL_UNTERMINATED] = "open",
    };

    return names[kind];
}

/* "kind[bytes] kind[bytes] ..." */
static void assert_tokens_in(struct str text, bool conforming, const char *expected)
{
    struct sql_scanner s = { text, 0, conforming };
    struct text got;
    struct sql_token t;

    text_init(&got);
    text_put(&got, "");
    while ((t = sql_scan_next(&s)).kind != SQL_END)
        text_printf(&got, "%s%s[" STR_FMT "]", got.len > 0 ? " " : "", kind_name(t.kind),
                    (int)(t.end - t.start), text.ptr + t.start);
    assert_string_equal(got.ptr, expected);
    text_free(&got);
}

static void assert_tokens(const char *sql, const char *expected)
{
    assert_tokens_in(str_from(sql), true, expected);
}

static void test_white_space_and_comments_are_skipped(void **state)
{
    (void)state;
    assert_tokens("", "");
    assert_tokens(" \t\r\n\f ", "");
    assert_tokens("-- all of it", "");
    assert_tokens("/* a /* nested */ b */ x -- y\nz", "word[x] word[z]");
    assert_tokens("a--b\rc", "word[a] word[c]");
    assert_tokens("1+/*x*/2", "num[1] sym[+] num[2]");
    assert_tokens("1 +-- x\n2", "num[1] sym[+] num[2]");
    assert_tokens("/* a /* b */", "open[/* a /* b */]");
    assert_tokens("/*/", "open[/*/]");
    assert_tokens("a /", "word[a] sym[/]");
}

static void test_words_hold_dollars_and_high_bytes(void **state)
{
    (void)state;
    assert_tokens("a$b$c$ _x \xc3\xa4\xc3\xb6", "word[a$b$c$] word[_x] word[\xc3\xa4\xc3\xb6]");
    assert_tokens("a.b", "word[a] sym[.] word[b]");
}

static void test_quoted_identifiers(void **state)
{
    (void)state;
    assert_tokens("\"a;\"\"b\" c", "qi[\"a;\"\"b\"] word[c]");
    assert_tokens("U&\"d\\0061t\" u", "ui[U&\"d\\0061t\"] word[u]");
    assert_tokens("\"open", "open[\"open]");
    assert_tokens("u & \"x\"", "word[u] sym[&] qi[\"x\"]");
}

static void test_backslash_is_plain_in_conforming_strings(void **state)
{
    (void)state;
    assert_tokens("'a\\' b", "str['a\\'] word[b]");
    assert_tokens("'it''s' x", "str['it''s'] word[x]");
    assert_tokens("E'a\\' b' x", "estr[E'a\\' b'] word[x]");
    assert_tokens("e'\\\\' x", "estr[e'\\\\'] word[x]");
    assert_tokens("ee'a'", "word[ee] str['a']");
    assert_tokens("E'a\\", "open[E'a\\]");
    assert_tokens("U&'\\0061' n'x' N'y'", "ustr[U&'\\0061'] str[n'x'] str[N'y']");
}

static void test_backslash_escapes_in_non_conforming_strings(void **state)
{
    (void)state;
    assert_tokens_in(STR("'a\\' b' x"), false, "estr['a\\' b'] word[x]");
    assert_tokens_in(STR("n'a\\' b' x"), false, "estr[n'a\\' b'] word[x]");
    assert_tokens_in(STR("x'a\\' b"), false, "bits[x'a\\'] word[b]");
}

static void test_a_string_continues_over_a_line_break(void **state)
{
    (void)state;
    assert_tokens("'a'\n'b' c", "str['a'\n'b'] word[c]");
    assert_tokens("'a' 'b'", "str['a'] str['b']");
    assert_tokens("E'a' -- note\n '\\'' c", "estr[E'a' -- note\n '\\''] word[c]");
    assert_tokens("E'a'\n/* no */ '\\' c", "estr[E'a'] str['\\'] word[c]");
    assert_tokens("b'1'\n'0' x'1''2'", "bits[b'1'\n'0'] bits[x'1'] str['2']");
}

static void test_dollar_quotes(void **state)
{
    (void)state;
    assert_tokens("$$a;'b$$ c", "dollar[$$a;'b$$] word[c]");
    assert_tokens("$x$ $$ $y$ $x$ c", "dollar[$x$ $$ $y$ $x$] word[c]");
    assert_tokens("$X$ $x$", "open[$X$ $x$]");
    assert_tokens("$1 $1$ $-$", "param[$1] param[$1] sym[$] sym[$] sym[-] sym[$]");
    assert_tokens("$\xc3\xa4$'$\xc3\xa4$", "dollar[$\xc3\xa4$'$\xc3\xa4$]");
}

static void test_numbers(void **state)
{
    (void)state;
    assert_tokens("1.5e-10 .5 1..2 0x1F 1_000", "num[1.5e-10] num[.5] num[1] sym[.] num[.2] "
                                                "num[0x1F] num[1_000]");
    assert_tokens("1$$a$$", "num[1] dollar[$$a$$]");
    assert_tokens("-5", "sym[-] num[5]");
}

static void assert_statements(const char *sql, const char *expected)
{
    struct sql_scanner s = { str_from(sql), 0, true };
    struct sql_statement at;
    struct text got;

    text_init(&got);
    text_put(&got, "");
    while (sql_split_next(&s, &at))
        text_printf(&got, "{" STR_FMT "}", (int)(at.end - at.start), sql + at.start);
    assert_string_equal(got.ptr, expected);
    text_free(&got);
}

static void test_statements_end_at_semicolons(void **state)
{
    (void)state;
    assert_statements("", "");
    assert_statements(" ; ;; -- x", "");
    assert_statements("a; b c ;/*x*/d", "{a}{b c}{d}");
    assert_statements("select ';', \";\", $$;$$ /*;*/; x", "{select ';', \";\", $$;$$}{x}");
    assert_statements("select 'open; x", "{select 'open; x}");
    assert_statements("a /* open ; b", "{a /* open ; b}");
}

static void test_semicolons_inside_do_not_end(void **state)
{
    (void)state;
    assert_statements("create rule r as on insert to t do (a; b); c",
                      "{create rule r as on insert to t do (a; b)}{c}");
    assert_statements("a); b", "{a)}{b}");
    assert_statements(
        "create or replace function f() returns int begin atomic select case when true then 1 end;"
        " select 2; end; x",
        "{create or replace function f() returns int begin atomic select case when true then 1 "
        "end; select 2; end}{x}");
    assert_statements("create procedure p() begin atomic; end; x",
                      "{create procedure p() begin atomic; end}{x}");
    assert_statements("create table t(begin int); begin; x",
                      "{create table t(begin int)}{begin}{x}");
    assert_statements("create function f() returns int language sql as 'x'; begin; end; y",
                      "{create function f() returns int language sql as 'x'}{begin}{end}{y}");
}

static void assert_value(const char *sql, const char *expected)
{
    struct sql_scanner s = { str_from(sql), 0, true };
    struct arena a;
    const char *value;

    arena_init(&a);
    value = sql_token_value(s.text, sql_scan_next(&s), &a);
    if (expected == NULL)
        assert_null(value);
    else {
        assert_non_null(value);
        assert_string_equal(value, expected);
    }
    arena_free(&a);
}

static void test_values(void **state)
{
    (void)state;
    assert_value("FooBar", "foobar");
    assert_value("\"Foo\"\"Bar\"", "Foo\"Bar");
    assert_value("U&\"d\\0061t\\+000061\"", "data");
    assert_value("U&'\\d83d\\de00\\\\'", "\xf0\x9f\x98\x80\\");
    assert_value("U&'\\d83d'", NULL);
    assert_value("U&'\\00'", NULL);
    assert_value("'it''s'", "it's");
    assert_value("'a'\n  'b'", "ab");
    assert_value("N'x'", "x");
    assert_value("E'a\\n\\t\\x41\\101\\u00e4\\'\\q'", "a\n\tAA\xc3\xa4'q");
    assert_value("E'\\U0001F600'", "\xf0\x9f\x98\x80");
    assert_value("E'\\uD83D\\uDE00'", "\xf0\x9f\x98\x80");
    assert_value("E'\\uD83D'", NULL);
    assert_value("E'\\u12'", NULL);
    assert_value("E'\\000'", NULL);
    assert_value("$q$a'b\\$q$", "a'b\\");
    assert_value("''", "");
    assert_value("42", "42");
}

static void test_identifiers_are_cut_at_a_character(void **state)
{
    (void)state;
    assert_value("aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffgggXX",
                 "aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffggg");
    assert_value("\"aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffgg\xc3\xa4\"",
                 "aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffgg");
}

static void test_positions_are_characters(void **state)
{
    (void)state;
    assert_int_equal(sql_char_position(STR("abc"), 0), 1);
    assert_int_equal(sql_char_position(STR("abc"), 2), 3);
    assert_int_equal(sql_char_position(STR("\xc3\xa4\xe2\x82\xac x"), 6), 4);
    assert_int_equal(sql_char_position(STR("\xe4\xf6 x"), 3), 4); /* LATIN1 */
    assert_int_equal(sql_char_position(STR("abc"), 99), 4);
}

/* Every prefix of a text full of lexical traps: the scanner stays inside and ends. */
static void test_every_prefix_ends(void **state)
{
    static const char sql[] = "select E'a\\'b' 'c'\n'd', U&\"x\\0061\" || $q$ $ $q$ /* /* */ */, "
                              "b'1' ->> $1, 1.5e+7 -- end\n; create function f() begin atomic; end";
    (void)state;
    for (size_t len = 0; len < sizeof(sql); len++) {
        char *copy = mem_alloc(len + 1); /* exact: an over-read shows under the sanitizer */
        struct arena a;
        struct sql_scanner s;
        struct sql_token t;
        size_t last = 0;

        arena_init(&a);
        memcpy(copy, sql, len);
        s = (struct sql_scanner){ { copy, len }, 0, true };
        while ((t = sql_scan_next(&s)).kind != SQL_END) {
            assert_true(t.start >= last && t.end > t.start && t.end <= len);
            last = t.end;
            sql_token_value(s.text, t, &a);
        }
        arena_free(&a);
        free(copy);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_white_space_and_comments_are_skipped),
        cmocka_unit_test(test_words_hold_dollars_and_high_bytes),
        cmocka_unit_test(test_quoted_identifiers),
        cmocka_unit_test(test_backslash_is_plain_in_conforming_strings),
        cmocka_unit_test(test_backslash_escapes_in_non_conforming_strings),
        cmocka_unit_test(test_a_string_continues_over_a_line_break),
        cmocka_unit_test(test_dollar_quotes),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_statements_end_at_semicolons),
        cmocka_unit_test(test_semicolons_inside_do_not_end),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_identifiers_are_cut_at_a_character),
        cmocka_unit_test(test_positions_are_characters),
        cmocka_unit_test(test_every_prefix_ends),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
