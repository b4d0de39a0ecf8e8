/* dvm_compile: analysis, decision, plan.
 *
 * libpg_query's converter and our walks recurse with the nesting of the definition, so the whole
 * runs on a thread with a stack that fits the longest text that sql_parse.c accepts.
 */
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "dvm/analyze.h"
#include "dvm/dvm.h"
#include "dvm/immediate.h"
#include "dvm/optree.h"
#include "dvm/plan.h"
#include "dvm/sql_parse.h"
#include "dvm/support.h"
#include "dvm/types.h"

#define STACK_BYTES ((size_t)64 * 1024 * 1024)
/* With more sources than this only single-source statements and the one for all are kept. */
#define MASK_SOURCES_MAX 3

struct compilation {
    struct dvm_db *db;
    struct arena *a;
    const struct dvm_definition *d;
    struct dvm_plan *plan;
    struct err *e;
    struct catalog cat;
    struct optree *tree;
    struct planner planner;
    bool ok;
};

static bool refuse(struct compilation *c, const struct refusal *r)
{
    err_set(c->e, ERR_REFUSAL, "0A000", "%s can't be maintained %s", r->what,
            c->d->mode == DVM_IMMEDIATE ? "in IMMEDIATE mode" : "differentially");
    if (r->hint != NULL)
        err_hint(c->e, "%s", r->hint);
    else
        err_hint(c->e, "Use refresh_mode 'FULL' (or 'AUTO', which falls back to it).");
    c->e->position = sql_locate(c->d->query, r);
    return false;
}

static bool refuse_any(struct compilation *c, const struct refusal *r)
{
    err_set(c->e, ERR_REFUSAL, "0A000", "a stream table can't be defined over %s", r->what);
    if (r->hint != NULL)
        err_hint(c->e, "%s", r->hint);
    c->e->position = sql_locate(c->d->query, r);
    return false;
}

static bool refuse_volatile(struct compilation *c, const struct cat_function *f)
{
    struct refusal r = { .kind = REFUSAL_FUNCTION, .name = f->name };

    err_set(c->e, ERR_REFUSAL, "0A000",
            "the volatile function %s can't be used in a stream table's definition", f->name);
    err_detail(c->e, "Its result may differ at each evaluation, so there is no one result to "
                     "maintain.");
    err_hint(c->e, "Use refresh_mode 'FULL' to store one evaluation at each refresh, or declare "
                   "the function IMMUTABLE or STABLE if it is.");
    c->e->position = sql_locate(c->d->query, &r);
    return false;
}

static void warn(struct compilation *c, const char *message)
{
    struct dvm_plan *p = c->plan;
    const char **more = arena_new_array(c->a, const char *, (size_t)p->n_warnings + 1);

    for (int i = 0; i < p->n_warnings; i++)
        more[i] = p->warnings[i];
    more[p->n_warnings++] = message;
    p->warnings = more;
}

/* The tree, or NULL with *r. IMMEDIATE has no clock. */
static struct optree *differential_tree(struct compilation *c, struct refusal *r)
{
    struct query *q;
    struct optree *t;

    if (!support_check_differential(c->a, &c->cat, c->d->mode == DVM_IMMEDIATE, r))
        return NULL;
    q = sql_parse(c->a, &c->cat, c->cat.canonical, r);
    t = q != NULL ? optree_build(c->a, &c->cat, q, r) : NULL;
    if (t == NULL)
        return NULL;
    if (t->n_sources > 60) {
        *r = (struct refusal){ .kind = REFUSAL_OTHER, .what = "a join of more than 60 tables" };
        return NULL;
    }
    if (t->time_dependent && c->d->mode == DVM_IMMEDIATE) {
        *r = (struct refusal){
            .kind = REFUSAL_TIME,
            .what = "the current time",
            .hint = "Nothing is written when time passes: use refresh_mode 'DIFFERENTIAL' with a "
                    "schedule.",
        };
        return NULL;
    }
    /* Everything would be compared anew each time. */
    if (t->shows_time && c->d->mode == DVM_AUTO) {
        *r = (struct refusal){ .kind = REFUSAL_TIME, .what = "a row that shows the current time" };
        return NULL;
    }
    for (int i = 0; c->d->mode == DVM_IMMEDIATE && i < t->n_sources; i++)
        if (t->sources[i]->has_children) {
            *r = (struct refusal){
                .kind = REFUSAL_TABLE,
                .what = arena_printf(c->a, "partitioned and inherited tables (\"%s\")",
                                     t->sources[i]->name),
                .name = t->sources[i]->name,
                .hint = "Rows written to a new partition itself would be missed: use refresh_mode "
                        "'DIFFERENTIAL' with a schedule.",
            };
            return NULL;
        }
    if (q->dropped_order)
        warn(c, "ORDER BY in the definition has no effect on a stream table");
    return t;
}

