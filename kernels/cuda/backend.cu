/* The CUDA backend's table, its life, its errors, and what all operations lean on: scratch, the
 * frequencies, the device of a thread.
 *
 * Streams: one for everything (b->stream; a second one in fetch.cu only carries states away).
 * Nothing uses the default stream, so two backends in one program, on one device or on two, do not
 * wait for each other.
 *
 * Devices. CUDA keeps a current device per thread, device 0 unless a program sets another, and
 * launches, allocations and cuBLAS calls go there. A caller may hold backends of several devices,
 * and fetch_wait comes from a thread of its own, so every entry of the table makes the backend's
 * device current first (`entry` below; a thread-local number makes that free while a thread stays
 * on one device). Only this module calls cudaSetDevice in our programs. The same wrapper rewinds
 * the staging block and calls off the step in which an operation fails, so that no operation has to
 * think of either.
 *
 * cuBLAS gets its workspace here, once: left alone it allocates when a stream capture begins, which
 * is forbidden, or keeps one per captured graph.
 *
 * Errors are noticed where an operation calls CUDA, and named after it. A kernel that faults is
 * noticed by a later call, whose message says that an earlier operation failed. After such a fault
 * this process cannot use the device any more. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cuda.cuh"

extern "C" {
#include "kernels/base/host.h"
}

enum { OLDEST_MAJOR = 8 }; /* compute capability, which CMakeLists.txt compiles for */
/* What cuBLAS asks for on Hopper ("cublasSetWorkspace" in its manual); elsewhere it needs less. */
enum { BLAS_WORKSPACE = 32 << 20 };
/* What CUDA takes when a run starts and does not say: the code of kernels, ours and the libraries',
 * which comes with their first launch, plans, recorded steps, and allocations rounded up to pages
 * of 2 MiB. An estimate. */
enum { FOR_CUDA_ITSELF = 128 << 20 };
enum { STEP_ITEM = 128 }; /* bytes at most of an item with its spans, as a step keeps it */

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

/* ---- errors ---- */
static bool blames_the_past(cudaError_t status) {
    return status == cudaErrorIllegalAddress || status == cudaErrorLaunchFailure ||
           status == cudaErrorLaunchTimeout || status == cudaErrorMisalignedAddress ||
           status == cudaErrorIllegalInstruction || status == cudaErrorECCUncorrectable;
}

/* `amount`: bytes, or for whom where CUDA does not say how many. */
static int refuse_memory(const char *what, const char *amount, struct fkv_error *err) {
    size_t available = 0, total = 0;
    char a[16], b[16];
    cudaMemGetInfo(&available, &total);
    fkv_format_bytes(a, (int64_t)available);
    fkv_format_bytes(b, (int64_t)total);
    return fkv_fail(err, "out of GPU memory: %s wants %s, free are %s of %s", what, amount, a, b);
}

int fkv_cuda_check(cudaError_t status, const char *what, struct fkv_error *err) {
    if (status == cudaSuccess) return FKV_OK;
    cudaGetLastError(); /* CUDA keeps it for the next call otherwise */
    if (status == cudaErrorMemoryAllocation)
        return refuse_memory(what, "some for CUDA itself", err);
    return fkv_fail(err, "CUDA: %s: %s (%s)%s", what, cudaGetErrorString(status),
                    cudaGetErrorName(status),
                    blames_the_past(status) ? "; this or an earlier operation caused it" : "");
}

int fkv_cuda_check_blas(cublasStatus_t status, const char *what, struct fkv_error *err) {
    if (status == CUBLAS_STATUS_SUCCESS) return FKV_OK;
    cudaGetLastError();
    if (status == CUBLAS_STATUS_ALLOC_FAILED) return refuse_memory(what, "some for cuBLAS", err);
    return fkv_fail(err, "CUDA: %s: cuBLAS: %s", what, cublasGetStatusString(status));
}

int fkv_cuda_check_fft(cufftResult status, const char *what, struct fkv_error *err) {
    if (status == CUFFT_SUCCESS) return FKV_OK;
    cudaGetLastError();
    if (status == CUFFT_ALLOC_FAILED) return refuse_memory(what, "some for cuFFT", err);
    return fkv_fail(err, "CUDA: %s: cuFFT: error %d", what, (int)status);
}

