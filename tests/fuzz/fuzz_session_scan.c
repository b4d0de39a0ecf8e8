/* What a statement may leave in its session, in any text. Where PostgreSQL's own parser
 * (libpg_query) accepts the text, ours sees every statement that changes the session, alone, in a
 * DO block, and in a string that a DO block executes. Bytes of 0x80 and above stand for words, so
 * that the fuzzer makes statements sooner. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <pg_query.h>
#include <pg_query/pg_query.pb-c.h>

#include "proxy/session_scan.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static const char *const words[] = {
    "set ",
    "session ",
    "local ",
    "reset ",
    "all ",
    "time zone ",
    "names ",
    "schema ",
    "xml option ",
    "authorization ",
    "role ",
    "characteristics as transaction ",
    "read only ",
    "default ",
    "to ",
    "= ",
    "from current ",
    "isolation level serializable ",
    "listen ",
    "unlisten ",
    "load ",
    "'x' ",
    "create ",
    "or replace ",
    "global ",
    "temp ",
    "temporary ",
    "table ",
    "view ",
    "sequence ",
    "recursive ",
    "if not exists ",
    "as ",
    "select 1 ",
    "into ",
    "on commit ",
    "drop ",
    "preserve rows ",
    "declare ",
    "cursor ",
    "with ",
    "without ",
    "hold ",
    "for ",
    "close ",
    "discard ",
    "do ",
    "$$ ",
    "explain ",
    "analyze ",
    "verbose ",
    "(",
    ") ",
    "; ",
    "/* c */ ",
    "-- c\n",
    "set_config",
    "'statement_timeout' ",
    ", ",
    "true ",
    "false ",
    "null ",
    "pg_catalog.",
    "pg_advisory_lock",
    "pg_temp.",
    "pg_try_advisory_lock_shared",
    "update ",
    "pg_settings ",
    "setting ",
    "where ",
    "insert ",
    "values ",
    "a ",
    "b ",
    "\"C d\" ",
    "app.x ",
    "session.x ",
    "time.x ",
    "local.x ",
    "prepare ",
    "execute ",
    "begin ",
    "end ",
    "int ",
    "=> ",
    "is_local ",
    "setting_name ",
    "new_value ",
    "transaction ",
    "not ",
    "only ",
    "no data ",
    "copy ",
    "union all ",
    "\f",
    "\t",
    "e'\\'' ",
    "$x$",
};

enum { N_WORDS = sizeof(words) / sizeof(words[0]) };

static void claim(bool ok, const char *what, const char *text)
{
    if (ok)
        return;
    fprintf(stderr, "%s: %s\n", what, text);
    __builtin_trap();
}

static bool has(const struct text *list, const char *name)
{
    for (size_t i = 0; i < list->len; i += strlen(list->ptr + i) + 1)
        if (str_equal_nocase(str_from(list->ptr + i), str_from(name)))
            return true;
    return false;
}

/* What a text does, by the server's grammar. */
struct truth {
    unsigned touches;
    unsigned ends;
    const char *name;    /* of the last setting */
    bool is_reset;       /* it was given back */
    const char *channel; /* of the last LISTEN */
    bool odd;            /* what is inside of others is not comparable */
};

static void tell_set(const PgQuery__VariableSetStmt *set, struct truth *t)
{
    bool is_default = set->kind == PG_QUERY__VARIABLE_SET_KIND__VAR_SET_DEFAULT ||
                      set->kind == PG_QUERY__VARIABLE_SET_KIND__VAR_RESET;

    if (set->is_local)
        return;
    if (set->kind == PG_QUERY__VARIABLE_SET_KIND__VAR_RESET_ALL) {
        t->touches |= SESSION_RESET_ALL;
    } else if (set->kind == PG_QUERY__VARIABLE_SET_KIND__VAR_SET_MULTI) {
        if (strcmp(set->name, "SESSION CHARACTERISTICS") == 0) {
            t->touches |= SESSION_SETTINGS;
            t->name = "default_transaction_read_only";
            t->is_reset = false;
        }
    } else if (strcasecmp(set->name, "session_authorization") == 0) {
        *(is_default ? &t->ends : &t->touches) |= SESSION_AUTHORIZATION;
    } else if (strcasecmp(set->name, "seed") != 0 &&
               strncasecmp(set->name, "transaction", 11) != 0) {
        t->touches |= SESSION_SETTINGS;
        t->name = set->name;
        t->is_reset = is_default;
    }
}

