/* Strided rows of float32 to rows elsewhere, in float32 or rounded to 16 bits: copy_rows, and what
 * fetch.cu sends away.
 *
 * A block is 256 threads as a rectangle: as many across as a row has use for, the others on further
 * rows. Each thread moves four numbers at a time where everything is aligned to that, else one. 4 +
 * 2 bytes per number (fetch of 16 bits) or 8 (copy) against 4.8 TB/s: the keys of a block of 4096
 * rows x 4096 take some 20 us. cudaMemcpy2DAsync would do for copy_rows, but not convert, and it is
 * slow for narrow rows. */
#include "kernels/cuda/device.cuh"

enum { THREADS = 256 };

template <typename T, int count> struct __align__(count * sizeof(T)) pack { T at[count]; };

template <typename T, int count>
static __global__ void __launch_bounds__(THREADS)
    convert_kernel(const float *__restrict__ from, size_t from_stride, int32_t rows, int32_t packs,
                   T *__restrict__ to, size_t to_stride) {
    int32_t row = (int32_t)(blockIdx.x * blockDim.y + threadIdx.y);
    if (row >= rows) return;
    const pack<float, count> *x = (const pack<float, count> *)(from + (size_t)row * from_stride);
    pack<T, count> *y = (pack<T, count> *)(to + (size_t)row * to_stride);
    for (int32_t i = (int32_t)threadIdx.x; i < packs; i += (int32_t)blockDim.x) {
        pack<float, count> in = x[i];
        pack<T, count> out;
#pragma unroll
        for (int j = 0; j < count; j++) out.at[j] = fkv_cuda_from_float<T>(in.at[j]);
        y[i] = out;
    }
}

template <typename T>
static int convert(struct fkv_backend *b, const float *from, size_t from_stride, int32_t rows,
                   int32_t width, T *to, size_t to_stride, const char *what,
                   struct fkv_error *err) {
    bool by_four = width % 4 == 0 && from_stride % 4 == 0 && to_stride % 4 == 0 &&
                   (uintptr_t)from % (4 * sizeof(float)) == 0 &&
                   (uintptr_t)to % (4 * sizeof(T)) == 0;
    int32_t packs = by_four ? width / 4 : width;
    unsigned across = FKV_CUDA_WARP;
    while (across < THREADS && (int32_t)across < packs) across *= 2;
    dim3 block(across, THREADS / across),
        grid((unsigned)((rows + (int32_t)block.y - 1) / (int32_t)block.y));
    return fkv_cuda_launch(b, what, by_four ? convert_kernel<T, 4> : convert_kernel<T, 1>, grid,
                           block, 0, err, from, from_stride, rows, packs, to, to_stride);
}

int fkv_cuda_convert_rows(struct fkv_backend *b, const char *from, size_t from_stride, int32_t rows,
                          int32_t width, enum fkv_dtype dtype, char *to, size_t to_stride,
                          const char *what, struct fkv_error *err) {
    const float *x = (const float *)from;
    if (rows == 0 || width == 0) return FKV_OK;
    switch (dtype) {
    case FKV_F16:
        return convert(b, x, from_stride, rows, width, (__half *)to, to_stride, what, err);
    case FKV_BF16:
        return convert(b, x, from_stride, rows, width, (__nv_bfloat16 *)to, to_stride, what, err);
    default: return convert(b, x, from_stride, rows, width, (float *)to, to_stride, what, err);
    }
}

int fkv_cuda_check_rows(const struct fkv_buffer *buffer, size_t offset, size_t stride, int32_t rows,
                        int32_t width, const char *what, struct fkv_error *err) {
    size_t bytes = rows ? sizeof(float) * ((size_t)(rows - 1) * stride + (size_t)width) : 0;
    return fkv_cuda_check_range(buffer, offset, bytes, what, err);
}

int fkv_cuda_copy_rows(struct fkv_backend *b, struct fkv_buffer *to, size_t to_offset,
                       size_t to_stride, const struct fkv_buffer *from, size_t from_offset,
                       size_t from_stride, int32_t rows, int32_t width, struct fkv_error *err) {
    if (fkv_cuda_check_rows(to, to_offset, to_stride, rows, width, "copy_rows", err) ||
        fkv_cuda_check_rows(from, from_offset, from_stride, rows, width, "copy_rows", err))
        return FKV_FAILED;
    return fkv_cuda_convert_rows(b, from->data + from_offset, from_stride, rows, width, FKV_F32,
                                 to->data + to_offset, to_stride, "copy_rows", err);
}
