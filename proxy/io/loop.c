#include "proxy/io/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <arpa/inet.h>

#include "base/arena.h"
#include "proxy/client.h"
#include "proxy/io/crew.h"
#include "proxy/io/jobs.h"
#include "proxy/io/listen.h"
#include "proxy/io/outside.h"
#include "proxy/io/poller.h"
#include "proxy/io/resolve.h"
#include "proxy/io/systemd.h"
#include "proxy/io/tls.h"
#include "proxy/proxy.h"
#include "proxy/shutdown.h"

struct failed_connect;
/* Descriptors that one byte may have. */
#define ENCLOSED_MAX 8

struct socket;

/* What a socket has that is encrypted. */
struct secure {
    struct socket *socket;
    struct tls_stream *stream;
    struct list_node again_node; /* io.again */
    bool handshaking;            /* neither reads nor sends for the conn */
    bool has_more;               /* the stream holds bytes that no readiness tells of */
    bool read_waits;             /* for the socket to be writable */
};

/* Descriptors that go along with bytes of a unix socket. */
struct enclosed {
    struct enclosed *next;
    uint64_t at; /* with this byte, counted as `sent` */
    int fd;
};

struct enclosures {
    uint64_t sent; /* bytes since the first was enclosed */
    struct enclosed *first;
    struct enclosed *last;
};

/* What few sockets ever have. Made when the first of it is, and kept. */
struct socket_rare {
    struct socket *socket;
    struct list_node lent_node;    /* io.lent */
    struct failed_connect *failed; /* keeps the socket until it is told */
    struct enclosures *enclosures; /* NULL: never any */
};

/* A conn's descriptor. */
struct socket {
    struct watch watch; /* first; its descriptor is -1 before there is one */
    struct io *io;
    struct conn *conn;        /* NULL: closed before its failure was told */
    struct secure *tls;       /* NULL: in clear */
    struct socket_rare *rare; /* NULL: has nothing of it */
    bool connecting;
    bool writing; /* waits to be writable */
    bool broken;
};

struct io {
    struct poller *poller;
    struct jobs *jobs;
    struct watch jobs_watch;
    struct watch wake_watch;     /* an eventfd: letters wait */
    struct watch signal_watch;   /* a signalfd, of the first one only; -1: none */
    struct listeners *listeners; /* worker 0: borrowed, as the next */
    struct systemd *systemd;
    struct proxy *proxy;
    struct worker *worker; /* whose loop this is */
    struct crew *crew;     /* shared by all loops */
    struct io **all;       /* the loops; of the first one only, as the next */
    int n_all;
    struct list lent;  /* sockets whose descriptor a job has */
    struct list again; /* struct secure: to be read in the next turn whatever the kernel says */
    bool stopping;
    char local_host[INET6_ADDRSTRLEN]; /* of op_local */
    char buffer[CONN_READ_SIZE];
};

uint64_t io_monotonic_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

int64_t io_wall_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000000 + (int64_t)t.tv_nsec / 1000;
}

/* Around every event: the clock before, settling after. */
static void enter(struct io *io)
{
    io->worker->now_us = io_monotonic_us();
}

static void leave(struct io *io)
{
    worker_settle(io->worker);
}

static void on_readable(struct socket *s);

/* Those that were there before the turn: who wants again comes after what is ready. */
static void read_again(struct io *io)
{
    size_t n = io->again.count;

    while (n-- > 0 && !list_is_empty(&io->again)) {
        enter(io);
        on_readable(LIST_ITEM(list_pop(&io->again), struct secure, again_node)->socket);
        leave(io);
    }
}

/* What is ready, and the deadlines that are over. */
static void turn(struct io *io)
{
    bool over = poller_wait(io->poller, worker_next_timer(io->worker), list_is_empty(&io->again));

    read_again(io);
    if (!over)
        return;
    enter(io);
    worker_run_timers(io->worker);
    leave(io);
}

/* ---- sockets ---------------------------------------------------------------------------- */

