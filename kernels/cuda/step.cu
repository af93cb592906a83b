/* Decode steps: a sequence of operations that is issued again and again becomes a CUDA graph, one
 * launch per token instead of hundreds.
 *
 * A graph fixes kernels, grids and arguments, and so also the addresses that item arrays are read
 * from. Their contents are what differs between tokens, so a step has one block on the device in
 * which each staged array has an offset, and fills it with a single copy before the graph runs. The
 * rounds of a step:
 *
 *   first    operations run as they would without a step. This loads kernels and lets cuBLAS make
 *            its choices, neither of which a capture allows, and counts what is staged, which is
 *            the size of the block.
 *   second   operations are captured while what they stage goes to the block's pinned image; `end`
 *            makes the graph, uploads, launches.
 *   later    operations stage and launch nothing (fkv_cuda_replaying); `end` uploads and launches.
 *
 * The pinned image is a ring of three, each free again when its upload has been made, so that the
 * host may prepare a step while others still run; the block on the device needs no guard, for the
 * stream has the upload behind the graph that read it. Where scratch has moved since the
 * recording, the round after is a second one again.
 *
 * A round that stages other arrays than the recording did would leave kernels with another item's
 * numbers; it is refused by the number of arrays and their total size. An operation that fails ends
 * the step (fkv_cuda_step_abandon) and takes the stream out of its capture: the next round starts
 * afresh.
 *
 * Capture is in thread-local mode: a second thread waiting for fetches does not disturb it. */
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cuda.cuh"

enum { IMAGES = 3, ALIGNMENT = 16 };

enum phase { COUNT, RECORD, REPLAY };

struct staged {
    int arrays;
    size_t bytes;
};

struct fkv_step {
    enum phase phase;      /* of the round in progress or to come */
    struct staged now;     /* in this round */
    struct staged counted; /* in the rounds before */
    char *block;           /* [counted.bytes] on the device */
    char *image[IMAGES];   /* [counted.bytes] each, pinned */
    cudaEvent_t uploaded[IMAGES];
    int current;
    cudaGraphExec_t graph;
    uint64_t scratch_moves; /* the backend's at the recording */
};

int fkv_cuda_step_create(struct fkv_backend *b, struct fkv_step **out, struct fkv_error *err) {
    struct fkv_step *s = (struct fkv_step *)calloc(1, sizeof *s);
    if (!s) return fkv_fail(err, "out of memory");
    for (int i = 0; i < IMAGES; i++)
        if (fkv_cuda_check(cudaEventCreateWithFlags(&s->uploaded[i], cudaEventDisableTiming),
                           "creating an event", err)) {
            fkv_cuda_step_release(b, s);
            return FKV_FAILED;
        }
    *out = s;
    return FKV_OK;
}

static void drop_graph(struct fkv_step *s) {
    if (s->graph) cudaGraphExecDestroy(s->graph);
    s->graph = NULL;
}

static void drop_block(struct fkv_step *s) {
    cudaFree(s->block);
    s->block = NULL;
    for (int i = 0; i < IMAGES; i++) {
        cudaFreeHost(s->image[i]);
        s->image[i] = NULL;
    }
}

void fkv_cuda_step_release(struct fkv_backend *b, struct fkv_step *s) {
    if (!s) return;
    fkv_cuda_use_device(b);
    if (b->step == s) fkv_cuda_step_abandon(b);
    cudaStreamSynchronize(b->stream); /* a graph that runs and images on their way */
    drop_graph(s);
    drop_block(s);
    for (int i = 0; i < IMAGES; i++)
        if (s->uploaded[i]) cudaEventDestroy(s->uploaded[i]);
    free(s);
}

static int make_block(struct fkv_step *s, struct fkv_error *err) {
    if (s->block) return FKV_OK;
    if (fkv_cuda_allocate(s->counted.bytes, "a step's items", &s->block, err)) return FKV_FAILED;
    for (int i = 0; i < IMAGES; i++)
        if (fkv_cuda_allocate_pinned(s->counted.bytes, "a step's items", &s->image[i], err)) {
            drop_block(s);
            return FKV_FAILED;
        }
    return FKV_OK;
}

