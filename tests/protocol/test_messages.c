#include "tests/protocol/wire_test.h"

#include "protocol/copy.h"
#include "protocol/query_extended.h"
#include "protocol/query_simple.h"
#include "protocol/result.h"
#include "protocol/status.h"

/* No shorter body may be taken for the message. */
#define assert_needs_every_byte(body, decode, into)                                                \
    for (size_t n_ = 0; n_ < (body).len; n_++)                                                     \
    assert_false(decode((struct str){ (body).ptr, n_ }, into))

static void test_query(void **state)
{
    (void)state;
    struct bytequeue q = { 0 };
    struct str sql;
    wire_encode_query(&q, STR("select 'x'"));
    struct str body = only_body(&q, SENT_BY_FRONTEND, FE_QUERY);
    assert_true(wire_decode_query(body, &sql));
    assert_str(sql, "select 'x'");
    assert_needs_every_byte(body, wire_decode_query, &sql);
    assert_false(wire_decode_query((struct str){ "a\0b", 4 }, &sql));
    bytequeue_free(&q);
}

static void test_parse(void **state)
{
    (void)state;
    static const uint32_t types[] = { 23, 0, 4000000000u };
    struct bytequeue q = { 0 }, again = { 0 };
    struct msg_parse m;
    struct str name;
    wire_encode_parse(&q, STR("s1"), STR("select $1"), types, 3);
    struct str body = only_body(&q, SENT_BY_FRONTEND, FE_PARSE);
    assert_true(wire_decode_parse(body, &m));
    assert_str(m.statement, "s1");
    assert_str(m.query, "select $1");
    assert_int_equal(m.n_param_types, 3);
    for (uint16_t i = 0; i < 3; i++)
        assert_true(wire_parse_param_type(&m, i) == types[i]);
    assert_needs_every_byte(body, wire_decode_parse, &m);

    assert_true(wire_decode_parse(body, &m));
    wire_encode_parse_tail(&again, m.statement, m.tail);
    assert_bytes(bytequeue_str(&again), bytequeue_str(&q));

    assert_int_equal(wire_decode_parse_name(body, &name), WIRE_FRAME);
    assert_str(name, "s1");
    assert_int_equal(wire_decode_parse_name((struct str){ body.ptr, 2 }, &name), WIRE_NEED_MORE);
    bytequeue_free(&q);
    bytequeue_free(&again);
}

static void test_bind(void **state)
{
    (void)state;
    struct bytequeue q = { 0 }, again = { 0 };
    struct msg_bind m;
    struct msg_bind_names names;
    struct str values[] = { STR("one"), { NULL, 0 }, STR("") };
    bool is_null;
    wire_encode_bind_text(&q, STR("p"), STR("s1"), values, 3);
    struct str body = only_body(&q, SENT_BY_FRONTEND, FE_BIND);
    assert_true(wire_decode_bind(body, &m));
    assert_str(m.portal, "p");
    assert_str(m.statement, "s1");
    assert_int_equal(m.n_params, 3);
    assert_int_equal(wire_bind_param_format(&m, 2), 0);
    assert_int_equal(wire_bind_result_format(&m, 5), 0);
    struct wire_cursor c = wire_cursor(m.params);
    assert_str(wire_value(&c, &is_null), "one");
    wire_value(&c, &is_null);
    assert_true(is_null);
    assert_str(wire_value(&c, &is_null), "");
    assert_true(wire_at_end(&c));
    assert_needs_every_byte(body, wire_decode_bind, &m);

    assert_true(wire_decode_bind(body, &m));
    wire_encode_bind(&again, &m);
    assert_bytes(bytequeue_str(&again), bytequeue_str(&q));

    for (size_t n = 0; n <= body.len; n++)
        assert_int_equal(wire_decode_bind_names((struct str){ body.ptr, n }, &names),
                         n < 5 ? WIRE_NEED_MORE : WIRE_FRAME);
    assert_str(names.portal, "p");
    assert_str(names.statement, "s1");
    assert_int_equal(names.len, 5);
    bytequeue_free(&q);
    bytequeue_free(&again);
}

