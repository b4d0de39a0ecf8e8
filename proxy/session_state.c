#include "proxy/session_state.h"

#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "protocol/notice.h"
#include "protocol/query_simple.h"
#include "protocol/status.h"
#include "proxy/client.h"
#include "proxy/listener.h"
#include "proxy/record.h"
#include "proxy/server.h"
#include "proxy/session_scan.h"
#include "proxy/settings.h"

/* Names of settings that one transaction may touch, in bytes. */
#define NAMES_MAX 16384

/* What begins anew in another process:
 *
 * Not told of struct session: restores asked asked_for look_results look_failed heard_result heard
 * (no look is under way) hearing (a client that hears does not go)
 */
struct session {
    unsigned touched;      /* kinds, since the last look */
    struct text names;     /* settings that were touched, each with its NUL */
    struct text resets;    /* of the startup packet's settings: those that RESET named */
    bool resets_done;      /* a statement of that kind is done, and nothing has failed since */
    bool restores;         /* the look that is under way gives them back first */
    unsigned asked;        /* kinds, by the look that is under way */
    struct text asked_for; /* names, in the order of its columns */
    int look_results;      /* of its statements, so far; -1: nothing is given back yet */
    bool look_failed;
    int heard_result;  /* the statement of the look that tells them */
    struct text heard; /* channels that its server listens to, each with its NUL */
    struct hearing hearing;
    unsigned pinned;        /* kinds */
    const char *pin_reason; /* of session_state_pin */
    uint64_t pinned_at_us;
};

/* Kinds that a look answers, in the order of its columns. */
static const struct {
    unsigned kind;
    const char *sql;
    const char *words;  /* what pins */
    const char *refuse; /* what is refused */
    const char *hint;
} kinds[] = {
    { SESSION_ADVISORY,
      "EXISTS (SELECT FROM pg_catalog.pg_locks WHERE locktype OPERATOR(pg_catalog.=) 'advisory' "
      "AND pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid())",
      "advisory locks", "advisory locks of the session",
      "Use pg_advisory_xact_lock, whose locks end with the transaction." },
    { SESSION_TEMP,
      "EXISTS (SELECT FROM pg_catalog.pg_class WHERE relnamespace OPERATOR(pg_catalog.=) "
      "pg_catalog.pg_my_temp_schema())",
      "temporary tables", "temporary tables that outlive their transaction",
      "Create it in a transaction block, with ON COMMIT DROP." },
    { SESSION_CURSOR, "EXISTS (SELECT FROM pg_catalog.pg_cursors WHERE is_holdable)",
      "cursors WITH HOLD", "cursors WITH HOLD", "Use a cursor inside of a transaction block." },
    { SESSION_AUTHORIZATION, NULL, "session authorization", "SET SESSION AUTHORIZATION",
      "Connect as that user, or use SET ROLE." },
    { SESSION_LOAD, NULL, "loaded libraries", "LOAD",
      "Preload the library for the database or the role: session_preload_libraries." },
    { SESSION_UNKNOWN_NAME, NULL, "settings of unknown names",
      "set_config with a name that is not a literal",
      "Write the name as a literal, or set it for the transaction only." },
};

enum { N_KINDS = sizeof(kinds) / sizeof(kinds[0]) };

/* Kinds that no look can answer: once touched they stay. */
enum { STICKY = SESSION_LOAD | SESSION_UNKNOWN_NAME };

enum { ALL_KINDS = SESSION_UNLISTEN * 2 - 1 };

static struct proxy *proxy_of(const struct client *c)
{
    return c->conn.worker->proxy;
}

static struct session *session_of(struct client *c)
{
    if (c->session == NULL) {
        c->session = mem_alloc(sizeof(*c->session));
        text_init(&c->session->names);
        text_init(&c->session->resets);
        text_init(&c->session->asked_for);
        text_init(&c->session->heard);
        hearing_init(&c->session->hearing);
    }
    return c->session;
}

struct hearing *session_state_hearing(struct client *c)
{
    return &c->session->hearing;
}

void session_state_on_request(struct client *c)
{
    listener_new_request(&c->session->hearing);
}

