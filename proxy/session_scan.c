#include "proxy/session_scan.h"

#include <string.h>

#include "base/arena.h"
#include "proxy/sql_scan.h"

/* ---- is there anything? ----------------------------------------------------------------- */

enum { BLOCK = 32, NEEDLE = 4 };

static bool is_letter(char c)
{
    return (unsigned char)((c | 0x20) - 'a') < 26;
}

static bool is_identifier_byte(char c)
{
    return is_letter(c) || (c >= '0' && c <= '9') || c == '_' || c == '$' ||
           (unsigned char)c >= 0x80;
}

/* Four letters of "advisory", "set_config" and "temp", whatever their case, begin somewhere in the
 * block. Compilers make vector instructions of it (see intercept.c). */
static unsigned char block_matches(const char *p)
{
    unsigned char any = 0;

    for (int i = 0; i < BLOCK; i++) {
        unsigned char a = (unsigned char)(p[i] | 0x20), b = (unsigned char)(p[i + 1] | 0x20),
                      c = (unsigned char)(p[i + 2] | 0x20), d = (unsigned char)(p[i + 3] | 0x20);
        unsigned char lock = (unsigned char)((a == 'a') & (b == 'd') & (c == 'v') & (d == 'i'));
        unsigned char set =
            (unsigned char)((a == 't') & (p[i + 1] == '_') & (c == 'c') & (d == 'o'));
        unsigned char temp = (unsigned char)((a == 't') & (b == 'e') & (c == 'm') & (d == 'p'));

        any |= lock | set | temp;
    }
    return any;
}

static bool starts_nocase(struct str text, size_t at, struct str word)
{
    return text.len - at >= word.len &&
           str_equal_nocase((struct str){ text.ptr + at, word.len }, word);
}

static bool word_matches(struct str text, size_t i)
{
    if (starts_nocase(text, i, STR("advisory_")) ||
        (i >= 2 && starts_nocase(text, i - 2, STR("set_config"))))
        return true;
    if (!starts_nocase(text, i, STR("temp")))
        return false;
    if (i >= 3 && starts_nocase(text, i - 3, STR("pg_")))
        return true;
    size_t end = i + (starts_nocase(text, i, STR("temporary")) ? 9 : 4);
    return (i == 0 || !is_identifier_byte(text.ptr[i - 1])) &&
           (end == text.len || !is_identifier_byte(text.ptr[end]));
}

static bool has_word(struct str text)
{
    char tail[BLOCK + NEEDLE] = { 0 };

    for (size_t i = 0; i < text.len; i += BLOCK) {
        const char *block = text.ptr + i;
        if (text.len - i < BLOCK + NEEDLE) {
            memcpy(tail, block, text.len - i);
            block = tail;
        }
        if (!block_matches(block))
            continue;
        for (size_t k = i; k < i + BLOCK && k + NEEDLE <= text.len; k++)
            if (word_matches(text, k))
                return true;
        memset(tail, 0, sizeof(tail));
    }
    return false;
}

static const char *const telling_words[] = { "set",  "reset",   "listen", "unlisten",
                                             "load", "declare", "close",  "create",
                                             "drop", "do",      "discard" };

/* A name, quoted or not. */
static struct str name_at(struct str text, struct sql_token t)
{
    struct str s = { text.ptr + t.start, t.end - t.start };

    return t.kind == SQL_QUOTED_IDENT && s.len > 2 ? (struct str){ s.ptr + 1, s.len - 2 } : s;
}

static bool is_called(struct str text, struct sql_token t, struct str name)
{
    return (t.kind == SQL_WORD || t.kind == SQL_QUOTED_IDENT) &&
           str_equal_nocase(name_at(text, t), name);
}

