#include "proxy/ldap_options.h"

#include <stdlib.h>

#include "base/text.h"
#include "proxy/rules_file.h"

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* Percent-decoded; NULL for an empty part. */
static const char *decode(struct arena *a, struct str part)
{
    char *out = arena_alloc(a, part.len + 1);
    size_t n = 0;

    for (size_t i = 0; i < part.len; i++) {
        if (part.ptr[i] == '%' && i + 2 < part.len && hex(part.ptr[i + 1]) >= 0 &&
            hex(part.ptr[i + 2]) >= 0) {
            out[n] = (char)(hex(part.ptr[i + 1]) * 16 + hex(part.ptr[i + 2]));
            i += 2;
        } else {
            out[n] = part.ptr[i];
        }
        if (out[n++] == '\0')
            return NULL;
    }
    return part.len > 0 ? out : NULL;
}

/* What stands before the first of `ends`, which goes too. */
static struct str take_until(struct str *s, char end)
{
    const char *at = s->len > 0 ? memchr(s->ptr, end, s->len) : NULL;
    size_t n = at != NULL ? (size_t)(at - s->ptr) : s->len;
    struct str part = { s->ptr, n };

    n += at != NULL;
    *s = (struct str){ s->ptr + n, s->len - n };
    return part;
}

static bool parse_port(const char *text, int *port)
{
    char *end;
    long n = strtol(text, &end, 10);

    *port = (int)n;
    return text[0] != '\0' && *end == '\0' && n > 0 && n < 65536;
}

/* RFC 4516: scheme://host:port/dn?attributes?scope?filter */
static bool set_url(struct ldap_options *o, struct arena *a, const char *url, struct err *e)
{
    struct str s = { url, strlen(url) };

    if (str_starts_with(s, STR("ldap://"))) {
        o->scheme = "ldap";
        s = (struct str){ s.ptr + 7, s.len - 7 };
    } else if (str_starts_with(s, STR("ldaps://"))) {
        o->scheme = "ldaps";
        s = (struct str){ s.ptr + 8, s.len - 8 };
    } else {
        return err_set(e, ERR_CONFIG, "F0000", "unsupported LDAP URL: \"%s\"", url);
    }
    struct str host = take_until(&s, '/');
    const char *colon = host.len > 0 ? memrchr(host.ptr, ':', host.len) : NULL;
    /* A colon inside of brackets is an IPv6 address's. */
    if (colon != NULL && memchr(colon, ']', host.len - (size_t)(colon - host.ptr)) == NULL) {
        size_t n = (size_t)(colon - host.ptr);
        if (!parse_port(arena_strndup(a, colon + 1, host.len - n - 1), &o->port))
            return err_set(e, ERR_CONFIG, "F0000", "invalid port in LDAP URL: \"%s\"", url);
        host.len = n;
    }
    o->server = decode(a, host);
    o->base_dn = decode(a, take_until(&s, '?'));
    o->search_attribute = decode(a, take_until(&s, '?'));
    struct str scope = take_until(&s, '?');
    if (scope.len == 0 || str_equal(scope, STR("base")))
        o->scope = LDAP_BASE;
    else if (str_equal(scope, STR("one")))
        o->scope = LDAP_ONE_LEVEL;
    else if (str_equal(scope, STR("sub")))
        o->scope = LDAP_SUBTREE;
    else
        return err_set(e, ERR_CONFIG, "F0000", "invalid scope in LDAP URL: \"%s\"", url);
    o->search_filter = decode(a, take_until(&s, '?'));
    return true;
}

bool ldap_options_set(struct ldap_options *o, struct arena *a, const char *word, const char *value,
                      struct err *e)
{
    const struct {
        const char *word;
        const char **field;
    } strings[] = {
        { "ldapserver", &o->server },
        { "ldapprefix", &o->prefix },
        { "ldapsuffix", &o->suffix },
        { "ldapbasedn", &o->base_dn },
        { "ldapbinddn", &o->bind_dn },
        { "ldapbindpasswd", &o->bind_password },
        { "ldapsearchattribute", &o->search_attribute },
        { "ldapsearchfilter", &o->search_filter },
    };

