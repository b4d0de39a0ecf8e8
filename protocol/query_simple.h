/* The simple query protocol, and the messages that a frontend sends outside of any query.
 *
 * Manual: "Message Flow", Simple Query, Function Call, Termination. Slices borrow from the input.
 */
#ifndef PGTRICKLE_PROTOCOL_QUERY_SIMPLE_H
#define PGTRICKLE_PROTOCOL_QUERY_SIMPLE_H

#include <stdbool.h>

#include "protocol/reader.h"
#include "protocol/writer.h"

bool wire_decode_query(struct str body, struct str *sql);
void wire_encode_query(struct bytequeue *out, struct str sql);

void wire_encode_terminate(struct bytequeue *out);

#endif
