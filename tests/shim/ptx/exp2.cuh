/* Twin of kernels/cuda/ptx/exp2.cuh: exact but for the subnormal results, which are 0. */
#ifndef FKV_SHIM_PTX_EXP2_CUH
#define FKV_SHIM_PTX_EXP2_CUH

#include <cuda_runtime.h>

static inline float ptx_exp2(float x) {
    float y = exp2f(x);
    return y < 0x1p-126f ? 0 : y;
}

#endif
