#include "proxy/takeover.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>

#include "base/arena.h"
#include "protocol/copy.h"
#include "protocol/message_types.h"
#include "protocol/startup.h"
#include "protocol/status.h"
#include "protocol/writer.h"
#include "proxy/client.h"
#include "proxy/credentials.h"
#include "proxy/login.h"
#include "proxy/pool.h"
#include "proxy/pool_common.h"
#include "proxy/record.h"
#include "proxy/server.h"
#include "proxy/session_state.h"
#include "proxy/settings.h"
#include "proxy/shutdown.h"

#define LOOK_US 2000
/* Clients stand still so long at most while servers finish what is ours. */
#define STILL_US 1000000
#define FDS_MAX 2

/* One record that was given away, kept until the other process has it all. */
struct item {
    struct list_node node;
    struct bytequeue record;
    int fds[FDS_MAX];
    size_t n_fds;
    bool is_listener; /* its descriptor is still in use here */
};

/* A statement by its number. */
struct numbered {
    struct map_node node;
    struct statement *statement; /* a reference */
};

static void numbered_add(struct map *m, uint64_t number, struct statement *s)
{
    struct numbered *n = mem_alloc(sizeof(*n));

    n->statement = s;
    map_insert(m, &n->node, number);
}

static void numbered_clear(struct map *m, struct statement_table *table)
{
    for (struct map_node *n; (n = map_any(m)) != NULL;) {
        struct numbered *e = MAP_ITEM(n, struct numbered, node);
        map_remove(m, n);
        statement_unref(table, e->statement);
        free(e);
    }
    map_free(m);
}

static bool is_kind(struct str record, const char *kind)
{
    struct str found;

    return record_get(record, "kind", &found) && str_equal(found, str_from(kind));
}

struct takeover {
    struct client *console;
    struct timer timer; /* of worker 0 */
    uint64_t began_us;
    uint64_t still_us; /* since when clients stand still; 0: they don't */
    bool packed;
    struct list first; /* struct item: what the others build on */
    struct list items; /* struct item: connections */
    /* struct numbered: kept, so that a statement has its number while nobody here uses it. */
    struct map statements;
};

struct takeover_restore {
    struct map statements; /* struct numbered */
    unsigned turn;         /* which worker gets the next idle server */
};

static struct takeover_restore *restore_new(void)
{
    struct takeover_restore *r = mem_alloc(sizeof(*r));

    map_init(&r->statements);
    return r;
}

static void restore_free(struct proxy *p)
{
    if (p->restore == NULL)
        return;
    numbered_clear(&p->restore->statements, &p->statements);
    free(p->restore);
    p->restore = NULL;
}

/* A field that struct client, server, … get is packed below, or listed here (tests/told.sh).
 *
 * Not told of struct client: worker_node pool_node wait_node cancel_node (places, taken anew)
 * names_shared counted_db counted_user counted wait_notified has_deadlines (begin anew)
 * cancel_key cancel_key_len session rare (told by functions of their own)
 * cut lend_block_failed install_tried (of what client_is_busy names, or of a moment)
 *
 * Not told of struct client_rare: admin (the console stays) install_error install_node (tried anew)
 * ends_server (it is at its end)
 *
 * Not told of struct server: pool_node worker_node (places) sent_to leaver letter opening
 * rolled_back to_discard batch_grows params_changed settings_hash (of what server_is_busy or
 * SERVER_IDLE rule out) n_changes (counted again) host_name (found by "host") batch (a batch that
 * fails is not sent again) binds bound scram login_job connect_query_sent asked_3_2 answered scram_done authenticated (its
 * login is over)
 *
 * Not told of struct reply_owed: retries (as batch)
 */

/* ---- packing ---------------------------------------------------------------------------- */

static struct item *item_new(struct list *to, const char *kind)
{
    struct item *i = mem_alloc(sizeof(*i));

    record_put(&i->record, "kind", str_from(kind));
    list_append(to, &i->node);
    return i;
}

static void item_add_fd(struct item *i, int fd)
{
    i->fds[i->n_fds++] = fd;
}

static void item_free(struct item *i)
{
    bytequeue_free(&i->record);
    free(i);
}

static void put_text(struct bytequeue *q, const char *name, const char *value)
{
    if (value != NULL)
        record_put(q, name, str_from(value));
}

static void put_bytes(struct bytequeue *q, const char *name, const void *bytes, size_t len)
{
    record_put(q, name, (struct str){ bytes, len });
}

/* A record within a record. */
static void put_record(struct bytequeue *q, const char *name, struct bytequeue *inner)
{
    record_put(q, name, bytequeue_str(inner));
    bytequeue_free(inner);
}

static void put_pair(struct bytequeue *q, const char *name, struct str key, struct str value)
{
    struct bytequeue pair = { 0 };

    record_put(&pair, "name", key);
    record_put(&pair, "value", value);
    put_record(q, name, &pair);
}

static void put_params(struct bytequeue *q, const struct params_names *names,
                       const struct params *p)
{
    for (int i = 0; i < names->count; i++)
        if (params_get(p, i) != NULL)
            put_pair(q, "param", str_from(names->name[i]), str_from(params_get(p, i)));
}

static void put_settings(struct bytequeue *q, const char *name, const struct settings *s)
{
    struct str key, value;

    for (size_t i = 0; i < settings_count(s); i++) {
        settings_at(s, i, &key, &value);
        put_pair(q, name, key, value);
    }
}

