/* What one process tells its successor: fields with names.
 *
 * A record is a run of fields: one byte length of the name, the name, four bytes length of the
 * value, the value. A name may come several times; a name that nobody asks for is skipped, and one
 * that is missing reads as empty or 0, so that processes of different versions understand each
 * other. Numbers are decimal digits.
 *
 * The reader takes any bytes: what is no record has no fields from there on.
 */
#ifndef PGTRICKLE_PROXY_RECORD_H
#define PGTRICKLE_PROXY_RECORD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytequeue.h"
#include "base/str.h"

/* name has at most 255 bytes. */
void record_put(struct bytequeue *q, const char *name, struct str value);
void record_put_number(struct bytequeue *q, const char *name, uint64_t value); /* 0: nothing */

/* The next field of *rest; false at the end, or where it is no record. Borrowed. */
bool record_next(struct str *rest, struct str *name, struct str *value);
/* The first field of the name; false: none, *value is empty. */
bool record_get(struct str record, const char *name, struct str *value);
uint64_t record_to_number(struct str value);
uint64_t record_number(struct str record, const char *name);

#endif
