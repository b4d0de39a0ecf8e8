#include "tests/proxy/world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/arena.h"
#include "protocol/auth.h"
#include "protocol/notice.h"
#include "protocol/query_simple.h"
#include "protocol/result.h"
#include "protocol/startup.h"
#include "protocol/status.h"
#include "proxy/outside.h"

static struct world *of_io(struct io *io)
{
    return (struct world *)(void *)io;
}

static struct peer *peer_new(struct world *w, struct conn *c)
{
    struct peer *p = mem_alloc(sizeof(*p));
    struct peer **at = &w->peers;

    while (*at != NULL)
        at = &(*at)->next;
    *at = p;
    p->conn = c;
    p->window = SIZE_MAX;
    if (c != NULL)
        c->socket = p;
    return p;
}

static void op_connect(struct io *io, struct conn *c, const struct address *to)
{
    peer_new(of_io(io), c)->to = *to;
}

static size_t op_send(struct io *io, struct conn *c, const void *bytes, size_t n)
{
    struct peer *p = c->socket;

    (void)io;
    if (n > p->window)
        n = p->window;
    p->window -= n;
    bytequeue_put(&p->got, bytes, n);
    return n;
}

static void op_read(struct io *io, struct conn *c, bool on)
{
    (void)io;
    ((struct peer *)c->socket)->reading = on;
}

static struct address op_local(struct io *io, const struct conn *c)
{
    (void)io;
    (void)c;
    return (struct address){ .host = "10.9.9.1", .port = 6432 };
}

static void op_close(struct io *io, struct conn *c)
{
    (void)io;
    ((struct peer *)c->socket)->conn = NULL;
    c->socket = NULL;
}

static void op_random(struct io *io, void *bytes, size_t n)
{
    /* Repeatable, and no two cancel keys are the same. */
    for (size_t i = 0; i < n; i++)
        ((uint8_t *)bytes)[i] = (uint8_t)((++of_io(io)->random * 0x9e3779b97f4a7c15u) >> 56);
}

static void op_stop(struct io *io)
{
    of_io(io)->stopped = true;
}

static void op_listen_stop(struct io *io, bool tcp, bool unix_socket)
{
    (void)io;
    (void)tcp;
    (void)unix_socket;
}

/* A descriptor is a number that the peer has in all worlds. */
static struct peer *descriptors[1024];

static int op_surrender(struct io *io, struct conn *c)
{
    struct peer *p = c->socket;
    int fd = 0;

    (void)io;
    while (descriptors[fd] != NULL && descriptors[fd] != p)
        fd++;
    descriptors[fd] = p;
    p->conn = NULL;
    p->reading = false;
    c->socket = NULL;
    return fd;
}

int world_descriptor(struct world *w)
{
    int fd = 0;

    while (descriptors[fd] != NULL)
        fd++;
    descriptors[fd] = peer_new(w, NULL);
    return fd;
}

static void op_adopt(struct io *io, struct conn *c, int fd)
{
    (void)io;
    assert_non_null(descriptors[fd]);
    c->socket = descriptors[fd];
    descriptors[fd]->conn = c;
}

static void op_enclose(struct io *io, struct conn *c, int fd)
{
    struct world *w = of_io(io);

    (void)c;
    w->enclosed[w->n_enclosed++] = fd;
}

static void op_close_descriptor(struct io *io, int fd)
{
    (void)io;
    assert_non_null(descriptors[fd]); /* another process may have a copy */
}

static int op_listener(struct io *io, int i)
{
    (void)io;
    (void)i;
    return -1;
}

static void op_listen_leave(struct io *io)
{
    of_io(io)->accepts = false;
}

static void op_listen_pause(struct io *io, bool paused)
{
    of_io(io)->accepts = !paused;
}

static void op_configured(struct io *io)
{
    (void)io;
}

static void op_notify(struct io *io, const char *text)
{
    text_put(&of_io(io)->notified, text);
    text_put_char(&of_io(io)->notified, '\n');
}

