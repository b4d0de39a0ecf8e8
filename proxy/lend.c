/* How a simple query string runs: statement by statement, in a transaction block that stands in for
 * the implicit one of a multi-statement string (manual: "Message Flow", Multiple Statements in a
 * Simple Query). The block is needed because completing a request takes several statements and a
 * savepoint. It is opened before the first statement that is no transaction command and committed
 * before the completion of the last one is shown, as the server commits before it says so. A BEGIN
 * in the middle makes it the client's own; COMMIT or ROLLBACK end it.
 *
 * The extended protocol has an implicit transaction too, from the first message after a Sync up to
 * the next Sync; a BEGIN by the extended protocol turns it into a block without harm to the
 * client's portals.
 *
 * One difference to the server's ways: it parses the whole string first, so that a syntax error
 * in the last statement keeps the first from running; here the first ran and is rolled back.
 */
#include "proxy/lend.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/arena.h"
#include "base/bytequeue.h"
#include "dvm/dvm.h"
#include "protocol/copy.h"
#include "protocol/notice.h"
#include "protocol/query_extended.h"
#include "protocol/query_simple.h"
#include "protocol/result.h"
#include "protocol/status.h"
#include "protocol/writer.h"
#include "proxy/sql_scan.h"
#include "proxy/stream_sql.h"
#include "proxy/wire_db.h"

enum {
    EMIT_SIZE = 32 * 1024, /* collected before it is sent on */
};

struct origin;

struct lend {
    struct lend_job *job;
    struct wire_db db;
    struct arena arena;
    struct bytequeue client;     /* collected for the client */
    struct bytequeue completion; /* CommandComplete that must wait */
    const struct origin *origin; /* of the statement whose answer is read; NULL: one of ours */
    const char *suppress;        /* SQLSTATE of a notice that our own doing causes; or NULL */
    bool suppressed;             /* one came */
    bool own_block;              /* the open transaction block is ours */
    bool failed;                 /* an ErrorResponse went out: skip the rest */
    bool client_gone;
    bool quiet;  /* errors of the server are not for the client */
    bool worked; /* something of ours was done: the scheduler may have work */
};

/* What is known about the text that runs, to make positions of errors right. */
struct origin {
    struct str text;            /* the client's, whole */
    size_t offset;              /* bytes in it before the statement */
    bool rewritten;             /* the server sees other text than the client's */
    const char *tag;            /* to show instead of the server's; NULL: the server's */
    size_t definition_offset;   /* rewritten: bytes in the text before the definition */
    const char *internal_query; /* not rewritten: the definition of the only request, or NULL */
};

static void flush_client(struct lend *l)
{
    struct str bytes = bytequeue_str(&l->client);

    if (bytes.len == 0)
        return;
    if (!l->client_gone && !l->job->emit(l->job->emit_arg, bytes.ptr, bytes.len))
        l->client_gone = true;
    bytequeue_consume(&l->client, bytes.len);
}

static void forward(struct lend *l, struct str bytes)
{
    bytequeue_put(&l->client, bytes.ptr, bytes.len);
    if (bytequeue_len(&l->client) >= EMIT_SIZE)
        flush_client(l);
}

static void set_field(struct bytequeue *frame, enum notice_field field, struct str value)
{
    struct bytequeue changed = { 0 };
    struct str whole = bytequeue_str(frame);
    struct str body = { whole.ptr + WIRE_HEADER_LEN, whole.len - WIRE_HEADER_LEN };

    if (notice_encode_with(&changed, whole.ptr[0], body, field, value)) {
        bytequeue_free(frame);
        *frame = changed;
    }
}

/* A position in an error or notice: it is one in the statement as the server saw it, which began
 * somewhere in the client's text, or is not the client's at all. */
static void correct_position(struct bytequeue *frame, const struct origin *o, struct str position)
{
    char shifted[32];
    char digits[16];

    if (position.ptr == NULL)
        return;
    if (o == NULL || o->rewritten) {
        set_field(frame, NOTICE_POSITION, (struct str){ NULL, 0 });
    } else if (o->offset > 0) {
        snprintf(digits, sizeof(digits), STR_FMT, STR_ARG(position));
        snprintf(shifted, sizeof(shifted), "%lld",
                 strtoll(digits, NULL, 10) + sql_char_position(o->text, o->offset) - 1);
        set_field(frame, NOTICE_POSITION, str_from(shifted));
    }
}

