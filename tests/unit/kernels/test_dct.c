/* The DCT by its properties, and against the O(n^2) sum in double precision, in every instruction
 * set that this processor has. */
#include "kernels/dct/core.h"
#include "tests/unit/support.h"

static const int sizes[] = {1, 2, 3, 31, 241, 409, 1020, 1024, 2044, 2046, 4092, 4093};
enum { SIZES = sizeof sizes / sizeof *sizes };
static const struct fkv_dct_set *set; /* under test */

static double basis(int t, int j, int n) {
    return sqrt((t ? 2.0 : 1.0) / n) *
           cos(acos(-1) * (double)((int64_t)t * (2 * j + 1) % (4 * (int64_t)n)) / (2.0 * n));
}

/* A plan with its scratch. */
struct transform {
    struct fkv_dct *plan;
    float *scratch;
};

static struct transform make(int n) {
    struct transform t;
    assert_ok(fkv_dct_create_for(set, n, &t.plan, &err));
    t.scratch = malloc(sizeof(float) * fkv_dct_scratch(t.plan));
    assert_non_null(t.scratch);
    return t;
}

static void drop(struct transform t) {
    fkv_dct_destroy(t.plan);
    free(t.scratch);
}

static float *numbers(size_t count) {
    float *x = malloc(sizeof *x * (count ? count : 1));
    assert_non_null(x);
    return x;
}

static float *random_numbers(size_t count, double mean) {
    float *x = numbers(count);
    test_fill(x, count, mean, 1);
    return x;
}

/* cos(2 pi i / 4n), i = 0 .. 4n - 1 */
static double *waves(int n) {
    double *wave = malloc(sizeof *wave * 4 * (size_t)n);
    assert_non_null(wave);
    for (int i = 0; i < 4 * n; i++) wave[i] = cos(acos(-1) * i / (2.0 * n));
    return wave;
}

TEST(both_directions_match_the_double_sum_to_120_db) {
    for (int s = 0; s < SIZES; s++) {
        int n = sizes[s], channels = n > 2000 ? 2 : test_between(1, 40);
        size_t count = (size_t)n * (size_t)channels;
        struct transform d = make(n);
        float *x = random_numbers(count, 0), *y = numbers(count), *z = numbers(count);
        double *forward = calloc(count, sizeof *forward), *inverse = calloc(count, sizeof *inverse),
               *wave = waves(n);
        for (int t = 0; t < n; t++)
            for (int j = 0; j < n; j++) {
                double weight =
                    wave[(int64_t)t * (2 * j + 1) % (4 * n)] * sqrt((t ? 2.0 : 1.0) / n);
                for (int c = 0; c < channels; c++) {
                    forward[t * channels + c] += weight * x[j * channels + c];
                    inverse[j * channels + c] += weight * x[t * channels + c];
                }
            }
        fkv_dct_forward(d.plan, x, (size_t)channels, channels, y, (size_t)channels, d.scratch);
        fkv_dct_inverse(d.plan, x, (size_t)channels, channels, z, (size_t)channels, d.scratch);
        double there = test_snr_db(y, forward, count), back = test_snr_db(z, inverse, count);
        printf("n %4d: %.1f and %.1f dB\n", n, there, back);
        if (!(there > 120 && back > 120))
            fail_msg("n = %d: SNR %.1f dB forward, %.1f dB inverse", n, there, back);
        free(x), free(y), free(z), free(forward), free(inverse), free(wave);
        drop(d);
    }
}

TEST(sums_of_squares_are_kept) {
    for (int s = 0; s < SIZES; s++) {
        int n = sizes[s], channels = test_between(1, 20);
        size_t count = (size_t)n * (size_t)channels;
        struct transform d = make(n);
        float *x = random_numbers(count, 1), *y = numbers(count);
        fkv_dct_forward(d.plan, x, (size_t)channels, channels, y, (size_t)channels, d.scratch);
        double before = 0, after = 0;
        for (size_t i = 0; i < count; i++)
            before += (double)x[i] * x[i], after += (double)y[i] * y[i];
        assert_close(after, before, 0, 1e-6);
        free(x), free(y);
        drop(d);
    }
}

