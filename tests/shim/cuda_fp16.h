/* float16 as device code spells it, over the project's own conversions (kernels/dtype.h): to
 * nearest even, beyond 65504 infinity. */
#ifndef FKV_SHIM_CUDA_FP16_H
#define FKV_SHIM_CUDA_FP16_H

#include "device.h"

extern "C" {
#include "kernels/dtype.h"
}

struct __half_raw {
    unsigned short x;
};

struct __align__(2) __half {
    unsigned short bits;
    __half() = default; /* trivial, for arrays in shared memory */
    __half(float x) : bits(fkv_f32_to_f16(x)) {}
    __half(__half_raw raw) : bits(raw.x) {}
    operator float() const { return fkv_f16_to_f32(bits); }
    operator __half_raw() const { return {bits}; }
};

struct __align__(4) __half2 {
    __half x, y;
};

typedef __half half;
typedef __half2 half2;

static inline __half __float2half_rn(float x) { return __half(x); }
static inline __half __float2half(float x) { return __half(x); }
static inline float __half2float(__half x) { return (float)x; }
static inline __half2 __floats2half2_rn(float x, float y) { return {__half(x), __half(y)}; }
static inline __half2 __float22half2_rn(float2 v) { return __floats2half2_rn(v.x, v.y); }
static inline __half2 __halves2half2(__half x, __half y) { return {x, y}; }
static inline float2 __half22float2(__half2 v) { return {(float)v.x, (float)v.y}; }
static inline float __low2float(__half2 v) { return (float)v.x; }
static inline float __high2float(__half2 v) { return (float)v.y; }
static inline __half __low2half(__half2 v) { return v.x; }
static inline __half __high2half(__half2 v) { return v.y; }
static inline unsigned short __half_as_ushort(__half x) { return x.bits; }
static inline __half __ushort_as_half(unsigned short x) { return __half(__half_raw{x}); }

#endif
