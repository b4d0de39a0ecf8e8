#include "base/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <regex.h>

static char path[] = "/tmp/pgtrickle-test-log-XXXXXX";

static int make_file(void **state)
{
    (void)state;
    strcpy(path + strlen(path) - 6, "XXXXXX");
    int fd = mkstemp(path);
    if (fd < 0)
        return -1;
    close(fd);
    return 0;
}

static int remove_file(void **state)
{
    (void)state;
    unlink(path);
    return 0;
}

static struct log *log_to_file(int verbose)
{
    struct err e = { 0 };
    struct log *l = log_new();
    struct log_options options = { .file = path, .verbose = verbose };
    assert_true(log_configure(l, &options, &e));
    return l;
}

/* The file's text; the caller frees it. */
static char *written(const char *name)
{
    FILE *f = fopen(name, "r");
    assert_non_null(f);
    char *text = calloc(1, 65536);
    size_t n = fread(text, 1, 65535, f);
    text[n] = '\0';
    fclose(f);
    return text;
}

static void test_a_line_has_time_pid_level_and_text(void **state)
{
    (void)state;
    struct log *l = log_to_file(0);
    log_line(l, LEVEL_WARNING, "pooler error: %s", "no such database");
    log_free(l);

    char *text = written(path);
    regex_t pattern;
    assert_int_equal(regcomp(&pattern,
                             "^[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{3} "
                             "[A-Z0-9+-]+ \\[[0-9]+\\] WARNING pooler error: no such database\n$",
                             REG_EXTENDED | REG_NOSUB),
                     0);
    assert_int_equal(regexec(&pattern, text, 0, NULL, 0), 0);
    regfree(&pattern);
    free(text);
}

static void test_text_of_a_peer_cannot_forge_a_line(void **state)
{
    (void)state;
    struct log *l = log_to_file(0);
    log_line(l, LEVEL_LOG, "db=%s", "x\n2026-01-01 FATAL gone\x1b[2J");
    log_free(l);

    char *text = written(path);
    assert_non_null(strstr(text, "db=x?2026-01-01 FATAL gone?[2J\n"));
    assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
    free(text);
}

static void test_a_long_line_is_cut(void **state)
{
    (void)state;
    char *lots = malloc(100000);
    memset(lots, 'x', 99999);
    lots[99999] = '\0';
    struct log *l = log_to_file(0);
    log_line(l, LEVEL_LOG, "%s", lots);
    log_line(l, LEVEL_LOG, "next");
    log_free(l);

    char *text = written(path);
    assert_true(strlen(text) < 8192 + 200);
    assert_non_null(strstr(text, "x\n"));
    assert_non_null(strstr(text, "LOG next\n"));
    free(text);
    free(lots);
}

static void test_verbose_decides_what_is_written(void **state)
{
    (void)state;
    for (int verbose = 0; verbose <= 3; verbose++) {
        struct log *l = log_to_file(verbose);
        assert_true(log_wants(l, LEVEL_LOG));
        assert_int_equal(log_wants(l, LEVEL_DEBUG), verbose >= 1);
        assert_int_equal(log_wants(l, LEVEL_NOISE), verbose >= 2);
        log_free(l);
    }
    assert_false(log_wants(NULL, LEVEL_FATAL));
}

static void test_a_renamed_file_is_left_at_the_next_configure(void **state)
{
    (void)state;
    struct err e = { 0 };
    char old[sizeof(path) + 4];
    snprintf(old, sizeof(old), "%s.old", path);
    struct log *l = log_to_file(0);
    log_line(l, LEVEL_LOG, "first");
    assert_int_equal(rename(path, old), 0);
    log_line(l, LEVEL_LOG, "second");
    struct log_options options = { .file = path };
    assert_true(log_configure(l, &options, &e));
    log_line(l, LEVEL_LOG, "third");
    log_free(l);

    char *rotated = written(old);
    char *fresh = written(path);
    assert_non_null(strstr(rotated, "first"));
    assert_non_null(strstr(rotated, "second"));
    assert_null(strstr(rotated, "third"));
    assert_non_null(strstr(fresh, "third"));
    free(rotated);
    free(fresh);
    unlink(old);
}

static void test_a_bad_target_leaves_the_old_ones(void **state)
{
    (void)state;
    struct err e = { 0 };
    struct log *l = log_to_file(0);
    struct log_options nowhere = { .file = "/nonexistent/dir/log" };
    assert_false(log_configure(l, &nowhere, &e));
    assert_non_null(strstr(e.message, "/nonexistent/dir/log"));
    struct log_options facility = { .syslog_facility = "kitchen" };
    assert_false(log_configure(l, &facility, &e));
    assert_non_null(strstr(e.message, "kitchen"));
    err_clear(&e);
    log_line(l, LEVEL_LOG, "still here");
    log_free(l);

    char *text = written(path);
    assert_non_null(strstr(text, "still here"));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, make_file, remove_file)
        T(test_a_line_has_time_pid_level_and_text),
        T(test_text_of_a_peer_cannot_forge_a_line),
        T(test_a_long_line_is_cut),
        T(test_verbose_decides_what_is_written),
        T(test_a_renamed_file_is_left_at_the_next_configure),
        T(test_a_bad_target_leaves_the_old_ones),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
