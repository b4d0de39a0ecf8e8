/* A restart that nobody notices: `pgtrickle -R`.
 *
 * The new process logs in to the old one's console over the unix socket, as the user pgbouncer with
 * the same uid, and says TAKEOVER. The old one stops accepting, waits until nothing is half done
 * that can't be told (a password exchange, a statement that a helper thread carries out, a probe),
 * and then hands over everything in one go, with all workers halted: listeners, databases' states,
 * SCRAM keys, prepared statements, idle servers, clients with the servers that they hold, the
 * replies that are owed, what was received and not understood, what is to be sent and was not. The
 * new process rebuilds it and says TAKEOVER DONE before it lets anything go on. When it dies before
 * that, the old one takes everything back from the records that it kept, and goes on.
 *
 * What can't be handed over stays: encrypted connections (their keys are inside of OpenSSL), and
 * what was still half done after suspend_timeout. The old process serves it until the end of its
 * transaction, tells it 57P01, and ends.
 *
 *   old:  IDLE --TAKEOVER--> SETTLING -> GIVEN --TAKEOVER DONE--> draining -> exit
 *                                          \--the console is gone--> takes back
 *
 * The answer to TAKEOVER is a COPY to the client: one CopyData a record (proxy/record.h), in an
 * order that needs no look ahead; a record's descriptors come with its first byte. Everything here
 * runs on worker 0 with the others halted.
 */
#ifndef PGTRICKLE_PROXY_TAKEOVER_H
#define PGTRICKLE_PROXY_TAKEOVER_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/str.h"
#include "proxy/admin.h"
#include "proxy/proxy.h"

/* ---- the old process ---- */

/* TAKEOVER of this console client, which waits until takeover_is_packed. */
bool takeover_begin(struct proxy *p, struct client *console, struct err *e);
/* The answer may be sent. */
bool takeover_is_packed(const struct proxy *p);
/* The COPY, without CommandComplete, is appended to the console's output. */
void takeover_answer(struct proxy *p);
/* TAKEOVER DONE. False: there is none, *e. */
bool takeover_commit(struct proxy *p, const struct client *console, struct err *e);
/* A console client goes; if it is the one that takes over, everything is taken back. */
void takeover_on_gone(struct proxy *p, const struct client *console);
void takeover_free(struct proxy *p);

/* ---- the new process ---- */

/* Descriptors that come with a record. */
size_t takeover_descriptors(struct str record);
/* It is about a listener: for whoever listens, not for takeover_import. */
bool takeover_is_listener(struct str record);
/* Before the loops run. Takes the descriptors over, whatever comes of it. */
void takeover_import(struct proxy *p, struct str record, const int *fds, size_t n_fds);
/* The other process has taken everything back: what was imported is forgotten, and no stream ends.
 */
void takeover_drop(struct proxy *p);
/* All records were imported: everybody goes on. */
void takeover_resume(struct proxy *p);

#endif
