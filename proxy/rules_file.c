#include "proxy/rules_file.h"

#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/text.h"
#include "proxy/ini.h"

#define DEPTH_MAX 10      /* PostgreSQL's */
#define WORDS_MAX 1000000 /* of all files together: @file may be named often */

struct reader {
    struct rules_file *out;
    size_t n_words;
};

/* A list of words that grows in an arena. */
struct words {
    struct rules_word *at;
    size_t n;
    size_t cap;
};

void rules_file_bad(struct rules_file *f, const char *file, int number, const char *fmt, ...)
{
    struct rules_complaint *c = arena_new(f->arena, struct rules_complaint);
    va_list args;

    va_start(args, fmt);
    c->why = arena_vprintf(f->arena, fmt, args);
    va_end(args);
    c->file = file;
    c->number = number;
    if (f->last_bad != NULL)
        f->last_bad->next = c;
    else
        f->bad = c;
    f->last_bad = c;
    f->n_bad++;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == '\f' || c == '\v';
}

static void add_word(struct arena *a, struct words *list, struct rules_word word)
{
    if (list->n == list->cap) {
        size_t cap = list->cap > 0 ? 2 * list->cap : 4;
        struct rules_word *grown = arena_new_array(a, struct rules_word, cap);
        if (list->n > 0)
            memcpy(grown, list->at, list->n * sizeof(list->at[0]));
        list->at = grown;
        list->cap = cap;
    }
    list->at[list->n++] = word;
}

enum next_word {
    WORD,
    WORD_NONE,     /* the line is over */
    WORD_UNCLOSED, /* a quote is */
};

/* Takes the word that begins at s.ptr[at]; *end is behind it. Its bytes without quotes go to `out`
 * (NULL: they are counted only). Their number; a quote that is not closed: SIZE_MAX. */
static size_t read_word(struct str s, size_t at, char *out, size_t *end)
{
    bool in_quotes = false;
    size_t n = 0, i;

    for (i = at; i < s.len; i++) {
        char c = s.ptr[i];
        if (c == '"' && in_quotes && i + 1 < s.len && s.ptr[i + 1] == '"') {
            i++; /* doubled: one of it */
        } else if (c == '"') {
            in_quotes = !in_quotes;
            continue;
        } else if (!in_quotes && (is_blank(c) || c == ',' || c == '#')) {
            break;
        }
        if (out != NULL)
            out[n] = c;
        n++;
    }
    *end = i;
    return in_quotes ? SIZE_MAX : n;
}

/* The next word of *s. *comma: one follows, so the next word is of the same field. */
static enum next_word next_word(struct str *s, struct arena *a, struct rules_word *word,
                                bool *comma)
{
    size_t i = 0, end;

    *comma = false;
    while (i < s->len && (is_blank(s->ptr[i]) || s->ptr[i] == ','))
        i++;
    if (i == s->len || s->ptr[i] == '#') {
        s->len = 0;
        return WORD_NONE;
    }
    /* Counted first: a line may have a hundred thousand words. */
    size_t n = read_word(*s, i, NULL, &end);
    if (n == SIZE_MAX)
        return WORD_UNCLOSED;
    char *text = arena_alloc(a, n + 1); /* zeroed */
    word->quoted = s->ptr[i] == '"';
    read_word(*s, i, text, &end);
    i = end;
    *comma = i < s->len && s->ptr[i] == ',';
    *s = (struct str){ s->ptr + i, s->len - i };
    word->text = text;
    return WORD;
}

bool rules_words(struct str text, struct arena *a, struct rules_field *out)
{
    struct words list = { 0 };
    struct rules_word word;
    bool comma;
    enum next_word got;

    while ((got = next_word(&text, a, &word, &comma)) == WORD)
        add_word(a, &list, word);
    *out = (struct rules_field){ list.at, list.n };
    return got == WORD_NONE;
}

/* ---- other files ------------------------------------------------------------------------ */

