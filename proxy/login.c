#include "proxy/login.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/arena.h"
#include "protocol/startup.h"
#include "proxy/cancel.h"
#include "proxy/client.h"
#include "proxy/login_internal.h"
#include "proxy/settings.h"

#define USER_NAME_MAX 127
#define DATABASE_NAME_MAX 63
static struct proxy *proxy_of(const struct client *c)
{
    return c->conn.worker->proxy;
}

/* ---- startup parameters ----------------------------------------------------------------- */

static bool set_parameter(struct client *c, struct str name, struct str value, bool in_options)
{
    struct proxy *p = proxy_of(c);
    int i = params_find(&p->params_names, name);

    /* The server judges: all of them are passed on. */
    if (i < 0 && c->replication != REPLICATION_NONE)
        return true;
    /* An ignored one that is followed is not ignored: as PgBouncer. */
    if (i < 0 && config_list_has_nocase(p->config->ignore_startup_parameters, name))
        return true;
    if (i < 0 && in_options &&
        config_list_has_nocase(p->config->ignore_startup_parameters, STR("options")))
        return true;
    if (i >= 0 || !p->config->refuse_startup_parameters) {
        if (!settings_put(&c->startup, name, value)) {
            client_fail(c, "54000", "startup parameters are too long");
            return false;
        }
        if (i >= 0)
            params_set(&c->params, i, value);
        return true;
    }
    if (in_options) {
        client_fail(c, "08P01", "unsupported startup parameter in options: " STR_FMT,
                    STR_ARG(name));
    } else {
        client_fail(c, "08P01", "unsupported startup parameter: " STR_FMT, STR_ARG(name));
    }
    return false;
}

/* One word of `options`: blanks end it unless a backslash stands before. */
static bool next_word(struct str *s, struct text *word)
{
    text_clear(word);
    while (s->len > 0 && s->ptr[0] == ' ') {
        s->ptr++;
        s->len--;
    }
    if (s->len == 0)
        return false;
    while (s->len > 0 && s->ptr[0] != ' ') {
        if (s->ptr[0] == '\\' && s->len > 1) {
            s->ptr++;
            s->len--;
        }
        text_put_bytes(word, s->ptr, 1);
        s->ptr++;
        s->len--;
    }
    return true;
}

/* "-c name=value" and "--name=value". */
static bool set_options(struct client *c, struct str options)
{
    struct text word;
    bool ok = true;

    text_init(&word);
    while (ok && next_word(&options, &word)) {
        struct str w = text_str(&word);
        if (str_equal(w, STR("-c"))) {
            if (!next_word(&options, &word))
                ok = false;
            w = text_str(&word);
        } else if (str_starts_with(w, STR("-c")) || str_starts_with(w, STR("--"))) {
            w.ptr += 2;
            w.len -= 2;
        } else {
            ok = false;
        }
        ptrdiff_t eq = ok ? str_find(w, STR("=")) : -1;
        if (!ok || eq <= 0) {
            client_fail(c, "08P01",
                        "unsupported options startup parameter: only '-c config=val' and "
                        "'--config=val' are allowed");
            ok = false;
            break;
        }
        /* The server takes a dash for an underscore here. */
        for (ptrdiff_t i = 0; i < eq; i++)
            if (w.ptr[i] == '-')
                word.ptr[w.ptr - word.ptr + i] = '_';
        ok = set_parameter(c, (struct str){ w.ptr, (size_t)eq },
                           (struct str){ w.ptr + eq + 1, w.len - (size_t)eq - 1 }, true);
    }
    text_free(&word);
    return ok;
}

static char *copy_name(struct str s)
{
    char *copy = mem_alloc(s.len + 1);

    memcpy(copy, s.ptr, s.len);
    return copy;
}

static bool set_replication(struct client *c, struct str value)
{
    static const struct {
        const char *word;
        enum replication is;
    } words[] = {
        { "database", REPLICATION_LOGICAL }, { "true", REPLICATION_PHYSICAL },
        { "yes", REPLICATION_PHYSICAL },     { "on", REPLICATION_PHYSICAL },
        { "1", REPLICATION_PHYSICAL },       { "false", REPLICATION_NONE },
        { "no", REPLICATION_NONE },          { "off", REPLICATION_NONE },
        { "0", REPLICATION_NONE },
    };

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (str_equal_nocase(value, str_from(words[i].word))) {
            c->replication = words[i].is;
            return true;
        }
    }
    client_fail(c, "22023", "invalid value for parameter \"replication\": \"" STR_FMT "\"",
                STR_ARG(value));
    return false;
}

