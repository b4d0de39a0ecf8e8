/* Our login to a server. */
#include "proxy/login.h"

#include <openssl/crypto.h>

#include "protocol/auth.h"
#include "protocol/scram.h"
#include "proxy/credentials.h"
#include "proxy/login_jobs.h"
#include "proxy/server.h"

/* The secret with which the pool's user logs in: of the database entry, of a client's login, of
 * auth_file. */
static struct str secret_of(const struct pool *pool)
{
    const struct config_database *entry = pool->db->entry;
    struct str user = str_from(pool->user->name);

    if (entry != NULL && entry->password != NULL && entry->user != NULL &&
        str_equal(str_from(entry->user), user))
        return str_from(entry->password);
    if (pool->credentials.secret != NULL)
        return str_from(pool->credentials.secret);
    const struct userlist_entry *e = userlist_find(pool->worker->proxy->userlist, user);
    return e != NULL ? str_from(e->secret) : STR("");
}

/* ---- SCRAM ------------------------------------------------------------------------------ */

static bool wrong_password_type(struct err *e, const char *detail)
{
    err_set(e, ERR_REFUSAL, "08P01", "wrong password type");
    err_detail(e, "%s", detail);
    return false;
}

static bool must_bind(const struct server *s)
{
    return s->conn.worker->proxy->config->server_tls_channel_binding == CHANNEL_BINDING_REQUIRE &&
           !s->conn.peer.is_unix;
}

/* Bound to the TLS connection if the server can and we want it. False: it must be, and can't. */
static bool choose_binding(const struct server *s, const struct auth_request *r,
                           enum scram_binding *binding, struct err *e)
{
    const struct tls_info *tls = s->conn.tls;
    enum channel_binding wanted = s->conn.worker->proxy->config->server_tls_channel_binding;
    bool can = tls != NULL && tls->end_point_len > 0 && wanted != CHANNEL_BINDING_DISABLE;

    *binding = SCRAM_UNBOUND;
    if (can && auth_offers_mechanism(r, SCRAM_MECHANISM_PLUS)) {
        *binding = SCRAM_BOUND;
        return true;
    }
    if (must_bind(s))
        return err_set(e, ERR_REFUSAL, "08P01",
                       "channel binding is required, but the server did not offer it");
    if (!auth_offers_mechanism(r, SCRAM_MECHANISM))
        return err_set(e, ERR_PEER, "08P01", "no SASL mechanism of the server is supported");
    if (can)
        *binding = SCRAM_COULD_BIND;
    return true;
}

static bool begin_scram(struct server *s, struct str secret, enum scram_binding binding,
                        struct err *e)
{
    const struct tls_info *tls = s->conn.tls;
    const struct scram_keys *keys = credentials_keys(&s->pool->credentials, secret.ptr);
    uint8_t nonce[SCRAM_NONCE_RAW_LEN];
    struct text out;

    switch (secret_kind_of(secret)) {
    case SECRET_NONE:
        return wrong_password_type(e,
                                   "The server asks for SCRAM-SHA-256, and no password is known.");
    case SECRET_MD5:
        return wrong_password_type(e, "The server asks for SCRAM-SHA-256, and only the md5 hash of "
                                      "the password is known.");
    case SECRET_SCRAM:
        if (keys == NULL || s->pool->user_is_forced)
            return wrong_password_type(e, "The server asks for SCRAM-SHA-256, and of the password "
                                          "only the verifier is known: no client has logged in "
                                          "with it by SCRAM-SHA-256 yet.");
        break;
    case SECRET_PLAIN:
        break;
    }
    s->conn.worker->ops->random(s->conn.worker->io, nonce, sizeof(nonce));
    s->scram = secret_kind_of(secret) == SECRET_PLAIN ? scram_client_new(secret, nonce)
                                                      : scram_client_new_with_keys(keys, nonce);
    text_init(&out);
    if (binding != SCRAM_UNBOUND)
        scram_client_bind(s->scram, binding,
                          (struct str){ (const char *)tls->end_point, tls->end_point_len });
    s->binds = binding == SCRAM_BOUND;
    scram_client_step(s->scram, STR(""), &out);
    auth_encode_sasl_initial(
        &s->conn.out, s->binds ? STR(SCRAM_MECHANISM_PLUS) : STR(SCRAM_MECHANISM), text_str(&out));
    text_free(&out);
    conn_flush(&s->conn);
    return true;
}

static bool step_scram(struct server *s, struct str message, struct err *e)
{
    struct text out;
    bool ok = true;

    text_init(&out);
    switch (scram_client_step(s->scram, message, &out)) {
    case SCRAM_DONE:
        s->scram_done = true;
        s->bound = s->binds;
        break;
    case SCRAM_CONTINUE:
        if (out.len > 0)
            auth_encode_sasl_response(&s->conn.out, text_str(&out));
        conn_flush(&s->conn);
        break;
    case SCRAM_DENIED:
    case SCRAM_MALFORMED:
        ok = err_set(e, ERR_PEER, "08P01", "SASL authentication failed");
        break;
    }
    text_free(&out);
    return ok;
}

/* Computes the keys of a plain secret for the server's salt. */
struct keys_job {
    struct login_job base; /* first */
    struct str message;    /* the server's, whose answer needs the keys */
    struct str secret;
    struct scram_challenge challenge;
    bool ok;
    struct scram_keys keys;
};

static void keys_run(struct login_job *j)
{
    struct keys_job *k = (struct keys_job *)(void *)j;

    k->ok = scram_challenge_keys(&k->challenge, k->secret, &k->keys);
}

