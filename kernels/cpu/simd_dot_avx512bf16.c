/* Dot products of bfloat16 with bfloat16, and rounding to it: AVX-512 BF16, whose vdpbf16ps adds
 * the products of 16 pairs to 16 float32 sums. The tiles are those of simd_loops.h: 4 weight rows x
 * 4 inputs hold their sums in registers; one input alone streams one weight row at a time, and
 * multiplies in float32. */
#if defined(__x86_64__)

#include <immintrin.h>

#include "kernels/cpu/simd.h"

#define INLINE static inline __attribute__((always_inline))
enum { PAIRS = 32, TILE = 4 }; /* elements of a vector, rows of a tile either way */

INLINE __m512bh load(const uint16_t *p) { return (__m512bh)_mm512_loadu_si512(p); }

/* n < PAIRS elements, the rest 0 */
INLINE __m512bh load_part(const uint16_t *p, int32_t n) {
    return (__m512bh)_mm512_maskz_loadu_epi16((__mmask32)((1u << n) - 1), p);
}

/* wn weight rows x xn inputs, both constants of an inlined copy. */
INLINE void dot_tile(int wn, int xn, const uint16_t *w, size_t w_stride, const uint16_t *x,
                     size_t x_stride, int32_t cols, float *y, size_t y_stride) {
    __m512 sum[TILE][TILE];
    for (int i = 0; i < wn; i++)
        for (int j = 0; j < xn; j++) sum[i][j] = _mm512_setzero_ps();
    int32_t c = 0;
    for (; c + PAIRS <= cols; c += PAIRS) {
        __m512bh in[TILE];
        for (int j = 0; j < xn; j++) in[j] = load(x + (size_t)j * x_stride + c);
        for (int i = 0; i < wn; i++) {
            const __m512bh weight = load(w + (size_t)i * w_stride + c);
            for (int j = 0; j < xn; j++) sum[i][j] = _mm512_dpbf16_ps(sum[i][j], weight, in[j]);
        }
    }
    if (c < cols)
        for (int i = 0; i < wn; i++) {
            const __m512bh weight = load_part(w + (size_t)i * w_stride + c, cols - c);
            for (int j = 0; j < xn; j++)
                sum[i][j] = _mm512_dpbf16_ps(sum[i][j], weight,
                                             load_part(x + (size_t)j * x_stride + c, cols - c));
        }
    for (int i = 0; i < wn; i++)
        for (int j = 0; j < xn; j++)
            y[(size_t)j * y_stride + (size_t)i] = _mm512_reduce_add_ps(sum[i][j]);
}

/* The lower and the upper numbers of sixteen words, as float32. */
INLINE __m512 lower(__m512bh v) { return _mm512_castsi512_ps(_mm512_slli_epi32((__m512i)v, 16)); }
INLINE __m512 upper(__m512bh v) {
    return _mm512_castsi512_ps(
        _mm512_and_si512((__m512i)v, _mm512_set1_epi32((int32_t)0xffff0000)));
}

INLINE void add_products(__m512bh w, __m512bh x, __m512 sum[2]) {
    sum[0] = _mm512_fmadd_ps(lower(w), lower(x), sum[0]);
    sum[1] = _mm512_fmadd_ps(upper(w), upper(x), sum[1]);
}

/* One weight row with one input: four sums along it, to hide the latency of adding. Memory is what
 * it waits for, not products, and an EPYC 9004 reads faster beside these than beside vdpbf16ps:
 * SmolLM2-135M decodes there at 89 tokens/s on one core, with that instruction at 68, on two at 114
 * and 99. */
INLINE float dot_one(const uint16_t *w, const uint16_t *x, int32_t cols) {
    __m512 sum[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(),
                     _mm512_setzero_ps()};
    int32_t c = 0;
    for (; c + 2 * PAIRS <= cols; c += 2 * PAIRS) {
        const char *next = (const char *)(w + c) + FKV_AHEAD;
        __builtin_prefetch(next), __builtin_prefetch(next + 64);
        add_products(load(w + c), load(x + c), sum);
        add_products(load(w + c + PAIRS), load(x + c + PAIRS), sum + 2);
    }
    for (; c + PAIRS <= cols; c += PAIRS) add_products(load(w + c), load(x + c), sum);
    if (c < cols) add_products(load_part(w + c, cols - c), load_part(x + c, cols - c), sum);
    return _mm512_reduce_add_ps(
        _mm512_add_ps(_mm512_add_ps(sum[0], sum[1]), _mm512_add_ps(sum[2], sum[3])));
}

