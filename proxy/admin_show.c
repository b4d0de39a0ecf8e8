/* What SHOW answers. Names, order and types of the columns are PgBouncer's; a tool finds a value by
 * the name of its column, a driver converts it by the type.
 */
#include "proxy/admin_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/arena.h"
#include "protocol/message_types.h"
#include "protocol/result.h"
#include "protocol/writer.h"

#define TYPE_OID_BYTEA 17
#define TYPE_OID_NUMERIC 1700
#define CONSOLE_POOL_SIZE 2

/* Bytes of a row while it is put together. */
struct cell {
    struct str text; /* ptr NULL: NULL */
    uint64_t number;
};

struct sorted_row {
    size_t at; /* in unsorted */
    size_t len;
    const char *first;
    const char *second;
};

enum sink_mode {
    SINK_ROWS,
    SINK_COUNT,   /* rows are only counted */
    SINK_DBSTATS, /* databases' statistics are added up */
};

struct admin_sink {
    const struct show *show;
    const struct admin_view *view;
    const struct config *config;
    const bool *binary;
    struct bytequeue *rows;
    size_t count;
    enum sink_mode mode;

    struct arena arena; /* texts of cells, and keys, until the SHOW is over */
    struct cell cells[SHOW_COLUMNS_MAX];
    uint16_t n_cells;

    struct bytequeue unsorted;
    struct sorted_row *order; /* malloc */
    size_t n_order;
    size_t cap_order;

    const char **names; /* collect_users; malloc */
    size_t n_names;
    size_t cap_names;

    struct stats total; /* SINK_DBSTATS */
    struct stats_window window;
};

/* ---- cells and rows ---- */

static void put_text(struct admin_sink *s, const char *text)
{
    s->cells[s->n_cells++].text =
        text != NULL ? (struct str){ text, strlen(text) } : (struct str){ NULL, 0 };
}

static void put_u64(struct admin_sink *s, uint64_t number)
{
    const struct show_column *column = &s->show->columns[s->n_cells];
    if (column->type == SHOW_INT4 && number > INT32_MAX)
        number = INT32_MAX;
    else if (column->type == SHOW_INT8 && number > INT64_MAX)
        number = INT64_MAX;
    struct cell *cell = &s->cells[s->n_cells++];
    cell->number = number;
    cell->text = str_from(arena_printf(&s->arena, "%" PRIu64, number));
}

/* Nothing that is shown is negative; what would be is a counter caught in a bad moment. */
static void put_int(struct admin_sink *s, int64_t number)
{
    put_u64(s, number > 0 ? (uint64_t)number : 0);
}

static void put_flag(struct admin_sink *s, bool flag)
{
    put_u64(s, flag);
}

/* numeric_send: digits of base 10000, the weight of the first, sign, scale. */
static void put_binary_numeric(struct bytequeue *out, uint64_t number)
{
    uint16_t digits[5];
    uint16_t n = 0;
    for (uint64_t rest = number; rest > 0; rest /= 10000)
        digits[n++] = (uint16_t)(rest % 10000);
    wire_put_u32(out, 8 + 2u * n);
    wire_put_u16(out, n);
    wire_put_i16(out, n > 0 ? (int16_t)(n - 1) : 0);
    wire_put_u16(out, 0);
    wire_put_u16(out, 0);
    while (n > 0)
        wire_put_u16(out, digits[--n]);
}

static void put_cell(const struct cell *cell, enum show_type type, bool binary,
                     struct bytequeue *out)
{
    if (cell->text.ptr == NULL || !binary || type == SHOW_TEXT) {
        wire_put_value(out, cell->text);
        return;
    }
    switch (type) {
    case SHOW_INT4:
        wire_put_u32(out, 4);
        wire_put_u32(out, (uint32_t)cell->number);
        return;
    case SHOW_INT8:
        wire_put_u32(out, 8);
        wire_put_i64(out, (int64_t)cell->number);
        return;
    case SHOW_NUMERIC:
        put_binary_numeric(out, cell->number);
        return;
    case SHOW_TEXT:
    case SHOW_BYTEA:
        return;
    }
}

static void end_row(struct admin_sink *s)
{
    struct bytequeue *out = s->show->sorted ? &s->unsorted : s->rows;
    size_t before = bytequeue_len(out);
    struct wire_mark mark = wire_begin(out, BE_DATA_ROW);
    wire_put_u16(out, s->n_cells);
    for (uint16_t i = 0; i < s->n_cells; i++)
        put_cell(&s->cells[i], s->show->columns[i].type, s->binary[i], out);
    wire_end(out, mark);

    if (s->show->sorted) {
        if (s->n_order == s->cap_order) {
            s->cap_order = s->cap_order > 0 ? s->cap_order * 2 : 16;
            s->order = mem_realloc(s->order, s->cap_order * sizeof(s->order[0]));
        }
        struct str first = s->cells[0].text;
        struct str second = s->cells[1].text;
        s->order[s->n_order++] = (struct sorted_row){
            .at = before,
            .len = bytequeue_len(out) - before,
            .first = arena_strndup(&s->arena, first.ptr, first.len),
            .second = arena_strndup(&s->arena, second.ptr, second.len),
        };
    }
    s->n_cells = 0;
    s->count++;
}

