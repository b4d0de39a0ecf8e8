#include "protocol/writer.h"

#include <stdio.h>
#include <stdlib.h>

static void store_u32(char *at, uint32_t value)
{
    at[0] = (char)(value >> 24);
    at[1] = (char)(value >> 16);
    at[2] = (char)(value >> 8);
    at[3] = (char)value;
}

struct wire_mark wire_begin(struct bytequeue *out, char tag)
{
    wire_put_u8(out, (uint8_t)tag);
    return wire_begin_untyped(out);
}

struct wire_mark wire_begin_untyped(struct bytequeue *out)
{
    struct wire_mark m = { bytequeue_len(out) };
    wire_put_u32(out, 0);
    return m;
}

void wire_end(struct bytequeue *out, struct wire_mark m)
{
    size_t len = bytequeue_len(out) - m.at;
    if (len > INT32_MAX) {
        fputs("a message of more than 2^31-1 bytes was encoded\n", stderr);
        abort();
    }
    store_u32(out->block->bytes + out->block->head + m.at, (uint32_t)len);
}

void wire_put_header(struct bytequeue *out, char tag, uint32_t body_len)
{
    char *at = bytequeue_reserve(out, 5);
    at[0] = tag;
    store_u32(at + 1, body_len + 4);
    bytequeue_commit(out, 5);
}

void wire_put_u8(struct bytequeue *out, uint8_t value)
{
    bytequeue_put(out, &value, 1);
}

void wire_put_u16(struct bytequeue *out, uint16_t value)
{
    char *at = bytequeue_reserve(out, 2);
    at[0] = (char)(value >> 8);
    at[1] = (char)value;
    bytequeue_commit(out, 2);
}

void wire_put_i16(struct bytequeue *out, int16_t value)
{
    wire_put_u16(out, (uint16_t)value);
}

void wire_put_u32(struct bytequeue *out, uint32_t value)
{
    store_u32(bytequeue_reserve(out, 4), value);
    bytequeue_commit(out, 4);
}

void wire_put_i32(struct bytequeue *out, int32_t value)
{
    wire_put_u32(out, (uint32_t)value);
}

void wire_put_i64(struct bytequeue *out, int64_t value)
{
    wire_put_u32(out, (uint32_t)((uint64_t)value >> 32));
    wire_put_u32(out, (uint32_t)value);
}

void wire_put_cstr(struct bytequeue *out, struct str value)
{
    const char *nul = value.len > 0 ? memchr(value.ptr, '\0', value.len) : NULL;
    if (nul != NULL)
        value.len = (size_t)(nul - value.ptr);
    wire_put_str(out, value);
    wire_put_u8(out, 0);
}

void wire_put_str(struct bytequeue *out, struct str bytes)
{
    if (bytes.len > 0)
        bytequeue_put(out, bytes.ptr, bytes.len);
}

void wire_put_value(struct bytequeue *out, struct str value)
{
    if (value.ptr == NULL) {
        wire_put_i32(out, -1);
        return;
    }
    wire_put_u32(out, (uint32_t)value.len);
    wire_put_str(out, value);
}

void wire_put_empty(struct bytequeue *out, char tag)
{
    wire_put_header(out, tag, 0);
}
