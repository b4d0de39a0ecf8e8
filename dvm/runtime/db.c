#include "dvm/runtime/db.h"

#include <stdarg.h>

#include "base/text.h"

static bool run(struct dvm_db *db, struct arena *a, struct db_rows *rows, struct err *e,
                const char *fmt, va_list args)
{
    struct text sql;
    bool ok;

    text_init(&sql);
    text_vprintf(&sql, fmt, args);
    ok = db->ops->query(db, a, sql.ptr != NULL ? sql.ptr : "", rows, e);
    text_free(&sql);
    return ok;
}

bool db_query(struct dvm_db *db, struct arena *a, struct db_rows *rows, struct err *e,
              const char *fmt, ...)
{
    va_list args;
    bool ok;

    va_start(args, fmt);
    ok = run(db, a, rows, e, fmt, args);
    va_end(args);
    return ok;
}

bool db_exec(struct dvm_db *db, struct err *e, const char *fmt, ...)
{
    struct arena scratch;
    va_list args;
    bool ok;

    arena_init(&scratch);
    va_start(args, fmt);
    ok = run(db, &scratch, NULL, e, fmt, args);
    va_end(args);
    arena_free(&scratch);
    return ok;
}
