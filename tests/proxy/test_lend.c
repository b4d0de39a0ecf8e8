/* lend_run against a server that speaks the protocol and knows a handful of statements. */
#include "proxy/lend.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bytequeue.h"
#include "dvm/dvm.h"
#include "protocol/copy.h"
#include "protocol/notice.h"
#include "protocol/query_extended.h"
#include "protocol/query_simple.h"
#include "protocol/result.h"
#include "protocol/status.h"

/* ---- dvm, as the tests want it --------------------------------------------------------------- */

struct dvm {
    struct text calls; /* what was asked of it */
    bool install_fails;
    bool complete_fails;
    int position; /* of that failure */
    int n_complete;
};

bool dvm_install(struct dvm *d, const struct dvm_target *t, struct err *e)
{
    text_printf(&d->calls, "install(%s) ", t->database);
    if (d->install_fails)
        return err_set(e, ERR_REFUSAL, "42501", "no rights to install");
    return true;
}

bool dvm_complete_requests(struct dvm *d, struct dvm_db *db,
                           void (*notice)(void *arg, const char *severity, const char *message),
                           void *notice_arg, struct err *e)
{
    struct db_rows rows;
    struct arena a;
    bool ok;

    text_put(&d->calls, "complete ");
    d->n_complete++;
    notice(notice_arg, "NOTICE", "kept up to date");
    arena_init(&a);
    ok = db_query(db, &a, &rows, e, "SELECT %s", d->complete_fails ? "fail" : "rows");
    if (!ok) {
        err_set(e, ERR_REFUSAL, "0A000", "can't be maintained");
        e->position = d->position;
    } else {
        assert_int_equal(rows.n_rows, 2);
        assert_int_equal(rows.n_columns, 1);
        assert_string_equal(rows.columns[0].name, "n");
        assert_string_equal(db_cell(&rows, 0, 0), "1");
        assert_null(db_cell(&rows, 1, 0));
    }
    arena_free(&a);
    return ok;
}

bool dvm_compile(struct dvm_db *db, struct arena *a, const struct dvm_definition *d,
                 struct dvm_plan *plan, struct err *e)
{
    (void)db;
    (void)a;
    if (strcmp(d->query, "bad") == 0) {
        err_set(e, ERR_REFUSAL, "0A000", "not this one");
        e->position = 2;
        return false;
    }
    plan->mode = d->mode == DVM_AUTO ? DVM_DIFFERENTIAL : d->mode;
    plan->plan_json = "{\"explain\":\"it's\"}";
    return true;
}

void dvm_scheduler_wake(struct dvm *d)
{
    text_put(&d->calls, "wake ");
}

/* ---- a server -------------------------------------------------------------------------------- */

struct fake {
    int fd;
    pthread_t thread;
    struct text log; /* the statements, one after the other: "Q:text " or "X:text " */
    struct bytequeue in;
    struct bytequeue out;
    char status;
    bool skipping; /* after an error, up to Sync */
    bool copying;
    bool commit_fails; /* the next COMMIT */
    char *parsed;      /* of our name */
    bool client_bound; /* the client's portal is bound to a statement that makes a request */
    int die_at;        /* statement number at which the connection ends; 0: never */
    int n_statements;
};

static void fake_error(struct fake *f, const char *sqlstate, const char *position)
{
    struct err e = { 0 };

    err_set(&e, ERR_SERVER, sqlstate, "failed");
    e.position = position != NULL ? atoi(position) : 0;
    notice_encode_err(&f->out, "ERROR", &e);
    err_clear(&e);
    if (f->status == 'T')
        f->status = 'E';
}

static bool has(const char *sql, const char *word)
{
    return strstr(sql, word) != NULL;
}

/* False after an error. */
static bool fake_transaction_command(struct fake *f, const char *sql)
{
    if (has(sql, "ROLLBACK TO")) {
        fake_error(f, "3B001", NULL);
        return false;
    }
    if (has(sql, "BEGIN")) {
        if (f->status == 'T')
            notice_encode_notice(&f->out, "WARNING", "25001",
                                 "there is already a transaction in progress");
        f->status = 'T';
        wire_encode_command_complete(&f->out, STR("BEGIN"));
        return true;
    }
    if (has(sql, "COMMIT") && f->commit_fails) {
        f->commit_fails = false;
        f->status = 'I';
        fake_error(f, "23503", NULL);
        return false;
    }
    f->status = 'I';
    wire_encode_command_complete(&f->out, has(sql, "COMMIT") ? STR("COMMIT") : STR("ROLLBACK"));
    return true;
}

