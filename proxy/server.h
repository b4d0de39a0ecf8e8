/* One server connection.
 *
 *   CONNECTING -> LOGIN -> IDLE <-> IN_USE
 *                           ^  \        |
 *                           |   v       v
 *                          TESTING   RESETTING -> IDLE         any -> CLOSED
 *
 * While IN_USE every request that was sent is in `owed`: what ends its reply, who shall see the
 * reply, and what its success changes. Requests of our own (Parse of a known statement, SET of
 * parameters, probes) are swallowed; replies that the server never sends (Parse that was not
 * needed) are faked in their place of the stream.
 */
#ifndef PGTRICKLE_PROXY_SERVER_H
#define PGTRICKLE_PROXY_SERVER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "base/text.h"
#include "protocol/reader.h"
#include "protocol/scram.h"
#include "proxy/client.h"
#include "proxy/conn.h"
#include "proxy/params.h"
#include "proxy/pool.h"
#include "proxy/prepared.h"
#include "proxy/reading.h"
#include "proxy/server_tls.h"
#include "proxy/timers.h"

struct listener;
struct settings;

enum server_state {
    SERVER_CONNECTING,
    SERVER_LOGIN,
    SERVER_IDLE,
    SERVER_IN_USE,
    SERVER_SYNCING,   /* linked; the client's parameters are being set */
    SERVER_TESTING,   /* probe */
    SERVER_DRAINING,  /* its client is gone: what it runs is cancelled and rolled back */
    SERVER_RESETTING, /* server_reset_query */
    SERVER_LISTENING, /* for the pool's clients: proxy/listener.h */
    SERVER_CLOSED,
};

enum reply_ends {
    ENDS_PARSE,    /* '1' */
    ENDS_BIND,     /* '2' */
    ENDS_CLOSE,    /* '3' */
    ENDS_DESCRIBE, /* 'T' or 'n' */
    ENDS_EXECUTE,  /* 'C', 'I', 's' */
    ENDS_SYNC,     /* 'Z' */
    ENDS_QUERY,    /* 'Z'; also FunctionCall */
};

enum reply_audience {
    REPLY_FORWARDED,
    REPLY_SWALLOWED,  /* an error is forwarded all the same */
    REPLY_FAKED,      /* nothing was sent: answered by us when its turn comes */
    REPLY_SUBSTITUTED /* made to fail: its error is shown as `error` */
};

/* A request that was sent (or is faked), and what its success means. What is noted here as done at
 * send time (statements that the server will have, names of the client) is undone when an error
 * drops the request. */
struct reply_owed {
    uint8_t ends;
    uint8_t audience;
    bool server_has;   /* Parse: `statement` is in server->statements since */
    bool server_lacks; /* Close of our own: `statement` was taken out */
    bool client_has;   /* Parse: the client's name `serial` is known since */
    bool client_lacks; /* Close: the client's name `serial` goes when this succeeds */
    bool sets;         /* ours, sets what the client wants: an error ends both */
    bool looks;        /* ours, asks what the client left in the session */
    bool retries;      /* the first of a batch that is kept (proxy/batch.h) */
    bool is_change;    /* one of these: counted in n_changes */
    uint32_t serial;
    struct statement *statement; /* a reference, or NULL */
    struct sql_outcome *outcome; /* Query, Execute: what its completions change; or NULL */
    char *error;                 /* REPLY_SUBSTITUTED: an ErrorResponse frame, malloc */
    size_t error_len;
    unsigned copy_ends; /* CopyDone and CopyFail that were sent behind it before it was answered */
};

struct reply_queue {
    struct reply_owed *ring;
    unsigned head;
    unsigned count;
    unsigned cap; /* a power of two */
};

/* A client that pipelines more than this waits. */
#define REPLIES_OWED_MAX 65536

struct login_job;

