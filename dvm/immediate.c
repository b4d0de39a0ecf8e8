/* Two kinds of stream table.
 *
 * Independent rows or groups: one table, scanned once, nothing but projections and
 * filters above it, then either its own key or one algebraic grouping. Writers only meet on
 * the rows that they share, which PostgreSQL locks: no lock of ours. A sum is
 * added in ON CONFLICT DO UPDATE, on the row's latest version; a group that is
 * empty goes in a later statement, when the row's lock is held. (One statement that decides between
 * update and delete on its snapshot loses updates.)
 *
 * Everything else (joins, recomputed groups, bags): writers take turns. A BEFORE trigger updates
 * the one row of pgtrickle_changes.l_<pgt_id>, once a transaction, and only later statements look,
 * with a snapshot that sees what the earlier writer committed; in REPEATABLE READ that update
 * fails with 40001 when another writer was there since the snapshot. The turn comes before the
 * statement's own row locks: taken after them, two transactions of two statements each would wait
 * for one another's rows. The BEFORE triggers also count the statements that are open on the
 * sources: a statement may change several of them (writable CTEs, cascades), and when the first
 * AFTER trigger runs all have changed. Changes are then collected, and the last AFTER trigger
 * applies them together.
 */
#include "dvm/immediate.h"

#include <stdio.h>
#include <string.h>

#define BODY_TAG "$__pgt$"

struct event {
    enum delta_from from;
    const char *name;       /* of functions and triggers */
    const char *sql;        /* INSERT */
    const char *transition; /* REFERENCING … */
    const char *any;        /* the transition table to look into for "no rows" */
};

static const struct event events[] = {
    { DELTA_FROM_INSERT, "ins", "INSERT", "REFERENCING NEW TABLE AS __pgt_new", "__pgt_new" },
    { DELTA_FROM_DELETE, "del", "DELETE", "REFERENCING OLD TABLE AS __pgt_old", "__pgt_old" },
    { DELTA_FROM_UPDATE, "upd", "UPDATE",
      "REFERENCING OLD TABLE AS __pgt_old NEW TABLE AS __pgt_new", "__pgt_new" },
};

struct output {
    struct planner *p;
    const char **sql;
    int n, capacity;
};

static void emit(struct output *o, struct text *t)
{
    if (o->n == o->capacity) {
        int capacity = 2 * o->capacity + 32;
        const char **more = arena_new_array(o->p->a, const char *, (size_t)capacity);

        for (int i = 0; i < o->n; i++)
            more[i] = o->sql[i];
        o->sql = more;
        o->capacity = capacity;
    }
    o->sql[o->n++] = arena_strdup(o->p->a, t->ptr);
    text_free(t);
}

static bool is_independent(const struct planner *p)
{
    const struct op *below = p->strategy == STRATEGY_ALGEBRAIC ? p->group->left : p->tree->root;

    /* An extremum that went is looked for in the table, when no other writer is on his way. */
    if (p->strategy == STRATEGY_ALGEBRAIC && plan_has_extremum(p))
        return false;
    if (p->strategy != STRATEGY_ALGEBRAIC && (p->strategy != STRATEGY_LINEAR || p->n_key == 0))
        return false;
    return plan_find_scan(below) != NULL;
}

/* What constants and conversions in the definition may depend on is fixed at creation. A conversion
 * by output and input has no function that the catalog would show. */
static bool depends_on_settings(const struct planner *p)
{
    for (int i = 0; i < p->cat->n_functions; i++)
        if (p->cat->functions[i].volatility != 'i')
            return true;
    for (int i = 0; i < p->cat->n_tables; i++)
        if (p->cat->tables[i].view_definition != NULL &&
            strstr(p->cat->tables[i].view_definition, "::") != NULL)
            return true;
    return strstr(p->cat->canonical, "::") != NULL;
}

