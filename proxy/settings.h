/* Settings of a session that PostgreSQL does not report.
 *
 * What a client asked for in its startup packet (statement_timeout, extra_float_digits, anything
 * in `options`) and what it SET since is kept as one immutable, shared list of names and values,
 * sorted by name. A client has the list that it wants, a server the list that was applied to it;
 * at the link the differences are SET, and what the next client does not want is RESET. (Reported
 * parameters are followed by proxy/params.h.) NULL is the empty list, everywhere.
 */
#ifndef PGTRICKLE_PROXY_SETTINGS_H
#define PGTRICKLE_PROXY_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/str.h"
#include "base/text.h"

/* All names and values of one list, in bytes. */
#define SETTINGS_SIZE_MAX 32768

struct settings;

/* References may be taken and dropped by any thread. */
struct settings *settings_ref(struct settings *s);
void settings_unref(struct settings *s);

/* Replaces *s by a list in which `name` has this value; takes over the reference *s held. Names are
 * folded to lower case. False when the list would be too large, or the name is empty: *s is as it
 * was. */
bool settings_put(struct settings **s, struct str name, struct str value);
void settings_remove(struct settings **s, struct str name);
const char *settings_get(const struct settings *s, struct str name); /* NULL: not in it */
size_t settings_count(const struct settings *s);
/* The i-th, by name. NUL follows both. */
void settings_at(const struct settings *s, size_t i, struct str *name, struct str *value);
bool settings_equal(const struct settings *a, const struct settings *b);

/* A role is among them: other settings depend on it, and it on rights that may be gone. */
bool settings_have_role(const struct settings *s);

/* Appends the statements that turn a session with `have` into one with `want`. doubt: what `have`
 * holds may have been changed meanwhile. The role, on which the right to set others may depend, is
 * given up first and taken last. */
void settings_differences(const struct settings *want, const struct settings *have, bool doubt,
                          struct text *sql);

/* "SET name='value';", or a call of set_config where the value is a list of identifiers: there SET
 * would take the literal for one. */
void settings_put_set(struct text *sql, const char *name, struct str value);

#endif
