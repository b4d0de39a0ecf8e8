#include "protocol/message_types.h"

#include <stddef.h>

#define WIRE_TYPE_ROW(tag, name, text, min, max) [(uint8_t)(tag)] = { text, min, max },

static const struct wire_message_type frontend_types[256] = { WIRE_FRONTEND_MESSAGES(
    WIRE_TYPE_ROW) };
static const struct wire_message_type backend_types[256] = { WIRE_BACKEND_MESSAGES(WIRE_TYPE_ROW) };

const struct wire_message_type *wire_message_type(enum wire_sender sender, char tag)
{
    return sender == SENT_BY_FRONTEND ? &frontend_types[(uint8_t)tag]
                                      : &backend_types[(uint8_t)tag];
}

const char *wire_message_name(enum wire_sender sender, char tag)
{
    const char *name = wire_message_type(sender, tag)->name;
    return name != NULL ? name : "unknown";
}
