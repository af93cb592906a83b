/* OpenBLAS, loaded when it is first needed; not in a plain build.
 *
 * It is not linked because it takes a buffer per thread, one of them while it is loaded, and where
 * there is no address space for one it tries again for ever (`ulimit -v`, as batch systems set it;
 * OpenMathLib/OpenBLAS#5289). So what it will take is tried first, and then taken at once. */
#ifndef FKV_KERNELS_BLAS_H
#define FKV_KERNELS_BLAS_H

#include "kernels/base/error.h"

/* The routines that we call, by their Fortran interface: matrices are column-major. NULL before
 * fkv_blas_open. From inside a parallel region they work on the calling thread. */
extern struct fkv_blas {
    void (*sgemm)(const char *transpose_a, const char *transpose_b, const int *m, const int *n,
                  const int *k, const float *alpha, const float *a, const int *lda, const float *b,
                  const int *ldb, const float *beta, float *c, const int *ldc);
    void (*dgemm)(const char *transpose_a, const char *transpose_b, const int *m, const int *n,
                  const int *k, const double *alpha, const double *a, const int *lda,
                  const double *b, const int *ldb, const double *beta, double *c, const int *ldc);
    void (*dsyrk)(const char *triangle, const char *transpose, const int *n, const int *k,
                  const double *alpha, const double *a, const int *lda, const double *beta,
                  double *c, const int *ldc);
    void (*dsyevd)(const char *job, const char *triangle, const int *n, double *a, const int *lda,
                   double *w, double *work, const int *lwork, int *iwork, const int *liwork,
                   int *info);
} fkv_blas;

/* Loads OpenBLAS, for `threads` threads more that call it side by side. Fails where the library or
 * its memory cannot be had. Not from several threads at once. */
int fkv_blas_open(int threads, struct fkv_error *err);
/* Gives the buffers of so many threads to those who open next. */
void fkv_blas_close(int threads);

/* "OpenBLAS (SkylakeX)": the kernels that it runs on this processor. After fkv_blas_open; static
 * text, written at each call. */
const char *fkv_blas_name(void);
/* NULL, or one line that says that OpenBLAS runs below this processor's instruction set, and what
 * to do. After fkv_blas_open; static text. */
const char *fkv_blas_note(void);

#endif
