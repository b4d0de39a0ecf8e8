/* Completes requests: what a function of schema pgtrickle could not do by itself.
 *
 * A request was registered by SQL in the transaction that this session is in (or,
 * when the daemon was bypassed, in an earlier one, with the scheduler now acting
 * as the caller).  We compile the definition, run the DDL, install capture, fill.
 * All of it is part of the transaction: an abort leaves nothing.
 *
 * Order matters for exactness.  Triggers come before the fill: CREATE TRIGGER takes
 * SHARE ROW EXCLUSIVE on the source and so waits for its writers; the fill's
 * snapshot, a later statement's, then sees what they wrote, and whoever writes
 * afterwards is captured.  In REPEATABLE READ and SERIALIZABLE the snapshot may be
 * older than the triggers: then the first refresh is a FULL one (needs_reinit), and
 * IMMEDIATE, which has no later refresh, is refused.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/text.h"
#include "dvm/dvm.h"
#include "dvm/runtime/dvm_internal.h"
#include "dvm/runtime/schedule.h"

/* Everything of ours runs with this: no name of ours is found in a schema of a user's. */
#define OUR_SEARCH_PATH "pg_catalog, pg_temp"

/* How an index that we made is told from one that the user added. */
#define OUR_INDEX_COMMENT "maintained by pgtrickle"

struct request {
    const char *id; /* request_id, a number as text */
    const char *op;
    const char *args; /* jsonb as text */
    const char *caller;
    const char *search_path;
    const char *settings; /* jsonb as text: name -> value, or NULL */
    const char *schema;
    const char *name;
    const char *query;
    const char *schedule;     /* NULL: calculated */
    const char *refresh_mode; /* NULL: AUTO, or what it was */
    const char *pgt_id;       /* of alter_*, rebuild */
    bool initialize;
    bool append_only;
    bool names_anew; /* without a list of columns' names, they are the query's own */
};

/* A stream table that is there already. */
struct existing {
    const char *pgt_id; /* NULL: there is none */
    const char *relid;
    const char *schema;
    const char *name;
    const char *query; /* the user's text */
    const char *requested_mode;
    const char *owner;
    const char *settings; /* under which the query was given, as JSON */
    bool append_only;
};

struct completion {
    struct dvm_db *db;
    struct arena *a;
    struct err *e;
    void (*notice)(void *arg, const char *severity, const char *message);
    void *notice_arg;
    bool old_snapshot;       /* REPEATABLE READ or SERIALIZABLE */
    const char *search_path; /* the session's, to be put back, as the next two */
    const char *role;
    const char *settings;
    const char *login;  /* the session's own role */
    const char *caller; /* the role that asked; may act as the owner of what it alters */
    const char *owner;  /* the role that DDL and the fill run as */
};

static const char *bool_json(bool b)
{
    return b ? "true" : "false";
}

static const char *lit(struct arena *a, const char *value)
{
    struct text t;
    const char *copy;

    if (value == NULL)
        return "NULL";
    text_init(&t);
    text_put_literal(&t, str_from(value));
    copy = arena_strdup(a, t.ptr);
    text_free(&t);
    return copy;
}

static const char *ident(struct arena *a, const char *name)
{
    struct text t;
    const char *copy;

    text_init(&t);
    text_put_ident(&t, name);
    copy = arena_strdup(a, t.ptr);
    text_free(&t);
    return copy;
}

static const char *qualified(struct arena *a, const char *schema, const char *name)
{
    return arena_printf(a, "%s.%s", ident(a, schema), ident(a, name));
}

static bool is_true(const char *cell)
{
    return cell != NULL && cell[0] == 't';
}

