/* ErrorResponse and NoticeResponse.
 *
 * Manual: "Error and Notice Message Fields". A struct notice has every field of the message as
 * borrowed slices (ptr NULL: absent), so that one that passes through loses nothing; the err is
 * what the rest of the daemon talks in.
 */
#ifndef PGTRICKLE_PROTOCOL_NOTICE_H
#define PGTRICKLE_PROTOCOL_NOTICE_H

#include <stdbool.h>

#include "base/err.h"
#include "protocol/reader.h"
#include "protocol/writer.h"

/* As on the wire. */
enum notice_field {
    NOTICE_SEVERITY = 'S',       /* translated */
    NOTICE_SEVERITY_PLAIN = 'V', /* never translated */
    NOTICE_SQLSTATE = 'C',
    NOTICE_MESSAGE = 'M',
    NOTICE_DETAIL = 'D',
    NOTICE_HINT = 'H',
    NOTICE_POSITION = 'P',
    NOTICE_INTERNAL_POSITION = 'p',
    NOTICE_INTERNAL_QUERY = 'q',
    NOTICE_WHERE = 'W',
    NOTICE_SCHEMA = 's',
    NOTICE_TABLE = 't',
    NOTICE_COLUMN = 'c',
    NOTICE_DATA_TYPE = 'd',
    NOTICE_CONSTRAINT = 'n',
    NOTICE_FILE = 'F',
    NOTICE_LINE = 'L',
    NOTICE_ROUTINE = 'R',
};

/* False when the fields are not well-formed. */
bool notice_is_valid(struct str body);
/* The field's value; ptr NULL when absent. */
struct str notice_get(struct str body, enum notice_field field);
/* The SQLSTATE is this one. */
bool notice_has_sqlstate(struct str body, const char *sqlstate);

/* Writes the message `tag` (BE_ERROR or BE_NOTICE) with `body`'s fields, all kept in their order,
 * except that `field` has this value, or is left out (ptr NULL). A field that was absent is added
 * at the end. False, and nothing is written, when body is malformed. */
bool notice_encode_with(struct bytequeue *out, char tag, struct str body, enum notice_field field,
                        struct str value);

/* *e becomes the error that a server sent: class ERR_SERVER, sqlstate, message, detail, hint,
 * context, positions. Always leaves *e set: a malformed body is an ERR_PEER 08P01. */
void notice_decode_err(struct str body, struct err *e);

/* severity: "ERROR", "FATAL", "PANIC". An err without SQLSTATE goes as XX000. */
void notice_encode_err(struct bytequeue *out, const char *severity, const struct err *e);
void notice_encode_error(struct bytequeue *out, const char *severity, const char *sqlstate,
                         const char *fmt, ...) __attribute__((format(printf, 4, 5)));
/* severity: "NOTICE", "WARNING", "INFO", "LOG", "DEBUG". */
void notice_encode_notice(struct bytequeue *out, const char *severity, const char *sqlstate,
                          const char *fmt, ...) __attribute__((format(printf, 4, 5)));

#endif
