/* The three number formats that checkpoints and caches use, and their conversion. Rounding is to
 * nearest even; arithmetic is float32. */
#ifndef FKV_KERNELS_DTYPE_H
#define FKV_KERNELS_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum fkv_dtype { FKV_F32, FKV_F16, FKV_BF16 };

static inline size_t fkv_dtype_bytes(enum fkv_dtype t) { return t == FKV_F32 ? 4 : 2; }
const char *fkv_dtype_name(enum fkv_dtype t);             /* "f32", "f16", "bf16" */
int fkv_dtype_parse(const char *name, enum fkv_dtype *t); /* FKV_OK or FKV_FAILED */

static inline float fkv_bf16_to_f32(uint16_t x) {
    uint32_t bits = (uint32_t)x << 16;
    float y;
    memcpy(&y, &bits, 4);
    return y;
}

static inline uint16_t fkv_f32_to_bf16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)((bits >> 16) | 0x40u); /* keep NaN a NaN */
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

float fkv_f16_to_f32(uint16_t x);
uint16_t fkv_f32_to_f16(float x); /* beyond 65504: infinity; capture/store checks for it */

/* n elements of type t at src (unaligned is fine) -> float32, and back. Vectorised where the
 * processor can. */
void fkv_to_f32(const void *src, enum fkv_dtype t, size_t n, float *dst);
void fkv_from_f32(const float *src, enum fkv_dtype t, size_t n, void *dst);

/* Are all n elements of type t at src finite? */
bool fkv_all_finite(const void *src, enum fkv_dtype t, size_t n);

#endif
