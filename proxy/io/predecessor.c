#include "proxy/io/predecessor.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/bytequeue.h"
#include "protocol/copy.h"
#include "protocol/message_types.h"
#include "protocol/notice.h"
#include "protocol/query_simple.h"
#include "protocol/reader.h"
#include "protocol/startup.h"
#include "proxy/admin.h"
#include "proxy/takeover.h"

#define FDS_AT_ONCE 253 /* SCM_MAX_FD */
#define ANSWER_SECONDS 60

/* One record that came. */
struct parcel {
    struct parcel *next;
    struct str record; /* malloc */
    int fds[2];
    size_t n_fds;
};

struct predecessor {
    int fd;
    struct bytequeue in;
    int *fds; /* came, and not yet asked for */
    size_t n_fds;
    size_t cap_fds;
    struct parcel *first;
    struct parcel **last;
};

static bool fail(struct err *e, const char *what)
{
    return err_set(e, ERR_RESOURCE, "", "takeover: %s: %s", what, strerror(errno));
}

static bool send_all(struct predecessor *d, struct bytequeue *out, struct err *e)
{
    while (bytequeue_len(out) > 0) {
        struct str left = bytequeue_str(out);
        ssize_t n = send(d->fd, left.ptr, left.len, MSG_NOSIGNAL);
        if (n < 0 && errno != EINTR)
            return fail(e, "send");
        if (n > 0)
            bytequeue_consume(out, (size_t)n);
    }
    return true;
}

static bool take_descriptors(struct predecessor *d, struct msghdr *m, struct err *e)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c != NULL; c = CMSG_NXTHDR(m, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        if (d->n_fds + n > d->cap_fds) {
            d->cap_fds = (d->n_fds + n) * 2;
            d->fds = realloc(d->fds, d->cap_fds * sizeof(int));
            if (d->fds == NULL)
                abort();
        }
        memcpy(d->fds + d->n_fds, CMSG_DATA(c), n * sizeof(int));
        d->n_fds += n;
    }
    if (m->msg_flags & MSG_CTRUNC)
        return err_set(e, ERR_RESOURCE, "",
                       "takeover: too few descriptors (raise the limit of open files)");
    return true;
}

static bool receive(struct predecessor *d, struct err *e)
{
    union {
        struct cmsghdr head; /* for its alignment */
        char space[CMSG_SPACE(FDS_AT_ONCE * sizeof(int))];
    } control;
    struct iovec iov = { .iov_base = bytequeue_reserve(&d->in, 65536), .iov_len = 65536 };
    struct msghdr m = { .msg_iov = &iov,
                        .msg_iovlen = 1,
                        .msg_control = control.space,
                        .msg_controllen = sizeof(control.space) };
    ssize_t n;

    do {
        n = recvmsg(d->fd, &m, MSG_CMSG_CLOEXEC);
    } while (n < 0 && errno == EINTR);
    if (n < 0)
        return fail(e, "receive");
    if (!take_descriptors(d, &m, e))
        return false;
    if (n == 0)
        return err_set(e, ERR_RESOURCE, "", "takeover: the other process has hung up");
    bytequeue_commit(&d->in, (size_t)n);
    return true;
}

/* The next message. It is valid until bytequeue_consume of its length. */
static bool next_frame(struct predecessor *d, struct wire_frame *f, struct err *e)
{
    enum wire_result r;

    while ((r = wire_next_frame(SENT_BY_BACKEND, bytequeue_str(&d->in), f)) == WIRE_NEED_MORE)
        if (!receive(d, e))
            return false;
    return r == WIRE_FRAME ||
           err_set(e, ERR_RESOURCE, "", "takeover: the other process does not speak the protocol");
}

static bool take_parcel(struct predecessor *d, struct str record, struct err *e)
{
    struct parcel *p = mem_alloc(sizeof(*p));
    char *copy = mem_alloc(record.len + 1);

    memcpy(copy, record.ptr, record.len);
    p->record = (struct str){ copy, record.len };
    *d->last = p;
    d->last = &p->next;
    size_t want = takeover_descriptors(record);
    if (want > sizeof(p->fds) / sizeof(p->fds[0]) || want > d->n_fds)
        return err_set(e, ERR_RESOURCE, "", "takeover: a record without its descriptors");
    memcpy(p->fds, d->fds, want * sizeof(int));
    p->n_fds = want;
    d->n_fds -= want;
    memmove(d->fds, d->fds + want, d->n_fds * sizeof(int));
    return true;
}

