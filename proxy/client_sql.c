#include "proxy/client_sql.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/arena.h"
#include "base/text.h"
#include "protocol/notice.h"
#include "protocol/query_extended.h"
#include "protocol/query_simple.h"
#include "protocol/result.h"
#include "protocol/status.h"
#include "proxy/batch.h"
#include "proxy/client_internal.h"
#include "proxy/session_scan.h"
#include "proxy/session_state.h"
#include "proxy/sql_prepare.h"

enum sql_change_kind {
    CHANGE_NOTHING,   /* a statement of ours: its completion is hidden */
    CHANGE_TAUGHT,    /* the same, and the server has `statement` */
    CHANGE_PREPARED,  /* the client's `name` is `statement`, which the server has */
    CHANGE_FORGOTTEN, /* the client's `name` is free */
};

struct sql_change {
    enum sql_change_kind kind;
    unsigned at;                 /* with the how manieth completion, from 0 */
    struct statement *statement; /* a reference, or NULL */
    char *name;
    size_t name_len;
};

/* [sent, sent_end) of what was sent stands for [own, own_end) of the client's text; in characters
 * from 1, as errors count. */
struct sql_splice {
    size_t sent;
    size_t sent_end;
    size_t own;
    size_t own_end;
};

/* Errors speak of the client's name. */
struct sql_alias {
    char internal[32];
    char *name;
    size_t name_len;
};

struct sql_outcome {
    unsigned n_aliases;
    struct sql_alias *aliases;
    unsigned n_completed;
    unsigned n_changes;
    struct sql_change *changes; /* by `at` */
    unsigned n_splices;
    struct sql_splice *splices; /* by place */
};

static struct proxy *proxy_of(const struct client *c)
{
    return c->conn.worker->proxy;
}

static struct statement_table *table_of(const struct client *c)
{
    return &proxy_of(c)->statements;
}

static struct sql_change *add_change(struct sql_outcome *o, enum sql_change_kind kind, size_t at,
                                     struct statement *st, struct str name)
{
    o->changes = mem_realloc(o->changes, (o->n_changes + 1) * sizeof(*o->changes));
    struct sql_change *c = &o->changes[o->n_changes++];
    *c = (struct sql_change){ .kind = kind, .at = (unsigned)at };
    c->statement = st != NULL ? statement_ref(st) : NULL;
    if (name.len > 0) {
        c->name = mem_alloc(name.len);
        memcpy(c->name, name.ptr, name.len);
        c->name_len = name.len;
    }
    return c;
}

static void add_alias(struct sql_outcome *o, const char *internal, struct str name)
{
    o->aliases = mem_realloc(o->aliases, (o->n_aliases + 1) * sizeof(*o->aliases));
    struct sql_alias *alias = &o->aliases[o->n_aliases++];
    snprintf(alias->internal, sizeof(alias->internal), "%s", internal);
    alias->name = mem_alloc(name.len + 1);
    memcpy(alias->name, name.ptr, name.len);
    alias->name_len = name.len;
}

void sql_outcome_free(struct sql_outcome *o, struct server *s)
{
    if (o == NULL)
        return;
    for (unsigned i = 0; i < o->n_changes; i++) {
        if (o->changes[i].statement != NULL)
            statement_unref(&s->conn.worker->proxy->statements, o->changes[i].statement);
        free(o->changes[i].name);
    }
    for (unsigned i = 0; i < o->n_aliases; i++)
        free(o->aliases[i].name);
    free(o->aliases);
    free(o->changes);
    free(o->splices);
    free(o);
}

bool client_sql_may_matter(const struct client *c, struct str text, bool alone)
{
    return proxy_of(c)->config->track_sql_prepare && client_tracks_statements(c) &&
           sql_prepare_may_matter(text, alone);
}

/* Nothing is owed, so that names mean what we think. */
static bool is_quiet(struct client *c)
{
    if (c->server->owed.count == 0)
        return true;
    wire_encode_flush(&c->server->conn.out);
    conn_flush(&c->server->conn);
    return false;
}

/* ---- a text that is put together ---------------------------------------------------------- */