void session_state_on_error(struct client *c)
{
    listener_undo(&c->session->hearing);
    c->session->resets_done = false;
}

void session_state_tell(struct client *c, bool before_ready)
{
    listener_tell(c, &c->session->hearing, before_ready);
}

void session_state_leave(struct client *c)
{
    if (c->session != NULL)
        listener_forget(c, &c->session->hearing);
}

void session_state_free(struct client *c)
{
    struct session *ss = c->session;

    c->session = NULL;
    if (ss == NULL)
        return;
    text_free(&ss->names);
    text_free(&ss->resets);
    text_free(&ss->asked_for);
    text_free(&ss->heard);
    free(ss);
}

/* ---- from process to process ------------------------------------------------------------ */

bool session_state_hears(const struct client *c)
{
    const struct session *ss = c->session;

    return ss != NULL &&
           (!list_is_empty(&ss->hearing.subscriptions) || ss->hearing.unlistens ||
            bytequeue_len(&ss->hearing.early) > 0 || bytequeue_len(&ss->hearing.ready) > 0);
}

void session_state_pack(const struct client *c, struct bytequeue *record)
{
    const struct session *ss = c->session;

    if (ss == NULL)
        return;
    record_put_number(record, "session_touched", ss->touched);
    record_put(record, "session_names", text_str(&ss->names));
    record_put(record, "session_resets", text_str(&ss->resets));
    record_put_number(record, "session_resets_done", ss->resets_done);
    record_put_number(record, "session_pinned", ss->pinned);
    record_put_number(record, "session_pinned_at", ss->pinned_at_us);
    if (ss->pin_reason != NULL)
        record_put(record, "session_pin_reason", str_from(ss->pin_reason));
}

/* Names that end with NUL; others are no list. */
static void put_names(struct text *list, struct str names)
{
    if (names.len > 0 && names.ptr[names.len - 1] == '\0')
        text_put_str(list, names);
}

void session_state_unpack(struct client *c, struct str record)
{
    struct str names, resets, reason;
    unsigned touched = (unsigned)record_number(record, "session_touched") & ALL_KINDS;
    unsigned pinned = (unsigned)record_number(record, "session_pinned") & ALL_KINDS;
    bool has_reason = record_get(record, "session_pin_reason", &reason);

    record_get(record, "session_names", &names);
    record_get(record, "session_resets", &resets);
    if (touched == 0 && pinned == 0 && !has_reason && names.len == 0 && resets.len == 0)
        return;
    struct session *ss = session_of(c);
    ss->touched = touched;
    ss->pinned = pinned;
    put_names(&ss->names, names);
    put_names(&ss->resets, resets);
    ss->resets_done = record_number(record, "session_resets_done") != 0;
    ss->pinned_at_us = record_number(record, "session_pinned_at");
    ss->pin_reason = has_reason ? "unknown state" : NULL;
}

/* ---- what is touched -------------------------------------------------------------------- */

/* The next of a list of names that end with NUL. */
static bool next_name(struct str *list, struct str *name)
{
    if (list->len == 0)
        return false;
    *name = str_from(list->ptr);
    list->ptr += name->len + 1;
    list->len -= name->len + 1;
    return true;
}

static bool has_name(const struct text *list, struct str name)
{
    struct str rest = text_str(list), one;

    while (next_name(&rest, &one))
        if (str_equal_nocase(one, name))
            return true;
    return false;
}

/* Of the transaction, or reported by the server. */
static bool needs_no_look(const struct client *c, struct str name)
{
    int i = params_find(&proxy_of(c)->params_names, name);

    return (i >= 0 && params_get(&c->server->params, i) != NULL) ||
           str_equal_nocase(name, STR("transaction_isolation")) ||
           str_equal_nocase(name, STR("transaction_read_only")) ||
           str_equal_nocase(name, STR("transaction_deferrable"));
}

static void touch_names(struct client *c, const struct text *names)
{
    struct str rest = text_str(names), name;

    while (next_name(&rest, &name)) {
        if (needs_no_look(c, name))
            continue;
        struct session *ss = session_of(c);
        ss->touched |= SESSION_SETTINGS;
        if (has_name(&ss->names, name))
            continue;
        if (ss->names.len + name.len >= NAMES_MAX) {
            ss->touched |= SESSION_UNKNOWN_NAME;
            return;
        }
        text_put_str(&ss->names, name);
        text_put_char(&ss->names, '\0');
    }
}

