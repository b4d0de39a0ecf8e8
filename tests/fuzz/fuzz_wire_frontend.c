/* What a client may send: startup packets, then messages. First byte: how the stream is cut.
 * Whatever decodes must encode to the same bytes. */
#include "tests/fuzz/fuzz_wire.h"

#include "protocol/auth.h"
#include "protocol/copy.h"
#include "protocol/query_extended.h"
#include "protocol/query_simple.h"
#include "protocol/startup.h"

static void check_startup(struct str bytes)
{
    struct startup_packet p;
    struct str name, value;
    size_t used;
    if (startup_next(bytes, &p, &used) != WIRE_FRAME)
        return;
    MUST(used >= 8 && used <= bytes.len);
    for (size_t n = 0; n < used && used < 64; n++) {
        struct startup_packet none;
        size_t unused;
        MUST(startup_next((struct str){ bytes.ptr, n }, &none, &unused) == WIRE_NEED_MORE);
    }

    struct bytequeue q = { 0 };
    switch (p.kind) {
    case STARTUP_MESSAGE:
        if (p.major == 3) {
            struct wire_mark m = startup_encode_begin(&q, p.major, p.minor);
            for (struct str left = p.params; startup_next_param(&left, &name, &value);)
                startup_encode_param(&q, name, value);
            startup_encode_end(&q, m);
            MUST(str_equal(bytequeue_str(&q), (struct str){ bytes.ptr, used }));
            bytequeue_consume(&q, bytequeue_len(&q));
        }
        struct negotiate_version n;
        struct wire_frame f;
        startup_encode_negotiate(&q, 3, 0, p.params);
        MUST(wire_next_frame(SENT_BY_BACKEND, bytequeue_str(&q), &f) == WIRE_FRAME);
        MUST(startup_decode_negotiate(f.body, &n));
        MUST((n.n_options > 0) == startup_has_options(p.params));
        break;
    case STARTUP_CANCEL:
        startup_encode_cancel(&q, p.cancel_pid, p.cancel_key);
        MUST(str_equal(bytequeue_str(&q), (struct str){ bytes.ptr, used }));
        break;
    case STARTUP_SSL_REQUEST:
    case STARTUP_GSSENC_REQUEST:
        MUST(used == 8);
        break;
    }
    bytequeue_free(&q);
}

/* Another name, and the old one again. */
static void check_rename(const struct wire_frame *f)
{
    struct bytequeue out = { 0 }, back = { 0 };
    struct wire_reader r;
    struct wire_piece p;
    struct str names[2] = { STR(""), STR("pgt_17") };
    struct msg_target target;
    struct msg_parse parse;
    struct msg_bind_names bind;
    struct str old = STR("");
    wire_reader_init(&r, SENT_BY_FRONTEND, UINT32_MAX);
    MUST(wire_reader_next(&r, f->bytes, &p) == WIRE_FRAME && p.starts && p.ends);
    if (f->tag == FE_PARSE && wire_decode_parse(f->body, &parse))
        old = parse.statement;
    else if (f->tag == FE_BIND && wire_decode_bind_names(f->body, &bind) == WIRE_FRAME)
        old = bind.statement;
    else if (f->tag != FE_PARSE && f->tag != FE_BIND && wire_decode_target(f->body, &target))
        old = target.name;
    else
        return;
    for (int i = 0; i < 2; i++) {
        struct wire_piece renamed;
        if (!wire_rename_statement(&out, &p, names[i]))
            continue;
        MUST(wire_reader_next(&r, bytequeue_str(&out), &renamed) == WIRE_FRAME && renamed.ends);
        MUST(wire_rename_statement(&back, &renamed, old));
        MUST(str_equal(bytequeue_str(&back), f->bytes));
        bytequeue_consume(&out, bytequeue_len(&out));
        bytequeue_consume(&back, bytequeue_len(&back));
    }
    bytequeue_free(&out);
    bytequeue_free(&back);
}