static bool fake_statement(struct fake *f, const char *sql, bool describe)
{
    f->n_statements++;
    if (has(sql, "BEGIN") || has(sql, "COMMIT") || has(sql, "ROLLBACK"))
        return fake_transaction_command(f, sql);
    if (f->status == 'E') {
        fake_error(f, "25P02", NULL);
        return false;
    }
    if (has(sql, "fail")) {
        fake_error(f, "22012", "8");
        return false;
    }
    if (has(sql, "copyin")) {
        wire_encode_copy_response(&f->out, BE_COPY_IN_RESPONSE, false, 1);
        f->copying = true;
        return true;
    }
    if (has(sql, "warn")) {
        struct bytequeue plain = { 0 };
        struct str bytes;

        notice_encode_notice(&plain, "WARNING", "22P06", "nonstandard");
        bytes = bytequeue_str(&plain);
        assert_true(notice_encode_with(&f->out, BE_NOTICE,
                                       (struct str){ bytes.ptr + 5, bytes.len - 5 },
                                       NOTICE_POSITION, STR("8")));
        bytequeue_free(&plain);
    }
    if (has(sql, "request") || (has(sql, "_ddl") && has(sql, "create")))
        notice_encode_notice(&f->out, "NOTICE", DVM_NOTICE_SQLSTATE, "to be completed");
    if (has(sql, "CALL")) {
        wire_encode_command_complete(&f->out, STR("CALL"));
    } else if (has(sql, "set timezone")) {
        wire_encode_parameter_status(&f->out, STR("TimeZone"), STR("UTC"));
        wire_encode_command_complete(&f->out, STR("SET"));
    } else {
        struct row_column column = { .name = STR("n"), .type_oid = TYPE_OID_TEXT };
        struct str one = STR("1"), null = { NULL, 0 };

        if (describe)
            wire_encode_row_description(&f->out, &column, 1);
        wire_encode_data_row(&f->out, &one, 1);
        wire_encode_data_row(&f->out, &null, 1);
        wire_encode_command_complete(&f->out, STR("SELECT 2"));
    }
    return true;
}

static void fake_run(struct fake *f, char how, const char *sql, bool describe)
{
    text_printf(&f->log, "%s%c:%s", f->log.len > 0 ? "\n" : "", how, sql);
    if (!fake_statement(f, sql, describe) && how == 'X')
        f->skipping = true;
}

static void fake_on_execute(struct fake *f, struct str body)
{
    struct msg_execute m;

    assert_true(wire_decode_execute(body, &m));
    if (str_equal(m.portal, STR("__pgt_p"))) {
        fake_run(f, 'X', f->parsed, false);
    } else {
        char sql[64];

        snprintf(sql, sizeof(sql), STR_FMT, STR_ARG(m.portal));
        fake_run(f, 'X', sql, false);
    }
}

static void fake_ready(struct fake *f)
{
    wire_encode_ready(&f->out, (enum wire_status)f->status);
}

static void fake_on_message(struct fake *f, char tag, struct str body)
{
    if (f->skipping && tag != FE_SYNC)
        return;
    switch (tag) {
    case FE_QUERY: {
        struct str sql;
        char *copy;

        assert_true(wire_decode_query(body, &sql));
        copy = strndup(sql.ptr, sql.len);
        fake_run(f, 'Q', copy, true);
        free(copy);
        if (!f->copying)
            fake_ready(f);
        break;
    }
    case FE_COPY_FAIL:
        f->copying = false;
        fake_error(f, "57014", NULL);
        fake_ready(f);
        break;
    case FE_PARSE: {
        struct msg_parse m;

        assert_true(wire_decode_parse(body, &m));
        assert_true(str_equal(m.statement, STR("__pgt_s"))); /* the client's unnamed one survives */
        free(f->parsed);
        f->parsed = strndup(m.query.ptr, m.query.len);
        wire_put_empty(&f->out, BE_PARSE_COMPLETE);
        break;
    }
    case FE_BIND:
        wire_put_empty(&f->out, BE_BIND_COMPLETE);
        break;
    case FE_DESCRIBE: {
        struct row_column column = { .name = STR("n"), .type_oid = TYPE_OID_TEXT };

        if (strncmp(f->parsed, "SELECT", 6) == 0)
            wire_encode_row_description(&f->out, &column, 1);
        else
            wire_put_empty(&f->out, BE_NO_DATA);
        break;
    }
    case FE_EXECUTE:
        fake_on_execute(f, body);
        break;
    case FE_CLOSE:
        wire_put_empty(&f->out, BE_CLOSE_COMPLETE);
        break;
    case FE_SYNC:
        f->skipping = false;
        fake_ready(f);
        break;
    case FE_FLUSH:
        break;
    default:
        fail_msg("unexpected message %c", tag);
    }
}

