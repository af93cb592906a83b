/* Buffers that are plain host memory: the memory operations of every backend that computes on the processor (cpu, reference). Created ones are owned,
 * adopted ones the caller's; addresses are host pointers, and every copy is done when the call returns. */
#ifndef FKV_KERNELS_HOST_BUFFER_H
#define FKV_KERNELS_HOST_BUFFER_H

#include "kernels/kernels.h"

struct fkv_buffer {
    char *data;
    size_t bytes;
    bool owned; /* false: adopted from the caller */
};

int fkv_host_buffer_create(struct fkv_backend *b, size_t bytes, struct fkv_buffer **out, struct fkv_error *err);
int fkv_host_buffer_adopt(struct fkv_backend *b, const void *host, size_t bytes, struct fkv_buffer **out,
                          struct fkv_error *err);
void fkv_host_buffer_release(struct fkv_backend *b, struct fkv_buffer *buffer);
int fkv_host_write(struct fkv_backend *b, struct fkv_buffer *to, size_t offset, const void *from, size_t bytes,
                   struct fkv_error *err);
int fkv_host_read(struct fkv_backend *b, const struct fkv_buffer *from, size_t offset, void *to, size_t bytes,
                  struct fkv_error *err);
int fkv_host_copy(struct fkv_backend *b, struct fkv_buffer *to, size_t to_offset, const struct fkv_buffer *from,
                  size_t from_offset, size_t bytes, struct fkv_error *err);
const void *fkv_host_address(const struct fkv_buffer *buffer);
int fkv_host_synchronize(struct fkv_backend *b, struct fkv_error *err); /* nothing to wait for */

#endif