static void tell(const PgQuery__Node *n, struct truth *t)
{
    switch ((int)n->node_case) {
    case PG_QUERY__NODE__NODE_VARIABLE_SET_STMT:
        tell_set(n->variable_set_stmt, t);
        break;
    case PG_QUERY__NODE__NODE_LISTEN_STMT:
        t->touches |= SESSION_LISTEN;
        t->channel = n->listen_stmt->conditionname;
        break;
    case PG_QUERY__NODE__NODE_UNLISTEN_STMT:
        t->touches |= SESSION_UNLISTEN;
        break;
    case PG_QUERY__NODE__NODE_LOAD_STMT:
        t->touches |= SESSION_LOAD;
        break;
    case PG_QUERY__NODE__NODE_DECLARE_CURSOR_STMT:
        if (n->declare_cursor_stmt->options & 0x20) /* CURSOR_OPT_HOLD, parsenodes.h */
            t->touches |= SESSION_CURSOR;
        break;
    case PG_QUERY__NODE__NODE_CLOSE_PORTAL_STMT:
        t->ends |= SESSION_CURSOR;
        break;
    case PG_QUERY__NODE__NODE_DROP_STMT:
    case PG_QUERY__NODE__NODE_DISCARD_STMT:
        t->ends |= SESSION_TEMP;
        break;
    case PG_QUERY__NODE__NODE_UPDATE_STMT:
        if (strcmp(n->update_stmt->relation->relname, "pg_settings") == 0 &&
            strcmp(n->update_stmt->relation->schemaname, "pg_catalog") == 0)
            t->touches |= SESSION_UNKNOWN_NAME;
        break;
    case PG_QUERY__NODE__NODE_EXPLAIN_STMT: {
        bool analyzes = false;
        for (size_t i = 0; i < n->explain_stmt->n_options; i++)
            analyzes =
                analyzes || strcmp(n->explain_stmt->options[i]->def_elem->defname, "analyze") == 0;
        t->odd = t->odd || !analyzes;
        break;
    }
    case PG_QUERY__NODE__NODE_CREATE_SCHEMA_STMT:
    case PG_QUERY__NODE__NODE_RULE_STMT:
    case PG_QUERY__NODE__NODE_CREATE_FUNCTION_STMT:
    case PG_QUERY__NODE__NODE_PREPARE_STMT:
        t->odd = true;
        break;
    default:
        break;
    }
}

/* Calls and temporary relations may be anywhere; the tree as JSON has them all. A quote inside of a
 * value has a backslash there. */
static void tell_inner(const char *text, const char *json, struct truth *t)
{
    if (t->odd || strstr(text, "&\"") != NULL)
        return;
    if (strstr(json, "\"relpersistence\":\"t\"") != NULL ||
        strstr(json, "\"schemaname\":\"pg_temp") != NULL)
        t->touches |= SESSION_TEMP;
    for (const char *f = json; (f = strstr(f, "\"funcname\":[")) != NULL; f++) {
        const char *end = strchr(f, ']');
        struct str call = { f, end == NULL ? 0 : (size_t)(end - f) };
        if (str_find(call, STR("\"sval\":\"set_config\"}}")) >= 0 && strstr(text, "true") == NULL &&
            strstr(text, "seed") == NULL)
            t->touches |= SESSION_UNKNOWN_NAME; /* or of a known one */
        if (str_find(call, STR("\"sval\":\"pg_advisory_lock\"}}")) >= 0 ||
            str_find(call, STR("\"sval\":\"pg_try_advisory_lock_shared\"}}")) >= 0)
            t->touches |= SESSION_ADVISORY;
    }
}