static const char *resolve(struct arena *a, const char *name, const char *from)
{
    const char *slash = strrchr(from, '/');

    if (name[0] == '/' || slash == NULL)
        return name;
    return arena_printf(a, "%.*s/%s", (int)(slash - from), from, name);
}

static bool read_text(struct reader *r, struct str text, const char *file, int depth,
                      struct words *names);

/* names NULL: lines of rules; else what stands in it are words. False and *why. */
static bool read_other(struct reader *r, const char *path, int depth, struct words *names,
                       const char **why)
{
    struct arena scratch;
    struct str text;
    struct err e = { 0 };
    bool ok = false;

    if (depth >= DEPTH_MAX) {
        *why = arena_printf(r->out->arena, "\"%s\" is included too deep", path);
        return false;
    }
    arena_init(&scratch);
    if (!ini_slurp(path, &scratch, &text, &e))
        *why = arena_strdup(r->out->arena, e.message);
    else if (!read_text(r, text, path, depth, names))
        *why = "a quote is not closed, or there are too many words";
    else
        ok = true;
    arena_free(&scratch);
    err_clear(&e);
    return ok;
}

/* ---- lines ------------------------------------------------------------------------------ */

/* Takes a word into a field; `@file` is replaced by what stands there. False and *why. */
static bool take_word(struct reader *r, struct rules_word word, const char *file, int depth,
                      struct words *list, const char **why)
{
    if (++r->n_words > WORDS_MAX) {
        *why = "there are too many words";
        return false;
    }
    if (word.quoted || word.text[0] != '@' || word.text[1] == '\0') {
        add_word(r->out->arena, list, word);
        return true;
    }
    return read_other(r, resolve(r->out->arena, word.text + 1, file), depth + 1, list, why);
}

/* The fields of a line. False and *why when it is bad. */
static bool split(struct reader *r, struct str line, const char *file, int depth,
                  struct rules_line *out, const char **why)
{
    struct arena *a = r->out->arena;
    struct rules_field *fields = NULL;
    size_t cap = 0;
    struct rules_word word;
    bool comma;
    enum next_word got = next_word(&line, a, &word, &comma);