/* What its client's transaction did to types, and whether others know (proxy/reading.h). */
enum server_ddl {
    SERVER_DDL_NONE,
    SERVER_DDL_DONE, /* since the last ReadyForQuery */
    SERVER_DDL_TOLD, /* before; the transaction is not over */
};

struct server {
    struct conn conn; /* first */
    struct pool *pool;
    struct list_node pool_node; /* in the list of the pool that fits the state */
    struct list_node worker_node;
    struct pool *sent_to; /* it goes there, the same pool of another worker; NULL: it stays */
    struct leaver leaver;
    struct letter letter;
    uint64_t id;
    enum server_state state;
    struct listener *listener; /* a connection for LISTEN; NULL: any other */
    struct client *client;     /* IN_USE, SYNCING; of a replication connection always */
    enum replication replication;
    int host;           /* index in the entry's list */
    char *host_name;    /* as configured: a name, or an address; NULL: a unix socket */
    bool is_standby;    /* in_hot_standby */
    bool is_read_only;  /* default_transaction_read_only */
    bool opening;       /* counted as such in its pool's common */
    struct timer timer; /* connect, login, probe */
    uint64_t connected_at_us;
    uint64_t used_at_us; /* last change of state */
    int backend_pid;
    unsigned char backend_key[256]; /* secret part */
    unsigned backend_key_len;
    char tx_status; /* of the last ReadyForQuery */
    bool retire;    /* close when free */
    const char *retire_reason;
    bool from_reserve;
    bool tested;      /* it answered since it was last used */
    bool used;        /* was linked to a client */
    int cancels;      /* under way to this server: not reused before they are done */
    bool rolled_back; /* DRAINING */
    bool to_discard;  /* the same: DISCARD ALL when it is over */
    /* IN_USE */
    struct reply_queue owed;
    struct wire_reader reader;
    bool rest_goes_on; /* the beginning of a message that comes in pieces went to the client */
    bool copy_in;      /* the server waits for CopyData, and ignores Sync */
    /* How many owed replies have something noted that an error would undo, and how many of them are
     * in front of a Sync: what comes behind it must not build on them. */
    unsigned n_changes;
    unsigned n_changes_synced;
    struct bytequeue unnamed; /* the client's unnamed statement, while it is unnamed_unbound */
    struct bytequeue batch;   /* messages that may have to be sent again (proxy/batch.h) */
    bool batch_grows;
    bool retried;     /* that has happened */
    bool had_params;  /* and the client has the ParameterDescription of its Describe already */
    bool in_pipeline; /* extended messages were sent since the last ReadyForQuery */
    bool marked;      /* a private NOTICE arrived: LEND_COMPLETE before the next ReadyForQuery */
    bool lent;        /* a helper thread has the descriptor */
    struct server_statements statements;
    struct reading_memo reading;
    enum server_ddl ddl;
    struct params params;
    unsigned params_changed;   /* by what `sets`, which is still owed */
    struct settings *settings; /* what was set for clients beside params */
    bool settings_doubt;       /* clients may have changed them behind our back */
    uint64_t settings_hash;    /* of the statements that `sets` */
    /* LOGIN */
    struct server_tls tls;
    bool binds; /* by SCRAM-SHA-256-PLUS */
    bool bound; /* and the server has proved itself that way */
    bool scram_done;
    bool authenticated; /* AuthenticationOk came: before that it may say nothing else */
    struct scram_client *scram;
    struct login_job *login_job; /* computes keys for it */
    struct text welcome;         /* ParameterStatus frames of what is not followed */
    int server_version;
    bool connect_query_sent;
    bool asked_3_2;
    bool answered; /* with anything but an error */
};

/* Opens a connection for the pool, which has a place for it (proxy/pool_common.h). for_client: a
 * replication connection, to which the server belongs from now to its end; or NULL. */
struct server *server_open(struct pool *p, bool from_reserve, struct client *for_client);
/* One that another process opened, on descriptor fd: idle, or in use by c (NULL: idle). host: as
 * the configuration calls it. What else is known of it is the caller's to fill in, before
 * server_resume lets it go on. */
