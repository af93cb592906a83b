/* A rotation: how queries and keys turn with their position, as a config describes it. Most models
 * have one, some one per kind of layer. */
#ifndef FKV_ENGINE_CHECKPOINT_ROPE_H
#define FKV_ENGINE_CHECKPOINT_ROPE_H

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

/* What a rotation is read with. */
struct fkv_rope_defaults {
    const char *layers; /* the kind of layers, where rope_parameters holds one object for each
                           ("full_attention"); NULL: one rotation for all layers */
    double theta;       /* where the config is silent */
    int32_t head_dim;
    int32_t trained_context; /* by the config */
};

/* Reads a config's rotation; `where` names the file in messages. Refuses, by name, kinds that we do
 * not compute. */
int fkv_rope_read(const json_t *root, const char *where, const struct fkv_rope_defaults *defaults,
                  struct fkv_rope *rope, struct fkv_error *err);
/* Divides the frequencies by divisors [channels/2], a scaling that no formula gives. */
int fkv_rope_divide(struct fkv_rope *rope, const float *divisors, struct fkv_error *err);

/* The frequencies [channels/2] of a session whose positions are 0 .. positions - 1.
 *
 * Of kinds that depend on the length (dynamic, longrope) transformers takes those of the longest
 * text so far, and so turns old keys by other angles than it cached them with. Here they are chosen
 * once, when the session opens, by the largest position that it can reach: its window where the
 * policy has one, else its most tokens. So a text of that length gives transformers' result. */
void fkv_rope_frequencies(const struct fkv_rope *rope, int64_t positions, double *inv_freq);

/* "longrope, long factors for 8192 positions (4096 originally)"; false, and "", where the rotation
 * does not depend on the length. */
bool fkv_rope_describe(const struct fkv_rope *rope, int64_t positions, char text[128]);

#endif