static bool decide(struct compilation *c)
{
    struct refusal r = { 0 };
    const struct cat_function *v = support_find_volatile(&c->cat);

    if (!support_check_any(c->a, &c->cat, &r) ||
        !sql_equality_is_certain(c->a, &c->cat, c->cat.canonical, &r))
        return refuse_any(c, &r);
    if (c->d->mode == DVM_FULL) {
        if (v != NULL)
            warn(c, arena_printf(c->a, "the volatile function %s is evaluated anew at each refresh",
                                 v->name));
        return true;
    }
    if (v != NULL)
        return refuse_volatile(c, v);
    c->tree = differential_tree(c, &r);
    if (c->tree != NULL && !types_fill(c->db, c->a, c->tree, &r, c->e)) {
        if (r.kind == REFUSAL_NONE)
            return false;
        c->tree = NULL;
    }
    if (c->tree != NULL)
        return true;
    if (c->d->mode != DVM_AUTO)
        return refuse(c, &r);
    c->plan->downgrade_reason = arena_printf(c->a, "%s can't be maintained differentially", r.what);
    return true;
}

/* ---- writing the plan down ----------------------------------------------------------------- */

static void put_sources(struct compilation *c)
{
    struct dvm_plan *p = c->plan;
    const struct catalog *cat = &c->cat;

    p->sources = arena_new_array(c->a, struct dvm_plan_source, (size_t)cat->n_tables);
    /* Captured sources first, in the order of their bits. */
    for (int i = 0; c->tree != NULL && i < c->tree->n_sources; i++) {
        const struct cat_table *t = c->tree->sources[i];
        struct dvm_plan_source *s = &p->sources[p->n_sources++];
        int *attnums = arena_new_array(c->a, int, (size_t)t->n_columns);

        s->relid = t->oid;
        s->schema = t->schema;
        s->name = t->name;
        s->is_stream_table = t->is_stream_table;
        s->columns = arena_new_array(c->a, const char *, (size_t)t->n_columns);
        s->column_types = arena_new_array(c->a, const char *, (size_t)t->n_columns);
        bool any = false; /* count(*) needs none, and a source without columns is not captured */
        for (int k = 0; k < t->n_columns; k++)
            any = any || plan_captures(&c->planner, i, k);
        for (int k = 0; k < t->n_columns; k++) {
            if (any ? !plan_captures(&c->planner, i, k) : k > 0)
                continue;
            s->columns[s->n_columns] = t->columns[k].name;
            s->column_types[s->n_columns] = t->columns[k].type;
            attnums[s->n_columns++] = t->columns[k].attnum;
        }
        s->attnums = attnums;
    }
    for (int i = 0; i < cat->n_tables; i++) {
        const struct cat_table *t = &cat->tables[i];
        bool captured = false;

        for (int k = 0; c->tree != NULL && k < c->tree->n_sources; k++)
            captured = captured || c->tree->sources[k] == t;
        if (captured)
            continue;
        p->sources[p->n_sources++] = (struct dvm_plan_source){
            .relid = t->oid,
            .schema = t->schema,
            .name = t->name,
            .is_stream_table = t->is_stream_table,
            .is_view = t->relkind == 'v',
        };
    }
}

/* Those that someone may replace. */
static void put_functions(struct compilation *c)
{
    struct dvm_plan *p = c->plan;
    uint32_t *oids = arena_new_array(c->a, uint32_t, (size_t)c->cat.n_functions);

    p->functions = oids;
    for (int i = 0; i < c->cat.n_functions; i++)
        if (!c->cat.functions[i].builtin)
            oids[p->n_functions++] = c->cat.functions[i].oid;
}

