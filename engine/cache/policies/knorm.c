/* Small keys stay (Devoto et al., arXiv 2406.11430): a key of small length tends to be paid much
 * attention. At the end of a prefill block a head keeps the slots with the shortest keys, whatever
 * their place; no query is looked at.
 *
 * The paper leaves the first two layers alone; here, as in kvpress, all layers are treated alike.
 */
#include "engine/cache/policies/policies.h"
#include "engine/cache/policies/selecting.h"

const struct fkv_policy fkv_policy_knorm = {
    .name = "knorm",
    .scores = FKV_SCORE_KEY_NORM,
    FKV_SELECTING_BY_KEYS,
};