static void begin_function(struct planner *p, struct text *t, const char *name)
{
    text_printf(t,
                "CREATE OR REPLACE FUNCTION pgtrickle_changes.i_%lld_%s() RETURNS trigger "
                "LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp "
                "SET jit = off",
                (long long)p->def->pgt_id, name);
    if (depends_on_settings(p))
        text_put(t, " SET TimeZone FROM CURRENT SET DateStyle FROM CURRENT "
                    "SET IntervalStyle FROM CURRENT SET extra_float_digits FROM CURRENT "
                    "SET bytea_output FROM CURRENT SET lc_monetary FROM CURRENT "
                    "SET lc_numeric FROM CURRENT SET lc_time FROM CURRENT "
                    "SET default_text_search_config FROM CURRENT");
    text_put(t, " AS " BODY_TAG "\n#variable_conflict use_column\nDECLARE\n"
                "    __pgt_open int;\n    __pgt_row record;\nBEGIN\n");
}

/* Ends the body with a tag that does not occur in it, whatever the definition's constants hold. */
static void end_function(struct output *o, struct text *t)
{
    const char *body = strstr(t->ptr, BODY_TAG) + strlen(BODY_TAG);
    struct text whole;
    char tag[32] = BODY_TAG;

    for (int n = 1; strstr(body, tag) != NULL; n++)
        snprintf(tag, sizeof(tag), "$__pgt%d$", n);
    text_init(&whole);
    text_put_str(&whole, (struct str){ t->ptr, (size_t)(body - t->ptr) - strlen(BODY_TAG) });
    text_printf(&whole, "%s%s    RETURN NULL;\nEND %s", tag, body, tag);
    text_free(t);
    emit(o, &whole);
}

/* The table may have been dropped behind our back (DROP TABLE): its triggers then do nothing. The
 * function runs with its owner's rights: it may serve no other table's trigger, and what a dump
 * brought to another database must not fail its writers. */
static void put_guard(struct planner *p, struct text *t, uint32_t relid)
{
    text_printf(t,
                "    IF TG_RELID <> %u THEN\n        RETURN NULL;\n    END IF;\n",
                relid);
    text_printf(t,
                "    IF NOT EXISTS (SELECT FROM pgtrickle.pgt_stream_tables s JOIN pg_class c "
                "ON c.oid = s.pgt_relid WHERE s.pgt_id = %lld) THEN\n        RETURN NULL;\n"
                "    END IF;\n",
                (long long)p->def->pgt_id);
}

static void create_trigger(struct output *o, const struct cat_table *source, const char *when,
                           const char *event, const char *transition, const char *suffix,
                           const char *function)
{
    long long id = (long long)o->p->def->pgt_id;
    struct text t;

    text_init(&t);
    text_printf(&t, "CREATE OR REPLACE TRIGGER pgtrickle_i_%lld_%s %s %s ON ", id, suffix, when,
                event);
    text_put_ident(&t, source->schema);
    text_put_char(&t, '.');
    text_put_ident(&t, source->name);
    text_printf(&t, " %s FOR EACH STATEMENT EXECUTE FUNCTION pgtrickle_changes.i_%lld_%s()",
                transition, id, function);
    emit(o, &t);
}

/* ---- independent groups -------------------------------------------------------------------- */

static void put_key_names(struct planner *p, struct text *t)
{
    for (int i = 0; i < p->n_key; i++)
        text_printf(t, "%so.c%d", i > 0 ? ", " : "", p->key[i]);
}

/* What is added to a stored group. */
enum addend { ADD_NOTHING, ADD_EXCLUDED, ADD_CHANGE };

/* "COALESCE(st.x, 0) + COALESCE(new.x, 0) AS s0, …" */
static void put_merged_states(struct planner *p, struct text *t, enum addend addend)
{
    for (int i = 0; i < p->n_states; i++) {
        const struct state *s = &p->states[i];

        text_put(t, i > 0 ? ", COALESCE(st." : "COALESCE(st.");
        text_put_ident(t, p->columns[s->column].name);
        text_put(t, ", 0)");
        if (addend == ADD_EXCLUDED) {
            text_put(t, " + COALESCE(EXCLUDED.");
            text_put_ident(t, p->columns[s->column].name);
            text_put(t, ", 0)");
        } else if (addend == ADD_CHANGE) {
            text_printf(t, " + COALESCE(o.c%d, 0)", s->column);
        }
        text_printf(t, " AS s%d", i);
    }
}

