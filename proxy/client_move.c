/* Clients that go to another worker, whole: the stream, what was read of it, statements, settings.
 *
 * In STARTUP, to where what they ask for is; or between two transactions, when no server and no
 * queue knows them, to a worker that has less to do (proxy/balance.h). They leave when the event is
 * over (struct leaver), and are in no list until the letter arrives.
 */
#include <stdlib.h>

#include "base/arena.h"
#include "proxy/client_internal.h"
#include "proxy/credentials.h"
#include "proxy/pool_common.h"
#include "proxy/proxy.h"

struct client_move {
    struct leaver leaver; /* first */
    struct letter letter;
    struct client *client;
    struct worker *to;
    /* Of the pool that it left; NULL: in STARTUP. */
    struct user *pool_user;
    bool user_is_forced;
    struct credentials credentials;
};

/* A cancel request looks up, on any thread, whose client it is for. */
static void lock(struct worker *w)
{
    pthread_mutex_lock(&w->proxy->lock);
}

static void unlock(struct worker *w)
{
    pthread_mutex_unlock(&w->proxy->lock);
}

static void arrive(struct worker *w, struct letter *l)
{
    struct client_move *m =
        (struct client_move *)(void *)((char *)l - offsetof(struct client_move, letter));
    struct client *c = m->client;

    list_append(&w->clients, &c->worker_node);
    lock(w);
    conn_arrive(&c->conn, w);
    unlock(w);
    if (m->pool_user != NULL) {
        c->pool = pool_get(w, c->db, m->pool_user, m->user_is_forced);
        pool_add_client(c->pool, c);
        pool_sync_parameters(c->pool);
        credentials_take_newer(&c->pool->credentials, &m->credentials);
    }
    credentials_clear(&m->credentials);
    c->rare->move = NULL;
    client_forget_rare(c);
    free(m);
    client_update_timer(c);
}

static void depart(struct leaver *l)
{
    struct client_move *m = (struct client_move *)(void *)l;
    struct client *c = m->client;
    struct worker *from = c->conn.worker;

    if (c->state != CLIENT_STARTUP) {
        /* Its next request may have come within the same event. */
        if (!client_is_between_transactions(c)) {
            c->rare->move = NULL;
            client_forget_rare(c);
            free(m);
            return;
        }
        m->pool_user = c->pool->user;
        m->user_is_forced = c->pool->user_is_forced;
        credentials_take_newer(&m->credentials, &c->pool->credentials);
        pool_remove_client(c->pool, c);
        c->pool = NULL;
    }
    timer_unset(&from->timers, &c->timer);
    list_remove(&from->clients, &c->worker_node);
    from->load--;
    m->to->load++;
    lock(from);
    conn_depart(&c->conn);
    unlock(from);
    worker_post(m->to, &m->letter);
}

void client_move(struct client *c, struct worker *to)
{
    struct client_move *m = mem_alloc(sizeof(*m));

    m->client = c;
    m->to = to;
    m->letter.deliver = arrive;
    client_rare(c)->move = m;
    m->leaver.depart = depart;
    list_append(&c->conn.worker->leaving, &m->leaver.node);
}

void client_stay(struct client *c)
{
    struct client_move *m = client_has(c)->move;

    if (m == NULL)
        return;
    list_remove(&c->conn.worker->leaving, &m->leaver.node);
    free(m);
    c->rare->move = NULL;
}

/* Nobody but its worker, its pool and the table of cancel keys knows it. */
bool client_is_between_transactions(const struct client *c)
{
    return c->state == CLIENT_IDLE && c->server == NULL && c->lend == NULL && c->session == NULL &&
           c->login == NULL && c->replication == REPLICATION_NONE && !client_is_inner(c) &&
           !c->install_wanted && !c->canceled && !c->conn.closed &&
           wire_reader_is_between(&c->reader);
}

bool client_migrate(struct client *c, struct worker *to)
{
    if (!client_is_between_transactions(c) || client_has(c)->move != NULL)
        return false;
    client_move(c, to);
    return true;
}
