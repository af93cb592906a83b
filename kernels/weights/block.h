/* What the block formats share: the numbers inside a block, and where its values go. Each format is
 * a file with one function, a block -> its values, 16 at a time; weights.c, weights_avx2.c and
 * weights_avx512.c compile them for their instruction set (expand_loops.h).
 *
 * The layouts are those of ggml. Scales are float16; a value is scale * code - offset, where the
 * codes have at most 8 bits and the scales' own codes at most 8. So every product is exact in
 * float32 and a sum is rounded once: multiplying and adding in one step gives the same bits. */
#ifndef FKV_KERNELS_WEIGHTS_BLOCK_H
#define FKV_KERNELS_WEIGHTS_BLOCK_H

#if defined(__F16C__)
#include <immintrin.h>
#endif

#include "kernels/dtype.h"

#define BLOCK_INLINE static inline __attribute__((always_inline))

/* The float16 at p. */
BLOCK_INLINE float block_half(const uint8_t *p) {
    const uint16_t bits = (uint16_t)(p[0] | p[1] << 8);
#if defined(__F16C__)
    return _cvtsh_ss(bits);
#else
    return fkv_f16_to_f32(bits);
#endif
}

/* ---- 16 codes ---- */

typedef uint8_t block_bytes __attribute__((vector_size(16)));
typedef int8_t block_codes __attribute__((vector_size(16)));
typedef uint16_t block_pairs __attribute__((vector_size(16)));
typedef uint32_t block_quads __attribute__((vector_size(16)));
typedef uint64_t block_eights __attribute__((vector_size(16)));

BLOCK_INLINE block_bytes block_load(const uint8_t *p) {
    block_bytes v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* Every byte n bits lower; above them stand bits of its neighbour. */
BLOCK_INLINE block_bytes block_shift(block_bytes v, int n) {
    return (block_bytes)((block_pairs)v >> (uint16_t)n);
}

/* `bits` bits of every byte, from bit n on. */
BLOCK_INLINE block_bytes block_bits(block_bytes v, int n, int bits) {
    return block_shift(v, n) & (uint8_t)((1 << bits) - 1);
}

/* Numbers of at most 4 bits, n bits higher. */
BLOCK_INLINE block_bytes block_raise(block_bytes v, int n) {
    return (block_bytes)((block_pairs)v << (uint16_t)n);
}

/* 16 where the bit of that number is set, else 0. */
BLOCK_INLINE block_bytes block_fifth(uint32_t bits) {
    const block_bytes each = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    const block_eights all = {(bits & 255) * 0x0101010101010101u,
                              (bits >> 8 & 255) * 0x0101010101010101u};
    return (block_bytes)(((block_bytes)all & each) == each) & 16;
}

/* ---- 16 values ---- */

#if defined(__AVX512F__)
typedef __m512 block_floats;
BLOCK_INLINE block_floats block_zero(void) { return _mm512_setzero_ps(); }
BLOCK_INLINE block_floats block_values(block_codes c, float scale, float offset) {
    const __m512 codes = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32((__m128i)c));
    return _mm512_fmsub_ps(codes, _mm512_set1_ps(scale), _mm512_set1_ps(offset));
}
BLOCK_INLINE void block_store(float *to, block_floats v) { _mm512_storeu_ps(to, v); }
BLOCK_INLINE block_floats block_add_product(block_floats sum, block_floats v, const float *x) {
    return _mm512_fmadd_ps(v, _mm512_loadu_ps(x), sum);
}
#elif defined(__AVX2__)
typedef struct {
    __m256 low, high;
} block_floats;
BLOCK_INLINE block_floats block_zero(void) {
    return (block_floats){_mm256_setzero_ps(), _mm256_setzero_ps()};
}
BLOCK_INLINE block_floats block_values(block_codes c, float scale, float offset) {
    const __m128i codes = (__m128i)c;
    const __m256 low = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes)),
                 high = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_unpackhi_epi64(codes, codes))),
                 a = _mm256_set1_ps(scale), b = _mm256_set1_ps(offset);
    return (block_floats){_mm256_fmsub_ps(low, a, b), _mm256_fmsub_ps(high, a, b)};
}
BLOCK_INLINE void block_store(float *to, block_floats v) {
    _mm256_storeu_ps(to, v.low), _mm256_storeu_ps(to + 8, v.high);
}
BLOCK_INLINE block_floats block_add_product(block_floats sum, block_floats v, const float *x) {
    return (block_floats){_mm256_fmadd_ps(v.low, _mm256_loadu_ps(x), sum.low),
                          _mm256_fmadd_ps(v.high, _mm256_loadu_ps(x + 8), sum.high)};
}
#else
typedef struct {
    float v[16];
} block_floats;
BLOCK_INLINE block_floats block_zero(void) { return (block_floats){{0}}; }
BLOCK_INLINE block_floats block_values(block_codes c, float scale, float offset) {
    block_floats to;
    for (int i = 0; i < 16; i++) to.v[i] = scale * (float)c[i] - offset;
    return to;
}
BLOCK_INLINE void block_store(float *to, block_floats v) { memcpy(to, &v, sizeof v); }
BLOCK_INLINE block_floats block_add_product(block_floats sum, block_floats v, const float *x) {
    for (int i = 0; i < 16; i++) sum.v[i] += v.v[i] * x[i];
    return sum;
}
#endif

/* Where the values of a block go: to memory, or times x into sums, whose total is a dot product.
 * Several sums hide the latency of adding. */
enum { BLOCK_SUMS = 4 };
struct block_to {
    float *values; /* NULL: into the sums */
    const float *x;
    block_floats sum[BLOCK_SUMS];
};

/* Values [16 i, 16 i + 16) of the block: scale * code - offset. `sum` (a constant): the one that
 * takes their products. */
BLOCK_INLINE void block_put(struct block_to *to, int sum, int i, block_bytes codes, float scale,
                            float offset) {
    const block_floats v = block_values((block_codes)codes, scale, offset);
    if (to->values)
        block_store(to->values + 16 * i, v);
    else
        to->sum[sum] = block_add_product(to->sum[sum], v, to->x + 16 * i);
}

/* The sum of all products. */
BLOCK_INLINE float block_total(const struct block_to *to) {
    float lanes[16 * BLOCK_SUMS];
    for (int i = 0; i < BLOCK_SUMS; i++) block_store(lanes + 16 * i, to->sum[i]);
    for (int n = 8 * BLOCK_SUMS; n > 0; n /= 2)
        for (int i = 0; i < n; i++) lanes[i] += lanes[i + n];
    return lanes[0];
}

/* The scales of a block, in memory: scale * code. */
BLOCK_INLINE void block_scales(float to[16], block_bytes codes, float scale) {
    block_store(to, block_values((block_codes)codes, scale, 0));
}

#endif
