#include "proxy/server_host.h"

#include <string.h>

#include "base/arena.h"
#include "proxy/dns.h"
#include "proxy/hosts.h"
#include "proxy/server.h"

static struct proxy *proxy_of(const struct server *s)
{
    return s->conn.worker->proxy;
}

struct address server_host_take(struct server *s)
{
    struct proxy *p = proxy_of(s);
    struct database *db = s->pool->db;
    const struct config_database *entry = db->entry;
    struct address to = { .port = entry->port > 0 ? entry->port : 5432 };

    to.host = p->config->unix_socket_dir[0] != '\0' ? p->config->unix_socket_dir : "/tmp";
    if (entry->n_hosts > 0) {
        pthread_mutex_lock(&p->lock);
        s->host = hosts_take(&db->hosts, entry->load_balance_hosts == LOAD_BALANCE_HOSTS_DISABLE,
                             s->conn.worker->now_us);
        pthread_mutex_unlock(&p->lock);
        to.host = entry->hosts[s->host];
    }
    to.is_unix = to.host[0] == '/' || to.host[0] == '@';
    if (!to.is_unix)
        s->host_name = mem_strdup(to.host);
    return to;
}

static uint16_t random_of(struct server *s)
{
    uint16_t random;

    s->conn.worker->ops->random(s->conn.worker->io, &random, sizeof(random));
    return random;
}

bool server_host_failed(struct server *s)
{
    struct proxy *p = proxy_of(s);
    struct worker *w = s->conn.worker;
    struct hosts *hosts = &s->pool->db->hosts;
    int64_t retry = p->config->server_login_retry_us;

    /* The name is the address until that is known. */
    if (s->host_name != NULL && strcmp(s->host_name, s->conn.peer.host) != 0) {
        dns_failed(w, s->host_name, s->conn.peer.host,
                   w->now_us + hosts_pause_us(1, retry, random_of(s)));
        if (dns_has_other(w, s->host_name))
            return true;
    }
    pthread_mutex_lock(&p->lock);
    hosts_failed(hosts, s->host, w->now_us, retry, random_of(s));
    bool other = hosts->n > 1 && hosts_has_other(hosts, w->now_us);
    pthread_mutex_unlock(&p->lock);
    return other;
}

void server_host_worked(struct server *s)
{
    struct proxy *p = proxy_of(s);

    pthread_mutex_lock(&p->lock);
    hosts_worked(&s->pool->db->hosts, s->host);
    pthread_mutex_unlock(&p->lock);
}

void server_host_on_parameter(struct server *s, struct str name, struct str value)
{
    if (str_equal(name, STR("in_hot_standby")))
        s->is_standby = str_equal(value, STR("on"));
    else if (str_equal(name, STR("default_transaction_read_only")))
        s->is_read_only = str_equal(value, STR("on"));
}

const char *server_host_refuses(const struct server *s)
{
    const struct config_database *entry = s->pool->db->entry;

    if (entry == NULL)
        return NULL;
    switch (entry->target_session_attrs) {
    case TARGET_SESSION_READ_WRITE:
        return s->is_standby || s->is_read_only ? "session is read-only" : NULL;
    case TARGET_SESSION_READ_ONLY:
        return s->is_standby || s->is_read_only ? NULL : "session is not read-only";
    case TARGET_SESSION_PRIMARY:
        return s->is_standby ? "server is in hot standby mode" : NULL;
    case TARGET_SESSION_STANDBY:
    case TARGET_SESSION_PREFER_STANDBY:
        return s->is_standby ? NULL : "server is not in hot standby mode";
    case TARGET_SESSION_ANY:
    case TARGET_SESSION_UNSET:
        break;
    }
    return NULL;
}

bool server_host_is_preference(const struct server *s)
{
    const struct config_database *entry = s->pool->db->entry;

    return entry != NULL && entry->target_session_attrs == TARGET_SESSION_PREFER_STANDBY;
}

bool server_host_left_out(struct server *s)
{
    struct proxy *p = proxy_of(s);
    struct hosts *hosts = &s->pool->db->hosts;
    uint64_t now = s->conn.worker->now_us;

    pthread_mutex_lock(&p->lock);
    /* It answers: a failover is to be noticed soon. */
    hosts_worked(hosts, s->host);
    hosts_failed(hosts, s->host, now, p->config->server_login_retry_us, random_of(s));
    bool other = hosts->n > 1 && hosts_has_other(hosts, now);
    pthread_mutex_unlock(&p->lock);
    return other;
}
