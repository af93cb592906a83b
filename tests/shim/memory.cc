/* Device memory, pinned memory, and the pretended machine. Allocations are plain malloc, so that
 * ASan sees overruns; elsewhere guard zones lie around them and are checked when they are freed and
 * when the device is synchronised. Their contents are NaN. Device addresses are checked wherever
 * the host passes one.
 *
 * The machine, by environment variables:
 *   FKV_SHIM_GPUS         compute capabilities of its GPUs, "9.0" (one) unless given; "" for a
 *                         driver without a GPU. Each has 4 multiprocessors, so that grids stay
 *                         small
 *   FKV_SHIM_DRIVER       the newest CUDA that its driver supports, 13.0 unless given; 0 for no
 *                         driver at all
 *   FKV_SHIM_MEMORY       bytes of a GPU, 4 GiB unless given; all GPUs share one account
 *   FKV_SHIM_SHARED       bytes of shared memory per block, 227 KiB unless given
 *   FKV_SHIM_ALLOCATIONS  K: another process takes what is left of the memory just before it is
 *                         asked for the K-th time (K = 0: the first), by cudaMalloc or otherwise
 *                         (shim_memory_left). What is freed afterwards can be had again. A run that
 *                         asks less often says on stderr how often it did, and how much it held at
 *                         once at most. */
#include "memory.h"

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <map>
#include <string>

#if defined(__SANITIZE_ADDRESS__)
static const size_t GUARD_BYTES = 0;
#else
static const size_t GUARD_BYTES = 256;
#endif
static const size_t ALIGNMENT = 256;

static std::map<const char *, size_t> device, pinned; /* start -> bytes */
static size_t device_bytes, device_peak;

static size_t number_given(const char *variable, size_t otherwise) {
    const char *text = getenv(variable);
    return text ? (size_t)strtoull(text, NULL, 10) : otherwise;
}

static size_t device_total() { return number_given("FKV_SHIM_MEMORY", (size_t)4 << 30); }
size_t shim_shared_most() { return number_given("FKV_SHIM_SHARED", (size_t)227 << 10); }

/* ---- memory that another process takes ---- */
static size_t requests,
    taken; /* how often memory was asked for; bytes that the other process has */

static size_t device_free() { return device_total() - taken - device_bytes; }

static void count_request() {
    if (requests++ == number_given("FKV_SHIM_ALLOCATIONS", SIZE_MAX)) taken = device_free();
}

bool shim_memory_left() {
    shim_lock lock;
    count_request();
    return device_free() >= 1 << 16;
}

static __attribute__((destructor)) void say_requests() {
    if (requests <= number_given("FKV_SHIM_ALLOCATIONS", SIZE_MAX) &&
        getenv("FKV_SHIM_ALLOCATIONS"))
        fprintf(stderr,
                "CUDA shim: device memory was asked for %zu times, %zu bytes at most were held at "
                "once\n",
                requests, device_peak);
}

static bool lies_in(const std::map<const char *, size_t> &allocations, const void *start,
                    size_t bytes) {
    const char *at = (const char *)start;
    auto next = allocations.upper_bound(at);
    if (next == allocations.begin()) return false;
    --next;
    return at + bytes <= next->first + next->second &&
           at < next->first + (next->second ? next->second : 1);
}

bool shim_device_range(const void *start, size_t bytes, const char *what) {
    if (!bytes || lies_in(device, start, bytes)) return true;
    shim_fail("%s: %zu bytes at %p do not lie in one allocation of device memory", what, bytes,
              start);
    return false;
}

bool shim_is_device(const void *address) { return lies_in(device, address, 0); }
bool shim_is_pinned(const void *address) { return lies_in(pinned, address, 0); }

static void check_guards(const char *start, size_t bytes) {
    for (size_t i = 0; i < GUARD_BYTES; i++)
        if (start[-1 - (ptrdiff_t)i] != 0x5a || start[bytes + i] != 0x5a) {
            shim_fail("written outside device memory: %zu bytes %s the %zu bytes at %p", i,
                      start[bytes + i] != 0x5a ? "beyond" : "before", bytes, (const void *)start);
            memset((char *)start - GUARD_BYTES, 0x5a, GUARD_BYTES); /* said once */
            memset((char *)start + bytes, 0x5a, GUARD_BYTES);
            return;
        }
}

void shim_check_memory() {
    for (const auto &allocation : device) check_guards(allocation.first, allocation.second);
}

cudaError_t shim_allocate(void **out, size_t bytes) {
    *out = NULL;
    count_request();
    if (bytes > device_free()) return cudaErrorMemoryAllocation;
    void *memory;
    if (posix_memalign(&memory, ALIGNMENT, 2 * GUARD_BYTES + bytes + !bytes))
        return cudaErrorMemoryAllocation;
    char *start = (char *)memory + GUARD_BYTES; /* still aligned */
    memset(memory, 0x5a, GUARD_BYTES);
    memset(start, 0xff, bytes);
    memset(start + bytes, 0x5a, GUARD_BYTES);
    device[start] = bytes;
    device_bytes += bytes;
    if (device_bytes > device_peak) device_peak = device_bytes;
    *out = start;
    return cudaSuccess;
}