/* The address of an accepted or connected stream; its host is printed to the buffer. */
static struct address address_of(const struct sockaddr_storage *sa, int unix_port,
                                 char host[INET6_ADDRSTRLEN])
{
    if (sa->ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)sa;
        inet_ntop(AF_INET, &in->sin_addr, host, INET6_ADDRSTRLEN);
        return (struct address){ .host = host, .port = ntohs(in->sin_port) };
    }
    if (sa->ss_family == AF_INET6) {
        const struct sockaddr_in6 *in = (const struct sockaddr_in6 *)(const void *)sa;
        inet_ntop(AF_INET6, &in->sin6_addr, host, INET6_ADDRSTRLEN);
        return (struct address){ .host = host, .port = ntohs(in->sin6_port) };
    }
    return (struct address){ .is_unix = true, .port = unix_port };
}

static struct address op_local(struct io *io, const struct conn *c)
{
    const struct socket *s = c->socket;
    struct sockaddr_storage sa = { 0 };
    socklen_t len = sizeof(sa);

    if (s->watch.fd < 0 || getsockname(s->watch.fd, (struct sockaddr *)&sa, &len) < 0)
        return (struct address){ .host = "", .is_unix = c->peer.is_unix };
    return address_of(&sa, c->peer.port, io->local_host);
}

static void set_options(struct io *io, int fd, bool is_unix)
{
    const struct config *c = io->proxy->config;
    int one = 1;

    if (c->tcp_socket_buffer > 0) {
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &c->tcp_socket_buffer, sizeof(int));
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &c->tcp_socket_buffer, sizeof(int));
    }
    if (is_unix)
        return;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if (c->tcp_keepalive) {
        setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
        if (c->tcp_keepcnt > 0)
            setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &c->tcp_keepcnt, sizeof(int));
        if (c->tcp_keepidle > 0)
            setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &c->tcp_keepidle, sizeof(int));
        if (c->tcp_keepintvl > 0)
            setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &c->tcp_keepintvl, sizeof(int));
    }
    if (c->tcp_user_timeout > 0)
        setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &c->tcp_user_timeout, sizeof(int));
}

static void watch_also(struct socket *s, unsigned what)
{
    if (!poller_want(s->io->poller, &s->watch, s->watch.wants | what))
        abort(); /* the kernel has no memory left */
}

static void watch_no_more(struct socket *s, unsigned what)
{
    poller_want(s->io->poller, &s->watch, s->watch.wants & ~what);
}

static void want_again(struct socket *s, bool wanted)
{
    struct list_node *n = &s->tls->again_node;

    if (wanted && !list_node_is_linked(n))
        list_append(&s->io->again, n);
    else if (!wanted && list_node_is_linked(n))
        list_remove(&s->io->again, n);
}

static void watch_nothing(struct socket *s)
{
    watch_no_more(s, WATCH_READ | WATCH_WRITE);
    if (s->tls != NULL)
        want_again(s, false);
}

static struct socket_rare *rare_of(struct socket *s)
{
    if (s->rare == NULL) {
        s->rare = mem_alloc(sizeof(*s->rare));
        s->rare->socket = s;
    }
    return s->rare;
}

static void drop_enclosed(struct enclosures *e)
{
    struct enclosed *first = e->first;

    e->first = first->next;
    free(first);
}

static void socket_free(struct socket *s)
{
    if (s->io != NULL)
        watch_nothing(s);
    if (s->tls != NULL) {
        tls_stream_free(s->tls->stream);
        free(s->tls);
    }
    if (s->watch.fd >= 0)
        close(s->watch.fd);
    if (s->rare != NULL) {
        while (s->rare->enclosures != NULL && s->rare->enclosures->first != NULL)
            drop_enclosed(s->rare->enclosures);
        free(s->rare->enclosures);
        free(s->rare);
    }
    free(s);
}

static void gone(struct socket *s, const char *reason)
{
    if (s->conn != NULL)
        conn_on_gone(s->conn, reason);
}

static void op_read(struct io *io, struct conn *c, bool on)
{
    struct socket *s = c->socket;

    (void)io;
    if (s->watch.fd < 0 || (s->tls != NULL && (s->tls->handshaking || s->tls->read_waits)))
        return;
    if (on)
        watch_also(s, WATCH_READ);
    else
        watch_no_more(s, WATCH_READ);
    if (s->tls != NULL)
        want_again(s, on && s->tls->has_more);
}

