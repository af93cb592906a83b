/* What the files of the CUDA backend share. Nothing here is seen outside kernels/cuda.
 *
 * The backend is a module with one table (fkv_cuda_backend, backend.cu). Every operation is host
 * code that stages its item arrays, and launches kernels or library calls on one stream; nothing
 * waits unless the contract says so. Everything goes through the three calls below, because of
 * decode steps: within a step that is replayed (fkv_cuda_replaying), staging still happens and
 * launches do not, for the recorded graph will do them.
 *
 * Scratch: one block of device memory that the operation in progress owns. Its size is decided in
 * `reserve` (and map_dct): every operation states its need as a function of the limits. Kernels use
 * <ptx/...> for what has no CUDA C++ spelling, so that a test can stand in for the hardware. */
#ifndef FKV_KERNELS_CUDA_CUDA_CUH
#define FKV_KERNELS_CUDA_CUDA_CUH

#include <cublas_v2.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <cufft.h>

extern "C" {
#include "kernels/kernels.h"
#include "kernels/limits.h"
}

struct fkv_buffer {
    char *data; /* device memory */
    size_t bytes;
};

struct fkv_cuda_staging;     /* memory.cu */
struct fkv_cuda_fetching;    /* fetch.cu */
struct fkv_cuda_frequencies; /* backend.cu */
struct fkv_cuda_stopwatch;   /* stopwatch.cu */

/* STATIC_SHARED: static arrays of a kernel that asks for more dynamic shared memory than it gets
 * without asking. Both together count against what a block may have. */
enum { FKV_CUDA_RESULTS = 1 << 16, FKV_CUDA_STATIC_SHARED = 12 << 10 };

struct fkv_backend {
    int device, multiprocessors;
    size_t shared_limit; /* dynamic shared memory a block may ask for, bytes; FKV_CUDA_STATIC_SHARED
                            fits beside it */
    enum fkv_compute compute;
    cudaStream_t stream;
    cublasHandle_t blas;
    char *blas_workspace;
    struct fkv_limits limits; /* reserved so far: the largest of each field */
    char *scratch;
    size_t scratch_bytes;
    uint64_t scratch_moves; /* how often it has got a new address, which recorded steps then know
                               nothing of */
    char *results; /* [FKV_CUDA_RESULTS] host memory that kernels write to: what few bytes an
                      operation that waits hands back */
    struct fkv_cuda_staging *staging;
    struct fkv_cuda_fetching *fetching;
    struct fkv_cuda_frequencies *frequencies;
    struct fkv_cuda_spectra *spectra; /* transforms by length, spectra.cu; NULL before the first */
    struct fkv_cuda_stopwatch *stopwatch; /* NULL before the first stretch */
    struct fkv_step *step;                /* between its begin and its end, or NULL */
};

/* ---- errors ---- */
/* FKV_FAILED with a message where a call failed. Not only cudaMalloc asks for device memory: so do
 * libraries and their plans, graphs, and a kernel's first launch. The message then says what is
 * free. */
int fkv_cuda_check(cudaError_t status, const char *what, struct fkv_error *err);
int fkv_cuda_check_blas(cublasStatus_t status, const char *what, struct fkv_error *err);
int fkv_cuda_check_fft(cufftResult status, const char *what, struct fkv_error *err);

/* ---- the device ---- */
/* Makes the backend's device the calling thread's. Every entry of the table has done so; a file
 * need not. */
void fkv_cuda_use_device(const struct fkv_backend *b);
/* Device memory, 256-byte aligned. FKV_FAILED says how much `what` wanted and how much is free. */
int fkv_cuda_allocate(size_t bytes, const char *what, char **out, struct fkv_error *err);
/* Pinned host memory; cudaFreeHost takes it back. */
int fkv_cuda_allocate_pinned(size_t bytes, const char *what, char **out, struct fkv_error *err);
/* Until everything issued has run. */
int fkv_cuda_wait(struct fkv_backend *b, const char *what, struct fkv_error *err);

/* ---- enqueueing ---- */
/* A copy of host [bytes] on the device, 16-byte aligned, for the kernels launched next by this
 * operation. The host array may be reused at once. */
int fkv_cuda_stage_bytes(struct fkv_backend *b, const void *host, size_t bytes, const void **device,
                         struct fkv_error *err);
template <typename T>
static inline int fkv_cuda_stage(struct fkv_backend *b, const T *host, int32_t count,
                                 const T **device, struct fkv_error *err) {
    return fkv_cuda_stage_bytes(b, host, (size_t)count * sizeof *host, (const void **)device, err);
}

/* For operations that cannot stand within a step: FKV_FAILED within one. */
int fkv_cuda_outside_step(const struct fkv_backend *b, const char *what, struct fkv_error *err);

