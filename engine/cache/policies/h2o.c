/* H2O (Zhang et al., arXiv 2306.14048): slots that were paid most attention so far, the heavy
 * hitters, stay together with the latest ones. Attention is summed over all queries since token 0;
 * a slot takes its sum along when it stays.
 *
 * Paper and code evict one slot at every token; here heads are cut at the end of a prefill block,
 * and `blocks:1` is the paper's schedule. Both choose per query head; here a group's attention is
 * averaged and a KV head is stored once. Half the budget for heavy hitters and half for the latest
 * slots, the default, is theirs. */
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
    .options = options,
    .scores = FKV_SCORE_ATTENTION,
    .prepare = prepare,
    .select = select_slots,
    FKV_SELECTING_ANSWERS,
};