static void on_before_wait(void *arg)
{
    flush_client(arg);
}

static void on_aside(void *arg, char tag, struct str frame)
{
    struct lend *l = arg;
    struct str body = { frame.ptr + WIRE_HEADER_LEN, frame.len - WIRE_HEADER_LEN };

    if (tag == BE_NOTICE && l->suppress != NULL && notice_has_sqlstate(body, l->suppress)) {
        l->suppressed = true;
        return;
    }
    if (tag == BE_PARAMETER_STATUS)
        text_put_bytes(&l->job->parameters, frame.ptr, frame.len);
    if (tag == BE_NOTICE) {
        struct bytequeue changed = { 0 };

        bytequeue_put(&changed, frame.ptr, frame.len);
        correct_position(&changed, l->origin, notice_get(body, NOTICE_POSITION));
        forward(l, bytequeue_str(&changed));
        bytequeue_free(&changed);
        return;
    }
    forward(l, frame);
}

/* A NOTICE or WARNING from completing a request. */
static void on_notice(void *arg, const char *severity, const char *message)
{
    struct lend *l = arg;

    notice_encode_notice(&l->client, severity, strcmp(severity, "WARNING") == 0 ? "01000" : "00000",
                         "%s", message);
}

/* ---- errors for the client ------------------------------------------------------------------- */

static void forward_error(struct lend *l, const struct origin *o, struct str frame, struct str body)
{
    static const char our_function[] = "PL/pgSQL function pgtrickle.";
    struct str where = notice_get(body, NOTICE_WHERE);
    struct bytequeue changed = { 0 };

    bytequeue_put(&changed, frame.ptr, frame.len);
    correct_position(&changed, o, notice_get(body, NOTICE_POSITION));
    if (where.ptr != NULL && o->rewritten && str_starts_with(where, str_from(our_function)))
        set_field(&changed, NOTICE_WHERE, (struct str){ NULL, 0 });
    forward(l, bytequeue_str(&changed));
    bytequeue_free(&changed);
}

/* An error of ours. Says nothing of a broken connection: the session does. */
static void emit_err(struct lend *l, struct err *e)
{
    if (!l->db.broken)
        notice_encode_err(&l->client, "ERROR", e);
    l->failed = true;
    err_clear(e);
}

static void emit_error(struct lend *l, const char *sqlstate, const char *message, const char *hint)
{
    struct err e = { 0 };

    err_set(&e, ERR_REFUSAL, sqlstate, "%s", message);
    if (hint != NULL)
        err_hint(&e, "%s", hint);
    emit_err(l, &e);
}

/* ---- talking to the server ------------------------------------------------------------------- */

static void fail_broken(struct lend *l, struct err *e)
{
    l->failed = true;
    err_clear(e);
}

/* Reads up to ReadyForQuery and shows nothing but errors (unless quiet). */
static void run_to_ready(struct lend *l)
{
    struct err e = { 0 };
    struct wire_piece p;

    if (!wire_db_send(&l->db, &e)) {
        fail_broken(l, &e);
        return;
    }
    do {
        if (!wire_db_receive(&l->db, &p, &e)) {
            fail_broken(l, &e);
            return;
        }
        if (p.tag == BE_ERROR && !l->quiet) {
            l->failed = true;
            forward(l, p.bytes);
        }
    } while (p.tag != BE_READY_FOR_QUERY);
}

/* A command of ours. In an Execute job by the extended protocol, for the sake of the client's
 * unnamed statement; a Query message has destroyed that one already. */
static void run_ours(struct lend *l, const char *sql)
{
    if (l->job->kind == LEND_SIMPLE_QUERY)
        wire_encode_query(&l->db.out, str_from(sql));
    else
        wire_db_put_statement(&l->db, sql);
    run_to_ready(l);
}

/* An error of ours must abort the client's transaction, as the server's own would. */
static void abort_transaction(struct lend *l)
{
    if (l->db.broken || l->db.status != STATUS_IN_TRANSACTION ||
        (l->own_block && l->job->kind == LEND_SIMPLE_QUERY)) /* which is rolled back anyway */
        return;
    l->quiet = true;
    run_ours(l, "ROLLBACK TO SAVEPOINT \"__pgt_no_such_savepoint\"");
    l->quiet = false;
}

