/* What the files of the runtime share about struct dvm. Not for others. */
#ifndef PGTRICKLE_DVM_RUNTIME_DVM_INTERNAL_H
#define PGTRICKLE_DVM_RUNTIME_DVM_INTERNAL_H

#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>

#include "dvm/dvm.h"

struct db_libpq;
struct scheduler;

/* The advisory locks of the maintenance side: (class, what). The class is "pgtk" in ASCII. */
#define DVM_LOCK_CLASS 0x7067746b
enum dvm_lock { DVM_LOCK_INSTALL = 1, DVM_LOCK_SCHEDULER = 2 };

struct dvm {
    struct dvm_config config;
    char version[17]; /* of the embedded SQL side: what pgtrickle._version() answers when current */
    pthread_mutex_t mutex; /* over what follows */
    char **current;        /* conninfo of databases known to hold this version */
    int n_current;
    struct scheduler *scheduler;
};

void dvm_log(const struct dvm *d, enum dvm_log_level level, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* One line: "event key=value ... sqlstate=... error=\"...\"". */
void dvm_log_err(const struct dvm *d, enum dvm_log_level level, const struct err *e,
                 const char *fmt, ...) __attribute__((format(printf, 4, 5)));

/* What the connection's database holds. */
enum install_state { INSTALL_ABSENT, INSTALL_OTHER_VERSION, INSTALL_CURRENT };
bool install_look(const struct dvm *d, struct db_libpq *c, enum install_state *state,
                  struct err *e);
/* Installs or upgrades over a connection that is in no transaction. */
bool install_run(struct dvm *d, struct db_libpq *c, const char *database, struct err *e);
/* The cache of databases that are known to be current. */
void install_remember(struct dvm *d, const char *conninfo);
void install_forget(struct dvm *d, const char *conninfo);

/* As dvm_complete_requests, for the requests that a condition on pgtrickle.pgt_requests chooses. */
bool request_complete_where(struct dvm *d, struct dvm_db *db, const char *where,
                            void (*notice)(void *arg, const char *severity, const char *message),
                            void *notice_arg, struct err *e);

#endif
