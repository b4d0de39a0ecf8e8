#include "proxy/stream_sql.h"

#include <stdlib.h>
#include <strings.h>

/* PostgreSQL's keywords that can't name a relation or column without quotes (manual: appendix C,
 * reserved, with and without "can be function or type"; 15 to 18 agree). */
static const char *const reserved_words[] = {
    "all",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "asymmetric",
    "authorization",
    "binary",
    "both",
    "case",
    "cast",
    "check",
    "collate",
    "collation",
    "column",
    "concurrently",
    "constraint",
    "create",
    "cross",
    "current_catalog",
    "current_date",
    "current_role",
    "current_schema",
    "current_time",
    "current_timestamp",
    "current_user",
    "default",
    "deferrable",
    "desc",
    "distinct",
    "do",
    "else",
    "end",
    "except",
    "false",
    "fetch",
    "for",
    "foreign",
    "freeze",
    "from",
    "full",
    "grant",
    "group",
    "having",
    "ilike",
    "in",
    "initially",
    "inner",
    "intersect",
    "into",
    "is",
    "isnull",
    "join",
    "lateral",
    "leading",
    "left",
    "like",
    "limit",
    "localtime",
    "localtimestamp",
    "natural",
    "not",
    "notnull",
    "null",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "outer",
    "overlaps",
    "placing",
    "primary",
    "references",
    "returning",
    "right",
    "select",
    "session_user",
    "similar",
    "some",
    "symmetric",
    "system_user",
    "table",
    "tablesample",
    "then",
    "to",
    "trailing",
    "true",
    "union",
    "unique",
    "user",
    "using",
    "variadic",
    "verbose",
    "when",
    "where",
    "window",
    "with",
};

enum {
    LIST_MAX = 1664, /* PostgreSQL's limit on columns of a result; ample for options and names */
};

/* A recursive descent over tokens with one token of lookahead. After the first error every step
 * does nothing, so that the grammar below reads straight on. */
struct parser {
    struct sql_scanner scan; /* its text ends where the statement does */
    struct str text;         /* the client's, whole: positions */
    struct sql_token token;
    struct arena *arena;
    struct err *err;
    bool failed;
};

static struct sql_token peek_next(const struct parser *p)
{
    struct sql_scanner copy = p->scan;

    return sql_scan_next(&copy);
}

static void advance(struct parser *p)
{
    p->token = sql_scan_next(&p->scan);
}

static void fail_at(struct parser *p, struct sql_token t, const char *sqlstate, const char *what)
{
    if (p->failed)
        return;
    p->failed = true;
    if (t.kind == SQL_END) { /* of the statement: at its semicolon, if it has one */
        struct sql_scanner rest = { p->text, t.start, p->scan.standard_conforming_strings };

        t = sql_scan_next(&rest);
    }
    if (t.kind == SQL_END)
        err_set(p->err, ERR_REFUSAL, sqlstate, "%s at end of input", what);
    else
        err_set(p->err, ERR_REFUSAL, sqlstate, "%s at or near \"" STR_FMT "\"", what,
                (int)(t.end - t.start), p->text.ptr + t.start);
    p->err->position = sql_char_position(p->text, t.start);
}

static const char *unterminated(const struct parser *p)
{
    char c = p->text.ptr[p->token.start];

    return c == '/'   ? "unterminated /* comment"
           : c == '"' ? "unterminated quoted identifier"
           : c == '$' ? "unterminated dollar-quoted string"
                      : "unterminated quoted string";
}

static void syntax_error(struct parser *p)
{
    fail_at(p, p->token, "42601",
            p->token.kind == SQL_UNTERMINATED ? unterminated(p) : "syntax error");
}

static bool is(const struct parser *p, const char *word)
{
    return !p->failed && sql_token_is(p->text, p->token, word);
}

static bool is_symbol(const struct parser *p, char symbol)
{
    return !p->failed && sql_token_is_symbol(p->text, p->token, symbol);
}

static bool take(struct parser *p, const char *word)
{
    if (!is(p, word))
        return false;
    advance(p);
    return true;
}

static bool take_symbol(struct parser *p, char symbol)
{
    if (!is_symbol(p, symbol))
        return false;
    advance(p);
    return true;
}

static void expect(struct parser *p, const char *word)
{
    if (!take(p, word))
        syntax_error(p);
}

static void expect_symbol(struct parser *p, char symbol)
{
    if (!take_symbol(p, symbol))
        syntax_error(p);
}

static void expect_end(struct parser *p)
{
    if (!p->failed && p->token.kind != SQL_END)
        syntax_error(p);
}

