/* Statements that compare a stream table with its query and change nothing.
 *
 * Two, because a query may leave open what it answers: which of equal rows comes
 * first in a window, in DISTINCT ON, under a LIMIT. The stream table's rows follow
 * the compiler's reading, which is deterministic; PostgreSQL's own evaluation may
 * choose otherwise each time. So the user's canonical text is the first judge: it
 * knows nothing of the compiler. Rows that differ from it are wrong when they
 * differ from the compiler's reading too, and a matter of choice when they don't.
 *
 * Values are told apart as they look, with two exceptions: a group's key may show
 * any of equal values, and a float computed by an aggregate carries the rounding of
 * the order in which rows came, so nine digits of it count.
 */
#include "dvm/plan.h"

#include <stdio.h>

#include "dvm/delta/delta.h"
#include "dvm/plan_internal.h"

#define FLOAT4_OID 700
#define FLOAT8_OID 701
/* Rows that are reported; the counts are of all. */
#define REPORTED_ROWS 20

static bool is_rounded(const struct planner *p, int column)
{
    const struct value_type *t = &p->columns[column].facts;

    return p->strategy != STRATEGY_LINEAR && !plan_is_key(p, column) &&
           (t->oid == FLOAT8_OID || t->oid == FLOAT4_OID);
}

static void put_compared(struct planner *p, struct text *out, int column, const char *value)
{
    const struct value_type *t = &p->columns[column].facts;

    if (is_rounded(p, column))
        text_printf(out,
                    "CASE WHEN %s::pg_catalog.float8 = ANY ('{NaN,Infinity,-Infinity}') "
                    "THEN %s::pg_catalog.text ELSE pg_catalog.to_char(%s::pg_catalog.numeric, "
                    "'%s') END",
                    value, value, value, t->oid == FLOAT8_OID ? "9.99999999EEEE" : "9.999EEEE");
    else
        plan_put_row_identity(p, out, column, value, true);
}

static bool is_compared(const struct planner *p, int column, bool own_reading)
{
    return own_reading || !p->columns[column].hidden;
}

/* f: the rows of which one side has more copies, with how many more q has. */
static void put_differences(struct planner *p, struct text *out, bool own_reading)
{
    bool first = true;

    text_put(out, "),\nf AS MATERIALIZED (SELECT ");
    for (int i = 0; i < p->n_columns; i++)
        if (is_compared(p, i, own_reading))
            text_printf(out,
                        is_rounded(p, i)                   ? "pg_catalog.min(x.c%d) AS c%d, "
                        : p->columns[i].facts.has_equality ? "x.c%d AS c%d, "
                                                           : "pgtrickle._any(x.c%d) AS c%d, ",
                        i, i);
    text_put(out, "pg_catalog.sum(x.w)::bigint AS w FROM (SELECT ");
    for (int i = 0; i < p->n_columns; i++)
        if (is_compared(p, i, own_reading))
            text_printf(out, "q.c%d, ", i);
    text_put(out, "1 AS w FROM q UNION ALL SELECT ");
    for (int i = 0; i < p->n_columns; i++) {
        if (!is_compared(p, i, own_reading))
            continue;
        plan_put_st(p, out, i);
        text_put(out, ", ");
    }
    text_put(out, "-1 FROM ");
    plan_put_target(p, out);
    text_put(out, " st) x");
    for (int i = 0; i < p->n_columns; i++) {
        char value[32];

        if (!is_compared(p, i, own_reading))
            continue;
        snprintf(value, sizeof(value), "x.c%d", i);
        text_put(out, first ? " GROUP BY " : ", ");
        put_compared(p, out, i, value);
        first = false;
    }
    text_put(out, " HAVING pg_catalog.sum(x.w) <> 0)");
}

const char *plan_check(struct planner *p, bool own_reading)
{
    bool first = true;
    struct text out;

    text_init(&out);
    text_put(&out, "WITH q AS MATERIALIZED (");
    if (own_reading) {
        plan_put_rows(p, &out);
    } else {
        text_printf(&out, "SELECT * FROM (\n%s\n) AS q(", p->cat->canonical);
        for (int i = 0; i < p->n_columns; i++) {
            if (p->columns[i].hidden)
                continue;
            text_printf(&out, "%sc%d", first ? "" : ", ", i);
            first = false;
        }
        text_put(&out, ")");
    }
    put_differences(p, &out, own_reading);
    text_put(&out, "\nSELECT COALESCE(pg_catalog.sum(f.w) FILTER (WHERE f.w > 0), 0)::bigint, "
                   "0::bigint, COALESCE(-pg_catalog.sum(f.w) FILTER (WHERE f.w < 0), 0)::bigint, "
                   "pg_catalog.length(pg_catalog.set_config('pgtrickle.differences', COALESCE(("
                   "SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('copies', "
                   "d.__pgt_w, 'row', pg_catalog.\"left\"("
                   "(pg_catalog.to_jsonb(d) - '__pgt_w')::pg_catalog.text, 2000))) FROM (SELECT ");
    for (int i = 0; i < p->n_columns; i++) {
        if (!is_compared(p, i, own_reading))
            continue;
        text_printf(&out, "f.c%d AS ", i);
        text_put_ident(&out, p->columns[i].name);
        text_put(&out, ", ");
    }
    text_printf(&out,
                "f.w AS __pgt_w FROM f LIMIT %d) d), '[]')::pg_catalog.text, true))::bigint, "
                "pg_catalog.pg_current_snapshot() FROM f",
                REPORTED_ROWS);
    return plan_finish(p, &out);
}
