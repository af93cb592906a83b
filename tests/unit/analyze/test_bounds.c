/* Other bases beside the DCT: where theory says which is best, and against the eigenvectors of the
 * whole matrix. */
#include "analyze/measure/bounds.h"

#include <omp.h>

#include "analyze/measure/error.h"
#include "kernels/matrix.h"
#include "kernels/blas.h"
#include "capture/store/capture_reader.h"
#include "tests/unit/analyze/made_folder.h"

enum { MOST = 8 << 10 };

static double series[8][16][MOST]; /* [recording][channel][t] */

static double from_series(int recording, enum fkv_state state, int layer, int64_t t, int head,
                          int channel) {
    (void)state, (void)layer, (void)head;
    return series[recording][channel][t];
}

static struct made one_head(int recordings, int tokens, int head_dim) {
    struct made m = {.layers = 1,
                     .heads = 1,
                     .query_group = 1,
                     .head_dim = head_dim,
                     .recordings = recordings,
                     .dtype = FKV_F32,
                     .states = 1,
                     .trained_context = tokens,
                     .value = from_series};
    for (int r = 0; r < recordings; r++) m.tokens[r] = tokens, m.document[r] = r;
    return m;
}

static void measure(const struct made *m, int n, const double *gamma, int gammas,
                    struct fkv_error_curves *e) {
    struct fkv_capture *capture;
    struct fkv_segment_plan plan;
    struct fkv_spectrum s;
    made_write(m, path);
    assert_ok(made_measure(path, FKV_STATE_KEY, n, 0, false, &s, &err));
    assert_ok(fkv_error_curves_make(&s, gamma, gammas, e, &err));
    assert_ok(fkv_capture_open(path, &capture, &err));
    assert_ok(fkv_spectrum_plan(capture, n, 0, &plan, &err));
    assert_ok(fkv_bounds_check(capture, &plan, &err));
    struct fkv_measurement work = {.capture = capture, .plan = &plan};
    assert_ok(fkv_bounds_measure(&work, e, &err));
    fkv_segment_plan_free(&plan);
    fkv_capture_close(capture);
    fkv_spectrum_free(&s);
}

/* The DCT-II is all but the KLT of a strongly correlated AR(1) process (Ahmed, Natarajan and Rao
 * 1974); that of a process about the highest frequency, it is not. */
TEST_WITH(an_autoregressive_process_needs_no_better_basis_than_the_dct, made_folder,
          remove_folder) {
    const double gamma[] = {0.1, 0.25, 0.5, 0.75};
    for (int sign = 1; sign >= -1; sign -= 2) {
        struct made m = one_head(4, 2048, 8);
        struct fkv_error_curves e;
        for (int r = 0; r < 4; r++)
            for (int c = 0; c < 8; c++)
                for (int t = 0; t < 2048; t++)
                    series[r][c][t] = (t ? 0.95 * sign * series[r][c][t - 1] : 0) + test_normal();
        if (sign < 0) test_remove_folder(path);
        measure(&m, 128, gamma, 4, &e);
        for (int g = 0; g < 4; g++) {
            if (sign > 0)
                assert_close(fkv_error_curve(&e, FKV_KLT_ERROR, true)[g],
                             fkv_error_curve(&e, FKV_RELATIVE_ERROR, true)[g], 0, 0.02);
            else
                assert_true(fkv_error_curve(&e, FKV_KLT_ERROR, true)[g] <
                                0.7 * fkv_error_curve(&e, FKV_RELATIVE_ERROR, true)[g] ||
                            g == 3);
        }
        assert_string_equal(e.fitted_to, "other documents");
        fkv_error_curves_free(&e);
    }
}

/* White along tokens, one direction along channels: the SVD holds it in n + d numbers, and no basis
 * along tokens in less than all. */
TEST_WITH(a_state_of_rank_one_belongs_to_the_svd, made_folder, remove_folder) {
    const double gamma[] = {0.1, 0.25, 0.5};
    struct made m = one_head(2, 6000, 8);
    struct fkv_error_curves e;
    for (int r = 0; r < 2; r++)
        for (int t = 0; t < 6000; t++) {
            double a = test_normal();
            for (int c = 0; c < 8; c++) series[r][c][t] = a * (c + 1) + 3 * c;
        }
    measure(&m, 100, gamma, 3, &e);
    assert_int_equal(fkv_bounds_rank(10, 100, 8),
                     0); /* 9 coefficients of 8 channels are less than 100 + 8 */
    assert_close(fkv_error_curve(&e, FKV_SVD_ERROR, true)[0], 1, 1e-12, 0);
    assert_int_equal(fkv_bounds_rank(25, 100, 8), 1);
    for (int g = 1; g < 3; g++) {
        assert_close(fkv_error_curve(&e, FKV_SVD_ERROR, true)[g], 0, 1e-6, 0);
        assert_close(fkv_error_curve(&e, FKV_RELATIVE_ERROR, true)[g], sqrt(1 - gamma[g]), 0.05, 0);
        if (fkv_error_curve(&e, FKV_KLT_ERROR, true)[g] <=
            0.8 * fkv_error_curve(&e, FKV_RELATIVE_ERROR, true)[g]) /* but for chance: 6,000 tokens
                of noise lean one way or another */
            fail_msg("KLT %g, DCT %g", fkv_error_curve(&e, FKV_KLT_ERROR, true)[g],
                     fkv_error_curve(&e, FKV_RELATIVE_ERROR, true)[g]);
    }
    fkv_error_curves_free(&e);
}

