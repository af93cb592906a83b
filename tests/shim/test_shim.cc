/* The shim against what it stands in for: it must compute what the CUDA and PTX manuals say, and
 * must fail where a GPU would fail or give wrong numbers. */
#include <sys/wait.h>

#include <ptx/shared.cuh>
#include <ptx/tensor_core.cuh>

#include "shim.h"

extern "C" { /* after the C++ headers, as cmocka.h does not say it itself */
#include "unit/support.h"
}

static const unsigned ALL = 0xffffffffu;

template <typename... P, typename... A>
static cudaError_t launch_with(cudaStream_t stream, size_t shared, dim3 grid, dim3 block,
                               void (*kernel)(P...), A... arguments) {
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared;
    config.stream = stream;
    return cudaLaunchKernelEx(&config, kernel, (P)arguments...);
}

template <typename... P, typename... A>
static cudaError_t launch(dim3 grid, dim3 block, void (*kernel)(P...), A... arguments) {
    cudaError_t status = launch_with(NULL, 0, grid, block, kernel, arguments...);
    return status ? status : cudaDeviceSynchronize();
}

#define assert_cuda(call)                                                                          \
    do {                                                                                           \
        cudaError_t status_ = (call);                                                              \
        if (status_) fail_msg("%s: %s", #call, cudaGetErrorString(status_));                       \
    } while (0)

/* The call fails, and says why; the device is usable again. */
#define assert_faults(call, text)                                                                  \
    do {                                                                                           \
        cudaError_t status_ = (call);                                                              \
        assert_int_equal(status_, cudaErrorLaunchFailure);                                         \
        if (!strstr(cudaGetErrorString(status_), text))                                            \
            fail_msg("\"%s\" does not contain \"%s\"", cudaGetErrorString(status_), text);         \
        cudaDeviceReset();                                                                         \
    } while (0)

/* n elements on the device, of value 0 or copied from the host. */
template <typename T> static T *device_array(size_t n, const T *from = NULL) {
    T *x;
    assert_cuda(cudaMalloc(&x, n * sizeof *x));
    assert_cuda(from ? cudaMemcpy(x, from, n * sizeof *x, cudaMemcpyHostToDevice)
                     : cudaMemset(x, 0, n * sizeof *x));
    return x;
}

/* ---- warps and barriers ---- */
enum { SUM, DOWN, UP, PICKED, BALLOT, VOTES, RESULTS };

static __global__ void collectives_kernel(const int *x, int *out) {
    int lane = (int)threadIdx.x % 32, value = x[threadIdx.x], sum = value;
    for (int step = 16; step; step /= 2) sum += __shfl_xor_sync(ALL, sum, step);
    int *mine = out + threadIdx.x * RESULTS;
    mine[SUM] = sum;
    mine[DOWN] = __shfl_down_sync(ALL, value, 3, 8);
    mine[UP] = __shfl_up_sync(ALL, value, 5);
    mine[PICKED] = __shfl_sync(ALL, value, lane + 1, 16);
    mine[BALLOT] = (int)__ballot_sync(ALL, value & 1);
    mine[VOTES] = __any_sync(ALL, value == x[0]) + 2 * __all_sync(ALL, value != x[0]);
}

static void collectives_give_what_the_manual_says(void **) {
    int x[64], out[64][RESULTS];
    for (int i = 0; i < 64; i++) x[i] = test_between(-1000, 1000) * 64 + i;
    int *x_device = device_array(64, x), *out_device = device_array<int>(64 * RESULTS);
    assert_cuda(launch(1, 64, collectives_kernel, x_device, out_device));
    assert_cuda(cudaMemcpy(out, out_device, sizeof out, cudaMemcpyDeviceToHost));
    for (int i = 0; i < 64; i++) {
        int first = i / 32 * 32, sum = 0;
        unsigned ballot = 0;
        for (int j = first; j < first + 32; j++)
            sum += x[j], ballot |= (unsigned)(x[j] & 1) << (j - first);
        assert_int_equal(out[i][SUM], sum);
        assert_int_equal(out[i][DOWN], x[i % 8 + 3 < 8 ? i + 3 : i]);
        assert_int_equal(out[i][UP], x[i % 32 >= 5 ? i - 5 : i]);
        assert_int_equal(out[i][PICKED], x[i / 16 * 16 + (i + 1) % 16]);
        assert_int_equal((unsigned)out[i][BALLOT], ballot);
        assert_int_equal(out[i][VOTES], i < 32 ? 1 : 2);
    }
    cudaFree(x_device), cudaFree(out_device);
}

template <bool waits> static __global__ void reverse_kernel(int *x) {
    __shared__ int copy[256];
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    copy[threadIdx.x] = x[i];
    if (waits)
        __syncthreads();
    else
        __syncwarp();
    x[i] = copy[blockDim.x - 1 - threadIdx.x];
}

/* How many of 20 seeds leave x right after reversing it in blocks. */
template <bool waits> static int seeds_that_reverse() {
    int right = 0;
    for (uint64_t seed = 0; seed < 20; seed++) {
        int x[512];
        for (int i = 0; i < 512; i++) x[i] = i;
        int *device = device_array(512, x);
        shim_seed(seed);
        assert_cuda(launch(2, 256, reverse_kernel<waits>, device));
        assert_cuda(cudaMemcpy(x, device, sizeof x, cudaMemcpyDeviceToHost));
        cudaFree(device);
        bool ok = true;
        for (int i = 0; i < 512; i++) ok &= x[i] == i / 256 * 256 + 255 - i % 256;
        right += ok;
    }
    return right;
}

static void a_missing_barrier_gives_wrong_results(void **) {
    assert_int_equal(seeds_that_reverse<true>(), 20);
    assert_true(seeds_that_reverse<false>() < 20);
}

static __global__ void some_leave_kernel(unsigned leaves, bool block_wide) {
    if (threadIdx.x == leaves) return;
    if (block_wide)
        __syncthreads();
    else
        __syncwarp();
}

static __global__ void divided_kernel() {
    if (threadIdx.x % 2)
        __syncthreads();
    else
        __syncwarp();
}

static __global__ void unlike_kernel(int *out) {
    if (threadIdx.x % 2)
        *out = __any_sync(ALL, 1);
    else
        *out = __shfl_xor_sync(ALL, 1, 2);
}

static void threads_that_wait_for_absent_ones_are_reported(void **) {
    assert_faults(
        launch(1, 64, some_leave_kernel, 3, true),
        "63 threads (0, 1, 2, 4, 5, 6, 7, 8, ...) wait at a barrier; 1 threads (3) have left");
    assert_faults(
        launch(1, 64, some_leave_kernel, 33, false),
        "31 threads (32, 34, 35, 36, 37, 38, 39, 40, ...) wait in a collective of their warp");
    assert_faults(launch(1, 32, divided_kernel),
                  "16 threads (1, 3, 5, 7, 9, 11, 13, 15, ...) wait at a barrier");
    int *out = device_array<int>(1);
    assert_faults(launch(1, 32, unlike_kernel, out), "wait in another collective");
    assert_cuda(launch(1, 48, some_leave_kernel, 99,
                       false)); /* half a warp is whole when it has no other lanes */
    cudaFree(out);
}

/* ---- shared memory ---- */
static __global__ void fresh_kernel(int *fresh) {
    __shared__ float fixed[4];
    float *dynamic = (float *)ptx_dynamic_shared();
    if (threadIdx.x) return;
    for (int i = 0; i < 4; i++) *fresh += isnan(fixed[i]) && isnan(dynamic[i]);
    for (int i = 0; i < 4; i++) fixed[i] = dynamic[i] = 0;
}

static void shared_memory_starts_as_nan_in_every_block(void **) {
    int *fresh = device_array<int>(1), found;
    assert_cuda(launch_with(NULL, 16, 5, 32, fresh_kernel, fresh));
    assert_cuda(cudaMemcpy(&found, fresh, sizeof found, cudaMemcpyDeviceToHost));
    assert_int_equal(found, 20);
    assert_int_equal(launch_with(NULL, 64 << 10, 1, 32, fresh_kernel, fresh),
                     cudaErrorInvalidValue);
    assert_cuda(
        cudaFuncSetAttribute(fresh_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 64 << 10));
    assert_cuda(launch_with(NULL, 64 << 10, 1, 32, fresh_kernel, fresh));
    assert_cuda(cudaDeviceSynchronize());
    assert_int_equal(
        cudaFuncSetAttribute(fresh_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 220 << 10),
        cudaErrorInvalidValue);
    cudaGetLastError();
    cudaFree(fresh);
}

static __global__ void copies_kernel(const float *x, float *seen) {
    float *shared = (float *)ptx_dynamic_shared() + 8 * threadIdx.x;
    ptx_copy_async(shared, x + 4 * threadIdx.x, true);
    ptx_copy_commit();
    ptx_copy_async(shared + 4, NULL, false);
    ptx_copy_commit();
    float *mine = seen + 4 * threadIdx.x;
    mine[0] = isnan(shared[0]) && isnan(shared[4]);
    ptx_copy_wait<1>();
    mine[1] = isnan(shared[4]);
    mine[2] = shared[2];
    ptx_copy_wait<0>();
    mine[3] = shared[7];
}

static void asynchronous_copies_arrive_when_waited_for(void **) {
    float x[128], seen[128];
    test_fill(x, 128, 0, 1);
    float *x_device = device_array(128, x), *seen_device = device_array<float>(128);
    assert_cuda(launch_with(NULL, 1024, 1, 32, copies_kernel, x_device, seen_device));
    assert_cuda(cudaMemcpy(seen, seen_device, sizeof seen, cudaMemcpyDeviceToHost));
    for (int i = 0; i < 32; i++) {
        assert_true(seen[4 * i] == 1 && seen[4 * i + 1] == 1);
        assert_true(seen[4 * i + 2] == x[4 * i + 2] && seen[4 * i + 3] == 0);
    }
    cudaFree(x_device), cudaFree(seen_device);
}

/* ---- tensor cores ---- */
static uint32_t pair(const uint16_t *low, const uint16_t *high) {
    return *low | (uint32_t)*high << 16;
}

/* d [16 x 8] = a [16 x 16] b [16 x 8], fragments by the formulas of the PTX manual, or by ldmatrix
 * from shared memory. */
template <bool is_bf16, bool by_ldmatrix>
static __global__ void mma_kernel(const uint16_t *a, const uint16_t *b, float *d) {
    __shared__ __align__(16) uint16_t a_tile[16][16], b_tile[16][8];
    int lane = (int)threadIdx.x, g = lane / 4, t = lane % 4;
    for (int i = lane; i < 256; i += 32) a_tile[i / 16][i % 16] = a[i];
    for (int i = lane; i < 128; i += 32) b_tile[i / 8][i % 8] = b[i];
    __syncwarp();
    uint32_t fa[4], fb[4]; /* b is the first two matrices that ldmatrix brings */
    float fd[4] = {0, 0, 0, 0};
    if (by_ldmatrix) {
        ptx_ldmatrix(fa, &a_tile[lane % 16][lane / 16 * 8]);
        ptx_ldmatrix_transposed(fb, &b_tile[lane % 16][0]);
    } else {
        for (int i = 0; i < 4; i++) {
            const uint16_t *at = &a[16 * (g + 8 * (i % 2)) + 2 * t + 8 * (i / 2)];
            fa[i] = pair(at, at + 1);
        }
        for (int i = 0; i < 2; i++)
            fb[i] = pair(&b[8 * (2 * t + 8 * i) + g], &b[8 * (2 * t + 1 + 8 * i) + g]);
    }
    if (is_bf16)
        ptx_mma_bf16(fd, fa, fb);
    else
        ptx_mma_f16(fd, fa, fb);
    for (int i = 0; i < 4; i++) d[8 * (g + 8 * (i / 2)) + 2 * t + i % 2] = fd[i];
}

template <bool is_bf16, bool by_ldmatrix> static void check_product() {
    uint16_t a[256], b[128];
    float d[128], expected[128] = {};
    for (uint16_t &x : a)
        x = is_bf16 ? fkv_f32_to_bf16((float)test_normal()) : fkv_f32_to_f16((float)test_normal());
    for (uint16_t &x : b)
        x = is_bf16 ? fkv_f32_to_bf16((float)test_normal()) : fkv_f32_to_f16((float)test_normal());
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 8; j++)
            for (int k = 0; k < 16; k++)
                expected[8 * i + j] +=
                    is_bf16 ? fkv_bf16_to_f32(a[16 * i + k]) * fkv_bf16_to_f32(b[8 * k + j])
                            : fkv_f16_to_f32(a[16 * i + k]) * fkv_f16_to_f32(b[8 * k + j]);
    uint16_t *a_device = device_array(256, a), *b_device = device_array(128, b);
    float *d_device = device_array<float>(128);
    auto kernel = mma_kernel<is_bf16, by_ldmatrix>;
    assert_cuda(launch(1, 32, kernel, a_device, b_device, d_device));
    assert_cuda(cudaMemcpy(d, d_device, sizeof d, cudaMemcpyDeviceToHost));
    assert_arrays_close(d, expected, 128, 0, 1e-6);
    cudaFree(a_device), cudaFree(b_device), cudaFree(d_device);
}

