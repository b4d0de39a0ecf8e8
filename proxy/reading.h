/* What the text of a prepared statement means depends on when, and under which settings, it is
 * prepared: PostgreSQL reads the literals of a text ('01/02/2020'::date), finds its tables and
 * settles the types of its parameters then. So statements are the same only if they were read
 * alike: under the same settings, and with no DDL in between that may have changed what they give.
 *
 * DDL is known by the tags of what passes here, through the same database entry: of statements, not
 * of what functions and DO blocks do. It counts when its transaction is over, and for the session
 * itself at once.
 */
#ifndef PGTRICKLE_PROXY_READING_H
#define PGTRICKLE_PROXY_READING_H

#include <stdbool.h>

#include "base/str.h"
#include "base/text.h"
#include "proxy/params.h"
#include "proxy/prepared.h"

struct client;
struct server;
struct settings;

/* Of the client that a server is linked to, as computed last; all zero is a valid one. */
struct reading_memo {
    struct reading reading;
    struct text text;
    struct params params; /* references on what it was computed from */
    struct settings *settings;
};

void reading_memo_free(struct reading_memo *m);

/* How the client, which is linked, would have a text read now; valid until the next call for its
 * server. */
const struct reading *reading_of(struct client *c);

/* The statement was read otherwise than the client would have it read now: it is replaced, and
 * prepared anew where it is used, if there was DDL in between or the server lacks it. told: the client was told the columns and does not ask again: it
 * stays with what was prepared before the DDL. */
void reading_renew(struct client *c, struct statement **st, bool told);

/* A statement of the server's client is done. */
void reading_on_tag(struct server *s, struct str tag);
/* ReadyForQuery; s->tx_status is its. */
void reading_on_ready(struct server *s);

#endif
