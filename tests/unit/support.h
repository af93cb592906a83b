/* What unit tests share: fresh random input with a printed seed, comparisons that fail with
 * numbers, a scratch folder.
 *
 *     FKV_TEST_SEED=123 FKV_TEST_ONLY=the_name_of_a_test build/release/tests/test_x
 *
 * repeats one test with the numbers that it failed with. */
#ifndef FKV_TESTS_SUPPORT_H
#define FKV_TESTS_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <math.h>

#include "kernels/base/error.h"

/* The state of splitmix64. A program has one seed, FKV_TEST_SEED or the clock's, and prints it; its
 * fixture and each of its tests start from it, so that a test draws the same numbers whether those
 * before it run or not. */
extern uint64_t test_state;

/* Starts from the seed again. */
void test_seed(void);

static inline uint64_t test_random(void) {
    uint64_t z = (test_state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static inline int test_between(int low, int high) {
    return low + (int)(test_random() % (uint64_t)(high - low + 1));
}

static inline double test_uniform(void) { return (double)(test_random() >> 11) * 0x1p-53; }

static inline double test_normal(void) {
    return sqrt(-2 * log(1 - test_uniform())) * cos(6.283185307179586 * test_uniform());
}

static inline void test_fill(float *x, size_t n, double mean, double deviation) {
    for (size_t i = 0; i < n; i++) x[i] = (float)(mean + deviation * test_normal());
}

/* Rows of `stride` numbers from index `first` on. Of a few normal numbers of a column some are now
 * and then almost the same, and a column that is divided by its variance then magnifies what is
 * rounded without bound: up to 16 rows lie on alternate sides of the mean, at least half a
 * deviation from it. */
static inline void test_fill_rows(float *x, size_t first, size_t rows, size_t stride, double mean,
                                  double deviation) {
    test_fill(x, first + rows * stride, 0, deviation);
    for (size_t i = 0; i < first + rows * stride; i++) {
        double apart = 0.5 * deviation + fabs((double)x[i]);
        if (rows <= 16 && i >= first) x[i] = (float)((i - first) / stride % 2 ? -apart : apart);
        x[i] = (float)(x[i] + mean);
    }
}

/* A test, its body follows: TEST(its_name) { ... }. Tests run in the order of their lines. */
#define TEST(name) TEST_WITH(name, NULL, NULL)

/* A test with functions that run before and after it: the body's `state` is what the first left. */
#define TEST_WITH(name, setup, teardown)                                                           \
    static void name(void **state);                                                                \
    TEST_ADD(name, name, setup, teardown, NULL)                                                    \
    static void name(__attribute__((unused)) void **state)

/* A test that is a function `body` with a pointer `value` as its state: one of several of a kind.
 */
#define TEST_OF(name, body, value) TEST_ADD(name, body, NULL, NULL, (void *)(value))

/* Under sanitizers and on the stand-in what takes long is done less often; the release run has all
 * of it. */
static inline bool small_sizes(void) { return getenv("FKV_TEST_SMALL") != NULL; }

/* Adds a row to the program's tests before main runs. */
#define TEST_ADD(name, body, setup, teardown, value)                                               \
    __attribute__((constructor)) static void add_##name(void) {                                    \
        test_add(&(struct CMUnitTest){#name, body, setup, teardown, value}, __LINE__);             \
    }

/* Functions that run once, before all tests of the program and after them; without a setup of its
 * own a test's `state` is what the first left. */
#define TEST_GROUP(setup, teardown)                                                                \
    __attribute__((constructor)) static void add_group(void) { test_group(setup, teardown); }

/* What TEST_ADD calls; the line decides the order. */
void test_add(const struct CMUnitTest *test, int line);
/* What TEST_GROUP calls. */
void test_group(CMFixtureFunction setup, CMFixtureFunction teardown);

/* Runs all tests under a name; returns how many failed. A program whose main is not that of run.c
 * calls it. */
int test_run(const char *name);

/* The error of the latest call that a test asserted something of. */
__attribute__((unused)) static struct fkv_error err;

/* Asserts that a call returned FKV_OK, and shows its message when not. */
#define assert_ok(call)                                                                            \
    do {                                                                                           \
        err.message[0] = 0;                                                                        \
        if ((call) != FKV_OK) fail_msg("%s: %s", #call, err.message);                              \
    } while (0)

/* Asserts that a call failed and that its message contains `text`. */
#define assert_refused(call, text)                                                                 \
    do {                                                                                           \
        err.message[0] = 0;                                                                        \
        if ((call) != FKV_FAILED) fail_msg("%s did not fail", #call);                              \
        if (!strstr(err.message, text))                                                            \
            fail_msg("message \"%s\" does not contain \"%s\"", err.message, text);                 \
    } while (0)

static inline void assert_close(double found, double expected, double absolute, double relative) {
    if (!(fabs(found - expected) <= absolute + relative * fabs(expected)))
        fail_msg("found %.17g, expected %.17g (difference %.3g)", found, expected,
                 found - expected);
}

/* How far a sum of independent numbers may lie from its mean when each lies within 1 of its own
 * mean and their variances add up to `variance`: by Bernstein's inequality farther with a
 * probability below 2 exp(-30), 2e-13. A test that allows as much does not fail by chance. */
static inline double test_chance(double variance) { return 10 + sqrt(100 + 60 * variance); }

/* How often something of probability p happened in so many independent draws. */
static inline void assert_frequency(double count, double draws, double p) {
    double allowed = test_chance(draws * p * (1 - p));
    if (!(fabs(count - draws * p) <= allowed))
        fail_msg("%g of %g draws, expected %.6g, give or take %.4g", count, draws, draws * p,
                 allowed);
}

/* Largest |found - expected| and where; fails beyond absolute + relative * max|expected|. */
static inline void assert_arrays_close(const float *found, const float *expected, size_t n,
                                       double absolute, double relative) {
    double worst = 0, largest = 0;
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)found[i] - expected[i]);
        if (!(d <= worst)) worst = d, at = i;
        if (fabs(expected[i]) > largest) largest = fabs(expected[i]);
    }
    if (n && !(worst <= absolute + relative * largest))
        fail_msg("element %zu of %zu: found %.9g, expected %.9g (difference %.3g, largest %.3g)",
                 at, n, found[at], expected[at], worst, largest);
}

/* 10 log10(|expected|^2 / |found - expected|^2) */
static inline double test_snr_db(const float *found, const double *expected, size_t n) {
    double signal = 0, noise = 0;
    for (size_t i = 0; i < n; i++)
        signal += expected[i] * expected[i],
            noise += (found[i] - expected[i]) * (found[i] - expected[i]);
    return 10 * log10(signal / noise);
}

/* A fresh folder under $TMPDIR or /tmp; remove it with test_remove_folder. */
static inline char *test_make_folder(char path[256]) {
    const char *base = getenv("TMPDIR");
    snprintf(path, 256, "%s/fkv-test-XXXXXX", base ? base : "/tmp");
    assert_non_null(mkdtemp(path));
    return path;
}

static inline void test_remove_folder(const char *path) {
    char command[512];
    snprintf(command, sizeof command, "rm -rf '%s'", path);
    assert_int_equal(system(command), 0);
}

/* The fixture of a test with a folder of its own. */
__attribute__((unused)) static char folder[256];

static inline int make_folder(void **state) {
    (void)state;
    test_make_folder(folder);
    return 0;
}

static inline int remove_folder(void **state) {
    (void)state;
    test_remove_folder(folder);
    return 0;
}

#define TEST_IN_FOLDER(name) TEST_WITH(name, make_folder, remove_folder)

/* "FOLDER/NAME", in one of eight static buffers. */
static inline const char *test_path(const char *folder, const char *name) {
    static char paths[8][512];
    static int next;
    char *path = paths[next++ % 8];
    snprintf(path, 512, "%s/%s", folder, name);
    return path;
}

/* A path in the folder of the test. */
static inline const char *in_folder(const char *name) { return test_path(folder, name); }

static inline void test_write_file(const char *path, const void *data, size_t bytes) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, bytes, f), bytes);
    assert_int_equal(fclose(f), 0);
}

static inline void test_write_text(const char *path, const char *text) {
    test_write_file(path, text, strlen(text));
}

/* $FKV_SHARED/rest or ../shared/rest; skips the test, saying so, when it is not there. */
static inline char *test_shared(char path[512], const char *rest) {
    const char *base = getenv("FKV_SHARED");
    snprintf(path, 512, "%s/%s", base ? base : "../shared", rest);
    if (access(path, R_OK)) {
        printf("skipped: %s is absent (set FKV_SHARED)\n", path);
        skip();
    }
    return path;
}

#endif
