#include "proxy/console_view.h"

#include "proxy/cancel.h"
#include "proxy/client.h"
#include "proxy/dns.h"
#include "proxy/listener.h"
#include "proxy/pool.h"
#include "proxy/pool_common.h"
#include "proxy/server.h"
#include "proxy/session_state.h"
#include "proxy/verifiers.h"
#include "proxy/waiting.h"
#include "proxy/worker.h"

static const struct config *view_config(void *core)
{
    return ((struct proxy *)core)->config;
}

static const struct userlist *view_userlist(void *core)
{
    return ((struct proxy *)core)->userlist;
}

static void view_databases(void *core, struct admin_sink *sink)
{
    struct proxy *p = core;
    struct admin_database console = {
        .name = ADMIN_DATABASE,
        .client_connections = p->n_admin_clients,
        .stats = &p->admin_stats,
        .window = &p->admin_window,
    };

    for (size_t i = 0; i < p->config->n_databases; i++)
        proxy_database(p, str_from(p->config->databases[i].name));
    LIST_FOREACH(&p->database_list, n)
    {
        const struct database *db = LIST_ITEM(n, struct database, list_node);
        if (db->entry == NULL)
            continue;
        struct stats sum = proxy_database_stats(db);
        struct admin_database row = {
            .name = db->name,
            .entry = db->entry,
            .server_connections = db->n_servers,
            .client_connections = db->n_clients,
            .paused = db->paused,
            .disabled = db->disabled,
            .stats = &sum,
            .window = &db->window,
        };
        admin_put_database(sink, &row);
    }
    admin_put_database(sink, &console);
}

static int count_state(const struct list *servers, bool canceled)
{
    int n = 0;

    LIST_FOREACH(servers, node)
    n += (LIST_ITEM(node, struct server, pool_node)->cancels > 0) == canceled;
    return n;
}

/* One worker's share of a row of SHOW POOLS. */
static void add_pool(const struct proxy *p, const struct pool *pool, struct admin_pool *row)
{
    uint64_t now = p->workers[0]->now_us;
    struct cancel_counts cancels = cancel_count(pool);
    int waiting = (int)(pool->waiting.count + pool->login_waiting.count + pool->replications.count);
    struct list_node *first = list_first(&pool->waiting);
    int used = 0;

    if (first == NULL)
        first = list_first(&pool->login_waiting);
    LIST_FOREACH(&pool->idle, n)
    {
        const struct server *s = LIST_ITEM(n, struct server, pool_node);
        used +=
            s->cancels == 0 && now - s->used_at_us >= (uint64_t)p->config->server_check_delay_us;
    }
    LIST_FOREACH(&pool->active, n)
    {
        const struct server *s = LIST_ITEM(n, struct server, pool_node);
        row->sv_pinned += s->client != NULL && session_state_is_pinned(s->client);
    }
    row->cl_active += (int)pool->clients.count - waiting;
    row->cl_waiting += waiting;
    row->cl_active_cancel_req += cancels.sent;
    row->cl_waiting_cancel_req += cancels.waiting;
    row->sv_active += (int)pool->active.count;
    row->sv_active_cancel += cancels.sent;
    row->sv_being_canceled += count_state(&pool->idle, true) + pool->n_draining;
    row->sv_idle += count_state(&pool->idle, false) - used + (int)pool->departing.count;
    row->sv_used += used;
    row->sv_tested += (int)pool->busy.count - pool->n_draining;
    row->sv_login += (int)pool->opening.count + cancels.connecting;
    if (first != NULL) {
        const struct client *c = LIST_ITEM(first, struct client, wait_node);
        int64_t wait_us = (int64_t)(now - c->waiting_since_us);
        if (wait_us > row->maxwait_us)
            row->maxwait_us = wait_us;
    }
}

