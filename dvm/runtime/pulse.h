/* Whether a database has anything new for its scheduler: one cheap query instead of the whole state
 * of every stream table.
 *
 * Whatever may make a stream table due draws from pgtrickle.change_seq before it commits (writers
 * of sources in their capture functions, the catalog by dvm/sql/37_units.sql). A number seen before
 * says that nobody has drawn since; but who drew may commit later. So the transactions that were
 * running when the number came are remembered, and the number is settled when all of them have
 * ended: what they wrote is visible to the look that follows. (The lock on a transaction's number
 * is taken before it writes its first row, and given back after the commit is visible.)
 *
 * It also tells when somebody waits for our connections to go: DROP DATABASE and CREATE DATABASE
 * ... TEMPLATE lock the database first and then give others five seconds to leave.
 */
#ifndef PGTRICKLE_DVM_RUNTIME_PULSE_H
#define PGTRICKLE_DVM_RUNTIME_PULSE_H

#include <stdbool.h>

#include "base/err.h"
#include "dvm/runtime/db.h"

/* Of one connection; zeroed: nothing known yet. */
struct pulse {
    char *number;  /* of change_seq; NULL: none seen */
    char *running; /* an array of the transactions that ran when it came, as the server writes it */
    bool settled;  /* all of them have ended before the last look */
};

enum pulse_beat {
    PULSE_QUIET, /* what the last look saw is all that there is */
    PULSE_NEWS,
    PULSE_GIVE_WAY, /* someone waits for this database to be free */
};

/* After PULSE_NEWS the caller looks at everything before it asks again. */
bool pulse_take(struct pulse *p, struct dvm_db *db, enum pulse_beat *beat, struct err *e);
/* Only whether to give way: of who has not looked at anything. */
bool pulse_gives_way(struct dvm_db *db, bool *give_way, struct err *e);
void pulse_fini(struct pulse *p);

#endif
