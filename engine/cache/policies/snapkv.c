/* SnapKV; see its page below. Averages over a group are formed by the backend's operation, before
 * pooling; where kvpress pools first, maxima would differ. */
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
    .summary = "what the last queries of a prompt attend to, and the latest",
    .page = "At the end of a prefill block, per KV head: the attention that the last w\n"
            "queries (--observe) pay to all slots, summed over those queries. The slots of\n"
            "those w tokens stay. The scores of the others are pooled along slots (--pool,\n"
            "--kernel; stride 1, padded with zeros), so that neighbours stay together, and\n"
            "the best (budget - w) stay.\n"
            "\n"
            "Source: SnapKV, Li et al., arXiv 2404.14469; FasterDecoding/SnapKV.\n"
            "\n"
            "Positions: what stays keeps the position of its token, and queries stand at\n"
            "theirs; what is dropped leaves gaps.\n"
            "\n"
            "Paper and code: the official code repeats KV heads before it chooses, so every\n"
            "query head keeps slots of its own. Here, as in kvpress, the scores of a group\n"
            "of query heads are averaged and a KV head is stored once. Averaged, then pooled\n"
            "here; kvpress pools first: the same for averages, and kvpress has no maximum.\n"
            "kvpress counts 64 queries by default. With its window_size and kernel_size both\n"
            "keep the same slots.\n"
            "\n"
            "Memory: a block is held whole before it is cut.\n"
            "\n"
            "Defaults: w = 32, a kernel of 5, average: those of the official code. The\n"
            "budget is half the trained context; the official code has 2048.\n",
    .options = options,
    .scores = FKV_SCORE_ATTENTION,
    .prepare = prepare,
    .select = fkv_snapkv_select,
    FKV_SELECTING_ANSWERS,
};
