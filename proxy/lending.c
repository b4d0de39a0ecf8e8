#include "proxy/lending.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/arena.h"
#include "dvm/dvm.h"
#include "protocol/notice.h"
#include "protocol/query_extended.h"
#include "protocol/query_simple.h"
#include "protocol/status.h"
#include "proxy/client.h"
#include "proxy/lend.h"
#include "proxy/server.h"
#include "proxy/view_service.h"

#define PIPE_MAX (256 * 1024) /* output that waits for the client before the job blocks */
#define INSTALL_RETRY_US 5000000

enum lending_phase {
    WAITS_FOR_QUIET,
    RUNS,
};

struct lending {
    struct job job; /* first */
    struct lend_job lend;
    enum lending_phase phase;
    bool ends_block;       /* lend_end_block instead of lend_run */
    struct client *client; /* NULL: gone */
    struct server *server;
    struct arena arena; /* copies of all that the job borrows */
    pthread_mutex_t lock;
    pthread_cond_t room;
    struct bytequeue pipe; /* under the lock, as the next */
    bool client_is_gone;
};

static struct lending *of_job(struct job *j)
{
    return (struct lending *)(void *)j;
}

static struct proxy *proxy_of(const struct client *c)
{
    return c->conn.worker->proxy;
}

/* On the helper thread. */
static bool emit(void *arg, const void *bytes, size_t len)
{
    struct lending *l = arg;
    bool gone;

    pthread_mutex_lock(&l->lock);
    while (bytequeue_len(&l->pipe) > PIPE_MAX && !l->client_is_gone)
        pthread_cond_wait(&l->room, &l->lock);
    gone = l->client_is_gone;
    if (!gone)
        bytequeue_put(&l->pipe, bytes, len);
    pthread_mutex_unlock(&l->lock);
    if (!gone)
        l->job.worker->ops->job_notify(l->job.worker->io, &l->job);
    return !gone;
}

static void work(struct job *j)
{
    struct lending *l = of_job(j);

    if (l->ends_block)
        lend_end_block(&l->lend);
    else
        lend_run(&l->lend);
}

/* Moves what the job wrote to the client; all of it when it must. */
static void pass_on(struct lending *l, bool all)
{
    if (l->client == NULL || (!all && conn_is_full(&l->client->conn)))
        return;
    pthread_mutex_lock(&l->lock);
    struct str bytes = bytequeue_str(&l->pipe);
    if (bytes.len > 0) {
        conn_send(&l->client->conn, bytes.ptr, bytes.len);
        l->client->pool->stats.server_bytes += bytes.len;
        bytequeue_consume(&l->pipe, bytes.len);
        pthread_cond_signal(&l->room);
    }
    pthread_mutex_unlock(&l->lock);
}

static void progress(struct job *j)
{
    pass_on(of_job(j), false);
}

static void free_lending(struct lending *l)
{
    arena_free(&l->arena);
    bytequeue_free(&l->pipe);
    text_free(&l->lend.parameters);
    err_clear(&l->lend.err);
    pthread_mutex_destroy(&l->lock);
    pthread_cond_destroy(&l->room);
    free(l);
}

static void done(struct job *j)
{
    struct lending *l = of_job(j);
    struct server *s = l->server;
    struct client *c = l->client;
    struct worker *w = j->worker;
    struct proxy *p = w->proxy;
    struct lend_job *lend = &l->lend;
    enum lend_kind kind = lend->kind;
    bool ends_block = l->ends_block;

    pass_on(l, true);
    w->ops->take_back(w->io, &s->conn);
    server_take_back(s, lend->tx_status != 0 ? lend->tx_status : STATUS_IDLE,
                     text_str(&lend->parameters));
    if (p->views != NULL && lend->tx_status == STATUS_IDLE && !lend->failed)
        dvm_scheduler_wake(view_service_dvm(p->views));
    if (c == NULL || lend->server_broken) {
        free_lending(l);
        s->client = NULL;
        if (c != NULL) {
            c->lend = NULL;
            c->server = NULL;
        }
        server_close(s, c == NULL ? "client disconnect while server was not ready"
                                  : "server conn crashed?");
        if (c != NULL)
            client_on_server_lost(c, "server conn crashed?", (struct str){ "", 0 });
        return;
    }
    c->lend = NULL;
    if (kind == LEND_EXECUTE && !ends_block) {
        c->lend_block = c->lend_block || lend->opened_block;
        c->lend_block_failed = c->lend_block_failed || lend->failed;
        c->skips = c->skips || lend->failed;
    }
    if (ends_block)
        c->lend_block = c->lend_block_failed = false;
    free_lending(l);
    if (ends_block || kind != LEND_EXECUTE) {
        s->in_pipeline = false; /* it has sent the ReadyForQuery */
        client_on_batch_done(c);
    }
    if (c->state != CLIENT_CLOSED) {
        conn_wake(&c->conn);
        if (c->server != NULL)
            conn_wake(&c->server->conn);
    }
}

