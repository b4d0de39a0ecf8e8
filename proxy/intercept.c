#include "proxy/intercept.h"

#include <string.h>

#include "base/text.h"
#include "proxy/sql_scan.h"
#include "proxy/stream_sql.h"

/* Two searches of the bytes, in one pass: for "pgtrickle" and for "stream", whatever their case.
 * Text without either is not ours, and that is nearly all text. The pass looks at a block of bytes
 * at once and asks only whether three letters of a word are in their places somewhere in it, which
 * compilers turn into vector instructions; a block that says yes is looked at byte by byte. */
enum { BLOCK = 32 };

/* How far behind a word found the next tokens are looked for. Without a limit a text that repeats
 * the word and opens comments would take quadratic time. What lies farther off counts as ours. */
enum { WINDOW = 512 };

static unsigned char block_matches(const char *p)
{
    unsigned char any = 0;

    for (int i = 0; i < BLOCK; i++) {
        unsigned char schema = (unsigned char)(((p[i] | 0x20) == 'p') & ((p[i + 1] | 0x20) == 'g') &
                                               ((p[i + 2] | 0x20) == 't'));
        unsigned char verb = (unsigned char)(((p[i] | 0x20) == 's') & ((p[i + 1] | 0x20) == 't') &
                                             ((p[i + 2] | 0x20) == 'r'));

        any |= schema | verb;
    }
    return any;
}

static bool word_at(struct str text, size_t i, struct str word)
{
    return text.len - i >= word.len &&
           str_equal_nocase((struct str){ text.ptr + i, word.len }, word);
}

static bool is_identifier_byte(char c)
{
    return (unsigned char)((c | 0x20) - 'a') < 26 || (c >= '0' && c <= '9') || c == '_' ||
           c == '$' || (unsigned char)c >= 0x80;
}

static struct sql_scanner window_behind(struct str text, size_t i)
{
    size_t end = text.len - i > WINDOW ? i + WINDOW : text.len;

    return (struct sql_scanner){ { text.ptr, end }, i, true };
}

static bool is_beyond_window(const struct sql_scanner *s, struct str text, struct sql_token t)
{
    return (t.kind == SQL_END && s->text.len < text.len) ||
           (t.kind == SQL_UNTERMINATED && text.ptr[t.start] == '/');
}

/* "stream" at i: is TABLE the next word? The whole text is then cut into statements, so a yes
 * inside of a string does no harm but to speed. */
static bool is_stream_table(struct str text, size_t i)
{
    struct sql_scanner s = window_behind(text, i);
    struct sql_token t;

    if (i > 0 && is_identifier_byte(text.ptr[i - 1]))
        return false;
    if (!sql_token_is(text, sql_scan_next(&s), "stream"))
        return false;
    t = sql_scan_next(&s);
    return sql_token_is(text, t, "table") || is_beyond_window(&s, text, t);
}

/* The functions that make a request, or do what a request does: by how their names begin. */
static const char *const request_functions[] = {
    "create_stream_table", /* and _if_not_exists */
    "create_or_replace_stream_table",
    "alter_stream_table",
    "drop_stream_table",
    "refresh_stream_table",
    "resume_stream_table",
    "repair_stream_table",
    "rebuild",
    "bulk_",
    "_ddl",
};

static bool makes_request(struct str name)
{
    for (size_t i = 0; i < sizeof(request_functions) / sizeof(request_functions[0]); i++) {
        if (word_at(name, 0, str_from(request_functions[i])))
            return true;
    }
    return false;
}

/* "pgtrickle" at i: as a schema's name before a dot, what does it qualify? Looks at bytes, not at
 * tokens of the whole text: DO blocks and function bodies are strings. */
static enum intercept_kind classify_schema(struct str text, size_t i)
{
    struct sql_scanner s = window_behind(text, i + strlen("pgtrickle"));
    struct sql_token t;
    struct str name;

