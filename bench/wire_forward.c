/* What the wire library costs a message, without sockets: ns to frame and append it to another
 * queue.
 *
 * Streams of one kind of message are cut into reads of 16 kB, as they would arrive. Each case runs
 * for a tenth of a second, five times; the best is printed, for the others were disturbed.
 */
#include <stdio.h>
#include <time.h>

#include "base/bytequeue.h"
#include "protocol/query_extended.h"
#include "protocol/reader.h"
#include "protocol/result.h"

#define READ_LEN 16384
#define STREAM_LEN (4 * 1024 * 1024)
#define WHOLE_MAX 16384

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void put_row(struct bytequeue *q, size_t value_len)
{
    static const char value[STREAM_LEN] = { 0 };
    struct str values[] = { { value, value_len / 2 }, { value, value_len - value_len / 2 } };
    wire_encode_data_row(q, values, 2);
}

static void put_request(struct bytequeue *q, size_t value_len)
{
    struct str values[] = { { "0123456789", value_len } };
    wire_encode_bind_text(q, STR(""), STR("statement"), values, 1);
    wire_encode_describe(q, TARGET_PORTAL, STR(""));
    wire_encode_execute(q, STR(""), 0);
    wire_encode_sync(q);
}

static bool is_named(char tag)
{
    return tag == FE_PARSE || tag == FE_BIND;
}

/* Frames the stream and forwards it; Binds get another statement name. Answers the number of
 * messages, 0 when the stream is broken. */
static size_t forward(enum wire_sender sender, struct str stream, struct bytequeue *out)
{
    struct wire_reader r;
    struct wire_piece p;
    size_t messages = 0, at = 0, arrived = 0;
    wire_reader_init(&r, sender, WHOLE_MAX);
    while (arrived < stream.len) {
        arrived += stream.len - arrived < READ_LEN ? stream.len - arrived : READ_LEN;
        while (wire_reader_next(&r, (struct str){ stream.ptr + at, arrived - at }, &p) ==
               WIRE_FRAME) {
            bool renamed = sender == SENT_BY_FRONTEND && is_named(p.tag) &&
                           wire_rename_statement(out, &p, STR("PGTRICKLE_17"));
            if (!renamed)
                bytequeue_put(out, p.bytes.ptr, p.bytes.len);
            at += p.bytes.len;
            messages += p.ends;
        }
        bytequeue_consume(out, bytequeue_len(out)); /* "sent" */
    }
    return at == stream.len ? messages : 0;
}

static bool measure(const char *name, enum wire_sender sender,
                    void (*put)(struct bytequeue *, size_t), size_t value_len)
{
    struct bytequeue in = { 0 }, out = { 0 };
    double best = 0;
    size_t messages = 0;
    while (bytequeue_len(&in) < STREAM_LEN)
        put(&in, value_len);
    for (int round = 0; round < 5; round++) {
        size_t runs = 0;
        double start = now_s(), took;
        do {
            messages = forward(sender, bytequeue_str(&in), &out);
            runs++;
            took = now_s() - start;
        } while (took < 0.1 && messages > 0);
        double per_stream = took / (double)runs;
        if (best == 0 || per_stream < best)
            best = per_stream;
    }
    if (messages > 0)
        printf("%-34s %8.1f ns/message %8.2f GB/s\n", name, best / (double)messages * 1e9,
               (double)bytequeue_len(&in) / best / 1e9);
    else
        fprintf(stderr, "%s: the stream came back broken\n", name);
    bytequeue_free(&in);
    bytequeue_free(&out);
    return messages > 0;
}

int main(void)
{
    bool ok = measure("DataRow, 2 columns, 20 bytes", SENT_BY_BACKEND, put_row, 20);
    ok &= measure("DataRow, 2 columns, 200 bytes", SENT_BY_BACKEND, put_row, 200);
    ok &= measure("DataRow, 2 columns, 100 kB", SENT_BY_BACKEND, put_row, 100000);
    ok &= measure("Bind (renamed) Describe Execute Sync", SENT_BY_FRONTEND, put_request, 10);
    return ok ? 0 : 1;
}