static void keep_startup_params(struct client *c, struct str params)
{
    struct login *l = c->login;

    free(l->startup_params);
    l->startup_params = mem_alloc(params.len + 1);
    l->startup_params_len = params.len;
    memcpy(l->startup_params, params.ptr, params.len);
}

struct str login_startup_params(const struct client *c)
{
    return (struct str){ c->login->startup_params, c->login->startup_params_len };
}

static bool take_parameters(struct client *c, struct str params)
{
    struct str name, value, user = { 0 }, database = { 0 };

    if (startup_find_param(params, "replication", &value) && !set_replication(c, value))
        return false;
    if (c->replication != REPLICATION_NONE)
        keep_startup_params(c, params);
    while (startup_next_param(&params, &name, &value)) {
        if (str_equal(name, STR("user"))) {
            user = value;
        } else if (str_equal(name, STR("database"))) {
            database = value;
        } else if (str_equal(name, STR("options"))) {
            if (c->replication == REPLICATION_NONE && !set_options(c, value))
                return false;
        } else if (str_equal(name, STR("replication"))) {
            /* known already */
        } else if (str_starts_with(name, STR("_pq_."))) {
            /* answered by NegotiateProtocolVersion */
        } else if (!set_parameter(c, name, value, false)) {
            return false;
        }
    }
    if (user.len == 0) {
        client_fail(c, "08P01", "no username supplied");
        return false;
    }
    if (database.len == 0)
        database = user;
    if (user.len > LOGIN_USER_NAME_MAX || database.len > LOGIN_DATABASE_NAME_MAX) {
        client_fail(c, "08P01",
                    user.len > LOGIN_USER_NAME_MAX ? "username too long" : "dbname too long");
        return false;
    }
    client_forget_names(c);
    c->user_name = copy_name(user);
    c->database_name = copy_name(database);
    if (proxy_of(c)->config->application_name_add_host) {
        char peer[300];
        struct text t;
        const char *app = params_get(&c->params, PARAM_APPLICATION_NAME);
        address_print(&c->conn.peer, peer, sizeof(peer));
        text_init(&t);
        text_printf(&t, "%s - %s", app != NULL && app[0] != '\0' ? app : "app", peer);
        params_set(&c->params, PARAM_APPLICATION_NAME, text_str(&t));
        settings_put(&c->startup, STR("application_name"), text_str(&t));
        text_free(&t);
    }
    return true;
}

static void on_startup(struct client *c, const struct startup_packet *packet)
{
    struct proxy *p = proxy_of(c);

    if (packet->major != 3) {
        client_fail(c, "08P01", "unsupported protocol version: %u.%u", packet->major,
                    packet->minor);
        return;
    }
    if (p->config->client_tls_sslmode >= SSLMODE_REQUIRE && c->conn.tls == NULL &&
        !c->conn.peer.is_unix) {
        client_fail(c, "08P01", "SSL required");
        return;
    }
    if (!take_parameters(c, packet->params))
        return;
    /* No server ever spoke 3.1. */
    uint16_t minor = packet->minor >= 2 ? 2 : 0;
    c->speaks_3_2 = minor == 2;
    if (packet->minor != minor || startup_has_options(packet->params))
        startup_encode_negotiate(&c->conn.out, 3, minor, packet->params);
    conn_flush(&c->conn);
    if (p->config->log_connections) {
        char tls[TLS_PRINT_MAX];
        tls_print(c->conn.tls, tls);
        client_log(c, LEVEL_LOG, "login attempt: db=%s user=%s tls=%s replication=%s",
                   c->database_name, c->user_name, tls[0] != '\0' ? tls : "no",
                   replication_name(c->replication));
    }
    if (strcmp(c->database_name, ADMIN_DATABASE) != 0) {
        c->counted = true;
        if (atomic_fetch_add(&p->n_clients, 1) >= p->config->max_client_conn) {
            client_fail(c, "53300", "no more connections allowed (max_client_conn)");
            return;
        }
    }
    login_begin(c);
}

/* The console is on worker 0; a cancel request goes where its target is. */
static struct worker *worker_for(struct client *c, const struct startup_packet *packet)
{
    struct str params = packet->params, name, value, user = { 0 }, database = { 0 };

