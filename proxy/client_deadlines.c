/* The deadline of a client: there is one timer, set to what its state says. */
#include <stddef.h>

#include "protocol/notice.h"
#include "protocol/status.h"
#include "proxy/cancel.h"
#include "proxy/client_internal.h"
#include "proxy/proxy.h"
#include "proxy/server.h"

static struct proxy *proxy_of(const struct client *c)
{
    return c->conn.worker->proxy;
}

const struct config_user *client_config_user(const struct client *c)
{
    return c->user != NULL ? c->user->entry : NULL;
}

static void notify_waiting(struct client *c)
{
    if (c->wait_notified)
        return;
    c->wait_notified = true;
    notice_encode_notice(&c->conn.out, "NOTICE", "00000",
                         "No server connection available in postgres backend, client being queued");
    conn_flush(&c->conn);
}

static void on_timer(struct timer *t)
{
    struct client *c = (struct client *)(void *)((char *)t - offsetof(struct client, timer));
    const struct config *conf = proxy_of(c)->config;
    const struct config_user *u = client_config_user(c);
    uint64_t now = c->conn.worker->now_us;

    switch (c->state) {
    case CLIENT_STARTUP:
    case CLIENT_AUTH:
        client_fail(c, "08P01", "client_login_timeout");
        break;
    case CLIENT_LOGIN_WAIT:
        client_fail_waiting(c, "client_login_timeout (server down)");
        break;
    case CLIENT_WAITING: {
        int64_t wait =
            c->db->entry != NULL ? config_query_wait_timeout_us(conf, c->db->entry, u) : 0;
        int64_t query = config_query_timeout_us(conf, u);
        if (wait > 0 && now - c->waiting_since_us >= (uint64_t)wait) {
            client_fail_waiting(c, "query_wait_timeout");
        } else if (query > 0 && now - c->waiting_since_us >= (uint64_t)query) {
            client_fail_waiting(c, "query_timeout");
        } else {
            notify_waiting(c);
            client_update_timer(c);
        }
        break;
    }
    case CLIENT_IDLE:
        client_fail(c, "08P01", "client_idle_timeout");
        break;
    case CLIENT_ACTIVE: {
        int64_t transaction = config_transaction_timeout_us(conf, u);
        if (c->server->owed.count > 0 || c->lend != NULL) {
            int64_t query = config_query_timeout_us(conf, u);
            if (query > 0 && now - c->request_at_us >= (uint64_t)query) {
                client_fail_both(c, "query timeout");
                break;
            }
        } else {
            int64_t idle = config_idle_transaction_timeout_us(conf, u);
            if (idle > 0 && now - c->quiet_at_us >= (uint64_t)idle) {
                client_fail_both(c, "idle transaction timeout");
                break;
            }
        }
        if (transaction > 0 && c->xact_at_us != 0 && now - c->xact_at_us >= (uint64_t)transaction)
            client_fail_both(c, "transaction timeout");
        else
            client_update_timer(c);
        break;
    }
    case CLIENT_CANCELING:
        client_close(c, "cancel_wait_timeout");
        break;
    case CLIENT_CONSOLE:
    case CLIENT_CLOSED:
        break;
    }
}

static void earliest(uint64_t *at, uint64_t since, int64_t timeout_us)
{
    if (timeout_us > 0 && since + (uint64_t)timeout_us < *at)
        *at = since + (uint64_t)timeout_us;
}

/* runs: a request of its own is under way, or about to be sent. */
void client_set_timer(struct client *c, bool runs)
{
    const struct config *conf = proxy_of(c)->config;
    const struct config_user *u = client_config_user(c);
    uint64_t at = UINT64_MAX;

    c->has_deadlines = config_client_idle_timeout_us(conf, u) > 0 ||
                       config_query_timeout_us(conf, u) > 0 ||
                       config_idle_transaction_timeout_us(conf, u) > 0 ||
                       config_transaction_timeout_us(conf, u) > 0;
    switch (c->state) {
    case CLIENT_STARTUP:
    case CLIENT_AUTH:
    case CLIENT_LOGIN_WAIT:
        earliest(&at, c->connected_at_us, conf->client_login_timeout_us);
        break;
    case CLIENT_IDLE:
        earliest(&at, c->quiet_at_us, config_client_idle_timeout_us(conf, u));
        break;
    case CLIENT_WAITING:
        if (c->db->entry != NULL)
            earliest(&at, c->waiting_since_us, config_query_wait_timeout_us(conf, c->db->entry, u));
        earliest(&at, c->waiting_since_us, config_query_timeout_us(conf, u));
        if (!c->wait_notified)
            earliest(&at, c->waiting_since_us, conf->query_wait_notify_us);
        break;
    case CLIENT_ACTIVE:
        /* A stream is one query that never ends. */
        if (c->replication != REPLICATION_NONE)
            break;
        if (runs)
            earliest(&at, c->request_at_us, config_query_timeout_us(conf, u));
        else if (c->server->tx_status != STATUS_IDLE)
            earliest(&at, c->quiet_at_us, config_idle_transaction_timeout_us(conf, u));
        if (c->xact_at_us != 0)
            earliest(&at, c->xact_at_us, config_transaction_timeout_us(conf, u));
        break;
    case CLIENT_CANCELING:
        if (!cancel_is_under_way(c->rare->cancel))
            earliest(&at, c->connected_at_us, conf->cancel_wait_timeout_us);
        break;
    case CLIENT_CONSOLE:
    case CLIENT_CLOSED:
        break;
    }
    if (at == UINT64_MAX)
        timer_unset(&c->conn.worker->timers, &c->timer);
    else
        timer_set(&c->conn.worker->timers, &c->timer, at, on_timer);
}

void client_update_timer(struct client *c)
{
    client_set_timer(c, c->lend != NULL || (c->server != NULL && c->server->owed.count > 0));
}

void client_set_state(struct client *c, enum client_state state)
{
    c->state = state;
    if (timer_is_set(&c->timer) || c->has_deadlines)
        client_update_timer(c);
}
