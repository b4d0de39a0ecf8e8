#include "proxy/io/poller.h"

#include <stddef.h>
#include <stdlib.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/arena.h"

struct poller {
    struct event_base *base;
    struct watch alarm;
    uint64_t alarm_us; /* what it is set to; UINT64_MAX: not set */
    bool rang;
};

static void on_event(evutil_socket_t fd, short what, void *arg)
{
    struct watch *w = arg;

    (void)fd;
    w->ready(w, (what & EV_READ ? WATCH_READ : 0u) | (what & EV_WRITE ? WATCH_WRITE : 0u));
}

static void on_alarm(struct watch *w, unsigned what)
{
    struct poller *p = (struct poller *)(void *)((char *)w - offsetof(struct poller, alarm));
    uint64_t count;

    (void)what;
    if (read(w->fd, &count, sizeof(count)) < 0)
        return; /* it was set again meanwhile */
    p->alarm_us = UINT64_MAX;
    p->rang = true;
}

static struct event_base *base_new(void)
{
    struct event_config *config = event_config_new();
    struct event_base *base = NULL;

    if (config == NULL)
        return NULL;
    /* One thread; the loop has a clock of its own. */
    event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK | EVENT_BASE_FLAG_IGNORE_ENV |
                                      EVENT_BASE_FLAG_NO_CACHE_TIME);
    base = event_base_new_with_config(config);
    event_config_free(config);
    return base;
}

struct poller *poller_new(void)
{
    struct poller *p = mem_alloc(sizeof(*p));

    watch_init(&p->alarm, timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC), on_alarm);
    p->alarm_us = UINT64_MAX;
    if (p->alarm.fd >= 0 && (p->base = base_new()) != NULL && poller_want(p, &p->alarm, WATCH_READ))
        return p;
    poller_free(p);
    return NULL;
}

void poller_free(struct poller *p)
{
    if (p == NULL)
        return;
    if (p->base != NULL) {
        poller_want(p, &p->alarm, 0);
        event_base_free(p->base);
    }
    if (p->alarm.fd >= 0)
        close(p->alarm.fd);
    free(p);
}

bool poller_want(struct poller *p, struct watch *w, unsigned wants)
{
    if (wants == w->wants)
        return true;
    if (w->wants != 0)
        event_del(&w->event);
    w->wants = 0;
    if (wants == 0)
        return true;
    short what = (short)(EV_PERSIST | (wants & WATCH_READ ? EV_READ : 0) |
                         (wants & WATCH_WRITE ? EV_WRITE : 0));
    if (event_assign(&w->event, p->base, w->fd, what, on_event, w) < 0 ||
        event_add(&w->event, NULL) < 0)
        return false;
    w->wants = wants;
    return true;
}

static void set_alarm(struct poller *p, uint64_t at_us)
{
    struct itimerspec t = { .it_value = { .tv_sec = (time_t)(at_us / 1000000),
                                          .tv_nsec = (long)(at_us % 1000000 * 1000) } };

    timerfd_settime(p->alarm.fd, TFD_TIMER_ABSTIME, &t, NULL);
    p->alarm_us = at_us;
}

bool poller_wait(struct poller *p, uint64_t at_us, bool blocks)
{
    if (at_us < p->alarm_us)
        set_alarm(p, at_us > 0 ? at_us : 1);
    p->rang = false;
    event_base_loop(p->base, blocks ? EVLOOP_ONCE : EVLOOP_ONCE | EVLOOP_NONBLOCK);
    return p->rang;
}
