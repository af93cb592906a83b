/* The life of a chunk: against the matrices written down, and the memory that follows from the
 * schedule alone. */
#include "analyze/measure/impulse.h"

#include "kernels/matrix.h"
#include "kernels/blas.h"
#include "tests/unit/support.h"

/* A (L, n), column-major: sqrt(L/n) IDCT_L [I_L 0] DCT_n from the definition */
static double *operator_matrix(int n, int retained) {
    double *a = calloc((size_t)(n * retained), sizeof *a), pi = acos(-1);
    for (int j = 0; j < n; j++)
        for (int i = 0; i < retained; i++)
            for (int t = 0; t < retained; t++)
                a[j * retained + i] += sqrt((double)retained / n) * (t ? 2 : 1) /
                                       sqrt((double)n * retained) * cos(pi * t * (j + 0.5) / n) *
                                       cos(pi * t * (i + 0.5) / retained);
    return a;
}

TEST(rounds_are_products_of_the_operator) {
    assert_ok(fkv_blas_open(1, &err));
    for (int trial = 0; trial < 8; trial++) {
        struct fkv_schedule s;
        struct fkv_impulse x;
        int window = test_between(24, 120), sinks = test_between(0, 5), rounds = test_between(1, 4);
        double gamma = 0.2 + 0.6 * test_uniform();
        assert_ok(fkv_schedule_make(window, sinks, gamma, &s, &err));
        assert_ok(fkv_impulse_follow(&s, rounds, &x, &err));
        int l = s.retained, c = s.chunk;
        double *a = operator_matrix(s.n, l), *m = malloc((size_t)(l * c) * sizeof *m);
        double *next = malloc((size_t)(l * c) * sizeof *next),
               *gram = malloc((size_t)(c * c) * sizeof *gram);
        double *squares = malloc((size_t)c * sizeof *squares);
        memcpy(m, a + l * l, (size_t)(l * c) * sizeof *m);
        for (int k = 1; k <= rounds; k++) {
            const struct fkv_impulse_round *r = &x.round[k - 1];
            double gain = 0, sum = 0, of_squares = 0;
            for (int i = 0; i < l; i++) {
                double ones = 0;
                for (int j = 0; j < c; j++) ones += m[j * l + i];
                gain = fmax(gain, ones);
                assert_close(x.chunk[(k - 1) * l + i], ones, 1e-5, 0);
                assert_close(x.token[(k - 1) * l + i], m[c / 2 * l + i], 1e-5, 0);
            }
            assert_close(r->gain, gain, 1e-5, 0);
            assert_close(r->slots_left, c * pow((double)l / s.n, k), 0, 1e-12);
            assert_close(r->tokens_since, k * c, 0, 0);
            fkv_matrix_gram(m, l, c, false, gram);
            assert_ok(fkv_matrix_eigen(gram, c, false, squares, &err));
            int above = 0, near = 0; /* near: so close to 1% that rounding decides */
            for (int i = 0; i < c; i++) {
                double singular = sqrt(fmax(squares[i], 0) / squares[c - 1]);
                above += singular > 0.01, near += fabs(singular - 0.01) < 1e-4;
                sum += squares[i], of_squares += squares[i] * squares[i];
            }
            assert_close(r->rank, above, near, 0);
            assert_close(r->participation, sum * sum / of_squares, 0, 1e-4);
            fkv_matrix_product(a, false, m, l, c, l, next);
            double *swap = m;
            m = next, next = swap;
        }
        fkv_impulse_free(&x);
        free(a), free(m), free(next), free(gram), free(squares);
    }
    fkv_blas_close(1);
}

TEST(the_horizon_is_what_the_schedule_says) {
    const struct { double gamma, horizon; } cases[] = {{0.25, 15343}, {0.5, 22503}, {0.75, 28552}};
    for (int i = 0; i < 3; i++) {
        struct fkv_schedule s;
        assert_ok(fkv_schedule_make(4096, 4, cases[i].gamma, &s, &err));
        assert_close(s.horizon, cases[i].horizon, 1, 0);
        assert_close(s.retained * pow((double)s.retained / s.n, s.horizon_rounds), 1, 0,
                     1e-9); /* one slot of all L */
    }
}

/* Slot j of the compressed stands at (j + 1/2) n/L - 1/2 of the old slots: a token's response stays
 * there through every round, gets no narrower, and is never spread over more directions than there
 * are slots. */
TEST(a_token_stays_where_the_maps_slots_are) {
    for (double gamma = 0.25; gamma < 1; gamma += 0.25) {
        struct fkv_schedule s;
        struct fkv_impulse x;
        assert_ok(fkv_schedule_make(516, 4, gamma, &s, &err));
        assert_ok(fkv_impulse_follow(&s, 0, &x, &err));
        assert_int_equal(x.rounds, (int)ceil(s.horizon_rounds));
        double place = s.retained + s.chunk / 2;
        for (int k = 0; k < x.rounds; k++) {
            const struct fkv_impulse_round *r = &x.round[k];
            place = (place + 0.5) * s.retained / s.n - 0.5;
            if (r->slots_left >= 2) assert_close(r->centre, place, 0.5, 0);
            if (r->slots_left >= 8) {
                assert_in_range(1000 * r->width, 1000, 3000);
                assert_in_range(1000 * r->gain, 950, 1200);
            }
            assert_close(r->width_tokens, r->width * pow((double)s.n / s.retained, k + 1), 0, 1e-9);
            assert_true(r->negative > 0 && r->negative < 0.5 && r->ringing > 0 && r->ringing < 1);
            assert_true(r->rank <= r->slots_left + 8 && r->rank >= floor(r->slots_left));
            assert_true(r->participation <= r->rank + 1e-6);
        }
        fkv_impulse_free(&x);
    }
}

TEST(what_has_no_schedule_is_refused) {
    struct fkv_schedule s;
    struct fkv_impulse x;
    assert_refused(fkv_schedule_make(6, 4, 0.5, &s, &err),
                   "4 sinks and at least three slots more, found 6");
    assert_refused(fkv_schedule_make(104, 4, 0.01, &s, &err),
                   "expected 2 to 99 retained slots of 100, found 1");
    assert_refused(fkv_schedule_make(104, 4, 1, &s, &err), "found 100");
    assert_ok(fkv_schedule_make(4096, 4, 0.999, &s, &err));
    assert_refused(fkv_impulse_follow(&s, 0, &x, &err), "the horizon is");
}
