/* pgtrickle: arguments, configuration, the real world, run. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "proxy/config.h"
#include "proxy/io/loop.h"
#include "proxy/proxy.h"
#include "proxy/userlist.h"
#include "proxy/view_service.h"

struct options {
    bool daemon;
    bool quiet;
    int verbose;
    const char *user;
    const char *config;
};

static void print_help(FILE *to)
{
    fputs("pgtrickle: a PostgreSQL pooler that keeps stream tables up to date\n"
          "Usage:\n"
          "  pgtrickle [OPTION]... CONFIG_FILE\n"
          "\n"
          "Options:\n"
          "  -d, --daemon           run in the background (needs pidfile)\n"
          "  -q, --quiet            no log on stderr\n"
          "  -u, --user=USERNAME    become this user\n"
          "  -v, --verbose          log more; may be repeated\n"
          "  -V, --version          show the version\n"
          "  -h, --help             show this help\n",
          to);
}

/* Exits for --help and --version, and with 1 for what is not understood. */
static struct options parse_arguments(int argc, char **argv)
{
    static const struct option longs[] = {
        { "daemon", no_argument, NULL, 'd' },
        { "quiet", no_argument, NULL, 'q' },
        { "user", required_argument, NULL, 'u' },
        { "verbose", no_argument, NULL, 'v' },
        { "version", no_argument, NULL, 'V' },
        { "help", no_argument, NULL, 'h' },
        { NULL, 0, NULL, 0 },
    };
    struct options o = { 0 };
    int c;

    while ((c = getopt_long(argc, argv, "dqu:vVh", longs, NULL)) != -1) {
        switch (c) {
        case 'd':
            o.daemon = true;
            break;
        case 'q':
            o.quiet = true;
            break;
        case 'u':
            o.user = optarg;
            break;
        case 'v':
            o.verbose++;
            break;
        case 'V':
            printf("pgtrickle %s\n", PGTRICKLE_VERSION);
            exit(0);
        case 'h':
            print_help(stdout);
            exit(0);
        default:
            print_help(stderr);
            exit(1);
        }
    }
    if (optind + 1 != argc) {
        fprintf(stderr, "Need config file.  See pgtrickle -h for usage.\n");
        exit(1);
    }
    o.config = argv[optind];
    return o;
}

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

/* A pidfile of a process that lives stops us; one of a dead process is taken over. */
static bool check_pidfile(const char *path, struct err *e)
{
    char buffer[64] = "";
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return errno == ENOENT ? true
                               : err_set(e, ERR_CONFIG, "", "cannot read pidfile '%s': %s", path,
                                         strerror(errno));
    ssize_t n = read(fd, buffer, sizeof(buffer) - 1);
    close(fd);
    long pid = n > 0 ? strtol(buffer, NULL, 10) : 0;
    if (pid > 0 && (kill((pid_t)pid, 0) == 0 || errno == EPERM))
        return err_set(
            e, ERR_CONFIG, "",
            "pidfile '%s' exists and its process %ld is alive, another instance running?", path,
            pid);
    unlink(path);
    return true;
}

static bool write_pidfile(const char *path, struct err *e)
{
    char buffer[32];
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    int len = snprintf(buffer, sizeof(buffer), "%ld\n", (long)getpid());

    if (fd < 0)
        return err_set(e, ERR_CONFIG, "", "cannot write pidfile '%s': %s", path, strerror(errno));
    bool ok = write(fd, buffer, (size_t)len) == len;
    close(fd);
    return ok ? true : err_set(e, ERR_CONFIG, "", "cannot write pidfile '%s'", path);
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

static bool set_up(const struct options *o, struct config *config, struct io *io,
                   struct userlist **userlist, struct err *e)
{
    const char *user = o->user != NULL ? o->user : config->user[0] != '\0' ? config->user : NULL;

    if (o->daemon && config->pidfile[0] == '\0')
        return err_set(e, ERR_CONFIG, "", "daemon needs pidfile configured");
    if (user != NULL && getuid() == 0 && !become_user(user, e))
        return false;
    if (geteuid() == 0)
        return err_set(e, ERR_CONFIG, "", "pgtrickle should not run as root");
    if (config->auth_file[0] != '\0') {
        *userlist = userlist_load(config->auth_file, e);
        if (*userlist == NULL)
            return false;
    }
    if (config->pidfile[0] != '\0' && !check_pidfile(config->pidfile, e))
        return false;
    if (!io_listen(io, config, e))
        return false;
    return true;
}

int main(int argc, char **argv)
{
    struct options o = parse_arguments(argc, argv);
    struct log *log = log_new();
    struct err e = { 0 };
    struct userlist *userlist = NULL;
    struct view_service *views = NULL;
    struct proxy *p = NULL;
    struct io *io = NULL;
    char pidfile[4096] = "";
    int status = 1;
    int ready = -1;

    struct config *config = config_load(o.config, &e);
    if (config == NULL)
        goto out;
    raise_descriptor_limit();
    /* Before the loop exists: an epoll descriptor does not survive a fork. */
    if (o.daemon && config->pidfile[0] != '\0' && !go_to_background(&ready, &e))
        goto out;
    io = io_new(&e);
    if (io == NULL || !set_up(&o, config, io, &userlist, &e))
        goto out;
    if (config->pidfile[0] != '\0') {
        if (!write_pidfile(config->pidfile, &e))
            goto out;
        snprintf(pidfile, sizeof(pidfile), "%s", config->pidfile);
    }
    views = view_service_new(config, userlist, log);
    p = proxy_new(config, userlist, log, views, io_ops_real(), &io, 1, io_monotonic_us(),
                  io_wall_us());
    p->quiet = o.quiet || o.daemon;
    p->verbose = o.verbose;
    config = NULL; /* the proxy's now, as the next */
    userlist = NULL;
    if (!proxy_set_logging(p, &e))
        goto out;
    log_line(log, LEVEL_LOG, "process up: pgtrickle %s, listening on %s:%d and unix:%s",
             PGTRICKLE_VERSION, p->config->listen_addr[0] != '\0' ? p->config->listen_addr : "-",
             p->config->listen_port, p->config->unix_socket_dir);
    config_warn(p->config, log);
    if (!view_service_start(views, &e))
        goto out;
    if (ready >= 0)
        leave_terminal(ready);
    io_run(io, p);
    log_line(log, LEVEL_LOG, "process exiting");
    status = 0;
out:
    if (err_is_set(&e))
        log_line(log, LEVEL_FATAL, "%s", e.message);
    err_clear(&e);
    if (pidfile[0] != '\0')
        unlink(pidfile);
    if (io != NULL)
        io_listen_close(io);
    if (p != NULL) {
        proxy_close_all(p);
        io_finish_jobs(io);
        proxy_free(p);
    }
    view_service_free(views);
    if (io != NULL)
        io_free(io);
    config_unref(config);
    userlist_unref(userlist);
    log_free(log);
    return status;
}