/* UPDATE pg_settings calls set_config (manual: 54.24 pg_settings). */
static bool updates_settings(struct sql_scanner *s)
{
    struct sql_token t = sql_scan_next(s);

    if (sql_token_is(s->text, t, "only"))
        t = sql_scan_next(s);
    if (is_called(s->text, t, STR("pg_catalog")) &&
        sql_token_is_symbol(s->text, sql_scan_next(s), '.'))
        t = sql_scan_next(s);
    return is_called(s->text, t, STR("pg_settings"));
}

/* White space of any kind, comments, parentheses and empty statements in front are skipped as the
 * server skips them, by its own rules. */
static bool first_word_tells(struct str text)
{
    struct sql_scanner s = { text, 0, true };
    struct sql_token t;

    do
        t = sql_scan_next(&s);
    while (sql_token_is_symbol(text, t, '(') || sql_token_is_symbol(text, t, ';'));
    size_t i = t.start;

    if (i >= text.len)
        return false;
    for (size_t w = 0; w < sizeof(telling_words) / sizeof(telling_words[0]); w++) {
        if ((text.ptr[i] | 0x20) != telling_words[w][0])
            continue;
        size_t n = strlen(telling_words[w]);
        if (starts_nocase(text, i, (struct str){ telling_words[w], n }) &&
            (i + n == text.len || !is_identifier_byte(text.ptr[i + n])))
            return true;
    }
    return sql_token_is(text, t, "update") && updates_settings(&s);
}

bool session_scan_wants(struct str text, bool many)
{
    if (text.len == 0)
        return false;
    if (first_word_tells(text))
        return true;
    if (many) {
        const char *semicolon = memchr(text.ptr, ';', text.len);
        if (semicolon != NULL &&
            str_trim((struct str){ semicolon + 1, (size_t)(text.ptr + text.len - semicolon) - 1 })
                    .len > 0)
            return true;
    }
    return has_word(text);
}

/* ---- what is there ---------------------------------------------------------------------- */

struct walk {
    struct sql_scanner s;
    struct sql_token t;    /* the current one */
    struct sql_token last; /* the one before */
    struct session_found *found;
    struct arena *arena;
    int depth; /* of strings inside of strings */
};

enum { DEPTH_MAX = 4 };

static void walk_text(struct str text, bool scs, int depth, struct arena *a,
                      struct session_found *found);

static void step(struct walk *w)
{
    w->last = w->t;
    w->t = sql_scan_next(&w->s);
}

static bool is(const struct walk *w, const char *word)
{
    return sql_token_is(w->s.text, w->t, word);
}

static bool is_symbol(const struct walk *w, char c)
{
    return sql_token_is_symbol(w->s.text, w->t, c);
}

static bool is_name(const struct walk *w)
{
    return w->t.kind == SQL_WORD || w->t.kind == SQL_QUOTED_IDENT || w->t.kind == SQL_UNICODE_IDENT;
}

static bool is_string(const struct walk *w)
{
    return w->t.kind == SQL_STRING || w->t.kind == SQL_ESCAPE_STRING ||
           w->t.kind == SQL_UNICODE_STRING || w->t.kind == SQL_DOLLAR_STRING;
}

static bool at_end(const struct walk *w)
{
    return w->t.kind == SQL_END || w->t.kind == SQL_UNTERMINATED || is_symbol(w, ';');
}

static const char *value(const struct walk *w)
{
    return sql_token_value(w->s.text, w->t, w->arena);
}

static void add(struct text *list, struct str name)
{
    if (name.len > 0 && memchr(name.ptr, '\0', name.len) != NULL)
        return;
    text_put_str(list, name);
    text_put_char(list, '\0');
}

static void drop(struct text *list, struct str name)
{
    struct text kept;

    text_init(&kept);
    for (size_t i = 0; i < list->len;) {
        struct str one = str_from(list->ptr + i);
        if (!str_equal_nocase(one, name))
            add(&kept, one);
        i += one.len + 1;
    }
    text_free(list);
    *list = kept;
}

