/* See host_buffer.h. */
#include "kernels/host_buffer.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "kernels/base/progress.h"

/* 64-byte aligned, at least one line. What is large takes huge pages where the system gives them on
 * request: a cache of states is then read a fifth faster (one core of an EPYC 9004 in a virtual
 * machine, GB/s: 24 with pages of 4 KiB, 29 with huge ones). */
static void *allocate(size_t bytes) {
    enum { HUGE_PAGE = 2 << 20 };
    char *memory = aligned_alloc(64, (bytes + 127) / 64 * 64);
    const uintptr_t at = (uintptr_t)memory, before = (HUGE_PAGE - at % HUGE_PAGE) % HUGE_PAGE;
    if (memory && bytes >= before + HUGE_PAGE)
        madvise(memory + before, (bytes - before) / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE);
    return memory;
}

static int make_buffer(char *data, size_t bytes, bool owned, struct fkv_buffer **out,
                       struct fkv_error *err) {
    *out = data ? malloc(sizeof **out) : NULL;
    if (!*out) {
        if (owned) free(data);
        return fkv_fail(err, "out of memory: a buffer of %zu bytes", bytes);
    }
    **out = (struct fkv_buffer){.data = data, .bytes = bytes, .owned = owned};
    return FKV_OK;
}

int fkv_host_buffer_create(struct fkv_backend *b, size_t bytes, struct fkv_buffer **out,
                           struct fkv_error *err) {
    (void)b;
    return make_buffer(allocate(bytes), bytes, true, out, err);
}

int fkv_host_buffer_adopt(struct fkv_backend *b, const void *host, size_t bytes,
                          struct fkv_buffer **out, struct fkv_error *err) {
    (void)b;
    return make_buffer((char *)(uintptr_t)host, bytes, false, out,
                       err); /* operations only read what was adopted */
}

void fkv_host_buffer_release(struct fkv_backend *b, struct fkv_buffer *buffer) {
    (void)b;
    if (!buffer) return;
    if (buffer->owned) free(buffer->data);
    free(buffer);
}

static int check_range(const struct fkv_buffer *buffer, size_t offset, size_t bytes,
                       struct fkv_error *err) {
    if (offset <= buffer->bytes && bytes <= buffer->bytes - offset) return FKV_OK;
    return fkv_fail(err, "%zu bytes at %zu do not lie in a buffer of %zu", bytes, offset,
                    buffer->bytes);
}

int fkv_host_write(struct fkv_backend *b, struct fkv_buffer *to, size_t offset, const void *from,
                   size_t bytes, struct fkv_error *err) {
    (void)b;
    if (check_range(to, offset, bytes, err)) return FKV_FAILED;
    if (bytes) memcpy(to->data + offset, from, bytes);
    return FKV_OK;
}

int fkv_host_read(struct fkv_backend *b, const struct fkv_buffer *from, size_t offset, void *to,
                  size_t bytes, struct fkv_error *err) {
    (void)b;
    if (check_range(from, offset, bytes, err)) return FKV_FAILED;
    if (bytes) memcpy(to, from->data + offset, bytes);
    return FKV_OK;
}

int fkv_host_copy(struct fkv_backend *b, struct fkv_buffer *to, size_t to_offset,
                  const struct fkv_buffer *from, size_t from_offset, size_t bytes,
                  struct fkv_error *err) {
    (void)b;
    if (check_range(to, to_offset, bytes, err) || check_range(from, from_offset, bytes, err))
        return FKV_FAILED;
    if (bytes) memmove(to->data + to_offset, from->data + from_offset, bytes);
    return FKV_OK;
}

/* Bytes that `rows` rows of `width` float32 span. */
static size_t span_of(size_t stride, int32_t rows, int32_t width) {
    return rows ? 4 * ((size_t)(rows - 1) * stride + (size_t)width) : 0;
}