/* RESET gives a session its startup packet's values. The server's is another one than the client's:
 * what the client asked for is given back by ourselves, when the transaction is over. */
static void note_reset(struct client *c, struct str name)
{
    const char *startup = settings_get(c->startup, name);
    int i = params_find(&proxy_of(c)->params_names, name);
    const char *servers = i >= 0 ? params_get(&c->pool->parameters, i) : NULL;

    if (startup == NULL || (servers != NULL && strcmp(servers, startup) == 0))
        return;
    struct session *ss = session_of(c);
    if (has_name(&ss->resets, name))
        return;
    text_put_str(&ss->resets, name);
    text_put_char(&ss->resets, '\0');
}

static void note_resets(struct client *c, const struct session_found *found)
{
    struct str rest = text_str(&found->resets), name, value;

    while (next_name(&rest, &name))
        note_reset(c, name);
    if (!(found->touches & SESSION_RESET_ALL))
        return;
    for (size_t i = 0; i < settings_count(c->startup); i++) {
        settings_at(c->startup, i, &name, &value);
        if (!str_equal(name, STR("role"))) /* RESET ALL leaves it */
            note_reset(c, name);
    }
}

static enum session_next refuse(unsigned makes, struct err *e)
{
    for (size_t i = 0; i < N_KINDS; i++) {
        if (!(makes & kinds[i].kind))
            continue;
        err_set(e, ERR_REFUSAL, "0A000", "%s can't be used in transaction pooling",
                kinds[i].refuse);
        err_detail(e, "The next transaction may run on another server connection "
                      "(session_state = error).");
        err_hint(e, "%s", kinds[i].hint);
        return SESSION_REFUSED;
    }
    return SESSION_GO_ON;
}

static bool standard_strings(const struct client *c)
{
    const char *v = params_get(&c->params, PARAM_STANDARD_CONFORMING_STRINGS);

    return v == NULL || strcmp(v, "off") != 0;
}

/* The listener must listen before the client's server does. */
static enum session_next listen(struct client *c, const struct text *channels, struct err *e)
{
    struct str rest = text_str(channels), channel;
    enum session_next next = SESSION_GO_ON;

    while (next_name(&rest, &channel)) {
        switch (listener_listen(c, &session_of(c)->hearing, channel, e)) {
        case LISTENER_LISTENS:
            break;
        case LISTENER_WAITS:
            next = SESSION_WAITS;
            break;
        case LISTENER_FAILED:
            return SESSION_REFUSED;
        }
    }
    return next;
}

static void unlisten(struct client *c, const struct text *channels)
{
    struct str rest = text_str(channels), channel;

    while (next_name(&rest, &channel))
        listener_unlisten(&session_of(c)->hearing, channel);
}

enum session_next session_state_on_text(struct client *c, struct str text, bool many, struct err *e)
{
    struct session_found found;
    enum session_next next = SESSION_GO_ON;
    bool keeps = pool_mode_of(c->pool) == POOL_MODE_SESSION;

    if (c->replication != REPLICATION_NONE || (keeps && c->startup == NULL) ||
        !session_scan_wants(text, many))
        return SESSION_GO_ON;
    session_scan(text, standard_strings(c), &found);
    if (keeps) {
        note_resets(c, &found);
        session_found_free(&found);
        return SESSION_GO_ON;
    }
    switch (config_session_state(proxy_of(c)->config, c->db->entry, c->pool->user->entry)) {
    case SESSION_STATE_ERROR:
        next = refuse(found.makes, e);
        break;
    case SESSION_STATE_IGNORE:
        found.touches &= SESSION_LISTEN | SESSION_UNLISTEN;
        text_clear(&found.resets);
        found.ends = 0;
        break;
    case SESSION_STATE_PIN:
    case SESSION_STATE_UNSET:
        break;
    }
    if (next == SESSION_GO_ON && (found.touches & SESSION_LISTEN))
        next = listen(c, &found.channels, e);
    if (next == SESSION_GO_ON) {
        if (found.touches & SESSION_UNLISTEN)
            unlisten(c, &found.unlistens);
        if (found.touches & SESSION_SETTINGS)
            touch_names(c, &found.names);
        note_resets(c, &found);
        unsigned touches = found.touches & ~(unsigned)SESSION_SETTINGS;
        if (c->session != NULL)
            touches |= found.ends & c->session->pinned;
        if (touches != 0)
            session_of(c)->touched |= touches;
    }
    session_found_free(&found);
    return next;
}

