#include "proxy/login_internal.h"

#include <stdlib.h>

#include <openssl/crypto.h>

#include "base/arena.h"
#include "protocol/auth.h"
#include "proxy/credentials.h"
#include "proxy/ident.h"
#include "proxy/login.h"
#include "proxy/login_jobs.h"
#include "proxy/pool_common.h"
#include "proxy/outside.h"
#include "proxy/verifiers.h"

/* PgBouncer's: the file in /etc/pam.d that is there already. */
#define PAM_SERVICE "pgbouncer"

static struct proxy *proxy_of(const struct client *c)
{
    return c->conn.worker->proxy;
}

static void random_bytes(struct client *c, void *to, size_t n)
{
    c->conn.worker->ops->random(c->conn.worker->io, to, n);
}

static bool is_console(const struct client *c)
{
    return strcmp(c->database_name, ADMIN_DATABASE) == 0;
}

static void forget(char *secret)
{
    if (secret != NULL)
        OPENSSL_cleanse(secret, strlen(secret));
    free(secret);
}

void login_abandon(struct login *l)
{
    auth_query_abandon(&l->lookup);
    login_job_abandon(l->job);
}

void login_free(struct login *l)
{
    if (l == NULL)
        return;
    login_abandon(l);
    scram_server_free(l->scram);
    forget(l->secret);
    forget(l->password);
    hba_unref(l->hba);
    free(l->startup_params);
    OPENSSL_cleanse(&l->keys, sizeof(l->keys));
    free(l);
}

static void refuse(struct client *c)
{
    struct login *l = c->login;

    if (proxy_of(c)->config->log_connections)
        client_log(c, LEVEL_LOG, "login failed: db=%s user=%s", c->database_name, c->user_name);
    client_fail(c, "08P01", "%s",
                l->proof == PROOF_SCRAM ? "SASL authentication failed"
                                        : "password authentication failed");
}

/* ---- asking for the proof --------------------------------------------------------------- */

static int scram_iterations(const struct proxy *p)
{
    int n = p->config->scram_iterations;

    return n > 0 && n <= SCRAM_ITERATIONS_MAX ? n : SCRAM_ITERATIONS_DEFAULT;
}

/* The client can bind its proof to the TLS connection. */
static bool offers_binding(const struct client *c)
{
    return c->conn.tls != NULL && c->conn.tls->end_point_len > 0 &&
           proxy_of(c)->config->client_tls_channel_binding != CHANNEL_BINDING_DISABLE;
}

static bool must_bind(const struct client *c)
{
    return proxy_of(c)->config->client_tls_channel_binding == CHANNEL_BINDING_REQUIRE &&
           !c->conn.peer.is_unix;
}

/* The exchange with who can't win it looks like any other: salt and iterations are those of a
 * secret that we would have made. */
static void ask_scram(struct client *c, bool usable)
{
    static const char *const unbound[] = { SCRAM_MECHANISM, NULL };
    static const char *const both[] = { SCRAM_MECHANISM_PLUS, SCRAM_MECHANISM, NULL };
    static const char *const bound[] = { SCRAM_MECHANISM_PLUS, NULL };
    struct proxy *p = proxy_of(c);
    struct login *l = c->login;

    if (must_bind(c) && !offers_binding(c)) {
        client_fail(c, "08P01", "channel binding is required, but not possible");
        return;
    }
    l->known = usable;
    if (!usable)
        scram_secret_mock(str_from(c->user_name), p->mock_key, scram_iterations(p),
                          &l->scram_secret);
    auth_encode_sasl(&c->conn.out, must_bind(c) ? bound : offers_binding(c) ? both : unbound);
    conn_flush(&c->conn);
    conn_wake(&c->conn);
}

/* Makes a verifier from a plain secret. */
struct derive_job {
    struct login_job base; /* first */
    struct verifiers *verifiers;
    struct str user;
    struct str secret;
    struct str salt;
    int iterations;
    bool ok;
    struct scram_secret verifier;
};

