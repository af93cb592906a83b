/* States on their way out: rows of float32 are converted on the GPU into one of four device blocks,
 * and a second stream carries the block into the caller's pinned memory while the first one goes on
 * computing.
 *
 *   main stream    wait until the block is free - convert - record `converted`  - next operation
 *           ...
 *   fetch stream   wait for `converted` - copy to the host - record `carried`, and the ticket's
 *                  event when it is the last piece
 *
 * All waiting is done by the streams; the host only issues. When the bus falls behind (16 bits of K
 * and V of a 7B model at 4096 rows: 2.1 GB over about 55 GB/s = 40 ms, about as long as computing
 * them takes), the main stream waits for a free block: memory stays bounded, nothing is dropped.
 * Pieces are whole rows of at most 16 MiB; the source is read by the conversion, on the main
 * stream, so operations issued later may overwrite it.
 *
 * Tickets count upwards. Copies end in the order of their tickets, so an event of a ring of 64 that
 * has been recorded anew stands for a later ticket and waiting for it waits longer than asked,
 * never shorter. fetch_wait touches nothing but that event, so a second thread may call it while
 * the first issues.
 *
 * The blocks are allocated with the first host memory that is asked for, by runs that capture.
 * Considered and not done: kernels that write to pinned memory themselves (the stores of a kernel
 * cross the bus at a fraction of the copy engine's speed and hold its multiprocessors meanwhile).
 */
#include <stdlib.h>

#include "kernels/cuda/cuda.cuh"

enum { BLOCKS = 4, BLOCK_BYTES = 16 << 20, TICKETS = 64 };

struct fkv_cuda_fetching {
    cudaStream_t stream;
    struct {
        char *data; /* [BLOCK_BYTES] on the device */
        cudaEvent_t converted, carried;
    } block[BLOCKS];
    int next;
    uint64_t tickets; /* given so far; the first is 1 */
    cudaEvent_t done[TICKETS];
};

static int make_event(cudaEvent_t *event, struct fkv_error *err) {
    return fkv_cuda_check(
        cudaEventCreateWithFlags(event, cudaEventDisableTiming | cudaEventBlockingSync),
        "creating an event", err);
}

void fkv_cuda_fetching_release(struct fkv_backend *b) {
    struct fkv_cuda_fetching *f = b->fetching;
    if (!f) return;
    if (f->stream) {
        cudaStreamSynchronize(f->stream);
        cudaStreamDestroy(f->stream);
    }
    for (int i = 0; i < BLOCKS; i++) {
        cudaFree(f->block[i].data);
        if (f->block[i].converted) cudaEventDestroy(f->block[i].converted);
        if (f->block[i].carried) cudaEventDestroy(f->block[i].carried);
    }
    for (int i = 0; i < TICKETS; i++)
        if (f->done[i]) cudaEventDestroy(f->done[i]);
    free(f);
    b->fetching = NULL;
}

static int start_fetching(struct fkv_backend *b, struct fkv_error *err) {
    if (b->fetching) return FKV_OK;
    struct fkv_cuda_fetching *f = (struct fkv_cuda_fetching *)calloc(1, sizeof *f);
    if (!f) return fkv_fail(err, "out of memory");
    b->fetching = f;
    int status = fkv_cuda_check(cudaStreamCreateWithFlags(&f->stream, cudaStreamNonBlocking),
                                "creating a stream", err);
    for (int i = 0; i < BLOCKS && !status; i++)
        status =
            fkv_cuda_allocate(BLOCK_BYTES, "states on their way out", &f->block[i].data, err) ||
            make_event(&f->block[i].converted, err) || make_event(&f->block[i].carried, err);
    for (int i = 0; i < TICKETS && !status; i++) status = make_event(&f->done[i], err);
    if (!status) return FKV_OK;
    fkv_cuda_fetching_release(b);
    return FKV_FAILED;
}

