#include "proxy/batch.h"

#include "protocol/notice.h"
#include "protocol/query_extended.h"
#include "protocol/status.h"
#include "proxy/client.h"
#include "proxy/client_sql.h"
#include "proxy/pool.h"
#include "proxy/server.h"

bool batch_is_new(struct server *s)
{
    if (s->tx_status != STATUS_IDLE || s->in_pipeline || s->copy_in || s->retried)
        return false;
    /* What we send in front of it (parameters) is no part of it. */
    for (unsigned i = 0; i < s->owed.count; i++)
        if (server_owed_at(s, i)->audience != REPLY_SWALLOWED)
            return false;
    return true;
}

void batch_begin(struct server *s, struct reply_owed *o)
{
    batch_forget(s);
    o->retries = true;
    s->batch_grows = true;
}

void batch_add(struct server *s, struct str message, bool is_last)
{
    if (!s->batch_grows)
        return;
    if (bytequeue_len(&s->batch) + message.len > BATCH_KEPT_MAX) {
        batch_forget(s);
        return;
    }
    bytequeue_put(&s->batch, message.ptr, message.len);
    s->batch_grows = !is_last;
}

void batch_forget(struct server *s)
{
    s->batch_grows = false;
    bytequeue_consume(&s->batch, bytequeue_len(&s->batch));
}

static bool is_stale(struct str body)
{
    return notice_has_sqlstate(body, "0A000") &&
           str_equal(notice_get(body, NOTICE_ROUTINE), STR("RevalidateCachedQuery"));
}

/* One that we believed there. */
static bool is_gone(struct str body)
{
    return notice_has_sqlstate(body, "26000") &&
           str_find(notice_get(body, NOTICE_MESSAGE), STR("\"PGTRICKLE_")) >= 0;
}

/* The client learns in the batch what columns it gets. */
static bool describes(struct str batch)
{
    struct wire_frame f;

    while (wire_next_frame(SENT_BY_FRONTEND, batch, &f) == WIRE_FRAME) {
        if (f.tag == FE_DESCRIBE)
            return true;
        batch.ptr += f.bytes.len;
        batch.len -= f.bytes.len;
    }
    return false;
}

/* Only replies of this batch are owed. */
static bool is_last_batch(struct server *s)
{
    for (unsigned i = 0; i < s->owed.count; i++) {
        struct reply_owed *o = server_owed_at(s, i);
        if ((o->ends == ENDS_SYNC || o->ends == ENDS_QUERY) && i + 1 < s->owed.count)
            return false;
    }
    return true;
}

/* SHOW STATS counts what the client sent once. */
static void uncount(struct stats *stats, struct str batch)
{
    struct wire_frame f;

    while (wire_next_frame(SENT_BY_FRONTEND, batch, &f) == WIRE_FRAME) {
        stats->client_parses -= f.tag == FE_PARSE;
        stats->binds -= f.tag == FE_BIND;
        batch.ptr += f.bytes.len;
        batch.len -= f.bytes.len;
    }
}

static void send_again(struct server *s)
{
    struct conn *client = &s->client->conn;
    struct bytequeue in = { 0 };

    uncount(&s->pool->stats, bytequeue_str(&s->batch));
    bytequeue_put(&in, bytequeue_str(&s->batch).ptr, bytequeue_len(&s->batch));
    bytequeue_put(&in, bytequeue_str(&client->in).ptr, bytequeue_len(&client->in));
    bytequeue_free(&client->in);
    client->in = in;
    batch_forget(s);
    s->retried = true;
    conn_wake(client);
}

bool batch_on_error(struct server *s, struct reply_owed *o, struct str body)
{
    struct client *c = s->client;
    bool stale = is_stale(body);

    if (o == NULL || (!stale && !is_gone(body)))
        return false;
    if (o->outcome != NULL)
        client_sql_distrust(s, o->outcome, !stale);
    struct client_statement *cs = NULL;
    if (c != NULL && o->serial != 0)
        cs = client_statement_by_serial(&c->statements, o->serial);
    if (cs != NULL && cs->statement != NULL)
        server_distrust(s, cs->statement, !stale);
    if (c == NULL || !o->retries || bytequeue_len(&s->batch) == 0 || !is_last_batch(s) ||
        !wire_reader_is_between(&c->reader))
        return false;
    if (cs != NULL && cs->was_described && o->ends == ENDS_BIND && stale &&
        !describes(bytequeue_str(&s->batch)))
        return false;
    /* Of a Describe that fails the first half has been answered. */
    s->had_params = stale && o->ends == ENDS_DESCRIBE;
    send_again(s);
    return true;
}