/* One step of it; the conn hears of its end. */
static void go_on_handshake(struct socket *s)
{
    struct conn *c = s->conn;
    struct tls_info *info;
    struct err e = { 0 };

    switch (tls_handshake(s->tls->stream, &info, &e)) {
    case TLS_OK:
        s->tls->handshaking = false;
        s->tls->has_more = tls_has_pending(s->tls->stream);
        op_read(s->io, c, c->reading);
        conn_on_writable(c);
        conn_on_secured(c, info);
        break;
    case TLS_WANTS_READ:
        watch_also(s, WATCH_READ);
        break;
    case TLS_WANTS_WRITE:
        watch_no_more(s, WATCH_READ);
        watch_also(s, WATCH_WRITE);
        break;
    case TLS_END:
    case TLS_BROKEN:
        watch_nothing(s);
        gone(s, e.message);
        break;
    }
    err_clear(&e);
}

static void read_tls(struct socket *s)
{
    struct secure *t = s->tls;
    struct io *io = s->io;
    enum tls_status status;
    size_t total = 0, n = 0;

    /* Without a last call that only learns that nothing is left: the descriptor tells. */
    do {
        status = tls_read(t->stream, io->buffer + total, sizeof(io->buffer) - total, &n);
        if (status == TLS_OK)
            total += n;
    } while (status == TLS_OK && total < sizeof(io->buffer) && tls_has_pending(t->stream));
    t->has_more = status == TLS_OK ? tls_has_pending(t->stream)
                                   : total > 0 && (status == TLS_END || status == TLS_BROKEN);
    want_again(s, t->has_more);
    if (status == TLS_WANTS_WRITE) {
        /* An answer of the stream's own has no room: a peer that does not read is not read from. */
        t->read_waits = true;
        watch_no_more(s, WATCH_READ);
        watch_also(s, WATCH_WRITE);
    }
    if (total > 0)
        conn_on_bytes(s->conn, io->buffer, total);
    else if (status == TLS_END)
        gone(s, NULL);
    else if (status == TLS_BROKEN)
        gone(s, tls_reason(t->stream));
}

static void on_readable(struct socket *s)
{
    struct io *io = s->io;

    if (s->tls != NULL) {
        if (s->tls->handshaking)
            go_on_handshake(s);
        else
            read_tls(s);
        return;
    }
    ssize_t n = recv(s->watch.fd, io->buffer, sizeof(io->buffer), 0);
    if (n > 0)
        conn_on_bytes(s->conn, io->buffer, (size_t)n);
    else if (n == 0)
        gone(s, NULL);
    else if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
        gone(s, strerror(errno));
}

static void on_writable(struct socket *s)
{
    struct io *io = s->io;

    watch_no_more(s, WATCH_WRITE);
    if (s->connecting) {
        int error = 0;
        socklen_t len = sizeof(error);
        getsockopt(s->watch.fd, SOL_SOCKET, SO_ERROR, &error, &len);
        s->connecting = false;
        if (error != 0) {
            gone(s, strerror(error));
        } else {
            conn_on_connected(s->conn);
        }
    } else if (s->broken) {
        gone(s, "connection reset by peer");
    } else if (s->tls != NULL && s->tls->handshaking) {
        go_on_handshake(s);
    } else {
        s->writing = false;
        if (s->tls != NULL && s->tls->read_waits) {
            s->tls->read_waits = false;
            s->tls->has_more = true;
            op_read(io, s->conn, s->conn->reading);
        }
        conn_on_writable(s->conn);
    }
}

static void on_ready(struct watch *w, unsigned what)
{
    struct socket *s = (struct socket *)(void *)w;
    struct io *io = s->io;
    struct conn *c = s->conn;

    enter(io);
    if (what & WATCH_WRITE)
        on_writable(s);
    /* The socket may be gone now; its conn is not before the settling. */
    if ((what & WATCH_READ) && c->socket == s && (w->wants & WATCH_READ))
        on_readable(s);
    leave(io);
}

static void start_connect(struct socket *s, const struct sockaddr *sa, socklen_t len)
{
    int fd = socket(sa->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        s->broken = true;
        return;
    }
    set_options(s->io, fd, sa->sa_family == AF_UNIX);
    int rc = connect(fd, sa, len);
    /* The outcome, good or bad, is told by the loop: never from inside the wish. */
    if (rc < 0 && errno != EINPROGRESS) {
        int error = errno;
        close(fd);
        s->broken = true;
        errno = error;
        return;
    }
    s->connecting = true;
    watch_init(&s->watch, fd, on_ready);
    watch_also(s, WATCH_WRITE);
}

/* A connect that failed at once is reported from the loop. */
struct failed_connect {
    struct job job; /* first */
    struct socket *socket;
    char reason[128];
};

