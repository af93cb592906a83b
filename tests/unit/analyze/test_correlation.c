/* Correlations against what is known of them: ties, monotone functions, independence, and how often
 * a 95% interval holds the truth. */
#include "kernels/statistics/correlation.h"

#include "analyze/link/token_classes.h"
#include "tests/unit/support.h"

/* Spearman from counts of smaller and equal values, O(n^2): no sorting to get wrong. */
static double spearman_by_counting(int n, const double *x, const double *y) {
    double rx[64], ry[64];
    for (int i = 0; i < n; i++) {
        rx[i] = ry[i] = 0.5;
        for (int k = 0; k < n; k++) {
            rx[i] += (x[k] < x[i]) + 0.5 * (x[k] == x[i]);
            ry[i] += (y[k] < y[i]) + 0.5 * (y[k] == y[i]);
        }
    }
    double mean = (n + 1) / 2.0, xx = 0, yy = 0, xy = 0;
    for (int i = 0; i < n; i++) {
        xx += (rx[i] - mean) * (rx[i] - mean), yy += (ry[i] - mean) * (ry[i] - mean);
        xy += (rx[i] - mean) * (ry[i] - mean);
    }
    return xy / sqrt(xx * yy);
}

TEST(ranks_share_ties_and_give_the_definition_of_spearman) {
    for (int round = 0; round < 200; round++) {
        double x[64], y[64], rx[64], ry[64];
        int32_t order[64];
        int n = test_between(3, 64), values = test_between(2, 80);
        for (int i = 0; i < n; i++)
            x[i] = test_between(0, values), y[i] = x[i] + test_between(0, values);
        x[0] = -1, y[0] = -1; /* never constant */
        fkv_ranks(n, x, rx, order);
        fkv_ranks(n, y, ry, order);
        assert_close(fkv_pearson(n, rx, ry), spearman_by_counting(n, x, y), 1e-12, 0);
    }
}

TEST(what_does_not_vary_has_no_correlation) {
    const double x[] = {1e9 + 0.1, 1e9 + 0.1, 1e9 + 0.1, 1e9 + 0.1}, y[] = {1, 2, 3, 4};
    assert_true(isnan(fkv_pearson(4, x, y)));
    assert_true(isnan(fkv_pearson(2, y, y)));
    assert_close(fkv_pearson(4, y, y), 1, 1e-15, 0);
}

/* Of so many documents of one block each; one: nothing to resample. */
static struct fkv_units units_of(int documents) {
    int64_t blocks[64];
    struct fkv_units units;
    for (int d = 0; d < documents; d++) blocks[d] = 1;
    assert_ok(fkv_units_make(blocks, documents, false, &units, &err));
    return units;
}

/* One unit: y is what it is. */
static struct fkv_correlation correlate_one(int n, const double *x, const double *y,
                                            const double *z, bool falling) {
    const double one = 1;
    struct fkv_correlation found;
    struct fkv_units units = units_of(1);
    const struct fkv_correlation_task task = {.points = n,
                                              .predictors = 1,
                                              .falling = falling,
                                              .x = x,
                                              .z = z,
                                              .units = &units,
                                              .sums = y,
                                              .counts = &one};
    assert_ok(fkv_correlate(&task, &found, &err));
    fkv_units_free(&units);
    return found;
}

TEST(a_monotone_function_has_rank_correlation_one) {
    double x[40], y[40];
    for (int i = 0; i < 40; i++) x[i] = test_normal(), y[i] = exp(3 * x[i]) - 7;
    struct fkv_correlation found = correlate_one(40, x, y, NULL, false);
    assert_close(found.spearman.estimate, 1, 1e-12, 0);
    assert_close(found.spearman.low, 1, 1e-12, 0);
    assert_true(found.pearson.estimate < 0.999);
    assert_int_equal(found.place, 1);
    assert_true(isnan(found.spearman_units.estimate)); /* one unit says nothing about texts */
    assert_true(isnan(found.partial.estimate));
}

/* y depends on z alone, x follows z: nothing is left once z is known, and 0.2 is eight standard
 * errors of that. */
TEST(a_partial_correlation_takes_out_what_depth_explains) {
    enum { N = 1600 };
    double x[N], y[N], z[N];
    for (int i = 0; i < N; i++)
        z[i] = 10 * i / N, x[i] = z[i] + test_normal(), y[i] = z[i] + test_normal();
    struct fkv_correlation found = correlate_one(N, x, y, z, false);
    assert_true(found.spearman.low > 0.7);
    if (!(fabs(found.partial.estimate) < 0.2)) fail_msg("partial %g", found.partial.estimate);
    assert_close(fkv_partial_correlation(0.5, 0.5, 0.5), (0.5 - 0.25) / 0.75, 1e-15, 0);
}

