/* DCT along tokens on the CPU, for data laid out [token][channel]: used by every spectrum and every
 * map.
 *
 *   forward   y_t = c_t sqrt(2/n) sum_j x_j cos(pi t (j + 1/2) / n),  c_0 = 1/sqrt(2), c_t = 1
 *           (orthonormal DCT-II)
 *   inverse   its transpose (orthonormal DCT-III)
 *
 * Both are isometries: sums of squares over tokens are kept (Parseval). Any n >= 1, primes
 * included. Every call runs on the calling thread. */
#ifndef FKV_KERNELS_DCT_H
#define FKV_KERNELS_DCT_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/base/error.h"
#include "kernels/dtype.h"

struct fkv_dct; /* a plan for one n: immutable after creation, shared by any number of threads */

/* *out: the plan; the caller destroys it. */
int fkv_dct_create(int32_t n, struct fkv_dct **out, struct fkv_error *err);
/* From now on what `forward` and `inverse` give is `gain` times that of a new plan. */
void fkv_dct_scale(struct fkv_dct *plan, double gain);
void fkv_dct_destroy(struct fkv_dct *plan); /* NULL is fine */

/* Floats of scratch that one call needs, whatever the number of channels; each thread brings its
 * own. */
size_t fkv_dct_scratch(const struct fkv_dct *plan);

/* x [n, channels], rows x_stride floats apart -> y likewise. In place when x == y and the strides
 * agree. scratch [fkv_dct_scratch]. */
void fkv_dct_forward(const struct fkv_dct *plan, const float *x, size_t x_stride, int32_t channels,
                     float *y, size_t y_stride, float *scratch);
/* y [n, channels] -> x, as above. */
void fkv_dct_inverse(const struct fkv_dct *plan, const float *y, size_t y_stride, int32_t channels,
                     float *x, size_t x_stride, float *scratch);

/* Rows as they are stored, in any order. */
struct fkv_dct_rows {
    const void *x; /* rows of [channels], the caller's */
    enum fkv_dtype dtype;
    size_t stride;        /* elements from one row to the next */
    const int32_t *order; /* [n]: row j of the transform is row order[j] of x; NULL: row j */
};
/* Adds the squares of the coefficients of the rows [n, channels], summed over channels, to power
 * [n], and to normalised [n] (may be NULL) the same with each channel's divided by its variance
 * over tokens; a constant channel adds nothing there. Squares are taken in float32, so that
 * coefficients should be between 1e-19 and 1e19. */
void fkv_dct_add_power(const struct fkv_dct *plan, const struct fkv_dct_rows *rows,
                       int32_t channels, double *power, double *normalised, float *scratch);

#endif