static struct lending *lending_new(struct client *c, enum lend_kind kind)
{
    struct lending *l = mem_alloc(sizeof(*l));
    struct proxy *p = proxy_of(c);
    struct dvm_target *target;

    arena_init(&l->arena);
    target = arena_new(&l->arena, struct dvm_target);
    view_service_target(p->views, p->config, p->userlist, c->db->entry, c->db->name, &l->arena,
                        target);
    l->job =
        (struct job){ .work = work, .progress = progress, .done = done, .worker = c->conn.worker };
    l->client = c;
    l->server = c->server;
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->room, NULL);
    const char *scs = params_get(&c->params, PARAM_STANDARD_CONFORMING_STRINGS);
    l->lend = (struct lend_job){
        .kind = kind,
        .dvm = view_service_dvm(p->views),
        .target = target,
        .stream = { .fd = -1 },
        .server_version = c->pool->server_version,
        .standard_conforming_strings = scs == NULL || strcmp(scs, "off") != 0,
        .emit = emit,
        .emit_arg = l,
    };
    c->lend = l;
    return l;
}

static void run(struct lending *l)
{
    struct client *c = l->client;
    struct server *s = l->server;
    struct worker *w = c->conn.worker;

    l->phase = RUNS;
    s->lent = true;
    l->lend.in_block = s->tx_status != STATUS_IDLE;
    l->lend.in_failed_block = s->tx_status == STATUS_FAILED;
    if (l->ends_block) {
        l->lend.failed = l->lend.failed || s->tx_status == STATUS_FAILED;
        /* A BEGIN or COMMIT of the client's that was under way made it another's, or ended it. */
        l->lend.opened_block = c->lend_block;
    }
    l->lend.stream = w->ops->lend(w->io, &s->conn);
    client_update_timer(c);
    w->ops->job_start(w->io, &l->job);
}

/* In an aborted transaction nothing is run. (A query string may hold a ROLLBACK: its job copes.) */
static bool refuse_in_failed(struct lending *l)
{
    struct client *c = l->client;
    struct server *s = l->server;

    if (s->tx_status != STATUS_FAILED || l->ends_block || l->lend.kind == LEND_SIMPLE_QUERY)
        return false;
    notice_encode_error(&c->conn.out, "ERROR", "25P02",
                        "current transaction is aborted, commands ignored until end of "
                        "transaction block");
    c->lend = NULL;
    c->skips = true;
    conn_flush(&c->conn);
    conn_wake(&c->conn);
    free_lending(l);
    return true;
}

void lending_on_quiet(struct client *c)
{
    struct lending *l = c->lend;

    if (l->phase != WAITS_FOR_QUIET || l->server->owed.count > 0)
        return;
    if (!refuse_in_failed(l))
        run(l);
}

/* Replies that are owed in a pipeline only come when the server is told to flush. */
static void start_when_quiet(struct lending *l)
{
    if (l->server->owed.count > 0) {
        wire_encode_flush(&l->server->conn.out);
        conn_flush(&l->server->conn);
        return;
    }
    lending_on_quiet(l->client);
}

void lending_query(struct client *c, struct str text)
{
    struct lending *l = lending_new(c, LEND_SIMPLE_QUERY);

    l->lend.query = arena_str(&l->arena, text);
    start_when_quiet(l);
}

void lending_execute(struct client *c, struct str frame, const struct lend_info *info)
{
    struct lending *l = lending_new(c, LEND_EXECUTE);

    l->lend.execute = arena_str(&l->arena, frame);
    l->lend.execute_tag = info->tag;
    l->lend.definition_offset = info->definition_offset;
    l->lend.statement_text = arena_str(&l->arena, (struct str){ info->text, info->text_len });
    start_when_quiet(l);
}

