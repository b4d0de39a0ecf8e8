#include "proxy/io/outside.h"

#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ldap.h>
#include <security/pam_appl.h>

#include "base/arena.h"
#include "base/text.h"
#include "proxy/outside.h"

/* An LDAP server that does not answer keeps a helper thread no longer than this. */
#define LDAP_SECONDS 10

static void because(struct outside_question *q, const char *what, const char *why)
{
    snprintf(q->why, sizeof(q->why), "%s: %s", what, why);
}

/* ---- the system's users ----------------------------------------------------------------- */

static void ask_user_name(struct outside_question *q)
{
    struct passwd entry, *found = NULL;
    char space[16384];
    int rc;

    do
        rc = getpwuid_r(q->uid, &entry, space, sizeof(space), &found);
    while (rc == EINTR);
    if (found == NULL) {
        snprintf(q->why, sizeof(q->why), "the user id %ld has no name: %s", (long)q->uid,
                 rc != 0 ? strerror(rc) : "not found");
        return;
    }
    q->yes = (size_t)snprintf(q->name, sizeof(q->name), "%s", found->pw_name) < sizeof(q->name);
}

/* ---- PAM -------------------------------------------------------------------------------- */

/* Every prompt that is not echoed gets the password; PAM frees the answers. */
static int converse(int n, const struct pam_message **messages, struct pam_response **answers,
                    void *arg)
{
    const struct outside_question *q = arg;

    if (n <= 0 || n > PAM_MAX_NUM_MSG)
        return PAM_CONV_ERR;
    struct pam_response *out = calloc((size_t)n, sizeof(*out));
    if (out == NULL)
        return PAM_BUF_ERR;
    for (int i = 0; i < n; i++)
        if (messages[i]->msg_style == PAM_PROMPT_ECHO_OFF)
            out[i].resp = mem_strdup(q->password);
    *answers = out;
    return PAM_SUCCESS;
}

static void ask_pam(struct outside_question *q)
{
    struct pam_conv conversation = { converse, q };
    pam_handle_t *pam = NULL;
    const char *step = "pam_start";
    int rc = pam_start(q->service, q->user, &conversation, &pam);

    if (rc == PAM_SUCCESS && q->address != NULL) {
        step = "pam_set_item";
        rc = pam_set_item(pam, PAM_RHOST, q->address);
    }
    if (rc == PAM_SUCCESS) {
        step = "pam_authenticate";
        rc = pam_authenticate(pam, PAM_SILENT);
    }
    if (rc == PAM_SUCCESS) {
        step = "pam_acct_mgmt";
        rc = pam_acct_mgmt(pam, PAM_SILENT);
    }
    if (rc != PAM_SUCCESS)
        because(q, step, pam_strerror(pam, rc));
    q->yes = rc == PAM_SUCCESS;
    if (pam != NULL)
        pam_end(pam, rc);
}

/* ---- LDAP ------------------------------------------------------------------------------- */

/* "ldap://a:389 ldap://b:389" for the servers "a b". */
static void put_uris(struct text *out, const struct ldap_options *o)
{
    const char *scheme = o->scheme != NULL ? o->scheme : "ldap";
    int port = o->port > 0 ? o->port : strcmp(scheme, "ldaps") == 0 ? LDAPS_PORT : LDAP_PORT;
    const char *at = o->server != NULL ? o->server : "";

    if (*at == '\0')
        text_printf(out, "%s://:%d", scheme, port);
    while (*at != '\0') {
        size_t n = strcspn(at, " ");
        if (n > 0)
            text_printf(out, "%s%s://%.*s:%d", out->len > 0 ? " " : "", scheme, (int)n, at, port);
        at += n + (at[n] == ' ');
    }
}

static bool failed(struct outside_question *q, const char *what, int rc)
{
    if (rc == LDAP_SUCCESS)
        return false;
    because(q, what, ldap_err2string(rc));
    return true;
}

