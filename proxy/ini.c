#include "proxy/ini.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/text.h"

#define INCLUDE_DEPTH_MAX 10
#define FILE_BYTES_MAX ((size_t)64 * 1024 * 1024)

struct reader {
    const struct ini_handler *handler;
    struct arena *arena; /* file contents and unquoted keys, until the read is over */
    bool may_include;
};

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\v';
}

static bool is_space(char c)
{
    return is_blank(c) || c == '\n';
}

static bool is_key_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '.' || c == '-' || c == '*' || (unsigned char)c >= 0x80;
}

static struct str skip_blanks(struct str s)
{
    while (s.len > 0 && is_blank(s.ptr[0])) {
        s.ptr++;
        s.len--;
    }
    return s;
}

static struct str cut(struct str s, size_t n)
{
    return (struct str){ s.ptr + n, s.len - n };
}

bool ini_slurp(const char *path, struct arena *a, struct str *text, struct err *e)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_set(e, ERR_CONFIG, "F0000", "cannot open \"%s\": %s", path, strerror(errno));

    struct stat st;
    if (fstat(fd, &st) == 0 && S_ISDIR(st.st_mode)) {
        close(fd);
        return err_set(e, ERR_CONFIG, "F0000", "\"%s\" is a directory", path);
    }
    struct text buffer;
    text_init(&buffer);
    char chunk[8192];
    bool ok = true;
    for (;;) {
        ssize_t n = read(fd, chunk, sizeof(chunk));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            ok = err_set(e, ERR_CONFIG, "F0000", "cannot read \"%s\": %s", path, strerror(errno));
        if (n <= 0)
            break;
        text_put_bytes(&buffer, chunk, (size_t)n);
        if (buffer.len > FILE_BYTES_MAX) {
            ok = err_set(e, ERR_CONFIG, "F0000", "\"%s\" is larger than %zu bytes", path,
                         FILE_BYTES_MAX);
            break;
        }
    }
    close(fd);
    if (ok)
        *text = arena_str(a, text_str(&buffer));
    text_free(&buffer);
    return ok;
}

/* The rest of a quoted word; *s is behind its opening quote and is moved behind the closing one. */
static bool unquote(struct str *s, char quote, struct arena *a, struct str *out)
{
    char *word = arena_alloc(a, s->len + 1);
    size_t len = 0;
    for (size_t i = 0; i < s->len; i++) {
        if (s->ptr[i] == quote) {
            if (i + 1 < s->len && s->ptr[i + 1] == quote) {
                i++;
            } else {
                *s = cut(*s, i + 1);
                *out = (struct str){ word, len };
                return true;
            }
        }
        word[len++] = s->ptr[i];
    }
    return false;
}

static bool read_file(struct reader *r, const char *path, int depth, struct err *e);

static bool read_include(struct reader *r, struct str path, int depth, struct err *e)
{
    path = str_trim(path);
    if (path.len == 0)
        return err_set(e, ERR_CONFIG, "F0000", "%%include needs a file name");
    if (!r->may_include)
        return err_set(e, ERR_CONFIG, "F0000", "%%include is not possible here");
    if (depth >= INCLUDE_DEPTH_MAX)
        return err_set(e, ERR_CONFIG, "F0000", "%%include is nested more than %d deep",
                       INCLUDE_DEPTH_MAX);
    return read_file(r, arena_strndup(r->arena, path.ptr, path.len), depth + 1, e);
}

/* "[name]" at the start of a line; what follows is left in *line. */
static bool read_section(struct reader *r, struct str *line, struct err *e)
{
    const char *end = memchr(line->ptr, ']', line->len);
    if (end == NULL)
        return err_set(e, ERR_CONFIG, "F0000", "\"]\" is missing");
    size_t len = (size_t)(end - line->ptr) - 1;
    struct str name = { line->ptr + 1, len };
    *line = skip_blanks(cut(*line, len + 2));
    return r->handler->section(r->handler->arg, name, e);
}