TEST(transforming_is_linear) {
    int n = test_between(2, 600), channels = test_between(1, 33);
    size_t count = (size_t)n * (size_t)channels;
    struct transform d = make(n);
    float *x = random_numbers(count, 0), *y = random_numbers(count, 0), *z = numbers(count);
    float a = (float)test_normal(), b = (float)test_normal();
    for (size_t i = 0; i < count; i++) z[i] = a * x[i] + b * y[i];
    fkv_dct_forward(d.plan, x, (size_t)channels, channels, x, (size_t)channels, d.scratch);
    fkv_dct_forward(d.plan, y, (size_t)channels, channels, y, (size_t)channels, d.scratch);
    fkv_dct_forward(d.plan, z, (size_t)channels, channels, z, (size_t)channels, d.scratch);
    for (size_t i = 0; i < count; i++) x[i] = a * x[i] + b * y[i];
    assert_arrays_close(z, x, count, 0, 2e-6);
    free(x), free(y), free(z);
    drop(d);
}

TEST(an_impulse_gives_the_basis) {
    for (int s = 0; s < SIZES; s++) {
        int n = sizes[s], at = test_between(0, n - 1);
        struct transform d = make(n);
        float *x = numbers((size_t)n), *expected = numbers((size_t)n);
        for (int i = 0; i < n; i++) x[i] = i == at, expected[i] = (float)basis(i, at, n);
        fkv_dct_forward(d.plan, x, 1, 1, x, 1, d.scratch);
        assert_arrays_close(x, expected, (size_t)n, 0, 1e-6);
        free(x), free(expected);
        drop(d);
    }
}

TEST(a_cosine_puts_its_energy_at_its_frequency) {
    for (int s = 0; s < SIZES; s++) {
        int n = sizes[s], t = test_between(0, n - 1);
        struct transform d = make(n);
        float *x = numbers((size_t)n), *expected = calloc((size_t)n, sizeof *expected);
        for (int j = 0; j < n; j++) x[j] = (float)basis(t, j, n);
        expected[t] = 1;
        fkv_dct_forward(d.plan, x, 1, 1, x, 1, d.scratch);
        assert_arrays_close(x, expected, (size_t)n, 0, 1e-6);
        free(x), free(expected);
        drop(d);
    }
}

TEST(there_and_back_is_the_identity) {
    for (int s = 0; s < SIZES + 40; s++) {
        int n = s < SIZES ? sizes[s] : test_between(1, 700), channels = test_between(1, 35);
        size_t count = (size_t)n * (size_t)channels;
        struct transform d = make(n);
        float *x = random_numbers(count, 0.5), *y = numbers(count);
        fkv_dct_forward(d.plan, x, (size_t)channels, channels, y, (size_t)channels, d.scratch);
        fkv_dct_inverse(d.plan, y, (size_t)channels, channels, y, (size_t)channels, d.scratch);
        assert_arrays_close(y, x, count, 0, 2e-6);
        free(x), free(y);
        drop(d);
    }
}

TEST(a_gain_multiplies_what_both_directions_give) {
    for (int s = 0; s < SIZES; s++) {
        const int n = sizes[s], channels = test_between(1, 35);
        const size_t count = (size_t)n * (size_t)channels;
        const double gain = test_between(1, 300) / 100.0;
        struct transform plain = make(n), scaled = make(n);
        float *x = random_numbers(count, 0.5), *y = numbers(count), *z = numbers(count);
        fkv_dct_scale(scaled.plan, 7); /* the last one counts */
        fkv_dct_scale(scaled.plan, gain);
        for (int back = 0; back < 2; back++) {
            void (*run)(const struct fkv_dct *, const float *, size_t, int32_t, float *, size_t,
                        float *) = back ? fkv_dct_inverse : fkv_dct_forward;
            run(plain.plan, x, (size_t)channels, channels, y, (size_t)channels, plain.scratch);
            run(scaled.plan, x, (size_t)channels, channels, z, (size_t)channels, scaled.scratch);
            for (size_t i = 0; i < count; i++) y[i] *= (float)gain;
            assert_arrays_close(z, y, count, 0, 1e-6);
        }
        free(x), free(y), free(z);
        drop(plain), drop(scaled);
    }
}