static void test_bind_formats_are_none_one_or_each(void **state)
{
    (void)state;
    struct msg_bind m;
    struct str one = { "\0\0\0\x01\0\x01\0\x02\0\0\0\x01x\xff\xff\xff\xff\0\x02\0\x01\0\0", 23 };
    assert_true(wire_decode_bind(one, &m));
    assert_int_equal(wire_bind_param_format(&m, 0), 1);
    assert_int_equal(wire_bind_param_format(&m, 1), 1);
    assert_int_equal(wire_bind_result_format(&m, 0), 1);
    assert_int_equal(wire_bind_result_format(&m, 1), 0);

    struct str two_for_one = { "\0\0\0\x02\0\x01\0\x01\0\x01\0\0\0\x01x\0\0", 17 };
    assert_false(wire_decode_bind(two_for_one, &m));
    struct str length_minus_two = { "\0\0\0\0\0\x01\xff\xff\xff\xfe\0\0", 12 };
    assert_false(wire_decode_bind(length_minus_two, &m));
    struct str count_lies = { "\0\0\0\0\xff\xff\0\0", 8 };
    assert_false(wire_decode_bind(count_lies, &m));
}

static void test_describe_and_close(void **state)
{
    (void)state;
    struct bytequeue q = { 0 };
    struct msg_target m;
    wire_encode_describe(&q, TARGET_PORTAL, STR("c1"));
    struct str body = only_body(&q, SENT_BY_FRONTEND, FE_DESCRIBE);
    assert_true(wire_decode_target(body, &m));
    assert_int_equal(m.target, TARGET_PORTAL);
    assert_str(m.name, "c1");
    assert_needs_every_byte(body, wire_decode_target, &m);
    bytequeue_consume(&q, bytequeue_len(&q));

    wire_encode_close(&q, TARGET_STATEMENT, STR(""));
    assert_true(wire_decode_target(only_body(&q, SENT_BY_FRONTEND, FE_CLOSE), &m));
    assert_int_equal(m.target, TARGET_STATEMENT);
    assert_str(m.name, "");
    bytequeue_free(&q);

    assert_false(wire_decode_target((struct str){ "X", 2 }, &m));
    assert_false(wire_decode_target((struct str){ "Sa\0b", 5 }, &m));
}

static void test_execute(void **state)
{
    (void)state;
    struct bytequeue q = { 0 };
    struct msg_execute m;
    wire_encode_execute(&q, STR("c1"), 100);
    struct str body = only_body(&q, SENT_BY_FRONTEND, FE_EXECUTE);
    assert_true(wire_decode_execute(body, &m));
    assert_str(m.portal, "c1");
    assert_int_equal(m.max_rows, 100);
    assert_needs_every_byte(body, wire_decode_execute, &m);
    bytequeue_free(&q);
}

static void test_messages_without_body(void **state)
{
    (void)state;
    struct bytequeue q = { 0 };
    wire_encode_sync(&q);
    wire_encode_flush(&q);
    wire_encode_terminate(&q);
    wire_encode_copy_done(&q);
    assert_bytes(bytequeue_str(&q), ((struct str){ "S\0\0\0\x04H\0\0\0\x04X\0\0\0\x04"
                                                   "c\0\0\0\x04",
                                                   20 }));
    bytequeue_free(&q);
}

/* Renames the statement in what the queue holds, and back again. */
static void assert_renamed(const struct bytequeue *q, const char *to, const char *back,
                           const struct bytequeue *expected)
{
    struct bytequeue renamed = { 0 }, restored = { 0 };
    struct wire_piece piece = only_piece(q, SENT_BY_FRONTEND);
    assert_true(wire_rename_statement(&renamed, &piece, str_from(to)));
    assert_bytes(bytequeue_str(&renamed), bytequeue_str(expected));
    piece = only_piece(&renamed, SENT_BY_FRONTEND);
    assert_true(wire_rename_statement(&restored, &piece, str_from(back)));
    assert_bytes(bytequeue_str(&restored), bytequeue_str(q));
    bytequeue_free(&renamed);
    bytequeue_free(&restored);
}

