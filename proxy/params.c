#include "proxy/params.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "base/arena.h"
#include "proxy/settings.h"

struct param_value {
    atomic_uint refs; /* values are shared between threads too */
    size_t len;
    char text[];
};

/* Not changed while it is shared. */
struct param_set {
    atomic_uint refs;
    int count;
    struct param_value *value[]; /* NULL: unknown */
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
    /* The other parameters that servers report and a session may set: IntervalStyle since ever,
     * default_transaction_read_only since 14, scram_iterations since 16, search_path since 18. */
    add_name(n, STR("IntervalStyle"));
    add_name(n, STR("default_transaction_read_only"));
    add_name(n, STR("scram_iterations"));
    add_name(n, STR("search_path"));

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

static void value_unref(struct param_value *v)
{
    if (v != NULL && atomic_fetch_sub_explicit(&v->refs, 1, memory_order_acq_rel) == 1)
        free(v);
}

static struct param_value *value_ref(struct param_value *v)
{
    if (v != NULL)
        atomic_fetch_add_explicit(&v->refs, 1, memory_order_relaxed);
    return v;
}

static struct param_value *value_of(const struct params *p, int i)
{
    return p->set != NULL && i < p->set->count ? p->set->value[i] : NULL;
}

void params_clear(struct params *p)
{
    struct param_set *set = p->set;

    p->set = NULL;
    if (set == NULL || atomic_fetch_sub_explicit(&set->refs, 1, memory_order_acq_rel) > 1)
        return;
    for (int i = 0; i < set->count; i++)
        value_unref(set->value[i]);
    free(set);
}

/* Takes over the reference of v. The set becomes our own. */
static void put(struct params *p, int i, struct param_value *v)
{
    struct param_set *set = p->set;

    if (set == NULL || i >= set->count ||
        atomic_load_explicit(&set->refs, memory_order_acquire) > 1) {
        int count = set != NULL && set->count > i ? set->count : i + 1;
        set = mem_alloc(sizeof(*set) + (size_t)count * sizeof(set->value[0]));
        atomic_init(&set->refs, 1);
        set->count = count;
        for (int k = 0; k < count; k++)
            set->value[k] = value_ref(value_of(p, k));
        params_clear(p);
        p->set = set;
    }
    value_unref(set->value[i]);
    set->value[i] = v;
}

static bool same_value(const struct param_value *a, const struct param_value *b)
{
    return a == b ||
           (a != NULL && b != NULL && a->len == b->len && memcmp(a->text, b->text, a->len) == 0);
}

void params_set(struct params *p, int i, struct str value)
{
    const struct param_value *old = value_of(p, i);

    if (old != NULL && str_equal((struct str){ old->text, old->len }, value))
        return;
    struct param_value *v = mem_alloc(sizeof(*v) + value.len + 1);
    atomic_init(&v->refs, 1);
    v->len = value.len;
    memcpy(v->text, value.ptr, value.len);
    put(p, i, v);
}

void params_remove(struct params *p, int i)
{
    if (value_of(p, i) != NULL)
        put(p, i, NULL);
}

const char *params_get(const struct params *p, int i)
{
    const struct param_value *v = value_of(p, i);

    return v != NULL ? v->text : NULL;
}

void params_share(struct params *to, const struct params *from, int i)
{
    struct param_value *v = value_of(from, i);

    if (value_of(to, i) != v)
        put(to, i, value_ref(v));
}

void params_copy(struct params *to, const struct params *from)
{
    if (to->set == from->set)
        return;
    params_clear(to);
    to->set = from->set;
    if (to->set != NULL)
        atomic_fetch_add_explicit(&to->set->refs, 1, memory_order_relaxed);
}

void params_unify(struct params *to, const struct params *from)
{
    for (int i = 0; i < PARAMS_MAX; i++)
        if (!same_value(value_of(to, i), value_of(from, i)))
            return;
    params_copy(to, from);
}

void params_fill_unset(struct params *to, const struct params *from)
{
    if (to->set == NULL) {
        params_copy(to, from);
        return;
    }
    for (int i = 0; i < PARAMS_MAX; i++)
        if (value_of(to, i) == NULL)
            params_share(to, from, i);
    params_unify(to, from);
}

bool params_differences(const struct params_names *n, const struct params *client,
                        const struct params *server, struct text *sql, unsigned *changed)
{
    *changed = 0;
    if (client->set == server->set)
        return false;
    for (int i = 0; i < n->count; i++) {
        const struct param_value *want = value_of(client, i);
        const struct param_value *have = value_of(server, i);
        /* A parameter that this server does not report (an older version) can't be set on it. */
        if (want == NULL || have == NULL || same_value(want, have))
            continue;
        *changed |= 1u << i;
        settings_put_set(sql, n->name[i], (struct str){ want->text, want->len });
    }
    return *changed != 0;
}
