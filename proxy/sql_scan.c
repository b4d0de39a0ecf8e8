#include "proxy/sql_scan.h"

#include <limits.h>
#include <stdint.h>

enum { IDENTIFIER_MAX = 63 }; /* NAMEDATALEN - 1 */

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r'); /* \v since 16: before, the server refuses it */
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_ident_start(char c)
{
    return (unsigned char)((c | 0x20) - 'a') < 26 || c == '_' || (unsigned char)c >= 0x80;
}

static bool is_ident(char c)
{
    return is_ident_start(c) || is_digit(c);
}

static bool is_newline(char c)
{
    return c == '\n' || c == '\r';
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
}

/* The byte at i, or NUL at the end: no rule below matches a NUL, and a query string has none. */
static char at(const struct sql_scanner *s, size_t i)
{
    return i < s->text.len ? s->text.ptr[i] : '\0';
}

/* Behind the nested comment that opens at i; false when it is not closed. */
static bool skip_block_comment(const struct sql_scanner *s, size_t *i)
{
    size_t depth = 0;
    size_t p = *i;

    do {
        if (p >= s->text.len)
            return false;
        if (at(s, p) == '/' && at(s, p + 1) == '*') {
            depth++;
            p += 2;
        } else if (at(s, p) == '*' && at(s, p + 1) == '/') {
            depth--;
            p += 2;
        } else {
            p++;
        }
    } while (depth > 0);
    *i = p;
    return true;
}

static size_t skip_line_comment(const struct sql_scanner *s, size_t i)
{
    while (i < s->text.len && !is_newline(s->text.ptr[i]))
        i++;
    return i;
}

/* Skips white space and comments; false when a comment is not closed (pos is at its start). */
static bool skip_blank(struct sql_scanner *s)
{
    for (;;) {
        while (s->pos < s->text.len && is_space(s->text.ptr[s->pos]))
            s->pos++;
        if (at(s, s->pos) == '-' && at(s, s->pos + 1) == '-')
            s->pos = skip_line_comment(s, s->pos);
        else if (at(s, s->pos) == '/' && at(s, s->pos + 1) == '*') {
            if (!skip_block_comment(s, &s->pos))
                return false;
        } else
            return true;
    }
}

/* A string goes on behind its closing quote when white space with a line break and another quote
 * follow; -- comments count as white space there, block comments don't. Returns the position behind
 * that quote, or 0. */
static size_t string_continues(const struct sql_scanner *s, size_t i)
{
    bool line_break = false;

    for (;;) {
        char c = at(s, i);

        if (is_space(c)) {
            line_break = line_break || is_newline(c);
            i++;
        } else if (c == '-' && at(s, i + 1) == '-') {
            i = skip_line_comment(s, i);
        } else {
            return line_break && c == '\'' ? i + 1 : 0;
        }
    }
}

/* i is behind the opening quote. False when the string is not closed. */
static bool skip_string(const struct sql_scanner *s, enum sql_token_kind kind, size_t *i)
{
    size_t p = *i;

    while (p < s->text.len) {
        char c = s->text.ptr[p];
        bool escapes = c == '\\' && kind == SQL_ESCAPE_STRING;
        bool doubled = c == '\'' && at(s, p + 1) == '\'' && kind != SQL_BIT_STRING;

        if (escapes || doubled) {
            p += 2;
        } else if (c != '\'') {
            p++;
        } else {
            size_t more = string_continues(s, p + 1);

            if (more == 0) {
                *i = p + 1;
                return true;
            }
            p = more;
        }
    }
    return false;
}

static bool skip_quoted_ident(const struct sql_scanner *s, size_t *i)
{
    for (size_t p = *i; p < s->text.len; p++) {
        if (s->text.ptr[p] != '"')
            continue;
        if (at(s, p + 1) != '"') {
            *i = p + 1;
            return true;
        }
        p++;
    }
    return false;
}