static void nothing(struct job *j)
{
    (void)j;
}

static void failed_done(struct job *j)
{
    struct failed_connect *f = (struct failed_connect *)(void *)j;
    struct socket *s = f->socket;

    s->rare->failed = NULL;
    if (s->conn == NULL)
        socket_free(s);
    else
        gone(s, f->reason);
    free(f);
}

static void fail_later(struct socket *s, const char *reason)
{
    struct failed_connect *f = mem_alloc(sizeof(*f));

    f->job = (struct job){ .work = nothing, .done = failed_done };
    f->socket = s;
    snprintf(f->reason, sizeof(f->reason), "%s", reason);
    rare_of(s)->failed = f;
    jobs_start(s->io->jobs, &f->job);
}

static void op_connect(struct io *io, struct conn *c, const struct address *to)
{
    struct socket *s = mem_alloc(sizeof(*s));
    struct sockaddr_storage sa = { 0 };
    struct sockaddr_in *in = (struct sockaddr_in *)(void *)&sa;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)(void *)&sa;
    socklen_t len = 0;

    s->io = io;
    s->conn = c;
    s->watch.fd = -1;
    c->socket = s;
    if (to->is_unix) {
        len = listen_unix_address((struct sockaddr_un *)(void *)&sa, to->host, to->port);
        if (len == 0) {
            fail_later(s, "path of the unix socket is too long");
            return;
        }
    } else if (inet_pton(AF_INET, to->host, &in->sin_addr) == 1) {
        in->sin_family = AF_INET;
        in->sin_port = htons((uint16_t)to->port);
        len = sizeof(*in);
    } else if (inet_pton(AF_INET6, to->host, &in6->sin6_addr) == 1) {
        in6->sin6_family = AF_INET6;
        in6->sin6_port = htons((uint16_t)to->port);
        len = sizeof(*in6);
    } else {
        /* With a scope. Names are looked up before: proxy/dns.h. */
        struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST };
        struct addrinfo *found;
        if (getaddrinfo(to->host, NULL, &hints, &found) != 0 || found->ai_addrlen > sizeof(sa)) {
            fail_later(s, "no address");
            return;
        }
        len = found->ai_addrlen;
        memcpy(&sa, found->ai_addr, len);
        freeaddrinfo(found);
        in6->sin6_port = htons((uint16_t)to->port); /* where sin_port is, too */
    }
    start_connect(s, (struct sockaddr *)&sa, len);
    if (s->broken) {
        s->broken = false;
        fail_later(s, strerror(errno));
    }
}

/* As send(2). */
static ssize_t send_tls(struct tls_stream *t, const char *bytes, size_t n)
{
    enum tls_status status = TLS_OK;
    size_t sent = 0, took = 0;

    while (sent < n && status == TLS_OK) {
        status = tls_write(t, bytes + sent, n - sent, &took);
        if (status == TLS_OK)
            sent += took;
    }
    if (status != TLS_OK && status != TLS_WANTS_WRITE) {
        errno = EPIPE;
        return -1;
    }
    return (ssize_t)sent;
}

/* Up to the next byte that has descriptors, or from one with its descriptors. */
static ssize_t send_enclosed(struct socket *s, const char *bytes, size_t n)
{
    struct enclosures *e = s->rare->enclosures;
    union {
        struct cmsghdr head; /* for its alignment */
        char space[CMSG_SPACE(ENCLOSED_MAX * sizeof(int))];
    } control = { 0 };
    int fds[ENCLOSED_MAX];
    size_t n_fds = 0, room = n;

    for (struct enclosed *i = e->first; i != NULL; i = i->next) {
        if (i->at > e->sent) {
            if (i->at - e->sent < room)
                room = (size_t)(i->at - e->sent);
            break;
        }
        if (n_fds < ENCLOSED_MAX)
            fds[n_fds++] = i->fd;
    }
    struct iovec iov = { .iov_base = (void *)(uintptr_t)bytes, .iov_len = room };
    struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };
    if (n_fds > 0) {
        m.msg_control = control.space;
        m.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
        memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
    }
    ssize_t sent = sendmsg(s->watch.fd, &m, MSG_NOSIGNAL);
    if (sent < 0 && errno == ETOOMANYREFS) /* the other side will take some */
        errno = EAGAIN;
    if (sent <= 0)
        return sent;
    e->sent += (uint64_t)sent;
    while (n_fds-- > 0)
        drop_enclosed(e);
    return sent;
}

