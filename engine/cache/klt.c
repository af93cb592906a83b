/* The operator fitted to an autocovariance r (operators.h).
 *
 * What is kept: the constant, and of all sequences of sum 0 the span of the L - 1 leading
 * eigenvectors of the covariance there, P R P with R_ij = r(|i - j|) and P = I - 1 1'/n: no other L
 * dimensions with the constant hold more energy in the mean (Karhunen and Loeve). B [n, L] is an
 * orthonormal basis of that.
 *
 * How it comes back to L slots. Leading eigenvectors have no transform of length L to go with them,
 * as the DCT has. So of all operators with that span and the same gain we take the one nearest to
 * FreqKV's C = IDCT_L [I_L 0] DCT_n in the sum of squares (orthogonal Procrustes; Schoenemann
 * 1966):
 *
 *   M = sqrt(L/n) Q B',   Q = U V' for C B = U S V'.
 *
 * Slot j is then what is nearest to FreqKV's slot j; neither the signs nor the order of the
 * eigenvectors matter; a constant stays. For a Markov process of first order R^-1 is tridiagonal
 * and tends with its correlation to the DCT's own matrix (Ahmed, Natarajan and Rao 1974): B spans
 * the L lowest DCT vectors, Q = C B, and M = sqrt(L/n) C, FreqKV's. */
#include "engine/cache/operators.h"

#ifdef FKV_PLAIN
int fkv_operator_fit(const double *covariance, int32_t n, int32_t retained, float *matrix,
                     struct fkv_error *err) {
    (void)covariance, (void)n, (void)retained, (void)matrix;
    return fkv_fail_option(err, "--operator klt: this build is without OpenBLAS, which it needs");
}
#else
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/blas.h"
#include "kernels/matrix.h"

/* All column-major (kernels/matrix.h). */
struct fit {
    int32_t n, retained;
    double *covariance; /* (n, n); then its eigenvectors */
    double *values;     /* [n] */
    double *basis;      /* B (n, L) */
    double *freqkv;     /* C' (n, L) */
    double *turned;     /* (L, L) C B; then U */
    double *right;      /* (L, L) B' C' C B; then V, ascending */
    double *rotation;   /* (L, L) Q */
};

/* P R P: rows and columns less their means. R's row means are its column means. */
static void center(const double *r, int32_t n, double *a, double *means) {
    double all = 0;
    for (int32_t j = 0; j < n; j++) {
        means[j] = 0;
        for (int32_t i = 0; i < n; i++) means[j] += r[abs(i - j)] / n;
        all += means[j] / n;
    }
    for (int32_t j = 0; j < n; j++)
        for (int32_t i = 0; i < n; i++)
            a[(size_t)i + (size_t)j * (size_t)n] = r[abs(i - j)] - means[i] - means[j] + all;
}

/* B: the constant, then eigenvectors by falling eigenvalue. The constant's own is 0 and comes last,
 * or is not asked for. */
static int fill_basis(struct fit *f, const double *r, struct fkv_error *err) {
    const size_t n = (size_t)f->n;
    center(r, f->n, f->covariance, f->values);
    if (fkv_matrix_eigen(f->covariance, f->n, true, f->values, err)) return FKV_FAILED;
    for (size_t i = 0; i < n; i++) f->basis[i] = 1 / sqrt(f->n);
    for (size_t k = 1; k < (size_t)f->retained; k++)
        memcpy(f->basis + k * n, f->covariance + (n - k) * n, n * sizeof *f->basis);
    return FKV_OK;
}

static void take_out(double *column, const double *others, int32_t count, int32_t size) {
    for (int pass = 0; pass < 2; pass++)
        for (int32_t k = 0; k < count; k++) {
            const double *other = others + (size_t)k * (size_t)size;
            double share = 0;
            for (int32_t i = 0; i < size; i++) share += column[i] * other[i];
            for (int32_t i = 0; i < size; i++) column[i] -= share * other[i];
        }
}

static double scale_to_one(double *column, int32_t size) {
    double square = 0;
    for (int32_t i = 0; i < size; i++) square += column[i] * column[i];
    for (int32_t i = 0; i < size; i++) column[i] /= square > 0 ? sqrt(square) : 1;
    return sqrt(square);
}

