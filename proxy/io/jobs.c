#include "proxy/io/jobs.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <openssl/crypto.h>

#include "base/arena.h"

#define THREADS_MAX 64
#define IDLE_SECONDS 10

enum {
    JOB_DONE = 1,
    JOB_NOTIFIED = 2,
    JOB_QUEUED = 4, /* in the list of news */
};

struct jobs {
    pthread_mutex_t lock;
    pthread_cond_t work;
    pthread_cond_t left; /* a thread ended */
    struct job *queue_first;
    struct job *queue_last;
    struct job *news_first;
    struct job *news_last;
    int threads;
    int idle;
    unsigned running; /* of the loop's thread */
    bool ending;
    int fd;
};

struct jobs *jobs_new(void)
{
    struct jobs *js = mem_alloc(sizeof(*js));
    pthread_condattr_t attr;

    pthread_mutex_init(&js->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&js->work, &attr);
    pthread_cond_init(&js->left, &attr);
    pthread_condattr_destroy(&attr);
    js->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return js;
}

void jobs_free(struct jobs *js)
{
    pthread_mutex_lock(&js->lock);
    js->ending = true;
    pthread_cond_broadcast(&js->work);
    while (js->threads > 0)
        pthread_cond_wait(&js->left, &js->lock);
    pthread_mutex_unlock(&js->lock);
    pthread_mutex_destroy(&js->lock);
    pthread_cond_destroy(&js->work);
    pthread_cond_destroy(&js->left);
    close(js->fd);
    free(js);
}

int jobs_fd(const struct jobs *js)
{
    return js->fd;
}

unsigned jobs_running(const struct jobs *js)
{
    return js->running;
}

/* Under the lock. */
static void tell(struct jobs *js, struct job *j, int flag)
{
    uint64_t one = 1;

    j->state |= flag;
    if (j->state & JOB_QUEUED)
        return;
    j->state |= JOB_QUEUED;
    j->next = NULL;
    if (js->news_last != NULL)
        js->news_last->next = j;
    else
        js->news_first = j;
    js->news_last = j;
    while (write(js->fd, &one, sizeof(one)) < 0 && errno == EINTR)
        ;
}

void jobs_notify(struct jobs *js, struct job *j)
{
    pthread_mutex_lock(&js->lock);
    tell(js, j, JOB_NOTIFIED);
    pthread_mutex_unlock(&js->lock);
}

static struct job *next_job(struct jobs *js)
{
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += IDLE_SECONDS;
    while (js->queue_first == NULL && !js->ending) {
        js->idle++;
        int rc = pthread_cond_timedwait(&js->work, &js->lock, &until);
        js->idle--;
        if (rc == ETIMEDOUT)
            break;
    }
    struct job *j = js->queue_first;
    if (j != NULL) {
        js->queue_first = j->next;
        if (js->queue_first == NULL)
            js->queue_last = NULL;
    }
    return j;
}

static void *thread_main(void *arg)
{
    struct jobs *js = arg;
    struct job *j;

    pthread_mutex_lock(&js->lock);
    while ((j = next_job(js)) != NULL) {
        pthread_mutex_unlock(&js->lock);
        j->work(j);
        pthread_mutex_lock(&js->lock);
        tell(js, j, JOB_DONE);
    }
    /* What OpenSSL keeps for this thread: nobody waits until the thread has really ended. */
    OPENSSL_thread_stop();
    js->threads--;
    pthread_cond_broadcast(&js->left);
    pthread_mutex_unlock(&js->lock);
    return NULL;
}

void jobs_start(struct jobs *js, struct job *j)
{
    pthread_attr_t attr;
    pthread_t thread;
    sigset_t all, old;

    js->running++;
    pthread_mutex_lock(&js->lock);
    j->state = 0;
    j->next = NULL;
    if (js->queue_last != NULL)
        js->queue_last->next = j;
    else
        js->queue_first = j;
    js->queue_last = j;
    if (js->idle > 0) {
        pthread_cond_signal(&js->work);
    } else if (js->threads < THREADS_MAX) {
        /* Signals are the loop's. */
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &old);
        pthread_attr_init(&attr);
        pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
        if (pthread_create(&thread, &attr, thread_main, js) == 0)
            js->threads++;
        pthread_attr_destroy(&attr);
        pthread_sigmask(SIG_SETMASK, &old, NULL);
    }
    pthread_mutex_unlock(&js->lock);
}

void jobs_deliver(struct jobs *js)
{
    uint64_t count;

    while (read(js->fd, &count, sizeof(count)) < 0 && errno == EINTR)
        ;
    for (;;) {
        pthread_mutex_lock(&js->lock);
        struct job *j = js->news_first;
        int state = 0;
        if (j != NULL) {
            js->news_first = j->next;
            if (js->news_first == NULL)
                js->news_last = NULL;
            state = j->state;
            j->state = 0;
        }
        pthread_mutex_unlock(&js->lock);
        if (j == NULL)
            return;
        if ((state & JOB_NOTIFIED) && j->progress != NULL)
            j->progress(j);
        if (state & JOB_DONE) {
            js->running--;
            j->done(j);
        }
    }
}
