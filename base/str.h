/* Borrowed byte slices.
 *
 * A str points at bytes that someone else owns (a received frame, an arena, a
 * literal) and is never NUL-terminated by contract: wire payloads hold any byte.
 * It is passed by value.  Nothing here allocates; see base/arena.h to copy one.
 */
#ifndef PGTRICKLE_BASE_STR_H
#define PGTRICKLE_BASE_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct str {
    const char *ptr;
    size_t len;
};

#define STR(literal) ((struct str){ "" literal, sizeof(literal) - 1 })
#define STR_FMT "%.*s"
#define STR_ARG(s) (int)(s).len, (s).ptr

static inline struct str str_from(const char *cstr)
{
    return (struct str){ cstr, cstr != NULL ? strlen(cstr) : 0 };
}

static inline bool str_equal(struct str a, struct str b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

/* ASCII case folding only, as PostgreSQL's keywords and parameter names. */
bool str_equal_nocase(struct str a, struct str b);

/* memcmp order, a prefix sorts first. */
int str_compare(struct str a, struct str b);

bool str_starts_with(struct str s, struct str prefix);

/* The first position of needle in s, or -1. */
ptrdiff_t str_find(struct str s, struct str needle);

struct str str_trim(struct str s);

/* FNV-1a, 64 bits. */
uint64_t str_hash(struct str s);

#endif