    if (i > 0 && is_identifier_byte(text.ptr[i - 1]))
        return INTERCEPT_FORWARD;
    if (s.pos < text.len && text.ptr[s.pos] == '"')
        s.pos++;
    t = sql_scan_next(&s);
    if (is_beyond_window(&s, text, t))
        return INTERCEPT_LEND;
    if (!sql_token_is_symbol(text, t, '.'))
        return INTERCEPT_FORWARD;
    t = sql_scan_next(&s);
    if (is_beyond_window(&s, text, t))
        return INTERCEPT_LEND;
    if (t.kind == SQL_END)
        return INTERCEPT_READS;
    name = (struct str){ text.ptr + t.start, text.len - t.start };
    if (name.ptr[0] == '"') {
        name.ptr++;
        name.len--;
    }
    return makes_request(name) ? INTERCEPT_LEND : INTERCEPT_READS;
}

static bool has_stream_statement(struct str text, bool standard_conforming_strings)
{
    struct sql_scanner s = { text, 0, standard_conforming_strings };
    struct sql_statement at;

    while (sql_split_next(&s, &at)) {
        struct sql_scanner statement = { { text.ptr, at.end },
                                         at.start,
                                         standard_conforming_strings };

        if (stream_sql_begins(statement))
            return true;
    }
    return false;
}

/* What the search has found so far. */
struct findings {
    enum intercept_kind kind;
    bool stream_table; /* the words are there, perhaps in a string */
};

static void look_at(struct str text, size_t from, size_t to, struct findings *f)
{
    for (size_t i = from; i < to && f->kind != INTERCEPT_LEND; i++) {
        char c = (char)(text.ptr[i] | 0x20);

        if (c == 'p' && word_at(text, i, STR("pgtrickle"))) {
            enum intercept_kind kind = classify_schema(text, i);

            if (kind > f->kind)
                f->kind = kind;
        } else if (c == 's' && !f->stream_table && word_at(text, i, STR("stream"))) {
            f->stream_table = is_stream_table(text, i);
        }
    }
}

enum intercept_kind intercept_classify(struct str text, bool standard_conforming_strings)
{
    struct findings f = { .kind = INTERCEPT_FORWARD };
    size_t i = 0;

    if (text.len < BLOCK + 2) {
        look_at(text, 0, text.len, &f);
        i = text.len;
    }
    for (; text.len - i >= BLOCK + 2 && f.kind != INTERCEPT_LEND; i += BLOCK) {
        if (block_matches(text.ptr + i))
            look_at(text, i, i + BLOCK, &f);
    }
    /* What is left is looked at together with bytes that were. */
    if (i < text.len && f.kind != INTERCEPT_LEND &&
        block_matches(text.ptr + text.len - (BLOCK + 2)))
        look_at(text, i, text.len, &f);
    if (f.kind != INTERCEPT_LEND && f.stream_table &&
        has_stream_statement(text, standard_conforming_strings))
        return INTERCEPT_LEND;
    return f.kind;
}

bool intercept_rewrite(struct str text, bool standard_conforming_strings, struct arena *a,
                       struct intercept_rewrite *out, struct err *e)
{
    struct sql_scanner s = { text, 0, standard_conforming_strings };
    struct sql_statement first, second;
    struct stream_statement st;
    struct text sql;

    *out = (struct intercept_rewrite){ .sql = text };
    if (!sql_split_next(&s, &first))
        return true;
    if (!stream_sql_begins((struct sql_scanner){ text, first.start, standard_conforming_strings }))
        return true;
    if (!stream_sql_parse(text, first, standard_conforming_strings, a, &st, e))
        return false;
    if (sql_split_next(&s, &second))
        return err_set(e, ERR_REFUSAL, "42601",
                       "cannot insert multiple commands into a prepared statement");
    text_init(&sql);
    stream_sql_put_sql(&st, &sql);
    out->sql = arena_str(a, text_str(&sql));
    text_free(&sql);
    out->tag = stream_sql_tag(st.verb);
    out->definition_offset = st.query_offset;
    out->has_rows =
        st.verb == STREAM_EXPLAIN || st.verb == STREAM_EXPLAIN_CREATE || st.verb == STREAM_CHECK;
    return true;
}