/* In the session's isolation level. A refresh needs no other: in READ COMMITTED it waits for the
 * scheduler's and goes on from there, in REPEATABLE READ one of the two would fail with 40001. */
static void open_block(struct lend *l)
{
    if (l->db.status != STATUS_IDLE)
        return;
    run_ours(l, "BEGIN");
    l->own_block = !l->failed;
}

/* Ends our block: what has failed is rolled back. */
static void close_block(struct lend *l)
{
    if (!l->own_block || l->db.broken)
        return;
    l->own_block = false;
    if (l->db.status == STATUS_IDLE)
        return;
    if (l->failed) {
        l->quiet = true;
        run_ours(l, "ROLLBACK");
        l->quiet = false;
    } else {
        run_ours(l, "COMMIT");
    }
}

/* ---- completing requests -----------------------------------------------------------------------
 */

/* The definition that a position in an error is about, when there can be no doubt. */
static bool find_definition(struct lend *l, struct origin *o, struct err *e)
{
    struct db_rows rows;

    if (!db_query(&l->db.base, &l->arena, &rows, e,
                  "SELECT args OPERATOR(pg_catalog.->>) 'query' FROM pgtrickle.pgt_requests "
                  "WHERE xid OPERATOR(pg_catalog.=) pg_catalog.pg_current_xact_id()"))
        return false;
    if (rows.n_rows == 1 && rows.n_columns == 1)
        o->internal_query = db_cell(&rows, 0, 0);
    return true;
}

/* Positions of *e are characters in the definition. */
static void fail_definition(struct lend *l, const struct origin *o, struct err *e)
{
    long long before = sql_char_position(o->text, o->definition_offset) - 1;

    if (o->rewritten && e->position > 0) {
        long long position = o->definition_offset > 0 ? before + e->position : 0;

        e->position = position < INT_MAX ? (int)position : 0;
    } else if (e->position > 0) {
        if (e->internal_query == NULL && o->internal_query != NULL) {
            e->internal_query = mem_strdup(o->internal_query);
            e->internal_position = e->position;
        }
        e->position = 0;
    }
    emit_err(l, e);
    abort_transaction(l);
}

/* The statement announced a request: it is completed before the statement is. */
static void complete_requests(struct lend *l, struct origin *o)
{
    struct err e = { 0 };

    if (l->db.status == STATUS_IN_TRANSACTION &&
        !((o->rewritten || find_definition(l, o, &e)) &&
          dvm_complete_requests(l->job->dvm, &l->db.base, on_notice, l, &e)))
        fail_definition(l, o, &e);
    l->db.has_request = false;
    l->worked = true;
}

/* Puts the completion aside: it is shown when the statement's work is really done. */
static void hold_completion(struct lend *l, const struct origin *o, struct str frame)
{
    if (o->tag != NULL)
        wire_encode_command_complete(&l->completion, str_from(o->tag));
    else
        bytequeue_put(&l->completion, frame.ptr, frame.len);
}

static void release_completion(struct lend *l)
{
    struct str bytes = bytequeue_str(&l->completion);

    if (!l->failed)
        forward(l, bytes);
    bytequeue_consume(&l->completion, bytes.len);
}

static void refuse_copy(struct lend *l)
{
    struct err e = { 0 };

    emit_error(l, "0A000",
               "COPY FROM STDIN is not possible in a query string that is run for a "
               "stream table",
               "Send the COPY in a query of its own.");
    l->quiet = true;
    wire_encode_copy_fail(&l->db.out, STR("refused"));
    if (l->job->kind != LEND_SIMPLE_QUERY)
        wire_encode_sync(&l->db.out);
    if (!wire_db_send(&l->db, &e))
        fail_broken(l, &e);
}

/* Forwards the answer to one statement up to `until`: ReadyForQuery for a Query, the end of the
 * Execute otherwise. */
