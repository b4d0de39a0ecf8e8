#include "proxy/waiting.h"

#include <inttypes.h>

#include "protocol/status.h"
#include "proxy/client.h"
#include "proxy/pool_common.h"
#include "proxy/server.h"

static bool is_older(const struct client *a, const struct client *than)
{
    return a->waiting_since_us < than->waiting_since_us ||
           (a->waiting_since_us == than->waiting_since_us && a->id < than->id);
}

static int count_ahead(const struct list *l, const struct client *c)
{
    int n = 0;

    LIST_FOREACH(l, node)
    n += is_older(LIST_ITEM(node, struct client, wait_node), c);
    return n;
}

static void look_at(const struct pool *p, const struct client *c, struct waiting *w)
{
    w->ahead += count_ahead(&p->waiting, c) + count_ahead(&p->login_waiting, c) +
                count_ahead(&p->replications, c);
    LIST_FOREACH(&p->active, n)
    {
        const struct server *s = LIST_ITEM(n, struct server, pool_node);
        if (s->client != NULL && (w->holder == NULL || s->used_at_us < w->holder->used_at_us))
            w->holder = s;
    }
}

/* Which limit is in the way; false: none. */
static bool limit_of(const struct pool *p, struct waiting *w)
{
    const struct config *conf = p->worker->proxy->config;
    const struct config_database *entry = p->db->entry;
    const struct config_user *user = p->user->entry;
    int size = config_pool_size(conf, entry, user);
    int reserve = config_reserve_pool_size(conf, entry, user);
    const struct {
        enum waiting_for what;
        int limit;
        int used;
    } limits[] = {
        { WAITING_POOL_SIZE, size > 0 ? size + reserve : 0, p->common->servers },
        { WAITING_DB_LIMIT, config_max_db_connections(conf, entry), p->db->n_servers },
        { WAITING_USER_LIMIT, config_max_user_connections(conf, user), p->user->n_servers },
    };

    for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
        /* The reserve opens after a while: until then pool_size alone is the limit. */
        int limit = i == 0 && p->common->servers < limits[i].limit ? size : limits[i].limit;
        if (limit > 0 && limits[i].used >= limit) {
            w->what = limits[i].what;
            w->limit = limit;
            w->used = limits[i].used;
            return true;
        }
    }
    return false;
}

void waiting_look(const struct client *c, bool everywhere, struct waiting *w)
{
    const struct pool *p = c->pool;
    struct pool_common *common = p->common;
    uint64_t now = p->worker->now_us;

    *w = (struct waiting){ .waited_us = (int64_t)(now - c->waiting_since_us) };
    for (int i = 0; everywhere && i < common->n_parts; i++) {
        const struct pool *part = common->parts[i].pool;
        if (part != NULL && part != p)
            look_at(part, c, w);
    }
    look_at(p, c, w);
    if (w->holder != NULL && now > w->holder->used_at_us)
        w->held_us = (int64_t)(now - w->holder->used_at_us);

    w->used = common->servers;
    if (p->db->entry == NULL || proxy_is_paused(p->worker->proxy, p->db)) {
        w->what = WAITING_PAUSE;
    } else if ((common->connect_failed || common->login_failed) && common->opening == 0 &&
               now < common->retry_at_us) {
        w->what = WAITING_RETRY;
        w->retry_us = (int64_t)(common->retry_at_us - now);
    } else if (!limit_of(p, w)) {
        w->what = common->opening > 0 ? WAITING_OPENING : WAITING_TURN;
    }
}

const char *waiting_name(enum waiting_for what)
{
    switch (what) {
    case WAITING_PAUSE:
        return "paused";
    case WAITING_RETRY:
        return "server_login_retry";
    case WAITING_OPENING:
        return "server login";
    case WAITING_POOL_SIZE:
        return "pool_size";
    case WAITING_DB_LIMIT:
        return "max_db_connections";
    case WAITING_USER_LIMIT:
        return "max_user_connections";
    case WAITING_TURN:
        break;
    }
    return "turn";
}

const char *waiting_holder_state(const struct server *holder)
{
    if (holder->owed.count > 0 || holder->lent)
        return "active";
    return holder->tx_status != STATUS_IDLE ? "idle in transaction" : "idle";
}

static void describe_holder(const struct waiting *w, struct text *out)
{
    const struct client *h = w->holder->client;
    const char *application = params_get(&h->params, PARAM_APPLICATION_NAME);
    char peer[300];

    address_print(&h->conn.peer, peer, sizeof(peer));
    text_printf(out,
                " The longest held is in use by client %" PRIu64 " (%s%s%s) for %" PRId64 " s: %s.",
                h->id, application != NULL ? application : "",
                application != NULL && application[0] != '\0' ? " " : "", peer,
                w->held_us / 1000000, waiting_holder_state(w->holder));
}

void waiting_describe(const struct client *c, const struct waiting *w, struct text *out)
{
    text_printf(out, "The pool of user \"%s\" on database \"%s\" ", c->pool->user->name,
                c->pool->db->name);
    switch (w->what) {
    case WAITING_PAUSE:
        text_put(out, "is paused.");
        break;
    case WAITING_RETRY:
        text_printf(out, "could not log in to the server; the next attempt is in %" PRId64 " ms.",
                    w->retry_us / 1000);
        break;
    case WAITING_OPENING:
        text_put(out, "is waiting for the server to accept a connection.");
        break;
    case WAITING_POOL_SIZE:
        text_printf(out, "uses %d of %d server connections (pool_size).", w->used, w->limit);
        break;
    case WAITING_DB_LIMIT:
    case WAITING_USER_LIMIT:
        text_printf(out, "needs a server connection, and %d of %d are in use (%s).", w->used,
                    w->limit, waiting_name(w->what));
        break;
    case WAITING_TURN:
        text_printf(out, "has %d server connections.", w->used);
        break;
    }
    if (w->ahead > 0)
        text_printf(out, " %d clients came before.", w->ahead);
    if (w->holder != NULL)
        describe_holder(w, out);
}