struct splicing {
    struct client *client;
    struct str own; /* the client's text */
    struct text sent;
    size_t own_done; /* bytes of own that are in sent */
    struct sql_outcome *outcome;
    size_t n_extra; /* statements of ours so far */
    /* What the statements so far mean for those behind. */
    struct overlay {
        struct str name;
        struct statement *statement; /* NULL: deallocated */
    } * overlay;
    size_t n_overlay;
    bool forgets_all;
    struct statement **taught;
    size_t n_taught;
    struct statement **made; /* references */
    size_t n_made;
    bool sync; /* messages of ours went before */
};

static void copy_up_to(struct splicing *p, size_t end)
{
    text_put_str(&p->sent, (struct str){ p->own.ptr + p->own_done, end - p->own_done });
    p->own_done = end;
}

/* What was put behind sent_start stands for [own_done, own_end). */
static void note_splice(struct splicing *p, size_t sent_start, size_t own_end)
{
    struct sql_outcome *o = p->outcome;

    o->splices = mem_realloc(o->splices, (o->n_splices + 1) * sizeof(*o->splices));
    o->splices[o->n_splices++] = (struct sql_splice){
        .sent = (size_t)sql_char_position(text_str(&p->sent), sent_start),
        .sent_end = (size_t)sql_char_position(text_str(&p->sent), p->sent.len),
        .own = (size_t)sql_char_position(p->own, p->own_done),
        .own_end = (size_t)sql_char_position(p->own, own_end),
    };
    p->own_done = own_end;
}

static void replace_name(struct splicing *p, const struct sql_prepare_command *cmd,
                         const char *name)
{
    copy_up_to(p, cmd->name_start);
    size_t start = p->sent.len;
    /* Quotes end a word: white space around it is not needed, but was the name's own. */
    text_put_ident(&p->sent, name);
    note_splice(p, start, cmd->name_end);
    add_alias(p->outcome, name, cmd->name);
}

/* A statement of ours in front of the command. */
static void put_before(struct splicing *p, const struct sql_prepare_command *cmd, const char *name,
                       struct str body)
{
    copy_up_to(p, cmd->at.start);
    size_t start = p->sent.len;
    text_put(&p->sent, "PREPARE ");
    text_put_ident(&p->sent, name);
    text_put(&p->sent, " ");
    text_put_str(&p->sent, body);
    text_put(&p->sent, ";");
    note_splice(p, start, cmd->at.start);
    p->n_extra++;
}

static struct statement *look_up(struct splicing *p, struct str name)
{
    for (size_t i = p->n_overlay; i > 0; i--)
        if (str_equal(p->overlay[i - 1].name, name))
            return p->overlay[i - 1].statement;
    if (p->forgets_all)
        return NULL;
    struct client_statement *cs = client_statement_find(&p->client->statements, name);
    if (cs != NULL && cs->statement != NULL && cs->sql == NULL)
        reading_renew(p->client, &cs->statement, false);
    return cs != NULL ? cs->statement : NULL;
}

static void put_overlay(struct splicing *p, struct str name, struct statement *st)
{
    p->overlay[p->n_overlay++] = (struct overlay){ name, st };
}

static bool server_has(const struct splicing *p, const struct statement *st)
{
    for (size_t i = 0; i < p->n_taught; i++)
        if (p->taught[i] == st)
            return true;
    return !p->forgets_all && server_has_fresh(p->client->server, st);
}

/* The server will have the statement when it comes to the command. */
static void teach(struct splicing *p, const struct sql_prepare_command *cmd, struct statement *st)
{
    struct server *s = p->client->server;

    if (server_has(p, st)) {
        server_statements_touch(&s->statements, st);
        return;
    }
    if (st->source == STATEMENT_PARSED || server_statements_has(&s->statements, st)) {
        /* By messages, which can say what SQL can't: types by their OIDs, Close of an old one. */
        server_prepare(s, st);
        p->sync = true;
    } else {
        add_change(p->outcome, CHANGE_TAUGHT, cmd->statement + p->n_extra, st, (struct str){ 0 });
        put_before(p, cmd, st->name, (struct str){ st->body, st->body_len });
    }
    p->taught[p->n_taught++] = st;
}

