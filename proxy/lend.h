/* Stream-table statements: a client's server connection, lent to a helper thread.
 *
 * Most traffic never comes here. When intercept (proxy/intercept.h) finds that a
 * request is a stream-table statement, or calls a function of pgtrickle's that
 * needs the compiler, the session detaches its server connection and runs one
 * lend_job on a helper thread: straight-line blocking code that talks to the server
 * and collects bytes for the client. The loop never blocks; the client's later
 * messages wait; its socket and the pool are not touched by the job.
 *
 * Before the job starts the connection must be quiet: every reply owed for earlier
 * messages has arrived (a Flush makes the server send them in a pipeline).
 */
#ifndef PGTRICKLE_PROXY_LEND_H
#define PGTRICKLE_PROXY_LEND_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/str.h"
#include "base/text.h"
#include "proxy/conn.h"

struct dvm;
struct dvm_target;

enum lend_kind {
    LEND_SIMPLE_QUERY, /* the whole of one Query message */
    LEND_EXECUTE,      /* one Execute message; Parse, Bind, Describe went before it as usual */
    LEND_INSTALL,      /* no server connection: installs the SQL side, nothing else */
    LEND_COMPLETE,     /* a private NOTICE arrived from a statement that was forwarded as is:
                        * complete its requests after its ReadyForQuery */
};

struct lend_job {
    /* In; everything is copied by the caller and lives until lend_run returns. */
    enum lend_kind kind;
    struct dvm *dvm;
    const struct dvm_target *target; /* of this client's database */
    struct lent_stream stream; /* the server's; blocking mode is set and restored by lend_run */
    int server_version;        /* from the server_version parameter: 150020 */
    struct str query;          /* LEND_SIMPLE_QUERY: text without the NUL */
    struct str execute;        /* LEND_EXECUTE: the complete Execute frame to send to the server */
    const char *execute_tag;   /* LEND_EXECUTE: completion tag to show, e.g. "CREATE STREAM TABLE";
                                * NULL: the server's own */
    size_t definition_offset; /* LEND_EXECUTE: bytes before the definition in the client's text, for
                               * positions */
    struct str statement_text; /* LEND_EXECUTE: the client's own text of the statement */
    bool in_block;             /* inside a transaction block */
    bool in_failed_block;      /* which is aborted (E); LEND_SIMPLE_QUERY only */
    bool standard_conforming_strings;
    /* Called on the helper thread with bytes for the client; may block for back-pressure. False
     * when the client is gone: the job then still ends its work cleanly. */
    bool (*emit)(void *arg, const void *bytes, size_t len);
    void *emit_arg;

    /* Out. */
    char tx_status;     /* I, T, E after the job. LEND_SIMPLE_QUERY and LEND_COMPLETE: ReadyForQuery
                         * has been emitted already. LEND_EXECUTE and LEND_INSTALL: it has not */
    bool opened_block;  /* LEND_EXECUTE: the job opened a transaction block around an autocommit
                         * pipeline: at the client's Sync, run lend_end_block instead of forwarding
                         * it */
    bool failed;        /* an ErrorResponse was emitted: skip the pipeline up to Sync */
    bool server_broken; /* close the server connection */
    struct err err;     /* LEND_INSTALL: why it failed */
    struct text parameters; /* ParameterStatus frames that the server sent meanwhile, to be
                             * accounted for by the session (already emitted to the client) */
};

/* Runs the job to its end. Blocks. */
void lend_run(struct lend_job *job);

/* The client's Sync after a job that opened_block: commits (or rolls back when failed), emits
 * errors if the commit fails, then ReadyForQuery. Blocks; runs on a helper thread like lend_run. */
void lend_end_block(struct lend_job *job);

#endif
