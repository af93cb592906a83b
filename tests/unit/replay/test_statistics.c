/* The bootstrap: against numbers computed with numpy, against theory, and its pairing. */
#include "tests/unit/support.h"

#include "replay/random.h"
#include "replay/statistics.h"

/* splitmix64 of seed 0: the published test vector (Vigna, prng.di.unimi.it) */
static void the_generator_is_splitmix64(void **state) {
    (void)state;
    struct fkv_random random = {0};
    assert_true(fkv_random_next(&random) == 0xe220a8397b1dcdafu);
    assert_true(fkv_random_next(&random) == 0x6e789e6aa1b965f4u);
    assert_true(fkv_random_next(&random) == 0x06c45d188009454fu);
}

static void draws_below_n_are_uniform(void **state) {
    (void)state;
    struct fkv_random random = {test_random()};
    int n = test_between(2, 40), draws = 20000 * n, count[40] = {0};
    double sum = 0;
    for (int i = 0; i < draws; i++) {
        uint64_t k = fkv_random_below(&random, (uint64_t)n);
        assert_true(k < (uint64_t)n);
        count[k]++;
        double u = fkv_random_uniform(&random);
        assert_true(u >= 0 && u < 1);
        sum += u;
    }
    for (int k = 0; k < n; k++) assert_frequency(count[k], draws, 1.0 / n);
    assert_close(sum, draws / 2.0, test_chance(draws / 12.0), 0);
}

/* tests/e2e/check_protocols.py, bootstrap_se([1.5, 10, 3.25, 0.75], [1, 4, 2, 1]) and of the differences [0.5, -1, 0.25, 0.25] */
static void the_standard_error_is_what_plain_python_computes(void **state) {
    (void)state;
    const struct fkv_sums units[] = {
        {.count = 1, .nll = 1.5, .baseline_nll = 1},
        {.count = 4, .nll = 10, .baseline_nll = 11},
        {.count = 2, .nll = 3.25, .baseline_nll = 3},
        {.count = 1, .nll = 0.75, .baseline_nll = 0.5},
    };
    assert_close(fkv_bootstrap_se(units, 4, FKV_MEAN_NLL), 0.3479514372609816, 0, 1e-12);
    assert_close(fkv_bootstrap_se(units, 4, FKV_DELTA_NLL), 0.1645849935842874, 0, 1e-12);
}

static void the_standard_error_of_a_mean_is_deviation_over_root_n(void **state) {
    (void)state;
    static struct fkv_sums units[2000];
    double deviation = 1 + 4 * test_uniform(), sum = 0, squares = 0;
    for (int i = 0; i < 2000; i++) {
        double x = deviation * test_normal();
        sum += x, squares += x * x;
        units[i] = (struct fkv_sums){.count = 1, .nll = 100 + x};
    }
    /* 1,000 resamples know the standard error of these numbers to 1 / sqrt(2000), or 2.2 %: seven times that */
    double expected = sqrt(squares - sum * sum / 2000) / 2000;
    assert_close(fkv_bootstrap_se(units, 2000, FKV_MEAN_NLL), expected, 0, 0.157);
}

static void intervals_cover_the_truth_as_often_as_they_say(void **state) {
    (void)state;
    struct fkv_sums units[30];
    int covered = 0, trials = 2000;
    for (int t = 0; t < trials; t++) {
        double sum = 0;
        for (int i = 0; i < 30; i++) sum += units[i].nll = 3 + test_normal(), units[i].count = 1;
        covered += fabs(sum / 30 - 3) < 1.96 * fkv_bootstrap_se(units, 30, FKV_MEAN_NLL);
    }
    /* 93.6 % and not 95 %: with 30 units the deviation is small by sqrt(29/30), and 1.96 is not Student's 2.05. */
    assert_frequency(covered, trials, 0.936);
}

static void a_difference_is_paired(void **state) {
    (void)state;
    struct fkv_sums units[40];
    for (int i = 0; i < 40; i++) { /* texts differ wildly, the policy costs each token the same */
        int64_t count = test_between(1, 300);
        double nll = (double)count * (3 + test_normal());
        units[i] = (struct fkv_sums){.count = count, .nll = nll + 0.125 * (double)count, .baseline_nll = nll};
    }
    assert_close(fkv_bootstrap_se(units, 40, FKV_DELTA_NLL), 0, 1e-12, 0);
    assert_true(fkv_bootstrap_se(units, 40, FKV_MEAN_NLL) > 0.01);
}

static void fewer_than_two_units_have_no_error(void **state) {
    (void)state;
    struct fkv_sums unit = {.count = 3, .nll = 1};
    assert_true(isnan(fkv_bootstrap_se(&unit, 1, FKV_MEAN_NLL)));
    assert_true(isnan(fkv_bootstrap_se(&unit, 0, FKV_MEAN_NLL)));
    assert_true(isnan(fkv_mean(0, 0)));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_generator_is_splitmix64),
        cmocka_unit_test(draws_below_n_are_uniform),
        cmocka_unit_test(the_standard_error_is_what_plain_python_computes),
        cmocka_unit_test(the_standard_error_of_a_mean_is_deviation_over_root_n),
        cmocka_unit_test(intervals_cover_the_truth_as_often_as_they_say),
        cmocka_unit_test(a_difference_is_paired),
        cmocka_unit_test(fewer_than_two_units_have_no_error),
    };
    return test_run(tests, NULL, NULL);
}
