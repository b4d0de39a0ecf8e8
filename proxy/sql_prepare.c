#include "proxy/sql_prepare.h"

#include <string.h>

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
}

/* ---- is it worth a closer look? ----------------------------------------------------------- */

static const struct str first_words[] = {
    { "prepare", 7 }, { "execute", 7 }, { "deallocate", 10 },
    { "discard", 7 }, { "explain", 7 }, { "create", 6 },
};

static bool begins_with_word(struct str text, struct str word)
{
    return text.len >= word.len && str_equal_nocase((struct str){ text.ptr, word.len }, word);
}

static bool first_word_matters(struct str text)
{
    for (size_t i = 0; i < sizeof(first_words) / sizeof(first_words[0]); i++)
        if (begins_with_word(text, first_words[i]))
            return true;
    return false;
}

/* Any of the words somewhere, in quotes or not: each has a letter pair that few others have. */
static bool has_word(struct str text)
{
    for (size_t i = 0; i + 7 <= text.len; i++) {
        char c = (char)(text.ptr[i] | 0x20);
        struct str rest = { text.ptr + i, text.len - i };

        if ((c == 'p' && begins_with_word(rest, first_words[0])) ||
            (c == 'e' && begins_with_word(rest, first_words[1])) ||
            (c == 'd' &&
             (begins_with_word(rest, first_words[2]) || begins_with_word(rest, first_words[3]))))
            return true;
    }
    return false;
}

bool sql_prepare_may_matter(struct str text, bool alone)
{
    size_t i = 0;

    while (i < text.len && (text.ptr[i] == ' ' || (text.ptr[i] >= '\t' && text.ptr[i] <= '\r')))
        i++;
    struct str rest = { text.ptr + i, text.len - i };
    if (rest.len == 0)
        return false;
    switch (lower(rest.ptr[0])) {
    case 'p':
    case 'e':
    case 'd':
    case 'c':
        if (first_word_matters(rest))
            return has_word(rest);
        break;
    case '-':
    case '/': /* a comment; what is behind it is not worth a scan of its own */
    case ';':
        return has_word(rest);
    default:
        break;
    }
    if (alone)
        return false;
    /* Another statement behind a semicolon. */
    const char *semicolon = memchr(rest.ptr, ';', rest.len);
    if (semicolon == NULL || semicolon == rest.ptr + rest.len - 1)
        return false;
    return has_word((struct str){ semicolon, rest.len - (size_t)(semicolon - rest.ptr) });
}

/* ---- the closer look ---------------------------------------------------------------------- */

struct look {
    struct sql_scanner s; /* up to the statement's end */
    struct sql_token t;   /* the current token */
};

static bool is_word(const struct look *l, const char *word)
{
    return sql_token_is(l->s.text, l->t, word);
}

static void step(struct look *l)
{
    l->t = sql_scan_next(&l->s);
}

static bool is_name(const struct look *l)
{
    return l->t.kind == SQL_WORD || l->t.kind == SQL_QUOTED_IDENT || l->t.kind == SQL_UNICODE_IDENT;
}

/* The current token names a statement. */
static bool take_name(struct look *l, enum sql_prepare_verb verb, struct arena *a,
                      struct sql_prepare_command *out)
{
    struct sql_token name = l->t;

    if (!is_name(l))
        return false;
    const char *value = sql_token_value(l->s.text, name, a);
    if (value == NULL)
        return false;
    step(l);
    if (name.kind == SQL_UNICODE_IDENT && is_word(l, "uescape"))
        return false;
    out->verb = verb;
    out->name = str_from(value);
    out->name_start = name.start;
    out->name_end = name.end;
    return true;
}

/* Behind a parenthesis that opens at the current token. */
static void skip_parentheses(struct look *l)
{
    size_t depth = 0;

    do {
        if (sql_token_is_symbol(l->s.text, l->t, '('))
            depth++;
        else if (sql_token_is_symbol(l->s.text, l->t, ')'))
            depth--;
        step(l);
    } while (depth > 0 && l->t.kind != SQL_END);
}

/* CREATE [...] TABLE ... AS EXECUTE: the first AS outside of parentheses. */
static bool find_in_create(struct look *l, struct arena *a, struct sql_prepare_command *out)
{
    int words = 0;

    for (step(l); !is_word(l, "table"); step(l))
        if (l->t.kind != SQL_WORD || ++words > 2)
            return false;
    while (l->t.kind != SQL_END && !is_word(l, "as")) {
        if (sql_token_is_symbol(l->s.text, l->t, '('))
            skip_parentheses(l);
        else
            step(l);
    }
    step(l);
    if (!is_word(l, "execute"))
        return false;
    step(l);
    return take_name(l, SQL_EXECUTE, a, out);
}

static bool find(struct look *l, struct arena *a, struct sql_prepare_command *out)
{
    bool explained = false;

    step(l);
    if (is_word(l, "explain")) {
        explained = true;
        step(l);
        if (sql_token_is_symbol(l->s.text, l->t, '('))
            skip_parentheses(l);
        while (is_word(l, "analyze") || is_word(l, "analyse") || is_word(l, "verbose"))
            step(l);
    }
    if (is_word(l, "execute")) {
        step(l);
        return take_name(l, SQL_EXECUTE, a, out);
    }
    if (is_word(l, "create"))
        return find_in_create(l, a, out);
    if (explained)
        return false;
    if (is_word(l, "prepare")) {
        step(l);
        if (is_word(l, "transaction")) {
            struct look ahead = *l;
            step(&ahead);
            if (!is_word(&ahead, "as") && !sql_token_is_symbol(ahead.s.text, ahead.t, '('))
                return false; /* two-phase commit */
        }
        return take_name(l, SQL_PREPARE, a, out);
    }
    if (is_word(l, "deallocate")) {
        step(l);
        if (is_word(l, "prepare")) {
            struct look ahead = *l;
            step(&ahead);
            if (is_name(&ahead))
                *l = ahead;
        }
        if (is_word(l, "all")) {
            out->verb = SQL_FORGET_ALL;
            return true;
        }
        return take_name(l, SQL_DEALLOCATE, a, out);
    }
    if (is_word(l, "discard")) {
        step(l);
        out->verb = SQL_FORGET_ALL;
        return is_word(l, "all");
    }
    return false;
}

size_t sql_prepare_find(struct str text, bool standard_conforming_strings, struct arena *a,
                        struct sql_prepare_command **out)
{
    struct sql_scanner s = { text, 0, standard_conforming_strings };
    struct sql_statement at;
    size_t n = 0, cap = 0, statement = 0;

    *out = NULL;
    for (; sql_split_next(&s, &at); statement++) {
        struct look l = { .s = { { text.ptr, at.end }, at.start, standard_conforming_strings } };
        struct sql_prepare_command found = { .statement = statement, .at = at, .name = STR("") };

        if (!find(&l, a, &found))
            continue;
        if (n == cap) {
            struct sql_prepare_command *old = *out;
            cap = cap == 0 ? 4 : cap * 2;
            *out = arena_new_array(a, struct sql_prepare_command, cap);
            if (n > 0)
                memcpy(*out, old, n * sizeof(*old));
        }
        (*out)[n++] = found;
    }
    return n;
}
