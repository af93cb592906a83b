/* Products of many rows, by cuBLAS: y [rows, out] = x [rows, in] W^T, W (out, in) in the
 * checkpoint's own dtype. Row-major arrays are column-major ones transposed, so the call is C (out,
 * rows) = op_T(W) op_N(x), leading dimensions in, in, out.
 *
 * Dtypes. A product runs in W's dtype (native), in float32 (--compute f32) or in bfloat16
 * (--compute bf16); the caller hands over rows in that dtype. Sums are float32: CUBLAS_COMPUTE_32F
 * for 16 bits; float32 runs CUBLAS_COMPUTE_32F_PEDANTIC, which has no TF32 and no reshaped sums. A
 * residual is added by the product itself (beta = 1 into float32), so x is read and written once.
 * float16 rows saturate at 65504 instead of becoming infinite: one clipped number is wrong by
 * itself, an infinite one would take its whole row along. (A normed row stays below sqrt(dim) times
 * the norm's weight; clipping can only meet the MLP's inner width.)
 *
 * Weights of another dtype than the product's are converted PANEL bytes of output rows at a time,
 * in scratch that stays in the second-level cache, and multiplied panel by panel. W (4096, 4096):
 * bf16 -> f32 reads 34 MB and writes 67 MB, 23 us of memory time beside a float32 product of 512
 * rows, about 300 us at 60 TFLOP/s; f32 -> bf16 (--compute bf16 of a float32 checkpoint) reads 67
 * MB and writes 34 MB beside a product of 512 rows, 22 us at 790 TFLOP/s: the conversion costs as
 * much as the product there, and a quarter of it at 2048 rows. It is paid per product, since a
 * second copy of the weights is never held.
 *
 * Rows to 16 bits: 6 bytes per number, 11008 x 4096 in 63 us at 4.3 TB/s beside 0.47 ms of product.
 *
 * Considered and not done: one product for q, k and v (the checkpoint has three matrices; two
 * thirds of a multiprocessor wave stay empty in k and v of a GQA model at 512 rows, about 5% of a
 * layer's product time). The backend gives the handle its workspace, once, so that
 * results do not depend on streams and a product can be recorded in a graph. Figures are arithmetic
 * until measured on a GPU. */
#include "kernels/cuda/matmul.cuh"

enum { THREADS = 256, AT_ONCE = 4, TILE = 128 };
static const size_t PANEL = (size_t)32 << 20, CARVE = 256;

/* ---- scratch ---- */
static size_t carved(size_t bytes) { return (bytes + CARVE - 1) / CARVE * CARVE; }

int fkv_cuda_carve(struct fkv_cuda_carving *c, size_t bytes, void **out, struct fkv_error *err) {
    if (c->used + carved(bytes) > c->b->scratch_bytes)
        return fkv_fail(err, "matrix product: %zu bytes of scratch are needed, %zu are reserved",
                        c->used + bytes, c->b->scratch_bytes);
    *out = c->b->scratch + c->used;
    c->used += carved(bytes);
    return FKV_OK;
}

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

/* Rows in the product's dtype (the widest input in 16 bits, or the normed rows in float32), gate
 * and up (both in 16 bits, or one in float32) or what a projection adds before its norm, a panel of
 * weights in float32, and exponents of rows. */
size_t fkv_cuda_matmul_scratch(const struct fkv_limits *l) {
    size_t dim = (size_t)l->dim, hidden = (size_t)l->hidden, rows = (size_t)l->rows,
           heads = (size_t)l->attention.heads * (size_t)l->attention.head_dim,
           widest = larger(larger(dim, hidden), heads);
    size_t weight = sizeof(float) * widest * larger(widest, (size_t)l->vocab);
    return carved(rows * larger(sizeof(float) * dim, 2 * widest)) +
           carved(sizeof(float) * rows * larger(hidden, dim)) + CARVE +
           carved(sizeof(int32_t) * rows) +
           carved(larger(weight < PANEL ? weight : PANEL, sizeof(float) * widest));
}

/* ---- conversion ---- */
/* from [count] -> to [count]; `to` and, where `vectors`, `from` start on a multiple of four
 * numbers. */
template <typename From, typename To>
static __global__ void convert_kernel(const From *from, int64_t count, bool vectors, To *to) {
    int64_t i = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * AT_ONCE;
    if (vectors && i + AT_ONCE <= count) {
        struct fkv_cuda_four<From> x = *(const struct fkv_cuda_four<From> *)(from + i);
        struct fkv_cuda_four<To> y;
#pragma unroll
        for (int j = 0; j < AT_ONCE; j++)
            y.at[j] = fkv_cuda_from_float<To>(fkv_cuda_to_float(x.at[j]));
        *(struct fkv_cuda_four<To> *)(to + i) = y;
        return;
    }
    for (int64_t end = i + AT_ONCE < count ? i + AT_ONCE : count; i < end; i++)
        to[i] = fkv_cuda_from_float<To>(fkv_cuda_to_float(from[i]));
}

