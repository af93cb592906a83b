/* Full attention: every slot is kept. The baseline, and past the trained context no reference
 * (definitions.md, "Baseline validity"). */
#include "engine/cache/policies/policies.h"

static int prepare(struct fkv_policy_setup *setup, int64_t max_tokens, struct fkv_error *err) {
    if (max_tokens > INT32_MAX / 2)
        return fkv_fail(err, "policy full: at most %d tokens fit one cache, found %lld",
                        INT32_MAX / 2, (long long)max_tokens);
    setup->capacity = (int32_t)max_tokens;
    return FKV_OK;
}

static void act(const struct fkv_policy_setup *setup, const struct fkv_head *head,
                const struct fkv_evidence *evidence, struct fkv_action *action) {
    (void)setup, (void)evidence;
    *action = (struct fkv_action){.gather_from = action->gather_from, .slots = head->slots};
}

const struct fkv_policy fkv_policy_full = {
    .name = "full",
    .summary = "keep every token",
    .max_spans = 1,
    .prepare = prepare,
    .room = fkv_schedule_room,
    .act = act,
    .position = fkv_slot_position,
    .view = fkv_causal_view,
};
