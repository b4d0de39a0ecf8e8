#include "tests/protocol/wire_test.h"

#include "base/text.h"
#include "protocol/query_extended.h"
#include "protocol/query_simple.h"
#include "protocol/writer.h"

/* A conversation of a frontend: short, empty and long messages. */
static void put_conversation(struct bytequeue *q)
{
    char long_sql[300];
    memset(long_sql, 'x', sizeof(long_sql));
    struct str values[] = { STR("one"), { NULL, 0 }, STR("") };
    wire_encode_query(q, STR("select 1"));
    wire_encode_sync(q);
    wire_encode_parse(q, STR("s1"), (struct str){ long_sql, sizeof(long_sql) }, NULL, 0);
    wire_encode_bind_text(q, STR(""), STR("s1"), values, 3);
    wire_encode_describe(q, TARGET_PORTAL, STR(""));
    wire_encode_execute(q, STR(""), 10);
    wire_encode_flush(q);
    wire_encode_query(q, STR(""));
    wire_encode_terminate(q);
}

/* What a reader makes of bytes that arrive in two parts: tags and bodies, message by message.
 * Pieces of one message are joined, for where they end depends on the cut. */
static void read_in_two(struct str bytes, size_t cut, uint32_t whole_max, struct text *seen)
{
    struct wire_reader r;
    struct wire_piece p;
    size_t at = 0;
    wire_reader_init(&r, SENT_BY_FRONTEND, whole_max);
    for (int part = 0; part < 2; part++) {
        size_t arrived = part == 0 ? cut : bytes.len;
        while (wire_reader_next(&r, (struct str){ bytes.ptr + at, arrived - at }, &p) ==
               WIRE_FRAME) {
            if (p.starts)
                text_printf(seen, "[%c %u ", p.tag, p.body_len);
            text_put_str(seen, p.body);
            if (p.ends)
                text_put(seen, "]");
            at += p.bytes.len;
        }
    }
    assert_int_equal(at, bytes.len);
    assert_true(wire_reader_is_between(&r));
}

static void test_cut_at_every_byte_gives_equal_messages(void **state)
{
    (void)state;
    static const uint32_t whole_max[] = { 5, 6, 16, 100, 1 << 20 };
    struct bytequeue q = { 0 };
    put_conversation(&q);
    struct str bytes = bytequeue_str(&q);
    struct text whole;
    text_init(&whole);
    read_in_two(bytes, bytes.len, 1 << 20, &whole);
    assert_true(str_starts_with(text_str(&whole), STR("[Q 9 select 1")));

    for (size_t m = 0; m < sizeof(whole_max) / sizeof(whole_max[0]); m++) {
        for (size_t cut = 0; cut <= bytes.len; cut++) {
            struct text seen;
            text_init(&seen);
            read_in_two(bytes, cut, whole_max[m], &seen);
            assert_bytes(text_str(&seen), text_str(&whole));
            text_free(&seen);
        }
    }
    text_free(&whole);
    bytequeue_free(&q);
}

static void test_byte_by_byte_streams_a_long_message_and_waits_for_a_short_one(void **state)
{
    (void)state;
    struct bytequeue q = { 0 };
    put_conversation(&q);
    struct str bytes = bytequeue_str(&q);
    struct wire_reader r;
    struct wire_piece p;
    size_t at = 0, pieces = 0, messages = 0;
    wire_reader_init(&r, SENT_BY_FRONTEND, 32);
    for (size_t arrived = 1; arrived <= bytes.len; arrived++) {
        while (wire_reader_next(&r, (struct str){ bytes.ptr + at, arrived - at }, &p) ==
               WIRE_FRAME) {
            at += p.bytes.len;
            pieces++;
            messages += p.ends;
            if (p.starts && !p.ends)
                assert_int_equal(p.bytes.len, 32); /* enough to see the names */
            assert_int_equal(p.bytes.len - p.body.len, p.starts ? WIRE_HEADER_LEN : 0);
        }
    }
    assert_int_equal(messages, 9);
    /* only the Parse is longer than 32 bytes: tag, length, "s1", 300 bytes, NUL, count; its first
     * piece has 32 of them, and each other byte is a piece */
    assert_int_equal(pieces, 8 + 1 + (5 + 3 + 301 + 2 - 32));
    bytequeue_free(&q);
}

