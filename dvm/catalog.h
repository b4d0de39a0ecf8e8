/* What the compiler knows of the database: a value, read by analyze.c, owned by the
 * compile arena.
 */
#ifndef PGTRICKLE_DVM_CATALOG_H
#define PGTRICKLE_DVM_CATALOG_H

#include <stdbool.h>
#include <stdint.h>

struct cat_column {
    int attnum;
    const char *name;
    const char *type; /* format_type with typmod, COLLATE when not the type's own */
    uint32_t type_oid;
    bool has_equality; /* see struct type_facts */
    bool exact;        /* also a numeric with a fixed scale */
    bool not_null;     /* enforced and validated */
    bool is_virtual;   /* generated, not stored: absent from transition tables */
};

struct cat_key {
    int *columns; /* indexes into cat_table.columns */
    int n;
    bool primary;
};

struct cat_table {
    uint32_t oid;
    const char *schema;
    const char *name;
    char relkind;
    bool temporary;
    bool unlogged;
    bool has_parent;        /* a partition, or an heir */
    bool has_children;      /* partitioned, or inherited from */
    bool has_foreign_child; /* one of these is a foreign table */
    bool is_subscribed;     /* a subscription writes to it, and fires no trigger of a statement */
    bool row_security;      /* policies apply to the current role */
    bool is_system;
    bool is_stream_table;
    const char *view_definition; /* relkind v */
    double rows;                 /* as the server estimates; below 0: unknown */
    struct cat_column *columns;
    int n_columns;
    struct cat_key *keys;
    int n_keys;
};

struct cat_function {
    uint32_t oid;
    const char *schema;
    const char *name;
    char volatility; /* i, s, v */
    bool aggregate;
    bool builtin;     /* pg_catalog */
    bool is_operator; /* some operator's */
    bool returns_set;
};

struct cat_output {
    const char *name;
    const char *type;
    uint32_t type_oid;
    int32_t typmod;
};

struct catalog {
    const char *canonical; /* pg_get_viewdef of the definition, columns qualified */
    struct cat_output *outputs;
    int n_outputs;
    struct cat_table *tables;
    int n_tables;
    struct cat_function *functions;
    int n_functions;
};

#endif
