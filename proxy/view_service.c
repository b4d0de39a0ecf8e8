#include "proxy/view_service.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "dvm/dvm.h"

/* What the scheduler's thread is told; replaced as a whole by RELOAD. */
struct target_list {
    struct arena arena;
    struct dvm_target *targets;
    size_t n;
    const char *listing_conninfo; /* "*": the databases that this one lists; NULL: none */
    const char **listed_out;      /* names that have an entry of their own */
    size_t n_listed_out;
};

struct view_service {
    struct dvm *dvm;
    struct log *log;
    pthread_mutex_t lock;
    struct target_list *targets; /* under the lock */
    struct config *config;       /* under the lock, as the next; references of our own */
    struct userlist *userlist;
};

static void log_dvm(void *arg, enum dvm_log_level level, const char *line)
{
    struct view_service *v = arg;
    enum log_level to = LEVEL_DEBUG;

    switch (level) {
    case DVM_LOG_ERROR:
        to = LEVEL_ERROR;
        break;
    case DVM_LOG_WARNING:
        to = LEVEL_WARNING;
        break;
    case DVM_LOG_INFO:
        to = LEVEL_LOG;
        break;
    case DVM_LOG_DEBUG:
        break;
    }
    log_line(v->log, to, "%s", line);
}

static void put_word(struct text *t, const char *key, struct str value)
{
    text_printf(t, "%s%s='", t->len > 0 ? " " : "", key);
    for (size_t i = 0; i < value.len; i++) {
        if (value.ptr[i] == '\'' || value.ptr[i] == '\\')
            text_put_char(t, '\\');
        text_put_char(t, value.ptr[i]);
    }
    text_put_char(t, '\'');
}

/* For libpq, which takes a file that does not exist for none. */
#define NO_FILE "/dev/null/none"

/* server_tls_... in libpq's words. The ciphers, and server_tls_negotiation = direct, it does not
 * know (before 17); its SSLRequest is understood by every server. */
static void put_tls(struct text *t, const struct config *config)
{
    static const struct {
        unsigned bit;
        const char *name;
    } versions[] = {
        { CONFIG_TLS_1_0, "TLSv1" },
        { CONFIG_TLS_1_1, "TLSv1.1" },
        { CONFIG_TLS_1_2, "TLSv1.2" },
        { CONFIG_TLS_1_3, "TLSv1.3" },
    };
    enum sslmode mode = config->server_tls_sslmode;
    unsigned wanted = config_tls_protocols(config->server_tls_protocols);
    const char *lowest = NULL, *highest = NULL;

    for (size_t i = 0; i < sizeof(versions) / sizeof(versions[0]); i++) {
        if (!(wanted & versions[i].bit))
            continue;
        lowest = lowest == NULL ? versions[i].name : lowest;
        highest = versions[i].name;
    }
    /* allow asks for TLS first, as ours does. */
    put_word(t, "sslmode", str_from(sslmode_name(mode == SSLMODE_ALLOW ? SSLMODE_PREFER : mode)));
    if (mode == SSLMODE_DISABLE)
        return;
    put_word(t, "channel_binding",
             str_from(channel_binding_name(config->server_tls_channel_binding)));
    put_word(t, "ssl_min_protocol_version", str_from(lowest));
    put_word(t, "ssl_max_protocol_version", str_from(highest));
    /* What is not configured must not come from the home directory: libpq would verify in every
     * mode by the authorities that it finds there. */
    bool verifies = mode >= SSLMODE_VERIFY_CA && config->server_tls_ca_file[0] != '\0';
    bool has_cert = config->server_tls_cert_file[0] != '\0';
    bool has_key = config->server_tls_key_file[0] != '\0';
    put_word(t, "sslrootcert", str_from(verifies ? config->server_tls_ca_file : NO_FILE));
    put_word(t, "sslcert", str_from(has_cert ? config->server_tls_cert_file : NO_FILE));
    put_word(t, "sslkey", str_from(has_key ? config->server_tls_key_file : NO_FILE));
}

static const char *conninfo(struct arena *a, const struct config *config,
                            const struct userlist *userlist, const struct config_database *entry,
                            struct str dbname)
{
    struct text t;
    const char *user = config_dvm_user(config, entry);
    const char *password = config_dvm_password(config, entry);
    const char *host = config->unix_socket_dir[0] != '\0' ? config->unix_socket_dir : "/tmp";

    if (password[0] == '\0' && entry->user != NULL && entry->password != NULL &&
        strcmp(entry->user, user) == 0)
        password = entry->password;
    if (password[0] == '\0') {
        const struct userlist_entry *u = userlist_find(userlist, str_from(user));
        if (u != NULL && u->kind == SECRET_PLAIN)
            password = u->secret;
    }
    text_init(&t);
    put_word(&t, "host", str_from(entry->n_hosts > 0 ? entry->hosts[0] : host));
    text_printf(&t, " port=%d", entry->port > 0 ? entry->port : 5432);
    put_word(&t, "dbname", dbname);
    put_word(&t, "user", str_from(user));
    if (password[0] != '\0')
        put_word(&t, "password", str_from(password));
    text_put(&t, " application_name='pgtrickle' connect_timeout=10");
    put_tls(&t, config);
    const char *copy = arena_strdup(a, t.ptr);
    text_free(&t);
    return copy;
}

