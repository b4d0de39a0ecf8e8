#include "proxy/login.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/arena.h"
#include "protocol/auth.h"
#include "protocol/notice.h"
#include "protocol/scram.h"
#include "protocol/startup.h"
#include "proxy/cancel.h"
#include "proxy/client.h"
#include "proxy/server.h"

#define USER_NAME_MAX 127
#define DATABASE_NAME_MAX 63

enum login_method {
    LOGIN_CLEARTEXT,
    LOGIN_MD5,
    LOGIN_SCRAM,
};

struct login {
    bool ssl_asked;
    bool gss_asked;
    enum login_method method;
    bool known; /* the user has a secret that may match */
    uint8_t salt[4];
    char *secret;
    struct scram_secret scram_secret;
    struct scram_server *scram; /* after the first message */
};

static struct proxy *proxy_of(const struct client *c)
{
    return c->conn.worker->proxy;
}

static void random_bytes(struct client *c, void *to, size_t n)
{
    c->conn.worker->ops->random(c->conn.worker->io, to, n);
}

void login_free(struct login *l)
{
    if (l == NULL)
        return;
    scram_server_free(l->scram);
    free(l->secret);
    free(l);
}

/* ---- startup parameters ----------------------------------------------------------------- */

static bool set_parameter(struct client *c, struct str name, struct str value, bool in_options)
{
    struct proxy *p = proxy_of(c);
    int i = params_find(&p->params_names, name);

    if (i >= 0) {
        params_set(&c->params, i, value);
        return true;
    }
    if (config_list_has_nocase(p->config->ignore_startup_parameters, name))
        return true;
    if (in_options) {
        if (config_list_has_nocase(p->config->ignore_startup_parameters, STR("options")))
            return true;
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

static bool take_parameters(struct client *c, struct str params)
{
    struct str name, value, user = { 0 }, database = { 0 };

    while (startup_next_param(&params, &name, &value)) {
        if (str_equal(name, STR("user"))) {
            user = value;
        } else if (str_equal(name, STR("database"))) {
            database = value;
        } else if (str_equal(name, STR("options"))) {
            if (!set_options(c, value))
                return false;
        } else if (str_equal(name, STR("replication"))) {
            if (!set_replication(c, value))
                return false;
        } else if (str_starts_with(name, STR("_pq_."))) {
            /* answered by NegotiateProtocolVersion */
        } else if (!set_parameter(c, name, value, false)) {
            return false;
        }
    }
    if (c->replication != REPLICATION_NONE) {
        client_fail(c, "0A000", "replication connections are not supported");
        return false;
    }
    if (user.len == 0) {
        client_fail(c, "08P01", "no username supplied");
        return false;
    }
    if (database.len == 0)
        database = user;
    if (user.len > USER_NAME_MAX || database.len > DATABASE_NAME_MAX) {
        client_fail(c, "08P01", "name of the user or the database is too long");
        return false;
    }
    free(c->user_name);
    free(c->database_name);
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
        text_free(&t);
    }
    return true;
}

/* ---- how to prove it -------------------------------------------------------------------- */

static void begin_scram(struct client *c, const struct userlist_entry *e)
{
    struct proxy *p = proxy_of(c);
    struct login *l = c->login;
    struct str user = str_from(c->user_name);
    bool usable = false;

    if (e != NULL && e->kind == SECRET_SCRAM) {
        usable = scram_secret_parse(str_from(e->secret), &l->scram_secret);
    } else if (e != NULL && e->kind == SECRET_PLAIN) {
        struct user *u = proxy_user(p, user);
        if (u->derived_from != NULL && strcmp(u->derived_from, e->secret) == 0) {
            usable = scram_secret_parse(str_from(u->derived_verifier), &l->scram_secret);
        } else {
            uint8_t salt[SCRAM_SALT_DEFAULT_LEN];
            struct text t;
            random_bytes(c, salt, sizeof(salt));
            usable = scram_secret_from_password(
                str_from(e->secret), (struct str){ (char *)salt, sizeof(salt) },
                p->config->scram_iterations > 0 ? p->config->scram_iterations
                                                : SCRAM_ITERATIONS_DEFAULT,
                &l->scram_secret);
            if (usable) {
                text_init(&t);
                scram_secret_print(&l->scram_secret, &t);
                free(u->derived_from);
                free(u->derived_verifier);
                u->derived_from = mem_strdup(e->secret);
                u->derived_verifier = t.ptr;
            }
        }
    }
    if (!usable)
        scram_secret_mock(user, p->mock_key, SCRAM_ITERATIONS_DEFAULT, &l->scram_secret);
    l->known = usable;
    l->method = LOGIN_SCRAM;
    static const char *const mechanisms[] = { SCRAM_MECHANISM, NULL };
    auth_encode_sasl(&c->conn.out, mechanisms);
}

static void begin_auth(struct client *c)
{
    struct proxy *p = proxy_of(c);
    struct login *l = c->login;
    bool console = strcmp(c->database_name, ADMIN_DATABASE) == 0;

    proxy_refresh_userlist(p);
    const struct userlist_entry *e = userlist_find(p->userlist, str_from(c->user_name));
    if (console && c->conn.peer.is_unix && strcmp(c->user_name, ADMIN_DATABASE) == 0 &&
        proxy_is_own_uid(&c->conn.peer)) {
        client_on_authenticated(c);
        return;
    }
    l->known = e != NULL && e->kind != SECRET_NONE;
    if (e != NULL)
        l->secret = mem_strdup(e->secret);
    c->state = CLIENT_AUTH;
    switch (p->config->auth_type) {
    case AUTH_TYPE_ANY:
        client_on_authenticated(c);
        return;
    case AUTH_TYPE_TRUST:
        if (e == NULL)
            client_fail(c, "28000", "\"trust\" authentication failed");
        else
            client_on_authenticated(c);
        return;
    case AUTH_TYPE_PLAIN:
        l->method = LOGIN_CLEARTEXT;
        auth_encode_cleartext(&c->conn.out);
        break;
    case AUTH_TYPE_MD5:
        if (e != NULL && e->kind == SECRET_SCRAM) {
            begin_scram(c, e);
        } else {
            l->method = LOGIN_MD5;
            random_bytes(c, l->salt, sizeof(l->salt));
            auth_encode_md5(&c->conn.out, l->salt);
        }
        break;
    case AUTH_TYPE_SCRAM_SHA_256:
        begin_scram(c, e);
        break;
    case AUTH_TYPE_CERT:
    case AUTH_TYPE_HBA:
    case AUTH_TYPE_LDAP:
    case AUTH_TYPE_PAM:
        /* Refused when the configuration is loaded. */
        client_fail(c, "08P01", "bouncer config error");
        return;
    }
    conn_flush(&c->conn);
}

static void on_startup(struct client *c, const struct startup_packet *packet)
{
    struct proxy *p = proxy_of(c);

    if (packet->major != 3) {
        client_fail(c, "08P01", "unsupported protocol version: %u.%u", packet->major,
                    packet->minor);
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
    if (p->config->log_connections)
        client_log(c, LEVEL_LOG, "login attempt: db=%s user=%s tls=no replication=no",
                   c->database_name, c->user_name);
    if (strcmp(c->database_name, ADMIN_DATABASE) != 0) {
        if (p->n_clients >= p->config->max_client_conn) {
            client_fail(c, "53300", "no more connections allowed (max_client_conn)");
            return;
        }
        p->n_clients++;
        c->counted = true;
    }
    begin_auth(c);
}

/* ---- the proof -------------------------------------------------------------------------- */

static void refuse(struct client *c)
{
    client_fail(c, "28P01", "%s",
                c->login->method == LOGIN_SCRAM ? "SASL authentication failed"
                                                : "password authentication failed");
}

static bool password_matches(struct client *c, struct str password)
{
    struct login *l = c->login;
    struct str secret = l->secret != NULL ? str_from(l->secret) : STR("");
    struct auth_md5 digest;
    struct scram_secret scram;

    if (!l->known)
        return false;
    switch (secret_kind_of(secret)) {
    case SECRET_NONE:
        return false;
    case SECRET_PLAIN:
        return auth_equal(secret, password);
    case SECRET_MD5:
        return auth_md5_secret(str_from(c->user_name), password, &digest) &&
               auth_equal(secret, str_from(digest.text));
    case SECRET_SCRAM:
        return scram_secret_parse(secret, &scram) && scram_password_matches(&scram, password);
    }
    return false;
}

static bool md5_matches(struct client *c, struct str answer)
{
    struct login *l = c->login;
    struct auth_md5 digest, expected;
    struct str secret = l->secret != NULL ? str_from(l->secret) : STR("");

    if (!l->known)
        return false;
    if (!auth_is_md5_secret(secret)) {
        if (!auth_md5_secret(str_from(c->user_name), secret, &digest))
            return false;
        secret = str_from(digest.text);
    }
    return auth_md5_answer(secret, l->salt, &expected) &&
           auth_equal(str_from(expected.text), answer);
}

/* The keys log in to a server that has the same secret. */
static void learn_keys(struct client *c)
{
    struct login *l = c->login;
    struct scram_keys keys;
    struct user *u = proxy_user(proxy_of(c), str_from(c->user_name));

    if (l->secret == NULL || secret_kind_of(str_from(l->secret)) != SECRET_SCRAM)
        return;
    scram_server_keys(l->scram, &keys);
    memcpy(u->scram_client_key, keys.client_key, SCRAM_KEY_LEN);
    memcpy(u->scram_server_key, keys.server_key, SCRAM_KEY_LEN);
    free(u->scram_verifier);
    u->scram_verifier = mem_strdup(l->secret);
    u->has_scram_keys = true;
}

static void on_scram(struct client *c, struct str body)
{
    struct login *l = c->login;
    struct sasl_initial initial;
    struct str message = body;
    struct text out;

    if (l->scram == NULL) {
        uint8_t nonce[SCRAM_NONCE_RAW_LEN];
        if (!auth_decode_sasl_initial(body, &initial) ||
            !str_equal(initial.mechanism, STR(SCRAM_MECHANISM)) || !initial.has_response) {
            client_fail(c, "08P01", "SASL authentication failed");
            return;
        }
        random_bytes(c, nonce, sizeof(nonce));
        l->scram = scram_server_new(&l->scram_secret, nonce);
        message = initial.response;
    }
    text_init(&out);
    switch (scram_server_step(l->scram, message, &out)) {
    case SCRAM_CONTINUE:
        auth_encode_sasl_continue(&c->conn.out, text_str(&out));
        conn_flush(&c->conn);
        break;
    case SCRAM_DONE:
        if (!l->known) {
            refuse(c);
            break;
        }
        auth_encode_sasl_final(&c->conn.out, text_str(&out));
        conn_flush(&c->conn);
        learn_keys(c);
        client_on_authenticated(c);
        break;
    case SCRAM_DENIED:
        refuse(c);
        break;
    case SCRAM_MALFORMED:
        client_fail(c, "08P01", "SASL authentication failed");
        break;
    }
    text_free(&out);
}

static void on_password(struct client *c, struct str body)
{
    struct str password;

    if (c->login->method == LOGIN_SCRAM) {
        on_scram(c, body);
        return;
    }
    if (!auth_decode_password(body, &password)) {
        client_fail(c, "08P01", "bad password packet");
        return;
    }
    if (c->login->method == LOGIN_MD5 ? md5_matches(c, password) : password_matches(c, password))
        client_on_authenticated(c);
    else
        refuse(c);
}

size_t login_on_bytes(struct client *c, struct str bytes)
{
    size_t used = 0;

    if (c->login == NULL)
        c->login = mem_alloc(sizeof(*c->login));
    while (used < bytes.len && (c->state == CLIENT_STARTUP || c->state == CLIENT_AUTH)) {
        struct str rest = { bytes.ptr + used, bytes.len - used };
        enum wire_result result;

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
                on_password(c, f.body);
            continue;
        }
        struct startup_packet packet;
        size_t n = 0;
        if (startup_is_tls(rest)) {
            client_close(c, "direct TLS is not supported");
            return used;
        }
        result = startup_next(rest, &packet, &n);
        if (result == WIRE_NEED_MORE)
            return used;
        if (result == WIRE_MALFORMED) {
            client_close(c, "bad startup packet");
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
            if (*asked || used < bytes.len) {
                client_fail(c, "08P01", "received unencrypted data after encryption request");
                return used;
            }
            *asked = true;
            conn_send(&c->conn, "N", 1);
            break;
        }
        }
    }
    return used;
}

