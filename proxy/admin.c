#include "proxy/admin.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "protocol/message_types.h"
#include "protocol/notice.h"
#include "protocol/query_extended.h"
#include "protocol/query_simple.h"
#include "protocol/result.h"
#include "protocol/status.h"
#include "proxy/admin_internal.h"

/* What one session can make us keep. */
#define COMMAND_BYTES_MAX 8192
#define STATEMENTS_MAX 128

/* ---- commands ---- */

enum request_kind {
    REQUEST_EMPTY,
    REQUEST_SHOW,
    REQUEST_HELP,
    REQUEST_FAKE_SHOW,
    REQUEST_FAKE_SET,
    REQUEST_COMMAND,
};

struct request {
    enum request_kind kind;
    const struct show *show;      /* REQUEST_SHOW, and REQUEST_FAKE_SHOW */
    const char *value;            /* REQUEST_FAKE_SHOW */
    struct admin_command command; /* REQUEST_COMMAND; borrows from the text or the arena */
    const char *tag;              /* of the completion */
};

/* Drivers ask for these at their start and would not go on without. */
#define FAKE_COLUMN(name) ((const struct show_column[]){ { name, SHOW_TEXT } })
static const struct {
    struct show show;
    const char *value;
} fakes[] = {
    { { "client_encoding", FAKE_COLUMN("client_encoding"), 1, NULL, false, false }, "UTF-8" },
    { { "default_transaction_isolation", FAKE_COLUMN("default_transaction_isolation"), 1, NULL,
        false, false },
      "read committed" },
    { { "standard_conforming_strings", FAKE_COLUMN("standard_conforming_strings"), 1, NULL, false,
        false },
      "on" },
    { { "datestyle", FAKE_COLUMN("datestyle"), 1, NULL, false, false }, "ISO" },
    { { "timezone", FAKE_COLUMN("timezone"), 1, NULL, false, false }, "GMT" },
    { { "extra_float_digits", FAKE_COLUMN("extra_float_digits"), 1, NULL, false, false }, "1" },
};
#define N_FAKES (sizeof(fakes) / sizeof(fakes[0]))

static const struct {
    const char *word;
    enum admin_verb verb;
    enum { DATABASE_NONE, DATABASE_MAY, DATABASE_MUST } database;
} verbs[] = {
    { "PAUSE", ADMIN_PAUSE, DATABASE_MAY },           { "RESUME", ADMIN_RESUME, DATABASE_MAY },
    { "RECONNECT", ADMIN_RECONNECT, DATABASE_MAY },   { "KILL", ADMIN_KILL, DATABASE_MAY },
    { "WAIT_CLOSE", ADMIN_WAIT_CLOSE, DATABASE_MAY }, { "DISABLE", ADMIN_DISABLE, DATABASE_MUST },
    { "ENABLE", ADMIN_ENABLE, DATABASE_MUST },        { "SUSPEND", ADMIN_SUSPEND, DATABASE_NONE },
    { "RELOAD", ADMIN_RELOAD, DATABASE_NONE },
};

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v';
}

static struct str skip_space(struct str s)
{
    while (s.len > 0 && is_space(s.ptr[0]))
        s = (struct str){ s.ptr + 1, s.len - 1 };
    return s;
}

/* An unquoted word: up to a blank, a quote, "=" or ";". */
static struct str take_word(struct str *s)
{
    *s = skip_space(*s);
    size_t n = 0;
    while (n < s->len && !is_space(s->ptr[n]) && strchr("=;'\"", s->ptr[n]) == NULL)
        n++;
    struct str word = { s->ptr, n };
    *s = (struct str){ s->ptr + n, s->len - n };
    return word;
}

/* The word in quotes that *s begins with; false when its end is missing. */
static bool take_quoted(struct str *s, struct arena *a, struct str *out)
{
    char quote = s->ptr[0];
    char *word = arena_alloc(a, s->len);
    size_t len = 0;
    for (size_t i = 1; i < s->len; i++) {
        if (s->ptr[i] == quote) {
            if (i + 1 < s->len && s->ptr[i + 1] == quote) {
                i++;
            } else {
                *s = (struct str){ s->ptr + i + 1, s->len - i - 1 };
                *out = (struct str){ word, len };
                return true;
            }
        }
        word[len++] = s->ptr[i];
    }
    return false;
}

