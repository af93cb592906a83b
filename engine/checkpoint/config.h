/* A checkpoint's config.json, checked: no other part of the engine checks these numbers again. */
#ifndef FKV_ENGINE_CHECKPOINT_CONFIG_H
#define FKV_ENGINE_CHECKPOINT_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/error.h"
#include "kernels/base/hash.h"

enum { FKV_MAX_HEAD_DIM = 512 };

struct fkv_config {
    char model_type[32]; /* llama, mistral, qwen2, qwen3 */
    int32_t layers, dim, hidden, heads, kv_heads, head_dim, vocab;
    int32_t trained_context; /* max_position_embeddings */
    float rms_eps;
    double rope_theta;
    char rope_scaling[512]; /* the config's own JSON, compact; "null" when there is none */
    double inv_freq[FKV_MAX_HEAD_DIM /
                    2];    /* [head_dim/2] radians per position, scaling (linear, llama3) applied */
    float attention_scale; /* 1/sqrt(head_dim) */
    bool tied, qkv_bias, qk_norm;
    int32_t bos, eos;      /* -1 when absent */
    fkv_sha256_hex sha256; /* of the fields above: what config.json adds to the weights. Spaces and
                              fields we do not read leave it as it is. */
};

/* Reads DIR/config.json. Refuses, by name: unknown architectures, zero or absurd sizes, heads not a
 * multiple of kv_heads, odd head_dim, rope types other than linear and llama3, a sliding window
 * shorter than the trained context, biases we do not compute, activations other than silu. */
int fkv_config_load(const char *directory, struct fkv_config *config, struct fkv_error *err);
/* The same of a text; `where` names it in messages. */
int fkv_config_parse(const char *text, size_t bytes, const char *where, struct fkv_config *config,
                     struct fkv_error *err);

#endif
