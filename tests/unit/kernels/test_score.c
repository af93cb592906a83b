/* Scores and divergences against the reference: small and large vocabularies, ties, NaN and
 * infinities. */
#include "tests/unit/kernels/backend_support.h"

enum { ROUNDS = 2 * ROW_COUNTS };

/* Where there is but one row, a vocabulary as large as those of models, and odd. */
static int vocabulary(int round) {
    if (rows_of(round) == 1 && !small_sizes()) return 2 * test_between(16000, 76000) + 1;
    return test_between(1, small_sizes() ? 700 : 3000);
}

static void assert_same_number(double found, double expected, double absolute, double relative) {
    if (isnan(expected) || isinf(expected)) {
        if (!(isnan(expected) ? isnan(found) : found == expected))
            fail_msg("found %g, expected %g", found, expected);
        return;
    }
    assert_close(found, expected, absolute, relative);
}

static void scores_are_nats_and_the_first_largest_wins(void **state) {
    (void)state;
    for (int round = 0; round < ROUNDS; round++) {
        int rows = rows_of(round), vocab = vocabulary(round);
        struct fkv_attention_shape s = shape_of(round);
        reserve_both((struct fkv_limits){.rows = rows, .vocab = vocab, .attention = s});
        float *x = random_numbers((size_t)(rows * vocab), 0, pow(10, test_between(-1, 2)));
        int32_t *targets = malloc(sizeof *targets * (size_t)rows),
                *top = malloc(sizeof *top * (size_t)rows),
                *best = malloc(sizeof *best * (size_t)rows);
        double *nll = malloc(sizeof *nll * (size_t)rows),
               *expected = malloc(sizeof *expected * (size_t)rows);
        for (int r = 0; r < rows; r++) {
            float *row = x + r * vocab;
            targets[r] = test_between(0, vocab - 1);
            int kind = test_between(0, 5);
            if (kind == 0) row[test_between(0, vocab - 1)] = NAN;
            if (kind == 1)
                for (int i = 0; i < vocab; i++) row[i] = -INFINITY;
            if (kind == 2) row[test_between(0, vocab - 1)] = -INFINITY;
            if (kind == 3)
                row[test_between(0, vocab - 1)] = row[test_between(0, vocab - 1)] =
                    1e4f; /* a tie */
        }
        struct both logits = upload_both(x, (size_t)(rows * vocab));
        assert_ok(tested.ops->score(tested.b, logits.tested, targets, rows, vocab, nll, top, &err),
                  err);
        assert_ok(reference.ops->score(reference.b, logits.reference, targets, rows, vocab,
                                       expected, best, &err),
                  err);
        for (int r = 0; r < rows; r++) {
            assert_same_number(nll[r], expected[r], 1e-6, 1e-7);
            if (!isnan(expected[r])) assert_int_equal(top[r], best[r]);
        }
        assert_ok(tested.ops->score(tested.b, logits.tested, targets, rows, vocab, nll, NULL, &err),
                  err);
        release(logits);
        free(x), free(targets), free(top), free(best), free(nll), free(expected);
    }
}

static void divergence_is_in_float64_and_zero_for_equals(void **state) {
    (void)state;
    for (int round = 0; round < ROUNDS; round++) {
        int rows = rows_of(round), vocab = vocabulary(round);
        struct fkv_attention_shape s = shape_of(round);
        reserve_both((struct fkv_limits){.rows = rows, .vocab = vocab, .attention = s});
        double *kl = malloc(sizeof *kl * (size_t)rows),
               *expected = malloc(sizeof *expected * (size_t)rows);
        float *x = random_numbers((size_t)(rows * vocab), 0, 3),
              *y = numbers((size_t)(rows * vocab));
        double apart = pow(10, test_between(-4, 0));
        for (int i = 0; i < rows * vocab; i++) y[i] = x[i] + (float)(apart * test_normal());
        if (test_between(0, 1)) x[test_between(0, rows * vocab - 1)] = -INFINITY;
        struct both p = upload_both(x, (size_t)(rows * vocab)),
                    q = upload_both(y, (size_t)(rows * vocab));
        assert_ok(tested.ops->divergence(tested.b, p.tested, q.tested, rows, vocab, kl, &err), err);
        assert_ok(reference.ops->divergence(reference.b, p.reference, q.reference, rows, vocab,
                                            expected, &err),
                  err);
        for (int r = 0; r < rows; r++) assert_same_number(kl[r], expected[r], 1e-13, 1e-9);
        assert_ok(tested.ops->divergence(tested.b, q.tested, q.tested, rows, vocab, kl, &err), err);
        for (int r = 0; r < rows; r++) assert_close(kl[r], 0, 1e-13, 0);
        release(p), release(q);
        free(x), free(y), free(kl), free(expected);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scores_are_nats_and_the_first_largest_wins),
        cmocka_unit_test(divergence_is_in_float64_and_zero_for_equals),
    };
    return test_run(tests, open_both, close_both);
}
