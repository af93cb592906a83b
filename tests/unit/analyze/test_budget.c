/* Sharing out a budget: against trying every combination, and against greedy sharing where that
 * must lose. */
#include "analyze/measure/budget.h"

#include "tests/unit/support.h"

enum { STEPS = 6, HEADS = 5 };

static double cost(const double *loss, const int32_t *parts, int32_t heads) {
    double sum = 0;
    for (int32_t h = 0; h < heads; h++) sum += loss[h * (STEPS + 1) + parts[h]];
    return sum;
}

/* The least cost over all (high - low + 1)^heads combinations within the budget. */
static double brute_force(const double *loss, int32_t heads, int32_t low, int32_t high,
                          int64_t total) {
    int32_t parts[HEADS];
    double best = INFINITY;
    for (int32_t h = 0; h < heads; h++) parts[h] = low;
    for (;;) {
        int64_t spent = 0;
        for (int32_t h = 0; h < heads; h++) spent += parts[h];
        if (spent <= total) best = fmin(best, cost(loss, parts, heads));
        int32_t h = 0;
        while (h < heads && parts[h] == high) parts[h++] = low;
        if (h == heads) return best;
        parts[h]++;
    }
}

TEST(the_share_costs_what_the_best_of_all_combinations_costs) {
    for (int trial = 0; trial < 200; trial++) {
        double loss[HEADS * (STEPS + 1)];
        int32_t heads = 1 + (int32_t)(test_random() % HEADS), parts[HEADS];
        for (int32_t h = 0; h < heads; h++) {
            double left = 1;
            for (int32_t k = 0; k <= STEPS;
                 k++) { /* falls in steps of any size: neither convex nor concave */
                loss[h * (STEPS + 1) + k] = left;
                if (test_random() % 2) left *= test_uniform();
            }
        }
        int32_t low = 1 + (int32_t)(test_random() % 2), high = STEPS - (int32_t)(test_random() % 2);
        int64_t total =
                    heads * low + (int64_t)(test_random() % (uint64_t)(heads * (STEPS - low) + 3)),
                spent = 0;
        assert_ok(fkv_budget_share(loss, heads, STEPS, low, high, total, parts, &err));
        for (int32_t h = 0; h < heads; h++) {
            assert_in_range(parts[h], low, high);
            spent += parts[h];
        }
        assert_true(spent <= total);
        double found = cost(loss, parts, heads), best = brute_force(loss, heads, low, high, total);
        if (fabs(found - best) > 1e-12) fail_msg("cost %.17g, best %.17g", found, best);
    }
}

/* Head 0 gains a little with every part; head 1 nothing until its fourth, then everything. */
TEST(a_band_that_is_far_up_is_reached_where_greedy_sharing_never_would) {
    const double loss[2 * (STEPS + 1)] = {1, .9, .8, .7, .6, .5, .4, 1, 1, 1, 1, 0, 0, 0};
    int32_t parts[2];
    assert_ok(fkv_budget_share(loss, 2, STEPS, 1, STEPS, 6, parts, &err));
    assert_int_equal(parts[0], 2);
    assert_int_equal(parts[1], 4);
}

TEST(a_budget_below_the_floors_is_refused_with_both_numbers) {
    const double loss[2 * (STEPS + 1)] = {0};
    int32_t parts[2];
    assert_refused(fkv_budget_share(loss, 2, STEPS, 2, STEPS, 3, parts, &err), "a budget of 3");
    assert_refused(fkv_budget_share(loss, 2, STEPS, 3, 2, 30, parts, &err), "floor 3, cap 2");
}