TEST(predictors_are_ranked_in_the_direction_expected) {
    enum { N = 30 };
    double x[3 * N], y[N];
    const double one = 1;
    struct fkv_correlation found[3];
    for (int i = 0; i < N; i++) {
        y[i] = i;
        x[i] = i + 4 * test_normal(), x[N + i] = -i, x[2 * N + i] = i == 3 ? NAN : i;
    }
    struct fkv_units units = units_of(1);
    struct fkv_correlation_task task = {
        .points = N, .predictors = 3, .x = x, .units = &units, .sums = y, .counts = &one};
    assert_ok(fkv_correlate(&task, found, &err));
    assert_int_equal(found[0].place, 1);
    assert_int_equal(found[1].place, 2);
    assert_int_equal(found[2].place, 0); /* not everywhere a number */
    assert_close(found[0].behind.estimate, 0, 0, 0);
    assert_close(found[1].behind.estimate, found[0].spearman.estimate + 1, 1e-12, 0);
    assert_true(found[1].behind.low > 0.5);
    task.falling = true;
    assert_ok(fkv_correlate(&task, found, &err));
    assert_int_equal(found[1].place, 1);
    fkv_units_free(&units);
}

/* Fixed seeds: what is tested is the method, not luck. */
TEST(intervals_of_independent_and_of_related_numbers_cover_as_stated) {
    enum { N = 48 };
    const int trials = small_sizes() ? 20 : 400;
    const double rho[2] = {0, 0.6};
    uint64_t saved = test_state;
    for (int r = 0; r < 2; r++) {
        int spearman = 0, pearson = 0;
        double true_spearman =
            6 / acos(-1) * asin(rho[r] / 2); /* of a bivariate normal (Pearson 1907) */
        test_state = 77 + (uint64_t)r;
        for (int trial = 0; trial < trials; trial++) {
            double x[N], y[N];
            for (int i = 0; i < N; i++) {
                x[i] = test_normal();
                y[i] = rho[r] * x[i] + sqrt(1 - rho[r] * rho[r]) * test_normal();
            }
            struct fkv_correlation found = correlate_one(N, x, y, NULL, false);
            spearman += found.spearman.low <= true_spearman && true_spearman <= found.spearman.high;
            pearson += found.pearson.low <= rho[r] && rho[r] <= found.pearson.high;
        }
        printf("rho %g: covered by %.1f%% (Spearman) and %.1f%% (Pearson) of %d intervals\n",
               rho[r], 100.0 * spearman / trials, 100.0 * pearson / trials, trials);
        if (small_sizes()) continue; /* too few to count */
        assert_in_range(spearman, trials * 90 / 100, trials * 98 / 100);
        assert_in_range(pearson, trials * 90 / 100, trials * 98 / 100);
    }
    test_state = saved;
}

TEST(intervals_of_ratios_cover_as_stated) {
    enum { UNITS = 40 };
    const int trials = small_sizes() ? 20 : 1000;
    uint64_t saved = test_state;
    int covered = 0;
    double mean_se = 0, mean = 0, squares = 0;
    struct fkv_units units = units_of(UNITS);
    test_state = 5;
    for (int trial = 0; trial < trials; trial++) {
        double sums[UNITS], counts[UNITS], se;
        for (int u = 0; u < UNITS; u++) {
            counts[u] = test_between(100, 256);
            sums[u] = counts[u] * (0.3 + 0.2 * test_normal());
        }
        struct fkv_interval x = fkv_ratio_interval(&units, sums, counts, &se);
        covered += x.low <= 0.3 && 0.3 <= x.high;
        mean_se += se / trials, mean += x.estimate / trials,
            squares += x.estimate * x.estimate / trials;
    }
    printf("ratios: covered by %.1f%% of %d intervals\n", 100.0 * covered / trials, trials);
    test_state = saved;
    fkv_units_free(&units);
    if (small_sizes()) return; /* too few to count */
    assert_in_range(covered, trials * 90 / 100, trials * 98 / 100);
    assert_close(mean_se, sqrt(squares - mean * mean), 0, 0.1);
}

/* Two texts that rank the points in opposite ways: over texts everything is possible, over blocks
 * of them nothing of it is seen. */
TEST(intervals_over_texts_see_how_few_texts_differ) {
    enum { N = 12, BLOCKS = 20 };
    const int64_t two[] = {BLOCKS, BLOCKS}, one[] = {2 * BLOCKS};
    double x[N], sums[N * 2 * BLOCKS], counts[2 * BLOCKS];
    for (int b = 0; b < 2 * BLOCKS; b++) counts[b] = 1;
    for (int i = 0; i < N; i++) {
        x[i] = i;
        for (int b = 0; b < 2 * BLOCKS; b++) sums[i * 2 * BLOCKS + b] = b < BLOCKS ? 2 * i : -i;
    }
    double width[2];
    for (int k = 0; k < 2; k++) {
        struct fkv_units units;
        struct fkv_correlation found;
        assert_ok(fkv_units_make(k ? one : two, k ? 1 : 2, false, &units, &err));
        const struct fkv_correlation_task task = {
            .points = N, .predictors = 1, .x = x, .units = &units, .sums = sums, .counts = counts};
        assert_ok(fkv_correlate(&task, &found, &err));
        width[k] = found.spearman_units.high - found.spearman_units.low;
        fkv_units_free(&units);
    }
    assert_close(width[0], 2, 1e-9, 0);
    assert_true(width[1] < width[0]);
}