/* What PREPARE makes: shared when no server can have it yet under this name. */
static struct statement *make_statement(struct client *c, struct str body)
{
    struct statement *st = statement_get(table_of(c), reading_of(c), STATEMENT_SQL, body);

    if (atomic_load(&st->refs) == 1)
        return st;
    statement_unref(table_of(c), st);
    return statement_new(table_of(c), reading_of(c), STATEMENT_SQL, body);
}

static bool is_internal(struct str name)
{
    return str_starts_with(name, STR("PGTRICKLE_"));
}

static void splice_command(struct splicing *p, const struct sql_prepare_command *cmd)
{
    struct client *c = p->client;
    struct statement *st = NULL;
    char stand_in[32];

    if (cmd->verb != SQL_FORGET_ALL)
        st = look_up(p, cmd->name);
    switch (cmd->verb) {
    case SQL_EXECUTE:
        if (st != NULL) {
            teach(p, cmd, st);
            replace_name(p, cmd, st->name);
        } else if (is_internal(cmd->name)) {
            replace_name(p, cmd, "PGTRICKLE_none");
        }
        break;
    case SQL_PREPARE:
        if (st != NULL) {
            teach(p, cmd, st); /* the name is in use: so it will be there */
            replace_name(p, cmd, st->name);
            break;
        }
        st = make_statement(
            c, (struct str){ p->own.ptr + cmd->name_end, cmd->at.end - cmd->name_end });
        p->made[p->n_made++] = st;
        add_change(p->outcome, CHANGE_PREPARED, cmd->statement + p->n_extra, st, cmd->name);
        replace_name(p, cmd, st->name);
        put_overlay(p, cmd->name, st);
        p->taught[p->n_taught++] = st;
        break;
    case SQL_DEALLOCATE:
        if (st != NULL) {
            statement_table_make_name(table_of(c), stand_in);
            add_change(p->outcome, CHANGE_NOTHING, cmd->statement + p->n_extra, NULL,
                       (struct str){ 0 });
            put_before(p, cmd, stand_in, STR("AS SELECT"));
            add_change(p->outcome, CHANGE_FORGOTTEN, cmd->statement + p->n_extra, NULL, cmd->name);
            replace_name(p, cmd, stand_in);
            put_overlay(p, cmd->name, NULL);
        } else if (is_internal(cmd->name)) {
            replace_name(p, cmd, "PGTRICKLE_none");
        }
        break;
    case SQL_FORGET_ALL:
        p->forgets_all = true;
        p->n_overlay = p->n_taught = 0;
        break;
    }
}

/* ---- simple queries ------------------------------------------------------------------------ */

/* The whole text is this one command. */
static bool is_alone(struct client *c, struct str text, const struct sql_prepare_command *cmd)
{
    struct sql_scanner s = { text, cmd->at.end, client_standard_strings(c) };
    struct sql_statement next;

    return cmd->statement == 0 && !sql_split_next(&s, &next);
}

static enum client_sql_next answer(struct client *c, const char *tag)
{
    client_request_begins(c);
    wire_encode_command_complete(&c->conn.out, str_from(tag));
    wire_encode_ready(&c->conn.out, (enum wire_status)c->server->tx_status);
    conn_flush(&c->conn);
    client_forget_unnamed(c);
    client_on_batch_done(c);
    return CLIENT_SQL_DONE;
}

/* PREPARE of what the server has, and DEALLOCATE, need no server. */
static bool can_answer(const struct client *c)
{
    return !c->server->in_pipeline && c->server->tx_status != STATUS_FAILED &&
           !c->server->copy_in && !c->lend_block;
}

static bool answer_alone(struct client *c, struct str text, const struct sql_prepare_command *cmd)
{
    struct client_statement *cs = client_statement_find(&c->statements, cmd->name);

    if (cmd->verb == SQL_DEALLOCATE && cs != NULL && cs->statement != NULL) {
        client_statement_remove(&c->statements, cs, table_of(c));
        answer(c, "DEALLOCATE");
        return true;
    }
    if (cmd->verb == SQL_PREPARE && cs == NULL) {
        struct str body = { text.ptr + cmd->name_end, cmd->at.end - cmd->name_end };
        struct statement *st = statement_find(table_of(c), reading_of(c), STATEMENT_SQL, body);
        if (st == NULL)
            return false;
        if (server_has_fresh(c->server, st)) {
            server_statements_touch(&c->server->statements, st);
            client_statement_add(&c->statements, ++c->next_serial, cmd->name, st, NULL);
            c->pool->stats.client_parses++;
            answer(c, "PREPARE");
            return true;
        }
        statement_unref(table_of(c), st);
    }
    return false;
}

