#include "base/map.h"

#include <stdlib.h>

#include "base/arena.h"

void map_init(struct map *m)
{
    *m = (struct map){ 0 };
}

void map_free(struct map *m)
{
    free(m->buckets);
    *m = (struct map){ 0 };
}

static void map_grow(struct map *m)
{
    uint32_t n_buckets = m->n_buckets == 0 ? 16 : m->n_buckets * 2;
    struct map_node **buckets = mem_alloc(n_buckets * sizeof(*buckets));

    for (size_t i = 0; i < m->n_buckets; i++) {
        while (m->buckets[i] != NULL) {
            struct map_node *n = m->buckets[i];
            struct map_node **to = &buckets[n->hash & (n_buckets - 1)];
            m->buckets[i] = n->next;
            n->next = *to;
            *to = n;
        }
    }
    free(m->buckets);
    m->buckets = buckets;
    m->n_buckets = n_buckets;
}

void map_insert(struct map *m, struct map_node *n, uint64_t hash)
{
    if (m->count >= m->n_buckets)
        map_grow(m);
    struct map_node **at = &m->buckets[hash & (m->n_buckets - 1)];
    n->hash = hash;
    n->next = *at;
    *at = n;
    m->count++;
}

void map_remove(struct map *m, struct map_node *n)
{
    for (struct map_node **at = &m->buckets[n->hash & (m->n_buckets - 1)]; *at != NULL;
         at = &(*at)->next) {
        if (*at == n) {
            *at = n->next;
            n->next = NULL;
            m->count--;
            return;
        }
    }
}

struct map_node *map_next_same(const struct map_node *n)
{
    struct map_node *at = n->next;
    while (at != NULL && at->hash != n->hash)
        at = at->next;
    return at;
}

struct map_node *map_first(const struct map *m, uint64_t hash)
{
    if (m->n_buckets == 0)
        return NULL;
    struct map_node *at = m->buckets[hash & (m->n_buckets - 1)];
    while (at != NULL && at->hash != hash)
        at = at->next;
    return at;
}

struct map_node *map_any(const struct map *m)
{
    for (size_t i = 0; i < m->n_buckets; i++)
        if (m->buckets[i] != NULL)
            return m->buckets[i];
    return NULL;
}
