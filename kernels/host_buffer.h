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

fkv_op_probe fkv_host_probe; /* there is always a processor */
fkv_op_synchronize fkv_host_synchronize;
fkv_op_time_begin fkv_host_time_begin;
fkv_op_time_end fkv_host_time_end;
fkv_op_time_read fkv_host_time_read;
fkv_op_buffer_create fkv_host_buffer_create;
fkv_op_buffer_adopt fkv_host_buffer_adopt;
fkv_op_buffer_release fkv_host_buffer_release;
fkv_op_write fkv_host_write;
fkv_op_read fkv_host_read;
fkv_op_copy fkv_host_copy;
fkv_op_copy_rows fkv_host_copy_rows;
fkv_op_address fkv_host_address;
fkv_op_host_create fkv_host_create;
fkv_op_host_release fkv_host_release;
fkv_op_fetch fkv_host_fetch;
fkv_op_fetch_wait fkv_host_fetch_wait;
fkv_op_step_create fkv_host_step_create;
fkv_op_step_release fkv_host_step_release;
fkv_op_step_begin fkv_host_step_mark; /* begins, and ends */

/* All of them, for the table of such a backend. */
#define FKV_HOST_OPERATIONS                                                                        \
    .probe = fkv_host_probe, .synchronize = fkv_host_synchronize,                                  \
    .time_begin = fkv_host_time_begin, .time_end = fkv_host_time_end,                              \
    .time_read = fkv_host_time_read, .buffer_create = fkv_host_buffer_create,                      \
    .buffer_adopt = fkv_host_buffer_adopt, .buffer_release = fkv_host_buffer_release,              \
    .write = fkv_host_write, .read = fkv_host_read, .copy = fkv_host_copy,                         \
    .copy_rows = fkv_host_copy_rows, .address = fkv_host_address, .host_create = fkv_host_create,  \
    .host_release = fkv_host_release, .fetch = fkv_host_fetch, .fetch_wait = fkv_host_fetch_wait,  \
    .step_create = fkv_host_step_create, .step_release = fkv_host_step_release,                    \
    .step_begin = fkv_host_step_mark, .step_end = fkv_host_step_mark

/* Refuses to compute in bfloat16: products here are float32 or better. `name`: the backend's. */
int fkv_host_check_options(const struct fkv_backend_options *options, const char *name,
                           struct fkv_error *err);

#endif