static LDAP *ldap_open(struct outside_question *q)
{
    struct text uris;
    LDAP *ld = NULL;
    int version = LDAP_VERSION3;
    struct timeval patience = { .tv_sec = LDAP_SECONDS };

    text_init(&uris);
    put_uris(&uris, &q->ldap);
    int rc = ldap_initialize(&ld, text_str(&uris).ptr);
    text_free(&uris);
    if (failed(q, "ldap_initialize", rc))
        return NULL;
    ldap_set_option(ld, LDAP_OPT_PROTOCOL_VERSION, &version);
    ldap_set_option(ld, LDAP_OPT_NETWORK_TIMEOUT, &patience);
    ldap_set_option(ld, LDAP_OPT_TIMEOUT, &patience);
    ldap_set_option(ld, LDAP_OPT_REFERRALS, LDAP_OPT_OFF);
    if (q->ldap.tls && failed(q, "ldap_start_tls_s", ldap_start_tls_s(ld, NULL, NULL))) {
        ldap_unbind_ext_s(ld, NULL, NULL);
        return NULL;
    }
    return ld;
}

static int bind_as(LDAP *ld, const char *dn, const char *password)
{
    struct berval secret = { .bv_len = password != NULL ? strlen(password) : 0,
                             .bv_val = (char *)password };

    return ldap_sasl_bind_s(ld, dn != NULL ? dn : "", LDAP_SASL_SIMPLE, &secret, NULL, NULL, NULL);
}

static const int scopes[] = {
    [LDAP_SUBTREE] = LDAP_SCOPE_SUBTREE,
    [LDAP_ONE_LEVEL] = LDAP_SCOPE_ONELEVEL,
    [LDAP_BASE] = LDAP_SCOPE_BASE,
};

/* The user's entry; malloc, NULL: there is not exactly one. */
static char *search(LDAP *ld, struct outside_question *q)
{
    const struct ldap_options *o = &q->ldap;
    char *attributes[] = { LDAP_NO_ATTRS, NULL };
    const char *filter;
    LDAPMessage *found = NULL;
    char *dn = NULL;
    struct arena a;

    arena_init(&a);
    if (!ldap_options_filter(o, q->user, &a, &filter)) {
        because(q, "search", "the name has a character that is not searched for");
    } else if (!failed(q, "bind for the search", bind_as(ld, o->bind_dn, o->bind_password)) &&
               !failed(q, "search",
                       ldap_search_ext_s(ld, o->base_dn, scopes[o->scope], filter, attributes, 0,
                                         NULL, NULL, NULL, 2, &found))) {
        char *theirs = NULL;
        int n = ldap_count_entries(ld, found);
        if (n == 1)
            theirs = ldap_get_dn(ld, ldap_first_entry(ld, found));
        if (theirs != NULL)
            dn = mem_strdup(theirs);
        else
            because(q, "search", n == 0 ? "no entry was found" : "more than one entry was found");
        ldap_memfree(theirs);
    }
    ldap_msgfree(found);
    arena_free(&a);
    return dn;
}

static void ask_ldap(struct outside_question *q)
{
    const struct ldap_options *o = &q->ldap;
    char *dn = NULL;
    LDAP *ld = ldap_open(q);

    if (ld == NULL)
        return;
    if (o->base_dn != NULL) {
        dn = search(ld, q);
        ldap_unbind_ext_s(ld, NULL, NULL);
        /* Another connection: that of the search may do more than the user's. */
        ld = dn != NULL ? ldap_open(q) : NULL;
    } else {
        struct text t;
        text_init(&t);
        text_printf(&t, "%s%s%s", o->prefix != NULL ? o->prefix : "", q->user,
                    o->suffix != NULL ? o->suffix : "");
        dn = t.ptr;
    }
    if (ld != NULL) {
        q->yes = !failed(q, "bind", bind_as(ld, dn, q->password));
        ldap_unbind_ext_s(ld, NULL, NULL);
    }
    free(dn);
}

void outside_ask(struct outside_question *q)
{
    switch (q->kind) {
    case OUTSIDE_USER_NAME:
        ask_user_name(q);
        break;
    case OUTSIDE_PAM:
        ask_pam(q);
        break;
    case OUTSIDE_LDAP:
        ask_ldap(q);
        break;
    }
}