static void *fake_main(void *arg)
{
    struct fake *f = arg;

    for (;;) {
        struct wire_frame frame;
        ssize_t n = recv(f->fd, bytequeue_reserve(&f->in, 4096), 4096, 0);

        if (n <= 0)
            return NULL;
        bytequeue_commit(&f->in, (size_t)n);
        while (wire_next_frame(SENT_BY_FRONTEND, bytequeue_str(&f->in), &frame) == WIRE_FRAME) {
            fake_on_message(f, frame.tag, frame.body);
            bytequeue_consume(&f->in, frame.bytes.len);
            if (f->die_at > 0 && f->n_statements >= f->die_at) {
                shutdown(f->fd, SHUT_RDWR);
                return NULL;
            }
        }
        while (bytequeue_len(&f->out) > 0) {
            struct str bytes = bytequeue_str(&f->out);

            n = send(f->fd, bytes.ptr, bytes.len, MSG_NOSIGNAL);
            if (n <= 0)
                return NULL;
            bytequeue_consume(&f->out, (size_t)n);
        }
    }
}

/* ---- a world --------------------------------------------------------------------------------- */

struct world {
    struct fake fake;
    struct dvm dvm;
    struct dvm_target target;
    struct lend_job job;
    struct bytequeue client;
    struct text seen; /* what the client got, as text */
};

static bool to_client(void *arg, const void *bytes, size_t len)
{
    struct world *w = arg;

    bytequeue_put(&w->client, bytes, len);
    return true;
}

static struct world *world_new(char status)
{
    struct world *w = mem_alloc(sizeof(*w));
    int fds[2];

    *w = (struct world){ 0 };
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    assert_int_equal(fcntl(fds[0], F_SETFL, O_NONBLOCK), 0); /* as the event loop leaves it */
    w->fake.fd = fds[1];
    w->fake.status = status;
    text_put(&w->fake.log, "");
    text_put(&w->dvm.calls, "");
    w->target.database = "db";
    w->job = (struct lend_job){
        .dvm = &w->dvm,
        .target = &w->target,
        .stream = { .fd = fds[0] },
        .server_version = 150020,
        .in_block = status == 'T',
        .standard_conforming_strings = true,
        .emit = to_client,
        .emit_arg = w,
    };
    return w;
}

static void start(struct world *w)
{
    assert_int_equal(pthread_create(&w->fake.thread, NULL, fake_main, &w->fake), 0);
}

static void stop(struct world *w)
{
    assert_true(fcntl(w->job.stream.fd, F_GETFL) & O_NONBLOCK);
    shutdown(w->job.stream.fd, SHUT_RDWR);
    pthread_join(w->fake.thread, NULL);
}

static void world_free(struct world *w)
{
    close(w->job.stream.fd);
    close(w->fake.fd);
    bytequeue_free(&w->fake.in);
    bytequeue_free(&w->fake.out);
    bytequeue_free(&w->client);
    text_free(&w->fake.log);
    text_free(&w->dvm.calls);
    text_free(&w->seen);
    text_free(&w->job.parameters);
    err_clear(&w->job.err);
    free(w->fake.parsed);
    free(w);
}

static void put_field(struct text *t, struct str body, enum notice_field field, const char *name)
{
    struct str value = notice_get(body, field);

    if (value.ptr != NULL)
        text_printf(t, " %s=" STR_FMT, name, STR_ARG(value));
}

