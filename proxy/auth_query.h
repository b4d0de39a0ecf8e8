/* Users that auth_file lacks: auth_query, run as auth_user in a database of the configuration.
 *
 * A lookup is a client inside of the process (struct inner_client): it waits in the pool of
 * (database, auth_user) like any other, within query_wait_timeout, and its statement is one batch
 * of the extended protocol with the user's name as its one text parameter. The first statement of
 * the batch puts pg_catalog at the front and pg_temp at the end of search_path and takes SET ROLE
 * back, for the batch's own transaction: what another session left behind or what stands in public
 * does not change the meaning of pg_catalog's names, and nothing of it is left to the next user of
 * the connection.
 *
 * Logins of one user that wait for a connection at the same time share a lookup; one whose query
 * was sent before a login began does not serve it, so a changed password counts at once.
 */
#ifndef PGTRICKLE_PROXY_AUTH_QUERY_H
#define PGTRICKLE_PROXY_AUTH_QUERY_H

#include <stdbool.h>

#include "base/err.h"
#include "base/list.h"
#include "base/str.h"

struct auth_lookup;
struct database;
struct worker;

/* What a login waits with. Zeroed: it waits for nothing. */
struct auth_waiter {
    struct list_node node;
    struct auth_lookup *lookup;
    void *owner;
};

/* One row, or none. Borrowed. */
struct auth_answer {
    bool found;
    struct str name; /* the user's, as the query has it */
    bool has_secret; /* false: it is NULL */
    struct str secret;
};

/* Ends in login_on_answer or login_on_no_answer (proxy/login_internal.h), in another event. */
void auth_query_start(struct worker *w, struct auth_waiter *waiter, struct database *db,
                      const char *auth_user, const char *query, const char *user);
void auth_query_abandon(struct auth_waiter *waiter);

#endif
