/* A checkpoint's config, checked: no other part of the engine checks these numbers again. */
#ifndef FKV_ENGINE_CHECKPOINT_CONFIG_H
#define FKV_ENGINE_CHECKPOINT_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/error.h"
#include "kernels/base/hash.h"
#include "kernels/base/json.h"

enum { FKV_MAX_HEAD_DIM = 512, FKV_MOST_ENDS = 32 };

struct fkv_config {
    char model_type[32]; /* llama, mistral, qwen2, qwen3 */
    int32_t layers, dim, hidden, heads, kv_heads, head_dim, vocab;
    int32_t trained_context; /* max_position_embeddings, or what the user says instead */
    float rms_eps;
    double rope_theta;
    char rope_scaling[512]; /* the config's own JSON, compact; "null" when there is none */
    double inv_freq[FKV_MAX_HEAD_DIM /
                    2];    /* [head_dim/2] radians per position, scaling (linear, llama3) applied */
    double linear_factor;  /* of linear scaling, 1 where there is none */
    float attention_scale; /* 1/sqrt(head_dim) */
    bool tied, qkv_bias, qk_norm;
    int32_t bos, eos;            /* -1 when absent; of several ends the first */
    int32_t ends[FKV_MOST_ENDS]; /* [end_count] tokens that end a text, eos among them */
    int32_t end_count;
    fkv_sha256_hex sha256; /* of the fields above: what config.json adds to the weights. Spaces and
                              fields we do not read leave it as it is. */
};

/* Reads a config.json's object; `where` names it in messages. A `trained_context` other than 0
 * replaces max_position_embeddings. Refuses, by name: unknown architectures, zero or absurd sizes,
 * heads not a multiple of kv_heads, odd head_dim, rope types other than linear and llama3, a
 * sliding window shorter than the trained context, biases we do not compute, activations other than
 * silu. */
int fkv_config_read(const json_t *root, const char *where, int32_t trained_context,
                    struct fkv_config *config, struct fkv_error *err);
/* The same of a text. */
int fkv_config_parse(const char *text, size_t bytes, const char *where, int32_t trained_context,
                     struct fkv_config *config, struct fkv_error *err);
/* The same of DIR/config.json, with the ends that DIR/generation_config.json adds. */
int fkv_config_load(const char *directory, int32_t trained_context, struct fkv_config *config,
                    struct fkv_error *err);
/* Divides the frequencies by divisors [head_dim/2], a scaling that no formula gives. */
int fkv_config_divide_frequencies(struct fkv_config *config, const float *divisors,
                                  struct fkv_error *err);

#endif
