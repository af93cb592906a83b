/* The matrix products of a layer with what surrounds them: RMSNorm before, biases, head norms,
 * the gate's activation, output norms and the residual after.
 *
 * Up to FKV_CUDA_FEW_ROWS rows go to gemv.cu, which does all of an operation in one launch (head
 * norms take a second). More rows:
 *
 *   norm_qkv          norm_rows (x -> rows in the product's dtype), a product each for q, k, v, and
 *                     where the model has them one kernel for biases and head norms
 *   project_residual  rows rounded to the product's dtype, a product added to x; where it is
 *                     normalised or scaled before, a product and add_rows
 *   norm_gate_up      norm_rows, a product each for gate and up, gate
 *   norm_logits       norm_rows, a product, and where the model has them scale and cap
 *
 * Matrices of different dtypes go the second way at any number of rows, each in its own.
 *
 * Memory traffic beside the products, bytes per number, 16-bit products: norm_rows 4 + 2 (x is read
 * again from the first-level cache); q, k, v and x leave as float32. The MLP's inner width costs
 * 18: gate and up written by the products in bfloat16 (2 + 2, rounded as every framework in 16 bits
 * does) and read by gate (4), `hidden` written in float32 as the contract says (4), read and
 * rounded for the down projection (4 + 2). It costs 26 with gate and up in float32, which a float16
 * checkpoint gets: float16 would end at 65504. LLaMA-2-7B, 4096 rows: 0.81 GB, 0.19 ms at 4.3 TB/s,
 * beside 2.1 ms for the layer's 1.66 TFLOP at 790 TFLOP/s.
 *
 * Kernels. norm_rows: a block per row, four numbers per thread and step, the sum of squares in
 * float32. heads: a warp per row and head. gate: elementwise. All are bound by memory.
 *
 * Considered and not done: a 16-bit copy of `hidden` kept for project_residual (4 bytes of the 18,
 * but state that hides between two operations); SwiGLU as the end of an own product on tensor cores
 * (8 of the 18). Figures are arithmetic until measured on a GPU. */
#include <type_traits>

#include "kernels/cuda/matmul.cuh"

enum { THREADS = 256, AT_ONCE = 4, WARPS = THREADS / FKV_CUDA_WARP };

static const float *floats(const struct fkv_buffer *b) { return (const float *)b->data; }
static float *floats(struct fkv_buffer *b) { return (float *)b->data; }

/* ---- RMSNorm ---- */
/* Numbers [0, left) of `from`, at most four, and zeros after them. */
static __device__ inline void take(const float *from, int32_t left, bool vectors,
                                   float x[AT_ONCE]) {
    if (vectors) {
        float4 v = *(const float4 *)from;
        x[0] = v.x, x[1] = v.y, x[2] = v.z, x[3] = v.w;
        return;
    }
#pragma unroll
    for (int j = 0; j < AT_ONCE; j++) x[j] = j < left ? from[j] : 0;
}

/* `vectors`: dim is a multiple of four. Rows of float16 leave 2^exponent times smaller where they
 * would not fit (matmul.cuh). */
template <typename T>
static __global__ void __launch_bounds__(THREADS)
    norm_rows_kernel(const float *x, const void *norm, enum fkv_dtype norm_dtype, float eps,
                     int32_t dim, bool vectors, T *out, int32_t *exponents) {
    constexpr bool HALF = std::is_same<T, __half>::value;
    x += (int64_t)blockIdx.x * dim;
    out += (int64_t)blockIdx.x * dim;
    float squares = 0, largest = 0, v[AT_ONCE];
    for (int32_t i = (int32_t)threadIdx.x * AT_ONCE; i < dim; i += THREADS * AT_ONCE) {
        take(x + i, dim - i, vectors, v);
#pragma unroll
        for (int j = 0; j < AT_ONCE; j++) {
            squares = fmaf(v[j], v[j], squares);
            if (HALF && i + j < dim)
                largest = fmaxf(largest, fabsf(v[j] * fkv_cuda_number(norm, norm_dtype, i + j)));
        }
    }
    float scale = rsqrtf(fkv_cuda_block_sum(squares) / (float)dim + eps);
    if constexpr (HALF) {
        int32_t exponent = fkv_cuda_row_exponent(fkv_cuda_block_max(largest) * scale);
        scale *= fkv_cuda_power_of_two(-exponent);
        if (threadIdx.x == 0) exponents[blockIdx.x] = exponent;
    }
    for (int32_t i = (int32_t)threadIdx.x * AT_ONCE; i < dim; i += THREADS * AT_ONCE) {
        struct fkv_cuda_four<T> y;
        take(x + i, dim - i, vectors, v);
#pragma unroll
        for (int j = 0; j < AT_ONCE; j++)
            y.at[j] = fkv_cuda_from_float<T>(
                i + j < dim ? v[j] * scale * fkv_cuda_number(norm, norm_dtype, i + j) : 0);
        if (vectors)
            *(struct fkv_cuda_four<T> *)(out + i) = y;
        else
#pragma unroll
            for (int j = 0; j < AT_ONCE; j++)
                if (i + j < dim) out[i + j] = y.at[j];
    }
}

