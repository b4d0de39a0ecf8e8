/* What the tests of the wire library share: slices in asserts, one message out of a queue. */
#ifndef PGTRICKLE_TESTS_PROTOCOL_WIRE_TEST_H
#define PGTRICKLE_TESTS_PROTOCOL_WIRE_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/bytequeue.h"
#include "base/str.h"
#include "protocol/reader.h"

#define assert_str(actual, expected) assert_slices(actual, str_from(expected), __FILE__, __LINE__)
#define assert_bytes(actual, expected) assert_slices(actual, expected, __FILE__, __LINE__)

static inline void assert_slices(struct str actual, struct str expected, const char *file, int line)
{
    if (str_equal(actual, expected))
        return;
    print_error("\"" STR_FMT "\" (%zu bytes) is not \"" STR_FMT "\" (%zu bytes)\n", STR_ARG(actual),
                actual.len, STR_ARG(expected), expected.len);
    _fail(file, line);
}

/* The body of the one message that the queue holds. */
static inline struct str only_body(const struct bytequeue *q, enum wire_sender sender, char tag)
{
    struct wire_frame f;
    assert_int_equal(wire_next_frame(sender, bytequeue_str(q), &f), WIRE_FRAME);
    assert_int_equal(f.tag, tag);
    assert_int_equal(f.bytes.len, bytequeue_len(q));
    return f.body;
}

/* The whole queue as one piece. */
static inline struct wire_piece only_piece(const struct bytequeue *q, enum wire_sender sender)
{
    struct wire_reader r;
    struct wire_piece p;
    wire_reader_init(&r, sender, 1 << 20);
    assert_int_equal(wire_reader_next(&r, bytequeue_str(q), &p), WIRE_FRAME);
    assert_true(p.starts && p.ends);
    assert_int_equal(p.bytes.len, bytequeue_len(q));
    return p;
}

#endif
