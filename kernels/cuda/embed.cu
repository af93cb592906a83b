/* The embedding: rows of a table, by token, as float32. A block per row. It reads 2 bytes and
 * writes 4 per number, 0.1 GB for 4096 rows of 4096, which is 0.02 ms against the 70 ms of the
 * layers that follow, so it is written for any width and alignment and not for speed. */
#include "kernels/cuda/device.cuh"

enum { THREADS = 256 };

template <typename T>
static __global__ void __launch_bounds__(THREADS)
    embed_kernel(const void *__restrict__ table, const int32_t *__restrict__ tokens, int32_t dim,
                 float multiplier, float *__restrict__ x) {
    const T *from = (const T *)table + (size_t)tokens[blockIdx.x] * (size_t)dim;
    float *to = x + (size_t)blockIdx.x * (size_t)dim;
    for (int32_t i = (int32_t)threadIdx.x; i < dim; i += THREADS)
        to[i] = multiplier * fkv_cuda_to_float(from[i]);
}

int fkv_cuda_embed(struct fkv_backend *b, const struct fkv_weight *table, float multiplier,
                   const int32_t *tokens, int32_t rows, struct fkv_buffer *x,
                   struct fkv_error *err) {
    for (int32_t r = 0; r < rows; r++)
        if (tokens[r] < 0 || tokens[r] >= table->rows)
            return fkv_fail(err, "token %d of the block: expected an id in [0, %d), found %d", r,
                            table->rows, tokens[r]);
    const int32_t *staged;
    if (fkv_cuda_stage(b, tokens, rows, &staged, err)) return FKV_FAILED;
    return fkv_cuda_launch(b, "embed",
                           fkv_cuda_pick(fkv_weight_dtype(table), embed_kernel<float>,
                                         embed_kernel<__half>, embed_kernel<__nv_bfloat16>),
                           dim3((unsigned)rows), dim3(THREADS), 0, err,
                           table->data->data + table->offset, staged, table->cols, multiplier,
                           (float *)x->data);
}