/* "T D D C[SELECT 2] Z[I]" */
static const char *seen(struct world *w)
{
    struct wire_frame f;

    text_clear(&w->seen);
    text_put(&w->seen, "");
    while (wire_next_frame(SENT_BY_BACKEND, bytequeue_str(&w->client), &f) == WIRE_FRAME) {
        text_printf(&w->seen, "%s%c", w->seen.len > 0 ? " " : "", f.tag);
        if (f.tag == BE_COMMAND_COMPLETE)
            text_printf(&w->seen, "[%s]", f.body.ptr);
        if (f.tag == BE_READY_FOR_QUERY)
            text_printf(&w->seen, "[%c]", f.body.ptr[0]);
        if (f.tag == BE_ERROR || f.tag == BE_NOTICE) {
            text_put(&w->seen, "[");
            text_put_str(&w->seen, notice_get(f.body, NOTICE_SQLSTATE));
            put_field(&w->seen, f.body, NOTICE_POSITION, "P");
            put_field(&w->seen, f.body, NOTICE_INTERNAL_POSITION, "p");
            put_field(&w->seen, f.body, NOTICE_INTERNAL_QUERY, "q");
            text_put(&w->seen, "]");
        }
        bytequeue_consume(&w->client, f.bytes.len);
    }
    assert_int_equal(bytequeue_len(&w->client), 0);
    return w->seen.ptr;
}

static void run_query(struct world *w, const char *sql)
{
    w->job.kind = LEND_SIMPLE_QUERY;
    w->job.query = str_from(sql);
    start(w);
    lend_run(&w->job);
    stop(w);
}

static void assert_query(char status, const char *sql, const char *client, const char *server)
{
    struct world *w = world_new(status);

    run_query(w, sql);
    assert_string_equal(seen(w), client);
    assert_string_equal(w->fake.log.ptr, server);
    world_free(w);
}

/* ---- simple queries -------------------------------------------------------------------------- */

#define DROP_SQL                                                                                   \
    "CALL pgtrickle._ddl('{\"op\":\"drop\",\"names\":[{\"schema\":null,\"name\":\"t\"}],"          \
    "\"if_exists\":false,\"cascade\":false}'::pg_catalog.jsonb)"
static void test_an_empty_query(void **state)
{
    (void)state;
    assert_query('I', " -- nothing\n;", "I Z[I]", "");
}

static void test_one_statement_gets_a_block_of_its_own(void **state)
{
    (void)state;
    assert_query('I', "DROP STREAM TABLE t", "C[DROP STREAM TABLE] Z[I]",
                 "Q:BEGIN\nQ:" DROP_SQL "\nQ:COMMIT");
    assert_query('T', "DROP STREAM TABLE t", "C[DROP STREAM TABLE] Z[T]", "Q:" DROP_SQL);
}

static void test_a_request_is_completed_before_the_statement_is(void **state)
{
    struct world *w = world_new('I');

    (void)state;
    run_query(w, "select request()");
    assert_string_equal(seen(w), "T D D N[00000] C[SELECT 2] Z[I]");
    assert_string_equal(w->fake.log.ptr, "Q:BEGIN\nQ:select request()\n"
                                         "X:SELECT args OPERATOR(pg_catalog.->>) 'query' FROM "
                                         "pgtrickle.pgt_requests WHERE xid OPERATOR(pg_catalog.=) "
                                         "pg_catalog.pg_current_xact_id()\n"
                                         "X:SELECT rows\nQ:COMMIT");
    assert_string_equal(w->dvm.calls.ptr, "install(db) complete wake ");
    assert_int_equal(w->job.tx_status, 'I');
    assert_false(w->job.failed);
    world_free(w);
}

static void test_a_refused_definition_fails_its_statement(void **state)
{
    static const char sql[] = "select 1; create stream table \xc3\xa4 as select x; select 2";
    struct world *w = world_new('I');
    char expected[64];

    (void)state;
    w->dvm.complete_fails = true;
    w->dvm.position = 8;
    run_query(w, sql);
    /* character 8 of the definition, and one byte of the name that is no character */
    snprintf(expected, sizeof(expected), "T D D C[SELECT 2] N[00000] E[0A000 P=%d] Z[I]",
             (int)(strstr(sql, "select x") - sql) - 1 + 8);
    assert_string_equal(seen(w), expected);
    assert_true(has(w->fake.log.ptr, "Q:ROLLBACK"));
    assert_false(has(w->fake.log.ptr, "Q:COMMIT"));
    assert_false(has(w->fake.log.ptr, "Q:select 2"));
    assert_true(w->job.failed);
    world_free(w);
}

static void test_a_refused_definition_of_a_function_call_is_the_internal_query(void **state)
{
    struct world *w = world_new('T');

    (void)state;
    w->dvm.complete_fails = true;
    w->dvm.position = 8;
    run_query(w, "select request()");
    /* the fake lists two definitions: no telling which */
    assert_string_equal(seen(w), "T D D N[00000] E[0A000] Z[E]");
    assert_int_equal(w->job.tx_status, 'E');
    world_free(w);
}

