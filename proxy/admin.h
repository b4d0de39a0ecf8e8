/* The console: database "pgbouncer".
 *
 * A client that asks for this database and may enter (admin_rights_of) gets an admin_session. The
 * core hands it whole messages and sends on what it answers; the console asks the core through a
 * struct admin_view, a table of functions that the core fills in once, and so needs neither sockets
 * nor pools to be tested. Columns, types and texts are PgBouncer's (facts B, N), for tools read
 * them. Simple and extended protocol.
 *
 * The console runs on one thread; the view's functions are called only from inside
 * admin_on_message, and rows given to the sink are copied at once.
 */
#ifndef PGTRICKLE_PROXY_ADMIN_H
#define PGTRICKLE_PROXY_ADMIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytequeue.h"
#include "base/err.h"
#include "base/str.h"
#include "proxy/config.h"
#include "proxy/stats.h"
#include "proxy/userlist.h"

#define ADMIN_DATABASE "pgbouncer"

enum admin_rights {
    ADMIN_RIGHTS_NONE,  /* FATAL 08P01 "not allowed" */
    ADMIN_RIGHTS_STATS, /* SHOW but FDS */
    ADMIN_RIGHTS_ADMIN,
};

/* own_uid: came over the unix socket from a process with the daemon's own uid. */
enum admin_rights admin_rights_of(const struct config *c, struct str user, bool own_uid);

/* ---- what the core tells: one row of a SHOW each; strings are borrowed, NULL where said ---- */

struct admin_database {
    const char *name;
    const struct config_database *entry; /* NULL: the console itself */
    int server_connections;
    int client_connections;
    bool paused;
    bool disabled;
    const struct stats *stats;         /* since the start */
    const struct stats_window *window; /* for the averages */
};

struct admin_pool {
    const char *database;
    const char *user;
    const struct config_database *entry; /* NULL: the console's pool */
    int cl_active;                       /* idle ones are in it */
    int cl_waiting;
    int cl_active_cancel_req;
    int cl_waiting_cancel_req;
    int sv_active;
    int sv_active_cancel;
    int sv_being_canceled;
    int sv_idle;
    int sv_used;
    int sv_tested;
    int sv_login;
    int64_t maxwait_us; /* of the client that has waited longest */
    int sv_pinned;      /* of the active: they stay with their clients (SHOW PINNED) */
};

struct admin_socket {
    bool is_server;
    const char *user; /* NULL: not known yet, as the next */
    const char *database;
    const char *replication; /* NULL: "none" */
    const char *state;       /* "active", "idle", "waiting", … (facts B.2, States) */
    const char *addr;        /* "unix" for a unix socket */
    int port;
    const char *local_addr;
    int local_port;
    int64_t connected_at_s; /* seconds of the epoch; 0: never */
    int64_t requested_at_s;
    int64_t wait_us; /* of a waiting client for a server connection; 0 otherwise */
    bool close_needed;
    const void *self; /* shown as ptr */
    const void *link; /* the other side, or NULL */
    int remote_pid;
    const char *tls;              /* NULL: in clear */
    const char *application_name; /* NULL: not known */
    int prepared_statements;
    uint64_t id; /* one counter for clients and servers */
    /* A client that keeps its server, for SHOW PINNED. */
    const char *pinned_by; /* NULL: it does not */
    int64_t pinned_us;     /* for so long */
    int server_pid;
    /* Buffers, for SHOW SOCKETS. */
    int recv_pos;
    int pkt_pos;
    int pkt_remain;
    int send_pos;
    int send_remain;
    int pkt_avail;
    int send_avail;
};

/* An open descriptor. */
struct admin_fd {
    int fd;
    const char *task; /* "pooler": listens; "client", "server" */
    const char *user; /* NULL: none, as the next */
    const char *database;
    const char *addr; /* "unix" for a unix socket */
    int port;
    int link;                    /* the other side's descriptor; 0: none */
    const char *client_encoding; /* NULL: not known, as the next */
    const char *std_strings;
    const char *datestyle;
    const char *timezone;
};

/* A connection that listens for clients in transaction mode. */
struct admin_listener {
    const char *database;
    const char *user;
    const char *encoding; /* NULL: the server's */
    const char *state;
    uint64_t server_id; /* 0: not connected */
    int server_pid;
    int64_t channels;
    int64_t clients;
    int64_t queued; /* bytes */
};

/* A client that waits for a server connection. */
struct admin_waiter {
    uint64_t id;
    const char *database;
    const char *user;
    const char *pool_user;
    const char *application_name; /* NULL: not known */
    const char *addr;
    int port;
    int64_t wait_us;
    int ahead;
    const char *reason;
    int limit; /* 0: none */
    int used;
    bool is_held; /* the next are of who has held a server of the pool longest */
    uint64_t holder_id;
    const char *holder_application_name;
    const char *holder_addr;
    int holder_port;
    const char *holder_state;
    int64_t held_us;
    int holder_pid; /* of the server process */
};

struct admin_memory {
    const char *name;
    int64_t size; /* of one */
    int64_t used;
    int64_t free;
    int64_t total; /* bytes */
};

struct admin_peer_pool {
    int peer_id;
    int cl_active_cancel_req;
    int cl_waiting_cancel_req;
    int sv_active_cancel;
    int sv_login;
};

struct admin_dns_host {
    const char *hostname;
    int64_t ttl_s;
    const char *addrs; /* comma list */
};