static void found_name(struct walk *w, struct str name, bool is_reset)
{
    if (str_equal_nocase(name, STR("session_authorization"))) {
        w->found->touches |= SESSION_AUTHORIZATION;
        w->found->makes |= SESSION_AUTHORIZATION;
        return;
    }
    if (str_equal_nocase(name, STR("seed"))) /* can't be read */
        return;
    w->found->touches |= SESSION_SETTINGS;
    add(&w->found->names, name);
    if (w->found->resets.len > 0)
        drop(&w->found->resets, name);
    if (is_reset)
        add(&w->found->resets, name);
}

/* "= DEFAULT" */
static bool is_default(struct walk *w)
{
    struct walk ahead = *w;

    if (!is_symbol(&ahead, '=') && !is(&ahead, "to"))
        return false;
    step(&ahead);
    return is(&ahead, "default");
}

/* "a.b.c" at the current token, and past it. */
static void dotted_name(struct walk *w, bool resets)
{
    struct text name;

    text_init(&name);
    while (is_name(w)) {
        const char *part = value(w);
        if (part == NULL)
            break;
        text_put(&name, part);
        step(w);
        if (!is_symbol(w, '.'))
            break;
        text_put_char(&name, '.');
        step(w);
    }
    if (name.len > 0)
        found_name(w, text_str(&name), resets || is_default(w));
    text_free(&name);
}

/* Most words that have a meaning behind SET may be a parameter's name too, as session.tenant. */
static bool is_variable(const struct walk *w, bool resets)
{
    struct walk ahead = *w;

    step(&ahead);
    return is_symbol(&ahead, '.') || is_symbol(&ahead, '=') || is(&ahead, "to") ||
           (resets && at_end(&ahead) && !is(w, "all"));
}

/* Behind SET or RESET: the forms that have words of their own (manual: SET). */
static void parameter(struct walk *w, bool resets)
{
    bool with_session = false;

    if (!resets && is(w, "session") && !is_variable(w, resets)) {
        step(w);
        with_session = true;
    }
    if (is_variable(w, resets)) {
        dotted_name(w, resets);
        return;
    }
    if (!resets && is(w, "session")) {
        step(w);
        with_session = true;
    }
    if (is(w, "local") || is(w, "transaction") || is(w, "constraints"))
        return;
    if (resets && is(w, "session")) {
        step(w);
        with_session = true;
    }
    if (with_session && is(w, "characteristics")) {
        found_name(w, STR("default_transaction_isolation"), false);
        found_name(w, STR("default_transaction_read_only"), false);
        found_name(w, STR("default_transaction_deferrable"), false);
    } else if (with_session && is(w, "authorization")) {
        step(w);
        if (resets || is(w, "default")) {
            w->found->ends |= SESSION_AUTHORIZATION;
        } else {
            w->found->touches |= SESSION_AUTHORIZATION;
            w->found->makes |= SESSION_AUTHORIZATION;
        }
    } else if (resets && is(w, "all")) {
        w->found->touches |= SESSION_RESET_ALL;
        text_clear(&w->found->resets);
    } else if (is(w, "time")) {
        step(w);
        if (is(w, "zone"))
            step(w);
        found_name(w, STR("timezone"), resets || is(w, "default") || is(w, "local"));
    } else if (is(w, "names")) {
        step(w);
        found_name(w, STR("client_encoding"), at_end(w) || is(w, "default"));
    } else if (is(w, "schema")) {
        found_name(w, STR("search_path"), false);
    } else if (is(w, "xml")) {
        found_name(w, STR("xmloption"), false);
    } else {
        dotted_name(w, resets);
    }
}

static void listen(struct walk *w)
{
    const char *channel = is_name(w) ? value(w) : NULL;

    if (channel == NULL || channel[0] == '\0')
        return;
    w->found->touches |= SESSION_LISTEN;
    add(&w->found->channels, str_from(channel));
}

static void unlisten(struct walk *w)
{
    const char *channel = is_name(w) ? value(w) : is_symbol(w, '*') ? "" : NULL;

    if (channel == NULL)
        return;
    w->found->touches |= SESSION_UNLISTEN;
    add(&w->found->unlistens, str_from(channel));
}

