/* The whole core between two clients and their servers, all of which say what they like.
 *
 * The input is a script: an operation, who does it, and what it needs. Raw bytes find what framing
 * does with them; messages of the right form with wild contents get behind it, into the machines of
 * prepared statements, owed replies and errors. Nothing may crash, leak, or be kept beyond bounds.
 */
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "protocol/auth.h"
#include "protocol/message_types.h"
#include "protocol/notice.h"
#include "protocol/query_extended.h"
#include "protocol/query_simple.h"
#include "protocol/result.h"
#include "protocol/startup.h"
#include "protocol/status.h"
#include "protocol/writer.h"
#include "tests/proxy/world.h"

#define CLIENTS 2
#define SERVERS 2
#define KEPT_MAX (1024 * 1024) /* an input is far smaller */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct script {
    const uint8_t *at;
    const uint8_t *end;
    struct world *world;
    struct peer *clients[CLIENTS];
    struct peer *servers[SERVERS];
};

static uint8_t next(struct script *s)
{
    return s->at < s->end ? *s->at++ : 0;
}

static struct str next_bytes(struct script *s, size_t n)
{
    if (n > (size_t)(s->end - s->at))
        n = (size_t)(s->end - s->at);
    struct str bytes = { (const char *)s->at, n };
    s->at += n;
    return bytes;
}

/* One of few, so that names meet. */
static struct str next_name(struct script *s)
{
    static const char *const names[] = { "", "a", "b", "PGTRICKLE_1" };
    return str_from(names[next(s) % 4]);
}

static struct str next_sql(struct script *s)
{
    static const char *const texts[] = {
        "select 1",  "begin",    "select 2", "deallocate all", "prepare a as select 1",
        "set x = 1", "listen a", ""
    };
    return str_from(texts[next(s) % 8]);
}

static void client_message(struct script *s, struct bytequeue *q)
{
    switch (next(s) % 10) {
    case 0:
        wire_encode_query(q, next_sql(s));
        break;
    case 1:
        wire_encode_parse(q, next_name(s), next_sql(s), NULL, 0);
        break;
    case 2:
        wire_encode_bind_text(q, next_name(s), next_name(s), NULL, 0);
        break;
    case 3:
        wire_encode_describe(q, next(s) % 2 ? TARGET_STATEMENT : TARGET_PORTAL, next_name(s));
        break;
    case 4:
        wire_encode_close(q, next(s) % 2 ? TARGET_STATEMENT : TARGET_PORTAL, next_name(s));
        break;
    case 5:
        wire_encode_execute(q, next_name(s), next(s));
        break;
    case 6:
        wire_encode_sync(q);
        break;
    case 7:
        wire_encode_flush(q);
        break;
    default: {
        static const char tags[] = "QPBDCESHdcfFpX";
        struct wire_mark m = wire_begin(q, tags[next(s) % (sizeof(tags) - 1)]);
        struct str body = next_bytes(s, next(s));
        bytequeue_put(q, body.ptr, body.len);
        wire_end(q, m);
    }
    }
}

static void server_message(struct script *s, struct bytequeue *q)
{
    static const char statuses[] = "ITE";
    static const char *const tags[] = { "SELECT 1", "BEGIN", "DISCARD ALL", "DEALLOCATE ALL" };

    switch (next(s) % 10) {
    case 0:
    case 1:
        wire_encode_ready(q, (enum wire_status)statuses[next(s) % 3]);
        break;
    case 2:
        wire_encode_command_complete(q, str_from(tags[next(s) % 4]));
        break;
    case 3:
        notice_encode_error(q, "ERROR", "0A000", "cached plan must not change result type");
        break;
    case 4:
        wire_put_empty(q, "123ntsIc"[next(s) % 8]);
        break;
    case 5:
        wire_encode_parameter_status(q, STR("TimeZone"), next_name(s));
        break;
    case 6:
        wire_encode_data_row(q, NULL, 0);
        break;
    default: {
        static const char tags_of_bodies[] = "RSKZCDTtNEAGHWdVv";
        struct wire_mark m = wire_begin(q, tags_of_bodies[next(s) % (sizeof(tags_of_bodies) - 1)]);
        struct str body = next_bytes(s, next(s));
        bytequeue_put(q, body.ptr, body.len);
        wire_end(q, m);
    }
    }
}