/* SET (every column but the key) = (SELECT … from the merged states). */
static void put_set(struct planner *p, struct text *t, enum addend addend)
{
    struct text base, columns, values, outputs;
    bool first = true;

    text_init(&base);
    text_init(&columns);
    text_init(&values);
    text_init(&outputs);
    text_put(&base, "(SELECT ");
    for (int i = 0; i < p->n_key; i++) {
        text_put(&base, addend == ADD_EXCLUDED ? "EXCLUDED." : "st.");
        text_put_ident(&base, p->columns[p->key[i]].name);
        text_printf(&base, " AS k%d, ", i);
    }
    put_merged_states(p, &base, addend);
    text_put(&base, ")");
    plan_put_outputs(p, base.ptr, false, &outputs);
    for (int i = 0; i < p->n_columns; i++) {
        bool is_key = false;

        for (int k = 0; k < p->n_key; k++)
            is_key = is_key || p->key[k] == i;
        if (is_key)
            continue;
        text_put(&columns, first ? "" : ", ");
        text_put_ident(&columns, p->columns[i].name);
        text_printf(&values, "%sz.c%d", first ? "" : ", ", i);
        first = false;
    }
    text_printf(t, "SET (%s) = (SELECT %s FROM (%s) z)", columns.ptr, values.ptr, outputs.ptr);
    text_free(&base);
    text_free(&columns);
    text_free(&values);
    text_free(&outputs);
}

/* The columns' own changes with nothing to compute: cnt = st.cnt + EXCLUDED.cnt. */
static bool all_shown_plain(const struct planner *p)
{
    for (int i = 0; i < p->n_columns; i++) {
        bool known = false;

        for (int k = 0; k < p->n_key; k++)
            known = known || p->key[k] == i;
        for (int s = 0; s < p->n_states; s++)
            known = known || p->states[s].column == i;
        if (!known)
            return false;
    }
    return true;
}

static void put_plain_set(struct planner *p, struct text *t, bool excluded)
{
    text_put(t, "SET ");
    for (int i = 0; i < p->n_states; i++) {
        const struct state *s = &p->states[i];
        const struct state *only[] = { s, s->kind == STATE_SUM && s->visible ? &p->states[s->count]
                                                                             : NULL };
        struct text merged[2];

        for (int m = 0; m < 2; m++) {
            text_init(&merged[m]);
            if (only[m] == NULL)
                continue;
            text_put(&merged[m], "COALESCE(st.");
            text_put_ident(&merged[m], p->columns[only[m]->column].name);
            text_put(&merged[m], ", 0) + COALESCE(");
            if (excluded) {
                text_put(&merged[m], "EXCLUDED.");
                text_put_ident(&merged[m], p->columns[only[m]->column].name);
            } else {
                text_printf(&merged[m], "o.c%d", only[m]->column);
            }
            text_put(&merged[m], ", 0)");
        }
        text_put(t, i > 0 ? ", " : "");
        text_put_ident(t, p->columns[s->column].name);
        if (only[1] != NULL)
            text_printf(t, " = CASE WHEN %s <> 0 THEN %s END", merged[1].ptr, merged[0].ptr);
        else
            text_printf(t, " = %s", merged[0].ptr);
        text_free(&merged[0]);
        text_free(&merged[1]);
    }
}

