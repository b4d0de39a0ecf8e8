#include "tests/protocol/wire_test.h"

#include "protocol/notice.h"

/* Every field there is, in the order of the server. */
#define ALL_FIELDS                                                                                 \
    "SFEHLER\0VERROR\0C23505\0Mduplicate key\0Dthe detail\0Hthe hint\0P17\0p4\0qselect 1\0"        \
    "WPL/pgSQL function f()\0spublic\0tt\0cc\0dtype\0nt_pkey\0Fnbtinsert.c\0L666\0R_bt\0"

/* The literal's own NUL is the message's terminator. */
#define BODY(fields) fields, sizeof(fields)

static const struct str all_fields = { BODY(ALL_FIELDS) };

static void test_each_field_is_found(void **state)
{
    static const struct {
        enum notice_field field;
        const char *value;
    } cases[] = {
        { NOTICE_SEVERITY, "FEHLER" },
        { NOTICE_SEVERITY_PLAIN, "ERROR" },
        { NOTICE_SQLSTATE, "23505" },
        { NOTICE_MESSAGE, "duplicate key" },
        { NOTICE_DETAIL, "the detail" },
        { NOTICE_HINT, "the hint" },
        { NOTICE_POSITION, "17" },
        { NOTICE_INTERNAL_POSITION, "4" },
        { NOTICE_INTERNAL_QUERY, "select 1" },
        { NOTICE_WHERE, "PL/pgSQL function f()" },
        { NOTICE_SCHEMA, "public" },
        { NOTICE_TABLE, "t" },
        { NOTICE_COLUMN, "c" },
        { NOTICE_DATA_TYPE, "type" },
        { NOTICE_CONSTRAINT, "t_pkey" },
        { NOTICE_FILE, "nbtinsert.c" },
        { NOTICE_LINE, "666" },
        { NOTICE_ROUTINE, "_bt" },
    };
    (void)state;
    assert_true(notice_is_valid(all_fields));
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_str(notice_get(all_fields, cases[i].field), cases[i].value);
    assert_true(notice_has_sqlstate(all_fields, "23505"));
    assert_false(notice_has_sqlstate(all_fields, "23506"));
    assert_null(notice_get((struct str){ BODY("") }, NOTICE_MESSAGE).ptr);
    assert_false(notice_has_sqlstate((struct str){ BODY("") }, "00000"));
}

static void test_rewriting_a_field_with_its_value_changes_nothing(void **state)
{
    (void)state;
    static const char fields[] = "SVCMDHPpqWstcdnFLR";
    for (size_t i = 0; i < sizeof(fields) - 1; i++) {
        struct bytequeue q = { 0 };
        enum notice_field field = (enum notice_field)fields[i];
        assert_true(
            notice_encode_with(&q, BE_ERROR, all_fields, field, notice_get(all_fields, field)));
        assert_bytes(only_body(&q, SENT_BY_BACKEND, BE_ERROR), all_fields);
        bytequeue_free(&q);
    }
}

static void test_one_field_is_replaced_removed_or_added(void **state)
{
    (void)state;
    struct str body = { BODY("SERROR\0P17\0Mtext\0") };
    struct bytequeue q = { 0 };
    assert_true(notice_encode_with(&q, BE_ERROR, body, NOTICE_POSITION, STR("1234")));
    assert_bytes(only_body(&q, SENT_BY_BACKEND, BE_ERROR),
                 ((struct str){ BODY("SERROR\0P1234\0Mtext\0") }));
    bytequeue_consume(&q, bytequeue_len(&q));

    assert_true(notice_encode_with(&q, BE_NOTICE, body, NOTICE_POSITION, (struct str){ NULL, 0 }));
    assert_bytes(only_body(&q, SENT_BY_BACKEND, BE_NOTICE),
                 ((struct str){ BODY("SERROR\0Mtext\0") }));
    bytequeue_consume(&q, bytequeue_len(&q));

    assert_true(notice_encode_with(&q, BE_ERROR, body, NOTICE_HINT, STR("")));
    assert_bytes(only_body(&q, SENT_BY_BACKEND, BE_ERROR),
                 ((struct str){ BODY("SERROR\0P17\0Mtext\0H\0") }));
    bytequeue_free(&q);
}

static void test_every_shorter_body_is_malformed(void **state)
{
    (void)state;
    struct bytequeue q = { 0 };
    struct err e = { 0 };
    for (size_t n = 0; n < all_fields.len; n++) {
        struct str part = { all_fields.ptr, n };
        assert_false(notice_is_valid(part));
        assert_false(notice_encode_with(&q, BE_ERROR, part, NOTICE_HINT, STR("x")));
    }
    assert_int_equal(bytequeue_len(&q), 0);
    assert_false(notice_is_valid((struct str){ "Mtext\0\0x", 8 }));
    notice_decode_err((struct str){ all_fields.ptr, 40 }, &e);
    assert_int_equal(e.class, ERR_PEER);
    assert_string_equal(e.sqlstate, "08P01");
    err_clear(&e);
    bytequeue_free(&q);
}

