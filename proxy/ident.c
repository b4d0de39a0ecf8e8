#include "proxy/ident.h"

#include <regex.h>
#include <stdatomic.h>
#include <stdlib.h>

struct entry {
    const char *map;
    const char *system_user;
    regex_t *regex; /* NULL: system_user is a name */
    const char *database_user;
    bool any_database_user;
    struct entry *next;
};

struct ident {
    struct arena arena; /* holds the struct itself */
    atomic_int references;
    struct rules_file file;
    struct entry *first;
};

static struct ident *ident_new(void)
{
    struct arena arena;

    arena_init(&arena);
    struct ident *m = arena_new(&arena, struct ident);
    atomic_init(&m->references, 1);
    m->arena = arena;
    return m;
}

/* NULL, or why the line is bad. */
static const char *read_entry(struct ident *m, struct entry *out, const struct rules_line *l)
{
    if (l->n != 3)
        return "expected a map, a system user and a database user";
    for (size_t i = 0; i < 3; i++)
        if (l->fields[i].n != 1)
            return "there is more than one name in a field";
    const struct rules_word *system = &l->fields[1].words[0];
    const struct rules_word *database = &l->fields[2].words[0];
    out->map = l->fields[0].words[0].text;
    out->system_user = system->text;
    out->database_user = database->text;
    out->any_database_user = !database->quoted && strcmp(database->text, "all") == 0;
    if (!database->quoted && (database->text[0] == '+' || database->text[0] == '/'))
        return "groups and regular expressions are not supported as the database user";
    if (system->text[0] != '/')
        return NULL;
    out->regex = arena_new(&m->arena, regex_t);
    if (regcomp(out->regex, system->text + 1, REG_EXTENDED) == 0)
        return NULL;
    out->regex = NULL;
    return "the regular expression is invalid";
}

static void read_entries(struct ident *m)
{
    struct entry **last = &m->first;

    for (const struct rules_line *l = m->file.first; l != NULL; l = l->next) {
        struct entry *n = arena_new(&m->arena, struct entry);
        const char *why = read_entry(m, n, l);
        if (why != NULL) {
            rules_file_bad(&m->file, l->file, l->number, "%s", why);
            continue;
        }
        *last = n;
        last = &n->next;
    }
}

struct ident *ident_parse(struct str text, const char *name)
{
    struct ident *m = ident_new();

    rules_file_parse(&m->file, &m->arena, text, name);
    read_entries(m);
    return m;
}

struct ident *ident_load(const char *path, struct err *e)
{
    struct ident *m = ident_new();

    if (!rules_file_load(&m->file, &m->arena, path, e)) {
        ident_unref(m);
        return NULL;
    }
    read_entries(m);
    return m;
}

struct ident *ident_ref(struct ident *m)
{
    if (m != NULL)
        atomic_fetch_add_explicit(&m->references, 1, memory_order_relaxed);
    return m;
}

void ident_unref(struct ident *m)
{
    if (m == NULL || atomic_fetch_sub_explicit(&m->references, 1, memory_order_acq_rel) != 1)
        return;
    for (struct entry *n = m->first; n != NULL; n = n->next)
        if (n->regex != NULL)
            regfree(n->regex);
    struct arena arena = m->arena;
    arena_free(&arena);
}

const struct rules_complaint *ident_bad_lines(const struct ident *m)
{
    return m->file.bad;
}

/* The database user of an entry with its \1 replaced is `user`. */
static bool expands_to(const char *pattern, struct str group, const char *user)
{
    const char *mark = strstr(pattern, "\\1");
    struct str rest = str_from(user);

    if (mark == NULL)
        return strcmp(pattern, user) == 0;
    struct str before = { pattern, (size_t)(mark - pattern) };
    struct str after = str_from(mark + 2);
    if (rest.len != before.len + group.len + after.len || !str_starts_with(rest, before))
        return false;
    rest = (struct str){ rest.ptr + before.len, rest.len - before.len };
    if (!str_starts_with(rest, group))
        return false;
    rest = (struct str){ rest.ptr + group.len, rest.len - group.len };
    return str_equal(rest, after);
}

static bool entry_allows(const struct entry *n, const char *system_user, const char *database_user)
{
    regmatch_t groups[2];
    struct str group = { "", 0 };

    if (n->regex == NULL)
        return strcmp(n->system_user, system_user) == 0 &&
               (n->any_database_user || strcmp(n->database_user, database_user) == 0);
    if (regexec(n->regex, system_user, 2, groups, 0) != 0)
        return false;
    if (groups[1].rm_so >= 0)
        group = (struct str){ system_user + groups[1].rm_so,
                              (size_t)(groups[1].rm_eo - groups[1].rm_so) };
    return n->any_database_user || expands_to(n->database_user, group, database_user);
}

bool ident_allows(const struct ident *m, const char *map, const char *system_user,
                  const char *database_user)
{
    if (map == NULL)
        return strcmp(system_user, database_user) == 0;
    for (const struct entry *n = m != NULL ? m->first : NULL; n != NULL; n = n->next)
        if (strcmp(n->map, map) == 0 && entry_allows(n, system_user, database_user))
            return true;
    return false;
}
