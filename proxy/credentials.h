/* With what a pool logs in to its servers, as far as a client's login brought it.
 *
 * A secret that auth_query found or that PAM or LDAP took is the pool's; else the user's secret is
 * auth_file's. The keys of a SCRAM verifier come from a client that proved to have the password,
 * and serve as long as the verifier is the same. Keys computed from a plain secret are kept with
 * the salt that they were computed for: servers keep a user's salt until the password changes.
 *
 * A zeroed struct is empty. Strings are copied.
 */
#ifndef PGTRICKLE_PROXY_CREDENTIALS_H
#define PGTRICKLE_PROXY_CREDENTIALS_H

#include <stdbool.h>
#include <stdint.h>

#include "protocol/scram.h"

struct credentials {
    uint64_t serial; /* of the login that brought them: later ones are greater; 0: none */
    char *secret;    /* NULL: auth_file's */
    char *verifier;  /* that keys belong to; NULL: there are none */
    struct scram_keys keys;
    struct credentials_derived *derived;
};

/* What a later login brought, but for what is computed from it. */
void credentials_take_newer(struct credentials *to, const struct credentials *from);

void credentials_clear(struct credentials *c);

/* NULL: back to auth_file's. */
void credentials_set_secret(struct credentials *c, const char *secret);

void credentials_set_keys(struct credentials *c, const char *verifier,
                          const struct scram_keys *keys);
/* NULL: there are none for this verifier. */
const struct scram_keys *credentials_keys(const struct credentials *c, const char *verifier);

void credentials_set_derived(struct credentials *c, const char *secret,
                             const struct scram_challenge *challenge,
                             const struct scram_keys *keys);
const struct scram_keys *credentials_derived(const struct credentials *c, const char *secret,
                                             const struct scram_challenge *challenge);

#endif
