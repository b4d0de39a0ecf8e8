/* Which host a server connection is opened to, and what becomes of that choice: host lists, names
 * with several addresses, target_session_attrs. Between proxy/server.c, which connects and logs in,
 * and proxy/hosts.h and proxy/dns.h, which remember.
 */
#ifndef PGTRICKLE_PROXY_SERVER_HOST_H
#define PGTRICKLE_PROXY_SERVER_HOST_H

#include <stdbool.h>

#include "base/str.h"
#include "proxy/conn.h"

struct server;

/* Chooses; the host is of the configuration. */
struct address server_host_take(struct server *s);
/* It could not be connected to, or does not let anybody in. True: another one may do. */
bool server_host_failed(struct server *s);
void server_host_worked(struct server *s);

/* A ParameterStatus of the server. */
void server_host_on_parameter(struct server *s, struct str name, struct str value);
/* It is logged in: is it what target_session_attrs asks for? NULL: it is; else what it is not. */
const char *server_host_refuses(const struct server *s);
/* The same, for one that was refused: leaves it out. True: another one may do. */
bool server_host_left_out(struct server *s);
/* A preference only: when no other one will do, this one does. */
bool server_host_is_preference(const struct server *s);

#endif