static int compare_words(const void *a, const void *b)
{
    return strcmp(a, *(const char *const *)b);
}

static bool is_reserved(const char *word)
{
    return bsearch(word, reserved_words, sizeof(reserved_words) / sizeof(reserved_words[0]),
                   sizeof(reserved_words[0]), compare_words) != NULL;
}

/* The token's value, or an error. */
static const char *take_value(struct parser *p)
{
    const char *value = sql_token_value(p->text, p->token, p->arena);

    if (value == NULL) {
        fail_at(p, p->token, "22025", "invalid escape sequence");
        return "";
    }
    advance(p);
    return value;
}

/* any_keyword: what may follow a dot or "SET (" is any word; elsewhere reserved words need quotes.
 */
static const char *take_identifier(struct parser *p, bool any_keyword)
{
    const char *name;
    struct sql_token at = p->token;

    if (p->failed)
        return "";
    if (at.kind != SQL_WORD && at.kind != SQL_QUOTED_IDENT && at.kind != SQL_UNICODE_IDENT) {
        syntax_error(p);
        return "";
    }
    if (at.kind == SQL_WORD && !any_keyword &&
        is_reserved(sql_token_value(p->text, at, p->arena))) {
        syntax_error(p);
        return "";
    }
    name = take_value(p);
    if (*name == '\0')
        fail_at(p, at, "42601", "zero-length delimited identifier");
    return name;
}

static struct stream_name take_name(struct parser *p)
{
    struct stream_name n = { .name = take_identifier(p, false) };

    if (take_symbol(p, '.')) {
        n.schema = n.name;
        n.name = take_identifier(p, true);
    }
    return n;
}

/* Counts list items before there is a place for them: the list ends within the statement, so its
 * commas bound it. */
static int count_items(const struct parser *p)
{
    struct sql_scanner s = p->scan;
    int n = 1;

    for (;;) {
        struct sql_token t = sql_scan_next(&s);

        if (t.kind == SQL_END || t.kind == SQL_UNTERMINATED || n > LIST_MAX)
            return n;
        if (sql_token_is_symbol(p->text, t, ','))
            n++;
    }
}

static bool list_has_room(struct parser *p, int n)
{
    if (p->failed)
        return false;
    if (n < LIST_MAX)
        return true;
    p->failed = true;
    err_set(p->err, ERR_REFUSAL, "54011", "a list can have at most %d entries", (int)LIST_MAX);
    p->err->position = sql_char_position(p->text, p->token.start);
    return false;
}

static void take_columns(struct parser *p, struct stream_statement *st)
{
    st->columns = arena_new_array(p->arena, const char *, (size_t)count_items(p) + 1);
    do {
        if (!list_has_room(p, st->n_columns))
            return;
        st->columns[st->n_columns++] = take_identifier(p, false);
    } while (take_symbol(p, ','));
    expect_symbol(p, ')');
}

static bool is_sign(const struct parser *p)
{
    return is_symbol(p, '-') || is_symbol(p, '+');
}

/* Words keep their letters' case: what is an enumeration's value is the SQL side's to say. */
static const char *take_option_value(struct parser *p)
{
    const char *sign = "";

    if (is_sign(p)) {
        sign = is_symbol(p, '-') ? "-" : "";
        advance(p);
        if (p->token.kind != SQL_NUMBER)
            syntax_error(p);
    }
    if (p->failed)
        return "";
    switch (p->token.kind) {
    case SQL_NUMBER:
        return arena_printf(p->arena, "%s%s", sign, take_value(p));
    case SQL_WORD: {
        const char *word =
            arena_strndup(p->arena, p->text.ptr + p->token.start, p->token.end - p->token.start);

        advance(p);
        return word;
    }
    case SQL_QUOTED_IDENT:
    case SQL_UNICODE_IDENT:
    case SQL_STRING:
    case SQL_ESCAPE_STRING:
    case SQL_UNICODE_STRING:
    case SQL_DOLLAR_STRING:
        return take_value(p);
    case SQL_BIT_STRING:
    case SQL_PARAM:
    case SQL_SYMBOL:
    case SQL_UNTERMINATED:
    case SQL_END:
        break;
    }
    syntax_error(p);
    return "";
}

static void refuse_repeated(struct parser *p, const struct stream_statement *st,
                            struct sql_token at, const char *name)
{
    for (int i = 0; i < st->n_options && !p->failed; i++) {
        if (strcasecmp(st->options[i].name, name) != 0)
            continue;
        p->failed = true;
        err_set(p->err, ERR_REFUSAL, "42601", "parameter \"%s\" specified more than once", name);
        p->err->position = sql_char_position(p->text, at.start);
    }
}

