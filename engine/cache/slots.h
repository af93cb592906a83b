/* The schedule of a policy without a model: how many slots its queries see, exactly as a session
 * counts them (cache_slots_mean). */
#ifndef FKV_ENGINE_CACHE_SLOTS_H
#define FKV_ENGINE_CACHE_SLOTS_H

#include "engine/cache/setup.h"

/* *sum <- slots that the queries of a timeline of so many tokens see, summed over queries, mean
 * over layers and heads. block: tokens of a prefill block; 0: there is no prefill. */
int fkv_policy_count_slots(const struct fkv_policy_setup *setup, int64_t tokens, int32_t block,
                           double *sum, struct fkv_error *err);

/* Slots that row i of a view sees through its spans [count] (kernels/cache.h). */
int32_t fkv_visible_slots(const struct fkv_span *spans, int32_t count, int32_t i);

#endif