static int compare_rows(const void *a, const void *b)
{
    const struct sorted_row *x = a;
    const struct sorted_row *y = b;
    int order = strcmp(x->first, y->first);
    return order != 0 ? order : strcmp(x->second, y->second);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void put_time(struct admin_sink *s, int64_t at_s)
{
    if (at_s <= 0) {
        put_text(s, "");
        return;
    }
    time_t at = (time_t)at_s;
    struct tm tm;
    char text[64];
    localtime_r(&at, &tm);
    size_t len = strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S %Z", &tm);
    put_text(s, arena_strndup(&s->arena, text, len));
}

/* ---- STATE, VERSION, CONFIG ---- */

static const struct show_column version_columns[] = { { "version", SHOW_TEXT } };

static void run_version(struct admin_sink *s)
{
    put_text(s, arena_printf(&s->arena, "pgtrickle %s", s->view->version));
    end_row(s);
}

static const struct show_column state_columns[] = { { "key", SHOW_TEXT }, { "value", SHOW_TEXT } };

static void put_state(struct admin_sink *s, const char *key, bool value)
{
    put_text(s, key);
    put_text(s, value ? "yes" : "no");
    end_row(s);
}

static void run_state(struct admin_sink *s)
{
    struct admin_totals t = s->view->totals(s->view->core);
    put_state(s, "active", t.active);
    put_state(s, "paused", t.paused);
    put_state(s, "suspended", t.suspended);
}

static const struct show_column config_columns[] = {
    { "key", SHOW_TEXT },
    { "value", SHOW_TEXT },
    { "default", SHOW_TEXT },
    { "changeable", SHOW_TEXT },
};

static void run_config(struct admin_sink *s)
{
    for (size_t i = 0; i < config_key_count(); i++) {
        struct config_shown shown;
        config_show(s->config, i, &s->arena, &shown);
        put_text(s, shown.key);
        put_text(s, shown.value);
        put_text(s, shown.fallback);
        put_text(s, shown.changeable ? "yes" : "no");
        end_row(s);
    }
}

/* ---- DATABASES, POOLS ---- */

static const struct show_column database_columns[] = {
    { "name", SHOW_TEXT },
    { "host", SHOW_TEXT },
    { "port", SHOW_INT4 },
    { "database", SHOW_TEXT },
    { "force_user", SHOW_TEXT },
    { "pool_size", SHOW_INT4 },
    { "min_pool_size", SHOW_INT4 },
    { "reserve_pool_size", SHOW_INT4 },
    { "server_lifetime", SHOW_INT4 },
    { "pool_mode", SHOW_TEXT },
    { "load_balance_hosts", SHOW_TEXT },
    { "max_connections", SHOW_INT4 },
    { "current_connections", SHOW_INT4 },
    { "max_client_connections", SHOW_INT4 },
    { "current_client_connections", SHOW_INT4 },
    { "paused", SHOW_INT4 },
    { "disabled", SHOW_INT4 },
};

static void put_load_balance_hosts(struct admin_sink *s, const struct config_database *entry)
{
    if (entry == NULL || entry->n_hosts < 2) {
        put_text(s, NULL);
        return;
    }
    put_text(s, load_balance_hosts_name(entry->load_balance_hosts == LOAD_BALANCE_HOSTS_UNSET
                                            ? LOAD_BALANCE_HOSTS_ROUND_ROBIN
                                            : entry->load_balance_hosts));
}

static void put_entry(struct admin_sink *s, const char *name, const struct config_database *entry)
{
    const struct config *c = s->config;
    put_text(s, entry->host);
    put_int(s, entry->port);
    put_text(s, entry->dbname != NULL ? entry->dbname : name);
    put_text(s, entry->user);
    put_int(s, config_pool_size(c, entry, NULL));
    put_int(s, config_min_pool_size(c, entry));
    put_int(s, config_reserve_pool_size(c, entry, NULL));
    put_int(s, config_server_lifetime_us(c, entry) / 1000000);
    put_text(s, entry->pool_mode != POOL_MODE_UNSET ? pool_mode_name(entry->pool_mode) : NULL);
    put_load_balance_hosts(s, entry);
    put_int(s, config_max_db_connections(c, entry));
}

static void put_console_entry(struct admin_sink *s)
{
    put_text(s, NULL);
    put_int(s, s->config->listen_port);
    put_text(s, ADMIN_DATABASE);
    put_text(s, ADMIN_DATABASE);
    put_int(s, CONSOLE_POOL_SIZE);
    put_int(s, 0);
    put_int(s, 0);
    put_int(s, s->config->server_lifetime_us / 1000000);
    put_text(s, pool_mode_name(POOL_MODE_STATEMENT));
    put_text(s, NULL);
    put_int(s, 0);
}

static void put_stats_row(struct admin_sink *s, const struct admin_database *row);

static void add_stats(struct admin_sink *s, const struct admin_database *row)
{
    stats_add(&s->total, row->stats);
    stats_add(&s->window.older, &row->window->older);
    stats_add(&s->window.newer, &row->window->newer);
    /* All windows roll together; one that was born in the period is shorter. */
    if (row->window->newer_at_us - row->window->older_at_us >
        s->window.newer_at_us - s->window.older_at_us) {
        s->window.newer_at_us = row->window->newer_at_us;
        s->window.older_at_us = row->window->older_at_us;
    }
}

static void run_databases(struct admin_sink *s)
{
    s->view->databases(s->view->core, s);
}

void admin_put_database(struct admin_sink *s, const struct admin_database *row)
{
    switch (s->mode) {
    case SINK_COUNT:
        s->count++;
        return;
    case SINK_DBSTATS:
        add_stats(s, row);
        return;
    case SINK_ROWS:
        break;
    }
    if (s->show->run != run_databases) {
        put_stats_row(s, row);
        return;
    }
    put_text(s, row->name);
    if (row->entry != NULL)
        put_entry(s, row->name, row->entry);
    else
        put_console_entry(s);
    put_int(s, row->server_connections);
    put_int(s, row->entry != NULL ? config_max_db_client_connections(s->config, row->entry) : 0);
    put_int(s, row->client_connections);
    put_flag(s, row->paused);
    put_flag(s, row->disabled);
    end_row(s);
}

static const struct show_column pool_columns[] = {
    { "database", SHOW_TEXT },
    { "user", SHOW_TEXT },
    { "cl_active", SHOW_INT4 },
    { "cl_waiting", SHOW_INT4 },
    { "cl_active_cancel_req", SHOW_INT4 },
    { "cl_waiting_cancel_req", SHOW_INT4 },
    { "sv_active", SHOW_INT4 },
    { "sv_active_cancel", SHOW_INT4 },
    { "sv_being_canceled", SHOW_INT4 },
    { "sv_idle", SHOW_INT4 },
    { "sv_used", SHOW_INT4 },
    { "sv_tested", SHOW_INT4 },
    { "sv_login", SHOW_INT4 },
    { "maxwait", SHOW_INT4 },
    { "maxwait_us", SHOW_INT4 },
    { "pool_mode", SHOW_TEXT },
    { "load_balance_hosts", SHOW_TEXT },
    { "sv_pinned", SHOW_INT4 }, /* ours */
};

static void run_pools(struct admin_sink *s)
{
    s->view->pools(s->view->core, s);
}

void admin_put_pool(struct admin_sink *s, const struct admin_pool *row)
{
    if (s->mode != SINK_ROWS) {
        s->count++;
        return;
    }
    put_text(s, row->database);
    put_text(s, row->user);
    put_int(s, row->cl_active);
    put_int(s, row->cl_waiting);
    put_int(s, row->cl_active_cancel_req);
    put_int(s, row->cl_waiting_cancel_req);
    put_int(s, row->sv_active);
    put_int(s, row->sv_active_cancel);
    put_int(s, row->sv_being_canceled);
    put_int(s, row->sv_idle);
    put_int(s, row->sv_used);
    put_int(s, row->sv_tested);
    put_int(s, row->sv_login);
    put_int(s, row->maxwait_us / 1000000);
    put_int(s, row->maxwait_us % 1000000);
    enum pool_mode mode = POOL_MODE_STATEMENT;
    if (row->entry != NULL)
        mode = config_pool_mode(s->config, row->entry,
                                config_find_user(s->config, str_from(row->user)));
    put_text(s, pool_mode_name(mode));
    put_load_balance_hosts(s, row->entry);
    put_int(s, row->sv_pinned);
    end_row(s);
}

/* ---- USERS ---- */

static const struct show_column user_columns[] = {
    { "name", SHOW_TEXT },
    { "pool_size", SHOW_TEXT },
    { "reserve_pool_size", SHOW_TEXT },
    { "pool_mode", SHOW_TEXT },
    { "max_user_connections", SHOW_INT4 },
    { "current_connections", SHOW_INT4 },
    { "max_user_client_connections", SHOW_INT4 },
    { "current_client_connections", SHOW_INT4 },
};

void admin_put_user(struct admin_sink *s, const char *name)
{
    if (s->n_names == s->cap_names) {
        s->cap_names = s->cap_names > 0 ? s->cap_names * 2 : 16;
        s->names = mem_realloc(s->names, s->cap_names * sizeof(s->names[0]));
    }
    s->names[s->n_names++] = arena_strdup(&s->arena, name);
}

/* Everybody that auth_file, [users] or a user= names, or that auth_query has found; once each. */
static void collect_users(struct admin_sink *s)
{
    const struct config *c = s->config;
    const struct userlist *list = s->view->userlist(s->view->core);
    for (size_t i = 0; i < userlist_count(list); i++)
        admin_put_user(s, userlist_at(list, i)->name);
    for (size_t i = 0; i < c->n_users; i++)
        admin_put_user(s, c->users[i].name);
    for (size_t i = 0; i < c->n_databases; i++) {
        if (c->databases[i].user != NULL)
            admin_put_user(s, c->databases[i].user);
    }
    if (c->fallback_database != NULL && c->fallback_database->user != NULL)
        admin_put_user(s, c->fallback_database->user);
    admin_put_user(s, ADMIN_DATABASE); /* the user of the console's pool */
    if (s->view->learned_users != NULL)
        s->view->learned_users(s->view->core, s);

    if (s->n_names > 0)
        qsort(s->names, s->n_names, sizeof(s->names[0]), compare_names);
    size_t kept = 0;
    for (size_t i = 0; i < s->n_names; i++) {
        if (kept == 0 || strcmp(s->names[kept - 1], s->names[i]) != 0)
            s->names[kept++] = s->names[i];
    }
    s->n_names = kept;
}

static void put_size_text(struct admin_sink *s, int size)
{
    put_text(s, size >= 0 ? arena_printf(&s->arena, "%d", size) : "");
}

static void run_users(struct admin_sink *s)
{
    const struct config *c = s->config;
    collect_users(s);
    for (size_t i = 0; i < s->n_names; i++) {
        struct str name = str_from(s->names[i]);
        const struct config_user *entry = config_find_user(c, name);
        int server_connections = 0;
        int client_connections = 0;
        s->view->count_user(s->view->core, name, &server_connections, &client_connections);
        put_text(s, s->names[i]);
        put_size_text(s, entry != NULL ? entry->pool_size : -1);
        put_size_text(s, entry != NULL ? entry->reserve_pool_size : -1);
        put_text(s, entry != NULL && entry->pool_mode != POOL_MODE_UNSET
                        ? pool_mode_name(entry->pool_mode)
                        : NULL);
        put_int(s, config_max_user_connections(c, entry));
        put_int(s, server_connections);
        put_int(s, config_max_user_client_connections(c, entry));
        put_int(s, client_connections);
        end_row(s);
    }
}

/* ---- CLIENTS, SERVERS, SOCKETS ---- */

/* clang-format off */
#define SOCKET_COLUMNS \
    { "type", SHOW_TEXT }, \
    { "user", SHOW_TEXT }, \
    { "database", SHOW_TEXT }, \
    { "replication", SHOW_TEXT }, \
    { "state", SHOW_TEXT }, \
    { "addr", SHOW_TEXT }, \
    { "port", SHOW_INT4 }, \
    { "local_addr", SHOW_TEXT }, \
    { "local_port", SHOW_INT4 }, \
    { "connect_time", SHOW_TEXT }, \
    { "request_time", SHOW_TEXT }, \
    { "wait", SHOW_INT4 }, \
    { "wait_us", SHOW_INT4 }, \
    { "close_needed", SHOW_INT4 }, \
    { "ptr", SHOW_TEXT }, \
    { "link", SHOW_TEXT }, \
    { "remote_pid", SHOW_INT4 }, \
    { "tls", SHOW_TEXT }, \
    { "application_name", SHOW_TEXT }, \
    { "prepared_statements", SHOW_INT4 }, \
    { "id", SHOW_INT4 }
/* clang-format on */

static const struct show_column socket_columns[] = { SOCKET_COLUMNS };

static const struct show_column socket_buffer_columns[] = {
    SOCKET_COLUMNS,
    { "recv_pos", SHOW_INT4 },
    { "pkt_pos", SHOW_INT4 },
    { "pkt_remain", SHOW_INT4 },
    { "send_pos", SHOW_INT4 },
    { "send_remain", SHOW_INT4 },
    { "pkt_avail", SHOW_INT4 },
    { "send_avail", SHOW_INT4 },
};

static void run_clients(struct admin_sink *s)
{
    s->view->clients(s->view->core, s);
}

static const char *or_else(const char *text, const char *fallback)
{
    return text != NULL ? text : fallback;
}

/* Ours: clients whose server stays with them, and why. Another function for the same reason. */
static const struct show_column pinned_columns[] = {
    { "database", SHOW_TEXT },  { "user", SHOW_TEXT },       { "addr", SHOW_TEXT },
    { "port", SHOW_INT4 },      { "pinned_by", SHOW_TEXT },  { "pinned", SHOW_INT4 },
    { "pinned_us", SHOW_INT4 }, { "server_pid", SHOW_INT4 }, { "application_name", SHOW_TEXT },
    { "id", SHOW_INT4 },
};

static void run_pinned(struct admin_sink *s)
{
    s->view->clients(s->view->core, s);
}

static void put_pinned(struct admin_sink *s, const struct admin_socket *row)
{
    if (row->pinned_by == NULL)
        return;
    put_text(s, or_else(row->database, "(nodb)"));
    put_text(s, or_else(row->user, "(nouser)"));
    put_text(s, or_else(row->addr, ""));
    put_int(s, row->port);
    put_text(s, row->pinned_by);
    put_int(s, row->pinned_us / 1000000);
    put_int(s, row->pinned_us % 1000000);
    put_int(s, row->server_pid);
    put_text(s, or_else(row->application_name, ""));
    put_u64(s, row->id);
    end_row(s);
}

static void run_servers(struct admin_sink *s)
{
    s->view->servers(s->view->core, s);
}

static void run_sockets(struct admin_sink *s)
{
    s->view->clients(s->view->core, s);
    s->view->servers(s->view->core, s);
}

/* Another function than run_sockets, for admin_put_socket tells the two apart by it. */
static void run_active_sockets(struct admin_sink *s)
{
    s->view->clients(s->view->core, s);
    s->view->servers(s->view->core, s);
}

/* SOCKETS has a prefix, and knows an idle client only as an active one. */
static const char *socket_state(struct admin_sink *s, const struct admin_socket *row)
{
    const char *state = row->state;
    if (!row->is_server && strcmp(state, "idle") == 0)
        state = "active";
    if (row->is_server && strcmp(state, "new") == 0)
        state = "login";
    return arena_printf(&s->arena, "%s_%s", row->is_server ? "sv" : "cl", state);
}

void admin_put_socket(struct admin_sink *s, const struct admin_socket *row)
{
    if (s->mode != SINK_ROWS) {
        s->count++;
        return;
    }
    if (s->show->run == run_pinned) {
        put_pinned(s, row);
        return;
    }
    bool active_only = s->show->run == run_active_sockets;
    bool has_buffers = active_only || s->show->run == run_sockets;
    if (active_only && row->pkt_remain == 0 && row->send_remain == 0 && row->pkt_avail == 0 &&
        row->send_avail == 0)
        return;

    put_text(s, row->is_server ? "S" : "C");
    put_text(s, or_else(row->user, "(nouser)"));
    put_text(s, or_else(row->database, "(nodb)"));
    put_text(s, or_else(row->replication, "none"));
    put_text(s, has_buffers ? socket_state(s, row) : row->state);
    put_text(s, or_else(row->addr, ""));
    put_int(s, row->port);
    put_text(s, or_else(row->local_addr, ""));
    put_int(s, row->local_port);
    put_time(s, row->connected_at_s);
    put_time(s, row->requested_at_s);
    put_int(s, row->wait_us / 1000000);
    put_int(s, row->wait_us % 1000000);
    put_flag(s, row->close_needed);
    put_text(s, arena_printf(&s->arena, "%p", row->self));
    put_text(s, row->link != NULL ? arena_printf(&s->arena, "%p", row->link) : "");
    put_int(s, row->remote_pid);
    put_text(s, or_else(row->tls, ""));
    put_text(s, or_else(row->application_name, ""));
    put_int(s, row->prepared_statements);
    put_u64(s, row->id);
    if (has_buffers) {
        put_int(s, row->recv_pos);
        put_int(s, row->pkt_pos);
        put_int(s, row->pkt_remain);
        put_int(s, row->send_pos);
        put_int(s, row->send_remain);
        put_int(s, row->pkt_avail);
        put_int(s, row->send_avail);
    }
    end_row(s);
}

/* ---- FDS ---- */

static const struct show_column fd_columns[] = {
    { "fd", SHOW_INT4 },
    { "task", SHOW_TEXT },
    { "user", SHOW_TEXT },
    { "database", SHOW_TEXT },
    { "addr", SHOW_TEXT },
    { "port", SHOW_INT4 },
    { "cancel", SHOW_INT8 },
    { "link", SHOW_INT4 },
    { "client_encoding", SHOW_TEXT },
    { "std_strings", SHOW_TEXT },
    { "datestyle", SHOW_TEXT },
    { "timezone", SHOW_TEXT },
    { "password", SHOW_TEXT },
    { "scram_client_key", SHOW_BYTEA },
    { "scram_server_key", SHOW_BYTEA },
};

static void run_fds(struct admin_sink *s)
{
    if (s->view->fds != NULL)
        s->view->fds(s->view->core, s);
}

/* Keys and secrets travel by TAKEOVER only. */
void admin_put_fd(struct admin_sink *s, const struct admin_fd *row)
{
    put_int(s, row->fd);
    put_text(s, row->task);
    put_text(s, row->user);
    put_text(s, row->database);
    put_text(s, row->addr);
    put_int(s, row->port);
    put_int(s, 0);
    put_int(s, row->link);
    put_text(s, row->client_encoding);
    put_text(s, row->std_strings);
    put_text(s, row->datestyle);
    put_text(s, row->timezone);
    put_text(s, NULL);
    put_text(s, NULL);
    put_text(s, NULL);
    end_row(s);
}

/* ---- WAITERS ---- */

static const struct show_column waiter_columns[] = {
    { "id", SHOW_INT4 },
    { "database", SHOW_TEXT },
    { "user", SHOW_TEXT },
    { "pool_user", SHOW_TEXT },
    { "application_name", SHOW_TEXT },
    { "addr", SHOW_TEXT },
    { "port", SHOW_INT4 },
    { "wait", SHOW_INT4 },
    { "wait_us", SHOW_INT4 },
    { "ahead", SHOW_INT4 },
    { "reason", SHOW_TEXT },
    { "limit", SHOW_INT4 },
    { "used", SHOW_INT4 },
    { "holder_id", SHOW_INT4 },
    { "holder_application_name", SHOW_TEXT },
    { "holder_addr", SHOW_TEXT },
    { "holder_port", SHOW_INT4 },
    { "holder_state", SHOW_TEXT },
    { "holder_time", SHOW_INT4 },
    { "holder_time_us", SHOW_INT4 },
    { "holder_remote_pid", SHOW_INT4 },
};

static void run_waiters(struct admin_sink *s)
{
    if (s->view->waiters != NULL)
        s->view->waiters(s->view->core, s);
}

/* ---- LISTENERS ---- */

static const struct show_column listener_columns[] = {
    { "database", SHOW_TEXT }, { "user", SHOW_TEXT },      { "client_encoding", SHOW_TEXT },
    { "state", SHOW_TEXT },    { "channels", SHOW_INT4 },  { "clients", SHOW_INT4 },
    { "queued", SHOW_INT8 },   { "server_id", SHOW_INT4 }, { "server_pid", SHOW_INT4 },
};

static void run_listeners(struct admin_sink *s)
{
    if (s->view->listeners != NULL)
        s->view->listeners(s->view->core, s);
}

void admin_put_listener(struct admin_sink *s, const struct admin_listener *row)
{
    put_text(s, row->database);
    put_text(s, row->user);
    put_text(s, or_else(row->encoding, ""));
    put_text(s, row->state);
    put_int(s, row->channels);
    put_int(s, row->clients);
    put_int(s, row->queued);
    put_u64(s, row->server_id);
    put_int(s, row->server_pid);
    end_row(s);
}

void admin_put_waiter(struct admin_sink *s, const struct admin_waiter *row)
{
    put_u64(s, row->id);
    put_text(s, row->database);
    put_text(s, row->user);
    put_text(s, row->pool_user);
    put_text(s, or_else(row->application_name, ""));
    put_text(s, row->addr);
    put_int(s, row->port);
    put_int(s, row->wait_us / 1000000);
    put_int(s, row->wait_us % 1000000);
    put_int(s, row->ahead);
    put_text(s, row->reason);
    if (row->limit > 0)
        put_int(s, row->limit);
    else
        put_text(s, NULL);
    put_int(s, row->used);
    if (row->is_held) {
        put_u64(s, row->holder_id);
        put_text(s, or_else(row->holder_application_name, ""));
        put_text(s, row->holder_addr);
        put_int(s, row->holder_port);
        put_text(s, row->holder_state);
        put_int(s, row->held_us / 1000000);
        put_int(s, row->held_us % 1000000);
        put_int(s, row->holder_pid);
    } else {
        for (int i = 0; i < 8; i++)
            put_text(s, NULL);
    }
    end_row(s);
}

/* ---- STATS ---- */

/* clang-format off */
#define PREFIXED_STATS_COLUMNS \
    { "database", SHOW_TEXT }, \
    { "total_server_assignment_count", SHOW_NUMERIC }, \
    { "total_xact_count", SHOW_NUMERIC }, \
    { "total_query_count", SHOW_NUMERIC }, \
    { "total_received", SHOW_NUMERIC }, \
    { "total_sent", SHOW_NUMERIC }, \
    { "total_xact_time", SHOW_NUMERIC }, \
    { "total_query_time", SHOW_NUMERIC }, \
    { "total_wait_time", SHOW_NUMERIC }, \
    { "total_client_parse_count", SHOW_NUMERIC }, \
    { "total_server_parse_count", SHOW_NUMERIC }, \
    { "total_bind_count", SHOW_NUMERIC }, \
    { "total_client_login_count", SHOW_NUMERIC }, \
    { "avg_server_assignment_count", SHOW_NUMERIC }, \
    { "avg_xact_count", SHOW_NUMERIC }, \
    { "avg_query_count", SHOW_NUMERIC }, \
    { "avg_recv", SHOW_NUMERIC }, \
    { "avg_sent", SHOW_NUMERIC }, \
    { "avg_xact_time", SHOW_NUMERIC }, \
    { "avg_query_time", SHOW_NUMERIC }, \
    { "avg_wait_time", SHOW_NUMERIC }, \
    { "avg_client_parse_count", SHOW_NUMERIC }, \
    { "avg_server_parse_count", SHOW_NUMERIC }, \
    { "avg_bind_count", SHOW_NUMERIC }, \
    { "avg_client_login_count", SHOW_NUMERIC }
/* clang-format on */

static const struct show_column stats_columns[] = { PREFIXED_STATS_COLUMNS };

static const struct show_column stats_totals_columns[] = {
    { "database", SHOW_TEXT },
    { "server_assignment_count", SHOW_NUMERIC },
    { "xact_count", SHOW_NUMERIC },
    { "query_count", SHOW_NUMERIC },
    { "bytes_received", SHOW_NUMERIC },
    { "bytes_sent", SHOW_NUMERIC },
    { "xact_time", SHOW_NUMERIC },
    { "query_time", SHOW_NUMERIC },
    { "wait_time", SHOW_NUMERIC },
    { "client_parse_count", SHOW_NUMERIC },
    { "server_parse_count", SHOW_NUMERIC },
    { "bind_count", SHOW_NUMERIC },
    { "client_login_count", SHOW_NUMERIC },
};

static const struct show_column stats_averages_columns[] = {
    { "database", SHOW_TEXT },
    { "server_assignment_count", SHOW_NUMERIC },
    { "xact_count", SHOW_NUMERIC },
    { "query_count", SHOW_NUMERIC },
    { "bytes_received", SHOW_NUMERIC },
    { "bytes_sent", SHOW_NUMERIC },
    { "xact_time", SHOW_NUMERIC },
    { "query_time", SHOW_NUMERIC },
    { "wait_time", SHOW_NUMERIC },
    { "avg_client_parse_count", SHOW_NUMERIC },
    { "avg_server_parse_count", SHOW_NUMERIC },
    { "avg_bind_count", SHOW_NUMERIC },
    { "avg_client_login_count", SHOW_NUMERIC },
};

static void put_stats(struct admin_sink *s, const struct stats *st)
{
    put_u64(s, st->server_assignments);
    put_u64(s, st->xacts);
    put_u64(s, st->queries);
    put_u64(s, st->client_bytes);
    put_u64(s, st->server_bytes);
    put_u64(s, st->xact_us);
    put_u64(s, st->query_us);
    put_u64(s, st->wait_us);
    put_u64(s, st->client_parses);
    put_u64(s, st->server_parses);
    put_u64(s, st->binds);
    put_u64(s, st->client_logins);
}

static void run_stats(struct admin_sink *s)
{
    s->view->databases(s->view->core, s);
}

static void put_stats_row(struct admin_sink *s, const struct admin_database *row)
{
    put_text(s, row->name);
    if (s->show->columns != stats_averages_columns)
        put_stats(s, row->stats);
    if (s->show->columns != stats_totals_columns) {
        struct stats average = stats_window_average(row->window);
        put_stats(s, &average);
    }
    end_row(s);
}

static const struct show_column totals_columns[] = {
    { "name", SHOW_TEXT },
    { "value", SHOW_NUMERIC },
};

static void put_totals(struct admin_sink *s, const char *prefix, const struct stats *st)
{
    const struct {
        const char *name;
        uint64_t value;
    } rows[] = {
        { "server_assignment_count", st->server_assignments },
        { "xact_count", st->xacts },
        { "query_count", st->queries },
        { "client_bytes", st->client_bytes },
        { "server_bytes", st->server_bytes },
        { "xact_time", st->xact_us },
        { "query_time", st->query_us },
        { "wait_time", st->wait_us },
        { "ps_client_parse_count", st->client_parses },
        { "ps_server_parse_count", st->server_parses },
        { "ps_bind_count", st->binds },
        { "client_login_count", st->client_logins },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        put_text(s, arena_printf(&s->arena, "%s_%s", prefix, rows[i].name));
        put_u64(s, rows[i].value);
        end_row(s);
    }
}

static void run_totals(struct admin_sink *s)
{
    s->mode = SINK_DBSTATS;
    s->view->databases(s->view->core, s);
    s->mode = SINK_ROWS;
    struct stats average = stats_window_average(&s->window);
    put_totals(s, "total", &s->total);
    put_totals(s, "avg", &average);
}

/* ---- LISTS, MEM, DNS, PEERS ---- */

static const struct show_column lists_columns[] = { { "list", SHOW_TEXT }, { "items", SHOW_INT4 } };

static int count_rows(struct admin_sink *s, void (*iterate)(void *core, struct admin_sink *sink))
{
    size_t before = s->count;
    s->mode = SINK_COUNT;
    iterate(s->view->core, s);
    s->mode = SINK_ROWS;
    int counted = (int)(s->count - before);
    s->count = before;
    return counted;
}

static void put_list(struct admin_sink *s, const char *name, int64_t items)
{
    put_text(s, name);
    put_int(s, items);
    end_row(s);
}

static void run_lists(struct admin_sink *s)
{
    struct admin_totals t = s->view->totals(s->view->core);
    collect_users(s);
    put_list(s, "databases", count_rows(s, s->view->databases));
    put_list(s, "users", (int64_t)s->n_names);
    put_list(s, "peers", (int64_t)s->config->n_peers);
    put_list(s, "pools", count_rows(s, s->view->pools));
    put_list(s, "peer_pools", (int64_t)s->config->n_peers);
    put_list(s, "free_clients", t.free_clients);
    put_list(s, "used_clients", t.used_clients);
    put_list(s, "login_clients", t.login_clients);
    put_list(s, "free_servers", t.free_servers);
    put_list(s, "used_servers", t.used_servers);
    put_list(s, "dns_names", t.dns_names);
    put_list(s, "dns_zones", t.dns_zones);
    put_list(s, "dns_queries", t.dns_queries);
    put_list(s, "dns_pending", t.dns_pending);
}

static const struct show_column memory_columns[] = {
    { "name", SHOW_TEXT }, { "size", SHOW_INT4 },     { "used", SHOW_INT4 },
    { "free", SHOW_INT4 }, { "memtotal", SHOW_INT4 },
};

static void run_memory(struct admin_sink *s)
{
    if (s->view->memory != NULL)
        s->view->memory(s->view->core, s);
}

void admin_put_memory(struct admin_sink *s, const struct admin_memory *row)
{
    put_text(s, row->name);
    put_int(s, row->size);
    put_int(s, row->used);
    put_int(s, row->free);
    put_int(s, row->total);
    end_row(s);
}

static const struct show_column dns_host_columns[] = {
    { "hostname", SHOW_TEXT },
    { "ttl", SHOW_INT8 },
    { "addrs", SHOW_TEXT },
};

static void run_dns_hosts(struct admin_sink *s)
{
    if (s->view->dns_hosts != NULL)
        s->view->dns_hosts(s->view->core, s);
}

void admin_put_dns_host(struct admin_sink *s, const struct admin_dns_host *row)
{
    put_text(s, row->hostname);
    put_int(s, row->ttl_s);
    put_text(s, row->addrs);
    end_row(s);
}

static const struct show_column dns_zone_columns[] = {
    { "zonename", SHOW_TEXT },
    { "serial", SHOW_INT8 },
    { "count", SHOW_INT4 },
};

static const struct show_column peer_columns[] = {
    { "peer_id", SHOW_INT4 },
    { "host", SHOW_TEXT },
    { "port", SHOW_INT4 },
    { "pool_size", SHOW_INT4 },
};

static void run_peers(struct admin_sink *s)
{
    for (size_t i = 0; i < s->config->n_peers; i++) {
        const struct config_peer *peer = &s->config->peers[i];
        put_int(s, peer->id);
        put_text(s, peer->host);
        put_int(s, peer->port);
        put_int(s, peer->pool_size >= 0 ? peer->pool_size : s->config->default_pool_size);
        end_row(s);
    }
}

static const struct show_column peer_pool_columns[] = {
    { "peer_id", SHOW_INT4 },
    { "cl_active_cancel_req", SHOW_INT4 },
    { "cl_waiting_cancel_req", SHOW_INT4 },
    { "sv_active_cancel", SHOW_INT4 },
    { "sv_login", SHOW_INT4 },
};

static void run_peer_pools(struct admin_sink *s)
{
    if (s->view->peer_pools != NULL)
        s->view->peer_pools(s->view->core, s);
}

void admin_put_peer_pool(struct admin_sink *s, const struct admin_peer_pool *row)
{
    put_int(s, row->peer_id);
    put_int(s, row->cl_active_cancel_req);
    put_int(s, row->cl_waiting_cancel_req);
    put_int(s, row->sv_active_cancel);
    put_int(s, row->sv_login);
    end_row(s);
}

/* Zones are watched with c-ares only. */
static void run_nothing(struct admin_sink *s)
{
    (void)s;
}

/* ---- the table ---- */

#define COLUMNS(array) (array), sizeof(array) / sizeof((array)[0])

static const struct show shows[] = {
    { "ACTIVE_SOCKETS", COLUMNS(socket_buffer_columns), run_active_sockets, false, false },
    { "CLIENTS", COLUMNS(socket_columns), run_clients, false, false },
    { "CONFIG", COLUMNS(config_columns), run_config, false, false },
    { "DATABASES", COLUMNS(database_columns), run_databases, true, false },
    { "DNS_HOSTS", COLUMNS(dns_host_columns), run_dns_hosts, false, false },
    { "DNS_ZONES", COLUMNS(dns_zone_columns), run_nothing, false, false },
    { "FDS", COLUMNS(fd_columns), run_fds, false, true },
    { "LISTS", COLUMNS(lists_columns), run_lists, false, false },
    { "LISTENERS", COLUMNS(listener_columns), run_listeners, true, false },
    { "MEM", COLUMNS(memory_columns), run_memory, false, false },
    { "PEERS", COLUMNS(peer_columns), run_peers, false, false },
    { "PEER_POOLS", COLUMNS(peer_pool_columns), run_peer_pools, false, false },
    { "PINNED", COLUMNS(pinned_columns), run_pinned, false, false },
    { "POOLS", COLUMNS(pool_columns), run_pools, true, false },
    { "SERVERS", COLUMNS(socket_columns), run_servers, false, false },
    { "SOCKETS", COLUMNS(socket_buffer_columns), run_sockets, false, false },
    { "STATE", COLUMNS(state_columns), run_state, false, false },
    { "STATS", COLUMNS(stats_columns), run_stats, true, false },
    { "STATS_AVERAGES", COLUMNS(stats_averages_columns), run_stats, true, false },
    { "STATS_TOTALS", COLUMNS(stats_totals_columns), run_stats, true, false },
    { "TOTALS", COLUMNS(totals_columns), run_totals, false, false },
    { "USERS", COLUMNS(user_columns), run_users, false, false },
    { "VERSION", COLUMNS(version_columns), run_version, false, false },
    { "WAITERS", COLUMNS(waiter_columns), run_waiters, false, false },
};

const struct show *show_find(struct str name)
{
    for (size_t i = 0; i < sizeof(shows) / sizeof(shows[0]); i++) {
        if (str_equal_nocase(str_from(shows[i].name), name))
            return &shows[i];
    }
    return NULL;
}

void show_put_row_description(const struct show *show, const bool *binary, struct bytequeue *out)
{
    static const struct {
        uint32_t oid;
        int16_t len;
    } types[] = {
        [SHOW_TEXT] = { TYPE_OID_TEXT, -1 },   [SHOW_INT4] = { TYPE_OID_INT4, 4 },
        [SHOW_INT8] = { TYPE_OID_INT8, 8 },    [SHOW_NUMERIC] = { TYPE_OID_NUMERIC, -1 },
        [SHOW_BYTEA] = { TYPE_OID_BYTEA, -1 },
    };
    struct row_column columns[SHOW_COLUMNS_MAX];
    for (uint16_t i = 0; i < show->n_columns; i++) {
        columns[i] = (struct row_column){
            .name = str_from(show->columns[i].name),
            .type_oid = types[show->columns[i].type].oid,
            .type_len = types[show->columns[i].type].len,
            .type_modifier = -1,
            .format = binary[i],
        };
    }
    wire_encode_row_description(out, columns, show->n_columns);
}

size_t show_run(const struct show *show, const struct admin_view *view, const bool *binary,
                struct bytequeue *rows)
{
    struct admin_sink sink = {
        .show = show,
        .view = view,
        .config = view->config(view->core),
        .binary = binary,
        .rows = rows,
        .mode = SINK_ROWS,
    };
    arena_init(&sink.arena);
    show->run(&sink);
    if (show->sorted && sink.n_order > 0) {
        qsort(sink.order, sink.n_order, sizeof(sink.order[0]), compare_rows);
        struct str bytes = bytequeue_str(&sink.unsorted);
        for (size_t i = 0; i < sink.n_order; i++)
            bytequeue_put(rows, bytes.ptr + sink.order[i].at, sink.order[i].len);
    }
    bytequeue_free(&sink.unsorted);
    free(sink.order);
    free(sink.names);
    arena_free(&sink.arena);
    return sink.count;
}
