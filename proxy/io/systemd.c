#include "proxy/io/systemd.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/arena.h"

#define LISTEN_FDS_START 3
#define LISTEN_FDS_MAX 64

struct systemd {
    int fd; /* -1: nobody wants to know */
    struct sockaddr_un to;
    socklen_t to_len;
    uint64_t watchdog_us;
    int n_listen_fds;
};

/* 0 when it is unset, or no number. */
static uint64_t number(const char *name)
{
    const char *text = getenv(name);
    char *end;

    if (text == NULL || *text < '0' || *text > '9')
        return 0;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    return *end == '\0' && errno == 0 ? value : 0;
}

static void find_notify_socket(struct systemd *s)
{
    const char *path = getenv("NOTIFY_SOCKET");
    size_t len = path != NULL ? strlen(path) : 0;

    if (len < 2 || len >= sizeof(s->to.sun_path) || (path[0] != '/' && path[0] != '@'))
        return;
    s->to.sun_family = AF_UNIX;
    memcpy(s->to.sun_path, path, len);
    if (path[0] == '@')
        s->to.sun_path[0] = '\0';
    s->to_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + (path[0] == '/'));
    s->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

struct systemd *systemd_new(void)
{
    static const char *const names[] = { "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID",
                                         "LISTEN_PID",    "LISTEN_FDS",    "LISTEN_FDNAMES" };
    struct systemd *s = mem_alloc(sizeof(*s));

    s->fd = -1;
    find_notify_socket(s);
    if (getenv("WATCHDOG_PID") == NULL || number("WATCHDOG_PID") == (uint64_t)getpid())
        s->watchdog_us = number("WATCHDOG_USEC");
    if (number("LISTEN_PID") == (uint64_t)getpid()) {
        uint64_t n = number("LISTEN_FDS");
        s->n_listen_fds = n > LISTEN_FDS_MAX ? LISTEN_FDS_MAX : (int)n;
        for (int i = 0; i < s->n_listen_fds; i++)
            fcntl(LISTEN_FDS_START + i, F_SETFD, FD_CLOEXEC);
    }
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        unsetenv(names[i]);
    return s;
}

void systemd_free(struct systemd *s)
{
    if (s == NULL)
        return;
    if (s->fd >= 0)
        close(s->fd);
    free(s);
}

void systemd_notify(struct systemd *s, const char *text)
{
    if (s == NULL || s->fd < 0)
        return;
    while (sendto(s->fd, text, strlen(text), MSG_NOSIGNAL, (struct sockaddr *)&s->to, s->to_len) <
               0 &&
           errno == EINTR)
        ;
}

bool systemd_is_listening(const struct systemd *s)
{
    return s != NULL && s->fd >= 0;
}

uint64_t systemd_watchdog_us(const struct systemd *s)
{
    return s != NULL ? s->watchdog_us : 0;
}

int systemd_listen_fds(const struct systemd *s, int *first)
{
    *first = LISTEN_FDS_START;
    return s->n_listen_fds;
}
