/* PyramidKV (Cai et al., arXiv 2406.02069): SnapKV's selection with a budget that falls from the
 * first layer to the last, for attention spreads low and gathers high. With b = budget - w, the
 * slots that are chosen on average:
 *
 *     least = floor(b / beta)
 *     most = 2b - least
 *     where most >= T - w: most = T - w, least = 2b - most
 *     step = floor((most - least) / (layers - 1))
 *     layer l keeps most - l * step, and the last w
 *
 * T is the length of the timeline so far, the same in all layers. Fewer than 2b tokens: b in every
 * layer.
 *
 * The paper gives the budgets of the first and the last layer and a straight line between them;
 * rounding, the rule for short texts and beta = 20 are the official code's, which this follows.
 * Its steps are rounded down, so that all layers together keep a little more than layers * budget:
 * what they kept on average is reported. */
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
    .options = options,
    .scores = FKV_SCORE_ATTENTION,
    .prepare = prepare,
    .select = select_slots,
    FKV_SELECTING_ANSWERS,
};
