/* What the two halves of fused compression share: the plan, which compress_plan.cu makes on the
 * host and the kernel of compress_fused.cu reads on the device. */
#ifndef FKV_KERNELS_CUDA_COMPRESS_FUSED_CUH
#define FKV_KERNELS_CUDA_COMPRESS_FUSED_CUH

#include "kernels/cuda/compress.cuh"

enum {
    FKV_CUDA_FUSED_THREADS = 512, /* of a block, at most */
    FKV_CUDA_PASSES = 8,
    FKV_CUDA_HELD =
        13,            /* pairs of rows that a thread holds between two spectra; more would spill */
    FKV_CUDA_NEAR = 64 /* slots per entry of the coarse table of angles */
};

/* One factor p of a length: m butterflies in each of length / (p m) runs. */
struct fkv_cuda_pass {
    int32_t p, m, stride; /* stride: m in padded rows */
    uint32_t
        inverse; /* ceil(2^32 / m): numbers up to 2^16 are divided by m >= 2 with it, exactly */
    const float2 *turns; /* [p - 1][m]: exp(-2 pi i q k / (p m)), k = 1 .. p - 1 */
};

struct fkv_cuda_transform {
    int32_t length, passes, padding; /* padding: shift of the row number, 31 for none */
    struct fkv_cuda_pass pass[FKV_CUDA_PASSES];
    const uint16_t *frequency_row; /* [length] row of frequency t after the passes */
};

/* Stands on the device, before its tables. */
struct fkv_cuda_plan {
    struct fkv_cuda_transform forward, inverse;
    const float2 *last_n, *last_l; /* [L], [L/2 + 1] */
    int32_t log_columns;
};

struct fkv_cuda_fused {
    char *tables; /* [table_bytes] on the device: the plan and all it points to */
    size_t table_bytes;
    int32_t log_columns, threads;
    size_t shared;
};

#endif
