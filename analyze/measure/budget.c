/* Owns the choice of per-head ratios under a budget.
 *
 * The curves "loss against coefficients kept" are monotone but not convex: a head whose energy sits
 * in one band gains nothing until that band is reached, so giving the next part to the head that
 * gains most from it (which is exact for convex curves, Fox 1966) can be far from the optimum. The
 * dynamic programme makes no assumption (Bellman 1957; the multiple-choice knapsack problem with
 * equal weights per part):
 *
 *     best_h(b) = min over low <= k <= high of best_{h-1}(b - k) + loss_h(k)
 *
 * Heads come first in the choice table so that the way back needs one byte per (head, parts spent).
 */
#include "analyze/measure/budget.h"

#include <math.h>

#include "kernels/base/memory.h"

static int check(int32_t heads, int32_t steps, int32_t low, int32_t high, int64_t total,
                 struct fkv_error *err) {
    if (low < 1 || low > high || high > steps || steps > 255)
        return fkv_fail(err,
                        "budget: expected 1 <= floor <= cap <= %d parts, found floor %d, cap %d",
                        steps, low, high);
    if (total < (int64_t)heads * low)
        return fkv_fail(
            err, "budget: expected at least %d parts for each of %d heads, found a budget of %lld",
            low, heads, (long long)total);
    return FKV_OK;
}

/* before [total + 1] -> after [total + 1]: one more head with this loss curve; choice [total + 1]
 * is its k. */
static void add_head(const double *loss, int32_t low, int32_t high, int64_t total,
                     const double *before, double *after, uint8_t *choice) {
    for (int64_t b = 0; b <= total; b++) {
        double best = INFINITY;
        uint8_t best_k = 0;
        for (int32_t k = low; k <= high && k <= b; k++) {
            double candidate = before[b - k] + loss[k];
            if (candidate < best) {
                best = candidate;
                best_k = (uint8_t)k;
            }
        }
        after[b] = best;
        choice[b] = best_k;
    }
}

int fkv_budget_share(const double *loss, int32_t heads, int32_t steps, int32_t low, int32_t high,
                     int64_t total, int32_t *parts, struct fkv_error *err) {
    if (check(heads, steps, low, high, total, err)) return FKV_FAILED;
    if (total > (int64_t)heads * high) total = (int64_t)heads * high; /* more cannot be spent */
    const size_t room = (size_t)total + 1;
    struct fkv_memory scratch = {0};
    double *best[2]; /* [total + 1] of the heads so far; at first 0: parts may be left over */
    for (int i = 0; i < 2; i++) best[i] = fkv_memory_take(&scratch, room, sizeof **best);
    uint8_t *choice = fkv_memory_take(&scratch, (size_t)heads, room);
    if (!scratch.failed) {
        for (int32_t h = 0; h < heads; h++)
            add_head(loss + (size_t)h * (size_t)(steps + 1), low, high, total, best[h % 2],
                     best[1 - h % 2], choice + (size_t)h * room);
        int64_t b = total;
        for (int32_t h = heads - 1; h >= 0; h--) {
            parts[h] = choice[(size_t)h * room + (size_t)b];
            b -= parts[h];
        }
    }
    const bool failed = scratch.failed;
    fkv_memory_free(&scratch);
    return failed ? fkv_fail(err, "budget: out of memory for %d heads", heads) : FKV_OK;
}
