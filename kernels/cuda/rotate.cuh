/* What kernels that touch keys and queries share: the rotation of RoPE, and elements in the three formats.
 *
 * An angle is position * inv_freq, formed in double and brought into [-pi, pi] in double (2 pi in two parts, so that the reduction adds no error of its own);
 * only then is it rounded for sincosf. A position of a million is then as exact as one of ten. */
#ifndef FKV_KERNELS_CUDA_ROTATE_CUH
#define FKV_KERNELS_CUDA_ROTATE_CUH

#include "kernels/cuda/cuda.cuh"

__device__ inline void fkv_cuda_turn(double position, double inv_freq, float *sine, float *cosine) {
    const double two_pi = 6.283185307179586477, rest = 2.4492935982947064e-16; /* two_pi + rest = 2 pi */
    double angle = position * inv_freq, turns = rint(angle * 0.15915494309189533577);
    sincosf((float)fma(-turns, rest, fma(-turns, two_pi, angle)), sine, cosine);
}

/* ---- elements of a cache ---- */
__device__ inline float fkv_cuda_load(const float *x) { return *x; }
__device__ inline float fkv_cuda_load(const __half *x) { return __half2float(*x); }
__device__ inline float fkv_cuda_load(const __nv_bfloat16 *x) { return __bfloat162float(*x); }

__device__ inline void fkv_cuda_store(float *to, float x) { *to = x; }
__device__ inline void fkv_cuda_store(__half *to, float x) { *to = __float2half_rn(x); }
__device__ inline void fkv_cuda_store(__nv_bfloat16 *to, float x) { *to = __float2bfloat16_rn(x); }

#endif