/* ---- the look --------------------------------------------------------------------------- */

static void put_column(struct text *sql, bool *first)
{
    text_put(sql, *first ? "SELECT " : ", ");
    *first = false;
}

static void ask_for_all(struct client *c, const struct settings *list)
{
    struct text *asked_for = &c->session->asked_for;
    struct str name, value;

    for (size_t i = 0; i < settings_count(list); i++) {
        settings_at(list, i, &name, &value);
        if (has_name(asked_for, name) || needs_no_look(c, name))
            continue;
        text_put_str(asked_for, name);
        text_put_char(asked_for, '\0');
    }
}

/* One statement. RESET may have failed, been undone, or been followed by SET: what the session has
 * set is left alone. pg_settings has no parameters of unknown extensions; without a value they are
 * empty, which they may have been SET to, too: there the statement must have been seen to work. */
static void put_restore(struct client *c, struct text *sql)
{
    struct str names = text_str(&c->session->resets), name;
    bool first = true;

    text_put(sql, "SELECT pg_catalog.set_config(s.n,s.v,false) FROM (VALUES ");
    while (next_name(&names, &name)) {
        const char *value = settings_get(c->startup, name);
        text_put(sql, first ? "(" : ",(");
        text_put_literal(sql, name);
        text_put(sql, ",");
        text_put_literal(sql, str_from(value != NULL ? value : ""));
        text_put(sql, ")");
        first = false;
    }
    text_put(sql, ") AS s(n,v) LEFT JOIN pg_catalog.pg_settings AS p ON pg_catalog.lower(p.name) "
                  "OPERATOR(pg_catalog.=) s.n WHERE CASE WHEN p.name IS NULL THEN "
                  "COALESCE(pg_catalog.current_setting(s.n,true),'') OPERATOR(pg_catalog.=) "
                  "ANY(ARRAY['','none']) AND ");
    text_put(sql, c->session->resets_done ? "true" : "false");
    text_put(sql, " ELSE p.source OPERATOR(pg_catalog.<>) 'session' END;");
}

/* False: there is nothing to be asked. */
static bool put_look(struct client *c, struct text *sql)
{
    struct session *ss = c->session;
    struct str names, name;
    bool first = true;

    for (size_t i = 0; i < N_KINDS; i++) {
        if (!(ss->asked & kinds[i].kind & ~(unsigned)STICKY))
            continue;
        put_column(sql, &first);
        if (kinds[i].kind == SESSION_AUTHORIZATION) {
            text_put(sql, "session_user::pg_catalog.text OPERATOR(pg_catalog.<>) ");
            text_put_literal(sql, str_from(c->pool->user->name));
        } else {
            text_put(sql, kinds[i].sql);
        }
    }
    if (ss->asked & SESSION_RESET_ALL) {
        ask_for_all(c, c->settings);
        ask_for_all(c, c->startup);
    }
    names = text_str(&ss->asked_for);
    while (next_name(&names, &name)) {
        put_column(sql, &first);
        text_put(sql, "pg_catalog.current_setting(");
        text_put_literal(sql, name);
        text_put(sql, ", true)");
    }
    return !first;
}

static void set_pinned(struct client *c, unsigned pinned)
{
    struct session *ss = c->session;
    bool was = ss->pinned != 0 || ss->pin_reason != NULL;
    struct text t;
    uint64_t since;

    ss->pinned = pinned;
    bool is = ss->pinned != 0 || ss->pin_reason != NULL;
    if (was == is)
        return;
    ss->pinned_at_us = c->conn.worker->now_us;
    text_init(&t);
    if (is)
        client_log(c, LEVEL_LOG, "server connection pinned by %s",
                   session_state_pinned_by(c, &t, &since));
    else
        client_log(c, LEVEL_LOG, "server connection no longer pinned");
    text_free(&t);
}

