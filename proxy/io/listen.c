#include "proxy/io/listen.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <arpa/inet.h>

#include "base/arena.h"
#include "base/text.h"
#include "proxy/io/poller.h"

#define LISTENERS_MAX 64
#define ACCEPT_BATCH 64     /* connections of one listener before others get a turn */
#define ACCEPT_PAUSE_MS 100 /* when descriptors have run out */
#define DEFER_ACCEPT_SECONDS 45

struct listener {
    struct watch watch; /* first */
    struct listeners *all;
    int fd; /* -1: stopped */
    bool is_unix;
};

struct listeners {
    struct listener list[LISTENERS_MAX];
    int count;
    char unix_path[sizeof(((struct sockaddr_un *)0)->sun_path)]; /* to be removed; "": none */
    bool paused;
    struct poller *poller; /* NULL: not started */
    struct watch again;    /* a timer: goes on with accepting */
    const struct listener_ops *ops;
    void *arg;
    struct log *log;
    struct text text;
};

struct listeners *listeners_new(void)
{
    struct listeners *l = mem_alloc(sizeof(*l));

    text_init(&l->text);
    return l;
}

static void stop(struct listener *l)
{
    if (l->all->poller != NULL)
        poller_want(l->all->poller, &l->watch, 0);
    if (l->fd >= 0)
        close(l->fd);
    l->fd = -1;
}

void listeners_leave(struct listeners *l)
{
    l->unix_path[0] = '\0';
}

void listeners_free(struct listeners *l)
{
    if (l == NULL)
        return;
    if (l->unix_path[0] != '\0')
        unlink(l->unix_path);
    listeners_stop(l, true, true);
    if (l->poller != NULL && l->again.fd >= 0) {
        poller_want(l->poller, &l->again, 0);
        close(l->again.fd);
    }
    text_free(&l->text);
    free(l);
}

int listeners_count(const struct listeners *l)
{
    int n = 0;

    for (int i = 0; i < l->count; i++)
        n += l->list[i].fd >= 0;
    return n;
}

int listeners_fd(const struct listeners *l, int i)
{
    for (int k = 0; k < l->count; k++)
        if (l->list[k].fd >= 0 && i-- == 0)
            return l->list[k].fd;
    return -1;
}

static void put_unix_name(struct text *t, const struct sockaddr_un *un, socklen_t len)
{
    size_t n = len - offsetof(struct sockaddr_un, sun_path);

    if (n > 0 && un->sun_path[0] == '\0') {
        text_put(t, "unix:@");
        text_put_bytes(t, un->sun_path + 1, n - 1);
    } else {
        text_put(t, "unix:");
        text_put_bytes(t, un->sun_path, strnlen(un->sun_path, n));
    }
}

const char *listeners_text(struct listeners *l, int i)
{
    struct sockaddr_storage sa = { 0 };
    socklen_t len = sizeof(sa);
    char host[INET6_ADDRSTRLEN], port[16];

    text_clear(&l->text);
    if (getsockname(listeners_fd(l, i), (struct sockaddr *)&sa, &len) < 0)
        text_put(&l->text, "?");
    else if (sa.ss_family == AF_UNIX)
        put_unix_name(&l->text, (const struct sockaddr_un *)(const void *)&sa, len);
    else if (getnameinfo((struct sockaddr *)&sa, len, host, sizeof(host), port, sizeof(port),
                         NI_NUMERICHOST | NI_NUMERICSERV) == 0)
        text_printf(&l->text, sa.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
    return text_str(&l->text).ptr;
}

/* ---- opening ---------------------------------------------------------------------------- */

socklen_t listen_unix_address(struct sockaddr_un *un, const char *dir, int port)
{
    char path[300];

    snprintf(path, sizeof(path), "%s/.s.PGSQL.%d", dir, port);
    *un = (struct sockaddr_un){ .sun_family = AF_UNIX };
    size_t len = strlen(path);
    if (len >= sizeof(un->sun_path))
        return 0;
    memcpy(un->sun_path, path, len + 1);
    if (path[0] == '@') {
        un->sun_path[0] = '\0';
        return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
    }
    return sizeof(*un);
}

static bool add(struct listeners *l, int fd, bool is_unix, struct err *e)
{
    if (l->count == LISTENERS_MAX)
        return err_set(e, ERR_CONFIG, "", "more than %d addresses to listen on", LISTENERS_MAX);
    l->list[l->count++] = (struct listener){ .all = l, .fd = fd, .is_unix = is_unix };
    return true;
}

bool listeners_adopt(struct listeners *l, int fd, bool owned, struct err *e)
{
    int listens = 0;
    struct sockaddr_storage sa = { 0 };
    socklen_t len = sizeof(listens);

    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &len) < 0 || !listens)
        return err_set(e, ERR_CONFIG, "", "descriptor %d is no socket that listens", fd);
    len = sizeof(sa);
    if (getsockname(fd, (struct sockaddr *)&sa, &len) < 0)
        return err_set(e, ERR_RESOURCE, "", "getsockname: %s", strerror(errno));
    if (owned && sa.ss_family == AF_UNIX) {
        const struct sockaddr_un *un = (const struct sockaddr_un *)(const void *)&sa;
        memcpy(l->unix_path, un->sun_path, sizeof(l->unix_path) - 1);
    }
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    return add(l, fd, sa.ss_family == AF_UNIX, e);
}