/* Behind the opening parenthesis. */
static void take_options(struct parser *p, struct stream_statement *st, bool values)
{
    st->options = arena_new_array(p->arena, struct stream_option, (size_t)count_items(p) + 1);
    do {
        struct sql_token at = p->token;
        struct stream_option o = { .value = "true" };

        if (!list_has_room(p, st->n_options))
            return;
        o.name = take_identifier(p, true);
        if (values && take_symbol(p, '='))
            o.value = take_option_value(p);
        refuse_repeated(p, st, at, o.name);
        st->options[st->n_options++] = o;
    } while (take_symbol(p, ','));
    expect_symbol(p, ')');
}

/* The rest of the statement is the query, but for a final WITH [NO] DATA (`data` not NULL), which
 * no query can end with: WITH is reserved. */
static void take_query(struct parser *p, struct stream_statement *st, bool *data)
{
    struct sql_token last[3] = { 0 }; /* outside parentheses; the last is last[2] */
    size_t end[4] = { 0 };            /* of the tokens before them: end[i] precedes last[i] */
    size_t start = p->token.start;
    size_t depth = 0;
    size_t with = 3; /* index of the WITH that ends the query */

    for (; p->token.kind != SQL_END; advance(p)) {
        if (p->token.kind == SQL_UNTERMINATED) {
            syntax_error(p);
            return;
        }
        if (is_symbol(p, '('))
            depth++;
        else if (is_symbol(p, ')') && depth > 0)
            depth--;
        last[0] = last[1];
        last[1] = last[2];
        last[2] = p->token;
        end[0] = end[1];
        end[1] = end[2];
        end[2] = end[3];
        end[3] = p->token.end;
    }
    if (data != NULL && depth == 0 && sql_token_is(p->text, last[2], "data")) {
        if (sql_token_is(p->text, last[1], "with"))
            with = 1;
        else if (sql_token_is(p->text, last[1], "no") && sql_token_is(p->text, last[0], "with"))
            with = 0;
        if (with < 3)
            *data = with == 1;
    }
    if (end[with] <= start) {
        if (with < 3)
            p->token = last[with];
        syntax_error(p);
        return;
    }
    st->query_offset = start;
    st->query = (struct str){ p->text.ptr + start, end[with] - start };
}

static void take_if(struct parser *p, bool not, bool *flag)
{
    struct sql_token next = peek_next(p);

    if (!is(p, "if") || !sql_token_is(p->text, next, not ? "not" : "exists"))
        return;
    advance(p);
    advance(p);
    if (not )
        expect(p, "exists");
    *flag = true;
}

static struct stream_name *one_name(struct parser *p, struct stream_statement *st)
{
    st->names = arena_new(p->arena, struct stream_name);
    st->n_names = 1;
    *st->names = take_name(p);
    return st->names;
}

/* Behind CREATE [OR REPLACE] STREAM TABLE. */
static void parse_create(struct parser *p, struct stream_statement *st)
{
    st->with_data = true;
    take_if(p, true, &st->if_not_exists);
    one_name(p, st);
    if (take_symbol(p, '('))
        take_columns(p, st);
    if (take(p, "with")) {
        expect_symbol(p, '(');
        take_options(p, st, true);
    }
    expect(p, "as");
    if (!p->failed)
        take_query(p, st, &st->with_data);
}

static void take_role(struct parser *p, struct stream_statement *st)
{
    if (is(p, "current_user") || is(p, "current_role") || is(p, "session_user")) {
        st->value_is_keyword = true;
        st->value = take_value(p);
    } else {
        st->value = take_identifier(p, false);
    }
}

static void parse_alter(struct parser *p, struct stream_statement *st)
{
    take_if(p, false, &st->if_exists);
    one_name(p, st);
    if (take(p, "set")) {
        if (take(p, "schema")) {
            st->alter = STREAM_SET_SCHEMA;
            st->value = take_identifier(p, false);
        } else {
            st->alter = STREAM_SET;
            expect_symbol(p, '(');
            take_options(p, st, true);
        }
    } else if (take(p, "reset")) {
        st->alter = STREAM_RESET;
        expect_symbol(p, '(');
        take_options(p, st, false);
    } else if (take(p, "suspend")) {
        st->alter = STREAM_SUSPEND;
    } else if (take(p, "resume")) {
        st->alter = STREAM_RESUME;
    } else if (take(p, "as")) {
        st->alter = STREAM_QUERY;
        take_query(p, st, NULL);
    } else if (take(p, "rename")) {
        st->alter = STREAM_RENAME;
        expect(p, "to");
        st->value = take_identifier(p, false);
    } else if (take(p, "owner")) {
        st->alter = STREAM_OWNER;
        expect(p, "to");
        take_role(p, st);
    } else {
        syntax_error(p);
    }
}

