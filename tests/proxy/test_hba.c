/* auth_hba_file and auth_ident_file: what a line means, and what no line is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/text.h"
#include "proxy/hba.h"
#include "proxy/ident.h"

static const struct hba_peer anybody = { .address = "10.1.2.3", .database = "db", .user = "ann" };

static struct hba *rules(const char *text)
{
    return hba_parse(str_from(text), "pg_hba.conf");
}

/* The line that decides; 0: none. */
static int decides(const char *text, struct hba_peer peer)
{
    struct hba *h = rules(text);
    const struct hba_rule *r = hba_find(h, &peer);
    int line = r != NULL ? r->line : 0;

    hba_unref(h);
    return line;
}

static int bad_lines(const struct rules_complaint *bad)
{
    int n = 0;

    for (; bad != NULL; bad = bad->next)
        n++;
    return n;
}

static struct hba_peer from(const char *address)
{
    struct hba_peer p = anybody;

    p.address = address;
    return p;
}

static struct hba_peer is(const char *database, const char *user)
{
    struct hba_peer p = anybody;

    p.database = database;
    p.user = user;
    return p;
}

static void test_the_first_line_that_matches_decides(void **state)
{
    static const char text[] = "# comment\n"
                               "host db bob 10.0.0.0/8 md5\n"
                               "host db ann 10.0.0.0/8 reject\n"
                               "host all all all trust\n";

    (void)state;
    assert_int_equal(decides(text, anybody), 3);
    assert_int_equal(decides(text, is("other", "ann")), 4);
    assert_int_equal(decides("", anybody), 0);
    assert_null(hba_find(NULL, &anybody));
}

static void test_connection_types(void **state)
{
    struct hba_peer unix_peer = anybody, tls_peer = anybody;
    static const char text[] = "local all all peer\n"
                               "hostssl all all all cert\n"
                               "hostgssenc all all all trust\n"
                               "hostnossl all all all md5\n"
                               "host all all all md5\n";

    (void)state;
    unix_peer.is_unix = true;
    unix_peer.address = NULL;
    tls_peer.is_tls = true;
    assert_int_equal(decides(text, unix_peer), 1);
    assert_int_equal(decides(text, tls_peer), 2);
    assert_int_equal(decides(text, anybody), 4);
    assert_int_equal(decides("hostnossl all all all md5\n", tls_peer), 0);
    assert_int_equal(decides("hostnogssenc all all all md5\n", tls_peer), 1);
    assert_int_equal(decides("host all all all md5\n", unix_peer), 0);
}

static void test_names_and_keywords(void **state)
{
    (void)state;
    assert_int_equal(decides("host a,db, c ann all md5\n", anybody), 1);
    assert_int_equal(decides("host \"all\" ann all md5\n", anybody), 0);
    assert_int_equal(decides("host \"all\" ann all md5\n", is("all", "ann")), 1);
    assert_int_equal(decides("host \"a \"\" b\" ann all md5\n", is("a \" b", "ann")), 1);
    assert_int_equal(decides("host sameuser all all md5\n", is("ann", "ann")), 1);
    assert_int_equal(decides("host sameuser all all md5\n", anybody), 0);
    assert_int_equal(decides("host all \"sameuser\" all md5\n", is("db", "sameuser")), 1);
    assert_int_equal(decides("host DB ann all md5\n", anybody), 0);
    assert_int_equal(decides("host /^d.$ /^a,bob all md5\n", anybody), 1);
    assert_int_equal(decides("host /^d$ all all md5\n", anybody), 0);
    assert_int_equal(decides("host db \\\nann \\\nall md5\n", anybody), 1);
}

static void test_physical_replication_has_a_keyword_of_its_own(void **state)
{
    struct hba_peer standby = anybody;

    (void)state;
    standby.is_physical_replication = true;
    assert_int_equal(decides("host all all all md5\nhost replication all all trust\n", standby), 2);
    assert_int_equal(decides("host replication all all md5\n", anybody), 0);
    assert_int_equal(decides("host replication all all md5\n", is("replication", "ann")), 0);
    assert_int_equal(decides("host \"replication\" all all md5\n", is("replication", "ann")), 1);
}

