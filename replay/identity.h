/* What made a file of results: model, tokenizer, policy and processor, as the JSON object that
 * stands beside the file (lines_file.h). Commands add what is their own. */
#ifndef FKV_REPLAY_IDENTITY_H
#define FKV_REPLAY_IDENTITY_H

#include "replay/replay.h"

struct fkv_identity {
    const char *format; /* "freqkv-generate" */
    const struct fkv_replay *replay;
    const struct fkv_policy_setup *setup; /* NULL: the file has several policies */
    int32_t batch;                        /* sequences side by side: it changes the rounding */
    int64_t rope_positions; /* for which rotations were chosen; 0: they do not depend on them */
};
/* rope_positions of sessions of a setup that see so many tokens. */
int64_t fkv_identity_rope_positions(const struct fkv_config *config,
                                    const struct fkv_policy_setup *setup, int64_t tokens);

/* Adds cache_quant ("q4") and cache_quant_keys ("before" or "after" RoPE); nothing where the cache
 * is not rounded. */
void fkv_quant_to_json(const struct fkv_policy_setup *setup, json_t *object);

/* A new reference; NULL and a message. Hashes the model. */
json_t *fkv_identity_json(const struct fkv_identity *identity, struct fkv_error *err);
/* Every option of a policy, the defaults that were applied included. A new reference. */
json_t *fkv_identity_policy_json(const struct fkv_policy_setup *setup);

#endif
