/* The file that holds our process id.
 *
 * One of a process that lives stops us; one of a dead process is removed. A process that was taken
 * over (proxy/takeover.h) leaves the file to its successor: pidfile_remove looks whose it is.
 */
#ifndef PGTRICKLE_PROXY_PIDFILE_H
#define PGTRICKLE_PROXY_PIDFILE_H

#include <stdbool.h>

#include "base/err.h"
#include "base/log.h"

/* ERR_CONFIG when another process is alive, or the file can't be read. */
bool pidfile_check(const char *path, struct log *log, struct err *e);
/* Replaces what is there in one step. */
bool pidfile_write(const char *path, struct err *e);
/* When it is still ours. */
void pidfile_remove(const char *path);

#endif
