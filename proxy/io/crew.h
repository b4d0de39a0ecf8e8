/* The threads of the event loops: they can be told to stand still, and to end.
 *
 * Thread 0 is the one that tells. The others look (crew_pause) when they were woken, between two
 * events of theirs; they stand still in there until they are released. The lock makes what either
 * side wrote before visible to the other.
 */
#ifndef PGTRICKLE_PROXY_IO_CREW_H
#define PGTRICKLE_PROXY_IO_CREW_H

#include <stdbool.h>

struct crew;

struct crew *crew_new(void);
void crew_free(struct crew *c); /* no thread is left */

/* Starts one more, which runs main(arg). False: errno tells. Signals are thread 0's. */
bool crew_start(struct crew *c, void (*main)(void *arg), void *arg);

/* From thread 0. wake(arg) makes all the others call crew_pause soon. */
void crew_halt(struct crew *c, void (*wake)(void *arg), void *arg);
void crew_release(struct crew *c);
/* Waits until all have ended. */
void crew_end(struct crew *c, void (*wake)(void *arg), void *arg);

/* From the others. True: the thread is to end. */
bool crew_pause(struct crew *c);

#endif