static void fragments_multiply_as_whole_matrices(void **) {
    check_product<true, false>();
    check_product<true, true>();
    check_product<false, false>();
    check_product<false, true>();
}

/* ---- streams and graphs ---- */
static __global__ void add_kernel(int *to, const int *from, int n) {
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < n) to[i] += from[i];
}

/* On how many of 20 seeds a result is right when it is read, and its staging memory written again,
 * with or without waiting. */
template <bool waits> static int seeds_that_arrive() {
    int right = 0, *staged, *result;
    cudaStream_t compute, out;
    cudaEvent_t done;
    assert_cuda(cudaMallocHost(&staged, 4));
    assert_cuda(cudaMallocHost(&result, 4));
    assert_cuda(cudaStreamCreateWithFlags(&compute, cudaStreamNonBlocking));
    assert_cuda(cudaStreamCreateWithFlags(&out, cudaStreamNonBlocking));
    assert_cuda(cudaEventCreateWithFlags(&done, cudaEventDisableTiming));
    int *x = device_array<int>(1), *sum = device_array<int>(1);
    for (uint64_t seed = 0; seed < 20; seed++) {
        shim_seed(seed);
        assert_cuda(cudaMemsetAsync(sum, 0, 4, compute));
        *staged = 7;
        assert_cuda(cudaMemcpyAsync(x, staged, 4, cudaMemcpyHostToDevice, compute));
        if (waits) assert_cuda(cudaStreamSynchronize(compute));
        *staged = 8;
        assert_cuda(launch_with(compute, 0, 1, 32, add_kernel, sum, x, 1));
        assert_cuda(cudaEventRecord(done, compute));
        if (waits) assert_cuda(cudaStreamWaitEvent(out, done));
        assert_cuda(cudaMemcpyAsync(result, sum, 4, cudaMemcpyDeviceToHost, out));
        if (waits) assert_cuda(cudaStreamSynchronize(out));
        right += *result == 7;
        *result = -1;
        assert_cuda(cudaDeviceSynchronize());
    }
    cudaFree(x), cudaFree(sum), cudaFreeHost(staged), cudaFreeHost(result);
    cudaStreamDestroy(compute), cudaStreamDestroy(out), cudaEventDestroy(done);
    return right;
}