struct server *server_adopt(struct pool *p, struct client *c, const struct address *peer,
                            const char *host, int fd);
void server_resume(struct server *s);
/* Its descriptor, which is the caller's from now on; it is forgotten here, the stream as it is. Its
 * client must have been taken off. -1: it can't be given away. */
int server_surrender(struct server *s);
/* An idle one goes to the same pool of another worker when this event is over; nobody here gets it
 * any more. */
void server_send(struct server *s, struct pool *to);
/* One that listens for the clients of the pool; it is in no limit. */
struct server *server_open_listener(struct pool *p, struct listener *l);
/* Takes the server out of the pool and closes it; its client, if any, must have been unlinked. */
void server_close(struct server *s, const char *reason);
/* Takes the client off and closes; the client is told the reason. */
void server_lose(struct server *s, const char *reason);

/* Linked to a client from now on: parameters are set first if they differ. */
void server_link(struct server *s, struct client *c);
/* The same for one that is linked already and was reset by its client. */
void server_set_again(struct server *s);
/* The client lets go of it. Clean: goes back to the pool (reset first in session mode). Else what
 * it runs is cancelled, and it goes back when that took less than server_cancel_timeout and left
 * nothing behind. */
void server_unlink(struct server *s, bool client_is_gone);
/* The name has lost addresses: what is connected to these is closed when free. */
void server_on_addresses(struct worker *w, const char *host_name);
/* To be closed when it is free; now, if it is, or would never be. */
void server_retire(struct server *s, const char *reason);
/* No cancel request is under way to it any more. */
void server_on_canceled(struct server *s);
/* Nothing outstanding and no transaction, nor the one that goes on until a pipeline's Sync. */
bool server_is_clean(const struct server *s);
bool server_is_setting(const struct server *s); /* what the client wants: not to be cancelled */
bool server_is_quiet(const struct server *s);   /* no reply is owed, nothing to be sent */

/* Sends a probe (SERVER_TESTING). */
void server_test(struct server *s);

/* Queues what will be owed for the request that is sent next. The entry is valid until the next
 * call. */
struct reply_owed *server_owe(struct server *s, enum reply_ends ends, enum reply_audience audience);
/* The client sends CopyDone or CopyFail. */
void server_note_copy_end(struct server *s);
/* Something was noted in it that an error undoes. */
void server_note_change(struct server *s, struct reply_owed *o);
/* The Parse that gave the client this name is not answered yet. */
bool server_owes_name(struct server *s, uint32_t serial);
/* Answers fakes whose turn has come. */
void server_answer_fakes(struct server *s);
/* Makes sure that the server has the statement when the next message arrives: sends a Parse (or a
 * PREPARE, by messages of the extended protocol), and a Close when there are too many. */
void server_prepare(struct server *s, struct statement *st);
/* Its result type is no longer what it was, on any server, or it is gone from this one; prepared
 * anew when it is wanted again. */
void server_distrust(struct server *s, struct statement *st, bool is_gone);
/* It has the statement, and nobody knows that to be stale. */
bool server_has_fresh(const struct server *s, const struct statement *st);
/* A Parse of it is sent next, or has been answered. */
void server_learned(struct server *s, struct statement *st);
struct reply_owed *server_owed_at(struct server *s, unsigned i);
/* One more statement fits without closing another. */
bool server_has_room(const struct server *s);
/* Room for one more statement; what the server has of this one is closed. */
void server_make_room(struct server *s, struct statement *st);
/* The helper thread is done with the connection. */
void server_take_back(struct server *s, char tx_status, struct str parameter_frames);

/* LOGIN: what was computed elsewhere for it could not be used. */
void server_login_failed(struct server *s, const char *message);

const char *server_state_name(const struct server *s);
void server_log(struct server *s, enum log_level level, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
