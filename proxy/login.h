/* Who may enter, as whom: the client's startup and authentication, and our own login to a server.
 *
 * Methods for clients are those of auth_type or of auth_hba_file's rules; secrets come from
 * auth_file, or from auth_query. A user that does not
 * exist is taken through the same exchange as one with a wrong password.
 */
#ifndef PGTRICKLE_PROXY_LOGIN_H
#define PGTRICKLE_PROXY_LOGIN_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/str.h"

struct client;
struct login;
struct pool;
struct server;

/* While the client is logging in to a replication connection: its startup parameters as they came
 * (protocol/startup.h, startup_next_param), for the server's startup packet. Borrowed. */
struct str login_startup_params(const struct client *c);

/* CLIENT_STARTUP and CLIENT_AUTH: takes what it can use; may close the client or move it on. */
size_t login_on_bytes(struct client *c, struct str bytes);
/* Nothing that others do for it comes back any more. */
void login_abandon(struct login *l);
void login_free(struct login *l);
/* The client is in, and this is its pool: what its login brought logs in to servers. */
void login_equip_pool(const struct client *c, struct pool *pool);

/* An Authentication message of the server: queues the answer, or has it computed elsewhere first.
 * False and *e when there is none. */
bool login_answer_server(struct server *s, struct str body, struct err *e);
/* The server is closed, or logged in. */
void login_forget_server(struct server *s);

#endif
