/* SCRAM verifiers made from plain secrets, kept because making one is slow by design.
 *
 * The secrets themselves are not in here: an entry is found by a keyed hash of the user, the secret
 * and the iterations. The oldest entries go when there are too many. One for the process; any
 * thread may call.
 */
#ifndef PGTRICKLE_PROXY_VERIFIERS_H
#define PGTRICKLE_PROXY_VERIFIERS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"
#include "protocol/scram.h"

#define VERIFIERS_MAX 16384

struct verifiers;

/* key: random, secret, 32 bytes; copied. */
struct verifiers *verifiers_new(const uint8_t key[32]);
void verifiers_free(struct verifiers *v);

bool verifiers_find(struct verifiers *v, struct str user, struct str secret, int iterations,
                    struct scram_secret *out);
void verifiers_put(struct verifiers *v, struct str user, struct str secret, int iterations,
                   const struct scram_secret *made);

#endif
