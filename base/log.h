/* Log lines for people: `YYYY-MM-DD HH:MM:SS.mmm TZ [pid] LEVEL text`, PgBouncer's format.
 *
 * A log writes whole lines to stderr, to a file that it keeps open, to syslog, or to any of them;
 * every function may be called from every thread. Text is one line: bytes below 0x20 are shown as
 * '?', so that nothing that a peer sends can forge a line.
 *
 * The log owns copies of all that log_configure is given.
 */
#ifndef PGTRICKLE_BASE_LOG_H
#define PGTRICKLE_BASE_LOG_H

#include <stdarg.h>
#include <stdbool.h>

#include "base/err.h"

/* Not LOG_…: <syslog.h> has macros of these names. */
enum log_level {
    LEVEL_FATAL,
    LEVEL_ERROR,
    LEVEL_WARNING,
    LEVEL_LOG,
    LEVEL_DEBUG, /* verbose >= 1 */
    LEVEL_NOISE, /* verbose >= 2 */
};

struct log_options {
    const char *file; /* NULL or "": no file */
    bool to_stderr;
    bool to_syslog;
    const char *syslog_ident;    /* NULL: "pgtrickle" */
    const char *syslog_facility; /* "daemon", "user", "local0" …; NULL: "daemon" */
    int verbose;                 /* 0..3 */
};

struct log;

/* Starts with stderr only, verbose 0. */
struct log *log_new(void);
void log_free(struct log *l);

/* Switches to new targets. False (ERR_CONFIG or ERR_RESOURCE) when the file can't be opened or the
 * facility is unknown: the old targets then stay in force. The file is opened anew even when its
 * name is the old one, which is what a log rotation needs. */
bool log_configure(struct log *l, const struct log_options *options, struct err *e);

/* The facility's name is one that log_configure takes. */
bool log_facility_is_known(const char *name);

/* Worth building the text for? */
bool log_wants(const struct log *l, enum log_level level);

/* A NULL log swallows the line, which is what most tests want. */
void log_line(struct log *l, enum log_level level, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void log_vline(struct log *l, enum log_level level, const char *fmt, va_list args)
    __attribute__((format(printf, 3, 0)));

#endif
