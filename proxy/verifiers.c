#include "proxy/verifiers.h"

#include <pthread.h>
#include <stdlib.h>

#include <openssl/crypto.h>
#include <openssl/hmac.h>

#include "base/arena.h"
#include "base/list.h"
#include "base/map.h"

struct entry {
    struct map_node node;
    struct list_node age_node;
    uint8_t name[32];
    struct scram_secret verifier;
};

struct verifiers {
    pthread_mutex_t lock;
    uint8_t key[32];
    struct map entries;
    struct list by_age; /* found or made last: last */
};

struct verifiers *verifiers_new(const uint8_t key[32])
{
    struct verifiers *v = mem_alloc(sizeof(*v));

    pthread_mutex_init(&v->lock, NULL);
    memcpy(v->key, key, sizeof(v->key));
    map_init(&v->entries);
    list_init(&v->by_age);
    return v;
}

static void drop(struct verifiers *v, struct entry *e)
{
    map_remove(&v->entries, &e->node);
    list_remove(&v->by_age, &e->age_node);
    OPENSSL_cleanse(e, sizeof(*e));
    free(e);
}

void verifiers_free(struct verifiers *v)
{
    struct list_node *n;

    while ((n = list_first(&v->by_age)) != NULL)
        drop(v, LIST_ITEM(n, struct entry, age_node));
    map_free(&v->entries);
    pthread_mutex_destroy(&v->lock);
    OPENSSL_cleanse(v->key, sizeof(v->key));
    free(v);
}

/* HMAC(key, HMAC(key, user) iterations HMAC(key, secret)): no two triples are written alike. */
static bool name_of(const struct verifiers *v, struct str user, struct str secret, int iterations,
                    uint8_t name[32])
{
    uint8_t parts[68];
    unsigned len;

    memcpy(parts + 32, &iterations, 4);
    return HMAC(EVP_sha256(), v->key, 32, (const uint8_t *)user.ptr, user.len, parts, &len) &&
           HMAC(EVP_sha256(), v->key, 32, (const uint8_t *)secret.ptr, secret.len, parts + 36,
                &len) &&
           HMAC(EVP_sha256(), v->key, 32, parts, sizeof(parts), name, &len);
}

static uint64_t hash_of(const uint8_t name[32])
{
    uint64_t hash;

    memcpy(&hash, name, sizeof(hash));
    return hash;
}

/* Under the lock. */
static struct entry *find(struct verifiers *v, const uint8_t name[32])
{
    for (struct map_node *n = map_first(&v->entries, hash_of(name)); n != NULL;
         n = map_next_same(n)) {
        struct entry *e = MAP_ITEM(n, struct entry, node);
        if (memcmp(e->name, name, sizeof(e->name)) == 0)
            return e;
    }
    return NULL;
}

bool verifiers_find(struct verifiers *v, struct str user, struct str secret, int iterations,
                    struct scram_secret *out)
{
    uint8_t name[32];

    if (!name_of(v, user, secret, iterations, name))
        return false;
    pthread_mutex_lock(&v->lock);
    struct entry *e = find(v, name);
    if (e != NULL) {
        *out = e->verifier;
        list_remove(&v->by_age, &e->age_node);
        list_append(&v->by_age, &e->age_node);
    }
    pthread_mutex_unlock(&v->lock);
    return e != NULL;
}

void verifiers_put(struct verifiers *v, struct str user, struct str secret, int iterations,
                   const struct scram_secret *made)
{
    uint8_t name[32];

    if (!name_of(v, user, secret, iterations, name))
        return;
    pthread_mutex_lock(&v->lock);
    struct entry *e = find(v, name);
    if (e == NULL) {
        e = mem_alloc(sizeof(*e));
        memcpy(e->name, name, sizeof(e->name));
        e->verifier = *made;
        map_insert(&v->entries, &e->node, hash_of(name));
        list_append(&v->by_age, &e->age_node);
        if (v->by_age.count > VERIFIERS_MAX)
            drop(v, LIST_ITEM(list_first(&v->by_age), struct entry, age_node));
    }
    pthread_mutex_unlock(&v->lock);
}
