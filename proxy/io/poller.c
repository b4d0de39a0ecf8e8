#include "proxy/io/poller.h"

#include <stdlib.h>

#include "base/arena.h"

struct poller {
    struct event_base *base;
    struct event *deadline;
    struct watch *telling; /* NULL once it does not want anything any more */
    struct watch *raised;
};

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    (void)arg; /* the wait is over: the caller knows what for */
}

struct poller *poller_new(void)
{
    struct event_config *config = event_config_new();
    struct event_base *base = NULL;

    if (config != NULL) {
        /* One thread; the loop has a clock of its own. */
        event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK | EVENT_BASE_FLAG_IGNORE_ENV);
        base = event_base_new_with_config(config);
        event_config_free(config);
    }
    if (base == NULL)
        return NULL;
    struct poller *p = mem_alloc(sizeof(*p));
    p->base = base;
    p->deadline = event_new(base, -1, 0, on_deadline, p);
    return p;
}

void poller_free(struct poller *p)
{
    if (p == NULL)
        return;
    event_free(p->deadline);
    event_base_free(p->base);
    free(p);
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

static void on_event(evutil_socket_t fd, short what, void *arg)
{
    struct watch *w = arg;

    (void)fd;
    tell(w->poller, w, (what & EV_READ ? WATCH_READ : 0u) | (what & EV_WRITE ? WATCH_WRITE : 0u));
}

bool poller_want(struct poller *p, struct watch *w, unsigned wants)
{
    if (wants == w->wants)
        return true;
    if (w->wants != 0)
        event_del(&w->event);
    if (wants != 0) {
        short what = (short)(EV_PERSIST | (wants & WATCH_READ ? EV_READ : 0) |
                             (wants & WATCH_WRITE ? EV_WRITE : 0));
        if (event_assign(&w->event, p->base, w->fd, what, on_event, w) < 0 ||
            event_add(&w->event, NULL) < 0) {
            w->wants = 0;
            return false;
        }
    }
    w->poller = p;
    w->wants = wants;
    if (wants != 0)
        return true;
    if (p->telling == w)
        p->telling = NULL;
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

void poller_wait(struct poller *p, int64_t timeout_us)
{
    struct timeval tv = { .tv_sec = (time_t)(timeout_us / 1000000),
                          .tv_usec = (suseconds_t)(timeout_us % 1000000) };
    int n_raised = 0;

    for (const struct watch *w = p->raised; w != NULL; w = w->next_raised)
        n_raised++;
    if (timeout_us == 0 || n_raised > 0) {
        event_base_loop(p->base, EVLOOP_ONCE | EVLOOP_NONBLOCK);
    } else {
        if (timeout_us > 0)
            event_add(p->deadline, &tv);
        event_base_loop(p->base, EVLOOP_ONCE);
        if (timeout_us > 0)
            event_del(p->deadline);
    }
    /* Those that are raised meanwhile have their turn after the others'. */
    struct watch *w;
    while (n_raised-- > 0 && (w = p->raised) != NULL) {
        p->raised = w->next_raised;
        w->raised = false;
        tell(p, w, WATCH_READ);
    }
}
