#include "proxy/hosts.h"

#include <stdlib.h>

#include "base/arena.h"

#define PAUSE_MIN_US 1000000
#define PAUSE_MAX_US 300000000

void hosts_init(struct hosts *h, size_t n)
{
    hosts_fini(h);
    *h = (struct hosts){ .n = (int)n };
    if (n > 0)
        h->states = mem_alloc(n * sizeof(*h->states));
}

void hosts_fini(struct hosts *h)
{
    free(h->states);
    h->states = NULL;
}

int hosts_take(struct hosts *h, bool sticky, uint64_t now_us)
{
    int best = h->next % h->n;

    for (int i = 0; i < h->n; i++) {
        int at = (h->next + i) % h->n;
        if (h->states[at].left_out_until_us <= now_us) {
            best = at;
            break;
        }
        if (h->states[at].left_out_until_us < h->states[best].left_out_until_us)
            best = at;
    }
    h->next = sticky ? best : best + 1;
    return best;
}

uint64_t hosts_pause_us(unsigned failures, int64_t retry_us, uint16_t random)
{
    uint64_t pause = retry_us > PAUSE_MIN_US ? (uint64_t)retry_us : PAUSE_MIN_US;

    while (failures-- > 1 && pause < PAUSE_MAX_US)
        pause *= 2;
    if (pause > PAUSE_MAX_US)
        pause = PAUSE_MAX_US;
    return pause - pause / 4 * random / UINT16_MAX;
}

void hosts_failed(struct hosts *h, int i, uint64_t now_us, int64_t retry_us, uint16_t random)
{
    if (i >= h->n)
        return;
    struct host_state *s = &h->states[i];
    s->failures++;
    s->left_out_until_us = now_us + hosts_pause_us(s->failures, retry_us, random);
    if (h->next == i)
        h->next = (i + 1) % h->n;
}

void hosts_worked(struct hosts *h, int i)
{
    if (i < h->n)
        h->states[i] = (struct host_state){ 0 };
}

bool hosts_has_other(const struct hosts *h, uint64_t now_us)
{
    for (int i = 0; i < h->n; i++)
        if (h->states[i].left_out_until_us <= now_us)
            return true;
    return false;
}
