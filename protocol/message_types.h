/* Every message that has a type byte: tag, name, least and greatest length of its body.
 *
 * Manual: "Message Formats". A tag means one thing when a frontend sends it and another when a
 * backend does, so there are two tables. The body is what follows the length word. The upper
 * bounds are the server's own (PQ_SMALL_MESSAGE_LIMIT and PQ_LARGE_MESSAGE_LIMIT in libpq/libpq.h)
 * for what a frontend sends; for what a backend sends small is what libpq would still accept.
 */
#ifndef PGTRICKLE_PROTOCOL_MESSAGE_TYPES_H
#define PGTRICKLE_PROTOCOL_MESSAGE_TYPES_H

#include <stdbool.h>
#include <stdint.h>

#define WIRE_SMALL 30000
#define WIRE_TOKEN 65535
#define WIRE_LARGE 0x3ffffffe

/* clang-format off */
#define WIRE_FRONTEND_MESSAGES(X)                              \
    X('B', BIND,               "Bind",             8, WIRE_LARGE) \
    X('C', CLOSE,              "Close",            2, WIRE_SMALL) \
    X('d', COPY_DATA,          "CopyData",         0, WIRE_LARGE) \
    X('c', COPY_DONE,          "CopyDone",         0, WIRE_SMALL) \
    X('f', COPY_FAIL,          "CopyFail",         1, WIRE_LARGE) \
    X('D', DESCRIBE,           "Describe",         2, WIRE_SMALL) \
    X('E', EXECUTE,            "Execute",          5, WIRE_SMALL) \
    X('H', FLUSH,              "Flush",            0, WIRE_SMALL) \
    X('F', FUNCTION_CALL,      "FunctionCall",    10, WIRE_LARGE) \
    X('P', PARSE,              "Parse",            4, WIRE_LARGE) \
    X('p', PASSWORD,           "PasswordMessage",  0, WIRE_TOKEN) \
    X('Q', QUERY,              "Query",            1, WIRE_LARGE) \
    X('S', SYNC,               "Sync",             0, WIRE_SMALL) \
    X('X', TERMINATE,          "Terminate",        0, WIRE_SMALL)

#define WIRE_BACKEND_MESSAGES(X)                               \
    X('R', AUTHENTICATION,     "Authentication",   4, WIRE_TOKEN) \
    X('K', BACKEND_KEY_DATA,   "BackendKeyData",   8, 260)        \
    X('2', BIND_COMPLETE,      "BindComplete",     0, 0)          \
    X('3', CLOSE_COMPLETE,     "CloseComplete",    0, 0)          \
    X('C', COMMAND_COMPLETE,   "CommandComplete",  1, WIRE_SMALL) \
    X('d', COPY_DATA,          "CopyData",         0, WIRE_LARGE) \
    X('c', COPY_DONE,          "CopyDone",         0, 0)          \
    X('G', COPY_IN_RESPONSE,   "CopyInResponse",   3, WIRE_SMALL) \
    X('H', COPY_OUT_RESPONSE,  "CopyOutResponse",  3, WIRE_SMALL) \
    X('W', COPY_BOTH_RESPONSE, "CopyBothResponse", 3, WIRE_SMALL) \
    X('D', DATA_ROW,           "DataRow",          2, WIRE_LARGE) \
    X('I', EMPTY_QUERY,        "EmptyQueryResponse", 0, 0)        \
    X('E', ERROR,              "ErrorResponse",    1, WIRE_LARGE) \
    X('V', FUNCTION_CALL,      "FunctionCallResponse", 4, WIRE_LARGE) \
    X('v', NEGOTIATE_PROTOCOL, "NegotiateProtocolVersion", 8, WIRE_SMALL) \
    X('n', NO_DATA,            "NoData",           0, 0)          \
    X('N', NOTICE,             "NoticeResponse",   1, WIRE_LARGE) \
    X('A', NOTIFICATION,       "NotificationResponse", 6, WIRE_LARGE) \
    X('t', PARAMETER_DESCRIPTION, "ParameterDescription", 2, 2 + 4 * 65535) \
    X('S', PARAMETER_STATUS,   "ParameterStatus",  2, WIRE_LARGE) \
    X('1', PARSE_COMPLETE,     "ParseComplete",    0, 0)          \
    X('s', PORTAL_SUSPENDED,   "PortalSuspended",  0, 0)          \
    X('Z', READY_FOR_QUERY,    "ReadyForQuery",    1, 1)          \
    X('T', ROW_DESCRIPTION,    "RowDescription",   2, WIRE_LARGE)
/* clang-format on */

/* FE_QUERY, FE_BIND, … and BE_DATA_ROW, BE_ERROR, …: who sends it, as the manual does. */
#define WIRE_TAG_FE(tag, name, text, min, max) FE_##name = tag,
#define WIRE_TAG_BE(tag, name, text, min, max) BE_##name = tag,
enum wire_frontend_tag { WIRE_FRONTEND_MESSAGES(WIRE_TAG_FE) };
enum wire_backend_tag { WIRE_BACKEND_MESSAGES(WIRE_TAG_BE) };
#undef WIRE_TAG_FE
#undef WIRE_TAG_BE

enum wire_sender {
    SENT_BY_FRONTEND,
    SENT_BY_BACKEND,
};

struct wire_message_type {
    const char *name; /* NULL: no such message */
    uint32_t body_min;
    uint32_t body_max;
};

extern const struct wire_message_type wire_frontend_types[256];
extern const struct wire_message_type wire_backend_types[256];

/* Never NULL; for an unknown tag the name is. */
static inline const struct wire_message_type *wire_message_type(enum wire_sender sender, char tag)
{
    return sender == SENT_BY_FRONTEND ? &wire_frontend_types[(uint8_t)tag]
                                      : &wire_backend_types[(uint8_t)tag];
}

/* "Parse", or "unknown". */
const char *wire_message_name(enum wire_sender sender, char tag);

#endif
