/* Readiness of descriptors, with pipes; deadlines. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "proxy/io/poller.h"

struct end {
    struct watch watch; /* first */
    struct poller *poller;
    int told[4]; /* how often, by `what` */
    struct end *kills;
    struct end **killed;
};

static void on_ready(struct watch *w, unsigned what)
{
    struct end *e = (struct end *)(void *)w;

    e->told[what]++;
    if (e->kills != NULL) {
        struct end *victim = e->kills;
        e->kills = NULL;
        *e->killed = victim;
        poller_want(victim->poller, &victim->watch, 0);
        free(victim);
    }
}

static void open_pipe(struct poller *p, struct end *reads, struct end *writes)
{
    int fd[2];

    assert_int_equal(pipe(fd), 0);
    *reads = (struct end){ .poller = p };
    *writes = (struct end){ .poller = p };
    watch_init(&reads->watch, fd[0], on_ready);
    watch_init(&writes->watch, fd[1], on_ready);
}

static void shut(struct end *e)
{
    poller_want(e->poller, &e->watch, 0);
    close(e->watch.fd);
}

static void test_only_what_is_wanted_is_told(void **state)
{
    struct poller *p = poller_new();
    struct end r, w;

    (void)state;
    open_pipe(p, &r, &w);
    poller_want(p, &r.watch, WATCH_READ);
    poller_wait(p, UINT64_MAX, false);
    assert_int_equal(r.told[WATCH_READ], 0);
    poller_want(p, &w.watch, WATCH_READ | WATCH_WRITE);
    poller_wait(p, UINT64_MAX, false);
    poller_wait(p, UINT64_MAX, true);
    assert_int_equal(w.told[WATCH_WRITE], 2);
    poller_want(p, &w.watch, 0);
    assert_int_equal(write(w.watch.fd, "x", 1), 1);
    poller_wait(p, UINT64_MAX, true);
    poller_wait(p, UINT64_MAX, false);
    assert_int_equal(r.told[WATCH_READ], 2); /* until it is read */
    poller_want(p, &r.watch, 0);
    poller_wait(p, UINT64_MAX, false);
    assert_int_equal(r.told[WATCH_READ], 2);
    shut(&r);
    shut(&w);
    poller_free(p);
}

static void test_a_hang_up_is_told_as_what_is_wanted(void **state)
{
    struct poller *p = poller_new();
    struct end r, w;

    (void)state;
    open_pipe(p, &r, &w);
    poller_want(p, &r.watch, WATCH_READ);
    poller_want(p, &w.watch, WATCH_WRITE);
    shut(&w);
    poller_wait(p, UINT64_MAX, true);
    assert_int_equal(r.told[WATCH_READ], 1);
    shut(&r);
    open_pipe(p, &r, &w);
    poller_want(p, &w.watch, WATCH_WRITE);
    shut(&r);
    poller_wait(p, UINT64_MAX, true);
    assert_int_equal(w.told[WATCH_WRITE], 1);
    shut(&w);
    poller_free(p);
}

/* Two are ready in one wait, and the first to be told frees the other. */
static void test_who_is_freed_meanwhile_is_not_told(void **state)
{
    struct poller *p = poller_new();
    struct end *ends[2], writers[2];
    int fds[2];

    (void)state;
    for (int i = 0; i < 2; i++) {
        ends[i] = malloc(sizeof(*ends[i]));
        open_pipe(p, ends[i], &writers[i]);
        fds[i] = ends[i]->watch.fd;
        poller_want(p, &ends[i]->watch, WATCH_READ);
        assert_int_equal(write(writers[i].watch.fd, "x", 1), 1);
    }
    ends[0]->kills = ends[1];
    ends[1]->kills = ends[0];
    struct end *killed = NULL;
    ends[0]->killed = ends[1]->killed = &killed;
    poller_wait(p, UINT64_MAX, true);
    assert_non_null(killed);
    struct end *left = killed == ends[0] ? ends[1] : ends[0];
    assert_int_equal(left->told[WATCH_READ], 1);
    poller_want(p, &left->watch, 0);
    free(left);
    close(fds[0]);
    close(fds[1]);
    for (int i = 0; i < 2; i++)
        close(writers[i].watch.fd);
    poller_free(p);
}

static uint64_t now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void test_both_are_told_at_once(void **state)
{
    struct poller *p = poller_new();
    struct end ends[2];
    int fd[2];

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
    for (int i = 0; i < 2; i++) {
        ends[i] = (struct end){ .poller = p };
        watch_init(&ends[i].watch, fd[i], on_ready);
    }
    assert_int_equal(write(fd[1], "x", 1), 1);
    poller_want(p, &ends[0].watch, WATCH_READ | WATCH_WRITE);
    poller_wait(p, UINT64_MAX, true);
    assert_int_equal(ends[0].told[WATCH_READ | WATCH_WRITE], 1);
    shut(&ends[0]);
    shut(&ends[1]);
    poller_free(p);
}

static void test_a_wait_ends_at_its_deadline_and_never_before(void **state)
{
    struct poller *p = poller_new();
    uint64_t start = now_us();

    (void)state;
    assert_false(poller_wait(p, UINT64_MAX, false));
    while (!poller_wait(p, start + 20000, true))
        ;
    assert_true(now_us() >= start + 20000);
    assert_false(poller_wait(p, UINT64_MAX, false));
    assert_true(poller_wait(p, 0, true)); /* is over already */
    poller_free(p);
}

/* A later one does not put off the one that was waited for first, and an earlier one comes first.
 */
static void test_the_earliest_deadline_counts(void **state)
{
    struct poller *p = poller_new();
    struct end r, w;
    uint64_t start = now_us();

    (void)state;
    open_pipe(p, &r, &w);
    poller_want(p, &w.watch, WATCH_WRITE);
    poller_wait(p, start + 3600000000, true);
    poller_wait(p, start + 20000, true);
    poller_wait(p, start + 3600000000, true);
    assert_int_equal(w.told[WATCH_WRITE], 3);
    poller_want(p, &w.watch, 0);
    assert_true(poller_wait(p, start + 3600000000, true));
    assert_true(now_us() >= start + 20000);
    shut(&r);
    shut(&w);
    poller_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_only_what_is_wanted_is_told),
        cmocka_unit_test(test_a_hang_up_is_told_as_what_is_wanted),
        cmocka_unit_test(test_both_are_told_at_once),
        cmocka_unit_test(test_a_wait_ends_at_its_deadline_and_never_before),
        cmocka_unit_test(test_the_earliest_deadline_counts),
        cmocka_unit_test(test_who_is_freed_meanwhile_is_not_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
