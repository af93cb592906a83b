/* Shared memory whose size is chosen at the launch, and copies into it that run during the
 * arithmetic. */
#ifndef FKV_KERNELS_CUDA_PTX_SHARED_CUH
#define FKV_KERNELS_CUDA_PTX_SHARED_CUH

#include <cuda_runtime.h>
#include <stdint.h>

/* The block's dynamic shared memory, 128-byte aligned. */
__device__ inline char *ptx_dynamic_shared() {
    extern __shared__ __align__(128) char memory[];
    return memory;
}

/* 16 bytes from global to shared memory, asynchronously; zeros where not `valid` (the source is
 * then not read). Both addresses 16-byte aligned. */
__device__ inline void ptx_copy_async(void *shared, const void *global, bool valid) {
    uint32_t address = (uint32_t)__cvta_generic_to_shared(shared);
    int bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(global),
                 "r"(bytes)
                 : "memory");
}

__device__ inline void ptx_copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

/* Waits until at most `pending` of this thread's groups are on their way. A barrier must follow
 * before other threads read. */
template <int pending> __device__ inline void ptx_copy_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

#endif