static struct derive_job *of_derive(struct login_job *j)
{
    return (struct derive_job *)(void *)j;
}

static bool derive_is_done(struct login_job *j)
{
    struct derive_job *d = of_derive(j);

    d->ok = verifiers_find(d->verifiers, d->user, d->secret, d->iterations, &d->verifier);
    return d->ok;
}

static void derive_run(struct login_job *j)
{
    struct derive_job *d = of_derive(j);

    d->ok = scram_secret_from_password(d->secret, d->salt, d->iterations, &d->verifier);
    if (d->ok)
        verifiers_put(d->verifiers, d->user, d->secret, d->iterations, &d->verifier);
}

static void derive_done(struct login_job *j, void *owner)
{
    struct client *c = owner;

    c->login->scram_secret = of_derive(j)->verifier;
    ask_scram(c, of_derive(j)->ok);
}

static void begin_scram(struct client *c)
{
    struct proxy *p = proxy_of(c);
    struct login *l = c->login;
    struct str user = str_from(c->user_name);
    struct str secret = l->known ? str_from(l->secret) : STR("");
    int iterations = scram_iterations(p);
    struct scram_secret salted;

    l->proof = PROOF_SCRAM;
    switch (secret_kind_of(secret)) {
    case SECRET_NONE:
    case SECRET_MD5:
        ask_scram(c, false);
        return;
    case SECRET_SCRAM:
        ask_scram(c, scram_secret_parse(secret, &l->scram_secret));
        return;
    case SECRET_PLAIN:
        break;
    }
    if (verifiers_find(p->verifiers, user, secret, iterations, &l->scram_secret)) {
        ask_scram(c, true);
        return;
    }
    /* The salt that an unknown user of this name would see. */
    scram_secret_mock(user, p->mock_key, iterations, &salted);
    struct derive_job *d =
        login_job_new(c->conn.worker, sizeof(*d), LOGIN_LANE_COMPUTE, c, &l->job);
    struct arena *a = &d->base.arena;
    d->verifiers = p->verifiers;
    d->user = arena_str(a, user);
    d->secret = arena_str(a, secret);
    d->salt = arena_str(a, (struct str){ (char *)salted.salt, salted.salt_len });
    d->iterations = iterations;
    d->base.is_done = derive_is_done;
    d->base.run = derive_run;
    d->base.done = derive_done;
    login_job_start(&d->base);
}

static void begin_md5(struct client *c)
{
    struct login *l = c->login;

    l->proof = PROOF_MD5;
    random_bytes(c, l->salt, sizeof(l->salt));
    auth_encode_md5(&c->conn.out, l->salt);
    conn_flush(&c->conn);
}

static void begin_cleartext(struct client *c)
{
    c->login->proof = PROOF_PASSWORD;
    auth_encode_cleartext(&c->conn.out);
    conn_flush(&c->conn);
}

/* ---- a question to somebody outside ------------------------------------------------------- */

struct ask_job {
    struct login_job base; /* first */
    const struct io_ops *ops;
    struct io *io;
    struct outside_question question;
};

static void ask_run(struct login_job *j)
{
    struct ask_job *a = (struct ask_job *)(void *)j;

    a->ops->ask(a->io, &a->question);
}

static void ask_done(struct login_job *j, void *owner);

static const char *copy(struct arena *a, const char *text)
{
    return text != NULL ? arena_strdup(a, text) : NULL;
}

