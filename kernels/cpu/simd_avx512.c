/* Sixteen floats: AVX-512 F, BW, VL and DQ, with masked loads for the ends of rows. See simd.h. */
#if defined(__x86_64__)

#include <immintrin.h>
#include <float.h>
#include <math.h>

#include "kernels/cpu/simd.h"

typedef __m512 vec;
enum { LANES = 16, DOT_ROWS = 4, MIX_VECS = 4, PANEL_VECS = 3, PANEL_SUMS = 8 };

static inline vec vec_set(float a) { return _mm512_set1_ps(a); }
static inline vec vec_zero(void) { return _mm512_setzero_ps(); }
static inline vec vec_add(vec a, vec b) { return _mm512_add_ps(a, b); }
static inline vec vec_fma(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
static inline vec vec_max(vec a, vec b) { return _mm512_max_ps(a, b); }
static inline float vec_sum(vec v) { return _mm512_reduce_add_ps(v); }

/* Pairs of lanes of two vectors side by side, then of two such, then the four quarters. */
static inline void vec_sums(const vec v[DOT_ROWS], float *to) {
    vec a = _mm512_add_ps(_mm512_unpacklo_ps(v[0], v[1]), _mm512_unpackhi_ps(v[0], v[1])),
        b = _mm512_add_ps(_mm512_unpacklo_ps(v[2], v[3]), _mm512_unpackhi_ps(v[2], v[3])),
        s = _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x44), _mm512_shuffle_ps(a, b, 0xee));
    __m256 half = _mm256_add_ps(_mm512_castps512_ps256(s), _mm512_extractf32x8_ps(s, 1));
    _mm_storeu_ps(to, _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
}

static inline vec vec_from_halves(__m256i h, enum fkv_dtype t) {
    if (t == FKV_F16) return _mm512_cvtph_ps(h);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

static inline vec vec_load(const void *p, enum fkv_dtype t) {
    if (t == FKV_F32) return _mm512_loadu_ps(p);
    return vec_from_halves(_mm256_loadu_si256(p), t);
}

/* bfloat16: the even elements, shifted up, and the odd ones, masked, meet those of x. Beside two
 * halves that are widened an EPYC 9004 reads slower what was fetched ahead: SmolLM2-135M decodes
 * with this at 79 tokens/s on one core, so at 60, on two at 102 and 90. */
static inline void vec_fma_two(const void *p, enum fkv_dtype t, const float *x, vec sum[2]) {
    const __m512i both = _mm512_loadu_si512(p),
                  even =
                      _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0),
                  odd = _mm512_set_epi32(31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
    vec w[2], in[2] = {_mm512_loadu_ps(x), _mm512_loadu_ps(x + LANES)};
    if (t == FKV_F32) {
        w[0] = _mm512_castsi512_ps(both), w[1] = _mm512_loadu_ps((const float *)p + LANES);
    } else if (t == FKV_F16) {
        w[0] = _mm512_cvtph_ps(_mm512_castsi512_si256(both));
        w[1] = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(both, 1));
    } else {
        const vec first = in[0];
        w[0] = _mm512_castsi512_ps(_mm512_slli_epi32(both, 16));
        w[1] = _mm512_castsi512_ps(_mm512_and_si512(both, _mm512_set1_epi32((int)0xffff0000)));
        in[0] = _mm512_permutex2var_ps(first, even, in[1]);
        in[1] = _mm512_permutex2var_ps(first, odd, in[1]);
    }
    for (int i = 0; i < 2; i++) sum[i] = vec_fma(w[i], in[i], sum[i]);
}

static inline vec vec_part(const void *p, enum fkv_dtype t, int n) {
    __mmask16 first = (__mmask16)((1u << n) - 1);
    if (t == FKV_F32) return _mm512_maskz_loadu_ps(first, p);
    return vec_from_halves(_mm256_maskz_loadu_epi16(first, p), t);
}

static inline void vec_store(float *p, vec v) { _mm512_storeu_ps(p, v); }
static inline void vec_store_part(float *p, vec v, int n) {
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), v);
}

#define PANEL_TABLE fkv_panel_avx512
#define SIMD_TABLE fkv_simd_avx512
#define SIMD_NAME "avx512"
#define DOT_FEW 32
#include "kernels/cpu/simd_loops.h"

#else
typedef int fkv_simd_avx512_is_for_x86;
#endif
