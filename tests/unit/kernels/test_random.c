/* The generator: against its published numbers, and what is drawn from it. */
#include "tests/unit/support.h"

#include "kernels/statistics/random.h"

/* splitmix64 of seed 0: the published test vector (Vigna, prng.di.unimi.it) */
TEST(the_generator_is_splitmix64) {
    struct fkv_random random = {0};
    assert_true(fkv_random_next(&random) == 0xe220a8397b1dcdafu);
    assert_true(fkv_random_next(&random) == 0x6e789e6aa1b965f4u);
    assert_true(fkv_random_next(&random) == 0x06c45d188009454fu);
}

TEST(draws_below_n_are_uniform) {
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
    assert_close(sum, 0.5 * draws, test_chance(draws / 12.0), 0);
}
