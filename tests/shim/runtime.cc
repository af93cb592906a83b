/* Streams, events, graphs, copies and launches of the stand-in runtime.
 *
 * A stream is a queue of closures. Work is queued with its arguments and runs as late as CUDA
 * allows: when the stream, an event behind it or the device is waited for, and now and then by
 * chance (FKV_SHIM_SEED). Whatever host memory may still be read or written by then must therefore
 * still be right: a staging buffer that is used again too early, a result that is read before it
 * was waited for, or a stream that does not wait for another's event shows up as wrong numbers.
 * Copies from pageable memory take their source at once and copies to it wait, as CUDA's do; the
 * legacy default stream waits for all streams not created with cudaStreamNonBlocking.
 *
 * A capture records closures and runs nothing; streams that wait for an event of a capturing stream
 * join the capture. A graph runs its closures in order.
 *
 * Of several devices it knows which one a stream and an event were made for, and refuses a launch
 * from a thread whose device is another, and to record an event of another.
 *
 * Left out, because nothing here needs it: memory pools, priorities, peer access, textures. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <deque>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include "memory.h"

typedef std::function<void()> closure;

struct queue {
    std::deque<closure> work;
    uint64_t issued = 0, done = 0;
    bool blocking = true; /* the default stream waits for it */
    shim_graph *capture = NULL;
};

struct shim_stream {
    std::shared_ptr<queue> q;
    int device = shim_device();
};

struct shim_event {
    bool timed = true;
    int device = shim_device();
    std::shared_ptr<queue> q; /* where it was recorded last, and after how much work */
    uint64_t after = 0;
    shim_graph *capture = NULL;
    std::shared_ptr<double> milliseconds = std::make_shared<double>(0);
};

struct shim_graph {
    std::vector<closure> work;
    bool broken = false;
};

struct shim_graph_exec {
    std::shared_ptr<const std::vector<closure>> work;
};

std::recursive_mutex shim_mutex;
static std::vector<std::shared_ptr<queue>> queues(
    1, std::make_shared<queue>()); /* [0]: the default stream */
static cudaError_t last_error;
static char failure[512]; /* "" while the device is usable */
static std::map<const void *, size_t> shared_limits;
static std::set<const void *> loaded; /* kernels that have been launched */

/* ---- chance ---- */
static uint64_t random_state;

void shim_seed(uint64_t seed) { random_state = seed; }

static __attribute__((constructor)) void seed_from_environment() {
    const char *text = getenv("FKV_SHIM_SEED");
    random_state = text ? strtoull(text, NULL, 10) : (uint64_t)time(NULL);
    if (!text) fprintf(stderr, "FKV_SHIM_SEED=%llu\n", (unsigned long long)random_state);
}

