/* Functions in FROM: linear in what stands to the left of them. */
#include <string.h>

#include "dvm/optree_internal.h"

/* One row for one row, or rows that are numbered. */
static void derive_key(struct builder *b, struct op *op, const struct from_item *item)
{
    const struct op *left = op->left;
    bool single = item->n_functions == 1 && !item->functions[0].returns_set;
    int *key = arena_new_array(b->a, int, (size_t)left->n_key + 1);

    if (!left->has_key || (!single && !item->ordinality))
        return;
    if (left->n_key > 0)
        memcpy(key, left->key, sizeof(int) * (size_t)left->n_key);
    key[left->n_key] = op->n_columns - 1;
    build_set_key(b, op, key, left->n_key + !single);
}

struct op *build_function(struct builder *b, const struct from_item *item, struct op *left,
                          const struct scope *arguments, struct scope *s)
{
    int n = item->n_column_aliases;
    struct op *op = build_new_op(b, OP_FUNCTION, left->n_columns + n);

    op->left = left;
    op->ordinality = item->ordinality;
    op->n_functions = item->n_functions;
    op->functions = arena_new_array(b->a, struct op_function, (size_t)item->n_functions);
    for (int i = 0; i < item->n_functions; i++) {
        const struct qfunction *from = &item->functions[i];
        struct op_function *f = &op->functions[i];

        f->call = build_resolve(b, from->call, arguments, 0);
        if (f->call == NULL)
            return NULL;
        f->names = from->names;
        f->types = from->types;
        f->n_columns = from->n_columns;
    }
    memcpy(op->columns, left->columns, sizeof(*op->columns) * (size_t)left->n_columns);
    for (int i = 0; i < n; i++) {
        int column = left->n_columns + i;

        op->columns[column].name = item->column_aliases[i];
        build_scope_add(b, s, item->alias, item->column_aliases[i], column);
    }
    op->columns[op->n_columns - 1].not_null = item->ordinality;
    derive_key(b, op, item);
    return op;
}
