/* The core: everything the daemon knows while it runs, and nothing of sockets.
 *
 * struct proxy is the process: configuration, databases, users, limits. struct worker is one event
 * loop's share, on a thread of its own: its clients, its servers, its pools, their timers and what
 * has to be done before the loop waits again (worker_settle). The world behind it is a struct
 * io_ops (proxy/conn.h), so that tests drive clients and servers message by message with no
 * network and no thread.
 *
 * Who may touch what. A client, a server, a struct pool and what hangs off them belong to one
 * worker and are touched by its thread only. Worker 0 alone may do so with others' between
 * proxy_halt_workers and proxy_release_workers: all other workers then stand still between two
 * events. The configuration, the user list, flags of databases and of the process change only
 * then, so that everybody reads them without a lock. Names (databases, users, cancel keys) are
 * looked up and added under `lock`. All else that crosses threads is a letter (worker_post).
 */
#ifndef PGTRICKLE_PROXY_PROXY_H
#define PGTRICKLE_PROXY_PROXY_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/bytequeue.h"
#include "base/err.h"
#include "base/list.h"
#include "base/log.h"
#include "base/map.h"
#include "base/str.h"
#include "proxy/admin.h"
#include "proxy/balance.h"
#include "proxy/config.h"
#include "proxy/conn.h"
#include "proxy/hosts.h"
#include "proxy/params.h"
#include "proxy/prepared.h"
#include "proxy/shared_names.h"
#include "proxy/stats.h"
#include "proxy/timers.h"
#include "proxy/userlist.h"

#define PGTRICKLE_VERSION "0.1.0"

struct client;
struct server;
struct pool;
struct hba;
struct ident;
struct verifiers;
struct takeover;
struct takeover_restore;
struct view_service;
struct dns;
struct worker;

#define WORKERS_MAX 64

/* What one worker tells another. Embedded in what it is about, or allocated: deliver owns it. It
 * runs on the thread of w, between events. */
struct letter {
    struct letter *next; /* the queue's */
    void (*deliver)(struct worker *w, struct letter *l);
};

/* What is to go to another worker when the event is over (worker_settle), for the event may still
 * be at work with it. Embedded. */
struct leaver {
    struct list_node node; /* worker.leaving */
    void (*depart)(struct leaver *l);
};

/* One entry of [databases], or one name that "*" serves. Lives until RELOAD takes the entry away
 * and its last client is gone, or, for "*", until autodb_idle_timeout. */
struct database {
    struct map_node node; /* proxy.databases */
    struct list_node list_node;
    char *name;
    const struct config_database *entry; /* of proxy.config; NULL: the entry is gone */
    char *server_dbname;
    bool is_auto; /* came from "*" */
    bool paused;
    bool disabled;
    atomic_int n_clients; /* logged in or on their way */
    atomic_int n_servers;
    struct list pools;       /* struct pool.database_node, of all workers; under proxy.lock */
    struct list commons;     /* struct pool_common.database_node; under proxy.lock */
    struct stats past_stats; /* of pools that are gone; see proxy_database_stats */
    struct stats_window window;
    uint64_t idle_since_us; /* is_auto: since when nothing uses it; 0: in use */
    struct hosts hosts;     /* of entry->hosts; under proxy.lock */
    atomic_uint ddl;        /* goes up when DDL may have changed what statements give */
    atomic_bool only_3_0;   /* protocol that its servers speak, as far as is known */
    /* The SQL side of stream tables, as this process knows it. */
    atomic_bool views_installed;
    atomic_bool views_installing;
    atomic_uint_least64_t views_retry_us; /* after a failure */
};

/* A name that clients or servers log in with. */
struct user {
    struct map_node node; /* proxy.users */
    char *name;
    const struct config_user *entry; /* of proxy.config; NULL: none */
    atomic_int n_clients;
    atomic_int n_servers;
    atomic_bool learned; /* auth_query found it */
};

/* Where jobs of logins run (proxy/login_jobs.h). */
enum login_lane {
    LOGIN_LANE_COMPUTE, /* on a processor */
    LOGIN_LANE_ASK,     /* waits for others */
    LOGIN_LANES,
};

struct login_lane_state {
    int running;
    struct list waiting; /* struct login_job.node */
};

