/* A backend's life, memory and time, and how states leave it. Conventions: kernels.h. */
#ifndef FKV_KERNELS_BACKEND_H
#define FKV_KERNELS_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/error.h"
#include "kernels/dtype.h"

struct fkv_backend; /* one processor and its stream; not shared between threads */
struct fkv_buffer;  /* memory of a backend */
struct fkv_map;     /* a linear map along tokens, n slots -> L slots, prepared by a backend */
struct fkv_step;    /* a sequence of operations that is issued again and again */

enum fkv_space { FKV_HOST, FKV_DEVICE };

/* What the matrix products and attention compute in; sums are float32 always. */
enum fkv_compute {
    FKV_COMPUTE_NATIVE, /* the CPU: float32; an accelerator: the dtype that each weight is stored in
                         */
    FKV_COMPUTE_F32,    /* true float32 everywhere (no TF32), to compare processors */
    FKV_COMPUTE_BF16,   /* bfloat16 products; refused by a processor without them */
};

enum { FKV_ANY_DEVICE = -1 };

struct fkv_backend_options {
    int device; /* index of the accelerator, or FKV_ANY_DEVICE: the first that the backend supports;
                   the CPU ignores it */
    int threads; /* of this backend alone; 0: as many as OpenMP gives the caller, all cores by
                    default */
    enum fkv_compute compute;
};

struct fkv_attention_shape {
    int32_t dim, heads, kv_heads, head_dim; /* heads is a multiple of kv_heads; head_dim is even */
    float scale;                            /* on the scores, 1/sqrt(head_dim) as a rule */
    const double *inv_freq; /* [rotary/2] rotation per position, radians; rotate-half convention:
                               channel i turns with i + rotary/2 */
    int32_t rotary; /* channels of a head that turn, its first; the others pass. Even; 0: none */
    float gain;     /* on the turned channels of queries and keys alike (YaRN, LongRoPE); 1: none */
    float softcap;  /* on scaled scores: s -> softcap tanh(s / softcap); 0: none */
};

struct fkv_limits {
    int32_t rows;        /* most rows of a block */
    int32_t dim, hidden; /* model and MLP width */
    int32_t vocab;
    int32_t slots; /* most slots of a head */
    int32_t items; /* most items or spans of a call */
    struct fkv_attention_shape attention;
};

/* What a run will use of a backend, buffers apart. 0: not used. */
struct fkv_demand {
    struct fkv_limits limits;    /* reserve */
    int32_t map_n, map_retained; /* map_dct, and compress within `limits` */
    int32_t map_matrices;        /* 0: map_dct; else map_matrix, by so many matrices (1 or 2) */
    int32_t segment_n, segment_heads, segment_head_dim; /* power and spectra_add */
    int64_t step_items; /* items and spans of a decode step, all layers */
    bool fetches;       /* host_create and fetch */
};

/* Bytes that a backend takes for itself, on top of what it holds: `shared` is what operations use
 * one after the other, so of several demands the largest counts; `kept` adds up. */
struct fkv_backend_needs {
    int64_t shared;
    int64_t kept;
};

struct fkv_device_info {
    char name[128];
    char kernels[96]; /* the instruction set and the library of the products: "avx512,
                         oneDNN 2.6.3"; on a device its name */
    char note[256];   /* what the user should know of how it will run, or "" */
    int64_t memory_total, memory_free; /* bytes */
    enum fkv_space space;
    int threads; /* processor threads that the backend computes with; 0 on a device */
};

/* ---- life ---- */
/* FKV_OK when this machine has what the backend needs (a supported device, a driver that is new
 * enough). */
typedef int fkv_op_probe(struct fkv_error *err);
/* *out, on the device and with the threads that `options` say; the caller closes it. */
typedef int fkv_op_open(const struct fkv_backend_options *options, struct fkv_backend **out,
                        struct fkv_error *err);
/* NULL is fine */
typedef void fkv_op_close(struct fkv_backend *b);
/* The processor and its memory as they are now. */
typedef int fkv_op_info(struct fkv_backend *b, struct fkv_device_info *out, struct fkv_error *err);
/* Scratch for everything up to `limits`; a second call grows it. */
typedef int fkv_op_reserve(struct fkv_backend *b, const struct fkv_limits *limits,
                           struct fkv_error *err);
/* Adds to `needs` what the backend will take for this demand in the memory of its buffers, so that
 * a run can be refused before it starts. It may prepare what the demand needs, and fails where
 * there is no memory even for that. */
typedef int fkv_op_add_needs(struct fkv_backend *b, const struct fkv_demand *demand,
                             struct fkv_backend_needs *needs, struct fkv_error *err);
/* Waits for everything issued so far. */
typedef int fkv_op_synchronize(struct fkv_backend *b, struct fkv_error *err);