static void parse_drop(struct parser *p, struct stream_statement *st)
{
    take_if(p, false, &st->if_exists);
    st->names = arena_new_array(p->arena, struct stream_name, (size_t)count_items(p) + 1);
    do {
        if (!list_has_room(p, st->n_names))
            return;
        st->names[st->n_names++] = take_name(p);
    } while (take_symbol(p, ','));
    st->cascade = take(p, "cascade");
    if (!st->cascade)
        take(p, "restrict");
}

/* Takes what stream_sql_begins looks for; false when it is not there. */
static bool take_beginning(struct parser *p, struct stream_statement *st)
{
    bool explain = take(p, "explain");

    if (take(p, "create")) {
        st->verb = explain ? STREAM_EXPLAIN_CREATE : STREAM_CREATE;
        if (take(p, "or")) {
            if (!take(p, "replace"))
                return false;
            st->or_replace = true;
        }
    } else if (explain) {
        st->verb = STREAM_EXPLAIN;
    } else if (take(p, "alter")) {
        st->verb = STREAM_ALTER;
    } else if (take(p, "drop")) {
        st->verb = STREAM_DROP;
    } else if (take(p, "refresh")) {
        st->verb = STREAM_REFRESH;
    } else if (take(p, "check")) {
        st->verb = STREAM_CHECK;
    } else {
        return false;
    }
    return take(p, "stream") && take(p, "table");
}

bool stream_sql_begins(struct sql_scanner s)
{
    struct stream_statement ignored;
    struct parser p = { .scan = s, .text = s.text };

    advance(&p);
    return take_beginning(&p, &ignored);
}

bool stream_sql_parse(struct str text, struct sql_statement at, bool standard_conforming_strings,
                      struct arena *a, struct stream_statement *out, struct err *e)
{
    struct parser p = {
        .scan = { { text.ptr, at.end }, at.start, standard_conforming_strings },
        .text = text,
        .arena = a,
        .err = e,
    };

    *out = (struct stream_statement){ 0 };
    advance(&p);
    if (!take_beginning(&p, out))
        syntax_error(&p);
    switch (out->verb) {
    case STREAM_CREATE:
    case STREAM_EXPLAIN_CREATE:
        parse_create(&p, out);
        break;
    case STREAM_ALTER:
        parse_alter(&p, out);
        break;
    case STREAM_DROP:
        parse_drop(&p, out);
        break;
    case STREAM_REFRESH:
    case STREAM_EXPLAIN:
    case STREAM_CHECK:
        one_name(&p, out);
        break;
    }
    expect_end(&p);
    return !p.failed;
}

/* ---- the SQL ------------------------------------------------------------------------------- */

static void put_string(struct text *json, const char *key, const char *value)
{
    text_printf(json, ",\"%s\":", key);
    if (value != NULL)
        text_put_json(json, str_from(value));
    else
        text_put(json, "null");
}

static void put_bool(struct text *json, const char *key, bool value)
{
    text_printf(json, ",\"%s\":%s", key, value ? "true" : "false");
}

static void put_name(struct text *json, const struct stream_name *n)
{
    put_string(json, "schema", n->schema);
    put_string(json, "name", n->name);
}

static void put_options(struct text *json, const struct stream_statement *st)
{
    text_put(json, ",\"options\":{");
    for (int i = 0; i < st->n_options; i++) {
        if (i > 0)
            text_put_char(json, ',');
        text_put_json(json, str_from(st->options[i].name));
        text_put_char(json, ':');
        if (st->verb == STREAM_ALTER && st->alter == STREAM_RESET)
            text_put(json, "null");
        else
            text_put_json(json, str_from(st->options[i].value));
    }
    text_put_char(json, '}');
}

static void put_query(struct text *json, const struct stream_statement *st)
{
    text_put(json, ",\"query\":");
    text_put_json(json, st->query);
}

