#include "dvm/types.h"

#include "base/text.h"
#include "dvm/analyze.h"
#include "dvm/delta/delta.h"

struct typing {
    struct dvm_db *db;
    struct arena *a;
    struct value_type **all; /* to be completed with facts at the end */
    int n_all, capacity;
    struct refusal *refused;
    struct err *e;
    struct text around; /* what a subquery may refer to: "(rows) a1 CROSS JOIN LATERAL " */
};

static void remember(struct typing *t, struct value_type *type)
{
    if (t->n_all == t->capacity) {
        int capacity = 2 * t->capacity + 64;
        struct value_type **more = arena_new_array(t->a, struct value_type *, (size_t)capacity);

        for (int i = 0; i < t->n_all; i++)
            more[i] = t->all[i];
        t->all = more;
        t->capacity = capacity;
    }
    t->all[t->n_all++] = type;
}

static bool describe(struct typing *t, const struct text *sql, struct db_rows *columns)
{
    int n_params;

    return t->db->ops->describe(t->db, t->a, sql->ptr, columns, &n_params, t->e);
}

static void take(struct typing *t, struct value_type *type, const struct db_rows *columns, int *i)
{
    if (*i >= columns->n_columns)
        return;
    type->oid = columns->columns[*i].type_oid;
    type->typmod = columns->columns[*i].typmod;
    remember(t, type);
    (*i)++;
}

static const struct value_type *known(const struct typing *t, int before, uint32_t oid)
{
    for (int i = 0; i < before; i++)
        if (t->all[i]->oid == oid)
            return t->all[i];
    return NULL;
}

/* Asks for what is not known of the types remembered since from. */
static bool complete(struct typing *t, int from)
{
    int n = 0;
    uint32_t *oids = arena_new_array(t->a, uint32_t, (size_t)(t->n_all - from));
    struct type_facts *facts = arena_new_array(t->a, struct type_facts, (size_t)(t->n_all - from));

    for (int i = from; i < t->n_all; i++)
        if (known(t, i, t->all[i]->oid) == NULL)
            oids[n++] = t->all[i]->oid;
    if (n > 0 && !analyze_types(t->db, t->a, oids, n, facts, t->e))
        return false;
    n = 0;
    for (int i = from; i < t->n_all; i++) {
        const struct value_type *same = known(t, i, t->all[i]->oid);

        t->all[i]->has_equality = same != NULL ? same->has_equality : facts[n].has_equality;
        t->all[i]->has_hash = same != NULL ? same->has_hash : facts[n].has_hash;
        t->all[i]->exact = same != NULL ? same->exact : facts[n].exact;
        n += same == NULL;
    }
    return true;
}

/* Where op stands. */
static void put_standing(const struct typing *t, struct text *sql, const struct op *op)
{
    text_printf(sql, "SELECT x.* FROM%s(", t->around.ptr);
    delta_put_new(sql, op, NULL, NULL);
    text_put(sql, ") x");
}

/* The aggregates' own. */
static bool type_results(struct typing *t, struct op *op)
{
    struct text sql;
    struct db_rows columns;
    bool ok;
    int at = 0, from = t->n_all;

    text_init(&sql);
    put_standing(t, &sql, op);
    ok = describe(t, &sql, &columns);
    text_free(&sql);
    for (int i = 0; i < op->n_columns; i++) {
        if (!op->needed[i])
            continue;
        if (i < op->n_exprs)
            at++;
        else if (ok)
            take(t, &op->aggregates[i - op->n_exprs].result, &columns, &at);
    }
    return ok && complete(t, from);
}