/* ---- our login to a server -------------------------------------------------------------- */

static bool answer_scram_begin(struct server *s, struct str secret, enum secret_kind kind,
                               struct err *e)
{
    struct user *u = s->pool->user;
    uint8_t nonce[SCRAM_NONCE_RAW_LEN];
    struct text out;

    s->conn.worker->ops->random(s->conn.worker->io, nonce, sizeof(nonce));
    if (kind == SECRET_PLAIN) {
        s->scram = scram_client_new(secret, nonce);
    } else if (kind == SECRET_SCRAM && u->has_scram_keys && !s->pool->user_is_forced &&
               str_equal(str_from(u->scram_verifier), secret)) {
        struct scram_keys keys;
        memcpy(keys.client_key, u->scram_client_key, SCRAM_KEY_LEN);
        memcpy(keys.server_key, u->scram_server_key, SCRAM_KEY_LEN);
        s->scram = scram_client_new_with_keys(&keys, nonce);
    } else {
        return err_set(e, ERR_REFUSAL, "08P01", "wrong password type");
    }
    text_init(&out);
    scram_client_step(s->scram, STR(""), &out);
    auth_encode_sasl_initial(&s->conn.out, STR(SCRAM_MECHANISM), text_str(&out));
    text_free(&out);
    return true;
}

