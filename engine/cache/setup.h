/* From what the user asked for to what a policy answers from, and what follows from the schedule
 * without running it. */
#ifndef FKV_ENGINE_CACHE_SETUP_H
#define FKV_ENGINE_CACHE_SETUP_H

#include "engine/cache/policies/policies.h"
#include "engine/checkpoint/config.h"

/* Finds the policy, applies defaults, checks: own options are the policy's, window > sinks +
 * recent, 1 <= L < n (tables: L a multiple of n/64), table of the model's shape and window, a layer
 * that the policy does not leave alone (sliding.c).
 * `max_tokens`: most tokens a session will see. */
int fkv_policy_setup(const struct fkv_policy_options *options, const struct fkv_config *config,
                     int64_t max_tokens, struct fkv_policy_setup *setup, struct fkv_error *err);
/* Refuses a --budget that the policy cannot keep to, because it drops nothing, and one beside
 * another --window. */
int fkv_policy_check_budget(const struct fkv_policy_options *options, struct fkv_error *err);
/* Safe on a zeroed struct and twice. */
void fkv_policy_setup_free(struct fkv_policy_setup *setup);

/* Bytes of a slot's key (or value) of so many channels as they are reported: in the format that the
 * cache is rounded to; where there is none, as stored in `dtype`. */
size_t fkv_policy_state_bytes(const struct fkv_policy_setup *setup, int32_t head_dim,
                              enum fkv_dtype dtype);

/* Tokens between two actions of head `head` of [layers, kv_heads], n - L; 0 where the policy keeps
 * no ratio. */
int32_t fkv_policy_period(const struct fkv_policy_setup *setup, int32_t head);

/* About how many slots the queries of a timeline of so many tokens see, summed: mean over heads, as
 * if the last round between two actions were a whole one. */
double fkv_policy_slots(const struct fkv_policy_setup *setup, int64_t tokens);

#endif
