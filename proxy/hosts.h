/* Which of several hosts of a database entry is connected to next.
 *
 * They take turns, or (load_balance_hosts = disable) one is used until it fails. A host that could
 * not be connected to, or that is not what target_session_attrs asks for, is left out for a while,
 * longer each time, so that the others serve meanwhile; when all are left out, the one whose time
 * is up first is tried. Numbers in, numbers out: the owner keeps the lock and the clock.
 */
#ifndef PGTRICKLE_PROXY_HOSTS_H
#define PGTRICKLE_PROXY_HOSTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct host_state {
    uint64_t left_out_until_us; /* 0: not left out */
    unsigned failures;          /* one after the other */
};

struct hosts {
    struct host_state *states; /* malloc */
    int n;
    int next;
};

void hosts_init(struct hosts *h, size_t n); /* also anew: what was known is forgotten */
void hosts_fini(struct hosts *h);

/* The index of the host for the next connection; h->n > 0. */
int hosts_take(struct hosts *h, bool sticky, uint64_t now_us);
/* random: anything, so that many do not come back at the same time. */
void hosts_failed(struct hosts *h, int i, uint64_t now_us, int64_t retry_us, uint16_t random);
void hosts_worked(struct hosts *h, int i);
/* Some host is not left out. */
bool hosts_has_other(const struct hosts *h, uint64_t now_us);

/* How long something that failed so often is left out: about retry_us, doubled each time, five
 * minutes at most. */
uint64_t hosts_pause_us(unsigned failures, int64_t retry_us, uint16_t random);

#endif
