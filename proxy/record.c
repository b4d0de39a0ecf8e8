#include "proxy/record.h"

#include <inttypes.h>
#include <stdio.h>

void record_put(struct bytequeue *q, const char *name, struct str value)
{
    size_t name_len = strlen(name);
    unsigned char head[1] = { (unsigned char)name_len };
    unsigned char len[4] = { (unsigned char)(value.len >> 24), (unsigned char)(value.len >> 16),
                             (unsigned char)(value.len >> 8), (unsigned char)value.len };

    bytequeue_put(q, head, sizeof(head));
    bytequeue_put(q, name, name_len);
    bytequeue_put(q, len, sizeof(len));
    bytequeue_put(q, value.ptr, value.len);
}

void record_put_number(struct bytequeue *q, const char *name, uint64_t value)
{
    char digits[24];

    if (value == 0)
        return;
    snprintf(digits, sizeof(digits), "%" PRIu64, value);
    record_put(q, name, str_from(digits));
}

bool record_next(struct str *rest, struct str *name, struct str *value)
{
    const unsigned char *at = (const unsigned char *)rest->ptr;

    if (rest->len < 1 || rest->len - 1 < (size_t)at[0] + 4)
        return false;
    *name = (struct str){ rest->ptr + 1, at[0] };
    at += 1 + at[0];
    size_t left = rest->len - 1 - name->len - 4;
    size_t len = (size_t)at[0] << 24 | (size_t)at[1] << 16 | (size_t)at[2] << 8 | at[3];
    if (len > left)
        return false;
    *value = (struct str){ (const char *)at + 4, len };
    *rest = (struct str){ value->ptr + len, left - len };
    return true;
}

bool record_get(struct str record, const char *name, struct str *value)
{
    struct str wanted = str_from(name), found;

    while (record_next(&record, &found, value))
        if (str_equal(found, wanted))
            return true;
    *value = (struct str){ "", 0 };
    return false;
}

uint64_t record_to_number(struct str digits)
{
    uint64_t n = 0;

    for (size_t i = 0; i < digits.len && digits.ptr[i] >= '0' && digits.ptr[i] <= '9'; i++)
        n = n * 10 + (uint64_t)(digits.ptr[i] - '0');
    return n;
}

uint64_t record_number(struct str record, const char *name)
{
    struct str digits;

    record_get(record, name, &digits);
    return record_to_number(digits);
}