static void test_several_statements_are_one_transaction(void **state)
{
    (void)state;
    assert_query('I', "select 1; DROP STREAM TABLE t; select 2",
                 "T D D C[SELECT 2] C[DROP STREAM TABLE] T D D C[SELECT 2] Z[I]",
                 "Q:BEGIN\nQ:select 1\nQ:" DROP_SQL "\nQ:select 2\nQ:COMMIT");
}

static void test_an_error_skips_the_rest(void **state)
{
    (void)state;
    assert_query('I', "select 1; select fail; DROP STREAM TABLE t",
                 "T D D C[SELECT 2] E[22012 P=18] Z[I]",
                 "Q:BEGIN\nQ:select 1\nQ:select fail\nQ:ROLLBACK");
    assert_query('T', "select fail; DROP STREAM TABLE t", "E[22012 P=8] Z[E]", "Q:select fail");
}

static void test_begin_in_the_middle_makes_the_block_the_clients(void **state)
{
    (void)state;
    assert_query('I', "select 1; BEGIN; DROP STREAM TABLE t",
                 "T D D C[SELECT 2] C[BEGIN] C[DROP STREAM TABLE] Z[T]",
                 "Q:BEGIN\nQ:select 1\nQ:BEGIN\nQ:" DROP_SQL);
    assert_query('I', "BEGIN; DROP STREAM TABLE t; COMMIT",
                 "C[BEGIN] C[DROP STREAM TABLE] C[COMMIT] Z[I]",
                 "Q:BEGIN\nQ:" DROP_SQL "\nQ:COMMIT");
}

static void test_commit_in_the_middle_ends_the_block(void **state)
{
    (void)state;
    assert_query('I', "DROP STREAM TABLE t; COMMIT; select 1",
                 "C[DROP STREAM TABLE] N[25P01] C[COMMIT] T D D C[SELECT 2] Z[I]",
                 "Q:BEGIN\nQ:" DROP_SQL "\nQ:COMMIT\nQ:BEGIN\nQ:select 1\nQ:COMMIT");
}

static void test_savepoint_needs_a_real_block(void **state)
{
    (void)state;
    assert_query('I', "DROP STREAM TABLE t; SAVEPOINT s", "C[DROP STREAM TABLE] E[25P01] Z[I]",
                 "Q:BEGIN\nQ:" DROP_SQL "\nQ:ROLLBACK");
}

static void test_a_syntax_error_of_ours_aborts_the_clients_transaction(void **state)
{
    (void)state;
    assert_query('T', "select 1; DROP STREAM TABLE", "T D D C[SELECT 2] E[42601 P=28] Z[E]",
                 "Q:select 1\nQ:ROLLBACK TO SAVEPOINT \"__pgt_no_such_savepoint\"");
    assert_query('I', "DROP STREAM TABLE", "E[42601 P=18] Z[I]", "");
}

static void test_a_failing_commit_replaces_the_completion(void **state)
{
    struct world *w = world_new('I');

    (void)state;
    w->fake.commit_fails = true;
    run_query(w, "DROP STREAM TABLE t");
    assert_string_equal(seen(w), "E[23503] Z[I]");
    assert_true(w->job.failed);
    world_free(w);
}

static void test_what_can_not_run_in_a_block_does_not(void **state)
{
    (void)state;
    assert_query('I', "vacuum /* pgtrickle.create_stream_table */", "T D D C[SELECT 2] Z[I]",
                 "Q:vacuum /* pgtrickle.create_stream_table */");
    /* such a block commits by itself; its request is left to the scheduler, and the client told */
    assert_query('I', "DO $$ request; commit $$", "N[PGT00] T D D C[SELECT 2] Z[I]",
                 "Q:DO $$ request; commit $$");
}

static void test_copy_from_stdin_is_refused(void **state)
{
    (void)state;
    assert_query('I', "copyin; DROP STREAM TABLE t", "E[0A000] Z[I]",
                 "Q:BEGIN\nQ:copyin\nQ:ROLLBACK");
}

