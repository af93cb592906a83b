/* The inner loops that are written for an instruction set, as a const table per set (after Opus'
 * way of choosing implementations).
 *
 * Every set runs the same loops (simd_loops.h) over its own vector type: simd.c over four floats in
 * the compiler's vector extension, which any processor has, simd_avx2.c over eight and
 * simd_avx512.c over sixteen. So there is one algorithm to read and to test, and the sets differ in
 * the last bits only, through the number of partial sums. Matrices may start at any byte address
 * and are read in their own dtype; strides are in elements. */
#ifndef FKV_KERNELS_CPU_SIMD_H
#define FKV_KERNELS_CPU_SIMD_H

#include <stdint.h>

#include "kernels/dtype.h"

/* w (wn, cols), x (xn, cols) -> y (xn, wn) = x w^T */
typedef void fkv_dot_function(const void *w, size_t w_stride, int32_t wn, const float *x,
                              size_t x_stride, int32_t xn, int32_t cols, float *y, size_t y_stride);
/* p (pn, wn), w (wn, cols): y (pn, cols) += p w */
typedef void fkv_mix_function(const float *p, size_t p_stride, int32_t pn, const void *w,
                              size_t w_stride, int32_t wn, int32_t cols, float *y, size_t y_stride);

/* w (wn, cols), x (xn, cols), both bfloat16 -> y (xn, wn) = x w^T, summed in float32 */
typedef void fkv_dot_bf16_function(const uint16_t *w, size_t w_stride, int32_t wn,
                                   const uint16_t *x, size_t x_stride, int32_t xn, int32_t cols,
                                   float *y, size_t y_stride);

struct fkv_simd {
    const char *name;
    fkv_dot_function *dot[3]; /* by enum fkv_dtype of w */
    fkv_mix_function *mix[3];
    int32_t dot_rows; /* most input rows for which products are dot's (matmul.c) */
    float (*largest)(const float *x, int32_t n);
    float (*exp_sum)(float *x, int32_t n,
                     float shift); /* x[i] = exp(x[i] - shift), in place; returns their sum */
    void (*swish)(float *gate, const float *up,
                  size_t n); /* gate[i] = silu(gate[i]) * up[i], in place */
    double (*sum_exp)(const float *x, int32_t n,
                      double shift); /* sum of exp(x[i] - shift), all in double */
    /* the same of p, and *gap = sum of exp(p[i] - shift) (p[i] - q[i]) over p[i] > -inf */
    double (*sum_gap)(const float *p, const float *q, int32_t n, double shift, double *gap);
};

extern const struct fkv_simd fkv_simd_plain, fkv_simd_avx2, fkv_simd_avx512;

/* Defined where fkv_isa() is FKV_ISA_AVX512_BF16 or above. A product of two pairs is rounded once
 * before it is added; subnormal numbers count as 0. */
fkv_dot_bf16_function fkv_dot_bf16_avx512;

/* The widest set that this processor has. */
const struct fkv_simd *fkv_simd_choose(void);
/* All that this processor has, the plain one first; returns their number (at most 3). */
int fkv_simd_available(const struct fkv_simd *sets[3]);

#endif
