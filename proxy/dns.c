#include "proxy/dns.h"

#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>

#include "base/arena.h"
#include "base/list.h"
#include "base/map.h"
#include "proxy/proxy.h"
#include "proxy/server.h"

struct dns_address {
    char text[DNS_ADDRESS_SIZE];
    uint64_t left_out_until_us;
};

struct dns_name {
    struct map_node node; /* dns.names */
    struct list_node list_node;
    struct dns *dns;
    char *host;
    struct dns_address *addresses;
    int n_addresses;
    int next; /* whose turn it is */
    bool answered;
    bool failed; /* the last answer */
    uint64_t looked_up_us;
    uint64_t expires_us;
    struct lookup *lookup; /* under way; NULL: none */
    struct list waiting;   /* struct dns_wait.node */
    struct timer failure;  /* tells the waiting of a failure that is remembered */
};

struct dns_wait {
    struct list_node node;
    struct conn *conn;
};

struct dns {
    struct worker *worker;
    struct map names;
    struct list list;
    int n_waiting;
    int n_lookups;
};

bool dns_is_name(const struct address *to)
{
    unsigned char binary[16];

    return !to->is_unix && inet_pton(AF_INET, to->host, binary) != 1 &&
           inet_pton(AF_INET6, to->host, binary) != 1 && strchr(to->host, '%') == NULL;
}

struct dns *dns_new(struct worker *w)
{
    struct dns *d = mem_alloc(sizeof(*d));

    d->worker = w;
    map_init(&d->names);
    list_init(&d->list);
    return d;
}

void dns_free(struct dns *d)
{
    struct list_node *n;

    while ((n = list_pop(&d->list)) != NULL) {
        struct dns_name *name = LIST_ITEM(n, struct dns_name, list_node);
        timer_unset(&d->worker->timers, &name->failure);
        while ((n = list_pop(&name->waiting)) != NULL)
            free(LIST_ITEM(n, struct dns_wait, node));
        free(name->host);
        free(name->addresses);
        free(name);
    }
    map_free(&d->names);
    free(d);
}

static struct dns_name *find(const struct dns *d, const char *host)
{
    for (struct map_node *n = map_first(&d->names, str_hash(str_from(host))); n != NULL;
         n = map_next_same(n)) {
        struct dns_name *name = MAP_ITEM(n, struct dns_name, node);
        if (strcmp(name->host, host) == 0)
            return name;
    }
    return NULL;
}

static struct dns_name *get(struct dns *d, const char *host)
{
    struct dns_name *name = find(d, host);

    if (name != NULL)
        return name;
    name = mem_alloc(sizeof(*name));
    name->dns = d;
    name->host = mem_strdup(host);
    list_init(&name->waiting);
    map_insert(&d->names, &name->node, str_hash(str_from(host)));
    list_append(&d->list, &name->list_node);
    return name;
}

static struct dns_address *find_address(struct dns_name *name, const char *address)
{
    for (int i = 0; i < name->n_addresses; i++)
        if (strcmp(name->addresses[i].text, address) == 0)
            return &name->addresses[i];
    return NULL;
}

static void look_up(struct dns_name *name)
{
    struct worker *w = name->dns->worker;

    if (name->lookup != NULL)
        return;
    struct lookup *l = mem_alloc(sizeof(*l));
    l->worker = w;
    l->host = name->host;
    name->lookup = l;
    name->dns->n_lookups++;
    w->ops->resolve(w->io, l);
}

/* ---- connecting ------------------------------------------------------------------------- */

/* Whose turn it is; those that failed of late come last. */
static const char *take_address(struct dns_name *name)
{
    uint64_t now = name->dns->worker->now_us;
    int best = name->next % name->n_addresses;

    for (int i = 0; i < name->n_addresses; i++) {
        int at = (name->next + i) % name->n_addresses;
        if (name->addresses[at].left_out_until_us <= now) {
            best = at;
            break;
        }
        if (name->addresses[at].left_out_until_us < name->addresses[best].left_out_until_us)
            best = at;
    }
    name->next = best + 1;
    return name->addresses[best].text;
}