TEST(reversing_time_flips_odd_coefficients) {
    int n = test_between(2, 900);
    struct transform d = make(n);
    float *x = random_numbers((size_t)n, 0), *reversed = numbers((size_t)n);
    for (int j = 0; j < n; j++) reversed[j] = x[n - 1 - j];
    fkv_dct_forward(d.plan, x, 1, 1, x, 1, d.scratch);
    fkv_dct_forward(d.plan, reversed, 1, 1, reversed, 1, d.scratch);
    for (int t = 1; t < n; t += 2) reversed[t] = -reversed[t];
    assert_arrays_close(reversed, x, (size_t)n, 0, 2e-6);
    free(x), free(reversed);
    drop(d);
}

/* A channel's result depends neither on its neighbours, nor on strides, nor on being in place; what
 * lies between rows is left alone. */
TEST(each_channel_is_on_its_own_whatever_the_layout) {
    for (int round = 0; round < 30; round++) {
        int n = test_between(1, 200), channels = test_between(1, 70),
            wide = channels + test_between(0, 9), more = channels + test_between(0, 9);
        struct transform d = make(n);
        float *x = random_numbers((size_t)(n * wide), 0), *y = numbers((size_t)(n * more)),
              *one = numbers((size_t)n);
        for (int i = 0; i < n * more; i++) y[i] = 1234;
        fkv_dct_forward(d.plan, x, (size_t)wide, channels, y, (size_t)more, d.scratch);
        for (int i = 0; i < n * more; i++)
            if (i % more >= channels) assert_true(y[i] == 1234);
        int c = test_between(0, channels - 1);
        fkv_dct_forward(d.plan, x + c, (size_t)wide, 1, one, 1, d.scratch);
        for (int t = 0; t < n; t++) assert_close(one[t], y[t * more + c], 1e-5, 0);
        float *beside = numbers((size_t)(n * wide));
        memcpy(beside, x, sizeof *x * (size_t)(n * wide));
        fkv_dct_forward(d.plan, x, (size_t)wide, channels, x, (size_t)wide, d.scratch);
        for (int i = 0; i < n * wide; i++) {
            float expected = i % wide < channels ? y[i / wide * more + i % wide] : beside[i];
            assert_memory_equal(&x[i], &expected, 4);
        }
        free(x), free(y), free(one), free(beside);
        drop(d);
    }
}

/* Sums over channels of squared coefficients of x [n, channels], and of them divided by the
 * channel's variance */
