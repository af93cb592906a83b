/* Eight channels a vector: AVX2 with FMA. See core.h. */
#if defined(__x86_64__)

#include <immintrin.h>

#include "kernels/dct/core.h"

typedef __m256 vec;
enum { LANES = 8, AT_ONCE = 2 };

static inline vec vec_set(float a) { return _mm256_set1_ps(a); }
static inline vec vec_zero(void) { return _mm256_setzero_ps(); }
static inline vec vec_fma(vec a, vec b, vec c) { return _mm256_fmadd_ps(a, b, c); }
static inline vec vec_fnma(vec a, vec b, vec c) { return _mm256_fnmadd_ps(a, b, c); }
static inline float vec_sum(vec v) {
    __m128 h = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    h = _mm_add_ps(h, _mm_movehl_ps(h, h));
    return _mm_cvtss_f32(_mm_add_ss(h, _mm_movehdup_ps(h)));
}
static inline vec vec_load(const float *p) { return _mm256_loadu_ps(p); }
static inline vec vec_load_f16(const uint16_t *p) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const void *)p));
}
static inline vec vec_load_bf16(const uint16_t *p) {
    __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
static inline void vec_store(float *p, vec v) { _mm256_storeu_ps(p, v); }

#define DCT_TABLE fkv_dct_avx2
#define DCT_NAME "avx2"
#include "kernels/dct/loops.h"

#else
typedef int fkv_dct_avx2_is_for_x86;
#endif