static void read_answer(struct lend *l, const struct origin *o)
{
    bool simple = l->job->kind == LEND_SIMPLE_QUERY;
    struct err e = { 0 };
    struct wire_piece p;

    for (;;) {
        if (!wire_db_receive(&l->db, &p, &e)) {
            fail_broken(l, &e);
            break;
        }
        switch (p.tag) {
        case BE_ROW_DESCRIPTION:
        case BE_DATA_ROW:
        case BE_COPY_OUT_RESPONSE:
        case BE_COPY_DATA:
        case BE_COPY_DONE:
            forward(l, p.bytes);
            break;
        case BE_COMMAND_COMPLETE:
        case BE_EMPTY_QUERY:
        case BE_PORTAL_SUSPENDED:
            hold_completion(l, o, p.bytes);
            if (!simple)
                return;
            break;
        case BE_ERROR:
            if (!l->quiet) {
                l->failed = true;
                forward_error(l, o, p.bytes, p.body);
            }
            if (!simple && !l->quiet)
                wire_encode_sync(&l->db.out); /* the server skips what comes before it */
            if (!simple && !wire_db_send(&l->db, &e)) {
                fail_broken(l, &e);
                return;
            }
            break;
        case BE_COPY_IN_RESPONSE:
            refuse_copy(l);
            break;
        case BE_READY_FOR_QUERY:
            l->quiet = false;
            return;
        default:
            wire_db_malformed(&l->db, p.tag, &e);
            fail_broken(l, &e);
            l->quiet = false;
            return;
        }
    }
    l->quiet = false;
}

static void forward_answer(struct lend *l, const struct origin *o)
{
    l->origin = o;
    read_answer(l, o);
    l->origin = NULL;
}

/* ---- EXPLAIN CREATE STREAM TABLE ------------------------------------------------------------- */

static enum dvm_mode requested_mode(const struct stream_statement *st)
{
    static const struct {
        const char *name;
        enum dvm_mode mode;
    } modes[] = { { "FULL", DVM_FULL },
                  { "DIFFERENTIAL", DVM_DIFFERENTIAL },
                  { "IMMEDIATE", DVM_IMMEDIATE } };
    const char *mode = stream_sql_option(st, "refresh_mode");
    const char *schedule = stream_sql_option(st, "schedule");

    if (schedule != NULL && strcasecmp(schedule, "IMMEDIATE") == 0)
        return DVM_IMMEDIATE;
    for (size_t i = 0; mode != NULL && i < sizeof(modes) / sizeof(modes[0]); i++) {
        if (strcasecmp(mode, modes[i].name) == 0)
            return modes[i].mode;
    }
    return DVM_AUTO;
}

static bool is_true(const char *value)
{
    return value != NULL && (strcasecmp(value, "true") == 0 || strcasecmp(value, "on") == 0 ||
                             strcasecmp(value, "yes") == 0 || strcmp(value, "1") == 0);
}

static bool compile_for_explain(struct lend *l, const struct stream_statement *st,
                                const char **schema, struct dvm_plan *plan, struct err *e)
{
    struct dvm_definition d = {
        .query = arena_strndup(&l->arena, st->query.ptr, st->query.len),
        .name = st->names->name,
        .column_names = st->columns,
        .n_column_names = st->n_columns,
        .mode = requested_mode(st),
        .append_only = is_true(stream_sql_option(st, "append_only")),
    };
    struct db_rows rows;

    if (*schema == NULL) {
        if (!db_query(&l->db.base, &l->arena, &rows, e, "SELECT pg_catalog.current_schema()"))
            return false;
        *schema = rows.n_rows == 1 && rows.n_columns == 1 ? db_cell(&rows, 0, 0) : NULL;
        if (*schema == NULL)
            return err_set(e, ERR_REFUSAL, "3F000", "no schema has been selected to create in");
    }
    d.schema = *schema;
    return dvm_compile(&l->db.base, &l->arena, &d, plan, e);
}

static void put_member(struct text *json, const char *name, const char *value)
{
    text_printf(json, ",\"%s\":", name);
    if (value != NULL)
        text_put_json(json, str_from(value));
    else
        text_put(json, "null");
}

/* The plan as the row of the catalog that it would become, so that both forms of EXPLAIN look the
 * same. */
