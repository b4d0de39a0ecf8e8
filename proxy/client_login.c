/* What follows when a client has proved who it is: limits, its place in a pool or at the console,
 * its cancel key, and the parameters that it starts with.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "protocol/auth.h"
#include "protocol/notice.h"
#include "protocol/status.h"
#include "proxy/client_internal.h"
#include "proxy/login.h"
#include "proxy/proxy.h"
#include "proxy/server.h"
#include "proxy/settings.h"

static struct proxy *proxy_of(const struct client *c)
{
    return c->conn.worker->proxy;
}

struct cancel_key client_cancel_key(const struct client *c)
{
    return cancel_key_look(&c->cancel_key, c->cancel_key_len);
}

void client_set_cancel_key(struct client *c, const struct cancel_key *k)
{
    cancel_key_keep(&c->cancel_key, k);
    c->cancel_key_len = k->len;
}

static void publish_cancel_key(struct client *c)
{
    struct proxy *p = proxy_of(c);
    struct cancel_key k = client_cancel_key(c);

    pthread_mutex_lock(&p->lock);
    map_insert(&p->cancel_keys, &c->cancel_node, cancel_key_hash(&k, p->cancel_secret));
    pthread_mutex_unlock(&p->lock);
}

static void give_cancel_key(struct client *c)
{
    struct proxy *p = proxy_of(c);
    struct cancel_key k;
    uint8_t len = c->speaks_3_2 ? CANCEL_KEY_LONG : CANCEL_KEY_SHORT;

    c->conn.worker->ops->random(c->conn.worker->io, k.bytes, len);
    cancel_key_finish(&k, len, p->config->peer_id);
    client_set_cancel_key(c, &k);
    publish_cancel_key(c);
    wire_encode_backend_key(&c->conn.out, cancel_key_pid(&k), cancel_key_secret(&k));
}

static void console_start(struct client *c)
{
    struct proxy *p = proxy_of(c);
    struct bytequeue *out = &c->conn.out;
    bool own_uid = proxy_is_own_uid(&c->conn.peer) && strcmp(c->user_name, ADMIN_DATABASE) == 0;
    enum admin_rights rights = admin_rights_of(p->config, str_from(c->user_name), own_uid);

    /* Nobody knows who it is: everybody may look. */
    if (rights == ADMIN_RIGHTS_NONE && p->config->auth_type == AUTH_TYPE_ANY)
        rights = ADMIN_RIGHTS_STATS;
    if (rights == ADMIN_RIGHTS_NONE) {
        client_fail(c, "08P01", "not allowed");
        return;
    }
    client_rare(c)->admin = admin_session_new(&p->admin_view, rights, str_from(c->user_name));
    p->n_admin_clients++;
    p->admin_stats.client_logins++;
    client_set_state(c, CLIENT_CONSOLE);
    client_update_timer(c);
    auth_encode_ok(out);
    admin_put_login_parameters(&p->admin_view, out);
    give_cancel_key(c);
    wire_encode_ready(out, STATUS_IDLE);
    conn_flush(&c->conn);
}

/* Counts one more, unless that would be too many (max 0: no limit). */
static bool count_below(atomic_int *count, int max)
{
    if (atomic_fetch_add(count, 1) < max || max <= 0)
        return true;
    atomic_fetch_sub(count, 1);
    return false;
}

static bool check_limits(struct client *c)
{
    struct proxy *p = proxy_of(c);
    int max_db = config_max_db_client_connections(p->config, c->db->entry);
    int max_user = config_max_user_client_connections(p->config, client_config_user(c));

    c->counted_db = count_below(&c->db->n_clients, max_db);
    if (!c->counted_db) {
        client_fail(c, "08P01", "client connections exceeded (max_db_client_connections)");
        return false;
    }
    c->counted_user = count_below(&c->user->n_clients, max_user);
    if (!c->counted_user) {
        client_fail(c, "08P01", "client connections exceeded (max_user_client_connections)");
        return false;
    }
    return true;
}

static bool fails_fast(struct client *c)
{
    struct text why;
    bool fails;

    text_init(&why);
    fails = pool_fails_fast(c->pool, &why);
    if (fails)
        client_fail(c, "08P01",
                    "server login has been failing, cached error: %s (server_login_retry)",
                    why.ptr);
    text_free(&why);
    return fails;
}