template <typename T>
static int launch_norm(struct fkv_backend *b, const struct fkv_weight *norm, float eps,
                       const float *x, int32_t rows, void *out, int32_t *exponents,
                       struct fkv_error *err) {
    return fkv_cuda_launch(b, "norm", norm_rows_kernel<T>, dim3((unsigned)rows), dim3(THREADS), 0,
                           err, x, (const void *)fkv_cuda_weight(norm), fkv_weight_dtype(norm), eps,
                           norm->cols, norm->cols % AT_ONCE == 0, (T *)out, exponents);
}

int fkv_cuda_norm_rows(struct fkv_backend *b, const struct fkv_weight *norm, float eps,
                       const float *x, int32_t rows, enum fkv_dtype to, void *out,
                       int32_t *exponents, struct fkv_error *err) {
    switch (to) {
    case FKV_F32: return launch_norm<float>(b, norm, eps, x, rows, out, exponents, err);
    case FKV_F16: return launch_norm<__half>(b, norm, eps, x, rows, out, exponents, err);
    default: return launch_norm<__nv_bfloat16>(b, norm, eps, x, rows, out, exponents, err);
    }
}

/* Products of the normed rows of x, which are made anew where a matrix needs them in another dtype
 * than the one before. */
static int norm_and_multiply(struct fkv_cuda_carving *c, const struct fkv_weight *norm, float eps,
                             const float *x, struct fkv_cuda_gemm *products, int count,
                             int32_t rows, struct fkv_error *err) {
    struct fkv_cuda_carving scratch;
    for (int i = 0; i < count; i++) {
        enum fkv_dtype type = fkv_cuda_gemm_dtype(c->b, products[i].w);
        if (i && type == fkv_cuda_gemm_dtype(c->b, products[i - 1].w)) {
            products[i].in = products[i - 1].in;
            products[i].exponents = products[i - 1].exponents;
        } else {
            void *normed, *exponents = NULL;
            scratch = *c;
            if (!norm->data) {
                if (fkv_cuda_round(&scratch, x, rows, &products[i], err)) return FKV_FAILED;
            } else if (fkv_cuda_carve(&scratch,
                                      (size_t)rows * (size_t)norm->cols * fkv_dtype_bytes(type),
                                      &normed, err) ||
                       (type == FKV_F16 && fkv_cuda_carve(&scratch, (size_t)rows * sizeof(int32_t),
                                                          &exponents, err)) ||
                       fkv_cuda_norm_rows(c->b, norm, eps, x, rows, type, normed,
                                          (int32_t *)exponents, err)) {
                return FKV_FAILED;
            } else {
                products[i].in = normed;
                products[i].exponents = (const int32_t *)exponents;
            }
        }
        if (fkv_cuda_gemm(&scratch, &products[i], rows, err)) return FKV_FAILED;
    }
    return FKV_OK;
}

/* ---- biases and head norms ---- */
struct heads {
    float *x;                /* [rows, heads, head_dim], in place */
    const void *bias, *norm; /* [heads, head_dim], [head_dim]; NULL: none */
    enum fkv_dtype bias_dtype, norm_dtype;
    int32_t heads;
};

struct heads_arguments {
    struct heads of[3]; /* q, k, v */
    int32_t rows, head_dim;
    float eps;
};