bool login_answer_server(struct server *s, struct str body, struct err *e)
{
    struct proxy *p = s->conn.worker->proxy;
    struct pool *pool = s->pool;
    struct auth_request r;
    struct str secret = STR("");
    struct str user = str_from(pool->user->name);
    struct auth_md5 digest, answer;
    struct text out;
    bool ok = true;

    if (!auth_decode_request(body, &r))
        return err_set(e, ERR_PEER, "08P01", "unknown authentication request of the server");
    const struct userlist_entry *entry = userlist_find(p->userlist, user);
    if (pool->user_is_forced && pool->db->entry != NULL && pool->db->entry->password != NULL)
        secret = str_from(pool->db->entry->password);
    else if (entry != NULL)
        secret = str_from(entry->secret);
    enum secret_kind kind = secret_kind_of(secret);

    switch (r.kind) {
    case AUTH_REQUEST_OK:
        return true;
    case AUTH_REQUEST_CLEARTEXT:
        if (kind == SECRET_SCRAM || kind == SECRET_NONE)
            return err_set(e, ERR_REFUSAL, "08P01", "wrong password type");
        auth_encode_password(&s->conn.out, secret);
        break;
    case AUTH_REQUEST_MD5:
        if (kind == SECRET_SCRAM || kind == SECRET_NONE)
            return err_set(e, ERR_REFUSAL, "08P01", "wrong password type");
        if (kind == SECRET_PLAIN) {
            if (!auth_md5_secret(user, secret, &digest))
                return err_set(e, ERR_RESOURCE, "08P01", "md5 is not available");
            secret = str_from(digest.text);
        }
        if (!auth_md5_answer(secret, r.salt, &answer))
            return err_set(e, ERR_RESOURCE, "08P01", "md5 is not available");
        auth_encode_password(&s->conn.out, str_from(answer.text));
        break;
    case AUTH_REQUEST_SASL:
        if (!auth_offers_mechanism(&r, SCRAM_MECHANISM) || s->scram != NULL)
            return err_set(e, ERR_PEER, "08P01", "no SASL mechanism of the server is supported");
        ok = answer_scram_begin(s, secret, kind, e);
        break;
    case AUTH_REQUEST_SASL_CONTINUE:
    case AUTH_REQUEST_SASL_FINAL:
        if (s->scram == NULL)
            return err_set(e, ERR_PEER, "08P01", "unexpected SASL message of the server");
        text_init(&out);
        switch (scram_client_step(s->scram, r.payload, &out)) {
        case SCRAM_CONTINUE:
        case SCRAM_DONE:
            if (out.len > 0)
                auth_encode_sasl_response(&s->conn.out, text_str(&out));
            break;
        case SCRAM_DENIED:
        case SCRAM_MALFORMED:
            ok = err_set(e, ERR_PEER, "08P01", "SASL authentication failed");
            break;
        }
        text_free(&out);
        break;
    case AUTH_REQUEST_KERBEROS_V5:
    case AUTH_REQUEST_GSS:
    case AUTH_REQUEST_GSS_CONTINUE:
    case AUTH_REQUEST_SSPI:
        return err_set(e, ERR_PEER, "08P01", "unsupported authentication request of the server");
    }
    conn_flush(&s->conn);
    return ok;
}
