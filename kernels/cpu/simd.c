/* The choice of an instruction set, and the set that every processor has: four floats in the vector
 * extension of gcc and clang, which they turn into SSE2, NEON or scalar code. See simd.h. */
#include <float.h>
#include <math.h>

#include "kernels/cpu/simd.h"
#include "kernels/isa.h"

typedef float vec __attribute__((vector_size(16)));
typedef uint32_t bits __attribute__((vector_size(16)));
typedef uint16_t halves __attribute__((vector_size(8)));
enum { LANES = 4, DOT_ROWS = 2, MIX_VECS = 2, PANEL_VECS = 2, PANEL_SUMS = 4 };

static inline vec vec_set(float a) { return (vec){a, a, a, a}; }
static inline vec vec_zero(void) { return vec_set(0); }
static inline vec vec_add(vec a, vec b) { return a + b; }
static inline vec vec_fma(vec a, vec b, vec c) { return a * b + c; }
static inline vec vec_max(vec a, vec b) {
    bits first = (bits)(a > b);
    return (vec)((first & (bits)a) | (~first & (bits)b));
}
static inline float vec_sum(vec v) { return (v[0] + v[2]) + (v[1] + v[3]); }

static inline void vec_sums(const vec v[DOT_ROWS], float *to) {
    for (int i = 0; i < DOT_ROWS; i++) to[i] = vec_sum(v[i]);
}

static inline vec vec_from_halves(halves h, enum fkv_dtype t) {
    if (t == FKV_F16)
        return (vec){fkv_f16_to_f32(h[0]), fkv_f16_to_f32(h[1]), fkv_f16_to_f32(h[2]),
                     fkv_f16_to_f32(h[3])};
    bits wide = __builtin_convertvector(h, bits) << 16;
    return (vec)wide;
}

static inline vec vec_part(const void *p, enum fkv_dtype t, int n) {
    if (t == FKV_F32) {
        vec v = vec_zero();
        memcpy(&v, p, (size_t)n * 4);
        return v;
    }
    halves h = {0, 0, 0, 0};
    memcpy(&h, p, (size_t)n * 2);
    return vec_from_halves(h, t);
}

static inline vec vec_load(const void *p, enum fkv_dtype t) { return vec_part(p, t, LANES); }
static inline void vec_store_part(float *p, vec v, int n) { memcpy(p, &v, (size_t)n * 4); }
static inline void vec_store(float *p, vec v) { vec_store_part(p, v, LANES); }
static inline void vec_fma_two(const void *p, enum fkv_dtype t, const float *x, vec sum[2]) {
    const char *next = (const char *)p + LANES * fkv_dtype_bytes(t);
    sum[0] = vec_fma(vec_load(p, t), vec_load(x, FKV_F32), sum[0]);
    sum[1] = vec_fma(vec_load(next, t), vec_load(x + LANES, FKV_F32), sum[1]);
}

#define PANEL_TABLE fkv_panel_plain
#define SIMD_TABLE fkv_simd_plain
#define SIMD_NAME "plain"
#define DOT_FEW 8
#include "kernels/cpu/simd_loops.h"

int fkv_simd_available(const struct fkv_simd *sets[3]) {
    int n = 0;
    sets[n++] = &fkv_simd_plain;
#if defined(__x86_64__)
    if (fkv_isa() >= FKV_ISA_AVX2) sets[n++] = &fkv_simd_avx2;
    if (fkv_isa() >= FKV_ISA_AVX512) sets[n++] = &fkv_simd_avx512;
#endif
    return n;
}

const struct fkv_simd *fkv_simd_choose(void) {
    const struct fkv_simd *sets[3];
    return sets[fkv_simd_available(sets) - 1];
}

const struct fkv_panel *fkv_simd_bf16_panel(void) {
#if defined(__x86_64__)
    if (fkv_isa() >= FKV_ISA_AMX) return &fkv_panel_amx;
    if (fkv_isa() >= FKV_ISA_AVX512_BF16)
        return fkv_isa_slow_bf16() ? fkv_simd_choose()->panel : &fkv_panel_bf16;
#endif
    return NULL;
}
