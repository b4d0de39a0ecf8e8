#include "protocol/result.h"

bool wire_decode_row_description(struct str body, uint16_t *n, struct wire_cursor *columns)
{
    *columns = wire_cursor(body);
    *n = wire_u16(columns);
    return wire_ok(columns);
}

void wire_next_row_column(struct wire_cursor *columns, struct row_column *column)
{
    column->name = wire_cstr(columns);
    column->table_oid = wire_u32(columns);
    column->column_number = wire_i16(columns);
    column->type_oid = wire_u32(columns);
    column->type_len = wire_i16(columns);
    column->type_modifier = wire_i32(columns);
    column->format = wire_i16(columns);
}

static void put_column(struct bytequeue *out, const struct row_column *column)
{
    wire_put_cstr(out, column->name);
    wire_put_u32(out, column->table_oid);
    wire_put_i16(out, column->column_number);
    wire_put_u32(out, column->type_oid);
    wire_put_i16(out, column->type_len);
    wire_put_i32(out, column->type_modifier);
    wire_put_i16(out, column->format);
}

void wire_encode_row_description(struct bytequeue *out, const struct row_column *columns,
                                 uint16_t n)
{
    struct wire_mark m = wire_begin(out, BE_ROW_DESCRIPTION);
    wire_put_u16(out, n);
    for (uint16_t i = 0; i < n; i++)
        put_column(out, &columns[i]);
    wire_end(out, m);
}

void wire_encode_text_columns(struct bytequeue *out, const char *const *names, uint16_t n)
{
    struct wire_mark m = wire_begin(out, BE_ROW_DESCRIPTION);
    wire_put_u16(out, n);
    for (uint16_t i = 0; i < n; i++)
        put_column(out, &(struct row_column){
                            .name = str_from(names[i]),
                            .type_oid = TYPE_OID_TEXT,
                            .type_len = -1,
                            .type_modifier = -1,
                        });
    wire_end(out, m);
}

bool wire_decode_data_row(struct str body, uint16_t *n, struct wire_cursor *values)
{
    *values = wire_cursor(body);
    *n = wire_u16(values);
    return wire_ok(values);
}

void wire_encode_data_row(struct bytequeue *out, const struct str *values, uint16_t n)
{
    struct wire_mark m = wire_begin(out, BE_DATA_ROW);
    wire_put_u16(out, n);
    for (uint16_t i = 0; i < n; i++)
        wire_put_value(out, values[i]);
    wire_end(out, m);
}

bool wire_decode_command_complete(struct str body, struct msg_command_complete *m)
{
    struct wire_cursor c = wire_cursor(body);
    *m = (struct msg_command_complete){ .tag = wire_cstr(&c) };
    if (!wire_at_end(&c))
        return false;

    const char *space = m->tag.len > 0 ? memrchr(m->tag.ptr, ' ', m->tag.len) : NULL;
    const char *end = m->tag.ptr + m->tag.len;
    if (space == NULL || space + 1 == end)
        return true;
    uint64_t rows = 0;
    for (const char *at = space + 1; at < end; at++) {
        if (*at < '0' || *at > '9')
            return true;
        rows = rows * 10 + (uint64_t)(*at - '0');
    }
    m->has_rows = true;
    m->rows = rows;
    return true;
}

void wire_encode_command_complete(struct bytequeue *out, struct str tag)
{
    struct wire_mark m = wire_begin(out, BE_COMMAND_COMPLETE);
    wire_put_cstr(out, tag);
    wire_end(out, m);
}
