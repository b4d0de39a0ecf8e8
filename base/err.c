#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/arena.h"
#include "base/text.h"

static char *format(const char *fmt, va_list args)
{
    struct text t;

    text_init(&t);
    text_vprintf(&t, fmt, args);
    return t.ptr;
}

void err_clear(struct err *e)
{
    free(e->message);
    free(e->detail);
    free(e->hint);
    free(e->context);
    free(e->internal_query);
    *e = (struct err){ 0 };
}

void err_move(struct err *to, struct err *from)
{
    err_clear(to);
    *to = *from;
    *from = (struct err){ 0 };
}

bool err_is_set(const struct err *e)
{
    return e->class != ERR_NONE;
}

bool err_set(struct err *e, enum err_class class, const char *sqlstate, const char *fmt, ...)
{
    va_list args;
    char *message;

    va_start(args, fmt);
    message = format(fmt, args);
    va_end(args);
    err_clear(e);
    e->class = class;
    e->message = message;
    snprintf(e->sqlstate, sizeof(e->sqlstate), "%s", sqlstate);
    return false;
}

static void replace(char **field, const char *fmt, va_list args)
{
    char *value = format(fmt, args);

    free(*field);
    *field = value;
}

void err_detail(struct err *e, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    replace(&e->detail, fmt, args);
    va_end(args);
}

void err_hint(struct err *e, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    replace(&e->hint, fmt, args);
    va_end(args);
}

void err_prefix(struct err *e, const char *fmt, ...)
{
    va_list args;
    char *prefix;
    struct text t;

    va_start(args, fmt);
    prefix = format(fmt, args);
    va_end(args);
    text_init(&t);
    text_printf(&t, "%s: %s", prefix, e->message != NULL ? e->message : "");
    free(prefix);
    free(e->message);
    e->message = t.ptr;
}
