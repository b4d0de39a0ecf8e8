/* sql_parse, optree and delta over a catalog made by hand: keys, NOT NULL, what is needed, what is
 * refused and where, and the SQL of a few deltas.
 */
#include "dvm/sql_parse.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/text.h"
#include "dvm/catalog.h"
#include "dvm/delta/delta.h"
#include "dvm/optree.h"
#include "dvm/support.h"

static struct cat_column a_columns[] = {
    { .attnum = 1,
      .name = "id",
      .type = "integer",
      .has_equality = true,
      .exact = true,
      .not_null = true },
    { .attnum = 2, .name = "k", .type = "integer", .has_equality = true, .exact = true },
    { .attnum = 4, .name = "v", .type = "numeric", .has_equality = true },
};
static struct cat_column b_columns[] = {
    { .attnum = 1,
      .name = "x",
      .type = "integer",
      .has_equality = true,
      .exact = true,
      .not_null = true },
    { .attnum = 2,
      .name = "y",
      .type = "integer",
      .has_equality = true,
      .exact = true,
      .not_null = true },
    { .attnum = 3, .name = "t", .type = "text", .has_equality = true, .exact = true },
};
static struct cat_column bag_columns[] = {
    { .attnum = 1, .name = "k", .type = "integer", .has_equality = true, .exact = true },
    { .attnum = 2, .name = "j", .type = "json" },
};
static struct cat_column view_columns[] = {
    { .attnum = 1, .name = "k", .type = "integer" },
    { .attnum = 2, .name = "n", .type = "bigint" },
};
static int a_key_columns[] = { 0 }, b_key_columns[] = { 0, 1 };
static struct cat_key a_keys[] = { { a_key_columns, 1, true } };
static struct cat_key b_keys[] = { { b_key_columns, 2, true } };
static struct cat_table tables[] = {
    { .oid = 100,
      .schema = "s",
      .name = "a",
      .relkind = 'r',
      .columns = a_columns,
      .n_columns = 3,
      .keys = a_keys,
      .n_keys = 1 },
    { .oid = 101,
      .schema = "s",
      .name = "b",
      .relkind = 'r',
      .columns = b_columns,
      .n_columns = 3,
      .keys = b_keys,
      .n_keys = 1 },
    { .oid = 102,
      .schema = "s",
      .name = "bag",
      .relkind = 'r',
      .columns = bag_columns,
      .n_columns = 2 },
    { .oid = 103,
      .schema = "s",
      .name = "va",
      .relkind = 'v',
      .columns = view_columns,
      .n_columns = 2,
      .view_definition = " SELECT a.k,\n    count(*) AS n\n   FROM s.a\n  GROUP BY a.k;" },
};
static struct cat_function functions[] = {
    { .schema = "pg_catalog",
      .name = "count",
      .volatility = 'i',
      .aggregate = true,
      .builtin = true },
    { .schema = "pg_catalog",
      .name = "sum",
      .volatility = 'i',
      .aggregate = true,
      .builtin = true },
    { .schema = "pg_catalog",
      .name = "max",
      .volatility = 'i',
      .aggregate = true,
      .builtin = true },
    { .schema = "pg_catalog",
      .name = "string_agg",
      .volatility = 'i',
      .aggregate = true,
      .builtin = true },
};
static struct catalog catalog = {
    .tables = tables, .n_tables = 4, .functions = functions, .n_functions = 4
};

struct fixture {
    struct arena a;
    struct refusal refused;
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    arena_init(&f->a);
    *state = f;
    return f == NULL;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    arena_free(&f->a);
    free(f);
    return 0;
}

/* Wraps the definition as analyze.c does. */
static struct optree *build(struct fixture *f, const char *definition)
{
    const char *canonical = arena_printf(&f->a, "SELECT q.c0 FROM ( %s) q(c0)", definition);
    struct query *q = sql_parse(&f->a, &catalog, canonical, &f->refused);

    return q != NULL ? optree_build(&f->a, &catalog, q, &f->refused) : NULL;
}