bool session_state_may_let_go(struct client *c)
{
    struct session *ss = c->session;
    struct text sql, swap;

    if (ss == NULL)
        return true;
    bool is_due = ss->touched != 0 || ss->resets.len > 0;
    /* The next message is here and waits until nothing is owed: a look would be owed, and what the
     * message touches is noted each time that it tries. The look comes after it. */
    if (is_due && c->conn.held)
        return false;
    if (is_due && ss->asked == 0 && !ss->restores) {
        ss->asked = ss->touched;
        ss->touched = 0;
        swap = ss->asked_for;
        ss->asked_for = ss->names;
        ss->names = swap;
        text_clear(&ss->names);
        ss->look_failed = false;
        text_clear(&ss->heard);
        text_init(&sql);
        ss->restores = ss->resets.len > 0;
        ss->look_results = ss->restores ? -1 : 0;
        if (ss->restores)
            put_restore(c, &sql);
        text_clear(&ss->resets);
        ss->resets_done = false;
        bool asks = put_look(c, &sql);
        ss->heard_result = asks ? 1 : 0;
        if (ss->asked & SESSION_LISTEN) {
            text_put(&sql, asks ? ";" : "");
            text_put(&sql, "SELECT pg_catalog.pg_listening_channels();UNLISTEN *");
            asks = true;
        }
        if (!asks) {
            set_pinned(c, ss->pinned | (ss->asked & STICKY));
            if (ss->asked & SESSION_UNLISTEN)
                listener_settle(c, &ss->hearing, (struct str){ "", 0 });
            ss->asked = 0;
        }
        if (sql.len > 0) {
            wire_encode_query(&c->server->conn.out, text_str(&sql));
            conn_flush(&c->server->conn);
            server_owe(c->server, ENDS_QUERY, REPLY_SWALLOWED)->looks = true;
        }
        text_free(&sql);
    }
    return ss->asked == 0 && !ss->restores && ss->pinned == 0 && ss->pin_reason == NULL;
}

void session_state_on_look_row(struct client *c, struct str body)
{
    struct session *ss = c != NULL ? c->session : NULL;
    struct wire_cursor row = wire_cursor(body);
    unsigned pinned;
    struct str names, name, value;
    bool is_null;

    if (ss == NULL || ss->look_results < 0)
        return;
    if ((ss->asked & SESSION_LISTEN) && ss->look_results == ss->heard_result) {
        wire_u16(&row);
        value = wire_value(&row, &is_null);
        text_put_str(&ss->heard, value);
        text_put_char(&ss->heard, '\0');
        ss->look_failed = ss->look_failed || !wire_at_end(&row) || value.len == 0;
        return;
    }
    if (ss->look_results > 0)
        return;
    pinned = ss->pinned & ~ss->asked;
    wire_u16(&row);
    for (size_t i = 0; i < N_KINDS; i++) {
        if (!(ss->asked & kinds[i].kind & ~(unsigned)STICKY))
            continue;
        value = wire_value(&row, &is_null);
        if (!str_equal(value, STR("f")))
            pinned |= kinds[i].kind;
    }
    names = text_str(&ss->asked_for);
    while (next_name(&names, &name)) {
        value = wire_value(&row, &is_null);
        bool none = str_equal(name, STR("role")) && str_equal(value, STR("none"));
        if (is_null || none)
            settings_remove(&c->settings, name);
        else if (wire_ok(&row) && !settings_put(&c->settings, name, value))
            pinned |= SESSION_SETTINGS;
    }
    if (!wire_at_end(&row))
        ss->look_failed = true;
    set_pinned(c, pinned | (ss->asked & STICKY));
}

void session_state_on_look_result(struct client *c)
{
    if (c != NULL && c->session != NULL)
        c->session->look_results++;
}

void session_state_on_look_error(struct client *c, struct str body)
{
    struct err e = { 0 };

    if (c == NULL || c->session == NULL)
        return;
    notice_decode_err(body, &e);
    client_log(c, LEVEL_WARNING, "what is left in the session is not known: %s", e.message);
    err_clear(&e);
    c->session->look_failed = true;
}

