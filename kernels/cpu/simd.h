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

#include <stdbool.h>
#include <stdint.h>

#include "kernels/ahead.h"
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

/* x (n) -> bfloat16, to nearest even; a subnormal number becomes 0. y may begin where x does. */
typedef void fkv_round_bf16_function(const float *x, size_t n, uint16_t *y);
/* The same, y as float32 again. */
typedef void fkv_round_wide_function(const float *x, size_t n, float *y);

/* Attention of a panel: `rows` query rows, which are the lanes of its vectors (simd_panel.h). A
 * word is `step` numbers of the panel's format: one float32, or two bfloat16 that a product adds
 * up. Words are kept in arrays of float. head_dim is even. */
struct fkv_panel {
    int32_t rows, step;
    int32_t whole; /* a run of values begins at a multiple of so many slots of a tile */
    /* value (keys, head_dim) bfloat16 -> as `mix` takes it, keys rounded up to `whole`; NULL:
     * `mix` takes values (keys, head_dim) of float32 as they are */
    void (*pack_values)(const uint16_t *value, int32_t keys, int32_t head_dim, void *to);
    /* score (keys, rows) = key (keys, words) q (words, rows) + bias (keys) or NULL; words =
     * head_dim / step, consecutive numbers of a key in each */
    void (*score)(const void *key, int32_t keys, int32_t words, const float *q, const float *bias,
                  float *score);
    /* score (keys, rows) = -inf where slot + key is outside of the row's [low, high) */
    void (*mask)(float *score, int32_t keys, int32_t slot, const int32_t *low, const int32_t *high);
    /* score (keys, rows) -> weights exp(score - largest) as words (ceil(keys / step), rows), in
     * place: largest (rows) takes the scores in, shrink (rows) = exp(largest before - largest),
     * sum (rows) = sum shrink + the row's weights */
    void (*soften)(float *score, int32_t keys, float *largest, float *sum, float *shrink);
    /* out (head_dim, rows) = out shrink (rows) + value' (head_dim, keys) weight (keys, rows);
     * weights are words, consecutive slots in each */
    void (*mix)(const float *weight, int32_t keys, const void *value, int32_t head_dim,
                const float *shrink, float *out);
};

struct fkv_simd {
    const char *name;
    const struct fkv_panel *panel;
    fkv_dot_function *dot[3]; /* by enum fkv_dtype of w */
    fkv_mix_function *mix[3];
    int32_t dot_rows; /* most input rows for which products are dot's (matmul.c) */
    /* rows of a product to where they belong: y (m, n) = x (m, n) + bias (n), or += that; the rows
     * of y are `stride` apart */
    void (*place)(const float *x, const float *bias, int32_t n, int32_t m, bool add, float *y,
                  size_t stride);
    float (*largest)(const float *x, int32_t n);
    float (*exp_sum)(float *x, int32_t n,
                     float shift); /* x[i] = exp(x[i] - shift), in place; returns their sum */
    void (*swish)(float *gate, const float *up,
                  size_t n); /* gate[i] = silu(gate[i]) * up[i], in place */
    void (*gelu)(float *gate, const float *up, size_t n); /* the same with GELU by tanh (layer.h) */
    void (*cap)(float *x, size_t n,
                float cap); /* x[i] = cap tanh(x[i] / cap), in place; NaN stays */
    /* x (d) -> y, in place if x == y: channels i and i + half turned by the angle whose cos and sin
     * are turn (2, half), the others as they are */
    void (*turn)(const float *x, const float *turn, int32_t half, int32_t d, float *y);
    void (*turn_back)(float *x, const float *turn, int32_t half); /* undoes it, in place */
    double (*energy)(const float *x, size_t n);                   /* sum of x[i]^2, all in double */
    /* RMSNorm (norm.c) of x (n), in place if x == y */
    void (*normalise)(const float *x, const float *factors, int32_t n, float eps, float *y);
    double (*sum_exp)(const float *x, int32_t n,
                      double shift); /* sum of exp(x[i] - shift), all in double */
    /* the same of p, and *gap = sum of exp(p[i] - shift) (p[i] - q[i]) over p[i] > -inf */
    double (*sum_gap)(const float *p, const float *q, int32_t n, double shift, double *gap);
};

extern const struct fkv_simd fkv_simd_plain, fkv_simd_avx2, fkv_simd_avx512;
extern const struct fkv_panel fkv_panel_plain, fkv_panel_avx2, fkv_panel_avx512, fkv_panel_bf16,
    fkv_panel_amx;

/* Members of fkv_panel_amx (simd_panel_amx.c); values are packed to words
 * (ceil(keys / 32), head_dim, 16). */
enum { FKV_PANEL_BF16_ROWS = 48 };
void fkv_amx_score(const void *key, int32_t keys, int32_t words, const float *q, const float *bias,
                   float *score);
void fkv_amx_mix(const float *weight, int32_t keys, const void *value, int32_t head_dim,
                 const float *shrink, float *out);
void fkv_amx_pack_values(const uint16_t *value, int32_t keys, int32_t head_dim, void *to);

/* Defined where fkv_isa() is FKV_ISA_AVX512_BF16 or above. Of several inputs a product of two pairs
 * is rounded once before it is added, and subnormal numbers count as 0. */
fkv_dot_bf16_function fkv_dot_bf16_avx512;
fkv_round_bf16_function fkv_round_bf16_avx512;
fkv_round_wide_function fkv_round_wide_avx512;

/* The widest set that this processor has. */
const struct fkv_simd *fkv_simd_choose(void);
/* The panel kernels in bfloat16, or NULL where this processor has no products of it; in float32
 * where those are faster. */
const struct fkv_panel *fkv_simd_bf16_panel(void);
/* All that this processor has, the plain one first; returns their number (at most 3). */
int fkv_simd_available(const struct fkv_simd *sets[3]);

#endif
