/* What login.c (the startup packet) and login_proof.c (how the client proves who it is) share. */
#ifndef PGTRICKLE_PROXY_LOGIN_INTERNAL_H
#define PGTRICKLE_PROXY_LOGIN_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "protocol/scram.h"
#include "proxy/auth_query.h"
#include "proxy/client.h"
#include "proxy/hba.h"

#define LOGIN_USER_NAME_MAX 127
#define LOGIN_DATABASE_NAME_MAX 63
#define LOGIN_SECRET_MAX 65530

struct login_job;

enum login_proof {
    PROOF_PASSWORD, /* in clear */
    PROOF_MD5,
    PROOF_SCRAM,
};

struct login {
    char *startup_params; /* of a replication connection */
    size_t startup_params_len;
    bool ssl_asked;
    bool gss_asked;
    /* How the user proves who it is, and by which rule. */
    enum hba_method method;
    const struct hba_rule *rule; /* of hba; NULL: auth_type says it */
    struct hba *hba;             /* a reference */
    /* What is under way: what the client says meanwhile waits. */
    struct auth_waiter lookup;
    struct login_job *job;
    /* The user. */
    bool exists;     /* there is such a user */
    bool known;      /* it has a secret that may match */
    bool from_query; /* the secret is auth_query's */
    char *secret;
    /* The proof. */
    enum login_proof proof;
    uint8_t salt[4];
    struct scram_secret scram_secret;
    struct scram_server *scram; /* after the first message */
    /* What the proof brought. */
    char *password; /* that PAM or LDAP took */
    bool has_keys;  /* of the SCRAM secret */
    struct scram_keys keys;
};

/* The startup packet is understood: asks for a proof, or decides without. */
void login_begin(struct client *c);
/* The body of a message of tag 'p'. */
void login_on_password(struct client *c, struct str body);
/* Somebody else is asked: nothing is taken from the client before the answer. */
static inline bool login_is_waiting(const struct login *l)
{
    return l->job != NULL || l->lookup.lookup != NULL;
}

/* From auth_query.c; owner is the client. */
void login_on_answer(void *owner, const struct auth_answer *answer);
void login_on_no_answer(void *owner, const struct err *e);

#endif
