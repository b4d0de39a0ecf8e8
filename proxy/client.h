/* One client connection.
 *
 *   STARTUP -> AUTH -> LOGIN_WAIT -> IDLE -> WAITING -> ACTIVE -> IDLE ...
 *      |                              ^                   |
 *      +-> CANCELING                  +-------------------+         any -> CLOSED
 *      +-> CONSOLE (after AUTH)
 *
 * ACTIVE: linked to a server; messages are forwarded as they are but for what proxy/intercept.h and
 * the prepared statements of transaction pooling need. While a lend_job runs, or is about to
 * (`lend`), later messages of the client wait in its input.
 */
#ifndef PGTRICKLE_PROXY_CLIENT_H
#define PGTRICKLE_PROXY_CLIENT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/list.h"
#include "base/map.h"
#include "protocol/reader.h"
#include "proxy/admin.h"
#include "proxy/cancel_key.h"
#include "proxy/conn.h"
#include "proxy/params.h"
#include "proxy/pool.h"
#include "proxy/prepared.h"
#include "proxy/timers.h"

struct login;
struct session;
struct settings;
struct lending;
struct cancel_request;
struct client_move;

enum client_state {
    CLIENT_STARTUP,
    CLIENT_AUTH,
    CLIENT_LOGIN_WAIT, /* for the parameters of the pool's first server */
    CLIENT_IDLE,
    CLIENT_WAITING, /* for a server */
    CLIENT_ACTIVE,
    CLIENT_CONSOLE,
    CLIENT_CANCELING, /* a CancelRequest */
    CLIENT_CLOSED,
};

/* What `replication` of the startup packet asks for. */
enum replication {
    REPLICATION_NONE,
    REPLICATION_LOGICAL,  /* replication=database: SQL too */
    REPLICATION_PHYSICAL, /* replication=true: of the whole server */
};

/* What few clients ever have. Made when the first of it is, and kept. */
struct client_rare {
    struct client *client;
    struct client_move *move;      /* STARTUP: it goes to another worker; NULL: it stays */
    struct cancel_request *cancel; /* CANCELING */
    struct admin_session *admin;   /* CONSOLE */
    const char *ends_server;       /* why its server is closed with it; NULL: it just leaves */
    struct err *install_error;     /* why the SQL side could not be installed; NULL: it could */
    struct list_node install_node; /* worker.views_waiting */
    struct map lend_portals; /* struct client_statement: portals bound to stream-table statements */
};

/* There may be ten thousand that are idle, and each byte is theirs. */
struct client {
    struct conn conn; /* first */
    struct list_node worker_node;
    struct list_node pool_node; /* pool.clients */
    struct list_node wait_node; /* pool.waiting, pool.login_waiting, pool.replications */
    struct map_node cancel_node;
    union cancel_key_kept cancel_key; /* cancel_key_len */
    uint64_t id;
    struct login *login;       /* STARTUP, AUTH, LOGIN_WAIT */
    struct database *db;       /* NULL until known */
    struct user *user;         /* who logged in */
    const char *database_name; /* as asked for; NULL before */
    const char *user_name;
    struct pool *pool; /* LOGIN_WAIT and later */
    struct server *server;
    struct params params;
    struct settings *startup;  /* what the startup packet asked for, reported parameters too */
    struct settings *settings; /* what must be set on its server beside params */
    struct session *session;   /* proxy/session_state.h; NULL: never had use for it */
    struct lending *lend;      /* a job runs, or is about to */
    struct client_rare *rare;  /* NULL: has nothing of it; client_has, client_rare */
    struct map statements;     /* struct client_statement */
    struct timer timer;        /* the deadline that fits the state */
    uint64_t connected_at_us;
    uint64_t request_at_us; /* first byte of the running request */
    uint64_t xact_at_us;    /* start of the transaction; 0: none */
    uint64_t waiting_since_us;
    uint64_t quiet_at_us;      /* ACTIVE: since when no reply is owed; IDLE: since when */
    struct wire_reader reader; /* messages on their way to the server */
    uint32_t next_serial;
    uint32_t synced_serial; /* next_serial at the last Sync */
    enum client_state state;
    enum replication replication;
    uint8_t cancel_key_len; /* 0: none yet */
    bool speaks_3_2;        /* gets a long key */
    bool names_shared;      /* the names are those of db and user */
    bool counted_db;        /* in db->n_clients and user->n_clients */
    bool counted_user;
    bool counted; /* in proxy.n_clients */
    bool wait_notified;
    bool has_deadlines;     /* some timeout for ACTIVE or IDLE is configured */
    bool discards;          /* the rest of a message whose beginning was not forwarded */
    bool skips;             /* the pipeline failed: messages up to Sync are dropped */
    bool waits_for_answers; /* what was sent decides what names mean in the message in front */
    bool unnamed_here;      /* the unnamed statement on the linked server is this client's, */
    bool unnamed_unbound;   /* and nothing was bound to it yet */
    bool canceled;          /* in the queue: the message in front is answered with 57014 */
    bool cut;               /* its server went away in the middle of a message */
    bool lend_block;        /* a job opened a transaction block: it is ended at the client's Sync */
    bool lend_block_failed;
    bool install_wanted;  /* waits for the SQL side to be installed */
    bool install_tried;   /* for the message in front: go on whatever came of it */
    bool settings_proven; /* a server has taken params and settings */
    bool discarded;       /* DISCARD ALL: what the startup packet asked for is due again */
};

