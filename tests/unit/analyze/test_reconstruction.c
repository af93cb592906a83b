/* Reconstruction errors from spectra, against explicit reconstruction. */
#include "analyze/measure/error.h"
#include "kernels/dct.h"
#include "tests/unit/analyze/made_captures.h"

/* A spectrum of one layer and `heads` heads with the given power [heads, n]. */
static struct fkv_spectrum spectrum_of(const double *power, int heads, int n) {
    struct fkv_spectrum s = {.layers = 1, .heads = heads, .n = n};
    s.layer_index = fkv_memory_take(&s.memory, 1, sizeof(int32_t));
    s.head_index = fkv_memory_take(&s.memory, (size_t)heads, sizeof(int32_t));
    s.power = fkv_memory_take(&s.memory, (size_t)(heads * n), sizeof(double));
    s.rounding_floor = fkv_memory_take(&s.memory, (size_t)heads, sizeof(double));
    memcpy(s.power, power, (size_t)(heads * n) * sizeof(double));
    return s;
}

static float *states; /* [segments][n][channels] */
static int n, channels;

static double from_states(int recording, enum fkv_state state, int layer, int64_t t, int head,
                          int channel) {
    (void)recording, (void)state, (void)layer, (void)head;
    return states[t * channels + channel];
}

/* ||x - x_L||, ||x||, <x, x_L>, ||x_L|| squared and summed over segments, x_L made by transforming,
 * zeroing and transforming back. */
struct sums {
    double difference, whole, inner, kept;
};

static struct sums reconstruct(const struct fkv_dct *plan, int segments, int retained, bool no_dc) {
    size_t size = (size_t)(n * channels);
    float *y = malloc(size * sizeof *y), *z = malloc(size * sizeof *z),
          *x = malloc(size * sizeof *x);
    float *scratch = malloc(fkv_dct_scratch(plan) * sizeof *scratch);
    struct sums s = {0};
    for (int segment = 0; segment < segments; segment++) {
        size_t stride = (size_t)channels;
        fkv_dct_forward(plan, states + (size_t)segment * size, stride, channels, y, stride,
                        scratch);
        if (no_dc) memset(y, 0, stride * sizeof *y);
        fkv_dct_inverse(plan, y, stride, channels, x, stride, scratch);
        memset(y + (size_t)retained * stride, 0, (size_t)(n - retained) * stride * sizeof *y);
        fkv_dct_inverse(plan, y, stride, channels, z, stride, scratch);
        for (size_t i = 0; i < size; i++) {
            s.difference += ((double)x[i] - z[i]) * ((double)x[i] - z[i]);
            s.whole += (double)x[i] * x[i];
            s.inner += (double)x[i] * z[i];
            s.kept += (double)z[i] * z[i];
        }
    }
    free(x), free(y), free(z), free(scratch);
    return s;
}

TEST_IN_FOLDER(curves_equal_explicit_reconstruction) {
    int segments = test_between(1, 4);
    n = test_between(20, 90);
    channels = test_between(1, 9);
    states = malloc((size_t)(segments * n * channels) * sizeof *states);
    for (int i = 0; i < segments * n * channels; i++)
        states[i] = (float)(2 + sin(0.05 * (i / channels)) + 0.3 * test_normal());
    struct made m = made_keys(1, 1, channels, segments * n, from_states);
    char path[300];
    struct fkv_spectrum s;
    struct fkv_error_curves e;
    struct fkv_dct *plan;
    snprintf(path, sizeof path, "%s/capture", folder);
    made_write(&m, path);
    assert_ok(made_measure(path, FKV_STATE_KEY, n, 0, false, &s, &err));
    const double gamma[] = {0.1, 0.25, 0.5, 0.8};
    assert_ok(fkv_error_curves_make(&s, gamma, 4, &e, &err));
    assert_ok(fkv_dct_create(n, &plan, &err));
    for (int g = 0; g < 4; g++)
        for (int no_dc = 0; no_dc < 2; no_dc++) {
            struct sums r = reconstruct(plan, segments, fkv_retained(gamma[g], n), no_dc);
            assert_close(fkv_error_curve(&e, FKV_RELATIVE_ERROR, no_dc)[g],
                         sqrt(r.difference / r.whole), 1e-6, 1e-4);
            assert_close(fkv_error_curve(&e, FKV_RETAINED_ENERGY, no_dc)[g], r.kept / r.whole, 1e-6,
                         1e-5);
            assert_close(fkv_error_curve(&e, FKV_COSINE, no_dc)[g],
                         r.inner / sqrt(r.whole * r.kept), 1e-6, 1e-5);
            assert_close(fkv_error_curve(&e, FKV_SNR_DB, no_dc)[g],
                         10 * log10(r.whole / r.difference), 1e-2, 0);
        }
    fkv_dct_destroy(plan);
    fkv_error_curves_free(&e);
    fkv_error_curves_free(&e);
    fkv_spectrum_free(&s);
    free(states);
}

