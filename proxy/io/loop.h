/* The world behind the core: sockets, signals, helper threads.
 *
 * The only folder of the daemon with system calls on connections. A struct io is one event loop; it
 * carries out the wishes of struct io_ops (proxy/conn.h) and turns readiness, signals and finished
 * jobs into events of the core, each followed by worker_settle.
 */
#ifndef PGTRICKLE_PROXY_IO_LOOP_H
#define PGTRICKLE_PROXY_IO_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "proxy/config.h"
#include "proxy/conn.h"

struct listeners;
struct proxy;
struct systemd;

const struct io_ops *io_ops_real(void);

struct io *io_new(struct err *e);
/* Loops for n workers in all: the given one and n-1 more, of which it takes care. all[0..n-1] are
 * set. Also for n = 1. */
bool io_add_workers(struct io *io, int n, struct io **all, struct err *e);
void io_free(struct io *io);

uint64_t io_monotonic_us(void);
int64_t io_wall_us(void);

/* For worker 0's: where clients come from, and who wants to know how we are. Both are borrowed;
 * io_run begins to listen. */
void io_attach(struct io *io, struct listeners *listeners, struct systemd *systemd);

/* The proxy that was made with these loops: before anything makes connections, which taking over
 * from another process does. */
void io_bind(struct io *io, struct proxy *p);

/* Runs all loops, this one on the caller's thread, until io_ops.stop. */
void io_run(struct io *io);

/* Waits until no job runs; connections that jobs hold are ended so that they return. */
void io_finish_jobs(struct io *io);

#endif
