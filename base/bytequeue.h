/* Bytes waiting to be read or sent.
 *
 * A contiguous queue: bytes are appended at the end and consumed from the front. An empty queue
 * that was released holds no memory, so that thousands of idle connections cost nothing.
 */
#ifndef PGTRICKLE_BASE_BYTEQUEUE_H
#define PGTRICKLE_BASE_BYTEQUEUE_H

#include <stddef.h>

#include "base/str.h"

struct bytequeue {
    struct bytequeue_block *block; /* NULL: no bytes, and none were waited for lately */
};

struct bytequeue_block {
    size_t head; /* first byte not consumed */
    size_t tail; /* one behind the last byte */
    size_t cap;
    char bytes[];
};

static inline size_t bytequeue_len(const struct bytequeue *q)
{
    return q->block != NULL ? q->block->tail - q->block->head : 0;
}

/* What it holds memory for. */
static inline size_t bytequeue_cap(const struct bytequeue *q)
{
    return q->block != NULL ? q->block->cap : 0;
}

static inline struct str bytequeue_str(const struct bytequeue *q)
{
    const struct bytequeue_block *b = q->block;

    return b != NULL ? (struct str){ b->bytes + b->head, b->tail - b->head }
                     : (struct str){ "", 0 };
}

/* Room for at least `more` bytes at the end: write there, then bytequeue_commit. */
char *bytequeue_reserve(struct bytequeue *q, size_t more);
void bytequeue_commit(struct bytequeue *q, size_t n);

void bytequeue_put(struct bytequeue *q, const void *bytes, size_t n);
void bytequeue_consume(struct bytequeue *q, size_t n);
/* All of it, as memory of the caller's (malloc); the queue is empty and holds none then. */
char *bytequeue_take(struct bytequeue *q, size_t *len);

/* Gives memory back: all of it when empty, what is far more than needed otherwise. */
void bytequeue_trim(struct bytequeue *q);
void bytequeue_free(struct bytequeue *q);

#endif
