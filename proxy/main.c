/* pgtrickle: arguments, configuration, the real world, run. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/log.h"
#include "proxy/auth_rules.h"
#include "proxy/config.h"
#include "proxy/io/listen.h"
#include "proxy/io/loop.h"
#include "proxy/io/predecessor.h"
#include "proxy/io/systemd.h"
#include "proxy/options.h"
#include "proxy/pidfile.h"
#include "proxy/proxy.h"
#include "proxy/shutdown.h"
#include "proxy/takeover.h"
#include "proxy/userlist.h"
#include "proxy/view_service.h"
#include "proxy/watchdog.h"

/* A client takes a descriptor, and so may its server. */
static void raise_descriptor_limit(void)
{
    struct rlimit r;

    if (getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_cur < r.rlim_max) {
        r.rlim_cur = r.rlim_max;
        setrlimit(RLIMIT_NOFILE, &r);
    }
}

static bool become_user(const char *name, struct err *e)
{
    struct passwd *pw = getpwnam(name);

    if (pw == NULL)
        return err_set(e, ERR_CONFIG, "", "could not find user '%s' to switch to", name);
    if (initgroups(name, pw->pw_gid) < 0 || setgid(pw->pw_gid) < 0 || setuid(pw->pw_uid) < 0)
        return err_set(e, ERR_CONFIG, "", "failed to assume identity of user '%s': %s", name,
                       strerror(errno));
    return true;
}

/* The child goes on with no terminal; the parent waits until it listens, and exits 1 when it fails
 * before that. ready is the descriptor to tell it by. */
static bool go_to_background(int *ready, struct err *e)
{
    int ends[2];
    char byte;

    if (pipe2(ends, O_CLOEXEC) < 0)
        return err_set(e, ERR_RESOURCE, "", "cannot make a pipe: %s", strerror(errno));
    pid_t pid = fork();
    if (pid < 0)
        return err_set(e, ERR_RESOURCE, "", "cannot fork: %s", strerror(errno));
    if (pid > 0) {
        close(ends[1]);
        _exit(read(ends[0], &byte, 1) == 1 ? 0 : 1);
    }
    close(ends[0]);
    *ready = ends[1];
    setsid();
    return true;
}

static void leave_terminal(int ready)
{
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

    if (fd >= 0) {
        dup2(fd, 0);
        dup2(fd, 1);
        dup2(fd, 2);
        close(fd);
    }
    while (write(ready, "", 1) < 0 && errno == EINTR)
        ;
    close(ready);
}

static bool check_user(const struct options *o, const struct config *config, struct err *e)
{
    const char *user = o->user != NULL ? o->user : config->user[0] != '\0' ? config->user : NULL;

    if (user != NULL && getuid() == 0 && !become_user(user, e))
        return false;
    return geteuid() != 0 || err_set(e, ERR_CONFIG, "", "pgtrickle should not run as root");
}

/* What the service manager listens on for us, else what the configuration says. */
static bool listen_all(struct listeners *listeners, const struct config *config,
                       const struct systemd *systemd, struct err *e)
{
    int first, n = systemd_listen_fds(systemd, &first);

    for (int i = 0; i < n; i++)
        if (!listeners_adopt(listeners, first + i, false, e))
            return false;
    return n > 0 || listeners_open(listeners, config, e);
}

/* Nobody else may be us. */
static bool check_alone(const struct config *config, const struct systemd *systemd, struct log *log,
                        struct err *e)
{
    int first;

    if (systemd_listen_fds(systemd, &first) == 0 && listeners_answered(config))
        return err_set(e, ERR_RESOURCE, "", "unix socket is in use, cannot continue");
    return config->pidfile[0] == '\0' || pidfile_check(config->pidfile, log, e);
}

static void tell_ready(struct systemd *systemd, struct listeners *listeners, struct log *log)
{
    char text[64];

    for (int i = 0; i < listeners_count(listeners); i++)
        log_line(log, LEVEL_LOG, "listening on %s", listeners_text(listeners, i));
    log_line(log, LEVEL_LOG, "process up: pgtrickle %s", PGTRICKLE_VERSION);
    snprintf(text, sizeof(text), "READY=1\nMAINPID=%ld", (long)getpid());
    systemd_notify(systemd, text);
}

/* The cores that we may run on, at most 4: more would wait for each other more than for work. */
static int worker_count(const struct config *config)
{
    cpu_set_t cores;

    if (config->worker_threads > 0)
        return config->worker_threads < WORKERS_MAX ? config->worker_threads : WORKERS_MAX;
    int n = sched_getaffinity(0, sizeof(cores), &cores) == 0 ? CPU_COUNT(&cores) : 1;
    return n < 1 ? 1 : n > 4 ? 4 : n;
}