/* All that it takes is copied: the question may outlive its client. */
static void ask(struct client *c, const struct outside_question *q)
{
    struct worker *w = c->conn.worker;
    struct ask_job *j = login_job_new(w, sizeof(*j), LOGIN_LANE_ASK, c, &c->login->job);
    struct arena *a = &j->base.arena;
    struct ldap_options *ldap = &j->question.ldap;

    j->ops = w->ops;
    j->io = w->io;
    j->question = *q;
    j->question.user = copy(a, q->user);
    j->question.password = copy(a, q->password);
    j->question.address = copy(a, q->address);
    j->question.service = copy(a, q->service);
    const char **texts[] = { &ldap->scheme,        &ldap->server,           &ldap->prefix,
                             &ldap->suffix,        &ldap->base_dn,          &ldap->bind_dn,
                             &ldap->bind_password, &ldap->search_attribute, &ldap->search_filter };
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        *texts[i] = copy(a, *texts[i]);
    j->base.run = ask_run;
    j->base.done = ask_done;
    login_job_start(&j->base);
}

static void on_system_user(struct client *c, const struct outside_question *q)
{
    struct login *l = c->login;
    const char *map = l->rule != NULL ? l->rule->map : NULL;

    if (!q->yes)
        client_log(c, LEVEL_WARNING, "%s", q->why);
    else if (ident_allows(proxy_of(c)->ident, map, q->name, c->user_name)) {
        client_on_authenticated(c);
        return;
    }
    client_fail(c, "08P01", "unix socket login rejected");
}

static void on_password_checked(struct client *c, const struct outside_question *q)
{
    struct login *l = c->login;

    if (!q->yes) {
        client_log(c, LEVEL_WARNING, "%s authentication failed: %s", hba_method_name(l->method),
                   q->why);
        refuse(c);
        return;
    }
    l->password = mem_strdup(q->password);
    client_on_authenticated(c);
}

static void ask_done(struct login_job *j, void *owner)
{
    struct ask_job *a = (struct ask_job *)(void *)j;

    if (a->question.kind == OUTSIDE_USER_NAME)
        on_system_user(owner, &a->question);
    else
        on_password_checked(owner, &a->question);
    if (a->question.password != NULL)
        OPENSSL_cleanse((char *)a->question.password, strlen(a->question.password));
    conn_wake(&((struct client *)owner)->conn);
}

static void begin_peer(struct client *c)
{
    struct outside_question q = { .kind = OUTSIDE_USER_NAME, .uid = c->conn.peer.unix_uid };

    if (!c->login->exists || !c->conn.peer.is_unix)
        client_fail(c, "08P01", "unix socket login rejected");
    else
        ask(c, &q);
}

/* The certificate was checked in the handshake (client_tls_sslmode = verify-ca or verify-full). */
static void begin_cert(struct client *c)
{
    struct login *l = c->login;
    const char *map = l->rule != NULL ? l->rule->map : NULL;
    const char *name = conn_certificate_name(&c->conn);

    if (conn_tls(&c->conn) == NULL)
        client_fail(c, "08P01", "TLS connection required");
    else if (name == NULL)
        client_fail(c, "08P01", "TLS client certificate required");
    else if (!l->exists || !ident_allows(proxy_of(c)->ident, map, name, c->user_name))
        client_fail(c, "08P01", "TLS certificate name mismatch");
    else
        client_on_authenticated(c);
}

/* The user is looked up. */
static void begin_method(struct client *c)
{
    struct login *l = c->login;

    switch (l->method) {
    case HBA_TRUST:
        if (l->exists)
            client_on_authenticated(c);
        else
            client_fail(c, "08P01", "\"trust\" authentication failed");
        return;
    case HBA_PASSWORD:
    case HBA_LDAP:
    case HBA_PAM:
        begin_cleartext(c);
        return;
    case HBA_MD5:
        if (l->known && secret_kind_of(str_from(l->secret)) == SECRET_SCRAM)
            begin_scram(c);
        else
            begin_md5(c);
        return;
    case HBA_SCRAM_SHA_256:
        begin_scram(c);
        return;
    case HBA_CERT:
        begin_cert(c);
        return;
    case HBA_PEER:
        begin_peer(c);
        return;
    case HBA_REJECT:
        client_fail(c, "08P01", "login rejected");
        return;
    }
}

