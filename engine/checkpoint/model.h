/* A loaded checkpoint: immutable, shared by any number of sessions. The weights keep their format.
 * A host reads them where they are mapped from disk, or from a copy in memory, if one is asked for
 * and memory allows. To a device they are copied, and a model that does
 * not fit it is refused before anything is read. Every tensor is bound by its role, with its format
 * and shape checked. */
#ifndef FKV_ENGINE_CHECKPOINT_MODEL_H
#define FKV_ENGINE_CHECKPOINT_MODEL_H

#include "engine/checkpoint/adapter.h"
#include "engine/checkpoint/checkpoint.h"
#include "engine/checkpoint/held.h"
#include "kernels/kernels.h"

struct fkv_layer_weights {
    struct fkv_qkv_weights qkv;
    struct fkv_residual_weights output; /* (dim, heads * head_dim) */
    struct fkv_gate_up_weights mlp;     /* (hidden, dim) */
    struct fkv_residual_weights down;   /* (dim, hidden) */
};

struct fkv_model {
    struct fkv_config config;
    struct fkv_attention_shape attention; /* rotated by the first rotation, as it is at any length
                                             up to its original; a session has one per layer */
    char name[256]; /* last part of the path; of a hub cache's snapshot, the model's name; with an
                       adapter "MODEL+ADAPTER" */
    struct fkv_weight embedding;      /* (vocab, dim) */
    struct fkv_layer_weights *layers; /* [config.layers] */
    struct fkv_logits_weights logits; /* (vocab, dim); the embedding when config.tied */
    int64_t weight_bytes;
    int64_t merged_bytes; /* what a host has in float32, with an adapter added */
    int64_t held_bytes; /* what a host's copy of the weights takes; weight_bytes where it has one */
    bool rounds;        /* the copy has, or would have, matrices of other dtypes in bfloat16 */

    const struct fkv_backend_ops *ops; /* of the backend that holds the weights */
    struct fkv_backend *backend;       /* borrowed */
    struct fkv_checkpoint *checkpoint;
    struct fkv_adapter *adapter; /* NULL: none */
    char adapter_name[256];      /* likewise the last part of its path */
    const char *expanded_from;   /* a block format that was expanded for a device, or NULL */
    struct fkv_held held;        /* a host's copy of all weights */
    struct fkv_buffer **buffers; /* without such a copy: one per bound tensor, a tied head apart */
    void **copies; /* [buffer_count] host memory under a buffer that is not mapped, or NULL */
    int32_t buffer_count, buffer_capacity;
};

struct fkv_model_options {
    bool check_values;       /* refuse weights with a NaN or an infinity; reads every weight once */
    int32_t trained_context; /* 0: as the config says */
    struct fkv_rope_scaling rope_scaling; /* in the place of the config's; a NULL kind: none */
    enum fkv_dtype expanded;              /* what a device holds of block formats */
    bool held;                            /* a host copies the weights: for decoding */
    bool rounded; /* a host's copy has matrices of float32 and float16, the embedding apart, in
                     bfloat16, as products in bfloat16 make them; where there are any, it copies */
    const char *adapter; /* the folder of a LoRA adapter, merged while loading; NULL: none */
};

/* Opens the checkpoint `path`, a folder or a file, on `backend`, which must outlive the model. A
 * weight that is not finite is refused with tensor and index. */
int fkv_model_open(const char *path, const struct fkv_backend_ops *ops, struct fkv_backend *backend,
                   const struct fkv_model_options *options, struct fkv_model **out,
                   struct fkv_error *err);
/* SHA-256 of the weights: of the checkpoint's files, with an adapter of that hash and the
 * adapter's. What is made with an adapter is so never taken for what is made without. */
int fkv_model_sha256(const struct fkv_model *model, fkv_sha256_hex out, struct fkv_error *err);
/* "" without an adapter. */
const char *fkv_model_adapter_sha256(const struct fkv_model *model);
void fkv_model_close(struct fkv_model *model); /* NULL is fine */

#endif