struct proxy {
    struct config *config;
    struct userlist *userlist; /* NULL: no auth_file */
    /* As `config` has it; NULL: sslmode = disable. Change as it does. */
    struct tls_context *client_tls;
    struct tls_context *server_tls;
    struct log *log;
    struct worker *workers[WORKERS_MAX]; /* [0]: the main thread's, with signals and console */
    int n_workers;
    struct params_names params_names;
    struct statement_table statements;
    pthread_mutex_t lock; /* for rare things: guards the next four */
    struct map databases;
    struct list database_list;
    struct map users;
    size_t users_kept;      /* of worker 0: how many were left when unused ones were forgotten */
    struct map cancel_keys; /* struct client.cancel_node */
    uint64_t cancel_secret; /* of cancel_key_hash */
    struct list peers;      /* struct peer.node, under lock */
    struct shared_names peer_hosts; /* struct conn.peer.host */
    atomic_int n_clients;
    atomic_uint_least64_t last_id; /* clients and servers, one counter */
    uint64_t stats_at_us;          /* the windows of statistics rolled; under lock */
    int halted;                    /* depth of proxy_halt_workers */
    bool paused;
    bool suspended;
    bool ending; /* the world was told to stop */
    bool quiet;  /* -q */
    int verbose; /* -v, how often */
    uint64_t userlist_complained_us;
    enum shutdown_mode shutdown;
    /* proxy/shutdown.h */
    bool draining; /* clients are sent away when their transaction is over */
    uint64_t suspended_at_us;
    struct timer suspend_timer; /* of worker 0, as the next */
    struct timer drain_timer;
    /* proxy/takeover.h */
    struct takeover *takeover; /* by another process; NULL: none */
    struct takeover_restore *restore;
    bool giving_away; /* no server is opened any more */
    struct admin_view admin_view;
    struct stats admin_stats;
    struct stats_window admin_window;
    int n_admin_clients;
    struct list admin_waits; /* struct admin_wait */
    atomic_bool watches;     /* one of those, or a shutdown, waits until something is gone */
    atomic_bool gone_posted; /* gone_letter is on its way to worker 0 */
    struct letter gone_letter;
    struct view_service *views; /* NULL: no stream tables (tests) */
    unsigned char mock_key[32]; /* makes the salts of users that do not exist */
    struct verifiers *verifiers;
    /* Swapped with the configuration. NULL: there is none. */
    struct hba *hba;
    struct ident *ident;
};

struct worker {
    struct proxy *proxy;
    int index; /* of proxy.workers */
    const struct io_ops *ops;
    struct io *io;
    pthread_mutex_t letters_lock;
    struct letter *letters_first; /* under letters_lock */
    struct letter *letters_last;
    uint64_t now_us;      /* monotonic, set by the world before each event */
    int64_t wall_base_us; /* wall clock = wall_base_us + now_us */
    struct timers timers;
    atomic_int load;     /* clients, and those on their way */
    struct list clients; /* struct client.worker_node */
    struct list servers; /* struct server.worker_node */
    struct list pools;   /* struct pool.worker_node */
    struct list leaving; /* struct leaver.node */
    struct list wakes;   /* conns whose input can go on */
    struct list sends;   /* conns with output to hand over */
    struct list dead;    /* closed conns, freed by worker_settle */
    struct list
        views_waiting; /* struct client_rare.install_node: for the SQL side of their database */
    struct dns *dns;
    struct list peer_requests; /* struct cancel_request.node: to peers */
    atomic_bool peers_kicked;  /* peers_kick is on its way */
    struct letter peers_kick;
    struct list auth_lookups; /* struct auth_lookup.node */
    struct login_lane_state login_lanes[LOGIN_LANES];
    struct balance balance;
    struct timer stats_timer;
    struct timer upkeep_timer; /* min_pool_size, idle "*" databases, a changed auth_file */
    struct bytequeue spare;    /* empty: the memory of an output that was sent, for the next one */
    struct str ahead; /* inside of on_bytes of a client: what came behind the message in hand */
    bool settling;
};

/* Takes over one reference of config and userlist. log and views are borrowed. ios: one for each
 * worker. */
struct proxy *proxy_new(struct config *config, struct userlist *userlist, struct log *log,
                        struct view_service *views, const struct io_ops *ops, struct io *const *ios,
                        int n_workers, uint64_t now_us, int64_t wall_us);
