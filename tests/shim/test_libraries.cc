/* The stand-ins for cuBLAS and cuFFT against sums written down from the libraries' manuals. */
#include <cublas_v2.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cufft.h>

#include <complex>
#include <vector>

#include "shim.h"

extern "C" { /* after the C++ headers, as cmocka.h does not say it itself */
#include "unit/support.h"
}

template <typename T> struct device_copy { /* of a host vector, for the time of a test */
    T *data;
    explicit device_copy(const std::vector<T> &host) {
        assert_int_equal(cudaMalloc(&data, host.size() * sizeof(T)), cudaSuccess);
        assert_int_equal(
            cudaMemcpy(data, host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice),
            cudaSuccess);
    }
    ~device_copy() { cudaFree(data); }
    std::vector<T> read(size_t n) const {
        std::vector<T> host(n);
        assert_int_equal(cudaDeviceSynchronize(), cudaSuccess);
        assert_int_equal(cudaMemcpy(host.data(), data, n * sizeof(T), cudaMemcpyDeviceToHost),
                         cudaSuccess);
        return host;
    }
};

template <typename T> static std::vector<T> random_values(size_t n) {
    std::vector<T> x(n);
    for (T &value : x) value = T((float)test_normal());
    return x;
}

template <typename T> struct blas_type;
template <> struct blas_type<float> { static const cudaDataType_t value = CUDA_R_32F; };
template <> struct blas_type<__half> { static const cudaDataType_t value = CUDA_R_16F; };
template <> struct blas_type<__nv_bfloat16> { static const cudaDataType_t value = CUDA_R_16BF; };

/* A batch of products with every transposition, leading dimension and stride drawn, against double
 * sums. */
template <typename T> static void check_gemm() {
    int m = test_between(1, 20), n = test_between(1, 20), k = test_between(1, 40),
        batch = test_between(1, 3);
    bool at = test_between(0, 1), bt = test_between(0, 1), adds = test_between(0, 1);
    int lda = (at ? k : m) + test_between(0, 3), ldb = (bt ? n : k) + test_between(0, 3),
        ldc = m + test_between(0, 3);
    size_t as = (size_t)lda * (size_t)(at ? m : k) + 1, bs = (size_t)ldb * (size_t)(bt ? k : n) + 2;
    size_t cs = (size_t)ldc * (size_t)n + 3;
    float alpha = 0.5f, beta = adds ? -2.0f : 0.0f;
    auto a = random_values<T>(as * (size_t)batch), b = random_values<T>(bs * (size_t)batch);
    auto c = random_values<float>(cs * (size_t)batch);
    if (!adds) c.assign(c.size(), NAN);
    device_copy<T> a_device(a), b_device(b);
    device_copy<float> c_device(c);
    cublasHandle_t handle;
    assert_int_equal(cublasCreate(&handle), CUBLAS_STATUS_SUCCESS);
    assert_int_equal(cublasGemmStridedBatchedEx(
                         handle, at ? CUBLAS_OP_T : CUBLAS_OP_N, bt ? CUBLAS_OP_T : CUBLAS_OP_N, m,
                         n, k, &alpha, a_device.data, blas_type<T>::value, lda, (long long)as,
                         b_device.data, blas_type<T>::value, ldb, (long long)bs, &beta,
                         c_device.data, CUDA_R_32F, ldc, (long long)cs, batch, CUBLAS_COMPUTE_32F,
                         CUBLAS_GEMM_DEFAULT),
                     CUBLAS_STATUS_SUCCESS);
    auto found = c_device.read(c.size());
    cublasDestroy(handle);
    for (size_t p = 0; p < (size_t)batch; p++)
        for (size_t i = 0; i < (size_t)m; i++)
            for (size_t j = 0; j < (size_t)n; j++) {
                double sum = 0;
                for (size_t l = 0; l < (size_t)k; l++)
                    sum += (double)(float)
                               a[p * as + (at ? i * (size_t)lda + l : l * (size_t)lda + i)] *
                           (float)b[p * bs + (bt ? l * (size_t)ldb + j : j * (size_t)ldb + l)];
                size_t at_c = p * cs + j * (size_t)ldc + i;
                assert_close(found[at_c], alpha * sum + (adds ? beta * c[at_c] : 0), 2e-5, 1e-5);
            }
}