static void test_server_error_becomes_an_err_and_goes_on(void **state)
{
    (void)state;
    struct err e = { 0 }, back = { 0 };
    struct bytequeue q = { 0 };
    notice_decode_err(all_fields, &e);
    assert_int_equal(e.class, ERR_SERVER);
    assert_string_equal(e.sqlstate, "23505");
    assert_string_equal(e.message, "duplicate key");
    assert_string_equal(e.detail, "the detail");
    assert_string_equal(e.hint, "the hint");
    assert_string_equal(e.context, "PL/pgSQL function f()");
    assert_int_equal(e.position, 17);
    assert_int_equal(e.internal_position, 4);
    assert_string_equal(e.internal_query, "select 1");

    notice_encode_err(&q, "FATAL", &e);
    struct str body = only_body(&q, SENT_BY_BACKEND, BE_ERROR);
    assert_str(notice_get(body, NOTICE_SEVERITY), "FATAL");
    assert_str(notice_get(body, NOTICE_SEVERITY_PLAIN), "FATAL");
    notice_decode_err(body, &back);
    assert_string_equal(back.message, e.message);
    assert_string_equal(back.detail, e.detail);
    assert_string_equal(back.hint, e.hint);
    assert_string_equal(back.context, e.context);
    assert_string_equal(back.internal_query, e.internal_query);
    assert_int_equal(back.position, e.position);
    assert_int_equal(back.internal_position, e.internal_position);
    err_clear(&e);
    err_clear(&back);
    bytequeue_free(&q);
}

static void test_odd_errors_are_still_errors(void **state)
{
    static const struct {
        const char *ptr;
        size_t len;
        enum err_class class;
        int position;
    } cases[] = {
        { BODY(""), ERR_PEER, 0 },                                         /* no field at all */
        { BODY("C42601\0"), ERR_PEER, 0 },                                 /* no message */
        { BODY("Mtext\0"), ERR_PEER, 0 },                                  /* no SQLSTATE */
        { BODY("C426\0Mtext\0"), ERR_PEER, 0 },                            /* a short SQLSTATE */
        { BODY("C42601\0M%s%n\0P12x\0"), ERR_SERVER, 0 },                  /* no number */
        { BODY("C42601\0Mtext\0P99999999999999999999\0"), ERR_SERVER, 0 }, /* too large */
        { BODY("C42601\0Mtext\0P2147483647\0"), ERR_SERVER, 2147483647 },
        { BODY("C42601\0Mtext\0P-1\0?new field\0"), ERR_SERVER, 0 },
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct err e = { 0 };
        notice_decode_err((struct str){ cases[i].ptr, cases[i].len }, &e);
        assert_int_equal(e.class, cases[i].class);
        assert_int_equal(e.position, cases[i].position);
        err_clear(&e);
    }
}

static void test_own_messages(void **state)
{
    (void)state;
    struct bytequeue q = { 0 };
    notice_encode_error(&q, "FATAL", "08P01", "bad packet header: %02x", 0x47);
    struct str body = only_body(&q, SENT_BY_BACKEND, BE_ERROR);
    assert_bytes(body, ((struct str){ BODY("SFATAL\0VFATAL\0C08P01\0Mbad packet header: 47\0") }));
    bytequeue_consume(&q, bytequeue_len(&q));

    notice_encode_notice(&q, "NOTICE", "00000", "%s", "");
    body = only_body(&q, SENT_BY_BACKEND, BE_NOTICE);
    assert_bytes(body, ((struct str){ BODY("SNOTICE\0VNOTICE\0C00000\0M\0") }));
    bytequeue_consume(&q, bytequeue_len(&q));

    struct err nothing = { 0 };
    notice_encode_err(&q, "ERROR", &nothing);
    assert_true(notice_has_sqlstate(only_body(&q, SENT_BY_BACKEND, BE_ERROR), "XX000"));
    bytequeue_free(&q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_field_is_found),
        cmocka_unit_test(test_rewriting_a_field_with_its_value_changes_nothing),
        cmocka_unit_test(test_one_field_is_replaced_removed_or_added),
        cmocka_unit_test(test_every_shorter_body_is_malformed),
        cmocka_unit_test(test_server_error_becomes_an_err_and_goes_on),
        cmocka_unit_test(test_odd_errors_are_still_errors),
        cmocka_unit_test(test_own_messages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
