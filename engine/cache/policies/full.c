/* Full attention: every slot is kept. The baseline, and past the trained context no reference
 * (definitions.md, "Baseline validity"). */
#include "engine/cache/policies/policies.h"
#include "engine/cache/policies/schedule.h"

static const char name[] = "full";

const struct fkv_policy fkv_policy_full = {
    .name = name,
    .allows_surgery = true,
    .keeps_every_token = true,
    .max_spans = 1,
    .prepare = fkv_prepare_every_token,
    .append_limit = fkv_schedule_free_slots,
    .act = fkv_no_action,
    .position = fkv_slot_position,
    .view = fkv_causal_view,
};

const struct fkv_policy_options fkv_full_attention = {.name = name, .sinks = -1};
