/* FreqKV's rival at equal memory, on its schedule; see its page below. */
#include "engine/cache/policies/policies.h"
#include "engine/cache/policies/schedule.h"

static void act(const struct fkv_policy_setup *setup, const struct fkv_head *head,
                struct fkv_action *action) {
    const int32_t index = head->layer * setup->kv_heads + head->kv_head;
    fkv_keep_latest(head, setup->sinks, setup->retained[index], true, action);
}

const struct fkv_policy fkv_policy_local = {
    .name = "local",
    .summary = "the first tokens and the latest, on FreqKV's schedule",
    .page = "When the cache of a head holds N slots (--window) and another token arrives,\n"
            "the first S stay (--sinks), and of the n = N - S others the latest L = floor\n"
            "(gamma n). They move down to follow the sinks.\n"
            "\n"
            "Source: FreqKV's rival at equal memory, as its paper has local attention beside\n"
            "it (arXiv 2505.00570); written for this comparison, with FreqKV's schedule, so\n"
            "that both see the same number of slots at every token.\n"
            "\n"
            "Positions: what stays takes the position of its new slot: keys are turned by\n"
            "the distance that they move. No position passes N - 1.\n"
            "\n"
            "Memory: N slots per head, and after an eviction S + L.\n"
            "\n"
            "Defaults: N is the trained context, S 4, gamma 0.5.\n",
    .takes_window = true,
    .mixes = true,
    .takes_ratio = true,
    .counts_evictions = true,
    .prepare = fkv_schedule_prepare,
    .act = act,
    FKV_SCHEDULE_ANSWERS,
};
