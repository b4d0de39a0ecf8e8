/* The file format that pg_hba.conf and pg_ident.conf share: lines of fields, fields of words.
 *
 * Manual: "The pg_hba.conf File". A `#` outside quotes starts a comment; a backslash before the end
 * of a line joins the next one; blanks separate fields; commas separate the words of one field.
 * Double quotes take away a word's special meaning and may stand inside it; a doubled one is a
 * quote. `@file` stands for the words of another file. A line `include FILE`, `include_if_exists
 * FILE` or `include_dir DIRECTORY` stands for the lines of others. Paths are relative to the file
 * that names them.
 *
 * What can't be read is left out and noted: rules_file_bad.
 */
#ifndef PGTRICKLE_PROXY_RULES_FILE_H
#define PGTRICKLE_PROXY_RULES_FILE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/str.h"

struct rules_word {
    const char *text;
    bool quoted; /* begins with a quote: a name, never a keyword */
};

struct rules_field {
    const struct rules_word *words;
    size_t n;
};

struct rules_line {
    const char *file;
    int number; /* 1-based, of its first physical line */
    const struct rules_field *fields;
    size_t n; /* at least one */
    struct rules_line *next;
};

/* A line that was left out, and why. */
struct rules_complaint {
    const char *file;
    int number;
    const char *why;
    struct rules_complaint *next;
};

struct rules_file {
    struct arena *arena; /* all of it lives there */
    struct rules_line *first;
    struct rules_line *last;
    struct rules_complaint *bad;
    struct rules_complaint *last_bad;
    int n_bad;
};

/* From memory; `name` is where the text is said to come from: with a directory, other files are
 * found relative to it. */
void rules_file_parse(struct rules_file *f, struct arena *a, struct str text, const char *name);
/* False and *e when the file can't be read. */
bool rules_file_load(struct rules_file *f, struct arena *a, const char *path, struct err *e);
/* Notes one more bad line. */
void rules_file_bad(struct rules_file *f, const char *file, int number, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* The words of a text that is no file (auth_ldap_options): blanks and commas separate. False: a
 * quote is not closed. */
bool rules_words(struct str text, struct arena *a, struct rules_field *out);

#endif
