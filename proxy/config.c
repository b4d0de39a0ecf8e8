#include "proxy/config.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/log.h"
#include "proxy/ini.h"

#define USER_NAME_MAX 127
#define DATABASE_NAME_MAX 63
#define PASSWORD_MAX 65530
#define TIME_MAX_S 1e9

struct config_private {
    struct arena arena; /* holds the struct config itself and everything in it */
    atomic_int references;
    /* Sorted by name, for look-ups. */
    const struct config_database **databases_by_name;
    const struct config_user **users_by_name;
};

/* ---- words ---- */

static const char *const pool_mode_words[] = { "session", "transaction", "statement", NULL };
static const char *const auth_type_words[] = { "any",  "trust", "plain", "md5", "scram-sha-256",
                                               "cert", "hba",   "ldap",  "pam", NULL };
static const char *const sslmode_words[] = { "disable",   "allow",       "prefer", "require",
                                             "verify-ca", "verify-full", NULL };
/* Of SHUTDOWN_NONE + 1 on. */
static const char *const shutdown_mode_words[] = { "wait_for_clients", "wait_for_servers",
                                                   "wait_for_transactions", "immediate", NULL };
static const char *const tls_negotiation_words[] = { "postgres", "direct", NULL };
static const char *const channel_binding_words[] = { "disable", "prefer", "require", NULL };
static const char *const load_balance_hosts_words[] = { "round-robin", "disable", NULL };
static const char *const target_session_attrs_words[] = { "any",     "read-write", "read-only",
                                                          "primary", "standby",    "prefer-standby",
                                                          NULL };
static const char *const session_state_words[] = { "pin", "error", "ignore", NULL };

const char *pool_mode_name(enum pool_mode mode)
{
    return mode < POOL_MODE_UNSET ? pool_mode_words[mode] : "unset";
}

const char *session_state_name(enum session_state value)
{
    return value < SESSION_STATE_UNSET ? session_state_words[value] : "unset";
}

const char *auth_type_name(enum auth_type type)
{
    return auth_type_words[type];
}

const char *sslmode_name(enum sslmode mode)
{
    return sslmode_words[mode];
}

const char *tls_negotiation_name(enum tls_negotiation value)
{
    return tls_negotiation_words[value];
}

const char *channel_binding_name(enum channel_binding value)
{
    return channel_binding_words[value];
}

const char *load_balance_hosts_name(enum load_balance_hosts value)
{
    return value < LOAD_BALANCE_HOSTS_UNSET ? load_balance_hosts_words[value] : "unset";
}

/* ---- the tables ---- */

enum key_kind {
    KEY_STRING,
    KEY_INT,
    KEY_OCTAL,
    KEY_BOOL,
    KEY_TIME,
    KEY_POOL_MODE,
    KEY_AUTH_TYPE,
    KEY_SSLMODE,
    KEY_SHUTDOWN_MODE,
    KEY_TLS_PROTOCOLS,
    KEY_TLS_NEGOTIATION,
    KEY_CHANNEL_BINDING,
    KEY_SYSLOG_FACILITY,
    KEY_LOAD_BALANCE_HOSTS,
    KEY_TARGET_SESSION_ATTRS,
    KEY_SESSION_STATE,
};

enum key_when {
    KEY_RELOAD,
    KEY_BOOT,
};

struct key {
    const char *name;
    enum key_kind kind;
    size_t offset; /* of the field in its struct */
    const char *fallback;
    enum key_when when;
};

#define FIELD_NAME_STRING(name) name
#define FIELD_NAME_INT(name) name
#define FIELD_NAME_OCTAL(name) name
#define FIELD_NAME_BOOL(name) name
#define FIELD_NAME_TIME(name) name##_us
#define FIELD_NAME_POOL_MODE(name) name
#define FIELD_NAME_AUTH_TYPE(name) name
#define FIELD_NAME_SSLMODE(name) name
#define FIELD_NAME_SHUTDOWN_MODE(name) name
#define FIELD_NAME_TLS_PROTOCOLS(name) name
#define FIELD_NAME_TLS_NEGOTIATION(name) name
#define FIELD_NAME_CHANNEL_BINDING(name) name
#define FIELD_NAME_SYSLOG_FACILITY(name) name
#define FIELD_NAME_LOAD_BALANCE_HOSTS(name) name
#define FIELD_NAME_TARGET_SESSION_ATTRS(name) name
#define FIELD_NAME_SESSION_STATE(name) name