static void test_statements_are_renamed(void **state)
{
    static const char *const names[] = { "", "s", "a_longer_name_than_before" };
    static const uint32_t types[] = { 23 };
    struct str values[] = { STR("one"), { NULL, 0 } };
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        for (size_t j = 0; j < 3; j++) {
            struct str from = str_from(names[i]), to = str_from(names[j]);
            struct bytequeue q[4] = { 0 }, expected[4] = { 0 };
            wire_encode_parse(&q[0], from, STR("select $1"), types, 1);
            wire_encode_parse(&expected[0], to, STR("select $1"), types, 1);
            wire_encode_bind_text(&q[1], STR("portal"), from, values, 2);
            wire_encode_bind_text(&expected[1], STR("portal"), to, values, 2);
            wire_encode_describe(&q[2], TARGET_STATEMENT, from);
            wire_encode_describe(&expected[2], TARGET_STATEMENT, to);
            wire_encode_close(&q[3], TARGET_STATEMENT, from);
            wire_encode_close(&expected[3], TARGET_STATEMENT, to);
            for (int k = 0; k < 4; k++) {
                assert_renamed(&q[k], names[j], names[i], &expected[k]);
                bytequeue_free(&q[k]);
                bytequeue_free(&expected[k]);
            }
        }
    }
}

static void test_renaming_needs_only_the_first_piece(void **state)
{
    (void)state;
    struct bytequeue q = { 0 }, renamed = { 0 }, expected = { 0 };
    char value[1000];
    memset(value, 'v', sizeof(value));
    struct str values[] = { { value, sizeof(value) } };
    wire_encode_bind_text(&q, STR(""), STR("old"), values, 1);
    wire_encode_bind_text(&expected, STR(""), STR("newer"), values, 1);
    struct str bytes = bytequeue_str(&q);

    struct wire_reader r;
    struct wire_piece p;
    wire_reader_init(&r, SENT_BY_FRONTEND, 64);
    assert_int_equal(wire_reader_next(&r, (struct str){ bytes.ptr, 100 }, &p), WIRE_FRAME);
    assert_true(wire_rename_statement(&renamed, &p, STR("newer")));
    struct str rest = { bytes.ptr + 100, bytes.len - 100 };
    assert_int_equal(wire_reader_next(&r, rest, &p), WIRE_FRAME);
    assert_false(wire_rename_statement(&renamed, &p, STR("newer"))); /* no name in here */
    bytequeue_put(&renamed, p.bytes.ptr, p.bytes.len);
    assert_bytes(bytequeue_str(&renamed), bytequeue_str(&expected));
    bytequeue_free(&q);
    bytequeue_free(&renamed);
    bytequeue_free(&expected);
}

