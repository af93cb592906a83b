/* H2O; see its page below. */
#include "engine/cache/policies/policies.h"
#include "engine/cache/policies/selecting.h"

enum { HEAVY = FKV_BUDGET + 1 };

static const struct fkv_policy_option options[] = {
    FKV_BUDGET_ROW,
    [HEAVY] = {"heavy", FKV_OPTION_INTEGER, "H", 0, 1 << 28, 0,
               "of the budget, slots for those paid most attention, the others being the latest; "
               "0: half",
               NULL},
    {0},
};

static int prepare(struct fkv_policy_setup *setup, int64_t max_tokens, struct fkv_error *err) {
    int64_t *own = setup->own;
    fkv_selecting_default_budget(setup);
    if (!own[HEAVY]) own[HEAVY] = own[FKV_BUDGET] / 2;
    if (own[HEAVY] > own[FKV_BUDGET])
        return fkv_fail_option(err, "--heavy: expected at most the budget of %lld, found %lld",
                               (long long)own[FKV_BUDGET], (long long)own[HEAVY]);
    return fkv_selecting_prepare(setup, own[FKV_BUDGET], max_tokens, err);
}

static void select_slots(const struct fkv_policy_setup *setup, const struct fkv_head *head,
                         struct fkv_selection *selection) {
    (void)head;
    *selection =
        (struct fkv_selection){.budget = (int32_t)setup->own[FKV_BUDGET],
                               .recent = (int32_t)(setup->own[FKV_BUDGET] - setup->own[HEAVY]),
                               .kernel = 1};
}

const struct fkv_policy fkv_policy_h2o = {
    .name = "h2o",
    .summary = "slots that were paid most attention so far, and the latest",
    .page = "At the end of a prefill block, per KV head: the slots that all queries since\n"
            "token 0 paid most attention to, the heavy hitters (--heavy), and the latest\n"
            "ones, as many as the rest of the budget. Attention is summed after the softmax;\n"
            "a slot that stays takes its sum along.\n"
            "\n"
            "Source: H2O, Zhang et al., arXiv 2306.14048; FMInference/H2O.\n"
            "\n"
            "Positions: what stays keeps the position of its token, as in the official code\n"
            "that drops slots (utils_real_drop; it has a variant with positions inside the\n"
            "cache).\n"
            "\n"
            "Paper and code: the paper evicts one slot per token. The official code cuts the\n"
            "prompt once, at its end, and then evicts at every token that is generated. Here\n"
            "heads are cut at the end of every prefill block and not while decoding: one\n"
            "block is the code's cut of a prompt, `blocks:1` is the paper's schedule. Both\n"
            "choose per query head; here a group's attention is averaged and a KV head is\n"
            "stored once.\n"
            "\n"
            "Memory: a block is held whole before it is cut.\n"
            "\n"
            "Defaults: half of the budget for heavy hitters, half for the latest, as in the\n"
            "official code. The budget is half the trained context.\n",
    .options = options,
    .scores = FKV_SCORE_ATTENTION,
    .prepare = prepare,
    .select = select_slots,
    FKV_SELECTING_ANSWERS,
};