/* A word, or one in double quotes; false for neither. */
static bool take_name(struct str *s, struct arena *a, struct str *out)
{
    *s = skip_space(*s);
    if (s->len > 0 && s->ptr[0] == '"')
        return take_quoted(s, a, out) && out->len > 0;
    *out = take_word(s);
    return out->len > 0;
}

/* Nothing left but blanks and one semicolon. */
static bool at_end(struct str s)
{
    s = skip_space(s);
    if (s.len > 0 && s.ptr[0] == ';')
        s = skip_space((struct str){ s.ptr + 1, s.len - 1 });
    return s.len == 0;
}

static bool parse_show(struct str rest, struct arena *a, struct request *out)
{
    struct str what;
    out->tag = "SHOW";
    if (!take_name(&rest, a, &what) || !at_end(rest))
        return false;
    if (str_equal_nocase(what, STR("HELP"))) {
        out->kind = REQUEST_HELP;
        return true;
    }
    for (size_t i = 0; i < N_FAKES; i++) {
        if (str_equal_nocase(what, str_from(fakes[i].show.name))) {
            out->kind = REQUEST_FAKE_SHOW;
            out->show = &fakes[i].show;
            out->value = fakes[i].value;
            return true;
        }
    }
    out->kind = REQUEST_SHOW;
    out->show = show_find(what);
    return out->show != NULL;
}

/* SET key = value, SET key TO value; the value in single quotes, or as it stands. */
static bool parse_set(struct str rest, struct arena *a, struct request *out)
{
    struct str key, value;
    if (!take_name(&rest, a, &key))
        return false;
    rest = skip_space(rest);
    if (rest.len > 0 && rest.ptr[0] == '=') {
        rest = (struct str){ rest.ptr + 1, rest.len - 1 };
    } else {
        struct str to = take_word(&rest);
        if (!str_equal_nocase(to, STR("TO")))
            return false;
    }
    rest = skip_space(rest);
    if (rest.len > 0 && rest.ptr[0] == '\'') {
        if (!take_quoted(&rest, a, &value) || !at_end(rest))
            return false;
    } else {
        value = str_trim(rest);
        if (value.len > 0 && value.ptr[value.len - 1] == ';')
            value = str_trim((struct str){ value.ptr, value.len - 1 });
        if (memchr(value.ptr, ';', value.len) != NULL)
            return false;
    }
    for (size_t i = 0; i < N_FAKES; i++) {
        if (str_equal_nocase(key, str_from(fakes[i].show.name))) {
            out->kind = REQUEST_FAKE_SET;
            out->tag = "SET";
            return true;
        }
    }
    out->kind = REQUEST_COMMAND;
    out->command = (struct admin_command){ .verb = ADMIN_SET, .key = key, .value = value };
    out->tag = arena_printf(a, "SET " STR_FMT "=" STR_FMT, STR_ARG(key), STR_ARG(value));
    return true;
}

static bool parse_shutdown(struct str rest, struct request *out)
{
    out->kind = REQUEST_COMMAND;
    out->tag = "SHUTDOWN";
    struct str mode = take_word(&rest);
    if (!at_end(rest))
        return false;
    if (mode.len == 0)
        out->command.verb = ADMIN_SHUTDOWN;
    else if (str_equal_nocase(mode, STR("WAIT_FOR_SERVERS")))
        out->command.verb = ADMIN_SHUTDOWN_WAIT_FOR_SERVERS;
    else if (str_equal_nocase(mode, STR("WAIT_FOR_CLIENTS")))
        out->command.verb = ADMIN_SHUTDOWN_WAIT_FOR_CLIENTS;
    else if (str_equal_nocase(mode, STR("WAIT_FOR_TRANSACTIONS")))
        out->command.verb = ADMIN_SHUTDOWN_WAIT_FOR_TRANSACTIONS;
    else
        return false;
    return true;
}