/* ---- the device ---- */
void fkv_cuda_use_device(const struct fkv_backend *b) {
    static thread_local int current = -1;
    if (current == b->device) return;
    /* Where it fails, the device is lost, and the call that follows says so with a message. */
    current = cudaSetDevice(b->device) == cudaSuccess ? b->device : -1;
}

int fkv_cuda_allocate(size_t bytes, const char *what, char **out, struct fkv_error *err) {
    *out = NULL;
    cudaError_t status = cudaMalloc((void **)out, bytes ? bytes : 1);
    if (status != cudaErrorMemoryAllocation) return fkv_cuda_check(status, what, err);
    cudaGetLastError();
    char amount[16];
    fkv_format_bytes(amount, (int64_t)bytes);
    return refuse_memory(what, amount, err);
}

int fkv_cuda_allocate_pinned(size_t bytes, const char *what, char **out, struct fkv_error *err) {
    *out = NULL;
    cudaError_t status = cudaHostAlloc((void **)out, bytes ? bytes : 1, cudaHostAllocPortable);
    if (status != cudaErrorMemoryAllocation) return fkv_cuda_check(status, what, err);
    cudaGetLastError();
    char amount[16];
    fkv_format_bytes(amount, (int64_t)bytes);
    return fkv_fail(err, "out of memory: %s wants %s of pinned host memory", what, amount);
}

int fkv_cuda_wait(struct fkv_backend *b, const char *what, struct fkv_error *err) {
    return fkv_cuda_check(cudaStreamSynchronize(b->stream), what, err);
}