static ssize_t send_some(struct socket *s, const char *bytes, size_t n)
{
    size_t done = 0;

    if (s->rare == NULL || s->rare->enclosures == NULL)
        return send(s->watch.fd, bytes, n, MSG_NOSIGNAL);
    while (done < n) {
        ssize_t sent = send_enclosed(s, bytes + done, n - done);
        if (sent < 0)
            return done > 0 ? (ssize_t)done : -1;
        done += (size_t)sent;
    }
    return (ssize_t)done;
}

static size_t op_send(struct io *io, struct conn *c, const void *bytes, size_t n)
{
    struct socket *s = c->socket;

    (void)io;
    if (s->broken)
        return n;
    if (s->watch.fd < 0 || s->connecting || s->writing || (s->tls != NULL && s->tls->handshaking))
        return 0;
    ssize_t sent = s->tls != NULL ? send_tls(s->tls->stream, bytes, n) : send_some(s, bytes, n);
    if (sent < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) {
        /* What the peer said before it went is still to be read: the end is noticed there, or here
         * when nobody reads. */
        s->broken = true;
        if (!c->reading)
            watch_also(s, WATCH_WRITE);
        return n;
    }
    if (sent < 0)
        sent = 0;
    if ((size_t)sent < n) {
        s->writing = true;
        watch_also(s, WATCH_WRITE);
    }
    return (size_t)sent;
}

static void op_close(struct io *io, struct conn *c)
{
    struct socket *s = c->socket;
    char drain[4096];

    (void)io;
    c->socket = NULL;
    s->conn = NULL;
    watch_nothing(s);
    if (s->watch.fd >= 0 && !s->connecting) {
        if (s->tls != NULL)
            tls_stream_end(s->tls->stream);
        /* Unread input would turn our last words into a reset. */
        for (int i = 0; i < 16 && recv(s->watch.fd, drain, sizeof(drain), MSG_DONTWAIT) > 0; i++)
            ;
    }
    if (s->rare == NULL || s->rare->failed == NULL)
        socket_free(s);
}

static void op_tls_start(struct io *io, struct conn *c, const struct tls_start *how)
{
    struct socket *s = c->socket;

    (void)io;
    s->tls = mem_alloc(sizeof(*s->tls));
    s->tls->socket = s;
    s->tls->stream = tls_stream_new(how, s->watch.fd);
    s->tls->handshaking = true;
    /* The first step comes from the loop, as all events. */
    want_again(s, true);
}

/* For a helper thread, which blocks. */
static ssize_t lent_recv(void *tls, void *to, size_t size)
{
    size_t n;

    switch (tls_read(tls, to, size, &n)) {
    case TLS_OK:
        return (ssize_t)n;
    case TLS_END:
        return 0;
    case TLS_WANTS_READ:
    case TLS_WANTS_WRITE:
    case TLS_BROKEN:
        break;
    }
    errno = EPIPE;
    return -1;
}

static ssize_t lent_send(void *tls, const void *bytes, size_t n)
{
    size_t sent;

    if (tls_write(tls, bytes, n, &sent) == TLS_OK)
        return (ssize_t)sent;
    errno = EPIPE;
    return -1;
}

static struct lent_stream op_lend(struct io *io, struct conn *c)
{
    struct socket *s = c->socket;

    watch_nothing(s);
    list_append(&io->lent, &rare_of(s)->lent_node);
    if (s->tls == NULL)
        return (struct lent_stream){ .fd = s->watch.fd };
    return (struct lent_stream){ s->watch.fd, s->tls->stream, lent_recv, lent_send };
}

static void op_take_back(struct io *io, struct conn *c)
{
    struct socket *s = c->socket;

    list_remove(&io->lent, &s->rare->lent_node);
    fcntl(s->watch.fd, F_SETFL, fcntl(s->watch.fd, F_GETFL) | O_NONBLOCK);
    s->writing = false;
    if (s->tls != NULL)
        s->tls->has_more = true;
    op_read(io, c, c->reading);
    if (bytequeue_len(&c->out) > 0)
        watch_also(s, WATCH_WRITE);
}

static void op_detach(struct io *io, struct conn *c)
{
    struct socket *s = c->socket;

    (void)io;
    watch_nothing(s);
    s->io = NULL;
}

