/* COPY: the answers that start it, and the data of both directions.
 *
 * Manual: "Message Flow", COPY Operations. Slices borrow from the input. CopyDone is
 * wire_put_empty with 'c', whoever sends it.
 */
#ifndef PGTRICKLE_PROTOCOL_COPY_H
#define PGTRICKLE_PROTOCOL_COPY_H

#include <stdbool.h>
#include <stdint.h>

#include "protocol/reader.h"
#include "protocol/writer.h"

/* CopyInResponse, CopyOutResponse, CopyBothResponse. */
struct msg_copy_response {
    bool is_binary;
    uint16_t n_columns;
    struct str formats; /* Int16 each */
};

bool wire_decode_copy_response(struct str body, struct msg_copy_response *m);
/* tag: BE_COPY_IN_RESPONSE, BE_COPY_OUT_RESPONSE or BE_COPY_BOTH_RESPONSE; every column has the
 * overall format. */
void wire_encode_copy_response(struct bytequeue *out, char tag, bool is_binary, uint16_t n_columns);

void wire_encode_copy_data(struct bytequeue *out, struct str data);
void wire_encode_copy_done(struct bytequeue *out);
bool wire_decode_copy_fail(struct str body, struct str *reason);
void wire_encode_copy_fail(struct bytequeue *out, struct str reason);

#endif