/* ---- who it is -------------------------------------------------------------------------- */

static void set_secret(struct login *l, struct str secret)
{
    forget(l->secret);
    l->secret = mem_alloc(secret.len + 1);
    if (secret.len > 0)
        memcpy(l->secret, secret.ptr, secret.len);
    l->known = secret.len > 0;
}

static void no_such_user(struct client *c)
{
    client_log(c, LEVEL_LOG, "no such user: %s", c->user_name);
    c->login->exists = c->login->known = false;
}

void login_on_answer(void *owner, const struct auth_answer *answer)
{
    struct client *c = owner;
    struct login *l = c->login;

    if (!answer->found) {
        no_such_user(c);
    } else if (answer->name.len == 0 || answer->name.len > LOGIN_USER_NAME_MAX ||
               answer->secret.len > LOGIN_SECRET_MAX ||
               memchr(answer->name.ptr, '\0', answer->name.len) != NULL ||
               (answer->secret.len > 0 &&
                memchr(answer->secret.ptr, '\0', answer->secret.len) != NULL)) {
        client_log(c, LEVEL_ERROR, "auth_query returned a name or a secret that is too long");
        client_fail(c, "08P01", "bouncer config error");
        return;
    } else {
        /* The query may know the user by another name: that one logs in. */
        if (!str_equal(answer->name, str_from(c->user_name)))
            client_set_user_name(c, answer->name);
        l->exists = l->from_query = true;
        set_secret(l, answer->has_secret ? answer->secret : STR(""));
    }
    begin_method(c);
    conn_wake(&c->conn); /* what it said meanwhile */
}

void login_on_no_answer(void *owner, const struct err *e)
{
    client_fail(owner, e->sqlstate, "%s", e->message);
}

/* False: there is nothing to ask, or the client was refused. */
static bool begin_lookup(struct client *c, const struct config_database *entry, bool *refused)
{
    struct proxy *p = proxy_of(c);
    const struct config *conf = p->config;
    const char *auth_user = entry != NULL ? config_auth_user(conf, entry) : conf->auth_user;
    const char *query = entry != NULL ? config_auth_query(conf, entry) : conf->auth_query;
    const char *where = entry != NULL ? config_auth_dbname(conf, entry) : conf->auth_dbname;

    *refused = false;
    if (auth_user[0] == '\0' || (where[0] == '\0' && entry == NULL))
        return false;
    if (where[0] == '\0')
        where = c->database_name;
    struct database *db = NULL;
    *refused = true;
    if (strcmp(where, ADMIN_DATABASE) == 0) {
        client_log(c, LEVEL_ERROR, "cannot use the reserved \"%s\" database as an auth_dbname",
                   ADMIN_DATABASE);
        client_fail(c, "08P01", "bouncer config error");
    } else if ((db = proxy_database(p, str_from(where))) == NULL) {
        client_log(c, LEVEL_ERROR, "authentication database \"%s\" is not configured", where);
        client_fail(c, "08P01", "bouncer config error");
    } else if (db->disabled) {
        client_fail(c, "08P01", "authentication database \"%s\" is disabled", where);
    } else {
        *refused = false;
    }
    if (*refused)
        return false;
    c->login->lookup.owner = c;
    auth_query_start(c->conn.worker, &c->login->lookup, db, auth_user, query, c->user_name);
    return true;
}

static enum hba_method method_of(enum auth_type type)
{
    switch (type) {
    case AUTH_TYPE_ANY:
    case AUTH_TYPE_TRUST:
        return HBA_TRUST;
    case AUTH_TYPE_PLAIN:
        return HBA_PASSWORD;
    case AUTH_TYPE_MD5:
        return HBA_MD5;
    case AUTH_TYPE_SCRAM_SHA_256:
        return HBA_SCRAM_SHA_256;
    case AUTH_TYPE_CERT:
        return HBA_CERT;
    case AUTH_TYPE_LDAP:
        return HBA_LDAP;
    case AUTH_TYPE_PAM:
        return HBA_PAM;
    case AUTH_TYPE_HBA:
        break;
    }
    return HBA_REJECT;
}

