/* Which user of the system (or name in a certificate) may log in as which user of the database:
 * auth_ident_file, for the rules of auth_hba_file with map=.
 *
 * The file is pg_ident.conf's (manual: "User Name Maps"; the syntax is in proxy/rules_file.h): map,
 * system user, database user. A system user that begins with `/` is a regular expression, whose
 * first group stands for \1 in the database user. The database user `all` is any.
 *
 * Immutable and counted by references, as proxy/hba.h.
 */
#ifndef PGTRICKLE_PROXY_IDENT_H
#define PGTRICKLE_PROXY_IDENT_H

#include <stdbool.h>

#include "base/err.h"
#include "base/str.h"
#include "proxy/rules_file.h"

struct ident;

struct ident *ident_load(const char *path, struct err *e);
struct ident *ident_parse(struct str text, const char *name);
struct ident *ident_ref(struct ident *m);
void ident_unref(struct ident *m); /* takes NULL */

const struct rules_complaint *ident_bad_lines(const struct ident *m);

/* map NULL: the names must be equal. m NULL: there are no maps. */
bool ident_allows(const struct ident *m, const char *map, const char *system_user,
                  const char *database_user);

#endif