/* To look at; all zero when it has none. */
const struct client_rare *client_has(const struct client *c);
/* To put something there. */
struct client_rare *client_rare(struct client *c);

struct cancel_key client_cancel_key(const struct client *c); /* len 0: none yet */
/* It had none. Not looked up before client_readmit. */
void client_set_cancel_key(struct client *c, const struct cancel_key *k);

struct client *client_new(struct worker *w, const struct address *peer);

/* In STARTUP: it goes to that worker, whole, when this event is over. What it sent is offered again
 * there. */
void client_move(struct client *c, struct worker *to);

/* Between two transactions: the same. False: it can't go now. */
bool client_migrate(struct client *c, struct worker *to);

/* A client inside of the process: what we ask a pool for ourselves (proxy/auth_query.h) waits, is
 * served and timed out like any other, with no socket, no login, no id and no parameters of its
 * own. It is closed by client_close. */
struct inner_client {
    struct client client; /* first */
    void (*on_output)(struct inner_client *c, struct str bytes);
    void (*on_closed)(struct inner_client *c); /* closed; it is freed on return */
    void *owner;
};

struct inner_client *inner_client_new(struct worker *w, struct pool *pool,
                                      void (*on_output)(struct inner_client *c, struct str bytes),
                                      void (*on_closed)(struct inner_client *c), void *owner);
/* Messages, as a frontend sends them. */
void inner_client_say(struct inner_client *c, struct str bytes);
bool client_is_inner(const struct client *c);

/* One that another process accepted, on descriptor fd, in STARTUP. What is known of it is the
 * caller's to fill in; client_readmit gives it its place. */
struct client *client_adopt(struct worker *w, const struct address *peer, int fd);
/* It has proved who it is to that process. The names are the client's; waiting: for the parameters
 * of its pool still. False: it was refused here, and is closed. */
bool client_readmit(struct client *c, bool waiting);
/* As server_surrender; its server must have been taken off. */
int client_surrender(struct client *c);
/* Ends it without a word to it; reason is logged. */
void client_close(struct client *c, const char *reason);
/* Ends it with a FATAL error whose message is the reason too. */
void client_fail(struct client *c, const char *sqlstate, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Sends a frame as it is (a server's own error), then closes. */
void client_fail_with(struct client *c, struct str frame, const char *reason);

/* The same for it and its server, with 08P01. reason is static. */
void client_fail_both(struct client *c, const char *reason);

/* From the pool and the server. */
void client_on_queued(struct client *c); /* WAITING */
void client_on_linked(struct client *c); /* IN_USE: parameters are set */
void client_on_server_lost(struct client *c, const char *reason, struct str error_frame);
void client_on_parameters(struct client *c); /* LOGIN_WAIT: the pool knows its parameters now */
/* LOGIN_WAIT for a replication connection: its server has logged in and is linked. */
void client_on_replication_ready(struct client *c);
/* A ReadyForQuery was forwarded and nothing is owed: the server may go back. */
void client_on_batch_done(struct client *c);
/* Its server is to be closed when free; in session mode server_fast_close does not wait for that.
 */
void client_on_server_retired(struct client *c);
/* What it left in its session is known now: the server may go back. */
void client_on_session_known(struct client *c);
/* DISCARD ALL: its settings are those of the startup packet again. */
void client_on_session_discarded(struct client *c);
/* And their values are told, before a ReadyForQuery. */
void client_tell_startup_parameters(struct client *c);
/* The server's spelling of a value that the client asked for. */
void client_on_canonical(struct client *c, struct str name, const char *asked, struct str value);
/* Nothing is owed any more: a lend_job that waited for it can start. */
void client_on_quiet(struct client *c);
/* A statement that was forwarded registered requests: they are completed before its ReadyForQuery,
 * which the job emits. */
void client_on_request_mark(struct client *c);
/* A lend_job is over and its output handed on. */
void client_on_lend_done(struct client *c);
/* LEND_INSTALL for its database is over. */
void client_on_installed(struct client *c, const struct err *e);
/* A CancelRequest while it waits for a server. */
void client_on_cancel_while_waiting(struct client *c);
/* Sends it away (57P01) if it is in no transaction; for a shutdown, which comes back to it in
 * client_on_batch_done. */
void client_end_at_boundary(struct client *c);
/* RELOAD, or a change of state: sets the deadline. */
void client_update_timer(struct client *c);

/* A startup packet names others. */
void client_forget_names(struct client *c);
/* Before it is: the user goes by another name. */
void client_set_user_name(struct client *c, struct str name);
/* Login is over (proxy/login.h): the client is known to be `user`. */
void client_on_authenticated(struct client *c);

/* "none", "logical", "physical" */
const char *replication_name(enum replication r);
const char *client_state_name(const struct client *c);
void client_log(struct client *c, enum log_level level, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