    while (got == WORD) {
        struct words list = { 0 };
        for (;;) {
            bool more = comma;
            if (!take_word(r, word, file, depth, &list, why))
                return false;
            if (!more)
                break;
            got = next_word(&line, a, &word, &comma);
            if (got != WORD)
                break;
        }
        if (out->n == cap) {
            cap = cap > 0 ? 2 * cap : 8;
            struct rules_field *grown = arena_new_array(a, struct rules_field, cap);
            if (out->n > 0)
                memcpy(grown, fields, out->n * sizeof(fields[0]));
            fields = grown;
        }
        fields[out->n++] = (struct rules_field){ list.at, list.n };
        if (got == WORD)
            got = next_word(&line, a, &word, &comma);
    }
    out->fields = fields;
    if (got == WORD_UNCLOSED)
        *why = "a quote is not closed";
    return got == WORD_NONE;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Every *.conf of a directory, by name. */
static bool include_directory(struct reader *r, const char *path, int depth, const char **why)
{
    DIR *dir = opendir(path);
    struct dirent *entry;
    const char *names[1024];
    size_t n = 0;
    bool ok = true;

    if (dir == NULL) {
        *why = arena_printf(r->out->arena, "can't read the directory \"%s\"", path);
        return false;
    }
    while ((entry = readdir(dir)) != NULL && n < sizeof(names) / sizeof(names[0])) {
        size_t len = strlen(entry->d_name);
        if (entry->d_name[0] != '.' && len > 5 && strcmp(entry->d_name + len - 5, ".conf") == 0)
            names[n++] = arena_printf(r->out->arena, "%s/%s", path, entry->d_name);
    }
    closedir(dir);
    qsort(names, n, sizeof(names[0]), by_name);
    for (size_t i = 0; i < n; i++)
        ok = read_other(r, names[i], depth + 1, NULL, why) && ok;
    return ok;
}

/* True: the line was an include; *why is set when it failed. */
static bool include(struct reader *r, const struct rules_line *line, int depth, const char **why)
{
    const struct rules_field *f = line->fields;

    if (line->n == 0 || f[0].n != 1 || f[0].words[0].quoted)
        return false;
    const char *verb = f[0].words[0].text;
    bool one = strcmp(verb, "include") == 0;
    bool if_exists = strcmp(verb, "include_if_exists") == 0;
    bool directory = strcmp(verb, "include_dir") == 0;
    if (!one && !if_exists && !directory)
        return false;
    if (line->n != 2 || f[1].n != 1) {
        *why = arena_printf(r->out->arena, "%s takes one path", verb);
        return true;
    }
    const char *path = resolve(r->out->arena, f[1].words[0].text, line->file);
    if (directory)
        include_directory(r, path, depth, why);
    else if (one || access(path, F_OK) == 0)
        read_other(r, path, depth + 1, NULL, why);
    return true;
}

static void take_line(struct reader *r, struct str line, const char *file, int number, int depth)
{
    struct rules_file *out = r->out;
    struct rules_line l = { .file = file, .number = number };
    const char *why = NULL;

    if (!split(r, line, file, depth, &l, &why)) {
        rules_file_bad(out, file, number, "%s", why);
        return;
    }
    if (l.n == 0)
        return;
    if (include(r, &l, depth, &why)) {
        if (why != NULL)
            rules_file_bad(out, file, number, "%s", why);
        return;
    }
    struct rules_line *kept = arena_new(out->arena, struct rules_line);
    *kept = l;
    if (out->last != NULL)
        out->last->next = kept;
    else
        out->first = kept;
    out->last = kept;
}

static bool read_text(struct reader *r, struct str text, const char *file, int depth,
                      struct words *names)
{
    struct text logical;
    const char *why;
    int number = 0, first = 1;
    bool ok = true;

    file = arena_strdup(r->out->arena, file);
    text_init(&logical);
    while (text.len > 0 && ok) {
        const char *feed = memchr(text.ptr, '\n', text.len);
        size_t len = feed != NULL ? (size_t)(feed - text.ptr) : text.len;
        size_t next = len + (feed != NULL);
        number++;
        while (len > 0 && text.ptr[len - 1] == '\r')
            len--;
        bool goes_on = len > 0 && text.ptr[len - 1] == '\\';
        text_put_bytes(&logical, text.ptr, goes_on ? len - 1 : len);
        text = (struct str){ text.ptr + next, text.len - next };
        if (goes_on && text.len > 0)
            continue;
        struct str line = text_str(&logical);
        /* A NUL would end a name early. */
        if (line.len > 0 && memchr(line.ptr, '\0', line.len) != NULL) {
            if (names == NULL)
                rules_file_bad(r->out, file, first, "the line has a NUL byte");
            else
                ok = false;
        } else if (names == NULL) {
            take_line(r, line, file, first, depth);
        } else {
            struct rules_word word;
            bool comma;
            enum next_word got = WORD_NONE;
            while (ok && (got = next_word(&line, r->out->arena, &word, &comma)) == WORD)
                ok = take_word(r, word, file, depth, names, &why);
            ok = ok && got == WORD_NONE;
        }
        text_clear(&logical);
        first = number + 1;
    }
    text_free(&logical);
    return ok;
}

void rules_file_parse(struct rules_file *f, struct arena *a, struct str text, const char *name)
{
    struct reader r = { .out = f };

    *f = (struct rules_file){ .arena = a };
    read_text(&r, text, name, 0, NULL);
}

bool rules_file_load(struct rules_file *f, struct arena *a, const char *path, struct err *e)
{
    struct arena scratch;
    struct str text;
    bool ok;

    arena_init(&scratch);
    ok = ini_slurp(path, &scratch, &text, e);
    if (ok)
        rules_file_parse(f, a, text, path);
    arena_free(&scratch);
    return ok;
}
