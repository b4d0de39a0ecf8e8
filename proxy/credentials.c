#include "proxy/credentials.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>

#include "base/arena.h"

struct credentials_derived {
    char *secret;
    struct scram_challenge challenge;
    struct scram_keys keys;
};

/* Secrets don't stay behind in freed memory. */
static void forget(char **secret)
{
    if (*secret != NULL)
        OPENSSL_cleanse(*secret, strlen(*secret));
    free(*secret);
    *secret = NULL;
}

static void forget_derived(struct credentials *c)
{
    if (c->derived == NULL)
        return;
    forget(&c->derived->secret);
    OPENSSL_cleanse(c->derived, sizeof(*c->derived));
    free(c->derived);
    c->derived = NULL;
}

void credentials_clear(struct credentials *c)
{
    forget(&c->secret);
    forget(&c->verifier);
    forget_derived(c);
    OPENSSL_cleanse(&c->keys, sizeof(c->keys));
}

static void replace(char **secret, const char *with)
{
    if (*secret != NULL && with != NULL && strcmp(*secret, with) == 0)
        return;
    forget(secret);
    if (with != NULL)
        *secret = mem_strdup(with);
}

void credentials_set_secret(struct credentials *c, const char *secret)
{
    replace(&c->secret, secret);
}

void credentials_set_keys(struct credentials *c, const char *verifier,
                          const struct scram_keys *keys)
{
    replace(&c->verifier, verifier);
    c->keys = *keys;
}

void credentials_take_newer(struct credentials *to, const struct credentials *from)
{
    if (from->serial <= to->serial)
        return;
    credentials_set_secret(to, from->secret);
    replace(&to->verifier, from->verifier);
    to->keys = from->keys;
    to->serial = from->serial;
}

const struct scram_keys *credentials_keys(const struct credentials *c, const char *verifier)
{
    return c->verifier != NULL && strcmp(c->verifier, verifier) == 0 ? &c->keys : NULL;
}

void credentials_set_derived(struct credentials *c, const char *secret,
                             const struct scram_challenge *challenge, const struct scram_keys *keys)
{
    forget_derived(c);
    c->derived = mem_alloc(sizeof(*c->derived));
    c->derived->secret = mem_strdup(secret);
    c->derived->challenge = *challenge;
    c->derived->keys = *keys;
}

const struct scram_keys *credentials_derived(const struct credentials *c, const char *secret,
                                             const struct scram_challenge *challenge)
{
    const struct credentials_derived *d = c->derived;

    if (d == NULL || d->challenge.iterations != challenge->iterations ||
        d->challenge.salt_len != challenge->salt_len ||
        memcmp(d->challenge.salt, challenge->salt, challenge->salt_len) != 0 ||
        strcmp(d->secret, secret) != 0)
        return NULL;
    return &d->keys;
}
