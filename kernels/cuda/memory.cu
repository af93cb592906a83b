/* Buffers, copies between host and device, and the staging of item arrays.
 *
 * Everything that goes up passes through two pinned halves of 32 MiB: host memory is copied into
 * one while the GPU fetches the other, and an event says when a half may be filled again. So a
 * checkpoint is read from its mapping once, in pieces (page faults happen in the memcpy, which
 * overlaps the transfer), the caller's memory is free when a call returns, and an item array of a
 * few hundred bytes costs one asynchronous copy and waits for nothing. 32 MiB take about 0.6 ms on
 * PCIe 5 x16 (some 55 GB/s) and some 3 ms to copy on the host: one core's memcpy sets the pace,
 * about 10 GB/s. Considered and not done: registering the mapping itself (cudaHostRegister pins
 * page by page, which costs as much as copying and pins the whole file), several threads (loading
 * 14 GB takes two seconds as it is), cudaMallocAsync (allocations happen when a model opens, and
 * its pool would keep what is released).
 *
 * Staged arrays are in one block on the device that each operation fills from the start. Nothing
 * guards it but the stream's order: the copy that overwrites it runs after the kernels that were
 * launched upon what it held. */
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cuda.cuh"

enum { HALF = 32 << 20, SMALLEST_STAGING = 1 << 20, ALIGNMENT = 16 };

struct fkv_cuda_staging {
    char *pinned[2];      /* [HALF] each */
    cudaEvent_t taken[2]; /* the GPU has fetched what was in that half */
    int current;
    size_t filled; /* of the current half */
    char *device;
    size_t bytes, used;
};

/* ---- staging ---- */
int fkv_cuda_staging_create(struct fkv_backend *b, struct fkv_error *err) {
    struct fkv_cuda_staging *s = (struct fkv_cuda_staging *)calloc(1, sizeof *s);
    if (!s) return fkv_fail(err, "out of memory");
    b->staging = s;
    for (int i = 0; i < 2; i++)
        if (fkv_cuda_allocate_pinned(HALF, "staging", &s->pinned[i], err) ||
            fkv_cuda_check(cudaEventCreateWithFlags(&s->taken[i], cudaEventDisableTiming),
                           "creating an event", err))
            return FKV_FAILED;
    return fkv_cuda_staging_reserve(b, SMALLEST_STAGING, err);
}

void fkv_cuda_staging_release(struct fkv_backend *b) {
    struct fkv_cuda_staging *s = b->staging;
    if (!s) return;
    for (int i = 0; i < 2; i++) {
        cudaFreeHost(s->pinned[i]);
        if (s->taken[i]) cudaEventDestroy(s->taken[i]);
    }
    cudaFree(s->device);
    free(s);
    b->staging = NULL;
}

size_t fkv_cuda_staging_growth(const struct fkv_backend *b, size_t bytes) {
    return bytes > b->staging->bytes ? bytes - b->staging->bytes : 0;
}

int fkv_cuda_staging_reserve(struct fkv_backend *b, size_t bytes, struct fkv_error *err) {
    struct fkv_cuda_staging *s = b->staging;
    if (bytes <= s->bytes) return FKV_OK;
    if (fkv_cuda_wait(b, "staging", err)) return FKV_FAILED;
    cudaFree(s->device);
    s->bytes = s->used = 0;
    if (fkv_cuda_allocate(bytes, "staging", &s->device, err)) return FKV_FAILED;
    s->bytes = bytes;
    return FKV_OK;
}

void fkv_cuda_staging_restart(struct fkv_backend *b) { b->staging->used = 0; }

int fkv_cuda_upload(struct fkv_backend *b, char *device, const void *from, size_t bytes,
                    const char *what, struct fkv_error *err) {
    struct fkv_cuda_staging *s = b->staging;
    const char *host = (const char *)from;
    while (bytes) {
        if (s->filled == HALF) {
            if (fkv_cuda_check(cudaEventRecord(s->taken[s->current], b->stream), what, err))
                return FKV_FAILED;
            s->current = !s->current;
            s->filled = 0;
            if (fkv_cuda_check(cudaEventSynchronize(s->taken[s->current]), what, err))
                return FKV_FAILED;
        }
        size_t piece = bytes < HALF - s->filled ? bytes : HALF - s->filled;
        char *pinned = s->pinned[s->current] + s->filled;
        memcpy(pinned, host, piece);
        s->filled += piece;
        if (fkv_cuda_check(
                cudaMemcpyAsync(device, pinned, piece, cudaMemcpyHostToDevice, b->stream), what,
                err))
            return FKV_FAILED;
        device += piece, host += piece, bytes -= piece;
    }
    return FKV_OK;
}