/* A lane reads again what it wrote itself, so no barrier is between the two passes. */
static __global__ void __launch_bounds__(THREADS) heads_kernel(struct heads_arguments a) {
    int lane = (int)threadIdx.x % FKV_CUDA_WARP;
    int32_t all = a.of[0].heads + a.of[1].heads + a.of[2].heads;
    int64_t unit = (int64_t)blockIdx.x * WARPS + threadIdx.x / FKV_CUDA_WARP, row = unit / all;
    int32_t head = (int32_t)(unit % all);
    if (row >= a.rows) return;
    struct heads h = a.of[0];
    if (head >= h.heads) {
        head -= h.heads;
        h = a.of[1];
        if (head >= h.heads) {
            head -= h.heads;
            h = a.of[2];
        }
    }
    if (!h.bias && !h.norm) return;
    float *x = h.x + (row * h.heads + head) * a.head_dim, squares = 0;
    for (int32_t i = lane; i < a.head_dim; i += FKV_CUDA_WARP) {
        float value = x[i];
        if (h.bias) value += fkv_cuda_number(h.bias, h.bias_dtype, head * a.head_dim + i);
        squares = fmaf(value, value, squares);
        x[i] = value;
    }
    if (!h.norm) return;
    float scale = rsqrtf(fkv_cuda_warp_sum(squares) / (float)a.head_dim + a.eps);
    for (int32_t i = lane; i < a.head_dim; i += FKV_CUDA_WARP)
        x[i] *= scale * fkv_cuda_number(h.norm, h.norm_dtype, i);
}

static struct heads heads_of(struct fkv_buffer *x, int32_t heads, const struct fkv_weight *bias,
                             const struct fkv_weight *norm) {
    struct heads h = {};
    h.x = floats(x);
    h.heads = heads;
    if (bias && bias->data) h.bias = fkv_cuda_weight(bias), h.bias_dtype = fkv_weight_dtype(bias);
    if (norm && norm->data) h.norm = fkv_cuda_weight(norm), h.norm_dtype = fkv_weight_dtype(norm);
    return h;
}

static int finish_heads(struct fkv_backend *b, const struct heads_arguments *a,
                        struct fkv_error *err) {
    bool needed = false;
    int64_t units = 0;
    for (int i = 0; i < 3; i++) {
        needed = needed || a->of[i].bias || a->of[i].norm;
        units += (int64_t)a->rows * a->of[i].heads;
    }
    if (!needed) return FKV_OK;
    return fkv_cuda_launch(b, "head norm", heads_kernel,
                           dim3((unsigned)((units + WARPS - 1) / WARPS)), dim3(THREADS), 0, err,
                           *a);
}

/* A norm over all heads of a row, in place: a thread writes the numbers that it has read itself. */
static int norm_whole(struct fkv_backend *b, const struct fkv_weight *norm, float eps, int32_t rows,
                      struct fkv_buffer *x, int32_t head_dim, struct fkv_error *err) {
    if (!norm->data || norm->cols == head_dim) return FKV_OK;
    return fkv_cuda_norm_rows(b, norm, eps, floats(x), rows, FKV_F32, floats(x), NULL, err);
}

int fkv_cuda_norm_qkv(struct fkv_backend *b, const struct fkv_attention_shape *shape,
                      const struct fkv_qkv_weights *w, const struct fkv_buffer *x, int32_t rows,
                      struct fkv_buffer *q, struct fkv_buffer *k, struct fkv_buffer *v,
                      struct fkv_error *err) {
    bool few =
        rows <= FKV_CUDA_FEW_ROWS && w->wq.format == w->wk.format && w->wk.format == w->wv.format;
    if (few) {
        struct fkv_cuda_gemv call = {{&w->wq, &w->wk, &w->wv},
                                     {&w->bq, &w->bk, &w->bv},
                                     {floats(q), floats(k), floats(v)},
                                     3,
                                     w->norm.data ? &w->norm : NULL,
                                     w->eps,
                                     floats(x),
                                     rows,
                                     FKV_CUDA_STORE,
                                     FKV_SILU};
        if (fkv_cuda_gemv(b, &call, err)) return FKV_FAILED;
    } else {
        struct fkv_cuda_carving scratch = {b, 0};
        struct fkv_cuda_gemm products[] = {{&w->wq, NULL, NULL, q->data, FKV_F32, false},
                                           {&w->wk, NULL, NULL, k->data, FKV_F32, false},
                                           {&w->wv, NULL, NULL, v->data, FKV_F32, false}};
        if (norm_and_multiply(&scratch, &w->norm, w->eps, floats(x), products, 3, rows, err))
            return FKV_FAILED;
    }
    const struct fkv_weight *q_norm = w->q_norm.cols == shape->head_dim ? &w->q_norm : NULL,
                            *k_norm = w->k_norm.cols == shape->head_dim ? &w->k_norm : NULL;
    struct heads_arguments a = {{heads_of(q, shape->heads, few ? NULL : &w->bq, q_norm),
                                 heads_of(k, shape->kv_heads, few ? NULL : &w->bk, k_norm),
                                 heads_of(v, shape->kv_heads, few ? NULL : &w->bv, NULL)},
                                rows,
                                shape->head_dim,
                                w->eps};
    if (finish_heads(b, &a, err) ||
        norm_whole(b, &w->q_norm, w->eps, rows, q, shape->head_dim, err))
        return FKV_FAILED;
    return norm_whole(b, &w->k_norm, w->eps, rows, k, shape->head_dim, err);
}