static void test_what_has_no_statement_name_is_not_renamed(void **state)
{
    (void)state;
    struct bytequeue q = { 0 }, out = { 0 };
    struct wire_piece p;
    wire_encode_describe(&q, TARGET_PORTAL, STR("c"));
    p = only_piece(&q, SENT_BY_FRONTEND);
    assert_false(wire_rename_statement(&out, &p, STR("x")));
    bytequeue_consume(&q, bytequeue_len(&q));
    wire_encode_query(&q, STR("select 1"));
    p = only_piece(&q, SENT_BY_FRONTEND);
    assert_false(wire_rename_statement(&out, &p, STR("x")));
    bytequeue_consume(&q, bytequeue_len(&q));

    /* a Bind whose names don't end */
    struct wire_mark m = wire_begin(&q, FE_BIND);
    wire_put_str(&q, STR("12345678"));
    wire_end(&q, m);
    p = only_piece(&q, SENT_BY_FRONTEND);
    assert_false(wire_rename_statement(&out, &p, STR("x")));
    bytequeue_consume(&q, bytequeue_len(&q));

    /* a Parse that is nothing but a name, and would become shorter than any Parse */
    m = wire_begin(&q, FE_PARSE);
    wire_put_cstr(&q, STR("name"));
    wire_end(&q, m);
    p = only_piece(&q, SENT_BY_FRONTEND);
    assert_false(wire_rename_statement(&out, &p, STR("")));
    bytequeue_consume(&q, bytequeue_len(&q));

    /* a Close that would become longer than a server takes */
    char name[29000];
    memset(name, 'n', sizeof(name));
    wire_encode_close(&q, TARGET_STATEMENT, STR("s"));
    p = only_piece(&q, SENT_BY_FRONTEND);
    assert_true(wire_rename_statement(&out, &p, (struct str){ name, sizeof(name) }));
    bytequeue_consume(&out, bytequeue_len(&out));
    char longer[30000];
    memset(longer, 'n', sizeof(longer));
    assert_false(wire_rename_statement(&out, &p, (struct str){ longer, sizeof(longer) }));
    assert_int_equal(bytequeue_len(&out), 0);
    bytequeue_free(&q);
    bytequeue_free(&out);
}

static void test_param_description(void **state)
{
    (void)state;
    static const uint32_t oids[] = { 25, 4000000000u };
    struct bytequeue q = { 0 };
    struct msg_param_description m;
    wire_encode_param_description(&q, oids, 2);
    struct str body = only_body(&q, SENT_BY_BACKEND, BE_PARAMETER_DESCRIPTION);
    assert_true(wire_decode_param_description(body, &m));
    assert_int_equal(m.n, 2);
    assert_true(wire_param_description_oid(&m, 0) == oids[0]);
    assert_true(wire_param_description_oid(&m, 1) == oids[1]);
    assert_needs_every_byte(body, wire_decode_param_description, &m);
    bytequeue_free(&q);
}

static void test_copy(void **state)
{
    (void)state;
    struct bytequeue q = { 0 };
    struct msg_copy_response m;
    struct str reason;
    wire_encode_copy_response(&q, BE_COPY_IN_RESPONSE, true, 3);
    struct str body = only_body(&q, SENT_BY_BACKEND, BE_COPY_IN_RESPONSE);
    assert_true(wire_decode_copy_response(body, &m));
    assert_true(m.is_binary);
    assert_int_equal(m.n_columns, 3);
    assert_bytes(m.formats, ((struct str){ "\0\x01\0\x01\0\x01", 6 }));
    assert_needs_every_byte(body, wire_decode_copy_response, &m);
    assert_false(wire_decode_copy_response((struct str){ "\x02\0\0", 3 }, &m));
    bytequeue_consume(&q, bytequeue_len(&q));

    wire_encode_copy_data(&q, STR("1\tx\n"));
    assert_str(only_body(&q, SENT_BY_FRONTEND, FE_COPY_DATA), "1\tx\n");
    assert_str(only_body(&q, SENT_BY_BACKEND, BE_COPY_DATA), "1\tx\n");
    bytequeue_consume(&q, bytequeue_len(&q));

    wire_encode_copy_fail(&q, STR("no more"));
    body = only_body(&q, SENT_BY_FRONTEND, FE_COPY_FAIL);
    assert_true(wire_decode_copy_fail(body, &reason));
    assert_str(reason, "no more");
    assert_needs_every_byte(body, wire_decode_copy_fail, &reason);
    bytequeue_free(&q);
}

