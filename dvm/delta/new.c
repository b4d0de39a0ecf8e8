/* new(R): the rows as of now. */
#include <stdio.h>

#include "dvm/delta/delta.h"
#include "dvm/delta/new_internal.h"

void put_from(struct text *out, const struct op *child, const char *alias,
              const struct restriction *r)
{
    text_put(out, "(");
    put_new(out, child, r);
    text_printf(out, ") %s", alias);
}

/* ---- restricting to affected keys ---------------------------------------------------------- */

/* As an operand: NOT x IN (…) would be NOT (x IN (…)). */
static void put_key(struct text *out, const struct op *op, int i, const char *alias)
{
    if (op->kind == OP_SCAN) {
        text_printf(out, "%s.c%d", alias, op->key[i]);
        return;
    }
    text_put_char(out, '(');
    put_expr_over(out, op->exprs[i], alias);
    text_put_char(out, ')');
}

/* A plain column that can't be NULL. */
static bool key_is_not_null(const struct op *op, int i)
{
    int plain;

    if (op->kind == OP_SCAN)
        return true;
    plain = expr_plain_column(op->exprs[i]);
    return plain >= 0 && op->left->columns[plain].not_null;
}

static int n_keys(const struct op *op)
{
    return op->kind == OP_SCAN ? op->n_key : op->n_exprs;
}

static bool keys_have_hash(const struct op *op)
{
    for (int i = 0; op->key_types != NULL && i < n_keys(op); i++)
        if (!op->key_types[i].has_hash)
            return false;
    return op->key_types != NULL;
}

/* (a, b) IN (SELECT k.k0, k.k1 FROM keys k): the planner turns it into a hash semi join or index
 * probes. Keys with a NULL are not among them. */
static void put_keys_in(struct text *out, const struct op *op, const char *keys)
{
    for (int i = 0; i < n_keys(op); i++) {
        text_put(out, i > 0 ? ", " : "(");
        put_key(out, op, i, "x");
    }
    text_put(out, ") IN (SELECT ");
    for (int i = 0; i < n_keys(op); i++)
        text_printf(out, "%sk.k%d", i > 0 ? ", " : "", i);
    text_printf(out, " FROM %s k)", keys);
}

static void put_some_key_is_null(struct text *out, const struct op *op, const char *alias,
                                 bool by_number)
{
    const char *separator = "";

    for (int i = 0; i < n_keys(op); i++) {
        if (key_is_not_null(op, i))
            continue;
        text_put(out, separator);
        if (by_number)
            text_printf(out, "%s.k%d", alias, i);
        else
            put_key(out, op, i, alias);
        text_put(out, " IS NULL");
        separator = " OR ";
    }
}

/* NULLs are equal here: IS NOT DISTINCT FROM, which no index and no hash join knows, behind a hash
 * of the whole key, which a hash join does know. */
static void put_null_safe_keys(struct text *out, const struct op *op, const char *keys)
{
    text_printf(out, "EXISTS (SELECT 1 FROM %s k WHERE ", keys);
    if (keys_have_hash(op)) {
        text_put(out, "k.h = pg_catalog.hash_record_extended(ROW(");
        for (int i = 0; i < n_keys(op); i++) {
            text_put(out, i > 0 ? ", " : "");
            put_key(out, op, i, "x");
        }
        text_put(out, "), 0) AND ");
    }
    for (int i = 0; i < n_keys(op); i++) {
        text_put(out, i > 0 ? " AND " : "");
        put_key(out, op, i, "x");
        text_printf(out, " IS NOT DISTINCT FROM k.k%d", i);
    }
    text_put(out, ")");
}

static bool all_keys_not_null(const struct op *op)
{
    for (int i = 0; i < n_keys(op); i++)
        if (!key_is_not_null(op, i))
            return false;
    return true;
}

