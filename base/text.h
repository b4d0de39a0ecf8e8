/* Growable text, for SQL, messages and log lines.
 *
 * A text owns its bytes and keeps them NUL-terminated.  Appending never fails
 * (see base/arena.h on memory).
 */
#ifndef PGTRICKLE_BASE_TEXT_H
#define PGTRICKLE_BASE_TEXT_H

#include <stdarg.h>
#include <stddef.h>

#include "base/str.h"

struct text {
    char *ptr;
    size_t len;
    size_t cap;
};

void text_init(struct text *t);
void text_free(struct text *t);
void text_clear(struct text *t);
void text_put(struct text *t, const char *cstr);
void text_put_char(struct text *t, char c);
void text_put_str(struct text *t, struct str s);
void text_put_bytes(struct text *t, const void *bytes, size_t len);
void text_printf(struct text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void text_vprintf(struct text *t, const char *fmt, va_list args)
    __attribute__((format(printf, 2, 0)));

/* SQL: an identifier in double quotes, a literal in single quotes (with E'' when it holds a
 * backslash), both safe whatever standard_conforming_strings is. */
void text_put_ident(struct text *t, const char *name);
void text_put_literal(struct text *t, struct str value);

/* A JSON string with its quotes. */
void text_put_json(struct text *t, struct str value);

static inline struct str text_str(const struct text *t)
{
    return (struct str){ t->ptr != NULL ? t->ptr : "", t->len };
}

#endif