static void test_row_description(void **state)
{
    (void)state;
    static const struct row_column columns[] = {
        { .name = { "id", 2 },
          .table_oid = 16384,
          .column_number = 1,
          .type_oid = TYPE_OID_INT8,
          .type_len = 8,
          .type_modifier = -1,
          .format = 1 },
        { .name = { "", 0 }, .type_oid = 4000000000u, .type_len = -2, .type_modifier = 12 },
    };
    struct bytequeue q = { 0 };
    struct wire_cursor c;
    struct row_column got;
    uint16_t n;
    wire_encode_row_description(&q, columns, 2);
    struct str body = only_body(&q, SENT_BY_BACKEND, BE_ROW_DESCRIPTION);
    assert_true(wire_decode_row_description(body, &n, &c));
    assert_int_equal(n, 2);
    for (int i = 0; i < 2; i++) {
        wire_next_row_column(&c, &got);
        assert_bytes(got.name, columns[i].name);
        assert_true(got.table_oid == columns[i].table_oid);
        assert_int_equal(got.column_number, columns[i].column_number);
        assert_true(got.type_oid == columns[i].type_oid);
        assert_int_equal(got.type_len, columns[i].type_len);
        assert_int_equal(got.type_modifier, columns[i].type_modifier);
        assert_int_equal(got.format, columns[i].format);
    }
    assert_true(wire_at_end(&c));
    wire_next_row_column(&c, &got); /* one too many */
    assert_false(wire_ok(&c));
    assert_false(wire_decode_row_description(STR("\x01"), &n, &c));
    bytequeue_free(&q);
}

static void test_text_rows(void **state)
{
    (void)state;
    static const char *const names[] = { "name", "value" };
    struct str values[] = { STR("x"), { NULL, 0 } };
    struct bytequeue q = { 0 };
    struct wire_cursor c;
    struct row_column column;
    uint16_t n;
    bool is_null;
    wire_encode_text_columns(&q, names, 2);
    assert_true(
        wire_decode_row_description(only_body(&q, SENT_BY_BACKEND, BE_ROW_DESCRIPTION), &n, &c));
    for (int i = 0; i < 2; i++) {
        wire_next_row_column(&c, &column);
        assert_str(column.name, names[i]);
        assert_int_equal(column.type_oid, TYPE_OID_TEXT);
        assert_int_equal(column.type_len, -1);
        assert_int_equal(column.type_modifier, -1);
    }
    assert_true(wire_at_end(&c));
    bytequeue_consume(&q, bytequeue_len(&q));

    wire_encode_data_row(&q, values, 2);
    assert_true(wire_decode_data_row(only_body(&q, SENT_BY_BACKEND, BE_DATA_ROW), &n, &c));
    assert_int_equal(n, 2);
    assert_str(wire_value(&c, &is_null), "x");
    assert_false(is_null);
    wire_value(&c, &is_null);
    assert_true(is_null);
    assert_true(wire_at_end(&c));
    assert_false(wire_decode_data_row(STR("\x01"), &n, &c));
    bytequeue_free(&q);
}

static void test_command_complete(void **state)
{
    static const struct {
        const char *tag;
        bool has_rows;
        uint64_t rows;
    } cases[] = {
        { "INSERT 0 5", true, 5 }, { "SELECT 18446744073709551615", true, UINT64_MAX },
        { "COPY 0", true, 0 },     { "CREATE TABLE", false, 0 },
        { "BEGIN", false, 0 },     { "ODD ", false, 0 },
        { "ODD 1x", false, 0 },    { "", false, 0 },
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct bytequeue q = { 0 };
        struct msg_command_complete m;
        wire_encode_command_complete(&q, str_from(cases[i].tag));
        struct str body = only_body(&q, SENT_BY_BACKEND, BE_COMMAND_COMPLETE);
        assert_true(wire_decode_command_complete(body, &m));
        assert_str(m.tag, cases[i].tag);
        assert_int_equal(m.has_rows, cases[i].has_rows);
        assert_true(m.rows == cases[i].rows);
        assert_needs_every_byte(body, wire_decode_command_complete, &m);
        bytequeue_free(&q);
    }
}