/* Up to ReadyForQuery. */
static bool read_answer(struct predecessor *d, struct err *e)
{
    struct wire_frame f;
    bool ok = true;

    for (;;) {
        struct err why = { 0 };
        if (!next_frame(d, &f, err_is_set(e) ? &why : e)) {
            err_clear(&why);
            return false;
        }
        char tag = f.tag;
        if (tag == BE_COPY_DATA && ok) {
            ok = take_parcel(d, f.body, e);
        } else if (tag == BE_ERROR && ok) {
            notice_decode_err(f.body, &why);
            ok = err_set(e, ERR_RESOURCE, "", "takeover: %s", why.message);
            err_clear(&why);
        }
        bytequeue_consume(&d->in, f.bytes.len);
        if (tag == BE_READY_FOR_QUERY)
            return ok;
    }
}

static bool say(struct predecessor *d, const char *command, struct err *e)
{
    struct bytequeue out = { 0 };

    wire_encode_query(&out, str_from(command));
    bool ok = send_all(d, &out, e) && read_answer(d, e);
    bytequeue_free(&out);
    return ok;
}

static bool log_in(struct predecessor *d, const struct config *c, struct err *e)
{
    struct sockaddr_un un;
    socklen_t len = listen_unix_address(&un, c->unix_socket_dir, c->listen_port);
    struct timeval patience = { .tv_sec = ANSWER_SECONDS };
    struct bytequeue out = { 0 };

    d->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (d->fd < 0 || connect(d->fd, (struct sockaddr *)&un, len) < 0)
        return fail(e, "connect");
    /* Whoever got hold of the socket's name could give us sessions of any user. */
    struct ucred peer = { 0 };
    socklen_t peer_len = sizeof(peer);
    if (getsockopt(d->fd, SOL_SOCKET, SO_PEERCRED, &peer, &peer_len) < 0 || peer.uid != geteuid())
        return err_set(e, ERR_CONFIG, "", "the process on the unix socket is another user's");
    setsockopt(d->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    setsockopt(d->fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    struct wire_mark m = startup_encode_begin(&out, 3, 0);
    startup_encode_param(&out, STR("user"), STR(ADMIN_DATABASE));
    startup_encode_param(&out, STR("database"), STR(ADMIN_DATABASE));
    startup_encode_end(&out, m);
    bool ok = send_all(d, &out, e) && read_answer(d, e);
    bytequeue_free(&out);
    return ok;
}

static bool take_listeners(struct predecessor *d, struct listeners *l, struct err *e)
{
    for (struct parcel *p = d->first; p != NULL; p = p->next) {
        if (!takeover_is_listener(p->record) || p->n_fds == 0)
            continue;
        if (!listeners_adopt(l, p->fds[0], true, e))
            return false;
        p->n_fds = 0;
    }
    return true;
}

struct predecessor *predecessor_take(const struct config *c, struct listeners *l, struct err *e)
{
    struct predecessor *d = mem_alloc(sizeof(*d));

    d->last = &d->first;
    if (log_in(d, c, e) && say(d, "TAKEOVER", e) && take_listeners(d, l, e))
        return d;
    listeners_leave(l);
    predecessor_free(d);
    return NULL;
}

void predecessor_import(struct predecessor *d, struct proxy *p)
{
    for (struct parcel *i = d->first; i != NULL; i = i->next) {
        takeover_import(p, i->record, i->fds, i->n_fds);
        i->n_fds = 0;
    }
}

bool predecessor_commit(struct predecessor *d, struct err *e)
{
    return say(d, "TAKEOVER DONE", e);
}

void predecessor_free(struct predecessor *d)
{
    if (d == NULL)
        return;
    for (struct parcel *p = d->first, *next; p != NULL; p = next) {
        next = p->next;
        for (size_t i = 0; i < p->n_fds; i++)
            close(p->fds[i]);
        free((char *)(uintptr_t)p->record.ptr);
        free(p);
    }
    for (size_t i = 0; i < d->n_fds; i++)
        close(d->fds[i]);
    free(d->fds);
    bytequeue_free(&d->in);
    if (d->fd >= 0)
        close(d->fd);
    free(d);
}
