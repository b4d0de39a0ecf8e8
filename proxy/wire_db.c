#include "proxy/wire_db.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "dvm/dvm.h"
#include "protocol/notice.h"
#include "protocol/query_extended.h"
#include "protocol/result.h"
#include "protocol/status.h"
#include "protocol/writer.h"

enum {
    RECEIVE_SIZE = 64 * 1024,
    PIECE_SIZE = 16 * 1024,        /* a longer row goes in pieces */
    WHOLE_MAX = 256 * 1024 * 1024, /* what must be held whole: errors, rows for ourselves */
    CELLS_MAX = 64 * 1024 * 1024,  /* in a result for ourselves */
};

#define OUR_STATEMENT STR("__pgt_s")
#define OUR_PORTAL STR("__pgt_p")

static bool lost(struct wire_db *w, struct err *e, const char *what)
{
    w->broken = true;
    return err_set(e, ERR_PEER, "08006", "%s", what);
}

bool wire_db_malformed(struct wire_db *w, char tag, struct err *e)
{
    w->broken = true;
    return err_set(e, ERR_PEER, "08P01", "unexpected message from the server: %s",
                   wire_message_name(SENT_BY_BACKEND, tag));
}

static ssize_t send_some(const struct lent_stream *s, const void *bytes, size_t n)
{
    return s->send != NULL ? s->send(s->tls, bytes, n) : send(s->fd, bytes, n, MSG_NOSIGNAL);
}

static ssize_t receive_some(const struct lent_stream *s, void *to, size_t size)
{
    return s->recv != NULL ? s->recv(s->tls, to, size) : recv(s->fd, to, size, 0);
}

