/* Helper threads: run jobs, report their end and their progress to the loop.
 *
 * A thread is made when a job finds none idle, up to a limit; the others wait in line. Idle
 * threads go after a while.
 */
#ifndef PGTRICKLE_PROXY_IO_JOBS_H
#define PGTRICKLE_PROXY_IO_JOBS_H

#include "proxy/conn.h"

struct jobs;

struct jobs *jobs_new(void);
void jobs_free(struct jobs *js); /* no job may be left */

/* Readable when jobs_deliver has something to do. */
int jobs_fd(const struct jobs *js);

void jobs_start(struct jobs *js, struct job *j);
/* From any thread: progress() of the job is wanted. */
void jobs_notify(struct jobs *js, struct job *j);
/* On the loop's thread: calls progress and done. */
void jobs_deliver(struct jobs *js);
/* Jobs that were started and not delivered. */
unsigned jobs_running(const struct jobs *js);

#endif
