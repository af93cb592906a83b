/* A rotation: how queries and keys turn with their position, as a config describes it. Most models
 * have one, some one per kind of layer. */
#ifndef FKV_ENGINE_CHECKPOINT_ROPE_H
#define FKV_ENGINE_CHECKPOINT_ROPE_H

#include "engine/checkpoint/rope_kinds.h"

/* The scaling that a user puts in the place of a checkpoint's own. */
struct fkv_rope_scaling {
    const struct fkv_rope_kind *kind; /* NULL: the checkpoint's own */
    double factor;                    /* 1 or more */
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
/* Reads what a user typed, "linear:F", "yarn:F" or "dynamic:F"; `what` names the option in
 * messages.
 */
int fkv_rope_scaling_parse(const char *text, const char *what, struct fkv_rope_scaling *scaling,
                           struct fkv_error *err);
/* Puts `scaling` in the place of the rotation's own: `context` is the length before it. The
 * rotation's JSON is then what a config would say, and names the scaling that was `replaces`d. */
int fkv_rope_rescale(struct fkv_rope *rope, const struct fkv_rope_scaling *scaling, int32_t context,
                     struct fkv_error *err);
/* The name of the rotation's scaling, for messages; NULL: it has none. */
const char *fkv_rope_scaling_name(const struct fkv_rope *rope);
/* Divides the frequencies by divisors [channels/2], a scaling that no formula gives. */
int fkv_rope_divide(struct fkv_rope *rope, const float *divisors, struct fkv_error *err);

/* The frequencies [channels/2] of a session whose positions are 0 .. positions - 1.
 *
 * Of kinds that depend on the length (dynamic, longrope) transformers takes those of the longest
 * text so far, and so turns old keys by other angles than it cached them with. Here they are chosen
 * once, when the session opens, by the largest position that it can reach: its window where the
 * policy has one, else its most tokens. So a text of that length gives transformers' result. */
void fkv_rope_frequencies(const struct fkv_rope *rope, int64_t positions, double *inv_freq);

/* "dynamic: frequencies beyond its original context of 4096, for 8192 positions"; false, and "",
 * where the rotation does not depend on the length. */
bool fkv_rope_describe(const struct fkv_rope *rope, int64_t positions, char text[128]);

#endif
