/* The complex DFT under the DCT: n points of 8 independent signals at once, X_t = sum_j x_j exp(-2 pi i t j / n), not scaled.
 *
 * Rows are [n][re 8, im 8] float32 (one cache line), 64-byte aligned. A run overwrites both arrays and returns the one that holds the result.
 * Plans are immutable and shared by any number of threads. */
#ifndef FKV_KERNELS_DFT_H
#define FKV_KERNELS_DFT_H

#include <stdbool.h>
#include <stdint.h>

enum { FKV_DFT_LANES = 8, FKV_DFT_ROW = 2 * FKV_DFT_LANES };

/* Sizes whose prime factors are small (dft_radix.c). */
struct fkv_dft_radix;
bool fkv_dft_radix_suits(int32_t n);
struct fkv_dft_radix *fkv_dft_radix_create(int32_t n); /* NULL when out of memory */
void fkv_dft_radix_destroy(struct fkv_dft_radix *plan);
float *fkv_dft_radix_run(const struct fkv_dft_radix *plan, float *x, float *other);

/* Any size: FFTW (dft_fftw.c), or the O(n^2) sum where the build has none (dft_plain.c). */
struct fkv_dft_any;
struct fkv_dft_any *fkv_dft_any_create(int32_t n); /* NULL when out of memory */
void fkv_dft_any_destroy(struct fkv_dft_any *plan);
float *fkv_dft_any_run(const struct fkv_dft_any *plan, float *x, float *other);

#endif
