/* docs/configuration.md is made from proxy/config_keys.h: `make docs` writes it, the test tells
 * when it is no longer the same.
 */
#include "proxy/config_keys.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/text.h"

#define REFERENCE "docs/configuration.md"

struct row {
    const char *name;
    const char *kind;
    const char *fallback;
    const char *when;
    const char *help;
};

#define PARAMETER(kind, name, fallback, when, help) { #name, #kind, fallback, #when, help },
#define WORD(kind, name, help) { #name, #kind, NULL, NULL, help },

static const struct row parameters[] = { CONFIG_KEYS(PARAMETER) };
static const struct row database_words[] = { CONFIG_DATABASE_KEYS(WORD) };
static const struct row user_words[] = { CONFIG_USER_KEYS(WORD) };
static const struct row peer_words[] = { CONFIG_PEER_KEYS(WORD) };

#define NAME(name) #name,
static const char *const without_effect[] = { CONFIG_KEYS_WITHOUT_EFFECT(NAME) };

static const char *unit(const char *kind)
{
    if (strcmp(kind, "TIME") == 0)
        return "seconds";
    if (strcmp(kind, "INT") == 0)
        return "number";
    if (strcmp(kind, "BOOL") == 0)
        return "0 or 1";
    if (strcmp(kind, "OCTAL") == 0)
        return "octal number";
    if (strcmp(kind, "STRING") == 0)
        return "text";
    if (strcmp(kind, "SSLMODE") == 0)
        return "disable, allow, prefer, require, verify-ca, verify-full";
    if (strcmp(kind, "TLS_NEGOTIATION") == 0)
        return "postgres, direct";
    if (strcmp(kind, "CHANNEL_BINDING") == 0)
        return "disable, prefer, require";
    if (strcmp(kind, "TLS_PROTOCOLS") == 0)
        return "list of tlsv1.0 to tlsv1.3, or secure, all, legacy";
    if (strcmp(kind, "SYSLOG_FACILITY") == 0)
        return "auth, authpriv, daemon, user, local0 to local7";
    return "word";
}

static void put_cell(struct text *t, const char *words)
{
    text_put(t, "| ");
    for (const char *at = words; *at != '\0'; at++) {
        if (*at == '|' || *at == '<' || *at == '*')
            text_put_char(t, '\\');
        text_put_char(t, *at);
    }
    text_put_char(t, ' ');
}

static void put_words(struct text *t, const struct row *rows, size_t n)
{
    text_put(t, "\n| word | value | meaning |\n|---|---|---|\n");
    for (size_t i = 0; i < n; i++) {
        text_printf(t, "| `%s` ", rows[i].name);
        put_cell(t, unit(rows[i].kind));
        put_cell(t, rows[i].help);
        text_put(t, "|\n");
    }
}