/* Between two processes of ours. */
static bool parse_takeover(struct str rest, struct request *out)
{
    out->kind = REQUEST_COMMAND;
    out->tag = "TAKEOVER";
    struct str word = take_word(&rest);
    out->command.verb = word.len == 0 ? ADMIN_TAKEOVER : ADMIN_TAKEOVER_DONE;
    return at_end(rest) && (word.len == 0 || str_equal_nocase(word, STR("DONE")));
}

static bool parse_kill_client(struct str rest, struct request *out, struct err *e)
{
    struct str id = take_word(&rest);
    if (id.len == 0 || !at_end(rest))
        return false;
    out->kind = REQUEST_COMMAND;
    out->tag = "KILL_CLIENT";
    out->command.verb = ADMIN_KILL_CLIENT;
    for (size_t i = 0; i < id.len; i++) {
        if (id.ptr[i] < '0' || id.ptr[i] > '9' || i >= 18)
            return err_set(e, ERR_REFUSAL, "08P01", "invalid client pointer supplied");
        out->command.id = out->command.id * 10 + (uint64_t)(id.ptr[i] - '0');
    }
    return true;
}

/* False and *e when it is no command. *out borrows from text and the arena. */
static bool parse_request(struct str text, struct arena *a, struct request *out, struct err *e)
{
    *out = (struct request){ .kind = REQUEST_EMPTY };
    if (at_end(text))
        return true;

    bool ok = false;
    struct str rest = text;
    struct str word = take_word(&rest);
    if (str_equal_nocase(word, STR("SHOW")) || str_equal_nocase(word, STR("SELECT"))) {
        ok = parse_show(rest, a, out);
    } else if (str_equal_nocase(word, STR("SET"))) {
        ok = parse_set(rest, a, out);
    } else if (str_equal_nocase(word, STR("SHUTDOWN"))) {
        ok = parse_shutdown(rest, out);
    } else if (str_equal_nocase(word, STR("TAKEOVER"))) {
        ok = parse_takeover(rest, out);
    } else if (str_equal_nocase(word, STR("KILL_CLIENT"))) {
        ok = parse_kill_client(rest, out, e);
    } else {
        for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++) {
            if (!str_equal_nocase(word, str_from(verbs[i].word)))
                continue;
            out->kind = REQUEST_COMMAND;
            out->tag = verbs[i].word;
            out->command.verb = verbs[i].verb;
            if (at_end(rest)) {
                ok = verbs[i].database != DATABASE_MUST ||
                     err_set(e, ERR_REFUSAL, "08P01", "a database is required");
            } else {
                ok = verbs[i].database != DATABASE_NONE &&
                     take_name(&rest, a, &out->command.database) && at_end(rest);
            }
        }
    }
    if (!ok && !err_is_set(e))
        err_set(e, ERR_REFUSAL, "08P01", "invalid command '" STR_FMT "', use SHOW HELP;",
                STR_ARG(text));
    return ok;
}

/* ---- a session ---- */

/* A prepared statement: a text, parsed when it was prepared, and again whenever it is needed. */
struct statement {
    struct statement *next;
    char *name;
    char *text;
};

struct portal {
    struct portal *next;
    char *name;
    char *text;
    bool binary[SHOW_COLUMNS_MAX];
    bool has_run;
    struct bytequeue rows; /* not yet sent */
    size_t n_rows;
};

enum waiting {
    WAITING_NOT,
    WAITING_SIMPLE,
    WAITING_EXTENDED,
};

struct admin_session {
    const struct admin_view *view;
    enum admin_rights rights;
    char *user;
    enum waiting waiting;
    char *waiting_tag;
    bool skipping; /* after an error in the extended protocol, up to Sync */
    struct statement *statements;
    size_t n_statements;
    struct portal *portals; /* gone at Sync */
    size_t n_portals;
};

