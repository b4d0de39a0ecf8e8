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
    char *ptr;
    size_t head; /* first byte not consumed */
    size_t tail; /* one behind the last byte */
    size_t cap;
};

static inline size_t bytequeue_len(const struct bytequeue *q)
{
    return q->tail - q->head;
}

static inline struct str bytequeue_str(const struct bytequeue *q)
{
    return (struct str){ q->ptr != NULL ? q->ptr + q->head : "", q->tail - q->head };
}

/* Room for at least `more` bytes at the end: write there, then bytequeue_commit. */
char *bytequeue_reserve(struct bytequeue *q, size_t more);
void bytequeue_commit(struct bytequeue *q, size_t n);

void bytequeue_put(struct bytequeue *q, const void *bytes, size_t n);
void bytequeue_consume(struct bytequeue *q, size_t n);

/* Gives memory back: all of it when empty, what is far more than needed otherwise. */
void bytequeue_trim(struct bytequeue *q);
void bytequeue_free(struct bytequeue *q);

#endif