void client_set_user_name(struct client *c, struct str name)
{
    char *copy = mem_alloc(name.len + 1);

    memcpy(copy, name.ptr, name.len);
    free((char *)c->user_name);
    c->user_name = copy;
}

void client_on_authenticated(struct client *c)
{
    struct proxy *p = proxy_of(c);

    if (strcmp(c->database_name, ADMIN_DATABASE) == 0) {
        console_start(c);
        return;
    }
    c->db = proxy_database(p, str_from(c->database_name));
    if (c->db == NULL) {
        client_fail(c, "08P01", "no such database: %s", c->database_name);
        return;
    }
    if (p->shutdown != SHUTDOWN_NONE) {
        client_fail(c, "08P01", "pooler is shutting down");
        return;
    }
    if (c->db->disabled) {
        client_fail(c, "08P01", "database \"%s\" is disabled", c->database_name);
        return;
    }
    c->user = proxy_user(p, str_from(c->user_name));
    if (!check_limits(c))
        return;
    client_forget_names(c);
    c->database_name = c->db->name;
    c->user_name = c->user->name;
    c->names_shared = true;
    const char *forced = c->db->entry->user;
    if (forced == NULL && p->config->auth_type == AUTH_TYPE_ANY) {
        client_fail(c, "08P01", "bouncer config error");
        return;
    }
    struct user *pool_user = forced != NULL ? proxy_user(p, str_from(forced)) : c->user;
    c->pool = pool_get(c->conn.worker, c->db, pool_user, forced != NULL);
    pool_add_client(c->pool, c);
    pool_sync_parameters(c->pool);
    login_equip_pool(c, c->pool);
    if (fails_fast(c))
        return;
    if (c->replication != REPLICATION_NONE) {
        c->waiting_since_us = c->conn.worker->now_us;
        client_set_state(c, CLIENT_LOGIN_WAIT);
        list_append(&c->pool->replications, &c->wait_node);
        pool_serve(c->pool);
    } else if (c->pool->has_parameters && !proxy_is_paused(p, c->db)) {
        client_on_parameters(c);
    } else {
        c->waiting_since_us = c->conn.worker->now_us;
        client_set_state(c, CLIENT_LOGIN_WAIT);
        list_append(&c->pool->login_waiting, &c->wait_node);
        pool_serve(c->pool);
    }
}

/* What a login ends with, after the parameters. */
static void end_login(struct client *c)
{
    const char *message = proxy_of(c)->config->login_notify_message;

    give_cancel_key(c);
    if (message[0] != '\0')
        notice_encode_notice(&c->conn.out, "NOTICE", "00000", "%s", message);
    wire_encode_ready(&c->conn.out, STATUS_IDLE);
    conn_flush(&c->conn);
    login_free(c->login);
    c->login = NULL;
    c->pool->stats.client_logins++;
    c->quiet_at_us = c->conn.worker->now_us;
}

/* Clients of a pool mostly ask for the same: they share the list. */
static void share_settings(struct settings **mine, struct settings **last)
{
    struct settings **to = settings_equal(*mine, *last) ? mine : last;
    struct settings *from = to == mine ? *last : *mine;

    if (*to == from)
        return;
    settings_unref(*to);
    *to = settings_ref(from);
}

/* What the servers of the pool report is followed by params, the rest of what the client asked for
 * by settings. */
static void take_startup_settings(struct client *c)
{
    const struct params_names *names = &proxy_of(c)->params_names;
    struct str name, value;

    settings_unref(c->settings);
    c->settings = settings_ref(c->startup);
    for (size_t n = 0; n < settings_count(c->startup); n++) {
        settings_at(c->startup, n, &name, &value);
        int i = params_find(names, name);
        if (i >= 0 && params_get(&c->pool->parameters, i) != NULL)
            settings_remove(&c->settings, name);
        else if (i >= 0)
            params_remove(&c->params, i);
    }
    share_settings(&c->startup, &c->pool->last_startup);
    share_settings(&c->settings, &c->pool->last_settings);
}