/* ---- projections into the residual ---- */
/* x += multiplier * rmsnorm(y) * norm, rows of dim; norm NULL: of y itself. A block per row. */
static __global__ void __launch_bounds__(THREADS)
    add_rows_kernel(const float *y, const void *norm, enum fkv_dtype norm_dtype, float eps,
                    float multiplier, int32_t dim, float *x) {
    y += (int64_t)blockIdx.x * dim;
    x += (int64_t)blockIdx.x * dim;
    float squares = 0;
    for (int32_t i = (int32_t)threadIdx.x; i < dim; i += THREADS)
        squares = fmaf(y[i], y[i], squares);
    squares = fkv_cuda_block_sum(squares);
    const float scale = norm ? multiplier * rsqrtf(squares / (float)dim + eps) : multiplier;
    for (int32_t i = (int32_t)threadIdx.x; i < dim; i += THREADS)
        x[i] += y[i] * scale * (norm ? fkv_cuda_number(norm, norm_dtype, i) : 1);
}

/* W in -> out [rows, W.rows], or added to it. */
static int project(struct fkv_cuda_carving *scratch, const struct fkv_weight *w, const float *in,
                   int32_t rows, bool add, float *out, struct fkv_error *err) {
    if (rows <= FKV_CUDA_FEW_ROWS) {
        struct fkv_cuda_gemv call = {
            {w}, {}, {out}, 1, NULL, 0, in, rows, add ? FKV_CUDA_ADD : FKV_CUDA_STORE, FKV_SILU};
        return fkv_cuda_gemv(scratch->b, &call, err);
    }
    struct fkv_cuda_gemm product = {w, NULL, NULL, out, FKV_F32, add};
    if (fkv_cuda_round(scratch, in, rows, &product, err)) return FKV_FAILED;
    return fkv_cuda_gemm(scratch, &product, rows, err);
}

int fkv_cuda_project_residual(struct fkv_backend *b, const struct fkv_residual_weights *w,
                              const struct fkv_buffer *in, int32_t rows, struct fkv_buffer *x,
                              struct fkv_error *err) {
    struct fkv_cuda_carving scratch = {b, 0};
    const int32_t dim = w->w.rows;
    const bool normed = w->norm.data != NULL;
    void *added;
    if (!normed && w->multiplier == 1)
        return project(&scratch, &w->w, floats(in), rows, true, floats(x), err);
    if (fkv_cuda_carve(&scratch, (size_t)rows * (size_t)dim * sizeof(float), &added, err) ||
        project(&scratch, &w->w, floats(in), rows, false, (float *)added, err))
        return FKV_FAILED;
    return fkv_cuda_launch(
        b, "residual", add_rows_kernel, dim3((unsigned)rows), dim3(THREADS), 0, err,
        (const float *)added, normed ? (const void *)fkv_cuda_weight(&w->norm) : NULL,
        normed ? fkv_weight_dtype(&w->norm) : FKV_F32, w->eps, w->multiplier, dim, floats(x));
}

/* ---- the MLP's first half ---- */
/* gate, up [count] -> out [count], which may be `up` itself */
template <typename T>
static __global__ void __launch_bounds__(THREADS)
    gate_kernel(const T *gate, const T *up, int64_t count, enum fkv_activation activation,
                float *out) {
    int64_t i = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * AT_ONCE;
    if (i + AT_ONCE <= count) {
        struct fkv_cuda_four<T> g = *(const struct fkv_cuda_four<T> *)(gate + i),
                                u = *(const struct fkv_cuda_four<T> *)(up + i);
        struct fkv_cuda_four<float> y;
#pragma unroll
        for (int j = 0; j < AT_ONCE; j++)
            y.at[j] = fkv_cuda_activate(activation, fkv_cuda_to_float(g.at[j])) *
                      fkv_cuda_to_float(u.at[j]);
        *(struct fkv_cuda_four<float> *)(out + i) = y;
        return;
    }
    for (; i < count; i++)
        out[i] =
            fkv_cuda_activate(activation, fkv_cuda_to_float(gate[i])) * fkv_cuda_to_float(up[i]);
}

