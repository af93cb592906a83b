/* The panel kernels of attention in bfloat16: AVX512-BF16 beside the sets of simd_avx512.c. A word
 * is two numbers, and one instruction multiplies sixteen pairs of words and adds both products of
 * each to a float32 sum. See simd_panel.h. On AMX the products are those of simd_panel_amx.c. */
#if defined(__x86_64__)

#include <float.h>
#include <immintrin.h>
#include <math.h>

#include "kernels/cpu/simd.h"

#define INLINE static inline __attribute__((always_inline))

typedef __m512 vec;
enum { LANES = 16, PANEL_VECS = 3, PANEL_SUMS = 8 };

static inline vec vec_set(float a) { return _mm512_set1_ps(a); }
static inline vec vec_zero(void) { return _mm512_setzero_ps(); }
static inline vec vec_add(vec a, vec b) { return _mm512_add_ps(a, b); }
static inline vec vec_max(vec a, vec b) { return _mm512_max_ps(a, b); }
static inline vec vec_fma(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
static inline vec vec_load(const float *p, enum fkv_dtype t) {
    (void)t;
    return _mm512_loadu_ps(p);
}
static inline void vec_store(float *p, vec v) { _mm512_storeu_ps(p, v); }

static inline vec panel_fold(vec a, vec b, vec c) {
    return _mm512_dpbf16_ps(c, (__m512bh)a, (__m512bh)b);
}

/* 2^y, y = x / ln 2: the power of two of y's floor by vscalefps, of the rest by a polynomial fitted
 * on [0, 1], to 9e-5, a twentieth of what rounding to bfloat16 does; 1 of 0 and 0 of -inf. */
static inline vec panel_exp(vec x) {
    enum { REST_OF_FLOOR = 1 };
    const vec y = x * vec_set(1.44269504f), rest = _mm512_reduce_ps(y, REST_OF_FLOOR);
    vec e = vec_fma(rest, vec_set(7.7067040e-2f), vec_set(2.2764499e-1f));
    e = vec_fma(e, rest, vec_set(6.9511676e-1f));
    return _mm512_scalef_ps(vec_fma(e, rest, vec_set(1)), y);
}

/* Rounds to nearest even; e[0] goes to the lower half of each word. */
static inline vec panel_word(const vec e[2]) {
    static const uint16_t places[2 * LANES] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                               21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                               11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    return _mm512_castsi512_ps(_mm512_permutexvar_epi16(_mm512_loadu_si512(places),
                                                        (__m512i)_mm512_cvtne2ps_pbh(e[1], e[0])));
}

/* Values as words (ceil(keys / 2), head_dim), the last slot with zeros. */
static void pack_pairs(const uint16_t *value, int32_t keys, int32_t head_dim, void *to) {
    uint32_t *word = to;
    for (int32_t k = 0; k < keys; k += 2, value += 2 * head_dim, word += head_dim)
        for (int32_t c = 0; c < head_dim; c++)
            word[c] = value[c] | (k + 1 < keys ? (uint32_t)value[head_dim + c] << 16 : 0);
}

#define PANEL_STEP 2
#define PANEL_EXP panel_exp
#define PANEL_TABLE fkv_panel_bf16
#define PANEL_PACK pack_pairs
#include "kernels/cpu/simd_panel.h"

_Static_assert((int)PANEL == (int)FKV_PANEL_BF16_ROWS, "AMX takes the same panels");
const struct fkv_panel fkv_panel_amx = {
    .rows = PANEL,
    .step = PANEL_STEP,
    .whole = 32,
    .pack_values = fkv_amx_pack_values,
    .score = fkv_amx_score,
    .mask = panel_mask,
    .soften = panel_soften,
    .mix = fkv_amx_mix,
};

#else
typedef int fkv_simd_panel_avx512bf16_is_for_x86;
#endif
