/* PREPARE, EXECUTE and DEALLOCATE in any text. Where PostgreSQL's own parser (libpg_query) accepts
 * the text, ours finds the same commands with the same names, and finds none where it says that
 * none can be. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <pg_query.h>
#include <pg_query/pg_query.pb-c.h>

#include "proxy/sql_prepare.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void claim(bool ok)
{
    if (!ok)
        __builtin_trap();
}

/* The command in a statement; false: it is another statement. */
static bool command_of(const PgQuery__Node *n, bool explained, enum sql_prepare_verb *verb,
                       const char **name)
{
    switch ((int)n->node_case) {
    case PG_QUERY__NODE__NODE_EXPLAIN_STMT:
        return !explained && command_of(n->explain_stmt->query, true, verb, name);
    case PG_QUERY__NODE__NODE_EXECUTE_STMT:
        *verb = SQL_EXECUTE;
        *name = n->execute_stmt->name;
        return true;
    case PG_QUERY__NODE__NODE_CREATE_TABLE_AS_STMT:
        return n->create_table_as_stmt->query->node_case == PG_QUERY__NODE__NODE_EXECUTE_STMT &&
               command_of(n->create_table_as_stmt->query, true, verb, name);
    case PG_QUERY__NODE__NODE_PREPARE_STMT:
        *verb = SQL_PREPARE;
        *name = n->prepare_stmt->name;
        return true;
    case PG_QUERY__NODE__NODE_DEALLOCATE_STMT:
        *name = n->deallocate_stmt->name;
        *verb = *name == NULL || **name == '\0' ? SQL_FORGET_ALL : SQL_DEALLOCATE;
        return true;
    case PG_QUERY__NODE__NODE_DISCARD_STMT:
        *verb = SQL_FORGET_ALL;
        return n->discard_stmt->target == PG_QUERY__DISCARD_MODE__DISCARD_ALL;
    default:
        return false;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    char *text = malloc(len + 1);
    struct arena a;
    struct sql_prepare_command *found;

    for (size_t i = 0; i < len; i++)
        text[i] = bytes[i] < 0x80 ? (char)bytes[i] : '?'; /* in one encoding for both */
    text[len] = '\0';
    struct str s = { text, strlen(text) };
    arena_init(&a);
    size_t n = sql_prepare_find(s, true, &a, &found);
    for (size_t i = 0; i < n; i++) {
        claim(found[i].at.start <= found[i].name_start || found[i].verb == SQL_FORGET_ALL);
        claim(found[i].name_end <= found[i].at.end && found[i].at.end <= s.len);
    }
    bool may = sql_prepare_may_matter(s, false);
    PgQueryProtobufParseResult r = pg_query_parse_protobuf(text);
    if (r.error == NULL) {
        PgQuery__ParseResult *tree =
            pg_query__parse_result__unpack(NULL, r.parse_tree.len, (uint8_t *)r.parse_tree.data);
        size_t at = 0;
        claim(tree != NULL);
        for (size_t i = 0; i < tree->n_stmts; i++) {
            enum sql_prepare_verb verb;
            const char *name = NULL;
            if (!command_of(tree->stmts[i]->stmt, false, &verb, &name))
                continue;
            /* UESCAPE: we leave it to the server. */
            if (strstr(text, "&\"") != NULL)
                break;
            claim(at < n && found[at].verb == verb && found[at].statement == i && may);
            if (verb != SQL_FORGET_ALL)
                claim(str_equal(found[at].name, str_from(name)));
            at++;
        }
        claim(at == n || strstr(text, "&\"") != NULL);
        pg_query__parse_result__free_unpacked(tree, NULL);
    }
    pg_query_free_protobuf_parse_result(r);
    arena_free(&a);
    free(text);
    return 0;
}