/* Closes all connections at once; lent ones are closed when their job is over. */
void proxy_close_all(struct proxy *p);
/* After proxy_close_all, with no job left. */
void proxy_free(struct proxy *p);

/* From any thread: l is delivered on the thread of `to`. */
void worker_post(struct worker *to, struct letter *l);
/* Delivers what was posted; for the world, after io_ops.wake. True when there was something. */
bool worker_run_letters(struct worker *w);

/* Of all workers, which are halted; `what` may close this one and others. */
void proxy_each_client(struct proxy *p, void (*what)(struct client *c, void *arg), void *arg);
void proxy_each_server(struct proxy *p, void (*what)(struct server *s, void *arg), void *arg);

/* Worker 0 only: all others stand still, between two events and with no letter on its way, until
 * the release. Nests. */
void proxy_halt_workers(struct proxy *p);
void proxy_release_workers(struct proxy *p);

/* To be called after every event: lets woken connections go on, hands over output, frees what is
 * closed. */
void worker_settle(struct worker *w);
/* When worker_run_timers must be called; UINT64_MAX: not needed. */
uint64_t worker_next_timer(const struct worker *w);
void worker_run_timers(struct worker *w);
static inline int64_t worker_wall_us(const struct worker *w, uint64_t at_us)
{
    return w->wall_base_us + (int64_t)at_us;
}

/* Of all workers. */
int proxy_count_clients(const struct proxy *p);
int proxy_count_servers(const struct proxy *p);

/* Commands, from signals and the console. */
void proxy_reload(struct proxy *p, struct err *e); /* *e is set when something failed */
void proxy_apply_config(struct proxy *p, struct config *config); /* takes over the reference */
bool proxy_set_logging(struct proxy *p, struct err *e);
/* The same before there is a proxy. */
bool proxy_configure_log(struct log *log, const struct config *config, bool quiet, int verbose,
                         struct err *e);
/* Reads certificates and keys: to be called once after proxy_new. False: they can't be used. */
bool proxy_load_tls(struct proxy *p, struct err *e);
void proxy_pause(struct proxy *p, struct database *db); /* db NULL: all; so for the next */
void proxy_resume(struct proxy *p, struct database *db);
void proxy_reconnect(struct proxy *p, struct database *db);
void proxy_kill(struct proxy *p, struct database *db);
bool proxy_is_pausing_done(const struct proxy *p, const struct database *db);
bool proxy_is_close_done(const struct proxy *p, const struct database *db);

/* A server or a client went away, on any worker: worker 0 will look what waits for that (a
 * shutdown, a console command). */
void proxy_on_gone(struct proxy *p);
/* Whether going away is of interest at all; after a change of what is waited for. */
void proxy_update_watches(struct proxy *p);

/* The console's command wait is dropped with its session. */
/* Ctrl-C on a waiting command: what it started is undone (RESUME). */
void proxy_cancel_admin_wait(struct proxy *p, const struct admin_session *s);
void proxy_drop_admin_wait(struct proxy *p, const struct admin_session *s);

/* The runtime entry for a name, made when the configuration has it. NULL: no such database. */
struct database *proxy_database(struct proxy *p, struct str name);
struct database *proxy_find_database(struct proxy *p, struct str name);
struct user *proxy_user(struct proxy *p, struct str name);
/* Logged in as `name`, which need not be known. */
int proxy_count_user_clients(struct proxy *p, struct str name);
void proxy_refresh_userlist(struct proxy *p);
bool proxy_is_paused(const struct proxy *p, const struct database *db);
/* The counters of all pools of the database, there and gone. Workers are halted. */
struct stats proxy_database_stats(const struct database *db);
static inline uint64_t proxy_next_id(struct proxy *p)
{
    return atomic_fetch_add(&p->last_id, 1) + 1;
}

/* Log lines of a connection: "C-0x...: db/user@addr:port text". */
void proxy_log_conn(struct proxy *p, enum log_level level, char kind, const void *self,
                    const char *db, const char *user, const struct address *peer, const char *fmt,
                    ...) __attribute__((format(printf, 8, 9)));
/* A peer on the unix socket with our own uid. */
bool proxy_is_own_uid(const struct address *peer);
void address_print(const struct address *a, char *out, size_t size);

#endif
