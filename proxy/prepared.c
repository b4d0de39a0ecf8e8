#include "proxy/prepared.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/arena.h"

void statement_table_init(struct statement_table *t)
{
    pthread_mutex_init(&t->lock, NULL);
    map_init(&t->map);
    t->next_number = 1;
}

static void statement_free(struct statement *s)
{
    free((char *)s->reading.settings.ptr);
    free(s->body);
    free(s);
}

void statement_table_free(struct statement_table *t)
{
    for (struct map_node *n; (n = map_any(&t->map)) != NULL;) {
        map_remove(&t->map, n);
        statement_free(MAP_ITEM(n, struct statement, node));
    }
    map_free(&t->map);
    pthread_mutex_destroy(&t->lock);
}

static char *copy_of(struct str s)
{
    char *copy = mem_alloc(s.len + 1);

    if (s.len > 0)
        memcpy(copy, s.ptr, s.len);
    return copy;
}

/* Under the lock. */
static struct statement *make(struct statement_table *t, const struct reading *reading,
                              enum statement_source source, struct str body)
{
    struct statement *s = mem_alloc(sizeof(*s));

    s->number = t->next_number++;
    snprintf(s->name, sizeof(s->name), "PGTRICKLE_%" PRIu64, s->number);
    atomic_init(&s->refs, 1);
    atomic_init(&s->generation, 0);
    s->source = source;
    s->reading = *reading;
    s->reading.settings.ptr = copy_of(reading->settings);
    s->body = copy_of(body);
    s->body_len = body.len;
    return s;
}

static uint64_t hash_of(const struct reading *reading, enum statement_source source,
                        struct str body)
{
    return str_hash(body) + source + ((uintptr_t)reading->database >> 4) + reading->ddl +
           reading->hash;
}

bool statement_is_read_as(const struct statement *s, const struct reading *reading)
{
    return s->reading.database == reading->database && s->reading.ddl == reading->ddl &&
           s->reading.hash == reading->hash && str_equal(s->reading.settings, reading->settings);
}

static struct statement *find_or_make(struct statement_table *t, const struct reading *reading,
                                      enum statement_source source, struct str body, bool makes)
{
    uint64_t hash = hash_of(reading, source, body);
    struct statement *found = NULL;

    pthread_mutex_lock(&t->lock);
    for (struct map_node *n = map_first(&t->map, hash); n != NULL; n = map_next_same(n)) {
        struct statement *s = MAP_ITEM(n, struct statement, node);
        if (s->source == source && statement_is_read_as(s, reading) &&
            str_equal((struct str){ s->body, s->body_len }, body)) {
            found = statement_ref(s);
            break;
        }
    }
    if (found == NULL && makes) {
        found = make(t, reading, source, body);
        found->shared = true;
        map_insert(&t->map, &found->node, hash);
    }
    pthread_mutex_unlock(&t->lock);
    return found;
}

struct statement *statement_get(struct statement_table *t, const struct reading *reading,
                                enum statement_source source, struct str body)
{
    return find_or_make(t, reading, source, body, true);
}

struct statement *statement_find(struct statement_table *t, const struct reading *reading,
                                 enum statement_source source, struct str body)
{
    return find_or_make(t, reading, source, body, false);
}

struct statement *statement_restore(struct statement_table *t, const struct reading *reading,
                                    enum statement_source source, uint64_t number, bool shared,
                                    struct str body)
{
    pthread_mutex_lock(&t->lock);
    uint64_t next = t->next_number > number ? t->next_number : number + 1;
    t->next_number = number;
    struct statement *s = make(t, reading, source, body);
    t->next_number = next;
    s->shared = shared;
    if (shared)
        map_insert(&t->map, &s->node, hash_of(reading, source, body));
    pthread_mutex_unlock(&t->lock);
    return s;
}

struct statement *statement_new(struct statement_table *t, const struct reading *reading,
                                enum statement_source source, struct str body)
{
    pthread_mutex_lock(&t->lock);
    struct statement *s = make(t, reading, source, body);
    pthread_mutex_unlock(&t->lock);
    return s;
}

void statement_table_make_name(struct statement_table *t, char name[32])
{
    pthread_mutex_lock(&t->lock);
    snprintf(name, 32, "PGTRICKLE_%" PRIu64, t->next_number++);
    pthread_mutex_unlock(&t->lock);
}

struct statement *statement_ref(struct statement *s)
{
    atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    return s;
}

void statement_unref(struct statement_table *t, struct statement *s)
{
    unsigned refs = atomic_load_explicit(&s->refs, memory_order_relaxed);

    while (refs > 1)
        if (atomic_compare_exchange_weak_explicit(&s->refs, &refs, refs - 1, memory_order_release,
                                                  memory_order_relaxed))
            return;
    /* Perhaps the last: only under the lock does nobody find it meanwhile. */
    pthread_mutex_lock(&t->lock);
    bool last = atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) == 1;
    if (last && s->shared)
        map_remove(&t->map, &s->node);
    pthread_mutex_unlock(&t->lock);
    if (last)
        statement_free(s);
}

struct lend_info *lend_info_new(struct str text, const char *tag, size_t definition_offset,
                                bool has_rows)
{
    struct lend_info *i = mem_alloc(sizeof(*i));

    i->tag = tag;
    i->text = mem_alloc(text.len + 1);
    memcpy(i->text, text.ptr, text.len);
    i->text_len = text.len;
    i->definition_offset = definition_offset;
    i->has_rows = has_rows;
    return i;
}

struct lend_info *lend_info_copy(const struct lend_info *i)
{
    return lend_info_new((struct str){ i->text, i->text_len }, i->tag, i->definition_offset,
                         i->has_rows);
}