static void test_ready(void **state)
{
    (void)state;
    static const enum wire_status all[] = { STATUS_IDLE, STATUS_IN_TRANSACTION, STATUS_FAILED };
    enum wire_status status;
    for (int i = 0; i < 3; i++) {
        struct bytequeue q = { 0 };
        wire_encode_ready(&q, all[i]);
        assert_true(wire_decode_ready(only_body(&q, SENT_BY_BACKEND, BE_READY_FOR_QUERY), &status));
        assert_int_equal(status, all[i]);
        bytequeue_free(&q);
    }
    assert_false(wire_decode_ready(STR("X"), &status));
    assert_false(wire_decode_ready(STR(""), &status));
    assert_false(wire_decode_ready(STR("II"), &status));
}

static void test_parameter_status(void **state)
{
    (void)state;
    struct bytequeue q = { 0 };
    struct str pair[2];
    wire_encode_parameter_status(&q, STR("TimeZone"), STR("Europe/Berlin"));
    struct str body = only_body(&q, SENT_BY_BACKEND, BE_PARAMETER_STATUS);
    assert_true(wire_decode_parameter_status(body, &pair[0], &pair[1]));
    assert_str(pair[0], "TimeZone");
    assert_str(pair[1], "Europe/Berlin");
    for (size_t n = 0; n < body.len; n++)
        assert_false(wire_decode_parameter_status((struct str){ body.ptr, n }, &pair[0], &pair[1]));
    bytequeue_free(&q);
}

static void test_backend_key(void **state)
{
    (void)state;
    char bytes[256];
    memset(bytes, 'k', sizeof(bytes));
    static const size_t lengths[] = { 4, 32, 256 };
    int32_t pid;
    struct str key;
    for (int i = 0; i < 3; i++) {
        struct bytequeue q = { 0 };
        wire_encode_backend_key(&q, 4711, (struct str){ bytes, lengths[i] });
        assert_true(wire_decode_backend_key(only_body(&q, SENT_BY_BACKEND, BE_BACKEND_KEY_DATA),
                                            &pid, &key));
        assert_int_equal(pid, 4711);
        assert_int_equal(key.len, lengths[i]);
        bytequeue_free(&q);
    }
    assert_false(wire_decode_backend_key(STR("1234567"), &pid, &key));
}

static void test_notification(void **state)
{
    (void)state;
    struct bytequeue q = { 0 };
    int32_t pid;
    struct str channel, payload;
    wire_encode_notification(&q, 12, STR("jobs"), STR(""));
    struct str body = only_body(&q, SENT_BY_BACKEND, BE_NOTIFICATION);
    assert_true(wire_decode_notification(body, &pid, &channel, &payload));
    assert_int_equal(pid, 12);
    assert_str(channel, "jobs");
    assert_str(payload, "");
    assert_false(
        wire_decode_notification((struct str){ body.ptr, body.len - 1 }, &pid, &channel, &payload));
    bytequeue_free(&q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_query),
        cmocka_unit_test(test_parse),
        cmocka_unit_test(test_bind),
        cmocka_unit_test(test_bind_formats_are_none_one_or_each),
        cmocka_unit_test(test_describe_and_close),
        cmocka_unit_test(test_execute),
        cmocka_unit_test(test_messages_without_body),
        cmocka_unit_test(test_statements_are_renamed),
        cmocka_unit_test(test_renaming_needs_only_the_first_piece),
        cmocka_unit_test(test_what_has_no_statement_name_is_not_renamed),
        cmocka_unit_test(test_param_description),
        cmocka_unit_test(test_copy),
        cmocka_unit_test(test_row_description),
        cmocka_unit_test(test_text_rows),
        cmocka_unit_test(test_command_complete),
        cmocka_unit_test(test_ready),
        cmocka_unit_test(test_parameter_status),
        cmocka_unit_test(test_backend_key),
        cmocka_unit_test(test_notification),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