/* CREATE [OR REPLACE] [GLOBAL | LOCAL] TEMP …; with ON COMMIT DROP nothing is left. */
static void create(struct walk *w)
{
    bool drops = false;

    while (is(w, "or") || is(w, "replace") || is(w, "global") || is(w, "local"))
        step(w);
    if (!is(w, "temp") && !is(w, "temporary"))
        return;
    step(w);
    for (struct walk ahead = *w; !at_end(&ahead) && !drops;) {
        bool commit = is(&ahead, "commit");
        step(&ahead);
        drops = commit && is(&ahead, "drop");
    }
    w->found->touches |= SESSION_TEMP;
    if (!drops)
        w->found->makes |= SESSION_TEMP;
}

/* DECLARE name … CURSOR [WITH HOLD] FOR query; in PL/pgSQL, where DECLARE is another thing, too
 * many tokens are looked at. */
static void declare(struct walk *w)
{
    for (struct walk ahead = *w; !at_end(&ahead) && !is(&ahead, "for");) {
        bool with = is(&ahead, "with");
        step(&ahead);
        if (with && is(&ahead, "hold")) {
            w->found->touches |= SESSION_CURSOR;
            w->found->makes |= SESSION_CURSOR;
        }
    }
}

/* EXPLAIN ANALYZE runs the statement, which may be a CREATE TABLE AS. */
static void explain(struct walk *w)
{
    bool analyzes = false, in_parens = is_symbol(w, '(');

    while (!at_end(w) && (in_parens || is(w, "analyze") || is(w, "analyse") || is(w, "verbose"))) {
        analyzes = analyzes || is(w, "analyze") || is(w, "analyse");
        in_parens = in_parens && !is_symbol(w, ')');
        step(w);
    }
    if (analyzes && is(w, "create")) {
        step(w);
        create(w);
    }
}

/* The beginning of a statement; the current token is its first word. */
static void statement(struct walk *w)
{
    if (is(w, "set")) {
        step(w);
        parameter(w, false);
    } else if (is(w, "reset")) {
        step(w);
        parameter(w, true);
    } else if (is(w, "listen")) {
        step(w);
        listen(w);
    } else if (is(w, "unlisten")) {
        step(w);
        unlisten(w);
    } else if (is(w, "load")) {
        step(w);
        if (is_string(w)) {
            w->found->touches |= SESSION_LOAD;
            w->found->makes |= SESSION_LOAD;
        }
    } else if (is(w, "create")) {
        step(w);
        create(w);
    } else if (is(w, "declare")) {
        step(w);
        declare(w);
    } else if (is(w, "close")) {
        w->found->ends |= SESSION_CURSOR;
    } else if (is(w, "drop") || is(w, "discard")) {
        w->found->ends |= SESSION_TEMP;
    } else if (is(w, "explain")) {
        step(w);
        explain(w);
    } else if (is(w, "update")) {
        struct sql_scanner ahead = w->s;
        if (updates_settings(&ahead)) {
            w->found->touches |= SESSION_UNKNOWN_NAME;
            w->found->makes |= SESSION_UNKNOWN_NAME;
        }
    }
}

/* set_config(name, value, is_local), behind the name of the function. Its arguments are walked
 * afterwards: they may call it too. */
static void set_config(struct walk w)
{
    const char *name = NULL;
    int parens = 1, argument = 0, tokens = 0; /* of the third argument */
    bool local = false, lasting = false;

    if (!is_symbol(&w, '('))
        return;
    step(&w);
    if (is_string(&w)) {
        name = value(&w);
        step(&w);
        if (!is_symbol(&w, ',') && !is_symbol(&w, ':'))
            name = NULL;
    }
    for (; !at_end(&w) && parens > 0; step(&w)) {
        if (is_symbol(&w, '('))
            parens++;
        else if (is_symbol(&w, ')'))
            parens--;
        if (parens == 1 && is_symbol(&w, ','))
            argument++;
        else if (argument == 2 && parens > 0)
            tokens++;
        local = local || (argument == 2 && is(&w, "true"));
        lasting = lasting || (argument == 2 && is(&w, "false"));
    }
    if (local && tokens == 1)
        return;
    if (name != NULL && name[0] != '\0') {
        found_name(&w, str_from(name), false);
        return;
    }
    w.found->touches |= SESSION_UNKNOWN_NAME;
    if (lasting && tokens == 1)
        w.found->makes |= SESSION_UNKNOWN_NAME;
}

