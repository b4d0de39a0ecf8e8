#include "protocol/status.h"

bool wire_decode_ready(struct str body, enum wire_status *status)
{
    struct wire_cursor c = wire_cursor(body);
    uint8_t letter = wire_u8(&c);
    if (!wire_at_end(&c) ||
        (letter != STATUS_IDLE && letter != STATUS_IN_TRANSACTION && letter != STATUS_FAILED))
        return false;
    *status = (enum wire_status)letter;
    return true;
}

void wire_encode_ready(struct bytequeue *out, enum wire_status status)
{
    wire_put_header(out, BE_READY_FOR_QUERY, 1);
    wire_put_u8(out, (uint8_t)status);
}

bool wire_decode_parameter_status(struct str body, struct str *name, struct str *value)
{
    struct wire_cursor c = wire_cursor(body);
    *name = wire_cstr(&c);
    *value = wire_cstr(&c);
    return wire_at_end(&c);
}

void wire_encode_parameter_status(struct bytequeue *out, struct str name, struct str value)
{
    struct wire_mark m = wire_begin(out, BE_PARAMETER_STATUS);
    wire_put_cstr(out, name);
    wire_put_cstr(out, value);
    wire_end(out, m);
}

bool wire_decode_backend_key(struct str body, int32_t *pid, struct str *key)
{
    struct wire_cursor c = wire_cursor(body);
    *pid = wire_i32(&c);
    *key = wire_rest(&c);
    return wire_at_end(&c) && key->len >= 4 && key->len <= WIRE_CANCEL_KEY_MAX;
}

void wire_encode_backend_key(struct bytequeue *out, int32_t pid, struct str key)
{
    struct wire_mark m = wire_begin(out, BE_BACKEND_KEY_DATA);
    wire_put_i32(out, pid);
    wire_put_str(out, key);
    wire_end(out, m);
}

bool wire_decode_notification(struct str body, int32_t *pid, struct str *channel,
                              struct str *payload)
{
    struct wire_cursor c = wire_cursor(body);
    *pid = wire_i32(&c);
    *channel = wire_cstr(&c);
    *payload = wire_cstr(&c);
    return wire_at_end(&c);
}

void wire_encode_notification(struct bytequeue *out, int32_t pid, struct str channel,
                              struct str payload)
{
    struct wire_mark m = wire_begin(out, BE_NOTIFICATION);
    wire_put_i32(out, pid);
    wire_put_cstr(out, channel);
    wire_put_cstr(out, payload);
    wire_end(out, m);
}