static void keys_done(struct login_job *j, void *owner)
{
    struct keys_job *k = (struct keys_job *)(void *)j;
    struct server *s = owner;
    struct err e = { 0 };

    if (k->ok) {
        credentials_set_derived(&s->pool->credentials, k->secret.ptr, &k->challenge, &k->keys);
        scram_client_set_keys(s->scram, &k->keys);
    }
    if (!step_scram(s, k->message, &e))
        server_login_failed(s, e.message);
    err_clear(&e);
    OPENSSL_cleanse((char *)k->secret.ptr, k->secret.len);
    OPENSSL_cleanse(&k->keys, sizeof(k->keys));
}

static bool answer_challenge(struct server *s, struct str message, struct err *e)
{
    struct credentials *known = &s->pool->credentials;
    struct str secret = secret_of(s->pool);
    struct scram_challenge challenge;

    if (!scram_client_challenge(s->scram, message, &challenge))
        return step_scram(s, message, e);
    if (secret_kind_of(secret) == SECRET_SCRAM) {
        struct scram_secret verifier;
        if (!scram_secret_parse(secret, &verifier) || verifier.iterations != challenge.iterations ||
            verifier.salt_len != challenge.salt_len ||
            memcmp(verifier.salt, challenge.salt, challenge.salt_len) != 0)
            return wrong_password_type(
                e, "The SCRAM verifier known here is not the server's: salt or iterations differ.");
        return step_scram(s, message, e);
    }
    const struct scram_keys *keys = credentials_derived(known, secret.ptr, &challenge);
    if (keys != NULL) {
        scram_client_set_keys(s->scram, keys);
        return step_scram(s, message, e);
    }
    struct keys_job *k =
        login_job_new(s->conn.worker, sizeof(*k), LOGIN_LANE_COMPUTE, s, &s->login_job);
    k->message = arena_str(&k->base.arena, message);
    k->secret = (struct str){ arena_strndup(&k->base.arena, secret.ptr, secret.len), secret.len };
    k->challenge = challenge;
    k->base.run = keys_run;
    k->base.done = keys_done;
    login_job_start(&k->base);
    return true;
}

/* ---- all methods ------------------------------------------------------------------------ */

static bool answer_password(struct server *s, const struct auth_request *r, struct err *e)
{
    struct str secret = secret_of(s->pool);
    struct auth_md5 digest, answer;

    if (must_bind(s))
        return err_set(e, ERR_REFUSAL, "08P01",
                       "channel binding is required, but the server asks for a password");
    switch (secret_kind_of(secret)) {
    case SECRET_NONE:
        return wrong_password_type(e, "The server asks for a password, and none is known.");
    case SECRET_SCRAM:
        return wrong_password_type(e, "The server asks for a password, and only its SCRAM verifier "
                                      "is known.");
    case SECRET_PLAIN:
        if (r->kind != AUTH_REQUEST_MD5)
            break;
        if (!auth_md5_secret(str_from(s->pool->user->name), secret, &digest))
            return err_set(e, ERR_RESOURCE, "08P01", "md5 is not available");
        secret = str_from(digest.text);
        break;
    case SECRET_MD5:
        break;
    }
    if (r->kind == AUTH_REQUEST_MD5) {
        if (!auth_md5_answer(secret, r->salt, &answer))
            return err_set(e, ERR_RESOURCE, "08P01", "md5 is not available");
        secret = str_from(answer.text);
    }
    auth_encode_password(&s->conn.out, secret);
    conn_flush(&s->conn);
    return true;
}

bool login_answer_server(struct server *s, struct str body, struct err *e)
{
    enum scram_binding binding;
    struct auth_request r;

    if (!auth_decode_request(body, &r))
        return err_set(e, ERR_PEER, "08P01", "unknown authentication request of the server");
    if (s->authenticated)
        return err_set(e, ERR_PEER, "08P01", "unexpected authentication request of the server");
    if (s->login_job != NULL)
        return err_set(e, ERR_PEER, "08P01", "unexpected SASL message of the server");
    switch (r.kind) {
    case AUTH_REQUEST_OK:
        if (must_bind(s) && !s->bound)
            return err_set(e, ERR_REFUSAL, "08P01",
                           "channel binding is required, but the server asked for no proof");
        if (s->scram != NULL && !s->scram_done)
            return err_set(e, ERR_PEER, "08P01",
                           "the server has not proved that it knows the password");
        s->authenticated = true;
        return true;
    case AUTH_REQUEST_CLEARTEXT:
    case AUTH_REQUEST_MD5:
        return answer_password(s, &r, e);
    case AUTH_REQUEST_SASL:
        if (s->scram != NULL)
            return err_set(e, ERR_PEER, "08P01", "unexpected SASL message of the server");
        return choose_binding(s, &r, &binding, e) && begin_scram(s, secret_of(s->pool), binding, e);
    case AUTH_REQUEST_SASL_CONTINUE:
    case AUTH_REQUEST_SASL_FINAL:
        if (s->scram == NULL)
            return err_set(e, ERR_PEER, "08P01", "unexpected SASL message of the server");
        return answer_challenge(s, r.payload, e);
    case AUTH_REQUEST_KERBEROS_V5:
    case AUTH_REQUEST_GSS:
    case AUTH_REQUEST_GSS_CONTINUE:
    case AUTH_REQUEST_SSPI:
        break;
    }
    return err_set(e, ERR_PEER, "08P01", "unsupported authentication request of the server");
}

void login_forget_server(struct server *s)
{
    login_job_abandon(s->login_job);
    scram_client_free(s->scram);
    s->scram = NULL;
}
