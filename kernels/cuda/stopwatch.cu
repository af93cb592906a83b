/* The backend's stopwatch (kernels.h, time_begin): a pair of CUDA events for every stretch, which
 * the stream records as it passes them, so that neither call waits and the time is the device's.
 *
 * Events are read when the sum is asked for, and otherwise when the ring of pairs comes round:
 * the pair before PAIRS others is then either long past or still to come behind work for PAIRS
 * stretches, and waiting for it leaves the device nothing to wait for. Used again only after they
 * have been read, events need no more care. They are made with the first stretch; runs that measure
 * nothing have none. */
#include <stdlib.h>

#include "kernels/cuda/cuda.cuh"

enum { PAIRS = 64 };

struct fkv_cuda_stopwatch {
    cudaEvent_t begin[PAIRS], end[PAIRS];
    int first, count; /* pairs that are recorded and not read, in order */
    bool running;     /* the pair behind them has begun */
    double seconds;   /* of those that are read */
};

void fkv_cuda_stopwatch_release(struct fkv_backend *b) {
    struct fkv_cuda_stopwatch *w = b->stopwatch;
    if (!w) return;
    for (int i = 0; i < PAIRS; i++) {
        if (w->begin[i]) cudaEventDestroy(w->begin[i]);
        if (w->end[i]) cudaEventDestroy(w->end[i]);
    }
    free(w);
    b->stopwatch = NULL;
}

static int create(struct fkv_backend *b, struct fkv_error *err) {
    if (b->stopwatch) return FKV_OK;
    struct fkv_cuda_stopwatch *w = (struct fkv_cuda_stopwatch *)calloc(1, sizeof *w);
    if (!w) return fkv_fail(err, "out of memory");
    b->stopwatch = w;
    for (int i = 0; i < PAIRS; i++)
        if (fkv_cuda_check(cudaEventCreate(&w->begin[i]), "creating an event", err) ||
            fkv_cuda_check(cudaEventCreate(&w->end[i]), "creating an event", err)) {
            fkv_cuda_stopwatch_release(b);
            return FKV_FAILED;
        }
    return FKV_OK;
}

/* Adds the oldest pair to the sum, once it is past. */
static int read_pair(struct fkv_cuda_stopwatch *w, struct fkv_error *err) {
    float milliseconds = 0;
    int i = w->first;
    if (fkv_cuda_check(cudaEventSynchronize(w->end[i]), "time", err) ||
        fkv_cuda_check(cudaEventElapsedTime(&milliseconds, w->begin[i], w->end[i]), "time", err))
        return FKV_FAILED;
    w->seconds += 1e-3 * milliseconds;
    w->first = (w->first + 1) % PAIRS;
    w->count--;
    return FKV_OK;
}

int fkv_cuda_time_begin(struct fkv_backend *b, struct fkv_error *err) {
    if (fkv_cuda_outside_step(b, "time", err) || create(b, err)) return FKV_FAILED;
    struct fkv_cuda_stopwatch *w = b->stopwatch;
    if (w->count == PAIRS && read_pair(w, err)) return FKV_FAILED;
    w->running = true;
    return fkv_cuda_check(cudaEventRecord(w->begin[(w->first + w->count) % PAIRS], b->stream),
                          "time", err);
}

int fkv_cuda_time_end(struct fkv_backend *b, struct fkv_error *err) {
    struct fkv_cuda_stopwatch *w = b->stopwatch;
    if (fkv_cuda_outside_step(b, "time", err)) return FKV_FAILED;
    if (!w || !w->running) return fkv_fail(err, "time: an end without a begin");
    w->running = false;
    if (fkv_cuda_check(cudaEventRecord(w->end[(w->first + w->count) % PAIRS], b->stream), "time",
                       err))
        return FKV_FAILED;
    w->count++;
    return FKV_OK;
}

int fkv_cuda_time_read(struct fkv_backend *b, double *seconds, struct fkv_error *err) {
    struct fkv_cuda_stopwatch *w = b->stopwatch;
    *seconds = 0;
    if (fkv_cuda_outside_step(b, "time", err)) return FKV_FAILED;
    if (!w) return FKV_OK;
    while (w->count)
        if (read_pair(w, err)) return FKV_FAILED;
    *seconds = w->seconds;
    return FKV_OK;
}