size_t fkv_cuda_fetching_bytes(const struct fkv_backend *b) {
    return b->fetching ? 0 : BLOCKS * (size_t)BLOCK_BYTES;
}

int fkv_cuda_host_create(struct fkv_backend *b, size_t bytes, void **out, struct fkv_error *err) {
    if (fkv_cuda_outside_step(b, "host memory", err) || start_fetching(b, err)) return FKV_FAILED;
    return fkv_cuda_allocate_pinned(bytes, "states on their way out", (char **)out, err);
}

void fkv_cuda_host_release(struct fkv_backend *b, void *host) {
    if (!host) return;
    fkv_cuda_use_device(b);
    cudaStreamSynchronize(
        b->fetching->stream); /* rows without a wait, because an operation failed */
    cudaFreeHost(host);
}

/* One piece: rows that fit a block. */
static int carry(struct fkv_backend *b, const char *from, size_t stride, int32_t rows,
                 int32_t width, enum fkv_dtype dtype, char *to, struct fkv_error *err) {
    struct fkv_cuda_fetching *f = b->fetching;
    auto *block = &f->block[f->next];
    size_t bytes = (size_t)rows * (size_t)width * fkv_dtype_bytes(dtype);
    f->next = (f->next + 1) % BLOCKS;
    if (fkv_cuda_check(cudaStreamWaitEvent(b->stream, block->carried, 0), "fetch", err) ||
        fkv_cuda_convert_rows(b, from, stride, rows, width, dtype, block->data, (size_t)width,
                              "fetch", err) ||
        fkv_cuda_check(cudaEventRecord(block->converted, b->stream), "fetch", err) ||
        fkv_cuda_check(cudaStreamWaitEvent(f->stream, block->converted, 0), "fetch", err) ||
        fkv_cuda_check(cudaMemcpyAsync(to, block->data, bytes, cudaMemcpyDeviceToHost, f->stream),
                       "fetch", err) ||
        fkv_cuda_check(cudaEventRecord(block->carried, f->stream), "fetch", err))
        return FKV_FAILED;
    return FKV_OK;
}

int fkv_cuda_fetch(struct fkv_backend *b, const struct fkv_buffer *from, size_t offset,
                   size_t stride, int32_t rows, int32_t width, enum fkv_dtype dtype, void *to,
                   uint64_t *ticket, struct fkv_error *err) {
    struct fkv_cuda_fetching *f = b->fetching;
    size_t row_bytes = (size_t)width * fkv_dtype_bytes(dtype);
    if (fkv_cuda_outside_step(b, "fetch", err) ||
        fkv_cuda_check_rows(from, offset, stride, rows, width, "fetch", err))
        return FKV_FAILED;
    if (!f) return fkv_fail(err, "CUDA: fetch: into memory that this backend has not made");
    if (row_bytes > BLOCK_BYTES)
        return fkv_fail(err, "CUDA: fetch: a row of %zu bytes is longer than a block of %d",
                        row_bytes, BLOCK_BYTES);
    int32_t most = row_bytes ? (int32_t)(BLOCK_BYTES / row_bytes) : rows;
    for (int32_t row = 0; row < rows; row += most) {
        int32_t piece = rows - row < most ? rows - row : most;
        if (carry(b, from->data + offset + sizeof(float) * (size_t)row * stride, stride, piece,
                  width, dtype, (char *)to + (size_t)row * row_bytes, err))
            return FKV_FAILED;
    }
    f->tickets++;
    if (fkv_cuda_check(cudaEventRecord(f->done[f->tickets % TICKETS], f->stream), "fetch", err))
        return FKV_FAILED;
    *ticket = f->tickets;
    return FKV_OK;
}

int fkv_cuda_fetch_wait(struct fkv_backend *b, uint64_t ticket, struct fkv_error *err) {
    fkv_cuda_use_device(b);
    return fkv_cuda_check(cudaEventSynchronize(b->fetching->done[ticket % TICKETS]), "fetch", err);
}
