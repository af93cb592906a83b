/* Device code that several files share: numbers in the three formats, sums over a warp and a block,
 * angles. Blocks are one-dimensional and hold whole warps wherever a sum over the block is taken.
 */
#ifndef FKV_KERNELS_CUDA_DEVICE_CUH
#define FKV_KERNELS_CUDA_DEVICE_CUH

#include "kernels/cuda/cuda.cuh"

enum { FKV_CUDA_WARP = 32 };
#define FKV_CUDA_ALL_LANES 0xffffffffu

/* ---- numbers ---- */
__device__ inline float fkv_cuda_to_float(float x) { return x; }
__device__ inline float fkv_cuda_to_float(__half x) { return __half2float(x); }
__device__ inline float fkv_cuda_to_float(__nv_bfloat16 x) { return __bfloat162float(x); }

/* Rounded to nearest even. */
template <typename T> __device__ inline T fkv_cuda_from_float(float x);
template <> __device__ inline float fkv_cuda_from_float<float>(float x) { return x; }
template <> __device__ inline __half fkv_cuda_from_float<__half>(float x) {
    return __float2half_rn(x);
}
template <> __device__ inline __nv_bfloat16 fkv_cuda_from_float<__nv_bfloat16>(float x) {
    return __float2bfloat16_rn(x);
}

/* Eight numbers from an address that is a multiple of 16 bytes. */
__device__ inline void fkv_cuda_load8(const float *from, float to[8]) {
    float4 a = ((const float4 *)from)[0], b = ((const float4 *)from)[1];
    to[0] = a.x, to[1] = a.y, to[2] = a.z, to[3] = a.w;
    to[4] = b.x, to[5] = b.y, to[6] = b.z, to[7] = b.w;
}
/* A bfloat16 is the upper half of a float32, so two of them come apart by a shift and a mask. */
__device__ inline void fkv_cuda_load8(const __nv_bfloat16 *from, float to[8]) {
    uint4 v = *(const uint4 *)from;
    uint32_t words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        to[2 * i] = __uint_as_float(words[i] << 16);
        to[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
    }
}
__device__ inline void fkv_cuda_load8(const __half *from, float to[8]) {
    uint4 v = *(const uint4 *)from;
    const __half2 *pairs = (const __half2 *)&v;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float2 pair = __half22float2(pairs[i]);
        to[2 * i] = pair.x;
        to[2 * i + 1] = pair.y;
    }
}

/* Of a kernel's three instances, the one for a dtype: fkv_cuda_pick(w->dtype, f<float>, f<__half>,
 * f<__nv_bfloat16>). */
template <typename Kernel>
static inline Kernel *fkv_cuda_pick(enum fkv_dtype dtype, Kernel *f32, Kernel *f16, Kernel *bf16) {
    return dtype == FKV_F32 ? f32 : dtype == FKV_F16 ? f16 : bf16;
}

/* ---- sums ---- */
/* Over the warp; every lane gets the same bits, for each stage adds the same two numbers on both
 * sides. */
template <typename T> __device__ inline T fkv_cuda_warp_sum(T x) {
#pragma unroll
    for (int distance = FKV_CUDA_WARP / 2; distance; distance /= 2)
        x += __shfl_xor_sync(FKV_CUDA_ALL_LANES, x, distance);
    return x;
}

/* A NaN loses against any number. */
__device__ inline float fkv_cuda_warp_max(float x) {
#pragma unroll
    for (int distance = FKV_CUDA_WARP / 2; distance; distance /= 2)
        x = fmaxf(x, __shfl_xor_sync(FKV_CUDA_ALL_LANES, x, distance));
    return x;
}

/* Over the block, in an order that depends on its size alone; every thread gets the same bits. */
template <typename T> __device__ inline T fkv_cuda_block_sum(T x) {
    __shared__ T parts[FKV_CUDA_WARP];
    int lane = (int)threadIdx.x % FKV_CUDA_WARP, warp = (int)threadIdx.x / FKV_CUDA_WARP;
    x = fkv_cuda_warp_sum(x);
    __syncthreads(); /* the parts of the sum before this one have been read */
    if (lane == 0) parts[warp] = x;
    __syncthreads();
    return fkv_cuda_warp_sum(lane < (int)blockDim.x / FKV_CUDA_WARP ? parts[lane] : (T)0);
}

/* As the sum. A NaN loses against any number. */
__device__ inline float fkv_cuda_block_max(float x) {
    __shared__ float parts[FKV_CUDA_WARP];
    int lane = (int)threadIdx.x % FKV_CUDA_WARP, warp = (int)threadIdx.x / FKV_CUDA_WARP;
    x = fkv_cuda_warp_max(x);
    __syncthreads(); /* the parts of the one before this have been read */
    if (lane == 0) parts[warp] = x;
    __syncthreads();
    return fkv_cuda_warp_max(lane < (int)blockDim.x / FKV_CUDA_WARP ? parts[lane] : -INFINITY);
}

/* ---- angles ---- */
/* cos and sin of position * inv_freq. The angle is formed, and its whole turns taken off, in
 * double: positions may be large and fractional. In half turns, because sincospif has no slow path
 * for large arguments, which costs registers and a stack even where it is never taken. */
__device__ inline void fkv_cuda_turn(double position, double inv_freq, float *cosine, float *sine) {
    double turns = position * inv_freq * 0.159154943091895335769;
    sincospif((float)(2 * (turns - rint(turns))), sine, cosine);
}

#endif