static void test_parameter_changes_reach_client_and_session(void **state)
{
    struct world *w = world_new('T');
    struct wire_frame f;

    (void)state;
    run_query(w, "set timezone to utc");
    assert_string_equal(seen(w), "S C[SET] Z[T]");
    assert_int_equal(wire_next_frame(SENT_BY_BACKEND, text_str(&w->job.parameters), &f),
                     WIRE_FRAME);
    assert_int_equal(f.tag, BE_PARAMETER_STATUS);
    world_free(w);
}

#define EXPLAIN_SQL(mode)                                                                          \
    "SELECT pg_catalog.set_config('pgtrickle.explain', pg_catalog.concat((SELECT "                 \
    "pg_catalog.string_agg(line, E'\\n' ORDER BY n) FROM pgtrickle._explain_lines("                \
    "pg_catalog.jsonb_populate_record(NULL::pgtrickle.pgt_stream_tables, "                         \
    "'{\"status\":\"not "                                                                          \
    "created\",\"time_dependent\":false,\"pgt_schema\":\"s\",\"pgt_name\":\"t\","                  \
    "\"refresh_mode\":\"" mode                                                                     \
    "\",\"strategy\":null,\"downgrade_reason\":null,\"key_columns\":[],"                           \
    "\"plan\":{\"explain\":\"it''s\"}}'::pg_catalog.jsonb)) WITH ORDINALITY AS l (line, n)), "     \
    "''), "                                                                                        \
    "true)"

static void test_positions_of_notices_are_the_clients_too(void **state)
{
    struct world *w = world_new('T');

    (void)state;
    run_query(w, "select 1; select warn");
    assert_string_equal(seen(w), "T D D C[SELECT 2] N[22P06 P=18] T D D C[SELECT 2] Z[T]");
    world_free(w);

    w = world_new('T');
    run_query(w, "create stream table t as select warn");
    assert_string_equal(seen(w), "N[22P06] N[00000] C[CREATE STREAM TABLE] Z[T]");
    world_free(w);
}

static void test_explain_create(void **state)
{
    (void)state;
    assert_query('I', "EXPLAIN CREATE STREAM TABLE s.t WITH (schedule = immediate) AS select 1",
                 "T D D C[EXPLAIN] Z[I]",
                 "Q:BEGIN\nX:" EXPLAIN_SQL(
                     "IMMEDIATE") "\nQ:SELECT * FROM pgtrickle._explain_result()\nQ:COMMIT");
    assert_query('I', "EXPLAIN CREATE STREAM TABLE s.t AS bad", "E[0A000 P=37] Z[I]",
                 "Q:BEGIN\nQ:ROLLBACK");
}

static void test_a_failed_installation_is_the_answer(void **state)
{
    struct world *w = world_new('T');

    (void)state;
    w->dvm.install_fails = true;
    run_query(w, "DROP STREAM TABLE t");
    assert_string_equal(seen(w), "E[42501] Z[E]");
    assert_string_equal(w->fake.log.ptr, "Q:ROLLBACK TO SAVEPOINT \"__pgt_no_such_savepoint\"");
    world_free(w);
}

static void test_a_server_that_dies_ends_the_job(void **state)
{
    (void)state;
    for (int at = 1; at <= 3; at++) {
        struct world *w = world_new('I');

        w->fake.die_at = at;
        run_query(w, "create stream table t as select 1; select 2");
        assert_true(w->job.server_broken);
        assert_true(w->job.failed);
        assert_false(has(seen(w), "Z"));
        world_free(w);
    }
}

/* ---- one Execute ----------------------------------------------------------------------------- */

static void run_execute(struct world *w, const char *portal, const char *tag, const char *text)
{
    struct bytequeue frame = { 0 };

    wire_encode_execute(&frame, str_from(portal), 0);
    w->job.kind = LEND_EXECUTE;
    w->job.execute = bytequeue_str(&frame);
    w->job.execute_tag = tag;
    w->job.statement_text = str_from(text);
    w->job.definition_offset = 24;
    lend_run(&w->job);
    bytequeue_free(&frame);
}

static void test_execute_in_autocommit_opens_a_block(void **state)
{
    struct world *w = world_new('I');

    (void)state;
    start(w);
    run_execute(w, "CALL request", "CREATE STREAM TABLE", "create stream table t as select 1");
    assert_string_equal(seen(w), "N[00000] C[CREATE STREAM TABLE]");
    assert_true(w->job.opened_block);
    assert_int_equal(w->job.tx_status, 'T');
    lend_end_block(&w->job);
    assert_string_equal(seen(w), "Z[I]");
    assert_int_equal(w->job.tx_status, 'I');
    stop(w);
    assert_string_equal(w->fake.log.ptr, "X:BEGIN\nX:CALL request\nX:SELECT rows\nX:COMMIT");
    assert_string_equal(w->dvm.calls.ptr, "complete wake ");
    world_free(w);
}

