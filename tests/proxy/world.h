/* A world without sockets for the core: clients and servers are byte queues that a test fills and
 * empties, and time is a number. */
#ifndef PGTRICKLE_TESTS_PROXY_WORLD_H
#define PGTRICKLE_TESTS_PROXY_WORLD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytequeue.h"
#include "base/str.h"
#include "proxy/client.h"
#include "proxy/dns.h"
#include "proxy/proxy.h"
#include "proxy/server.h"

/* The far end of one conn of the core. */
struct peer {
    struct peer *next;
    struct conn *conn;    /* NULL: the core closed it */
    struct bytequeue got; /* what the core sent and nobody has taken */
    size_t window;        /* how many bytes it takes before it blocks */
    bool reading;         /* the core wants its bytes */
    bool away;            /* its conn is on its way to another worker: nothing may be told to it */
    bool taken;           /* by world_next_connect */
    struct address to;    /* a server: where the core connected to; the host is the conn's */
    bool securing;        /* the core wants a handshake: `tls` says how */
    struct tls_start tls; /* `host` and `first` are gone */
    char tls_host[64];
    struct bytequeue tls_first;
};

struct outside_question;

struct world {
    struct proxy *proxy;
    struct worker *worker;
    struct peer *peers;
    struct lookup *lookups[8]; /* names that are asked for, until world_answer */
    int n_lookups;
    uint64_t now_us;
    uint64_t random;
    bool stopped;
    /* Helper threads: what was started runs after the event, or, with jobs_wait, when the test
     * calls world_run_jobs. */
    struct job *jobs;
    bool jobs_wait;
    void (*outside)(struct outside_question *q); /* answers io_ops.ask */
    bool accepts;                                /* the core wants connections */
    int enclosed[256];                           /* descriptors that went along with bytes */
    size_t n_enclosed;
    uint64_t cpu_us[WORKERS_MAX]; /* what the workers' threads have computed */
    struct text notified;         /* what the service manager was told, a line each */
    /* How long the letters of a worker lie before it reads them, as if its thread had other things
     * to do; NULL: they are read at once. */
    uint64_t (*letter_delay)(void *arg);
    void *letter_arg;
    uint64_t letters_at_us[WORKERS_MAX]; /* UINT64_MAX: there are none */
};

/* ini: the lines of [pgbouncer]; one database `db` on 10.0.0.1:5432 is added unless the lines have
 * a [databases] section. users: the auth_file, or NULL. One worker unless worker_threads says more:
 * all run on the caller's thread, and letters between them arrive after each event. */
struct world *world_new(const char *ini, const char *users);
void world_free(struct world *w);
bool world_run_jobs(struct world *w); /* the next one; false: there is none */

/* Answers the oldest question, which must be for host: a comma list of addresses; "": there is no
 * such name; NULL: no answer. */
void world_answer(struct world *w, const char *host, const char *addresses);
void world_sleep(struct world *w, double seconds);
/* When something is due by itself. */
uint64_t world_next_timer(struct world *w);
/* To a point of time: fires the timers that are due on the way. */
void world_run_until(struct world *w, uint64_t until_us);
/* After calls into the core that are no events of a peer. */
void world_settle(struct world *w);

/* A connection that another process accepted or opened, for takeover_import. */
int world_descriptor(struct world *w);
/* A client connects. */
struct peer *world_accept(struct world *w);
/* The oldest connect of the core that was not taken yet; NULL: none. */
struct peer *world_next_connect(struct world *w);
void peer_connected(struct peer *p);

/* The handshake that the core wants succeeds. name: of the peer's certificate, or NULL. */
void peer_secured(struct peer *p, const char *name);
/* It fails. */
void peer_fail(struct peer *p, const char *reason);
void peer_send(struct peer *p, const void *bytes, size_t n);
void peer_send_queue(struct peer *p, struct bytequeue *q); /* and empties it */
void peer_hang_up(struct peer *p);
/* It reads on after its window was full. */
void peer_open_window(struct peer *p, size_t window);
struct client *peer_client(struct peer *p);
struct server *peer_server(struct peer *p);

/* What it got, as the tags of its whole frames ("TDCZ"), and forgets them. Of an ErrorResponse the
 * SQLSTATE follows: "E(26000)Z". static storage. */
const char *peer_take(struct peer *p);
/* The same, keeping what was got in *copy (may be NULL). */
const char *peer_take_copy(struct peer *p, struct bytequeue *copy);

/* The whole way: startup packet, and for the first client of a pool the server's login. */
struct peer *world_login(struct world *w, const char *user, const char *database);
/* The client's startup only. */
struct peer *world_startup(struct world *w, const char *user, const char *database,
                           const char *name, const char *value);
/* A server that the core connects to logs in without a password. NULL: no connect. */
struct peer *world_serve_login(struct world *w);

/* Messages. */
void client_says_query(struct peer *p, const char *sql);
/* The server's answer to one statement: CommandComplete and ReadyForQuery. */
void server_says_done(struct peer *p, const char *tag, char status);

#endif
