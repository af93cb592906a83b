/* Equal memory: giving policies the slots that they may hold. */
#ifndef FKV_REPLAY_COMPARE_MEMORY_H
#define FKV_REPLAY_COMPARE_MEMORY_H

#include "engine/cache/setup.h"
#include "replay/perplexity/protocol.h"

/* Whether a policy's memory can be chosen; else it keeps what it keeps. */
bool fkv_memory_chosen(const struct fkv_policy *policy);
/* Whether the options say how many slots it has. */
bool fkv_memory_given(const struct fkv_policy_options *policy);
/* Gives it `slots`: its window, or what it keeps after a prefill block. */
void fkv_memory_set(struct fkv_policy_options *policy, int32_t slots);

/* Mean over the queries of all passes of the slots that they see. */
int fkv_memory_mean(const struct fkv_policy_options *policy, const struct fkv_config *config,
                    const struct fkv_plan *plan, double *mean, struct fkv_error *err);
/* *slots <- those with which that mean is nearest to `mean`; of two, the fewer. Refused: a mean
 * that the plan's passes do not reach. */
int fkv_memory_for_mean(const struct fkv_policy_options *policy, const struct fkv_config *config,
                        const struct fkv_plan *plan, double mean, int32_t *slots,
                        struct fkv_error *err);

#endif
