/* One byte stream to a peer, and the world behind it.
 *
 * A conn is what a client, a server and a cancel request have in common: received bytes that are
 * not yet understood, bytes to be sent, and flow control. It knows no socket. The world (proxy/io,
 * or a test) is a struct io_ops: it delivers events with the conn_on_* functions below and carries
 * out the wishes.
 *
 * Rules. The owner's on_bytes gets a borrowed slice and says how much of it is done with; the rest
 * is kept and offered again when more arrives or after conn_wake. While on_bytes runs, no other
 * on_bytes runs: conn_wake only queues, and worker_settle drains the queue. conn_send appends to
 * `out`, which is handed to the world once per settling. A sender that would fill `out` beyond
 * CONN_OUT_HIGH must be paused by its owner (conn_is_full); on_room tells when to go on.
 * conn_close is final: the world forgets the conn at once, and its owner frees it in worker_settle.
 */
#ifndef PGTRICKLE_PROXY_CONN_H
#define PGTRICKLE_PROXY_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/bytequeue.h"
#include "base/err.h"
#include "base/list.h"
#include "base/str.h"
#include "proxy/tls.h"

struct config;
struct worker;
struct conn;
struct lookup;
struct io;
struct outside_question;

#define CONN_READ_SIZE 32768 /* bytes taken from a socket at a time */
#define CONN_OUT_HIGH 65536  /* the sender is paused above this */
#define CONN_OUT_LOW 16384   /* and resumed below this */
#define CONN_HELD_MAX 16384  /* bytes read ahead from a peer that has to wait */

/* Where to connect to, or who it is. The host is borrowed, but for that of a conn. */
struct address {
    const char *host; /* IP, name, or socket directory ("@..." abstract); NULL: a unix client */
    int port;
    bool is_unix;
    int unix_pid; /* accepted unix connections: the peer's process */
    uid_t unix_uid;
};

struct conn_ops {
    size_t (*on_bytes)(struct conn *c, struct str bytes);
    void (*on_connected)(struct conn *c);
    /* The handshake of conn_start_tls is over: c->tls tells of it. May be NULL. */
    void (*on_secured)(struct conn *c);
    /* End of file (reason NULL), a reset, a failed connect. No more events follow. */
    void (*on_gone)(struct conn *c, const char *reason);
    void (*on_room)(struct conn *c);
    void (*free)(struct conn *c); /* after conn_close, from worker_settle */
    /* A conn inside of the process, with no socket: takes all that is sent. */
    void (*on_output)(struct conn *c, struct str bytes);
};

struct conn {
    const struct conn_ops *ops;
    struct worker *worker;
    void *socket; /* the world's; NULL when not connected or lent */
    struct bytequeue in;
    struct bytequeue out;
    struct address peer;        /* its host is one of proxy.peer_hosts */
    struct tls_info *tls;       /* NULL: in clear; its own */
    struct list_node wake_node; /* worker.wakes; closed: worker.dead */
    struct list_node send_node;
    bool paused;   /* the owner does not want to read */
    bool stopped;  /* SUSPEND: nobody reads, whatever the owner wants */
    bool held;     /* on_bytes left bytes because it has to wait, not because more are needed */
    bool reading;  /* what the world was told */
    bool was_full; /* on_room is owed */
    bool securing; /* a handshake goes on */
    bool closed;
};

/* A handshake that is wanted. */
struct tls_start {
    struct tls_context *context;
    bool accepts;     /* as the server of the handshake */
    bool is_direct;   /* nobody asked for it: the protocol must be named (ALPN) */
    bool checks_host; /* the peer's certificate must be for `host` */
    const char *host; /* the peer, as the configuration calls it; unless `accepts` */
    struct str first; /* of the handshake, read already */
};

/* The stream of a conn in the hands of a helper thread, for which it blocks. In clear (recv NULL)
 * the descriptor is used as it is. */
struct lent_stream {
    int fd;
    void *tls; /* the world's */
    /* As recv(2) and send(2): 0 at the end, -1 when it is broken. */
    ssize_t (*recv)(void *tls, void *to, size_t size);
    ssize_t (*send)(void *tls, const void *bytes, size_t n);
};

/* Work on a helper thread. work() runs there; then done() runs on the worker that started it.
 * progress() runs on the worker after the thread called io_ops.job_notify. */
struct job {
    void (*work)(struct job *j);
    void (*progress)(struct job *j);
    void (*done)(struct job *j);
    struct worker *worker;
    struct job *next; /* the world's, as the next */
    int state;
};