/* ---- time ---- */
/* Starts the stopwatch when the operations issued so far have ended. Does not wait; not within a
 * step. Without a time_end (an operation failed) nothing is counted. */
typedef int fkv_op_time_begin(struct fkv_backend *b, struct fkv_error *err);
/* Stops it when the operations issued so far have ended. Does not wait; not within a step. */
typedef int fkv_op_time_end(struct fkv_backend *b, struct fkv_error *err);
/* Seconds that it has run since the backend was opened. */
typedef int fkv_op_time_read(struct fkv_backend *b, double *seconds, struct fkv_error *err);

/* ---- memory ---- */
/* *out: a new buffer, contents undefined, 64-byte aligned. */
typedef int fkv_op_buffer_create(struct fkv_backend *b, size_t bytes, struct fkv_buffer **out,
                                 struct fkv_error *err);
/* Makes host memory readable by operations. The CPU wraps it (the caller keeps it alive and
 * unchanged); a device copies it. */
typedef int fkv_op_buffer_adopt(struct fkv_backend *b, const void *host, size_t bytes,
                                struct fkv_buffer **out, struct fkv_error *err);
/* NULL is fine */
typedef void fkv_op_buffer_release(struct fkv_backend *b, struct fkv_buffer *buffer);
/* Host memory from [bytes] -> buffer bytes [offset, offset+bytes). */
typedef int fkv_op_write(struct fkv_backend *b, struct fkv_buffer *to, size_t offset,
                         const void *from, size_t bytes, struct fkv_error *err);
/* Buffer bytes [offset, offset+bytes) -> host memory to [bytes]; waits. */
typedef int fkv_op_read(struct fkv_backend *b, const struct fkv_buffer *from, size_t offset,
                        void *to, size_t bytes, struct fkv_error *err);
/* Buffer bytes [from_offset, from_offset+bytes) -> [to_offset, to_offset+bytes) of another, or of
 * the same where they do not overlap. */
typedef int fkv_op_copy(struct fkv_backend *b, struct fkv_buffer *to, size_t to_offset,
                        const struct fkv_buffer *from, size_t from_offset, size_t bytes,
                        struct fkv_error *err);
/* Rows of `width` float32: from [rows, from_stride] -> to [rows, to_stride]; strides in floats,
 * offsets in bytes. */
typedef int fkv_op_copy_rows(struct fkv_backend *b, struct fkv_buffer *to, size_t to_offset,
                             size_t to_stride, const struct fkv_buffer *from, size_t from_offset,
                             size_t from_stride, int32_t rows, int32_t width,
                             struct fkv_error *err);
/* The address of the contents: a host pointer on the CPU, a device pointer elsewhere (for taps; see
 * fkv_device_info.space). */
typedef const void *fkv_op_address(const struct fkv_buffer *buffer);

/* ---- states on their way out ---- */
/* Host memory that `fetch` fills (pinned where that means something), 64-byte aligned. */
typedef int fkv_op_host_create(struct fkv_backend *b, size_t bytes, void **out,
                               struct fkv_error *err);
/* NULL is fine */
typedef void fkv_op_host_release(struct fkv_backend *b, void *host);
/* Rows of `width` float32, `stride` floats apart, from byte `offset` on -> to [rows, width] in
 * `dtype` (rounded to nearest even), memory of host_create. `to` is filled once fetch_wait has
 * returned for this ticket or a later one; the source may be overwritten by operations issued
 * after this. */
typedef int fkv_op_fetch(struct fkv_backend *b, const struct fkv_buffer *from, size_t offset,
                         size_t stride, int32_t rows, int32_t width, enum fkv_dtype dtype, void *to,
                         uint64_t *ticket, struct fkv_error *err);
/* Waits until the fetches up to this ticket are filled in. The only operation that a second thread
 * may call while the first goes on issuing operations. */
typedef int fkv_op_fetch_wait(struct fkv_backend *b, uint64_t ticket, struct fkv_error *err);

/* ---- decode steps ---- */
/* What is issued between step_begin and step_end is, from the second time on, the same sequence of
 * operations with the same buffers, weights, shapes and counts; tokens and the contents of items
 * and spans are what differs. A device records the sequence once and replays it (a CUDA graph);
 * the CPU runs operations as they come. Operations that wait, compress and gather are not allowed
 * within a step. */
typedef int fkv_op_step_create(struct fkv_backend *b, struct fkv_step **out, struct fkv_error *err);
/* NULL is fine */
typedef void fkv_op_step_release(struct fkv_backend *b, struct fkv_step *step);
/* From here on, operations belong to the step. */
typedef int fkv_op_step_begin(struct fkv_backend *b, struct fkv_step *step, struct fkv_error *err);
/* Ends the step, also after a failed operation. */
typedef int fkv_op_step_end(struct fkv_backend *b, struct fkv_step *step, struct fkv_error *err);

#endif