/* Within a replayed step: launch nothing (library calls ask this; fkv_cuda_launch does by itself).
 */
bool fkv_cuda_replaying(const struct fkv_backend *b);

/* Launches a kernel on the backend's stream with `shared` bytes of dynamic shared memory, at most
 * b->shared_limit. */
template <typename... Parameters, typename... Arguments>
static inline int fkv_cuda_launch(struct fkv_backend *b, const char *what,
                                  void (*kernel)(Parameters...), dim3 grid, dim3 block,
                                  size_t shared, struct fkv_error *err, Arguments... arguments) {
    if (fkv_cuda_replaying(b)) return FKV_OK;
    /* Raised to the most there is, always, so that no launch lowers what a recorded step was
     * promised. */
    if (shared > 32 * 1024 &&
        fkv_cuda_check(cudaFuncSetAttribute((const void *)kernel,
                                            cudaFuncAttributeMaxDynamicSharedMemorySize,
                                            (int)b->shared_limit),
                       what, err))
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
size_t fkv_cuda_attention_paid_scratch(const struct fkv_limits *limits);
size_t fkv_cuda_cache_scratch(const struct fkv_limits *limits);
size_t fkv_cuda_gather_staging(const struct fkv_limits *limits); /* its lists of slots */
size_t fkv_cuda_compress_scratch(const struct fkv_backend *b, const struct fkv_limits *limits);

/* The life of what the files own; create leaves nothing behind where it fails, release takes what
 * is half made. */
int fkv_cuda_staging_create(struct fkv_backend *b, struct fkv_error *err);
void fkv_cuda_staging_release(struct fkv_backend *b);
/* Room for all that one operation stages. */
int fkv_cuda_staging_reserve(struct fkv_backend *b, size_t bytes, struct fkv_error *err);
/* What was staged before has been launched upon: its memory is free again. */
void fkv_cuda_staging_restart(struct fkv_backend *b);
/* host [bytes] -> device memory, through pinned memory; the host's may be reused at once. Not while
 * a step is recorded. */
int fkv_cuda_upload(struct fkv_backend *b, char *device, const void *from, size_t bytes,
                    const char *what, struct fkv_error *err);
/* As fkv_cuda_stage_bytes outside a step. */
int fkv_cuda_stage_now(struct fkv_backend *b, const void *host, size_t bytes, const void **device,
                       struct fkv_error *err);
size_t fkv_cuda_staging_growth(const struct fkv_backend *b,
                               size_t bytes);                /* what staging_reserve would add */
size_t fkv_cuda_fetching_bytes(const struct fkv_backend *b); /* what the first host_create takes */
/* What a map takes, and the scratch of compressions with it. */
int fkv_cuda_map_bytes(struct fkv_backend *b, const struct fkv_limits *limits, int32_t n,
                       int32_t retained, int32_t matrices, size_t *tables, size_t *scratch,
                       struct fkv_error *err);
/* The scratch of power and spectra_add; the transform is planned. */
int fkv_cuda_spectra_scratch(struct fkv_backend *b, int32_t n, int32_t heads, int32_t head_dim,
                             size_t *scratch, struct fkv_error *err);
void fkv_cuda_fetching_release(struct fkv_backend *b);
void fkv_cuda_spectra_release(struct fkv_backend *b);
void fkv_cuda_stopwatch_release(struct fkv_backend *b);
/* An operation failed: the step in progress, if any, is off, and the stream is as before it. */
void fkv_cuda_step_abandon(struct fkv_backend *b);

/* rows.cu: rows of `width` float32, from [rows, from_stride] -> to [rows, to_stride] in `dtype`;
 * device memory, strides in elements. */
int fkv_cuda_convert_rows(struct fkv_backend *b, const char *from, size_t from_stride, int32_t rows,
                          int32_t width, enum fkv_dtype dtype, char *to, size_t to_stride,
                          const char *what, struct fkv_error *err);
/* FKV_FAILED, with `what` in the message, where bytes are outside a buffer. */
int fkv_cuda_check_range(const struct fkv_buffer *buffer, size_t offset, size_t bytes,
                         const char *what, struct fkv_error *err);
/* The same of rows of `width` float32 from byte `offset` on. */
int fkv_cuda_check_rows(const struct fkv_buffer *buffer, size_t offset, size_t stride, int32_t rows,
                        int32_t width, const char *what, struct fkv_error *err);

/* ---- device-side addresses ---- */
/* A cache as kernels see it. */
struct fkv_cuda_cache {
    char *key, *value; /* [heads, capacity, head_dim] */
    enum fkv_dtype dtype;
    int32_t capacity;
};
static inline struct fkv_cuda_cache fkv_cuda_cache(const struct fkv_cache *c) {
    struct fkv_cuda_cache view = {c->key->data + c->offset, c->value->data + c->offset, c->dtype,
                                  c->capacity};
    return view;
}

/* The frequencies of a shape on the device, [head_dim / 2] doubles, zeros where nothing turns;
 * uploaded once per set of frequencies. Refuses a rotation of a part of the channels. */
int fkv_cuda_frequencies(struct fkv_backend *b, const struct fkv_attention_shape *shape,
                         const double **device, struct fkv_error *err);

/* ---- rounding to the grid of cache->quant (quant.cu), for append, compress and gather ---- */
/* `items` are on the device; `rows`: the most of an item. */
int fkv_cuda_append_rounded(struct fkv_backend *b, const struct fkv_attention_shape *shape,
                            const struct fkv_buffer *k, const struct fkv_buffer *v,
                            const struct fkv_cache *cache, const struct fkv_append_item *items,
                            int32_t count, int32_t rows, const double *inv_freq,
                            struct fkv_error *err);
/* The `retained` slots that each item of a compression left, keys and values. */
int fkv_cuda_round_compressed(struct fkv_backend *b, const struct fkv_attention_shape *shape,
                              const struct fkv_cache *cache, const struct fkv_compress_item *items,
                              int32_t count, int32_t retained, const double *inv_freq,
                              struct fkv_error *err);
/* The keys that each item of a gather turned; `slots`: the most of an item. */
int fkv_cuda_round_gathered(struct fkv_backend *b, const struct fkv_attention_shape *shape,
                            const struct fkv_cache *cache, const struct fkv_gather_item *items,
                            int32_t count, int32_t slots, struct fkv_error *err);

/* ---- the operations: struct fkv_backend_ops says what each does ---- */
/* backend.cu */
fkv_op_probe fkv_cuda_probe;
fkv_op_open fkv_cuda_open;
fkv_op_close fkv_cuda_close;
fkv_op_info fkv_cuda_info;
fkv_op_reserve fkv_cuda_reserve;
fkv_op_add_needs fkv_cuda_add_needs;
fkv_op_synchronize fkv_cuda_synchronize;
/* stopwatch.cu */
fkv_op_time_begin fkv_cuda_time_begin;
fkv_op_time_end fkv_cuda_time_end;
fkv_op_time_read fkv_cuda_time_read;
/* memory.cu */
fkv_op_buffer_create fkv_cuda_buffer_create;
fkv_op_buffer_adopt fkv_cuda_buffer_adopt;
fkv_op_buffer_release fkv_cuda_buffer_release;
fkv_op_write fkv_cuda_write;
fkv_op_read fkv_cuda_read;
fkv_op_copy fkv_cuda_copy;
fkv_op_copy_rows fkv_cuda_copy_rows;
fkv_op_address fkv_cuda_address;
/* fetch.cu */
fkv_op_host_create fkv_cuda_host_create;
fkv_op_host_release fkv_cuda_host_release;
fkv_op_fetch fkv_cuda_fetch;
fkv_op_fetch_wait fkv_cuda_fetch_wait;
/* step.cu */
fkv_op_step_create fkv_cuda_step_create;
fkv_op_step_release fkv_cuda_step_release;
fkv_op_step_begin fkv_cuda_step_begin;
fkv_op_step_end fkv_cuda_step_end;
/* embed.cu */
fkv_op_embed fkv_cuda_embed;
/* layer.cu */
fkv_op_norm_qkv fkv_cuda_norm_qkv;
fkv_op_project_residual fkv_cuda_project_residual;
fkv_op_norm_gate_up fkv_cuda_norm_gate_up;
fkv_op_norm_logits fkv_cuda_norm_logits;
/* cache.cu */
fkv_op_append fkv_cuda_append;
fkv_op_rotate fkv_cuda_rotate;
fkv_op_gather fkv_cuda_gather;
/* attend.cu */
fkv_op_attend fkv_cuda_attend;
/* attention_paid.cu */
fkv_op_attention_paid fkv_cuda_attention_paid;
/* score.cu */
fkv_op_score fkv_cuda_score;
fkv_op_compare fkv_cuda_compare;
/* compress.cu */
fkv_op_map_dct fkv_cuda_map_dct;
fkv_op_map_matrix fkv_cuda_map_matrix;
fkv_op_map_release fkv_cuda_map_release;
fkv_op_compress fkv_cuda_compress;
/* spectra.cu */
fkv_op_power fkv_cuda_power;
fkv_op_spectra_add fkv_cuda_spectra_add;

#endif