enum admin_rights admin_rights_of(const struct config *c, struct str user, bool own_uid)
{
    if (own_uid && str_equal(user, STR(ADMIN_DATABASE)))
        return ADMIN_RIGHTS_ADMIN;
    if (config_list_has(c->admin_users, user))
        return ADMIN_RIGHTS_ADMIN;
    if (config_list_has(c->stats_users, user) || c->auth_type == AUTH_TYPE_ANY)
        return ADMIN_RIGHTS_STATS;
    return ADMIN_RIGHTS_NONE;
}

static char *copy(struct str s)
{
    char *bytes = mem_alloc(s.len + 1);
    if (s.len > 0)
        memcpy(bytes, s.ptr, s.len);
    return bytes;
}

struct admin_session *admin_session_new(const struct admin_view *view, enum admin_rights rights,
                                        struct str user)
{
    struct admin_session *s = mem_alloc(sizeof(*s));
    s->view = view;
    s->rights = rights;
    s->user = copy(user);
    return s;
}

static void statement_free(struct admin_session *s, struct statement **at)
{
    struct statement *st = *at;
    *at = st->next;
    s->n_statements--;
    free(st->name);
    free(st->text);
    free(st);
}

static void portal_free(struct admin_session *s, struct portal **at)
{
    struct portal *p = *at;
    *at = p->next;
    s->n_portals--;
    bytequeue_free(&p->rows);
    free(p->name);
    free(p->text);
    free(p);
}

static struct statement **find_statement(struct admin_session *s, struct str name)
{
    struct statement **at = &s->statements;
    while (*at != NULL && !str_equal(str_from((*at)->name), name))
        at = &(*at)->next;
    return at;
}

static struct portal **find_portal(struct admin_session *s, struct str name)
{
    struct portal **at = &s->portals;
    while (*at != NULL && !str_equal(str_from((*at)->name), name))
        at = &(*at)->next;
    return at;
}

void admin_session_free(struct admin_session *s)
{
    if (s == NULL)
        return;
    while (s->statements != NULL)
        statement_free(s, &s->statements);
    while (s->portals != NULL)
        portal_free(s, &s->portals);
    free(s->waiting_tag);
    free(s->user);
    free(s);
}

bool admin_session_is_waiting(const struct admin_session *s)
{
    return s->waiting != WAITING_NOT;
}

void admin_put_login_parameters(const struct admin_view *view, struct bytequeue *out)
{
    char version[64];
    snprintf(version, sizeof(version), "%s/bouncer", view->version);
    const struct {
        const char *name;
        const char *value;
    } parameters[] = {
        { "server_version", version }, { "client_encoding", "UTF8" },
        { "server_encoding", "UTF8" }, { "DateStyle", "ISO" },
        { "TimeZone", "GMT" },         { "standard_conforming_strings", "on" },
        { "is_superuser", "on" },
    };
    for (size_t i = 0; i < sizeof(parameters) / sizeof(parameters[0]); i++)
        wire_encode_parameter_status(out, str_from(parameters[i].name),
                                     str_from(parameters[i].value));
}

/* ---- running one request ---- */

static void put_help(struct bytequeue *out)
{
    static const char help[] =
        "\n\tSHOW HELP|CONFIG|DATABASES|POOLS|CLIENTS|SERVERS|USERS|VERSION"
        "\n\tSHOW PEERS|PEER_POOLS"
        "\n\tSHOW SOCKETS|ACTIVE_SOCKETS|LISTS|MEM|STATE"
        "\n\tSHOW PINNED|LISTENERS|WAITERS|DNS_HOSTS|DNS_ZONES"
        "\n\tSHOW STATS|STATS_TOTALS|STATS_AVERAGES|TOTALS"
        "\n\tSET key = arg"
        "\n\tRELOAD"
        "\n\tPAUSE [<db>]"
        "\n\tRESUME [<db>]"
        "\n\tDISABLE <db>"
        "\n\tENABLE <db>"
        "\n\tRECONNECT [<db>]"
        "\n\tKILL [<db>]"
        "\n\tKILL_CLIENT <client_id>"
        "\n\tSUSPEND"
        "\n\tSHUTDOWN"
        "\n\tSHUTDOWN WAIT_FOR_SERVERS|WAIT_FOR_CLIENTS|WAIT_FOR_TRANSACTIONS"
        "\n\tWAIT_CLOSE [<db>]";
    const struct {
        char field;
        const char *value;
    } fields[] = {
        { NOTICE_SEVERITY, "NOTICE" }, { NOTICE_SEVERITY_PLAIN, "NOTICE" },
        { NOTICE_SQLSTATE, "00000" },  { NOTICE_MESSAGE, "Console usage" },
        { NOTICE_DETAIL, help },
    };
    struct wire_mark mark = wire_begin(out, BE_NOTICE);
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        wire_put_u8(out, (uint8_t)fields[i].field);
        wire_put_cstr(out, str_from(fields[i].value));
    }
    wire_put_u8(out, 0);
    wire_end(out, mark);
}