static void say(struct peer *p, struct bytequeue *q)
{
    if (p != NULL && p->conn != NULL)
        peer_send_queue(p, q);
    bytequeue_free(q);
}

static void serve(struct script *s, unsigned who, bool log_in)
{
    struct peer **at = &s->servers[who % SERVERS];
    struct bytequeue q = { 0 };

    if (*at != NULL && (*at)->conn != NULL)
        return;
    *at = world_next_connect(s->world);
    if (*at != NULL && (*at)->conn != NULL)
        peer_connected(*at);
    if (!log_in)
        return;
    auth_encode_ok(&q);
    wire_encode_parameter_status(&q, STR("server_version"), STR("15.4"));
    wire_encode_parameter_status(&q, STR("TimeZone"), STR("GMT"));
    wire_encode_backend_key(&q, 4711, STR("keys"));
    wire_encode_ready(&q, STATUS_IDLE);
    say(*at, &q);
}

static void step(struct script *s)
{
    struct bytequeue q = { 0 };
    uint8_t op = next(s);
    struct peer **c = &s->clients[op / 16 % CLIENTS];
    struct peer *server = s->servers[op / 32 % SERVERS];

    switch (op % 12) {
    case 0:
    case 1:
    case 2:
        client_message(s, &q);
        say(*c, &q);
        break;
    case 3:
    case 4:
    case 5:
        server_message(s, &q);
        say(server, &q);
        break;
    case 6: {
        struct str raw = next_bytes(s, next(s));
        bytequeue_put(&q, raw.ptr, raw.len);
        say(op & 64 ? server : *c, &q);
        break;
    }
    case 7:
        if (op & 64)
            world_sleep(s->world, next(s));
        else if (*c != NULL && (*c)->conn != NULL)
            peer_open_window(*c, next(s));
        break;
    case 8:
        if (*c == NULL || (*c)->conn == NULL)
            *c =
                op & 64 ? world_startup(s->world, "ann", "db", NULL, NULL) : world_accept(s->world);
        break;
    case 9:
    case 10:
        serve(s, op / 32, op & 64);
        break;
    default:
        if (op & 64 && server != NULL && server->conn != NULL)
            peer_hang_up(server);
        else if (!(op & 64) && *c != NULL && (*c)->conn != NULL)
            peer_hang_up(*c);
        break;
    }
    for (struct peer *p = s->world->peers; p != NULL; p = p->next) {
        bytequeue_consume(&p->got, bytequeue_len(&p->got));
        if (p->conn != NULL &&
            bytequeue_cap(&p->conn->in) + bytequeue_cap(&p->conn->out) > KEPT_MAX)
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const settings[] = {
        "pool_mode = transaction\nmax_prepared_statements = 2\n",
        "pool_mode = session\n",
        "pool_mode = statement\nquery_timeout = 100\n",
        "pool_mode = transaction\nserver_reset_query_always = 1\nmax_packet_size = 1000\n",
    };
    struct script s = { .at = data, .end = data + size };
    char ini[300] = "auth_type = trust\ndefault_pool_size = 2\nlog_connections = 0\n"
                    "log_disconnections = 0\nlog_pooler_errors = 0\n";

    strcat(ini, settings[next(&s) % 4]);
    s.world = world_new(ini, "\"ann\" \"\"\n");
    s.clients[0] = world_startup(s.world, "ann", "db", NULL, NULL);
    serve(&s, 0, true);
    while (s.at < s.end)
        step(&s);
    world_free(s.world);
    return 0;
}
