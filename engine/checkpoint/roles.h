/* The parts that tensors play in a model. */
#ifndef FKV_ENGINE_CHECKPOINT_ROLES_H
#define FKV_ENGINE_CHECKPOINT_ROLES_H

#include "engine/checkpoint/config.h"
#include "engine/checkpoint/tensor.h"

/* What a tensor does in the model. The roles from FKV_ATTENTION_NORM on are a layer's. */
enum fkv_role {
    FKV_EMBEDDING,      /* (vocab, dim) */
    FKV_FINAL_NORM,     /* [dim] */
    FKV_HEAD,           /* (vocab, dim); absent where config.tied */
    FKV_ATTENTION_NORM, /* [dim] */
    FKV_QUERY,          /* (heads * head_dim, dim) */
    FKV_KEY,            /* (kv_heads * head_dim, dim) */
    FKV_VALUE,          /* (kv_heads * head_dim, dim) */
    FKV_QUERY_BIAS,     /* [heads * head_dim] */
    FKV_KEY_BIAS,       /* [kv_heads * head_dim] */
    FKV_VALUE_BIAS,     /* [kv_heads * head_dim] */
    FKV_QUERY_NORM,     /* [head_dim], or [heads * head_dim] where config.qk_norm is of the whole */
    FKV_KEY_NORM,       /* [head_dim], or [kv_heads * head_dim] */
    FKV_OUTPUT,         /* (dim, heads * head_dim) */
    FKV_ATTENTION_OUTPUT_NORM, /* [dim], of what attention adds */
    FKV_MLP_NORM,              /* [dim] */
    FKV_GATE,                  /* (hidden, dim) */
    FKV_UP,                    /* (hidden, dim) */
    FKV_DOWN,                  /* (dim, hidden) */
    FKV_MLP_OUTPUT_NORM,       /* [dim], of what the MLP adds */
    FKV_ROLES
};

/* The role's shape by the config; rows 0: a vector. */
void fkv_role_shape(const struct fkv_config *config, enum fkv_role role, int32_t *rows,
                    int32_t *cols);
/* The rows of a role in the tensor that it shares (fused projections): the first of its own, and
 * how many the tensor has in all. */
void fkv_role_shared_rows(const struct fkv_config *config, enum fkv_role role, int32_t *first,
                          int32_t *all);
/* Of the whole tensor *t that the role shares: its rows. */
int fkv_role_slice(const struct fkv_config *config, enum fkv_role role, struct fkv_tensor *t,
                   struct fkv_error *err);
/* Whether a model of this config has such a tensor. */
bool fkv_role_present(const struct fkv_config *config, enum fkv_role role);

/* A matrix of a layer: of attention or of the MLP. */
bool fkv_role_is_projection(enum fkv_role role);
/* The weight of an RMS norm. */
bool fkv_role_is_norm(enum fkv_role role);

/* A tensor whose format and shape are right, as the model computes with it: t->data and t->format
 * are what is mapped, or a *copy that the caller frees, where it stands at an odd address, its
 * heads are paired, or it is stored less one. */
int fkv_role_tensor_arrange(struct fkv_tensor *t, int32_t head_dim, void **copy,
                            struct fkv_error *err);
#endif
