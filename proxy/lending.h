/* Running lend_jobs (proxy/lend.h) for clients: waits for the server to be quiet, gives its
 * descriptor to a helper thread, passes the job's output on with back-pressure, takes the server
 * back.
 */
#ifndef PGTRICKLE_PROXY_LENDING_H
#define PGTRICKLE_PROXY_LENDING_H

#include <stdbool.h>

#include "base/str.h"
#include "proxy/prepared.h"

struct client;
struct database;

/* Each makes client->lend; the client's later messages wait until client_on_lend_done. */
void lending_query(struct client *c, struct str text);
void lending_execute(struct client *c, struct str frame, const struct lend_info *info);
void lending_complete(struct client *c);
void lending_end_block(struct client *c);

/* The server is quiet: starts the job if one waits for that. */
void lending_on_quiet(struct client *c);
/* The client's output has room again. */
void lending_on_room(struct client *c);
/* The client is gone; a running job ends by itself, and then the server is closed. True: the server
 * stays with the job. */
bool lending_abandon(struct client *c);

/* Makes sure that the SQL side is installed in the client's database; ends in
 * client_on_installed. */
void lending_install(struct client *c);

#endif
