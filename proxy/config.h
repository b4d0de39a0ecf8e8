/* The configuration: one immutable value per load.
 *
 * config_load reads a file (PgBouncer's format and names, see proxy/config_keys.h) into a struct
 * config. Nothing of it changes afterwards: RELOAD and SET make a new one, and whoever needs
 * strings or entries of an old one for longer holds a reference. Reference counts are atomic;
 * reading is free of locks.
 *
 * Strings of the parameters are never NULL ("" is unset). In entries (databases, users, peers) what
 * the file does not give is NULL, -1, or POOL_MODE_UNSET; the config_… functions at the end say
 * which of entry, user and parameter wins (facts A.6).
 */
#ifndef PGTRICKLE_PROXY_CONFIG_H
#define PGTRICKLE_PROXY_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/str.h"
#include "proxy/config_keys.h"

enum pool_mode {
    POOL_MODE_SESSION,
    POOL_MODE_TRANSACTION,
    POOL_MODE_STATEMENT,
    POOL_MODE_UNSET, /* in entries only */
};

/* How the process stops. The last two words of a console's SHUTDOWN, and what SIGTERM does. */
enum shutdown_mode {
    SHUTDOWN_NONE,
    SHUTDOWN_WAIT_FOR_CLIENTS,      /* until they hang up */
    SHUTDOWN_WAIT_FOR_SERVERS,      /* PAUSE, until all servers are released */
    SHUTDOWN_WAIT_FOR_TRANSACTIONS, /* each client is sent away when its transaction is over */
    SHUTDOWN_NOW,
};

enum auth_type {
    AUTH_TYPE_ANY,
    AUTH_TYPE_TRUST,
    AUTH_TYPE_PLAIN,
    AUTH_TYPE_MD5,
    AUTH_TYPE_SCRAM_SHA_256,
    AUTH_TYPE_CERT,
    AUTH_TYPE_HBA,
    AUTH_TYPE_LDAP,
    AUTH_TYPE_PAM,
};

enum sslmode {
    SSLMODE_DISABLE,
    SSLMODE_ALLOW,
    SSLMODE_PREFER,
    SSLMODE_REQUIRE,
    SSLMODE_VERIFY_CA,
    SSLMODE_VERIFY_FULL,
};

/* How TLS with a server begins. */
enum tls_negotiation {
    TLS_NEGOTIATION_POSTGRES, /* SSLRequest */
    TLS_NEGOTIATION_DIRECT,   /* at once: PostgreSQL 17 and later */
};

/* SCRAM-SHA-256-PLUS. */
enum channel_binding {
    CHANNEL_BINDING_DISABLE,
    CHANNEL_BINDING_PREFER,
    CHANNEL_BINDING_REQUIRE,
};

/* As libpq's. */
enum target_session_attrs {
    TARGET_SESSION_ANY,
    TARGET_SESSION_READ_WRITE,
    TARGET_SESSION_READ_ONLY,
    TARGET_SESSION_PRIMARY,
    TARGET_SESSION_STANDBY,
    TARGET_SESSION_PREFER_STANDBY,
    TARGET_SESSION_UNSET,
};

enum load_balance_hosts {
    LOAD_BALANCE_HOSTS_ROUND_ROBIN,
    LOAD_BALANCE_HOSTS_DISABLE,
    LOAD_BALANCE_HOSTS_UNSET,
};

/* What is done about state that can't follow a client from server to server. */
enum session_state {
    SESSION_STATE_PIN,
    SESSION_STATE_ERROR,
    SESSION_STATE_IGNORE,
    SESSION_STATE_UNSET, /* in entries only */
};

