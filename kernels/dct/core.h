/* What the files of the DCT share: the plan, the instruction sets' tables, and the DFT of awkward
 * lengths.
 *
 * Every set runs the same loops (loops.h) over its own vector type, as in kernels/cpu/simd.h: dct.c
 * over four floats in the compiler's vector extension, which any processor has, dct_avx2.c over
 * eight and dct_avx512.c over sixteen. */
#ifndef FKV_KERNELS_DCT_CORE_H
#define FKV_KERNELS_DCT_CORE_H

#include "kernels/dct.h"

enum { FKV_DCT_STAGES = 32, FKV_DCT_PRIME = 251, FKV_DCT_SPLIT = 17, FKV_DCT_HALVES = 5 };

/* One factor p of a part's length: m butterflies of p numbers, each for `s` neighbours; the length
 * is p m s. */
struct fkv_dct_stage {
    int32_t p, m, s;
    const float *turn; /* [columns][m][p-1][2]: cos and sin of -2 pi c k / (p m columns), c = column
                          + columns q, k = 1 .. p-1 */
    const float
        *root; /* odd p: [h][h][2], h = (p-1)/2: cos and sin of 2 pi r k / p, k and r = 1 .. h */
    /* In place of `root` where p is split (dct.c): */
    const float *halves; /* [FKV_DCT_HALVES][fkv_dct_products(k)], k = h/2 */
    uint8_t
        power[FKV_DCT_PRIME / 2]; /* [h]: g^e mod p, g a primitive root; power[0] 0: not split */
};

/* One of the two parts whose lengths multiply to n (dct.c). */
struct fkv_dct_part {
    int32_t length, columns, stages; /* columns: the other part's length in the first one, else 1 */
    struct fkv_dct_stage stage[FKV_DCT_STAGES];
};

/* Factors of one product of k x k: [k][k], or where k is even [3][k/2][k/2] */
static inline int32_t fkv_dct_products(int32_t k) { return k % 2 ? k * k : 3 * (k / 2) * (k / 2); }

struct fkv_dct {
    int32_t n;
    struct fkv_dct_part part[2];
    struct fkv_dft *awkward; /* in place of the second part, which has the length n, where n has a
                                prime factor above FKV_DCT_PRIME */
    float *last;   /* [n][2]: sqrt(2/n)/2 times cos and sin of pi t / 2n; sqrt(1/n), 0 at t = 0; all
                      times the gain */
    float *tables; /* what the pointers above point into */
    const struct fkv_dct_set *set;
};

/* The longer part's length. */
int32_t fkv_dct_longer(const struct fkv_dct *plan);

/* The functions of kernels/dct.h, with scratch 64-byte aligned. */
typedef void fkv_dct_map(const struct fkv_dct *plan, const float *from, size_t from_stride,
                         int32_t channels, float *to, size_t to_stride, float *scratch);
typedef void fkv_dct_sums(const struct fkv_dct *plan, const struct fkv_dct_rows *rows,
                          int32_t channels, double *power, double *normalised, float *scratch);

struct fkv_dct_set {
    const char *name;
    int32_t lanes; /* floats in a vector */
    fkv_dct_map *forward, *inverse;
    fkv_dct_sums *add_power;
};
extern const struct fkv_dct_set fkv_dct_plain, fkv_dct_avx2, fkv_dct_avx512;

/* All sets that this processor has, the plain one first and the widest last; returns their number.
 */
int fkv_dct_sets(const struct fkv_dct_set *sets[3]);
/* fkv_dct_create takes the widest. */
int fkv_dct_create_for(const struct fkv_dct_set *set, int32_t n, struct fkv_dct **out,
                       struct fkv_error *err);

/* The complex DFT of any length, X_t = sum_j x_j exp(-2 pi i t j / n), of `lanes` signals side by
 * side: FFTW's (dft_fftw.c), or in builds without it the sum as it stands (dft_plain.c). */
struct fkv_dft;
struct fkv_dft *fkv_dft_create(int32_t n, int32_t lanes); /* NULL when out of memory */
void fkv_dft_destroy(struct fkv_dft *dft);                /* NULL is fine */
/* x [n][re: lanes, im: lanes] -> y likewise, both 64-byte aligned; overwrites x. */
void fkv_dft_run(const struct fkv_dft *dft, float *x, float *y);

#endif