static void put_group_upsert(struct planner *p, struct text *t, enum delta_from from)
{
    struct delta d;
    struct text body;

    delta_init(&d, p->a, p->tree, from, 1, p->def->pgt_id);
    text_init(&body);
    plan_put_group_changes(p, &d, &body);
    delta_cte_begin(&d, "a", true);
    text_put_str(&d.with, text_str(&body));
    delta_cte_end(&d);
    text_free(&body);
    delta_cte_begin(&d, "o", true);
    plan_put_outputs(p, "a", true, &d.with);
    delta_cte_end(&d);
    text_printf(t, "    %s\n", d.with.ptr);
    text_free(&d.with);
    if (p->n_key == 0) {
        text_put(t, "    UPDATE ");
        plan_put_target(p, t);
        text_put(t, " st ");
    } else {
        text_put(t, "    INSERT INTO ");
        plan_put_target(p, t);
        text_put(t, " AS st (");
        plan_put_column_names(p, t, NULL);
        text_put(t, ") SELECT ");
        plan_put_column_names(p, t, "o");
        text_put(t, " FROM o ORDER BY ");
        put_key_names(p, t); /* one order for all writers */
        text_put(t, " ON CONFLICT (");
        for (int i = 0; i < p->n_key; i++) {
            text_put(t, i > 0 ? ", " : "");
            text_put_ident(t, p->columns[p->key[i]].name);
        }
        text_put(t, ") DO UPDATE ");
    }
    if (all_shown_plain(p))
        put_plain_set(p, t, p->n_key > 0);
    else
        put_set(p, t, p->n_key > 0 ? ADD_EXCLUDED : ADD_CHANGE);
    text_put(t, p->n_key == 0 ? " FROM o;\n" : ";\n");
}

/* The keys of the groups that rows came to (or left), k0.. as alias k. */
static void put_touched_keys(struct planner *p, struct text *t, struct delta *d, bool came)
{
    const struct op *g = p->group;

    text_put(t, "(SELECT DISTINCT ");
    for (int i = 0; i < g->n_exprs; i++) {
        text_put(t, i > 0 ? ", " : "");
        put_expr_over(t, g->exprs[i], "x");
        text_printf(t, " AS k%d", i);
    }
    text_printf(t, " FROM %s x WHERE x.w %s 0) k", delta_of(d, g->left), came ? ">" : "<");
}

/* A new group was inserted with its sums alone: what is computed from them comes now, when they are
 * known to be all of the group's. */
static void put_group_computed(struct planner *p, struct text *t, enum delta_from from)
{
    const char *separator = "";
    struct delta d;

    if (from == DELTA_FROM_DELETE || p->n_key == 0 || !plan_computes(p))
        return;
    delta_init(&d, p->a, p->tree, from, 1, p->def->pgt_id);
    delta_of(&d, p->group->left);
    text_printf(t, "    %s\n    UPDATE ", d.with.ptr);
    plan_put_target(p, t);
    text_put(t, " st ");
    put_set(p, t, ADD_NOTHING);
    text_put(t, " FROM ");
    put_touched_keys(p, t, &d, true);
    text_put(t, " WHERE ");
    plan_put_key_match(p, t, "k", "k");
    text_put(t, " AND (");
    for (int i = 0; i < p->tree->n_outputs; i++) {
        if (!plan_is_computed(p, i))
            continue;
        text_printf(t, "%sst.", separator);
        text_put_ident(t, p->columns[i].name);
        text_put(t, " IS NULL");
        separator = " OR ";
    }
    text_put(t, ");\n");
    text_free(&d.with);
}

/* A NaN or an infinity was taken out of a sum: these groups are summed anew, under the row locks
 * that the upsert took. One statement may fire several triggers (INSERT … ON CONFLICT DO UPDATE,
 * MERGE), and what one of them sums anew has the changes of the others in it already; so once a
 * group was summed anew, later triggers of the transaction sum theirs anew too. */
