/* KeyDiff (Park et al., arXiv 2504.15364): keys that point elsewhere than the rest are paid much
 * attention. At the end of a prefill block a head keeps the slots whose keys have the smallest
 * cosine with the mean direction of all its keys, whatever their place; no query is looked at.
 *
 * The mean is of keys of length 1, as in kvpress. Keys are taken as they are in the cache, after
 * RoPE, again as there. */
#include "engine/cache/policies/policies.h"
#include "engine/cache/policies/selecting.h"

const struct fkv_policy fkv_policy_keydiff = {
    .name = "keydiff",
    .scores = FKV_SCORE_KEY_DIRECTION,
    FKV_SELECTING_BY_KEYS,
};
