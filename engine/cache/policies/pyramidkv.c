/* PyramidKV: snapkv.c's selection with a budget per layer; see its page below. */
#include "engine/cache/policies/policies.h"
#include "engine/cache/policies/snapkv.h"

enum { BETA = FKV_SNAPKV_OPTIONS };

static const struct fkv_policy_option options[] = {
    FKV_SNAPKV_ROWS,
    [BETA] = {"beta", FKV_OPTION_INTEGER, "B", 1, 1 << 20, 20,
              "the last layer is left 1/B of what a layer chooses on average", NULL},
    {0},
};

static int32_t chosen(const struct fkv_policy_setup *setup, int32_t layer, int64_t tokens) {
    const int64_t observe = setup->own[FKV_SNAPKV_OBSERVE], b = setup->own[FKV_BUDGET] - observe;
    int64_t least = b / setup->own[BETA], most = 2 * b - least;
    if (tokens < 2 * b) return (int32_t)b;
    if (most >= tokens - observe) {
        most = tokens - observe;
        least = 2 * b - most;
    }
    const int64_t step = setup->layers > 1 ? (most - least) / (setup->layers - 1) : 0;
    return (int32_t)(most - layer * step);
}

static void select_slots(const struct fkv_policy_setup *setup, const struct fkv_head *head,
                         struct fkv_selection *selection) {
    fkv_snapkv_select(setup, head, selection);
    selection->budget = selection->recent + chosen(setup, head->layer, head->tokens);
}

static int prepare(struct fkv_policy_setup *setup, int64_t max_tokens, struct fkv_error *err) {
    if (fkv_snapkv_check(setup, err)) return FKV_FAILED;
    return fkv_selecting_prepare(setup, 2 * setup->own[FKV_BUDGET], max_tokens, err);
}

const struct fkv_policy fkv_policy_pyramidkv = {
    .name = "pyramidkv",
    .summary = "SnapKV with budgets that fall from layer to layer",
    .page = "SnapKV's selection (see snapkv) with a budget that falls from the first layer to\n"
            "the last. With b = budget - w, what a layer chooses on average, and T tokens so\n"
            "far:\n"
            "\n"
            "    least = floor(b / beta)\n"
            "    most  = 2 b - least\n"
            "    where most >= T - w: most = T - w, least = 2 b - most\n"
            "    step  = floor((most - least) / (layers - 1))\n"
            "    layer l keeps most - l * step, and the last w\n"
            "\n"
            "With fewer than 2 b tokens every layer chooses b.\n"
            "\n"
            "Source: PyramidKV, Cai et al., arXiv 2406.02069; Zefan-Cai/KVCache-Factory.\n"
            "\n"
            "Positions: as under snapkv.\n"
            "\n"
            "Paper and code: the paper gives the first and the last layer's budget and a\n"
            "straight line between them; rounding and the rule for short texts are the\n"
            "code's, which this follows. Steps are rounded down, so all layers together keep\n"
            "a little more than layers * budget: what was kept is reported. As under snapkv\n"
            "a KV head is stored once. kvpress differs: it takes b from the length of the\n"
            "text, does not round in between, counts the window within a layer's budget, and\n"
            "falls back to SnapKV where a budget would be below the window.\n"
            "\n"
            "Memory: a block is held whole before it is cut.\n"
            "\n"
            "Defaults: beta = 20, as in the code; the others as under snapkv. The code has a\n"
            "kernel of 5 and an average, too.\n",
    .options = options,
    .scores = FKV_SCORE_ATTENTION,
    .prepare = prepare,
    .select = select_slots,
    FKV_SELECTING_ANSWERS,
};