static void op_attach(struct io *io, struct conn *c)
{
    struct socket *s = c->socket;

    s->io = io;
    op_read(io, c, c->reading);
    if (s->writing || s->broken || (s->tls != NULL && s->tls->read_waits))
        watch_also(s, WATCH_WRITE);
}

static int op_surrender(struct io *io, struct conn *c)
{
    struct socket *s = c->socket;

    (void)io;
    if (s == NULL || s->watch.fd < 0 || s->connecting || s->tls != NULL)
        return -1;
    watch_no_more(s, WATCH_READ | WATCH_WRITE);
    int fd = s->watch.fd;
    s->watch.fd = -1;
    socket_free(s);
    c->socket = NULL;
    return fd;
}

static void op_adopt(struct io *io, struct conn *c, int fd)
{
    struct socket *s = mem_alloc(sizeof(*s));

    s->io = io;
    s->conn = c;
    watch_init(&s->watch, fd, on_ready);
    c->socket = s;
}

static void op_enclose(struct io *io, struct conn *c, int fd)
{
    struct socket *s = c->socket;
    struct enclosed *i = mem_alloc(sizeof(*i));

    (void)io;
    struct socket_rare *r = rare_of(s);
    if (r->enclosures == NULL)
        r->enclosures = mem_alloc(sizeof(*r->enclosures));
    struct enclosures *e = r->enclosures;
    i->at = e->sent + bytequeue_len(&c->out);
    i->fd = fd;
    if (e->first == NULL)
        e->first = i;
    else
        e->last->next = i;
    e->last = i;
}

static void op_close_descriptor(struct io *io, int fd)
{
    (void)io;
    close(fd);
}

static int op_descriptor(struct io *io, const struct conn *c)
{
    const struct socket *s = c->socket;

    (void)io;
    return s != NULL ? s->watch.fd : -1;
}

static int op_listener(struct io *io, int i)
{
    return io->listeners != NULL ? listeners_fd(io->listeners, i) : -1;
}

static void op_listen_leave(struct io *io)
{
    listeners_leave(io->listeners);
    listeners_stop(io->listeners, true, true);
}

static void op_shutdown(struct io *io, struct conn *c)
{
    struct socket *s = c->socket;

    (void)io;
    shutdown(s->watch.fd, SHUT_RDWR);
}