/* A client that speaks first wakes nobody before it did. */
static void set_defer_accept(int fd, bool on)
{
    int seconds = on ? DEFER_ACCEPT_SECONDS : 0;

    setsockopt(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &seconds, sizeof(seconds));
}

void listeners_configure(struct listeners *l, const struct config *c)
{
    for (int i = 0; i < l->count; i++)
        if (l->list[i].fd >= 0 && !l->list[i].is_unix)
            set_defer_accept(l->list[i].fd, c->tcp_defer_accept);
}

/* On failure errno and *what say why. */
static int open_tcp(const struct config *c, const struct addrinfo *ai, const char **what)
{
    int one = 1;
    int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    *what = "socket";
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (ai->ai_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
    *what = "SO_REUSEPORT";
    bool ok = !c->so_reuseport || setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one)) == 0;
    if (ok) {
        *what = "bind";
        ok = bind(fd, ai->ai_addr, ai->ai_addrlen) == 0;
    }
    if (ok) {
        *what = "listen";
        set_defer_accept(fd, c->tcp_defer_accept);
        ok = listen(fd, c->listen_backlog) == 0;
    }
    if (ok)
        return fd;
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

static bool listen_tcp(struct listeners *l, const struct config *c, struct str host, struct err *e)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE };
    struct addrinfo *list;
    char name[256], port[16];
    bool any = str_equal(host, STR("*"));
    bool ok = true;

    snprintf(name, sizeof(name), STR_FMT, STR_ARG(host));
    snprintf(port, sizeof(port), "%d", c->listen_port);
    int rc = getaddrinfo(any ? NULL : name, port, &hints, &list);
    if (rc != 0)
        return err_set(e, ERR_CONFIG, "", "listen_addr %s: %s", name, gai_strerror(rc));
    for (struct addrinfo *ai = list; ai != NULL && ok; ai = ai->ai_next) {
        const char *what;
        int fd = open_tcp(c, ai, &what);
        /* A machine without IPv6 is a machine all the same. */
        if (fd < 0 && any && (errno == EAFNOSUPPORT || errno == EADDRNOTAVAIL))
            continue;
        if (fd < 0)
            ok = err_set(e, ERR_RESOURCE, "", "cannot listen on %s:%d: %s: %s", name,
                         c->listen_port, what, strerror(errno));
        else
            ok = add(l, fd, false, e);
    }
    freeaddrinfo(list);
    return ok;
}

bool listeners_answered(const struct config *c)
{
    struct sockaddr_un un;
    socklen_t len = listen_unix_address(&un, c->unix_socket_dir, c->listen_port);

    if (c->unix_socket_dir[0] == '\0' || len == 0)
        return false;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool answers = fd >= 0 && connect(fd, (struct sockaddr *)&un, len) == 0;
    if (fd >= 0)
        close(fd);
    return answers;
}

static bool set_rights(const struct config *c, const char *path, struct err *e)
{
    if (c->unix_socket_group[0] != '\0') {
        struct group *g = getgrnam(c->unix_socket_group);
        if (g == NULL || chown(path, (uid_t)-1, g->gr_gid) < 0)
            return err_set(e, ERR_CONFIG, "", "unix_socket_group %s: %s", c->unix_socket_group,
                           g == NULL ? "no such group" : strerror(errno));
    }
    if (chmod(path, (mode_t)c->unix_socket_mode) < 0)
        return err_set(e, ERR_CONFIG, "", "unix_socket_mode: %s", strerror(errno));
    return true;
}

