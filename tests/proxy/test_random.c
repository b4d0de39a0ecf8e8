/* Random worlds: clients that pipeline, fail, open transactions, die; servers that answer as
 * PostgreSQL does, in pieces of any size. After each step: a client gets exactly the replies it
 * asked for, in order, and a server never serves a client while another one's transaction is open
 * on it.
 *
 *     SEED=7 test_random        repeats one world
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/arena.h"
#include "protocol/auth.h"
#include "protocol/notice.h"
#include "protocol/query_extended.h"
#include "protocol/query_simple.h"
#include "protocol/result.h"
#include "protocol/status.h"
#include "tests/proxy/world.h"

#define USERS "\"ann\" \"secret\"\n"
#define CLIENTS 6
#define STEPS 3000

struct player {
    struct peer *peer;
    char expect[4096]; /* tags that are still to come */
    bool in_tx;        /* as it will be when all is answered */
    bool failed_tx;
    unsigned token; /* of its open transaction */
    bool names[4];
};

/* A server: what it was told and has not answered, and its session. */
struct backend {
    struct backend *next;
    struct peer *peer;
    struct bytequeue heard;
    struct bytequeue says;
    char tx;
    unsigned token; /* who began the transaction */
    bool skips;
    unsigned n_names;
    char names[64][32];
};

static uint64_t rng;

static unsigned roll(unsigned n)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return (unsigned)(rng % n);
}

static bool has_name(struct backend *b, const char *name)
{
    if (name[0] == '\0')
        return true;
    for (unsigned i = 0; i < b->n_names; i++)
        if (strcmp(b->names[i], name) == 0)
            return true;
    return false;
}

static void drop_name(struct backend *b, const char *name)
{
    for (unsigned i = 0; i < b->n_names; i++)
        if (strcmp(b->names[i], name) == 0)
            memcpy(b->names[i], b->names[--b->n_names], sizeof(b->names[i]));
}

static void fail_request(struct backend *b, const char *sqlstate, bool extended)
{
    notice_encode_error(&b->says, "ERROR", sqlstate, "no");
    if (b->tx == STATUS_IN_TRANSACTION)
        b->tx = STATUS_FAILED;
    b->skips = extended;
}

/* Runs "begin N", "commit", "fail", "select N". */
static void run_sql(struct backend *b, const char *sql, bool extended)
{
    unsigned token = 0;

    if (sscanf(sql, "begin %u", &token) == 1) {
        if (b->tx != STATUS_IDLE)
            fail_msg("begin of %u inside the transaction of %u", token, b->token);
        b->tx = STATUS_IN_TRANSACTION;
        b->token = token;
        wire_encode_command_complete(&b->says, STR("BEGIN"));
    } else if (sscanf(sql, "commit %u", &token) == 1) {
        if (b->tx == STATUS_IDLE || b->token != token)
            fail_msg("commit of %u meets the transaction of %u", token, b->token);
        b->tx = STATUS_IDLE;
        wire_encode_command_complete(&b->says, STR("COMMIT"));
    } else if (sscanf(sql, "select %u", &token) == 1 && token != 0 && b->tx != STATUS_IDLE &&
               b->token != token) {
        fail_msg("statement of %u in the transaction of %u", token, b->token);
    } else if (b->tx == STATUS_FAILED && strcmp(sql, "ROLLBACK") != 0) {
        fail_request(b, "25P02", extended);
    } else if (strcmp(sql, "ROLLBACK") == 0) {
        b->tx = STATUS_IDLE; /* of whoever is gone */
        wire_encode_command_complete(&b->says, STR("ROLLBACK"));
    } else if (strcmp(sql, "fail") == 0) {
        fail_request(b, "22012", extended);
    } else {
        wire_encode_data_row(&b->says, NULL, 0);
        wire_encode_command_complete(&b->says, STR("SELECT 1"));
    }
}