/* The names of the root's key columns; "-": no key. */
static void assert_key(struct fixture *f, const char *definition, const char *expected)
{
    struct optree *t = build(f, definition);
    struct text got;

    if (t == NULL)
        fail_msg("%s: refused for %s", definition, f->refused.what);
    text_init(&got);
    for (int i = 0; t != NULL && i < t->root->n_key; i++)
        text_printf(&got, "%s%s%s", i > 0 ? " " : "", t->root->columns[t->root->key[i]].name,
                    t->root->key[i] >= t->n_outputs ? "*" : "");
    if (t != NULL && !t->root->has_key)
        text_put(&got, "-");
    assert_string_equal(got.ptr != NULL ? got.ptr : "", expected);
    text_free(&got);
}

static void test_keys(void **state)
{
    assert_key(*state, "SELECT a.id, a.v FROM s.a", "id");
    assert_key(*state, "SELECT a.v FROM s.a", "id*");
    assert_key(*state, "SELECT a.id + 1 AS id FROM s.a", "id*");
    assert_key(*state, "SELECT b.t, b.y FROM s.b", "x* y");
    assert_key(*state, "SELECT bag.k FROM s.bag", "-");
    /* the whole key of b is equated: one b for each a */
    assert_key(*state, "SELECT a.id, b.t FROM s.a JOIN s.b ON a.k = b.x AND a.id = b.y", "id");
    assert_key(*state, "SELECT a.id, b.t FROM s.a LEFT JOIN s.b ON a.k = b.x AND b.y = a.id", "id");
    assert_key(*state, "SELECT a.id, b.x, b.y FROM s.a JOIN s.b ON a.k = b.x", "id x y");
    assert_key(*state, "SELECT a.id, bag.k FROM s.a JOIN s.bag ON a.k = bag.k", "-");
    assert_key(*state, "SELECT b.x, b.y, a.v FROM s.a RIGHT JOIN s.b ON b.x = a.id", "x y");
    assert_key(*state, "SELECT a.k, count(*) AS n FROM s.a GROUP BY a.k", "k");
    assert_key(*state, "SELECT count(*) AS n FROM s.a GROUP BY a.k", "k*");
    assert_key(*state, "SELECT count(*) AS n FROM s.a", "");
    assert_key(*state, "SELECT DISTINCT a.k, a.v FROM s.a", "k v");
    assert_key(*state, "SELECT DISTINCT a.id, a.k FROM s.a", "id");
    assert_key(*state, "SELECT DISTINCT ON (a.k) a.k, a.v FROM s.a ORDER BY a.k, a.v", "k");
    assert_key(*state, "SELECT a.id FROM s.a UNION ALL SELECT b.x FROM s.b", "-");
    assert_key(*state, "SELECT a.id FROM s.a UNION SELECT b.x FROM s.b", "id");
    assert_key(*state, "SELECT va.n, a.id FROM s.a JOIN s.va ON va.k = a.k", "id");
}

static void test_not_null(void **state)
{
    struct optree *t =
        build(*state, "SELECT a.id, a.k, b.x, count(b.y) AS n FROM s.a LEFT JOIN s.b ON a.id = "
                      "b.x GROUP BY a.id, a.k, b.x");

    assert_non_null(t);
    assert_true(t->root->columns[0].not_null);
    assert_false(t->root->columns[1].not_null);
    assert_false(t->root->columns[2].not_null); /* padded */
    assert_true(t->root->columns[3].not_null);
}

static const struct op *find_scan(const struct op *op, const char *table)
{
    const struct op *found;

    if (op == NULL)
        return NULL;
    if (op->kind == OP_SCAN)
        return strcmp(op->table->name, table) == 0 ? op : NULL;
    found = find_scan(op->left, table);
    return found != NULL ? found : find_scan(op->right, table);
}

static void test_needed(void **state)
{
    struct optree *t =
        build(*state, "SELECT b.t, count(*) AS n FROM s.a JOIN s.b ON a.k = b.x WHERE a.v > "
                      "(1)::numeric GROUP BY b.t");
    const struct op *a, *b;

    assert_non_null(t);
    a = find_scan(t->root, "a");
    b = find_scan(t->root, "b");
    assert_false(a->needed[0]); /* id */
    assert_true(a->needed[1]);  /* joined by */
    assert_true(a->needed[2]);  /* filtered by */
    assert_true(b->needed[0]);
    assert_false(b->needed[1]);
    assert_true(b->needed[2]);
    assert_int_equal(t->n_sources, 2);
}

