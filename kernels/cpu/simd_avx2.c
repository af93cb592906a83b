/* Eight floats: AVX2 with FMA and F16C (all three came with Haswell and Zen). See simd.h. */
#if defined(__x86_64__)

#include <immintrin.h>
#include <float.h>
#include <math.h>

#include "kernels/cpu/simd.h"

typedef __m256 vec;
enum { LANES = 8, DOT_ROWS = 2, MIX_VECS = 2, PANEL_VECS = 3, PANEL_SUMS = 4 };

static inline vec vec_set(float a) { return _mm256_set1_ps(a); }
static inline vec vec_zero(void) { return _mm256_setzero_ps(); }
static inline vec vec_add(vec a, vec b) { return _mm256_add_ps(a, b); }
static inline vec vec_fma(vec a, vec b, vec c) { return _mm256_fmadd_ps(a, b, c); }
static inline vec vec_max(vec a, vec b) { return _mm256_max_ps(a, b); }

static inline float vec_sum(vec v) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
}

static inline void vec_sums(const vec v[DOT_ROWS], float *to) {
    for (int i = 0; i < DOT_ROWS; i++) to[i] = vec_sum(v[i]);
}

static inline vec vec_from_halves(__m128i h, enum fkv_dtype t) {
    if (t == FKV_F16) return _mm256_cvtph_ps(h);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}

static inline vec vec_load(const void *p, enum fkv_dtype t) {
    if (t == FKV_F32) return _mm256_loadu_ps(p);
    return vec_from_halves(_mm_loadu_si128(p), t);
}

static inline void vec_fma_two(const void *p, enum fkv_dtype t, const float *x, vec sum[2]) {
    const __m256i both = _mm256_loadu_si256(p);
    vec w[2] = {_mm256_castsi256_ps(both)};
    if (t == FKV_F32) {
        w[1] = _mm256_loadu_ps((const float *)p + LANES);
    } else {
        w[0] = vec_from_halves(_mm256_castsi256_si128(both), t);
        w[1] = vec_from_halves(_mm256_extracti128_si256(both, 1), t);
    }
    for (int i = 0; i < 2; i++) sum[i] = vec_fma(w[i], _mm256_loadu_ps(x + i * LANES), sum[i]);
}

static inline vec vec_part(const void *p, enum fkv_dtype t, int n) {
    char padded[32] = {0};
    memcpy(padded, p, (size_t)n * fkv_dtype_bytes(t));
    return vec_load(padded, t);
}

static inline void vec_store(float *p, vec v) { _mm256_storeu_ps(p, v); }
static inline void vec_store_part(float *p, vec v, int n) { memcpy(p, &v, (size_t)n * 4); }

#define PANEL_TABLE fkv_panel_avx2
#define SIMD_TABLE fkv_simd_avx2
#define SIMD_NAME "avx2"
#define DOT_FEW 16
#include "kernels/cpu/simd_loops.h"

#else
typedef int fkv_simd_avx2_is_for_x86;
#endif