static void hear(struct backend *b)
{
    struct wire_frame f;
    struct msg_parse parse;
    struct msg_target target;
    struct msg_bind_names bind;

    while (wire_next_frame(SENT_BY_FRONTEND, bytequeue_str(&b->heard), &f) == WIRE_FRAME) {
        if (b->skips && f.tag != FE_SYNC) {
            bytequeue_consume(&b->heard, f.bytes.len);
            continue;
        }
        switch (f.tag) {
        case FE_QUERY:
            run_sql(b, f.body.ptr, false);
            wire_encode_ready(&b->says, (enum wire_status)b->tx);
            break;
        case FE_PARSE:
            assert_true(wire_decode_parse(f.body, &parse));
            if (has_name(b, parse.statement.ptr) && parse.statement.len > 0) {
                fail_msg("statement %s is prepared twice", parse.statement.ptr);
            } else if (strncmp(parse.query.ptr, "selec ", 6) == 0) {
                fail_request(b, "42601", true);
            } else {
                if (parse.statement.len > 0) {
                    assert_true(b->n_names < 64);
                    strcpy(b->names[b->n_names++], parse.statement.ptr);
                }
                wire_put_empty(&b->says, BE_PARSE_COMPLETE);
            }
            break;
        case FE_BIND:
            assert_int_equal(wire_decode_bind_names(f.body, &bind), WIRE_FRAME);
            if (!has_name(b, bind.statement.ptr))
                fail_request(b, "26000", true);
            else
                wire_put_empty(&b->says, BE_BIND_COMPLETE);
            break;
        case FE_DESCRIBE:
            assert_true(wire_decode_target(f.body, &target));
            if (!has_name(b, target.name.ptr))
                fail_request(b, "26000", true);
            else
                wire_put_empty(&b->says, BE_NO_DATA);
            break;
        case FE_CLOSE:
            assert_true(wire_decode_target(f.body, &target));
            drop_name(b, target.name.ptr);
            wire_put_empty(&b->says, BE_CLOSE_COMPLETE);
            break;
        case FE_EXECUTE:
            run_sql(b, "select 0", true);
            break;
        case FE_SYNC:
            b->skips = false;
            wire_encode_ready(&b->says, (enum wire_status)b->tx);
            break;
        default:
            break;
        }
        bytequeue_consume(&b->heard, f.bytes.len);
    }
}

/* A client's next request; what it must be answered is noted. */
static void ask(struct player *p, unsigned id)
{
    struct bytequeue q = { 0 };
    char sql[64], name[8];
    size_t n = strlen(p->expect);
    char *out = p->expect + n;
    unsigned which = roll(4);

    if (n > sizeof(p->expect) - 128)
        return;
    snprintf(name, sizeof(name), "s%u", which);
    switch (roll(p->in_tx ? 8 : 7)) {
    case 0:
        if (p->in_tx)
            return;
        snprintf(sql, sizeof(sql), "begin %u", id);
        wire_encode_query(&q, str_from(sql));
        p->in_tx = true;
        strcpy(out, "CZ");
        break;
    case 1:
    case 2:
        snprintf(sql, sizeof(sql), "select %u", p->in_tx ? id : 0);
        wire_encode_query(&q, str_from(sql));
        strcpy(out, p->failed_tx ? "E(25P02)Z" : "DCZ");
        break;
    case 3:
        wire_encode_query(&q, STR("fail"));
        strcpy(out, p->failed_tx ? "E(25P02)Z" : "E(22012)Z");
        p->failed_tx = p->in_tx;
        break;
    case 4:
    case 5: /* prepare when it is not, then use it twice in one pipeline */
        if (!p->names[which]) {
            snprintf(sql, sizeof(sql), "select %u", which);
            wire_encode_parse(&q, str_from(name), str_from(sql), NULL, 0);
            p->names[which] = true;
            strcat(out, "1");
        }
        wire_encode_bind_text(&q, STR(""), str_from(name), NULL, 0);
        wire_encode_execute(&q, STR(""), 0);
        if (p->failed_tx) {
            strcat(out, "2E(25P02)Z");
        } else {
            wire_encode_bind_text(&q, STR(""), str_from(name), NULL, 0);
            wire_encode_execute(&q, STR(""), 0);
            strcat(out, "2DC2DCZ");
        }
        wire_encode_sync(&q);
        break;
    case 6: /* a pipeline that fails in the middle: its last name stays unknown */
        wire_encode_parse(&q, STR("never"), STR("selec x"), NULL, 0);
        wire_encode_bind_text(&q, STR(""), STR("never"), NULL, 0);
        wire_encode_execute(&q, STR(""), 0);
        wire_encode_sync(&q);
        strcpy(out, "E(42601)Z");
        p->failed_tx = p->in_tx;
        break;
    default:
        snprintf(sql, sizeof(sql), "commit %u", id);
        wire_encode_query(&q, str_from(sql));
        p->in_tx = p->failed_tx = false;
        strcpy(out, "CZ");
        break;
    }
    while (bytequeue_len(&q) > 0) {
        size_t piece = 1 + roll(40);
        if (piece > bytequeue_len(&q))
            piece = (unsigned)bytequeue_len(&q);
        peer_send(p->peer, bytequeue_str(&q).ptr, piece);
        bytequeue_consume(&q, piece);
    }
    bytequeue_free(&q);
}