static void test_refusals(void **state)
{
    static const struct {
        const char *definition; /* both canonical and the user's own text */
        enum refusal_kind kind;
        int position;
    } cases[] = {
        { "SELECT a.id FROM s.a WHERE EXISTS (SELECT 1 FROM s.b WHERE a.v > now())", REFUSAL_TIME,
          66 },
        { "SELECT a.id FROM s.a LIMIT 1 + 2", REFUSAL_LIMIT, 28 },
        { "SELECT a.id FROM s.a ORDER BY a.id OFFSET 1 FETCH FIRST 2 ROWS WITH TIES", REFUSAL_LIMIT,
          57 },
        { "SELECT a.k FROM s.a GROUP BY CUBE(a.k, a.id, a.v, 1, 2, 3, 4, 5)", REFUSAL_GROUPING_SETS,
          30 },
        { "SELECT a.id FROM s.a TABLESAMPLE system (1)", REFUSAL_TABLESAMPLE, 34 },
        { "SELECT a.id, CURRENT_USER AS u FROM s.a", REFUSAL_FUNCTION, 14 },
        { "SELECT a.id FROM s.missing a", REFUSAL_TABLE, 18 },
        { "SELECT a.id FROM s.a WHERE a.v > 'now'::text::date", REFUSAL_OTHER, 0 },
        { "SELECT a.k::regclass AS r FROM s.a", REFUSAL_OTHER, 0 },
        { "SELECT a FROM s.a", REFUSAL_OTHER, 0 },
        { "SELECT a.ctid FROM s.a", REFUSAL_OTHER, 0 },
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        if (build(f, cases[i].definition) != NULL)
            fail_msg("accepted: %s", cases[i].definition);
        if (f->refused.kind != cases[i].kind)
            fail_msg("%s: kind %d (%s)", cases[i].definition, (int)f->refused.kind,
                     f->refused.what);
        if (sql_locate(cases[i].definition, &f->refused) != cases[i].position)
            fail_msg("%s: found at %d", cases[i].definition,
                     sql_locate(cases[i].definition, &f->refused));
    }
}

static void test_equality_of_an_extension(void **state)
{
    struct fixture *f = *state;
    struct cat_function with[5];
    struct catalog foreign = catalog;

    memcpy(with, functions, sizeof(functions));
    with[4] = (struct cat_function){
        .schema = "public", .name = "citext_eq", .volatility = 'i', .is_operator = true
    };
    foreign.functions = with;
    assert_true(
        sql_equality_is_certain(&f->a, &foreign, "SELECT NULLIF(a.k, 1) FROM s.a", &f->refused));
    foreign.n_functions = 5;
    assert_true(sql_equality_is_certain(
        &f->a, &foreign, "SELECT a.k FROM s.a WHERE a.k OPERATOR(public.=) 1", &f->refused));
    assert_false(
        sql_equality_is_certain(&f->a, &foreign, "SELECT NULLIF(a.k, 1) FROM s.a", &f->refused));
    assert_false(sql_equality_is_certain(&f->a, &foreign, "SELECT a.k FROM s.a JOIN s.b USING (k)",
                                         &f->refused));
    assert_false(sql_equality_is_certain(
        &f->a, &foreign, "SELECT CASE a.k WHEN 1 THEN 2 ELSE 3 END FROM s.a", &f->refused));
    assert_true(sql_equality_is_certain(
        &f->a, &foreign, "SELECT CASE WHEN a.k > 1 THEN 2 ELSE 3 END FROM s.a", &f->refused));
    assert_false(sql_equality_is_certain(&f->a, &foreign, "not SQL", &f->refused));
}

