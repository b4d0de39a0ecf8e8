/* auth_hba_file, auth_ident_file and auth_ldap_options on any bytes. The oracle: a line that is
 * reported is not a rule, one that only refuses nobody else's connection type never decides, and
 * the same question has the same answer. */
#include <stddef.h>
#include <stdint.h>

#include "proxy/hba.h"
#include "proxy/ident.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

/* Other files are not the fuzzer's to name, and the C library's patience with counted and repeated
 * repetition (each + copies what it repeats) is not what is tested. */
static bool is_out_of_bounds(struct str text)
{
    for (size_t i = 1, n = 0; i < text.len; i++) {
        n = text.ptr[i] == '+' && text.ptr[i - 1] != '\n' ? n + 1 : text.ptr[i] == '\n' ? 0 : n;
        if (n > 8)
            return true;
    }
    return text.len > 4096 || str_find(text, STR("@")) >= 0 ||
           str_find(text, STR("include")) >= 0 || str_find(text, STR("{")) >= 0;
}

static void ask(const struct hba *h, const struct hba_peer *peer)
{
    const struct hba_rule *r = hba_find(h, peer);

    if (r != hba_find(h, peer))
        __builtin_trap();
    if (r == NULL)
        return;
    for (const struct rules_complaint *bad = hba_bad_lines(h); bad != NULL; bad = bad->next)
        if (bad->number == r->line)
            __builtin_trap();
    if ((r->method == HBA_PEER && !peer->is_unix) || (r->method == HBA_CERT && !peer->is_tls))
        __builtin_trap();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct str text = { (const char *)bytes, len };
    static const struct hba_peer peers[] = {
        { .is_unix = true, .database = "db", .user = "ann" },
        { .address = "10.1.2.3", .database = "db", .user = "ann" },
        { .address = "::1", .is_tls = true, .database = "ann", .user = "ann" },
        { .address = "127.0.0.1",
          .is_physical_replication = true,
          .database = "replication",
          .user = "bob" },
    };
    struct ldap_options options;
    struct err e = { 0 };
    struct arena arena;

    if (is_out_of_bounds(text))
        return 0;
    struct hba *h = hba_parse(text, "hba");
    for (size_t i = 0; i < sizeof(peers) / sizeof(peers[0]); i++)
        ask(h, &peers[i]);
    hba_unref(h);

    struct ident *m = ident_parse(text, "ident");
    ident_allows(m, "m", "ann@x", "ann");
    if (ident_allows(m, NULL, "ann", "bob"))
        __builtin_trap();
    ident_unref(m);

    arena_init(&arena);
    if (ldap_options_parse(&options, &arena, text, &e) && options.prefix != NULL &&
        options.base_dn != NULL)
        __builtin_trap();
    err_clear(&e);
    arena_free(&arena);
    return 0;
}
