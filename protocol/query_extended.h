/* The extended query protocol: encode and decode, and changing the names in a frame.
 *
 * Manual: "Message Flow", Extended Query, Pipelining. Slices borrow from the input.
 */
#ifndef PGTRICKLE_PROTOCOL_QUERY_EXTENDED_H
#define PGTRICKLE_PROTOCOL_QUERY_EXTENDED_H

#include <stdbool.h>
#include <stdint.h>

#include "protocol/reader.h"
#include "protocol/writer.h"

/* What Describe and Close aim at, as on the wire. */
enum wire_target {
    TARGET_STATEMENT = 'S',
    TARGET_PORTAL = 'P',
};

/* Parse. The OIDs (0: let the server decide) are n_param_types big-endian words: see
 * wire_parse_param_type. `tail` is everything behind the name: two Parses with equal tails define
 * the same statement. */
struct msg_parse {
    struct str statement;
    struct str query;
    uint16_t n_param_types;
    struct str param_types;
    struct str tail;
};

bool wire_decode_parse(struct str body, struct msg_parse *m);
uint32_t wire_parse_param_type(const struct msg_parse *m, uint16_t i);
/* param_types: n host-order OIDs, may be NULL when n is 0. */
void wire_encode_parse(struct bytequeue *out, struct str statement, struct str query,
                       const uint32_t *param_types, uint16_t n);
/* From a name and a stored tail. */
void wire_encode_parse_tail(struct bytequeue *out, struct str statement, struct str tail);

/* Bind: the names at its beginning. Works on the first piece of a streamed message too:
 * WIRE_NEED_MORE when the piece ends before the names do. */
struct msg_bind_names {
    struct str portal;
    struct str statement;
    size_t len; /* of both with their NULs: where the rest begins in the body */
};

enum wire_result wire_decode_bind_names(struct str body, struct msg_bind_names *m);
/* The same for Parse, whose only name comes first. */
enum wire_result wire_decode_parse_name(struct str body, struct str *statement);

/* Bind, all of it, checked. Formats: 0 of them: all text; 1: for all; else one each. Parameters
 * and formats are walked with the functions below. */
struct msg_bind {
    struct str portal;
    struct str statement;
    uint16_t n_param_formats;
    struct str param_formats;
    uint16_t n_params;
    struct str params; /* (Int32 length, bytes)* : walk with wire_cursor and wire_value */
    uint16_t n_result_formats;
    struct str result_formats;
};

bool wire_decode_bind(struct str body, struct msg_bind *m);
/* The format of parameter (result column) i: 0 text, 1 binary. */
int16_t wire_bind_param_format(const struct msg_bind *m, uint16_t i);
int16_t wire_bind_result_format(const struct msg_bind *m, uint16_t i);

/* Text parameters, text results; a value with ptr NULL is NULL. */
void wire_encode_bind_text(struct bytequeue *out, struct str portal, struct str statement,
                           const struct str *params, uint16_t n);
/* Encodes what was decoded, with other names perhaps. */
void wire_encode_bind(struct bytequeue *out, const struct msg_bind *m);

struct msg_target { /* Describe, Close */
    enum wire_target target;
    struct str name;
};

bool wire_decode_target(struct str body, struct msg_target *m);
void wire_encode_describe(struct bytequeue *out, enum wire_target target, struct str name);
void wire_encode_close(struct bytequeue *out, enum wire_target target, struct str name);

struct msg_execute {
    struct str portal;
    int32_t max_rows; /* 0: no limit */
};

bool wire_decode_execute(struct str body, struct msg_execute *m);
void wire_encode_execute(struct bytequeue *out, struct str portal, int32_t max_rows);

void wire_encode_sync(struct bytequeue *out);
void wire_encode_flush(struct bytequeue *out);

/* Writes a Parse, Bind, Describe(S) or Close(S) with another statement name. `piece` is the whole
 * message or the first piece of one; what follows it is then forwarded as it is. False, and nothing
 * is written, when the names can't be found in it, or the tag is another, or Describe and Close aim
 * at a portal, or the new length is out of the message's bounds. */
bool wire_rename_statement(struct bytequeue *out, const struct wire_piece *piece,
                           struct str statement);

/* The answers without a body are wire_put_empty with BE_PARSE_COMPLETE, BE_BIND_COMPLETE,
 * BE_CLOSE_COMPLETE, BE_NO_DATA, BE_PORTAL_SUSPENDED, BE_EMPTY_QUERY. */
struct msg_param_description {
    uint16_t n;
    struct str oids; /* big-endian words */
};

bool wire_decode_param_description(struct str body, struct msg_param_description *m);
uint32_t wire_param_description_oid(const struct msg_param_description *m, uint16_t i);
void wire_encode_param_description(struct bytequeue *out, const uint32_t *oids, uint16_t n);

#endif