/* Halves of one document, odd and even n: the folded matrices and merged ranks against the
 * eigenvectors of all of P R P at once. */
TEST_WITH(folding_changes_nothing, made_folder, remove_folder) {
    for (int n = 12; n < 14; n++) {
        enum { SEGMENTS = 6, D = 3 };
        double gamma[12], lags[2][16] = {{0}}, energy[16] = {0}, total = 0, x[SEGMENTS][16][D];
        struct made m = one_head(1, SEGMENTS * n, D);
        struct fkv_error_curves e;
        for (int i = 0; i < n; i++)
            if (i < 12) gamma[i] = (i + 1.0) / n;
        for (int c = 0; c < D; c++)
            for (int t = 0; t < SEGMENTS * n; t++)
                series[0][c][t] = (float)((t ? 0.6 * series[0][c][t - 1] : 0) + test_normal() + 2);
        if (n > 12) test_remove_folder(path);
        measure(&m, n, gamma, 12, &e);
        for (int s = 0; s < SEGMENTS; s++)
            for (int c = 0; c < D; c++) {
                double mean = 0;
                for (int j = 0; j < n; j++) mean += series[0][c][s * n + j] / n;
                for (int j = 0; j < n; j++) x[s][j][c] = series[0][c][s * n + j] - mean;
                for (int lag = 0; lag < n; lag++)
                    for (int j = 0; j + lag < n; j++)
                        lags[s >= SEGMENTS / 2][lag] += x[s][j][c] * x[s][j + lag][c];
            }
        for (int fold = 0; fold < 2; fold++) {
            double matrix[16 * 16], rows[16] = {0}, all = 0, values[16];
            for (int i = 0; i < n; i++)
                for (int j = 0; j < n; j++)
                    rows[i] += lags[fold][abs(i - j)] / n, all += lags[fold][abs(i - j)] / n / n;
            for (int i = 0; i < n; i++)
                for (int j = 0; j < n; j++)
                    matrix[j * n + i] = lags[fold][abs(i - j)] - rows[i] - rows[j] + all;
            assert_ok(fkv_blas_open(1, &err));
            assert_ok(fkv_matrix_eigen(matrix, n, true, values, &err));
            fkv_blas_close(1);
            for (int s = 0; s < SEGMENTS; s++) {
                if ((s >= SEGMENTS / 2) == fold) continue;
                for (int v = 0; v < n; v++)
                    for (int c = 0; c < D; c++) {
                        double inner = 0;
                        for (int j = 0; j < n; j++) inner += matrix[v * n + j] * x[s][j][c];
                        energy[n - 1 - v] += inner * inner, total += inner * inner;
                    }
            }
        }
        for (int g = 0; g < 12; g++) {
            double lost = 0;
            for (int i = fkv_retained(gamma[g], n) - 1; i < n; i++) lost += energy[i];
            assert_close(fkv_error_curve(&e, FKV_KLT_ERROR, true)[g], sqrt(lost / total), 1e-6, 0);
        }
        assert_string_equal(e.fitted_to, "the other half of the segments");
        fkv_error_curves_free(&e);
    }
}

/* To the last bit, odd and even n, more threads than segments and fewer. */
TEST_WITH(bounds_do_not_depend_on_the_number_of_threads, made_folder, remove_folder) {
    enum { GAMMAS = 5 };
    const double gamma[GAMMAS] = {0.1, 0.3, 0.5, 0.7, 0.9};
    const int callers = omp_get_max_threads();
    struct fkv_error_curves expected, found;
    int n = test_between(50, 90);
    struct made m = one_head(3, test_between(3 * n, 40 * n), test_between(2, 16));
    for (int r = 0; r < 3; r++)
        for (int c = 0; c < m.head_dim; c++)
            for (int t = 0; t < m.tokens[r]; t++)
                series[r][c][t] = (t ? 0.7 * series[r][c][t - 1] : 0) + test_normal() + c;
    for (int threads = 1; threads <= 4; threads++) {
        omp_set_num_threads(threads);
        if (threads > 1) test_remove_folder(path);
        measure(&m, n, gamma, GAMMAS, threads == 1 ? &expected : &found);
        if (threads == 1) continue;
        assert_memory_equal(fkv_error_curve(&found, FKV_KLT_ERROR, true),
                            fkv_error_curve(&expected, FKV_KLT_ERROR, true),
                            GAMMAS * sizeof(double));
        assert_memory_equal(fkv_error_curve(&found, FKV_SVD_ERROR, true),
                            fkv_error_curve(&expected, FKV_SVD_ERROR, true),
                            GAMMAS * sizeof(double));
        fkv_error_curves_free(&found);
    }
    fkv_error_curves_free(&expected);
    omp_set_num_threads(callers);
}

TEST_WITH(one_segment_has_nothing_to_be_fitted_to, made_folder, remove_folder) {
    struct fkv_capture *capture;
    struct fkv_segment_plan plan;
    struct made m = one_head(1, 50, 2);
    made_write(&m, path);
    assert_ok(fkv_capture_open(path, &capture, &err));
    assert_ok(fkv_spectrum_plan(capture, 40, 0, &plan, &err));
    assert_refused(fkv_bounds_check(capture, &plan, &err), "two segments");
    fkv_segment_plan_free(&plan);
    fkv_capture_close(capture);
}