static void put_conn(struct bytequeue *q, const struct conn *c)
{
    put_text(q, "peer_host", c->peer.host);
    record_put_number(q, "peer_port", (uint64_t)c->peer.port);
    record_put_number(q, "peer_unix", c->peer.is_unix);
    record_put_number(q, "peer_pid", (uint64_t)c->peer.unix_pid);
    record_put_number(q, "peer_uid", c->peer.unix_uid);
    record_put(q, "in", bytequeue_str(&c->in));
    record_put(q, "out", bytequeue_str(&c->out));
    record_put_number(q, "paused", c->paused);
    record_put_number(q, "was_full", c->was_full);
}

static void put_reader(struct bytequeue *q, const struct wire_reader *r)
{
    if (wire_reader_is_between(r))
        return;
    record_put_number(q, "reader_tag", (unsigned char)r->tag);
    record_put_number(q, "reader_len", r->body_len);
    record_put_number(q, "reader_left", r->body_left);
}

static void pack_process(struct takeover *t, struct proxy *p)
{
    struct bytequeue *q = &item_new(&t->first, "process")->record;

    record_put_number(q, "last_id", p->last_id);
    record_put_number(q, "paused", p->paused);
    put_bytes(q, "mock_key", p->mock_key, sizeof(p->mock_key));
}

/* What a login on any worker brought. */
static void put_credentials(struct bytequeue *q, const struct pool_common *common)
{
    for (int i = 0; i < common->n_parts; i++) {
        const struct pool *pool = common->parts[i].pool;
        if (pool == NULL ||
            (pool->credentials.secret == NULL && pool->credentials.verifier == NULL))
            continue;
        const struct credentials *c = &pool->credentials;
        put_text(q, "secret", c->secret);
        put_text(q, "verifier", c->verifier);
        put_bytes(q, "client_key", c->keys.client_key, sizeof(c->keys.client_key));
        put_bytes(q, "server_key", c->keys.server_key, sizeof(c->keys.server_key));
        return;
    }
}

static void pack_databases(struct takeover *t, struct proxy *p)
{
    LIST_FOREACH(&p->database_list, dn)
    {
        const struct database *db = LIST_ITEM(dn, struct database, list_node);
        if (db->entry == NULL)
            continue;
        struct stats stats = proxy_database_stats(db);
        struct bytequeue *q = &item_new(&t->first, "database")->record;
        put_text(q, "name", db->name);
        record_put_number(q, "paused", db->paused);
        record_put_number(q, "disabled", db->disabled);
        put_bytes(q, "stats", &stats, sizeof(stats));
        LIST_FOREACH(&db->commons, cn)
        {
            const struct pool_common *c = LIST_ITEM(cn, struct pool_common, database_node);
            if (c->learned == 0)
                continue;
            q = &item_new(&t->first, "pool")->record;
            put_text(q, "database", db->name);
            put_text(q, "user", c->user->name);
            record_put_number(q, "forced", c->user_is_forced);
            record_put_number(q, "version", (uint64_t)c->server_version);
            record_put(q, "welcome", text_str(&c->welcome));
            put_params(q, &p->params_names, &c->parameters);
            put_credentials(q, c);
        }
    }
}

/* The number of a statement, whose record comes before all that names it. */
static uint64_t pack_statement(struct takeover *t, struct str database, struct statement *s)
{
    for (struct map_node *n = map_first(&t->statements, s->number); n != NULL; n = map_next_same(n))
        if (MAP_ITEM(n, struct numbered, node)->statement == s)
            return s->number;
    numbered_add(&t->statements, s->number, statement_ref(s));
    struct bytequeue *q = &item_new(&t->first, "statement")->record;
    record_put_number(q, "number", s->number);
    record_put_number(q, "source", s->source);
    record_put_number(q, "shared", s->shared);
    record_put(q, "database", database);
    put_bytes(q, "body", s->body, s->body_len);
    record_put(q, "settings", s->reading.settings);
    record_put_number(q, "ddl", s->reading.ddl);
    return s->number;
}

static void put_owed(struct takeover *t, struct bytequeue *q, struct str database,
                     const struct reply_owed *o)
{
    struct bytequeue r = { 0 };

    record_put_number(&r, "ends", o->ends);
    record_put_number(&r, "audience", o->audience);
    record_put_number(&r, "server_has", o->server_has);
    record_put_number(&r, "server_lacks", o->server_lacks);
    record_put_number(&r, "client_has", o->client_has);
    record_put_number(&r, "client_lacks", o->client_lacks);
    record_put_number(&r, "change", o->is_change);
    record_put_number(&r, "serial", o->serial);
    record_put_number(&r, "copy_ends", o->copy_ends);
    if (o->statement != NULL)
        record_put_number(&r, "statement", pack_statement(t, database, o->statement));
    if (o->error != NULL)
        put_bytes(&r, "error", o->error, o->error_len);
    put_record(q, "owed", &r);
}

/* Where its pool leads: another process may have another configuration. */
static void put_target(struct text *t, const struct database *db)
{
    const struct config_database *entry = db->entry;

    if (entry != NULL)
        text_printf(t, "%s:%d/%s", entry->host != NULL ? entry->host : "", entry->port,
                    db->server_dbname);
}

