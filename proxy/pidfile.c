#include "proxy/pidfile.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* 0: it holds no process id; -1: no file, or errno. */
static long read_pid(const char *path)
{
    char buffer[64] = "";
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return -1;
    ssize_t n = read(fd, buffer, sizeof(buffer) - 1);
    close(fd);
    if (n < 0)
        return -1;
    long pid = strtol(buffer, NULL, 10);
    return pid > 0 ? pid : 0;
}

bool pidfile_check(const char *path, struct log *log, struct err *e)
{
    errno = 0;
    long pid = read_pid(path);

    if (pid < 0)
        return errno == ENOENT ? true
                               : err_set(e, ERR_CONFIG, "", "could not read pidfile '%s': %s", path,
                                         strerror(errno));
    if (pid > 0 && (kill((pid_t)pid, 0) == 0 || errno == EPERM))
        return err_set(e, ERR_CONFIG, "",
                       "pidfile exists, another instance running? ('%s', process %ld)", path, pid);
    log_line(log, LEVEL_LOG, "stale pidfile, removing");
    if (unlink(path) < 0)
        return err_set(e, ERR_CONFIG, "", "could not remove stale pidfile: %s", strerror(errno));
    return true;
}

bool pidfile_write(const char *path, struct err *e)
{
    char fresh[PATH_MAX], text[32];
    int len = snprintf(text, sizeof(text), "%ld\n", (long)getpid());

    if ((size_t)snprintf(fresh, sizeof(fresh), "%s.%ld", path, (long)getpid()) >= sizeof(fresh))
        return err_set(e, ERR_CONFIG, "", "could not write pidfile '%s': too long", path);
    int fd = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    bool ok = fd >= 0 && write(fd, text, (size_t)len) == len && rename(fresh, path) == 0;
    int error = errno;
    if (fd >= 0)
        close(fd);
    if (fd >= 0 && !ok)
        unlink(fresh);
    return ok ? true
              : err_set(e, ERR_CONFIG, "", "could not write pidfile '%s': %s", path,
                        strerror(error));
}

void pidfile_remove(const char *path)
{
    if (read_pid(path) == (long)getpid())
        unlink(path);
}
