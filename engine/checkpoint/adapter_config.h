/* adapter_config.json of a PEFT adapter (huggingface.co/docs/peft): of LoRA, what decides the
 * merged weights. */
#ifndef FKV_ENGINE_CHECKPOINT_ADAPTER_CONFIG_H
#define FKV_ENGINE_CHECKPOINT_ADAPTER_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/base/json.h"

struct fkv_adapter_config {
    json_t *root;      /* owned */
    const char *where; /* names the file in messages; the caller's */
    const char *base;  /* base_model_name_or_path, "" where it says none */
    int32_t rank;
    double alpha;
    bool root_scale; /* use_rslora: alpha / sqrt(rank) in place of alpha / rank */
    bool tied;       /* ensure_weight_tying: a tied head follows the embedding */
};

/* Reads the object of an adapter_config.json. Refuses, by name: other types than LoRA, and what
 * would make the merged weights others than base + scale * B A. On failure too the caller frees. */
int fkv_adapter_config_read(json_t *root, const char *where, struct fkv_adapter_config *config,
                            struct fkv_error *err);
void fkv_adapter_config_free(struct fkv_adapter_config *config); /* one that is zero is fine */

/* Whether target_modules names any modules; false: the weights alone say which. */
bool fkv_adapter_config_has_targets(const struct fkv_adapter_config *config);
/* *targeted: whether the module has A and B. `name` is what PEFT calls it, here and below:
 * "model.layers.0.self_attn.q_proj"; linear: it is one of those that "all-linear" means. */
int fkv_adapter_config_targets(const struct fkv_adapter_config *config, const char *name,
                               bool linear, bool *targeted, struct fkv_error *err);
/* *saved: whether the module is one of modules_to_save, or part of one. */
int fkv_adapter_config_saves(const struct fkv_adapter_config *config, const char *name, bool *saved,
                             struct fkv_error *err);
/* Rank and scale of a targeted module, by rank_pattern and alpha_pattern. */
int fkv_adapter_config_scale(const struct fkv_adapter_config *config, const char *name,
                             int32_t *rank, float *scale, struct fkv_error *err);

#endif
