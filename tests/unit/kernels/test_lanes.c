/* The transform across channels, in every instruction set that this processor has, against the O(n^2) sum in double. */
#include "kernels/cpu/lanes.h"
#include "tests/unit/support.h"

/* Sum over channels of squared orthonormal DCT-II coefficients of x [n, channels], and of them divided by the channel's variance. */
static void exact_power(const float *x, size_t stride, int n, int channels, double *power, double *normalised) {
    double *wave = malloc((size_t)(4 * n) * sizeof *wave);
    for (int i = 0; i < 4 * n; i++) wave[i] = cos(acos(-1) * i / (2.0 * n));
    for (int t = 0; t < n; t++) power[t] = normalised[t] = 0;
    for (int c = 0; c < channels; c++) {
        double mean = 0, variance = 0;
        for (int j = 0; j < n; j++) mean += (double)x[(size_t)j * stride + (size_t)c] / n;
        for (int j = 0; j < n; j++) variance += pow(x[(size_t)j * stride + (size_t)c] - mean, 2) / n;
        for (int t = 0; t < n; t++) {
            double y = 0;
            for (int j = 0; j < n; j++)
                y += x[(size_t)j * stride + (size_t)c] * wave[(int64_t)t * (2 * j + 1) % (4 * n)];
            y *= sqrt((t ? 2.0 : 1.0) / n);
            power[t] += y * y;
            if (variance > 1e-12) normalised[t] += y * y / variance;
        }
    }
    free(wave);
}

static void check_close(const char *what, int n, const double *found, const double *expected) {
    double largest = 0;
    for (int t = 1; t < n; t++) largest = fmax(largest, expected[t]);
    for (int t = 0; t < n; t++)
        if (!(fabs(found[t] - expected[t]) <= 3e-6 * (t ? largest : expected[0]) + 1e-9))
            fail_msg("%s, t %d of %d: found %.9g, expected %.9g (largest %.3g)", what, t, n, found[t], expected[t],
                     largest);
}

static void check_size(const struct fkv_lanes *lanes, int n) {
    struct fkv_error err;
    struct fkv_lane_plan *plan;
    int channels = test_between(1, 2 * lanes->channels + 3);
    size_t stride = (size_t)(channels + test_between(0, 9));
    float *x = malloc((size_t)n * stride * sizeof *x);
    double *sums = calloc(4 * (size_t)n, sizeof *sums);
    assert_ok(fkv_lane_plan_create(n, &plan, &err), err);
    assert_non_null(plan);
    float *scratch = aligned_alloc(64, (fkv_lane_scratch(plan, lanes) * sizeof *scratch + 63) / 64 * 64);
    test_fill(x, (size_t)n * stride, 5, 1);                   /* a mean as keys have it */
    for (int j = 0; j < n; j++) x[(size_t)j * stride] = 0.1f; /* and a constant channel */
    lanes->power(plan, x, stride, channels, scratch, sums, sums + n);
    exact_power(x, stride, n, channels, sums + 2 * n, sums + 3 * n);
    check_close(lanes->name, n, sums, sums + 2 * n);
    check_close(lanes->name, n, sums + n, sums + 3 * n);
    fkv_lane_plan_destroy(plan);
    free(x), free(sums), free(scratch);
}

static void every_set_gives_the_power_of_the_plain_sum(void **state) {
    (void)state;
    static const int sizes[] = {1, 2, 3, 4, 5, 6, 7, 8, 16, 31, 60, 64, 127, 251, 409 - 1, 502, 508, 1020};
    const struct fkv_lanes *sets[3];
    int count = fkv_lanes_available(sets);
    for (int i = 0; i < count; i++)
        for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) check_size(sets[i], sizes[k]);
}

static void lengths_with_a_large_prime_factor_are_declined(void **state) {
    (void)state;
    struct fkv_error err;
    struct fkv_lane_plan *plan;
    static const int declined[] = {257, 409, 2 * 409, 8191};
    for (int i = 0; i < 4; i++) {
        assert_ok(fkv_lane_plan_create(declined[i], &plan, &err), err);
        assert_null(plan);
    }
    fkv_lane_plan_destroy(NULL);
}

int main(void) {
    test_seed();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_set_gives_the_power_of_the_plain_sum),
        cmocka_unit_test(lengths_with_a_large_prime_factor_are_declined),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