static void work_that_is_not_waited_for_may_not_have_happened(void **) {
    assert_int_equal(seeds_that_arrive<true>(), 20);
    assert_true(seeds_that_arrive<false>() < 20);
}

static void a_graph_replays_launches_with_what_is_staged_by_then(void **) {
    int *staged, result;
    cudaStream_t stream;
    cudaGraph_t graph;
    cudaGraphExec_t recorded;
    assert_cuda(cudaMallocHost(&staged, 4));
    assert_cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    int *x = device_array<int>(1), *sum = device_array<int>(1);
    assert_cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    assert_cuda(cudaMemcpyAsync(x, staged, 4, cudaMemcpyHostToDevice, stream));
    assert_cuda(launch_with(stream, 0, 1, 32, add_kernel, sum, x, 1));
    assert_cuda(cudaStreamEndCapture(stream, &graph));
    assert_cuda(cudaGraphInstantiate(&recorded, graph, 0));
    assert_cuda(cudaGraphDestroy(graph));
    int total = 0;
    for (int i = 0; i < 5; i++) {
        total += *staged = test_between(1, 1000);
        assert_cuda(cudaGraphLaunch(recorded, stream));
        assert_cuda(cudaStreamSynchronize(stream));
    }
    assert_cuda(cudaMemcpy(&result, sum, 4, cudaMemcpyDeviceToHost));
    assert_int_equal(result, total);

    assert_cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    assert_int_equal(cudaStreamSynchronize(stream), cudaErrorStreamCaptureUnsupported);
    assert_int_equal(cudaStreamEndCapture(stream, &graph), cudaErrorStreamCaptureInvalidated);
    cudaGetLastError();
    cudaGraphExecDestroy(recorded), cudaStreamDestroy(stream), cudaFreeHost(staged), cudaFree(x),
        cudaFree(sum);
}

