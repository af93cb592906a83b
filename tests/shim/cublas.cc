/* Matrix products with cuBLAS's conventions. float32 sums in an order of our own: results differ
 * from the library's by rounding. TF32 rounds factors to 10 mantissa bits, to nearest even. Refuses
 * what cuBLAS refuses: leading dimensions that are too small, and combinations of types that it has
 * no kernel for. */
#include <cublas_v2.h>

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <vector>

#include "shim.h"

struct shim_blas {
    cudaStream_t stream;
    cublasMath_t math;
};

cublasStatus_t cublasCreate(cublasHandle_t *out) {
    *out = NULL;
    if (!shim_memory_left()) return CUBLAS_STATUS_ALLOC_FAILED;
    *out = new shim_blas{NULL, CUBLAS_DEFAULT_MATH};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasDestroy(cublasHandle_t handle) {
    delete handle;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetStream(cublasHandle_t handle, cudaStream_t stream) {
    handle->stream = stream;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetWorkspace(cublasHandle_t, void *workspace, size_t bytes) {
    return shim_device_range(workspace, bytes, "cublasSetWorkspace") &&
                   (uintptr_t)workspace % 256 == 0
               ? CUBLAS_STATUS_SUCCESS
               : CUBLAS_STATUS_INVALID_VALUE;
}
cublasStatus_t cublasSetMathMode(cublasHandle_t handle, cublasMath_t mode) {
    handle->math = mode;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetPointerMode(cublasHandle_t, cublasPointerMode_t mode) {
    return mode == CUBLAS_POINTER_MODE_HOST ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

const char *cublasGetStatusName(cublasStatus_t status) {
    switch (status) {
    case CUBLAS_STATUS_SUCCESS: return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_INVALID_VALUE: return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_NOT_SUPPORTED: return "CUBLAS_STATUS_NOT_SUPPORTED";
    default: return "CUBLAS_STATUS_EXECUTION_FAILED";
    }
}
const char *cublasGetStatusString(cublasStatus_t status) { return cublasGetStatusName(status); }

/* ---- one product ---- */
struct matrix {
    const char *data;
    cudaDataType_t type;
    int rows, columns, stride; /* as stored: column-major, `stride` between columns */
};

struct product {
    int m, n, k;
    double alpha, beta;
    bool a_transposed, b_transposed, tf32;
    matrix a, b, c;
};

static size_t size_of(cudaDataType_t type) {
    return type == CUDA_R_32F ? 4 : type == CUDA_R_64F ? 8 : 2;
}

static float load(const char *data, cudaDataType_t type, size_t i) {
    if (type == CUDA_R_32F) return ((const float *)data)[i];
    return type == CUDA_R_16F ? (float)((const __half *)data)[i]
                              : (float)((const __nv_bfloat16 *)data)[i];
}

static void store(char *data, cudaDataType_t type, size_t i, float x) {
    if (type == CUDA_R_32F)
        ((float *)data)[i] = x;
    else if (type == CUDA_R_16F)
        ((__half *)data)[i] = __half(x);
    else
        ((__nv_bfloat16 *)data)[i] = __nv_bfloat16(x);
}

static float round_to_tf32(float x) {
    uint32_t bits = __float_as_uint(x);
    if ((bits & 0x7f800000u) == 0x7f800000u) return x;
    return __uint_as_float((bits + 0xfffu + (bits >> 13 & 1u)) & ~0x1fffu);
}

static bool on_device(const matrix &x, const char *what) {
    size_t elements = x.columns ? (size_t)(x.columns - 1) * (size_t)x.stride + (size_t)x.rows : 0;
    if ((uintptr_t)x.data % size_of(x.type)) {
        shim_fail("cuBLAS: %s is not aligned to its elements", what);
        return false;
    }
    return shim_device_range(x.data, elements * size_of(x.type), what);
}

/* -> [columns][rows] of the stored matrix, or of its transpose, in float32 */
static std::vector<float> unpack(const matrix &x, bool transposed, bool tf32) {
    size_t rows = (size_t)x.rows, columns = (size_t)x.columns;
    std::vector<float> y(rows * columns);
    for (size_t j = 0; j < columns; j++)
        for (size_t i = 0; i < rows; i++) {
            float value = load(x.data, x.type, j * (size_t)x.stride + i);
            y[transposed ? i * columns + j : j * rows + i] = tf32 ? round_to_tf32(value) : value;
        }
    return y;
}

static void multiply(const product &p) {
    if (!on_device(p.a, "cuBLAS: A") || !on_device(p.b, "cuBLAS: B") ||
        !on_device(p.c, "cuBLAS: C"))
        return;
    size_t m = (size_t)p.m, k = (size_t)p.k;
    std::vector<float> a = unpack(p.a, p.a_transposed, p.tf32),
                       b = unpack(p.b, p.b_transposed, p.tf32), sum(m);
    for (size_t j = 0; j < (size_t)p.n; j++) {
        sum.assign(m, 0);
        for (size_t l = 0; l < k; l++) {
            float factor = b[j * k + l];
            const float *column = &a[l * m];
            for (size_t i = 0; i < m; i++) sum[i] += factor * column[i];
        }
        for (size_t i = 0; i < m; i++) {
            size_t at = j * (size_t)p.c.stride + i;
            float y = (float)p.alpha * sum[i];
            if (p.beta != 0) y += (float)p.beta * load(p.c.data, p.c.type, at);
            store((char *)p.c.data, p.c.type, at, y);
        }
    }
}

/* ---- calls ---- */
static bool types_supported(const product &p, cublasComputeType_t compute) {
    bool f32 = p.a.type == CUDA_R_32F, half = p.a.type == CUDA_R_16F || p.a.type == CUDA_R_16BF;
    if (p.a.type != p.b.type || compute == CUBLAS_COMPUTE_64F) return false;
    if (compute == CUBLAS_COMPUTE_32F_FAST_TF32) return f32 && p.c.type == CUDA_R_32F;
    return f32 ? p.c.type == CUDA_R_32F : half && (p.c.type == p.a.type || p.c.type == CUDA_R_32F);
}

static cublasStatus_t prepare(cublasHandle_t handle, product *p, cublasComputeType_t compute) {
    if (p->m < 0 || p->n < 0 || p->k < 0 || p->a.stride < max(1, p->a.rows) ||
        p->b.stride < max(1, p->b.rows) || p->c.stride < max(1, p->c.rows))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (!types_supported(*p, compute)) return CUBLAS_STATUS_NOT_SUPPORTED;
    bool allowed =
        (handle->math & 15) == CUBLAS_TF32_TENSOR_OP_MATH && compute == CUBLAS_COMPUTE_32F;
    p->tf32 = p->a.type == CUDA_R_32F && (allowed || compute == CUBLAS_COMPUTE_32F_FAST_TF32);
    return CUBLAS_STATUS_SUCCESS;
}

static product describe(cublasOperation_t op_a, cublasOperation_t op_b, int m, int n, int k,
                        const void *alpha, cudaDataType_t a_type, int lda, cudaDataType_t b_type,
                        int ldb, const void *beta, cudaDataType_t c_type, int ldc) {
    bool at = op_a != CUBLAS_OP_N, bt = op_b != CUBLAS_OP_N;
    return {m,
            n,
            k,
            *(const float *)alpha,
            *(const float *)beta,
            at,
            bt,
            false,
            {NULL, a_type, at ? k : m, at ? m : k, lda},
            {NULL, b_type, bt ? n : k, bt ? k : n, ldb},
            {NULL, c_type, m, n, ldc}};
}

static cublasStatus_t issue(cublasHandle_t handle, std::function<void()> work) {
    return shim_enqueue(handle->stream, std::move(work)) ? CUBLAS_STATUS_EXECUTION_FAILED
                                                         : CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t handle, cublasOperation_t op_a,
                                          cublasOperation_t op_b, int m, int n, int k,
                                          const void *alpha, const void *a, cudaDataType_t a_type,
                                          int lda, long long a_stride, const void *b,
                                          cudaDataType_t b_type, int ldb, long long b_stride,
                                          const void *beta, void *c, cudaDataType_t c_type, int ldc,
                                          long long c_stride, int batch,
                                          cublasComputeType_t compute, cublasGemmAlgo_t) {
    product p = describe(op_a, op_b, m, n, k, alpha, a_type, lda, b_type, ldb, beta, c_type, ldc);
    cublasStatus_t status = prepare(handle, &p, compute);
    if (status || batch < 0) return status ? status : CUBLAS_STATUS_INVALID_VALUE;
    return issue(handle, [=]() mutable {
        for (long long i = 0; i < batch; i++) {
            p.a.data = (const char *)a + i * a_stride * (long long)size_of(a_type);
            p.b.data = (const char *)b + i * b_stride * (long long)size_of(b_type);
            p.c.data = (const char *)c + i * c_stride * (long long)size_of(c_type);
            multiply(p);
        }
    });
}

cublasStatus_t cublasGemmBatchedEx(cublasHandle_t handle, cublasOperation_t op_a,
                                   cublasOperation_t op_b, int m, int n, int k, const void *alpha,
                                   const void *const a[], cudaDataType_t a_type, int lda,
                                   const void *const b[], cudaDataType_t b_type, int ldb,
                                   const void *beta, void *const c[], cudaDataType_t c_type,
                                   int ldc, int batch, cublasComputeType_t compute,
                                   cublasGemmAlgo_t) {
    product p = describe(op_a, op_b, m, n, k, alpha, a_type, lda, b_type, ldb, beta, c_type, ldc);
    cublasStatus_t status = prepare(handle, &p, compute);
    if (status || batch < 0) return status ? status : CUBLAS_STATUS_INVALID_VALUE;
    return issue(handle, [=]() mutable {
        size_t bytes = (size_t)batch * sizeof *a;
        if (!shim_device_range(a, bytes, "cuBLAS: array of A") ||
            !shim_device_range(b, bytes, "cuBLAS: array of B") ||
            !shim_device_range(c, bytes, "cuBLAS: array of C"))
            return;
        for (int i = 0; i < batch; i++) {
            p.a.data = (const char *)a[i];
            p.b.data = (const char *)b[i];
            p.c.data = (const char *)c[i];
            multiply(p);
        }
    });
}

cublasStatus_t cublasGemmEx(cublasHandle_t handle, cublasOperation_t op_a, cublasOperation_t op_b,
                            int m, int n, int k, const void *alpha, const void *a,
                            cudaDataType_t a_type, int lda, const void *b, cudaDataType_t b_type,
                            int ldb, const void *beta, void *c, cudaDataType_t c_type, int ldc,
                            cublasComputeType_t compute, cublasGemmAlgo_t algorithm) {
    return cublasGemmStridedBatchedEx(handle, op_a, op_b, m, n, k, alpha, a, a_type, lda, 0, b,
                                      b_type, ldb, 0, beta, c, c_type, ldc, 0, 1, compute,
                                      algorithm);
}

cublasStatus_t cublasSgemmStridedBatched(cublasHandle_t handle, cublasOperation_t op_a,
                                         cublasOperation_t op_b, int m, int n, int k,
                                         const float *alpha, const float *a, int lda,
                                         long long a_stride, const float *b, int ldb,
                                         long long b_stride, const float *beta, float *c, int ldc,
                                         long long c_stride, int batch) {
    return cublasGemmStridedBatchedEx(handle, op_a, op_b, m, n, k, alpha, a, CUDA_R_32F, lda,
                                      a_stride, b, CUDA_R_32F, ldb, b_stride, beta, c, CUDA_R_32F,
                                      ldc, c_stride, batch, CUBLAS_COMPUTE_32F,
                                      CUBLAS_GEMM_DEFAULT);
}

cublasStatus_t cublasSgemm(cublasHandle_t handle, cublasOperation_t op_a, cublasOperation_t op_b,
                           int m, int n, int k, const float *alpha, const float *a, int lda,
                           const float *b, int ldb, const float *beta, float *c, int ldc) {
    return cublasSgemmStridedBatched(handle, op_a, op_b, m, n, k, alpha, a, lda, 0, b, ldb, 0, beta,
                                     c, ldc, 0, 1);
}