void view_service_target(struct view_service *v, const struct config *config,
                         const struct userlist *userlist, const struct config_database *entry,
                         const char *name, struct arena *a, struct dvm_target *out)
{
    (void)v;
    out->database = arena_strdup(a, name);
    out->conninfo = entry == NULL ? ""
                                  : conninfo(a, config, userlist, entry,
                                             config_server_dbname(entry, str_from(name)));
}

static struct target_list *target_list_new(struct view_service *v, const struct config *config,
                                           const struct userlist *userlist)
{
    struct target_list *l = mem_alloc(sizeof(*l));

    arena_init(&l->arena);
    l->targets = arena_new_array(&l->arena, struct dvm_target, config->n_databases + 1);
    l->listed_out = arena_new_array(&l->arena, const char *, config->n_databases + 1);
    for (size_t i = 0; i < config->n_databases; i++) {
        const struct config_database *d = &config->databases[i];
        struct str dbname = config_server_dbname(d, str_from(d->name));
        view_service_target(v, config, userlist, d, d->name, &l->arena, &l->targets[l->n++]);
        l->listed_out[l->n_listed_out++] = arena_strndup(&l->arena, dbname.ptr, dbname.len);
    }
    if (config->fallback_database != NULL)
        l->listing_conninfo =
            conninfo(&l->arena, config, userlist, config->fallback_database, STR("postgres"));
    return l;
}

static void target_list_free(struct target_list *l)
{
    if (l == NULL)
        return;
    arena_free(&l->arena);
    free(l);
}

static void targets(void *arg, void (*add)(void *add_arg, const struct dvm_target *t),
                    void *add_arg)
{
    struct view_service *v = arg;
    struct arena a;
    struct err e = { 0 };
    const char **names = NULL;
    int n_names = 0;

    arena_init(&a);
    pthread_mutex_lock(&v->lock);
    struct config *config = config_ref(v->config);
    struct userlist *userlist = userlist_ref(v->userlist);
    const char *listing = v->targets->listing_conninfo != NULL
                              ? arena_strdup(&a, v->targets->listing_conninfo)
                              : NULL;
    for (size_t i = 0; i < v->targets->n; i++)
        add(add_arg, &v->targets->targets[i]);
    pthread_mutex_unlock(&v->lock);

    if (listing != NULL && !dvm_list_databases(listing, &a, &names, &n_names, &e)) {
        log_line(v->log, LEVEL_DEBUG, "databases of \"*\" can't be listed: %s", e.message);
        err_clear(&e);
    }
    for (int i = 0; i < n_names; i++) {
        struct dvm_target t;
        if (config_find_database(config, str_from(names[i])) != NULL)
            continue;
        view_service_target(v, config, userlist, config->fallback_database, names[i], &a, &t);
        add(add_arg, &t);
    }
    config_unref(config);
    userlist_unref(userlist);
    arena_free(&a);
}

struct view_service *view_service_new(const struct config *config, const struct userlist *userlist,
                                      struct log *log)
{
    struct view_service *v = mem_alloc(sizeof(*v));
    struct dvm_config dc = {
        .max_workers = config->dvm_max_workers,
        .scheduler_interval_ms = config->dvm_scheduler_interval_ms,
        .log_arg = v,
        .log = log_dvm,
        .targets_arg = v,
        .targets = targets,
    };

    v->log = log;
    pthread_mutex_init(&v->lock, NULL);
    view_service_configure(v, config, userlist);
    v->dvm = dvm_new(&dc);
    return v;
}

void view_service_free(struct view_service *v)
{
    if (v == NULL)
        return;
    dvm_free(v->dvm);
    target_list_free(v->targets);
    config_unref(v->config);
    userlist_unref(v->userlist);
    pthread_mutex_destroy(&v->lock);
    free(v);
}

bool view_service_start(struct view_service *v, struct err *e)
{
    return dvm_scheduler_start(v->dvm, e);
}

void view_service_configure(struct view_service *v, const struct config *config,
                            const struct userlist *userlist)
{
    struct target_list *fresh = target_list_new(v, config, userlist);

    pthread_mutex_lock(&v->lock);
    struct target_list *old = v->targets;
    struct config *old_config = v->config;
    struct userlist *old_userlist = v->userlist;
    v->targets = fresh;
    v->config = config_ref((struct config *)config);
    v->userlist = userlist_ref((struct userlist *)userlist);
    pthread_mutex_unlock(&v->lock);
    target_list_free(old);
    config_unref(old_config);
    userlist_unref(old_userlist);
}

struct dvm *view_service_dvm(struct view_service *v)
{
    return v->dvm;
}
