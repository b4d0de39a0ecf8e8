/* A pool: the server connections of one (database entry, server-side user) on one worker, and who
 * waits for one there. What the workers' pools have in common is in proxy/pool_common.h.
 *
 * The pool decides when a server is linked to a client, opened, probed, reset, closed. What may be
 * decided from numbers alone is in proxy/pool_policy.h. A waiter is served by the event that frees
 * a server (pool_serve), never by a sweep. An idle server moves to the worker whose client has
 * waited longest (server_send), whole: the connection, what it has prepared, what it was set to.
 */
#ifndef PGTRICKLE_PROXY_POOL_H
#define PGTRICKLE_PROXY_POOL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "base/text.h"
#include "proxy/config.h"
#include "proxy/credentials.h"
#include "proxy/params.h"
#include "proxy/proxy.h"
#include "proxy/timers.h"

struct pool_common;

struct pool {
    struct list_node database_node; /* database.pools, under proxy.lock */
    struct list_node worker_node;   /* worker.pools */
    struct worker *worker;
    struct database *db;
    struct user *user; /* who logs in to the server */
    bool user_is_forced;
    struct pool_common *common;
    struct list idle;           /* struct server.pool_node, as the next; most recently used last */
    struct list departing;      /* idle, about to go to another worker */
    struct list active;         /* linked to a client */
    struct list busy;           /* reset, probe, SERVER_BEING_CANCELED: owned by the pool */
    struct list opening;        /* connecting or logging in */
    struct list clients;        /* struct client.pool_node: logged in */
    struct list waiting;        /* struct client.wait_node: wait for a server, FIFO */
    struct list login_waiting;  /* struct client.wait_node: wait for the first parameters */
    struct list replications;   /* struct client.wait_node: wait for a connection of their own */
    struct list listening;      /* servers that LISTEN for clients */
    struct list listeners;      /* struct listener.pool_node */
    struct list cancels;        /* struct cancel_request.node: under way, as the next */
    struct list cancels_queued; /* wait for their turn */
    int n_draining;             /* of busy: they may take long to be free */
    /* What a server said at login, replayed to clients: a copy of the common one. */
    bool has_parameters;
    unsigned learned;          /* which one; 0: none */
    struct params parameters;  /* the followed ones */
    struct params last_params; /* struct client.params, .startup and .settings, to be shared */
    struct settings *last_startup;
    struct settings *last_settings;
    uint64_t proven_settings[8];    /* hashes of statements that set some, and worked */
    struct text welcome;            /* ParameterStatus frames of all others */
    int server_version;             /* 150020 */
    struct credentials credentials; /* that a client's login on this worker brought */
    struct timer retry_timer;
    struct stats stats;
    bool serving; /* inside pool_serve */
    bool serve_again;
};

/* The worker's pool of (db, user); made when it is new. */
struct pool *pool_get(struct worker *w, struct database *db, struct user *user,
                      bool user_is_forced);
void pool_free(struct pool *p); /* must be empty; workers are halted */

enum pool_mode pool_mode_of(const struct pool *p);
int pool_server_count(const struct pool *p); /* of all workers; cancels in flight excluded */

/* A client logged in; it is gone. */
void pool_add_client(struct pool *p, struct client *c);
void pool_remove_client(struct pool *p, struct client *c);

/* A client needs a server: links one now, or queues the client and opens one. */
void pool_checkout(struct pool *p, struct client *c);
/* The client leaves the queue. */
void pool_leave_queue(struct pool *p, struct client *c);
/* Serves waiters with idle servers; opens servers as far as limits go. */
void pool_serve(struct pool *p);

/* From the server's machine. */
void pool_on_server_ready(struct pool *p, struct server *s); /* logged in, or free again */
void pool_on_login_failed(struct pool *p, struct server *s, bool connected, struct str frame,
                          struct str message);
/* As much, but another host may do: one is opened as soon as this is closed. */
void pool_on_host_failed(struct pool *p, struct server *s);
/* A connection came from another worker. */
void pool_on_server_arrived(struct pool *p, struct server *s);
/* One that was promised does not come. From the worker that promised it. */
void pool_on_server_kept(struct pool *p);
/* Its server is logged in. */
void pool_on_login_over(struct pool *p);
void pool_on_server_closed(struct pool *p, bool was_opening);

/* The server's login brought these. */
void pool_learn_parameters(struct pool *p, struct server *s);
/* Takes over what a server told another worker. */
void pool_sync_parameters(struct pool *p);
/* The last attempt to log in failed, nothing is connected and the next one is not due yet: its
 * error is appended to *why. */
bool pool_fails_fast(const struct pool *p, struct text *why);

/* Closes idle servers beyond lifetime or idle time; keeps min_pool_size. */
void pool_upkeep(struct pool *p);
/* Marks all servers to be closed when free; idle ones are closed now. */
void pool_retire_servers(struct pool *p, const char *reason);

#endif