/* The text that an EXECUTE of it runs. */
static struct str text_of(const struct statement *st)
{
    return st->source == STATEMENT_PARSED ? str_from(st->body)
                                          : (struct str){ st->body, st->body_len };
}

/* Its statement may change the session. */
static bool touches_session(struct client *c, const struct sql_prepare_command *cmd)
{
    struct client_statement *cs = NULL;

    if (cmd->verb == SQL_EXECUTE)
        cs = client_statement_find(&c->statements, cmd->name);
    return cs != NULL && cs->statement != NULL && session_scan_wants(text_of(cs->statement), true);
}

/* Splicing takes this much time; who sends more is refused, for the loop is everybody's. */
#define COMMANDS_TIMES_BYTES_MAX (16u * 1024 * 1024)

static enum client_sql_next refuse_too_many(struct client *c)
{
    struct err e = { 0 };

    err_set(&e, ERR_REFUSAL, "54000",
            "too many PREPARE, EXECUTE and DEALLOCATE commands in one query string");
    client_refuse_query(c, &e);
    err_clear(&e);
    return CLIENT_SQL_DONE;
}

enum client_sql_next client_sql_query(struct client *c, struct str text)
{
    struct arena a;
    struct sql_prepare_command *cmd;
    enum client_sql_next next = CLIENT_SQL_NOT_OURS;

    arena_init(&a);
    size_t n = sql_prepare_find(text, client_standard_strings(c), &a, &cmd);
    if (n > 0 && !is_quiet(c))
        next = CLIENT_SQL_WAITS;
    else if (n > 1 && n > COMMANDS_TIMES_BYTES_MAX / text.len)
        next = refuse_too_many(c);
    for (size_t i = 0; i < n && next == CLIENT_SQL_NOT_OURS; i++) {
        struct err e = { 0 };
        if (!touches_session(c, &cmd[i]))
            continue;
        struct client_statement *cs = client_statement_find(&c->statements, cmd[i].name);
        switch (session_state_on_text(c, text_of(cs->statement), true, &e)) {
        case SESSION_WAITS:
            next = CLIENT_SQL_WAITS;
            break;
        case SESSION_REFUSED:
            client_refuse_query(c, &e);
            next = CLIENT_SQL_DONE;
            break;
        case SESSION_GO_ON:
            break;
        }
        err_clear(&e);
    }
    if (next != CLIENT_SQL_NOT_OURS) {
        /* not now */
    } else if (n == 1 && can_answer(c) && is_alone(c, text, cmd) && answer_alone(c, text, cmd)) {
        next = CLIENT_SQL_DONE;
    } else if (n > 0) {
        struct splicing p = {
            .client = c,
            .own = text,
            .outcome = mem_alloc(sizeof(struct sql_outcome)),
            .overlay = arena_new_array(&a, struct overlay, n),
            .taught = arena_new_array(&a, struct statement *, 2 * n),
            .made = arena_new_array(&a, struct statement *, n),
        };
        text_init(&p.sent);
        client_request_begins(c);
        bool is_new = batch_is_new(c->server);
        for (size_t i = 0; i < n; i++) {
            if (cmd[i].verb == SQL_PREPARE)
                c->pool->stats.client_parses++;
            splice_command(&p, &cmd[i]);
        }
        copy_up_to(&p, text.len);
        if (p.sync) {
            server_owe(c->server, ENDS_SYNC, REPLY_SWALLOWED);
            wire_encode_sync(&c->server->conn.out);
        }
        client_forget_unnamed(c);
        struct reply_owed *o = client_owe(c, ENDS_QUERY);
        o->outcome = p.outcome;
        if (is_new)
            batch_begin(c->server, o);
        wire_encode_query(&c->server->conn.out, text_str(&p.sent));
        conn_flush(&c->server->conn);
        c->waits_for_answers = true;
        for (size_t i = 0; i < p.n_made; i++)
            statement_unref(table_of(c), p.made[i]);
        text_free(&p.sent);
        next = CLIENT_SQL_DONE;
    }
    arena_free(&a);
    return next;
}