template <typename From, typename To>
static int launch_conversion(struct fkv_backend *b, const void *from, size_t count, void *to,
                             struct fkv_error *err) {
    size_t per_block = (size_t)THREADS * AT_ONCE;
    return fkv_cuda_launch(b, "conversion", convert_kernel<From, To>,
                           dim3((unsigned)((count + per_block - 1) / per_block)), dim3(THREADS), 0,
                           err, (const From *)from, (int64_t)count,
                           (uintptr_t)from % sizeof(struct fkv_cuda_four<From>) == 0, (To *)to);
}

/* To float32 or bfloat16. */
template <typename From>
static int convert_from(struct fkv_backend *b, const void *from, size_t count, enum fkv_dtype type,
                        void *to, struct fkv_error *err) {
    return type == FKV_F32 ? launch_conversion<From, float>(b, from, count, to, err)
                           : launch_conversion<From, __nv_bfloat16>(b, from, count, to, err);
}

static int convert(struct fkv_backend *b, const void *from, enum fkv_dtype from_type, size_t count,
                   enum fkv_dtype type, void *to, struct fkv_error *err) {
    switch (from_type) {
    case FKV_F32: return convert_from<float>(b, from, count, type, to, err);
    case FKV_F16: return convert_from<__half>(b, from, count, type, to, err);
    default: return convert_from<__nv_bfloat16>(b, from, count, type, to, err);
    }
}

/* Numbers threadIdx.x, threadIdx.x + THREADS, .. of a row, AT_ONCE together where `vectors`. */
template <typename Visit>
static __device__ inline void visit_row(const float *x, int32_t width, bool vectors, Visit visit) {
    const int32_t packs = vectors ? width / AT_ONCE : 0;
    for (int32_t i = (int32_t)threadIdx.x; i < packs; i += THREADS) {
        float4 v = ((const float4 *)x)[i];
        visit(AT_ONCE * i, v.x), visit(AT_ONCE * i + 1, v.y), visit(AT_ONCE * i + 2, v.z),
            visit(AT_ONCE * i + 3, v.w);
    }
    for (int32_t i = AT_ONCE * packs + (int32_t)threadIdx.x; i < width; i += THREADS)
        visit(i, x[i]);
}

/* x [rows, width] -> out [rows, width], each row 2^exponent times smaller; grid: rows. `vectors`:
 * width is a multiple of four. */
static __global__ void __launch_bounds__(THREADS)
    round_rows_kernel(const float *x, int32_t width, bool vectors, __half *out,
                      int32_t *exponents) {
    x += (int64_t)blockIdx.x * width, out += (int64_t)blockIdx.x * width;
    float largest = 0;
    visit_row(x, width, vectors,
              [&](int32_t, float value) { largest = fmaxf(largest, fabsf(value)); });
    const int32_t exponent = fkv_cuda_row_exponent(fkv_cuda_block_max(largest));
    const float factor = fkv_cuda_power_of_two(-exponent);
    visit_row(x, width, vectors,
              [&](int32_t i, float value) { out[i] = __float2half_rn(value * factor); });
    if (threadIdx.x == 0) exponents[blockIdx.x] = exponent;
}

/* x [rows, width], rows times 2^(sign exponent) in place; grid: rows. */
static __global__ void __launch_bounds__(THREADS)
    scale_rows_kernel(float *x, int32_t width, const int32_t *exponents, int32_t sign) {
    const int32_t exponent = exponents[blockIdx.x];
    if (!exponent) return;
    const float factor = fkv_cuda_power_of_two(sign * exponent);
    x += (int64_t)blockIdx.x * width;
    for (int32_t i = (int32_t)threadIdx.x; i < width; i += THREADS) x[i] *= factor;
}

static int scale_rows(struct fkv_backend *b, const struct fkv_cuda_gemm *p, int32_t rows,
                      int32_t sign, struct fkv_error *err) {
    return fkv_cuda_launch(b, "matrix product", scale_rows_kernel, dim3((unsigned)rows),
                           dim3(THREADS), 0, err, (float *)p->out, p->w->rows, p->exponents, sign);
}

/* ---- products ---- */
enum fkv_dtype fkv_cuda_gemm_dtype(const struct fkv_backend *b, const struct fkv_weight *w) {
    switch (b->compute) {
    case FKV_COMPUTE_F32: return FKV_F32;
    case FKV_COMPUTE_BF16: return FKV_BF16;
    default: return fkv_weight_dtype(w);
    }
}

