#include "protocol/startup.h"

/* Version numbers that no protocol has; the low half tells the requests apart. */
#define CODE_CANCEL 80877102u
#define CODE_SSL 80877103u
#define CODE_GSSENC 80877104u

#define CANCEL_KEY_MIN 4
#define CANCEL_KEY_MAX 256

/* (name NUL value NUL)* NUL, where the last NUL is the packet's last byte. */
static bool params_are_valid(struct wire_cursor *c, struct str *params)
{
    const char *start = c->at;
    while (wire_ok(c)) {
        const char *at = c->at;
        struct str name = wire_cstr(c);
        if (name.len == 0) {
            *params = (struct str){ start, (size_t)(at - start) };
            return wire_at_end(c);
        }
        wire_cstr(c);
    }
    return false;
}

static bool decode_packet(struct wire_cursor *c, struct startup_packet *p)
{
    uint32_t code = wire_u32(c);
    *p = (struct startup_packet){ .params = STR(""), .cancel_key = STR("") };
    switch (code) {
    case CODE_SSL:
        p->kind = STARTUP_SSL_REQUEST;
        return wire_at_end(c);
    case CODE_GSSENC:
        p->kind = STARTUP_GSSENC_REQUEST;
        return wire_at_end(c);
    case CODE_CANCEL:
        p->kind = STARTUP_CANCEL;
        p->cancel_pid = wire_i32(c);
        p->cancel_key = wire_rest(c);
        return wire_at_end(c) && p->cancel_key.len >= CANCEL_KEY_MIN &&
               p->cancel_key.len <= CANCEL_KEY_MAX;
    default:
        p->kind = STARTUP_MESSAGE;
        p->major = (uint16_t)(code >> 16);
        p->minor = (uint16_t)code;
        return p->major != 3 || params_are_valid(c, &p->params);
    }
}

enum wire_result startup_next(struct str bytes, struct startup_packet *p, size_t *used)
{
    if (bytes.len < 4)
        return WIRE_NEED_MORE;
    struct wire_cursor c = wire_cursor(bytes);
    uint32_t len = wire_u32(&c);
    if (len < 8 || len > STARTUP_PACKET_MAX)
        return WIRE_MALFORMED;
    if (bytes.len < len)
        return WIRE_NEED_MORE;
    c.end = bytes.ptr + len;
    if (!decode_packet(&c, p))
        return WIRE_MALFORMED;
    *used = len;
    return WIRE_FRAME;
}

bool startup_is_tls(struct str bytes)
{
    return bytes.len > 0 && bytes.ptr[0] == 0x16;
}

bool startup_next_param(struct str *params, struct str *name, struct str *value)
{
    if (params->len == 0)
        return false;
    struct wire_cursor c = wire_cursor(*params);
    *name = wire_cstr(&c);
    *value = wire_cstr(&c);
    *params = wire_rest(&c);
    return wire_ok(&c);
}

bool startup_find_param(struct str params, const char *name, struct str *value)
{
    bool found = false;
    struct str n, v;
    while (startup_next_param(&params, &n, &v)) {
        if (str_equal(n, str_from(name))) {
            *value = v;
            found = true;
        }
    }
    return found;
}

static void encode_request(struct bytequeue *out, uint32_t code)
{
    wire_put_u32(out, 8);
    wire_put_u32(out, code);
}

void startup_encode_ssl_request(struct bytequeue *out)
{
    encode_request(out, CODE_SSL);
}

void startup_encode_gssenc_request(struct bytequeue *out)
{
    encode_request(out, CODE_GSSENC);
}

void startup_encode_cancel(struct bytequeue *out, int32_t pid, struct str key)
{
    struct wire_mark m = wire_begin_untyped(out);
    wire_put_u32(out, CODE_CANCEL);
    wire_put_i32(out, pid);
    wire_put_str(out, key);
    wire_end(out, m);
}

struct wire_mark startup_encode_begin(struct bytequeue *out, uint16_t major, uint16_t minor)
{
    struct wire_mark m = wire_begin_untyped(out);
    wire_put_u16(out, major);
    wire_put_u16(out, minor);
    return m;
}

void startup_encode_param(struct bytequeue *out, struct str name, struct str value)
{
    wire_put_cstr(out, name);
    wire_put_cstr(out, value);
}

void startup_encode_end(struct bytequeue *out, struct wire_mark m)
{
    wire_put_u8(out, 0);
    wire_end(out, m);
}

bool startup_decode_negotiate(struct str body, struct negotiate_version *n)
{
    struct wire_cursor c = wire_cursor(body);
    uint32_t version = wire_u32(&c);
    n->major = version >> 16 == 0 ? 3 : (uint16_t)(version >> 16);
    n->minor = (uint16_t)version;
    n->n_options = wire_u32(&c);
    n->options = (struct str){ c.at, wire_left(&c) };
    for (uint32_t i = 0; i < n->n_options && wire_ok(&c); i++)
        wire_cstr(&c);
    return wire_at_end(&c);
}

static bool is_option(struct str name)
{
    return str_starts_with(name, STR("_pq_."));
}

void startup_encode_negotiate(struct bytequeue *out, uint16_t major, uint16_t minor,
                              struct str params)
{
    struct str name, value;
    uint32_t n = 0;
    for (struct str left = params; startup_next_param(&left, &name, &value);)
        n += is_option(name);

    struct wire_mark m = wire_begin(out, BE_NEGOTIATE_PROTOCOL);
    wire_put_u16(out, major);
    wire_put_u16(out, minor);
    wire_put_u32(out, n);
    while (startup_next_param(&params, &name, &value)) {
        if (is_option(name))
            wire_put_cstr(out, name);
    }
    wire_end(out, m);
}

bool startup_has_options(struct str params)
{
    struct str name, value;
    while (startup_next_param(&params, &name, &value)) {
        if (is_option(name))
            return true;
    }
    return false;
}
