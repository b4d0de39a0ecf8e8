#include "protocol/query_extended.h"

/* The i-th big-endian word of an array that was checked when it was decoded. */
static uint32_t word_at(struct str words, uint16_t i)
{
    struct wire_cursor c = wire_cursor(words);
    wire_bytes(&c, (size_t)i * 4);
    return wire_u32(&c);
}

static int16_t format_at(struct str formats, uint16_t n, uint16_t i)
{
    struct wire_cursor c = wire_cursor(formats);
    if (n == 0)
        return 0;
    wire_bytes(&c, n == 1 ? 0 : (size_t)i * 2);
    return wire_i16(&c);
}

/* ---- Parse ---- */

bool wire_decode_parse(struct str body, struct msg_parse *m)
{
    struct wire_cursor c = wire_cursor(body);
    m->statement = wire_cstr(&c);
    m->tail = (struct str){ c.at, wire_left(&c) };
    m->query = wire_cstr(&c);
    m->n_param_types = wire_u16(&c);
    m->param_types = wire_bytes(&c, (size_t)m->n_param_types * 4);
    return wire_at_end(&c);
}

uint32_t wire_parse_param_type(const struct msg_parse *m, uint16_t i)
{
    return word_at(m->param_types, i);
}

void wire_encode_parse(struct bytequeue *out, struct str statement, struct str query,
                       const uint32_t *param_types, uint16_t n)
{
    struct wire_mark m = wire_begin(out, FE_PARSE);
    wire_put_cstr(out, statement);
    wire_put_cstr(out, query);
    wire_put_u16(out, n);
    for (uint16_t i = 0; i < n; i++)
        wire_put_u32(out, param_types[i]);
    wire_end(out, m);
}

void wire_encode_parse_tail(struct bytequeue *out, struct str statement, struct str tail)
{
    struct wire_mark m = wire_begin(out, FE_PARSE);
    wire_put_cstr(out, statement);
    wire_put_str(out, tail);
    wire_end(out, m);
}

enum wire_result wire_decode_parse_name(struct str body, struct str *statement)
{
    struct wire_cursor c = wire_cursor(body);
    *statement = wire_cstr(&c);
    return wire_ok(&c) ? WIRE_FRAME : WIRE_NEED_MORE;
}

/* ---- Bind ---- */

enum wire_result wire_decode_bind_names(struct str body, struct msg_bind_names *m)
{
    struct wire_cursor c = wire_cursor(body);
    m->portal = wire_cstr(&c);
    m->statement = wire_cstr(&c);
    m->len = body.len - wire_left(&c);
    return wire_ok(&c) ? WIRE_FRAME : WIRE_NEED_MORE;
}

bool wire_decode_bind(struct str body, struct msg_bind *m)
{
    struct wire_cursor c = wire_cursor(body);
    m->portal = wire_cstr(&c);
    m->statement = wire_cstr(&c);
    m->n_param_formats = wire_u16(&c);
    m->param_formats = wire_bytes(&c, (size_t)m->n_param_formats * 2);
    m->n_params = wire_u16(&c);
    const char *start = c.at;
    for (uint16_t i = 0; i < m->n_params && wire_ok(&c); i++) {
        bool is_null;
        wire_value(&c, &is_null);
    }
    m->params = (struct str){ start, (size_t)(c.at - start) };
    m->n_result_formats = wire_u16(&c);
    m->result_formats = wire_bytes(&c, (size_t)m->n_result_formats * 2);
    return wire_at_end(&c) && (m->n_param_formats <= 1 || m->n_param_formats == m->n_params);
}

int16_t wire_bind_param_format(const struct msg_bind *m, uint16_t i)
{
    return format_at(m->param_formats, m->n_param_formats, i);
}

int16_t wire_bind_result_format(const struct msg_bind *m, uint16_t i)
{
    return format_at(m->result_formats, m->n_result_formats, i);
}

void wire_encode_bind_text(struct bytequeue *out, struct str portal, struct str statement,
                           const struct str *params, uint16_t n)
{
    struct wire_mark m = wire_begin(out, FE_BIND);
    wire_put_cstr(out, portal);
    wire_put_cstr(out, statement);
    wire_put_u16(out, 0);
    wire_put_u16(out, n);
    for (uint16_t i = 0; i < n; i++)
        wire_put_value(out, params[i]);
    wire_put_u16(out, 0);
    wire_end(out, m);
}