static bool put_columns(struct compilation *c)
{
    struct planner *p = &c->planner;
    struct dvm_plan *plan = c->plan;
    struct value_type *untyped = arena_new_array(c->a, struct value_type, (size_t)p->n_columns);
    const char **types = arena_new_array(c->a, const char *, (size_t)p->n_columns);
    int n = 0;

    for (int i = 0; i < p->n_columns; i++)
        if (p->columns[i].type == NULL)
            untyped[n++] = p->columns[i].facts;
    if (!types_format(c->db, c->a, untyped, n, types, c->e))
        return false;
    n = 0;
    for (int i = 0; i < p->n_columns; i++)
        if (p->columns[i].type == NULL)
            p->columns[i].type = types[n++];
    plan->n_columns = p->n_columns;
    plan->columns = arena_new_array(c->a, struct dvm_plan_column, (size_t)p->n_columns);
    for (int i = 0; i < p->n_columns; i++)
        plan->columns[i] = (struct dvm_plan_column){
            .name = p->columns[i].name,
            .type = p->columns[i].type,
            .hidden = p->columns[i].hidden,
            .not_null = p->columns[i].not_null,
        };
    plan->n_key_columns = p->n_key;
    plan->key_columns = arena_new_array(c->a, const char *, (size_t)p->n_key);
    for (int i = 0; i < p->n_key; i++)
        plan->key_columns[i] = p->columns[p->key[i]].name;
    return true;
}

static const char *strategy_name(enum strategy s)
{
    switch (s) {
    case STRATEGY_FULL:
        return "full";
    case STRATEGY_LINEAR:
        return "linear";
    case STRATEGY_PARTITION:
        return "partition";
    case STRATEGY_FIRST_ROWS:
        return "first rows";
    case STRATEGY_RECOMPUTE:
        return "recompute";
    case STRATEGY_ALGEBRAIC:
        return "algebraic";
    }
    return "?";
}

static void put_delta_json(struct compilation *c, struct text *json, bool *first, const char *mask,
                           uint64_t changed)
{
    const char *sql = plan_delta(&c->planner, DELTA_FROM_BUFFER, changed, NULL);

    if (sql == NULL)
        return;
    text_put(json, *first ? "" : ", ");
    text_put_json(json, str_from(mask));
    text_put(json, ": ");
    text_put_json(json, str_from(sql));
    *first = false;
}

static uint64_t largest_sources(const struct optree *t, int n)
{
    uint64_t mask = 0;

    for (int k = 0; k < n; k++) {
        int largest = -1;

        for (int i = 0; i < t->n_sources; i++)
            if ((mask >> i & 1) == 0 &&
                (largest < 0 || t->sources[i]->rows > t->sources[largest]->rows))
                largest = i;
        if (largest < 0)
            break;
        mask |= (uint64_t)1 << largest;
    }
    return mask;
}

/* All subsets of a few sources. Of many: each alone, and the largest n of them for every n, since
 * small tables seldom change; what changed is then covered without the terms of those that never
 * do. */
static void put_deltas(struct compilation *c, struct text *json)
{
    int n = c->tree->n_sources;
    bool first = true;
    char mask[32];

    text_put(json, ", \"deltas\": {");
    if (c->tree->time_dependent)
        put_delta_json(c, json, &first, "0", 0);
    for (uint64_t m = 1; n <= MASK_SOURCES_MAX && m < (uint64_t)1 << n; m++) {
        snprintf(mask, sizeof(mask), "%llu", (unsigned long long)m);
        put_delta_json(c, json, &first, mask, m);
    }
    for (int i = 0; n > MASK_SOURCES_MAX && i < n; i++) {
        snprintf(mask, sizeof(mask), "%llu", (unsigned long long)1 << i);
        put_delta_json(c, json, &first, mask, (uint64_t)1 << i);
    }
    for (int i = 2; n > MASK_SOURCES_MAX && i < n; i++) {
        uint64_t m = largest_sources(c->tree, i);

        snprintf(mask, sizeof(mask), "%llu", (unsigned long long)m);
        put_delta_json(c, json, &first, mask, m);
    }
    put_delta_json(c, json, &first, "all", ~(uint64_t)0);
    text_put(json, "}");
}

/* What the catalog's row does not say already: its strategy, key, deltas are printed from there. */
static void put_explain(struct compilation *c)
{
    struct planner *p = &c->planner;
    struct text t;

    text_init(&t);
    for (int i = 0; i < p->n_columns; i++)
        if (p->columns[i].hidden)
            text_printf(&t, "Hidden column: %s %s\n", p->columns[i].name, p->columns[i].type);
    if (c->tree != NULL)
        optree_dump(c->tree, &t);
    if (c->tree != NULL && c->tree->shows_time)
        text_put(&t, "Time: rows show it, so each refresh evaluates all of them twice\n");
    for (int i = 0; i < c->plan->n_sources; i++) {
        const struct dvm_plan_source *s = &c->plan->sources[i];

        text_printf(&t, "Source: %s.%s%s", s->schema, s->name, s->is_view ? " (view)" : "");
        for (int k = 0; k < s->n_columns; k++)
            text_printf(&t, "%s%s", k > 0 ? ", " : " captures ", s->columns[k]);
        text_put(&t, "\n");
    }
    c->plan->explain = arena_strdup(c->a, t.ptr);
    text_free(&t);
}