#define PARAMETER_ROW(kind, name, fallback, when, help)                                            \
    { #name, KEY_##kind, offsetof(struct config, FIELD_NAME_##kind(name)), fallback, KEY_##when },
#define DATABASE_ROW(kind, name, help)                                                             \
    { #name, KEY_##kind, offsetof(struct config_database, FIELD_NAME_##kind(name)), NULL,          \
      KEY_RELOAD },
#define USER_ROW(kind, name, help)                                                                 \
    { #name, KEY_##kind, offsetof(struct config_user, FIELD_NAME_##kind(name)), NULL, KEY_RELOAD },
#define PEER_ROW(kind, name, help)                                                                 \
    { #name, KEY_##kind, offsetof(struct config_peer, FIELD_NAME_##kind(name)), NULL, KEY_RELOAD },

static const struct key parameter_keys[] = { CONFIG_KEYS(PARAMETER_ROW) };
static const struct key database_keys[] = { CONFIG_DATABASE_KEYS(DATABASE_ROW) };
static const struct key user_keys[] = { CONFIG_USER_KEYS(USER_ROW) };
static const struct key peer_keys[] = { CONFIG_PEER_KEYS(PEER_ROW) };

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const struct key *find_key(const struct key *keys, size_t n, struct str name)
{
    for (size_t i = 0; i < n; i++) {
        if (str_equal(str_from(keys[i].name), name))
            return &keys[i];
    }
    return NULL;
}

static const struct key *find_parameter(struct str name)
{
    if (str_equal(name, STR("service_name")))
        name = STR("job_name");
    return find_key(parameter_keys, COUNT(parameter_keys), name);
}

/* Parameters whose numbers have bounds other than 0 and INT_MAX. */
static const struct {
    const char *name;
    int min;
    int max;
} bounds[] = {
    { "dvm_max_workers", 1, 64 },
    { "worker_fill_percent", 0, 100 },
    { "worker_threads", 0, 64 },
    { "server_connect_parallel", 1, 1000 },
    { "dvm_scheduler_interval_ms", 10, 3600000 },
    { "listen_port", 0, 65535 },
    { "peer_id", 0, 16383 },
    { "pkt_buf", 128, 1 << 24 },
    { "port", 1, 65535 },
    { "sbuf_loopcnt", 0, 1 << 20 },
    { "scram_iterations", 1, INT_MAX },
    { "unix_socket_mode", 0, 07777 },
};

static void find_bounds(const char *name, int *min, int *max)
{
    *min = 0;
    *max = INT_MAX;
    for (size_t i = 0; i < COUNT(bounds); i++) {
        if (strcmp(bounds[i].name, name) == 0) {
            *min = bounds[i].min;
            *max = bounds[i].max;
        }
    }
}

/* ---- one value ---- */

static bool parse_int(const char *text, int base, long min, long max, long *out, const char **why)
{
    char *end;
    errno = 0;
    long n = strtol(text, &end, base);
    if (end == text || *end != '\0') {
        *why = "is no number";
        return false;
    }
    if (errno != 0 || n < min || n > max) {
        *why = "is out of range";
        return false;
    }
    *out = n;
    return true;
}

static bool parse_time(const char *text, int64_t *out_us, const char **why)
{
    char *end;
    double s = strtod(text, &end);
    if (end == text || *end != '\0' || !isfinite(s)) {
        *why = "is no number of seconds";
        return false;
    }
    if (s < 0 || s > TIME_MAX_S) {
        *why = "is out of range";
        return false;
    }
    *out_us = (int64_t)llround(s * 1e6);
    return true;
}

static bool parse_word(const char *text, const char *const *words, int *out, const char **why)
{
    for (int i = 0; words[i] != NULL; i++) {
        if (strcasecmp(words[i], text) == 0) {
            *out = i;
            return true;
        }
    }
    *why = "is not one of its values";
    return false;
}

static bool is_separator(char c)
{
    return c == ',' || c == ':' || c == ' ' || c == '\t';
}

/* The versions that the words leave, in their order: "!word" takes some away. False when one is
 * unknown or there is none. */
static bool parse_tls_protocols(const char *text, unsigned *versions)
{
    static const unsigned all = CONFIG_TLS_1_0 | CONFIG_TLS_1_1 | CONFIG_TLS_1_2 | CONFIG_TLS_1_3;
    static const unsigned secure = CONFIG_TLS_1_2 | CONFIG_TLS_1_3;
    static const struct {
        const char *word;
        unsigned versions;
    } words[] = {
        { "all", all },
        { "legacy", all },
        { "default", secure },
        { "secure", secure },
        { "tlsv1", all },
        { "tlsv1.0", CONFIG_TLS_1_0 },
        { "tlsv1.1", CONFIG_TLS_1_1 },
        { "tlsv1.2", CONFIG_TLS_1_2 },
        { "tlsv1.3", CONFIG_TLS_1_3 },
    };
    const char *at = text;
    size_t n_words = 0;

    *versions = 0;
    for (;;) {
        while (is_separator(*at))
            at++;
        bool takes_away = *at == '!';
        if (takes_away)
            at++;
        size_t len = 0;
        while (at[len] != '\0' && !is_separator(at[len]))
            len++;
        if (len == 0)
            break;
        size_t i = 0;
        while (i < COUNT(words) &&
               (strlen(words[i].word) != len || strncasecmp(words[i].word, at, len) != 0))
            i++;
        if (i == COUNT(words))
            return false;
        if (takes_away && n_words == 0)
            *versions = all;
        *versions = takes_away ? *versions & ~words[i].versions : *versions | words[i].versions;
        n_words++;
        at += len;
    }
    return n_words > 0;
}

unsigned config_tls_protocols(const char *list)
{
    unsigned versions;

    return parse_tls_protocols(list, &versions) ? versions : 0;
}

/* Puts a value into its field of *object. text lives as long as the object. */
static bool set_field(void *object, const struct key *k, const char *text, bool is_entry,
                      struct err *e)
{
    void *field = (char *)object + k->offset;
    const char *why = NULL;
    long n;
    unsigned versions;
    int word;
    int min, max;

    switch (k->kind) {
    case KEY_TLS_PROTOCOLS:
        if (!parse_tls_protocols(text, &versions)) {
            why = "is no list of TLS versions";
            break;
        }
        *(const char **)field = text;
        return true;
    case KEY_SYSLOG_FACILITY:
        if (!log_facility_is_known(text)) {
            why = "is no syslog facility";
            break;
        }
        *(const char **)field = text;
        return true;
    case KEY_STRING:
        *(const char **)field = text;
        return true;
    case KEY_INT:
        find_bounds(k->name, &min, &max);
        /* An entry may say -1 for "not given", as PgBouncer's own defaults. */
        if (is_entry && strcmp(text, "-1") == 0 && strcmp(k->name, "port") != 0)
            min = -1;
        if (!parse_int(text, 0, min, max, &n, &why))
            break;
        *(int *)field = (int)n;
        return true;
    case KEY_OCTAL:
        find_bounds(k->name, &min, &max);
        if (!parse_int(text, 8, min, max, &n, &why))
            break;
        *(int *)field = (int)n;
        return true;
    case KEY_BOOL:
        if (!parse_int(text, 0, 0, INT_MAX, &n, &why))
            break;
        *(bool *)field = n != 0;
        return true;
    case KEY_TIME:
        if (!parse_time(text, field, &why))
            break;
        return true;
    case KEY_POOL_MODE:
        if (!parse_word(text, pool_mode_words, &word, &why))
            break;
        *(enum pool_mode *)field = (enum pool_mode)word;
        return true;
    case KEY_AUTH_TYPE:
        if (!parse_word(text, auth_type_words, &word, &why))
            break;
        *(enum auth_type *)field = (enum auth_type)word;
        return true;
    case KEY_SSLMODE:
        if (!parse_word(text, sslmode_words, &word, &why))
            break;
        *(enum sslmode *)field = (enum sslmode)word;
        return true;
    case KEY_SHUTDOWN_MODE:
        if (!parse_word(text, shutdown_mode_words, &word, &why))
            break;
        *(enum shutdown_mode *)field = (enum shutdown_mode)(word + 1);
        return true;
    case KEY_TLS_NEGOTIATION:
        if (!parse_word(text, tls_negotiation_words, &word, &why))
            break;
        *(enum tls_negotiation *)field = (enum tls_negotiation)word;
        return true;
    case KEY_CHANNEL_BINDING:
        if (!parse_word(text, channel_binding_words, &word, &why))
            break;
        *(enum channel_binding *)field = (enum channel_binding)word;
        return true;
    case KEY_LOAD_BALANCE_HOSTS:
        if (!parse_word(text, load_balance_hosts_words, &word, &why))
            break;
        *(enum load_balance_hosts *)field = (enum load_balance_hosts)word;
        return true;
    case KEY_TARGET_SESSION_ATTRS:
        if (!parse_word(text, target_session_attrs_words, &word, &why))
            break;
        *(enum target_session_attrs *)field = (enum target_session_attrs)word;
        return true;
    case KEY_SESSION_STATE:
        if (!parse_word(text, session_state_words, &word, &why))
            break;
        *(enum session_state *)field = (enum session_state)word;
        return true;
    }
    return err_set(e, ERR_CONFIG, "F0000", "invalid value \"%s\" for \"%s\": it %s", text, k->name,
                   why);
}

/* "Not given", for the fields of an entry. */
static void unset_field(void *object, const struct key *k)
{
    void *field = (char *)object + k->offset;
    switch (k->kind) {
    case KEY_STRING:
    case KEY_TLS_PROTOCOLS:
    case KEY_SYSLOG_FACILITY:
        *(const char **)field = NULL;
        return;
    case KEY_INT:
    case KEY_OCTAL:
        *(int *)field = -1;
        return;
    case KEY_BOOL:
        *(bool *)field = false;
        return;
    case KEY_TIME:
        *(int64_t *)field = -1;
        return;
    case KEY_POOL_MODE:
        *(enum pool_mode *)field = POOL_MODE_UNSET;
        return;
    case KEY_AUTH_TYPE:
        *(enum auth_type *)field = AUTH_TYPE_MD5;
        return;
    case KEY_SSLMODE:
        *(enum sslmode *)field = SSLMODE_DISABLE;
        return;
    case KEY_SHUTDOWN_MODE:
        *(enum shutdown_mode *)field = SHUTDOWN_NONE;
        return;
    case KEY_TLS_NEGOTIATION:
        *(enum tls_negotiation *)field = TLS_NEGOTIATION_POSTGRES;
        return;
    case KEY_CHANNEL_BINDING:
        *(enum channel_binding *)field = CHANNEL_BINDING_DISABLE;
        return;
    case KEY_LOAD_BALANCE_HOSTS:
        *(enum load_balance_hosts *)field = LOAD_BALANCE_HOSTS_UNSET;
        return;
    case KEY_TARGET_SESSION_ATTRS:
        *(enum target_session_attrs *)field = TARGET_SESSION_UNSET;
        return;
    case KEY_SESSION_STATE:
        *(enum session_state *)field = SESSION_STATE_UNSET;
        return;
    }
}

static const char *show_field(const void *object, const struct key *k, struct arena *a)
{
    const void *field = (const char *)object + k->offset;
    switch (k->kind) {
    case KEY_STRING:
    case KEY_TLS_PROTOCOLS:
    case KEY_SYSLOG_FACILITY:
        return arena_strdup(a, *(const char *const *)field);
    case KEY_INT:
        return arena_printf(a, "%d", *(const int *)field);
    case KEY_OCTAL:
        return arena_printf(a, "%04o", (unsigned)*(const int *)field);
    case KEY_BOOL:
        return *(const bool *)field ? "1" : "0";
    case KEY_TIME:
        return arena_printf(a, "%.15g", (double)*(const int64_t *)field / 1e6);
    case KEY_POOL_MODE:
        return pool_mode_name(*(const enum pool_mode *)field);
    case KEY_AUTH_TYPE:
        return auth_type_name(*(const enum auth_type *)field);
    case KEY_SSLMODE:
        return sslmode_name(*(const enum sslmode *)field);
    case KEY_SHUTDOWN_MODE:
        return shutdown_mode_words[*(const enum shutdown_mode *)field - 1];
    case KEY_TLS_NEGOTIATION:
        return tls_negotiation_name(*(const enum tls_negotiation *)field);
    case KEY_CHANNEL_BINDING:
        return channel_binding_name(*(const enum channel_binding *)field);
    case KEY_LOAD_BALANCE_HOSTS:
        return load_balance_hosts_name(*(const enum load_balance_hosts *)field);
    case KEY_TARGET_SESSION_ATTRS: {
        enum target_session_attrs value = *(const enum target_session_attrs *)field;
        return value < TARGET_SESSION_UNSET ? target_session_attrs_words[value] : "unset";
    }
    case KEY_SESSION_STATE:
        return session_state_name(*(const enum session_state *)field);
    }
    return "";
}

static bool key_is_text(const struct key *k)
{
    return k->kind == KEY_STRING || k->kind == KEY_TLS_PROTOCOLS || k->kind == KEY_SYSLOG_FACILITY;
}

static size_t field_size(const struct key *k)
{
    switch (k->kind) {
    case KEY_STRING:
    case KEY_TLS_PROTOCOLS:
    case KEY_SYSLOG_FACILITY:
        return sizeof(const char *);
    case KEY_INT:
    case KEY_OCTAL:
        return sizeof(int);
    case KEY_BOOL:
        return sizeof(bool);
    case KEY_TIME:
        return sizeof(int64_t);
    case KEY_POOL_MODE:
        return sizeof(enum pool_mode);
    case KEY_AUTH_TYPE:
        return sizeof(enum auth_type);
    case KEY_SSLMODE:
        return sizeof(enum sslmode);
    case KEY_SHUTDOWN_MODE:
        return sizeof(enum shutdown_mode);
    case KEY_TLS_NEGOTIATION:
        return sizeof(enum tls_negotiation);
    case KEY_CHANNEL_BINDING:
        return sizeof(enum channel_binding);
    case KEY_LOAD_BALANCE_HOSTS:
        return sizeof(enum load_balance_hosts);
    case KEY_TARGET_SESSION_ATTRS:
        return sizeof(enum target_session_attrs);
    case KEY_SESSION_STATE:
        return sizeof(enum session_state);
    }
    return 0;
}

static void copy_fields(void *to, const void *from, const struct key *keys, size_t n,
                        struct arena *a)
{
    for (size_t i = 0; i < n; i++) {
        const char *source = (const char *)from + keys[i].offset;
        char *target = (char *)to + keys[i].offset;
        if (key_is_text(&keys[i])) {
            const char *text = *(const char *const *)(const void *)source;
            *(const char **)(void *)target = text != NULL ? arena_strdup(a, text) : NULL;
        } else {
            memcpy(target, source, field_size(&keys[i]));
        }
    }
}

/* ---- life ---- */

static struct config *config_new(const char *path)
{
    struct arena arena;
    arena_init(&arena);
    struct config *c = arena_new(&arena, struct config);
    c->private = arena_new(&arena, struct config_private);
    c->path = arena_strdup(&arena, path);
    atomic_init(&c->private->references, 1);
    c->private->arena = arena;
    return c;
}

struct config *config_ref(struct config *c)
{
    if (c != NULL)
        atomic_fetch_add_explicit(&c->private->references, 1, memory_order_relaxed);
    return c;
}

void config_unref(struct config *c)
{
    if (c == NULL ||
        atomic_fetch_sub_explicit(&c->private->references, 1, memory_order_acq_rel) != 1)
        return;
    struct arena arena = c->private->arena;
    arena_free(&arena);
}

static int compare_databases(const void *a, const void *b)
{
    return strcmp((*(const struct config_database *const *)a)->name,
                  (*(const struct config_database *const *)b)->name);
}

static int compare_users(const void *a, const void *b)
{
    return strcmp((*(const struct config_user *const *)a)->name,
                  (*(const struct config_user *const *)b)->name);
}

/* Fills what is derived from the entries. */
static void build_indexes(struct config *c)
{
    struct config_private *p = c->private;
    p->databases_by_name =
        arena_new_array(&p->arena, const struct config_database *, c->n_databases + 1);
    for (size_t i = 0; i < c->n_databases; i++)
        p->databases_by_name[i] = &c->databases[i];
    qsort(p->databases_by_name, c->n_databases, sizeof(p->databases_by_name[0]), compare_databases);
    p->users_by_name = arena_new_array(&p->arena, const struct config_user *, c->n_users + 1);
    for (size_t i = 0; i < c->n_users; i++)
        p->users_by_name[i] = &c->users[i];
    qsort(p->users_by_name, c->n_users, sizeof(p->users_by_name[0]), compare_users);
}

static void split_hosts(struct config_database *db, struct arena *a)
{
    db->hosts = NULL;
    db->n_hosts = 0;
    if (db->host == NULL)
        return;
    size_t most = 1;
    for (const char *at = db->host; *at != '\0'; at++)
        most += *at == ',';
    const char **hosts = arena_new_array(a, const char *, most);
    for (const char *at = db->host; at != NULL;) {
        const char *comma = strchr(at, ',');
        size_t len = comma != NULL ? (size_t)(comma - at) : strlen(at);
        struct str word = str_trim((struct str){ at, len });
        if (word.len > 0)
            hosts[db->n_hosts++] = arena_strndup(a, word.ptr, word.len);
        at = comma != NULL ? comma + 1 : NULL;
    }
    db->hosts = hosts;
}

static struct config_database *copy_databases(const struct config_database *from, size_t n,
                                              struct arena *a)
{
    struct config_database *to = arena_new_array(a, struct config_database, n + 1);
    for (size_t i = 0; i < n; i++) {
        to[i].name = arena_strdup(a, from[i].name);
        copy_fields(&to[i], &from[i], database_keys, COUNT(database_keys), a);
        split_hosts(&to[i], a);
    }
    return to;
}

static struct config *config_copy(const struct config *old)
{
    struct config *c = config_new(old->path);
    struct arena *a = &c->private->arena;
    copy_fields(c, old, parameter_keys, COUNT(parameter_keys), a);

    c->databases = copy_databases(old->databases, old->n_databases, a);
    c->n_databases = old->n_databases;
    if (old->fallback_database != NULL)
        c->fallback_database = copy_databases(old->fallback_database, 1, a);

    struct config_user *users = arena_new_array(a, struct config_user, old->n_users + 1);
    for (size_t i = 0; i < old->n_users; i++) {
        users[i].name = arena_strdup(a, old->users[i].name);
        copy_fields(&users[i], &old->users[i], user_keys, COUNT(user_keys), a);
    }
    c->users = users;
    c->n_users = old->n_users;

    struct config_peer *peers = arena_new_array(a, struct config_peer, old->n_peers + 1);
    for (size_t i = 0; i < old->n_peers; i++) {
        peers[i].id = old->peers[i].id;
        copy_fields(&peers[i], &old->peers[i], peer_keys, COUNT(peer_keys), a);
    }
    c->peers = peers;
    c->n_peers = old->n_peers;

    build_indexes(c);
    return c;
}

/* ---- reading a file ---- */

enum section {
    SECTION_NONE,
    SECTION_PARAMETERS,
    SECTION_DATABASES,
    SECTION_USERS,
    SECTION_PEERS,
};

struct loader {
    struct config *config;
    enum section section;
    struct config_database *databases; /* malloc, grows */
    size_t n_databases;
    size_t cap_databases;
    struct config_user *users;
    size_t n_users;
    size_t cap_users;
    struct config_peer *peers;
    size_t n_peers;
    size_t cap_peers;
};

/* Room for one more; the array doubles. */
static void *grow(void *array, size_t n, size_t *cap, size_t size)
{
    if (n < *cap)
        return array;
    *cap = *cap == 0 ? 16 : *cap * 2;
    return mem_realloc(array, *cap * size);
}

static bool on_section(void *arg, struct str name, struct err *e)
{
    struct loader *l = arg;
    if (str_equal(name, STR("pgtrickle")) || str_equal(name, STR("pgbouncer")))
        l->section = SECTION_PARAMETERS;
    else if (str_equal(name, STR("databases")))
        l->section = SECTION_DATABASES;
    else if (str_equal(name, STR("users")))
        l->section = SECTION_USERS;
    else if (str_equal(name, STR("peers")))
        l->section = SECTION_PEERS;
    else
        return err_set(e, ERR_CONFIG, "F0000", "unknown section [" STR_FMT "]", STR_ARG(name));
    return true;
}

/* The words of a connection string into an entry that starts with nothing given. */
static bool read_entry(struct loader *l, void *entry, const struct key *keys, size_t n,
                       struct str text, struct err *e)
{
    for (size_t i = 0; i < n; i++)
        unset_field(entry, &keys[i]);

    struct connstr words = { text };
    struct str name;
    const char *value;
    for (;;) {
        switch (connstr_next(&words, &l->config->private->arena, &name, &value, e)) {
        case CONNSTR_END:
            return true;
        case CONNSTR_BAD:
            return false;
        case CONNSTR_PAIR:
            break;
        }
        if (keys == database_keys && str_equal(name, STR("reserve_pool")))
            name = STR("reserve_pool_size");
        const struct key *k = find_key(keys, n, name);
        if (k == NULL)
            return err_set(e, ERR_CONFIG, "F0000",
                           "unrecognized connection parameter \"" STR_FMT "\"", STR_ARG(name));
        if (!set_field(entry, k, value, true, e))
            return false;
    }
}

static bool check_length(const char *what, const char *text, size_t max, struct err *e)
{
    if (text != NULL && strlen(text) > max)
        return err_set(e, ERR_CONFIG, "F0000", "%s is longer than %zu bytes", what, max);
    return true;
}

static bool read_database(struct loader *l, const char *name, struct str text, struct err *e)
{
    if (strcmp(name, "pgbouncer") == 0)
        return err_set(e, ERR_CONFIG, "F0000",
                       "database name \"pgbouncer\" is reserved for the console");
    struct config_database db = { .name = name };
    if (!check_length("the name of a database", name, DATABASE_NAME_MAX, e) ||
        !read_entry(l, &db, database_keys, COUNT(database_keys), text, e))
        return false;
    if (!check_length("dbname", db.dbname, DATABASE_NAME_MAX, e) ||
        !check_length("user", db.user, USER_NAME_MAX, e) ||
        !check_length("auth_user", db.auth_user, USER_NAME_MAX, e) ||
        !check_length("dvm_user", db.dvm_user, USER_NAME_MAX, e) ||
        !check_length("password", db.password, PASSWORD_MAX, e) ||
        !check_length("dvm_password", db.dvm_password, PASSWORD_MAX, e))
        return false;
    if (db.auth_dbname != NULL && strcmp(db.auth_dbname, "pgbouncer") == 0)
        return err_set(e, ERR_CONFIG, "F0000",
                       "cannot use the reserved \"pgbouncer\" database as an auth_dbname");
    if (db.port < 0)
        db.port = 5432;
    split_hosts(&db, &l->config->private->arena);
    if (db.host != NULL && db.n_hosts == 0)
        return err_set(e, ERR_CONFIG, "F0000", "host=\"%s\" names no host", db.host);

    if (strcmp(name, "*") == 0) {
        struct config_database *fallback =
            arena_new(&l->config->private->arena, struct config_database);
        *fallback = db;
        l->config->fallback_database = fallback;
        return true;
    }
    l->databases = grow(l->databases, l->n_databases, &l->cap_databases, sizeof(l->databases[0]));
    l->databases[l->n_databases++] = db;
    return true;
}

static bool read_user(struct loader *l, const char *name, struct str text, struct err *e)
{
    struct config_user user = { .name = name };
    if (!check_length("the name of a user", name, USER_NAME_MAX, e) ||
        !read_entry(l, &user, user_keys, COUNT(user_keys), text, e))
        return false;
    l->users = grow(l->users, l->n_users, &l->cap_users, sizeof(l->users[0]));
    l->users[l->n_users++] = user;
    return true;
}

static bool read_peer(struct loader *l, const char *name, struct str text, struct err *e)
{
    struct config_peer peer = { 0 };
    const char *why;
    long id;
    if (!parse_int(name, 10, 1, 16383, &id, &why))
        return err_set(e, ERR_CONFIG, "F0000", "invalid peer_id \"%s\": it %s", name, why);
    if (!read_entry(l, &peer, peer_keys, COUNT(peer_keys), text, e))
        return false;
    if (peer.host == NULL)
        return err_set(e, ERR_CONFIG, "F0000", "peer %s needs a host", name);
    if (peer.port < 0)
        peer.port = 6432;
    peer.id = (int)id;
    l->peers = grow(l->peers, l->n_peers, &l->cap_peers, sizeof(l->peers[0]));
    l->peers[l->n_peers++] = peer;
    return true;
}

static bool on_key(void *arg, struct str key, struct str value, struct err *e)
{
    struct loader *l = arg;
    struct arena *a = &l->config->private->arena;
    const char *name = arena_strndup(a, key.ptr, key.len);

    switch (l->section) {
    case SECTION_NONE:
        return err_set(e, ERR_CONFIG, "F0000", "\"%s\" stands before any section", name);
    case SECTION_DATABASES:
        return read_database(l, name, value, e);
    case SECTION_USERS:
        return read_user(l, name, value, e);
    case SECTION_PEERS:
        return read_peer(l, name, value, e);
    case SECTION_PARAMETERS:
        break;
    }
    const struct key *k = find_parameter(key);
    if (k == NULL)
        return err_set(e, ERR_CONFIG, "F0000", "unknown parameter \"%s\"", name);
    return set_field(l->config, k, arena_strndup(a, value.ptr, value.len), false, e);
}

/* The last entry of a name wins, in the place of the first. */
static void finish_entries(struct loader *l)
{
    struct config *c = l->config;
    struct arena *a = &c->private->arena;

    /* All entries first, so that look-ups by name find the duplicates without comparing all with
     * all; the sort is made stable by the addresses, which grow with the line. */
    const struct config_database **order =
        mem_alloc((l->n_databases + 1) * sizeof(struct config_database *));
    struct config_database *databases =
        arena_new_array(a, struct config_database, l->n_databases + 1);
    for (size_t i = 0; i < l->n_databases; i++)
        order[i] = &l->databases[i];
    qsort(order, l->n_databases, sizeof(order[0]), compare_databases);
    for (size_t i = 0; i < l->n_databases;) {
        size_t first = (size_t)(order[i] - l->databases);
        size_t last = first;
        size_t next = i;
        for (; next < l->n_databases && strcmp(order[next]->name, order[i]->name) == 0; next++) {
            size_t at = (size_t)(order[next] - l->databases);
            first = at < first ? at : first;
            last = at > last ? at : last;
        }
        struct config_database winner = l->databases[last];
        for (size_t j = i; j < next; j++)
            databases[order[j] - l->databases].name = NULL;
        databases[first] = winner;
        i = next;
    }
    free(order);
    for (size_t i = 0; i < l->n_databases; i++) {
        if (databases[i].name != NULL)
            databases[c->n_databases++] = databases[i];
    }
    c->databases = databases;

    const struct config_user **user_order =
        mem_alloc((l->n_users + 1) * sizeof(struct config_user *));
    struct config_user *users = arena_new_array(a, struct config_user, l->n_users + 1);
    for (size_t i = 0; i < l->n_users; i++)
        user_order[i] = &l->users[i];
    qsort(user_order, l->n_users, sizeof(user_order[0]), compare_users);
    for (size_t i = 0; i < l->n_users;) {
        size_t last = 0;
        size_t next = i;
        for (; next < l->n_users && strcmp(user_order[next]->name, user_order[i]->name) == 0;
             next++) {
            size_t at = (size_t)(user_order[next] - l->users);
            last = at > last ? at : last;
        }
        users[c->n_users++] = l->users[last];
        i = next;
    }
    free(user_order);
    c->users = users;

    struct config_peer *peers = arena_new_array(a, struct config_peer, l->n_peers + 1);
    for (size_t i = 0; i < l->n_peers; i++) {
        size_t at = 0;
        while (at < c->n_peers && peers[at].id != l->peers[i].id)
            at++;
        if (l->peers[i].id == c->peer_id)
            continue;
        peers[at] = l->peers[i];
        if (at == c->n_peers)
            c->n_peers++;
    }
    c->peers = peers;
    build_indexes(c);
}

static bool check_tls(const struct config *c, struct err *e)
{
    if (c->client_tls_sslmode != SSLMODE_DISABLE &&
        (c->client_tls_key_file[0] == '\0' || c->client_tls_cert_file[0] == '\0'))
        return err_set(e, ERR_CONFIG, "F0000",
                       "To allow TLS connections from clients, client_tls_key_file and "
                       "client_tls_cert_file must be set.");
    if (c->client_tls_sslmode >= SSLMODE_VERIFY_CA && c->client_tls_ca_file[0] == '\0')
        return err_set(e, ERR_CONFIG, "F0000", "client_tls_sslmode requires client_tls_ca_file");
    if (c->client_tls_channel_binding == CHANNEL_BINDING_REQUIRE &&
        c->client_tls_sslmode < SSLMODE_REQUIRE)
        return err_set(e, ERR_CONFIG, "F0000",
                       "client_tls_channel_binding = require needs client_tls_sslmode = require, "
                       "verify-ca or verify-full");
    /* Who can't ask can't be refused either: there is no falling back. */
    if (c->server_tls_negotiation == TLS_NEGOTIATION_DIRECT &&
        c->server_tls_sslmode < SSLMODE_REQUIRE)
        return err_set(e, ERR_CONFIG, "F0000",
                       "server_tls_negotiation = direct needs server_tls_sslmode = require, "
                       "verify-ca or verify-full");
    if (c->server_tls_channel_binding == CHANNEL_BINDING_REQUIRE &&
        c->server_tls_sslmode < SSLMODE_REQUIRE)
        return err_set(e, ERR_CONFIG, "F0000",
                       "server_tls_channel_binding = require needs server_tls_sslmode = require, "
                       "verify-ca or verify-full");
    return true;
}

/* What no single line can tell, and what this build can't do: better no start than a connection
 * that is less safe than what was asked for. */
static bool check_whole(const struct config *c, struct err *e)
{
    if (!check_tls(c, e))
        return false;
    if (c->auth_type == AUTH_TYPE_CERT &&
        (c->client_tls_sslmode < SSLMODE_VERIFY_CA || c->client_tls_ca_file[0] == '\0'))
        return err_set(e, ERR_CONFIG, "F0000",
                       "auth_type=cert requires client_tls_sslmode=verify-full and "
                       "client_tls_ca_file");
    if (strcmp(c->auth_dbname, "pgbouncer") == 0)
        return err_set(e, ERR_CONFIG, "F0000",
                       "cannot use the reserved \"pgbouncer\" database as an auth_dbname");
    return check_length("auth_user", c->auth_user, USER_NAME_MAX, e) &&
           check_length("dvm_user", c->dvm_user, USER_NAME_MAX, e) &&
           check_length("dvm_password", c->dvm_password, PASSWORD_MAX, e);
}

/* text NULL: from the file. */
static struct config *load(const char *path, const struct str *text, struct err *e)
{
    struct config *c = config_new(path);
    struct loader l = { .config = c };
    bool ok = true;
    for (size_t i = 0; i < COUNT(parameter_keys) && ok; i++)
        ok = set_field(c, &parameter_keys[i], parameter_keys[i].fallback, false, e);

    struct ini_handler handler = { on_section, on_key, &l };
    if (ok && text != NULL)
        ok = ini_read_text(*text, path, &handler, e);
    else if (ok)
        ok = ini_read_file(path, &handler, e);
    if (ok) {
        finish_entries(&l);
        if (c->conffile[0] == '\0')
            c->conffile = arena_strdup(&c->private->arena, path);
        ok = check_whole(c, e);
        if (!ok)
            err_prefix(e, "%s", path);
    }
    free(l.databases);
    free(l.users);
    free(l.peers);
    if (!ok) {
        config_unref(c);
        return NULL;
    }
    return c;
}

struct config *config_load(const char *path, struct err *e)
{
    return load(path, NULL, e);
}

struct config *config_parse(struct str text, const char *name, struct err *e)
{
    return load(name, &text, e);
}

struct config *config_reload(const struct config *old, struct err *e)
{
    struct config *c = config_load(old->conffile, e);
    if (c == NULL)
        return NULL;
    for (size_t i = 0; i < COUNT(parameter_keys); i++) {
        if (parameter_keys[i].when == KEY_BOOT)
            copy_fields(c, old, &parameter_keys[i], 1, &c->private->arena);
    }
    return c;
}

struct config *config_set(const struct config *old, struct str key, struct str value, struct err *e)
{
    const struct key *k = find_parameter(key);
    if (k == NULL) {
        err_set(e, ERR_CONFIG, "42704", "unknown parameter \"" STR_FMT "\"", STR_ARG(key));
        return NULL;
    }
    if (memchr(value.ptr, '\0', value.len) != NULL) {
        err_set(e, ERR_CONFIG, "22021", "a value can't hold a NUL byte");
        return NULL;
    }
    struct config *c = config_copy(old);
    struct arena *a = &c->private->arena;
    bool ok;
    if (k->when == KEY_BOOT) {
        struct config ignored = { 0 };
        ok = set_field(&ignored, k, arena_strndup(a, value.ptr, value.len), false, e);
    } else {
        ok = set_field(c, k, arena_strndup(a, value.ptr, value.len), false, e) && check_whole(c, e);
    }
    if (!ok) {
        /* No file is at fault. */
        if (strcmp(e->sqlstate, "F0000") == 0)
            memcpy(e->sqlstate, "22023", sizeof("22023"));
        config_unref(c);
        return NULL;
    }
    return c;
}

/* ---- looking ---- */

size_t config_key_count(void)
{
    return COUNT(parameter_keys);
}

/* Readers of the statistics see SHOW CONFIG, and so do their screenshots. */
static bool key_is_secret(const struct key *k)
{
    return strcmp(k->name, "dvm_password") == 0 || strcmp(k->name, "auth_ldap_options") == 0;
}

void config_show(const struct config *c, size_t i, struct arena *a, struct config_shown *out)
{
    const struct key *k = &parameter_keys[i];
    out->key = k->name;
    out->value = show_field(c, k, a);
    if (key_is_secret(k) && out->value[0] != '\0')
        out->value = "********";
    out->fallback = k->fallback;
    out->changeable = k->when == KEY_RELOAD;
}

const char *config_without_effect(const struct config *c, struct arena *a)
{
#define KEY_NAME(name) #name,
    static const char *const names[] = { CONFIG_KEYS_WITHOUT_EFFECT(KEY_NAME) };
    const char *list = "";
    for (size_t i = 0; i < COUNT(names); i++) {
        const struct key *k = find_parameter(str_from(names[i]));
        if (strcmp(show_field(c, k, a), k->fallback) != 0)
            list = arena_printf(a, "%s%s%s", list, list[0] != '\0' ? ", " : "", names[i]);
    }
    return list;
}

void config_warn(const struct config *c, struct log *log)
{
    struct arena arena;
    arena_init(&arena);
    const char *list = config_without_effect(c, &arena);
    if (list[0] != '\0')
        log_line(log, LEVEL_WARNING, "%s: accepted, without effect in this version: %s", c->path,
                 list);
    arena_free(&arena);
}

static int compare_name(struct str name, const char *entry)
{
    return str_compare(name, str_from(entry));
}

const struct config_database *config_find_database(const struct config *c, struct str name)
{
    size_t low = 0;
    size_t high = c->n_databases;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = compare_name(name, c->private->databases_by_name[middle]->name);
        if (order == 0)
            return c->private->databases_by_name[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

const struct config_user *config_find_user(const struct config *c, struct str name)
{
    size_t low = 0;
    size_t high = c->n_users;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = compare_name(name, c->private->users_by_name[middle]->name);
        if (order == 0)
            return c->private->users_by_name[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

const struct config_peer *config_find_peer(const struct config *c, int id)
{
    for (size_t i = 0; i < c->n_peers; i++) {
        if (c->peers[i].id == id)
            return &c->peers[i];
    }
    return NULL;
}

const struct config_database *config_route(const struct config *c, struct str name, bool *is_auto)
{
    const struct config_database *db = config_find_database(c, name);
    *is_auto = db == NULL && c->fallback_database != NULL;
    return *is_auto ? c->fallback_database : db;
}

struct str config_server_dbname(const struct config_database *db, struct str name)
{
    return db->dbname != NULL ? str_from(db->dbname) : name;
}

static bool same_text(const char *a, const char *b)
{
    return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

bool config_same_server_tls(const struct config *a, const struct config *b)
{
    struct arena arena;
    bool same = true;

    arena_init(&arena);
    for (size_t i = 0; i < COUNT(parameter_keys); i++) {
        const struct key *k = &parameter_keys[i];
        if (str_starts_with(str_from(k->name), STR("server_tls")))
            same = same && strcmp(show_field(a, k, &arena), show_field(b, k, &arena)) == 0;
    }
    arena_free(&arena);
    return same;
}

bool config_database_same_server(const struct config_database *a, const struct config_database *b)
{
    return same_text(a->dbname, b->dbname) && same_text(a->host, b->host) && a->port == b->port &&
           same_text(a->user, b->user) && same_text(a->connect_query, b->connect_query) &&
           same_text(a->auth_dbname, b->auth_dbname) && same_text(a->auth_query, b->auth_query) &&
           a->load_balance_hosts == b->load_balance_hosts &&
           a->target_session_attrs == b->target_session_attrs;
}

static bool list_has(const char *list, struct str name, bool (*equal)(struct str a, struct str b))
{
    for (const char *at = list; at != NULL;) {
        const char *comma = strchr(at, ',');
        size_t len = comma != NULL ? (size_t)(comma - at) : strlen(at);
        struct str word = str_trim((struct str){ at, len });
        if (word.len > 0 && equal(word, name))
            return true;
        at = comma != NULL ? comma + 1 : NULL;
    }
    return false;
}

bool config_list_has(const char *list, struct str name)
{
    return list_has(list, name, str_equal);
}

bool config_list_has_nocase(const char *list, struct str name)
{
    return list_has(list, name, str_equal_nocase);
}

/* ---- which setting wins ---- */

enum pool_mode config_pool_mode(const struct config *c, const struct config_database *db,
                                const struct config_user *pool_user)
{
    if (pool_user != NULL && pool_user->pool_mode != POOL_MODE_UNSET)
        return pool_user->pool_mode;
    return db->pool_mode != POOL_MODE_UNSET ? db->pool_mode : c->pool_mode;
}

enum session_state config_session_state(const struct config *c, const struct config_database *db,
                                        const struct config_user *pool_user)
{
    if (pool_user != NULL && pool_user->session_state != SESSION_STATE_UNSET)
        return pool_user->session_state;
    return db->session_state != SESSION_STATE_UNSET ? db->session_state : c->session_state;
}

int config_pool_size(const struct config *c, const struct config_database *db,
                     const struct config_user *pool_user)
{
    if (pool_user != NULL && pool_user->pool_size >= 0)
        return pool_user->pool_size;
    return db->pool_size >= 0 ? db->pool_size : c->default_pool_size;
}

int config_reserve_pool_size(const struct config *c, const struct config_database *db,
                             const struct config_user *pool_user)
{
    if (pool_user != NULL && pool_user->reserve_pool_size >= 0)
        return pool_user->reserve_pool_size;
    return db->reserve_pool_size >= 0 ? db->reserve_pool_size : c->reserve_pool_size;
}

int config_min_pool_size(const struct config *c, const struct config_database *db)
{
    return db->min_pool_size >= 0 ? db->min_pool_size : c->min_pool_size;
}

int config_max_db_connections(const struct config *c, const struct config_database *db)
{
    return db->max_db_connections > 0 ? db->max_db_connections : c->max_db_connections;
}

int config_max_db_client_connections(const struct config *c, const struct config_database *db)
{
    return db->max_db_client_connections > 0 ? db->max_db_client_connections
                                             : c->max_db_client_connections;
}

int64_t config_server_lifetime_us(const struct config *c, const struct config_database *db)
{
    return db->server_lifetime_us > 0 ? db->server_lifetime_us : c->server_lifetime_us;
}

int config_max_user_connections(const struct config *c, const struct config_user *pool_user)
{
    return pool_user != NULL && pool_user->max_user_connections > 0
               ? pool_user->max_user_connections
               : c->max_user_connections;
}

int config_max_user_client_connections(const struct config *c, const struct config_user *login_user)
{
    return login_user != NULL && login_user->max_user_client_connections > 0
               ? login_user->max_user_client_connections
               : c->max_user_client_connections;
}

/* The one setting where an explicit 0 counts: it turns the limit off at its level. */
int64_t config_query_wait_timeout_us(const struct config *c, const struct config_database *db,
                                     const struct config_user *login_user)
{
    if (login_user != NULL && login_user->query_wait_timeout_us >= 0)
        return login_user->query_wait_timeout_us;
    return db->query_wait_timeout_us >= 0 ? db->query_wait_timeout_us : c->query_wait_timeout_us;
}

int64_t config_query_timeout_us(const struct config *c, const struct config_user *login_user)
{
    return login_user != NULL && login_user->query_timeout_us > 0 ? login_user->query_timeout_us
                                                                  : c->query_timeout_us;
}

int64_t config_idle_transaction_timeout_us(const struct config *c,
                                           const struct config_user *login_user)
{
    return login_user != NULL && login_user->idle_transaction_timeout_us > 0
               ? login_user->idle_transaction_timeout_us
               : c->idle_transaction_timeout_us;
}

int64_t config_transaction_timeout_us(const struct config *c, const struct config_user *login_user)
{
    return login_user != NULL && login_user->transaction_timeout_us > 0
               ? login_user->transaction_timeout_us
               : c->transaction_timeout_us;
}

int64_t config_client_idle_timeout_us(const struct config *c, const struct config_user *login_user)
{
    return login_user != NULL && login_user->client_idle_timeout_us > 0
               ? login_user->client_idle_timeout_us
               : c->client_idle_timeout_us;
}

const char *config_auth_user(const struct config *c, const struct config_database *db)
{
    return db->auth_user != NULL ? db->auth_user : c->auth_user;
}

const char *config_auth_query(const struct config *c, const struct config_database *db)
{
    return db->auth_query != NULL ? db->auth_query : c->auth_query;
}

const char *config_auth_dbname(const struct config *c, const struct config_database *db)
{
    return db->auth_dbname != NULL ? db->auth_dbname : c->auth_dbname;
}

const char *config_dvm_user(const struct config *c, const struct config_database *db)
{
    if (db->dvm_user != NULL)
        return db->dvm_user;
    if (c->dvm_user[0] != '\0')
        return c->dvm_user;
    return db->user != NULL ? db->user : "postgres";
}

/* The password belongs to the user that won. */
const char *config_dvm_password(const struct config *c, const struct config_database *db)
{
    if (db->dvm_password != NULL)
        return db->dvm_password;
    if (db->dvm_user == NULL && c->dvm_user[0] != '\0')
        return c->dvm_password;
    if (db->dvm_user == NULL && db->user != NULL && db->password != NULL)
        return db->password;
    return c->dvm_password;
}
