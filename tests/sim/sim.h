/* A simulated world around the whole proxy, in virtual time.
 *
 * Links carry bytes with delays, in pieces of any size, and may be cut or reset. At their far ends
 * are backends (machines that answer as PostgreSQL does, as far as the asker's language goes) and
 * askers (clients that know what must come back). All that is random comes from one seed, so that a
 * failure is repeated by its number.
 *
 * The language. An asker's statement ends in " -- TOKEN NUMBER": TOKEN names the session, NUMBER
 * the request. SELECT answers with one row "TOKEN NUMBER TimeZone application_name" of the server's
 * session, so that a row shows whose question it answers and with whose settings. What has no token
 * is the proxy's own.
 */
#ifndef PGTRICKLE_TESTS_SIM_SIM_H
#define PGTRICKLE_TESTS_SIM_SIM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytequeue.h"
#include "tests/proxy/world.h"

#define SIM_ASKERS 8
#define SIM_TOKENS_MAX 4096
#define SIM_ZONES 3

struct sim;
struct chunk;

/* One connection between an actor and the core. */
struct link {
    struct sim *sim;
    struct peer *peer;
    struct chunk *to_core; /* in the order of delivery */
    struct chunk *to_actor;
    struct bytequeue heard; /* delivered, not yet understood by the actor */
    bool ended;             /* the core closed it, and all that it said has been delivered */
    bool hung_up;           /* by the actor */
};

/* Both queue; nothing happens before the event loop's next turn. */
void link_send(struct link *l, struct bytequeue *q); /* and empties it */
void link_hang_up(struct link *l, bool reset);       /* reset: what is under way is lost */
void link_free(struct link *l);

struct backend;
struct asker;

struct sim {
    struct world *world;
    struct config *first_config; /* a reference */
    uint64_t rng;
    uint64_t seed;
    bool transactions; /* the pool mode allows them */
    bool healed;       /* no more faults: everything must come to its end */
    struct backend *backends;
    struct asker *askers[SIM_ASKERS];
    struct sim_cancel *cancels; /* requests of askers */
    unsigned next_token;
    int next_pid;
    bool computes[4];              /* the threads of the workers are busy */
    bool canceled[SIM_TOKENS_MAX]; /* the session has sent a cancel */
    unsigned n_rows;               /* rows that were checked */
    unsigned n_canceled;           /* statements that a cancel has ended */
    unsigned n_told;               /* sessions that ended with a FATAL */
    unsigned n_faults;
};

uint64_t sim_now(const struct sim *s);
unsigned sim_roll(struct sim *s, unsigned n); /* 0 … n-1 */
bool sim_chance(struct sim *s, unsigned percent);
uint64_t sim_between(struct sim *s, uint64_t least_us, uint64_t most_us);
/* Ends the test; shows the seed. */
void sim_fail(const struct sim *s, const char *fmt, ...)
    __attribute__((format(printf, 2, 3), noreturn));

/* The core has nothing to do with the session any more, whether it knows or not. */
bool sim_session_is_over(const struct sim *s, unsigned token);
/* Takes over a link (allocated) on which a CancelRequest is under way. */
void sim_keep_cancel(struct sim *s, struct link *l);

extern const char *const sim_zones[SIM_ZONES];

/* --- backends --- */

/* A connect of the core: a login, a cancel, or a fault. */
void backend_accept(struct sim *s, struct peer *p);
void backend_turn(struct backend *b);
uint64_t backend_wakes_at(const struct backend *b); /* UINT64_MAX: when something arrives */
struct backend **backend_next(struct backend *b);
struct link *backend_link(struct backend *b);
bool backend_is_over(const struct backend *b);
void backend_free(struct backend *b);
/* The server goes away under whoever uses it. */
void backend_crash(struct backend *b);

/* --- askers --- */

struct asker *asker_new(struct sim *s);
void asker_turn(struct asker *a);
uint64_t asker_wakes_at(const struct asker *a);
struct link *asker_link(struct asker *a);
bool asker_is_over(const struct asker *a);
bool asker_waits(const struct asker *a); /* for replies */
void asker_describe(const struct asker *a, char *out, size_t size);
void asker_leave(struct asker *a);
void asker_free(struct asker *a);

#endif
