#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/time.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "base/arena.h"

/* A peer chooses parts of some lines; this bounds what it can write. */
#define LINE_MAX_BYTES 8192

static const struct {
    const char *name;
    int syslog_priority;
} levels[] = {
    [LEVEL_FATAL] = { "FATAL", LOG_CRIT },        [LEVEL_ERROR] = { "ERROR", LOG_ERR },
    [LEVEL_WARNING] = { "WARNING", LOG_WARNING }, [LEVEL_LOG] = { "LOG", LOG_INFO },
    [LEVEL_DEBUG] = { "DEBUG", LOG_DEBUG },       [LEVEL_NOISE] = { "NOISE", LOG_DEBUG },
};

static const struct {
    const char *name;
    int facility;
} facilities[] = {
    { "auth", LOG_AUTH },     { "authpriv", LOG_AUTHPRIV }, { "daemon", LOG_DAEMON },
    { "user", LOG_USER },     { "local0", LOG_LOCAL0 },     { "local1", LOG_LOCAL1 },
    { "local2", LOG_LOCAL2 }, { "local3", LOG_LOCAL3 },     { "local4", LOG_LOCAL4 },
    { "local5", LOG_LOCAL5 }, { "local6", LOG_LOCAL6 },     { "local7", LOG_LOCAL7 },
};

struct log {
    pthread_mutex_t lock; /* guards the targets */
    atomic_int verbose;
    bool to_stderr;
    bool to_syslog;
    int fd;             /* -1: no file */
    char *syslog_ident; /* openlog(3) keeps the pointer */
};

struct log *log_new(void)
{
    struct log *l = mem_alloc(sizeof(*l));
    pthread_mutex_init(&l->lock, NULL);
    atomic_init(&l->verbose, 0);
    l->to_stderr = true;
    l->fd = -1;
    return l;
}

void log_free(struct log *l)
{
    if (l == NULL)
        return;
    if (l->fd >= 0)
        close(l->fd);
    if (l->to_syslog)
        closelog();
    free(l->syslog_ident);
    pthread_mutex_destroy(&l->lock);
    free(l);
}

static bool find_facility(const char *name, int *facility)
{
    for (size_t i = 0; i < sizeof(facilities) / sizeof(facilities[0]); i++) {
        if (strcasecmp(facilities[i].name, name) == 0) {
            *facility = facilities[i].facility;
            return true;
        }
    }
    return false;
}

bool log_facility_is_known(const char *name)
{
    int facility;
    return find_facility(name, &facility);
}

bool log_configure(struct log *l, const struct log_options *options, struct err *e)
{
    int facility = LOG_DAEMON;
    if (options->syslog_facility != NULL && !find_facility(options->syslog_facility, &facility))
        return err_set(e, ERR_CONFIG, "F0000", "unknown syslog_facility \"%s\"",
                       options->syslog_facility);
    int fd = -1;
    if (options->file != NULL && options->file[0] != '\0') {
        fd = open(options->file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
        if (fd < 0)
            return err_set(e, ERR_RESOURCE, "58030", "cannot open log file \"%s\": %s",
                           options->file, strerror(errno));
    }
    const char *ident = options->syslog_ident;
    char *new_ident = mem_strdup(ident != NULL && ident[0] != '\0' ? ident : "pgtrickle");

    pthread_mutex_lock(&l->lock);
    int old_fd = l->fd;
    char *old_ident = l->syslog_ident;
    if (l->to_syslog)
        closelog();
    l->fd = fd;
    l->syslog_ident = new_ident;
    l->to_stderr = options->to_stderr;
    l->to_syslog = options->to_syslog;
    if (l->to_syslog)
        openlog(l->syslog_ident, LOG_PID | LOG_NDELAY, facility);
    pthread_mutex_unlock(&l->lock);

    atomic_store_explicit(&l->verbose, options->verbose, memory_order_relaxed);
    if (old_fd >= 0)
        close(old_fd);
    free(old_ident);
    return true;
}

bool log_wants(const struct log *l, enum log_level level)
{
    if (l == NULL)
        return false;
    return (int)level <= LEVEL_LOG + atomic_load_explicit(&l->verbose, memory_order_relaxed);
}

/* A log that can't be written must not stop the daemon. */
static void write_all(int fd, const char *bytes, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, bytes, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return;
        bytes += n;
        len -= (size_t)n;
    }
}

void log_vline(struct log *l, enum log_level level, const char *fmt, va_list args)
{
    if (!log_wants(l, level))
        return;

    char line[LINE_MAX_BYTES];
    struct timeval now;
    struct tm tm;
    gettimeofday(&now, NULL);
    localtime_r(&now.tv_sec, &tm);
    char zone[32];
    if (strftime(zone, sizeof(zone), "%Z", &tm) == 0)
        zone[0] = '\0';
    int head =
        snprintf(line, sizeof(line), "%04d-%02d-%02d %02d:%02d:%02d.%03d %s [%d] %s ",
                 tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec,
                 (int)(now.tv_usec / 1000), zone, (int)getpid(), levels[level].name);
    /* The last byte is kept for the line feed. */
    size_t room = sizeof(line) - (size_t)head - 1;
    int body = vsnprintf(line + head, room, fmt, args);
    if (body < 0)
        return;
    size_t body_len = (size_t)body < room ? (size_t)body : room - 1;
    size_t len = (size_t)head + body_len;
    for (size_t i = (size_t)head; i < len; i++) {
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
            line[i] = '?';
    }

    pthread_mutex_lock(&l->lock);
    if (l->to_syslog)
        syslog(levels[level].syslog_priority, "%s %.*s", levels[level].name, (int)body_len,
               line + head);
    line[len++] = '\n';
    if (l->to_stderr)
        write_all(STDERR_FILENO, line, len);
    if (l->fd >= 0)
        write_all(l->fd, line, len);
    pthread_mutex_unlock(&l->lock);
}

void log_line(struct log *l, enum log_level level, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    log_vline(l, level, fmt, args);
    va_end(args);
}
