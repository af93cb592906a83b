/* SnapKV (Li et al., arXiv 2404.14469): what the last w queries of a prompt attend to is what the
 * answer will attend to. At the end of a prefill block, per KV head: the attention of the block's
 * last w queries over all slots, summed over those queries; the slots of the last w tokens are left
 * out and stay anyway; the rest is pooled along slots, so that neighbours stay together, and the
 * best (budget - w) stay with them.
 *
 * Paper and code agree on this but for two things. The official code keeps one choice per query
 * head, for it repeats KV heads; here, as in kvpress, a group's scores are averaged and a KV head
 * is stored once. It averages before it pools (kvpress after: the same for averages, and for
 * maxima not). Of the paper's kernels, 5 and 7, the official code's default, 5 with an average, is
 * the default here. */
#include "engine/cache/policies/policies.h"
#include "engine/cache/policies/snapkv.h"

static const struct fkv_policy_option options[] = {FKV_SNAPKV_ROWS, {0}};

int fkv_snapkv_check(struct fkv_policy_setup *setup, struct fkv_error *err) {
    const int64_t *own = setup->own;
    fkv_selecting_default_budget(setup);
    if (own[FKV_BUDGET] <= own[FKV_SNAPKV_OBSERVE])
        return fkv_fail_option(
            err, "--budget: expected more than the %lld slots of --observe, found %lld",
            (long long)own[FKV_SNAPKV_OBSERVE], (long long)own[FKV_BUDGET]);
    if (own[FKV_SNAPKV_KERNEL] % 2 == 0)
        return fkv_fail_option(err, "--kernel: expected an odd number, found %lld",
                               (long long)own[FKV_SNAPKV_KERNEL]);
    return FKV_OK;
}

void fkv_snapkv_select(const struct fkv_policy_setup *setup, const struct fkv_head *head,
                       struct fkv_selection *selection) {
    (void)head;
    *selection = (struct fkv_selection){.budget = (int32_t)setup->own[FKV_BUDGET],
                                        .recent = (int32_t)setup->own[FKV_SNAPKV_OBSERVE],
                                        .observe = (int32_t)setup->own[FKV_SNAPKV_OBSERVE],
                                        .kernel = (int32_t)setup->own[FKV_SNAPKV_KERNEL],
                                        .pool_max = setup->own[FKV_SNAPKV_POOL]};
}

static int prepare(struct fkv_policy_setup *setup, int64_t max_tokens, struct fkv_error *err) {
    if (fkv_snapkv_check(setup, err)) return FKV_FAILED;
    return fkv_selecting_prepare(setup, setup->own[FKV_BUDGET], max_tokens, err);
}

const struct fkv_policy fkv_policy_snapkv = {
    .name = "snapkv",
    .options = options,
    .scores = FKV_SCORE_ATTENTION,
    .prepare = prepare,
    .select = fkv_snapkv_select,
    FKV_SELECTING_ANSWERS,
};