#define CONFIG_FIELD_STRING(name) const char *name;
#define CONFIG_FIELD_INT(name) int name;
#define CONFIG_FIELD_OCTAL(name) int name;
#define CONFIG_FIELD_BOOL(name) bool name;
#define CONFIG_FIELD_TIME(name) int64_t name##_us;
#define CONFIG_FIELD_POOL_MODE(name) enum pool_mode name;
#define CONFIG_FIELD_AUTH_TYPE(name) enum auth_type name;
#define CONFIG_FIELD_SSLMODE(name) enum sslmode name;
#define CONFIG_FIELD_SHUTDOWN_MODE(name) enum shutdown_mode name;
#define CONFIG_FIELD_TLS_PROTOCOLS(name) const char *name;
#define CONFIG_FIELD_TLS_NEGOTIATION(name) enum tls_negotiation name;
#define CONFIG_FIELD_CHANNEL_BINDING(name) enum channel_binding name;
#define CONFIG_FIELD_SYSLOG_FACILITY(name) const char *name;
#define CONFIG_FIELD_LOAD_BALANCE_HOSTS(name) enum load_balance_hosts name;
#define CONFIG_FIELD_TARGET_SESSION_ATTRS(name) enum target_session_attrs name;
#define CONFIG_FIELD_SESSION_STATE(name) enum session_state name;

#define CONFIG_FIELD(kind, name, fallback, when, help) CONFIG_FIELD_##kind(name)
#define CONFIG_ENTRY_FIELD(kind, name, help) CONFIG_FIELD_##kind(name)

struct config_database {
    const char *name; /* of the entry; "*" for the fallback */
    CONFIG_DATABASE_KEYS(CONFIG_ENTRY_FIELD)
    const char *const *hosts; /* host split at its commas; n_hosts 0: unix_socket_dir */
    size_t n_hosts;
};

struct config_user {
    const char *name;
    CONFIG_USER_KEYS(CONFIG_ENTRY_FIELD)
};

struct config_peer {
    int id;
    CONFIG_PEER_KEYS(CONFIG_ENTRY_FIELD)
};

struct config_private;
struct log;

struct config {
    const char *path; /* the file that was read */
    CONFIG_KEYS(CONFIG_FIELD)
    const struct config_database *databases; /* in the order of the file, without "*" */
    size_t n_databases;
    const struct config_database *fallback_database; /* "*", or NULL */
    const struct config_user *users;
    size_t n_users;
    const struct config_peer *peers; /* without an entry for the own peer_id */
    size_t n_peers;
    struct config_private *private;
};

/* Reads a file and what it includes. NULL and *e (ERR_CONFIG: "file:line: text") when a line can't
 * be understood, a value is bad, or a value asks for something that this build can't do. The caller
 * holds the one reference. */
struct config *config_load(const char *path, struct err *e);
/* The same from memory; `name` stands for the file. %include is refused. */
struct config *config_parse(struct str text, const char *name, struct err *e);

/* What RELOAD does: reads old->conffile; parameters that are read at start only keep their old
 * values. The old one is left as it is. */
struct config *config_reload(const struct config *old, struct err *e);

/* What SET does: a copy with one parameter changed. A parameter that is read at start only keeps
 * its value, which is no error. NULL and *e for an unknown key or a bad value. */
struct config *config_set(const struct config *old, struct str key, struct str value,
                          struct err *e);

/* References may be taken and dropped by any thread. Both take NULL. */
struct config *config_ref(struct config *c);
void config_unref(struct config *c);

/* SHOW CONFIG: the i-th parameter in alphabetical order. */
struct config_shown {
    const char *key;
    const char *value;
    const char *fallback;
    bool changeable;
};
size_t config_key_count(void);
void config_show(const struct config *c, size_t i, struct arena *a, struct config_shown *out);

/* What was set and has no effect in this version, as a list for a warning ("auth_user, pkt_buf");
 * "" when there is nothing. */
const char *config_without_effect(const struct config *c, struct arena *a);
/* Logs that list, if there is one. */
void config_warn(const struct config *c, struct log *log);