static void gemm_multiplies_column_major_matrices(void **) {
    for (int i = 0; i < 20; i++) {
        check_gemm<float>();
        check_gemm<__half>();
        check_gemm<__nv_bfloat16>();
    }
}

static void gemm_rounds_to_tf32_only_where_asked(void **) {
    std::vector<float> x = {1 + 0x1p-11f + 0x1p-20f, 1}, c = {0};
    device_copy<float> x_device(x), c_device(c);
    cublasHandle_t handle;
    float one = 1, zero = 0;
    assert_int_equal(cublasCreate(&handle), CUBLAS_STATUS_SUCCESS);
    const struct {
        cublasMath_t math;
        cublasComputeType_t compute;
        float expected;
    } cases[] = {
        {CUBLAS_DEFAULT_MATH, CUBLAS_COMPUTE_32F, x[0]},
        {CUBLAS_DEFAULT_MATH, CUBLAS_COMPUTE_32F_FAST_TF32, 1 + 0x1p-10f},
        {CUBLAS_TF32_TENSOR_OP_MATH, CUBLAS_COMPUTE_32F, 1 + 0x1p-10f},
        {CUBLAS_TF32_TENSOR_OP_MATH, CUBLAS_COMPUTE_32F_PEDANTIC, x[0]},
        {CUBLAS_PEDANTIC_MATH, CUBLAS_COMPUTE_32F, x[0]},
    };
    for (const auto &t : cases) {
        cublasSetMathMode(handle, t.math);
        assert_int_equal(cublasGemmEx(handle, CUBLAS_OP_N, CUBLAS_OP_N, 1, 1, 1, &one,
                                      x_device.data, CUDA_R_32F, 1, x_device.data + 1, CUDA_R_32F,
                                      1, &zero, c_device.data, CUDA_R_32F, 1, t.compute,
                                      CUBLAS_GEMM_DEFAULT),
                         CUBLAS_STATUS_SUCCESS);
        assert_true(c_device.read(1)[0] == t.expected);
    }
    cublasDestroy(handle);
}

