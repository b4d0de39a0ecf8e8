#include "base/bytequeue.h"

#include <stdlib.h>

#include "base/arena.h"

#define CAP_MIN 512
#define CAP_KEPT 4096 /* a spare capacity that is not worth giving back */

/* The same bytes in a block of another size. */
static void move_to(struct bytequeue *q, size_t cap)
{
    struct str bytes = bytequeue_str(q);
    struct bytequeue_block *b = mem_realloc(NULL, sizeof(*b) + cap);

    b->head = 0;
    b->tail = bytes.len;
    b->cap = cap;
    memcpy(b->bytes, bytes.ptr, bytes.len);
    free(q->block);
    q->block = b;
}

char *bytequeue_reserve(struct bytequeue *q, size_t more)
{
    struct bytequeue_block *b = q->block;
    size_t len = bytequeue_len(q);

    if (b == NULL || b->cap - b->tail < more) {
        if (b != NULL && b->cap - len >= more && b->head >= len) {
            memcpy(b->bytes, b->bytes + b->head, len);
            b->head = 0;
            b->tail = len;
        } else {
            size_t cap = b != NULL ? b->cap : CAP_MIN;
            while (cap < len + more)
                cap *= 2;
            move_to(q, cap);
            b = q->block;
        }
    }
    return b->bytes + b->tail;
}

void bytequeue_commit(struct bytequeue *q, size_t n)
{
    if (n > 0)
        q->block->tail += n;
}

void bytequeue_put(struct bytequeue *q, const void *bytes, size_t n)
{
    if (n == 0)
        return;
    memcpy(bytequeue_reserve(q, n), bytes, n);
    q->block->tail += n;
}

void bytequeue_consume(struct bytequeue *q, size_t n)
{
    struct bytequeue_block *b = q->block;

    if (b == NULL)
        return;
    b->head += n;
    if (b->head == b->tail)
        b->head = b->tail = 0;
}

char *bytequeue_take(struct bytequeue *q, size_t *len)
{
    struct str bytes = bytequeue_str(q);
    char *copy = mem_realloc(NULL, bytes.len);

    memcpy(copy, bytes.ptr, bytes.len);
    *len = bytes.len;
    bytequeue_free(q);
    return copy;
}

void bytequeue_trim(struct bytequeue *q)
{
    size_t len = bytequeue_len(q);

    if (len == 0)
        bytequeue_free(q);
    else if (q->block->cap > CAP_KEPT && q->block->cap / 4 > len)
        move_to(q, len);
}

void bytequeue_free(struct bytequeue *q)
{
    free(q->block);
    q->block = NULL;
}