static bool listen_unix(struct listeners *l, const struct config *c, struct err *e)
{
    struct sockaddr_un un;
    socklen_t len = listen_unix_address(&un, c->unix_socket_dir, c->listen_port);
    bool abstract = c->unix_socket_dir[0] == '@';
    char lock[sizeof(un.sun_path) + 8];
    struct stat st;

    if (len == 0)
        return err_set(e, ERR_CONFIG, "", "unix_socket_dir is too long");
    if (listeners_answered(c))
        return err_set(e, ERR_RESOURCE, "", "unix port %d is in use", c->listen_port);
    if (!abstract) {
        snprintf(lock, sizeof(lock), "%s.lock", un.sun_path);
        if (lstat(lock, &st) == 0)
            return err_set(e, ERR_RESOURCE, "", "unix port %d is in use: %s exists", c->listen_port,
                           lock);
        unlink(un.sun_path);
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    bool ok = fd >= 0;
    if (ok) {
        /* Nobody may connect before its mode and group are set. */
        mode_t old = umask(0777);
        ok = bind(fd, (struct sockaddr *)&un, len) == 0;
        umask(old);
    }
    if (!ok)
        err_set(e, ERR_RESOURCE, "", "cannot listen on unix socket in %s: %s", c->unix_socket_dir,
                strerror(errno));
    if (ok && !abstract) {
        snprintf(l->unix_path, sizeof(l->unix_path), "%s", un.sun_path);
        ok = set_rights(c, un.sun_path, e);
    }
    if (ok && listen(fd, c->listen_backlog) < 0)
        ok = err_set(e, ERR_RESOURCE, "", "cannot listen on unix socket: %s", strerror(errno));
    if (ok)
        ok = add(l, fd, true, e);
    if (!ok && fd >= 0)
        close(fd);
    return ok;
}

bool listeners_open(struct listeners *l, const struct config *c, struct err *e)
{
    struct str rest = str_from(c->listen_addr);

    while (rest.len > 0) {
        ptrdiff_t comma = str_find(rest, STR(","));
        size_t len = comma < 0 ? rest.len : (size_t)comma;
        struct str host = str_trim((struct str){ rest.ptr, len });
        if (host.len > 0 && !listen_tcp(l, c, host, e))
            return false;
        rest.ptr += comma < 0 ? len : len + 1;
        rest.len -= comma < 0 ? len : len + 1;
    }
    if (c->unix_socket_dir[0] != '\0' && !listen_unix(l, c, e))
        return false;
    if (l->count == 0)
        return err_set(e, ERR_CONFIG, "", "nothing to listen on");
    return true;
}

/* ---- accepting -------------------------------------------------------------------------- */

static void set_watches(struct listeners *l, bool on)
{
    if (l->poller == NULL)
        return;
    for (int i = 0; i < l->count; i++)
        if (l->list[i].fd >= 0)
            poller_want(l->poller, &l->list[i].watch, on ? WATCH_READ : 0);
}

static void on_again(struct watch *w, unsigned what)
{
    struct listeners *l =
        (struct listeners *)(void *)((char *)w - offsetof(struct listeners, again));
    uint64_t times;

    (void)what;
    if (read(w->fd, &times, sizeof(times)) == sizeof(times))
        set_watches(l, !l->paused);
}

static void on_accept(struct watch *w, unsigned what)
{
    struct listener *from = (struct listener *)(void *)w;
    struct listeners *l = from->all;

    (void)what;
    l->ops->enter(l->arg);
    for (int i = 0; i < ACCEPT_BATCH && from->fd >= 0 && !l->paused; i++) {
        struct sockaddr_storage sa = { 0 };
        socklen_t len = sizeof(sa);
        int client = accept4(from->fd, (struct sockaddr *)&sa, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (client >= 0) {
            l->ops->accepted(l->arg, client, &sa, from->is_unix);
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            struct itimerspec pause = { .it_value.tv_nsec = ACCEPT_PAUSE_MS * 1000000 };
            log_line(l->log, LEVEL_ERROR, "accept() failed: %s", strerror(errno));
            if (timerfd_settime(l->again.fd, 0, &pause, NULL) == 0)
                set_watches(l, false);
            break;
        } else if (errno != ECONNABORTED && errno != EINTR) {
            break;
        }
    }
    l->ops->leave(l->arg);
}

void listeners_start(struct listeners *l, struct poller *poller, const struct listener_ops *ops,
                     void *arg, struct log *log)
{
    l->ops = ops;
    l->arg = arg;
    l->log = log;
    l->poller = poller;
    watch_init(&l->again, timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC), on_again);
    if (l->again.fd >= 0)
        poller_want(poller, &l->again, WATCH_READ);
    for (int i = 0; i < l->count; i++)
        watch_init(&l->list[i].watch, l->list[i].fd, on_accept);
    set_watches(l, !l->paused);
}

void listeners_pause(struct listeners *l, bool paused)
{
    l->paused = paused;
    set_watches(l, !paused);
}

void listeners_stop(struct listeners *l, bool tcp, bool unix_socket)
{
    for (int i = 0; i < l->count; i++)
        if (l->list[i].is_unix ? unix_socket : tcp)
            stop(&l->list[i]);
}
