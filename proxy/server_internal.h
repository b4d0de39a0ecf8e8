/* What the files of the server's machine share: server.c, server_replies.c, server_prepare.c. */
#ifndef PGTRICKLE_PROXY_SERVER_INTERNAL_H
#define PGTRICKLE_PROXY_SERVER_INTERNAL_H

#include "proxy/server.h"

struct reply_owed *server_owed_first(struct server *s); /* NULL: nothing is owed */
/* Settings, and the question what a session left: not the client's. Takes NULL. */
bool server_reply_is_own(const struct reply_owed *o);
/* The first is forgotten; */
void server_owed_pop(struct server *s);
/* has arrived; */
void server_owed_succeed(struct server *s);
/* and the first n never come. */
void server_owed_drop(struct server *s, unsigned n);
/* CopyInResponse. */
void server_on_copy_in(struct server *s);

#endif
