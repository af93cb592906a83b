/* Ratios per head: from spectra whose answer is known, against trying every combination, and from a
 * capture of noise. */
#include "analyze/measure/gamma.h"

#include "analyze/measure/error.h"
#include "tests/unit/analyze/made_captures.h"

enum { K = FKV_RATIO_STEPS };

/* One layer; power [heads, n] of value(head, t) */
static struct fkv_spectrum spectrum_of(int heads, int n, double (*value)(int head, int t)) {
    struct fkv_spectrum s = {.layers = 1, .heads = heads, .n = n};
    s.layer_index = fkv_memory_take(&s.memory, 1, sizeof(int32_t));
    s.head_index = fkv_memory_take(&s.memory, (size_t)heads, sizeof(int32_t));
    s.power = fkv_memory_take(&s.memory, (size_t)(heads * n), sizeof(double));
    for (int i = 0; i < heads * n; i++) s.power[i] = value(i / n, i % n);
    return s;
}

static struct fkv_ratio_choice energy(double target, int n) {
    return (struct fkv_ratio_choice){.target = target, .cap = 1, .window = n + 4, .sinks = 4};
}

static struct fkv_ratio_choice budget(double target, int n) {
    struct fkv_ratio_choice c = energy(target, n);
    c.by_budget = true;
    return c;
}

/* Head h has energy in 1 <= t < 16 (h + 1), and a mean a thousand times as loud. */
static double band(int head, int t) { return t == 0 ? 1000 : t < 16 * (head + 1); }
static double flat(int head, int t) { return (void)head, (void)t, 1; }
static double scatter(int head, int t) {
    return (void)head, t ? test_uniform() * test_uniform() : 50;
}

TEST(a_band_limited_head_gets_its_bands_ratio) {
    enum { N = 256, HEADS = 6 };
    struct fkv_spectrum s = spectrum_of(HEADS, N, band), white = spectrum_of(HEADS, N, flat);
    struct fkv_ratio_table t;
    struct fkv_ratio_choice c = energy(1, N);
    assert_ok(fkv_ratio_table_make(&c, &s, &s, NULL, NULL, &t, &err));
    for (int h = 0; h < HEADS; h++) {
        assert_int_equal(t.parts[h], 4 * (h + 1));
        assert_int_equal(t.retained[h], 16 * (h + 1));
    }
    assert_int_equal(t.unreached, 0);
    assert_close(t.table_loss[FKV_LOSS_KEY], 0, 1e-12, 0);
    fkv_ratio_table_free(&t);

    c.target = 0.95, c.dc = true; /* the mean alone holds more than that: the first step will do */
    assert_ok(fkv_ratio_table_make(&c, &s, &s, NULL, NULL, &t, &err));
    assert_int_equal(t.parts[2], 1);
    fkv_ratio_table_free(&t);

    c = energy(0.5, N); /* the larger of keys and values */
    assert_ok(fkv_ratio_table_make(&c, &s, &white, NULL, NULL, &t, &err));
    for (int h = 0; h < HEADS; h++) assert_in_range(t.parts[h], 32, 33);
    fkv_ratio_table_free(&t);

    c = energy(1, N); /* white noise never keeps all */
    assert_ok(fkv_ratio_table_make(&c, &s, &white, NULL, NULL, &t, &err));
    assert_int_equal(t.unreached, HEADS);
    assert_int_equal(t.parts[0], K - 1);
    fkv_ratio_table_free(&t);
    fkv_spectrum_free(&s), fkv_spectrum_free(&white);
}

/* Keys and values alike: head 0 is done at 17/64, head 1 at 49/64. At a mean of 33/64 nothing is
 * lost; one ratio of 33/64 for both loses 31 of the 96 coefficients of head 1. */
static double two_bands(int head, int t) { return t >= 1 && t < (head ? 97 : 33); }

