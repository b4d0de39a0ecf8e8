/* Where clients come from: TCP and unix sockets that listen.
 *
 * A listener is opened here, or comes ready from elsewhere: from systemd (socket activation), or
 * from the process that is taken over. It is tied to an event loop by listeners_start only, so that
 * all that can go wrong is known before the process goes on.
 *
 * The unix socket is <unix_socket_dir>/.s.PGSQL.<listen_port>. Two processes must not share one:
 * listeners_open refuses when something answers there, or when a PostgreSQL has left its
 * "<socket>.lock"; what a dead process left is removed.
 */
#ifndef PGTRICKLE_PROXY_IO_LISTEN_H
#define PGTRICKLE_PROXY_IO_LISTEN_H

#include <stdbool.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/err.h"
#include "base/log.h"
#include "proxy/config.h"

struct listeners;
struct poller;

struct listeners *listeners_new(void);
/* Closes all of them. Removes the socket file, unless another process goes on with it
 * (listeners_leave). */
void listeners_free(struct listeners *l);

/* As the configuration says; ERR_CONFIG or ERR_RESOURCE when one can't be had. */
bool listeners_open(struct listeners *l, const struct config *c, struct err *e);
/* A socket that listens already is ours from now on; false: it is none. owned: so is the file of a
 * unix socket, which is removed at the end. */
bool listeners_adopt(struct listeners *l, int fd, bool owned, struct err *e);
/* Something accepts connections on our unix socket. */
bool listeners_answered(const struct config *c);

struct listener_ops {
    /* A connection; fd is the callee's. */
    void (*accepted)(void *arg, int fd, const struct sockaddr_storage *from, bool is_unix);
    /* Around a batch of them. */
    void (*enter)(void *arg);
    void (*leave)(void *arg);
};

/* ops and arg are borrowed until listeners_stop or listeners_free. */
void listeners_start(struct listeners *l, struct poller *poller, const struct listener_ops *ops,
                     void *arg, struct log *log);
/* Connections wait in the kernel's queue meanwhile. */
void listeners_pause(struct listeners *l, bool paused);
/* Closes those of the kind. */
void listeners_stop(struct listeners *l, bool tcp, bool unix_socket);
/* RELOAD: tcp_defer_accept. */
void listeners_configure(struct listeners *l, const struct config *c);
/* The socket file stays when we end: another process has its descriptor. */
void listeners_leave(struct listeners *l);

int listeners_count(const struct listeners *l);
int listeners_fd(const struct listeners *l, int i);
/* "127.0.0.1:6432", "unix:/tmp/.s.PGSQL.6432": valid until the next call. */
const char *listeners_text(struct listeners *l, int i);

/* The address of a server's or our own unix socket; 0: the path is too long. A leading "@" is an
 * abstract name. */
socklen_t listen_unix_address(struct sockaddr_un *un, const char *dir, int port);

#endif
