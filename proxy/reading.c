#include "proxy/reading.h"

#include "protocol/status.h"
#include "proxy/client.h"
#include "proxy/proxy.h"
#include "proxy/server.h"
#include "proxy/session_state.h"
#include "proxy/settings.h"

/* Parameters of params.h, and settings that PostgreSQL does not report, which its parser, the input
 * functions of its types, or its way to find names look at. search_path may be in either. */
static const int params[] = { PARAM_CLIENT_ENCODING, PARAM_DATESTYLE,
                              PARAM_TIMEZONE,        PARAM_STANDARD_CONFORMING_STRINGS,
                              PARAM_INTERVALSTYLE,   PARAM_SEARCH_PATH };
static const char *const settings[] = {
    "array_nulls", "backslash_quote", "lc_monetary",           "lc_numeric",
    "role",        "search_path",     "transform_null_equals", "xmloption"
};

void reading_memo_free(struct reading_memo *m)
{
    text_free(&m->text);
    params_clear(&m->params);
    settings_unref(m->settings);
}

static void put_value(struct text *t, const char *value)
{
    text_put(t, value != NULL ? value : "");
    text_put_char(t, value != NULL ? '\n' : '\r');
}

const struct reading *reading_of(struct client *c)
{
    struct reading_memo *m = &c->server->reading;
    unsigned ddl = atomic_load_explicit(&c->db->ddl, memory_order_acquire);

    m->reading.ddl = ddl;
    if (m->reading.database != NULL && m->params.set == c->params.set && m->settings == c->settings)
        return &m->reading;
    text_clear(&m->text);
    for (size_t i = 0; i < sizeof(params) / sizeof(params[0]); i++)
        put_value(&m->text, params_get(&c->params, params[i]));
    for (size_t i = 0; c->settings != NULL && i < sizeof(settings) / sizeof(settings[0]); i++)
        put_value(&m->text, settings_get(c->settings, str_from(settings[i])));
    params_copy(&m->params, &c->params);
    settings_unref(m->settings);
    m->settings = settings_ref(c->settings);
    m->reading.database = c->db;
    m->reading.settings = text_str(&m->text);
    m->reading.hash = str_hash(m->reading.settings);
    return &m->reading;
}

void reading_renew(struct client *c, struct statement **st, bool told)
{
    struct statement_table *table = &c->conn.worker->proxy->statements;
    struct reading now = *reading_of(c);

    if (told)
        now.ddl = (*st)->reading.ddl;
    /* In a transaction that failed nothing can be prepared, nor is anything used. */
    if (!(*st)->shared || c->server->tx_status == STATUS_FAILED || statement_is_read_as(*st, &now))
        return;
    /* As in PostgreSQL: a SET does not change what was read before. */
    if (now.ddl == (*st)->reading.ddl && server_has_fresh(c->server, *st))
        return;
    struct statement *old = *st;
    *st = statement_get(table, &now, old->source, (struct str){ old->body, old->body_len });
    statement_unref(table, old);
}

/* ---- DDL -------------------------------------------------------------------------------- */

/* What may give existing statements other columns. Temporary tables come and go all the time: */
static bool may_change_types(struct str tag, bool *may_be_temporary)
{
    static const char *const tags[] = {
        "ALTER EXTENSION",    "ALTER FOREIGN TABLE", "ALTER MATERIALIZED VIEW",
        "ALTER SCHEMA",       "ALTER TYPE",          "DROP EXTENSION",
        "DROP FOREIGN TABLE", "DROP FUNCTION",       "DROP MATERIALIZED VIEW",
        "DROP OWNED",         "DROP SCHEMA",         "DROP TYPE",
        "DROP ROUTINE"
    };
    static const char *const temporary[] = { "ALTER TABLE", "ALTER VIEW", "CREATE VIEW",
                                             "DROP TABLE", "DROP VIEW" };

    for (size_t i = 0; i < sizeof(tags) / sizeof(tags[0]); i++)
        if (str_equal(tag, str_from(tags[i])))
            return true;
    for (size_t i = 0; i < sizeof(temporary) / sizeof(temporary[0]); i++)
        if (str_equal(tag, str_from(temporary[i])))
            return *may_be_temporary = true;
    return false;
}

void reading_on_tag(struct server *s, struct str tag)
{
    bool may_be_temporary = false;

    if (tag.len < 9 || (tag.ptr[0] != 'A' && tag.ptr[0] != 'C' && tag.ptr[0] != 'D') ||
        !may_change_types(tag, &may_be_temporary))
        return;
    if (!may_be_temporary || !session_state_has_temporary(s->client))
        s->ddl = SERVER_DDL_DONE;
}

void reading_on_ready(struct server *s)
{
    bool is_over = s->tx_status == STATUS_IDLE;

    if (s->ddl == SERVER_DDL_DONE || (s->ddl == SERVER_DDL_TOLD && is_over))
        atomic_fetch_add_explicit(&s->pool->db->ddl, 1, memory_order_release);
    if (s->ddl != SERVER_DDL_NONE)
        s->ddl = is_over ? SERVER_DDL_NONE : SERVER_DDL_TOLD;
}
