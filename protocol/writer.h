/* Values to frames, appended to a byte queue: usually a connection's own output queue.
 *
 * The length word is written back by wire_end. Between begin and end nothing may be consumed from
 * the queue. Nothing fails: what is encoded is ours or came out of frames that the reader bounded;
 * a message beyond 2^31-1 bytes is a bug and stops the process.
 */
#ifndef PGTRICKLE_PROTOCOL_WRITER_H
#define PGTRICKLE_PROTOCOL_WRITER_H

#include <stdint.h>

#include "base/bytequeue.h"
#include "base/str.h"

struct wire_mark {
    size_t at; /* of the length word, from the front of the queue */
};

/* The tag, and four bytes kept for the length. */
struct wire_mark wire_begin(struct bytequeue *out, char tag);
/* The same without a tag: startup packets. */
struct wire_mark wire_begin_untyped(struct bytequeue *out);
void wire_end(struct bytequeue *out, struct wire_mark m);

/* Only the header; body_len bytes follow by other ways. */
void wire_put_header(struct bytequeue *out, char tag, uint32_t body_len);

void wire_put_u8(struct bytequeue *out, uint8_t value);
void wire_put_u16(struct bytequeue *out, uint16_t value);
void wire_put_i16(struct bytequeue *out, int16_t value);
void wire_put_u32(struct bytequeue *out, uint32_t value);
void wire_put_i32(struct bytequeue *out, int32_t value);
void wire_put_i64(struct bytequeue *out, int64_t value);
/* The bytes and a NUL; from the first NUL inside on they are left out. */
void wire_put_cstr(struct bytequeue *out, struct str value);
void wire_put_str(struct bytequeue *out, struct str bytes);
/* Int32 length and the bytes; ptr NULL: -1, which is NULL. */
void wire_put_value(struct bytequeue *out, struct str value);

/* A message without a body. */
void wire_put_empty(struct bytequeue *out, char tag);

#endif