static void gemm_refuses_what_cublas_refuses(void **) {
    device_copy<float> x(random_values<float>(64));
    cublasHandle_t handle;
    float one = 1;
    assert_int_equal(cublasCreate(&handle), CUBLAS_STATUS_SUCCESS);
    assert_int_equal(cublasSgemm(handle, CUBLAS_OP_N, CUBLAS_OP_N, 4, 4, 4, &one, x.data, 3, x.data,
                                 4, &one, x.data, 4),
                     CUBLAS_STATUS_INVALID_VALUE);
    assert_int_equal(cublasGemmEx(handle, CUBLAS_OP_N, CUBLAS_OP_N, 4, 4, 4, &one, x.data,
                                  CUDA_R_16BF, 4, x.data, CUDA_R_32F, 4, &one, x.data, CUDA_R_32F,
                                  4, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
                     CUBLAS_STATUS_NOT_SUPPORTED);
    cublasDestroy(handle);
}

static void gemm_takes_arrays_of_pointers(void **) {
    device_copy<float> x(random_values<float>(48)), y(std::vector<float>(32));
    std::vector<const void *> a = {x.data, x.data + 16}, b = {x.data + 32, x.data};
    std::vector<void *> c = {y.data + 16, y.data};
    device_copy<const void *> a_device(a), b_device(b);
    device_copy<void *> c_device(c);
    cublasHandle_t handle;
    float one = 1, zero = 0;
    assert_int_equal(cublasCreate(&handle), CUBLAS_STATUS_SUCCESS);
    assert_int_equal(cublasGemmBatchedEx(handle, CUBLAS_OP_N, CUBLAS_OP_N, 4, 4, 4, &one,
                                         a_device.data, CUDA_R_32F, 4, b_device.data, CUDA_R_32F, 4,
                                         &zero, c_device.data, CUDA_R_32F, 4, 2, CUBLAS_COMPUTE_32F,
                                         CUBLAS_GEMM_DEFAULT),
                     CUBLAS_STATUS_SUCCESS);
    auto in = x.read(48), out = y.read(32);
    for (size_t p = 0; p < 2; p++)
        for (size_t i = 0; i < 4; i++)
            for (size_t j = 0; j < 4; j++) {
                double sum = 0;
                for (size_t l = 0; l < 4; l++)
                    sum += in[16 * p + 4 * l + i] * in[(p ? 0 : 32) + 4 * j + l];
                assert_close(out[16 * (1 - p) + 4 * j + i], sum, 1e-5, 1e-5);
            }
    cublasDestroy(handle);
}

/* ---- cuFFT ---- */
typedef std::complex<double> number;

static number naive(const std::vector<number> &x, size_t k, int direction) {
    number sum = 0;
    for (size_t j = 0; j < x.size(); j++)
        sum += x[j] * std::polar(1.0, direction * 2 * M_PI * (double)(j * k % x.size()) /
                                          (double)x.size());
    return sum;
}

/* One type at one length, in batches with strides and a caller's work area; rows of input and
 * output lie interleaved. */
static void check_fft(int n, cufftType type, int direction) {
    int batch = test_between(1, 3), half = n / 2 + 1, embed = n;
    bool real_in = type == CUFFT_R2C, real_out = type == CUFFT_C2R;
    size_t rows = (size_t)batch, in_count = (size_t)(real_out ? half : n),
           out_count = (size_t)(real_in ? half : n);
    size_t in_width = real_in ? 1 : 2, out_width = real_out ? 1 : 2, bytes;
    auto in = random_values<float>(in_count * rows * in_width);
    device_copy<float> in_device(in), out_device(std::vector<float>(out_count * rows * out_width));
    cufftHandle plan;
    assert_int_equal(cufftCreate(&plan), CUFFT_SUCCESS);
    assert_int_equal(cufftSetAutoAllocation(plan, 0), CUFFT_SUCCESS);
    assert_int_equal(
        cufftMakePlanMany(plan, 1, &n, &embed, batch, 1, &embed, batch, 1, type, batch, &bytes),
        CUFFT_SUCCESS);
    device_copy<char> work((std::vector<char>(bytes)));
    assert_int_equal(cufftSetWorkArea(plan, work.data), CUFFT_SUCCESS);
    cufftResult status;
    if (real_in)
        status = cufftExecR2C(plan, in_device.data, (cufftComplex *)out_device.data);
    else if (real_out)
        status = cufftExecC2R(plan, (cufftComplex *)in_device.data, out_device.data);
    else
        status = cufftExecC2C(plan, (cufftComplex *)in_device.data, (cufftComplex *)out_device.data,
                              direction);
    assert_int_equal(status, CUFFT_SUCCESS);
    auto out = out_device.read(out_count * rows * out_width);
    for (size_t b = 0; b < rows; b++) {
        std::vector<number> x((size_t)n);
        for (size_t j = 0; j < in_count; j++) {
            const float *at = &in[(j * rows + b) * in_width];
            x[j] = {at[0], real_in ? 0.0 : at[1]};
            if (real_out && (j == 0 || 2 * j == x.size())) x[j] = x[j].real();
            if (real_out && j && 2 * j != x.size()) x[x.size() - j] = std::conj(x[j]);
        }
        for (size_t k = 0; k < out_count; k++) {
            number expected = naive(x, k, direction);
            const float *at = &out[(k * rows + b) * out_width];
            assert_close(at[0], expected.real(), 1e-5 * n, 1e-6);
            if (!real_out) assert_close(at[1], expected.imag(), 1e-5 * n, 1e-6);
        }
    }
    cufftDestroy(plan);
}

static void transforms_equal_their_sums(void **) {
    for (int n : {1, 2, 3, 8, 12, 31, 60, 97, 132, 169, 341}) {
        check_fft(n, CUFFT_C2C, CUFFT_FORWARD);
        check_fft(n, CUFFT_C2C, CUFFT_INVERSE);
        check_fft(n, CUFFT_R2C, CUFFT_FORWARD);
        check_fft(n, CUFFT_C2R, CUFFT_INVERSE);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gemm_multiplies_column_major_matrices),
        cmocka_unit_test(gemm_rounds_to_tf32_only_where_asked),
        cmocka_unit_test(gemm_refuses_what_cublas_refuses),
        cmocka_unit_test(gemm_takes_arrays_of_pointers),
        cmocka_unit_test(transforms_equal_their_sums),
    };
    test_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
