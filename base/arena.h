/* Regions: memory that dies together.
 *
 * An arena hands out memory that is released all at once (arena_free) or back to
 * a mark (arena_rewind).  Allocation never returns NULL: when the system has no
 * memory the process stops with a message, for nothing sensible can be done by a
 * proxy that can't hold the next message; what peers can make large is bounded
 * before it is allocated.  Memory is zeroed.
 */
#ifndef PGTRICKLE_BASE_ARENA_H
#define PGTRICKLE_BASE_ARENA_H

#include <stdarg.h>
#include <stddef.h>

#include "base/str.h"

struct arena_block;

struct arena {
    struct arena_block *head;
    size_t bytes; /* handed out, for SHOW MEM and limits */
};

struct arena_mark {
    struct arena_block *head;
    size_t used;
    size_t bytes;
};

void arena_init(struct arena *a);
void arena_free(struct arena *a);

struct arena_mark arena_mark(const struct arena *a);
void arena_rewind(struct arena *a, struct arena_mark mark);

void *arena_alloc(struct arena *a, size_t size);
#define arena_new(a, type) ((type *)arena_alloc((a), sizeof(type)))
#define arena_new_array(a, type, n) ((type *)arena_alloc_array((a), (n), sizeof(type)))
void *arena_alloc_array(struct arena *a, size_t n, size_t size);

char *arena_strdup(struct arena *a, const char *cstr);
char *arena_strndup(struct arena *a, const char *ptr, size_t len);
struct str arena_str(struct arena *a, struct str s);
char *arena_printf(struct arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
char *arena_vprintf(struct arena *a, const char *fmt, va_list args)
    __attribute__((format(printf, 2, 0)));

/* malloc, calloc, realloc that stop the process instead of returning NULL; for what dies out of
 * order.  Release with free(). */
void *mem_alloc(size_t size);
void *mem_realloc(void *old, size_t size);
char *mem_strdup(const char *cstr);

#endif