int fkv_cuda_step_begin(struct fkv_backend *b, struct fkv_step *s, struct fkv_error *err) {
    if (b->step) return fkv_fail(err, "CUDA: a step begins within another");
    if (s->phase == REPLAY && s->scratch_moves != b->scratch_moves) {
        if (fkv_cuda_wait(b, "step", err)) return FKV_FAILED;
        drop_graph(s);
        s->phase = RECORD;
    }
    s->now = {};
    if (s->phase != COUNT) {
        s->current = (s->current + 1) % IMAGES;
        if (make_block(s, err) ||
            fkv_cuda_check(cudaEventSynchronize(s->uploaded[s->current]), "step", err))
            return FKV_FAILED;
    }
    if (s->phase == RECORD &&
        fkv_cuda_check(cudaStreamBeginCapture(b->stream, cudaStreamCaptureModeThreadLocal),
                       "recording a step", err))
        return FKV_FAILED;
    b->step = s;
    return FKV_OK;
}

static int end_recording(struct fkv_backend *b, struct fkv_step *s, struct fkv_error *err) {
    cudaGraph_t graph = NULL;
    drop_graph(s); /* of a recording that could not be launched */
    cudaError_t status = cudaStreamEndCapture(b->stream, &graph);
    if (status == cudaSuccess) status = cudaGraphInstantiate(&s->graph, graph, 0ull);
    if (graph) cudaGraphDestroy(graph);
    if (fkv_cuda_check(status, "recording a step", err)) return FKV_FAILED;
    s->scratch_moves = b->scratch_moves;
    return FKV_OK;
}

static int launch(struct fkv_backend *b, struct fkv_step *s, struct fkv_error *err) {
    if (s->now.bytes &&
        (fkv_cuda_check(cudaMemcpyAsync(s->block, s->image[s->current], s->now.bytes,
                                        cudaMemcpyHostToDevice, b->stream),
                        "step", err) ||
         fkv_cuda_check(cudaEventRecord(s->uploaded[s->current], b->stream), "step", err)))
        return FKV_FAILED;
    return fkv_cuda_check(cudaGraphLaunch(s->graph, b->stream), "step", err);
}

int fkv_cuda_step_end(struct fkv_backend *b, struct fkv_step *s, struct fkv_error *err) {
    if (b->step != s)
        return fkv_fail(err,
                        "CUDA: a step ends that has not begun, or in which an operation failed");
    if (s->phase == COUNT)
        s->counted = s->now;
    else if (s->now.arrays != s->counted.arrays || s->now.bytes != s->counted.bytes)
        return fkv_fail(err,
                        "CUDA: a repeated step stages %d arrays of %zu bytes, but its first round "
                        "staged %d of %zu: it is not the same sequence of operations",
                        s->now.arrays, s->now.bytes, s->counted.arrays, s->counted.bytes);
    else if (s->phase == RECORD && end_recording(b, s, err)) {
        b->step = NULL; /* the capture has ended, well or not */
        return FKV_FAILED;
    }
    b->step = NULL;
    if (s->phase != COUNT && launch(b, s, err)) return FKV_FAILED;
    s->phase = s->phase == COUNT ? RECORD : REPLAY;
    return FKV_OK;
}

void fkv_cuda_step_abandon(struct fkv_backend *b) {
    struct fkv_step *s = b->step;
    if (!s) return;
    b->step = NULL;
    if (s->phase != RECORD) return;
    cudaGraph_t graph = NULL;
    cudaStreamEndCapture(b->stream, &graph); /* reports what went wrong, which is known */
    cudaGetLastError();
    if (graph) cudaGraphDestroy(graph);
}

bool fkv_cuda_replaying(const struct fkv_backend *b) { return b->step && b->step->phase == REPLAY; }

int fkv_cuda_outside_step(const struct fkv_backend *b, const char *what, struct fkv_error *err) {
    if (!b->step) return FKV_OK;
    return fkv_fail(err, "CUDA: %s: not within a step", what);
}

int fkv_cuda_stage_bytes(struct fkv_backend *b, const void *host, size_t bytes, const void **device,
                         struct fkv_error *err) {
    struct fkv_step *s = b->step;
    if (!s) return fkv_cuda_stage_now(b, host, bytes, device, err);
    size_t at = s->now.bytes;
    s->now.arrays++;
    s->now.bytes += (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    if (s->phase == COUNT) return fkv_cuda_stage_now(b, host, bytes, device, err);
    if (s->now.bytes > s->counted.bytes)
        return fkv_fail(err,
                        "CUDA: a repeated step stages more than the %zu bytes of its first round: "
                        "it is not the same sequence of operations",
                        s->counted.bytes);
    if (bytes) memcpy(s->image[s->current] + at, host, bytes);
    *device = s->block + at;
    return FKV_OK;
}