/* ---- extended queries ---------------------------------------------------------------------- */

static struct str name_of(const struct sql_command *cmd)
{
    return (struct str){ cmd->name, cmd->name_len };
}

/* The tail of the Parse as this server has to get it now, in *tail; the server has what it needs.
 */
static void resolve(struct client *c, struct sql_command *cmd, struct text *tail)
{
    struct client_statement *cs = NULL;
    struct str own = { cmd->tail, cmd->tail_len };
    const char *name = NULL;

    if (cmd->verb != SQL_FORGET_ALL)
        cs = client_statement_find(&c->statements, name_of(cmd));
    switch (cmd->verb) {
    case SQL_EXECUTE:
        if (cs != NULL && cs->statement != NULL) {
            client_request_begins(c);
            if (cs->sql == NULL)
                reading_renew(c, &cs->statement, false);
            server_prepare(c->server, cs->statement);
            name = cs->statement->name;
        } else if (is_internal(name_of(cmd))) {
            name = "PGTRICKLE_none";
        }
        break;
    case SQL_PREPARE:
        /* The name may be free when the time comes to execute it. */
        if (cmd->target != NULL && server_statements_has(&c->server->statements, cmd->target)) {
            statement_unref(table_of(c), cmd->target);
            cmd->target = NULL;
        }
        if (cmd->target == NULL)
            cmd->target = make_statement(
                c, (struct str){ cmd->tail + cmd->name_end, cmd->command_end - cmd->name_end });
        name = cmd->target->name;
        break;
    case SQL_DEALLOCATE:
        if (cs != NULL && cs->statement != NULL) {
            if (cmd->stand_in[0] == '\0')
                statement_table_make_name(table_of(c), cmd->stand_in);
            name = cmd->stand_in;
        } else {
            cmd->stand_in[0] = '\0';
            if (is_internal(name_of(cmd)))
                name = "PGTRICKLE_none";
        }
        break;
    case SQL_FORGET_ALL:
        break;
    }
    if (name == NULL) {
        text_put_str(tail, own);
        return;
    }
    text_put_str(tail, (struct str){ own.ptr, cmd->name_start });
    text_put_ident(tail, name);
    text_put_str(tail, (struct str){ own.ptr + cmd->name_end, own.len - cmd->name_end });
}

struct sql_outcome *sql_outcome_of_parse(const struct sql_command *cmd, size_t sent_len)
{
    struct sql_outcome *o = mem_alloc(sizeof(*o));
    struct str own = { cmd->tail, cmd->text_len };

    o->n_splices = 1;
    o->splices = mem_alloc(sizeof(*o->splices));
    o->splices[0] = (struct sql_splice){
        .sent = (size_t)sql_char_position(own, cmd->name_start),
        .own = (size_t)sql_char_position(own, cmd->name_start),
        .own_end = (size_t)sql_char_position(own, cmd->name_end),
    };
    o->splices[0].sent_end =
        o->splices[0].sent + (cmd->name_end - cmd->name_start) + sent_len - cmd->tail_len;
    return o;
}

void client_sql_mark_parse(struct server *s, const struct sql_command *cmd,
                           const struct statement *st)
{
    struct reply_owed *o = s->owed.count > 0 ? server_owed_at(s, s->owed.count - 1) : NULL;

    if (o != NULL && o->ends == ENDS_PARSE && o->statement == st && o->outcome == NULL)
        o->outcome = sql_outcome_of_parse(cmd, st->body_len);
}

/* For an Execute of the command, whose name was replaced by this one. */
static struct sql_outcome *outcome_of(const struct sql_command *cmd, const char *internal)
{
    size_t quoted = strlen(internal) + 2;
    struct sql_outcome *o =
        sql_outcome_of_parse(cmd, cmd->tail_len - (cmd->name_end - cmd->name_start) + quoted);

    add_alias(o, internal, name_of(cmd));
    return o;
}