static bool check_rights(const struct admin_session *s, const struct request *r, struct err *e)
{
    switch (r->kind) {
    case REQUEST_SHOW:
        if (r->show->admin_only)
            break;
        return true;
    case REQUEST_EMPTY:
    case REQUEST_HELP:
    case REQUEST_FAKE_SHOW:
    case REQUEST_FAKE_SET:
        return true;
    case REQUEST_COMMAND:
        break;
    }
    if (s->rights != ADMIN_RIGHTS_ADMIN)
        return err_set(e, ERR_REFUSAL, "08P01", "admin access needed");
    return true;
}

/* Rows of a SHOW into a queue of their own: the caller says how many are sent when. */
static size_t run_rows(struct admin_session *s, const struct request *r, const bool *binary,
                       struct bytequeue *rows)
{
    if (r->kind == REQUEST_SHOW)
        return show_run(r->show, s->view, binary, rows);
    struct str value = str_from(r->value);
    wire_encode_data_row(rows, &value, 1);
    return 1;
}

/* Everything but SHOWs with rows. ADMIN_DONE: its completion has still to be sent. */
static enum admin_result run_other(struct admin_session *s, const struct request *r,
                                   struct bytequeue *out, struct err *e)
{
    switch (r->kind) {
    case REQUEST_HELP:
        put_help(out);
        return ADMIN_DONE;
    case REQUEST_FAKE_SET:
        notice_encode_notice(out, "NOTICE", "00000", "SET ignored");
        return ADMIN_DONE;
    case REQUEST_COMMAND:
        break;
    case REQUEST_EMPTY:
    case REQUEST_SHOW:
    case REQUEST_FAKE_SHOW:
        return ADMIN_DONE;
    }
    free(s->waiting_tag);
    s->waiting_tag = mem_strdup(r->tag);
    return s->view->perform(s->view->core, s, &r->command, e);
}

static bool has_rows(const struct request *r)
{
    return r->kind == REQUEST_SHOW || r->kind == REQUEST_FAKE_SHOW;
}

static enum admin_next on_query(struct admin_session *s, struct str text, struct bytequeue *out)
{
    static const bool all_text[SHOW_COLUMNS_MAX];
    struct err e = { 0 };
    struct arena arena;
    struct request r;
    enum admin_result result = ADMIN_FAILED;
    arena_init(&arena);

    if (text.len > COMMAND_BYTES_MAX)
        err_set(&e, ERR_REFUSAL, "54000", "the command is longer than %d bytes", COMMAND_BYTES_MAX);
    else if (parse_request(text, &arena, &r, &e) && check_rights(s, &r, &e)) {
        if (r.kind == REQUEST_EMPTY) {
            wire_put_empty(out, BE_EMPTY_QUERY);
            result = ADMIN_DONE;
        } else if (has_rows(&r)) {
            show_put_row_description(r.show, all_text, out);
            run_rows(s, &r, all_text, out);
            result = ADMIN_DONE;
        } else {
            s->waiting = WAITING_SIMPLE;
            result = run_other(s, &r, out, &e);
            if (result != ADMIN_WAITS)
                s->waiting = WAITING_NOT;
        }
    }
    switch (result) {
    case ADMIN_DONE:
        if (r.kind != REQUEST_EMPTY)
            wire_encode_command_complete(out, str_from(r.tag));
        wire_encode_ready(out, STATUS_IDLE);
        break;
    case ADMIN_FAILED:
        notice_encode_err(out, "ERROR", &e);
        wire_encode_ready(out, STATUS_IDLE);
        break;
    case ADMIN_WAITS:
    case ADMIN_CLOSES:
        break;
    }
    err_clear(&e);
    arena_free(&arena);
    if (result == ADMIN_CLOSES)
        return ADMIN_HANGUP;
    return s->waiting != WAITING_NOT ? ADMIN_WAITING : ADMIN_READY;
}

