/* Session parameters that follow the client.
 *
 * PostgreSQL reports some parameters (ParameterStatus). In transaction pooling a client must find
 * "its" values on whatever server it is linked to: they are kept per client and per server,
 * compared at the link, and the differences are SET. Values are shared and reference counted, and
 * so are sets of them: a thousand clients with the same six values hold one pointer each.
 * What PostgreSQL does not report is followed by proxy/settings.h.
 */
#ifndef PGTRICKLE_PROXY_PARAMS_H
#define PGTRICKLE_PROXY_PARAMS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/str.h"
#include "base/text.h"

#define PARAMS_MAX 32

/* Which names are followed: those that PostgreSQL itself reports, and track_extra_parameters (what
 * extensions report). */
struct params_names {
    int count;
    char *name[PARAMS_MAX];
};

/* The fixed ones keep their place. */
enum {
    PARAM_CLIENT_ENCODING,
    PARAM_DATESTYLE,
    PARAM_TIMEZONE,
    PARAM_STANDARD_CONFORMING_STRINGS,
    PARAM_APPLICATION_NAME,
    PARAM_INTERVALSTYLE,
    PARAM_DEFAULT_TRANSACTION_READ_ONLY,
    PARAM_SCRAM_ITERATIONS,
    PARAM_SEARCH_PATH,
};

struct param_set; /* shared, copied when it is changed */

struct params {
    struct param_set *set; /* NULL: nothing is known */
};

/* extra: comma list, as track_extra_parameters. */
void params_names_init(struct params_names *n, const char *extra);
void params_names_free(struct params_names *n);
/* The index, or -1. Names are compared without case. */
int params_find(const struct params_names *n, struct str name);

void params_clear(struct params *p);
void params_set(struct params *p, int i, struct str value);
const char *params_get(const struct params *p, int i); /* NULL when unknown */
void params_share(struct params *to, const struct params *from, int i);
void params_copy(struct params *to, const struct params *from);
/* When all values are equal, both hold the same set from now on: what is compared for each
 * transaction is then one pointer. */
void params_unify(struct params *to, const struct params *from);
void params_fill_unset(struct params *to, const struct params *from);

void params_remove(struct params *p, int i); /* unknown again */

/* Appends "SET name='value';" for each of the client's known values that differs from the server's,
 * and marks it in *changed. False when there is none. */
bool params_differences(const struct params_names *n, const struct params *client,
                        const struct params *server, struct text *sql, unsigned *changed);

#endif
