/* Full attention; see its page below. Past the trained context it is no reference (definitions.md,
 * "Baseline validity"). */
#include "engine/cache/policies/policies.h"
#include "engine/cache/policies/schedule.h"

static const char name[] = "full";

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
            "is printed says so. Plain, it goes on with positions that the model has not\n"
            "seen; --rope-scaling stretches them to the length. A layer with a sliding\n"
            "window of its own sees that window.\n"
            "\n"
            "Memory: all tokens, in every layer.\n"
            "\n"
            "Defaults: it has no options.\n",
    .allows_surgery = true,
    .keeps_every_token = true,
    .prepare = fkv_prepare_every_token,
    .act = fkv_no_action,
    FKV_SCHEDULE_ANSWERS,
};

const struct fkv_policy_options fkv_full_attention = {.name = name, .sinks = -1};