int main(int argc, char **argv)
{
    struct options o;
    struct log *log = log_new();
    struct err e = { 0 };
    struct systemd *systemd = systemd_new();
    struct listeners *listeners = listeners_new();
    struct userlist *userlist = NULL;
    struct view_service *views = NULL;
    struct watchdog *watchdog = NULL;
    struct predecessor *before = NULL; /* -R: the one that we take over from */
    bool committed = false;
    struct config *config = NULL;
    struct proxy *p = NULL;
    struct io *io = NULL;
    struct io *ios[WORKERS_MAX];
    int n_workers = 1;
    char *pidfile = NULL; /* written by us */
    int status = 1;
    int ready = -1;

    switch (options_parse(argc, argv, &o, stdout, stderr)) {
    case OPTIONS_RUN:
        break;
    case OPTIONS_DONE:
        status = 0;
        goto out;
    case OPTIONS_BAD:
        goto out;
    }
    config = config_load(o.config, &e);
    if (config == NULL || !check_user(&o, config, &e))
        goto out;
    if (!proxy_configure_log(log, config, o.quiet, o.verbose, &e))
        goto out;
    raise_descriptor_limit();
    if (o.daemon && config->pidfile[0] == '\0') {
        err_set(&e, ERR_CONFIG, "", "daemon needs pidfile configured");
        goto out;
    }
    /* Before the loop exists: an epoll descriptor does not survive a fork. */
    if (o.daemon && !go_to_background(&ready, &e))
        goto out;
    if (config->auth_file[0] != '\0') {
        userlist = userlist_load(config->auth_file, &e);
        if (userlist == NULL)
            goto out;
    }
    if (o.reboot && config->unix_socket_dir[0] == '\0') {
        err_set(&e, ERR_CONFIG, "", "cannot reboot if unix dir not configured");
        goto out;
    }
    if (o.reboot && listeners_answered(config)) {
        before = predecessor_take(config, listeners, &e);
        if (before == NULL)
            goto out;
    } else {
        if (o.reboot)
            log_line(log, LEVEL_LOG, "old process not found, try to continue normally");
        if (!check_alone(config, systemd, log, &e) || !listen_all(listeners, config, systemd, &e))
            goto out;
    }
    if (config->pidfile[0] != '\0')
        pidfile = strdup(config->pidfile);
    if (before == NULL && pidfile != NULL && !pidfile_write(pidfile, &e))
        goto out;
    io = io_new(&e);
    if (io == NULL)
        goto out;
    n_workers = worker_count(config);
    if (!io_add_workers(io, n_workers, ios, &e))
        goto out;
    io_attach(io, listeners, systemd);
    views = view_service_new(config, userlist, log);
    p = proxy_new(config, userlist, log, views, io_ops_real(), ios, n_workers, io_monotonic_us(),
                  io_wall_us());
    io_bind(io, p);
    p->quiet = o.quiet || o.daemon;
    p->verbose = o.verbose;
    config = NULL; /* the proxy's now, as the next */
    userlist = NULL;
    if (!proxy_set_logging(p, &e) || !proxy_load_tls(p, &e))
        goto out;
    auth_rules_load(p, &e); /* what can't be read lets nobody in */
    err_clear(&e);
    config_warn(p->config, log);
    if (before != NULL) {
        predecessor_import(before, p);
        committed = predecessor_commit(before, &e);
        if (!committed)
            takeover_drop(p);
        if (!committed || (pidfile != NULL && !pidfile_write(pidfile, &e)))
            goto out;
        log_line(log, LEVEL_LOG, "took over %d clients", shutdown_clients_left(p));
        takeover_resume(p);
    }
    if (!view_service_start(views, &e))
        goto out;
    if (systemd_watchdog_us(systemd) > 0)
        watchdog = watchdog_new(p, systemd_watchdog_us(systemd));
    tell_ready(systemd, listeners, log);
    if (ready >= 0)
        leave_terminal(ready);
    io_run(io);
    log_line(log, LEVEL_LOG, "process exiting");
    status = 0;
out:
    if (err_is_set(&e))
        log_line(log, LEVEL_FATAL, "%s", e.message);
    err_clear(&e);
    if (pidfile != NULL)
        pidfile_remove(pidfile);
    free(pidfile);
    if (before != NULL && !committed)
        listeners_leave(listeners);
    listeners_free(listeners);
    predecessor_free(before);
    if (p != NULL) {
        proxy_close_all(p);
        io_finish_jobs(io);
        proxy_free(p);
    }
    watchdog_free(watchdog);
    view_service_free(views);
    if (io != NULL)
        io_free(io);
    systemd_free(systemd);
    config_unref(config);
    userlist_unref(userlist);
    log_free(log);
    return status;
}
