#include "proxy/hba.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <regex.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/socket.h>

enum record {
    RECORD_LOCAL,
    RECORD_HOST,
    RECORD_HOSTSSL,
    RECORD_HOSTNOSSL,
    RECORD_NEVER,
};

enum address_kind {
    ADDRESS_ALL,
    ADDRESS_MASK,
    ADDRESS_SAMEHOST,
    ADDRESS_SAMENET,
};

/* An IPv4 address, or one mapped into IPv6, has 4 bytes. */
struct ip {
    unsigned char bytes[16];
    unsigned len;
};

struct interface {
    struct ip address;
    struct ip mask;
    struct interface *next;
};

/* One word of a list of databases or users. */
struct name {
    enum {
        NAME_IS,
        NAME_ALL,
        NAME_SAMEUSER,
        NAME_REPLICATION,
        NAME_REGEX,
    } kind;
    const char *text;
    regex_t *regex;
};

struct names {
    struct name *at;
    size_t n;
};

struct rule {
    struct hba_rule shown;
    enum record record;
    struct names databases;
    struct names users;
    enum address_kind address_kind;
    struct ip address;
    struct ip mask;
    struct rule *next;
};

struct compiled {
    regex_t regex;
    struct compiled *next;
};

struct hba {
    struct arena arena; /* holds the struct itself */
    atomic_int references;
    struct rules_file file;
    struct rule *first;
    size_t n;
    struct interface *interfaces; /* of this machine, when the file was read */
    bool interfaces_known;
    struct compiled *compiled;
};

static const char *const method_names[] = {
    [HBA_TRUST] = "trust",
    [HBA_REJECT] = "reject",
    [HBA_MD5] = "md5",
    [HBA_PASSWORD] = "password",
    [HBA_SCRAM_SHA_256] = "scram-sha-256",
    [HBA_CERT] = "cert",
    [HBA_PEER] = "peer",
    [HBA_LDAP] = "ldap",
    [HBA_PAM] = "pam",
};

const char *hba_method_name(enum hba_method m)
{
    return method_names[m];
}

/* ---- addresses -------------------------------------------------------------------------- */

static bool ip_parse(const char *text, struct ip *ip)
{
    static const unsigned char mapped[12] = { [10] = 0xff, [11] = 0xff };

    if (inet_pton(AF_INET, text, ip->bytes) == 1) {
        ip->len = 4;
        return true;
    }
    if (inet_pton(AF_INET6, text, ip->bytes) != 1)
        return false;
    ip->len = 16;
    if (memcmp(ip->bytes, mapped, sizeof(mapped)) == 0) {
        memmove(ip->bytes, ip->bytes + 12, 4);
        ip->len = 4;
    }
    return true;
}

/* Of a link-local address the scope is told too: "fe80::1%eth0". */
static bool peer_ip(const char *text, struct ip *ip)
{
    char bare[64];
    size_t n = strcspn(text, "%");

    if (n >= sizeof(bare))
        return false;
    memcpy(bare, text, n);
    bare[n] = '\0';
    return ip_parse(bare, ip);
}

static void ip_mask(struct ip *mask, unsigned len, unsigned bits)
{
    *mask = (struct ip){ .len = len };
    for (unsigned i = 0; i < len && bits > 0; i++) {
        unsigned n = bits < 8 ? bits : 8;
        mask->bytes[i] = (unsigned char)(0xff << (8 - n));
        bits -= n;
    }
}

static bool ip_in(const struct ip *ip, const struct ip *net, const struct ip *mask)
{
    if (ip->len != net->len || ip->len != mask->len)
        return false;
    for (unsigned i = 0; i < ip->len; i++)
        if ((ip->bytes[i] ^ net->bytes[i]) & mask->bytes[i])
            return false;
    return true;
}