static void put_create(struct text *json, const struct stream_statement *st)
{
    text_put(json, "{\"op\":\"create\"");
    put_name(json, st->names);
    if (st->columns == NULL) {
        put_string(json, "columns", NULL);
    } else {
        text_put(json, ",\"columns\":");
        for (int i = 0; i < st->n_columns; i++) {
            text_put_char(json, i == 0 ? '[' : ',');
            text_put_json(json, str_from(st->columns[i]));
        }
        text_put_char(json, ']');
    }
    put_query(json, st);
    put_options(json, st);
    put_bool(json, "or_replace", st->or_replace);
    put_bool(json, "if_not_exists", st->if_not_exists);
    put_bool(json, "with_data", st->with_data);
}

static void put_alter(struct text *json, const struct stream_statement *st)
{
    static const char *const actions[] = {
        [STREAM_SET] = "set",         [STREAM_RESET] = "reset",
        [STREAM_SUSPEND] = "suspend", [STREAM_RESUME] = "resume",
        [STREAM_QUERY] = "query",     [STREAM_RENAME] = "rename",
        [STREAM_OWNER] = "owner",     [STREAM_SET_SCHEMA] = "set_schema",
    };

    text_put(json, "{\"op\":\"alter\"");
    put_name(json, st->names);
    put_bool(json, "if_exists", st->if_exists);
    put_string(json, "action", actions[st->alter]);
    put_options(json, st);
    if (st->alter == STREAM_QUERY) {
        text_put(json, ",\"value\":");
        text_put_json(json, st->query);
    } else if (st->value != NULL && !st->value_is_keyword) {
        put_string(json, "value", st->value);
    }
}

static void put_drop(struct text *json, const struct stream_statement *st)
{
    text_put(json, "{\"op\":\"drop\",\"names\":[");
    for (int i = 0; i < st->n_names; i++) {
        text_put(json, i == 0 ? "{\"schema\":" : ",{\"schema\":");
        if (st->names[i].schema != NULL)
            text_put_json(json, str_from(st->names[i].schema));
        else
            text_put(json, "null");
        put_string(json, "name", st->names[i].name);
        text_put_char(json, '}');
    }
    text_put_char(json, ']');
    put_bool(json, "if_exists", st->if_exists);
    put_bool(json, "cascade", st->cascade);
}

static void put_call(struct text *out, const struct text *json)
{
    text_put(out, "CALL pgtrickle._ddl(");
    text_put_literal(out, text_str(json));
    text_put(out, "::pg_catalog.jsonb");
}

void stream_sql_put_sql(const struct stream_statement *st, struct text *out)
{
    struct text json;

    text_init(&json);
    switch (st->verb) {
    case STREAM_CREATE:
        put_create(&json, st);
        break;
    case STREAM_ALTER:
        put_alter(&json, st);
        break;
    case STREAM_DROP:
        put_drop(&json, st);
        break;
    case STREAM_REFRESH:
        text_put(&json, "{\"op\":\"refresh\"");
        put_name(&json, st->names);
        break;
    case STREAM_EXPLAIN:
    case STREAM_CHECK:
        text_printf(out, "SELECT * FROM pgtrickle.%s(",
                    st->verb == STREAM_CHECK ? "_check_named" : "_explain");
        if (st->names->schema != NULL)
            text_put_literal(out, str_from(st->names->schema));
        else
            text_put(out, "NULL");
        text_put(out, ", ");
        text_put_literal(out, str_from(st->names->name));
        text_put_char(out, ')');
        return;
    case STREAM_EXPLAIN_CREATE:
        text_put(out, "SELECT * FROM pgtrickle._explain_result()");
        return;
    }
    text_put_char(&json, '}');
    put_call(out, &json);
    if (st->value_is_keyword)
        text_printf(out,
                    " OPERATOR(pg_catalog.||) pg_catalog.jsonb_build_object('value', "
                    "%s::pg_catalog.text)",
                    st->value);
    text_put_char(out, ')');
    text_free(&json);
}

const char *stream_sql_tag(enum stream_verb verb)
{
    static const char *const tags[] = {
        [STREAM_CREATE] = "CREATE STREAM TABLE",
        [STREAM_ALTER] = "ALTER STREAM TABLE",
        [STREAM_DROP] = "DROP STREAM TABLE",
        [STREAM_REFRESH] = "REFRESH STREAM TABLE",
        [STREAM_EXPLAIN] = "EXPLAIN",
        [STREAM_EXPLAIN_CREATE] = "EXPLAIN",
        [STREAM_CHECK] = "CHECK STREAM TABLE",
    };

    return tags[verb];
}

const char *stream_sql_option(const struct stream_statement *st, const char *name)
{
    for (int i = 0; i < st->n_options; i++) {
        if (strcasecmp(st->options[i].name, name) == 0)
            return st->options[i].value;
    }
    return NULL;
}