static void put_server(struct takeover *t, struct bytequeue *q, const struct server *s)
{
    const struct proxy *p = s->conn.worker->proxy;
    char tx_status[1] = { s->tx_status };
    struct text target;

    text_init(&target);
    put_target(&target, s->pool->db);
    record_put(q, "target", text_str(&target));
    text_free(&target);
    put_text(q, "database", s->pool->db->name);
    put_text(q, "user", s->pool->user->name);
    put_text(q, "host", s->tls.host);
    record_put_number(q, "forced", s->pool->user_is_forced);
    put_conn(q, &s->conn);
    put_reader(q, &s->reader);
    record_put_number(q, "id", s->id);
    record_put_number(q, "connected_at", s->connected_at_us);
    record_put_number(q, "used_at", s->used_at_us);
    record_put_number(q, "pid", (uint64_t)s->backend_pid);
    put_bytes(q, "key", s->backend_key, s->backend_key_len);
    put_bytes(q, "tx_status", tx_status, 1);
    record_put_number(q, "retire", s->retire);
    record_put_number(q, "reserve", s->from_reserve);
    record_put_number(q, "tested", s->tested);
    record_put_number(q, "used", s->used);
    record_put_number(q, "copy_in", s->copy_in);
    record_put_number(q, "rest_goes_on", s->rest_goes_on);
    record_put_number(q, "version", (uint64_t)s->server_version);
    record_put_number(q, "doubt", s->settings_doubt);
    put_params(q, &p->params_names, &s->params);
    put_settings(q, "setting", s->settings);
    record_put_number(q, "changes_synced", s->n_changes_synced);
    record_put_number(q, "in_pipeline", s->in_pipeline);
    record_put_number(q, "ddl", s->ddl);
    record_put_number(q, "standby", s->is_standby);
    record_put_number(q, "read_only", s->is_read_only);
    if (s->client != NULL && s->client->unnamed_unbound)
        record_put(q, "unnamed", bytequeue_str(&s->unnamed));
    LIST_FOREACH(&s->statements.lru, n)
    {
        struct statement *st = LIST_ITEM(n, struct server_statement, lru)->statement;
        struct bytequeue r = { 0 };
        record_put_number(&r, "number", pack_statement(t, str_from(s->pool->db->name), st));
        record_put_number(&r, "stale", !server_statements_is_fresh(&s->statements, st));
        put_record(q, "statement", &r);
    }
    for (unsigned i = 0; i < s->owed.count; i++)
        put_owed(t, q, str_from(s->pool->db->name),
                 &s->owed.ring[(s->owed.head + i) & (s->owed.cap - 1)]);
}

static void put_client_statement(struct takeover *t, struct bytequeue *q, struct str database,
                                 const struct client_statement *cs)
{
    struct bytequeue r = { 0 };

    put_bytes(&r, "name", cs->name, cs->name_len);
    record_put_number(&r, "serial", cs->serial);
    record_put_number(&r, "closing", cs->closing);
    record_put_number(&r, "keeps_state", cs->keeps_state);
    record_put_number(&r, "described", cs->was_described);
    if (cs->statement != NULL && cs->was_described)
        record_put_number(&r, "believes_old",
                          cs->generation != atomic_load(&cs->statement->generation));
    if (cs->statement != NULL)
        record_put_number(&r, "statement", pack_statement(t, database, cs->statement));
    put_record(q, "statement", &r);
}

static void put_client(struct takeover *t, struct bytequeue *q, const struct client *c)
{
    const struct proxy *p = c->conn.worker->proxy;

    put_conn(q, &c->conn);
    put_reader(q, &c->reader);
    record_put_number(q, "id", c->id);
    record_put_number(q, "connected_at", c->connected_at_us);
    if (c->state == CLIENT_STARTUP)
        return;
    put_text(q, "database", c->database_name);
    put_text(q, "user", c->user_name);
    record_put_number(q, "login_waits", c->state == CLIENT_LOGIN_WAIT);
    record_put_number(q, "replication", c->replication);
    struct cancel_key key = client_cancel_key(c);
    put_bytes(q, "cancel_key", key.bytes, key.len);
    record_put_number(q, "speaks_3_2", c->speaks_3_2);
    record_put_number(q, "discards", c->discards);
    record_put_number(q, "skips", c->skips);
    record_put_number(q, "canceled", c->canceled);
    record_put_number(q, "settings_proven", c->settings_proven);
    record_put_number(q, "request_at", c->request_at_us);
    record_put_number(q, "xact_at", c->xact_at_us);
    record_put_number(q, "quiet_at", c->quiet_at_us);
    record_put_number(q, "next_serial", c->next_serial);
    record_put_number(q, "synced_serial", c->synced_serial);
    record_put_number(q, "waits_for_answers", c->waits_for_answers);
    record_put_number(q, "unnamed_here", c->unnamed_here);
    session_state_pack(c, q);
    put_params(q, &p->params_names, &c->params);
    put_settings(q, "startup", c->startup);
    put_settings(q, "setting", c->settings);
    for (size_t i = 0; i < c->statements.n_buckets; i++)
        for (struct map_node *n = c->statements.buckets[i]; n != NULL; n = n->next)
            put_client_statement(t, q, str_from(c->database_name),
                                 MAP_ITEM(n, struct client_statement, node));
}

/* ---- what can go ------------------------------------------------------------------------ */

/* Statements that are more than their text. */
static bool has_odd_statements(const struct client *c)
{
    for (size_t i = 0; i < c->statements.n_buckets; i++)
        for (struct map_node *n = c->statements.buckets[i]; n != NULL; n = n->next)
            if (MAP_ITEM(n, struct client_statement, node)->lend != NULL ||
                MAP_ITEM(n, struct client_statement, node)->sql != NULL)
                return true;
    return client_has(c)->lend_portals.count > 0;
}

/* Half done: worth waiting for while everybody is served. */
static bool client_is_busy(const struct client *c)
{
    return client_is_inner(c) || c->state == CLIENT_AUTH || c->state == CLIENT_CANCELING ||
           c->lend != NULL || c->lend_block || c->install_wanted || c->discarded ||
           client_has(c)->cancel != NULL || client_has(c)->move != NULL ||
           (c->state == CLIENT_STARTUP && c->login != NULL) ||
           (c->state == CLIENT_LOGIN_WAIT && c->replication != REPLICATION_NONE);
}

