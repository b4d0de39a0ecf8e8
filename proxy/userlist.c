#include "proxy/userlist.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/arena.h"
#include "proxy/ini.h"

#define USER_NAME_MAX 127
#define SECRET_MAX 65530

/* What tells two versions of a file apart. */
struct file_version {
    bool exists;
    dev_t device;
    ino_t inode;
    off_t size;
    struct timespec changed;
};

struct userlist {
    struct arena arena; /* holds the struct itself */
    atomic_int references;
    const char *path; /* NULL: not from a file */
    struct file_version version;
    struct userlist_entry *entries; /* sorted by name */
    size_t count;
};

static struct file_version file_version(const char *path)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return (struct file_version){ 0 };
    return (struct file_version){
        .exists = true,
        .device = st.st_dev,
        .inode = st.st_ino,
        .size = st.st_size,
        .changed = st.st_mtim,
    };
}

static bool same_version(const struct file_version *a, const struct file_version *b)
{
    return a->exists == b->exists && a->device == b->device && a->inode == b->inode &&
           a->size == b->size && a->changed.tv_sec == b->changed.tv_sec &&
           a->changed.tv_nsec == b->changed.tv_nsec;
}

static bool is_hex(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

enum secret_kind secret_kind_of(struct str secret)
{
    if (secret.len == 0)
        return SECRET_NONE;
    if (str_starts_with(secret, STR("SCRAM-SHA-256$")))
        return SECRET_SCRAM;
    if (secret.len == 35 && str_starts_with(secret, STR("md5"))) {
        for (size_t i = 3; i < secret.len; i++) {
            if (!is_hex(secret.ptr[i]))
                return SECRET_PLAIN;
        }
        return SECRET_MD5;
    }
    return SECRET_PLAIN;
}

static struct userlist *userlist_new(void)
{
    struct arena arena;
    arena_init(&arena);
    struct userlist *u = arena_new(&arena, struct userlist);
    atomic_init(&u->references, 1);
    u->arena = arena;
    return u;
}

struct userlist *userlist_ref(struct userlist *u)
{
    if (u != NULL)
        atomic_fetch_add_explicit(&u->references, 1, memory_order_relaxed);
    return u;
}

void userlist_unref(struct userlist *u)
{
    if (u == NULL || atomic_fetch_sub_explicit(&u->references, 1, memory_order_acq_rel) != 1)
        return;
    struct arena arena = u->arena;
    arena_free(&arena);
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

/* A word in double quotes at the start of *s, which is moved behind it. */
static bool take_quoted(struct str *s, struct arena *a, struct str *out)
{
    if (s->len == 0 || s->ptr[0] != '"')
        return false;
    char *word = arena_alloc(a, s->len);
    size_t len = 0;
    for (size_t i = 1; i < s->len; i++) {
        if (s->ptr[i] == '"') {
            if (i + 1 < s->len && s->ptr[i + 1] == '"') {
                i++;
            } else {
                *s = (struct str){ s->ptr + i + 1, s->len - i - 1 };
                *out = (struct str){ word, len };
                return true;
            }
        }
        word[len++] = s->ptr[i];
    }
    return false;
}

static bool read_line(struct str line, struct arena *a, struct userlist_entry *out, bool *found,
                      struct err *e)
{
    *found = false;
    line = str_trim(line);
    if (line.len == 0 || line.ptr[0] == ';')
        return true;

    struct str name, secret;
    if (!take_quoted(&line, a, &name))
        return err_set(e, ERR_CONFIG, "F0000", "expected a user's name in double quotes");
    size_t blanks = 0;
    while (line.len > 0 && is_blank(line.ptr[0])) {
        line = (struct str){ line.ptr + 1, line.len - 1 };
        blanks++;
    }
    if (blanks == 0 || !take_quoted(&line, a, &secret))
        return err_set(e, ERR_CONFIG, "F0000", "expected a secret in double quotes");
    if (name.len == 0)
        return err_set(e, ERR_CONFIG, "F0000", "the user's name is empty");
    if (name.len > USER_NAME_MAX)
        return err_set(e, ERR_CONFIG, "F0000", "the user's name is longer than %d bytes",
                       USER_NAME_MAX);
    if (secret.len > SECRET_MAX)
        return err_set(e, ERR_CONFIG, "F0000", "the secret is longer than %d bytes", SECRET_MAX);
    out->name = arena_strndup(a, name.ptr, name.len);
    out->secret = arena_strndup(a, secret.ptr, secret.len);
    out->kind = secret_kind_of(secret);
    *found = true;
    return true;
}

/* qsort is not stable: the line decides among equal names. */
struct line_entry {
    struct userlist_entry entry;
    size_t line;
};

static int compare_lines(const void *a, const void *b)
{
    const struct line_entry *x = a;
    const struct line_entry *y = b;
    int order = strcmp(x->entry.name, y->entry.name);
    if (order != 0)
        return order;
    return x->line < y->line ? -1 : x->line > y->line;
}

static bool read_text(struct userlist *u, struct str text, const char *name, struct err *e)
{
    size_t n_lines = 1;
    for (size_t i = 0; i < text.len; i++)
        n_lines += text.ptr[i] == '\n';
    struct line_entry *lines = mem_alloc(n_lines * sizeof(lines[0]));

    /* Names and secrets as they stand in the file; the winners are copied. */
    struct arena scratch;
    arena_init(&scratch);
    size_t n = 0;
    bool ok = true;
    for (size_t number = 1; text.len > 0 && ok; number++) {
        const char *feed = memchr(text.ptr, '\n', text.len);
        size_t len = feed != NULL ? (size_t)(feed - text.ptr) : text.len;
        bool found;
        ok = read_line((struct str){ text.ptr, len }, &scratch, &lines[n].entry, &found, e);
        if (!ok)
            err_prefix(e, "%s:%zu", name, number);
        lines[n].line = number;
        n += ok && found;
        len += feed != NULL;
        text = (struct str){ text.ptr + len, text.len - len };
    }
    if (ok) {
        qsort(lines, n, sizeof(lines[0]), compare_lines);
        u->entries = arena_new_array(&u->arena, struct userlist_entry, n + 1);
        for (size_t i = 0; i < n; i++) {
            if (i + 1 < n && strcmp(lines[i].entry.name, lines[i + 1].entry.name) == 0)
                continue;
            u->entries[u->count++] = (struct userlist_entry){
                .name = arena_strdup(&u->arena, lines[i].entry.name),
                .secret = arena_strdup(&u->arena, lines[i].entry.secret),
                .kind = lines[i].entry.kind,
            };
        }
    }
    arena_free(&scratch);
    free(lines);
    return ok;
}

struct userlist *userlist_parse(struct str text, const char *name, struct err *e)
{
    if (text.len > 0 && memchr(text.ptr, '\0', text.len) != NULL) {
        err_set(e, ERR_CONFIG, "F0000", "\"%s\" has a NUL byte", name);
        return NULL;
    }
    struct userlist *u = userlist_new();
    if (!read_text(u, text, name, e)) {
        userlist_unref(u);
        return NULL;
    }
    return u;
}

struct userlist *userlist_load(const char *path, struct err *e)
{
    /* Looked at before reading: a change in between makes the list stale, not overlooked. */
    struct file_version version = file_version(path);
    struct arena scratch;
    arena_init(&scratch);
    struct str text;
    struct userlist *u = NULL;
    if (ini_slurp(path, &scratch, &text, e))
        u = userlist_parse(text, path, e);
    arena_free(&scratch);
    if (u != NULL) {
        u->path = arena_strdup(&u->arena, path);
        u->version = version;
    }
    return u;
}

bool userlist_is_stale(const struct userlist *u)
{
    if (u->path == NULL)
        return false;
    struct file_version now = file_version(u->path);
    return !same_version(&u->version, &now);
}

const struct userlist_entry *userlist_find(const struct userlist *u, struct str name)
{
    size_t low = 0;
    size_t high = u != NULL ? u->count : 0;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = str_compare(name, str_from(u->entries[middle].name));
        if (order == 0)
            return &u->entries[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

size_t userlist_count(const struct userlist *u)
{
    return u != NULL ? u->count : 0;
}

const struct userlist_entry *userlist_at(const struct userlist *u, size_t i)
{
    return &u->entries[i];
}
