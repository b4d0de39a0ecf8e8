/* Records of a takeover: the reader takes any bytes and what it reads can be written again; and a
 * process that imports any records, with the right names or not, goes on and ends as others do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proxy/record.h"
#include "proxy/takeover.h"
#include "tests/proxy/world.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void claim(bool ok)
{
    if (!ok)
        __builtin_trap();
}

static void read_any(struct str record)
{
    struct str rest = record, name, value, found;
    struct bytequeue again = { 0 };
    char text[256];

    while (record_next(&rest, &name, &value)) {
        if (memchr(name.ptr, '\0', name.len) != NULL)
            break;
        memcpy(text, name.ptr, name.len);
        text[name.len] = '\0';
        size_t before = bytequeue_len(&again);
        record_put(&again, text, value);
        claim(memcmp(bytequeue_str(&again).ptr + before, record.ptr + before,
                     bytequeue_len(&again) - before) == 0);
        claim(record_get(record, text, &found));
        record_number(record, text);
    }
    bytequeue_free(&again);
}

static const char *const names[] = {
    "kind",
    "database",
    "user",
    "name",
    "forced",
    "number",
    "source",
    "shared",
    "body",
    "settings",
    "ddl",
    "peer_host",
    "peer_port",
    "peer_unix",
    "in",
    "out",
    "paused",
    "was_full",
    "reader_tag",
    "reader_len",
    "reader_left",
    "id",
    "login_waits",
    "replication",
    "cancel_key",
    "discards",
    "skips",
    "canceled",
    "request_at",
    "xact_at",
    "next_serial",
    "synced_serial",
    "unnamed_here",
    "unnamed",
    "session_touched",
    "session_names",
    "session_resets",
    "session_pinned",
    "session_pin_reason",
    "param",
    "startup",
    "setting",
    "statement",
    "server",
    "target",
    "host",
    "key",
    "tx_status",
    "retire",
    "reserve",
    "tested",
    "used",
    "copy_in",
    "version",
    "doubt",
    "changes_synced",
    "in_pipeline",
    "owed",
    "ends",
    "audience",
    "server_has",
    "server_lacks",
    "client_has",
    "client_lacks",
    "change",
    "serial",
    "copy_ends",
    "error",
    "stale",
    "closing",
    "described",
    "believes_old",
    "welcome",
    "secret",
    "verifier",
    "client_key",
    "server_key",
    "last_id",
    "mock_key",
    "stats",
    "value",
    "standby",
};

static const char *const values[] = {
    "client",
    "server",
    "process",
    "database",
    "pool",
    "statement",
    "db",
    "ann",
    "I",
    "T",
    "E",
    "0",
    "1",
    "2",
    "7",
    "99",
    "4294967295",
    "10.0.0.1",
    "18446744073709551615",
};

enum { N_NAMES = sizeof(names) / sizeof(names[0]), N_VALUES = sizeof(values) / sizeof(values[0]) };

struct input {
    const uint8_t *at;
    const uint8_t *end;
};

static unsigned next(struct input *in)
{
    return in->at < in->end ? *in->at++ : 0;
}

static void put_fields(struct input *in, struct bytequeue *record, unsigned depth)
{
    for (unsigned n = next(in) % 24; n > 0 && in->at < in->end; n--) {
        const char *name = names[next(in) % N_NAMES];
        unsigned kind = next(in);

        if (kind < 64 && depth < 2) {
            struct bytequeue inner = { 0 };
            put_fields(in, &inner, depth + 1);
            record_put(record, name, bytequeue_str(&inner));
            bytequeue_free(&inner);
        } else if (kind < 200) {
            record_put(record, name, str_from(values[kind % N_VALUES]));
        } else {
            size_t left = (size_t)(in->end - in->at), n_bytes = kind - 200;
            struct str value = { (const char *)in->at, n_bytes < left ? n_bytes : left };
            record_put(record, name, value);
            in->at += value.len;
        }
    }
}

/* Every client and server takes what is said to it, and goes. */
static void play(struct world *w, struct input *in)
{
    for (struct peer *p = w->peers, *next_peer; p != NULL; p = next_peer) {
        next_peer = p->next;
        if (p->conn == NULL)
            continue;
        size_t n = next(in);
        if (n > (size_t)(in->end - in->at))
            n = (size_t)(in->end - in->at);
        peer_send(p, in->at, n);
        in->at += n;
    }
    world_sleep(w, 1);
    for (struct peer *p = w->peers; p != NULL; p = p->next)
        if (p->conn != NULL)
            peer_hang_up(p);
    world_sleep(w, 100);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct input in = { bytes, bytes + len };

    read_any((struct str){ (const char *)bytes, len });
    struct world *w = world_new("auth_type = trust\npool_mode = transaction\nlogfile =\n",
                                "\"ann\" \"secret\"\n");
    for (unsigned n = next(&in) % 6; n > 0; n--) {
        struct bytequeue record = { 0 };
        static const char *const kinds[] = { "client",   "server", "statement",
                                             "database", "pool",   "process" };
        int fds[2] = { world_descriptor(w), world_descriptor(w) };
        unsigned kind = next(&in);
        if (kind < 252)
            record_put(&record, "kind", str_from(kinds[kind % 6]));
        if (kind % 3 > 0) {
            record_put(&record, "database", STR("db"));
            record_put(&record, "user", STR("ann"));
        }
        put_fields(&in, &record, 0);
        takeover_import(w->proxy, bytequeue_str(&record), fds,
                        kind % 6 < 2 ? 1 + kind / 64 % 2 : 0);
        bytequeue_free(&record);
    }
    takeover_resume(w->proxy);
    world_settle(w);
    play(w, &in);
    world_free(w);
    return 0;
}