static void put_group_repair(struct planner *p, struct text *t, enum delta_from from)
{
    const struct op *g = p->group;
    long long id = (long long)p->def->pgt_id;
    struct delta d;
    bool hash = g->n_exprs > 1;

    if (!plan_has_inexact_state(p))
        return;
    delta_init(&d, p->a, p->tree, from, 1, p->def->pgt_id);
    text_printf(t, "    IF current_setting('pgtrickle.summed_%lld', true) = '1'", id);
    if (from != DELTA_FROM_INSERT) {
        const char *changes = delta_of(&d, g->left);
        bool first = true;

        text_printf(t, " OR EXISTS (%s SELECT FROM %s x WHERE x.w < 0 AND (", d.with.ptr, changes);
        for (int i = 0; i < p->n_states; i++) {
            if (p->states[i].exact)
                continue;
            text_put(t, first ? "(" : " OR (");
            put_expr_over(t, p->states[i].arg, "x");
            text_put(t, ") IN ('NaN'::numeric, 'Infinity'::numeric, '-Infinity'::numeric)");
            first = false;
        }
        text_put(t, "))");
    }
    text_printf(t, " THEN\n        PERFORM set_config('pgtrickle.summed_%lld', '1', true);\n", id);
    text_free(&d.with);
    delta_init(&d, p->a, p->tree, from, 1, p->def->pgt_id);
    delta_of(&d, g->left);
    for (int i = 0; i < g->n_exprs; i++)
        hash = hash && g->key_types[i].has_hash;
    delta_cte_begin(&d, "bad", true);
    text_put(&d.with, "SELECT DISTINCT ");
    for (int i = 0; i < g->n_exprs; i++) {
        text_put(&d.with, i > 0 ? ", " : "");
        put_expr_over(&d.with, g->exprs[i], "x");
        text_printf(&d.with, " AS k%d", i);
    }
    if (g->n_exprs == 0)
        text_put(&d.with, "1");
    if (hash) {
        text_put(&d.with, ", pg_catalog.hash_record_extended(ROW(");
        for (int i = 0; i < g->n_exprs; i++) {
            text_put(&d.with, i > 0 ? ", " : "");
            put_expr_over(&d.with, g->exprs[i], "x");
        }
        text_put(&d.with, "), 0) AS h");
    }
    text_printf(&d.with, " FROM %s x", delta_of(&d, g->left));
    delta_cte_end(&d);
    delta_cte_begin(&d, "r", false);
    plan_put_group_states(p, &d.with, "bad");
    delta_cte_end(&d);
    delta_cte_begin(&d, "o", true);
    plan_put_outputs(p, "r", false, &d.with);
    delta_cte_end(&d);
    text_printf(t, "        %s\n        UPDATE ", d.with.ptr);
    plan_put_target(p, t);
    text_put(t, " st SET ");
    for (int i = 0; i < p->n_columns; i++) {
        text_put(t, i > 0 ? ", " : "");
        text_put_ident(t, p->columns[i].name);
        text_printf(t, " = o.c%d", i);
    }
    text_put(t, " FROM o WHERE ");
    plan_put_key_match(p, t, "o", "c");
    text_put(t, ";\n    END IF;\n");
    text_free(&d.with);
}

static void put_group_cleanup(struct planner *p, struct text *t, enum delta_from from)
{
    const struct op *g = p->group;
    struct delta d;

    if (from == DELTA_FROM_INSERT || p->n_key == 0)
        return;
    delta_init(&d, p->a, p->tree, from, 1, p->def->pgt_id);
    delta_of(&d, g->left);
    text_printf(t, "    %s\n    DELETE FROM ", d.with.ptr);
    plan_put_target(p, t);
    text_put(t, " st USING ");
    put_touched_keys(p, t, &d, false);
    text_put(t, " WHERE st.");
    text_put_ident(t, p->columns[p->states[0].column].name);
    text_put(t, " = 0 AND ");
    plan_put_key_match(p, t, "k", "k");
    text_put(t, ";\n");
    text_free(&d.with);
}

static void put_independent(struct output *o)
{
    struct planner *p = o->p;
    const struct cat_table *source = p->tree->sources[0];

    for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++) {
        const struct event *ev = &events[i];
        struct text t;

        text_init(&t);
        begin_function(p, &t, ev->name);
        text_printf(&t,
                    "    IF NOT EXISTS (SELECT FROM %s) THEN\n        RETURN NULL;\n"
                    "    END IF;\n",
                    ev->any);
        put_guard(p, &t, source->oid);
        if (p->strategy == STRATEGY_ALGEBRAIC) {
            put_group_upsert(p, &t, ev->from);
            put_group_computed(p, &t, ev->from);
            put_group_repair(p, &t, ev->from);
            put_group_cleanup(p, &t, ev->from);
        } else {
            text_printf(&t, "    %s;\n", plan_delta(p, ev->from, 1, "__pgt_row"));
        }
        end_function(o, &t);
        create_trigger(o, source, "AFTER", ev->sql, ev->transition, ev->name, ev->name);
    }
    {
        struct text t;

        text_init(&t);
        begin_function(p, &t, "trunc");
        put_guard(p, &t, source->oid);
        text_printf(&t, "    %s;\n", plan_full(p, "__pgt_row"));
        end_function(o, &t);
        create_trigger(o, source, "AFTER", "TRUNCATE", "", "trunc", "trunc");
    }
}

