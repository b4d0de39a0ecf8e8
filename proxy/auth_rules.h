/* auth_hba_file and auth_ident_file, as the process has them (proxy.hba, proxy.ident), and a look
 * at auth_ldap_options. */
#ifndef PGTRICKLE_PROXY_AUTH_RULES_H
#define PGTRICKLE_PROXY_AUTH_RULES_H

#include <stdbool.h>

#include "base/err.h"

struct proxy;

/* Reads both as the configuration names them; workers are halted, or do not run yet. Bad lines are
 * logged and left out. A file that can't be read leaves the rules as they were: false and *e, which
 * is logged too. */
bool auth_rules_load(struct proxy *p, struct err *e);
void auth_rules_free(struct proxy *p);

#endif