void admin_complete(struct admin_session *s, const struct err *e, struct bytequeue *out)
{
    enum waiting waiting = s->waiting;
    s->waiting = WAITING_NOT;
    if (e != NULL) {
        notice_encode_err(out, "ERROR", e);
        s->skipping = waiting == WAITING_EXTENDED;
    } else {
        wire_encode_command_complete(out, str_from(s->waiting_tag));
    }
    if (waiting == WAITING_SIMPLE)
        wire_encode_ready(out, STATUS_IDLE);
}

/* ---- the extended protocol ---- */

static bool malformed(struct err *e, const char *message)
{
    return err_set(e, ERR_PEER, "08P01", "malformed %s message", message);
}

static bool on_parse(struct admin_session *s, struct str body, struct bytequeue *out, struct err *e)
{
    struct msg_parse m;
    struct request r;
    if (!wire_decode_parse(body, &m))
        return malformed(e, "Parse");
    if (m.query.len > COMMAND_BYTES_MAX || m.statement.len > COMMAND_BYTES_MAX)
        return err_set(e, ERR_REFUSAL, "54000", "the command is longer than %d bytes",
                       COMMAND_BYTES_MAX);
    struct arena arena;
    arena_init(&arena);
    bool ok = parse_request(m.query, &arena, &r, e);
    arena_free(&arena);
    if (!ok)
        return false;

    struct statement **at = find_statement(s, m.statement);
    if (*at != NULL && m.statement.len > 0)
        return err_set(e, ERR_REFUSAL, "42P05", "prepared statement \"" STR_FMT "\" already exists",
                       STR_ARG(m.statement));
    if (*at != NULL)
        statement_free(s, at);
    if (s->n_statements >= STATEMENTS_MAX)
        return err_set(e, ERR_REFUSAL, "54000", "more than %d prepared statements on the console",
                       STATEMENTS_MAX);
    struct statement *st = mem_alloc(sizeof(*st));
    st->name = copy(m.statement);
    st->text = copy(m.query);
    st->next = s->statements;
    s->statements = st;
    s->n_statements++;
    wire_put_empty(out, BE_PARSE_COMPLETE);
    return true;
}

