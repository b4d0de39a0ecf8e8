/* One error value.
 *
 * An err is filled where a failure is first understood, given context on the way
 * up, and reported once by whoever decides what happens next.  It owns its
 * strings; err_clear releases them.  A zeroed err means "no error".
 */
#ifndef PGTRICKLE_BASE_ERR_H
#define PGTRICKLE_BASE_ERR_H

#include <stdbool.h>

enum err_class {
    ERR_NONE,
    ERR_PEER,     /* a client or server broke the protocol or went away */
    ERR_SERVER,   /* PostgreSQL answered ERROR: sqlstate and texts are its own */
    ERR_REFUSAL,  /* what was asked can't be done; the user can act on it */
    ERR_RESOURCE, /* out of descriptors, disk, ... */
    ERR_CONFIG,
    ERR_BUG,
};

struct err {
    enum err_class class;
    char sqlstate[6];
    char *message; /* without severity; never NULL when class is set */
    char *detail;  /* NULL when there is none, as the next two */
    char *hint;
    char *context;
    int position;          /* 1-based characters in the text of the user; 0: none */
    int internal_position; /* 1-based characters in internal_query; 0: none */
    char *internal_query;
};

/* Sets *e, replacing what it held.  Returns false so that `return err_set(...)` reads well. */
bool err_set(struct err *e, enum err_class class, const char *sqlstate, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
void err_detail(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void err_hint(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Puts "prefix: " before the message. */
void err_prefix(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool err_is_set(const struct err *e);
void err_clear(struct err *e);
/* Moves *from to *to. */
void err_move(struct err *to, struct err *from);

#endif
