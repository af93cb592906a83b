/* The mean that a query sees grows with the window, but for the steps in which a schedule's last
 * round ends; bisection finds the window where it comes to what is asked for. */
#include "replay/compare/memory.h"

#include <math.h>
#include <string.h>

#include "engine/cache/policies/selecting.h"
#include "engine/cache/slots.h"

bool fkv_memory_chosen(const struct fkv_policy *policy) {
    return policy->takes_window || policy->select;
}

/* Where the budget of a selecting policy stands among its own options, or would. */
static int find_budget(const struct fkv_policy_options *policy, const char *name) {
    int i = 0;
    while (i < FKV_OWN_OPTIONS - 1 && policy->own[i].name && strcmp(policy->own[i].name, name)) i++;
    return i;
}

static const char *budget_name(const struct fkv_policy *policy) {
    return policy->select ? policy->options[FKV_BUDGET].name : NULL;
}

bool fkv_memory_given(const struct fkv_policy_options *policy) {
    const char *name = budget_name(fkv_policy_find(policy->name, NULL));
    return policy->window || (name && policy->own[find_budget(policy, name)].name);
}

void fkv_memory_set(struct fkv_policy_options *policy, int32_t slots) {
    const struct fkv_policy *found = fkv_policy_find(policy->name, NULL);
    if (found->takes_window) policy->window = slots;
    const char *name = budget_name(found);
    if (name)
        policy->own[find_budget(policy, name)] =
            (struct fkv_own_value){.name = name, .value = slots};
}

int fkv_memory_mean(const struct fkv_policy_options *policy, const struct fkv_config *config,
                    const struct fkv_plan *plan, double *mean, struct fkv_error *err) {
    struct fkv_policy_setup setup;
    if (fkv_policy_setup(policy, config, plan->longest, &setup, err)) return FKV_FAILED;
    double sum = 0, pass = 0;
    int status = FKV_OK;
    for (int64_t p = 0; p < plan->count && !status; p++) {
        const int32_t rows = plan->passes[p].rows;
        if (!p || rows != plan->passes[p - 1].rows)
            status = fkv_policy_count_slots(&setup, rows, plan->block, &pass, err);
        sum += pass;
    }
    fkv_policy_setup_free(&setup);
    *mean = sum / (double)plan->rows;
    return status;
}

/* What the slots are a multiple of. */
static int32_t slot_unit(const struct fkv_policy_options *policy) {
    const struct fkv_policy *found = fkv_policy_find(policy->name, NULL);
    int64_t values[FKV_OWN_OPTIONS];
    const char *texts[FKV_OWN_OPTIONS];
    struct fkv_error refused;
    int i = 0;
    if (!found->window_unit ||
        fkv_own_set(found->name, found->options, policy->own, values, texts, &refused))
        return 1;
    while (strcmp(found->options[i].name, found->window_unit)) i++;
    return (int32_t)values[i];
}

/* The mean with so many slots; 0 where the policy does not work with so few. */
static double mean_with(struct fkv_policy_options policy, const struct fkv_config *config,
                        const struct fkv_plan *plan, int32_t slots) {
    struct fkv_error refused;
    double mean;
    fkv_memory_set(&policy, slots);
    return fkv_memory_mean(&policy, config, plan, &mean, &refused) ? 0 : mean;
}

int fkv_memory_for_mean(const struct fkv_policy_options *policy, const struct fkv_config *config,
                        const struct fkv_plan *plan, double mean, int32_t *slots,
                        struct fkv_error *err) {
    const int32_t unit = slot_unit(policy);
    int32_t below = 0, enough = (plan->longest - 1) / unit + 1; /* in units */
    struct fkv_policy_options widest = *policy;
    double most;
    fkv_memory_set(&widest, enough * unit);
    if (fkv_memory_mean(&widest, config, plan, &most, err))
        return fkv_error_prefix(err, "%d slots, as many as the texts have", enough * unit);
    if (most < mean)
        return fkv_fail_option(err,
                               "--budget: policy %s: expected a mean that the texts reach, at most "
                               "%.1f slots, found %g",
                               policy->name, most, mean);
    while (enough - below > 1) {
        const int32_t middle = below + (enough - below) / 2;
        *(mean_with(*policy, config, plan, middle * unit) < mean ? &below : &enough) = middle;
    }
    const double under = below ? mean_with(*policy, config, plan, below * unit) : 0,
                 over = mean_with(*policy, config, plan, enough * unit);
    *slots = unit * (under > 0 && mean - under <= over - mean ? below : enough);
    return FKV_OK;
}
