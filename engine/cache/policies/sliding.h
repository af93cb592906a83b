/* What a policy does in layers that slide by themselves. */
#ifndef FKV_ENGINE_CACHE_POLICIES_SLIDING_H
#define FKV_ENGINE_CACHE_POLICIES_SLIDING_H

#include "engine/cache/policies/policy.h"

/* What answers for the heads of a layer: the setup's policy, or, where the layer's own window is
 * below the policy's, one that keeps just that. It has prepare NULL and no options. */
const struct fkv_policy *fkv_policy_of_layer(const struct fkv_policy_setup *setup, int32_t layer);

#endif
