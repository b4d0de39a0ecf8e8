/* What a login must not do on the event loop: thousands of rounds of a hash, and questions to
 * somebody outside (PAM, LDAP, the system's user database).
 *
 * A job runs on a helper thread and touches only itself. There are two lanes for each worker, each
 * with a limit of jobs that run at a time; the others wait in line with their clients, so that a
 * storm of logins neither takes all cores from the event loops nor all helper threads from those
 * who need them too.
 */
#ifndef PGTRICKLE_PROXY_LOGIN_JOBS_H
#define PGTRICKLE_PROXY_LOGIN_JOBS_H

#include <stdbool.h>

#include "base/arena.h"
#include "base/list.h"
#include "proxy/conn.h"
#include "proxy/proxy.h"

struct login_job {
    struct job job; /* first */
    struct list_node node;
    enum login_lane lane;
    bool runs;
    void *owner; /* a client, or a server; NULL: it is gone */
    struct login_job **held_by;
    struct arena arena; /* what it needs, and what comes out */
    /* On the worker's thread before it is run: true when that is not needed any more. May be
     * NULL. */
    bool (*is_done)(struct login_job *j);
    void (*run)(struct login_job *j);
    /* On the worker's thread, unless it was abandoned. */
    void (*done)(struct login_job *j, void *owner);
};

/* size: of a struct that begins with a struct login_job. *held_by is set to the job, and to NULL
 * before done() is called. */
void *login_job_new(struct worker *w, size_t size, enum login_lane lane, void *owner,
                    struct login_job **held_by);
void login_job_start(struct login_job *j);
/* The owner goes. Takes NULL. */
void login_job_abandon(struct login_job *j);

#endif
