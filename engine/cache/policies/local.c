/* FreqKV's rival at equal memory: the same schedule, but instead of the lowest frequencies it keeps
 * the sinks and the latest L slots, which move down to follow the sinks and take the positions of
 * their new slots. */
#include "engine/cache/policies/policies.h"

static void act(const struct fkv_policy_setup *setup, const struct fkv_head *head,
                const struct fkv_evidence *evidence, struct fkv_action *action) {
    (void)evidence;
    int32_t n = setup->compressible,
            kept = setup->retained[head->layer * setup->kv_heads + head->kv_head];
    action->map_n = 0;
    action->gather_slot = setup->sinks;
    action->gather_count = kept;
    action->gather_shift = kept - n;
    for (int32_t j = 0; j < kept; j++) action->gather_from[j] = setup->sinks + n - kept + j;
    action->slots = setup->sinks + kept;
}

const struct fkv_policy fkv_policy_local = {
    .name = "local",
    .summary = "keep the sinks and the latest L tokens, on FreqKV's schedule",
    .has_window = true,
    .has_gamma = true,
    .evicts = true,
    .max_spans = 1,
    .prepare = fkv_schedule_prepare,
    .room = fkv_schedule_room,
    .act = act,
    .position = fkv_slot_position,
    .view = fkv_causal_view,
};