/* ---- memory ---- */
static void device_memory_has_an_end(void **) {
    void *a, *b;
    setenv("FKV_SHIM_MEMORY", "100000", 1);
    assert_cuda(cudaMalloc(&a, 60000));
    assert_int_equal(cudaMalloc(&b, 60000), cudaErrorMemoryAllocation);
    assert_null(b);
    assert_int_equal(cudaGetLastError(), cudaErrorMemoryAllocation);
    assert_int_equal(cudaGetLastError(), cudaSuccess);
    size_t available, total;
    assert_cuda(cudaMemGetInfo(&available, &total));
    assert_int_equal(available, 40000);
    assert_cuda(cudaFree(a));
    unsetenv("FKV_SHIM_MEMORY");
}

static __global__ void nothing_kernel() {}

static void the_machine_is_what_the_environment_says(void **) {
    int count, version;
    cudaDeviceProp properties;
    cudaStream_t stream;
    setenv("FKV_SHIM_GPUS", "7.5,9.0", 1);
    assert_cuda(cudaGetDeviceCount(&count));
    assert_int_equal(count, 2);
    assert_cuda(cudaGetDeviceProperties(&properties, 0));
    assert_int_equal(10 * properties.major + properties.minor, 75);
    assert_cuda(cudaGetDeviceProperties(&properties, 1));
    assert_int_equal(10 * properties.major + properties.minor, 90);
    assert_int_equal(cudaSetDevice(2), cudaErrorInvalidDevice);
    assert_cuda(cudaSetDevice(1));
    assert_cuda(cudaStreamCreate(&stream));
    assert_cuda(launch_with(stream, 0, 1, 1, nothing_kernel));
    assert_cuda(cudaSetDevice(0));
    assert_int_equal(launch_with(stream, 0, 1, 1, nothing_kernel), cudaErrorInvalidResourceHandle);
    assert_cuda(cudaStreamDestroy(stream));
    setenv("FKV_SHIM_GPUS", "", 1);
    assert_int_equal(cudaGetDeviceCount(&count), cudaErrorNoDevice);
    unsetenv("FKV_SHIM_GPUS");
    setenv("FKV_SHIM_DRIVER", "12.4", 1);
    assert_int_equal(cudaGetDeviceCount(&count), cudaErrorInsufficientDriver);
    assert_cuda(cudaDriverGetVersion(&version));
    assert_int_equal(version, 12040);
    unsetenv("FKV_SHIM_DRIVER");
    assert_cuda(cudaGetDeviceCount(&count));
    assert_int_equal(count, 1);
    cudaGetLastError();
}

