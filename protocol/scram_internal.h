/* Exchanges with a nonce, and a user, of one's choice: to check published ones. */
#ifndef PGTRICKLE_PROTOCOL_SCRAM_INTERNAL_H
#define PGTRICKLE_PROTOCOL_SCRAM_INTERNAL_H

#include "protocol/scram.h"

/* nonce: printable ASCII without commas. user: escaped as RFC 5802 asks. */
struct scram_server *scram_server_new_with_nonce(const struct scram_secret *secret,
                                                 struct str nonce);
struct scram_client *scram_client_new_with_nonce(struct str user, struct str password,
                                                 struct str nonce);

#endif
