/* What a backend says about the session: ReadyForQuery, ParameterStatus, BackendKeyData,
 * NotificationResponse.
 *
 * Manual: "Message Formats", "Asynchronous Operations". Slices borrow from the input.
 */
#ifndef PGTRICKLE_PROTOCOL_STATUS_H
#define PGTRICKLE_PROTOCOL_STATUS_H

#include <stdbool.h>
#include <stdint.h>

#include "protocol/reader.h"
#include "protocol/writer.h"

/* Transaction status, as on the wire. */
enum wire_status {
    STATUS_IDLE = 'I',
    STATUS_IN_TRANSACTION = 'T',
    STATUS_FAILED = 'E',
};

bool wire_decode_ready(struct str body, enum wire_status *status);
void wire_encode_ready(struct bytequeue *out, enum wire_status status);

bool wire_decode_parameter_status(struct str body, struct str *name, struct str *value);
void wire_encode_parameter_status(struct bytequeue *out, struct str name, struct str value);

#define WIRE_CANCEL_KEY_MAX 256
/* The key: 4 bytes up to protocol 3.0, up to WIRE_CANCEL_KEY_MAX from 3.2 on. */
bool wire_decode_backend_key(struct str body, int32_t *pid, struct str *key);
void wire_encode_backend_key(struct bytequeue *out, int32_t pid, struct str key);

bool wire_decode_notification(struct str body, int32_t *pid, struct str *channel,
                              struct str *payload);
void wire_encode_notification(struct bytequeue *out, int32_t pid, struct str channel,
                              struct str payload);

#endif