/* The method, by auth_type or by the first rule that matches. False: refused. */
static bool choose_method(struct client *c)
{
    struct proxy *p = proxy_of(c);
    struct login *l = c->login;
    struct hba_peer peer = {
        .is_unix = c->conn.peer.is_unix,
        .is_tls = conn_tls(&c->conn) != NULL,
        .is_physical_replication = c->replication == REPLICATION_PHYSICAL,
        .address = c->conn.peer.host,
        .database = c->database_name,
        .user = c->user_name,
    };

    if (p->config->auth_type != AUTH_TYPE_HBA) {
        l->method = method_of(p->config->auth_type);
        return true;
    }
    hba_unref(l->hba);
    l->hba = hba_ref(p->hba);
    l->rule = hba_find(l->hba, &peer);
    if (l->rule == NULL) {
        client_fail(c, "08P01", "no authentication method is found");
        return false;
    }
    l->method = l->rule->method;
    if (l->method == HBA_REJECT) {
        client_fail(c, "08P01", "login rejected");
        return false;
    }
    return true;
}

/* The limits are looked at again when the client is in: until then it does not count. */
static bool check_limits(struct client *c, const struct config_database *entry)
{
    struct proxy *p = proxy_of(c);
    const struct config_user *user = config_find_user(p->config, str_from(c->user_name));
    const struct database *db = proxy_find_database(p, str_from(c->database_name));
    int max_db = entry != NULL ? config_max_db_client_connections(p->config, entry) : 0;
    int max_user = config_max_user_client_connections(p->config, user);

    if (max_db > 0 && db != NULL && db->n_clients >= max_db)
        client_fail(c, "08P01", "client connections exceeded (max_db_client_connections)");
    else if (max_user > 0 && entry != NULL &&
             proxy_count_user_clients(p, str_from(c->user_name)) >= max_user)
        client_fail(c, "08P01", "client connections exceeded (max_user_client_connections)");
    return c->state != CLIENT_CLOSED;
}

void login_begin(struct client *c)
{
    struct proxy *p = proxy_of(c);
    struct login *l = c->login;
    bool is_auto, refused;
    const struct config_database *entry =
        is_console(c) ? NULL : config_route(p->config, str_from(c->database_name), &is_auto);

    if (is_console(c) && strcmp(c->user_name, ADMIN_DATABASE) == 0 &&
        proxy_is_own_uid(&c->conn.peer)) {
        client_on_authenticated(c);
        return;
    }
    if (!check_limits(c, entry))
        return;
    c->state = CLIENT_AUTH;
    if (p->config->auth_type == AUTH_TYPE_ANY) {
        if (entry != NULL && entry->user == NULL) {
            client_log(c, LEVEL_ERROR, "auth_type=any requires forced user");
            client_fail(c, "08P01", "bouncer config error");
        } else {
            client_on_authenticated(c);
        }
        return;
    }
    if (!choose_method(c))
        return;
    if (l->method == HBA_PAM || l->method == HBA_LDAP) {
        /* With auth_type, as PgBouncer: two authorities over who exists are one too many. */
        if (l->rule == NULL && entry != NULL && config_auth_user(p->config, entry)[0] != '\0') {
            client_log(c, LEVEL_ERROR, "%s can't be used together with database authentication",
                       l->method == HBA_PAM ? "PAM" : "LDAP");
            client_fail(c, "08P01", "bouncer config error");
            return;
        }
        begin_method(c);
        return;
    }
    const struct userlist_entry *e = userlist_find(p->userlist, str_from(c->user_name));
    if (e != NULL) {
        l->exists = true;
        set_secret(l, str_from(e->secret));
    } else if (begin_lookup(c, entry, &refused) || refused) {
        return;
    } else {
        no_such_user(c);
    }
    begin_method(c);
}

