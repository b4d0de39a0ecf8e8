/* What a service manager wants to know, and what it gives us: systemd's protocols, by hand.
 *
 * sd_notify(3): datagrams of NAME=value lines to $NOTIFY_SOCKET. sd_listen_fds(3): descriptors from
 * 3 on, as many as $LISTEN_FDS says, when $LISTEN_PID is us. sd_watchdog_enabled(3):
 * $WATCHDOG_USEC, for $WATCHDOG_PID. Without these variables all here does nothing.
 */
#ifndef PGTRICKLE_PROXY_IO_SYSTEMD_H
#define PGTRICKLE_PROXY_IO_SYSTEMD_H

#include <stdbool.h>
#include <stdint.h>

struct systemd;

/* Reads the environment and takes the variables out of it: children inherit nothing. */
struct systemd *systemd_new(void);
void systemd_free(struct systemd *s);

/* Sends one datagram; never blocks, and a failure is nobody's. s NULL: nothing. */
void systemd_notify(struct systemd *s, const char *text);
bool systemd_is_listening(const struct systemd *s);
/* We must tell that we are alive more often than this, or are killed; 0: no watchdog. */
uint64_t systemd_watchdog_us(const struct systemd *s);

/* Descriptors that the service manager listens on for us: first, first + 1 …; 0: none. */
int systemd_listen_fds(const struct systemd *s, int *first);

#endif