/* An entry by its name; "*" is not found by these. */
const struct config_database *config_find_database(const struct config *c, struct str name);
const struct config_user *config_find_user(const struct config *c, struct str name);
const struct config_peer *config_find_peer(const struct config *c, int id);

/* Where a client that asks for a name goes: its entry, else the fallback (*is_auto is then set),
 * else NULL. The console's "pgbouncer" has no entry. */
const struct config_database *config_route(const struct config *c, struct str name, bool *is_auto);
/* The database's name on the server, for an entry reached by a name. NUL-terminated only when
 * name is. */
struct str config_server_dbname(const struct config_database *db, struct str name);
/* Every setting that needs new server connections when it changes is the same (facts A.3). */
bool config_database_same_server(const struct config_database *a, const struct config_database *b);

/* `name` is one of the words of a comma-separated list; "*" is no wildcard here. */
bool config_list_has(const char *list, struct str name);
bool config_list_has_nocase(const char *list, struct str name);

const char *pool_mode_name(enum pool_mode mode);
const char *session_state_name(enum session_state value);
const char *auth_type_name(enum auth_type type);
const char *sslmode_name(enum sslmode mode);
const char *tls_negotiation_name(enum tls_negotiation value);
const char *channel_binding_name(enum channel_binding value);

/* The versions of a valid ..._tls_protocols, as bits. */
enum {
    CONFIG_TLS_1_0 = 1,
    CONFIG_TLS_1_1 = 2,
    CONFIG_TLS_1_2 = 4,
    CONFIG_TLS_1_3 = 8,
};
unsigned config_tls_protocols(const char *list);
/* All settings of TLS towards servers are the same. */
bool config_same_server_tls(const struct config *a, const struct config *b);
const char *load_balance_hosts_name(enum load_balance_hosts value);

/* Which setting wins. db is never NULL; pool_user is the user of the pool (the server side's user,
 * so a forced one), login_user the one who logged in: both may be NULL for "no entry in [users]".
 * Sizes and limits: 0 is no limit. Times: microseconds, 0 is off. */
enum pool_mode config_pool_mode(const struct config *c, const struct config_database *db,
                                const struct config_user *pool_user);
enum session_state config_session_state(const struct config *c, const struct config_database *db,
                                        const struct config_user *pool_user);
int config_pool_size(const struct config *c, const struct config_database *db,
                     const struct config_user *pool_user);
int config_reserve_pool_size(const struct config *c, const struct config_database *db,
                             const struct config_user *pool_user);
int config_min_pool_size(const struct config *c, const struct config_database *db);
int config_max_db_connections(const struct config *c, const struct config_database *db);
int config_max_db_client_connections(const struct config *c, const struct config_database *db);
int64_t config_server_lifetime_us(const struct config *c, const struct config_database *db);
int config_max_user_connections(const struct config *c, const struct config_user *pool_user);
int config_max_user_client_connections(const struct config *c,
                                       const struct config_user *login_user);
int64_t config_query_wait_timeout_us(const struct config *c, const struct config_database *db,
                                     const struct config_user *login_user);
int64_t config_query_timeout_us(const struct config *c, const struct config_user *login_user);
int64_t config_idle_transaction_timeout_us(const struct config *c,
                                           const struct config_user *login_user);
int64_t config_transaction_timeout_us(const struct config *c, const struct config_user *login_user);
int64_t config_client_idle_timeout_us(const struct config *c, const struct config_user *login_user);
const char *config_auth_user(const struct config *c, const struct config_database *db);
const char *config_auth_query(const struct config *c, const struct config_database *db);
const char *config_auth_dbname(const struct config *c, const struct config_database *db);
/* How the maintenance side logs in: dvm_user of the entry, of the parameters, user= of the entry,
 * "postgres". Password "" when none is configured. */
const char *config_dvm_user(const struct config *c, const struct config_database *db);
const char *config_dvm_password(const struct config *c, const struct config_database *db);

#endif