static void test_functions(void **state)
{
    struct fixture *f = *state;
    struct cat_function one = {
        .schema = "pg_catalog", .name = "unnest", .volatility = 'i', .builtin = true
    };
    struct catalog c = { .tables = tables, .n_tables = 1, .functions = &one, .n_functions = 1 };

    assert_true(support_check_differential(&f->a, &c, false, &f->refused));
    one.returns_set = true;
    assert_true(support_check_differential(&f->a, &c, false, &f->refused));
    one = (struct cat_function){
        .schema = "pg_catalog", .name = "anytextcat", .volatility = 's', .builtin = true
    };
    assert_true(support_check_differential(&f->a, &c, false, &f->refused));
    one.builtin = false; /* a user's own of that name */
    assert_false(support_check_differential(&f->a, &c, false, &f->refused));
    one.volatility = 'v';
    assert_ptr_equal(support_find_volatile(&c), &one);
}

static void assert_delta(struct fixture *f, const char *definition, uint64_t changed,
                         const char *expected)
{
    struct optree *t = build(f, definition);
    struct delta d;

    assert_non_null(t);
    delta_init(&d, &f->a, t, DELTA_FROM_INSERT, changed, 7);
    delta_of(&d, t->root);
    assert_string_equal(d.with.ptr != NULL ? d.with.ptr : "", expected);
    text_free(&d.with);
}

static void test_deltas(void **state)
{
    static const char join[] = "SELECT a.id, b.t FROM s.a JOIN s.b ON a.k = b.x AND a.id = b.y";

    assert_delta(*state, "SELECT a.id FROM s.a WHERE a.v > (1)::numeric", 1,
                 "WITH d0 AS (SELECT b.\"id\" AS c0, b.\"v\" AS c2, 1 AS w FROM __pgt_new b),\n"
                 " d1 AS (SELECT x.c0, x.w FROM d0 x WHERE x.c2 > 1::numeric),\n"
                 " d2 AS (SELECT x.c0 AS c0, x.w FROM d1 x)");
    /* only the side that changed has a term, and the other is read through its index */
    assert_delta(*state, join, 1,
                 "WITH d0 AS (SELECT b.\"id\" AS c0, b.\"k\" AS c1, 1 AS w FROM __pgt_new b),\n"
                 " d2 AS (SELECT l.c0 AS c0, r.c2 AS c5, l.w AS w FROM d0 l JOIN "
                 "(SELECT t.\"x\" AS c0, t.\"y\" AS c1, t.\"t\" AS c2 FROM \"s\".\"b\" t) r ON "
                 "(l.c1 = r.c0) AND (l.c0 = r.c1)),\n"
                 " d3 AS (SELECT x.c0 AS c0, x.c5 AS c1, x.w FROM d2 x)");
    assert_delta(*state, join, 0, "");
}

/* What stands side by side stays side by side. */
static void test_long_and(void **state)
{
    struct fixture *f = *state;
    struct text sql, out;
    struct optree *t;
    int depth = 0, deepest = 0;

    text_init(&sql);
    text_put(&sql, "SELECT a.id FROM s.a WHERE a.id <> 0");
    for (int i = 1; i < 500; i++)
        text_printf(&sql, " AND a.k <> %d", i);
    t = build(f, sql.ptr);
    assert_non_null(t);
    text_init(&out);
    delta_put_new(&out, t->root, NULL, NULL);
    for (const char *at = out.ptr; *at != '\0'; at++) {
        depth += (*at == '(') - (*at == ')');
        deepest = depth > deepest ? depth : deepest;
    }
    assert_int_equal(depth, 0);
    assert_in_range(deepest, 1, 4);
    text_free(&out);
    text_free(&sql);
}

static void test_extent(void **state)
{
    size_t start = 9, len = 9;

    (void)state;
    assert_true(sql_statement_extent("SELECT 1; -- one", &start, &len));
    assert_int_equal(start, 0);
    assert_int_equal(len, 8);
    assert_true(sql_statement_extent("SELECT 1", &start, &len));
    assert_int_equal(len, 8);
    assert_false(sql_statement_extent("SELECT FROM WHERE", &start, &len));
    assert_false(sql_statement_extent("", &start, &len));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_keys, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_not_null, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_needed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_refusals, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_equality_of_an_extension, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_functions, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_deltas, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_long_and, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_extent, set_up, tear_down),
    };

    return cmocka_run_group_tests_name("compiler", tests, NULL, NULL);
}