static void remember_sent(struct sql_command *cmd, struct str tail)
{
    cmd->sent = mem_realloc(cmd->sent, tail.len);
    memcpy(cmd->sent, tail.ptr, tail.len);
    cmd->sent_len = tail.len;
}

enum client_sql_next client_sql_parse(struct client *c, const struct msg_parse *m)
{
    struct arena a;
    struct sql_prepare_command *found;
    struct text tail;

    arena_init(&a);
    size_t n = sql_prepare_find(m->query, client_standard_strings(c), &a, &found);
    if (n == 0 || !is_alone(c, m->query, found) || !is_quiet(c)) {
        bool ours = n > 0 && c->server->owed.count > 0;
        arena_free(&a);
        return ours ? CLIENT_SQL_WAITS : CLIENT_SQL_NOT_OURS;
    }
    struct sql_command *cmd = mem_alloc(sizeof(*cmd));
    cmd->refs = 1;
    cmd->verb = found->verb;
    cmd->name = mem_alloc(found->name.len + 1);
    memcpy(cmd->name, found->name.ptr, found->name.len);
    cmd->name_len = found->name.len;
    cmd->tail = mem_alloc(m->tail.len);
    memcpy(cmd->tail, m->tail.ptr, m->tail.len);
    cmd->tail_len = m->tail.len;
    cmd->text_len = m->query.len;
    cmd->name_start = found->name_start;
    cmd->name_end = found->name_end;
    cmd->command_end = found->at.end;
    arena_free(&a);

    c->pool->stats.client_parses++;
    text_init(&tail);
    resolve(c, cmd, &tail);
    if (m->statement.len > 0) {
        client_parse_named(c, m->statement, text_str(&tail), NULL, cmd);
    } else {
        client_forget_unnamed(c);
        client_statement_add(&c->statements, ++c->next_serial, m->statement, NULL, NULL)->sql = cmd;
        remember_sent(cmd, text_str(&tail));
        client_owe(c, ENDS_PARSE)->outcome = sql_outcome_of_parse(cmd, tail.len);
        c->pool->stats.server_parses++;
        client_send_parse(c, m->statement, text_str(&tail));
    }
    text_free(&tail);
    return CLIENT_SQL_DONE;
}

void client_sql_renew(struct client *c, struct client_statement *cs)
{
    struct sql_command *cmd = cs->sql;
    struct text tail;

    text_init(&tail);
    resolve(c, cmd, &tail);
    if (cs->statement != NULL) {
        struct statement *st =
            statement_get(table_of(c), reading_of(c), STATEMENT_PARSED, text_str(&tail));
        statement_unref(table_of(c), cs->statement);
        cs->statement = st;
    } else if (!str_equal(text_str(&tail), (struct str){ cmd->sent, cmd->sent_len })) {
        client_request_begins(c);
        struct reply_owed *o = server_owe(c->server, ENDS_PARSE, REPLY_SWALLOWED);
        o->outcome = sql_outcome_of_parse(cmd, tail.len);
        client_send_parse(c, STR(""), text_str(&tail));
        remember_sent(cmd, text_str(&tail));
    }
    text_free(&tail);
}

void client_sql_bound(struct client *c, struct str portal, struct client_statement *cs)
{
    client_statement_add(&client_rare(c)->lend_portals, ++c->next_serial, portal, NULL, NULL)->sql =
        sql_command_ref(cs->sql);
}

static void execute_and_wait(struct client *c, struct str frame, struct sql_outcome *outcome)
{
    client_owe(c, ENDS_EXECUTE)->outcome = outcome;
    client_forward(c, frame);
    wire_encode_flush(&c->server->conn.out);
    c->waits_for_answers = true;
}

