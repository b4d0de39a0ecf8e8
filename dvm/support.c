/* Support is a list of what is proved. A stable function of PostgreSQL's is
 * accepted when its answer depends on nothing but its arguments, settings that we pin (time zone,
 * date style, text search configuration), or the current time, which is an input. */
#include "dvm/support.h"

#include <string.h>

static bool refuse(struct refusal *r, enum refusal_kind kind, const char *what, const char *name,
                   const char *hint)
{
    *r = (struct refusal){ .kind = kind, .what = what, .name = name, .hint = hint };
    return false;
}

static bool stable_is_pinned(const char *name)
{
    static const char *const known[] = {
        "now",
        "transaction_timestamp",
        "age", /* see parse_write_age */
        "statement_timestamp",
        /* depend on TimeZone, DateStyle, IntervalStyle, lc_* */
        "date_trunc",
        "date_part",
        "extract",
        "date_bin",
        "to_char",
        "to_timestamp",
        "to_date",
        "to_number",
        "timezone",
        "make_timestamptz",
        "timestamptz",
        "timestamp",
        "date",
        "time",
        "timetz",
        "generate_series",
        "timestamptz_pl_interval",
        "timestamptz_mi_interval",
        "interval_pl_timestamptz",
        "timestamptz_in",
        "timestamptz_out",
        "overlaps",
        "cash_in",
        "cash_out",
        "money",
        "numeric",
        /* call output functions of their arguments */
        "textanycat",
        "anytextcat",
        "concat",
        "concat_ws",
        "format",
        "quote_literal",
        "quote_nullable",
        "to_json",
        "to_jsonb",
        "row_to_json",
        "array_to_json",
        "json_build_object",
        "json_build_array",
        "jsonb_build_object",
        "jsonb_build_array",
        "array_to_string",
        "string_to_array",
        "json_populate_record",
        "json_populate_recordset",
        "json_to_record",
        "json_to_recordset",
        "jsonb_populate_record",
        "jsonb_populate_recordset",
        "jsonb_to_record",
        "jsonb_to_recordset",
        "array_in",
        "array_out",
        "record_out",
        "range_out",
        /* the text search configuration */
        "to_tsvector",
        "to_tsquery",
        "plainto_tsquery",
        "phraseto_tsquery",
        "websearch_to_tsquery",
        "ts_headline",
        "regclassout",
        "json_agg",
        "jsonb_agg",
        "json_object_agg",
        "jsonb_object_agg",
        "json_agg_strict",
        "jsonb_agg_strict",
        "json_object_agg_strict",
        "jsonb_object_agg_strict",
        "json_object_agg_unique",
        "jsonb_object_agg_unique",
        "json_object_agg_unique_strict",
        "jsonb_object_agg_unique_strict",
        NULL,
    };
    static const char *const comparisons[] = { "_lt_", "_le_", "_eq_",  "_ne_",
                                               "_gt_", "_ge_", "_cmp_", NULL };

    for (int i = 0; known[i] != NULL; i++)
        if (strcmp(name, known[i]) == 0)
            return true;
    /* date_lt_timestamptz and its forty siblings: dates against timestamps */
    for (int i = 0; comparisons[i] != NULL; i++)
        if (strstr(name, comparisons[i]) != NULL &&
            (strncmp(name, "date_", 5) == 0 || strncmp(name, "timestamp", 9) == 0))
            return true;
    return false;
}

const struct cat_function *support_find_volatile(const struct catalog *cat)
{
    for (int i = 0; i < cat->n_functions; i++)
        if (cat->functions[i].volatility == 'v')
            return &cat->functions[i];
    return NULL;
}

bool support_check_any(struct arena *a, const struct catalog *cat, struct refusal *refused)
{
    int n_relations = 0;

    for (int i = 0; i < cat->n_tables; i++) {
        const struct cat_table *t = &cat->tables[i];

        n_relations += t->relkind != 'v';
        if (t->temporary)
            return refuse(refused, REFUSAL_TABLE,
                          arena_printf(a, "the temporary table \"%s\"", t->name), t->name,
                          "Other sessions can't see a temporary table: use a permanent one.");
    }
    if (n_relations == 0)
        return refuse(refused, REFUSAL_NO_SOURCE, "a definition that reads no table of the user's",
                      NULL, NULL);
    return true;
}

/* In IMMEDIATE mode there is no refresh that notices what triggers don't see: an unlogged table is
 * empty after a crash. */
static bool check_table(struct arena *a, const struct cat_table *t, bool immediate,
                        struct refusal *refused)
{
    const char *why = NULL;

    if (t->relkind == 'v')
        return true;
    if (t->is_system)
        why = "system catalogs";
    else if (t->relkind == 'm')
        why = "materialized views";
    else if (t->relkind == 'f')
        why = "foreign tables";
    else if (t->has_foreign_child)
        why = "tables with foreign partitions";
    else if (t->has_parent)
        why = "partitions and heirs, which are written through their parents, too";
    else if (t->relkind != 'r' && t->relkind != 'p')
        why = "this kind of relation";
    else if (t->unlogged && immediate)
        why = "unlogged tables";
    else if (t->is_subscribed)
        why = "tables that a subscription writes to";
    else if (t->row_security)
        why = "tables with row-level security that applies to the owner of the stream table";
    if (why != NULL)
        return refuse(refused, REFUSAL_TABLE, arena_printf(a, "%s (\"%s\")", why, t->name), t->name,
                      NULL);
    for (int i = 0; i < t->n_columns; i++)
        if (t->columns[i].is_virtual)
            return refuse(refused, REFUSAL_TABLE,
                          arena_printf(a, "virtual generated columns (\"%s\")", t->name), t->name,
                          NULL);
    return true;
}

bool support_check_differential(struct arena *a, const struct catalog *cat, bool immediate,
                                struct refusal *refused)
{
    for (int i = 0; i < cat->n_tables; i++)
        if (!check_table(a, &cat->tables[i], immediate, refused))
            return false;
    for (int i = 0; i < cat->n_functions; i++) {
        const struct cat_function *f = &cat->functions[i];

        if (f->volatility != 's' || (f->builtin && stable_is_pinned(f->name)))
            continue;
        return refuse(refused, REFUSAL_FUNCTION,
                      arena_printf(a, "the STABLE function %s.%s", f->schema, f->name), f->name,
                      f->builtin ? NULL
                                 : "If its result depends on its arguments alone, declare it "
                                   "IMMUTABLE.");
    }
    return true;
}