TEST(a_budget_worked_out_by_hand) {
    enum { N = 128 };
    struct fkv_spectrum s = spectrum_of(2, N, two_bands);
    struct fkv_ratio_choice c =
        budget(34.0 / 64, N); /* L = 2 k, DC among them: 17 and 49 parts, 2 to spare */
    struct fkv_ratio_table t;
    assert_ok(fkv_ratio_table_make(&c, &s, &s, NULL, NULL, &t, &err));
    assert_int_equal(t.parts[0], 17);
    assert_int_equal(t.parts[1], 49);
    assert_close(t.table_loss[FKV_LOSS_OBJECTIVE], 0, 1e-12, 0);
    assert_close(t.mean, 33.0 / 64, 1e-12, 0);
    assert_close(t.uniform_loss[FKV_LOSS_OBJECTIVE], 31.0 / 96 / 2, 1e-12, 0);
    fkv_ratio_table_free(&t);
    fkv_spectrum_free(&s);
}

/* Head h has energy in 1 <= t < 16 (h + 1): at one ratio for all, later heads lose more. */
TEST(heads_that_lose_most_go_to_local) {
    enum { N = 256, HEADS = 6 };
    struct fkv_spectrum s = spectrum_of(HEADS, N, band);
    struct fkv_ratio_choice c = energy(0.01, N);
    struct fkv_ratio_table t;
    c.floor = c.cap = 0.125; /* L = 32: heads 0 and 1 keep all, head 2 keeps 31 of 47 */
    c.mixed = FKV_MIXED_WORST, c.mixed_share = 0.5;
    assert_ok(fkv_ratio_table_make(&c, &s, &s, NULL, NULL, &t, &err));
    assert_int_equal(t.local_heads, 3);
    for (int h = 0; h < HEADS; h++) assert_int_equal(t.local[h], h >= 3);
    fkv_ratio_table_free(&t);
    c.mixed = FKV_MIXED_ENERGY, c.mixed_share = 31.0 / 47;
    assert_ok(fkv_ratio_table_make(&c, &s, &s, NULL, NULL, &t, &err));
    for (int h = 0; h < HEADS; h++) assert_int_equal(t.local[h], h >= 3);
    fkv_ratio_table_free(&t);
    c.mixed_share = 0.7;
    assert_ok(fkv_ratio_table_make(&c, &s, &s, NULL, NULL, &t, &err));
    assert_int_equal(t.local_heads, 4);
    fkv_ratio_table_free(&t);
    c.mixed = FKV_MIXED_NONE;
    assert_ok(fkv_ratio_table_make(&c, &s, &s, NULL, NULL, &t, &err));
    assert_int_equal(t.local_heads, 0);
    fkv_ratio_table_free(&t);
    fkv_spectrum_free(&s);
}

TEST(a_budget_loses_least_of_all_combinations) {
    enum { HEADS = 3 };
    for (int trial = 0; trial < 6; trial++) {
        int n = test_between(20, 300);
        struct fkv_spectrum key = spectrum_of(HEADS, n, scatter),
                            value = spectrum_of(HEADS, n, scatter);
        struct fkv_ratio_choice c = budget(0.2 + 0.6 * test_uniform(), n);
        struct fkv_ratio_table t;
        c.objective = trial % 2 ? FKV_OBJECTIVE_ABSOLUTE : FKV_OBJECTIVE_RELATIVE;
        c.floor = 0.1, c.cap = 0.9;
        assert_ok(fkv_ratio_table_make(&c, &key, &value, NULL, NULL, &t, &err));
        double best = INFINITY;
        int total = (int)(c.target * K * HEADS), low = 7, high = 57; /* ceil(6.4), floor(57.6) */
        const double *loss = t.loss[FKV_LOSS_OBJECTIVE];
        for (int i = low; i <= high; i++)
            for (int j = low; j <= high; j++)
                for (int k = low; k <= high && i + j + k <= total; k++)
                    best = fmin(best, loss[i] + loss[K + 1 + j] + loss[2 * (K + 1) + k]);
        assert_close(t.table_loss[FKV_LOSS_OBJECTIVE], best / HEADS, 1e-12, 1e-12);
        assert_true(t.table_loss[FKV_LOSS_OBJECTIVE] <= t.uniform_loss[FKV_LOSS_OBJECTIVE] + 1e-12);
        assert_true(t.mean <= c.target + 1e-12);
        fkv_ratio_table_free(&t);
        fkv_spectrum_free(&key), fkv_spectrum_free(&value);
    }
}

