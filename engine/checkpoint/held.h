/* A host's own copy of weights: one piece of memory, in the order in which they are read. */
#ifndef FKV_ENGINE_CHECKPOINT_HELD_H
#define FKV_ENGINE_CHECKPOINT_HELD_H

#include "kernels/kernels.h"

/* Zero: no copy. */
struct fkv_held {
    const struct fkv_backend_ops *ops;
    struct fkv_backend *backend; /* borrowed */
    struct fkv_buffer *buffer;   /* NULL: no copy */
    size_t used;                 /* bytes of it that have weights */
};

/* bfloat16 in the place of float32 and float16; block formats and bfloat16 stay. */
enum fkv_weight_format fkv_held_rounded(enum fkv_weight_format stored);

/* Allocates memory for so many weights of `bytes` together, where that is at most `most` bytes (-1:
 * any number) and the system gives it; otherwise there is no copy. */
void fkv_held_create(const struct fkv_backend_ops *ops, struct fkv_backend *backend, int64_t bytes,
                     int32_t weights, int64_t most, struct fkv_held *out);
void fkv_held_release(struct fkv_held *h); /* one that is zero is fine */

/* Copies values at `from`, in the format `stored`, to the next free bytes, and points the weight,
 * whose format, rows and cols are set, to them. */
int fkv_held_add(struct fkv_held *h, const void *from, enum fkv_weight_format stored,
                 struct fkv_weight *w, struct fkv_error *err);

#endif