static cudaDataType_t data_type(enum fkv_dtype t) {
    return t == FKV_F32 ? CUDA_R_32F : t == FKV_F16 ? CUDA_R_16F : CUDA_R_16BF;
}

/* `count` output rows from `first` on; w: the first of them, in `type`. */
static int multiply(struct fkv_backend *b, const struct fkv_cuda_gemm *p, enum fkv_dtype type,
                    const void *w, int32_t first, int32_t count, int32_t rows,
                    struct fkv_error *err) {
    if (fkv_cuda_replaying(b)) return FKV_OK;
    const float one = 1, beta = p->add ? 1 : 0;
    char *out = (char *)p->out + (size_t)first * fkv_dtype_bytes(p->out_dtype);
    return fkv_cuda_check_blas(
        cublasGemmEx(b->blas, CUBLAS_OP_T, CUBLAS_OP_N, count, rows, p->w->cols, &one, w,
                     data_type(type), p->w->cols, p->in, data_type(type), p->w->cols, &beta, out,
                     data_type(p->out_dtype), p->w->rows,
                     type == FKV_F32 ? CUBLAS_COMPUTE_32F_PEDANTIC : CUBLAS_COMPUTE_32F,
                     CUBLAS_GEMM_DEFAULT),
        "matrix product", err);
}

static int multiply_panels(struct fkv_cuda_carving *c, const struct fkv_cuda_gemm *p, int32_t rows,
                           struct fkv_error *err) {
    const struct fkv_weight *w = p->w;
    const enum fkv_dtype type = fkv_cuda_gemm_dtype(c->b, w);
    if (type == fkv_weight_dtype(w))
        return multiply(c->b, p, type, fkv_cuda_weight(w), 0, w->rows, rows, err);

    size_t row = (size_t)w->cols * fkv_dtype_bytes(type), fit = PANEL / row;
    if (fit > TILE) fit -= fit % TILE;
    int32_t height = fit < 1 ? 1 : fit < (size_t)w->rows ? (int32_t)fit : w->rows;
    struct fkv_cuda_carving scratch = *c; /* the panel goes back when the product is done */
    void *panel = NULL;
    if (fkv_cuda_carve(&scratch, (size_t)height * row, &panel, err)) return FKV_FAILED;
    for (int32_t first = 0; first < w->rows; first += height) {
        int32_t count = w->rows - first < height ? w->rows - first : height;
        size_t skipped = (size_t)first * (size_t)w->cols;
        if (convert(c->b, fkv_cuda_weight(w) + skipped * fkv_dtype_bytes(fkv_weight_dtype(w)),
                    fkv_weight_dtype(w), (size_t)count * (size_t)w->cols, type, panel, err) ||
            multiply(c->b, p, type, panel, first, count, rows, err))
            return FKV_FAILED;
    }
    return FKV_OK;
}

int fkv_cuda_gemm(struct fkv_cuda_carving *c, const struct fkv_cuda_gemm *p, int32_t rows,
                  struct fkv_error *err) {
    if (p->exponents && p->add && scale_rows(c->b, p, rows, -1, err)) return FKV_FAILED;
    if (multiply_panels(c, p, rows, err)) return FKV_FAILED;
    return p->exponents ? scale_rows(c->b, p, rows, 1, err) : FKV_OK;
}

int fkv_cuda_round(struct fkv_cuda_carving *c, const float *x, int32_t rows,
                   struct fkv_cuda_gemm *p, struct fkv_error *err) {
    const enum fkv_dtype to = fkv_cuda_gemm_dtype(c->b, p->w);
    const size_t count = (size_t)rows * (size_t)p->w->cols;
    p->in = x;
    if (to == FKV_F32) return FKV_OK;
    void *rounded = NULL, *exponents = NULL;
    if (fkv_cuda_carve(c, count * fkv_dtype_bytes(to), &rounded, err)) return FKV_FAILED;
    p->in = rounded;
    if (to != FKV_F16) return convert(c->b, x, FKV_F32, count, to, rounded, err);
    if (fkv_cuda_carve(c, (size_t)rows * sizeof(int32_t), &exponents, err)) return FKV_FAILED;
    p->exponents = (const int32_t *)exponents;
    return fkv_cuda_launch(c->b, "conversion", round_rows_kernel, dim3((unsigned)rows),
                           dim3(THREADS), 0, err, x, p->w->cols, p->w->cols % AT_ONCE == 0,
                           (__half *)rounded, (int32_t *)exponents);
}
