/* Power of many channels at once: a DCT along tokens whose vector lanes are channels, for [token][channel] data. No transposition, no shuffle.
 *
 * Makhoul 1980 as in dct.c: even tokens, then odd ones reversed, a complex DFT, and a turn by exp(-i pi t / 2n) that yields coefficients t and n - t. A lane carries two channels
 * as one complex number. The DFT is Stockham's (self-sorting, decimation in frequency, mixed radix; Van Loan 1992, section 1.7): factors 4 and 2, and every odd prime p by its
 * definition with the symmetry x_r +- x_(p-r), (p-1)^2 multiply-adds for p complex numbers. Lengths with a prime factor above 251 are left to the caller (FFTW).
 *
 * Measured (one core of an EPYC 9004, 1024 channels, ms of CPU time with means and squares, AVX-512, AVX2, plain): n = 4092: 8.2, 11.5, 17.9; 1020: 1.1, 1.5, 2.4;
 * 508 (a 127): 0.9, 1.4, 2.5; 8188 (an 89): 23, 32, 53. Before, with means and squares in double around
 * fkv_dct on FFTW, `freqkv-analyze spectrum` took 4.5 s of CPU time for 4 x 8 x 128 x 4096 keys and values with null, now 1.7 s. Means are summed in double only
 * every 64 rows and squares over a block in float: that costs no digit that the float32 transform has.
 *
 * Coefficients are squared in float32, so a channel's should lie between 1e-19 and 1e19. */
#ifndef FKV_KERNELS_CPU_LANES_H
#define FKV_KERNELS_CPU_LANES_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/base/error.h"

enum { FKV_LANE_STAGES = 32, FKV_LANE_PRIME = 251 };

/* One factor p of n: m butterflies of p numbers, each for `s` neighbours; n = p * m * s. */
struct fkv_lane_stage {
    int32_t p, m, s;
    const float *turn; /* [m][p-1][2]: cos and sin of -2 pi q k / (p m), k = 1 .. p-1 */
    const float *root; /* odd p: [h][h][2], h = (p-1)/2: cos and sin of 2 pi r k / p, k and r = 1 .. h */
};

/* For one n: immutable after creation, shared by any number of threads. */
struct fkv_lane_plan {
    int32_t n, stages;
    struct fkv_lane_stage stage[FKV_LANE_STAGES];
    float *last; /* [n/2 + 1][2]: sqrt(2/n)/2 times cos and sin of pi t / 2n; owned */
    float *tables;
};

/* *out stays NULL, without an error, when n has a prime factor above FKV_LANE_PRIME. */
int fkv_lane_plan_create(int32_t n, struct fkv_lane_plan **out, struct fkv_error *err);
void fkv_lane_plan_destroy(struct fkv_lane_plan *plan); /* NULL is fine */

/* x: n rows, `stride` floats apart, of `channels` channels. Adds to power [n] the squares of the orthonormal DCT-II coefficients, summed over channels, and to normalised [n] (may be
 * NULL) the same with each channel's divided by its variance over the rows (a constant channel adds nothing there). scratch: 64-byte aligned. */
typedef void fkv_lane_power_function(const struct fkv_lane_plan *plan, const float *x, size_t stride, int32_t channels,
                                     float *scratch, double *power, double *normalised);

struct fkv_lanes {
    const char *name;
    int32_t channels; /* of a block */
    fkv_lane_power_function *power;
};
extern const struct fkv_lanes fkv_lanes_plain, fkv_lanes_avx2, fkv_lanes_avx512;

/* The widest that this processor has; and all, the plain one first (returns how many). */
const struct fkv_lanes *fkv_lanes_choose(void);
int fkv_lanes_available(const struct fkv_lanes *sets[3]);

static inline size_t fkv_lane_scratch(const struct fkv_lane_plan *plan, const struct fkv_lanes *lanes) {
    return 2 * (size_t)plan->n * (size_t)lanes->channels;
}

#endif
