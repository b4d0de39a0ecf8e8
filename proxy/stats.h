/* Traffic counters of a database, and their averages over stats_period.
 *
 * The proxy adds to the counters of a pool or database as things happen; a stats_window keeps two
 * snapshots that stats_window_roll moves every stats_period, and averages are those between the
 * two. Counting rules (facts, "Counting rules behind STATS"): a transaction starts with its first
 * request and ends at ReadyForQuery 'I' with nothing outstanding; each request batch (a simple
 * query, or an extended batch up to Sync) is one query; an assignment is one link of a client and a
 * server. Times are microseconds.
 */
#ifndef PGTRICKLE_PROXY_STATS_H
#define PGTRICKLE_PROXY_STATS_H

#include <stdint.h>

struct stats {
    uint64_t server_assignments;
    uint64_t xacts;
    uint64_t queries;
    uint64_t client_bytes; /* received from clients */
    uint64_t server_bytes; /* received from servers, which is what clients are sent */
    uint64_t xact_us;
    uint64_t query_us;
    uint64_t wait_us; /* of clients for a server connection */
    uint64_t client_parses;
    uint64_t server_parses;
    uint64_t binds;
    uint64_t client_logins;
};

struct stats_window {
    struct stats older;
    struct stats newer;
    int64_t older_at_us;
    int64_t newer_at_us;
};

void stats_add(struct stats *to, const struct stats *more);

/* now_us is monotonic. A window starts with init and rolls once every stats_period. */
void stats_window_init(struct stats_window *w, int64_t now_us);
void stats_window_roll(struct stats_window *w, const struct stats *now, int64_t now_us);

/* Counts and bytes per second; times per transaction, per query, per assignment. All 0 before the
 * first roll. */
struct stats stats_window_average(const struct stats_window *w);

#endif