static void put_catalog_row(struct text *json, const struct stream_statement *st,
                            const char *schema, const struct dvm_plan *plan)
{
    static const char *const modes[] = {
        [DVM_AUTO] = "AUTO",
        [DVM_FULL] = "FULL",
        [DVM_DIFFERENTIAL] = "DIFFERENTIAL",
        [DVM_IMMEDIATE] = "IMMEDIATE",
    };

    text_printf(json, "{\"status\":\"not created\",\"time_dependent\":%s",
                plan->time_dependent ? "true" : "false");
    put_member(json, "pgt_schema", schema);
    put_member(json, "pgt_name", st->names->name);
    put_member(json, "refresh_mode", modes[plan->mode]);
    put_member(json, "strategy", plan->strategy);
    put_member(json, "downgrade_reason", plan->downgrade_reason);
    text_put(json, ",\"key_columns\":[");
    for (int i = 0; i < plan->n_key_columns; i++) {
        if (i > 0)
            text_put_char(json, ',');
        text_put_json(json, str_from(plan->key_columns[i]));
    }
    text_printf(json, "],\"plan\":%s}", plan->plan_json != NULL ? plan->plan_json : "null");
}

static void put_explain_sql(struct text *sql, const struct stream_statement *st, const char *schema,
                            const struct dvm_plan *plan)
{
    struct text part;

    text_init(&part);
    put_catalog_row(&part, st, schema, plan);
    text_put(sql, "SELECT pg_catalog.set_config('pgtrickle.explain', pg_catalog.concat((SELECT "
                  "pg_catalog.string_agg(line, E'\\n' ORDER BY n) FROM pgtrickle._explain_lines("
                  "pg_catalog.jsonb_populate_record(NULL::pgtrickle.pgt_stream_tables, ");
    text_put_literal(sql, text_str(&part));
    text_put(sql, "::pg_catalog.jsonb)) WITH ORDINALITY AS l (line, n)), ");
    text_clear(&part);
    text_put(&part, "");
    for (int i = 0; i < plan->n_immediate_sql; i++)
        text_printf(&part, "\n%s", plan->immediate_sql[i]);
    text_put_literal(sql, text_str(&part));
    text_put(sql, "), true)");
    text_free(&part);
}

/* Leaves the explanation where pgtrickle._explain_result() looks for it. */
static void explain_create(struct lend *l, const struct origin *o,
                           const struct stream_statement *st)
{
    const char *schema = st->names->schema;
    struct dvm_plan plan = { 0 };
    struct err e = { 0 };
    struct text sql;

    if (!compile_for_explain(l, st, &schema, &plan, &e)) {
        fail_definition(l, o, &e);
        return;
    }
    text_init(&sql);
    put_explain_sql(&sql, st, schema, &plan);
    if (!l->db.base.ops->query(&l->db.base, &l->arena, sql.ptr, NULL, &e)) {
        e.position = 0;
        emit_err(l, &e);
        abort_transaction(l);
    }
    text_free(&sql);
}

/* ---- a query string -------------------------------------------------------------------------- */

enum statement_class {
    CLASS_STREAM,    /* a stream-table statement */
    CLASS_BEGIN,     /* BEGIN, START TRANSACTION */
    CLASS_END,       /* COMMIT, END, ROLLBACK, ABORT, PREPARE TRANSACTION, COMMIT PREPARED */
    CLASS_SAVEPOINT, /* SAVEPOINT, RELEASE, ROLLBACK TO */
    CLASS_CALLS,     /* may call a function that makes a request */
    CLASS_OTHER,     /* can't; some of these refuse to run in a transaction block */
};

struct statement_view {
    struct str text; /* the whole string */
    struct sql_statement at;
    struct sql_token word[6]; /* its first tokens; SQL_END behind the last */
    bool only;                /* the string holds no other */
    bool last;
};

static bool word_is(const struct statement_view *v, int i, const char *word)
{
    return sql_token_is(v->text, v->word[i], word);
}

static bool word_is_any(const struct statement_view *v, int i, const char *const *words)
{
    for (; *words != NULL; words++) {
        if (word_is(v, i, *words))
            return true;
    }
    return false;
}

static struct sql_scanner scanner_at(const struct lend *l, const struct statement_view *v)
{
    return (struct sql_scanner){ { v->text.ptr, v->at.end },
                                 v->at.start,
                                 l->job->standard_conforming_strings };
}

/* A body that commits by itself can't run in a block of ours. Looks at bytes: the body is a
 * string. */
