/* Power spectra of the backend under test: known signals, Parseval, and the reference. */
#include "tests/unit/kernels/backend_support.h"

/* Rows of [heads, head_dim] with room around them, on both sides. */
struct states {
    struct both x;
    size_t offset, stride; /* bytes, floats */
    int n, heads, head_dim;
};

static float *random_rows(const struct states *s, double mean, double deviation) {
    float *x = numbers(s->offset / 4 + (size_t)s->n * s->stride);
    test_fill_rows(x, s->offset / 4, (size_t)s->n, s->stride, mean, deviation);
    return x;
}

static struct states random_heads(int n, int head_dim, double mean) {
    struct states s = {.n = n, .heads = test_between(1, 4), .head_dim = head_dim};
    s.stride = (size_t)(s.heads * s.head_dim + test_between(0, 9));
    s.offset = 4 * (size_t)test_between(0, 9);
    float *x = random_rows(&s, mean, 1);
    s.x = upload_both(x, s.offset / 4 + (size_t)n * s.stride);
    free(x);
    reserve_both((struct fkv_limits){.slots = n, .attention = shape_of(n)});
    return s;
}

static struct states random_states(int n, double mean) {
    return random_heads(n, test_between(1, 40), mean);
}

/* Overwrites channel c of every row on both sides. */
static void set_channel(struct states *s, int c, const float *values) {
    for (int j = 0; j < s->n; j++) {
        size_t at = s->offset + 4 * ((size_t)j * s->stride + (size_t)c);
        assert_ok(tested.ops->write(tested.b, s->x.tested, at, &values[j], 4, &err));
        assert_ok(reference.ops->write(reference.b, s->x.reference, at, &values[j], 4, &err));
    }
}

static double *doubles(size_t count) {
    double *x = malloc(sizeof *x * count);
    assert_non_null(x);
    return x;
}

static void measure(struct side side, const struct fkv_buffer *x, const struct states *s,
                    double *power, double *normalised) {
    assert_ok(side.ops->power(side.b, x, s->offset, s->stride, s->n, s->heads, s->head_dim, power,
                              normalised, &err));
}

/* Against the largest value of its row: a float32 transform spreads its rounding over all
 * coefficients. */
static void assert_spectra_close(const double *found, const double *expected, int heads, int n,
                                 double relative) {
    for (int h = 0; h < heads; h++) {
        double largest = 0;
        for (int t = 0; t < n; t++) largest = fmax(largest, expected[h * n + t]);
        for (int t = 0; t < n; t++)
            if (!(fabs(found[h * n + t] - expected[h * n + t]) <= relative * largest + 1e-300))
                fail_msg("head %d, t %d of %d: found %.9g, expected %.9g (largest %.3g)", h, t, n,
                         found[h * n + t], expected[h * n + t], largest);
    }
}

static const int sizes[] = {1, 2, 3, 31, 60, 127, 409, 508, 1020};
static int size_count(void) { return small_sizes() ? 6 : sizeof sizes / sizeof *sizes; }

TEST(power_and_normalised_power_equal_the_reference) {
    for (int i = 0; i < size_count(); i++) {
        struct states s = random_states(sizes[i], test_normal());
        size_t count = (size_t)(s.heads * s.n);
        float *level = numbers((size_t)s.n); /* a constant channel has no variance to divide by */
        for (int j = 0; j < s.n; j++) level[j] = 0.1f;
        set_channel(&s, test_between(0, s.heads * s.head_dim - 1), level);
        double *power = doubles(count), *normalised = doubles(count), *expected = doubles(count),
               *expected_normalised = doubles(count);
        measure(tested, s.x.tested, &s, power, normalised);
        measure(reference, s.x.reference, &s, expected, expected_normalised);
        assert_spectra_close(power, expected, s.heads, s.n, 1e-5);
        assert_spectra_close(normalised, expected_normalised, s.heads, s.n, 1e-5);
        measure(tested, s.x.tested, &s, normalised, NULL);
        assert_memory_equal(normalised, power, sizeof *power * count);
        free(level), free(power), free(normalised), free(expected), free(expected_normalised);
        release(s.x);
    }
}

