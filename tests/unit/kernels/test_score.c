/* Scores and divergences, joined over panels, against the reference: small and large vocabularies,
 * cut anywhere, ties, NaN and infinities. */
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

static int compare_ints(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }

/* Where panels start and the last one ends, ascending: a few cuts anywhere, or none. */
enum { MOST_CUTS = 3 };
static int cut_panels(int vocab, int cuts[MOST_CUTS + 2]) {
    int count = 0;
    cuts[count++] = 0;
    for (int i = test_between(0, vocab > 1 ? MOST_CUTS : 0); i > 0; i--)
        cuts[count++] = test_between(1, vocab - 1);
    qsort(cuts, (size_t)count, sizeof *cuts, compare_ints);
    int kept = 1;
    for (int i = 1; i < count; i++)
        if (cuts[i] > cuts[kept - 1]) cuts[kept++] = cuts[i];
    cuts[kept] = vocab;
    return kept;
}

/* Columns [first, first+width) of x [rows, vocab] on both backends. */
static struct both upload_panel(const float *x, int rows, int vocab, int first, int width) {
    float *panel = numbers((size_t)rows * (size_t)width);
    for (int r = 0; r < rows; r++)
        memcpy(panel + (size_t)r * (size_t)width, x + (size_t)r * (size_t)vocab + (size_t)first,
               (size_t)width * sizeof *panel);
    struct both both = upload_both(panel, (size_t)rows * (size_t)width);
    free(panel);
    return both;
}

/* Likelihoods [rows] over the panels between the cuts. */
static void score_panels(const float *x, const int32_t *targets, int rows, int vocab,
                         struct fkv_likelihood *found, struct fkv_likelihood *expected) {
    struct fkv_likelihood *panel = malloc((size_t)rows * sizeof *panel);
    int cuts[MOST_CUTS + 2], panels = cut_panels(vocab, cuts);
    for (int r = 0; r < rows; r++) found[r] = expected[r] = fkv_likelihood_none();
    for (int i = 0; i < panels; i++) {
        const int first = cuts[i], width = cuts[i + 1] - first;
        struct both z = upload_panel(x, rows, vocab, first, width);
        assert_ok(tested.ops->score(tested.b, z.tested, first, width, targets, rows, panel, &err));
        for (int r = 0; r < rows; r++) fkv_likelihood_join(&found[r], &panel[r]);
        release(z);
    }
    struct both z = upload_panel(x, rows, vocab, 0, vocab);
    assert_ok(reference.ops->score(reference.b, z.reference, 0, vocab, targets, rows, panel, &err));
    for (int r = 0; r < rows; r++) fkv_likelihood_join(&expected[r], &panel[r]);
    release(z);
    free(panel);
}

/* A row's likelihoods and gap. */
struct compared {
    struct fkv_likelihood p, q;
    double gap;
};

static void compare_panels(const struct fkv_backend_ops *ops, struct fkv_backend *b, bool on_tested,
                           const float *x, const float *y, const int32_t *targets, int rows,
                           int vocab, struct compared *found) {
    struct fkv_likelihood *p = malloc((size_t)rows * sizeof *p),
                          *q = malloc((size_t)rows * sizeof *q);
    double *gap = malloc((size_t)rows * sizeof *gap);
    int cuts[MOST_CUTS + 2], panels = cut_panels(vocab, cuts);
    for (int r = 0; r < rows; r++)
        found[r] = (struct compared){fkv_likelihood_none(), fkv_likelihood_none(), 0};
    for (int i = 0; i < panels; i++) {
        const int first = cuts[i], width = cuts[i + 1] - first;
        struct both z = upload_panel(x, rows, vocab, first, width),
                    w = upload_panel(y, rows, vocab, first, width);
        assert_ok(ops->compare(b, on_tested ? z.tested : z.reference,
                               on_tested ? w.tested : w.reference, first, width, targets, rows, p,
                               q, gap, &err));
        for (int r = 0; r < rows; r++) {
            fkv_gap_join(&found[r].gap, &found[r].p, gap[r], &p[r]);
            fkv_likelihood_join(&found[r].p, &p[r]);
            fkv_likelihood_join(&found[r].q, &q[r]);
        }
        release(z), release(w);
    }
    free(p), free(q), free(gap);
}