static bool may_commit(const struct statement_view *v)
{
    const char *p = v->text.ptr + v->at.start;
    const char *end = v->text.ptr + v->at.end;

    for (; end - p >= 6; p++) {
        if (strncasecmp(p, "commit", 6) == 0 ||
            (end - p >= 8 && strncasecmp(p, "rollback", 8) == 0))
            return true;
    }
    return false;
}

static enum statement_class classify(const struct lend *l, const struct statement_view *v)
{
    static const char *const begins[] = { "begin", "start", NULL };
    static const char *const ends[] = { "commit", "end", "rollback", "abort", NULL };
    static const char *const savepoints[] = { "savepoint", "release", NULL };
    static const char *const calls[] = { "select", "with",    "values",  "insert", "update",
                                         "delete", "merge",   "execute", "table",  "explain",
                                         "copy",   "refresh", NULL };
    static const char *const bodies[] = { "do", "call", NULL };
    static const char *const alone[] = { "database", "tablespace", "subscription",
                                         "index",    "unique",     NULL };

    if (stream_sql_begins(scanner_at(l, v)))
        return CLASS_STREAM;
    if (word_is_any(v, 0, begins))
        return CLASS_BEGIN;
    if (word_is_any(v, 0, savepoints))
        return CLASS_SAVEPOINT;
    if (word_is(v, 0, "rollback")) {
        int to = word_is(v, 1, "work") || word_is(v, 1, "transaction") ? 2 : 1;

        return word_is(v, to, "to") ? CLASS_SAVEPOINT : CLASS_END;
    }
    if (word_is_any(v, 0, ends) || (word_is(v, 0, "prepare") && word_is(v, 1, "transaction")))
        return CLASS_END;
    if (word_is_any(v, 0, calls) || sql_token_is_symbol(v->text, v->word[0], '('))
        return CLASS_CALLS;
    if (word_is_any(v, 0, bodies))
        return may_commit(v) ? CLASS_OTHER : CLASS_CALLS;
    if (word_is(v, 0, "create"))
        return word_is_any(v, 1, alone) ? CLASS_OTHER : CLASS_CALLS;
    return CLASS_OTHER;
}

static void look_at_statement(const struct lend *l, struct statement_view *v)
{
    struct sql_scanner s = scanner_at(l, v);

    for (size_t i = 0; i < sizeof(v->word) / sizeof(v->word[0]); i++)
        v->word[i] = sql_scan_next(&s);
}

/* Sends one statement and forwards the answer; requests are completed. */
static void run_text(struct lend *l, struct origin *o, struct str sql)
{
    struct err e = { 0 };

    wire_encode_query(&l->db.out, sql);
    if (!wire_db_send(&l->db, &e)) {
        fail_broken(l, &e);
        return;
    }
    forward_answer(l, o);
    if (!l->failed && l->db.has_request)
        complete_requests(l, o);
    if (l->db.status == STATUS_IDLE)
        l->own_block = false;
}

static void run_stream_statement(struct lend *l, const struct statement_view *v)
{
    struct origin o = { .text = v->text, .offset = v->at.start, .rewritten = true };
    struct stream_statement st;
    struct err e = { 0 };
    struct text sql;

    if (!stream_sql_parse(v->text, v->at, l->job->standard_conforming_strings, &l->arena, &st,
                          &e)) {
        emit_err(l, &e);
        abort_transaction(l);
        return;
    }
    o.tag = stream_sql_tag(st.verb);
    o.definition_offset = st.query_offset;
    open_block(l);
    if (!l->failed && st.verb == STREAM_EXPLAIN_CREATE)
        explain_create(l, &o, &st);
    if (l->failed)
        return;
    text_init(&sql);
    stream_sql_put_sql(&st, &sql);
    run_text(l, &o, text_str(&sql));
    text_free(&sql);
    l->worked = true;
}

static void refuse_savepoint(struct lend *l, const struct statement_view *v)
{
    struct err e = { 0 };

    err_set(&e, ERR_REFUSAL, "25P01", "%s can only be used in transaction blocks",
            word_is(v, 0, "savepoint") ? "SAVEPOINT"
            : word_is(v, 0, "release") ? "RELEASE SAVEPOINT"
                                       : "ROLLBACK TO SAVEPOINT");
    emit_err(l, &e);
}

static void run_client_statement(struct lend *l, const struct statement_view *v,
                                 enum statement_class class)
{
    /* One that stands alone goes with the comments around it: they may be hints and tags. */
    struct origin o = { .text = v->text, .offset = v->only ? 0 : v->at.start };
    struct str sql = { v->text.ptr + v->at.start, v->at.end - v->at.start };