TEST(a_cosine_puts_its_power_at_its_frequency) {
    for (int i = 0; i < size_count(); i++) {
        int n = sizes[i], t = test_between(0, n - 1);
        struct states s = random_states(n, 0);
        float *wave = numbers((size_t)n);
        for (int j = 0; j < n; j++)
            wave[j] = (float)(3 * sqrt((t ? 2.0 : 1.0) / n) * cos(acos(-1) * t * (j + 0.5) / n));
        for (int c = 0; c < s.heads * s.head_dim; c++) set_channel(&s, c, wave);
        double *power = doubles((size_t)(s.heads * n)),
               *expected = calloc((size_t)(s.heads * n), sizeof *expected);
        measure(tested, s.x.tested, &s, power, NULL);
        for (int h = 0; h < s.heads; h++) expected[h * n + t] = 9;
        assert_spectra_close(power, expected, s.heads, n, 1e-5);
        free(wave), free(power), free(expected);
        release(s.x);
    }
}

TEST(power_over_all_frequencies_is_the_energy_of_the_states) {
    for (int i = 0; i < size_count(); i++) {
        struct states s = random_states(sizes[i], 0.5);
        double *power = doubles((size_t)(s.heads * s.n));
        float *x = download(tested, s.x.tested, s.x.count);
        measure(tested, s.x.tested, &s, power, NULL);
        for (int h = 0; h < s.heads; h++) {
            double sum = 0, energy = 0;
            for (int t = 0; t < s.n; t++) sum += power[h * s.n + t];
            for (int j = 0; j < s.n; j++)
                for (int c = 0; c < s.head_dim; c++)
                    energy +=
                        pow(x[s.offset / 4 + (size_t)j * s.stride + (size_t)(h * s.head_dim + c)],
                            2) /
                        s.head_dim;
            assert_close(sum, energy, 0, 1e-5);
        }
        free(power), free(x);
        release(s.x);
    }
}

/* Mean power of unit white noise is 1 at every t. Over a band of m coefficients and d channels it
 * is a chi-square of k = m d degrees of freedom over k, which leaves 1 by more than 2 sqrt(30 / k)
 * + 60 / k with a probability below 2 exp(-30) (Laurent and Massart 2000, lemma 1). */
TEST(white_noise_is_flat_and_normalised_power_ignores_scale) {
    int n = small_sizes() ? test_between(100, 150) : test_between(400, 700), bands = 8;
    struct states s = random_heads(n, test_between(48, 80), 0);
    size_t count = (size_t)(s.heads * n);
    double *power = doubles(count), *normalised = doubles(count), *scaled = doubles(count);
    measure(tested, s.x.tested, &s, power, normalised);
    for (int h = 0; h < s.heads; h++)
        for (int band = 0; band < bands; band++) {
            int first = band * n / bands, end = (band + 1) * n / bands;
            double mean = 0, freedom = (end - first) * s.head_dim,
                   allowed = 2 * sqrt(30 / freedom) + 60 / freedom;
            for (int t = first; t < end; t++) mean += power[h * n + t] / (end - first);
            if (!(fabs(mean - 1) < allowed))
                fail_msg("band %d of head %d: mean power %.4f, allowed 1 +- %.4f", band, h, mean,
                         allowed);
        }
    float *x = download(tested, s.x.tested, s.x.count), *channel = numbers((size_t)n);
    for (int c = 0; c < s.heads * s.head_dim; c++) { /* each channel times its own power of two */
        for (int j = 0; j < n; j++)
            channel[j] = ldexpf(x[s.offset / 4 + (size_t)j * s.stride + (size_t)c], c % 5 - 2);
        set_channel(&s, c, channel);
    }
    measure(tested, s.x.tested, &s, power, scaled);
    assert_spectra_close(scaled, normalised, s.heads, n,
                         3e-5); /* a pair of channels shares one transform's rounding */
    free(power), free(normalised), free(scaled), free(x), free(channel);
    release(s.x);
}

/* Sums of several segments against the sums of what `power` and plain means say of each; one that
 * is not finite shows in its head's energy and in no other. */