static void view_pools(void *core, struct admin_sink *sink)
{
    struct proxy *p = core;

    LIST_FOREACH(&p->database_list, dn)
    {
        const struct database *db = LIST_ITEM(dn, struct database, list_node);
        if (db->entry == NULL)
            continue;
        LIST_FOREACH(&db->commons, cn)
        {
            const struct pool_common *c = LIST_ITEM(cn, struct pool_common, database_node);
            struct admin_pool row = {
                .database = db->name,
                .user = c->user->name,
                .entry = db->entry,
            };
            for (int i = 0; i < c->n_parts; i++)
                if (c->parts[i].pool != NULL)
                    add_pool(p, c->parts[i].pool, &row);
            admin_put_pool(sink, &row);
        }
    }
    struct admin_pool console = {
        .database = ADMIN_DATABASE,
        .user = ADMIN_DATABASE,
        .cl_active = p->n_admin_clients,
    };
    admin_put_pool(sink, &console);
}

struct listener_rows {
    struct admin_sink *sink;
    const struct pool *pool;
};

static void put_listener(void *arg, const struct listener_view *v)
{
    const struct listener_rows *rows = arg;
    struct admin_listener row = {
        .database = rows->pool->db->name,
        .user = rows->pool->user->name,
        .encoding = v->encoding,
        .state = v->state,
        .server_id = v->server != NULL ? v->server->id : 0,
        .server_pid = v->server != NULL ? v->server->backend_pid : 0,
        .channels = (int64_t)v->channels,
        .clients = (int64_t)v->clients,
        .queued = (int64_t)v->queued,
    };

    admin_put_listener(rows->sink, &row);
}

static void view_listeners(void *core, struct admin_sink *sink)
{
    struct proxy *p = core;

    LIST_FOREACH(&p->database_list, dn)
    {
        const struct database *db = LIST_ITEM(dn, struct database, list_node);
        LIST_FOREACH(&db->commons, cn)
        {
            const struct pool_common *c = LIST_ITEM(cn, struct pool_common, database_node);
            for (int i = 0; i < c->n_parts; i++) {
                struct listener_rows rows = { .sink = sink, .pool = c->parts[i].pool };
                if (rows.pool != NULL)
                    listeners_each(rows.pool, put_listener, &rows);
            }
        }
    }
}

static void view_clients(void *core, struct admin_sink *sink)
{
    struct proxy *p = core;
    const struct worker *w = p->workers[0];
    struct text pinned;

    text_init(&pinned);
    EACH_WORKER(p, worker)
    LIST_FOREACH(&worker->clients, n)
    {
        const struct client *c = LIST_ITEM(n, struct client, worker_node);
        if (client_is_inner(c))
            continue;
        struct address local = conn_local(&c->conn);
        uint64_t since_us = 0;
        char tls[TLS_PRINT_MAX];
        tls_print(c->conn.tls, tls);
        bool waits = c->state == CLIENT_WAITING || c->state == CLIENT_LOGIN_WAIT;
        struct admin_socket row = {
            .user = c->user_name,
            .database = c->database_name,
            .replication = replication_name(c->replication),
            .state = client_state_name(c),
            .addr = c->conn.peer.is_unix ? "unix" : c->conn.peer.host,
            .port = c->conn.peer.port,
            .local_addr = local.is_unix ? "unix" : local.host,
            .local_port = local.port,
            .connected_at_s = worker_wall_us(w, c->connected_at_us) / 1000000,
            .requested_at_s =
                worker_wall_us(w, c->request_at_us != 0 ? c->request_at_us : c->connected_at_us) /
                1000000,
            .wait_us = waits ? (int64_t)(w->now_us - c->waiting_since_us) : 0,
            .self = c,
            .link = c->server,
            .remote_pid = c->conn.peer.unix_pid,
            .tls = tls,
            .application_name = params_get(&c->params, PARAM_APPLICATION_NAME),
            .prepared_statements = (int)c->statements.count,
            .id = c->id,
            .pinned_by = session_state_pinned_by(c, &pinned, &since_us),
            .pinned_us = (int64_t)(w->now_us - since_us),
            .server_pid = c->server != NULL ? c->server->backend_pid : 0,
            .pkt_avail = (int)bytequeue_len(&c->conn.in),
            .send_avail = (int)bytequeue_len(&c->conn.out),
        };
        admin_put_socket(sink, &row);
    }
    text_free(&pinned);
}