    switch (packet->kind) {
    case STARTUP_MESSAGE:
        while (startup_next_param(&params, &name, &value)) {
            if (str_equal(name, STR("user")))
                user = value;
            else if (str_equal(name, STR("database")))
                database = value;
        }
        if (str_equal(database.len > 0 ? database : user, STR(ADMIN_DATABASE)))
            return proxy_of(c)->workers[0];
        break;
    case STARTUP_CANCEL:
        return cancel_worker(c, packet->cancel_pid, packet->cancel_key);
    case STARTUP_SSL_REQUEST:
    case STARTUP_GSSENC_REQUEST:
        break;
    }
    return c->conn.worker;
}

/* A unix socket needs none. */
static bool takes_tls(const struct client *c)
{
    return proxy_of(c)->client_tls != NULL && !c->conn.peer.is_unix;
}

/* first: what a client sent of the handshake that did not ask before. */
static void begin_tls(struct client *c, struct str first)
{
    struct tls_start how = {
        .context = proxy_of(c)->client_tls,
        .accepts = true,
        .is_direct = first.len > 0,
        .first = first,
    };

    if (!takes_tls(c))
        client_close(c, "direct TLS connection, but TLS is not configured");
    else if (!conn_start_tls(&c->conn, &how))
        client_close(c, "TLS startup failed");
}

size_t login_on_bytes(struct client *c, struct str bytes)
{
    size_t used = 0;

    if (client_has(c)->move != NULL) {
        c->conn.held = true;
        return 0;
    }
    if (c->login == NULL)
        c->login = mem_alloc(sizeof(*c->login));
    while (used < bytes.len && (c->state == CLIENT_STARTUP || c->state == CLIENT_AUTH)) {
        struct str rest = { bytes.ptr + used, bytes.len - used };
        enum wire_result result;

        if (c->state == CLIENT_AUTH && login_is_waiting(c->login)) {
            c->conn.held = true;
            return used;
        }
        if (c->state == CLIENT_AUTH) {
            struct wire_header h;
            struct wire_frame f;
            result = wire_peek_header(SENT_BY_FRONTEND, rest, &h);
            if (result == WIRE_FRAME)
                result = h.tag != FE_PASSWORD && h.tag != FE_TERMINATE
                             ? WIRE_MALFORMED
                             : wire_next_frame(SENT_BY_FRONTEND, rest, &f);
            if (result == WIRE_NEED_MORE)
                return used;
            if (result != WIRE_FRAME) {
                client_fail(c, "08P01", "unexpected message during authentication");
                return used;
            }
            used += f.bytes.len;
            if (f.tag == FE_TERMINATE)
                client_close(c, "client close request");
            else
                login_on_password(c, f.body);
            continue;
        }
        struct startup_packet packet;
        size_t n = 0;
        if (used == 0 && startup_is_tls(rest) && c->conn.tls == NULL && !c->login->ssl_asked &&
            !c->login->gss_asked) {
            begin_tls(c, rest);
            return bytes.len;
        }
        result = startup_next(rest, &packet, &n);
        if (result == WIRE_NEED_MORE)
            return used;
        if (result == WIRE_MALFORMED) {
            client_fail(c, "08P01", "client sent partial pkt in startup phase");
            return used;
        }
        struct worker *to = worker_for(c, &packet);
        if (to != c->conn.worker) {
            client_move(c, to);
            c->conn.held = true;
            return used;
        }
        used += n;
        switch (packet.kind) {
        case STARTUP_MESSAGE:
            on_startup(c, &packet);
            break;
        case STARTUP_CANCEL:
            cancel_request(c, packet.cancel_pid, packet.cancel_key);
            break;
        case STARTUP_SSL_REQUEST:
        case STARTUP_GSSENC_REQUEST: {
            bool *asked =
                packet.kind == STARTUP_SSL_REQUEST ? &c->login->ssl_asked : &c->login->gss_asked;
            /* Bytes behind the request, sent before our answer, may be another's. */
            if (*asked || used < bytes.len || c->conn.tls != NULL) {
                client_fail(c, "08P01", "received unencrypted data after encryption request");
                return used;
            }
            *asked = true;
            if (packet.kind == STARTUP_SSL_REQUEST && takes_tls(c)) {
                conn_send(&c->conn, "S", 1);
                begin_tls(c, (struct str){ "", 0 });
            } else {
                conn_send(&c->conn, "N", 1);
            }
            break;
        }
        }
    }
    return used;
}