/* Nothing is encrypted here: a context is an address. */
struct tls_context {
    char is_one;
};

static bool op_tls_load(const struct config *c, struct tls_context **clients,
                        struct tls_context **servers, struct err *e)
{
    static struct tls_context of_clients, of_servers;

    if (strcmp(c->client_tls_cert_file, "/no/such") == 0)
        return err_set(e, ERR_CONFIG, "F0000", "TLS setup failed: no such file");
    *clients = c->client_tls_sslmode != SSLMODE_DISABLE ? &of_clients : NULL;
    *servers = c->server_tls_sslmode != SSLMODE_DISABLE ? &of_servers : NULL;
    return true;
}

static void op_tls_unref(struct tls_context *t)
{
    (void)t;
}

static void op_tls_start(struct io *io, struct conn *c, const struct tls_start *how)
{
    struct peer *p = c->socket;

    (void)io;
    assert_false(p->securing);
    assert_non_null(how->context);
    p->securing = true;
    p->tls = *how;
    p->tls.host = NULL;
    p->tls.first = (struct str){ "", 0 };
    snprintf(p->tls_host, sizeof(p->tls_host), "%s", how->host != NULL ? how->host : "");
    bytequeue_put(&p->tls_first, how->first.ptr, how->first.len);
}

/* Helper threads: jobs run when the event is over, one after the other. */
static void op_job_start(struct io *io, struct job *j)
{
    struct world *w = of_io(io);
    struct job **at = &w->jobs;

    while (*at != NULL)
        at = &(*at)->next;
    j->next = NULL;
    *at = j;
}

static void op_ask(struct io *io, struct outside_question *q)
{
    struct world *w = of_io(io);

    assert_non_null(w->outside);
    w->outside(q);
}

bool world_run_jobs(struct world *w)
{
    struct job *j = w->jobs;

    if (j == NULL)
        return false;
    struct worker *worker = j->worker; /* done() frees the job */
    w->jobs = j->next;
    j->work(j);
    j->done(j);
    worker_settle(worker);
    return true;
}

/* There are no threads that could be halted. */
static void op_nothing(struct io *io)
{
    (void)io;
}

static void op_detach(struct io *io, struct conn *c)
{
    (void)io;
    ((struct peer *)c->socket)->away = true;
}

static void op_attach(struct io *io, struct conn *c)
{
    (void)io;
    ((struct peer *)c->socket)->away = false;
}

static void op_resolve(struct io *io, struct lookup *l)
{
    struct world *w = of_io(io);

    assert_true(w->n_lookups < (int)(sizeof(w->lookups) / sizeof(w->lookups[0])));
    w->lookups[w->n_lookups++] = l;
}

static uint64_t op_cpu_us(const struct worker *w)
{
    return of_io(w->io)->cpu_us[w->index];
}

static const struct io_ops ops = {
    .resolve = op_resolve,
    .connect = op_connect,
    .send = op_send,
    .read = op_read,
    .local = op_local,
    .close = op_close,
    .random = op_random,
    .stop = op_stop,
    .surrender = op_surrender,
    .adopt = op_adopt,
    .enclose = op_enclose,
    .close_descriptor = op_close_descriptor,
    .listener = op_listener,
    .listen_leave = op_listen_leave,
    .listen_stop = op_listen_stop,
    .listen_pause = op_listen_pause,
    .configured = op_configured,
    .notify = op_notify,
    .wake = op_nothing,
    .detach = op_detach,
    .attach = op_attach,
    .halt = op_nothing,
    .release = op_nothing,
    .tls_load = op_tls_load,
    .tls_unref = op_tls_unref,
    .tls_start = op_tls_start,
    .cpu_us = op_cpu_us,
    .job_start = op_job_start,
    .ask = op_ask,
};