int fkv_host_copy_rows(struct fkv_backend *b, struct fkv_buffer *to, size_t to_offset,
                       size_t to_stride, const struct fkv_buffer *from, size_t from_offset,
                       size_t from_stride, int32_t rows, int32_t width, struct fkv_error *err) {
    (void)b;
    if (check_range(to, to_offset, span_of(to_stride, rows, width), err) ||
        check_range(from, from_offset, span_of(from_stride, rows, width), err))
        return FKV_FAILED;
    for (size_t r = 0; r < (size_t)rows; r++)
        memcpy(to->data + to_offset + 4 * r * to_stride,
               from->data + from_offset + 4 * r * from_stride, 4 * (size_t)width);
    return FKV_OK;
}

const void *fkv_host_address(const struct fkv_buffer *buffer) { return buffer->data; }

int fkv_host_synchronize(struct fkv_backend *b, struct fkv_error *err) {
    (void)b, (void)err;
    return FKV_OK;
}

int fkv_host_create(struct fkv_backend *b, size_t bytes, void **out, struct fkv_error *err) {
    (void)b;
    *out = allocate(bytes);
    return *out ? FKV_OK
                : fkv_fail(err, "out of memory: %zu bytes for states on their way out", bytes);
}

void fkv_host_release(struct fkv_backend *b, void *host) {
    (void)b;
    free(host);
}

int fkv_host_fetch(struct fkv_backend *b, const struct fkv_buffer *from, size_t offset,
                   size_t stride, int32_t rows, int32_t width, enum fkv_dtype dtype, void *to,
                   uint64_t *ticket, struct fkv_error *err) {
    (void)b;
    if (check_range(from, offset, span_of(stride, rows, width), err)) return FKV_FAILED;
    const bool gaps = stride != (size_t)width;
    const size_t runs = gaps ? (size_t)rows : 1,
                 run = gaps ? (size_t)width : (size_t)rows * (size_t)width,
                 bytes = run * fkv_dtype_bytes(dtype);
    const float *first = (const float *)(const void *)(from->data + offset);
    for (size_t r = 0; r < runs; r++)
        fkv_from_f32(first + r * stride, dtype, run, (char *)to + r * bytes);
    *ticket = 0;
    return FKV_OK;
}

int fkv_host_fetch_wait(struct fkv_backend *b, uint64_t ticket, struct fkv_error *err) {
    (void)b, (void)ticket, (void)err;
    return FKV_OK;
}

int fkv_host_time_begin(struct fkv_backend *b, struct fkv_error *err) {
    (void)err;
    struct fkv_host_stopwatch *watch = (struct fkv_host_stopwatch *)b;
    watch->running = true;
    watch->begun = fkv_seconds();
    return FKV_OK;
}

int fkv_host_time_end(struct fkv_backend *b, struct fkv_error *err) {
    struct fkv_host_stopwatch *watch = (struct fkv_host_stopwatch *)b;
    if (!watch->running) return fkv_fail(err, "time: an end without a begin");
    watch->running = false;
    watch->sum += fkv_seconds() - watch->begun;
    return FKV_OK;
}

int fkv_host_time_read(struct fkv_backend *b, double *seconds, struct fkv_error *err) {
    (void)err;
    *seconds = ((const struct fkv_host_stopwatch *)b)->sum;
    return FKV_OK;
}

int fkv_host_step_create(struct fkv_backend *b, struct fkv_step **out, struct fkv_error *err) {
    (void)b, (void)err;
    *out = NULL;
    return FKV_OK;
}

void fkv_host_step_release(struct fkv_backend *b, struct fkv_step *step) { (void)b, (void)step; }

int fkv_host_step_mark(struct fkv_backend *b, struct fkv_step *step, struct fkv_error *err) {
    (void)b, (void)step, (void)err;
    return FKV_OK;
}

int fkv_host_probe(struct fkv_error *err) {
    (void)err;
    return FKV_OK;
}

int fkv_host_check_options(const struct fkv_backend_options *options, const char *name,
                           struct fkv_error *err) {
    if (options->threads < 0)
        return fkv_fail(err, "threads: expected 0 (all cores) or more, found %d", options->threads);
    if (options->compute == FKV_COMPUTE_BF16)
        return fkv_fail(err, "compute: the %s backend has no bfloat16 products; use native or f32",
                        name);
    return FKV_OK;
}