/* Our own dealings with a server, which end soon by themselves. */
static bool server_is_busy(struct server *s)
{
    for (unsigned i = 0; i < s->owed.count; i++) {
        const struct reply_owed *o = server_owed_at(s, i);
        if (o->sets || o->looks || o->outcome != NULL)
            return true;
    }
    return s->state == SERVER_SYNCING || s->state == SERVER_TESTING ||
           s->state == SERVER_RESETTING || s->state == SERVER_DRAINING || s->lent || s->marked ||
           s->retried || s->had_params || s->cancels > 0;
}

static bool server_can_go(struct server *s)
{
    return (s->state == SERVER_IDLE || s->state == SERVER_IN_USE) && !server_is_busy(s) &&
           s->conn.tls == NULL;
}

static bool client_can_go(const struct client *c)
{
    switch (c->state) {
    case CLIENT_STARTUP:
    case CLIENT_LOGIN_WAIT:
    case CLIENT_IDLE:
    case CLIENT_WAITING:
        break;
    case CLIENT_ACTIVE:
        if (!server_can_go(c->server))
            return false;
        break;
    case CLIENT_AUTH:
    case CLIENT_CONSOLE:
    case CLIENT_CANCELING:
    case CLIENT_CLOSED:
        return false;
    }
    return !client_is_busy(c) && !has_odd_statements(c) && !client_is_inner(c) &&
           !session_state_hears(c) && c->conn.tls == NULL;
}

static void give_server(struct takeover *t, struct server *s)
{
    struct item *i = item_new(&t->items, "server");

    put_server(t, &i->record, s);
    int fd = server_surrender(s);
    if (fd >= 0) {
        item_add_fd(i, fd);
    } else {
        list_remove(&t->items, &i->node);
        item_free(i);
    }
}

static void give_client(struct takeover *t, struct client *c)
{
    struct worker *w = c->conn.worker;
    struct server *s = c->server;
    struct bytequeue server = { 0 };
    struct item *i = item_new(&t->items, "client");

    put_client(t, &i->record, c);
    if (s != NULL) {
        put_server(t, &server, s);
        put_record(&i->record, "server", &server);
        c->server = NULL;
        s->client = NULL;
    }
    int fd = client_surrender(c);
    if (fd < 0 && s != NULL) {
        c->server = s;
        s->client = c;
    }
    int server_fd = fd >= 0 && s != NULL ? server_surrender(s) : -1;
    if (fd >= 0 && (s == NULL || server_fd >= 0)) {
        item_add_fd(i, fd);
        if (s != NULL)
            item_add_fd(i, server_fd);
        return;
    }
    /* The client stays, or what it had is at its end. */
    if (fd >= 0) {
        w->ops->close_descriptor(w->io, fd);
        server_close(s, "taken over");
    }
    list_remove(&t->items, &i->node);
    item_free(i);
}

