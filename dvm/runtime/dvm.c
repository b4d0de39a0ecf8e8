#include "dvm/dvm.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/text.h"
#include "dvm/runtime/dvm_internal.h"
#include "dvm/sql/embedded.h"

/* Any change to the SQL side is another version, so that a new binary upgrades what it finds. */
static void name_version(char out[17])
{
    struct text all;

    text_init(&all);
    for (const struct dvm_embedded_sql *f = dvm_embedded_sql; f->name != NULL; f++)
        text_printf(&all, "%s\n%s\n", f->name, f->text);
    snprintf(out, 17, "%016" PRIx64, str_hash(text_str(&all)));
    text_free(&all);
}

struct dvm *dvm_new(const struct dvm_config *config)
{
    struct dvm *d = mem_alloc(sizeof(*d));

    d->config = *config;
    name_version(d->version);
    pthread_mutex_init(&d->mutex, NULL);
    return d;
}

void dvm_free(struct dvm *d)
{
    if (d == NULL)
        return;
    dvm_scheduler_stop(d);
    for (int i = 0; i < d->n_current; i++)
        free(d->current[i]);
    free(d->current);
    pthread_mutex_destroy(&d->mutex);
    free(d);
}

void dvm_log(const struct dvm *d, enum dvm_log_level level, const char *fmt, ...)
{
    struct text line;
    va_list args;

    if (d->config.log == NULL)
        return;
    text_init(&line);
    va_start(args, fmt);
    text_vprintf(&line, fmt, args);
    va_end(args);
    d->config.log(d->config.log_arg, level, line.ptr != NULL ? line.ptr : "");
    text_free(&line);
}

void dvm_log_err(const struct dvm *d, enum dvm_log_level level, const struct err *e,
                 const char *fmt, ...)
{
    struct text line;
    va_list args;

    if (d->config.log == NULL)
        return;
    text_init(&line);
    va_start(args, fmt);
    text_vprintf(&line, fmt, args);
    va_end(args);
    text_printf(&line, " sqlstate=%s error=", e->sqlstate);
    text_put_json(&line, str_from(e->message));
    if (e->detail != NULL) {
        text_put(&line, " detail=");
        text_put_json(&line, str_from(e->detail));
    }
    d->config.log(d->config.log_arg, level, line.ptr);
    text_free(&line);
}