static void connect_to(struct conn *c, struct dns_name *name)
{
    struct address to = c->peer;

    to.host = take_address(name);
    conn_set_peer(c, &to);
    c->worker->ops->connect(c->worker->io, c, &c->peer);
}

/* The answer is there, for all who wait for it. */
static void deliver(struct dns_name *name)
{
    struct list_node *n;

    while ((n = list_pop(&name->waiting)) != NULL) {
        struct dns_wait *wait = LIST_ITEM(n, struct dns_wait, node);
        struct conn *c = wait->conn;
        name->dns->n_waiting--;
        free(wait);
        if (name->n_addresses > 0)
            connect_to(c, name);
        else
            conn_on_gone(c, DNS_FAILED);
    }
}

static void on_failure(struct timer *t)
{
    deliver((struct dns_name *)(void *)((char *)t - offsetof(struct dns_name, failure)));
}

void dns_connect(struct conn *c)
{
    struct worker *w = c->worker;
    struct dns_name *name = get(w->dns, c->peer.host);
    bool fresh = name->answered && w->now_us < name->expires_us;

    if (fresh && name->n_addresses > 0) {
        connect_to(c, name);
        return;
    }
    struct dns_wait *wait = mem_alloc(sizeof(*wait));
    wait->conn = c;
    list_append(&name->waiting, &wait->node);
    w->dns->n_waiting++;
    if (!fresh)
        look_up(name);
    else if (!timer_is_set(&name->failure))
        timer_set(&w->timers, &name->failure, w->now_us, on_failure);
}

void dns_forget(struct conn *c)
{
    struct dns *d = c->worker->dns;

    if (d->n_waiting == 0 || c->socket != NULL)
        return;
    LIST_FOREACH(&d->list, n)
    {
        struct dns_name *name = LIST_ITEM(n, struct dns_name, list_node);
        LIST_FOREACH(&name->waiting, wn)
        {
            struct dns_wait *wait = LIST_ITEM(wn, struct dns_wait, node);
            if (wait->conn != c)
                continue;
            list_remove(&name->waiting, &wait->node);
            free(wait);
            d->n_waiting--;
            return;
        }
    }
}

/* ---- answers ---------------------------------------------------------------------------- */

static bool says(const struct lookup *l, const char *address)
{
    for (int i = 0; i < l->n_addresses; i++)
        if (strcmp(l->addresses[i], address) == 0)
            return true;
    return false;
}

/* Takes the addresses over; what is known of those that stay is kept. True: some are gone. */
static bool take_answer(struct dns_name *name, const struct lookup *l)
{
    struct dns_address *fresh = mem_alloc((size_t)l->n_addresses * sizeof(*fresh) + 1);
    bool lost = false;
    int n = 0;

    for (int i = 0; i < name->n_addresses; i++)
        lost = lost || !says(l, name->addresses[i].text);
    for (int i = 0; i < l->n_addresses; i++) {
        bool again = false;
        for (int k = 0; k < n; k++)
            again = again || strcmp(fresh[k].text, l->addresses[i]) == 0;
        if (again)
            continue;
        struct dns_address *known = find_address(name, l->addresses[i]);
        if (known != NULL)
            fresh[n] = *known;
        else
            memcpy(fresh[n].text, l->addresses[i], sizeof(fresh[n].text));
        n++;
    }
    free(name->addresses);
    name->addresses = fresh;
    name->n_addresses = n;
    return lost;
}

/* An address is gone: another worker may have servers that are connected to it. */
struct news {
    struct letter letter; /* first */
    char host[];
};

static void on_news(struct worker *w, struct letter *l)
{
    struct news *news = (struct news *)(void *)l;
    bool used = false;

    LIST_FOREACH(&w->servers, n)
    {
        const struct server *s = LIST_ITEM(n, struct server, worker_node);
        used = used || (s->host_name != NULL && strcmp(s->host_name, news->host) == 0);
    }
    if (used && !w->proxy->ending)
        look_up(get(w->dns, news->host));
    free(news);
}

