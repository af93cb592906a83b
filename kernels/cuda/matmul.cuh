/* Matrix products with the checkpoint's weights, as layer.cu composes its operations from them: y =
 * W x for rows of x. Few rows: gemv.cu. More: matmul.cu. */
#ifndef FKV_KERNELS_CUDA_MATMUL_CUH
#define FKV_KERNELS_CUDA_MATMUL_CUH

#include <float.h>

#include "kernels/cuda/device.cuh"

static inline const char *fkv_cuda_weight(const struct fkv_weight *w) {
    return w->data->data + w->offset;
}

/* ---- numbers ---- */
/* Rows in float16 whose largest number is beyond 65504 are stored 2^exponent times smaller, and
 * the product's rows made larger again: powers of two cost no digit. 0 where everything fits, and
 * where a row is infinite already. */
static __device__ inline int32_t fkv_cuda_row_exponent(float largest) {
    return largest > 65504 && largest <= FLT_MAX ? ilogbf(largest) - 14 : 0;
}
/* 2^exponent, |exponent| < 127. */
static __device__ inline float fkv_cuda_power_of_two(int32_t exponent) {
    return __int_as_float((127 + exponent) << 23);
}

/* Number i of a vector of the checkpoint: biases, norms. */
static __device__ inline float fkv_cuda_number(const void *vector, enum fkv_dtype t, int32_t i) {
    return t == FKV_F32   ? ((const float *)vector)[i]
           : t == FKV_F16 ? fkv_cuda_to_float(((const __half *)vector)[i])
                          : fkv_cuda_to_float(((const __nv_bfloat16 *)vector)[i]);
}

/* The activation of a gate (layer.h): z / (1 + exp(-u)), where GELU's tanh makes u of z. */
static __device__ inline float fkv_cuda_activate(enum fkv_activation activation, float z) {
    float u = activation == FKV_SILU ? z : 1.595769122f * (z + 0.044715f * z * z * z);
    return z / (1 + expf(-u));
}

/* What elementwise kernels move at once. */
template <typename T> struct __align__(4 * sizeof(T)) fkv_cuda_four { T at[4]; };

/* ---- scratch of one operation, handed out front to back; nothing of it outlives the operation
 * ---- */
struct fkv_cuda_carving {
    struct fkv_backend *b;
    size_t used;
};
int fkv_cuda_carve(struct fkv_cuda_carving *c, size_t bytes, void **out, struct fkv_error *err);

/* ---- many rows (matmul.cu) ---- */
/* What products with this weight compute in: activations are given in this dtype. */
enum fkv_dtype fkv_cuda_gemm_dtype(const struct fkv_backend *b, const struct fkv_weight *w);

/* in [rows, W.cols] in W's product dtype -> out [rows, W.rows] in out_dtype (float32 or bfloat16),
 * or added to it. Sums are float32. */
struct fkv_cuda_gemm {
    const struct fkv_weight *w;
    const void *in;
    /* [rows]: how much smaller the rows of `in` are (fkv_cuda_row_exponent); NULL unless they are
     * float16. */
    const int32_t *exponents;
    void *out;
    enum fkv_dtype out_dtype;
    bool add;
};
int fkv_cuda_gemm(struct fkv_cuda_carving *c, const struct fkv_cuda_gemm *p, int32_t rows,
                  struct fkv_error *err);

/* x [rows, W.cols] float32 -> p->in in the product's dtype, and p->exponents: x itself where that
 * is float32, else carved. Infinities and NaN stay. */
int fkv_cuda_round(struct fkv_cuda_carving *c, const float *x, int32_t rows,
                   struct fkv_cuda_gemm *p, struct fkv_error *err);

/* x [rows, dim] float32 -> out [rows, dim] in `to`: x / sqrt(mean(x^2) + eps) * norm (layer.cu).
 * exponents [rows]: written where `to` is float16. */
int fkv_cuda_norm_rows(struct fkv_backend *b, const struct fkv_weight *norm, float eps,
                       const float *x, int32_t rows, enum fkv_dtype to, void *out,
                       int32_t *exponents, struct fkv_error *err);

/* ---- few rows (gemv.cu) ---- */
enum { FKV_CUDA_FEW_ROWS = 8, FKV_CUDA_MOST_MATRICES = 3 };

enum fkv_cuda_gemv_end {
    FKV_CUDA_STORE, /* out_m = W_m x + bias_m */
    FKV_CUDA_ADD,   /* out_0 += W_0 x */
    FKV_CUDA_GATE,  /* out_0 = activation(W_0 x) * (W_1 x), two matrices of one shape */
};

/* Up to three matrices of one width and dtype, times x [rows, cols] float32, rows <=
 * FKV_CUDA_FEW_ROWS; where `norm` is given, times the normed rows. */
struct fkv_cuda_gemv {
    const struct fkv_weight *w[FKV_CUDA_MOST_MATRICES],
        *bias[FKV_CUDA_MOST_MATRICES];  /* bias: NULL or absent is none */
    float *out[FKV_CUDA_MOST_MATRICES]; /* [rows, W.rows] each */
    int32_t count;
    const struct fkv_weight *norm; /* or NULL */
    float eps;
    const float *x;
    int32_t rows;
    enum fkv_cuda_gemv_end end;
    enum fkv_activation activation; /* of a gate */
};
int fkv_cuda_gemv(struct fkv_backend *b, const struct fkv_cuda_gemv *call, struct fkv_error *err);

#endif