static void only_events_with_timing_have_a_time(void **) {
    cudaEvent_t timed[2], untimed;
    float milliseconds = -1;
    assert_cuda(cudaEventCreate(&timed[0]));
    assert_cuda(cudaEventCreate(&timed[1]));
    assert_cuda(cudaEventCreateWithFlags(&untimed, cudaEventDisableTiming));
    for (cudaEvent_t event : {timed[0], timed[1], untimed}) assert_cuda(cudaEventRecord(event));
    assert_cuda(cudaDeviceSynchronize());
    assert_cuda(cudaEventElapsedTime(&milliseconds, timed[0], timed[1]));
    assert_true(milliseconds >= 0);
    assert_int_equal(cudaEventElapsedTime(&milliseconds, timed[0], untimed),
                     cudaErrorInvalidResourceHandle);
    for (cudaEvent_t event : {timed[0], timed[1], untimed}) cudaEventDestroy(event);
    cudaGetLastError();
}

static void copies_stay_within_an_allocation(void **) {
    char host[64] = {};
    char *x = device_array<char>(64);
    assert_int_equal(cudaMemcpy(host, x, 64, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
    assert_cuda(cudaMemcpyAsync(x + 32, host, 64, cudaMemcpyHostToDevice, NULL));
    assert_faults(cudaDeviceSynchronize(), "64 bytes");
    cudaFree(x);
}

static __global__ void beyond_kernel(char *x, size_t bytes) { x[bytes] = 1; }

static __global__ void beyond_shared_kernel(size_t bytes) { ptx_dynamic_shared()[bytes] = 1; }

static void writes_beyond_memory_are_noticed(void **) {
#if defined(__SANITIZE_ADDRESS__)
    skip(); /* ASan ends the program */
#endif
    char *x = device_array<char>(100);
    assert_faults(launch(1, 1, beyond_kernel, x, 100), "written outside device memory");
    assert_cuda(cudaMemset(x, 0, 100));
    assert_faults((launch_with(NULL, 40, 1, 1, beyond_shared_kernel, 42), cudaDeviceSynchronize()),
                  "wrote 2 bytes beyond its 40 of dynamic shared memory");
}

static __global__ void vector_kernel(const float *x, float4 *out) { *out = *(const float4 *)x; }

static void misaligned_vectors_end_the_program(void **) {
    float *x = device_array<float>(8);
    float4 *out = device_array<float4>(1);
    assert_cuda(launch(1, 1, vector_kernel, x + 4, out));
    pid_t child = fork();
    if (!child) {
        fclose(stderr);
        launch(1, 1, vector_kernel, x + 1, out);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(!WIFEXITED(status) || WEXITSTATUS(status) != 0);
    cudaFree(x), cudaFree(out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(collectives_give_what_the_manual_says),
        cmocka_unit_test(a_missing_barrier_gives_wrong_results),
        cmocka_unit_test(threads_that_wait_for_absent_ones_are_reported),
        cmocka_unit_test(shared_memory_starts_as_nan_in_every_block),
        cmocka_unit_test(asynchronous_copies_arrive_when_waited_for),
        cmocka_unit_test(fragments_multiply_as_whole_matrices),
        cmocka_unit_test(work_that_is_not_waited_for_may_not_have_happened),
        cmocka_unit_test(a_graph_replays_launches_with_what_is_staged_by_then),
        cmocka_unit_test(device_memory_has_an_end),
        cmocka_unit_test(the_machine_is_what_the_environment_says),
        cmocka_unit_test(only_events_with_timing_have_a_time),
        cmocka_unit_test(copies_stay_within_an_allocation),
        cmocka_unit_test(writes_beyond_memory_are_noticed),
        cmocka_unit_test(misaligned_vectors_end_the_program),
    };
    test_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