TEST(sums_of_segments_stay_with_the_backend) {
    for (int i = 0; i < size_count(); i++) {
        struct states s = random_states(sizes[i], test_normal());
        struct fkv_spectra_layout l = fkv_spectra_layout(s.heads, s.n, s.head_dim);
        size_t skip = (size_t)test_between(0, 5), count = skip + l.count;
        double *zero = calloc(count, sizeof *zero), *found = doubles(count),
               *expected = doubles(count);
        struct fkv_buffer *ours = upload(tested, zero, sizeof *zero * count),
                          *theirs = upload(reference, zero, sizeof *zero * count);
        for (int segment = 0; segment < 3; segment++) {
            float *x = random_rows(&s, test_normal(), 1 + segment);
            assert_ok(tested.ops->write(tested.b, s.x.tested, 0, x, 4 * s.x.count, &err));
            assert_ok(reference.ops->write(reference.b, s.x.reference, 0, x, 4 * s.x.count, &err));
            assert_ok(tested.ops->spectra_add(tested.b, s.x.tested, s.offset, s.stride, s.n,
                                              s.heads, s.head_dim, ours, 8 * skip, &err));
            assert_ok(reference.ops->spectra_add(reference.b, s.x.reference, s.offset, s.stride,
                                                 s.n, s.heads, s.head_dim, theirs, 8 * skip, &err));
            free(x);
        }
        assert_ok(tested.ops->read(tested.b, ours, 0, found, sizeof *found * count, &err));
        assert_ok(
            reference.ops->read(reference.b, theirs, 0, expected, sizeof *expected * count, &err));
        for (size_t k = 0; k < skip; k++) assert_true(found[k] == 0);
        double *f = found + skip, *e = expected + skip;
        assert_spectra_close(f + l.power, e + l.power, s.heads, s.n, 1e-5);
        assert_spectra_close(f + l.squares, e + l.squares, s.heads, s.n, 2e-5);
        assert_spectra_close(f + l.normalised, e + l.normalised, s.heads, s.n, 1e-5);
        for (int k = 0; k < s.heads * s.head_dim; k++)
            assert_close(f[l.means + (size_t)k], e[l.means + (size_t)k], 1e-5, 1e-6);
        for (int h = 0; h < s.heads; h++)
            assert_close(f[l.energy + (size_t)h], e[l.energy + (size_t)h], 0, 1e-5);
        int bad = test_between(0, s.heads - 1), row = test_between(0, s.n - 1);
        float hole = test_between(0, 1) ? NAN : INFINITY;
        size_t at = s.offset + 4 * ((size_t)row * s.stride +
                                    (size_t)(bad * s.head_dim + test_between(0, s.head_dim - 1)));
        assert_ok(tested.ops->write(tested.b, s.x.tested, at, &hole, 4, &err));
        assert_ok(tested.ops->spectra_add(tested.b, s.x.tested, s.offset, s.stride, s.n, s.heads,
                                          s.head_dim, ours, 8 * skip, &err));
        assert_ok(tested.ops->read(tested.b, ours, 0, found, sizeof *found * count, &err));
        for (int h = 0; h < s.heads; h++)
            assert_int_equal(!isfinite(f[l.energy + (size_t)h]), h == bad);
        tested.ops->buffer_release(tested.b, ours);
        reference.ops->buffer_release(reference.b, theirs);
        free(zero), free(found), free(expected);
        release(s.x);
    }
}

/* Whatever the order in which threads run. */
TEST(sums_repeat_to_the_bit) {
    for (int i = 0; i < size_count(); i++) {
        struct states s = random_states(sizes[i], test_normal());
        size_t bytes = fkv_spectra_layout(s.heads, s.n, s.head_dim).count * sizeof(double);
        double *zero = calloc(1, bytes), *sums[2];
        assert_non_null(zero);
        for (int turn = 0; turn < 2; turn++) {
            struct fkv_buffer *buffer = upload(tested, zero, bytes);
            sums[turn] = doubles(bytes / sizeof(double));
            for (int segment = 0; segment < 2; segment++)
                assert_ok(tested.ops->spectra_add(tested.b, s.x.tested, s.offset, s.stride, s.n,
                                                  s.heads, s.head_dim, buffer, 0, &err));
            assert_ok(tested.ops->read(tested.b, buffer, 0, sums[turn], bytes, &err));
            tested.ops->buffer_release(tested.b, buffer);
        }
        assert_memory_equal(sums[0], sums[1], bytes);
        free(zero), free(sums[0]), free(sums[1]);
        release(s.x);
    }
}

TEST_GROUP(open_both, close_both)
