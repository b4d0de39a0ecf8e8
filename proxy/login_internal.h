/* What login.c (the startup packet) and login_proof.c (how the client proves who it is) share. */
#ifndef PGTRICKLE_PROXY_LOGIN_INTERNAL_H
#define PGTRICKLE_PROXY_LOGIN_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "protocol/scram.h"
#include "proxy/client.h"

enum login_method {
    LOGIN_CLEARTEXT,
    LOGIN_MD5,
    LOGIN_SCRAM,
};

struct login {
    char *startup_params; /* of a replication connection, malloc */
    size_t startup_params_len;
    bool ssl_asked;
    bool gss_asked;
    enum login_method method;
    bool known; /* the user has a secret that may match */
    uint8_t salt[4];
    char *secret;
    struct scram_secret scram_secret;
    struct scram_server *scram; /* after the first message */
};

/* The startup packet is understood: asks for a proof, or decides without. */
void login_begin(struct client *c);
/* The body of a message of tag 'p'. */
void login_on_password(struct client *c, struct str body);

#endif