static void put_reference(struct text *t)
{
    text_put(
        t,
        "# Configuration\n"
        "\n"
        "<!-- made from proxy/config_keys.h by `make docs` -->\n"
        "\n"
        "`pgtrickle FILE` reads a file in PgBouncer's format, with PgBouncer's names; a "
        "`pgbouncer.ini` "
        "works as it is. `conf/pgtrickle.ini` is a commented example.\n"
        "\n"
        "Lines are `[section]`, `key = value`, comments (`;` or `#` as the first character) or "
        "`%include FILE`. Nothing is special inside a value. An unknown section, an unknown key or "
        "a bad "
        "value stops the start (or leaves the old configuration at RELOAD) with a message that "
        "names "
        "file and line.\n"
        "\n"
        "RELOAD on the console, or SIGHUP, reads the file again. `SET key = value` on the console "
        "changes one parameter until the next RELOAD.\n"
        "\n"
        "## `[pgtrickle]` (or `[pgbouncer]`)\n"
        "\n"
        "*At start*: a change needs a restart.\n"
        "\n"
        "| parameter | default | value | meaning |\n"
        "|---|---|---|---|\n");
    for (size_t i = 0; i < sizeof(parameters) / sizeof(parameters[0]); i++) {
        const struct row *r = &parameters[i];
        text_printf(t, "| `%s` ", r->name);
        if (r->fallback[0] != '\0')
            text_printf(t, "| `%s` ", r->fallback);
        else
            text_put(t, "| ");
        put_cell(t, unit(r->kind));
        put_cell(t, r->help);
        text_printf(t, "%s|\n", strcmp(r->when, "BOOT") == 0 ? "*(at start)* " : "");
    }

    text_put(
        t,
        "\n## `[databases]`\n"
        "\n"
        "`name = word=value …`; a value with blanks stands in single quotes, a quote inside is "
        "doubled. The name `*` serves every name that has no entry. `pgbouncer` is the console.\n");
    put_words(t, database_words, sizeof(database_words) / sizeof(database_words[0]));
    text_put(t,
             "\n## `[users]`\n\n`name = word=value …`, for the users who need other settings.\n");
    put_words(t, user_words, sizeof(user_words) / sizeof(user_words[0]));
    text_put(t, "\n## `[peers]`\n\n`peer_id = word=value …` (docs/connections.md)\n");
    put_words(t, peer_words, sizeof(peer_words) / sizeof(peer_words[0]));

    text_put(
        t,
        "\n## Which setting wins\n"
        "\n"
        "| setting | order |\n"
        "|---|---|\n"
        "| `pool_mode`, `pool_size`, `reserve_pool_size` | user of the pool, database, parameter "
        "|\n"
        "| `min_pool_size`, `server_lifetime`, `max_db_connections`, `max_db_client_connections` | "
        "database, parameter |\n"
        "| `query_wait_timeout` | user who logged in, database, parameter |\n"
        "| other timeouts, `max_user_connections`, `max_user_client_connections` | user, parameter "
        "|\n"
        "| `dvm_user` | database, parameter, `user` of the database, `postgres` |\n"
        "\n"
        "The user of a pool is the one who is logged in to the server: with `user=` in the entry "
        "of "
        "the database, that one.\n"
        "\n"
        "## Without effect\n"
        "\n"
        "These are read and checked and have no effect; the log says so at start:");
    for (size_t i = 0; i < sizeof(without_effect) / sizeof(without_effect[0]); i++)
        text_printf(t, "%s `%s`", i > 0 ? "," : "", without_effect[i]);
    text_put(
        t,
        ".\n"
        "\n"
        "- `pkt_buf`, `sbuf_loopcnt`: PgBouncer has a buffer for each busy connection and turns to "
        "others after so many of them. Here a loop reads all its connections into one buffer, each "
        "once a turn, and keeps what is not sent yet at its length: there is nothing to be set.\n"
        "- `resolv_conf`: names are looked up as the system does it (`/etc/hosts`, the name "
        "service "
        "switch), which has one resolver file for all. `RES_OPTIONS` in the daemon's environment "
        "changes its options for the daemon alone.\n"
        "- `job_name`: of a service of Windows.\n"
        "\n"
        "## `auth_file`\n"
        "\n"
        "One user a line: `\"name\" \"secret\"`, a quote inside is doubled, `;` starts a comment "
        "line. "
        "The secret is a password, `md5…`, or `SCRAM-SHA-256$…` as in `pg_authid.rolpassword`. The "
        "file "
        "is read again when it changes.\n"
        "\n"
        "## `auth_hba_file`, `auth_ident_file`\n"
        "\n"
        "As `pg_hba.conf` and `pg_ident.conf`, for `auth_type = hba`: `local`, `host`, `hostssl`, "
        "`hostnossl`; `all`, `sameuser`, `replication`, names, `/regular expressions`, `@file`; "
        "`all`, `samehost`, `samenet`, `IP/bits`, `IP mask`; `trust`, `reject`, `md5`, `password`, "
        "`scram-sha-256`, `cert`, `peer`, `ldap`, `pam`; `map=`, `pamservice=`, the LDAP words. "
        "`include`, `include_if_exists`, `include_dir`. The first line that matches decides, none: "
        "refused. A bad line is left out, with a warning. As with PgBouncer, whose files work as "
        "they are: no groups (`+name`), no host names.\n"
        "\n"
        "## `auth_query`\n"
        "\n"
        "For users that `auth_file` lacks, when there is an `auth_user`: two columns, name and "
        "secret. It runs through the pool of `auth_user` in `auth_dbname`, or in the client's own "
        "database, with `pg_catalog` in front of the `search_path` that `auth_user` has there. A "
        "secret that is NULL never matches.\n"
        "\n"
        "`auth_type = pam` asks the service `pgbouncer`. The password that PAM or LDAP took logs "
        "in "
        "to the server, unless the database has a `user`.\n");
}

static void test_the_reference_is_current(void **state)
{
    (void)state;
    struct text t;
    text_init(&t);
    put_reference(&t);
    FILE *f = fopen(REFERENCE, "r");
    assert_non_null(f);
    char *file = calloc(1, t.len + 2);
    size_t n = fread(file, 1, t.len + 1, f);
    fclose(f);
    file[n] = '\0';
    if (strcmp(file, t.ptr) != 0)
        fail_msg("%s is old: make docs", REFERENCE);
    free(file);
    text_free(&t);
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--write") == 0) {
        struct text t;
        text_init(&t);
        put_reference(&t);
        FILE *f = fopen(REFERENCE, "w");
        if (f == NULL || fwrite(t.ptr, 1, t.len, f) != t.len || fclose(f) != 0) {
            perror(REFERENCE);
            return 1;
        }
        text_free(&t);
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_reference_is_current),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
