/* Our login to a server. */
#include "proxy/login.h"

#include "protocol/auth.h"
#include "protocol/scram.h"
#include "proxy/server.h"

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