static void test_frame_needs_every_byte(void **state)
{
    (void)state;
    struct bytequeue q = { 0 };
    struct wire_frame f;
    struct wire_header h;
    wire_encode_query(&q, STR("select 1"));
    struct str bytes = bytequeue_str(&q);
    for (size_t n = 0; n < bytes.len; n++) {
        struct str part = { bytes.ptr, n };
        assert_int_equal(wire_next_frame(SENT_BY_FRONTEND, part, &f), WIRE_NEED_MORE);
        assert_int_equal(wire_peek_header(SENT_BY_FRONTEND, part, &h),
                         n < WIRE_HEADER_LEN ? WIRE_NEED_MORE : WIRE_FRAME);
    }
    assert_int_equal(wire_next_frame(SENT_BY_FRONTEND, bytes, &f), WIRE_FRAME);
    assert_bytes(f.bytes, bytes);
    assert_bytes(f.body, ((struct str){ "select 1", 9 }));
    bytequeue_free(&q);
}

struct bad_header {
    const char *why;
    enum wire_sender sender;
    char tag;
    uint32_t len;
};

static void test_bad_header_is_malformed(void **state)
{
    static const struct bad_header cases[] = {
        { "unknown tag", SENT_BY_FRONTEND, 'y', 4 },
        { "a backend's tag", SENT_BY_FRONTEND, 'Z', 5 },
        { "a frontend's tag", SENT_BY_BACKEND, 'Q', 5 },
        { "length 0", SENT_BY_FRONTEND, 'Q', 0 },
        { "length 3", SENT_BY_FRONTEND, 'S', 3 },
        { "negative length", SENT_BY_FRONTEND, 'Q', 0xffffffff },
        { "Query without its NUL", SENT_BY_FRONTEND, 'Q', 4 },
        { "more than a server takes", SENT_BY_FRONTEND, 'Q', 0x40000003 },
        { "a long Execute", SENT_BY_FRONTEND, 'E', 30005 },
        { "a long ReadyForQuery", SENT_BY_BACKEND, 'Z', 6 },
        { "a short ReadyForQuery", SENT_BY_BACKEND, 'Z', 4 },
        { "a long cancel key", SENT_BY_BACKEND, 'K', 265 },
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct bytequeue q = { 0 };
        struct wire_header h;
        struct wire_reader r;
        struct wire_piece p;
        wire_put_header(&q, cases[i].tag, cases[i].len - 4);
        if (wire_peek_header(cases[i].sender, bytequeue_str(&q), &h) != WIRE_MALFORMED)
            fail_msg("accepted: %s", cases[i].why);
        wire_reader_init(&r, cases[i].sender, 100);
        assert_int_equal(wire_reader_next(&r, bytequeue_str(&q), &p), WIRE_MALFORMED);
        bytequeue_free(&q);
    }
}

static void test_unknown_tag_is_malformed_at_its_first_byte(void **state)
{
    (void)state;
    struct wire_header h;
    assert_int_equal(wire_peek_header(SENT_BY_FRONTEND, STR("G"), &h), WIRE_MALFORMED);
    assert_int_equal(wire_peek_header(SENT_BY_BACKEND, STR("G"), &h), WIRE_NEED_MORE);
    assert_int_equal(wire_peek_header(SENT_BY_BACKEND, STR(""), &h), WIRE_NEED_MORE);
}

static void test_each_table_row_is_found_by_its_tag(void **state)
{
    (void)state;
#define ROW(tag, name, text, min, max)                                                             \
    assert_string_equal(wire_message_name(sender, tag), text);                                     \
    assert_int_equal(wire_message_type(sender, tag)->body_min, min);                               \
    assert_int_equal(wire_message_type(sender, tag)->body_max, max);
    enum wire_sender sender = SENT_BY_FRONTEND;
    WIRE_FRONTEND_MESSAGES(ROW)
    sender = SENT_BY_BACKEND;
    WIRE_BACKEND_MESSAGES(ROW)
#undef ROW
    assert_string_equal(wire_message_name(sender, '\x80'), "unknown");
}

static void test_cursor_reads_big_endian(void **state)
{
    (void)state;
    struct wire_cursor c = wire_cursor((struct str){ "\x01\x80\x02\xff\xff\xff\xfe\x80\0\0\x01"
                                                     "\xff\xff\xff\xff\xff\xff\xff\xfe"
                                                     "ab\0xy",
                                                     24 });
    assert_int_equal(wire_u8(&c), 1);
    assert_int_equal(wire_u16(&c), 0x8002);
    assert_int_equal(wire_i32(&c), -2);
    assert_true(wire_u32(&c) == 0x80000001u);
    assert_true(wire_i64(&c) == -2);
    assert_str(wire_cstr(&c), "ab");
    assert_false(wire_at_end(&c));
    assert_int_equal(wire_left(&c), 2);
    assert_str(wire_rest(&c), "xy");
    assert_true(wire_at_end(&c));
}

