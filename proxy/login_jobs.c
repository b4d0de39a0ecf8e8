#include "proxy/login_jobs.h"

#include <stdlib.h>

static const int lane_limits[LOGIN_LANES] = {
    [LOGIN_LANE_COMPUTE] = 2,
    [LOGIN_LANE_ASK] = 16,
};

static struct login_job *of_job(struct job *j)
{
    return (struct login_job *)(void *)j;
}

static void job_free(struct login_job *j)
{
    arena_free(&j->arena);
    free(j);
}

static void work(struct job *job)
{
    of_job(job)->run(of_job(job));
}

/* Tells the owner; after that the job is gone. */
static void deliver(struct login_job *j)
{
    if (j->owner != NULL) {
        *j->held_by = NULL;
        j->done(j, j->owner);
    }
    job_free(j);
}

/* Starts what waits, as far as the lane has room. */
static void serve(struct worker *w, enum login_lane lane)
{
    struct login_lane_state *state = &w->login_lanes[lane];
    struct list_node *n;

    while (state->running < lane_limits[lane] && (n = list_pop(&state->waiting)) != NULL) {
        struct login_job *j = LIST_ITEM(n, struct login_job, node);
        if (j->is_done != NULL && j->is_done(j)) {
            deliver(j);
            continue;
        }
        state->running++;
        j->runs = true;
        w->ops->job_start(w->io, &j->job);
    }
}

static void done(struct job *job)
{
    struct login_job *j = of_job(job);
    struct worker *w = job->worker;
    enum login_lane lane = j->lane;

    w->login_lanes[lane].running--;
    deliver(j);
    serve(w, lane);
}

void *login_job_new(struct worker *w, size_t size, enum login_lane lane, void *owner,
                    struct login_job **held_by)
{
    struct login_job *j = mem_alloc(size);

    j->job = (struct job){ .work = work, .done = done, .worker = w };
    j->lane = lane;
    j->owner = owner;
    j->held_by = held_by;
    *held_by = j;
    arena_init(&j->arena);
    return j;
}

void login_job_start(struct login_job *j)
{
    struct worker *w = j->job.worker;

    list_append(&w->login_lanes[j->lane].waiting, &j->node);
    serve(w, j->lane);
}

void login_job_abandon(struct login_job *j)
{
    if (j == NULL)
        return;
    *j->held_by = NULL;
    j->owner = NULL;
    if (!j->runs) {
        list_remove(&j->job.worker->login_lanes[j->lane].waiting, &j->node);
        job_free(j);
    }
}