static void op_random(struct io *io, void *bytes, size_t n)
{
    char *at = bytes;

    (void)io;
    while (n > 0) {
        ssize_t got = getrandom(at, n, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            abort(); /* without randomness no login is safe */
        at += got;
        n -= (size_t)got;
    }
}

static void op_resolve(struct io *io, struct lookup *l)
{
    resolve_start(io->jobs, l);
}

static void op_job_start(struct io *io, struct job *j)
{
    jobs_start(io->jobs, j);
}

static void op_ask(struct io *io, struct outside_question *q)
{
    (void)io;
    outside_ask(q);
}

static void op_job_notify(struct io *io, struct job *j)
{
    jobs_notify(io->jobs, j);
}

static void op_stop(struct io *io)
{
    io->stopping = true;
}

static void op_wake(struct io *io)
{
    uint64_t one = 1;

    while (write(io->wake_watch.fd, &one, sizeof(one)) < 0 && errno == EINTR)
        ;
}

static uint64_t op_cpu_us(const struct worker *w)
{
    struct timespec t;

    (void)w;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void wake_others(void *arg)
{
    struct io *io = arg;

    for (int i = 1; i < io->n_all; i++)
        op_wake(io->all[i]);
}

static void op_halt(struct io *io)
{
    crew_halt(io->crew, wake_others, io);
}

static void op_release(struct io *io)
{
    crew_release(io->crew);
}

static void op_listen_stop(struct io *io, bool tcp, bool unix_socket)
{
    listeners_stop(io->listeners, tcp, unix_socket);
}

static void op_listen_pause(struct io *io, bool paused)
{
    listeners_pause(io->listeners, paused);
}

static void op_configured(struct io *io)
{
    if (io->listeners != NULL)
        listeners_configure(io->listeners, io->proxy->config);
}

static void op_notify(struct io *io, const char *text)
{
    systemd_notify(io->systemd, text);
}

const struct io_ops *io_ops_real(void)
{
    static const struct io_ops ops = {
        .connect = op_connect,
        .send = op_send,
        .read = op_read,
        .local = op_local,
        .close = op_close,
        .lend = op_lend,
        .take_back = op_take_back,
        .shutdown = op_shutdown,
        .random = op_random,
        .resolve = op_resolve,
        .job_start = op_job_start,
        .ask = op_ask,
        .job_notify = op_job_notify,
        .stop = op_stop,
        .surrender = op_surrender,
        .adopt = op_adopt,
        .enclose = op_enclose,
        .close_descriptor = op_close_descriptor,
        .descriptor = op_descriptor,
        .listener = op_listener,
        .listen_leave = op_listen_leave,
        .listen_stop = op_listen_stop,
        .listen_pause = op_listen_pause,
        .configured = op_configured,
        .notify = op_notify,
        .tls_load = tls_load,
        .tls_unref = tls_context_unref,
        .tls_start = op_tls_start,
        .wake = op_wake,
        .cpu_us = op_cpu_us,
        .detach = op_detach,
        .attach = op_attach,
        .halt = op_halt,
        .release = op_release,
    };

    return &ops;
}

/* ---- clients come ----------------------------------------------------------------------- */

static void welcome(struct worker *w, int fd, const struct address *peer)
{
    struct socket *s = mem_alloc(sizeof(*s));
    struct client *c = client_new(w, peer);

    s->io = w->io;
    s->conn = &c->conn;
    c->conn.socket = s;
    c->conn.reading = true;
    watch_init(&s->watch, fd, on_ready);
    if (!poller_want(s->io->poller, &s->watch, WATCH_READ))
        client_close(c, strerror(errno));
}

/* An accepted connection on its way to another worker. */
struct newcomer {
    struct letter letter; /* first */
    int fd;
    struct address peer;
    char host[INET6_ADDRSTRLEN];
};

static void deliver_newcomer(struct worker *w, struct letter *l)
{
    struct newcomer *n = (struct newcomer *)(void *)l;

    w->load--; /* it was counted on its way */
    welcome(w, n->fd, &n->peer);
    free(n);
}

static void hand_over(struct proxy *p, int fd, const struct address *peer)
{
    struct worker *w = balance_place(p);

    if (w->index == 0) {
        welcome(w, fd, peer);
        return;
    }
    struct newcomer *n = mem_alloc(sizeof(*n));
    n->letter.deliver = deliver_newcomer;
    n->fd = fd;
    n->peer = *peer;
    if (peer->host != NULL) {
        snprintf(n->host, sizeof(n->host), "%s", peer->host);
        n->peer.host = n->host;
    }
    w->load++;
    worker_post(w, &n->letter);
}

static void accepted(void *arg, int fd, const struct sockaddr_storage *from, bool is_unix)
{
    struct io *io = arg;
    char host[INET6_ADDRSTRLEN];
    struct address peer = address_of(from, io->proxy->config->listen_port, host);

    set_options(io, fd, is_unix);
    if (is_unix) {
        struct ucred cred;
        socklen_t len = sizeof(cred);
        peer.unix_uid = (uid_t)-1;
        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0) {
            peer.unix_pid = cred.pid;
            peer.unix_uid = cred.uid;
        }
    }
    hand_over(io->proxy, fd, &peer);
}

static void accept_enter(void *arg)
{
    enter(arg);
}

static void accept_leave(void *arg)
{
    leave(arg);
}

/* ---- the loop --------------------------------------------------------------------------- */

static void on_jobs(struct watch *w, unsigned what)
{
    struct io *io = (struct io *)(void *)((char *)w - offsetof(struct io, jobs_watch));

    (void)what;
    enter(io);
    jobs_deliver(io->jobs);
    leave(io);
}

static void on_wake(struct watch *w, unsigned what)
{
    struct io *io = (struct io *)(void *)((char *)w - offsetof(struct io, wake_watch));
    uint64_t count;

    (void)what;
    enter(io);
    while (read(w->fd, &count, sizeof(count)) < 0 && errno == EINTR)
        ;
    worker_run_letters(io->worker);
    leave(io);
    if (io->worker->index == 0)
        return;
    bool ends = crew_pause(io->crew);
    /* Worker 0 may have changed what hangs off this worker meanwhile. */
    enter(io);
    leave(io);
    if (ends)
        io->stopping = true;
}

static void on_signal(struct watch *w, unsigned what)
{
    struct io *io = (struct io *)(void *)((char *)w - offsetof(struct io, signal_watch));
    struct signalfd_siginfo info;

    (void)what;
    enter(io);
    if (read(w->fd, &info, sizeof(info)) == sizeof(info))
        shutdown_on_signal(io->proxy, (int)info.ssi_signo);
    leave(io);
}

/* Those that a signalfd takes: no thread may be interrupted by them. */
static sigset_t our_signals(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGQUIT);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGUSR2);
    return set;
}

