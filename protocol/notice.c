#include "protocol/notice.h"

#include <stdarg.h>
#include <stdlib.h>

#include "base/arena.h"
#include "base/text.h"

/* The next field, or 0 at the terminator, where the cursor is then at its end if all is well. */
static char next_field(struct wire_cursor *c, struct str *value)
{
    char field = (char)wire_u8(c);
    if (field != '\0')
        *value = wire_cstr(c);
    return wire_ok(c) ? field : '\0';
}

bool notice_is_valid(struct str body)
{
    struct wire_cursor c = wire_cursor(body);
    struct str value;
    while (next_field(&c, &value) != '\0')
        ;
    return wire_at_end(&c);
}

struct str notice_get(struct str body, enum notice_field field)
{
    struct wire_cursor c = wire_cursor(body);
    struct str value;
    for (char found; (found = next_field(&c, &value)) != '\0';) {
        if (found == (char)field)
            return value;
    }
    return (struct str){ NULL, 0 };
}

bool notice_has_sqlstate(struct str body, const char *sqlstate)
{
    return str_equal(notice_get(body, NOTICE_SQLSTATE), str_from(sqlstate));
}

static void put_field(struct bytequeue *out, enum notice_field field, struct str value)
{
    wire_put_u8(out, (uint8_t)field);
    wire_put_cstr(out, value);
}

bool notice_encode_with(struct bytequeue *out, char tag, struct str body, enum notice_field field,
                        struct str value)
{
    if (!notice_is_valid(body))
        return false;
    struct wire_cursor c = wire_cursor(body);
    struct wire_mark m = wire_begin(out, tag);
    struct str old;
    for (char found; (found = next_field(&c, &old)) != '\0';) {
        if (found != (char)field) {
            put_field(out, (enum notice_field)found, old);
            continue;
        }
        if (value.ptr != NULL)
            put_field(out, field, value);
        value.ptr = NULL;
    }
    if (value.ptr != NULL)
        put_field(out, field, value);
    wire_put_u8(out, 0);
    wire_end(out, m);
    return true;
}

/* Positions are small positive numbers; anything else is 0, "none". */
static int position_of(struct str digits)
{
    long value = 0;
    for (size_t i = 0; i < digits.len; i++) {
        if (digits.ptr[i] < '0' || digits.ptr[i] > '9')
            return 0;
        value = value * 10 + (digits.ptr[i] - '0');
        if (value > INT32_MAX)
            return 0;
    }
    return (int)value;
}

static char *copy_of(struct str s)
{
    if (s.ptr == NULL)
        return NULL;
    char *copy = mem_alloc(s.len + 1);
    memcpy(copy, s.ptr, s.len);
    copy[s.len] = '\0';
    return copy;
}

void notice_decode_err(struct str body, struct err *e)
{
    struct str sqlstate = notice_get(body, NOTICE_SQLSTATE);
    struct str message = notice_get(body, NOTICE_MESSAGE);
    if (!notice_is_valid(body) || sqlstate.ptr == NULL || sqlstate.len != 5 ||
        message.ptr == NULL) {
        err_set(e, ERR_PEER, "08P01", "the server sent a malformed error message");
        return;
    }
    char code[6];
    memcpy(code, sqlstate.ptr, 5);
    code[5] = '\0';
    err_set(e, ERR_SERVER, code, "%s", message.ptr); /* ends in a NUL, as every field does */
    e->detail = copy_of(notice_get(body, NOTICE_DETAIL));
    e->hint = copy_of(notice_get(body, NOTICE_HINT));
    e->context = copy_of(notice_get(body, NOTICE_WHERE));
    e->position = position_of(notice_get(body, NOTICE_POSITION));
    e->internal_position = position_of(notice_get(body, NOTICE_INTERNAL_POSITION));
    e->internal_query = copy_of(notice_get(body, NOTICE_INTERNAL_QUERY));
}

static void put_text_field(struct bytequeue *out, enum notice_field field, const char *value)
{
    if (value != NULL)
        put_field(out, field, str_from(value));
}

static void put_position(struct bytequeue *out, enum notice_field field, int position)
{
    if (position <= 0)
        return;
    struct text digits;
    text_init(&digits);
    text_printf(&digits, "%d", position);
    put_field(out, field, text_str(&digits));
    text_free(&digits);
}

static void put_head(struct bytequeue *out, const char *severity, const char *sqlstate,
                     const char *message)
{
    put_text_field(out, NOTICE_SEVERITY, severity);
    put_text_field(out, NOTICE_SEVERITY_PLAIN, severity);
    put_text_field(out, NOTICE_SQLSTATE, sqlstate);
    put_text_field(out, NOTICE_MESSAGE, message);
}

void notice_encode_err(struct bytequeue *out, const char *severity, const struct err *e)
{
    struct wire_mark m = wire_begin(out, BE_ERROR);
    put_head(out, severity, e->sqlstate[0] != '\0' ? e->sqlstate : "XX000",
             e->message != NULL ? e->message : "unknown error");
    put_text_field(out, NOTICE_DETAIL, e->detail);
    put_text_field(out, NOTICE_HINT, e->hint);
    put_position(out, NOTICE_POSITION, e->position);
    put_position(out, NOTICE_INTERNAL_POSITION, e->internal_position);
    put_text_field(out, NOTICE_INTERNAL_QUERY, e->internal_query);
    put_text_field(out, NOTICE_WHERE, e->context);
    wire_put_u8(out, 0);
    wire_end(out, m);
}

static void encode_formatted(struct bytequeue *out, char tag, const char *severity,
                             const char *sqlstate, const char *fmt, va_list args)
    __attribute__((format(printf, 5, 0)));

static void encode_formatted(struct bytequeue *out, char tag, const char *severity,
                             const char *sqlstate, const char *fmt, va_list args)
{
    struct text message;
    text_init(&message);
    text_vprintf(&message, fmt, args);
    struct wire_mark m = wire_begin(out, tag);
    put_head(out, severity, sqlstate, message.ptr != NULL ? message.ptr : "");
    wire_put_u8(out, 0);
    wire_end(out, m);
    text_free(&message);
}

void notice_encode_error(struct bytequeue *out, const char *severity, const char *sqlstate,
                         const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    encode_formatted(out, BE_ERROR, severity, sqlstate, fmt, args);
    va_end(args);
}

void notice_encode_notice(struct bytequeue *out, const char *severity, const char *sqlstate,
                          const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    encode_formatted(out, BE_NOTICE, severity, sqlstate, fmt, args);
    va_end(args);
}
