/* What a login asks somebody outside of the process: PAM, an LDAP server, the system's users.
 *
 * The world answers (io_ops.ask), on a helper thread: it may take as long as it likes.
 */
#ifndef PGTRICKLE_PROXY_OUTSIDE_H
#define PGTRICKLE_PROXY_OUTSIDE_H

#include <stdbool.h>
#include <sys/types.h>

#include "proxy/ldap_options.h"

enum outside_kind {
    OUTSIDE_PAM,
    OUTSIDE_LDAP,
    OUTSIDE_USER_NAME, /* of a user id of the system */
};

struct outside_question {
    enum outside_kind kind;
    const char *user;
    const char *password;
    const char *address; /* the client's, for PAM; NULL: a unix socket */
    const char *service; /* PAM */
    struct ldap_options ldap;
    uid_t uid; /* OUTSIDE_USER_NAME */
    /* The answer. */
    bool yes;       /* the password is right; the user id has a name */
    char name[256]; /* OUTSIDE_USER_NAME */
    char why[256];  /* not: for the log */
};

#endif