static bool on_bind(struct admin_session *s, struct str body, struct bytequeue *out, struct err *e)
{
    struct msg_bind m;
    if (!wire_decode_bind(body, &m))
        return malformed(e, "Bind");
    struct statement *st = *find_statement(s, m.statement);
    if (st == NULL)
        return err_set(e, ERR_REFUSAL, "26000", "prepared statement \"" STR_FMT "\" does not exist",
                       STR_ARG(m.statement));
    if (m.n_params != 0)
        return err_set(e, ERR_REFUSAL, "08P01",
                       "bind message supplies %u parameters, but prepared statement \"" STR_FMT
                       "\" requires 0",
                       m.n_params, STR_ARG(m.statement));

    struct arena arena;
    struct request r;
    arena_init(&arena);
    bool ok = parse_request(str_from(st->text), &arena, &r, e);
    arena_free(&arena);
    if (!ok)
        return false;
    uint16_t n_columns = has_rows(&r) ? r.show->n_columns : 0;
    if (m.n_result_formats > 1 && m.n_result_formats != n_columns)
        return err_set(e, ERR_REFUSAL, "08P01",
                       "bind message has %u result formats but query has %u columns",
                       m.n_result_formats, n_columns);
    bool binary[SHOW_COLUMNS_MAX] = { false };
    for (uint16_t i = 0; i < n_columns; i++) {
        int16_t format = wire_bind_result_format(&m, i);
        if (format != 0 && format != 1)
            return err_set(e, ERR_REFUSAL, "22023", "unsupported format code: %d", format);
        binary[i] = format == 1;
    }

    struct portal **at = find_portal(s, m.portal);
    if (*at != NULL && m.portal.len > 0)
        return err_set(e, ERR_REFUSAL, "42P03", "cursor \"" STR_FMT "\" already exists",
                       STR_ARG(m.portal));
    if (*at != NULL)
        portal_free(s, at);
    if (s->n_portals >= STATEMENTS_MAX || m.portal.len > COMMAND_BYTES_MAX)
        return err_set(e, ERR_REFUSAL, "54000", "more than %d portals on the console",
                       STATEMENTS_MAX);
    struct portal *p = mem_alloc(sizeof(*p));
    p->name = copy(m.portal);
    p->text = mem_strdup(st->text);
    memcpy(p->binary, binary, sizeof(binary));
    p->next = s->portals;
    s->portals = p;
    s->n_portals++;
    wire_put_empty(out, BE_BIND_COMPLETE);
    return true;
}

static bool on_describe(struct admin_session *s, struct str body, struct bytequeue *out,
                        struct err *e)
{
    static const bool all_text[SHOW_COLUMNS_MAX];
    struct msg_target m;
    if (!wire_decode_target(body, &m))
        return malformed(e, "Describe");
    const char *text;
    const bool *binary = all_text;
    if (m.target == TARGET_STATEMENT) {
        struct statement *st = *find_statement(s, m.name);
        if (st == NULL)
            return err_set(e, ERR_REFUSAL, "26000",
                           "prepared statement \"" STR_FMT "\" does not exist", STR_ARG(m.name));
        text = st->text;
    } else {
        struct portal *p = *find_portal(s, m.name);
        if (p == NULL)
            return err_set(e, ERR_REFUSAL, "34000", "portal \"" STR_FMT "\" does not exist",
                           STR_ARG(m.name));
        text = p->text;
        binary = p->binary;
    }
    struct arena arena;
    struct request r;
    arena_init(&arena);
    bool ok = parse_request(str_from(text), &arena, &r, e);
    arena_free(&arena);
    if (!ok)
        return false;
    if (m.target == TARGET_STATEMENT)
        wire_encode_param_description(out, NULL, 0);
    if (has_rows(&r))
        show_put_row_description(r.show, binary, out);
    else
        wire_put_empty(out, BE_NO_DATA);
    return true;
}

static bool on_close(struct admin_session *s, struct str body, struct bytequeue *out, struct err *e)
{
    struct msg_target m;
    if (!wire_decode_target(body, &m))
        return malformed(e, "Close");
    if (m.target == TARGET_STATEMENT) {
        struct statement **at = find_statement(s, m.name);
        if (*at != NULL)
            statement_free(s, at);
    } else {
        struct portal **at = find_portal(s, m.name);
        if (*at != NULL)
            portal_free(s, at);
    }
    wire_put_empty(out, BE_CLOSE_COMPLETE);
    return true;
}

/* The next max rows of a portal that has run; 0 means all. True when none are left. */
static bool send_rows(struct portal *p, int32_t max, struct bytequeue *out)
{
    size_t want = max > 0 && (size_t)max < p->n_rows ? (size_t)max : p->n_rows;
    struct str rows = bytequeue_str(&p->rows);
    size_t len = 0;
    for (size_t i = 0; i < want; i++) {
        const unsigned char *at = (const unsigned char *)rows.ptr + len;
        len += 1 + ((size_t)at[1] << 24 | (size_t)at[2] << 16 | (size_t)at[3] << 8 | at[4]);
    }
    bytequeue_put(out, rows.ptr, len);
    bytequeue_consume(&p->rows, len);
    p->n_rows -= want;
    return p->n_rows == 0;
}

