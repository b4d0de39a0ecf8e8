/* Who may log in from where, and how it has to prove who it is: auth_hba_file.
 *
 * The file is pg_hba.conf's (manual: "The pg_hba.conf File"; the syntax is in proxy/rules_file.h).
 * Records: local, host, hostssl, hostnossl, hostnogssenc (as host) and hostgssenc (never matches:
 * there is no GSS). Databases: all, sameuser, replication, names, /regular expressions/. Users:
 * all, names, regular expressions; groups ("+name") are not known here. Addresses: all, samehost,
 * samenet, IP/bits, IP and mask. Methods: trust, reject, md5, password, scram-sha-256, cert, peer,
 * ldap, pam. A line that is not understood is left out and reported; the first that matches
 * decides.
 *
 * A struct hba is immutable and counted by references, which any thread may take and drop.
 */
#ifndef PGTRICKLE_PROXY_HBA_H
#define PGTRICKLE_PROXY_HBA_H

#include <stdbool.h>

#include "base/err.h"
#include "base/str.h"
#include "proxy/ldap_options.h"
#include "proxy/rules_file.h"

enum hba_method {
    HBA_TRUST,
    HBA_REJECT,
    HBA_MD5,
    HBA_PASSWORD,
    HBA_SCRAM_SHA_256,
    HBA_CERT,
    HBA_PEER,
    HBA_LDAP,
    HBA_PAM,
};

struct hba_rule {
    const char *file;
    int line;
    enum hba_method method;
    const char *map;         /* cert, peer; NULL: the names must be equal */
    const char *pam_service; /* pam; NULL: the default */
    struct ldap_options ldap;
};

/* Who asks. */
struct hba_peer {
    bool is_unix;
    bool is_tls;
    bool is_physical_replication;
    const char *address; /* numeric IP; unix: not looked at */
    const char *database;
    const char *user;
};

struct hba;

/* NULL and *e when the file can't be read. */
struct hba *hba_load(const char *path, struct err *e);
/* From memory; see rules_file_parse. */
struct hba *hba_parse(struct str text, const char *name);
struct hba *hba_ref(struct hba *h);
void hba_unref(struct hba *h); /* takes NULL */

/* Lines that were left out. */
const struct rules_complaint *hba_bad_lines(const struct hba *h);
size_t hba_rule_count(const struct hba *h);

/* The first rule that matches; NULL: none. Lives as long as h. h NULL: there are no rules. */
const struct hba_rule *hba_find(const struct hba *h, const struct hba_peer *peer);

const char *hba_method_name(enum hba_method m);

#endif
