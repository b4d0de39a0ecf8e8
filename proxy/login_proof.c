#include "proxy/login.h"

#include <stdlib.h>

#include "base/arena.h"
#include "protocol/auth.h"
#include "proxy/login_internal.h"

static struct proxy *proxy_of(const struct client *c)
{
    return c->conn.worker->proxy;
}

static void random_bytes(struct client *c, void *to, size_t n)
{
    c->conn.worker->ops->random(c->conn.worker->io, to, n);
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

void login_begin(struct client *c)
{
    struct proxy *p = proxy_of(c);
    struct login *l = c->login;
    bool console = strcmp(c->database_name, ADMIN_DATABASE) == 0;

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

void login_on_password(struct client *c, struct str body)
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
