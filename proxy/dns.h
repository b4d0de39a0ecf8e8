/* Names of servers and peers: looked up on helper threads, remembered for a while.
 *
 * Each worker has a cache of its own. An answer is used for dns_max_ttl, "there is no such name"
 * for dns_nxdomain_ttl; the time that the answer itself gives is not seen (getaddrinfo, so that
 * /etc/hosts and whatever else the system is configured for count). While no name server answers,
 * the last answer is used. Several addresses take turns; one that failed is left out for a while.
 *
 * When an answer lacks an address that the last one had, servers connected to that one are to be
 * given up (server_on_addresses); the mere order of the answer means nothing. Names are looked up
 * again when something connects, and every dns_zone_check_period while servers are connected to
 * them: without the serials of zones, which only a resolver library sees, that is the nearest.
 */
#ifndef PGTRICKLE_PROXY_DNS_H
#define PGTRICKLE_PROXY_DNS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/text.h"
#include "proxy/conn.h"

#define DNS_ADDRESSES_MAX 32
#define DNS_ADDRESS_SIZE 64 /* with the scope of a link-local one */

struct dns;

/* The reason of a connect that failed for it. */
#define DNS_FAILED "server DNS lookup failed"

enum lookup_result {
    LOOKUP_FOUND,
    LOOKUP_NO_SUCH_NAME,
    LOOKUP_NO_ANSWER,
};

/* One question. The world (io_ops.resolve) fills the rest and calls dns_on_answer on the thread of
 * the worker. */
struct lookup {
    struct job job; /* first; the world's */
    struct worker *worker;
    const char *host;
    enum lookup_result result;
    int n_addresses;
    char addresses[DNS_ADDRESSES_MAX][DNS_ADDRESS_SIZE];
};
void dns_on_answer(struct lookup *l); /* frees l */

struct dns *dns_new(struct worker *w);
void dns_free(struct dns *d); /* no lookup is under way */

/* host is neither an address nor the directory of a socket. */
bool dns_is_name(const struct address *to);

/* Connects c to c->peer, whose host is a name: conn_connect's. Ends as io_ops.connect does. */
void dns_connect(struct conn *c);
/* The conn is closed; it may have been waiting for an answer. */
void dns_forget(struct conn *c);

/* An address could not be connected to: it is left out until then. */
void dns_failed(struct worker *w, const char *host, const char *address, uint64_t until_us);
/* The name has an address that is not left out. */
bool dns_has_other(struct worker *w, const char *host);
/* Is the address one of the name's, as far as is known? */
bool dns_has(struct worker *w, const char *host, const char *address);

/* Every name that a server of the worker is connected by is looked up again when it is due. */
void dns_upkeep(struct worker *w);

/* SHOW DNS_HOSTS: calls row for each name; text is its addresses, a comma list. */
void dns_show(const struct worker *w,
              void (*row)(void *arg, const char *host, int64_t ttl_s, const char *addresses),
              void *arg);
bool dns_knows(const struct worker *w, const char *host);
int dns_count_lookups(const struct worker *w); /* under way */

#endif
