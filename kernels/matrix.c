/* Owns the calls of BLAS and LAPACK in double (matrix.h), both of OpenBLAS. Eigenvalues are by
 * divide and conquer (dsyevd; Cuppen 1981, Gu and Eisenstat 1995), several times as fast as QR
 * iteration where vectors are wanted. */
#ifndef FKV_PLAIN
#include "kernels/matrix.h"

#include <stdlib.h>

#include "kernels/blas.h"

static const double one = 1, zero = 0;

void fkv_matrix_gram(const double *a, int32_t m, int32_t n, bool rows, double *gram) {
    int size = rows ? m : n, inner = rows ? n : m, stride = m;
    fkv_blas.dsyrk("L", rows ? "N" : "T", &size, &inner, &one, a, &stride, &zero, gram, &size);
    for (size_t j = 0; j < (size_t)size; j++)
        for (size_t i = j + 1; i < (size_t)size; i++)
            gram[j + i * (size_t)size] = gram[i + j * (size_t)size];
}

void fkv_matrix_product(const double *a, bool transposed, const double *b, int32_t m, int32_t n,
                        int32_t k, double *c) {
    int rows = m, columns = n, inner = k, stride = transposed ? k : m;
    fkv_blas.dgemm(transposed ? "T" : "N", "N", &rows, &columns, &inner, &one, a, &stride, b,
                   &inner, &zero, c, &rows);
}

int fkv_matrix_eigen(double *a, int32_t n, bool vectors, double *values, struct fkv_error *err) {
    const char *job = vectors ? "V" : "N";
    int size = n, ask = -1, integers, info, count;
    double room;
    fkv_blas.dsyevd(job, "L", &size, a, &size, values, &room, &ask, &integers, &ask, &info);
    count = (int)room;
    double *work = malloc((size_t)count * sizeof *work);
    int *more = malloc((size_t)integers * sizeof *more);
    if (work && more)
        fkv_blas.dsyevd(job, "L", &size, a, &size, values, work, &count, more, &integers, &info);
    bool memory = work && more;
    free(work);
    free(more);
    if (!memory) return fkv_fail(err, "out of memory for the eigenvalues of a matrix of %d", n);
    return info ? fkv_fail(err, "the eigenvalues of a matrix of %d did not converge", n) : FKV_OK;
}
#else
typedef int fkv_matrix_is_not_built;
#endif
