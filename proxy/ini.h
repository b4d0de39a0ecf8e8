/* The file format of the configuration: PgBouncer's ini dialect, and its connection strings.
 *
 * Lines are `[section]`, `key = value` (to the end of the line, blanks cut), comments (`;` or `#`
 * as the first character that is no blank) or `%include FILE` (relative to the working directory).
 * Keys are letters, digits and `_.-*`, or anything in single quotes with '' for a quote (double
 * quotes are taken too, as the manual promises them).
 *
 * A pure reader: what keys mean is the handler's business.
 */
#ifndef PGTRICKLE_PROXY_INI_H
#define PGTRICKLE_PROXY_INI_H

#include <stdbool.h>
#include <stddef.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/str.h"

/* Both return false with *e filled to stop; the reader then puts "file:line: " before it. What they
 * are given is borrowed for the call. */
struct ini_handler {
    bool (*section)(void *arg, struct str name, struct err *e);
    bool (*key)(void *arg, struct str key, struct str value, struct err *e);
    void *arg;
};

/* False and *e (ERR_CONFIG) when a file can't be read or a line can't be understood. */
bool ini_read_file(const char *path, const struct ini_handler *handler, struct err *e);
/* The same for text from anywhere; `name` stands for the file in messages. %include is refused. */
bool ini_read_text(struct str text, const char *name, const struct ini_handler *handler,
                   struct err *e);

/* Connection strings: `key=value` separated by blanks, a value with blanks in single quotes. */
struct connstr {
    struct str rest;
};

enum connstr_next {
    CONNSTR_PAIR,
    CONNSTR_END,
    CONNSTR_BAD, /* *e is filled */
};

/* The next pair; *value is in the arena and NUL-terminated, *key is borrowed from the text. */
enum connstr_next connstr_next(struct connstr *c, struct arena *a, struct str *key,
                               const char **value, struct err *e);

/* Reads a whole file into *text, which is in the arena. Files over 64 MB are refused. */
bool ini_slurp(const char *path, struct arena *a, struct str *text, struct err *e);

#endif