/* SELECT input columns, key expressions, aggregate arguments FROM (input) x. */
static bool type_keyed(struct typing *t, struct op *op)
{
    struct text sql;
    struct db_rows columns;
    bool ok;
    int at = 0, from = t->n_all;

    op->input_types = arena_new_array(t->a, struct value_type, (size_t)op->left->n_columns);
    op->key_types = arena_new_array(t->a, struct value_type, (size_t)op->n_exprs);
    text_init(&sql);
    text_put(&sql, "SELECT ");
    put_needed(&sql, op->left, "x", true);
    for (int i = 0; i < op->n_exprs; i++) {
        put_expr_over(&sql, op->exprs[i], "x");
        text_put(&sql, ", ");
    }
    for (int i = 0; i < op->n_aggregates; i++) {
        for (int k = 0; op->needed[op->n_exprs + i] && k < op->aggregates[i].n_args; k++) {
            put_expr_over(&sql, op->aggregates[i].args[k], "x");
            text_put(&sql, ", ");
        }
    }
    text_printf(&sql, "1 FROM%s(", t->around.ptr);
    delta_put_new(&sql, op->left, NULL, NULL);
    text_put(&sql, ") x");
    ok = describe(t, &sql, &columns);
    text_free(&sql);
    if (!ok)
        return false;
    for (int i = 0; i < op->left->n_columns; i++)
        if (op->left->needed[i])
            take(t, &op->input_types[i], &columns, &at);
    for (int i = 0; i < op->n_exprs; i++)
        take(t, &op->key_types[i], &columns, &at);
    for (int i = 0; i < op->n_aggregates; i++)
        for (int k = 0; op->needed[op->n_exprs + i] && k < op->aggregates[i].n_args; k++)
            take(t, &op->aggregates[i].arg_types[k], &columns, &at);
    if (!complete(t, from))
        return false;
    /* What GROUP BY's key determines is part of our key, and may have no equality at all (json). */
    for (int i = 0; i < op->n_exprs; i++) {
        if (op->key_types[i].has_equality)
            continue;
        *t->refused = (struct refusal){
            .kind = REFUSAL_OTHER,
            .what = "grouping by (or along with) a value whose type has no = of PostgreSQL's own",
        };
        return false;
    }
    return op->kind != OP_GROUP || op->n_aggregates == 0 || type_results(t, op);
}

/* The columns of the child. */
static bool type_input(struct typing *t, struct op *op)
{
    struct text sql;
    struct db_rows columns;
    bool ok;
    int at = 0, from = t->n_all;

    op->input_types = arena_new_array(t->a, struct value_type, (size_t)op->left->n_columns);
    text_init(&sql);
    put_standing(t, &sql, op->left);
    ok = describe(t, &sql, &columns);
    text_free(&sql);
    for (int i = 0; ok && i < op->left->n_columns; i++)
        if (op->left->needed[i])
            take(t, &op->input_types[i], &columns, &at);
    return ok && complete(t, from);
}

/* The needed columns of a closed op. */
static bool type_columns(struct typing *t, struct op *op)
{
    struct text sql;
    struct db_rows columns;
    bool ok;
    int at = 0, from = t->n_all;

    if (op->column_types != NULL)
        return true;
    op->column_types = arena_new_array(t->a, struct value_type, (size_t)op->n_columns);
    text_init(&sql);
    delta_put_new(&sql, op, NULL, NULL);
    ok = describe(t, &sql, &columns);
    text_free(&sql);
    for (int i = 0; ok && i < op->n_columns; i++)
        if (op->needed[i])
            take(t, &op->column_types[i], &columns, &at);
    return ok && complete(t, from);
}

/* The value of a subquery. */
static bool type_value(struct typing *t, struct op *op)
{
    struct text sql;
    struct db_rows columns;
    bool ok;
    int at = 0, from = t->n_all;

    op->column_types = arena_new_array(t->a, struct value_type, (size_t)op->n_columns);
    text_init(&sql);
    text_put(&sql, "SELECT ");
    delta_put_sub_value(&sql, op);
    text_printf(&sql, " FROM%s(", t->around.ptr);
    delta_put_new(&sql, op->left, NULL, NULL);
    text_printf(&sql, ") a%d", op->id);
    ok = describe(t, &sql, &columns);
    text_free(&sql);
    if (ok)
        take(t, &op->column_types[op->n_columns - 1], &columns, &at);
    return ok && complete(t, from);
}

/* What an ARRAY(SELECT …) is made of; t->around has the left row. */
static bool type_element(struct typing *t, struct op *op)
{
    struct text sql;
    struct db_rows columns;
    bool ok;
    int at = 0, from = t->n_all;

    text_init(&sql);
    text_printf(&sql, "SELECT x.c0 FROM%s(", t->around.ptr);
    delta_put_new(&sql, op->right, NULL, NULL);
    text_put(&sql, ") x");
    ok = describe(t, &sql, &columns);
    text_free(&sql);
    if (ok)
        take(t, &op->sub->element, &columns, &at);
    return ok && complete(t, from);
}

