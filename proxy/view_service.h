/* Ties dvm in: where the maintenance side logs in, the scheduler, the log.
 *
 * The configuration changes while the scheduler's thread asks for its targets: the service keeps
 * its own copies under a lock.
 */
#ifndef PGTRICKLE_PROXY_VIEW_SERVICE_H
#define PGTRICKLE_PROXY_VIEW_SERVICE_H

#include <stdbool.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/log.h"
#include "proxy/config.h"
#include "proxy/userlist.h"

struct dvm;
struct dvm_target;
struct view_service;

struct view_service *view_service_new(const struct config *config, const struct userlist *userlist,
                                      struct log *log);
/* Stops the scheduler. */
void view_service_free(struct view_service *v);

bool view_service_start(struct view_service *v, struct err *e);
/* After RELOAD. */
void view_service_configure(struct view_service *v, const struct config *config,
                            const struct userlist *userlist);

struct dvm *view_service_dvm(struct view_service *v);
/* The target for a database entry reached by `name`; strings live in the arena. */
void view_service_target(struct view_service *v, const struct config *config,
                         const struct userlist *userlist, const struct config_database *entry,
                         const char *name, struct arena *a, struct dvm_target *out);

#endif