static void view_servers(void *core, struct admin_sink *sink)
{
    struct proxy *p = core;
    const struct worker *w = p->workers[0];

    EACH_WORKER(p, worker)
    LIST_FOREACH(&worker->servers, n)
    {
        const struct server *s = LIST_ITEM(n, struct server, worker_node);
        struct address local = conn_local(&s->conn);
        char tls[TLS_PRINT_MAX];
        tls_print(s->conn.tls, tls);
        struct admin_socket row = {
            .is_server = true,
            .user = s->pool->user->name,
            .database = s->pool->db->name,
            .replication = replication_name(s->replication),
            .state = server_state_name(s),
            .addr = s->conn.peer.is_unix ? "unix" : s->conn.peer.host,
            .port = s->conn.peer.port,
            .local_addr = local.is_unix ? "unix" : local.host,
            .local_port = local.port,
            .connected_at_s = worker_wall_us(w, s->connected_at_us) / 1000000,
            .requested_at_s = worker_wall_us(w, s->used_at_us) / 1000000,
            .close_needed = s->retire,
            .self = s,
            .link = s->client,
            .remote_pid = s->backend_pid,
            .tls = tls,
            .application_name = params_get(&s->params, PARAM_APPLICATION_NAME),
            .prepared_statements = (int)s->statements.lru.count,
            .id = s->id,
            .pkt_avail = (int)bytequeue_len(&s->conn.in),
            .send_avail = (int)bytequeue_len(&s->conn.out),
        };
        admin_put_socket(sink, &row);
    }
}

struct dns_rows {
    const struct proxy *p;
    int worker;
    struct admin_sink *sink; /* NULL: only counted */
    int n;
};

/* Each worker looks names up for itself; each name is shown once. */
static void put_dns_host(void *arg, const char *host, int64_t ttl_s, const char *addresses)
{
    struct dns_rows *rows = arg;
    struct admin_dns_host row = { .hostname = host, .ttl_s = ttl_s, .addrs = addresses };

    for (int i = 0; i < rows->worker; i++)
        if (dns_knows(rows->p->workers[i], host))
            return;
    rows->n++;
    if (rows->sink != NULL)
        admin_put_dns_host(rows->sink, &row);
}

static int each_dns_host(const struct proxy *p, struct admin_sink *sink)
{
    struct dns_rows rows = { .p = p, .sink = sink };

    for (; rows.worker < p->n_workers; rows.worker++)
        dns_show(p->workers[rows.worker], put_dns_host, &rows);
    return rows.n;
}

static void view_dns_hosts(void *core, struct admin_sink *sink)
{
    each_dns_host(core, sink);
}

static void view_peer_pools(void *core, struct admin_sink *sink)
{
    struct proxy *p = core;

    for (size_t i = 0; i < p->config->n_peers; i++) {
        const struct peer *peer = cancel_find_peer(p, p->config->peers[i].id);
        struct cancel_counts counts = { 0 };
        if (peer != NULL)
            counts = cancel_count_peer(peer);
        struct admin_peer_pool row = {
            .peer_id = p->config->peers[i].id,
            .cl_active_cancel_req = counts.sent,
            .cl_waiting_cancel_req = counts.waiting,
            .sv_active_cancel = counts.sent,
            .sv_login = counts.connecting,
        };
        admin_put_peer_pool(sink, &row);
    }
}

static int descriptor_of(const struct conn *c)
{
    const struct worker *w = c->worker;
    int fd = w->ops->descriptor != NULL ? w->ops->descriptor(w->io, c) : -1;

    return fd > 0 ? fd : 0;
}