void lending_complete(struct client *c)
{
    run(lending_new(c, LEND_COMPLETE));
}

void lending_end_block(struct client *c)
{
    struct lending *l = lending_new(c, LEND_EXECUTE);

    l->ends_block = true;
    l->lend.opened_block = true;
    l->lend.failed = c->lend_block_failed;
    /* A Sync of our own first: whatever failed in the pipeline since, the server then listens. */
    server_owe(c->server, ENDS_SYNC, REPLY_SWALLOWED);
    wire_encode_sync(&c->server->conn.out);
    conn_flush(&c->server->conn);
}

void lending_on_room(struct client *c)
{
    if (c->lend->phase == RUNS)
        pass_on(c->lend, false);
}

bool lending_abandon(struct client *c)
{
    struct lending *l = c->lend;

    c->lend = NULL;
    if (l->phase == WAITS_FOR_QUIET) {
        free_lending(l);
        return false;
    }
    l->client = NULL;
    l->server->client = NULL;
    pthread_mutex_lock(&l->lock);
    l->client_is_gone = true;
    pthread_cond_signal(&l->room);
    pthread_mutex_unlock(&l->lock);
    return true;
}

/* ---- installation ----------------------------------------------------------------------- */

struct installation {
    struct job job; /* first */
    struct lend_job lend;
    struct database *db;
    struct arena arena;
};

static bool emit_nothing(void *arg, const void *bytes, size_t len)
{
    (void)arg;
    (void)bytes;
    (void)len;
    return true;
}

static void install_work(struct job *j)
{
    lend_run(&((struct installation *)(void *)j)->lend);
}

/* Tells the worker's clients of the database; goes from worker to worker. */
struct installed_letter {
    struct letter letter; /* first */
    struct database *db;
    struct err err; /* unset: it is installed */
    int first;      /* index of the worker that installed */
};

static void deliver_installed(struct worker *w, struct letter *l)
{
    struct installed_letter *il = (struct installed_letter *)(void *)l;
    struct proxy *p = w->proxy;
    int next = (w->index + 1) % p->n_workers;

    LIST_FOREACH(&w->views_waiting, n)
    {
        struct client *c = LIST_ITEM(n, struct client_rare, install_node)->client;
        if (c->db == il->db) {
            list_remove(&w->views_waiting, n);
            client_on_installed(c, err_is_set(&il->err) ? &il->err : NULL);
        }
    }
    if (next != il->first) {
        worker_post(p->workers[next], l);
        return;
    }
    err_clear(&il->err);
    free(il);
}

static void install_done(struct job *j)
{
    struct installation *i = (struct installation *)(void *)j;
    struct database *db = i->db;
    struct err *e = &i->lend.err;
    bool failed = err_is_set(e);
    struct installed_letter *il = mem_alloc(sizeof(*il));

    db->views_retry_us = j->worker->now_us + INSTALL_RETRY_US;
    db->views_installed = !failed;
    db->views_installing = false;
    if (failed)
        log_line(j->worker->proxy->log, LEVEL_WARNING,
                 "stream tables can't be installed in database %s: %s", db->name, e->message);
    il->letter.deliver = deliver_installed;
    il->db = db;
    il->first = j->worker->index;
    err_move(&il->err, e);
    deliver_installed(j->worker, &il->letter);
    text_free(&i->lend.parameters);
    err_clear(e);
    arena_free(&i->arena);
    free(i);
}

void lending_install(struct client *c)
{
    struct proxy *p = proxy_of(c);
    struct worker *w = c->conn.worker;

    list_append(&w->views_waiting, &client_rare(c)->install_node);
    if (atomic_exchange(&c->db->views_installing, true))
        return;
    struct installation *i = mem_alloc(sizeof(*i));
    struct dvm_target *target;
    arena_init(&i->arena);
    target = arena_new(&i->arena, struct dvm_target);
    view_service_target(p->views, p->config, p->userlist, c->db->entry, c->db->name, &i->arena,
                        target);
    i->db = c->db;
    i->job = (struct job){ .work = install_work, .done = install_done, .worker = w };
    i->lend = (struct lend_job){ .kind = LEND_INSTALL,
                                 .dvm = view_service_dvm(p->views),
                                 .target = target,
                                 .stream = { .fd = -1 },
                                 .emit = emit_nothing };
    w->ops->job_start(w->io, &i->job);
}
