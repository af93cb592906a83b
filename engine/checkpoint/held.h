/* A host's own copy of the weights: one piece of memory, in the order in which they are read. */
#ifndef FKV_ENGINE_CHECKPOINT_HELD_H
#define FKV_ENGINE_CHECKPOINT_HELD_H

#include "engine/checkpoint/model.h"

/* bfloat16 in the place of float32 and float16; block formats and bfloat16 stay. */
enum fkv_weight_format fkv_held_rounded(enum fkv_weight_format stored);

/* Allocates m->held for m->buffer_capacity weights of m->held_bytes together, where that is at most
 * half of the bytes that are available (-1: not known); otherwise it stays NULL. */
int fkv_held_create(struct fkv_model *m, int64_t available, struct fkv_error *err);

/* Copies values at `from`, in the format `stored`, to the next free bytes of m->held, and points
 * the weight, whose format, rows and cols are set, to them. */
int fkv_held_add(struct fkv_model *m, const void *from, enum fkv_weight_format stored,
                 struct fkv_weight *w, struct fkv_error *err);

#endif