static bool ip_of_sockaddr(const struct sockaddr *sa, struct ip *ip)
{
    char text[INET6_ADDRSTRLEN];
    const void *from = NULL;

    if (sa != NULL && sa->sa_family == AF_INET)
        from = &((const struct sockaddr_in *)(const void *)sa)->sin_addr;
    else if (sa != NULL && sa->sa_family == AF_INET6)
        from = &((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr;
    return from != NULL && inet_ntop(sa->sa_family, from, text, sizeof(text)) != NULL &&
           ip_parse(text, ip);
}

static void learn_interfaces(struct hba *h)
{
    struct ifaddrs *all = NULL;

    if (h->interfaces_known)
        return;
    h->interfaces_known = true;
    if (getifaddrs(&all) != 0)
        return;
    for (const struct ifaddrs *i = all; i != NULL; i = i->ifa_next) {
        struct interface *kept;
        struct ip address, mask;
        if ((i->ifa_flags & IFF_UP) == 0 || !ip_of_sockaddr(i->ifa_addr, &address) ||
            !ip_of_sockaddr(i->ifa_netmask, &mask) || address.len != mask.len)
            continue;
        kept = arena_new(&h->arena, struct interface);
        *kept = (struct interface){ address, mask, h->interfaces };
        h->interfaces = kept;
    }
    freeifaddrs(all);
}

static bool ip_is_ours(const struct hba *h, const struct ip *ip, bool whole_net)
{
    for (const struct interface *i = h->interfaces; i != NULL; i = i->next) {
        struct ip all;
        ip_mask(&all, i->address.len, 128);
        if (ip_in(ip, &i->address, whole_net ? &i->mask : &all))
            return true;
    }
    return false;
}

/* ---- reading ---------------------------------------------------------------------------- */

/* NULL, or why the line is bad. `at` is the next field. */
static const char *read_address(struct hba *h, struct rule *r, const struct rules_line *l,
                                size_t *at)
{
    const struct rules_field *f = &l->fields[*at];
    char host[64];

    if (*at >= l->n)
        return "the address is missing";
    if (f->n != 1)
        return "there is more than one address";
    const struct rules_word *w = &f->words[0];
    (*at)++;
    if (!w->quoted && strcmp(w->text, "all") == 0) {
        r->address_kind = ADDRESS_ALL;
        return NULL;
    }
    if (!w->quoted && (strcmp(w->text, "samehost") == 0 || strcmp(w->text, "samenet") == 0)) {
        r->address_kind = w->text[4] == 'h' ? ADDRESS_SAMEHOST : ADDRESS_SAMENET;
        learn_interfaces(h);
        return NULL;
    }
    r->address_kind = ADDRESS_MASK;
    const char *slash = strchr(w->text, '/');
    size_t len = slash != NULL ? (size_t)(slash - w->text) : strlen(w->text);
    if (len >= sizeof(host))
        return "the address is invalid";
    memcpy(host, w->text, len);
    host[len] = '\0';
    if (!ip_parse(host, &r->address))
        return "the address is no IP address (host names are not supported)";
    if (slash != NULL) {
        char *end;
        unsigned long bits = strtoul(slash + 1, &end, 10);
        if (slash[1] < '0' || slash[1] > '9' || *end != '\0' || bits > r->address.len * 8)
            return "the number of bits of the address is invalid";
        ip_mask(&r->mask, r->address.len, (unsigned)bits);
        return NULL;
    }
    if (*at >= l->n || l->fields[*at].n != 1)
        return "the address needs /bits, or a mask as the next field";
    if (!ip_parse(l->fields[*at].words[0].text, &r->mask))
        return "the mask is no IP address";
    if (r->mask.len != r->address.len)
        return "the address and the mask are of different families";
    (*at)++;
    return NULL;
}

static const char *compile(struct hba *h, const char *pattern, regex_t **out)
{
    struct compiled *c = mem_alloc(sizeof(*c));

    if (regcomp(&c->regex, pattern, REG_EXTENDED | REG_NOSUB) != 0) {
        free(c);
        return "a regular expression is invalid";
    }
    c->next = h->compiled;
    h->compiled = c;
    *out = &c->regex;
    return NULL;
}

static const char *read_names(struct hba *h, const struct rules_field *f, bool databases,
                              struct names *out)
{
    out->at = arena_new_array(&h->arena, struct name, f->n);
    out->n = f->n;
    for (size_t i = 0; i < f->n; i++) {
        const struct rules_word *w = &f->words[i];
        struct name *n = &out->at[i];
        const char *why = NULL;
        n->text = w->text;
        if (w->quoted)
            n->kind = NAME_IS;
        else if (strcmp(w->text, "all") == 0)
            n->kind = NAME_ALL;
        else if (databases && strcmp(w->text, "sameuser") == 0)
            n->kind = NAME_SAMEUSER;
        else if (databases && strcmp(w->text, "replication") == 0)
            n->kind = NAME_REPLICATION;
        else if (databases &&
                 (strcmp(w->text, "samerole") == 0 || strcmp(w->text, "samegroup") == 0))
            why = "samerole is not supported: the members of roles are not known here";
        else if (w->text[0] == '+')
            why = "groups are not supported: the members of roles are not known here";
        else if (w->text[0] == '/')
            n->kind = NAME_REGEX, why = compile(h, w->text + 1, &n->regex);
        else
            n->kind = NAME_IS;
        if (why != NULL)
            return why;
    }
    return NULL;
}

static const char *read_option(struct hba *h, struct rule *r, const char *text)
{
    const char *eq = strchr(text, '=');
    struct err e = { 0 };
    const char *why = NULL;
    enum hba_method m = r->shown.method;

    if (eq == NULL)
        return arena_printf(&h->arena, "authentication option not in name=value format: %s", text);
    const char *name = arena_strndup(&h->arena, text, (size_t)(eq - text));
    if (strcmp(name, "map") == 0) {
        r->shown.map = eq + 1;
        return m == HBA_CERT || m == HBA_PEER ? NULL : "map= is for cert and peer";
    }
    if (strcmp(name, "pamservice") == 0) {
        r->shown.pam_service = eq + 1;
        return m == HBA_PAM ? NULL : "pamservice= is for pam";
    }
    if (m != HBA_LDAP)
        return arena_printf(&h->arena, "unrecognized authentication option name: \"%s\"", name);
    if (!ldap_options_set(&r->shown.ldap, &h->arena, name, eq + 1, &e))
        why = arena_strdup(&h->arena, e.message);
    err_clear(&e);
    return why;
}

static const char *read_method(struct hba *h, struct rule *r, const struct rules_line *l, size_t at)
{
    if (at >= l->n || l->fields[at].n != 1)
        return at >= l->n ? "the method is missing" : "there is more than one method";
    const char *name = l->fields[at].words[0].text;
    size_t m = 0;
    while (m < sizeof(method_names) / sizeof(method_names[0]) && strcmp(method_names[m], name) != 0)
        m++;
    if (m == sizeof(method_names) / sizeof(method_names[0]))
        return arena_printf(&h->arena, "the method \"%s\" is not supported", name);
    r->shown.method = (enum hba_method)m;
    if (r->shown.method == HBA_PEER && r->record != RECORD_LOCAL)
        return "peer is for local connections";
    if (r->shown.method == HBA_CERT && r->record != RECORD_HOSTSSL)
        return "cert is for hostssl connections";
    for (at++; at < l->n; at++) {
        for (size_t i = 0; i < l->fields[at].n; i++) {
            const char *why = read_option(h, r, l->fields[at].words[i].text);
            if (why != NULL)
                return why;
        }
    }
    struct err e = { 0 };
    const char *why = NULL;
    if (r->shown.method == HBA_LDAP && !ldap_options_check(&r->shown.ldap, &e))
        why = arena_strdup(&h->arena, e.message);
    err_clear(&e);
    return why;
}

static const char *read_rule(struct hba *h, struct rule *r, const struct rules_line *l)
{
    static const struct {
        const char *word;
        enum record record;
    } records[] = {
        { "local", RECORD_LOCAL },       { "host", RECORD_HOST },
        { "hostssl", RECORD_HOSTSSL },   { "hostnossl", RECORD_HOSTNOSSL },
        { "hostnogssenc", RECORD_HOST }, { "hostgssenc", RECORD_NEVER },
    };
    const char *why, *type = l->fields[0].words[0].text;
    size_t i = 0, n = sizeof(records) / sizeof(records[0]);

    if (l->fields[0].n != 1)
        return "there is more than one connection type";
    while (i < n && strcmp(records[i].word, type) != 0)
        i++;
    if (i == n)
        return arena_printf(&h->arena, "invalid connection type \"%s\"", type);
    r->record = records[i].record;
    if (l->n < 2)
        return "the database is missing";
    if (l->n < 3)
        return "the user is missing";
    if ((why = read_names(h, &l->fields[1], true, &r->databases)) != NULL ||
        (why = read_names(h, &l->fields[2], false, &r->users)) != NULL)
        return why;
    size_t at = 3;
    if (r->record != RECORD_LOCAL && (why = read_address(h, r, l, &at)) != NULL)
        return why;
    return read_method(h, r, l, at);
}

static struct hba *hba_new(void)
{
    struct arena arena;

    arena_init(&arena);
    struct hba *h = arena_new(&arena, struct hba);
    atomic_init(&h->references, 1);
    h->arena = arena;
    return h;
}

static void read_rules(struct hba *h)
{
    struct rule **last = &h->first;

    for (const struct rules_line *l = h->file.first; l != NULL; l = l->next) {
        struct rule *r = arena_new(&h->arena, struct rule);
        r->shown.file = l->file;
        r->shown.line = l->number;
        const char *why = read_rule(h, r, l);
        if (why != NULL) {
            rules_file_bad(&h->file, l->file, l->number, "%s", why);
            continue;
        }
        *last = r;
        last = &r->next;
        h->n++;
    }
}

struct hba *hba_parse(struct str text, const char *name)
{
    struct hba *h = hba_new();

    rules_file_parse(&h->file, &h->arena, text, name);
    read_rules(h);
    return h;
}

struct hba *hba_load(const char *path, struct err *e)
{
    struct hba *h = hba_new();

    if (!rules_file_load(&h->file, &h->arena, path, e)) {
        hba_unref(h);
        return NULL;
    }
    read_rules(h);
    return h;
}

struct hba *hba_ref(struct hba *h)
{
    if (h != NULL)
        atomic_fetch_add_explicit(&h->references, 1, memory_order_relaxed);
    return h;
}

void hba_unref(struct hba *h)
{
    if (h == NULL || atomic_fetch_sub_explicit(&h->references, 1, memory_order_acq_rel) != 1)
        return;
    for (struct compiled *c = h->compiled, *next; c != NULL; c = next) {
        next = c->next;
        regfree(&c->regex);
        free(c);
    }
    struct arena arena = h->arena;
    arena_free(&arena);
}

const struct rules_complaint *hba_bad_lines(const struct hba *h)
{
    return h->file.bad;
}

size_t hba_rule_count(const struct hba *h)
{
    return h != NULL ? h->n : 0;
}

/* ---- asking ----------------------------------------------------------------------------- */

/* The one who connects chooses these names: how long they are is bounded (proxy/login.c), and so is
 * what a match may cost. */
static bool name_matches(const struct name *n, const char *name, const struct hba_peer *peer)
{
    switch (n->kind) {
    case NAME_ALL:
        return true;
    case NAME_SAMEUSER:
        return strcmp(peer->database, peer->user) == 0;
    case NAME_REPLICATION:
        return false;
    case NAME_REGEX:
        return regexec(n->regex, name, 0, NULL, 0) == 0;
    case NAME_IS:
        break;
    }
    return strcmp(n->text, name) == 0;
}

/* A physical replication connection has no database: only the keyword is for it. */
static bool database_matches(const struct names *list, const struct hba_peer *peer)
{
    for (size_t i = 0; i < list->n; i++) {
        if (peer->is_physical_replication ? list->at[i].kind == NAME_REPLICATION
                                          : name_matches(&list->at[i], peer->database, peer))
            return true;
    }
    return false;
}

static bool user_matches(const struct names *list, const struct hba_peer *peer)
{
    for (size_t i = 0; i < list->n; i++)
        if (name_matches(&list->at[i], peer->user, peer))
            return true;
    return false;
}

static bool address_matches(const struct hba *h, const struct rule *r, const struct ip *ip)
{
    switch (r->address_kind) {
    case ADDRESS_ALL:
        return true;
    case ADDRESS_SAMEHOST:
    case ADDRESS_SAMENET:
        return ip_is_ours(h, ip, r->address_kind == ADDRESS_SAMENET);
    case ADDRESS_MASK:
        break;
    }
    return ip_in(ip, &r->address, &r->mask);
}

const struct hba_rule *hba_find(const struct hba *h, const struct hba_peer *peer)
{
    struct ip ip = { .len = 0 };

    if (h == NULL || (!peer->is_unix && !peer_ip(peer->address, &ip)))
        return NULL;
    for (const struct rule *r = h->first; r != NULL; r = r->next) {
        bool record = false;
        switch (r->record) {
        case RECORD_LOCAL:
            record = peer->is_unix;
            break;
        case RECORD_HOST:
            record = !peer->is_unix;
            break;
        case RECORD_HOSTSSL:
            record = !peer->is_unix && peer->is_tls;
            break;
        case RECORD_HOSTNOSSL:
            record = !peer->is_unix && !peer->is_tls;
            break;
        case RECORD_NEVER:
            break;
        }
        if (record && database_matches(&r->databases, peer) && user_matches(&r->users, peer) &&
            (peer->is_unix || address_matches(h, r, &ip)))
            return &r->shown;
    }
    return NULL;
}