void wire_encode_bind(struct bytequeue *out, const struct msg_bind *m)
{
    struct wire_mark mark = wire_begin(out, FE_BIND);
    wire_put_cstr(out, m->portal);
    wire_put_cstr(out, m->statement);
    wire_put_u16(out, m->n_param_formats);
    wire_put_str(out, m->param_formats);
    wire_put_u16(out, m->n_params);
    wire_put_str(out, m->params);
    wire_put_u16(out, m->n_result_formats);
    wire_put_str(out, m->result_formats);
    wire_end(out, mark);
}

/* ---- Describe, Close ---- */

bool wire_decode_target(struct str body, struct msg_target *m)
{
    struct wire_cursor c = wire_cursor(body);
    uint8_t target = wire_u8(&c);
    m->name = wire_cstr(&c);
    m->target = target == TARGET_PORTAL ? TARGET_PORTAL : TARGET_STATEMENT;
    return wire_at_end(&c) && target == m->target;
}

static void encode_target(struct bytequeue *out, char tag, enum wire_target target, struct str name)
{
    struct wire_mark m = wire_begin(out, tag);
    wire_put_u8(out, (uint8_t)target);
    wire_put_cstr(out, name);
    wire_end(out, m);
}

void wire_encode_describe(struct bytequeue *out, enum wire_target target, struct str name)
{
    encode_target(out, FE_DESCRIBE, target, name);
}

void wire_encode_close(struct bytequeue *out, enum wire_target target, struct str name)
{
    encode_target(out, FE_CLOSE, target, name);
}

/* ---- Execute, Sync, Flush ---- */

bool wire_decode_execute(struct str body, struct msg_execute *m)
{
    struct wire_cursor c = wire_cursor(body);
    m->portal = wire_cstr(&c);
    m->max_rows = wire_i32(&c);
    return wire_at_end(&c);
}

void wire_encode_execute(struct bytequeue *out, struct str portal, int32_t max_rows)
{
    struct wire_mark m = wire_begin(out, FE_EXECUTE);
    wire_put_cstr(out, portal);
    wire_put_i32(out, max_rows);
    wire_end(out, m);
}

void wire_encode_sync(struct bytequeue *out)
{
    wire_put_empty(out, FE_SYNC);
}

void wire_encode_flush(struct bytequeue *out)
{
    wire_put_empty(out, FE_FLUSH);
}

/* ---- another name ---- */

/* The old name's place in the body; false when this piece does not show it. */
static bool find_statement_name(const struct wire_piece *piece, struct str *name)
{
    struct wire_cursor c = wire_cursor(piece->body);
    switch (piece->tag) {
    case FE_PARSE:
        break;
    case FE_BIND:
        wire_cstr(&c); /* the portal */
        break;
    case FE_DESCRIBE:
    case FE_CLOSE:
        if (wire_u8(&c) != TARGET_STATEMENT)
            return false;
        break;
    default:
        return false;
    }
    *name = wire_cstr(&c);
    return wire_ok(&c);
}

bool wire_rename_statement(struct bytequeue *out, const struct wire_piece *piece,
                           struct str statement)
{
    struct str old;
    if (!piece->starts || !find_statement_name(piece, &old))
        return false;
    uint64_t body_len = (uint64_t)piece->body_len - old.len + statement.len;
    const struct wire_message_type *type = wire_message_type(SENT_BY_FRONTEND, piece->tag);
    if (body_len < type->body_min || body_len > type->body_max)
        return false;
    size_t before = (size_t)(old.ptr - piece->body.ptr);
    const char *after = old.ptr + old.len;
    wire_put_header(out, piece->tag, (uint32_t)body_len);
    wire_put_str(out, (struct str){ piece->body.ptr, before });
    wire_put_str(out, statement);
    wire_put_str(out, (struct str){ after, piece->body.len - before - old.len });
    return true;
}

/* ---- ParameterDescription ---- */

bool wire_decode_param_description(struct str body, struct msg_param_description *m)
{
    struct wire_cursor c = wire_cursor(body);
    m->n = wire_u16(&c);
    m->oids = wire_bytes(&c, (size_t)m->n * 4);
    return wire_at_end(&c);
}

uint32_t wire_param_description_oid(const struct msg_param_description *m, uint16_t i)
{
    return word_at(m->oids, i);
}

void wire_encode_param_description(struct bytequeue *out, const uint32_t *oids, uint16_t n)
{
    struct wire_mark m = wire_begin(out, BE_PARAMETER_DESCRIPTION);
    wire_put_u16(out, n);
    for (uint16_t i = 0; i < n; i++)
        wire_put_u32(out, oids[i]);
    wire_end(out, m);
}
