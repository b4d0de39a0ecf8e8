/* Lists of settings, and the statements that lead from one to the other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "proxy/settings.h"

/* "a=1,b=2" */
static struct settings *list(const char *items)
{
    struct settings *s = NULL;
    struct str rest = str_from(items);

    while (rest.len > 0) {
        ptrdiff_t comma = str_find(rest, STR(","));
        struct str item = { rest.ptr, comma < 0 ? rest.len : (size_t)comma };
        size_t name = (size_t)str_find(item, STR("="));
        assert_true(settings_put(&s, (struct str){ item.ptr, name },
                                 (struct str){ item.ptr + name + 1, item.len - name - 1 }));
        rest.ptr += comma < 0 ? item.len : item.len + 1;
        rest.len -= comma < 0 ? item.len : item.len + 1;
    }
    return s;
}

static void check_differences(const char *want, const char *have, bool doubt, const char *sql)
{
    struct settings *w = list(want), *h = list(have);
    struct text t;

    text_init(&t);
    text_put(&t, "");
    settings_differences(w, h, doubt, &t);
    assert_string_equal(t.ptr, sql);
    text_free(&t);
    settings_unref(w);
    settings_unref(h);
}

static void test_a_list_is_sorted_and_its_names_folded(void **state)
{
    struct settings *a = list("b=2,A=1,c=3"), *b = list("c=3,B=2,a=0");
    struct str name, value;

    (void)state;
    assert_false(settings_equal(a, b));
    assert_true(settings_put(&b, STR("A"), STR("1")));
    assert_true(settings_equal(a, b));
    settings_at(a, 1, &name, &value);
    assert_string_equal(name.ptr, "b");
    assert_string_equal(value.ptr, "2");
    assert_string_equal(settings_get(a, STR("C")), "3");
    settings_remove(&a, STR("C"));
    assert_null(settings_get(a, STR("c")));
    assert_int_equal(settings_count(a), 2);
    settings_remove(&a, STR("a"));
    settings_remove(&a, STR("b"));
    assert_null(a);
    settings_unref(b);
}

static void test_a_list_that_others_hold_is_not_changed(void **state)
{
    struct settings *a = list("a=1"), *b = settings_ref(a);

    (void)state;
    assert_true(settings_put(&b, STR("b"), STR("2")));
    assert_int_equal(settings_count(a), 1);
    assert_int_equal(settings_count(b), 2);
    settings_unref(a);
    settings_unref(b);
}

static void test_what_is_no_setting_is_refused(void **state)
{
    static char large[SETTINGS_SIZE_MAX];
    struct settings *s = list("a=1");

    (void)state;
    memset(large, 'x', sizeof(large));
    assert_false(settings_put(&s, STR(""), STR("1")));
    assert_false(settings_put(&s, (struct str){ "a\0b", 3 }, STR("1")));
    assert_false(settings_put(&s, STR("b"), (struct str){ "a\0b", 3 }));
    assert_false(settings_put(&s, STR("b"), (struct str){ large, sizeof(large) }));
    assert_int_equal(settings_count(s), 1);
    settings_unref(s);
}

static void test_differences_are_set_and_the_rest_is_reset(void **state)
{
    (void)state;
    check_differences("a=1,b=2", "a=1,b=2", false, "");
    check_differences("a=1,b=2", "a=1,b=3,c=4", false, "RESET \"c\";SET \"b\"='2';");
    check_differences("", "a=1", false, "RESET \"a\";");
    check_differences("a=it's", "", false, "SET \"a\"='it''s';");
    /* What others did is not known: all is set, and nothing else can be. */
    check_differences("a=1", "a=1,b=2", true, "RESET \"b\";SET \"a\"='1';");
    /* SET search_path = 'a, b' would name one schema. */
    check_differences("search_path=\"a b\"", "", false,
                      "SELECT pg_catalog.set_config('search_path','\"a b\"',false);");
}

static void test_the_role_is_left_first_and_taken_last(void **state)
{
    (void)state;
    check_differences("a=1,role=r,z=2", "role=q", false,
                      "RESET ROLE;SET \"a\"='1';SET \"z\"='2';SET \"role\"='r';");
    check_differences("", "role=q", false, "RESET ROLE;");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_list_is_sorted_and_its_names_folded),
        cmocka_unit_test(test_a_list_that_others_hold_is_not_changed),
        cmocka_unit_test(test_what_is_no_setting_is_refused),
        cmocka_unit_test(test_differences_are_set_and_the_rest_is_reset),
        cmocka_unit_test(test_the_role_is_left_first_and_taken_last),
    };

    return cmocka_run_group_tests_name("settings", tests, NULL, NULL);
}
