#include "proxy/stats.h"

#include <string.h>

void stats_add(struct stats *to, const struct stats *more)
{
    to->server_assignments += more->server_assignments;
    to->xacts += more->xacts;
    to->queries += more->queries;
    to->client_bytes += more->client_bytes;
    to->server_bytes += more->server_bytes;
    to->xact_us += more->xact_us;
    to->query_us += more->query_us;
    to->wait_us += more->wait_us;
    to->client_parses += more->client_parses;
    to->server_parses += more->server_parses;
    to->binds += more->binds;
    to->client_logins += more->client_logins;
}

void stats_window_init(struct stats_window *w, int64_t now_us)
{
    memset(w, 0, sizeof(*w));
    w->older_at_us = now_us;
    w->newer_at_us = now_us;
}

void stats_window_roll(struct stats_window *w, const struct stats *now, int64_t now_us)
{
    w->older = w->newer;
    w->older_at_us = w->newer_at_us;
    w->newer = *now;
    w->newer_at_us = now_us;
}

/* In floating point: a count times a million overflows 64 bits for a busy counter of bytes. */
static uint64_t per_second(uint64_t newer, uint64_t older, int64_t span_us)
{
    return (uint64_t)((double)(newer - older) * 1e6 / (double)span_us);
}

static uint64_t per_event(uint64_t newer, uint64_t older, uint64_t events)
{
    return events > 0 ? (newer - older) / events : 0;
}

struct stats stats_window_average(const struct stats_window *w)
{
    struct stats avg = { 0 };
    const struct stats *n = &w->newer;
    const struct stats *o = &w->older;
    int64_t span = w->newer_at_us - w->older_at_us;
    if (span <= 0)
        return avg;
    avg.server_assignments = per_second(n->server_assignments, o->server_assignments, span);
    avg.xacts = per_second(n->xacts, o->xacts, span);
    avg.queries = per_second(n->queries, o->queries, span);
    avg.client_bytes = per_second(n->client_bytes, o->client_bytes, span);
    avg.server_bytes = per_second(n->server_bytes, o->server_bytes, span);
    avg.xact_us = per_event(n->xact_us, o->xact_us, n->xacts - o->xacts);
    avg.query_us = per_event(n->query_us, o->query_us, n->queries - o->queries);
    avg.wait_us = per_event(n->wait_us, o->wait_us, n->server_assignments - o->server_assignments);
    avg.client_parses = per_second(n->client_parses, o->client_parses, span);
    avg.server_parses = per_second(n->server_parses, o->server_parses, span);
    avg.binds = per_second(n->binds, o->binds, span);
    avg.client_logins = per_second(n->client_logins, o->client_logins, span);
    return avg;
}