/* ---- writers in turn ----------------------------------------------------------------------- */

static void put_setting(struct text *t, const char *name, long long id, const char *value)
{
    text_printf(t, "PERFORM set_config('pgtrickle.%s_%lld', %s, true);\n", name, id, value);
}

static void put_captured_columns(struct planner *p, struct text *t, int source, const char *prefix,
                                 bool with_types)
{
    const struct cat_table *table = p->tree->sources[source];

    for (int c = 0; c < table->n_columns; c++) {
        if (!plan_captures(p, source, c))
            continue;
        if (prefix == NULL) {
            text_printf(t, ", a%d", table->columns[c].attnum);
            if (with_types)
                text_printf(t, " %s", table->columns[c].type);
        } else {
            text_printf(t, ", %s.", prefix);
            text_put_ident(t, table->columns[c].name);
        }
    }
}

static void put_collect_from(struct planner *p, struct text *t, int source, const char *weight,
                             const char *table)
{
    text_printf(t, "        INSERT INTO pgtrickle_changes.p_%lld_%u (__pgt_xid, __pgt_w",
                (long long)p->def->pgt_id, p->tree->sources[source]->oid);
    put_captured_columns(p, t, source, NULL, false);
    text_printf(t, ") SELECT pg_current_xact_id(), %s", weight);
    put_captured_columns(p, t, source, "b", false);
    text_printf(t, " FROM %s b;\n", table);
}

static void put_collect(struct planner *p, struct text *t, int source, enum delta_from from)
{
    if (from != DELTA_FROM_INSERT)
        put_collect_from(p, t, source, "-1", "__pgt_old");
    if (from != DELTA_FROM_DELETE)
        put_collect_from(p, t, source, "1", "__pgt_new");
}

static void put_forget(struct planner *p, struct text *t, const char *indent)
{
    for (int i = 0; i < p->tree->n_sources; i++)
        text_printf(t,
                    "%sDELETE FROM pgtrickle_changes.p_%lld_%u WHERE __pgt_xid = "
                    "pg_current_xact_id();\n",
                    indent, (long long)p->def->pgt_id, p->tree->sources[i]->oid);
    text_put(t, indent);
    put_setting(t, "collected", (long long)p->def->pgt_id, "''");
}

/* Not again when the row is of this transaction already: its versions could not be pruned. */
static void put_turn(struct planner *p, struct text *t)
{
    text_printf(t,
                "    UPDATE pgtrickle_changes.l_%lld SET n = n + 1 "
                "WHERE xmin <> pg_current_xact_id()::xid;\n",
                (long long)p->def->pgt_id);
}

static void put_close(struct planner *p, struct text *t)
{
    long long id = (long long)p->def->pgt_id;

    text_printf(t,
                "    __pgt_open := COALESCE(NULLIF(current_setting('pgtrickle.open_%lld', true), "
                "''), '1')::int - 1;\n    ",
                id);
    put_setting(t, "open", id, "__pgt_open::text");
}

