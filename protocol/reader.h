/* Bytes to frames, frames to values.
 *
 * Framing (manual: "Message Flow", "Message Formats"): a tag, a length that counts itself, a body.
 * Nothing here owns or copies bytes: what comes out is borrowed from what went in, and the caller
 * releases those bytes when it is done. "Not yet" is a result, not an error. No state but a
 * struct wire_reader, and only for bodies that are streamed.
 *
 * Not here: the untyped packets that start a connection (protocol/startup.h).
 */
#ifndef PGTRICKLE_PROTOCOL_READER_H
#define PGTRICKLE_PROTOCOL_READER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"
#include "protocol/message_types.h"

enum wire_result {
    WIRE_FRAME,
    WIRE_NEED_MORE,
    WIRE_MALFORMED, /* the stream can't be understood from here on: close it (08P01) */
};

#define WIRE_HEADER_LEN 5

struct wire_header {
    char tag;
    uint32_t body_len; /* without tag and length */
};

/* Whole messages. */
struct wire_frame {
    char tag;
    struct str bytes; /* header and body: what to forward */
    struct str body;
};

/* The header at the front of `bytes`: needs WIRE_HEADER_LEN of them. Malformed: the sender has no
 * such message, or its length is out of the message's bounds. */
enum wire_result wire_peek_header(enum wire_sender sender, struct str bytes, struct wire_header *h);

/* The message at the front of `bytes`, when all of it is there. */
enum wire_result wire_next_frame(enum wire_sender sender, struct str bytes, struct wire_frame *f);

/* A part of a message. A message that fits is one piece that both starts and ends. A longer one
 * comes as pieces of whatever has arrived; its first piece holds at least whole_max bytes, so that
 * names and the beginning of texts can be seen and rewritten there. */
struct wire_piece {
    char tag;
    bool starts;
    bool ends;
    uint32_t body_len;  /* of the whole message, in every piece */
    uint32_t body_left; /* what comes after this piece */
    struct str bytes;   /* what to forward; with the header when it starts */
    struct str body;    /* the same without the header */
};

struct wire_reader {
    enum wire_sender sender;
    uint32_t whole_max; /* messages of up to so many bytes, header included, come whole */
    /* of the message that is being streamed: */
    char tag;
    uint32_t body_len;
    uint32_t body_left; /* 0: between messages */
};

/* whole_max is at least WIRE_HEADER_LEN. */
void wire_reader_init(struct wire_reader *r, enum wire_sender sender, uint32_t whole_max);

/* The next piece at the front of `bytes`. After WIRE_FRAME the piece is taken: call again with the
 * p->bytes.len bytes behind it. */
enum wire_result wire_reader_next(struct wire_reader *r, struct str bytes, struct wire_piece *p);

/* The same for a caller that has peeked at the header, between messages: h is of what `bytes`
 * starts with. */
enum wire_result wire_reader_take(struct wire_reader *r, const struct wire_header *h,
                                  struct str bytes, struct wire_piece *p);

/* No message is half read. (One of which only the beginning has arrived, and which would come
 * whole, does not count: its bytes are still the caller's.) */
static inline bool wire_reader_is_between(const struct wire_reader *r)
{
    return r->body_left == 0;
}

/* Decoding a body. A read past the end, or a string without its NUL, fails the cursor; from then on
 * it answers zeroes and empty slices (never a NULL ptr), so: do the sequence, ask once. */
struct wire_cursor {
    const char *at;
    const char *end;
    bool failed;
};

struct wire_cursor wire_cursor(struct str body);
uint8_t wire_u8(struct wire_cursor *c);
uint16_t wire_u16(struct wire_cursor *c);
int16_t wire_i16(struct wire_cursor *c);
uint32_t wire_u32(struct wire_cursor *c);
int32_t wire_i32(struct wire_cursor *c);
int64_t wire_i64(struct wire_cursor *c);
struct str wire_cstr(struct wire_cursor *c); /* without its NUL, which does follow at ptr[len] */
struct str wire_bytes(struct wire_cursor *c, size_t n);
struct str wire_rest(struct wire_cursor *c);
/* Int32 length, then so many bytes; -1 is NULL: *is_null, and an empty slice. */
struct str wire_value(struct wire_cursor *c, bool *is_null);
size_t wire_left(const struct wire_cursor *c);
void wire_fail(struct wire_cursor *c);

static inline bool wire_ok(const struct wire_cursor *c)
{
    return !c->failed;
}

/* False when truncated, or when bytes are left over. */
static inline bool wire_at_end(const struct wire_cursor *c)
{
    return !c->failed && c->at == c->end;
}

#endif