static void check_parse(struct bytequeue *q, struct str body)
{
    struct msg_parse m;
    uint32_t types[64];
    if (!wire_decode_parse(body, &m))
        return;
    wire_encode_parse_tail(q, m.statement, m.tail);
    must_hold(q, SENT_BY_FRONTEND, body);
    if (m.n_param_types > 64)
        return;
    bytequeue_consume(q, bytequeue_len(q));
    for (uint16_t i = 0; i < m.n_param_types; i++)
        types[i] = wire_parse_param_type(&m, i);
    wire_encode_parse(q, m.statement, m.query, types, m.n_param_types);
    must_hold(q, SENT_BY_FRONTEND, body);
}

static void check_bind(struct bytequeue *q, struct str body)
{
    struct msg_bind m;
    struct msg_bind_names names;
    if (!wire_decode_bind(body, &m))
        return;
    MUST(wire_decode_bind_names(body, &names) == WIRE_FRAME);
    MUST(str_equal(names.statement, m.statement) && str_equal(names.portal, m.portal));
    struct wire_cursor c = wire_cursor(m.params);
    for (uint16_t i = 0; i < m.n_params; i++) {
        bool is_null;
        wire_value(&c, &is_null);
        wire_bind_param_format(&m, i);
    }
    MUST(wire_at_end(&c));
    wire_encode_bind(q, &m);
    must_hold(q, SENT_BY_FRONTEND, body);
}

static void check_password(struct bytequeue *q, struct str body)
{
    struct str password;
    struct sasl_initial s;
    if (auth_decode_password(body, &password)) {
        auth_encode_password(q, password);
        must_hold(q, SENT_BY_FRONTEND, body);
        bytequeue_consume(q, bytequeue_len(q));
    }
    if (auth_decode_sasl_initial(body, &s)) {
        auth_encode_sasl_initial(q, s.mechanism,
                                 s.has_response ? s.response : (struct str){ NULL, 0 });
        must_hold(q, SENT_BY_FRONTEND, body);
    }
}

static void check_message(const struct wire_frame *f)
{
    struct bytequeue q = { 0 };
    struct str text;
    struct msg_target target;
    struct msg_execute execute;
    switch ((enum wire_frontend_tag)f->tag) {
    case FE_QUERY:
        if (wire_decode_query(f->body, &text)) {
            wire_encode_query(&q, text);
            must_hold(&q, SENT_BY_FRONTEND, f->body);
        }
        break;
    case FE_PARSE:
        check_parse(&q, f->body);
        check_rename(f);
        break;
    case FE_BIND:
        check_bind(&q, f->body);
        check_rename(f);
        break;
    case FE_DESCRIBE:
    case FE_CLOSE:
        if (wire_decode_target(f->body, &target)) {
            if (f->tag == FE_DESCRIBE)
                wire_encode_describe(&q, target.target, target.name);
            else
                wire_encode_close(&q, target.target, target.name);
            must_hold(&q, SENT_BY_FRONTEND, f->body);
        }
        check_rename(f);
        break;
    case FE_EXECUTE:
        if (wire_decode_execute(f->body, &execute)) {
            wire_encode_execute(&q, execute.portal, execute.max_rows);
            must_hold(&q, SENT_BY_FRONTEND, f->body);
        }
        break;
    case FE_COPY_FAIL:
        if (wire_decode_copy_fail(f->body, &text)) {
            wire_encode_copy_fail(&q, text);
            must_hold(&q, SENT_BY_FRONTEND, f->body);
        }
        break;
    case FE_PASSWORD:
        check_password(&q, f->body);
        break;
    case FE_COPY_DATA:
    case FE_COPY_DONE:
    case FE_FLUSH:
    case FE_FUNCTION_CALL:
    case FE_SYNC:
    case FE_TERMINATE:
        break;
    }
    bytequeue_free(&q);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    if (len == 0)
        return 0;
    struct str stream = { (const char *)bytes + 1, len - 1 };
    check_startup(stream);
    fuzz_stream(SENT_BY_FRONTEND, stream, (size_t)bytes[0] + 1, check_message);
    return 0;
}