static void tell(const struct completion *c, const char *severity, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static void tell(const struct completion *c, const char *severity, const char *fmt, ...)
{
    struct text t;
    va_list args;

    if (c->notice == NULL)
        return;
    text_init(&t);
    va_start(args, fmt);
    text_vprintf(&t, fmt, args);
    va_end(args);
    c->notice(c->notice_arg, severity, t.ptr != NULL ? t.ptr : "");
    text_free(&t);
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static void put_key(struct text *t, const char *key)
{
    if (t->len > 0 && t->ptr[t->len - 1] != '{' && t->ptr[t->len - 1] != '[')
        text_put_char(t, ',');
    text_put_json(t, str_from(key));
    text_put_char(t, ':');
}

static void put_string(struct text *t, const char *key, const char *value)
{
    put_key(t, key);
    if (value != NULL)
        text_put_json(t, str_from(value));
    else
        text_put(t, "null");
}

static void put_raw(struct text *t, const char *key, const char *json)
{
    put_key(t, key);
    text_put(t, json != NULL ? json : "null");
}

static void put_strings(struct text *t, const char *key, const char *const *values, int n)
{
    put_key(t, key);
    text_put_char(t, '[');
    for (int i = 0; i < n; i++) {
        if (i > 0)
            text_put_char(t, ',');
        text_put_json(t, str_from(values[i]));
    }
    text_put_char(t, ']');
}

static void put_columns(struct text *t, const char *key, const struct dvm_plan *p, bool hidden)
{
    bool first = true;

    put_key(t, key);
    text_put_char(t, '[');
    for (int i = 0; i < p->n_columns; i++) {
        if (p->columns[i].hidden != hidden)
            continue;
        if (!first)
            text_put_char(t, ',');
        first = false;
        text_put_json(t, str_from(p->columns[i].name));
    }
    text_put_char(t, ']');
}

static void put_sources(struct text *t, const struct dvm_plan *p)
{
    put_key(t, "sources");
    text_put_char(t, '[');
    for (int i = 0; i < p->n_sources; i++) {
        const struct dvm_plan_source *s = &p->sources[i];

        text_put(t, i > 0 ? ",{" : "{");
        put_key(t, "relid");
        text_printf(t, "%" PRIu32, s->relid);
        put_string(t, "schema", s->schema);
        put_string(t, "name", s->name);
        put_raw(t, "is_stream_table", bool_json(s->is_stream_table));
        put_raw(t, "is_view", bool_json(s->is_view));
        put_strings(t, "columns", s->columns, s->n_columns);
        put_strings(t, "column_types", s->column_types, s->n_columns);
        put_key(t, "attnums");
        text_put_char(t, '[');
        for (int k = 0; k < s->n_columns; k++)
            text_printf(t, "%s%d", k > 0 ? "," : "", s->attnums[k]);
        text_put(t, "]}");
    }
    text_put_char(t, ']');
}

static const char *mode_name(enum dvm_mode mode)
{
    switch (mode) {
    case DVM_AUTO:
        return "AUTO";
    case DVM_FULL:
        return "FULL";
    case DVM_DIFFERENTIAL:
        return "DIFFERENTIAL";
    case DVM_IMMEDIATE:
        return "IMMEDIATE";
    }
    return "AUTO";
}

static bool mode_parse(const char *name, enum dvm_mode *mode)
{
    static const enum dvm_mode modes[] = { DVM_AUTO, DVM_FULL, DVM_DIFFERENTIAL, DVM_IMMEDIATE };

    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        if (name != NULL && str_equal_nocase(str_from(name), str_from(mode_name(modes[i])))) {
            *mode = modes[i];
            return true;
        }
    }
    return false;
}

/* ---- the session ----------------------------------------------------------------------------- */

/* A transaction-local setting, by the function, so that the value needs no grammar of SET. */
static bool set_local(struct completion *c, const char *name, const char *value)
{
    return db_exec(c->db, c->e, "SELECT pg_catalog.set_config(%s, %s, true)", lit(c->a, name),
                   lit(c->a, value));
}

static bool remember_session(struct completion *c)
{
    struct db_rows rows;
    const char *isolation;

    if (!db_query(c->db, c->a, &rows, c->e,
                  "SELECT pg_catalog.current_setting('search_path'), "
                  "pg_catalog.current_setting('role'), "
                  "pg_catalog.current_setting('transaction_isolation'), "
                  "pgtrickle._pinned_settings()::text, current_user, session_user"))
        return false;
    c->search_path = db_cell(&rows, 0, 0);
    c->role = db_cell(&rows, 0, 1);
    isolation = db_cell(&rows, 0, 2);
    c->settings = db_cell(&rows, 0, 3);
    c->caller = c->owner = db_cell(&rows, 0, 4);
    c->login = db_cell(&rows, 0, 5);
    c->old_snapshot =
        strcmp(isolation, "repeatable read") == 0 || strcmp(isolation, "serializable") == 0;
    return true;
}

static bool pin_settings(struct completion *c, const char *settings)
{
    return db_exec(c->db, c->e,
                   "SELECT pg_catalog.set_config(s.key, s.value, true) "
                   "FROM pg_catalog.jsonb_each_text(%s::pg_catalog.jsonb) s "
                   "WHERE pg_catalog.current_setting(s.key, true) IS DISTINCT FROM s.value",
                   lit(c->a, settings));
}

/* The session as it was when the function was called: other than now when the function ran inside
 * one with settings of its own, and always when the daemon was bypassed. */
static bool enter_session(struct completion *c, const struct request *q)
{
    if (strcmp(c->caller, q->caller) != 0 && !set_local(c, "role", q->caller))
        return false;
    c->caller = c->owner = q->caller;
    return set_local(c, "search_path", q->search_path) && pin_settings(c, q->settings);
}

static bool leave_session(struct completion *c)
{
    bool foreign = strcmp(c->login, c->owner) != 0;

    /* The runner leaves its own path behind in a session of another role. */
    return pin_settings(c, c->settings) &&
           db_exec(c->db, c->e, "SELECT pg_catalog.set_config('search_path', %s, %s)",
                   lit(c->a, c->search_path), foreign ? "false" : "true") &&
           set_local(c, "role", c->role);
}

/* What is altered keeps its owner, whoever alters it. */
static bool become(struct completion *c, const char *role)
{
    return strcmp(c->caller, c->owner) == 0 || set_local(c, "role", role);
}

/* ---- privileges ------------------------------------------------------------------------------ */

/* The GRANT that the caller lacks on the plan's sources, or NULL. Asked while the transaction still
 * answers; used when the server refuses with its own message. */
static bool missing_grant(struct completion *c, const struct dvm_plan *p, const char **grant)
{
    *grant = NULL;
    for (int i = 0; i < p->n_sources && *grant == NULL; i++) {
        const struct dvm_plan_source *s = &p->sources[i];
        bool captured = s->n_columns > 0 || p->mode == DVM_IMMEDIATE;
        bool may_read, may_trigger;
        struct db_rows rows;

        if (!db_query(c->db, c->a, &rows, c->e,
                      "SELECT pg_catalog.has_table_privilege(%" PRIu32 "::oid, 'SELECT'), "
                      "pg_catalog.has_table_privilege(%" PRIu32 "::oid, 'TRIGGER'), "
                      "pg_catalog.has_any_column_privilege(%" PRIu32 "::oid, 'SELECT'), "
                      "%" PRIu32 "::pg_catalog.regclass, pg_catalog.quote_ident(current_user)",
                      s->relid, s->relid, s->relid, s->relid))
            return false;
        may_read = is_true(db_cell(&rows, 0, 0));
        may_trigger = is_true(db_cell(&rows, 0, 1)) || s->is_view || !captured;
        if (may_read && may_trigger)
            continue;
        /* Rights on the columns that the definition reads may do; the server decides. */
        if (may_trigger && is_true(db_cell(&rows, 0, 2)))
            continue;
        *grant = arena_printf(c->a, "GRANT SELECT%s ON %s TO %s;",
                              captured && !s->is_view ? ", TRIGGER" : "", db_cell(&rows, 0, 3),
                              db_cell(&rows, 0, 4));
    }
    return true;
}

static void hint_grant(struct err *e, const char *grant)
{
    if (grant != NULL && strcmp(e->sqlstate, "42501") == 0 && e->hint == NULL)
        err_hint(e, "%s", grant);
}

/* Positions in SQL of our own mean nothing to the user. */
static bool fail_in_our_sql(struct completion *c, const char *grant)
{
    c->e->position = 0;
    hint_grant(c->e, grant);
    return false;
}

/* ---- creating -------------------------------------------------------------------------------- */

static bool run_all(struct completion *c, const char *const *sql, int n)
{
    for (int i = 0; i < n; i++)
        if (!db_exec(c->db, c->e, "%s", sql[i]))
            return false;
    return true;
}

/* Runs one operation of pgtrickle._call; result may be NULL. */
static bool call(struct completion *c, const char *op, const char *args, const char **result)
{
    struct db_rows rows;

    if (!db_query(c->db, c->a, &rows, c->e, "SELECT pgtrickle._do(%s, %s::pg_catalog.jsonb)::text",
                  lit(c->a, op), lit(c->a, args)))
        return false;
    if (result != NULL)
        *result = rows.n_rows > 0 ? db_cell(&rows, 0, 0) : NULL;
    return true;
}

static bool install_capture(struct completion *c, const char *registered)
{
    struct db_rows rows;

    if (registered == NULL)
        return true;
    if (!db_query(c->db, c->a, &rows, c->e,
                  "SELECT s FROM pg_catalog.jsonb_array_elements_text("
                  "COALESCE(%s::pg_catalog.jsonb -> 'trigger_sql', '[]'::pg_catalog.jsonb)) "
                  "WITH ORDINALITY AS x(s, i) ORDER BY i",
                  lit(c->a, registered)))
        return false;
    return run_all(c, rows.cells, rows.n_rows);
}

static bool enable_always(struct completion *c, const char *pgt_id)
{
    struct db_rows rows;

    return db_query(c->db, c->a, &rows, c->e,
                    "SELECT s FROM pg_catalog.unnest(pgtrickle._always_sql(%s, current_user)) s",
                    pgt_id) &&
           run_all(c, rows.cells, rows.n_rows);
}

/* All but those of users, by their OIDs in an array. */
static bool mark_indexes(struct completion *c, const char *relid, const char *others)
{
    struct db_rows rows;

    if (!db_query(c->db, c->a, &rows, c->e,
                  "SELECT pg_catalog.format('COMMENT ON INDEX %%I.%%I IS %%L', n.nspname, "
                  "i.relname, '" OUR_INDEX_COMMENT "') FROM pg_catalog.pg_index x "
                  "JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid "
                  "JOIN pg_catalog.pg_namespace n ON n.oid = i.relnamespace "
                  "WHERE x.indrelid = %s::oid AND x.indexrelid <> ALL (%s::oid[])",
                  relid, lit(c->a, others)))
        return false;
    return run_all(c, rows.cells, rows.n_rows);
}

static int64_t now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* Own seq and xid are drawn before the statement that evaluates: rows that this transaction writes
 * later count next time. */
static bool fill(struct completion *c, const char *pgt_id, const char *what,
                 const char *initiated_by, const char *reason)
{
    struct db_rows drawn, row;
    struct text args;
    int64_t started;
    bool ok;

    /* Times as JSON: the session's DateStyle is the user's. */
    if (!db_query(c->db, c->a, &drawn, c->e,
                  "SELECT pg_catalog.nextval('pgtrickle.change_seq'), "
                  "pg_catalog.pg_current_xact_id(), pg_catalog.to_jsonb(pg_catalog.now()), "
                  "pg_catalog.to_jsonb(pg_catalog.clock_timestamp())"))
        return false;
    started = now_us();
    /* Not by SET ROLE: what a definition calls could undo that. */
    if (!db_query(c->db, c->a, &row, c->e,
                  "SELECT r.inserted, r.updated, r.deleted, r.delta_rows, r.snapshot "
                  "FROM pg_catalog.jsonb_to_record("
                  "pgtrickle._do('run', '{\"pgt_id\": %s, \"what\": \"%s\"}')) "
                  "AS r(inserted bigint, updated bigint, deleted bigint, delta_rows bigint, "
                  "snapshot text)",
                  pgt_id, what))
        return false;
    if (row.n_rows != 1 || row.n_columns < 5)
        return err_set(c->e, ERR_BUG, "XX000", "the fill of a stream table answered no row");
    text_init(&args);
    text_put_char(&args, '{');
    put_raw(&args, "pgt_id", pgt_id);
    put_string(&args, "action", "FULL");
    put_string(&args, "effective_refresh_mode", "FULL");
    put_string(&args, "initiated_by", initiated_by);
    put_string(&args, "reason", reason);
    put_raw(&args, "needs_reinit", bool_json(c->old_snapshot));
    put_raw(&args, "seq", db_cell(&drawn, 0, 0));
    put_string(&args, "xid", db_cell(&drawn, 0, 1));
    put_raw(&args, "time", db_cell(&drawn, 0, 2));
    put_raw(&args, "start_time", db_cell(&drawn, 0, 3));
    put_raw(&args, "inserted", db_cell(&row, 0, 0));
    put_raw(&args, "updated", db_cell(&row, 0, 1));
    put_raw(&args, "deleted", db_cell(&row, 0, 2));
    put_raw(&args, "delta_rows", db_cell(&row, 0, 3));
    put_string(&args, "snapshot", db_cell(&row, 0, 4));
    put_key(&args, "ms");
    text_printf(&args, "%.3f}", (double)(now_us() - started) / 1000.0);
    ok = call(c, "refreshed", args.ptr, NULL);
    text_free(&args);
    return ok;
}

/* What the register operation adds to the request, which it reads itself. */
static const char *register_args(struct completion *c, const struct request *q, const char *relid,
                                 const struct dvm_definition *def, const struct dvm_plan *p)
{
    struct text t;
    const char *copy;

    text_init(&t);
    text_put_char(&t, '{');
    put_raw(&t, "request_id", q->id);
    put_key(&t, "pgt_id");
    text_printf(&t, "%" PRId64, def->pgt_id);
    put_raw(&t, "relid", relid);
    put_string(&t, "mode", mode_name(p->mode));
    put_string(&t, "strategy", p->strategy);
    put_string(&t, "canonical_query", p->canonical_query);
    put_string(&t, "downgrade_reason", p->downgrade_reason);
    put_raw(&t, "time_dependent", bool_json(p->time_dependent));
    put_columns(&t, "column_names", p, false);
    put_columns(&t, "hidden_columns", p, true);
    put_strings(&t, "key_columns", p->key_columns, p->n_key_columns);
    put_sources(&t, p);
    put_key(&t, "functions");
    text_put_char(&t, '[');
    for (int i = 0; i < p->n_functions; i++)
        text_printf(&t, "%s%" PRIu32, i > 0 ? "," : "", p->functions[i]);
    text_put_char(&t, ']');
    put_raw(&t, "plan", p->plan_json != NULL ? p->plan_json : "{}");
    text_put_char(&t, '}');
    copy = arena_strdup(c->a, t.ptr);
    text_free(&t);
    return copy;
}

static void tell_about_plan(const struct completion *c, const struct dvm_definition *def,
                            const struct dvm_plan *p)
{
    for (int i = 0; i < p->n_warnings; i++)
        tell(c, "WARNING", "%s", p->warnings[i]);
    if (p->downgrade_reason != NULL)
        tell(c, "NOTICE", "stream table \"%s\" will be refreshed in FULL mode: %s", def->name,
             p->downgrade_reason);
}

/* The server's own check of rights on everything that the definition reads, before any DDL and
 * without running a thing. */
static bool check_readable(struct completion *c, const struct dvm_plan *p, const char *grant)
{
    /* Planning runs IMMUTABLE functions. There the fill asks, as the owner and nobody else. */
    if (strcmp(c->login, c->owner) != 0 || db_exec(c->db, c->e, "EXPLAIN %s", p->canonical_query))
        return true;
    return fail_in_our_sql(c, grant);
}

static bool compile(struct completion *c, const struct dvm_definition *def, struct dvm_plan *p,
                    const char **grant)
{
    if (!dvm_compile(c->db, c->a, def, p, c->e))
        return false;
    if (c->old_snapshot && p->mode == DVM_IMMEDIATE) {
        err_set(c->e, ERR_REFUSAL, "0A000",
                "an IMMEDIATE stream table cannot be created in a REPEATABLE READ or SERIALIZABLE "
                "transaction");
        err_hint(c->e, "Create it in a READ COMMITTED transaction: this one's snapshot may be "
                       "older than the triggers.");
        return false;
    }
    return set_local(c, "search_path", OUR_SEARCH_PATH) && missing_grant(c, p, grant) &&
           check_readable(c, p, *grant);
}

/* Registers and fills a table that is there; in the order of the prologue. what: "fill" of an empty
 * one, "full" of one that holds rows, which then only change where they differ; NULL: not now. */
static bool bring_to_life(struct completion *c, const struct request *q, const char *relid,
                          const struct dvm_definition *def, const struct dvm_plan *p,
                          const char *what, const char *initiated_by, const char *reason)
{
    const char *pgt_id = arena_printf(c->a, "%" PRId64, def->pgt_id);
    const char *registered;

    return become(c, c->caller) &&
           call(c, "register", register_args(c, q, relid, def, p), &registered) &&
           become(c, c->owner) && install_capture(c, registered) &&
           run_all(c, p->immediate_sql, p->n_immediate_sql) && enable_always(c, pgt_id) &&
           call(c, "captured", arena_printf(c->a, "{\"pgt_id\":%s}", pgt_id), NULL) &&
           (what == NULL || fill(c, pgt_id, what, initiated_by, reason));
}

static bool relid_of(struct completion *c, const char *schema, const char *name, const char **relid)
{
    struct db_rows rows;

    if (!db_query(c->db, c->a, &rows, c->e, "SELECT %s::pg_catalog.regclass::oid",
                  lit(c->a, qualified(c->a, schema, name))))
        return false;
    *relid = db_cell(&rows, 0, 0);
    return true;
}

static bool find_existing(struct completion *c, const char *pgt_id, struct existing *x)
{
    struct db_rows r;

    *x = (struct existing){ 0 };
    if (!db_query(c->db, c->a, &r, c->e,
                  "SELECT pgt_id, pgt_relid, n.nspname, c.relname, original_query, "
                  "requested_mode, pg_catalog.pg_get_userbyid(c.relowner), is_append_only, "
                  "settings::text "
                  "FROM pgtrickle.pgt_stream_tables "
                  "JOIN pg_catalog.pg_class c ON c.oid = pgt_relid "
                  "JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE pgt_id = %s",
                  pgt_id))
        return false;
    if (r.n_rows == 0)
        return true;
    *x = (struct existing){
        .pgt_id = db_cell(&r, 0, 0),
        .relid = db_cell(&r, 0, 1),
        .schema = db_cell(&r, 0, 2),
        .name = db_cell(&r, 0, 3),
        .query = db_cell(&r, 0, 4),
        .requested_mode = db_cell(&r, 0, 5),
        .owner = db_cell(&r, 0, 6),
        .append_only = is_true(db_cell(&r, 0, 7)),
        .settings = db_cell(&r, 0, 8),
    };
    return true;
}

/* CREATE STREAM TABLE t (a, b): the list, if there is one. */
static bool column_list(struct completion *c, const struct request *q, struct dvm_definition *def)
{
    struct db_rows rows;

    if (!db_query(c->db, c->a, &rows, c->e,
                  "SELECT s FROM pg_catalog.jsonb_array_elements_text("
                  "CASE pg_catalog.jsonb_typeof(%s::pg_catalog.jsonb -> 'columns') "
                  "WHEN 'array' THEN %s::pg_catalog.jsonb -> 'columns' "
                  "ELSE '[]'::pg_catalog.jsonb END) WITH ORDINALITY AS x(s, i) ORDER BY i",
                  lit(c->a, q->args), lit(c->a, q->args)))
        return false;
    def->column_names = rows.n_rows > 0 ? rows.cells : NULL;
    def->n_column_names = rows.n_rows;
    return true;
}

static bool check_schedule(struct completion *c, const char *text)
{
    struct schedule s;
    const char *why;

    if (schedule_parse(text, &s, &why))
        return true;
    err_set(c->e, ERR_REFUSAL, "22023", "invalid schedule \"%s\": %s", text, why);
    err_hint(c->e, "Use a duration such as '5s', '2m' or '1h30m', a cron expression such as "
                   "'*/5 * * * *' or '@hourly' (in UTC), or 'calculated'.");
    return false;
}

static bool parse_mode(struct completion *c, const char *name, enum dvm_mode *mode)
{
    if (mode_parse(name, mode))
        return true;
    err_set(c->e, ERR_REFUSAL, "22023", "invalid refresh mode \"%s\"", name != NULL ? name : "");
    err_hint(c->e, "Use AUTO, FULL, DIFFERENTIAL or IMMEDIATE.");
    return false;
}

static bool complete_create(struct completion *c, const struct request *q)
{
    struct dvm_definition def = {
        .query = q->query, .schema = q->schema, .name = q->name, .append_only = q->append_only
    };
    const char *grant = NULL, *relid;
    struct db_rows rows;
    struct dvm_plan p;

    if (!parse_mode(c, q->refresh_mode != NULL ? q->refresh_mode : "AUTO", &def.mode) ||
        !check_schedule(c, q->schedule) || !column_list(c, q, &def))
        return false;
    if (!db_query(c->db, c->a, &rows, c->e, "SELECT pg_catalog.nextval('pgtrickle.pgt_id_seq')"))
        return false;
    def.pgt_id = strtoll(db_cell(&rows, 0, 0), NULL, 10);
    if (!compile(c, &def, &p, &grant))
        return false;
    if (!run_all(c, p.create_sql, p.n_create_sql) || !relid_of(c, q->schema, q->name, &relid) ||
        !mark_indexes(c, relid, "{}") ||
        !bring_to_life(c, q, relid, &def, &p, q->initialize ? "fill" : NULL, "INITIAL", NULL))
        return fail_in_our_sql(c, grant);
    tell_about_plan(c, &def, &p);
    return true;
}

/* ---- altering -------------------------------------------------------------------------------- */

/* Columns of our own, as the compiler names them. */
#define HIDDEN_PREFIX "__pgt_"

/* The table's columns: name, type as the plan describes its own, hidden. */
static bool table_columns(struct completion *c, const char *relid, struct db_rows *rows)
{
    return db_query(c->db, c->a, rows, c->e,
                    "SELECT a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod) || "
                    "CASE WHEN a.attcollation <> t.typcollation THEN ' COLLATE ' || "
                    "(SELECT pg_catalog.quote_ident(n.nspname) || '.' || "
                    "pg_catalog.quote_ident(o.collname) FROM pg_catalog.pg_collation o "
                    "JOIN pg_catalog.pg_namespace n ON n.oid = o.collnamespace "
                    "WHERE o.oid = a.attcollation) ELSE '' END, "
                    "pg_catalog.starts_with(a.attname, '" HIDDEN_PREFIX "') "
                    "FROM pg_catalog.pg_attribute a "
                    "JOIN pg_catalog.pg_type t ON t.oid = a.atttypid "
                    "WHERE a.attrelid = %s::oid AND a.attnum > 0 AND NOT a.attisdropped "
                    "ORDER BY a.attnum",
                    relid);
}

static bool is_column(const struct db_rows *rows, int row, const struct dvm_plan_column *col)
{
    return strcmp(db_cell(rows, row, 0), col->name) == 0 &&
           strcmp(db_cell(rows, row, 1), col->type) == 0;
}

/* The columns that users see are the same, in the same order. */
static bool is_same_to_users(const struct db_rows *rows, const struct dvm_plan *p)
{
    int row = 0;

    for (int i = 0; i < p->n_columns; i++) {
        if (p->columns[i].hidden)
            continue;
        while (row < rows->n_rows && is_true(db_cell(rows, row, 2)))
            row++;
        if (row == rows->n_rows || !is_column(rows, row++, &p->columns[i]))
            return false;
    }
    while (row < rows->n_rows && is_true(db_cell(rows, row, 2)))
        row++;
    return row == rows->n_rows;
}

/* Hidden columns come and go with the strategy; nothing of a user's depends on them. */
static bool change_hidden(struct completion *c, const struct existing *x,
                          const struct db_rows *rows, const struct dvm_plan *p)
{
    const char *table = qualified(c->a, x->schema, x->name);
    bool ok = true;

    for (int row = 0; ok && row < rows->n_rows; row++) {
        bool stays = !is_true(db_cell(rows, row, 2));

        for (int i = 0; i < p->n_columns && !stays; i++)
            stays = is_column(rows, row, &p->columns[i]);
        if (!stays)
            ok = db_exec(c->db, c->e, "ALTER TABLE %s DROP COLUMN %s", table,
                         ident(c->a, db_cell(rows, row, 0)));
    }
    for (int i = 0; ok && i < p->n_columns; i++) {
        bool is_there = !p->columns[i].hidden;

        for (int row = 0; row < rows->n_rows && !is_there; row++)
            is_there = is_column(rows, row, &p->columns[i]);
        if (!is_there)
            ok = db_exec(c->db, c->e, "ALTER TABLE %s ADD COLUMN %s %s", table,
                         ident(c->a, p->columns[i].name), p->columns[i].type);
    }
    return ok;
}

static bool drop_our_indexes(struct completion *c, const char *relid)
{
    struct db_rows rows;

    if (!db_query(c->db, c->a, &rows, c->e,
                  "SELECT CASE WHEN k.oid IS NULL "
                  "THEN pg_catalog.format('DROP INDEX %%I.%%I', n.nspname, i.relname) "
                  "ELSE pg_catalog.format('ALTER TABLE %%I.%%I DROP CONSTRAINT %%I', n.nspname, "
                  "t.relname, k.conname) END "
                  "FROM pg_catalog.pg_index x "
                  "JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid "
                  "JOIN pg_catalog.pg_class t ON t.oid = x.indrelid "
                  "JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace "
                  "LEFT JOIN pg_catalog.pg_constraint k ON k.conindid = i.oid "
                  "AND k.contype IN ('p', 'u') "
                  "WHERE x.indrelid = %s::oid AND "
                  "pg_catalog.obj_description(i.oid, 'pg_class') = '" OUR_INDEX_COMMENT "'",
                  relid))
        return false;
    return run_all(c, rows.cells, rows.n_rows);
}

/* A definition may not read the stream table itself, nor one that reads it. */
static bool check_cycle(struct completion *c, const struct existing *x, const struct dvm_plan *p)
{
    for (int i = 0; i < p->n_sources; i++) {
        const struct dvm_plan_source *s = &p->sources[i];
        struct db_rows rows;

        if (!db_query(c->db, c->a, &rows, c->e,
                      "WITH RECURSIVE up(relid) AS (SELECT %" PRIu32 "::oid UNION "
                      "SELECT d.source_relid::oid FROM up "
                      "JOIN pgtrickle.pgt_stream_tables s ON s.pgt_relid::oid = up.relid "
                      "JOIN pgtrickle.pgt_dependencies d ON d.pgt_id = s.pgt_id) "
                      "SELECT 1 FROM up WHERE relid = %s::oid LIMIT 1",
                      s->relid, x->relid))
            return false;
        if (rows.n_rows > 0) {
            err_set(c->e, ERR_REFUSAL, "42P17",
                    "stream table \"%s\" would read itself through \"%s\"", x->name, s->name);
            err_hint(c->e, "Stream tables may feed each other, but not in a circle.");
            return false;
        }
    }
    return true;
}

static bool has_readers(struct completion *c, const struct existing *x, const char **reader)
{
    struct db_rows rows;

    *reader = NULL;
    if (!db_query(c->db, c->a, &rows, c->e,
                  "SELECT s.pgt_schema || '.' || s.pgt_name FROM pgtrickle.pgt_dependencies d "
                  "JOIN pgtrickle.pgt_stream_tables s ON s.pgt_id = d.pgt_id "
                  "WHERE d.source_relid::oid = %s::oid ORDER BY 1 LIMIT 1",
                  x->relid))
        return false;
    if (rows.n_rows > 0)
        *reader = db_cell(&rows, 0, 0);
    return true;
}

/* Another set of columns: another table. Whatever hangs on the old one stops it. */
static bool recreate_table(struct completion *c, const struct existing *x, const struct dvm_plan *p,
                           const char **relid)
{
    const char *reader;

    if (!has_readers(c, x, &reader))
        return false;
    if (reader != NULL) {
        err_set(c->e, ERR_REFUSAL, "2BP01",
                "cannot change the columns of stream table \"%s\" because \"%s\" reads it", x->name,
                reader);
        err_hint(c->e, "Drop the stream tables that read it first, or keep its columns.");
        return false;
    }
    if (!db_exec(c->db, c->e, "DROP TABLE %s", qualified(c->a, x->schema, x->name))) {
        if (strcmp(c->e->sqlstate, "2BP01") == 0)
            err_hint(c->e, "The new definition has other columns, so its table is made anew: drop "
                           "what depends on it first, or keep its columns.");
        return false;
    }
    return run_all(c, p->create_sql, p->n_create_sql) && relid_of(c, x->schema, x->name, relid) &&
           mark_indexes(c, *relid, "{}");
}

/* create_sql starts with CREATE TABLE; the indexes follow. */
static bool reuse_table(struct completion *c, const struct existing *x,
                        const struct db_rows *columns, const struct dvm_plan *p)
{
    struct db_rows theirs;

    return drop_our_indexes(c, x->relid) &&
           db_query(c->db, c->a, &theirs, c->e,
                    "SELECT COALESCE(pg_catalog.array_agg(indexrelid)::text, '{}') "
                    "FROM pg_catalog.pg_index WHERE indrelid = %s::oid",
                    x->relid) &&
           call(c, "run", arena_printf(c->a, "{\"pgt_id\":%s,\"what\":\"empty\"}", x->pgt_id),
                NULL) &&
           change_hidden(c, x, columns, p) && run_all(c, p->create_sql + 1, p->n_create_sql - 1) &&
           mark_indexes(c, x->relid, db_cell(&theirs, 0, 0));
}

/* The rows can stay, and the new query be applied as a difference: they lie in the same columns,
 * and the plan finds them by the same indexes. */
static bool keeps_rows(struct completion *c, const struct existing *x,
                       const struct db_rows *columns, const struct dvm_plan *p, bool *keeps)
{
    struct db_rows old;
    int n_same = 0;

    *keeps = false;
    if (!db_query(c->db, c->a, &old, c->e,
                  "SELECT k FROM pgtrickle.pgt_stream_tables, pg_catalog.unnest("
                  "pg_catalog.array_append(key_columns, strategy)) WITH ORDINALITY AS u(k, i) "
                  "WHERE pgt_id = %s AND is_populated ORDER BY i",
                  x->pgt_id))
        return false;
    for (int row = 0; row < columns->n_rows; row++)
        for (int i = 0; i < p->n_columns; i++)
            n_same += is_column(columns, row, &p->columns[i]);
    if (n_same != columns->n_rows || n_same != p->n_columns || old.n_rows != p->n_key_columns + 1 ||
        !str_equal(str_from(db_cell(&old, p->n_key_columns, 0)), str_from(p->strategy)) ||
        strcmp(p->strategy, "partition") == 0) /* has an index by what its query partitions by */
        return true;
    *keeps = true;
    for (int i = 0; i < p->n_key_columns; i++)
        *keeps &= strcmp(db_cell(&old, i, 0), p->key_columns[i]) == 0;
    return true;
}

/* The catalog's row stays: registering again takes the new plan over. */
static bool redefine(struct completion *c, const struct request *q, const struct existing *x,
                     struct dvm_definition *def, const char *reason)
{
    const char *relid = x->relid, *grant = NULL;
    struct db_rows columns;
    struct dvm_plan p;
    bool keeps;

    def->schema = x->schema;
    def->name = x->name;
    def->pgt_id = strtoll(x->pgt_id, NULL, 10);
    c->owner = x->owner;
    /* Against refreshes and other alterations; readers go on until the table itself must go. */
    if (!become(c, c->owner) ||
        !db_exec(c->db, c->e, "LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE",
                 qualified(c->a, x->schema, x->name)) ||
        !compile(c, def, &p, &grant) || !check_cycle(c, x, &p) ||
        !table_columns(c, x->relid, &columns))
        return false;
    if (!keeps_rows(c, x, &columns, &p, &keeps))
        return false;
    /* A rebuild mistrusts what is there. */
    keeps &= strcmp(q->op, "rebuild") != 0;
    if (!db_exec(c->db, c->e, "SELECT pgtrickle._drop_immediate(%s)", x->pgt_id) ||
        !(keeps                            ? true
          : is_same_to_users(&columns, &p) ? reuse_table(c, x, &columns, &p)
                                           : recreate_table(c, x, &p, &relid)) ||
        !bring_to_life(c, q, relid, def, &p, keeps ? "full" : "fill", "MANUAL", reason))
        return fail_in_our_sql(c, grant);
    tell_about_plan(c, def, &p);
    return true;
}

/* The names that its columns have, of a new query those that it was created with; none when the
 * query has another number of columns. */
static bool keep_names(struct completion *c, const struct existing *x, bool new_query,
                       struct dvm_definition *def)
{
    struct db_rows names, described;
    int n_params;

    if (!c->db->ops->describe(c->db, c->a, def->query, &described, &n_params, c->e) ||
        !db_query(c->db, c->a, &names, c->e,
                  "SELECT s FROM pgtrickle.pgt_stream_tables t, "
                  "pg_catalog.unnest(t.%s) WITH ORDINALITY AS x(s, i) "
                  "WHERE t.pgt_id = %s ORDER BY i",
                  new_query ? "column_list" : "column_names", x->pgt_id))
        return false;
    if (names.n_rows == described.n_columns) {
        def->column_names = names.cells;
        def->n_column_names = names.n_rows;
    }
    return true;
}

static bool complete_alter(struct completion *c, const struct request *q)
{
    bool new_query = strcmp(q->op, "alter_query") == 0;
    bool new_mode = strcmp(q->op, "alter_mode") == 0;
    struct dvm_definition def = { 0 };
    struct existing x;

    if (q->pgt_id == NULL)
        return err_set(c->e, ERR_BUG, "XX000", "a request without pgt_id");
    if (!find_existing(c, q->pgt_id, &x))
        return false;
    if (x.pgt_id == NULL)
        return err_set(c->e, ERR_REFUSAL, "42P01", "the stream table was dropped meanwhile");
    def.query = new_query ? q->query : x.query;
    def.append_only = x.append_only;
    if (!parse_mode(c, q->refresh_mode != NULL ? q->refresh_mode : x.requested_mode, &def.mode) ||
        (!new_query && !pin_settings(c, x.settings)) || !column_list(c, q, &def) ||
        (def.n_column_names == 0 && !q->names_anew && !keep_names(c, &x, new_query, &def)))
        return false;
    return redefine(c, q, &x, &def,
                    new_query  ? "the query was altered"
                    : new_mode ? "the refresh mode was altered"
                               : "rebuilt");
}

/* ---- all of them ----------------------------------------------------------------------------- */

static bool complete_one(struct completion *c, const struct request *q)
{
    bool ok;

    if (!remember_session(c) || !enter_session(c, q))
        return false;
    if (strcmp(q->op, "create") == 0)
        ok = complete_create(c, q);
    else if (strcmp(q->op, "alter_query") == 0 || strcmp(q->op, "alter_mode") == 0 ||
             strcmp(q->op, "rebuild") == 0)
        ok = complete_alter(c, q);
    else
        ok = err_set(c->e, ERR_BUG, "XX000", "unknown request \"%s\"", q->op);
    return ok && become(c, c->caller) &&
           call(c, "request_done", arena_printf(c->a, "{\"request_id\":%s}", q->id), NULL) &&
           leave_session(c);
}

static struct request request_of(const struct db_rows *r, int row)
{
    return (struct request){
        .id = db_cell(r, row, 0),
        .op = db_cell(r, row, 1),
        .args = db_cell(r, row, 2),
        .caller = db_cell(r, row, 3),
        .search_path = db_cell(r, row, 4),
        .settings = db_cell(r, row, 5),
        .schema = db_cell(r, row, 6),
        .name = db_cell(r, row, 7),
        .query = db_cell(r, row, 8),
        .schedule = db_cell(r, row, 9),
        .refresh_mode = db_cell(r, row, 10),
        .pgt_id = db_cell(r, row, 11),
        .initialize = is_true(db_cell(r, row, 12)),
        .append_only = is_true(db_cell(r, row, 13)),
        .names_anew = is_true(db_cell(r, row, 14)),
    };
}

/* Fails the server's transaction by our own error, so that it can't be committed. */
static void abort_with(struct dvm_db *db, const struct err *e)
{
    struct err answered = { 0 };
    struct arena a;

    arena_init(&a);
    db_exec(db, &answered, "SELECT pgtrickle._raise(%s, %s, %s, %s)", lit(&a, e->sqlstate),
            lit(&a, e->message), lit(&a, e->detail), lit(&a, e->hint));
    err_clear(&answered);
    arena_free(&a);
}

bool request_complete_where(struct dvm *d, struct dvm_db *db, const char *where,
                            void (*notice)(void *arg, const char *severity, const char *message),
                            void *notice_arg, struct err *e)
{
    struct db_rows rows;
    struct arena a;
    bool ok;

    (void)d; /* what it needs is in the session */
    arena_init(&a);
    ok = db_query(db, &a, &rows, e,
                  "SELECT request_id, op, args::text, caller, search_path, settings::text, "
                  "args ->> 'schema', args ->> 'name', args ->> 'query', "
                  "NULLIF(args ->> 'schedule', 'calculated'), "
                  "args ->> 'refresh_mode', args ->> 'pgt_id', "
                  "COALESCE((args ->> 'initialize')::boolean, true), "
                  "COALESCE((args ->> 'append_only')::boolean, false), "
                  "pg_catalog.jsonb_typeof(args -> 'columns') = 'array' "
                  "FROM pgtrickle.pgt_requests WHERE %s ORDER BY request_id",
                  where);
    for (int i = 0; ok && i < rows.n_rows; i++) {
        struct arena request_arena;
        struct completion c = {
            .db = db, .a = &request_arena, .e = e, .notice = notice, .notice_arg = notice_arg
        };
        struct request q = request_of(&rows, i);

        arena_init(&request_arena);
        ok = complete_one(&c, &q);
        arena_free(&request_arena);
    }
    if (!ok && e->class != ERR_SERVER && e->class != ERR_PEER && e->class != ERR_RESOURCE)
        abort_with(db, e);
    arena_free(&a);
    return ok;
}

bool dvm_complete_requests(struct dvm *d, struct dvm_db *db,
                           void (*notice)(void *arg, const char *severity, const char *message),
                           void *notice_arg, struct err *e)
{
    return request_complete_where(d, db, "xid = pg_catalog.pg_current_xact_id()", notice,
                                  notice_arg, e);
}
