#include "proxy/cancel_key.h"

#include <stdlib.h>
#include <string.h>

#include "base/arena.h"

#define TTL_MASK 0x03

void cancel_key_finish(struct cancel_key *k, uint8_t len, int peer_id)
{
    k->len = len;
    k->bytes[0] &= 0x7f;
    if (peer_id > 0) {
        k->bytes[1] = (unsigned char)peer_id;
        k->bytes[2] = (unsigned char)(peer_id >> 8);
    }
    k->bytes[len - 1] |= CANCEL_KEY_TTL;
}

bool cancel_key_from_wire(struct cancel_key *k, int32_t pid, struct str secret)
{
    if (secret.len != CANCEL_KEY_SHORT - 4 && secret.len != CANCEL_KEY_LONG - 4)
        return false;
    for (int i = 0; i < 4; i++)
        k->bytes[i] = (unsigned char)((uint32_t)pid >> (24 - 8 * i));
    memcpy(k->bytes + 4, secret.ptr, secret.len);
    k->len = (uint8_t)(secret.len + 4);
    return true;
}

void cancel_key_keep(union cancel_key_kept *to, const struct cancel_key *k)
{
    unsigned char *at = to->bytes;

    if (k->len > CANCEL_KEY_SHORT)
        at = to->longer = mem_alloc(CANCEL_KEY_LONG);
    memcpy(at, k->bytes, k->len);
}

struct cancel_key cancel_key_look(const union cancel_key_kept *from, uint8_t len)
{
    struct cancel_key k = { .len = len };

    memcpy(k.bytes, len > CANCEL_KEY_SHORT ? from->longer : from->bytes, len);
    return k;
}

void cancel_key_drop(union cancel_key_kept *k, uint8_t len)
{
    if (len > CANCEL_KEY_SHORT)
        free(k->longer);
}

int32_t cancel_key_pid(const struct cancel_key *k)
{
    return (int32_t)((uint32_t)k->bytes[0] << 24 | (uint32_t)k->bytes[1] << 16 |
                     (uint32_t)k->bytes[2] << 8 | k->bytes[3]);
}

struct str cancel_key_secret(const struct cancel_key *k)
{
    return (struct str){ (const char *)k->bytes + 4, (size_t)k->len - 4 };
}

int cancel_key_peer(const struct cancel_key *k)
{
    return k->bytes[1] | k->bytes[2] << 8;
}

bool cancel_key_forward(struct cancel_key *k)
{
    if ((k->bytes[k->len - 1] & TTL_MASK) == 0)
        return false;
    k->bytes[k->len - 1]--;
    return true;
}

uint64_t cancel_key_hash(const struct cancel_key *k, uint64_t secret)
{
    uint64_t h = secret;

    for (int i = 0; i < k->len; i++) {
        uint64_t byte = k->bytes[i];
        if (i == k->len - 1)
            byte |= TTL_MASK;
        h = (h ^ byte) * 0x9e3779b97f4a7c15u;
        h ^= h >> 29;
    }
    return h;
}

bool cancel_key_equal(const struct cancel_key *a, const struct cancel_key *b)
{
    unsigned char diff = 0;

    if (a->len != b->len)
        return false;
    for (int i = 0; i < a->len - 1; i++)
        diff |= a->bytes[i] ^ b->bytes[i];
    diff |= (a->bytes[a->len - 1] ^ b->bytes[b->len - 1]) & (unsigned char)~TTL_MASK;
    return diff == 0;
}