/* Both from the same spectrum: a loss is the square of the relative error without DC. */
TEST(losses_are_those_of_error) {
    int n = test_between(64, 200);
    struct fkv_spectrum s = spectrum_of(2, n, scatter);
    struct fkv_ratio_choice c = budget(0.5, n);
    struct fkv_ratio_table t;
    assert_ok(fkv_ratio_table_make(&c, &s, &s, NULL, NULL, &t, &err));
    for (int h = 0; h < 2; h++)
        for (int k = 1; k <= K; k++) {
            assert_null(t.loss[FKV_LOSS_PROJECTED]);
            double kept =
                fkv_retained_energy(s.power + h * n, n, (int32_t)((int64_t)k * n / K), true);
            assert_close(t.loss[FKV_LOSS_KEY][h * (K + 1) + k], 1 - kept, 1e-9, 0);
        }
    fkv_ratio_table_free(&t);
    fkv_spectrum_free(&s);
}

TEST(what_cannot_be_chosen_is_refused) {
    struct fkv_spectrum s = spectrum_of(2, 128, flat);
    struct fkv_ratio_table t;
    struct fkv_ratio_choice c = budget(0.05, 128);
    c.floor = 0.1;
    assert_refused(fkv_ratio_table_make(&c, &s, &s, NULL, NULL, &t, &err),
                   "--budget 0.05: expected 0.109375 or more");
    c = budget(0.5, 128);
    c.floor = 0.501, c.cap = 0.502;
    assert_refused(fkv_ratio_table_make(&c, &s, &s, NULL, NULL, &t, &err), "multiple of 1/64");
    c = budget(0.5, 128);
    c.window = 5;
    assert_refused(fkv_ratio_table_make(&c, &s, &s, NULL, NULL, &t, &err),
                   "4 sinks and at least two slots more, found 5");
    fkv_ratio_table_free(&t);
    fkv_spectrum_free(&s);
}

/* A window of few slots: no ratio may keep none of them, and the table's L are the window's, not
 * the segment's. */
TEST(ratios_are_for_the_window_that_was_asked_for) {
    struct fkv_spectrum s = spectrum_of(4, 256, band);
    struct fkv_ratio_choice c = energy(1, 256);
    struct fkv_ratio_table t;
    c.window = 24, c.sinks = 4;
    assert_ok(fkv_ratio_table_make(&c, &s, &s, NULL, NULL, &t, &err));
    for (int h = 0; h < 4; h++) {
        int k = 4 * (h + 1);
        assert_int_equal(t.parts[h], k);
        assert_int_equal(t.retained[h], k * 20 / K);
    }
    fkv_ratio_table_free(&t);
    fkv_spectrum_free(&s);
}

TEST_IN_FOLDER(white_noise_gets_the_share_that_is_asked_for) {
    char path[300];
    struct made m = made_keys(1, 2, 16, 4 + 4 * 512, made_white);
    m.states = 3, m.trained_context = 516;
    struct fkv_spectrum key, value;
    struct fkv_ratio_table t;
    made_seed = test_random();
    snprintf(path, sizeof path, "%s/capture", folder);
    made_write(&m, path);
    assert_ok(made_measure(path, FKV_STATE_KEY, 0, -1, false, &key, &err));
    assert_ok(made_measure(path, FKV_STATE_VALUE, 0, -1, false, &value, &err));
    for (double target = 0.25; target < 1; target += 0.25) {
        struct fkv_ratio_choice c = energy(target, 512);
        assert_ok(fkv_ratio_table_make(&c, &key, &value, NULL, NULL, &t, &err));
        for (int h = 0; h < 2; h++) assert_in_range(t.parts[h], target * K - 1, target * K + 3);
        fkv_ratio_table_free(&t);
    }
    fkv_spectrum_free(&key), fkv_spectrum_free(&value);
}
