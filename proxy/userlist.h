/* The auth_file: users and their secrets.
 *
 * Lines are `"user" "secret"`, a doubled quote inside is one quote, what follows is ignored, `;`
 * starts a comment line (PgBouncer's format). A userlist is immutable and reference counted like a
 * config; userlist_is_stale says when the file has changed and a new one should be loaded.
 */
#ifndef PGTRICKLE_PROXY_USERLIST_H
#define PGTRICKLE_PROXY_USERLIST_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/str.h"

enum secret_kind {
    SECRET_NONE, /* empty: never matches anything */
    SECRET_PLAIN,
    SECRET_MD5,   /* "md5" and 32 hexadecimal digits */
    SECRET_SCRAM, /* "SCRAM-SHA-256$…" */
};

struct userlist_entry {
    const char *name;
    const char *secret;
    enum secret_kind kind;
};

struct userlist;

/* NULL and *e (ERR_CONFIG) when the file can't be read or a name or secret is longer than allowed.
 * A line that is not understood is an error that names file and line. */
struct userlist *userlist_load(const char *path, struct err *e);
/* The same from memory, without a file behind it. `name` is for messages. */
struct userlist *userlist_parse(struct str text, const char *name, struct err *e);

struct userlist *userlist_ref(struct userlist *u);
void userlist_unref(struct userlist *u);

/* The file's identity, size or time of change is another than when it was loaded (or it is gone).
 * One stat(2). */
bool userlist_is_stale(const struct userlist *u);

/* The last line of a user wins. NULL when there is none; a NULL list is empty. */
const struct userlist_entry *userlist_find(const struct userlist *u, struct str name);
size_t userlist_count(const struct userlist *u);
/* By index, sorted by name. */
const struct userlist_entry *userlist_at(const struct userlist *u, size_t i);

enum secret_kind secret_kind_of(struct str secret);

#endif
