/* Answers that selecting policies share, and the selection itself; see selecting.h. */
#include "engine/cache/policies/selecting.h"

#include <math.h>
#include <stdlib.h>

void fkv_selecting_default_budget(struct fkv_policy_setup *setup) {
    int64_t *budget = &setup->own[FKV_BUDGET];
    if (!*budget) *budget = setup->trained_context > 1 ? setup->trained_context / 2 : 1;
}

int fkv_selecting_prepare(struct fkv_policy_setup *setup, int64_t most, int64_t max_tokens,
                          struct fkv_error *err) {
    int64_t capacity = setup->prefill_block ? most + setup->prefill_block : max_tokens;
    for (int32_t l = 0; l < setup->layers; l++) /* layers that slide hold their window */
        if (setup->layer_windows[l] > capacity) capacity = setup->layer_windows[l];
    if (capacity > max_tokens) capacity = max_tokens;
    if (capacity > INT32_MAX / 2)
        return fkv_fail(err, "policy %s: at most %d tokens fit one cache, found %lld",
                        setup->policy->name, INT32_MAX / 2, (long long)capacity);
    setup->capacity = (int32_t)capacity;
    return FKV_OK;
}

const struct fkv_policy_option fkv_budget_option[] = {FKV_BUDGET_ROW, {0}};

int fkv_selecting_prepare_keys(struct fkv_policy_setup *setup, int64_t max_tokens,
                               struct fkv_error *err) {
    fkv_selecting_default_budget(setup);
    return fkv_selecting_prepare(setup, setup->own[FKV_BUDGET], max_tokens, err);
}

void fkv_selecting_by_keys(const struct fkv_policy_setup *setup, const struct fkv_head *head,
                           struct fkv_selection *selection) {
    (void)head;
    *selection = (struct fkv_selection){.budget = (int32_t)setup->own[FKV_BUDGET], .kernel = 1};
}

/* Has the head come to the end of a block and not acted there yet? */
static bool is_due(const struct fkv_policy_setup *setup, const struct fkv_head *head) {
    struct fkv_selection selection;
    if (!head->block || !head->tokens_since || head->tokens > head->prefill ||
        head->tokens % head->block)
        return false;
    setup->policy->select(setup, head, &selection);
    return head->slots > selection.budget;
}

int32_t fkv_selecting_limit(const struct fkv_policy_setup *setup, const struct fkv_head *head) {
    const int32_t free_slots = setup->capacity - head->slots;
    if (is_due(setup, head)) return 0;
    if (!head->block || head->tokens >= head->prefill) return free_slots;
    const int32_t to_end = head->block - (int32_t)(head->tokens % head->block);
    return to_end < free_slots ? to_end : free_slots;
}

int32_t fkv_selecting_view(const struct fkv_policy_setup *setup, const struct fkv_head *head,
                           int32_t rows, struct fkv_span *spans) {
    (void)setup;
    spans[0] = (struct fkv_span){.first = 0,
                                 .end = head->slots,
                                 .from = FKV_NO_LIMIT_BELOW,
                                 .until = head->slots - rows + 1,
                                 .position = (double)(head->tokens - rows)};
    return 1;
}

/* ---- the selection ---- */

static double pooled(const struct fkv_selection *s, const double *score, int32_t slots,
                     int32_t at) {
    const int32_t reach = s->kernel / 2, first = at < reach ? 0 : at - reach,
                  last = at + reach < slots ? at + reach : slots - 1;
    double sum = 0, most = -INFINITY;
    for (int32_t i = first; i <= last; i++) {
        sum += score[i];
        if (score[i] > most) most = score[i];
    }
    return s->pool_max ? most : sum / s->kernel;
}

static int by_score(const void *left, const void *right) {
    const struct fkv_scored_slot *a = left, *b = right;
    if (a->score != b->score) return a->score > b->score ? -1 : 1;
    return (a->slot > b->slot) - (a->slot < b->slot);
}

static int by_slot(const void *left, const void *right) {
    const struct fkv_scored_slot *a = left, *b = right;
    return (a->slot > b->slot) - (a->slot < b->slot);
}

void fkv_select_slots(const struct fkv_selection *s, const double *score, int32_t slots,
                      struct fkv_scored_slot *scratch, int32_t *from) {
    const int32_t others = slots - s->recent, kept = s->budget - s->recent;
    for (int32_t i = 0; i < others; i++)
        scratch[i] =
            (struct fkv_scored_slot){s->kernel > 1 ? pooled(s, score, others, i) : score[i], i};
    qsort(scratch, (size_t)others, sizeof *scratch, by_score);
    qsort(scratch, (size_t)kept, sizeof *scratch, by_slot);
    for (int32_t j = 0; j < kept; j++) from[j] = scratch[j].slot;
    for (int32_t j = kept; j < s->budget; j++) from[j] = others + j - kept;
}