struct world *world_new(const char *ini, const char *users)
{
    struct world *w = mem_alloc(sizeof(*w));
    char path[] = "/tmp/pgtrickle_world_XXXXXX";
    struct err e = { 0 };
    struct userlist *list = NULL;
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    dprintf(fd,
            "%s[pgbouncer]\nlisten_addr = 127.0.0.1\nserver_tls_sslmode = disable\n"
            "worker_fill_percent = 0\n%s\n",
            strstr(ini, "[databases]") != NULL ? "" : "[databases]\ndb = host=10.0.0.1 port=5432\n",
            ini);
    close(fd);
    struct config *config = config_load(path, &e);
    unlink(path);
    if (config == NULL)
        fail_msg("%s", e.message);
    if (users != NULL) {
        list = userlist_parse(str_from(users), "users", &e);
        assert_non_null(list);
    }
    w->now_us = 1000000;
    w->accepts = true;
    for (int i = 0; i < WORKERS_MAX; i++)
        w->letters_at_us[i] = UINT64_MAX;
    text_init(&w->notified);
    struct io *ios[WORKERS_MAX];
    int n = config->worker_threads > 0 ? config->worker_threads : 1;
    for (int i = 0; i < n; i++)
        ios[i] = (struct io *)(void *)w;
    w->proxy = proxy_new(config, list, NULL, NULL, &ops, ios, n, w->now_us, 1700000000000000);
    w->worker = w->proxy->workers[0];
    assert_true(proxy_load_tls(w->proxy, &e));
    return w;
}

static bool run_letters(struct world *w, int i)
{
    struct worker *worker = w->proxy->workers[i];
    uint64_t *at = &w->letters_at_us[i];

    if (w->letter_delay == NULL)
        return worker_run_letters(worker);
    if (worker->letters_first == NULL)
        *at = UINT64_MAX; /* a halt has delivered them */
    else if (*at == UINT64_MAX)
        *at = w->now_us + w->letter_delay(w->letter_arg);
    if (*at > w->now_us)
        return false;
    *at = UINT64_MAX;
    return worker_run_letters(worker);
}

/* After each event: all that follows from it, letters between workers too. */
void world_settle(struct world *w)
{
    bool any;

    do {
        any = false;
        for (int i = 0; i < w->proxy->n_workers; i++)
            worker_settle(w->proxy->workers[i]);
        for (int i = 0; i < w->proxy->n_workers; i++)
            any = run_letters(w, i) || any;
        if (!w->jobs_wait)
            any = world_run_jobs(w) || any;
    } while (any);
}

void world_free(struct world *w)
{
    w->letter_delay = NULL;
    proxy_close_all(w->proxy);
    while (world_run_jobs(w))
        ;
    world_settle(w);
    proxy_free(w->proxy);
    for (int i = 0; i < w->n_lookups; i++)
        free(w->lookups[i]);
    while (w->peers != NULL) {
        struct peer *p = w->peers;
        w->peers = p->next;
        bytequeue_free(&p->got);
        bytequeue_free(&p->tls_first);
        for (size_t fd = 0; fd < sizeof(descriptors) / sizeof(descriptors[0]); fd++)
            if (descriptors[fd] == p)
                descriptors[fd] = NULL;
        free(p);
    }
    text_free(&w->notified);
    free(w);
}

static void set_clock(struct world *w, uint64_t now_us)
{
    w->now_us = now_us;
    for (int i = 0; i < w->proxy->n_workers; i++)
        w->proxy->workers[i]->now_us = now_us;
}

/* Who has something to do first. */
static struct worker *next_worker(struct world *w)
{
    struct worker *next = w->worker;

    for (int i = 1; i < w->proxy->n_workers; i++)
        if (worker_next_timer(w->proxy->workers[i]) < worker_next_timer(next))
            next = w->proxy->workers[i];
    return next;
}