/* The length of the dollar quote's delimiter at i, both dollars included; 0 when there is none. */
static size_t dollar_delimiter(const struct sql_scanner *s, size_t i)
{
    size_t p = i + 1;

    if (is_ident_start(at(s, p))) {
        while (is_ident(at(s, p)))
            p++;
    }
    return at(s, p) == '$' ? p + 1 - i : 0;
}

static bool skip_dollar_string(const struct sql_scanner *s, size_t delimiter_len, size_t *i)
{
    const char *delimiter = s->text.ptr + *i;
    const char *body = delimiter + delimiter_len;
    const char *close = memmem(body, s->text.len - *i - delimiter_len, delimiter, delimiter_len);

    if (close == NULL)
        return false;
    *i = (size_t)(close - s->text.ptr) + delimiter_len;
    return true;
}

/* Takes trailing letters along: 0x1f and 1_000 are numbers since 16, 1abc is an error since 15. */
static size_t skip_number(const struct sql_scanner *s, size_t i)
{
    bool hex = at(s, i) == '0' && lower(at(s, i + 1)) == 'x';
    bool dot = false;

    for (;; i++) {
        char c = at(s, i);

        if (c == '.' && !dot && !hex && at(s, i + 1) != '.') {
            dot = true;
        } else if (lower(c) == 'e' && !hex && (at(s, i + 1) == '+' || at(s, i + 1) == '-') &&
                   is_digit(at(s, i + 2))) {
            i++;
        } else if (!is_ident(c)) {
            return i;
        }
    }
}

static size_t skip_word(const struct sql_scanner *s, size_t i)
{
    while (is_ident(at(s, i)) || at(s, i) == '$')
        i++;
    return i;
}

/* A letter that opens a quoted thing together with what follows it: the kind, and how many bytes
 * stand before the content. */
static enum sql_token_kind prefixed_quote(const struct sql_scanner *s, size_t i, size_t *len)
{
    char c = lower(at(s, i));
    char next = at(s, i + 1);

    *len = 2;
    if (next == '\'') {
        if (c == 'e')
            return SQL_ESCAPE_STRING;
        if (c == 'b' || c == 'x')
            return SQL_BIT_STRING;
        if (c == 'n')
            return s->standard_conforming_strings ? SQL_STRING : SQL_ESCAPE_STRING;
    }
    *len = 3;
    if (c == 'u' && next == '&') {
        if (at(s, i + 2) == '\'')
            return SQL_UNICODE_STRING;
        if (at(s, i + 2) == '"')
            return SQL_UNICODE_IDENT;
    }
    return SQL_WORD;
}

static struct sql_token close_token(struct sql_scanner *s, enum sql_token_kind kind, size_t start,
                                    size_t pos, bool closed)
{
    s->pos = closed ? pos : s->text.len;
    return (struct sql_token){ closed ? kind : SQL_UNTERMINATED, start, s->pos };
}

struct sql_token sql_scan_next(struct sql_scanner *s)
{
    enum sql_token_kind kind;
    size_t start, pos, len;
    char c;

    if (!skip_blank(s))
        return close_token(s, SQL_END, s->pos, s->pos, false);
    start = pos = s->pos;
    if (start >= s->text.len)
        return (struct sql_token){ SQL_END, start, start };
    c = s->text.ptr[start];
    if (is_ident_start(c)) {
        kind = prefixed_quote(s, start, &len);
        if (kind == SQL_WORD)
            return close_token(s, SQL_WORD, start, skip_word(s, start), true);
        pos += len;
        if (kind == SQL_UNICODE_IDENT) {
            bool closed = skip_quoted_ident(s, &pos);

            return close_token(s, kind, start, pos, closed);
        }
        bool closed = skip_string(s, kind, &pos);

        return close_token(s, kind, start, pos, closed);
    }
    if (is_digit(c) || (c == '.' && is_digit(at(s, start + 1))))
        return close_token(s, SQL_NUMBER, start, skip_number(s, start), true);
    if (c == '\'') {
        bool closed;

        kind = s->standard_conforming_strings ? SQL_STRING : SQL_ESCAPE_STRING;
        pos++;
        closed = skip_string(s, kind, &pos);
        return close_token(s, kind, start, pos, closed);
    }
    if (c == '"') {
        bool closed;

        pos++;
        closed = skip_quoted_ident(s, &pos);
        return close_token(s, SQL_QUOTED_IDENT, start, pos, closed);
    }
    if (c == '$') {
        if (is_digit(at(s, start + 1))) {
            for (pos = start + 1; is_digit(at(s, pos)); pos++)
                ;
            return close_token(s, SQL_PARAM, start, pos, true);
        }
        len = dollar_delimiter(s, start);
        if (len > 0) {
            bool closed = skip_dollar_string(s, len, &pos);

            return close_token(s, SQL_DOLLAR_STRING, start, pos, closed);
        }
    }
    return close_token(s, SQL_SYMBOL, start, start + 1, true);
}

