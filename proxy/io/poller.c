#include "proxy/io/poller.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/arena.h"

#define BATCH 64

struct poller {
    int fd;
    int next; /* of events: [next, count) are not told yet */
    int count;
    struct epoll_event events[BATCH];
};

struct poller *poller_new(void)
{
    int fd = epoll_create1(EPOLL_CLOEXEC);

    if (fd < 0)
        return NULL;
    struct poller *p = mem_alloc(sizeof(*p));
    p->fd = fd;
    return p;
}

void poller_free(struct poller *p)
{
    if (p == NULL)
        return;
    close(p->fd);
    free(p);
}

bool poller_want(struct poller *p, struct watch *w, unsigned wants)
{
    struct epoll_event e = { .events = (wants & WATCH_READ ? EPOLLIN : 0u) |
                                       (wants & WATCH_WRITE ? EPOLLOUT : 0u),
                             .data.ptr = w };

    if (wants == w->wants)
        return true;
    int op = w->wants == 0 ? EPOLL_CTL_ADD : wants == 0 ? EPOLL_CTL_DEL : EPOLL_CTL_MOD;
    if (epoll_ctl(p->fd, op, w->fd, &e) < 0 && op != EPOLL_CTL_DEL)
        return false;
    w->wants = wants;
    if (wants == 0)
        for (int i = p->next; i < p->count; i++)
            if (p->events[i].data.ptr == w)
                p->events[i].data.ptr = NULL;
    return true;
}

void poller_wait(struct poller *p, int64_t timeout_us)
{
    /* Up to the next millisecond: a deadline is over when it is told. */
    int64_t ms = timeout_us < 0 ? -1 : (timeout_us + 999) / 1000;

    p->next = 0;
    p->count = epoll_wait(p->fd, p->events, BATCH, ms > INT_MAX ? INT_MAX : (int)ms);
    while (p->next < p->count) {
        const struct epoll_event *e = &p->events[p->next++];
        struct watch *w = e->data.ptr;
        unsigned what = (e->events & (EPOLLIN | EPOLLRDHUP) ? WATCH_READ : 0u) |
                        (e->events & EPOLLOUT ? WATCH_WRITE : 0u) |
                        (e->events & (EPOLLERR | EPOLLHUP) ? WATCH_READ | WATCH_WRITE : 0u);
        if (w != NULL && (what & w->wants) != 0)
            w->ready(w, what & w->wants);
    }
    p->next = p->count = 0;
}
