/* The replies that a server owes: who shall see each, and what it changes. */
#include <stdlib.h>

#include "base/arena.h"
#include "protocol/status.h"
#include "protocol/writer.h"
#include "proxy/batch.h"
#include "proxy/client_sql.h"
#include "proxy/proxy.h"
#include "proxy/server_internal.h"

static struct proxy *proxy_of(const struct server *s)
{
    return s->conn.worker->proxy;
}

struct reply_owed *server_owe(struct server *s, enum reply_ends ends, enum reply_audience audience)
{
    struct reply_queue *q = &s->owed;

    if (q->count == q->cap) {
        unsigned cap = q->cap == 0 ? 16 : q->cap * 2;
        struct reply_owed *ring = mem_alloc(cap * sizeof(*ring));
        for (unsigned i = 0; i < q->count; i++)
            ring[i] = q->ring[(q->head + i) & (q->cap - 1)];
        free(q->ring);
        q->ring = ring;
        q->cap = cap;
        q->head = 0;
    }
    struct reply_owed *o = &q->ring[(q->head + q->count++) & (q->cap - 1)];
    *o = (struct reply_owed){ .ends = ends, .audience = audience };
    if (ends == ENDS_SYNC)
        s->n_changes_synced = s->n_changes;
    s->in_pipeline =
        s->in_pipeline || (audience != REPLY_FAKED && ends != ENDS_QUERY && ends != ENDS_SYNC);
    return o;
}

void server_note_copy_end(struct server *s)
{
    if (!s->copy_in && s->owed.count > 0)
        server_owed_at(s, s->owed.count - 1)->copy_ends++;
    s->copy_in = false;
}

/* CopyInResponse. Until the data ends the server ignores Sync: those that were sent behind the
 * command and in front of the end of the data, if that was sent already, are not answered. */
void server_on_copy_in(struct server *s)
{
    unsigned ignored = 0;

    if (s->owed.count == 0)
        return;
    while (server_owed_at(s, ignored)->copy_ends == 0 && ignored + 1 < s->owed.count &&
           server_owed_at(s, ignored + 1)->ends == ENDS_SYNC)
        ignored++;
    unsigned ends = server_owed_at(s, ignored)->copy_ends;
    for (unsigned i = 1; i + ignored < s->owed.count; i++)
        *server_owed_at(s, i) = *server_owed_at(s, i + ignored);
    s->owed.count -= ignored;
    server_owed_at(s, 0)->copy_ends = ends > 0 ? ends - 1 : 0;
    s->copy_in = ends == 0;
}

void server_note_change(struct server *s, struct reply_owed *o)
{
    o->is_change = true;
    s->n_changes++;
}

struct reply_owed *server_owed_at(struct server *s, unsigned i)
{
    return &s->owed.ring[(s->owed.head + i) & (s->owed.cap - 1)];
}

struct reply_owed *server_owed_first(struct server *s)
{
    return s->owed.count == 0 ? NULL : &s->owed.ring[s->owed.head];
}

/* Settings, and the question what a session left: not the client's. */
bool server_reply_is_own(const struct reply_owed *o)
{
    return o != NULL && (o->sets || o->looks);
}

void server_owed_pop(struct server *s)
{
    struct reply_owed *o = server_owed_first(s);

    if (o->is_change) {
        s->n_changes--;
        if (s->n_changes_synced > 0)
            s->n_changes_synced--;
    }
    if (o->statement != NULL)
        statement_unref(&proxy_of(s)->statements, o->statement);
    free(o->error);
    sql_outcome_free(o->outcome, s);
    s->owed.head = (s->owed.head + 1) & (s->owed.cap - 1);
    s->owed.count--;
}

/* The first owed reply arrived. */
void server_owed_succeed(struct server *s)
{
    struct reply_owed *o = server_owed_first(s);

    if (o->retries)
        batch_forget(s);
    if (o->client_lacks && s->client != NULL) {
        struct client_statement *cs = client_statement_by_serial(&s->client->statements, o->serial);
        if (cs != NULL)
            client_statement_remove(&s->client->statements, cs, &proxy_of(s)->statements);
    }
    server_owed_pop(s);
}

/* What was noted for a reply that never comes was not. */
static void undo(struct server *s, struct reply_owed *o)
{
    if (o->server_has)
        server_statements_remove(&s->statements, o->statement, &proxy_of(s)->statements);
    if (o->server_lacks) {
        server_statements_add(&s->statements, o->statement);
        server_statements_age(&s->statements, o->statement);
    }
    if ((o->client_has || o->client_lacks) && s->client != NULL) {
        struct client_statement *cs = client_statement_by_serial(&s->client->statements, o->serial);
        if (cs != NULL && o->client_lacks)
            cs->closing = false;
        else if (cs != NULL)
            client_statement_remove(&s->client->statements, cs, &proxy_of(s)->statements);
    }
}

/* The first n owed replies never come. The last is undone first: what one gave another took. */
void server_owed_drop(struct server *s, unsigned n)
{
    for (unsigned i = n; i > 0; i--)
        undo(s, server_owed_at(s, i - 1));
    for (; n > 0; n--)
        server_owed_pop(s);
}

void server_answer_fakes(struct server *s)
{
    struct reply_owed *o;

    while ((o = server_owed_first(s)) != NULL && o->audience == REPLY_FAKED) {
        if (s->client != NULL) {
            wire_put_empty(&s->client->conn.out,
                           o->ends == ENDS_PARSE ? BE_PARSE_COMPLETE : BE_CLOSE_COMPLETE);
            conn_flush(&s->client->conn);
        }
        server_owed_succeed(s);
    }
}

bool server_is_setting(const struct server *s)
{
    return s->owed.count > 0 && s->owed.ring[s->owed.head].sets;
}

bool server_is_quiet(const struct server *s)
{
    return s->owed.count == 0 && bytequeue_len(&s->conn.out) == 0 &&
           bytequeue_len(&s->conn.in) == 0;
}

bool server_is_clean(const struct server *s)
{
    return s->owed.count == 0 && s->tx_status == STATUS_IDLE && !s->copy_in && !s->marked &&
           s->reader.body_left == 0 && !s->in_pipeline;
}