/* ---- the proof -------------------------------------------------------------------------- */

/* A password in clear against a SCRAM secret: as slow as the secret's maker wanted it. */
struct check_job {
    struct login_job base; /* first */
    struct str password;
    struct scram_secret secret;
    bool ok;
    struct scram_keys keys;
};

static void check_run(struct login_job *j)
{
    struct check_job *k = (struct check_job *)(void *)j;

    k->ok = scram_password_keys(&k->secret, k->password, &k->keys);
    OPENSSL_cleanse((char *)k->password.ptr, k->password.len);
}

static void check_done(struct login_job *j, void *owner)
{
    struct check_job *k = (struct check_job *)(void *)j;
    struct client *c = owner;

    if (!k->ok) {
        refuse(c);
        return;
    }
    c->login->has_keys = true;
    c->login->keys = k->keys;
    client_on_authenticated(c);
    conn_wake(&c->conn);
}

static void check_scram_password(struct client *c, struct str secret, struct str password)
{
    struct login *l = c->login;
    struct scram_secret parsed;

    if (!scram_secret_parse(secret, &parsed) || parsed.iterations > SCRAM_ITERATIONS_MAX) {
        refuse(c);
        return;
    }
    struct check_job *k = login_job_new(c->conn.worker, sizeof(*k), LOGIN_LANE_COMPUTE, c, &l->job);
    k->secret = parsed;
    k->password = arena_str(&k->base.arena, password);
    k->base.run = check_run;
    k->base.done = check_done;
    login_job_start(&k->base);
}

static void on_cleartext(struct client *c, struct str password)
{
    struct login *l = c->login;
    struct auth_md5 digest;
    bool ok = false;

    /* An empty password is none: LDAP would take it for a bind of nobody. */
    if (password.len == 0) {
        refuse(c);
        return;
    }
    if (l->method == HBA_PAM || l->method == HBA_LDAP) {
        struct outside_question q = {
            .kind = l->method == HBA_PAM ? OUTSIDE_PAM : OUTSIDE_LDAP,
            .user = c->user_name,
            .password = password.ptr, /* NUL follows */
            .address = c->conn.peer.is_unix ? NULL : c->conn.peer.host,
            .service = l->rule != NULL && l->rule->pam_service != NULL ? l->rule->pam_service
                                                                       : PAM_SERVICE,
        };
        struct err e = { 0 };
        struct arena a;
        arena_init(&a);
        if (l->method == HBA_LDAP && l->rule != NULL)
            q.ldap = l->rule->ldap;
        if (l->method == HBA_LDAP && l->rule == NULL &&
            !ldap_options_parse(&q.ldap, &a, str_from(proxy_of(c)->config->auth_ldap_options),
                                &e)) {
            client_log(c, LEVEL_ERROR, "auth_ldap_options: %s", e.message);
            client_fail(c, "08P01", "bouncer config error");
            err_clear(&e);
        } else {
            ask(c, &q);
        }
        arena_free(&a);
        return;
    }
    struct str secret = l->known ? str_from(l->secret) : STR("");
    switch (secret_kind_of(secret)) {
    case SECRET_NONE:
        break;
    case SECRET_PLAIN:
        ok = auth_equal(secret, password);
        break;
    case SECRET_MD5:
        ok = auth_md5_secret(str_from(c->user_name), password, &digest) &&
             auth_equal(secret, str_from(digest.text));
        break;
    case SECRET_SCRAM:
        check_scram_password(c, secret, password);
        return;
    }
    if (ok)
        client_on_authenticated(c);
    else
        refuse(c);
}