template <typename T>
static int launch_gate(struct fkv_backend *b, const void *gate, const void *up, size_t count,
                       enum fkv_activation activation, float *out, struct fkv_error *err) {
    size_t per_block = (size_t)THREADS * AT_ONCE;
    return fkv_cuda_launch(b, "gate", gate_kernel<T>,
                           dim3((unsigned)((count + per_block - 1) / per_block)), dim3(THREADS), 0,
                           err, (const T *)gate, (const T *)up, (int64_t)count, activation, out);
}

int fkv_cuda_norm_gate_up(struct fkv_backend *b, const struct fkv_gate_up_weights *w,
                          const struct fkv_buffer *x, int32_t rows, struct fkv_buffer *out,
                          struct fkv_error *err) {
    const struct fkv_weight *gate = &w->gate, *up = &w->up;
    if (rows <= FKV_CUDA_FEW_ROWS && gate->format == up->format) {
        struct fkv_cuda_gemv call = {{gate, up},
                                     {},
                                     {floats(out)},
                                     2,
                                     w->norm.data ? &w->norm : NULL,
                                     w->eps,
                                     floats(x),
                                     rows,
                                     FKV_CUDA_GATE,
                                     w->activation};
        return fkv_cuda_gemv(b, &call, err);
    }
    enum fkv_dtype type = fkv_cuda_gemm_dtype(b, gate);
    if (type == FKV_F16 || fkv_cuda_gemm_dtype(b, up) != type) type = FKV_F32;
    size_t count = (size_t)rows * (size_t)gate->rows;
    struct fkv_cuda_carving scratch = {b, 0};
    void *gates, *ups = out->data; /* float32 needs no second array */
    if (fkv_cuda_carve(&scratch, count * fkv_dtype_bytes(type), &gates, err) ||
        (type != FKV_F32 && fkv_cuda_carve(&scratch, count * fkv_dtype_bytes(type), &ups, err)))
        return FKV_FAILED;
    struct fkv_cuda_gemm products[] = {{gate, NULL, NULL, gates, type, false},
                                       {up, NULL, NULL, ups, type, false}};
    if (norm_and_multiply(&scratch, &w->norm, w->eps, floats(x), products, 2, rows, err))
        return FKV_FAILED;
    return type == FKV_F32
               ? launch_gate<float>(b, gates, ups, count, w->activation, floats(out), err)
               : launch_gate<__nv_bfloat16>(b, gates, ups, count, w->activation, floats(out), err);
}

/* ---- logits ---- */
static __global__ void __launch_bounds__(THREADS)
    cap_kernel(float *x, int64_t count, float multiplier, float cap) {
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= count) return;
    float z = multiplier * x[i];
    x[i] = cap > 0 ? cap * tanhf(z / cap) : z;
}

static int make_logits(struct fkv_backend *b, const struct fkv_logits_weights *w, const float *from,
                       int32_t rows, struct fkv_buffer *logits, struct fkv_error *err) {
    if (rows <= FKV_CUDA_FEW_ROWS) {
        struct fkv_cuda_gemv call = {
            {&w->w}, {},   {floats(logits)}, 1,       w->norm.data ? &w->norm : NULL, w->eps,
            from,    rows, FKV_CUDA_STORE,   FKV_SILU};
        return fkv_cuda_gemv(b, &call, err);
    }
    struct fkv_cuda_carving scratch = {b, 0};
    struct fkv_cuda_gemm product = {&w->w, NULL, NULL, logits->data, FKV_F32, false};
    return norm_and_multiply(&scratch, &w->norm, w->eps, from, &product, 1, rows, err);
}

int fkv_cuda_norm_logits(struct fkv_backend *b, const struct fkv_logits_weights *w,
                         const struct fkv_buffer *x, int32_t row, int32_t rows,
                         struct fkv_buffer *logits, struct fkv_error *err) {
    const int64_t count = (int64_t)rows * w->w.rows;
    if (make_logits(b, w, floats(x) + (size_t)row * (size_t)w->w.cols, rows, logits, err))
        return FKV_FAILED;
    if (w->multiplier == 1 && w->softcap == 0) return FKV_OK;
    return fkv_cuda_launch(b, "logits", cap_kernel,
                           dim3((unsigned)((count + THREADS - 1) / THREADS)), dim3(THREADS), 0, err,
                           floats(logits), count, w->multiplier, w->softcap);
}
