#include "proxy/auth_rules.h"

#include "proxy/hba.h"
#include "proxy/ident.h"
#include "proxy/proxy.h"

static void warn(struct proxy *p, const struct rules_complaint *bad)
{
    for (; bad != NULL; bad = bad->next)
        log_line(p->log, LEVEL_WARNING, "%s:%d: %s: the line is ignored", bad->file, bad->number,
                 bad->why);
}

static bool load_hba(struct proxy *p, struct err *e)
{
    const char *path = p->config->auth_hba_file;
    struct hba *fresh = path[0] != '\0' ? hba_load(path, e) : NULL;

    if (fresh == NULL && path[0] != '\0')
        return false;
    hba_unref(p->hba);
    p->hba = fresh;
    if (fresh != NULL)
        warn(p, hba_bad_lines(fresh));
    return true;
}

static bool load_ident(struct proxy *p, struct err *e)
{
    const char *path = p->config->auth_ident_file;
    struct ident *fresh = path[0] != '\0' ? ident_load(path, e) : NULL;

    if (fresh == NULL && path[0] != '\0')
        return false;
    ident_unref(p->ident);
    p->ident = fresh;
    if (fresh != NULL)
        warn(p, ident_bad_lines(fresh));
    return true;
}

static bool check_ldap(const struct proxy *p, struct err *e)
{
    struct ldap_options options;
    struct arena a;

    if (p->config->auth_type != AUTH_TYPE_LDAP)
        return true;
    arena_init(&a);
    bool ok = ldap_options_parse(&options, &a, str_from(p->config->auth_ldap_options), e);
    arena_free(&a);
    return ok;
}

bool auth_rules_load(struct proxy *p, struct err *e)
{
    struct err first = { 0 }, second = { 0 }, third = { 0 };

    if (!load_ident(p, &second))
        log_line(p->log, LEVEL_ERROR, "auth_ident_file: %s", second.message);
    if (!load_hba(p, &first))
        log_line(p->log, LEVEL_ERROR, "auth_hba_file: %s", first.message);
    if (!check_ldap(p, &third))
        log_line(p->log, LEVEL_ERROR, "auth_ldap_options: %s", third.message);
    bool ok = !err_is_set(&first) && !err_is_set(&second) && !err_is_set(&third);
    if (!ok)
        err_move(e, err_is_set(&first) ? &first : err_is_set(&second) ? &second : &third);
    err_clear(&first);
    err_clear(&second);
    err_clear(&third);
    return ok;
}

void auth_rules_free(struct proxy *p)
{
    hba_unref(p->hba);
    ident_unref(p->ident);
    p->hba = NULL;
    p->ident = NULL;
}