static void put_ordered_event(struct output *o, int source, const struct event *ev)
{
    struct planner *p = o->p;
    const struct cat_table *table = p->tree->sources[source];
    long long id = (long long)p->def->pgt_id;
    char name[64];
    struct text t;

    text_init(&t);
    snprintf(name, sizeof(name), "%u_%s", table->oid, ev->name);
    begin_function(p, &t, name);
    put_close(p, &t);
    put_guard(p, &t, table->oid);
    text_printf(&t, "    IF __pgt_open > 0 THEN\n        IF EXISTS (SELECT FROM %s) THEN\n",
                ev->any);
    put_collect(p, &t, source, ev->from);
    text_printf(&t,
                "        IF COALESCE(current_setting('pgtrickle.collected_%lld', true), '') = '' "
                "THEN\n            ",
                id);
    put_setting(&t, "collected", id, "'rows'");
    text_put(&t, "        END IF;\n        END IF;\n        RETURN NULL;\n    END IF;\n");
    text_printf(&t,
                "    CASE COALESCE(current_setting('pgtrickle.collected_%lld', true), '')\n"
                "    WHEN '' THEN\n        IF EXISTS (SELECT FROM %s) THEN\n",
                id, ev->any);
    text_printf(&t, "        %s;\n        END IF;\n    WHEN 'rows' THEN\n",
                plan_delta(p, ev->from, (uint64_t)1 << source, "__pgt_row"));
    put_collect(p, &t, source, ev->from);
    text_printf(&t, "        %s;\n", plan_delta(p, DELTA_FROM_PENDING, ~(uint64_t)0, "__pgt_row"));
    put_forget(p, &t, "        ");
    text_put(&t, "    ELSE\n");
    text_printf(&t, "        %s;\n", plan_full(p, "__pgt_row"));
    put_forget(p, &t, "        ");
    text_put(&t, "    END CASE;\n");
    end_function(o, &t);
    snprintf(name, sizeof(name), "%u_%s", table->oid, ev->name);
    create_trigger(o, table, "AFTER", ev->sql, ev->transition, ev->name, name);
}

static void put_ordered_truncate(struct output *o, int source)
{
    struct planner *p = o->p;
    const struct cat_table *table = p->tree->sources[source];
    char name[64];
    struct text t;

    text_init(&t);
    snprintf(name, sizeof(name), "%u_trunc", table->oid);
    begin_function(p, &t, name);
    put_close(p, &t);
    put_guard(p, &t, table->oid);
    text_put(&t, "    IF __pgt_open > 0 THEN\n        ");
    put_setting(&t, "collected", (long long)p->def->pgt_id, "'all'");
    text_put(&t, "        RETURN NULL;\n    END IF;\n");
    text_printf(&t, "    %s;\n", plan_full(p, "__pgt_row"));
    put_forget(p, &t, "    ");
    end_function(o, &t);
    create_trigger(o, table, "AFTER", "TRUNCATE", "", "trunc", name);
}

static void put_in_turn(struct output *o)
{
    struct planner *p = o->p;
    long long id = (long long)p->def->pgt_id;
    struct text t;

    text_init(&t);
    text_printf(&t, "CREATE TABLE pgtrickle_changes.l_%lld (n bigint) WITH (fillfactor = 10)", id);
    emit(o, &t);
    text_init(&t);
    text_printf(&t, "INSERT INTO pgtrickle_changes.l_%lld VALUES (0)", id);
    emit(o, &t);
    text_init(&t);
    begin_function(p, &t, "open");
    put_turn(p, &t);
    text_printf(&t,
                "    PERFORM set_config('pgtrickle.open_%lld', (COALESCE(NULLIF(current_setting("
                "'pgtrickle.open_%lld', true), ''), '0')::int + 1)::text, true);\n",
                id, id);
    end_function(o, &t);
    for (int i = 0; i < p->tree->n_sources; i++) {
        const struct cat_table *table = p->tree->sources[i];

        text_init(&t);
        text_printf(&t,
                    "CREATE UNLOGGED TABLE pgtrickle_changes.p_%lld_%u (__pgt_xid xid8, "
                    "__pgt_w smallint",
                    id, table->oid);
        put_captured_columns(p, &t, i, NULL, true);
        text_put(&t, ")");
        emit(o, &t);
    }
    for (int i = 0; i < p->tree->n_sources; i++) {
        const struct cat_table *table = p->tree->sources[i];

        create_trigger(o, table, "BEFORE", "INSERT OR UPDATE OR DELETE OR TRUNCATE", "", "open",
                       "open");
        for (size_t ev = 0; ev < sizeof(events) / sizeof(events[0]); ev++)
            put_ordered_event(o, i, &events[ev]);
        put_ordered_truncate(o, i);
    }
}

void immediate_put_sql(struct planner *p, const char ***sql, int *n)
{
    struct output o = { .p = p };

    if (is_independent(p))
        put_independent(&o);
    else
        put_in_turn(&o);
    *sql = o.sql;
    *n = o.n;
}
