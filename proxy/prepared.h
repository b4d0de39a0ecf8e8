/* Prepared statements in transaction and statement pooling.
 *
 * A client names its statements; a server connection that is shared can't use those names.
 * Statements of one database with equal text and types, read alike, are one struct statement
 * (process-wide, reference counted, immutable) with an internal name PGTRICKLE_<n>. A client maps
 * its names to statements; a server knows which statements it has, least recently used first. Those
 * that SQL's PREPARE made are no different (one namespace, as in PostgreSQL) but for how a server
 * is taught them.
 */
#ifndef PGTRICKLE_PROXY_PREPARED_H
#define PGTRICKLE_PROXY_PREPARED_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/list.h"
#include "base/map.h"
#include "base/str.h"
#include "proxy/sql_prepare.h"

/* What a Parse of a stream-table statement was before it was rewritten. */
struct lend_info {
    const char *tag; /* static; NULL: the server's own */
    char *text;      /* the client's text */
    size_t text_len;
    size_t definition_offset;
    bool has_rows;
};

/* What the text of a statement means depends on this (proxy/reading.h). */
struct reading {
    const void *database; /* whose; only compared */
    unsigned ddl;         /* the database's count of DDL */
    struct str settings;  /* values, of no further meaning here */
    uint64_t hash;        /* of the settings */
};

enum statement_source {
    STATEMENT_PARSED, /* body: of a Parse behind the name: text NUL, count, types */
    STATEMENT_SQL,    /* body: of a PREPARE behind the name: "(types) AS text" */
};

struct statement {
    struct map_node node;
    uint64_t number;
    char name[32];
    atomic_uint refs;
    enum statement_source source;
    bool shared;            /* it is in the table: equal ones are this one */
    struct reading reading; /* settings are its own */
    /* Goes up when a server says that its result type has changed: what was prepared before on any
     * server is stale. */
    atomic_uint generation;
    char *body;
    size_t body_len;
};

/* Of the process: its functions may be called from every thread. */
struct statement_table {
    pthread_mutex_t lock;
    struct map map; /* under the lock, as the next */
    uint64_t next_number;
};

/* A PREPARE, EXECUTE, DEALLOCATE that came in a Parse: what it was before its name was replaced,
 * and what was made of it last. */
struct sql_command {
    unsigned refs;
    enum sql_prepare_verb verb;
    char *name; /* that it means, as the client's */
    size_t name_len;
    char *tail; /* the client's Parse behind its name */
    size_t tail_len;
    size_t text_len; /* of the text in tail */
    size_t name_start;
    size_t name_end;
    size_t command_end;       /* without what blanks, comments and semicolon follow */
    struct statement *target; /* SQL_PREPARE: what its next run makes; a reference, or NULL */
    char stand_in[32];        /* SQL_DEALLOCATE: what is deallocated in its place; or empty */
    char *sent;               /* the tail that the server got last for the unnamed statement */
    size_t sent_len;
};

/* A name of a client. */
struct client_statement {
    struct map_node node;
    char *name;
    size_t name_len;
    uint32_t serial;
    bool closing;                /* a Close is under way: the name is free again */
    bool keeps_state;            /* what it says may change the session: looked at by each Bind */
    struct statement *statement; /* NULL: only lend is of interest (session pooling, unnamed) */
    struct lend_info *lend;      /* NULL: an ordinary statement */
    struct sql_command *sql;     /* NULL: the same; a reference */
    bool was_described;          /* the client has asked for its columns, */
    unsigned generation;         /* and this was the statement's then */
};

/* A statement that a server has (or will have when what was sent to it succeeds). */
struct server_statement {
    struct map_node node;
    struct list_node lru;
    struct statement *statement;
    unsigned generation; /* the statement's when it was prepared here */
};

struct server_statements {
    struct map map;
    struct list lru; /* least recently used first */
};

void statement_table_init(struct statement_table *t);
void statement_table_free(struct statement_table *t);
/* Takes a reference on the statement with this body, new or known. */
struct statement *statement_get(struct statement_table *t, const struct reading *reading,
                                enum statement_source source, struct str body);
/* The same if it is known, or NULL. */
struct statement *statement_find(struct statement_table *t, const struct reading *reading,
                                 enum statement_source source, struct str body);
/* One that is nobody else's, whatever its body. */
struct statement *statement_new(struct statement_table *t, const struct reading *reading,
                                enum statement_source source, struct str body);
/* One that another process made, with its number, which nothing else here has. */
struct statement *statement_restore(struct statement_table *t, const struct reading *reading,
                                    enum statement_source source, uint64_t number, bool shared,
                                    struct str body);
/* Its text means the same now. */
bool statement_is_read_as(const struct statement *s, const struct reading *reading);
/* A name that no statement has or will have. */
void statement_table_make_name(struct statement_table *t, char name[32]);
struct statement *statement_ref(struct statement *s);
void statement_unref(struct statement_table *t, struct statement *s);

struct lend_info *lend_info_new(struct str text, const char *tag, size_t definition_offset,
                                bool has_rows);
struct lend_info *lend_info_copy(const struct lend_info *i);
void lend_info_free(struct lend_info *i);

struct sql_command *sql_command_ref(struct sql_command *c);
void sql_command_unref(struct sql_command *c, struct statement_table *t);

struct client_statement *client_statement_find(const struct map *m, struct str name);
/* There is one, be it closing. */
bool client_statement_is_named(const struct map *m, struct str name);
/* The same by the number that the adder gave it, closing ones too; a walk over all. */
struct client_statement *client_statement_by_serial(const struct map *m, uint32_t serial);
/* Takes over the reference and lend. A visible entry with this name must not exist. */
struct client_statement *client_statement_add(struct map *m, uint32_t serial, struct str name,
                                              struct statement *s, struct lend_info *lend);
void client_statement_remove(struct map *m, struct client_statement *cs, struct statement_table *t);
void client_statements_clear(struct map *m, struct statement_table *t);

void server_statements_init(struct server_statements *ss);
bool server_statements_has(const struct server_statements *ss, const struct statement *s);
/* Makes it the most recently used. */
void server_statements_touch(struct server_statements *ss, const struct statement *s);
void server_statements_add(struct server_statements *ss, struct statement *s);
/* It has it, and what it has is not known to be stale. */
bool server_statements_is_fresh(const struct server_statements *ss, const struct statement *s);
void server_statements_remove(struct server_statements *ss, const struct statement *s,
                              struct statement_table *t);
/* It may not be what it was when it was prepared. */
void server_statements_age(struct server_statements *ss, const struct statement *s);
/* The least recently used, or NULL. */
struct statement *server_statements_oldest(const struct server_statements *ss);
void server_statements_clear(struct server_statements *ss, struct statement_table *t);
void server_statements_free(struct server_statements *ss, struct statement_table *t);

#endif