bool wire_db_send(struct wire_db *w, struct err *e)
{
    while (bytequeue_len(&w->out) > 0) {
        struct str bytes = bytequeue_str(&w->out);
        ssize_t n;

        if (w->broken)
            return lost(w, e, "the connection to the server is lost");
        n = send_some(&w->stream, bytes.ptr, bytes.len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return lost(w, e, "could not send to the server");
        bytequeue_consume(&w->out, (size_t)n);
    }
    return true;
}

static bool receive_more(struct wire_db *w, struct err *e)
{
    ssize_t n;

    if (w->listener.before_wait != NULL)
        w->listener.before_wait(w->listener.arg);
    do
        n = receive_some(&w->stream, bytequeue_reserve(&w->in, RECEIVE_SIZE), RECEIVE_SIZE);
    while (n < 0 && errno == EINTR);
    if (n <= 0)
        return lost(w, e, "server closed the connection unexpectedly");
    bytequeue_commit(&w->in, (size_t)n);
    return true;
}

static bool may_come_in_pieces(char tag)
{
    return tag == BE_DATA_ROW || tag == BE_COPY_DATA || tag == BE_ROW_DESCRIPTION;
}

/* The next piece; rows in pieces only when the caller can do with them. */
static bool next_piece(struct wire_db *w, bool whole, struct wire_piece *p, struct err *e)
{
    bytequeue_consume(&w->in, w->taken);
    w->taken = 0;
    for (;;) {
        struct str bytes = bytequeue_str(&w->in);
        struct wire_header h;

        if (w->broken)
            return lost(w, e, "the connection to the server is lost");
        if (wire_reader_is_between(&w->reader) &&
            wire_peek_header(SENT_BY_BACKEND, bytes, &h) == WIRE_FRAME) {
            w->reader.whole_max = !whole && may_come_in_pieces(h.tag) ? PIECE_SIZE : WHOLE_MAX;
            if (w->reader.whole_max == WHOLE_MAX && h.body_len > WHOLE_MAX - WIRE_HEADER_LEN)
                return lost(w, e, "the server sent a message that is too long");
        }
        switch (wire_reader_next(&w->reader, bytes, p)) {
        case WIRE_FRAME:
            w->taken = p->bytes.len;
            return true;
        case WIRE_NEED_MORE:
            if (!receive_more(w, e))
                return false;
            break;
        case WIRE_MALFORMED:
            w->broken = true;
            return err_set(e, ERR_PEER, "08P01", "invalid message from the server");
        }
    }
}

/* Takes what a server may send at any time; false when the message is an answer. */
static bool is_aside(struct wire_db *w, const struct wire_piece *p)
{
    switch (p->tag) {
    case BE_NOTICE:
        if (notice_has_sqlstate(p->body, DVM_NOTICE_SQLSTATE)) {
            w->has_request = true;
            if (!w->shows_requests)
                return true;
        }
        break;
    case BE_PARAMETER_STATUS:
    case BE_NOTIFICATION:
        break;
    default:
        return false;
    }
    if (w->listener.aside != NULL)
        w->listener.aside(w->listener.arg, p->tag, p->bytes);
    return true;
}

static bool receive(struct wire_db *w, bool whole, struct wire_piece *p, struct err *e)
{
    enum wire_status status;

    do {
        if (!next_piece(w, whole, p, e))
            return false;
    } while (is_aside(w, p));
    if (p->tag == BE_READY_FOR_QUERY) {
        if (!wire_decode_ready(p->body, &status))
            return wire_db_malformed(w, p->tag, e);
        w->status = (char)status;
        w->names_in_use = false;
    } else if (p->tag == BE_ERROR && w->names_in_use) {
        w->left_names = true;
    }
    return true;
}

bool wire_db_receive(struct wire_db *w, struct wire_piece *p, struct err *e)
{
    return receive(w, false, p, e);
}

/* A prepared statement outlives an error in its execution, so names are freed before they are used
 * too: closing what does not exist is no error. */
static void put_close(struct wire_db *w)
{
    wire_encode_close(&w->out, TARGET_PORTAL, OUR_PORTAL);
    wire_encode_close(&w->out, TARGET_STATEMENT, OUR_STATEMENT);
}

static void use_names(struct wire_db *w)
{
    w->names_in_use = true;
    w->left_names = false;
    put_close(w);
}

void wire_db_put_statement(struct wire_db *w, const char *sql)
{
    use_names(w);
    wire_encode_parse(&w->out, OUR_STATEMENT, str_from(sql), NULL, 0);
    wire_encode_bind_text(&w->out, OUR_PORTAL, OUR_STATEMENT, NULL, 0);
    wire_encode_describe(&w->out, TARGET_PORTAL, OUR_PORTAL);
    wire_encode_execute(&w->out, OUR_PORTAL, 0);
    put_close(w);
    wire_encode_sync(&w->out);
}

/* ---- rows ---------------------------------------------------------------------------------- */

/* Cells while their number is not known. */
struct row_builder {
    struct arena *a;
    struct db_rows *rows;
    const char **cells; /* malloc */
    size_t n;
    size_t cap;
    int n_rows;
};

static const char *copy_str(struct arena *a, struct str s)
{
    return arena_strndup(a, s.ptr, s.len);
}

static bool take_columns(struct row_builder *b, struct str body)
{
    struct wire_cursor c;
    uint16_t n;

    if (!wire_decode_row_description(body, &n, &c))
        return false;
    b->rows->columns = arena_new_array(b->a, struct db_column, (size_t)n + 1);
    b->rows->n_columns = n;
    for (int i = 0; i < n; i++) {
        struct row_column column;

        wire_next_row_column(&c, &column);
        if (!wire_ok(&c))
            return false;
        b->rows->columns[i] = (struct db_column){
            .name = copy_str(b->a, column.name),
            .type_oid = column.type_oid,
            .typmod = column.type_modifier,
        };
    }
    return true;
}

static bool take_row(struct row_builder *b, struct str body)
{
    struct wire_cursor c;
    uint16_t n;

    if (!wire_decode_data_row(body, &n, &c) || n != b->rows->n_columns || b->n + n > CELLS_MAX)
        return false;
    if (b->n + n > b->cap) {
        b->cap = 2 * b->cap + n;
        b->cells = mem_realloc(b->cells, b->cap * sizeof(*b->cells));
    }
    for (int i = 0; i < n; i++) {
        bool is_null;
        struct str value = wire_value(&c, &is_null);

        if (!wire_ok(&c))
            return false;
        b->cells[b->n++] = is_null ? NULL : copy_str(b->a, value);
    }
    b->n_rows++;
    return true;
}

static void finish_rows(struct row_builder *b)
{
    b->rows->n_rows = b->n_rows;
    b->rows->cells = arena_new_array(b->a, const char *, b->n + 1);
    if (b->n > 0)
        memcpy(b->rows->cells, b->cells, b->n * sizeof(*b->cells));
}

/* Reads the answer up to ReadyForQuery. The first error of the server wins. n_params may be NULL.
 */
static bool take_answer(struct wire_db *w, struct row_builder *b, int *n_params, struct err *e)
{
    struct err later = { 0 };
    bool failed = false;
    struct wire_piece p;

    for (;;) {
        if (!receive(w, true, &p, failed ? &later : e)) { /* a FATAL error says more than the end */
            err_clear(&later);
            return false;
        }
        switch (p.tag) {
        case BE_PARSE_COMPLETE:
        case BE_BIND_COMPLETE:
        case BE_CLOSE_COMPLETE:
        case BE_NO_DATA:
        case BE_COMMAND_COMPLETE:
        case BE_EMPTY_QUERY:
            break;
        case BE_PARAMETER_DESCRIPTION: {
            struct wire_cursor c = wire_cursor(p.body);

            if (n_params != NULL)
                *n_params = wire_u16(&c);
            break;
        }
        case BE_ROW_DESCRIPTION:
            if (!take_columns(b, p.body))
                return wire_db_malformed(w, p.tag, e);
            break;
        case BE_DATA_ROW:
            if (!take_row(b, p.body))
                return wire_db_malformed(w, p.tag, e);
            break;
        case BE_ERROR:
            if (!failed)
                notice_decode_err(p.body, e);
            failed = true;
            break;
        case BE_READY_FOR_QUERY:
            return !failed;
        default: /* COPY, too: no statement of ours copies */
            return wire_db_malformed(w, p.tag, e);
        }
    }
}

static bool run(struct wire_db *w, struct arena *a, struct db_rows *rows, int *n_params,
                struct err *e)
{
    struct db_rows ignored;
    struct arena scratch;
    struct row_builder b = { .a = a, .rows = rows != NULL ? rows : &ignored };
    bool ok;

    arena_init(&scratch);
    if (rows == NULL || a == NULL)
        b.a = &scratch;
    *b.rows = (struct db_rows){ 0 };
    ok = wire_db_send(w, e) && take_answer(w, &b, n_params, e);
    if (ok)
        finish_rows(&b);
    free(b.cells);
    arena_free(&scratch);
    return ok;
}

static bool query(struct dvm_db *db, struct arena *a, const char *sql, struct db_rows *rows,
                  struct err *e)
{
    struct wire_db *w = (struct wire_db *)db;

    wire_db_put_statement(w, sql);
    return run(w, a, rows, NULL, e);
}

static bool describe(struct dvm_db *db, struct arena *a, const char *sql, struct db_rows *columns,
                     int *n_params, struct err *e)
{
    struct wire_db *w = (struct wire_db *)db;

    *n_params = 0;
    use_names(w);
    wire_encode_parse(&w->out, OUR_STATEMENT, str_from(sql), NULL, 0);
    wire_encode_describe(&w->out, TARGET_STATEMENT, OUR_STATEMENT);
    put_close(w);
    wire_encode_sync(&w->out);
    return run(w, a, columns, n_params, e);
}

static const struct dvm_db_ops wire_db_ops = { query, describe };

void wire_db_init(struct wire_db *w, const struct lent_stream *stream, int server_version,
                  char status, const struct wire_db_listener *listener)
{
    *w = (struct wire_db){
        .base = { &wire_db_ops, server_version },
        .stream = *stream,
        .listener = *listener,
        .status = status,
    };
    wire_reader_init(&w->reader, SENT_BY_BACKEND, PIECE_SIZE);
}

void wire_db_fini(struct wire_db *w)
{
    bytequeue_free(&w->in);
    bytequeue_free(&w->out);
}

/* With a Flush: a Sync would end an implicit transaction of the client's. */
bool wire_db_finish(struct wire_db *w, struct err *e)
{
    struct wire_piece p;
    int closed = 0;

    if (w->left_names) {
        w->left_names = false;
        put_close(w);
        wire_encode_flush(&w->out);
        if (!wire_db_send(w, e))
            return false;
        for (; closed < 2; closed++) {
            if (!receive(w, false, &p, e))
                return false;
            if (p.tag != BE_CLOSE_COMPLETE)
                return wire_db_malformed(w, p.tag, e);
        }
    }
    bytequeue_consume(&w->in, w->taken);
    w->taken = 0;
    while (bytequeue_len(&w->in) > 0) {
        if (!next_piece(w, false, &p, e))
            return false;
        if (!is_aside(w, &p))
            return wire_db_malformed(w, p.tag, e);
        bytequeue_consume(&w->in, w->taken);
        w->taken = 0;
    }
    return true;
}
