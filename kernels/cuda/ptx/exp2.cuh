/* 2^x by the special-function unit: relative error 2^-22, results below 2^-126 are 0, -infinity
 * gives 0 and NaN stays NaN. exp2f without fast-math flags adds four instructions around it for
 * subnormal results, which a softmax weight has no use for. */
#ifndef FKV_KERNELS_CUDA_PTX_EXP2_CUH
#define FKV_KERNELS_CUDA_PTX_EXP2_CUH

#include <cuda_runtime.h>

__device__ inline float ptx_exp2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

#endif
