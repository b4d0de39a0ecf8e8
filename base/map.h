/* Intrusive hash map.
 *
 * A map_node is embedded in what is stored; the owner keeps the key and compares it. The map owns
 * its bucket array only. Buckets double as the map grows.
 */
#ifndef PGTRICKLE_BASE_MAP_H
#define PGTRICKLE_BASE_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct map_node {
    struct map_node *next; /* in the same bucket */
    uint64_t hash;
};

struct map {
    struct map_node **buckets; /* NULL until the first insert */
    uint32_t n_buckets;        /* a power of two */
    uint32_t count;
};

#define MAP_ITEM(node, type, member) ((type *)(void *)((char *)(node)-offsetof(type, member)))

void map_init(struct map *m);
void map_free(struct map *m); /* forgets the nodes, frees the buckets */

void map_insert(struct map *m, struct map_node *n, uint64_t hash);
void map_remove(struct map *m, struct map_node *n);

/* The first node with this hash, and the next after n. The caller compares keys. */
struct map_node *map_first(const struct map *m, uint64_t hash);
struct map_node *map_next_same(const struct map_node *n);

/* Any node, or NULL: to empty a map. */
struct map_node *map_any(const struct map *m);

#endif