/* wn weight rows (a constant) against all inputs, four at a time. */
INLINE void dot_rows(int wn, const uint16_t *w, size_t w_stride, const uint16_t *x, size_t x_stride,
                     int32_t xn, int32_t cols, float *y, size_t y_stride) {
    int32_t j = 0;
    for (; j + TILE <= xn; j += TILE)
        dot_tile(wn, TILE, w, w_stride, x + (size_t)j * x_stride, x_stride, cols,
                 y + (size_t)j * y_stride, y_stride);
    x += (size_t)j * x_stride, y += (size_t)j * y_stride;
    if (xn - j == 1) dot_tile(wn, 1, w, w_stride, x, x_stride, cols, y, y_stride);
    if (xn - j == 2) dot_tile(wn, 2, w, w_stride, x, x_stride, cols, y, y_stride);
    if (xn - j == 3) dot_tile(wn, 3, w, w_stride, x, x_stride, cols, y, y_stride);
}

void fkv_dot_bf16_avx512(const uint16_t *w, size_t w_stride, int32_t wn, const uint16_t *x,
                         size_t x_stride, int32_t xn, int32_t cols, float *y, size_t y_stride) {
    int32_t i = 0;
    for (; xn == 1 && i < wn; i++) y[i] = dot_one(w + (size_t)i * w_stride, x, cols);
    for (; i + TILE <= wn; i += TILE)
        dot_rows(TILE, w + (size_t)i * w_stride, w_stride, x, x_stride, xn, cols, y + i, y_stride);
    for (; i < wn; i++)
        dot_rows(1, w + (size_t)i * w_stride, w_stride, x, x_stride, xn, cols, y + i, y_stride);
}

void fkv_round_bf16_avx512(const float *x, size_t n, uint16_t *y) {
    for (; n >= PAIRS; n -= PAIRS, x += PAIRS, y += PAIRS)
        _mm512_storeu_si512(
            y, (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(x + PAIRS / 2), _mm512_loadu_ps(x)));
    if (!n) return;
    const __mmask32 there = (__mmask32)((1u << n) - 1);
    _mm512_mask_storeu_epi16(
        y, there,
        (__m512i)_mm512_cvtne2ps_pbh(
            _mm512_maskz_loadu_ps((__mmask16)(there >> PAIRS / 2), x + PAIRS / 2),
            _mm512_maskz_loadu_ps((__mmask16)there, x)));
}

void fkv_round_wide_avx512(const float *x, size_t n, float *y) {
    enum { LANES = PAIRS / 2 };
    for (size_t i = 0; i < n; i += LANES) {
        const __mmask16 there = n - i < LANES ? (__mmask16)((1u << (n - i)) - 1) : (__mmask16)~0u;
        const __m256i halves = (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(there, x + i));
        const __m512i wide = _mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16);
        _mm512_mask_storeu_ps(y + i, there, _mm512_castsi512_ps(wide));
    }
}

#else
#include "kernels/cpu/simd.h"

/* Never called: see fkv_isa. */
void fkv_round_bf16_avx512(const float *x, size_t n, uint16_t *y) { (void)x, (void)n, (void)y; }
void fkv_round_wide_avx512(const float *x, size_t n, float *y) { (void)x, (void)n, (void)y; }

void fkv_dot_bf16_avx512(const uint16_t *w, size_t w_stride, int32_t wn, const uint16_t *x,
                         size_t x_stride, int32_t xn, int32_t cols, float *y, size_t y_stride) {
    (void)w, (void)w_stride, (void)wn, (void)x, (void)x_stride, (void)xn, (void)cols;
    (void)y, (void)y_stride;
}
#endif
