/* Twin of kernels/cuda/ptx/stream.cuh. */
#ifndef FKV_SHIM_PTX_STREAM_CUH
#define FKV_SHIM_PTX_STREAM_CUH

#include <cuda_runtime.h>

static inline uint4 ptx_load_streamed(const void *global) { return *(const uint4 *)global; }

#endif