static void test_addresses(void **state)
{
    (void)state;
    assert_int_equal(decides("host all all 10.1.2.3/32 md5\n", anybody), 1);
    assert_int_equal(decides("host all all 10.1.2.2/31 md5\n", anybody), 1);
    assert_int_equal(decides("host all all 10.1.2.4/30 md5\n", anybody), 0);
    assert_int_equal(decides("host all all 0.0.0.0/0 md5\n", anybody), 1);
    assert_int_equal(decides("host all all 10.1.0.0 255.255.0.0 md5\n", anybody), 1);
    assert_int_equal(decides("host all all 10.2.0.0 255.255.0.0 md5\n", anybody), 0);
    assert_int_equal(decides("host all all ::/0 md5\n", anybody), 0);
    assert_int_equal(decides("host all all ::/0 md5\n", from("fe80::1")), 1);
    assert_int_equal(decides("host all all fe80::/10 md5\n", from("fe80::1%eth0")), 1);
    assert_int_equal(decides("host all all 0.0.0.0/0 md5\n", from("fe80::1")), 0);
    assert_int_equal(decides("host all all 10.0.0.0/8 md5\n", from("::ffff:10.1.2.3")), 1);
    assert_int_equal(decides("host all all samehost md5\n", from("127.0.0.1")), 1);
    assert_int_equal(decides("host all all samenet md5\n", from("127.9.9.9")), 1);
    assert_int_equal(decides("host all all samehost md5\n", from("192.0.2.1")), 0);
    assert_int_equal(decides("host all all all md5\n", from("nonsense")), 0);
}

static void test_methods_and_options(void **state)
{
    struct hba *h = rules("host all all all ldap ldapserver=h ldapprefix=\"cn=\" "
                          "ldapsuffix=\", dc=x\" ldapport=1389 ldaptls=1\n");
    const struct hba_rule *r = hba_find(h, &anybody);

    (void)state;
    assert_non_null(r);
    assert_int_equal(r->method, HBA_LDAP);
    assert_string_equal(r->ldap.prefix, "cn=");
    assert_string_equal(r->ldap.suffix, ", dc=x");
    assert_int_equal(r->ldap.port, 1389);
    assert_true(r->ldap.tls);
    hba_unref(h);
    h = rules("host all all all pam pamservice=x\nlocal all all peer map=m\n");
    assert_string_equal(hba_find(h, &anybody)->pam_service, "x");
    assert_int_equal(hba_rule_count(h), 2);
    hba_unref(h);
}

static void test_a_bad_line_is_left_out_and_reported(void **state)
{
    static const char *const bad[] = {
        "nonsense all all all md5",
        "host all all md5",
        "host all all 10.0.0.0 md5",
        "host all all 10.0.0.0/33 md5",
        "host all all 10.0.0.0/ md5",
        "host all all 10.0.0.0/8x md5",
        "host all all 10.0.0.0 ::1 md5",
        "host all all name.example md5",
        "host all all all",
        "host all all all magic",
        "host all all all peer",
        "host all all all cert",
        "local all all cert",
        "host all +group all md5",
        "host samerole all all md5",
        "host all \"ann all md5",
        "host all all all md5 map=x",
        "host all all all md5 nonsense",
        "host all all all md5 ldapserver=x",
        "host all all all ldap",
        "host all all all ldap ldapserver=h",
        "host all all all ldap ldapserver=h ldapprefix=a ldapbasedn=b",
        "host all all all ldap ldapserver=h ldapbasedn=b ldapport=x",
        "host all /[ all md5",
        "host all @/no/such/file all md5",
        "host,local all all all md5",
        "local all",
        "include",
        "include /no/such/file",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        char text[256];
        snprintf(text, sizeof(text), "%s\nhost all all all md5\n", bad[i]);
        struct hba *h = rules(text);
        const struct hba_rule *r = hba_find(h, &anybody);
        if (bad_lines(hba_bad_lines(h)) != 1 || hba_bad_lines(h)->number != 1)
            fail_msg("not one bad line: %s", bad[i]);
        if (r == NULL || r->line != 2)
            fail_msg("the good line is lost behind: %s", bad[i]);
        hba_unref(h);
    }
}