    switch (class) {
    case CLASS_BEGIN:
        l->suppress = l->own_block ? "25001" : NULL; /* it makes our block the client's */
        break;
    case CLASS_END:
        if (l->own_block)
            notice_encode_notice(&l->client, "WARNING", "25P01",
                                 "there is no transaction in progress");
        break;
    case CLASS_SAVEPOINT:
        if (l->own_block) {
            refuse_savepoint(l, v);
            return;
        }
        break;
    case CLASS_CALLS:
        open_block(l);
        break;
    case CLASS_OTHER:
        if (!v->only)
            open_block(l);
        break;
    case CLASS_STREAM:
        break;
    }
    if (!l->failed)
        run_text(l, &o, v->only ? v->text : sql);
    if (class == CLASS_BEGIN && !l->failed)
        l->own_block = false;
    l->suppress = NULL;
}

static void run_statement(struct lend *l, const struct statement_view *v)
{
    enum statement_class class = classify(l, v);

    /* Nothing completes a request in autocommit but the scheduler: the client is told so. */
    l->db.shows_requests = v->only && class == CLASS_OTHER && l->db.status == STATUS_IDLE;
    if (class == CLASS_STREAM)
        run_stream_statement(l, v);
    else
        run_client_statement(l, v, class);
    if (v->last || l->failed)
        close_block(l);
    release_completion(l);
    l->db.shows_requests = false;
}

static void run_query_string(struct lend *l)
{
    struct sql_scanner s = { l->job->query, 0, l->job->standard_conforming_strings };
    struct statement_view v = { .text = l->job->query };
    struct sql_statement next;
    bool more = sql_split_next(&s, &next);

    v.only = true;
    if (!more)
        wire_put_empty(&l->client, BE_EMPTY_QUERY);
    while (more && !l->failed && !l->db.broken) {
        v.at = next;
        more = sql_split_next(&s, &next);
        v.only = v.only && !more;
        v.last = !more;
        look_at_statement(l, &v);
        run_statement(l, &v);
    }
}

static void emit_ready(struct lend *l)
{
    if (!l->db.broken)
        wire_encode_ready(&l->client, (enum wire_status)l->db.status);
}

/* The SQL side must be there before the statement is. */
static bool install(struct lend *l)
{
    struct err e = { 0 };

    if (l->job->target == NULL || dvm_install(l->job->dvm, l->job->target, &e))
        return true;
    emit_err(l, &e);
    abort_transaction(l);
    return false;
}

/* ---- one Execute -------------------------------------------------------------------------------
 */

/* A client's BEGIN may stand in the same pipeline: then the block is its own, and the server warns
 * that there is one already. */
static void open_pipeline_block(struct lend *l)
{
    l->suppress = "25001";
    l->suppressed = false;
    run_ours(l, "BEGIN");
    l->own_block = !l->failed && !l->suppressed;
    l->suppress = NULL;
}

/* The explanation must be in its place before the client's portal reads it. */
static void explain_before_execute(struct lend *l, const struct origin *o)
{
    bool conforming = l->job->standard_conforming_strings;
    struct sql_scanner s = { o->text, 0, conforming };
    struct stream_statement st;
    struct sql_statement at;
    struct err e = { 0 };

    if (!sql_split_next(&s, &at) ||
        !stream_sql_begins((struct sql_scanner){ o->text, at.start, conforming }))
        return;
    if (!stream_sql_parse(o->text, at, conforming, &l->arena, &st, &e)) {
        emit_err(l, &e);
        abort_transaction(l);
    } else if (st.verb == STREAM_EXPLAIN_CREATE) {
        explain_create(l, o, &st);
    }
}

/* A body that commits by itself, VACUUM and their like can't run in a block of ours. */
static bool runs_in_block(const struct lend *l)
{
    struct statement_view v = { .text = l->job->statement_text, .only = true, .last = true };
    struct sql_scanner s = { v.text, 0, l->job->standard_conforming_strings };
    enum statement_class class;

    if (!sql_split_next(&s, &v.at))
        return false;
    look_at_statement(l, &v);
    class = classify(l, &v);
    return class == CLASS_STREAM || class == CLASS_CALLS;
}

