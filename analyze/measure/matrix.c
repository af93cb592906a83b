/* Owns the analyzer's calls of BLAS and LAPACK (matrix.h), by their Fortran names: OpenBLAS brings
 * LAPACK, Debian's package of it no header for that. Eigenvalues are by divide and conquer (dsyevd;
 * Cuppen 1981, Gu and Eisenstat 1995), several times as fast as QR iteration where vectors are
 * wanted. */
#include "analyze/measure/matrix.h"

#include <stdlib.h>

void dsyrk_(const char *triangle, const char *transpose, const int *n, const int *k,
            const double *alpha, const double *a, const int *lda, const double *beta, double *c,
            const int *ldc);
void dgemm_(const char *transpose_a, const char *transpose_b, const int *m, const int *n,
            const int *k, const double *alpha, const double *a, const int *lda, const double *b,
            const int *ldb, const double *beta, double *c, const int *ldc);
void dsyevd_(const char *job, const char *triangle, const int *n, double *a, const int *lda,
             double *w, double *work, const int *lwork, int *iwork, const int *liwork, int *info);

static const double one = 1, zero = 0;

void fkv_matrix_gram(const double *a, int32_t m, int32_t n, bool rows, double *gram) {
    int size = rows ? m : n, inner = rows ? n : m, stride = m;
    dsyrk_("L", rows ? "N" : "T", &size, &inner, &one, a, &stride, &zero, gram, &size);
    for (size_t j = 0; j < (size_t)size; j++)
        for (size_t i = j + 1; i < (size_t)size; i++)
            gram[j + i * (size_t)size] = gram[i + j * (size_t)size];
}

void fkv_matrix_product(const double *a, bool transposed, const double *b, int32_t m, int32_t n,
                        int32_t k, double *c) {
    int rows = m, columns = n, inner = k, stride = transposed ? k : m;
    dgemm_(transposed ? "T" : "N", "N", &rows, &columns, &inner, &one, a, &stride, b, &inner, &zero,
           c, &rows);
}

int fkv_matrix_eigen(double *a, int32_t n, bool vectors, double *values, struct fkv_error *err) {
    const char *job = vectors ? "V" : "N";
    int size = n, ask = -1, integers, info, count;
    double room;
    dsyevd_(job, "L", &size, a, &size, values, &room, &ask, &integers, &ask, &info);
    count = (int)room;
    double *work = malloc((size_t)count * sizeof *work);
    int *more = malloc((size_t)integers * sizeof *more);
    if (work && more)
        dsyevd_(job, "L", &size, a, &size, values, work, &count, more, &integers, &info);
    bool memory = work && more;
    free(work);
    free(more);
    if (!memory) return fkv_fail(err, "out of memory for the eigenvalues of a matrix of %d", n);
    return info ? fkv_fail(err, "the eigenvalues of a matrix of %d did not converge", n) : FKV_OK;
}