static enum admin_result on_execute(struct admin_session *s, struct str body, struct bytequeue *out,
                                    struct err *e)
{
    struct msg_execute m;
    if (!wire_decode_execute(body, &m)) {
        malformed(e, "Execute");
        return ADMIN_FAILED;
    }
    struct portal *p = *find_portal(s, m.portal);
    if (p == NULL) {
        err_set(e, ERR_REFUSAL, "34000", "portal \"" STR_FMT "\" does not exist",
                STR_ARG(m.portal));
        return ADMIN_FAILED;
    }
    struct arena arena;
    struct request r;
    enum admin_result result = ADMIN_FAILED;
    arena_init(&arena);
    if (parse_request(str_from(p->text), &arena, &r, e) && check_rights(s, &r, e)) {
        if (r.kind == REQUEST_EMPTY) {
            wire_put_empty(out, BE_EMPTY_QUERY);
            result = ADMIN_DONE;
        } else if (has_rows(&r)) {
            if (!p->has_run)
                p->n_rows = run_rows(s, &r, p->binary, &p->rows);
            p->has_run = true;
            if (send_rows(p, m.max_rows, out))
                wire_encode_command_complete(out, str_from(r.tag));
            else
                wire_put_empty(out, BE_PORTAL_SUSPENDED);
            result = ADMIN_DONE;
        } else if (p->has_run) {
            err_set(e, ERR_REFUSAL, "55000", "portal \"" STR_FMT "\" cannot be run",
                    STR_ARG(m.portal));
        } else {
            p->has_run = true;
            s->waiting = WAITING_EXTENDED;
            result = run_other(s, &r, out, e);
            if (result != ADMIN_WAITS)
                s->waiting = WAITING_NOT;
            if (result == ADMIN_DONE)
                wire_encode_command_complete(out, str_from(r.tag));
        }
    }
    arena_free(&arena);
    return result;
}

enum admin_next admin_on_message(struct admin_session *s, char type, struct str body,
                                 struct bytequeue *out)
{
    struct err e = { 0 };
    struct str sql;
    enum admin_result result = ADMIN_DONE;

    if (type == FE_TERMINATE)
        return ADMIN_HANGUP;
    if (type == FE_SYNC) {
        s->skipping = false;
        while (s->portals != NULL)
            portal_free(s, &s->portals);
        wire_encode_ready(out, STATUS_IDLE);
        return ADMIN_READY;
    }
    if (s->skipping)
        return ADMIN_READY;

    switch (type) {
    case FE_QUERY:
        if (!wire_decode_query(body, &sql)) {
            notice_encode_error(out, "FATAL", "08P01", "malformed Query message");
            return ADMIN_HANGUP;
        }
        return on_query(s, sql, out);
    case FE_PARSE:
        result = on_parse(s, body, out, &e) ? ADMIN_DONE : ADMIN_FAILED;
        break;
    case FE_BIND:
        result = on_bind(s, body, out, &e) ? ADMIN_DONE : ADMIN_FAILED;
        break;
    case FE_DESCRIBE:
        result = on_describe(s, body, out, &e) ? ADMIN_DONE : ADMIN_FAILED;
        break;
    case FE_CLOSE:
        result = on_close(s, body, out, &e) ? ADMIN_DONE : ADMIN_FAILED;
        break;
    case FE_EXECUTE:
        result = on_execute(s, body, out, &e);
        break;
    case FE_FLUSH:
    case FE_COPY_DATA:
    case FE_COPY_DONE:
    case FE_COPY_FAIL:
        return ADMIN_READY;
    default:
        notice_encode_error(out, "FATAL", "08P01", "unexpected message type 0x%02x on the console",
                            (unsigned char)type);
        return ADMIN_HANGUP;
    }
    if (result == ADMIN_FAILED) {
        notice_encode_err(out, "ERROR", &e);
        s->skipping = true;
    }
    err_clear(&e);
    if (result == ADMIN_CLOSES)
        return ADMIN_HANGUP;
    return s->waiting != WAITING_NOT ? ADMIN_WAITING : ADMIN_READY;
}