static void test_execute_of_what_commits_by_itself_opens_none(void **state)
{
    struct world *w = world_new('I');

    (void)state;
    start(w);
    run_execute(w, "DO request", NULL, "do $$ begin perform request(); commit; end $$");
    stop(w);
    assert_string_equal(seen(w), "N[PGT00] D D C[SELECT 2]");
    assert_false(w->job.opened_block);
    assert_string_equal(w->fake.log.ptr, "X:DO request");
    world_free(w);
}

static void test_execute_in_a_block_leaves_it_open(void **state)
{
    struct world *w = world_new('T');

    (void)state;
    start(w);
    run_execute(w, "SELECT request", NULL, "select request()");
    stop(w);
    assert_string_equal(seen(w), "D D N[00000] C[SELECT 2]");
    assert_false(w->job.opened_block);
    assert_int_equal(w->job.tx_status, 'T');
    world_free(w);
}

static void test_a_begin_in_the_same_pipeline_keeps_the_block(void **state)
{
    struct world *w = world_new('I');

    (void)state;
    w->fake.status = 'T'; /* the session has not been told yet */
    start(w);
    run_execute(w, "CALL request", "CREATE STREAM TABLE", "create stream table t as select 1");
    stop(w);
    assert_string_equal(seen(w), "N[00000] C[CREATE STREAM TABLE]");
    assert_false(w->job.opened_block);
    world_free(w);
}

static void test_a_failed_execute_rolls_back_at_sync(void **state)
{
    struct world *w = world_new('I');

    (void)state;
    start(w);
    run_execute(w, "CALL fail", "CREATE STREAM TABLE", "create stream table t as select 1");
    assert_string_equal(seen(w), "E[22012]");
    assert_true(w->job.failed);
    assert_true(w->job.opened_block);
    assert_int_equal(w->job.tx_status, 'E');
    lend_end_block(&w->job);
    assert_string_equal(seen(w), "Z[I]");
    stop(w);
    assert_string_equal(w->fake.log.ptr, "X:BEGIN\nX:CALL fail\nX:ROLLBACK");
    world_free(w);
}

static void test_a_refused_definition_fails_its_execute(void **state)
{
    struct world *w = world_new('I');

    (void)state;
    w->dvm.complete_fails = true;
    w->dvm.position = 3;
    start(w);
    run_execute(w, "CALL request", "CREATE STREAM TABLE", "create stream table t as select 1");
    assert_string_equal(seen(w), "N[00000] E[0A000 P=27]");
    lend_end_block(&w->job);
    assert_string_equal(seen(w), "Z[I]");
    stop(w);
    assert_false(has(w->fake.log.ptr, "COMMIT"));
    world_free(w);
}

static void test_a_commit_that_fails_at_sync_is_an_error(void **state)
{
    struct world *w = world_new('I');

    (void)state;
    w->fake.commit_fails = true;
    start(w);
    run_execute(w, "CALL x", "DROP STREAM TABLE", "drop stream table t");
    assert_string_equal(seen(w), "C[DROP STREAM TABLE]");
    lend_end_block(&w->job);
    assert_string_equal(seen(w), "E[23503] Z[I]");
    stop(w);
    world_free(w);
}

static void test_explain_create_by_execute(void **state)
{
    struct world *w = world_new('I');

    (void)state;
    start(w);
    run_execute(w, "SELECT result", "EXPLAIN", "explain create stream table s.t as select 1");
    lend_end_block(&w->job);
    stop(w);
    assert_string_equal(seen(w), "D D C[EXPLAIN] Z[I]");
    assert_string_equal(w->fake.log.ptr,
                        "X:BEGIN\nX:" EXPLAIN_SQL("DIFFERENTIAL") "\nX:SELECT result\nX:COMMIT");
    world_free(w);
}

/* ---- the other jobs -------------------------------------------------------------------------- */

