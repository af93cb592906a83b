/* What a policy with a window does in a layer that slides by itself.
 *
 * A layer whose own window is w lets a query see the last w tokens, its own included; that is how
 * it was trained. Two cases:
 *
 *   w < N   The layer forgets sooner than the policy would: the policy leaves it alone. It keeps
 *           exactly the last w tokens, uncompressed and without sinks, whatever ratio a table holds
 *           for it, and it counts no compressions and no evictions.
 *   w >= N  The policy acts as in any other layer. No query sees a slot more than N - 1 positions
 *           back, so w never matters.
 *
 * Without a window (full attention), queries see the last w tokens as well, and every token is
 * kept. A policy that selects slots leaves every such layer alone: it would keep slots that no
 * query of the layer sees.
 *
 * This file is the first case, in the terms of a policy: the slots that no query will see any more
 * are dropped in bulk when storage runs out, and what stays moves down to the positions of its new
 * slots. */
#include "engine/cache/policies/schedule.h"

/* The next query sees one slot of its own, so w - 1 older ones are enough. */
static void act(const struct fkv_policy_setup *setup, const struct fkv_head *head,
                struct fkv_action *action) {
    fkv_keep_latest(head, 0, setup->layer_windows[head->layer] - 1, true, action);
}

static const struct fkv_policy sliding = {
    .name = "of a sliding layer",
    .act = act,
    FKV_SCHEDULE_ANSWERS,
};

const struct fkv_policy *fkv_policy_of_layer(const struct fkv_policy_setup *setup, int32_t layer) {
    const struct fkv_policy *policy = setup->policy;
    const int32_t window = setup->layer_windows[layer];
    const bool forgets = policy->select || (policy->takes_window && window < setup->window);
    return window && forgets ? &sliding : policy;
}