/* What no row says. */
struct admin_totals {
    bool active;
    bool paused;
    bool suspended;
    int free_clients;
    int used_clients;
    int login_clients;
    int free_servers;
    int used_servers;
    int dns_names;
    int dns_zones;
    int dns_queries;
    int dns_pending;
};

/* Takes rows while a SHOW runs; the core calls the function that fits what it was asked for. */
struct admin_sink;
void admin_put_database(struct admin_sink *sink, const struct admin_database *row);
void admin_put_pool(struct admin_sink *sink, const struct admin_pool *row);
void admin_put_socket(struct admin_sink *sink, const struct admin_socket *row);
void admin_put_fd(struct admin_sink *sink, const struct admin_fd *row);
void admin_put_waiter(struct admin_sink *sink, const struct admin_waiter *row);
void admin_put_listener(struct admin_sink *s, const struct admin_listener *row);
void admin_put_memory(struct admin_sink *sink, const struct admin_memory *row);
void admin_put_peer_pool(struct admin_sink *sink, const struct admin_peer_pool *row);
void admin_put_dns_host(struct admin_sink *sink, const struct admin_dns_host *row);
/* A user that neither auth_file nor [users] nor a user= names (learned by auth_query). */
void admin_put_user(struct admin_sink *sink, const char *name);

/* ---- what the console asks for ---- */

enum admin_verb {
    ADMIN_PAUSE, /* database.ptr NULL: all; so for the verbs down to WAIT_CLOSE */
    ADMIN_RESUME,
    ADMIN_RECONNECT,
    ADMIN_KILL,
    ADMIN_WAIT_CLOSE,
    ADMIN_DISABLE, /* a database is always given */
    ADMIN_ENABLE,
    ADMIN_SUSPEND,
    ADMIN_KILL_CLIENT, /* id */
    ADMIN_RELOAD,
    ADMIN_SHUTDOWN, /* at once */
    ADMIN_SHUTDOWN_WAIT_FOR_SERVERS,
    ADMIN_SHUTDOWN_WAIT_FOR_CLIENTS,
    ADMIN_SHUTDOWN_WAIT_FOR_TRANSACTIONS,
    ADMIN_TAKEOVER, /* of proxy/takeover.h */
    ADMIN_TAKEOVER_DONE,
    ADMIN_SET, /* key, value */
};

struct admin_command {
    enum admin_verb verb;
    struct str database;
    uint64_t id;
    struct str key;
    struct str value;
};

enum admin_result {
    ADMIN_DONE,
    ADMIN_WAITS,  /* admin_complete will be called for this session when it is over */
    ADMIN_FAILED, /* *e is filled */
    ADMIN_CLOSES, /* the connection is closed with no answer (SHUTDOWN) */
};

struct admin_session;

struct admin_view {
    void *core;
    const char *version; /* "0.1.0" */
    const struct config *(*config)(void *core);
    const struct userlist *(*userlist)(void *core);         /* NULL list: none */
    void (*databases)(void *core, struct admin_sink *sink); /* the console's own too */
    void (*pools)(void *core, struct admin_sink *sink);     /* the console's own too */
    void (*clients)(void *core, struct admin_sink *sink);
    void (*servers)(void *core, struct admin_sink *sink);
    void (*fds)(void *core, struct admin_sink *sink);           /* may be NULL */
    void (*waiters)(void *core, struct admin_sink *sink);       /* may be NULL */
    void (*listeners)(void *core, struct admin_sink *sink);     /* may be NULL */
    void (*learned_users)(void *core, struct admin_sink *sink); /* may be NULL */
    void (*count_user)(void *core, struct str user, int *server_connections,
                       int *client_connections);
    void (*memory)(void *core, struct admin_sink *sink);     /* may be NULL */
    void (*peer_pools)(void *core, struct admin_sink *sink); /* may be NULL */
    void (*dns_hosts)(void *core, struct admin_sink *sink);  /* may be NULL */
    struct admin_totals (*totals)(void *core);
    /* A database name that does not exist is the core's to refuse: ERR_REFUSAL, 08P01,
     * `no such database: X`. */
    enum admin_result (*perform)(void *core, struct admin_session *session,
                                 const struct admin_command *command, struct err *e);
};

/* ---- a session ---- */

/* Lives as long as its client. user is copied. */
struct admin_session *admin_session_new(const struct admin_view *view, enum admin_rights rights,
                                        struct str user);
void admin_session_free(struct admin_session *s);

/* The ParameterStatus messages of a console login; the core sends AuthenticationOk before, and
 * BackendKeyData and ReadyForQuery after them. */
void admin_put_login_parameters(const struct admin_view *view, struct bytequeue *out);

enum admin_next {
    ADMIN_READY,   /* give the next message */
    ADMIN_WAITING, /* a command runs: hold the client's messages until admin_complete */
    ADMIN_HANGUP,  /* flush out, then close the client */
};

/* One whole message of the client: its type and body (without type and length). Appends answers to
 * out. Any bytes are fine: what can't be understood is answered with an error. */
enum admin_next admin_on_message(struct admin_session *s, char type, struct str body,
                                 struct bytequeue *out);

/* A waiting command is over: NULL for success, else what went wrong. The core calls it once for
 * each ADMIN_WAITS unless the session was freed. */
void admin_complete(struct admin_session *s, const struct err *e, struct bytequeue *out);
bool admin_session_is_waiting(const struct admin_session *s);

#endif
