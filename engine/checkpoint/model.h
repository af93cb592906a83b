/* A loaded checkpoint: immutable, shared by any number of sessions. The weights keep their dtype;
 * on the host they are mapped from disk, to a device they are copied,
 * and a model that does not fit the device is refused before anything is read. Every tensor is
 * bound by one call that checks name, dtype and shape together. */
#ifndef FKV_ENGINE_CHECKPOINT_MODEL_H
#define FKV_ENGINE_CHECKPOINT_MODEL_H

#include "engine/checkpoint/config.h"
#include "engine/checkpoint/safetensors.h"
#include "kernels/kernels.h"

struct fkv_layer_weights {
    struct fkv_qkv_weights qkv;
    struct fkv_weight wo;       /* (dim, heads * head_dim) */
    struct fkv_weight mlp_norm; /* (1, dim) */
    struct fkv_weight gate, up; /* (hidden, dim) */
    struct fkv_weight down;     /* (dim, hidden) */
};

struct fkv_model {
    struct fkv_config config;
    struct fkv_attention_shape attention;
    char
        name[256]; /* last part of the folder's path; of a hub cache's snapshot, the model's name */
    struct fkv_weight embedding; /* (vocab, dim) */
    struct fkv_layer_weights *layers;
    struct fkv_weight final_norm; /* (1, dim) */
    struct fkv_weight head;       /* (vocab, dim); the embedding when config.tied */
    int64_t weight_bytes;

    const struct fkv_backend_ops *ops; /* of the backend that holds the weights */
    struct fkv_backend *backend;       /* borrowed */
    struct fkv_safetensors *files;
    struct fkv_buffer **buffers; /* one per bound tensor; a tied head has none of its own */
    int32_t buffer_count, buffer_capacity;
};

/* Opens the Hugging Face folder `directory` on `backend`, which must outlive the model. Weights
 * with a NaN or an infinity are refused, with tensor and index, when `check_values` is set (it
 * reads every weight once). */
int fkv_model_open(const char *directory, const struct fkv_backend_ops *ops,
                   struct fkv_backend *backend, bool check_values, struct fkv_model **out,
                   struct fkv_error *err);
void fkv_model_close(struct fkv_model *model); /* NULL is fine */

#endif