uint64_t world_next_timer(struct world *w)
{
    uint64_t at = worker_next_timer(next_worker(w));

    for (int i = 0; i < w->proxy->n_workers; i++)
        at = w->letters_at_us[i] < at ? w->letters_at_us[i] : at;
    return at;
}

void world_run_until(struct world *w, uint64_t until)
{
    uint64_t at;

    while ((at = world_next_timer(w)) <= until) {
        struct worker *worker = next_worker(w);
        set_clock(w, at > w->now_us ? at : w->now_us);
        if (worker_next_timer(worker) <= w->now_us)
            worker_run_timers(worker);
        world_settle(w);
    }
    set_clock(w, until);
}

void world_answer(struct world *w, const char *host, const char *addresses)
{
    assert_true(w->n_lookups > 0);
    struct lookup *l = w->lookups[0];
    memmove(w->lookups, w->lookups + 1, (size_t)--w->n_lookups * sizeof(w->lookups[0]));
    assert_string_equal(l->host, host);
    l->result = addresses == NULL      ? LOOKUP_NO_ANSWER
                : addresses[0] == '\0' ? LOOKUP_NO_SUCH_NAME
                                       : LOOKUP_FOUND;
    while (addresses != NULL && *addresses != '\0') {
        size_t len = strcspn(addresses, ",");
        snprintf(l->addresses[l->n_addresses++], DNS_ADDRESS_SIZE, "%.*s", (int)len, addresses);
        addresses += len + (addresses[len] == ',');
    }
    dns_on_answer(l);
    world_settle(w);
}

void world_sleep(struct world *w, double seconds)
{
    world_run_until(w, w->now_us + (uint64_t)(seconds * 1e6));
}

struct peer *world_accept(struct world *w)
{
    struct address a = { .host = "10.9.9.9", .port = 40000 };
    struct client *c = client_new(balance_place(w->proxy), &a);
    struct peer *p = peer_new(w, &c->conn);

    p->taken = p->reading = c->conn.reading = true;
    return p;
}

struct peer *world_next_connect(struct world *w)
{
    for (struct peer *p = w->peers; p != NULL; p = p->next) {
        if (!p->taken) {
            p->taken = true;
            return p;
        }
    }
    return NULL;
}

void peer_connected(struct peer *p)
{
    struct world *w = of_io(p->conn->worker->io);

    conn_on_connected(p->conn);
    world_settle(w);
}

void peer_secured(struct peer *p, const char *name)
{
    struct world *w = of_io(p->conn->worker->io);
    struct tls_info *info = mem_alloc(sizeof(*info));

    assert_true(p->securing);
    p->securing = false;
    info->version = "TLSv1.3";
    info->cipher = "TLS_TEST";
    info->peer_name = name != NULL ? mem_strdup(name) : NULL;
    memset(info->end_point, 7, 32);
    info->end_point_len = 32;
    conn_on_secured(p->conn, info);
    world_settle(w);
}

void peer_fail(struct peer *p, const char *reason)
{
    struct world *w = of_io(p->conn->worker->io);

    conn_on_gone(p->conn, reason);
    world_settle(w);
}

/* In pieces as a socket would give them, and no more than the core wants. */
void peer_send(struct peer *p, const void *bytes, size_t n)
{
    const char *at = bytes;

    while (n > 0 && p->conn != NULL) {
        size_t piece = n < CONN_READ_SIZE ? n : CONN_READ_SIZE;
        struct world *w = of_io(p->conn->worker->io);
        conn_on_bytes(p->conn, at, piece);
        world_settle(w);
        at += piece;
        n -= piece;
    }
}

void peer_send_queue(struct peer *p, struct bytequeue *q)
{
    struct str s = bytequeue_str(q);

    peer_send(p, s.ptr, s.len);
    bytequeue_free(q);
}

void peer_hang_up(struct peer *p)
{
    struct world *w = of_io(p->conn->worker->io);

    conn_on_gone(p->conn, NULL);
    world_settle(w);
}

