#include "proxy/params.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "base/arena.h"

struct param_value {
    atomic_uint refs; /* values are shared between threads too */
    size_t len;
    char text[];
};

static void add_name(struct params_names *n, struct str name)
{
    if (name.len == 0 || n->count == PARAMS_MAX || params_find(n, name) >= 0)
        return;
    char *copy = mem_alloc(name.len + 1);
    memcpy(copy, name.ptr, name.len);
    n->name[n->count++] = copy;
}

void params_names_init(struct params_names *n, const char *extra)
{
    *n = (struct params_names){ 0 };
    add_name(n, STR("client_encoding"));
    add_name(n, STR("DateStyle"));
    add_name(n, STR("TimeZone"));
    add_name(n, STR("standard_conforming_strings"));
    add_name(n, STR("application_name"));

    struct str rest = str_from(extra);
    while (rest.len > 0) {
        ptrdiff_t comma = str_find(rest, STR(","));
        size_t len = comma < 0 ? rest.len : (size_t)comma;
        add_name(n, str_trim((struct str){ rest.ptr, len }));
        rest.ptr += comma < 0 ? len : len + 1;
        rest.len -= comma < 0 ? len : len + 1;
    }
}

void params_names_free(struct params_names *n)
{
    for (int i = 0; i < n->count; i++)
        free(n->name[i]);
    *n = (struct params_names){ 0 };
}

int params_find(const struct params_names *n, struct str name)
{
    for (int i = 0; i < n->count; i++)
        if (str_equal_nocase(str_from(n->name[i]), name))
            return i;
    return -1;
}

static void drop(struct params *p, int i)
{
    if (p->value[i] != NULL &&
        atomic_fetch_sub_explicit(&p->value[i]->refs, 1, memory_order_acq_rel) == 1)
        free(p->value[i]);
    p->value[i] = NULL;
}

void params_clear(struct params *p)
{
    for (int i = 0; i < PARAMS_MAX; i++)
        drop(p, i);
}

void params_set(struct params *p, int i, struct str value)
{
    if (p->value[i] != NULL &&
        str_equal((struct str){ p->value[i]->text, p->value[i]->len }, value))
        return;
    struct param_value *v = mem_alloc(sizeof(*v) + value.len + 1);
    atomic_init(&v->refs, 1);
    v->len = value.len;
    memcpy(v->text, value.ptr, value.len);
    drop(p, i);
    p->value[i] = v;
}

const char *params_get(const struct params *p, int i)
{
    return p->value[i] != NULL ? p->value[i]->text : NULL;
}

void params_share(struct params *to, const struct params *from, int i)
{
    if (to->value[i] == from->value[i])
        return;
    drop(to, i);
    to->value[i] = from->value[i];
    if (to->value[i] != NULL)
        atomic_fetch_add_explicit(&to->value[i]->refs, 1, memory_order_relaxed);
}

void params_fill_unset(struct params *to, const struct params *from)
{
    for (int i = 0; i < PARAMS_MAX; i++)
        if (to->value[i] == NULL)
            params_share(to, from, i);
}

bool params_differences(const struct params_names *n, const struct params *client,
                        const struct params *server, struct text *sql, unsigned *changed)
{
    *changed = 0;
    for (int i = 0; i < n->count; i++) {
        const struct param_value *want = client->value[i];
        const struct param_value *have = server->value[i];
        /* A parameter that this server does not report (an older version) can't be set on it. */
        if (want == have || want == NULL || have == NULL)
            continue;
        if (want->len == have->len && memcmp(want->text, have->text, want->len) == 0)
            continue;
        *changed |= 1u << i;
        text_put(sql, "SET ");
        text_put_ident(sql, n->name[i]);
        text_put(sql, "=");
        text_put_literal(sql, (struct str){ want->text, want->len });
        text_put(sql, ";");
    }
    return *changed != 0;
}
