#include "protocol/query_simple.h"

bool wire_decode_query(struct str body, struct str *sql)
{
    struct wire_cursor c = wire_cursor(body);
    *sql = wire_cstr(&c);
    return wire_at_end(&c);
}

void wire_encode_query(struct bytequeue *out, struct str sql)
{
    struct wire_mark m = wire_begin(out, FE_QUERY);
    wire_put_cstr(out, sql);
    wire_end(out, m);
}

void wire_encode_terminate(struct bytequeue *out)
{
    wire_put_empty(out, FE_TERMINATE);
}
