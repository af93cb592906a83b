/* Sixteen channels a vector: AVX-512 F. See core.h. */
#if defined(__x86_64__)

#include <immintrin.h>

#include "kernels/dct/core.h"

typedef __m512 vec;
enum { LANES = 16, AT_ONCE = 5 };

static inline vec vec_set(float a) { return _mm512_set1_ps(a); }
static inline vec vec_zero(void) { return _mm512_setzero_ps(); }
static inline vec vec_fma(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
static inline vec vec_fnma(vec a, vec b, vec c) { return _mm512_fnmadd_ps(a, b, c); }
static inline float vec_sum(vec v) { return _mm512_reduce_add_ps(v); }
static inline vec vec_load(const float *p) { return _mm512_loadu_ps(p); }
static inline vec vec_load_f16(const uint16_t *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)p));
}
static inline vec vec_load_bf16(const uint16_t *p) {
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
static inline void vec_store(float *p, vec v) { _mm512_storeu_ps(p, v); }

#define DCT_TABLE fkv_dct_avx512
#define DCT_NAME "avx512"
#include "kernels/dct/loops.h"

#else
typedef int fkv_dct_avx512_is_for_x86;
#endif