static void put_fd(struct admin_sink *sink, const struct conn *c, const char *task,
                   const char *user, const char *database, const struct conn *link,
                   const struct params *params)
{
    struct admin_fd row = {
        .fd = descriptor_of(c),
        .task = task,
        .user = user,
        .database = database,
        .addr = c->peer.is_unix ? "unix" : c->peer.host,
        .port = c->peer.port,
        .link = link != NULL ? descriptor_of(link) : 0,
        .client_encoding = params_get(params, PARAM_CLIENT_ENCODING),
        .std_strings = params_get(params, PARAM_STANDARD_CONFORMING_STRINGS),
        .datestyle = params_get(params, PARAM_DATESTYLE),
        .timezone = params_get(params, PARAM_TIMEZONE),
    };

    if (row.fd > 0)
        admin_put_fd(sink, &row);
}

static void view_fds(void *core, struct admin_sink *sink)
{
    struct proxy *p = core;
    const struct worker *first = p->workers[0];
    int fd;

    for (int i = 0; first->ops->listener != NULL && (fd = first->ops->listener(first->io, i)) >= 0;
         i++) {
        struct admin_fd row = {
            .fd = fd,
            .task = "pooler",
            .addr = p->config->listen_addr,
            .port = p->config->listen_port,
        };
        admin_put_fd(sink, &row);
    }
    EACH_WORKER(p, worker)
    {
        LIST_FOREACH(&worker->clients, n)
        {
            const struct client *c = LIST_ITEM(n, struct client, worker_node);
            if (!client_is_inner(c))
                put_fd(sink, &c->conn, "client", c->user_name, c->database_name,
                       c->server != NULL ? &c->server->conn : NULL, &c->params);
        }
        LIST_FOREACH(&worker->servers, n)
        {
            const struct server *s = LIST_ITEM(n, struct server, worker_node);
            put_fd(sink, &s->conn, "server", s->pool->user->name, s->pool->db->name,
                   s->client != NULL && !client_is_inner(s->client) ? &s->client->conn : NULL,
                   &s->params);
        }
    }
}

static void view_waiters(void *core, struct admin_sink *sink)
{
    struct proxy *p = core;

    EACH_WORKER(p, worker)
    LIST_FOREACH(&worker->clients, n)
    {
        const struct client *c = LIST_ITEM(n, struct client, worker_node);
        struct waiting w;
        if (c->pool == NULL || client_is_inner(c) ||
            (c->state != CLIENT_WAITING && c->state != CLIENT_LOGIN_WAIT))
            continue;
        waiting_look(c, true, &w);
        const struct client *h = w.holder != NULL ? w.holder->client : NULL;
        struct admin_waiter row = {
            .id = c->id,
            .database = c->database_name,
            .user = c->user_name,
            .pool_user = c->pool->user->name,
            .application_name = params_get(&c->params, PARAM_APPLICATION_NAME),
            .addr = c->conn.peer.is_unix ? "unix" : c->conn.peer.host,
            .port = c->conn.peer.port,
            .wait_us = w.waited_us,
            .ahead = w.ahead,
            .reason = waiting_name(w.what),
            .limit = w.limit,
            .used = w.used,
            .is_held = h != NULL,
        };
        if (h != NULL) {
            row.holder_id = h->id;
            row.holder_application_name = params_get(&h->params, PARAM_APPLICATION_NAME);
            row.holder_addr = h->conn.peer.is_unix ? "unix" : h->conn.peer.host;
            row.holder_port = h->conn.peer.port;
            row.holder_state = waiting_holder_state(w.holder);
            row.held_us = w.held_us;
            row.holder_pid = w.holder->backend_pid;
        }
        admin_put_waiter(sink, &row);
    }
}

static void view_learned_users(void *core, struct admin_sink *sink)
{
    struct proxy *p = core;

    for (size_t i = 0; i < p->users.n_buckets; i++)
        for (struct map_node *n = p->users.buckets[i]; n != NULL; n = n->next) {
            const struct user *u = MAP_ITEM(n, struct user, node);
            if (u->learned)
                admin_put_user(sink, u->name);
        }
}

