/* Conversion between float32, float16 and bfloat16. The plain C functions are canonical; on x86
 * with AVX2 the bulk ones go through F16C and wider registers and give the same bits (every
 * processor with AVX2 has F16C). */
#include "kernels/dtype.h"

#include "kernels/base/error.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

static const char *const names[] = {[FKV_F32] = "f32", [FKV_F16] = "f16", [FKV_BF16] = "bf16"};

const char *fkv_dtype_name(enum fkv_dtype t) { return names[t]; }

int fkv_dtype_parse(const char *name, enum fkv_dtype *t) {
    for (int i = FKV_F32; i <= FKV_BF16; i++)
        if (!strcmp(name, names[i])) {
            *t = (enum fkv_dtype)i;
            return FKV_OK;
        }
    return FKV_FAILED;
}

float fkv_f16_to_f32(uint16_t x) {
    uint32_t sign = (uint32_t)(x & 0x8000u) << 16, exponent = x >> 10 & 31u, mantissa = x & 0x3ffu,
             bits;
    float y;
    if (exponent == 31) {
        bits = 0x7f800000u | mantissa << 13 |
               (mantissa ? 0x400000u : 0); /* signalling NaNs become quiet */
    } else if (exponent) {
        bits = (exponent + 112) << 23 | mantissa << 13;
    } else { /* zero or subnormal: mantissa * 2^-24, exact in float32 */
        y = (float)mantissa * 0x1p-24f;
        memcpy(&bits, &y, 4);
    }
    bits |= sign;
    memcpy(&y, &bits, 4);
    return y;
}

uint16_t fkv_f32_to_f16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000u);
    uint32_t size = bits & 0x7fffffffu;
    if (size > 0x7f800000u) return (uint16_t)(sign | 0x7e00u | (size >> 13 & 0x3ffu)); /* NaN */
    if (size >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); /* rounds beyond 65504 */
    if (size >= 0x38800000u) { /* normal: drop 13 bits to nearest even; a carry into the exponent is
                                  right */
        uint32_t rebased = size - 0x38000000u;
        return (uint16_t)(sign | (rebased + 0xfffu + (rebased >> 13 & 1u)) >> 13);
    }
    float magnitude; /* subnormal: adding 0.5 leaves the multiple of 2^-24, rounded to nearest even,
                        in the low bits */
    memcpy(&magnitude, &size, 4);
    magnitude += 0.5f;
    memcpy(&size, &magnitude, 4);
    return (uint16_t)(sign | (size - 0x3f000000u));
}

static inline uint16_t load16(const void *at, size_t i) {
    uint16_t x;
    memcpy(&x, (const char *)at + 2 * i, 2);
    return x;
}

static inline void store16(void *at, size_t i, uint16_t x) { memcpy((char *)at + 2 * i, &x, 2); }

static inline __attribute__((always_inline)) void bf16_to_f32(const void *src, size_t n,
                                                              float *dst) {
    for (size_t i = 0; i < n; i++) dst[i] = fkv_bf16_to_f32(load16(src, i));
}

static void to_f32_plain(const void *src, enum fkv_dtype t, size_t n, float *dst) {
    if (t == FKV_BF16)
        bf16_to_f32(src, n, dst);
    else
        for (size_t i = 0; i < n; i++) dst[i] = fkv_f16_to_f32(load16(src, i));
}

static void from_f32_plain(const float *src, enum fkv_dtype t, size_t n, void *dst) {
    for (size_t i = 0; i < n; i++)
        store16(dst, i, t == FKV_BF16 ? fkv_f32_to_bf16(src[i]) : fkv_f32_to_f16(src[i]));
}

#if defined(__x86_64__)
__attribute__((target("avx2,f16c"))) static void to_f32_avx2(const void *src, enum fkv_dtype t,
                                                             size_t n, float *dst) {
    if (t == FKV_BF16) {
        bf16_to_f32(src, n, dst);
        return;
    }
    size_t whole = n & ~(size_t)7;
    for (size_t i = 0; i < whole; i += 8)
        _mm256_storeu_ps(
            dst + i, _mm256_cvtph_ps(_mm_loadu_si128((const void *)((const char *)src + 2 * i))));
    to_f32_plain((const char *)src + 2 * whole, t, n - whole, dst + whole);
}

/* Eight bfloat16, each in the lower half of its lane: what fkv_f32_to_bf16 does. */
__attribute__((target("avx2"))) static inline __m256i round_eight(const float *src) {
    const __m256 x = _mm256_loadu_ps(src);
    const __m256i bits = _mm256_castps_si256(x), upper = _mm256_srli_epi32(bits, 16),
                  odd = _mm256_and_si256(upper, _mm256_set1_epi32(1)),
                  up = _mm256_add_epi32(_mm256_add_epi32(bits, odd), _mm256_set1_epi32(0x7fff)),
                  quiet = _mm256_or_si256(upper, _mm256_set1_epi32(0x40)),
                  nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    return _mm256_blendv_epi8(_mm256_srli_epi32(up, 16), quiet, nan);
}

__attribute__((target("avx2,f16c"))) static void from_f32_avx2(const float *src, enum fkv_dtype t,
                                                               size_t n, void *dst) {
    size_t whole = n & ~(size_t)(t == FKV_BF16 ? 15 : 7);
    for (size_t i = 0; t == FKV_BF16 && i < whole; i += 16) {
        const __m256i both = _mm256_packus_epi32(round_eight(src + i), round_eight(src + i + 8));
        _mm256_storeu_si256((void *)((char *)dst + 2 * i), _mm256_permute4x64_epi64(both, 0xd8));
    }
    for (size_t i = 0; t == FKV_F16 && i < whole; i += 8)
        _mm_storeu_si128((void *)((char *)dst + 2 * i),
                         _mm256_cvtps_ph(_mm256_loadu_ps(src + i), _MM_FROUND_TO_NEAREST_INT));
    from_f32_plain(src + whole, t, n - whole, (char *)dst + 2 * whole);
}
#endif

void fkv_to_f32(const void *src, enum fkv_dtype t, size_t n, float *dst) {
    if (t == FKV_F32) {
        if (n) memcpy(dst, src, 4 * n);
        return;
    }
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) {
        to_f32_avx2(src, t, n, dst);
        return;
    }
#endif
    to_f32_plain(src, t, n, dst);
}

void fkv_from_f32(const float *src, enum fkv_dtype t, size_t n, void *dst) {
    if (t == FKV_F32) {
        if (n) memcpy(dst, src, 4 * n);
        return;
    }
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) {
        from_f32_avx2(src, t, n, dst);
        return;
    }
#endif
    from_f32_plain(src, t, n, dst);
}

/* Neither infinite nor no number: each, without its sign and read as an integer, is below
 * infinity. */
bool fkv_all_finite(const void *src, enum fkv_dtype t, size_t n) {
    if (t == FKV_F32) {
        const int32_t *bits = src;
        int32_t largest = 0;
        for (size_t i = 0; i < n; i++) {
            const int32_t size = bits[i] & 0x7fffffff;
            largest = size > largest ? size : largest;
        }
        return largest < 0x7f800000;
    }
    const int16_t *bits = src;
    int16_t largest = 0;
    for (size_t i = 0; i < n; i++) {
        const int16_t size = bits[i] & 0x7fff;
        largest = size > largest ? size : largest;
    }
    return largest < (t == FKV_F16 ? 0x7c00 : 0x7f80);
}
