#include "base/text.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/arena.h"

void text_init(struct text *t)
{
    *t = (struct text){ 0 };
}

void text_free(struct text *t)
{
    free(t->ptr);
    text_init(t);
}

void text_clear(struct text *t)
{
    t->len = 0;
    if (t->ptr != NULL)
        t->ptr[0] = '\0';
}

static void reserve(struct text *t, size_t more)
{
    size_t need = t->len + more + 1;

    if (need <= t->cap)
        return;
    t->cap = need > 2 * t->cap ? need : 2 * t->cap;
    t->ptr = mem_realloc(t->ptr, t->cap);
}

void text_put_bytes(struct text *t, const void *bytes, size_t len)
{
    reserve(t, len);
    if (len > 0)
        memcpy(t->ptr + t->len, bytes, len);
    t->len += len;
    t->ptr[t->len] = '\0';
}

void text_put(struct text *t, const char *cstr)
{
    text_put_bytes(t, cstr, strlen(cstr));
}

void text_put_str(struct text *t, struct str s)
{
    text_put_bytes(t, s.ptr, s.len);
}

void text_put_char(struct text *t, char c)
{
    text_put_bytes(t, &c, 1);
}

void text_vprintf(struct text *t, const char *fmt, va_list args)
{
    va_list again;
    int len;

    va_copy(again, args);
    len = vsnprintf(NULL, 0, fmt, again);
    va_end(again);
    if (len < 0)
        return;
    reserve(t, (size_t)len);
    vsnprintf(t->ptr + t->len, (size_t)len + 1, fmt, args);
    t->len += (size_t)len;
}

void text_printf(struct text *t, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    text_vprintf(t, fmt, args);
    va_end(args);
}

void text_put_ident(struct text *t, const char *name)
{
    text_put_char(t, '"');
    for (; *name != '\0'; name++) {
        if (*name == '"')
            text_put_char(t, '"');
        text_put_char(t, *name);
    }
    text_put_char(t, '"');
}

void text_put_literal(struct text *t, struct str value)
{
    if (value.len > 0 && memchr(value.ptr, '\\', value.len) != NULL)
        text_put(t, " E");
    text_put_char(t, '\'');
    for (size_t i = 0; i < value.len; i++) {
        if (value.ptr[i] == '\'' || value.ptr[i] == '\\')
            text_put_char(t, value.ptr[i]);
        text_put_char(t, value.ptr[i]);
    }
    text_put_char(t, '\'');
}

void text_put_json(struct text *t, struct str value)
{
    text_put_char(t, '"');
    for (size_t i = 0; i < value.len; i++) {
        unsigned char c = (unsigned char)value.ptr[i];

        if (c == '"' || c == '\\')
            text_printf(t, "\\%c", c);
        else if (c < 0x20)
            text_printf(t, "\\u%04x", c);
        else
            text_put_char(t, (char)c);
    }
    text_put_char(t, '"');
}