static void test_failed_cursor_stays_failed(void **state)
{
    (void)state;
    struct wire_cursor c = wire_cursor(STR("\x01\x02\x03"));
    assert_int_equal(wire_u32(&c), 0);
    assert_false(wire_ok(&c));
    assert_int_equal(wire_u8(&c), 0); /* although a byte is there */
    assert_non_null(wire_cstr(&c).ptr);
    assert_int_equal(wire_left(&c), 0);
    assert_int_equal(wire_rest(&c).len, 0);
    assert_false(wire_at_end(&c));

    c = wire_cursor(STR("no end"));
    assert_int_equal(wire_cstr(&c).len, 0);
    assert_false(wire_ok(&c));

    c = wire_cursor(STR(""));
    assert_true(wire_at_end(&c));
    wire_fail(&c);
    assert_false(wire_at_end(&c));
}

static void test_value_tells_null_empty_and_broken(void **state)
{
    (void)state;
    bool is_null;
    struct bytequeue q = { 0 };
    wire_put_value(&q, STR("abc"));
    wire_put_value(&q, STR(""));
    wire_put_value(&q, (struct str){ NULL, 0 });
    struct wire_cursor c = wire_cursor(bytequeue_str(&q));
    assert_str(wire_value(&c, &is_null), "abc");
    assert_false(is_null);
    assert_str(wire_value(&c, &is_null), "");
    assert_false(is_null);
    assert_str(wire_value(&c, &is_null), "");
    assert_true(is_null);
    assert_true(wire_at_end(&c));
    bytequeue_free(&q);

    c = wire_cursor((struct str){ "\xff\xff\xff\xfe", 4 });
    wire_value(&c, &is_null);
    assert_false(wire_ok(&c));
    c = wire_cursor((struct str){ "\0\0\0\x02x", 5 });
    wire_value(&c, &is_null);
    assert_false(wire_ok(&c));
}

static void test_integers_round_trip(void **state)
{
    static const int64_t values[] = { 0, 1, -1, INT64_MIN, INT64_MAX, 0x0102030405060708 };
    (void)state;
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        struct bytequeue q = { 0 };
        wire_put_i64(&q, values[i]);
        wire_put_i16(&q, (int16_t)values[i]);
        struct wire_cursor c = wire_cursor(bytequeue_str(&q));
        assert_true(wire_i64(&c) == values[i]);
        assert_true(wire_i16(&c) == (int16_t)values[i]);
        assert_true(wire_at_end(&c));
        bytequeue_free(&q);
    }
}

static void test_lengths_are_written_back_when_the_queue_moves(void **state)
{
    (void)state;
    struct bytequeue q = { 0 };
    struct wire_frame f;
    char filler[5000];
    memset(filler, 'f', sizeof(filler));
    bytequeue_put(&q, filler, 400);
    bytequeue_consume(&q, 399); /* the front is not the beginning of the memory */
    struct wire_mark m = wire_begin(&q, FE_COPY_DATA);
    wire_put_str(&q, (struct str){ filler, sizeof(filler) });
    wire_end(&q, m);
    bytequeue_consume(&q, 1);
    assert_int_equal(wire_next_frame(SENT_BY_FRONTEND, bytequeue_str(&q), &f), WIRE_FRAME);
    assert_int_equal(f.body.len, sizeof(filler));
    bytequeue_free(&q);
}

static void test_cstr_ends_at_an_inner_nul(void **state)
{
    (void)state;
    struct bytequeue q = { 0 };
    wire_put_cstr(&q, (struct str){ "ab\0cd", 5 });
    assert_bytes(bytequeue_str(&q), ((struct str){ "ab", 3 }));
    bytequeue_free(&q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cut_at_every_byte_gives_equal_messages),
        cmocka_unit_test(test_byte_by_byte_streams_a_long_message_and_waits_for_a_short_one),
        cmocka_unit_test(test_frame_needs_every_byte),
        cmocka_unit_test(test_bad_header_is_malformed),
        cmocka_unit_test(test_unknown_tag_is_malformed_at_its_first_byte),
        cmocka_unit_test(test_each_table_row_is_found_by_its_tag),
        cmocka_unit_test(test_cursor_reads_big_endian),
        cmocka_unit_test(test_failed_cursor_stays_failed),
        cmocka_unit_test(test_value_tells_null_empty_and_broken),
        cmocka_unit_test(test_integers_round_trip),
        cmocka_unit_test(test_lengths_are_written_back_when_the_queue_moves),
        cmocka_unit_test(test_cstr_ends_at_an_inner_nul),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