uint32_t shim_random() { /* splitmix64 */
    uint64_t z = (random_state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (uint32_t)((z ^ (z >> 31)) >> 32);
}

/* ---- errors ---- */
void shim_fail(const char *format, ...) {
    if (failure[0]) return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(failure, sizeof failure, format, arguments);
    va_end(arguments);
    fprintf(stderr, "CUDA shim: %s\n", failure);
}

cudaError_t shim_status(cudaError_t status) {
    if (failure[0]) status = cudaErrorLaunchFailure;
    if (status && status != cudaErrorNotReady) last_error = status;
    return status;
}

cudaError_t cudaPeekAtLastError() {
    shim_lock lock;
    return failure[0] ? cudaErrorLaunchFailure : last_error;
}

cudaError_t cudaGetLastError() {
    shim_lock lock;
    cudaError_t status = cudaPeekAtLastError();
    last_error = cudaSuccess;
    return status;
}

static const struct {
    cudaError_t error;
    const char *name, *text;
} errors[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration",
     "invalid configuration argument"},
    {cudaErrorInsufficientDriver, "cudaErrorInsufficientDriver",
     "CUDA driver version is insufficient for CUDA runtime version"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
    {cudaErrorStreamCaptureUnsupported, "cudaErrorStreamCaptureUnsupported",
     "operation not permitted when stream is capturing"},
    {cudaErrorStreamCaptureInvalidated, "cudaErrorStreamCaptureInvalidated",
     "operation failed due to a previous error during capture"},
    {cudaErrorLaunchFailure, "cudaErrorLaunchFailure", "unspecified launch failure"},
};

const char *cudaGetErrorString(cudaError_t error) {
    if (error == cudaErrorLaunchFailure && failure[0]) return failure;
    for (const auto &e : errors)
        if (e.error == error) return e.text;
    return "unrecognized error code";
}

const char *cudaGetErrorName(cudaError_t error) {
    for (const auto &e : errors)
        if (e.error == error) return e.name;
    return "unrecognized error code";
}

/* ---- queues ---- */
static queue *queue_of(cudaStream_t stream) { return stream ? stream->q.get() : queues[0].get(); }

static void run_next(queue *q) {
    closure work = std::move(q->work.front());
    q->work.pop_front();
    if (!failure[0]) work();
    q->done++;
}

static void drain(queue *q, uint64_t until) {
    while (q->done < until && !q->work.empty()) run_next(q);
}

void shim_drain_all() {
    for (const auto &q : queues) drain(q.get(), q->issued);
}

cudaError_t shim_enqueue(cudaStream_t stream, closure work) {
    shim_lock lock;
    queue *q = queue_of(stream);
    if (failure[0]) return shim_status(cudaErrorLaunchFailure);
    if (q->capture) {
        q->capture->work.push_back(std::move(work));
        return shim_status(cudaSuccess);
    }
    if (!stream)
        for (const auto &other : queues)
            if (other->blocking) drain(other.get(), other->issued);
    q->work.push_back(std::move(work));
    q->issued++;
    queue *chosen = queues[shim_random() % queues.size()].get();
    if (shim_random() % 4 == 0 && !chosen->work.empty()) run_next(chosen);
    return shim_status(cudaSuccess);
}

/* Calls that wait are refused while anything captures, and break the capture, as in CUDA's global
 * mode. */
static bool refuse_capture() {
    bool capturing = false;
    for (const auto &q : queues)
        if (q->capture) q->capture->broken = capturing = true;
    return capturing;
}

/* ---- memory and copies ---- */
cudaError_t cudaMalloc(void **out, size_t bytes) {
    shim_lock lock;
    if (refuse_capture()) return shim_status(cudaErrorStreamCaptureUnsupported);
    return shim_status(shim_allocate(out, bytes));
}

cudaError_t cudaFree(void *memory) {
    shim_lock lock;
    if (!memory) return shim_status(cudaSuccess);
    if (refuse_capture()) return shim_status(cudaErrorStreamCaptureUnsupported);
    shim_drain_all();
    return shim_status(shim_release(memory));
}

struct rectangle {
    char *to;
    size_t to_pitch;
    const char *from;
    size_t from_pitch, width, height;
};

static void copy_rectangle(const rectangle &r) {
    size_t to_bytes = r.height ? (r.height - 1) * r.to_pitch + r.width : 0;
    size_t from_bytes = r.height ? (r.height - 1) * r.from_pitch + r.width : 0;
    if (shim_is_device(r.to) && !shim_device_range(r.to, to_bytes, "copy")) return;
    if (shim_is_device(r.from) && !shim_device_range(r.from, from_bytes, "copy")) return;
    for (size_t row = 0; row < r.height; row++)
        memmove(r.to + row * r.to_pitch, r.from + row * r.from_pitch, r.width);
}

static bool kind_fits(const rectangle &r, cudaMemcpyKind kind) {
    bool from = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    bool to = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    return kind == cudaMemcpyDefault ||
           (shim_is_device(r.from) == from && shim_is_device(r.to) == to);
}

/* Rows one after the other, for a source that is taken at once. */
static closure copy_snapshot(rectangle r) {
    auto bytes = std::make_shared<std::vector<char>>(r.width * r.height);
    copy_rectangle({bytes->data(), r.width, r.from, r.from_pitch, r.width, r.height});
    return [r, bytes] {
        copy_rectangle({r.to, r.to_pitch, bytes->data(), r.width, r.width, r.height});
    };
}

cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch,
                              size_t width, size_t height, cudaMemcpyKind kind,
                              cudaStream_t stream) {
    shim_lock lock;
    rectangle r = {(char *)to, to_pitch, (const char *)from, from_pitch, width, height};
    if (!width || !height) return shim_status(cudaSuccess);
    if (to_pitch < width || from_pitch < width || !kind_fits(r, kind))
        return shim_status(cudaErrorInvalidValue);
    bool capturing = queue_of(stream)->capture;
    bool from_pageable = !shim_is_device(from) && !shim_is_pinned(from);
    bool to_pageable = !shim_is_device(to) && !shim_is_pinned(to);
    closure work =
        from_pageable && !capturing ? copy_snapshot(r) : closure([r] { copy_rectangle(r); });
    cudaError_t status = shim_enqueue(stream, std::move(work));
    if (!status && to_pageable && !capturing) status = cudaStreamSynchronize(stream);
    return status;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
    return cudaMemcpy2DAsync(to, bytes, from, bytes, bytes, 1, kind, stream);
}