cudaError_t shim_release(void *start) {
    auto found = device.find((char *)start);
    if (found == device.end()) return cudaErrorInvalidValue;
    check_guards(found->first, found->second);
    device_bytes -= found->second;
    device.erase(found);
    free((char *)start - GUARD_BYTES);
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *available, size_t *total) {
    shim_lock lock;
    *total = device_total();
    *available = device_free();
    return shim_status(cudaSuccess);
}

/* ---- host memory ---- */
cudaError_t cudaHostAlloc(void **out, size_t bytes, unsigned) {
    shim_lock lock;
    if (posix_memalign(out, 4096, bytes ? bytes : 1)) return shim_status(cudaErrorMemoryAllocation);
    memset(*out, 0xff, bytes);
    pinned[(char *)*out] = bytes;
    return shim_status(cudaSuccess);
}

cudaError_t cudaMallocHost(void **out, size_t bytes) { return cudaHostAlloc(out, bytes, 0); }

cudaError_t cudaFreeHost(void *memory) {
    if (!memory) return cudaSuccess;
    cudaError_t status = cudaHostUnregister(memory);
    if (!status) free(memory);
    return status;
}

cudaError_t cudaHostRegister(void *memory, size_t bytes, unsigned) {
    shim_lock lock;
    if (shim_is_pinned(memory)) return shim_status(cudaErrorInvalidValue);
    pinned[(char *)memory] = bytes;
    return shim_status(cudaSuccess);
}

cudaError_t cudaHostUnregister(void *memory) {
    shim_lock lock;
    shim_drain_all();
    return shim_status(pinned.erase((char *)memory) ? cudaSuccess : cudaErrorInvalidValue);
}

/* ---- the machine ---- */
/* A thread's current device. No thread_local variable: those are __shared__ arrays here (device.h).
 */
static pthread_key_t current_device = [] {
    pthread_key_t key;
    pthread_key_create(&key, NULL);
    return key;
}();

int shim_device() { return (int)(intptr_t)pthread_getspecific(current_device); }

/* The major and minor capability of GPU `device`; returns how many there are. */
static int find_gpu(int device, int *major, int *minor) {
    const char *text = getenv("FKV_SHIM_GPUS");
    int count = 0, length;
    if (!text) text = "9.0";
    for (int a, b; sscanf(text, "%d.%d%n", &a, &b, &length) == 2; count++) {
        if (count == device) *major = a, *minor = b;
        text += length + (text[length] == ',');
    }
    return count;
}

cudaError_t cudaRuntimeGetVersion(int *version) {
    *version = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int *version) {
    const char *text = getenv("FKV_SHIM_DRIVER");
    int major = CUDART_VERSION / 1000, minor = CUDART_VERSION % 1000 / 10;
    if (text && sscanf(text, "%d.%d", &major, &minor) < 2) minor = 0;
    *version = 1000 * major + 10 * minor;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *count) {
    int driver, unused;
    *count = 0;
    cudaDriverGetVersion(&driver);
    if (driver < CUDART_VERSION) return shim_status(cudaErrorInsufficientDriver);
    *count = find_gpu(-1, &unused, &unused);
    return shim_status(*count ? cudaSuccess : cudaErrorNoDevice);
}

cudaError_t cudaGetDevice(int *device) {
    *device = shim_device();
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
    int unused;
    if (device < 0 || device >= find_gpu(-1, &unused, &unused))
        return shim_status(cudaErrorInvalidDevice);
    pthread_setspecific(current_device, (void *)(intptr_t)device);
    return shim_status(cudaSuccess);
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *out, int device) {
    int major = 0, minor = 0;
    if (device < 0 || device >= find_gpu(device, &major, &minor))
        return shim_status(cudaErrorInvalidDevice);
    *out = cudaDeviceProp{};
    snprintf(out->name, sizeof out->name, "CPU shim of an NVIDIA GPU of capability %d.%d", major,
             minor);
    out->totalGlobalMem = device_total();
    out->sharedMemPerBlock = 48 << 10;
    out->sharedMemPerBlockOptin = shim_shared_most();
    out->sharedMemPerMultiprocessor = 228 << 10;
    out->major = major;
    out->minor = minor;
    out->multiProcessorCount = 4;
    out->warpSize = SHIM_LANES;
    out->maxThreadsPerBlock = 1024;
    out->maxThreadsPerMultiProcessor = 2048;
    out->regsPerBlock = 65536;
    out->l2CacheSize = 50 << 20;
    out->concurrentKernels = 1;
    out->asyncEngineCount = 3;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr which, int device) {
    cudaDeviceProp p;
    cudaError_t status = cudaGetDeviceProperties(&p, device);
    if (status) return status;
    switch (which) {
    case cudaDevAttrMaxThreadsPerBlock: *value = p.maxThreadsPerBlock; break;
    case cudaDevAttrWarpSize: *value = p.warpSize; break;
    case cudaDevAttrMultiProcessorCount: *value = p.multiProcessorCount; break;
    case cudaDevAttrL2CacheSize: *value = p.l2CacheSize; break;
    case cudaDevAttrComputeCapabilityMajor: *value = p.major; break;
    case cudaDevAttrComputeCapabilityMinor: *value = p.minor; break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
        *value = (int)p.sharedMemPerMultiprocessor;
        break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = (int)p.sharedMemPerBlockOptin; break;
    default: return shim_status(cudaErrorInvalidValue);
    }
    return cudaSuccess;
}
