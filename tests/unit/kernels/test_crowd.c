/* Decode steps beside other programs: when half the threads are tried, kept and left. */
#include "kernels/cpu/crowd.h"
#include "tests/unit/support.h"

enum { THREADS = 4, LOOPS = 20000 };

/* Runs LOOPS loops, each of 0.1 ms on an idle machine, where all threads take `full` times that and
 * half of them `half` times; how many loops had half. */
static int run(struct fkv_crowd *c, double full, double half) {
    int halved = 0;
    for (int i = 0; i < LOOPS; i++) {
        const int threads = fkv_crowd_threads(c, THREADS);
        assert_true(threads == THREADS || threads == THREADS / 2);
        const double work = test_between(1, 20), noise = 1 + test_between(0, 40) / 100.0;
        fkv_crowd_add(c, 1e-5 * work * noise * (threads == THREADS ? full : half), 7 * work);
        halved += threads != THREADS;
    }
    return halved;
}

TEST(an_idle_machine_has_all_threads_but_for_one_try) {
    struct fkv_crowd c = {0};
    assert_in_range(run(&c, 1, 1.8), 1, LOOPS / 100);
    assert_int_equal(run(&c, 1, 1.8), 0);
    assert_int_equal(run(&c, 1.3, 1.8), 0);
}

/* Beside another program, then alone, then beside another. */
static void assert_half_beside_another(struct fkv_crowd *c) {
    assert_true(run(c, 2.7, 2) > LOOPS * 4 / 5);
    assert_true(run(c, 1, 1.8) < LOOPS / 5);
    assert_int_equal(run(c, 1, 1.8), 0);
    assert_true(run(c, 2.7, 2) > LOOPS * 4 / 5);
}

TEST(who_starts_beside_another_program_has_half_and_all_after_it) {
    struct fkv_crowd c = {0};
    assert_half_beside_another(&c);
}

TEST(weights_read_from_a_disk_are_no_crowd) {
    struct fkv_crowd c = {0};
    for (int i = 0; i < 4; i++) fkv_crowd_add(&c, 0.011, 0.3);
    int halved = 0;
    for (int i = 0; i < 100; i++) {
        const int threads = fkv_crowd_threads(&c, THREADS);
        fkv_crowd_add(&c, threads == THREADS ? 0.011 : 0.0198, 2);
        halved += threads != THREADS;
    }
    assert_in_range(halved, 1, 4);
}

TEST(beside_another_program_half_are_faster_and_left_with_it) {
    struct fkv_crowd c = {0};
    run(&c, 1, 1.8);
    assert_half_beside_another(&c);
}

TEST(a_machine_that_gets_slower_keeps_all_threads) {
    struct fkv_crowd c = {0};
    run(&c, 1, 1.8);
    assert_in_range(run(&c, 2.2, 4), 1, LOOPS / 20);
    assert_true(run(&c, 2.2, 4) < LOOPS / 50);
}

TEST(one_thread_stays_one) {
    struct fkv_crowd c = {.halved = true};
    assert_int_equal(fkv_crowd_threads(&c, 1), 1);
    assert_int_equal(fkv_crowd_threads(&c, 2), 1);
    assert_int_equal(fkv_crowd_threads(&c, 5), 2);
}
