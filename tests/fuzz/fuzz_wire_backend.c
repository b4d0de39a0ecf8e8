/* What a server may send. First byte: how the stream is cut. Whatever decodes must encode to the
 * same bytes. */
#include "tests/fuzz/fuzz_wire.h"

#include "base/err.h"
#include "protocol/auth.h"
#include "protocol/copy.h"
#include "protocol/notice.h"
#include "protocol/query_extended.h"
#include "protocol/result.h"
#include "protocol/startup.h"
#include "protocol/status.h"

#define COLUMNS_MAX 64

static void check_authentication(struct bytequeue *q, struct str body)
{
    struct auth_request r;
    if (!auth_decode_request(body, &r))
        return;
    switch (r.kind) {
    case AUTH_REQUEST_OK:
        auth_encode_ok(q);
        break;
    case AUTH_REQUEST_CLEARTEXT:
        auth_encode_cleartext(q);
        break;
    case AUTH_REQUEST_MD5:
        auth_encode_md5(q, r.salt);
        break;
    case AUTH_REQUEST_SASL_CONTINUE:
        auth_encode_sasl_continue(q, r.payload);
        break;
    case AUTH_REQUEST_SASL_FINAL:
        auth_encode_sasl_final(q, r.payload);
        break;
    case AUTH_REQUEST_SASL:
        auth_offers_mechanism(&r, "SCRAM-SHA-256");
        return;
    case AUTH_REQUEST_KERBEROS_V5:
    case AUTH_REQUEST_GSS:
    case AUTH_REQUEST_GSS_CONTINUE:
    case AUTH_REQUEST_SSPI:
        return;
    }
    must_hold(q, SENT_BY_BACKEND, body);
}

static void check_notice(struct bytequeue *q, char tag, struct str body)
{
    struct err e = { 0 };
    notice_decode_err(body, &e);
    MUST(err_is_set(&e) && e.message != NULL);
    bool is_valid = notice_is_valid(body);
    MUST(notice_encode_with(q, tag, body, NOTICE_POSITION, STR("12")) == is_valid);
    if (is_valid) {
        struct wire_frame f;
        MUST(wire_next_frame(SENT_BY_BACKEND, bytequeue_str(q), &f) == WIRE_FRAME);
        MUST(notice_is_valid(f.body));
        MUST(str_equal(notice_get(f.body, NOTICE_POSITION), STR("12")));
        struct str before = notice_get(body, NOTICE_MESSAGE);
        MUST(str_equal(notice_get(f.body, NOTICE_MESSAGE), before));
    }
    bytequeue_consume(q, bytequeue_len(q));
    notice_encode_err(q, "ERROR", &e);
    err_clear(&e);
}

static void check_row_description(struct bytequeue *q, struct str body)
{
    struct row_column columns[COLUMNS_MAX];
    struct wire_cursor c;
    uint16_t n;
    if (!wire_decode_row_description(body, &n, &c) || n > COLUMNS_MAX)
        return;
    for (uint16_t i = 0; i < n; i++)
        wire_next_row_column(&c, &columns[i]);
    if (!wire_at_end(&c))
        return;
    wire_encode_row_description(q, columns, n);
    must_hold(q, SENT_BY_BACKEND, body);
}

static void check_data_row(struct bytequeue *q, struct str body)
{
    struct str values[COLUMNS_MAX];
    struct wire_cursor c;
    uint16_t n;
    if (!wire_decode_data_row(body, &n, &c) || n > COLUMNS_MAX)
        return;
    for (uint16_t i = 0; i < n; i++) {
        bool is_null;
        values[i] = wire_value(&c, &is_null);
        if (is_null)
            values[i].ptr = NULL;
    }
    if (!wire_at_end(&c))
        return;
    wire_encode_data_row(q, values, n);
    must_hold(q, SENT_BY_BACKEND, body);
}

static void check_param_description(struct bytequeue *q, struct str body)
{
    struct msg_param_description m;
    uint32_t oids[COLUMNS_MAX];
    if (!wire_decode_param_description(body, &m) || m.n > COLUMNS_MAX)
        return;
    for (uint16_t i = 0; i < m.n; i++)
        oids[i] = wire_param_description_oid(&m, i);
    wire_encode_param_description(q, oids, m.n);
    must_hold(q, SENT_BY_BACKEND, body);
}

/* ReadyForQuery, ParameterStatus, BackendKeyData, NotificationResponse, CommandComplete */
static void check_status(struct bytequeue *q, const struct wire_frame *f)
{
    enum wire_status status;
    struct str a, b;
    int32_t pid;
    struct msg_command_complete complete;
    if (f->tag == BE_READY_FOR_QUERY && wire_decode_ready(f->body, &status))
        wire_encode_ready(q, status);
    else if (f->tag == BE_PARAMETER_STATUS && wire_decode_parameter_status(f->body, &a, &b))
        wire_encode_parameter_status(q, a, b);
    else if (f->tag == BE_BACKEND_KEY_DATA && wire_decode_backend_key(f->body, &pid, &a))
        wire_encode_backend_key(q, pid, a);
    else if (f->tag == BE_NOTIFICATION && wire_decode_notification(f->body, &pid, &a, &b))
        wire_encode_notification(q, pid, a, b);
    else if (f->tag == BE_COMMAND_COMPLETE && wire_decode_command_complete(f->body, &complete))
        wire_encode_command_complete(q, complete.tag);
    else
        return;
    must_hold(q, SENT_BY_BACKEND, f->body);
}

static void check_message(const struct wire_frame *f)
{
    struct bytequeue q = { 0 };
    struct msg_copy_response copy;
    struct negotiate_version version;
    switch ((enum wire_backend_tag)f->tag) {
    case BE_AUTHENTICATION:
        check_authentication(&q, f->body);
        break;
    case BE_ERROR:
    case BE_NOTICE:
        check_notice(&q, f->tag, f->body);
        break;
    case BE_ROW_DESCRIPTION:
        check_row_description(&q, f->body);
        break;
    case BE_DATA_ROW:
        check_data_row(&q, f->body);
        break;
    case BE_PARAMETER_DESCRIPTION:
        check_param_description(&q, f->body);
        break;
    case BE_COPY_IN_RESPONSE:
    case BE_COPY_OUT_RESPONSE:
    case BE_COPY_BOTH_RESPONSE:
        if (wire_decode_copy_response(f->body, &copy))
            MUST(copy.formats.len == (size_t)copy.n_columns * 2);
        break;
    case BE_NEGOTIATE_PROTOCOL:
        startup_decode_negotiate(f->body, &version);
        break;
    case BE_READY_FOR_QUERY:
    case BE_PARAMETER_STATUS:
    case BE_BACKEND_KEY_DATA:
    case BE_NOTIFICATION:
    case BE_COMMAND_COMPLETE:
        check_status(&q, f);
        break;
    case BE_BIND_COMPLETE:
    case BE_CLOSE_COMPLETE:
    case BE_COPY_DATA:
    case BE_COPY_DONE:
    case BE_EMPTY_QUERY:
    case BE_FUNCTION_CALL:
    case BE_NO_DATA:
    case BE_PARSE_COMPLETE:
    case BE_PORTAL_SUSPENDED:
        break;
    }
    bytequeue_free(&q);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    if (len == 0)
        return 0;
    struct str stream = { (const char *)bytes + 1, len - 1 };
    fuzz_stream(SENT_BY_BACKEND, stream, (size_t)bytes[0] + 1, check_message);
    return 0;
}