int fkv_cuda_stage_now(struct fkv_backend *b, const void *host, size_t bytes, const void **device,
                       struct fkv_error *err) {
    struct fkv_cuda_staging *s = b->staging;
    if (bytes > s->bytes - s->used)
        return fkv_fail(err, "CUDA: an operation stages more than the %zu bytes that were reserved",
                        s->bytes);
    *device = s->device + s->used;
    if (fkv_cuda_upload(b, s->device + s->used, host, bytes, "staging", err)) return FKV_FAILED;
    s->used += (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    if (s->used > s->bytes) s->used = s->bytes;
    return FKV_OK;
}

/* ---- buffers ---- */
int fkv_cuda_buffer_create(struct fkv_backend *b, size_t bytes, struct fkv_buffer **out,
                           struct fkv_error *err) {
    if (fkv_cuda_outside_step(b, "creating a buffer", err)) return FKV_FAILED;
    struct fkv_buffer *buffer = (struct fkv_buffer *)calloc(1, sizeof *buffer);
    if (!buffer) return fkv_fail(err, "out of memory");
    buffer->bytes = bytes;
    if (fkv_cuda_allocate(bytes, "a buffer", &buffer->data, err)) {
        free(buffer);
        return FKV_FAILED;
    }
    *out = buffer;
    return FKV_OK;
}

int fkv_cuda_buffer_adopt(struct fkv_backend *b, const void *host, size_t bytes,
                          struct fkv_buffer **out, struct fkv_error *err) {
    struct fkv_buffer *buffer = NULL;
    if (fkv_cuda_buffer_create(b, bytes, &buffer, err)) return FKV_FAILED;
    if (fkv_cuda_upload(b, buffer->data, host, bytes, "copying weights to the GPU", err)) {
        fkv_cuda_buffer_release(b, buffer);
        return FKV_FAILED;
    }
    *out = buffer;
    return FKV_OK;
}

/* cudaFree waits for the device, so operations that still read the buffer have ended. */
void fkv_cuda_buffer_release(struct fkv_backend *b, struct fkv_buffer *buffer) {
    if (!buffer) return;
    fkv_cuda_use_device(b);
    cudaFree(buffer->data);
    free(buffer);
}

const void *fkv_cuda_address(const struct fkv_buffer *buffer) { return buffer->data; }

/* ---- copies ---- */
int fkv_cuda_check_range(const struct fkv_buffer *buffer, size_t offset, size_t bytes,
                         const char *what, struct fkv_error *err) {
    if (offset <= buffer->bytes && bytes <= buffer->bytes - offset) return FKV_OK;
    return fkv_fail(err, "%s: %zu bytes at %zu do not lie in a buffer of %zu", what, bytes, offset,
                    buffer->bytes);
}

int fkv_cuda_write(struct fkv_backend *b, struct fkv_buffer *to, size_t offset, const void *from,
                   size_t bytes, struct fkv_error *err) {
    if (fkv_cuda_outside_step(b, "write", err) ||
        fkv_cuda_check_range(to, offset, bytes, "write", err))
        return FKV_FAILED;
    return fkv_cuda_upload(b, to->data + offset, from, bytes, "write", err);
}

/* Into pageable memory, by the driver's own pinned buffers: what is read is logits, statistics and
 * test results. States go by fetch. */
int fkv_cuda_read(struct fkv_backend *b, const struct fkv_buffer *from, size_t offset, void *to,
                  size_t bytes, struct fkv_error *err) {
    if (fkv_cuda_outside_step(b, "read", err) ||
        fkv_cuda_check_range(from, offset, bytes, "read", err))
        return FKV_FAILED;
    if (bytes && fkv_cuda_check(cudaMemcpyAsync(to, from->data + offset, bytes,
                                                cudaMemcpyDeviceToHost, b->stream),
                                "read", err))
        return FKV_FAILED;
    return fkv_cuda_wait(b, "read", err);
}

int fkv_cuda_copy(struct fkv_backend *b, struct fkv_buffer *to, size_t to_offset,
                  const struct fkv_buffer *from, size_t from_offset, size_t bytes,
                  struct fkv_error *err) {
    if (fkv_cuda_check_range(to, to_offset, bytes, "copy", err) ||
        fkv_cuda_check_range(from, from_offset, bytes, "copy", err))
        return FKV_FAILED;
    if (!bytes || fkv_cuda_replaying(b)) return FKV_OK;
    return fkv_cuda_check(cudaMemcpyAsync(to->data + to_offset, from->data + from_offset, bytes,
                                          cudaMemcpyDeviceToDevice, b->stream),
                          "copy", err);
}
