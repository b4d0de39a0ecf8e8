/* The configuration reader on any bytes: the ini dialect, connection strings, user lists. */
#include <stddef.h>
#include <stdint.h>

#include "proxy/config.h"
#include "proxy/ini.h"
#include "proxy/userlist.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct str text = { (const char *)bytes, len };
    struct err e = { 0 };

    struct config *c = config_parse(text, "fuzz.ini", &e);
    if (c != NULL) {
        struct arena arena;
        arena_init(&arena);
        for (size_t i = 0; i < config_key_count(); i++) {
            struct config_shown shown;
            config_show(c, i, &arena, &shown);
            struct config *set = config_set(c, str_from(shown.key), str_from(shown.fallback), &e);
            config_unref(set);
        }
        for (size_t i = 0; i < c->n_databases; i++) {
            if (config_find_database(c, str_from(c->databases[i].name)) != &c->databases[i])
                __builtin_trap();
        }
        arena_free(&arena);
    }
    config_unref(c);

    struct userlist *u = userlist_parse(text, "fuzz.txt", &e);
    for (size_t i = 0; i < userlist_count(u); i++) {
        const struct userlist_entry *entry = userlist_at(u, i);
        if (userlist_find(u, str_from(entry->name)) != entry)
            __builtin_trap();
    }
    userlist_unref(u);
    err_clear(&e);
    return 0;
}
