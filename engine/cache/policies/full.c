/* Full attention; see its page below. Past the trained context it is no reference (definitions.md,
 * "Baseline validity"). */
#include "engine/cache/policies/policies.h"
#include "engine/cache/policies/schedule.h"

static const char name[] = "full";

static int prepare(struct fkv_policy_setup *setup, int64_t max_tokens, struct fkv_error *err) {
    if (max_tokens > INT32_MAX / 2)
        return fkv_fail(err, "policy %s: at most %d tokens fit one cache, found %lld", name,
                        INT32_MAX / 2, (long long)max_tokens);
    setup->capacity = (int32_t)max_tokens;
    return FKV_OK;
}

/* Nothing: the session refuses tokens beyond the capacity. */
static void act(const struct fkv_policy_setup *setup, const struct fkv_head *head,
                struct fkv_action *action) {
    (void)setup, (void)head, (void)action;
}

const struct fkv_policy fkv_policy_full = {
    .name = name,
    .summary = "every token stays: the baseline",
    .page = "Every token stays in the cache, and a query sees all before it. What the other\n"
            "policies are measured against.\n"
            "\n"
            "Source: attention as the model was trained.\n"
            "\n"
            "Positions: the index of a token. Past the trained context a model without\n"
            "longer rotations breaks down, and full attention is no reference there; what\n"
            "is printed says so. A layer with a sliding window of its own sees that window.\n"
            "\n"
            "Memory: all tokens, in every layer.\n"
            "\n"
            "Defaults: it has no options.\n",
    .allows_surgery = true,
    .max_spans = 1,
    .prepare = prepare,
    .append_limit = fkv_schedule_free_slots,
    .act = act,
    .position = fkv_slot_position,
    .view = fkv_causal_view,
};

const struct fkv_policy_options fkv_full_attention = {.name = name, .sinks = -1};
