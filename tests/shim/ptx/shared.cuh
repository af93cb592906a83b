/* Twin of kernels/cuda/ptx/shared.cuh. A copy arrives as late as it may, at the wait that covers
 * it; until then its destination is NaN. */
#ifndef FKV_SHIM_PTX_SHARED_CUH
#define FKV_SHIM_PTX_SHARED_CUH

#include <cuda_runtime.h>

static inline char *ptx_dynamic_shared() { return shim_dynamic_shared(); }
static inline void ptx_copy_async(void *shared, const void *global, bool valid) {
    shim_copy_async(shared, global, valid);
}
static inline void ptx_copy_commit() { shim_copy_commit(); }
template <int pending> static inline void ptx_copy_wait() { shim_copy_wait(pending); }

#endif
