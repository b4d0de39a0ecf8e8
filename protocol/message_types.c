#include "protocol/message_types.h"

#include <stddef.h>

#define WIRE_TYPE_ROW(tag, name, text, min, max) [(uint8_t)(tag)] = { text, min, max },

const struct wire_message_type wire_frontend_types[256] = { WIRE_FRONTEND_MESSAGES(WIRE_TYPE_ROW) };
const struct wire_message_type wire_backend_types[256] = { WIRE_BACKEND_MESSAGES(WIRE_TYPE_ROW) };

const char *wire_message_name(enum wire_sender sender, char tag)
{
    const char *name = wire_message_type(sender, tag)->name;
    return name != NULL ? name : "unknown";
}
