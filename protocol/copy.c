#include "protocol/copy.h"

bool wire_decode_copy_response(struct str body, struct msg_copy_response *m)
{
    struct wire_cursor c = wire_cursor(body);
    uint8_t format = wire_u8(&c);
    m->is_binary = format == 1;
    m->n_columns = wire_u16(&c);
    m->formats = wire_bytes(&c, (size_t)m->n_columns * 2);
    return wire_at_end(&c) && format <= 1;
}

void wire_encode_copy_response(struct bytequeue *out, char tag, bool is_binary, uint16_t n_columns)
{
    struct wire_mark m = wire_begin(out, tag);
    wire_put_u8(out, is_binary);
    wire_put_u16(out, n_columns);
    for (uint16_t i = 0; i < n_columns; i++)
        wire_put_u16(out, is_binary);
    wire_end(out, m);
}

void wire_encode_copy_data(struct bytequeue *out, struct str data)
{
    struct wire_mark m = wire_begin(out, FE_COPY_DATA);
    wire_put_str(out, data);
    wire_end(out, m);
}

void wire_encode_copy_done(struct bytequeue *out)
{
    wire_put_empty(out, FE_COPY_DONE);
}

bool wire_decode_copy_fail(struct str body, struct str *reason)
{
    struct wire_cursor c = wire_cursor(body);
    *reason = wire_cstr(&c);
    return wire_at_end(&c);
}

void wire_encode_copy_fail(struct bytequeue *out, struct str reason)
{
    struct wire_mark m = wire_begin(out, FE_COPY_FAIL);
    wire_put_cstr(out, reason);
    wire_end(out, m);
}
