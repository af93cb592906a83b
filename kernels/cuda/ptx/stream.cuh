/* Loads of what is read once: weights on their way through a matrix-vector product. */
#ifndef FKV_KERNELS_CUDA_PTX_STREAM_CUH
#define FKV_KERNELS_CUDA_PTX_STREAM_CUH

#include <cuda_runtime.h>

/* 16 bytes of memory that nothing writes while the kernel runs, 16-byte aligned, without a line in
 * the first-level cache: that one is for what is read again. Volatile, so that loads are issued
 * where they stand, ahead of the arithmetic on them. */
__device__ inline uint4 ptx_load_streamed(const void *global) {
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(global));
    return v;
}

#endif