static void on_md5(struct client *c, struct str answer)
{
    struct login *l = c->login;
    struct auth_md5 digest, expected;
    struct str secret = l->known ? str_from(l->secret) : STR("");
    bool ok = l->known;

    if (ok && !auth_is_md5_secret(secret)) {
        ok = auth_md5_secret(str_from(c->user_name), secret, &digest);
        secret = str_from(digest.text);
    }
    if (ok && auth_md5_answer(secret, l->salt, &expected) &&
        auth_equal(str_from(expected.text), answer))
        client_on_authenticated(c);
    else
        refuse(c);
}

/* False: it was not offered. */
static bool choose_binding(const struct client *c, struct str mechanism,
                           enum scram_binding *binding)
{
    bool offered = offers_binding(c);

    if (offered && str_equal(mechanism, STR(SCRAM_MECHANISM_PLUS)))
        *binding = SCRAM_BOUND;
    else if (!must_bind(c) && str_equal(mechanism, STR(SCRAM_MECHANISM)))
        *binding = offered ? SCRAM_COULD_BIND : SCRAM_UNBOUND;
    else
        return false;
    return true;
}

static void on_scram(struct client *c, struct str body)
{
    struct login *l = c->login;
    enum scram_binding binding;
    struct sasl_initial initial;
    struct str message = body;
    struct text out;

    if (l->scram == NULL) {
        uint8_t nonce[SCRAM_NONCE_RAW_LEN];
        if (!auth_decode_sasl_initial(body, &initial) || !initial.has_response ||
            !choose_binding(c, initial.mechanism, &binding)) {
            client_fail(c, "08P01", "SASL authentication failed");
            return;
        }
        random_bytes(c, nonce, sizeof(nonce));
        l->scram = scram_server_new(&l->scram_secret, nonce);
        if (binding != SCRAM_UNBOUND)
            scram_server_bind(
                l->scram, binding,
                (struct str){ (const char *)c->conn.tls->end_point, c->conn.tls->end_point_len });
        message = initial.response;
    }
    text_init(&out);
    switch (scram_server_step(l->scram, message, &out)) {
    case SCRAM_CONTINUE:
        auth_encode_sasl_continue(&c->conn.out, text_str(&out));
        conn_flush(&c->conn);
        break;
    case SCRAM_DONE:
        if (!l->known) {
            refuse(c);
            break;
        }
        auth_encode_sasl_final(&c->conn.out, text_str(&out));
        conn_flush(&c->conn);
        l->has_keys = scram_server_keys(l->scram, &l->keys);
        client_on_authenticated(c);
        break;
    case SCRAM_DENIED:
        refuse(c);
        break;
    case SCRAM_MALFORMED:
        client_fail(c, "08P01", "SASL authentication failed");
        break;
    }
    text_free(&out);
}

void login_on_password(struct client *c, struct str body)
{
    struct str password;

    if (c->login->proof == PROOF_SCRAM) {
        on_scram(c, body);
        return;
    }
    if (!auth_decode_password(body, &password)) {
        client_fail(c, "08P01", "bad password packet");
        return;
    }
    if (c->login->proof == PROOF_MD5)
        on_md5(c, password);
    else
        on_cleartext(c, password);
}

/* ---- what the pool gets of it ------------------------------------------------------------- */

void login_equip_pool(const struct client *c, struct pool *pool)
{
    const struct login *l = c->login;

    if (l == NULL)
        return;
    if (l->from_query)
        c->user->learned = true;
    if (pool->user_is_forced)
        return;
    pool->credentials.serial = atomic_fetch_add(&pool->common->logins, 1) + 1;
    credentials_set_secret(&pool->credentials, l->password != NULL ? l->password
                                               : l->from_query     ? l->secret
                                                                   : NULL);
    /* Of a verifier only: a plain secret makes keys for whatever salt a server has. */
    if (l->has_keys && l->secret != NULL && secret_kind_of(str_from(l->secret)) == SECRET_SCRAM)
        credentials_set_keys(&pool->credentials, l->secret, &l->keys);
}
