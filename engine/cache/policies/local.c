/* FreqKV's rival at equal memory: the same schedule, but instead of the lowest frequencies it keeps
 * the sinks and the latest L slots, which move down to follow the sinks and take the positions of
 * their new slots. */
#include "engine/cache/policies/policies.h"
#include "engine/cache/policies/schedule.h"

static void act(const struct fkv_policy_setup *setup, const struct fkv_head *head,
                struct fkv_action *action) {
    int32_t n = setup->compressible,
            kept = setup->retained[head->layer * setup->kv_heads + head->kv_head];
    action->gather_slot = setup->sinks;
    action->gather_count = kept;
    action->gather_shift = kept - n;
    for (int32_t j = 0; j < kept; j++) action->gather_from[j] = setup->sinks + n - kept + j;
    action->slots = setup->sinks + kept;
}

const struct fkv_policy fkv_policy_local = {
    .name = "local",
    .takes_window = true,
    .mixes = true,
    .takes_ratio = true,
    .counts_evictions = true,
    .max_spans = 1,
    .prepare = fkv_schedule_prepare,
    .append_limit = fkv_schedule_free_slots,
    .act = act,
    .position = fkv_slot_position,
    .view = fkv_causal_view,
};
