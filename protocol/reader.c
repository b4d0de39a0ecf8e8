#include "protocol/reader.h"

static uint32_t load_u32(const char *at)
{
    const uint8_t *b = (const uint8_t *)at;
    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

enum wire_result wire_peek_header(enum wire_sender sender, struct str bytes, struct wire_header *h)
{
    if (bytes.len == 0)
        return WIRE_NEED_MORE;
    const struct wire_message_type *type = wire_message_type(sender, bytes.ptr[0]);
    if (type->name == NULL)
        return WIRE_MALFORMED;
    if (bytes.len < WIRE_HEADER_LEN)
        return WIRE_NEED_MORE;
    uint32_t len = load_u32(bytes.ptr + 1);
    if (len < 4 || len - 4 < type->body_min || len - 4 > type->body_max)
        return WIRE_MALFORMED;
    *h = (struct wire_header){ .tag = bytes.ptr[0], .body_len = len - 4 };
    return WIRE_FRAME;
}

enum wire_result wire_next_frame(enum wire_sender sender, struct str bytes, struct wire_frame *f)
{
    struct wire_header h;
    enum wire_result result = wire_peek_header(sender, bytes, &h);
    if (result != WIRE_FRAME)
        return result;
    if (bytes.len - WIRE_HEADER_LEN < h.body_len)
        return WIRE_NEED_MORE;
    *f = (struct wire_frame){
        .tag = h.tag,
        .bytes = { bytes.ptr, WIRE_HEADER_LEN + (size_t)h.body_len },
        .body = { bytes.ptr + WIRE_HEADER_LEN, h.body_len },
    };
    return WIRE_FRAME;
}

void wire_reader_init(struct wire_reader *r, enum wire_sender sender, uint32_t whole_max)
{
    *r = (struct wire_reader){
        .sender = sender,
        .whole_max = whole_max > WIRE_HEADER_LEN ? whole_max : WIRE_HEADER_LEN,
    };
}

/* What has arrived of the message that is being streamed. */
static enum wire_result take_more(struct wire_reader *r, struct str bytes, struct wire_piece *p)
{
    if (bytes.len == 0)
        return WIRE_NEED_MORE;
    size_t n = bytes.len < r->body_left ? bytes.len : r->body_left;
    r->body_left -= (uint32_t)n;
    *p = (struct wire_piece){
        .tag = r->tag,
        .ends = r->body_left == 0,
        .body_len = r->body_len,
        .body_left = r->body_left,
        .bytes = { bytes.ptr, n },
        .body = { bytes.ptr, n },
    };
    return WIRE_FRAME;
}

enum wire_result wire_reader_take(struct wire_reader *r, const struct wire_header *h,
                                  struct str bytes, struct wire_piece *p)
{
    size_t len = WIRE_HEADER_LEN + (size_t)h->body_len;

    if (bytes.len < len && bytes.len < r->whole_max)
        return WIRE_NEED_MORE;
    size_t n = bytes.len < len ? bytes.len : len;
    r->tag = h->tag;
    r->body_len = h->body_len;
    r->body_left = (uint32_t)(len - n);
    *p = (struct wire_piece){
        .tag = h->tag,
        .starts = true,
        .ends = n == len,
        .body_len = h->body_len,
        .body_left = r->body_left,
        .bytes = { bytes.ptr, n },
        .body = { bytes.ptr + WIRE_HEADER_LEN, n - WIRE_HEADER_LEN },
    };
    return WIRE_FRAME;
}

enum wire_result wire_reader_next(struct wire_reader *r, struct str bytes, struct wire_piece *p)
{
    struct wire_header h;

    if (r->body_left > 0)
        return take_more(r, bytes, p);
    enum wire_result result = wire_peek_header(r->sender, bytes, &h);
    return result == WIRE_FRAME ? wire_reader_take(r, &h, bytes, p) : result;
}

struct wire_cursor wire_cursor(struct str body)
{
    return (struct wire_cursor){ .at = body.ptr, .end = body.ptr + body.len };
}

void wire_fail(struct wire_cursor *c)
{
    c->failed = true;
}

size_t wire_left(const struct wire_cursor *c)
{
    return c->failed ? 0 : (size_t)(c->end - c->at);
}

/* The next n bytes, or NULL. */
static const char *take(struct wire_cursor *c, size_t n)
{
    if (wire_left(c) < n) {
        c->failed = true;
        return NULL;
    }
    const char *at = c->at;
    c->at += n;
    return c->failed ? NULL : at;
}

uint8_t wire_u8(struct wire_cursor *c)
{
    const char *at = take(c, 1);
    return at == NULL ? 0 : (uint8_t)at[0];
}

uint16_t wire_u16(struct wire_cursor *c)
{
    const uint8_t *at = (const uint8_t *)take(c, 2);
    return at == NULL ? 0 : (uint16_t)(at[0] << 8 | at[1]);
}

int16_t wire_i16(struct wire_cursor *c)
{
    return (int16_t)wire_u16(c);
}

uint32_t wire_u32(struct wire_cursor *c)
{
    const char *at = take(c, 4);
    return at == NULL ? 0 : load_u32(at);
}

int32_t wire_i32(struct wire_cursor *c)
{
    return (int32_t)wire_u32(c);
}

int64_t wire_i64(struct wire_cursor *c)
{
    uint64_t high = wire_u32(c);
    uint64_t low = wire_u32(c);
    return wire_ok(c) ? (int64_t)(high << 32 | low) : 0;
}

struct str wire_cstr(struct wire_cursor *c)
{
    size_t left = wire_left(c);
    const char *nul = left == 0 ? NULL : memchr(c->at, '\0', left);
    if (nul == NULL) {
        c->failed = true;
        return STR("");
    }
    struct str s = { c->at, (size_t)(nul - c->at) };
    c->at = nul + 1;
    return s;
}

struct str wire_bytes(struct wire_cursor *c, size_t n)
{
    const char *at = take(c, n);
    return at == NULL ? STR("") : (struct str){ at, n };
}

struct str wire_rest(struct wire_cursor *c)
{
    return wire_bytes(c, wire_left(c));
}

struct str wire_value(struct wire_cursor *c, bool *is_null)
{
    int32_t len = wire_i32(c);
    *is_null = len == -1;
    if (len < 0) {
        if (len != -1)
            c->failed = true;
        return STR("");
    }
    return wire_bytes(c, (size_t)len);
}
