/* What the files of the CUDA backend share. Nothing here is seen outside kernels/cuda.
 *
 * The backend is a module with one table (fkv_cuda_backend, backend.cu). Every operation is host code that stages its item arrays, and launches kernels or library calls
 * on one stream; nothing waits unless the contract says so. Everything goes through the three calls below, because of decode steps: within a step that is
 * replayed (fkv_cuda_replaying), staging still happens and launches do not, for the recorded graph will do them.
 *
 * Scratch: one block of device memory that the operation in progress owns. Its size is settled in `reserve` (and map_dct): every operation states its need
 * as a function of the limits. Kernels use <ptx/...> for what has no CUDA C++ spelling, so that a test can stand in for the hardware. */
#ifndef FKV_KERNELS_CUDA_CUDA_CUH
#define FKV_KERNELS_CUDA_CUDA_CUH

#include <cublas_v2.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <cufft.h>

extern "C" {
#include "kernels/kernels.h"
}

struct fkv_buffer {
    char *data; /* device memory */
    size_t bytes;
};

struct fkv_cuda_staging; /* backend.cu */

struct fkv_backend {
    int device, multiprocessors;
    size_t shared_limit; /* dynamic shared memory a block may ask for, bytes */
    enum fkv_compute compute;
    cudaStream_t stream;
    cublasHandle_t blas;
    struct fkv_limits limits; /* reserved so far: the largest of each field */
    char *scratch;
    size_t scratch_bytes;
    struct fkv_cuda_staging *staging;
    struct fkv_cuda_fetch *fetching; /* fetch.cu */
    struct fkv_step *step;           /* being recorded or replayed, or NULL */
};

/* ---- errors ---- */
int fkv_cuda_check(cudaError_t status, const char *what, struct fkv_error *err);
int fkv_cuda_check_blas(cublasStatus_t status, const char *what, struct fkv_error *err);
int fkv_cuda_check_fft(cufftResult status, const char *what, struct fkv_error *err);

/* ---- enqueueing ---- */
/* A copy of host [bytes] on the device, 16-byte aligned, for the kernels launched next by this operation. The host array may be reused at once. */
int fkv_cuda_stage_bytes(struct fkv_backend *b, const void *host, size_t bytes, const void **device,
                         struct fkv_error *err);
template <typename T>
static inline int fkv_cuda_stage(struct fkv_backend *b, const T *host, int32_t count, const T **device,
                                 struct fkv_error *err) {
    return fkv_cuda_stage_bytes(b, host, (size_t)count * sizeof *host, (const void **)device, err);
}

/* Within a replayed step: launch nothing (library calls ask this; fkv_cuda_launch does by itself). */
bool fkv_cuda_replaying(const struct fkv_backend *b);

/* Launches a kernel on the backend's stream with `shared` bytes of dynamic shared memory (raising the kernel's limit where it is above 48 KiB). */
template <typename... Parameters, typename... Arguments>
static inline int fkv_cuda_launch(struct fkv_backend *b, const char *what, void (*kernel)(Parameters...), dim3 grid,
                                  dim3 block, size_t shared, struct fkv_error *err, Arguments... arguments) {
    if (fkv_cuda_replaying(b)) return FKV_OK;
    if (shared > 48 * 1024 &&
        fkv_cuda_check(
            cudaFuncSetAttribute((const void *)kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared), what,
            err))
        return FKV_FAILED;
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared;
    config.stream = b->stream;
    return fkv_cuda_check(cudaLaunchKernelEx(&config, kernel, (Parameters)arguments...), what, err);
}

/* Makes the scratch at least so large; called by reserve and map_dct, never within a step. */
int fkv_cuda_grow_scratch(struct fkv_backend *b, size_t bytes, struct fkv_error *err);
size_t fkv_cuda_matmul_scratch(const struct fkv_limits *limits);
size_t fkv_cuda_attend_scratch(const struct fkv_backend *b, const struct fkv_limits *limits);
size_t fkv_cuda_cache_scratch(const struct fkv_limits *limits);
size_t fkv_cuda_compress_scratch(const struct fkv_backend *b, const struct fkv_limits *limits);

/* ---- device-side addresses ---- */
/* A cache as kernels see it. */
struct fkv_cuda_cache {
    char *key, *value; /* [heads, capacity, head_dim] */
    enum fkv_dtype dtype;
    int32_t capacity;
};
static inline struct fkv_cuda_cache fkv_cuda_cache(const struct fkv_cache *c) {
    struct fkv_cuda_cache view = {c->key->data + c->offset, c->value->data + c->offset, c->dtype, c->capacity};
    return view;
}

/* The frequencies of a shape on the device, [head_dim / 2] doubles; uploaded once per set of frequencies. */
int fkv_cuda_frequencies(struct fkv_backend *b, const struct fkv_attention_shape *shape, const double **device,
                         struct fkv_error *err);

/* ---- the operations, in the order of struct fkv_backend_ops ---- */
/* fetch.cu: fkv_cuda_host_create, host_release, fetch, fetch_wait. step.cu: step_create, step_release, step_begin, step_end. memory.cu: buffers. Declared where they
 * are defined and gathered in backend.cu. */

#endif