struct io *io_new(struct err *e)
{
    struct io *io = mem_alloc(sizeof(*io));
    sigset_t signals = our_signals();

    /* Before any thread exists: they inherit it. */
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    io->poller = poller_new();
    watch_init(&io->wake_watch, eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), on_wake);
    if (io->poller == NULL || io->wake_watch.fd < 0) {
        err_set(e, ERR_RESOURCE, "", "no event loop: %s", strerror(errno));
        if (io->wake_watch.fd >= 0)
            close(io->wake_watch.fd);
        poller_free(io->poller);
        free(io);
        return NULL;
    }
    io->jobs = jobs_new();
    watch_init(&io->jobs_watch, jobs_fd(io->jobs), on_jobs);
    watch_init(&io->signal_watch, -1, on_signal);
    poller_want(io->poller, &io->jobs_watch, WATCH_READ);
    poller_want(io->poller, &io->wake_watch, WATCH_READ);
    list_init(&io->lent);
    list_init(&io->again);
    return io;
}

void io_attach(struct io *io, struct listeners *l, struct systemd *systemd)
{
    io->listeners = l;
    io->systemd = systemd;
}

bool io_add_workers(struct io *io, int n, struct io **all, struct err *e)
{
    all[0] = io;
    io->all = mem_alloc((size_t)n * sizeof(struct io *));
    io->crew = crew_new();
    for (int i = 0; i < n; i++) {
        if (i > 0 && (all[i] = io_new(e)) == NULL)
            return false;
        io->all[io->n_all++] = all[i];
        all[i]->crew = io->crew;
    }
    return true;
}

static void run_loop(void *arg)
{
    struct io *io = arg;

    enter(io);
    leave(io);
    while (!io->stopping) /* until crew_end */
        turn(io);
}

void io_bind(struct io *io, struct proxy *p)
{
    for (int i = 0; i < io->n_all; i++) {
        io->all[i]->proxy = p;
        io->all[i]->worker = p->workers[i];
    }
}

void io_run(struct io *io)
{
    static const struct listener_ops listener_ops = {
        .accepted = accepted,
        .enter = accept_enter,
        .leave = accept_leave,
    };
    sigset_t signals = our_signals();
    struct proxy *p = io->proxy;

    signal(SIGPIPE, SIG_IGN);
    io->signal_watch.fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    if (io->signal_watch.fd < 0 || !poller_want(io->poller, &io->signal_watch, WATCH_READ)) {
        log_line(p->log, LEVEL_FATAL, "no signals: %s", strerror(errno));
        io->stopping = true;
    }
    if (io->listeners != NULL)
        listeners_start(io->listeners, io->poller, &listener_ops, io, p->log);
    for (int i = 1; i < io->n_all; i++) {
        if (!crew_start(io->crew, run_loop, io->all[i])) {
            log_line(p->log, LEVEL_FATAL, "cannot start a thread: %s", strerror(errno));
            io->stopping = true;
            break;
        }
    }
    enter(io);
    leave(io);
    while (!io->stopping)
        turn(io);
    crew_end(io->crew, wake_others, io);
}

static void finish_jobs(struct io *io)
{
    while (jobs_running(io->jobs) > 0) {
        LIST_FOREACH(&io->lent, n)
        shutdown(LIST_ITEM(n, struct socket_rare, lent_node)->socket->watch.fd, SHUT_RDWR);
        turn(io);
    }
}

void io_finish_jobs(struct io *io)
{
    for (int i = 0; i < io->n_all; i++)
        finish_jobs(io->all[i]);
}

void io_free(struct io *io)
{
    for (int i = 1; i < io->n_all; i++)
        io_free(io->all[i]);
    if (io->all != NULL)
        crew_free(io->crew);
    free(io->all);
    if (io->signal_watch.fd >= 0)
        close(io->signal_watch.fd);
    close(io->wake_watch.fd);
    jobs_free(io->jobs);
    poller_free(io->poller);
    free(io);
}
