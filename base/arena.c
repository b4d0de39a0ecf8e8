#include "base/arena.h"

#include <stdio.h>
#include <stdlib.h>

#define BLOCK_MIN 4096
#define ALIGNMENT 16

struct arena_block {
    struct arena_block *below;
    size_t used;
    size_t size;
    _Alignas(ALIGNMENT) char bytes[];
};

static void *must(void *ptr)
{
    if (ptr == NULL) {
        fputs("pgtrickle: out of memory\n", stderr);
        abort();
    }
    return ptr;
}

void *mem_alloc(size_t size)
{
    return must(calloc(1, size > 0 ? size : 1));
}

void *mem_realloc(void *old, size_t size)
{
    return must(realloc(old, size > 0 ? size : 1));
}

char *mem_strdup(const char *cstr)
{
    return must(strdup(cstr));
}

void arena_init(struct arena *a)
{
    *a = (struct arena){ 0 };
}

void arena_free(struct arena *a)
{
    arena_rewind(a, (struct arena_mark){ 0 });
}

struct arena_mark arena_mark(const struct arena *a)
{
    return (struct arena_mark){
        .head = a->head,
        .used = a->head != NULL ? a->head->used : 0,
        .bytes = a->bytes,
    };
}

void arena_rewind(struct arena *a, struct arena_mark mark)
{
    while (a->head != mark.head) {
        struct arena_block *dead = a->head;

        a->head = dead->below;
        free(dead);
    }
    if (a->head != NULL) {
        memset(a->head->bytes + mark.used, 0, a->head->used - mark.used);
        a->head->used = mark.used;
    }
    a->bytes = mark.bytes;
}

void *arena_alloc(struct arena *a, size_t size)
{
    struct arena_block *block = a->head;
    size_t rounded = (size + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
    void *ptr;

    if (rounded < size)
        must(NULL);
    if (block == NULL || block->size - block->used < rounded) {
        size_t room = rounded > BLOCK_MIN ? rounded : BLOCK_MIN;

        block = mem_alloc(sizeof(*block) + room);
        block->below = a->head;
        block->size = room;
        a->head = block;
    }
    ptr = block->bytes + block->used;
    block->used += rounded;
    a->bytes += rounded;
    return ptr;
}

void *arena_alloc_array(struct arena *a, size_t n, size_t size)
{
    size_t bytes;

    if (__builtin_mul_overflow(n, size, &bytes))
        must(NULL);
    return arena_alloc(a, bytes);
}

char *arena_strndup(struct arena *a, const char *ptr, size_t len)
{
    char *copy = arena_alloc(a, len + 1);

    if (len > 0)
        memcpy(copy, ptr, len);
    return copy;
}

char *arena_strdup(struct arena *a, const char *cstr)
{
    return arena_strndup(a, cstr, strlen(cstr));
}

struct str arena_str(struct arena *a, struct str s)
{
    return (struct str){ arena_strndup(a, s.ptr, s.len), s.len };
}

char *arena_vprintf(struct arena *a, const char *fmt, va_list args)
{
    va_list again;
    char *out;
    int len;

    va_copy(again, args);
    len = vsnprintf(NULL, 0, fmt, again);
    va_end(again);
    if (len < 0)
        must(NULL);
    out = arena_alloc(a, (size_t)len + 1);
    vsnprintf(out, (size_t)len + 1, fmt, args);
    return out;
}

char *arena_printf(struct arena *a, const char *fmt, ...)
{
    va_list args;
    char *out;

    va_start(args, fmt);
    out = arena_vprintf(a, fmt, args);
    va_end(args);
    return out;
}