static double divergence_of(const struct compared *c) {
    return fkv_likelihood_divergence(&c->p, &c->q, c->gap);
}

/* sum of p (log p - log q) over one row, by its definition. */
static double divergence_by_definition(const float *x, const float *y, int vocab) {
    double x_sum = 0, y_sum = 0, kl = 0;
    for (int i = 0; i < vocab; i++) x_sum += exp((double)x[i]), y_sum += exp((double)y[i]);
    for (int i = 0; i < vocab; i++) {
        const double p = exp((double)x[i]) / x_sum;
        if (p > 0) kl += p * ((x[i] - log(x_sum)) - (y[i] - log(y_sum)));
    }
    return kl;
}

TEST(scores_are_nats_and_the_first_largest_wins) {
    for (int round = 0; round < ROUNDS; round++) {
        int rows = rows_of(round), vocab = vocabulary(round);
        struct fkv_attention_shape s = shape_of(round);
        reserve_both((struct fkv_limits){.rows = rows, .vocab = vocab, .attention = s});
        float *x = random_numbers((size_t)(rows * vocab), 0, pow(10, test_between(-1, 2)));
        int32_t *targets = malloc(sizeof *targets * (size_t)rows);
        struct fkv_likelihood *found = malloc(sizeof *found * (size_t)rows),
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
        score_panels(x, targets, rows, vocab, found, expected);
        for (int r = 0; r < rows; r++) {
            const double nll = fkv_likelihood_nll(&expected[r]);
            assert_same_number(fkv_likelihood_nll(&found[r]), nll, 1e-6, 1e-7);
            if (!isnan(nll)) assert_int_equal(found[r].top1, expected[r].top1);
        }
        free(x), free(targets), free(found), free(expected);
    }
}

TEST(divergence_is_in_float64_and_zero_for_equals) {
    for (int round = 0; round < ROUNDS; round++) {
        int rows = rows_of(round), vocab = vocabulary(round);
        struct fkv_attention_shape s = shape_of(round);
        reserve_both((struct fkv_limits){.rows = rows, .vocab = vocab, .attention = s});
        struct compared *found = malloc(sizeof *found * (size_t)rows),
                        *expected = malloc(sizeof *expected * (size_t)rows);
        int32_t *targets = calloc((size_t)rows, sizeof *targets);
        float *x = random_numbers((size_t)(rows * vocab), 0, 3),
              *y = numbers((size_t)(rows * vocab));
        double apart = pow(10, test_between(-4, 0));
        for (int i = 0; i < rows * vocab; i++) y[i] = x[i] + (float)(apart * test_normal());
        if (vocab > 1 && test_between(0, 1)) /* no row of -inf alone, which predicts nothing */
            x[test_between(0, rows * vocab - 1)] = -INFINITY;
        compare_panels(tested.ops, tested.b, true, x, y, targets, rows, vocab, found);
        compare_panels(reference.ops, reference.b, false, x, y, targets, rows, vocab, expected);
        for (int r = 0; r < rows; r++) {
            const size_t row = (size_t)r * (size_t)vocab;
            const double kl = divergence_of(&found[r]);
            assert_same_number(kl, divergence_of(&expected[r]), 1e-13, 1e-9);
            assert_same_number(kl, divergence_by_definition(x + row, y + row, vocab), 1e-13, 1e-9);
            assert_same_number(fkv_likelihood_nll(&found[r].p), fkv_likelihood_nll(&expected[r].p),
                               1e-6, 1e-7);
            assert_same_number(fkv_likelihood_nll(&found[r].q), fkv_likelihood_nll(&expected[r].q),
                               1e-6, 1e-7);
        }
        compare_panels(tested.ops, tested.b, true, y, y, targets, rows, vocab, found);
        for (int r = 0; r < rows; r++) assert_close(divergence_of(&found[r]), 0, 1e-13, 0);
        free(x), free(y), free(found), free(expected), free(targets);
    }
}

TEST_GROUP(open_both, close_both)