void lend_info_free(struct lend_info *i)
{
    if (i == NULL)
        return;
    free(i->text);
    free(i);
}

struct sql_command *sql_command_ref(struct sql_command *c)
{
    c->refs++;
    return c;
}

void sql_command_unref(struct sql_command *c, struct statement_table *t)
{
    if (c == NULL || --c->refs > 0)
        return;
    if (c->target != NULL)
        statement_unref(t, c->target);
    free(c->name);
    free(c->tail);
    free(c->sent);
    free(c);
}

struct client_statement *client_statement_find(const struct map *m, struct str name)
{
    if (m->count == 0)
        return NULL;
    for (struct map_node *n = map_first(m, str_hash(name)); n != NULL; n = map_next_same(n)) {
        struct client_statement *cs = MAP_ITEM(n, struct client_statement, node);
        if (!cs->closing && str_equal((struct str){ cs->name, cs->name_len }, name))
            return cs;
    }
    return NULL;
}

bool client_statement_is_named(const struct map *m, struct str name)
{
    if (m->count == 0)
        return false;
    for (struct map_node *n = map_first(m, str_hash(name)); n != NULL; n = map_next_same(n)) {
        struct client_statement *cs = MAP_ITEM(n, struct client_statement, node);
        if (str_equal((struct str){ cs->name, cs->name_len }, name))
            return true;
    }
    return false;
}

struct client_statement *client_statement_by_serial(const struct map *m, uint32_t serial)
{
    for (size_t i = 0; i < m->n_buckets; i++) {
        for (struct map_node *n = m->buckets[i]; n != NULL; n = n->next) {
            struct client_statement *cs = MAP_ITEM(n, struct client_statement, node);
            if (cs->serial == serial)
                return cs;
        }
    }
    return NULL;
}

struct client_statement *client_statement_add(struct map *m, uint32_t serial, struct str name,
                                              struct statement *s, struct lend_info *lend)
{
    struct client_statement *cs = mem_alloc(sizeof(*cs));

    cs->name = mem_alloc(name.len + 1);
    memcpy(cs->name, name.ptr, name.len);
    cs->name_len = name.len;
    cs->serial = serial;
    cs->statement = s;
    cs->lend = lend;
    map_insert(m, &cs->node, str_hash(name));
    return cs;
}

void client_statement_remove(struct map *m, struct client_statement *cs, struct statement_table *t)
{
    map_remove(m, &cs->node);
    if (cs->statement != NULL)
        statement_unref(t, cs->statement);
    lend_info_free(cs->lend);
    sql_command_unref(cs->sql, t);
    free(cs->name);
    free(cs);
}

void client_statements_clear(struct map *m, struct statement_table *t)
{
    for (struct map_node *n; (n = map_any(m)) != NULL;)
        client_statement_remove(m, MAP_ITEM(n, struct client_statement, node), t);
}

void server_statements_init(struct server_statements *ss)
{
    map_init(&ss->map);
    list_init(&ss->lru);
}

static struct server_statement *find(const struct server_statements *ss, const struct statement *s)
{
    for (struct map_node *n = map_first(&ss->map, s->number); n != NULL; n = map_next_same(n)) {
        struct server_statement *e = MAP_ITEM(n, struct server_statement, node);
        if (e->statement == s)
            return e;
    }
    return NULL;
}

bool server_statements_has(const struct server_statements *ss, const struct statement *s)
{
    return find(ss, s) != NULL;
}

static unsigned generation_of(const struct statement *s)
{
    return atomic_load_explicit(&s->generation, memory_order_relaxed);
}

bool server_statements_is_fresh(const struct server_statements *ss, const struct statement *s)
{
    struct server_statement *e = find(ss, s);

    return e != NULL && e->generation == generation_of(s);
}

void server_statements_touch(struct server_statements *ss, const struct statement *s)
{
    struct server_statement *e = find(ss, s);

    if (e != NULL && ss->lru.head.prev != &e->lru) {
        list_remove(&ss->lru, &e->lru);
        list_append(&ss->lru, &e->lru);
    }
}

void server_statements_add(struct server_statements *ss, struct statement *s)
{
    if (find(ss, s) != NULL)
        return;
    struct server_statement *e = mem_alloc(sizeof(*e));
    e->statement = statement_ref(s);
    e->generation = generation_of(s);
    map_insert(&ss->map, &e->node, s->number);
    list_append(&ss->lru, &e->lru);
}

void server_statements_age(struct server_statements *ss, const struct statement *s)
{
    struct server_statement *e = find(ss, s);

    if (e != NULL)
        e->generation = generation_of(s) - 1;
}

static void entry_remove(struct server_statements *ss, struct server_statement *e,
                         struct statement_table *t)
{
    map_remove(&ss->map, &e->node);
    list_remove(&ss->lru, &e->lru);
    statement_unref(t, e->statement);
    free(e);
}

void server_statements_remove(struct server_statements *ss, const struct statement *s,
                              struct statement_table *t)
{
    struct server_statement *e = find(ss, s);

    if (e != NULL)
        entry_remove(ss, e, t);
}

struct statement *server_statements_oldest(const struct server_statements *ss)
{
    struct list_node *n = list_first(&ss->lru);

    return n == NULL ? NULL : LIST_ITEM(n, struct server_statement, lru)->statement;
}

void server_statements_clear(struct server_statements *ss, struct statement_table *t)
{
    for (struct list_node *n; (n = list_first(&ss->lru)) != NULL;)
        entry_remove(ss, LIST_ITEM(n, struct server_statement, lru), t);
}

void server_statements_free(struct server_statements *ss, struct statement_table *t)
{
    server_statements_clear(ss, t);
    map_free(&ss->map);
}
