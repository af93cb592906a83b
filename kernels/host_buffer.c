/* See host_buffer.h. */
#include "kernels/host_buffer.h"

#include <stdlib.h>
#include <string.h>

static int make_buffer(char *data, size_t bytes, bool owned, struct fkv_buffer **out, struct fkv_error *err) {
    *out = data ? malloc(sizeof **out) : NULL;
    if (!*out) {
        if (owned) free(data);
        return fkv_fail(err, "out of memory: a buffer of %zu bytes", bytes);
    }
    **out = (struct fkv_buffer){.data = data, .bytes = bytes, .owned = owned};
    return FKV_OK;
}

int fkv_host_buffer_create(struct fkv_backend *b, size_t bytes, struct fkv_buffer **out, struct fkv_error *err) {
    (void)b;
    return make_buffer(aligned_alloc(64, (bytes + 127) / 64 * 64), bytes, true, out, err);
}

int fkv_host_buffer_adopt(struct fkv_backend *b, const void *host, size_t bytes, struct fkv_buffer **out,
                          struct fkv_error *err) {
    (void)b;
    return make_buffer((char *)(uintptr_t)host, bytes, false, out, err); /* operations only read what was adopted */
}

void fkv_host_buffer_release(struct fkv_backend *b, struct fkv_buffer *buffer) {
    (void)b;
    if (!buffer) return;
    if (buffer->owned) free(buffer->data);
    free(buffer);
}

static int check_range(const struct fkv_buffer *buffer, size_t offset, size_t bytes, struct fkv_error *err) {
    if (offset <= buffer->bytes && bytes <= buffer->bytes - offset) return FKV_OK;
    return fkv_fail(err, "%zu bytes at %zu do not lie in a buffer of %zu", bytes, offset, buffer->bytes);
}

int fkv_host_write(struct fkv_backend *b, struct fkv_buffer *to, size_t offset, const void *from, size_t bytes,
                   struct fkv_error *err) {
    (void)b;
    if (check_range(to, offset, bytes, err)) return FKV_FAILED;
    if (bytes) memcpy(to->data + offset, from, bytes);
    return FKV_OK;
}

int fkv_host_read(struct fkv_backend *b, const struct fkv_buffer *from, size_t offset, void *to, size_t bytes,
                  struct fkv_error *err) {
    (void)b;
    if (check_range(from, offset, bytes, err)) return FKV_FAILED;
    if (bytes) memcpy(to, from->data + offset, bytes);
    return FKV_OK;
}

int fkv_host_copy(struct fkv_backend *b, struct fkv_buffer *to, size_t to_offset, const struct fkv_buffer *from,
                  size_t from_offset, size_t bytes, struct fkv_error *err) {
    (void)b;
    if (check_range(to, to_offset, bytes, err) || check_range(from, from_offset, bytes, err)) return FKV_FAILED;
    if (bytes) memmove(to->data + to_offset, from->data + from_offset, bytes);
    return FKV_OK;
}

const void *fkv_host_address(const struct fkv_buffer *buffer) { return buffer->data; }

int fkv_host_synchronize(struct fkv_backend *b, struct fkv_error *err) {
    (void)b, (void)err;
    return FKV_OK;
}
