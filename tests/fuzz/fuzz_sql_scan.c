/* The lexer and the grammar of stream-table statements on any text. Where PostgreSQL's own scanner
 * or parser (libpg_query) accepts the text, ours must cut it at the same places. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <pg_query.h>
#include <pg_query/pg_query.pb-c.h>

#include "base/text.h"
#include "proxy/intercept.h"
#include "proxy/sql_scan.h"
#include "proxy/stream_sql.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void claim(bool ok)
{
    if (!ok)
        __builtin_trap();
}

/* Strings and identifiers begin and end where the server's do. What it takes apart at their begin
 * and we don't: N'...' is the word N and a string to it. */
static void compare_tokens(struct str text)
{
    PgQueryScanResult r = pg_query_scan(text.ptr);
    struct sql_scanner s = { text, 0, true };
    struct sql_token ours = sql_scan_next(&s);
    PgQuery__ScanResult *scan;

    if (r.error == NULL) {
        scan = pg_query__scan_result__unpack(NULL, r.pbuf.len, (const uint8_t *)r.pbuf.data);
        claim(scan != NULL);
        for (size_t i = 0; i < scan->n_tokens; i++) {
            const PgQuery__ScanToken *theirs = scan->tokens[i];
            size_t start = (size_t)theirs->start;

            switch ((int)theirs->token) {
            case PG_QUERY__TOKEN__SCONST:
            case PG_QUERY__TOKEN__BCONST:
            case PG_QUERY__TOKEN__XCONST:
            case PG_QUERY__TOKEN__IDENT:
            case PG_QUERY__TOKEN__PARAM:
                while (ours.kind != SQL_END && ours.end <= start)
                    ours = sql_scan_next(&s);
                claim(ours.start == start ||
                      (ours.start + 1 == start && (text.ptr[start - 1] | 0x20) == 'n'));
                claim(ours.end == (size_t)theirs->end);
                break;
            case PG_QUERY__TOKEN__USCONST: /* their ends are not reported */
            case PG_QUERY__TOKEN__UIDENT:
                while (ours.kind != SQL_END && ours.end <= start)
                    ours = sql_scan_next(&s);
                claim(ours.start == start);
                break;
            default:
                break;
            }
        }
        pg_query__scan_result__free_unpacked(scan, NULL);
    }
    pg_query_free_scan_result(r);
}

static void compare_statements(struct str text)
{
    PgQuerySplitResult r = pg_query_split_with_parser(text.ptr);
    struct sql_scanner s = { text, 0, true };
    struct sql_statement at;

    if (r.error == NULL) {
        for (int i = 0; i < r.n_stmts; i++) {
            size_t start = (size_t)r.stmts[i]->stmt_location;

            claim(sql_split_next(&s, &at));
            claim(at.start >= start && at.end <= start + (size_t)r.stmts[i]->stmt_len);
        }
        claim(!sql_split_next(&s, &at));
    }
    pg_query_free_split_result(r);
}

static void walk_tokens(struct str text, bool conforming, struct arena *a)
{
    struct sql_scanner s = { text, 0, conforming };
    struct sql_token t;
    size_t last = 0;

    while ((t = sql_scan_next(&s)).kind != SQL_END) {
        claim(t.start >= last && t.end > t.start && t.end <= text.len);
        sql_token_value(text, t, a);
        last = t.end;
    }
}

static void walk_statements(struct str text, bool conforming, struct arena *a)
{
    struct sql_scanner s = { text, 0, conforming };
    struct intercept_rewrite rewrite;
    struct stream_statement st;
    struct sql_statement at;
    struct err e = { 0 };
    struct text sql;
    bool ours = false;

    text_init(&sql);
    while (sql_split_next(&s, &at)) {
        if (!stream_sql_begins((struct sql_scanner){ { text.ptr, at.end }, at.start, conforming }))
            continue;
        ours = true;
        text_clear(&sql);
        if (stream_sql_parse(text, at, conforming, a, &st, &e))
            stream_sql_put_sql(&st, &sql);
        else
            claim(e.position >= 1 && (size_t)e.position <= text.len + 1);
    }
    claim(!ours || intercept_classify(text, conforming) == INTERCEPT_LEND);
    if (!intercept_rewrite(text, conforming, a, &rewrite, &e))
        claim(err_is_set(&e));
    err_clear(&e);
    text_free(&sql);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct arena a;
    char *exact = malloc(len > 0 ? len : 1); /* an over-read shows */
    char *terminated = strndup((const char *)bytes, len);
    struct str text = { terminated, strlen(terminated) };

    arena_init(&a);
    memcpy(exact, bytes, len);
    for (int conforming = 0; conforming <= 1; conforming++) {
        walk_tokens((struct str){ exact, len }, conforming != 0, &a);
        walk_statements((struct str){ exact, len }, conforming != 0, &a);
    }
    /* \v is white space since 16, and the library is of 15. Its scanner, other than the server's,
     * lets a comment end a string that goes on behind it. */
    if (strchr(terminated, '\v') == NULL && strstr(terminated, "--") == NULL) {
        compare_tokens(text);
        compare_statements(text);
    }
    free(terminated);
    free(exact);
    arena_free(&a);
    return 0;
}
