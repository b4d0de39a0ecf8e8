#include "proxy/server_tls.h"

#include <stdlib.h>

#include "base/arena.h"
#include "protocol/message_types.h"
#include "protocol/startup.h"
#include "proxy/proxy.h"

void server_tls_init(struct server_tls *t, const char *host)
{
    *t = (struct server_tls){ .host = mem_strdup(host) };
}

void server_tls_fini(struct server_tls *t)
{
    free(t->host);
    t->host = NULL;
}

static enum server_tls_next start(struct server_tls *t, struct conn *c, bool is_direct,
                                  struct err *e)
{
    const struct proxy *p = c->worker->proxy;
    struct tls_start how = {
        .context = p->server_tls,
        .is_direct = is_direct,
        .checks_host = p->config->server_tls_sslmode == SSLMODE_VERIFY_FULL,
        .host = t->host,
    };

    t->state = SERVER_TLS_HANDSHAKE;
    if (conn_start_tls(c, &how))
        return SERVER_TLS_WAIT;
    err_set(e, ERR_PEER, "08006", "TLS startup failed");
    return SERVER_TLS_REFUSED;
}

enum server_tls_next server_tls_begin(struct server_tls *t, struct conn *c, struct err *e)
{
    const struct proxy *p = c->worker->proxy;

    if (p->server_tls == NULL || c->peer.is_unix)
        return SERVER_TLS_GO_ON;
    if (p->config->server_tls_negotiation == TLS_NEGOTIATION_DIRECT)
        return start(t, c, true, e);
    startup_encode_ssl_request(&c->out);
    conn_flush(c);
    t->state = SERVER_TLS_ASKED;
    return SERVER_TLS_WAIT;
}

enum server_tls_next server_tls_on_bytes(struct server_tls *t, struct conn *c, struct str bytes,
                                         struct err *e)
{
    const struct proxy *p = c->worker->proxy;

    if (bytes.len == 0)
        return SERVER_TLS_WAIT;
    if (t->state == SERVER_TLS_ASKED && bytes.ptr[0] == 'S') {
        /* What came with it was sent in clear, by whoever: never obeyed. */
        if (bytes.len == 1 && p->server_tls != NULL)
            return start(t, c, false, e);
        err_set(e, ERR_PEER, "08P01", "%s",
                bytes.len == 1 ? "server_tls_sslmode changed"
                               : "received unencrypted data after SSL response");
    } else if (t->state == SERVER_TLS_ASKED && bytes.ptr[0] == 'N') {
        if (bytes.len == 1 && p->config->server_tls_sslmode < SSLMODE_REQUIRE) {
            t->state = SERVER_TLS_CLEAR;
            return SERVER_TLS_GO_ON;
        }
        err_set(e, ERR_PEER, "08P01", "%s",
                bytes.len == 1 ? "server refused SSL" : "bad sslreq answer");
    } else if (t->state == SERVER_TLS_ASKED && bytes.ptr[0] == BE_ERROR) {
        /* Its text is not to be trusted: anybody may have sent it. */
        err_set(e, ERR_PEER, "08P01", "server sent an error response during SSL exchange");
    } else {
        err_set(e, ERR_PEER, "08P01", "bad sslreq answer");
    }
    return SERVER_TLS_REFUSED;
}