static void tell_others(const struct dns_name *name)
{
    struct worker *w = name->dns->worker;
    size_t len = strlen(name->host) + 1;

    for (int i = 0; i < w->proxy->n_workers; i++) {
        struct worker *to = w->proxy->workers[i];
        if (to == w)
            continue;
        struct news *news = mem_alloc(sizeof(*news) + len);
        news->letter.deliver = on_news;
        memcpy(news->host, name->host, len);
        worker_post(to, &news->letter);
    }
}

void dns_on_answer(struct lookup *l)
{
    struct worker *w = l->worker;
    const struct config *conf = w->proxy->config;
    struct dns_name *name = find(w->dns, l->host);
    bool lost = false;
    int64_t ttl = conf->dns_max_ttl_us;

    name->lookup = NULL;
    name->dns->n_lookups--;
    name->answered = true;
    name->failed = l->result != LOOKUP_FOUND || l->n_addresses == 0;
    name->looked_up_us = w->now_us;
    if (!name->failed) {
        lost = take_answer(name, l);
    } else {
        ttl = conf->dns_nxdomain_ttl_us;
        /* Without an answer the last one is the best there is. */
        if (l->result == LOOKUP_NO_SUCH_NAME)
            name->n_addresses = 0;
        log_line(w->proxy->log, LEVEL_WARNING, "DNS lookup failed: %s: %s", name->host,
                 l->result == LOOKUP_NO_ANSWER ? "no answer" : "no such name");
    }
    name->expires_us = w->now_us + (uint64_t)ttl;
    free(l);
    if (!name->failed)
        server_on_addresses(w, name->host);
    if (lost)
        tell_others(name);
    deliver(name);
}

/* ---- what is known ---------------------------------------------------------------------- */

void dns_failed(struct worker *w, const char *host, const char *address, uint64_t until_us)
{
    struct dns_name *name = find(w->dns, host);
    struct dns_address *a = name != NULL ? find_address(name, address) : NULL;

    if (a != NULL)
        a->left_out_until_us = until_us;
}

bool dns_has_other(struct worker *w, const char *host)
{
    struct dns_name *name = find(w->dns, host);

    for (int i = 0; name != NULL && i < name->n_addresses; i++)
        if (name->addresses[i].left_out_until_us <= w->now_us)
            return true;
    return false;
}

bool dns_has(struct worker *w, const char *host, const char *address)
{
    struct dns_name *name = find(w->dns, host);

    return name == NULL || find_address(name, address) != NULL;
}

void dns_upkeep(struct worker *w)
{
    int64_t period = w->proxy->config->dns_zone_check_period_us;

    if (period <= 0)
        return;
    LIST_FOREACH(&w->servers, n)
    {
        const struct server *s = LIST_ITEM(n, struct server, worker_node);
        if (s->host_name == NULL || strcmp(s->host_name, s->conn.peer.host) == 0)
            continue;
        struct dns_name *name = get(w->dns, s->host_name);
        if (!name->answered || w->now_us - name->looked_up_us >= (uint64_t)period)
            look_up(name);
    }
}

void dns_show(const struct worker *w,
              void (*row)(void *arg, const char *host, int64_t ttl_s, const char *addresses),
              void *arg)
{
    struct text t;

    text_init(&t);
    LIST_FOREACH(&w->dns->list, n)
    {
        const struct dns_name *name = LIST_ITEM(n, struct dns_name, list_node);
        uint64_t now = w->now_us;
        text_clear(&t);
        for (int i = 0; i < name->n_addresses; i++)
            text_printf(&t, "%s%s", i > 0 ? "," : "", name->addresses[i].text);
        row(arg, name->host,
            name->expires_us > now ? (int64_t)((name->expires_us - now) / 1000000) : 0,
            t.len > 0 ? t.ptr : "");
    }
    text_free(&t);
}

bool dns_knows(const struct worker *w, const char *host)
{
    return find(w->dns, host) != NULL;
}

int dns_count_lookups(const struct worker *w)
{
    return w->dns->n_lookups;
}