static int find_devices(int *count, struct fkv_error *err) {
    cudaError_t status = cudaGetDeviceCount(count);
    if (status == cudaErrorInsufficientDriver) {
        int driver = 0, runtime = 0;
        cudaGetLastError();
        cudaDriverGetVersion(&driver);
        cudaRuntimeGetVersion(&runtime);
        if (!driver) return fkv_fail(err, "CUDA: this machine has no NVIDIA driver");
        return fkv_fail(err,
                        "CUDA: the NVIDIA driver is too old: it supports CUDA up to %d.%d, and "
                        "this module was built with "
                        "%d.%d; update the driver",
                        driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
    }
    if (status == cudaErrorNoDevice || (status == cudaSuccess && *count == 0)) {
        cudaGetLastError();
        return fkv_fail(err, "CUDA: this machine has no NVIDIA GPU that the driver can use");
    }
    return fkv_cuda_check(status, "looking for GPUs", err);
}

static int check_supported(int device, cudaDeviceProp *properties, struct fkv_error *err) {
    if (fkv_cuda_check(cudaGetDeviceProperties(properties, device), "asking for a GPU's properties",
                       err))
        return FKV_FAILED;
    if (properties->major >= OLDEST_MAJOR) return FKV_OK;
    return fkv_fail(
        err, "CUDA: GPU %d, %s, is of compute capability %d.%d; expected %d.0 (A100) or newer",
        device, properties->name, properties->major, properties->minor, OLDEST_MAJOR);
}

/* The GPU that is asked for, or the first that will do. */
static int pick_device(int wanted, int *device, cudaDeviceProp *properties, struct fkv_error *err) {
    int count;
    if (find_devices(&count, err)) return FKV_FAILED;
    *device = wanted;
    if (wanted == FKV_ANY_DEVICE) {
        for (*device = 0; *device < count; ++*device)
            if (!check_supported(*device, properties, err)) return FKV_OK;
        return FKV_FAILED; /* with the last GPU's message */
    }
    if (wanted >= 0 && wanted < count) return check_supported(wanted, properties, err);
    if (count == 1)
        return fkv_fail(err, "CUDA: device: expected 0, for there is one GPU, found %d", wanted);
    return fkv_fail(err, "CUDA: device: expected 0 to %d, for there are %d GPUs, found %d",
                    count - 1, count, wanted);
}

int fkv_cuda_probe(struct fkv_error *err) {
    int device;
    cudaDeviceProp properties;
    return pick_device(FKV_ANY_DEVICE, &device, &properties, err);
}

/* ---- life ---- */
static int set_up(struct fkv_backend *b, struct fkv_error *err) {
    if (fkv_cuda_check(cudaStreamCreateWithFlags(&b->stream, cudaStreamNonBlocking),
                       "creating a stream", err) ||
        fkv_cuda_allocate_pinned(FKV_CUDA_RESULTS, "results", &b->results, err) ||
        fkv_cuda_staging_create(b, err) ||
        fkv_cuda_allocate(BLAS_WORKSPACE, "cuBLAS's workspace", &b->blas_workspace, err) ||
        fkv_cuda_check_blas(cublasCreate(&b->blas), "starting cuBLAS", err))
        return FKV_FAILED;
    /* The workspace after the stream, which takes an earlier one away. Sums stay float32, also the
     * partial sums of a split product. */
    if (fkv_cuda_check_blas(cublasSetStream(b->blas, b->stream), "setting cuBLAS's stream", err) ||
        fkv_cuda_check_blas(cublasSetWorkspace(b->blas, b->blas_workspace, BLAS_WORKSPACE),
                            "setting cuBLAS's workspace", err) ||
        fkv_cuda_check_blas(
            cublasSetMathMode(b->blas,
                              (cublasMath_t)(CUBLAS_DEFAULT_MATH |
                                             CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION)),
            "setting cuBLAS's precision", err))
        return FKV_FAILED;
    return FKV_OK;
}

int fkv_cuda_open(const struct fkv_backend_options *options, struct fkv_backend **out,
                  struct fkv_error *err) {
    int device;
    cudaDeviceProp properties;
    if (pick_device(options->device, &device, &properties, err)) return FKV_FAILED;
    struct fkv_backend *b = (struct fkv_backend *)calloc(1, sizeof *b);
    if (!b) return fkv_fail(err, "out of memory");
    b->device = device;
    b->multiprocessors = properties.multiProcessorCount;
    b->shared_limit = properties.sharedMemPerBlockOptin - FKV_CUDA_STATIC_SHARED;
    b->compute = options->compute;
    fkv_cuda_use_device(b);
    if (set_up(b, err)) {
        fkv_error_prefix(err, "GPU %d, %s", device, properties.name);
        fkv_cuda_close(b);
        return FKV_FAILED;
    }
    *out = b;
    return FKV_OK;
}

static void release_frequencies(struct fkv_backend *b);

void fkv_cuda_close(struct fkv_backend *b) {
    if (!b) return;
    fkv_cuda_use_device(b);
    fkv_cuda_step_abandon(b);
    if (b->stream) cudaStreamSynchronize(b->stream);
    fkv_cuda_fetching_release(b);
    fkv_cuda_spectra_release(b);
    fkv_cuda_staging_release(b);
    fkv_cuda_stopwatch_release(b);
    release_frequencies(b);
    if (b->blas) cublasDestroy(b->blas);
    cudaFree(b->blas_workspace);
    cudaFree(b->scratch);
    cudaFreeHost(b->results);
    if (b->stream) cudaStreamDestroy(b->stream);
    free(b);
}

int fkv_cuda_info(struct fkv_backend *b, struct fkv_device_info *out, struct fkv_error *err) {
    cudaDeviceProp properties;
    size_t available, total;
    if (fkv_cuda_check(cudaGetDeviceProperties(&properties, b->device), "asking for the GPU's name",
                       err) ||
        fkv_cuda_check(cudaMemGetInfo(&available, &total), "asking for the GPU's memory", err))
        return FKV_FAILED;
    *out = {};
    snprintf(out->name, sizeof out->name, "%.*s", (int)sizeof out->name - 1, properties.name);
    snprintf(out->kernels, sizeof out->kernels, "%.*s", (int)sizeof out->kernels - 1,
             properties.name);
    out->memory_total = (int64_t)total;
    out->memory_free = (int64_t)available;
    out->space = FKV_DEVICE;
    return FKV_OK;
}

int fkv_cuda_synchronize(struct fkv_backend *b, struct fkv_error *err) {
    if (fkv_cuda_outside_step(b, "synchronize", err)) return FKV_FAILED;
    return fkv_cuda_wait(b, "synchronize", err);
}

/* ---- scratch ---- */
/* Where more does not fit, the scratch gets its old size back: this call fails, others go on. */
int fkv_cuda_grow_scratch(struct fkv_backend *b, size_t bytes, struct fkv_error *err) {
    if (bytes <= b->scratch_bytes) return FKV_OK;
    if (fkv_cuda_outside_step(b, "scratch", err) || fkv_cuda_wait(b, "scratch", err))
        return FKV_FAILED;
    cudaFree(b->scratch); /* first, so that never both are allocated */
    b->scratch_moves++;
    int status = fkv_cuda_allocate(bytes, "scratch", &b->scratch, err);
    if (status == FKV_OK) b->scratch_bytes = bytes;
    struct fkv_error again;
    if (status && fkv_cuda_allocate(b->scratch_bytes, "scratch", &b->scratch, &again))
        b->scratch_bytes = 0;
    return status;
}

/* The most that one operation stages: an item and a span each, tokens, and lists of slots. */
static size_t staging_bytes(const struct fkv_limits *l) {
    return 256 * (size_t)l->items + 64 * (size_t)l->rows + fkv_cuda_gather_staging(l);
}

static size_t scratch_of(const struct fkv_backend *b, const struct fkv_limits *l) {
    size_t bytes = larger(fkv_cuda_matmul_scratch(l), fkv_cuda_attend_scratch(b, l));
    bytes = larger(bytes, fkv_cuda_attention_paid_scratch(l));
    return larger(bytes, larger(fkv_cuda_cache_scratch(l), fkv_cuda_compress_scratch(b, l)));
}

int fkv_cuda_reserve(struct fkv_backend *b, const struct fkv_limits *limits,
                     struct fkv_error *err) {
    struct fkv_limits l = fkv_limits_join(&b->limits, limits);
    struct fkv_attention_shape still = limits->attention; /* a layer without a rotation */
    const double *frequencies;
    still.rotary = 0;
    if (fkv_cuda_grow_scratch(b, scratch_of(b, &l), err) ||
        fkv_cuda_staging_reserve(b, staging_bytes(&l), err) ||
        (limits->attention.inv_freq &&
         (fkv_cuda_frequencies(b, &limits->attention, &frequencies, err) ||
          fkv_cuda_frequencies(b, &still, &frequencies, err))))
        return FKV_FAILED;
    b->limits = l;
    return FKV_OK;
}

/* Scratch and staging are freed before they grow, so what is held counts against what will be. */
int fkv_cuda_add_needs(struct fkv_backend *b, const struct fkv_demand *d,
                       struct fkv_backend_needs *own, struct fkv_error *err) {
    const struct fkv_limits l = fkv_limits_join(&b->limits, &d->limits);
    size_t scratch = d->limits.rows ? scratch_of(b, &l) : 0, tables = 0, most = 0;
    if (d->map_n &&
        fkv_cuda_map_bytes(b, &l, d->map_n, d->map_retained, d->map_matrices, &tables, &most, err))
        return FKV_FAILED;
    scratch = larger(scratch, most);
    if (d->segment_n && fkv_cuda_spectra_scratch(b, d->segment_n, d->segment_heads,
                                                 d->segment_head_dim, &most, err))
        return FKV_FAILED;
    scratch = larger(scratch, most);
    int64_t growth =
        FOR_CUDA_ITSELF + (int64_t)(scratch > b->scratch_bytes ? scratch - b->scratch_bytes : 0);
    if (growth > own->shared) own->shared = growth;
    own->kept += (int64_t)(tables + (d->fetches ? fkv_cuda_fetching_bytes(b) : 0)) +
                 d->step_items * STEP_ITEM;
    if (d->limits.rows)
        own->kept +=
            (int64_t)fkv_cuda_staging_growth(b, staging_bytes(&l)) + 2 * l.attention.head_dim * 4;
    return FKV_OK;
}

/* ---- frequencies ---- */
enum { MOST_PAIRS = 256 };

/* A program has a few sets per model, one of zeros among them: a list that only grows will do. Sets
 * stay where they are, for recorded steps point to them. */
struct fkv_cuda_frequencies {
    struct fkv_cuda_frequencies *next;
    double *device;
    int32_t half;
    double host[]; /* [half] */
};

int fkv_cuda_frequencies(struct fkv_backend *b, const struct fkv_attention_shape *shape,
                         const double **device, struct fkv_error *err) {
    static const double none[MOST_PAIRS] = {};
    int32_t half = shape->head_dim / 2;
    size_t bytes = (size_t)half * sizeof(double);
    if (half > MOST_PAIRS || (shape->rotary && shape->rotary != shape->head_dim))
        return fkv_fail(
            err,
            "rotation: expected all %d channels of a head to turn, or none, found %d (a "
            "partial rotation is computed by --backend cpu alone)",
            shape->head_dim, shape->rotary);
    const double *inv_freq = shape->rotary ? shape->inv_freq : none;
    for (const struct fkv_cuda_frequencies *set = b->frequencies; set; set = set->next)
        if (set->half == half && !memcmp(set->host, inv_freq, bytes)) {
            *device = set->device;
            return FKV_OK;
        }
    struct fkv_cuda_frequencies *set = (struct fkv_cuda_frequencies *)malloc(sizeof *set + bytes);
    if (!set) return fkv_fail(err, "out of memory");
    char *memory;
    if (fkv_cuda_allocate(bytes, "rotation frequencies", &memory, err) ||
        fkv_cuda_upload(b, memory, inv_freq, bytes, "rotation frequencies", err)) {
        cudaFree(memory);
        free(set);
        return FKV_FAILED;
    }
    set->next = b->frequencies;
    set->device = (double *)memory;
    set->half = half;
    memcpy(set->host, inv_freq, bytes);
    b->frequencies = set;
    *device = set->device;
    return FKV_OK;
}

static void release_frequencies(struct fkv_backend *b) {
    while (b->frequencies) {
        struct fkv_cuda_frequencies *set = b->frequencies;
        b->frequencies = set->next;
        cudaFree(set->device);
        free(set);
    }
}

/* ---- the table ---- */
template <auto operation> struct entry;
template <typename... Parameters, int (*operation)(struct fkv_backend *, Parameters...)>
struct entry<operation> {
    static int call(struct fkv_backend *b, Parameters... parameters) {
        fkv_cuda_use_device(b);
        fkv_cuda_staging_restart(b);
        int status = operation(b, parameters...);
        if (status) fkv_cuda_step_abandon(b);
        return status;
    }
};

extern "C" {
extern const struct fkv_backend_ops fkv_cuda_backend __attribute__((visibility("default")));
const struct fkv_backend_ops fkv_cuda_backend = {
    .abi = FKV_BACKEND_ABI,
    .name = "cuda",
    .probe = fkv_cuda_probe,
    .open = fkv_cuda_open,
    .close = fkv_cuda_close,
    .info = entry<fkv_cuda_info>::call,
    .reserve = entry<fkv_cuda_reserve>::call,
    .add_needs = entry<fkv_cuda_add_needs>::call,
    .synchronize = entry<fkv_cuda_synchronize>::call,
    .time_begin = entry<fkv_cuda_time_begin>::call,
    .time_end = entry<fkv_cuda_time_end>::call,
    .time_read = entry<fkv_cuda_time_read>::call,
    .buffer_create = entry<fkv_cuda_buffer_create>::call,
    .buffer_adopt = entry<fkv_cuda_buffer_adopt>::call,
    .buffer_release = fkv_cuda_buffer_release,
    .write = entry<fkv_cuda_write>::call,
    .read = entry<fkv_cuda_read>::call,
    .copy = entry<fkv_cuda_copy>::call,
    .copy_rows = entry<fkv_cuda_copy_rows>::call,
    .address = fkv_cuda_address,
    .host_create = entry<fkv_cuda_host_create>::call,
    .host_release = fkv_cuda_host_release,
    .fetch = entry<fkv_cuda_fetch>::call,
    .fetch_wait = fkv_cuda_fetch_wait,
    .step_create = entry<fkv_cuda_step_create>::call,
    .step_release = fkv_cuda_step_release,
    .step_begin = entry<fkv_cuda_step_begin>::call,
    .step_end = entry<fkv_cuda_step_end>::call,
    .embed = entry<fkv_cuda_embed>::call,
    .norm_qkv = entry<fkv_cuda_norm_qkv>::call,
    .rotate = entry<fkv_cuda_rotate>::call,
    .project_residual = entry<fkv_cuda_project_residual>::call,
    .norm_gate_up = entry<fkv_cuda_norm_gate_up>::call,
    .norm_logits = entry<fkv_cuda_norm_logits>::call,
    .score = entry<fkv_cuda_score>::call,
    .compare = entry<fkv_cuda_compare>::call,
    .append = entry<fkv_cuda_append>::call,
    .attend = entry<fkv_cuda_attend>::call,
    .attention_paid = entry<fkv_cuda_attention_paid>::call,
    .map_dct = entry<fkv_cuda_map_dct>::call,
    .map_matrix = entry<fkv_cuda_map_matrix>::call,
    .map_release = fkv_cuda_map_release,
    .compress = entry<fkv_cuda_compress>::call,
    .gather = entry<fkv_cuda_gather>::call,
    .power = entry<fkv_cuda_power>::call,
    .spectra_add = entry<fkv_cuda_spectra_add>::call,
};
}