static void write_file(const char *directory, const char *name, const char *text)
{
    char path[256];

    snprintf(path, sizeof(path), "%s/%s", directory, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void test_other_files_are_relative_to_the_one_that_names_them(void **state)
{
    char directory[] = "/tmp/pgtrickle_hba_XXXXXX";
    char path[256], command[256];
    struct err e = { 0 };

    (void)state;
    assert_non_null(mkdtemp(directory));
    snprintf(path, sizeof(path), "%s/sub", directory);
    assert_int_equal(mkdir(path, 0700), 0);
    write_file(directory, "hba",
               "include sub/one\ninclude_if_exists none\ninclude_dir sub\n"
               "host all @users all trust\n");
    write_file(directory, "users", "bob, eve\nann # me\n");
    write_file(directory, "sub/one", "host db1 all all md5\n@x\n");
    write_file(directory, "sub/two.conf", "host db2 all all md5\n");
    write_file(directory, "loop", "include loop\n");
    snprintf(path, sizeof(path), "%s/hba", directory);
    struct hba *h = hba_load(path, &e);
    assert_non_null(h);
    assert_int_equal(hba_rule_count(h), 3);
    assert_int_equal(bad_lines(hba_bad_lines(h)), 1);
    assert_int_equal(hba_find(h, &anybody)->method, HBA_TRUST);
    struct hba_peer peer = is("db2", "zoe");
    assert_int_equal(hba_find(h, &peer)->method, HBA_MD5);
    hba_unref(h);
    snprintf(path, sizeof(path), "%s/loop", directory);
    h = hba_load(path, &e);
    assert_non_null(h);
    assert_int_equal(hba_rule_count(h), 0);
    hba_unref(h);
    snprintf(path, sizeof(path), "%s/none", directory);
    assert_null(hba_load(path, &e));
    assert_true(err_is_set(&e));
    err_clear(&e);
    snprintf(command, sizeof(command), "rm -r %s", directory);
    assert_int_equal(system(command), 0);
}

/* What a word takes is the word's, not the rest of the line's. */
static void test_a_line_may_have_very_many_names(void **state)
{
    struct text line;

    (void)state;
    text_init(&line);
    text_put(&line, "local db x0");
    for (int i = 1; i < 200000; i++)
        text_put(&line, ",x");
    text_put(&line, ",\"ann\"\"a\" trust\n");
    assert_int_equal(
        decides(line.ptr, (struct hba_peer){ .is_unix = true, .database = "db", .user = "ann\"a" }),
        1);
    text_free(&line);
}

static void test_maps(void **state)
{
    struct ident *m = ident_parse(STR("m ann ann\nm root all\nm \"sys x\" \"all\"\n"
                                      "m /^(.*)@example\\.org$ \\1\nm /^x_(.*)$ p_\\1_s\n"
                                      "n eve bob\nm too few fields\nm ann +group\nm /( x\n"),
                                  "pg_ident.conf");

    (void)state;
    assert_int_equal(bad_lines(ident_bad_lines(m)), 3);
    assert_true(ident_allows(m, NULL, "ann", "ann"));
    assert_false(ident_allows(m, NULL, "ann", "bob"));
    assert_true(ident_allows(m, "m", "ann", "ann"));
    assert_false(ident_allows(m, "m", "ann", "bob"));
    assert_true(ident_allows(m, "m", "root", "whoever"));
    assert_true(ident_allows(m, "m", "sys x", "all"));
    assert_false(ident_allows(m, "m", "sys x", "ann"));
    assert_true(ident_allows(m, "m", "zoe@example.org", "zoe"));
    assert_false(ident_allows(m, "m", "zoe@example.org", "zo"));
    assert_true(ident_allows(m, "m", "x_1", "p_1_s"));
    assert_false(ident_allows(m, "m", "x_1", "p_12_s"));
    assert_false(ident_allows(m, "m", "eve", "bob"));
    assert_true(ident_allows(m, "n", "eve", "bob"));
    assert_false(ident_allows(m, "none", "ann", "ann"));
    assert_false(ident_allows(NULL, "m", "ann", "ann"));
    ident_unref(m);
}

static void test_ldap_words(void **state)
{
    struct ldap_options o;
    struct arena a;
    struct err e = { 0 };
    const char *filter;

    (void)state;
    arena_init(&a);
    assert_true(
        ldap_options_parse(&o, &a, STR("ldapurl=\"ldaps://h:1636/dc=a%20b?mail?sub\""), &e));
    assert_string_equal(o.scheme, "ldaps");
    assert_string_equal(o.server, "h");
    assert_int_equal(o.port, 1636);
    assert_string_equal(o.base_dn, "dc=a b");
    assert_int_equal(o.scope, LDAP_SUBTREE);
    assert_true(ldap_options_filter(&o, "ann", &a, &filter));
    assert_string_equal(filter, "(mail=ann)");
    assert_false(ldap_options_filter(&o, "a*", &a, &filter));
    assert_true(ldap_options_parse(&o, &a,
                                   STR("ldapserver=h,ldapbasedn=x ldapsearchfilter=\"(|(uid="
                                       "$username)(cn=$username))\""),
                                   &e));
    assert_true(ldap_options_filter(&o, "ann", &a, &filter));
    assert_string_equal(filter, "(|(uid=ann)(cn=ann))");
    assert_false(ldap_options_parse(&o, &a, STR("ldapurl=http://h/x"), &e));
    assert_false(ldap_options_parse(&o, &a, STR("ldapserver=h"), &e));
    assert_false(ldap_options_parse(&o, &a, STR("ldapserver"), &e));
    assert_false(ldap_options_parse(&o, &a, STR("ldapserver=\"h"), &e));
    assert_false(ldap_options_parse(&o, &a, STR("color=red"), &e));
    err_clear(&e);
    arena_free(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_first_line_that_matches_decides),
        cmocka_unit_test(test_connection_types),
        cmocka_unit_test(test_names_and_keywords),
        cmocka_unit_test(test_physical_replication_has_a_keyword_of_its_own),
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_methods_and_options),
        cmocka_unit_test(test_a_bad_line_is_left_out_and_reported),
        cmocka_unit_test(test_other_files_are_relative_to_the_one_that_names_them),
        cmocka_unit_test(test_a_line_may_have_very_many_names),
        cmocka_unit_test(test_maps),
        cmocka_unit_test(test_ldap_words),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
