#include "proxy/settings.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/arena.h"

struct settings {
    atomic_uint refs;
    unsigned count;
    size_t len;
    char bytes[]; /* name NUL value NUL, … */
};

struct settings *settings_ref(struct settings *s)
{
    if (s != NULL)
        atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    return s;
}

void settings_unref(struct settings *s)
{
    if (s != NULL && atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) == 1)
        free(s);
}

/* A place in a list. */
struct place {
    const char *at;
    const char *end;
    struct str name;
    struct str value;
};

static struct place first(const struct settings *s)
{
    if (s == NULL)
        return (struct place){ 0 };
    return (struct place){ .at = s->bytes, .end = s->bytes + s->len };
}

static bool next(struct place *p)
{
    if (p->at == p->end)
        return false;
    p->name = str_from(p->at);
    p->value = str_from(p->name.ptr + p->name.len + 1);
    p->at = p->value.ptr + p->value.len + 1;
    return true;
}

static bool is_role(struct str name)
{
    return str_equal(name, STR("role"));
}

bool settings_have_role(const struct settings *s)
{
    return settings_get(s, STR("role")) != NULL;
}

const char *settings_get(const struct settings *s, struct str name)
{
    struct place p = first(s);

    while (next(&p))
        if (str_equal_nocase(p.name, name))
            return p.value.ptr;
    return NULL;
}

size_t settings_count(const struct settings *s)
{
    return s == NULL ? 0 : s->count;
}

void settings_at(const struct settings *s, size_t i, struct str *name, struct str *value)
{
    struct place p = first(s);

    while (next(&p) && i-- > 0)
        ;
    *name = p.name;
    *value = p.value;
}

bool settings_equal(const struct settings *a, const struct settings *b)
{
    if (a == b)
        return true;
    return a != NULL && b != NULL && a->len == b->len && memcmp(a->bytes, b->bytes, a->len) == 0;
}

static void put_item(struct text *t, struct str name, struct str value)
{
    text_put_str(t, name);
    text_put_char(t, '\0');
    text_put_str(t, value);
    text_put_char(t, '\0');
}

static void replace(struct settings **s, struct text *bytes, unsigned count)
{
    struct settings *old = *s;

    *s = NULL;
    if (count > 0) {
        *s = mem_alloc(sizeof(**s) + bytes->len);
        atomic_init(&(*s)->refs, 1);
        (*s)->count = count;
        (*s)->len = bytes->len;
        memcpy((*s)->bytes, bytes->ptr, bytes->len);
    }
    settings_unref(old);
    text_free(bytes);
}

bool settings_put(struct settings **s, struct str name, struct str value)
{
    struct place p = first(*s);
    struct text bytes;
    unsigned count = 0;
    bool done = false;

    const char *old = settings_get(*s, name);
    if (old != NULL && str_equal(str_from(old), value))
        return true;
    if (name.len == 0 || memchr(name.ptr, '\0', name.len) != NULL ||
        (value.len > 0 && memchr(value.ptr, '\0', value.len) != NULL) ||
        (*s != NULL ? (*s)->len : 0) + name.len + value.len + 2 > SETTINGS_SIZE_MAX)
        return false;
    char *folded = mem_alloc(name.len + 1);
    for (size_t i = 0; i < name.len; i++)
        folded[i] =
            name.ptr[i] >= 'A' && name.ptr[i] <= 'Z' ? (char)(name.ptr[i] | 0x20) : name.ptr[i];
    struct str key = { folded, name.len };
    text_init(&bytes);
    while (next(&p)) {
        int order = done ? -1 : str_compare(p.name, key);
        if (order >= 0) {
            put_item(&bytes, key, value);
            count++;
            done = true;
        }
        if (order != 0) {
            put_item(&bytes, p.name, p.value);
            count++;
        }
    }
    if (!done) {
        put_item(&bytes, key, value);
        count++;
    }
    free(folded);
    replace(s, &bytes, count);
    return true;
}

void settings_remove(struct settings **s, struct str name)
{
    struct place p = first(*s);
    struct text bytes;
    unsigned count = 0;

    if (settings_get(*s, name) == NULL)
        return;
    text_init(&bytes);
    while (next(&p)) {
        if (!str_equal_nocase(p.name, name)) {
            put_item(&bytes, p.name, p.value);
            count++;
        }
    }
    replace(s, &bytes, count);
}

/* Parameters with GUC_LIST_QUOTE (src/backend/utils/misc/guc_tables.c). */
static bool is_list_of_names(const char *name)
{
    static const char *const names[] = { "search_path",
                                         "temp_tablespaces",
                                         "local_preload_libraries",
                                         "session_preload_libraries",
                                         "shared_preload_libraries",
                                         "unix_socket_directories" };

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcasecmp(name, names[i]) == 0)
            return true;
    return false;
}

void settings_put_set(struct text *sql, const char *name, struct str value)
{
    if (is_list_of_names(name)) {
        text_put(sql, "SELECT pg_catalog.set_config(");
        text_put_literal(sql, str_from(name));
        text_put(sql, ",");
        text_put_literal(sql, value);
        text_put(sql, ",false);");
        return;
    }
    text_put(sql, "SET ");
    text_put_ident(sql, name);
    text_put(sql, "=");
    text_put_literal(sql, value);
    text_put(sql, ";");
}

void settings_differences(const struct settings *want, const struct settings *have, bool doubt,
                          struct text *sql)
{
    struct place w = first(want), h = first(have);
    const char *role = settings_get(want, STR("role"));

    if (settings_equal(want, have) && !doubt)
        return;
    if (settings_have_role(have))
        text_put(sql, "RESET ROLE;");
    while (next(&h)) {
        if (is_role(h.name) || settings_get(want, h.name) != NULL)
            continue;
        text_put(sql, "RESET ");
        text_put_ident(sql, h.name.ptr);
        text_put(sql, ";");
    }
    while (next(&w)) {
        const char *old = doubt ? NULL : settings_get(have, w.name);
        if (!is_role(w.name) && (old == NULL || !str_equal(str_from(old), w.value)))
            settings_put_set(sql, w.name.ptr, w.value);
    }
    if (role != NULL)
        settings_put_set(sql, "role", str_from(role));
}