/* Columns C B v to orthonormal ones, those of large singular values first. Where B holds what is
 * orthogonal to FreqKV's, a singular value is 0 and its column free: a unit vector less the
 * others. */
static void make_orthonormal(double *columns, int32_t size) {
    for (int32_t k = 0; k < size; k++) {
        double *column = columns + (size_t)k * (size_t)size;
        take_out(column, columns, k, size);
        double length = scale_to_one(column, size);
        for (int32_t i = 0; i < size && length < 1e-6; i++) {
            memset(column, 0, (size_t)size * sizeof *column);
            column[i] = 1;
            take_out(column, columns, k, size);
            length = scale_to_one(column, size);
            if (length < 0.5 / sqrt(size)) length = 0; /* some i leaves 1 / sqrt(size) */
        }
    }
}

/* Q = U V'. The eigenvectors V of (C B)'(C B) come by rising value; both are turned around. */
static int find_rotation(struct fit *f, struct fkv_error *err) {
    const int32_t l = f->retained;
    const size_t size = (size_t)l, bytes = size * sizeof(double);
    fkv_matrix_product(f->freqkv, true, f->basis, l, l, f->n, f->turned);
    fkv_matrix_gram(f->turned, l, l, false, f->right);
    if (fkv_matrix_eigen(f->right, l, true, f->values, err)) return FKV_FAILED;
    for (size_t k = 0; k < size; k++) /* V by falling value, in memory that is free by now */
        memcpy(f->covariance + k * size, f->right + (size - 1 - k) * size, bytes);
    fkv_matrix_product(f->turned, false, f->covariance, l, l, l, f->right);
    make_orthonormal(f->right, l);
    for (size_t i = 0; i < size; i++) /* V' */
        for (size_t k = 0; k < size; k++) f->turned[k + i * size] = f->covariance[i + k * size];
    fkv_matrix_product(f->right, false, f->turned, l, l, l, f->rotation);
    return FKV_OK;
}

/* M' = B Q' sqrt(L/n), (n, L), is M row by row. */
static void fill_matrix(struct fit *f, float *matrix) {
    const size_t size = (size_t)f->retained, count = (size_t)f->n * size;
    const double gain = sqrt((double)f->retained / f->n);
    for (size_t i = 0; i < size; i++)
        for (size_t k = 0; k < size; k++) f->turned[k + i * size] = f->rotation[i + k * size];
    fkv_matrix_product(f->basis, false, f->turned, f->n, f->retained, f->retained, f->freqkv);
    for (size_t i = 0; i < count; i++) matrix[i] = (float)(gain * f->freqkv[i]);
}

static int fit(struct fit *f, const double *covariance, float *matrix, struct fkv_error *err) {
    const struct fkv_operator dct = {FKV_OPERATOR_DCT_BAND, 0};
    const size_t count = (size_t)f->n * (size_t)f->retained;
    const double gain = sqrt((double)f->retained / f->n);
    if (fkv_operator_fill(&dct, f->n, f->retained, matrix, err)) return FKV_FAILED;
    for (size_t i = 0; i < count; i++) f->freqkv[i] = matrix[i] / gain;
    if (fill_basis(f, covariance, err) || find_rotation(f, err)) return FKV_FAILED;
    fill_matrix(f, matrix);
    return FKV_OK;
}

int fkv_operator_fit(const double *covariance, int32_t n, int32_t retained, float *matrix,
                     struct fkv_error *err) {
    const size_t all = (size_t)n * (size_t)n, tall = (size_t)n * (size_t)retained,
                 small = (size_t)retained * (size_t)retained;
    double *memory = malloc((all + (size_t)n + 2 * tall + 3 * small) * sizeof *memory);
    if (!memory) return fkv_fail(err, "out of memory for the covariance of %d slots", n);
    struct fit f = {.n = n, .retained = retained, .covariance = memory};
    f.values = f.covariance + all;
    f.basis = f.values + n;
    f.freqkv = f.basis + tall;
    f.turned = f.freqkv + tall;
    f.right = f.turned + small;
    f.rotation = f.right + small;
    int status = fkv_blas_open(1, err);
    if (!status) {
        status = fit(&f, covariance, matrix, err);
        fkv_blas_close(1);
    }
    free(memory);
    return status;
}
#endif
