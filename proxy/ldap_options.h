/* The LDAP words of an HBA line and of auth_ldap_options.
 *
 * Manual: "LDAP Authentication". Simple bind: the user is bound as ldapprefix + user + ldapsuffix.
 * Search and bind: its entry is looked for under ldapbasedn, then bound. Strings are NULL when not
 * given; they live in the arena of whoever parsed them.
 */
#ifndef PGTRICKLE_PROXY_LDAP_OPTIONS_H
#define PGTRICKLE_PROXY_LDAP_OPTIONS_H

#include <stdbool.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/str.h"

enum ldap_scope {
    LDAP_SUBTREE,
    LDAP_ONE_LEVEL,
    LDAP_BASE,
};

struct ldap_options {
    const char *scheme; /* "ldap", "ldaps" */
    const char *server; /* blanks between several; NULL: this machine */
    int port;           /* 0: the scheme's */
    bool tls;
    const char *prefix;
    const char *suffix;
    const char *base_dn;
    const char *bind_dn;
    const char *bind_password;
    const char *search_attribute;
    const char *search_filter;
    enum ldap_scope scope;
};

/* "ldapserver" = "10.0.0.1" … False and *e: not an LDAP word, or its value is bad. */
bool ldap_options_set(struct ldap_options *o, struct arena *a, const char *word, const char *value,
                      struct err *e);
/* They make sense together. */
bool ldap_options_check(const struct ldap_options *o, struct err *e);
/* All of a setting: blanks or commas between the words. */
bool ldap_options_parse(struct ldap_options *o, struct arena *a, struct str text, struct err *e);

/* The filter with which to look for a user, or false when the name has a character that could
 * change its meaning. */
bool ldap_options_filter(const struct ldap_options *o, const char *user, struct arena *a,
                         const char **filter);

#endif