/* SELECT the needed columns of rows FROM (…) x with affected keys. */
static void put_affected(struct text *out, const struct op *rows, const struct op *keyed,
                         const char *keys, void (*put_input)(struct text *, const struct op *))
{
    text_put(out, "SELECT ");
    put_needed(out, rows, "x", false);
    text_put(out, " FROM (");
    put_input(out, rows);
    text_put(out, ") x WHERE ");
    if (n_keys(keyed) == 0) {
        text_printf(out, "EXISTS (SELECT 1 FROM %s)", keys);
        return;
    }
    put_keys_in(out, keyed, keys);
    if (all_keys_not_null(keyed))
        return;
    /* What has a NULL in its key is a branch of its own: no index, but not run either when no
     * affected key has one. */
    text_put(out, " UNION ALL SELECT ");
    put_needed(out, rows, "x", false);
    text_put(out, " FROM (");
    put_input(out, rows);
    text_put(out, ") x WHERE (");
    put_some_key_is_null(out, keyed, "x", false);
    text_printf(out, ") AND EXISTS (SELECT 1 FROM %s k WHERE ", keys);
    put_some_key_is_null(out, keyed, "k", true);
    text_put(out, ")");
    if (n_keys(keyed) > 1) {
        text_put(out, " AND ");
        put_null_safe_keys(out, keyed, keys);
    }
}

static void put_unrestricted(struct text *out, const struct op *op)
{
    put_new(out, op, NULL);
}

/* ---- operators ----------------------------------------------------------------------------- */

static void put_scan(struct text *out, const struct op *op)
{
    bool first = true;

    text_put(out, "SELECT ");
    for (int i = 0; i < op->n_columns; i++) {
        if (!op->needed[i])
            continue;
        text_put(out, first ? "t." : ", t.");
        text_put_ident(out, op->table->columns[i].name);
        text_printf(out, " AS c%d", i);
        first = false;
    }
    text_put(out, " FROM ");
    text_put_ident(out, op->table->schema);
    text_put(out, ".");
    text_put_ident(out, op->table->name);
    text_put(out, " t");
}

static void put_project(struct text *out, const struct op *op, const struct restriction *r)
{
    bool first = true;

    text_put(out, "SELECT ");
    for (int i = 0; i < op->n_columns; i++) {
        if (!op->needed[i])
            continue;
        text_put(out, first ? "" : ", ");
        put_expr_over(out, op->exprs[i], "x");
        text_printf(out, " AS c%d", i);
        first = false;
    }
    text_put(out, " FROM ");
    put_from(out, op->left, "x", r);
}

static void put_join(struct text *out, const struct op *op, const struct restriction *r)
{
    bool first = true;

    text_put(out, "SELECT ");
    for (int i = 0; i < op->n_columns; i++) {
        int nl = op->left->n_columns;

        if (!op->needed[i])
            continue;
        text_printf(out, "%s%s.c%d AS c%d", first ? "" : ", ", i < nl ? "l" : "r",
                    i < nl ? i : i - nl, i);
        first = false;
    }
    text_put(out, " FROM ");
    put_from(out, op->left, "l", r);
    text_put(out, op->kind == OP_LEFT_JOIN ? " LEFT JOIN " : " JOIN ");
    put_from(out, op->right, "r", r);
    text_put(out, " ON ");
    if (op->predicate != NULL)
        put_expr(out, op->predicate, "l", "r", op->left->n_columns, "pg_catalog.now()");
    else
        text_put(out, "true");
}

/* An operator that is evaluated by key over its input, of which the affected keys may be enough. */
static void put_by_key(struct text *out, const struct op *op, const struct restriction *r,
                       void (*put)(struct text *, const struct op *, const char *))
{
    struct text from;

    text_init(&from);
    text_put(&from, "(");
    if (r != NULL && r->at == op && (op->kind != OP_GROUP || op->n_exprs > 0))
        put_affected(&from, op->left, op, r->keys_cte, put_unrestricted);
    else
        put_new(&from, op->left, r);
    text_put(&from, ")");
    put(out, op, from.ptr);
    text_free(&from);
}

static void put_function(struct text *out, const struct op *op, const struct restriction *r)
{
    struct text from;

    text_init(&from);
    text_put(&from, "(");
    put_new(&from, op->left, r);
    text_put(&from, ")");
    delta_put_function(out, op, from.ptr, "");
    text_free(&from);
}

