#include "base/bytequeue.h"

#include <stdlib.h>

#include "base/arena.h"

#define CAP_MIN 512
#define CAP_KEPT 4096 /* a spare capacity that is not worth giving back */

char *bytequeue_reserve(struct bytequeue *q, size_t more)
{
    size_t len = bytequeue_len(q);

    if (q->cap - q->tail >= more)
        return q->ptr + q->tail;
    if (q->head > 0 && q->cap - len >= more && q->head >= len) {
        memcpy(q->ptr, q->ptr + q->head, len);
    } else {
        size_t cap = q->cap > 0 ? q->cap : CAP_MIN;
        while (cap < len + more)
            cap *= 2;
        char *ptr = mem_realloc(NULL, cap);
        if (len > 0)
            memcpy(ptr, q->ptr + q->head, len);
        free(q->ptr);
        q->ptr = ptr;
        q->cap = cap;
    }
    q->head = 0;
    q->tail = len;
    return q->ptr + q->tail;
}

void bytequeue_commit(struct bytequeue *q, size_t n)
{
    q->tail += n;
}

void bytequeue_put(struct bytequeue *q, const void *bytes, size_t n)
{
    if (n == 0)
        return;
    memcpy(bytequeue_reserve(q, n), bytes, n);
    q->tail += n;
}

void bytequeue_consume(struct bytequeue *q, size_t n)
{
    q->head += n;
    if (q->head == q->tail)
        q->head = q->tail = 0;
}

void bytequeue_trim(struct bytequeue *q)
{
    size_t len = bytequeue_len(q);

    if (len == 0) {
        bytequeue_free(q);
    } else if (q->cap > CAP_KEPT && q->cap / 4 > len) {
        char *ptr = mem_realloc(NULL, len);
        memcpy(ptr, q->ptr + q->head, len);
        free(q->ptr);
        *q = (struct bytequeue){ .ptr = ptr, .tail = len, .cap = len };
    }
}

void bytequeue_free(struct bytequeue *q)
{
    free(q->ptr);
    *q = (struct bytequeue){ 0 };
}