static void compare(const char *text, const struct truth *t, bool inside)
{
    struct session_found f;
    unsigned missing;

    session_scan(str_from(text), true, &f);
    missing = t->touches & ~f.touches;
    if ((missing & SESSION_UNKNOWN_NAME) &&
        (f.touches & (SESSION_SETTINGS | SESSION_AUTHORIZATION)))
        missing &= ~(unsigned)SESSION_UNKNOWN_NAME;
    claim(missing == 0, "what it makes", text);
    claim((t->ends & ~(f.ends | f.touches)) == 0, "what it ends", text);
    claim(t->name == NULL || has(&f.names, t->name), "the setting", text);
    if (t->name != NULL && !inside)
        claim(has(&f.resets, t->name) == t->is_reset || (t->touches & SESSION_RESET_ALL) ||
                  (t->touches & SESSION_UNKNOWN_NAME),
              "a setting is given back", text);
    claim(t->channel == NULL || has(&f.channels, t->channel), "the channel", text);
    if (t->touches != 0 || t->ends != 0)
        claim(session_scan_wants(str_from(text), true), "wants", text);
    session_found_free(&f);
}

static void compare_inside(const char *before, const char *text, const char *behind,
                           const struct truth *t)
{
    size_t size = strlen(before) + strlen(text) + strlen(behind) + 1;
    char *wrapped = malloc(size);

    snprintf(wrapped, size, "%s%s%s", before, text, behind);
    compare(wrapped, t, true);
    free(wrapped);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct text sql;
    struct session_found f;
    PgQuery__ParseResult *tree;
    struct truth t = { 0 };

    text_init(&sql);
    text_put(&sql, "");
    for (size_t i = 0; i < len && bytes[i] != 0; i++) {
        if (bytes[i] >= 0x80)
            text_put(&sql, words[(size_t)(bytes[i] - 0x80) % N_WORDS]);
        else
            text_put_char(&sql, (char)bytes[i]);
    }
    for (int conforming = 0; conforming <= 1; conforming++) {
        char *exact = malloc(sql.len > 0 ? sql.len : 1); /* an over-read shows */
        if (sql.len > 0)
            memcpy(exact, sql.ptr, sql.len);
        session_scan_wants((struct str){ exact, sql.len }, conforming != 0);
        session_scan((struct str){ exact, sql.len }, conforming != 0, &f);
        session_found_free(&f);
        free(exact);
    }
    const char *text = sql.ptr;
    /* \v: white space since 16, the library is of 15. UESCAPE is left to the server. */
    bool comparable = strchr(text, '\v') == NULL && strstr(text, "&\"") == NULL;
    PgQueryProtobufParseResult r = pg_query_parse_protobuf(text);
    PgQueryParseResult json = pg_query_parse(text);
    if (comparable && r.error == NULL && json.error == NULL) {
        tree = pg_query__parse_result__unpack(NULL, r.parse_tree.len, (uint8_t *)r.parse_tree.data);
        claim(tree != NULL, "a tree", text);
        for (size_t i = 0; i < tree->n_stmts; i++)
            tell(tree->stmts[i]->stmt, &t);
        tell_inner(text, json.parse_tree, &t);
        compare(text, &t, false);
        if (tree->n_stmts == 1 && (t.touches != 0 || t.ends != 0) &&
            tree->stmts[0]->stmt_location == 0)
            claim(session_scan_wants(str_from(text), false), "wants one", text);
        if (strstr(text, "$do$") == NULL && strstr(text, "$ex$") == NULL) {
            compare_inside("do $do$ begin ", text, "\n; end $do$", &t);
            compare_inside("do $do$ begin execute $ex$", text, "\n$ex$; end $do$", &t);
        }
        pg_query__parse_result__free_unpacked(tree, NULL);
    }
    pg_query_free_parse_result(json);
    pg_query_free_protobuf_parse_result(r);
    text_free(&sql);
    return 0;
}
