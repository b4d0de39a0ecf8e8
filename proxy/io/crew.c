#include "proxy/io/crew.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#include "base/arena.h"

struct member {
    struct member *next;
    pthread_t thread;
    void (*main)(void *arg);
    void *arg;
};

struct crew {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct member *members;
    int n;
    int standing; /* under the lock, as the next */
    bool halting;
    bool ending;
};

struct crew *crew_new(void)
{
    struct crew *c = mem_alloc(sizeof(*c));

    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->changed, NULL);
    return c;
}

void crew_free(struct crew *c)
{
    if (c == NULL)
        return;
    pthread_mutex_destroy(&c->lock);
    pthread_cond_destroy(&c->changed);
    free(c);
}

static void *member_main(void *arg)
{
    struct member *m = arg;

    m->main(m->arg);
    return NULL;
}

bool crew_start(struct crew *c, void (*main)(void *arg), void *arg)
{
    struct member *m = mem_alloc(sizeof(*m));
    sigset_t all, old;

    m->main = main;
    m->arg = arg;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int error = pthread_create(&m->thread, NULL, member_main, m);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (error != 0) {
        free(m);
        errno = error;
        return false;
    }
    m->next = c->members;
    c->members = m;
    c->n++;
    return true;
}

void crew_halt(struct crew *c, void (*wake)(void *arg), void *arg)
{
    pthread_mutex_lock(&c->lock);
    c->halting = true;
    wake(arg);
    /* Who did not leave since the last time counts again: it still stands there. */
    while (c->standing < c->n)
        pthread_cond_wait(&c->changed, &c->lock);
    pthread_mutex_unlock(&c->lock);
}

void crew_release(struct crew *c)
{
    pthread_mutex_lock(&c->lock);
    c->halting = false;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
}

void crew_end(struct crew *c, void (*wake)(void *arg), void *arg)
{
    struct member *m;

    pthread_mutex_lock(&c->lock);
    c->ending = true;
    pthread_mutex_unlock(&c->lock);
    wake(arg);
    while ((m = c->members) != NULL) {
        c->members = m->next;
        pthread_join(m->thread, NULL);
        free(m);
    }
    c->n = 0;
}

bool crew_pause(struct crew *c)
{
    pthread_mutex_lock(&c->lock);
    if (c->halting) {
        c->standing++;
        pthread_cond_broadcast(&c->changed);
        while (c->halting)
            pthread_cond_wait(&c->changed, &c->lock);
        c->standing--;
    }
    bool ending = c->ending;
    pthread_mutex_unlock(&c->lock);
    return ending;
}