bool client_sql_execute(struct client *c, struct client_statement *portal, struct str frame)
{
    struct sql_command *cmd = portal->sql;
    struct str name = name_of(cmd);
    struct client_statement *cs = NULL;
    struct err e = { 0 };

    if (cmd->verb != SQL_FORGET_ALL) {
        if (client_name_in_doubt(c, name))
            return false;
        cs = client_statement_find(&c->statements, name);
    }
    if (cmd->verb == SQL_EXECUTE) {
        bool taken;
        if (cs != NULL && cs->statement != NULL &&
            session_scan_wants(text_of(cs->statement), true) &&
            !client_state_allows(c, text_of(cs->statement), &taken))
            return taken;
        struct reply_owed *o = client_owe(c, ENDS_EXECUTE);
        if (cs != NULL && cs->statement != NULL) {
            o->outcome = outcome_of(cmd, cs->statement->name);
        }
        client_forward(c, frame);
    } else if (cmd->verb == SQL_PREPARE && cs != NULL) {
        /* What else is wrong with it comes first. */
        client_request_begins(c);
        struct reply_owed *o = server_owe(c->server, ENDS_EXECUTE, REPLY_SWALLOWED);
        o->outcome = outcome_of(cmd, cmd->target->name);
        add_change(o->outcome, CHANGE_TAUGHT, 0, cmd->target, (struct str){ 0 });
        client_forward(c, frame);
        err_set(&e, ERR_REFUSAL, "42P05", "prepared statement \"" STR_FMT "\" already exists",
                STR_ARG(name));
        client_fail_in_place(c, &e);
        err_clear(&e);
    } else if (cmd->verb == SQL_DEALLOCATE && cmd->stand_in[0] != '\0' && cs == NULL) {
        err_set(&e, ERR_REFUSAL, "26000", "prepared statement \"" STR_FMT "\" does not exist",
                STR_ARG(name));
        client_fail_in_place(c, &e);
        err_clear(&e);
    } else if (cmd->verb == SQL_PREPARE) {
        struct sql_outcome *o = outcome_of(cmd, cmd->target->name);
        add_change(o, CHANGE_PREPARED, 0, cmd->target, name);
        execute_and_wait(c, frame, o);
    } else if (cmd->verb == SQL_DEALLOCATE && cs != NULL && cmd->stand_in[0] != '\0') {
        struct sql_outcome *o = mem_alloc(sizeof(*o));
        client_request_begins(c);
        server_owe(c->server, ENDS_PARSE, REPLY_SWALLOWED);
        wire_encode_parse(&c->server->conn.out, str_from(cmd->stand_in), STR(""), NULL, 0);
        add_change(o, CHANGE_FORGOTTEN, 0, NULL, name);
        execute_and_wait(c, frame, o);
    } else {
        execute_and_wait(c, frame, NULL);
    }
    return true;
}

/* ---- what the server says ------------------------------------------------------------------ */

bool client_sql_on_completion(struct server *s, struct sql_outcome *o)
{
    struct client *c = s->client; /* NULL: it is gone */
    struct statement_table *t = &s->conn.worker->proxy->statements;
    bool hidden = false;

    for (unsigned i = 0; i < o->n_changes; i++) {
        struct sql_change *change = &o->changes[i];
        if (change->at != o->n_completed)
            continue;
        struct str name = { change->name, change->name_len };
        struct client_statement *cs =
            c != NULL ? client_statement_find(&c->statements, name) : NULL;
        switch (change->kind) {
        case CHANGE_NOTHING:
            hidden = true;
            break;
        case CHANGE_TAUGHT:
            hidden = true;
            server_learned(s, change->statement);
            break;
        case CHANGE_PREPARED:
            server_learned(s, change->statement);
            if (cs == NULL && c != NULL)
                client_statement_add(&c->statements, ++c->next_serial, name,
                                     statement_ref(change->statement), NULL);
            break;
        case CHANGE_FORGOTTEN:
            if (cs != NULL)
                client_statement_remove(&c->statements, cs, t);
            break;
        }
    }
    o->n_completed++;
    return hidden;
}

/* A position in what was sent, in the client's text. */
static size_t own_position(const struct sql_outcome *o, size_t sent)
{
    size_t own = sent;

    for (unsigned i = 0; i < o->n_splices && sent >= o->splices[i].sent; i++) {
        const struct sql_splice *p = &o->splices[i];
        own = sent < p->sent_end ? p->own : p->own_end + (sent - p->sent_end);
    }
    return own;
}

/* The client's name of a statement of ours; ptr NULL: it has none. */
static struct str client_name(struct server *s, const struct reply_owed *o, struct str internal)
{
    const struct sql_outcome *outcome = o != NULL ? o->outcome : NULL;
    struct str name = { 0 };