/* PgBouncer's caches, for what asks for them by name: what there is of each kind, and what that
 * takes without the strings that hang on it. */
static void view_memory(void *core, struct admin_sink *sink)
{
    struct proxy *p = core;
    int64_t databases = 0, pools = 0, owed = 0, buffers = 0, prepared = 0;

    LIST_FOREACH(&p->database_list, n)
    {
        databases++;
        pools += LIST_ITEM(n, struct database, list_node)->pools.count;
    }
    EACH_WORKER(p, worker)
    {
        LIST_FOREACH(&worker->servers, n)
        {
            const struct server *s = LIST_ITEM(n, struct server, worker_node);
            owed += s->owed.cap;
            buffers += (int64_t)(bytequeue_cap(&s->conn.in) + bytequeue_cap(&s->conn.out));
            prepared += s->statements.lru.count;
        }
        LIST_FOREACH(&worker->clients, n)
        {
            const struct client *c = LIST_ITEM(n, struct client, worker_node);
            buffers += (int64_t)(bytequeue_cap(&c->conn.in) + bytequeue_cap(&c->conn.out));
        }
    }
    const struct admin_memory rows[] = {
        { .name = "user_cache", .size = sizeof(struct user), .used = (int64_t)p->users.count },
        { .name = "db_cache", .size = sizeof(struct database), .used = databases },
        { .name = "pool_cache", .size = sizeof(struct pool), .used = pools },
        { .name = "server_cache", .size = sizeof(struct server), .used = proxy_count_servers(p) },
        { .name = "client_cache", .size = sizeof(struct client), .used = proxy_count_clients(p) },
        { .name = "iobuf_cache", .size = 1, .used = buffers },
        { .name = "outstanding_request_cache", .size = sizeof(struct reply_owed), .used = owed },
        { .name = "server_prepared_statement_cache",
          .size = sizeof(struct server_statement),
          .used = prepared },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct admin_memory row = rows[i];
        row.total = row.size * row.used;
        admin_put_memory(sink, &row);
    }
}

static void view_count_user(void *core, struct str user, int *servers, int *clients)
{
    struct proxy *p = core;
    const struct user *u = proxy_user(p, user);

    *servers = u->n_servers;
    *clients = u->n_clients;
}

static struct admin_totals view_totals(void *core)
{
    struct proxy *p = core;
    struct admin_totals t = {
        .active = !p->paused && !p->suspended,
        .paused = p->paused && !p->suspended,
        .suspended = p->suspended,
        .used_clients = proxy_count_clients(p),
        .used_servers = proxy_count_servers(p),
        .dns_names = each_dns_host(p, NULL),
    };

    EACH_WORKER(p, worker)
    t.dns_queries += dns_count_lookups(worker);

    EACH_WORKER(p, worker)
    LIST_FOREACH(&worker->clients, n)
    {
        const struct client *c = LIST_ITEM(n, struct client, worker_node);
        if (client_is_inner(c)) {
            t.used_clients--;
            continue;
        }
        t.login_clients +=
            c->state == CLIENT_STARTUP || c->state == CLIENT_AUTH || c->state == CLIENT_LOGIN_WAIT;
    }
    return t;
}

void console_view_fill(struct admin_view *v, struct proxy *p)
{
    *v = (struct admin_view){
        .core = p,
        .version = PGTRICKLE_VERSION,
        .config = view_config,
        .userlist = view_userlist,
        .databases = view_databases,
        .pools = view_pools,
        .clients = view_clients,
        .servers = view_servers,
        .fds = view_fds,
        .waiters = view_waiters,
        .listeners = view_listeners,
        .memory = view_memory,
        .learned_users = view_learned_users,
        .count_user = view_count_user,
        .peer_pools = view_peer_pools,
        .dns_hosts = view_dns_hosts,
        .totals = view_totals,
    };
}