struct io_ops {
    /* To an address or a socket. Ends in conn_on_connected or conn_on_gone, not inside of it. */
    void (*connect)(struct io *io, struct conn *c, const struct address *to);
    /* Sends what it can now; after a short write the world calls conn_on_writable when it can go
     * on. A broken stream takes all bytes and is reported by conn_on_gone later. */
    size_t (*send)(struct io *io, struct conn *c, const void *bytes, size_t n);
    void (*read)(struct io *io, struct conn *c, bool on);
    /* Our side of a connected stream. The host is valid until the next call. */
    struct address (*local)(struct io *io, const struct conn *c);
    void (*close)(struct io *io, struct conn *c);
    /* Takes the descriptor away from the world (no more events) and brings it back. */
    struct lent_stream (*lend)(struct io *io, struct conn *c);
    void (*take_back)(struct io *io, struct conn *c);
    /* Ends the stream of a lent conn, so that a job that blocks on it returns. */
    void (*shutdown)(struct io *io, struct conn *c);
    void (*random)(struct io *io, void *bytes, size_t n);
    void (*resolve)(struct io *io, struct lookup *l); /* ends in dns_on_answer, as connect */
    void (*job_start)(struct io *io, struct job *j);
    /* On a helper thread: blocks until it is answered. */
    void (*ask)(struct io *io, struct outside_question *q);
    void (*job_notify)(struct io *io, struct job *j); /* thread-safe */
    void (*stop)(struct io *io);                      /* leave the loop: the process ends */
    /* From any thread: worker_run_letters of this io's worker is wanted. */
    void (*wake)(struct io *io);
    /* CPU time of the worker's thread, which asks. NULL: not known. */
    uint64_t (*cpu_us)(const struct worker *w);
    /* Takes the conn out of its loop, and into another one's. */
    void (*detach)(struct io *io, struct conn *c);
    void (*attach)(struct io *io, struct conn *c);
    /* From worker 0: the others stop between two events; they go on, and settle. */
    void (*halt)(struct io *io);
    void (*release)(struct io *io);
    /* Gives the descriptor away, the stream as it is; -1: it can't be had (TLS, not connected). The
     * world forgets the conn. And takes one: nobody reads it yet. */
    int (*surrender)(struct io *io, struct conn *c);
    void (*adopt)(struct io *io, struct conn *c, int fd);
    /* fd goes along with the next byte that is put into c->out (unix sockets, SCM_RIGHTS). It stays
     * the caller's, and must be open until the byte is sent. */
    void (*enclose)(struct io *io, struct conn *c, int fd);
    void (*close_descriptor)(struct io *io, int fd);
    int (*descriptor)(struct io *io, const struct conn *c); /* for SHOW FDS; -1: none */
    /* The i-th socket that listens, our own still; -1: there is none. */
    int (*listener)(struct io *io, int i);
    /* Closes all of them; the file of the unix socket stays. */
    void (*listen_leave)(struct io *io);
    void (*listen_stop)(struct io *io, bool tcp, bool unix_socket);
    void (*listen_pause)(struct io *io, bool paused); /* connections wait in the kernel */
    void (*configured)(struct io *io);                /* proxy.config is another */
    /* For the service manager: lines as sd_notify(3) has them. */
    void (*notify)(struct io *io, const char *text);
    /* What the configuration says of TLS, as contexts: NULL for a side whose sslmode is disable.
     * False and *e when a file can't be used. */
    bool (*tls_load)(const struct config *config, struct tls_context **clients,
                     struct tls_context **servers, struct err *e);
    void (*tls_unref)(struct tls_context *t); /* takes NULL */
    /* Ends in conn_on_secured or conn_on_gone; nothing is sent or received in clear any more. */
    void (*tls_start)(struct io *io, struct conn *c, const struct tls_start *how);
};

void conn_init(struct conn *c, struct worker *w, const struct conn_ops *ops);
void conn_set_peer(struct conn *c, const struct address *peer);
/* Our side of it: asked for when somebody wants to know, for nobody does of most clients. Valid
 * until the next call. */
struct address conn_local(const struct conn *c);

/* --- wishes of the owner --- */
/* `to` may be a name: c->peer is the address then, when it is known. */
void conn_connect(struct conn *c, const struct address *to);
void conn_send(struct conn *c, const void *bytes, size_t n);
/* Hands what is queued to the world at the next settling, after writing to c->out directly. */
void conn_flush(struct conn *c);
void conn_wake(struct conn *c);
void conn_pause(struct conn *c, bool paused);
void conn_stop(struct conn *c, bool stopped);
/* Too much waits to be sent: stop sending until on_room. */
static inline bool conn_is_full(struct conn *c)
{
    if (bytequeue_len(&c->out) <= CONN_OUT_HIGH)
        return false;
    c->was_full = true;
    return true;
}
/* What is queued is sent as far as the peer takes it at once; then the stream ends. */
void conn_close(struct conn *c);

/* The conn goes to another worker by a letter of its owner's. Between events, and not from inside
 * of its own on_bytes. */
void conn_depart(struct conn *c);
void conn_arrive(struct conn *c, struct worker *w);

/* From now on the stream is encrypted: on_secured when it is. What was queued goes out before, in
 * clear; the caller has used all that came in. False: the peer does not take the little that was
 * queued, close it. */
bool conn_start_tls(struct conn *c, const struct tls_start *how);

/* Offers what was kept again; for worker_settle. */
void conn_run(struct conn *c);

/* --- events from the world; each must be followed by worker_settle --- */
void conn_on_bytes(struct conn *c, const char *bytes, size_t n);
void conn_on_connected(struct conn *c);
/* Takes info over (malloc). */
void conn_on_secured(struct conn *c, struct tls_info *info);
void conn_on_gone(struct conn *c, const char *reason);
void conn_on_writable(struct conn *c);

#endif