cudaError_t cudaMemcpy2D(void *to, size_t to_pitch, const void *from, size_t from_pitch,
                         size_t width, size_t height, cudaMemcpyKind kind) {
    cudaError_t status = cudaMemcpy2DAsync(to, to_pitch, from, from_pitch, width, height, kind, 0);
    return status ? status : cudaStreamSynchronize(0);
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind) {
    return cudaMemcpy2D(to, bytes, from, bytes, bytes, 1, kind);
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream) {
    return shim_enqueue(stream, [=] {
        if (shim_device_range(to, bytes, "cudaMemset")) memset(to, value, bytes);
    });
}

cudaError_t cudaMemset(void *to, int value, size_t bytes) {
    return cudaMemsetAsync(to, value, bytes, 0);
}

/* ---- launches ---- */
cudaError_t cudaFuncSetAttribute(const void *kernel, cudaFuncAttribute attribute, int value) {
    shim_lock lock;
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return shim_status(cudaSuccess);
    const size_t fixed =
        12 << 10; /* as if every kernel had so much in static arrays, which count too */
    if (value < 0 || (size_t)value + fixed > shim_shared_most())
        return shim_status(cudaErrorInvalidValue);
    shared_limits[kernel] = (size_t)value;
    return shim_status(cudaSuccess);
}

cudaError_t shim_launch(const cudaLaunchConfig_t *config, const void *kernel, closure thread) {
    dim3 grid = config->gridDim, block = config->blockDim;
    size_t shared = config->dynamicSmemBytes;
    {
        shim_lock lock;
        if (!grid.x || !grid.y || !grid.z || grid.x > 0x7fffffff || grid.y > 65535 ||
            grid.z > 65535 || !block.x || !block.y || !block.z || block.z > 64 ||
            (uint64_t)block.x * block.y * block.z > 1024)
            return shim_status(cudaErrorInvalidConfiguration);
        auto limit = shared_limits.find(kernel);
        if (shared > (limit == shared_limits.end() ? 48 << 10 : limit->second))
            return shim_status(cudaErrorInvalidValue);
        if (config->stream && config->stream->device != shim_device())
            return shim_status(cudaErrorInvalidResourceHandle);
        if (!loaded.count(kernel) && !shim_memory_left())
            return shim_status(cudaErrorMemoryAllocation);
        loaded.insert(kernel);
    }
    return shim_enqueue(config->stream, [=] {
        char message[512];
        if (!shim_run_grid(grid, block, shared, thread, message)) shim_fail("%s", message);
    });
}

/* ---- streams ---- */
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned flags) {
    shim_lock lock;
    *out = new shim_stream{std::make_shared<queue>()};
    (*out)->q->blocking = !(flags & cudaStreamNonBlocking);
    queues.push_back((*out)->q);
    return shim_status(cudaSuccess);
}

cudaError_t cudaStreamCreate(cudaStream_t *out) {
    return cudaStreamCreateWithFlags(out, cudaStreamDefault);
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *out, unsigned flags, int) {
    return cudaStreamCreateWithFlags(out, flags);
}
cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
    *least = *greatest = 0;
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    shim_lock lock;
    queue *q = queue_of(stream);
    if (refuse_capture()) return shim_status(cudaErrorStreamCaptureUnsupported);
    drain(q, q->issued);
    shim_check_memory();
    return shim_status(cudaSuccess);
}

cudaError_t cudaDeviceSynchronize() {
    shim_lock lock;
    if (refuse_capture()) return shim_status(cudaErrorStreamCaptureUnsupported);
    shim_drain_all();
    shim_check_memory();
    return shim_status(cudaSuccess);
}