TEST(squared_error_and_retained_energy_sum_to_one) {
    double power[3 * 100], gamma[] = {0.01, 0.3, 0.5, 0.99, 1};
    for (int i = 0; i < 300; i++) power[i] = exp(3 * test_normal());
    struct fkv_spectrum s = spectrum_of(power, 3, 100);
    struct fkv_error_curves e;
    assert_ok(fkv_error_curves_make(&s, gamma, 5, &e, &err));
    for (int i = 0; i < 15; i++)
        for (int no_dc = 0; no_dc < 2; no_dc++)
            assert_close(pow(fkv_error_curve(&e, FKV_RELATIVE_ERROR, no_dc)[i], 2) +
                             fkv_error_curve(&e, FKV_RETAINED_ENERGY, no_dc)[i],
                         1, 1e-12, 0);
    fkv_error_curves_free(&e);
    fkv_spectrum_free(&s);
}

TEST(known_power_gives_known_errors) {
    const double power[] = {10, 4, 2, 1, 0, 3}, gamma[] = {0.5, 1};
    struct fkv_spectrum s = spectrum_of(power, 1, 6);
    struct fkv_error_curves e;
    s.rounding_floor[0] = 0.05;
    assert_ok(fkv_error_curves_make(&s, gamma, 2, &e, &err));
    assert_close(fkv_error_curve(&e, FKV_RETAINED_ENERGY, false)[0], 16.0 / 20, 1e-15, 0);
    assert_close(fkv_error_curve(&e, FKV_RETAINED_ENERGY, true)[0], 6.0 / 10, 1e-15, 0);
    assert_close(fkv_error_curve(&e, FKV_RELATIVE_ERROR, false)[0], sqrt(4.0 / 20), 1e-15, 0);
    assert_close(fkv_error_curve(&e, FKV_SNR_DB, true)[0], -10 * log10(0.4), 1e-12, 0);
    assert_close(e.floor[0], sqrt(0.05 * 6 / 20), 1e-15, 0);
    for (int no_dc = 0; no_dc < 2; no_dc++) { /* L = n loses nothing */
        assert_close(fkv_error_curve(&e, FKV_RELATIVE_ERROR, no_dc)[1], 0, 0, 0);
        assert_true(isinf(fkv_error_curve(&e, FKV_SNR_DB, no_dc)[1]));
        assert_close(fkv_error_curve(&e, FKV_COSINE, no_dc)[1], 1, 0, 0);
    }
    fkv_error_curves_free(&e);
    fkv_spectrum_free(&s);
}

TEST(a_constant_has_no_error_without_dc) {
    const double power[] = {7, 0, 0, 0}, gamma[] = {0.5};
    struct fkv_spectrum s = spectrum_of(power, 1, 4);
    struct fkv_error_curves e;
    assert_ok(fkv_error_curves_make(&s, gamma, 1, &e, &err));
    assert_close(fkv_error_curve(&e, FKV_RELATIVE_ERROR, false)[0], 0, 0, 0);
    assert_true(isnan(
        fkv_error_curve(&e, FKV_RELATIVE_ERROR, true)[0])); /* nothing there to be wrong about */
    fkv_error_curves_free(&e);
    fkv_spectrum_free(&s);
}

TEST(ratios_that_keep_nothing_or_more_than_all_are_refused) {
    const double tiny[] = {0.5, 0.009}, zero[] = {0}, large[] = {1.01}, fine[] = {0.01, 0.3, 1};
    assert_refused(fkv_gammas_check(tiny, 2, 100, &err), "--gamma 0.009 keeps no coefficient");
    assert_refused(fkv_gammas_check(zero, 1, 100, &err), "found 0");
    assert_refused(fkv_gammas_check(large, 1, 100, &err), "found 1.01");
    assert_ok(fkv_gammas_check(fine, 3, 100, &err));
    assert_int_equal(fkv_retained(0.3, 10), 3); /* 0.3 * 10 is 2.999.. in binary */
}