bool sql_token_is(struct str text, struct sql_token t, const char *word)
{
    size_t i = t.start;

    if (t.kind != SQL_WORD)
        return false;
    for (; i < t.end && *word != '\0'; i++, word++) {
        if (lower(text.ptr[i]) != *word)
            return false;
    }
    return i == t.end && *word == '\0';
}

bool sql_token_is_symbol(struct str text, struct sql_token t, char symbol)
{
    return t.kind == SQL_SYMBOL && text.ptr[t.start] == symbol;
}

static int hex_digit(char c)
{
    c = lower(c);
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return -1;
}

/* n hexadecimal digits, all of which must be there. */
static bool read_hex(const char **p, const char *end, int n, uint32_t *value)
{
    *value = 0;
    for (int i = 0; i < n; i++) {
        int digit = *p < end ? hex_digit(**p) : -1;

        if (digit < 0)
            return false;
        *value = *value << 4 | (uint32_t)digit;
        (*p)++;
    }
    return true;
}

static bool put_utf8(char **out, uint32_t c)
{
    char *o = *out;

    if (c == 0 || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
        return false;
    if (c < 0x80) {
        *o++ = (char)c;
    } else if (c < 0x800) {
        *o++ = (char)(0xc0 | c >> 6);
        *o++ = (char)(0x80 | (c & 0x3f));
    } else if (c < 0x10000) {
        *o++ = (char)(0xe0 | c >> 12);
        *o++ = (char)(0x80 | (c >> 6 & 0x3f));
        *o++ = (char)(0x80 | (c & 0x3f));
    } else {
        *o++ = (char)(0xf0 | c >> 18);
        *o++ = (char)(0x80 | (c >> 12 & 0x3f));
        *o++ = (char)(0x80 | (c >> 6 & 0x3f));
        *o++ = (char)(0x80 | (c & 0x3f));
    }
    *out = o;
    return true;
}

/* A code point that may be the first half of a surrogate pair; read_next reads the second escape,
 * which must follow at once. */
static bool put_code_point(char **out, uint32_t c, const char **p, const char *end,
                           bool (*read_next)(const char **p, const char *end, uint32_t *c))
{
    uint32_t low;

    if (c >= 0xd800 && c <= 0xdbff) {
        if (!read_next(p, end, &low) || low < 0xdc00 || low > 0xdfff)
            return false;
        c = 0x10000 + ((c & 0x3ff) << 10 | (low & 0x3ff));
    }
    return put_utf8(out, c);
}

/* \XXXX or \+XXXXXX, behind the backslash or (whole) with it. */
static bool read_unicode_digits(const char **p, const char *end, uint32_t *c)
{
    if (*p < end && **p == '+') {
        (*p)++;
        return read_hex(p, end, 6, c);
    }
    return read_hex(p, end, 4, c);
}

static bool read_unicode_escape(const char **p, const char *end, uint32_t *c)
{
    if (*p >= end || **p != '\\')
        return false;
    (*p)++;
    return read_unicode_digits(p, end, c);
}

/* \uXXXX or \UXXXXXXXX, with the backslash. */
static bool read_e_unicode_escape(const char **p, const char *end, uint32_t *c)
{
    int n;

    if (end - *p < 2 || (*p)[0] != '\\' || lower((*p)[1]) != 'u')
        return false;
    n = (*p)[1] == 'u' ? 4 : 8;
    *p += 2;
    return read_hex(p, end, n, c);
}

/* One escape of an E'' string; *p is at the backslash. */
static bool put_escape(char **out, const char **p, const char *end)
{
    char c = (*p)[1]; /* there is one: the scanner took it along */
    uint32_t value = 0;

    if (lower(c) == 'u')
        return read_e_unicode_escape(p, end, &value) &&
               put_code_point(out, value, p, end, read_e_unicode_escape);
    *p += 2;
    switch (c) {
    case 'b':
        c = '\b';
        break;
    case 'f':
        c = '\f';
        break;
    case 'n':
        c = '\n';
        break;
    case 'r':
        c = '\r';
        break;
    case 't':
        c = '\t';
        break;
    case '0':
    case '1':
    case '2':
    case '3':
    case '4':
    case '5':
    case '6':
    case '7':
        value = (uint32_t)(c - '0');
        for (int i = 0; i < 2 && *p < end && **p >= '0' && **p <= '7'; i++)
            value = value << 3 | (uint32_t)(*(*p)++ - '0');
        c = (char)value;
        break;
    case 'x':
        if (*p >= end || hex_digit(**p) < 0)
            break;
        for (int i = 0; i < 2 && *p < end && hex_digit(**p) >= 0; i++)
            value = value << 4 | (uint32_t)hex_digit(*(*p)++);
        c = (char)value;
        break;
    default:
        break;
    }
    *(*out)++ = c;
    return c != '\0';
}

/* The content of a quoted token: doubled quotes once, escapes resolved, continuations joined. */
static const char *unquote(struct str text, struct sql_token t, size_t prefix, struct arena *a)
{
    const char *p = text.ptr + t.start + prefix;
    const char *end = text.ptr + t.end - 1;
    char quote = *end;
    char *value = arena_alloc(a, (size_t)(end - p) + 1); /* no escape is shorter than its value */
    char *o = value;

    while (p < end) {
        if (*p == quote && p[1] == quote) {
            *o++ = quote;
            p += 2;
        } else if (*p == quote) {
            struct sql_scanner s = { .text = text };

            p = text.ptr + string_continues(&s, (size_t)(p + 1 - text.ptr));
        } else if (*p == '\\' && t.kind == SQL_ESCAPE_STRING) {
            if (!put_escape(&o, &p, end))
                return NULL;
        } else if (*p == '\\' && (t.kind == SQL_UNICODE_STRING || t.kind == SQL_UNICODE_IDENT)) {
            uint32_t c;

            p++;
            if (p < end && *p == '\\') {
                *o++ = *p++;
            } else if (!read_unicode_digits(&p, end, &c) ||
                       !put_code_point(&o, c, &p, end, read_unicode_escape)) {
                return NULL;
            }
        } else {
            *o++ = *p++;
        }
    }
    *o = '\0';
    return value;
}

static const char *cut_identifier(struct arena *a, const char *name)
{
    size_t len = strlen(name);
    size_t cut = IDENTIFIER_MAX;

    if (len <= IDENTIFIER_MAX)
        return name;
    while (cut > 0 && ((unsigned char)name[cut] & 0xc0) == 0x80)
        cut--;
    return arena_strndup(a, name, cut);
}

const char *sql_token_value(struct str text, struct sql_token t, struct arena *a)
{
    const char *name;
    const char *quote;
    char *word;

    switch (t.kind) {
    case SQL_WORD:
        word = arena_strndup(a, text.ptr + t.start, t.end - t.start);
        for (char *p = word; *p != '\0'; p++)
            *p = lower(*p);
        return cut_identifier(a, word);
    case SQL_QUOTED_IDENT:
    case SQL_UNICODE_IDENT:
        name = unquote(text, t, t.kind == SQL_QUOTED_IDENT ? 1 : 3, a);
        return name != NULL ? cut_identifier(a, name) : NULL;
    case SQL_STRING:
    case SQL_ESCAPE_STRING:
    case SQL_UNICODE_STRING:
        quote = memchr(text.ptr + t.start, '\'', t.end - t.start);
        return unquote(text, t, (size_t)(quote - text.ptr) + 1 - t.start, a);
    case SQL_DOLLAR_STRING: {
        struct sql_scanner s = { .text = text };
        size_t len = dollar_delimiter(&s, t.start);

        return arena_strndup(a, text.ptr + t.start + len, t.end - t.start - 2 * len);
    }
    case SQL_NUMBER:
    case SQL_PARAM:
    case SQL_SYMBOL:
    case SQL_BIT_STRING:
        return arena_strndup(a, text.ptr + t.start, t.end - t.start);
    case SQL_END:
    case SQL_UNTERMINATED:
        break;
    }
    return NULL;
}

/* What of a statement decides whether a semicolon ends it. psql counts the same way. */
struct split_state {
    int words;         /* outside parentheses, up to 5 */
    bool create;       /* the first is CREATE */
    bool creates_body; /* CREATE [OR REPLACE] {FUNCTION | PROCEDURE} */
    bool after_begin;  /* the last token was BEGIN */
    size_t paren_depth;
    size_t begin_depth; /* BEGIN ATOMIC and CASE that wait for their END */
};

static void split_on_word(struct split_state *st, struct str text, struct sql_token t)
{
    bool after_begin = st->after_begin;

    st->after_begin = false;
    if (st->words < 5)
        st->words++;
    if (st->words == 1)
        st->create = sql_token_is(text, t, "create");
    else if ((st->words == 2 || st->words == 4) && st->create)
        st->creates_body = st->creates_body || sql_token_is(text, t, "function") ||
                           sql_token_is(text, t, "procedure");
    if (!st->creates_body)
        return;
    if (st->begin_depth == 0) {
        st->after_begin = sql_token_is(text, t, "begin");
        if (after_begin && sql_token_is(text, t, "atomic"))
            st->begin_depth = 1;
    } else if (sql_token_is(text, t, "case")) {
        st->begin_depth++;
    } else if (sql_token_is(text, t, "end")) {
        st->begin_depth--;
    }
}

bool sql_split_next(struct sql_scanner *s, struct sql_statement *out)
{
    struct split_state st = { 0 };
    bool any = false;

    for (;;) {
        struct sql_token t = sql_scan_next(s);

        if (t.kind == SQL_END)
            return any;
        if (sql_token_is_symbol(s->text, t, ';') && st.paren_depth == 0 && st.begin_depth == 0) {
            if (any)
                return true;
            continue;
        }
        if (!any)
            out->start = t.start;
        out->end = t.end;
        any = true;
        if (sql_token_is_symbol(s->text, t, '('))
            st.paren_depth++;
        else if (sql_token_is_symbol(s->text, t, ')') && st.paren_depth > 0)
            st.paren_depth--;
        else if (t.kind == SQL_WORD && st.paren_depth == 0)
            split_on_word(&st, s->text, t);
        else
            st.after_begin = false;
    }
}

/* The length of the UTF-8 character at p; 0 when there is none. Loose (overlong forms pass): it
 * only tells UTF-8 from single-byte encodings. */
static size_t utf8_length(const char *p, size_t left)
{
    unsigned char c = (unsigned char)*p;
    size_t len = c < 0x80 ? 1 : c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 0;

    if (len > left)
        return 0;
    for (size_t i = 1; i < len; i++) {
        if (((unsigned char)p[i] & 0xc0) != 0x80)
            return 0;
    }
    return len;
}

int sql_char_position(struct str text, size_t byte_offset)
{
    size_t position = 1;
    size_t len;

    if (byte_offset > text.len)
        byte_offset = text.len;
    for (size_t i = 0; i < byte_offset; i += len) {
        len = utf8_length(text.ptr + i, text.len - i);
        if (len == 0) {
            position = byte_offset + 1;
            break;
        }
        position++;
    }
    return position < INT_MAX ? (int)position : INT_MAX;
}
