/* Rotation scaling of a GGUF file. */
#ifndef FKV_ENGINE_CHECKPOINT_GGUF_ROPE_H
#define FKV_ENGINE_CHECKPOINT_GGUF_ROPE_H

#include "engine/checkpoint/gguf.h"
#include "kernels/base/json.h"

/* Adds rope_scaling to a config in Hugging Face's words, where the file has any. Refuses, by key,
 * what changes the numbers in a way that no kind of rope.h has. */
int fkv_gguf_add_rope(const struct fkv_gguf *g, const char *architecture, json_t *config,
                      struct fkv_error *err);

#endif