/* (WITH RECURSIVE r5(c0) AS (left UNION ALL right) SELECT … FROM r5): what the right arm reads of
 * itself is r5. */
static void put_recursive(struct text *out, const struct op *op, const struct restriction *r)
{
    struct restriction inside = {
        .old = r != NULL ? r->old : NULL,
        .recursion = op,
        .outer = r,
    };

    text_put(out, "SELECT ");
    put_needed(out, op, "x", false);
    text_printf(out, " FROM (WITH RECURSIVE r%d(", op->id);
    for (int i = 0; i < op->n_columns; i++)
        text_printf(out, "%sc%d", i > 0 ? ", " : "", i);
    text_put(out, ") AS ((");
    put_new(out, op->left, &inside);
    text_put(out, op->distinct ? ") UNION (" : ") UNION ALL (");
    put_new(out, op->right, &inside);
    text_printf(out, ")) SELECT * FROM r%d) x", op->id);
    if (r != NULL && r->at == op)
        text_printf(out, " WHERE EXISTS (SELECT 1 FROM %s)", r->keys_cte);
}

static void put_self(struct text *out, const struct op *op, const struct restriction *r)
{
    while (r != NULL && r->recursion != op->of)
        r = r->outer;
    /* By itself, for its types only: those of the arm that it starts from. */
    if (r == NULL) {
        put_new(out, op->of->left, NULL);
        return;
    }
    text_put(out, "SELECT ");
    put_needed(out, op, "x", false);
    text_printf(out, " FROM r%d x", op->of->id);
}

static void put_values(struct text *out, const struct op *op)
{
    text_put(out, "SELECT ");
    put_needed(out, op, "v", false);
    text_put(out, " FROM (VALUES ");
    for (int row = 0; row < op->n_rows; row++) {
        text_put(out, row > 0 ? ", (" : "(");
        for (int i = 0; i < op->n_columns; i++) {
            text_put(out, i > 0 ? ", " : "");
            put_expr_over(out, op->exprs[row * op->n_columns + i], "v");
        }
        text_put(out, op->n_columns == 0 ? "0)" : ")");
    }
    text_put(out, ") v(");
    for (int i = 0; i < op->n_columns; i++)
        text_printf(out, "%sc%d", i > 0 ? ", " : "", i);
    text_put(out, op->n_columns == 0 ? "none)" : ")");
}

static void put_repeat(struct text *out, const struct op *op, const struct restriction *r)
{
    text_put(out, "SELECT ");
    put_needed(out, op, "x", false);
    text_put(out, " FROM ");
    put_from(out, op->left, "x", r);
    text_put(out, " CROSS JOIN LATERAL pg_catalog.generate_series(1, ");
    put_expr_over(out, op->exprs[0], "x");
    text_put(out, ")");
}

static void put_limit(struct text *out, const struct op *op, const struct restriction *r)
{
    struct text from;

    text_init(&from);
    text_put(&from, "(");
    put_new(&from, op->left, r);
    text_put(&from, ")");
    delta_put_limit(out, op, op, from.ptr, NULL);
    text_free(&from);
}