static void test_complete_after_a_forwarded_statement(void **state)
{
    struct world *w = world_new('T');

    (void)state;
    w->job.kind = LEND_COMPLETE;
    start(w);
    lend_run(&w->job);
    stop(w);
    assert_string_equal(seen(w), "N[00000] Z[T]");
    world_free(w);

    w = world_new('T');
    w->job.kind = LEND_COMPLETE;
    w->dvm.complete_fails = true;
    start(w);
    lend_run(&w->job);
    stop(w);
    assert_string_equal(seen(w), "N[00000] E[0A000] Z[E]");
    world_free(w);

    w = world_new('I');
    w->job.kind = LEND_COMPLETE;
    start(w);
    lend_run(&w->job);
    stop(w);
    assert_string_equal(seen(w), "Z[I]");
    assert_string_equal(w->dvm.calls.ptr, "wake ");
    world_free(w);
}

static void test_install(void **state)
{
    struct world *w = world_new('I');

    (void)state;
    w->job.kind = LEND_INSTALL;
    lend_run(&w->job);
    assert_false(w->job.failed);
    w->dvm.install_fails = true;
    lend_run(&w->job);
    assert_true(w->job.failed);
    assert_string_equal(w->job.err.sqlstate, "42501");
    world_free(w);
}

/* A server that answers with garbage: an end, no crash, no Z. */
static void test_garbage_breaks_the_connection(void **state)
{
    static const struct {
        const char *bytes;
        size_t len;
    } garbage[] = {
        { "GET / HTTP/1.0\r\n\r\n", 18 },
        { "Z\0\0\0\5X", 6 },
        { "Z\0\0\0\4", 5 },
        { "D\0\0\0\6\0", 6 },
        { "E\x7f\xff\xff\xff", 5 },
        { "K\0\0\0\x0c\0\0\0\0\0\0\0\0", 13 },
        { "\0\0\0\0\0", 5 },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(garbage) / sizeof(garbage[0]); i++) {
        struct world *w = world_new('T');

        assert_int_equal(send(w->fake.fd, garbage[i].bytes, garbage[i].len, MSG_NOSIGNAL),
                         garbage[i].len);
        shutdown(w->fake.fd, SHUT_WR);
        w->job.kind = LEND_SIMPLE_QUERY;
        w->job.query = STR("DROP STREAM TABLE t");
        lend_run(&w->job);
        assert_true(w->job.server_broken);
        assert_false(has(seen(w), "Z"));
        world_free(w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_empty_query),
        cmocka_unit_test(test_one_statement_gets_a_block_of_its_own),
        cmocka_unit_test(test_a_request_is_completed_before_the_statement_is),
        cmocka_unit_test(test_a_refused_definition_fails_its_statement),
        cmocka_unit_test(test_a_refused_definition_of_a_function_call_is_the_internal_query),
        cmocka_unit_test(test_several_statements_are_one_transaction),
        cmocka_unit_test(test_an_error_skips_the_rest),
        cmocka_unit_test(test_begin_in_the_middle_makes_the_block_the_clients),
        cmocka_unit_test(test_commit_in_the_middle_ends_the_block),
        cmocka_unit_test(test_savepoint_needs_a_real_block),
        cmocka_unit_test(test_a_syntax_error_of_ours_aborts_the_clients_transaction),
        cmocka_unit_test(test_a_failing_commit_replaces_the_completion),
        cmocka_unit_test(test_what_can_not_run_in_a_block_does_not),
        cmocka_unit_test(test_copy_from_stdin_is_refused),
        cmocka_unit_test(test_parameter_changes_reach_client_and_session),
        cmocka_unit_test(test_positions_of_notices_are_the_clients_too),
        cmocka_unit_test(test_explain_create),
        cmocka_unit_test(test_a_failed_installation_is_the_answer),
        cmocka_unit_test(test_a_server_that_dies_ends_the_job),
        cmocka_unit_test(test_execute_in_autocommit_opens_a_block),
        cmocka_unit_test(test_execute_of_what_commits_by_itself_opens_none),
        cmocka_unit_test(test_execute_in_a_block_leaves_it_open),
        cmocka_unit_test(test_a_begin_in_the_same_pipeline_keeps_the_block),
        cmocka_unit_test(test_a_failed_execute_rolls_back_at_sync),
        cmocka_unit_test(test_a_refused_definition_fails_its_execute),
        cmocka_unit_test(test_a_commit_that_fails_at_sync_is_an_error),
        cmocka_unit_test(test_explain_create_by_execute),
        cmocka_unit_test(test_complete_after_a_forwarded_statement),
        cmocka_unit_test(test_install),
        cmocka_unit_test(test_garbage_breaks_the_connection),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