static bool type_op(struct typing *t, struct op *op);

/* The right side stands inside of the left row. */
static bool type_subquery(struct typing *t, struct op *op)
{
    struct text outside = t->around;
    bool ok;

    text_init(&t->around);
    text_put_str(&t->around, text_str(&outside));
    text_put(&t->around, "(");
    delta_put_new(&t->around, op->left, NULL, NULL);
    text_printf(&t->around, ") a%d CROSS JOIN LATERAL ", op->id);
    ok = type_op(t, op->right) &&
         (op->sub == NULL || op->sub->kind != SUBLINK_ARRAY || type_element(t, op));
    text_free(&t->around);
    t->around = outside;
    for (int i = 0; ok && i < op->n_leaves; i++)
        ok = type_columns(t, op->leaves[i].op);
    return ok && (op->kind != OP_SUBVALUE || type_value(t, op));
}

/* Children first: a DISTINCT ON's SQL depends on what is known of its input. */
static bool type_op(struct typing *t, struct op *op)
{
    if (op->left == NULL)
        return true; /* a leaf: the catalog knows its types */
    if (!type_op(t, op->left))
        return false;
    if (op_is_subquery(op))
        return type_subquery(t, op);
    if (op->right != NULL && !type_op(t, op->right))
        return false;
    switch (op->kind) {
    case OP_GROUP:
    case OP_DISTINCT_ON:
    case OP_WINDOW:
        return type_keyed(t, op);
    case OP_LIMIT:
        return type_input(t, op);
    case OP_SCAN:
    case OP_FILTER:
    case OP_PROJECT:
    case OP_JOIN:
    case OP_LEFT_JOIN:
    case OP_UNION_ALL:
    case OP_VALUES:
    case OP_REPEAT:
    case OP_FUNCTION:
    case OP_RECURSIVE:
    case OP_SELF:
    case OP_SUBFILTER:
    case OP_SUBVALUE:
    case OP_APPLY:
        break;
    }
    return true;
}

bool types_fill(struct dvm_db *db, struct arena *a, struct optree *tree, struct refusal *refused,
                struct err *e)
{
    struct typing t = { .db = db, .a = a, .refused = refused, .e = e };
    struct db_rows columns;
    struct text sql;
    bool ok;
    int at = 0, before;

    text_init(&t.around);
    text_put_char(&t.around, ' ');
    ok = type_op(&t, tree->root);
    text_free(&t.around);
    if (!ok)
        return false;
    before = t.n_all;
    tree->types = arena_new_array(a, struct value_type, (size_t)tree->root->n_columns);
    text_init(&sql);
    delta_put_new(&sql, tree->root, NULL, NULL);
    ok = describe(&t, &sql, &columns);
    text_free(&sql);
    for (int i = 0; ok && i < tree->root->n_columns; i++)
        take(&t, &tree->types[i], &columns, &at);
    return ok && complete(&t, before);
}

bool types_format(struct dvm_db *db, struct arena *a, const struct value_type *types, int n,
                  const char **out, struct err *e)
{
    struct db_rows rows;
    struct text sql;
    bool ok = true;

    text_init(&sql);
    text_put(&sql, "SELECT ");
    for (int i = 0; i < n; i++)
        text_printf(&sql, "%spg_catalog.format_type(%u, %d)", i > 0 ? ", " : "", types[i].oid,
                    types[i].typmod);
    /* With nothing in the search path every name is qualified. */
    if (n > 0)
        ok = db_exec(db, e, "SAVEPOINT __pgt_types") &&
             db_exec(db, e, "SET LOCAL search_path = ''") &&
             db_query(db, a, &rows, e, "%s", sql.ptr) &&
             db_exec(db, e, "ROLLBACK TO SAVEPOINT __pgt_types") &&
             db_exec(db, e, "RELEASE SAVEPOINT __pgt_types");
    for (int i = 0; ok && i < n; i++)
        out[i] = db_cell(&rows, 0, i);
    text_free(&sql);
    return ok;
}
