/* Writing SQL that every rule needs. */
#include <stdlib.h>
#include <string.h>

#include "dvm/delta/delta.h"

static void put_holes(struct text *out, const struct expr *e, const char *left, const char *right,
                      int split, const char *time, const char *subquery)
{
    const char *at = e->text;

    while (*at != '\0') {
        char *end;
        long n;
        int column;

        if (strncmp(at, "__pgth", 6) != 0) {
            text_put_char(out, *at++);
            continue;
        }
        n = strtol(at + 6, &end, 10);
        column = e->holes[n].column;
        if (column == COLUMN_OUTER)
            text_printf(out, "a%d.c%d", e->holes[n].outer, e->holes[n].outer_column);
        else if (column == COLUMN_SUBQUERY)
            text_printf(out, "(%s)", subquery);
        else if (column < 0)
            text_printf(out, "(%s::%s)", time, e->holes[n].time_type);
        else if (column < split)
            text_printf(out, "%s.c%d", left, column);
        else
            text_printf(out, "%s.c%d", right, column - split);
        at = end + 1;
    }
}

void put_expr(struct text *out, const struct expr *e, const char *left, const char *right,
              int split, const char *time)
{
    put_holes(out, e, left, right, split, time, "NULL");
}

void put_expr_with(struct text *out, const struct expr *e, const char *alias, const char *subquery)
{
    put_holes(out, e, alias, alias, 1 << 30, "pg_catalog.now()", subquery);
}

void put_expr_over(struct text *out, const struct expr *e, const char *alias)
{
    put_expr(out, e, alias, alias, 1 << 30, "pg_catalog.now()");
}

void put_needed(struct text *out, const struct op *op, const char *alias, bool comma_last)
{
    bool first = true;

    for (int i = 0; i < op->n_columns; i++) {
        if (!op->needed[i])
            continue;
        text_printf(out, "%s%s.c%d", first ? "" : ", ", alias, i);
        first = false;
    }
    if (comma_last && !first)
        text_put(out, ", ");
}

void put_comparable(struct text *out, const struct value_type *t, const char *value)
{
    text_printf(out, t->has_equality ? "%s" : "%s::pg_catalog.text COLLATE \"C\"", value);
}

bool value_is_exact(const struct value_type *t)
{
    enum { OID_NUMERIC = 1700 };

    return t->has_equality && (t->exact || (t->oid == OID_NUMERIC && t->typmod >= 0));
}

void put_image(struct text *out, const struct value_type *t, const char *value)
{
    text_printf(out, value_is_exact(t) ? "%s" : "%s::pg_catalog.text COLLATE \"C\"", value);
}

void put_image_key(struct text *out, const struct value_type *t, const char *value)
{
    put_comparable(out, t, value);
    if (t->has_equality && !value_is_exact(t))
        text_printf(out, ", %s::pg_catalog.text COLLATE \"C\"", value);
}

void put_frontier(struct text *out, const char *prefix)
{
    text_printf(out, "(%s__pgt_xid >= $1 OR %s__pgt_xid = ANY ($2) OR %s__pgt_xid = $3) ", prefix,
                prefix, prefix);
    text_printf(out, "AND (%s__pgt_xid <> $3 OR %s__pgt_seq > $4)", prefix, prefix);
}

/* ---- what cannot fail ---------------------------------------------------------------------- */

static size_t word_length(const char *at)
{
    size_t n = 0;

    while ((at[n] >= 'a' && at[n] <= 'z') || (at[n] >= 'A' && at[n] <= 'Z') || at[n] == '_' ||
           (n > 0 && at[n] >= '0' && at[n] <= '9'))
        n++;
    return n;
}

static bool is_word_of_conditions(const char *at, size_t n)
{
    static const char *const words[] = { "AND",   "OR",   "NOT",   "IS",       "NULL", "TRUE",
                                         "FALSE", "true", "false", "DISTINCT", "FROM", NULL };

    for (int i = 0; words[i] != NULL; i++)
        if (strlen(words[i]) == n && memcmp(at, words[i], n) == 0)
            return true;
    return n > 6 && memcmp(at, "__pgth", 6) == 0;
}

/* A constant, and the type that it is written with: converted when the statement is planned. */
static const char *skip_constant(const char *at)
{
    if (*at == '\'') {
        for (at++; *at != '\0' && (*at != '\'' || at[1] == '\''); at++)
            at += *at == '\'';
        at += *at == '\'';
    } else {
        at += strspn(at, "0123456789.");
    }
    if (strncmp(at, "::", 2) == 0)
        at += 2 + word_length(at + 2);
    return at;
}

bool expr_is_total(const struct expr *e)
{
    for (const char *at = e->text; *at != '\0';) {
        size_t n = word_length(at);

        if (n > 0) {
            /* A name before a bracket is a function. */
            if (!is_word_of_conditions(at, n) || strncmp(at + n, "::", 2) == 0)
                return false;
            at += n;
        } else if (*at == '\'' || (*at >= '0' && *at <= '9')) {
            at = skip_constant(at);
        } else if (strncmp(at, ")::", 3) == 0) {
            return false;
        } else if (strchr(" ()=<>", *at) != NULL) {
            at++;
        } else {
            return false;
        }
    }
    return true;
}
