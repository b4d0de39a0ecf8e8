/* Results: RowDescription, DataRow, CommandComplete.
 *
 * Manual: "Message Formats". Slices borrow from the input.
 */
#ifndef PGTRICKLE_PROTOCOL_RESULT_H
#define PGTRICKLE_PROTOCOL_RESULT_H

#include <stdbool.h>
#include <stdint.h>

#include "protocol/reader.h"
#include "protocol/writer.h"

struct row_column {
    struct str name;
    uint32_t table_oid;    /* 0: not a column of a table */
    int16_t column_number; /* 0: not a column of a table */
    uint32_t type_oid;
    int16_t type_len;
    int32_t type_modifier;
    int16_t format; /* 0 text, 1 binary */
};

#define TYPE_OID_BOOL 16
#define TYPE_OID_INT8 20
#define TYPE_OID_INT4 23
#define TYPE_OID_TEXT 25

/* The number of columns, and a cursor before the first. */
bool wire_decode_row_description(struct str body, uint16_t *n, struct wire_cursor *columns);
/* Check wire_ok(columns) after the last. */
void wire_next_row_column(struct wire_cursor *columns, struct row_column *column);
void wire_encode_row_description(struct bytequeue *out, const struct row_column *columns,
                                 uint16_t n);
/* Text columns of type text. */
void wire_encode_text_columns(struct bytequeue *out, const char *const *names, uint16_t n);

/* The number of values, and a cursor before the first: walk with wire_value. */
bool wire_decode_data_row(struct str body, uint16_t *n, struct wire_cursor *values);
/* A value with ptr NULL is NULL. */
void wire_encode_data_row(struct bytequeue *out, const struct str *values, uint16_t n);

struct msg_command_complete {
    struct str tag; /* "INSERT 0 5" */
    bool has_rows;  /* its last word is a number */
    uint64_t rows;
};

bool wire_decode_command_complete(struct str body, struct msg_command_complete *m);
void wire_encode_command_complete(struct bytequeue *out, struct str tag);

#endif
