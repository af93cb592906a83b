/* The kinds of RoPE scaling, one row each. Included by rope.c and its tests only. */
#ifndef FKV_ENGINE_CHECKPOINT_ROPE_KINDS_H
#define FKV_ENGINE_CHECKPOINT_ROPE_KINDS_H

#include "engine/checkpoint/rope.h"

/* Where the numbers of a rotation stand. */
struct fkv_rope_fields {
    const json_t *rope; /* the object that describes it, or NULL */
    const char *scope;  /* names that object in messages */
    const json_t
        *outer;        /* the config, where its original_max_position_embeddings counts, or NULL */
    const char *where; /* names the config in messages */
    int32_t context;   /* max_position_embeddings */
};

struct fkv_rope_kind {
    const char *name;
    /* From the unscaled inv_freq to this kind's; sets the fields that are not plain's. */
    int (*read)(const struct fkv_rope_fields *f, struct fkv_rope *rope, struct fkv_error *err);
    /* Frequencies [channels/2] beyond rope->original positions; NULL: the same at every length. */
    void (*beyond)(const struct fkv_rope *rope, int64_t positions, double *inv_freq);
};

/* NULL for a kind that we do not compute. */
const struct fkv_rope_kind *fkv_rope_kind_find(const char *name);
/* "default, linear, ... or longrope" */
const char *fkv_rope_kind_names(void);

#endif