/* A name anywhere in a statement; moves on. */
static void name(struct walk *w)
{
    struct str text = name_at(w->s.text, w->t);
    bool into_another =
        sql_token_is(w->s.text, w->last, "insert") || sql_token_is(w->s.text, w->last, "merge");

    step(w);
    if (str_equal_nocase(text, STR("set_config"))) {
        set_config(*w);
    } else if (starts_nocase(text, 0, STR("pg_temp"))) {
        w->found->touches |= SESSION_TEMP;
    } else if (str_equal_nocase(text, STR("into")) && !into_another) {
        if (is(w, "local") || is(w, "global"))
            step(w);
        if (is(w, "temp") || is(w, "temporary")) {
            step(w);
            w->found->touches |= SESSION_TEMP;
            if (is_name(w) && !is(w, "from"))
                w->found->makes |= SESSION_TEMP;
        }
    } else if (starts_nocase(text, 0, STR("pg_advisory_")) ||
               starts_nocase(text, 0, STR("pg_try_advisory_"))) {
        size_t prefix = (text.ptr[3] | 0x20) == 't' ? 16 : 12;
        if (starts_nocase(text, prefix, STR("lock"))) {
            w->found->touches |= SESSION_ADVISORY;
            w->found->makes |= SESSION_ADVISORY;
        } else if (starts_nocase(text, prefix, STR("unlock"))) {
            w->found->ends |= SESSION_ADVISORY;
        }
    }
}

/* In a DO block, and in strings inside of it, any word may begin a statement. */
static void walk_string(struct walk *w)
{
    const char *inner = value(w);

    if (inner != NULL && w->depth < DEPTH_MAX)
        walk_text(str_from(inner), w->s.standard_conforming_strings, w->depth + 1, w->arena,
                  w->found);
}

static void walk_text(struct str text, bool scs, int depth, struct arena *a,
                      struct session_found *found)
{
    struct walk w = { .s = { text, 0, scs }, .found = found, .arena = a, .depth = depth };
    bool starts = true, in_do = depth > 0;

    step(&w);
    while (w.t.kind != SQL_END && w.t.kind != SQL_UNTERMINATED) {
        size_t at = w.t.start;
        if (is_symbol(&w, ';')) {
            starts = true;
            in_do = depth > 0;
            step(&w);
            continue;
        }
        if (starts && is(&w, "do"))
            in_do = true;
        if ((starts || depth > 0) && w.t.kind == SQL_WORD)
            statement(&w);
        starts = starts && is_symbol(&w, '(');
        /* What the beginning has not taken. */
        if (w.t.start == at || !at_end(&w)) {
            if (is_name(&w)) {
                name(&w);
            } else {
                if (in_do && is_string(&w))
                    walk_string(&w);
                step(&w);
            }
        }
    }
}

void session_scan(struct str text, bool standard_conforming_strings, struct session_found *out)
{
    struct arena arena;

    *out = (struct session_found){ 0 };
    text_init(&out->names);
    text_init(&out->resets);
    text_init(&out->channels);
    text_init(&out->unlistens);
    arena_init(&arena);
    walk_text(text, standard_conforming_strings, 0, &arena, out);
    arena_free(&arena);
}

void session_found_free(struct session_found *f)
{
    text_free(&f->names);
    text_free(&f->resets);
    text_free(&f->channels);
    text_free(&f->unlistens);
}
