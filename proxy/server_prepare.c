/* The statements that a server has prepared: those that are wanted, within their limit. */
#include "base/text.h"
#include "protocol/query_extended.h"
#include "protocol/status.h"
#include "proxy/proxy.h"
#include "proxy/server_internal.h"

static struct proxy *proxy_of(const struct server *s)
{
    return s->conn.worker->proxy;
}

static void close_statement(struct server *s, struct statement *st)
{
    struct reply_owed *o = server_owe(s, ENDS_CLOSE, REPLY_SWALLOWED);

    o->statement = statement_ref(st);
    o->server_lacks = true;
    server_note_change(s, o);
    wire_encode_close(&s->conn.out, TARGET_STATEMENT, str_from(st->name));
    conn_flush(&s->conn);
    server_statements_remove(&s->statements, st, &proxy_of(s)->statements);
}

bool server_has_fresh(const struct server *s, const struct statement *st)
{
    return server_statements_is_fresh(&s->statements, st);
}

void server_distrust(struct server *s, struct statement *st, bool is_gone)
{
    struct server_statements *ss = &s->statements;

    if (is_gone)
        server_statements_remove(ss, st, &proxy_of(s)->statements);
    else if (server_statements_is_fresh(ss, st))
        atomic_fetch_add(&st->generation, 1);
}

void server_learned(struct server *s, struct statement *st)
{
    server_statements_add(&s->statements, st);
}

bool server_has_room(const struct server *s)
{
    return s->statements.lru.count < (unsigned)proxy_of(s)->config->max_prepared_statements;
}

void server_make_room(struct server *s, struct statement *st)
{
    unsigned max = (unsigned)proxy_of(s)->config->max_prepared_statements;

    if (server_statements_has(&s->statements, st))
        close_statement(s, st);
    while (max > 0 && s->statements.lru.count >= max)
        close_statement(s, server_statements_oldest(&s->statements));
}

/* PREPARE inside of a pipeline. What the name of the carrier still holds after an error is closed
 * before. */
static void send_sql_prepare(struct server *s, struct statement *st)
{
    struct bytequeue *out = &s->conn.out;
    struct str name = STR("PGTRICKLE_prepare");
    struct text sql;

    text_init(&sql);
    text_put(&sql, "PREPARE ");
    text_put_ident(&sql, st->name);
    text_put(&sql, " ");
    text_put_str(&sql, (struct str){ st->body, st->body_len });
    server_owe(s, ENDS_CLOSE, REPLY_SWALLOWED);
    wire_encode_close(out, TARGET_STATEMENT, name);
    server_owe(s, ENDS_PARSE, REPLY_SWALLOWED);
    wire_encode_parse(out, name, text_str(&sql), NULL, 0);
    server_owe(s, ENDS_BIND, REPLY_SWALLOWED);
    wire_encode_bind_text(out, name, name, NULL, 0);
    struct reply_owed *o = server_owe(s, ENDS_EXECUTE, REPLY_SWALLOWED);
    o->statement = statement_ref(st);
    o->server_has = true;
    server_note_change(s, o);
    wire_encode_execute(out, name, 0);
    server_owe(s, ENDS_CLOSE, REPLY_SWALLOWED);
    wire_encode_close(out, TARGET_PORTAL, name);
    server_owe(s, ENDS_CLOSE, REPLY_SWALLOWED);
    wire_encode_close(out, TARGET_STATEMENT, name);
    text_free(&sql);
}

void server_prepare(struct server *s, struct statement *st)
{
    /* In a transaction that failed nothing can be prepared, nor is anything used. */
    if (server_has_fresh(s, st) ||
        (s->tx_status == STATUS_FAILED && server_statements_has(&s->statements, st))) {
        server_statements_touch(&s->statements, st);
        return;
    }
    server_make_room(s, st);
    if (st->source == STATEMENT_SQL) {
        send_sql_prepare(s, st);
    } else {
        struct reply_owed *o = server_owe(s, ENDS_PARSE, REPLY_SWALLOWED);
        o->statement = statement_ref(st);
        o->server_has = true;
        server_note_change(s, o);
        wire_encode_parse_tail(&s->conn.out, str_from(st->name),
                               (struct str){ st->body, st->body_len });
    }
    conn_flush(&s->conn);
    server_learned(s, st);
    s->pool->stats.server_parses++;
}
