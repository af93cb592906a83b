/* Sampling from logits: greedy, its limits, and frequencies. */
#include "tests/unit/support.h"

#include "replay/generate/generate.h"

enum { VOCAB = 17 };

TEST(temperature_zero_takes_the_first_of_the_largest_and_draws_nothing) {
    float logits[VOCAB] = {0, 2, 5, 1, 5};
    struct fkv_random random = {7};
    assert_int_equal(fkv_sample(logits, VOCAB, 0, &random), 2);
    assert_true(random.state == 7);
}

TEST(samples_follow_the_softmax_at_their_temperature) {
    float logits[VOCAB];
    double temperature = 0.3 + 2 * test_uniform(), sum = 0;
    int draws = 200000, count[VOCAB] = {0};
    struct fkv_random random = {test_random()};
    test_fill(logits, VOCAB, 50, 2);
    for (int i = 0; i < VOCAB; i++) sum += exp((logits[i] - 50) / temperature);
    for (int i = 0; i < draws; i++) count[fkv_sample(logits, VOCAB, temperature, &random)]++;
    for (int i = 0; i < VOCAB; i++) {
        double p = exp((logits[i] - 50) / temperature) / sum;
        assert_frequency(count[i], draws, p);
    }
}

TEST(a_seed_repeats_its_samples) {
    float logits[VOCAB];
    test_fill(logits, VOCAB, 0, 1);
    struct fkv_random a = {test_random()}, b = a;
    for (int i = 0; i < 100; i++)
        assert_int_equal(fkv_sample(logits, VOCAB, 1, &a), fkv_sample(logits, VOCAB, 1, &b));
}

TEST(impossible_tokens_are_never_drawn) {
    float logits[VOCAB];
    for (int i = 0; i < VOCAB; i++) logits[i] = i == 5 || i == 9 ? 0 : -INFINITY;
    struct fkv_random random = {test_random()};
    for (int i = 0; i < 1000; i++) {
        int32_t id = fkv_sample(logits, VOCAB, 1.5, &random);
        assert_true(id == 5 || id == 9);
    }
    /* so cold that only the largest has mass at all, yet nothing overflows */
    float spread[VOCAB] = {-3e38f, 3e38f};
    assert_int_equal(fkv_sample(spread, VOCAB, 1e-30, &random), 1);
}

TEST(logits_that_are_not_finite_are_refused) {
    float logits[VOCAB] = {1, 2, NAN};
    struct fkv_random random = {0};
    assert_int_equal(fkv_sample(logits, VOCAB, 0, &random), -1);
    for (int i = 0; i < VOCAB; i++) logits[i] = -INFINITY;
    assert_int_equal(fkv_sample(logits, VOCAB, 1, &random), -1);
    logits[3] = INFINITY;
    assert_int_equal(fkv_sample(logits, VOCAB, 1, &random), -1);
}
