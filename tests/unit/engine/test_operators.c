/* Named operators and the fitted one: what their definitions promise, at sizes of any kind. Their
 * numbers are compared with a second implementation by tests/e2e/check_linear.py. */
#include "tests/unit/support.h"

#include "engine/cache/operators.h"
#include "engine/cache/setup.h"

enum { ROUNDS = 40 };

static float *filled(const char *name, int n, int retained) {
    struct fkv_operator o;
    float *m = malloc(sizeof *m * (size_t)n * (size_t)retained);
    assert_ok(fkv_operator_parse(name, &o, &err));
    assert_ok(fkv_operator_fill(&o, n, retained, m, &err));
    return m;
}

static double product(const float *a, const float *b, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += (double)a[i] * b[i];
    return sum;
}

static void assert_constant_stays(const float *m, int n, int retained, double want) {
    for (int j = 0; j < retained; j++) {
        double sum = 0;
        for (int i = 0; i < n; i++) sum += m[j * n + i];
        assert_close(sum, want, 2e-6, 0);
    }
}

static void assert_rows_are_orthogonal_of_one_length(const float *m, int n, int retained) {
    const double square = (double)retained / n;
    for (int j = 0; j < retained; j++)
        for (int k = 0; k <= j; k++)
            assert_close(product(m + j * n, m + k * n, n), j == k ? square : 0, 3e-6, 0);
}

TEST(a_constant_stays_that_constant) {
    const char *const names[] = {"dct", "meanpool", "decimate", "random", "random:5", "haar"};
    for (int round = 0; round < ROUNDS; round++) {
        const int n = test_between(2, 90), retained = test_between(1, n);
        for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
            float *m = filled(names[k], n, retained);
            assert_constant_stays(m, n, retained, 1);
            free(m);
        }
    }
}

TEST(bands_and_random_operators_have_orthogonal_rows) {
    for (int round = 0; round < ROUNDS; round++) {
        const int n = test_between(2, 90), retained = test_between(1, n);
        char band[32];
        snprintf(band, sizeof band, "dct-band:%d", test_between(0, n - retained));
        const char *const names[] = {"dct", band, "random:11"};
        for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
            float *m = filled(names[k], n, retained);
            assert_rows_are_orthogonal_of_one_length(m, n, retained);
            free(m);
        }
    }
}

TEST(keeping_every_slot_changes_nothing) {
    const char *const names[] = {"dct", "meanpool", "decimate", "haar"};
    for (int round = 0; round < ROUNDS; round++) {
        const int n = test_between(1, 90);
        for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
            float *m = filled(names[k], n, n);
            for (int j = 0; j < n; j++)
                for (int i = 0; i < n; i++) assert_close(m[j * n + i], i == j, 2e-6, 0);
            free(m);
        }
    }
}

TEST(halving_powers_of_two_makes_haar_a_mean_pool) {
    for (int n = 2; n <= 128; n *= 2)
        for (int retained = 1; retained <= n; retained *= 2) {
            float *haar = filled("haar", n, retained), *pool = filled("meanpool", n, retained);
            assert_memory_equal(haar, pool, sizeof *haar * (size_t)(n * retained));
            free(haar), free(pool);
        }
}

TEST(seeds_differ) {
    float *a = filled("random", 20, 9), *b = filled("random:0", 20, 9),
          *c = filled("random:1", 20, 9);
    assert_memory_equal(a, b, sizeof *a * 180);
    assert_memory_not_equal(a, c, sizeof *a * 180);
    free(a), free(b), free(c);
}

TEST(names_that_are_none_are_refused) {
    const char *const bad[] = {"",       "fourier",   "dct:1",    "dct-band", "dct-band:",
                               "haar:2", "random:-1", "random:x", "ops.h5",   "klt:capture"};
    struct fkv_operator o;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_refused(fkv_operator_parse(bad[i], &o, &err), "--operator");
}

TEST(a_file_of_another_shape_is_refused) {
    const struct fkv_config config = {
        .layers = 2, .kv_heads = 3, .trained_context = 512, .head_dim = 8};
    float one[1] = {0};
    struct fkv_operator_data data = {.text = "op.h5@0",
                                     .layers = 1,
                                     .kv_heads = 1,
                                     .retained = 30,
                                     .n = 60,
                                     .key = one,
                                     .value = one};
    const struct fkv_policy_options options = {
        .name = "linear", .window = 64, .sinks = 4, .operator_data = &data};
    struct fkv_policy_setup s;
    assert_ok(fkv_policy_setup(&options, &config, 1000, &s, &err));
    fkv_policy_setup_free(&s);
    data.n = 61;
    assert_refused(fkv_policy_setup(&options, &config, 1000, &s, &err),
                   "op.h5@0: operator: expected L x n = 30 x 60");
    data.n = 60, data.layers = 2;
    assert_refused(fkv_policy_setup(&options, &config, 1000, &s, &err), "found 2 layers of 1");
}

#ifndef FKV_PLAIN
/* Whatever was measured: a constant stays, rows are orthogonal. Of a Markov process of first order
 * that forgets slowly: FreqKV's. */
TEST(a_fitted_operator_is_freqkv_for_a_markov_process) {
    for (int round = 0; round < ROUNDS; round++) {
        const int n = test_between(2, 60), retained = test_between(1, n);
        double r[60] = {0}, x[60];
        float *m = malloc(sizeof *m * (size_t)(n * retained)), *dct = filled("dct", n, retained);
        for (int i = 0; i < n; i++) x[i] = test_normal();
        for (int k = 0; k < n; k++)
            for (int i = 0; i + k < n; i++) r[k] += x[i] * x[i + k];
        assert_ok(fkv_operator_fit(r, n, retained, m, &err));
        assert_constant_stays(m, n, retained, 1);
        assert_rows_are_orthogonal_of_one_length(m, n, retained);
        for (int k = 0; k < n; k++) r[k] = pow(1 - 1e-6, k);
        assert_ok(fkv_operator_fit(r, n, retained, m, &err));
        assert_arrays_close(m, dct, (size_t)(n * retained), 1e-3, 0);
        free(m), free(dct);
    }
}
#endif
