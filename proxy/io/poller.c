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
    struct watch *telling; /* NULL once it does not want anything any more */
    struct watch *raised;
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
    if (wants != 0)
        return true;
    if (p->telling == w)
        p->telling = NULL;
    for (int i = p->next; i < p->count; i++)
        if (p->events[i].data.ptr == w)
            p->events[i].data.ptr = NULL;
    if (w->raised) {
        struct watch **at = &p->raised;
        while (*at != w)
            at = &(*at)->next_raised;
        *at = w->next_raised;
        w->raised = false;
    }
    return true;
}

void poller_raise(struct poller *p, struct watch *w)
{
    if (w->raised || w->wants == 0)
        return;
    w->raised = true;
    w->next_raised = p->raised;
    p->raised = w;
}

static void tell(struct poller *p, struct watch *w, unsigned what)
{
    p->telling = w;
    if (what & w->wants & WATCH_WRITE)
        w->ready(w, WATCH_WRITE);
    if (p->telling == w && (what & w->wants & WATCH_READ))
        w->ready(w, WATCH_READ);
    p->telling = NULL;
}

void poller_wait(struct poller *p, int64_t timeout_us)
{
    /* Up to the next millisecond: a deadline is over when it is told. */
    int64_t ms = timeout_us < 0 ? -1 : timeout_us / 1000 + (timeout_us % 1000 > 0);
    int n_raised = 0;

    if (p->raised != NULL)
        ms = 0;
    for (const struct watch *w = p->raised; w != NULL; w = w->next_raised)
        n_raised++;
    p->next = 0;
    p->count = epoll_wait(p->fd, p->events, BATCH, ms > INT_MAX ? INT_MAX : (int)ms);
    while (p->next < p->count) {
        const struct epoll_event *e = &p->events[p->next++];
        unsigned what = (e->events & (EPOLLIN | EPOLLRDHUP) ? WATCH_READ : 0u) |
                        (e->events & EPOLLOUT ? WATCH_WRITE : 0u) |
                        (e->events & (EPOLLERR | EPOLLHUP) ? WATCH_READ | WATCH_WRITE : 0u);
        if (e->data.ptr != NULL)
            tell(p, e->data.ptr, what);
    }
    p->next = p->count = 0;
    /* Those that are raised meanwhile have their turn after the others'. */
    struct watch *w;
    while (n_raised-- > 0 && (w = p->raised) != NULL) {
        p->raised = w->next_raised;
        w->raised = false;
        tell(p, w, WATCH_READ);
    }
}