static void exact_power(const float *x, size_t stride, int n, int channels, double *power,
                        double *normalised) {
    double *wave = waves(n);
    for (int t = 0; t < n; t++) power[t] = normalised[t] = 0;
    for (int c = 0; c < channels; c++) {
        double mean = 0, variance = 0;
        for (int j = 0; j < n; j++) mean += (double)x[(size_t)j * stride + (size_t)c] / n;
        for (int j = 0; j < n; j++)
            variance += pow(x[(size_t)j * stride + (size_t)c] - mean, 2) / n;
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

/* `found` was added to 1. Errors are held against the largest power but the first: a float32
 * transform spreads its rounding over all t. */
static void assert_power_close(int n, const double *found, const double *expected) {
    double largest = 0;
    for (int t = 1; t < n; t++) largest = fmax(largest, expected[t]);
    for (int t = 0; t < n; t++)
        if (!(fabs(found[t] - 1 - expected[t]) <= 3e-6 * (t ? largest : expected[0]) + 1e-9))
            fail_msg("t %d of %d: found %.9g, expected %.9g (largest %.3g)", t, n, found[t] - 1,
                     expected[t], largest);
}

TEST(power_is_added_as_in_the_double_sum) {
    static const int lengths[] = {1,  2,   3,   4,   5,   6,   7,   8,   16,  31,  60,
                                  64, 127, 251, 257, 408, 409, 502, 508, 818, 1020};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        int n = lengths[i], channels = test_between(1, 4 * set->lanes + 3);
        size_t stride = (size_t)(channels + test_between(0, 9));
        struct transform d = make(n);
        float *x = numbers((size_t)n * stride);
        test_fill_rows(x, 0, (size_t)n, stride, 5, 1);            /* a mean as keys have it */
        for (int j = 0; j < n; j++) x[(size_t)j * stride] = 0.1f; /* and a constant channel */
        double *sums = malloc(sizeof *sums * 4 * (size_t)n), *exact = sums + 2 * n;
        for (int t = 0; t < 2 * n; t++) sums[t] = 1;
        const struct fkv_dct_rows rows = {x, FKV_F32, stride, NULL};
        fkv_dct_add_power(d.plan, &rows, channels, sums, sums + n, d.scratch);
        exact_power(x, stride, n, channels, exact, exact + n);
        assert_power_close(n, sums, exact);
        assert_power_close(n, sums + n, exact + n);
        free(x), free(sums);
        drop(d);
    }
}

/* Whatever the format and the order, the bits are those of the same numbers widened and put in
 * order beforehand. */
TEST(power_of_stored_rows_is_that_of_the_widened_rows_in_order) {
    static const int lengths[] = {1, 2, 60, 127, 409, 508};
    for (size_t i = 0; i < 3 * sizeof lengths / sizeof *lengths; i++) {
        int n = lengths[i / 3], channels = test_between(1, 4 * set->lanes + 3);
        enum fkv_dtype dtype = (enum fkv_dtype)(i % 3);
        size_t stride = (size_t)(channels + test_between(0, 9)), bytes = fkv_dtype_bytes(dtype);
        struct transform d = make(n);
        float *x = random_numbers((size_t)n * stride, 5), *wide = numbers((size_t)n * stride);
        char *stored = malloc((size_t)n * stride * bytes);
        int32_t *order = malloc(sizeof *order * (size_t)n);
        double *sums = calloc(4 * (size_t)n, sizeof *sums), *expected = sums + 2 * n;
        for (int j = 0; j < n; j++) x[(size_t)j * stride] = 0.1f; /* a constant channel */
        fkv_from_f32(x, dtype, (size_t)n * stride, stored);
        for (int j = 0; j < n; j++) order[j] = (j + n / 2) % n;
        for (int j = 0; j < n; j++)
            fkv_to_f32(stored + (size_t)order[j] * stride * bytes, dtype, stride,
                       wide + (size_t)j * stride);
        const struct fkv_dct_rows rows = {stored, dtype, stride, order},
                                  widened = {wide, FKV_F32, stride, NULL};
        fkv_dct_add_power(d.plan, &rows, channels, sums, sums + n, d.scratch);
        fkv_dct_add_power(d.plan, &widened, channels, expected, expected + n, d.scratch);
        assert_memory_equal(sums, expected, 2 * (size_t)n * sizeof *sums);
        free(x), free(wide), free(stored), free(order), free(sums);
        drop(d);
    }
}

TEST(plans_without_tokens_are_refused) {
    struct fkv_dct *plan = (struct fkv_dct *)1;
    assert_refused(fkv_dct_create(0, &plan, &err), "at least one token");
    assert_null(plan);
    fkv_dct_destroy(NULL);
}

/* Every test once per set of functions. */
int main(void) {
    const struct fkv_dct_set *sets[3];
    int failed = 0;
    for (int i = 0, count = fkv_dct_sets(sets); i < count; i++) {
        set = sets[i];
        failed += test_run(set->name);
    }
    return failed;
}