static void run_execute(struct lend *l)
{
    struct origin o = {
        .text = l->job->statement_text,
        .rewritten = l->job->execute_tag != NULL,
        .tag = l->job->execute_tag,
        .definition_offset = l->job->definition_offset,
    };
    struct err e = { 0 };

    l->db.shows_requests = l->db.status == STATUS_IDLE && !runs_in_block(l);
    if (l->db.status == STATUS_IDLE && !l->db.shows_requests)
        open_pipeline_block(l);
    if (!l->failed && o.rewritten)
        explain_before_execute(l, &o);
    if (l->failed)
        return;
    bytequeue_put(&l->db.out, l->job->execute.ptr, l->job->execute.len);
    wire_encode_flush(&l->db.out);
    if (!wire_db_send(&l->db, &e)) {
        fail_broken(l, &e);
        return;
    }
    forward_answer(l, &o);
    if (!l->failed && l->db.has_request)
        complete_requests(l, &o);
    release_completion(l);
    l->worked = true;
}

/* ---- jobs --------------------------------------------------------------------------------------
 */

/* Returns the descriptor's flags, to be put back. */
static int make_blocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);

    if (flags >= 0 && (flags & O_NONBLOCK) != 0)
        fcntl(fd, F_SETFL, flags & ~O_NONBLOCK);
    return flags;
}

static void begin(struct lend *l, struct lend_job *job, char status)
{
    struct wire_db_listener listener = { l, on_aside, on_before_wait };

    *l = (struct lend){ .job = job };
    arena_init(&l->arena);
    wire_db_init(&l->db, &job->stream, job->server_version, status, &listener);
    job->server_broken = false;
}

static void finish(struct lend *l, bool ready)
{
    struct lend_job *job = l->job;
    struct err e = { 0 };

    if (!l->db.broken && !wire_db_finish(&l->db, &e))
        err_clear(&e);
    if (ready)
        emit_ready(l);
    flush_client(l);
    if (l->worked && !l->failed && l->db.status == STATUS_IDLE)
        dvm_scheduler_wake(job->dvm);
    job->tx_status = l->db.status;
    job->failed = l->failed;
    job->server_broken = l->db.broken;
    wire_db_fini(&l->db);
    bytequeue_free(&l->client);
    bytequeue_free(&l->completion);
    arena_free(&l->arena);
}

static void run_on_connection(struct lend_job *job)
{
    int flags = make_blocking(job->stream.fd);
    struct origin forwarded = { 0 };
    struct lend l;

    begin(&l, job,
          job->in_failed_block ? STATUS_FAILED
          : job->in_block      ? STATUS_IN_TRANSACTION
                               : STATUS_IDLE);
    switch (job->kind) {
    case LEND_SIMPLE_QUERY:
        if (install(&l))
            run_query_string(&l);
        break;
    case LEND_EXECUTE:
        run_execute(&l);
        job->opened_block = l.own_block;
        break;
    case LEND_COMPLETE:
        /* In autocommit the request is committed: the scheduler's. */
        l.worked = true;
        if (job->in_block)
            complete_requests(&l, &forwarded);
        break;
    case LEND_INSTALL:
        break;
    }
    finish(&l, job->kind != LEND_EXECUTE);
    if (flags >= 0)
        fcntl(job->stream.fd, F_SETFL, flags);
}

void lend_run(struct lend_job *job)
{
    if (job->kind == LEND_INSTALL)
        job->failed = !dvm_install(job->dvm, job->target, &job->err);
    else
        run_on_connection(job);
}

void lend_end_block(struct lend_job *job)
{
    int flags = make_blocking(job->stream.fd);
    struct lend l;

    begin(&l, job, STATUS_IN_TRANSACTION);
    l.worked = true;
    l.quiet = true; /* the client has seen the error that put the server into skipping */
    wire_encode_sync(&l.db.out);
    run_to_ready(&l);
    l.quiet = false;
    l.own_block = job->opened_block && l.db.status != STATUS_IDLE;
    l.failed = l.failed || job->failed || l.db.status == STATUS_FAILED;
    close_block(&l);
    job->opened_block = false;
    finish(&l, true);
    if (flags >= 0)
        fcntl(job->stream.fd, F_SETFL, flags);
}
