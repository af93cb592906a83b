/* Power spectra of states along tokens. Conventions: kernels.h. */
#ifndef FKV_KERNELS_SPECTRA_H
#define FKV_KERNELS_SPECTRA_H

#include "kernels/backend.h"

/* x: n rows of [heads, head_dim] float32, rows `stride` floats apart, from byte `offset` on ->
 * power [heads, n] float64: the square of the orthonormal DCT-II coefficient along rows, mean over
 * head_dim. `normalised` (same shape, or NULL): each channel's power divided by its variance over
 * the n rows before the mean over channels (about its mean, divided by n; a constant channel adds
 * 0). Outputs on the host. */
typedef int fkv_op_power(struct fkv_backend *b, const struct fkv_buffer *x, size_t offset,
                         size_t stride, int32_t n, int32_t heads, int32_t head_dim, double *power,
                         double *normalised, struct fkv_error *err);
/* Adds one segment, x as above, to sums that stay with the backend: float64 from byte `at` of
 * `sums` on, laid out as fkv_spectra_layout says. */
typedef int fkv_op_spectra_add(struct fkv_backend *b, const struct fkv_buffer *x, size_t offset,
                               size_t stride, int32_t n, int32_t heads, int32_t head_dim,
                               struct fkv_buffer *sums, size_t at, struct fkv_error *err);

/* Offsets of the sums of spectra_add, in doubles: power [heads, n], its square [heads, n],
 * normalised power [heads, n], channel means [heads, head_dim], energy (sum of squares over rows
 * and channels) [heads]. A number in x that is not finite makes its head's energy not finite. */
struct fkv_spectra_layout {
    size_t power, squares, normalised, means, energy, count;
};
static inline struct fkv_spectra_layout fkv_spectra_layout(int32_t heads, int32_t n,
                                                           int32_t head_dim) {
    size_t spectrum = (size_t)heads * (size_t)n, means = (size_t)heads * (size_t)head_dim;
    struct fkv_spectra_layout layout = {0,
                                        spectrum,
                                        2 * spectrum,
                                        3 * spectrum,
                                        3 * spectrum + means,
                                        3 * spectrum + means + (size_t)heads};
    return layout;
}

#endif