static bool read_line(struct reader *r, struct str line, int depth, struct err *e)
{
    line = str_trim(line);
    /* PgBouncer lets anything follow a section on its line. */
    while (line.len > 0 && line.ptr[0] == '[') {
        if (!read_section(r, &line, e))
            return false;
    }
    if (line.len == 0 || line.ptr[0] == '#' || line.ptr[0] == ';')
        return true;

    struct str include = STR("%include");
    if (str_starts_with(line, include) &&
        (line.len == include.len || is_blank(line.ptr[include.len])))
        return read_include(r, cut(line, include.len), depth, e);

    struct str key;
    struct str rest = line;
    if (line.ptr[0] == '\'' || line.ptr[0] == '"') {
        rest = cut(line, 1);
        if (!unquote(&rest, line.ptr[0], r->arena, &key))
            return err_set(e, ERR_CONFIG, "F0000", "the closing quote of a name is missing");
    } else {
        size_t n = 0;
        while (n < line.len && is_key_char(line.ptr[n]))
            n++;
        key = (struct str){ line.ptr, n };
        rest = cut(line, n);
    }
    if (key.len == 0)
        return err_set(e, ERR_CONFIG, "F0000", "expected a name, a section or a comment");
    rest = skip_blanks(rest);
    if (rest.len == 0 || rest.ptr[0] != '=')
        return err_set(e, ERR_CONFIG, "F0000", "expected \"=\" after \"" STR_FMT "\"",
                       STR_ARG(key));
    return r->handler->key(r->handler->arg, key, str_trim(cut(rest, 1)), e);
}

static bool read_text(struct reader *r, struct str text, const char *name, int depth, struct err *e)
{
    if (text.len > 0 && memchr(text.ptr, '\0', text.len) != NULL)
        return err_set(e, ERR_CONFIG, "F0000", "%s: a NUL byte", name);
    for (size_t number = 1; text.len > 0; number++) {
        const char *feed = memchr(text.ptr, '\n', text.len);
        size_t len = feed != NULL ? (size_t)(feed - text.ptr) : text.len;
        if (!read_line(r, (struct str){ text.ptr, len }, depth, e)) {
            err_prefix(e, "%s:%zu", name, number);
            return false;
        }
        text = cut(text, feed != NULL ? len + 1 : len);
    }
    return true;
}

static bool read_file(struct reader *r, const char *path, int depth, struct err *e)
{
    struct str text;
    return ini_slurp(path, r->arena, &text, e) && read_text(r, text, path, depth, e);
}

bool ini_read_file(const char *path, const struct ini_handler *handler, struct err *e)
{
    struct arena arena;
    arena_init(&arena);
    struct reader r = { .handler = handler, .arena = &arena, .may_include = true };
    bool ok = read_file(&r, path, 0, e);
    arena_free(&arena);
    return ok;
}

bool ini_read_text(struct str text, const char *name, const struct ini_handler *handler,
                   struct err *e)
{
    struct arena arena;
    arena_init(&arena);
    struct reader r = { .handler = handler, .arena = &arena, .may_include = false };
    bool ok = read_text(&r, text, name, 0, e);
    arena_free(&arena);
    return ok;
}

static struct str skip_spaces(struct str s)
{
    while (s.len > 0 && is_space(s.ptr[0]))
        s = cut(s, 1);
    return s;
}

enum connstr_next connstr_next(struct connstr *c, struct arena *a, struct str *key,
                               const char **value, struct err *e)
{
    struct str s = skip_spaces(c->rest);
    if (s.len == 0) {
        c->rest = s;
        return CONNSTR_END;
    }

    size_t n = 0;
    while (n < s.len && s.ptr[n] != '=' && !is_space(s.ptr[n]))
        n++;
    *key = (struct str){ s.ptr, n };
    s = skip_spaces(cut(s, n));
    if (key->len == 0 || s.len == 0 || s.ptr[0] != '=') {
        err_set(e, ERR_CONFIG, "F0000",
                "expected key=value in the connection string at \"" STR_FMT "\"", STR_ARG(*key));
        return CONNSTR_BAD;
    }
    s = skip_spaces(cut(s, 1));

    struct str word;
    if (s.len > 0 && s.ptr[0] == '\'') {
        s = cut(s, 1);
        if (!unquote(&s, '\'', a, &word)) {
            err_set(e, ERR_CONFIG, "F0000", "the closing quote of \"" STR_FMT "\" is missing",
                    STR_ARG(*key));
            return CONNSTR_BAD;
        }
    } else {
        n = 0;
        while (n < s.len && !is_space(s.ptr[n]))
            n++;
        word = (struct str){ s.ptr, n };
        s = cut(s, n);
    }
    if (word.len == 0) {
        err_set(e, ERR_CONFIG, "F0000", "\"" STR_FMT "\" has no value", STR_ARG(*key));
        return CONNSTR_BAD;
    }
    *value = arena_strndup(a, word.ptr, word.len);
    c->rest = s;
    return CONNSTR_PAIR;
}
