/* What every backend that computes on the processor (cpu, reference) does alike: buffers that are
 * plain host memory, states on their way out, decode steps, time. Created buffers are owned,
 * adopted ones the caller's; addresses are host pointers. Every operation is done when its call
 * returns, so a fetch has converted by then (its ticket is 0, and there is nothing to wait for) and
 * a step is no more than what is issued in it (NULL). */
#ifndef FKV_KERNELS_HOST_BUFFER_H
#define FKV_KERNELS_HOST_BUFFER_H

#include "kernels/kernels.h"

struct fkv_buffer {
    char *data;
    size_t bytes;
    bool owned; /* false: adopted from the caller */
};

/* The first member of such a backend, by which these functions know it. */
struct fkv_host_stopwatch {
    bool running;
    double begun, sum; /* seconds */
};

int fkv_host_buffer_create(struct fkv_backend *b, size_t bytes, struct fkv_buffer **out,
                           struct fkv_error *err);
int fkv_host_buffer_adopt(struct fkv_backend *b, const void *host, size_t bytes,
                          struct fkv_buffer **out, struct fkv_error *err);
void fkv_host_buffer_release(struct fkv_backend *b, struct fkv_buffer *buffer);
int fkv_host_write(struct fkv_backend *b, struct fkv_buffer *to, size_t offset, const void *from,
                   size_t bytes, struct fkv_error *err);
int fkv_host_read(struct fkv_backend *b, const struct fkv_buffer *from, size_t offset, void *to,
                  size_t bytes, struct fkv_error *err);
int fkv_host_copy(struct fkv_backend *b, struct fkv_buffer *to, size_t to_offset,
                  const struct fkv_buffer *from, size_t from_offset, size_t bytes,
                  struct fkv_error *err);
const void *fkv_host_address(const struct fkv_buffer *buffer);
int fkv_host_copy_rows(struct fkv_backend *b, struct fkv_buffer *to, size_t to_offset,
                       size_t to_stride, const struct fkv_buffer *from, size_t from_offset,
                       size_t from_stride, int32_t rows, int32_t width, struct fkv_error *err);
int fkv_host_synchronize(struct fkv_backend *b, struct fkv_error *err);

int fkv_host_create(struct fkv_backend *b, size_t bytes, void **out, struct fkv_error *err);
void fkv_host_release(struct fkv_backend *b, void *host);
int fkv_host_fetch(struct fkv_backend *b, const struct fkv_buffer *from, size_t offset,
                   size_t stride, int32_t rows, int32_t width, enum fkv_dtype dtype, void *to,
                   uint64_t *ticket, struct fkv_error *err);
int fkv_host_fetch_wait(struct fkv_backend *b, uint64_t ticket, struct fkv_error *err);

int fkv_host_time_begin(struct fkv_backend *b, struct fkv_error *err);
int fkv_host_time_end(struct fkv_backend *b, struct fkv_error *err);
int fkv_host_time_read(struct fkv_backend *b, double *seconds, struct fkv_error *err);

int fkv_host_step_create(struct fkv_backend *b, struct fkv_step **out, struct fkv_error *err);
void fkv_host_step_release(struct fkv_backend *b, struct fkv_step *step);
int fkv_host_step_mark(struct fkv_backend *b, struct fkv_step *step,
                       struct fkv_error *err); /* begin, and end */

int fkv_host_probe(struct fkv_error *err); /* there is always a processor */
/* Refuses to compute in bfloat16: products here are float32 or better. `name`: the backend's. */
int fkv_host_check_options(const struct fkv_backend_options *options, const char *name,
                           struct fkv_error *err);

#endif