void session_state_on_look_done(struct client *c)
{
    struct session *ss = c->session;

    if (ss == NULL)
        return;
    if (ss->look_failed || (ss->asked != 0 && ss->look_results <= 0)) {
        session_state_pin(c, "unknown state");
        text_clear(&ss->heard);
    } else if (ss->asked != 0) {
        settings_unref(c->server->settings);
        c->server->settings = settings_ref(c->settings);
        c->server->settings_doubt = false;
    }
    if (ss->asked & (SESSION_LISTEN | SESSION_UNLISTEN))
        listener_settle(c, &ss->hearing, text_str(&ss->heard));
    text_clear(&ss->heard);
    ss->asked = 0;
    ss->restores = false;
    text_clear(&ss->asked_for);
}

/* ---- pinned ----------------------------------------------------------------------------- */

void session_state_pin(struct client *c, const char *reason)
{
    struct session *ss = session_of(c);

    if (ss->pin_reason != NULL)
        return;
    bool was = ss->pinned != 0;
    ss->pin_reason = reason;
    if (!was) {
        ss->pinned_at_us = c->conn.worker->now_us;
        client_log(c, LEVEL_LOG, "server connection pinned by %s", reason);
    }
}

const char *session_state_pinned_by(const struct client *c, struct text *t, uint64_t *since_us)
{
    const struct session *ss = c->session;

    if (ss == NULL || (ss->pinned == 0 && ss->pin_reason == NULL))
        return NULL;
    *since_us = ss->pinned_at_us;
    text_clear(t);
    for (size_t i = 0; i < N_KINDS; i++)
        if (ss->pinned & kinds[i].kind)
            text_printf(t, "%s%s", t->len > 0 ? ", " : "", kinds[i].words);
    if (ss->pinned & SESSION_SETTINGS)
        text_printf(t, "%stoo many settings", t->len > 0 ? ", " : "");
    if (ss->pin_reason != NULL)
        text_printf(t, "%s%s", t->len > 0 ? ", " : "", ss->pin_reason);
    return t->ptr;
}

bool session_state_has_temporary(const struct client *c)
{
    return c != NULL && c->session != NULL &&
           ((c->session->touched | c->session->asked | c->session->pinned) & SESSION_TEMP);
}

bool session_state_is_pinned(const struct client *c)
{
    return c->session != NULL && (c->session->pinned != 0 || c->session->pin_reason != NULL);
}

enum session_left session_state_left(const struct client *c)
{
    const struct session *ss = c->session;

    if (ss == NULL)
        return SESSION_LEFT_NOTHING;
    if ((ss->pinned | ss->touched | ss->asked) & SESSION_LOAD)
        return SESSION_LEFT_MORE;
    return ss->pinned != 0 || ss->touched != 0 || ss->asked != 0 || ss->restores ||
                   ss->pin_reason != NULL
               ? SESSION_LEFT_STATE
               : SESSION_LEFT_NOTHING;
}

void session_state_on_tag(struct client *c, struct str tag)
{
    struct server *s = c->server;
    bool sets = str_equal(tag, STR("SET")) || str_equal(tag, STR("RESET"));

    if (sets && c->session != NULL)
        c->session->resets_done = c->session->resets.len > 0;
    if (str_equal(tag, STR("DISCARD ALL"))) {
        client_on_session_discarded(c);
        if (c->session != NULL) {
            c->session->touched &= SESSION_LOAD;
            listener_forget(c, &c->session->hearing);
            text_clear(&c->session->names);
            text_clear(&c->session->resets);
            c->session->pin_reason = NULL;
            set_pinned(c, c->session->pinned & SESSION_LOAD);
        }
    } else if (str_equal(tag, STR("ROLLBACK"))) {
        if (c->session != NULL)
            listener_undo(&c->session->hearing);
    } else if (sets && (pool_mode_of(c->pool) == POOL_MODE_SESSION ||
                        config_session_state(proxy_of(c)->config, c->db->entry,
                                             c->pool->user->entry) == SESSION_STATE_IGNORE)) {
        s->settings_doubt = s->settings != NULL;
    }
}