/* The same for the parameters. What is compared when a server is linked is then a pointer. */
static void take_parameters(struct client *c)
{
    params_fill_unset(&c->params, &c->pool->parameters);
    params_unify(&c->params, &c->pool->last_params);
    params_copy(&c->pool->last_params, &c->params);
}

bool client_readmit(struct client *c, bool waiting)
{
    struct proxy *p = proxy_of(c);

    if (c->cancel_key_len > 0)
        publish_cancel_key(c);
    p->n_clients++;
    c->counted = true;
    c->db = proxy_database(p, str_from(c->database_name));
    if (c->db == NULL) {
        client_fail(c, "08P01", "database removed");
        return false;
    }
    c->user = proxy_user(p, str_from(c->user_name));
    c->db->n_clients++;
    c->user->n_clients++;
    c->counted_db = c->counted_user = true;
    client_forget_names(c);
    c->database_name = c->db->name;
    c->user_name = c->user->name;
    c->names_shared = true;
    const char *forced = c->db->entry->user;
    struct user *pool_user = forced != NULL ? proxy_user(p, str_from(forced)) : c->user;
    c->pool = pool_get(c->conn.worker, c->db, pool_user, forced != NULL);
    pool_add_client(c->pool, c);
    pool_sync_parameters(c->pool);
    if (waiting) {
        c->waiting_since_us = c->conn.worker->now_us;
        client_set_state(c, CLIENT_LOGIN_WAIT);
        list_append(&c->pool->login_waiting, &c->wait_node);
    } else {
        c->state = CLIENT_IDLE;
    }
    return true;
}

void client_on_parameters(struct client *c)
{
    struct proxy *p = proxy_of(c);
    struct bytequeue *out = &c->conn.out;

    pool_leave_queue(c->pool, c);
    take_startup_settings(c);
    take_parameters(c);
    if (client_is_inner(c)) {
        c->state = CLIENT_IDLE;
        client_update_timer(c);
        conn_wake(&c->conn);
        return;
    }
    auth_encode_ok(out);
    bytequeue_put(out, c->pool->welcome.ptr, c->pool->welcome.len);
    for (int i = 0; i < p->params_names.count; i++)
        if (params_get(&c->params, i) != NULL)
            wire_encode_parameter_status(out, str_from(p->params_names.name[i]),
                                         str_from(params_get(&c->params, i)));
    end_login(c);
    c->state = CLIENT_IDLE;
    client_update_timer(c);
    conn_wake(&c->conn);
}

void client_on_replication_ready(struct client *c)
{
    struct server *s = c->server;

    for (int i = 0; i < PARAMS_MAX; i++)
        params_share(&c->params, &s->params, i);
    auth_encode_ok(&c->conn.out);
    bytequeue_put(&c->conn.out, s->welcome.ptr, s->welcome.len);
    end_login(c);
    c->pool->stats.server_assignments++;
    c->pool->stats.wait_us += c->conn.worker->now_us - c->waiting_since_us;
    client_set_state(c, CLIENT_ACTIVE);
    client_update_timer(c);
    conn_wake(&c->conn);
}

void client_on_session_discarded(struct client *c)
{
    if (c->startup == NULL && c->settings == NULL)
        return;
    take_startup_settings(c);
    c->discarded = true;
}

void client_tell_startup_parameters(struct client *c)
{
    struct str name, value;

    for (size_t n = 0; n < settings_count(c->startup); n++) {
        settings_at(c->startup, n, &name, &value);
        int i = params_find(&proxy_of(c)->params_names, name);
        const char *now = i >= 0 ? params_get(&c->params, i) : NULL;
        if (now == NULL || str_equal(str_from(now), value))
            continue;
        params_set(&c->params, i, value);
        wire_encode_parameter_status(&c->conn.out, str_from(proxy_of(c)->params_names.name[i]),
                                     value);
    }
    conn_flush(&c->conn);
}

void client_on_canonical(struct client *c, struct str name, const char *asked, struct str value)
{
    const char *startup = settings_get(c->startup, name);

    if (startup == NULL || strcmp(startup, asked) != 0)
        return;
    settings_put(&c->startup, name, value);
    share_settings(&c->startup, &c->pool->last_startup);
}
