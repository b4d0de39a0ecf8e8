/* What the fuzz targets of the wire library share. */
#ifndef PGTRICKLE_TESTS_FUZZ_FUZZ_WIRE_H
#define PGTRICKLE_TESTS_FUZZ_FUZZ_WIRE_H

#include <stdint.h>
#include <stdlib.h>

#include "base/bytequeue.h"
#include "base/str.h"
#include "protocol/reader.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

/* Stops the fuzzer, in every build. */
#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

/* The one message in the queue has this body. */
static inline void must_hold(const struct bytequeue *q, enum wire_sender sender, struct str body)
{
    struct wire_frame f;
    MUST(wire_next_frame(sender, bytequeue_str(q), &f) == WIRE_FRAME);
    MUST(f.bytes.len == bytequeue_len(q));
    MUST(str_equal(f.body, body));
}

/* Frames a stream in one go, and again in steps of `step` bytes with a small whole_max: the same
 * messages must come out, and the reader must give every byte exactly once. Calls `visit` with each
 * whole message. */
static inline void fuzz_stream(enum wire_sender sender, struct str bytes, size_t step,
                               void (*visit)(const struct wire_frame *f))
{
    struct wire_frame f;
    size_t at = 0, messages = 0;
    enum wire_result end;
    while ((end = wire_next_frame(sender, (struct str){ bytes.ptr + at, bytes.len - at }, &f)) ==
           WIRE_FRAME) {
        MUST(f.bytes.len == f.body.len + WIRE_HEADER_LEN);
        visit(&f);
        at += f.bytes.len;
        messages++;
    }

    struct wire_reader r;
    struct wire_piece p;
    size_t taken = 0, ended = 0;
    enum wire_result result = WIRE_NEED_MORE;
    wire_reader_init(&r, sender, 16);
    for (size_t arrived = 0; arrived < bytes.len && result != WIRE_MALFORMED;) {
        arrived += step < bytes.len - arrived ? step : bytes.len - arrived;
        while ((result = wire_reader_next(&r, (struct str){ bytes.ptr + taken, arrived - taken },
                                          &p)) == WIRE_FRAME) {
            MUST(p.bytes.ptr == bytes.ptr + taken && p.bytes.len > 0);
            MUST(p.ends == (p.body_left == 0) && p.body.len + p.body_left <= p.body_len);
            taken += p.bytes.len;
            ended += p.ends;
        }
    }
    MUST(ended == messages);
    MUST((result == WIRE_MALFORMED) == (end == WIRE_MALFORMED));
}

#endif