void peer_open_window(struct peer *p, size_t window)
{
    p->window = window;
    if (p->conn != NULL && !p->away) {
        struct world *w = of_io(p->conn->worker->io);
        conn_on_writable(p->conn);
        world_settle(w);
    }
}

struct client *peer_client(struct peer *p)
{
    return (struct client *)(void *)p->conn;
}

struct server *peer_server(struct peer *p)
{
    return (struct server *)(void *)p->conn;
}

const char *peer_take_copy(struct peer *p, struct bytequeue *copy)
{
    static char tags[4096];
    size_t n = 0;

    tags[0] = '\0';
    for (;;) {
        struct str got = bytequeue_str(&p->got);
        uint32_t len = 0;
        if (got.len < 5)
            break;
        for (int i = 1; i <= 4; i++)
            len = len << 8 | (uint8_t)got.ptr[i];
        if (got.len < (size_t)len + 1)
            break;
        struct str body = { got.ptr + 5, len - 4 };
        if (got.ptr[0] == BE_ERROR && notice_is_valid(body)) {
            struct str code = notice_get(body, NOTICE_SQLSTATE);
            n += (size_t)snprintf(tags + n, sizeof(tags) - n, "E(" STR_FMT ")", STR_ARG(code));
        } else {
            tags[n++] = got.ptr[0];
        }
        assert_true(n < sizeof(tags) - 16);
        tags[n] = '\0';
        if (copy != NULL)
            bytequeue_put(copy, got.ptr, len + 1);
        bytequeue_consume(&p->got, len + 1);
    }
    return tags;
}

const char *peer_take(struct peer *p)
{
    return peer_take_copy(p, NULL);
}

struct peer *world_startup(struct world *w, const char *user, const char *database,
                           const char *name, const char *value)
{
    struct peer *p = world_accept(w);
    struct bytequeue q = { 0 };
    struct wire_mark m = startup_encode_begin(&q, 3, 0);

    startup_encode_param(&q, STR("user"), str_from(user));
    startup_encode_param(&q, STR("database"), str_from(database));
    if (name != NULL)
        startup_encode_param(&q, str_from(name), str_from(value));
    startup_encode_end(&q, m);
    peer_send_queue(p, &q);
    return p;
}

struct peer *world_serve_login(struct world *w)
{
    struct peer *s = world_next_connect(w);
    struct bytequeue q = { 0 };
    static const char *const params[][2] = {
        { "server_version", "15.4" },
        { "client_encoding", "UTF8" },
        { "DateStyle", "ISO, MDY" },
        { "TimeZone", "UTC" },
        { "standard_conforming_strings", "on" },
        { "application_name", "" },
        { "IntervalStyle", "postgres" },
    };

    if (s == NULL)
        return NULL;
    peer_connected(s);
    bytequeue_consume(&s->got, bytequeue_len(&s->got)); /* the startup packet */
    auth_encode_ok(&q);
    for (size_t i = 0; i < sizeof(params) / sizeof(params[0]); i++)
        wire_encode_parameter_status(&q, str_from(params[i][0]), str_from(params[i][1]));
    wire_encode_backend_key(&q, 4711, (struct str){ "\1\2\3\4", 4 });
    wire_encode_ready(&q, STATUS_IDLE);
    peer_send_queue(s, &q);
    return s;
}

struct peer *world_login(struct world *w, const char *user, const char *database)
{
    struct peer *p = world_startup(w, user, database, NULL, NULL);

    assert_non_null(p->conn);
    return p;
}

void client_says_query(struct peer *p, const char *sql)
{
    struct bytequeue q = { 0 };

    wire_encode_query(&q, str_from(sql));
    peer_send_queue(p, &q);
}

void server_says_done(struct peer *p, const char *tag, char status)
{
    struct bytequeue q = { 0 };

    wire_encode_command_complete(&q, str_from(tag));
    wire_encode_ready(&q, (enum wire_status)status);
    peer_send_queue(p, &q);
}