/* Waiting ones first, in the order of their queue. */
static int by_wait(const void *a, const void *b)
{
    const struct client *x = *(struct client *const *)a, *y = *(struct client *const *)b;
    uint64_t wx = x->state == CLIENT_WAITING ? x->waiting_since_us : UINT64_MAX;
    uint64_t wy = y->state == CLIENT_WAITING ? y->waiting_since_us : UINT64_MAX;

    if (wx != wy)
        return wx < wy ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

static void pack_clients(struct takeover *t, struct proxy *p)
{
    size_t n = 0, most = 0;

    for (int i = 0; i < p->n_workers; i++)
        most += p->workers[i]->clients.count;
    struct client **all = mem_alloc((most + 1) * sizeof(*all));
    for (int i = 0; i < p->n_workers; i++)
        LIST_FOREACH(&p->workers[i]->clients, node)
        {
            struct client *c = LIST_ITEM(node, struct client, worker_node);
            if (client_can_go(c))
                all[n++] = c;
        }
    qsort(all, n, sizeof(*all), by_wait);
    for (size_t i = 0; i < n; i++)
        give_client(t, all[i]);
    free(all);
}

/* Idle ones; those that are not logged in yet would serve nobody here any more. */
static void pack_servers(struct takeover *t, struct proxy *p)
{
    for (int i = 0; i < p->n_workers; i++)
        LIST_FOREACH(&p->workers[i]->servers, n)
        {
            struct server *s = LIST_ITEM(n, struct server, worker_node);
            if (s->client == NULL && s->state == SERVER_IDLE && server_can_go(s))
                give_server(t, s);
            else if (s->client == NULL && s->state != SERVER_IN_USE && !s->lent)
                server_close(s, "taken over");
        }
}

static void pack_listeners(struct takeover *t, struct proxy *p)
{
    struct worker *w = p->workers[0];
    int fd;

    for (int i = 0; (fd = w->ops->listener(w->io, i)) >= 0; i++) {
        struct item *item = item_new(&t->first, "listener");
        item_add_fd(item, fd);
        item->is_listener = true;
    }
}

static void hold_clients(struct proxy *p, bool still)
{
    for (int i = 0; i < p->n_workers; i++)
        LIST_FOREACH(&p->workers[i]->clients, n)
        {
            struct client *c = LIST_ITEM(n, struct client, worker_node);
            if (c->state != CLIENT_CONSOLE)
                conn_stop(&c->conn, still);
        }
}

static bool any_client_is_busy(const struct proxy *p)
{
    for (int i = 0; i < p->n_workers; i++)
        LIST_FOREACH(&p->workers[i]->clients, n)
    if (client_is_busy(LIST_ITEM(n, struct client, worker_node)))
        return true;
    return false;
}

static bool any_server_is_busy(const struct proxy *p)
{
    for (int i = 0; i < p->n_workers; i++)
        LIST_FOREACH(&p->workers[i]->servers, n)
    if (server_is_busy(LIST_ITEM(n, struct server, worker_node)))
        return true;
    return false;
}

static void pack(struct proxy *p)
{
    struct takeover *t = p->takeover;

    pack_listeners(t, p);
    pack_process(t, p);
    pack_databases(t, p);
    p->giving_away = true;
    pack_clients(t, p);
    pack_servers(t, p);
    hold_clients(p, false);
    t->packed = true;
}

static void on_look(struct timer *timer)
{
    struct takeover *t =
        (struct takeover *)(void *)((char *)timer - offsetof(struct takeover, timer));
    struct worker *w = t->console->conn.worker;
    struct proxy *p = w->proxy;

    proxy_halt_workers(p);
    bool patient = w->now_us - t->began_us < (uint64_t)p->config->suspend_timeout_us;
    bool waits;
    if (t->still_us == 0 && any_client_is_busy(p) && patient) {
        waits = true;
    } else {
        if (t->still_us == 0) {
            t->still_us = w->now_us;
            hold_clients(p, true);
        }
        waits = any_server_is_busy(p) && w->now_us - t->still_us < STILL_US;
    }
    if (waits) {
        timer_set(&w->timers, &t->timer, w->now_us + LOOK_US, on_look);
    } else {
        pack(p);
        proxy_on_gone(p);
    }
    proxy_release_workers(p);
}

bool takeover_begin(struct proxy *p, struct client *console, struct err *e)
{
    struct worker *w = p->workers[0];

    if (!proxy_is_own_uid(&console->conn.peer))
        return err_set(e, ERR_REFUSAL, "42501", "only the same user may take over");
    if (p->takeover != NULL || p->shutdown != SHUTDOWN_NONE)
        return err_set(e, ERR_REFUSAL, "55006", "pooler is shutting down");
    if (p->suspended)
        return err_set(e, ERR_REFUSAL, "08P01", "already suspended/paused");
    log_line(p->log, LEVEL_LOG, "TAKEOVER: another process takes over");
    struct takeover *t = mem_alloc(sizeof(*t));
    t->console = console;
    t->began_us = w->now_us;
    list_init(&t->first);
    list_init(&t->items);
    map_init(&t->statements);
    p->takeover = t;
    proxy_update_watches(p);
    w->ops->listen_pause(w->io, true);
    timer_set(&w->timers, &t->timer, w->now_us, on_look);
    return true;
}

bool takeover_is_packed(const struct proxy *p)
{
    return p->takeover == NULL || p->takeover->packed;
}

static void answer(struct takeover *t, struct list *items)
{
    struct conn *c = &t->console->conn;

    LIST_FOREACH(items, n)
    {
        struct item *i = LIST_ITEM(n, struct item, node);
        record_put_number(&i->record, "descriptors", i->n_fds);
        for (size_t k = 0; k < i->n_fds; k++)
            c->worker->ops->enclose(c->worker->io, c, i->fds[k]);
        struct wire_mark mark = wire_begin(&c->out, BE_COPY_DATA);
        wire_put_str(&c->out, bytequeue_str(&i->record));
        wire_end(&c->out, mark);
    }
}

void takeover_answer(struct proxy *p)
{
    struct takeover *t = p->takeover;
    struct conn *c = &t->console->conn;

    wire_encode_copy_response(&c->out, BE_COPY_OUT_RESPONSE, true, 1);
    answer(t, &t->first);
    answer(t, &t->items);
    wire_put_empty(&c->out, BE_COPY_DONE);
}

/* Everything that is kept goes; descriptors are closed, but for those of listeners. */
static void forget_items(struct worker *w, struct list *items)
{
    for (struct list_node *n; (n = list_pop(items)) != NULL;) {
        struct item *i = LIST_ITEM(n, struct item, node);
        for (size_t k = 0; k < i->n_fds && !i->is_listener; k++)
            w->ops->close_descriptor(w->io, i->fds[k]);
        item_free(i);
    }
}

static void forget(struct proxy *p)
{
    struct takeover *t = p->takeover;
    struct worker *w = p->workers[0];

    forget_items(w, &t->first);
    forget_items(w, &t->items);
    numbered_clear(&t->statements, &p->statements);
    timer_unset(&w->timers, &t->timer);
    free(t);
    p->takeover = NULL;
    proxy_update_watches(p);
}

void takeover_free(struct proxy *p)
{
    if (p->takeover != NULL)
        forget(p);
}

bool takeover_commit(struct proxy *p, const struct client *console, struct err *e)
{
    struct worker *w = p->workers[0];

    if (p->takeover == NULL || p->takeover->console != console || !p->takeover->packed)
        return err_set(e, ERR_REFUSAL, "55000", "no takeover is under way");
    forget(p);
    w->ops->listen_leave(w->io);
    log_line(p->log, LEVEL_LOG, "taken over, %d clients are left here", shutdown_clients_left(p));
    shutdown_begin(p, SHUTDOWN_WAIT_FOR_TRANSACTIONS);
    return true;
}

void takeover_on_gone(struct proxy *p, const struct client *console)
{
    struct takeover *t = p->takeover;
    struct worker *w = p->workers[0];

    if (t == NULL || t->console != console)
        return;
    proxy_halt_workers(p);
    log_line(p->log, LEVEL_WARNING, "takeover failed, going on");
    hold_clients(p, false);
    p->giving_away = false;
    /* The statements never went away. */
    p->restore = restore_new();
    p->restore->statements = t->statements;
    map_init(&t->statements);
    LIST_FOREACH(&t->items, n)
    {
        struct item *i = LIST_ITEM(n, struct item, node);
        takeover_import(p, bytequeue_str(&i->record), i->fds, i->n_fds);
        i->n_fds = 0;
    }
    takeover_resume(p);
    forget(p);
    w->ops->listen_pause(w->io, false);
    proxy_release_workers(p);
}

/* ---- unpacking -------------------------------------------------------------------------- */

size_t takeover_descriptors(struct str record)
{
    return (size_t)record_number(record, "descriptors");
}

bool takeover_is_listener(struct str record)
{
    return is_kind(record, "listener");
}

static char *get_text(struct str record, const char *name)
{
    struct str value;

    if (!record_get(record, name, &value))
        return NULL;
    char *text = mem_alloc(value.len + 1);
    memcpy(text, value.ptr, value.len);
    return text;
}

/* Of an enumeration, whose last value is max: what another version may know more is 0 here. */
static uint64_t record_below(struct str record, const char *name, uint64_t max)
{
    uint64_t n = record_number(record, name);

    return n <= max ? n : 0;
}

static bool get_bytes(struct str record, const char *name, void *to, size_t len)
{
    struct str value;

    if (!record_get(record, name, &value) || value.len != len)
        return false;
    memcpy(to, value.ptr, len);
    return true;
}

static void get_params(struct str record, const struct params_names *names, struct params *p)
{
    struct str field, pair, name, value;

    while (record_next(&record, &field, &pair)) {
        if (!str_equal(field, STR("param")))
            continue;
        record_get(pair, "name", &name);
        record_get(pair, "value", &value);
        int i = params_find(names, name);
        if (i >= 0)
            params_set(p, i, value);
    }
}

static struct settings *get_settings(struct str record, const char *wanted)
{
    struct settings *s = NULL;
    struct str field, pair, name, value;

    while (record_next(&record, &field, &pair)) {
        if (!str_equal(field, str_from(wanted)))
            continue;
        record_get(pair, "name", &name);
        record_get(pair, "value", &value);
        settings_put(&s, name, value);
    }
    return s;
}

static void get_queue(struct str record, const char *name, struct bytequeue *q)
{
    struct str bytes;

    if (record_get(record, name, &bytes))
        bytequeue_put(q, bytes.ptr, bytes.len);
}

static void get_conn(struct str record, struct conn *c)
{
    get_queue(record, "in", &c->in);
    get_queue(record, "out", &c->out);
    c->paused = record_number(record, "paused") != 0;
    c->was_full = record_number(record, "was_full") != 0;
}

static void get_reader(struct str record, struct wire_reader *r)
{
    r->tag = (char)record_number(record, "reader_tag");
    r->body_len = (uint32_t)record_number(record, "reader_len");
    r->body_left = (uint32_t)record_below(record, "reader_left", r->body_len);
}

/* The host is malloc'ed: the caller's. */
static struct address get_peer(struct str record)
{
    return (struct address){
        .host = get_text(record, "peer_host"),
        .port = (int)record_number(record, "peer_port"),
        .is_unix = record_number(record, "peer_unix") != 0,
        .unix_pid = (int)record_number(record, "peer_pid"),
        .unix_uid = (uid_t)record_number(record, "peer_uid"),
    };
}

static void unpack_statement(struct proxy *p, struct str record)
{
    uint64_t number = record_number(record, "number");
    struct str body, database;
    struct reading reading = { .ddl = (unsigned)record_number(record, "ddl") };

    record_get(record, "body", &body);
    record_get(record, "database", &database);
    record_get(record, "settings", &reading.settings);
    reading.hash = str_hash(reading.settings);
    struct database *db = proxy_database(p, database);
    reading.database = db;
    /* The count goes on, so that what is older than the last stays so. */
    if (db != NULL && reading.ddl > atomic_load(&db->ddl))
        atomic_store(&db->ddl, reading.ddl);
    numbered_add(
        &p->restore->statements, number,
        statement_restore(&p->statements, &reading,
                          (enum statement_source)record_below(record, "source", STATEMENT_SQL),
                          number, record_number(record, "shared") != 0, body));
}

/* A reference, or NULL. */
static struct statement *restore_find(const struct takeover_restore *r, uint64_t number)
{
    for (struct map_node *n = map_first(&r->statements, number); n != NULL; n = map_next_same(n))
        if (MAP_ITEM(n, struct numbered, node)->statement->number == number)
            return statement_ref(MAP_ITEM(n, struct numbered, node)->statement);
    return NULL;
}

static struct pool *get_pool(struct worker *w, struct str record)
{
    struct proxy *p = w->proxy;
    struct str database, user;

    record_get(record, "database", &database);
    record_get(record, "user", &user);
    struct database *db = proxy_database(p, database);
    if (db == NULL || user.len == 0)
        return NULL;
    return pool_get(w, db, proxy_user(p, user), record_number(record, "forced") != 0);
}

static void get_owed(struct proxy *p, struct server *s, struct str record)
{
    struct str error;
    struct reply_owed *o =
        server_owe(s, (enum reply_ends)record_below(record, "ends", ENDS_QUERY),
                   (enum reply_audience)record_below(record, "audience", REPLY_SUBSTITUTED));

    o->server_has = record_number(record, "server_has") != 0;
    o->server_lacks = record_number(record, "server_lacks") != 0;
    o->client_has = record_number(record, "client_has") != 0;
    o->client_lacks = record_number(record, "client_lacks") != 0;
    o->serial = (uint32_t)record_number(record, "serial");
    o->copy_ends = (unsigned)record_number(record, "copy_ends");
    o->statement = restore_find(p->restore, record_number(record, "statement"));
    if (record_get(record, "error", &error)) {
        o->error = mem_alloc(error.len + 1);
        memcpy(o->error, error.ptr, error.len);
        o->error_len = error.len;
    }
    if (record_number(record, "change") != 0)
        server_note_change(s, o);
}

static void get_server_statement(struct server *s, struct str record)
{
    struct proxy *p = s->conn.worker->proxy;
    struct statement *st = restore_find(p->restore, record_number(record, "number"));

    if (st == NULL)
        return;
    server_statements_add(&s->statements, st);
    if (record_number(record, "stale") != 0)
        server_statements_age(&s->statements, st);
    statement_unref(&p->statements, st);
}

/* c NULL: it is idle. */
static struct server *unpack_server(struct worker *w, struct str record, struct client *c, int fd)
{
    struct proxy *p = w->proxy;
    struct pool *pool = get_pool(w, record);
    struct text target;
    struct str field, value;

    if (pool == NULL) {
        w->ops->close_descriptor(w->io, fd);
        return NULL;
    }
    struct address peer = get_peer(record);
    char *host = get_text(record, "host");
    struct server *s = server_adopt(pool, c, &peer, host != NULL ? host : "", fd);
    free(host);
    free((char *)peer.host);
    get_conn(record, &s->conn);
    get_reader(record, &s->reader);
    s->id = record_number(record, "id");
    s->connected_at_us = record_number(record, "connected_at");
    s->used_at_us = record_number(record, "used_at");
    s->backend_pid = (int)record_number(record, "pid");
    if (record_get(record, "key", &value) && value.len <= sizeof(s->backend_key)) {
        memcpy(s->backend_key, value.ptr, value.len);
        s->backend_key_len = (unsigned)value.len;
    }
    get_bytes(record, "tx_status", &s->tx_status, 1);
    if (s->tx_status != STATUS_IN_TRANSACTION && s->tx_status != STATUS_FAILED)
        s->tx_status = STATUS_IDLE;
    s->retire = record_number(record, "retire") != 0;
    text_init(&target);
    put_target(&target, pool->db);
    record_get(record, "target", &value);
    if (!str_equal(value, text_str(&target)) || (c != NULL && c->pool != pool))
        s->retire = true;
    text_free(&target);
    s->retire_reason = s->retire ? "database configuration changed" : NULL;
    s->from_reserve = record_number(record, "reserve") != 0;
    s->tested = record_number(record, "tested") != 0;
    s->used = record_number(record, "used") != 0;
    s->copy_in = record_number(record, "copy_in") != 0;
    s->rest_goes_on = record_number(record, "rest_goes_on") != 0;
    s->server_version = (int)record_number(record, "version");
    s->settings_doubt = record_number(record, "doubt") != 0;
    get_params(record, &p->params_names, &s->params);
    s->settings = get_settings(record, "setting");
    for (struct str rest = record; record_next(&rest, &field, &value);) {
        if (str_equal(field, STR("statement"))) {
            get_server_statement(s, value);
        } else if (str_equal(field, STR("owed"))) {
            get_owed(p, s, value);
        }
    }
    s->n_changes_synced = (unsigned)record_below(record, "changes_synced", s->n_changes);
    s->in_pipeline = record_number(record, "in_pipeline") != 0;
    s->ddl = (enum server_ddl)record_below(record, "ddl", SERVER_DDL_TOLD);
    s->is_standby = record_number(record, "standby") != 0;
    s->is_read_only = record_number(record, "read_only") != 0;
    if (c != NULL && record_get(record, "unnamed", &value)) {
        bytequeue_put(&s->unnamed, value.ptr, value.len);
        c->unnamed_unbound = true;
    }
    return s;
}

static void get_client_statement(struct client *c, struct str record)
{
    struct proxy *p = c->conn.worker->proxy;
    struct statement *st = restore_find(p->restore, record_number(record, "statement"));
    struct str name;

    record_get(record, "name", &name);
    struct client_statement *cs = client_statement_add(
        &c->statements, (uint32_t)record_number(record, "serial"), name, st, NULL);
    cs->closing = record_number(record, "closing") != 0;
    cs->keeps_state = record_number(record, "keeps_state") != 0;
    cs->was_described = record_number(record, "described") != 0;
    if (st != NULL)
        cs->generation =
            atomic_load(&st->generation) - (record_number(record, "believes_old") != 0);
}

static void get_client(struct client *c, struct str record)
{
    struct proxy *p = c->conn.worker->proxy;
    struct str field, value;

    c->replication = (enum replication)record_below(record, "replication", REPLICATION_PHYSICAL);
    if (record_get(record, "cancel_key", &value) &&
        (value.len == CANCEL_KEY_SHORT || value.len == CANCEL_KEY_LONG)) {
        struct cancel_key key = { .len = (uint8_t)value.len };
        memcpy(key.bytes, value.ptr, value.len);
        client_set_cancel_key(c, &key);
    }
    c->speaks_3_2 = record_number(record, "speaks_3_2") != 0;
    c->discards = record_number(record, "discards") != 0;
    c->skips = record_number(record, "skips") != 0;
    c->canceled = record_number(record, "canceled") != 0;
    c->settings_proven = record_number(record, "settings_proven") != 0;
    c->request_at_us = record_number(record, "request_at");
    c->xact_at_us = record_number(record, "xact_at");
    c->quiet_at_us = record_number(record, "quiet_at");
    c->next_serial = (uint32_t)record_number(record, "next_serial");
    c->synced_serial = (uint32_t)record_number(record, "synced_serial");
    c->waits_for_answers = record_number(record, "waits_for_answers") != 0;
    c->unnamed_here = record_number(record, "unnamed_here") != 0;
    session_state_unpack(c, record);
    get_params(record, &p->params_names, &c->params);
    c->startup = get_settings(record, "startup");
    c->settings = get_settings(record, "setting");
    for (struct str rest = record; record_next(&rest, &field, &value);)
        if (str_equal(field, STR("statement")))
            get_client_statement(c, value);
}

static void unpack_client(struct worker *w, struct str record, const int *fds, size_t n_fds)
{
    struct str server;
    struct address peer = get_peer(record);
    struct client *c = client_adopt(w, &peer, fds[0]);
    bool has_server = record_get(record, "server", &server);

    free((char *)peer.host);
    c->id = record_number(record, "id");
    c->connected_at_us = record_number(record, "connected_at");
    get_conn(record, &c->conn);
    get_reader(record, &c->reader);
    c->database_name = get_text(record, "database");
    c->user_name = get_text(record, "user");
    if (c->user_name != NULL && c->database_name != NULL) {
        get_client(c, record);
        if (!client_readmit(c, record_number(record, "login_waits") != 0))
            has_server = false;
    }
    if (n_fds > 1 && !has_server) {
        w->ops->close_descriptor(w->io, fds[1]);
    } else if (n_fds > 1) {
        if (unpack_server(w, server, c, fds[1]) != NULL)
            c->state = CLIENT_ACTIVE;
        else
            client_fail(c, "08P01", "database removed");
    }
}

static void get_credentials(struct str record, struct credentials *c)
{
    char *secret = get_text(record, "secret"), *verifier = get_text(record, "verifier");
    struct scram_keys keys;

    if (secret != NULL)
        credentials_set_secret(c, secret);
    if (verifier != NULL &&
        get_bytes(record, "client_key", keys.client_key, sizeof(keys.client_key)) &&
        get_bytes(record, "server_key", keys.server_key, sizeof(keys.server_key)))
        credentials_set_keys(c, verifier, &keys);
    OPENSSL_cleanse(&keys, sizeof(keys));
    free(secret);
    free(verifier);
}

static void unpack_pool(struct proxy *p, struct str record)
{
    struct pool *pool = get_pool(p->workers[0], record);
    struct str welcome;

    if (pool == NULL)
        return;
    struct pool_common *c = pool->common;
    record_get(record, "welcome", &welcome);
    pthread_mutex_lock(&p->lock);
    text_clear(&c->welcome);
    text_put_str(&c->welcome, welcome);
    c->server_version = (int)record_number(record, "version");
    get_params(record, &p->params_names, &c->parameters);
    c->learned++;
    pthread_mutex_unlock(&p->lock);
    for (int i = 0; i < p->n_workers; i++) {
        struct pool *each = get_pool(p->workers[i], record);
        pool_sync_parameters(each);
        get_credentials(record, &each->credentials);
    }
}

static void unpack_database(struct proxy *p, struct str record)
{
    struct str name;

    if (!record_get(record, "name", &name))
        return;
    struct database *db = proxy_database(p, name);
    if (db == NULL)
        return;
    db->paused = record_number(record, "paused") != 0;
    db->disabled = record_number(record, "disabled") != 0;
    get_bytes(record, "stats", &db->past_stats, sizeof(db->past_stats));
}

void takeover_import(struct proxy *p, struct str record, const int *fds, size_t n_fds)
{
    struct worker *w = balance_place(p);
    struct str kind;

    if (p->restore == NULL)
        p->restore = restore_new();
    record_get(record, "kind", &kind);
    if (str_equal(kind, STR("client")) && n_fds > 0) {
        unpack_client(w, record, fds, n_fds);
        return;
    }
    if (str_equal(kind, STR("server")) && n_fds > 0) {
        unpack_server(p->workers[p->restore->turn++ % (unsigned)p->n_workers], record, NULL,
                      fds[0]);
        fds++;
        n_fds--;
    } else if (str_equal(kind, STR("process"))) {
        if (record_number(record, "last_id") > p->last_id)
            p->last_id = record_number(record, "last_id");
        p->paused = record_number(record, "paused") != 0;
        get_bytes(record, "mock_key", p->mock_key, sizeof(p->mock_key));
    } else if (str_equal(kind, STR("database"))) {
        unpack_database(p, record);
    } else if (str_equal(kind, STR("pool"))) {
        unpack_pool(p, record);
    } else if (str_equal(kind, STR("statement"))) {
        unpack_statement(p, record);
    }
    for (size_t i = 0; i < n_fds; i++)
        w->ops->close_descriptor(w->io, fds[i]);
}

static void drop_client(struct client *c)
{
    struct worker *w = c->conn.worker;
    struct server *s = c->server;

    if (s != NULL) {
        c->server = NULL;
        s->client = NULL;
        w->ops->close_descriptor(w->io, server_surrender(s));
    }
    w->ops->close_descriptor(w->io, client_surrender(c));
}

void takeover_drop(struct proxy *p)
{
    p->giving_away = true;
    for (int i = 0; i < p->n_workers; i++) {
        struct worker *w = p->workers[i];
        LIST_FOREACH(&w->clients, n)
        drop_client(LIST_ITEM(n, struct client, worker_node));
        LIST_FOREACH(&w->servers, n)
        w->ops->close_descriptor(w->io, server_surrender(LIST_ITEM(n, struct server, worker_node)));
    }
    restore_free(p);
}

void takeover_resume(struct proxy *p)
{
    for (int i = 0; i < p->n_workers; i++) {
        struct worker *w = p->workers[i];
        LIST_FOREACH(&w->clients, n)
        {
            struct client *c = LIST_ITEM(n, struct client, worker_node);
            if (c->state == CLIENT_CONSOLE)
                continue;
            client_update_timer(c);
            conn_wake(&c->conn);
            conn_flush(&c->conn);
        }
        LIST_FOREACH(&w->servers, n)
        server_resume(LIST_ITEM(n, struct server, worker_node));
        LIST_FOREACH(&w->pools, n)
        pool_serve(LIST_ITEM(n, struct pool, worker_node));
    }
    restore_free(p);
}