cudaError_t cudaDeviceReset() {
    shim_lock lock;
    shim_drain_all();
    failure[0] = 0;
    last_error = cudaSuccess;
    return cudaSuccess;
}

cudaError_t cudaStreamQuery(cudaStream_t stream) {
    shim_lock lock;
    return shim_status(queue_of(stream)->work.empty() ? cudaSuccess : cudaErrorNotReady);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    shim_lock lock;
    if (!stream) return shim_status(cudaErrorInvalidResourceHandle);
    drain(stream->q.get(), stream->q->issued);
    for (size_t i = 1; i < queues.size(); i++)
        if (queues[i] == stream->q) queues.erase(queues.begin() + (ptrdiff_t)i--);
    delete stream;
    return shim_status(cudaSuccess);
}

/* ---- events ---- */
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned flags) {
    *out = new shim_event;
    (*out)->timed = !(flags & cudaEventDisableTiming);
    return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t *out) { return cudaEventCreateWithFlags(out, 0); }

cudaError_t cudaEventDestroy(cudaEvent_t event) {
    delete event;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    shim_lock lock;
    if (event->device != (stream ? stream->device : shim_device()))
        return shim_status(cudaErrorInvalidResourceHandle);
    event->capture = queue_of(stream)->capture;
    event->q = stream ? stream->q : queues[0];
    auto at = event->milliseconds;
    cudaError_t status = shim_enqueue(stream, [at] {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        *at = 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
    });
    event->after = event->q->issued;
    return status;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
    shim_lock lock;
    queue *q = queue_of(stream);
    if (event->capture) { /* part of the capture from now on; a graph runs in the order of its
                             recording */
        q->capture = event->capture;
        return shim_status(cudaSuccess);
    }
    if (!event->q) return shim_status(cudaSuccess);
    auto other = event->q;
    uint64_t after = event->after;
    return shim_enqueue(stream, [other, after] { drain(other.get(), after); });
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    shim_lock lock;
    if (event->capture) return shim_status(cudaErrorStreamCaptureUnsupported);
    if (event->q) drain(event->q.get(), event->after);
    return shim_status(cudaSuccess);
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
    shim_lock lock;
    return shim_status(event->q && event->q->done < event->after ? cudaErrorNotReady : cudaSuccess);
}

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t start, cudaEvent_t end) {
    shim_lock lock;
    if (!start->timed || !end->timed || !start->q || !end->q)
        return shim_status(cudaErrorInvalidResourceHandle);
    if (start->q->done < start->after || end->q->done < end->after)
        return shim_status(cudaErrorNotReady);
    *milliseconds = (float)(*end->milliseconds - *start->milliseconds);
    return shim_status(cudaSuccess);
}

/* ---- graphs ---- */
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
    shim_lock lock;
    if (!stream || stream->q->capture) return shim_status(cudaErrorStreamCaptureUnsupported);
    stream->q->capture = new shim_graph;
    return shim_status(cudaSuccess);
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph) {
    shim_lock lock;
    *graph = NULL;
    shim_graph *captured = stream ? stream->q->capture : NULL;
    if (!captured) return shim_status(cudaErrorInvalidValue);
    for (const auto &q : queues)
        if (q->capture == captured) q->capture = NULL;
    if (captured->broken) {
        delete captured;
        return shim_status(cudaErrorStreamCaptureInvalidated);
    }
    *graph = captured;
    return shim_status(cudaSuccess);
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus *status) {
    shim_lock lock;
    *status =
        queue_of(stream)->capture ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
    return shim_status(cudaSuccess);
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t graph, unsigned long long) {
    *out = NULL;
    if (!shim_memory_left()) return shim_status(cudaErrorMemoryAllocation);
    *out = new shim_graph_exec{std::make_shared<const std::vector<closure>>(graph->work)};
    return shim_status(cudaSuccess);
}

cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) { return shim_status(cudaSuccess); }

cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream) {
    auto work = graph->work;
    return shim_enqueue(stream, [work] {
        for (const closure &step : *work)
            if (!failure[0]) step();
    });
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    delete graph;
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) {
    delete graph;
    return cudaSuccess;
}
