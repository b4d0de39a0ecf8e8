#include "proxy/tls.h"

#include <stdio.h>
#include <stdlib.h>

#include "proxy/conn.h"

void tls_info_free(struct tls_info *t)
{
    if (t == NULL)
        return;
    free(t->peer_name);
    free(t);
}

void tls_print(const struct tls_info *t, char out[TLS_PRINT_MAX])
{
    out[0] = '\0';
    if (t != NULL)
        snprintf(out, TLS_PRINT_MAX, "%s/%s", t->version, t->cipher);
}

const struct tls_info *conn_tls(const struct conn *c)
{
    return c->tls;
}

const char *conn_certificate_name(const struct conn *c)
{
    return c->tls != NULL ? c->tls->peer_name : NULL;
}