void put_new(struct text *out, const struct op *op, const struct restriction *r)
{
    if (r != NULL && r->before != NULL && op_is_closed(op)) {
        put_old_closed(out, r->before, op, NULL);
        return;
    }
    switch (op->kind) {
    case OP_SCAN:
        if (r != NULL && r->at == op)
            put_affected(out, op, op, r->keys_cte, put_scan);
        else if (r != NULL && r->old != NULL && delta_old_scan(r->old, op) != NULL)
            text_printf(out, "SELECT * FROM %s", delta_old_scan(r->old, op));
        else
            put_scan(out, op);
        return;
    case OP_RECURSIVE:
        put_recursive(out, op, r);
        return;
    case OP_SELF:
        put_self(out, op, r);
        return;
    case OP_FUNCTION:
        put_function(out, op, r);
        return;
    case OP_FILTER:
        if (r != NULL && r->before != NULL && op_is_closed(op->left)) {
            put_old_closed(out, r->before, op->left, op->predicate);
            return;
        }
        text_put(out, "SELECT ");
        put_needed(out, op, "x", false);
        text_put(out, " FROM ");
        put_from(out, op->left, "x", r);
        text_put(out, " WHERE ");
        put_expr_over(out, op->predicate, "x");
        return;
    case OP_PROJECT:
        put_project(out, op, r);
        return;
    case OP_JOIN:
    case OP_LEFT_JOIN:
        put_join(out, op, r);
        return;
    case OP_UNION_ALL:
        text_put(out, "SELECT ");
        put_needed(out, op, "x", false);
        text_put(out, " FROM ");
        put_from(out, op->left, "x", r);
        text_put(out, " UNION ALL SELECT ");
        put_needed(out, op, "x", false);
        text_put(out, " FROM ");
        put_from(out, op->right, "x", r);
        return;
    case OP_GROUP:
        put_by_key(out, op, r, delta_put_group);
        return;
    case OP_DISTINCT_ON:
        put_by_key(out, op, r, delta_put_distinct_on);
        return;
    case OP_WINDOW:
        put_by_key(out, op, r, delta_put_window);
        return;
    case OP_VALUES:
        put_values(out, op);
        return;
    case OP_REPEAT:
        put_repeat(out, op, r);
        return;
    case OP_LIMIT:
        put_limit(out, op, r);
        return;
    case OP_SUBFILTER:
        put_new_subfilter(out, op, r);
        return;
    case OP_SUBVALUE:
        put_new_subvalue(out, op, r);
        return;
    case OP_APPLY:
        put_new_apply(out, op, r);
        return;
    }
}

void delta_put_new(struct text *out, const struct op *op, const struct op *restricted,
                   const char *keys_cte)
{
    struct restriction r = { .at = restricted, .keys_cte = keys_cte };

    put_new(out, op, restricted != NULL ? &r : NULL);
}

void delta_put_old(struct delta *d, struct text *out, const struct op *op)
{
    put_new(out, op, &(struct restriction){ .old = d });
}

void delta_put_affected(struct text *out, const struct op *op, const char *keys_cte)
{
    put_affected(out, op->left, op, keys_cte, put_unrestricted);
}

void delta_put_distinct_on(struct text *out, const struct op *op, const char *from)
{
    text_put(out, "SELECT DISTINCT ON (");
    for (int i = 0; i < op->n_exprs; i++) {
        text_put(out, i > 0 ? ", " : "");
        put_expr_over(out, op->exprs[i], "x");
    }
    text_put(out, ") ");
    put_needed(out, op, "x", false);
    text_printf(out, " FROM %s x ORDER BY ", from);
    for (int i = 0; i < op->n_sort; i++) {
        put_expr_over(out, op->sort[i], "x");
        text_printf(out, "%s, ", op->sort_suffix[i]);
    }
    /* what ORDER BY left out of the key, then the ties */
    for (int i = 0; i < op->n_exprs; i++) {
        text_put(out, i > 0 ? ", " : "");
        put_expr_over(out, op->exprs[i], "x");
    }
    for (int i = 0; i < op->left->n_columns; i++) {
        char value[32];

        if (!op->left->needed[i])
            continue;
        snprintf(value, sizeof(value), "x.c%d", i);
        text_put(out, ", ");
        put_comparable(out, &op->input_types[i], value);
    }
}

void delta_put_group(struct text *out, const struct op *op, const char *from)
{
    bool first = true;

    text_put(out, "SELECT ");
    for (int i = 0; i < op->n_columns; i++) {
        if (!op->needed[i])
            continue;
        text_put(out, first ? "" : ", ");
        if (i < op->n_exprs)
            put_expr_over(out, op->exprs[i], "x");
        else
            put_aggregate(out, &op->aggregates[i - op->n_exprs], "x");
        text_printf(out, " AS c%d", i);
        first = false;
    }
    text_printf(out, " FROM %s x", from);
    for (int i = 0; i < op->n_exprs; i++) {
        text_put(out, i > 0 ? ", " : " GROUP BY ");
        put_expr_over(out, op->exprs[i], "x");
    }
    /* GROUP BY () with no aggregate needed is still one row */
    if (op->n_exprs == 0 && first)
        text_put(out, " HAVING true");
}
