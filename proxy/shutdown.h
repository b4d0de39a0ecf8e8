/* How the process stops: at once, when its clients or servers are gone, or by sending each client
 * away at the end of its transaction; and how it stands still (SUSPEND).
 *
 * All of it is asked for by signals and by the console, on worker 0 with the other workers halted;
 * what has to be waited for is looked at when a connection went away (shutdown_look).
 */
#ifndef PGTRICKLE_PROXY_SHUTDOWN_H
#define PGTRICKLE_PROXY_SHUTDOWN_H

#include <stdbool.h>

#include "proxy/proxy.h"

/* SHUTDOWN_WAIT_FOR_…: TCP is not listened to any more, the unix socket only for the console.
 * SHUTDOWN_NOW, or any mode after it: stops. */
void shutdown_begin(struct proxy *p, enum shutdown_mode mode);
/* SIGHUP, SIGTERM, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2. */
void shutdown_on_signal(struct proxy *p, int sig);

/* Sends clients away: at once where no transaction runs, the others when theirs is over, what is
 * left after drain_timeout in the middle of it. */
void shutdown_drain(struct proxy *p);

/* SUSPEND: nobody is read or accepted; what is queued is sent. What can't be sent within
 * suspend_timeout is closed. */
void shutdown_suspend(struct proxy *p);
bool shutdown_suspend_is_done(const struct proxy *p);
/* RESUME, of a SUSPEND. */
void shutdown_unsuspend(struct proxy *p);

/* Somebody went away: the process stops if that was waited for; a SUSPEND ends with the last
 * console. */
void shutdown_look(struct proxy *p);
/* How many clients there are but for those of the console. */
int shutdown_clients_left(const struct proxy *p);

#endif