static void put_json(struct compilation *c)
{
    struct dvm_plan *plan = c->plan;
    struct text json;

    text_init(&json);
    text_printf(&json, "{\"strategy\": \"%s\", \"time\": %s, \"sources\": [", plan->strategy,
                plan->time_dependent ? "true" : "false");
    for (int i = 0; c->tree != NULL && i < c->tree->n_sources; i++)
        text_printf(&json, "%s{\"relid\": %u, \"bit\": %d}", i > 0 ? ", " : "",
                    plan->sources[i].relid, i);
    text_put(&json, "]");
    if (c->tree != NULL)
        put_deltas(c, &json);
    text_put(&json, ", \"full\": ");
    text_put_json(&json, str_from(plan_full(&c->planner, NULL)));
    text_put(&json, ", \"check\": ");
    text_put_json(&json, str_from(plan_check(&c->planner, false)));
    text_put(&json, ", \"check_own\": ");
    text_put_json(&json, str_from(plan_check(&c->planner, true)));
    text_put(&json, ", \"fill\": ");
    text_put_json(&json, str_from(plan->fill_sql));
    text_put(&json, ", \"explain\": ");
    text_put_json(&json, str_from(plan->explain));
    text_put(&json, "}");
    plan->plan_json = arena_strdup(c->a, json.ptr);
    text_free(&json);
}

/* The types of a definition that is only run as a whole. */
static bool type_outputs(struct compilation *c)
{
    struct planner *p = &c->planner;
    uint32_t *oids = arena_new_array(c->a, uint32_t, (size_t)p->n_columns);
    struct type_facts *facts = arena_new_array(c->a, struct type_facts, (size_t)p->n_columns);

    for (int i = 0; i < p->n_columns; i++)
        oids[i] = c->cat.outputs[i].type_oid;
    if (!analyze_types(c->db, c->a, oids, p->n_columns, facts, c->e))
        return false;
    for (int i = 0; i < p->n_columns; i++) {
        p->columns[i].facts.has_equality = facts[i].has_equality;
        p->columns[i].facts.has_hash = facts[i].has_hash;
        p->columns[i].facts.exact = facts[i].exact;
    }
    return true;
}

static bool compile(struct compilation *c)
{
    struct dvm_plan *plan = c->plan;

    *plan = (struct dvm_plan){ 0 };
    if (!analyze(c->db, c->a, c->d, &c->cat, c->e) || !decide(c))
        return false;
    planner_init(&c->planner, c->a, c->d, &c->cat, c->tree);
    if ((c->tree == NULL && !type_outputs(c)) || !put_columns(c))
        return false;
    plan->mode = c->tree == NULL               ? DVM_FULL
                 : c->d->mode == DVM_IMMEDIATE ? DVM_IMMEDIATE
                                               : DVM_DIFFERENTIAL;
    plan->strategy = strategy_name(c->planner.strategy);
    plan->canonical_query = c->cat.canonical;
    plan->time_dependent = c->tree != NULL && c->tree->time_dependent;
    put_sources(c);
    put_functions(c);
    plan_put_create(&c->planner, &plan->create_sql, &plan->n_create_sql);
    plan->fill_sql = plan_fill(&c->planner);
    if (plan->mode == DVM_IMMEDIATE)
        immediate_put_sql(&c->planner, &plan->immediate_sql, &plan->n_immediate_sql);
    put_explain(c);
    put_json(c);
    return true;
}

static void *compile_thread(void *arg)
{
    struct compilation *c = arg;

    c->ok = compile(c);
    return NULL;
}

bool dvm_compile(struct dvm_db *db, struct arena *a, const struct dvm_definition *d,
                 struct dvm_plan *plan, struct err *e)
{
    struct compilation c = { .db = db, .a = a, .d = d, .plan = plan, .e = e };
    pthread_attr_t attr;
    pthread_t thread;
    int failed;

    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    failed = pthread_create(&thread, &attr, compile_thread, &c);
    pthread_attr_destroy(&attr);
    if (failed != 0)
        return err_set(e, ERR_RESOURCE, "53000", "could not start a thread: %s", strerror(failed));
    pthread_join(thread, NULL);
    return c.ok;
}
