/* A rotation, and the kinds of scaling that it may have, one row each. */
#ifndef FKV_ENGINE_CHECKPOINT_ROPE_KINDS_H
#define FKV_ENGINE_CHECKPOINT_ROPE_KINDS_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/base/error.h"
#include "kernels/base/json.h"

enum { FKV_MAX_HEAD_DIM = 512, FKV_MAX_CONTEXT = 1 << 30 };

/* Channel i of a head turns together with channel i + channels/2. */
struct fkv_rope {
    int32_t channels; /* of a head that turn, the first ones; even; head_dim as a rule */
    char kind[16];    /* "default", "linear", "dynamic", "yarn", "llama3" or "longrope" */
    double theta;
    double attention_factor; /* on cosine and sine, of queries and keys alike; 1: none */
    double factor;           /* times that the context is stretched; 1: not at all */
    int32_t original;        /* positions before it was stretched; 0: not said */
    bool by_length;          /* other frequencies where a session goes beyond `original` */
    double inv_freq[FKV_MAX_HEAD_DIM / 2]; /* [channels/2] radians per position, scaling applied;
                                              by_length: up to `original` positions */
    double beyond[FKV_MAX_HEAD_DIM / 2];   /* [channels/2] longrope's beyond them */
    char scaling[8192]; /* the config's own JSON, compact; "null" when there is none */
};

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
    /* From the unscaled inv_freq to this kind's; sets the fields that are not plain's. NULL: they
     * are plain. */
    int (*read)(const struct fkv_rope_fields *f, struct fkv_rope *rope, struct fkv_error *err);
    /* Frequencies [channels/2] beyond rope->original positions; NULL: the same at every length. */
    void (*beyond)(const struct fkv_rope *rope, int64_t positions, double *inv_freq);
    bool by_factor; /* a factor says all of it, so that a user may ask for it */
    bool lengthens; /* it makes the trained context `factor` times as long */
};

/* NULL for a kind that we do not compute. */
const struct fkv_rope_kind *fkv_rope_kind_find(const char *name);
/* "default, linear, ... or longrope" */
const char *fkv_rope_kind_names(void);

#endif
