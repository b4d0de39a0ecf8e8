#include "proxy/userlist.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/text.h"

static const char md5_secret[] = "md5d41d8cd98f00b204e9800998ecf8427e";

static struct userlist *parse(const char *text)
{
    struct err e = { 0 };
    struct userlist *u = userlist_parse(str_from(text), "users.txt", &e);
    assert_non_null(u);
    return u;
}

static void assert_refused(const char *text, const char *message)
{
    struct err e = { 0 };
    assert_null(userlist_parse(str_from(text), "users.txt", &e));
    assert_string_equal(e.message, message);
    err_clear(&e);
}

static void test_users_are_found_by_name(void **state)
{
    (void)state;
    struct userlist *u =
        parse("\"bob\" \"b\"\n\"alice\" \"a\"\n\"it\"\"s\" \"c\"\"d\"\n\"\xc3\xa9\" \"e\"");
    assert_int_equal(userlist_count(u), 4);
    assert_string_equal(userlist_find(u, STR("alice"))->secret, "a");
    assert_string_equal(userlist_find(u, STR("bob"))->secret, "b");
    assert_string_equal(userlist_find(u, STR("it\"s"))->secret, "c\"d");
    assert_string_equal(userlist_find(u, STR("\xc3\xa9"))->secret, "e");
    assert_null(userlist_find(u, STR("carol")));
    assert_null(userlist_find(u, STR("")));
    assert_null(userlist_find(u, STR("bobb")));
    assert_null(userlist_find(u, (struct str){ "bob\0x", 5 }));
    assert_string_equal(userlist_at(u, 0)->name, "alice");
    userlist_unref(u);
    assert_null(userlist_find(NULL, STR("bob")));
    assert_int_equal(userlist_count(NULL), 0);
}

static void test_kinds_of_secrets(void **state)
{
    (void)state;
    assert_int_equal(secret_kind_of(STR("")), SECRET_NONE);
    assert_int_equal(secret_kind_of(STR("md5")), SECRET_PLAIN);
    assert_int_equal(secret_kind_of(str_from(md5_secret)), SECRET_MD5);
    assert_int_equal(secret_kind_of(STR("md5g41d8cd98f00b204e9800998ecf8427e")), SECRET_PLAIN);
    assert_int_equal(secret_kind_of(STR("SCRAM-SHA-256$4096:c2FsdA==$a:b")), SECRET_SCRAM);
}

static void test_the_last_line_of_a_user_wins(void **state)
{
    (void)state;
    struct userlist *u = parse("\"a\" \"1\"\n\"b\" \"1\"\n\"a\" \"2\"\n\"a\" \"3\"\n");
    assert_int_equal(userlist_count(u), 2);
    assert_string_equal(userlist_find(u, STR("a"))->secret, "3");
    userlist_unref(u);
}

static void test_comments_and_rests_of_lines_are_ignored(void **state)
{
    (void)state;
    struct userlist *u = parse("; \"x\" \"y\"\n\n  \"a\"\t\"1\" \"2\" anything\r\n\"b\" \"\"\n");
    assert_int_equal(userlist_count(u), 2);
    assert_string_equal(userlist_find(u, STR("a"))->secret, "1");
    assert_int_equal(userlist_find(u, STR("b"))->kind, SECRET_NONE);
    userlist_unref(u);
}

static void test_a_bad_line_is_named(void **state)
{
    (void)state;
    assert_refused("\"a\" \"b\"\n\nbob secret",
                   "users.txt:3: expected a user's name in double quotes");
    assert_refused("\"a\"", "users.txt:1: expected a secret in double quotes");
    assert_refused("\"a\"\"b\"", "users.txt:1: expected a secret in double quotes");
    assert_refused("\"a\" \"b", "users.txt:1: expected a secret in double quotes");
    assert_refused("\"\" \"b\"", "users.txt:1: the user's name is empty");

    struct text t;
    text_init(&t);
    text_put(&t, "\"");
    for (int i = 0; i < 128; i++)
        text_put_char(&t, 'u');
    text_put(&t, "\" \"x\"");
    assert_refused(t.ptr, "users.txt:1: the user's name is longer than 127 bytes");
    text_free(&t);
}

static void test_a_changed_file_makes_the_list_stale(void **state)
{
    (void)state;
    char path[] = "/tmp/pgtrickle-test-users-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "\"a\" \"1\"\n", 8), 8);
    struct err e = { 0 };
    struct userlist *u = userlist_load(path, &e);
    assert_non_null(u);
    assert_false(userlist_is_stale(u));
    assert_int_equal(write(fd, "\"b\" \"1\"\n", 8), 8);
    assert_true(userlist_is_stale(u));

    struct userlist *again = userlist_load(path, &e);
    assert_int_equal(userlist_count(again), 2);
    assert_false(userlist_is_stale(again));
    unlink(path);
    assert_true(userlist_is_stale(again));
    assert_null(userlist_load(path, &e));
    assert_non_null(strstr(e.message, path));

    /* Whoever holds a reference keeps it. */
    userlist_ref(u);
    userlist_unref(u);
    assert_string_equal(userlist_find(u, STR("a"))->secret, "1");
    userlist_unref(u);
    userlist_unref(again);
    err_clear(&e);
    close(fd);
}

static void test_many_users_are_found(void **state)
{
    (void)state;
    struct text t;
    text_init(&t);
    for (int i = 0; i < 5000; i++)
        text_printf(&t, "\"user%d\" \"secret%d\"\n", (i * 7919) % 5000, (i * 7919) % 5000);
    struct userlist *u = parse(t.ptr);
    assert_int_equal(userlist_count(u), 5000);
    for (int i = 0; i < 5000; i++) {
        char name[32], secret[32];
        snprintf(name, sizeof(name), "user%d", i);
        snprintf(secret, sizeof(secret), "secret%d", i);
        assert_string_equal(userlist_find(u, str_from(name))->secret, secret);
    }
    userlist_unref(u);
    text_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_users_are_found_by_name),
        cmocka_unit_test(test_kinds_of_secrets),
        cmocka_unit_test(test_the_last_line_of_a_user_wins),
        cmocka_unit_test(test_comments_and_rests_of_lines_are_ignored),
        cmocka_unit_test(test_a_bad_line_is_named),
        cmocka_unit_test(test_a_changed_file_makes_the_list_stale),
        cmocka_unit_test(test_many_users_are_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
