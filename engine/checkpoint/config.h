/* A checkpoint's config, checked: no other part of the engine checks these numbers again. */
#ifndef FKV_ENGINE_CHECKPOINT_CONFIG_H
#define FKV_ENGINE_CHECKPOINT_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/checkpoint/rope.h"
#include "kernels/base/error.h"
#include "kernels/base/hash.h"
#include "kernels/base/json.h"
#include "kernels/layer.h"

enum { FKV_MOST_ENDS = 32, FKV_MAX_LAYERS = 1024, FKV_MOST_ROTATIONS = 2, FKV_NO_ROTATION = -1 };

/* What is normalised of queries and keys before they turn. */
enum fkv_qk_norm {
    FKV_QK_NORM_NONE,
    FKV_QK_NORM_HEADS, /* each head by itself */
    FKV_QK_NORM_WHOLE  /* all heads together */
};

/* What differs between the layers of one model. */
struct fkv_layer_config {
    int32_t rotation; /* index into the config's rotations, or FKV_NO_ROTATION */
    int32_t window;   /* tokens that a query sees, its own included; 0: all before it */
};

struct fkv_config {
    char model_type[32]; /* a family's, see families.h */
    int32_t layers, dim, hidden, heads, kv_heads, head_dim, vocab;
    int32_t trained_context; /* max_position_embeddings, or what the user says instead */
    float rms_eps;
    struct fkv_rope rotations[FKV_MOST_ROTATIONS]; /* [rotation_count]; the first is of the layers
                                                      that see the whole context */
    int32_t rotation_count;
    struct fkv_layer_config layer[FKV_MAX_LAYERS]; /* [layers] */
    float attention_scale;                         /* on scores, 1/sqrt(head_dim) as a rule */
    float attention_softcap;                       /* s -> cap tanh(s / cap) on scores; 0: none */
    float logits_softcap;                          /* the same on logits, after the multiplier */
    float embedding_multiplier;
    float residual_multiplier; /* on what attention and MLP add to the hidden state */
    float logits_multiplier;
    enum fkv_activation activation;
    bool tied, qkv_bias;
    enum fkv_qk_norm qk_norm;
    bool input_norms;            /* before attention and MLP */
    bool output_norms;           /* after them, before the residual */
    bool norms_less_one;         /* norm weights are stored as w - 1; of the format, not hashed */
    int32_t bos, eos;            /* -1 when absent; of several ends the first */
    int32_t ends[FKV_MOST_ENDS]; /* [end_count] tokens that end a text, eos among them */
    int32_t end_count;
    fkv_sha256_hex sha256; /* of the fields above: what config.json adds to the weights. Spaces and
                              fields we do not read leave it as it is. */
};

/* Whether a session's rotations depend on the positions that it reaches (rope.h). */
bool fkv_config_rotates_by_length(const struct fkv_config *config);

/* Reads a config.json's object; `where` names it in messages. A `trained_context` other than 0
 * replaces max_position_embeddings. Refuses, by name: unknown architectures, zero or absurd sizes,
 * heads not a multiple of kv_heads, odd head_dim, rotations that rope.h refuses, biases and
 * activations that we do not compute. */
int fkv_config_read(const json_t *root, const char *where, int32_t trained_context,
                    struct fkv_config *config, struct fkv_error *err);
/* The same of DIR/config.json, with the ends that DIR/generation_config.json adds. */
int fkv_config_load(const char *directory, int32_t trained_context, struct fkv_config *config,
                    struct fkv_error *err);
/* Divides the frequencies of the first rotation by divisors [channels/2], a scaling that no formula
 * gives. */
int fkv_config_divide_frequencies(struct fkv_config *config, const float *divisors,
                                  struct fkv_error *err);
/* Puts `scaling` in the place of the first rotation's own, from the trained context on, which
 * becomes the longer one where the kind lengthens it. A rotation of sliding layers stays. */
int fkv_config_rescale(struct fkv_config *config, const struct fkv_rope_scaling *scaling,
                       struct fkv_error *err);

#endif
