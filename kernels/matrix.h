/* Dense linear algebra in double, by BLAS and LAPACK; not in a plain build. Matrices are
 * column-major as LAPACK has them: a (m, n) is m rows, element (i, j) at i + j m. Called between
 * fkv_blas_open and fkv_blas_close (kernels/blas.h), by as many threads at once as it was opened
 * for; from inside a parallel region OpenBLAS works on the calling thread. */
#ifndef FKV_KERNELS_MATRIX_H
#define FKV_KERNELS_MATRIX_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/base/error.h"

/* a (m, n) -> gram (n, n) = a' a, or with `rows` gram (m, m) = a a'; both triangles. */
void fkv_matrix_gram(const double *a, int32_t m, int32_t n, bool rows, double *gram);

/* c (m, n) = a (m, k) b (k, n), or with `transposed` a' b where a is (k, m) */
void fkv_matrix_product(const double *a, bool transposed, const double *b, int32_t m, int32_t n,
                        int32_t k, double *c);

/* Symmetric a (n, n), both triangles -> values [n] ascending; with `vectors` a becomes the
 * orthonormal eigenvectors, one per column, else it is destroyed. */
int fkv_matrix_eigen(double *a, int32_t n, bool vectors, double *values, struct fkv_error *err);

#endif