static void check_answers(struct player *p)
{
    const char *got = peer_take(p->peer);
    size_t n = strlen(got);

    if (strncmp(p->expect, got, n) != 0)
        fail_msg("expected %.80s, got %s", p->expect, got);
    memmove(p->expect, p->expect + n, strlen(p->expect + n) + 1);
}

/* Takes the next connect; a cancel is heard out and ends. NULL: there is none. */
static struct backend *greet(struct world *w)
{
    struct peer *s;
    struct bytequeue q = { 0 };

    for (;;) {
        s = world_next_connect(w);
        if (s == NULL)
            return NULL;
        peer_connected(s);
        if (bytequeue_len(&s->got) != 16 ||
            memcmp(bytequeue_str(&s->got).ptr + 4, "\4\322\26\56", 4) != 0)
            break;
        peer_hang_up(s);
    }
    struct backend *b = mem_alloc(sizeof(*b));
    b->peer = s;
    b->tx = STATUS_IDLE;
    bytequeue_consume(&s->got, bytequeue_len(&s->got));
    auth_encode_ok(&q);
    wire_encode_parameter_status(&q, STR("TimeZone"), STR("UTC"));
    wire_encode_backend_key(&q, 4711, (struct str){ "\1\2\3\4", 4 });
    wire_encode_ready(&q, STATUS_IDLE);
    peer_send_queue(s, &q);
    return b;
}

static void play(uint64_t seed)
{
    struct world *w = world_new("auth_type = trust\npool_mode = transaction\n"
                                "default_pool_size = 3\nmax_prepared_statements = 2\n"
                                "query_wait_timeout = 0\nquery_wait_notify = 0\n",
                                USERS);
    struct player players[CLIENTS] = { 0 };
    struct backend *backends = NULL;
    unsigned next_id = 1;

    rng = seed * 2654435761u + 88172645463325252u;
    for (unsigned step = 0; step < STEPS + 400; step++) {
        unsigned i = roll(CLIENTS);
        struct player *p = &players[i];
        struct backend *b;

        if (step < STEPS && p->peer == NULL) {
            *p = (struct player){ .peer = world_login(w, "ann", "db"), .token = next_id++ };
            strcpy(p->expect, "RSKZ");
        } else if (step < STEPS && roll(100) == 0) {
            peer_hang_up(p->peer);
            p->peer = NULL;
        } else if (step < STEPS && p->peer != NULL && strncmp(p->expect, "R", 1) != 0) {
            ask(p, p->token);
        }
        while ((b = greet(w)) != NULL) {
            b->next = backends;
            backends = b;
        }
        for (struct backend **at = &backends; *at != NULL;) {
            b = *at;
            if (b->peer->conn == NULL) {
                *at = b->next;
                bytequeue_free(&b->heard);
                bytequeue_free(&b->says);
                free(b);
                continue;
            }
            struct str got = bytequeue_str(&b->peer->got);
            bytequeue_put(&b->heard, got.ptr, got.len);
            bytequeue_consume(&b->peer->got, got.len);
            hear(b);
            for (unsigned k = step < STEPS ? roll(4) : 50;
                 k > 0 && bytequeue_len(&b->says) > 0 && b->peer->conn != NULL; k--) {
                size_t piece = 1 + roll(60);
                if (piece > bytequeue_len(&b->says))
                    piece = bytequeue_len(&b->says);
                peer_send(b->peer, bytequeue_str(&b->says).ptr, piece);
                bytequeue_consume(&b->says, piece);
            }
            at = &b->next;
        }
        for (unsigned k = 0; k < CLIENTS; k++)
            if (players[k].peer != NULL) {
                assert_non_null(players[k].peer->conn);
                check_answers(&players[k]);
            }
        /* To the end: whoever holds a server lets go, so that all are served. */
        if (step >= STEPS && p->peer != NULL && p->in_tx && strlen(p->expect) == 0) {
            peer_hang_up(p->peer);
            p->peer = NULL;
        }
        world_sleep(w, 0.001);
    }
    for (unsigned k = 0; k < CLIENTS; k++)
        if (players[k].peer != NULL && players[k].expect[0] != '\0')
            fail_msg("a client waits for %.40s for ever", players[k].expect);
    while (backends != NULL) {
        struct backend *b = backends;
        backends = b->next;
        bytequeue_free(&b->heard);
        bytequeue_free(&b->says);
        free(b);
    }
    world_free(w);
}

static void test_each_client_gets_its_own_answers_in_order(void **state)
{
    const char *given = getenv("SEED");

    (void)state;
    if (given != NULL) {
        play(strtoull(given, NULL, 10));
        return;
    }
    for (uint64_t seed = 1; seed <= 20; seed++) {
        print_message("SEED=%d\n", (int)seed);
        play(seed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_client_gets_its_own_answers_in_order),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
