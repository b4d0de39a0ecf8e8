/* Shared by proxy/admin.c (sessions, commands) and proxy/admin_show.c (what SHOW answers). */
#ifndef PGTRICKLE_PROXY_ADMIN_INTERNAL_H
#define PGTRICKLE_PROXY_ADMIN_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytequeue.h"
#include "base/str.h"
#include "proxy/admin.h"

#define SHOW_COLUMNS_MAX 32

enum show_type {
    SHOW_TEXT,
    SHOW_INT4,
    SHOW_INT8,
    SHOW_NUMERIC,
    SHOW_BYTEA, /* always NULL */
};

struct show_column {
    const char *name;
    enum show_type type;
};

/* One SHOW: its columns are known without running it, as Describe needs. */
struct show {
    const char *name;
    const struct show_column *columns;
    uint16_t n_columns;
    void (*run)(struct admin_sink *sink);
    bool sorted; /* by the first two columns: the core gives rows in any order */
    bool admin_only;
};

/* NULL: no such thing to show. */
const struct show *show_find(struct str name);

void show_put_row_description(const struct show *show, const bool *binary, struct bytequeue *out);

/* Appends one DataRow message per row; returns how many. binary: one flag per column. */
size_t show_run(const struct show *show, const struct admin_view *view, const bool *binary,
                struct bytequeue *rows);

#endif