    for (size_t i = 0; i < sizeof(strings) / sizeof(strings[0]); i++) {
        if (strcmp(word, strings[i].word) == 0) {
            *strings[i].field = arena_strdup(a, value);
            return true;
        }
    }
    if (strcmp(word, "ldapurl") == 0)
        return set_url(o, a, value, e);
    if (strcmp(word, "ldapscheme") == 0) {
        if (strcmp(value, "ldap") != 0 && strcmp(value, "ldaps") != 0)
            return err_set(e, ERR_CONFIG, "F0000", "invalid ldapscheme value: \"%s\"", value);
        o->scheme = arena_strdup(a, value);
        return true;
    }
    if (strcmp(word, "ldapport") == 0) {
        if (!parse_port(value, &o->port))
            return err_set(e, ERR_CONFIG, "F0000", "invalid LDAP port number: \"%s\"", value);
        return true;
    }
    if (strcmp(word, "ldaptls") == 0) {
        if (strcmp(value, "0") != 0 && strcmp(value, "1") != 0)
            return err_set(e, ERR_CONFIG, "F0000", "invalid ldaptls value: \"%s\"", value);
        o->tls = value[0] == '1';
        return true;
    }
    return err_set(e, ERR_CONFIG, "F0000", "unrecognized authentication option name: \"%s\"", word);
}

bool ldap_options_check(const struct ldap_options *o, struct err *e)
{
    bool searches = o->base_dn != NULL || o->bind_dn != NULL || o->bind_password != NULL ||
                    o->search_attribute != NULL || o->search_filter != NULL;

    if ((o->prefix != NULL || o->suffix != NULL) && searches)
        return err_set(e, ERR_CONFIG, "F0000",
                       "ldapprefix and ldapsuffix can't be used together with a search");
    if (o->prefix == NULL && o->suffix == NULL && o->base_dn == NULL)
        return err_set(e, ERR_CONFIG, "F0000",
                       "ldap requires \"ldapbasedn\", \"ldapprefix\", or \"ldapsuffix\" to be set");
    if (o->search_attribute != NULL && o->search_filter != NULL)
        return err_set(e, ERR_CONFIG, "F0000",
                       "ldapsearchattribute can't be used together with ldapsearchfilter");
    return true;
}

bool ldap_options_parse(struct ldap_options *o, struct arena *a, struct str text, struct err *e)
{
    struct rules_field words;

    *o = (struct ldap_options){ 0 };
    if (!rules_words(text, a, &words))
        return err_set(e, ERR_CONFIG, "F0000", "a quote is not closed");
    for (size_t i = 0; i < words.n; i++) {
        const char *eq = strchr(words.words[i].text, '=');
        if (eq == NULL)
            return err_set(e, ERR_CONFIG, "F0000",
                           "authentication option not in name=value format: %s",
                           words.words[i].text);
        char *name = arena_strndup(a, words.words[i].text, (size_t)(eq - words.words[i].text));
        if (!ldap_options_set(o, a, name, eq + 1, e))
            return false;
    }
    return ldap_options_check(o, e);
}

bool ldap_options_filter(const struct ldap_options *o, const char *user, struct arena *a,
                         const char **filter)
{
    /* As PostgreSQL: none of these is worth a bug in escaping. */
    if (strpbrk(user, "*()\\/") != NULL)
        return false;
    if (o->search_filter == NULL) {
        *filter = arena_printf(a, "(%s=%s)",
                               o->search_attribute != NULL ? o->search_attribute : "uid", user);
        return true;
    }
    struct text t;
    const char *at = o->search_filter, *found;
    text_init(&t);
    while ((found = strstr(at, "$username")) != NULL) {
        text_put_bytes(&t, at, (size_t)(found - at));
        text_put(&t, user);
        at = found + strlen("$username");
    }
    text_put(&t, at);
    *filter = arena_strndup(a, t.ptr, t.len);
    text_free(&t);
    return true;
}