    for (unsigned i = 0; outcome != NULL && i < outcome->n_aliases; i++)
        if (str_equal(str_from(outcome->aliases[i].internal), internal))
            return (struct str){ outcome->aliases[i].name, outcome->aliases[i].name_len };
    struct map *m = &s->client->statements;
    for (size_t i = 0; i < m->n_buckets; i++) {
        for (struct map_node *n = m->buckets[i]; n != NULL; n = n->next) {
            struct client_statement *cs = MAP_ITEM(n, struct client_statement, node);
            if (cs->statement == NULL || !str_equal(str_from(cs->statement->name), internal))
                continue;
            /* It may have several. */
            name = (struct str){ cs->name, cs->name_len };
            if (o != NULL && o->serial == cs->serial)
                return name;
        }
    }
    return name;
}

/* The internal name in the message becomes the client's. */
static bool fix_names(struct server *s, const struct reply_owed *o, struct str message,
                      struct text *fixed)
{
    ptrdiff_t at = str_find(message, STR("\"PGTRICKLE_"));

    if (at < 0)
        return false;
    const char *from = message.ptr + at + 1;
    const char *end = memchr(from, '"', message.len - (size_t)at - 1);
    if (end == NULL)
        return false;
    struct str internal = { from, (size_t)(end - from) };
    struct str name = client_name(s, o, internal);
    if (name.ptr == NULL)
        return false;
    text_put_str(fixed, (struct str){ message.ptr, (size_t)(from - message.ptr) });
    text_put_str(fixed, name);
    text_put_str(fixed, (struct str){ end, (size_t)(message.ptr + message.len - end) });
    return true;
}

bool client_sql_fix_error(struct server *s, const struct reply_owed *owed, struct str body,
                          struct bytequeue *out)
{
    const struct sql_outcome *o = owed != NULL ? owed->outcome : NULL;
    bool fixed = false;
    struct text message;

    text_init(&message);
    if (fix_names(s, owed, notice_get(body, NOTICE_MESSAGE), &message)) {
        fixed = notice_encode_with(out, BE_ERROR, body, NOTICE_MESSAGE, text_str(&message));
    } else if (o != NULL && o->n_splices > 0) {
        struct str position = notice_get(body, NOTICE_POSITION);
        size_t sent = 0;
        for (size_t i = 0; i < position.len && position.ptr[i] >= '0' && position.ptr[i] <= '9';
             i++)
            sent = sent * 10 + (size_t)(position.ptr[i] - '0');
        if (sent > 0) {
            text_printf(&message, "%zu", own_position(o, sent));
            fixed = notice_encode_with(out, BE_ERROR, body, NOTICE_POSITION, text_str(&message));
        }
    }
    text_free(&message);
    return fixed;
}

void client_sql_distrust(struct server *s, const struct sql_outcome *o, bool is_gone)
{
    struct map *m = &s->statements.map;

    for (unsigned i = 0; i < o->n_aliases; i++) {
        struct statement *st = NULL;
        for (size_t k = 0; k < m->n_buckets && st == NULL; k++) {
            for (struct map_node *n = m->buckets[k]; n != NULL; n = n->next) {
                struct statement *had = MAP_ITEM(n, struct server_statement, node)->statement;
                if (strcmp(had->name, o->aliases[i].internal) == 0)
                    st = had;
            }
        }
        if (st != NULL)
            server_distrust(s, st, is_gone);
    }
}

bool client_sql_takes_error(struct server *s, struct str frame)
{
    for (unsigned i = 0; i + 1 < s->owed.count; i++) {
        struct reply_owed *o = server_owed_at(s, i);
        struct reply_owed *query = server_owed_at(s, i + 1);
        if (o->audience != REPLY_SWALLOWED)
            return false;
        if (o->ends != ENDS_SYNC)
            continue;
        if (query->ends != ENDS_QUERY || query->outcome == NULL)
            return false;
        query->audience = REPLY_SUBSTITUTED;
        query->error = mem_alloc(frame.len);
        memcpy(query->error, frame.ptr, frame.len);
        query->error_len = frame.len;
        return true;
    }
    return false;
}
