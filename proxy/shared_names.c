#include "proxy/shared_names.h"

#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/str.h"

struct shared_name {
    struct map_node node;
    size_t refs;
    char text[];
};

void shared_names_init(struct shared_names *n)
{
    pthread_mutex_init(&n->lock, NULL);
    map_init(&n->map);
}

void shared_names_fini(struct shared_names *n)
{
    map_free(&n->map);
    pthread_mutex_destroy(&n->lock);
}

static struct shared_name *find(const struct shared_names *n, const char *cstr, uint64_t hash)
{
    for (struct map_node *at = map_first(&n->map, hash); at != NULL; at = map_next_same(at)) {
        struct shared_name *found = MAP_ITEM(at, struct shared_name, node);
        if (strcmp(found->text, cstr) == 0)
            return found;
    }
    return NULL;
}

const char *shared_name_ref(struct shared_names *n, const char *cstr)
{
    uint64_t hash = str_hash(str_from(cstr));

    pthread_mutex_lock(&n->lock);
    struct shared_name *name = find(n, cstr, hash);
    if (name == NULL) {
        size_t size = strlen(cstr) + 1;
        name = mem_alloc(sizeof(*name) + size);
        memcpy(name->text, cstr, size);
        map_insert(&n->map, &name->node, hash);
    }
    name->refs++;
    pthread_mutex_unlock(&n->lock);
    return name->text;
}

void shared_name_unref(struct shared_names *n, const char *name)
{
    if (name == NULL)
        return;
    struct shared_name *held =
        (struct shared_name *)(void *)((uintptr_t)name - offsetof(struct shared_name, text));
    pthread_mutex_lock(&n->lock);
    bool last = --held->refs == 0;
    if (last)
        map_remove(&n->map, &held->node);
    pthread_mutex_unlock(&n->lock);
    if (last)
        free(held);
}
